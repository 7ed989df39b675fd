//! What the caller is told: kind, phase, origin, cause, and whether sending the request again is
//! safe.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use http::StatusCode;

use crate::proto::{Invalid, Origin, Scheme, Violation};
use crate::request::Request;
use crate::resolver::LookupError;
use crate::tls::Problem;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request cannot be sent as it was built; the source names the part and the offending
    /// byte's place.
    InvalidRequest,
    /// The configuration cannot be used.
    InvalidConfig,
    /// The host has no address, or asking for it failed; see [`Error::lookup`]. Name servers that
    /// do not answer are a [`Timeout`](Self::Timeout).
    Resolve,
    /// No address of the host could be connected to; see [`Error::addresses`], which knows nothing
    /// of unix sockets.
    Connect,
    /// TLS failed: the handshake, or later a record or an alert; see `Error::tls`.
    Tls,
    /// The connection ended before the first byte of the response.
    ClosedBeforeResponse,
    /// The connection ended inside the response, or a coding of the body did; see
    /// [`Error::partial_body`].
    Truncated,
    /// Reading or writing failed.
    Io,
    /// The response breaks the protocol, see [`Error::violation`], or its body cannot be decoded.
    Malformed,
    /// The response passes a limit; see [`Error::violation`].
    TooLarge,
    /// A deadline passed; [`Error::phase`] says in which phase, [`Error::lookup`] and
    /// [`Error::addresses`] who did not answer.
    Timeout,
    /// This machine ran out of file descriptors, ports or memory, and none came free before the
    /// deadline.
    Exhausted,
    /// The chain was cancelled.
    Cancelled,
    /// A readback answered [`Flow::Abort`](crate::Flow::Abort).
    Aborted,
    /// The engine is gone; or the chain, since user code of it has panicked.
    Gone,
    /// The engine's inbox holds [`Config::max_inbox`](crate::Config::max_inbox) submissions
    /// already.
    Full,
    /// The response is there, but [`Error::status`] counts as an error; made by
    /// [`Error::of_status`]. [`Error::partial_body`] is its body.
    Status,
    /// A policy refused the request or gave it up; the source says why. Made by
    /// [`Error::policy`].
    Policy,
}

impl ErrorKind {
    fn as_str(self) -> &'static str {
        match self {
            ErrorKind::InvalidRequest => "request cannot be sent",
            ErrorKind::InvalidConfig => "configuration cannot be used",
            ErrorKind::Resolve => "host could not be resolved",
            ErrorKind::Connect => "no connection",
            ErrorKind::Tls => "TLS failed",
            ErrorKind::ClosedBeforeResponse => {
                "connection closed before a byte of the response came"
            }
            ErrorKind::Truncated => "response cut short",
            ErrorKind::Io => "input or output failed",
            ErrorKind::Malformed => "malformed response",
            ErrorKind::TooLarge => "response over a limit",
            ErrorKind::Timeout => "timed out",
            ErrorKind::Exhausted => "out of file descriptors, ports or memory",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Aborted => "aborted by its readback",
            ErrorKind::Gone => "the engine is gone",
            ErrorKind::Full => "the engine's inbox is full",
            ErrorKind::Status => "the response's status is an error",
            ErrorKind::Policy => "given up by its policy",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where in its life an exchange was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Phase {
    /// The request was being built.
    Build,
    /// Waiting: for its delay, a connection or a file descriptor.
    Queue,
    /// Looking up the host.
    Resolve,
    /// Connecting.
    Connect,
    /// In the TLS handshake.
    Tls,
    /// Writing the request.
    Write,
    /// The request is written, no byte of the response has come.
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

/// Whether the request left this machine. What tells more is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sent {
    /// Not one byte did.
    No,
    /// Some or all of it was written, and nothing came back: the peer may have processed it.
    Maybe,
    /// The peer answered: it has seen the request.
    Yes,
}

/// What was sent for a request before its present attempt, by the engine or by a policy, which sent
/// it again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Earlier {
    pub(crate) sent: Sent,
    pub(crate) resend_is_safe: bool,
}

/// Why a request has no response, or not all of it. One pointer wide.
///
/// `{}` says what failed, `{:#}` also why; [`source`](StdError::source) is the reason alone. Of a
/// request or a configuration that cannot be used, `{}` says all: what failed is the reason.
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

/// Why a host has no address, and who said so.
#[derive(Debug)]
struct Lookup {
    error: LookupError,
    servers: String,
    /// The deadline that passed, where it was one.
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
                write!(f, ", says {}", self.servers)
            }
            // The others name whom they are about.
            _ => Ok(()),
        }
    }
}

impl StdError for Lookup {}

/// What became of each address that was tried.
#[derive(Debug)]
struct Addresses {
    /// The deadline that passed, where it was one.
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
    /// More than these make no line that anybody reads; [`Error::addresses`] has all.
    const MAX_TOLD: usize = 16;
}

impl StdError for Addresses {}

/// A cause that is told in words only.
#[derive(Debug)]
struct Reason(String);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Reason {}

/// What an exchange knows of itself when it fails.
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
    /// With what was sent before.
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

    /// What a policy returns to refuse a request, or to give it up: [`ErrorKind::Policy`], with
    /// `why` as its source.
    ///
    /// ```
    /// use httpstream::{Error, ErrorKind};
    ///
    /// let error = Error::policy("a streamed body cannot be signed");
    /// assert_eq!(error.kind(), ErrorKind::Policy);
    /// assert_eq!(format!("{error:#}"), "given up by its policy: a streamed body cannot be signed");
    /// ```
    pub fn policy(why: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::bare(ErrorKind::Policy, Phase::Queue, Source::Other(why.into()))
    }

    /// Says where in an exchange a policy returned this error. An error that knows its request, as
    /// one does that came from an exchange, keeps what it says, but for what its readback decides
    /// by: whether anything was sent, and may be sent again, is said of both exchanges.
    pub(crate) fn placed_at(self, at: Circumstances) -> Self {
        match self.0.request {
            Some(_) => self.behind(Earlier {
                sent: at.sent,
                resend_is_safe: at.resend_is_safe,
            }),
            None => Self::placed(self.0.kind, at, self.0.source),
        }
    }

    /// What this error says of its exchange, for another one that takes its place; `otherwise`
    /// where it says nothing.
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

    /// Of the engine itself rather than of an exchange: its poll failed.
    pub(crate) fn io(error: io::Error) -> Self {
        Self::bare(ErrorKind::Io, Phase::Queue, Source::Io(error))
    }

    /// The engine went while somebody waited for the response to `request`. It was sent as far as
    /// `earlier` says.
    pub(crate) fn gone(request: Request, earlier: Earlier) -> Self {
        let mut error = Self::from(Gone).behind(earlier);
        error.0.origin = Some(request.origin());
        error.0.request = Some(request);
        error
    }

    /// An exchange failed with no cause but its kind.
    pub(crate) fn of(kind: ErrorKind, at: Circumstances) -> Self {
        Self::placed(kind, at, Source::None)
    }

    pub(crate) fn from_violation(violation: Violation, at: Circumstances) -> Self {
        let kind = match (&violation, violation.is_limit()) {
            (_, true) => ErrorKind::TooLarge,
            (Violation::Truncated { .. }, _) => ErrorKind::Truncated,
            _ => ErrorKind::Malformed,
        };
        Self::placed(kind, at, Source::Violation(violation))
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

    /// `deadline` passed before one of `servers` answered.
    pub(crate) fn from_mute(deadline: String, servers: String, at: Circumstances) -> Self {
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

    /// Adds what else was sent.
    fn behind(mut self, earlier: Earlier) -> Self {
        self.0.sent = self.0.sent.max(earlier.sent);
        self.0.resend_is_safe &= earlier.resend_is_safe;
        self
    }

    /// The same exchange's end, as it is told to the readback of a chain that was cancelled
    /// meanwhile.
    pub(crate) fn into_cancelled(mut self) -> Self {
        self.0.kind = ErrorKind::Cancelled;
        self.0.source = Source::None;
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
            partial_body,
            source,
        }))
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Where in its life the exchange was.
    pub fn phase(&self) -> Phase {
        self.0.phase
    }

    /// Whether the request left this machine, in any of its attempts. Of one that a
    /// [policy](crate::policy) has sent again: whether any of what was sent for it did.
    pub fn request_sent(&self) -> Sent {
        self.0.sent
    }

    /// Whether sending the request again can do no harm: it never left, or it is idempotent
    /// (RFC 9110 §9.2.2, RFC 9112 §9.3.1). Of one that a [policy](crate::policy) has sent again: so
    /// is all that was sent for it.
    pub fn resend_is_safe(&self) -> bool {
        self.0.resend_is_safe
    }

    /// Whether the exchange was on a connection that had served another before.
    pub fn reused_connection(&self) -> bool {
        self.0.reused
    }

    /// How often the request was given a connection, or the making of one: 0 if it never left its
    /// queue, 2 after the engine has sent it again. Of what a [policy](crate::policy) has sent, the
    /// last exchange counts alone.
    pub fn attempts(&self) -> u32 {
        self.0.attempts.into()
    }

    /// The request that failed; of a chain that was cancelled while it waited without one, the last
    /// it had sent. `None` where there was none yet: it could not be built, or it is not an
    /// exchange that failed.
    ///
    /// Printed, it shows method and origin. Its [`uri`](Request::uri) may hold secrets: do not log
    /// it.
    pub fn request(&self) -> Option<&Request> {
        self.0.request.as_ref()
    }

    /// What the peer did wrong.
    pub fn violation(&self) -> Option<&Violation> {
        match &self.0.source {
            Source::Violation(violation) => Some(violation),
            _ => None,
        }
    }

    /// Why the host has no address: unknown, without an address, its servers mute, or what else.
    pub fn lookup(&self) -> Option<&LookupError> {
        match &self.0.source {
            Source::Lookup(lookup) => Some(&lookup.error),
            _ => None,
        }
    }

    /// The addresses that could not be connected to, each with its reason, in the order in which
    /// they failed.
    ///
    /// Beside what the system says, a reason may be ours: [`TimedOut`](io::ErrorKind::TimedOut)
    /// where there was no answer by the deadline,
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) without a number of the system's where
    /// the address filter refused it, [`InvalidInput`](io::ErrorKind::InvalidInput) where the route
    /// asks for what cannot be had.
    pub fn addresses(&self) -> &[(SocketAddr, io::Error)] {
        match &self.0.source {
            Source::Addresses(addresses) => &addresses.tried,
            _ => &[],
        }
    }

    /// Why TLS failed: what is wrong with the server's certificate, or what else. Connections that
    /// are cut in the handshake have an [`io::Error`] for a source instead.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<&Problem> {
        match &self.0.source {
            Source::Tls(problem) => Some(problem),
            _ => None,
        }
    }

    /// Whom the request was for.
    pub fn origin(&self) -> Option<&Origin> {
        self.0.origin.as_ref()
    }

    /// The status of the response, if its head had come.
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// What had been collected of the body.
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
    /// Whether what failed is the reason, so that `{}` tells it too.
    fn is_its_reason(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::InvalidRequest | ErrorKind::InvalidConfig
        )
    }

    /// What may be the matter where each side speaks another protocol.
    fn guess(&self) -> Option<&'static str> {
        // The first byte of a TLS record that holds an alert, or a handshake message (RFC 8446
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

/// What failed, where; with `{:#}` also why, cause after cause. Neither shows paths, queries or
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
                // That it was cut short is said.
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
        // Without a connection, the last attempt has sent nothing.
        let has_connection = phase > Phase::Tls && self.0.sent != Sent::No;
        match (self.0.attempts, has_connection) {
            (0 | 1, _) => Ok(()),
            (2, false) => f.write_str(" (sent once before)"),
            (n, false) => write!(f, " (sent {} times before)", n - 1),
            (n, true) => write!(f, " (sent {n} times)"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("Error");
        s.field("kind", &self.0.kind)
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

/// The engine is gone: nothing can be submitted to it any more.
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

/// A submission that the engine did not take, with what was to be submitted: a request and its
/// readback, or a call.
///
/// `?` makes it an [`Error`] of the kind [`Full`](ErrorKind::Full) or [`Gone`](ErrorKind::Gone),
/// and drops what it holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SubmitError<T> {
    /// The inbox holds [`Config::max_inbox`](crate::Config::max_inbox) submissions already: the
    /// engine does not keep up, or does not turn. Some later time there is room again.
    Full(T),
    /// The engine is gone: it takes nothing any more.
    Gone(T),
}

impl<T> SubmitError<T> {
    /// What was to be submitted.
    pub fn into_inner(self) -> T {
        match self {
            SubmitError::Full(given) | SubmitError::Gone(given) => given,
        }
    }

    /// Whether it may be taken at some other time.
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

/// The nearest kind that the standard library has, with the error in it.
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
