//! The resolver on a poll owned by the test, against a scripted name server.

use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::reactor::Counts;
use super::{Hickory, HickoryConfig, State};
use crate::resolver::{Family, LookupAnswer, LookupError, LookupId, Resolve, Wake};

mod answers;
mod life;
mod servers;

#[path = "../../../../tests/dns/server.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests of the whole engine"
)]
mod server;

use server::{Back, NameServer};

/// The time limit of a test. One that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A resolver and its event loop.
struct Loop {
    poll: Poll,
    events: Events,
    hickory: Hickory,
    last_id: u64,
}

impl Loop {
    fn new(config: HickoryConfig) -> Self {
        Self::on_tokens(1 << 40..1 << 50, config)
    }

    fn on_tokens(tokens: Range<usize>, config: HickoryConfig) -> Self {
        let poll = Poll::new().unwrap();
        let mut hickory = Hickory::with_config(config);
        hickory.attach(Wake::new(|| {}));
        let registry = poll.registry().try_clone().unwrap();
        hickory.attach_poll(registry, tokens).unwrap();
        Self {
            poll,
            events: Events::with_capacity(1024),
            hickory,
            last_id: 0,
        }
    }

    /// Creates a resolver for these servers, each tried once, with a timeout longer than any delay
    /// on a busy host.
    fn asking(servers: &[&NameServer]) -> Self {
        Self::new(config(servers))
    }

    fn start(&mut self, host: &str, family: Family) -> LookupId {
        self.last_id += 1;
        let id = LookupId(self.last_id);
        self.hickory.start(host, family, id);
        id
    }

    /// Runs one turn, as the engine does.
    fn turn(&mut self) {
        let now = Instant::now();
        let deadline = self.hickory.deadline();
        let until = deadline.map(|at| at.saturating_duration_since(now));
        let wait = until.unwrap_or(PATIENCE).min(Duration::from_millis(200));
        self.poll.poll(&mut self.events, Some(wait)).unwrap();
        let mut told = false;
        for event in &self.events {
            told = true;
            self.hickory.on_event(event.token());
        }
        let now = Instant::now();
        if told || self.hickory.deadline().is_some_and(|at| at <= now) {
            self.hickory.on_tick(now);
        }
    }

    fn turn_until<T>(&mut self, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(done) = done(self) {
                return done;
            }
            assert!(Instant::now() < end, "the test hangs: {:?}", self.hickory);
            self.turn();
        }
    }

    fn look_up(&mut self, host: &str, family: Family) -> LookupAnswer {
        let id = self.start(host, family);
        let (of, answer) = self.turn_until(|this| this.hickory.take());
        assert_eq!(of, id);
        answer
    }

    fn counts(&self) -> Counts {
        let State::Running(running) = &self.hickory.state else {
            panic!("the resolver is not attached")
        };
        running.reactor.counts()
    }
}

fn config(servers: &[&NameServer]) -> HickoryConfig {
    HickoryConfig {
        servers: servers.iter().map(|server| server.addr).collect(),
        timeout: Duration::from_secs(30),
        attempts: 1,
        ..HickoryConfig::default()
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn found(ips: &[&str], seconds: u64) -> LookupAnswer {
    LookupAnswer::found(ips.iter().map(|text| ip(text))).kept_for(Duration::from_secs(seconds))
}

fn failed(why: String) -> LookupAnswer {
    LookupAnswer::failed(LookupError::Failed(why))
}

/// Starts a server with an address of each family for every name.
fn honest() -> NameServer {
    NameServer::start(|question, back| {
        back.send(&question.addresses(60, &[ip("192.0.2.1"), ip("2001:db8::1")]));
    })
}
