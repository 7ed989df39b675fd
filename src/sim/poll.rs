//! The polls of a simulated network: edge-triggered readiness with the semantics of epoll.
//!
//! An edge puts its socket on a list. The event carries the state of the socket when the event is
//! fetched; if the socket is ready for nothing by then, there is no event.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::Token;

use super::connection::ClientEnd;
use super::faults::Fault;
use super::server::ConnectionId;
use super::world::World;
use crate::net::{Heard, Readiness, Ready, WAKE};

/// One engine's poll.
pub(super) struct Poll {
    pub(super) signals: Arc<Signals>,
    /// Sockets with an edge that has not been fetched, ordered by their first edge.
    pub(super) edges: VecDeque<ConnectionId>,
    /// Events for tokens that are deregistered, each with the number of waits before it is
    /// reported.
    pub(super) stale: Vec<(usize, Ready)>,
    /// The time of the last wait.
    pub(super) waited_at: Duration,
}

/// Flags of a poll that its waker sets too, from outside the network.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The waker was called since the last wait that reported it.
    woken: AtomicBool,
    /// Something has reached the poll since an edge-triggered watcher last asked.
    edge: AtomicBool,
}

impl Signals {
    pub(super) fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.tell();
    }

    /// Notifies an edge-triggered watcher of the poll itself.
    pub(super) fn tell(&self) {
        self.edge.store(true, Ordering::Release);
    }
}

impl World {
    pub(super) fn new_poll(&mut self, signals: Arc<Signals>) -> usize {
        self.polls.push(Poll {
            signals,
            edges: VecDeque::new(),
            stale: Vec::new(),
            waited_at: Duration::ZERO,
        });
        self.polls.len() - 1
    }

    pub(super) fn poll_count(&self) -> usize {
        self.polls.len()
    }

    /// Returns whether a wait would report an event. Stale and spurious events do not count.
    pub(super) fn has_events(&self, poll: usize) -> bool {
        let poll = &self.polls[poll];
        poll.signals.woken.load(Ordering::Acquire)
            || poll.edges.iter().any(|id| {
                let client = self.connections.get(id).map(|c| &c.client);
                client.is_some_and(|client| client.peek_readiness() != Readiness::NONE)
            })
    }

    /// Returns whether something has reached the poll since the last call, and a wait would report
    /// an event.
    ///
    /// A poll that is looked at from outside queries its sockets, and drops those that are ready
    /// for nothing any more, as epoll does: they have to cause another edge.
    pub(super) fn take_edge(&mut self, poll: usize) -> bool {
        let Self {
            polls, connections, ..
        } = self;
        let told = polls[poll].signals.edge.swap(false, Ordering::AcqRel);
        polls[poll].edges.retain(|id| {
            let client = connections.get_mut(id).map(|it| &mut it.client);
            let Some(client) = client else {
                return false;
            };
            let is_ready = client.readiness() != Readiness::NONE;
            if !is_ready && let Some(watch) = &mut client.watch {
                watch.changed = Readiness::NONE;
            }
            is_ready
        });
        told && self.has_events(poll)
    }

    /// Appends at most `max` events, or none if a signal interrupts the wait.
    pub(super) fn wait(&mut self, poll: usize, ready: &mut Vec<Ready>, max: usize) -> Heard {
        self.system_calls += 1;
        self.polls[poll].waited_at = self.now;
        if self.strikes(Fault::Interrupted) {
            // A signal interrupts only a wait that has nothing to report. Events that are pending
            // now must therefore have arrived after it, so they are a new edge.
            self.polls[poll].signals.tell();
            return Heard::Some;
        }
        let start = ready.len();
        let max_len = start.saturating_add(max);
        if max > 0 && self.polls[poll].signals.woken.swap(false, Ordering::AcqRel) {
            let readiness = Readiness::READABLE;
            ready.push(Ready {
                token: WAKE,
                readiness,
            });
        }
        self.take_stale(poll, ready, max_len);
        let reorders = self.strikes(Fault::Reorder);
        if reorders {
            let edges = self.polls[poll].edges.make_contiguous();
            self.random.shuffle(edges);
        }
        while ready.len() < max_len
            && let Some(id) = self.polls[poll].edges.pop_front()
        {
            if let Some(event) = self.fetch(id) {
                ready.push(event);
            }
        }
        if ready.len() < max_len && self.strikes(Fault::Spurious) {
            ready.extend(self.make_up_event(poll));
        }
        if reorders {
            self.random.shuffle(&mut ready[start..]);
        }
        for event in &ready[start..] {
            self.note_bytes(&event.token.0.to_le_bytes());
        }
        self.note("wait", 0, ready.len() - start);
        if self.polls[poll].edges.is_empty() {
            Heard::All
        } else {
            Heard::Some
        }
    }

    /// Takes a socket's edge and returns what the socket is ready for now, which may be nothing if
    /// it was read in between.
    fn fetch(&mut self, id: ConnectionId) -> Option<Ready> {
        let bare = self.strikes(Fault::BareEvent);
        let client = &mut self.connections.get_mut(&id)?.client;
        let readiness = client.readiness();
        let watch = client.watch.as_mut()?;
        let changed = std::mem::replace(&mut watch.changed, Readiness::NONE);
        let token = watch.token;
        let readiness = if bare {
            readiness.without(readiness.without(changed))
        } else {
            readiness
        };
        (readiness != Readiness::NONE).then_some(Ready { token, readiness })
    }

    fn take_stale(&mut self, poll: usize, ready: &mut Vec<Ready>, max_len: usize) {
        self.polls[poll].stale.retain_mut(|(waits, event)| {
            if *waits == 0 && ready.len() < max_len {
                ready.push(*event);
                return false;
            }
            *waits = waits.saturating_sub(1);
            true
        });
    }

    fn make_up_event(&mut self, poll: usize) -> Option<Ready> {
        let tokens: Vec<Token> = self
            .connections
            .values()
            .filter(|connection| connection.client.poll == poll)
            .filter_map(|connection| Some(connection.client.watch.as_ref()?.token))
            .collect();
        if tokens.is_empty() {
            return None;
        }
        let token = *self.random.pick(&tokens);
        let readable = Readiness::READABLE;
        let writable = Readiness::WRITABLE;
        let kinds = [readable, writable, readable.with(writable)];
        let readiness = *self.random.pick(&kinds);
        Some(Ready { token, readiness })
    }

    /// Changes the client's end of a connection, and notifies its poll if the socket is registered.
    pub(super) fn change(
        &mut self,
        id: ConnectionId,
        change: impl FnOnce(&mut ClientEnd) -> Readiness,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let client = &mut connection.client;
        let changed = change(client);
        if changed == Readiness::NONE {
            return;
        }
        if let Some(watch) = &mut client.watch {
            let poll = &mut self.polls[client.poll];
            if watch.changed == Readiness::NONE {
                poll.edges.push_back(id);
            }
            watch.changed = watch.changed.with(changed);
            poll.signals.tell();
        }
    }
}
