//! Carries out the commands of readbacks, tasks and the host, and assigns free links to waiting
//! requests.
//!
//! Nothing is started while something else is being ended. A link that becomes free is recorded in
//! the pool, and a request to be placed again on the agenda; `settle` processes both later. So
//! there is no recursion to limit, and the order does not depend on where something ended.

use crate::engine::chain::{ChainKey, Marks, Stage};
use crate::engine::chains::Command;
use crate::engine::core::Core;
use crate::engine::fail::Failure;
use crate::error::ErrorKind;
use crate::net::Net;
use crate::policy::Woken;
use crate::timeouts::Timeout;

impl<N: Net> Core<N> {
    /// Carries out commands, and assigns free links to waiting requests.
    #[inline(always)]
    pub(super) fn settle(&mut self) {
        // This is called several times per request, mostly with nothing to do. One inlined test
        // covers everything; a call would cost more.
        let asked = self.chains.commands_len() | self.agenda.restarts.len();
        if asked | self.pool.unsettled() != 0 {
            self.settle_all();
        }
    }

    #[inline(never)]
    fn settle_all(&mut self) {
        self.catch_up();
        loop {
            // Requests that are sent again come first and without a bound, because they keep their
            // place in line. Commands come next, and queues last.
            if let Some(key) = self.agenda.restarts.pop_front() {
                self.place_again(key);
            } else if !self.agenda.has_carried_out_enough()
                && let Some(command) = self.chains.next_command()
            {
                self.agenda.carried_out += 1;
                self.carry_out(command);
            } else if self.pool.unsettled() != 0
                && (self.agenda.has_carried_out_enough() || self.panic.is_some())
            {
                // Queues have to be bounded as well: a policy may refuse every request of a queue
                // in turn. The rest is left to the next turn.
                self.agenda.has_unsettled = true;
                break;
            } else if self.pool.has_waiting_for_room() && self.has_room() {
                // One request at a time, so that the origins alternate.
                if let Some(origin) = self.pool.next_for_room()
                    && self.serve_first(origin)
                    && self.pool[origin].waiting.is_some()
                {
                    self.pool.wait_for_room(origin);
                }
            } else if let Some(origin) = self.pool.next_to_serve() {
                self.serve_queue(origin);
            } else {
                break;
            }
        }
    }

    /// Calls [`settle`](Self::settle), then parks the link that is still at rest and writes the
    /// requests that pipelines have collected.
    #[inline(always)]
    pub(super) fn settle_and_park(&mut self) {
        self.settle();
        if let Some(key) = self.agenda.resting.take() {
            self.park(key);
            // If the link was closed, another one may be opened.
            self.settle();
        }
        if !self.agenda.unwritten.is_empty() {
            self.flush_noted();
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Start(key, _) if self.agenda.draining => {
                if let Stage::New | Stage::Waiting { .. } = self.chains[key].stage {
                    self.chains[key].marks.set(Marks::CANCELLED);
                    self.cancel_chain(key);
                }
            }
            // The chain was canceled before it began. The cancellation follows as a separate
            // command.
            Command::Start(key, _) if self.chains[key].marks.has(Marks::CANCELLED) => {}
            Command::Start(key, when) => {
                self.arm_chain_deadline(key);
                match self.chains[key].stage {
                    Stage::Waiting { call } => self.wait(key, call, when),
                    _ if when.is_now(self.clock.now()) => self.begin(key),
                    _ => self.delay(key, when),
                }
            }
            Command::Cancel(id) => {
                if let Some(key) = self.chains.find(id) {
                    self.cancel_chain(key);
                }
            }
            Command::Resume(id) => {
                if let Some(key) = self.chains.find(id) {
                    self.resume_chain(key);
                }
            }
            Command::Flush(id) => {
                if let Some(key) = self.chains.find(id)
                    && let Stage::Running { link } = self.chains[key].stage
                {
                    self.flush(link);
                }
            }
            Command::FailBody(id) => {
                if let Some(key) = self.chains.find(id) {
                    self.fail_body(key);
                }
            }
            Command::Retime(id) => {
                if let Some(key) = self.chains.find(id)
                    && let Stage::Running { link } = self.chains[key].stage
                    && self.links[link].chain() == Some(key)
                {
                    self.apply_retimed(link, key);
                }
            }
            Command::Preconnect(_) if self.agenda.draining => {}
            Command::Preconnect(preconnect) => {
                let (origin, route) = *preconnect;
                self.preconnect(&origin, route);
            }
            Command::Wake(Woken { chain, waits }) => {
                if let Some(key) = self.chains.find(chain) {
                    self.wake_chain(key, waits);
                }
            }
        }
    }

    pub(super) fn cancel_chain(&mut self, key: ChainKey) {
        match self.chains[key].stage {
            Stage::New | Stage::Delayed | Stage::HeldBack { .. } | Stage::Queued { .. } => {
                self.fail_unlinked(key, ErrorKind::Cancelled);
            }
            Stage::Waiting { call } => self.fail_wait(key, call, ErrorKind::Cancelled),
            Stage::Running { link } if self.links[link].chain() != Some(key) => {
                self.fail_behind(link, key, ErrorKind::Cancelled);
            }
            Stage::Running { link } => self.fail(link, Failure::Cancelled),
            // The mark is sufficient here: a failure is reported as a cancellation, a due call is
            // dropped, and a running readback is called once more.
            Stage::Due { .. } | Stage::Failed | Stage::Reading | Stage::Retired => {}
        }
    }

    pub(super) fn resume_chain(&mut self, key: ChainKey) {
        let chain = &mut self.chains[key];
        let Stage::Running { link } = chain.stage else {
            return;
        };
        if chain.marks.has(Marks::PAUSED) {
            chain.marks.clear(Marks::PAUSED);
            self.arm(key, Some(Timeout::Idle));
            self.run_later(link);
        }
    }
}
