//! What is left to do: events still to be dealt with, links to go on with, requests to be sent
//! again, readbacks to be told. A turn empties each list as far as its bounds allow.

use std::collections::VecDeque;

use mio::Token;

use crate::engine::chain::{ChainKey, Marks};
use crate::error::Error;
use crate::net::Ready;
use crate::net::slots::{LinkKey, MaybeKey};

/// Commands carried out in one turn: requests that begin, which are what a turn of ten thousand
/// submissions takes its time for where each has a name to be looked up, and all else that is asked
/// for. A host that asks for more at once has it done in several turns.
pub(super) const MAX_CARRIED_OUT: usize = 2048;

/// What is left to do, in lists. Entries may outlive what they name: tokens are checked by their
/// generation, chains by their stage.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// Events that the poll has told.
    pub(super) events: Events,
    /// Links that have more to do than their share of a turn.
    pub(super) run_queue: VecDeque<Token>,
    /// Chains to be placed anew, a stale connection or a refused `Expect` behind them.
    pub(super) restarts: VecDeque<ChainKey>,
    /// Chains whose readback, or call, is to run.
    pub(super) completions: VecDeque<(ChainKey, Completion)>,
    /// The link that the exchange just over has left, before the pool takes it.
    pub(super) resting: Option<LinkKey>,
    /// Links whose pipelines have something to write.
    pub(super) unwritten: Vec<Token>,
    /// Deadlines that have passed, of chains on links: what the kernel holds for those comes first.
    pub(super) overdue: VecDeque<Overdue>,
    /// Queues are to be looked at, but not in this turn: it has carried out enough.
    pub(super) has_unsettled: bool,
    /// Commands carried out in this turn.
    pub(super) carried_out: usize,
    /// Bytes that bodies were decoded to in this turn.
    pub(super) decoded: usize,
    /// No new chain starts and none goes on.
    pub(super) draining: bool,
}

/// Why user code is to run for a chain that is on no link.
#[derive(Debug)]
pub(super) enum Completion {
    /// Its exchange has failed, or never began: its policy hears of it, which may have it sent
    /// again, and then its readback.
    Failed(Error),
    /// It was cancelled while it waited to make this call, which is dropped first.
    Forgotten { call: MaybeKey, error: Error },
    /// The same, past its policy: its readback hears of it.
    Final(Error),
    /// Its policy has panicked: it is over.
    Over,
    /// It has waited, and its call is due.
    Due,
}

/// The events of one poll, up to `next` dealt with.
#[derive(Debug, Default)]
pub(super) struct Events {
    batch: Vec<Ready>,
    next: usize,
}

impl Events {
    /// Takes the next event. It counts as dealt with before it is, so that a panic leaves the rest
    /// of the batch to the next turn, and no more.
    #[inline]
    pub(super) fn take_next(&mut self) -> Option<Ready> {
        let event = *self.batch.get(self.next)?;
        self.next += 1;
        Some(event)
    }

    /// Those that are not dealt with yet.
    #[inline]
    pub(super) fn rest(&self) -> &[Ready] {
        &self.batch[self.next..]
    }

    #[inline]
    pub(super) fn has_rest(&self) -> bool {
        self.next < self.batch.len()
    }

    /// Room for those of the next poll.
    #[inline]
    pub(super) fn renew(&mut self) -> &mut Vec<Ready> {
        self.next = 0;
        self.batch.clear();
        &mut self.batch
    }

    pub(super) fn len(&self) -> usize {
        self.batch.len()
    }
}

/// A deadline that has passed, whose link is to be looked at before anything comes of it.
#[derive(Debug)]
pub(super) struct Overdue {
    pub(super) link: Token,
    pub(super) chain: ChainKey,
    /// Which deadline: as long as it is the chain's, nothing has come of it.
    pub(super) mark: Marks,
    /// Bytes that may still be read for its sake, and until which tick.
    pub(super) left: usize,
    pub(super) until: u64,
    /// Turns in which its host was still being looked up.
    pub(super) turns: u8,
}

impl Agenda {
    /// Whether the rest of what was asked for is left to the next turn.
    #[inline]
    pub(super) fn has_carried_out_enough(&self) -> bool {
        self.carried_out >= MAX_CARRIED_OUT
    }

    /// Whether a turn would do something.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        // Asked several times a turn, and mostly of none: one test for all.
        let queued = self.run_queue.len()
            | self.restarts.len()
            | self.completions.len()
            | self.overdue.len();
        queued != 0 || self.has_unsettled || self.events.has_rest()
    }
}
