//! `drain` lets current exchanges end, starts nothing new and cancels the rest. Dropping the engine
//! calls no readback.

use crate::common;

use std::time::{Duration, Instant};

use common::{Bench, Gate, Log, Server, ok};
use httpstream::{Context, Engine, ErrorKind, Next, Reply, Request};

fn gated(gate: &Gate) -> Server {
    let gate = gate.clone();
    Server::start(move |peer| {
        while let Some(seen) = peer.request() {
            if seen.path == "/hold" {
                gate.pass();
            }
            peer.send(&ok(&seen.path));
        }
    })
}

const LONG: Duration = Duration::from_secs(15);

#[test]
fn what_is_in_flight_and_queued_ends_and_what_is_delayed_is_cancelled() {
    let gate = Gate::new();
    let server = gated(&gate);
    let mut bench = Bench::with(|c| c.max_connections_per_origin = 1);
    bench.submit(server.get("/hold"));
    bench.submit(server.get("/queued"));
    for _ in 0..3 {
        bench.engine.start(
            bench
                .engine
                .send(server.get("/delayed"))
                .after(Duration::from_secs(100))
                .read_by(|log: &mut Log, reply: Reply<'_>, cx| {
                    let _ = common::note(log, reply, cx);
                    cx.again()
                }),
        );
    }
    bench.until("one is in flight", |engine, _| {
        engine.stats().in_flight == 1 && engine.stats().delayed == 3
    });
    gate.open(1);
    assert_eq!(bench.engine.drain(&mut bench.log, LONG).unwrap(), 3);
    let mut texts = bench.log.texts();
    texts.sort();
    assert_eq!(
        texts,
        ["/hold", "/queued", "Cancelled", "Cancelled", "Cancelled"]
    );
    assert_eq!(bench.engine.pending(), 0);
    bench.assert_empty();
}

#[test]
fn what_was_submitted_just_before_ends_too() {
    let server = gated(&Gate::new());
    let mut bench = Bench::new();
    bench.submit(server.get("/a"));
    bench.engine.start(
        bench
            .engine
            .send(server.get("/b"))
            .after(LONG)
            .read_by(common::note),
    );
    assert_eq!(bench.engine.drain(&mut bench.log, LONG).unwrap(), 1);
    let mut texts = bench.log.texts();
    texts.sort();
    assert_eq!(texts, ["/a", "Cancelled"]);
    bench.assert_empty();
}

#[test]
fn what_does_not_end_in_time_is_cancelled_and_counted() {
    let server = gated(&Gate::new());
    let mut bench = Bench::with(|c| c.max_connections_per_origin = 2);
    for _ in 0..5 {
        bench.submit(server.get("/hold"));
    }
    bench.until("two are in flight", |engine, _| {
        engine.stats().in_flight == 2
    });
    let before = Instant::now();
    let within = Duration::from_millis(50);
    assert_eq!(bench.engine.drain(&mut bench.log, within).unwrap(), 5);
    assert!(before.elapsed() >= within && before.elapsed() < LONG);
    assert_eq!(bench.log.kinds(), [ErrorKind::Cancelled; 5]);
    bench.assert_empty();
}

#[test]
fn follow_ons_are_dropped_and_new_chains_are_answered_cancelled() {
    let gate = Gate::new();
    let server = gated(&gate);
    let mut bench = Bench::new();
    let request = server.get("/new");
    bench.engine.submit(
        server.get("/hold"),
        move |log: &mut Log, reply: Reply<'_>, cx| {
            let _ = common::note(log, reply, cx);
            cx.submit(request.clone(), |log: &mut Log, reply: Reply<'_>, cx| {
                let _ = common::note(log, reply, cx);
                let id = cx.id();
                log.notes.push(cx.cancel(id).to_string());
                cx.again()
            });
            cx.again()
        },
    );
    bench.until("it is in flight", |engine, _| engine.stats().in_flight == 1);
    gate.open(1);
    bench.engine.drain(&mut bench.log, LONG).unwrap();
    assert_eq!(bench.log.texts(), ["/hold", "Cancelled"]);
    assert_eq!(bench.log.notes, ["false"], "it is canceled already");
    assert_eq!(server.so_far().len(), 1);

    // The engine remains usable.
    assert_eq!(bench.fetch_ok(server.get("/b")).text(), "/b");
    bench.assert_empty();
}

#[test]
fn a_chain_that_cancels_itself_when_it_fails_in_a_drain_is_told() {
    let server = Server::once("garbage\r\n\r\n");
    let mut bench = Bench::new();
    bench
        .engine
        .submit(server.get("/"), |log: &mut Log, reply: Reply<'_>, cx| {
            let _ = common::note(log, reply, cx);
            let id = cx.id();
            log.notes.push(cx.cancel(id).to_string());
            cx.again()
        });
    bench.engine.drain(&mut bench.log, LONG).unwrap();
    assert_eq!(
        bench.log.kinds(),
        [ErrorKind::Malformed, ErrorKind::Cancelled]
    );
    assert_eq!(bench.log.notes, ["true", "false"]);
    bench.assert_empty();
}

#[test]
fn submissions_of_other_threads_are_cancelled_meanwhile() {
    let gate = Gate::new();
    let server = gated(&gate);
    let mut bench = Bench::new();
    bench.submit(server.get("/hold"));
    bench.until("it is in flight", |engine, _| engine.stats().in_flight == 1);
    let submitter = bench.engine.submitter();
    let request = server.get("/late");
    let thread = std::thread::spawn(move || {
        submitter.submit(request, move |log: &mut Log, reply: Reply<'_>, cx| {
            // The drain lasts until this chain has been canceled.
            gate.open(1);
            common::note(log, reply, cx)
        })
    });
    bench.engine.drain(&mut bench.log, LONG).unwrap();
    thread.join().unwrap().unwrap();
    let mut texts = bench.log.texts();
    texts.sort();
    assert_eq!(texts, ["/hold", "Cancelled"]);
    bench.assert_empty();
}

#[test]
fn readbacks_that_go_on_for_ever_do_not_hold_it_up() {
    fn again(
        request: Request,
    ) -> impl FnMut(&mut usize, Reply<'_>, &mut Context<'_, usize>) -> Next<usize> {
        move |told, reply, cx| {
            assert_eq!(reply.unwrap_err().kind(), ErrorKind::Cancelled);
            *told += 1;
            cx.submit(request.clone(), again(request.clone()));
            cx.done()
        }
    }
    let server = Server::start(|peer| {
        peer.hold();
    });
    for within in [Duration::ZERO, Duration::from_millis(20)] {
        let mut engine = Engine::<usize>::new().unwrap();
        for _ in 0..3 {
            engine.submit(server.get("/"), again(server.get("/")));
        }
        let mut told = 0;
        engine.turn(&mut told, Some(Duration::ZERO)).unwrap();
        assert_eq!(engine.drain(&mut told, within).unwrap(), 3);
        assert!(told >= 3, "every pending chain is canceled: {told}");
        assert_eq!(engine.pending(), 3, "the chains started last");
    }
}

#[test]
fn a_drain_with_nothing_to_do_is_over_at_once() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.engine.drain(&mut bench.log, Duration::MAX).unwrap(),
        0
    );
    bench.assert_empty();
}

#[test]
fn dropping_the_engine_calls_no_readback_and_closes_all() {
    struct Witness(std::sync::mpsc::Sender<&'static str>);
    impl Drop for Witness {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }
    let gate = Gate::new();
    let at = gate.clone();
    let server = Server::start(move |peer| {
        peer.request();
        peer.hold();
        at.open(1);
    });
    let (tell, told) = std::sync::mpsc::channel();
    let mut engine = Engine::<()>::new().unwrap();
    for i in 0..3 {
        let witness = Witness(tell.clone());
        let delay = if i == 0 { LONG } else { Duration::ZERO };
        engine.start(
            engine
                .send(server.get("/"))
                .after(delay)
                .read_by(move |_, _, cx| {
                    let _ = witness.0.send("called");
                    cx.done()
                }),
        );
    }
    while engine.stats().bytes_out == 0 {
        engine
            .turn(&mut (), Some(Duration::from_millis(10)))
            .unwrap();
    }
    server.next();
    server.next();
    drop(engine);
    gate.pass();
    gate.pass();
    drop(tell);
    assert_eq!(told.iter().collect::<Vec<_>>(), ["dropped"; 3]);
}

/// More than one turn starts.
const MANY: usize = 5_000;

#[test]
fn what_was_submitted_before_a_drain_is_not_new_however_much_it_is() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    for _ in 0..MANY {
        bench.submit(server.get("/"));
    }
    assert_eq!(bench.engine.drain(&mut bench.log, LONG).unwrap(), 0);
    assert_eq!(bench.log.replies.len(), MANY);
    assert!(bench.log.replies.iter().all(Result::is_ok));
}

#[test]
fn a_turn_begins_a_bounded_number_and_says_that_there_is_more() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::with(|c| c.max_connections_per_origin = 1);
    for _ in 0..MANY {
        bench.submit(server.get("/"));
    }
    let turn = bench.engine.turn(&mut bench.log, Some(Duration::ZERO));
    assert!(turn.unwrap().more, "most of them have not begun");
    assert!(
        bench
            .engine
            .next_timeout()
            .is_some_and(|left| left.is_zero())
    );
    bench.replies(MANY);
    assert!(bench.log.replies.iter().all(Result::is_ok));
}
