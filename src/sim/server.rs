//! Scripted servers: what they are told, and what they answer.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Names a connection of a [`Network`](super::Network); never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(super) u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.0)
    }
}

/// A server of the simulated network. Closures `FnMut(&Incoming) -> Answer` are servers.
///
/// ```
/// use httpstream::sim::{Answer, Incoming, Network};
///
/// let network = Network::new(1);
/// let mut beats = 0;
/// network.serve("10.0.0.1:80".parse().unwrap(), move |request: &Incoming| match request.path() {
///     "/login" => Answer::ok("token"),
///     "/beat" => {
///         beats += 1;
///         Answer::ok(format!("beat {beats}"))
///     }
///     _ => Answer::status(404),
/// });
/// ```
pub trait Server {
    /// A request has come, whole.
    fn on_request(&mut self, request: &Incoming) -> Answer;

    /// The head of a request has come, its body (if any) is still to come. An answer to it is sent
    /// at once, and `on_request` is not asked about this request any more.
    fn on_head(&mut self, request: &Incoming) -> Option<Answer> {
        let _ = request;
        None
    }

    /// The client has closed the connection.
    fn on_close(&mut self, connection: ConnectionId) {
        let _ = connection;
    }
}

impl<F: FnMut(&Incoming) -> Answer> Server for F {
    fn on_request(&mut self, request: &Incoming) -> Answer {
        self(request)
    }
}

/// A request as its server got it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incoming {
    /// The connection it came on.
    pub connection: ConnectionId,
    /// The address of the server.
    pub server: SocketAddr,
    /// Whether it was sent to an `https` URL.
    pub https: bool,
    /// How many requests came on this connection before it.
    pub number: usize,
    /// Whether an earlier request on this connection had not been answered to its end when this one
    /// came.
    pub pipelined: bool,
    /// When its last byte came, from the beginning of the simulation.
    pub at: Duration,
    /// The method.
    pub method: String,
    /// The request target, as it stands in the request line.
    pub target: String,
    /// Names and values of the field lines, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// All of it, as it came.
    pub bytes: Vec<u8>,
    pub(super) head_len: usize,
}

impl Incoming {
    /// The request target up to the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The query: what stands behind the question mark of the target.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The value of the first field line of that name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut lines = self.headers.iter();
        lines
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.head_len..]
    }

    /// Whether the client said that it will send no more on this connection.
    pub fn wants_close(&self) -> bool {
        self.headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case("connection")
                && value
                    .split(|&b| b == b',')
                    .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
        })
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("connection", &self.connection.0)
            .field("number", &self.number)
            .field("at", &self.at)
            .field("bytes", &self.bytes.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}

/// What a server answers: which bytes, when, and what becomes of the connection.
///
/// An answer begins as [`ok`](Self::ok), [`status`](Self::status), [`raw`](Self::raw) or
/// [`nothing`](Self::nothing). As it stands it is sent at once, and the connection stays open for
/// the next request. What is only known later begins as [`held`](Self::held).
///
/// ```
/// use std::time::Duration;
/// use httpstream::sim::Answer;
///
/// let long_poll = Answer::ok("news").after(Duration::from_secs(50));
/// let truncated = Answer::status(200).header("Server", "old").body("0123456789").truncate(60).close();
/// let dripping = Answer::status(200).chunked(["one", "two"]).drip(1, Duration::from_millis(5));
/// let stuck = Answer::nothing();
/// let gone = Answer::nothing().reset();
/// ```
#[derive(Clone, Debug)]
#[must_use = "an answer does nothing until a server returns it, or a network is given it"]
pub struct Answer {
    interims: Vec<Vec<u8>>,
    message: Message,
    hold: Duration,
    truncate: Option<usize>,
    drip: Option<(usize, Duration)>,
    pauses: Vec<(usize, Duration)>,
    end: Option<End>,
}

#[derive(Clone, Debug)]
enum Message {
    Held,
    Raw(Vec<u8>),
    Built {
        status: u16,
        headers: Vec<(String, Vec<u8>)>,
        body: Body,
    },
}

#[derive(Clone, Debug)]
enum Body {
    Length(Vec<u8>),
    Chunked {
        pieces: Vec<Vec<u8>>,
        trailers: Vec<(String, Vec<u8>)>,
    },
    UntilClose(Vec<u8>),
}

/// How one side ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Close,
    Reset,
}

impl Answer {
    /// 200 with a body of known length.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::status(200).body(body)
    }

    /// A response with that status and an empty body.
    pub fn status(status: u16) -> Self {
        Self::of(Message::Built {
            status,
            headers: Vec::new(),
            body: Body::Length(Vec::new()),
        })
    }

    /// Those bytes, whatever they are.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::of(Message::Raw(bytes.into()))
    }

    /// Not one byte: the client waits for ever, unless [`close`](Self::close) or
    /// [`reset`](Self::reset) ends the connection.
    pub fn nothing() -> Self {
        Self::raw("")
    }

    /// No answer yet: the request waits until [`Network::answer`](super::Network::answer) brings
    /// one, as a long poll waits for news. Whatever else is said of this answer has no effect. A
    /// client that closes the connection first is reported through [`Server::on_close`], as ever.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// use httpstream::sim::{Answer, Incoming, Network};
    ///
    /// let network = Network::new(1);
    /// let (handle, waiting) = (network.clone(), Rc::new(Cell::new(None)));
    /// network.serve("10.0.0.1:80".parse().unwrap(), move |request: &Incoming| match request.path() {
    ///     "/poll" => {
    ///         waiting.set(Some(request.connection));
    ///         Answer::held()
    ///     }
    ///     _ => {
    ///         let news = request.body();
    ///         let heard = waiting.take().is_some_and(|poll| handle.answer(poll, Answer::ok(news)));
    ///         Answer::ok(if heard { "sent" } else { "nobody listens" })
    ///     }
    /// });
    /// ```
    pub fn held() -> Self {
        Self::of(Message::Held)
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.message, Message::Held)
    }

    fn of(message: Message) -> Self {
        Self {
            interims: Vec::new(),
            message,
            hold: Duration::ZERO,
            truncate: None,
            drip: None,
            pauses: Vec::new(),
            end: None,
        }
    }

    /// Adds a field line. `Content-Length`, `Transfer-Encoding` and, for a body that lasts until
    /// the end of the connection, `Connection` come by themselves. No effect on [`raw`](Self::raw).
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        if let Message::Built { headers, .. } = &mut self.message {
            headers.push((name.to_owned(), value.as_ref().to_vec()));
        }
        self
    }

    /// Sets a body of known length. It stays away, its length stays, in an answer to HEAD; both do
    /// with status 204 and 304.
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        self.with_body(Body::Length(body.into()))
    }

    /// Sets a body in the chunked coding, a chunk for each piece that is not empty.
    pub fn chunked<P: Into<Vec<u8>>>(self, pieces: impl IntoIterator<Item = P>) -> Self {
        self.with_body(Body::Chunked {
            pieces: pieces.into_iter().map(Into::into).collect(),
            trailers: Vec::new(),
        })
    }

    /// Adds a trailer field to a chunked body.
    pub fn trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        if let Message::Built {
            body: Body::Chunked { trailers, .. },
            ..
        } = &mut self.message
        {
            trailers.push((name.to_owned(), value.as_ref().to_vec()));
        }
        self
    }

    /// Sets a body that lasts until the end of the connection, and ends the connection behind it.
    pub fn until_close(self, body: impl Into<Vec<u8>>) -> Self {
        self.with_body(Body::UntilClose(body.into())).close()
    }

    fn with_body(mut self, new: Body) -> Self {
        if let Message::Built { body, .. } = &mut self.message {
            *body = new;
        }
        self
    }

    /// Sends an interim response first, at once, with the given fields.
    pub fn interim(mut self, status: u16, headers: &[(&str, &str)]) -> Self {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        self.interims.push(encode_head(status, &headers));
        self
    }

    /// Holds the (final) response back for that long, as a long poll does.
    pub fn after(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }

    /// Pauses for that long before byte `at` of the (final) response.
    pub fn pause(mut self, at: usize, pause: Duration) -> Self {
        self.pauses.push((at, pause));
        self
    }

    /// Sends the (final) response `bytes` at a time, and pauses for `every` between.
    pub fn drip(mut self, bytes: usize, every: Duration) -> Self {
        self.drip = Some((bytes.max(1), every));
        self
    }

    /// Sends no more than the first `bytes` of the (final) response.
    pub fn truncate(mut self, bytes: usize) -> Self {
        self.truncate = Some(bytes);
        self
    }

    /// Ends the connection behind the answer, without announcing it; where a server would announce
    /// it, add the header `Connection: close`.
    pub fn close(mut self) -> Self {
        self.end = Some(End::Close);
        self
    }

    /// Resets the connection behind the answer.
    pub fn reset(mut self) -> Self {
        self.end = Some(End::Reset);
        self
    }

    /// The bytes to send and when, as an answer to `request`.
    pub(super) fn encode(self, request: &Incoming) -> Script {
        let Encoded {
            mut wire,
            delimited,
            closes,
        } = self.message.encode(request);
        let complete = !wire.is_empty() && self.truncate.is_none_or(|n| n >= wire.len());
        wire.truncate(self.truncate.unwrap_or(usize::MAX));

        let mut pauses = self.pauses;
        if let Some((step, every)) = self.drip {
            pauses.extend((step..wire.len()).step_by(step).map(|at| (at, every)));
        }
        pauses.retain(|(at, _)| *at < wire.len());
        pauses.sort_by_key(|(at, _)| *at);

        let mut pieces: Vec<Segment> = self.interims.into_iter().map(Segment::at_once).collect();
        let (mut pause, mut from) = (self.hold, 0);
        for (at, then) in pauses {
            if at > from {
                let bytes = wire[from..at].to_vec();
                pieces.push(Segment { pause, bytes });
                pause = Duration::ZERO;
            }
            (pause, from) = (pause + then, at);
        }
        let bytes = wire.split_off(from);
        // An answer of no bytes has no piece to carry its hold.
        let end_pause = if bytes.is_empty() {
            pause
        } else {
            pieces.push(Segment { pause, bytes });
            Duration::ZERO
        };
        let end = self.end.or(closes.then_some(End::Close));
        Script {
            pieces,
            delimited,
            complete,
            end: end.map(|end| (end_pause, end)),
        }
    }
}

/// An [`Answer`] as bytes in time.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) pieces: Vec<Segment>,
    /// Whether the client can tell the end of the response from the bytes alone.
    pub(super) delimited: bool,
    /// Whether the response is there to its end.
    pub(super) complete: bool,
    /// How long after the last piece the connection ends, and how.
    pub(super) end: Option<(Duration, End)>,
}

/// Bytes sent together.
#[derive(Debug)]
pub(super) struct Segment {
    /// The time since the piece before.
    pub(super) pause: Duration,
    pub(super) bytes: Vec<u8>,
}

impl Segment {
    pub(super) fn at_once(bytes: Vec<u8>) -> Self {
        Self {
            pause: Duration::ZERO,
            bytes,
        }
    }
}

struct Encoded {
    wire: Vec<u8>,
    delimited: bool,
    closes: bool,
}

impl Message {
    fn encode(self, request: &Incoming) -> Encoded {
        let (status, mut headers, body) = match self {
            // Never sent.
            Message::Held => {
                return Encoded {
                    wire: Vec::new(),
                    delimited: false,
                    closes: false,
                };
            }
            Message::Raw(wire) => {
                return Encoded {
                    wire,
                    delimited: false,
                    closes: request.wants_close(),
                };
            }
            Message::Built {
                status,
                headers,
                body,
            } => (status, headers, body),
        };
        let bodiless = request.method == "HEAD" || matches!(status, 100..200 | 204 | 304);
        let mut add = |name: &str, value: &str| {
            if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) {
                headers.push((name.to_owned(), value.as_bytes().to_vec()));
            }
        };
        match &body {
            Body::Length(_) if matches!(status, 100..200 | 204 | 304) => {}
            Body::Length(bytes) => add("Content-Length", &bytes.len().to_string()),
            Body::Chunked { .. } => add("Transfer-Encoding", "chunked"),
            Body::UntilClose(_) => add("Connection", "close"),
        }
        if request.wants_close() {
            add("Connection", "close");
        }
        let delimited = bodiless || !matches!(body, Body::UntilClose(_));
        let mut wire = encode_head(status, &headers);
        if !bodiless {
            body.encode(&mut wire);
        }
        Encoded {
            wire,
            delimited,
            closes: request.wants_close(),
        }
    }
}

impl Body {
    fn encode(self, wire: &mut Vec<u8>) {
        match self {
            Body::Length(bytes) | Body::UntilClose(bytes) => wire.extend_from_slice(&bytes),
            Body::Chunked { pieces, trailers } => {
                for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                    wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    wire.extend_from_slice(piece);
                    wire.extend_from_slice(b"\r\n");
                }
                wire.extend_from_slice(b"0\r\n");
                encode_fields(wire, &trailers);
            }
        }
    }
}

fn encode_head(status: u16, headers: &[(String, Vec<u8>)]) -> Vec<u8> {
    let reason = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default();
    let mut wire = format!("HTTP/1.1 {status} {reason}\r\n").into_bytes();
    encode_fields(&mut wire, headers);
    wire
}

/// The field lines and the empty line behind them.
fn encode_fields(wire: &mut Vec<u8>, fields: &[(String, Vec<u8>)]) {
    for (name, value) in fields {
        wire.extend_from_slice(name.as_bytes());
        wire.extend_from_slice(b": ");
        wire.extend_from_slice(value);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn request(method: &str, headers: &[(&str, &str)]) -> Incoming {
        Incoming {
            connection: ConnectionId(1),
            server: ([10, 0, 0, 1], 80).into(),
            https: false,
            number: 0,
            pipelined: false,
            at: Duration::ZERO,
            method: method.to_owned(),
            target: "/a?b=c".to_owned(),
            headers: headers
                .iter()
                .map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec()))
                .collect(),
            bytes: b"head+body".to_vec(),
            head_len: 5,
        }
    }

    fn wire(script: &Script) -> String {
        script
            .pieces
            .iter()
            .map(|piece| String::from_utf8_lossy(&piece.bytes))
            .collect()
    }

    #[test]
    fn answers_are_framed_as_asked() {
        let get = request("GET", &[]);
        let rows = [
            (
                Answer::ok("hi"),
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            ),
            (
                Answer::status(204).header("A", "b"),
                "HTTP/1.1 204 No Content\r\nA: b\r\n\r\n",
            ),
            (
                Answer::status(200)
                    .chunked(["abc", "", "d"])
                    .trailer("T", "u"),
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\nT: u\r\n\r\n",
            ),
            (
                Answer::status(200).until_close("x"),
                "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nx",
            ),
            (
                Answer::status(299).interim(103, &[("Link", "l")]),
                "HTTP/1.1 103 Early Hints\r\nLink: l\r\n\r\nHTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n",
            ),
            (Answer::raw("zz"), "zz"),
        ];
        for (answer, expected) in rows {
            assert_eq!(wire(&answer.encode(&get)), expected);
        }
    }

    #[test]
    fn answer_to_head_has_the_length_and_no_body() {
        let script = Answer::ok("hi").encode(&request("HEAD", &[]));
        assert_eq!(
            wire(&script),
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        );
    }

    #[test]
    fn request_to_close_is_obeyed_and_announced() {
        let script = Answer::status(204).encode(&request("GET", &[("connection", "x, Close")]));
        assert!(wire(&script).contains("\r\nConnection: close\r\n"));
        assert_eq!(script.end, Some((Duration::ZERO, End::Close)));
    }

    #[test]
    fn pauses_add_up_between_pieces() {
        let script = Answer::raw("abcdef")
            .after(10 * MS)
            .pause(4, 2 * MS)
            .drip(2, MS)
            .encode(&request("GET", &[]));
        let pieces: Vec<_> = script
            .pieces
            .iter()
            .map(|piece| (piece.pause, piece.bytes.as_slice()))
            .collect();
        let expected: [(Duration, &[u8]); 3] = [(10 * MS, b"ab"), (MS, b"cd"), (3 * MS, b"ef")];
        assert_eq!(pieces, expected);
    }

    #[test]
    fn truncated_answer_is_not_complete() {
        let get = request("GET", &[]);
        assert!(Answer::ok("hi").encode(&get).complete);
        assert!(Answer::ok("hi").truncate(400).encode(&get).complete);
        assert!(!Answer::ok("hi").truncate(39).encode(&get).complete);
        let script = Answer::nothing().after(MS).reset().encode(&get);
        assert!(script.pieces.is_empty() && !script.complete);
        assert_eq!(script.end, Some((MS, End::Reset)));
    }

    #[test]
    fn incoming_request_tells_its_parts() {
        let request = request("GET", &[("A", "1"), ("a", "2")]);
        assert_eq!((request.path(), request.query()), ("/a", Some("b=c")));
        assert_eq!(request.header("A"), Some(&b"1"[..]));
        assert_eq!(request.body(), b"body");
        assert!(!request.wants_close());
    }
}
