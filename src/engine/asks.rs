//! The callers' code, and the operations available to it while it runs.
//!
//! A running readback borrows [`Asks`], through which it can start chains and mark others. It
//! cannot reach links, the pool or timers.

use std::sync::Arc;

use slab::Slab;

use crate::body::BodySource;
use crate::engine::chain::{ChainKey, Stage, When};
use crate::engine::chains::Chains;
use crate::engine::readback::{Action, Call, Next, Rare, Readback, Sink, Unread};
use crate::generation::{Generation, Mark};
use crate::id::ChainId;
use crate::net::slots::{MaybeKey, grow, put_at};
use crate::proto::Origin;
use crate::request::Request;
use crate::route::Route;
use crate::timeouts::Retimed;

/// The callers' code: the readback of each chain, and the calls that are not due yet. This is the
/// only part of an engine that depends on the caller's state.
pub(super) struct Readbacks<S> {
    /// Readbacks by chain key. `None` if there is no such chain, or while its readback is running.
    by_chain: Vec<Option<Box<dyn Readback<S>>>>,
    calls: Slab<Call<S>>,
}

impl<S> Readbacks<S> {
    pub(super) fn new() -> Self {
        Self {
            by_chain: Vec::new(),
            calls: Slab::new(),
        }
    }

    /// Takes a chain's readback out, to run it or because the chain has ended.
    #[inline]
    pub(super) fn take(&mut self, key: ChainKey) -> Option<Box<dyn Readback<S>>> {
        self.by_chain[key as usize].take()
    }

    /// Installs a readback, and returns the one it replaces.
    #[inline]
    pub(super) fn put(
        &mut self,
        key: ChainKey,
        readback: Box<dyn Readback<S>>,
    ) -> Option<Box<dyn Readback<S>>> {
        self.by_chain[key as usize].replace(readback)
    }

    /// Puts back a readback that was [taken](Self::take).
    #[inline(always)]
    pub(super) fn put_back(&mut self, key: ChainKey, readback: Box<dyn Readback<S>>) {
        let none = self.by_chain[key as usize].replace(readback);
        debug_assert!(none.is_none(), "the readback was taken out");
        // `none` needs no drop, but the compiler cannot see that: forgetting it saves the drop
        // call.
        std::mem::forget(none);
    }

    /// Returns the readback of a chain, unless it is running.
    #[inline]
    pub(super) fn get(&self, key: ChainKey) -> Option<&dyn Readback<S>> {
        self.by_chain[key as usize].as_deref()
    }

    fn insert(&mut self, key: ChainKey, readback: Box<dyn Readback<S>>) {
        put_at(&mut self.by_chain, key, Some(readback), || None);
    }

    /// Stores a call until it is due.
    pub(super) fn keep_call(&mut self, call: Call<S>) -> MaybeKey {
        grow(&mut self.calls);
        MaybeKey::from(self.calls.insert(call) as u32)
    }

    pub(super) fn take_call(&mut self, key: MaybeKey) -> Option<Call<S>> {
        key.get().map(|key| self.calls.remove(key as usize))
    }
}

/// The part of an engine that a running readback borrows. It can start chains and mark others, and
/// nothing else.
pub(super) struct Asks<'a, S> {
    pub(super) chains: &'a mut Chains,
    pub(super) readbacks: &'a mut Readbacks<S>,
    pub(super) is_draining: bool,
}

impl<S> Asks<'_, S> {
    /// Inserts a chain that begins with a request.
    pub(super) fn insert(
        &mut self,
        request: Request,
        readback: Box<dyn Readback<S>>,
        when: When,
        remote: Option<ChainId>,
    ) -> ChainId {
        let request = readback.prepare(&request).unwrap_or(request);
        let is_marked = request.generation().is_some();
        let key = self.chains.insert(Stage::New, Some(request), when, remote);
        self.readbacks.insert(key, readback);
        if is_marked {
            self.chains.watch_request(key);
        }
        self.chains.id(key)
    }

    /// Inserts a chain that begins with a call. Its readback is [`Unread`] until the call installs
    /// another.
    pub(super) fn insert_call(
        &mut self,
        call: Call<S>,
        when: When,
        remote: Option<ChainId>,
    ) -> ChainId {
        self.insert_waiting(Some(call), Box::new(Unread), when, (remote, None))
    }

    /// Inserts a chain that begins by waiting. When the wait ends, `call` runs; without one, the
    /// readback's `on_due` is called.
    fn insert_waiting(
        &mut self,
        call: Option<Call<S>>,
        readback: Box<dyn Readback<S>>,
        when: When,
        (remote, mark): (Option<ChainId>, Option<Mark>),
    ) -> ChainId {
        let call = call.map_or(MaybeKey::NONE, |call| self.readbacks.keep_call(call));
        let key = self
            .chains
            .insert(Stage::Waiting { call }, None, when, remote);
        self.readbacks.insert(key, readback);
        if mark.is_some() {
            self.chains.watch_wait(key, mark);
        }
        self.chains.id(key)
    }

    /// Inserts a chain that begins with `next`. If `next` starts nothing, the returned id refers to
    /// no chain.
    pub(super) fn start(&mut self, next: Next<S>, remote: Option<ChainId>) -> ChainId {
        let Next {
            action,
            when,
            readback,
        } = next;
        let readback = readback.unwrap_or_else(|| Box::new(Unread));
        self.start_action(action, readback, when, remote)
    }

    fn start_action(
        &mut self,
        action: Action<S>,
        readback: Box<dyn Readback<S>>,
        when: When,
        remote: Option<ChainId>,
    ) -> ChainId {
        match action {
            Action::Send(request) | Action::Instead(request) => {
                self.insert(request, readback, when, remote)
            }
            Action::Call(call) => {
                let (call, mark) = *call;
                self.insert_waiting(Some(call), readback, when, (remote, mark))
            }
            Action::Wait(mark) => {
                let mark = mark.map(|mark| *mark);
                self.insert_waiting(None, readback, when, (remote, mark))
            }
            Action::Rare(rare) => {
                let Rare { action, terms } = *rare;
                let id = self.start_action(action, readback, when, remote);
                if let Some(key) = self.chains.find(id) {
                    self.chains.set_terms(key, terms);
                }
                id
            }
            Action::Done | Action::Again | Action::Pend => remote.unwrap_or(ChainId::NONE),
        }
    }
}

impl<S> Sink<S> for Asks<'_, S> {
    fn start(&mut self, next: Next<S>) -> ChainId {
        self.start(next, None)
    }

    fn preconnect(&mut self, origin: Origin, route: Option<Arc<Route>>) {
        self.chains.preconnect(origin, route);
    }

    fn cancel(&mut self, id: ChainId) -> bool {
        self.chains.cancel(id)
    }

    fn cancel_key(&mut self, name: &str) -> bool {
        self.chains.cancel_key(name)
    }

    fn cancel_others(&mut self, id: ChainId) -> usize {
        self.chains.cancel_others(id)
    }

    fn resume(&mut self, id: ChainId) -> bool {
        self.chains.resume(id)
    }

    fn write(&mut self, id: ChainId, bytes: &[u8]) -> Option<usize> {
        self.chains.write(id, bytes)
    }

    fn is_cancelled(&self, id: ChainId) -> bool {
        self.chains.is_cancelled(id)
    }

    fn retime(&mut self, id: ChainId, request: &Request) -> Option<&mut Retimed> {
        self.chains.retime(id, request)
    }

    fn write_from(&mut self, id: ChainId, source: Box<dyn BodySource>) -> bool {
        self.chains.write_from(id, source)
    }

    fn end(&mut self, generation: &Generation, own: ChainId, request: Option<&Request>) {
        self.chains.end_generation(generation, own, request);
    }

    fn stop(&mut self) {
        self.chains.stop();
    }

    fn is_ending(&self, id: ChainId) -> bool {
        self.is_draining || self.chains.is_ending(id)
    }
}
