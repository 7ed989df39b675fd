//! Sessions: what the requests of one conversation share, such as cookies, credentials, and rules
//! for redirects and content codings.
//!
//! A [`Session`] is a [policy](crate::policy) that is set up once and then carried by requests. It
//! works the same in all the ways a request can be sent: by readbacks, in tasks, from other
//! threads, and in the simulation.
//!
//! ```
//! use httpstream::session::{Jar, Redirects, Session};
//! use httpstream::sim::{Answer, Incoming, Network};
//! use httpstream::{Config, Engine, Next, Sim};
//!
//! let network = Network::new(1);
//! network.host("chat.test", [[10, 0, 0, 1]]);
//! network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| match request.path() {
//!     "/login" => Answer::status(303)
//!         .header("Set-Cookie", "id=7KXW; HttpOnly")
//!         .header("Location", "/home"),
//!     "/home" if request.header("Cookie") == Some(&b"id=7KXW"[..]) => Answer::ok("welcome"),
//!     _ => Answer::status(403),
//! });
//!
//! # #[cfg(feature = "cookies")] {
//! let session = Session::builder()
//!     .base("http://chat.test/")
//!     .redirects(Redirects::limited(10).same_origin())
//!     .cookies(Jar::new())
//!     .error_for_status(true)
//!     .build()?;
//! let login = session.post("login").form([("user", "bot"), ("password", "s3cret")]).build()?;
//!
//! let mut engine = Engine::<String, Sim>::on_network(&network, Config::default())?;
//! engine.submit(login, |page, reply, _| {
//!     *page = match reply {
//!         Ok(response) => String::from_utf8_lossy(response.body()).into_owned(),
//!         Err(error) => format!("{error:#}"),
//!     };
//!     Next::done()
//! });
//! let mut page = String::new();
//! engine.run(&mut page)?;
//! assert_eq!(page, "welcome");
//! # }
//! # Ok::<(), httpstream::Error>(())
//! ```
//!
//! # The steps of a request
//! A request passes the steps that its session has settings for, in this order:
//!
//! 1. It enters its [lane](crate::RequestBuilder::lane), where it waits for a
//!    [place](SessionBuilder::lane_concurrency). It stays in the lane until step 9.
//! 2. It waits for a token of its [lane's rate](SessionBuilder::lane_rate) and one of the
//!    [session's](SessionBuilder::rate). It holds no connection while it waits.
//! 3. The session's fields are added: User-Agent, headers, credentials, cookies, Accept-Encoding.
//!    Fields of the request itself take precedence; a `Cookie` field of its own replaces all
//!    cookies of the jar.
//! 4. The request is sent. The cookies that its response sets are stored.
//! 5. The body of the response is decoded, with [`decode`](SessionBuilder::decode): everything
//!    after this sees the decoded bytes. The bodies that are dropped are not decoded.
//! 6. A 401 with a Digest challenge is answered: the request starts again at step 2, now with
//!    credentials.
//! 7. A redirect is followed: the next request starts at step 2.
//! 8. A failure is [retried](SessionBuilder::retry): after a wait, the request starts again at
//!    step 2.
//! 9. With [`error_for_status`](SessionBuilder::error_for_status), a status of 400 or more becomes
//!    an error. A redirect that was not followed does not.
//! 10. The readback receives the outcome. [`Info::hops`](crate::Info::hops) returns the redirects
//!     that led to it, and [`Info::request`](crate::Info::request) the request that was answered.
//!     [`Next::again`](crate::Next::again) sends the original request again.
//!
//! The readback does not see the responses of steps 6 to 8, and hears of the retries by
//! [`Readback::on_retry`](crate::Readback::on_retry). Their bodies are read and dropped, or their
//! connection is closed, whichever is cheaper. The [timeouts](crate::Timeouts) of phases apply to
//! each exchange, and [`SessionBuilder::total`] to all of them together, waits included. The
//! [address filter](crate::Config::address_filter) applies to each.
//!
//! # Outboxes
//! A server that limits how many messages it takes for each chat is served by one lane for each
//! chat. With [`lane_concurrency`](SessionBuilder::lane_concurrency) of 1, messages to a chat
//! arrive in the order in which they were submitted, and a [`drain`](crate::Engine::drain) lets
//! those that wait finish. Lanes need no setup, and are forgotten when they are idle.
//!
//! ```
//! use std::time::Duration;
//! use httpstream::session::{Rate, Retry, Session};
//!
//! let session = Session::builder()
//!     .base("https://api.example.com/bot/")
//!     .rate(Rate::per_second(30).burst(30))
//!     .lane_rate(Rate::per_minute(20).burst(20))
//!     .lane_concurrency(1)
//!     .retry(Retry::attempts(5))
//!     // The messages before this one may take their time.
//!     .total(Duration::from_secs(3600))
//!     .build()?;
//! let message = session.post("send").lane("chat 42").form([("text", "hello")]).build()?;
//! # Ok::<(), httpstream::Error>(())
//! ```
//!
//! The total timeout counts from the submission of a request, so the time in a lane is part of it.
//!
//! A message is usually a POST, which is sent again only if the server has refused it (408, 425 or
//! 429) or was not reached at all: after any other failure it may have been processed. If the API
//! recognizes a message that it gets twice, by an id in it, mark the request as
//! [`idempotent`](crate::RequestBuilder::idempotent). Otherwise, decide in the readback what
//! becomes of a message that may have arrived. All requests of the session share the
//! [budget](Retry::budget) for retries: raise it if one client has to outlast a server that fails
//! often.
//!
//! On exit, [cancel](crate::Engine::cancel) what is not to be waited for, such as a long poll, and
//! [`drain`](crate::Engine::drain).
//!
//! # The end of a session
//! When a login ends, what was prepared for it must not be sent any more. [`Session::end`] ends all
//! requests of the session that were begun before, with
//! [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled), wherever they are: in flight, queued,
//! delayed, in an inbox, or in another engine. Their readbacks are called with that error, and what
//! they return is ignored. Requests that are begun afterwards belong to the next login. To send a
//! request of an ended login again, such as one kept in a field, begin it anew with
//! [`Request::edit`](crate::Request::edit); otherwise it is canceled, too.
//!
//! Waits, calls and tasks end as well if they were marked by
//! [`Next::session`](crate::Next::session). A task is marked by
//! `local.start(Next::task(future).session(&session))`. One that `spawn` has started goes on, and
//! what it [fetches](crate::Local::fetch) of the old login fails.
//!
//! Cookies stay. Where the next login must not send the old ones, call [`Jar::clear`] after the
//! end.
//!
//! # Other origins
//! A session's own secrets stay with the origin that they are for, whatever a server answers. Its
//! headers go to the origin of its [base](SessionBuilder::base), its credentials to that origin or
//! to the one set by [`Auth::at`], and each cookie to the hosts that it is for.
//!
//! The body of a request and fields such as `X-Api-Key` are not known to be secret. After a 307 or
//! 308 they go along to another origin, even from https to http. Where requests carry a password,
//! follow redirects with [`same_origin`](Redirects::same_origin), or at least with
//! [`https_only`](Redirects::https_only).

use std::fmt;
use std::sync::Arc;

use http::Method;

use crate::builder::RequestBuilder;
use crate::generation::{Generation, Mark};
use crate::policy::Policy;
use crate::proto::has_scheme;
use crate::request::{Carried, Request};

mod auth;
mod builder;
mod decode;
mod ending;
#[cfg(feature = "cookies")]
mod jar;
#[cfg(not(feature = "cookies"))]
#[path = "jar/absent.rs"]
mod jar;
mod pacing;
mod rate;
mod redirects;
mod retry;
mod rules;
mod visit;

pub use crate::response::Hop;
pub use auth::Auth;
pub use builder::SessionBuilder;
pub use decode::Decode;
pub use jar::Jar;
pub use pacing::LaneStats;
pub use rate::Rate;
pub use redirects::{RedirectError, Redirects};
pub use retry::Retry;
use rules::Rules;

/// What the requests of one conversation share. See the [module](self).
///
/// A session is cheap to clone and can be used on all threads; clones share everything.
///
/// ```
/// use httpstream::session::Session;
///
/// let session = Session::builder().base("https://api.example.com/v1/").build()?;
/// let request = session.get("users").param("page", 2).build()?;
/// assert_eq!(request.uri(), "https://api.example.com/v1/users?page=2");
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    /// The value that all requests of the session carry.
    carried: Carried,
    policy: Arc<dyn Policy>,
    rules: Arc<Rules>,
    /// A request for the base, without anything else.
    base: Option<Request>,
    generation: Generation,
}

impl Session {
    /// Creates a session that follows up to ten redirects, and decodes the content codings whose
    /// features are on. It keeps no cookies, since these need a [jar](SessionBuilder::cookies).
    pub fn new() -> Self {
        let session = Self::builder()
            .redirects(Redirects::limited(10))
            .decode(Decode::all());
        session.build().expect("these settings are valid")
    }

    /// Begins to build a session. Without further settings, it does nothing.
    pub fn builder() -> SessionBuilder {
        SessionBuilder::new()
    }

    /// Begins a GET request in the session.
    ///
    /// `url` may be relative to the [base](SessionBuilder::base) (RFC 3986 §5): with the base
    /// `http://a/b`, `c` is `http://a/b/c`, and `/c` is `http://a/c`. Without a base, it must be
    /// absolute.
    ///
    /// Do not format untrusted text into a URL; see
    /// [`segments`](crate::RequestBuilder::segments).
    pub fn get(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// Begins a HEAD request in the session; see [`get`](Self::get).
    pub fn head(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::HEAD, url)
    }

    /// Begins a POST request in the session; see [`get`](Self::get).
    pub fn post(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::POST, url)
    }

    /// Begins a PUT request in the session; see [`get`](Self::get).
    pub fn put(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::PUT, url)
    }

    /// Begins a PATCH request in the session; see [`get`](Self::get).
    pub fn patch(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::PATCH, url)
    }

    /// Begins a DELETE request in the session; see [`get`](Self::get).
    pub fn delete(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::DELETE, url)
    }

    /// Begins a request with any method except CONNECT in the session; see [`get`](Self::get).
    pub fn request(&self, method: Method, url: impl AsRef<str>) -> RequestBuilder {
        let url = url.as_ref();
        let request = match &self.0.base {
            Some(base) if !has_scheme(url) => base.resolve(url).method(method),
            Some(_) | None => Request::builder(method, url),
        };
        request.session(self)
    }

    /// Returns the jar that holds the session's cookies.
    pub fn jar(&self) -> Option<&Jar> {
        self.0.rules.jar.as_ref()
    }

    /// Ends everything that belongs to the session so far, on all threads; see
    /// [the module](self#the-end-of-a-session). The session itself can still be used, for the next
    /// login. The jar keeps its cookies.
    ///
    /// In a readback, use [`Context::end`](crate::Context::end), which does not end the chain that
    /// calls it.
    pub fn end(&self) {
        self.0.generation.end();
    }

    /// Returns what the session has counted since it was built, on all threads.
    pub fn stats(&self) -> SessionStats {
        let counts = &self.0.rules.counts;
        SessionStats {
            attempts: counts.attempts.get(),
            ended: counts.ended.get(),
            failed: counts.failed.get(),
            redirected: counts.redirected.get(),
            challenged: counts.challenged.get(),
            retried: counts.retried.get(),
        }
    }

    /// Returns how many of the session's requests wait for their lane or for a rate, on all
    /// threads.
    pub fn waiting(&self) -> usize {
        let pacing = self.0.rules.pacing.as_ref();
        pacing.map_or(0, |pacing| pacing.waiting())
    }

    /// Returns how many requests of a [lane](crate::RequestBuilder::lane) wait and run, on all
    /// threads. Both are 0 if the session has neither [rates](SessionBuilder::rate) nor
    /// [limits](SessionBuilder::lane_concurrency) of lanes.
    pub fn lane(&self, name: impl AsRef<str>) -> LaneStats {
        let pacing = self.0.rules.pacing.as_ref();
        pacing.map_or_else(LaneStats::default, |pacing| pacing.lane(name.as_ref()))
    }

    pub(crate) fn mark(&self) -> Mark {
        self.0.generation.mark()
    }

    pub(crate) fn generation(&self) -> &Generation {
        &self.0.generation
    }

    pub(crate) fn carried(&self) -> &Carried {
        &self.0.carried
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("rules", &self.0.rules)
            .finish()
    }
}

/// For [`Config::policy`](crate::Config::policy): the session then serves all requests that have
/// none of their own. Those do not [end](Session::end) with it, since they were not built for it.
///
/// ```
/// use httpstream::{Config, session::Session};
///
/// let mut config = Config::default();
/// config.policy = Some(Session::new().into());
/// ```
impl From<Session> for Arc<dyn Policy> {
    fn from(session: Session) -> Self {
        Self::from(&session)
    }
}

impl From<&Session> for Arc<dyn Policy> {
    fn from(session: &Session) -> Self {
        Arc::clone(&session.0.policy)
    }
}

/// The counts of a session, returned by [`Session::stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStats {
    /// Attempts to send a request: redirects, answers to challenges and the engine's own retries
    /// included.
    pub attempts: u64,
    /// Requests that ended: with a response, with an error, or canceled. Does not include those
    /// that ended while they were still delayed or in an inbox, or together with their engine.
    pub ended: u64,
    /// Requests that ended with an error other than a status or a cancellation. A total timeout
    /// that passes between two exchanges is not counted.
    pub failed: u64,
    /// Redirects followed.
    pub redirected: u64,
    /// Challenges answered: requests sent again with credentials.
    pub challenged: u64,
    /// Failed requests sent again, by [`SessionBuilder::retry`].
    pub retried: u64,
}
