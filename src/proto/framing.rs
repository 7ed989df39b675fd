//! Determines how the end of a response body is found (RFC 9112 §6.3), and whether the connection
//! persists (§9.3).
//!
//! The relevant fields are gathered line by line while a head is read. Errors in them are stored
//! instead of returned: a response without a body (to HEAD, or with status 204 or 304) may contain
//! invalid lengths, since its end does not depend on them.

use http::{StatusCode, Version};

use super::violation::Violation;

/// How the end of a response body is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// There is no body. The message ends with its head.
    #[default]
    Empty,
    /// By its length in bytes.
    Length(u64),
    /// By the chunked coding.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// What the field lines of one head say about the end of the message and of the connection.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    length: ContentLength,
    codings: Codings,
    close: bool,
    keep_alive: bool,
    keep_alive_timeout: Option<u32>,
}

/// The result of all Content-Length lines.
#[derive(Clone, Copy, Debug, Default)]
enum ContentLength {
    #[default]
    Absent,
    Is(u64),
    /// Not a number, at `offset` of the head.
    Bad {
        offset: u32,
        byte: Option<u8>,
    },
    Conflict {
        first: u64,
        second: u64,
    },
}

/// The result of all Transfer-Encoding lines.
#[derive(Clone, Copy, Debug, Default)]
enum Codings {
    #[default]
    Absent,
    /// There are lines, but they contain no coding.
    None,
    Chunked,
    Twice,
    /// A coding other than chunked, at this position of the head.
    Unsupported {
        start: u32,
        len: u32,
    },
}

/// The length at which a coding's name is truncated in a [`Violation`].
const MAX_NAME: usize = 64;

impl Framing {
    /// Returns whether fields with this name affect the framing. If so, a folded line cannot be
    /// trusted.
    pub(crate) fn frames(name: &[u8]) -> bool {
        is(name, b"connection") || is(name, b"content-length") || is(name, b"transfer-encoding")
    }

    /// Processes one field line. `offset` is the position of its value in the head.
    #[inline(always)]
    pub(crate) fn note(&mut self, name: &[u8], value: &[u8], offset: usize) {
        // No hash and no table: few names have one of these lengths, and fewer one of these
        // initials.
        if let (10 | 14 | 17, Some(b'c' | b'C' | b'k' | b'K' | b't' | b'T')) =
            (name.len(), name.first())
        {
            self.note_likely(name, value, offset);
        }
    }

    #[inline(never)]
    fn note_likely(&mut self, name: &[u8], value: &[u8], offset: usize) {
        if is(name, b"content-length") {
            match (self.length, parse_short(value)) {
                (ContentLength::Absent, Some(length)) => self.length = ContentLength::Is(length),
                _ => self.note_length(value, offset),
            }
        } else if is(name, b"connection") {
            self.note_connection(value);
        } else if is(name, b"keep-alive") {
            self.keep_alive_timeout = keep_alive_timeout(value).or(self.keep_alive_timeout);
        } else if is(name, b"transfer-encoding") {
            self.note_codings(value, offset);
        }
    }

    fn note_connection(&mut self, value: &[u8]) {
        // The entire value that most peers ever send.
        if is(value, b"keep-alive") {
            self.keep_alive = true;
            return;
        }
        for (_, option) in elements(value) {
            self.close |= is(option, b"close");
            self.keep_alive |= is(option, b"keep-alive");
        }
    }

    /// Processes one number, or a list that repeats it (RFC 9110 §8.6). An empty element is an
    /// error, because it cannot be intentional.
    fn note_length(&mut self, value: &[u8], offset: usize) {
        for (at, element) in elements(value) {
            let next = parse_length(element, offset + at);
            self.length = match (self.length, next) {
                (ContentLength::Absent, next) => next,
                (ContentLength::Is(first), ContentLength::Is(second)) if first != second => {
                    ContentLength::Conflict { first, second }
                }
                (ContentLength::Is(_), next) => next,
                // The first error is the one reported.
                (wrong @ (ContentLength::Bad { .. } | ContentLength::Conflict { .. }), _) => wrong,
            };
        }
    }

    /// Processes the list, which continues over all lines. Empty elements are ignored (RFC 9110
    /// §5.6.1.2).
    fn note_codings(&mut self, value: &[u8], offset: usize) {
        if let Codings::Absent = self.codings {
            self.codings = Codings::None;
        }
        for (at, coding) in elements(value).filter(|(_, coding)| !coding.is_empty()) {
            let chunked = is(coding, b"chunked");
            self.codings = match self.codings {
                Codings::Absent | Codings::None if chunked => Codings::Chunked,
                Codings::Chunked if chunked => Codings::Twice,
                Codings::Absent | Codings::None | Codings::Chunked => Codings::Unsupported {
                    start: (offset + at) as u32,
                    len: coding.len() as u32,
                },
                wrong @ (Codings::Twice | Codings::Unsupported { .. }) => wrong,
            };
        }
    }

    /// Returns how the end of the body is found (RFC 9112 §6.3, rules in that order).
    ///
    /// `head` contains the bytes that were noted. `is_head` means that the request was a HEAD,
    /// whose response has the fields of a body but no body.
    ///
    /// # Errors
    /// Returns what is wrong with the fields that decide. The connection is then unusable.
    #[inline]
    pub(crate) fn body_length(
        &self,
        head: &[u8],
        is_head: bool,
        status: StatusCode,
        version: Version,
    ) -> Result<BodyLength, Violation> {
        // Rule 1. Rule 2, a tunnel after CONNECT, does not apply: CONNECT is never sent.
        if is_head || status.is_informational() || matches!(status.as_u16(), 204 | 304) {
            return Ok(BodyLength::Empty);
        }
        // Rules 3 and 4: transfer codings override a length. According to the RFC, a body whose
        // last coding is not chunked is read until the connection closes. No coding is offered
        // (TE), so such a body could not be decoded, only mistaken for its content.
        match self.codings {
            Codings::Absent => {}
            _ if version == Version::HTTP_10 => return Err(Violation::TransferCodingInHttp10),
            Codings::Chunked => return Ok(BodyLength::Chunked),
            Codings::None => return Err(Violation::NoTransferCoding),
            Codings::Twice => return Err(Violation::ChunkedTwice),
            Codings::Unsupported { start, len } => {
                let name = &head[start as usize..][..(len as usize).min(MAX_NAME)];
                let name = String::from_utf8_lossy(name).into();
                return Err(Violation::UnsupportedTransferCoding { name });
            }
        }
        match self.length {
            // Rule 5.
            ContentLength::Bad { offset, byte } => Err(Violation::ContentLength {
                offset: offset as usize,
                byte,
            }),
            ContentLength::Conflict { first, second } => {
                Err(Violation::ConflictingContentLengths { first, second })
            }
            // Rule 6.
            ContentLength::Is(0) => Ok(BodyLength::Empty),
            ContentLength::Is(length) => Ok(BodyLength::Length(length)),
            // Rule 7 is for requests. Rule 8.
            ContentLength::Absent => Ok(BodyLength::UntilClose),
        }
    }

    /// Returns the Content-Length if it is reliable, even if the body was not sent (HEAD, 304).
    pub(crate) fn content_length(&self) -> Option<u64> {
        match (self.length, self.codings) {
            (ContentLength::Is(length), Codings::Absent) => Some(length),
            _ => None,
        }
    }

    /// Returns N of `Keep-Alive: timeout=N`, in seconds.
    pub(crate) fn keep_alive_timeout(&self) -> Option<u32> {
        self.keep_alive_timeout
    }

    /// Returns whether the peer announced that it will close (RFC 9112 §9.6).
    pub(crate) fn asks_to_close(&self) -> bool {
        self.close
    }

    /// Returns whether the connection persists after this message, according to its fields (RFC
    /// 9112 §9.3). False as well if they are ambiguous: a peer that sends both a length and codings
    /// (§6.3, rule 3), or an invalid length, may be mistaken about where the message ends.
    #[inline]
    pub(crate) fn is_persistent(&self, version: Version) -> bool {
        let is_1_0 = version == Version::HTTP_10;
        let asked = !self.close && (self.keep_alive || !is_1_0);
        let clear = match (self.length, self.codings) {
            (ContentLength::Absent | ContentLength::Is(_), Codings::Absent) => true,
            (ContentLength::Absent, _) => !is_1_0,
            _ => false,
        };
        asked && clear
    }
}

/// The bit that distinguishes lower from upper case, in each byte.
const CASE: u64 = u64::from_ne_bytes([0x20; 8]);

/// Returns whether `text` equals `lower` in any case. `lower` must consist of lower-case letters
/// and hyphens. In a name or value, only their capitals differ from them in that bit alone, so the
/// comparison takes a handful of instructions.
#[inline]
fn is<const N: usize>(text: &[u8], lower: &[u8; N]) -> bool {
    <&[u8; N]>::try_from(text).is_ok_and(|text| {
        let (words, bytes) = text.as_chunks::<8>();
        let (lower_words, lower_bytes) = lower.as_chunks::<8>();
        let differing_word = words.iter().zip(lower_words).fold(0, |seen, (a, b)| {
            seen | ((u64::from_ne_bytes(*a) | CASE) ^ u64::from_ne_bytes(*b))
        });
        let differing_byte = bytes
            .iter()
            .zip(lower_bytes)
            .fold(0, |seen, (a, b)| seen | ((a | 0x20) ^ b));
        differing_word == 0 && differing_byte == 0
    })
}

/// Returns the elements of a comma-separated list, each with its position, without surrounding
/// white space.
fn elements(list: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut start = 0;
    list.split(|&b| b == b',').map(move |element| {
        let led = element.iter().take_while(|b| is_blank(**b)).count();
        let place = start + led;
        start += element.len() + 1;
        (place, trim(element))
    })
}

/// Returns whether the byte is a space or horizontal tab, the white space of RFC 9110 §5.6.3.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Parses a number that cannot overflow: up to 19 digits and nothing else.
fn parse_short(digits: &[u8]) -> Option<u64> {
    if !matches!(digits.len(), 1..=19) {
        return None;
    }
    digits
        .iter()
        .try_fold(0, |length, byte| match byte.wrapping_sub(b'0') {
            digit @ 0..=9 => Some(length * 10 + u64::from(digit)),
            _ => None,
        })
}

/// Parses digits only: `str::parse` would accept a plus sign.
fn parse_length(digits: &[u8], offset: usize) -> ContentLength {
    let bad = |at: usize, byte| ContentLength::Bad {
        offset: (offset + at) as u32,
        byte,
    };
    if digits.is_empty() {
        return bad(0, None);
    }
    let mut length = 0_u64;
    for (at, &byte) in digits.iter().enumerate() {
        if !byte.is_ascii_digit() {
            return bad(at, Some(byte));
        }
        let digit = u64::from(byte - b'0');
        match length.checked_mul(10).and_then(|n| n.checked_add(digit)) {
            Some(n) => length = n,
            None => return bad(0, None),
        }
    }
    ContentLength::Is(length)
}

/// Returns the `timeout` parameter of a Keep-Alive field (RFC 2068 §19.7.1.1). It is a hint, so an
/// invalid parameter is ignored.
fn keep_alive_timeout(value: &[u8]) -> Option<u32> {
    elements(value).find_map(|(_, parameter)| {
        let (name, seconds) = parameter.split_at(parameter.iter().position(|&b| b == b'=')?);
        if !trim(name).eq_ignore_ascii_case(b"timeout") {
            return None;
        }
        match parse_length(trim(&seconds[1..]), 0) {
            ContentLength::Is(seconds) => Some(u32::try_from(seconds).unwrap_or(u32::MAX)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Lines = &'static [(&'static str, &'static str)];

    /// Notes the lines as if each value were at offset 0 of its own head. Returns the last value as
    /// that head.
    fn noted(lines: Lines) -> (Framing, &'static [u8]) {
        let mut framing = Framing::default();
        for (name, value) in lines {
            framing.note(name.as_bytes(), value.as_bytes(), 0);
        }
        (
            framing,
            lines.last().map_or(b"", |(_, value)| value.as_bytes()),
        )
    }

    fn unsupported(name: &str) -> Violation {
        Violation::UnsupportedTransferCoding { name: name.into() }
    }

    #[test]
    fn the_body_length_follows_the_rules_in_order() {
        use BodyLength::{Chunked, Empty, Length, UntilClose};
        const CL: &str = "Content-Length";
        const TE: &str = "Transfer-Encoding";
        let conflict = Violation::ConflictingContentLengths {
            first: 3,
            second: 4,
        };
        let bad = |offset, byte| Violation::ContentLength { offset, byte };
        let rows: &[(&str, Lines, Result<BodyLength, Violation>)] = &[
            ("no length or coding: until close", &[], Ok(UntilClose)),
            ("one length", &[(CL, "3")], Ok(Length(3))),
            ("a length of zero is no body", &[(CL, "0")], Ok(Empty)),
            ("leading zeros are digits", &[(CL, "0030")], Ok(Length(30))),
            (
                "name in any case",
                &[("cONTENT-lENGTH", "3")],
                Ok(Length(3)),
            ),
            ("the same twice", &[(CL, "3"), (CL, "3")], Ok(Length(3))),
            ("the same in a list", &[(CL, "3, 3,\t3")], Ok(Length(3))),
            (
                "two lengths",
                &[(CL, "3"), (CL, "4")],
                Err(conflict.clone()),
            ),
            ("two lengths in a list", &[(CL, "3,4")], Err(conflict)),
            (
                "largest number",
                &[(CL, "18446744073709551615")],
                Ok(Length(u64::MAX)),
            ),
            (
                "too large a number",
                &[(CL, "18446744073709551616")],
                Err(bad(0, None)),
            ),
            ("empty length", &[(CL, "")], Err(bad(0, None))),
            ("empty element", &[(CL, "3,")], Err(bad(2, None))),
            ("plus sign", &[(CL, "+3")], Err(bad(0, Some(b'+')))),
            ("minus sign", &[(CL, "-3")], Err(bad(0, Some(b'-')))),
            ("underscore", &[(CL, "1_0")], Err(bad(1, Some(b'_')))),
            ("space inside", &[(CL, "1 0")], Err(bad(1, Some(b' ')))),
            (
                "a valid length after an invalid one",
                &[(CL, "x"), (CL, "3")],
                Err(bad(0, Some(b'x'))),
            ),
            ("chunked", &[(TE, "chunked")], Ok(Chunked)),
            ("chunked in any case", &[(TE, "ChunkeD")], Ok(Chunked)),
            (
                "empty elements are ignored",
                &[(TE, ", chunked ,")],
                Ok(Chunked),
            ),
            (
                "so is an empty line",
                &[(TE, ""), (TE, "chunked")],
                Ok(Chunked),
            ),
            (
                "codings override a length",
                &[(CL, "3"), (TE, "chunked")],
                Ok(Chunked),
            ),
            (
                "even an invalid one",
                &[(CL, "x"), (TE, "chunked")],
                Ok(Chunked),
            ),
            ("no coding", &[(TE, "")], Err(Violation::NoTransferCoding)),
            (
                "twice in a list",
                &[(TE, "chunked, chunked")],
                Err(Violation::ChunkedTwice),
            ),
            (
                "twice in lines",
                &[(TE, "chunked"), (TE, "chunked")],
                Err(Violation::ChunkedTwice),
            ),
            (
                "another coding first",
                &[(TE, "gzip, chunked")],
                Err(unsupported("gzip")),
            ),
            (
                "another coding last",
                &[(TE, "chunked, gzip")],
                Err(unsupported("gzip")),
            ),
            (
                "identity is no longer a coding",
                &[(TE, "identity")],
                Err(unsupported("identity")),
            ),
            (
                "a parameter",
                &[(TE, "chunked;q=1")],
                Err(unsupported("chunked;q=1")),
            ),
        ];
        for (why, lines, expected) in rows {
            let (framing, head) = noted(lines);
            let length =
                |is_head, status| framing.body_length(head, is_head, status, Version::HTTP_11);
            assert_eq!(length(false, StatusCode::OK), *expected, "{why}");
            // Rule 1 takes precedence over all of them.
            assert_eq!(length(true, StatusCode::OK), Ok(Empty), "{why}, to HEAD");
            for status in [
                StatusCode::NO_CONTENT,
                StatusCode::NOT_MODIFIED,
                StatusCode::CONTINUE,
            ] {
                assert_eq!(length(false, status), Ok(Empty), "{why}, {status}");
            }
        }
    }

    #[test]
    fn transfer_codings_are_refused_in_http_1_0() {
        let (framing, head) = noted(&[("Transfer-Encoding", "chunked")]);
        let length = framing.body_length(head, false, StatusCode::OK, Version::HTTP_10);
        assert_eq!(length, Err(Violation::TransferCodingInHttp10));
    }

    #[test]
    fn a_long_coding_is_cut_in_the_violation() {
        let long = "x".repeat(1000);
        let mut framing = Framing::default();
        framing.note(b"transfer-encoding", long.as_bytes(), 0);
        let length = framing.body_length(long.as_bytes(), false, StatusCode::OK, Version::HTTP_11);
        assert_eq!(length, Err(unsupported(&"x".repeat(MAX_NAME))));
    }

    #[test]
    fn the_connection_outlives_what_does_not_end_it() {
        const CONNECTION: &str = "Connection";
        let rows: &[(&str, Lines, bool, bool)] = &[
            ("no field", &[], true, false),
            ("close", &[(CONNECTION, "close")], false, false),
            (
                "close in any case, in a list",
                &[(CONNECTION, "te , CLOSE")],
                false,
                false,
            ),
            (
                "close in the second line",
                &[(CONNECTION, "te"), (CONNECTION, "close")],
                false,
                false,
            ),
            ("keep-alive", &[(CONNECTION, "Keep-Alive")], true, true),
            ("both", &[(CONNECTION, "keep-alive, close")], false, false),
            (
                "an option that only starts with close",
                &[(CONNECTION, "closed")],
                true,
                false,
            ),
            (
                "bytes that are not ASCII",
                &[(CONNECTION, "\u{e9}, \u{ff},")],
                true,
                false,
            ),
            ("a length", &[("Content-Length", "3")], true, false),
            (
                "an invalid length, even without a body",
                &[("Content-Length", "x")],
                false,
                false,
            ),
            (
                "length and codings",
                &[("Content-Length", "3"), ("Transfer-Encoding", "chunked")],
                false,
                false,
            ),
        ];
        for (why, lines, in_1_1, in_1_0) in rows {
            let (framing, _) = noted(lines);
            assert_eq!(framing.is_persistent(Version::HTTP_11), *in_1_1, "{why}");
            assert_eq!(
                framing.is_persistent(Version::HTTP_10),
                *in_1_0,
                "{why}, in 1.0"
            );
        }
    }

    #[test]
    fn the_content_length_of_a_missing_body_is_known() {
        assert_eq!(
            noted(&[("Content-Length", "7")]).0.content_length(),
            Some(7)
        );
        assert_eq!(noted(&[("Content-Length", "x")]).0.content_length(), None);
        let both: Lines = &[("Content-Length", "7"), ("Transfer-Encoding", "chunked")];
        assert_eq!(noted(both).0.content_length(), None);
    }

    #[test]
    fn the_keep_alive_timeout_is_a_hint() {
        let rows: &[(&str, Option<u32>)] = &[
            ("timeout=5", Some(5)),
            ("max=100, Timeout = 60", Some(60)),
            ("timeout=99999999999", Some(u32::MAX)),
            ("timeout=soon", None),
            ("timeout", None),
            ("timeout=", None),
            ("", None),
        ];
        for (value, expected) in rows {
            assert_eq!(keep_alive_timeout(value.as_bytes()), *expected, "{value}");
        }
    }
}
