//! Puts requests on links, and writes them.
//!
//! There are two ways onto a link: [`load`](Core::load) puts a request on an empty link, and
//! [`join`](Core::join) puts one behind those already on the link. A pipelined request is not
//! written at once. Its link is recorded, and written to once all pending operations have been
//! carried out, so all requests that were put on it go out in one send.

use std::io;

use log::debug;

use crate::engine::chain::{Chain, ChainKey, Marks};
use crate::engine::clock::tick_after;
use crate::engine::core::Core;
use crate::engine::fail::Failure;
use crate::engine::meter::LEAST_BURST;
use crate::engine::settings::Settings;
use crate::engine::supplies::SupplyFailure;
use crate::engine::visits::{Asked, OWN_BLOCK, block_of};
use crate::engine::writing::send_at_once;
use crate::h1::exchange::{Exchange, Going};
use crate::h1::line::Intake;
use crate::h1::trust::Trust;
use crate::h1::{Advance, WriteSide};
use crate::net::link::Link;
use crate::net::pool::{Entry, OriginKey};
use crate::net::slots::LinkKey;
use crate::net::transport::{self, Trouble, Written};
use crate::net::{Net, Readiness};
use crate::request::Request;
use crate::timeouts::Timeout;

/// The size of a full segment on the smallest path in common use, in bytes. A longer request may
/// end in a short segment, which Nagle's algorithm would hold back until the segments before it are
/// acknowledged (RFC 9293 §3.7.4).
const NAGLE_SAFE: usize = 1200;

/// The maximum number of slices in one send of a pipeline. A request takes two or three.
const PIPELINE_PARTS: usize = 64;

/// Returns how many requests may be unanswered on the link of this one, or `None` if the request is
/// not pipelined.
#[inline]
pub(super) fn depth_of(entry: &Entry, request: &Request) -> Option<u16> {
    let depth = request.pipeline(entry.depth);
    (depth > 1 && request.may_be_pipelined() && entry.trust != Trust::Lost).then_some(depth)
}

impl<N: Net> Core<N> {
    /// Puts the chain's request on an empty link. Returns false if the policy refused: the chain is
    /// then on the agenda.
    #[inline]
    pub(super) fn load(&mut self, key: LinkKey, chain_key: ChainKey) -> bool {
        if self.chains[chain_key].request().carried_body().is_some() {
            return self.load_supplied(key, chain_key);
        }
        self.load_exchange(key, chain_key)
    }

    /// Does what [`load`](Self::load) does, for a request whose body has a source.
    #[cold]
    #[inline(never)]
    fn load_supplied(&mut self, key: LinkKey, chain_key: ChainKey) -> bool {
        if !self.open_supply(chain_key) {
            return false;
        }
        if !self.load_exchange(key, chain_key) {
            self.end_metering(chain_key);
            return false;
        }
        self.begin_supply(key, chain_key);
        true
    }

    #[inline(always)]
    fn load_exchange(&mut self, key: LinkKey, chain_key: ChainKey) -> bool {
        let mut asked = Asked::Defaults;
        if self.is_visited(chain_key) {
            asked = self.ask_fields(chain_key);
            if asked == Asked::Refused {
                return false;
            }
        }
        // Written out in one piece, so the exchange is built in place and not moved.
        let link = &mut self.links[key];
        let entry = &self.pool[link.origin];
        let chain = &mut self.chains[chain_key];
        let expects = chain.begin_attempt(key);
        let request = chain.request().clone();
        let depth = depth_of(entry, &request);
        let number = match asked {
            Asked::Block => OWN_BLOCK,
            Asked::Defaults | Asked::Refused => self.settings.defaults.choose(&request),
        };
        let which = (chain_key, number);
        let block = block_of(which, &self.settings.defaults, &self.chains, &self.visits);
        let block = (number, block);
        let exchange = Exchange::new(chain_key, request, block, expects, self.clock.micros());
        link.h1.begin(exchange);
        if let Some(front) = link.h1.front_mut()
            && self.settings.may_limit_speed_of(&front.request)
        {
            begin_metering(front, &mut self.chains[chain_key], &self.settings);
        }
        if let Some(depth) = depth {
            self.begin_line(key, chain_key, depth);
        }
        true
    }

    /// Builds the exchange of a chain's request on a link. Returns `None` if its policy refused.
    #[inline(always)]
    fn begin_exchange(&mut self, key: LinkKey, chain_key: ChainKey) -> Option<Exchange<ChainKey>> {
        let mut asked = Asked::Defaults;
        if self.is_visited(chain_key) {
            asked = self.ask_fields(chain_key);
            if asked == Asked::Refused {
                return None;
            }
        }
        let chain = &mut self.chains[chain_key];
        let expects = chain.begin_attempt(key);
        let request = chain.request().clone();
        let number = match asked {
            Asked::Block => OWN_BLOCK,
            Asked::Defaults | Asked::Refused => self.settings.defaults.choose(&request),
        };
        let which = (chain_key, number);
        let block = block_of(which, &self.settings.defaults, &self.chains, &self.visits);
        let block = (number, block);
        let now = self.clock.micros();
        Some(Exchange::new(chain_key, request, block, expects, now))
    }

    /// Returns a link with pipelined requests that the chain's request may join.
    pub(super) fn link_to_join(&self, origin: OriginKey, key: ChainKey) -> Option<LinkKey> {
        let chain = &self.chains[key];
        let depth = depth_of(&self.pool[origin], chain.request())?;
        let was_sent = chain.attempts > 0;
        let (chains, ages, now) = (&self.chains, &self.ages, self.clock.micros());
        let is_unfit = |link: LinkKey, front: Option<ChainKey>| {
            ages.is_over(link, now)
                || front.is_some_and(|front| chains[front].marks.has(Marks::PAUSED))
        };
        self.pool
            .roomiest(&self.links, origin, depth, was_sent, is_unfit)
    }

    /// Prepares a link that just got its first request for more behind it, up to `depth`.
    #[inline(never)]
    fn begin_line(&mut self, key: LinkKey, chain: ChainKey, depth: u16) {
        let was_sent = self.chains[chain].attempts > 1;
        let link = &mut self.links[key];
        let is_trusted = !self.pool[link.origin].trust.is_broken() && !was_sent;
        // RFC 9112 §9.3.2: a request whose connection broke is not pipelined again on a connection
        // that has answered nothing yet. After a break, the same applies to all requests to that
        // origin.
        let intake = if link.h1.is_reused() || is_trusted {
            Intake::Open
        } else {
            Intake::AfterAnswer
        };
        let mut line = self.buffers.lines.take();
        line.begin(depth, intake);
        link.h1.begin_line(line);
        self.pool.note_room(&mut self.links, key);
    }

    /// Puts a request behind those on a link that has room for more.
    pub(super) fn join(&mut self, key: LinkKey, chain_key: ChainKey) {
        let Some(exchange) = self.begin_exchange(key, chain_key) else {
            return;
        };
        let link = &mut self.links[key];
        let depth = exchange.request.pipeline(self.pool[link.origin].depth);
        // A link with unwritten bytes is written to anyway, and this request follows them.
        let is_first_unwritten = !link.h1.has_unwritten();
        let line = link.h1.line_mut().expect("a link with room has a line");
        let is_metered = self.settings.may_limit_speed_of(&exchange.request);
        line.push(exchange, depth);
        if is_metered && let Some(last) = line.last_mut() {
            begin_metering(last, &mut self.chains[chain_key], &self.settings);
        }
        if is_first_unwritten {
            self.note_unwritten(key);
        }
        self.pool.note_room(&mut self.links, key);
        // Until it reaches the front, a request has only its total deadline, as in the queue.
        self.arm(chain_key, None);
    }

    /// Records a link that is to be written to once all pending operations have been carried out,
    /// or, if it was opened ahead, put into the pool.
    pub(super) fn note_unwritten(&mut self, key: LinkKey) {
        self.agenda.unwritten.push(self.links.token(key));
    }

    /// Writes the rest of the requests on an open link, as far as the socket accepts it, and up to
    /// one link's share of a turn.
    pub(super) fn write(&mut self, key: LinkKey) {
        let h1 = &self.links[key].h1;
        if h1.is_tunnel() {
            return self.write_tunnel(key);
        }
        let has_line = h1.has_line();
        if has_line && !self.is_fit_for_more(key) {
            return;
        }
        // Limited, so the other links get their turn however fast the peer reads.
        let mut left = self.settings.turn_bytes;
        loop {
            let written = if has_line {
                self.write_pipeline_once(key)
            } else {
                self.write_once(key)
            };
            let done = match written {
                Some(Ok(done)) => done,
                Some(Err(trouble)) => return self.on_trouble(key, trouble),
                None => return,
            };
            let is_left = self.on_written(key, done);
            if done.is_blocked {
                let link = &mut self.links[key];
                link.readiness = link.readiness.without(Readiness::WRITABLE);
                return;
            }
            if !is_left {
                return;
            }
            left = left.saturating_sub(done.sent);
            if left == 0 {
                return self.run_later(key);
            }
        }
    }

    /// Writes the bytes waiting for a tunnel, and what its source supplies once these are written,
    /// as far as the socket accepts them. A failure of the source closes the link.
    #[inline(never)]
    fn write_tunnel(&mut self, key: LinkKey) {
        let chain = self.links[key].chain().expect("a tunnel has a chain");
        match self.write_tunnel_on(key, chain) {
            Ok(()) => {}
            // The caller may still use the link; a command ends its exchange.
            Err(failure) => {
                let outbox = self.chains.outbox(chain);
                let source = outbox.map(|outbox| outbox.fail(failure));
                self.discard(source);
                self.chains.fail_body(chain);
            }
        }
    }

    /// Writes what waits for a tunnel, or is supplied now, as far as the socket accepts it at once:
    /// the tunnel is about to be closed. Does nothing for other links. Returns false if a source
    /// has panicked.
    pub(super) fn write_last(&mut self, key: LinkKey, chain: ChainKey) -> bool {
        if !self.links[key].h1.is_tunnel() {
            return true;
        }
        if let Some(outbox) = self.chains.outbox(chain) {
            outbox.wake();
        }
        !matches!(
            self.write_tunnel_on(key, chain),
            Err(SupplyFailure::Panicked)
        )
    }

    fn write_tunnel_on(&mut self, key: LinkKey, chain: ChainKey) -> Result<(), SupplyFailure> {
        // A message must not wait until the ones before it are acknowledged.
        send_at_once(&mut self.links[key], &mut self.net);
        let mut left = self.settings.turn_bytes;
        let is_capped = self.links[key].h1.front().is_some_and(Exchange::is_capped);
        loop {
            if self.links[key].h1.write_side() != WriteSide::Open {
                // Nothing can be written any more, so the waiting bytes are dropped and no more are
                // accepted.
                self.end_tunnel(chain);
                return Ok(());
            }
            let mut piece = None;
            match self.pull_tunnel(chain)? {
                // A cap lets only a part of it pass.
                Some(whole) if is_capped => self.give_back_piece(chain, whole, 0),
                pulled => piece = pulled,
            }
            let has_outbound = self.links[key].has_outbound();
            let outbox = self.chains.outbox(chain).expect("a tunnel has an outbox");
            outbox.on_looked_at();
            let waiting = piece.as_ref().map_or(outbox.waiting().len(), Vec::len);
            let mut most = waiting.min(left);
            if is_capped && most > 0 {
                most = self.room_to_write(key, most).unwrap_or(0);
            }
            if most == 0 && !has_outbound {
                return Ok(());
            }
            let link = &mut self.links[key];
            let outbox = self.chains.outbox(chain).expect("a tunnel has an outbox");
            let (socket, tls) = link.reach.wire().expect("a tunnel has a socket");
            let (net, scratch) = (&mut self.net, &mut self.buffers.scratch);
            let bytes = piece.as_deref().unwrap_or(outbox.waiting());
            let written = transport::write(net, socket, tls, &[&bytes[..most]], 0, scratch);
            let taken = written.as_ref().map_or(0, |done| done.taken);
            match piece {
                Some(piece) => self.give_back_piece(chain, piece, taken),
                None => outbox.on_written(taken),
            }
            let done = match written {
                Ok(done) => done,
                Err(trouble) => {
                    self.on_trouble(key, trouble);
                    return Ok(());
                }
            };
            self.counts.bytes_out += done.sent as u64;
            if done.is_blocked {
                let link = &mut self.links[key];
                link.readiness = link.readiness.without(Readiness::WRITABLE);
            }
            self.note_written(chain, done);
            self.on_tunnel_written(chain, done.is_blocked, done.sent > 0);
            if done.is_blocked {
                return Ok(());
            }
            left = left.saturating_sub(done.taken);
            if left == 0 {
                self.run_later(key);
                return Ok(());
            }
        }
    }

    /// Prepares a pipelined link for a write: determines how many of the requests behind the front
    /// may be written, and checks that the connection has no unread data. Returns false if the
    /// check failed the link.
    #[inline(never)]
    fn is_fit_for_more(&mut self, key: LinkKey) -> bool {
        self.pace(key);
        let line = self.links[key].h1.line_mut();
        if line.is_some_and(|line| std::mem::take(&mut line.is_unsure)) {
            // Everything written has been answered, so unread bytes answer nothing. After a new
            // request they would be taken for its response.
            self.read_clock();
            if !self.is_still_quiet(key) {
                let (missing, error) = (None, None);
                self.fail(key, Failure::Closed { missing, error });
                return false;
            }
        }
        true
    }

    /// Determines how many of the requests behind the front may be written now.
    fn pace(&mut self, key: LinkKey) {
        let link = &mut self.links[key];
        // A request with a capped upload does not go out in one send with others.
        let is_first = |front: &Exchange<_>| front.written() == 0 && !front.is_capped();
        let is_unwritten = link.h1.front().is_some_and(is_first);
        let Some(line) = link.h1.line_mut() else {
            return;
        };
        let trust = &mut self.pool[link.origin].trust;
        match *trust {
            Trust::Full | Trust::Wary { .. } => line.hold_nothing_back(),
            // Nothing follows a trial until all of it is answered, on this connection or another.
            Trust::Untried { on_trial: true, .. } | Trust::Lost => {}
            Trust::Untried {
                on_trial: false,
                most,
                ..
            } => {
                // A trial is a batch in one send, so it can begin only before the front is written.
                if is_unwritten && line.begin_trial(most) {
                    trust.set_on_trial(true);
                }
            }
        }
    }

    /// Writes the rest of a link's only request, in one send. Returns `None` if there is nothing to
    /// write.
    #[inline]
    fn write_once(&mut self, key: LinkKey) -> Option<Result<Written, Trouble>> {
        let link = &mut self.links[key];
        if link.h1.write_side() != WriteSide::Open {
            return None;
        }
        let Some(Going::Out {
            written, writable, ..
        }) = link.h1.front().map(Exchange::going)
        else {
            return self.write_rest_once(key);
        };
        // Any cap allows as much as that at once.
        if writable > LEAST_BURST {
            if link.h1.front().is_some_and(Exchange::is_capped) {
                return self.write_capped_once(key);
            }
            if writable > NAGLE_SAFE {
                send_at_once(link, &mut self.net);
            }
        }
        let Link { h1, reach, .. } = link;
        let (socket, tls) = reach.wire().expect("an open link has a socket");
        let (net, scratch) = (&mut self.net, &mut self.buffers.scratch);
        let front = h1
            .front()
            .expect("a request that is being written is in front");
        let (defaults, chains, visits) = (&self.settings.defaults, &self.chains, &self.visits);
        let layout = front.layout(|number| block_of((front.tag, number), defaults, chains, visits));
        let parts = layout.parts();
        Some(transport::write(net, socket, tls, parts, written, scratch))
    }

    /// Does what [`write_once`](Self::write_once) does, where there is no request in memory to be
    /// written.
    #[cold]
    fn write_rest_once(&mut self, key: LinkKey) -> Option<Result<Written, Trouble>> {
        let link = &self.links[key];
        let going = link.h1.front().map(Exchange::going);
        match going {
            Some(Going::Supply) => self.write_supplied_once(key),
            _ if link.has_outbound() => self.write_outbound(key),
            _ => None,
        }
    }

    /// Does what [`write_once`](Self::write_once) does, for a request whose upload is capped.
    /// Returns `None` if the cap holds it back, too.
    #[cold]
    fn write_capped_once(&mut self, key: LinkKey) -> Option<Result<Written, Trouble>> {
        let link = &self.links[key];
        if link.h1.write_side() != WriteSide::Open {
            return None;
        }
        let front = link.h1.front()?;
        let (written, left) = (front.written(), front.writable() - front.written());
        let has_outbound = link.has_outbound();
        let room = match left {
            // All of it has been encrypted.
            0 => 0,
            left => match self.room_to_write(key, left) {
                None if !has_outbound => return None,
                room => room.unwrap_or(0),
            },
        };
        let link = &mut self.links[key];
        // The pieces are small. Each would be held back until the one before it is acknowledged.
        send_at_once(link, &mut self.net);
        let Link { h1, reach, .. } = link;
        let (socket, tls) = reach.wire().expect("an open link has a socket");
        let (net, scratch) = (&mut self.net, &mut self.buffers.scratch);
        let front = h1.front()?;
        let (defaults, chains, visits) = (&self.settings.defaults, &self.chains, &self.visits);
        let layout = front.layout(|number| block_of((front.tag, number), defaults, chains, visits));
        let layout = layout.up_to(written + room);
        let parts = layout.parts();
        Some(transport::write(net, socket, tls, parts, written, scratch))
    }

    /// Does what [`write_once`](Self::write_once) does, for all requests on a pipelined link. It is
    /// not inlined, so plain writes need no stack for its array of slices.
    #[inline(never)]
    fn write_pipeline_once(&mut self, key: LinkKey) -> Option<Result<Written, Trouble>> {
        let link = &mut self.links[key];
        if !link.h1.is_writable() || !link.has_unwritten() {
            return None;
        }
        let is_capped = |front: &Exchange<_>| front.is_capped() && front.has_unwritten();
        if link.h1.front().is_some_and(is_capped) {
            return self.write_capped_once(key);
        }
        // Nagle's algorithm would hold back a request that follows unacknowledged ones.
        if link.h1.follows_others() {
            send_at_once(link, &mut self.net);
        }
        let Link { h1, reach, .. } = link;
        let (socket, tls) = reach.wire().expect("an open link has a socket");
        let (net, scratch) = (&mut self.net, &mut self.buffers.scratch);
        let (defaults, chains, visits) = (&self.settings.defaults, &self.chains, &self.visits);
        let block = |tag, number| block_of((tag, number), defaults, chains, visits);
        let (outgoing, skip) = h1.outgoing::<PIPELINE_PARTS>(block);
        let parts = outgoing.parts();
        Some(transport::write_from::<PIPELINE_PARTS, _>(
            net, socket, tls, parts, skip, scratch,
        ))
    }

    /// Processes bytes that the socket or the TLS state accepted, first of the request in front and
    /// then of those behind it. Returns whether there may be more to write.
    #[inline(always)]
    pub(super) fn on_written(&mut self, key: LinkKey, done: Written) -> bool {
        self.counts.bytes_out += done.sent as u64;
        let now = self.clock.micros();
        let link = &mut self.links[key];
        // On a pipelined link, bytes that the TLS state accepted count as sent: they are at most 64
        // KiB, and cannot be taken back.
        let has_line = link.h1.has_line();
        let is_flushed = has_line || !link.has_outbound();
        let (advance, behind) = link.h1.on_written(done.taken, is_flushed, now);
        self.counts.pipelined += behind;
        let Some(chain_key) = link.chain() else {
            return false;
        };
        match advance {
            Advance::None => {}
            Advance::Partly | Advance::NeedsSupply => self.on_partly_written(chain_key, done),
            Advance::AwaitsContinue => {
                self.note_written(chain_key, done);
                // If this timer goes off before a 100 (Continue), the body is sent anyway.
                let due = now + self.chains[chain_key].request().continue_wait();
                self.arm_at(chain_key, tick_after(due));
            }
            Advance::Sent => {
                let clock = match link.h1.response().has_head() {
                    false => Some(Timeout::FirstByte),
                    true if self.chains[chain_key].marks.has(Marks::PAUSED) => None,
                    true => Some(Timeout::Idle),
                };
                self.arm(chain_key, clock);
                if self.is_visited(chain_key) {
                    self.give_back_block(chain_key);
                }
            }
        }
        has_line
            || matches!(
                advance,
                Advance::None | Advance::Partly | Advance::NeedsSupply
            )
    }

    #[cold]
    fn on_partly_written(&mut self, key: ChainKey, done: Written) {
        self.note_written(key, done);
        if done.sent > 0 {
            // The socket accepted bytes, so the write deadline starts anew.
            self.arm(key, Some(Timeout::Write));
        }
    }

    /// Handles a failed write. The caller may still use the link; it is ended when it is next
    /// processed.
    pub(super) fn on_trouble(&mut self, key: LinkKey, trouble: Trouble) {
        let token = self.links.token(key);
        let link = &mut self.links[key];
        match trouble {
            Trouble::Io(error) => {
                // The peer may have answered before it stopped reading, so its response and the
                // reason for the end still have to be read (RFC 9112 §9.6).
                link.h1
                    .on_write_failed(error.kind() == io::ErrorKind::ConnectionReset);
                link.readiness = link
                    .readiness
                    .with(Readiness::READABLE)
                    .with(Readiness::ERROR);
                debug!(
                    "{token:?} {}: writing failed ({error})",
                    self.origin_of(key)
                );
            }
            Trouble::Tls(problem) => {
                link.h1.on_write_failed(false);
                debug!("{token:?} writing failed ({problem})");
            }
        }
        if let Some(chain) = self.links[key].chain()
            && self.chains[chain].marks.has(Marks::PAUSED)
        {
            // It no longer waits for the peer to accept the rest of the request.
            self.arm_again(key, chain, false);
        }
        self.run_later(key);
    }

    /// Queues the link to be processed again, in this turn or the next.
    pub(super) fn run_later(&mut self, key: LinkKey) {
        let token = self.links.token(key);
        if !std::mem::replace(&mut self.links[key].is_queued, true) {
            self.agenda.run_queue.push_back(token);
        }
    }
}

/// Prepares a chain and its exchange for a limit on their speed, if there is one.
#[cold]
fn begin_metering(exchange: &mut Exchange<ChainKey>, chain: &mut Chain, settings: &Settings) {
    if settings.limits_speed_of(&exchange.request) {
        chain.marks.set(Marks::METERED);
        exchange.cap_upload();
    }
}
