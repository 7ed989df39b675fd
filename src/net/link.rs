//! Link: one socket's life, from the look-up of its host to its close.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZeroU16;

use crate::net::Readiness;
use crate::net::collected::Collected;
use crate::net::dial::Dial;
use crate::net::pipeline::Pipeline;
use crate::net::slots::MaybeKey;
use crate::net::tls::Session;
use crate::proto::connection::Connection;
use crate::proto::field::Field;
use crate::proto::head::Head;
use crate::sched::wheel::TimerId;

/// One connection, or the attempt at one. Ten thousand of them may be held: keep it small.
#[derive(Debug)]
pub(crate) struct Link<Socket> {
    pub(crate) state: State<Socket>,
    /// None while dialling.
    pub(crate) socket: Option<Socket>,
    /// Of an https link.
    pub(crate) session: Option<Session>,
    /// Slab key of its origin.
    pub(crate) origin: u32,
    /// The address that it is connected to, or about to be; unspecified for a unix socket.
    pub(crate) peer: Peer,
    /// What the poll has told and no call has refuted yet.
    pub(crate) readiness: Readiness,
    pub(crate) marks: LinkMarks,
    /// Which of the engine's blocks of default fields goes with the request.
    pub(crate) defaults: u16,
    /// Seconds that the server keeps an idle connection, as its last response said; 1 also for none at all.
    pub(crate) keep_alive: Option<NonZeroU16>,
    /// How far the response has been read.
    pub(crate) connection: Connection,
    pub(crate) times: Times,
    /// What is kept of a response that did not arrive whole.
    pub(crate) inbound: Option<Box<Inbound>>,
    /// While all its requests are pipelined ones: those behind the one under way.
    pub(crate) pipeline: Option<Box<Pipeline>>,
}

/// In a pipeline, `Busy` follows `Busy`: the next in line is then the one under way.
///
/// ```text
/// Dialing ────┬─ https ─► Handshaking ─┐
///     │       │                        ▼
/// Connecting ─┴──────────────────────► Busy ◄──► Resting ◄──► Idle
///     ▲                   │              │          │           │
///     ▼                   │              │          │           │
/// TurnedAway ─────────────┴──────────────┴──────────┴───────────┴──► closed
/// ```
#[derive(Debug)]
pub(crate) enum State<Socket> {
    /// The host is being looked up, its addresses are being tried: several sockets may be under way.
    Dialing { chain: u32, dial: Box<Dial<Socket>> },
    /// The only address there is, is being connected to.
    Connecting { chain: u32 },
    /// Connected; TLS is being agreed on.
    Handshaking { chain: u32 },
    /// The listener of its unix socket has no place left in its queue, or its route's source no port: it connects again when the timer
    /// goes off.
    TurnedAway { chain: u32, retry: TimerId },
    /// An exchange is under way; `written` bytes of its request are. Those behind it are in the link's pipeline.
    Busy { chain: u32, written: usize },
    /// Between two exchanges, while the readback of the first runs.
    Resting,
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

/// A set of marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkMarks(u16);

impl LinkMarks {
    /// It has served an exchange before the present one.
    pub(crate) const REUSED: Self = Self(1);
    /// A byte of the present response has been read.
    pub(crate) const RECEIVED: Self = Self(2);
    /// The whole request is written.
    pub(crate) const SENT: Self = Self(4);
    /// It must not be used for another exchange.
    pub(crate) const CLOSE: Self = Self(8);
    /// No more of the request is to be written: the peer refused it, or writing failed.
    pub(crate) const MUTE: Self = Self(16);
    /// The body waits for a 100 (Continue).
    pub(crate) const BODY_HELD: Self = Self(32);
    /// The request carries `Expect: 100-continue`.
    pub(crate) const EXPECTING: Self = Self(64);
    /// It stands on the run queue.
    pub(crate) const QUEUED: Self = Self(128);
    /// Small segments go out at once.
    pub(crate) const NODELAY: Self = Self(256);
    /// Its readback wants the body piece by piece.
    pub(crate) const STREAM: Self = Self(512);
    /// Its readback does not want the body.
    pub(crate) const DISCARD: Self = Self(1024);
    /// All but the body is written, and the chain's timer lets the body go if no 100 (Continue) does before.
    pub(crate) const AWAITING: Self = Self(2048);
    /// Writing has failed by a reset: what follows as an end of file is none.
    pub(crate) const RESET: Self = Self(4096);
    /// Everything written on it is answered, and what stands in its pipeline is unwritten: before
    /// that is sent, the connection is looked at.
    pub(crate) const UNSURE: Self = Self(8192);

    pub(crate) fn has(self, any_of: Self) -> bool {
        self.0 & any_of.0 != 0
    }

    pub(crate) fn set(&mut self, mark: Self) {
        self.0 |= mark.0;
    }

    pub(crate) fn clear(&mut self, mark: Self) {
        self.0 &= !mark.0;
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What stays true of the link when its exchange is over.
    pub(crate) fn lasting(self) -> Self {
        Self(self.0 & (Self::NODELAY.0 | Self::QUEUED.0))
    }

    /// What stays true of the connection for the next request in its pipeline, which may be written already.
    pub(crate) fn for_next_in_line(self) -> Self {
        let of_connection = Self(self.0 & (Self::CLOSE.0 | Self::MUTE.0 | Self::RESET.0));
        self.lasting().and(of_connection)
    }
}

/// When steps were done, in microseconds after the request's start; 0 is "not (yet)".
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub(crate) resolve: u32,
    pub(crate) connect: u32,
    pub(crate) tls: u32,
    pub(crate) sent: u32,
    pub(crate) first_byte: u32,
}

/// What is kept of a response that did not arrive whole. Recycled.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    /// The head section; while it is incomplete, all that has come.
    pub(crate) section: Vec<u8>,
    pub(crate) head: Head,
    pub(crate) body: Collected,
    pub(crate) trailers: Vec<u8>,
    pub(crate) trailer_fields: Vec<Field>,
    /// Read, but held back by a pause.
    pub(crate) held: Vec<u8>,
}

impl Inbound {
    /// Empty again, its buffers kept.
    pub(crate) fn clear(&mut self) {
        self.section.clear();
        self.body.clear();
        self.trailers.clear();
        self.trailer_fields.clear();
        self.held.clear();
    }

    /// Bytes that its buffers take.
    pub(crate) fn capacity(&self) -> usize {
        self.section.capacity()
            + self.body.capacity()
            + self.trailers.capacity()
            + self.held.capacity()
    }
}

impl<Socket> Link<Socket> {
    pub(crate) fn new(origin: u32, chain: u32) -> Self {
        Self {
            state: State::Connecting { chain },
            socket: None,
            session: None,
            origin,
            peer: Peer::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
            readiness: Readiness::NONE,
            marks: LinkMarks::default(),
            defaults: 0,
            keep_alive: None,
            connection: Connection::new(),
            times: Times::default(),
            inbound: None,
            pipeline: None,
        }
    }

    /// Takes out all sockets that it holds.
    pub(crate) fn take_sockets(&mut self) -> impl Iterator<Item = Socket> {
        let attempts = match &mut self.state {
            State::Dialing { dial, .. } => dial.take_attempts(),
            State::Connecting { .. }
            | State::Handshaking { .. }
            | State::TurnedAway { .. }
            | State::Busy { .. }
            | State::Resting
            | State::Idle(_) => Vec::new(),
        };
        let sockets = attempts.into_iter().map(|attempt| attempt.socket);
        self.socket.take().into_iter().chain(sockets)
    }

    /// The chain whose exchange is under way.
    pub(crate) fn chain(&self) -> Option<u32> {
        match self.state {
            State::Dialing { chain, .. }
            | State::Connecting { chain }
            | State::Handshaking { chain }
            | State::TurnedAway { chain, .. }
            | State::Busy { chain, .. } => Some(chain),
            State::Resting | State::Idle(_) => None,
        }
    }

    /// Whether something waits for the socket to take more: of a request, or of what its session has to say.
    pub(crate) fn has_unwritten(&self) -> bool {
        !self.marks.has(LinkMarks::SENT)
            || self.has_outbound()
            || self.pipeline.as_ref().is_some_and(|p| p.has_unwritten())
    }

    /// Whether its session has something for the socket.
    pub(crate) fn has_outbound(&self) -> bool {
        self.session.as_ref().is_some_and(Session::has_outbound)
    }

    /// Bytes of the present request that this machine has taken.
    pub(crate) fn written(&self) -> usize {
        match self.state {
            State::Busy { written, .. } => written,
            _ => 0,
        }
    }
}
