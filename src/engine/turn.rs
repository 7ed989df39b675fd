//! One turn of the event loop: commands, poll, links, names, timers, failures and calls, in this
//! order and each within bounds.
//!
//! The order matters:
//!
//! - Commands come before the poll because it may block: requests submitted between turns are
//!   written first.
//! - Links come before timers, so a response that has arrived beats its deadline even if the host
//!   is late.
//! - Failures and calls come last. Code that detects a failure only queues it, and no readback runs
//!   inside that code.
//!
//! Work beyond a bound stays in its queue, in the event batch or in the timer wheel, and
//! [`Turn::more`] reports it.

use std::panic::resume_unwind;
use std::time::Duration;

use log::trace;

use crate::engine::Engine;
use crate::engine::agenda::Completion;
use crate::engine::chain::{Stage, When};
use crate::engine::clock::Since;
use crate::engine::local::Asked;
use crate::engine::mode::Mode;
use crate::engine::mode::sealed::Sealed;
use crate::engine::submitter::Order;
use crate::error::Error;
use crate::id::ChainId;
use crate::net::slots::RESOLVER_TOKENS;
use crate::net::{ALARM, Heard, Net, Ready, WAKE};

/// Whether time may have passed since the end of the previous turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockAtStart {
    MayHaveMoved,
    /// The engine's own loop continues, and the clock is as the last turn read it.
    IsAsRead,
}

/// The maximum number of rounds of cancellations at the end of a drain. A readback that is called
/// for a cancellation may submit more, which the next round cancels; without a limit this could go
/// on forever.
const MOST_ROUNDS: usize = 16;

/// What a turn did.
///
/// A host whose event loop is edge-triggered repeats the turn until nothing is left:
///
/// ```
/// use std::time::Duration;
/// use httpstream::{Engine, Next, Request};
///
/// let mut engine = Engine::<u32>::new()?;
/// engine.submit(Request::get("http://127.0.0.1:1/").build()?, |replies, _, _| {
///     *replies += 1;
///     Next::done()
/// });
/// let mut replies = 0;
/// while engine.pending() > 0 {
///     // Here the host's loop would wait for the file descriptor; this turn waits in its place.
///     engine.turn(&mut replies, None)?;
///     loop {
///         let turn = engine.turn(&mut replies, Some(Duration::ZERO))?;
///         if turn.events == 0 && !turn.more {
///             break;
///         }
///     }
/// }
/// assert_eq!(replies, 1);
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Turn {
    /// Events that the poll returned.
    pub events: usize,
    /// Requests answered, by a response or an error.
    pub answered: usize,
    /// Whether another turn is due at once: work remains that waits for nothing else, or this turn
    /// continued the work of the last one and did not poll, so there may be more events.
    pub more: bool,
    /// Whether a readback or a [`Submitter`](crate::Submitter) called `stop`.
    pub stopped: bool,
}

impl<S, M: Mode> Engine<S, M> {
    /// The budget of one turn, as a multiple of what a single link may read. All links with events
    /// share one such budget, and all links on the run queue another.
    pub(super) const TURN_SHARES: usize = 4;

    /// Runs one turn, which blocks for at most `timeout` and not past the next deadline.
    pub(super) fn turn_within(
        &mut self,
        state: &mut S,
        timeout: Option<Duration>,
        clock: ClockAtStart,
    ) -> Result<Turn, Error> {
        let _inside = self.orders.on_turn();
        self.core.counts.turns += 1;
        self.core.agenda.carried_out = 0;
        self.core.agenda.has_unsettled = false;
        self.core.agenda.decoded = 0;
        self.core.quiet.forget();
        self.core.clock.present().begin_turn();
        let before = self.core.counts.answered + self.core.counts.failed;
        let mut turn = Turn::default();
        if self.core.buffers.read.is_empty() {
            // The previous turn had taken the buffer, and a panic outside of a readback, such as
            // one in a resolver, unwound it.
            self.core.buffers.read = vec![0; self.core.settings.read_buffer];
        }
        // After a panic, or when the budget is used up, the rest of the last batch comes before a
        // new poll.
        let has_rest = self.core.agenda.events.has_rest();
        if !has_rest {
            if clock == ClockAtStart::MayHaveMoved || self.core.clock.since != Since::Nothing {
                self.core.read_clock();
            }
            self.end_generations();
            // Requests submitted between turns are written before the poll, which may block.
            self.core.settle_and_park();
            let heard = self.poll(timeout)?;
            turn.events = self.core.agenda.events.len();
            if <M as Sealed>::Net::WAITS {
                self.core.read_clock();
            }
            self.core.quiet.on_heard(heard, self.core.clock.micros());
        } else {
            self.core.read_clock();
        }
        self.end_generations();
        self.work(state);
        self.take_orders_from_within();
        turn.answered = (self.core.counts.answered + self.core.counts.failed - before) as usize;
        self.core.settle_and_park();
        self.set_alarm();
        if let Some(panic) = self.core.panic.take() {
            self.core.agenda.draining = false;
            resume_unwind(panic);
        }
        // A turn that did not poll may have missed events. A host with an edge-triggered loop is
        // not notified of them again, so it has to run another turn.
        turn.more = has_rest
            || self.is_due()
            || self.core.lookups.is_put_off()
            || self.core.timers.is_due(self.core.clock.tick());
        turn.stopped = std::mem::take(&mut self.core.chains.stopped);
        Ok(turn)
    }

    fn poll(&mut self, timeout: Option<Duration>) -> Result<Heard, Error> {
        let wait = if self.is_due() {
            Some(Duration::ZERO)
        } else {
            match (
                timeout,
                self.core
                    .until_next_timer(self.core.clock.now(), self.core.clock.life()),
            ) {
                (Some(timeout), Some(due)) => Some(timeout.min(due)),
                (timeout, due) => timeout.or(due),
            }
        };
        let core = &mut self.core;
        let most = core.settings.turn_events;
        let events = core.agenda.events.renew();
        core.net.wait(events, most, wait).map_err(Error::io)
    }

    /// Runs everything that may call user code. Stops at a panic; the next turn does the rest.
    #[inline(always)]
    fn work(&mut self, state: &mut S) {
        let share = self
            .core
            .settings
            .turn_bytes
            .saturating_mul(Self::TURN_SHARES);
        let queued = self.core.agenda.run_queue.len();
        self.on_events(state, &mut { share });
        // The run queue has a budget of its own, so links that are always readable leave some for
        // those that had to wait.
        let mut budget = share;
        self.core.agenda.decoded = 0;
        for _ in 0..queued {
            if self.core.panic.is_some() {
                return;
            }
            if budget == 0 || self.core.agenda.decoded >= share {
                // The rest keep their order and come first in the next turn.
                break;
            }
            let Some(token) = self.core.agenda.run_queue.pop_front() else {
                break;
            };
            if let Some(key) = self.core.links.find(token) {
                self.core.links[key].is_queued = false;
                self.on_link(state, key, &mut budget);
                self.core.settle_and_park();
            }
        }
        if self.core.panic.is_some() {
            return;
        }
        self.core.on_names();
        self.core.on_timers();
        if !self.core.agenda.overdue.is_empty() {
            self.on_overdue(state, &mut { share });
            if self.core.panic.is_some() {
                return;
            }
        }
        // Tasks that have been woken so far run in this turn.
        self.take_orders_from_within();
        if !self.core.agenda.completions.is_empty() {
            self.on_completions(state);
        }
    }

    /// Runs user code for chains that are on no link, within the bound of a turn.
    #[inline(never)]
    fn on_completions(&mut self, state: &mut S) {
        // Only the entries that are queued now: a chain that calls itself without delay makes one
        // call per turn.
        let queued = self.core.agenda.completions.len();
        for _ in 0..queued.min(self.core.settings.turn_events) {
            self.core.catch_up();
            let Some((chain, completion)) = self.core.agenda.completions.pop_front() else {
                break;
            };
            match completion {
                Completion::Failed(error) => self.deliver(state, chain, error),
                Completion::Forgotten { call, error } => {
                    self.forget_call(call);
                    self.deliver(state, chain, error);
                }
                Completion::Final(error) => self.tell_failure(state, chain, error),
                Completion::Over => self.end_chain(chain),
                Completion::Due => self.make_call(state, chain),
            }
            self.core.settle_and_park();
            if self.core.panic.is_some() {
                return;
            }
        }
    }

    fn on_events(&mut self, state: &mut S, budget: &mut usize) {
        while *budget > 0 && self.core.panic.is_none() {
            let Some(Ready { token, readiness }) = self.core.agenda.events.take_next() else {
                break;
            };
            if let Some(key) = self.core.links.find(token) {
                trace!("{token:?} {readiness:?}");
                let link = &mut self.core.links[key];
                link.readiness = link.readiness.with(readiness);
                self.on_link(state, key, budget);
            } else if token == WAKE {
                self.core.counts.wakeups += 1;
                self.core.lookups.names.on_wake();
                self.take_orders();
            } else if RESOLVER_TOKENS.contains(&token.0) {
                self.core.lookups.names.on_event(self.core.net.outer(token));
                continue;
            } else if token == ALARM {
                // The alarm has made the poll readable, which is its only purpose.
                continue;
            } else {
                trace!("{token:?} {readiness:?} is stale");
                continue;
            }
            self.core.settle_and_park();
        }
    }

    /// Cancels the chains whose generation has ended, before anything is sent for them. The event
    /// that announces the end may be one of the last.
    #[inline]
    fn end_generations(&mut self) {
        if self.core.ended.is_set() {
            self.sweep_ended();
        }
    }

    #[cold]
    fn sweep_ended(&mut self) {
        // The flag stays: the event causes another sweep, of chains in the inbox as well.
        self.core.chains.generations.on_ended();
        self.core.chains.sweep();
        self.core.settle_and_park();
    }

    fn take_orders(&mut self) {
        if self.core.ended.take() {
            self.core.chains.generations.on_ended();
        }
        // Local orders are taken before the inbox, which contains the cancellations of both. So no
        // cancellation overtakes its submission.
        for asked in self.orders.take_local() {
            match asked {
                Asked::Start(id, next) => {
                    self.asks().start(next, Some(id));
                }
                Asked::CancelKey(name) => {
                    self.core.chains.cancel_key(&name);
                }
            }
        }
        let mut all_woken = self.orders.take_woken(&self.core.wakeups);
        for woken in all_woken.drain(..) {
            self.core.chains.wake(woken);
        }
        self.orders.give_back_woken(all_woken);
        let mut orders = self.orders.take();
        for order in orders.drain(..) {
            match order {
                Order::Submit {
                    id,
                    request,
                    readback,
                    delay,
                } => {
                    self.asks()
                        .insert(request, readback, When::After(delay), Some(id));
                }
                Order::Call { id, call, delay } => {
                    self.asks().insert_call(call, When::After(delay), Some(id));
                }
                Order::Preconnect(origin) => self.core.chains.preconnect(origin, None),
                Order::Cancel(id) => {
                    self.core.chains.cancel(id);
                }
                Order::Resume(id) => {
                    self.core.chains.resume(id);
                }
                Order::Stop => self.core.chains.stop(),
            }
        }
        self.orders.give_back(orders);
        // After the orders, so a chain submitted by one of them ends as well if its generation has
        // ended.
        if self.core.chains.generations.is_due() {
            self.core.chains.sweep();
        }
        // One flag makes the next turn due for the rest of all three.
        let core = &self.core;
        if core.wakeups.has_woken() || core.ended.is_set() || core.chains.generations.is_due() {
            self.orders.note_unannounced();
        }
    }

    #[inline(always)]
    fn take_orders_from_within(&mut self) {
        if self.orders.has_unannounced() {
            // A readback may have run for a long time before it gave these orders, and their delays
            // count from now.
            self.core.read_clock();
            self.take_orders();
            self.core.settle_and_park();
        }
    }
}

impl<S, M: Mode> Engine<S, M> {
    /// Returns whether [`Engine::run`] has a reason to continue.
    pub(crate) fn has_something_to_come(&self) -> bool {
        self.pending() > 0 || self.orders.has_some_to_come()
    }

    /// Drains as [`Engine::drain`] does, with turns of any mode: `turn` runs one that blocks for at
    /// most the given time.
    pub(crate) fn drain_by(
        &mut self,
        within: Duration,
        mut turn: impl FnMut(&mut Self, Option<Duration>) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        self.core.read_clock();
        self.core.quiet.forget();
        // All submissions before the drain count as queued, however many there are, so their
        // commands are carried out beyond the bound of a turn.
        while self.core.chains.has_commands() {
            self.core.agenda.carried_out = 0;
            self.core.settle_and_park();
        }
        self.core.settle_and_park();
        self.core.agenda.draining = true;
        let end = self.core.clock.now().checked_add(within);
        let chains = &self.core.chains;
        let not_in_flight = chains.ids_where(|key| {
            matches!(
                chains[key].stage,
                Stage::Delayed | Stage::Waiting { .. } | Stage::Due { .. }
            )
        });
        let mut cancelled = self.core.chains.cancel_each(&not_in_flight);
        // The chains that the last round canceled. The readbacks of all of them are called before
        // the drain ends.
        let (mut rounds, mut last) = (0, Vec::new());
        while self.pending() > 0 {
            let left = end.map(|end| end.saturating_duration_since(self.core.net.now()));
            if left.is_some_and(|left| left.is_zero()) {
                let is_over = |id: &mut ChainId| self.core.chains.find(*id).is_none();
                while last.pop_if(is_over).is_some() {}
                if last.is_empty() {
                    // Chains submitted meanwhile are canceled as well, but in a bounded number of
                    // rounds, because their readbacks may submit more.
                    if rounds == MOST_ROUNDS {
                        break;
                    }
                    rounds += 1;
                    last = self.core.chains.ids_where(|_| true);
                    let count = self.core.chains.cancel_each(&last);
                    if rounds == 1 {
                        cancelled += count;
                    }
                }
            }
            turn(self, left)?;
        }
        self.core.agenda.draining = false;
        Ok(cancelled)
    }
}
