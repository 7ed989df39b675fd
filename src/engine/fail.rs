//! How things end without a response: an exchange fails, and its chain is told or its request sent
//! once more; a link is closed, and what was behind on it goes on elsewhere.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use log::debug;

use crate::config::Clock;
use crate::engine::agenda::Completion;
use crate::engine::alerts::alert;
use crate::engine::chains::{ChainKey, Marks, Stage};
use crate::engine::clock::tick_after;
use crate::engine::core::{Core, Exhaustion, close_socket};
use crate::error::{Circumstances, Error, ErrorKind, Phase, Sent, is_reset};
use crate::net::Net;
use crate::net::link::{LinkMarks, Spot, State};
use crate::net::pipeline::{Intake, Progress, Trust};
use crate::net::pool::{OriginKey, TurnedAway};
use crate::net::slots::LinkKey;
use crate::net::tls::Problem;
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

impl<N: Net> Core<N> {
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
            self.agenda.restarts.push_back(chain_key);
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
            Failure::Resolve(error) => Error::from_lookup(error, self.lookups.names.servers(), at),
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
            let since = tick_after(self.chains[chain_key].started + sent);
            self.close_silent_since(origin, since);
        }
        self.complete(chain_key, Completion::Failed(error));
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
                self.lookups.doubt(attempt.addr, self.clock.now());
                tried.push(no_answer_from(attempt.addr));
            }
            return Error::from_addresses(ErrorKind::Timeout, Some(text), tried, at);
        }
        Error::from_mute(text, self.lookups.names.servers(), at)
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
        let error = self.end_unlinked(key, kind);
        self.complete(key, Completion::Failed(error));
    }

    /// Takes a chain that has no link from wherever it waits: the error that says so.
    pub(super) fn end_unlinked(&mut self, key: ChainKey, kind: ErrorKind) -> Error {
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
        error
    }

    pub(super) fn complete(&mut self, key: ChainKey, completion: Completion) {
        self.chains[key].stage = Stage::Failed;
        self.agenda.completions.push_back((key, completion));
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
            self.buffers.inbounds.give(inbound);
        }
        debug!("{token:?} {}: closed", self.pool[link.origin].origin);
        self.pool.feed(link.origin);
        self.forget_turned_away(link.origin);
        self.pool.on_closed(link.origin);
    }

    /// Closes a socket: what this machine was out of may be there again.
    pub(super) fn let_go(&mut self, socket: N::Socket) {
        close_socket(&mut self.net, socket);
        if let Some(exhausted) = self.exhausted.take() {
            self.timers.cancel(exhausted.retry);
        }
    }

    /// Whether what is in front was sent behind another, and its origin has not shown yet that it
    /// answers such a one.
    pub(super) fn is_on_trial(&self, key: LinkKey) -> bool {
        let link = &self.links[key];
        let is_silent = link.marks.has(LinkMarks::SENT) && !link.marks.has(LinkMarks::RECEIVED);
        let pipeline = link.pipeline.as_ref();
        is_silent && pipeline.is_some_and(|p| p.is_on_trial() && !p.is_untried())
    }

    /// A link's exchange fails while others may be behind it.
    pub(super) fn on_failed_in_front(&mut self, key: LinkKey, chain: ChainKey, failure: &Failure) {
        let is_the_peers = match failure {
            Failure::Closed { .. } | Failure::Io(_) | Failure::Violation(_) | Failure::Tls(_) => {
                true
            }
            // Some servers read one request and drop the others: nothing comes then.
            Failure::Timeout => !self.total_is_over(chain),
            Failure::Connect(_) | Failure::ConnectUnix(_) | Failure::Resolve(_) => false,
            Failure::Cancelled | Failure::Aborted => false,
        };
        let link = &self.links[key];
        let Some(pipeline) = &link.pipeline else {
            return;
        };
        let is_established = matches!(link.state, State::Busy { .. });
        if !is_established && !matches!(failure, Failure::Cancelled) {
            // One after the other, each would wait for the same failure: let each have its own.
            for next in pipeline.unwritten() {
                self.chains[next.chain].marks.set(Marks::FRESH);
            }
        }
        if matches!(failure, Failure::Timeout) && self.is_on_trial(key) {
            let entry = &mut self.pool[self.links[key].origin];
            entry.trust = Trust::Lost;
            alert!(
                self,
                Pipelining,
                "{}: answers some of the requests that come together, and drops the others: it is not pipelined any more",
                entry.origin
            );
        } else if is_the_peers && pipeline.has_begun() {
            self.on_broken(key);
        }
    }

    /// A connection has ended without an answer to requests that were pipelined on it.
    pub(super) fn on_broken(&mut self, key: LinkKey) {
        let link = &self.links[key];
        let Some(pipeline) = &link.pipeline else {
            return;
        };
        // What was kept open while it was idle, and is closed then, is no sign against pipelining.
        let is_stale = pipeline.is_untried() && link.marks.has(LinkMarks::REUSED);
        let is_excused = pipeline.is_proven() || is_stale;
        let entry = &mut self.pool[link.origin];
        if entry.trust.on_broken(is_excused) {
            alert!(
                self,
                Pipelining,
                "{}: ends connections instead of answering what is pipelined, and is not pipelined any more",
                entry.origin
            );
        }
    }

    /// Nothing is behind any more: the link is as any other.
    pub(super) fn end_pipeline(&mut self, key: LinkKey) {
        let link = &mut self.links[key];
        if let Some(pipeline) = &mut link.pipeline {
            pipeline.intake = Intake::Shut;
            if pipeline.is_on_trial() {
                self.pool[link.origin].trust.set_on_trial(false);
            }
        }
        self.pool.note_room(&mut self.links, key);
        if let Some(pipeline) = self.links[key].pipeline.take() {
            self.buffers.pipelines.give(pipeline);
        }
    }

    /// The link is about to be closed: sends those behind again elsewhere.
    pub(super) fn give_up_pipeline(&mut self, key: LinkKey) {
        if self.links[key].pipeline.is_some() {
            self.send_elsewhere(key, 0);
            self.end_pipeline(key);
        }
    }

    /// Puts those that are at `place` or behind it back into the queue, as its first.
    fn send_elsewhere(&mut self, key: LinkKey, place: usize) {
        let origin = self.links[key].origin;
        while let Some(pipeline) = &mut self.links[key].pipeline
            && pipeline.len() > place
            && let Some((last, progress)) = pipeline.take_last()
        {
            let chain = &mut self.chains[last.chain];
            match progress {
                Progress::Whole | Progress::Partly => self.counts.retried += 1,
                Progress::Unwritten => chain.attempts = chain.attempts.saturating_sub(1),
            }
            debug!(
                "{:?} {}: ends; what was behind is sent elsewhere",
                self.links.token(key),
                self.origin_of(key)
            );
            self.enqueue_first(origin, last.chain);
        }
    }

    /// Ends the exchange of a chain that is on a link, but not in front. What has been written of it cannot be taken back: then the link ends
    /// with the one before it, and those behind it are sent elsewhere.
    pub(super) fn fail_behind(&mut self, key: LinkKey, chain: ChainKey, kind: ErrorKind) {
        let link = &mut self.links[key];
        let Some(pipeline) = &mut link.pipeline else {
            return;
        };
        let Some(place) = pipeline.place_of(chain) else {
            return;
        };
        let progress = pipeline.progress(place);
        let origin = link.origin;
        match progress {
            Progress::Unwritten => pipeline.remove(place),
            Progress::Whole | Progress::Partly => {
                pipeline.intake = Intake::Shut;
                self.send_elsewhere(key, place + 1);
                if let Some(pipeline) = &mut self.links[key].pipeline {
                    pipeline.take_last();
                }
            }
        }
        self.pool.note_room(&mut self.links, key);
        self.pool.feed(origin);
        let (phase, sent) = match progress {
            Progress::Unwritten => (Phase::Queue, Sent::No),
            Progress::Partly => (Phase::Write, Sent::Maybe),
            Progress::Whole => (Phase::FirstByte, Sent::Maybe),
        };
        let at = Circumstances {
            phase,
            sent,
            resend_is_safe: true,
            reused: self.links[key].marks.has(LinkMarks::REUSED),
            attempts: self.chains[chain].attempts,
            origin: Some(self.pool[origin].origin.clone()),
            request: self.chains[chain].request.clone(),
            status: None,
            partial_body: Vec::new(),
        };
        let error = match kind {
            ErrorKind::Timeout => {
                Error::from_text(kind, self.timeout_text(chain, Clock::Total), at)
            }
            _ => Error::of(kind, at),
        };
        debug!("{:?} {error:#}", self.links.token(key));
        self.disarm(chain);
        self.complete(chain, Completion::Failed(error));
    }

    /// Ends all that a link has under way towards a connection. Attempts before `place` were overtaken.
    pub(super) fn end_dialing(&mut self, key: LinkKey, place: usize) {
        let token = self.links.token(key);
        let link = &mut self.links[key];
        let dial = match &mut link.state {
            State::Dialing { dial, .. } => dial,
            State::TurnedAway { retry, .. } => return self.timers.cancel(*retry),
            State::Connecting { .. }
            | State::Handshaking { .. }
            | State::Busy { .. }
            | State::Resting
            | State::Idle(_) => {
                return;
            }
        };
        if dial.is_asking() {
            let host = self.pool[link.origin].origin.host();
            self.lookups.names.forget(host, token);
        }
        if let Some(timer) = dial.timer.take() {
            self.timers.cancel(timer);
        }
        for (i, attempt) in dial.take_attempts().into_iter().enumerate() {
            if i < place {
                self.lookups.doubt(attempt.addr, self.clock.now());
            }
            self.let_go(attempt.socket);
        }
    }

    /// How long a link may be idle.
    pub(super) fn idle_millis(&self, key: LinkKey) -> u64 {
        // RFC 9112 §9.3: a server's word on its own timeout; a second less, since it counts from when it sent the response.
        let told = self.links[key]
            .keep_alive
            .map(|seconds| (u64::from(seconds.get()) - 1) * 1000);
        told.map_or(self.settings.idle_timeout, |ms| {
            ms.min(self.settings.idle_timeout)
        })
    }

    /// Closes the idle links of an origin that have been silent since tick `since`: one that was
    /// given a request then has been silent to its deadline, as it is where the way to the server
    /// has gone. Those that answered later are alive.
    pub(super) fn close_silent_since(&mut self, origin: OriginKey, since: u64) {
        // In the order in which they came to the pool, so that those behind the first one to be
        // kept are younger.
        while let Some(oldest) = self.pool.oldest_idle(origin)
            && let State::Idle(spot) = &self.links[oldest].state
            && let parked = self.timers.tick_of(spot.timer) - self.idle_millis(oldest)
            && parked <= since
        {
            debug!(
                "{:?} {}: closed, since another that rested as long was silent",
                self.links.token(oldest),
                self.origin_of(oldest)
            );
            self.close_idle_link(oldest);
        }
    }

    /// Takes a link out of the pool and closes it.
    pub(super) fn close_idle_link(&mut self, key: LinkKey) {
        let spot: Spot = self.pool.take(&mut self.links, key);
        self.timers.cancel(spot.timer);
        self.close(key);
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
}

/// What is to be said of an address that an attempt at was still under way.
fn no_answer_from(addr: SocketAddr) -> (SocketAddr, io::Error) {
    let silent = io::Error::new(io::ErrorKind::TimedOut, "no answer");
    (addr, silent)
}
