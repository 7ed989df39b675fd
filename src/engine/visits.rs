//! Visits: calls the policy of a request at each step on the way to its readback, and acts on the
//! result.
//!
//! A policy is user code that does not see the state `S`, so `Core` can call it, at points where no
//! link is being processed or a link is only lent to it. The policy can reach only its arguments.
//! Without a policy, a request costs three tests when it begins and one test of a mark at each
//! later step.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use http::StatusCode;
use slab::Slab;

use crate::engine::agenda::Completion;
use crate::engine::chain::{ChainKey, Marks};
use crate::engine::chains::Chains;
use crate::engine::clock::Since;
use crate::engine::core::Core;
use crate::engine::settings::Defaults;
use crate::engine::visit::VisitState;
use crate::error::{Error, ErrorKind};
use crate::net::Net;
use crate::net::slots::grow;
use crate::policy::{Moment, Policies, Screened, Shown, Verdict, Visiting};
use crate::proto::Headers;
use crate::request::Request;
use crate::response::{Reply, Response, is_redirect};

/// The block number of fields that a visit added. All other numbers are blocks of default fields.
pub(super) const OWN_BLOCK: u16 = u16::MAX;

/// Returns the fields that follow a request's own.
#[inline]
pub(super) fn block_of<'a>(
    (chain, number): (ChainKey, u16),
    defaults: &'a Defaults,
    chains: &Chains,
    visits: &'a Slab<VisitState>,
) -> &'a [u8] {
    match number {
        OWN_BLOCK => own_block(chain, chains, visits),
        number => defaults.block(number),
    }
}

#[cold]
fn own_block<'a>(chain: ChainKey, chains: &Chains, visits: &'a Slab<VisitState>) -> &'a [u8] {
    let visit = chains
        .visit_of(chain)
        .expect("a request with a block of its own is visited");
    let block = visits[visit].block.as_ref();
    block.expect("a policy adds its fields before they are written")
}

/// The fields of an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// The policy added none, so the default ones are sent as they are.
    Defaults,
    /// They are in the block of the visit.
    Block,
    /// There is no attempt, and the chain is on the agenda.
    Refused,
}

/// A policy panicked: its chain is over, and the turn has to end.
pub(super) struct PolicyPanicked;

impl<N: Net> Core<N> {
    /// Returns whether the chain has a visit, because its request has a policy.
    #[inline]
    pub(super) fn is_visited(&self, key: ChainKey) -> bool {
        self.chains[key].marks.has(Marks::VISITED)
    }

    /// Returns the visit of a chain.
    ///
    /// # Panics
    /// If the chain has none.
    #[inline]
    pub(super) fn visit(&mut self, key: ChainKey) -> &mut VisitState {
        self.visit_mut(key).expect("the chain is visited")
    }

    /// Returns the visit of a chain, if it has one.
    #[inline]
    pub(super) fn visit_mut(&mut self, key: ChainKey) -> Option<&mut VisitState> {
        let visit = self.chains.visit_of(key)?;
        self.visits.get_mut(visit)
    }

    /// Returns whether the request is to be visited or belongs to a generation, or the visit of the
    /// previous request still exists.
    #[inline]
    pub(super) fn wants_visit(&self, key: ChainKey) -> bool {
        self.settings.policy.is_some()
            || self.is_visited(key)
            || self.chains[key].request().is_accompanied()
    }

    /// Calls the policy to add its fields for an attempt. If it adds any, the default ones are
    /// appended.
    #[inline(never)]
    pub(super) fn ask_fields(&mut self, key: ChainKey) -> Asked {
        if self.chains.is_request_over(key) {
            self.cancel_unsent(key);
            return Asked::Refused;
        }
        let kept = self.visit(key).block.take();
        let mut block = kept.unwrap_or_else(|| self.buffers.blocks.take());
        // Whatever is sent is on its way in time, so the deadline need not be known here.
        let sent = self.ask_before(None, key, |visiting, request, at| {
            visiting.send(request, &mut block, at)
        });
        // The policy may have run for a long time, and the peer's deadlines start after it.
        self.catch_up();
        match sent {
            Ok(Ok(())) if block.is_empty() => {
                self.buffers.blocks.give(block);
                return Asked::Defaults;
            }
            Ok(Ok(())) => {
                let request = self.chains[key].request();
                self.settings.defaults.append_to(&mut block, request);
                let visit = self.visit(key);
                visit.block = Some(block);
                return Asked::Block;
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
        // A refused request frees its place for the next one, which may be refused as well. Each
        // counts as a command, so a queue full of them is emptied over several turns.
        self.agenda.carried_out += 1;
        self.buffers.blocks.give(block);
        Asked::Refused
    }

    /// Returns whether the policy is to be called for a response that begins so.
    ///
    /// # Errors
    /// The policy panicked.
    #[inline]
    pub(super) fn reads_head(
        &mut self,
        key: ChainKey,
        status: StatusCode,
        fields: &Headers<'_>,
    ) -> Result<bool, PolicyPanicked> {
        let visiting = &mut self.visit(key).visiting;
        catch_unwind(AssertUnwindSafe(|| visiting.reads_head(status, fields))).map_err(|panic| {
            self.panic.get_or_insert(panic);
            PolicyPanicked
        })
    }

    /// Ends a chain whose generation has ended while its request was queued, before a sweep has
    /// reached it.
    #[cold]
    fn cancel_unsent(&mut self, key: ChainKey) {
        self.disarm(key);
        self.chains[key].marks.set(Marks::CANCELLED);
        let error = Error::of(ErrorKind::Cancelled, self.circumstances_unlinked(key));
        self.complete(key, Completion::Failed(error));
        self.agenda.carried_out += 1;
    }

    /// Calls the policy for a response whose head has arrived, and returns how the response is
    /// handled.
    pub(super) fn ask_head(
        &mut self,
        key: ChainKey,
        response: &Response<'_>,
    ) -> Result<Result<Shown, crate::policy::Unscreened>, PolicyPanicked> {
        let screened = self.ask(key, |visiting, request, at| {
            visiting.head(request, response, at)
        })?;
        if is_redirect(response.status()) {
            self.visit(key).rare().redirect = Some(response.status());
        }
        Ok(screened.map(|Screened { shown, decoding }| {
            if let Some(decoding) = decoding {
                self.visit(key).rare().decoding = Some(decoding);
            }
            shown
        }))
    }

    /// Ends what accompanied the exchange of a chain whose response is complete, except for a visit
    /// whose policy is to be called for the response. Returns whether there is one.
    #[inline]
    pub(super) fn is_asked_at_end(&mut self, key: ChainKey) -> bool {
        let marks = self.chains[key].marks;
        marks.has_any(Marks::VISITED_OR_METERED) && self.end_exchange(key)
    }

    #[inline(never)]
    fn end_exchange(&mut self, key: ChainKey) -> bool {
        self.end_metering(key);
        self.is_visited(key) && !self.ends_unasked(key)
    }

    /// Ends the visit of a chain whose response is complete, if the policy need not be called for
    /// it. Returns whether it did.
    #[inline]
    fn ends_unasked(&mut self, key: ChainKey) -> bool {
        let visit = self.visit(key);
        let is_asked = visit.visiting.reads_end() || visit.is_decoding();
        if !is_asked {
            self.reset_visit(key);
        }
        !is_asked
    }

    /// Calls the policy with the outcome of the exchange, and returns what follows.
    pub(super) fn ask_end(
        &mut self,
        key: ChainKey,
        reply: &Reply<'_>,
    ) -> Result<Result<Verdict, Error>, PolicyPanicked> {
        self.ask(key, |visiting, request, at| {
            visiting.end(request, reply, at)
        })
    }

    /// Ends a visit before the readback is called. The chain's request is again the one that the
    /// visit began with. The visit is kept for the chain's next request if it allows that, and
    /// dropped otherwise.
    pub(super) fn reset_visit(&mut self, key: ChainKey) {
        let Some(index) = self.chains.visit_of(key) else {
            return;
        };
        let mut is_foreign = false;
        if let Some(mut rare) = self.visits[index].take_rare() {
            is_foreign = rare.is_foreign;
            if let Some(first) = rare.first.take() {
                self.chains[key].restore_request(first);
            }
            self.discard(rare);
        }
        self.give_back_block(key);
        let visiting = &mut self.visits[index].visiting;
        // Lent to `catch_unwind` and not moved in: its destructor may panic as well, and a panic
        // during another aborts the process.
        match catch_unwind(AssertUnwindSafe(|| visiting.reset())) {
            Ok(true) if !is_foreign => return,
            Ok(_) => {}
            Err(panic) => {
                self.panic.get_or_insert(panic);
            }
        }
        self.drop_visit(key);
    }

    /// Sets a chain's visit.
    pub(super) fn keep_visit(&mut self, key: ChainKey, visiting: Visiting) {
        grow(&mut self.visits);
        let visit = self.visits.insert(VisitState::new(visiting));
        self.chains.set_visit(key, visit);
    }

    /// Drops a chain's visit, if it has one.
    pub(super) fn drop_visit(&mut self, key: ChainKey) {
        self.give_back_block(key);
        if let Some(visit) = self.chains.take_visit(key) {
            let visit = self.visits.remove(visit);
            self.discard(visit);
        }
    }

    /// Returns the block of a chain's visit to the others, because its fields have been written or
    /// are not going to be.
    #[inline]
    pub(super) fn give_back_block(&mut self, key: ChainKey) {
        if let Some(visit) = self.visit_mut(key)
            && let Some(block) = visit.block.take()
        {
            self.buffers.blocks.give(block);
        }
    }

    /// Sets a chain's next request. The last visit serves it only if it carries the same policies.
    pub(super) fn set_request(&mut self, key: ChainKey, request: Request) {
        if self.is_visited(key) {
            let last = self.chains[key].request.as_ref();
            if !last.is_some_and(|last| Policies::are_same(last, &request)) {
                self.drop_visit(key);
            }
        }
        self.chains.generations.forget_spared(key);
        let chain = &mut self.chains[key];
        chain.request = Some(request);
        chain.marks.clear(Marks::ORIGIN_ENTERED);
    }

    /// Does what [`set_request`](Self::set_request) does, and keeps the chain in the generation
    /// that it belongs to.
    #[cold]
    pub(super) fn set_request_instead(&mut self, key: ChainKey, request: Request) {
        let mark = self.chains.mark_of_request(key).cloned();
        self.set_request(key, request);
        if let Some(mark) = mark {
            let next = self.chains[key].request().generation();
            if !next.is_some_and(|next| next.is_same(&mark)) {
                self.chains.generations.spare(key, mark);
            }
        }
    }

    /// Calls the policy at a moment that knows the request's deadline.
    pub(super) fn ask<R>(
        &mut self,
        key: ChainKey,
        ask: impl FnOnce(&mut Visiting, &Request, &Moment<'_>) -> R,
    ) -> Result<R, PolicyPanicked> {
        let deadline = self.total_tick(key);
        let deadline = deadline.map(|tick| self.clock.instant_of(tick));
        self.ask_before(deadline, key, ask)
    }

    fn ask_before<R>(
        &mut self,
        deadline: Option<Instant>,
        key: ChainKey,
        ask: impl FnOnce(&mut Visiting, &Request, &Moment<'_>) -> R,
    ) -> Result<R, PolicyPanicked> {
        let id = self.chains.id(key);
        let visit = self.chains.visit_of(key).expect("the chain is visited");
        let visit = &mut self.visits[visit];
        let held = visit.take_held();
        let at = Moment::new(self.clock.present(), &self.wakeups, Some(id))
            .noting(&held)
            .of_shown(visit.visiting.is_seen())
            .before(deadline);
        let visiting = &mut visit.visiting;
        let request = self.chains[key].request();
        // A panic may leave the visit in an inconsistent state. It is dropped with its chain.
        let asked = catch_unwind(AssertUnwindSafe(|| ask(visiting, request, &at)));
        if !visit.visiting.is_brief() {
            self.clock.since = Since::UserCode;
        }
        visit.keep_held(held);
        asked.map_err(|panic| {
            self.panic.get_or_insert(panic);
            PolicyPanicked
        })
    }
}
