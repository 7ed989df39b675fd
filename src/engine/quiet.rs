//! Whether a kept connection is quiet: that nothing stands unread on it when it is given a request.
//!
//! Bytes that come while no request is outstanding answer none, and a connection that the peer has
//! closed is not to be used (RFC 9112 §9.2, §9.3.1). Both may have happened since the engine last
//! looked: while the host was busy elsewhere, while a readback worked, or a moment ago, with the
//! event still to be dealt with. So a connection is given out only if it is known to have been
//! quiet within [`LASTING`], and is read from otherwise.
//!
//! That read costs a system call. A chain that goes on at once does not pay for it: its connection
//! was found empty by the read that brought its response. Nor does a request that begins after a
//! poll which had nothing to tell of an idle connection.

use std::io;

use log::debug;
use mio::Token;

use crate::engine::alerts::alert;
use crate::engine::clock::Since;
use crate::engine::core::Core;
use crate::net::slots::LinkKey;
use crate::net::tls::Session;
use crate::net::{Heard, Net, Readiness, Ready};
use crate::proto::Violation;

/// How long a connection is believed to be as it was found, in microseconds.
const LASTING: u64 = 1000;

/// Events still to be dealt with that are looked through for one of an idle connection; with more,
/// the connection is read from.
const LOOKED_THROUGH: usize = 256;

/// Connections parked in this turn that are remembered to have been quiet. What is parked last is
/// taken first.
const REMEMBERED: usize = 8;

/// When connections were found quiet in this turn. Times are microseconds of the engine's life.
/// Between turns nothing is known.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// When the poll told all it had to tell.
    heard_at: Option<u64>,
    /// The connection that was found empty last, by a read.
    drained: Option<(LinkKey, u64)>,
    /// Those that came to the pool in this turn.
    parked: Vec<(LinkKey, u64)>,
    /// What probes of sessions have cost, in bytes, since a turn's budget was last charged with it.
    pub(super) cost: usize,
}

impl Quiet {
    /// What was known holds no longer: time has gone by that the engine did not see.
    pub(super) fn forget(&mut self) {
        self.heard_at = None;
        self.drained = None;
        self.parked.clear();
    }

    /// The poll was asked.
    pub(super) fn on_heard(&mut self, heard: Heard, now: u64) {
        self.heard_at = match heard {
            Heard::All => Some(now),
            Heard::Some => None,
        };
    }

    /// Whether the poll has told all it had to tell in this turn.
    pub(super) fn has_heard_all(&self) -> bool {
        self.heard_at.is_some()
    }

    /// A read has found a connection empty.
    #[inline(always)]
    pub(super) fn on_drained(&mut self, link: LinkKey, now: u64) {
        self.drained = Some((link, now));
    }

    /// When a read last found the connection empty, if it was the last to be read.
    fn drained_at(&self, link: LinkKey) -> Option<u64> {
        self.drained
            .filter(|(drained, _)| *drained == link)
            .map(|(_, at)| at)
    }

    /// A connection that has just been read comes to the pool.
    pub(super) fn on_parked(&mut self, link: LinkKey) {
        if let Some(at) = self.drained_at(link) {
            self.parked.push((link, at));
        }
    }

    /// When a connection that was idle was last known to be quiet. `rest` are the events still to
    /// be dealt with.
    fn idle_at(&mut self, link: LinkKey, token: Token, rest: &[Ready]) -> Option<u64> {
        let mut recent = self.parked.iter().enumerate().rev().take(REMEMBERED);
        if let Some((place, _)) = recent.find(|(_, (parked, _))| *parked == link) {
            return Some(self.parked.swap_remove(place).1);
        }
        let heard_at = self.heard_at?;
        let is_told = rest.len() > LOOKED_THROUGH || rest.iter().any(|event| event.token == token);
        (!is_told).then_some(heard_at)
    }
}

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
        let is_between = !kept.session.as_ref().is_some_and(Session::is_inside_record);
        if is_fresh && is_between && !kept.readiness.has(Readiness::READ_SIDE) {
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
            && !self.links[link].readiness.has(Readiness::READ_SIDE);
        let is_open = is_known || {
            let probe = self.probe(link);
            self.tell_of(link, probe);
            matches!(probe, Probe::Open)
        };
        let session = self.links[link].session.as_ref();
        let is_quiet = is_open && !session.is_some_and(Session::is_inside_record);
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

    /// An idle link is readable: the peer closed it, or spoke out of turn. Either way it is of no more use.
    pub(super) fn check_idle(&mut self, key: LinkKey) {
        if !self.links[key].readiness.has(Readiness::READ_SIDE) {
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
        if self.links[key].session.is_some() {
            // In a readback's wake the bytes that its response lies in are in the first buffer.
            let first_is_taken = self.buffers.read.is_empty();
            let mut buffer = std::mem::take(match first_is_taken {
                true => &mut self.buffers.second,
                false => &mut self.buffers.read,
            });
            buffer.resize(self.settings.read_buffer, 0);
            let probe = self.probe_session(key, &mut buffer);
            // Back to where it came from: while it is out, both may be empty.
            match first_is_taken {
                true => self.buffers.second = buffer,
                false => self.buffers.read = buffer,
            }
            return probe;
        }
        let link = &mut self.links[key];
        let Some(socket) = &link.socket else {
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
}

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
