//! Moves bytes; knows no HTTP rule.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use mio::Token;

use crate::proto::Scheme;
use crate::resolver::{Resolve, Wake};
use crate::route::Route;

#[cfg(all(feature = "timerfd", target_os = "linux"))]
mod alarm;
#[cfg(not(all(feature = "timerfd", target_os = "linux")))]
#[path = "no_alarm.rs"]
mod alarm;
pub(crate) mod dial;
pub(crate) mod handshake;
pub(crate) mod link;
pub(crate) mod names;
pub(crate) mod pattern;
pub(crate) mod poll;
pub(crate) mod pool;
pub(crate) mod readiness;
pub(crate) mod slots;
pub(crate) mod socket;
#[cfg(feature = "tls")]
pub(crate) mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
pub(crate) mod tls;
pub(crate) mod transport;
pub(crate) mod window;

pub(crate) use readiness::{ALARM, Heard, Readiness, Ready, WAKE};

/// Whether there is a machine under the engine, with files and network interfaces of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    Real,
    /// Nothing of the machine that it happens to run on may be seen in it.
    #[cfg_attr(
        not(feature = "sim"),
        allow(dead_code, reason = "there is no simulation")
    )]
    Simulated,
}

/// Where sockets, readiness and time come from: the real network, or a simulated one.
///
/// Readiness is edge-triggered in both: an arrival is told once, and what is left unread is not
/// told again.
pub trait Net {
    type Socket: fmt::Debug;

    const MACHINE: Machine;

    /// Whether https means TLS; if not, it is the same bytes as http.
    const HAS_TLS: bool = true;

    /// Whether time passes in `wait`.
    const WAITS: bool;

    /// The time. Read around the poll and after readbacks, and passed down.
    fn now(&self) -> Instant;

    /// What time of day it is, and where chance comes from, in a simulation; `None`: the system's.
    fn simulated(&self) -> Option<(SystemTime, u64)> {
        None
    }

    /// Opens a non-blocking socket as `route` has it and begins to connect it. `Ok` says nothing
    /// about whether the peer will accept.
    fn connect(&mut self, addr: SocketAddr, route: &Route) -> io::Result<Self::Socket>;

    /// The same for an origin of `scheme`, which only a network is interested in that has no
    /// TLS states.
    fn connect_for(
        &mut self,
        scheme: Scheme,
        addr: SocketAddr,
        route: &Route,
    ) -> io::Result<Self::Socket> {
        let _ = scheme;
        self.connect(addr, route)
    }

    /// The same through a unix socket.
    fn connect_unix(&mut self, path: &Path, route: &Route) -> io::Result<Self::Socket>;

    /// Whether a socket that is connected to `peer` is connected to itself: TCP allows that where
    /// the system picks the port that is dialled as the port to dial from.
    fn is_connected_to_itself(&mut self, socket: &Self::Socket, peer: SocketAddr) -> bool;

    /// Watches `socket` for reading and writing until `deregister`, under `token`.
    fn register(&mut self, socket: &mut Self::Socket, token: Token) -> io::Result<()>;

    /// Ends `register`; must come before `close`.
    fn deregister(&mut self, socket: &mut Self::Socket) -> io::Result<()>;

    /// Closes `socket`. With data unread in it the peer gets a reset.
    fn close(&mut self, socket: Self::Socket);

    /// Sends from `bufs` in one call and never raises SIGPIPE. While the connection is not
    /// established: `NotConnected` or `WouldBlock`; when it could not be established: the reason,
    /// once.
    fn send(&mut self, socket: &Self::Socket, bufs: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Receives into `buf`; 0 is the end of file.
    fn recv(&mut self, socket: &Self::Socket, buf: &mut [u8]) -> io::Result<usize>;

    /// Sends small segments at once (TCP_NODELAY).
    fn set_nodelay(&mut self, socket: &Self::Socket) -> io::Result<()>;

    /// Waits until something is ready, `timeout` has passed or the waker was called, and appends at
    /// most `max` events to `ready`.
    fn wait(
        &mut self,
        ready: &mut Vec<Ready>,
        max: usize,
        timeout: Option<Duration>,
    ) -> io::Result<Heard>;

    /// Whether `wait` would have something to tell that the host of a shared poll has handed over
    /// already, its call of the waker included.
    fn has_handed_events(&self) -> bool {
        false
    }

    /// Whether the poll can become readable by itself when a deadline has passed.
    fn has_alarm(&self) -> bool {
        false
    }

    /// From now on the poll is readable by `deadline` at the latest.
    fn set_alarm(&mut self, deadline: Option<Instant>) {
        let _ = deadline;
    }

    /// Whether this process was forked off the one that has the poll: what it deregisters is lost
    /// to both.
    fn is_forked(&self) -> bool {
        false
    }

    /// What the poll calls the source that the engine calls `token`.
    fn outer(&self, token: Token) -> Token {
        token
    }

    /// Makes `wait` return with an event for [`WAKE`], from any thread.
    fn waker(&self) -> Wake;

    /// The resolver to use where the configuration names none.
    fn resolver(&self) -> Box<dyn Resolve>;

    /// Lets a resolver know how it reaches this engine.
    fn attach(&self, resolver: &mut dyn Resolve) -> io::Result<()>;
}

/// Whether a socket connected to `peer` could be connected to itself: no system gives out a port
/// under 1024 of its own accord, so that the usual ones need not be looked at.
pub(crate) fn may_be_own(peer: SocketAddr) -> bool {
    peer.port() >= 1024
}
