//! Visits: what a request's policy is asked on the way to its readback, and what follows from what
//! it says.
//!
//! A policy is user code that knows no state `S`, so the core asks it, at moments when no link is
//! being dealt with or only lent to it. It reaches nothing but what it is given. A request without
//! a policy pays for one test of a pointer when it begins, and of a key afterwards.

use std::panic::{AssertUnwindSafe, catch_unwind};

use slab::Slab;

use crate::engine::agenda::Completion;
use crate::engine::chain::{ChainKey, Marks};
use crate::engine::chains::Chains;
use crate::engine::clock::Since;
use crate::engine::core::Core;
use crate::engine::settings::Defaults;
use crate::engine::visit::VisitState;
use crate::error::Error;
use crate::net::Net;
use crate::net::slots::grow;
use crate::policy::{Moment, Screened, Shown, Verdict, Visiting};
use crate::request::Request;
use crate::response::{Reply, Response};

/// The number of a block that a visit has. The others are those of default fields.
pub(super) const OWN_BLOCK: u16 = u16::MAX;

/// The fields that go out behind a request's own.
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
    let visit = chains.visit_of(chain).expect("it is visited");
    let block = visits[visit].block.as_deref();
    block.expect("its policy was asked for fields")
}

/// A policy has panicked: the chain is over, and the turn to end.
pub(super) struct PolicyPanicked;

impl<N: Net> Core<N> {
    /// Whether a chain's request is visited by a policy.
    #[inline]
    pub(super) fn is_visited(&self, key: ChainKey) -> bool {
        self.chains[key].marks.has(Marks::VISITED)
    }

    /// The visit of a chain.
    ///
    /// # Panics
    /// It has none.
    pub(super) fn visit(&mut self, key: ChainKey) -> &mut VisitState {
        self.visit_mut(key).expect("it is visited")
    }

    /// The visit of a chain, if it has one.
    pub(super) fn visit_mut(&mut self, key: ChainKey) -> Option<&mut VisitState> {
        let visit = self.chains.visit_of(key)?;
        self.visits.get_mut(visit)
    }

    /// Whether a request is to be visited, or a visit of the one before it is still there.
    #[inline]
    pub(super) fn wants_visit(&self, key: ChainKey) -> bool {
        self.settings.policy.is_some()
            || self.is_visited(key)
            || self.chains[key].request().policies().is_some()
    }

    /// Has the field lines written that go out behind the request's own, default ones included, for
    /// an attempt that has its connection. False: there is no attempt, and the chain is on the
    /// agenda.
    #[inline(never)]
    pub(super) fn ask_fields(&mut self, key: ChainKey) -> bool {
        let visit = self.visit(key);
        let kept = visit.block.take();
        let mut block = kept.unwrap_or_else(|| self.buffers.blocks.take());
        let sent = self.ask(key, |visiting, request, at| {
            visiting.send(request, &mut block, at)
        });
        // It may have taken its time, which is not the peer's.
        self.catch_up();
        match sent {
            Ok(Ok(())) => {
                let request = self.chains[key].request();
                self.settings.defaults.append_to(&mut block, request);
                let visit = self.visit(key);
                visit.block = Some(block);
                return true;
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
        // One that is refused leaves its place to the next, and that may be refused as well.
        self.agenda.carried_out += 1;
        self.buffers.blocks.give(block);
        false
    }

    /// Asks what is to become of a response whose head has come.
    pub(super) fn ask_head(
        &mut self,
        key: ChainKey,
        response: &Response<'_>,
    ) -> Result<Result<Shown, crate::policy::Unscreened>, PolicyPanicked> {
        let screened = self.ask(key, |visiting, request, at| {
            visiting.head(request, response, at)
        })?;
        Ok(screened.map(|Screened { shown, decoding }| {
            let visit = self.visit(key);
            visit.shown = shown;
            visit.decoding = decoding;
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

    /// The visit is over, and its readback is next: it is kept for the chain's next request, or
    /// dropped.
    pub(super) fn reset_visit(&mut self, key: ChainKey) {
        let Some(mut visiting) = self.take_visit(key) else {
            return;
        };
        // Only lent to what may panic: its drop may, too, and two panics at once would be the end
        // of the process.
        match catch_unwind(AssertUnwindSafe(|| visiting.reset())) {
            Ok(true) => return self.keep_visit(key, visiting),
            Ok(false) => {}
            Err(panic) => {
                self.panic.get_or_insert(panic);
            }
        }
        self.discard(visiting);
    }

    /// Gives a chain its visit.
    pub(super) fn keep_visit(&mut self, key: ChainKey, visiting: Visiting) {
        grow(&mut self.visits);
        let visit = self.visits.insert(VisitState::new(visiting));
        self.chains.set_visit(key, visit);
    }

    /// Takes a chain's visit out of its slab.
    pub(super) fn take_visit(&mut self, key: ChainKey) -> Option<Visiting> {
        let visit = self.chains.take_visit(key)?;
        let visit = self.visits.remove(visit);
        self.discard(visit.decoding);
        if let Some(block) = visit.block {
            self.buffers.blocks.give(block);
        }
        Some(visit.visiting)
    }

    pub(super) fn ask<R>(
        &mut self,
        key: ChainKey,
        ask: impl FnOnce(&mut Visiting, &Request, &Moment<'_>) -> R,
    ) -> Result<R, PolicyPanicked> {
        let id = self.chains.id(key);
        let at = Moment::new(self.clock.present(), &self.bell, Some(id));
        let visit = self.chains.visit_of(key).expect("it is visited");
        let visiting = &mut self.visits[visit].visiting;
        let request = self.chains[key].request();
        // What a panic may leave half changed is the visit, which is dropped with its chain.
        let asked = catch_unwind(AssertUnwindSafe(|| ask(visiting, request, &at)));
        self.clock.since = Since::UserCode;
        asked.map_err(|panic| {
            self.panic.get_or_insert(panic);
            PolicyPanicked
        })
    }
}
