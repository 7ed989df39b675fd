//! Bytes that arrive on a TLS connection between two exchanges are never taken for the next
//! response, and a connection that has ended is not used, with or without a close_notify: before a
//! turn, during it and after a slow readback.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use httpstream::{Engine, Next};

use crate::common::{Gate, Got, Log, ok};
use crate::peer::{Pieces, TlsPeer, World};

type Act = (&'static str, fn(&mut TlsPeer<'_>));

const LATE: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate";

const ACTS: [Act; 9] = [
    ("close_notify", |peer| {
        let alert = peer.close_notify();
        peer.send_raw(&alert);
    }),
    ("close_notify and the end", |peer| {
        let alert = peer.close_notify();
        peer.send_raw(&alert);
        peer.tcp.half_close();
    }),
    ("the end alone", |peer| peer.tcp.half_close()),
    ("408 and the end", |peer| {
        peer.send(LATE);
        let alert = peer.close_notify();
        peer.send_raw(&alert);
        peer.tcp.half_close();
    }),
    ("an unsolicited response", |peer| {
        peer.send(&ok("forged"));
    }),
    ("an empty line", |peer| {
        peer.send(b"\r\n");
    }),
    ("the end of a chunked body", |peer| {
        peer.send(b"0\r\n\r\n");
    }),
    ("half a record", |peer| {
        let wire = peer.seal(&ok("forged"));
        peer.send_raw(&wire[..wire.len() / 2]);
    }),
    ("bytes that are not a record", |peer| {
        peer.send_raw(b"HTTP/1.1 408 Request Timeout\r\n\r\n");
    }),
];

#[derive(Clone, Copy, Debug)]
enum When {
    BeforeATurn,
    BehindSlowWork,
}

/// Lets the server act, and waits until it has.
#[derive(Clone)]
struct Cue {
    gate: Gate,
    acted: Arc<AtomicUsize>,
}

impl Cue {
    fn give(&self) {
        self.gate.open(1);
        let end = Instant::now() + Duration::from_secs(20);
        while self.acted.load(Ordering::SeqCst) == 0 {
            assert!(Instant::now() < end, "the server did not act");
            std::thread::sleep(Duration::from_millis(1));
        }
        // The engine does not check a connection again within a millisecond.
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// A server whose first connection answers once, and acts on command; all other requests are
/// answered with their path.
fn world(act: Option<Act>) -> (World, Cue) {
    let cue = Cue {
        gate: Gate::new(),
        acted: Arc::default(),
    };
    let for_server = cue.clone();
    let world = World::of(
        |_| (),
        Pieces::Whole,
        move |peer| {
            let mut first = peer.number() == 0;
            while let Some((path, _)) = peer.request() {
                if !peer.send(&ok(&path)) {
                    return;
                }
                if std::mem::take(&mut first) {
                    for_server.gate.pass();
                    if let Some((_, act)) = act {
                        act(peer);
                    }
                    for_server.acted.store(1, Ordering::SeqCst);
                }
            }
            peer.hold();
        },
    );
    (world, cue)
}

fn second(act: Option<Act>, when: When, method: &str) {
    let what = format!("{:?} {when:?} {method}", act.map(|(name, _)| name));
    let (world, cue) = world(act);
    let mut bench = world.bench();
    let next = match method {
        "GET" => world.get("/second"),
        _ => world.post("/second", "body"),
    };
    match when {
        When::BeforeATurn => {
            assert_eq!(bench.fetch_ok(world.get("/first")).text(), "/first");
            cue.give();
            bench.submit(next);
        }
        When::BehindSlowWork => {
            let engine: &mut Engine<Log> = &mut bench.engine;
            let mut next = Some(next);
            engine.submit(world.get("/first"), move |log: &mut Log, reply, _| {
                let got = Got::of(reply.unwrap());
                match next.take() {
                    Some(next) => {
                        cue.give();
                        Next::send(next)
                    }
                    None => {
                        log.replies.push(Ok(got));
                        Next::done()
                    }
                }
            });
        }
    }
    bench.replies(1);
    let got = bench.log.replies.pop().unwrap().unwrap();
    assert_eq!((got.status, got.text()), (200, "/second"), "{what}");
    let stats = bench.stats();
    let connections = if act.is_some() { 2 } else { 1 };
    assert_eq!((stats.opened, stats.retried), (connections, 0), "{what}");
    bench.assert_empty();
}

#[test]
fn what_comes_at_rest_is_no_answer_to_the_next_request() {
    for when in [When::BeforeATurn, When::BehindSlowWork] {
        for method in ["GET", "POST"] {
            for act in ACTS.into_iter().map(Some).chain([None]) {
                second(act, when, method);
            }
        }
    }
}
