//! A server to measure against: prebuilt responses, one thread, and as little work as possible.
//!
//! A program whose own heap, system calls or instructions are counted runs the server in a separate
//! process: [`Server::start`] starts the same program once more, and [`serve_if_asked`] makes that
//! second process a server. It exits when its standard input ends, and therefore with its parent.

#![allow(dead_code, reason = "not every program uses every part")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

const ASKED: &str = "--serve";

/// A server in a separate process, which ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Server {
    /// Starts this program once more, as a server.
    pub(crate) fn start() -> io::Result<Self> {
        Self::start_as(ASKED).map(|(server, _)| server)
    }

    /// Starts this program once more, with `asked` as its argument. Also returns the rest of its
    /// output, which follows the line with the address.
    pub(crate) fn start_as(asked: &str) -> io::Result<(Self, BufReader<ChildStdout>)> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(asked)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let no_address = || io::Error::other("the server did not print its address");
        let mut lines = BufReader::new(child.stdout.take().ok_or_else(no_address)?);
        let mut line = String::new();
        lines.read_line(&mut line)?;
        let addr = line.trim().parse().map_err(|_| no_address())?;
        Ok((Self { child, addr }, lines))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// If this process was started as a server, serves until standard input ends and then exits.
/// Otherwise returns at once.
pub(crate) fn serve_if_asked() {
    if std::env::args().nth(1).as_deref() != Some(ASKED) {
        return;
    }
    serve_on_a_thread("", |socket| socket);
}

/// Prints the server's address and then `said`, serves on a thread until standard input ends, and
/// exits.
pub(crate) fn serve_on_a_thread<S: Read + Write>(
    said: &str,
    wrap: impl Fn(TcpStream) -> S + Send + 'static,
) {
    let listener = listen().expect("a port on loopback");
    println!("{}", listener.local_addr().expect("the listener is bound"));
    print!("{said}");
    io::stdout().flush().expect("the parent reads stdout");
    std::thread::spawn(move || serve_through(listener, wrap).expect("the server can poll"));
    let _ = io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0);
}

pub(crate) fn listen() -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// The prebuilt responses, one for each path.
struct Answers {
    small: Vec<u8>,
    fields: Vec<u8>,
    chunked: Vec<u8>,
    large: Vec<u8>,
    huge: Vec<u8>,
    closing: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        let head = |framing: &str, more: &str| {
            format!(
                "HTTP/1.1 200 OK\r\nServer: loopback/1.0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain\r\n\
                 {framing}\r\nCache-Control: no-cache\r\n{more}\r\n"
            )
        };
        let sized = |length: usize, more: &str| {
            let head = head(&format!("Content-Length: {length}"), more);
            [head.as_bytes(), &vec![b'x'; length][..]].concat()
        };
        let many = (0..24)
            .map(|i| format!("X-Field-{i:02}: some value of a usual length\r\n"))
            .collect::<String>();
        let mut chunked = head("Transfer-Encoding: chunked", "Vary: Accept\r\n").into_bytes();
        for size in [40, 80, 8] {
            write!(chunked, "{size:x}\r\n{}\r\n", "x".repeat(size))
                .expect("a Vec accepts any data");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        Self {
            small: sized(128, "Vary: Accept\r\n"),
            fields: sized(128, &format!("Vary: Accept\r\n{many}")),
            chunked,
            large: sized(64 * 1024, "Vary: Accept\r\n"),
            huge: sized(1024 * 1024, "Vary: Accept\r\n"),
            closing: sized(128, "Connection: close\r\n"),
        }
    }

    /// Returns the response to `request`. `None` means that it is never answered, like a long poll
    /// that is held open.
    fn to(&self, request: &[u8]) -> Option<&[u8]> {
        let path = request.split(|&b| b == b' ').nth(1)?;
        match path {
            b"/small" => Some(&self.small),
            b"/fields" => Some(&self.fields),
            b"/chunked" => Some(&self.chunked),
            b"/large" => Some(&self.large),
            b"/huge" => Some(&self.huge),
            b"/close" => Some(&self.closing),
            _ => None,
        }
    }
}

struct Peer<S> {
    socket: S,
    /// The beginning of a request that has not arrived completely.
    unread: Vec<u8>,
    /// What the socket has not yet accepted of the responses.
    unsent: Vec<u8>,
}

/// Serves forever. Requests have no body: each ends with its head.
pub(crate) fn serve(listener: TcpListener) -> io::Result<()> {
    serve_through(listener, |socket| socket)
}

/// Serves like [`serve`]. `wrap` is called with each connection and returns the stream to read and
/// write instead, such as a TLS stream.
fn serve_through<S: Read + Write>(
    mut listener: TcpListener,
    wrap: impl Fn(TcpStream) -> S,
) -> io::Result<()> {
    const LISTENER: Token = Token(usize::MAX);
    let answers = Answers::new();
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut peers = Slab::new();
    let mut buffer = vec![0; 16 * 1024];
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut socket, _)) = listener.accept() {
                    let entry = peers.vacant_entry();
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry()
                        .register(&mut socket, Token(entry.key()), interest)?;
                    entry.insert(Peer {
                        socket: wrap(socket),
                        unread: Vec::new(),
                        unsent: Vec::new(),
                    });
                }
                continue;
            }
            let key = event.token().0;
            let ended = peers
                .get_mut(key)
                .is_some_and(|peer: &mut Peer<S>| peer.go_on(&answers, &mut buffer).is_err());
            if ended {
                peers.remove(key);
            }
        }
    }
}

impl<S: Read + Write> Peer<S> {
    /// Writes and reads until the socket would block. Returns an error if the connection is over,
    /// including when the peer has simply closed it.
    fn go_on(&mut self, answers: &Answers, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            if !self.unsent.is_empty() {
                let sent = match self.socket.write(&self.unsent) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    sent => sent?,
                };
                self.unsent.drain(..sent);
                continue;
            }
            let n = match self.socket.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                n => n?,
            };
            let unread = std::mem::take(&mut self.unread);
            let joined = (!unread.is_empty()).then(|| [&unread, &buffer[..n]].concat());
            let mut requests = joined.as_deref().unwrap_or(&buffer[..n]);
            let mut closes = false;
            // Pipelined requests that arrived together are answered together.
            while let Some(end) = requests.windows(4).position(|end| end == b"\r\n\r\n") {
                let (request, others) = requests.split_at(end + 4);
                let answer = answers.to(request).unwrap_or_default();
                self.unsent.extend_from_slice(answer);
                closes |= std::ptr::eq(answer, &*answers.closing);
                requests = others;
            }
            self.unread.extend_from_slice(requests);
            if !self.unsent.is_empty() {
                let sent = match self.socket.write(&self.unsent) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    sent => sent?,
                };
                self.unsent.drain(..sent);
            }
            if closes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if n < buffer.len() && self.unsent.is_empty() {
                return Ok(());
            }
        }
    }
}
