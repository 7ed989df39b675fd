//! Exchanges: how a request is written, and how an exchange ends when no response ends it.

use std::io;
use std::net::SocketAddr;

use log::{debug, trace};

use crate::config::Clock;
use crate::engine::chains::{ChainKey, Marks, Stage};
use crate::engine::clock::tick_after;
use crate::engine::core::Core;
use crate::engine::fail::Failure;
use crate::engine::pipeline::depth_of;
use crate::net::link::{LinkMarks, State};
use crate::net::slots::LinkKey;
use crate::net::transport::{self, Trouble};
use crate::net::{Net, Readiness};
use crate::request::Request;

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

impl<N: Net> Core<N> {
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
        socket: &N::Socket,
        addr: SocketAddr,
    ) -> Result<Option<FirstWrite>, Trouble> {
        let link = &mut self.links[key];
        let Some(request) = &self.chains[chain_key].request else {
            return Ok(None);
        };
        let block = self.settings.defaults.block(link.defaults);
        let wire = Wire::new(request, block, link.marks);
        let (net, scratch) = (&mut self.net, &mut self.buffers.scratch);
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
                let (net, scratch) = (&mut self.net, &mut self.buffers.scratch);
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
                    let due = self.clock.micros() + CONTINUE_MILLIS * 1000;
                    self.arm_at(chain_key, tick_after(due));
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
            self.agenda.run_queue.push_back(token);
        }
    }
}

/// What is to be said of an address at which nobody listened, so that the socket met itself.
pub(super) fn connected_to_itself() -> io::Error {
    let why = "connected to itself, since nobody listens there";
    io::Error::new(io::ErrorKind::ConnectionRefused, why)
}
