//! Ends exchanges that got no response: the readback is called with the error, or the request is
//! sent once more.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use log::debug;

use crate::body::Factory;
use crate::engine::agenda::Completion;
use crate::engine::alerts::alert;
use crate::engine::chain::{ChainKey, Marks, Stage};
use crate::engine::clock::tick_after;
use crate::engine::core::{Core, Exhaustion};
use crate::error::{Circumstances, Error, ErrorKind, Phase, Sent};
use crate::h1::exchange::Exchange;
use crate::h1::line::{Extent, Intake, Line};
use crate::h1::trust::Trust;
use crate::io_error::is_reset;
use crate::net::Net;
use crate::net::link::Reach;
use crate::net::pool::TurnedAway;
use crate::net::slots::{LinkKey, MaybeKey};
use crate::net::tls::Problem;
use crate::policy::{Undecodable, Unscreened};
use crate::proto::Violation;
use crate::request::Request;
use crate::resolver::LookupError;
use crate::timeouts::Timeout;

/// Why an exchange ends without a response.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection ended before the response or within it.
    Closed {
        missing: Option<u64>,
        error: Option<io::Error>,
    },
    Io(io::Error),
    Violation(Violation),
    /// Connecting to each of these addresses failed.
    Connect(Vec<(SocketAddr, io::Error)>),
    ConnectUnix(io::Error),
    Resolve(LookupError),
    Tls(Problem),
    Timeout,
    /// The exchange was slower than its low speed, or its tunnel did not get on in time, as the
    /// text says.
    Slow(String),
    Cancelled,
    Aborted,
    /// The policy rejected the response.
    Unscreened(Unscreened),
    /// The body could not be decoded.
    Undecodable(Undecodable),
    /// The body of the request could not be read from its source.
    Body(io::Error),
}

impl Failure {
    /// Classifies a socket error during an exchange.
    pub(super) fn from_socket(error: io::Error, missing: Option<u64>) -> Self {
        if is_reset(&error) {
            Failure::Closed {
                missing,
                error: Some(error),
            }
        } else {
            Failure::Io(error)
        }
    }
}

impl<N: Net> Core<N> {
    /// Ends a link's exchange without a response. If the connection was stale, the request is sent
    /// once more; otherwise the readback is called with the error.
    pub(super) fn fail(&mut self, key: LinkKey, failure: Failure) {
        let Some(chain_key) = self.links[key].chain() else {
            return self.give_up_ahead(key, &format_args!("{failure:?}"));
        };
        self.disarm(chain_key);
        self.end_metering(chain_key);
        self.chains[chain_key].marks.clear(Marks::PAUSED);
        // Called before `close`, which removes the line that this looks at.
        self.on_failed_in_front(key, chain_key, &failure);
        if self.is_stale(key, chain_key, &failure) {
            debug!(
                "{:?} {}: the connection was stale; sent again on a fresh one",
                self.links.token(key),
                self.origin_of(key)
            );
            self.counts.retried += 1;
            let sent = self.sent(key);
            self.close(key);
            let chain = &mut self.chains[chain_key];
            chain.note_sent(sent);
            chain.marks.set(Marks::FRESH);
            chain.stage = Stage::New;
            self.agenda.restarts.push_back(chain_key);
            return;
        }
        if let Failure::Timeout = failure {
            self.note_expired(chain_key);
        }
        // A peer that is slow is not gone.
        let is_slow = matches!(failure, Failure::Slow(_));
        let error = self.error_of(key, chain_key, failure);
        if self.links[key].h1.is_tunnel() {
            self.end_tunnel(chain_key);
        }
        debug!("{:?} {error:#}", self.links.token(key));
        let link = &self.links[key];
        let sent_at =
            |front: &Exchange<_>| front.begun() + u64::from(front.times.sent.saturating_sub(1));
        let sent_at = link.h1.front().map_or(0, sent_at);
        let origin = link.origin;
        // The deadline of a chain as a whole says nothing about the peer.
        let was_silent = error.kind() == ErrorKind::Timeout
            && !self.chains[chain_key].marks.has(Marks::EXPIRED)
            && !is_slow
            && link.is_busy()
            && link.h1.may_be_stale()
            && !self.is_answered(key);
        self.close(key);
        if was_silent {
            // The path to the server is gone. Each of the other connections that have been silent
            // since then would cost another deadline.
            self.close_silent_since(origin, tick_after(sent_at));
        }
        self.complete(chain_key, Completion::Failed(error));
    }

    /// Closes a link without an exchange. No request waits for it, so nobody is told.
    #[cold]
    pub(super) fn give_up_ahead(&mut self, key: LinkKey, why: &dyn fmt::Display) {
        let (token, origin) = (self.links.token(key), self.origin_of(key));
        debug!("{token:?} {origin}: failed, and no request waits for it ({why})");
        self.close(key);
    }

    /// Builds the error of an exchange that failed.
    fn error_of(&mut self, key: LinkKey, chain_key: ChainKey, failure: Failure) -> Error {
        let mut at = self.circumstances(key, chain_key);
        if let Failure::Connect(_) | Failure::ConnectUnix(_) = failure {
            // A socket that fails at once was never connecting, and one that is connected to itself
            // has already sent. Neither way has a server seen the request in this attempt.
            let earlier = self.chains[chain_key].earlier();
            at.phase = Phase::Connect;
            at.sent = earlier.sent;
            at.resend_is_safe = earlier.resend_is_safe;
        }
        if let Failure::Tls(_) = failure {
            // A failure to set up the TLS state occurs before there is a connection.
            at.phase = at.phase.max(Phase::Tls);
        }
        match failure {
            // The error that ended the connection also ended the handshake.
            Failure::Closed { error, .. } if at.phase == Phase::Tls => {
                let error = error.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                Error::from_io(ErrorKind::Tls, error, at)
            }
            Failure::Io(error) if at.phase == Phase::Tls => {
                Error::from_io(ErrorKind::Tls, error, at)
            }
            Failure::Tls(problem) => Error::from_tls(problem, at),
            Failure::Closed { missing, error } => {
                let received = self.is_answered(key);
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
                // A truncated response is reported to the readback only.
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
                    (true, _) => Timeout::Total,
                    (false, Phase::Resolve) => Timeout::Resolve,
                    (false, Phase::Connect) => Timeout::Connect,
                    (false, Phase::Tls) => Timeout::Tls,
                    (false, Phase::Write) => Timeout::Write,
                    (false, Phase::FirstByte) => Timeout::FirstByte,
                    (false, _) => Timeout::Idle,
                };
                self.timed_out(key, self.timeout_text(chain_key, clock), at)
            }
            Failure::Slow(text) => Error::from_text(ErrorKind::Timeout, text, at),
            Failure::Cancelled => Error::of(ErrorKind::Cancelled, at),
            Failure::Aborted => Error::of(ErrorKind::Aborted, at),
            Failure::Unscreened(why) => why.into_error(at),
            Failure::Undecodable(why) => why.into_error(at),
            Failure::Body(error) => Error::from_io(ErrorKind::Body, error, at),
        }
    }

    /// Returns whether any byte of the current response has arrived.
    fn is_answered(&self, key: LinkKey) -> bool {
        let front = self.links[key].h1.front();
        front.is_some_and(Exchange::is_answered)
    }

    /// Fails a connect to the only address or, with `None`, to the unix socket of the route.
    pub(super) fn fail_only(&mut self, key: LinkKey, addr: Option<SocketAddr>, error: io::Error) {
        let failure = match addr {
            Some(addr) => {
                let (token, origin) = (self.links.token(key), self.origin_of(key));
                debug!("{token:?} {origin}: connect to {addr} failed ({error})");
                Failure::Connect(vec![(addr, error)])
            }
            None => {
                let why = self.with_path(key, &error);
                Failure::ConnectUnix(io::Error::new(error.kind(), why))
            }
        };
        self.fail(key, failure);
    }

    /// Builds the error of an expired deadline, with the addresses or name servers that did not
    /// answer.
    fn timed_out(&mut self, key: LinkKey, text: String, at: Circumstances) -> Error {
        let Reach::Dialing(dial, _) = &mut self.links[key].reach else {
            return match (at.phase, self.dialed_address(key)) {
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
                // The deadline may be shorter than the delay between two attempts. Then the next
                // request would get no further than this address either, unless the address is
                // marked as doubtful.
                self.lookups.doubt(attempt.addr, self.clock.now());
                tried.push(no_answer_from(attempt.addr));
            }
            return Error::from_addresses(ErrorKind::Timeout, Some(text), tried, at);
        }
        Error::from_unresponsive(text, self.lookups.names.servers(), at)
    }

    /// Returns whether the request is sent again because its connection was stale: the server
    /// closed it while it was idle, its TLS state has failed, or the server did not answer a trial
    /// of pipelining on it.
    ///
    /// All of these have to hold (RFC 9112 §9.3.1, RFC 9110 §9.2.2):
    ///
    /// - The connection is reused, or was idle after it was opened ahead. A fresh one counts as
    ///   well if more requests were written behind this one: the reset that they caused may have
    ///   swallowed its response (§9.6).
    /// - Not one byte of the response has arrived.
    /// - The request has not been sent again for this reason before, and is not canceled.
    /// - The request is idempotent, or not one byte of it was written.
    /// - Its body can be sent once more.
    fn is_stale(&self, key: LinkKey, chain_key: ChainKey, failure: &Failure) -> bool {
        let h1 = &self.links[key].h1;
        let chain = &self.chains[chain_key];
        let is_pipelined = h1.line().is_some_and(Line::has_begun);
        let is_unsent = h1.front().is_none_or(|front| front.written() == 0);
        let is_dropped = matches!(failure, Failure::Timeout)
            && self.is_on_trial(key)
            && !self.total_is_over(chain_key);
        (is_dropped || matches!(failure, Failure::Closed { .. } | Failure::Tls(_)))
            && (h1.may_be_stale() || is_pipelined)
            && !self.is_answered(key)
            && !chain.marks.has(Marks::FRESH)
            && !chain.marks.has(Marks::CANCELLED)
            && (is_unsent || chain.request().is_idempotent())
            && Factory::of(chain.request()).is_none_or(Factory::can_open)
    }

    /// Collects the circumstances of an exchange that fails on this link, for its error.
    fn circumstances(&mut self, key: LinkKey, chain_key: ChainKey) -> Circumstances {
        let phase = self.phase(key);
        let h1 = &mut self.links[key].h1;
        let has_head = h1.response().has_head();
        let inbound = h1.inbound_mut().filter(|_| has_head);
        let (status, partial_body) = match inbound {
            Some(inbound) => (Some(inbound.head.status), inbound.body.take()),
            None => (None, Vec::new()),
        };
        let reused = h1.is_reused();
        let sent = self.sent(key);
        let chain = &self.chains[chain_key];
        let idempotent = chain.request().is_idempotent();
        Circumstances {
            phase,
            sent,
            resend_is_safe: sent == Sent::No || idempotent,
            reused,
            attempts: self.attempts_of(chain_key),
            origin: Some(self.origin_of(key).clone()),
            request: chain.request.clone(),
            status,
            partial_body,
        }
        .behind(chain.earlier())
    }

    /// Returns how far the request in front of a link was sent.
    fn sent(&self, key: LinkKey) -> Sent {
        match self.links[key].h1.front() {
            Some(front) if front.is_answered() => Sent::Yes,
            Some(front) if front.written() > 0 => Sent::Maybe,
            Some(_) | None => Sent::No,
        }
    }

    fn phase(&self, key: LinkKey) -> Phase {
        let link = &self.links[key];
        match &link.reach {
            Reach::Dialing(dial, _) if !dial.has_begun() => Phase::Resolve,
            Reach::Waiting { .. } | Reach::Dialing(..) | Reach::Connecting(..) => Phase::Connect,
            Reach::Shaking(..) => Phase::Tls,
            _ if link.h1.response().has_head() => Phase::Body,
            // Part of the head is kept. Interim responses alone are not.
            _ if link.h1.inbound().is_some() => Phase::Head,
            Reach::Open(..) | Reach::Idle(..) | Reach::Closed => match link.h1.front() {
                Some(front) if front.is_sent() => Phase::FirstByte,
                Some(_) | None => Phase::Write,
            },
        }
    }

    /// Fails a chain that has no link. The policy is called first, and may have the request sent
    /// again.
    pub(super) fn fail_unlinked(&mut self, key: ChainKey, kind: ErrorKind) {
        let error = self.end_unlinked(key, kind);
        self.complete(key, Completion::Failed(error));
    }

    /// Fails a chain that waits without a request. Its call is dropped first.
    pub(super) fn fail_wait(&mut self, key: ChainKey, call: MaybeKey, kind: ErrorKind) {
        let error = self.end_unlinked(key, kind);
        self.complete(key, Completion::Forgotten { call, error });
    }

    /// Removes a chain that has no link from its queue or timer, and builds its error.
    pub(super) fn end_unlinked(&mut self, key: ChainKey, kind: ErrorKind) -> Error {
        self.disarm(key);
        self.chains.keys.release(key);
        let is_queued = matches!(self.chains[key].stage, Stage::Queued { .. });
        if is_queued {
            self.dequeue(key);
        }
        if self.chains[key].stage == Stage::New {
            // It may be about to be sent again.
            self.agenda.restarts.retain(|other| *other != key);
        }
        if let Some(origin) = self.chains[key].origin.get() {
            // An idle link that was of no use to this request may do for the next one in the queue.
            self.pool.serve_soon(origin);
        }
        let at = self.circumstances_unlinked(key);
        let is_expired = kind == ErrorKind::Timeout && self.note_expired(key);
        let chain = &self.chains[key];
        let entry = chain.origin.get().map(|key| &self.pool[key]);
        let turned_away = entry.and_then(|entry| entry.turned_away.as_ref());
        let error = match (kind, turned_away, &self.exhausted) {
            (ErrorKind::Exhausted, Some(TurnedAway { why, .. }), _)
            | (ErrorKind::Exhausted, None, Some(Exhaustion { why, .. })) => {
                Error::from_text(kind, why.clone(), at)
            }
            (ErrorKind::Timeout, ..) => {
                let text = self.timeout_text(key, Timeout::Total);
                // Until the request has entered its origin, the chain still has the origin key of
                // its last request.
                let has_entered = chain.marks.has(Marks::ORIGIN_ENTERED);
                // The deadline of a chain may also pass during a delay, which no limit has caused.
                let is_limited = has_entered && (is_queued || !is_expired);
                let origin = chain.origin.get().filter(|_| is_limited);
                let limit = origin.and_then(|key| self.limit_reached(key));
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

    /// Returns how often a chain's request, and those that its policy has replaced, were given to a
    /// connection.
    fn attempts_of(&self, key: ChainKey) -> u8 {
        let earlier = self.way_of(key).map_or(0, |way| way.attempts);
        let earlier = u8::try_from(earlier).unwrap_or(u8::MAX);
        self.chains[key].attempts.saturating_add(earlier)
    }

    /// Collects the circumstances of a chain that has no link, for its error.
    pub(super) fn circumstances_unlinked(&self, key: ChainKey) -> Circumstances {
        let chain = &self.chains[key];
        let request = chain.request.clone();
        Circumstances {
            phase: Phase::Queue,
            sent: Sent::No,
            resend_is_safe: true,
            reused: false,
            attempts: self.attempts_of(key),
            origin: request.as_ref().map(Request::origin),
            request,
            status: None,
            partial_body: Vec::new(),
        }
        .behind(chain.earlier())
    }

    pub(super) fn complete(&mut self, key: ChainKey, completion: Completion) {
        self.chains[key].stage = Stage::Failed;
        self.agenda.completions.push_back((key, completion));
    }

    /// Returns whether the request in front was sent behind another one, while its origin had not
    /// yet proven that it answers such requests.
    pub(super) fn is_on_trial(&self, key: LinkKey) -> bool {
        let h1 = &self.links[key].h1;
        let is_silent = |front: &Exchange<_>| front.is_sent() && !front.is_answered();
        let line = h1.line();
        h1.front().is_some_and(is_silent)
            && line.is_some_and(|line| line.is_on_trial() && !line.is_untried())
    }

    /// Handles the consequences of a failure in front of a link for the requests behind it.
    pub(super) fn on_failed_in_front(&mut self, key: LinkKey, chain: ChainKey, failure: &Failure) {
        let is_the_peers = match failure {
            Failure::Closed { .. }
            | Failure::Io(_)
            | Failure::Violation(_)
            | Failure::Tls(_)
            | Failure::Slow(_) => true,
            // Some servers read one request of a batch and drop the others, so nothing arrives.
            Failure::Timeout => !self.total_is_over(chain),
            Failure::Connect(_) | Failure::ConnectUnix(_) | Failure::Resolve(_) => false,
            Failure::Cancelled
            | Failure::Aborted
            | Failure::Unscreened(_)
            | Failure::Undecodable(_)
            | Failure::Body(_) => false,
        };
        let link = &self.links[key];
        let Some(line) = link.h1.line() else {
            return;
        };
        let is_established =
            link.is_open() && !matches!(failure, Failure::Connect(_) | Failure::ConnectUnix(_));
        if !is_established && !matches!(failure, Failure::Cancelled) {
            // The requests behind were waiting for this connection. If they shared the next one,
            // they would fail one after the other in the same way, so each gets a connection of its
            // own. A cancellation does not concern the connection, so it does not separate them.
            for next in line.unwritten() {
                self.chains[next.tag].marks.set(Marks::FRESH);
            }
        }
        if matches!(failure, Failure::Timeout) && self.is_on_trial(key) {
            let entry = &mut self.pool[self.links[key].origin];
            entry.trust = Trust::Lost;
            alert!(
                self,
                Pipelining,
                "{}: answers only some of the requests that arrive together, so it is no longer pipelined",
                entry.origin
            );
        } else if is_the_peers && line.has_begun() {
            self.on_broken(key);
        }
    }

    /// Records that a connection ended without answering requests that were pipelined on it.
    pub(super) fn on_broken(&mut self, key: LinkKey) {
        let link = &self.links[key];
        let Some(line) = link.h1.line() else {
            return;
        };
        // A connection that was closed while it was idle says nothing about pipelining.
        let is_stale = line.is_untried() && link.h1.may_be_stale();
        let is_excused = line.is_proven() || is_stale;
        let entry = &mut self.pool[link.origin];
        if entry.trust.on_broken(is_excused) {
            alert!(
                self,
                Pipelining,
                "{}: ends connections instead of answering pipelined requests, so it is no longer pipelined",
                entry.origin
            );
        }
    }

    /// Ends the exchange of a chain that is on a link, but not in front.
    ///
    /// If bytes of the request were written, they cannot be taken back. The link then ends after
    /// the exchange before it, and the requests behind it are placed again.
    pub(super) fn fail_behind(&mut self, key: LinkKey, chain: ChainKey, kind: ErrorKind) {
        let link = &mut self.links[key];
        let origin = link.origin;
        let line = link
            .h1
            .line_mut()
            .expect("an exchange behind the front is in line");
        let place = line
            .place_of(chain)
            .expect("an exchange behind the front is in line");
        let progress = line.extent(place);
        match progress {
            Extent::Unwritten => line.remove(place),
            Extent::Whole | Extent::Partly => {
                line.intake = Intake::Shut;
                self.send_elsewhere(key, place + 1);
                if let Some(line) = self.links[key].h1.line_mut() {
                    line.take_last();
                }
            }
        }
        self.pool.note_room(&mut self.links, key);
        self.pool.serve_soon(origin);
        let (phase, sent) = match progress {
            Extent::Unwritten => (Phase::Queue, Sent::No),
            Extent::Partly => (Phase::Write, Sent::Maybe),
            Extent::Whole => (Phase::FirstByte, Sent::Maybe),
        };
        let at = Circumstances {
            phase,
            sent,
            // Only idempotent requests are pipelined.
            resend_is_safe: true,
            reused: self.links[key].h1.is_reused(),
            attempts: self.chains[chain].attempts,
            origin: Some(self.pool[origin].origin.clone()),
            request: self.chains[chain].request.clone(),
            status: None,
            partial_body: Vec::new(),
        }
        .behind(self.chains[chain].earlier());
        let error = match kind {
            ErrorKind::Timeout => {
                self.note_expired(chain);
                Error::from_text(kind, self.timeout_text(chain, Timeout::Total), at)
            }
            _ => Error::of(kind, at),
        };
        debug!("{:?} {error:#}", self.links.token(key));
        self.disarm(chain);
        self.end_metering(chain);
        self.complete(chain, Completion::Failed(error));
    }
}

/// Returns the error of an address that was still being connected to.
fn no_answer_from(addr: SocketAddr) -> (SocketAddr, io::Error) {
    let silent = io::Error::new(io::ErrorKind::TimedOut, "no answer");
    (addr, silent)
}

/// Returns the error of an address where no server listens, so that the socket was connected to
/// itself.
pub(super) fn connected_to_itself() -> io::Error {
    let why = "connected to itself, because no server listens there";
    io::Error::new(io::ErrorKind::ConnectionRefused, why)
}
