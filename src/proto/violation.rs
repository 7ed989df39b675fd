//! Everything a peer can do wrong.

use std::fmt;

/// What a peer did wrong, with the evidence.
///
/// An `offset` into a head counts from the first byte of that head, into a trailer section from the
/// section's first byte, into a chunked body from the first byte after the head, framing included.
/// A `byte` is the one that stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// The first bytes are not `HTTP/1.` (RFC 9112 §2.3): another protocol, or the rest of an
    /// earlier response.
    NotHttp {
        /// Place of the first byte that differs.
        offset: usize,
        /// That byte.
        byte: u8,
    },
    /// The peer speaks HTTP/2 (RFC 9113 §3.4), which nobody agreed to.
    Http2,
    /// The status line is malformed (RFC 9112 §4): version, three digits of status from 100 on,
    /// reason.
    StatusLine {
        /// Place of the first byte that cannot stand there.
        offset: usize,
        /// That byte.
        byte: u8,
    },
    /// A field line has no proper name (RFC 9112 §5.1): none at all, a byte that is no token, or
    /// white space before the colon.
    FieldName {
        /// Place of the first byte that cannot stand there.
        offset: usize,
        /// That byte.
        byte: u8,
    },
    /// A field value holds a control byte (RFC 9110 §5.5), among them NUL and a CR without its LF.
    FieldValue {
        /// Place of the control byte.
        offset: usize,
        /// That byte.
        byte: u8,
    },
    /// A field line is folded (RFC 9112 §5.2) and
    /// [`Limits::refuse_obs_fold`](crate::Limits::refuse_obs_fold) is set.
    ObsFold {
        /// Place of the white space that continues the line before.
        offset: usize,
    },
    /// A folded field line says where the message ends: two readers might disagree on it (RFC 9112
    /// §5.2, §11.2).
    FoldedFraming {
        /// Place of the field's name.
        offset: usize,
    },
    /// Status line and header section did not end within
    /// [`Limits::max_head_bytes`](crate::Limits::max_head_bytes).
    HeadTooLarge {
        /// The limit, in bytes.
        limit: usize,
        /// Bytes that had come, those of interim responses included.
        seen: usize,
    },
    /// More field lines than [`Limits::max_fields`](crate::Limits::max_fields), in a header or a
    /// trailer section.
    TooManyFields {
        /// The limit.
        limit: usize,
        /// Field lines counted when reading stopped.
        seen: usize,
    },
    /// More interim responses than [`Limits::max_interim`](crate::Limits::max_interim) before the
    /// final one (RFC 9110 §15.2).
    TooManyInterim {
        /// The limit.
        limit: usize,
        /// Interim responses read.
        seen: usize,
    },
    /// Status 101, though no upgrade was asked for (RFC 9110 §15.2.2).
    SwitchingProtocols,
    /// A Content-Length is not a number that fits 64 bits (RFC 9112 §6.3, rule 5).
    ContentLength {
        /// Place of the byte that is no digit, or of the number that is too large or missing.
        offset: usize,
        /// The byte that is no digit.
        byte: Option<u8>,
    },
    /// Two Content-Length values differ (RFC 9112 §6.3, rule 5).
    ConflictingContentLengths {
        /// The value that came first.
        first: u64,
        /// The one that differs.
        second: u64,
    },
    /// An HTTP/1.0 response with a Transfer-Encoding: its framing is faulty whatever else it says
    /// (RFC 9112 §6.1).
    TransferCodingInHttp10,
    /// A Transfer-Encoding names no coding (RFC 9112 §6.1).
    NoTransferCoding,
    /// The chunked coding is applied twice (RFC 9112 §6.1).
    ChunkedTwice,
    /// A transfer coding other than chunked, which no `TE` field had offered to read (RFC 9112
    /// §6.1, §7.4).
    UnsupportedTransferCoding {
        /// The coding with its parameters, cut after 64 bytes.
        name: Box<str>,
    },
    /// A chunk size is not 1 to 16 hexadecimal digits (RFC 9112 §7.1).
    ChunkSize {
        /// Place of the first byte that cannot stand there.
        offset: u64,
        /// That byte.
        byte: u8,
    },
    /// A chunk extension holds a control byte, or its line does not end with CR LF (RFC 9112
    /// §7.1.1).
    ChunkExtension {
        /// Place of the first byte that cannot stand there.
        offset: u64,
        /// That byte.
        byte: u8,
    },
    /// Chunk data is not followed by CR LF (RFC 9112 §7.1).
    ChunkEnd {
        /// Place of the first byte that cannot stand there.
        offset: u64,
        /// That byte.
        byte: u8,
    },
    /// The chunk extensions of one body passed
    /// [`Limits::max_chunk_extension_bytes`](crate::Limits::max_chunk_extension_bytes).
    ChunkExtensionsTooLarge {
        /// The limit, in bytes.
        limit: usize,
        /// Bytes that had come.
        seen: usize,
    },
    /// A line of the trailer section does not end with CR LF (RFC 9112 §7.1.2).
    TrailerLine {
        /// Place of the first byte that cannot stand there.
        offset: u64,
        /// That byte.
        byte: u8,
    },
    /// The trailer section passed [`Limits::max_trailer_bytes`](crate::Limits::max_trailer_bytes).
    TrailersTooLarge {
        /// The limit, in bytes.
        limit: usize,
        /// Bytes that had come.
        seen: usize,
    },
    /// A collected body passed [`Limits::max_body_bytes`](crate::Limits::max_body_bytes).
    BodyTooLarge {
        /// The limit, in bytes.
        limit: u64,
        /// Bytes that had come or were announced.
        seen: u64,
    },
    /// The connection ended inside the response (RFC 9112 §8).
    Truncated {
        /// Bytes of body that were still to come, where known.
        missing: Option<u64>,
    },
    /// Bytes came when no response was due (RFC 9112 §9.2).
    Unsolicited {
        /// How many had come when they were noticed.
        bytes: usize,
    },
}

impl Violation {
    /// Whether a limit was passed, rather than a rule broken.
    pub fn is_limit(&self) -> bool {
        match self {
            Violation::HeadTooLarge { .. }
            | Violation::TooManyFields { .. }
            | Violation::TooManyInterim { .. }
            | Violation::ChunkExtensionsTooLarge { .. }
            | Violation::TrailersTooLarge { .. }
            | Violation::BodyTooLarge { .. } => true,
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
                write!(
                    f,
                    "folded field line that frames the message at byte {offset}"
                )
            }
            Violation::HeadTooLarge { limit, seen } => {
                write!(
                    f,
                    "header section not ended within {limit} bytes (seen {seen})"
                )
            }
            Violation::TooManyFields { limit, seen } => {
                write!(f, "over {limit} field lines (seen {seen})")
            }
            Violation::TooManyInterim { limit, seen } => {
                write!(f, "over {limit} interim responses (seen {seen})")
            }
            Violation::SwitchingProtocols => f.write_str("protocol switched without being asked"),
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
                write!(f, "content length empty or over 64 bits at byte {offset}")
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
                    "no line end after a chunk: {byte:#04x} at byte {offset} of the body"
                )
            }
            Violation::ChunkExtensionsTooLarge { limit, seen } => {
                write!(f, "chunk extensions over {limit} bytes (seen {seen})")
            }
            Violation::TrailerLine { offset, byte } => {
                write!(
                    f,
                    "malformed trailer line: {byte:#04x} at byte {offset} of the body"
                )
            }
            Violation::TrailersTooLarge { limit, seen } => {
                write!(f, "trailer section over {limit} bytes (seen {seen})")
            }
            Violation::BodyTooLarge { limit, seen } => {
                write!(
                    f,
                    "body over max_body_bytes ({limit} bytes; {seen} received or announced by Content-Length)"
                )
            }
            Violation::Truncated { missing: Some(n) } => write!(f, "cut short, {n} bytes missing"),
            Violation::Truncated { missing: None } => f.write_str("cut short"),
            Violation::Unsolicited { bytes } => write!(f, "{bytes} bytes when no response was due"),
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
                "header section not ended within 9 bytes (seen 12)",
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
