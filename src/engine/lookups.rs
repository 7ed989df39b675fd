//! Looking up hosts: the names that are known or asked for, and what is known of their addresses.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::net::dial::Doubts;
use crate::net::names::Names;

/// Timers of the resolver that are later than this were not run in time since the host was away.
const LATE: Duration = Duration::from_millis(5);

/// Turns for which the resolver's timers, and deadlines of look-ups, are put off while the poll may
/// have more to tell. They follow each other at once: what was there when the host came back has
/// been told by then.
pub(super) const MOST_PUT_OFF: u8 = 64;

/// Names, and addresses that failed lately.
pub(super) struct Lookups {
    pub(super) names: Names,
    doubts: Doubts,
    /// Turns for which the resolver's timers have been put off, since it may not have been told of
    /// everything.
    put_off: u8,
}

impl Lookups {
    pub(super) fn new(names: Names) -> Self {
        Self {
            names,
            doubts: Doubts::default(),
            put_off: 0,
        }
    }

    /// `addr` could not be connected to, or lost to one that was dialled after it.
    pub(super) fn doubt(&mut self, addr: SocketAddr, now: Instant) {
        self.doubts.add(addr, now);
    }

    /// `addr` was connected to.
    pub(super) fn trust(&mut self, addr: SocketAddr) {
        self.doubts.clear(addr);
    }

    pub(super) fn is_doubtful(&self, addr: SocketAddr, now: Instant) -> bool {
        self.doubts.has(addr, now)
    }

    /// This machine is on another network: what was learnt of the last one is forgotten.
    pub(super) fn on_network_changed(&mut self) {
        self.doubts = Doubts::default();
        self.names.on_network_changed();
    }

    /// Whether the resolver's timers are so late that the host was away, and are to be put off:
    /// what it waits for may have come, without the poll having told of it (`may_hear_more`).
    #[inline]
    pub(super) fn puts_off(&mut self, may_hear_more: bool, now: Instant) -> bool {
        let is_late = |at: Instant| now.saturating_duration_since(at) > LATE;
        let is_late = self.names.deadline().is_some_and(is_late);
        self.put_off = if may_hear_more && is_late && self.put_off < MOST_PUT_OFF {
            self.put_off + 1
        } else {
            0
        };
        self.is_put_off()
    }

    #[inline]
    pub(super) fn is_put_off(&self) -> bool {
        self.put_off > 0
    }
}
