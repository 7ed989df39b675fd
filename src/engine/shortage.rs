//! Handles a connect for which this machine, or a listener, lacks a resource: the link is closed,
//! and its request waits at the head of its queue.

use std::io;

use crate::engine::alerts::alert;
use crate::engine::chain::{ChainKey, Marks};
use crate::engine::core::{Core, Exhaustion, Timer};
use crate::net::Net;
use crate::net::pool::TurnedAway;
use crate::net::slots::LinkKey;

/// The interval at which connects that lacked a resource are retried, in milliseconds.
const RETRY_MILLIS: u64 = 100;

impl<N: Net> Core<N> {
    /// Makes a request wait for a local port, because none is left for connections to this address.
    /// Other origins are not affected.
    ///
    /// The request waits until a link of its origin becomes free or ends, or for [`RETRY_MILLIS`].
    pub(super) fn wait_for_port(&mut self, key: LinkKey, why: &io::Error) {
        let Some(chain_key) = self.links[key].chain() else {
            return self.give_up_ahead(key, why);
        };
        let origin = self.links[key].origin;
        alert!(
            self,
            Exhaustion,
            "{}: requests wait for a connection ({why})",
            self.pool[origin].origin
        );
        self.close_and_wait(key, chain_key);
        let due = self.clock.tick() + RETRY_MILLIS;
        let retry = self.timers.arm(due, Timer::TurnedAway(origin));
        let why = why.to_string();
        self.forget_turned_away(origin);
        self.pool[origin].turned_away = Some(TurnedAway { why, retry });
    }

    /// Makes a request wait because this machine ran out of descriptors or memory. It waits until
    /// one of the engine's links closes, or for [`RETRY_MILLIS`].
    pub(super) fn wait_for_room(&mut self, key: LinkKey, why: String) {
        let Some(chain_key) = self.links[key].chain() else {
            return self.give_up_ahead(key, &why);
        };
        let origin = self.links[key].origin;
        alert!(
            self,
            Exhaustion,
            "{}: requests wait for room on this machine ({why})",
            self.pool[origin].origin
        );
        self.close_and_wait(key, chain_key);
        if self.exhausted.is_none() {
            let due = self.clock.tick() + RETRY_MILLIS;
            let retry = self.timers.arm(due, Timer::Exhausted);
            self.exhausted = Some(Exhaustion { why, retry });
        }
        self.pool.wait_for_room(origin);
    }

    /// Closes a link that was never connected, and puts its request back at the head of the queue.
    fn close_and_wait(&mut self, key: LinkKey, chain_key: ChainKey) {
        let origin = self.links[key].origin;
        self.close(key);
        // This attempt is undone, and it was counted when the request was loaded.
        self.chains[chain_key].attempts -= 1;
        self.enqueue_first(origin, chain_key);
        self.chains[chain_key].marks.set(Marks::EXHAUSTED);
        self.arm(chain_key, None);
    }
}

/// Returns whether all local ports are taken for connections to one address. A connection is
/// identified by both of its ends, so other addresses are not affected.
pub(super) fn is_port_exhaustion(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
}
