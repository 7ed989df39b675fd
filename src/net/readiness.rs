//! The events of a poll: which sources are ready, and for what.

use mio::Token;
use mio::event::Event;

/// What a poll reports for one token: a set of flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Readiness(u8);

impl Readiness {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const READABLE: Self = Self(1);
    pub(crate) const WRITABLE: Self = Self(2);
    /// The peer will send nothing more: the stream ends after the bytes that are still to be read.
    pub(crate) const READ_CLOSED: Self = Self(4);
    /// The socket has an error to report, or is closed in both directions.
    pub(crate) const ERROR: Self = Self(8);

    /// Nothing follows the bytes that are still to be read.
    pub(crate) const ENDING: Self = Self::READ_CLOSED.with(Self::ERROR);
    /// Reasons to read.
    pub(crate) const READ_SIDE: Self = Self::READABLE.with(Self::ENDING);

    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns whether this one flag is set.
    pub(crate) fn has(self, one: Self) -> bool {
        debug_assert!(
            one.0.is_power_of_two(),
            "several flags are tested by `has_any`"
        );
        self.has_any(one)
    }

    pub(crate) fn has_any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    pub(super) fn of(event: &Event) -> Self {
        let mut readiness = Self::NONE;
        if event.is_readable() {
            readiness = readiness.with(Self::READABLE);
        }
        if event.is_writable() {
            readiness = readiness.with(Self::WRITABLE);
        }
        if event.is_read_closed() {
            readiness = readiness.with(Self::READ_CLOSED);
        }
        if event.is_error() {
            readiness = readiness.with(Self::ERROR);
        }
        readiness
    }
}

/// One event of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub(crate) token: Token,
    pub(crate) readiness: Readiness,
}

/// Whether a poll has reported every event there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Sources without an event had nothing new at the time of the poll.
    All,
    /// There may be further events: the poll returned as many as it may at once, it was
    /// interrupted, or its time is unknown.
    Some,
}

/// The token of the engine's own waker.
pub(crate) const WAKE: Token = Token(usize::MAX);
/// The token of the timer that makes the poll readable.
pub(crate) const ALARM: Token = Token(usize::MAX - 1);
