//! The real network: non-blocking TCP sockets. The only user of socket2.

use std::fmt;
use std::io::{self, IoSlice, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Token};
#[cfg(unix)]
use socket2::SockAddr;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use crate::io_error::is_exhaustion;
use crate::net::poll::Watch;
use crate::net::{Heard, Machine, Net, Ready};
use crate::resolver::{Resolve, Wake};
use crate::route::{Keepalive, Route};

/// A send on a closed connection must not raise SIGPIPE in a host that leaves the signal at its
/// default.
#[cfg(any(target_os = "linux", target_os = "android"))]
const MSG_NOSIGNAL: i32 = 0x4000;
#[cfg(any(target_os = "freebsd", target_os = "netbsd", target_os = "dragonfly"))]
const MSG_NOSIGNAL: i32 = 0x20000;
#[cfg(target_os = "openbsd")]
const MSG_NOSIGNAL: i32 = 0x400;
/// Apple's systems have SO_NOSIGPIPE instead, which mio sets; Windows has no SIGPIPE.
#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "dragonfly",
    target_os = "openbsd"
)))]
const MSG_NOSIGNAL: i32 = 0;

/// Sockets on the engine's own poll, or on its host's.
#[derive(Debug)]
pub struct MioNet<W> {
    pub(crate) watch: W,
    /// The process that created the poll.
    process: u32,
}

impl<W: Watch> MioNet<W> {
    pub(crate) fn new(watch: W) -> Self {
        Self {
            watch,
            process: std::process::id(),
        }
    }
}

/// Returns whether this host has no address of its own from which `addr` could be reached, for
/// instance because IPv6 is disabled.
///
/// Connecting then fails with EADDRNOTAVAIL, as it does when all ports are in use. UDP, which
/// shares no ports with TCP, tells the two cases apart.
fn is_out_of_reach(addr: SocketAddr) -> bool {
    let any: IpAddr = match addr {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let probed = UdpSocket::bind((any, 0)).and_then(|probe| probe.connect(addr));
    probed.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Connects a socket that needs options set before it connects.
fn connect_by(route: &Route, peer: SocketAddr) -> io::Result<TcpStream> {
    let source = route
        .source_for(peer)
        .map_err(|none| io::Error::new(io::ErrorKind::InvalidInput, none))?;
    let socket = open(Domain::for_address(peer), route)?;
    if let Some(interface) = &route.interface {
        bind_interface(&socket, interface)?;
    }
    if let Some(source) = source {
        let bound = socket.bind(&SocketAddr::new(source, 0).into());
        bound.map_err(|error| cannot_bind(source, error))?;
    }
    if let Some(keepalive) = &route.keepalive {
        socket.set_tcp_keepalive(&tcp_keepalive(keepalive))?;
    }
    if let Some(timeout) = route.user_timeout {
        set_user_timeout(&socket, timeout)?;
    }
    if route.nodelay {
        socket.set_tcp_nodelay(true)?;
    }
    match socket.connect(&peer.into()) {
        Err(error) if !is_in_progress(&error) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Returns a non-blocking socket with the buffer sizes of the route.
fn open(domain: Domain, route: &Route) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if let Some(bytes) = route.send_buffer {
        socket.set_send_buffer_size(buffer_bytes(bytes))?;
    }
    if let Some(bytes) = route.receive_buffer {
        socket.set_recv_buffer_size(buffer_bytes(bytes))?;
    }
    Ok(socket)
}

/// Converts a bind error of a route that names a source address.
fn cannot_bind(source: IpAddr, error: io::Error) -> io::Error {
    match error.kind() {
        // All ports of this address are in use. The shortage is not the host's: other addresses
        // have ports of their own.
        io::ErrorKind::AddrInUse => {
            let why = format!("cannot connect from {source}: all its ports are in use");
            io::Error::new(io::ErrorKind::WouldBlock, why)
        }
        // The address does not belong to this host. This is no exhaustion, although the error
        // number is the same.
        io::ErrorKind::AddrNotAvailable => route_error("cannot connect from", source, &error),
        _ if is_exhaustion(&error) => error,
        _ => route_error("cannot connect from", source, &error),
    }
}

/// Returns the error for a route option that cannot be applied.
fn route_error(what: &str, which: impl fmt::Display, error: &io::Error) -> io::Error {
    let why = format!("{what} {which}: {error}");
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Clamps values that the kernel would refuse: times to 1..=32,767 seconds, and probes to 1..=127.
fn tcp_keepalive(keepalive: &Keepalive) -> TcpKeepalive {
    let seconds = |time: Duration| Duration::from_secs(time.as_secs().clamp(1, 32_767));
    let mut options = TcpKeepalive::new().with_time(seconds(keepalive.idle));
    if let Some(interval) = keepalive.interval {
        options = options.with_interval(seconds(interval));
    }
    if let Some(probes) = keepalive.probes {
        options = options.with_retries(probes.clamp(1, 127));
    }
    options
}

/// The largest number that the kernel accepts for a size or a time.
const MAX_OPTION: u32 = i32::MAX as u32;

/// Limits a buffer size to what the kernel accepts: a larger one would be taken for another number.
fn buffer_bytes(bytes: usize) -> usize {
    bytes.min(MAX_OPTION as usize)
}

/// Returns a user timeout in whole milliseconds, at least one because 0 means the kernel's default.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn user_timeout(timeout: Duration) -> Duration {
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(millis.clamp(1, MAX_OPTION.into()) as u64)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn bind_interface(socket: &Socket, interface: &str) -> io::Result<()> {
    // An empty name would remove the binding.
    let bound = if interface.is_empty() {
        Err(io::ErrorKind::InvalidInput.into())
    } else {
        socket.bind_device(Some(interface.as_bytes()))
    };
    bound.map_err(|error| {
        route_error(
            "cannot use interface",
            format_args!("{interface:?}"),
            &error,
        )
    })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn set_user_timeout(socket: &Socket, timeout: Duration) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(user_timeout(timeout)))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn bind_interface(_: &Socket, _: &str) -> io::Result<()> {
    let why = "the route names an interface, but this platform cannot bind sockets to one";
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn set_user_timeout(_: &Socket, _: Duration) -> io::Result<()> {
    let why = "the route has a user timeout, which this platform does not support";
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}

/// Returns whether a connect that returned an error is still in progress.
fn is_in_progress(error: &io::Error) -> bool {
    // EINPROGRESS has no stable `ErrorKind`. Windows reports WouldBlock.
    let number = if cfg!(any(target_os = "linux", target_os = "android")) {
        115
    } else {
        36
    };
    error.kind() == io::ErrorKind::WouldBlock
        || (cfg!(unix) && error.raw_os_error() == Some(number))
}

impl<W: Watch> Net for MioNet<W> {
    type Socket = TcpStream;

    const MACHINE: Machine = Machine::Real;
    const WAITS: bool = W::WAITS;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn connect(&mut self, addr: SocketAddr, route: &Route) -> io::Result<TcpStream> {
        let connected = if route.is_plain() {
            TcpStream::connect(addr)
        } else {
            connect_by(route, addr)
        };
        connected.map_err(|error| match error.kind() {
            io::ErrorKind::AddrNotAvailable if is_out_of_reach(addr) => {
                let why = "this machine has no address to reach it from";
                io::Error::new(io::ErrorKind::NetworkUnreachable, why)
            }
            _ => error,
        })
    }

    #[cfg(unix)]
    fn connect_unix(&mut self, path: &Path, route: &Route) -> io::Result<TcpStream> {
        let addr = SockAddr::unix(path)?;
        let socket = open(Domain::UNIX, route)?;
        socket.connect(&addr)?;
        // Wrap it as a TCP stream: only operations that a unix socket also supports are used on it.
        Ok(TcpStream::from_std(socket.into()))
    }

    #[cfg(not(unix))]
    fn connect_unix(&mut self, _: &Path, _: &Route) -> io::Result<TcpStream> {
        let why = "unix sockets are not supported on this platform";
        Err(io::Error::new(io::ErrorKind::Unsupported, why))
    }

    fn local_addr(&mut self, socket: &TcpStream) -> io::Result<SocketAddr> {
        socket.local_addr()
    }

    fn register(&mut self, socket: &mut TcpStream, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        let token = self.watch.outer(token);
        self.watch.registry().register(socket, token, both)
    }

    fn deregister(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        self.watch.registry().deregister(socket)
    }

    fn close(&mut self, socket: TcpStream) {
        drop(socket);
    }

    fn send(&mut self, socket: &TcpStream, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        SockRef::from(socket).send_vectored_with_flags(bufs, MSG_NOSIGNAL)
    }

    fn recv(&mut self, mut socket: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
        socket.read(buf)
    }

    fn set_nodelay(&mut self, socket: &TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)
    }

    fn wait(
        &mut self,
        ready: &mut Vec<Ready>,
        max: usize,
        timeout: Option<Duration>,
    ) -> io::Result<Heard> {
        self.watch.wait(ready, max, timeout)
    }

    fn has_handed_events(&self) -> bool {
        self.watch.has_handed_events()
    }

    fn has_alarm(&self) -> bool {
        self.watch.has_alarm()
    }

    fn set_alarm(&mut self, deadline: Option<Instant>) {
        self.watch.set_alarm(deadline, self.now());
    }

    fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    fn outer(&self, token: Token) -> Token {
        self.watch.outer(token)
    }

    fn waker(&self) -> Wake {
        self.watch.waker()
    }

    fn resolver(&self) -> Box<dyn Resolve> {
        default_resolver()
    }

    fn attach(&self, resolver: &mut dyn Resolve) -> io::Result<()> {
        resolver.attach(self.waker());
        let registry = self.watch.registry().try_clone()?;
        resolver.attach_poll(registry, self.watch.resolver_tokens())
    }
}

#[cfg(feature = "hickory")]
fn default_resolver() -> Box<dyn Resolve> {
    Box::new(crate::resolver::Hickory::from_system())
}

#[cfg(not(feature = "hickory"))]
fn default_resolver() -> Box<dyn Resolve> {
    Box::new(crate::resolver::System::new())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::net::is_own_end;
    use crate::net::poll::{Deadlines, OwnPoll};

    fn own_net() -> MioNet<OwnPoll> {
        MioNet::new(OwnPoll::new(1, Deadlines::Outside).unwrap())
    }

    #[test]
    fn a_socket_is_its_own_peer_where_both_ends_are_one() {
        let rows = [
            (
                "the same address and port",
                "127.0.0.1:40000",
                "127.0.0.1:40000",
                true,
            ),
            ("another port", "127.0.0.1:40001", "127.0.0.1:40000", false),
            (
                "another address",
                "127.0.0.2:40000",
                "127.0.0.1:40000",
                false,
            ),
            (
                "the unspecified address reaches the host",
                "127.0.0.1:40000",
                "0.0.0.0:40000",
                true,
            ),
            (
                "the unspecified address and another port",
                "127.0.0.1:40001",
                "0.0.0.0:40000",
                false,
            ),
            ("IPv6", "[::1]:40000", "[::1]:40000", true),
            ("IPv6, unspecified", "[::1]:40000", "[::]:40000", true),
            (
                "the scope may be filled in by the system",
                "[fe80::1%2]:40000",
                "[fe80::1]:40000",
                true,
            ),
            (
                "IPv4-mapped IPv6 address",
                "127.0.0.1:40000",
                "[::ffff:127.0.0.1]:40000",
                true,
            ),
            (
                "IPv4-mapped IPv6 address, unspecified",
                "[::ffff:127.0.0.1]:40000",
                "[::ffff:0.0.0.0]:40000",
                true,
            ),
        ];
        for (why, own, dialed, is_own) in rows {
            let (own, dialed) = (own.parse().unwrap(), dialed.parse().unwrap());
            assert_eq!(is_own_end(own, dialed), is_own, "{why}");
        }
    }

    #[test]
    fn a_socket_that_met_a_listener_is_not_connected_to_itself() {
        let mut net = own_net();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        for dialed in [
            addr,
            SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr.port()),
        ] {
            let socket = net.connect(dialed, &Route::default()).unwrap();
            let own = net.local_addr(&socket).unwrap();
            assert!(!is_own_end(own, dialed), "{dialed}");
        }
    }

    /// The kernel lets a socket connect to itself if it is bound to the address that it dials.
    #[test]
    fn a_socket_that_is_connected_to_itself_is_known() {
        let mut net = own_net();
        for unspecified in [false, true] {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket
                .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
                .unwrap();
            let own = socket.local_addr().unwrap().as_socket().unwrap();
            let dialed = if unspecified {
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), own.port())
            } else {
                own
            };
            socket.connect(&dialed.into()).unwrap();
            let socket = TcpStream::from_std(socket.into());
            assert_eq!(socket.peer_addr().unwrap(), own);
            assert!(
                is_own_end(net.local_addr(&socket).unwrap(), dialed),
                "{dialed}"
            );
        }
    }

    #[test]
    fn a_source_without_a_free_port_is_no_want_of_this_machine() {
        let source = IpAddr::from(Ipv4Addr::LOCALHOST);
        // What bind returns, whether the whole host is out of resources, and whether a retry is
        // worthwhile.
        for (kind, is_want, is_for_now) in [
            (io::ErrorKind::AddrInUse, false, true),
            (io::ErrorKind::OutOfMemory, true, false),
            (io::ErrorKind::AddrNotAvailable, false, false),
            (io::ErrorKind::PermissionDenied, false, false),
        ] {
            let error = cannot_bind(source, kind.into());
            assert_eq!(is_exhaustion(&error), is_want, "{error}");
            let waits = error.kind() == io::ErrorKind::WouldBlock;
            assert_eq!(waits, is_for_now, "{error}");
            assert_eq!(error.to_string().contains("127.0.0.1"), !is_want, "{error}");
        }
    }

    #[test]
    fn options_keep_within_the_kernels_bounds() {
        let mut net = own_net();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        for (time, count) in [(Duration::ZERO, 0), (Duration::MAX, u32::MAX)] {
            let mut route = Route::default();
            let mut keepalive = Keepalive::after(time);
            keepalive.interval = Some(time);
            keepalive.probes = Some(count);
            route.keepalive = Some(keepalive);
            route.send_buffer = Some(count as usize);
            route.receive_buffer = Some(count as usize);
            #[cfg(target_os = "linux")]
            {
                route.user_timeout = Some(time);
            }
            net.connect(addr, &route).unwrap();
        }
    }
}
