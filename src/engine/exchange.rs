//! Exchanges: how a request is written, and how an exchange ends when no response ends it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use log::{debug, trace};

use crate::config::Clock;
use crate::engine::alerts::alert;
use crate::engine::chains::{ChainKey, Marks, Stage};
use crate::engine::mode::Mode;
use crate::engine::mode::sealed::Sealed;
use crate::engine::pipeline::depth_of;
use crate::engine::{Engine, Exhaustion, close_socket};
use crate::error::{Circumstances, Error, ErrorKind, Phase, Sent};
use crate::io_error::is_reset;
use crate::net::link::{LinkMarks, State};
use crate::net::pool::TurnedAway;
use crate::net::slots::LinkKey;
use crate::net::tls::Problem;
use crate::net::transport::{self, Trouble};
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
    /// None of these addresses could be connected to.
    Connect(Vec<(SocketAddr, io::Error)>),
    ConnectUnix(io::Error),
    Resolve(LookupError),
    Tls(Problem),
    Timeout,
    Cancelled,
    Aborted,
}

/// Where the bytes of a request lie that are to be sent now: head, default fields, body. The head is in two parts where its `Expect`
/// line is left out.
pub(super) struct Wire<'a>(pub(super) [&'a [u8]; 4]);

impl<'a> Wire<'a> {
    #[inline]
    pub(super) fn new(request: &'a Request, block: &'a [u8], marks: LinkMarks) -> Self {
        let head = request.wire_head();
        let (front, back) = match request.expect_line() {
            Some(line) if !marks.has(LinkMarks::EXPECTING) => {
                (&head[..line.start], &head[line.end..])
            }
            _ => (head, &head[..0]),
        };
        let body = match marks.has(LinkMarks::BODY_HELD) {
            true => &[],
            false => request.wire_body(),
        };
        Self([front, back, block, body])
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|part| part.len()).sum()
    }
}

/// What a socket took of a request when it was first offered it.
#[derive(Debug)]
pub(super) struct FirstWrite {
    bytes: usize,
    /// Bytes that are to be sent in all.
    due: usize,
}

/// A full-sized segment of the smallest usual path: a longer request may end in a short one, which Nagle's algorithm would
/// hold back until the others are acknowledged (RFC 9293 §3.7.4).
const NAGLE_SAFE: usize = 1200;

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
        if self.links[key].pipeline.is_some() {
            // More may come before it is written, and so may what answers none of it.
            self.links[key].marks.set(LinkMarks::UNSURE);
            self.note_unwritten(key);
            return self.arm(chain_key, Some(Clock::Write));
        }
        self.flush(key);
        if !self.links[key]
            .marks
            .has(LinkMarks::SENT.and(LinkMarks::BODY_HELD))
        {
            self.arm(chain_key, Some(Clock::Write));
        }
    }

    /// Readies a link for the chain's request.
    pub(super) fn load(&mut self, key: LinkKey, chain_key: ChainKey) {
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
        if request.expects_continue() && !chain.marks.has(Marks::NO_EXPECT) {
            link.marks
                .set(LinkMarks::EXPECTING.and(LinkMarks::BODY_HELD));
        }
        if let Some(depth) = depth_of(&self.pool[link.origin], request) {
            let was_sent = chain.attempts > 1;
            self.begin_pipeline(key, depth, was_sent);
        }
    }

    /// Offers a socket the first bytes of the request, or of the handshake, which it takes if it is connected. `None`: it is not
    /// connected yet.
    ///
    /// # Errors
    /// It cannot be connected, or is connected to itself. Where it is one plain exchange's, that is left to
    /// [`fail_unreadable`](Self::fail_unreadable), since to ask each socket would be a system call for each connection; but a race must not be won
    /// by such a one, nor a handshake begun with it.
    pub(super) fn write_first(
        &mut self,
        key: LinkKey,
        chain_key: ChainKey,
        socket: &<<M as Sealed>::Net as Net>::Socket,
        addr: SocketAddr,
    ) -> Result<Option<FirstWrite>, Trouble> {
        let link = &mut self.links[key];
        let Some(request) = &self.chains[chain_key].request else {
            return Ok(None);
        };
        let block = self.settings.defaults.block(link.defaults);
        let wire = Wire::new(request, block, link.marks);
        let (net, scratch) = (&mut self.net, &mut self.scratch);
        let written = transport::write(net, socket, link.session.as_mut(), &wire.0, 0, scratch)?;
        self.counts.bytes_out += written.sent as u64;
        if written.is_blocked {
            return Ok(None);
        }
        let first = FirstWrite {
            bytes: written.taken,
            due: wire.len(),
        };
        let is_alone = matches!(link.state, State::Connecting { .. })
            && link.session.is_none()
            && link.pipeline.is_none();
        if is_alone || !self.net.is_connected_to_itself(socket, addr) {
            return Ok(Some(first));
        }
        // What it was told is lost on any other.
        self.begin_session(key)?;
        Err(Trouble::Io(connected_to_itself()))
    }

    /// Ends an exchange whose link has received what is no response. A socket that is connected to itself, since nobody listens there, hears its
    /// own request: it has not been connected to anybody.
    pub(super) fn fail_unreadable(&mut self, key: LinkKey, failure: Failure) {
        let link = &mut self.links[key];
        if let State::Busy { chain, .. } = link.state
            && let Failure::Violation(_) = failure
            && !link.marks.has(LinkMarks::REUSED)
            && !link.connection.has_head()
            && let Some(socket) = &link.socket
            && self.net.is_connected_to_itself(socket, link.peer.get())
        {
            link.state = State::Connecting { chain };
            link.marks.clear(LinkMarks::RECEIVED);
            let addr = self.dialled_address(key);
            return self.fail_only(key, addr, connected_to_itself());
        }
        self.fail(key, failure);
    }

    /// Writes what is left of the request, as far as the socket takes it.
    pub(super) fn flush(&mut self, key: LinkKey) {
        loop {
            let link = &mut self.links[key];
            let (chain_key, written) = match link.state {
                State::Busy { .. } if link.pipeline.is_some() => return self.flush_pipeline(key),
                State::Busy { chain, written } => (chain, written),
                State::Connecting { chain } => match self.connect_on(key, chain) {
                    true => continue,
                    false => return,
                },
                State::Handshaking { chain } => match self.shake_hands(key, chain) {
                    true => continue,
                    false => return,
                },
                State::Dialing { .. } => return self.on_dial_event(key),
                State::TurnedAway { .. } | State::Resting | State::Idle(_) => return,
            };
            let is_sent = link.marks.has(LinkMarks::SENT);
            if link.marks.has(LinkMarks::MUTE) || is_sent && !link.has_outbound() {
                return;
            }
            let Some(request) = &self.chains[chain_key].request else {
                return;
            };
            let Some(socket) = &link.socket else { return };
            let block = self.settings.defaults.block(link.defaults);
            let wire = Wire::new(request, block, link.marks);
            let total = wire.len();
            if total > NAGLE_SAFE && !link.marks.has(LinkMarks::NODELAY) {
                link.marks.set(LinkMarks::NODELAY);
                if let Err(error) = self.net.set_nodelay(socket) {
                    trace!("TCP_NODELAY refused ({error})");
                }
            }
            // What the session has to say of itself goes out behind the request, too.
            let parts = if is_sent { &[][..] } else { &wire.0[..] };
            if written < total || link.has_outbound() {
                let (net, scratch) = (&mut self.net, &mut self.scratch);
                let session = link.session.as_mut();
                match transport::write(net, socket, session, parts, written, scratch) {
                    Ok(done) => {
                        self.counts.bytes_out += done.sent as u64;
                        let written = written + done.taken;
                        link.state = State::Busy {
                            chain: chain_key,
                            written,
                        };
                        if done.is_blocked {
                            link.readiness = link.readiness.without(Readiness::WRITABLE);
                        }
                        if is_sent {
                            return;
                        }
                        let is_more = written < total || link.has_outbound();
                        // The socket took bytes: the write deadline starts anew.
                        if is_more && done.sent > 0 {
                            self.arm(chain_key, Some(Clock::Write));
                        }
                        match (is_more, done.is_blocked) {
                            (true, true) => return,
                            (true, false) => continue,
                            (false, _) => {}
                        }
                    }
                    Err(trouble) => return self.on_trouble(key, trouble),
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
            return self.on_sent(key, chain_key);
        }
    }

    /// The whole request of the exchange under way is written.
    #[inline]
    pub(super) fn on_sent(&mut self, key: LinkKey, chain_key: ChainKey) {
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
    }

    /// Looks whether the only address of a link is connected: answers whether there is more to be written.
    fn connect_on(&mut self, key: LinkKey, chain_key: ChainKey) -> bool {
        let link = &mut self.links[key];
        let peer = link.peer.get();
        if link.readiness.has(Readiness::READABLE) {
            // The server has spoken before it was asked, as some do that are overloaded. What it
            // says to the request itself comes behind that, and must not be read by another.
            link.marks.set(LinkMarks::CLOSE);
        }
        let Some(socket) = link.socket.take() else {
            return false;
        };
        match self.write_first(key, chain_key, &socket, peer) {
            Ok(written) => {
                let link = &mut self.links[key];
                link.socket = Some(socket);
                let is_connected = written.is_some();
                match written {
                    Some(first) => self.on_connected(key, chain_key, first),
                    None => link.readiness = link.readiness.without(Readiness::WRITABLE),
                }
                is_connected
            }
            Err(trouble) => {
                self.let_go(socket);
                match trouble {
                    // That no port was free for it may show only now.
                    Trouble::Io(error) => {
                        let addr = self.dialled_address(key);
                        self.on_no_connection(key, chain_key, addr, error);
                    }
                    Trouble::Tls(problem) => self.fail(key, Failure::Tls(problem)),
                }
                false
            }
        }
    }

    /// What is to be said of the unix socket that a link's route leads through.
    pub(super) fn with_path(&self, key: LinkKey, what: impl fmt::Display) -> String {
        let route = &self.pool[self.links[key].origin].route;
        let path = route.unix_path().unwrap_or(Path::new("")).display();
        format!("{path}: {what}")
    }

    /// The address that the link's only attempt is to; `None`: its route's unix socket.
    pub(super) fn dialled_address(&self, key: LinkKey) -> Option<SocketAddr> {
        let link = &self.links[key];
        let is_unix = self.pool[link.origin].route.unix_path().is_some();
        (!is_unix).then(|| link.peer.get())
    }

    /// The socket has taken the first bytes: so it is connected.
    pub(super) fn on_connected(&mut self, key: LinkKey, chain_key: ChainKey, first: FirstWrite) {
        let since_start = self.since_start(chain_key);
        let link = &mut self.links[key];
        link.times.connect = since_start;
        let chain = chain_key;
        link.state = match link.session {
            Some(_) => State::Handshaking { chain },
            None => State::Busy {
                chain,
                written: first.bytes,
            },
        };
        debug!(
            "{:?} {}: connected",
            self.links.token(key),
            self.origin_of(key)
        );
        let link = &mut self.links[key];
        if link.session.is_some() {
            // A handshake ends with a short message, and the request follows: Nagle's algorithm would hold it back.
            link.marks.set(LinkMarks::NODELAY);
            if let Some(socket) = &link.socket
                && let Err(error) = self.net.set_nodelay(socket)
            {
                trace!("TCP_NODELAY refused ({error})");
            }
            self.arm(chain_key, Some(Clock::Tls));
        } else if first.bytes < first.due {
            self.arm(chain_key, Some(Clock::Write));
        }
    }

    /// Nothing can be written any more. Whoever was writing goes on with the link, which is ended when it is dealt with next.
    pub(super) fn on_trouble(&mut self, key: LinkKey, trouble: Trouble) {
        match trouble {
            Trouble::Io(error) => self.on_write_error(key, error),
            Trouble::Tls(problem) => {
                let mute = LinkMarks::MUTE.and(LinkMarks::CLOSE);
                self.links[key].marks.set(mute);
                debug!("{:?} writing failed ({problem})", self.links.token(key));
                self.run_later(key);
            }
        }
    }

    fn on_write_error(&mut self, key: LinkKey, error: io::Error) {
        let link = &mut self.links[key];
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
        self.on_failed_in_front(key, chain_key, &failure);
        if self.is_stale(key, chain_key, &failure) {
            debug!(
                "{:?} {}: the connection was stale; sent again on a fresh one",
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
        if let Failure::Connect(_) | Failure::ConnectUnix(_) = failure {
            // A socket that fails at once never came to that state.
            at.phase = Phase::Connect;
        }
        if let Failure::Tls(_) = failure {
            // A session that cannot be begun fails before there is a connection.
            at.phase = at.phase.max(Phase::Tls);
        }
        let error = match failure {
            // Whatever ended the connection, it ended the handshake.
            Failure::Closed { error, .. } if at.phase == Phase::Tls => {
                let error = error.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                Error::from_io(ErrorKind::Tls, error, at)
            }
            Failure::Io(error) if at.phase == Phase::Tls => {
                Error::from_io(ErrorKind::Tls, error, at)
            }
            Failure::Tls(problem) => Error::from_tls(problem, at),
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
                // A stream that ends early is its readback's affair.
                if !matches!(violation, Violation::Truncated { .. }) {
                    let id = self.chains.id(chain_key);
                    alert!(
                        self,
                        Violation,
                        "{} {id:?}: {violation}",
                        self.origin_of(key)
                    );
                }
                Error::from_violation(violation, at)
            }
            Failure::Connect(tried) => Error::from_addresses(ErrorKind::Connect, None, tried, at),
            Failure::ConnectUnix(error) => Error::from_io(ErrorKind::Connect, error, at),
            Failure::Resolve(error) => Error::from_lookup(error, self.names.servers(), at),
            Failure::Timeout => {
                let clock = match (self.total_is_over(chain_key), at.phase) {
                    (true, _) => Clock::Total,
                    (false, Phase::Resolve) => Clock::Resolve,
                    (false, Phase::Connect) => Clock::Connect,
                    (false, Phase::Tls) => Clock::Tls,
                    (false, Phase::Write) => Clock::Write,
                    (false, Phase::FirstByte) => Clock::FirstByte,
                    (false, _) => Clock::Idle,
                };
                self.timed_out(key, self.timeout_text(chain_key, clock), at)
            }
            Failure::Cancelled => Error::of(ErrorKind::Cancelled, at),
            Failure::Aborted => Error::of(ErrorKind::Aborted, at),
        };
        debug!("{:?} {error:#}", self.links.token(key));
        let link = &self.links[key];
        let (origin, sent) = (link.origin, u64::from(link.times.sent));
        let was_silent = error.kind() == ErrorKind::Timeout
            && matches!(link.state, State::Busy { .. })
            && link.marks.has(LinkMarks::REUSED)
            && !link.marks.has(LinkMarks::RECEIVED);
        self.close(key);
        if was_silent {
            let since = Self::tick_after(self.chains[chain_key].started + sent);
            self.close_silent_since(origin, since);
        }
        self.complete(chain_key, error);
    }

    /// The error of a deadline, which names whom was waited for.
    fn timed_out(&mut self, key: LinkKey, text: String, at: Circumstances) -> Error {
        let State::Dialing { dial, .. } = &mut self.links[key].state else {
            return match (at.phase, self.dialled_address(key)) {
                (Phase::Connect, Some(addr)) => {
                    let tried = vec![no_answer_from(addr)];
                    Error::from_addresses(ErrorKind::Timeout, Some(text), tried, at)
                }
                (Phase::Connect, None) => {
                    let text = self.with_path(key, format_args!("no answer ({text})"));
                    Error::from_text(ErrorKind::Timeout, text, at)
                }
                _ => Error::from_text(ErrorKind::Timeout, text, at),
            };
        };
        if dial.has_begun() {
            let mut tried = dial.take_failed();
            for attempt in dial.attempts() {
                // Where the deadline is shorter than the delay between two attempts, the next request could not come past it either.
                self.doubts.add(attempt.addr, self.now);
                tried.push(no_answer_from(attempt.addr));
            }
            return Error::from_addresses(ErrorKind::Timeout, Some(text), tried, at);
        }
        Error::from_mute(text, self.names.servers(), at)
    }

    /// Whether the exchange met a connection that the server had closed while it was idle, or whose session is good for nothing
    /// more, and may be sent again: on a reused connection, before one byte of the response, once, and only what cannot have been
    /// processed or is idempotent (RFC 9112 §9.3.1, RFC 9110 §9.2.2). On a fresh one, too, where more was written behind it: then the
    /// response may have been lost by that (§9.6).
    fn is_stale(&self, key: LinkKey, chain_key: ChainKey, failure: &Failure) -> bool {
        let link = &self.links[key];
        let chain = &self.chains[chain_key];
        let is_pipelined = link.pipeline.as_ref().is_some_and(|p| p.has_begun());
        let is_dropped = matches!(failure, Failure::Timeout)
            && self.is_on_trial(key)
            && !self.total_is_over(chain_key);
        (is_dropped || matches!(failure, Failure::Closed { .. } | Failure::Tls(_)))
            && (link.marks.has(LinkMarks::REUSED) || is_pipelined)
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
            Some(inbound) => (Some(inbound.head.status), inbound.body.take()),
            None => (None, Vec::new()),
        };
        let sent = match (link.marks.has(LinkMarks::RECEIVED), link.written()) {
            (true, _) => Sent::Yes,
            (false, 0) => Sent::No,
            (false, _) => Sent::Maybe,
        };
        let chain = &self.chains[chain_key];
        let request = chain.request.clone();
        let idempotent = request.as_ref().is_some_and(Request::is_idempotent);
        Circumstances {
            phase,
            sent,
            resend_is_safe: sent == Sent::No || idempotent,
            reused: self.links[key].marks.has(LinkMarks::REUSED),
            attempts: chain.attempts,
            origin: Some(self.pool[self.links[key].origin].origin.clone()),
            request,
            status,
            partial_body,
        }
    }

    fn phase(&self, key: LinkKey) -> Phase {
        let link = &self.links[key];
        match link.state {
            State::Dialing { ref dial, .. } if !dial.has_begun() => Phase::Resolve,
            State::Dialing { .. } | State::Connecting { .. } | State::TurnedAway { .. } => {
                Phase::Connect
            }
            State::Handshaking { .. } => Phase::Tls,
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
        let request = chain.request.clone();
        let at = Circumstances {
            phase: Phase::Queue,
            sent: Sent::No,
            // What was sent before may be sent again: so it was.
            resend_is_safe: true,
            reused: false,
            attempts: chain.attempts,
            origin: request.as_ref().map(Request::origin),
            request,
            status: None,
            partial_body: Vec::new(),
        };
        let entry = chain.origin.get().map(|key| &self.pool[key]);
        let turned_away = entry.and_then(|entry| entry.turned_away.as_ref());
        let error = match (kind, turned_away, &self.exhausted) {
            (ErrorKind::Exhausted, Some(TurnedAway { why, .. }), _)
            | (ErrorKind::Exhausted, None, Some(Exhaustion { why, .. })) => {
                Error::from_text(kind, why.clone(), at)
            }
            (ErrorKind::Timeout, ..) => {
                let text = self.timeout_text(key, Clock::Total);
                let limit = chain.origin.get().and_then(|key| self.limit_reached(key));
                let text = match limit {
                    Some(limit) => format!("{text}; {limit}"),
                    None => text,
                };
                Error::from_text(kind, text, at)
            }
            _ => Error::of(kind, at),
        };
        debug!("{error:#}");
        self.complete(key, error);
    }

    pub(super) fn complete(&mut self, key: ChainKey, error: Error) {
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
            Stage::Running { link } if self.links[link].chain() != Some(key) => {
                self.fail_behind(link, key, ErrorKind::Cancelled);
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
        self.give_up_pipeline(key);
        self.end_dialing(key, 0);
        let mut link = self.links.remove(key);
        if let Some(socket) = link.socket.take() {
            if let Some(session) = link.session.take() {
                // RFC 8446 §6.1: both sides say that they close. Nobody waits for it.
                let last = session.close();
                if !last.is_empty() {
                    let _ = self.net.send(&socket, &[io::IoSlice::new(&last)]);
                }
            }
            self.let_go(socket);
        }
        if let Some(inbound) = link.inbound.take() {
            self.spare.give(inbound);
        }
        debug!("{token:?} {}: closed", self.pool[link.origin].origin);
        self.pool.feed(link.origin);
        self.forget_turned_away(link.origin);
        self.pool.on_closed(link.origin);
    }

    /// Closes a socket: what this machine was out of may be there again.
    pub(super) fn let_go(&mut self, socket: <<M as Sealed>::Net as Net>::Socket) {
        close_socket(&mut self.net, socket);
        if let Some(exhausted) = self.exhausted.take() {
            self.wheel.cancel(exhausted.retry);
        }
    }
}

/// What is to be said of an address at which nobody listened, so that the socket met itself.
fn connected_to_itself() -> io::Error {
    let why = "connected to itself, since nobody listens there";
    io::Error::new(io::ErrorKind::ConnectionRefused, why)
}

/// What is to be said of an address that an attempt at was still under way.
fn no_answer_from(addr: SocketAddr) -> (SocketAddr, io::Error) {
    let silent = io::Error::new(io::ErrorKind::TimedOut, "no answer");
    (addr, silent)
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
