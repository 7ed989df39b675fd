//! One simulated connection: the state of the client's kernel, and the progress of the server.
//!
//! The client's end behaves like a TCP socket on Linux, including which call reports an error and
//! how often. It uses neither time nor randomness; [`World`](super::world::World) supplies both.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use mio::Token;

use super::reader::RequestReader;
use super::server::{Answer, Incoming};
use crate::net::Readiness;

/// Both ends of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) addr: SocketAddr,
    /// Whether the connection is for an `https` URL.
    pub(super) https: bool,
    pub(super) client: ClientEnd,
    pub(super) server: ServerEnd,
}

impl Connection {
    /// Returns whether it is established, and neither side has ended it.
    pub(super) fn stands(&self) -> bool {
        self.client.link == Link::Established && self.client.fd.is_some() && !self.server.ended
    }

    /// Returns whether every request that was sent has been answered, and every answer read.
    pub(super) fn is_at_rest(&self, now: Duration) -> bool {
        self.client.is_at_rest(now)
            && self.server.requests > 0
            && !self.server.has_switched
            && self.server.has_answered_all(now)
            && self.server.downlink <= now
    }
}

/// `Connecting -> Established -> Dead`; a failed attempt goes from `Connecting` to `Dead` directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Established,
    /// Reset, or never established. The error is reported once.
    Dead {
        error: Option<ErrorKind>,
    },
}

/// The client's socket.
#[derive(Debug)]
pub(super) struct ClientEnd {
    /// The file descriptor, until the socket is closed.
    pub(super) fd: Option<usize>,
    pub(super) poll: usize,
    pub(super) link: Link,
    pub(super) watch: Option<Watch>,
    /// The error of a send before the connection is established, which depends on the system.
    pub(super) early_send: ErrorKind,
    received: VecDeque<u8>,
    /// An end of file follows `received`.
    ended: bool,
    window: usize,
    /// Bytes that the server has sent and for which the window had no room.
    held_back: VecDeque<u8>,
    end_held_back: bool,
    pub(super) send_buffer: usize,
    /// Bytes in the send buffer that the server has not read.
    unsent: usize,
    /// A send found too little room, so an edge follows when there is more.
    starved: bool,
    /// When the last of the bytes on their way to the server arrives.
    pub(super) uplink: Duration,
    /// When the client last read, whether or not that returned anything.
    pub(super) read_at: Duration,
    /// Unsolicited data arrived while the connection was at rest, and has not been read.
    pub(super) strayed: bool,
}

/// A registration with a poll.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) token: Token,
    /// What has changed since the last event was fetched. If not empty, the socket is on the poll's
    /// list.
    pub(super) changed: Readiness,
}

/// The effect of a read on the receive window.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Window {
    Unchanged,
    /// There is room again for bytes that were held back.
    Opened,
}

impl ClientEnd {
    pub(super) fn new(fd: usize, poll: usize) -> Self {
        Self {
            fd: Some(fd),
            poll,
            link: Link::Connecting,
            watch: None,
            early_send: ErrorKind::WouldBlock,
            received: VecDeque::new(),
            ended: false,
            window: 1 << 20,
            held_back: VecDeque::new(),
            end_held_back: false,
            send_buffer: 256 << 10,
            unsent: 0,
            starved: false,
            uplink: Duration::ZERO,
            read_at: Duration::ZERO,
            strayed: false,
        }
    }

    /// Returns whether everything sent has arrived, and everything received has been read.
    fn is_at_rest(&self, now: Duration) -> bool {
        self.link == Link::Established
            && !self.ended
            && !self.has_unread()
            && self.unsent == 0
            && self.uplink <= now
    }

    pub(super) fn set_window(&mut self, bytes: usize) {
        self.window = bytes.max(1);
    }

    pub(super) fn has_unread(&self) -> bool {
        !self.received.is_empty() || !self.held_back.is_empty()
    }

    /// Returns the number of bytes that can be read immediately.
    pub(super) fn unread(&self) -> usize {
        self.received.len()
    }

    /// Returns what a poll would report now. As in the kernel's `tcp_poll`, a query that finds the
    /// send buffer full requests an edge for when it drains.
    pub(super) fn readiness(&mut self) -> Readiness {
        let readiness = self.peek_readiness();
        if self.link == Link::Established && !readiness.has(Readiness::WRITABLE) {
            self.starved = true;
        }
        readiness
    }

    pub(super) fn peek_readiness(&self) -> Readiness {
        let mut readiness = Readiness::NONE;
        match self.link {
            Link::Connecting => return readiness,
            Link::Established => {}
            Link::Dead { .. } => {
                return Readiness::READABLE
                    .with(Readiness::WRITABLE)
                    .with(Readiness::READ_CLOSED)
                    .with(Readiness::ERROR);
            }
        }
        if self.ended {
            readiness = Readiness::READABLE.with(Readiness::READ_CLOSED);
        } else if !self.received.is_empty() {
            readiness = Readiness::READABLE;
        }
        if self.has_room() {
            readiness.with(Readiness::WRITABLE)
        } else {
            readiness
        }
    }

    /// The kernel reports a socket as writable once a third of its send buffer is free. Otherwise
    /// every ACK would wake the process.
    fn has_room(&self) -> bool {
        (self.send_buffer - self.unsent) * 3 >= self.send_buffer
    }

    /// Completes the connection. Like the other methods here, it returns what has changed.
    pub(super) fn on_connected(&mut self) -> Readiness {
        self.link = Link::Established;
        Readiness::WRITABLE
    }

    /// Receives bytes, and the end of the connection after them if `ends`.
    pub(super) fn on_arrival(&mut self, bytes: &[u8], ends: bool) -> Readiness {
        if self.link != Link::Established || self.ended {
            return Readiness::NONE;
        }
        self.held_back.extend(bytes);
        self.end_held_back |= ends;
        self.on_window_opened()
    }

    /// Receives what was held back, as far as there is room.
    pub(super) fn on_window_opened(&mut self) -> Readiness {
        if self.link != Link::Established {
            return Readiness::NONE;
        }
        let room = self.window.saturating_sub(self.received.len());
        let taken = self.held_back.len().min(room);
        self.received.extend(self.held_back.drain(..taken));
        let mut changed = Readiness::NONE;
        if taken > 0 {
            changed = Readiness::READABLE;
        }
        if self.end_held_back && self.held_back.is_empty() {
            self.end_held_back = false;
            self.ended = true;
            changed = Readiness::READABLE.with(Readiness::READ_CLOSED);
        }
        changed
    }

    /// Receives a reset. Bytes that arrived earlier stay readable unless `discards`. After an end
    /// of file, the reset affects only sends.
    pub(super) fn on_reset(&mut self, discards: bool) -> Readiness {
        self.held_back.clear();
        self.end_held_back = false;
        if discards && !self.received.is_empty() {
            // The data before the end is lost, and the end with it: the client sees the error
            // instead.
            self.received.clear();
            self.ended = false;
        }
        let error = if self.ended {
            ErrorKind::BrokenPipe
        } else {
            ErrorKind::ConnectionReset
        };
        self.on_death(error)
    }

    /// Ends the connection with `error`, or fails the attempt to establish it.
    pub(super) fn on_death(&mut self, error: ErrorKind) -> Readiness {
        if let Link::Dead { .. } = self.link {
            return Readiness::NONE;
        }
        self.link = Link::Dead { error: Some(error) };
        self.peek_readiness()
    }

    /// Frees the space of `bytes` bytes that the server has read.
    pub(super) fn on_taken(&mut self, bytes: usize) -> Readiness {
        self.unsent -= bytes;
        if self.starved && self.link == Link::Established && self.has_room() {
            self.starved = false;
            return Readiness::WRITABLE;
        }
        Readiness::NONE
    }

    /// `recv(2)`.
    pub(super) fn recv(&mut self, buf: &mut [u8]) -> io::Result<(usize, Window)> {
        if !self.received.is_empty() {
            return Ok(self.recv_bytes(buf));
        }
        if self.ended {
            return Ok((0, Window::Unchanged));
        }
        match &mut self.link {
            Link::Connecting | Link::Established => Err(ErrorKind::WouldBlock.into()),
            Link::Dead { error } => match error.take() {
                Some(error) => Err(error.into()),
                None => Ok((0, Window::Unchanged)),
            },
        }
    }

    fn recv_bytes(&mut self, buf: &mut [u8]) -> (usize, Window) {
        let (first, second) = self.received.as_slices();
        let n = buf.len().min(self.received.len());
        let from_first = n.min(first.len());
        buf[..from_first].copy_from_slice(&first[..from_first]);
        buf[from_first..n].copy_from_slice(&second[..n - from_first]);
        self.received.drain(..n);
        // The window opens only once half of it is free, as TCP's does, so that the server does not
        // send byte by byte.
        let held_back = !self.held_back.is_empty() || self.end_held_back;
        let window = if held_back && self.received.len() * 2 <= self.window {
            Window::Opened
        } else {
            Window::Unchanged
        };
        (n, window)
    }

    /// `sendmsg(2)` with MSG_NOSIGNAL. Takes at most `at_most` bytes, even if there is room for
    /// more. Returns the bytes that go to the server.
    pub(super) fn send(&mut self, bufs: &[IoSlice<'_>], at_most: usize) -> io::Result<Vec<u8>> {
        match &mut self.link {
            Link::Connecting => return Err(self.early_send.into()),
            Link::Dead { error } => {
                return Err(error.take().unwrap_or(ErrorKind::BrokenPipe).into());
            }
            Link::Established => {}
        }
        let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
        let room = self.send_buffer - self.unsent;
        let n = wanted.min(room).min(at_most);
        if n < wanted {
            self.starved = true;
        }
        if n == 0 && wanted > 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut bytes = Vec::with_capacity(n);
        for buf in bufs {
            let left = n - bytes.len();
            bytes.extend_from_slice(&buf[..left.min(buf.len())]);
        }
        self.unsent += n;
        Ok(bytes)
    }
}

/// The server's end.
#[derive(Debug)]
pub(super) struct ServerEnd {
    pub(super) reader: RequestReader,
    /// The connection was established, so the server knows of it.
    pub(super) accepted: bool,
    /// The request whose body is still to come, and whether its head has been answered.
    pub(super) current: Option<(Incoming, EarlyAnswer)>,
    /// Requests whose answers are held, oldest first, and those behind them, whose answers have to
    /// wait.
    pub(super) held: VecDeque<(Incoming, Answer)>,
    /// The number of complete requests so far.
    pub(super) requests: usize,
    /// When the last answer will have been sent.
    pub(super) busy_until: Duration,
    /// When the last of the bytes on their way to the client arrives.
    pub(super) downlink: Duration,
    /// The server will end the connection after what it is sending, and reads no more requests.
    pub(super) closing: bool,
    /// The server has ended the connection.
    pub(super) ended: bool,
    /// The server was stopped, so nothing is reported to the one that took its place.
    pub(super) stopped: bool,
    /// The server sends no more answers: one was cut short, and the connection was left open.
    pub(super) unresponsive: bool,
    /// How many more bytes the server reads; `None` if all.
    pub(super) appetite: Option<usize>,
    /// How many bytes the server reads at once, and how often; `None` if it reads all as they
    /// arrive.
    pub(super) pace: Option<(usize, Duration)>,
    /// Bytes that have arrived at a server with a pace, and wait to be read.
    pub(super) unread: VecDeque<u8>,
    /// Bytes have arrived that the server will not read.
    pub(super) leaves_unread: bool,
    /// The last answer was a 101, so what arrives is no request.
    pub(super) has_switched: bool,
    /// Distinguishes the current idle timer from those that a later request has outdated.
    pub(super) idle_since: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EarlyAnswer {
    None,
    Sent,
}

impl ServerEnd {
    pub(super) fn new(appetite: Option<usize>) -> Self {
        Self {
            reader: RequestReader::default(),
            accepted: false,
            current: None,
            held: VecDeque::new(),
            requests: 0,
            busy_until: Duration::ZERO,
            downlink: Duration::ZERO,
            closing: false,
            ended: false,
            stopped: false,
            unresponsive: false,
            appetite,
            pace: None,
            unread: VecDeque::new(),
            leaves_unread: false,
            has_switched: false,
            idle_since: 0,
        }
    }

    /// Returns whether the server waits for a request of which no byte has arrived.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        !self.closing && !self.has_switched && self.has_answered_all(now)
    }

    /// Returns whether every byte received belongs to a request that has been answered.
    fn has_answered_all(&self, now: Duration) -> bool {
        self.reader.is_between()
            && self.unread.is_empty()
            && self.current.is_none()
            && self.held.is_empty()
            && !self.unresponsive
            && self.busy_until <= now
    }

    /// Returns the number of bytes received of a request that is incomplete.
    pub(super) fn unfinished(&self) -> usize {
        let head = self.current.as_ref().map_or(0, |(r, _)| r.bytes.len());
        head + self.reader.pending()
    }
}
