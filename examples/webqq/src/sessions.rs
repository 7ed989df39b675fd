//! The HTTP sessions of one account. They share its cookies, and differ in what follows a failure
//! and in whether their requests end with a login.

use httpstream::Context;
use httpstream::http::Uri;
use httpstream::session::{Jar, Redirects, Retry, Session, SessionBuilder};

use crate::clock::Clock;
use crate::policy::{Backoff, LONG_TRIES, TRIES};

/// The most redirects that CHECKSIG may take.
const MOST_REDIRECTS: usize = 7;
/// The lane of the messages.
pub(crate) const OUTBOX: &str = "outbox";

pub(crate) struct Sessions {
    pub(crate) jar: Jar,
    /// For requests that are sent once, and for polls, whose readback decides what follows a
    /// failure.
    pub(crate) once: Session,
    /// For requests that may be repeated.
    pub(crate) again: Session,
    /// For messages, one at a time. They do not end with a login, because only the answer to a
    /// message tells whether it was delivered.
    pub(crate) outbox: Session,
    /// For other sites, which get no cookies of the account.
    pub(crate) web: Session,
    /// When a poll without an answer is repeated.
    pub(crate) polls: Retry,
}

impl Sessions {
    pub(crate) fn new(clock: &Clock) -> Self {
        let jar = Jar::new();
        let patience = clock.patience();
        let of_account = || {
            let session = Session::builder().cookies(jar.clone());
            session.error_for_status(true)
        };
        let backoff = |retry: Retry| {
            // A login makes its requests all at once and then hardly any for an hour, so their
            // number says little about how many may be repeated.
            let retry = retry.budget(f32::INFINITY);
            retry.backoff(clock.wait(Backoff::FIRST), clock.wait(Backoff::MOST))
        };
        // The waits between tries are shorter, on average, than the patience with each of them.
        let repeating = |session: SessionBuilder, tries: u32| {
            let session = session.retry(backoff(Retry::attempts(tries)));
            session.total(patience * 2 * tries)
        };
        let redirects = Redirects::limited(MOST_REDIRECTS).decide(|hop| is_of_qq(&hop.to));
        Self {
            once: build(of_account().total(patience)),
            again: build(repeating(of_account(), TRIES).redirects(redirects)),
            outbox: build(of_account().total(patience * 2).lane_concurrency(1)),
            web: build(repeating(Session::builder(), LONG_TRIES)),
            polls: backoff(Retry::forever()),
            jar,
        }
    }

    /// Ends all that was begun for the current login, except the chain of `cx`.
    pub(crate) fn end_login<S>(&self, cx: &mut Context<'_, S>) {
        cx.end(&self.once);
        cx.end(&self.again);
    }

    /// Whether a message is on its way to the server, or its answer on the way back.
    pub(crate) fn is_sending(&self) -> bool {
        self.outbox.lane(OUTBOX).running > 0
    }
}

fn build(session: SessionBuilder) -> Session {
    session
        .build()
        .expect("the settings are valid at any scale")
}

/// Whether a URL leads to the server that the account belongs to.
pub(crate) fn is_of_qq(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    host == "qq.com" || host.ends_with(".qq.com")
}
