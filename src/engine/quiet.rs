//! Tracks whether kept connections are quiet: an idle connection must have no unread data when a
//! request is sent on it.
//!
//! Bytes that arrive while no request is outstanding answer none, and a connection that the peer
//! has closed must not be used (RFC 9112 §9.2, §9.3.1). Either may have happened since the
//! connection was last checked: while the host was busy elsewhere, while a readback ran, or a
//! moment ago, with the event not processed yet. So a connection carries a request only if it is
//! known to have been quiet within [`LASTING`]; otherwise it is read from first.
//!
//! That read costs a system call. A chain that continues at once does not pay for it, because the
//! read that returned its response found the connection empty. Nor does a request that begins after
//! a poll that reported nothing about an idle connection.

use mio::Token;

use crate::net::slots::LinkKey;
use crate::net::{Heard, Ready};

/// How long a connection counts as quiet after it was found to be quiet, in microseconds.
pub(super) const LASTING: u64 = 1000;

/// The maximum number of unprocessed events that are searched for one of an idle connection. If
/// there are more, the connection is read from.
const LOOKED_THROUGH: usize = 256;

/// The number of connections parked in this turn that are searched for one to be reused. The pool
/// returns the newest first, so it is usually among the last.
const REMEMBERED: usize = 8;

/// The times at which connections were found to be quiet in this turn, in microseconds of the
/// engine's life. Nothing is carried over to the next turn.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// When a poll last reported all events.
    heard_at: Option<u64>,
    /// The last connection that a read found empty, and when.
    pub(super) drained: Option<(LinkKey, u64)>,
    /// The connections that were parked in this turn, and when they were found empty.
    parked: Vec<(LinkKey, u64)>,
    /// The cost of probing TLS states, in bytes, that has not been charged to a turn's budget yet.
    pub(super) cost: usize,
}

impl Quiet {
    /// Discards everything, because time has passed without any checks.
    pub(super) fn forget(&mut self) {
        self.heard_at = None;
        self.drained = None;
        self.parked.clear();
    }

    /// Records the outcome of a poll.
    pub(super) fn on_heard(&mut self, heard: Heard, now: u64) {
        self.heard_at = match heard {
            Heard::All => Some(now),
            Heard::Some => None,
        };
    }

    /// Returns whether the poll has reported all events in this turn.
    pub(super) fn has_heard_all(&self) -> bool {
        self.heard_at.is_some()
    }

    /// Records that a read has found a connection empty.
    #[inline(always)]
    pub(super) fn on_drained(&mut self, link: LinkKey, now: u64) {
        self.drained = Some((link, now));
    }

    /// Discards what is known of a connection's slot, because another connection has it now.
    pub(super) fn forget_link(&mut self, link: LinkKey) {
        self.drained = self.drained.filter(|(drained, _)| *drained != link);
        self.parked.retain(|(parked, _)| *parked != link);
    }

    /// Returns when a read found the connection empty, if it was the last one to be read.
    pub(super) fn drained_at(&self, link: LinkKey) -> Option<u64> {
        self.drained
            .filter(|(drained, _)| *drained == link)
            .map(|(_, at)| at)
    }

    /// Records that a connection was parked right after it was read.
    pub(super) fn on_parked(&mut self, link: LinkKey) {
        if let Some(at) = self.drained_at(link) {
            self.parked.push((link, at));
        }
    }

    /// Returns when an idle connection was last known to be quiet. `rest` contains the events that
    /// are not processed yet.
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
