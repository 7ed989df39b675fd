//! Name lookup in a simulated network, in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::faults::Fault;
use super::network::Network;
use super::world::{Name, World};
use crate::resolver::{Family, LookupAnswer, LookupError, LookupId, Resolve, Wake};

/// A resolver without a thread: an answer becomes available once virtual time has reached it,
/// through [`Resolve::on_tick`].
#[derive(Debug)]
pub(super) struct Names {
    network: Network,
    /// Lookups in progress, ordered by the time at which they end, then by their start.
    waiting: BTreeMap<(Instant, u64), (LookupId, LookupAnswer)>,
    begun: u64,
    done: VecDeque<(LookupId, LookupAnswer)>,
}

impl Names {
    pub(super) fn new(network: Network) -> Self {
        Self {
            network,
            waiting: BTreeMap::new(),
            begun: 0,
            done: VecDeque::new(),
        }
    }
}

impl Resolve for Names {
    fn attach(&mut self, _wake: Wake) {
        // Answers become available in `on_tick` or at once, so there is nothing to wake.
    }

    fn start(&mut self, host: &str, family: Family, id: LookupId) {
        let name = host.strip_suffix('.').unwrap_or(host);
        let (after, answer) = self.network.world_mut().look_up(name, family);
        if after.is_zero() {
            return self.done.push_back((id, answer));
        }
        let at = self.network.now() + after;
        self.waiting.insert((at, self.begun), (id, answer));
        self.begun += 1;
    }

    fn cancel(&mut self, id: LookupId) {
        self.waiting.retain(|_, (waiting, _)| *waiting != id);
        self.done.retain(|(done, _)| *done != id);
    }

    fn on_tick(&mut self, now: Instant) {
        while let Some(entry) = self.waiting.first_entry()
            && entry.key().0 <= now
        {
            self.done.push_back(entry.remove());
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
        self.done.pop_front()
    }
}

impl Name {
    fn after(&self, family: Family) -> Duration {
        match family {
            Family::V4 => self.after_v4,
            Family::V6 => self.after_v6,
        }
    }
}

impl World {
    /// Returns the answer to a lookup, and the time it takes.
    pub(super) fn look_up(&mut self, host: &str, family: Family) -> (Duration, LookupAnswer) {
        let (mut after, answer, ttl) = match self.names.get(host) {
            Some(name) => (name.after(family), name.answer.clone(), name.ttl),
            None => (self.latency * 2, Err(LookupError::NotFound), Duration::ZERO),
        };
        if self.strikes(Fault::SlowLookup) {
            after += self.random.duration(Duration::from_secs(20));
        } else if self.strikes(Fault::NoLatency) {
            after = Duration::ZERO;
        }
        let answer = if self.strikes(Fault::FailedLookup) {
            Err(LookupError::Failed("simulated failure".to_owned()))
        } else if self.strikes(Fault::ExhaustedLookup) {
            Err(LookupError::Exhausted("simulated exhaustion".to_owned()))
        } else {
            answer
        };
        self.note("look up", 0, usize::from(answer.is_ok()));
        let answer = match answer {
            Ok(addrs) => LookupAnswer::found(addrs.into_iter().filter(|ip| family.has(ip))),
            Err(error) => LookupAnswer::failed(error),
        };
        (after, answer.kept_for(ttl))
    }
}
