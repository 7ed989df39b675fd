//! The protocol violations of a peer.

use std::fmt;

/// A protocol violation by a peer, with the evidence.
///
/// An `offset` into a head counts from the first byte of that head. In a trailer section it counts
/// from the first byte of the section, and in a chunked body from the first byte after the head,
/// including the framing. A `byte` is the byte at that offset.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// The response does not start with `HTTP/1.` (RFC 9112 §2.3): the peer speaks another
    /// protocol, or these bytes are the rest of an earlier response.
    NotHttp {
        /// Offset of the first byte that differs.
        offset: usize,
        /// That byte.
        byte: u8,
    },
    /// The peer speaks HTTP/2 (RFC 9113 §3.4), which was not negotiated.
    Http2,
    /// The status line is malformed (RFC 9112 §4). It consists of the version, a status of three
    /// digits from 100 on, and the reason.
    StatusLine {
        /// Offset of the first invalid byte.
        offset: usize,
        /// That byte.
        byte: u8,
    },
    /// A field line has no valid name (RFC 9112 §5.1): the name is empty, contains a byte that is
    /// not allowed in a token, or is followed by white space before the colon.
    FieldName {
        /// Offset of the first invalid byte.
        offset: usize,
        /// That byte.
        byte: u8,
    },
    /// A field value contains a control byte (RFC 9110 §5.5), such as NUL or a CR without LF.
    FieldValue {
        /// Offset of the control byte.
        offset: usize,
        /// That byte.
        byte: u8,
    },
    /// A field line is folded (RFC 9112 §5.2), and
    /// [`Limits::refuse_obs_fold`](crate::Limits::refuse_obs_fold) is set.
    ObsFold {
        /// Offset of the white space that continues the previous line.
        offset: usize,
    },
    /// A field that decides where the message ends is folded. Recipients might disagree about its
    /// value (RFC 9112 §5.2, §11.2).
    FoldedFraming {
        /// Offset of the field's name.
        offset: usize,
    },
    /// The status line and header section exceed
    /// [`Limits::max_head_bytes`](crate::Limits::max_head_bytes).
    HeadTooLarge {
        /// The limit, in bytes.
        limit: usize,
        /// Bytes received so far, including interim responses.
        seen: usize,
    },
    /// A header or trailer section has more field lines than
    /// [`Limits::max_fields`](crate::Limits::max_fields).
    TooManyFields {
        /// The limit.
        limit: usize,
        /// Field lines read so far.
        seen: usize,
    },
    /// There are more interim responses before the final one than
    /// [`Limits::max_interim`](crate::Limits::max_interim) (RFC 9110 §15.2).
    TooManyInterim {
        /// The limit.
        limit: usize,
        /// Interim responses read so far.
        seen: usize,
    },
    /// A 101 (Switching Protocols) although no upgrade was requested, or the request had not been
    /// sent completely (RFC 9110 §15.2.2).
    SwitchingProtocols,
    /// A Content-Length is not a number of at most 64 bits (RFC 9112 §6.3, rule 5).
    ContentLength {
        /// Offset of the byte that is not a digit, or of the number that is too large or missing.
        offset: usize,
        /// The byte that is not a digit.
        byte: Option<u8>,
    },
    /// Two Content-Length values differ (RFC 9112 §6.3, rule 5).
    ConflictingContentLengths {
        /// The first value.
        first: u64,
        /// The value that differs.
        second: u64,
    },
    /// An HTTP/1.0 response has a Transfer-Encoding, so its framing must be treated as faulty (RFC
    /// 9112 §6.1).
    TransferCodingInHttp10,
    /// A Transfer-Encoding contains no coding (RFC 9112 §6.1).
    NoTransferCoding,
    /// The chunked coding is applied twice (RFC 9112 §6.1).
    ChunkedTwice,
    /// A transfer coding other than chunked was applied, although no `TE` field had offered to
    /// accept it (RFC 9112 §6.1, §7.4).
    UnsupportedTransferCoding {
        /// The coding with its parameters, truncated to 64 bytes.
        name: Box<str>,
    },
    /// A chunk size is not 1 to 16 hexadecimal digits (RFC 9112 §7.1).
    ChunkSize {
        /// Offset of the first invalid byte.
        offset: u64,
        /// That byte.
        byte: u8,
    },
    /// A chunk extension contains a control byte, or its line does not end with CR LF (RFC 9112
    /// §7.1.1).
    ChunkExtension {
        /// Offset of the first invalid byte.
        offset: u64,
        /// That byte.
        byte: u8,
    },
    /// Chunk data is not followed by CR LF (RFC 9112 §7.1).
    ChunkEnd {
        /// Offset of the first invalid byte.
        offset: u64,
        /// That byte.
        byte: u8,
    },
    /// The chunk extensions of one body exceed
    /// [`Limits::max_chunk_extension_bytes`](crate::Limits::max_chunk_extension_bytes).
    ChunkExtensionsTooLarge {
        /// The limit, in bytes.
        limit: usize,
        /// Bytes received so far.
        seen: usize,
    },
    /// A line of the trailer section does not end with CR LF (RFC 9112 §7.1.2).
    TrailerLine {
        /// Offset of the first invalid byte.
        offset: u64,
        /// That byte.
        byte: u8,
    },
    /// The trailer section exceeds [`Limits::max_trailer_bytes`](crate::Limits::max_trailer_bytes).
    TrailersTooLarge {
        /// The limit, in bytes.
        limit: usize,
        /// Bytes received so far.
        seen: usize,
    },
    /// A collected body exceeds [`Limits::max_body_bytes`](crate::Limits::max_body_bytes).
    BodyTooLarge {
        /// The limit, in bytes.
        limit: u64,
        /// Bytes received so far, or announced by Content-Length.
        seen: u64,
    },
    /// A streamed body exceeds the limit on its decoded bytes:
    /// [`Decode::max_bytes`](crate::session::Decode::max_bytes) of a session, or
    /// [`Screening::max_decoded_bytes`](crate::policy::Screening::max_decoded_bytes) of a policy.
    DecodedTooLarge {
        /// The limit, in bytes.
        limit: u64,
        /// Bytes decoded so far by the layer of coding that exceeded it, or received.
        seen: u64,
    },
    /// An event of an event stream exceeds
    /// [`Events::max_event_bytes`](crate::Events::max_event_bytes).
    EventTooLarge {
        /// The limit, in bytes.
        limit: usize,
        /// Bytes of the event received so far.
        seen: usize,
    },
    /// A line exceeds [`Lines::max_bytes`](crate::Lines::max_bytes).
    LineTooLong {
        /// The limit, in bytes.
        limit: usize,
        /// Bytes of the line received so far.
        seen: usize,
    },
    /// The connection ended within the response (RFC 9112 §8).
    Truncated {
        /// Missing bytes of the body, where known.
        missing: Option<u64>,
    },
    /// Bytes were received while no response was due (RFC 9112 §9.2).
    Unsolicited {
        /// How many bytes had been received when they were noticed.
        bytes: usize,
    },
}

impl Violation {
    /// Returns whether a limit was exceeded, rather than a rule of the protocol broken.
    pub fn is_limit(&self) -> bool {
        match self {
            Violation::HeadTooLarge { .. }
            | Violation::TooManyFields { .. }
            | Violation::TooManyInterim { .. }
            | Violation::ChunkExtensionsTooLarge { .. }
            | Violation::TrailersTooLarge { .. }
            | Violation::BodyTooLarge { .. }
            | Violation::DecodedTooLarge { .. }
            | Violation::EventTooLarge { .. }
            | Violation::LineTooLong { .. } => true,
            Violation::NotHttp { .. }
            | Violation::Http2
            | Violation::StatusLine { .. }
            | Violation::FieldName { .. }
            | Violation::FieldValue { .. }
            | Violation::ObsFold { .. }
            | Violation::FoldedFraming { .. }
            | Violation::SwitchingProtocols
            | Violation::ContentLength { .. }
            | Violation::ConflictingContentLengths { .. }
            | Violation::TransferCodingInHttp10
            | Violation::NoTransferCoding
            | Violation::ChunkedTwice
            | Violation::UnsupportedTransferCoding { .. }
            | Violation::ChunkSize { .. }
            | Violation::ChunkExtension { .. }
            | Violation::ChunkEnd { .. }
            | Violation::TrailerLine { .. }
            | Violation::Truncated { .. }
            | Violation::Unsolicited { .. } => false,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::NotHttp { offset, byte } => {
                write!(f, "not an HTTP/1 response: {byte:#04x} at byte {offset}")
            }
            Violation::Http2 => f.write_str("peer speaks HTTP/2"),
            Violation::StatusLine { offset, byte } => {
                write!(f, "malformed status line: {byte:#04x} at byte {offset}")
            }
            Violation::FieldName { offset, byte } => {
                write!(f, "malformed field name: {byte:#04x} at byte {offset}")
            }
            Violation::FieldValue { offset, byte } => {
                write!(
                    f,
                    "control byte {byte:#04x} in a field value at byte {offset}"
                )
            }
            Violation::ObsFold { offset } => write!(f, "folded field line at byte {offset}"),
            Violation::FoldedFraming { offset } => {
                write!(f, "folded message framing field at byte {offset}")
            }
            Violation::HeadTooLarge { limit, seen } => {
                write!(
                    f,
                    "header section exceeds max_head_bytes ({limit} bytes; {seen} received)"
                )
            }
            Violation::TooManyFields { limit, seen } => {
                write!(f, "more field lines than max_fields ({limit}; {seen} read)")
            }
            Violation::TooManyInterim { limit, seen } => {
                write!(
                    f,
                    "more interim responses than max_interim ({limit}; {seen} read)"
                )
            }
            Violation::SwitchingProtocols => f.write_str("server switched protocols unexpectedly"),
            Violation::ContentLength {
                offset,
                byte: Some(byte),
            } => {
                write!(
                    f,
                    "content length is not a number: {byte:#04x} at byte {offset}"
                )
            }
            Violation::ContentLength { offset, byte: None } => {
                write!(
                    f,
                    "content length is empty or exceeds 64 bits at byte {offset}"
                )
            }
            Violation::ConflictingContentLengths { first, second } => {
                write!(f, "conflicting content lengths {first} and {second}")
            }
            Violation::TransferCodingInHttp10 => {
                f.write_str("transfer coding in an HTTP/1.0 response")
            }
            Violation::NoTransferCoding => f.write_str("transfer encoding names no coding"),
            Violation::ChunkedTwice => f.write_str("chunked coding applied twice"),
            Violation::UnsupportedTransferCoding { name } => {
                write!(f, "unsupported transfer coding {name:?}")
            }
            Violation::ChunkSize { offset, byte } => {
                write!(
                    f,
                    "malformed chunk size: {byte:#04x} at byte {offset} of the body"
                )
            }
            Violation::ChunkExtension { offset, byte } => {
                write!(
                    f,
                    "malformed chunk extension: {byte:#04x} at byte {offset} of the body"
                )
            }
            Violation::ChunkEnd { offset, byte } => {
                write!(
                    f,
                    "no CR LF after chunk data: {byte:#04x} at byte {offset} of the body"
                )
            }
            Violation::ChunkExtensionsTooLarge { limit, seen } => {
                write!(
                    f,
                    "chunk extensions exceed max_chunk_extension_bytes ({limit} bytes; {seen} received)"
                )
            }
            Violation::TrailerLine { offset, byte } => {
                write!(
                    f,
                    "malformed trailer line: {byte:#04x} at byte {offset} of the body"
                )
            }
            Violation::TrailersTooLarge { limit, seen } => {
                write!(
                    f,
                    "trailer section exceeds max_trailer_bytes ({limit} bytes; {seen} received)"
                )
            }
            Violation::BodyTooLarge { limit, seen } => {
                write!(
                    f,
                    "body exceeds max_body_bytes ({limit} bytes; {seen} received, decoded or announced by Content-Length)"
                )
            }
            Violation::DecodedTooLarge { limit, seen } => {
                write!(
                    f,
                    "decoded body exceeds max_bytes ({limit} bytes; {seen} decoded or received)"
                )
            }
            Violation::EventTooLarge { limit, seen } => {
                write!(
                    f,
                    "event exceeds max_event_bytes ({limit} bytes; {seen} received)"
                )
            }
            Violation::LineTooLong { limit, seen } => {
                write!(f, "line exceeds max_bytes ({limit} bytes; {seen} received)")
            }
            Violation::Truncated { missing: Some(n) } => write!(f, "cut short, {n} bytes missing"),
            Violation::Truncated { missing: None } => f.write_str("cut short"),
            Violation::Unsolicited { bytes } => write!(f, "{bytes} unsolicited bytes received"),
        }
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_shows_its_evidence_in_one_clause() {
        let rows = [
            (
                Violation::ChunkSize {
                    offset: 7,
                    byte: b'\n',
                },
                "malformed chunk size: 0x0a at byte 7 of the body",
            ),
            (
                Violation::HeadTooLarge { limit: 9, seen: 12 },
                "header section exceeds max_head_bytes (9 bytes; 12 received)",
            ),
            (
                Violation::DecodedTooLarge { limit: 9, seen: 12 },
                "decoded body exceeds max_bytes (9 bytes; 12 decoded or received)",
            ),
            (
                Violation::Truncated { missing: Some(3) },
                "cut short, 3 bytes missing",
            ),
        ];
        for (violation, expected) in rows {
            assert_eq!(violation.to_string(), expected);
        }
    }

    #[test]
    fn limits_are_told_from_rules() {
        assert!(Violation::BodyTooLarge { limit: 1, seen: 2 }.is_limit());
        assert!(!Violation::Truncated { missing: None }.is_limit());
    }
}
