//! Ends exchanges that got a response, and determines what happens to their links: the next
//! exchange in line moves to the front, the link rests until its chain's next step, or the link is
//! closed.
//!
//! Only [`release`](Core::release) decides whether a link is reused. A resting link that no step of
//! its chain takes is put into the pool by [`park`](Core::park).

use std::sync::OnceLock;
use std::time::SystemTime;

use log::debug;
use mio::Token;

use crate::engine::Engine;
use crate::engine::chain::{ChainKey, Marks, Stage};
use crate::engine::core::Core;
use crate::engine::mode::Mode;
use crate::engine::pipeline::MovedUp;
use crate::engine::probing::Probe;
use crate::engine::reply::{Resent, is_worth_another_try};
use crate::h1::reading::Reading;
use crate::net::slots::LinkKey;
use crate::net::tls::TlsState;
use crate::net::{Machine, Net, Readiness};
use crate::proto::head::Head;
use crate::response::{About, Response};
use crate::timeouts::Timeout;

/// Whether to continue reading a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Go {
    On,
    /// The exchange has ended, is paused or has failed, or user code panicked.
    Stop,
}

impl<S, M: Mode> Engine<S, M> {
    /// Finishes a complete response: frees its link, then calls its readback. Returns the link's
    /// token if the next exchange in line moved up, and the bytes after the response.
    pub(super) fn finish<'d>(
        &mut self,
        state: &mut S,
        key: LinkKey,
        mut reading: Reading<'d>,
    ) -> (Option<Token>, &'d mut [u8]) {
        let h1 = &self.core.links[key].h1;
        let (chain, is_whole) = (h1.tag(), h1.is_whole());
        let chain = chain.expect("a link that is read has an exchange");
        // If the rest of the body is not wanted, the bytes that follow belong to it.
        let leftover = if is_whole || h1.response().is_complete() {
            reading.rest().len()
        } else {
            0
        };
        let head = reading.head().0;
        // The link is released before the readback runs, so the chain's next request finds the link
        // at rest, and nothing that the readback does can come in between.
        let about = self.core.take_exchange(key, chain);
        let line = self.core.release(key, head, is_whole, leftover);
        let info = OnceLock::new();
        let (head, section, trailers, body) = reading.response();
        let response = Response {
            head,
            section,
            trailers,
            body,
            about: &about,
            info: &info,
        };
        if self.core.is_asked_at_end(chain) {
            if let Some(resent) = self.conclude(state, chain, response) {
                // They share the list of redirects, which grows now. It would be copied if they
                // still existed.
                drop((about, info));
                let Resent {
                    request,
                    after,
                    status,
                } = resent;
                self.core.resend(chain, request, after, Some(status));
            }
        } else {
            let has_failed = is_worth_another_try(response.status());
            self.core.chains[chain].note_outcome(has_failed);
            let next = self.run_readback(chain, about.id, |readback, mut cx| {
                readback.on_reply(state, Ok(response), &mut cx)
            });
            self.follow(chain, next);
        }
        let (inbound, rest) = reading.into_parts();
        self.core.buffers.inbounds.give(inbound);
        (line, rest)
    }

    /// Returns the link to which `rest`, the bytes after a finished response, is to be fed, once
    /// the next exchange in line has moved up.
    ///
    /// # Errors
    /// If nothing is to be fed now: how to continue with the link instead.
    pub(super) fn next_in_line(&mut self, line: Token, rest: &[u8]) -> Result<LinkKey, Go> {
        let core = &mut self.core;
        // An operation of the readback may have ended the link.
        let key = core.links.find(line).ok_or(Go::Stop)?;
        let front = core.links[key].h1.front().ok_or(Go::Stop)?;
        let (chain, is_sent) = (front.tag, front.is_sent());
        if !rest.is_empty() && core.chains[chain].marks.has(Marks::METERED) {
            core.note_read(chain, rest.len() as u64);
        }
        if rest.is_empty() {
            let clock = if is_sent {
                Timeout::FirstByte
            } else {
                Timeout::Write
            };
            core.catch_up();
            core.arm(chain, Some(clock));
            core.arm_trial(key, chain);
        }
        match (rest.is_empty(), core.panic.is_some()) {
            (true, false) => Err(Go::On),
            (false, false) => Ok(key),
            // The panic reaches the host first, and the bytes are left to the next turn.
            (_, true) => {
                core.hold(key, rest);
                Err(Go::Stop)
            }
        }
    }
}

impl<N: Net> Core<N> {
    /// Keeps the bytes that have arrived for the next exchange in line until the next turn.
    pub(super) fn hold(&mut self, key: LinkKey, rest: &[u8]) {
        if !rest.is_empty() {
            let mut inbound = self.buffers.inbounds.take();
            inbound.held.extend_from_slice(rest);
            self.links[key].h1.put_inbound(inbound);
        }
        self.run_later(key);
    }

    /// Describes the exchange in front.
    pub(super) fn about(&self, key: LinkKey) -> About {
        let link = &self.links[key];
        let front = link
            .h1
            .front()
            .expect("a link that is read has an exchange");
        About {
            id: self.chains.id(front.tag),
            link: (key, self.links.generation(key)),
            ends: link.ends.both(),
            reused: link.h1.is_reused(),
            attempts: self.chains[front.tag].attempts,
            queued: front.begun() - self.chains[front.tag].submitted,
            times: front.times,
            done: 0,
            tls: link.tls_state().and_then(TlsState::info),
            request: front.request.clone(),
            earlier_is_safe: self.chains[front.tag].is_safe(),
            way: self.way_of(front.tag),
            simulated_time: self.simulated_time(),
        }
    }

    /// Takes the exchange of a complete response off its link, and returns its description.
    #[inline(always)]
    pub(super) fn take_exchange(&mut self, key: LinkKey, chain_key: ChainKey) -> About {
        let link = &mut self.links[key];
        let is_tunnel = link.h1.is_tunnel();
        let reused = link.h1.is_reused();
        let exchange = link
            .h1
            .finish()
            .expect("a complete response has an exchange");
        let (request, begun, times) = exchange.into_parts();
        let tls = link.tls_state().and_then(TlsState::info);
        let ends = link.ends.both();
        let link = (key, self.links.generation(key));
        if is_tunnel {
            self.end_tunnel(chain_key);
        }
        let chain = &mut self.chains[chain_key];
        let is_visited = chain.marks.has(Marks::VISITED);
        // The timer stays armed: the chain's next step moves it, and no time passes before that.
        chain.marks.clear(Marks::PAUSED);
        chain.note_answered();
        chain.stage = Stage::Reading;
        self.counts.answered += 1;
        About {
            link,
            ends,
            reused,
            attempts: chain.attempts,
            queued: begun - chain.submitted,
            times,
            // Plus one, like the earlier timestamps.
            done: self.clock.micros() - begun + 1,
            tls,
            request,
            earlier_is_safe: chain.is_safe(),
            id: self.chains.id(chain_key),
            way: if is_visited {
                self.way_of(chain_key)
            } else {
                None
            },
            simulated_time: self.simulated_time(),
        }
    }

    /// Returns the time of day in a simulation. The system's clock is read only when it is needed.
    #[inline(always)]
    fn simulated_time(&self) -> Option<SystemTime> {
        match N::MACHINE {
            Machine::Real => None,
            Machine::Simulated => Some(self.clock.present().wall_clock()),
        }
    }

    /// Releases a link from its finished exchange: the next in line moves up, the link rests if it
    /// can be reused, or it is closed. Returns the link's token if there is a next exchange.
    #[inline(always)]
    pub(super) fn release(
        &mut self,
        key: LinkKey,
        head: &Head,
        is_whole: bool,
        leftover: usize,
    ) -> Option<Token> {
        debug!(
            "{:?} {}: answered with {}",
            self.links.token(key),
            self.origin_of(key),
            head.status.as_u16()
        );
        let link = &self.links[key];
        // Ciphertext after the response is as unsolicited as plaintext is.
        let has_pending = link.tls_state().is_some_and(TlsState::has_pending);
        let mut reusable = is_whole && leftover == 0 && !has_pending;
        reusable &= !link.h1.ends_behind_front();
        reusable &= !self.ages.is_over(key, self.clock.micros());
        // According to the last event, the socket may hold an end of file or unsolicited bytes
        // after the response.
        let has_more = link.readiness.has_any(Readiness::READ_SIDE);
        if link.h1.has_line() {
            match self.move_up(key, head, is_whole, leftover) {
                MovedUp::Next => return Some(self.links.token(key)),
                MovedUp::Closed => return None,
                MovedUp::Nobody => {}
            }
        }
        if leftover > 0 {
            self.warn_of_unsolicited(key, leftover);
        }
        if reusable && has_more {
            reusable = matches!(self.probe(key), Probe::Open);
            self.quiet.on_drained(key, self.clock.micros());
        }
        let link = &mut self.links[key];
        let origin = link.origin;
        // A chain that never pauses must not block another origin forever.
        if !reusable || self.pool.another_has_none(origin) {
            self.close(key);
            return None;
        }
        if let Some(inbound) = link.h1.take_inbound() {
            self.buffers.inbounds.give(inbound);
        }
        if let Some(other) = self.agenda.resting.replace(key) {
            debug_assert!(
                false,
                "one exchange ends at a time, and {other} still rests"
            );
            self.close(other);
        }
        self.pool.serve_soon(origin);
        None
    }
}
