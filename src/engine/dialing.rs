//! Connects a link: looks up the host, then tries its addresses until one socket accepts the first
//! bytes of the request (RFC 8305).
//!
//! `net::dial` chooses the next step, and this module carries it out. All sockets of a link are
//! registered under the link's token, so an event only reports that one of them is ready. The first
//! write shows which.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, trace};

use crate::engine::chain::ChainKey;
use crate::engine::core::{Core, Timer};
use crate::engine::fail::{Failure, connected_to_itself};
use crate::engine::meter::burst_of;
use crate::engine::shortage::is_port_exhaustion;
use crate::engine::visits::block_of;
use crate::io_error::is_exhaustion;
use crate::net::dial::{Attempt, Dial, Step};
use crate::net::handshake::Handshakes;
use crate::net::link::{Ends, Link, Reach};
use crate::net::names::{FamilyAnswer, Known};
use crate::net::pool::OriginKey;
use crate::net::slots::LinkKey;
use crate::net::transport::{self, Trouble, Written};
use crate::net::{Net, Readiness, is_own_end};
use crate::resolver::{Family, LookupError};
use crate::timeouts::Timeout;

/// The interval between connects to a unix socket whose listener's queue is full. No event reports
/// that the queue has room again.
const TURNED_AWAY_RETRY: Duration = Duration::from_millis(20);

/// The cost of opening a connection, in commands: it takes about as long as this many, and counts
/// as that many towards `MAX_CARRIED_OUT`. With TLS, it counts twice.
const OPENING: usize = 7;

/// Whether a link is still being connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Race {
    On,
    /// The link was closed, and its request is in the queue.
    Off,
}

impl<N: Net> Core<N> {
    /// Opens a link for a request that has none yet.
    pub(super) fn open(&mut self, origin: OriginKey, chain_key: ChainKey) {
        let key = self.links.insert(Link::new(origin));
        self.pool.on_opened(origin);
        // Loaded before the first attempt, because the first bytes of the request show which socket
        // is connected.
        if !self.load(key, chain_key) {
            return self.close(key);
        }
        self.begin_dialing(key);
    }

    /// Begins to connect a new link.
    pub(super) fn begin_dialing(&mut self, key: LinkKey) {
        let origin = self.links[key].origin;
        let port = self.pool[origin].origin.port();
        self.agenda.carried_out += OPENING;
        if self.needs_handshakes(origin) {
            self.agenda.carried_out += OPENING;
            match self.handshakes_of(key) {
                Ok(needed) => self.links[key].set_handshakes(needed),
                Err(problem) => return self.fail(key, Failure::Tls(problem)),
            }
        }
        if self.pool[origin].route.unix_path().is_some() {
            return self.connect_only(key, None);
        }
        let token = self.links.token(key);
        let host = self.pool[origin].origin.host();
        match self.lookups.names.ask(host, port, token, self.clock.now()) {
            Known::One(addr) => self.connect_only(key, Some(addr)),
            Known::Families { v6, v4 } => {
                let link = &mut self.links[key];
                let handshakes = link.handshakes_mut().expect("a new link is not connected");
                let handshakes = std::mem::take(handshakes);
                link.reach = Reach::Dialing(Box::new(Dial::new(port)), handshakes);
                if v6.is_none() || v4.is_none() {
                    let origin = &self.pool[origin].origin;
                    debug!("{token:?} {origin}: looking up the host");
                    self.arm_dialing(key, Timeout::Resolve);
                }
                for (family, answer) in [(Family::V6, v6), (Family::V4, v4)] {
                    if let Some(answer) = answer {
                        self.take_answer(key, family, answer);
                    }
                }
                self.dial(key);
            }
        }
    }

    /// Continues connecting a link, or writes as much of its requests as the socket accepts.
    ///
    /// The link may be closed on return. Callers that continue with it have to look up its token
    /// again.
    pub(super) fn flush(&mut self, key: LinkKey) {
        loop {
            let goes_on = match self.links[key].reach {
                Reach::Open(..) => return self.write(key),
                Reach::Connecting(..) => self.connect_on(key),
                Reach::Shaking(..) => self.shake_hands(key),
                Reach::Dialing(..) => return self.on_dial_event(key),
                Reach::Waiting { .. } | Reach::Idle(..) | Reach::Closed => return,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Processes the result of a lookup for one address family of a link's host.
    pub(super) fn on_answered(&mut self, key: LinkKey, family: Family, answer: FamilyAnswer) {
        self.take_answer(key, family, answer);
        self.dial(key);
    }

    fn take_answer(&mut self, key: LinkKey, family: Family, answer: FamilyAnswer) {
        if let Reach::Dialing(dial, _) = &mut self.links[key].reach {
            let (lookups, now) = (&self.lookups, self.clock.now());
            dial.on_answer(family, answer, |addr| lookups.is_doubtful(addr, now));
        }
    }

    /// Handles the end of a link's resolution delay, connection attempt delay or retry delay. The
    /// timer has already been removed.
    pub(super) fn on_dial_timer(&mut self, key: LinkKey) {
        match &mut self.links[key].reach {
            Reach::Dialing(dial, _) => {
                dial.timer = None;
                dial.on_delay();
                // The delay may have ended while the host was not running turns. An attempt that
                // has connected in the meantime takes precedence over a new one.
                self.on_dial_event(key);
            }
            Reach::Waiting { retry, .. } => {
                *retry = None;
                self.connect_only(key, self.dialed_address(key));
            }
            Reach::Connecting(..)
            | Reach::Shaking(..)
            | Reach::Open(..)
            | Reach::Idle(..)
            | Reach::Closed => {}
        }
    }

    /// Takes all steps towards a connection that are possible now.
    fn dial(&mut self, key: LinkKey) {
        let token = self.links.token(key);
        // Each step may close the link: an attempt can succeed at once, and then its exchange can
        // fail at once. So the token is looked up again before each step.
        while self.links.find(token).is_some()
            && let Reach::Dialing(dial, _) = &mut self.links[key].reach
        {
            match dial.next_step() {
                Step::Connect(addr) => self.attempt(key, addr),
                Step::Wait(None) => return,
                Step::Wait(Some(delay)) => return self.arm_dial(key, delay),
                Step::Over => return self.give_up(key),
            }
        }
    }

    fn arm_dial(&mut self, key: LinkKey, delay: Duration) {
        let due = self.clock.tick_from_now() + delay.as_millis() as u64;
        let dial = self.links[key].dial_mut();
        match dial.timer {
            Some(timer) => self.timers.rearm(timer, due),
            None => dial.timer = Some(self.timers.arm(due, Timer::Dial(key))),
        }
    }

    /// Fails a link that has neither an untried address nor an attempt under way.
    fn give_up(&mut self, key: LinkKey) {
        let dial = self.links[key].dial_mut();
        if dial.has_begun() {
            let tried = dial.take_failed();
            return match tried.first() {
                Some((_, why)) if tried.iter().all(|(_, error)| is_port_exhaustion(error)) => {
                    self.wait_for_port(key, why);
                }
                _ => self.fail(key, Failure::Connect(tried)),
            };
        }
        match dial.lookup_error() {
            LookupError::Exhausted(why) => self.wait_for_room(key, why),
            error => self.fail(key, Failure::Resolve(error)),
        }
    }

    /// Starts an attempt at one of several addresses, and writes the request to it right away: on
    /// loopback the socket is already connected.
    fn attempt(&mut self, key: LinkKey, addr: SocketAddr) {
        match self.open_socket(key, Some(addr)) {
            Ok(socket) => {
                self.note_attempt(key);
                let Reach::Dialing(dial, _) = &mut self.links[key].reach else {
                    return self.net.close(socket);
                };
                let delay = dial.on_begun(addr, socket);
                if let Some(delay) = delay {
                    self.arm_dial(key, delay);
                }
                self.race(key);
            }
            // A port shortage affects this address only; a descriptor shortage affects all of them.
            Err(error) if is_port_exhaustion(&error) => {
                self.note_attempt(key);
                self.on_no_port(key, addr, error);
            }
            Err(error) if is_exhaustion(&error) => {
                if self.on_no_room(key, addr, error) == Race::On {
                    self.give_way(key);
                }
            }
            Err(error) => {
                self.note_attempt(key);
                self.on_attempt_failed(key, addr, error);
            }
        }
    }

    /// Connects to the only address. `None` means the unix socket of the route.
    fn connect_only(&mut self, key: LinkKey, addr: Option<SocketAddr>) {
        if let Some(addr) = addr {
            self.links[key].ends = Ends::towards(addr);
        }
        match self.open_socket(key, addr) {
            Ok(socket) => {
                let link = &mut self.links[key];
                let handshakes = link.handshakes_mut().map(std::mem::take);
                link.reach
                    .set(Reach::Connecting(socket, handshakes.unwrap_or_default()));
                let is_first = self.note_begun(key);
                let token = self.links.token(key);
                self.flush(key);
                // A loopback socket has connected by now, and `flush` has armed the deadline of the
                // next phase.
                if is_first
                    && self.links.find(token).is_some()
                    && let Reach::Connecting(..) = self.links[key].reach
                {
                    self.arm_dialing(key, Timeout::Connect);
                }
            }
            Err(error) => self.on_no_connection(key, addr, error),
        }
    }

    /// Handles a failed connect to the only address or, with `None`, to the unix socket of the
    /// route.
    pub(super) fn on_no_connection(
        &mut self,
        key: LinkKey,
        addr: Option<SocketAddr>,
        error: io::Error,
    ) {
        if is_port_exhaustion(&error) {
            self.wait_for_port(key, &error);
        } else if is_exhaustion(&error) {
            self.wait_for_room(key, error.to_string());
        } else if error.kind() != io::ErrorKind::WouldBlock {
            self.fail_only(key, addr, error);
        } else if addr.is_some() {
            // The route's source address has no free port. Ports are counted per source, so this
            // affects the origin and not the whole machine.
            self.wait_for_port(key, &error);
        } else if self.links[key].chain().is_none() {
            self.fail_only(key, addr, error);
        } else {
            self.wait_for_listener(key);
        }
    }

    /// Waits until the listener of a link's unix socket has room in its queue.
    ///
    /// The full queue affects this link only, not the whole machine. If it counted as exhaustion,
    /// no link to any origin could be opened in the meantime. The link retries within its connect
    /// deadline.
    fn wait_for_listener(&mut self, key: LinkKey) {
        self.note_attempt(key);
        let due = self.clock.tick_from_now() + TURNED_AWAY_RETRY.as_millis() as u64;
        let retry = self.timers.arm(due, Timer::Dial(key));
        if let Reach::Waiting { retry: none, .. } = &mut self.links[key].reach {
            *none = Some(retry);
        }
    }

    /// Records the start of an attempt. The first attempt arms the connect deadline, which covers
    /// all attempts of the link.
    fn note_attempt(&mut self, key: LinkKey) {
        if self.note_begun(key) {
            self.arm_dialing(key, Timeout::Connect);
        }
    }

    /// Records when the first attempt began, and returns whether this is the first.
    fn note_begun(&mut self, key: LinkKey) -> bool {
        let now = self.clock.micros();
        let link = &mut self.links[key];
        let is_first = match link.h1.front_mut() {
            Some(exchange) if exchange.times.resolve == 0 => {
                exchange.times.resolve = exchange.since(now);
                true
            }
            Some(_) => false,
            None => {
                let ahead = self.ahead.get_mut(link.origin, key);
                ahead.is_some_and(|ahead| !std::mem::replace(&mut ahead.has_begun, true))
            }
        };
        self.counts.opened += u64::from(is_first);
        is_first
    }

    /// Opens and registers a socket. If this machine has run out of ports or descriptors, idle
    /// links are closed to free some.
    fn open_socket(&mut self, key: LinkKey, addr: Option<SocketAddr>) -> io::Result<N::Socket> {
        if self.links[key].chain().is_none() {
            // An idle link is worth more than one that no request has asked for.
            return self.open_socket_once(key, addr);
        }
        loop {
            match self.open_socket_once(key, addr) {
                // Ports are counted per peer address, so only an idle link to the same address
                // holds a port that is usable here. No more than one such link is closed: its port
                // may stay in TIME_WAIT for a minute, and closing it would then gain nothing.
                Err(error) if is_port_exhaustion(&error) => {
                    let Some(idle) = addr.and_then(|to| self.pool.oldest_idle_to(&self.links, to))
                    else {
                        return Err(error);
                    };
                    self.close_idle_link(idle);
                    return self.open_socket_once(key, addr);
                }
                // The descriptor of an idle link is better used here.
                Err(error) if is_exhaustion(&error) => match self.pool.oldest_idle_of_all() {
                    Some(idle) => self.close_idle_link(idle),
                    None => return Err(error),
                },
                done => return done,
            }
        }
    }

    fn open_socket_once(
        &mut self,
        key: LinkKey,
        addr: Option<SocketAddr>,
    ) -> io::Result<N::Socket> {
        let token = self.links.token(key);
        let entry = &self.pool[self.links[key].origin];
        let (route, scheme) = (Arc::clone(&entry.route), entry.origin.scheme());
        let mut socket = match (addr, route.unix_path()) {
            (Some(addr), _) => {
                if !(self.settings.address_filter)(&addr) {
                    let why = "refused by the address filter";
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
                }
                self.net.connect_for(scheme, addr, &route)?
            }
            (None, Some(path)) => self.net.connect_unix(path, &route)?,
            (None, None) => return Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        if let Err(error) = self.net.register(&mut socket, token) {
            self.net.close(socket);
            return Err(error);
        }
        match addr {
            Some(addr) => trace!("{token:?} connecting to {addr}"),
            None => trace!("{token:?} connecting to a unix socket"),
        }
        Ok(socket)
    }

    /// Handles a shortage of descriptors or memory for an attempt at one of several addresses. The
    /// race continues with the attempts under way, if there are any.
    fn on_no_room(&mut self, key: LinkKey, addr: SocketAddr, error: io::Error) -> Race {
        if let Reach::Dialing(dial, _) = &mut self.links[key].reach
            && !dial.attempts().is_empty()
        {
            let delay = dial.on_no_room(addr);
            self.arm_dial(key, delay);
            return Race::On;
        }
        self.wait_for_room(key, error.to_string());
        Race::Off
    }

    /// Handles a port shortage for an attempt at one of several addresses. The address keeps its
    /// place while other attempts are under way; otherwise it has failed, and the next one is
    /// tried.
    fn on_no_port(&mut self, key: LinkKey, addr: SocketAddr, error: io::Error) {
        let dial = self.links[key].dial_mut();
        if dial.attempts().is_empty() {
            return self.on_attempt_failed(key, addr, error);
        }
        let delay = dial.on_no_room(addr);
        self.arm_dial(key, delay);
    }

    /// Closes a link's oldest attempt to free a descriptor for the next address. That attempt has
    /// had the most time; otherwise one dead address would block all others until the connect
    /// deadline.
    fn give_way(&mut self, key: LinkKey) {
        let dial = self.links[key].dial_mut();
        let Attempt { addr, socket } = dial.take_attempt(0);
        self.let_go(socket);
        let why = "no answer, and no file descriptor left to wait for one";
        self.on_attempt_failed(key, addr, io::Error::new(io::ErrorKind::TimedOut, why));
    }

    /// Handles an event on one of a link's attempts.
    pub(super) fn on_dial_event(&mut self, key: LinkKey) {
        let token = self.links.token(key);
        self.race(key);
        if self.links.find(token).is_some() {
            // If an attempt has failed, the next address is tried at once, or the link fails if
            // that was the last one. Left to the timer, the next address would wait for its delay,
            // and after the last one the link would wait for its connect deadline.
            self.dial(key);
        }
    }

    /// Checks which of a link's attempts is connected. The first attempt that accepts a byte of the
    /// request wins.
    fn race(&mut self, key: LinkKey) {
        let token = self.links.token(key);
        let mut i = 0;
        while let Reach::Dialing(dial, _) = &mut self.links[key].reach
            && i < dial.attempts().len()
        {
            let attempt = dial.take_attempt(i);
            match self.try_attempt(key, &attempt) {
                Ok(Some(first)) => return self.on_won(key, attempt, i, first),
                Ok(None) => {
                    self.links[key].dial_mut().put_back(i, attempt);
                    i += 1;
                }
                Err(trouble) => {
                    self.let_go(attempt.socket);
                    match trouble {
                        // The first write may report that no port is free.
                        Trouble::Io(error) if is_port_exhaustion(&error) => {
                            self.on_no_port(key, attempt.addr, error);
                        }
                        Trouble::Io(error) if is_exhaustion(&error) => {
                            self.on_no_room(key, attempt.addr, error);
                        }
                        Trouble::Io(error) => self.on_attempt_failed(key, attempt.addr, error),
                        Trouble::Tls(problem) => self.fail(key, Failure::Tls(problem)),
                    }
                    if self.links.find(token).is_none() {
                        return;
                    }
                }
            }
        }
        // The readiness came from attempts that are not connected or have failed. It is cleared
        // because an end of file on one of them would be taken for one on the winner, which will
        // report its own events.
        self.links[key].readiness = Readiness::NONE;
    }

    fn on_attempt_failed(&mut self, key: LinkKey, addr: SocketAddr, error: io::Error) {
        let token = self.links.token(key);
        debug!(
            "{token:?} {}: connect to {addr} failed ({error})",
            self.origin_of(key)
        );
        if is_of_address(&error) {
            self.lookups.doubt(addr, self.clock.now());
        }
        if let Reach::Dialing(dial, _) = &mut self.links[key].reach {
            dial.on_failed(addr, error);
        }
    }

    /// Makes an attempt the link's connection and closes all others. Addresses that were tried
    /// before it without success are marked as doubtful.
    fn on_won(&mut self, key: LinkKey, won: Attempt<N::Socket>, place: usize, first: Written) {
        self.end_dialing(key, place);
        self.lookups.trust(won.addr);
        let link = &mut self.links[key];
        link.readiness = link.readiness.with(Readiness::WRITABLE);
        let handshakes = link.handshakes_mut().map(std::mem::take);
        if self.on_connected(key, won.socket, handshakes.unwrap_or_default(), first) {
            self.flush(key);
        }
    }

    /// Writes the first bytes of the request, or of the handshake, to a socket. A socket that
    /// accepts them is connected; `None` means that it is not connected yet.
    ///
    /// # Errors
    /// If the connect failed, or if the socket is connected to itself. The latter happens on
    /// loopback when no server listens on a port in the ephemeral range and the kernel chooses that
    /// port as the local one.
    ///
    /// The local address, which shows this, is read once per connection and kept for
    /// [`Info`](crate::Info).
    fn write_first(
        &mut self,
        key: LinkKey,
        socket: &N::Socket,
        handshakes: &mut Handshakes,
        addr: SocketAddr,
    ) -> Result<Option<Written>, Trouble> {
        let link = &mut self.links[key];
        let (defaults, chains, visits) = (&self.settings.defaults, &self.chains, &self.visits);
        let layout = link.h1.front().map(|exchange| {
            let block = |number| block_of((exchange.tag, number), defaults, chains, visits);
            let layout = match exchange.is_supplied() {
                false => exchange.layout(block),
                true => self.supplies.layout(exchange.tag),
            };
            match exchange.request.speeds().and_then(|it| it.upload) {
                Some(rate) => layout.up_to(usize::try_from(burst_of(rate)).unwrap_or(usize::MAX)),
                None => layout,
            }
        });
        // Without a request, nothing is sent: even that succeeds only on a connected socket.
        let parts = layout.as_ref().map_or(&[][..], |layout| layout.parts());
        let (net, scratch) = (&mut self.net, &mut self.buffers.scratch);
        let tls = handshakes.tls_state_mut();
        let written = transport::write(net, socket, tls, parts, 0, scratch)?;
        if written.is_blocked {
            self.counts.bytes_out += written.sent as u64;
            return Ok(None);
        }
        if self.pool[link.origin].route.unix_path().is_some() {
            return Ok(Some(written));
        }
        // Some systems do not return it once the peer has reset the connection.
        let local = self.net.local_addr(socket).unwrap_or(Ends::UNKNOWN);
        if !is_own_end(local, addr) {
            link.ends = Ends::new(addr, local);
            return Ok(Some(written));
        }
        self.counts.bytes_out += written.sent as u64;
        // The TLS state has written to this socket and cannot start over on another one, so the
        // next one gets a new state.
        *handshakes = self.handshakes_of(key)?;
        Err(Trouble::Io(connected_to_itself()))
    }

    /// Checks whether a link's only address is connected. Returns whether there may be more to
    /// write.
    pub(super) fn connect_on(&mut self, key: LinkKey) -> bool {
        let link = &mut self.links[key];
        let peer = link.ends.peer();
        if link.readiness.has(Readiness::READABLE) {
            // The server sent bytes before it received a request, as some overloaded servers do (a
            // 503 right after accept). These bytes are taken for the response, and the response to
            // the request itself follows them. The next request on this connection would get that
            // one.
            link.h1.end_behind_front();
        }
        let Reach::Connecting(socket, mut handshakes) = link.reach.take() else {
            unreachable!("`flush` calls this only while connecting");
        };
        let first = self.write_first(key, &socket, &mut handshakes, peer);
        let link = &mut self.links[key];
        match first {
            Ok(Some(first)) => self.on_connected(key, socket, handshakes, first),
            Ok(None) => {
                link.reach.set(Reach::Connecting(socket, handshakes));
                link.readiness = link.readiness.without(Readiness::WRITABLE);
                false
            }
            Err(trouble) => {
                let retry = None;
                link.reach.set(Reach::Waiting { retry, handshakes });
                self.let_go(socket);
                match trouble {
                    // The first write may report that no port is free.
                    Trouble::Io(error) => {
                        let addr = self.dialed_address(key);
                        self.on_no_connection(key, addr, error);
                    }
                    Trouble::Tls(problem) => self.fail(key, Failure::Tls(problem)),
                }
                false
            }
        }
    }

    /// Writes the first bytes to the socket of one of several attempts.
    fn try_attempt(
        &mut self,
        key: LinkKey,
        attempt: &Attempt<N::Socket>,
    ) -> Result<Option<Written>, Trouble> {
        let handshakes = self.links[key].handshakes_mut().map(std::mem::take);
        let mut handshakes = handshakes.unwrap_or_default();
        let first = self.write_first(key, &attempt.socket, &mut handshakes, attempt.addr);
        if let Some(place) = self.links[key].handshakes_mut() {
            *place = handshakes;
        }
        first
    }

    /// Makes a socket that accepted its first bytes the link's connection. Returns whether there
    /// may be more to write.
    fn on_connected(
        &mut self,
        key: LinkKey,
        socket: N::Socket,
        handshakes: Handshakes,
        first: Written,
    ) -> bool {
        let now = self.clock.micros();
        if let Some(exchange) = self.links[key].h1.front_mut() {
            exchange.times.connect = exchange.since(now);
        }
        self.ages.on_connected(key, now);
        let token = self.links.token(key);
        debug!("{token:?} {}: connected", self.origin_of(key));
        let link = &mut self.links[key];
        if handshakes.is_empty() {
            link.reach
                .set(Reach::Open(socket, handshakes.into_layers()));
            if link.chain().is_none() {
                self.note_unwritten(key);
            }
            return self.on_written(key, first);
        }
        self.counts.bytes_out += first.sent as u64;
        // The handshake ends with a short message, and the request follows it. Nagle's algorithm
        // would hold the request back until that message is acknowledged.
        link.is_undelayed = true;
        if let Err(error) = self.net.set_nodelay(&socket) {
            trace!("setting TCP_NODELAY failed ({error})");
        }
        link.reach.set(Reach::Shaking(socket, handshakes));
        self.arm_dialing(key, Timeout::Tls);
        true
    }
}

/// Returns whether a connect error concerns the address. Errors of the address filter, the route
/// and the source do not: they are cheap to detect again, and the route of another request may
/// reach the address.
fn is_of_address(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::AddrNotAvailable
    )
}
