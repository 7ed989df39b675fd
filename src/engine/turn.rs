//! One turn: commands, the poll, links, names, timers, failures and calls; in this order, and each
//! with a bound.

use std::panic::resume_unwind;
use std::time::Duration;

use log::trace;

use crate::engine::Engine;
use crate::engine::agenda::Completion;
use crate::engine::chain::Stage;
use crate::engine::clock::Since;
use crate::engine::mode::sealed::Sealed;
use crate::engine::mode::{Mode, Owned};
use crate::engine::submitter::Order;
use crate::error::Error;
use crate::id::ChainId;
use crate::net::slots::RESOLVER_TOKENS;
use crate::net::{ALARM, Heard, Net, Ready, WAKE};

/// Whether time may have passed since the end of the turn before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockAtStart {
    MayHaveMoved,
    /// The engine's own loop goes on.
    IsAsRead,
}

/// So often what was submitted at the end of a drain, by readbacks that were told of it, is told of
/// it as well.
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
    /// Events that the poll told.
    pub events: usize,
    /// Requests answered, by a response or an error.
    pub answered: usize,
    /// Something is left that waits for nothing but the next turn; or this one had left-overs to
    /// deal with and did not ask the poll, which may have more to tell.
    pub more: bool,
    /// A readback or a [`Submitter`](crate::Submitter) called `stop`.
    pub stopped: bool,
}

impl<S, M: Mode> Engine<S, M> {
    /// All links that the poll told of, and all on the run queue, read this many times what one
    /// may, before the turn ends.
    pub(super) const TURN_SHARES: usize = 4;

    /// One turn, which waits at most `timeout` and not past the next deadline.
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
            // A panic from outside a readback, such as a resolver's, went through the turn that had
            // taken it.
            self.core.buffers.read = vec![0; self.core.settings.read_buffer];
        }
        // After a panic, or over budget, the rest of the last batch comes first.
        let has_rest = self.core.agenda.events.has_rest();
        if !has_rest {
            if clock == ClockAtStart::MayHaveMoved || self.core.clock.since != Since::Nothing {
                self.core.read_clock();
            }
            // What was submitted between turns is written before the poll, which may wait.
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
        self.work(state);
        self.take_orders_from_within();
        turn.answered = (self.core.counts.answered + self.core.counts.failed - before) as usize;
        self.core.settle_and_park();
        self.set_alarm();
        if let Some(panic) = self.core.panic.take() {
            self.core.agenda.draining = false;
            resume_unwind(panic);
        }
        // Who was not asked may have more to tell: a host that watches for edges is not told of it
        // again.
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

    /// Everything that may run user code. Leaves off after a panic: what is undone is done in the
    /// next turn.
    #[inline(always)]
    fn work(&mut self, state: &mut S) {
        let share = self
            .core
            .settings
            .turn_bytes
            .saturating_mul(Self::TURN_SHARES);
        let queued = self.core.agenda.run_queue.len();
        self.on_events(state, &mut { share });
        // Budgets of their own, so that links which are always readable leave something to those
        // that had to wait.
        let mut budget = share;
        self.core.agenda.decoded = 0;
        for _ in 0..queued {
            if self.core.panic.is_some() {
                return;
            }
            if budget == 0 || self.core.agenda.decoded >= share {
                // The others come first in the next turn: in the order in which they wait.
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
        // Tasks that were woken by what has happened go on in this turn.
        self.take_orders_from_within();
        if !self.core.agenda.completions.is_empty() {
            self.on_completions(state);
        }
    }

    /// User code of chains that are on no link, as far as a turn does that.
    #[inline(never)]
    fn on_completions(&mut self, state: &mut S) {
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
                // It has made the poll readable: that is all it is for.
                continue;
            } else {
                trace!("{token:?} {readiness:?} is stale");
                continue;
            }
            self.core.settle_and_park();
        }
    }

    fn take_orders(&mut self) {
        if self.core.ended.take() {
            self.core.chains.generations.on_ended();
        }
        for (id, next) in self.orders.take_local() {
            self.asks().start(next, Some(id));
        }
        let mut rung = self.orders.take_rung(&self.core.bell);
        for rung in rung.drain(..) {
            self.core.chains.wake(rung);
        }
        self.orders.give_back_rung(rung);
        let mut orders = self.orders.take();
        for order in orders.drain(..) {
            match order {
                Order::Submit {
                    id,
                    request,
                    readback,
                    delay,
                } => {
                    self.asks().insert(request, readback, delay, Some(id));
                }
                Order::Call { id, call, delay } => {
                    self.asks().insert_call(call, delay, Some(id));
                }
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
        // Behind all that was given before: what belongs to a generation that is over ends, too.
        if self.core.chains.generations.is_due() {
            self.core.chains.sweep();
        }
        // What is left is for the next turn, and one flag tells of all of it.
        let core = &self.core;
        if core.bell.has_rung() || core.ended.is_set() || core.chains.generations.is_due() {
            self.orders.note_unannounced();
        }
    }

    #[inline(always)]
    fn take_orders_from_within(&mut self) {
        if self.orders.has_unannounced() {
            // A readback may have taken its time before it gave them, and no delay is early for
            // that.
            self.core.read_clock();
            self.take_orders();
            self.core.settle_and_park();
        }
    }
}

impl<S> Engine<S, Owned> {
    /// One turn: waits until something is ready, a deadline has passed or `timeout` is over
    /// (`None`: as long as it takes, zero: not at all), then deals with what is due, calling
    /// readbacks with `state`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io): the poll failed. No exchange's failure ends up
    /// here.
    ///
    /// # Panics
    /// When a readback does; the engine can be used on.
    pub fn turn(&mut self, state: &mut S, timeout: Option<Duration>) -> Result<Turn, Error> {
        self.core.agenda.draining = false;
        self.turn_within(state, timeout, ClockAtStart::MayHaveMoved)
    }

    /// Turns until nothing is pending and no [`KeepAlive`](crate::KeepAlive) is left, or to the end
    /// of the turn in which `stop` was called.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    ///
    /// # Panics
    /// As [`turn`](Self::turn).
    pub fn run(&mut self, state: &mut S) -> Result<(), Error> {
        self.core.agenda.draining = false;
        let mut clock = ClockAtStart::MayHaveMoved;
        while self.has_something_to_come() {
            if self.turn_within(state, None, clock)?.stopped {
                break;
            }
            // One turn follows the other: what the last one read behind its last readback is good
            // for the next.
            clock = ClockAtStart::IsAsRead;
        }
        Ok(())
    }

    /// Lets what is in flight and queued end, for `within` at most; nothing new starts and no chain
    /// goes on. What a [policy](crate::policy) holds back or sends again counts as in flight. What
    /// is delayed, calls included, is cancelled at once, and so is what readbacks submit meanwhile;
    /// what is left at the end likewise. Answers how many of the chains that were there before were
    /// cancelled. `stop` has no effect meanwhile. The engine can be used on.
    ///
    /// Readbacks that are told of the end and submit more, over and over, do not hold it up: some
    /// rounds later what is left stays [pending](Self::pending).
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    ///
    /// # Panics
    /// As [`turn`](Self::turn); what is left is then not drained.
    pub fn drain(&mut self, state: &mut S, within: Duration) -> Result<usize, Error> {
        self.drain_by(within, |engine, timeout| {
            engine
                .turn_within(state, timeout, ClockAtStart::MayHaveMoved)
                .map(|_| ())
        })
    }
}

impl<S, M: Mode> Engine<S, M> {
    /// Whether [`Engine::run`] goes on.
    pub(crate) fn has_something_to_come(&self) -> bool {
        self.pending() > 0 || self.orders.has_some_to_come()
    }

    /// [`Engine::drain`], however turns are made: `turn` makes one that waits at most as long as it
    /// is told.
    pub(crate) fn drain_by(
        &mut self,
        within: Duration,
        mut turn: impl FnMut(&mut Self, Option<Duration>) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        self.core.read_clock();
        self.core.quiet.forget();
        // What was submitted before is not new, however much it is.
        while self.core.chains.has_commands() {
            self.core.agenda.carried_out = 0;
            self.core.settle_and_park();
        }
        self.core.settle_and_park();
        self.core.agenda.draining = true;
        let end = self.core.clock.now().checked_add(within);
        let meant = self.chains_where(|stage| {
            matches!(
                stage,
                Stage::Delayed | Stage::Waiting { .. } | Stage::Due { .. }
            )
        });
        let mut cancelled = self.cancel_all(&meant);
        // Those that are cancelled at the end, of which all are told.
        let (mut rounds, mut last) = (0, Vec::new());
        while self.pending() > 0 {
            let left = end.map(|end| end.saturating_duration_since(self.core.net.now()));
            if left.is_some_and(|left| left.is_zero()) {
                let is_over = |id: &mut ChainId| self.core.chains.find(*id).is_none();
                while last.pop_if(is_over).is_some() {}
                if last.is_empty() {
                    // What was submitted meanwhile is told, too, but not for ever: it may submit
                    // more.
                    if rounds == MOST_ROUNDS {
                        break;
                    }
                    rounds += 1;
                    last = self.chains_where(|_| true);
                    let count = self.cancel_all(&last);
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

    /// The chains that are somewhere.
    fn chains_where(&self, is_meant: impl Fn(Stage) -> bool) -> Vec<ChainId> {
        let chains = &self.core.chains;
        let meant = chains.keys().filter(|key| is_meant(chains[*key].stage));
        meant.map(|key| chains.id(key)).collect()
    }

    /// Cancels chains; returns how many were not cancelled before.
    fn cancel_all(&mut self, ids: &[ChainId]) -> usize {
        let chains = &mut self.core.chains;
        ids.iter().filter(|id| chains.cancel(**id)).count()
    }
}
