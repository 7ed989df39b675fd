//! Look-ups in the names of a simulated network, in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::faults::Fault;
use super::network::Network;
use super::world::{Name, World};
use crate::resolver::{Family, LookupAnswer, LookupError, LookupId, Resolve, Wake};

/// A resolver without a thread: an answer comes when virtual time has got there, by
/// [`Resolve::on_tick`].
#[derive(Debug)]
pub(super) struct Names {
    network: Network,
    /// Look-ups on their way, by when they end and in order of their beginning.
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
        // An answer comes in `on_tick` or at once: nobody has to be woken.
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
    /// What a look-up will answer, and after how long.
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
