//! The runtime that hickory requires, on top of a [`Reactor`]. This is the only module that
//! implements hickory's runtime traits, and only for TCP; datagrams are sent and read without
//! hickory (`udp`).
//!
//! hickory keeps only the kind of a socket error. The full error is recorded here ([`Trouble`]), to
//! report it to the caller and to distinguish a lack of file descriptors from a server that is
//! down.

use std::future::Future;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_io::{AsyncRead, AsyncWrite};
use hickory_resolver::net::runtime::{DnsTcpStream, DnsUdpSocket, RuntimeProvider, Spawn, Time};
use mio::net::TcpStream;
use mio::{Interest, Token};

use super::reactor::{
    Direction, Reactor, ReactorId, Readiness, Sleep, TaskKind, no_reactor, within,
};

/// The connect timeout if hickory passes none, which does not happen in practice.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads of a connection between two pauses. hickory takes a hundred messages at a time, with two
/// reads each, and if there are more it fails to schedule itself to read them (hickory-net 0.26.3,
/// `DnsMultiplexer::poll_next`). The pauses keep it from reaching that limit.
const READS: u32 = 64;

/// The last error of a socket to one server, until taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<io::Error>>>);

impl Trouble {
    /// Records `error` and returns its kind, which is all that hickory needs.
    fn note(&self, error: io::Error) -> io::Error {
        let kind = error.kind();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        kind.into()
    }

    pub(super) fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Creates sockets to one server, on one reactor.
#[derive(Clone, Debug)]
pub(super) struct Runtime {
    reactor: ReactorId,
    /// Includes the scope of a link-local address, which hickory's own type cannot hold.
    server: SocketAddr,
    trouble: Trouble,
}

impl Runtime {
    pub(super) fn new(reactor: &Reactor, server: SocketAddr) -> Self {
        Self {
            reactor: reactor.id(),
            server,
            trouble: Trouble::default(),
        }
    }

    pub(super) fn trouble(&self) -> &Trouble {
        &self.trouble
    }

    pub(super) fn reactor(&self) -> ReactorId {
        self.reactor
    }

    fn connect(&self) -> io::Result<Tcp> {
        let reactor = self.reactor.find().ok_or_else(no_reactor)?;
        let mut stream = TcpStream::connect(self.server).map_err(unreachable_from_here)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        let token = reactor.register(&mut stream, both, Readiness::Blocked(None))?;
        Ok(Tcp {
            stream,
            token,
            runtime: self.clone(),
            reads: 0,
        })
    }

    /// Makes a call on a socket once it is ready, and records its error.
    fn poll_io<T>(
        &self,
        token: Token,
        direction: Direction,
        cx: &mut Context<'_>,
        call: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let polled = match self.reactor.find() {
            Some(reactor) => reactor.poll_io(token, direction, cx, call),
            None => Poll::Ready(Err(no_reactor())),
        };
        polled.map_err(|error| self.trouble.note(error))
    }
}

/// Translates `AddrNotAvailable`. The socket is either bound already or requests no particular
/// port, so the error means that no local address can reach the server.
pub(super) fn unreachable_from_here(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => io::Error::new(
            io::ErrorKind::NetworkUnreachable,
            "no local address can reach it",
        ),
        _ => error,
    }
}

impl RuntimeProvider for Runtime {
    type Handle = Handle;
    type Timer = Timer;
    type Udp = NoUdp;
    type Tcp = Tcp;

    fn create_handle(&self) -> Handle {
        Handle(self.reactor)
    }

    fn connect_tcp(
        &self,
        _: SocketAddr,
        bind_addr: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Tcp>>>> {
        let runtime = self.clone();
        Box::pin(async move {
            if bind_addr.is_some() {
                return Err(io::ErrorKind::Unsupported.into());
            }
            let timeout = timeout.unwrap_or(CONNECT_TIMEOUT);
            let connected = async {
                let tcp = runtime
                    .connect()
                    .map_err(|error| runtime.trouble.note(error))?;
                std::future::poll_fn(|cx| tcp.poll_connected(cx)).await?;
                Ok(tcp)
            };
            match within(timeout, connected).await {
                Some(connected) => connected,
                None => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }

    fn bind_udp(
        &self,
        _: SocketAddr,
        _: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<NoUdp>>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }
}

/// Spawns tasks on a reactor.
#[derive(Clone, Debug)]
pub(super) struct Handle(ReactorId);

impl Spawn for Handle {
    fn spawn_bg(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        // Without a reactor, nothing waits for the result either.
        if let Some(reactor) = self.0.find() {
            reactor.spawn(TaskKind::Background, future);
        }
    }
}

/// Creates timers for the task that is being polled.
#[derive(Debug)]
pub(super) struct Timer;

#[async_trait]
impl Time for Timer {
    async fn delay_for(duration: Duration) {
        Sleep::new(duration).await;
    }

    async fn timeout<F: 'static + Future + Send>(
        duration: Duration,
        future: F,
    ) -> io::Result<F::Output> {
        within(duration, future)
            .await
            .ok_or_else(|| io::ErrorKind::TimedOut.into())
    }
}

/// A UDP socket; never created.
#[derive(Debug)]
pub(super) enum NoUdp {}

impl DnsUdpSocket for NoUdp {
    type Time = Timer;

    fn poll_recv_from(
        &self,
        _: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        match *self {}
    }

    fn poll_send_to(
        &self,
        _: &mut Context<'_>,
        _: &[u8],
        _: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        match *self {}
    }
}

/// A TCP connection to a server.
#[derive(Debug)]
pub(super) struct Tcp {
    stream: TcpStream,
    token: Token,
    runtime: Runtime,
    /// Reads since the last pause.
    reads: u32,
}

impl Tcp {
    fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.runtime.poll_io(self.token, Direction::Write, cx, || {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            match self.stream.peer_addr() {
                Ok(_) => self.stream.set_nodelay(true),
                // The event was not about the connection.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    Err(io::ErrorKind::WouldBlock.into())
                }
                Err(error) => Err(error),
            }
        })
    }
}

impl DnsTcpStream for Tcp {
    type Time = Timer;
}

impl AsyncRead for Tcp {
    /// Postpones every [`READS`]th read to the next turn, and any read beyond the turn's limit for
    /// all tasks.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Some(reactor) = self.runtime.reactor.find() else {
            return Poll::Ready(Err(no_reactor()));
        };
        self.reads += 1;
        if self.reads == READS {
            self.reads = 0;
            reactor.put_off(cx.waker());
            return Poll::Pending;
        }
        if !reactor.may_read(cx.waker()) {
            self.reads = 0;
            return Poll::Pending;
        }
        let read = || (&self.stream).read(buf);
        self.runtime.poll_io(self.token, Direction::Read, cx, read)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = || (&self.stream).write(buf);
        self.runtime
            .poll_io(self.token, Direction::Write, cx, write)
    }

    /// Sends length and message in one segment (RFC 7766 §8). They are joined because a vectored
    /// write can raise SIGPIPE and a plain one does not. A query is short, so the copy is cheap.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let joined: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        self.poll_write(cx, &joined)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shutdown(std::net::Shutdown::Write))
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        if let Some(reactor) = self.runtime.reactor.find() {
            reactor.deregister(&mut self.stream, self.token);
        }
    }
}
