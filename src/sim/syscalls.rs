//! The system calls of a simulated network, with the results that the client's kernel would return.

use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mio::Token;

use super::connection::{ClientEnd, Connection, ServerEnd, Watch, Window};
use super::faults::Fault;
use super::ledger::{Attempt, Misuse};
use super::server::{ConnectionId, End};
use super::socket::Socket;
use super::world::{Event, Site, World};
use crate::net::{Readiness, Ready};

/// Linux gives up connecting after this long: a SYN and six retransmissions, at doubling intervals.
const CONNECT_GIVES_UP: Duration = Duration::from_secs(127);
/// The addresses of the client's host (RFC 5737, RFC 3849).
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The range from which the client's ports are assigned (RFC 6335 §6).
const FIRST_PORT: u16 = 49_152;
const PORTS: u16 = 16_384;
/// Descriptors 0 to 2 are the standard streams.
const FIRST_FD: usize = 3;

impl World {
    pub(super) fn connect(
        &mut self,
        poll: usize,
        addr: SocketAddr,
        https: bool,
    ) -> io::Result<Socket> {
        self.system_calls += 1;
        if self.open_fds >= self.max_fds || self.strikes(Fault::NoDescriptor) {
            self.note("connect: no descriptor", 0, self.open_fds);
            return Err(no_descriptor());
        }
        // The first two calls are `socket` and `connect`. If connecting fails at once, a `close`
        // follows.
        self.system_calls += 1;
        if self.strikes(Fault::NoPort) {
            self.system_calls += 1;
            self.note("connect: no port", 0, 0);
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        let begun = self.now;
        self.ledger.attempts.push(Attempt {
            server: addr,
            https,
            begun,
        });
        let site = self.sites.get(&addr);
        let unreachable = matches!(site, Some(Site::IsUnreachable));
        let black_hole = matches!(site, Some(Site::SwallowsAll));
        let served = matches!(site, Some(Site::Serves(_)));
        let outcome = if unreachable || self.strikes(Fault::Unreachable) {
            // Either the local routing table has no route and `connect` itself fails, or a router
            // reports the error later.
            if self.random.chance(500) {
                self.system_calls += 1;
                self.note("connect: unreachable", 0, 0);
                return Err(ErrorKind::NetworkUnreachable.into());
            }
            Some(Err(ErrorKind::HostUnreachable))
        } else if black_hole || self.strikes(Fault::BlackHole) {
            None
        } else if !served || self.strikes(Fault::Refused) {
            Some(Err(ErrorKind::ConnectionRefused))
        } else {
            Some(Ok(()))
        };
        let (id, socket) = self.open(poll, addr, https);
        self.note("connect", id.0, socket.fd());
        let at = match outcome {
            Some(Ok(())) if self.strikes(Fault::ConnectedAtOnce) => {
                self.on_connected(id, Ok(()));
                return Ok(socket);
            }
            Some(_) => self.now + self.transit() + self.transit(),
            None => self.now + CONNECT_GIVES_UP,
        };
        let outcome = outcome.unwrap_or(Err(ErrorKind::TimedOut));
        self.schedule(at, Event::Connected { id, outcome });
        Ok(socket)
    }

    /// Opens a socket with the lowest free file descriptor, as the kernel does.
    fn open(&mut self, poll: usize, addr: SocketAddr, https: bool) -> (ConnectionId, Socket) {
        let fd = match self.free_fds.pop_first() {
            Some(fd) => fd,
            None => FIRST_FD + self.open_fds,
        };
        self.open_fds += 1;
        self.begun += 1;
        let id = ConnectionId(self.begun);
        let mut client = ClientEnd::new(fd, poll);
        let (mut appetite, mut pace) = (None, None);
        if let Some(Site::Serves(service)) = self.sites.get(&addr) {
            (appetite, pace) = (service.appetite, service.pace);
            if let Some(bytes) = service.send_buffer {
                client.send_buffer = bytes.max(1);
            }
            if let Some(bytes) = service.window {
                client.set_window(bytes);
            }
        }
        if self.strikes(Fault::SmallSendBuffer) {
            client.send_buffer = self.random.between(1, 600);
        }
        if self.strikes(Fault::SmallWindow) {
            client.set_window(self.random.between(1, 2000));
        }
        if self.strikes(Fault::StopsReading) {
            appetite = Some(self.random.below(2000));
        }
        // Without faults, this behaves like Linux, which returns `WouldBlock`.
        if self.faults.per_mille(Fault::ConnectedAtOnce) > 0 && self.random.chance(500) {
            client.early_send = ErrorKind::NotConnected;
        }
        let mut server = ServerEnd::new(appetite);
        server.pace = pace;
        let connection = Connection {
            addr,
            https,
            client,
            server,
        };
        self.connections.insert(id, connection);
        (id, Socket::new(fd, id))
    }

    /// `getsockname(2)`. All engines are on one host, which has an address of each family and
    /// assigns its ports in turn.
    pub(super) fn local_addr(&mut self, socket: &Socket) -> io::Result<SocketAddr> {
        self.system_calls += 1;
        self.client(socket, "local_addr")?;
        let ip: IpAddr = match self.connections[&socket.id()].addr {
            SocketAddr::V4(_) => CLIENT_V4.into(),
            SocketAddr::V6(_) => CLIENT_V6.into(),
        };
        let turn = socket.id().0 % u64::from(PORTS);
        Ok(SocketAddr::new(ip, FIRST_PORT + turn as u16))
    }

    /// Returns the client's end that `socket` names, if it is open.
    fn client(&mut self, socket: &Socket, call: &'static str) -> io::Result<&mut ClientEnd> {
        let open = self
            .connections
            .get_mut(&socket.id())
            .map(|connection| &mut connection.client)
            .filter(|client| client.fd.is_some());
        match open {
            Some(client) => Ok(client),
            None => {
                let fd = socket.fd();
                self.misuses.push(Misuse::ClosedSocket { fd, call });
                Err(bad_descriptor())
            }
        }
    }

    pub(super) fn register(&mut self, socket: &Socket, token: Token) -> io::Result<()> {
        self.system_calls += 1;
        self.note("register", socket.id().0, token.0);
        let fails = self.strikes(Fault::NoWatch);
        let client = self.client(socket, "register")?;
        if client.watch.is_some() {
            let fd = socket.fd();
            self.misuses.push(Misuse::RegisteredTwice { fd });
            return Err(ErrorKind::AlreadyExists.into());
        }
        if fails {
            return Err(no_watch());
        }
        // A socket that is ready when it is registered causes an edge.
        let changed = client.readiness();
        client.watch = Some(Watch { token, changed });
        if changed != Readiness::NONE {
            let poll = client.poll;
            let poll = &mut self.polls[poll];
            poll.edges.push_back(socket.id());
            poll.signals.tell();
        }
        Ok(())
    }

    pub(super) fn deregister(&mut self, socket: &Socket) -> io::Result<()> {
        self.system_calls += 1;
        self.note("deregister", socket.id().0, 0);
        let client = self.client(socket, "deregister")?;
        let poll = client.poll;
        let Some(watch) = client.watch.take() else {
            let fd = socket.fd();
            self.misuses.push(Misuse::NotRegistered { fd });
            return Err(ErrorKind::NotFound.into());
        };
        self.polls[poll].edges.retain(|id| *id != socket.id());
        if self.strikes(Fault::Stale) {
            let kinds = [
                Readiness::READABLE,
                Readiness::WRITABLE,
                Readiness::READABLE.with(Readiness::WRITABLE),
                Readiness::READABLE.with(Readiness::READ_CLOSED),
                Readiness::WRITABLE.with(Readiness::ERROR),
            ];
            let readiness = *self.random.pick(&kinds);
            let waits = self.random.below(4);
            let token = watch.token;
            self.polls[poll]
                .stale
                .push((waits, Ready { token, readiness }));
        }
        Ok(())
    }

    pub(super) fn close(&mut self, socket: &Socket) {
        self.system_calls += 1;
        self.note("close", socket.id().0, socket.fd());
        let Ok(client) = self.client(socket, "close") else {
            return;
        };
        let end = if client.has_unread() {
            End::Reset
        } else {
            End::Close
        };
        let (uplink, unread) = (client.uplink, client.unread());
        client.fd = None;
        if client.watch.take().is_some() {
            let poll = client.poll;
            self.polls[poll].edges.retain(|id| *id != socket.id());
            let fd = socket.fd();
            self.misuses.push(Misuse::ClosedWhileRegistered { fd });
        }
        self.free_fds.insert(socket.fd());
        self.open_fds -= 1;
        let id = socket.id();
        if self.server_mut(id).is_some_and(|server| !server.accepted) {
            // No server has learned of the connection.
            self.connections.remove(&id);
            return;
        }
        if let Some(served) = self.ledger.connections.get_mut(&id) {
            served.unread = unread;
        }
        let at = (self.now + self.transit()).max(uplink);
        self.schedule(at, Event::ClientClosed { id, end });
    }

    /// Closes the sockets that a dropped engine left open on its poll, as dropping real sockets
    /// does.
    pub(super) fn close_poll(&mut self, poll: usize) {
        let open: Vec<Socket> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.client.poll == poll)
            .filter_map(|(id, connection)| Some(Socket::new(connection.client.fd?, *id)))
            .collect();
        for socket in open {
            if let Ok(client) = self.client(&socket, "close") {
                client.watch = None;
            }
            self.close(&socket);
        }
        let poll = &mut self.polls[poll];
        poll.edges.clear();
        poll.stale.clear();
        // Wakers may be left, but there is nobody to wake.
        poll.signals = Arc::default();
    }

    pub(super) fn send(&mut self, socket: &Socket, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.system_calls += 1;
        self.interrupt()?;
        let connection = socket.id();
        if let Some(Connection { client, .. }) = self.connections.get_mut(&connection)
            && std::mem::take(&mut client.strayed)
        {
            self.misuses.push(Misuse::SentBehindStray { connection });
        }
        let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
        let at_most = if wanted > 1 && self.strikes(Fault::ShortWrite) {
            self.random.between(1, wanted - 1)
        } else {
            wanted
        };
        let sent = self.client(socket, "send")?.send(bufs, at_most);
        let bytes = match sent {
            Ok(bytes) => bytes,
            Err(error) => {
                self.note("send failed", socket.id().0, 0);
                return Err(error);
            }
        };
        let n = bytes.len();
        self.note_bytes(&bytes);
        self.note("send", socket.id().0, n);
        if n > 0 {
            let transit = self.transit();
            let arrives = self.now + transit;
            let client = self.client(socket, "send")?;
            client.uplink = client.uplink.max(arrives);
            let at = client.uplink;
            let id = socket.id();
            self.schedule(at, Event::ToServer { id, bytes });
        }
        Ok(n)
    }

    pub(super) fn recv(&mut self, socket: &Socket, buf: &mut [u8]) -> io::Result<usize> {
        self.system_calls += 1;
        self.interrupt()?;
        let now = self.now;
        let client = self.client(socket, "recv")?;
        client.read_at = now;
        match client.recv(buf) {
            Ok((n, window)) => {
                self.note("recv", socket.id().0, n);
                if window == Window::Opened {
                    // The server learns of it one transit later, and what it then sends takes
                    // another.
                    let at = self.now + self.transit() + self.transit();
                    let id = socket.id();
                    self.schedule(at, Event::WindowOpened { id });
                }
                Ok(n)
            }
            Err(error) => {
                self.note("recv failed", socket.id().0, 0);
                Err(error)
            }
        }
    }

    /// Fails with `Interrupted` if a signal arrives before the call has done anything.
    fn interrupt(&mut self) -> io::Result<()> {
        if self.strikes(Fault::Interrupted) {
            Err(ErrorKind::Interrupted.into())
        } else {
            Ok(())
        }
    }

    pub(super) fn set_nodelay(&mut self, socket: &Socket) -> io::Result<()> {
        self.system_calls += 1;
        self.client(socket, "set_nodelay").map(|_| ())
    }

    pub(super) fn open_fds(&self) -> usize {
        self.open_fds
    }
}

// The standard library has no `ErrorKind` for these three.

fn no_descriptor() -> io::Error {
    io::Error::from_raw_os_error(if cfg!(windows) { 10024 } else { 24 })
}

fn no_watch() -> io::Error {
    if cfg!(windows) {
        ErrorKind::OutOfMemory.into()
    } else {
        io::Error::from_raw_os_error(28)
    }
}

fn bad_descriptor() -> io::Error {
    io::Error::from_raw_os_error(if cfg!(windows) { 10038 } else { 9 })
}
