//! The state behind a [`Network`](super::Network): clock, event queue, file descriptors,
//! connections and polls.
//!
//! A world never calls a server. When a server has to be called, the world queues a [`Call`], and
//! [`Network`](super::Network) makes it while nothing is borrowed. Every random choice is drawn
//! from one generator, and everything that happens is added to one digest. Equal seeds therefore
//! give equal runs, and comparing two numbers shows whether they did.

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hasher;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::trace;

use super::connection::{ClientEnd, Connection, Link, ServerEnd};
use super::faults::{Fault, Faults};
use super::ledger::{Ledger, Misuse, Served};
use super::poll::Poll;
use super::random::Random;
use super::server::{ConnectionId, End, Incoming, Server};
use crate::resolver::LookupError;

pub(super) struct World {
    base: Instant,
    pub(super) now: Duration,
    pub(super) random: Random,
    pub(super) faults: Faults,
    pub(super) struck: [u64; Fault::ALL.len()],
    pub(super) latency: Duration,
    pub(super) names: BTreeMap<String, Name>,
    pub(super) sites: BTreeMap<SocketAddr, Site>,
    pub(super) max_fds: usize,
    pub(super) open_fds: usize,
    pub(super) free_fds: BTreeSet<usize>,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    pub(super) begun: u64,
    queue: BTreeMap<(Duration, u64), Event>,
    queued: u64,
    pub(super) polls: Vec<Poll>,
    /// The connection whose server has bytes to read.
    pub(super) reading: Option<ConnectionId>,
    pub(super) calls: VecDeque<Call>,
    pub(super) ledger: Ledger,
    pub(super) misuses: Vec<Misuse>,
    /// See [`Network::system_calls`](super::Network::system_calls).
    pub(super) system_calls: u64,
    digest: DefaultHasher,
}

/// A name that can be looked up.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) answer: Result<Vec<IpAddr>, LookupError>,
    pub(super) after_v4: Duration,
    pub(super) after_v6: Duration,
    pub(super) ttl: Duration,
}

/// What answers at an address.
pub(super) enum Site {
    Serves(Service),
    Refuses,
    IsUnreachable,
    SwallowsAll,
}

pub(super) struct Service {
    pub(super) server: Rc<RefCell<dyn Server>>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) appetite: Option<usize>,
    pub(super) pace: Option<(usize, Duration)>,
    pub(super) send_buffer: Option<usize>,
    pub(super) window: Option<usize>,
}

/// A scheduled event.
pub(super) enum Event {
    /// A connection attempt ends.
    Connected {
        id: ConnectionId,
        outcome: Result<(), ErrorKind>,
    },
    /// A server sends bytes of an answer, and perhaps ends the connection after them.
    Leaves {
        id: ConnectionId,
        bytes: Vec<u8>,
        end: Option<End>,
    },
    /// A server sends unsolicited bytes.
    Speaks {
        id: ConnectionId,
        bytes: Vec<u8>,
    },
    /// A server sends unsolicited bytes or ends the connection, provided that the connection is
    /// idle at that time.
    Strays {
        id: ConnectionId,
        bytes: Vec<u8>,
        end: Option<End>,
    },
    /// A server ends the connection spontaneously.
    HangsUp {
        id: ConnectionId,
        end: End,
    },
    ToClient {
        id: ConnectionId,
        bytes: Vec<u8>,
        end: Option<End>,
        asked: Asked,
    },
    WindowOpened {
        id: ConnectionId,
    },
    ToServer {
        id: ConnectionId,
        bytes: Vec<u8>,
    },
    /// A server with a pace reads.
    ServerReads {
        id: ConnectionId,
    },
    ClientClosed {
        id: ConnectionId,
        end: End,
    },
    IdleTimeout {
        id: ConnectionId,
        idle_since: u64,
    },
}

/// Whether bytes from a server belong to the answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Yes,
    No,
}

/// A call to a server that has to be made.
pub(super) enum Call {
    Head {
        id: ConnectionId,
        server: Rc<RefCell<dyn Server>>,
        request: Incoming,
    },
    Request {
        id: ConnectionId,
        server: Rc<RefCell<dyn Server>>,
        request: Rc<Incoming>,
    },
    Data {
        id: ConnectionId,
        server: Rc<RefCell<dyn Server>>,
        bytes: Vec<u8>,
    },
    Closed {
        id: ConnectionId,
        server: Rc<RefCell<dyn Server>>,
    },
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            base: Instant::now(),
            now: Duration::ZERO,
            random: Random::new(seed),
            faults: Faults::none(),
            struck: [0; Fault::ALL.len()],
            latency: Duration::from_micros(500),
            names: BTreeMap::new(),
            sites: BTreeMap::new(),
            max_fds: usize::MAX,
            open_fds: 0,
            free_fds: BTreeSet::new(),
            connections: BTreeMap::new(),
            begun: 0,
            queue: BTreeMap::new(),
            queued: 0,
            polls: Vec::new(),
            reading: None,
            calls: VecDeque::new(),
            ledger: Ledger::default(),
            misuses: Vec::new(),
            system_calls: 0,
            digest: DefaultHasher::new(),
        }
    }

    // ---- time and chance ----

    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.base + at
    }

    /// Returns the time from the start of the simulation to `instant`; zero if `instant` is
    /// earlier.
    pub(super) fn since_start(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.base)
    }

    /// Decides whether `fault` strikes now.
    pub(super) fn strikes(&mut self, fault: Fault) -> bool {
        let per_mille = self.faults.per_mille(fault);
        // A disabled fault draws no number, so that enabling one leaves the draws of the others
        // unchanged where possible.
        let strikes = per_mille > 0 && self.random.chance(per_mille);
        if strikes {
            self.struck[fault as usize] += 1;
            trace!("sim {:?}: {fault:?}", self.now);
        }
        strikes
    }

    /// Returns how long something takes from one side to the other.
    pub(super) fn transit(&mut self) -> Duration {
        if self.strikes(Fault::NoLatency) {
            return Duration::ZERO;
        }
        if !self.strikes(Fault::Delay) {
            return self.latency;
        }
        let most = match self.random.below(100) {
            0..40 => Duration::from_millis(1),
            40..80 => Duration::from_millis(50),
            80..95 => Duration::from_secs(2),
            _ => Duration::from_secs(40),
        };
        self.latency + self.random.duration(most)
    }

    /// Adds an event to the digest of the run.
    pub(super) fn note(&mut self, what: &str, id: u64, number: usize) {
        trace!("sim {:?} connection {id}: {what} {number}", self.now);
        self.digest.write(what.as_bytes());
        self.digest.write_u128(self.now.as_nanos());
        self.digest.write_u64(id);
        self.digest.write_u64(number as u64);
    }

    pub(super) fn note_bytes(&mut self, bytes: &[u8]) {
        self.digest.write(bytes);
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.digest.finish()
    }

    // ---- connections ----

    pub(super) fn server_mut(&mut self, id: ConnectionId) -> Option<&mut ServerEnd> {
        self.connections.get_mut(&id).map(|c| &mut c.server)
    }

    /// Returns the live connections: those established and ended by neither side.
    pub(super) fn live(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.connections
            .iter()
            .filter(|(_, connection)| connection.stands())
            .map(|(id, connection)| (*id, connection))
    }

    pub(super) fn is_live(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(Connection::stands)
    }

    // ---- the event queue ----

    pub(super) fn schedule(&mut self, at: Duration, event: Event) {
        self.queue.insert((at, self.queued), event);
        self.queued += 1;
    }

    pub(super) fn next_event_at(&self) -> Option<Duration> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Processes the next event, if one is due by `until`.
    pub(super) fn happen(&mut self, until: Duration) -> bool {
        let Some(entry) = self.queue.first_entry() else {
            return false;
        };
        if entry.key().0 > until {
            return false;
        }
        let ((at, _), event) = entry.remove_entry();
        self.now = self.now.max(at);
        match event {
            Event::Connected { id, outcome } => self.on_connected(id, outcome),
            Event::Leaves { id, bytes, end } => self.leave(id, bytes, end, Asked::Yes),
            Event::Speaks { id, bytes } => self.speak(id, bytes),
            Event::Strays { id, bytes, end } => self.stray(id, &bytes, end),
            Event::HangsUp { id, end } => self.hang_up_by_chance(id, end),
            Event::ToClient {
                id,
                bytes,
                end,
                asked,
            } => {
                if asked == Asked::No && self.is_noticeable(id) {
                    self.note_stray(id);
                }
                self.on_client_arrival(id, &bytes, end);
            }
            Event::WindowOpened { id } => self.change(id, ClientEnd::on_window_opened),
            Event::ToServer { id, bytes } => self.on_server_arrival(id, &bytes),
            Event::ServerReads { id } => self.on_server_reads(id),
            Event::ClientClosed { id, end } => self.on_client_closed(id, end),
            Event::IdleTimeout { id, idle_since } => self.on_idle_timeout(id, idle_since),
        }
        true
    }

    pub(super) fn on_connected(&mut self, id: ConnectionId, outcome: Result<(), ErrorKind>) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let (addr, https) = (connection.addr, connection.https);
        if connection.client.link != Link::Connecting {
            return;
        }
        // The server may have been stopped while the handshake was under way.
        let outcome = match self.sites.get(&addr) {
            Some(Site::Refuses) => outcome.and(Err(ErrorKind::ConnectionRefused)),
            _ => outcome,
        };
        self.note("connected", id.0, usize::from(outcome.is_ok()));
        if let Err(error) = outcome {
            return self.change(id, |client| client.on_death(error));
        }
        if let Some(server) = self.server_mut(id) {
            server.accepted = true;
        }
        self.change(id, ClientEnd::on_connected);
        let served = Served {
            id,
            server: addr,
            https,
            opened: self.now,
            closed: None,
            requests: 0,
            unfinished: 0,
            unread: 0,
        };
        self.ledger.connections.insert(id, served);
        self.start_idle_timer(id);
    }

    /// Returns whether the client has to notice unsolicited data that arrives now before it sends
    /// its next request. This is so if the connection is at rest, and the client has looked neither
    /// at the connection nor at its poll for more than a millisecond.
    pub(super) fn is_noticeable(&self, id: ConnectionId) -> bool {
        const LOOKED: Duration = Duration::from_millis(1);
        let Some(connection) = self.connections.get(&id) else {
            return false;
        };
        let client = &connection.client;
        let looked_at = client.read_at.max(self.polls[client.poll].waited_at);
        client.fd.is_some() && connection.is_at_rest(self.now) && self.now > looked_at + LOOKED
    }

    /// Records that the client must not send on this connection before it reads.
    pub(super) fn note_stray(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.client.strayed = true;
        }
    }

    pub(super) fn on_client_arrival(&mut self, id: ConnectionId, bytes: &[u8], end: Option<End>) {
        self.note("to client", id.0, bytes.len());
        if let Some(end) = end {
            self.note("end to client", id.0, end as usize);
        }
        match end {
            None => self.change(id, |client| client.on_arrival(bytes, false)),
            Some(End::Close) => self.change(id, |client| client.on_arrival(bytes, true)),
            Some(End::Reset) => {
                let discards = self.strikes(Fault::ResetDiscards);
                self.change(id, |client| {
                    let arrived = client.on_arrival(bytes, false);
                    arrived.with(client.on_reset(discards))
                });
            }
        }
    }
}
