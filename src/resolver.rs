//! Names to addresses: the seam that a resolver is written against, and the resolvers that need no other crate.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// Address family of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4: A records.
    V4,
    /// IPv6: AAAA records.
    V6,
}

/// Names one look-up among those of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LookupId(pub u64);

/// Why a look-up gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookupError {
    /// The name does not exist, or has no address of that family.
    NotFound,
    /// This machine has no file descriptor or memory left to ask with; asked again when some is free.
    Exhausted(String),
    /// Anything else, in the resolver's words.
    Failed(String),
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LookupError::NotFound => f.write_str("no such name"),
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

/// Looks up names without blocking the loop, one address family per question.
///
/// Literals, `localhost` and the overrides of [`Config::resolve_to`](crate::Config::resolve_to) are answered in front of it.
pub trait Resolve: fmt::Debug {
    /// Called once, before any look-up. A resolver with a thread of its own calls `wake` whenever [`take`](Self::take) has something new.
    fn attach(&mut self, wake: Wake);
    /// Begins to look up `host` (a name in lower case, no trailing dot). The answer comes out of [`take`](Self::take), possibly at once.
    fn start(&mut self, host: &str, family: Family, id: LookupId);
    /// Nobody waits for `id` any more: no answer is expected, one that comes is ignored.
    fn cancel(&mut self, id: LookupId);
    /// The time is `now`; called in each turn in which [`deadline`](Self::deadline) has passed.
    fn on_tick(&mut self, now: Instant);
    /// When [`on_tick`](Self::on_tick) wants to be called.
    fn deadline(&self) -> Option<Instant>;
    /// Takes an answer that is ready. An empty list says that the name exists and has no address of that family.
    fn take(&mut self) -> Option<(LookupId, Result<Vec<IpAddr>, LookupError>)>;
}
