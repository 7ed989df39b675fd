//! Visits: what a request's policy is asked on the way to its readback, and what follows from what
//! it says.
//!
//! A policy is user code that knows no state `S`, so the core asks it, at moments when no link is
//! being dealt with or only lent to it. It reaches nothing but what it is given. A request without a
//! policy pays for one test of a pointer when it begins, and of a key afterwards.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::engine::agenda::Completion;
use crate::engine::chains::{ChainKey, Marks, Stage};
use crate::engine::clock::Since;
use crate::engine::core::Core;
use crate::error::{Earlier, Error, ErrorKind};
use crate::h1::exchange::{Block, Taking};
use crate::net::Net;
use crate::net::slots::{MaybeKey, grow};
use crate::policy::{Decoding, Moment, Screened, Shown, Start, Verdict, Visiting};
use crate::request::Request;
use crate::response::{Reply, Response};

/// A chain's visit, and what the response to its present exchange has come to. Kept for the chain's
/// next request, where the visit allows it.
#[derive(Debug)]
pub(super) struct Visit {
    visiting: Visiting,
    /// What was sent for it before its present exchange.
    pub(super) earlier: Earlier,
    pub(super) shown: Shown,
    /// What takes off the body's codings.
    pub(super) decoding: Option<Decoding>,
    /// There is more to be decoded than was allowed, or it was held back by a pause.
    pub(super) is_pending: bool,
    /// What becomes of the decoded body.
    pub(super) taking: Taking,
    /// The decoded body, where it is collected.
    pub(super) body: Vec<u8>,
}

impl Visit {
    fn new(visiting: Visiting) -> Self {
        Self {
            visiting,
            earlier: Earlier::NOTHING,
            shown: Shown::AtOnce,
            decoding: None,
            is_pending: false,
            taking: Taking::Collect,
            body: Vec::new(),
        }
    }

    /// An exchange is over, or another begins: nothing is left of its response.
    fn clear(&mut self) {
        self.shown = Shown::AtOnce;
        self.decoding = None;
        self.is_pending = false;
        self.taking = Taking::Collect;
        self.body = Vec::new();
    }
}

/// A policy has panicked: the chain is over, and the turn to end.
pub(super) struct PolicyPanicked;

impl<N: Net> Core<N> {
    /// Whether a chain's request is visited by a policy.
    #[inline]
    pub(super) fn is_visited(&self, key: ChainKey) -> bool {
        self.chains[key].visit != MaybeKey::NONE
    }

    /// The visit of a chain that has one.
    pub(super) fn visit_mut(&mut self, key: ChainKey) -> Option<&mut Visit> {
        let visit = self.chains[key].visit.get()?;
        self.visits.get_mut(visit as usize)
    }

    /// Whether a request is to be visited, or a visit of the one before it is still there.
    #[inline]
    pub(super) fn wants_visit(&self, key: ChainKey) -> bool {
        self.settings.policy.is_some()
            || self.is_visited(key)
            || self.chains[key].request().policies().is_some()
    }

    /// Begins the visit of a chain's request, which it is placed after.
    #[inline(never)]
    pub(super) fn begin_visit(&mut self, key: ChainKey) {
        let kept = self.take_visit(key);
        let at = Moment::new(self.clock.present(), &self.bell, Some(self.chains.id(key)));
        let (request, default) = (self.chains[key].request(), self.settings.policy.as_ref());
        let begun = catch_unwind(AssertUnwindSafe(|| {
            Visiting::begin(kept, request, default, &at)
        }));
        self.clock.since = Since::UserCode;
        match begun {
            Ok(Some(visiting)) => {
                grow(&mut self.visits);
                let visit = self.visits.insert(Visit::new(visiting)) as u32;
                self.chains[key].visit = visit.into();
                self.ask_start(key);
            }
            Ok(None) => self.enter_and_place(key),
            Err(panic) => {
                self.panic.get_or_insert(panic);
                self.complete(key, Completion::Over);
            }
        }
    }

    /// Asks when the exchange may begin.
    pub(super) fn ask_start(&mut self, key: ChainKey) {
        if let Some(visit) = self.visit_mut(key) {
            visit.clear();
        }
        let start = self.ask(key, |visiting, request, at| visiting.start(request, at));
        self.catch_up();
        match start {
            Ok(Ok(Start::Now)) => self.enter_and_place(key),
            Ok(Ok(Start::After(delay))) => self.hold_back(key, Some(delay)),
            Ok(Ok(Start::Wait)) => self.hold_back(key, None),
            Ok(Err(error)) => self.refuse(key, error),
            Err(PolicyPanicked) => self.complete(key, Completion::Over),
        }
    }

    /// Has a chain's policy asked again when `delay` is over, or only when it is woken.
    fn hold_back(&mut self, key: ChainKey, delay: Option<Duration>) {
        self.chains[key].stage = Stage::HeldBack;
        let millis = delay.map(|delay| delay.as_nanos().div_ceil(1_000_000));
        match millis.map(u64::try_from) {
            // What lies further off than any clock will run is never.
            Some(Ok(millis)) if millis >> 50 == 0 => {
                let due = self.clock.tick_from_now() + millis;
                self.arm_at(key, due);
            }
            Some(_) | None => self.arm(key, None),
        }
    }

    /// Adds to `error`, which a chain's readback is to be told, what its policy has sent before.
    pub(super) fn with_earlier(&mut self, key: ChainKey, error: Error) -> Error {
        match self.visit_mut(key) {
            Some(visit) => error.behind(visit.earlier),
            None => error,
        }
    }

    /// Ends a chain's exchange before it has begun: its policy has said so, and is not asked again.
    fn refuse(&mut self, key: ChainKey, error: Error) {
        self.disarm(key);
        let error = error.placed_at(self.circumstances_unlinked(key));
        self.complete(key, Completion::Final(error));
    }

    /// The field lines that go out behind the request's own, default ones included, for an attempt
    /// that has its connection.
    ///
    /// # Errors
    /// There is no attempt, and the chain is on the agenda.
    #[inline(never)]
    pub(super) fn ask_fields(&mut self, key: ChainKey) -> Result<Block, ()> {
        let mut block = self.buffers.blocks.take();
        let sent = self.ask(key, |visiting, request, at| {
            visiting.send(request, &mut block, at)
        });
        // It may have taken its time, which is not the peer's.
        self.catch_up();
        match sent {
            Ok(Ok(())) => {
                let request = self.chains[key].request();
                self.settings.defaults.append_to(&mut block, request);
                return Ok(block);
            }
            Ok(Err(error)) => {
                self.disarm(key);
                let error = error.placed_at(self.circumstances_unlinked(key));
                self.complete(key, Completion::Failed(error));
            }
            Err(PolicyPanicked) => {
                self.disarm(key);
                self.complete(key, Completion::Over);
            }
        }
        self.buffers.blocks.give(block);
        Err(())
    }

    /// Asks what is to become of a response whose head has come.
    pub(super) fn ask_head(
        &mut self,
        key: ChainKey,
        response: &Response<'_>,
        max_bytes: u64,
    ) -> Result<Result<Shown, crate::policy::Unscreened>, PolicyPanicked> {
        let screened = self.ask(key, |visiting, request, at| {
            visiting.head(request, response, max_bytes, at)
        })?;
        Ok(screened.map(|Screened { shown, decoding }| {
            if let Some(visit) = self.visit_mut(key) {
                visit.shown = shown;
                visit.decoding = decoding;
            }
            shown
        }))
    }

    /// Asks what follows from how the exchange has ended.
    pub(super) fn ask_end(
        &mut self,
        key: ChainKey,
        reply: &Reply<'_>,
    ) -> Result<Result<Verdict, Error>, PolicyPanicked> {
        self.ask(key, |visiting, request, at| {
            visiting.end(request, reply, at)
        })
    }

    /// Sends `request` in place of the one whose exchange is over: the visit goes on with it. Its
    /// total deadline goes on as well, and ends it here if it is over: the policy is not asked what
    /// it makes of that, or one that tries again whatever happens would do so for ever.
    pub(super) fn resend(&mut self, key: ChainKey, request: Request, after: Duration) {
        if self.total_is_over(key) {
            let error = self.end_unlinked(key, ErrorKind::Timeout);
            return self.complete(key, Completion::Final(error));
        }
        let chain = &mut self.chains[key];
        chain.request = Some(request);
        chain.attempts = 0;
        chain.marks.clear(Marks::OF_ONE_REQUEST);
        chain.marks.clear(Marks::AT_HOME);
        self.catch_up();
        match after {
            Duration::ZERO => self.ask_start(key),
            after => self.hold_back(key, Some(after)),
        }
    }

    /// The visit is over, and its readback is next: it is kept for the chain's next request, or
    /// dropped.
    pub(super) fn reset_visit(&mut self, key: ChainKey) {
        let Some(visiting) = self.take_visit(key) else {
            return;
        };
        match catch_unwind(AssertUnwindSafe(|| visiting.reset())) {
            Ok(Some(visiting)) => {
                let visit = self.visits.insert(Visit::new(visiting)) as u32;
                self.chains[key].visit = visit.into();
            }
            Ok(None) => {}
            Err(panic) => {
                self.panic.get_or_insert(panic);
            }
        }
    }

    /// Takes a chain's visit out of its slab.
    pub(super) fn take_visit(&mut self, key: ChainKey) -> Option<Visiting> {
        let visit = std::mem::replace(&mut self.chains[key].visit, MaybeKey::NONE);
        let visit = self.visits.try_remove(visit.get()? as usize)?;
        Some(visit.visiting)
    }

    fn ask<R>(
        &mut self,
        key: ChainKey,
        ask: impl FnOnce(&mut Visiting, &Request, &Moment<'_>) -> R,
    ) -> Result<R, PolicyPanicked> {
        let id = self.chains.id(key);
        let at = Moment::new(self.clock.present(), &self.bell, Some(id));
        let chain = &self.chains[key];
        let visit = chain.visit.get().expect("it is visited");
        let visiting = &mut self.visits[visit as usize].visiting;
        let request = chain.request();
        // What a panic may leave half changed is the visit, which is dropped with its chain.
        let asked = catch_unwind(AssertUnwindSafe(|| ask(visiting, request, &at)));
        self.clock.since = Since::UserCode;
        asked.map_err(|panic| {
            self.panic.get_or_insert(panic);
            PolicyPanicked
        })
    }
}
