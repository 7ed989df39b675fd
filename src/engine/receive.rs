//! From bytes to responses: reads a link, feeds its parser, and hands out what comes of it.
//!
//! All links read into one buffer. A response that arrives whole is parsed and lent from there; what does not is kept by its
//! link in an [`Inbound`].

use std::io;
use std::num::NonZeroU16;
use std::ops::Range;

use log::debug;
use mio::Token;

use crate::config::Clock;
use crate::engine::Engine;
use crate::engine::chains::{ChainKey, Marks, Stage};
use crate::engine::clock::Since;
use crate::engine::fail::Failure;
use crate::engine::mode::Mode;
use crate::engine::pipeline::MovedUp;
use crate::engine::quiet::Probe;
use crate::engine::readback::{Context, Flow, Readback};
use crate::engine::response::{Body, Response, no_fields};
use crate::net::link::{Inbound, LinkMarks, State};
use crate::net::slots::LinkKey;
use crate::net::tls::Session;
use crate::net::{Net, Readiness};
use crate::proto::connection::{Connection, Eof, Event};
use crate::proto::framing::BodyLength;
use crate::proto::head::{self, Head};
use crate::proto::{Headers, Limits, Violation};

/// Whether a link may be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Go {
    On,
    /// The exchange is over, paused or failed, or user code panicked.
    Stop,
}

/// Where a socket is read into.
#[derive(Clone, Copy)]
enum Place {
    /// The buffer that all links read into.
    Shared,
    /// The same, behind what the session has kept of the read before.
    Ciphertext { kept: usize },
    /// The link's own body, which is collected.
    Body,
}

/// What a response has left in the bytes of one read.
struct Piece<'d> {
    data: &'d mut [u8],
    /// Up to here the parser has taken it.
    taken: usize,
    /// Where the head's bytes are in `data`, unless they are spilled.
    section: Range<usize>,
    /// The body decoded in place in `data`, unless it is spilled.
    body: Range<usize>,
    /// The head as read, trailers, and what is spilled.
    inbound: Box<Inbound>,
    /// Whether the bytes of head and body are kept in `inbound`, since an earlier read.
    spilled: bool,
    /// Whether `data` is an incomplete head that the link keeps, rather than the shared buffer.
    kept: bool,
}

impl Piece<'_> {
    /// Whether what has been collected is as much as may be.
    fn check_body(&self, limits: &Limits) -> Result<(), Violation> {
        let len = match self.spilled {
            true => self.inbound.body.len(),
            false => self.body.len(),
        };
        let (limit, seen) = (limits.max_body_bytes, len as u64);
        match seen > limit {
            true => Err(Violation::BodyTooLarge { limit, seen }),
            false => Ok(()),
        }
    }
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
        self.core.catch_up();
        self.core.clock.since = Since::Links;
        match self.core.links[key].state {
            State::Idle(_) => {
                self.core.check_idle(key);
                *budget = budget.saturating_sub(std::mem::take(&mut self.core.quiet.cost));
            }
            State::Resting | State::TurnedAway { .. } => {}
            State::Dialing { .. }
            | State::Connecting { .. }
            | State::Handshaking { .. }
            | State::Busy { .. } => {
                let woken = Readiness::WRITABLE.with(Readiness::ERROR);
                let link = &self.core.links[key];
                if link.readiness.has(woken) && link.has_unwritten() {
                    let token = self.core.links.token(key);
                    self.core.flush(key);
                    if self.core.links.find(token).is_none() {
                        return;
                    }
                }
                self.go_on(state, key, budget);
            }
        }
    }

    /// Deals with what a pause held back, then reads on as long as there is something and the budget lasts.
    fn go_on(&mut self, state: &mut S, key: LinkKey, budget: &mut usize) {
        let mut share = self.core.settings.turn_bytes;
        if self.feed_held(state, key) == Go::Stop {
            return;
        }
        loop {
            let link = &mut self.core.links[key];
            let (State::Busy { chain, .. } | State::Handshaking { chain }) = link.state else {
                return;
            };
            // Cancelled: a command is on its way that ends it, and until then nothing more comes of
            // it.
            if self.core.chains[chain]
                .marks
                .has(Marks::PAUSED.or(Marks::CANCELLED))
            {
                return;
            }
            // No event will tell of what has been read already.
            if link.session.as_ref().is_some_and(Session::is_finished) {
                return self.on_eof(state, key);
            }
            if let Some(problem) = link.session.as_ref().and_then(Session::failure) {
                let problem = problem.clone();
                return self.core.fail(key, Failure::Tls(problem));
            }
            let pending = link.session.as_ref().filter(|s| s.has_pending());
            if pending.is_none() && !link.readiness.has(Readiness::READ_SIDE) {
                return;
            }
            if share == 0 || *budget == 0 {
                return self.core.run_later(key);
            }
            let mut buffer = std::mem::take(&mut self.core.buffers.read);
            let go = match pending.map(|session| session.restore(&mut buffer)) {
                Some(kept) => self.on_ciphertext(state, key, &mut buffer, kept, &mut share, budget),
                None => self.read(state, key, &mut buffer, &mut share, budget),
            };
            self.core.buffers.read = buffer;
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
        let link = &mut self.core.links[key];
        let Some(socket) = &link.socket else {
            return Go::Stop;
        };
        let (place, room) = match &link.session {
            Some(session) => {
                let kept = session.restore(buffer);
                (Place::Ciphertext { kept }, &mut buffer[kept..])
            }
            // What stands behind the body of a pipelined response is not to be broken at its first byte.
            None if link.pipeline.is_some() => (Place::Shared, &mut buffer[..]),
            None => {
                let most = buffer.len();
                match room_in_body(&mut link.inbound, &link.connection, link.marks, most) {
                    Some(room) => (Place::Body, room),
                    None => (Place::Shared, &mut buffer[..]),
                }
            }
        };
        let room_len = room.len();
        match self.core.net.recv(socket, room) {
            Ok(0) => {
                self.on_eof(state, key);
                Go::Stop
            }
            Ok(n) => {
                // A short read has emptied the socket, unless the end of file stands behind the data: then read on to it,
                // since data and FIN together gave one edge only.
                if n < room_len && !link.readiness.has(Readiness::ENDING) {
                    link.readiness = link.readiness.without(Readiness::READABLE);
                    self.core.quiet.on_drained(key, self.core.clock.micros());
                }
                *share = share.saturating_sub(n);
                *budget = budget.saturating_sub(n);
                self.core.counts.bytes_in += n as u64;
                match place {
                    Place::Shared => self.on_bytes(state, key, &mut buffer[..n]),
                    Place::Ciphertext { kept } => {
                        self.on_ciphertext(state, key, buffer, kept + n, share, budget)
                    }
                    Place::Body => {
                        if let Some(inbound) = &mut link.inbound {
                            inbound.body.on_received(n);
                        }
                        self.on_body(state, key, n)
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Go::On,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let dead = link.marks.has(LinkMarks::MUTE) && link.readiness.has(Readiness::ERROR);
                link.readiness = link.readiness.without(Readiness::READ_SIDE);
                if dead {
                    // Writing failed, and there is no response that would explain it.
                    let error = io::Error::from(io::ErrorKind::BrokenPipe);
                    self.core.fail(
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
                self.core.fail(key, Failure::from_socket(error, missing));
                Go::Stop
            }
        }
    }

    fn on_eof(&mut self, state: &mut S, key: LinkKey) {
        let link = &mut self.core.links[key];
        link.marks.set(LinkMarks::CLOSE);
        let is_cut = link.session.as_ref().is_some_and(|s| !s.is_finished());
        if is_cut && link.connection.is_until_close() {
            // RFC 9112 §9.8: whoever cuts the connection could cut the body where it likes.
            let why = "the connection ended without TLS's close_notify";
            let error = Some(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            return self.core.fail(
                key,
                Failure::Closed {
                    missing: None,
                    error,
                },
            );
        }
        if link.marks.has(LinkMarks::RESET) {
            // A socket tells of a reset once, and the send was told. To take the end that it reads as from then on for the end
            // of a body that lasts until the close would be to call whole what was cut off.
            let missing = link.connection.missing();
            let error = Some(io::ErrorKind::ConnectionReset.into());
            return self.core.fail(key, Failure::Closed { missing, error });
        }
        match link.connection.on_eof() {
            Eof::Complete => {
                let inbound = link
                    .inbound
                    .take()
                    .unwrap_or_else(|| self.core.buffers.inbounds.take());
                // There is no next on a connection that has ended.
                let _ = self.finish_kept(state, key, inbound, &mut []);
            }
            Eof::NothingReceived => self.core.fail(
                key,
                Failure::Closed {
                    missing: None,
                    error: None,
                },
            ),
            Eof::Truncated(violation) => self.core.fail(key, Failure::Violation(violation)),
        }
    }

    pub(super) fn on_bytes(&mut self, state: &mut S, key: LinkKey, data: &mut [u8]) -> Go {
        let Some(chain) = self.core.links[key].chain() else {
            return Go::Stop;
        };
        let since_start = self.core.since_start(chain);
        let link = &mut self.core.links[key];
        if !link.marks.has(LinkMarks::RECEIVED) {
            if link.pipeline.is_some() && link.written() == 0 {
                self.core.fail_unasked(key, data.len());
                return Go::Stop;
            }
            link.marks.set(LinkMarks::RECEIVED);
            link.times.first_byte = since_start;
        }
        let mut inbound = link.inbound.take();
        match &mut inbound {
            // The head is incomplete: what has come of it stands before these bytes.
            Some(kept) if !link.connection.has_head() => {
                kept.section.extend_from_slice(data);
                let mut bytes = std::mem::take(&mut kept.section);
                let token = self.core.links.token(key);
                let go = self.feed(state, key, chain, &mut bytes, inbound, true);
                // Still incomplete: the bytes go back as they are, since copying them at each read would take quadratic time.
                // An interim head that they ended with is done with.
                if let Some(key) = self.core.links.find(token)
                    && let link = &mut self.core.links[key]
                    && link.connection.is_inside_head()
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

    /// A body of known length that is collected has grown by its last `grown` bytes, which are in place already.
    pub(super) fn on_body(&mut self, state: &mut S, key: LinkKey, grown: usize) -> Go {
        let link = &mut self.core.links[key];
        let (Some(chain), Some(mut inbound)) = (link.chain(), link.inbound.take()) else {
            return Go::Stop;
        };
        let start = inbound.body.len() - grown;
        let step = link.connection.receive(
            inbound.body.last_mut(grown),
            &mut inbound.head,
            &self.core.settings.limits,
        );
        let taken = match step {
            Ok(step) => start + step.consumed,
            Err(violation) => {
                self.core.fail(key, Failure::Violation(violation));
                return Go::Stop;
            }
        };
        // Bytes behind the response.
        let mut rest = inbound.body.split_off(taken);
        if !self.core.links[key].connection.is_complete() {
            self.core.links[key].inbound = Some(inbound);
            self.core.arm(chain, Some(Clock::Idle));
            return Go::On;
        }
        match self.finish_kept(state, key, inbound, &mut rest) {
            Some(line) => self.feed_behind(state, line, &mut rest),
            None => Go::Stop,
        }
    }

    fn feed_held(&mut self, state: &mut S, key: LinkKey) -> Go {
        let link = &mut self.core.links[key];
        let State::Busy { chain, .. } = link.state else {
            return Go::On;
        };
        let Some(inbound) = &mut link.inbound else {
            return Go::On;
        };
        // A response may also have ended with the piece after which it was paused.
        let waits = !inbound.held.is_empty() || link.connection.is_complete();
        if !waits || self.core.chains[chain].marks.has(Marks::PAUSED) {
            return Go::On;
        }
        let mut held = std::mem::take(&mut inbound.held);
        let inbound = link.inbound.take();
        self.feed(state, key, chain, &mut held, inbound, false)
    }

    /// Feeds bytes to the link's parser and what comes of them to the readback; what is behind a response, to the next in line.
    pub(super) fn feed(
        &mut self,
        state: &mut S,
        mut key: LinkKey,
        mut chain: ChainKey,
        mut data: &mut [u8],
        mut inbound: Option<Box<Inbound>>,
        mut kept: bool,
    ) -> Go {
        let (mut piece, fed) = loop {
            let mut piece = Piece {
                data: &mut *data,
                taken: 0,
                section: 0..0,
                body: 0..0,
                inbound: inbound
                    .take()
                    .unwrap_or_else(|| self.core.buffers.inbounds.take()),
                spilled: self.core.links[key].connection.has_head(),
                kept,
            };
            let fed = self.parse(state, key, chain, &mut piece);
            let Fed::Complete = fed else {
                break (piece, fed);
            };
            let taken = piece.taken;
            let line = self.finish(state, key, &mut piece);
            self.core.buffers.inbounds.give(piece.inbound);
            let Some(line) = line else {
                return Go::Stop;
            };
            data = &mut data[taken..];
            (key, chain) = match self.next_in_line(line, data) {
                Ok(next) => next,
                Err(go) => return go,
            };
            kept = false;
        };
        match fed {
            Fed::Complete => Go::Stop,
            Fed::More => {
                let between = piece.taken == piece.data.len();
                self.keep(key, piece);
                let link = &self.core.links[key];
                // Behind an interim response the wait for the final one goes on as before.
                let clock = match link.connection.has_head() || !between {
                    true => Clock::Idle,
                    false if link.marks.has(LinkMarks::SENT) => Clock::FirstByte,
                    false => Clock::Write,
                };
                // An interim response that is not 100 (Continue) makes the wait for one no longer.
                if !link.marks.has(LinkMarks::AWAITING) {
                    self.core.catch_up();
                    self.core.arm(chain, Some(clock));
                }
                Go::On
            }
            Fed::Paused => {
                let rest = piece.taken;
                piece.inbound.held = piece.data[rest..].to_vec();
                self.keep(key, piece);
                self.core.arm(chain, None);
                Go::Stop
            }
            Fed::Cancelled => {
                self.keep(key, piece);
                Go::Stop
            }
            Fed::Failed(failure) => {
                self.keep(key, piece);
                self.core.fail_unreadable(key, failure);
                Go::Stop
            }
            Fed::Unexpected => {
                self.core.buffers.inbounds.give(piece.inbound);
                self.core.disarm(chain);
                self.core.close(key);
                let chain_marks = &mut self.core.chains[chain].marks;
                chain_marks.set(Marks::NO_EXPECT);
                self.core.chains[chain].stage = Stage::New;
                self.core.agenda.restarts.push_back(chain);
                Go::Stop
            }
            Fed::Panicked => {
                self.core.buffers.inbounds.give(piece.inbound);
                self.core.close(key);
                self.end_chain(chain);
                Go::Stop
            }
        }
    }

    /// A response is complete, and told, and another has taken its place: whose the `rest` of the bytes is.
    ///
    /// # Errors
    /// Nobody's, or not now: how it goes on with the link instead.
    pub(super) fn next_in_line(
        &mut self,
        line: Token,
        rest: &[u8],
    ) -> Result<(LinkKey, ChainKey), Go> {
        // Whatever the readback asked for may have ended the link.
        let key = self.core.links.find(line).ok_or(Go::Stop)?;
        let link = &self.core.links[key];
        let State::Busy { chain, .. } = link.state else {
            return Err(Go::Stop);
        };
        if rest.is_empty() {
            let clock = match link.marks.has(LinkMarks::SENT) {
                true => Clock::FirstByte,
                false => Clock::Write,
            };
            self.core.catch_up();
            self.core.arm(chain, Some(clock));
            self.core.arm_trial(key, chain);
        }
        match (rest.is_empty(), self.panic.is_some()) {
            (true, false) => Err(Go::On),
            (false, false) => Ok((key, chain)),
            (_, true) => {
                self.hold(key, rest);
                Err(Go::Stop)
            }
        }
    }

    /// As [`feed`](Self::feed), for what has come behind a response.
    pub(super) fn feed_behind(&mut self, state: &mut S, line: Token, rest: &mut [u8]) -> Go {
        match self.next_in_line(line, rest) {
            Ok((key, chain)) => self.feed(state, key, chain, rest, None, false),
            Err(go) => go,
        }
    }

    /// Leaves what has come for the next in line to the next turn: the host hears of a panic first.
    fn hold(&mut self, key: LinkKey, rest: &[u8]) {
        if !rest.is_empty() {
            let mut inbound = self.core.buffers.inbounds.take();
            inbound.held.extend_from_slice(rest);
            self.core.links[key].inbound = Some(inbound);
        }
        self.core.run_later(key);
    }

    /// Bytes of a TLS link have come, at the front of `buffer` up to `filled`; or they had, and
    /// more was to be done with them than `share` and `budget` allowed. What the records cost
    /// beside their bytes is taken from both.
    pub(super) fn on_ciphertext(
        &mut self,
        state: &mut S,
        key: LinkKey,
        buffer: &mut [u8],
        filled: usize,
        share: &mut usize,
        budget: &mut usize,
    ) -> Go {
        let link = &mut self.core.links[key];
        let Some(session) = &mut link.session else {
            return Go::Stop;
        };
        // A body of known length is decrypted to where it stays.
        let collects = !link.marks.has(LinkMarks::STREAM.and(LinkMarks::DISCARD));
        let inbound = link.inbound.as_mut();
        let body = inbound.filter(|_| collects && link.connection.missing().is_some());
        let is_body = body.is_some();
        let mut plaintext = match body {
            Some(inbound) => inbound.body.take(),
            None => {
                debug_assert!(
                    self.core.buffers.plaintext.is_empty(),
                    "the last who used it has cleared it"
                );
                std::mem::take(&mut self.core.buffers.plaintext)
            }
        };
        let start = plaintext.len();
        let allowed = (*share).min(*budget);
        let mut left = allowed;
        let received = session.receive(buffer, filled, &mut plaintext, &mut left);
        *share -= allowed - left;
        *budget -= allowed - left;
        let grown = plaintext.len() - start;
        if is_body && let Some(inbound) = &mut link.inbound {
            inbound.body = std::mem::take(&mut plaintext).into();
        }
        if session.is_finished() || received.is_err() {
            link.marks.set(LinkMarks::CLOSE);
        }
        // The next message of the handshake, the request behind the last one, or what else the session has to say. An alert that
        // says why it has failed goes out when the link is closed.
        let was_busy = matches!(link.state, State::Busy { .. });
        let speaks = matches!(link.state, State::Handshaking { .. }) || link.has_outbound();
        if received.is_ok() && speaks {
            self.core.flush(key);
        }
        // The end that has come, or the failure, is `go_on`'s: behind what has come before it, and behind a pause.
        if is_body {
            return self.on_body(state, key, grown);
        }
        let mut go = Go::On;
        // Before its handshake is over a link has asked for nothing: a session that fails in the same read answers nothing.
        let is_busy = matches!(self.core.links[key].state, State::Busy { .. });
        if is_busy && !was_busy && !plaintext.is_empty() {
            // It was sent before the request was: as in `connect_on`.
            self.core.links[key].marks.set(LinkMarks::CLOSE);
        }
        if is_busy && !plaintext.is_empty() {
            go = self.on_bytes(state, key, &mut plaintext);
        }
        plaintext.clear();
        self.core.buffers.plaintext = plaintext;
        go
    }

    fn parse(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
        piece: &mut Piece<'_>,
    ) -> Fed {
        if self.core.chains[chain].marks.has(Marks::CANCELLED) {
            return Fed::Cancelled;
        }
        let Some(request) = &self.core.chains[chain].request else {
            return Fed::Panicked;
        };
        let limits = self.core.settings.limits_of(request);
        loop {
            let link = &mut self.core.links[key];
            if link.connection.is_complete() {
                return read_trailers(&mut piece.inbound, &limits);
            }
            let start = piece.taken;
            if let Some(len) = link.connection.take_rest(piece.data.len() - start) {
                piece.taken += len;
                let body = start..piece.taken;
                let fed = self.on_data(state, key, chain, piece, body, &limits);
                return match fed {
                    Some(fed) => fed,
                    None if self.core.chains[chain].marks.has(Marks::CANCELLED) => Fed::Cancelled,
                    None => Fed::Complete,
                };
            }
            let is_collected = !link.marks.has(LinkMarks::STREAM.and(LinkMarks::DISCARD));
            let body = piece.body.end;
            if is_collected
                && !piece.spilled
                && let Some((collected, result)) =
                    link.connection
                        .collect_chunks(&mut piece.data[body..], start - body, &limits)
            {
                piece.taken = body + collected.end;
                piece.body.end += collected.len;
                let trailers = &piece.data[body..][collected.trailers];
                piece.inbound.trailers.extend_from_slice(trailers);
                let is_over = link.connection.is_complete();
                if let Err(violation) = result.and_then(|()| piece.check_body(&limits)) {
                    return Fed::Failed(Failure::Violation(violation));
                }
                if piece.taken == piece.data.len() && !is_over {
                    return Fed::More;
                }
                continue;
            }
            let step = match link.connection.receive(
                &mut piece.data[start..],
                &mut piece.inbound.head,
                &limits,
            ) {
                Ok(step) => step,
                Err(violation) => return Fed::Failed(Failure::Violation(violation)),
            };
            piece.taken += step.consumed;
            match step.event {
                Event::More if link.connection.is_complete() => {}
                Event::More => return Fed::More,
                Event::Interim => {
                    piece.section = start..piece.taken;
                    if piece.inbound.head.status == http::StatusCode::CONTINUE
                        && link.marks.has(LinkMarks::BODY_HELD)
                    {
                        let waits = LinkMarks::AWAITING.and(LinkMarks::BODY_HELD);
                        link.marks.clear(waits);
                        self.core.flush(key);
                    }
                    let called =
                        self.show(state, key, chain, piece, |readback, state, head, cx| {
                            readback.on_interim(state, head, cx);
                        });
                    if let Err(Panicked) = called {
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
                    if let Some(fed) = self.on_data(state, key, chain, piece, range, &limits) {
                        return fed;
                    }
                }
                Event::Trailers(range) => {
                    let range = start + range.start..start + range.end;
                    let trailers = &mut piece.inbound.trailers;
                    trailers.extend_from_slice(&piece.data[range]);
                }
            }
            if self.core.chains[chain].marks.has(Marks::CANCELLED) {
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
        let link = &mut self.core.links[key];
        let status = piece.inbound.head.status;
        // The body is still here, so nothing can have been done with it.
        if link.marks.has(LinkMarks::BODY_HELD) && status == http::StatusCode::EXPECTATION_FAILED {
            return Some(Fed::Unexpected);
        }
        if !link.marks.has(LinkMarks::SENT) {
            // RFC 9112 §9.3: who answers before the end of the request may not read it to its end.
            link.marks.set(LinkMarks::CLOSE);
            let refused = status.is_client_error() || status.is_server_error();
            if refused || link.marks.has(LinkMarks::BODY_HELD) {
                link.marks.set(LinkMarks::MUTE);
                let waits = LinkMarks::AWAITING.and(LinkMarks::BODY_HELD);
                link.marks.clear(waits);
            }
        }
        if let Some(seconds) = piece.inbound.head.keep_alive_timeout {
            link.keep_alive = NonZeroU16::new(u16::try_from(seconds).unwrap_or(u16::MAX).max(1));
        }
        let shown = self.show(state, key, chain, piece, |readback, state, head, cx| {
            readback.on_head(state, head, cx)
        });
        let flow = match shown {
            Ok(flow) => flow.unwrap_or(Flow::Buffer),
            Err(Panicked) => return Some(Fed::Panicked),
        };
        let marks = &mut self.core.links[key].marks;
        match flow {
            Flow::Buffer => {
                // A length that is already too much need not be read to be refused.
                if let BodyLength::Length(length) = piece.inbound.head.length
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
                self.core.chains[chain].marks.set(Marks::PAUSED);
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
        limits: &Limits,
    ) -> Option<Fed> {
        let marks = self.core.links[key].marks;
        if marks.has(LinkMarks::DISCARD) {
            return None;
        }
        if marks.has(LinkMarks::STREAM) {
            return self.stream(state, key, chain, &piece.data[range]);
        }
        match piece.spilled {
            true => piece.inbound.body.extend_from_slice(&piece.data[range]),
            // Chunks, which have framing between them, are collected otherwise.
            false => {
                debug_assert_eq!(range.start, piece.body.end, "it follows what is there");
                piece.body.end = range.end;
            }
        }
        let violation = piece.check_body(limits).err()?;
        Some(Fed::Failed(Failure::Violation(violation)))
    }

    fn stream(&mut self, state: &mut S, key: LinkKey, chain: ChainKey, data: &[u8]) -> Option<Fed> {
        let id = self.core.chains.id(chain);
        let flow = self.run_readback(chain, id, |readback, mut cx| {
            readback.on_data(state, data, &mut cx)
        });
        match flow {
            None => Some(Fed::Panicked),
            Some(Flow::Stream | Flow::Buffer) => None,
            Some(Flow::Discard) => {
                let marks = &mut self.core.links[key].marks;
                marks.clear(LinkMarks::STREAM);
                marks.set(LinkMarks::DISCARD);
                None
            }
            Some(Flow::Pause) => {
                self.core.chains[chain].marks.set(Marks::PAUSED);
                Some(Fed::Paused)
            }
            Some(Flow::Abort) => Some(Fed::Failed(Failure::Aborted)),
        }
    }

    /// Keeps what the next read cannot do without: the head, or what has come of it, and the body so far.
    fn keep(&mut self, key: LinkKey, piece: Piece<'_>) {
        let link = &mut self.core.links[key];
        let mut inbound = piece.inbound;
        if !link.connection.has_head() {
            let rest = &piece.data[piece.taken..];
            if rest.is_empty() {
                // Interim responses, to the end of the last one: while the link waits for more, it holds no buffer.
                return self.core.buffers.inbounds.give(inbound);
            }
            inbound.section.clear();
            if !piece.kept || piece.taken > 0 {
                inbound.section.extend_from_slice(rest);
            }
        } else if !piece.spilled {
            inbound.section.clear();
            inbound
                .section
                .extend_from_slice(&piece.data[piece.section.clone()]);
            let collects = !link.marks.has(LinkMarks::STREAM.and(LinkMarks::DISCARD));
            if let Some(missing) = link.connection.missing().filter(|_| collects) {
                let expected = piece
                    .body
                    .len()
                    .saturating_add(usize::try_from(missing).unwrap_or(usize::MAX));
                inbound.body.reserve_exact(expected.min(RESERVE));
            }
            inbound
                .body
                .extend_from_slice(&piece.data[piece.body.clone()]);
        }
        link.inbound = Some(inbound);
    }

    /// A response is complete of which all is in `inbound`; `rest` is what came behind it.
    pub(super) fn finish_kept(
        &mut self,
        state: &mut S,
        key: LinkKey,
        inbound: Box<Inbound>,
        rest: &mut [u8],
    ) -> Option<Token> {
        let mut piece = Piece {
            data: rest,
            taken: 0,
            section: 0..0,
            body: 0..0,
            inbound,
            spilled: true,
            kept: false,
        };
        let line = self.finish(state, key, &mut piece);
        self.core.buffers.inbounds.give(piece.inbound);
        line
    }

    /// The response is complete: frees its link, then calls its readback. Answers the link's token where the next in line has taken its
    /// place.
    fn finish(&mut self, state: &mut S, key: LinkKey, piece: &mut Piece<'_>) -> Option<Token> {
        let chain = self.core.links[key].chain()?;
        let mut exchange = self.core.exchange(key, chain);
        let inbound = &mut *piece.inbound;
        // The timer stays: the chain's next step moves it, and no time passes before that.
        self.core.chains[chain].marks.clear(Marks::PAUSED);
        self.core.chains[chain].stage = Stage::Reading;
        self.core.counts.answered += 1;
        // At least 1, as the steps before it.
        exchange.done = (self.core.clock.micros() - self.core.chains[chain].started).max(1);
        debug!(
            "{:?} {}: answered with {}",
            self.core.links.token(key),
            self.core.origin_of(key),
            inbound.head.status.as_u16()
        );
        let leftover = piece.data.len() - piece.taken;
        let line = self.release(key, &inbound.head, leftover);
        let next = {
            let (section, body) = match piece.spilled {
                true => (&inbound.section[..], Body::Collected(&mut inbound.body)),
                false => (
                    &piece.data[piece.section.clone()],
                    Body::Lent(&piece.data[piece.body.clone()]),
                ),
            };
            let response = Response {
                head: &inbound.head,
                section,
                trailers: Headers::new(&inbound.trailers, &inbound.trailer_fields),
                body,
                exchange: &exchange,
            };
            self.run_readback(chain, exchange.id, |readback, mut cx| {
                readback.on_reply(state, Ok(response), &mut cx)
            })
        };
        self.core.chains[chain].request = Some(exchange.request);
        self.follow(chain, next);
        line
    }

    /// Takes a link from the exchange that is over: the next in line takes its place, or it rests, if it can be used again. Answers its
    /// token where there is a next.
    fn release(&mut self, key: LinkKey, head: &Head, leftover: usize) -> Option<Token> {
        if self.core.links[key].pipeline.is_some() {
            match self.core.move_up(key, head, leftover) {
                MovedUp::Next => return Some(self.core.links.token(key)),
                MovedUp::Closed => return None,
                MovedUp::Nobody => {}
            }
        }
        let link = &mut self.core.links[key];
        let mut reusable = link.connection.is_reusable()
            && link.marks.has(LinkMarks::SENT)
            && !link.marks.has(LinkMarks::CLOSE);
        if leftover > 0 {
            reusable = false;
            self.core.warn_of_unsolicited(key, leftover);
        }
        if let Some(session) = &self.core.links[key].session {
            reusable &= !session.has_pending();
        }
        // What the last event said may stand unread behind the response: an end of file, or bytes
        // out of turn.
        if reusable && self.core.links[key].readiness.has(Readiness::READ_SIDE) {
            reusable = matches!(self.core.probe(key), Probe::Open);
            self.core.quiet.on_drained(key, self.core.clock.micros());
        }
        let origin = self.core.links[key].origin;
        // A chain that goes on for ever must not keep another origin out for ever.
        if !reusable || self.core.pool.another_has_none(origin) {
            self.core.close(key);
            return None;
        }
        let link = &mut self.core.links[key];
        link.state = State::Resting;
        link.inbound = None;
        link.marks = link.marks.lasting();
        if let Some(other) = self.core.agenda.resting.replace(key) {
            debug_assert!(
                false,
                "one exchange ends at a time, and {other} still rests"
            );
            self.core.close(other);
        }
        self.core.pool.feed(origin);
        None
    }

    /// Calls a readback with a head, if it wants to see any: `None` if not.
    fn show<R>(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
        piece: &Piece<'_>,
        call: impl FnOnce(&mut dyn Readback<S>, &mut S, &Response<'_>, &mut Context<'_, S>) -> R,
    ) -> Result<Option<R>, Panicked> {
        if !self.reads_heads(chain).ok_or(Panicked)? {
            return Ok(None);
        }
        let exchange = self.core.exchange(key, chain);
        let response = Response {
            head: &piece.inbound.head,
            section: &piece.data[piece.section.clone()],
            trailers: no_fields(),
            body: Body::Lent(&[]),
            exchange: &exchange,
        };
        let shown = self.run_readback(chain, exchange.id, |readback, mut cx| {
            call(readback, state, &response, &mut cx)
        });
        self.core.chains[chain].request = Some(exchange.request);
        shown.map(Some).ok_or(Panicked)
    }
}

/// Room in a body of known length that is collected and has begun, for a read of at most `most` bytes.
#[inline]
fn room_in_body<'a>(
    inbound: &'a mut Option<Box<Inbound>>,
    connection: &Connection,
    marks: LinkMarks,
    most: usize,
) -> Option<&'a mut [u8]> {
    let inbound = inbound.as_mut()?;
    let missing = connection.missing()?;
    if marks.has(LinkMarks::STREAM.and(LinkMarks::DISCARD)) {
        return None;
    }
    // A byte more than there should be: a read that leaves it free has drained the socket, and nobody has to ask.
    let wanted =
        usize::try_from(missing).map_or(most, |missing| most.min(missing.saturating_add(1)));
    Some(inbound.body.room(RESERVE, wanted))
}
/// A readback has; the turn is to end.
struct Panicked;

/// Reads the trailer section of a response that is complete.
#[inline]
fn read_trailers(inbound: &mut Inbound, limits: &Limits) -> Fed {
    if inbound.trailers.is_empty() {
        return Fed::Complete;
    }
    match head::parse_trailers(&mut inbound.trailers, &mut inbound.trailer_fields, limits) {
        Ok(()) => Fed::Complete,
        Err(violation) => Fed::Failed(Failure::Violation(violation)),
    }
}

/// A longer body is not reserved for on its server's word alone.
const RESERVE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::Request;
    use crate::engine::Next;

    #[test]
    fn a_head_that_comes_byte_by_byte_is_examined_at_most_three_times() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let mut engine = Engine::<Option<usize>>::new().unwrap();
        engine.submit(Request::get(&url).build().unwrap(), |answered, reply, _| {
            *answered = Some(reply.unwrap().headers().len());
            Next::done()
        });
        let mut answered = None;
        engine.turn(&mut answered, Some(Duration::ZERO)).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.set_nodelay(true).unwrap();
        assert!(peer.read(&mut [0; 1024]).unwrap() > 0, "the request");

        let fields = "X-Field: with a value of some length\r\n".repeat(100);
        let long = "y".repeat(24 * 1024);
        let head = format!("HTTP/1.1 204 No Content\r\n{fields}Set-Cookie: {long}\r\n\r\n");
        let before = head::examined();
        for (i, byte) in head.bytes().enumerate() {
            peer.write_all(&[byte]).unwrap();
            while engine.core.counts.bytes_in == i as u64 {
                engine.turn(&mut answered, None).unwrap();
            }
        }
        assert_eq!(answered, Some(101));
        let examined = head::examined() - before;
        let most = 3 * head.len();
        assert!(examined <= most, "{examined} of {}", head.len());
    }
}
