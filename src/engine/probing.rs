//! Checks that a kept connection has no unread data before a request is sent on it: by what is
//! already known ([`Quiet`](crate::engine::quiet::Quiet)), or by reading from it.
//!
//! Without this check, bytes that the server sent while no request was outstanding would be taken
//! for the response to the next request. The simulation found just that: answers to other requests.

use std::io;

use log::debug;

use crate::engine::alerts::alert;
use crate::engine::clock::Since;
use crate::engine::core::Core;
use crate::engine::quiet::LASTING;
use crate::net::slots::LinkKey;
use crate::net::tls::TlsState;
use crate::net::{Net, Readiness};
use crate::proto::Violation;

impl<N: Net> Core<N> {
    /// Returns whether an idle link, just taken out of the pool, may carry a request. Closes it if
    /// not.
    pub(super) fn is_idle_fit(&mut self, link: LinkKey) -> bool {
        // The clock may have been read long before this check.
        self.read_clock();
        let rest = self.agenda.events.rest();
        let quiet_at = self.quiet.idle_at(link, self.links.token(link), rest);
        let is_quiet = self.is_quiet(link, quiet_at);
        if !is_quiet {
            self.close(link);
        }
        is_quiet
    }

    /// Returns whether a resting link, whose response was just read, may carry a request. Closes it
    /// if not.
    #[inline(always)]
    pub(super) fn is_fit(&mut self, link: LinkKey) -> bool {
        let is_quiet = self.is_still_quiet(link);
        if !is_quiet {
            self.close(link);
        }
        is_quiet
    }

    /// Returns whether a link that was read in this turn, and not written to since, has no unread
    /// data.
    #[inline(always)]
    pub(super) fn is_still_quiet(&mut self, link: LinkKey) -> bool {
        // A chain that continues at once takes this path for each request, so it has to be cheap.
        // The clock has been read after the chain's readback.
        let is_fresh = self.clock.since != Since::UserCode
            && matches!(self.quiet.drained, Some((drained, at))
                if drained == link && self.clock.micros() <= at + LASTING);
        let kept = &self.links[link];
        // A TLS record that has arrived in part may contain anything.
        let is_between = !kept.tls_state().is_some_and(TlsState::is_inside_record);
        if is_fresh && is_between && !kept.readiness.has_any(Readiness::READ_SIDE) {
            return true;
        }
        self.is_quiet(link, self.quiet.drained_at(link))
    }

    /// Returns whether a link that was quiet at `quiet_at` has no unread data. Reads from it if
    /// that was too long ago to rely on.
    #[cold]
    #[inline(never)]
    fn is_quiet(&mut self, link: LinkKey, quiet_at: Option<u64>) -> bool {
        self.catch_up();
        let is_known = quiet_at.is_some_and(|at| self.clock.micros() <= at + LASTING)
            && !self.links[link].readiness.has_any(Readiness::READ_SIDE);
        let is_open = is_known || {
            let probe = self.probe(link);
            self.log_probe(link, probe);
            matches!(probe, Probe::Open)
        };
        let tls = self.links[link].tls_state();
        let is_quiet = is_open && !tls.is_some_and(TlsState::is_inside_record);
        if is_quiet {
            let at = quiet_at.filter(|_| is_known).unwrap_or(self.clock.micros());
            self.quiet.on_drained(link, at);
        }
        is_quiet
    }

    /// Logs the result of reading a link without an exchange.
    pub(super) fn log_probe(&mut self, link: LinkKey, probe: Probe) {
        match probe {
            Probe::Open => {}
            Probe::Ended => {
                let (token, origin) = (self.links.token(link), self.origin_of(link));
                debug!("{token:?} {origin}: closed by the peer while idle");
            }
            Probe::Spoke { bytes } => self.warn_of_unsolicited(link, bytes),
        }
    }

    /// Warns of bytes that answer no request.
    #[cold]
    #[inline(never)]
    pub(super) fn warn_of_unsolicited(&mut self, link: LinkKey, bytes: usize) {
        let unsolicited = Violation::Unsolicited { bytes };
        alert!(self, Unsolicited, "{}: {unsolicited}", self.origin_of(link));
    }

    /// Handles readiness of an idle link: the peer closed it, or sent unsolicited bytes. Either way
    /// it is unusable, except for messages between the TLS states.
    pub(super) fn check_idle(&mut self, key: LinkKey) {
        if !self.links[key].readiness.has_any(Readiness::READ_SIDE) {
            return;
        }
        let probe = self.probe(key);
        self.log_probe(key, probe);
        match probe {
            Probe::Open => {}
            Probe::Ended | Probe::Spoke { .. } => self.close_idle_link(key),
        }
    }

    /// Reads where no data should be, to check whether the connection is still usable.
    pub(super) fn probe(&mut self, key: LinkKey) -> Probe {
        if self.links[key].tls_state().is_some() {
            // The shared buffer may hold the response that the running readback reads. In that case
            // the second buffer is used.
            let first_is_taken = self.buffers.read.is_empty();
            let mut buffer = std::mem::take(if first_is_taken {
                &mut self.buffers.second
            } else {
                &mut self.buffers.read
            });
            buffer.resize(self.settings.read_buffer, 0);
            let probe = self.probe_tls(key, &mut buffer);
            // Tested by the flag and not by which buffer is empty: while this one is out, both may
            // be, and the shared one would never come back.
            if first_is_taken {
                self.buffers.second = buffer
            } else {
                self.buffers.read = buffer
            }
            return probe;
        }
        let link = &mut self.links[key];
        let Some(socket) = link.socket() else {
            return Probe::Ended;
        };
        loop {
            match self.net.recv(socket, &mut [0; 16]) {
                Ok(0) => return Probe::Ended,
                Ok(bytes) => return Probe::Spoke { bytes },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    link.readiness = link.readiness.without(Readiness::READ_SIDE);
                    return Probe::Open;
                }
                Err(_) => return Probe::Ended,
            }
        }
    }

    /// Does what [`probe`](Self::probe) does, for a TLS link. The server may send messages for the
    /// TLS state: session tickets and key updates.
    pub(super) fn probe_tls(&mut self, key: LinkKey, buffer: &mut [u8]) -> Probe {
        let link = &mut self.links[key];
        let Some((socket, Some(tls))) = link.reach.wire() else {
            return Probe::Ended;
        };
        // Bytes read earlier may have contained an end that takes effect only now.
        if tls.is_finished() || tls.failure().is_some() {
            return Probe::Ended;
        }
        for _ in 0..MAX_PROBE_READS {
            let kept = tls.restore(buffer);
            match self.net.recv(socket, &mut buffer[kept..]) {
                Ok(0) => return Probe::Ended,
                // No well-behaved server sends this much on an idle connection. A server that does
                // could keep the engine reading indefinitely.
                Ok(n) if kept + n > MAX_UNASKED_BYTES => return Probe::Ended,
                Ok(n) => {
                    self.counts.bytes_in += n as u64;
                    self.buffers.plaintext.clear();
                    let mut left = usize::MAX;
                    let received =
                        tls.receive(buffer, kept + n, &mut self.buffers.plaintext, &mut left);
                    self.quiet.cost += n + (usize::MAX - left);
                    let bytes = self.buffers.plaintext.len();
                    // If these bytes stayed in the buffer, they would precede the next response of
                    // another connection.
                    self.buffers.plaintext.clear();
                    match received {
                        _ if bytes > 0 => return Probe::Spoke { bytes },
                        Err(_) => return Probe::Ended,
                        Ok(()) if tls.is_finished() => return Probe::Ended,
                        Ok(()) if tls.unasked() > MAX_UNASKED => return Probe::Ended,
                        Ok(()) => {}
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    link.readiness = link.readiness.without(Readiness::READ_SIDE);
                    return Probe::Open;
                }
                Err(_) => return Probe::Ended,
            }
        }
        Probe::Ended
    }
}

/// The number of reads from an idle link before it is closed. A well-behaved server sends a few
/// tickets and then stops.
const MAX_PROBE_READS: usize = 16;

/// The maximum number of TLS messages on an idle connection, enough for some tickets and key
/// updates. Each costs microseconds, and a server that exceeds this is unlikely to stop.
pub(super) const MAX_UNASKED: usize = 32;

/// The maximum number of bytes in one such read, so that one read cannot hold a flood of messages.
pub(super) const MAX_UNASKED_BYTES: usize = 16 << 10;

/// The result of reading a link that has no exchange.
#[derive(Clone, Copy, Debug)]
pub(super) enum Probe {
    Open,
    Ended,
    /// At least this many bytes arrived that answer no request.
    Spoke {
        bytes: usize,
    },
}
