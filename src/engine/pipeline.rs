//! Moves up the requests of a pipeline when a response is complete (RFC 9112 §9.3.2).

use crate::engine::alerts::alert;
use crate::engine::chain::ChainKey;
use crate::engine::core::Core;
use crate::h1::line::{Extent, Intake};
use crate::h1::trust::Trust;
use crate::net::Net;
use crate::net::slots::LinkKey;
use crate::proto::head::Head;

/// How long an origin on trial may be silent within a batch, in milliseconds. After that, the
/// server counts as having dropped the rest.
const TRIAL_MILLIS: u64 = 5000;

/// The new front of a link whose response is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MovedUp {
    /// The next request in line.
    Next,
    /// Nothing, because no request was behind. The link is like any other whose exchange has ended.
    Nobody,
    /// Nothing, because the link is closed. The requests behind are placed again.
    Closed,
}

impl<N: Net> Core<N> {
    /// Moves the next request in line to the front, if the connection can be used further.
    ///
    /// The exchange in front has ended and was taken out, and `leftover` bytes have arrived after
    /// its response. `is_whole` is false if no other response can follow on this connection.
    #[inline(never)]
    pub(super) fn move_up(
        &mut self,
        key: LinkKey,
        head: &Head,
        is_whole: bool,
        leftover: usize,
    ) -> MovedUp {
        let link = &mut self.links[key];
        let ends = link.h1.ends_behind_front();
        let line = link.h1.line_mut().expect("a pipelined link has a line");
        let trust = &mut self.pool[link.origin].trust;
        line.on_answer();
        if line.is_proven() {
            trust.on_proven();
        }
        if let Some((requests, is_last)) = line.end_trial() {
            trust.on_passed(requests, is_last);
        }
        let speaks_1_1 = head.version == http::Version::HTTP_11;
        if !speaks_1_1 && *trust != Trust::Lost {
            *trust = Trust::Lost;
            alert!(
                self,
                Pipelining,
                "{}: speaks HTTP/1.0, so it is no longer pipelined",
                self.pool[link.origin].origin
            );
        }
        if line.is_empty() {
            let is_shut = line.intake == Intake::Shut;
            self.end_line(key);
            if is_shut {
                self.close(key);
                return MovedUp::Closed;
            }
            return MovedUp::Nobody;
        }
        // A request that is written may still be answered, even if the connection is closed after
        // that.
        let progress = line.extent(0);
        let goes_on = match progress {
            Extent::Whole => true,
            Extent::Partly => !ends,
            Extent::Unwritten => !ends && leftover == 0,
        };
        // RFC 9112 §9.3.2 requires caution after a failed connection. A close that the server
        // announced does not count as a failure, unless the server never answered a pipelined
        // request.
        let is_broken = line.has_begun() && !line.is_proven();
        if is_whole && speaks_1_1 && goes_on {
            self.promote(key, leftover);
            return MovedUp::Next;
        }
        if is_whole && leftover > 0 && progress == Extent::Unwritten {
            self.warn_of_unsolicited(key, leftover);
        }
        if is_broken {
            self.on_broken(key);
        }
        self.close(key);
        MovedUp::Closed
    }

    /// Moves the next request in line to the front.
    fn promote(&mut self, key: LinkKey, leftover: usize) {
        let (token, now) = (self.links.token(key), self.clock.micros());
        let link = &mut self.links[key];
        let front = link
            .h1
            .promote()
            .expect("a line that is not empty has a next request");
        self.counts.reused += 1;
        if leftover > 0 {
            front.on_answered(now);
        }
        let is_unwritten = front.written() == 0;
        let origin = link.origin;
        // A pipeline that never runs empty must not block another origin forever.
        let is_wanted_elsewhere = self.pool.another_has_none(origin);
        if let Some(line) = link.h1.line_mut() {
            if is_unwritten {
                // The request may have been held back. Without this entry, nothing would write it.
                line.is_unsure = true;
                self.agenda.unwritten.push(token);
            }
            if is_wanted_elsewhere {
                line.intake = Intake::Shut;
            }
        }
        self.pool.note_room(&mut self.links, key);
        self.pool.serve_soon(origin);
    }

    /// Shortens the deadline of a request that came to the front as part of a trial. Otherwise a
    /// server that has dropped the request would keep it waiting.
    pub(super) fn arm_trial(&mut self, key: LinkKey, chain: ChainKey) {
        if self.is_on_trial(key) {
            let due = self.clock.tick_from_now() + TRIAL_MILLIS;
            let timer = self.chains[chain].timer;
            if timer.is_none_or(|timer| due < self.timers.tick_of(timer)) {
                self.arm_at(chain, due);
            }
        }
    }
}
