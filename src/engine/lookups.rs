//! Host lookups: names, and the addresses that failed recently.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::net::dial::Doubts;
use crate::net::names::Names;

/// If the resolver's timers are overdue by more than this, the host did not run the engine in time.
const LATE: Duration = Duration::from_millis(5);

/// The number of turns for which the resolver's timers and the deadlines of lookups are postponed
/// while the poll may have more to report. These turns follow each other at once, so by their end
/// all events that were there when the host resumed have been reported.
pub(super) const MOST_PUT_OFF: u8 = 64;

/// Names, and addresses that failed recently.
pub(super) struct Lookups {
    pub(super) names: Names,
    doubts: Doubts,
    /// The number of turns for which the resolver's timers have been postponed so far, because the
    /// resolver may not have received all its events.
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

    /// Marks an address as doubtful: connecting to it failed, or a later address was faster.
    pub(super) fn doubt(&mut self, addr: SocketAddr, now: Instant) {
        self.doubts.add(addr, now);
    }

    /// Clears the doubt about an address that was connected to.
    pub(super) fn trust(&mut self, addr: SocketAddr) {
        self.doubts.clear(addr);
    }

    /// Returns whether an address failed recently and is to be tried last.
    pub(super) fn is_doubtful(&self, addr: SocketAddr, now: Instant) -> bool {
        self.doubts.has(addr, now)
    }

    /// Discards everything learned about the previous network.
    pub(super) fn on_network_changed(&mut self) {
        self.doubts = Doubts::default();
        self.names.on_network_changed();
    }

    /// Determines whether to postpone the resolver's timers. They are postponed if they are so late
    /// that the host must have been away, and if the poll may have more to report
    /// (`may_hear_more`), because the awaited answers may have arrived.
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

    /// Returns whether the resolver's timers are currently postponed.
    #[inline]
    pub(super) fn is_put_off(&self) -> bool {
        self.put_off > 0
    }
}
