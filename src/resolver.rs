//! Names to addresses: the seam that a resolver is written against, and the resolvers that need no other crate.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::is_exhaustion;

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

/// `getaddrinfo`, on helper threads: names as every other program on this machine sees them.
///
/// A look-up blocks its thread, not the loop; up to four run at once, and a thread without work ends after ten seconds.
/// Both families of a host are asked for together. Nothing is kept: `getaddrinfo` tells no TTL.
pub struct System {
    desk: Arc<Desk>,
}

/// Where the engine's thread and the helpers meet.
struct Desk {
    ledger: Mutex<Ledger>,
    work: Condvar,
}

#[derive(Default)]
struct Ledger {
    /// Hosts to be looked up, each with the questions it answers.
    asked: VecDeque<(String, Vec<(LookupId, Family)>)>,
    answered: VecDeque<(LookupId, Result<Vec<IpAddr>, LookupError>)>,
    threads: usize,
    resting: usize,
    closed: bool,
    wake: Option<Wake>,
}

impl System {
    const MAX_THREADS: usize = 4;
    const REST: Duration = Duration::from_secs(10);

    /// A resolver without threads yet: the first look-up starts one.
    pub fn new() -> Self {
        let desk = Desk {
            ledger: Mutex::default(),
            work: Condvar::new(),
        };
        Self {
            desk: Arc::new(desk),
        }
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ledger = self.desk.ledger();
        f.debug_struct("System")
            .field("asked", &ledger.asked.len())
            .field("threads", &ledger.threads)
            .finish()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.desk.ledger().closed = true;
        self.desk.work.notify_all();
    }
}

impl Resolve for System {
    fn attach(&mut self, wake: Wake) {
        self.desk.ledger().wake = Some(wake);
    }

    fn start(&mut self, host: &str, family: Family, id: LookupId) {
        let mut ledger = self.desk.ledger();
        if let Some((_, questions)) = ledger.asked.iter_mut().find(|(asked, _)| asked == host) {
            // Somebody is on the way to it.
            return questions.push((id, family));
        }
        ledger
            .asked
            .push_back((host.to_owned(), vec![(id, family)]));
        // One that rests may have been called for an earlier host, and not have woken up yet.
        if ledger.asked.len() <= ledger.resting {
            self.desk.work.notify_one();
        } else if ledger.threads < Self::MAX_THREADS {
            let desk = Arc::clone(&self.desk);
            let started = std::thread::Builder::new()
                .name("httpstream-names".into())
                .stack_size(256 * 1024)
                .spawn(move || desk.serve());
            match started {
                Ok(_) => ledger.threads += 1,
                // Another thread will come to it; without one there is nobody to wait for.
                Err(_) if ledger.threads > 0 => {}
                Err(error) => {
                    let why =
                        LookupError::Exhausted(format!("no thread to look up names: {error}"));
                    for (_, questions) in std::mem::take(&mut ledger.asked) {
                        let failed = questions.into_iter().map(|(id, _)| (id, Err(why.clone())));
                        ledger.answered.extend(failed);
                    }
                }
            }
        }
    }

    fn cancel(&mut self, id: LookupId) {
        let mut ledger = self.desk.ledger();
        for (_, questions) in &mut ledger.asked {
            questions.retain(|(asked, _)| *asked != id);
        }
        ledger.asked.retain(|(_, questions)| !questions.is_empty());
        ledger.answered.retain(|(answered, _)| *answered != id);
    }

    fn on_tick(&mut self, _: Instant) {}

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn take(&mut self) -> Option<(LookupId, Result<Vec<IpAddr>, LookupError>)> {
        self.desk.ledger().answered.pop_front()
    }
}

impl Desk {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A helper that panicked left the ledger between two whole steps.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A helper's life.
    fn serve(&self) {
        let mut ledger = self.ledger();
        loop {
            if ledger.closed {
                break;
            }
            let Some((host, questions)) = ledger.asked.pop_front() else {
                ledger.resting += 1;
                let (back, rest) = self
                    .work
                    .wait_timeout(ledger, System::REST)
                    .unwrap_or_else(PoisonError::into_inner);
                ledger = back;
                ledger.resting -= 1;
                if rest.timed_out() && ledger.asked.is_empty() {
                    break;
                }
                continue;
            };
            drop(ledger);
            let found = look_up(&host);
            ledger = self.ledger();
            for (id, family) in questions {
                let answer = found.as_ref().map_err(Clone::clone).map(|addrs| {
                    let of_family = addrs
                        .iter()
                        .filter(|ip| ip.is_ipv4() == (family == Family::V4));
                    of_family.copied().collect()
                });
                ledger.answered.push_back((id, answer));
            }
            if let Some(wake) = ledger.wake.clone() {
                wake.wake();
            }
        }
        ledger.threads -= 1;
    }
}

/// Asks `getaddrinfo` for all addresses of `host`.
///
/// Where file descriptors run out it cannot open its files and may say anything, "no such name" included. A failure is
/// therefore believed only if descriptors were free both before and after it.
fn look_up(host: &str) -> Result<Vec<IpAddr>, LookupError> {
    spare_descriptors()?;
    match (host, 0u16).to_socket_addrs() {
        Ok(found) => {
            let mut addrs = Vec::new();
            for ip in found.map(|addr| addr.ip()) {
                if !addrs.contains(&ip) {
                    addrs.push(ip);
                }
            }
            Ok(addrs)
        }
        Err(error) => {
            spare_descriptors()?;
            // The standard library tells `getaddrinfo`'s reasons apart in words only.
            let why = error.to_string();
            let not_found = [
                "not known",
                "No address associated",
                "nodename nor servname",
                "No such host",
            ];
            match not_found.iter().any(|words| why.contains(words)) {
                true => Err(LookupError::NotFound),
                false => Err(LookupError::Failed(why)),
            }
        }
    }
}

/// Refuses when not as many file descriptors are free as `getaddrinfo` opens at once.
fn spare_descriptors() -> Result<(), LookupError> {
    const NEEDED: usize = 3;
    let mut held = Vec::with_capacity(NEEDED);
    for _ in 0..NEEDED {
        match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) {
            Ok(socket) => held.push(socket),
            Err(error) if is_exhaustion(&error) => {
                return Err(LookupError::Exhausted(error.to_string()));
            }
            // Without IPv4 there is nothing to be learnt this way.
            Err(_) => break,
        }
    }
    Ok(())
}

/// Names in a table, for tests and for hosts that no server knows: answers at once.
#[derive(Clone, Debug, Default)]
pub struct Table {
    hosts: HashMap<String, Vec<IpAddr>>,
    answered: VecDeque<(LookupId, Result<Vec<IpAddr>, LookupError>)>,
}

impl Table {
    /// An empty table: no name exists.
    pub fn new() -> Self {
        Self::default()
    }

    /// `host` has these addresses, and no others.
    pub fn insert(&mut self, host: &str, addrs: impl IntoIterator<Item = IpAddr>) {
        self.hosts
            .insert(host.to_ascii_lowercase(), addrs.into_iter().collect());
    }
}

impl Resolve for Table {
    fn attach(&mut self, _: Wake) {}

    fn start(&mut self, host: &str, family: Family, id: LookupId) {
        let answer = match self.hosts.get(host) {
            None => Err(LookupError::NotFound),
            Some(addrs) => {
                let of_family = addrs
                    .iter()
                    .filter(|ip| ip.is_ipv4() == (family == Family::V4));
                Ok(of_family.copied().collect())
            }
        };
        self.answered.push_back((id, answer));
    }

    fn cancel(&mut self, id: LookupId) {
        self.answered.retain(|(answered, _)| *answered != id);
    }

    fn on_tick(&mut self, _: Instant) {}

    /// Answers are there as soon as a question is: the next turn takes them.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn take(&mut self) -> Option<(LookupId, Result<Vec<IpAddr>, LookupError>)> {
        self.answered.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_does_not_queue_behind_one_that_a_resting_helper_was_called_for() {
        let mut system = System::new();
        // As if one helper rested: called for the first host, it has not woken up when the second is asked for.
        system.desk.ledger().resting = 1;
        system.start("127.0.0.1", Family::V4, LookupId(1));
        system.start("127.0.0.1", Family::V6, LookupId(2));
        assert_eq!(system.desk.ledger().threads, 0);
        system.start("127.0.0.2", Family::V4, LookupId(3));
        assert_eq!(system.desk.ledger().threads, 1);
    }
}
