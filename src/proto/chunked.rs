//! Decoder for the chunked transfer coding (RFC 9112 §7.1).
//!
//! Input may end at any byte. The decoder keeps only its state and copies no body byte. Extensions
//! are skipped, and the trailer section (§7.1.2) is returned raw. A bare LF is refused: request
//! smuggling starts with two recipients that disagree about where a message ends (§11.2).
//!
//! ```text
//! Start -> Size -> [Blank] -> [Extension] -> SizeLf -> Data -> DataCr -> DataLf -> Start …
//!                                              | size 0
//!                                              v
//!                                            Last -> LastLf --------------------------> Done
//!                                              | a trailer field                         ^
//!                                              v                                         |
//!                                            Trailer -> TrailerLf -> TrailerStart -> TrailerEnd
//! ```

use std::ops::Range;

use super::limits::Limits;
use super::violation::Violation;

/// The position within a chunked body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunked {
    state: State,
    /// Bytes of extensions so far or, in the trailer section, bytes of that section.
    skipped: u32,
    /// Bytes of the encoded body so far, as evidence in a violation.
    offset: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before the first digit of a size.
    Start,
    /// After `digits` digits of a size.
    Size {
        size: u64,
        digits: u8,
    },
    /// In white space after the size. RFC 9112 §7.1.1 requires recipients to skip it before an
    /// extension.
    Blank {
        size: u64,
    },
    /// In an extension.
    Extension {
        size: u64,
    },
    /// At the LF of a size line.
    SizeLf {
        size: u64,
    },
    /// `left` bytes of data remain, at least one.
    Data {
        left: u64,
    },
    /// At the CR after the data, then at the LF.
    DataCr,
    DataLf,
    /// After the line of the last chunk. The end of the body or a trailer field follows.
    Last,
    /// At the LF of the empty line that ends a body without trailer fields.
    LastLf,
    /// In a trailer line, at its LF, at the start of the next line, and at the LF that ends the
    /// section.
    Trailer,
    TrailerLf,
    TrailerStart,
    TrailerEnd,
    Done,
}

/// The result of decoding a piece of input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) consumed: usize,
    pub(crate) content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Framing only.
    None,
    /// Decoded bytes, at this range of the input.
    Data(Range<usize>),
    /// Part of the trailer section, at this range of the input.
    Trailers(Range<usize>),
}

const LINE_END: &[u8] = b"\r\n";

/// The result of one call of [`Chunked::collect`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    /// How far the input was read.
    pub(crate) end: usize,
    /// Bytes of the body, joined at the start of the input.
    pub(crate) len: usize,
    /// Part of the trailer section, at this range of the input.
    pub(crate) trailers: Range<usize>,
}

/// 16 digits are 64 bits. Leading zeros count as well, so a peer cannot send them forever.
const MAX_DIGITS: u8 = 16;

impl Chunked {
    pub(crate) const fn new() -> Self {
        Self {
            state: State::Start,
            skipped: 0,
            offset: 0,
        }
    }

    /// Returns whether the body and its trailer section have been read to their exact end.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Returns whether the line of the last chunk has been read and nothing after it, neither a
    /// trailer field nor part of the empty line.
    ///
    /// Some servers close the connection at this point and omit the empty line. The body is
    /// complete nevertheless, since the zero-sized chunk has been received (RFC 9112 §8). After one
    /// more byte, the message counts as truncated.
    pub(crate) fn is_behind_last_chunk(&self) -> bool {
        matches!(self.state, State::Last)
    }

    /// Decodes `input`: skips framing, and stops at the end of the first piece, of the body, or of
    /// `input`.
    pub(crate) fn decode(&mut self, input: &[u8], limits: &Limits) -> Result<Decoded, Violation> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            // Most lines are complete, and contain nothing beyond what is required.
            if let Some((state, line)) = self.read_plain_line(&input[at..]) {
                self.state = state;
                at += line;
                continue;
            }
            let offset = self.offset + at as u64;
            self.state = match self.state {
                State::Data { left } => return Ok(self.take_data(left, at, input)),
                State::Trailer | State::TrailerLf | State::TrailerStart | State::TrailerEnd => {
                    return self.take_trailers(at, input, limits);
                }
                State::Done => break,
                State::Last => match byte {
                    b'\r' => State::LastLf,
                    _ => {
                        self.skipped = 0;
                        self.state = State::TrailerStart;
                        continue;
                    }
                },
                State::LastLf => match byte {
                    b'\n' => State::Done,
                    byte => return Err(Violation::TrailerLine { offset, byte }),
                },
                State::DataCr => match byte {
                    b'\r' => State::DataLf,
                    byte => return Err(Violation::ChunkEnd { offset, byte }),
                },
                State::DataLf => match byte {
                    b'\n' => State::Start,
                    byte => return Err(Violation::ChunkEnd { offset, byte }),
                },
                State::Start => read_digit(0, 0, byte, offset)?,
                State::Size { size, digits } if byte.is_ascii_hexdigit() => {
                    read_digit(size, digits, byte, offset)?
                }
                State::Size { size, .. } | State::Blank { size } => match byte {
                    b' ' | b'\t' => self.skip(State::Blank { size }, limits)?,
                    b';' => self.skip(State::Extension { size }, limits)?,
                    b'\r' => State::SizeLf { size },
                    byte => return Err(Violation::ChunkSize { offset, byte }),
                },
                State::Extension { size } => match byte {
                    b'\r' => State::SizeLf { size },
                    b'\t' | b' '..=b'~' | 0x80.. => self.skip(State::Extension { size }, limits)?,
                    byte => return Err(Violation::ChunkExtension { offset, byte }),
                },
                State::SizeLf { size } => match (byte, size) {
                    (b'\n', 0) => State::Last,
                    (b'\n', left) => State::Data { left },
                    (byte, _) => return Err(Violation::ChunkExtension { offset, byte }),
                },
            };
            at += 1;
        }
        self.offset += at as u64;
        Ok(Decoded {
            consumed: at,
            content: Content::None,
        })
    }

    /// Like [`decode`](Self::decode) from position `from` of `input`, repeatedly. The pieces of the
    /// body are moved together at the start of `input`, over the framing between them. Stops at the
    /// end of `input` or of the body, after the first part of the trailer section, or at a
    /// violation.
    pub(crate) fn collect(
        &mut self,
        input: &mut [u8],
        from: usize,
        limits: &Limits,
    ) -> (Joined, Result<(), Violation>) {
        let mut collected = Joined {
            end: from,
            len: 0,
            trailers: 0..0,
        };
        while collected.end < input.len() && !self.is_done() {
            let start = collected.end;
            let Decoded { consumed, content } = match self.decode(&input[start..], limits) {
                Ok(progress) => progress,
                Err(violation) => return (collected, Err(violation)),
            };
            collected.end += consumed;
            match content {
                Content::None => {}
                Content::Data(place) => {
                    let len = place.len();
                    input.copy_within(start + place.start..start + place.end, collected.len);
                    collected.len += len;
                }
                Content::Trailers(place) => {
                    collected.trailers = start + place.start..start + place.end;
                    break;
                }
            }
        }
        (collected, Ok(()))
    }

    /// Reads a complete framing line that is empty, or contains a size without extension. Returns
    /// the state after the line, and its length.
    #[inline]
    fn read_plain_line(&self, input: &[u8]) -> Option<(State, usize)> {
        match self.state {
            State::Start => {
                let (size, digits) = read_short_size(input);
                let line = digits + LINE_END.len();
                let is_plain = digits > 0 && input.get(digits..line) == Some(LINE_END);
                let state = match size {
                    0 => State::Last,
                    left => State::Data { left },
                };
                is_plain.then_some((state, line))
            }
            State::DataCr if input.starts_with(LINE_END) => Some((State::Start, LINE_END.len())),
            State::Last if input.starts_with(LINE_END) => Some((State::Done, LINE_END.len())),
            _ => None,
        }
    }

    /// Counts a byte of an extension, and returns `next`.
    fn skip(&mut self, next: State, limits: &Limits) -> Result<State, Violation> {
        self.skipped = self.skipped.saturating_add(1);
        let (limit, seen) = (limits.max_chunk_extension_bytes, self.skipped as usize);
        if seen > limit {
            Err(Violation::ChunkExtensionsTooLarge { limit, seen })
        } else {
            Ok(next)
        }
    }

    fn take_data(&mut self, left: u64, at: usize, input: &[u8]) -> Decoded {
        let here = input.len() - at;
        let taken = usize::try_from(left).map_or(here, |left| left.min(here));
        self.state = match left - taken as u64 {
            0 => State::DataCr,
            left => State::Data { left },
        };
        let end = at + taken;
        self.offset += end as u64;
        Decoded {
            consumed: end,
            content: Content::Data(at..end),
        }
    }

    fn take_trailers(
        &mut self,
        start: usize,
        input: &[u8],
        limits: &Limits,
    ) -> Result<Decoded, Violation> {
        let mut at = start;
        while let (Some(&byte), false) = (input.get(at), self.is_done()) {
            self.state = match (self.state, byte) {
                (State::TrailerStart, b'\r') => State::TrailerEnd,
                (State::TrailerEnd, b'\n') => State::Done,
                (State::TrailerLf, b'\n') => State::TrailerStart,
                (State::Trailer, b'\r') => State::TrailerLf,
                (State::TrailerEnd | State::TrailerLf, _) | (_, b'\n') => {
                    let offset = self.offset + at as u64;
                    return Err(Violation::TrailerLine { offset, byte });
                }
                (_, _) => State::Trailer,
            };
            at += 1;
            self.skipped = self.skipped.saturating_add(1);
            let (limit, seen) = (limits.max_trailer_bytes, self.skipped as usize);
            if seen > limit {
                return Err(Violation::TrailersTooLarge { limit, seen });
            }
        }
        self.offset += at as u64;
        Ok(Decoded {
            consumed: at,
            content: Content::Trailers(start..at),
        })
    }
}

/// Returns the number at the start of `input`, and its number of digits, at most eight.
#[inline]
fn read_short_size(input: &[u8]) -> (u64, usize) {
    let (mut size, mut digits) = (0, 0);
    for byte in input.iter().take(8) {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' | b'A'..=b'F' => (byte | 0x20) - b'a' + 10,
            _ => break,
        };
        size = size << 4 | u64::from(digit);
        digits += 1;
    }
    (size, digits)
}

/// Adds a digit to a size, and accepts nothing else: `str::parse` would accept signs, and C's
/// `strtol` white space and `0x`.
fn read_digit(size: u64, digits: u8, byte: u8, offset: u64) -> Result<State, Violation> {
    match char::from(byte).to_digit(16) {
        Some(digit) if digits < MAX_DIGITS => Ok(State::Size {
            size: size << 4 | u64::from(digit),
            digits: digits + 1,
        }),
        _ => Err(Violation::ChunkSize { offset, byte }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::{Random, feeds};

    /// Body, raw trailer section and unread tail, or an error if the end was not reached.
    type Whole = Result<(Vec<u8>, Vec<u8>, Vec<u8>), Option<Violation>>;

    fn decode(feed: &[&[u8]], limits: &Limits) -> Whole {
        let mut chunked = Chunked::new();
        let (mut body, mut trailers, mut tail) = (Vec::new(), Vec::new(), Vec::new());
        for mut input in feed.iter().copied() {
            while !input.is_empty() && !chunked.is_done() {
                let Decoded { consumed, content } = chunked.decode(input, limits)?;
                assert!(consumed > 0, "each call makes progress");
                match content {
                    Content::None => {}
                    Content::Data(place) => body.extend_from_slice(&input[place]),
                    Content::Trailers(place) => trailers.extend_from_slice(&input[place]),
                }
                input = &input[consumed..];
            }
            tail.extend_from_slice(input);
        }
        if chunked.is_done() {
            Ok((body, trailers, tail))
        } else {
            Err(None)
        }
    }

    #[test]
    fn a_chunked_body_is_read_to_its_exact_end() {
        let rows: &[(&str, &str, &str, &str)] = &[
            ("no data", "0\r\n\r\n", "", ""),
            ("one chunk", "3\r\nabc\r\n0\r\n\r\n", "abc", ""),
            (
                "two chunks",
                "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
                "abcde",
                "",
            ),
            (
                "data that looks like framing",
                "5\r\n0\r\n\r\n\r\n0\r\n\r\n",
                "0\r\n\r\n",
                "",
            ),
            (
                "size in hexadecimal, either case",
                "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
                "01234567890123456789",
                "",
            ),
            (
                "leading zeros, sixteen digits",
                "0000000000000003\r\nabc\r\n000\r\n\r\n",
                "abc",
                "",
            ),
            ("extension", "3;a=b\r\nabc\r\n0;c\r\n\r\n", "abc", ""),
            (
                "extension with a quoted string",
                "3;a=\"b;c\"\r\nabc\r\n0\r\n\r\n",
                "abc",
                "",
            ),
            (
                "white space around an extension",
                "3 ; a = b \r\nabc\r\n0\r\n\r\n",
                "abc",
                "",
            ),
            (
                "white space without an extension",
                "3 \t \r\nabc\r\n0\r\n\r\n",
                "abc",
                "",
            ),
            ("empty extension", "3;\r\nabc\r\n0\r\n\r\n", "abc", ""),
            (
                "a trailer field",
                "1\r\na\r\n0\r\nx: y\r\n\r\n",
                "a",
                "x: y\r\n\r\n",
            ),
            (
                "a folded trailer field",
                "0\r\nx: y\r\n z\r\nv: w\r\n\r\n",
                "",
                "x: y\r\n z\r\nv: w\r\n\r\n",
            ),
        ];
        for (why, wire, body, trailers) in rows {
            for tail in ["", "H", "\r\n", "0\r\n\r\n"] {
                let bytes = [wire.as_bytes(), tail.as_bytes()].concat();
                let expected = (
                    body.as_bytes().to_vec(),
                    trailers.as_bytes().to_vec(),
                    tail.as_bytes().to_vec(),
                );
                for feed in feeds(&bytes) {
                    let decoded = decode(&feed, &Limits::DEFAULT);
                    assert_eq!(decoded, Ok(expected.clone()), "{why}, fed {feed:?}");
                }
            }
        }
    }

    #[test]
    fn malformed_framing_is_refused_at_its_byte() {
        let size = |offset, byte| Violation::ChunkSize { offset, byte };
        let end = |offset, byte| Violation::ChunkEnd { offset, byte };
        let extension = |offset, byte| Violation::ChunkExtension { offset, byte };
        let trailer = |offset, byte| Violation::TrailerLine { offset, byte };
        let rows: &[(&str, &str, Violation)] = &[
            ("size without digits", "\r\nabc\r\n", size(0, b'\r')),
            ("extension without size", ";a\r\n", size(0, b';')),
            ("leading space", " 3\r\nabc\r\n", size(0, b' ')),
            ("plus sign", "+3\r\nabc\r\n", size(0, b'+')),
            ("minus sign", "-3\r\n", size(0, b'-')),
            ("0x", "0x3\r\nabc\r\n", size(1, b'x')),
            ("underscore", "1_0\r\n", size(1, b'_')),
            ("letter that is not a digit", "3g\r\n", size(1, b'g')),
            ("seventeen digits", "00000000000000003\r\n", size(16, b'3')),
            ("two numbers", "3 3\r\nabc\r\n", size(2, b'3')),
            ("bare LF after the size", "3\nabc\r\n", size(1, b'\n')),
            ("bare CR after the size", "3\rabc\r\n", extension(2, b'a')),
            (
                "bare LF in an extension",
                "3;a\nabc\r\n",
                extension(3, b'\n'),
            ),
            ("bare CR in an extension", "3;a\rb\r\n", extension(4, b'b')),
            ("NUL in an extension", "3;a\0\r\n", extension(3, 0)),
            ("data longer than its size", "3\r\nabcd\r\n", end(6, b'd')),
            (
                "data shorter than its size",
                "4\r\nabc\r\n0\r\n\r\n",
                end(7, b'\n'),
            ),
            ("bare LF after data", "3\r\nabc\n0\r\n", end(6, b'\n')),
            ("bare CR after data", "3\r\nabc\r0\r\n", end(7, b'0')),
            ("bare LF at the end", "0\r\n\n", trailer(3, b'\n')),
            ("bare CR at the end", "0\r\n\rH", trailer(4, b'H')),
            (
                "bare LF after a trailer field",
                "0\r\nx: y\n\r\n",
                trailer(7, b'\n'),
            ),
            (
                "bare CR in a trailer field",
                "0\r\nx: \ry\r\n\r\n",
                trailer(7, b'y'),
            ),
            (
                "bare CR after the trailers",
                "0\r\nx: y\r\n\rz",
                trailer(10, b'z'),
            ),
        ];
        for (why, wire, expected) in rows {
            for feed in feeds(wire.as_bytes()) {
                let decoded = decode(&feed, &Limits::DEFAULT);
                assert_eq!(decoded, Err(Some(expected.clone())), "{why}, fed {feed:?}");
            }
        }
    }

    #[test]
    fn extensions_are_bounded_over_the_whole_body() {
        let limits = Limits {
            max_chunk_extension_bytes: 8,
            ..Limits::DEFAULT
        };
        let fits = b"1;234\r\na\r\n1;678\r\nb\r\n0\r\n\r\n";
        let over = b"1;234\r\na\r\n1;6789\r\nb\r\n0\r\n\r\n";
        let expected = Violation::ChunkExtensionsTooLarge { limit: 8, seen: 9 };
        for feed in feeds(fits) {
            assert!(decode(&feed, &limits).is_ok());
        }
        for feed in feeds(over) {
            assert_eq!(decode(&feed, &limits), Err(Some(expected.clone())));
        }
    }

    #[test]
    fn trailers_are_bounded() {
        let limits = Limits {
            max_trailer_bytes: 8,
            ..Limits::DEFAULT
        };
        // Extensions do not count toward the limit for trailers.
        for feed in feeds(b"0;extension\r\nx: y\r\n\r\n") {
            assert!(decode(&feed, &limits).is_ok());
        }
        let expected = Violation::TrailersTooLarge { limit: 8, seen: 9 };
        for feed in feeds(b"0\r\nx: yz\r\n\r\n") {
            assert_eq!(decode(&feed, &limits), Err(Some(expected.clone())));
        }
    }

    #[test]
    fn a_size_may_take_all_64_bits() {
        let mut chunked = Chunked::new();
        let size = b"ffffffffffffffff\r\n";
        assert_eq!(
            chunked.decode(size, &Limits::DEFAULT).map(|p| p.consumed),
            Ok(size.len())
        );
        let data = chunked.decode(b"abc", &Limits::DEFAULT);
        assert_eq!(data.map(|p| p.content), Ok(Content::Data(0..3)));
        assert!(matches!(chunked.state, State::Data { left } if left == u64::MAX - 3));
    }

    #[test]
    fn what_was_encoded_is_decoded_however_it_is_cut() {
        let mut random = Random::new(7);
        for _ in 0..500 {
            let (mut wire, mut body) = (Vec::new(), Vec::new());
            for _ in 0..random.below(5) {
                let chunk: Vec<u8> = (0..=random.below(40)).map(|_| random.byte()).collect();
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(&chunk);
                wire.extend_from_slice(b"\r\n");
                body.extend_from_slice(&chunk);
            }
            wire.extend_from_slice(b"0\r\n\r\nnext");
            let feed = random.cut(&wire);
            let expected = (body, Vec::new(), b"next".to_vec());
            assert_eq!(
                decode(&feed, &Limits::DEFAULT),
                Ok(expected),
                "fed {feed:?}"
            );
        }
    }

    #[test]
    fn mutated_bytes_neither_panic_nor_loop_nor_depend_on_the_cut() {
        let mut random = Random::new(8);
        let wire = b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nx: y\r\n z\r\nv:\r\n\r\nHTTP/1.1";
        for _ in 0..2000 {
            let wire = random.mutate(wire);
            let whole = decode(&[&wire], &Limits::DEFAULT);
            let feed = random.cut(&wire);
            assert_eq!(decode(&feed, &Limits::DEFAULT), whole, "fed {feed:?}");
        }
    }
}
