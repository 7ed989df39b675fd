//! The engine's side of its inbox: orders from other threads and from tasks.

use std::rc::Rc;
use std::sync::Arc;

use crate::engine::agenda::MAX_CARRIED_OUT;
use crate::engine::local::{Asked, Queue};
use crate::engine::submitter::{Order, Remote, Submitter};
use crate::engine::waking::{Inside, Waking};
use crate::policy::{Wakeups, Woken};

/// The number of orders taken in one turn. The rest stay in the inbox, and the next turn is due at
/// once. The number is no higher than that of the commands carried out, so if the engine cannot
/// keep up, the inbox fills up and not the engine itself.
const MAX_ORDERS: usize = MAX_CARRIED_OUT;

/// The parts that an engine shares with its submitters.
pub(super) struct Orders<S> {
    waking: Arc<Waking>,
    remote: Arc<Remote<S>>,
    local: Rc<Queue<S>>,
    /// Empty between turns, and kept for its capacity.
    scratch: Vec<Order<S>>,
    woken: Vec<Woken>,
    /// The number of orders taken in this turn.
    taken: usize,
}

impl<S> Orders<S> {
    pub(super) fn new(waking: Arc<Waking>, max_inbox: usize, has_policy: bool) -> Self {
        let remote = Remote::new(Arc::clone(&waking), max_inbox, has_policy);
        let remote = Arc::new(remote);
        Self {
            local: Rc::new(Queue::new(Arc::clone(&remote), Arc::clone(&waking))),
            remote,
            waking,
            scratch: Vec::new(),
            woken: Vec::new(),
            taken: 0,
        }
    }

    pub(super) fn remote(&self) -> Arc<Remote<S>> {
        Arc::clone(&self.remote)
    }

    pub(super) fn local(&self) -> &Rc<Queue<S>> {
        &self.local
    }

    pub(super) fn submitter(&self) -> Submitter<S> {
        self.remote.submitter()
    }

    pub(super) fn waking(&self) -> &Arc<Waking> {
        &self.waking
    }

    /// Enters a turn on this thread. The turn lasts as long as the returned guard.
    pub(super) fn on_turn(&mut self) -> Inside {
        self.taken = 0;
        self.waking.enter()
    }

    /// Returns whether orders, woken chains or ended generations remain for which no wakeup was
    /// sent, because they came from inside a turn or were more than one turn takes.
    #[inline]
    pub(super) fn has_unannounced(&self) -> bool {
        self.waking.has_unannounced()
    }

    /// Records that the current turn leaves work for the next.
    pub(super) fn note_unannounced(&self) {
        self.waking.set_unannounced(true);
    }

    /// Returns whether orders are waiting or may still arrive.
    pub(super) fn has_some_to_come(&self) -> bool {
        self.remote.has_orders_to_come() || self.local.has_some()
    }

    /// Takes the chains that tasks and readbacks of this thread have started. This precedes taking
    /// the inbox, which holds the cancellations.
    pub(super) fn take_local(&mut self) -> Vec<Asked<S>> {
        self.local.take()
    }

    /// Takes the ids of woken chains, as many as may be taken now.
    pub(super) fn take_woken(&mut self, wakeups: &Wakeups) -> Vec<Woken> {
        let mut woken = std::mem::take(&mut self.woken);
        wakeups.take(&mut woken, MAX_ORDERS - self.taken);
        self.taken += woken.len();
        woken
    }

    pub(super) fn give_back_woken(&mut self, empty: Vec<Woken>) {
        self.woken = empty;
    }

    /// Takes the orders that may be taken now, in a vector that the caller returns.
    pub(super) fn take(&mut self) -> Vec<Order<S>> {
        let mut orders = std::mem::take(&mut self.scratch);
        self.remote.take(&mut orders, MAX_ORDERS - self.taken);
        if self.local.has_some() {
            self.note_unannounced();
        }
        self.taken += orders.len();
        orders
    }

    pub(super) fn give_back(&mut self, empty: Vec<Order<S>>) {
        self.scratch = empty;
    }

    /// Closes both queues when the engine ends. Orders that were not taken are dropped.
    pub(super) fn close(&self) {
        self.remote.close();
        self.local.close();
    }
}
