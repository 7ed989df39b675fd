//! Scripted servers on loopback, with a thread for each connection, and a state that records what
//! readbacks receive.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "a module of every test file")]

use std::collections::VecDeque;
use std::io::{ErrorKind as IoKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use httpstream::resolver::Resolve;
use httpstream::{
    Config, Context, Engine, Error, ErrorKind, Flow, Next, Phase, Readback, Reply, Request,
    ResolverFactory, Response, Sent, Stats,
};
use socket2::SockRef;

/// A test that waits longer than this hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Makes a factory that gives each engine a copy of this resolver.
pub fn resolver(resolver: impl Resolve + Clone + Send + Sync + 'static) -> ResolverFactory {
    Arc::new(move || Box::new(resolver.clone()))
}

/// A server whose connections follow a script.
pub struct Server {
    pub addr: SocketAddr,
    seen: Receiver<Seen>,
}

/// A request that a server's connection has read. Reports come in chronological order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Number of the connection, from 0.
    pub connection: usize,
    /// Target of the request, such as `/a`.
    pub path: String,
    /// Request line and field lines.
    pub head: String,
    pub body: Vec<u8>,
}

impl Server {
    /// Starts a server that runs `script` for each connection. [`Peer::number`] counts them.
    pub fn start(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1:0", script)
    }

    pub fn on(addr: &str, script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        // With the default backlog of 128, many clients at once would wait a second for their SYN
        // to be sent again.
        SockRef::from(&listener).listen(4096).unwrap();
        let addr = listener.local_addr().unwrap();
        let (tell, seen) = channel();
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { continue };
                let (script, tell) = (Arc::clone(&script), tell.clone());
                let spawned = std::thread::Builder::new().stack_size(128 * 1024);
                let serve = move || {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.set_nodelay(true).unwrap();
                    script(&mut Peer {
                        number,
                        stream: Some(stream),
                        unread: Vec::new(),
                        tell,
                    });
                };
                spawned.spawn(serve).unwrap();
            }
        });
        Self { addr, seen }
    }

    /// Starts a server that answers every request with the same bytes.
    pub fn answering(wire: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::start(move |peer| while peer.answer(wire.as_ref()) {})
    }

    /// Starts a server that does what the path says. `/large` has this many bytes; other paths are
    /// answered with `a`.
    pub fn by_path(large: usize) -> Self {
        Self::start(move |peer| {
            while let Some(seen) = peer.request() {
                match seen.path.as_str() {
                    "/close" => {
                        let wire =
                            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na";
                        peer.send(wire);
                        return;
                    }
                    "/reset" => return peer.reset(),
                    "/large" => drop(peer.send(&ok(&"x".repeat(large)))),
                    "/slow" => peer.send_pieces(ok("a").chunks(1)),
                    "/silent" => drop(peer.hold()),
                    "/held" => {
                        std::thread::sleep(Duration::from_millis(50));
                        peer.send(&ok("a"));
                    }
                    _ => drop(peer.send(&ok("a"))),
                }
            }
        })
    }

    /// Starts a server whose connections each answer one request with these bytes, and close.
    pub fn once(wire: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::start(move |peer| {
            peer.request();
            peer.send(wire.as_ref());
        })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub fn get(&self, path: &str) -> Request {
        Request::get(self.url(path)).build().unwrap()
    }

    pub fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Request {
        Request::post(self.url(path)).body(body).build().unwrap()
    }

    /// Waits for the next request that a connection has read.
    pub fn next(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("a request")
    }

    /// Returns all requests read so far that were not taken yet.
    pub fn so_far(&self) -> Vec<Seen> {
        self.seen.try_iter().collect()
    }
}

/// The server's end of one connection.
pub struct Peer {
    pub number: usize,
    stream: Option<TcpStream>,
    unread: Vec<u8>,
    tell: Sender<Seen>,
}

impl Peer {
    /// Returns what has arrived and was not taken, without waiting.
    pub fn unread(&mut self) -> &[u8] {
        self.stream().set_nonblocking(true).unwrap();
        self.fill();
        self.stream().set_nonblocking(false).unwrap();
        &self.unread
    }

    pub fn stream(&self) -> &TcpStream {
        self.stream.as_ref().unwrap()
    }

    /// Whether this end of the connection is still open.
    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    fn fill(&mut self) -> bool {
        let mut buf = [0; 16 * 1024];
        match self.stream().read(&mut buf) {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.unread.extend_from_slice(&buf[..n]);
                true
            }
        }
    }

    /// Reads a request's head and nothing after it. Returns `None` if the client has closed.
    pub fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads this many bytes of a body, or fewer if the client closes.
    pub fn body(&mut self, len: usize) -> Vec<u8> {
        while self.unread.len() < len && self.fill() {}
        let len = len.min(self.unread.len());
        self.unread.drain(..len).collect()
    }

    /// Reads a request and reports it to the test. Returns `None` if the client has closed.
    pub fn request(&mut self) -> Option<Seen> {
        let head = self.head()?;
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        });
        let body = self.body(length.unwrap_or(0));
        Some(self.tell(head, body))
    }

    pub fn tell(&self, head: String, body: Vec<u8>) -> Seen {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let seen = Seen {
            connection: self.number,
            path,
            head,
            body,
        };
        // A test that has ended does not receive.
        let _ = self.tell.send(seen.clone());
        seen
    }

    /// Returns false if the client has closed.
    pub fn answer(&mut self, wire: &[u8]) -> bool {
        self.request().is_some() && self.send(wire)
    }

    pub fn send(&mut self, wire: &[u8]) -> bool {
        self.stream().write_all(wire).is_ok()
    }

    /// Sends in pieces, each in a segment of its own.
    pub fn send_pieces<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        for piece in pieces {
            if !self.send(piece) {
                break;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    pub fn half_close(&mut self) {
        let _ = self.stream().shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset.
    pub fn reset(&mut self) {
        if let Some(stream) = self.stream.take() {
            SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
    }

    pub fn close(&mut self) {
        self.stream = None;
    }

    /// Reads until the client closes, and returns what arrived.
    pub fn hold(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.unread)
    }
}

/// A gate between a test and its servers. It lets through as many callers as passes were given.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<usize>, std::sync::Condvar)>);

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn open(&self, passes: usize) {
        *self.0.0.lock().unwrap() += passes;
        self.0.1.notify_all();
    }

    pub fn pass(&self) {
        let mut passes = self.0.0.lock().unwrap();
        let end = Instant::now() + PATIENCE * 2;
        while *passes == 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            passes = self.0.1.wait_timeout(passes, left).unwrap().0;
        }
        *passes -= 1;
    }
}

/// Returns an address where connecting never succeeds: its listener's queue is full and nothing
/// accepts. Keep the second value alive.
pub fn unresponsive_listener() -> (SocketAddr, impl Sized) {
    unresponsive_listener_on(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

/// Does the same at this address.
pub fn unresponsive_listener_on(addr: SocketAddr) -> std::io::Result<(SocketAddr, impl Sized)> {
    let domain = socket2::Domain::for_address(addr);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.bind(&addr.into())?;
    socket.listen(0)?;
    let addr = socket.local_addr()?.as_socket().unwrap();
    let mut fillers = Vec::new();
    loop {
        let filler = TcpStream::connect_timeout(&addr, Duration::from_millis(100));
        match filler {
            Ok(filler) => fillers.push(filler),
            Err(_) => return Ok((addr, (socket, fillers))),
        }
    }
}

/// Returns a name of one of this machine's addresses other than `localhost`, which the system's
/// resolver has to look up.
pub fn hosts_name() -> Option<(String, std::net::IpAddr)> {
    use std::net::ToSocketAddrs;
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let own = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let lines = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let mut names: Vec<_> = lines
        .flat_map(|line| line.split_whitespace().skip(1))
        .collect();
    names.extend([own.trim(), "ip6-localhost"]);
    names.retain(|name| !name.is_empty() && *name != "localhost" && !name.ends_with(".localhost"));
    names.into_iter().find_map(|name| {
        let mut addrs = (name, 0).to_socket_addrs().ok()?;
        let ours = addrs.find(|addr| TcpListener::bind(addr).is_ok())?;
        Some((name.to_owned(), ours.ip()))
    })
}

/// A 200 with this body and its length.
pub fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A response, as its readback got it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Got {
    pub status: u16,
    pub body: Vec<u8>,
    pub fields: Vec<(String, Vec<u8>)>,
    pub trailers: Vec<(String, Vec<u8>)>,
    pub reused: bool,
    pub attempts: u32,
}

impl Got {
    pub fn of(response: Response<'_>) -> Self {
        let owned = |(name, value): (&str, &[u8])| (name.to_owned(), value.to_vec());
        Self {
            status: response.status().as_u16(),
            fields: response.headers().map(owned).collect(),
            trailers: response.trailers().map(owned).collect(),
            reused: response.info().reused,
            attempts: response.info().attempts,
            body: response.into_body(),
        }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// What readbacks received.
#[derive(Debug, Default)]
pub struct Log {
    pub replies: Vec<Result<Got, Error>>,
    pub notes: Vec<String>,
}

impl Log {
    /// The texts of all bodies, and the kinds of errors.
    pub fn texts(&self) -> Vec<String> {
        let text = |reply: &Result<Got, Error>| match reply {
            Ok(got) => got.text().to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        };
        self.replies.iter().map(text).collect()
    }

    pub fn kinds(&self) -> Vec<ErrorKind> {
        let errors = self.replies.iter().filter_map(|reply| reply.as_ref().err());
        errors.map(Error::kind).collect()
    }
}

/// Records the reply, and ends the chain.
pub fn note(log: &mut Log, reply: Reply<'_>, _: &mut Context<'_, Log>) -> Next<Log> {
    log.replies.push(reply.map(Got::of));
    Next::done()
}

/// Returns the error's kind and phase, and whether the request was sent.
pub fn facts(error: &Error) -> (ErrorKind, Phase, Sent) {
    (error.kind(), error.phase(), error.request_sent())
}

/// An engine with the log that is its state.
pub struct Bench {
    pub engine: Engine<Log>,
    pub log: Log,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        Self {
            engine: Engine::with_config(config).unwrap(),
            log: Log::default(),
        }
    }

    pub fn submit(&mut self, request: Request) -> httpstream::ChainId {
        self.engine.submit(request, note)
    }

    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Turns until `is_done`, or panics if that takes too long.
    pub fn until(&mut self, what: &str, mut is_done: impl FnMut(&Engine<Log>, &Log) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_done(&self.engine, &self.log) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "gave up after {PATIENCE:?}, waiting for: {what}; {:?} {:?}",
                self.engine.stats(),
                self.log
            );
            let wait = left.min(Duration::from_millis(50));
            self.engine.turn(&mut self.log, Some(wait)).unwrap();
        }
    }

    /// Turns until the log has this many replies.
    pub fn replies(&mut self, count: usize) {
        self.until("replies", |_, log| log.replies.len() >= count);
        assert_eq!(self.log.replies.len(), count);
    }

    /// Sends a request and waits for its reply.
    pub fn fetch(&mut self, request: Request) -> Result<Got, Error> {
        let before = self.log.replies.len();
        self.submit(request);
        self.replies(before + 1);
        self.log.replies.pop().unwrap()
    }

    pub fn fetch_ok(&mut self, request: Request) -> Got {
        self.fetch(request).unwrap()
    }

    pub fn fetch_err(&mut self, request: Request) -> Error {
        self.fetch(request).unwrap_err()
    }

    /// Turns a few times, to handle what is already under way.
    pub fn quiet(&mut self) {
        for _ in 0..5 {
            self.engine
                .turn(&mut self.log, Some(Duration::from_millis(1)))
                .unwrap();
        }
    }

    /// Checks that no chain, link or timer is left.
    pub fn assert_empty(&mut self) {
        self.engine.close_idle();
        self.quiet();
        assert_eq!(self.engine.pending(), 0);
        let stats = self.stats();
        let left = (
            stats.links_open,
            stats.in_flight,
            stats.queued,
            stats.delayed,
            stats.paused,
        );
        assert_eq!(left, (0, 0, 0, 0, 0), "{stats:?}");
        assert_eq!(self.engine.next_deadline(), None, "a timer is left");
    }
}

/// A readback that records its calls, and behaves as its fields say.
pub struct Script {
    pub head: Flow,
    /// The results of `on_data`, one after another; then `Stream`.
    pub data: VecDeque<Flow>,
    pub cancel_in: Option<&'static str>,
    pub panic_in: Option<&'static str>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            head: Flow::Stream,
            data: VecDeque::new(),
            cancel_in: None,
            panic_in: None,
        }
    }
}

impl Script {
    fn act(&self, at: &str, log: &mut Log, cx: &mut Context<'_, Log>) {
        if self.panic_in == Some(at) {
            panic!("on purpose, in {at}");
        }
        if self.cancel_in == Some(at) {
            let id = cx.id();
            let (first, second) = (cx.cancel(id), cx.cancel(id));
            log.notes.push(format!("cancel {first} {second}"));
        }
    }
}

impl Readback<Log> for Script {
    fn on_interim(&mut self, log: &mut Log, head: &Response<'_>, cx: &mut Context<'_, Log>) {
        log.notes
            .push(format!("interim {}", head.status().as_u16()));
        self.act("interim", log, cx);
    }

    fn on_head(&mut self, log: &mut Log, head: &Response<'_>, cx: &mut Context<'_, Log>) -> Flow {
        log.notes.push(format!("head {}", head.status().as_u16()));
        self.act("head", log, cx);
        self.head
    }

    fn on_data(&mut self, log: &mut Log, data: &[u8], cx: &mut Context<'_, Log>) -> Flow {
        let text = String::from_utf8_lossy(data);
        match log.notes.last_mut() {
            Some(last) if last.starts_with("data ") && self.data.is_empty() => last.push_str(&text),
            _ => log.notes.push(format!("data {text}")),
        }
        self.act("data", log, cx);
        self.data.pop_front().unwrap_or(Flow::Stream)
    }

    fn on_reply(
        &mut self,
        log: &mut Log,
        reply: Reply<'_>,
        cx: &mut Context<'_, Log>,
    ) -> Next<Log> {
        let was_ok = reply.is_ok();
        log.replies.push(reply.map(Got::of));
        self.act(if was_ok { "reply" } else { "error" }, log, cx);
        Next::done()
    }
}

/// Whether a closed connection may cause this socket error.
pub fn is_closed(kind: IoKind) -> bool {
    matches!(
        kind,
        IoKind::ConnectionReset | IoKind::BrokenPipe | IoKind::UnexpectedEof
    )
}
