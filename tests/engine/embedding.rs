//! An engine in a foreign event loop: the host only watches one file descriptor and one deadline.

use crate::common;

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use common::{Bench, Log, Server, ok};
use httpstream::{Engine, Reply, Request};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

/// A host that turns only when the descriptor is readable or the deadline has passed, and never
/// lets the turn wait.
///
/// It registers the descriptor anew in each round, so it sees levels, as with poll(2): a descriptor
/// that is still readable is reported again.
fn host(
    bench: &mut Bench,
    what: &str,
    mut is_done: impl FnMut(&Engine<Log>, &Log) -> bool,
) -> usize {
    let end = Instant::now() + common::PATIENCE;
    let mut rounds = 0;
    while !is_done(&bench.engine, &bench.log) {
        assert!(
            Instant::now() < end,
            "gave up after {:?}, waiting for: {what} {:?}",
            common::PATIENCE,
            bench.stats()
        );
        rounds += 1;
        let readable = level_poll(&bench.engine, bench.engine.next_timeout());
        let due = bench
            .engine
            .next_timeout()
            .is_some_and(|left| left.is_zero());
        if readable || due {
            bench
                .engine
                .turn(&mut bench.log, Some(Duration::ZERO))
                .unwrap();
        }
    }
    rounds
}

/// Whether the engine's descriptor becomes readable in time. A poll that is made for one call sees
/// levels, not edges.
fn level_poll(engine: &Engine<Log>, timeout: Option<Duration>) -> bool {
    let mut poll = Poll::new().unwrap();
    let fd = engine.as_raw_fd();
    poll.registry()
        .register(&mut SourceFd(&fd), Token(0), Interest::READABLE)
        .unwrap();
    let mut events = Events::with_capacity(1);
    let longest = common::PATIENCE;
    poll.poll(&mut events, Some(timeout.unwrap_or(longest).min(longest)))
        .unwrap();
    !events.is_empty()
}

#[test]
fn nothing_is_lost_when_the_host_turns_only_when_told() {
    let server = Server::by_path(3 << 20);
    let mut bench = Bench::with(|c| c.max_connections_per_origin = 7);
    for i in 0..100 {
        let path = ["/", "/close", "/large", "/slow", "/silent"][i % 5];
        let get = Request::get(server.url(path)).timeout(Duration::from_millis(if i % 5 == 4 {
            400
        } else {
            20_000
        }));
        let delay = Duration::from_millis((i % 7) as u64 * 5);
        bench.engine.start(
            bench
                .engine
                .send(get.build().unwrap())
                .after(delay)
                .read_by(common::note),
        );
    }
    let rounds = host(&mut bench, "all replies", |_, log| log.replies.len() == 100);
    let failed = bench.log.kinds().len();
    assert_eq!(failed, 20, "the unanswered ones: {:?}", bench.log.kinds());
    assert!(
        rounds < 100_000,
        "too many rounds without a cause: {rounds}"
    );
    bench.assert_empty();
}

#[test]
fn an_idle_engine_is_neither_readable_nor_due() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    bench.fetch_ok(server.get("/"));
    bench.quiet();
    assert!(!level_poll(&bench.engine, Some(Duration::from_millis(20))));
    assert!(
        bench.engine.next_timeout().unwrap() > Duration::from_secs(10),
        "due when the idle connection expires"
    );
    bench.assert_empty();
    assert!(!level_poll(&bench.engine, Some(Duration::from_millis(20))));
}

#[test]
fn what_is_asked_for_between_turns_makes_a_turn_due() {
    let server = Server::answering(ok("abc"));
    let mut bench = Bench::new();
    assert_eq!(bench.engine.next_deadline(), None);
    let is_due = |bench: &Bench| {
        bench
            .engine
            .next_deadline()
            .is_some_and(|due| due <= Instant::now())
    };
    bench.submit(server.get("/"));
    assert!(is_due(&bench), "submit");
    bench.replies(1);
    let id = bench.engine.start(
        bench
            .engine
            .send(server.get("/"))
            .after(Duration::from_secs(50))
            .read_by(common::note),
    );
    assert!(is_due(&bench), "start");
    bench.quiet();
    assert!(!is_due(&bench), "delayed");
    bench.engine.cancel(id);
    assert!(is_due(&bench), "cancel");
    bench.replies(2);
    let script = common::Script {
        head: httpstream::Flow::Pause,
        ..common::Script::default()
    };
    let id = bench.engine.submit_to(server.get("/"), script);
    bench.until("it is paused", |engine, _| engine.stats().paused == 1);
    bench.quiet();
    assert!(!is_due(&bench));
    bench.engine.resume(id);
    assert!(is_due(&bench), "resume");
    bench.replies(3);
    bench.assert_empty();
}

#[test]
fn a_submitter_makes_the_descriptor_readable() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    let submitter = bench.engine.submitter();
    let request = server.get("/");
    std::thread::spawn(move || submitter.submit(request, common::note).unwrap())
        .join()
        .unwrap();
    assert!(level_poll(&bench.engine, Some(common::PATIENCE)));
    host(&mut bench, "the reply", |_, log| log.replies.len() == 1);
    bench.assert_empty();
}

#[test]
fn deadlines_are_never_early() {
    let mut bench = Bench::new();
    let server = Server::answering(ok("a"));
    let started = Instant::now();
    for ms in [1, 2, 3, 5, 8, 13, 21, 34, 55] {
        bench.engine.start(
            bench
                .engine
                .send(server.get("/"))
                .after(Duration::from_millis(ms))
                .read_by(move |log: &mut Log, reply: Reply<'_>, cx| {
                    log.notes.push(format!(
                        "{}",
                        started.elapsed() >= Duration::from_millis(ms)
                    ));
                    common::note(log, reply, cx)
                }),
        );
    }
    host(&mut bench, "all", |_, log| log.replies.len() == 9);
    assert_eq!(bench.log.notes, ["true"; 9]);
    bench.assert_empty();
}

#[test]
fn turns_with_small_bounds_lose_nothing() {
    let server = Server::start(|peer| while peer.answer(&ok(&"x".repeat(20_000))) {});
    let mut bench = Bench::with(|c| {
        c.turn_events = 1;
        c.turn_bytes = 1;
        c.read_buffer = 4096;
    });
    for _ in 0..50 {
        bench.submit(server.get("/"));
    }
    host(&mut bench, "all", |_, log| log.replies.len() == 50);
    assert!(
        bench
            .log
            .replies
            .iter()
            .all(|r| r.as_ref().unwrap().body.len() == 20_000)
    );
    bench.assert_empty();
}

#[test]
fn a_turn_over_its_budget_says_that_there_is_more() {
    let server = Server::answering(ok(&"x".repeat(4 << 20)));
    let mut bench = Bench::with(|c| c.turn_bytes = 1000);
    bench.submit(server.get("/"));
    let (mut more, mut due) = (0, 0);
    while bench.log.replies.is_empty() {
        let turn = bench
            .engine
            .turn(&mut bench.log, Some(Duration::from_secs(5)))
            .unwrap();
        if turn.more {
            more += 1;
            // A turn that skipped the poll for the rest of its last batch is not due: the host
            // polls first.
            due += usize::from(bench.engine.next_timeout().unwrap().is_zero());
        }
    }
    assert!(due > 0, "{due} of {more}");
    bench.assert_empty();
}

#[test]
fn two_engines_on_one_thread_know_nothing_of_each_other() {
    let server = Server::answering(ok("a"));
    let (mut one, mut two) = (Bench::new(), Bench::new());
    for _ in 0..10 {
        one.submit(server.get("/one"));
        two.submit(server.get("/two"));
    }
    while one.log.replies.len() + two.log.replies.len() < 20 {
        for bench in [&mut one, &mut two] {
            bench
                .engine
                .turn(&mut bench.log, Some(Duration::from_millis(1)))
                .unwrap();
        }
    }
    assert_eq!((one.log.replies.len(), two.log.replies.len()), (10, 10));
    one.assert_empty();
    assert!(two.stats().links_idle > 0);
    two.assert_empty();
}

#[test]
fn an_engine_may_turn_inside_a_readback_of_another() {
    let server = Server::answering(ok("a"));
    let mut outer = Engine::<Bench>::new().unwrap();
    let mut inner = Bench::new();
    let request = server.get("/");
    outer.submit(
        server.get("/"),
        move |inner: &mut Bench, _: Reply<'_>, cx| {
            assert_eq!(inner.fetch_ok(request.clone()).text(), "a");
            cx.done()
        },
    );
    outer.run(&mut inner).unwrap();
    assert_eq!(inner.stats().answered, 1);
}
