//! Pipelining: which requests share a link before they are answered, how they are written together, and what becomes of them when it ends
//! (RFC 9112 §9.3.2).
//!
//! A link on which only pipelined requests are has a [`Pipeline`](crate::net::pipeline::Pipeline): those behind the one in front. What is put on it is not written at once:
//! the link is noted, and when all that the moment asked for has been carried out, everything goes out in one send. When the response to
//! the one in front is complete, the next in line takes its place, and the rest of the bytes of the same read is its response.
//!
//! However a link ends, [`close`](Engine::close) sends those behind again elsewhere, in their order: so none is forgotten, and none that is
//! answered is sent twice. Each connection that breaks ends the exchange of the one in front, by an answer, an error or the one retry that
//! every request has; so a server that breaks all of them comes to an end with them.
//!
//! What a link without a pipeline comes past as well stands apart (`inline(never)`), so that it costs that one a look and no more.

use log::trace;

use crate::config::Clock;
use crate::engine::alerts::alert;
use crate::engine::chains::{ChainKey, Marks, Stage};
use crate::engine::core::Core;
use crate::engine::exchange::Wire;
use crate::engine::fail::Failure;
use crate::net::link::{LinkMarks, State, Times};
use crate::net::pipeline::{Behind, Intake, Progress, Trust};
use crate::net::pool::{Entry, OriginKey};
use crate::net::slots::LinkKey;
use crate::net::transport;
use crate::net::{Net, Readiness};
use crate::proto::head::Head;
use crate::request::Request;

/// Places that one send takes its bytes from: a request lies in two or three.
const MAX_PARTS: usize = 64;

/// How long an origin on trial may be silent inside of a batch, in milliseconds: then it has
/// dropped the rest.
const TRIAL_MILLIS: u64 = 5000;

/// Parts of requests that go out in one send.
struct Outgoing<'a> {
    parts: [&'a [u8]; MAX_PARTS],
    len: usize,
    bytes: usize,
}

impl<'a> Outgoing<'a> {
    fn new() -> Self {
        Self {
            parts: [&[]; MAX_PARTS],
            len: 0,
            bytes: 0,
        }
    }

    /// Answers whether there was room for it.
    fn push(&mut self, wire: &Wire<'a>) -> bool {
        let parts = wire.0.iter().filter(|part| !part.is_empty());
        if self.len + wire.0.len() > MAX_PARTS {
            return false;
        }
        for part in parts {
            self.parts[self.len] = part;
            self.len += 1;
            self.bytes += part.len();
        }
        true
    }

    fn parts(&self) -> &[&'a [u8]] {
        &self.parts[..self.len]
    }
}

/// How many requests may be unanswered on the link that this one goes over. `None`: it goes alone.
#[inline]
pub(super) fn depth_of(entry: &Entry, request: &Request) -> Option<u16> {
    let depth = request.pipeline().unwrap_or(entry.depth);
    (depth > 1 && request.may_be_pipelined() && entry.trust != Trust::Lost).then_some(depth)
}

/// Who is in front of a link whose response is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MovedUp {
    /// The next in line.
    Next,
    /// Nobody: nothing was behind, and the link is as any other whose exchange is over.
    Nobody,
    /// Nobody: the link is closed, and what was behind goes on elsewhere.
    Closed,
}

impl<N: Net> Core<N> {
    /// A link that is not idle, and which the chain's request may share.
    pub(super) fn link_to_join(&self, origin: OriginKey, key: ChainKey) -> Option<LinkKey> {
        let chain = &self.chains[key];
        let depth = depth_of(&self.pool[origin], chain.request.as_ref()?)?;
        let was_sent = chain.attempts > 0;
        let is_paused = |chain: ChainKey| self.chains[chain].marks.has(Marks::PAUSED);
        self.pool
            .roomiest(&self.links, origin, depth, was_sent, is_paused)
    }

    /// Readies a link for more requests behind the one of that depth that was just put on it. `was_sent`: that one was sent before.
    #[inline(never)]
    pub(super) fn begin_pipeline(&mut self, key: LinkKey, depth: u16, was_sent: bool) {
        let link = &mut self.links[key];
        let is_broken = matches!(
            self.pool[link.origin].trust,
            Trust::Wary { .. } | Trust::Untried { breaks: 1.., .. }
        );
        let is_trusted = !is_broken && !was_sent;
        let intake = match link.marks.has(LinkMarks::REUSED) || is_trusted {
            true => Intake::Open,
            false => Intake::AfterAnswer,
        };
        let mut pipeline = self.buffers.pipelines.take();
        pipeline.begin(depth, intake);
        link.pipeline = Some(pipeline);
        self.pool.note_room(&mut self.links, key);
    }

    /// Puts a request behind those on a link.
    pub(super) fn join(&mut self, key: LinkKey, chain_key: ChainKey) {
        let chain = &self.chains[chain_key];
        let link = &mut self.links[key];
        let (Some(request), Some(pipeline)) = (&chain.request, &mut link.pipeline) else {
            return;
        };
        let defaults = self.settings.defaults.choose(request);
        let block = self.settings.defaults.block(defaults);
        let next = Behind {
            chain: chain_key,
            sent: 0,
            bytes: Wire::new(request, block, LinkMarks::default()).len(),
            defaults,
        };
        let entry = &self.pool[link.origin];
        let depth = request.pipeline().unwrap_or(entry.depth);
        // What waits for the socket already will be followed by this when it goes out.
        let is_first_unwritten = link.marks.has(LinkMarks::SENT) && !pipeline.has_unwritten();
        pipeline.push(next, depth);
        let chain = &mut self.chains[chain_key];
        chain.stage = Stage::Running { link: key };
        chain.attempts = chain.attempts.saturating_add(1);
        if is_first_unwritten {
            self.note_unwritten(key);
        }
        self.pool.note_room(&mut self.links, key);
        // Until its turn comes, it is as if it were queued.
        self.arm(chain_key, None);
    }

    /// Has a link written to when all that this moment asks for has been carried out.
    pub(super) fn note_unwritten(&mut self, key: LinkKey) {
        self.agenda.unwritten.push(self.links.token(key));
    }

    /// Writes what has come together on links since the last time.
    pub(super) fn flush_noted(&mut self) {
        let mut noted = std::mem::take(&mut self.agenda.unwritten);
        for token in noted.drain(..) {
            if let Some(key) = self.links.find(token) {
                self.flush(key);
            }
        }
        self.agenda.unwritten = noted;
    }

    /// Settles how many of those behind may be written now.
    fn pace(&mut self, key: LinkKey) {
        let link = &mut self.links[key];
        let Some(pipeline) = &mut link.pipeline else {
            return;
        };
        let trust = &mut self.pool[link.origin].trust;
        match *trust {
            Trust::Full | Trust::Wary { .. } => pipeline.release(),
            Trust::Untried { on_trial: true, .. } | Trust::Lost => {}
            Trust::Untried {
                on_trial: false,
                most,
                ..
            } => {
                let is_unwritten = matches!(link.state, State::Busy { written: 0, .. })
                    && !link.marks.has(LinkMarks::SENT);
                if is_unwritten && pipeline.begin_trial(most) {
                    trust.set_on_trial(true);
                }
            }
        }
    }

    /// Writes the request in front and those behind it, as far as the socket takes them.
    #[inline(never)]
    pub(super) fn flush_pipeline(&mut self, key: LinkKey) {
        self.pace(key);
        if self.links[key].marks.has(LinkMarks::UNSURE) {
            self.links[key].marks.clear(LinkMarks::UNSURE);
            self.read_clock();
            if !self.is_still_quiet(key) {
                let (missing, error) = (None, None);
                return self.fail(key, Failure::Closed { missing, error });
            }
        }
        loop {
            let link = &mut self.links[key];
            let State::Busy { chain, written } = link.state else {
                return;
            };
            let (Some(pipeline), Some(socket)) = (&link.pipeline, &link.socket) else {
                return;
            };
            if link.marks.has(LinkMarks::MUTE) {
                return;
            }
            let defaults = &self.settings.defaults;
            let mut outgoing = Outgoing::new();
            let is_sent = link.marks.has(LinkMarks::SENT);
            let skip = if is_sent { pipeline.written() } else { written };
            if !is_sent && let Some(request) = &self.chains[chain].request {
                outgoing.push(&Wire::new(
                    request,
                    defaults.block(link.defaults),
                    link.marks,
                ));
            }
            // Where this connection is to end, they go out elsewhere.
            if !link.marks.has(LinkMarks::CLOSE) {
                for next in pipeline.writable() {
                    if let Some(request) = &self.chains[next.chain].request
                        && let block = defaults.block(next.defaults)
                        && !outgoing.push(&Wire::new(request, block, LinkMarks::default()))
                    {
                        break;
                    }
                }
            }
            if outgoing.bytes == 0 && !link.has_outbound() {
                return;
            }
            // A request that follows others unacknowledged is what Nagle's algorithm holds back.
            if !link.marks.has(LinkMarks::NODELAY) && (is_sent || !pipeline.is_empty()) {
                link.marks.set(LinkMarks::NODELAY);
                if let Err(error) = self.net.set_nodelay(socket) {
                    trace!("TCP_NODELAY refused ({error})");
                }
            }
            let mut done = transport::Written::NONE;
            if skip < outgoing.bytes || link.has_outbound() {
                let (net, scratch) = (&mut self.net, &mut self.buffers.scratch);
                let session = link.session.as_mut();
                let parts = outgoing.parts();
                let written = transport::write_from::<MAX_PARTS, _>(
                    net, socket, session, parts, skip, scratch,
                );
                match written {
                    Ok(written) => done = written,
                    Err(trouble) => return self.on_trouble(key, trouble),
                }
            }
            self.counts.bytes_out += done.sent as u64;
            self.on_written(key, chain, done);
            let link = &mut self.links[key];
            if done.is_blocked {
                link.readiness = link.readiness.without(Readiness::WRITABLE);
                return;
            }
            if !link.has_unwritten() {
                return;
            }
        }
    }

    /// The socket, or the session, has taken bytes of the request in front and of those behind it. What a session has taken counts as
    /// written: it is 64 KiB at most, and cannot be taken back.
    fn on_written(&mut self, key: LinkKey, chain: ChainKey, done: transport::Written) {
        let mut bytes = done.taken;
        let link = &mut self.links[key];
        if !link.marks.has(LinkMarks::SENT)
            && let State::Busy { written, .. } = &mut link.state
            && let Some(request) = &self.chains[chain].request
        {
            let block = self.settings.defaults.block(link.defaults);
            let left = Wire::new(request, block, link.marks).len() - *written;
            let taken = bytes.min(left);
            *written += taken;
            bytes -= taken;
            if taken == left {
                self.on_sent(key, chain);
            } else if done.sent > 0 {
                // The write deadline starts anew.
                self.arm(chain, Some(Clock::Write));
            }
        }
        let (now, chains, counts) = (self.clock.micros(), &self.chains, &mut self.counts);
        if let Some(pipeline) = &mut self.links[key].pipeline {
            pipeline.on_written(bytes, |chain| {
                counts.pipelined += 1;
                let micros = now.saturating_sub(chains[chain].started);
                u32::try_from(micros).unwrap_or(u32::MAX).max(1)
            });
        }
    }

    /// The response to the request in front is complete, `leftover` bytes have come behind it: the next in line takes its place, if the
    /// connection is good for it.
    #[inline(never)]
    pub(super) fn move_up(&mut self, key: LinkKey, head: &Head, leftover: usize) -> MovedUp {
        let link = &mut self.links[key];
        let Some(pipeline) = &mut link.pipeline else {
            return MovedUp::Nobody;
        };
        let trust = &mut self.pool[link.origin].trust;
        pipeline.on_answer();
        if pipeline.is_proven() {
            trust.on_proven();
        }
        if let Some((requests, is_last)) = pipeline.end_trial() {
            trust.on_passed(requests, is_last);
        }
        let speaks_1_1 = head.version == http::Version::HTTP_11;
        if !speaks_1_1 && *trust != Trust::Lost {
            *trust = Trust::Lost;
            alert!(
                self,
                Pipelining,
                "{}: speaks HTTP/1.0, and is not pipelined any more",
                self.pool[link.origin].origin
            );
        }
        if pipeline.is_empty() {
            let is_shut = pipeline.intake == Intake::Shut;
            self.end_pipeline(key);
            if is_shut {
                self.close(key);
                return MovedUp::Closed;
            }
            return MovedUp::Nobody;
        }
        let is_whole = link.connection.is_reusable() && link.marks.has(LinkMarks::SENT);
        // What is written may be answered still, whatever is to become of the connection then.
        let goes_on = match pipeline.progress(0) {
            Progress::Whole => true,
            Progress::Partly => !link.marks.has(LinkMarks::CLOSE),
            Progress::Unwritten => !link.marks.has(LinkMarks::CLOSE) && leftover == 0,
        };
        if is_whole && speaks_1_1 && goes_on {
            self.promote(key, leftover);
            return MovedUp::Next;
        }
        if is_whole && leftover > 0 && pipeline.progress(0) == Progress::Unwritten {
            self.warn_of_unsolicited(key, leftover);
        }
        // RFC 9112 §9.3.2 asks for care behind a connection that failed; one that was ended by word is no failure, unless that is all it does.
        let pipeline = self.links[key].pipeline.as_ref();
        if pipeline.is_some_and(|pipeline| pipeline.has_begun() && !pipeline.is_proven()) {
            self.on_broken(key);
        }
        self.close(key);
        MovedUp::Closed
    }

    /// Puts the next in line in front.
    fn promote(&mut self, key: LinkKey, leftover: usize) {
        let token = self.links.token(key);
        let link = &mut self.links[key];
        let Some((next, written)) = link.pipeline.as_mut().and_then(|p| p.take_next()) else {
            return;
        };
        self.counts.reused += 1;
        link.state = State::Busy {
            chain: next.chain,
            written,
        };
        link.marks = link.marks.for_next_in_line().and(LinkMarks::REUSED);
        if written == next.bytes {
            link.marks.set(LinkMarks::SENT);
        } else if written == 0 {
            // It may have been held back, and nothing else would have it written.
            link.marks.set(LinkMarks::UNSURE);
            self.agenda.unwritten.push(token);
        }
        link.times = Times {
            sent: next.sent,
            ..Times::default()
        };
        link.defaults = next.defaults;
        if leftover > 0 {
            link.marks.set(LinkMarks::RECEIVED);
            let micros = self
                .clock
                .micros()
                .saturating_sub(self.chains[next.chain].started);
            link.times.first_byte = u32::try_from(micros).unwrap_or(u32::MAX).max(1);
        }
        let request = &self.chains[next.chain].request;
        let is_head = request.as_ref().is_some_and(Request::is_head);
        link.connection.expect_response(is_head);
        let origin = link.origin;
        // A pipeline that never runs empty must not keep another origin out for ever.
        if self.pool.another_has_none(origin)
            && let Some(pipeline) = &mut self.links[key].pipeline
        {
            pipeline.intake = Intake::Shut;
        }
        self.pool.note_room(&mut self.links, key);
        self.pool.feed(origin);
    }

    /// A request of a batch by which its origin is tried has come to the front: it does not wait
    /// long for a server that has dropped it.
    pub(super) fn arm_trial(&mut self, key: LinkKey, chain: ChainKey) {
        if self.is_on_trial(key) {
            let due = self.clock.tick_from_now() + TRIAL_MILLIS;
            let timer = self.chains[chain].timer;
            if timer.is_none_or(|timer| due < self.timers.tick_of(timer)) {
                self.arm_at(chain, due);
            }
        }
    }

    /// Bytes have come for the one in front, of which none has been written: they answer nobody, and it is sent elsewhere.
    pub(super) fn fail_unasked(&mut self, key: LinkKey, bytes: usize) {
        self.warn_of_unsolicited(key, bytes);
        let (missing, error) = (None, None);
        self.fail(key, Failure::Closed { missing, error });
    }
}
