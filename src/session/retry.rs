//! When a failed request is sent again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::response::Response;

/// When a failed request is sent again. Not available yet; see
/// [`SessionBuilder::retry`](super::SessionBuilder::retry).
#[derive(Clone)]
pub struct Retry {
    /// `None` means any number.
    attempts: Option<u32>,
    base: Duration,
    cap: Duration,
    statuses: Vec<u16>,
    budget: f32,
    wait_from: Option<Arc<WaitFrom>>,
}

type WaitFrom = dyn Fn(&Response<'_>) -> Option<Duration> + Send + Sync;

impl Retry {
    /// Sends a request up to `most` times in all.
    pub fn attempts(most: u32) -> Self {
        Self {
            attempts: Some(most),
            base: Duration::from_millis(500),
            cap: Duration::from_secs(60),
            statuses: vec![408, 425, 429, 500, 502, 503, 504],
            budget: 0.2,
            wait_from: None,
        }
    }

    /// Sends a request again until it succeeds.
    pub fn forever() -> Self {
        Self {
            attempts: None,
            ..Self::attempts(0)
        }
    }

    /// Sets the bounds of the delay before an attempt.
    #[must_use]
    pub fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        (self.base, self.cap) = (base, cap);
        self
    }

    /// Sets the statuses after which a request is sent again.
    #[must_use]
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.statuses = statuses.into_iter().collect();
        self
    }

    /// Sets how many attempts may be retries, as a share of the session's requests.
    #[must_use]
    pub fn budget(mut self, share: f32) -> Self {
        self.budget = share;
        self
    }

    /// Sets how to read the delay that a response asks for in its body.
    #[must_use]
    pub fn wait_from(
        mut self,
        wait: impl Fn(&Response<'_>) -> Option<Duration> + Send + Sync + 'static,
    ) -> Self {
        self.wait_from = Some(Arc::new(wait));
        self
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("attempts", &self.attempts)
            .field("base", &self.base)
            .field("cap", &self.cap)
            .field("statuses", &self.statuses)
            .field("budget", &self.budget)
            .field("waits_from", &self.wait_from.is_some())
            .finish()
    }
}
