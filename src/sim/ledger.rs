//! What the simulated servers saw, and what the client did that no client should do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::server::{ConnectionId, Incoming};

/// A record of what the servers of a [`Network`](super::Network) saw and which addresses were
/// dialed, in chronological order.
///
/// Two ledgers are equal if the same bytes arrived at the same times on the same connections.
///
/// ```
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Next, Request, Sim};
///
/// let network = Network::new(1);
/// network.host("bot.test", [[10, 0, 0, 1]]);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::ok("hello"));
///
/// let second = Request::get("http://bot.test/second").build()?;
/// let mut engine = Engine::<(), Sim>::on_network(&network, Config::default())?;
/// engine.submit(Request::get("http://bot.test/first").build()?, move |_, _, _| {
///     Next::send(second.clone()).read_by(|_, _, _| Next::done())
/// });
/// engine.run(&mut ())?;
///
/// let ledger = network.ledger();
/// let targets: Vec<&str> = ledger.requests().map(|request| request.target.as_str()).collect();
/// assert_eq!(targets, ["/first", "/second"]);
/// assert_eq!(ledger.attempts().len(), 1);
/// assert_eq!(ledger.connections().len(), 1);
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub(super) attempts: Vec<Attempt>,
    pub(super) requests: Vec<Rc<Incoming>>,
    pub(super) connections: BTreeMap<ConnectionId, Served>,
}

impl Ledger {
    /// Returns every connection attempt, whatever its outcome, except those for which the client
    /// had no file descriptor or local port left.
    pub fn attempts(&self) -> impl DoubleEndedIterator<Item = &Attempt> + ExactSizeIterator {
        self.attempts.iter()
    }

    /// Returns every request that a server received completely, answered or not.
    pub fn requests(&self) -> impl DoubleEndedIterator<Item = &Incoming> + ExactSizeIterator {
        self.requests.iter().map(|request| &**request)
    }

    /// Returns every connection that was established, in the order in which the attempts began.
    pub fn connections(&self) -> impl DoubleEndedIterator<Item = &Served> + ExactSizeIterator {
        self.connections.values()
    }

    /// Removes everything except the open connections.
    pub(super) fn clear(&mut self) {
        self.attempts.clear();
        self.requests.clear();
        self.connections.retain(|_, served| served.closed.is_none());
    }
}

/// An attempt to connect.
///
/// ```
/// use httpstream::sim::Network;
/// use httpstream::{Config, Engine, Next, Request, Sim};
///
/// let network = Network::new(1);
/// network.host("bot.test", [[10, 0, 0, 1]]); // no server there: refused
///
/// let mut engine = Engine::<(), Sim>::on_network(&network, Config::default())?;
/// engine.submit(Request::get("https://bot.test/").build()?, |_, _, _| Next::done());
/// engine.run(&mut ())?;
///
/// let ledger = network.ledger();
/// let attempt = ledger.attempts().next().expect("the server was dialed");
/// assert_eq!(attempt.server, "10.0.0.1:443".parse().unwrap());
/// assert!(attempt.https);
/// assert_eq!(ledger.connections().len(), 0);
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The address that was dialed.
    pub server: SocketAddr,
    /// Whether it was dialed for an `https` URL.
    pub https: bool,
    /// When the attempt began, measured from the start of the simulation.
    pub begun: Duration,
}

/// A connection, as its server saw it.
///
/// ```
/// use std::time::Duration;
/// use httpstream::sim::{Answer, Closed, Incoming, Network};
/// use httpstream::{Config, Engine, Next, Request, Sim};
///
/// let network = Network::new(1);
/// network.host("bot.test", [[10, 0, 0, 1]]).after(Duration::ZERO);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::ok("bye").close());
///
/// let mut engine = Engine::<(), Sim>::on_network(&network, Config::default())?;
/// engine.submit(Request::get("http://bot.test/").build()?, |_, _, _| Next::done());
/// engine.run(&mut ())?;
/// network.sleep(Duration::from_secs(1));
///
/// let ledger = network.ledger();
/// let served = ledger.connections().next().expect("one connection");
/// assert_eq!((served.requests, served.unread), (1, 0));
/// assert_eq!(served.opened, Duration::from_millis(1)); // one round trip
/// assert!(matches!(served.closed, Some((_, Closed::ByServer))));
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Served {
    /// The identifier of the connection.
    pub id: ConnectionId,
    /// The address of the server.
    pub server: SocketAddr,
    /// Whether the connection was made for an `https` URL. On a real network it would use TLS.
    pub https: bool,
    /// When it was established, measured from the start of the simulation.
    pub opened: Duration,
    /// When and how it ended; `None` while it is open.
    pub closed: Option<(Duration, Closed)>,
    /// The number of complete requests received on it.
    pub requests: usize,
    /// The number of bytes of an incomplete request that had arrived when the connection ended.
    pub unfinished: usize,
    /// The number of bytes that had arrived at the client, but had not been read when it closed its
    /// end.
    pub unread: usize,
}

/// Which side ended a connection, and how.
///
/// ```
/// use std::time::Duration;
/// use httpstream::sim::{Answer, Closed, Incoming, Network};
/// use httpstream::{Config, Engine, Next, Request, Sim};
///
/// let network = Network::new(1);
/// network.host("bot.test", [[10, 0, 0, 1]]);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::ok("hello"));
///
/// let mut engine = Engine::<(), Sim>::on_network(&network, Config::default())?;
/// engine.submit(Request::get("http://bot.test/").build()?, |_, _, _| Next::done());
/// engine.run(&mut ())?;
/// drop(engine); // closes its idle connections
/// network.sleep(Duration::from_secs(1));
///
/// let ledger = network.ledger();
/// let served = ledger.connections().next().expect("one connection");
/// assert!(matches!(served.closed, Some((_, Closed::ByClient))));
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Closed {
    /// The client closed it after it had read everything.
    ByClient,
    /// The client closed it with data unread, so the server received a reset.
    ResetByClient,
    /// The server closed it.
    ByServer,
    /// The server reset it.
    ResetByServer,
}

/// Something that no client should do. Any misuse in a run is a bug of the engine; the network
/// cannot cause one.
///
/// ```
/// use httpstream::sim::{Answer, Faults, Incoming, Network};
/// use httpstream::{Config, Engine, Next, Request, Sim};
///
/// let network = Network::new(1);
/// network.host("bot.test", [[10, 0, 0, 1]]);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::ok("hello"));
/// network.set_faults(Faults::storm());
///
/// let mut engine = Engine::<(), Sim>::on_network(&network, Config::default())?;
/// engine.submit(Request::get("http://bot.test/").build()?, |_, _, _| Next::done());
/// engine.run(&mut ())?;
/// assert_eq!(network.misuses(), []);
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// A socket was closed while it was registered with its poll.
    ClosedWhileRegistered {
        /// The file descriptor.
        fd: usize,
    },
    /// A socket was registered that was registered already.
    RegisteredTwice {
        /// The file descriptor.
        fd: usize,
    },
    /// A socket was deregistered that was not registered.
    NotRegistered {
        /// The file descriptor.
        fd: usize,
    },
    /// A system call named a socket that had been closed.
    ClosedSocket {
        /// The file descriptor, which may belong to another socket by now.
        fd: usize,
        /// The system call.
        call: &'static str,
    },
    /// A request is not well-formed.
    MalformedRequest {
        /// The connection that carried the request.
        connection: ConnectionId,
        /// The rule that the request broke.
        why: String,
    },
    /// A request was sent on a connection on which unsolicited data, or the end of the connection,
    /// was waiting to be read. A client that reads such data as the response attributes it to the
    /// wrong request (RFC 9112 §9.2).
    ///
    /// Data that arrived less than a millisecond after the client's last look at the connection is
    /// exempt.
    SentBehindStray {
        /// The connection.
        connection: ConnectionId,
    },
}
