//! The real network: non-blocking TCP sockets on a poll of our own. The only user of socket2.

use std::io::{self, IoSlice, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::SockRef;

use crate::net::slots::RESOLVER_TOKENS;
use crate::net::{Net, Readiness, Ready, WAKE, calls_to_open};
use crate::resolver::{Resolve, Wake};

/// A send on a closed connection must not raise SIGPIPE in a host that leaves the signal at its default.
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

/// Sockets on a [`Poll`] of the engine's own.
#[derive(Debug)]
pub struct MioNet {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    /// How many calls mio makes for each of ours, strace has shown: on Linux the count is exact.
    system_calls: u64,
}

impl MioNet {
    pub(crate) fn new(events: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        Ok(Self {
            poll,
            events: Events::with_capacity(events),
            waker,
            system_calls: 0,
        })
    }

    #[cfg(unix)]
    pub(crate) fn poll_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.poll.registry().as_fd()
    }

    /// Whether this machine has no address of its own from which `addr` could be reached, as where IPv6 is switched off.
    ///
    /// Connecting then fails with EADDRNOTAVAIL, as it does when all ports are taken: UDP, which shares no ports with TCP,
    /// tells the two apart.
    fn is_out_of_reach(&mut self, addr: SocketAddr) -> bool {
        let any: IpAddr = match addr {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let bound = UdpSocket::bind((any, 0));
        self.system_calls += calls_to_open(&bound);
        let probed = bound.and_then(|probe| {
            // And its close.
            self.system_calls += 2;
            probe.connect(addr)
        });
        probed.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
    }
}

impl Net for MioNet {
    type Socket = TcpStream;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn connect(&mut self, addr: SocketAddr) -> io::Result<TcpStream> {
        let connected = TcpStream::connect(addr);
        self.system_calls += calls_to_open(&connected);
        connected.map_err(|error| match error.kind() {
            io::ErrorKind::AddrNotAvailable if self.is_out_of_reach(addr) => {
                let why = "this machine has no address to reach it from";
                io::Error::new(io::ErrorKind::NetworkUnreachable, why)
            }
            _ => error,
        })
    }

    fn register(&mut self, socket: &mut TcpStream, token: Token) -> io::Result<()> {
        self.system_calls += 1;
        self.poll
            .registry()
            .register(socket, token, Interest::READABLE | Interest::WRITABLE)
    }

    fn deregister(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        self.system_calls += 1;
        self.poll.registry().deregister(socket)
    }

    fn close(&mut self, socket: TcpStream) {
        self.system_calls += 1;
        drop(socket);
    }

    fn send(&mut self, socket: &TcpStream, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.system_calls += 1;
        SockRef::from(socket).send_vectored_with_flags(bufs, MSG_NOSIGNAL)
    }

    fn recv(&mut self, mut socket: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
        self.system_calls += 1;
        socket.read(buf)
    }

    fn set_nodelay(&mut self, socket: &TcpStream) -> io::Result<()> {
        self.system_calls += 1;
        socket.set_nodelay(true)
    }

    fn wait(
        &mut self,
        ready: &mut Vec<Ready>,
        max: usize,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.system_calls += 1;
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        ready.extend(self.events.iter().take(max).map(|event| {
            let mut readiness = Readiness::NONE;
            if event.is_readable() {
                readiness = readiness.with(Readiness::READABLE);
            }
            if event.is_writable() {
                readiness = readiness.with(Readiness::WRITABLE);
            }
            if event.is_read_closed() {
                readiness = readiness.with(Readiness::READ_CLOSED);
            }
            if event.is_error() {
                readiness = readiness.with(Readiness::ERROR);
            }
            Ready {
                token: event.token(),
                readiness,
            }
        }));
        Ok(())
    }

    fn waker(&self) -> Wake {
        let waker = Arc::clone(&self.waker);
        Wake::new(move || {
            // Writing to an eventfd fails only when its counter is full: then a wake-up is due already.
            let _ = waker.wake();
        })
    }

    fn resolver(&self) -> Box<dyn Resolve> {
        default_resolver()
    }

    fn attach(&self, resolver: &mut dyn Resolve) -> io::Result<()> {
        resolver.attach(self.waker());
        resolver.attach_poll(self.poll.registry().try_clone()?, RESOLVER_TOKENS)
    }

    fn system_calls(&self) -> u64 {
        self.system_calls
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
