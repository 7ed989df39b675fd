//! Names to addresses: the seam that a resolver is written against, and the resolvers there are.
//!
//! - `Hickory`: a stub resolver on the engine's own loop (feature `hickory`)
//! - [`System`]: `getaddrinfo` on helper threads
//! - [`Table`]: names in a table

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

/// Address family of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4: A records.
    V4,
    /// IPv6: AAAA records.
    V6,
}

impl Family {
    /// Whether `ip` is of this family.
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

/// Names one look-up among those of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LookupId(pub u64);

/// The end of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LookupAnswer {
    /// What was found. Empty: the name exists, and has no address of that family.
    pub addresses: Result<Vec<IpAddr>, LookupError>,
    /// How long it may be kept: the records' TTL, or for a name without addresses what the zone's
    /// SOA says (RFC 2308 §5). Zero: not at all, as of every failure.
    pub ttl: Duration,
}

impl LookupAnswer {
    /// Addresses, or none of that family, not to be kept.
    pub fn found(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            addresses: Ok(addresses.into_iter().collect()),
            ttl: Duration::ZERO,
        }
    }

    /// No answer.
    pub fn failed(error: LookupError) -> Self {
        Self {
            addresses: Err(error),
            ttl: Duration::ZERO,
        }
    }

    /// The same, to be kept for `ttl`.
    pub fn kept_for(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }
}

/// Why a look-up gave no address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookupError {
    /// The name does not exist.
    NotFound,
    /// The name exists, and has no address of either family.
    NoAddress,
    /// None of these servers answered in time.
    Timeout(String),
    /// This machine has no file descriptor or memory left to ask with; asked again when some is
    /// free.
    Exhausted(String),
    /// Anything else, in the resolver's words.
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

/// Wakes the engine from any thread: its next turn asks the resolver for answers.
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

/// Looks up names without blocking the loop, one address family per question, so that nobody who
/// can go on with one waits for the other (RFC 8305 §3).
///
/// What all resolvers have to agree on is done once, in front of them: literals, `localhost`, the
/// overrides of [`Config::resolve_to`](crate::Config::resolve_to), the hosts file, sharing, a bound
/// on questions under way, and keeping answers. A resolver asks, each time.
pub trait Resolve: fmt::Debug {
    /// Called once, before any look-up. A resolver with a thread of its own calls `wake` whenever
    /// [`take`](Self::take) has something new.
    fn attach(&mut self, wake: Wake);
    /// Called once, after [`attach`](Self::attach), where the engine is on a poll of the operating
    /// system: for a resolver with sockets on this loop. What it registers carries a token of the
    /// range, and is told of by [`on_event`](Self::on_event).
    ///
    /// # Errors
    /// The engine is not made.
    fn attach_poll(
        &mut self,
        registry: mio::Registry,
        tokens: Range<usize>,
    ) -> std::io::Result<()> {
        let _ = (registry, tokens);
        Ok(())
    }
    /// Begins to look up `host`, a name in lower case. It ends in a dot if the caller wrote one:
    /// then it is complete, and no search list is tried. The answer comes out of
    /// [`take`](Self::take), possibly at once.
    fn start(&mut self, host: &str, family: Family, id: LookupId);
    /// Nobody waits for `id` any more: sockets and timers are freed now, no answer is expected, one
    /// that comes is ignored.
    fn cancel(&mut self, id: LookupId);
    /// The poll has told of a source that was registered under `token`. Which way it is ready, a
    /// call has to show.
    fn on_event(&mut self, token: mio::Token) {
        let _ = token;
    }
    /// The time is `now`; called in each turn in which [`deadline`](Self::deadline) has passed, and
    /// behind events of that turn.
    fn on_tick(&mut self, now: Instant);
    /// When [`on_tick`](Self::on_tick) wants to be called; in the past: in the next turn. Asked for
    /// anew after calls of the other methods, and when the engine was woken.
    fn deadline(&self) -> Option<Instant>;
    /// Takes an answer that is ready.
    fn take(&mut self) -> Option<(LookupId, LookupAnswer)>;
    /// Whether the servers have changed since the last call, for example because `resolv.conf` was
    /// written. The engine then forgets all names it has kept. Called before each name that is not
    /// known otherwise; `now` is the time of the turn. Check files at most once a second. The
    /// default says no.
    fn has_changed(&mut self, now: Instant) -> bool {
        let _ = now;
        false
    }
    /// The machine has moved to another network: forget what was learnt about servers, and read
    /// their configuration again. Look-ups under way go on. The default does nothing.
    fn on_network_changed(&mut self) {}
    /// Whom it asks, for the words of an error: `192.0.2.1:53, 192.0.2.2:53`.
    fn servers(&self) -> String {
        String::new()
    }
}
