//! Events that are handed over late, twice, out of order and in parts.

use std::time::{Duration, Instant};

use httpstream::sim::Random;
use mio::Events;

use crate::common::PATIENCE;
use crate::host::Host;
use crate::{KINDS, assert_mixture, server, submit_mixture};

/// A host that holds events back and shuffles them, but eventually hands over each of them.
struct Hoarder {
    host: Host,
    random: Random,
    /// Batches of events, as the poll returned them.
    hoard: Vec<Events>,
    /// Which of their events are still to be handed over.
    left: Vec<(usize, usize)>,
}

impl Hoarder {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self {
            host: Host::with(|c| {
                c.turn_events = *random.pick(&[1, 1, 3, 1024]);
                c.turn_bytes = *random.pick(&[1000, 512 << 10]);
                c.max_connections = random.between(2, 20);
            }),
            random,
            hoard: Vec::new(),
            left: Vec::new(),
        }
    }

    fn poll(&mut self) {
        let mut events = Events::with_capacity(self.random.between(1, 9));
        // While there are events to hand over, poll without waiting.
        let wait = match self.left.is_empty() {
            true => self.host.engine.next_timeout().unwrap_or(PATIENCE),
            false => Duration::ZERO,
        };
        let poll = &mut self.host.poll;
        poll.poll(&mut events, Some(wait.min(PATIENCE))).unwrap();
        let batch = self.hoard.len();
        self.left
            .extend((0..events.iter().count()).map(|event| (batch, event)));
        self.hoard.push(events);
    }

    /// Hands over some of the events in random order, and occasionally one of them twice.
    fn hand_over(&mut self) {
        self.random.shuffle(&mut self.left);
        let some = self.random.below(self.left.len() + 1);
        for (batch, event) in self.left.drain(..some) {
            let event = self.hoard[batch].iter().nth(event).unwrap();
            for _ in 0..1 + usize::from(self.random.chance(200)) {
                self.host.engine.on_event(event);
            }
        }
        if self.left.is_empty() {
            self.hoard.clear();
        }
    }

    fn run(&mut self, count: usize) {
        let end = Instant::now() + PATIENCE;
        while self.host.log.replies.len() < count {
            let stats = self.host.engine.stats();
            assert!(Instant::now() < end, "{stats:?}");
            if self.random.chance(700) {
                self.poll();
            }
            self.hand_over();
            if self.random.chance(700) {
                self.host.turn();
            }
        }
        // Events of connections that are gone are handed over as well.
        while !self.left.is_empty() {
            self.hand_over();
        }
        self.host.quiet();
    }
}

#[test]
fn events_may_come_late_and_twice_and_in_another_order() {
    let server = server();
    for seed in 0..60 {
        let mut hoarder = Hoarder::new(seed);
        submit_mixture(&mut hoarder.host, &server, 3);
        hoarder.run(3 * KINDS);
        assert_mixture(&mut hoarder.host, 3);
    }
}

#[test]
fn with_a_budget_of_one_event_each_turn_takes_one_of_those_handed_over() {
    let server = server();
    let mut host = Host::with(|c| c.turn_events = 1);
    for _ in 0..10 {
        host.submit(server.get("/"));
    }
    let end = Instant::now() + PATIENCE;
    while host.log.replies.len() < 10 {
        assert!(Instant::now() < end);
        host.poll(PATIENCE);
        let handed = host.hand_over();
        for n in 1..=handed {
            let turn = host.turn();
            assert_eq!(turn.events, 1);
            assert!(turn.more || n == handed, "{} events are left", handed - n);
            assert!(
                n == handed || host.engine.next_timeout().unwrap().is_zero(),
                "a turn is due for the rest"
            );
        }
        host.turn();
    }
    host.assert_empty();
}
