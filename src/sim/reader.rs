//! A strict reader of requests for the simulated servers.
//!
//! The reader deliberately shares no code with the engine, so that it also checks whether the
//! engine sends well-formed requests. Malformed requests are reported as
//! [`Misuse::MalformedRequest`](super::Misuse::MalformedRequest), with the rule that was broken.
//! Bodies have a known length or are chunked, without chunk extensions, which the engine never
//! sends.

/// An item read by a [`RequestReader`]: heads and bodies alternate.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    Head(Head),
    /// The complete body, empty if there is none, and its trailers.
    Body(Vec<u8>, Fields),
}

/// Names and values of field lines.
pub(super) type Fields = Vec<(String, Vec<u8>)>;

/// The request line and header section.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    /// The bytes received, including the empty line.
    pub(super) bytes: Vec<u8>,
}

/// A rule that a request broke.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) String);

/// Reads consecutive requests from bytes that arrive in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct RequestReader {
    bytes: Vec<u8>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Searching for the end of a head; the first `searched` bytes do not contain it.
    Head {
        searched: usize,
    },
    Body {
        length: usize,
    },
    /// A chunked body, of which so much has been decoded.
    Chunks {
        body: Vec<u8>,
        part: Part,
    },
}

/// The next part of a chunked body (RFC 9112 §7.1).
#[derive(Clone, Copy, Debug)]
enum Part {
    Size,
    /// The data of a chunk and the CRLF behind it.
    Data(usize),
    /// The trailer section, whose first bytes, so many of them, do not contain its end.
    Trailers {
        searched: usize,
    },
}

impl Default for State {
    fn default() -> Self {
        State::Head { searched: 0 }
    }
}

const END_OF_HEAD: &[u8] = b"\r\n\r\n";
const MAX_HEAD: usize = 1 << 20;

impl RequestReader {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the number of bytes of an incomplete request, not counting a head that has already
    /// been returned.
    pub(super) fn pending(&self) -> usize {
        let decoded = match &self.state {
            State::Chunks { body, .. } => body.len(),
            State::Head { .. } | State::Body { .. } => 0,
        };
        self.bytes.len() + decoded
    }

    /// Takes what has been received and not been read, because it is no part of a request.
    pub(super) fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Returns whether the next byte would be the first one of a request.
    pub(super) fn is_between(&self) -> bool {
        self.bytes.is_empty() && matches!(self.state, State::Head { .. })
    }

    /// Returns the next head or body, if it has been received completely.
    pub(super) fn next_item(&mut self) -> Result<Option<Item>, Malformed> {
        match &mut self.state {
            State::Head { searched } => {
                let searched = *searched;
                self.next_head(searched)
            }
            State::Body { length } if self.bytes.len() < *length => Ok(None),
            State::Body { length } => {
                let rest = self.bytes.split_off(*length);
                self.state = State::default();
                let body = std::mem::replace(&mut self.bytes, rest);
                Ok(Some(Item::Body(body, Vec::new())))
            }
            State::Chunks { body, part } => {
                let ended = next_chunks(&mut self.bytes, body, part)?;
                let Some(trailers) = ended else {
                    return Ok(None);
                };
                let body = std::mem::take(body);
                self.state = State::default();
                Ok(Some(Item::Body(body, trailers)))
            }
        }
    }

    fn next_head(&mut self, searched: usize) -> Result<Option<Item>, Malformed> {
        let from = searched.saturating_sub(END_OF_HEAD.len() - 1);
        let found = self.bytes[from..]
            .windows(END_OF_HEAD.len())
            .position(|w| w == END_OF_HEAD);
        let Some(found) = found else {
            if self.bytes.len() > MAX_HEAD {
                return malformed("header section larger than 1 MiB");
            }
            self.state = State::Head {
                searched: self.bytes.len(),
            };
            return Ok(None);
        };
        let rest = self.bytes.split_off(from + found + END_OF_HEAD.len());
        let head = parse_head(std::mem::replace(&mut self.bytes, rest))?;
        self.state = match is_chunked(&head)? {
            true => State::Chunks {
                body: Vec::new(),
                part: Part::Size,
            },
            false => State::Body {
                length: body_length(&head)?,
            },
        };
        Ok(Some(Item::Head(head)))
    }
}

/// Decodes what has arrived of a chunked body. Returns its trailers once it is complete.
fn next_chunks(
    bytes: &mut Vec<u8>,
    body: &mut Vec<u8>,
    part: &mut Part,
) -> Result<Option<Fields>, Malformed> {
    loop {
        match *part {
            Part::Size => {
                let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") else {
                    return match bytes.len() {
                        0..=MAX_SIZE_LINE => Ok(None),
                        _ => malformed("chunk size without an end"),
                    };
                };
                let digits = str::from_utf8(&bytes[..end]).unwrap_or_default();
                let is_hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
                let size = usize::from_str_radix(digits, 16).ok().filter(|_| is_hex);
                let Some(size) = size else {
                    return malformed(format!("chunk size {digits:?} is not a number"));
                };
                bytes.drain(..end + 2);
                *part = match size {
                    0 => Part::Trailers { searched: 0 },
                    size => Part::Data(size),
                };
            }
            Part::Data(size) if bytes.len() < size + 2 => return Ok(None),
            Part::Data(size) => {
                if &bytes[size..size + 2] != b"\r\n" {
                    return malformed("chunk without CRLF behind its data");
                }
                body.extend(bytes.drain(..size));
                bytes.drain(..2);
                *part = Part::Size;
            }
            Part::Trailers { searched } => {
                if bytes.starts_with(b"\r\n") {
                    bytes.drain(..2);
                    return Ok(Some(Vec::new()));
                }
                let from = searched.saturating_sub(END_OF_HEAD.len() - 1);
                let mut windows = bytes[from..].windows(END_OF_HEAD.len());
                let Some(found) = windows.position(|w| w == END_OF_HEAD) else {
                    *part = Part::Trailers {
                        searched: bytes.len(),
                    };
                    return Ok(None);
                };
                let end = from + found;
                let lines = bytes[..end].split(|&b| b == b'\n').map(|line| {
                    let line = line.strip_suffix(b"\r").unwrap_or(line);
                    match line.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
                        true => malformed("control byte in a trailer"),
                        false => parse_field_line(line),
                    }
                });
                let trailers = lines.collect::<Result<Fields, _>>()?;
                bytes.drain(..end + END_OF_HEAD.len());
                return Ok(Some(trailers));
            }
        }
    }
}

/// More bytes than any size in hexadecimal digits takes.
const MAX_SIZE_LINE: usize = 16;

fn malformed<T>(why: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(why.into()))
}

/// Parses a head by RFC 9112 §3 and §5, without the leniency that §2.2 allows a server.
fn parse_head(bytes: Vec<u8>) -> Result<Head, Malformed> {
    let text = &bytes[..bytes.len() - END_OF_HEAD.len()];
    let mut lines: Vec<&[u8]> = text.split(|&b| b == b'\n').collect();
    let last = lines.len() - 1;
    for (i, line) in lines.iter_mut().enumerate() {
        // The CRLF of the last line was cut off with the empty line.
        if i < last {
            match line.split_last() {
                Some((b'\r', head)) => *line = head,
                _ => return malformed("line ends in a bare LF"),
            }
        }
        if let Some(&b) = line.iter().find(|&&b| (b < b' ' && b != b'\t') || b == 127) {
            return malformed(format!("control byte {b:#04x} in line {i}"));
        }
    }
    let (method, target) = parse_request_line(lines[0])?;
    let headers = lines[1..]
        .iter()
        .map(|line| parse_field_line(line))
        .collect::<Result<Vec<_>, _>>()?;
    match headers.iter().filter(|(name, _)| is(name, "host")).count() {
        1 => {}
        n => return malformed(format!("{n} Host fields")),
    }
    Ok(Head {
        method,
        target,
        headers,
        bytes,
    })
}

fn parse_request_line(line: &[u8]) -> Result<(String, String), Malformed> {
    let parts: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    let &[method, target, version] = parts.as_slice() else {
        return malformed("request line does not have three parts separated by single spaces");
    };
    if !is_token(method) {
        return malformed("method is not a token");
    }
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return malformed("request target is empty or contains bytes other than visible ASCII");
    }
    let origin_form = target[0] == b'/';
    let absolute_form = target.starts_with(b"http://") || target.starts_with(b"https://");
    if !(origin_form || absolute_form || target == b"*" && method == b"OPTIONS") {
        return malformed(
            "request target is neither a path nor a URL, nor the asterisk of OPTIONS",
        );
    }
    if target.contains(&b'#') {
        return malformed("request target has a fragment");
    }
    if version != b"HTTP/1.1" {
        return malformed("version is not HTTP/1.1");
    }
    Ok((to_string(method), to_string(target)))
}

fn parse_field_line(line: &[u8]) -> Result<(String, Vec<u8>), Malformed> {
    let Some(colon) = line.iter().position(|&b| b == b':') else {
        return malformed("field line without a colon");
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return malformed("field name is not a token");
    }
    Ok((to_string(name), value.trim_ascii().to_vec()))
}

/// Returns whether a request's body is chunked (RFC 9112 §6.1).
fn is_chunked(head: &Head) -> Result<bool, Malformed> {
    let named = |name: &'static str| head.headers.iter().filter(move |(n, _)| is(n, name));
    let mut codings = named("transfer-encoding");
    let Some((_, coding)) = codings.next() else {
        return Ok(false);
    };
    if codings.next().is_some() || !coding.eq_ignore_ascii_case(b"chunked") {
        return malformed("Transfer-Encoding other than chunked");
    }
    match named("content-length").next() {
        Some(_) => malformed("Transfer-Encoding together with Content-Length"),
        None => Ok(true),
    }
}

/// Returns the length of a request's body (RFC 9112 §6.3).
fn body_length(head: &Head) -> Result<usize, Malformed> {
    let mut lengths = head
        .headers
        .iter()
        .filter(|(name, _)| is(name, "content-length"));
    let Some((_, value)) = lengths.next() else {
        return Ok(0);
    };
    if lengths.next().is_some() {
        return malformed("more than one Content-Length");
    }
    if value.is_empty() || value.len() > 15 || !value.iter().all(u8::is_ascii_digit) {
        return malformed("Content-Length is not a number");
    }
    Ok(value
        .iter()
        .fold(0, |n, digit| n * 10 + usize::from(digit - b'0')))
}

fn is(name: &str, expected: &str) -> bool {
    name.eq_ignore_ascii_case(expected)
}

/// Returns whether `bytes` form a token (RFC 9110 §5.6.2).
fn is_token(bytes: &[u8]) -> bool {
    let is_tchar = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !bytes.is_empty() && bytes.iter().all(is_tchar)
}

fn to_string(ascii: &[u8]) -> String {
    String::from_utf8_lossy(ascii).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method, target, number of fields, and body of a request.
    type Read = (String, String, usize, Vec<u8>);

    /// Reads the requests in `wire`, fed in pieces of `step` bytes.
    fn read(wire: &[u8], step: usize) -> Result<Vec<Read>, String> {
        let mut reader = RequestReader::default();
        let mut requests = Vec::new();
        let mut head = None;
        for piece in wire.chunks(step) {
            reader.feed(piece);
            while let Some(item) = reader.next_item().map_err(|malformed| malformed.0)? {
                match item {
                    Item::Head(h) => head = Some(h),
                    Item::Body(body, trailers) => {
                        let h = head.take().expect("a body follows a head");
                        let fields = h.headers.len() + trailers.len();
                        requests.push((h.method, h.target, fields, body));
                    }
                }
            }
        }
        Ok(requests)
    }

    #[test]
    fn requests_are_read_whole_and_at_every_step() {
        let wire = b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\nPOST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe\r\n\rOPTIONS * HTTP/1.1\r\nhost:x\r\n\r\n";
        let expected = vec![
            ("GET".into(), "/a?b".into(), 1, b"".to_vec()),
            ("POST".into(), "/p".into(), 2, b"he\r\n\r".to_vec()),
            ("OPTIONS".into(), "*".into(), 1, b"".to_vec()),
        ];
        for step in 1..=wire.len() {
            assert_eq!(read(wire, step).as_ref(), Ok(&expected), "step {step}");
        }
    }

    #[test]
    fn chunked_bodies_are_read_whole_and_at_every_step() {
        let wire = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe\r\n\r\r\n0a\r\n0123456789\r\n0\r\n\r\nPUT /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\nA: b\r\nC: d\r\n\r\nGET /c HTTP/1.1\r\nHost: x\r\n\r\n";
        let expected = vec![
            (
                "POST".into(),
                "/a".into(),
                2,
                b"he\r\n\r0123456789".to_vec(),
            ),
            ("PUT".into(), "/b".into(), 4, b"".to_vec()),
            ("GET".into(), "/c".into(), 1, b"".to_vec()),
        ];
        for step in 1..=wire.len() {
            assert_eq!(read(wire, step).as_ref(), Ok(&expected), "step {step}");
        }
    }

    #[test]
    fn malformed_requests_are_refused() {
        let rows: &[(&str, &str)] = &[
            ("missing Host", "GET / HTTP/1.1\r\nA: b\r\n\r\n"),
            ("no fields", "GET / HTTP/1.1\r\n\r\n"),
            (
                "two Host fields",
                "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            ),
            ("older version", "GET / HTTP/1.0\r\nHost: a\r\n\r\n"),
            (
                "two spaces after the method",
                "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "space in the target",
                "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "non-ASCII byte in the target",
                "GET /ä HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "target without a slash",
                "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "fragment in the target",
                "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            ("bare LF", "GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n"),
            ("bare CR", "GET / HTTP/1.1\r\nHost: a\rB: c\r\n\r\n"),
            (
                "NUL in a field value",
                "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
            ),
            (
                "space before the colon",
                "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            ),
            (
                "folded field line",
                "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            ),
            (
                "field line without a colon",
                "GET / HTTP/1.1\r\nHost: a\r\nB\r\n\r\n",
            ),
            (
                "empty line before the request line",
                "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "signed Content-Length",
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            ),
            (
                "two Content-Length fields",
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            ),
            (
                "another transfer coding",
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            ),
            (
                "a length and chunks",
                "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            ),
            (
                "chunk size without digits",
                "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\n\r\n",
            ),
            (
                "signed chunk size",
                "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n",
            ),
            (
                "endless chunk size",
                "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0000000000000000000000001",
            ),
            (
                "chunk longer than its size",
                "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
            ),
            (
                "trailer without a colon",
                "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA\r\n\r\n",
            ),
        ];
        for (why, wire) in rows {
            assert!(read(wire.as_bytes(), 7).is_err(), "{why}");
        }
    }
}
