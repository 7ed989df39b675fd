//! One chain: a conversation, from its first submission until its readback answers `done`.

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
/// Any of the stages in front of `Running` may be left out. A request whose connection is lost
/// before it could be answered goes from `Running` back to `New`. Where a policy sends it again,
/// `Failed` and `Reading` lead to `HeldBack`, or to what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// On its way to the next stage: a command, or the agenda's list of restarts, has it.
    New,
    /// Waiting for its delay.
    Delayed,
    /// Its policy holds it back; it is asked again when its timer goes off, or else when it is
    /// woken.
    HeldBack { until_woken: bool },
    /// Waiting for its delay, or for the command queue to start it, without a request: this call
    /// follows, or else its readback is told.
    Waiting { call: MaybeKey },
    /// It has waited; the completion queue holds its place.
    Due { call: MaybeKey },
    /// Waiting for a connection, between these two of its origin's queue.
    Queued { before: MaybeKey, behind: MaybeKey },
    /// Exchanging its request for a response on this link.
    Running { link: u32 },
    /// It is on no link, and user code is to run for it: the completion queue says what.
    Failed,
    /// Its readback is running.
    Reading,
    /// No chain at all: its slot is not used again.
    Retired,
}

/// A set of marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(u16);

impl Marks {
    /// Its readback is to be called once more, with `Cancelled`, and no more after that.
    pub(super) const CANCELLED: Self = Self(1);
    /// Its readback answered `Pause`.
    pub(super) const PAUSED: Self = Self(2);
    /// The next link is to be a fresh one: the last was stale.
    pub(super) const FRESH: Self = Self(4);
    /// The server refused `Expect`: the request goes without it.
    pub(super) const NO_EXPECT: Self = Self(8);
    /// Its id came from a `Submitter`.
    pub(super) const REMOTE: Self = Self(16);
    /// It waits because this machine ran out of something.
    pub(super) const EXHAUSTED: Self = Self(32);
    /// Its origin is that of its request: so it stays as long as the same one is sent again.
    pub(super) const AT_HOME: Self = Self(64);
    /// The deadline of its phase has passed, and nothing has moved it since.
    pub(super) const LATE: Self = Self(128);
    /// The total deadline of its request has passed, and is being dealt with.
    pub(super) const OVER: Self = Self(256);

    /// Either keeps what has come for it from being read.
    pub(super) const STANDS_STILL: Self = Self(Self::PAUSED.0 | Self::CANCELLED.0);
    /// Of the present submission something may have been processed: a request that was sent again
    /// since, by the engine or by its policy, or the present one, whose exchange is over.
    const SENT: Self = Self(512);
    /// Something was answered.
    const ANSWERED: Self = Self(1024);
    /// And it was not idempotent.
    const UNSAFE: Self = Self(2048);
    /// A policy sees to its requests: [`Chains`](super::chains::Chains) know its visit.
    pub(super) const VISITED: Self = Self(4096);

    /// What does not hold of the next request any more.
    pub(super) const OF_ONE_REQUEST: Self =
        Self(Self::FRESH.0 | Self::NO_EXPECT.0 | Self::LATE.0 | Self::OVER.0);
    /// What does not hold of the next submission any more.
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

/// A conversation: one submission after another, each the request that is under way together with
/// all that is sent for it, by the engine or by its policy. What is here is all but for what its
/// caller wrote, which is in [`Readbacks`]. A million of them may be delayed: keep it small.
pub(crate) struct Chain {
    /// The one under way, or else the last one. Out while its readback runs, and none before the
    /// first.
    pub(super) request: Option<Request>,
    /// When the present submission was made, or its delay was over: microseconds of the engine's
    /// life. What its policy sends does not move it, so the total deadline, `Timings` and the alert
    /// of a long wait count from it over all hops.
    pub(super) submitted: u64,
    pub(super) stage: Stage,
    /// Of its delay, or the deadline of its phase.
    pub(super) timer: Option<TimerId>,
    /// The origin that holds a count for it.
    pub(super) origin: MaybeKey,
    /// How often the present request was sent: of what a policy sends in its place, from 0 again.
    pub(super) attempts: u8,
    /// How many exchanges have failed since the last that did not.
    pub(super) failures: u8,
    pub(super) marks: Marks,
}

impl Chain {
    /// Its request is put on a link. Answers whether its `Expect` line is sent, and when it was
    /// submitted.
    #[inline]
    pub(super) fn begin_attempt(&mut self, link: u32) -> (bool, u64) {
        self.stage = Stage::Running { link };
        self.attempts = self.attempts.saturating_add(1);
        (!self.marks.has(Marks::NO_EXPECT), self.submitted)
    }

    /// Its readback has run: puts back what was taken out for that.
    #[inline(always)]
    pub(super) fn put_back(&mut self, stage: Stage, request: Option<Request>) {
        self.stage = stage;
        let none = std::mem::replace(&mut self.request, request);
        debug_assert!(none.is_none(), "it was taken");
        std::mem::forget(none);
    }

    /// Its request was answered.
    #[inline]
    pub(super) fn note_answered(&mut self) {
        self.marks.set(Marks::ANSWERED);
    }

    /// Its request was sent, as far as `sent` says, and may be sent again.
    pub(super) fn note_sent(&mut self, sent: Sent) {
        match sent {
            Sent::No => {}
            Sent::Maybe => self.marks.set(Marks::SENT),
            Sent::Yes => self.marks.set(Marks::ANSWERED),
        }
    }

    /// Another request takes the place of the present one.
    pub(super) fn replace_request(&mut self, request: Request) {
        if self.earlier().sent != Sent::No && !self.request().is_idempotent() {
            self.marks.set(Marks::UNSAFE);
        }
        self.request = Some(request);
        self.attempts = 0;
        self.marks.clear(Marks::OF_ONE_REQUEST);
        self.marks.clear(Marks::AT_HOME);
    }

    /// What was sent for the present submission before its present attempt.
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

    /// Whether all that was sent in the place of its present request, before that, was idempotent.
    #[inline]
    pub(super) fn is_safe(&self) -> bool {
        !self.marks.has(Marks::UNSAFE)
    }

    /// An exchange of it is over.
    #[inline]
    pub(super) fn note_outcome(&mut self, has_failed: bool) {
        self.failures = if has_failed {
            self.failures.saturating_add(1)
        } else {
            0
        };
    }

    /// The request under way, or else the last one.
    ///
    /// # Panics
    /// There was none yet: the chain has only waited.
    #[inline]
    pub(super) fn request(&self) -> &Request {
        self.request
            .as_ref()
            .expect("a chain that sends has a request")
    }

    /// The origin of the request that it is sending.
    #[inline]
    pub(super) fn home(&self) -> OriginKey {
        self.origin.get().expect("it has entered its origin")
    }
}
