//! Delays and deadlines. A chain has one timer: for its delay, or for its total deadline or the
//! deadline of its phase, whichever is earlier. The few chains with a deadline as a whole have
//! another timer for that, and so do those whose speed is measured.

use std::time::Duration;

use crate::engine::chain::{ChainKey, Marks, Terms, When};
use crate::engine::clock::tick_after;
use crate::engine::core::{Core, Timer};
use crate::h1::WriteSide;
use crate::h1::exchange::Exchange;
use crate::net::Net;
use crate::net::slots::LinkKey;
use crate::timeouts::Timeout;

impl<N: Net> Core<N> {
    /// Sets the chain's timer to `when`. A relative delay counts from the chain's submission.
    pub(super) fn arm_delay(&mut self, key: ChainKey, when: When) {
        let (from, delay) = match when {
            When::After(delay) => (self.chains[key].submitted, delay),
            When::At(at) => (0, self.clock.life_at(at)),
        };
        match due_tick(from, delay) {
            Some(tick) => self.set_timer(key, tick),
            None => self.disarm(key),
        }
    }

    /// Sets what the current step of a chain, which was returned now, sets for the chain.
    pub(super) fn set_terms(&mut self, key: ChainKey, terms: Terms) {
        let has_timeout = terms.chain_timeout.is_some();
        self.chains.set_terms(key, terms);
        if has_timeout {
            self.arm_chain_deadline(key);
        }
    }

    /// Arms the deadline of a chain as a whole, if it has one. It counts from the chain's
    /// submission.
    #[inline]
    pub(super) fn arm_chain_deadline(&mut self, key: ChainKey) {
        if self.chains.deadlines.is_empty() {
            return;
        }
        let from = self.chains[key].submitted;
        let Some(deadline) = self.chains.deadlines.get_mut(key) else {
            return;
        };
        deadline.tick = due_tick(from, deadline.timeout);
        match (deadline.tick, deadline.timer) {
            (Some(tick), Some(timer)) => self.timers.rearm(timer, tick),
            (Some(tick), None) => {
                deadline.timer = Some(self.timers.arm(tick, Timer::ChainDeadline(key)));
            }
            (None, _) => self.lift_chain_deadline(key),
        }
    }

    /// Removes the deadline of a chain, if it has one.
    #[inline]
    pub(super) fn lift_chain_deadline(&mut self, key: ChainKey) {
        if !self.chains.deadlines.is_empty()
            && let Some(deadline) = self.chains.deadlines.remove(key)
            && let Some(timer) = deadline.timer
        {
            self.timers.cancel(timer);
        }
    }

    /// Returns whether the deadline of a chain as a whole has passed.
    #[inline]
    pub(super) fn chain_is_over(&self, key: ChainKey) -> bool {
        !self.chains.deadlines.is_empty()
            && self
                .chains
                .deadlines
                .get(key)
                .is_some_and(|deadline| deadline.tick.is_some_and(|tick| tick <= self.clock.tick()))
    }

    /// Arms the deadline of a chain's phase, which begins now, or its total deadline if that is
    /// earlier.
    pub(super) fn arm(&mut self, key: ChainKey, timeout: Option<Timeout>) {
        if self.chains[key].marks.has(Marks::METERED) {
            self.arm_metered(key, timeout);
        } else {
            self.arm_as_it_is(key, timeout);
        }
    }

    // Not inlined, so other chains pay for one test only.
    #[cold]
    fn arm_metered(&mut self, key: ChainKey, timeout: Option<Timeout>) {
        let timeout = self.on_phase(key, timeout);
        self.arm_as_it_is(key, timeout);
    }

    #[inline(always)]
    fn arm_as_it_is(&mut self, key: ChainKey, timeout: Option<Timeout>) {
        let total = self.total_tick(key);
        let phase = timeout
            .zip(self.chains.timeouts(key))
            .and_then(|(timeout, timeouts)| timeouts.get(timeout, &self.settings.timeouts))
            .map(|ms| self.clock.tick_from_now() + u64::from(ms));
        match (phase, total) {
            (Some(phase), Some(total)) => self.set_timer(key, phase.min(total)),
            (Some(tick), None) | (None, Some(tick)) => self.set_timer(key, tick),
            (None, None) => self.disarm(key),
        }
    }

    /// Arms the chain's timer for `tick`, or for the total deadline if that is earlier.
    pub(super) fn arm_at(&mut self, key: ChainKey, tick: u64) {
        if self.chains[key].marks.has(Marks::METERED) {
            self.on_phase(key, None);
        }
        let tick = self.total_tick(key).map_or(tick, |total| tick.min(total));
        self.set_timer(key, tick);
    }

    /// Arms the deadline of the phase that a link's front exchange is in, because a cap now holds
    /// the exchange back, or no longer does, or because its request cannot be written any more.
    /// `of_reads` is whether it is the cap on what is read.
    pub(super) fn arm_again(&mut self, key: LinkKey, chain: ChainKey, of_reads: bool) {
        let h1 = &self.links[key].h1;
        if h1.front().is_some_and(Exchange::awaits_continue) || h1.is_tunnel() && !of_reads {
            // The chain's timer limits the wait for a 100 (Continue), or the silence of a tunnel.
            self.arm_meter(chain);
        } else {
            self.arm(chain, self.timeout_of_phase(key, chain));
        }
    }

    /// Applies the timeouts that a readback has changed for the response it is reading. The
    /// deadline of its phase begins anew.
    pub(super) fn apply_retimed(&mut self, key: LinkKey, chain: ChainKey) {
        if self.chains.retimed(chain).is_some() {
            self.apply_floor(chain);
            self.arm_again(key, chain, true);
        }
    }

    /// Returns which deadline applies to a link's front exchange. `None` means that the exchange
    /// does not wait for its peer.
    fn timeout_of_phase(&self, key: LinkKey, chain: ChainKey) -> Option<Timeout> {
        let is_paused = self.chains[chain].marks.has(Marks::PAUSED);
        let h1 = &self.links[key].h1;
        let writes = h1.write_side() == WriteSide::Open;
        Some(match h1.front() {
            Some(front) if is_paused && writes && front.has_unwritten() => Timeout::Write,
            _ if is_paused => return None,
            Some(front) if front.waits_for_supply() => return None,
            _ if h1.response().has_head() || h1.inbound().is_some() => Timeout::Idle,
            Some(front) if front.is_sent() => Timeout::FirstByte,
            Some(_) | None => Timeout::Write,
        })
    }

    fn set_timer(&mut self, key: ChainKey, tick: u64) {
        let chain = &mut self.chains[key];
        chain.marks.clear(Marks::LATE);
        let timer = &mut chain.timer;
        match *timer {
            Some(timer) => self.timers.rearm(timer, tick),
            None => *timer = Some(self.timers.arm(tick, Timer::Chain(key))),
        }
    }

    /// Returns the tick of the chain's total deadline.
    #[inline(always)]
    pub(super) fn total_tick(&self, key: ChainKey) -> Option<u64> {
        let ms = self.total_timeout(key)?;
        Some(tick_after(self.chains[key].submitted) + u64::from(ms))
    }

    /// Returns the total timeout of a chain's request in milliseconds.
    #[inline(always)]
    fn total_timeout(&self, key: ChainKey) -> Option<u32> {
        let timeouts = self.chains.timeouts(key)?;
        let of_visit = self
            .chains
            .visit_of(key)
            .and_then(|visit| self.visits[visit].visiting.total());
        timeouts.total(of_visit, &self.settings.timeouts)
    }

    /// Returns whether the total deadline of a chain's request has passed, or the deadline of the
    /// chain as a whole. Neither is reset by progress.
    pub(super) fn total_is_over(&self, key: ChainKey) -> bool {
        let total = self.total_tick(key);
        total.is_some_and(|total| total <= self.clock.tick()) || self.chain_is_over(key)
    }

    /// Marks a chain that is ended by a deadline, if that is the deadline of the chain as a whole.
    /// Returns whether it is.
    pub(super) fn note_expired(&mut self, key: ChainKey) -> bool {
        let is_over = self.chain_is_over(key);
        if is_over {
            self.chains[key].marks.set(Marks::EXPIRED);
        }
        is_over
    }

    /// Formats the timeout that has passed, and its length. If that of the chain as a whole has
    /// passed, it is that one.
    pub(super) fn timeout_text(&self, key: ChainKey, timeout: Timeout) -> String {
        if self.chain_is_over(key)
            && let Some(deadline) = self.chains.deadlines.get(key)
        {
            let time = deadline.timeout;
            return format!("the deadline of the chain has passed (chain_timeout of {time:?})");
        }
        let timeouts = self.chains.timeouts(key);
        let ms = match timeout {
            Timeout::Total => self.total_timeout(key),
            of_phase => timeouts.and_then(|it| it.get(of_phase, &self.settings.timeouts)),
        };
        let time = Duration::from_millis(ms.unwrap_or_default().into());
        format!("{} timeout of {time:?}", timeout.as_str())
    }

    pub(super) fn disarm(&mut self, key: ChainKey) {
        let chain = &mut self.chains[key];
        chain.marks.clear(Marks::LATE);
        if let Some(timer) = chain.timer.take() {
            self.timers.cancel(timer);
        }
    }

    /// Arms the deadline of a phase of connecting, which begins now: that of the chain for which
    /// the link is dialed, or of the link itself if it is opened ahead.
    pub(super) fn arm_dialing(&mut self, key: LinkKey, timeout: Timeout) {
        match self.links[key].chain() {
            Some(chain) => self.arm(chain, Some(timeout)),
            None => self.arm_ahead(key, timeout),
        }
    }

    #[inline(never)]
    fn arm_ahead(&mut self, key: LinkKey, timeout: Timeout) {
        let ms = self.settings.timeouts.get(timeout);
        let due = ms.map(|ms| self.clock.tick_from_now() + u64::from(ms));
        let Some(ahead) = self.ahead.get_mut(self.links[key].origin, key) else {
            return;
        };
        match (ahead.deadline, due) {
            (Some(timer), Some(due)) => self.timers.rearm(timer, due),
            (None, Some(due)) => ahead.deadline = Some(self.timers.arm(due, Timer::Ahead(key))),
            (Some(timer), None) => {
                ahead.deadline = None;
                self.timers.cancel(timer);
            }
            (None, None) => {}
        }
    }

    /// Takes a link off the list of those that are opened ahead, with its deadline. Returns whether
    /// it was there and its first attempt to connect has begun.
    #[inline]
    pub(super) fn leave_ahead(&mut self, key: LinkKey) -> bool {
        let Some(ahead) = self.ahead.take(self.links[key].origin, key) else {
            return false;
        };
        if let Some(timer) = ahead.deadline {
            self.timers.cancel(timer);
        }
        ahead.has_begun
    }
}

/// Returns the first tick that is not before `delay` after `from`, in microseconds of the engine's
/// life. A delay that overflows, or that no clock will ever complete, means never.
fn due_tick(from: u64, delay: Duration) -> Option<u64> {
    let micros = u64::try_from(delay.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
    let due = from.checked_add(micros).filter(|due| due >> 60 == 0);
    due.map(tick_after)
}
