//! The server of the conversation: it answers each step according to the script. It uses only the
//! standard library, with a thread for each connection.
//!
//! The path of a request, `/CHAIN/STEP`, selects the step. There are other paths: `/plain`, a small
//! response for measurements; `/beat`, the same; `/flood`, more than the sockets' buffers hold;
//! `/held/MS`, a response after that many milliseconds.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::script::{Act, CHAINS, CHUNK, HOLD, Place, STEPS, TRUNCATED_AT};

/// Maximum number of concurrent connections; further ones are closed.
const MAX_CONNECTIONS: usize = 512;
/// A connection that neither reads nor writes for this long is closed.
const SILENCE: Duration = Duration::from_secs(90);

/// The server, which runs until the process ends. It serves one conversation at a time.
pub(crate) struct Server {
    /// The address on which it listens.
    pub(crate) addr: SocketAddr,
    /// An address that refuses connections, see [`nobodys_port`].
    pub(crate) refused: SocketAddr,
    _taken: (TcpStream, TcpStream),
}

impl Server {
    pub(crate) fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let (taken, refused) = nobodys_port()?;
        let hall = Arc::new(Hall::default());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if hall.open.load(Ordering::Relaxed) < MAX_CONNECTIONS {
                    Hall::seat(&hall, stream);
                }
            }
        });
        Ok(Self {
            addr,
            refused,
            _taken: taken,
        })
    }
}

/// Returns a port that refuses connections and stays reserved: it is our end of a connection.
fn nobodys_port() -> io::Result<((TcpStream, TcpStream), SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let (theirs, _) = listener.accept()?;
    let port = ours.local_addr()?;
    Ok(((ours, theirs), port))
}

/// The state that the connections share.
#[derive(Default)]
struct Hall {
    open: AtomicUsize,
    known: Mutex<Known>,
    changed: Condvar,
}

#[derive(Default)]
struct Known {
    /// Steps that got 503, and not 200 yet.
    refused: HashSet<Place>,
    /// Held steps whose partner has not been answered.
    held: HashSet<Place>,
}

impl Hall {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a connection on a thread of its own.
    fn seat(hall: &Arc<Self>, stream: TcpStream) {
        let guest = Guest::new(hall, stream);
        let thread = thread::Builder::new().stack_size(128 * 1024);
        // If no thread can be spawned, the guest is dropped, which closes the connection.
        let _ = thread.spawn(move || guest.serve());
    }
}

/// One connection.
struct Guest {
    hall: Arc<Hall>,
    stream: BufReader<TcpStream>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.hall.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a connection stays open.
#[derive(PartialEq, Eq)]
enum After {
    Keep,
    Close,
}

struct Seen {
    method: String,
    path: String,
    body: Vec<u8>,
}

impl Guest {
    fn new(hall: &Arc<Hall>, stream: TcpStream) -> Self {
        hall.open.fetch_add(1, Ordering::Relaxed);
        Self {
            hall: Arc::clone(hall),
            stream: BufReader::new(stream),
        }
    }

    /// Serves requests until the connection ends. An error means that the client closed it, which
    /// need not be reported.
    fn serve(mut self) -> io::Result<()> {
        let stream = self.stream.get_ref();
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        while let Some(seen) = self.read_request()? {
            if self.answer(&seen)? == After::Close {
                break;
            }
        }
        Ok(())
    }

    /// Reads a request; `None` means that the client has closed the connection. Requests are read
    /// completely, because closing a socket with unread data resets the connection.
    fn read_request(&mut self) -> io::Result<Option<Seen>> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let mut words = line.split(' ').map(str::to_owned);
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return Ok(None);
        };
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Some(Seen { method, path, body }))
    }

    fn answer(&mut self, seen: &Seen) -> io::Result<After> {
        let parts: Vec<&str> = seen.path.split('/').skip(1).collect();
        match (parts.as_slice(), parts.last().map(|part| part.parse())) {
            (["plain" | "beat"], _) => self.send(whole("200 OK", "", &[b'x'; 128])),
            (["flood"], _) => self.flood(),
            (["held", _], Some(Ok(ms))) => self.hold(Duration::from_millis(ms)),
            ([chain, _], Some(Ok(step))) => match chain.parse() {
                Ok(chain) if chain < CHAINS && step < STEPS as u64 => {
                    let step = step as usize;
                    self.play(Place { chain, step }, seen)
                }
                _ => self.send(whole("400 Bad Request", "", b"")),
            },
            _ => self.send(whole("400 Bad Request", "", b"")),
        }
    }

    /// Answers a step.
    fn play(&mut self, place: Place, seen: &Seen) -> io::Result<After> {
        let body = place.body();
        let ok = || whole("200 OK", "", &body);
        match place.act() {
            // The follow-on of `Elsewhere` has a body, too.
            Act::Echo | Act::Elsewhere if !seen.body.is_empty() => {
                self.send(whole("200 OK", "", &seen.body))
            }
            Act::Echo => self.send(whole("411 Length Required", "", b"")),
            Act::Whole | Act::Elsewhere | Act::Large | Act::Abort | Act::Paused | Act::TooLarge => {
                self.send(ok())
            }
            Act::Chunked => self.send(chunked(place.step, &body)),
            Act::Pieces => {
                let wire = ok();
                for piece in wire.chunks(wire.len().div_ceil(5)) {
                    thread::sleep(Duration::from_millis(1));
                    self.send(piece.to_vec())?;
                }
                Ok(After::Keep)
            }
            Act::Closing => self.send_last(whole("200 OK", "Connection: close\r\n", &body)),
            Act::UntilClose => self.send_last([b"HTTP/1.1 200 OK\r\n\r\n", &*body].concat()),
            Act::Interim => {
                let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n";
                self.send([hints, hints, &*ok()].concat())
            }
            Act::NoContent => self.send(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
            Act::NotModified => self.send(headless("304 Not Modified", body.len())),
            Act::Head if seen.method == "HEAD" => self.send(headless("200 OK", body.len())),
            Act::Head => self.send(whole("405 Method Not Allowed", "", b"")),
            Act::NotFound => self.send(whole("404 Not Found", "", &body)),
            Act::Busy => match self.is_refused(place) {
                true => self.send(whole("503 Service Unavailable", "", b"")),
                false => self.send(ok()),
            },
            Act::Cancelled if place.is_held() => {
                self.hall.known().held.insert(place);
                self.hall.changed.notify_all();
                self.hold(HOLD)
            }
            Act::Cancelled => match self.wait_for(place.partner()) {
                true => self.send(ok()),
                false => self.send(whole("504 Gateway Timeout", "", b"")),
            },
            Act::Malformed => self.send_last(b"HTTP/1.1 2x0 OK\r\n\r\n".to_vec()),
            Act::Truncated => {
                let left_out = body.len() - TRUNCATED_AT;
                let mut wire = ok();
                wire.truncate(wire.len() - left_out);
                self.send_last(wire)
            }
            Act::TruncatedChunked => self.send_last([CHUNKED, &*chunk(&body[..CHUNK])].concat()),
            Act::Closed | Act::ClosedPost => Ok(After::Close),
            Act::Silence => self.hold(HOLD),
            // This request is never sent here.
            Act::Refused => self.send(whole("400 Bad Request", "", b"")),
        }
    }

    fn send(&mut self, wire: Vec<u8>) -> io::Result<After> {
        self.stream.get_mut().write_all(&wire)?;
        Ok(After::Keep)
    }

    /// Sends more than the socket buffers of both ends hold.
    fn flood(&mut self) -> io::Result<After> {
        let pieces = 1024;
        let piece = [b'x'; 16 * 1024];
        let length = pieces * piece.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        self.send(head.into_bytes())?;
        for _ in 0..pieces {
            self.stream.get_mut().write_all(&piece)?;
        }
        Ok(After::Keep)
    }

    fn send_last(&mut self, wire: Vec<u8>) -> io::Result<After> {
        self.send(wire)?;
        Ok(After::Close)
    }

    /// Answers after `time`, unless the client closes the connection before.
    fn hold(&mut self, time: Duration) -> io::Result<After> {
        let stream = self.stream.get_mut();
        stream.set_read_timeout(Some(time.max(Duration::from_millis(1))))?;
        match stream.read(&mut [0]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(_) => return Ok(After::Close),
            Err(error) => return Err(error),
        }
        stream.set_read_timeout(Some(SILENCE))?;
        self.send(whole("200 OK", "", b"held"))
    }

    /// Returns whether to refuse this request for now, which is true every other time.
    fn is_refused(&self, place: Place) -> bool {
        let mut known = self.hall.known();
        let is_new = known.refused.insert(place);
        if !is_new {
            known.refused.remove(&place);
        }
        is_new
    }

    /// Waits until `place` is held. Returns false after a timeout.
    fn wait_for(&self, place: Place) -> bool {
        let is_missing = |known: &mut Known| !known.held.contains(&place);
        let known = self.hall.known();
        let waited = self
            .hall
            .changed
            .wait_timeout_while(known, HOLD, is_missing);
        let (mut known, _) = waited.unwrap_or_else(PoisonError::into_inner);
        known.held.remove(&place)
    }
}

fn whole(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{fields}\r\n");
    [head.as_bytes(), body].concat()
}

/// Returns a response with a Content-Length but no body.
fn headless(status: &str, length: usize) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Returns a chunked response, whose trailer is the number of the step.
fn chunked(step: usize, body: &[u8]) -> Vec<u8> {
    let chunks: Vec<u8> = body.chunks(CHUNK).flat_map(chunk).collect();
    let end = format!("0\r\nX-Step: {step}\r\n\r\n");
    [CHUNKED, &*chunks, end.as_bytes()].concat()
}
