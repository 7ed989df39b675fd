//! Two hundred random schedules on the real loop: a host that receives edges, one at a time, and
//! runs turns late and in any order.
//!
//! The schedules of `tests/simulation` are the same in every run. Here the edges come from Linux:
//! the host's decisions derive from the seed, but the kernel's timing does not.
//! `HTTPSTREAM_SCHEDULE=7` repeats the schedule of one seed.
#![cfg(target_os = "linux")]

use crate::common;

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use common::{Bench, Gate, Got, Log, PATIENCE, Server, note, ok};
use httpstream::sim::Random;
use httpstream::{ChainId, Config, Error, ErrorKind, Next, Reply, Request};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

const SCHEDULES: u64 = 200;

/// A path of the server, how often it is requested, and the check of its outcome.
type Row = (&'static str, u16, fn(&Result<Got, Error>) -> bool);

const ROWS: &[Row] = &[
    ("/", 300, |reply| is_ok(reply, 1)),
    ("/close", 150, |reply| is_ok(reply, 1)),
    ("/large", 100, |reply| is_ok(reply, LARGE)),
    ("/chunked", 100, |reply| is_ok(reply, 9)),
    ("/slow", 100, |reply| is_ok(reply, 1)),
    ("/silent", 100, |reply| is_err(reply, ErrorKind::Timeout)),
    ("/reset", 100, |reply| {
        is_err(reply, ErrorKind::ClosedBeforeResponse)
    }),
    ("/cut", 50, |reply| is_err(reply, ErrorKind::Truncated)),
];
const LARGE: usize = 200_000;

fn is_ok(reply: &Result<Got, Error>, bytes: usize) -> bool {
    reply.as_ref().is_ok_and(|got| got.body.len() == bytes)
}

fn is_err(reply: &Result<Got, Error>, kind: ErrorKind) -> bool {
    reply.as_ref().is_err_and(|error| error.kind() == kind)
}

fn server() -> Server {
    Server::start(|peer| {
        while let Some(seen) = peer.request() {
            let wire = match seen.path.as_str() {
                "/close" => ok("a").replace_first("\r\n", "\r\nConnection: close\r\n"),
                "/large" => ok(&"x".repeat(LARGE)),
                "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                    4\r\nabcd\r\n5\r\nefghi\r\n0\r\n\r\n"
                    .to_vec(),
                "/cut" => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_vec(),
                "/silent" => return drop(peer.hold()),
                "/reset" => return peer.reset(),
                _ => ok("a"),
            };
            match seen.path.as_str() {
                "/slow" => peer.send_pieces(wire.chunks(7)),
                _ => drop(peer.send(&wire)),
            }
            if matches!(seen.path.as_str(), "/close" | "/cut") {
                return;
            }
        }
    })
}

/// Replaces the first occurrence of a text in bytes.
trait ReplaceFirst {
    fn replace_first(self, old: &str, new: &str) -> Vec<u8>;
}

impl ReplaceFirst for Vec<u8> {
    fn replace_first(self, old: &str, new: &str) -> Vec<u8> {
        let text = String::from_utf8(self).unwrap();
        text.replacen(old, new, 1).into_bytes()
    }
}

/// The task of a chain.
struct Asked {
    row: &'static Row,
    id: ChainId,
    /// How many requests it sends, one after another.
    times: usize,
    is_cancelled: bool,
}

/// An engine, and the host's state of it.
struct Guest {
    bench: Bench,
    asked: Vec<Asked>,
    /// Whether an event has arrived since the last turn, or that turn found events or left work.
    is_told: bool,
}

impl Guest {
    fn new(random: &mut Random) -> Self {
        let bench = Bench::with(|c: &mut Config| {
            c.turn_events = *random.pick(&[1, 1, 1, 2, 1024]);
            c.turn_bytes = *random.pick(&[1, 1000, 512 << 10]);
            c.max_connections_per_origin = *random.pick(&[1, 3, 6, 30]);
        });
        Self {
            bench,
            asked: Vec::new(),
            is_told: false,
        }
    }

    fn submit(&mut self, server: &Server, random: &mut Random) {
        let mut left = random.below(1000) as u16;
        let row = ROWS
            .iter()
            .find(|(_, share, _)| {
                let found = left < *share;
                left = left.saturating_sub(*share);
                found
            })
            .unwrap();
        let times = match row.0 {
            "/" | "/close" | "/slow" => random.between(1, 4),
            _ => 1,
        };
        let total = match row.0 {
            "/silent" => random.duration(Duration::from_millis(30)),
            _ => PATIENCE,
        };
        let get = Request::get(server.url(row.0)).timeout(total);
        let number = self.asked.len().to_string();
        let mut left = times;
        let pause = random.duration(Duration::from_millis(2));
        let readback =
            move |log: &mut Log, reply: Reply<'_>, cx: &mut httpstream::Context<'_, Log>| {
                log.notes.push(number.clone());
                let _ = note(log, reply, cx);
                left -= 1;
                match left {
                    0 => Next::done(),
                    _ => Next::again().after(pause),
                }
            };
        let delay = random.duration(Duration::from_millis(8));
        let request = get.build().unwrap();
        let id = self.bench.engine.start(
            self.bench
                .engine
                .send(request)
                .after(delay)
                .read_by(readback),
        );
        self.asked.push(Asked {
            row,
            id,
            times,
            is_cancelled: false,
        });
    }

    fn cancel(&mut self, random: &mut Random) {
        if !self.asked.is_empty() {
            let asked = random.below(self.asked.len());
            let asked = &mut self.asked[asked];
            asked.is_cancelled |= self.bench.engine.cancel(asked.id);
        }
    }

    /// Whether the host has to turn, because of an event or the deadline.
    fn is_due(&self) -> bool {
        let timeout = self.bench.engine.next_timeout();
        self.is_told || timeout.is_some_and(|left| left.is_zero())
    }

    fn turn(&mut self) {
        let Bench { engine, log } = &mut self.bench;
        let turn = engine.turn(log, Some(Duration::ZERO)).unwrap();
        self.is_told = turn.events > 0 || turn.more;
    }

    /// Checks that each chain got the replies that it should, and no more.
    fn check(&mut self, why: &str) {
        for (number, asked) in self.asked.iter().enumerate() {
            let number = number.to_string();
            let log = &self.bench.log;
            let replies: Vec<_> = log
                .notes
                .iter()
                .zip(&log.replies)
                .filter(|(of, _)| **of == number)
                .map(|(_, reply)| reply)
                .collect();
            let (path, _, is_meant) = asked.row;
            let is_whole = match asked.is_cancelled {
                true => {
                    replies.len() <= asked.times
                        && is_err(replies[replies.len() - 1], ErrorKind::Cancelled)
                }
                false => {
                    replies.len() == asked.times && replies.iter().all(|reply| is_meant(reply))
                }
            };
            assert!(is_whole, "{why}: chain {number} {path} {replies:?}");
        }
        self.bench.assert_empty();
    }
}

/// A poll of polls, which returns one event at a time and each only once.
struct Outer {
    poll: Poll,
    events: Events,
}

impl Outer {
    fn of<'a>(benches: impl Iterator<Item = &'a Bench>) -> Self {
        let poll = Poll::new().unwrap();
        for (number, bench) in benches.enumerate() {
            let fd = bench.engine.as_raw_fd();
            let mut source = SourceFd(&fd);
            let registry = poll.registry();
            registry
                .register(&mut source, Token(number), Interest::READABLE)
                .unwrap();
        }
        let events = Events::with_capacity(1);
        Self { poll, events }
    }

    fn told(&mut self, within: Duration) -> Option<usize> {
        self.poll.poll(&mut self.events, Some(within)).unwrap();
        self.events.iter().next().map(|event| event.token().0)
    }
}

fn run(seed: u64, server: &Server) {
    let mut random = Random::new(seed);
    let mut guests: Vec<Guest> = (0..random.between(1, 3))
        .map(|_| Guest::new(&mut random))
        .collect();
    let mut outer = Outer::of(guests.iter().map(|guest| &guest.bench));
    let mut to_come = random.between(5, 30);
    // Out of a thousand.
    let crowding = *random.pick(&[300, 900, 1000]);
    let laziness = *random.pick(&[50, 300]);
    let end = Instant::now() + PATIENCE;
    while to_come > 0 || guests.iter().any(|guest| guest.bench.engine.pending() > 0) {
        assert!(
            Instant::now() < end,
            "seed {seed}: {:?}",
            guests
                .iter()
                .map(|guest| guest.bench.stats())
                .collect::<Vec<_>>()
        );
        while to_come > 0 && random.chance(crowding) {
            to_come -= 1;
            let guest = random.below(guests.len());
            guests[guest].submit(server, &mut random);
        }
        if random.chance(20) {
            let guest = random.below(guests.len());
            guests[guest].cancel(&mut random);
        }
        // Without a timeout if a guest is due or about to submit, otherwise until a deadline.
        let timeouts = guests
            .iter()
            .filter_map(|guest| guest.bench.engine.next_timeout());
        let wait = match to_come > 0 || guests.iter().any(Guest::is_due) {
            true => Duration::ZERO,
            false => timeouts.min().unwrap_or(PATIENCE).min(PATIENCE),
        };
        if let Some(told) = outer.told(wait) {
            guests[told].is_told = true;
        }
        if random.chance(laziness) {
            std::thread::sleep(random.duration(Duration::from_millis(2)));
        }
        let mut due: Vec<usize> = (0..guests.len())
            .filter(|guest| guests[*guest].is_due())
            .collect();
        random.shuffle(&mut due);
        for guest in due {
            if random.chance(800) {
                guests[guest].turn();
            }
        }
    }
    for guest in &mut guests {
        guest.check(&format!("seed {seed}"));
    }
}

#[test]
fn a_nested_host_that_schedules_badly_loses_nothing() {
    let server = server();
    if let Ok(seed) = std::env::var("HTTPSTREAM_SCHEDULE") {
        return run(
            seed.parse().expect("HTTPSTREAM_SCHEDULE must be a number"),
            &server,
        );
    }
    for seed in 0..SCHEDULES {
        run(seed, &server);
    }
}

/// An assumption of the simulation: events that are left in an engine's poll are not reported
/// again, while later events are.
#[test]
fn linux_tells_of_an_edge_once() {
    let gate = Gate::new();
    let server = {
        let gate = gate.clone();
        Server::start(move |peer| {
            while peer.request().is_some() {
                gate.pass();
                peer.send(&ok("a"));
            }
        })
    };
    let mut bench = Bench::with(|c| {
        c.turn_events = 1;
        c.idle_timeout = Duration::from_secs(3600);
    });
    bench.submit(server.get("/"));
    bench.submit(server.get("/"));
    let mut seen = 0;
    bench.until("both are sent", |_, _| {
        seen += server.so_far().len();
        seen == 2
    });
    let turn = |bench: &mut Bench| {
        let Bench { engine, log } = bench;
        engine.turn(log, Some(Duration::ZERO)).unwrap()
    };
    while turn(&mut bench).events > 0 {}
    let mut outer = Outer::of([&bench].into_iter());
    gate.open(1);
    assert_eq!(outer.told(PATIENCE), Some(0), "an answer arrives");
    let submitter = bench.engine.submitter();
    let called = submitter.call(|log: &mut Log, _| {
        log.notes.push("called".to_owned());
        Next::done()
    });
    called.unwrap();
    assert_eq!(outer.told(PATIENCE), Some(0), "the waker fires");
    let first = turn(&mut bench);
    assert_eq!((first.events, first.more), (1, false));
    assert_eq!(bench.log.replies.len() + bench.log.notes.len(), 1);
    let again = outer.told(Duration::from_millis(50));
    assert_eq!(
        again, None,
        "an event that is left in the poll is not reported again"
    );
    gate.open(1);
    assert_eq!(outer.told(PATIENCE), Some(0), "the next answer arrives");
    assert_eq!(turn(&mut bench).events, 1, "the event that was left");
    assert_eq!(turn(&mut bench).events, 1, "the event that was reported");
    assert_eq!(turn(&mut bench).events, 0);
    assert_eq!(bench.log.replies.len(), 2);
    assert_eq!(bench.log.notes, ["called"]);
    drop(submitter);
    turn(&mut bench);
    bench.assert_empty();
}
