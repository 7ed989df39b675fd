//! The time of a turn: read around the poll and behind user code, and passed down from here.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use crate::policy::Present;

/// A tick of the wheel is a millisecond.
const NANOS_A_TICK: u64 = 1_000_000;

/// How far the engine's time may lag behind the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// Nothing has happened since the clock was read.
    Nothing,
    /// Links were dealt with: a turn is bounded, so that is some milliseconds at most.
    Links,
    /// User code has run, which may take any amount of time.
    UserCode,
}

/// The engine's time: when the clock was last read, in each of the units in which it is wanted.
#[derive(Debug)]
pub(super) struct TurnClock {
    epoch: Instant,
    /// The same for policies and tasks.
    present: Rc<Present>,
    /// The engine's life so far, ...
    life: Duration,
    /// ... in microseconds, rounded up, ...
    micros: u64,
    /// ... and in ticks of the wheel, rounded down.
    tick: u64,
    pub(super) since: Since,
}

impl TurnClock {
    /// `simulated` is the time of day and the seed, in a simulation.
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

    /// The clock has been read. A time before the last one is not gone along with.
    #[inline]
    pub(super) fn set(&mut self, now: Instant) {
        self.since = Since::Nothing;
        let life = self.life_at(now);
        if life > self.life {
            self.present.advance(now);
            self.life = life;
            let (secs, nanos) = (life.as_secs(), u64::from(life.subsec_nanos()));
            // Rounded up: what is counted from here would be early by the part of a microsecond
            // that is cut off.
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

    /// How long the engine has lived.
    #[inline]
    pub(super) fn life(&self) -> Duration {
        self.life
    }

    /// How long the engine will have lived at `now`.
    #[inline]
    pub(super) fn life_at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }

    /// Microseconds of the engine's life, rounded up.
    #[inline]
    pub(super) fn micros(&self) -> u64 {
        self.micros
    }

    /// The tick that is now, rounded down: what is due at it has waited at least as long as it
    /// asked.
    #[inline]
    pub(super) fn tick(&self) -> u64 {
        self.tick
    }

    /// When a tick is.
    pub(super) fn instant_of(&self, tick: u64) -> Instant {
        // Ticks lie at most u32::MAX past a time that an Instant held, or came from a delay that
        // was added to one.
        self.epoch
            .checked_add(Duration::from_millis(tick))
            .unwrap_or(self.now() + Duration::from_secs(1 << 31))
    }

    /// The first tick that is not before now.
    #[inline]
    pub(super) fn tick_from_now(&self) -> u64 {
        tick_after(self.micros)
    }
}

/// The first tick not before `micros`.
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
        assert_eq!(clock.micros(), 2000, "it does not go back");
        assert_eq!(clock.since, Since::Nothing);
    }
}
