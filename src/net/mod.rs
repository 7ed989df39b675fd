//! The network layer: moves bytes, and contains no rule of HTTP.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use mio::Token;

use crate::proto::Scheme;
use crate::resolver::{Resolve, Wake};
use crate::route::Route;

pub(crate) mod ahead;
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

/// Whether the engine runs on a real host, with files and network interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    Real,
    /// A simulated one, which must not see anything of the real host underneath.
    #[cfg_attr(
        not(feature = "sim"),
        allow(dead_code, reason = "there is no simulation")
    )]
    Simulated,
}

/// The source of sockets, readiness and time: the real network, or a simulated one.
///
/// Readiness is edge-triggered in both: an arrival is reported once, and unread data is not
/// reported again.
pub trait Net {
    type Socket: fmt::Debug;

    const MACHINE: Machine;

    /// Whether https uses TLS. If not, its bytes are the same as those of http.
    const HAS_TLS: bool = true;

    /// Whether [`wait`](Self::wait) blocks, so that time passes in it.
    const WAITS: bool;

    /// Returns the current time. Called around the poll and after readbacks, and passed down from
    /// there.
    fn now(&self) -> Instant;

    /// In a simulation, returns the time of day and a seed for random numbers. `None` stands for
    /// the system's own.
    fn simulated(&self) -> Option<(SystemTime, u64)> {
        None
    }

    /// Opens a non-blocking socket with the options of `route` and starts to connect it. `Ok` does
    /// not mean that the peer will accept.
    fn connect(&mut self, addr: SocketAddr, route: &Route) -> io::Result<Self::Socket>;

    /// Like [`connect`](Self::connect), for an origin of `scheme`. Only a network without TLS
    /// states needs the scheme.
    fn connect_for(
        &mut self,
        scheme: Scheme,
        addr: SocketAddr,
        route: &Route,
    ) -> io::Result<Self::Socket> {
        let _ = scheme;
        self.connect(addr, route)
    }

    /// Like [`connect`](Self::connect), through a unix socket.
    fn connect_unix(&mut self, path: &Path, route: &Route) -> io::Result<Self::Socket>;

    /// Returns the address of this end of a connected socket.
    ///
    /// # Errors
    /// Those of the system, which are not expected of a socket that has just connected.
    fn local_addr(&mut self, socket: &Self::Socket) -> io::Result<SocketAddr>;

    /// Watches `socket` for reading and writing under `token`, until `deregister`.
    fn register(&mut self, socket: &mut Self::Socket, token: Token) -> io::Result<()>;

    /// Ends the registration. Must be called before `close`.
    fn deregister(&mut self, socket: &mut Self::Socket) -> io::Result<()>;

    /// Closes `socket`. If it holds unread data, the peer receives a reset.
    fn close(&mut self, socket: Self::Socket);

    /// Sends from `bufs` in one call, without ever raising SIGPIPE. Returns `NotConnected` or
    /// `WouldBlock` while the connection is not established. If it could not be established,
    /// returns the reason, once.
    fn send(&mut self, socket: &Self::Socket, bufs: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Receives into `buf`. Returns 0 at the end of the stream.
    fn recv(&mut self, socket: &Self::Socket, buf: &mut [u8]) -> io::Result<usize>;

    /// Makes the socket send small segments at once (TCP_NODELAY).
    fn set_nodelay(&mut self, socket: &Self::Socket) -> io::Result<()>;

    /// Waits until something is ready, `timeout` has passed or the waker was called, and appends at
    /// most `max` events to `ready`.
    fn wait(
        &mut self,
        ready: &mut Vec<Ready>,
        max: usize,
        timeout: Option<Duration>,
    ) -> io::Result<Heard>;

    /// Returns whether the host of a shared poll has already handed over something for `wait` to
    /// report, including a call of the waker.
    fn has_handed_events(&self) -> bool {
        false
    }

    /// Returns whether the poll can become readable on its own when a deadline passes.
    fn has_alarm(&self) -> bool {
        false
    }

    /// Makes the poll readable by `deadline` at the latest.
    fn set_alarm(&mut self, deadline: Option<Instant>) {
        let _ = deadline;
    }

    /// Returns whether this process was forked from the one that owns the poll. A source that it
    /// deregisters is lost to both.
    fn is_forked(&self) -> bool {
        false
    }

    /// Returns the token under which the poll watches the source that the engine calls `token`.
    fn outer(&self, token: Token) -> Token {
        token
    }

    /// Returns a handle that makes `wait` return with an event for [`WAKE`], from any thread.
    fn waker(&self) -> Wake;

    /// Returns the resolver to use if the configuration names none.
    fn resolver(&self) -> Box<dyn Resolve>;

    /// Gives a resolver the means to reach this engine.
    fn attach(&self, resolver: &mut dyn Resolve) -> io::Result<()>;
}

/// Returns whether a socket with local address `own` that was connected to `dialed` is connected to
/// itself. TCP permits this where the system picks the dialed port as the local port. The
/// unspecified address reaches any of the host's own addresses.
pub(crate) fn is_own_end(own: SocketAddr, dialed: SocketAddr) -> bool {
    let (own_ip, dialed_ip) = (own.ip().to_canonical(), dialed.ip().to_canonical());
    own.port() == dialed.port() && (own_ip == dialed_ip || dialed_ip.is_unspecified())
}
