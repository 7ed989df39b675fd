//! The time of a turn. It is read around the poll and after user code, and passed down from there.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use crate::policy::Present;

/// Nanoseconds per tick of the timer wheel: one tick is a millisecond.
const NANOS_A_TICK: u64 = 1_000_000;

/// How far the engine's time may lag behind the clock, by what has happened since the clock was
/// read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// Nothing has happened.
    Nothing,
    /// Links were processed. Turns are bounded, so the lag is a few milliseconds at most.
    Links,
    /// User code has run, which may take any amount of time.
    UserCode,
}

/// The engine's time: the last reading of the clock, in each unit that is needed.
#[derive(Debug)]
pub(super) struct TurnClock {
    epoch: Instant,
    /// The last reading, for policies and tasks.
    present: Rc<Present>,
    /// The time since the engine was created.
    life: Duration,
    /// `life` in microseconds, rounded up.
    micros: u64,
    /// `life` in ticks of the wheel, rounded down.
    tick: u64,
    pub(super) since: Since,
}

impl TurnClock {
    /// Starts a clock at `now`. In a simulation, `simulated` holds the time of day and the seed.
    pub(super) fn new(now: Instant, simulated: Option<(SystemTime, u64)>) -> Self {
        Self {
            epoch: now,
            present: Rc::new(match simulated {
                Some((wall, seed)) => Present::simulated(now, wall, seed),
                None => Present::new(now),
            }),
            life: Duration::ZERO,
            micros: 0,
            tick: 0,
            since: Since::UserCode,
        }
    }

    /// Sets the time to a new reading of the clock. A time before the last one is ignored.
    #[inline]
    pub(super) fn set(&mut self, now: Instant) {
        self.since = Since::Nothing;
        let life = self.life_at(now);
        if life > self.life {
            self.present.advance(now);
            self.life = life;
            let (secs, nanos) = (life.as_secs(), u64::from(life.subsec_nanos()));
            // Rounded up: a deadline computed from a time that was rounded down would expire early,
            // by up to a microsecond.
            self.micros = secs * 1_000_000 + nanos.div_ceil(1000);
            self.tick = secs * 1000 + nanos / NANOS_A_TICK;
        }
    }

    #[inline]
    pub(super) fn now(&self) -> Instant {
        self.present.now()
    }

    pub(super) fn present(&self) -> &Rc<Present> {
        &self.present
    }

    /// Returns the time since the engine was created.
    #[inline]
    pub(super) fn life(&self) -> Duration {
        self.life
    }

    /// Returns the time from the engine's creation to `now`.
    #[inline]
    pub(super) fn life_at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }

    /// Returns the time since the engine was created, in microseconds, rounded up.
    #[inline]
    pub(super) fn micros(&self) -> u64 {
        self.micros
    }

    /// Returns the current tick, rounded down. A timer that is due at this tick has waited for its
    /// full time or longer.
    #[inline]
    pub(super) fn tick(&self) -> u64 {
        self.tick
    }

    /// Returns the time of a tick.
    pub(super) fn instant_of(&self, tick: u64) -> Instant {
        // A tick is at most `u32::MAX` past a time that fits an `Instant`, or was computed from a
        // delay that was added to one.
        self.epoch
            .checked_add(Duration::from_millis(tick))
            .unwrap_or(self.now() + Duration::from_secs(1 << 31))
    }

    /// Returns the first tick that is not before now.
    #[inline]
    pub(super) fn tick_from_now(&self) -> u64 {
        tick_after(self.micros)
    }
}

/// Returns the first tick that is not before `micros`.
#[inline]
pub(super) fn tick_after(micros: u64) -> u64 {
    micros.div_ceil(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_are_rounded_up_and_ticks_down_so_that_nothing_is_early() {
        let epoch = Instant::now();
        let mut clock = TurnClock::new(epoch, None);
        clock.set(epoch + Duration::from_nanos(1_999_001));
        assert_eq!((clock.micros(), clock.tick()), (2000, 1));
        assert_eq!(clock.tick_from_now(), 2);
        assert_eq!(clock.instant_of(2), epoch + Duration::from_millis(2));
        clock.set(epoch + Duration::from_millis(1));
        assert_eq!(clock.micros(), 2000, "the clock does not go back");
        assert_eq!(clock.since, Since::Nothing);
    }
}
