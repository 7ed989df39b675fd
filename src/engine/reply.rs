//! How a readback is called, and what follows from what it answers.
//!
//! User code runs between two links, with its readback taken out of the slab and its link freed, and is lent the buffers and the
//! chains: no link, pool or timer is in its reach.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::time::Duration;

use crate::engine::chains::{ChainKey, Marks, RequestId, Stage};
use crate::engine::mode::Mode;
use crate::engine::readback::{Action, Context, Next, Readback};
use crate::engine::response::Exchange;
use crate::engine::{Engine, SinceClock};
use crate::error::{Error, ErrorKind};
use crate::net::link::LinkMarks;
use crate::net::slots::{LinkKey, MaybeKey};
use crate::net::tls::Session;

impl<S, M: Mode> Engine<S, M> {
    /// Tells a chain's readback of a failure.
    pub(super) fn deliver(&mut self, state: &mut S, chain: ChainKey, error: Error) {
        // Of a chain that has sent nothing yet, nobody is told.
        self.counts.failed += u64::from(self.chains[chain].request.is_some());
        let cancelled = self.chains[chain].marks.has(Marks::CANCELLED);
        let error = match cancelled && error.kind() != ErrorKind::Cancelled {
            true => error.into_cancelled(),
            false => error,
        };
        let id = self.chains.id(chain);
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
        self.settle();
        if self.chains[chain].marks.has(Marks::CANCELLED) {
            // Those of the request that is over.
            self.chains[chain].attempts = 0;
            // Cancelled while, or by what, its readback ran: one more call tells it so, and what it answered is dropped.
            self.chains[chain].stage = Stage::New;
            self.discard(next);
            return self.fail_unlinked(chain, ErrorKind::Cancelled);
        }
        let Next {
            action,
            delay,
            readback,
        } = next;
        let mut waits = None;
        match action {
            Action::Send(request) if !self.draining => {
                self.chains[chain].request = Some(request);
                self.chains[chain].marks.clear(Marks::AT_HOME);
            }
            Action::Again if !self.draining => {}
            Action::Wait if !self.draining => waits = Some(MaybeKey::NONE),
            Action::Call(call) if !self.draining => waits = Some(self.chains.keep_call(*call)),
            action => {
                self.discard((action, readback));
                return self.end_chain(chain);
            }
        }
        if readback.is_some() {
            let former = std::mem::replace(&mut self.chains[chain].readback, readback);
            self.discard(former);
        }
        // The readback may have taken its time: what follows begins now.
        self.read_clock();
        self.chains[chain].started = self.now_micros;
        match (waits, delay) {
            (None, Duration::ZERO) => self.begin(chain),
            (waits, delay) => {
                self.chains[chain].attempts = 0;
                match waits {
                    Some(call) => self.wait(chain, call, delay),
                    None => self.delay(chain, delay),
                }
            }
        }
    }

    pub(super) fn end_chain(&mut self, key: ChainKey) {
        self.disarm(key);
        let chain = self.chains.remove(key);
        if let Some(origin) = chain.origin.get() {
            self.pool.leave(origin);
        }
        self.discard(chain);
    }

    /// Runs user code: the readback out of the slab, the chains lent to it. `None`: it panicked, and the turn is to end.
    pub(super) fn run_readback<R>(
        &mut self,
        key: ChainKey,
        id: RequestId,
        run: impl FnOnce(&mut dyn Readback<S>, Context<'_, S>) -> R,
    ) -> Option<R> {
        let chain = &mut self.chains[key];
        let mut readback = chain.readback.take()?;
        let stage = std::mem::replace(&mut chain.stage, Stage::Reading);
        let asked = self.chains.commands_len();
        let cx = Context::new(&mut self.chains, id, self.now);
        // What a panic may leave half changed is the readback, which is dropped, and the caller's state, which is the
        // host's to judge: it gets the panic at the end of the turn.
        let result = catch_unwind(AssertUnwindSafe(|| run(&mut *readback, cx)));
        self.since_clock = SinceClock::UserCode;
        if self.chains.commands_len() > asked {
            // It may have taken its time, and what it has submitted must not be early for that.
            self.read_clock();
            self.chains.stamp(asked);
        }
        let chain = &mut self.chains[key];
        chain.stage = stage;
        match result {
            Ok(result) => {
                chain.readback = Some(readback);
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
        let readback = self.chains[key].readback.as_deref()?;
        match catch_unwind(AssertUnwindSafe(|| readback.reads_heads())) {
            Ok(reads) => Some(reads),
            Err(panic) => {
                self.panic = Some(panic);
                let readback = self.chains[key].readback.take();
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

    /// What is known of an exchange. It takes the request out of the chain: put it back.
    pub(super) fn exchange(&mut self, key: LinkKey, chain_key: ChainKey) -> Exchange {
        let id = self.chains.id(chain_key);
        let chain = &mut self.chains[chain_key];
        let link = &self.links[key];
        let request = chain.request.take();
        Exchange {
            id,
            peer: link.peer.get(),
            reused: link.marks.has(LinkMarks::REUSED),
            attempts: chain.attempts,
            times: link.times,
            done: 0,
            tls: link.session.as_ref().and_then(Session::info),
            request: request.unwrap_or_else(|| unreachable!("a chain on a link has a request")),
            info: OnceLock::new(),
        }
    }
}
