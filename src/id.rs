//! Ids of chains and connections.

use std::fmt;

/// Identifies a chain, with its retries, follow-ons and delays, until it is done. Ids are never
/// reused.
///
/// Their order has no meaning, and the ids of one engine mean nothing to another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(u64);

impl ChainId {
    /// Set in ids that a [`Submitter`](crate::Submitter) assigned before the engine had a slot for
    /// the chain.
    const REMOTE: u64 = 1 << 63;

    /// The id of no chain, now or later.
    pub(crate) const NONE: Self = Self(Self::REMOTE);

    #[inline]
    pub(crate) fn local(key: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(key))
    }

    pub(crate) fn remote(number: u64) -> Self {
        Self(Self::REMOTE | number)
    }

    /// Returns slot and generation of an id that is not remote.
    #[inline]
    pub(crate) fn parts(self) -> (u32, u32) {
        (self.0 as u32, (self.0 >> 32) as u32)
    }

    #[inline]
    pub(crate) fn is_remote(self) -> bool {
        self.0 & Self::REMOTE != 0
    }

    /// Returns the id as a number, for tables of the caller's own.
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// Converts a number from [`to_u64`](Self::to_u64) back to the id. A number that was never an
    /// id identifies no chain.
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }
}

/// The number of [`to_u64`](ChainId::to_u64).
impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_remote() {
            write!(f, "ChainId(remote {})", self.0 & !Self::REMOTE)
        } else {
            write!(f, "ChainId({}.{})", self.0 as u32, self.0 >> 32)
        }
    }
}

/// Identifies a connection of an engine. Two responses with the same id came over the same
/// connection.
///
/// Ids are not reused until one place in the engine's table of connections has been used 2³¹ times
/// (32,768 times on 32-bit platforms). Their order has no meaning, and the ids of one engine mean
/// nothing to another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl ConnectionId {
    pub(crate) fn new(slot: u32, generation: usize) -> Self {
        Self((generation as u64) << 32 | u64::from(slot))
    }

    /// Returns the id as a number, for tables of the caller's own.
    pub fn to_u64(self) -> u64 {
        self.0
    }
}

/// The number of [`to_u64`](ConnectionId::to_u64).
impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionId({}.{})", self.0 as u32, self.0 >> 32)
    }
}
