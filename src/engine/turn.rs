//! One turn: commands, the poll, links, names, timers, failures and calls; in this order, and each with a bound.

use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use log::trace;

use crate::engine::chains::Stage;
use crate::engine::mode::sealed::Sealed;
use crate::engine::mode::{Mode, Owned};
use crate::engine::queue::MAX_CARRIED_OUT;
use crate::engine::readback::Sink;
use crate::engine::submitter::Order;
use crate::engine::{Engine, SinceClock, Timer};
use crate::error::Error;
use crate::net::link::LinkMarks;
use crate::net::slots::RESOLVER_TOKENS;
use crate::net::{ALARM, Heard, Net, Ready, WAKE};

/// Timers of the resolver that are later than this were not run in time since the host was away.
const NAMES_LATE: Duration = Duration::from_millis(5);

/// Turns for which the resolver's timers, and deadlines of look-ups, are put off while the poll may
/// have more to tell. They follow each other at once: what was there when the host came back has
/// been told by then.
pub(super) const MOST_PUT_OFF: u8 = 64;

/// Orders of other threads taken in one turn; the rest stays where it is, and the next turn is due
/// at once. No more than commands are carried out, so that the inbox fills up when the engine does
/// not keep up, rather than the engine.
const MAX_ORDERS: usize = MAX_CARRIED_OUT;

/// Timers that a turn moves nearer to when they are due. A million of them may have to be moved at
/// one moment.
const MAX_DEALT_OUT: usize = 16_384;

/// Whether time may have passed since the end of the turn before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockAtStart {
    MayHaveMoved,
    /// The engine's own loop goes on.
    IsAsRead,
}

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Turn {
    /// Events that the poll told.
    pub events: usize,
    /// Requests answered, by a response or an error.
    pub answered: usize,
    /// Something is left that waits for nothing but the next turn; or this one had left-overs to deal with and did not ask the poll, which may
    /// have more to tell.
    pub more: bool,
    /// A readback or a [`Submitter`](crate::Submitter) called `stop`.
    pub stopped: bool,
}

impl<S, M: Mode> Engine<S, M> {
    /// All links that the poll told of, and all on the run queue, read this many times what one may, before the turn ends.
    const TURN_SHARES: usize = 4;

    /// Whether a turn would do something even if nothing became readable and no time passed.
    pub(super) fn is_due(&self) -> bool {
        self.chains.has_commands()
            || self.next_event < self.batch.len()
            || !self.run_queue.is_empty()
            || !self.restarts.is_empty()
            || !self.completions.is_empty()
            || !self.overdue.is_empty()
            || self.names.has_news()
            || self.remote.has_unannounced()
            || self.net.has_handed_events()
    }

    /// One turn, which waits at most `timeout` and not past the next deadline.
    pub(super) fn turn_within(
        &mut self,
        state: &mut S,
        timeout: Option<Duration>,
        clock: ClockAtStart,
    ) -> Result<Turn, Error> {
        let _inside = self.remote.enter();
        self.counts.turns += 1;
        self.carried_out = 0;
        self.taken = 0;
        self.quiet.forget();
        let before = self.counts.answered + self.counts.failed;
        let mut turn = Turn::default();
        if self.read_buffer.is_empty() {
            // A panic from outside a readback, such as a resolver's, went through the turn that had taken it.
            self.read_buffer = vec![0; self.settings.read_buffer];
        }
        // After a panic, or over budget, the rest of the last batch comes first.
        let has_rest = self.next_event < self.batch.len();
        if !has_rest {
            if clock == ClockAtStart::MayHaveMoved || self.since_clock != SinceClock::Nothing {
                self.read_clock();
            }
            // What was submitted between turns is written before the poll, which may wait.
            self.settle_and_park();
            let heard = self.poll(timeout)?;
            turn.events = self.batch.len();
            if <M as Sealed>::Net::WAITS {
                self.read_clock();
            }
            self.quiet.on_heard(heard, self.now_micros);
        } else {
            self.read_clock();
        }
        self.work(state);
        self.take_orders_from_within();
        turn.answered = (self.counts.answered + self.counts.failed - before) as usize;
        self.settle_and_park();
        self.set_alarm();
        if let Some(panic) = self.panic.take() {
            self.draining = false;
            resume_unwind(panic);
        }
        // Who was not asked may have more to tell: a host that watches for edges is not told of it again.
        turn.more = has_rest
            || self.is_due()
            || self.names_put_off > 0
            || self.wheel.is_due(self.now_tick());
        turn.stopped = std::mem::take(&mut self.chains.stopped);
        Ok(turn)
    }

    fn poll(&mut self, timeout: Option<Duration>) -> Result<Heard, Error> {
        let wait = match self.is_due() {
            true => Some(Duration::ZERO),
            false => match (timeout, self.until_next_timer(self.now, self.life)) {
                (Some(timeout), Some(due)) => Some(timeout.min(due)),
                (timeout, due) => timeout.or(due),
            },
        };
        self.batch.clear();
        self.next_event = 0;
        self.net
            .wait(&mut self.batch, self.settings.turn_events, wait)
            .map_err(Error::io)
    }

    /// Everything that may run user code. Leaves off after a panic: what is undone is done in the next turn.
    #[inline(always)]
    fn work(&mut self, state: &mut S) {
        let share = self.settings.turn_bytes.saturating_mul(Self::TURN_SHARES);
        let queued = self.run_queue.len();
        self.on_events(state, &mut { share });
        // A budget of its own, so that links which are always readable leave something to those that had to wait.
        let mut budget = share;
        for _ in 0..queued {
            if self.panic.is_some() {
                return;
            }
            let Some(token) = self.run_queue.pop_front() else {
                break;
            };
            if let Some(key) = self.links.find(token) {
                self.links[key].marks.clear(LinkMarks::QUEUED);
                self.on_link(state, key, &mut budget);
                self.settle_and_park();
            }
        }
        if self.panic.is_some() {
            return;
        }
        self.on_names();
        self.on_timers();
        if !self.overdue.is_empty() {
            self.on_overdue(state, &mut { share });
            if self.panic.is_some() {
                return;
            }
        }
        // Tasks that were woken by what has happened go on in this turn.
        self.take_orders_from_within();
        for _ in 0..self.completions.len().min(self.settings.turn_events) {
            self.catch_up();
            let Some((chain, error)) = self.completions.pop_front() else {
                break;
            };
            match error {
                Some(error) => self.deliver(state, chain, error),
                None => self.make_call(state, chain),
            }
            self.settle_and_park();
            if self.panic.is_some() {
                return;
            }
        }
    }

    fn on_events(&mut self, state: &mut S, budget: &mut usize) {
        while *budget > 0 && self.panic.is_none() {
            let Some(&Ready { token, readiness }) = self.batch.get(self.next_event) else {
                break;
            };
            // Counted before it is dealt with, so that a panic leaves the rest of the batch to the next turn.
            self.next_event += 1;
            if let Some(key) = self.links.find(token) {
                trace!("{token:?} {readiness:?}");
                let link = &mut self.links[key];
                link.readiness = link.readiness.with(readiness);
                self.on_link(state, key, budget);
            } else if token == WAKE {
                self.counts.wakeups += 1;
                self.names.on_wake();
                self.take_orders();
            } else if RESOLVER_TOKENS.contains(&token.0) {
                self.names.on_event(self.net.outer(token));
                continue;
            } else if token == ALARM {
                // It has made the poll readable: that is all it is for.
                continue;
            } else {
                trace!("{token:?} {readiness:?} is stale");
                continue;
            }
            self.settle_and_park();
        }
    }

    fn take_orders(&mut self) {
        let most = MAX_ORDERS - self.taken;
        if most == 0 {
            return;
        }
        let mut orders = std::mem::take(&mut self.orders);
        self.remote.take(&mut orders, most);
        self.taken += orders.len();
        for order in orders.drain(..) {
            match order {
                Order::Submit {
                    id,
                    request,
                    readback,
                    delay,
                } => {
                    self.chains.insert(request, readback, delay, Some(id));
                }
                Order::Call { id, call, delay } => {
                    self.chains.insert_call(call, delay, Some(id));
                }
                Order::Cancel(id) => {
                    self.chains.cancel(id);
                }
                Order::Resume(id) => {
                    self.chains.resume(id);
                }
                Order::Wake(id) => self.chains.wake(id),
                Order::Stop => self.chains.stop(),
            }
        }
        self.orders = orders;
    }

    #[inline(always)]
    fn take_orders_from_within(&mut self) {
        if self.remote.has_unannounced() {
            // A readback may have taken its time before it gave them, and no delay is early for that.
            self.read_clock();
            self.take_orders();
            self.settle_and_park();
        }
    }

    /// Whether the resolver's timers are so late that the host was away, and have not been put off
    /// for that often enough.
    fn puts_names_off(&mut self) -> bool {
        let is_late = |at: Instant| self.now.saturating_duration_since(at) > NAMES_LATE;
        let is_late = self.names.deadline().is_some_and(is_late);
        self.names_put_off = match is_late && self.names_put_off < MOST_PUT_OFF {
            true => self.names_put_off + 1,
            false => 0,
        };
        self.names_put_off > 0
    }

    fn on_names(&mut self) {
        // What the resolver waits for may have come while the host was away, and the poll has not
        // told of it yet.
        if !self.may_hear_more() {
            self.names_put_off = 0;
        } else if self.puts_names_off() {
            return;
        }
        self.names.on_turn(self.now);
        // A look-up may have been begun and given up since: its news are that there are none.
        if !self.names.is_busy() && !self.names.has_news() {
            return;
        }
        while let Some(answered) = self.names.next_answer(self.now) {
            for token in answered.links {
                if let Some(key) = self.links.find(token) {
                    self.on_answered(key, answered.family, answered.addresses.clone());
                }
            }
            self.settle_and_park();
        }
    }

    fn on_timers(&mut self) {
        self.wheel.allow(MAX_DEALT_OUT);
        for expired in 0..self.settings.turn_events {
            match self.wheel.expire(self.now_tick()) {
                None if expired == 0 => return,
                None => break,
                Some(Timer::Chain(key)) => self.on_chain_timer(key),
                Some(Timer::Idle(key)) => self.on_idle_timer(key),
                Some(Timer::Dial(key)) => self.on_dial_timer(key),
                Some(Timer::Exhausted) => self.exhausted = None,
                Some(Timer::LongWait(origin)) => self.on_long_wait(origin),
                Some(Timer::TurnedAway(origin)) => self.pool.try_again(origin),
            }
        }
        self.settle_and_park();
    }
}

impl<S> Engine<S, Owned> {
    /// One turn: waits until something is ready, a deadline has passed or `timeout` is over (`None`: as long as it takes,
    /// zero: not at all), then deals with what is due, calling readbacks with `state`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io): the poll failed. No exchange's failure ends up here.
    ///
    /// # Panics
    /// When a readback does; the engine can be used on.
    pub fn turn(&mut self, state: &mut S, timeout: Option<Duration>) -> Result<Turn, Error> {
        self.draining = false;
        self.turn_within(state, timeout, ClockAtStart::MayHaveMoved)
    }

    /// Turns until nothing is pending and no [`Submitter`](crate::Submitter) is left, or to the end of the turn in which `stop` was
    /// called.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    ///
    /// # Panics
    /// As [`turn`](Self::turn).
    pub fn run(&mut self, state: &mut S) -> Result<(), Error> {
        self.draining = false;
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

    /// Lets what is in flight and queued end, for `within` at most; nothing new starts and no chain goes on. What is delayed,
    /// calls included, is cancelled at once, and so is what readbacks submit meanwhile; what is left at the end likewise. Answers how many of
    /// the chains that were there before were cancelled. `stop` has no effect meanwhile. The engine can be used on.
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
        self.pending() > 0 || self.remote.has_orders_to_come()
    }

    /// [`Engine::drain`], however turns are made: `turn` makes one that waits at most as long as it is told.
    pub(crate) fn drain_by(
        &mut self,
        within: Duration,
        mut turn: impl FnMut(&mut Self, Option<Duration>) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        self.read_clock();
        self.quiet.forget();
        // What was submitted before is not new, however much it is.
        while self.chains.has_commands() {
            self.carried_out = 0;
            self.settle_and_park();
        }
        self.settle_and_park();
        self.draining = true;
        let end = self.now.checked_add(within);
        let mut is_over = false;
        let mut cancelled = self.cancel_where(|stage| {
            matches!(
                stage,
                Stage::Delayed | Stage::Waiting { .. } | Stage::Due { .. }
            )
        });
        while self.pending() > 0 {
            let left = end.map(|end| end.saturating_duration_since(self.net.now()));
            // Once: what is submitted from here on does not begin.
            if !is_over && left.is_some_and(|left| left.is_zero()) {
                is_over = true;
                cancelled += self.cancel_where(|_| true);
            }
            turn(self, left)?;
        }
        self.draining = false;
        Ok(cancelled)
    }

    /// Cancels chains by where they are; answers how many were not cancelled before.
    fn cancel_where(&mut self, is_meant: impl Fn(Stage) -> bool) -> usize {
        let meant: Vec<_> = self
            .chains
            .keys()
            .filter(|key| is_meant(self.chains[*key].stage))
            .collect();
        let ids = meant
            .into_iter()
            .map(|key| self.chains.id(key))
            .collect::<Vec<_>>();
        ids.into_iter().filter(|id| self.chains.cancel(*id)).count()
    }
}
