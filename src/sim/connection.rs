//! One simulated connection: what the client's kernel knows of it, and where its server stands.
//!
//! The client's end behaves as a TCP socket of Linux does, down to which call reports an error and
//! how often. It knows neither time nor chance; [`World`](super::world::World) brings both.

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
    /// Whether it is for an `https` URL.
    pub(super) https: bool,
    pub(super) client: ClientEnd,
    pub(super) server: ServerEnd,
}

impl Connection {
    /// Whether it is established, and neither side has ended it.
    pub(super) fn stands(&self) -> bool {
        self.client.link == Link::Established && self.client.fd.is_some() && !self.server.ended
    }

    /// Whether every request that was sent is answered, and every answer read.
    pub(super) fn is_at_rest(&self, now: Duration) -> bool {
        self.client.is_at_rest(now)
            && self.server.requests > 0
            && self.server.has_answered_all(now)
            && self.server.downlink <= now
    }
}

/// `Connecting -> Established -> Dead`; a failed attempt goes straight from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Established,
    /// Reset, or never established. The reason is reported once.
    Dead {
        error: Option<ErrorKind>,
    },
}

/// The client's socket.
#[derive(Debug)]
pub(super) struct ClientEnd {
    /// The number, until it is closed.
    pub(super) fd: Option<usize>,
    pub(super) poll: usize,
    pub(super) link: Link,
    pub(super) watch: Option<Watch>,
    /// What a send says while the connection is not established: that depends on the system.
    pub(super) early_send: ErrorKind,
    received: VecDeque<u8>,
    /// An end of file stands behind `received`.
    ended: bool,
    window: usize,
    /// What the server has sent and the window did not take.
    held_back: VecDeque<u8>,
    end_held_back: bool,
    pub(super) send_buffer: usize,
    /// Bytes in the send buffer which the server has not taken.
    unsent: usize,
    /// A send found less room than it wanted: there will be an edge when there is some.
    starved: bool,
    /// When the last of what is on its way to the server gets there.
    pub(super) uplink: Duration,
    /// When it was read last, whatever that brought.
    pub(super) read_at: Duration,
    /// Something that answers no request came while it was at rest, and is still to be read.
    pub(super) strayed: bool,
}

/// A registration with a poll.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) token: Token,
    /// What has changed since the last event was fetched. Not empty: the socket stands in the
    /// poll's list.
    pub(super) changed: Readiness,
}

/// What follows from reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Window {
    Unchanged,
    /// There is room again for what was held back.
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

    /// Whether everything it has sent has arrived, and everything that has come is read.
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

    /// Bytes that can be read at once.
    pub(super) fn unread(&self) -> usize {
        self.received.len()
    }

    /// What a poll would say now. Asking for it counts as finding the send buffer full, if it is
    /// (as in the kernel's `tcp_poll`): an edge follows when it drains.
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

    /// The kernel calls a socket writable when a third of its send buffer is free, lest every ACK
    /// wake the process.
    fn has_room(&self) -> bool {
        (self.send_buffer - self.unsent) * 3 >= self.send_buffer
    }

    /// The handshake is over. Answers what has changed, as the others here do.
    pub(super) fn on_connected(&mut self) -> Readiness {
        self.link = Link::Established;
        Readiness::WRITABLE
    }

    /// Bytes arrive, and perhaps the end behind them.
    pub(super) fn on_arrival(&mut self, bytes: &[u8], ends: bool) -> Readiness {
        if self.link != Link::Established || self.ended {
            return Readiness::NONE;
        }
        self.held_back.extend(bytes);
        self.end_held_back |= ends;
        self.on_window_opened()
    }

    /// Takes what was held back, as far as there is room.
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

    /// A reset arrives. What had arrived before stays readable unless `discards`; after the end of
    /// file it can only hurt sends.
    pub(super) fn on_reset(&mut self, discards: bool) -> Readiness {
        let error = if self.ended {
            ErrorKind::BrokenPipe
        } else {
            ErrorKind::ConnectionReset
        };
        self.held_back.clear();
        self.end_held_back = false;
        if discards && !self.received.is_empty() {
            // What came before the end is lost, and so is the end: what is told is the error.
            self.received.clear();
            self.ended = false;
        }
        self.on_death(error)
    }

    /// The connection could not be established, or is no more.
    pub(super) fn on_death(&mut self, error: ErrorKind) -> Readiness {
        if let Link::Dead { .. } = self.link {
            return Readiness::NONE;
        }
        self.link = Link::Dead { error: Some(error) };
        self.peek_readiness()
    }

    /// The server has taken `bytes` of what was sent.
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
        // The window opens by halves, as TCP's does, lest the server send byte by byte.
        let held_back = !self.held_back.is_empty() || self.end_held_back;
        let window = if held_back && self.received.len() * 2 <= self.window {
            Window::Opened
        } else {
            Window::Unchanged
        };
        (n, window)
    }

    /// `sendmsg(2)` with MSG_NOSIGNAL; `at_most` is how much it takes, room or not. Answers what
    /// goes to the server.
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
    /// The connection was established: the server knows of it.
    pub(super) accepted: bool,
    /// The request whose body is still to come, and whether its head was answered already.
    pub(super) current: Option<(Incoming, EarlyAnswer)>,
    /// Requests whose answers are held, the oldest first, and answers to those behind them, which
    /// have to wait.
    pub(super) held: VecDeque<(Incoming, Answer)>,
    /// Whole requests so far.
    pub(super) requests: usize,
    /// Until then it is sending answers.
    pub(super) busy_until: Duration,
    /// When the last of what is on its way to the client gets there.
    pub(super) downlink: Duration,
    /// It will end the connection behind what it is sending, and takes no more requests.
    pub(super) closing: bool,
    /// It has ended the connection.
    pub(super) ended: bool,
    /// It answers nothing any more: an answer was cut short, and the connection left open.
    pub(super) mute: bool,
    /// How many bytes it still reads; `None`: all.
    pub(super) appetite: Option<usize>,
    /// Something has come that it will not read.
    pub(super) leaves_unread: bool,
    /// Tells an idle timer that was overtaken by a request from one that was not.
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
            mute: false,
            appetite,
            leaves_unread: false,
            idle_since: 0,
        }
    }

    /// Whether it waits for a request of which no byte has come.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        !self.closing && self.has_answered_all(now)
    }

    /// Whether nothing of a request has come that it has not answered.
    fn has_answered_all(&self, now: Duration) -> bool {
        self.reader.is_between()
            && self.current.is_none()
            && self.held.is_empty()
            && !self.mute
            && self.busy_until <= now
    }

    /// Bytes of the request that is on its way.
    pub(super) fn unfinished(&self) -> usize {
        let head = self.current.as_ref().map_or(0, |(r, _)| r.bytes.len());
        head + self.reader.pending()
    }
}
