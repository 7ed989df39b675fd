//! A chain: one conversation, from its first submission until its readback returns `done`.

use std::time::{Duration, Instant};

use crate::error::{Earlier, Sent};
use crate::net::pool::OriginKey;
use crate::net::slots::MaybeKey;
use crate::request::Request;
use crate::sched::wheel::TimerId;

/// When a step of a chain begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Counted from when the step was returned or submitted.
    After(Duration),
    At(Instant),
}

impl When {
    pub(crate) const NOW: Self = Self::After(Duration::ZERO);

    #[inline]
    pub(crate) fn is_now(self) -> bool {
        self == Self::NOW
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

/// Slab key of a chain.
pub(crate) type ChainKey = u32;

/// Where a chain is.
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
/// response goes from `Running` back to `New`. If a policy sends it again, `Failed` and `Reading`
/// lead to `HeldBack` or to a later stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In transit to the next stage: a command, or the agenda's list of restarts, refers to it.
    New,
    /// Waiting for its delay.
    Delayed,
    /// Held back by its policy, which is asked again when the chain's timer goes off, or only when
    /// the chain is woken.
    HeldBack { until_woken: bool },
    /// Waiting without a request, for its delay or for the command that starts it. Then `call` is
    /// made, or else its readback is told.
    Waiting { call: MaybeKey },
    /// Done waiting, with an entry in the completion queue.
    Due { call: MaybeKey },
    /// Waiting for a connection, linked to its neighbors in the origin's queue.
    Queued { before: MaybeKey, behind: MaybeKey },
    /// Exchanging its request for a response on this link.
    Running { link: u32 },
    /// On no link, with an entry in the completion queue that says which user code is to run.
    Failed,
    /// Its readback is running.
    Reading,
    /// No chain: the slot is out of use for good, because its generations are used up.
    Retired,
}

/// A set of marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(u16);

impl Marks {
    /// Its readback is called once more, with `Cancelled`, and never after that.
    pub(super) const CANCELLED: Self = Self(1);
    /// Its readback returned `Pause`.
    pub(super) const PAUSED: Self = Self(2);
    /// The next attempt needs a fresh connection, because the last one was stale.
    pub(super) const FRESH: Self = Self(4);
    /// The server refused `Expect`, so the request is sent without it.
    pub(super) const NO_EXPECT: Self = Self(8);
    /// Its id was given out by a `Submitter`.
    pub(super) const REMOTE: Self = Self(16);
    /// It is queued because this machine ran out of something.
    pub(super) const EXHAUSTED: Self = Self(32);
    /// Its origin is entered for the present request. The mark survives when the same request is
    /// sent again, and saves looking the origin up.
    pub(super) const ORIGIN_ENTERED: Self = Self(64);
    /// The deadline of its phase has passed, and nothing has moved the deadline since.
    pub(super) const LATE: Self = Self(128);
    /// The total deadline of its request has passed and is being dealt with.
    pub(super) const OVER: Self = Self(256);

    /// With any of these, bytes that have arrived for the chain are not read.
    pub(super) const STANDS_STILL: Self = Self(Self::PAUSED.0 | Self::CANCELLED.0);
    /// Something sent earlier for the present submission may have been processed: an attempt that
    /// the engine or the policy replaced by another, or the present one once its exchange is over.
    const SENT: Self = Self(512);
    /// Something sent for it was answered.
    const ANSWERED: Self = Self(1024);
    /// Something sent for it may have been processed and was not idempotent.
    const UNSAFE: Self = Self(2048);
    /// Its request has a policy, and [`Chains`](super::chains::Chains) the key of the visit.
    pub(super) const VISITED: Self = Self(4096);

    /// Marks that do not hold for the next request.
    pub(super) const OF_ONE_REQUEST: Self =
        Self(Self::FRESH.0 | Self::NO_EXPECT.0 | Self::LATE.0 | Self::OVER.0);
    /// Marks that do not hold for the next submission.
    pub(super) const OF_ONE_SUBMISSION: Self =
        Self(Self::OF_ONE_REQUEST.0 | Self::SENT.0 | Self::ANSWERED.0 | Self::UNSAFE.0);

    pub(super) fn has(self, mark: Self) -> bool {
        debug_assert!(mark.0.is_power_of_two(), "`has_any` asks for several");
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

/// A conversation: a sequence of submissions. A submission is a request together with whatever the
/// engine or a policy sends for it.
///
/// The caller's code is kept apart, in [`Readbacks`](super::asks::Readbacks). A million chains may
/// be delayed at once, so this struct has to stay small.
pub(crate) struct Chain {
    /// The request under way, or else the last one. Taken out while the readback runs; `None`
    /// before the first.
    pub(super) request: Option<Request>,
    /// When the present submission was made, or its delay ended, in microseconds of the engine's
    /// life. A policy's resends do not move it, so the total deadline, `Timings` and the warning
    /// about a long wait count from it across all hops.
    pub(super) submitted: u64,
    pub(super) stage: Stage,
    /// Its delay, or the deadline of its phase. Each chain has one timer only.
    pub(super) timer: Option<TimerId>,
    /// The origin that counts it as a user.
    pub(super) origin: MaybeKey,
    /// How often the present request was sent. Starts at 0 again when a policy replaces the
    /// request.
    pub(super) attempts: u8,
    /// Exchanges that failed since the last success.
    pub(super) failures: u8,
    pub(super) marks: Marks,
}

impl Chain {
    /// Notes that its request is put on a link. Returns whether the `Expect` line is sent, and when
    /// the request was submitted.
    #[inline]
    pub(super) fn begin_attempt(&mut self, link: u32) -> (bool, u64) {
        self.stage = Stage::Running { link };
        self.attempts = self.attempts.saturating_add(1);
        (!self.marks.has(Marks::NO_EXPECT), self.submitted)
    }

    /// Puts the request back that was taken out while the readback ran.
    #[inline(always)]
    pub(super) fn put_back(&mut self, stage: Stage, request: Option<Request>) {
        self.stage = stage;
        let none = std::mem::replace(&mut self.request, request);
        debug_assert!(
            none.is_none(),
            "the request was taken out before the readback ran"
        );
        // Nothing to drop, which the compiler cannot see: this saves the drop call for every
        // response.
        std::mem::forget(none);
    }

    /// Notes that something sent for the present submission was answered.
    #[inline]
    pub(super) fn note_answered(&mut self) {
        self.marks.set(Marks::ANSWERED);
    }

    /// Notes how far an attempt was sent that may be followed by another.
    pub(super) fn note_sent(&mut self, sent: Sent) {
        match sent {
            Sent::No => {}
            Sent::Maybe => self.marks.set(Marks::SENT),
            Sent::Yes => self.marks.set(Marks::ANSWERED),
        }
    }

    /// Replaces the present request by another, as part of the same submission.
    pub(super) fn replace_request(&mut self, request: Request) {
        // Noted here because the request itself is gone afterwards.
        if self.earlier().sent != Sent::No && !self.request().is_idempotent() {
            self.marks.set(Marks::UNSAFE);
        }
        self.request = Some(request);
        self.attempts = 0;
        self.marks.clear(Marks::OF_ONE_REQUEST);
        self.marks.clear(Marks::ORIGIN_ENTERED);
    }

    /// Returns what was sent for the present submission before the present attempt.
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

    /// Whether no earlier request of the present submission was both sent and not idempotent.
    #[inline]
    pub(super) fn is_safe(&self) -> bool {
        !self.marks.has(Marks::UNSAFE)
    }

    /// Counts an exchange that is over.
    #[inline]
    pub(super) fn note_outcome(&mut self, has_failed: bool) {
        self.failures = if has_failed {
            self.failures.saturating_add(1)
        } else {
            0
        };
    }

    /// Returns the request under way, or else the last one.
    ///
    /// # Panics
    /// If the chain never had a request, but only waited.
    #[inline]
    pub(super) fn request(&self) -> &Request {
        self.request
            .as_ref()
            .expect("a chain that sends has a request")
    }

    /// Returns the key of the origin that its request goes to.
    #[inline]
    pub(super) fn home(&self) -> OriginKey {
        self.origin
            .get()
            .expect("a chain that sends has entered its origin")
    }
}
