//! Name resolution from a table.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use super::{Family, LookupAnswer, LookupError, LookupId, Resolve, Wake};

/// A resolver that answers from a table, immediately. Use it in tests, and for hosts that are not
/// in the DNS.
#[derive(Clone, Debug, Default)]
pub struct Table {
    hosts: HashMap<String, Vec<IpAddr>>,
    answered: VecDeque<(LookupId, LookupAnswer)>,
}

impl Table {
    /// Creates an empty table, in which no name exists.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the addresses of `host`, replacing any it had.
    pub fn insert(&mut self, host: &str, addrs: impl IntoIterator<Item = IpAddr>) {
        self.hosts
            .insert(host.to_ascii_lowercase(), addrs.into_iter().collect());
    }
}

impl Resolve for Table {
    fn attach(&mut self, _: Wake) {}

    fn start(&mut self, host: &str, family: Family, id: LookupId) {
        let host = host.strip_suffix('.').unwrap_or(host);
        let answer = match self.hosts.get(host) {
            None => LookupAnswer::failed(LookupError::NotFound),
            Some(addrs) => LookupAnswer::found(addrs.iter().copied().filter(|ip| family.has(ip))),
        };
        self.answered.push_back((id, answer));
    }

    fn cancel(&mut self, id: LookupId) {
        self.answered.retain(|(answered, _)| *answered != id);
    }

    fn on_tick(&mut self, _: Instant) {}

    /// Answers are available as soon as a lookup starts, so the next turn takes them.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
        self.answered.pop_front()
    }
}
