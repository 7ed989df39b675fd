//! The speed of one exchange: its caps, and the windows in which its low speed is measured.
//!
//! Nothing here knows links or timers. Times are arguments, and
//! [`metering`](crate::engine::metering) acts on the results.

use std::num::NonZeroU64;

use slab::Slab;

use crate::engine::chain::ChainKey;
use crate::engine::clock::tick_after;
use crate::net::slots::{MaybeKey, grow, put_at};
use crate::request::Speeds;
use crate::sched::wheel::TimerId;
use crate::timeouts::Floor;

/// A burst is what a cap allows in this part of a second, ...
const BURSTS_A_SECOND: u64 = 8;

/// ... but at least this many bytes, so that a low cap does not cost a system call for every few.
pub(super) const LEAST_BURST: usize = 1024;

const BILLION: i128 = 1_000_000_000;
const NANOS_A_TICK: i128 = 1_000_000;

/// A cap on the bytes a second in one direction: a token bucket that holds one burst.
///
/// Times are nanoseconds of the engine's life. A `u64` of them overflows after 584 years, which a
/// simulation may well reach.
#[derive(Debug)]
pub(super) struct Cap {
    rate: NonZeroU64,
    /// What was allowed at the time `at`, in billionths of a byte, so that nothing is ever rounded.
    /// Negative if more has been spent than was allowed.
    level: i128,
    at: i128,
    /// The allowance that is waited for. Until then, nothing is read or written.
    awaited: Option<u64>,
}

impl Cap {
    fn new(rate: NonZeroU64, now: i128) -> Self {
        Self {
            rate,
            level: i128::from(burst_of(rate)) * BILLION,
            at: now,
            awaited: None,
        }
    }

    pub(super) fn burst(&self) -> u64 {
        burst_of(self.rate)
    }

    /// Returns the smallest allowance that is worth a system call. As it is half a burst, nothing
    /// is lost if the host is late by the time that this many bytes take.
    fn portion(&self) -> u64 {
        self.burst() / 2
    }

    /// Adds what the time since the last call allows.
    fn pass(&mut self, now: i128) {
        let time = (now - self.at).max(0);
        let more = time.saturating_mul(self.rate.get().into());
        let most = i128::from(self.burst()) * BILLION;
        self.level = self.level.saturating_add(more).min(most);
        self.at = self.at.max(now);
    }

    /// Returns how many bytes may go now, if it is worth a system call: where no more than `left`
    /// are left, it is if all of them may go. Otherwise returns `None`, and from then on the cap
    /// [holds](Self::is_holding) the exchange back.
    pub(super) fn ask(&mut self, left: Option<u64>, now: i128) -> Option<u64> {
        if self.is_holding() {
            return None;
        }
        self.pass(now);
        let least = self.portion().min(left.unwrap_or(u64::MAX)).max(1);
        if self.level < i128::from(least) * BILLION {
            self.awaited = Some(least);
            return None;
        }
        Some(u64::try_from(self.level / BILLION).unwrap_or(u64::MAX))
    }

    /// Records that bytes went, perhaps more than were allowed.
    pub(super) fn spend(&mut self, bytes: u64, now: i128) {
        self.pass(now);
        self.level -= i128::from(bytes) * BILLION;
    }

    pub(super) fn is_holding(&self) -> bool {
        self.awaited.is_some()
    }

    /// Returns when the awaited bytes are allowed, if any are awaited.
    fn due(&self) -> Option<i128> {
        let missing = i128::from(self.awaited?) * BILLION - self.level;
        let rate = i128::from(self.rate.get());
        Some(self.at + (missing.max(0) + rate - 1) / rate)
    }

    /// Stops holding the exchange back if the awaited bytes are allowed. Returns whether it has.
    pub(super) fn let_go(&mut self, now: i128) -> bool {
        let is_due = self.due().is_some_and(|due| due <= now);
        if is_due {
            self.awaited = None;
        }
        is_due
    }

    fn due_tick(&self) -> Option<u64> {
        let tick = (self.due()?.max(0) + NANOS_A_TICK - 1) / NANOS_A_TICK;
        Some(u64::try_from(tick).unwrap_or(u64::MAX))
    }
}

/// Returns the most bytes that a cap at this rate allows at once.
pub(super) fn burst_of(rate: NonZeroU64) -> u64 {
    (rate.get() / BURSTS_A_SECOND).max(LEAST_BURST as u64)
}

/// The window in which a low speed is measured. It runs only while the peer is waited for.
///
/// Times are microseconds of the engine's life.
#[derive(Debug)]
pub(super) struct Window {
    floor: Floor,
    bytes: u64,
    /// How long the window had run when it was last stopped.
    run: u64,
    /// When it was started since, if it is running.
    since: Option<u64>,
    /// It has ended, and its bytes did not suffice. What the kernel holds is read before that
    /// counts.
    is_doubtful: bool,
    /// It takes the place of a window that was too slow, but whose end the host noticed late.
    is_second: bool,
    /// The host noticed its end late.
    is_late: bool,
}

/// What the end of a window means for its exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The window has not ended, or another one has begun.
    GoesOn,
    TooSlow,
}

/// The lateness, in microseconds, from which on the host counts as having been away. It may have
/// left a full receive buffer unread, or an empty send buffer unfilled, for most of the window.
const LATE: u64 = 1_000_000;

impl Window {
    fn new(floor: Floor) -> Self {
        Self {
            floor,
            bytes: 0,
            run: 0,
            since: None,
            is_doubtful: false,
            is_second: false,
            is_late: false,
        }
    }

    /// Lets the window run, unless it does already.
    pub(super) fn start(&mut self, now: u64) {
        self.since.get_or_insert(now);
    }

    /// Lets the time from here on not count.
    pub(super) fn stop(&mut self, now: u64) {
        self.run = self.time(now);
        self.since = None;
    }

    /// Begins a new window, which does not run yet.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.floor);
    }

    /// Begins the next window, right after this one.
    fn renew(&mut self, now: u64) {
        self.reset();
        self.start(now);
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Returns how long the window has run.
    fn time(&self, now: u64) -> u64 {
        self.run + self.since.map_or(0, |since| now.saturating_sub(since))
    }

    fn length(&self) -> u64 {
        u64::from(self.floor.window.get()) * 1000
    }

    fn has_enough(&self) -> bool {
        self.bytes >= self.floor.quota()
    }

    /// Returns whether the window is running and has reached its end.
    fn is_over(&self, now: u64) -> bool {
        self.since.is_some() && self.time(now) >= self.length()
    }

    /// Ends the window if its time has come. Returns whether it was too slow by what is known so
    /// far. If so, [`judge`](Self::judge) is to be called once nothing is left to read.
    pub(super) fn on_time(&mut self, now: u64) -> bool {
        if !self.is_over(now) {
            return false;
        }
        if self.has_enough() {
            self.renew(now);
            return false;
        }
        self.is_late = self.time(now) > self.length() + LATE;
        self.is_doubtful = true;
        true
    }

    /// Ends a window that was too slow by what was known.
    pub(super) fn judge(&mut self, now: u64) -> Verdict {
        self.is_doubtful = false;
        // A window that a pause or a cap has stopped meanwhile is judged when it runs again.
        if !self.is_over(now) {
            return Verdict::GoesOn;
        }
        let has_enough = self.has_enough();
        // Only one in a row, because a host may always be late.
        let is_excused = self.is_late && !self.is_second;
        if !has_enough && !is_excused {
            return Verdict::TooSlow;
        }
        self.renew(now);
        self.is_second = !has_enough;
        Verdict::GoesOn
    }

    fn due_tick(&self) -> Option<u64> {
        let since = self.since.filter(|_| !self.is_doubtful)?;
        Some(tick_after(since + self.length().saturating_sub(self.run)))
    }

    /// Formats why the window was too slow.
    pub(super) fn text(&self, now: u64) -> String {
        self.floor.text(self.bytes, self.time(now))
    }
}

/// The speed of one exchange.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) download: Option<Cap>,
    pub(super) upload: Option<Cap>,
    pub(super) window: Option<Window>,
    /// Set for the first time at which one of the three needs attention.
    pub(super) timer: Option<TimerId>,
}

impl Meter {
    /// Creates the meter of a request with these settings, at `now` in nanoseconds.
    pub(super) fn new(speeds: &Speeds, floor: Option<Floor>, now: i128) -> Self {
        Self {
            download: speeds.download.map(|rate| Cap::new(rate, now)),
            upload: speeds.upload.map(|rate| Cap::new(rate, now)),
            window: floor.map(Window::new),
            timer: None,
        }
    }

    /// Changes the low speed. A window with another one ends.
    pub(super) fn set_floor(&mut self, floor: Option<Floor>) {
        if self.window.as_ref().map(|window| window.floor) != floor {
            self.window = floor.map(Window::new);
        }
    }

    pub(super) fn holds_reading(&self) -> bool {
        self.download.as_ref().is_some_and(Cap::is_holding)
    }

    pub(super) fn holds_writing(&self) -> bool {
        self.upload.as_ref().is_some_and(Cap::is_holding)
    }

    pub(super) fn has_no_cap(&self) -> bool {
        self.download.is_none() && self.upload.is_none()
    }

    /// Returns the tick at which the meter next needs attention.
    pub(super) fn due_tick(&self) -> Option<u64> {
        let caps = [&self.download, &self.upload].into_iter().flatten();
        let caps = caps.filter_map(Cap::due_tick);
        let window = self.window.as_ref().and_then(Window::due_tick);
        caps.chain(window).min()
    }
}

/// The meters of an engine, by chain. In most programs there are none.
#[derive(Debug, Default)]
pub(super) struct Meters {
    slab: Slab<Meter>,
    by_chain: Vec<MaybeKey>,
}

impl Meters {
    pub(super) fn get_mut(&mut self, key: ChainKey) -> Option<&mut Meter> {
        let meter = self.by_chain.get(key as usize)?.get()?;
        self.slab.get_mut(meter as usize)
    }

    pub(super) fn get(&self, key: ChainKey) -> Option<&Meter> {
        let meter = self.by_chain.get(key as usize)?.get()?;
        self.slab.get(meter as usize)
    }

    pub(super) fn insert(&mut self, key: ChainKey, meter: Meter) {
        grow(&mut self.slab);
        let meter = self.slab.insert(meter) as u32;
        put_at(&mut self.by_chain, key, meter.into(), || MaybeKey::NONE);
    }

    pub(super) fn remove(&mut self, key: ChainKey) -> Option<Meter> {
        let place = self.by_chain.get_mut(key as usize)?;
        let meter = std::mem::replace(place, MaybeKey::NONE).get()?;
        self.slab.try_remove(meter as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::timeouts::LowSpeed;

    const MS: i128 = 1_000_000;

    fn cap(rate: u64, now: i128) -> Cap {
        Cap::new(NonZeroU64::new(rate).unwrap(), now)
    }

    #[test]
    fn a_burst_is_an_eighth_of_a_second_but_at_least_a_kilobyte() {
        for (rate, burst) in [
            (1, 1024),
            (8191, 1024),
            (8192, 1024),
            (8200, 1025),
            (1_000_000, 125_000),
            (u64::MAX, u64::MAX / 8),
        ] {
            assert_eq!(cap(rate, 0).burst(), burst, "{rate}");
            assert_eq!(cap(rate, 0).ask(None, 0), Some(burst), "{rate}");
        }
    }

    #[test]
    fn no_span_of_time_sees_more_than_its_share_and_a_burst() {
        // The seed determines the rate, the steps of the clock, and how much is taken each time.
        for seed in 1..200_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut below = |most: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % most
            };
            let bits = below(40);
            let rate = 1 + below(1 << bits);
            let mut now = i128::from(below(1_000_000_000));
            let mut cap = cap(rate, now);
            let burst = i128::from(cap.burst());
            let mut gone: Vec<(i128, i128)> = Vec::new();
            for _ in 0..300 {
                let _ = cap.let_go(now);
                if let Some(most) = cap.ask(None, now) {
                    let bytes = if below(3) == 0 { most } else { below(most + 1) };
                    cap.spend(bytes, now);
                    gone.push((now, i128::from(bytes)));
                }
                let most = below(2_000_000_000);
                now += i128::from(below(1 + most));
            }
            for from in 0..gone.len() {
                let mut sum = 0;
                for (at, bytes) in &gone[from..] {
                    sum += bytes;
                    let time = at - gone[from].0;
                    let most = burst + time * i128::from(rate) / BILLION;
                    assert!(
                        sum <= most,
                        "seed {seed}: {sum} bytes in {time} ns at {rate}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_link_that_always_has_bytes_goes_at_exactly_its_rate() {
        for rate in [100, 4096, 30_000, 1_000_003] {
            let (mut now, mut sum) = (7 * MS, 0_i128);
            let mut cap = cap(rate, now);
            let burst = i128::from(cap.burst());
            let begun = now;
            for _ in 0..2000 {
                match cap.ask(None, now) {
                    Some(most) => {
                        cap.spend(most, now);
                        sum += i128::from(most);
                    }
                    None => {
                        // The tick at which the timer expires, as late as it may be.
                        now = i128::from(cap.due_tick().unwrap()) * MS;
                        assert!(cap.let_go(now), "never before its time");
                    }
                }
            }
            let expected = burst + (now - begun) * i128::from(rate) / BILLION;
            assert!(sum <= expected, "{rate}: {sum} of {expected}");
            assert!(sum >= expected - burst, "{rate}: {sum} of {expected}");
        }
    }

    #[test]
    fn the_last_bytes_need_not_wait_for_more_than_themselves() {
        let mut cap = cap(1000, 0);
        assert_eq!(cap.ask(Some(5000), 0), Some(1024));
        cap.spend(1024, 0);
        assert_eq!(cap.ask(Some(10), 0), None);
        assert_eq!(cap.due_tick(), Some(10));
        assert!(!cap.let_go(10 * MS - 1) && cap.is_holding());
        assert_eq!(cap.ask(Some(10), 10 * MS), None, "until it lets go");
        assert!(cap.let_go(10 * MS));
        assert_eq!(cap.ask(Some(10), 10 * MS), Some(10));
        cap.spend(10, 10 * MS);
        assert_eq!(cap.ask(Some(0), 10 * MS), None, "not even a byte");
        assert_eq!(cap.due_tick(), Some(11));
    }

    #[test]
    fn what_went_beyond_the_allowance_is_waited_for() {
        let mut cap = cap(1000, 0);
        cap.spend(3024, 0);
        assert_eq!(cap.ask(None, 0), None);
        // 2000 bytes too many, and half a burst.
        assert_eq!(cap.due_tick(), Some(2512));
    }

    #[test]
    fn rates_and_times_do_not_overflow() {
        let late = i128::from(u64::MAX) * BILLION;
        for rate in [1, u64::MAX] {
            let mut cap = cap(rate, late);
            cap.spend(u64::MAX, late);
            cap.spend(u64::MAX, late);
            let _ = (cap.ask(None, late), cap.due_tick(), cap.let_go(late));
            let later = late + i128::from(u64::MAX) * 100 * BILLION;
            assert!(cap.let_go(later));
            assert_eq!(cap.ask(None, later), Some(cap.burst()), "{rate}");
        }
    }

    fn window(bytes_per_second: u64, millis: u64) -> Window {
        let low = LowSpeed::new(bytes_per_second, Duration::from_millis(millis));
        Window::new(Floor::new(Some(low)).unwrap())
    }

    #[test]
    fn a_window_counts_only_the_time_in_which_it_runs() {
        let mut window = window(1000, 100);
        assert_eq!(
            (window.due_tick(), window.is_over(9_000_000)),
            (None, false)
        );
        window.start(1_000);
        window.start(50_000);
        assert_eq!(
            window.due_tick(),
            Some(101),
            "the second start has no effect"
        );
        window.stop(61_000);
        assert_eq!(window.due_tick(), None);
        assert!(!window.is_over(9_000_000), "it does not run");
        window.start(1_000_500);
        // 60 of 100 ms are over, and ticks are rounded up.
        assert_eq!(window.due_tick(), Some(1041));
        window.add(90);
        assert!(!window.on_time(1_040_499) && window.on_time(1_040_500));
        assert_eq!(
            window.text(1_041_000),
            "slower than 1000 bytes/s over 100ms (895 bytes/s)"
        );
        assert_eq!(window.due_tick(), None, "it is being looked at");
        window.add(10);
        assert_eq!(window.judge(1_041_000), Verdict::GoesOn);
        assert!(!window.has_enough(), "bytes are not carried over");
        assert_eq!(window.due_tick(), Some(1141));
        window.add(99);
        assert!(window.on_time(1_141_000));
        assert_eq!(window.judge(1_141_000), Verdict::TooSlow);
    }

    #[test]
    fn a_window_that_is_stopped_while_it_is_looked_at_is_judged_when_it_runs_again() {
        let mut window = window(1000, 100);
        window.start(0);
        assert!(window.on_time(100_000));
        window.stop(100_000);
        assert_eq!(window.judge(100_000), Verdict::GoesOn);
        assert_eq!(window.due_tick(), None);
        window.start(900_000);
        assert_eq!(window.due_tick(), Some(900), "at once");
        assert!(window.on_time(900_000));
        assert_eq!(window.judge(900_000), Verdict::TooSlow);
    }

    #[test]
    fn a_window_whose_end_is_noticed_late_has_one_successor() {
        let mut window = window(1000, 100);
        window.start(0);
        let late = 100_000 + LATE + 1;
        assert!(window.on_time(late));
        assert_eq!(window.judge(late), Verdict::GoesOn);
        assert!(window.on_time(3 * late));
        assert_eq!(window.judge(3 * late), Verdict::TooSlow);
        // After a window that was fast enough, lateness is excused again.
        window.renew(0);
        assert!(window.on_time(late));
        assert_eq!(window.judge(late), Verdict::GoesOn);
        window.add(100);
        assert!(!window.on_time(3 * late));
        assert!(window.on_time(5 * late));
        assert_eq!(window.judge(5 * late), Verdict::GoesOn);
        // A host that is a little late is not excused.
        window.renew(0);
        assert!(window.on_time(late - 1));
        assert_eq!(window.judge(late + LATE), Verdict::TooSlow);
    }

    #[test]
    fn a_meter_is_due_for_the_first_of_its_parts() {
        let speeds = Speeds {
            download: NonZeroU64::new(1000),
            upload: NonZeroU64::new(1000),
            ..Speeds::NONE
        };
        let low = LowSpeed::new(1, Duration::from_millis(400));
        let mut meter = Meter::new(&speeds, Floor::new(Some(low)), 0);
        assert_eq!(meter.due_tick(), None, "nothing has begun");
        meter.window.as_mut().unwrap().start(0);
        assert_eq!(meter.due_tick(), Some(400));
        for (cap, left, due) in [
            (&mut meter.download, 300, 300),
            (&mut meter.upload, 200, 200),
        ] {
            let cap = cap.as_mut().unwrap();
            cap.spend(1024, 0);
            assert_eq!(cap.ask(Some(left), 0), None);
            assert_eq!(cap.due_tick(), Some(due));
        }
        assert_eq!(meter.due_tick(), Some(200));
        assert!(meter.holds_reading() && meter.holds_writing());
    }

    #[test]
    fn a_slot_that_is_used_again_has_no_meter() {
        let mut meters = Meters::default();
        let meter = || Meter::new(&Speeds::NONE, None, 0);
        assert!(meters.get(3).is_none() && meters.remove(3).is_none());
        meters.insert(3, meter());
        meters.insert(0, meter());
        assert!(meters.get(3).is_some() && meters.get(1).is_none());
        assert!(meters.remove(3).is_some());
        assert!(meters.get_mut(3).is_none() && meters.remove(3).is_none());
        assert!(meters.get_mut(0).is_some());
    }
}
