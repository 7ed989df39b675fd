//! What the simulated servers saw, and what the client did that no client should.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::server::{ConnectionId, Incoming};

/// What the servers of a [`Network`](super::Network) saw, and which addresses were dialled, in the
/// order in which it happened.
///
/// Two ledgers are equal when the same bytes came at the same times on the same connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub(super) attempts: Vec<Attempt>,
    pub(super) requests: Vec<Rc<Incoming>>,
    pub(super) connections: BTreeMap<ConnectionId, Served>,
}

impl Ledger {
    /// Every attempt to connect, whatever became of it, unless the client had no file descriptor or
    /// port left for it.
    pub fn attempts(&self) -> impl DoubleEndedIterator<Item = &Attempt> + ExactSizeIterator {
        self.attempts.iter()
    }

    /// Every request that a server got whole, answered or not.
    pub fn requests(&self) -> impl DoubleEndedIterator<Item = &Incoming> + ExactSizeIterator {
        self.requests.iter().map(|request| &**request)
    }

    /// Every connection that was established, in the order in which they were begun.
    pub fn connections(&self) -> impl DoubleEndedIterator<Item = &Served> + ExactSizeIterator {
        self.connections.values()
    }

    /// Forgets all but the connections that are open.
    pub(super) fn clear(&mut self) {
        self.attempts.clear();
        self.requests.clear();
        self.connections.retain(|_, served| served.closed.is_none());
    }
}

/// An attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The address that was dialled.
    pub server: SocketAddr,
    /// Whether it was dialled for an `https` URL.
    pub https: bool,
    /// When it was begun, from the beginning of the simulation.
    pub begun: Duration,
}

/// A connection, as its server saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Served {
    /// Its name.
    pub id: ConnectionId,
    /// The address of the server.
    pub server: SocketAddr,
    /// Whether it was made for an `https` URL: on the real network it would be a TLS connection.
    pub https: bool,
    /// When it was established, from the beginning of the simulation.
    pub opened: Duration,
    /// When it ended and how; `None` while it is open.
    pub closed: Option<(Duration, Closed)>,
    /// How many whole requests came on it.
    pub requests: usize,
    /// Bytes of a request that had come when the connection ended, and were not all of it.
    pub unfinished: usize,
    /// Bytes that had come for the client, and that it had not read when it closed its end.
    pub unread: usize,
}

/// Who ended a connection, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Closed {
    /// The client, having read everything.
    ByClient,
    /// The client, with something unread: the server got a reset.
    ResetByClient,
    /// The server.
    ByServer,
    /// The server, with a reset.
    ResetByServer,
}

/// Something that no client should do. A run in which there is any has found an error of the
/// engine, not of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// A socket was closed while its poll still watched it.
    ClosedWhileRegistered {
        /// Its number.
        fd: usize,
    },
    /// A socket was registered while it was.
    RegisteredTwice {
        /// Its number.
        fd: usize,
    },
    /// A socket was deregistered which was not registered.
    NotRegistered {
        /// Its number.
        fd: usize,
    },
    /// A system call named a socket that was closed by then.
    ClosedSocket {
        /// Its number, which may belong to another socket by now.
        fd: usize,
        /// The call.
        call: &'static str,
    },
    /// A request is not well-formed.
    MalformedRequest {
        /// The connection it came on.
        connection: ConnectionId,
        /// The rule it broke.
        why: String,
    },
    /// A request went out on a connection on which something unasked for, or its end, had been
    /// waiting to be read: whoever reads it as the response gives a request the answer to another
    /// (RFC 9112 §9.2). What arrived within a millisecond of the client's last look at the
    /// connection is forgiven.
    SentBehindStray {
        /// The connection.
        connection: ConnectionId,
    },
}
