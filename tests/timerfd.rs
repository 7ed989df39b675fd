//! A timer in the engine's poll, for hosts that watch the file descriptor and do not query the
//! deadline.
#![cfg(target_os = "linux")]

mod common;
#[cfg(feature = "hickory")]
#[path = "dns/server.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the resolver's own tests, and each uses a part of it"
)]
mod names;

use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use common::{Bench, Gate, Log, PATIENCE, Script, Server, note, ok};
use httpstream::{Context, Engine, ErrorKind, Flow, Next, Reply, Request, Turn};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

/// A time in which nothing should happen.
const A_WHILE: Duration = Duration::from_millis(100);

/// Whether the descriptor is readable within this time. A poll that is made for one call sees
/// levels, not edges.
fn is_readable<S>(engine: &Engine<S>, within: Duration) -> bool {
    !Watcher::new(engine).told(within).is_empty()
}

/// A poll that watches engines. It gets edges, as mio's polls do.
struct Watcher {
    poll: Poll,
    events: Events,
}

impl Watcher {
    fn new<S>(engine: &Engine<S>) -> Self {
        Self::of([engine])
    }

    fn of<'a, S: 'a>(engines: impl IntoIterator<Item = &'a Engine<S>>) -> Self {
        let poll = Poll::new().unwrap();
        for (number, engine) in engines.into_iter().enumerate() {
            let fd = engine.as_raw_fd();
            let mut source = SourceFd(&fd);
            let registry = poll.registry();
            registry
                .register(&mut source, Token(number), Interest::READABLE)
                .unwrap();
        }
        let events = Events::with_capacity(8);
        Self { poll, events }
    }

    /// Returns the engines with an event within this time.
    fn told(&mut self, within: Duration) -> Vec<usize> {
        self.poll.poll(&mut self.events, Some(within)).unwrap();
        self.events.iter().map(|event| event.token().0).collect()
    }
}

/// Turns once, without waiting. Returns `None` if a readback panicked.
fn turn(bench: &mut Bench) -> Option<Turn> {
    let Bench { engine, log } = bench;
    catch_unwind(AssertUnwindSafe(|| {
        engine.turn(log, Some(Duration::ZERO)).unwrap()
    }))
    .ok()
}

/// How a host learns that the descriptor is readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// For as long as it is; the host turns once each time.
    Level,
    /// Once; the host then turns until there was no event and nothing is left.
    Edge,
}

/// A host that only watches the descriptor. Returns how often it was readable.
fn run(
    bench: &mut Bench,
    told: Told,
    what: &str,
    mut is_done: impl FnMut(&Engine<Log>, &Log) -> bool,
) -> usize {
    let end = Instant::now() + PATIENCE;
    let mut watcher = Watcher::new(&bench.engine);
    let mut times = 0;
    while !is_done(&bench.engine, &bench.log) {
        if told == Told::Level {
            watcher = Watcher::new(&bench.engine);
        }
        let left = end.saturating_duration_since(Instant::now());
        let is_told = !watcher.told(left).is_empty();
        assert!(
            is_told,
            "gave up after {PATIENCE:?}, waiting for: {what} {:?}",
            bench.stats()
        );
        times += 1;
        loop {
            let goes_on = turn(bench).is_none_or(|turn| turn.events > 0 || turn.more);
            if !goes_on || told == Told::Level {
                break;
            }
        }
    }
    times
}

/// Turns whenever the descriptor is readable, until it is not for a while.
fn quiet(bench: &mut Bench) {
    while is_readable(&bench.engine, A_WHILE) {
        turn(bench);
    }
}

fn server() -> Server {
    Server::by_path(1 << 20)
}

#[test]
fn a_host_that_knows_only_the_descriptor_runs_a_conversation() {
    for told in [Told::Level, Told::Edge] {
        for turn_events in [1024, 1] {
            let server = server();
            let mut bench = Bench::with(|c| {
                c.max_connections_per_origin = 7;
                c.turn_events = turn_events;
            });
            let paths = ["/", "/close", "/large", "/slow", "/silent", "/held"];
            for i in 0..96 {
                let path = paths[i % 6];
                let mut get = Request::get(server.url(path)).long_poll(Duration::from_secs(10));
                if path == "/silent" {
                    get = Request::get(server.url(path)).timeout(Duration::from_millis(200));
                }
                let delay = Duration::from_millis((i % 7) as u64 * 5);
                bench.engine.start(
                    bench
                        .engine
                        .send(get.build().unwrap())
                        .after(delay)
                        .read_by(note),
                );
            }
            let mut beats = 0;
            bench.submit(server.get("/"));
            bench
                .engine
                .submit(server.get("/"), move |log: &mut Log, reply, cx| {
                    let _ = note(log, reply, cx);
                    beats += 1;
                    match beats {
                        10 => Next::done(),
                        _ => Next::again().after(Duration::from_millis(7)),
                    }
                });
            let why = format!("{told:?} {turn_events}");
            let times = run(&mut bench, told, &why, |_, log| log.replies.len() == 107);
            assert_eq!(bench.log.kinds(), [ErrorKind::Timeout; 16], "{why}");
            assert!(times < 100_000, "{why}: readable too often: {times}");
            // The time limit of pooled connections is a deadline, too.
            assert!(bench.stats().links_idle > 0);
            bench.assert_empty();
        }
    }
}

#[test]
fn idle_connections_are_closed_in_time_for_a_host_that_knows_only_the_descriptor() {
    let server = server();
    for told in [Told::Level, Told::Edge] {
        let mut bench = Bench::with(|c| c.idle_timeout = Duration::from_millis(30));
        bench.submit(server.get("/"));
        run(&mut bench, told, "the reply", |_, log| {
            log.replies.len() == 1
        });
        run(&mut bench, told, "it is closed", |engine, _| {
            engine.stats().links_open == 0
        });
        bench.assert_empty();
    }
}

#[cfg(feature = "hickory")]
#[test]
fn names_are_looked_up_for_a_host_that_knows_only_the_descriptor() {
    use httpstream::resolver::{Hickory, HickoryConfig};
    let unresponsive = names::NameServer::unresponsive();
    let answers = names::NameServer::start(|question, back| {
        let loopback = std::net::Ipv4Addr::LOCALHOST.into();
        back.send(&question.addresses(60, &[loopback]));
    });
    let http = Server::answering(ok("a"));
    for told in [Told::Level, Told::Edge] {
        let mut config = HickoryConfig::default();
        // The timeout of the first server is one of the resolver's own deadlines.
        config.servers = vec![unresponsive.addr, answers.addr];
        config.timeout = Duration::from_millis(60);
        config.attempts = 1;
        let mut bench = Bench::with(|c| {
            c.hosts_file = None;
            c.resolver = Some(Arc::new(move || {
                Box::new(Hickory::with_config(config.clone()))
            }));
        });
        for i in 0..10 {
            let url = format!("http://host{i}.test:{}/", http.addr.port());
            bench.submit(Request::get(&url).build().unwrap());
        }
        run(&mut bench, told, "replies", |_, log| {
            log.replies.len() == 10
        });
        assert!(bench.log.kinds().is_empty(), "{:?}", bench.log.kinds());
    }
}

#[test]
fn what_is_asked_for_between_turns_makes_the_descriptor_readable() {
    let server = server();
    let mut bench = Bench::new();
    let is_told = |bench: &Bench| is_readable(&bench.engine, PATIENCE);
    assert!(!is_readable(&bench.engine, A_WHILE), "nothing is due");
    bench.submit(server.get("/"));
    assert!(is_told(&bench), "submit");
    run(&mut bench, Told::Level, "a", |_, log| {
        log.replies.len() == 1
    });

    quiet(&mut bench);
    let after = |bench: &mut Bench, delay| {
        bench.engine.start(
            bench
                .engine
                .send(server.get("/"))
                .after(delay)
                .read_by(note),
        )
    };
    after(&mut bench, Duration::ZERO);
    assert!(is_told(&bench), "start");
    run(&mut bench, Told::Level, "b", |_, log| {
        log.replies.len() == 2
    });

    quiet(&mut bench);
    let never = after(&mut bench, Duration::MAX);
    quiet(&mut bench);
    bench.engine.cancel(never);
    assert!(is_told(&bench), "cancel");
    run(&mut bench, Told::Level, "c", |_, log| {
        log.replies.len() == 3
    });

    quiet(&mut bench);
    bench.engine.call(|log: &mut Log, _| {
        log.notes.push("called".to_owned());
        Next::done()
    });
    assert!(is_told(&bench), "call");
    run(&mut bench, Told::Level, "d", |_, log| {
        log.notes == ["called"]
    });

    quiet(&mut bench);
    let script = Script {
        head: Flow::Pause,
        ..Script::default()
    };
    let id = bench.engine.submit_to(server.get("/"), script);
    run(&mut bench, Told::Level, "it is paused", |engine, _| {
        engine.stats().paused == 1
    });
    quiet(&mut bench);
    assert!(bench.engine.resume(id));
    assert!(is_told(&bench), "resume");
    run(&mut bench, Told::Level, "e", |_, log| {
        log.replies.len() == 4
    });
    assert_eq!(bench.log.texts(), ["a", "a", "Cancelled", ""]);
    bench.assert_empty();
}

#[test]
fn a_deadline_makes_the_descriptor_readable_and_never_early() {
    let server = server();
    for ms in [1, 2, 5, 20, 50, 120] {
        // A new engine each time: the timer would also fire for the deadlines of the previous
        // request.
        let mut bench = Bench::new();
        let delay = Duration::from_millis(ms);
        let asked = Instant::now();
        bench.engine.start(
            bench
                .engine
                .send(server.get("/"))
                .after(delay)
                .read_by(note),
        );
        // It is due at once, to take the command in.
        assert!(is_readable(&bench.engine, PATIENCE));
        turn(&mut bench);
        let deadline = bench.engine.next_deadline().unwrap();
        assert!(deadline >= asked + delay);
        assert!(is_readable(&bench.engine, PATIENCE));
        let now = Instant::now();
        assert!(now >= deadline, "{:?} early", deadline - now);
        run(&mut bench, Told::Level, "reply", |_, log| {
            log.replies.len() == 1
        });
        bench.assert_empty();
    }
}

#[test]
fn an_engine_that_waits_is_quiet() {
    let server = server();
    let mut bench = Bench::with(|c| c.max_connections_per_origin = 1000);
    for _ in 0..100 {
        let held = Request::get(server.url("/silent")).long_poll(Duration::from_secs(60));
        bench.submit(held.build().unwrap());
    }
    // Later than the clock can count.
    let far = Duration::from_secs(1 << 40);
    bench
        .engine
        .start(bench.engine.send(server.get("/")).after(far).read_by(note));
    run(&mut bench, Told::Level, "all wait", |engine, _| {
        let stats = engine.stats();
        stats.in_flight == 100 && stats.links_dialing == 0
    });
    quiet(&mut bench);
    assert!(!is_readable(&bench.engine, 3 * A_WHILE));
    assert_eq!(bench.engine.pending(), 101);
}

#[test]
fn a_turn_over_its_budget_leaves_the_descriptor_readable() {
    let server = Server::answering(ok(&"x".repeat(4 << 20)));
    let mut bench = Bench::with(|c| c.turn_bytes = 1000);
    bench.submit(server.get("/"));
    let mut more = 0;
    while bench.log.replies.is_empty() {
        assert!(is_readable(&bench.engine, PATIENCE));
        more += usize::from(turn(&mut bench).unwrap().more);
    }
    assert!(more > 0);
    bench.assert_empty();
}

#[test]
fn after_a_panic_the_descriptor_is_readable_for_the_rest() {
    let server = server();
    for told in [Told::Level, Told::Edge] {
        for turn_events in [1024, 2, 1] {
            let mut bench = Bench::with(|c| {
                c.turn_events = turn_events;
                c.max_connections_per_origin = 20;
            });
            for i in 0..20 {
                let path = if i % 3 == 0 { "/silent" } else { "/" };
                let get = Request::get(server.url(path)).timeout(Duration::from_millis(500));
                let readback = move |log: &mut Log, reply: Reply<'_>, cx: &mut Context<'_, Log>| {
                    let next = note(log, reply, cx);
                    assert!(i % 2 == 0, "on purpose");
                    next
                };
                bench.engine.submit(get.build().unwrap(), readback);
            }
            run(&mut bench, told, "all", |_, log| log.replies.len() == 20);
            let timeouts = bench.log.kinds();
            assert!(timeouts.len() >= 7, "{timeouts:?}");
        }
    }
}

/// If a turn takes only one event, that may be the timer's. The events after it must not be left in
/// the poll.
#[test]
fn a_timer_that_goes_off_for_nothing_takes_no_events_place() {
    let gate = Gate::new();
    let (tell, told) = channel();
    let server = {
        let gate = gate.clone();
        Server::start(move |peer| {
            while let Some(seen) = peer.request() {
                if seen.path == "/held" {
                    gate.pass();
                    peer.send(&ok("held"));
                    tell.send(()).unwrap();
                } else {
                    peer.send(&ok("a"));
                }
            }
        })
    };
    let mut bench = Bench::with(|c| c.turn_events = 1);
    bench.submit(server.get("/held"));
    // A deadline that is not reached: the timer stays set to it.
    let soon = Request::get(server.url("/")).timeout(Duration::from_secs(1));
    bench.submit(soon.build().unwrap());
    let mut watcher = Watcher::new(&bench.engine);
    while bench.log.replies.is_empty() || bench.stats().links_dialing > 0 {
        assert!(!watcher.told(PATIENCE).is_empty());
        while turn(&mut bench).is_some_and(|turn| turn.events > 0 || turn.more) {}
    }
    assert!(
        bench.log.kinds().is_empty(),
        "both are answered in less than a second"
    );
    let _both = (server.next(), server.next());
    // The timer fires, then an answer arrives, and only then does the host poll.
    assert!(is_readable(&bench.engine, PATIENCE));
    gate.open(1);
    told.recv_timeout(PATIENCE).unwrap();
    while bench.log.replies.len() < 2 {
        // Earlier than the server closes the other connection, which would be an event, too.
        let told = watcher.told(PATIENCE / 2);
        assert!(!told.is_empty(), "no event for the answer");
        while turn(&mut bench).is_some_and(|turn| turn.events > 0 || turn.more) {}
    }
    assert_eq!(bench.log.texts(), ["a", "held"]);
    bench.assert_empty();
}

#[test]
fn without_the_timer_the_deadlines_are_the_hosts() {
    let server = server();
    let mut bench = Bench::with(|c| c.timerfd = false);
    bench.submit(server.get("/"));
    assert!(!is_readable(&bench.engine, A_WHILE));
    assert!(bench.engine.next_timeout().unwrap().is_zero());
    assert_eq!(watched(&bench.engine), 1, "only the waker");
    bench.replies(1);
    bench.assert_empty();
    assert_eq!(watched(&Bench::new().engine), 2, "the waker and the timer");
}

/// Returns how many descriptors are in the engine's poll (proc_pid_fdinfo(5)).
fn watched<S>(engine: &Engine<S>) -> usize {
    let fd = engine.as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    info.lines().filter(|line| line.starts_with("tfd:")).count()
}

#[test]
fn several_engines_are_watched_by_one_host() {
    let server = server();
    let mut benches: Vec<Bench> = (0..5).map(|_| Bench::new()).collect();
    let mut watcher = Watcher::of(benches.iter().map(|bench| &bench.engine));
    for (number, bench) in benches.iter_mut().enumerate() {
        for n in 0..10 {
            let delay = Duration::from_millis((n * (number + 1) * 3) as u64);
            bench.engine.start(
                bench
                    .engine
                    .send(server.get("/"))
                    .after(delay)
                    .read_by(note),
            );
        }
    }
    let mut told_of = [0; 5];
    while benches.iter().any(|bench| bench.log.replies.len() < 10) {
        let told = watcher.told(PATIENCE);
        assert!(!told.is_empty());
        for number in told {
            told_of[number] += 1;
            let bench = &mut benches[number];
            while turn(bench).is_some_and(|turn| turn.events > 0 || turn.more) {}
        }
    }
    assert!(told_of.iter().all(|times| *times > 0), "{told_of:?}");
    for mut bench in benches {
        bench.assert_empty();
    }
}
