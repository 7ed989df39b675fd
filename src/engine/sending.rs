//! How a request is put on a link, and written.
//!
//! A link is given requests in two places: [`load`](Core::load) puts one on a link that has none,
//! and [`join`](Core::join) one behind those that are on it. What is put on a pipelined link is not
//! written at once: the link is noted, and when all that the moment asked for has been carried out,
//! everything goes out in one send.

use std::io;

use log::{debug, trace};

use crate::engine::chain::{ChainKey, Marks};
use crate::engine::clock::tick_after;
use crate::engine::core::Core;
use crate::engine::fail::Failure;
use crate::engine::visits::{OWN_BLOCK, block_of};
use crate::h1::exchange::{Exchange, Going};
use crate::h1::line::Intake;
use crate::h1::trust::Trust;
use crate::h1::{Advance, Outlet};
use crate::net::link::Link;
use crate::net::pool::{Entry, OriginKey};
use crate::net::slots::LinkKey;
use crate::net::transport::{self, Trouble, Written};
use crate::net::{Net, Readiness};
use crate::request::Request;
use crate::timeouts::Timeout;

/// A full-sized segment of the smallest usual path: a longer request may end in a short one, which
/// Nagle's algorithm would hold back until the others are acknowledged (RFC 9293 §3.7.4).
const NAGLE_SAFE: usize = 1200;

/// How long a body waits for a 100 (Continue) before it is sent all the same (RFC 9110 §10.1.1).
const CONTINUE_MILLIS: u64 = 1000;

/// Places that one send takes the requests of a pipeline from: a request lies in two or three.
const PIPELINE_PARTS: usize = 64;

/// How many requests may be unanswered on the link that this one goes over. `None`: it goes alone.
#[inline]
pub(super) fn depth_of(entry: &Entry, request: &Request) -> Option<u16> {
    let depth = request.pipeline().unwrap_or(entry.depth);
    (depth > 1 && request.may_be_pipelined() && entry.trust != Trust::Lost).then_some(depth)
}

impl<N: Net> Core<N> {
    /// Puts the chain's request on a link that has none. False: its policy refuses that, and the
    /// chain is on the agenda.
    #[inline]
    pub(super) fn load(&mut self, key: LinkKey, chain_key: ChainKey) -> bool {
        if self.is_visited(chain_key) {
            return self.load_visited(key, chain_key);
        }
        // One step, so that the exchange is made where it stays.
        let link = &mut self.links[key];
        let entry = &self.pool[link.origin];
        let chain = &mut self.chains[chain_key];
        let (expects, submitted) = chain.begin_attempt(key);
        let request = chain.request().clone();
        let depth = depth_of(entry, &request);
        let defaults = self.settings.defaults.choose(&request);
        let block = (defaults, self.settings.defaults.block(defaults));
        let exchange = Exchange::new(chain_key, request, block, expects, submitted);
        link.h1.begin(exchange);
        if let Some(depth) = depth {
            self.begin_line(key, chain_key, depth);
        }
        true
    }

    /// [`load`](Self::load) of a request that a policy sees to.
    #[inline(never)]
    fn load_visited(&mut self, key: LinkKey, chain_key: ChainKey) -> bool {
        let Some(exchange) = self.begin_visited(key, chain_key) else {
            return false;
        };
        let link = &mut self.links[key];
        let depth = depth_of(&self.pool[link.origin], &exchange.request);
        link.h1.begin(exchange);
        if let Some(depth) = depth {
            self.begin_line(key, chain_key, depth);
        }
        true
    }

    /// An exchange of the chain's request on a link.
    #[inline(always)]
    fn begin_exchange(&mut self, key: LinkKey, chain_key: ChainKey) -> Exchange<ChainKey> {
        let chain = &mut self.chains[chain_key];
        let (expects, submitted) = chain.begin_attempt(key);
        let request = chain.request().clone();
        let defaults = self.settings.defaults.choose(&request);
        let block = (defaults, self.settings.defaults.block(defaults));
        Exchange::new(chain_key, request, block, expects, submitted)
    }

    /// The same, with the fields that its policy adds. `None`: that refuses it.
    fn begin_visited(&mut self, key: LinkKey, chain_key: ChainKey) -> Option<Exchange<ChainKey>> {
        if !self.ask_fields(chain_key) {
            return None;
        }
        let (expects, submitted) = self.chains[chain_key].begin_attempt(key);
        let request = self.chains[chain_key].request().clone();
        let which = (chain_key, OWN_BLOCK);
        let fields = block_of(which, &self.settings.defaults, &self.chains, &self.visits);
        let block = (OWN_BLOCK, fields);
        Some(Exchange::new(chain_key, request, block, expects, submitted))
    }

    /// A link that is not idle, and which the chain's request may share.
    pub(super) fn link_to_join(&self, origin: OriginKey, key: ChainKey) -> Option<LinkKey> {
        let chain = &self.chains[key];
        let depth = depth_of(&self.pool[origin], chain.request())?;
        let was_sent = chain.attempts > 0;
        let is_paused = |chain: ChainKey| self.chains[chain].marks.has(Marks::PAUSED);
        self.pool
            .roomiest(&self.links, origin, depth, was_sent, is_paused)
    }

    /// Readies a link for more requests behind the one of that depth that was just put on it.
    #[inline(never)]
    fn begin_line(&mut self, key: LinkKey, chain: ChainKey, depth: u16) {
        let was_sent = self.chains[chain].attempts > 1;
        let link = &mut self.links[key];
        let is_trusted = !self.pool[link.origin].trust.is_broken() && !was_sent;
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

    /// Puts a request behind those on a link that takes more.
    pub(super) fn join(&mut self, key: LinkKey, chain_key: ChainKey) {
        let exchange = if self.is_visited(chain_key) {
            match self.begin_visited(key, chain_key) {
                Some(exchange) => exchange,
                None => return,
            }
        } else {
            self.begin_exchange(key, chain_key)
        };
        let link = &mut self.links[key];
        let depth = exchange.request.pipeline();
        let depth = depth.unwrap_or(self.pool[link.origin].depth);
        // What waits for the socket already will be followed by this when it goes out.
        let is_first_unwritten = !link.h1.has_unwritten();
        let line = link.h1.line_mut().expect("a link with room has a line");
        line.push(exchange, depth);
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

    /// Writes what is left of the requests on an open link, as far as the socket takes it, and a
    /// turn's share lasts.
    pub(super) fn write(&mut self, key: LinkKey) {
        let h1 = &self.links[key].h1;
        if h1.is_tunnel() {
            return self.write_tunnel(key);
        }
        let has_line = h1.has_line();
        if has_line && !self.is_fit_for_more(key) {
            return;
        }
        // However fast the peer reads, others have their turn.
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

    /// Writes what waits for a tunnel, as far as the socket takes it.
    #[inline(never)]
    fn write_tunnel(&mut self, key: LinkKey) {
        // Messages are not to wait until those before are acknowledged.
        send_at_once(&mut self.links[key], &mut self.net);
        let mut left = self.settings.turn_bytes;
        loop {
            let link = &mut self.links[key];
            let chain = link.chain().expect("a tunnel has a chain");
            if link.h1.outlet() != Outlet::Open {
                // What waits goes nowhere, and nothing is to be added to it.
                return self.chains.close_tunnel(chain);
            }
            let outbox = self.chains.outbox(chain).expect("a tunnel has an outbox");
            if outbox.waiting().is_empty() && !link.has_outbound() {
                return;
            }
            let (socket, tls) = link.reach.wire().expect("a tunnel has a socket");
            let (net, scratch) = (&mut self.net, &mut self.buffers.scratch);
            let waiting = outbox.waiting();
            let parts = [&waiting[..waiting.len().min(left)]];
            match transport::write(net, socket, tls, &parts, 0, scratch) {
                Ok(done) => {
                    outbox.on_written(done.taken);
                    self.counts.bytes_out += done.sent as u64;
                    if done.is_blocked {
                        link.readiness = link.readiness.without(Readiness::WRITABLE);
                        return;
                    }
                    left = left.saturating_sub(done.taken);
                    if left == 0 {
                        return self.run_later(key);
                    }
                }
                Err(trouble) => return self.on_trouble(key, trouble),
            }
        }
    }

    /// Whether more may be written on a pipelined link, and settles how many of those behind. The
    /// link has failed if not.
    #[inline(never)]
    fn is_fit_for_more(&mut self, key: LinkKey) -> bool {
        self.pace(key);
        let line = self.links[key].h1.line_mut();
        if line.is_some_and(|line| std::mem::take(&mut line.is_unsure)) {
            self.read_clock();
            if !self.is_still_quiet(key) {
                let (missing, error) = (None, None);
                self.fail(key, Failure::Closed { missing, error });
                return false;
            }
        }
        true
    }

    /// Settles how many of those behind may be written now.
    fn pace(&mut self, key: LinkKey) {
        let link = &mut self.links[key];
        let is_unwritten = link.h1.front().is_some_and(|front| front.written() == 0);
        let Some(line) = link.h1.line_mut() else {
            return;
        };
        let trust = &mut self.pool[link.origin].trust;
        match *trust {
            Trust::Full | Trust::Wary { .. } => line.hold_nothing_back(),
            Trust::Untried { on_trial: true, .. } | Trust::Lost => {}
            Trust::Untried {
                on_trial: false,
                most,
                ..
            } => {
                if is_unwritten && line.begin_trial(most) {
                    trust.set_on_trial(true);
                }
            }
        }
    }

    /// Writes what is left of the only request, once. `None`: there is nothing to be written.
    #[inline]
    fn write_once(&mut self, key: LinkKey) -> Option<Result<Written, Trouble>> {
        let link = &mut self.links[key];
        if link.h1.outlet() != Outlet::Open {
            return None;
        }
        let Some(Going::Out {
            written, writable, ..
        }) = link.h1.front().map(Exchange::going)
        else {
            return if link.has_outbound() {
                self.write_outbound(key)
            } else {
                None
            };
        };
        if writable > NAGLE_SAFE {
            send_at_once(link, &mut self.net);
        }
        let Link { h1, reach, .. } = link;
        let (socket, tls) = reach.wire().expect("an open link has a socket");
        let (net, scratch) = (&mut self.net, &mut self.buffers.scratch);
        let front = h1.front().expect("it goes out");
        let (defaults, chains, visits) = (&self.settings.defaults, &self.chains, &self.visits);
        let layout = front.layout(|number| block_of((front.tag, number), defaults, chains, visits));
        let parts = layout.parts();
        Some(transport::write(net, socket, tls, parts, written, scratch))
    }

    /// Writes what a link's TLS state has to say, once. `None`: the peer hears nothing any more.
    #[inline(never)]
    fn write_outbound(&mut self, key: LinkKey) -> Option<Result<Written, Trouble>> {
        let link = &mut self.links[key];
        if !link.h1.is_writable() {
            return None;
        }
        let (socket, tls) = link.reach.wire().expect("an open link has a socket");
        let (net, scratch) = (&mut self.net, &mut self.buffers.scratch);
        Some(transport::write(net, socket, tls, &[], 0, scratch))
    }

    /// As [`write_once`](Self::write_once), of all requests on a pipelined link. Apart, so that the
    /// places that it needs stand on no other's stack.
    #[inline(never)]
    fn write_pipeline_once(&mut self, key: LinkKey) -> Option<Result<Written, Trouble>> {
        let link = &mut self.links[key];
        if !link.h1.is_writable() || !link.has_unwritten() {
            return None;
        }
        // A request that follows others unacknowledged is what Nagle's algorithm holds back.
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

    /// The socket, or the TLS state, has taken bytes of the request in front and of those behind
    /// it. Answers whether more may be to be written.
    #[inline(always)]
    pub(super) fn on_written(&mut self, key: LinkKey, done: Written) -> bool {
        self.counts.bytes_out += done.sent as u64;
        let now = self.clock.micros();
        let link = &mut self.links[key];
        // What a TLS state has taken of a pipeline counts as sent: it is 64 KiB at most, and cannot
        // be taken back.
        let has_line = link.h1.has_line();
        let is_flushed = has_line || !link.has_outbound();
        let (advance, behind) = link.h1.on_written(done.taken, is_flushed, now);
        self.counts.pipelined += behind;
        let Some(chain_key) = link.chain() else {
            return false;
        };
        match advance {
            Advance::None => {}
            // The socket took bytes: the write deadline starts anew.
            Advance::Partly if done.sent > 0 => self.arm(chain_key, Some(Timeout::Write)),
            Advance::Partly => {}
            Advance::AwaitsContinue => {
                // The chain's timer lets the body go if no 100 (Continue) does before.
                let due = now + CONTINUE_MILLIS * 1000;
                self.arm_at(chain_key, tick_after(due));
            }
            Advance::Sent => {
                let clock = match link.h1.response().has_head() {
                    false => Some(Timeout::FirstByte),
                    true if self.chains[chain_key].marks.has(Marks::PAUSED) => None,
                    true => Some(Timeout::Idle),
                };
                self.arm(chain_key, clock);
            }
        }
        has_line || matches!(advance, Advance::None | Advance::Partly)
    }

    /// Nothing can be written any more. Whoever was writing goes on with the link, which is ended
    /// when it is dealt with next.
    pub(super) fn on_trouble(&mut self, key: LinkKey, trouble: Trouble) {
        let token = self.links.token(key);
        let link = &mut self.links[key];
        match trouble {
            Trouble::Io(error) => {
                // The peer may have answered before it stopped listening: its response, and what
                // ended the connection, are still to be read (RFC 9112 §9.6).
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
        self.run_later(key);
    }

    /// Has the link dealt with again, in this turn or the next.
    pub(super) fn run_later(&mut self, key: LinkKey) {
        let token = self.links.token(key);
        if !std::mem::replace(&mut self.links[key].is_queued, true) {
            self.agenda.run_queue.push_back(token);
        }
    }
}

/// Has small segments go out at once from now on.
fn send_at_once<N: Net>(link: &mut Link<N::Socket>, net: &mut N) {
    if !std::mem::replace(&mut link.is_undelayed, true) {
        let socket = link.socket().expect("an open link has a socket");
        if let Err(error) = net.set_nodelay(socket) {
            trace!("TCP_NODELAY refused ({error})");
        }
    }
}
