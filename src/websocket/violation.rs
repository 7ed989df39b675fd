//! What a server does wrong.

use std::error::Error as StdError;
use std::fmt;

use crate::error::ErrorKind;

/// How a server broke the WebSocket protocol (RFC 6455), as the source of the
/// [`Error`](crate::Error) that ends the WebSocket.
///
/// A faulty handshake fails the request, so nothing was received. After the handshake, the server
/// is told by a Close frame with a [code](Self::close_code).
///
/// ```
/// use std::error::Error as _;
/// use httpstream::{Error, websocket::Violation};
///
/// fn is_too_large(error: &Error) -> bool {
///     let violation = error.source().and_then(|source| source.downcast_ref());
///     matches!(violation, Some(Violation::MessageTooLarge { .. }))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// The 101 has no field `Upgrade` with the value `websocket` (§4.1).
    Upgrade,
    /// The 101 has no field `Connection` with the option `Upgrade` (§4.1).
    Connection,
    /// `Sec-WebSocket-Accept` is missing, or does not belong to the key of the request (§4.1).
    Accept,
    /// The server uses an extension, although none was offered (§4.1).
    Extension(String),
    /// The server chose a subprotocol that was not offered (§4.1).
    Protocol(String),
    /// A frame has a reserved bit set, although no extension gives it a meaning (§5.2).
    ReservedBits,
    /// A frame has a reserved opcode (§5.2).
    Opcode(u8),
    /// A frame of the server is masked (§5.1).
    Masked,
    /// A frame claims to have a length of 2⁶³ bytes or more (§5.2).
    Length,
    /// A control frame is fragmented (§5.5).
    FragmentedControl,
    /// A control frame has a payload of this many bytes, more than 125 (§5.5).
    LongControl(u64),
    /// A continuation frame continues no message (§5.4).
    Continuation,
    /// A message begins before the previous one has ended (§5.4).
    Interrupted,
    /// A text message or the reason of a Close frame is not UTF-8 (§5.6, §5.5.1).
    Utf8,
    /// A Close frame has a payload of one byte, which is no code (§5.5.1).
    CloseLength,
    /// A Close frame has a code that must not be sent (§7.4).
    CloseCode(u16),
    /// A message is larger than [`max_message_bytes`](crate::WebSocket::max_message_bytes).
    MessageTooLarge {
        /// The limit in bytes.
        limit: usize,
        /// The length of the message as far as it was announced, in bytes.
        seen: u64,
    },
    /// The connection ended without a Close frame (§7.1.5).
    NoClose,
}

impl Violation {
    /// Returns the code of the Close frame that tells the server (§7.4.1): 1009 for a message that
    /// is too large, 1007 for text that is not UTF-8, and otherwise 1002.
    pub fn close_code(&self) -> u16 {
        match self {
            Self::MessageTooLarge { .. } => 1009,
            Self::Utf8 => 1007,
            _ => 1002,
        }
    }

    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::MessageTooLarge { .. } => ErrorKind::TooLarge,
            Self::NoClose => ErrorKind::Truncated,
            _ => ErrorKind::Malformed,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upgrade => f.write_str("the 101 has no field Upgrade: websocket"),
            Self::Connection => f.write_str("the 101 has no field Connection: Upgrade"),
            Self::Accept => f.write_str("Sec-WebSocket-Accept does not belong to the request"),
            Self::Extension(name) => {
                write!(
                    f,
                    "the server uses an extension that was not offered ({name:?})"
                )
            }
            Self::Protocol(name) => {
                write!(
                    f,
                    "the server chose a subprotocol that was not offered ({name:?})"
                )
            }
            Self::ReservedBits => f.write_str("a frame has a reserved bit set"),
            Self::Opcode(opcode) => write!(f, "a frame has the reserved opcode {opcode:#x}"),
            Self::Masked => f.write_str("a frame of the server is masked"),
            Self::Length => f.write_str("a frame claims to have 2^63 bytes or more"),
            Self::FragmentedControl => f.write_str("a control frame is fragmented"),
            Self::LongControl(len) => {
                write!(f, "a control frame has {len} bytes, more than 125")
            }
            Self::Continuation => f.write_str("a continuation frame continues no message"),
            Self::Interrupted => f.write_str("a message begins before the previous one has ended"),
            Self::Utf8 => f.write_str("a text is not UTF-8"),
            Self::CloseLength => f.write_str("a Close frame has a payload of one byte"),
            Self::CloseCode(code) => write!(f, "a Close frame has the invalid code {code}"),
            Self::MessageTooLarge { limit, seen } => write!(
                f,
                "message larger than max_message_bytes ({limit} bytes; {seen} announced)"
            ),
            Self::NoClose => f.write_str("the connection ended without a Close frame"),
        }
    }
}

impl StdError for Violation {}
