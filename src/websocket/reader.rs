//! From bytes to messages and control frames (RFC 6455 §5), without a socket.
//!
//! A frame that arrives whole is lent from the bytes that it arrived in. Only messages in several
//! pieces are joined, in a buffer that grows with what arrives and never with what is announced.

use std::str;

use crate::websocket::Violation;
use crate::websocket::frame::{Header, Opcode, is_sendable};

/// The longest header that a server sends.
const MAX_HEADER: usize = 10;

/// The code of a Close frame without one, for programs (RFC 6455 §7.1.5).
pub(super) const NO_CODE: u16 = 1005;

/// What a server has sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'e> {
    Text(&'e str),
    Binary(&'e [u8]),
    Ping(&'e [u8]),
    Pong,
    /// With [`NO_CODE`], the frame has no code. Nothing follows.
    Close(u16, &'e str),
}

/// Reads what a server sends, in pieces of any size.
#[derive(Debug)]
pub(super) struct Reader {
    max_message: usize,
    state: State,
    /// The kind of the message whose frames are arriving.
    kind: Option<Kind>,
    /// What has arrived in several pieces. Most messages arrive in one.
    joined: Option<Box<Joined>>,
}

#[derive(Debug, Default)]
struct Joined {
    /// What has arrived of a message. It is over with the next call if `is_delivered`.
    message: Vec<u8>,
    is_delivered: bool,
    /// How many bytes of a text are known to be UTF-8.
    checked: usize,
    /// What has arrived of a control frame.
    control: Vec<u8>,
}

impl Joined {
    /// Appends a piece of a message. A text that cannot become UTF-8 is an error at once.
    fn join(&mut self, piece: &[u8], kind: Option<Kind>) -> Result<(), Violation> {
        self.message.extend_from_slice(piece);
        if kind == Some(Kind::Text)
            && let Err(error) = str::from_utf8(&self.message[self.checked..])
        {
            // A character may be divided between pieces.
            if error.error_len().is_some() {
                return Err(Violation::Utf8);
            }
            self.checked += error.valid_up_to();
        } else {
            self.checked = self.message.len();
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Reading a header, of which this much has arrived.
    Header { bytes: [u8; MAX_HEADER], len: u8 },
    /// Reading a payload, of which `left` bytes are missing.
    Payload { header: Header, left: u64 },
    /// A Close frame has arrived, and nothing is read any more.
    Closed,
}

impl State {
    const NEW: Self = Self::Header {
        bytes: [0; MAX_HEADER],
        len: 0,
    };
}

impl Reader {
    /// `max_message` is the longest message, in bytes.
    pub(super) fn new(max_message: usize) -> Self {
        Self {
            max_message,
            state: State::NEW,
            kind: None,
            joined: None,
        }
    }

    pub(super) fn set_max_message(&mut self, most: usize) {
        self.max_message = most;
    }

    /// Begins to read another connection.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.max_message);
    }

    /// Takes bytes from `input`, up to the end of the next message or control frame. Returns `None`
    /// if there is none, and `input` is used up.
    ///
    /// # Errors
    /// If the server breaks the protocol. Nothing can be read after that.
    pub(super) fn next<'e, 'i: 'e>(
        &'e mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Event<'e>>, Violation> {
        self.forget_delivered();
        loop {
            let (header, left) = match self.state {
                State::Closed => {
                    *input = &[];
                    return Ok(None);
                }
                State::Payload { header, left } => (header, left),
                State::Header { bytes, len } => match self.read_header(bytes, len, input)? {
                    Some(header) => (header, header.len),
                    None => return Ok(None),
                },
            };
            let arrived = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
            let (piece, rest) = input.split_at(arrived);
            *input = rest;
            let is_whole = piece.len() as u64 == header.len;
            let left = left - arrived as u64;
            self.state = match left {
                0 => State::NEW,
                left => State::Payload { header, left },
            };
            let is_control = header.opcode.is_control();
            if is_control && is_whole {
                return self.control(header.opcode, piece).map(Some);
            } else if is_control {
                let joined = self.joined.get_or_insert_default();
                joined.control.extend_from_slice(piece);
                if left == 0 {
                    return self.joined_control(header.opcode).map(Some);
                }
            } else if is_whole && header.is_final && self.message_len() == 0 {
                return self.lend(piece).map(Some);
            } else {
                let joined = self.joined.get_or_insert_default();
                joined.join(piece, self.kind)?;
                if left == 0 && header.is_final {
                    return self.deliver().map(Some);
                }
            }
            if left > 0 {
                return Ok(None);
            }
        }
    }

    /// Drops what the last event was lent from.
    fn forget_delivered(&mut self) {
        let Some(joined) = &mut self.joined else {
            return;
        };
        if let State::Header { .. } | State::Closed = self.state {
            joined.control = Vec::new();
        }
        if joined.is_delivered || joined.message.is_empty() && joined.control.is_empty() {
            self.joined = None;
        }
    }

    fn message_len(&self) -> usize {
        self.joined
            .as_ref()
            .map_or(0, |joined| joined.message.len())
    }

    /// Reads a header, of which the first `len` of `bytes` have arrived before. Returns `None` if
    /// it is still incomplete.
    fn read_header(
        &mut self,
        mut bytes: [u8; MAX_HEADER],
        len: u8,
        input: &mut &[u8],
    ) -> Result<Option<Header>, Violation> {
        let kept = usize::from(len);
        let more = input.len().min(MAX_HEADER - kept);
        bytes[kept..kept + more].copy_from_slice(&input[..more]);
        let Some((header, size)) = Header::parse(&bytes[..kept + more])? else {
            *input = &input[more..];
            let len = (kept + more) as u8;
            self.state = State::Header { bytes, len };
            return Ok(None);
        };
        *input = &input[size - kept..];
        self.kind = match (header.opcode, self.kind) {
            (Opcode::Text, None) => Some(Kind::Text),
            (Opcode::Binary, None) => Some(Kind::Binary),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Violation::Interrupted),
            (Opcode::Continuation, None) => return Err(Violation::Continuation),
            (Opcode::Continuation, kind) => kind,
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => return Ok(Some(header)),
        };
        let seen = (self.message_len() as u64).saturating_add(header.len);
        let limit = self.max_message;
        if seen > limit as u64 {
            return Err(Violation::MessageTooLarge { limit, seen });
        }
        Ok(Some(header))
    }

    /// Lends a message that has arrived in one piece.
    fn lend<'i>(&mut self, piece: &'i [u8]) -> Result<Event<'i>, Violation> {
        match self.kind.take() {
            Some(Kind::Text) => match str::from_utf8(piece) {
                Ok(text) => Ok(Event::Text(text)),
                Err(_) => Err(Violation::Utf8),
            },
            Some(Kind::Binary) | None => Ok(Event::Binary(piece)),
        }
    }

    /// Lends a message that has been joined.
    fn deliver(&mut self) -> Result<Event<'_>, Violation> {
        let joined = self.joined.get_or_insert_default();
        joined.is_delivered = true;
        match self.kind.take() {
            Some(Kind::Text) => match str::from_utf8(&joined.message) {
                Ok(text) => Ok(Event::Text(text)),
                Err(_) => Err(Violation::Utf8),
            },
            Some(Kind::Binary) | None => Ok(Event::Binary(&joined.message)),
        }
    }

    fn control<'i>(&mut self, opcode: Opcode, payload: &'i [u8]) -> Result<Event<'i>, Violation> {
        if opcode == Opcode::Close {
            self.state = State::Closed;
        }
        control(opcode, payload)
    }

    fn joined_control(&mut self, opcode: Opcode) -> Result<Event<'_>, Violation> {
        if opcode == Opcode::Close {
            self.state = State::Closed;
        }
        let joined = self.joined.get_or_insert_default();
        control(opcode, &joined.control)
    }
}

fn control(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, Violation> {
    match opcode {
        Opcode::Ping => Ok(Event::Ping(payload)),
        Opcode::Pong => Ok(Event::Pong),
        Opcode::Close | Opcode::Continuation | Opcode::Text | Opcode::Binary => {
            let (code, reason) = match payload {
                [] => return Ok(Event::Close(NO_CODE, "")),
                [_] => return Err(Violation::CloseLength),
                [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
            };
            if !is_sendable(code) {
                return Err(Violation::CloseCode(code));
            }
            let reason = str::from_utf8(reason).map_err(|_| Violation::Utf8)?;
            Ok(Event::Close(code, reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of a server.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..126 => frame.push(len as u8),
            len @ 126..65_536 => {
                frame.push(126);
                frame.extend((len as u16).to_be_bytes());
            }
            len => {
                frame.push(127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
        let frames = frames.iter().map(|(first, payload)| frame(*first, payload));
        frames.collect::<Vec<_>>().concat()
    }

    /// Returns what is read from these pieces, as text, and the violation that ends it.
    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let mut reader = Reader::new(1000);
        let mut seen = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            loop {
                match reader.next(&mut input) {
                    Ok(Some(event)) => seen.push(format!("{event:?}")),
                    Ok(None) => {
                        assert!(input.is_empty(), "what was not read: {input:?}");
                        break;
                    }
                    Err(violation) => {
                        seen.push(format!("{violation:?}"));
                        return seen;
                    }
                }
            }
        }
        seen
    }

    fn check(why: &str, wire: &[u8], expected: &[&str]) {
        assert_eq!(read(&[wire]), expected, "{why}: whole");
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(read(&bytes), expected, "{why}: byte by byte");
        for first in 1..wire.len() {
            let (one, other) = wire.split_at(first);
            assert_eq!(read(&[one, other]), expected, "{why}: split at {first}");
        }
        for first in 1..wire.len().min(40) {
            for second in first + 1..wire.len().min(41) {
                let pieces = [&wire[..first], &wire[first..second], &wire[second..]];
                assert_eq!(read(&pieces), expected, "{why}: {first}, {second}");
            }
        }
    }

    const TEXT: u8 = 0x81;
    const BINARY: u8 = 0x82;
    const CLOSE: u8 = 0x88;
    const PING: u8 = 0x89;
    const PONG: u8 = 0x8a;
    const FIRST_TEXT: u8 = 0x01;
    const FIRST_BINARY: u8 = 0x02;
    const MIDDLE: u8 = 0x00;
    const LAST: u8 = 0x80;

    #[test]
    fn messages_are_the_same_at_every_split() {
        type Row<'a> = (&'a str, &'a [(u8, &'a [u8])], &'a [&'a str]);
        let long = [b'x'; 300];
        let long_seen = format!("Binary({:?})", &long[..]);
        let rows: &[Row<'_>] = &[
            ("a text", &[(TEXT, b"hello")], &[r#"Text("hello")"#]),
            ("an empty text", &[(TEXT, b"")], &[r#"Text("")"#]),
            ("bytes", &[(BINARY, &[1, 0xff])], &["Binary([1, 255])"]),
            ("a length of two bytes", &[(BINARY, &long)], &[&long_seen]),
            (
                "messages behind each other",
                &[(TEXT, b"a"), (BINARY, b"b"), (TEXT, b"c")],
                &[r#"Text("a")"#, "Binary([98])", r#"Text("c")"#],
            ),
            (
                "fragments are joined",
                &[(FIRST_TEXT, b"he"), (MIDDLE, b"ll"), (LAST, b"o")],
                &[r#"Text("hello")"#],
            ),
            (
                "empty fragments",
                &[
                    (FIRST_BINARY, b""),
                    (MIDDLE, b""),
                    (LAST, b""),
                    (TEXT, b"x"),
                ],
                &["Binary([])", r#"Text("x")"#],
            ),
            (
                "an empty first fragment of a text",
                &[(FIRST_TEXT, b""), (LAST, "ä".as_bytes())],
                &[r#"Text("ä")"#],
            ),
            (
                "a character divided between fragments",
                &[(FIRST_TEXT, &[b'a', 0xe2, 0x82]), (LAST, &[0xac, b'b'])],
                &[r#"Text("a€b")"#],
            ),
            (
                "bytes that are not UTF-8, in fragments",
                &[(FIRST_BINARY, &[0xff]), (LAST, &[0xfe])],
                &["Binary([255, 254])"],
            ),
            (
                "control frames among fragments",
                &[
                    (FIRST_TEXT, b"a"),
                    (PING, b"1"),
                    (MIDDLE, b"b"),
                    (PONG, b"2"),
                    (LAST, b"c"),
                ],
                &["Ping([49])", "Pong", r#"Text("abc")"#],
            ),
            (
                "an empty ping",
                &[(PING, b""), (TEXT, b"x")],
                &["Ping([])", r#"Text("x")"#],
            ),
            (
                "nothing is read after a Close",
                &[(CLOSE, b"\x03\xe8bye"), (TEXT, b"x"), (0xff, b"garbage")],
                &[r#"Close(1000, "bye")"#],
            ),
            (
                "a Close without a code",
                &[(CLOSE, b"")],
                &[r#"Close(1005, "")"#],
            ),
            (
                "a Close without a reason",
                &[(CLOSE, &[0x0b, 0xb8])],
                &[r#"Close(3000, "")"#],
            ),
        ];
        for (why, wire, expected) in rows {
            check(why, &frames(wire), expected);
        }
    }

    #[test]
    fn violations_are_found_at_every_split() {
        type Row<'a> = (&'a [(u8, &'a [u8])], &'a [&'a str]);
        let rows: &[Row<'_>] = &[
            (&[(0xc1, b"")], &["ReservedBits"]),
            (
                &[(TEXT, b"a"), (0x93, b"")],
                &[r#"Text("a")"#, "ReservedBits"],
            ),
            (&[(0x83, b"")], &["Opcode(3)"]),
            (&[(0x8b, b"")], &["Opcode(11)"]),
            (&[(0x09, b"")], &["FragmentedControl"]),
            (&[(0x08, b"")], &["FragmentedControl"]),
            (&[(PING, &[0; 126])], &["LongControl(126)"]),
            (&[(LAST, b"x")], &["Continuation"]),
            (&[(MIDDLE, b"x")], &["Continuation"]),
            (
                &[(TEXT, b"a"), (LAST, b"x")],
                &[r#"Text("a")"#, "Continuation"],
            ),
            (&[(FIRST_TEXT, b"a"), (TEXT, b"b")], &["Interrupted"]),
            (&[(FIRST_TEXT, b""), (FIRST_BINARY, b"b")], &["Interrupted"]),
            (&[(TEXT, &[0xff])], &["Utf8"]),
            (&[(TEXT, &[b'a', 0xe2, 0x82])], &["Utf8"]),
            (&[(FIRST_TEXT, &[0xe2, 0x82]), (LAST, b"a")], &["Utf8"]),
            (&[(FIRST_TEXT, &[0xe2, 0x82]), (LAST, b"")], &["Utf8"]),
            // A surrogate. It is found before the message ends.
            (&[(FIRST_TEXT, &[0xed, 0xa0, 0x80])], &["Utf8"]),
            (&[(CLOSE, &[3])], &["CloseLength"]),
            (&[(CLOSE, &[0x03, 0xed])], &["CloseCode(1005)"]),
            (&[(CLOSE, &[0xff, 0xff])], &["CloseCode(65535)"]),
            (&[(CLOSE, &[0x03, 0xe8, 0xff])], &["Utf8"]),
            (
                &[(BINARY, &[0; 1001])],
                &["MessageTooLarge { limit: 1000, seen: 1001 }"],
            ),
            (
                &[(FIRST_BINARY, &[0; 600]), (LAST, &[0; 401])],
                &["MessageTooLarge { limit: 1000, seen: 1001 }"],
            ),
        ];
        for (wire, expected) in rows {
            check(&expected.join(" "), &frames(wire), expected);
        }
        // With a mask.
        check("masked", &[TEXT, 0x81, 1, 2, 3, 4, 5], &["Masked"]);
    }

    #[test]
    fn a_length_is_refused_at_its_header() {
        let huge = [BINARY, 127, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(read(&[&huge]), ["Length"]);
        let large = [BINARY, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let expected = format!("MessageTooLarge {{ limit: 1000, seen: {} }}", u64::MAX >> 1);
        assert_eq!(read(&[&large]), [expected]);
        // Nothing overflows.
        let wire = [&frame(FIRST_BINARY, b"x")[..], &[LAST], &large[1..]].concat();
        let expected = format!("MessageTooLarge {{ limit: 1000, seen: {} }}", 1_u64 << 63);
        assert_eq!(read(&[&wire]), [expected]);
    }

    #[test]
    fn what_is_announced_is_not_allocated() {
        let mut reader = Reader::new(1 << 40);
        let wire = [BINARY, 127, 0, 0, 0, 0xff, 0, 0, 0, 0, 1, 2, 3];
        assert_eq!(reader.next(&mut &wire[..]), Ok(None));
        let joined = reader.joined.unwrap();
        assert_eq!(joined.message, [1, 2, 3]);
        assert!(joined.message.capacity() < 100);
    }

    #[test]
    fn buffers_of_past_messages_are_freed() {
        let mut reader = Reader::new(1 << 20);
        let wire = frames(&[(FIRST_BINARY, &[1; 5000]), (PING, b"x"), (LAST, &[2; 5000])]);
        for piece in wire.chunks(1000) {
            let mut input = piece;
            while reader.next(&mut input).unwrap().is_some() {}
        }
        assert!(reader.joined.is_none());
    }

    #[test]
    fn a_whole_frame_is_lent_from_where_it_arrived() {
        let mut reader = Reader::new(1000);
        let wire = frame(TEXT, b"hello");
        let mut input = &wire[..];
        let Ok(Some(Event::Text(text))) = reader.next(&mut input) else {
            panic!("a text");
        };
        assert!(std::ptr::eq(text.as_bytes(), &wire[2..]));
    }
}
