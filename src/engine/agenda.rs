//! Work that is left to do: events to be dealt with, links to go on with, requests to be sent
//! again, readbacks to be told. A turn empties each list as far as its bounds allow.

use std::collections::VecDeque;

use mio::Token;

use crate::engine::chain::{ChainKey, Marks};
use crate::error::Error;
use crate::net::Ready;
use crate::net::slots::{LinkKey, MaybeKey};

/// Commands carried out in one turn, submissions and everything else. What a host asks for beyond
/// that is spread over several turns. Starting requests is the costly part: a turn with ten
/// thousand submissions spends its time there if each of them needs a lookup.
pub(super) const MAX_CARRIED_OUT: usize = 2048;

/// Lists of work that is left to do. Entries may outlive what they refer to, so tokens are checked
/// by their generation and chains by their stage.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// Events returned by the poll.
    pub(super) events: Events,
    /// Links that have more to do than their share of a turn covers.
    pub(super) run_queue: VecDeque<Token>,
    /// Chains to be placed again, after a stale connection or a refused `Expect`.
    pub(super) restarts: VecDeque<ChainKey>,
    /// Chains whose readback or call is to run.
    pub(super) completions: VecDeque<(ChainKey, Completion)>,
    /// The link that the last exchange left, before the chain's next step or the pool takes it.
    pub(super) resting: Option<LinkKey>,
    /// Links with pipelined requests to be written.
    pub(super) unwritten: Vec<Token>,
    /// Expired deadlines of chains on links. Bytes that the kernel holds for those links come
    /// first.
    pub(super) overdue: VecDeque<Overdue>,
    /// Queues are to be served, but in a later turn: this one has carried out enough.
    pub(super) has_unsettled: bool,
    /// Commands carried out in this turn.
    pub(super) carried_out: usize,
    /// Bytes that bodies were decoded to in this turn.
    pub(super) decoded: usize,
    /// No new chain starts, and no chain goes on to another step.
    pub(super) draining: bool,
}

/// Why user code is to run for a chain that is on no link.
#[derive(Debug)]
pub(super) enum Completion {
    /// Its exchange failed or never began. The policy is asked first and may have it sent again;
    /// otherwise the readback is told.
    Failed(Error),
    /// It was canceled while it waited to make this call, which is dropped first.
    Forgotten { call: MaybeKey, error: Error },
    /// Its exchange failed, and only the readback is told. The policy has been asked or is not to
    /// be.
    Final(Error),
    /// Its policy panicked, so it ends without another call of the readback.
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
    /// Takes the next event. It counts as dealt with from now on, so that a panic leaves the rest
    /// of the batch to the next turn without repeating this event.
    #[inline]
    pub(super) fn take_next(&mut self) -> Option<Ready> {
        let event = *self.batch.get(self.next)?;
        self.next += 1;
        Some(event)
    }

    /// Returns the events that are not dealt with yet.
    #[inline]
    pub(super) fn rest(&self) -> &[Ready] {
        &self.batch[self.next..]
    }

    #[inline]
    pub(super) fn has_rest(&self) -> bool {
        self.next < self.batch.len()
    }

    /// Returns the buffer for the events of the next poll.
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

/// An expired deadline whose link is looked at before the deadline takes effect.
#[derive(Debug)]
pub(super) struct Overdue {
    pub(super) link: Token,
    pub(super) chain: ChainKey,
    /// Which deadline it is. Once the chain has lost this mark, the deadline is void.
    pub(super) mark: Marks,
    /// Bytes that may still be read before the deadline takes effect, and the tick until which they
    /// may.
    pub(super) left: usize,
    pub(super) until: u64,
    /// Turns during which the host was still being looked up.
    pub(super) turns: u8,
}

impl Agenda {
    /// Whether this turn has carried out enough, and leaves the rest to the next.
    #[inline]
    pub(super) fn has_carried_out_enough(&self) -> bool {
        self.carried_out >= MAX_CARRIED_OUT
    }

    /// Whether there is work for a turn.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        // Called several times a turn, and mostly nothing is queued: so one test covers all.
        let queued = self.run_queue.len()
            | self.restarts.len()
            | self.completions.len()
            | self.overdue.len();
        queued != 0 || self.has_unsettled || self.events.has_rest()
    }
}
