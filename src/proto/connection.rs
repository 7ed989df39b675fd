//! The protocol state of one connection: when a response is due, where it ends, and whether another
//! may follow it (RFC 9112 §9).
//!
//! ```text
//!          expect_response            final head              exact end
//! Idle ----------------------> Head ------------> Body --------------------> Complete
//!                              ^  | interim head    | end of the connection,    |
//!                              +--+                 | of a body without length  |
//!                              ^                    +-------------------------->|
//!                              +------------------------------------------------+ expect_response
//! ```
//!
//! Bytes are passed to [`Connection::receive`], and the end of the connection to
//! [`Connection::on_eof`]. What is collected or discarded, and when to close the connection, is
//! decided by the layers above.

use std::ops::Range;

use http::StatusCode;

use super::body::Body;
use super::chunked::{Content, Decoded, Joined};
use super::framing::BodyLength;
use super::head::Head;
use super::limits::Limits;
use super::violation::Violation;

/// The protocol state of one connection. Reads one response at a time.
#[derive(Debug)]
pub(crate) struct Connection {
    state: State,
    /// The response so far neither states nor implies that the connection ends after it.
    persistent: bool,
}

#[derive(Debug)]
enum State {
    /// No request was sent, so no byte is due.
    Idle,
    /// A head is due.
    Head(Due),
    /// The final head has been read.
    Body(Body),
    /// The body has been read to its exact end.
    Complete,
}

/// A head that is due, and what preceded it.
#[derive(Debug)]
struct Due {
    /// The request was a HEAD.
    is_head: bool,
    /// The request asks for another protocol.
    may_switch: bool,
    /// Bytes of the incomplete head that have been searched for its end.
    searched: u32,
    /// Bytes of the preceding interim heads.
    spent: u32,
    /// Number of preceding interim heads.
    interim: u32,
}

/// The progress of one call of [`Connection::receive`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Bytes of the input that were consumed.
    pub(crate) consumed: usize,
    /// What those bytes were.
    pub(crate) event: Event,
}

/// What the bytes of a [`Step`] were. Ranges refer to the input of that call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The input is used up, or a head is incomplete. More bytes are needed, unless the response is
    /// complete.
    More,
    /// An interim (1xx) head. The same response is still due.
    Interim,
    /// The final head.
    Head,
    /// A piece of the decoded body.
    Data(Range<usize>),
    /// A piece of the raw trailer section. All pieces together are input for
    /// [`parse_trailers`](super::head::parse_trailers).
    Trailers(Range<usize>),
}

/// What the end of the connection means for the response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Eof {
    /// The response is complete: it was complete before, or its body is ended by the end of the
    /// connection.
    Complete,
    /// No byte of it was received. The peer may have closed before it saw the request.
    NothingReceived,
    /// The response was cut short.
    Truncated(Violation),
}

/// Field positions are 32 bits wide, so no limit can allow a longer head.
const MAX_HEAD_BYTES: usize = 1 << 30;

impl Connection {
    /// Creates the state of a new connection.
    pub(crate) const fn new() -> Self {
        Self {
            state: State::Idle,
            persistent: false,
        }
    }

    /// Records that a request was sent, so a response is due. `is_head` means that the request is a
    /// HEAD, whose response has no body.
    pub(crate) fn expect_response(&mut self, is_head: bool) {
        self.persistent = true;
        self.state = State::Head(Due {
            is_head,
            may_switch: false,
            searched: 0,
            spent: 0,
            interim: 0,
        });
    }

    /// Records that the request asks for another protocol (RFC 9110 §7.8). A 101 (Switching
    /// Protocols) is then a final head, and the bytes after it are a body that lasts until the
    /// connection closes.
    pub(crate) fn expect_switch(&mut self) {
        if let State::Head(due) = &mut self.state {
            due.may_switch = true;
        }
    }

    /// Continues to read from `input`, the unread bytes of the connection.
    ///
    /// Nothing is consumed while a head is incomplete: call again with the same bytes and more
    /// after them. What follows the head is consumed as it arrives, but never beyond the exact end
    /// of the response. A head is parsed in place: see [`Head::read`] for the bytes that change.
    ///
    /// # Errors
    /// Returns what the peer did wrong. The connection is then unusable, and further calls are
    /// pointless but harmless.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        input: &mut [u8],
        head: &mut Head,
        limits: &Limits,
    ) -> Result<Step, Violation> {
        if input.is_empty() {
            return Ok(Step::MORE);
        }
        match &mut self.state {
            State::Idle => Err(Violation::Unsolicited { bytes: input.len() }),
            State::Head(_) => self.receive_head(input, head, limits),
            State::Body(body) => {
                let decoded = body.decode(input, limits)?;
                if body.is_done() {
                    self.state = State::Complete;
                }
                Ok(decoded.into())
            }
            State::Complete => Ok(Step::MORE),
        }
    }

    /// Fast path of [`receive`](Self::receive) for a body of known length whose rest is among the
    /// `available` bytes, the most common case. Returns the length of that rest.
    #[inline]
    pub(crate) fn take_rest(&mut self, available: usize) -> Option<usize> {
        match self.state {
            State::Body(Body::Length(left)) if left <= available as u64 => {
                self.state = State::Complete;
                Some(left as usize)
            }
            _ => None,
        }
    }

    /// Like [`receive`](Self::receive) from position `from` of `input`, for a chunked body whose
    /// pieces should be joined: see [`Chunked::collect`]. Returns `None` if the body is not
    /// chunked.
    #[inline]
    pub(crate) fn collect_chunks(
        &mut self,
        input: &mut [u8],
        from: usize,
        limits: &Limits,
    ) -> Option<(Joined, Result<(), Violation>)> {
        let State::Body(Body::Chunked(chunked)) = &mut self.state else {
            return None;
        };
        let collected = chunked.collect(input, from, limits);
        if chunked.is_done() {
            self.state = State::Complete;
        }
        Some(collected)
    }

    fn receive_head(
        &mut self,
        input: &mut [u8],
        head: &mut Head,
        limits: &Limits,
    ) -> Result<Step, Violation> {
        let State::Head(due) = &mut self.state else {
            return Ok(Step::MORE);
        };
        // All heads of a response share the limit, so a peer cannot send interim heads forever
        // (CVE-2023-38039 in curl).
        let limit = limits.max_head_bytes.min(MAX_HEAD_BYTES);
        let room = limit.saturating_sub(due.spent as usize);
        let received = input.len();
        let window = &mut input[..received.min(room)];
        let Some(framing) = head.read(window, &mut due.searched, limits)? else {
            if received < room {
                return Ok(Step::MORE);
            }
            return Err(Violation::HeadTooLarge {
                limit,
                seen: due.spent as usize + received,
            });
        };
        let consumed = head.len as usize;
        let bytes = &window[..consumed];
        head.length = framing.body_length(bytes, due.is_head, head.status, head.version)?;
        head.content_length = framing.content_length();
        head.keep_alive_timeout = framing.keep_alive_timeout();

        if head.status.is_informational() {
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                if !due.may_switch {
                    return Err(Violation::SwitchingProtocols);
                }
                head.length = BodyLength::UntilClose;
                self.persistent = false;
                self.state = State::Body(Body::UntilClose);
                let event = Event::Head;
                return Ok(Step { consumed, event });
            }
            due.searched = 0;
            due.spent += head.len;
            due.interim += 1;
            let (limit, seen) = (limits.max_interim, due.interim as usize);
            if seen > limit {
                return Err(Violation::TooManyInterim { limit, seen });
            }
            // HTTP/1.0 has no interim responses, so its default of closing does not apply here.
            self.persistent &= !framing.asks_to_close();
            return Ok(Step {
                consumed,
                event: Event::Interim,
            });
        }
        let body = Body::from(head.length);
        self.persistent &= framing.is_persistent(head.version);
        self.state = if body.is_done() {
            State::Complete
        } else {
            State::Body(body)
        };
        Ok(Step {
            consumed,
            event: Event::Head,
        })
    }

    /// Records the end of the connection, and returns what it means for the response.
    pub(crate) fn on_eof(&mut self) -> Eof {
        self.persistent = false;
        let missing = match &self.state {
            State::Idle => return Eof::NothingReceived,
            State::Head(due) if due.searched == 0 && due.interim == 0 => {
                return Eof::NothingReceived;
            }
            State::Head(_) => None,
            State::Body(Body::Length(left)) => Some(*left),
            State::Body(Body::Chunked(chunked)) if !chunked.is_behind_last_chunk() => None,
            // The end of the connection ends a body without length. In a chunked body, the last
            // chunk had been read, and nothing after it had begun.
            State::Body(Body::Chunked(_) | Body::UntilClose | Body::Empty) | State::Complete => {
                self.state = State::Complete;
                return Eof::Complete;
            }
        };
        Eof::Truncated(Violation::Truncated { missing })
    }

    /// Returns whether the response has been read to its exact end.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// Returns whether part of a head has been received, but not all of it.
    pub(crate) fn is_inside_head(&self) -> bool {
        matches!(&self.state, State::Head(due) if due.searched > 0)
    }

    /// Returns whether the final head has been read.
    pub(crate) fn has_head(&self) -> bool {
        matches!(self.state, State::Body(_) | State::Complete)
    }

    /// Returns whether the response is complete, and neither stated nor implied that the connection
    /// ends after it (RFC 9112 §9.3).
    pub(crate) fn is_reusable(&self) -> bool {
        self.persistent && self.is_complete()
    }

    /// Returns whether the body lasts until the connection ends (RFC 9112 §6.3, rule 8).
    pub(crate) fn is_until_close(&self) -> bool {
        matches!(self.state, State::Body(Body::UntilClose))
    }

    /// Returns the missing bytes of a body of known length, while it is being read.
    pub(crate) fn missing(&self) -> Option<u64> {
        match self.state {
            State::Body(Body::Length(left)) => Some(left),
            _ => None,
        }
    }
}

impl Step {
    const MORE: Self = Self {
        consumed: 0,
        event: Event::More,
    };
}

impl From<Decoded> for Step {
    fn from(decoded: Decoded) -> Self {
        Self {
            consumed: decoded.consumed,
            event: match decoded.content {
                Content::None => Event::More,
                Content::Data(place) => Event::Data(place),
                Content::Trailers(place) => Event::Trailers(place),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::head::parse_trailers;
    use crate::proto::testing::{Random, feeds};

    /// What an engine would make of a connection's bytes.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    struct Got {
        interim: Vec<u16>,
        status: u16,
        body: Vec<u8>,
        trailers: Vec<u8>,
        /// Bytes after the response.
        tail: Vec<u8>,
        complete: bool,
        reusable: bool,
    }

    struct Reader {
        connection: Connection,
        head: Head,
        unread: Vec<u8>,
        got: Got,
    }

    impl Reader {
        fn new(is_head: bool) -> Self {
            let mut connection = Connection::new();
            connection.expect_response(is_head);
            Self {
                connection,
                head: Head::default(),
                unread: Vec::new(),
                got: Got::default(),
            }
        }

        fn feed(&mut self, piece: &[u8], limits: &Limits) -> Result<(), Violation> {
            self.unread.extend_from_slice(piece);
            loop {
                let step = self
                    .connection
                    .receive(&mut self.unread, &mut self.head, limits)?;
                let status = self.head.status.as_u16();
                match step.event.clone() {
                    Event::More => {}
                    Event::Interim => self.got.interim.push(status),
                    Event::Head => self.got.status = status,
                    Event::Data(place) => {
                        assert!(!place.is_empty());
                        self.got.body.extend_from_slice(&self.unread[place]);
                    }
                    Event::Trailers(place) => {
                        self.got.trailers.extend_from_slice(&self.unread[place]);
                    }
                }
                assert!(
                    step.consumed > 0 || step.event == Event::More,
                    "each call makes progress"
                );
                self.unread.drain(..step.consumed);
                if step.event == Event::More || self.connection.is_complete() {
                    return Ok(());
                }
            }
        }

        fn finish(mut self) -> Got {
            self.got.complete = self.connection.is_complete();
            self.got.reusable = self.connection.is_reusable();
            self.got.tail = self.unread;
            self.got
        }
    }

    fn read(feed: &[&[u8]], is_head: bool, limits: &Limits) -> Result<Got, Violation> {
        let mut reader = Reader::new(is_head);
        for piece in feed {
            reader.feed(piece, limits)?;
        }
        Ok(reader.finish())
    }

    #[test]
    fn a_connection_is_small() {
        assert!(size_of::<Connection>() <= 40, "{}", size_of::<Connection>());
        assert!(size_of::<Head>() <= 80, "{}", size_of::<Head>());
        assert!(size_of::<Result<Step, Violation>>() <= 32);
    }

    #[test]
    fn a_response_is_read_to_its_exact_end() {
        let rows: &[(&str, &str, u16, &str, bool)] = &[
            (
                "a length",
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
                200,
                "abc",
                true,
            ),
            (
                "a length of zero",
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                200,
                "",
                true,
            ),
            (
                "chunks",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                200,
                "abc",
                true,
            ),
            ("204", "HTTP/1.1 204 No Content\r\n\r\n", 204, "", true),
            (
                "204 with a length",
                "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n",
                204,
                "",
                true,
            ),
            (
                "304 with a length",
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
                304,
                "",
                true,
            ),
            (
                "304 with chunks",
                "HTTP/1.1 304 x\r\nTransfer-Encoding: chunked\r\n\r\n",
                304,
                "",
                true,
            ),
            (
                "close",
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na",
                200,
                "a",
                false,
            ),
            (
                "HTTP/1.0",
                "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na",
                200,
                "a",
                false,
            ),
            (
                "HTTP/1.0 with keep-alive",
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na",
                200,
                "a",
                true,
            ),
            (
                "HTTP/1.5",
                "HTTP/1.5 200 OK\r\nContent-Length: 1\r\n\r\na",
                200,
                "a",
                true,
            ),
            (
                "codings and a length",
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
                200,
                "a",
                false,
            ),
        ];
        for (why, wire, status, body, reusable) in rows {
            for tail in ["", "H", "\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
                let bytes = [*wire, tail].concat();
                let expected = Got {
                    status: *status,
                    body: body.as_bytes().to_vec(),
                    tail: tail.as_bytes().to_vec(),
                    complete: true,
                    reusable: *reusable,
                    ..Got::default()
                };
                for feed in feeds(bytes.as_bytes()) {
                    let got = read(&feed, false, &Limits::DEFAULT);
                    assert_eq!(got, Ok(expected.clone()), "{why}, fed {feed:?}");
                }
            }
        }
    }

    #[test]
    fn a_response_to_head_ends_with_its_head() {
        for wire in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
        ] {
            for feed in feeds(wire.as_bytes()) {
                let got = read(&feed, true, &Limits::DEFAULT).unwrap();
                assert!(
                    got.complete && got.reusable && got.body.is_empty(),
                    "fed {feed:?}"
                );
            }
        }
        let mut reader = Reader::new(true);
        reader
            .feed(
                b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
                &Limits::DEFAULT,
            )
            .unwrap();
        assert_eq!(reader.head.content_length, Some(3));
    }

    #[test]
    fn interim_heads_come_before_the_final_one() {
        let wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\nContent-Length: 7\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";
        for feed in feeds(wire) {
            let got = read(&feed, false, &Limits::DEFAULT).unwrap();
            assert_eq!((got.interim, got.status), (vec![100, 103], 200));
            assert_eq!(
                (&got.body[..], got.complete, got.reusable),
                (&b"a"[..], true, true)
            );
        }
    }

    #[test]
    fn trailers_come_raw_and_without_gaps() {
        let wire =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: y\r\n\r\nHTTP";
        for feed in feeds(wire) {
            let mut got = read(&feed, false, &Limits::DEFAULT).unwrap();
            assert_eq!(got.trailers, b"x: y\r\n\r\n");
            assert_eq!(got.tail, b"HTTP");
            let mut fields = Vec::new();
            parse_trailers(&mut got.trailers, &mut fields, &Limits::DEFAULT).unwrap();
            assert_eq!(fields.len(), 1);
        }
    }

    #[test]
    fn what_passes_a_limit_or_was_not_asked_for_is_refused() {
        let limits = Limits {
            max_head_bytes: 60,
            max_interim: 2,
            ..Limits::DEFAULT
        };
        let interim = "HTTP/1.1 100 Continue\r\n\r\n";
        let rows = [
            (
                "three interim heads",
                "HTTP/1.1 100\r\n\r\n".repeat(3),
                Violation::TooManyInterim { limit: 2, seen: 3 },
            ),
            (
                "protocol switched",
                "HTTP/1.1 101 x\r\nUpgrade: h2c\r\n\r\n".into(),
                Violation::SwitchingProtocols,
            ),
            // Fed byte by byte, the violation shows at the last byte that fits, because another
            // must follow.
            (
                "head too large",
                format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(40)),
                Violation::HeadTooLarge {
                    limit: 60,
                    seen: 60,
                },
            ),
            (
                "heads too large in total",
                interim.repeat(2) + "HTTP/1.1 2",
                Violation::HeadTooLarge {
                    limit: 60,
                    seen: 60,
                },
            ),
        ];
        for (why, wire, expected) in rows {
            for feed in feeds(wire.as_bytes()) {
                assert_eq!(
                    read(&feed, false, &limits),
                    Err(expected.clone()),
                    "{why}, fed {feed:?}"
                );
            }
        }
        for feed in feeds(format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(36)).as_bytes()) {
            assert!(
                read(&feed, false, &limits).is_ok(),
                "a head of exactly the limit"
            );
        }
        let mut unasked = Connection::new();
        let received = unasked.receive(&mut [b'H', b'T'], &mut Head::default(), &limits);
        assert_eq!(received, Err(Violation::Unsolicited { bytes: 2 }));
    }

    #[test]
    fn the_end_of_the_connection_ends_some_responses_and_cuts_others() {
        const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let cut = |missing| Eof::Truncated(Violation::Truncated { missing });
        let rows = [
            ("nothing came", String::new(), Eof::NothingReceived),
            ("a byte of a head", "H".into(), cut(None)),
            (
                "a head without its empty line",
                "HTTP/1.1 200 OK\r\n".into(),
                cut(None),
            ),
            (
                "an interim head only",
                "HTTP/1.1 100\r\n\r\n".into(),
                cut(None),
            ),
            (
                "no length",
                "HTTP/1.1 200 OK\r\n\r\nabc".into(),
                Eof::Complete,
            ),
            (
                "no length, no body",
                "HTTP/1.1 200 OK\r\n\r\n".into(),
                Eof::Complete,
            ),
            ("nothing of a length", LENGTH.into(), cut(Some(5))),
            ("a part of a length", format!("{LENGTH}ab"), cut(Some(3))),
            ("all of a length", format!("{LENGTH}abcde"), Eof::Complete),
            ("no chunk", CHUNKED.into(), cut(None)),
            ("in a chunk", format!("{CHUNKED}5\r\nab"), cut(None)),
            ("after a chunk", format!("{CHUNKED}2\r\nab\r\n"), cut(None)),
            ("in a size", format!("{CHUNKED}2"), cut(None)),
            ("in a size's line end", format!("{CHUNKED}2\r"), cut(None)),
            ("after a size's line", format!("{CHUNKED}2\r\n"), cut(None)),
            (
                "after all data of a chunk",
                format!("{CHUNKED}2\r\nOK"),
                cut(None),
            ),
            (
                "in a chunk's line end",
                format!("{CHUNKED}2\r\nOK\r"),
                cut(None),
            ),
            (
                "in an extension of a chunk",
                format!("{CHUNKED}2;a"),
                cut(None),
            ),
            ("in the last size", format!("{CHUNKED}0"), cut(None)),
            ("in one of many zeros", format!("{CHUNKED}000"), cut(None)),
            ("after the last size", format!("{CHUNKED}0 "), cut(None)),
            (
                "in the last chunk's extension",
                format!("{CHUNKED}0;a=b"),
                cut(None),
            ),
            (
                "in the last chunk's line end",
                format!("{CHUNKED}0\r"),
                cut(None),
            ),
            (
                "in the line end after the last chunk's extension",
                format!("{CHUNKED}0;a=b\r"),
                cut(None),
            ),
            (
                "after the last chunk's line",
                format!("{CHUNKED}0\r\n"),
                Eof::Complete,
            ),
            (
                "after the last chunk's line with an extension",
                format!("{CHUNKED}2\r\nOK\r\n00;a=b\r\n"),
                Eof::Complete,
            ),
            ("in the empty line", format!("{CHUNKED}0\r\n\r"), cut(None)),
            (
                "in the empty line after data",
                format!("{CHUNKED}2\r\nOK\r\n0\r\n\r"),
                cut(None),
            ),
            ("in a trailer's name", format!("{CHUNKED}0\r\na"), cut(None)),
            (
                "in a trailer's line end",
                format!("{CHUNKED}0\r\na: b\r"),
                cut(None),
            ),
            (
                "after a trailer's line",
                format!("{CHUNKED}0\r\na: b\r\n"),
                cut(None),
            ),
            (
                "after two trailers' lines",
                format!("{CHUNKED}0\r\na: b\r\nc: d\r\n"),
                cut(None),
            ),
            (
                "in the empty line after trailers",
                format!("{CHUNKED}0\r\na: b\r\n\r"),
                cut(None),
            ),
            (
                "after the trailers",
                format!("{CHUNKED}0\r\na: b\r\n\r\n"),
                Eof::Complete,
            ),
            (
                "in the empty line of a head",
                "HTTP/1.1 200 OK\r\n\r".into(),
                cut(None),
            ),
            (
                "in the head after an interim one",
                "HTTP/1.1 100\r\n\r\nHTTP/1.1 2".into(),
                cut(None),
            ),
        ];
        for (why, wire, expected) in rows {
            for feed in feeds(wire.as_bytes()) {
                let mut reader = Reader::new(false);
                for piece in &feed {
                    reader.feed(piece, &Limits::DEFAULT).unwrap();
                }
                let complete = expected == Eof::Complete;
                assert_eq!(reader.connection.on_eof(), expected, "{why}, fed {feed:?}");
                assert_eq!(reader.connection.is_complete(), complete, "{why}");
                assert!(!reader.connection.is_reusable(), "{why}");
            }
        }
    }

    #[test]
    fn what_is_missing_of_a_length_is_known_while_it_is_under_way() {
        let mut reader = Reader::new(false);
        let mut missing = |piece: &[u8]| {
            reader.feed(piece, &Limits::DEFAULT).unwrap();
            (reader.connection.has_head(), reader.connection.missing())
        };
        assert_eq!(
            missing(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"),
            (false, None)
        );
        assert_eq!(missing(b"\r\nab"), (true, Some(3)));
        assert_eq!(missing(b"cd"), (true, Some(1)));
        assert_eq!(missing(b"e"), (true, None));
    }

    #[test]
    fn one_response_follows_another() {
        let mut reader = Reader::new(false);
        for status in [200, 404] {
            let wire = format!("HTTP/1.1 {status} x\r\nContent-Length: 2\r\n\r\nab");
            reader.connection.expect_response(false);
            assert!(!reader.connection.is_complete() && !reader.connection.has_head());
            reader.feed(wire.as_bytes(), &Limits::DEFAULT).unwrap();
            assert_eq!(reader.got.status, status);
            assert!(reader.connection.is_reusable());
        }
    }

    #[test]
    fn mutated_responses_neither_panic_nor_loop_nor_depend_on_the_cut() {
        let mut random = Random::new(11);
        let wires: [&[u8]; 3] = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\nhello, world",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nA: b\r\n c\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
        ];
        for round in 0..6000 {
            let wire = random.mutate(wires[round % wires.len()]);
            let whole = read(&[&wire], false, &Limits::DEFAULT);
            let feed = random.cut(&wire);
            match (whole, read(&feed, false, &Limits::DEFAULT)) {
                // A fault in an incomplete head may not have been detected yet.
                (Err(_), Ok(cut)) => assert!(!cut.complete && cut.status == 0, "fed {feed:?}"),
                (whole, cut) => assert_eq!(cut, whole, "fed {feed:?}"),
            }
        }
    }
}
