//! Scripted servers: the requests they receive and the answers they give.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Identifies a connection of a [`Network`](super::Network). Identifiers are never reused.
///
/// ```
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Next, Request, Sim};
///
/// let network = Network::new(1);
/// network.host("bot.test", [[10, 0, 0, 1]]);
/// network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| {
///     Answer::ok(request.connection.to_string())
/// });
///
/// let mut engine = Engine::<Vec<u8>, Sim>::on_network(&network, Config::default())?;
/// engine.submit(Request::get("http://bot.test/").build()?, |body, reply, _| {
///     body.extend(reply.map_or(Vec::new(), |response| response.body().to_vec()));
///     Next::done()
/// });
/// let mut body = Vec::new();
/// engine.run(&mut body)?;
/// assert_eq!(body, b"connection 1");
///
/// let connection = network.connections()[0];
/// assert!(network.is_open(connection));
/// assert!(network.close(connection));
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(super) u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.0)
    }
}

/// A server of the simulated network. A closure `FnMut(&Incoming) -> Answer` is a server too.
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
    /// Answers a request that has been received completely.
    fn on_request(&mut self, request: &Incoming) -> Answer;

    /// Answers a request whose head has been received, while its body (if any) is still to come.
    ///
    /// `Some` sends that answer right away, and `on_request` is not called for this request. The
    /// default implementation returns `None`.
    fn on_head(&mut self, request: &Incoming) -> Option<Answer> {
        let _ = request;
        None
    }

    /// Receives bytes on a connection whose request was answered with 101 (Switching Protocols):
    /// from then on, they are no HTTP. To send bytes, call
    /// [`Network::push`](super::Network::push), here or at any later time.
    ///
    /// ```
    /// use httpstream::sim::{Answer, ConnectionId, Incoming, Network, Server};
    ///
    /// /// Sends back what it receives.
    /// struct Echo { network: Network }
    ///
    /// impl Server for Echo {
    ///     fn on_request(&mut self, _: &Incoming) -> Answer {
    ///         Answer::status(101).header("Upgrade", "echo").header("Connection", "Upgrade")
    ///     }
    ///
    ///     fn on_data(&mut self, connection: ConnectionId, bytes: &[u8]) {
    ///         self.network.push(connection, bytes);
    ///     }
    /// }
    ///
    /// let network = Network::new(1);
    /// let echo = Echo { network: network.clone() };
    /// network.serve("10.0.0.1:80".parse().unwrap(), echo);
    /// ```
    fn on_data(&mut self, connection: ConnectionId, bytes: &[u8]) {
        let _ = (connection, bytes);
    }

    /// Reports that the client has closed the connection.
    fn on_close(&mut self, connection: ConnectionId) {
        let _ = connection;
    }
}

impl<F: FnMut(&Incoming) -> Answer> Server for F {
    fn on_request(&mut self, request: &Incoming) -> Answer {
        self(request)
    }
}

/// A request as its server received it.
///
/// ```
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Next, Request, Sim};
///
/// let network = Network::new(1);
/// network.host("bot.test", [[10, 0, 0, 1]]);
/// network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| {
///     assert_eq!((request.method.as_str(), request.path()), ("POST", "/say"));
///     assert_eq!(request.query(), Some("to=all"));
///     assert_eq!(request.header("content-type"), Some(&b"text/plain"[..]));
///     Answer::ok(request.body())
/// });
///
/// let say = Request::post("http://bot.test/say?to=all");
/// let say = say.header("Content-Type", "text/plain").body("hello").build()?;
/// let mut engine = Engine::<Vec<u8>, Sim>::on_network(&network, Config::default())?;
/// engine.submit(say, |echo, reply, _| {
///     echo.extend(reply.map_or(Vec::new(), |response| response.body().to_vec()));
///     Next::done()
/// });
/// let mut echo = Vec::new();
/// engine.run(&mut echo)?;
/// assert_eq!(echo, b"hello");
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incoming {
    /// The connection that carried the request.
    pub connection: ConnectionId,
    /// The address of the server.
    pub server: SocketAddr,
    /// Whether the request was for an `https` URL.
    pub https: bool,
    /// The number of requests received earlier on this connection.
    pub number: usize,
    /// Whether an earlier request on this connection had not been answered completely when this one
    /// arrived.
    pub pipelined: bool,
    /// When its last byte arrived, measured from the start of the simulation.
    pub at: Duration,
    /// The request method.
    pub method: String,
    /// The request target, as written in the request line.
    pub target: String,
    /// Names and values of the field lines, in order of arrival.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The entire request, head and body, as received, but for a chunked body, which is decoded.
    pub bytes: Vec<u8>,
    /// Names and values of the trailer fields of a chunked body, in order of arrival.
    pub trailers: Vec<(String, Vec<u8>)>,
    pub(super) head_len: usize,
}

impl Incoming {
    /// Returns the request target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Returns the query: the part of the target after the question mark.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// Returns the value of the first field line with this name. Names are compared ignoring case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut lines = self.headers.iter();
        lines
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }

    /// Returns the body.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.head_len..]
    }

    /// Whether the request has `Connection: close`: the client will send no more on this
    /// connection.
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

/// A server's answer: the bytes to send, when to send them, and what happens to the connection.
///
/// Create one with [`ok`](Self::ok), [`status`](Self::status), [`raw`](Self::raw) or
/// [`nothing`](Self::nothing). By default it is sent immediately, and the connection stays open for
/// the next request. To decide on the answer later, return [`held`](Self::held).
///
/// ```
/// use std::time::Duration;
/// use httpstream::sim::Answer;
///
/// let long_poll = Answer::ok("news").after(Duration::from_secs(50));
/// let old = Answer::status(200).header("Server", "old").body("0123456789");
/// let truncated = old.truncate(60).close();
/// let dripping = Answer::status(200).chunked(["one", "two"]).drip(1, Duration::from_millis(5));
/// let stuck = Answer::nothing();
/// let gone = Answer::nothing().reset();
/// ```
#[derive(Clone, Debug)]
#[must_use = "an answer has no effect until a server returns it or `Network::answer` sends it"]
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
    /// Creates a 200 response with a body of known length.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::status(200).body(body)
    }

    /// Creates a response with this status and an empty body.
    pub fn status(status: u16) -> Self {
        Self::of(Message::Built {
            status,
            headers: Vec::new(),
            body: Body::Length(Vec::new()),
        })
    }

    /// Creates an answer of exactly these bytes, whether or not they are a valid response.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::of(Message::Raw(bytes.into()))
    }

    /// Creates an answer that sends nothing. The client waits forever unless [`close`](Self::close)
    /// or [`reset`](Self::reset) ends the connection.
    pub fn nothing() -> Self {
        Self::raw("")
    }

    /// Postpones the answer: the request waits until [`Network::answer`](super::Network::answer)
    /// supplies one, as a long poll waits for news.
    ///
    /// Other settings of a held answer have no effect. If the client closes the connection first,
    /// the server learns of it through [`Server::on_close`], as usual.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// use httpstream::sim::{Answer, Incoming, Network};
    ///
    /// let network = Network::new(1);
    /// let (handle, waiting) = (network.clone(), Rc::new(Cell::new(None)));
    /// let addr = "10.0.0.1:80".parse().unwrap();
    /// network.serve(addr, move |request: &Incoming| match request.path() {
    ///     "/poll" => {
    ///         waiting.set(Some(request.connection));
    ///         Answer::held()
    ///     }
    ///     _ => {
    ///         let news = request.body();
    ///         let poll = waiting.take();
    ///         let heard = poll.is_some_and(|poll| handle.answer(poll, Answer::ok(news)));
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

    /// Adds a field line. `Content-Length` and `Transfer-Encoding` are added automatically, and so
    /// is `Connection` for a body that is delimited by the end of the connection.
    ///
    /// This has no effect on [`raw`](Self::raw) answers.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        if let Message::Built { headers, .. } = &mut self.message {
            headers.push((name.to_owned(), value.as_ref().to_vec()));
        }
        self
    }

    /// Sets a body of known length.
    ///
    /// An answer to HEAD keeps the `Content-Length` but omits the body. Status 204 and 304 omit
    /// both.
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        self.with_body(Body::Length(body.into()))
    }

    /// Sets a body in the chunked coding, with one chunk for each non-empty piece.
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

    /// Sets a body that is delimited by the end of the connection, and closes the connection after
    /// it.
    pub fn until_close(self, body: impl Into<Vec<u8>>) -> Self {
        self.with_body(Body::UntilClose(body.into())).close()
    }

    fn with_body(mut self, new: Body) -> Self {
        if let Message::Built { body, .. } = &mut self.message {
            *body = new;
        }
        self
    }

    /// Sends an interim response with the given fields first, without delay.
    pub fn interim(mut self, status: u16, headers: &[(&str, &str)]) -> Self {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        self.interims.push(encode_head(status, &headers));
        self
    }

    /// Delays the final response by `hold`, as a long poll does.
    pub fn after(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }

    /// Pauses for `pause` before byte `at` of the final response.
    pub fn pause(mut self, at: usize, pause: Duration) -> Self {
        self.pauses.push((at, pause));
        self
    }

    /// Sends the final response in pieces of `bytes` bytes, with a pause of `every` between them.
    pub fn drip(mut self, bytes: usize, every: Duration) -> Self {
        self.drip = Some((bytes.max(1), every));
        self
    }

    /// Sends only the first `bytes` bytes of the final response.
    pub fn truncate(mut self, bytes: usize) -> Self {
        self.truncate = Some(bytes);
        self
    }

    /// Closes the connection after the answer, without announcing it. To announce it as a server
    /// would, add the header `Connection: close`.
    pub fn close(mut self) -> Self {
        self.end = Some(End::Close);
        self
    }

    /// Resets the connection after the answer.
    pub fn reset(mut self) -> Self {
        self.end = Some(End::Reset);
        self
    }

    /// Encodes the answer to `request` as bytes and the times at which to send them.
    pub(super) fn encode(self, request: &Incoming) -> Script {
        let Encoded {
            mut wire,
            delimited,
            closes,
        } = self.message.encode(request);
        let complete = !wire.is_empty() && self.truncate.is_none_or(|n| n >= wire.len());
        let switches = complete && wire.starts_with(b"HTTP/1.1 101 ");
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
        // An empty answer has no piece to carry its delay.
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
            switches,
            end: end.map(|end| (end_pause, end)),
        }
    }
}

/// An [`Answer`], encoded as bytes with their times.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) pieces: Vec<Segment>,
    /// Whether the client can tell from the bytes alone where the response ends.
    pub(super) delimited: bool,
    /// Whether the response is sent to its end.
    pub(super) complete: bool,
    /// Whether it is a 101, after which the connection is no longer one of HTTP.
    pub(super) switches: bool,
    /// How the connection ends, and how long after the last piece.
    pub(super) end: Option<(Duration, End)>,
}

/// Bytes that are sent together.
#[derive(Debug)]
pub(super) struct Segment {
    /// The time since the previous piece.
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
            // A held answer is never sent.
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

/// Appends the field lines and the empty line that ends them.
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
            trailers: Vec::new(),
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
