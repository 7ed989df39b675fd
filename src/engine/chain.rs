//! A chain: one conversation, from its first submission until its readback returns `done`.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use crate::error::{Earlier, Sent};
use crate::net::pool::OriginKey;
use crate::net::slots::MaybeKey;
use crate::request::Request;
use crate::sched::wheel::TimerId;

/// When a step of a chain begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// The delay counts from when the step was returned or submitted.
    After(Duration),
    At(Instant),
}

impl When {
    pub(crate) const NOW: Self = Self::After(Duration::ZERO);

    /// Returns whether the step begins without a delay.
    #[inline]
    pub(crate) fn is_now(self, now: Instant) -> bool {
        match self {
            Self::After(delay) => delay.is_zero(),
            Self::At(at) => at <= now,
        }
    }

    pub(crate) fn plus(self, delay: Duration) -> Self {
        match self {
            Self::After(before) => Self::After(before.saturating_add(delay)),
            Self::At(at) => at
                .checked_add(delay)
                .map_or(Self::After(Duration::MAX), Self::At),
        }
    }
}

/// What few steps set for their chain.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// The key that the chain holds until the step begins.
    pub(crate) key: Option<Cow<'static, str>>,
    /// The deadline of the chain as a whole, counted from when the step was returned or submitted.
    pub(crate) chain_timeout: Option<Duration>,
}

/// Slab key of a chain.
pub(crate) type ChainKey = u32;

/// The stage of a chain.
///
/// ```text
/// New ──► Delayed ──► HeldBack ──► Queued ──► Running ──► Reading ──► the next step, or gone
///  │         │           │           │          │
///  └─────────┴───────────┴───────────┴──────────┴──► Failed ──► Reading
///
/// Waiting ──► Due ──► Reading
///    └─────────┴──► Failed
/// ```
///
/// Any of the stages before `Running` may be skipped. A request whose connection is lost before a
/// response returns from `Running` to `New`. If a policy sends it again, `Failed` and `Reading`
/// lead to `HeldBack` or to a later stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Between two stages: a command, or the agenda's list of restarts, refers to the chain.
    New,
    /// The delay of its request is running.
    Delayed,
    /// Held back by the policy, which is called again when the chain's timer goes off. With
    /// `until_woken`, the policy is called again only when the chain is woken.
    HeldBack { until_woken: bool },
    /// Waiting without a request, for its delay or for the command that starts it. When the wait
    /// ends, `call` runs; without one, the readback's `on_due` is called.
    Waiting { call: MaybeKey },
    /// The wait has ended, and the chain has an entry in the completion queue.
    Due { call: MaybeKey },
    /// Waiting for a connection, linked to its neighbors in the origin's queue.
    Queued { before: MaybeKey, behind: MaybeKey },
    /// Exchanging its request for a response on this link.
    Running { link: u32 },
    /// On no link, with an entry in the completion queue that determines which user code runs.
    Failed,
    /// Its readback is running.
    Reading,
    /// The slot holds no chain and is never used again, because its generations are exhausted.
    Retired,
}

/// A set of marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(u16);

impl Marks {
    /// The readback is called once more, with `Cancelled`, and never after that.
    pub(super) const CANCELLED: Self = Self(1);
    /// The readback returned `Pause`.
    pub(super) const PAUSED: Self = Self(2);
    /// The next attempt needs a fresh connection, because the last one was stale.
    pub(super) const FRESH: Self = Self(4);
    /// The server refused `Expect`, so the request is sent without it.
    pub(super) const NO_EXPECT: Self = Self(8);
    /// The chain's id was assigned by a `Submitter`.
    pub(super) const REMOTE: Self = Self(16);
    /// The request is queued because this machine ran out of a resource.
    pub(super) const EXHAUSTED: Self = Self(32);
    /// The origin of the current request is entered in the pool. The mark remains when the same
    /// request is sent again, which saves looking the origin up.
    pub(super) const ORIGIN_ENTERED: Self = Self(64);
    /// The deadline of its phase has passed, and nothing has moved the deadline since.
    pub(super) const LATE: Self = Self(128);
    /// The total deadline of the request has passed and is being processed.
    pub(super) const OVER: Self = Self(256);

    /// With either of these marks, bytes that have arrived for the chain are not read.
    pub(super) const STANDS_STILL: Self = Self(Self::PAUSED.0 | Self::CANCELLED.0);
    /// With any of these marks, bytes are not read, or only within the request's limits.
    pub(super) const STANDS_STILL_OR_METERED: Self = Self(Self::STANDS_STILL.0 | Self::METERED.0);
    /// Part of the current submission may have been processed by a server: an attempt that the
    /// engine or the policy has replaced, or the current attempt once its exchange has ended.
    const SENT: Self = Self(512);
    /// An attempt of the current submission was answered.
    const ANSWERED: Self = Self(1024);
    /// An attempt of the current submission may have been processed and was not idempotent.
    const UNSAFE: Self = Self(2048);
    /// The request has a policy, and [`Chains`](super::chains::Chains) holds the key of the visit.
    pub(super) const VISITED: Self = Self(4096);
    /// The deadline of the chain has ended what it was doing. The readback is called once more, and
    /// never after that.
    pub(super) const EXPIRED: Self = Self(8192);

    /// With either of these marks, the next call of the readback is the last one.
    pub(super) const ENDS: Self = Self(Self::CANCELLED.0 | Self::EXPIRED.0);
    /// The speed of the request that was put on a link is limited: see
    /// [`metering`](crate::engine::metering).
    pub(super) const METERED: Self = Self(16384);
    /// The window of a low speed has ended without enough bytes, and is being looked at.
    pub(super) const SLOW: Self = Self(32768);

    /// With either of these marks, something accompanies the exchange, and ends with it.
    pub(super) const VISITED_OR_METERED: Self = Self(Self::VISITED.0 | Self::METERED.0);

    /// Marks that are cleared for the next request.
    pub(super) const OF_ONE_REQUEST: Self =
        Self(Self::FRESH.0 | Self::NO_EXPECT.0 | Self::LATE.0 | Self::OVER.0 | Self::METERED.0);
    /// Marks that are cleared for the next submission.
    pub(super) const OF_ONE_SUBMISSION: Self =
        Self(Self::OF_ONE_REQUEST.0 | Self::SENT.0 | Self::ANSWERED.0 | Self::UNSAFE.0);

    pub(super) fn has(self, mark: Self) -> bool {
        debug_assert!(mark.0.is_power_of_two(), "`has_any` tests several marks");
        self.has_any(mark)
    }

    pub(super) fn has_any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    pub(super) fn set(&mut self, mark: Self) {
        self.0 |= mark.0;
    }

    pub(super) fn clear(&mut self, mark: Self) {
        self.0 &= !mark.0;
    }
}

/// A conversation, as a sequence of submissions. A submission is a request together with everything
/// that the engine or a policy sends for it.
///
/// The caller's code is stored separately, in [`Readbacks`](super::asks::Readbacks). A million
/// chains may be delayed at once, so this struct has to be small.
pub(crate) struct Chain {
    /// The current request, or else the last one. `None` before the first, and while the readback
    /// runs.
    pub(super) request: Option<Request>,
    /// When the current submission was made, or its delay ended, in microseconds of the engine's
    /// life. A policy's resends do not change it, so the total deadline, `Timings` and the warning
    /// about a long wait count from it across all hops.
    pub(super) submitted: u64,
    pub(super) stage: Stage,
    /// The chain's timer: its delay, or the deadline of its phase. A deadline of the chain as a
    /// whole has another one.
    pub(super) timer: Option<TimerId>,
    /// The origin of which the chain counts as a user.
    pub(super) origin: MaybeKey,
    /// The number of times that the current request was sent. It is reset to 0 when a policy
    /// replaces the request.
    pub(super) attempts: u8,
    /// The number of exchanges that failed since the last success.
    pub(super) failures: u8,
    pub(super) marks: Marks,
}

impl Chain {
    /// Records that the request is put on a link. Returns whether the `Expect` line is sent.
    #[inline]
    pub(super) fn begin_attempt(&mut self, link: u32) -> bool {
        self.stage = Stage::Running { link };
        self.attempts = self.attempts.saturating_add(1);
        !self.marks.has(Marks::NO_EXPECT)
    }

    /// Puts back the request that was taken out while the readback ran.
    #[inline(always)]
    pub(super) fn put_back(&mut self, stage: Stage, request: Option<Request>) {
        self.stage = stage;
        let none = std::mem::replace(&mut self.request, request);
        debug_assert!(
            none.is_none(),
            "the request was taken out before the readback ran"
        );
        // `none` needs no drop, but the compiler cannot see that: forgetting it saves a drop call
        // for every response.
        std::mem::forget(none);
    }

    /// Records that an attempt of the current submission was answered.
    #[inline]
    pub(super) fn note_answered(&mut self) {
        self.marks.set(Marks::ANSWERED);
    }

    /// Records how far an attempt was sent, in case another one follows.
    pub(super) fn note_sent(&mut self, sent: Sent) {
        match sent {
            Sent::No => {}
            Sent::Maybe => self.marks.set(Marks::SENT),
            Sent::Yes => self.marks.set(Marks::ANSWERED),
        }
    }

    /// Replaces the current request, as part of the same submission, and returns it.
    pub(super) fn replace_request(&mut self, request: Request) -> Request {
        self.note_unsafe();
        let former = self.request.replace(request);
        self.attempts = 0;
        self.marks.clear(Marks::OF_ONE_REQUEST);
        self.marks.clear(Marks::ORIGIN_ENTERED);
        former.expect("a chain that sends has a request")
    }

    /// Sets the request that the current submission began with, after others were sent in its
    /// place.
    pub(super) fn restore_request(&mut self, first: Request) {
        self.note_unsafe();
        self.request = Some(first);
        self.marks.clear(Marks::ORIGIN_ENTERED);
    }

    /// Records whether the current request was sent and is not idempotent, before it is dropped for
    /// another of the same submission.
    fn note_unsafe(&mut self) {
        if self.earlier().sent != Sent::No && !self.request().is_idempotent() {
            self.marks.set(Marks::UNSAFE);
        }
    }

    /// Returns what the current submission sent before the current attempt.
    pub(super) fn earlier(&self) -> Earlier {
        let sent = match (self.marks.has(Marks::ANSWERED), self.marks.has(Marks::SENT)) {
            (true, _) => Sent::Yes,
            (false, true) => Sent::Maybe,
            (false, false) => Sent::No,
        };
        let request = self.request.as_ref();
        let is_idempotent = request.is_none_or(Request::is_idempotent);
        Earlier {
            sent,
            resend_is_safe: self.is_safe() && (sent == Sent::No || is_idempotent),
        }
    }

    /// Returns whether no earlier request of the current submission was both sent and not
    /// idempotent.
    #[inline]
    pub(super) fn is_safe(&self) -> bool {
        !self.marks.has(Marks::UNSAFE)
    }

    /// Counts an exchange that has ended.
    #[inline]
    pub(super) fn note_outcome(&mut self, has_failed: bool) {
        self.failures = if has_failed {
            self.failures.saturating_add(1)
        } else {
            0
        };
    }

    /// Returns the current request, or else the last one.
    ///
    /// # Panics
    /// If the chain has never had a request, because it only waited.
    #[inline]
    pub(super) fn request(&self) -> &Request {
        self.request
            .as_ref()
            .expect("a chain that sends has a request")
    }

    /// Returns the key of the origin of the chain's request.
    #[inline]
    pub(super) fn origin_key(&self) -> OriginKey {
        self.origin
            .get()
            .expect("a chain that sends has entered its origin")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::readback::Next;

    #[test]
    fn a_delayed_chain_and_a_step_are_small() {
        // A million chains may be delayed, and each request moves a step several times. What few of
        // them have is in tables and boxes of its own.
        assert!(size_of::<Chain>() <= 40, "{}", size_of::<Chain>());
        assert!(size_of::<Next<()>>() <= 56, "{}", size_of::<Next<()>>());
    }
}
