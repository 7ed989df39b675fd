//! How a link gets its connection: the host is looked up, its addresses are tried until one takes the request (RFC 8305).
//!
//! `net::dial` says what comes next; here it is done. All sockets of a link carry the link's token: an event says that one of them
//! has something to tell, and which one, the first write shows.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, trace};

use crate::config::Clock;
use crate::engine::alerts::alert;
use crate::engine::chains::{ChainKey, Marks};
use crate::engine::exchange::{Failure, FirstWrite};
use crate::engine::mode::Mode;
use crate::engine::mode::sealed::Sealed;
use crate::engine::{Engine, Exhaustion, Timer};
use crate::io_error::is_exhaustion;
use crate::net::dial::{Attempt, Dial, Step};
use crate::net::link::{Link, State};
use crate::net::names::{FamilyAnswer, Known};
use crate::net::pool::{OriginKey, TurnedAway};
use crate::net::slots::LinkKey;
use crate::net::transport::Trouble;
use crate::net::{Net, Readiness};
use crate::resolver::{Family, LookupError};

/// How often a thing is tried again that this machine had no room for.
const EXHAUSTION_RETRY_MILLIS: u64 = 100;

/// How often a unix socket is tried again whose listener has no place left in its queue, and a source that has no port left: nothing
/// tells when it has.
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

type Socket<M> = <<M as Sealed>::Net as Net>::Socket;

impl<S, M: Mode> Engine<S, M> {
    /// Opens a link for a request.
    pub(super) fn open(&mut self, origin: OriginKey, chain_key: ChainKey) {
        let key = self.links.insert(Link::new(origin, chain_key));
        self.pool.on_opened(origin);
        self.load(key, chain_key);
        let Some(request) = &self.chains[chain_key].request else {
            return;
        };
        let port = request.port();
        if let Err(problem) = self.begin_session(key) {
            return self.fail(key, Failure::Tls(problem));
        }
        self.carried_out += match self.links[key].session {
            Some(_) => 2 * OPENING,
            None => OPENING,
        };
        if self.pool[origin].route.unix_path().is_some() {
            return self.connect_only(key, chain_key, None);
        }
        let token = self.links.token(key);
        let host = self.pool[origin].origin.host();
        match self.names.ask(host, port, token, self.now) {
            Known::One(addr) => self.connect_only(key, chain_key, Some(addr)),
            Known::Families { v6, v4 } => {
                let (chain, dial) = (chain_key, Box::new(Dial::new(port)));
                self.links[key].state = State::Dialing { chain, dial };
                if v6.is_none() || v4.is_none() {
                    let origin = &self.pool[origin].origin;
                    debug!("{token:?} {origin}: looking up the host");
                    self.arm(chain_key, Some(Clock::Resolve));
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

    /// The look-up of a link's host has ended in one family.
    pub(super) fn on_answered(&mut self, key: LinkKey, family: Family, answer: FamilyAnswer) {
        self.take_answer(key, family, answer);
        self.dial(key);
    }

    fn take_answer(&mut self, key: LinkKey, family: Family, answer: FamilyAnswer) {
        if let State::Dialing { dial, .. } = &mut self.links[key].state {
            let (doubts, now) = (&self.doubts, self.now);
            dial.on_answer(family, answer, |addr| doubts.has(addr, now));
        }
    }

    /// A link's resolution delay is over, or its connection attempt delay, or the time until another try; its timer is gone.
    pub(super) fn on_dial_timer(&mut self, key: LinkKey) {
        match &mut self.links[key].state {
            State::Dialing { dial, .. } => {
                dial.timer = None;
                dial.on_delay();
                // The time may have passed while the host was away: an attempt that is connected by
                // now wins.
                self.on_dial_event(key);
            }
            State::TurnedAway { chain, .. } => {
                let chain = *chain;
                self.links[key].state = State::Connecting { chain };
                self.connect_only(key, chain, self.dialled_address(key));
            }
            State::Connecting { .. }
            | State::Handshaking { .. }
            | State::Busy { .. }
            | State::Resting
            | State::Idle(_) => {}
        }
    }

    /// Takes the next steps towards a connection, as far as there are any to be taken now.
    fn dial(&mut self, key: LinkKey) {
        let token = self.links.token(key);
        // An attempt may succeed at once, and the exchange on it may fail at once.
        while self.links.find(token).is_some()
            && let State::Dialing { chain, dial } = &mut self.links[key].state
        {
            let chain = *chain;
            match dial.next_step() {
                Step::Connect(addr) => self.attempt(key, chain, addr),
                Step::Wait(None) => return,
                Step::Wait(Some(delay)) => return self.arm_dial(key, delay),
                Step::Over => return self.give_up(key, chain),
            }
        }
    }

    fn arm_dial(&mut self, key: LinkKey, delay: Duration) {
        let due = Self::tick_after(self.now_micros) + delay.as_millis() as u64;
        if let State::Dialing { dial, .. } = &mut self.links[key].state {
            match dial.timer {
                Some(timer) => self.wheel.rearm(timer, due),
                None => dial.timer = Some(self.wheel.arm(due, Timer::Dial(key))),
            }
        }
    }

    /// No address is left, and nothing is under way.
    fn give_up(&mut self, key: LinkKey, chain: ChainKey) {
        let State::Dialing { dial, .. } = &mut self.links[key].state else {
            return;
        };
        if dial.has_begun() {
            let tried = dial.take_failed();
            return match tried.first() {
                Some((_, why)) if tried.iter().all(|(_, error)| is_want_of_port(error)) => {
                    self.wait_for_port(key, chain, why);
                }
                _ => self.fail(key, Failure::Connect(tried)),
            };
        }
        match dial.lookup_error() {
            LookupError::Exhausted(why) => self.wait_for_room(key, chain, why),
            error => self.fail(key, Failure::Resolve(error)),
        }
    }

    /// Begins to connect to one of several addresses; the request follows at once, since on loopback the connection is there already.
    fn attempt(&mut self, key: LinkKey, chain: ChainKey, addr: SocketAddr) {
        match self.open_socket(key, Some(addr)) {
            Ok(socket) => {
                self.note_attempt(key, chain);
                let State::Dialing { dial, .. } = &mut self.links[key].state else {
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
                self.note_attempt(key, chain);
                self.on_no_port(key, addr, error);
            }
            Err(error) if is_exhaustion(&error) => {
                if self.on_no_room(key, chain, addr, error) == Race::On {
                    self.give_way(key);
                }
            }
            Err(error) => {
                self.note_attempt(key, chain);
                self.on_attempt_failed(key, addr, error);
            }
        }
    }

    /// Begins to connect to the only address there is; `None`: to the route's unix socket.
    fn connect_only(&mut self, key: LinkKey, chain: ChainKey, addr: Option<SocketAddr>) {
        if let Some(addr) = addr {
            self.links[key].peer = addr.into();
        }
        match self.open_socket(key, addr) {
            Ok(socket) => {
                self.links[key].socket = Some(socket);
                let is_first = self.note_begun(key, chain);
                let token = self.links.token(key);
                self.flush(key);
                // On loopback it is connected by now, and its next deadline is armed.
                if is_first
                    && self.links.find(token).is_some()
                    && let State::Connecting { .. } = self.links[key].state
                {
                    self.arm(chain, Some(Clock::Connect));
                }
            }
            Err(error) => self.on_no_connection(key, chain, addr, error),
        }
    }

    /// The only address there is could not be dialled, or the route's unix socket.
    pub(super) fn on_no_connection(
        &mut self,
        key: LinkKey,
        chain: ChainKey,
        addr: Option<SocketAddr>,
        error: io::Error,
    ) {
        if is_want_of_port(&error) {
            self.wait_for_port(key, chain, &error);
        } else if is_exhaustion(&error) {
            self.wait_for_room(key, chain, error.to_string());
        } else if error.kind() != io::ErrorKind::WouldBlock {
            self.fail_only(key, addr, error);
        } else if addr.is_some() {
            // The route's source has none.
            self.wait_for_port(key, chain, &error);
        } else {
            self.wait_for_turn(key, chain);
        }
    }

    /// The listener of a link's unix socket has no place left in its queue, or the route's source no port. That is no want of this
    /// machine's: the link waits for it alone, within its connect deadline.
    fn wait_for_turn(&mut self, key: LinkKey, chain: ChainKey) {
        self.note_attempt(key, chain);
        let due = Self::tick_after(self.now_micros) + TURNED_AWAY_RETRY.as_millis() as u64;
        let retry = self.wheel.arm(due, Timer::Dial(key));
        self.links[key].state = State::TurnedAway { chain, retry };
    }

    /// The only address there is could not be connected to.
    pub(super) fn fail_only(&mut self, key: LinkKey, addr: Option<SocketAddr>, error: io::Error) {
        let token = self.links.token(key);
        let failure = match addr {
            Some(addr) => {
                debug!(
                    "{token:?} {}: connect to {addr} failed ({error})",
                    self.origin_of(key)
                );
                Failure::Connect(vec![(addr, error)])
            }
            None => {
                let why = self.with_path(key, &error);
                Failure::ConnectUnix(io::Error::new(error.kind(), why))
            }
        };
        self.fail(key, failure);
    }

    /// With a link's first attempt the connect deadline begins, which is that of all together.
    fn note_attempt(&mut self, key: LinkKey, chain: ChainKey) {
        if self.note_begun(key, chain) {
            self.arm(chain, Some(Clock::Connect));
        }
    }

    /// Answers whether it is the link's first attempt.
    fn note_begun(&mut self, key: LinkKey, chain: ChainKey) -> bool {
        let resolved = self.since_start(chain);
        let times = &mut self.links[key].times;
        let is_first = times.resolve == 0;
        if is_first {
            times.resolve = resolved;
            self.counts.opened += 1;
        }
        is_first
    }

    /// Opens and registers a socket, at the price of idle links where this machine has no room left.
    fn open_socket(&mut self, key: LinkKey, addr: Option<SocketAddr>) -> io::Result<Socket<M>> {
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
    ) -> io::Result<Socket<M>> {
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

    /// This machine has no room for an attempt at one of several addresses: the race goes on with those under way, if there are any.
    fn on_no_room(
        &mut self,
        key: LinkKey,
        chain: ChainKey,
        addr: SocketAddr,
        error: io::Error,
    ) -> Race {
        if let State::Dialing { dial, .. } = &mut self.links[key].state
            && !dial.attempts().is_empty()
        {
            let delay = dial.on_no_room(addr);
            self.arm_dial(key, delay);
            return Race::On;
        }
        self.wait_for_room(key, chain, error.to_string());
        Race::Off
    }

    /// No port is left for an attempt at one of several addresses: while others are under way it
    /// may still be made, else the next is tried.
    fn on_no_port(&mut self, key: LinkKey, addr: SocketAddr, error: io::Error) {
        let State::Dialing { dial, .. } = &mut self.links[key].state else {
            return;
        };
        if dial.attempts().is_empty() {
            return self.on_attempt_failed(key, addr, error);
        }
        let delay = dial.on_no_room(addr);
        self.arm_dial(key, delay);
    }

    /// Closes the oldest attempt of a link for the sake of the next address: it has had its time, and would keep the others from theirs
    /// until the connect deadline.
    fn give_way(&mut self, key: LinkKey) {
        let State::Dialing { dial, .. } = &mut self.links[key].state else {
            return;
        };
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

    /// Looks which of a link's attempts is connected: the first that takes a byte of the request wins.
    fn race(&mut self, key: LinkKey) {
        let token = self.links.token(key);
        let mut i = 0;
        while let State::Dialing { chain, dial } = &mut self.links[key].state
            && i < dial.attempts().len()
        {
            let (chain, attempt) = (*chain, dial.take_attempt(i));
            match self.write_first(key, chain, &attempt.socket, attempt.addr) {
                Ok(Some(first)) => return self.on_won(key, chain, attempt, i, first),
                Ok(None) => {
                    let State::Dialing { dial, .. } = &mut self.links[key].state else {
                        return;
                    };
                    dial.put_back(i, attempt);
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
                            self.on_no_room(key, chain, attempt.addr, error);
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
            self.doubts.add(addr, self.now);
        }
        if let State::Dialing { dial, .. } = &mut self.links[key].state {
            dial.on_failed(addr, error);
        }
    }

    /// An attempt is connected; those that were begun before it are doubted from now on, all are closed.
    fn on_won(
        &mut self,
        key: LinkKey,
        chain: ChainKey,
        won: Attempt<Socket<M>>,
        place: usize,
        first: FirstWrite,
    ) {
        self.end_dialing(key, place);
        self.doubts.clear(won.addr);
        let link = &mut self.links[key];
        link.socket = Some(won.socket);
        link.peer = won.addr.into();
        link.readiness = link.readiness.with(Readiness::WRITABLE);
        self.on_connected(key, chain, first);
        self.flush(key);
    }

    /// Ends all that a link has under way towards a connection. Attempts before `place` were overtaken.
    pub(super) fn end_dialing(&mut self, key: LinkKey, place: usize) {
        let token = self.links.token(key);
        let link = &mut self.links[key];
        let dial = match &mut link.state {
            State::Dialing { dial, .. } => dial,
            State::TurnedAway { retry, .. } => return self.wheel.cancel(*retry),
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
            self.names.forget(host, token);
        }
        if let Some(timer) = dial.timer.take() {
            self.wheel.cancel(timer);
        }
        for (i, attempt) in dial.take_attempts().into_iter().enumerate() {
            if i < place {
                self.doubts.add(attempt.addr, self.now);
            }
            self.let_go(attempt.socket);
        }
    }

    /// No port is left for connections to this address, or its listener has no place: that says
    /// nothing of other origins. The request goes back to the head of its queue, until a link of
    /// its origin comes free or ends, or a little time has passed.
    fn wait_for_port(&mut self, key: LinkKey, chain_key: ChainKey, why: &io::Error) {
        let origin = self.links[key].origin;
        alert!(
            self,
            Exhaustion,
            "{}: requests wait for a connection ({why})",
            self.pool[origin].origin
        );
        self.close(key);
        let due = self.now_tick() + EXHAUSTION_RETRY_MILLIS;
        let retry = self.wheel.arm(due, Timer::TurnedAway(origin));
        let why = why.to_string();
        self.forget_turned_away(origin);
        self.pool[origin].turned_away = Some(TurnedAway { why, retry });
        let chain = &mut self.chains[chain_key];
        chain.attempts -= 1;
        self.enqueue_first(origin, chain_key);
        self.chains[chain_key].marks.set(Marks::EXHAUSTED);
        self.arm(chain_key, None);
    }

    /// The next request of the origin may try to connect.
    pub(super) fn forget_turned_away(&mut self, origin: OriginKey) {
        if let Some(TurnedAway { retry, .. }) = self.pool[origin].turned_away.take() {
            self.wheel.cancel(retry);
        }
    }

    /// This machine is out of something: the request goes back to the head of its queue until one of ours closes, or a little
    /// time has passed.
    pub(super) fn wait_for_room(&mut self, key: LinkKey, chain_key: ChainKey, why: String) {
        let origin = self.links[key].origin;
        alert!(
            self,
            Exhaustion,
            "{}: requests wait for room on this machine ({why})",
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
}

/// Whether all ports are taken for connections to one address: a connection is known by both its
/// ends, so that others are not concerned.
fn is_want_of_port(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Whether a failure tells of the address, rather than of what this program may dial: the filter and the route say so at no cost, and
/// another request's route may lead there.
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
