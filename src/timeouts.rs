//! How long each phase of an exchange may take.

use std::time::Duration;

/// Deadlines by phase, each as a duration from the phase's start. `None`: no deadline.
///
/// A duration is rounded up to whole milliseconds, the tick of the timing wheel, zero to one; 24
/// days and more is never.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Looking up the host's addresses. Default 10 s.
    pub resolve: Option<Duration>,
    /// Connecting, all addresses together. Default 10 s: a SYN is sent again after 1, 3 and 7 s.
    pub connect: Option<Duration>,
    /// The TLS handshake. Default 10 s.
    pub tls: Option<Duration>,
    /// The longest time in which not one byte of the request can be written. Default 30 s.
    pub write: Option<Duration>,
    /// From the last byte of the request to the first of the response, and from an interim response
    /// to the next. Default 30 s; see [`RequestBuilder::hold`](crate::RequestBuilder::hold) for
    /// long polls.
    pub first_byte: Option<Duration>,
    /// The longest silence inside a response. Stands still while the exchange is paused. Default 30
    /// s.
    pub idle: Option<Duration>,
    /// From the submission, time in the queue included, to the end of the response; the delay of a
    /// delayed request is not part of it. Default 5 min: the bound on a peer that sends a byte now
    /// and then.
    pub total: Option<Duration>,
}

impl Timeouts {
    /// The defaults of a new engine.
    pub(crate) const DEFAULT: Self = Self {
        resolve: Some(Duration::from_secs(10)),
        connect: Some(Duration::from_secs(10)),
        tls: Some(Duration::from_secs(10)),
        write: Some(Duration::from_secs(30)),
        first_byte: Some(Duration::from_secs(30)),
        idle: Some(Duration::from_secs(30)),
        total: Some(Duration::from_secs(300)),
    };

    fn slots_mut(&mut self) -> [&mut Option<Duration>; Clock::COUNT] {
        [
            &mut self.resolve,
            &mut self.connect,
            &mut self.tls,
            &mut self.write,
            &mut self.first_byte,
            &mut self.idle,
            &mut self.total,
        ]
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Names one of the [`Timeouts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    Resolve,
    Connect,
    Tls,
    Write,
    FirstByte,
    Idle,
    Total,
}

impl Clock {
    const COUNT: usize = 7;

    /// The field of [`Timeouts`] that sets it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Clock::Resolve => "resolve",
            Clock::Connect => "connect",
            Clock::Tls => "tls",
            Clock::Write => "write",
            Clock::FirstByte => "first_byte",
            Clock::Idle => "idle",
            Clock::Total => "total",
        }
    }
}

/// [`Timeouts`] in milliseconds, small enough to stand in every request: what is not set is left to
/// the engine's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Millis([u32; Clock::COUNT]);

impl Millis {
    const INHERIT: u32 = 0;
    const NEVER: u32 = u32::MAX;
    /// With a number of milliseconds: the engine's own, or that number if it is longer.
    const AT_LEAST: u32 = 1 << 31;
    /// Added to a default before a caller's closure sees it, so that a value which was not touched
    /// is told from one which was set to the default on purpose. Less than the millisecond that
    /// counts, and nothing that comes of adding round numbers.
    const MARK: Duration = Duration::from_nanos(577_215);

    /// Nothing set.
    pub(crate) const INHERITED: Self = Self([Self::INHERIT; Clock::COUNT]);

    pub(crate) fn new(timeouts: &Timeouts) -> Self {
        let mut timeouts = timeouts.clone();
        Self(timeouts.slots_mut().map(|t| Self::from_duration(*t)))
    }

    /// Lets `change` edit the timeouts; what it leaves alone stays as it is here.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Timeouts)) {
        let mut edited = Timeouts::DEFAULT;
        for (slot, set) in edited.slots_mut().into_iter().zip(self.0) {
            *slot = match set {
                Self::INHERIT => slot.map(|d| d + Self::MARK),
                Self::NEVER => None,
                ms if ms >= Self::AT_LEAST => {
                    let least = Duration::from_millis((ms - Self::AT_LEAST).into());
                    slot.map(|d| d.max(least) + Self::MARK)
                }
                ms => Some(Duration::from_millis(ms.into())),
            };
        }
        let mut before = edited.clone();
        change(&mut edited);
        for (i, (new, old)) in edited
            .slots_mut()
            .into_iter()
            .zip(before.slots_mut())
            .enumerate()
        {
            if new != old {
                self.0[i] = Self::from_duration(*new);
            }
        }
    }

    /// Sets one timeout.
    pub(crate) fn set(&mut self, clock: Clock, timeout: Option<Duration>) {
        self.0[clock as usize] = Self::from_duration(timeout);
    }

    /// Makes one timeout no shorter than `least`. One that is not set stays the engine's own where
    /// that is longer, which is not known here: it is told apart in `get`.
    pub(crate) fn lift(&mut self, clock: Clock, least: Duration) {
        let slot = &mut self.0[clock as usize];
        let least = Self::from_duration(Some(least));
        *slot = match *slot {
            Self::NEVER => Self::NEVER,
            _ if least == Self::NEVER => Self::NEVER,
            Self::INHERIT => Self::AT_LEAST | least,
            ms if ms >= Self::AT_LEAST => ms.max(Self::AT_LEAST | least),
            ms => ms.max(least),
        };
    }

    /// The timeout named `clock` in milliseconds, `fallback` standing in for what is not set here.
    /// `None`: never.
    #[inline]
    pub(crate) fn get(&self, clock: Clock, fallback: &Millis) -> Option<u32> {
        let engine = fallback.0[clock as usize];
        let ms = match self.0[clock as usize] {
            Self::INHERIT => engine,
            Self::NEVER => Self::NEVER,
            ms if ms >= Self::AT_LEAST => engine.max(ms - Self::AT_LEAST),
            ms => ms,
        };
        (ms != Self::NEVER).then_some(ms)
    }

    fn from_duration(duration: Option<Duration>) -> u32 {
        let Some(duration) = duration else {
            return Self::NEVER;
        };
        let ms = duration.as_nanos().div_ceil(1_000_000).max(1);
        match u32::try_from(ms) {
            Ok(ms) if ms < Self::AT_LEAST => ms,
            _ => Self::NEVER,
        }
    }
}
