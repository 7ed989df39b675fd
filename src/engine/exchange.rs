//! Exchanges: how a request gets its connection and is written, and how an exchange ends when no response ends it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;

use log::{debug, trace, warn};

use crate::config::Clock;
use crate::engine::chains::{ChainKey, Marks, Stage};
use crate::engine::mode::Mode;
use crate::engine::{Engine, Exhaustion, Timer, close_socket};
use crate::error::{Circumstances, Error, ErrorKind, Phase, Sent, is_exhaustion, is_reset};
use crate::net::link::{Candidates, Link, LinkMarks, State};
use crate::net::names::{Known, candidates};
use crate::net::pool::OriginKey;
use crate::net::slots::LinkKey;
use crate::net::{Net, Readiness};
use crate::proto::Violation;
use crate::request::Request;
use crate::resolver::LookupError;

/// Why an exchange ends without a response.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection ended: before the response, or inside it.
    Closed {
        missing: Option<u64>,
        error: Option<io::Error>,
    },
    Io(io::Error),
    Violation(Violation),
    Connect(io::Error),
    /// Of several addresses none could be connected to.
    ConnectAll(Vec<(SocketAddr, io::Error)>),
    Resolve(LookupError),
    Timeout,
    Cancelled,
    Aborted,
}

/// Where the bytes of a request lie: head, default fields, body. The head is in two parts where its `Expect` line is left out.
struct Wire<'a> {
    parts: [&'a [u8]; 4],
    /// Bytes to be sent now.
    due: usize,
}

impl<'a> Wire<'a> {
    fn new(request: &'a Request, block: &'a [u8], marks: LinkMarks) -> Self {
        let head = request.wire_head();
        let (front, back) = match request.expect_line() {
            Some(line) if !marks.has(LinkMarks::EXPECTING) => {
                (&head[..line.start], &head[line.end..])
            }
            _ => (head, &head[..0]),
        };
        let body = request.wire_body();
        let held = marks.has(LinkMarks::BODY_HELD);
        let due = front.len() + back.len() + block.len() + if held { 0 } else { body.len() };
        Self {
            parts: [front, back, block, body],
            due,
        }
    }
}

/// A full-sized segment of the smallest usual path: a longer request may end in a short one, which Nagle's algorithm would
/// hold back until the others are acknowledged (RFC 9293 §3.7.4).
const NAGLE_SAFE: usize = 1200;

/// How often a thing is tried again that this machine had no room for.
const EXHAUSTION_RETRY_MILLIS: u64 = 100;

/// How long a body waits for a 100 (Continue) before it is sent all the same (RFC 9110 §10.1.1).
const CONTINUE_MILLIS: u64 = 1000;

impl<S, M: Mode> Engine<S, M> {
    /// Puts a request on a link that rests.
    pub(super) fn assign(&mut self, key: LinkKey, chain_key: ChainKey) {
        self.counts.reused += 1;
        let link = &mut self.links[key];
        link.state = State::Busy {
            chain: chain_key,
            written: 0,
        };
        link.marks = link.marks.lasting().and(LinkMarks::REUSED);
        link.times = Default::default();
        self.load(key, chain_key);
        self.flush(key);
        if !self.links[key]
            .marks
            .has(LinkMarks::SENT.and(LinkMarks::BODY_HELD))
        {
            self.arm(chain_key, Some(Clock::Write));
        }
    }

    /// Opens a link for a request.
    pub(super) fn open(&mut self, origin: OriginKey, chain_key: ChainKey) {
        let key = self.links.insert(Link::new(origin, chain_key));
        self.pool.on_opened(origin);
        self.load(key, chain_key);
        let token = self.links.token(key);
        let Some(request) = &self.chains[chain_key].request else {
            return;
        };
        match self.names.ask(request.host(), request.port(), token) {
            Known::One(addr) => self.connect(key, chain_key, addr, None),
            Known::Several(rest) => self.connect_next(key, chain_key, Box::new(rest)),
            Known::Later => {
                debug!(
                    "{token:?} {}: looking up the host",
                    self.pool[origin].origin
                );
                self.arm(chain_key, Some(Clock::Resolve));
            }
        }
    }

    /// Readies a link for the chain's request.
    fn load(&mut self, key: LinkKey, chain_key: ChainKey) {
        let chain = &mut self.chains[chain_key];
        chain.stage = Stage::Running { link: key };
        chain.attempts = chain.attempts.saturating_add(1);
        let Some(request) = &chain.request else {
            return;
        };
        let link = &mut self.links[key];
        link.defaults = self.settings.defaults.choose(request);
        link.connection.expect_response(request.is_head());
        if request.wants_close() {
            link.marks.set(LinkMarks::CLOSE);
        }
        if request.expect_line().is_some() && !chain.marks.has(Marks::NO_EXPECT) {
            link.marks
                .set(LinkMarks::EXPECTING.and(LinkMarks::BODY_HELD));
        }
    }

    /// The look-up of a link's host has ended.
    pub(super) fn on_resolved(
        &mut self,
        key: LinkKey,
        port: u16,
        addresses: Result<&[std::net::IpAddr], &LookupError>,
    ) {
        let State::Resolving { chain } = self.links[key].state else {
            return;
        };
        match addresses {
            Ok([one]) => self.connect(key, chain, SocketAddr::new(*one, port), None),
            Ok(several) => {
                self.connect_next(key, chain, Box::new(candidates(several, port)));
            }
            Err(LookupError::Exhausted(why)) => self.wait_for_room(key, chain, why.clone()),
            Err(error) => self.fail(key, Failure::Resolve(error.clone())),
        }
    }

    fn connect_next(&mut self, key: LinkKey, chain: ChainKey, mut rest: Box<Candidates>) {
        match rest.left.pop() {
            Some(addr) => self.connect(key, chain, addr, Some(rest)),
            None => self.fail(key, Failure::ConnectAll(rest.failed)),
        }
    }

    /// Begins to connect a link; the request follows at once, since on loopback the connection is there already.
    fn connect(
        &mut self,
        key: LinkKey,
        chain: ChainKey,
        addr: SocketAddr,
        rest: Option<Box<Candidates>>,
    ) {
        let resolved = self.since_start(chain);
        let first = matches!(self.links[key].state, State::Resolving { .. });
        let socket = loop {
            match self.dial(key, addr) {
                Ok(socket) => break socket,
                Err(error) if is_exhaustion(&error) => {
                    // An idle link's descriptor or port serves better here.
                    match self.pool.oldest_idle_of_all() {
                        Some(idle) => self.close_idle_link(idle),
                        None => return self.wait_for_room(key, chain, error.to_string()),
                    }
                }
                Err(error) => return self.connect_failed(key, chain, addr, rest, error),
            }
        };
        let link = &mut self.links[key];
        link.socket = Some(socket);
        link.peer = addr.into();
        link.state = State::Connecting { chain, rest };
        if first {
            link.times.resolve = resolved;
            self.counts.opened += 1;
            self.arm(chain, Some(Clock::Connect));
        }
        self.flush(key);
    }

    fn dial(
        &mut self,
        key: LinkKey,
        addr: SocketAddr,
    ) -> io::Result<<<M as super::Sealed>::Net as Net>::Socket> {
        let mut socket = self.net.connect(addr)?;
        let token = self.links.token(key);
        if let Err(error) = self.net.register(&mut socket, token) {
            self.net.close(socket);
            return Err(error);
        }
        trace!("{token:?} connecting to {addr}");
        Ok(socket)
    }

    /// One address of a link's host could not be connected to; its socket is closed by now.
    fn connect_failed(
        &mut self,
        key: LinkKey,
        chain: ChainKey,
        addr: SocketAddr,
        rest: Option<Box<Candidates>>,
        error: io::Error,
    ) {
        let token = self.links.token(key);
        debug!(
            "{token:?} {}: connect to {addr} failed ({error})",
            self.origin_of(key)
        );
        match rest {
            Some(mut rest) => {
                rest.failed.push((addr, error));
                self.connect_next(key, chain, rest);
            }
            None => self.fail(key, Failure::Connect(error)),
        }
    }

    /// This machine is out of something: the request goes back to the head of its queue until one of ours closes, or a little
    /// time has passed.
    fn wait_for_room(&mut self, key: LinkKey, chain_key: ChainKey, why: String) {
        let origin = self.links[key].origin;
        warn!(
            "{}: waits for room on this machine ({why})",
            self.pool[origin].origin
        );
        self.close(key);
        if self.exhausted.is_none() {
            let retry = self.now_tick() + EXHAUSTION_RETRY_MILLIS;
            let retry = self.wheel.arm(retry, Timer::Exhausted);
            self.exhausted = Some(Exhaustion { why, retry });
        }
        let chain = &mut self.chains[chain_key];
        chain.attempts -= 1;
        self.enqueue_first(origin, chain_key);
        self.chains[chain_key].marks.set(Marks::EXHAUSTED);
        self.arm(chain_key, None);
        self.pool.starve(origin);
    }

    /// Writes what is left of the request, as far as the socket takes it.
    pub(super) fn flush(&mut self, key: LinkKey) {
        loop {
            let link = &mut self.links[key];
            let (chain_key, written) = match link.state {
                State::Busy { chain, written } => (chain, written),
                State::Connecting { chain, .. } => (chain, 0),
                State::Resolving { .. } | State::Resting | State::Idle(_) => return,
            };
            if link.marks.has(LinkMarks::SENT.and(LinkMarks::MUTE)) {
                return;
            }
            let Some(request) = &self.chains[chain_key].request else {
                return;
            };
            let Some(socket) = &link.socket else { return };
            let wire = Wire::new(
                request,
                self.settings.defaults.block(link.defaults),
                link.marks,
            );
            let total = wire.due;
            if written < total {
                if total > NAGLE_SAFE && !link.marks.has(LinkMarks::NODELAY) {
                    link.marks.set(LinkMarks::NODELAY);
                    if let Err(error) = self.net.set_nodelay(socket) {
                        trace!("TCP_NODELAY refused ({error})");
                    }
                }
                match send(&mut self.net, socket, &wire, written) {
                    Ok(n) => {
                        self.counts.bytes_out += n as u64;
                        self.on_written(key, chain_key, written + n, total);
                        if written + n < total {
                            continue;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) if is_not_yet(&error) => {
                        link.readiness = link.readiness.without(Readiness::WRITABLE);
                        return;
                    }
                    Err(error) => return self.on_write_error(key, chain_key, error),
                }
            }
            let marks = &mut self.links[key].marks;
            if marks.has(LinkMarks::BODY_HELD) {
                if !marks.has(LinkMarks::AWAITING) {
                    marks.set(LinkMarks::AWAITING);
                    // The chain's timer lets the body go if no 100 (Continue) does before.
                    let due = self.now_micros + CONTINUE_MILLIS * 1000;
                    self.arm_at(chain_key, Self::tick_after(due));
                }
                return;
            }
            let since_start = self.since_start(chain_key);
            let link = &mut self.links[key];
            link.marks.set(LinkMarks::SENT);
            link.times.sent = since_start;
            let clock = match self.links[key].connection.has_head() {
                false => Some(Clock::FirstByte),
                true if self.chains[chain_key].marks.has(Marks::PAUSED) => None,
                true => Some(Clock::Idle),
            };
            self.arm(chain_key, clock);
            return;
        }
    }

    /// The socket took bytes: so it is connected, and the write deadline starts anew.
    fn on_written(&mut self, key: LinkKey, chain_key: ChainKey, written: usize, due: usize) {
        let since_start = self.since_start(chain_key);
        let link = &mut self.links[key];
        let is_new = matches!(link.state, State::Connecting { .. });
        link.state = State::Busy {
            chain: chain_key,
            written,
        };
        if is_new {
            link.times.connect = since_start;
            debug!(
                "{:?} {}: connected",
                self.links.token(key),
                self.origin_of(key)
            );
        }
        if written < due {
            self.arm(chain_key, Some(Clock::Write));
        }
    }

    fn on_write_error(&mut self, key: LinkKey, chain_key: ChainKey, error: io::Error) {
        let link = &mut self.links[key];
        if let State::Connecting { rest, .. } = &mut link.state {
            let (rest, addr) = (rest.take(), link.peer.get());
            if let Some(socket) = link.socket.take() {
                close_socket(&mut self.net, socket);
            }
            link.readiness = Readiness::NONE;
            // That no port was free for it shows only now.
            return match is_exhaustion(&error) {
                true => self.wait_for_room(key, chain_key, error.to_string()),
                false => self.connect_failed(key, chain_key, addr, rest, error),
            };
        }
        // The peer may have answered before it stopped listening: its response, and what ended the connection, are still
        // to be read (RFC 9112 §9.6).
        link.marks.set(LinkMarks::MUTE.and(LinkMarks::CLOSE));
        if error.kind() == io::ErrorKind::ConnectionReset {
            link.marks.set(LinkMarks::RESET);
        }
        link.readiness = link
            .readiness
            .with(Readiness::READABLE)
            .with(Readiness::ERROR);
        debug!(
            "{:?} {}: writing failed ({error})",
            self.links.token(key),
            self.origin_of(key)
        );
        self.run_later(key);
    }

    /// Has the link dealt with again, in this turn or the next.
    pub(super) fn run_later(&mut self, key: LinkKey) {
        let link = &mut self.links[key];
        if !link.marks.has(LinkMarks::QUEUED) {
            link.marks.set(LinkMarks::QUEUED);
            let token = self.links.token(key);
            self.run_queue.push_back(token);
        }
    }

    /// Ends a link's exchange without a response: sent once more where the connection was stale, else the readback hears.
    pub(super) fn fail(&mut self, key: LinkKey, failure: Failure) {
        let Some(chain_key) = self.links[key].chain() else {
            return self.close(key);
        };
        self.disarm(chain_key);
        self.chains[chain_key].marks.clear(Marks::PAUSED);
        if self.is_stale(key, chain_key, &failure) {
            debug!(
                "{:?} {}: closed by the peer while idle; sent again on a fresh connection",
                self.links.token(key),
                self.origin_of(key)
            );
            self.counts.retried += 1;
            self.close(key);
            self.chains[chain_key].marks.set(Marks::FRESH);
            self.chains[chain_key].stage = Stage::New;
            self.restarts.push_back(chain_key);
            return;
        }
        let mut at = self.circumstances(key, chain_key);
        if let Failure::Connect(_) | Failure::ConnectAll(_) = failure {
            // A socket that fails at once never came to that state.
            at.phase = Phase::Connect;
        }
        let error = match failure {
            Failure::Closed { missing, error } => {
                let received = self.links[key].marks.has(LinkMarks::RECEIVED);
                let kind = if received {
                    ErrorKind::Truncated
                } else {
                    ErrorKind::ClosedBeforeResponse
                };
                match error {
                    Some(error) => Error::from_io(kind, error, at),
                    None if received => Error::from_violation(Violation::Truncated { missing }, at),
                    None => Error::of(kind, at),
                }
            }
            Failure::Io(error) => Error::from_io(ErrorKind::Io, error, at),
            Failure::Violation(violation) => {
                warn!(
                    "{:?} {}: {violation}",
                    self.links.token(key),
                    self.origin_of(key)
                );
                Error::from_violation(violation, at)
            }
            Failure::Connect(error) => Error::from_io(ErrorKind::Connect, error, at),
            Failure::ConnectAll(failed) => {
                let each = failed
                    .iter()
                    .map(|(addr, error)| format!("{addr}: {error}"));
                Error::from_text(ErrorKind::Connect, each.collect::<Vec<_>>().join("; "), at)
            }
            Failure::Resolve(error) => Error::from_text(ErrorKind::Resolve, error.to_string(), at),
            Failure::Timeout => {
                let clock = match (self.total_is_over(chain_key), at.phase) {
                    (true, _) => Clock::Total,
                    (false, Phase::Resolve) => Clock::Resolve,
                    (false, Phase::Connect) => Clock::Connect,
                    (false, Phase::Write) => Clock::Write,
                    (false, Phase::FirstByte) => Clock::FirstByte,
                    (false, _) => Clock::Idle,
                };
                Error::from_text(ErrorKind::Timeout, self.timeout_text(chain_key, clock), at)
            }
            Failure::Cancelled => Error::of(ErrorKind::Cancelled, at),
            Failure::Aborted => Error::of(ErrorKind::Aborted, at),
        };
        debug!("{:?} {error:#}", self.links.token(key));
        self.close(key);
        self.complete(chain_key, error);
    }

    /// Whether the exchange met a connection that the server had closed while it was idle, and may be sent again: on a
    /// reused connection, before one byte of the response, once, and only what cannot have been processed or is idempotent
    /// (RFC 9112 §9.3.1, RFC 9110 §9.2.2).
    fn is_stale(&self, key: LinkKey, chain_key: ChainKey, failure: &Failure) -> bool {
        let link = &self.links[key];
        let chain = &self.chains[chain_key];
        matches!(failure, Failure::Closed { .. })
            && link.marks.has(LinkMarks::REUSED)
            && !link.marks.has(LinkMarks::RECEIVED)
            && !chain.marks.has(Marks::FRESH)
            && !chain.marks.has(Marks::CANCELLED)
            && (link.written() == 0 || chain.request.as_ref().is_some_and(Request::is_idempotent))
    }

    /// What there is to say of an exchange that fails on this link.
    fn circumstances(&mut self, key: LinkKey, chain_key: ChainKey) -> Circumstances {
        let phase = self.phase(key);
        let link = &mut self.links[key];
        let has_head = link.connection.has_head();
        let inbound = link.inbound.as_mut().filter(|_| has_head);
        let (status, partial_body) = match inbound {
            Some(inbound) => (Some(inbound.head.status), std::mem::take(&mut inbound.body)),
            None => (None, Vec::new()),
        };
        let sent = match (link.marks.has(LinkMarks::RECEIVED), link.written()) {
            (true, _) => Sent::Yes,
            (false, 0) => Sent::No,
            (false, _) => Sent::Maybe,
        };
        let idempotent = self.chains[chain_key]
            .request
            .as_ref()
            .is_some_and(Request::is_idempotent);
        Circumstances {
            phase,
            sent,
            resend_is_safe: sent == Sent::No || idempotent,
            reused: link.marks.has(LinkMarks::REUSED),
            origin: Some(self.pool[link.origin].origin.clone()),
            status,
            partial_body,
        }
    }

    fn phase(&self, key: LinkKey) -> Phase {
        let link = &self.links[key];
        match link.state {
            State::Resolving { .. } => Phase::Resolve,
            State::Connecting { .. } => Phase::Connect,
            _ if link.connection.has_head() => Phase::Body,
            // A part of the head is kept. Interim responses alone leave nothing behind.
            _ if link.inbound.is_some() => Phase::Head,
            _ if link.marks.has(LinkMarks::SENT) => Phase::FirstByte,
            _ => Phase::Write,
        }
    }

    /// Fails a chain that has no link.
    pub(super) fn fail_unlinked(&mut self, key: ChainKey, kind: ErrorKind) {
        self.disarm(key);
        self.dequeue(key);
        if let Some(origin) = self.chains[key].origin.get() {
            // Those behind it may want less than it did.
            self.pool.feed(origin);
        }
        let chain = &self.chains[key];
        let origin = chain.request.as_ref().map(Request::origin);
        let at = Circumstances {
            phase: Phase::Queue,
            sent: Sent::No,
            resend_is_safe: true,
            reused: false,
            origin,
            status: None,
            partial_body: Vec::new(),
        };
        let error = match (kind, &self.exhausted) {
            (ErrorKind::Exhausted, Some(exhausted)) => {
                Error::from_text(kind, exhausted.why.clone(), at)
            }
            (ErrorKind::Timeout, _) => {
                Error::from_text(kind, self.timeout_text(key, Clock::Total), at)
            }
            _ => Error::of(kind, at),
        };
        debug!("{error:#}");
        self.complete(key, error);
    }

    fn complete(&mut self, key: ChainKey, error: Error) {
        self.chains[key].stage = Stage::Failed;
        self.completions.push_back((key, Some(error)));
    }

    pub(super) fn cancel_chain(&mut self, key: ChainKey) {
        match self.chains[key].stage {
            Stage::New | Stage::Delayed | Stage::Queued { .. } => {
                self.fail_unlinked(key, ErrorKind::Cancelled);
            }
            Stage::Waiting { call } => {
                self.forget_call(call);
                self.fail_unlinked(key, ErrorKind::Cancelled);
            }
            Stage::Running { link } => self.fail(link, Failure::Cancelled),
            // The mark is enough: the failure is told as a cancellation, the call that is due is not made, the running
            // readback is called once more.
            Stage::Due { .. } | Stage::Failed | Stage::Reading => {}
        }
    }

    pub(super) fn resume_chain(&mut self, key: ChainKey) {
        let chain = &mut self.chains[key];
        let Stage::Running { link } = chain.stage else {
            return;
        };
        if chain.marks.has(Marks::PAUSED) {
            chain.marks.clear(Marks::PAUSED);
            self.arm(key, Some(Clock::Idle));
            self.run_later(link);
        }
    }

    pub(super) fn origin_of(&self, key: LinkKey) -> &crate::proto::Origin {
        &self.pool[self.links[key].origin].origin
    }

    /// Ends a link that is not in the pool: the one way out for slot and socket.
    pub(super) fn close(&mut self, key: LinkKey) {
        let token = self.links.token(key);
        let mut link = self.links.remove(key);
        if let State::Resolving { .. } = link.state {
            self.names
                .forget(self.pool[link.origin].origin.host(), token);
        }
        if let Some(socket) = link.socket.take() {
            close_socket(&mut self.net, socket);
            if let Some(exhausted) = self.exhausted.take() {
                self.wheel.cancel(exhausted.retry);
            }
        }
        if let Some(inbound) = link.inbound.take() {
            self.spare.give(inbound);
        }
        debug!("{token:?} {}: closed", self.pool[link.origin].origin);
        self.pool.feed(link.origin);
        self.pool.on_closed(link.origin);
    }
}

fn send<N: Net>(
    net: &mut N,
    socket: &N::Socket,
    wire: &Wire<'_>,
    written: usize,
) -> io::Result<usize> {
    let [a, b, c, d] = wire.parts;
    let mut left = wire.due - written;
    let mut skip = written;
    let mut slices = [IoSlice::new(&[]); 4];
    let mut n = 0;
    for part in [a, b, c, d] {
        let from = skip.min(part.len());
        skip -= from;
        let part = &part[from..];
        let part = &part[..part.len().min(left)];
        left -= part.len();
        if !part.is_empty() {
            slices[n] = IoSlice::new(part);
            n += 1;
        }
    }
    net.send(socket, &slices[..n])
}

/// Whether a send has to wait: for room, or for the connection.
fn is_not_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
    )
}

impl Failure {
    /// A socket error in an exchange under way.
    pub(super) fn from_socket(error: io::Error, missing: Option<u64>) -> Self {
        match is_reset(&error) {
            true => Failure::Closed {
                missing,
                error: Some(error),
            },
            false => Failure::Io(error),
        }
    }
}
