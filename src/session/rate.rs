//! How often requests are sent.

use std::time::Duration;

/// How often requests are sent, on average. Not available yet; see
/// [`SessionBuilder::rate`](super::SessionBuilder::rate).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    most: u32,
    per: Duration,
    burst: u32,
}

impl Rate {
    /// Up to `most` requests a second.
    pub fn per_second(most: u32) -> Self {
        Self::per(Duration::from_secs(1), most)
    }

    /// Up to `most` requests a minute.
    pub fn per_minute(most: u32) -> Self {
        Self::per(Duration::from_secs(60), most)
    }

    fn per(per: Duration, most: u32) -> Self {
        Self {
            most,
            per,
            burst: 1,
        }
    }

    /// Allows up to `most` requests at once after a rest. 1 by default.
    #[must_use]
    pub fn burst(mut self, most: u32) -> Self {
        self.burst = most;
        self
    }
}
