//! What the caller is told: kind, phase, origin, cause, and whether sending the request again is safe.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use http::StatusCode;

use crate::net::tls::Problem;
use crate::proto::{Invalid, Origin, Violation};
use crate::resolver::LookupError;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request cannot be sent as it was built; the source names the part and the offending byte's place.
    InvalidRequest,
    /// The configuration cannot be used.
    InvalidConfig,
    /// The host has no address, or asking for it failed; see [`Error::lookup`]. Name servers that do not answer are a
    /// [`Timeout`](Self::Timeout).
    Resolve,
    /// No address of the host could be connected to; see [`Error::addresses`], which knows nothing of unix sockets.
    Connect,
    /// TLS failed: the handshake, or later a record or an alert; see `Error::tls`.
    Tls,
    /// The proxy refused: not used yet.
    Proxy,
    /// The connection ended before the first byte of the response.
    ClosedBeforeResponse,
    /// The connection ended inside the response; see [`Error::partial_body`].
    Truncated,
    /// Reading or writing failed.
    Io,
    /// The response breaks the protocol; see [`Error::violation`].
    Malformed,
    /// The response passes a limit; see [`Error::violation`].
    TooLarge,
    /// A deadline passed; [`Error::phase`] says in which phase, [`Error::lookup`] and [`Error::addresses`] who did not answer.
    Timeout,
    /// This machine ran out of file descriptors, ports or memory, and none came free before the deadline.
    Exhausted,
    /// The chain was cancelled.
    Cancelled,
    /// A readback answered [`Flow::Abort`](crate::Flow::Abort).
    Aborted,
    /// The engine is gone.
    Gone,
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

/// Whether the request left this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sent {
    /// Not one byte did.
    No,
    /// Some or all of it was written, and nothing came back: the peer may have processed it.
    Maybe,
    /// The peer answered: it has seen the request.
    Yes,
}

/// Why a request has no response, or not all of it. One pointer wide.
///
/// `{}` says what failed, `{:#}` also why; [`source`](StdError::source) is the reason alone.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    phase: Phase,
    sent: Sent,
    resend_is_safe: bool,
    reused: bool,
    origin: Option<Origin>,
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
    pub(crate) origin: Option<Origin>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) partial_body: Vec<u8>,
}

impl Error {
    fn bare(kind: ErrorKind, phase: Phase, source: Source) -> Self {
        Self(Box::new(Inner {
            kind,
            phase,
            sent: Sent::No,
            resend_is_safe: true,
            reused: false,
            origin: None,
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

    /// Of the engine itself rather than of an exchange: its poll failed.
    pub(crate) fn io(error: io::Error) -> Self {
        Self::bare(ErrorKind::Io, Phase::Queue, Source::Io(error))
    }

    /// The body of a response is not UTF-8 from byte `valid_up_to` on.
    pub(crate) fn not_utf8(valid_up_to: usize) -> Self {
        let mut error = Self::bare(
            ErrorKind::Malformed,
            Phase::Body,
            Source::Reason(Reason(format!("body is not UTF-8 at byte {valid_up_to}"))),
        );
        error.0.sent = Sent::Yes;
        error.0.resend_is_safe = false;
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

    /// The same exchange's end, as it is told to the readback of a chain that was cancelled meanwhile.
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
            origin,
            status,
            partial_body,
        } = at;
        Self(Box::new(Inner {
            kind,
            phase,
            sent,
            resend_is_safe,
            reused,
            origin,
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

    /// Whether the request left this machine.
    pub fn request_sent(&self) -> Sent {
        self.0.sent
    }

    /// Whether sending the request again can do no harm: it never left, or it is idempotent
    /// (RFC 9110 §9.2.2, RFC 9112 §9.3.1).
    pub fn resend_is_safe(&self) -> bool {
        self.0.resend_is_safe
    }

    /// Whether the exchange was on a connection that had served another before.
    pub fn reused_connection(&self) -> bool {
        self.0.reused
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

    /// The addresses that could not be connected to, each with its reason, in the order in which they failed.
    ///
    /// Beside what the system says, a reason may be ours: [`TimedOut`](io::ErrorKind::TimedOut) where there was no answer by the deadline,
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) without a number of the system's where the address filter refused it,
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) where the route asks for what cannot be had.
    pub fn addresses(&self) -> &[(SocketAddr, io::Error)] {
        match &self.0.source {
            Source::Addresses(addresses) => &addresses.tried,
            _ => &[],
        }
    }

    /// Why TLS failed: what is wrong with the server's certificate, or what else. Connections that are cut in the handshake have an
    /// [`io::Error`] for a source instead.
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
            Source::None => None,
        }
    }
}

/// What failed, where; with `{:#}` also why, cause after cause. Neither shows paths, queries or field values.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.0.origin {
            write!(f, "{origin}: ")?;
        }
        let phase = self.0.phase;
        match self.0.kind {
            ErrorKind::InvalidRequest => f.write_str("request cannot be sent"),
            ErrorKind::InvalidConfig => f.write_str("configuration cannot be used"),
            ErrorKind::Resolve => f.write_str("host could not be resolved"),
            ErrorKind::Connect => f.write_str("no connection"),
            ErrorKind::Tls if phase == Phase::Tls => f.write_str("TLS handshake failed"),
            ErrorKind::Tls => write!(f, "TLS failed while {phase}"),
            ErrorKind::Proxy => f.write_str("proxy refused"),
            ErrorKind::ClosedBeforeResponse => {
                f.write_str("connection closed before a byte of the response came")
            }
            ErrorKind::Truncated => write!(f, "response cut short while {phase}"),
            ErrorKind::Io => write!(f, "input or output failed while {phase}"),
            ErrorKind::Malformed => write!(f, "malformed response while {phase}"),
            ErrorKind::TooLarge => write!(f, "response over a limit while {phase}"),
            ErrorKind::Timeout => write!(f, "timed out while {phase}"),
            ErrorKind::Exhausted => {
                write!(f, "out of file descriptors, ports or memory while {phase}")
            }
            ErrorKind::Cancelled => write!(f, "cancelled while {phase}"),
            ErrorKind::Aborted => write!(f, "aborted by its readback while {phase}"),
            ErrorKind::Gone => f.write_str("the engine is gone"),
        }?;
        match (f.alternate(), self.cause()) {
            (true, Some(cause)) => write!(f, ": {cause}"),
            _ => Ok(()),
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
        if let Some(origin) = &self.0.origin {
            s.field("origin", origin);
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

/// Whether `error` says that this machine has no file descriptor, port or memory left, rather than something of the peer.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) {
        105
    } else {
        55
    };
    let by_number = cfg!(unix) && matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOBUFS));
    let by_kind = matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory | io::ErrorKind::StorageFull
    );
    by_number || by_kind
}

/// Whether `error` says that the peer ended the connection.
pub(crate) fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}
