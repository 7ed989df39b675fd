//! Calls readbacks, and carries out the steps that they return.
//!
//! User code runs between two links. Its readback is taken out of the slab, and its link is already
//! free. It borrows the buffers and the chains, but cannot reach links, the pool or timers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use http::StatusCode;

use crate::engine::Engine;
use crate::engine::alerts::alert;
use crate::engine::asks::Asks;
use crate::engine::chain::{ChainKey, Marks, Stage, When};
use crate::engine::clock::Since;
use crate::engine::core::Core;
use crate::engine::mode::Mode;
use crate::engine::readback::{Action, Context, Flow, Next, Rare, Readback, Seen};
use crate::engine::visits::PolicyPanicked;
use crate::error::{Error, ErrorKind};
use crate::h1::collected::Collected;
use crate::h1::reading::Body;
use crate::id::ChainId;
use crate::net::slots::MaybeKey;
use crate::policy::{Outcome, Shown, Verdict};
use crate::request::Request;
use crate::response::{Reply, Response, is_redirect, no_fields};

/// What a policy has sent in place of a request that was answered.
pub(super) struct Resent {
    pub(super) request: Request,
    pub(super) after: Duration,
    /// The status of the answer.
    pub(super) status: StatusCode,
}

/// Returns whether a status counts as a failure for `Context::failures`: the server was not ready
/// for the request, or not reachable.
pub(super) fn is_worth_another_try(status: StatusCode) -> bool {
    // One comparison suffices for successful responses.
    status.as_u16() >= 400 && matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502..=504)
}

/// Returns whether a response with this status, if a policy answers it by sending a request, leads
/// on to that request rather than making it a retry: a redirect or a challenge.
fn leads_on(status: StatusCode) -> bool {
    is_redirect(status) || matches!(status.as_u16(), 401 | 407)
}

/// Returns whether an error that a policy made of a response counts as a failure. One made of its
/// status counts as the status does.
fn is_failure(error: &Error) -> bool {
    error.kind() != ErrorKind::Status || error.status().is_none_or(is_worth_another_try)
}

impl<S, M: Mode> Engine<S, M> {
    /// Delivers the failure of a chain's exchange: to its policy, if it has one, and then to its
    /// readback.
    pub(super) fn deliver(&mut self, state: &mut S, chain: ChainKey, error: Error) {
        let is_ending = self.core.chains[chain].marks.has_any(Marks::ENDS);
        if is_ending || !self.core.is_visited(chain) {
            return self.tell_failure(state, chain, error);
        }
        self.core.chains[chain].note_sent(error.request_sent());
        let reply = Err(error);
        match (self.core.ask_end(chain, &reply), reply) {
            (Ok(Ok(Verdict::Resend { request, after })), reply) => {
                // A redirect or a challenge whose body could not be read is one all the same.
                let status = self.core.visit(chain).redirect();
                let answered = reply.as_ref().err().and_then(Error::status);
                let goes_on =
                    answered.is_some_and(leads_on) || self.tell_retry(state, chain, &reply, after);
                self.core.discard(reply.map(|_: Response<'_>| ()));
                if goes_on {
                    self.core.resend(chain, request, after, status);
                }
            }
            (Ok(Ok(_)), Err(error)) => self.tell_failure(state, chain, error),
            (Ok(Ok(_)), Ok(_)) => unreachable!("the reply was made from an error"),
            (Ok(Err(error)), reply) => {
                let at = self.core.circumstances_unlinked(chain);
                let at = match &reply {
                    Err(former) => former.circumstances(at),
                    Ok(_) => at,
                };
                self.tell_failure(state, chain, error.placed_at(at));
            }
            (Err(PolicyPanicked), _) => self.end_chain(chain),
        }
    }

    /// Delivers the response to a chain's request: to its policy, and then to its readback, unless
    /// the policy has another request sent, which is returned.
    #[inline(never)]
    pub(super) fn conclude(
        &mut self,
        state: &mut S,
        chain: ChainKey,
        response: Response<'_>,
    ) -> Option<Resent> {
        let mut response = response;
        let mut decoded;
        let mut shown = Shown::AtOnce;
        if let Some(visit) = self.core.visit_mut(chain) {
            shown = visit.visiting.shown();
            if visit.is_decoding() {
                decoded = Collected::from(std::mem::take(&mut visit.rare().body));
                response.body = Body::Collected(&mut decoded);
            }
        }
        let reply = Ok(response);
        let asked = self.core.ask_end(chain, &reply);
        let Ok(response) = reply else {
            unreachable!("the reply was made from a response")
        };
        let next = match asked {
            Ok(Ok(Verdict::Resend { request, after })) => {
                let status = response.status();
                let reply = Ok(response);
                let goes_on = leads_on(status) || self.tell_retry(state, chain, &reply, after);
                return goes_on.then_some(Resent {
                    request,
                    after,
                    status,
                });
            }
            Ok(Ok(_)) => {
                self.core.reset_visit(chain);
                let has_failed = is_worth_another_try(response.status());
                self.core.chains[chain].note_outcome(has_failed);
                match shown {
                    Shown::AtOnce => self.tell(state, chain, Ok(response)),
                    Shown::AtTheEnd | Shown::WithoutBody => self.replay(state, chain, response),
                }
            }
            Ok(Err(error)) => {
                let error = error.placed_at(response.circumstances());
                self.core.reset_visit(chain);
                let has_failed = is_failure(&error);
                self.core.chains[chain].note_outcome(has_failed);
                self.tell(state, chain, Err(error))
            }
            Err(PolicyPanicked) => None,
        };
        self.follow(chain, next);
        None
    }

    /// Tells a chain's readback that its policy sends the request again because of `reply`. Returns
    /// false if that is not to happen, because the readback canceled the chain or panicked.
    #[cold]
    fn tell_retry(
        &mut self,
        state: &mut S,
        chain: ChainKey,
        reply: &Reply<'_>,
        after: Duration,
    ) -> bool {
        let id = self.core.chains.id(chain);
        let told = self.run_readback(chain, id, |readback, mut cx| {
            readback.on_retry(state, Outcome::from(reply), after, &mut cx)
        });
        if told.is_none() {
            self.end_chain(chain);
            return false;
        }
        // As after any other readback, which may have canceled its own chain.
        self.core.settle();
        let is_cancelled = self.core.chains[chain].marks.has(Marks::CANCELLED);
        if is_cancelled {
            self.follow_cancelled(chain, Next::done());
        }
        !is_cancelled
    }

    /// Passes on a response that was held back for the policy, as if it arrived now in one piece.
    fn replay(
        &mut self,
        state: &mut S,
        chain: ChainKey,
        mut response: Response<'_>,
    ) -> Option<Next<S>> {
        let id = self.core.chains.id(chain);
        let flow = if self.reads_heads(chain)? {
            // Neither body nor trailers have arrived when a head does.
            let body = std::mem::replace(&mut response.body, Body::Lent(&[]));
            let trailers = std::mem::replace(&mut response.trailers, no_fields());
            let flow = self.run_readback(chain, id, |readback, mut cx| {
                readback.on_head(state, &response, &mut cx)
            });
            (response.body, response.trailers) = (body, trailers);
            flow?
        } else {
            Flow::Buffer
        };
        let mut is_aborted = flow == Flow::Abort;
        // The whole body is here, so a pause has nothing to hold back.
        let is_streamed = matches!(flow, Flow::Stream | Flow::Pause);
        let is_cancelled = |core: &Core<_>| core.chains[chain].marks.has(Marks::CANCELLED);
        if is_streamed && !response.body().is_empty() && !is_cancelled(&self.core) {
            let flow = self.run_readback(chain, id, |readback, mut cx| {
                readback.on_data(state, response.body(), &mut cx)
            })?;
            is_aborted = flow == Flow::Abort;
        }
        if is_cancelled(&self.core) {
            // The readback is called with the cancellation only.
            return Some(Next::done());
        }
        if is_aborted {
            let error = Error::of(ErrorKind::Aborted, response.circumstances());
            return self.tell(state, chain, Err(error));
        }
        if flow != Flow::Buffer {
            response.body = Body::Lent(&[]);
        }
        self.tell(state, chain, Ok(response))
    }

    /// Calls a readback with the outcome of its request.
    fn tell(&mut self, state: &mut S, chain: ChainKey, reply: Reply<'_>) -> Option<Next<S>> {
        let id = self.core.chains.id(chain);
        self.run_readback(chain, id, |readback, mut cx| {
            readback.on_reply(state, reply, &mut cx)
        })
    }

    /// Calls a chain's readback with a failure.
    pub(super) fn tell_failure(&mut self, state: &mut S, chain: ChainKey, error: Error) {
        // A chain that has only waited has no request that could have failed.
        let sent = self.core.chains[chain].request.is_some();
        self.core.counts.failed += u64::from(sent);
        let cancelled = self.core.chains[chain].marks.has(Marks::CANCELLED);
        if sent && !cancelled {
            self.core.chains[chain].note_outcome(true);
        }
        self.core.chains[chain].note_sent(error.request_sent());
        if self.core.is_visited(chain) {
            self.core.reset_visit(chain);
        }
        let error = if cancelled && error.kind() != ErrorKind::Cancelled {
            error.into_cancelled()
        } else {
            error
        };
        let id = self.core.chains.id(chain);
        let marks = &mut self.core.chains[chain].marks;
        let ends = marks.has_any(Marks::ENDS);
        if ends {
            // The readback is called for the last time, so there is nothing left to cancel.
            marks.set(Marks::CANCELLED);
        }
        let next = self.run_readback(chain, id, |readback, mut cx| {
            readback.on_reply(state, Err(error), &mut cx)
        });
        if ends {
            self.core.discard(next);
            self.end_chain(chain);
        } else {
            self.follow(chain, next)
        }
    }

    /// Carries out the operations of a readback's context, and then the step that it returned.
    pub(super) fn follow(&mut self, chain: ChainKey, next: Option<Next<S>>) {
        let Some(next) = next else {
            return self.end_chain(chain);
        };
        // Before the returned step, because the readback may have canceled its own chain.
        self.core.settle();
        if self.core.chains[chain].marks.has(Marks::CANCELLED) {
            return self.follow_cancelled(chain, next);
        }
        let Next {
            action,
            when,
            readback,
        } = next;
        let mut is_again = false;
        match action {
            Action::Send(request) if !self.core.agenda.draining => {
                self.core.set_request(chain, request);
            }
            Action::Instead(request) if !self.core.agenda.draining => {
                self.core.set_request_instead(chain, request);
            }
            // `again` needs no drop, but the compiler cannot see that: forgetting it saves the drop
            // call.
            again @ Action::Again if !self.core.agenda.draining => {
                std::mem::forget(again);
                is_again = true;
            }
            action => return self.follow_otherwise(chain, action, when, readback),
        }
        if let Some(readback) = &readback
            && let Some(prepared) = readback.prepare(self.core.chains[chain].request())
        {
            self.core.set_request(chain, prepared);
        }
        self.change_readback(chain, readback);
        let is_marked = self.core.chains[chain].request().generation().is_some();
        // The engine is registered with the generation of a request that is sent again, unless that
        // has ended while the chain did something else.
        let is_new = is_marked && (!is_again || self.core.chains.is_request_over(chain));
        if is_new || self.core.chains.generations.has_some() {
            self.core.chains.watch_request(chain);
        }
        self.core.restart(chain);
        if when.is_now(self.core.clock.now()) {
            self.core.begin(chain);
        } else {
            self.core.chains[chain].attempts = 0;
            self.core.chains[chain]
                .marks
                .clear(Marks::OF_ONE_SUBMISSION);
            self.core.delay(chain, when);
        }
    }

    /// Does what [`follow`](Self::follow) does, for every step except a request.
    #[inline(never)]
    fn follow_otherwise(
        &mut self,
        chain: ChainKey,
        action: Action<S>,
        when: When,
        readback: Option<Box<dyn Readback<S>>>,
    ) {
        let (call, mark) = match action {
            Action::Rare(rare) if !self.core.agenda.draining => {
                let Rare { action, terms } = *rare;
                self.core.restart(chain);
                self.core.set_terms(chain, terms);
                let next = Next {
                    action,
                    when,
                    readback,
                };
                return self.follow(chain, Some(next));
            }
            Action::Pend if !self.core.agenda.draining => {
                let mark = self.core.chains.generations.of_waiting(chain);
                (MaybeKey::NONE, mark.cloned())
            }
            Action::Wait(mark) if !self.core.agenda.draining => {
                (MaybeKey::NONE, mark.map(|mark| *mark))
            }
            Action::Call(call) if !self.core.agenda.draining => {
                let (call, mark) = *call;
                (self.readbacks.keep_call(call), mark)
            }
            action => {
                self.core.discard((action, readback));
                return self.end_chain(chain);
            }
        };
        self.change_readback(chain, readback);
        self.core.chains.watch_wait(chain, mark);
        self.core.restart(chain);
        self.core.chains[chain].attempts = 0;
        self.core.wait(chain, call, when);
    }

    #[inline]
    fn change_readback(&mut self, chain: ChainKey, readback: Option<Box<dyn Readback<S>>>) {
        if let Some(readback) = readback {
            let former = self.readbacks.put(chain, readback);
            self.core.discard(former);
        }
    }

    /// Handles the cancellation of a chain while its readback ran, perhaps by the readback itself.
    /// The readback is called once more, and the step that it returned is dropped.
    #[cold]
    fn follow_cancelled(&mut self, key: ChainKey, next: Next<S>) {
        let chain = &mut self.core.chains[key];
        // The count belonged to the request that has ended.
        chain.attempts = 0;
        chain.stage = Stage::New;
        if !next.is_done() {
            let place = match chain.request.as_ref().map(Request::origin) {
                Some(origin) => format!("{origin}: a chain"),
                None => "a chain".to_owned(),
            };
            let core = &mut self.core;
            alert!(
                core,
                Dropped,
                "{place} has canceled itself: what its readback returned is dropped"
            );
        }
        self.core.discard(next);
        self.core.fail_unlinked(key, ErrorKind::Cancelled);
    }

    pub(super) fn end_chain(&mut self, key: ChainKey) {
        self.core.disarm(key);
        self.core.lift_chain_deadline(key);
        self.core.end_metering(key);
        self.core.drop_visit(key);
        // Left over by a panic.
        self.core.end_tunnel(key);
        let chain = self.core.chains.remove(key);
        if let Some(origin) = chain.origin.get() {
            self.core.pool.leave(origin);
        }
        let readback = self.readbacks.take(key);
        self.core.discard((chain.request, readback));
    }

    /// Runs user code, with the readback taken out of the slab and the chains lent to it. Returns
    /// `None` if the code panicked, in which case the turn has to end.
    pub(super) fn run_readback<R>(
        &mut self,
        key: ChainKey,
        id: ChainId,
        run: impl FnOnce(&mut dyn Readback<S>, Context<'_, S>) -> R,
    ) -> Option<R> {
        let readback = self.readbacks.take(key);
        let mut readback = readback.expect("a readback does not run inside itself");
        let chain = &mut self.core.chains[key];
        let stage = std::mem::replace(&mut chain.stage, Stage::Reading);
        let (request, failures) = (chain.request.take(), chain.failures);
        let asked = self.core.chains.commands_len();
        let seen = Seen {
            id,
            request: request.as_ref(),
            failures: failures.into(),
            present: self.core.clock.present(),
            wakeups: &self.core.wakeups,
        };
        let mut asks = Asks {
            chains: &mut self.core.chains,
            readbacks: &mut self.readbacks,
            is_draining: self.core.agenda.draining,
        };
        let cx = Context::new(&mut asks, seen);
        // A panic may leave two things in an inconsistent state: the readback, which is dropped,
        // and the caller's state, which is the host's responsibility. The host receives the panic
        // at the end of the turn.
        let result = catch_unwind(AssertUnwindSafe(|| run(&mut *readback, cx)));
        self.core.clock.since = Since::UserCode;
        if self.core.chains.commands_len() > asked {
            // The readback may have run for a long time, and the delays of its submissions count
            // from its end.
            self.core.read_clock();
            self.core.chains.stamp(asked);
        }
        self.core.chains[key].put_back(stage, request);
        if let Err(panic) = result {
            self.core.panic = Some(panic);
            self.core.discard(readback);
            return None;
        }
        self.readbacks.put_back(key, readback);
        result.ok()
    }

    /// Returns whether a chain's readback reads heads, without the cost of running it. `None` means
    /// the same as for [`run_readback`](Self::run_readback).
    pub(super) fn reads_heads(&mut self, key: ChainKey) -> Option<bool> {
        let readback = self.readbacks.get(key);
        let readback = readback.expect("a readback does not run inside itself");
        match catch_unwind(AssertUnwindSafe(|| readback.reads_heads())) {
            Ok(reads) => Some(reads),
            Err(panic) => {
                self.core.panic = Some(panic);
                let readback = self.readbacks.take(key);
                self.core.discard(readback);
                None
            }
        }
    }

    /// Runs a call that is due.
    pub(super) fn make_call(&mut self, state: &mut S, key: ChainKey) {
        let Stage::Due { call } = self.core.chains[key].stage else {
            unreachable!("a chain with a due completion is in stage `Due`")
        };
        if self.core.chains.is_over(key) {
            // Its generation has ended, and no sweep has reached it.
            self.core.chains[key].marks.set(Marks::CANCELLED);
        }
        if self.core.chains[key].marks.has(Marks::CANCELLED) {
            self.forget_call(call);
            return self.core.fail_unlinked(key, ErrorKind::Cancelled);
        }
        if self.core.chain_is_over(key) {
            self.forget_call(call);
            return self.core.fail_unlinked(key, ErrorKind::Timeout);
        }
        self.core.chains.keys.release(key);
        let call = self.readbacks.take_call(call);
        self.core.chains[key].stage = Stage::Due {
            call: MaybeKey::NONE,
        };
        let id = self.core.chains.id(key);
        let mut next = self.run_readback(key, id, |readback, mut cx| match call {
            Some(call) => call(state, &mut cx),
            None => readback.on_due(state, &mut cx),
        });
        if let Some(next) = &mut next
            && next.is_again()
            && self.core.chains[key].request.is_none()
        {
            // The chain has sent no request yet that could be sent again.
            next.action = Action::Done;
        }
        self.follow(key, next);
    }

    /// Drops a call that is not to run.
    pub(super) fn forget_call(&mut self, call: MaybeKey) {
        let call = self.readbacks.take_call(call);
        self.core.discard(call);
    }
}
