//! Name resolution: the trait that a resolver implements, and the resolvers provided.
//!
//! - `Hickory`: a stub resolver on the engine's own loop (feature `hickory`)
//! - [`System`]: `getaddrinfo` on helper threads
//! - [`Table`]: a table of names
//!
//! An engine gets its resolver from [`Config::resolver`](crate::Config::resolver).

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "hickory")]
mod hickory;
mod stamp;
mod system;
mod table;

#[cfg(feature = "hickory")]
pub use hickory::{Hickory, HickoryConfig};
pub(crate) use stamp::Stamp;
pub use system::System;
pub(crate) use system::spare_descriptors;
pub use table::Table;

/// The address family of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4: A records.
    V4,
    /// IPv6: AAAA records.
    V6,
}

impl Family {
    /// Returns whether `ip` is of this family.
    pub fn has(self, ip: &IpAddr) -> bool {
        ip.is_ipv4() == (self == Family::V4)
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        }
    }
}

/// Identifies one lookup of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LookupId(pub u64);

/// The result of a lookup.
///
/// ```
/// use std::net::IpAddr;
/// use std::time::Duration;
/// use httpstream::resolver::{LookupAnswer, LookupError};
///
/// let address = IpAddr::from([192, 0, 2, 1]);
/// let found = LookupAnswer::found([address]).kept_for(Duration::from_secs(60));
/// assert_eq!(found.addresses, Ok(vec![address]));
/// assert_eq!(found.ttl, Duration::from_secs(60));
///
/// let missing = LookupAnswer::failed(LookupError::NotFound);
/// assert_eq!(missing.ttl, Duration::ZERO); // not cached
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LookupAnswer {
    /// The addresses found. If it is empty, the name exists but has no address of this family.
    pub addresses: Result<Vec<IpAddr>, LookupError>,
    /// How long the answer may be cached: the records' TTL or, for a name without addresses, the
    /// time stated by the zone's SOA (RFC 2308 §5). Zero, as for every failure: not at all.
    pub ttl: Duration,
}

impl LookupAnswer {
    /// Creates an answer with these addresses, or without any of this family, that is not to be
    /// cached.
    pub fn found(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            addresses: Ok(addresses.into_iter().collect()),
            ttl: Duration::ZERO,
        }
    }

    /// Creates an answer for a failed lookup.
    pub fn failed(error: LookupError) -> Self {
        Self {
            addresses: Err(error),
            ttl: Duration::ZERO,
        }
    }

    /// Returns the same answer, to be cached for `ttl`.
    pub fn kept_for(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }
}

/// Why a lookup gave no address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookupError {
    /// The name does not exist.
    NotFound,
    /// The name exists, and has no address of either family.
    NoAddress,
    /// None of these servers answered in time.
    Timeout(String),
    /// The machine has no file descriptor or no memory left for the question, which is asked again
    /// when some is free.
    Exhausted(String),
    /// Any other failure, in the resolver's words.
    Failed(String),
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LookupError::NotFound => f.write_str("no such name"),
            LookupError::NoAddress => f.write_str("the name has no address"),
            LookupError::Timeout(servers) if servers.is_empty() => f.write_str("no answer"),
            LookupError::Timeout(servers) => write!(f, "no answer from {servers}"),
            LookupError::Exhausted(why) | LookupError::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for LookupError {}

/// Wakes the engine from any thread; its next turn collects the resolver's answers.
#[derive(Clone)]
pub struct Wake(Arc<dyn Fn() + Send + Sync>);

impl Wake {
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Makes a turn due.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wake")
    }
}

/// Looks up names without blocking the event loop.
///
/// Each question is for one address family, so a connection that can proceed with one family does
/// not wait for the other (RFC 8305 §3).
///
/// The engine does the work that is common to all resolvers: literals, `localhost`, the overrides
/// of [`Config::resolve_to`](crate::Config::resolve_to), the hosts file, sharing of questions, a
/// limit on concurrent questions, and caching. A resolver only asks, each time.
///
/// ```
/// use std::collections::VecDeque;
/// use std::net::Ipv4Addr;
/// use std::sync::Arc;
/// use std::time::{Duration, Instant};
/// use httpstream::resolver::{Family, LookupAnswer, LookupId, Resolve, Wake};
/// use httpstream::{Config, Engine, ErrorKind, Next, Request};
///
/// /// Answers each name with 127.0.0.1.
/// #[derive(Debug, Default)]
/// struct Loopback { answers: VecDeque<(LookupId, LookupAnswer)> }
///
/// impl Resolve for Loopback {
///     fn attach(&mut self, _: Wake) {}
///
///     fn start(&mut self, _: &str, family: Family, id: LookupId) {
///         let address = (family == Family::V4).then_some(Ipv4Addr::LOCALHOST.into());
///         let answer = LookupAnswer::found(address).kept_for(Duration::from_secs(60));
///         self.answers.push_back((id, answer));
///     }
///
///     fn cancel(&mut self, id: LookupId) {
///         self.answers.retain(|(answered, _)| *answered != id);
///     }
///
///     fn on_tick(&mut self, _: Instant) {}
///
///     fn deadline(&self) -> Option<Instant> {
///         None
///     }
///
///     fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
///         self.answers.pop_front()
///     }
/// }
///
/// let mut config = Config::default();
/// config.resolver = Some(Arc::new(|| Box::new(Loopback::default())));
/// let mut engine = Engine::<Option<ErrorKind>>::with_config(config)?;
/// engine.submit(Request::get("http://api.test:1/").build()?, |failed, reply, _| {
///     *failed = reply.err().map(|error| error.kind());
///     Next::done()
/// });
/// let mut failed = None;
/// engine.run(&mut failed)?;
/// assert_eq!(failed, Some(ErrorKind::Connect)); // the name was found, but nothing listens there
/// # Ok::<(), httpstream::Error>(())
/// ```
pub trait Resolve: fmt::Debug {
    /// Called once, before any lookup. A resolver with a thread of its own calls `wake` whenever
    /// [`take`](Self::take) has a new answer.
    fn attach(&mut self, wake: Wake);
    /// Called once, after [`attach`](Self::attach), if the engine is on a poll of the operating
    /// system. A resolver whose sockets are on this loop registers them with `registry`, under
    /// tokens of the range; [`on_event`](Self::on_event) then reports their events.
    ///
    /// # Errors
    /// An error prevents the engine from being created.
    fn attach_poll(
        &mut self,
        registry: mio::Registry,
        tokens: Range<usize>,
    ) -> std::io::Result<()> {
        let _ = (registry, tokens);
        Ok(())
    }
    /// Begins to look up `host`, a name in lower case. If the caller wrote a final dot, the name
    /// ends in one; it is then complete, and no search list applies. [`take`](Self::take) returns
    /// the answer, possibly at once.
    fn start(&mut self, host: &str, family: Family, id: LookupId);
    /// The answer to `id` is no longer needed. The resolver frees its sockets and timers now. It
    /// need not answer; an answer that comes is ignored.
    fn cancel(&mut self, id: LookupId);
    /// The poll has reported an event of the source registered under `token`. Whether the source is
    /// readable or writable, the resolver finds out by trying.
    fn on_event(&mut self, token: mio::Token) {
        let _ = token;
    }
    /// Called in each turn in which [`deadline`](Self::deadline) has passed, and after the events
    /// of a turn. The current time is `now`.
    fn on_tick(&mut self, now: Instant);
    /// Returns when [`on_tick`](Self::on_tick) is to be called; an instant in the past means in the
    /// next turn. The engine asks again after it has called one of the other methods, and after it
    /// was woken.
    fn deadline(&self) -> Option<Instant>;
    /// Returns an answer that is ready.
    fn take(&mut self) -> Option<(LookupId, LookupAnswer)>;
    /// Returns whether the servers have changed since the last call, for example because
    /// `resolv.conf` was written. If so, the engine drops all cached names.
    ///
    /// Called before each name that the engine cannot answer by itself or from the hosts file;
    /// `now` is the time of the turn. Check files at most once a second. The default returns false.
    fn has_changed(&mut self, now: Instant) -> bool {
        let _ = now;
        false
    }
    /// The machine has moved to another network: the resolver forgets what it has learned about
    /// servers and reads their configuration again. Lookups in progress continue. The default does
    /// nothing.
    fn on_network_changed(&mut self) {}
    /// Returns the servers that are asked, for the text of an error: `192.0.2.1:53, 192.0.2.2:53`.
    fn servers(&self) -> String {
        String::new()
    }
}
