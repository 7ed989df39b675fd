//! How a readback is called, and what follows from what it answers.
//!
//! User code runs between two links, with its readback taken out of the slab and its link freed, and is lent the buffers and the
//! chains: no link, pool or timer is in its reach.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::chains::{Asks, ChainKey, Marks, Stage};
use crate::engine::clock::Since;
use crate::engine::mode::Mode;
use crate::engine::readback::{Action, Context, Next, Readback, Seen};
use crate::error::{Error, ErrorKind};
use crate::id::RequestId;
use crate::net::slots::MaybeKey;

impl<S, M: Mode> Engine<S, M> {
    /// Tells a chain's readback of a failure.
    pub(super) fn deliver(&mut self, state: &mut S, chain: ChainKey, error: Error) {
        // Of a chain that has sent nothing yet, nobody is told.
        let sent = self.core.chains[chain].request.is_some();
        self.core.counts.failed += u64::from(sent);
        let cancelled = self.core.chains[chain].marks.has(Marks::CANCELLED);
        if sent && !cancelled {
            self.core.chains[chain].note_outcome(true);
        }
        let error = match cancelled && error.kind() != ErrorKind::Cancelled {
            true => error.into_cancelled(),
            false => error,
        };
        let id = self.core.chains.id(chain);
        let next = self.run_readback(chain, id, |readback, mut cx| {
            readback.on_reply(state, Err(error), &mut cx)
        });
        match cancelled {
            true => {
                self.discard(next);
                self.end_chain(chain);
            }
            false => self.follow(chain, next),
        }
    }

    /// Does what a readback answered, after what it asked for.
    pub(super) fn follow(&mut self, chain: ChainKey, next: Option<Next<S>>) {
        let Some(next) = next else {
            return self.end_chain(chain);
        };
        self.core.settle();
        if self.core.chains[chain].marks.has(Marks::CANCELLED) {
            // Those of the request that is over.
            self.core.chains[chain].attempts = 0;
            // Cancelled while, or by what, its readback ran: one more call tells it so, and what it answered is dropped.
            self.core.chains[chain].stage = Stage::New;
            self.discard(next);
            return self.core.fail_unlinked(chain, ErrorKind::Cancelled);
        }
        let Next {
            action,
            delay,
            readback,
        } = next;
        let mut waits = None;
        match action {
            Action::Send(request) if !self.core.agenda.draining => {
                self.core.chains[chain].request = Some(request);
                self.core.chains[chain].marks.clear(Marks::AT_HOME);
            }
            Action::Again if !self.core.agenda.draining => {}
            Action::Wait if !self.core.agenda.draining => waits = Some(MaybeKey::NONE),
            Action::Call(call) if !self.core.agenda.draining => {
                waits = Some(self.readbacks.keep_call(*call))
            }
            action => {
                self.discard((action, readback));
                return self.end_chain(chain);
            }
        }
        if let Some(readback) = readback {
            let former = self.readbacks.put(chain, readback);
            self.discard(former);
        }
        // The readback may have taken its time: what follows begins now.
        self.core.read_clock();
        self.core.chains[chain].started = self.core.clock.micros();
        match (waits, delay) {
            (None, Duration::ZERO) => self.core.begin(chain),
            (waits, delay) => {
                self.core.chains[chain].attempts = 0;
                match waits {
                    Some(call) => self.core.wait(chain, call, delay),
                    None => self.core.delay(chain, delay),
                }
            }
        }
    }

    pub(super) fn end_chain(&mut self, key: ChainKey) {
        self.core.disarm(key);
        let chain = self.core.chains.remove(key);
        if let Some(origin) = chain.origin.get() {
            self.core.pool.leave(origin);
        }
        let readback = self.readbacks.take(key);
        self.discard((chain.request, readback));
    }

    /// Runs user code: the readback out of the slab, the chains lent to it. `None`: it panicked, and the turn is to end.
    pub(super) fn run_readback<R>(
        &mut self,
        key: ChainKey,
        id: RequestId,
        run: impl FnOnce(&mut dyn Readback<S>, Context<'_, S>) -> R,
    ) -> Option<R> {
        let mut readback = self.readbacks.take(key)?;
        let chain = &mut self.core.chains[key];
        let stage = std::mem::replace(&mut chain.stage, Stage::Reading);
        let (request, failures) = (chain.request.take(), chain.failures);
        let asked = self.core.chains.commands_len();
        let seen = Seen {
            id,
            request: request.as_ref(),
            failures: failures.into(),
            now: self.core.clock.now(),
            bell: self.orders.bell(),
        };
        let mut asks = Asks {
            chains: &mut self.core.chains,
            readbacks: &mut self.readbacks,
        };
        let cx = Context::new(&mut asks, seen);
        // What a panic may leave half changed is the readback, which is dropped, and the caller's state, which is the
        // host's to judge: it gets the panic at the end of the turn.
        let result = catch_unwind(AssertUnwindSafe(|| run(&mut *readback, cx)));
        self.core.clock.since = Since::UserCode;
        if self.core.chains.commands_len() > asked {
            // It may have taken its time, and what it has submitted must not be early for that.
            self.core.read_clock();
            self.core.chains.stamp(asked);
        }
        let chain = &mut self.core.chains[key];
        chain.stage = stage;
        chain.request = request;
        match result {
            Ok(result) => {
                self.readbacks.put(key, readback);
                Some(result)
            }
            Err(panic) => {
                self.panic = Some(panic);
                self.discard(readback);
                None
            }
        }
    }

    /// Asks a chain's readback whether it wants to see heads, without all that goes with running it. `None`: as for
    /// [`run_readback`](Self::run_readback).
    pub(super) fn reads_heads(&mut self, key: ChainKey) -> Option<bool> {
        let readback = self.readbacks.get(key)?;
        match catch_unwind(AssertUnwindSafe(|| readback.reads_heads())) {
            Ok(reads) => Some(reads),
            Err(panic) => {
                self.panic = Some(panic);
                let readback = self.readbacks.take(key);
                self.discard(readback);
                None
            }
        }
    }

    /// Drops what is the user's: its destructor may panic as a readback may.
    pub(super) fn discard<T>(&mut self, users: T) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(users))) {
            self.panic.get_or_insert(panic);
        }
    }

    /// Makes the call that is due.
    pub(super) fn make_call(&mut self, state: &mut S, key: ChainKey) {
        let Stage::Due { call } = self.core.chains[key].stage else {
            return;
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
        self.discard(call);
    }
}
