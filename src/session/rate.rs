//! How often requests are sent.

use std::time::Duration;

/// How often requests are sent: at most so many in any window of time, as the server counts them.
///
/// Each request takes a token, which comes back one window after the response. A response that
/// takes long, such as that to a long poll, is not waited for: one second after the request was
/// sent, or a tenth of the window if that is more, the server is assumed to have counted it, and
/// the token comes back one window after that. A server that counts the requests of the last window
/// therefore never counts too many, as long as requests reach it within this time, on new
/// connections as well.
///
/// If a kept connection turns out to be closed, the engine may send a request
/// [again](crate::Error::attempts) at once, on another one. This takes a token, but does not wait
/// for it.
///
/// [`burst`](Self::burst) sets how many tokens may be taken at once. With 1, the default, requests
/// are spread evenly over the window.
///
/// ```
/// use std::time::Duration;
/// use httpstream::session::{Rate, Session};
///
/// let session = Session::builder()
///     // Up to 30 at once, and never more than 30 in a second.
///     .rate(Rate::per_second(30).burst(30))
///     // To each chat one in three seconds.
///     .lane_rate(Rate::per_minute(20))
///     .build()?;
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub(super) most: u32,
    pub(super) window: Duration,
    pub(super) burst: u32,
}

impl Rate {
    /// Up to `most` requests in any `window`. The window is from 1 ms to a day.
    pub fn new(most: u32, window: Duration) -> Self {
        Self {
            most,
            window,
            burst: 1,
        }
    }

    /// Up to `most` requests in any second.
    pub fn per_second(most: u32) -> Self {
        Self::new(most, Duration::from_secs(1))
    }

    /// Up to `most` requests in any minute.
    pub fn per_minute(most: u32) -> Self {
        Self::new(most, Duration::from_secs(60))
    }

    /// Allows up to `most` requests at once after a rest: 1 by default. This does not change how
    /// many there are in a window.
    #[must_use]
    pub fn burst(mut self, most: u32) -> Self {
        self.burst = most;
        self
    }

    /// Checks the values.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        const WINDOWS: std::ops::RangeInclusive<Duration> =
            Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);
        if self.most == 0 || self.burst == 0 {
            return Err("a rate of 0 would send nothing");
        }
        if !WINDOWS.contains(&self.window) {
            return Err("the window of a rate is from 1 ms to a day");
        }
        Ok(())
    }
}
