//! Looks whether nothing stands unread on a kept connection before it is given a request, by what
//! is known of it ([`Quiet`]) or by reading from it.

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
    /// Whether a link that was idle, and is out of the pool, may be given a request. It is closed
    /// if not.
    pub(super) fn is_idle_fit(&mut self, link: LinkKey) -> bool {
        // In this turn the time may have been read before any amount of work.
        self.read_clock();
        let rest = self.agenda.events.rest();
        let quiet_at = self.quiet.idle_at(link, self.links.token(link), rest);
        let is_quiet = self.is_quiet(link, quiet_at);
        if !is_quiet {
            self.close(link);
        }
        is_quiet
    }

    /// Whether a link that rests, its response just read, may be given a request. It is closed if
    /// not.
    #[inline(always)]
    pub(super) fn is_fit(&mut self, link: LinkKey) -> bool {
        let is_quiet = self.is_still_quiet(link);
        if !is_quiet {
            self.close(link);
        }
        is_quiet
    }

    /// Whether nothing stands unread on a link that has been read in this turn and not written to
    /// since.
    #[inline(always)]
    pub(super) fn is_still_quiet(&mut self, link: LinkKey) -> bool {
        // A chain that goes on at once comes here with each request: the clock has been read behind
        // its readback.
        let is_fresh = self.clock.since != Since::UserCode
            && matches!(self.quiet.drained, Some((drained, at))
                if drained == link && self.clock.micros() <= at + LASTING);
        let kept = &self.links[link];
        // Of a record that is on its way nobody knows yet what is in it.
        let is_between = !kept.tls_state().is_some_and(TlsState::is_inside_record);
        if is_fresh && is_between && !kept.readiness.has_any(Readiness::READ_SIDE) {
            return true;
        }
        self.is_quiet(link, self.quiet.drained_at(link))
    }

    /// Whether nothing stands unread on a link that was quiet then. It is read from, where that is
    /// not known any more.
    #[cold]
    #[inline(never)]
    fn is_quiet(&mut self, link: LinkKey, quiet_at: Option<u64>) -> bool {
        self.catch_up();
        let is_known = quiet_at.is_some_and(|at| self.clock.micros() <= at + LASTING)
            && !self.links[link].readiness.has_any(Readiness::READ_SIDE);
        let is_open = is_known || {
            let probe = self.probe(link);
            self.tell_of(link, probe);
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

    /// Logs what reading a link without an exchange has shown.
    pub(super) fn tell_of(&mut self, link: LinkKey, probe: Probe) {
        match probe {
            Probe::Open => {}
            Probe::Ended => {
                let (token, origin) = (self.links.token(link), self.origin_of(link));
                debug!("{token:?} {origin}: closed by the peer while idle");
            }
            Probe::Spoke { bytes } => self.warn_of_unsolicited(link, bytes),
        }
    }

    /// Logs that bytes have come which answer no request.
    #[cold]
    #[inline(never)]
    pub(super) fn warn_of_unsolicited(&mut self, link: LinkKey, bytes: usize) {
        let unsolicited = Violation::Unsolicited { bytes };
        alert!(self, Unsolicited, "{}: {unsolicited}", self.origin_of(link));
    }

    /// An idle link is readable: the peer closed it, or spoke out of turn. Either way it is of no
    /// more use.
    pub(super) fn check_idle(&mut self, key: LinkKey) {
        if !self.links[key].readiness.has_any(Readiness::READ_SIDE) {
            return;
        }
        let probe = self.probe(key);
        self.tell_of(key, probe);
        match probe {
            Probe::Open => {}
            Probe::Ended | Probe::Spoke { .. } => self.close_idle_link(key),
        }
    }

    /// Reads where nothing should be, to learn whether the connection is still there.
    pub(super) fn probe(&mut self, key: LinkKey) -> Probe {
        if self.links[key].tls_state().is_some() {
            // In a readback's wake the bytes that its response lies in are in the first buffer.
            let first_is_taken = self.buffers.read.is_empty();
            let mut buffer = std::mem::take(if first_is_taken {
                &mut self.buffers.second
            } else {
                &mut self.buffers.read
            });
            buffer.resize(self.settings.read_buffer, 0);
            let probe = self.probe_tls(key, &mut buffer);
            // Back to where it came from: while it is out, both may be empty.
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

    /// As [`probe`](Self::probe), where the server may have something to say to the TLS state:
    /// tickets for later ones, new keys.
    pub(super) fn probe_tls(&mut self, key: LinkKey, buffer: &mut [u8]) -> Probe {
        let link = &mut self.links[key];
        let Some((socket, Some(tls))) = link.reach.wire() else {
            return Probe::Ended;
        };
        // What was read may have had an end that only shows now.
        if tls.is_finished() || tls.failure().is_some() {
            return Probe::Ended;
        }
        for _ in 0..MAX_PROBE_READS {
            let kept = tls.restore(buffer);
            match self.net.recv(socket, &mut buffer[kept..]) {
                Ok(0) => return Probe::Ended,
                // So much is said by nobody who means well, and would be read for as long as it is
                // said.
                Ok(n) if kept + n > MAX_UNASKED_BYTES => return Probe::Ended,
                Ok(n) => {
                    self.counts.bytes_in += n as u64;
                    self.buffers.plaintext.clear();
                    let mut left = usize::MAX;
                    let received =
                        tls.receive(buffer, kept + n, &mut self.buffers.plaintext, &mut left);
                    self.quiet.cost += n + (usize::MAX - left);
                    let bytes = self.buffers.plaintext.len();
                    // Nobody asked for it, and it must not stand before what somebody did.
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

/// Reads that an idle link may ask for before it is given up. A server that means well sends a few
/// tickets, and then no more.
const MAX_PROBE_READS: usize = 16;

/// What an idle TLS state may say: some tickets, and changes of keys. Each costs microseconds, and
/// whoever sends more would keep on.
pub(super) const MAX_UNASKED: usize = 32;

/// And how much at a time, so that not many of them are in one record.
pub(super) const MAX_UNASKED_BYTES: usize = 16 << 10;

/// What reading a link without an exchange has shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Probe {
    Open,
    Ended,
    /// It sent at least so many bytes that nobody asked for.
    Spoke {
        bytes: usize,
    },
}
