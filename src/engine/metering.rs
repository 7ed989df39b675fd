//! Measures exchanges whose speed is limited: by caps of the request, or by a low speed below which
//! they fail.
//!
//! A chain has [`Marks::METERED`] from when its request is put on a link, if such a setting applies
//! to it. Its [`Meter`] is made when there is something to measure, and ends with the exchange. It
//! has a timer of its own, apart from the chain's. Other requests pay for tests of that mark,
//! mostly together with other marks.
//!
//! The window of a low speed runs together with the deadlines that each byte moves, those of
//! [`Timeout::Write`] and [`Timeout::Idle`]. While a cap holds an exchange back, neither the window
//! nor these deadlines run, because the exchange does not wait for its peer.

use crate::engine::chain::{ChainKey, Marks, Stage};
use crate::engine::core::{Core, Timer};
use crate::engine::meter::Meter;
use crate::net::Net;
use crate::net::slots::LinkKey;
use crate::net::transport::Written;
use crate::request::Speeds;
use crate::timeouts::{Floor, LowSpeedEdit, Timeout};

impl<N: Net> Core<N> {
    /// Returns the current time in nanoseconds of the engine's life, for caps. Unlike the
    /// microseconds, it is not rounded up, so a cap never allows a byte too early.
    pub(super) fn nanos(&self) -> i128 {
        i128::try_from(self.clock.life().as_nanos()).unwrap_or(i128::MAX >> 1)
    }

    /// Returns the meter of a chain whose request is on a link. It is made if there is none.
    pub(super) fn meter(&mut self, key: ChainKey) -> &mut Meter {
        if self.meters.get(key).is_none() {
            let floor = self.floor_of(key);
            let speeds = self.chains[key].request().speeds();
            let meter = Meter::new(speeds.unwrap_or(&Speeds::NONE), floor, self.nanos());
            self.meters.insert(key, meter);
        }
        let meter = self.meters.get_mut(key);
        meter.expect("the meter was there, or has just been made")
    }

    /// Returns the low speed that applies to a chain's exchange.
    fn floor_of(&self, key: ChainKey) -> Option<Floor> {
        let speeds = self.chains[key].request().speeds();
        let low_speed = match self.chains.retimed(key) {
            Some(retimed) => retimed.low_speed,
            None => speeds.map_or(LowSpeedEdit::Nothing, |speeds| speeds.low),
        };
        low_speed.over(self.settings.low_speed)
    }

    /// Applies the low speed of a chain's exchange, which a readback may have changed. A window
    /// that is running goes on if its own speed is the same.
    pub(super) fn apply_floor(&mut self, key: ChainKey) {
        let floor = self.floor_of(key);
        if floor.is_some() || self.meters.get(key).is_some() {
            self.chains[key].marks.set(Marks::METERED);
            self.meter(key).set_floor(floor);
        }
    }

    /// Returns whether there is something to measure. A chain may have [`Marks::METERED`] for
    /// another reason: the source of its body, or timeouts that its readback has changed.
    fn is_measured(&self, key: ChainKey) -> bool {
        let speeds = self.chains[key].request().speeds();
        self.meters.get(key).is_some()
            || speeds.is_some_and(|speeds| !speeds.has_no_cap())
            || self.floor_of(key).is_some()
    }

    /// Ends the measurement of a chain's exchange, because the exchange has ended.
    #[inline]
    pub(super) fn end_metering(&mut self, key: ChainKey) {
        if self.chains[key].marks.has(Marks::METERED) {
            self.drop_meter(key);
            self.end_supply(key);
            // The timeouts that the readback has changed are still to be named in an error.
            if self.chains.retimed(key).is_none() {
                self.chains[key].marks.clear(Marks::METERED);
            }
        }
    }

    /// Ends the supply of a chain whose exchange has ended, if it has one.
    fn end_supply(&mut self, key: ChainKey) {
        let request = self.chains[key].request.as_ref();
        if let Some(source) = self.supplies.remove(key, request) {
            self.discard(source);
        }
    }

    #[inline(never)]
    fn drop_meter(&mut self, key: ChainKey) {
        self.chains[key].marks.clear(Marks::SLOW);
        let timer = self.meters.remove(key).and_then(|meter| meter.timer);
        if let Some(timer) = timer {
            self.timers.cancel(timer);
        }
    }

    /// Moves the timer of a chain's meter to when the meter next needs attention.
    pub(super) fn arm_meter(&mut self, key: ChainKey) {
        let Some(meter) = self.meters.get_mut(key) else {
            return;
        };
        match (meter.timer, meter.due_tick()) {
            (Some(timer), Some(due)) => self.timers.rearm(timer, due),
            (None, Some(due)) => meter.timer = Some(self.timers.arm(due, Timer::Meter(key))),
            (Some(timer), None) => {
                meter.timer = None;
                self.timers.cancel(timer);
            }
            (None, None) => {}
        }
    }

    /// Starts or stops the window of a metered chain, whose deadline `timeout` is being armed.
    /// Returns the deadline to arm in its place: none while a cap holds the exchange back.
    #[inline(never)]
    pub(super) fn on_phase(&mut self, key: ChainKey, timeout: Option<Timeout>) -> Option<Timeout> {
        let Stage::Running { link } = self.chains[key].stage else {
            return timeout;
        };
        let is_tunnel = self.links[link].h1.is_tunnel();
        let is_transfer = matches!(timeout, Some(Timeout::Write | Timeout::Idle)) && !is_tunnel;
        if is_transfer && self.is_measured(key) {
            self.meter(key);
        }
        let now = self.clock.micros();
        let Some(meter) = self.meters.get_mut(key) else {
            return timeout;
        };
        if timeout == Some(Timeout::FirstByte) && meter.has_no_cap() {
            // The response may take hours to begin.
            self.drop_meter(key);
            return timeout;
        }
        // Only inbound bytes move the deadline of a tunnel, so what is written does not stop it.
        let is_held = meter.holds_reading() || meter.holds_writing() && !is_tunnel;
        if let Some(window) = &mut meter.window {
            if timeout == Some(Timeout::FirstByte) {
                window.reset();
            } else if is_transfer && !is_held {
                window.start(now);
            } else {
                window.stop(now);
            }
        }
        self.arm_meter(key);
        timeout.filter(|_| !is_held)
    }

    /// Returns whether a cap keeps a chain's response from being read.
    pub(super) fn holds_reading(&self, key: ChainKey) -> bool {
        self.chains[key].marks.has(Marks::METERED)
            && self.meters.get(key).is_some_and(Meter::holds_reading)
    }

    /// Records that bytes have been read for a metered chain's response.
    pub(super) fn note_read(&mut self, key: ChainKey, bytes: u64) {
        if !self.is_measured(key) {
            return;
        }
        let now = self.nanos();
        let meter = self.meter(key);
        if let Some(cap) = &mut meter.download {
            cap.spend(bytes, now);
        }
        if let Some(window) = &mut meter.window {
            window.add(bytes);
        }
    }

    /// Records that bytes of a chain's request, or of its tunnel, have been written.
    #[inline]
    pub(super) fn note_written(&mut self, key: ChainKey, done: Written) {
        if self.chains[key].marks.has(Marks::METERED) {
            self.add_written(key, done);
        }
    }

    /// Records that a link has become a tunnel. A short request is not measured, so what it has
    /// used of the allowance is subtracted here.
    pub(super) fn begin_tunnel(&mut self, key: LinkKey) {
        let front = self.links[key].h1.front();
        let Some(front) = front.filter(|front| front.is_capped()) else {
            return;
        };
        let (chain, written) = (front.tag, front.written() as u64);
        let now = self.nanos();
        if let Some(cap) = &mut self.meter(chain).upload {
            cap.spend(written.min(cap.burst()), now);
        }
    }

    #[inline(never)]
    fn add_written(&mut self, key: ChainKey, done: Written) {
        if !self.is_measured(key) {
            return;
        }
        let now = self.nanos();
        let meter = self.meter(key);
        if let Some(cap) = &mut meter.upload {
            cap.spend(done.taken as u64, now);
        }
        if let Some(window) = &mut meter.window {
            window.add(done.sent as u64);
        }
    }
}
