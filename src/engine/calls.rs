//! Calls: chains that wait without a request, and then run code.
//!
//! A call that is due takes its place in the queue of failures, which each turn empties as far as it was filled when it got
//! there. So a call runs between two links, after what was asked for before it, and one that calls again at once waits for the
//! next turn.

use std::time::Duration;

use crate::engine::Engine;
use crate::engine::chains::{ChainKey, Marks, Stage};
use crate::engine::mode::Mode;
use crate::engine::readback::{Action, Context, Next};
use crate::error::ErrorKind;
use crate::net::slots::MaybeKey;

/// The code that a chain goes on with.
pub(crate) type Call<S> = Box<dyn FnOnce(&mut S, &mut Context<'_, S>) -> Next<S>>;

impl<S, M: Mode> Engine<S, M> {
    /// Lets a chain wait without a request, counted from its submission; then `call` is made, or its readback told.
    pub(super) fn wait(&mut self, key: ChainKey, call: MaybeKey, delay: Duration) {
        self.chains[key].stage = Stage::Waiting { call };
        match delay {
            Duration::ZERO => {
                self.disarm(key);
                self.fall_due(key, call);
            }
            delay => self.arm_delay(key, delay),
        }
    }

    /// What a chain waited for without a request has happened before its delay was over.
    pub(super) fn wake_chain(&mut self, key: ChainKey) {
        if let Stage::Waiting { call } = self.chains[key].stage {
            self.disarm(key);
            self.fall_due(key, call);
        }
    }

    /// A chain has waited for as long as it asked.
    pub(super) fn fall_due(&mut self, key: ChainKey, call: MaybeKey) {
        self.chains[key].stage = Stage::Due { call };
        self.completions.push_back((key, None));
    }

    /// Makes the call that is due.
    pub(super) fn make_call(&mut self, state: &mut S, key: ChainKey) {
        let Stage::Due { call } = self.chains[key].stage else {
            return;
        };
        if self.chains[key].marks.has(Marks::CANCELLED) {
            self.forget_call(call);
            return self.fail_unlinked(key, ErrorKind::Cancelled);
        }
        let call = self.chains.take_call(call);
        self.chains[key].stage = Stage::Due {
            call: MaybeKey::NONE,
        };
        let id = self.chains.id(key);
        let mut next = self.run_readback(key, id, |readback, mut cx| match call {
            Some(call) => call(state, &mut cx),
            None => readback.on_due(state, &mut cx),
        });
        if let Some(next) = &mut next
            && let Action::Again = next.action
            && self.chains[key].request.is_none()
        {
            // It has sent nothing that could be sent again.
            next.action = Action::Done;
        }
        self.follow(key, next);
    }

    /// Drops a call that will not be made.
    pub(super) fn forget_call(&mut self, call: MaybeKey) {
        let call = self.chains.take_call(call);
        self.discard(call);
    }
}
