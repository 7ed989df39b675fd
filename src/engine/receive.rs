//! From bytes to readbacks: reads a link, feeds its parser, and calls user code.
//!
//! All links read into one buffer. A response that arrives whole is parsed and lent from there; what does not is kept by its
//! link in an [`Inbound`]. User code runs between two links, with its readback taken out of the slab, and is lent the buffers
//! and the chains: no link, pool or timer is in its reach.

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use log::{debug, warn};

use crate::config::Clock;
use crate::engine::Engine;
use crate::engine::chains::{ChainKey, Marks, Stage};
use crate::engine::exchange::Failure;
use crate::engine::mode::Mode;
use crate::engine::readback::{Action, Context, Flow, Next, Readback};
use crate::engine::response::{Body, Info, Response, Timings, no_fields};
use crate::error::{Error, ErrorKind};
use crate::net::link::{Inbound, LinkMarks, State};
use crate::net::slots::LinkKey;
use crate::net::{Net, Readiness};
use crate::proto::connection::{Eof, Event};
use crate::proto::framing::BodyLength;
use crate::proto::head::{self, Head};
use crate::proto::{Headers, Violation};

/// Whether a link may be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Go {
    On,
    /// The exchange is over, paused or failed, or user code panicked.
    Stop,
}

/// What a response has left in the bytes of one read.
struct Piece<'d> {
    data: &'d mut [u8],
    /// Up to here the parser has taken it.
    taken: usize,
    head: Head,
    /// Where the head's bytes are in `data`, unless `inbound` has them.
    section: Range<usize>,
    /// The body decoded in place in `data`, unless `inbound` has it.
    body: Range<usize>,
    inbound: Option<Box<Inbound>>,
    /// Whether `inbound` holds the head already.
    spilled: bool,
    /// Whether `data` is an incomplete head that the link keeps, rather than the shared buffer.
    kept: bool,
}

/// How the feeding of one read ended.
enum Fed {
    /// The response goes on.
    More,
    Complete,
    Paused,
    /// Its chain was cancelled by its own readback, which a command follows.
    Cancelled,
    Failed(Failure),
    /// The server will not have `Expect`: the request is sent again without it.
    Unexpected,
    Panicked,
}

impl<S, M: Mode> Engine<S, M> {
    /// The poll has spoken of a link, or it stands on the run queue.
    pub(super) fn on_link(&mut self, state: &mut S, key: LinkKey, budget: &mut usize) {
        match self.links[key].state {
            State::Idle(_) => self.check_idle(key),
            State::Resolving { .. } | State::Resting => {}
            State::Connecting { .. } | State::Busy { .. } => {
                let woken = Readiness::WRITABLE.with(Readiness::ERROR);
                if self.links[key].readiness.has(woken) {
                    let token = self.links.token(key);
                    self.flush(key);
                    if self.links.find(token).is_none() {
                        return;
                    }
                }
                self.go_on(state, key, budget);
            }
        }
    }

    /// An idle link is readable: the peer closed it, or spoke out of turn. Either way it is of no more use.
    fn check_idle(&mut self, key: LinkKey) {
        if !self.links[key].readiness.has(READ_SIDE) {
            return;
        }
        match self.probe(key) {
            Probe::Open => {}
            Probe::Ended => {
                debug!("{:?} closed by the peer while idle", self.links.token(key));
                self.close_idle_link(key);
            }
            Probe::Spoke { bytes } => {
                warn!(
                    "{:?} {}",
                    self.links.token(key),
                    Violation::Unsolicited { bytes }
                );
                self.close_idle_link(key);
            }
        }
    }

    /// Reads where nothing should be, to learn whether the connection is still there.
    fn probe(&mut self, key: LinkKey) -> Probe {
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
                    link.readiness = link.readiness.without(READ_SIDE);
                    return Probe::Open;
                }
                Err(_) => return Probe::Ended,
            }
        }
    }

    /// Deals with what a pause held back, then reads on as long as there is something and the budget lasts.
    fn go_on(&mut self, state: &mut S, key: LinkKey, budget: &mut usize) {
        let mut share = self.settings.turn_bytes;
        if self.feed_held(state, key) == Go::Stop {
            return;
        }
        loop {
            let link = &mut self.links[key];
            let State::Busy { chain, .. } = link.state else {
                return;
            };
            if !link.readiness.has(READ_SIDE) || self.chains[chain].marks.has(Marks::PAUSED) {
                return;
            }
            if share == 0 || *budget == 0 {
                return self.run_later(key);
            }
            let mut buffer = std::mem::take(&mut self.read_buffer);
            let go = self.read(state, key, &mut buffer, &mut share, budget);
            self.read_buffer = buffer;
            if go == Go::Stop {
                return;
            }
        }
    }

    fn read(
        &mut self,
        state: &mut S,
        key: LinkKey,
        buffer: &mut [u8],
        share: &mut usize,
        budget: &mut usize,
    ) -> Go {
        let link = &mut self.links[key];
        let Some(socket) = &link.socket else {
            return Go::Stop;
        };
        match self.net.recv(socket, buffer) {
            Ok(0) => {
                self.on_eof(state, key);
                Go::Stop
            }
            Ok(n) => {
                // A short read has emptied the socket, unless the end of file stands behind the data: then read on to it,
                // since data and FIN together gave one edge only.
                if n < buffer.len() && !link.readiness.has(ENDING) {
                    link.readiness = link.readiness.without(Readiness::READABLE);
                }
                *share = share.saturating_sub(n);
                *budget = budget.saturating_sub(n);
                self.counts.bytes_in += n as u64;
                self.on_bytes(state, key, &mut buffer[..n])
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Go::On,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let dead = link.marks.has(LinkMarks::MUTE) && link.readiness.has(Readiness::ERROR);
                link.readiness = link.readiness.without(READ_SIDE);
                if dead {
                    // Writing failed, and there is no response that would explain it.
                    let error = io::Error::from(io::ErrorKind::BrokenPipe);
                    self.fail(
                        key,
                        Failure::Closed {
                            missing: None,
                            error: Some(error),
                        },
                    );
                }
                Go::Stop
            }
            Err(error) => {
                let missing = link.connection.missing();
                self.fail(key, Failure::from_socket(error, missing));
                Go::Stop
            }
        }
    }

    fn on_eof(&mut self, state: &mut S, key: LinkKey) {
        let link = &mut self.links[key];
        link.marks.set(LinkMarks::CLOSE);
        if link.marks.has(LinkMarks::RESET) {
            // A socket tells of a reset once, and the send was told. To take the end that it reads as from then on for the end
            // of a body that lasts until the close would be to call whole what was cut off.
            let missing = link.connection.missing();
            let error = Some(io::ErrorKind::ConnectionReset.into());
            return self.fail(key, Failure::Closed { missing, error });
        }
        match link.connection.on_eof() {
            Eof::Complete => {
                let mut inbound = link.inbound.take().unwrap_or_else(|| self.spare.take());
                let head = std::mem::take(&mut inbound.head);
                let piece = Piece {
                    data: &mut [],
                    taken: 0,
                    head,
                    section: 0..0,
                    body: 0..0,
                    inbound: Some(inbound),
                    spilled: true,
                    kept: false,
                };
                self.finish(state, key, piece);
            }
            Eof::NothingReceived => self.fail(
                key,
                Failure::Closed {
                    missing: None,
                    error: None,
                },
            ),
            Eof::Truncated(violation) => self.fail(key, Failure::Violation(violation)),
        }
    }

    fn on_bytes(&mut self, state: &mut S, key: LinkKey, data: &mut [u8]) -> Go {
        let Some(chain) = self.links[key].chain() else {
            return Go::Stop;
        };
        let since_start = self.since_start(chain);
        let link = &mut self.links[key];
        if !link.marks.has(LinkMarks::RECEIVED) {
            link.marks.set(LinkMarks::RECEIVED);
            link.times.first_byte = since_start;
        }
        let mut inbound = link.inbound.take();
        match &mut inbound {
            // The head is incomplete: what has come of it stands before these bytes.
            Some(kept) if !link.connection.has_head() => {
                kept.section.extend_from_slice(data);
                let mut bytes = std::mem::take(&mut kept.section);
                let token = self.links.token(key);
                let go = self.feed(state, key, chain, &mut bytes, inbound, true);
                // Still incomplete: the bytes go back as they are, since copying them at each read would take quadratic time.
                if let Some(key) = self.links.find(token)
                    && let link = &mut self.links[key]
                    && !link.connection.has_head()
                    && let Some(inbound) = &mut link.inbound
                    && inbound.section.is_empty()
                {
                    inbound.section = bytes;
                }
                go
            }
            _ => self.feed(state, key, chain, data, inbound, false),
        }
    }

    fn feed_held(&mut self, state: &mut S, key: LinkKey) -> Go {
        let link = &mut self.links[key];
        let State::Busy { chain, .. } = link.state else {
            return Go::On;
        };
        let Some(inbound) = &mut link.inbound else {
            return Go::On;
        };
        // A response may also have ended with the piece after which it was paused.
        let waits = !inbound.held.is_empty() || link.connection.is_complete();
        if !waits || self.chains[chain].marks.has(Marks::PAUSED) {
            return Go::On;
        }
        let mut held = std::mem::take(&mut inbound.held);
        let inbound = link.inbound.take();
        self.feed(state, key, chain, &mut held, inbound, false)
    }

    /// Feeds bytes to the link's parser and what comes of them to the readback.
    fn feed(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
        data: &mut [u8],
        mut inbound: Option<Box<Inbound>>,
        kept: bool,
    ) -> Go {
        let spilled = self.links[key].connection.has_head();
        let head = match &mut inbound {
            Some(inbound) if spilled => std::mem::take(&mut inbound.head),
            _ => std::mem::take(&mut self.head),
        };
        let mut piece = Piece {
            data,
            taken: 0,
            head,
            section: 0..0,
            body: 0..0,
            inbound,
            spilled,
            kept,
        };
        match self.parse(state, key, chain, &mut piece) {
            Fed::Complete => {
                self.finish(state, key, piece);
                Go::Stop
            }
            Fed::More => {
                let between = piece.taken == piece.data.len();
                self.keep(key, piece);
                let link = &self.links[key];
                // Behind an interim response the wait for the final one goes on as before.
                let clock = match link.connection.has_head() || !between {
                    true => Clock::Idle,
                    false if link.marks.has(LinkMarks::SENT) => Clock::FirstByte,
                    false => Clock::Write,
                };
                if !link.marks.has(LinkMarks::BODY_HELD) {
                    self.arm(chain, Some(clock));
                }
                Go::On
            }
            Fed::Paused => {
                let rest = piece.taken;
                let held = piece.data[rest..].to_vec();
                self.keep(key, piece);
                let inbound = self.links[key]
                    .inbound
                    .get_or_insert_with(|| self.spare.take());
                inbound.held = held;
                self.arm(chain, None);
                Go::Stop
            }
            Fed::Cancelled => {
                self.keep(key, piece);
                Go::Stop
            }
            Fed::Failed(failure) => {
                self.keep(key, piece);
                self.fail(key, failure);
                Go::Stop
            }
            Fed::Unexpected => {
                self.recycle(piece);
                self.disarm(chain);
                self.close(key);
                let chain_marks = &mut self.chains[chain].marks;
                chain_marks.set(Marks::NO_EXPECT);
                self.chains[chain].stage = Stage::New;
                self.restarts.push_back(chain);
                Go::Stop
            }
            Fed::Panicked => {
                self.recycle(piece);
                self.disarm(chain);
                self.close(key);
                self.end_chain(chain);
                Go::Stop
            }
        }
    }

    fn parse(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
        piece: &mut Piece<'_>,
    ) -> Fed {
        let Some(request) = &self.chains[chain].request else {
            return Fed::Panicked;
        };
        let limits = self.settings.limits_of(request);
        loop {
            let link = &mut self.links[key];
            if link.connection.is_complete() {
                return Fed::Complete;
            }
            let step = match link.connection.receive(
                &mut piece.data[piece.taken..],
                &mut piece.head,
                &limits,
            ) {
                Ok(step) => step,
                Err(violation) => return Fed::Failed(Failure::Violation(violation)),
            };
            let start = piece.taken;
            piece.taken += step.consumed;
            match step.event {
                Event::More if link.connection.is_complete() => {}
                Event::More => return Fed::More,
                Event::Interim => {
                    piece.section = start..piece.taken;
                    if piece.head.status == http::StatusCode::CONTINUE
                        && link.marks.has(LinkMarks::BODY_HELD)
                    {
                        link.marks.clear(LinkMarks::BODY_HELD);
                        self.flush(key);
                    }
                    let called =
                        self.show(state, key, chain, piece, |readback, state, head, cx| {
                            readback.on_interim(state, head, cx);
                        });
                    if called.is_none() {
                        return Fed::Panicked;
                    }
                }
                Event::Head => {
                    piece.section = start..piece.taken;
                    piece.body = piece.taken..piece.taken;
                    if let Some(fed) = self.on_head(state, key, chain, piece, limits.max_body_bytes)
                    {
                        return fed;
                    }
                }
                Event::Data(range) => {
                    let range = start + range.start..start + range.end;
                    if let Some(fed) =
                        self.on_data(state, key, chain, piece, range, limits.max_body_bytes)
                    {
                        return fed;
                    }
                }
                Event::Trailers(range) => {
                    let range = start + range.start..start + range.end;
                    let inbound = piece.inbound.get_or_insert_with(|| self.spare.take());
                    inbound.trailers.extend_from_slice(&piece.data[range]);
                }
            }
            if self.chains[chain].marks.has(Marks::CANCELLED) {
                return Fed::Cancelled;
            }
        }
    }

    /// The final head has come: what of the upload is still useful, and what is to become of the body.
    fn on_head(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
        piece: &mut Piece<'_>,
        max_body_bytes: u64,
    ) -> Option<Fed> {
        let link = &mut self.links[key];
        let status = piece.head.status;
        if link.marks.has(LinkMarks::EXPECTING) && status == http::StatusCode::EXPECTATION_FAILED {
            return Some(Fed::Unexpected);
        }
        if !link.marks.has(LinkMarks::SENT) {
            // RFC 9112 §9.3: who answers before the end of the request may not read it to its end.
            link.marks.set(LinkMarks::CLOSE);
            let refused = status.is_client_error() || status.is_server_error();
            if refused || link.marks.has(LinkMarks::BODY_HELD) {
                link.marks.set(LinkMarks::MUTE);
            }
        }
        if let Some(seconds) = piece.head.keep_alive_timeout {
            link.keep_alive = Some(u16::try_from(seconds).unwrap_or(u16::MAX));
        }
        let Some(flow) = self.show(state, key, chain, piece, |readback, state, head, cx| {
            readback.on_head(state, head, cx)
        }) else {
            return Some(Fed::Panicked);
        };
        let marks = &mut self.links[key].marks;
        match flow {
            Flow::Buffer => {
                // A length that is already too much need not be read to be refused.
                if let BodyLength::Length(length) = piece.head.length
                    && length > max_body_bytes
                {
                    let limit = max_body_bytes;
                    let violation = Violation::BodyTooLarge {
                        limit,
                        seen: length,
                    };
                    return Some(Fed::Failed(Failure::Violation(violation)));
                }
                None
            }
            Flow::Stream => {
                marks.set(LinkMarks::STREAM);
                None
            }
            Flow::Discard => {
                marks.set(LinkMarks::DISCARD);
                None
            }
            Flow::Pause => {
                marks.set(LinkMarks::STREAM);
                self.chains[chain].marks.set(Marks::PAUSED);
                Some(Fed::Paused)
            }
            Flow::Abort => Some(Fed::Failed(Failure::Aborted)),
        }
    }

    /// A piece of the body has come, decoded, at `range` of the data.
    fn on_data(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
        piece: &mut Piece<'_>,
        range: Range<usize>,
        max_body_bytes: u64,
    ) -> Option<Fed> {
        let marks = self.links[key].marks;
        if marks.has(LinkMarks::DISCARD) {
            return None;
        }
        if marks.has(LinkMarks::STREAM) {
            return self.stream(state, key, chain, &piece.data[range]);
        }
        let collected = match &mut piece.inbound {
            Some(inbound) if piece.spilled => {
                inbound.body.extend_from_slice(&piece.data[range]);
                inbound.body.len()
            }
            _ => {
                // Chunks move together, over the framing between them.
                let len = range.len();
                if range.start != piece.body.end {
                    piece.data.copy_within(range, piece.body.end);
                }
                piece.body.end += len;
                piece.body.len()
            }
        };
        let seen = collected as u64;
        (seen > max_body_bytes).then(|| {
            let violation = Violation::BodyTooLarge {
                limit: max_body_bytes,
                seen,
            };
            Fed::Failed(Failure::Violation(violation))
        })
    }

    fn stream(&mut self, state: &mut S, key: LinkKey, chain: ChainKey, data: &[u8]) -> Option<Fed> {
        let flow = self.call(chain, |readback, mut cx| {
            readback.on_data(state, data, &mut cx)
        });
        match flow {
            None => Some(Fed::Panicked),
            Some(Flow::Stream | Flow::Buffer) => None,
            Some(Flow::Discard) => {
                let marks = &mut self.links[key].marks;
                marks.clear(LinkMarks::STREAM);
                marks.set(LinkMarks::DISCARD);
                None
            }
            Some(Flow::Pause) => {
                self.chains[chain].marks.set(Marks::PAUSED);
                Some(Fed::Paused)
            }
            Some(Flow::Abort) => Some(Fed::Failed(Failure::Aborted)),
        }
    }

    /// Keeps what the next read cannot do without: the head, or what has come of it, and the body so far.
    fn keep(&mut self, key: LinkKey, mut piece: Piece<'_>) {
        let link = &mut self.links[key];
        if !link.connection.has_head() {
            self.head = piece.head;
            let mut inbound = piece.inbound.take().unwrap_or_else(|| self.spare.take());
            inbound.section.clear();
            if !piece.kept || piece.taken > 0 {
                inbound
                    .section
                    .extend_from_slice(&piece.data[piece.taken..]);
            }
            link.inbound = Some(inbound);
            return;
        }
        let mut inbound = piece.inbound.take().unwrap_or_else(|| self.spare.take());
        if !piece.spilled {
            inbound.section.clear();
            inbound
                .section
                .extend_from_slice(&piece.data[piece.section.clone()]);
            if let Some(missing) = link.connection.missing() {
                let expected = piece
                    .body
                    .len()
                    .saturating_add(usize::try_from(missing).unwrap_or(usize::MAX));
                inbound.body.reserve_exact(expected.min(RESERVE));
            }
            inbound
                .body
                .extend_from_slice(&piece.data[piece.body.clone()]);
            // The scratch head keeps its capacity for the next response, the link's comes from the spares.
            std::mem::swap(&mut self.head, &mut inbound.head);
        }
        inbound.head = piece.head;
        link.inbound = Some(inbound);
    }

    fn recycle(&mut self, piece: Piece<'_>) {
        match piece.inbound {
            Some(mut inbound) if piece.spilled => {
                inbound.head = piece.head;
                self.spare.give(inbound);
            }
            inbound => {
                self.head = piece.head;
                if let Some(inbound) = inbound {
                    self.spare.give(inbound);
                }
            }
        }
    }

    /// The response is complete: frees its link, then calls its readback.
    fn finish(&mut self, state: &mut S, key: LinkKey, mut piece: Piece<'_>) {
        let Some(chain) = self.links[key].chain() else {
            return;
        };
        if let Some(inbound) = &mut piece.inbound
            && !inbound.trailers.is_empty()
            && let Some(request) = &self.chains[chain].request
        {
            let limits = self.settings.limits_of(request);
            let parsed =
                head::parse_trailers(&mut inbound.trailers, &mut inbound.trailer_fields, &limits);
            if let Err(violation) = parsed {
                self.recycle(piece);
                return self.fail(key, Failure::Violation(violation));
            }
        }
        self.disarm(chain);
        self.chains[chain].marks.clear(Marks::PAUSED);
        self.chains[chain].stage = Stage::Reading;
        self.counts.answered += 1;
        let mut info = self.info(key, chain);
        // At least 1, as the steps before it.
        let done = (self.now_micros - self.chains[chain].started).max(1);
        info.timings.done = Some(Duration::from_micros(done));
        self.release(key, piece.data.len() - piece.taken);
        let Piece {
            data,
            head,
            section,
            body,
            mut inbound,
            spilled,
            ..
        } = piece;
        let next = {
            let (trailers, section, body) = match &mut inbound {
                Some(inbound) if spilled => (
                    Headers::new(&inbound.trailers, &inbound.trailer_fields),
                    &inbound.section[..],
                    Body::Collected(&mut inbound.body),
                ),
                Some(inbound) => (
                    Headers::new(&inbound.trailers, &inbound.trailer_fields),
                    &data[section],
                    Body::Lent(&data[body]),
                ),
                None => (no_fields(), &data[section], Body::Lent(&data[body])),
            };
            let response = Response {
                head: &head,
                section,
                trailers,
                body,
                info: &info,
            };
            self.call(chain, |readback, mut cx| {
                readback.on_reply(state, Ok(response), &mut cx)
            })
        };
        self.chains[chain].request = Some(info.request);
        let rest = Piece {
            data: &mut [],
            taken: 0,
            head,
            section: 0..0,
            body: 0..0,
            inbound,
            spilled,
            kept: false,
        };
        self.recycle(rest);
        self.follow(chain, next);
    }

    /// Takes a link from the exchange that is over: it rests, if it can be used again.
    fn release(&mut self, key: LinkKey, leftover: usize) {
        let link = &mut self.links[key];
        let mut reusable = link.connection.is_reusable()
            && link.marks.has(LinkMarks::SENT)
            && !link.marks.has(LinkMarks::CLOSE);
        if leftover > 0 {
            let bytes = leftover;
            warn!(
                "{:?} {}",
                self.links.token(key),
                Violation::Unsolicited { bytes }
            );
            reusable = false;
        }
        // What the last event said may stand unread behind the response: an end of file, or bytes out of turn.
        if reusable && self.links[key].readiness.has(READ_SIDE) {
            reusable = matches!(self.probe(key), Probe::Open);
        }
        if !reusable {
            return self.close(key);
        }
        let link = &mut self.links[key];
        let origin = link.origin;
        link.state = State::Resting;
        link.inbound = None;
        link.marks = link.marks.lasting();
        if let Some(other) = self.resting.replace(key) {
            debug_assert!(
                false,
                "one exchange ends at a time, and {other} still rests"
            );
            self.close(other);
        }
        self.pool.feed(origin);
    }

    /// Tells a chain's readback of a failure.
    pub(super) fn deliver(&mut self, state: &mut S, chain: ChainKey, error: Error) {
        self.counts.failed += 1;
        let cancelled = self.chains[chain].marks.has(Marks::CANCELLED);
        let error = match cancelled && error.kind() != ErrorKind::Cancelled {
            true => error.into_cancelled(),
            false => error,
        };
        let next = self.call(chain, |readback, mut cx| {
            readback.on_reply(state, Err(error), &mut cx)
        });
        match cancelled {
            true => self.end_chain(chain),
            false => self.follow(chain, next),
        }
    }

    /// Does what a readback answered, after what it asked for.
    fn follow(&mut self, chain: ChainKey, next: Option<Next<S>>) {
        let Some(next) = next else {
            return self.end_chain(chain);
        };
        self.settle();
        if self.chains[chain].marks.has(Marks::CANCELLED) {
            // Cancelled while, or by what, its readback ran: one more call tells it so, and what it answered is dropped.
            self.chains[chain].stage = Stage::New;
            drop(next);
            return self.fail_unlinked(chain, ErrorKind::Cancelled);
        }
        let Next {
            action,
            delay,
            readback,
        } = next;
        match action {
            Action::Done => return self.end_chain(chain),
            _ if self.draining => return self.end_chain(chain),
            Action::Again => {}
            Action::Send(request) => self.chains[chain].request = Some(request),
        }
        let now = self.now_micros;
        let entry = &mut self.chains[chain];
        if readback.is_some() {
            entry.readback = readback;
        }
        entry.started = now;
        match delay {
            Duration::ZERO => self.begin(chain),
            delay => self.delay(chain, delay),
        }
    }

    pub(super) fn end_chain(&mut self, key: ChainKey) {
        let chain = self.chains.remove(key);
        if let Some(origin) = chain.origin {
            self.pool.leave(origin);
        }
    }

    /// Calls a readback with a head.
    fn show<R>(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
        piece: &Piece<'_>,
        call: impl FnOnce(&mut dyn Readback<S>, &mut S, &Response<'_>, &mut Context<'_, S>) -> R,
    ) -> Option<R> {
        let info = self.info(key, chain);
        let response = Response {
            head: &piece.head,
            section: &piece.data[piece.section.clone()],
            trailers: no_fields(),
            body: Body::Lent(&[]),
            info: &info,
        };
        let result = self.call(chain, |readback, mut cx| {
            call(readback, state, &response, &mut cx)
        });
        self.chains[chain].request = Some(info.request);
        result
    }

    /// Runs user code: the readback out of the slab, the chains lent to it. `None`: it panicked, and the turn is to end.
    fn call<R>(
        &mut self,
        key: ChainKey,
        run: impl FnOnce(&mut dyn Readback<S>, Context<'_, S>) -> R,
    ) -> Option<R> {
        let id = self.chains.id(key);
        let chain = &mut self.chains[key];
        let mut readback = chain.readback.take()?;
        let stage = std::mem::replace(&mut chain.stage, Stage::Reading);
        let cx = Context::new(&mut self.chains, id, self.now);
        // What a panic may leave half changed is the readback, which is dropped, and the caller's state, which is the
        // host's to judge: it gets the panic at the end of the turn.
        let result = catch_unwind(AssertUnwindSafe(|| run(&mut *readback, cx)));
        let chain = &mut self.chains[key];
        chain.stage = stage;
        match result {
            Ok(result) => {
                chain.readback = Some(readback);
                Some(result)
            }
            Err(panic) => {
                self.panic = Some(panic);
                None
            }
        }
    }

    /// What is known of an exchange. It takes the request out of the chain: put it back.
    fn info(&mut self, key: LinkKey, chain_key: ChainKey) -> Info {
        let id = self.chains.id(chain_key);
        let chain = &mut self.chains[chain_key];
        let link = &self.links[key];
        let at = |micros: u32| (micros > 0).then(|| Duration::from_micros(micros.into()));
        let mut timings = Timings::default();
        timings.resolve = at(link.times.resolve);
        timings.connect = at(link.times.connect);
        timings.sent = at(link.times.sent);
        timings.first_byte = at(link.times.first_byte);
        let request = chain.request.take();
        Info {
            id,
            peer: link.peer,
            reused: link.marks.has(LinkMarks::REUSED),
            attempts: chain.attempts.into(),
            timings,
            request: request.unwrap_or_else(|| unreachable!("a chain on a link has a request")),
        }
    }
}

/// A longer body is not reserved for on its server's word alone.
const RESERVE: usize = 1 << 20;

const READ_SIDE: Readiness = Readiness::READABLE.with(ENDING);
const ENDING: Readiness = Readiness::READ_CLOSED.with(Readiness::ERROR);

/// What reading a link without an exchange has shown.
enum Probe {
    Open,
    Ended,
    /// It sent at least so many bytes that nobody asked for.
    Spoke {
        bytes: usize,
    },
}
