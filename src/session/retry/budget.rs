//! How many retries a session may send, so that a server in trouble is not given more of it.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Retries that can be sent in any case, before any request has earned one.
pub(super) const RESERVE: f64 = 10.0;

/// An empty reserve is refilled by one retry in this time, so that a session that sends a request
/// an hour can retry it although its last outage used up the reserve.
pub(super) const REFILL: Duration = Duration::from_secs(10);

/// The most retries that are saved up. What a good day has earned must not be spent in one outage.
const MOST: f64 = 100.0;

/// Retries that are left: each request earns a share of one, and each retry takes one.
pub(super) struct Budget {
    share: f32,
    left: Mutex<Left>,
}

struct Left {
    retries: f64,
    /// Until when the reserve has been refilled. `None` as long as nothing was taken.
    refilled: Option<Instant>,
}

impl Budget {
    pub(super) fn new(share: f32) -> Self {
        Self {
            share,
            left: Mutex::new(Left {
                retries: RESERVE,
                refilled: None,
            }),
        }
    }

    pub(super) fn share(&self) -> f32 {
        self.share
    }

    /// Counts a request that is not a retry.
    pub(super) fn earn(&self) {
        let mut left = self.left();
        left.retries = (left.retries + f64::from(self.share)).min(MOST);
    }

    /// Takes a retry. Returns false if none is left.
    pub(super) fn take(&self, now: Instant) -> bool {
        if self.share.is_infinite() {
            return true;
        }
        let mut left = self.left();
        left.refill(now);
        if left.retries < 1.0 {
            return false;
        }
        left.retries -= 1.0;
        true
    }

    /// Gives back a retry that was taken and not sent.
    pub(super) fn give_back(&self) {
        let mut left = self.left();
        left.retries = (left.retries + 1.0).min(MOST);
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        // Nothing that runs under the lock can panic.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Left {
    fn refill(&mut self, now: Instant) {
        let since = *self.refilled.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        // Another engine's clock may have been read later.
        self.refilled = Some(now.max(since));
        if self.retries < RESERVE {
            let refilled = passed.as_secs_f64() / REFILL.as_secs_f64();
            self.retries = (self.retries + refilled).min(RESERVE);
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("share", &self.share)
            .field("left", &self.left().retries)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes retries until none is left, and returns how many there were.
    fn taken(budget: &Budget, now: Instant) -> usize {
        (0..1000).take_while(|_| budget.take(now)).count()
    }

    #[test]
    fn requests_earn_retries() {
        let (budget, now) = (Budget::new(0.25), Instant::now());
        assert_eq!(taken(&budget, now), 10);
        (0..3).for_each(|_| budget.earn());
        assert_eq!(taken(&budget, now), 0);
        budget.earn();
        assert_eq!(taken(&budget, now), 1);
        (0..40).for_each(|_| budget.earn());
        assert_eq!(taken(&budget, now), 10);
    }

    #[test]
    fn an_empty_reserve_is_refilled_slowly() {
        let (budget, start) = (Budget::new(0.0), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(taken(&budget, start), 10);
        assert_eq!(taken(&budget, at(9)), 0);
        assert_eq!(taken(&budget, at(10)), 1);
        assert_eq!(taken(&budget, at(1_000_000)), 10);
        // An engine whose clock was read earlier shares the budget.
        assert_eq!(taken(&budget, start), 0);
    }

    #[test]
    fn savings_are_limited() {
        let (budget, now) = (Budget::new(1.0), Instant::now());
        (0..1_000_000).for_each(|_| budget.earn());
        assert_eq!(taken(&budget, now), 100);
        budget.give_back();
        assert_eq!(taken(&budget, now), 1);
    }

    #[test]
    fn there_may_be_no_limit() {
        let (budget, now) = (Budget::new(f32::INFINITY), Instant::now());
        assert_eq!(taken(&budget, now), 1000);
    }
}
