//! Link: one socket's life, from the look-up of its host to its close.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZeroU16;

use crate::h1::H1;
use crate::net::Readiness;
use crate::net::dial::Dial;
use crate::net::handshake::{Handshakes, Layers};
use crate::net::slots::MaybeKey;
use crate::net::tls::TlsState;
use crate::sched::wheel::TimerId;

/// One connection, or the attempt at one. Ten thousand of them may be held: keep it small.
///
/// Exchanges are on it from the dial on: they wait while it connects.
#[derive(Debug)]
pub(crate) struct Link<Socket> {
    pub(crate) reach: Reach<Socket>,
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
    /// Bytes pass through layers, or will: what [`tls_state`](Self::tls_state) need not look for.
    has_layers: bool,
    /// Seconds that the server keeps an idle connection, as its last response said; 1 also for none
    /// at all.
    pub(crate) keep_alive: Option<NonZeroU16>,
}

/// How far a link has come, and what it holds there.
///
/// ```text
/// Waiting ─► Dialing ────┬─ handshakes ─► Shaking ─┐
///  ▲ │           │       │                         ▼
///  │ └─► Connecting ─────┴───────────────────────► Open ◄──► Idle
///  └──── turned away ┘                │              │         │
///                └────────────────────┴──────────────┴─────────┴──► Closed
/// ```
#[derive(Debug)]
pub(crate) enum Reach<Socket> {
    /// It is not dialled yet. Or the listener of its unix socket has no place left in its queue, or
    /// its route's source no port: it connects again when the timer goes off.
    Waiting {
        retry: Option<TimerId>,
        handshakes: Handshakes,
    },
    /// The host is being looked up, its addresses are being tried: several sockets may be under
    /// way.
    Dialing(Box<Dial<Socket>>, Handshakes),
    /// The only address there is, is being connected to.
    Connecting(Socket, Handshakes),
    /// Connected; what stands between is being agreed on.
    Shaking(Socket, Handshakes),
    /// Requests may be exchanged. None is between two of them, while the readback of the first
    /// runs.
    Open(Socket, Layers),
    /// In the pool. Readable here means the peer closed, or spoke out of turn: either way,
    /// unusable.
    Idle(Socket, Layers),
    /// Nothing is left, or it is on its way from one to the other.
    Closed,
}

impl<Socket> Reach<Socket> {
    /// Takes out what is there.
    #[inline]
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Reach::Closed)
    }

    /// Puts another in its place. Where it was [taken](Self::take), as it mostly was, there is
    /// nothing to be dropped, which would cost a call to find out.
    #[inline]
    pub(crate) fn set(&mut self, reach: Self) {
        match std::mem::replace(self, reach) {
            taken @ Reach::Closed => std::mem::forget(taken),
            before => drop(before),
        }
    }

    /// The socket, and the TLS state that bytes pass through.
    #[inline]
    pub(crate) fn wire(&mut self) -> Option<(&Socket, Option<&mut TlsState>)> {
        // As it is nearly always, and apart, so that it is one comparison.
        match self {
            Reach::Open(socket, layers) => Some((socket, layers.tls_state_mut())),
            _ => self.wire_elsewhere(),
        }
    }

    #[inline(never)]
    fn wire_elsewhere(&mut self) -> Option<(&Socket, Option<&mut TlsState>)> {
        match self {
            Reach::Open(socket, layers) | Reach::Idle(socket, layers) => {
                Some((socket, layers.tls_state_mut()))
            }
            Reach::Connecting(socket, handshakes) | Reach::Shaking(socket, handshakes) => {
                Some((socket, handshakes.tls_state_mut()))
            }
            Reach::Waiting { .. } | Reach::Dialing(..) | Reach::Closed => None,
        }
    }
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
    /// One that is to be connected, for one exchange at least.
    pub(crate) fn new(origin: u32) -> Self {
        Self {
            reach: Reach::Waiting {
                retry: None,
                handshakes: Handshakes::none(),
            },
            h1: H1::new(),
            origin,
            roomy: MaybeKey::NONE,
            peer: Peer::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
            readiness: Readiness::NONE,
            is_queued: false,
            is_undelayed: false,
            has_layers: false,
            keep_alive: None,
        }
    }

    /// Takes out all sockets that it holds.
    pub(crate) fn take_sockets(&mut self) -> impl Iterator<Item = Socket> {
        let (only, attempts) = match self.reach.take() {
            Reach::Dialing(mut dial, _) => (None, dial.take_attempts()),
            Reach::Connecting(socket, _)
            | Reach::Shaking(socket, _)
            | Reach::Open(socket, _)
            | Reach::Idle(socket, ..) => (Some(socket), Vec::new()),
            Reach::Waiting { .. } | Reach::Closed => (None, Vec::new()),
        };
        let attempts = attempts.into_iter().map(|attempt| attempt.socket);
        only.into_iter().chain(attempts)
    }

    /// The socket, where there is one, and only one.
    pub(crate) fn socket(&self) -> Option<&Socket> {
        match &self.reach {
            Reach::Connecting(socket, _)
            | Reach::Shaking(socket, _)
            | Reach::Open(socket, _)
            | Reach::Idle(socket, ..) => Some(socket),
            Reach::Waiting { .. } | Reach::Dialing(..) | Reach::Closed => None,
        }
    }

    /// The TLS state that bytes pass through, or will.
    #[inline]
    pub(crate) fn tls_state(&self) -> Option<&TlsState> {
        // Asked several times a request.
        if !self.has_layers {
            return None;
        }
        match &self.reach {
            Reach::Open(_, layers) | Reach::Idle(_, layers) => layers.tls_state(),
            Reach::Waiting { handshakes, .. }
            | Reach::Dialing(_, handshakes)
            | Reach::Connecting(_, handshakes)
            | Reach::Shaking(_, handshakes) => handshakes.tls_state(),
            Reach::Closed => None,
        }
    }

    /// Says what is to be agreed on when it is connected, which it is not.
    pub(crate) fn set_handshakes(&mut self, needed: Handshakes) {
        self.has_layers = !needed.is_empty();
        let handshakes = self.handshakes_mut();
        *handshakes.expect("it is not connected") = needed;
    }

    /// The attempts of a link that is dialling.
    pub(crate) fn dial_mut(&mut self) -> &mut Dial<Socket> {
        match &mut self.reach {
            Reach::Dialing(dial, _) => dial,
            Reach::Waiting { .. }
            | Reach::Connecting(..)
            | Reach::Shaking(..)
            | Reach::Open(..)
            | Reach::Idle(..)
            | Reach::Closed => unreachable!("it is not dialling"),
        }
    }

    /// What is to be agreed on when it is connected; `None` where it is.
    pub(crate) fn handshakes_mut(&mut self) -> Option<&mut Handshakes> {
        match &mut self.reach {
            Reach::Waiting { handshakes, .. }
            | Reach::Dialing(_, handshakes)
            | Reach::Connecting(_, handshakes)
            | Reach::Shaking(_, handshakes) => Some(handshakes),
            Reach::Open(..) | Reach::Idle(..) | Reach::Closed => None,
        }
    }

    /// The chain whose exchange is under way.
    #[inline]
    pub(crate) fn chain(&self) -> Option<u32> {
        self.h1.tag()
    }

    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.reach, Reach::Open(..))
    }

    /// Whether its connection is open and an exchange under way on it.
    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        self.is_open() && self.h1.front().is_some()
    }

    /// Whether something waits for the socket to take more: of a request, or of what its TLS state
    /// has to say.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.h1.has_unwritten() || self.has_outbound()
    }

    /// Whether its TLS state has something for the socket.
    #[inline]
    pub(crate) fn has_outbound(&self) -> bool {
        self.tls_state().is_some_and(TlsState::has_outbound)
    }
}
