//! The life of one connection, from the lookup of its host to its close.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroU16;

use crate::h1::H1;
use crate::net::Readiness;
use crate::net::dial::Dial;
use crate::net::handshake::{Handshakes, Layers};
use crate::net::slots::MaybeKey;
use crate::net::tls::TlsState;
use crate::sched::wheel::TimerId;

/// A connection, or an attempt to make one. There may be ten thousand of them, so the type must
/// stay small.
///
/// Exchanges are assigned to a link from the dial on: they wait while it connects.
#[derive(Debug)]
pub(crate) struct Link<Socket> {
    pub(crate) reach: Reach<Socket>,
    /// The exchanges on this link. Each is tagged with its chain.
    pub(crate) h1: H1<u32>,
    /// Slab key of the origin.
    pub(crate) origin: u32,
    /// The link's place in the origin's list of links that accept more requests.
    pub(crate) roomy: MaybeKey,
    /// The address that the link is connected to or about to connect to, and its own. Unspecified
    /// for a unix socket.
    pub(crate) ends: Ends,
    /// Readiness that the poll has reported and no call has refuted yet.
    pub(crate) readiness: Readiness,
    /// The link is on the run queue.
    pub(crate) is_queued: bool,
    /// Small segments go out at once (TCP_NODELAY).
    pub(crate) is_undelayed: bool,
    /// Bytes pass through layers, or will. Lets [`tls_state`](Self::tls_state) return early.
    has_layers: bool,
    /// Seconds for which the server keeps an idle connection, according to its last response. 0 is
    /// stored as 1.
    pub(crate) keep_alive: Option<NonZeroU16>,
}

/// How far a link has come, with what it holds in that state.
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
    /// Not dialed yet. Or it was turned away, because the listener of its unix socket has a full
    /// backlog or the route's source address has no free port: it connects again when the timer
    /// expires.
    Waiting {
        retry: Option<TimerId>,
        handshakes: Handshakes,
    },
    /// The host is being looked up or its addresses are being tried, with possibly several sockets
    /// at once.
    Dialing(Box<Dial<Socket>>, Handshakes),
    /// The host's only address is being connected to.
    Connecting(Socket, Handshakes),
    /// Connected. The handshakes are running.
    Shaking(Socket, Handshakes),
    /// Ready for requests. Has no exchange between two requests, while the readback of the first
    /// one runs.
    Open(Socket, Layers),
    /// In the pool. If it becomes readable, the peer has closed the connection or sent something
    /// unsolicited. Either way, it is unusable.
    Idle(Socket, Layers),
    /// Nothing is left, or the link is between two states.
    Closed,
}

impl<Socket> Reach<Socket> {
    /// Takes the state out, and leaves `Closed`.
    #[inline]
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Reach::Closed)
    }

    /// Replaces the state. It has usually been [taken](Self::take) before, and `forget` spares a
    /// call that would drop nothing.
    #[inline]
    pub(crate) fn set(&mut self, reach: Self) {
        match std::mem::replace(self, reach) {
            taken @ Reach::Closed => std::mem::forget(taken),
            before => drop(before),
        }
    }

    /// Returns the socket, and the TLS state that bytes pass through.
    #[inline]
    pub(crate) fn wire(&mut self) -> Option<(&Socket, Option<&mut TlsState>)> {
        // The usual state, kept apart so that it takes a single comparison.
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

/// The addresses of both ends of a connection, in half the size of one [`SocketAddr`]. IPv6
/// addresses are boxed because they are less common.
#[derive(Debug)]
pub(crate) enum Ends {
    V4 {
        peer: SocketAddrV4,
        local: SocketAddrV4,
    },
    V6(Box<(SocketAddr, SocketAddr)>),
}

/// A copy of [`Ends`], as cheap to make as the common case allows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BothEnds {
    V4 {
        peer: SocketAddrV4,
        local: SocketAddrV4,
    },
    V6((SocketAddr, SocketAddr)),
}

impl Ends {
    const NONE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);

    /// Stands for an address that is not known.
    pub(crate) const UNKNOWN: SocketAddr = SocketAddr::V4(Self::NONE);

    /// The ends of a connection without addresses.
    pub(crate) const UNSPECIFIED: Self = Self::V4 {
        peer: Self::NONE,
        local: Self::NONE,
    };

    pub(crate) fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        match (peer, local) {
            (SocketAddr::V4(peer), SocketAddr::V4(local)) => Self::V4 { peer, local },
            (peer, local) => Self::V6(Box::new((peer, local))),
        }
    }

    /// The ends of a connection that is about to be made. Its local address is not known yet.
    pub(crate) fn towards(peer: SocketAddr) -> Self {
        Self::new(peer, Self::UNKNOWN)
    }

    #[inline]
    pub(crate) fn peer(&self) -> SocketAddr {
        self.both().addresses().0
    }

    #[inline(always)]
    pub(crate) fn both(&self) -> BothEnds {
        match self {
            Self::V4 { peer, local } => BothEnds::V4 {
                peer: *peer,
                local: *local,
            },
            Self::V6(both) => BothEnds::V6(**both),
        }
    }
}

impl BothEnds {
    /// Returns the address of the peer, and the local one.
    pub(crate) fn addresses(self) -> (SocketAddr, SocketAddr) {
        match self {
            Self::V4 { peer, local } => (peer.into(), local.into()),
            Self::V6(both) => both,
        }
    }
}

impl<Socket> Link<Socket> {
    /// Creates a link that has yet to connect.
    pub(crate) fn new(origin: u32) -> Self {
        Self {
            reach: Reach::Waiting {
                retry: None,
                handshakes: Handshakes::none(),
            },
            h1: H1::new(),
            origin,
            roomy: MaybeKey::NONE,
            ends: Ends::UNSPECIFIED,
            readiness: Readiness::NONE,
            is_queued: false,
            is_undelayed: false,
            has_layers: false,
            keep_alive: None,
        }
    }

    /// Takes all its sockets out.
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

    /// Returns the link's socket, if it has exactly one.
    pub(crate) fn socket(&self) -> Option<&Socket> {
        match &self.reach {
            Reach::Connecting(socket, _)
            | Reach::Shaking(socket, _)
            | Reach::Open(socket, _)
            | Reach::Idle(socket, ..) => Some(socket),
            Reach::Waiting { .. } | Reach::Dialing(..) | Reach::Closed => None,
        }
    }

    /// Returns the TLS state that bytes pass through, now or once connected.
    #[inline]
    pub(crate) fn tls_state(&self) -> Option<&TlsState> {
        // This runs several times per request.
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

    /// Sets the handshakes to perform once the link is connected, which it must not be yet.
    pub(crate) fn set_handshakes(&mut self, needed: Handshakes) {
        self.has_layers = !needed.is_empty();
        let handshakes = self.handshakes_mut();
        *handshakes.expect("the link is not open yet") = needed;
    }

    /// Returns the connection attempts of a link that is dialing.
    ///
    /// # Panics
    /// Panics if the link is not dialing.
    pub(crate) fn dial_mut(&mut self) -> &mut Dial<Socket> {
        match &mut self.reach {
            Reach::Dialing(dial, _) => dial,
            Reach::Waiting { .. }
            | Reach::Connecting(..)
            | Reach::Shaking(..)
            | Reach::Open(..)
            | Reach::Idle(..)
            | Reach::Closed => unreachable!("the link is not dialing"),
        }
    }

    /// Returns the handshakes that are still to be performed, or `None` if the link is open.
    pub(crate) fn handshakes_mut(&mut self) -> Option<&mut Handshakes> {
        match &mut self.reach {
            Reach::Waiting { handshakes, .. }
            | Reach::Dialing(_, handshakes)
            | Reach::Connecting(_, handshakes)
            | Reach::Shaking(_, handshakes) => Some(handshakes),
            Reach::Open(..) | Reach::Idle(..) | Reach::Closed => None,
        }
    }

    /// Returns the chain whose exchange is at the front.
    #[inline]
    pub(crate) fn chain(&self) -> Option<u32> {
        self.h1.tag()
    }

    /// Returns whether the connection is still being made, handshakes included.
    pub(crate) fn is_dialing(&self) -> bool {
        match self.reach {
            Reach::Waiting { .. }
            | Reach::Dialing(..)
            | Reach::Connecting(..)
            | Reach::Shaking(..) => true,
            Reach::Open(..) | Reach::Idle(..) | Reach::Closed => false,
        }
    }

    /// Returns whether the connection is in the pool.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.reach, Reach::Idle(..))
    }

    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.reach, Reach::Open(..))
    }

    /// Returns whether the connection is open and has an exchange in progress.
    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        self.is_open() && self.h1.front().is_some()
    }

    /// Returns whether anything waits to be written to the socket: part of a request, or TLS
    /// records.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.h1.has_unwritten() || self.has_outbound()
    }

    /// Returns whether the TLS state has bytes for the socket.
    #[inline]
    pub(crate) fn has_outbound(&self) -> bool {
        self.tls_state().is_some_and(TlsState::has_outbound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_are_kept_and_take_no_more_room_than_one_did() {
        assert_eq!(size_of::<Ends>(), 16);
        let rows = [
            ("192.0.2.1:80", "192.0.2.9:40000", "IPv4"),
            ("[2001:db8::1]:80", "[2001:db8::9]:40000", "IPv6"),
            ("[fe80::1%3]:80", "[fe80::9%3]:40000", "IPv6 with a scope"),
            (
                "[::ffff:192.0.2.1]:80",
                "192.0.2.9:40000",
                "a mapped address",
            ),
        ];
        for (peer, local, why) in rows {
            let (peer, local) = (peer.parse().unwrap(), local.parse().unwrap());
            assert_eq!(
                Ends::new(peer, local).both().addresses(),
                (peer, local),
                "{why}"
            );
            assert_eq!(Ends::towards(peer).peer(), peer, "{why}");
        }
    }
}
