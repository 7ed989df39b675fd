//! The error type of the crate: kind, phase, origin, cause, and whether the request can safely be
//! sent again.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;

use crate::proto::{Invalid, Origin, Scheme, Violation};
use crate::request::Request;
use crate::resolver::LookupError;
use crate::tls::Problem;

/// The kind of an [`Error`].
///
/// ```
/// use httpstream::{Error, ErrorKind};
///
/// /// Whether the same request may succeed a minute later.
/// fn is_temporary(error: &Error) -> bool {
///     match error.kind() {
///         ErrorKind::Resolve | ErrorKind::Connect | ErrorKind::Timeout => true,
///         ErrorKind::ClosedBeforeResponse | ErrorKind::Truncated | ErrorKind::Io => true,
///         ErrorKind::Exhausted | ErrorKind::Full => true,
///         _ => false,
///     }
/// }
///
/// let error = httpstream::Request::get("http://example.com:0/").build().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidRequest);
/// assert!(!is_temporary(&error));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request cannot be sent as it was built. The source names the part and the position of
    /// the offending byte.
    InvalidRequest,
    /// The configuration is invalid.
    InvalidConfig,
    /// The host has no address, or the lookup failed; see [`Error::lookup`]. Name servers that do
    /// not answer are reported as [`Timeout`](Self::Timeout).
    Resolve,
    /// No address of the host accepted a connection; see [`Error::addresses`], which is empty for a
    /// unix socket.
    Connect,
    /// TLS failed, either in the handshake or later, on a record or an alert; see `Error::tls`.
    Tls,
    /// The connection was closed before the first byte of the response. See [`Error::request_sent`]
    /// for what this means for a POST.
    ClosedBeforeResponse,
    /// The connection was closed inside the response, or a coding of the body ended early; see
    /// [`Error::partial_body`].
    Truncated,
    /// Reading or writing failed.
    Io,
    /// The response violates the protocol (see [`Error::violation`]), or its body cannot be
    /// decoded.
    Malformed,
    /// The response exceeds one of the [`Limits`](crate::Limits), the limit on the decoded bytes of
    /// a streamed body, or that on an [event](crate::Events::max_event_bytes) or a
    /// [line](crate::Lines::max_bytes); see [`Error::violation`].
    TooLarge,
    /// A deadline passed, which the source names: that of a phase, the total deadline of the
    /// request, or that of its [chain](crate::Next::chain_timeout). [`Error::phase`] returns the
    /// phase, and [`Error::lookup`] and [`Error::addresses`] return which peers did not answer.
    Timeout,
    /// This machine ran out of file descriptors, ports or memory, and none became available before
    /// the deadline.
    Exhausted,
    /// The chain was canceled.
    Cancelled,
    /// A readback returned [`Flow::Abort`](crate::Flow::Abort).
    Aborted,
    /// The engine has been dropped, or the chain ended because user code of it panicked.
    Gone,
    /// The engine's inbox already holds [`Config::max_inbox`](crate::Config::max_inbox)
    /// submissions.
    Full,
    /// A response arrived whose [`Error::status`] the caller treats as an error. Such errors are
    /// created by [`Error::of_status`]; [`Error::partial_body`] holds the response's body.
    Status,
    /// A policy refused the request or gave it up. Such errors are created by [`Error::policy`];
    /// the source holds the reason.
    Policy,
    /// The body of the request could not be read from its [source](crate::BodySource), or is not as
    /// long as the source said; or the body of the response could not be written to the file that
    /// it is saved to. The source of the error holds the reason.
    Body,
}

impl ErrorKind {
    fn as_str(self) -> &'static str {
        match self {
            ErrorKind::InvalidRequest => "request cannot be sent",
            ErrorKind::InvalidConfig => "configuration cannot be used",
            ErrorKind::Resolve => "host could not be resolved",
            ErrorKind::Connect => "could not connect",
            ErrorKind::Tls => "TLS failed",
            ErrorKind::ClosedBeforeResponse => {
                "connection closed before the first byte of the response"
            }
            ErrorKind::Truncated => "response cut short",
            ErrorKind::Io => "I/O error",
            ErrorKind::Malformed => "malformed response",
            ErrorKind::TooLarge => "response exceeds a limit",
            ErrorKind::Timeout => "timed out",
            ErrorKind::Exhausted => "out of file descriptors, ports or memory",
            ErrorKind::Cancelled => "canceled",
            ErrorKind::Aborted => "aborted by its readback",
            ErrorKind::Gone => "the engine is gone",
            ErrorKind::Full => "the engine's inbox is full",
            ErrorKind::Status => "response status is an error",
            ErrorKind::Policy => "stopped by its policy",
            ErrorKind::Body => "the body could not be read or saved on this machine",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far an exchange had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Phase {
    /// The request was being built.
    Build,
    /// Waiting: for its delay, for a connection, or for a file descriptor.
    Queue,
    /// Looking up the host.
    Resolve,
    /// Connecting.
    Connect,
    /// In the TLS handshake.
    Tls,
    /// Writing the request.
    Write,
    /// Waiting for the first byte of the response; the request has been written.
    FirstByte,
    /// Reading the header section.
    Head,
    /// Reading the body.
    Body,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Phase::Build => "building the request",
            Phase::Queue => "waiting to be sent",
            Phase::Resolve => "resolving the host",
            Phase::Connect => "connecting",
            Phase::Tls => "in the TLS handshake",
            Phase::Write => "writing the request",
            Phase::FirstByte => "waiting for the response",
            Phase::Head => "reading the head",
            Phase::Body => "reading the body",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the request left this machine. The variants are ordered: the more certain it is that the
/// peer has seen the request, the greater the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sent {
    /// No byte was written.
    No,
    /// Some or all of the request was written and no byte of a response arrived, so the peer may
    /// have processed it.
    Maybe,
    /// The peer answered, so it has seen the request.
    Yes,
}

/// What had been sent for a request before its current attempt, by the engine's retry or by a
/// policy that sent the request again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Earlier {
    pub(crate) sent: Sent,
    pub(crate) resend_is_safe: bool,
}

/// Why a request has no response, or only part of one. One pointer wide.
///
/// `{}` prints what failed, `{:#}` adds the cause, and [`source`](StdError::source) returns the
/// cause alone. For a request that cannot be sent and for an invalid configuration `{}` already
/// includes the cause, because there the cause is what failed.
///
/// ```
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, ErrorKind, Next, Phase, Request, Sent, Sim};
///
/// let network = Network::new(1);
/// network.host("shop.test", [[10, 0, 0, 1]]);
/// // This server closes the connection instead of answering.
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::nothing().close());
///
/// let mut engine = Engine::<u32, Sim>::on_network(&network, Config::default())?;
/// engine.submit(
///     Request::post("http://shop.test/order").body("1 tea").build()?,
///     |failed, reply, _| {
///         let error = reply.expect_err("there is no answer");
///         assert_eq!(error.kind(), ErrorKind::ClosedBeforeResponse);
///         assert_eq!(error.phase(), Phase::FirstByte);
///         assert_eq!(error.request_sent(), Sent::Maybe);
///         assert!(!error.resend_is_safe(), "the order may have been placed");
///         *failed += 1;
///         Next::done()
///     },
/// );
/// let mut failed = 0;
/// engine.run(&mut failed)?;
/// assert_eq!(failed, 1);
/// # Ok::<(), httpstream::Error>(())
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    phase: Phase,
    sent: Sent,
    resend_is_safe: bool,
    reused: bool,
    attempts: u8,
    origin: Option<Origin>,
    request: Option<Request>,
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
    partial_body: Vec<u8>,
    source: Source,
}

enum Source {
    None,
    Violation(Violation),
    Invalid(Invalid),
    Io(io::Error),
    Lookup(Lookup),
    Addresses(Addresses),
    Tls(Problem),
    Reason(Reason),
    Other(Box<dyn StdError + Send + Sync>),
}

/// Why a host has no address, and which servers said so.
#[derive(Debug)]
struct Lookup {
    error: LookupError,
    servers: String,
    /// The deadline that passed, if the lookup timed out.
    deadline: Option<String>,
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(deadline) = &self.deadline {
            write!(f, "{deadline}: ")?;
        }
        write!(f, "{}", self.error)?;
        match self.error {
            LookupError::NotFound | LookupError::NoAddress if !self.servers.is_empty() => {
                write!(f, ", according to {}", self.servers)
            }
            // The other variants already name the servers they concern.
            _ => Ok(()),
        }
    }
}

impl StdError for Lookup {}

/// The addresses that were tried, each with the reason why it failed.
#[derive(Debug)]
struct Addresses {
    /// The deadline that passed, if connecting timed out.
    deadline: Option<String>,
    tried: Vec<(SocketAddr, io::Error)>,
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        if let Some(deadline) = &self.deadline {
            f.write_str(deadline)?;
            between = ": ";
        }
        for (addr, error) in self.tried.iter().take(Self::MAX_TOLD) {
            write!(f, "{between}{addr}: {error}")?;
            between = "; ";
        }
        match self.tried.len().saturating_sub(Self::MAX_TOLD) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl Addresses {
    /// A line with more addresses than this is unreadable; [`Error::addresses`] returns all of
    /// them.
    const MAX_TOLD: usize = 16;
}

impl StdError for Addresses {}

/// A cause that consists of text only.
#[derive(Debug)]
struct Reason(String);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Reason {}

/// The state of an exchange at the time it failed.
#[derive(Debug)]
pub(crate) struct Circumstances {
    pub(crate) phase: Phase,
    pub(crate) sent: Sent,
    pub(crate) resend_is_safe: bool,
    pub(crate) reused: bool,
    pub(crate) attempts: u8,
    pub(crate) origin: Option<Origin>,
    pub(crate) request: Option<Request>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) partial_body: Vec<u8>,
}

impl Circumstances {
    /// Merges what was sent before the current attempt.
    pub(crate) fn behind(mut self, earlier: Earlier) -> Self {
        self.sent = self.sent.max(earlier.sent);
        self.resend_is_safe &= earlier.resend_is_safe;
        self
    }
}

impl Error {
    fn bare(kind: ErrorKind, phase: Phase, source: Source) -> Self {
        Self(Box::new(Inner {
            kind,
            phase,
            sent: Sent::No,
            resend_is_safe: true,
            reused: false,
            attempts: 0,
            origin: None,
            request: None,
            status: None,
            retry_after: None,
            partial_body: Vec::new(),
            source,
        }))
    }

    pub(crate) fn invalid_request(invalid: Invalid) -> Self {
        Self::bare(
            ErrorKind::InvalidRequest,
            Phase::Build,
            Source::Invalid(invalid),
        )
    }

    pub(crate) fn invalid_config(why: String) -> Self {
        Self::bare(
            ErrorKind::InvalidConfig,
            Phase::Build,
            Source::Reason(Reason(why)),
        )
    }

    /// Creates the error of a session that cannot decode a response, to be
    /// [placed](Self::placed_at) in its exchange.
    pub(crate) fn malformed(why: String) -> Self {
        Self::bare(
            ErrorKind::Malformed,
            Phase::Queue,
            Source::Reason(Reason(why)),
        )
    }

    /// Creates an error of this kind for a response that an edge cannot use, to be
    /// [placed](Self::placed_at) in its exchange. Its source is `why`.
    #[cfg(feature = "websocket")]
    pub(crate) fn unusable(
        kind: ErrorKind,
        why: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::bare(kind, Phase::Queue, Source::Other(why.into()))
    }

    /// Turns this error into one for another reason, in the same circumstances.
    #[cfg(feature = "websocket")]
    pub(crate) fn because(
        mut self,
        kind: ErrorKind,
        why: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        self.0.kind = kind;
        self.0.source = Source::Other(why.into());
        self
    }

    /// Creates the error that a policy returns to refuse a request or to give it up. Its kind is
    /// [`ErrorKind::Policy`] and its source is `why`.
    ///
    /// ```
    /// use httpstream::{Error, ErrorKind};
    ///
    /// let error = Error::policy("a streamed body cannot be signed");
    /// assert_eq!(error.kind(), ErrorKind::Policy);
    /// assert_eq!(format!("{error:#}"), "stopped by its policy: a streamed body cannot be signed");
    /// ```
    pub fn policy(why: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::bare(ErrorKind::Policy, Phase::Queue, Source::Other(why.into()))
    }

    /// Adds the circumstances of the exchange in which a policy returned this error. An error that
    /// already has a request came from an exchange of its own and keeps what it reports, except for
    /// what readbacks base a resend on: `request_sent` and `resend_is_safe` then cover both
    /// exchanges.
    pub(crate) fn placed_at(self, at: Circumstances) -> Self {
        match self.0.request {
            Some(_) => self.behind(Earlier {
                sent: at.sent,
                resend_is_safe: at.resend_is_safe,
            }),
            None => Self::placed(self.0.kind, at, self.0.source),
        }
    }

    /// Returns the circumstances of this error, for an error that takes its place; `otherwise` if
    /// it has none.
    pub(crate) fn circumstances(&self, otherwise: Circumstances) -> Circumstances {
        match &self.0.request {
            None => otherwise,
            Some(request) => Circumstances {
                phase: self.0.phase,
                sent: self.0.sent,
                resend_is_safe: self.0.resend_is_safe,
                reused: self.0.reused,
                attempts: self.0.attempts,
                origin: self.0.origin.clone(),
                request: Some(request.clone()),
                status: self.0.status,
                partial_body: Vec::new(),
            },
        }
    }

    /// Creates an error of the engine itself rather than of an exchange: its poll failed.
    pub(crate) fn io(error: io::Error) -> Self {
        Self::bare(ErrorKind::Io, Phase::Queue, Source::Io(error))
    }

    /// Creates the error for a future whose engine was dropped before the response to `request`
    /// arrived. `earlier` is what had been sent of it.
    pub(crate) fn gone(request: Request, earlier: Earlier) -> Self {
        let mut error = Self::from(Gone).behind(earlier);
        error.0.origin = Some(request.origin());
        error.0.request = Some(request);
        error
    }

    /// Creates an error without a cause.
    pub(crate) fn of(kind: ErrorKind, at: Circumstances) -> Self {
        Self::placed(kind, at, Source::None)
    }

    pub(crate) fn from_violation(violation: Violation, at: Circumstances) -> Self {
        Self::placed(Self::kind_of(&violation), at, Source::Violation(violation))
    }

    pub(crate) fn from_io(kind: ErrorKind, error: io::Error, at: Circumstances) -> Self {
        Self::placed(kind, at, Source::Io(error))
    }

    pub(crate) fn from_addresses(
        kind: ErrorKind,
        deadline: Option<String>,
        tried: Vec<(SocketAddr, io::Error)>,
        at: Circumstances,
    ) -> Self {
        Self::placed(kind, at, Source::Addresses(Addresses { deadline, tried }))
    }

    pub(crate) fn from_lookup(error: LookupError, servers: String, at: Circumstances) -> Self {
        let kind = match error {
            LookupError::Timeout(_) => ErrorKind::Timeout,
            LookupError::NotFound
            | LookupError::NoAddress
            | LookupError::Exhausted(_)
            | LookupError::Failed(_) => ErrorKind::Resolve,
        };
        let deadline = None;
        Self::placed(
            kind,
            at,
            Source::Lookup(Lookup {
                error,
                servers,
                deadline,
            }),
        )
    }

    /// Creates the error for a lookup whose `deadline` passed before any of `servers` answered.
    pub(crate) fn from_unresponsive(deadline: String, servers: String, at: Circumstances) -> Self {
        let lookup = Lookup {
            error: LookupError::Timeout(servers),
            servers: String::new(),
            deadline: Some(deadline),
        };
        Self::placed(ErrorKind::Timeout, at, Source::Lookup(lookup))
    }

    pub(crate) fn from_tls(problem: Problem, at: Circumstances) -> Self {
        Self::placed(ErrorKind::Tls, at, Source::Tls(problem))
    }

    pub(crate) fn from_text(kind: ErrorKind, text: String, at: Circumstances) -> Self {
        Self::placed(kind, at, Source::Reason(Reason(text)))
    }

    /// Merges what else was sent.
    fn behind(mut self, earlier: Earlier) -> Self {
        self.0.sent = self.0.sent.max(earlier.sent);
        self.0.resend_is_safe &= earlier.resend_is_safe;
        self
    }

    /// Turns the error of a readback that has aborted its response into the one that says why.
    pub(crate) fn into_violation(mut self, violation: Violation) -> Self {
        self.0.kind = Self::kind_of(&violation);
        self.0.source = Source::Violation(violation);
        self
    }

    fn kind_of(violation: &Violation) -> ErrorKind {
        match (violation, violation.is_limit()) {
            (_, true) => ErrorKind::TooLarge,
            (Violation::Truncated { .. }, _) => ErrorKind::Truncated,
            _ => ErrorKind::Malformed,
        }
    }

    /// Turns this error into the one for the readback of a chain that was canceled in the meantime.
    pub(crate) fn into_cancelled(mut self) -> Self {
        self.0.kind = ErrorKind::Cancelled;
        self.0.source = Source::None;
        self
    }

    /// Turns this error into one about a file that the response was written to.
    pub(crate) fn into_file(mut self, why: io::Error) -> Self {
        self.0.kind = ErrorKind::Body;
        self.0.source = Source::Io(why);
        self
    }

    fn placed(kind: ErrorKind, at: Circumstances, source: Source) -> Self {
        let Circumstances {
            phase,
            sent,
            resend_is_safe,
            reused,
            attempts,
            origin,
            request,
            status,
            partial_body,
        } = at;
        Self(Box::new(Inner {
            kind,
            phase,
            sent,
            resend_is_safe,
            reused,
            attempts,
            origin,
            request,
            status,
            retry_after: None,
            partial_body,
            source,
        }))
    }

    /// Adds how long the response asks to wait.
    pub(crate) fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        self.0.retry_after = wait;
        self
    }

    /// Returns what went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns how far the exchange had come.
    pub fn phase(&self) -> Phase {
        self.0.phase
    }

    /// Returns whether any part of the request left this machine, in any of its attempts.
    ///
    /// For a request that a [policy](crate::policy) has sent again, this covers everything that was
    /// sent for it.
    ///
    /// # A POST on a kept-alive connection
    /// A server closes a connection that has been idle for too long, and may do so just as the next
    /// request is being written to it. The error is then
    /// [`ClosedBeforeResponse`](ErrorKind::ClosedBeforeResponse),
    /// [`reused_connection`](Self::reused_connection) is true and this method returns
    /// [`Sent::Maybe`]: the request was written, no byte of a response arrived, and nothing in
    /// HTTP/1.1 tells whether the server processed it. The engine sends an idempotent request again
    /// by itself, once, on a fresh connection. A POST or PATCH is not idempotent, so it fails with
    /// this error, and [`resend_is_safe`](Self::resend_is_safe) is false.
    ///
    /// There are two ways to avoid this:
    ///
    /// - [`RequestBuilder::fresh_connection`](crate::RequestBuilder::fresh_connection) sends the
    ///   request on a connection of its own, which no server closes for being idle. It costs a
    ///   round trip, and a TLS handshake for `https`. `Sent::Maybe` remains possible if the server
    ///   fails while it processes the request.
    /// - [`RequestBuilder::idempotent`](crate::RequestBuilder::idempotent) declares that the
    ///   request may be repeated, for a server that recognizes duplicates, for example by a
    ///   transaction id. The engine then sends it again by itself.
    ///
    /// Otherwise ask the server whether the request took effect before sending it again.
    pub fn request_sent(&self) -> Sent {
        self.0.sent
    }

    /// Returns whether sending the request again can do no harm: no byte of it was written, or it
    /// is idempotent (RFC 9110 §9.2.2, RFC 9112 §9.3.1). Whether a request is idempotent follows
    /// from its method, unless [`RequestBuilder::idempotent`](crate::RequestBuilder::idempotent)
    /// has overridden that.
    ///
    /// For a request that a [policy](crate::policy) has sent again, this covers everything that was
    /// sent for it.
    ///
    /// False means that the server may already have processed the request and would process it
    /// twice. This happens to a POST whenever its connection breaks before the response, most often
    /// because the server closed a kept-alive connection just as the request was written; see
    /// [`request_sent`](Self::request_sent) for how to avoid that.
    ///
    /// ```
    /// use httpstream::sim::{Answer, Incoming, Network};
    /// use httpstream::{Config, Engine, Error, Next, Request, Sent, Sim};
    ///
    /// let network = Network::new(1);
    /// network.host("shop.test", [[10, 0, 0, 1]]);
    /// // It answers the first request of a connection, and closes the connection at the second.
    /// network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| match request.path() {
    ///     "/basket" => Answer::ok("1 tea"),
    ///     _ if request.number > 0 => Answer::nothing().close(),
    ///     _ => Answer::status(201),
    /// });
    ///
    /// #[derive(Default)]
    /// struct Shop { refused: Option<Error>, ordered: u32 }
    ///
    /// let mut engine = Engine::<Shop, Sim>::on_network(&network, Config::default())?;
    /// let order = Request::post("http://shop.test/order").body("1 tea");
    /// let order = order.build()?;
    /// let fresh = order.edit().fresh_connection().build()?;
    /// engine.submit(Request::get("http://shop.test/basket").build()?, move |_, _, cx| {
    ///     // The connection is kept, and the order goes over it.
    ///     cx.send(order.clone()).read_by(|shop, reply, _| {
    ///         shop.refused = reply.err();
    ///         Next::done()
    ///     })
    /// });
    /// let mut shop = Shop::default();
    /// engine.run(&mut shop)?;
    /// let error = shop.refused.as_ref().unwrap();
    /// assert!(error.reused_connection() && error.request_sent() == Sent::Maybe);
    /// assert!(!error.resend_is_safe());
    ///
    /// // On a connection of its own the order does not meet a server that is about to close it.
    /// engine.submit(fresh, |shop, reply, _| {
    ///     shop.ordered += u32::from(reply.is_ok_and(|response| response.status() == 201));
    ///     Next::done()
    /// });
    /// engine.run(&mut shop)?;
    /// assert_eq!(shop.ordered, 1);
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn resend_is_safe(&self) -> bool {
        self.0.resend_is_safe
    }

    /// Returns whether the exchange was on a connection that had already served another one.
    pub fn reused_connection(&self) -> bool {
        self.0.reused
    }

    /// Returns how many times the request was assigned to a connection, open or still being made: 0
    /// if it never left its queue, 2 after it was sent again, by the engine or by a
    /// [policy](crate::policy). The count begins anew after a redirect.
    pub fn attempts(&self) -> u32 {
        self.0.attempts.into()
    }

    /// Returns the request that failed: after redirects, the last one that was sent. For a chain
    /// that was canceled while it waited without a request, this is the last one it sent. `None` if
    /// there was no request yet, because it could not be built, or if the error does not concern an
    /// exchange.
    ///
    /// Its `Debug` output shows method and origin only. Its [`uri`](Request::uri) may contain
    /// secrets: do not log it.
    pub fn request(&self) -> Option<&Request> {
        self.0.request.as_ref()
    }

    /// Returns the peer's violation of the protocol or of a limit.
    pub fn violation(&self) -> Option<&Violation> {
        match &self.0.source {
            Source::Violation(violation) => Some(violation),
            _ => None,
        }
    }

    /// Returns why the lookup gave no address: the name does not exist or has none, the servers did
    /// not answer, or another reason.
    pub fn lookup(&self) -> Option<&LookupError> {
        match &self.0.source {
            Source::Lookup(lookup) => Some(&lookup.error),
            _ => None,
        }
    }

    /// Returns the addresses that could not be connected to, each with its reason, in the order in
    /// which they failed.
    ///
    /// Besides the errors of the operating system, the engine gives reasons of its own:
    /// [`TimedOut`](io::ErrorKind::TimedOut) if there was no answer before the deadline,
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) without an OS error code if the
    /// address filter refused the address, and [`InvalidInput`](io::ErrorKind::InvalidInput) if the
    /// route asks for something that this system cannot provide.
    pub fn addresses(&self) -> &[(SocketAddr, io::Error)] {
        match &self.0.source {
            Source::Addresses(addresses) => &addresses.tried,
            _ => &[],
        }
    }

    /// Returns why TLS failed, for example what is wrong with the server's certificate. If the
    /// connection broke during the handshake, this is `None` and the source is an [`io::Error`].
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<&Problem> {
        match &self.0.source {
            Source::Tls(problem) => Some(problem),
            _ => None,
        }
    }

    /// Returns the origin that the request was sent to.
    pub fn origin(&self) -> Option<&Origin> {
        self.0.origin.as_ref()
    }

    /// Returns the status of the response, if its head had arrived.
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// Returns how long the server asks to wait, if the error is one of a
    /// [status](ErrorKind::Status): the value of
    /// [`Response::retry_after`](crate::Response::retry_after).
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::{Context, Next, Reply};
    ///
    /// fn on_reply(sent: &mut u32, reply: Reply<'_>, _: &mut Context<'_, u32>) -> Next<u32> {
    ///     match reply.and_then(|response| response.error_for_status()) {
    ///         Ok(_) => {
    ///             *sent += 1;
    ///             Next::done()
    ///         }
    ///         Err(error) => match error.retry_after() {
    ///             Some(wait) => Next::again().after(wait),
    ///             None => Next::done(),
    ///         },
    ///     }
    /// }
    /// ```
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns what is wrong with a request that cannot be sent as it was built.
    pub fn invalid(&self) -> Option<&Invalid> {
        match &self.0.source {
            Source::Invalid(invalid) => Some(invalid),
            _ => None,
        }
    }

    /// Returns the part of the body that had been collected.
    pub fn partial_body(&self) -> &[u8] {
        &self.0.partial_body
    }

    fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.source {
            Source::Violation(violation) => Some(violation),
            Source::Invalid(invalid) => Some(invalid),
            Source::Io(error) => Some(error),
            Source::Lookup(lookup) => Some(lookup),
            Source::Addresses(addresses) => Some(addresses),
            Source::Tls(problem) => Some(problem),
            Source::Reason(reason) => Some(reason),
            Source::Other(error) => Some(&**error),
            Source::None => None,
        }
    }
}

impl Error {
    /// Whether the cause is itself what failed, so that `{}` prints it too.
    fn is_its_reason(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::InvalidRequest | ErrorKind::InvalidConfig
        )
    }

    /// A guess at the mistake where the two sides speak different protocols.
    fn guess(&self) -> Option<&'static str> {
        // The first byte of a TLS record that carries an alert or a handshake message (RFC 8446
        // §5.1).
        const RECORD: [u8; 2] = [0x15, 0x16];
        let scheme = self.0.origin.as_ref().map(Origin::scheme);
        match &self.0.source {
            Source::Violation(Violation::NotHttp { offset: 0, byte })
                if scheme == Some(Scheme::Http) && RECORD.contains(byte) =>
            {
                Some("is it an https port?")
            }
            #[cfg(feature = "tls")]
            Source::Tls(Problem::NotTls) if self.0.phase == Phase::Tls => {
                Some("is it a plain http port?")
            }
            _ => None,
        }
    }
}

/// `{}` prints what failed and where; `{:#}` adds the causes. Neither prints paths, queries or
/// field values.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.0.origin {
            write!(f, "{origin}: ")?;
        }
        let phase = self.0.phase;
        match self.0.kind {
            ErrorKind::Tls if phase == Phase::Tls => f.write_str("TLS handshake failed"),
            ErrorKind::Status => match self.0.status {
                Some(status) => write!(f, "answered with {status}"),
                None => f.write_str(ErrorKind::Status.as_str()),
            },
            kind @ (ErrorKind::InvalidRequest
            | ErrorKind::InvalidConfig
            | ErrorKind::Resolve
            | ErrorKind::Connect
            | ErrorKind::ClosedBeforeResponse
            | ErrorKind::Gone
            | ErrorKind::Full
            | ErrorKind::Policy) => f.write_str(kind.as_str()),
            kind => write!(f, "{kind} while {phase}"),
        }?;
        if f.alternate() || self.is_its_reason() {
            match &self.0.source {
                // The kind already says that the response was cut short.
                Source::Violation(Violation::Truncated { missing: None }) => {}
                Source::Violation(Violation::Truncated { missing: Some(n) }) => {
                    write!(f, ": {n} bytes missing")?;
                }
                _ => {
                    if let Some(cause) = self.cause() {
                        write!(f, ": {cause}")?;
                    }
                }
            }
        }
        if let Some(guess) = self.guess() {
            write!(f, "; {guess}")?;
        }
        // Without a connection the last attempt sent nothing, so only the earlier ones count.
        let has_connection = phase > Phase::Tls && self.0.sent != Sent::No;
        match (self.0.attempts, has_connection) {
            // It was waiting to be sent again.
            (1, false) if phase == Phase::Queue && self.0.sent != Sent::No => {
                f.write_str(" (sent once before)")
            }
            (0 | 1, _) => Ok(()),
            (2, false) => f.write_str(" (sent once before)"),
            (n, false) => write!(f, " (sent {} times before)", n - 1),
            (n, true) => write!(f, " (sent {n} times)"),
        }
    }
}

/// Begins with the text of `{:#}`, since this is what a `main` that returns an error prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("Error");
        s.field("message", &format!("{self:#}"))
            .field("kind", &self.0.kind)
            .field("phase", &self.0.phase)
            .field("sent", &self.0.sent);
        s.field("resend_is_safe", &self.0.resend_is_safe)
            .field("reused_connection", &self.0.reused);
        if self.0.attempts > 1 {
            s.field("attempts", &self.0.attempts);
        }
        match (&self.0.request, &self.0.origin) {
            (Some(request), _) => drop(s.field("request", request)),
            (None, Some(origin)) => drop(s.field("origin", origin)),
            (None, None) => {}
        }
        if let Some(status) = &self.0.status {
            s.field("status", status);
        }
        s.field("source", &self.cause());
        s.finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause()
    }
}

/// The engine has been dropped: nothing can be submitted to it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the engine is gone")
    }
}

impl StdError for Gone {}

impl From<Gone> for Error {
    fn from(_: Gone) -> Self {
        Self::bare(ErrorKind::Gone, Phase::Queue, Source::None)
    }
}

/// A submission that the engine did not accept, together with what was submitted: a request and its
/// readback, or a call.
///
/// `?` converts it to an [`Error`] of the kind [`Full`](ErrorKind::Full) or
/// [`Gone`](ErrorKind::Gone) and drops the submission.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SubmitError<T> {
    /// The inbox already holds [`Config::max_inbox`](crate::Config::max_inbox) submissions: the
    /// engine cannot keep up, or is not being turned. Try again later.
    Full(T),
    /// The engine has been dropped and accepts nothing any more.
    Gone(T),
}

impl<T> SubmitError<T> {
    /// Returns what was submitted.
    pub fn into_inner(self) -> T {
        match self {
            SubmitError::Full(given) | SubmitError::Gone(given) => given,
        }
    }

    /// Returns whether the submission may be accepted later.
    pub fn is_full(&self) -> bool {
        matches!(self, SubmitError::Full(_))
    }

    fn kind(&self) -> ErrorKind {
        match self {
            SubmitError::Full(_) => ErrorKind::Full,
            SubmitError::Gone(_) => ErrorKind::Gone,
        }
    }
}

impl<T> fmt::Debug for SubmitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SubmitError::Full(_) => "Full(..)",
            SubmitError::Gone(_) => "Gone(..)",
        })
    }
}

impl<T> fmt::Display for SubmitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(f)
    }
}

impl<T> StdError for SubmitError<T> {}

impl<T> From<SubmitError<T>> for Error {
    fn from(error: SubmitError<T>) -> Self {
        Self::bare(error.kind(), Phase::Queue, Source::None)
    }
}

/// As from [`RequestBuilder::build`](crate::RequestBuilder::build).
impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::invalid_request(invalid)
    }
}

/// Chooses the closest [`io::ErrorKind`] and wraps the error.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match (error.0.kind, &error.0.source) {
            (_, Source::Io(cause)) => cause.kind(),
            (ErrorKind::Connect, Source::Addresses(addresses)) => addresses
                .tried
                .last()
                .map_or(io::ErrorKind::NotConnected, |(_, why)| why.kind()),
            (ErrorKind::InvalidRequest | ErrorKind::InvalidConfig, _) => {
                io::ErrorKind::InvalidInput
            }
            (ErrorKind::Malformed | ErrorKind::TooLarge, _) => io::ErrorKind::InvalidData,
            (ErrorKind::Timeout, _) => io::ErrorKind::TimedOut,
            (ErrorKind::Truncated, _) => io::ErrorKind::UnexpectedEof,
            (ErrorKind::ClosedBeforeResponse, _) => io::ErrorKind::ConnectionAborted,
            (ErrorKind::Connect, _) => io::ErrorKind::NotConnected,
            (ErrorKind::Full, _) => io::ErrorKind::WouldBlock,
            (ErrorKind::Gone, _) => io::ErrorKind::BrokenPipe,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
