//! One turn: commands, the poll, links, names, timers, failures; in this order, and each with a bound.

use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use log::trace;

use crate::engine::chains::Marks;
use crate::engine::mode::{Mode, Owned};
use crate::engine::submitter::Order;
use crate::engine::{Engine, Timer};
use crate::error::{Error, ErrorKind};
use crate::net::{Net, Ready, WAKE};
use crate::resolver::LookupError;

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Turn {
    /// Events that the poll told.
    pub events: usize,
    /// Requests answered, by a response or an error.
    pub answered: usize,
    /// Something is left that waits for nothing but the next turn.
    pub more: bool,
    /// A readback or a [`Submitter`](crate::Submitter) called `stop`.
    pub stopped: bool,
}

impl<S, M: Mode> Engine<S, M> {
    /// All links together read this many times what one may, before the turn ends.
    const TURN_SHARES: usize = 8;

    /// Whether a turn would do something even if nothing became readable and no time passed.
    pub(super) fn is_due(&self) -> bool {
        self.chains.has_commands()
            || self.next_event < self.batch.len()
            || !self.run_queue.is_empty()
            || !self.restarts.is_empty()
            || !self.completions.is_empty()
            || !self.orders.is_empty()
            || self.names.has_news()
    }

    /// One turn, which waits at most `timeout` and not past the next deadline.
    pub(super) fn turn_within(
        &mut self,
        state: &mut S,
        timeout: Option<Duration>,
    ) -> Result<Turn, Error> {
        self.counts.turns += 1;
        let before = self.counts.answered + self.counts.failed;
        let events = self.batch.len() - self.next_event;
        let mut turn = Turn::default();
        if events == 0 {
            self.read_clock();
            // What was submitted between turns is written before the poll, which may wait.
            self.settle_and_park();
            turn.events = self.poll(timeout)?;
        }
        self.read_clock();
        let result = self.work(state);
        turn.answered = (self.counts.answered + self.counts.failed - before) as usize;
        self.settle_and_park();
        if let Some(panic) = self.panic.take() {
            self.draining = false;
            resume_unwind(panic);
        }
        turn.more = self.is_due() || self.wheel.next_tick().is_some_and(|tick| tick <= self.now_tick());
        turn.stopped = std::mem::take(&mut self.chains.stopped);
        result.map(|()| turn)
    }
}
