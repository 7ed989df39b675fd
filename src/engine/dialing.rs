//! How a link gets its connection: the host is looked up, its addresses are tried until one takes
//! the request (RFC 8305).
//!
//! `net::dial` says what comes next; here it is done. All sockets of a link carry the link's token:
//! an event says that one of them has something to tell, and which one, the first write shows.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, trace};

use crate::engine::chain::ChainKey;
use crate::engine::core::{Core, Timer};
use crate::engine::fail::{Failure, connected_to_itself};
use crate::engine::shortage::is_want_of_port;
use crate::engine::visits::block_of;
use crate::h1::exchange::Exchange;
use crate::io_error::is_exhaustion;
use crate::net::dial::{Attempt, Dial, Step};
use crate::net::handshake::Handshakes;
use crate::net::link::{Link, Reach};
use crate::net::names::{FamilyAnswer, Known};
use crate::net::pool::OriginKey;
use crate::net::slots::LinkKey;
use crate::net::transport::{self, Trouble, Written};
use crate::net::{Net, Readiness};
use crate::resolver::{Family, LookupError};
use crate::timeouts::Timeout;

/// How often a unix socket is tried again whose listener has no place left in its queue, and a
/// source that has no port left: nothing tells when it has.
const TURNED_AWAY_RETRY: Duration = Duration::from_millis(20);

/// As many commands take the time that it takes to open a connection; one with TLS takes twice
/// that.
const OPENING: usize = 7;

/// Whether attempts of a link are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Race {
    On,
    /// The link is closed: its request waits.
    Off,
}

impl<N: Net> Core<N> {
    /// Opens a link for a request.
    pub(super) fn open(&mut self, origin: OriginKey, chain_key: ChainKey) {
        let key = self.links.insert(Link::new(origin));
        self.pool.on_opened(origin);
        if !self.load(key, chain_key) {
            return self.close(key);
        }
        let port = self.chains[chain_key].request().port();
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
                let handshakes = link.handshakes_mut().expect("it is not connected");
                let handshakes = std::mem::take(handshakes);
                link.reach = Reach::Dialing(Box::new(Dial::new(port)), handshakes);
                if v6.is_none() || v4.is_none() {
                    let origin = &self.pool[origin].origin;
                    debug!("{token:?} {origin}: looking up the host");
                    self.arm(chain_key, Some(Timeout::Resolve));
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

    /// Takes a link further towards its connection, or writes what is left of its requests, as far
    /// as the socket takes it. The link may be gone afterwards: whoever goes on with it looks its
    /// token up again.
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

    /// The look-up of a link's host has ended in one family.
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

    /// A link's resolution delay is over, or its connection attempt delay, or the time until
    /// another try; its timer is gone.
    pub(super) fn on_dial_timer(&mut self, key: LinkKey) {
        match &mut self.links[key].reach {
            Reach::Dialing(dial, _) => {
                dial.timer = None;
                dial.on_delay();
                // The time may have passed while the host was away: an attempt that is connected by
                // now wins.
                self.on_dial_event(key);
            }
            Reach::Waiting { retry, .. } => {
                *retry = None;
                self.connect_only(key, self.dialled_address(key));
            }
            Reach::Connecting(..)
            | Reach::Shaking(..)
            | Reach::Open(..)
            | Reach::Idle(..)
            | Reach::Closed => {}
        }
    }

    /// Takes the next steps towards a connection, as far as there are any to be taken now.
    fn dial(&mut self, key: LinkKey) {
        let token = self.links.token(key);
        // An attempt may succeed at once, and the exchange on it may fail at once.
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

    /// No address is left, and nothing is under way.
    fn give_up(&mut self, key: LinkKey) {
        let dial = self.links[key].dial_mut();
        if dial.has_begun() {
            let tried = dial.take_failed();
            return match tried.first() {
                Some((_, why)) if tried.iter().all(|(_, error)| is_want_of_port(error)) => {
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

    /// Begins to connect to one of several addresses; the request follows at once, since on
    /// loopback the connection is there already.
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
            // A port is wanting for this address alone, a descriptor for any.
            Err(error) if is_want_of_port(&error) => {
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

    /// Begins to connect to the only address there is; `None`: to the route's unix socket.
    fn connect_only(&mut self, key: LinkKey, addr: Option<SocketAddr>) {
        if let Some(addr) = addr {
            self.links[key].peer = addr.into();
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
                // On loopback it is connected by now, and its next deadline is armed.
                if is_first
                    && self.links.find(token).is_some()
                    && let Reach::Connecting(..) = self.links[key].reach
                {
                    self.arm(self.chain_of(key), Some(Timeout::Connect));
                }
            }
            Err(error) => self.on_no_connection(key, addr, error),
        }
    }

    /// The only address there is could not be dialled, or the route's unix socket.
    pub(super) fn on_no_connection(
        &mut self,
        key: LinkKey,
        addr: Option<SocketAddr>,
        error: io::Error,
    ) {
        if is_want_of_port(&error) {
            self.wait_for_port(key, &error);
        } else if is_exhaustion(&error) {
            self.wait_for_room(key, error.to_string());
        } else if error.kind() != io::ErrorKind::WouldBlock {
            self.fail_only(key, addr, error);
        } else if addr.is_some() {
            // The route's source has none.
            self.wait_for_port(key, &error);
        } else {
            self.wait_for_turn(key);
        }
    }

    /// The listener of a link's unix socket has no place left in its queue, or the route's source
    /// no port. That is no want of this machine's: the link waits for it alone, within its connect
    /// deadline.
    fn wait_for_turn(&mut self, key: LinkKey) {
        self.note_attempt(key);
        let due = self.clock.tick_from_now() + TURNED_AWAY_RETRY.as_millis() as u64;
        let retry = self.timers.arm(due, Timer::Dial(key));
        if let Reach::Waiting { retry: none, .. } = &mut self.links[key].reach {
            *none = Some(retry);
        }
    }

    /// With a link's first attempt the connect deadline begins, which is that of all together.
    fn note_attempt(&mut self, key: LinkKey) {
        if self.note_begun(key) {
            self.arm(self.chain_of(key), Some(Timeout::Connect));
        }
    }

    /// Answers whether it is the link's first attempt.
    fn note_begun(&mut self, key: LinkKey) -> bool {
        let now = self.clock.micros();
        let exchange = self.dialled_for(key);
        let is_first = exchange.times.resolve == 0;
        if is_first {
            exchange.times.resolve = exchange.since(now);
            self.counts.opened += 1;
        }
        is_first
    }

    /// Opens and registers a socket, at the price of idle links where this machine has no room
    /// left.
    fn open_socket(&mut self, key: LinkKey, addr: Option<SocketAddr>) -> io::Result<N::Socket> {
        loop {
            match self.open_socket_once(key, addr) {
                // Ports are counted for each address: only what is connected to the same one holds
                // any that could serve here. Its port may rest for a minute (TIME_WAIT), so that to
                // close more at once could be for nothing.
                Err(error) if is_want_of_port(&error) => {
                    let Some(idle) = addr.and_then(|to| self.pool.oldest_idle_to(&self.links, to))
                    else {
                        return Err(error);
                    };
                    self.close_idle_link(idle);
                    return self.open_socket_once(key, addr);
                }
                // An idle link's descriptor serves better here.
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
                    let why = "the address filter refuses it";
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

    /// This machine has no room for an attempt at one of several addresses: the race goes on with
    /// those under way, if there are any.
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

    /// No port is left for an attempt at one of several addresses: while others are under way it
    /// may still be made, else the next is tried.
    fn on_no_port(&mut self, key: LinkKey, addr: SocketAddr, error: io::Error) {
        let dial = self.links[key].dial_mut();
        if dial.attempts().is_empty() {
            return self.on_attempt_failed(key, addr, error);
        }
        let delay = dial.on_no_room(addr);
        self.arm_dial(key, delay);
    }

    /// Closes the oldest attempt of a link for the sake of the next address: it has had its time,
    /// and would keep the others from theirs until the connect deadline.
    fn give_way(&mut self, key: LinkKey) {
        let dial = self.links[key].dial_mut();
        let Attempt { addr, socket } = dial.take_attempt(0);
        self.let_go(socket);
        let why = "no answer, and no file descriptor left to wait for one";
        self.on_attempt_failed(key, addr, io::Error::new(io::ErrorKind::TimedOut, why));
    }

    /// One of a link's attempts has something to tell.
    pub(super) fn on_dial_event(&mut self, key: LinkKey) {
        let token = self.links.token(key);
        self.race(key);
        if self.links.find(token).is_some() {
            // What failed by now leaves its turn to the next address, or was the last.
            self.dial(key);
        }
    }

    /// Looks which of a link's attempts is connected: the first that takes a byte of the request
    /// wins.
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
                        // That no port was free for it may show only now.
                        Trouble::Io(error) if is_want_of_port(&error) => {
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
        // What the poll told was of attempts that failed: the winner's events are still to come.
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

    /// An attempt is connected; those that were begun before it are doubted from now on, all are
    /// closed.
    fn on_won(&mut self, key: LinkKey, won: Attempt<N::Socket>, place: usize, first: Written) {
        self.end_dialing(key, place);
        self.lookups.trust(won.addr);
        let link = &mut self.links[key];
        link.peer = won.addr.into();
        link.readiness = link.readiness.with(Readiness::WRITABLE);
        let handshakes = link.handshakes_mut().map(std::mem::take);
        if self.on_connected(key, won.socket, handshakes.unwrap_or_default(), first) {
            self.flush(key);
        }
    }

    /// Offers a socket the first bytes of the request, or of the handshake, which it takes if it is
    /// connected. `None`: it is not connected yet.
    ///
    /// # Errors
    /// It cannot be connected, or is connected to itself. Where it is one plain exchange's, that is
    /// left to [`fail_on_violation`](Self::fail_on_violation), since to ask each socket would be a
    /// system call for each connection; but a race must not be won by such a one, nor a handshake
    /// begun with it.
    fn write_first(
        &mut self,
        key: LinkKey,
        socket: &N::Socket,
        handshakes: &mut Handshakes,
        addr: SocketAddr,
    ) -> Result<Option<Written>, Trouble> {
        let link = &mut self.links[key];
        let is_race = matches!(link.reach, Reach::Dialing(..));
        let exchange = link.h1.front().expect("a link connects for an exchange");
        let (defaults, chains, visits) = (&self.settings.defaults, &self.chains, &self.visits);
        let tag = exchange.tag;
        let layout = exchange.layout(|number| block_of((tag, number), defaults, chains, visits));
        let (net, scratch) = (&mut self.net, &mut self.buffers.scratch);
        let tls = handshakes.tls_state_mut();
        let written = transport::write(net, socket, tls, layout.parts(), 0, scratch)?;
        if written.is_blocked {
            self.counts.bytes_out += written.sent as u64;
            return Ok(None);
        }
        let is_alone = !is_race && handshakes.is_empty() && !link.h1.has_line();
        if is_alone || !self.net.is_connected_to_itself(socket, addr) {
            return Ok(Some(written));
        }
        self.counts.bytes_out += written.sent as u64;
        // What it was told is lost on any other.
        *handshakes = self.handshakes_of(key)?;
        Err(Trouble::Io(connected_to_itself()))
    }

    /// Looks whether the only address of a link is connected: answers whether there is more to be
    /// written.
    pub(super) fn connect_on(&mut self, key: LinkKey) -> bool {
        let link = &mut self.links[key];
        let peer = link.peer.get();
        if link.readiness.has(Readiness::READABLE) {
            // The server has spoken before it was asked, as some do that are overloaded. What it
            // says to the request itself comes behind that, and must not be read by another.
            link.h1.end_behind_front();
        }
        let Reach::Connecting(socket, mut handshakes) = link.reach.take() else {
            unreachable!("it is connecting");
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
                    // That no port was free for it may show only now.
                    Trouble::Io(error) => {
                        let addr = self.dialled_address(key);
                        self.on_no_connection(key, addr, error);
                    }
                    Trouble::Tls(problem) => self.fail(key, Failure::Tls(problem)),
                }
                false
            }
        }
    }

    /// Offers one of several sockets the first bytes.
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

    /// The socket has taken the first bytes: so it is connected. Answers whether there may be more
    /// to be written.
    fn on_connected(
        &mut self,
        key: LinkKey,
        socket: N::Socket,
        handshakes: Handshakes,
        first: Written,
    ) -> bool {
        let now = self.clock.micros();
        let exchange = self.dialled_for(key);
        exchange.times.connect = exchange.since(now);
        let token = self.links.token(key);
        debug!("{token:?} {}: connected", self.origin_of(key));
        let link = &mut self.links[key];
        if handshakes.is_empty() {
            link.reach
                .set(Reach::Open(socket, handshakes.into_layers()));
            return self.on_written(key, first);
        }
        self.counts.bytes_out += first.sent as u64;
        // A handshake ends with a short message, and the request follows: Nagle's algorithm would
        // hold it back.
        link.is_undelayed = true;
        if let Err(error) = self.net.set_nodelay(&socket) {
            trace!("TCP_NODELAY refused ({error})");
        }
        link.reach.set(Reach::Shaking(socket, handshakes));
        self.arm(self.chain_of(key), Some(Timeout::Tls));
        true
    }

    /// The exchange that a link is dialled for.
    fn dialled_for(&mut self, key: LinkKey) -> &mut Exchange<ChainKey> {
        let exchange = self.links[key].h1.front_mut();
        exchange.expect("a link connects for an exchange")
    }
}

/// Whether a failure tells of the address, rather than of what this program may dial: the filter
/// and the route say so at no cost, and another request's route may lead there.
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
