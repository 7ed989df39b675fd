//! The bot's time and random numbers. Both are arguments, which makes a simulation repeatable.

use std::time::{Duration, Instant};

/// How long a server holds a poll open when it has nothing to deliver.
pub(crate) const HOLD: Duration = Duration::from_secs(60);
/// How long a client waits for a poll's answer: somewhat longer.
const POLL_PATIENCE: Duration = Duration::from_secs(70);
/// How long any other answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The time, as of the last readback.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    now: Instant,
    begin: Instant,
    /// Wall-clock time at `begin`, since the Unix epoch.
    epoch: Duration,
    /// The divisor of the protocol's waits.
    scale: f64,
    least_patience: Duration,
}

impl Clock {
    pub(crate) fn new(
        begin: Instant,
        epoch: Duration,
        scale: f64,
        least_patience: Duration,
    ) -> Self {
        Self {
            now: begin,
            begin,
            epoch,
            scale,
            least_patience,
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Returns the wall-clock time since the Unix epoch.
    pub(crate) fn wall(&self) -> Duration {
        self.epoch + self.since_begin().mul_f64(self.scale)
    }

    pub(crate) fn since_begin(&self) -> Duration {
        self.now.saturating_duration_since(self.begin)
    }

    /// Scales a wait of the protocol.
    pub(crate) fn wait(&self, wait: Duration) -> Duration {
        wait.div_f64(self.scale)
    }

    /// How long an answer may take.
    pub(crate) fn patience(&self) -> Duration {
        self.wait(PATIENCE).max(self.least_patience)
    }

    /// How long a poll may go unanswered.
    pub(crate) fn poll_patience(&self) -> Duration {
        self.wait(POLL_PATIENCE)
            .max(self.wait(HOLD) + self.least_patience)
    }
}

/// A xorshift generator, for numbers that only have to differ.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) % u64::from(bound)) as u32
    }

    pub(crate) fn fraction(&mut self) -> String {
        format!("0.{:09}", self.below(1_000_000_000))
    }
}
