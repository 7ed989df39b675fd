//! The tunnels of links whose server has switched protocols: their sources, and their deadlines.
//!
//! A tunnel that is only written to has no deadline of its own. One with a source may wait for the
//! server to accept bytes, and at its end for the server to close the connection.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::body::Supply;
use crate::engine::chain::ChainKey;
use crate::engine::clock::Since;
use crate::engine::core::{Core, Timer};
use crate::engine::outbox::{Deadline, Until};
use crate::engine::supplies::SupplyFailure;
use crate::net::Net;
use crate::policy::Waits;
use crate::timeouts::Timeout;

/// The length of the pieces in which sources are read, in bytes.
const PIECE: usize = 32 << 10;

/// How long the server may take to close a tunnel whose source has ended.
const CLOSES_WITHIN_MILLIS: u64 = 10_000;

impl<N: Net> Core<N> {
    /// Reads a piece of a tunnel's source, if it has one with something to send and everything else
    /// is written. A piece is to be [given back](Self::give_back_piece).
    pub(super) fn pull_tunnel(&mut self, key: ChainKey) -> Result<Option<Vec<u8>>, SupplyFailure> {
        let id = self.chains.id(key);
        let Some(outbox) = self.chains.outbox(key).filter(|it| it.wants_source()) else {
            return Ok(None);
        };
        let mut piece = std::mem::take(&mut self.buffers.piece);
        if self.buffers.piece_of.replace(id) != Some(id) {
            // Bytes of another chain are cleared: a faulty source may report more than it has
            // written.
            piece.clear();
        }
        piece.resize(PIECE, 0);
        let wakeups = &self.wakeups;
        let waker = || wakeups.waker(id, Waits::InTunnel);
        let read = catch_unwind(AssertUnwindSafe(|| outbox.read(&mut piece, waker)));
        self.clock.since = Since::UserCode;
        let pulled = match read {
            Ok(Ok(Supply::Bytes(n))) => {
                piece.truncate(n);
                return Ok(Some(piece));
            }
            Ok(Ok(Supply::Wait)) => Ok(None),
            Ok(Ok(Supply::End)) => {
                self.catch_up();
                self.arm_tunnel(key, Until::Closes);
                Ok(None)
            }
            Ok(Err(error)) => Err(SupplyFailure::Error(error)),
            Err(panic) => {
                self.panic.get_or_insert(panic);
                Err(SupplyFailure::Panicked)
            }
        };
        self.buffers.piece = piece;
        pulled
    }

    /// Takes a piece back, of which the first `written` bytes have been written. The rest waits.
    pub(super) fn give_back_piece(&mut self, key: ChainKey, piece: Vec<u8>, written: usize) {
        if let Some(rest) = piece.get(written..)
            && let Some(outbox) = self.chains.outbox(key)
        {
            // It is written before anything else, in the loop that is running.
            outbox.put(rest);
            outbox.on_looked_at();
        }
        self.buffers.piece = piece;
    }

    /// Begins or ends the wait for the server to accept more bytes of a tunnel with a source.
    /// `has_accepted` is whether it has just accepted some.
    pub(super) fn on_tunnel_written(
        &mut self,
        key: ChainKey,
        is_blocked: bool,
        has_accepted: bool,
    ) {
        let Some(outbox) = self.chains.outbox(key) else {
            return;
        };
        let until = outbox.deadline.map(|deadline| deadline.until);
        match (is_blocked, until) {
            (_, Some(Until::Closes)) => {}
            (true, None) if outbox.has_source() => self.arm_tunnel(key, Until::Accepts),
            (true, Some(Until::Accepts)) if has_accepted => self.arm_tunnel(key, Until::Accepts),
            (false, Some(Until::Accepts)) => self.disarm_tunnel(key),
            (true, Some(Until::Accepts)) | (_, None) => {}
        }
    }

    pub(super) fn arm_tunnel(&mut self, key: ChainKey, until: Until) {
        let millis = match until {
            Until::Accepts => {
                let timeouts = self.chains[key].request().timeouts();
                let write = timeouts.get(Timeout::Write, &self.settings.timeouts);
                match write {
                    Some(millis) => u64::from(millis),
                    None => return self.disarm_tunnel(key),
                }
            }
            Until::Closes => CLOSES_WITHIN_MILLIS,
        };
        self.set_tunnel_timer(key, until, millis, false);
    }

    /// Sets the timer of a tunnel.
    fn set_tunnel_timer(&mut self, key: ChainKey, until: Until, millis: u64, has_passed: bool) {
        self.disarm_tunnel(key);
        let tick = self.clock.tick_from_now() + millis;
        let timer = self.timers.arm(tick, Timer::Tunnel(key));
        if let Some(outbox) = self.chains.outbox(key) {
            outbox.deadline = Some(Deadline {
                until,
                timer,
                has_passed,
            });
        }
    }

    /// Gives a tunnel whose deadline has passed another turn, which looks at what has arrived.
    pub(super) fn put_off_tunnel(&mut self, key: ChainKey, until: Until) {
        self.set_tunnel_timer(key, until, 1, true);
    }

    fn disarm_tunnel(&mut self, key: ChainKey) {
        if let Some(outbox) = self.chains.outbox(key)
            && let Some(deadline) = outbox.deadline.take()
        {
            self.timers.cancel(deadline.timer);
        }
    }

    /// Formats what the server has not done in time.
    pub(super) fn tunnel_text(&self, key: ChainKey, until: Until) -> String {
        match until {
            Until::Accepts => {
                let timeout = self.timeout_text(key, Timeout::Write);
                format!("{timeout}: the tunnel's server accepts no bytes")
            }
            Until::Closes => {
                let time = Duration::from_millis(CLOSES_WITHIN_MILLIS);
                format!("the server has not closed the tunnel within {time:?} of its end")
            }
        }
    }

    /// Ends a chain's tunnel, if it has one, or its outbound direction.
    pub(super) fn end_tunnel(&mut self, key: ChainKey) {
        self.disarm_tunnel(key);
        let outbox = self.chains.close_tunnel(key);
        // The source is user code.
        self.discard(outbox);
    }
}
