//! The server for all measurements: prebuilt answers, one core, and as little work as possible, so
//! that the server is not what is measured.
//!
//! It answers all requests of one read in one write, and recognizes a request by its path alone.
//! Bytes that it cannot send wait as slices of the prebuilt answers; nothing is copied. It ends
//! with its standard input, and so with the process that started it.
//!
//! | path | answer |
//! |---|---|
//! | `/small` | 200, six fields, 128 bytes: 357 on the wire |
//! | `/chunked` | the same in three chunks |
//! | `/fields` | 30 fields, 128 bytes |
//! | `/large`, `/huge` | 64 KiB, 1 MiB |
//! | `/close` | as small; then the connection is closed |
//! | `/held` | none, until `/release` |
//! | `/holding` | how many requests are held |
//! | `/release` | an empty one; whatever is held is answered as small |

mod transfers;

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde::{Deserialize, Serialize};
use slab::Slab;
use socket2::{Domain, Socket, Type};

use crate::machine;

pub(crate) const ASKED: &str = "--server";

/// The number of loopback addresses that it listens on, so that more connections can be held than
/// one pair of addresses has ports.
const ADDRESSES: u8 = 8;
const BACKLOG: i32 = 4096;
/// No whole run takes this long.
const LIFE_SECONDS: u32 = 2 * 60 * 60;

/// The server's addresses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reached {
    /// One port of several loopback addresses.
    pub(crate) plain: Vec<SocketAddr>,
    pub(crate) tls: SocketAddr,
    /// The server of large bodies.
    pub(crate) transfers: SocketAddr,
    /// The certificate of the https server, in PEM.
    pub(crate) root_pem: String,
}

/// A server in a process of its own, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) reached: Reached,
}

impl Server {
    /// Starts this program again as a server on that core.
    pub(crate) fn start(core: usize) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([ASKED, &core.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = child.stdout.take().ok_or("the server has no output")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        let reached = serde_json::from_str(&line)
            .map_err(|error| format!("the server did not report its address: {error}"))?;
        Ok(Self { child, reached })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Serves on that core until standard input ends.
pub(crate) fn run(core: &str) -> Result<(), Box<dyn Error>> {
    machine::end_with_parent(LIFE_SECONDS);
    machine::pin(core.parse()?)?;
    let reached = start_threads()?;
    println!("{}", serde_json::to_string(&reached)?);
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Serves on three threads of this process, one plain, one with TLS and one for transfers, for as
/// long as the process lives.
pub(crate) fn start_threads() -> Result<Reached, Box<dyn Error>> {
    let first = listen([127, 0, 0, 1].into(), 0)?;
    let port = first.local_addr()?.port();
    let mut listeners = vec![first];
    for last in 2..=ADDRESSES {
        listeners.push(listen([127, 0, 0, last].into(), port)?);
    }
    let plain = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<io::Result<_>>()?;
    let secure = listen([127, 0, 0, 1].into(), 0)?;
    let tls = secure.local_addr()?;
    let bulk = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let transfers = bulk.local_addr()?;
    let (config, root_pem) = tls_config()?;
    let config = Arc::new(config);
    std::thread::spawn(|| serve(listeners, |socket| socket));
    std::thread::spawn(move || transfers::serve(&bulk));
    std::thread::spawn(move || {
        serve(vec![secure], move |socket| {
            let tls =
                ServerConnection::new(Arc::clone(&config)).expect("the configuration is valid");
            StreamOwned::new(tls, socket)
        })
    });
    Ok(Reached {
        plain,
        tls,
        transfers,
        root_pem,
    })
}

fn listen(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((address, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn tls_config() -> Result<(ServerConfig, String), Box<dyn Error>> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?.self_signed(&key)?;
    let chain = vec![certificate.der().clone()];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Every handshake is a full one, and only answers follow it.
    config.send_tls13_tickets = 0;
    Ok((config, certificate.pem()))
}

/// The last field of most answers; with it, `/small` is 357 bytes.
const SIXTH: &str =
    "Set-Cookie: ticket=0123456789abcdef0123456789abcdef; Path=/; HttpOnly; Secure\r\n";

/// The answers, by path. They live as long as the process, so that unsent bytes can be slices of
/// them.
#[derive(Clone, Copy)]
struct Answers {
    small: &'static [u8],
    chunked: &'static [u8],
    fields: &'static [u8],
    large: &'static [u8],
    huge: &'static [u8],
    close: &'static [u8],
    empty: &'static [u8],
    unknown: &'static [u8],
}

/// What a request asks for.
enum Asked {
    Answer(&'static [u8]),
    AnswerAndClose(&'static [u8]),
    Hold,
    CountHeld,
    Release,
}

impl Answers {
    fn new() -> Self {
        let many = (0..24)
            .map(|i| format!("X-Field-{i:02}: some value of a usual length\r\n"))
            .collect::<String>();
        let mut chunked = head("Transfer-Encoding: chunked", SIXTH).into_bytes();
        for size in [40, 80, 8] {
            chunked.extend_from_slice(format!("{size:x}\r\n{}\r\n", "x".repeat(size)).as_bytes());
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        Self {
            small: sized(128, SIXTH),
            chunked: chunked.leak(),
            fields: sized(128, &format!("{SIXTH}{many}")),
            large: sized(64 << 10, SIXTH),
            huge: sized(1 << 20, SIXTH),
            close: sized(128, "Connection: close\r\n"),
            empty: sized(0, ""),
            unknown: b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        }
    }

    /// Returns what `request`, a complete head, asks for. Only its method, GET, and its path are
    /// checked.
    fn to(&self, request: &[u8]) -> Asked {
        let Some(target) = request.strip_prefix(b"GET /") else {
            return Asked::AnswerAndClose(self.unknown);
        };
        let path = target.split(|&byte| byte == b' ').next();
        match path.unwrap_or(target) {
            b"small" => Asked::Answer(self.small),
            b"chunked" => Asked::Answer(self.chunked),
            b"fields" => Asked::Answer(self.fields),
            b"large" => Asked::Answer(self.large),
            b"huge" => Asked::Answer(self.huge),
            b"close" => Asked::AnswerAndClose(self.close),
            b"held" => Asked::Hold,
            b"holding" => Asked::CountHeld,
            b"release" => Asked::Release,
            _ => Asked::Answer(self.unknown),
        }
    }
}

fn head(framing: &str, more: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nServer: loopback/1.0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain\r\n\
         {framing}\r\nCache-Control: no-cache\r\n{more}\r\n"
    )
}

fn sized(length: usize, more: &str) -> &'static [u8] {
    let mut answer = head(&format!("Content-Length: {length}"), more).into_bytes();
    answer.resize(answer.len() + length, b'x');
    answer.leak()
}

/// State that the connections share.
struct Hall {
    answers: Answers,
    held: usize,
    /// Whether all held requests are answered at the end of the turn.
    release: bool,
    buffer: Vec<u8>,
    /// Answers to the requests of one read.
    out: Vec<IoSlice<'static>>,
}

impl Hall {
    fn new() -> Self {
        Self {
            answers: Answers::new(),
            held: 0,
            release: false,
            buffer: vec![0; 64 << 10],
            out: Vec::new(),
        }
    }
}

struct Peer<S> {
    socket: S,
    /// The beginning of an incomplete request.
    unread: Vec<u8>,
    unsent: VecDeque<IoSlice<'static>>,
    held: usize,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    /// Closes when everything has been sent.
    Close,
}

/// Serves forever.
fn serve<S: Read + Write>(
    mut listeners: Vec<TcpListener>,
    wrap: impl Fn(TcpStream) -> S,
) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut peers: Slab<Peer<S>> = Slab::new();
    let mut hall = Hall::new();
    // Tokens count down from the top for listeners, and up from zero for peers.
    for (i, listener) in listeners.iter_mut().enumerate() {
        let token = Token(usize::MAX - i - 1);
        poll.registry()
            .register(listener, token, Interest::READABLE)?;
    }
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            let key = event.token().0;
            if let Some(listener) = listeners.get(usize::MAX - key - 1) {
                while let Ok((mut socket, _)) = listener.accept() {
                    let entry = peers.vacant_entry();
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry()
                        .register(&mut socket, Token(entry.key()), interest)?;
                    entry.insert(Peer::new(wrap(socket)));
                }
                continue;
            }
            let ended = peers
                .get_mut(key)
                .is_some_and(|peer| peer.go_on(&mut hall).is_err());
            if ended {
                hall.held -= peers.remove(key).held;
            }
        }
        if std::mem::take(&mut hall.release) {
            release(&mut peers, &mut hall);
        }
    }
}

/// Answers all held requests.
fn release<S: Read + Write>(peers: &mut Slab<Peer<S>>, hall: &mut Hall) {
    hall.held = 0;
    peers.retain(|_, peer| {
        let held = std::mem::take(&mut peer.held);
        let answers = std::iter::repeat_n(IoSlice::new(hall.answers.small), held);
        peer.unsent.extend(answers);
        peer.send().is_ok()
    });
}

impl<S: Read + Write> Peer<S> {
    fn new(socket: S) -> Self {
        Self {
            socket,
            unread: Vec::new(),
            unsent: VecDeque::new(),
            held: 0,
            fate: Fate::Open,
        }
    }

    /// Writes and reads as much as possible. An error ends the connection, even if it only means
    /// that the connection should be closed.
    fn go_on(&mut self, hall: &mut Hall) -> io::Result<()> {
        loop {
            self.send()?;
            if !self.unsent.is_empty() {
                return Ok(());
            }
            let n = match self.socket.read(&mut hall.buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                n => n?,
            };
            self.take(n, hall);
            match hall.out[..] {
                [] => {}
                // Not vectored, which would cost slightly more.
                [answer] => {
                    hall.out.clear();
                    let sent = or_none(self.socket.write(&answer))?;
                    self.keep_unsent([answer], sent);
                }
                _ => {
                    let sent = or_none(self.socket.write_vectored(&hall.out))?;
                    self.keep_unsent(hall.out.drain(..), sent);
                }
            }
            if n < hall.buffer.len() && self.unsent.is_empty() && self.fate == Fate::Open {
                return Ok(());
            }
        }
    }

    /// Takes the requests in the first `n` bytes of the buffer, and puts their answers into
    /// `hall.out`.
    fn take(&mut self, n: usize, hall: &mut Hall) {
        // The buffer is taken out meanwhile, because `hall` is needed to hold and count requests.
        let buffer = std::mem::take(&mut hall.buffer);
        if self.unread.is_empty() {
            let taken = self.take_requests(&buffer[..n], hall);
            self.unread.extend_from_slice(&buffer[taken..n]);
        } else {
            let mut unread = std::mem::take(&mut self.unread);
            unread.extend_from_slice(&buffer[..n]);
            let taken = self.take_requests(&unread, hall);
            unread.drain(..taken);
            self.unread = unread;
        }
        hall.buffer = buffer;
    }

    /// Returns the length of the complete requests.
    fn take_requests(&mut self, bytes: &[u8], hall: &mut Hall) -> usize {
        let mut taken = 0;
        while self.fate == Fate::Open
            && let Some(len) = memchr::memmem::find(&bytes[taken..], b"\r\n\r\n")
        {
            let request = &bytes[taken..taken + len];
            taken += len + 4;
            let answer = match hall.answers.to(request) {
                Asked::Answer(answer) => answer,
                Asked::AnswerAndClose(answer) => {
                    self.fate = Fate::Close;
                    answer
                }
                Asked::Hold => {
                    self.held += 1;
                    hall.held += 1;
                    continue;
                }
                Asked::CountHeld => counted(hall.held),
                Asked::Release => {
                    hall.release = true;
                    hall.answers.empty
                }
            };
            hall.out.push(IoSlice::new(answer));
        }
        taken
    }

    fn send(&mut self) -> io::Result<()> {
        while let Some(&first) = self.unsent.front() {
            let sent = or_none(self.socket.write(&first))?;
            if sent == 0 {
                return Ok(());
            }
            self.unsent.pop_front();
            self.keep_front(first, sent);
        }
        match self.fate {
            // Bytes that a TLS session has taken, but the socket has not.
            Fate::Open => match self.socket.flush() {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                _ => Ok(()),
            },
            Fate::Close => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    fn keep_front(&mut self, mut slice: IoSlice<'static>, sent: usize) {
        if sent < slice.len() {
            slice.advance(sent);
            self.unsent.push_front(slice);
        }
    }

    /// Keeps the rest of `slices` after their first `sent` bytes.
    fn keep_unsent(&mut self, slices: impl IntoIterator<Item = IoSlice<'static>>, mut sent: usize) {
        for mut slice in slices {
            let of_this = sent.min(slice.len());
            sent -= of_this;
            if of_this < slice.len() {
                slice.advance(of_this);
                self.unsent.push_back(slice);
            }
        }
    }
}

/// This answer is needed only a few times in a run, so it may be leaked.
fn counted(held: usize) -> &'static [u8] {
    let body = held.to_string();
    let head = head(&format!("Content-Length: {}", body.len()), "");
    (head + &body).into_bytes().leak()
}

fn or_none(sent: io::Result<usize>) -> io::Result<usize> {
    match sent {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        sent => sent,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as BlockingStream;
    use std::time::Duration;

    use super::*;

    fn connect(reached: &Reached) -> BlockingStream {
        let socket = BlockingStream::connect(reached.plain[1]).expect("the server listens");
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a read timeout");
        socket
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: server\r\n\r\n")
    }

    fn receive(socket: &mut BlockingStream, length: usize) -> Vec<u8> {
        let mut answer = vec![0; length];
        socket.read_exact(&mut answer).expect("a whole answer");
        answer
    }

    #[test]
    fn answers_are_as_long_as_is_said() {
        let reached = start_threads().expect("a server");
        let answers = Answers::new();
        assert_eq!(answers.small.len(), 357);
        for (path, answer) in [
            ("/small", answers.small),
            ("/chunked", answers.chunked),
            ("/fields", answers.fields),
            ("/large", answers.large),
            ("/huge", answers.huge),
            ("/nothing", answers.unknown),
        ] {
            let mut socket = connect(&reached);
            socket
                .write_all(get(path).as_bytes())
                .expect("the request is sent");
            assert!(receive(&mut socket, answer.len()) == answer, "{path}");
        }
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut fields);
        response.parse(answers.fields).expect("valid HTTP");
        assert_eq!(response.headers.len(), 30);
    }

    /// A socket that reads prepared bytes, and takes `room` bytes of each write.
    struct Wire {
        reads: VecDeque<Vec<u8>>,
        written: Vec<u8>,
        writes: usize,
        room: usize,
    }

    impl Read for Wire {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let piece = self.reads.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
            buffer[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        }
    }

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.room);
            self.written.extend_from_slice(&bytes[..n]);
            self.writes += 1;
            Ok(n)
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            self.write(&all)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn peer(reads: &[&[u8]], room: usize) -> Peer<Wire> {
        Peer::new(Wire {
            reads: reads.iter().map(|piece| piece.to_vec()).collect(),
            written: Vec::new(),
            writes: 0,
            room,
        })
    }

    #[test]
    fn pipelined_requests_are_answered_in_order_wherever_they_are_split() {
        let mut hall = Hall::new();
        let answers = hall.answers;
        let requests = get("/small") + &get("/chunked") + &get("/fields");
        let expected = [answers.small, answers.chunked, answers.fields].concat();
        for split in 0..=requests.len() {
            let (first, second) = requests.as_bytes().split_at(split);
            for room in [usize::MAX, 100] {
                let mut peer = peer(&[first, second], room);
                // As many events as there may be reads.
                for _ in 0..3 {
                    let _ = peer.go_on(&mut hall);
                }
                assert!(
                    peer.socket.written == expected,
                    "split at {split}, {room} a write"
                );
            }
        }
    }

    #[test]
    fn requests_of_one_read_are_answered_in_one_write() {
        let mut hall = Hall::new();
        let requests = get("/small").repeat(16);
        let mut peer = peer(&[requests.as_bytes()], usize::MAX);
        peer.go_on(&mut hall).expect("the connection stays open");
        assert_eq!(peer.socket.writes, 1);
        assert!(peer.socket.written == hall.answers.small.repeat(16));
    }

    #[test]
    fn what_does_not_fit_into_a_socket_waits() {
        let reached = start_threads().expect("a server");
        let huge = Answers::new().huge;
        let mut socket = connect(&reached);
        // 64 MiB are more than any socket's buffers.
        let many = get("/huge").repeat(64);
        socket
            .write_all(many.as_bytes())
            .expect("the requests are sent");
        for i in 0..64 {
            assert!(receive(&mut socket, huge.len()) == huge, "{i}");
        }
    }

    #[test]
    fn a_connection_is_closed_after_its_answer() {
        let reached = start_threads().expect("a server");
        let mut socket = connect(&reached);
        socket
            .write_all(get("/close").as_bytes())
            .expect("the request is sent");
        let mut answer = Vec::new();
        socket
            .read_to_end(&mut answer)
            .expect("the connection is closed");
        assert!(answer == Answers::new().close);
    }

    #[test]
    fn what_is_held_is_counted_and_let_go() {
        let reached = start_threads().expect("a server");
        let answers = Answers::new();
        let mut control = connect(&reached);
        let mut held: Vec<BlockingStream> = (0..10).map(|_| connect(&reached)).collect();
        for socket in &mut held {
            // Two on each connection, since they may be pipelined.
            let polls = get("/held").repeat(2);
            socket
                .write_all(polls.as_bytes())
                .expect("the polls are sent");
        }
        wait_for_held(&mut control, 20);
        // One client goes, and none of its requests is held any more.
        held.pop();
        wait_for_held(&mut control, 18);
        control
            .write_all(get("/release").as_bytes())
            .expect("the request is sent");
        receive(&mut control, answers.empty.len());
        for socket in &mut held {
            let answer = receive(socket, 2 * answers.small.len());
            assert!(answer == answers.small.repeat(2));
        }
        wait_for_held(&mut control, 0);
    }

    /// Fails if the count is not reached.
    fn wait_for_held(control: &mut BlockingStream, count: usize) {
        let expected = counted(count);
        for _ in 0..2000 {
            control
                .write_all(get("/holding").as_bytes())
                .expect("the request is sent");
            let mut answer = [0; 1024];
            let n = control.read(&mut answer).expect("the server answers");
            if &answer[..n] == expected {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the server never holds {count}");
    }

    #[test]
    fn https_shows_the_certificate_that_it_names() {
        let reached = start_threads().expect("a server");
        let tls = httpstream::tls::Tls::with_roots_pem(reached.root_pem.as_bytes());
        let mut config = httpstream::Config::default();
        config.route.tls = tls.expect("a certificate");
        let mut engine = httpstream::Engine::with_config(config).expect("an engine");
        let request = httpstream::Request::get(format!("https://{}/small", reached.tls)).build();
        engine.submit(
            request.expect("a request"),
            |length: &mut usize, reply, _| {
                *length = reply.expect("an answer").body().len();
                httpstream::Next::done()
            },
        );
        let mut length = 0;
        engine.run(&mut length).expect("the run succeeds");
        assert_eq!(length, 128);
    }
}
