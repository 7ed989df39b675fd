//! A chain can be canceled at every stage: `cancel` returns true once, its readback gets
//! `Cancelled`, and is not called again.

use crate::common;

use std::time::Duration;

use common::{Bench, Gate, Log, Script, Server, facts, ok};
use httpstream::resolver::{Family, LookupAnswer, LookupId, Resolve, Wake};
use httpstream::{ChainId, ErrorKind, Flow, Next, Phase, Request, Sent};

#[derive(Clone, Debug)]
struct Unresponsive;

impl Resolve for Unresponsive {
    fn attach(&mut self, _: Wake) {}
    fn start(&mut self, _: &str, _: Family, _: LookupId) {}
    fn cancel(&mut self, _: LookupId) {}
    fn on_tick(&mut self, _: std::time::Instant) {}
    fn deadline(&self) -> Option<std::time::Instant> {
        None
    }
    fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
        None
    }
}

/// A server that sends its response up to a point that the path names, and no further.
fn partial() -> Server {
    Server::start(|peer| {
        let Some(seen) = peer.request() else { return };
        match seen.path.as_str() {
            "/head" => drop(peer.send(b"HTTP/1.1 200 OK\r\nA:")),
            "/body" => drop(peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")),
            _ => {}
        }
        peer.hold();
    })
}

/// Cancels a chain, and checks everything that follows. A result of `again` must be dropped.
fn cancel(bench: &mut Bench, id: ChainId, phase: Phase, sent: Sent) {
    assert!(bench.engine.cancel(id), "canceled");
    assert!(!bench.engine.cancel(id), "canceled twice");
    assert!(
        bench.engine.next_timeout().unwrap().is_zero(),
        "a turn is due"
    );
    bench.replies(1);
    let error = bench.log.replies.pop().unwrap().unwrap_err();
    assert_eq!(facts(&error), (ErrorKind::Cancelled, phase, sent));
    assert!(!bench.engine.cancel(id), "the chain is over");
    bench.quiet();
    assert!(bench.log.replies.is_empty(), "no other call");
    bench.assert_empty();
}

/// Would continue forever.
fn obstinate(
    log: &mut Log,
    reply: httpstream::Reply<'_>,
    cx: &mut httpstream::Context<'_, Log>,
) -> Next<Log> {
    let _ = common::note(log, reply, cx);
    cx.again()
}

#[test]
fn before_its_first_turn() {
    let server = partial();
    let mut bench = Bench::new();
    let id = bench.engine.submit(server.get("/"), obstinate);
    cancel(&mut bench, id, Phase::Queue, Sent::No);
    assert!(server.so_far().is_empty());
}

#[test]
fn while_delayed() {
    let server = partial();
    for delay in [Duration::from_secs(100), Duration::MAX] {
        let mut bench = Bench::new();
        let id = bench.engine.start(
            bench
                .engine
                .send(server.get("/"))
                .after(delay)
                .read_by(obstinate),
        );
        bench.quiet();
        assert_eq!(bench.stats().delayed, 1);
        cancel(&mut bench, id, Phase::Queue, Sent::No);
    }
}

#[test]
fn while_queued() {
    let server = partial();
    let mut bench = Bench::with(|c| c.max_connections_per_origin = 1);
    let first = bench.submit(server.get("/"));
    let id = bench.engine.submit(server.get("/"), obstinate);
    bench.until("one is in flight", |engine, _| {
        engine.stats().in_flight == 1
    });
    assert!(bench.engine.cancel(id) && !bench.engine.cancel(id));
    bench.replies(1);
    let error = bench.log.replies.pop().unwrap().unwrap_err();
    assert_eq!(
        facts(&error),
        (ErrorKind::Cancelled, Phase::Queue, Sent::No)
    );
    server.next();
    cancel(&mut bench, first, Phase::FirstByte, Sent::Maybe);
}

#[test]
fn while_resolving() {
    let mut bench = Bench::with(|c| c.resolver = Some(common::resolver(Unresponsive)));
    let id = bench
        .engine
        .submit(Request::get("http://a.test/").build().unwrap(), obstinate);
    bench.until("it is asked for", |engine, _| {
        engine.stats().links_dialing == 1
    });
    cancel(&mut bench, id, Phase::Resolve, Sent::No);
}

#[test]
fn while_connecting() {
    let (addr, _kept) = common::unresponsive_listener();
    let mut bench = Bench::new();
    let id = bench.engine.submit(
        Request::get(format!("http://{addr}/")).build().unwrap(),
        obstinate,
    );
    bench.until("it dials", |engine, _| engine.stats().links_dialing == 1);
    cancel(&mut bench, id, Phase::Connect, Sent::No);
}

#[test]
fn while_writing() {
    let server = Server::start(|peer| {
        peer.head();
        Gate::new().pass();
    });
    let mut bench = Bench::new();
    let id = bench
        .engine
        .submit(server.post("/", vec![0; 32 << 20]), obstinate);
    bench.until("some is written", |engine, _| {
        engine.stats().bytes_out > 1 << 16
    });
    cancel(&mut bench, id, Phase::Write, Sent::Maybe);
}

#[test]
fn while_waiting_and_inside_head_and_body() {
    let rows = [
        ("/wait", 0, Phase::FirstByte, Sent::Maybe),
        ("/head", 17, Phase::Head, Sent::Yes),
        ("/body", 38, Phase::Body, Sent::Yes),
    ];
    for (path, bytes, phase, sent) in rows {
        let server = partial();
        let mut bench = Bench::new();
        let id = bench.engine.submit(server.get(path), obstinate);
        bench.until("it is there", |engine, _| {
            engine.stats().bytes_out > 0 && engine.stats().bytes_in >= bytes
        });
        server.next();
        cancel(&mut bench, id, phase, sent);
    }
}

#[test]
fn while_paused() {
    let server = partial();
    let mut bench = Bench::new();
    let id = bench.engine.submit_to(
        server.get("/body"),
        Script {
            head: Flow::Pause,
            ..Script::default()
        },
    );
    bench.until("it is paused", |engine, _| engine.stats().paused == 1);
    cancel(&mut bench, id, Phase::Body, Sent::Yes);
}

#[test]
fn by_its_own_readback() {
    for (at, wire) in [
        (
            "interim",
            &b"HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"[..],
        ),
        ("head", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
        ("head", b"HTTP/1.1 204 x\r\n\r\n"),
        ("data", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
        ("data", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc"),
        ("reply", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
        ("error", b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc"),
    ] {
        let server = Server::answering(wire);
        let mut bench = Bench::new();
        let script = Script {
            cancel_in: Some(at),
            ..Script::default()
        };
        let id = bench.engine.submit_to(server.get("/"), script);
        bench.until("it is over", |engine, _| engine.pending() == 0);
        let cancels: Vec<_> = bench
            .log
            .notes
            .iter()
            .filter(|n| n.starts_with("cancel true"))
            .collect();
        assert_eq!(cancels, ["cancel true false"], "in {at}");
        let kinds = bench.log.kinds();
        assert_eq!(kinds.last(), Some(&ErrorKind::Cancelled), "in {at}");
        let before = usize::from(at == "reply" || at == "error");
        assert_eq!(bench.log.replies.len(), before + 1, "in {at}");
        assert!(!bench.engine.cancel(id));
        bench.assert_empty();
    }
}

#[test]
fn by_its_own_readback_which_wants_to_go_on() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    bench.engine.submit(
        server.get("/"),
        |log: &mut Log, reply: httpstream::Reply<'_>, cx| {
            let id = cx.id();
            log.notes.push(cx.cancel(id).to_string());
            let _ = common::note(log, reply, cx);
            cx.again()
        },
    );
    bench.until("it is over", |engine, _| engine.pending() == 0);
    assert_eq!(bench.log.texts(), ["a", "Cancelled"]);
    assert_eq!(bench.log.notes, ["true", "false"]);
    assert_eq!(server.so_far().len(), 1);
    bench.assert_empty();
}

#[test]
fn by_another_readback() {
    let hung = partial();
    for path in ["/", "/head", "/body"] {
        let server = Server::answering(ok("a"));
        let mut bench = Bench::new();
        let victim = bench.engine.submit(hung.get(path), obstinate);
        bench.until("it is sent", |engine, _| engine.stats().bytes_out > 0);
        bench.engine.submit(
            server.get("/"),
            move |log: &mut Log, _: httpstream::Reply<'_>, cx| {
                log.notes
                    .push(format!("{} {}", cx.cancel(victim), cx.cancel(victim)));
                cx.done()
            },
        );
        bench.replies(1);
        assert_eq!(bench.log.notes, ["true false"]);
        assert_eq!(bench.log.texts(), ["Cancelled"]);
        bench.assert_empty();
    }
}

#[test]
fn a_chain_that_another_submitted_in_the_same_breath() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    let request = server.get("/");
    bench.engine.submit(
        server.get("/"),
        move |log: &mut Log, _: httpstream::Reply<'_>, cx| {
            let id = cx.submit(request.clone(), common::note);
            log.notes
                .push(format!("{} {}", cx.cancel(id), cx.cancel(id)));
            cx.done()
        },
    );
    bench.replies(1);
    assert_eq!(
        (&bench.log.notes[..], bench.log.texts()),
        (&["true false".to_owned()][..], vec!["Cancelled".to_owned()])
    );
    assert_eq!(server.so_far().len(), 1);
    bench.assert_empty();
}

#[test]
fn a_failure_that_was_not_yet_told_becomes_the_cancellation() {
    // `refused` has failed, and its readback is to run at the end of the turn. Another readback
    // cancels it before that.
    let server = Server::start(|peer| {
        while peer.request().is_some() {
            peer.send(b"garbage\r\n\r\n");
        }
    });
    let mut bench = Bench::new();
    bench.engine.submit(
        server.get("/1"),
        |log: &mut Log, reply: httpstream::Reply<'_>, cx| {
            let _ = common::note(log, reply, cx);
            for id in log.notes.drain(..) {
                cx.cancel(ChainId::from_u64(id.parse().unwrap()));
            }
            cx.done()
        },
    );
    let second = bench.engine.submit(server.get("/2"), obstinate);
    bench.log.notes.push(second.to_u64().to_string());
    bench.until("both are over", |engine, _| engine.pending() == 0);
    assert_eq!(bench.log.kinds().last(), Some(&ErrorKind::Cancelled));
    assert_eq!(
        bench
            .log
            .kinds()
            .iter()
            .filter(|k| **k == ErrorKind::Cancelled)
            .count(),
        1
    );
    bench.assert_empty();
}

#[test]
fn ids_of_old_chains_name_no_new_one() {
    let server = partial();
    let mut bench = Bench::new();
    let old = bench.submit(server.get("/"));
    bench.engine.cancel(old);
    bench.replies(1);
    let new = bench.submit(server.get("/"));
    assert_ne!(old, new);
    assert!(!bench.engine.cancel(old) && !bench.engine.resume(old));
    assert!(!bench.engine.cancel(ChainId::from_u64(u64::MAX)));
    assert_eq!(ChainId::from_u64(new.to_u64()), new);
    assert!(bench.engine.cancel(new));
    bench.replies(2);
    bench.assert_empty();
}

/// More commands are queued than one turn carries out, and the cancellation is the last of them.
#[test]
fn a_cancellation_that_has_to_wait_its_turn_is_heard_before_the_response() {
    for path in ["/whole", "/streamed"] {
        let gate = common::Gate::new();
        let at = gate.clone();
        let server = Server::start(move |peer| {
            while peer.request().is_some() {
                at.pass();
                peer.send(&common::ok("abc"));
            }
        });
        let mut bench = Bench::new();
        let id = match path {
            "/whole" => bench.engine.submit(server.get(path), common::note),
            _ => {
                let script = common::Script {
                    head: Flow::Stream,
                    ..common::Script::default()
                };
                bench.engine.submit_to(server.get(path), script)
            }
        };
        bench.until("it is sent", |engine, _| engine.stats().in_flight == 1);
        server.next();
        let others: Vec<_> = (0..10_000)
            .map(|_| {
                bench
                    .engine
                    .start(Next::call(|_, cx| cx.done()).after(Duration::MAX))
            })
            .collect();
        assert!(bench.engine.cancel(id));
        gate.open(1);
        // The response arrives before the next turn.
        std::thread::sleep(Duration::from_millis(30));
        bench.until("it is over", |engine, _| engine.pending() == others.len());
        assert_eq!(bench.log.kinds(), [ErrorKind::Cancelled], "{path}");
        assert_eq!(bench.log.replies.len(), 1, "{path}");
        assert!(bench.log.notes.is_empty(), "{path}: {:?}", bench.log.notes);
        for id in others {
            bench.engine.cancel(id);
        }
        bench.until("all is over", |engine, _| engine.pending() == 0);
    }
}

#[test]
fn cancel_others_ends_every_other_chain_wherever_it_is() {
    let server = partial();
    let mut bench = Bench::new();
    for path in ["/head", "/body", "/silent"] {
        bench.submit(server.get(path));
    }
    let delayed = Next::send(server.get("/later")).after(Duration::from_secs(60));
    bench.engine.start(delayed.read_by(common::note));
    let call = Next::call(|log: &mut Log, cx| {
        log.notes.push("called".to_owned());
        cx.done()
    });
    bench.engine.start(call.after(Duration::from_secs(60)));
    bench.engine.spawn(std::future::pending());
    bench.until("all are under way", |engine, _| {
        engine.stats().in_flight == 3 && engine.pending() == 6
    });
    let gate = Server::answering(ok("kicked"));
    let again = gate.get("/again");
    bench
        .engine
        .submit(gate.get("/"), move |log: &mut Log, _, cx| {
            // A chain that begins in this readback is among the others.
            cx.submit(again.clone(), common::note);
            let cancelled = cx.cancel_others();
            log.notes.push(format!("{cancelled} cancelled"));
            assert_eq!(cx.cancel_others(), 0, "canceled twice");
            cx.again().read_by(|log: &mut Log, reply, cx| {
                log.notes.push(reply.unwrap().text().unwrap().to_owned());
                cx.done()
            })
        });
    bench.until("nothing is left", |engine, _| engine.pending() == 0);
    assert_eq!(bench.log.notes, ["7 cancelled", "kicked"]);
    let kinds = bench.log.kinds();
    // The call and the task have no readback that could be called.
    assert_eq!(kinds, [ErrorKind::Cancelled; 5]);
    bench.assert_empty();
}

#[test]
fn cancel_others_reaches_chains_over_other_parts_of_the_state() {
    let server = partial();
    let mut bench = Bench::new();
    bench.submit(server.get("/silent"));
    bench.until("it is under way", |engine, _| engine.stats().in_flight == 1);
    bench.engine.call(httpstream::within_call(
        |log: &mut Log| Some(&mut log.notes),
        |notes: &mut Vec<String>, cx| {
            notes.push(format!("{} cancelled", cx.cancel_others()));
            cx.done()
        },
    ));
    bench.until("nothing is left", |engine, _| engine.pending() == 0);
    assert_eq!(bench.log.notes, ["1 cancelled"]);
    assert_eq!(bench.log.kinds(), [ErrorKind::Cancelled]);
}

#[test]
fn cancel_all_ends_every_chain_and_leaves_the_engine_usable() {
    let server = partial();
    let mut bench = Bench::new();
    for path in ["/head", "/body", "/silent"] {
        bench.submit(server.get(path));
    }
    bench.until("all are under way", |engine, _| {
        engine.stats().in_flight == 3
    });
    assert_eq!(bench.engine.cancel_all(), 3);
    assert_eq!(bench.engine.cancel_all(), 0, "canceled twice");
    assert!(bench.engine.next_timeout().unwrap().is_zero(), "due");
    bench.until("nothing is left", |engine, _| engine.pending() == 0);
    assert_eq!(bench.log.kinds(), [ErrorKind::Cancelled; 3]);
    let answering = Server::answering(ok("after"));
    bench.fetch_ok(answering.get("/"));
    bench.quiet();
}
