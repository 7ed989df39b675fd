//! Ids of chains.

use std::fmt;

/// Names a chain: the request, its retries, follow-ons and delays, until done. Never reused.
///
/// Ids order by nothing in particular; ids of one engine mean nothing to another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(u64);

impl ChainId {
    /// Set in ids that a [`Submitter`](crate::Submitter) gave out before the engine had a slot for
    /// the chain.
    const REMOTE: u64 = 1 << 63;

    /// Names no chain, and never will.
    pub(crate) const NONE: Self = Self(Self::REMOTE);

    #[inline]
    pub(crate) fn local(key: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(key))
    }

    pub(crate) fn remote(number: u64) -> Self {
        Self(Self::REMOTE | number)
    }

    /// Slot and generation of one that is not remote.
    #[inline]
    pub(crate) fn parts(self) -> (u32, u32) {
        (self.0 as u32, (self.0 >> 32) as u32)
    }

    #[inline]
    pub(crate) fn is_remote(self) -> bool {
        self.0 & Self::REMOTE != 0
    }

    /// As a number, for tables of the host's own.
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// Back from [`to_u64`](Self::to_u64). A number that never was an id names no chain.
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
