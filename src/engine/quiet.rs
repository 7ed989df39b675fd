//! Whether a kept connection is quiet: that nothing stands unread on it when it is given a request.
//!
//! Bytes that come while no request is outstanding answer none, and a connection that the peer has
//! closed is not to be used (RFC 9112 §9.2, §9.3.1). Both may have happened since the engine last
//! looked: while the host was busy elsewhere, while a readback worked, or a moment ago, with the
//! event still to be dealt with. So a connection is given out only if it is known to have been
//! quiet within [`LASTING`], and is read from otherwise.
//!
//! That read costs a system call. A chain that goes on at once does not pay for it: its connection
//! was found empty by the read that brought its response. Nor does a request that begins after a
//! poll which had nothing to tell of an idle connection.

use mio::Token;

use crate::net::slots::LinkKey;
use crate::net::{Heard, Ready};

/// How long a connection is believed to be as it was found, in microseconds.
pub(super) const LASTING: u64 = 1000;

/// Events still to be dealt with that are looked through for one of an idle connection; with more,
/// the connection is read from.
const LOOKED_THROUGH: usize = 256;

/// Connections parked in this turn that are remembered to have been quiet. What is parked last is
/// taken first.
const REMEMBERED: usize = 8;

/// When connections were found quiet in this turn. Times are microseconds of the engine's life.
/// Between turns nothing is known.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// When the poll told all it had to tell.
    heard_at: Option<u64>,
    /// The connection that was found empty last, by a read.
    pub(super) drained: Option<(LinkKey, u64)>,
    /// Those that came to the pool in this turn.
    parked: Vec<(LinkKey, u64)>,
    /// What probes of TLS states have cost, in bytes, since a turn's budget was last charged with
    /// it.
    pub(super) cost: usize,
}

impl Quiet {
    /// What was known holds no longer: time has gone by that the engine did not see.
    pub(super) fn forget(&mut self) {
        self.heard_at = None;
        self.drained = None;
        self.parked.clear();
    }

    /// The poll was asked.
    pub(super) fn on_heard(&mut self, heard: Heard, now: u64) {
        self.heard_at = match heard {
            Heard::All => Some(now),
            Heard::Some => None,
        };
    }

    /// Whether the poll has told all it had to tell in this turn.
    pub(super) fn has_heard_all(&self) -> bool {
        self.heard_at.is_some()
    }

    /// A read has found a connection empty.
    #[inline(always)]
    pub(super) fn on_drained(&mut self, link: LinkKey, now: u64) {
        self.drained = Some((link, now));
    }

    /// When a read last found the connection empty, if it was the last to be read.
    pub(super) fn drained_at(&self, link: LinkKey) -> Option<u64> {
        self.drained
            .filter(|(drained, _)| *drained == link)
            .map(|(_, at)| at)
    }

    /// A connection that has just been read comes to the pool.
    pub(super) fn on_parked(&mut self, link: LinkKey) {
        if let Some(at) = self.drained_at(link) {
            self.parked.push((link, at));
        }
    }

    /// When a connection that was idle was last known to be quiet. `rest` are the events still to
    /// be dealt with.
    pub(super) fn idle_at(&mut self, link: LinkKey, token: Token, rest: &[Ready]) -> Option<u64> {
        let mut recent = self.parked.iter().enumerate().rev().take(REMEMBERED);
        if let Some((place, _)) = recent.find(|(_, (parked, _))| *parked == link) {
            return Some(self.parked.swap_remove(place).1);
        }
        let heard_at = self.heard_at?;
        let is_told = rest.len() > LOOKED_THROUGH || rest.iter().any(|event| event.token == token);
        (!is_told).then_some(heard_at)
    }
}
