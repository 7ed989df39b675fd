//! The engine's access to the simulated network: sockets, readiness and time behind [`Net`].

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mio::Token;

use super::network::Network;
use super::poll::Signals;
use super::resolver::Names;
use super::server::ConnectionId;
use crate::net::{Heard, Machine, Net, Ready};
use crate::proto::Scheme;
use crate::resolver::{Resolve, Wake};
use crate::route::Route;

/// A simulated socket. Its file descriptor is reused as soon as it is closed, but its connection id
/// is unique, so that a use after the close does not affect the next socket with that descriptor.
#[derive(Debug)]
pub struct Socket {
    fd: usize,
    id: ConnectionId,
}

impl Socket {
    pub(super) fn new(fd: usize, id: ConnectionId) -> Self {
        Self { fd, id }
    }

    pub(super) fn fd(&self) -> usize {
        self.fd
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.id
    }
}

/// One engine's access to a [`Network`]: its poll and its sockets.
///
/// Dropping it closes the sockets that are still open, as dropping real sockets does.
#[derive(Debug)]
pub struct SimNet {
    network: Network,
    poll: usize,
    signals: Arc<Signals>,
}

impl SimNet {
    pub(crate) fn new(network: Network) -> Self {
        let signals = Arc::new(Signals::default());
        let poll = network.world_mut().new_poll(signals.clone());
        Self {
            network,
            poll,
            signals,
        }
    }

    /// Returns when the network's next scheduled event is due; in the past if events have come due
    /// since the clock last moved.
    pub(crate) fn next_event_at(&self) -> Option<Instant> {
        let world = self.network.world();
        world.next_event_at().map(|at| world.instant(at))
    }

    /// Returns whether a wait would report an event now. Stale and spurious events do not count.
    pub(crate) fn has_events(&self) -> bool {
        self.network.settle();
        self.network.world().has_events(self.poll)
    }

    /// Moves the clock to `until`, or to the earlier moment at which a wait has something to
    /// report. Returns the time reached; the clock never moves back.
    pub(crate) fn advance_to(&mut self, until: Instant) -> Instant {
        let until = self.network.world().since_start(until);
        loop {
            if self.network.world().has_events(self.poll) {
                break;
            }
            if !self.network.step(until) {
                self.network.pass_to(until);
                break;
            }
        }
        self.network.now()
    }

    /// Lets the network proceed between two system calls of a turn, if
    /// [`MidTurn`](super::Fault::MidTurn) strikes.
    fn interlude(&self) {
        if self.network.world_mut().strikes(super::Fault::MidTurn) {
            self.network.settle();
        }
    }
}

impl Drop for SimNet {
    fn drop(&mut self) {
        self.network.world_mut().close_poll(self.poll);
    }
}

impl Net for SimNet {
    type Socket = Socket;

    const MACHINE: Machine = Machine::Simulated;
    const HAS_TLS: bool = false;
    const WAITS: bool = false;

    fn now(&self) -> Instant {
        self.network.now()
    }

    fn simulated(&self) -> Option<(SystemTime, u64)> {
        Some((self.network.wall_clock(), self.network.seed()))
    }

    /// Options of the route are ignored: a simulated socket has none.
    fn connect(&mut self, addr: SocketAddr, route: &Route) -> io::Result<Socket> {
        self.connect_for(Scheme::Http, addr, route)
    }

    fn connect_for(&mut self, scheme: Scheme, addr: SocketAddr, _: &Route) -> io::Result<Socket> {
        let https = scheme == Scheme::Https;
        self.network.world_mut().connect(self.poll, addr, https)
    }

    fn connect_unix(&mut self, _: &Path, _: &Route) -> io::Result<Socket> {
        let why = "a simulated network has no Unix-domain sockets";
        Err(io::Error::new(io::ErrorKind::Unsupported, why))
    }

    fn local_addr(&mut self, socket: &Socket) -> io::Result<SocketAddr> {
        self.network.world_mut().local_addr(socket)
    }

    fn register(&mut self, socket: &mut Socket, token: Token) -> io::Result<()> {
        self.network.world_mut().register(socket, token)
    }

    fn deregister(&mut self, socket: &mut Socket) -> io::Result<()> {
        self.network.world_mut().deregister(socket)
    }

    fn close(&mut self, socket: Socket) {
        self.network.world_mut().close(&socket);
    }

    fn send(&mut self, socket: &Socket, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.interlude();
        self.network.world_mut().send(socket, bufs)
    }

    fn recv(&mut self, socket: &Socket, buf: &mut [u8]) -> io::Result<usize> {
        self.interlude();
        self.network.world_mut().recv(socket, buf)
    }

    fn set_nodelay(&mut self, socket: &Socket) -> io::Result<()> {
        self.network.world_mut().set_nodelay(socket)
    }

    /// Never blocks: it reports what is ready at the current virtual time. Only
    /// [`SimNet::advance_to`] lets time pass.
    fn wait(
        &mut self,
        ready: &mut Vec<Ready>,
        max: usize,
        _timeout: Option<Duration>,
    ) -> io::Result<Heard> {
        self.network.settle();
        Ok(self.network.world_mut().wait(self.poll, ready, max))
    }

    fn waker(&self) -> Wake {
        let signals = self.signals.clone();
        Wake::new(move || signals.wake())
    }

    fn resolver(&self) -> Box<dyn Resolve> {
        Box::new(Names::new(self.network.clone()))
    }

    /// There is no poll of the operating system to attach to.
    fn attach(&self, resolver: &mut dyn Resolve) -> io::Result<()> {
        resolver.attach(self.waker());
        Ok(())
    }
}
