//! When a failed request is sent again, and after which wait.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use log::warn;

use crate::engine::{Context, Next};
use crate::error::{Error, ErrorKind};
use crate::policy::{Moment, Outcome};
use crate::response::Response;

mod budget;

use budget::Budget;

/// The statuses after which a request is sent again by default.
const STATUSES: [u16; 7] = [408, 425, 429, 500, 502, 503, 504];

/// The least cap of the wait for a poll whose budget is exhausted.
const LEAST_SLOW: Duration = Duration::from_secs(1);

/// Chains count up to this many failures in a row.
const MOST_ATTEMPTS: u32 = 255;

/// When a failed request is sent again, and after which wait: for sessions
/// ([`SessionBuilder::retry`](super::SessionBuilder::retry)), and by hand ([`Context::retry`]).
///
/// # Which failures
/// - The host could not be resolved, or no address accepted a connection.
/// - The connection broke: in the TLS handshake, before the response, or within it.
/// - A deadline passed, or this machine ran out of a resource.
/// - The response has one of the [`statuses`](Self::statuses).
///
/// A request is sent again only if that is [safe](Error::resend_is_safe): no byte of it was sent,
/// or it is [idempotent](crate::RequestBuilder::idempotent). A request answered with 408, 425 or
/// 429 is sent again in any case, because these say that the server has not processed it.
///
/// # How long to wait
/// A random time, up to a bound that starts at the base and doubles with each failure up to the
/// cap: see [`backoff`](Self::backoff). A server may ask for more, by Retry-After or [in its
/// body](Self::wait_from). The request is then never sent early, and given up if the server asks
/// for more than [`max_wait`](Self::max_wait).
///
/// # How many
/// In a session, there is also a [`budget`](Self::budget), so that retries cannot multiply the load
/// on a server that fails. Clones share it.
///
/// ```
/// use std::time::Duration;
/// use httpstream::session::{Retry, Session};
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Next, Sim};
///
/// let network = Network::new(1);
/// network.host("api.test", [[10, 0, 0, 1]]);
/// network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| {
///     if request.at < Duration::from_secs(10) {
///         Answer::status(429).header("Retry-After", "10")
///     } else {
///         Answer::ok("done")
///     }
/// });
/// let session = Session::builder().base("http://api.test/").retry(Retry::attempts(3)).build()?;
///
/// let mut engine = Engine::<String, Sim>::on_network(&network, Config::default())?;
/// engine.submit(session.post("send").build()?, |text, reply, _| {
///     *text = reply.map_or_else(
///         |error| format!("{error:#}"),
///         |response| response.text().unwrap_or_default().to_owned(),
///     );
///     Next::done()
/// });
/// let mut text = String::new();
/// engine.run(&mut text)?;
/// assert_eq!(text, "done");
/// assert_eq!(session.stats().retried, 1);
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone)]
pub struct Retry {
    /// `None` means any number.
    attempts: Option<u32>,
    base: Duration,
    cap: Duration,
    floor: Option<Duration>,
    max_wait: Option<Duration>,
    statuses: Arc<[u16]>,
    wait_from: Option<Arc<WaitFrom>>,
    budget: Arc<Budget>,
}

type WaitFrom = dyn Fn(&Response<'_>) -> Option<Duration> + Send + Sync;

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// The request is sent again after this wait.
    Again(Duration),
    /// A further attempt would fail as well, or might process the request twice.
    Final,
    /// The attempts are used up.
    Spent,
    /// The server asks for a longer wait than is allowed, or the request would time out before.
    TooLong(Duration),
}

impl Retry {
    /// Sends a request up to `most` times in all: 1 never sends it again. Numbers above 255 count
    /// as 255.
    pub fn attempts(most: u32) -> Self {
        Self {
            attempts: Some(most.min(MOST_ATTEMPTS)),
            base: Duration::from_millis(500),
            cap: Duration::from_secs(60),
            floor: None,
            max_wait: None,
            statuses: Arc::new(STATUSES),
            wait_from: None,
            budget: Arc::new(Budget::new(0.2)),
        }
    }

    /// Sends a request again until it succeeds, for polls. In a session, the total timeout ends it:
    /// see [`SessionBuilder::total`](super::SessionBuilder::total). Failures that a retry cannot
    /// change, such as a 404, are not retried.
    pub fn forever() -> Self {
        Self {
            attempts: None,
            ..Self::attempts(0)
        }
    }

    /// Sets the bounds of the wait. After the first failure it is a random time of at most `base`,
    /// and the bound doubles with each further failure in a row, up to `cap`. By default, 500 ms
    /// and 60 s.
    ///
    /// The whole range is used ("full jitter"), so that clients that have failed together do not
    /// return together.
    #[must_use]
    pub fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        (self.base, self.cap) = (base, cap);
        self
    }

    /// Sets the shortest wait: by default, a fifth of the base.
    #[must_use]
    pub fn floor(mut self, floor: Duration) -> Self {
        self.floor = Some(floor);
        self
    }

    /// Sets the longest wait that a server may ask for: by default, the cap of the
    /// [`backoff`](Self::backoff), or an hour if the server refuses a request with 429 whose
    /// [lane](super::SessionBuilder::lane_rate) is held back as long. If it asks for more, the
    /// request is not sent again, and the readback receives the response.
    #[must_use]
    pub fn max_wait(mut self, most: Duration) -> Self {
        self.max_wait = Some(most);
        self
    }

    /// Sets the statuses after which a request is sent again, all of 400 or more: by default, 408,
    /// 425, 429, 500, 502, 503 and 504.
    #[must_use]
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.statuses = statuses.into_iter().collect();
        self
    }

    /// Sets how many retries a session may send, as a share of its other requests: 0.2 by default,
    /// which is one retry for five requests. [`f32::INFINITY`] lifts the limit; other values must
    /// not be negative.
    ///
    /// A reserve of ten retries comes on top. An empty one is refilled by one retry every ten
    /// seconds, so that a session with few requests can retry them as well. At most a hundred
    /// retries are saved up.
    ///
    /// When the budget is exhausted, [`attempts`](Self::attempts) gives up, and
    /// [`forever`](Self::forever) waits between half the cap and the cap, which counts as at least
    /// a second. A 429 that holds back its [lane](super::SessionBuilder::lane_rate) takes nothing
    /// from the budget, since the lane sends no more than the server allows.
    ///
    /// Not counted are requests that are sent again [by hand](Context::retry), since the engine
    /// does not see the requests that succeed, and those that the engine itself sends again because
    /// a kept connection turned out to be closed.
    #[must_use]
    pub fn budget(mut self, share: f32) -> Self {
        self.budget = Arc::new(Budget::new(share));
        self
    }

    /// Sets how to read the wait that a server asks for in a body. It is called for responses with
    /// one of the [`statuses`](Self::statuses), which are collected for it. If there is a
    /// Retry-After field as well, the longer wait applies.
    ///
    /// ```
    /// # #[cfg(feature = "json")] {
    /// use std::time::Duration;
    /// use httpstream::session::Retry;
    ///
    /// // {"ok":false,"error_code":429,"parameters":{"retry_after":3}}
    /// let retry = Retry::attempts(5).wait_from(|response| {
    ///     let body: serde_json::Value = response.json().ok()?;
    ///     body["parameters"]["retry_after"].as_u64().map(Duration::from_secs)
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn wait_from(
        mut self,
        wait: impl Fn(&Response<'_>) -> Option<Duration> + Send + Sync + 'static,
    ) -> Self {
        self.wait_from = Some(Arc::new(wait));
        self
    }

    /// Returns how long to wait before a request that has failed `failures` times in a row is sent
    /// again, or `None` if it is not to be sent again. This is the rule of
    /// [`Context::retry`], for tasks and policies, which count for themselves.
    ///
    /// ```
    /// use httpstream::session::Retry;
    /// use httpstream::{Error, Local, Request, ResponseExt};
    ///
    /// async fn fetch(http: Local<()>, page: Request) -> Result<Vec<u8>, Error> {
    ///     let retry = Retry::attempts(4);
    ///     let mut failures = 0;
    ///     loop {
    ///         let fetched = http.fetch(page.clone()).await;
    ///         let error = match fetched.and_then(ResponseExt::error_for_status) {
    ///             Ok(response) => return Ok(response.into_body()),
    ///             Err(error) => error,
    ///         };
    ///         failures += 1;
    ///         let Some(wait) = retry.wait(failures, &error, &http.moment()) else {
    ///             return Err(error);
    ///         };
    ///         http.sleep(wait).await;
    ///     }
    /// }
    /// ```
    pub fn wait<'o>(
        &self,
        failures: u32,
        why: impl Into<Outcome<'o>>,
        at: &Moment<'_>,
    ) -> Option<Duration> {
        match self.judge(failures, why.into(), at) {
            Judged::Again(wait) => Some(wait),
            Judged::Final | Judged::Spent | Judged::TooLong(_) => None,
        }
    }

    /// Returns how long to wait after `failures` failures in a row, whatever has failed, or `None`
    /// if the attempts are used up. Use it for what is repeated by a rule of its own, such as a
    /// stream that is opened again when it ends; [`wait`](Self::wait) also judges the failure.
    pub fn wait_after(&self, failures: u32, at: &Moment<'_>) -> Option<Duration> {
        match self.judge_wait(failures, None, at) {
            Judged::Again(wait) => Some(wait),
            Judged::Final | Judged::Spent | Judged::TooLong(_) => None,
        }
    }

    fn judge(&self, failures: u32, why: Outcome<'_>, at: &Moment<'_>) -> Judged {
        match (why.error(), why.response()) {
            (Some(error), _) => self.judge_error(failures, error, error.resend_is_safe(), at),
            (None, Some(response)) => {
                self.judge_response(failures, response, response.resend_is_safe(), at)
            }
            (None, None) => Judged::Final,
        }
    }

    /// `is_safe` is whether the request cannot be processed twice.
    pub(super) fn judge_error(
        &self,
        failures: u32,
        error: &Error,
        is_safe: bool,
        at: &Moment<'_>,
    ) -> Judged {
        let is_repeatable = error.request().is_none_or(|it| it.is_repeatable());
        match error.status() {
            Some(status) if error.kind() == ErrorKind::Status => {
                let is_safe = is_safe || is_unprocessed(status);
                if !is_repeatable || !is_safe || !self.has_status(status) {
                    return Judged::Final;
                }
                self.judge_wait(failures, error.retry_after(), at)
            }
            _ if is_repeatable && is_safe && is_transient(error) => {
                self.judge_wait(failures, None, at)
            }
            _ => Judged::Final,
        }
    }

    /// Judges a response whose body has arrived, if it is needed. `is_safe` is whether the request
    /// cannot be processed twice.
    pub(super) fn judge_response(
        &self,
        failures: u32,
        response: &Response<'_>,
        is_safe: bool,
        at: &Moment<'_>,
    ) -> Judged {
        match self.judge_head(failures, response, is_safe, at) {
            Judged::Again(_) | Judged::TooLong(_) if self.reads_bodies() => {
                self.judge_wait(failures, self.asked(response), at)
            }
            judged => judged,
        }
    }

    /// Judges a response by its head. `is_safe` is whether the request cannot be processed twice.
    pub(super) fn judge_head(
        &self,
        failures: u32,
        head: &Response<'_>,
        is_safe: bool,
        at: &Moment<'_>,
    ) -> Judged {
        let status = head.status();
        let is_repeatable = head.info().request().is_repeatable();
        if !self.has_status(status) || !is_repeatable || !(is_safe || is_unprocessed(status)) {
            return Judged::Final;
        }
        self.judge_wait(failures, head.retry_after(), at)
    }

    /// `asked` is the wait that the server asks for.
    pub(super) fn judge_wait(
        &self,
        failures: u32,
        asked: Option<Duration>,
        at: &Moment<'_>,
    ) -> Judged {
        if self.attempts.is_some_and(|most| failures >= most) {
            return Judged::Spent;
        }
        let asked = asked.unwrap_or_default();
        let wait = self.own_wait(failures, at.random()).max(asked);
        if asked > self.longest_asked() {
            return Judged::TooLong(wait);
        }
        let left = at
            .deadline()
            .map(|end| end.saturating_duration_since(at.now()));
        if left.is_some_and(|left| wait >= left) {
            return Judged::TooLong(wait);
        }
        Judged::Again(wait)
    }

    /// Returns the wait that a response asks for, in its head or its body.
    pub(super) fn asked(&self, response: &Response<'_>) -> Option<Duration> {
        let in_body = self.wait_from.as_ref().and_then(|read| read(response));
        response.retry_after().max(in_body)
    }

    /// Returns the wait after so many failures, without a server's request.
    fn own_wait(&self, failures: u32, random: u64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let most = self.base.saturating_mul(1 << doublings).min(self.cap);
        let floor = self.floor.unwrap_or(self.base / 5);
        share_of(most, random).max(floor)
    }

    /// Returns whether the longest wait that a server may ask for was set.
    pub(super) fn has_longest(&self) -> bool {
        self.max_wait.is_some()
    }

    /// Returns the longest wait that a server may ask for.
    pub(super) fn longest_asked(&self) -> Duration {
        self.max_wait.unwrap_or(self.cap)
    }

    /// Takes a retry from the budget, and returns how long to wait before it is sent; `None` if it
    /// must not be sent. The flag is whether it was taken: if none is left, a longer wait bounds
    /// the load instead.
    pub(super) fn take(&self, wait: Duration, at: &Moment<'_>) -> Option<(Duration, bool)> {
        if self.budget.take(at.now()) {
            return Some((wait, true));
        }
        if self.attempts.is_some() {
            return None;
        }
        let half = self.cap.max(LEAST_SLOW) / 2;
        let slow = half.saturating_add(share_of(half, at.random()));
        let wait = slow.max(wait);
        let end = at.deadline();
        let is_late = end.is_some_and(|end| wait >= end.saturating_duration_since(at.now()));
        (!is_late).then_some((wait, false))
    }

    /// Gives back a retry that was taken and not sent.
    pub(super) fn give_back(&self) {
        self.budget.give_back();
    }

    /// Counts a request that is not a retry.
    pub(super) fn earn(&self) {
        self.budget.earn();
    }

    pub(super) fn has_status(&self, status: StatusCode) -> bool {
        self.statuses.contains(&status.as_u16())
    }

    /// Whether it needs the bodies of the responses with its statuses.
    pub(super) fn reads_bodies(&self) -> bool {
        self.wait_from.is_some()
    }

    /// Checks the settings.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let share = self.budget.share();
        if share.is_nan() || share < 0.0 {
            return Err("retry: the budget is no share");
        }
        if self.base > self.cap {
            return Err("retry: the base of the backoff exceeds its cap");
        }
        if self.statuses.iter().any(|status| *status < 400) {
            return Err("retry: a status below 400 is no failure");
        }
        if self.attempts == Some(0) {
            return Err("retry: attempts count the first one, so 0 would send nothing");
        }
        Ok(())
    }
}

/// Returns a random time between zero and `most`.
fn share_of(most: Duration, random: u64) -> Duration {
    // Five hundred years are long enough.
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    let share = (u128::from(nanos) * u128::from(random)) >> 64;
    Duration::from_nanos(share as u64)
}

/// Whether a status says that the server has not processed the request: RFC 9110 §15.5.9 (408), RFC
/// 8470 §5.2 (425), RFC 6585 §4 (429).
fn is_unprocessed(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429)
}

/// Whether another attempt may succeed where this one has failed.
fn is_transient(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Resolve
        | ErrorKind::ClosedBeforeResponse
        | ErrorKind::Truncated
        | ErrorKind::Io
        | ErrorKind::Timeout
        | ErrorKind::Exhausted => true,
        ErrorKind::Connect => {
            // The engine's own refusals have no code of the operating system: the address filter's,
            // and those of routes that this system cannot provide.
            let tried = error.addresses();
            tried.is_empty() || tried.iter().any(|(_, why)| !is_refused_here(why))
        }
        // The connection broke in the handshake. All else is a matter of certificates or versions.
        ErrorKind::Tls => error
            .source()
            .is_some_and(|source| source.is::<io::Error>()),
        _ => false,
    }
}

fn is_refused_here(why: &io::Error) -> bool {
    let is_refusal = matches!(
        why.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
    );
    is_refusal && why.raw_os_error().is_none()
}

impl<S> Context<'_, S> {
    /// Returns the step that sends the chain's last request again, by the rules of `policy`:
    /// [`Next::again`] after a wait, or [`Next::done`] if it is not to be sent again. That the
    /// attempts are used up is logged as a warning.
    ///
    /// `why` is a reference to an error, a response, or a reply. A successful response gives
    /// `done`. The chain's [`failures`](Self::failures) in a row are counted, so chains that share
    /// a `Retry` count separately. Its [budget](Retry::budget) does not apply.
    ///
    /// ```
    /// use httpstream::session::Retry;
    /// use httpstream::{Context, Next, Reply};
    ///
    /// struct Bot { retry: Retry, seen: Vec<String> }
    ///
    /// impl Bot {
    ///     fn on_poll(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
    ///         match reply {
    ///             Ok(response) if response.status() == 200 => {
    ///                 self.seen.extend(response.text().map(str::to_owned));
    ///                 Next::again()
    ///             }
    ///             failed => cx.retry(&self.retry, &failed),
    ///         }
    ///     }
    /// }
    /// ```
    pub fn retry<'o>(&self, policy: &Retry, why: impl Into<Outcome<'o>>) -> Next<S> {
        let judged = policy.judge(self.failures(), why.into(), &self.moment());
        if let Judged::Again(wait) = judged {
            return Next::again().after(wait);
        }
        if let Some(origin) = self.request().map(|request| request.origin()) {
            match judged {
                Judged::Spent => warn!("{origin}: given up after {} attempts", self.failures()),
                Judged::TooLong(asked) => {
                    warn!("{origin}: given up, since the server asks to wait for {asked:?}");
                }
                Judged::Again(_) | Judged::Final => {}
            }
        }
        Next::done()
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("attempts", &self.attempts)
            .field("base", &self.base)
            .field("cap", &self.cap)
            .field("statuses", &self.statuses)
            .field("budget", &self.budget)
            .field("reads_bodies", &self.reads_bodies())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
