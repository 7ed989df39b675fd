//! Passes bodies through the decoders that a policy installed. Decoded bytes are collected,
//! streamed or dropped, as the body would have been without decoders.
//!
//! Decoded bytes are limited like the bytes that are read: each link has one share per turn, and
//! all links together have a few. The rest stays in the [`Decoding`](crate::policy::Decoding) until
//! the next turn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use crate::engine::Engine;
use crate::engine::chain::{ChainKey, Marks};
use crate::engine::core::Core;
use crate::engine::fail::Failure;
use crate::engine::mode::Mode;
use crate::engine::readback::Flow;
use crate::engine::visits::PolicyPanicked;
use crate::h1::exchange::Taking;
use crate::h1::reading::{Body, Reading};
use crate::net::Net;
use crate::net::slots::LinkKey;
use crate::policy::{ROOM, Shown, Step};
use crate::proto::{Headers, Limits, Violation};
use crate::response::{Response, no_fields};

/// The most bytes of an unwanted body that are read so that its connection can be used again. On
/// most paths, a new connection costs about as much.
const MAX_UNWANTED: u64 = 64 << 10;

/// The result of feeding the bytes of one read.
pub(super) enum Fed {
    /// The response is not complete yet.
    More,
    /// The response is complete, or the rest of it is not wanted.
    Complete,
    Paused,
    /// The allowance for decoded bytes is used up for now.
    Yielded,
    /// The readback canceled its own chain, and the command that ends it is queued.
    Cancelled,
    Failed(Failure),
    /// The server refused `Expect`, so the request is sent again without it.
    ExpectRefused,
    Panicked,
}

impl<S, M: Mode> Engine<S, M> {
    /// Sets how the body is handled. If it is decoded, its link streams it, and `taking` applies to
    /// the output of the decoders.
    #[inline(always)]
    pub(super) fn take(
        &mut self,
        key: LinkKey,
        chain: ChainKey,
        mut taking: Taking,
        reading: &Reading<'_>,
        limits: &Limits,
    ) -> Option<Fed> {
        if self.core.is_visited(chain) {
            taking = self.take_decoded(chain, taking, limits.max_body_bytes);
        }
        let h1 = &mut self.core.links[key].h1;
        let taken = h1.take(taking, reading.head().0, limits);
        taken
            .err()
            .map(|violation| Fed::Failed(Failure::Violation(violation)))
    }

    /// Sets how the output of the body's decoders is handled, if there are any. Returns how the
    /// link handles the body.
    #[inline(never)]
    fn take_decoded(&mut self, chain: ChainKey, taking: Taking, max_bytes: u64) -> Taking {
        let visit = self.core.visit(chain);
        let Some(decoding) = visit.decoding() else {
            return taking;
        };
        match taking {
            Taking::Discard => {
                self.stop_decoding(chain);
                return Taking::Discard;
            }
            Taking::Collect => decoding.limit(max_bytes),
            Taking::Stream => {}
        }
        visit.rare().taking = taking;
        Taking::Stream
    }

    /// Drops the decoders of a body whose rest is not needed.
    fn stop_decoding(&mut self, chain: ChainKey) {
        let rare = self
            .core
            .visit_mut(chain)
            .and_then(|visit| visit.rare_mut());
        let decoding = rare.and_then(|rare| rare.decoding.take());
        self.core.discard(decoding);
    }

    /// Handles the body of a response that the policy discards. It is read to its end only if that
    /// is cheaper than a new connection would be.
    pub(super) fn skip(&mut self, key: LinkKey) -> Option<Fed> {
        let h1 = &mut self.core.links[key].h1;
        let response = h1.response();
        let (missing, is_until_close) = (response.missing(), response.is_until_close());
        // Closing a pipelined connection would cost the requests behind this one, too.
        let is_shared = h1.has_line();
        if !is_shared && (is_until_close || missing.is_some_and(|missing| missing > MAX_UNWANTED)) {
            return Some(Fed::Complete);
        }
        // A body of unknown length is passed on, to be counted.
        h1.set_taking(match missing {
            None if !is_shared => Taking::Stream,
            Some(_) | None => Taking::Discard,
        });
        None
    }

    /// Counts a piece of a body that the policy discards.
    fn skip_piece(&mut self, chain: ChainKey, len: usize) -> Option<Fed> {
        let rare = self.core.visit(chain).rare();
        rare.unwanted += len as u64;
        (rare.unwanted > MAX_UNWANTED).then_some(Fed::Complete)
    }

    /// Calls the policy, which decides how the response is presented and whether it is decoded.
    pub(super) fn screen(
        &mut self,
        key: LinkKey,
        chain: ChainKey,
        reading: &mut Reading<'_>,
    ) -> Result<Shown, Fed> {
        let (head, section) = reading.head();
        let (status, fields) = (head.status, Headers::new(section, &head.fields));
        match self.core.reads_head(chain, status, &fields) {
            Ok(true) => {}
            Ok(false) => return Ok(Shown::AtOnce),
            Err(PolicyPanicked) => return Err(Fed::Panicked),
        }
        let about = self.core.about(key);
        let (head, section) = reading.head();
        let response = Response {
            head,
            section,
            trailers: no_fields(),
            body: Body::Lent(&[]),
            about: &about,
            info: &OnceLock::new(),
        };
        let screened = self.core.ask_head(chain, &response);
        let shown = match screened {
            Ok(Ok(shown)) => shown,
            Ok(Err(why)) => return Err(Fed::Failed(Failure::Unscreened(why))),
            Err(PolicyPanicked) => return Err(Fed::Panicked),
        };
        if self.core.links[key].h1.response().is_complete() {
            // The response has no body (RFC 9112 §6.3), so its coding fields describe another one.
            self.stop_decoding(chain);
        }
        if self.core.visit(chain).is_decoding() {
            // These fields describe the body as it was before decoding.
            reading.forget_fields(&["Content-Encoding", "Content-Length"]);
        }
        Ok(shown)
    }

    /// Handles a piece of the body of a response whose request has a policy.
    #[inline]
    pub(super) fn on_visited_data(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
        data: &[u8],
    ) -> Option<Fed> {
        let visit = self.core.visit(chain);
        if visit.is_decoding() {
            self.decode(state, key, chain, data)
        } else if visit.visiting.shown() == Shown::WithoutBody {
            self.skip_piece(chain, data.len())
        } else {
            self.on_data(state, key, chain, data)
        }
    }

    /// Decodes a piece of the body, after any input kept from earlier pieces.
    #[inline(never)]
    pub(super) fn decode(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
        data: &[u8],
    ) -> Option<Fed> {
        let mut room = std::mem::take(&mut self.core.buffers.room);
        let id = self.core.chains.id(chain);
        if self.core.buffers.room_of.replace(id) != Some(id) {
            // Bytes of another chain are cleared: a faulty decoder may report more output than it
            // has written.
            room.clear();
        }
        room.resize(ROOM, 0);
        let fed = self.decode_into(state, key, chain, data, &mut room);
        self.core.buffers.room = room;
        fed
    }

    fn decode_into(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
        data: &[u8],
        room: &mut [u8],
    ) -> Option<Fed> {
        let mut input = data;
        let share = self.core.settings.turn_bytes;
        let budget = share.saturating_mul(Self::TURN_SHARES);
        let mut left = share;
        loop {
            if left == 0 || self.core.agenda.decoded >= budget {
                // The other links have their turn first.
                self.keep_undecoded(chain, input);
                return Some(Fed::Yielded);
            }
            let rare = self.core.visit(chain).rare();
            let Some(decoding) = &mut rare.decoding else {
                // The readback does not want the rest of the body.
                return None;
            };
            rare.is_pending = false;
            // A panic may leave the decoding in an inconsistent state. It is dropped with its
            // chain.
            let decoded =
                catch_unwind(AssertUnwindSafe(|| decoding.decode(&mut input, &mut *room)));
            let cost = decoding.take_work();
            left = left.saturating_sub(cost);
            self.core.agenda.decoded += cost;
            let fed = match decoded {
                Err(panic) => {
                    self.core.panic.get_or_insert(panic);
                    return Some(Fed::Panicked);
                }
                Ok(Err(why)) => return Some(Fed::Failed(Failure::Undecodable(why))),
                Ok(Ok(Step::NeedsInput | Step::Done)) => return None,
                Ok(Ok(Step::Busy)) => Some(Fed::Yielded),
                Ok(Ok(Step::Piece(n))) => self.on_decoded(state, key, chain, &room[..n]),
            };
            match fed {
                None => {}
                Some(Fed::Paused | Fed::Yielded) => {
                    self.keep_undecoded(chain, input);
                    return fed;
                }
                Some(fed) => return Some(fed),
            }
        }
    }

    /// Handles a piece of the decoded body.
    fn on_decoded(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
        data: &[u8],
    ) -> Option<Fed> {
        let request = self.core.chains[chain].request();
        let limit = self.core.settings.limits_of(request).max_body_bytes;
        let rare = self.core.visit(chain).rare();
        match rare.taking {
            Taking::Discard => unreachable!("a body that is discarded has no decoders"),
            Taking::Collect => {
                rare.body.extend_from_slice(data);
                let seen = rare.body.len() as u64;
                (seen > limit).then(|| {
                    let violation = Violation::BodyTooLarge { limit, seen };
                    Fed::Failed(Failure::Violation(violation))
                })
            }
            Taking::Stream => match self.on_data(state, key, chain, data) {
                None | Some(Fed::Paused) if self.core.chains[chain].marks.has(Marks::CANCELLED) => {
                    Some(Fed::Cancelled)
                }
                fed => fed,
            },
        }
    }

    /// Keeps the undecoded input for a later turn.
    pub(super) fn keep_undecoded(&mut self, chain: ChainKey, input: &[u8]) {
        if let Some(rare) = self
            .core
            .visit_mut(chain)
            .and_then(|visit| visit.rare_mut())
            && let Some(decoding) = &mut rare.decoding
        {
            decoding.keep(input);
            rare.is_pending = true;
        }
    }

    /// Handles the end of the body: decodes the remaining input.
    pub(super) fn end_decoding(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
    ) -> Option<Fed> {
        self.core.visit(chain).decoding()?.end_input();
        self.decode(state, key, chain, &[])
    }

    /// Handles a piece of a streamed body.
    pub(super) fn on_data(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
        data: &[u8],
    ) -> Option<Fed> {
        let id = self.core.chains.id(chain);
        let flow = self.run_readback(chain, id, |readback, mut cx| {
            readback.on_data(state, data, &mut cx)
        });
        self.on_flow(key, chain, flow)
    }

    /// Tells a readback that its response goes on after a pause.
    #[inline(never)]
    pub(super) fn on_resume(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
    ) -> Option<Fed> {
        let id = self.core.chains.id(chain);
        let flow = self.run_readback(chain, id, |readback, mut cx| {
            readback.on_resume(state, &mut cx)
        });
        let fed = self.on_flow(key, chain, flow);
        match fed {
            None | Some(Fed::Paused) if self.core.chains[chain].marks.has(Marks::CANCELLED) => {
                Some(Fed::Cancelled)
            }
            fed => fed,
        }
    }

    /// Does what a readback has returned for the rest of a streamed body. `None` means that it
    /// panicked.
    #[inline]
    fn on_flow(&mut self, key: LinkKey, chain: ChainKey, flow: Option<Flow>) -> Option<Fed> {
        match flow {
            None => Some(Fed::Panicked),
            Some(Flow::Stream | Flow::Buffer) => None,
            Some(Flow::Discard) => {
                self.stop_decoding(chain);
                self.core.links[key].h1.discard_rest();
                None
            }
            Some(Flow::Pause) => Some(self.core.pause(chain)),
            Some(Flow::Abort) => Some(Fed::Failed(Failure::Aborted)),
            Some(Flow::Finish) if self.core.chains[chain].marks.has(Marks::CANCELLED) => {
                Some(Fed::Cancelled)
            }
            Some(Flow::Finish) => {
                self.stop_decoding(chain);
                let is_written = self.core.write_last(key, chain);
                Some(if is_written {
                    Fed::Complete
                } else {
                    Fed::Panicked
                })
            }
        }
    }
}

impl<N: Net> Core<N> {
    pub(super) fn pause(&mut self, chain: ChainKey) -> Fed {
        self.chains[chain].marks.set(Marks::PAUSED);
        Fed::Paused
    }
}
