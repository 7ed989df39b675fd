//! Link: one socket's life, from the look-up of its host to its close.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZeroU16;

use crate::h1::H1;
use crate::net::Readiness;
use crate::net::dial::Dial;
use crate::net::slots::MaybeKey;
use crate::net::tls::Session;
use crate::sched::wheel::TimerId;

/// One connection, or the attempt at one. Ten thousand of them may be held: keep it small.
///
/// Exchanges are on it from the dial on: they wait while it connects.
#[derive(Debug)]
pub(crate) struct Link<Socket> {
    pub(crate) state: State<Socket>,
    /// None while dialling.
    pub(crate) socket: Option<Socket>,
    /// Of an https link.
    pub(crate) session: Option<Session>,
    /// What is exchanged on it. Each exchange is known by its chain.
    pub(crate) h1: H1<u32>,
    /// Slab key of its origin.
    pub(crate) origin: u32,
    /// Its place among those of its origin that take more requests.
    pub(crate) roomy: MaybeKey,
    /// The address that it is connected to, or about to be; unspecified for a unix socket.
    pub(crate) peer: Peer,
    /// What the poll has told and no call has refuted yet.
    pub(crate) readiness: Readiness,
    /// It stands on the run queue.
    pub(crate) is_queued: bool,
    /// Small segments go out at once (TCP_NODELAY).
    pub(crate) is_undelayed: bool,
    /// Seconds that the server keeps an idle connection, as its last response said; 1 also for none at all.
    pub(crate) keep_alive: Option<NonZeroU16>,
}

/// How far a link has come towards a connection, and where it is kept.
///
/// ```text
/// Dialing ────┬─ https ─► Handshaking ─┐
///     │       │                        ▼
/// Connecting ─┴──────────────────────► Open ◄──► Idle
///     ▲                   │              │         │
///     ▼                   │              │         │
/// TurnedAway ─────────────┴──────────────┴─────────┴──► closed
/// ```
#[derive(Debug)]
pub(crate) enum State<Socket> {
    /// The host is being looked up, its addresses are being tried: several sockets may be under way.
    Dialing(Box<Dial<Socket>>),
    /// The only address there is, is being connected to.
    Connecting,
    /// Connected; TLS is being agreed on.
    Handshaking,
    /// The listener of its unix socket has no place left in its queue, or its route's source no port: it connects again when the timer
    /// goes off.
    TurnedAway { retry: TimerId },
    /// Requests may be exchanged. None is between two of them, while the readback of the first runs.
    Open,
    /// In the pool. Readable here means the peer closed, or spoke out of turn: either way, unusable.
    Idle(Spot),
}

/// An idle link's place in the pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    /// Among the idle links of its origin.
    pub(crate) of_origin: Neighbours,
    /// Among all idle links.
    pub(crate) of_all: Neighbours,
    /// Not to be used from its tick on.
    pub(crate) timer: TimerId,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Neighbours {
    pub(crate) newer: MaybeKey,
    pub(crate) older: MaybeKey,
}

impl Neighbours {
    pub(crate) const NONE: Self = Self {
        newer: MaybeKey::NONE,
        older: MaybeKey::NONE,
    };
}

/// A [`SocketAddr`] in half its size. IPv6 ones are apart, since they are fewer.
#[derive(Debug)]
pub(crate) enum Peer {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
}

impl Peer {
    pub(crate) fn get(&self) -> SocketAddr {
        match self {
            Peer::V4(addr) => SocketAddr::V4(*addr),
            Peer::V6(addr) => SocketAddr::V6(**addr),
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(addr) => Peer::V4(addr),
            SocketAddr::V6(addr) => Peer::V6(Box::new(addr)),
        }
    }
}

impl<Socket> Link<Socket> {
    /// One that is to be connected.
    pub(crate) fn new(origin: u32) -> Self {
        Self {
            state: State::Connecting,
            socket: None,
            session: None,
            h1: H1::new(),
            origin,
            roomy: MaybeKey::NONE,
            peer: Peer::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
            readiness: Readiness::NONE,
            is_queued: false,
            is_undelayed: false,
            keep_alive: None,
        }
    }

    /// Takes out all sockets that it holds.
    pub(crate) fn take_sockets(&mut self) -> impl Iterator<Item = Socket> {
        let attempts = match &mut self.state {
            State::Dialing(dial) => dial.take_attempts(),
            State::Connecting
            | State::Handshaking
            | State::TurnedAway { .. }
            | State::Open
            | State::Idle(_) => Vec::new(),
        };
        let sockets = attempts.into_iter().map(|attempt| attempt.socket);
        self.socket.take().into_iter().chain(sockets)
    }

    /// The chain whose exchange is under way.
    #[inline]
    pub(crate) fn chain(&self) -> Option<u32> {
        self.h1.tag()
    }

    /// Whether its connection is open and an exchange under way on it.
    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.state, State::Open) && self.h1.front().is_some()
    }

    /// Whether something waits for the socket to take more: of a request, or of what its session has to say.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.h1.has_unwritten() || self.has_outbound()
    }

    /// Whether its session has something for the socket.
    #[inline]
    pub(crate) fn has_outbound(&self) -> bool {
        self.session.as_ref().is_some_and(Session::has_outbound)
    }
}
