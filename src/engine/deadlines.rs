//! Delays and deadlines. A chain has one timer: for its delay, or for its total deadline or the
//! deadline of its phase, whichever is earlier.

use std::time::Duration;

use crate::engine::chain::{ChainKey, Marks, When};
use crate::engine::clock::tick_after;
use crate::engine::core::{Core, Timer};
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
        let micros = u64::try_from(delay.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        // A delay that overflows, or that no clock will ever complete, means never.
        match from.checked_add(micros).filter(|due| due >> 60 == 0) {
            Some(due) => self.set_timer(key, tick_after(due)),
            None => self.disarm(key),
        }
    }

    /// Arms the deadline of a chain's phase, which begins now, or its total deadline if that is
    /// earlier.
    pub(super) fn arm(&mut self, key: ChainKey, timeout: Option<Timeout>) {
        let (total, chain) = (self.total_tick(key), &self.chains[key]);
        let phase = chain
            .request
            .as_ref()
            .zip(timeout)
            .and_then(|(request, timeout)| request.timeouts().get(timeout, &self.settings.timeouts))
            .map(|ms| self.clock.tick_from_now() + u64::from(ms));
        match (phase, total) {
            (Some(phase), Some(total)) => self.set_timer(key, phase.min(total)),
            (Some(tick), None) | (None, Some(tick)) => self.set_timer(key, tick),
            (None, None) => self.disarm(key),
        }
    }

    /// Arms the chain's timer for `tick`, or for the total deadline if that is earlier.
    pub(super) fn arm_at(&mut self, key: ChainKey, tick: u64) {
        let tick = self.total_tick(key).map_or(tick, |total| tick.min(total));
        self.set_timer(key, tick);
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
        let timeouts = self.chains[key].request.as_ref()?.timeouts();
        let of_visit = self
            .chains
            .visit_of(key)
            .and_then(|visit| self.visits[visit].visiting.total());
        timeouts.total(of_visit, &self.settings.timeouts)
    }

    pub(super) fn total_is_over(&self, key: ChainKey) -> bool {
        self.total_tick(key)
            .is_some_and(|total| total <= self.clock.tick())
    }

    /// Formats the timeout that has passed, and its length.
    pub(super) fn timeout_text(&self, key: ChainKey, timeout: Timeout) -> String {
        let request = self.chains[key].request.as_ref();
        let ms = match timeout {
            Timeout::Total => self.total_timeout(key),
            of_phase => request.and_then(|it| it.timeouts().get(of_phase, &self.settings.timeouts)),
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
