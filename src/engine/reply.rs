//! How a readback is called, and what follows from what it answers.
//!
//! User code runs between two links, with its readback taken out of the slab and its link freed,
//! and is lent the buffers and the chains: no link, pool or timer is in its reach.

use std::panic::{AssertUnwindSafe, catch_unwind};

use http::StatusCode;

use crate::engine::Engine;
use crate::engine::alerts::alert;
use crate::engine::asks::Asks;
use crate::engine::chain::{ChainKey, Marks, Stage, When};
use crate::engine::clock::Since;
use crate::engine::core::Core;
use crate::engine::mode::Mode;
use crate::engine::readback::{Action, Context, Flow, Next, Readback, Seen};
use crate::engine::visits::PolicyPanicked;
use crate::error::{Error, ErrorKind};
use crate::h1::collected::Collected;
use crate::h1::reading::Body;
use crate::id::ChainId;
use crate::net::slots::MaybeKey;
use crate::policy::{Shown, Verdict};
use crate::request::Request;
use crate::response::{Reply, Response};

/// Whether a status asks for another try: the server was not ready for the request, or is not
/// there.
pub(super) fn is_worth_another_try(status: StatusCode) -> bool {
    // One comparison for those that are well.
    status.as_u16() >= 400 && matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502..=504)
}

impl<S, M: Mode> Engine<S, M> {
    /// A chain's exchange has failed: its policy hears of it, where it has one, and then its
    /// readback.
    pub(super) fn deliver(&mut self, state: &mut S, chain: ChainKey, error: Error) {
        let is_cancelled = self.core.chains[chain].marks.has(Marks::CANCELLED);
        if is_cancelled || !self.core.is_visited(chain) {
            return self.tell_failure(state, chain, error);
        }
        self.core.chains[chain].note_sent(error.request_sent());
        let reply = Err(error);
        match (self.core.ask_end(chain, &reply), reply) {
            (Ok(Ok(Verdict::Resend { request, after })), reply) => {
                self.core.discard(reply.map(|_: Response<'_>| ()));
                self.core.resend(chain, request, after);
            }
            (Ok(Ok(_)), Err(error)) => self.tell_failure(state, chain, error),
            (Ok(Ok(_)), Ok(_)) => unreachable!("it has failed"),
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

    /// The response to a chain's request is complete: its policy hears of it, and then its
    /// readback, unless it is sent again.
    #[inline(never)]
    pub(super) fn conclude(&mut self, state: &mut S, chain: ChainKey, response: Response<'_>) {
        let mut response = response;
        let mut decoded;
        let mut shown = Shown::AtOnce;
        if let Some(visit) = self.core.visit_mut(chain) {
            shown = visit.shown;
            if visit.decoding.is_some() {
                decoded = Collected::from(std::mem::take(&mut visit.body));
                response.body = Body::Collected(&mut decoded);
            }
        }
        let reply = Ok(response);
        let asked = self.core.ask_end(chain, &reply);
        let Ok(response) = reply else {
            unreachable!("it is a response")
        };
        let next = match asked {
            Ok(Ok(Verdict::Resend { request, after })) => {
                return self.core.resend(chain, request, after);
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
                self.core.chains[chain].note_outcome(true);
                self.tell(state, chain, Err(error))
            }
            Err(PolicyPanicked) => None,
        };
        self.follow(chain, next);
    }

    /// Shows a response that was kept back as though it came at once.
    fn replay(
        &mut self,
        state: &mut S,
        chain: ChainKey,
        mut response: Response<'_>,
    ) -> Option<Next<S>> {
        let id = self.core.chains.id(chain);
        let flow = if self.reads_heads(chain)? {
            self.run_readback(chain, id, |readback, mut cx| {
                readback.on_head(state, &response, &mut cx)
            })?
        } else {
            Flow::Buffer
        };
        let mut is_aborted = flow == Flow::Abort;
        // All of it is here: a pause has nothing to hold back.
        let is_streamed = matches!(flow, Flow::Stream | Flow::Pause);
        let is_cancelled = |core: &Core<_>| core.chains[chain].marks.has(Marks::CANCELLED);
        if is_streamed && !response.body().is_empty() && !is_cancelled(&self.core) {
            let flow = self.run_readback(chain, id, |readback, mut cx| {
                readback.on_data(state, response.body(), &mut cx)
            })?;
            is_aborted = flow == Flow::Abort;
        }
        if is_cancelled(&self.core) {
            // It hears of that, and of nothing else.
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

    /// Calls a readback with what its request has come to.
    fn tell(&mut self, state: &mut S, chain: ChainKey, reply: Reply<'_>) -> Option<Next<S>> {
        let id = self.core.chains.id(chain);
        self.run_readback(chain, id, |readback, mut cx| {
            readback.on_reply(state, reply, &mut cx)
        })
    }

    /// Tells a chain's readback of a failure.
    pub(super) fn tell_failure(&mut self, state: &mut S, chain: ChainKey, error: Error) {
        // Of a chain that has sent nothing yet, nobody is told.
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
        let next = self.run_readback(chain, id, |readback, mut cx| {
            readback.on_reply(state, Err(error), &mut cx)
        });
        if cancelled {
            self.core.discard(next);
            self.end_chain(chain);
        } else {
            self.follow(chain, next)
        }
    }

    /// Does what a readback answered, after what it asked for.
    pub(super) fn follow(&mut self, chain: ChainKey, next: Option<Next<S>>) {
        let Some(next) = next else {
            return self.end_chain(chain);
        };
        self.core.settle();
        if self.core.chains[chain].marks.has(Marks::CANCELLED) {
            return self.follow_cancelled(chain, next);
        }
        let Next {
            action,
            when,
            readback,
        } = next;
        match action {
            Action::Send(request) if !self.core.agenda.draining => {
                let chain = &mut self.core.chains[chain];
                chain.request = Some(request);
                chain.marks.clear(Marks::AT_HOME);
            }
            // There is nothing in it to be dropped, which would cost a call to find out.
            again @ Action::Again if !self.core.agenda.draining => std::mem::forget(again),
            action => return self.follow_otherwise(chain, action, when, readback),
        }
        self.change_readback(chain, readback);
        let is_marked = self.core.chains[chain].request().generation().is_some();
        if is_marked || self.core.chains.generations.has_some() {
            self.core.chains.watch_request(chain);
        }
        self.core.restart(chain);
        if when.is_now() {
            self.core.begin(chain);
        } else {
            self.core.chains[chain].attempts = 0;
            self.core.chains[chain]
                .marks
                .clear(Marks::OF_ONE_SUBMISSION);
            self.core.delay(chain, when);
        }
    }

    /// [`follow`](Self::follow) where it is no request, or nothing new begins.
    #[inline(never)]
    fn follow_otherwise(
        &mut self,
        chain: ChainKey,
        action: Action<S>,
        when: When,
        readback: Option<Box<dyn Readback<S>>>,
    ) {
        let (call, mark) = match action {
            Action::Pend if !self.core.agenda.draining => {
                (MaybeKey::NONE, self.core.chains.generations.mark_of(chain))
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
        let id = self.core.chains.id(chain);
        self.core.chains.watch(id, mark);
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

    /// A chain was cancelled while, or by what, its readback ran: one more call tells it so, and
    /// what it returned is dropped.
    #[cold]
    fn follow_cancelled(&mut self, key: ChainKey, next: Next<S>) {
        let chain = &mut self.core.chains[key];
        // Those of the request that is over.
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
                "{place} has cancelled itself: what its readback returned is dropped"
            );
        }
        self.core.discard(next);
        self.core.fail_unlinked(key, ErrorKind::Cancelled);
    }

    pub(super) fn end_chain(&mut self, key: ChainKey) {
        self.core.disarm(key);
        let visit = self.core.take_visit(key);
        self.core.discard(visit);
        let chain = self.core.chains.remove(key);
        if let Some(origin) = chain.origin.get() {
            self.core.pool.leave(origin);
        }
        let readback = self.readbacks.take(key);
        self.core.discard((chain.request, readback));
    }

    /// Runs user code: the readback out of the slab, the chains lent to it. `None`: it panicked,
    /// and the turn is to end.
    pub(super) fn run_readback<R>(
        &mut self,
        key: ChainKey,
        id: ChainId,
        run: impl FnOnce(&mut dyn Readback<S>, Context<'_, S>) -> R,
    ) -> Option<R> {
        let readback = self.readbacks.take(key);
        let mut readback = readback.expect("a readback runs once at a time");
        let chain = &mut self.core.chains[key];
        let stage = std::mem::replace(&mut chain.stage, Stage::Reading);
        let (request, failures) = (chain.request.take(), chain.failures);
        let asked = self.core.chains.commands_len();
        let seen = Seen {
            id,
            request: request.as_ref(),
            failures: failures.into(),
            present: self.core.clock.present(),
            bell: &self.core.bell,
        };
        let mut asks = Asks {
            chains: &mut self.core.chains,
            readbacks: &mut self.readbacks,
        };
        let cx = Context::new(&mut asks, seen);
        // What a panic may leave half changed is the readback, which is dropped, and the caller's
        // state, which is the host's to judge: it gets the panic at the end of the turn.
        let result = catch_unwind(AssertUnwindSafe(|| run(&mut *readback, cx)));
        self.core.clock.since = Since::UserCode;
        if self.core.chains.commands_len() > asked {
            // It may have taken its time, and what it has submitted must not be early for that.
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

    /// Asks a chain's readback whether it wants to see heads, without all that goes with running
    /// it. `None`: as for [`run_readback`](Self::run_readback).
    pub(super) fn reads_heads(&mut self, key: ChainKey) -> Option<bool> {
        let readback = self.readbacks.get(key);
        let readback = readback.expect("a readback runs once at a time");
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

    /// Makes the call that is due.
    pub(super) fn make_call(&mut self, state: &mut S, key: ChainKey) {
        let Stage::Due { call } = self.core.chains[key].stage else {
            unreachable!("its call is due")
        };
        if self.core.chains[key].marks.has(Marks::CANCELLED) {
            self.forget_call(call);
            return self.core.fail_unlinked(key, ErrorKind::Cancelled);
        }
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
            && let Action::Again = next.action
            && self.core.chains[key].request.is_none()
        {
            // It has sent nothing that could be sent again.
            next.action = Action::Done;
        }
        self.follow(key, next);
    }

    /// Drops a call that will not be made.
    pub(super) fn forget_call(&mut self, call: MaybeKey) {
        let call = self.readbacks.take_call(call);
        self.core.discard(call);
    }
}
