//! The deadlines of whole chains, which few chains have. Each has a timer of its own, next to that
//! of its chain.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::chain::ChainKey;
use crate::sched::wheel::TimerId;

/// The deadline of a chain.
#[derive(Debug)]
pub(super) struct ChainDeadline {
    pub(super) timeout: Duration,
    /// The tick from which on it has passed. `None` until the step that sets it has started.
    pub(super) tick: Option<u64>,
    /// Armed until it goes off. The deadline stays after that, because a result that was there
    /// before is still delivered, and the step that the readback returns must not begin.
    pub(super) timer: Option<TimerId>,
}

/// The deadlines of the chains of one engine. The table is a tree, which grows without moving all
/// its entries in one turn.
#[derive(Default)]
pub(super) struct ChainDeadlines(BTreeMap<ChainKey, ChainDeadline>);

impl ChainDeadlines {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets the deadline of a chain, which replaces a former one. It has not started yet.
    pub(super) fn set(&mut self, key: ChainKey, timeout: Duration) {
        let former = self.0.get_mut(&key).and_then(|former| former.timer.take());
        let deadline = ChainDeadline {
            timeout,
            tick: None,
            timer: former,
        };
        self.0.insert(key, deadline);
    }

    pub(super) fn get(&self, key: ChainKey) -> Option<&ChainDeadline> {
        self.0.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: ChainKey) -> Option<&mut ChainDeadline> {
        self.0.get_mut(&key)
    }

    pub(super) fn remove(&mut self, key: ChainKey) -> Option<ChainDeadline> {
        self.0.remove(&key)
    }
}
