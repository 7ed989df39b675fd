//! A panic in a readback ends only that readback's chain: the host catches the panic, and the
//! engine continues where it was.

use crate::common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Bench, Gate, Log, Script, Server, ok};
use httpstream::session::{Jar, Redirects, Session};
use httpstream::{Context, ErrorKind, Flow, Next, Readback, Reply, Request};

/// Runs one turn, and returns whether a readback's panic propagated.
fn turn_panics(bench: &mut Bench) -> bool {
    let wait = Some(Duration::from_millis(20));
    let turned = catch_unwind(AssertUnwindSafe(|| {
        bench.engine.turn(&mut bench.log, wait).map(drop)
    }));
    match turned {
        Ok(result) => {
            result.unwrap();
            false
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            assert!(
                text.or(panic.downcast_ref::<&str>().copied())
                    .unwrap()
                    .contains("on purpose")
            );
            true
        }
    }
}

/// Silences the intended panics.
fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.to_string().contains("on purpose") {
                usual(info);
            }
        }));
    });
}

#[test]
fn of_a_hundred_links_readable_in_one_turn_the_first_panics_and_the_others_are_answered() {
    quiet_panics();
    let gate = Gate::new();
    let (at, sent) = (gate.clone(), Gate::new());
    let told = sent.clone();
    let server = Server::start(move |peer| {
        peer.request();
        at.pass();
        peer.send(&ok("a"));
        told.open(1);
        peer.hold();
    });
    let mut bench = Bench::new();
    for _ in 0..100 {
        bench
            .engine
            .submit(server.get("/"), |log: &mut Log, reply: Reply<'_>, cx| {
                if log.notes.is_empty() {
                    log.notes.push("first".into());
                    panic!("on purpose, the first");
                }
                common::note(log, reply, cx)
            });
    }
    bench.until("all are in flight", |engine, _| {
        engine.stats().in_flight == 100
    });
    for _ in 0..100 {
        server.next();
    }
    gate.open(100);
    for _ in 0..100 {
        sent.pass();
    }
    // On loopback, the bytes that were sent have arrived.
    assert!(turn_panics(&mut bench));
    assert!(bench.log.replies.is_empty(), "the panic ends the turn");
    assert!(
        bench.engine.next_timeout().unwrap().is_zero(),
        "the rest of the batch is due"
    );
    let turn = bench
        .engine
        .turn(&mut bench.log, Some(Duration::ZERO))
        .unwrap();
    assert_eq!((turn.answered, bench.log.replies.len()), (99, 99));
    assert!(bench.log.replies.iter().all(Result::is_ok));
    bench.assert_empty();
}

#[test]
fn each_method_may_panic() {
    quiet_panics();
    let wire = b"HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    for (at, wire) in [
        ("interim", &wire[..]),
        ("head", wire),
        ("data", wire),
        ("reply", wire),
        ("error", b"garbage\r\n\r\n"),
    ] {
        for bytewise in [false, true] {
            let server = Server::start(move |peer| {
                while peer.request().is_some() {
                    match bytewise {
                        true => peer.send_pieces(wire.chunks(1)),
                        false => drop(peer.send(wire)),
                    }
                }
            });
            let other = Server::answering(ok("a"));
            let mut bench = Bench::new();
            let id = bench.engine.submit_to(
                server.get("/"),
                Script {
                    panic_in: Some(at),
                    ..Script::default()
                },
            );
            let end = std::time::Instant::now() + common::PATIENCE;
            while !turn_panics(&mut bench) {
                assert!(std::time::Instant::now() < end, "no panic in {at}");
            }
            assert_eq!(bench.engine.pending(), 0, "{at}: the chain continues");
            assert!(!bench.engine.cancel(id));
            let replies = usize::from(at == "reply" || at == "error");
            assert_eq!(
                bench.log.replies.len(),
                replies,
                "{at}: the readback is called again"
            );
            bench.log.replies.clear();
            assert_eq!(bench.fetch_ok(other.get("/")).text(), "a");
            // Only a response that was read to its end leaves its connection open.
            assert_eq!(
                bench.stats().links_open,
                1 + usize::from(at == "reply"),
                "{at}"
            );
            bench.assert_empty();
        }
    }
}

#[test]
fn what_was_asked_for_before_the_panic_is_carried_out() {
    quiet_panics();
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    let request = server.get("/");
    bench
        .engine
        .submit(server.get("/"), move |_: &mut Log, _: Reply<'_>, cx| {
            cx.submit(request.clone(), common::note);
            panic!("on purpose");
        });
    while !turn_panics(&mut bench) {}
    assert_eq!(bench.engine.pending(), 1);
    bench.replies(1);
    assert_eq!(bench.log.texts(), ["a"]);
    bench.assert_empty();
}

#[test]
fn a_panic_in_a_drain_comes_out_and_the_engine_is_of_use_after_it() {
    quiet_panics();
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    bench.engine.submit_to(
        server.get("/"),
        Script {
            panic_in: Some("reply"),
            head: Flow::Buffer,
            ..Script::default()
        },
    );
    let drained = catch_unwind(AssertUnwindSafe(|| {
        bench.engine.drain(&mut bench.log, Duration::from_secs(15))
    }));
    assert!(drained.is_err());
    bench.log.replies.clear();
    bench
        .engine
        .submit(server.get("/"), |log: &mut Log, reply: Reply<'_>, cx| {
            let _ = common::note(log, reply, cx);
            if log.replies.len() < 2 {
                cx.again()
            } else {
                cx.done()
            }
        });
    bench.replies(2);
    bench.assert_empty();
}

#[test]
fn many_that_panic_come_out_one_by_one() {
    quiet_panics();
    let server = Server::once("garbage\r\n\r\n");
    let mut bench = Bench::new();
    for _ in 0..20 {
        bench.engine.submit_to(
            server.get("/"),
            Script {
                panic_in: Some("error"),
                ..Script::default()
            },
        );
    }
    let mut panics = 0;
    let end = std::time::Instant::now() + common::PATIENCE;
    while bench.engine.pending() > 0 && std::time::Instant::now() < end {
        panics += usize::from(turn_panics(&mut bench));
    }
    assert_eq!((panics, bench.log.replies.len()), (20, 20));
    bench.assert_empty();
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("on purpose, in a drop");
    }
}

/// A readback that holds a [`Bomb`].
#[allow(dead_code, reason = "a bomb is there to be dropped")]
struct Armed(Answer, Request, Bomb);

type Answer = fn(&Request, &mut Log, &mut Context<'_, Log>) -> Next<Log>;

impl Readback<Log> for Armed {
    fn on_reply(
        &mut self,
        log: &mut Log,
        reply: Reply<'_>,
        cx: &mut Context<'_, Log>,
    ) -> Next<Log> {
        log.notes.push(match reply {
            Ok(_) => "ok".into(),
            Err(error) => format!("{:?}", error.kind()),
        });
        (self.0)(&self.1, log, cx)
    }
}

#[test]
fn a_readback_that_panics_when_it_is_dropped_takes_nobody_with_it() {
    quiet_panics();
    // The readback's result, whether it is canceled while it waits, the replies that it gets, and
    // the replies to the chain after it.
    let rows: [(&str, Answer, bool, &[&str], usize); 7] = [
        ("at its end", |_, _, cx| cx.done(), false, &["ok"], 0),
        (
            "replaced",
            |_, _, cx| cx.again().read_by(common::note),
            false,
            &["ok"],
            1,
        ),
        (
            "replaced for another request",
            |request, _, cx| cx.send(request.clone()).read_by(common::note),
            false,
            &["ok"],
            1,
        ),
        ("canceled", |_, _, cx| cx.done(), true, &["Cancelled"], 0),
        (
            "canceled by itself",
            |_, _, cx| {
                let id = cx.id();
                cx.cancel(id);
                cx.done()
            },
            false,
            &["ok", "Cancelled"],
            0,
        ),
        (
            "after its own panic",
            |_, _, _| panic!("on purpose, in a reply"),
            false,
            &["ok"],
            0,
        ),
        (
            "canceled, and panics",
            |_, _, _| panic!("on purpose, in a failure"),
            true,
            &["Cancelled"],
            0,
        ),
    ];
    for (why, answer, cancelled, told, more) in rows {
        let gate = Gate::new();
        let at = gate.clone();
        let server = Server::start(move |peer| {
            while let Some(seen) = peer.request() {
                if seen.path == "/waits" {
                    at.pass();
                }
                peer.send(&ok("a"));
            }
        });
        let mut bench = Bench::new();
        let others = 8;
        for _ in 0..others {
            bench.submit(server.get("/waits"));
        }
        bench.until("the others are in flight", |engine, _| {
            engine.stats().in_flight == others
        });
        for _ in 0..others {
            assert_eq!(server.next().path, "/waits");
        }
        let path = if cancelled { "/waits" } else { "/" };
        let armed = Armed(answer, server.get("/"), Bomb);
        let id = bench.engine.submit_to(server.get(path), armed);
        if cancelled {
            bench.until("it is in flight too", |engine, _| {
                engine.stats().in_flight == others + 1
            });
            assert!(bench.engine.cancel(id));
        }
        let end = std::time::Instant::now() + common::PATIENCE;
        while !turn_panics(&mut bench) {
            assert!(std::time::Instant::now() < end, "{why}: no panic");
        }
        assert_eq!(bench.log.notes, told, "{why}");
        gate.open(others + usize::from(cancelled));
        // One panic propagates per readback.
        bench.replies(others + more);
        assert_eq!(bench.log.texts(), vec!["a"; others + more], "{why}");
        assert_eq!(bench.fetch_ok(server.get("/")).text(), "a", "{why}");
        bench.assert_empty();
    }
}

#[test]
fn what_a_cancelled_readback_answers_may_panic_when_it_is_dropped() {
    quiet_panics();
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    bench
        .engine
        .submit(server.get("/"), |log: &mut Log, reply: Reply<'_>, cx| {
            let id = cx.id();
            let first = cx.cancel(id);
            let next = common::note(log, reply, cx);
            if !first {
                return next;
            }
            let bomb = Bomb;
            cx.again().read_by(move |_, _, cx| {
                let _held = &bomb;
                cx.done()
            })
        });
    for _ in 0..8 {
        bench.submit(server.get("/"));
    }
    let mut panics = 0;
    let end = std::time::Instant::now() + common::PATIENCE;
    while bench.engine.pending() > 0 && std::time::Instant::now() < end {
        panics += usize::from(turn_panics(&mut bench));
    }
    assert_eq!((panics, bench.log.replies.len()), (1, 10));
    assert_eq!(bench.log.kinds(), [ErrorKind::Cancelled]);
    bench.assert_empty();
}

#[test]
fn decisions_about_redirects_may_panic() {
    quiet_panics();
    let server = Server::start(|peer| {
        while let Some(seen) = peer.request() {
            match seen.path.as_str() {
                "/end" => peer.send(&ok("end")),
                _ => peer.send(
                    b"HTTP/1.1 302 F\r\nLocation: /end\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n",
                ),
            };
        }
    });
    let asked = AtomicUsize::new(0);
    let jar = Jar::new();
    let clears = jar.clone();
    let session = Session::builder()
        .cookies(jar)
        .redirects(Redirects::limited(3).decide(move |_| {
            // The jar is not locked while the program decides.
            clears.clear();
            let is_odd = asked.fetch_add(1, Ordering::Relaxed) % 2 == 1;
            assert!(is_odd, "on purpose");
            true
        }))
        .build()
        .unwrap();
    let mut bench = Bench::new();
    for _ in 0..40 {
        let request = session.get(server.url("/")).pipeline(4);
        bench.submit(request.build().unwrap());
    }
    let mut panics = 0;
    while bench.engine.pending() > 0 {
        panics += usize::from(turn_panics(&mut bench));
    }
    assert_eq!(
        (panics, bench.log.texts()),
        (20, vec!["end".to_owned(); 20])
    );
    bench.assert_empty();
}
