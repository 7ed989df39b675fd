//! Status line, field lines and trailers (RFC 9112 §4, §5, §7.1.2). The only user of httparse.
//!
//! A complete head is parsed once, in place. There are three readers:
//!
//! - [`plain`](super::plain) reads plain heads, which nearly every server sends.
//! - httparse reads what that leaves.
//! - [`read_fields`], a slow reader of the same grammar, gets what httparse refuses. It joins
//!   folded lines, and identifies the byte that breaks a rule.
//!
//! With the first, a small exchange takes 4,310 instructions, with httparse 5,199, and with the
//! slow one 6,950; with 30 fields, 8,582, 10,911 and 26,234. The slow reader exists for the
//! evidence in a [`Violation`], and the tests compare the three against each other.
//!
//! While a head is incomplete, only new bytes are examined, to find the head's end. Parsing from
//! the first byte at every read would let a peer that sends 28 KB byte by byte keep the whole loop
//! busy.

use std::mem::MaybeUninit;
use std::ops::Range;

use http::{StatusCode, Version};
use httparse::ParserConfig;

use super::field::Field;
use super::framing::{BodyLength, Framing, is_blank};
use super::limits::Limits;
use super::violation::Violation;

/// A parsed response head. `fields` are positions relative to the head's first byte.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    /// Start and length of the reason, which may be empty and may contain any byte from 0x80 on.
    pub(crate) reason: (u32, u32),
    /// Reused for the next head, never shrunk.
    pub(crate) fields: Vec<Field>,
    pub(crate) length: BodyLength,
    /// The Content-Length, even if the body was not sent. `None` if a transfer coding overrides it.
    pub(crate) content_length: Option<u64>,
    /// `Keep-Alive: timeout=N`, in seconds.
    pub(crate) keep_alive_timeout: Option<u32>,
    /// Length of this head in bytes, including its empty line.
    pub(crate) len: u32,
}

/// How many field lines are parsed on the stack. A larger [`Limits::max_fields`] costs an
/// allocation for heads that need it.
const FIELDS_ON_STACK: usize = 128;

/// The start of every head. The digit after it is checked separately.
const PREFIX: &[u8] = b"HTTP/1.";
/// Position of the first digit of the status, in `HTTP/1.1 200 OK`.
pub(super) const STATUS: usize = 9;
/// Position after the last digit of the status.
pub(super) const AFTER_STATUS: usize = 12;

impl Head {
    /// Checks that a body of known length may be collected.
    ///
    /// # Errors
    /// Returns an error if the body is longer than the limit.
    #[inline]
    pub(crate) fn check_length(&self, limits: &Limits) -> Result<(), Violation> {
        match self.length {
            BodyLength::Length(seen) if seen > limits.max_body_bytes => {
                let limit = limits.max_body_bytes;
                Err(Violation::BodyTooLarge { limit, seen })
            }
            _ => Ok(()),
        }
    }

    /// Parses a head at the start of `input`. Returns `None` while it is incomplete.
    ///
    /// `searched` is where the search for the head's end continues: 0 for a new head, then the
    /// value that the last call stored. Bytes of `input` may change: a minor version above 1
    /// becomes 1, and folded lines are joined. The caller has to set [`Head::length`].
    pub(crate) fn read(
        &mut self,
        input: &mut [u8],
        searched: &mut u32,
        limits: &Limits,
    ) -> Result<Option<Framing>, Violation> {
        // Most heads are complete and plain, and this finds their end as well as a search would.
        if *searched == 0 {
            count_examined(input.len());
            if let Some(framing) = self.read_plain(input, limits.max_fields) {
                return Ok(Some(framing));
            }
        }
        self.read_any(input, searched, limits)
    }

    /// Continues [`read`](Self::read) for heads that are not plain, or did not arrive whole.
    #[inline(never)]
    fn read_any(
        &mut self,
        input: &mut [u8],
        searched: &mut u32,
        limits: &Limits,
    ) -> Result<Option<Framing>, Violation> {
        check_prefix(input)?;
        // RFC 9112 §2.3: a higher minor version is treated as the highest known one.
        if let Some(minor @ b'2'..=b'9') = input.get_mut(PREFIX.len()) {
            *minor = b'1';
        }
        let end = match *searched {
            0 => Some(input.len()),
            from => find_end(input, from as usize),
        };
        let framing = match end {
            Some(end) => {
                let head = &mut input[..end];
                match self.parse(head, limits.max_fields) {
                    Ok(framing) => framing,
                    Err(_) => self.read_slowly(head, limits)?,
                }
            }
            None => None,
        };
        if framing.is_none() {
            *searched = input.len() as u32;
        }
        Ok(framing)
    }

    /// Parses with httparse. Returns `None` while the head is incomplete.
    fn parse(
        &mut self,
        head: &[u8],
        max_fields: usize,
    ) -> Result<Option<Framing>, httparse::Error> {
        let mut lines = [const { MaybeUninit::uninit() }; FIELDS_ON_STACK];
        match self.parse_into(head, &mut lines[..max_fields.min(FIELDS_ON_STACK)]) {
            Err(httparse::Error::TooManyHeaders) if max_fields > FIELDS_ON_STACK => {
                // The shortest line, "a:\n", has three bytes. A head has no more lines than that
                // allows, whatever the limit.
                let most = max_fields.min(head.len() / 3 + 1);
                let mut lines = Vec::with_capacity(most);
                self.parse_into(head, &mut lines.spare_capacity_mut()[..most])
            }
            parsed => parsed,
        }
    }

    fn parse_into<'b>(
        &mut self,
        head: &'b [u8],
        lines: &mut [MaybeUninit<httparse::Header<'b>>],
    ) -> Result<Option<Framing>, httparse::Error> {
        count_examined(head.len());
        let mut parsed = httparse::Response::new(&mut []);
        let read =
            ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, lines)?;
        let httparse::Status::Complete(len) = read else {
            return Ok(None);
        };
        let code = parsed.code.unwrap_or_default();
        self.status = StatusCode::from_u16(code).map_err(|_| httparse::Error::Status)?;
        self.version = match parsed.version {
            Some(0) => Version::HTTP_10,
            _ => Version::HTTP_11,
        };
        self.reason = match parsed.reason {
            Some(reason) if !reason.is_empty() => (AFTER_STATUS as u32 + 1, reason.len() as u32),
            // Empty, or not UTF-8, which httparse reports as empty.
            _ => find_reason(head),
        };
        self.len = len as u32;

        let start = head.as_ptr().addr();
        let place = |part: &[u8]| ((part.as_ptr().addr() - start) as u32, part.len() as u32);
        let mut framing = Framing::default();
        self.fields.clear();
        self.fields.extend(parsed.headers.iter().map(|line| {
            let (name, value) = (place(line.name.as_bytes()), place(line.value));
            framing.note(line.name.as_bytes(), line.value, value.0 as usize);
            Field::at(name, value)
        }));
        Ok(Some(framing))
    }

    /// Slow path for heads that httparse refuses. Reads folded lines, and identifies the violation
    /// in all other heads.
    #[cold]
    fn read_slowly(
        &mut self,
        head: &mut [u8],
        limits: &Limits,
    ) -> Result<Option<Framing>, Violation> {
        count_examined(head.len());
        let Some(fields_start) = check_status_line(head)? else {
            return Ok(None);
        };
        let Some(end) = read_fields(head, fields_start, &mut self.fields, limits)? else {
            return Ok(None);
        };
        join_folded(head, &mut self.fields);

        let digits = &head[STATUS..AFTER_STATUS];
        self.status = StatusCode::from_bytes(digits).map_err(|_| bad_status(head, STATUS))?;
        self.version = match head[PREFIX.len()] {
            b'0' => Version::HTTP_10,
            _ => Version::HTTP_11,
        };
        self.reason = find_reason(head);
        self.len = end as u32;
        let mut framing = Framing::default();
        for field in &self.fields {
            framing.note(
                &head[field.name()],
                &head[field.value()],
                field.value().start,
            );
        }
        Ok(Some(framing))
    }
}

/// Parses a complete trailer section, including its empty line. Positions are relative to its first
/// byte. Folded lines are joined in place.
///
/// The fields are kept separate from those of the head: fields for framing or routing have no
/// meaning in a trailer section (RFC 9110 §6.5.1).
pub(crate) fn parse_trailers(
    section: &mut [u8],
    fields: &mut Vec<Field>,
    limits: &Limits,
) -> Result<(), Violation> {
    match read_fields(section, 0, fields, limits)? {
        Some(_) => {
            join_folded(section, fields);
            Ok(())
        }
        None => Err(Violation::Truncated { missing: None }),
    }
}

/// Refuses the first byte that cannot start a head. Only servers skip preceding empty lines (RFC
/// 9112 §2.2): a client that did so would overlook the rest of an earlier response.
#[inline]
fn check_prefix(input: &[u8]) -> Result<(), Violation> {
    if input.starts_with(PREFIX) {
        return Ok(());
    }
    match input
        .iter()
        .zip(PREFIX)
        .position(|(byte, expected)| byte != expected)
    {
        None => Ok(()),
        Some(_) if is_http2(input) => Err(Violation::Http2),
        Some(offset) => Err(Violation::NotHttp {
            offset,
            byte: input[offset],
        }),
    }
}

/// Returns whether this is HTTP/2: a status line of that version, a client's preface sent back, or
/// a server's preface, which is a SETTINGS frame on stream 0 (RFC 9113 §3.4, §4.1).
fn is_http2(input: &[u8]) -> bool {
    input.starts_with(b"HTTP/2")
        || input.starts_with(b"PRI * HTTP/2")
        || matches!(input, [0, _, _, 4, 0, 0, 0, 0, 0, ..])
}

/// Returns the position after the empty line. Bytes before `from` were searched before, and are
/// only examined again around a line's end.
fn find_end(input: &[u8], from: usize) -> Option<usize> {
    count_examined(input.len() - from);
    let mut at = from;
    while let Some(n) = input[at..].iter().position(|&b| b == b'\n') {
        let line_end = at + n;
        if let [.., b'\n'] | [.., b'\n', b'\r'] = input[..line_end] {
            return Some(line_end + 1);
        }
        at = line_end + 1;
    }
    None
}

/// Returns the reason of a status line whose digits have been read: the text between the space
/// after them and the line's end.
fn find_reason(head: &[u8]) -> (u32, u32) {
    let start = match head[AFTER_STATUS] {
        b' ' => AFTER_STATUS + 1,
        _ => AFTER_STATUS,
    };
    let rest = &head[start..];
    let line = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
    let len = match rest[..line] {
        [.., b'\r'] => line - 1,
        _ => line,
    };
    (start as u32, len as u32)
}

fn bad_status(head: &[u8], offset: usize) -> Violation {
    Violation::StatusLine {
        offset,
        byte: head[offset],
    }
}

/// Returns the position after the status line, or `None` while it is incomplete (RFC 9112 §4).
///
/// The reason may be missing, and then also the space before it: both are common.
fn check_status_line(head: &[u8]) -> Result<Option<usize>, Violation> {
    for at in PREFIX.len()..=AFTER_STATUS {
        let Some(byte) = head.get(at) else {
            return Ok(None);
        };
        let fits = match at {
            7 => matches!(byte, b'0' | b'1'),
            8 => *byte == b' ',
            STATUS => matches!(byte, b'1'..=b'9'),
            AFTER_STATUS => matches!(byte, b' ' | b'\r' | b'\n'),
            _ => byte.is_ascii_digit(),
        };
        if !fits {
            return Err(bad_status(head, at));
        }
    }
    match find_line_end(head, AFTER_STATUS) {
        LineEnd::At { next, .. } => Ok(Some(next)),
        LineEnd::Missing => Ok(None),
        LineEnd::Refused(at) => Err(bad_status(head, at)),
    }
}

enum LineEnd {
    /// The line's text ends before `end`, and the next line starts at `next`.
    At {
        end: usize,
        next: usize,
    },
    Missing,
    /// A control byte precedes the line end, at this position.
    Refused(usize),
}

/// Finds the end of a line. A bare LF counts: RFC 9112 §2.2 permits it, and old servers send it.
fn find_line_end(bytes: &[u8], start: usize) -> LineEnd {
    let text = bytes[start..]
        .iter()
        .take_while(|b| is_text_byte(**b))
        .count();
    let end = start + text;
    match bytes[end..] {
        [b'\n', ..] => LineEnd::At { end, next: end + 1 },
        [b'\r', b'\n', ..] => LineEnd::At { end, next: end + 2 },
        [] | [b'\r'] => LineEnd::Missing,
        _ => LineEnd::Refused(end),
    }
}

/// Reads field lines from position `at` on. Returns the position after the empty line, or `None`
/// while it has not been received.
///
/// The value of a folded line spans all its lines: [`join_folded`] must be called once the section
/// is complete.
fn read_fields(
    bytes: &[u8],
    mut at: usize,
    fields: &mut Vec<Field>,
    limits: &Limits,
) -> Result<Option<usize>, Violation> {
    fields.clear();
    loop {
        match bytes[at..] {
            [] | [b'\r'] => return Ok(None),
            [b'\n', ..] => return Ok(Some(at + 1)),
            [b'\r', b'\n', ..] => return Ok(Some(at + 2)),
            [b' ' | b'\t', ..] => {
                let Some(folded) = fields.last_mut() else {
                    return Err(bad_name(bytes, at));
                };
                if limits.refuse_obs_fold {
                    return Err(Violation::ObsFold { offset: at });
                }
                if Framing::frames(&bytes[folded.name()]) {
                    let offset = folded.name().start;
                    return Err(Violation::FoldedFraming { offset });
                }
                let Some((value, next)) = read_value(bytes, at)? else {
                    return Ok(None);
                };
                // If the first line is empty, the value starts here. If this one is empty, it adds
                // nothing.
                let whole = match (folded.value().is_empty(), value.is_empty()) {
                    (true, _) => value,
                    (false, true) => folded.value(),
                    (false, false) => folded.value().start..value.end,
                };
                *folded = Field::new(folded.name(), whole);
                at = next;
            }
            [..] => {
                let Some(name) = read_name(bytes, at)? else {
                    return Ok(None);
                };
                let Some((value, next)) = read_value(bytes, name.end + 1)? else {
                    return Ok(None);
                };
                fields.push(Field::new(name, value));
                if fields.len() > limits.max_fields {
                    return Err(Violation::TooManyFields {
                        limit: limits.max_fields,
                        seen: fields.len(),
                    });
                }
                at = next;
            }
        }
    }
}

/// Reads a name, up to its colon (RFC 9112 §5.1).
fn read_name(bytes: &[u8], start: usize) -> Result<Option<Range<usize>>, Violation> {
    let Some(len) = bytes[start..].iter().position(|b| !is_token_byte(*b)) else {
        return Ok(None);
    };
    match (len, bytes[start + len]) {
        (1.., b':') => Ok(Some(start..start + len)),
        _ => Err(bad_name(bytes, start + len)),
    }
}

fn bad_name(bytes: &[u8], offset: usize) -> Violation {
    Violation::FieldName {
        offset,
        byte: bytes[offset],
    }
}

/// Reads a value up to its line's end. Returns its trimmed range, and the position of the next
/// line.
fn read_value(bytes: &[u8], start: usize) -> Result<Option<(Range<usize>, usize)>, Violation> {
    let (end, next) = match find_line_end(bytes, start) {
        LineEnd::At { end, next } => (end, next),
        LineEnd::Missing => return Ok(None),
        LineEnd::Refused(offset) => {
            return Err(Violation::FieldValue {
                offset,
                byte: bytes[offset],
            });
        }
    };
    let value = &bytes[start..end];
    let led = value.iter().take_while(|b| is_blank(**b)).count();
    let trailed = value[led..]
        .iter()
        .rev()
        .take_while(|b| is_blank(**b))
        .count();
    Ok(Some((start + led..end - trailed, next)))
}

/// Replaces each fold with one space (RFC 9112 §5.2), in place. Values become shorter, and what
/// follows them does not move.
fn join_folded(bytes: &mut [u8], fields: &mut [Field]) {
    for field in fields {
        let place = field.value();
        let value = &mut bytes[place.clone()];
        if !value.contains(&b'\n') {
            continue;
        }
        let mut len = 0;
        let mut at = 0;
        while at < value.len() {
            if matches!(value[at], b'\r' | b'\n') {
                while len > 0 && is_blank(value[len - 1]) {
                    len -= 1;
                }
                while matches!(value[at], b'\r' | b'\n' | b' ' | b'\t') {
                    at += 1;
                }
                value[len] = b' ';
            } else {
                value[len] = value[at];
                at += 1;
            }
            len += 1;
        }
        *field = Field::new(field.name(), place.start..place.start + len);
    }
}

/// RFC 9110 §5.6.2.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'z' | b'|' | b'~' | b'0'..=b'9' | b'A'..=b'Z')
}

/// Returns whether the byte is allowed in values and reasons, including white space (RFC 9110 §5.5,
/// RFC 9112 §4).
fn is_text_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

#[cfg(not(test))]
fn count_examined(_: usize) {}

/// Returns how many bytes of heads this thread has examined.
#[cfg(test)]
pub(crate) fn examined() -> usize {
    tests::EXAMINED.get()
}

#[cfg(test)]
fn count_examined(bytes: usize) {
    tests::EXAMINED.set(tests::EXAMINED.get() + bytes);
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::proto::field::Headers;
    use crate::proto::testing::{Random, feeds};

    thread_local! {
        /// Bytes that searches and parsers examined, as an upper bound.
        pub(crate) static EXAMINED: Cell<usize> = const { Cell::new(0) };
    }

    /// The comparable parts of a head: status, version, reason, lines, length.
    type Seen = (u16, Version, Vec<u8>, Vec<(String, Vec<u8>)>, usize);

    fn seen(head: &Head, bytes: &[u8]) -> Seen {
        let (start, len) = head.reason;
        let lines = Headers::new(bytes, &head.fields);
        (
            head.status.as_u16(),
            head.version,
            bytes[start as usize..][..len as usize].to_vec(),
            lines
                .map(|(name, value)| (name.to_owned(), value.to_vec()))
                .collect(),
            head.len as usize,
        )
    }

    /// Feeds a head as an engine does: nothing is consumed until it is complete.
    fn read(feed: &[&[u8]], limits: &Limits) -> Result<Option<Seen>, Violation> {
        let (mut head, mut bytes, mut searched) = (Head::default(), Vec::new(), 0);
        for piece in feed {
            bytes.extend_from_slice(piece);
            if head.read(&mut bytes, &mut searched, limits)?.is_some() {
                return Ok(Some(seen(&head, &bytes)));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_head_is_read_in_place() {
        type Lines = &'static [(&'static str, &'static [u8])];
        type Row = (&'static str, &'static [u8], u16, &'static [u8], Lines);
        let rows: &[Row] = &[
            ("no field", b"HTTP/1.1 200 OK\r\n\r\n", 200, b"OK", &[]),
            ("empty reason", b"HTTP/1.1 200 \r\n\r\n", 200, b"", &[]),
            (
                "no reason and no space before it",
                b"HTTP/1.1 200\r\n\r\n",
                200,
                b"",
                &[],
            ),
            (
                "the same with a bare LF",
                b"HTTP/1.1 200\n\n",
                200,
                b"",
                &[],
            ),
            (
                "reason with spaces",
                b"HTTP/1.1 404 Not  Found \r\n\r\n",
                404,
                b"Not  Found ",
                &[],
            ),
            (
                "reason that is not UTF-8",
                b"HTTP/1.1 200 \xc3\r\n\r\n",
                200,
                b"\xc3",
                &[],
            ),
            (
                "the same with a bare LF",
                b"HTTP/1.1 200 \xc3\n\r\n",
                200,
                b"\xc3",
                &[],
            ),
            ("unknown status", b"HTTP/1.1 999 x\r\n\r\n", 999, b"x", &[]),
            (
                "higher minor version",
                b"HTTP/1.7 200 OK\r\n\r\n",
                200,
                b"OK",
                &[],
            ),
            (
                "fields in order",
                b"HTTP/1.1 200 OK\r\nB: 1\r\na:2\r\nb: 3\r\n\r\n",
                200,
                b"OK",
                &[("B", b"1"), ("a", b"2"), ("b", b"3")],
            ),
            (
                "white space around a value",
                b"HTTP/1.1 200 OK\r\na:\t b  c \t\r\n\r\n",
                200,
                b"OK",
                &[("a", b"b  c")],
            ),
            (
                "empty value",
                b"HTTP/1.1 200 OK\r\na:\r\nb: \r\n\r\n",
                200,
                b"OK",
                &[("a", b""), ("b", b"")],
            ),
            (
                "value that is not UTF-8",
                b"HTTP/1.1 200 OK\r\na: \xff\r\n\r\n",
                200,
                b"OK",
                &[("a", b"\xff")],
            ),
            (
                "bare LF as line end",
                b"HTTP/1.1 200 OK\na: b\nc: d\r\n\n",
                200,
                b"OK",
                &[("a", b"b"), ("c", b"d")],
            ),
            (
                "folded value",
                b"HTTP/1.1 200 OK\r\na: b \r\n \t c\r\n\td\r\ne: f\r\n\r\n",
                200,
                b"OK",
                &[("a", b"b c d"), ("e", b"f")],
            ),
            (
                "folded before the value",
                b"HTTP/1.1 200 OK\r\na:\r\n b\r\n\r\n",
                200,
                b"OK",
                &[("a", b"b")],
            ),
            (
                "folded after the value",
                b"HTTP/1.1 200 OK\r\na: b\r\n  \r\nc: d\r\n\r\n",
                200,
                b"OK",
                &[("a", b"b"), ("c", b"d")],
            ),
            (
                "folded around an empty line",
                b"HTTP/1.1 200 OK\r\na: b\r\n \r\n c\r\n\r\n",
                200,
                b"OK",
                &[("a", b"b c")],
            ),
            (
                "only folds",
                b"HTTP/1.1 200 OK\r\na:\r\n \r\n\t\r\n\r\n",
                200,
                b"OK",
                &[("a", b"")],
            ),
        ];
        for (why, wire, status, reason, lines) in rows {
            let lines: Vec<_> = lines
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                .collect();
            for tail in ["", "x", "\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
                let bytes = [*wire, tail.as_bytes()].concat();
                let expected = (
                    *status,
                    Version::HTTP_11,
                    reason.to_vec(),
                    lines.clone(),
                    wire.len(),
                );
                for feed in feeds(&bytes) {
                    let head = read(&feed, &Limits::DEFAULT);
                    assert_eq!(head, Ok(Some(expected.clone())), "{why}, fed {feed:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_in_a_head_is_named_with_its_place() {
        let status = |offset, byte| Violation::StatusLine { offset, byte };
        let name = |offset, byte| Violation::FieldName { offset, byte };
        let value = |offset, byte| Violation::FieldValue { offset, byte };
        let folded = |offset| Violation::FoldedFraming { offset };
        let rows: &[(&str, &[u8], Violation)] = &[
            (
                "version without digit",
                b"HTTP/1.x 200 OK\r\n\r\n",
                status(7, b'x'),
            ),
            (
                "version of two digits",
                b"HTTP/1.10 200 OK\r\n\r\n",
                status(8, b'0'),
            ),
            (
                "no space before the status",
                b"HTTP/1.1200 OK\r\n\r\n",
                status(8, b'2'),
            ),
            ("two spaces", b"HTTP/1.1  200 OK\r\n\r\n", status(9, b' ')),
            (
                "status below 100",
                b"HTTP/1.1 099 OK\r\n\r\n",
                status(9, b'0'),
            ),
            (
                "status of two digits",
                b"HTTP/1.1 20 OK\r\n\r\n",
                status(11, b' '),
            ),
            (
                "status of four digits",
                b"HTTP/1.1 2000 OK\r\n\r\n",
                status(12, b'0'),
            ),
            (
                "NUL in the reason",
                b"HTTP/1.1 200 O\0K\r\n\r\n",
                status(14, 0),
            ),
            (
                "bare CR in the reason",
                b"HTTP/1.1 200 O\rK\r\n\r\n",
                status(14, b'\r'),
            ),
            (
                "bare CR after the status",
                b"HTTP/1.1 200\r OK\r\n\r\n",
                status(12, b'\r'),
            ),
            (
                "DEL in the reason",
                b"HTTP/1.1 200 \x7f\r\n\r\n",
                status(13, 0x7f),
            ),
            (
                "no colon",
                b"HTTP/1.1 200 OK\r\na: b\r\ncd\r\n\r\n",
                name(25, b'\r'),
            ),
            (
                "empty name",
                b"HTTP/1.1 200 OK\r\n: b\r\n\r\n",
                name(17, b':'),
            ),
            (
                "white space before the colon",
                b"HTTP/1.1 200 OK\r\na : b\r\n\r\n",
                name(18, b' '),
            ),
            (
                "white space before the first field",
                b"HTTP/1.1 200 OK\r\n a: b\r\n\r\n",
                name(17, b' '),
            ),
            (
                "not a token",
                b"HTTP/1.1 200 OK\r\na(b: c\r\n\r\n",
                name(18, b'('),
            ),
            (
                "obs-text in a name",
                b"HTTP/1.1 200 OK\r\na\xff: c\r\n\r\n",
                name(18, 0xff),
            ),
            (
                "NUL in a value",
                b"HTTP/1.1 200 OK\r\na: b\0\r\n\r\n",
                value(21, 0),
            ),
            (
                "bare CR in a value",
                b"HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n",
                value(21, b'\r'),
            ),
            (
                "bare CR as empty line",
                b"HTTP/1.1 200 OK\r\na: b\r\n\rc\r\n\r\n",
                name(23, b'\r'),
            ),
            (
                "control byte in a folded value",
                b"HTTP/1.1 200 OK\r\na: b\r\n c\x01\r\n\r\n",
                value(25, 1),
            ),
            (
                "folded length",
                b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n 5\r\n\r\n",
                folded(17),
            ),
            (
                "length with an empty fold",
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n \r\n\r\n",
                folded(17),
            ),
            (
                "folded codings",
                b"HTTP/1.1 200 OK\r\na: b\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
                folded(23),
            ),
            (
                "folded Connection",
                b"HTTP/1.1 200 OK\r\nConnection: a,\r\n close\r\n\r\n",
                folded(17),
            ),
        ];
        for (why, wire, expected) in rows {
            for feed in feeds(wire) {
                let head = read(&feed, &Limits::DEFAULT);
                assert_eq!(head, Err(expected.clone()), "{why}, fed {feed:?}");
            }
        }
    }

    #[test]
    fn the_first_byte_that_is_not_http_1_is_refused() {
        let not_http = |offset, byte| Violation::NotHttp { offset, byte };
        let rows: &[(&str, &[u8], Violation)] = &[
            (
                "an empty line first",
                b"\r\nHTTP/1.1 200 OK\r\n\r\n",
                not_http(0, b'\r'),
            ),
            ("lower case", b"http/1.1 200 OK\r\n\r\n", not_http(0, b'h')),
            ("the rest of a body", b"</html>", not_http(0, b'<')),
            ("ICY", b"ICY 200 OK\r\n", not_http(0, b'I')),
            ("HTTP/0.9", b"HTTP/0.9 200 OK\r\n", not_http(5, b'0')),
            (
                "HTTP/1 without minor",
                b"HTTP/1 200 OK\r\n",
                not_http(6, b' '),
            ),
            ("HTTP/2", b"HTTP/2 200\r\n\r\n", Violation::Http2),
        ];
        for (why, wire, expected) in rows {
            for feed in feeds(wire) {
                let head = read(&feed, &Limits::DEFAULT);
                assert_eq!(head, Err(expected.clone()), "{why}, fed {feed:?}");
            }
        }
        // These differ in the first byte already, so the violation depends on what arrived with it.
        for wire in [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            b"\0\0\x12\x04\0\0\0\0\0\0\x03",
        ] {
            assert_eq!(read(&[wire], &Limits::DEFAULT), Err(Violation::Http2));
        }
    }

    #[test]
    fn folded_lines_can_be_refused() {
        let limits = Limits {
            refuse_obs_fold: true,
            ..Limits::DEFAULT
        };
        for feed in feeds(b"HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n") {
            assert_eq!(read(&feed, &limits), Err(Violation::ObsFold { offset: 23 }));
        }
    }

    /// Returns a head of `lines` field lines, each seven bytes long.
    fn head_of(lines: usize) -> Vec<u8> {
        [
            b"HTTP/1.1 200 OK\r\n".to_vec(),
            b"ab: c\r\n".repeat(lines),
            b"\r\n".to_vec(),
        ]
        .concat()
    }

    #[test]
    fn field_lines_are_counted() {
        for (limit, lines) in [
            (0, 0),
            (2, 2),
            (128, 128),
            (129, 129),
            (1000, 130),
            (usize::MAX, 500),
        ] {
            let limits = Limits {
                max_fields: limit,
                ..Limits::DEFAULT
            };
            let head = read(&[&head_of(lines)], &limits).unwrap().unwrap();
            assert_eq!(head.3.len(), lines);
        }
        for limit in [0, 2, 127, 128, 129, 500] {
            let limits = Limits {
                max_fields: limit,
                ..Limits::DEFAULT
            };
            let expected = Violation::TooManyFields {
                limit,
                seen: limit + 1,
            };
            assert_eq!(read(&[&head_of(limit + 1)], &limits), Err(expected));
        }
    }

    #[test]
    fn a_large_head_fed_byte_by_byte_is_looked_at_less_than_three_times() {
        let line = format!("Set-Cookie: {}\r\n", "x".repeat(300));
        for first in ["", "a: b\r\n c\r\n"] {
            let wire = format!("HTTP/1.1 200 OK\r\n{first}{}\r\n", line.repeat(90)).into_bytes();
            assert!(wire.len() > 28_000);
            for size in [1, 2, 3, 1000, wire.len() / 2 + 1, wire.len()] {
                EXAMINED.set(0);
                let feed: Vec<_> = wire.chunks(size).collect();
                assert!(read(&feed, &Limits::DEFAULT).unwrap().is_some());
                let examined = EXAMINED.get();
                // The fast readers stop at the first folded line, but are counted as if they had
                // read everything.
                let most = if first.is_empty() { 3 } else { 6 };
                assert!(
                    examined <= most * wire.len(),
                    "{examined} in pieces of {size}"
                );
            }
        }
    }

    #[test]
    fn all_readers_agree_on_every_mutated_head() {
        let mut random = Random::new(9);
        let heads: [&[u8]; 3] = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nSet-Cookie: a=b; c\r\nx:\r\n\r\n",
            b"HTTP/1.0 302 Found\nServer: a b\nLocation: /\xc3\xa4\n\n",
            b"HTTP/1.1 204\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nConnection: close\r\n\r\n",
        ];
        let limits = Limits {
            refuse_obs_fold: true,
            ..Limits::DEFAULT
        };
        let (mut agreed, mut plain_ones) = ([0; 3], 0);
        for round in 0..20_000 {
            let mut wire = random.mutate(heads[round % heads.len()]);
            if check_prefix(&wire).is_err() || matches!(wire.get(7), Some(b'2'..=b'9')) {
                continue;
            }
            let (mut fast, mut slow) = (Head::default(), Head::default());
            let mut plain = Head::default();
            let plainly = plain.read_plain(&wire, limits.max_fields);
            let by_parser = fast
                .parse(&wire, limits.max_fields)
                .map(|done| done.is_some());
            let slowly = slow
                .read_slowly(&mut wire, &limits)
                .map(|done| done.is_some());
            if let Some(framing) = plainly {
                plain_ones += 1;
                assert_eq!(by_parser, Ok(true), "plain: {:?}", wire.escape_ascii());
                assert_eq!(seen(&plain, &wire), seen(&fast, &wire));
                let length =
                    |head: &Head| framing.body_length(&wire, false, head.status, head.version);
                assert_eq!(length(&plain), length(&fast));
            }
            match (by_parser, slowly) {
                (Ok(true), Ok(true)) => assert_eq!(seen(&fast, &wire), seen(&slow, &wire)),
                (Ok(false), Ok(false)) | (Err(_), Err(_)) => {}
                (fast, slow) => panic!("{fast:?} and {slow:?} of {:?}", wire.escape_ascii()),
            }
            agreed[match by_parser {
                Ok(true) => 0,
                Ok(false) => 1,
                Err(_) => 2,
            }] += 1;
        }
        assert!(
            agreed.iter().all(|n| *n > 100) && plain_ones > 1000,
            "each outcome occurs: {agreed:?}, {plain_ones} plain"
        );
    }

    #[test]
    fn mutated_heads_are_read_the_same_however_they_are_cut() {
        let mut random = Random::new(10);
        let wire = b"HTTP/1.1 200 OK\r\na: b\r\n c\r\nContent-Length: 3\r\n\r\nabc";
        for _ in 0..5000 {
            let wire = random.mutate(wire);
            let whole = read(&[&wire], &Limits::DEFAULT);
            let feed = random.cut(&wire);
            match read(&feed, &Limits::DEFAULT) {
                // A head that never ends is not parsed, so its fault is not found.
                Ok(None)
                    if !wire.windows(2).any(|w| w == b"\n\n")
                        && !wire.windows(3).any(|w| w == b"\n\r\n") => {}
                cut => assert_eq!(cut, whole, "fed {feed:?}"),
            }
        }
    }

    #[test]
    fn trailers_are_read_like_the_fields_of_a_head() {
        let mut fields = Vec::new();
        let mut section = *b"a: b\r\nContent-Length: 3\r\nc:\r\n d\r\n e\r\n\r\n";
        parse_trailers(&mut section, &mut fields, &Limits::DEFAULT).unwrap();
        let expected: [(&str, &[u8]); 3] = [("a", b"b"), ("Content-Length", b"3"), ("c", b"d e")];
        assert!(Headers::new(&section, &fields).eq(expected));

        let limits = Limits {
            max_fields: 1,
            ..Limits::DEFAULT
        };
        let rows: [(&[u8], &Limits, Violation); 3] = [
            (
                b"a: b\r\nc\r\n\r\n",
                &Limits::DEFAULT,
                Violation::FieldName {
                    offset: 7,
                    byte: b'\r',
                },
            ),
            (
                b"a: b\r\nc: d\r\n\r\n",
                &limits,
                Violation::TooManyFields { limit: 1, seen: 2 },
            ),
            (
                b"a: b\r\n",
                &Limits::DEFAULT,
                Violation::Truncated { missing: None },
            ),
        ];
        for (section, limits, expected) in rows {
            let result = parse_trailers(&mut section.to_vec(), &mut fields, limits);
            assert_eq!(result, Err(expected));
        }
    }
}
