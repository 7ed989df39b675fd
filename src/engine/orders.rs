//! The engine's side of its inbox: what other threads, and tasks, have asked for.

use std::sync::Arc;

use crate::engine::commands::MAX_CARRIED_OUT;
use crate::engine::submitter::{Inside, Order, Remote, Submitter};
use crate::resolver::Wake;

/// Orders taken in one turn; the rest stays where it is, and the next turn is due at once. No more
/// than commands are carried out, so that the inbox fills up when the engine does not keep up,
/// rather than the engine.
const MAX_ORDERS: usize = MAX_CARRIED_OUT;

/// What an engine shares with its submitters.
pub(super) struct Orders<S> {
    remote: Arc<Remote<S>>,
    /// Empty between turns, its room kept.
    scratch: Vec<Order<S>>,
    /// Orders taken in this turn.
    taken: usize,
}

impl<S> Orders<S> {
    pub(super) fn new(wake: Wake, max_inbox: usize) -> Self {
        Self {
            remote: Arc::new(Remote::new(wake, max_inbox)),
            scratch: Vec::new(),
            taken: 0,
        }
    }

    pub(super) fn remote(&self) -> Arc<Remote<S>> {
        Arc::clone(&self.remote)
    }

    pub(super) fn submitter(&self) -> Submitter<S> {
        self.remote.submitter()
    }

    /// A turn begins on this thread, and lasts as long as what is returned.
    pub(super) fn on_turn(&mut self) -> Inside {
        self.taken = 0;
        self.remote.enter()
    }

    /// Whether there are orders that nobody is woken for: given inside a turn, or left by one that
    /// had taken enough.
    pub(super) fn has_unannounced(&self) -> bool {
        self.remote.has_unannounced()
    }

    /// Whether orders may still come, or have come and are not taken.
    pub(super) fn has_some_to_come(&self) -> bool {
        self.remote.has_orders_to_come()
    }

    /// Those that may be taken now, in a vector that is to be given back.
    pub(super) fn take(&mut self) -> Vec<Order<S>> {
        let mut orders = std::mem::take(&mut self.scratch);
        let most = MAX_ORDERS - self.taken;
        if most > 0 {
            self.remote.take(&mut orders, most);
            self.taken += orders.len();
        }
        orders
    }

    pub(super) fn give_back(&mut self, empty: Vec<Order<S>>) {
        self.scratch = empty;
    }

    /// The engine ends: what it has not taken is dropped unread.
    pub(super) fn close(&self) {
        self.remote.close();
    }
}
