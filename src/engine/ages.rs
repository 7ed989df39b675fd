//! The age of connections, which `Config::max_age` limits.

use std::time::Duration;

use crate::net::slots::{LinkKey, put_at};

/// The limit on the age of connections, and when each was established. Times are in microseconds of
/// the engine's life.
#[derive(Debug)]
pub(super) struct Ages {
    max: Option<u64>,
    /// When each link was connected, indexed by link key; the values at keys of links that are not
    /// connected are outdated. Stays empty without a limit, so that connections take no more memory
    /// then.
    connected: Vec<u64>,
}

impl Ages {
    pub(super) fn new(max: Option<Duration>) -> Self {
        // An age that does not fit will never be reached.
        let max = max.and_then(|max| u64::try_from(max.as_micros()).ok());
        Self {
            max,
            connected: Vec::new(),
        }
    }

    /// Records that a link was connected.
    pub(super) fn on_connected(&mut self, link: LinkKey, now: u64) {
        if self.max.is_some() {
            put_at(&mut self.connected, link, now, || 0);
        }
    }

    /// Returns whether a connected link is too old to be given another request.
    #[inline]
    pub(super) fn is_over(&self, link: LinkKey, now: u64) -> bool {
        match self.max {
            None => false,
            Some(max) => self.has_lasted(link, now, max),
        }
    }

    // Not inlined, so that engines without a limit pay for one test only.
    #[inline(never)]
    fn has_lasted(&self, link: LinkKey, now: u64, max: u64) -> bool {
        // A link that is still being connected may have no entry.
        let connected = self.connected.get(link as usize);
        connected.is_some_and(|connected| now.saturating_sub(*connected) > max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_over_once_it_is_older_than_the_limit() {
        let second = 1_000_000;
        // The limit, when the link was connected, the time now, and whether it is over.
        let rows = [
            (None, 0, u64::MAX, false, "without a limit"),
            (
                Some(Duration::MAX),
                0,
                u64::MAX,
                false,
                "an age out of range",
            ),
            (
                Some(Duration::from_secs(1)),
                5,
                5 + second,
                false,
                "exactly as old",
            ),
            (Some(Duration::from_secs(1)), 5, 6 + second, true, "older"),
            (
                Some(Duration::from_secs(1)),
                5,
                0,
                false,
                "a clock that lags behind",
            ),
        ];
        for (max, connected, now, is_over, why) in rows {
            let mut ages = Ages::new(max);
            ages.on_connected(3, connected);
            assert_eq!(ages.is_over(3, now), is_over, "{why}");
            assert!(
                !ages.is_over(4, now),
                "{why}: a link that is not connected yet"
            );
            assert!(max.is_some() || ages.connected.is_empty(), "{why}");
        }
    }

    #[test]
    fn the_next_owner_of_a_slot_counts_anew() {
        let mut ages = Ages::new(Some(Duration::from_micros(10)));
        ages.on_connected(0, 0);
        assert!(ages.is_over(0, 11));
        ages.on_connected(0, 11);
        assert!(!ages.is_over(0, 21));
    }
}
