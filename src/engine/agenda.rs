//! Work lists of an engine: events to process, links to continue, requests to resend and readbacks
//! to call. Each turn works through every list within the turn's bounds.

use std::collections::VecDeque;

use mio::Token;

use crate::engine::chain::{ChainKey, Marks};
use crate::error::Error;
use crate::net::Ready;
use crate::net::slots::{LinkKey, MaybeKey};

/// The number of commands, submissions included, that are carried out in one turn. Further commands
/// are left to the next turns. Starting requests is the costly part: a turn with ten thousand
/// submissions spends its time there if each of them needs a lookup.
pub(super) const MAX_CARRIED_OUT: usize = 2048;

/// The work lists of an engine. An entry may outlive what it refers to, so tokens are checked by
/// their generation and chains by their stage.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// Events returned by the poll.
    pub(super) events: Events,
    /// Links that have more work than their share of a turn covers.
    pub(super) run_queue: VecDeque<Token>,
    /// Chains whose request is to be placed again, after a stale connection or a refused `Expect`.
    pub(super) restarts: VecDeque<ChainKey>,
    /// Chains whose readback or call is to run.
    pub(super) completions: VecDeque<(ChainKey, Completion)>,
    /// The link of the last exchange, until the chain's next step or the pool takes it.
    pub(super) resting: Option<LinkKey>,
    /// Links with pipelined requests that are not written yet, and links that were opened ahead and
    /// are not in the pool yet.
    pub(super) unwritten: Vec<Token>,
    /// Expired deadlines of chains on links. They take effect only after the bytes that the kernel
    /// holds for those links have been read.
    pub(super) overdue: VecDeque<Overdue>,
    /// This turn has carried out its share, so the remaining queues are served in the next turn.
    pub(super) has_unsettled: bool,
    /// Commands carried out in this turn.
    pub(super) carried_out: usize,
    /// Bytes of decoded bodies that this turn has produced.
    pub(super) decoded: usize,
    /// The engine is draining: no new chain starts, and no chain continues with another step.
    pub(super) draining: bool,
}

/// Why user code has to run for a chain that is on no link.
#[derive(Debug)]
pub(super) enum Completion {
    /// The exchange failed or never began. The policy is called first and may have the request sent
    /// again; otherwise the readback is called.
    Failed(Error),
    /// The chain was canceled while it waited to run this call. The call is dropped first.
    Forgotten { call: MaybeKey, error: Error },
    /// The exchange failed, and only the readback is called: the policy has been called already, or
    /// must not be.
    Final(Error),
    /// The policy panicked, so the chain ends without another call of its readback.
    Over,
    /// The wait has ended, and the chain's call is due.
    Due,
}

/// The events of one poll. Those before `next` have been processed.
#[derive(Debug, Default)]
pub(super) struct Events {
    batch: Vec<Ready>,
    next: usize,
}

impl Events {
    /// Takes the next event. The event counts as processed from now on: after a panic, the next
    /// turn continues with the rest of the batch and does not repeat this event.
    #[inline]
    pub(super) fn take_next(&mut self) -> Option<Ready> {
        let event = *self.batch.get(self.next)?;
        self.next += 1;
        Some(event)
    }

    /// Returns the events that are not processed yet.
    #[inline]
    pub(super) fn rest(&self) -> &[Ready] {
        &self.batch[self.next..]
    }

    #[inline]
    pub(super) fn has_rest(&self) -> bool {
        self.next < self.batch.len()
    }

    /// Clears the buffer and returns it for the events of the next poll.
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

/// An expired deadline whose link is checked before the deadline takes effect.
#[derive(Debug)]
pub(super) struct Overdue {
    pub(super) link: Token,
    pub(super) chain: ChainKey,
    /// The kind of deadline. If the chain no longer has this mark, the deadline is void.
    pub(super) mark: Marks,
    /// The number of bytes that may still be read before the deadline takes effect, and the tick
    /// until which they may be read.
    pub(super) left: usize,
    pub(super) until: u64,
    /// The number of turns in which the host lookup was still under way.
    pub(super) turns: u8,
}

impl Agenda {
    /// Returns whether this turn has carried out its share of commands.
    #[inline]
    pub(super) fn has_carried_out_enough(&self) -> bool {
        self.carried_out >= MAX_CARRIED_OUT
    }

    /// Returns whether there is work for a turn.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        // This is called several times per turn, mostly with empty lists, so one test covers them
        // all.
        let queued = self.run_queue.len()
            | self.restarts.len()
            | self.completions.len()
            | self.overdue.len();
        queued != 0 || self.has_unsettled || self.events.has_rest()
    }
}
