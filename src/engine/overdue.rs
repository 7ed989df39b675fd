//! Expired deadlines of chains on links. Before such a deadline takes effect, the engine connects,
//! writes to and reads from the link: the host may have been away, and the awaited bytes may have
//! arrived.

use crate::engine::Engine;
use crate::engine::agenda::Overdue;
use crate::engine::chain::{Marks, Stage};
use crate::engine::core::Core;
use crate::engine::lookups::MOST_PUT_OFF;
use crate::engine::mode::Mode;
use crate::net::link::Reach;
use crate::net::slots::LinkKey;
use crate::net::tls::TlsState;
use crate::net::{Net, Readiness};

impl<S, M: Mode> Engine<S, M> {
    /// Checks the links on which a deadline has expired, and ends the exchanges that then make no
    /// progress.
    pub(super) fn on_overdue(&mut self, state: &mut S, budget: &mut usize) {
        for _ in 0..self.core.agenda.overdue.len() {
            if *budget == 0 || self.core.panic.is_some() {
                return;
            }
            let Some(mut overdue) = self.core.agenda.overdue.pop_front() else {
                return;
            };
            let Some(link) = self.core.overdue_link(&overdue) else {
                continue;
            };
            if self.core.is_looked_up(link) {
                // The resolver's sockets are not accessible from here. If the poll may have more to
                // report about them, they get a few more turns.
                overdue.turns += 1;
                if overdue.turns < MOST_PUT_OFF && self.core.may_hear_more() {
                    self.core.agenda.overdue.push_back(overdue)
                } else {
                    self.core.time_out(overdue.chain, link)
                }
                continue;
            }
            // Both are assumed, because the poll may not have reported everything. The calls show
            // which apply.
            let both = Readiness::READABLE.with(Readiness::WRITABLE);
            self.core.links[link].readiness = self.core.links[link].readiness.with(both);
            let before = self.core.counts.bytes_in;
            self.on_link(state, link, budget);
            self.core.settle_and_park();
            let Some(link) = self.core.overdue_link(&overdue) else {
                continue;
            };
            let read = usize::try_from(self.core.counts.bytes_in - before).unwrap_or(usize::MAX);
            overdue.left = overdue.left.saturating_sub(read);
            let may_go_on = overdue.left > 0 && self.core.clock.tick() < overdue.until;
            if may_go_on && self.core.is_unread(link) {
                self.core.agenda.overdue.push_back(overdue);
            } else if overdue.mark == Marks::SLOW {
                self.core.end_window(overdue.chain, link);
            } else {
                self.core.time_out(overdue.chain, link);
            }
        }
    }
}

impl<N: Net> Core<N> {
    /// Returns the link on which a deadline is overdue, or `None` if the chain has progressed.
    fn overdue_link(&mut self, overdue: &Overdue) -> Option<LinkKey> {
        let chain = self.chains.get_mut(overdue.chain)?;
        let link = self.links.find(overdue.link);
        let is_there = link.is_some_and(|link| chain.stage == Stage::Running { link });
        if is_there && chain.marks.has(overdue.mark) {
            return link;
        }
        let is_due = chain.marks.has(overdue.mark);
        chain.marks.clear(overdue.mark);
        if is_due && self.chain_is_over(overdue.chain) {
            // The link ended and the request was placed again: the chain ends where it is now.
            self.expire(overdue.chain);
            return None;
        }
        let chain = &self.chains[overdue.chain];
        let waits = matches!(chain.stage, Stage::Queued { .. } | Stage::Running { .. });
        if is_due && waits && chain.timer.is_none() {
            // The link ended and the request was placed again: its deadlines start anew.
            self.arm(overdue.chain, None);
        }
        None
    }

    /// Returns whether a link's host is still being looked up.
    fn is_looked_up(&self, key: LinkKey) -> bool {
        matches!(&self.links[key].reach, Reach::Dialing(dial, _) if !dial.has_begun())
    }

    /// Returns whether more can be read from a link right now.
    fn is_unread(&self, key: LinkKey) -> bool {
        let link = &self.links[key];
        let (Reach::Open(..) | Reach::Shaking(..), Some(chain)) = (&link.reach, link.chain())
        else {
            return false;
        };
        let pending = link.tls_state().is_some_and(TlsState::has_pending);
        let is_readable = pending || link.readiness.has_any(Readiness::READ_SIDE);
        let is_held = self.chains[chain].marks.has(Marks::PAUSED) || self.holds_reading(chain);
        is_readable && !is_held
    }
}
