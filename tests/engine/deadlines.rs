//! Each phase has its deadline. It is never early, and the error reports the phase and whether the
//! request may have been received.

use crate::common;

use std::time::{Duration, Instant};

use common::{Bench, Gate, Log, Server, facts, ok};
use httpstream::resolver::{Family, LookupAnswer, LookupId, Resolve, Wake};
use httpstream::{
    Context, Error, ErrorKind, Phase, Reply, Request, RequestBuilder, Sent, Timeouts,
};

const SHORT: Duration = Duration::from_millis(80);
/// Generous, but less than the defaults of all other deadlines.
const BOUND: Duration = Duration::from_secs(9);

/// A resolver that never answers.
#[derive(Clone, Debug, Default)]
struct Unresponsive {
    cancelled: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Resolve for Unresponsive {
    fn attach(&mut self, _: Wake) {}
    fn start(&mut self, _: &str, _: Family, _: LookupId) {}
    fn cancel(&mut self, _: LookupId) {
        self.cancelled
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    fn on_tick(&mut self, _: Instant) {}
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
        None
    }
}

fn fails(bench: &mut Bench, builder: RequestBuilder) -> Error {
    let before = Instant::now();
    let error = bench.fetch_err(builder.build().unwrap());
    let after = before.elapsed();
    assert!(after >= SHORT, "early: after {after:?}");
    assert!(after < BOUND, "late: after {after:?}");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    error
}

fn short(set: impl FnOnce(&mut Timeouts) -> &mut Option<Duration>) -> impl FnOnce(&mut Timeouts) {
    |timeouts| *set(timeouts) = Some(SHORT)
}

#[test]
fn resolve() {
    let unresponsive = Unresponsive::default();
    let cancelled = std::sync::Arc::clone(&unresponsive.cancelled);
    let mut bench = Bench::with(|c| c.resolver = Some(common::resolver(unresponsive)));
    let get = Request::get("http://nowhere.test/").timeouts(short(|t| &mut t.resolve));
    let error = fails(&mut bench, get);
    assert_eq!(
        facts(&error),
        (ErrorKind::Timeout, Phase::Resolve, Sent::No)
    );
    assert!(error.resend_is_safe());
    assert_eq!(
        cancelled.load(std::sync::atomic::Ordering::Relaxed),
        2,
        "both families are looked up"
    );
    bench.assert_empty();
}

#[test]
fn connect() {
    let (addr, _kept) = common::unresponsive_listener();
    let mut bench = Bench::new();
    let get = Request::post(format!("http://{addr}/")).timeouts(short(|t| &mut t.connect));
    let error = fails(&mut bench, get);
    assert_eq!(
        facts(&error),
        (ErrorKind::Timeout, Phase::Connect, Sent::No)
    );
    assert!(error.resend_is_safe());
    bench.assert_empty();
}

#[test]
fn write() {
    let server = Server::start(|peer| {
        peer.head();
        // Stops reading, and keeps the connection open.
        Gate::new().pass();
    });
    let mut bench = Bench::new();
    let post = Request::post(server.url("/")).body(vec![0; 32 << 20]);
    let error = fails(&mut bench, post.timeouts(short(|t| &mut t.write)));
    assert_eq!(
        facts(&error),
        (ErrorKind::Timeout, Phase::Write, Sent::Maybe)
    );
    assert!(!error.resend_is_safe());
    bench.assert_empty();
}

#[test]
fn write_goes_on_as_long_as_some_bytes_do() {
    let server = Server::start(|peer| {
        while let Some(head) = peer.head() {
            for _ in 0..8 {
                assert_eq!(peer.body(4 << 20).len(), 4 << 20);
                std::thread::sleep(SHORT * 2);
            }
            peer.tell(head, Vec::new());
            peer.send(&ok("a"));
        }
    });
    let mut bench = Bench::new();
    let post = Request::post(server.url("/")).body(vec![0; 32 << 20]);
    let before = Instant::now();
    // Each pause is much shorter than the deadline, and their sum is longer.
    let timeouts = |t: &mut Timeouts| t.write = Some(SHORT * 12);
    assert_eq!(
        bench
            .fetch_ok(post.timeouts(timeouts).build().unwrap())
            .text(),
        "a"
    );
    assert!(before.elapsed() >= SHORT * 12);
    bench.assert_empty();
}

#[test]
fn first_byte() {
    let server = Server::start(|peer| {
        peer.request();
        peer.hold();
    });
    for (builder, safe) in [
        (Request::get(server.url("/")), true),
        (Request::post(server.url("/")), false),
    ] {
        let mut bench = Bench::new();
        let error = fails(&mut bench, builder.timeouts(short(|t| &mut t.first_byte)));
        assert_eq!(
            facts(&error),
            (ErrorKind::Timeout, Phase::FirstByte, Sent::Maybe)
        );
        assert_eq!(error.resend_is_safe(), safe);
        bench.assert_empty();
    }
}

#[test]
fn first_byte_of_the_final_response_behind_an_interim_one() {
    let server = Server::start(|peer| {
        peer.request();
        peer.send(b"HTTP/1.1 103 x\r\n\r\n");
        peer.hold();
    });
    let mut bench = Bench::new();
    let get = Request::get(server.url("/")).timeouts(short(|t| &mut t.first_byte));
    let error = fails(&mut bench, get);
    assert_eq!(
        facts(&error),
        (ErrorKind::Timeout, Phase::FirstByte, Sent::Yes)
    );
    bench.assert_empty();
}

#[test]
fn idle_in_head_and_body() {
    let rows = [
        ("HTTP/1.1 200", Phase::Head, None),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na",
            Phase::Body,
            Some(200),
        ),
        ("HTTP/1.1 200 OK\r\n\r\na", Phase::Body, Some(200)),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
            Phase::Body,
            Some(200),
        ),
    ];
    for (wire, phase, status) in rows {
        let server = Server::start(move |peer| {
            peer.request();
            peer.send(wire.as_bytes());
            peer.hold();
        });
        let mut bench = Bench::new();
        let get = Request::get(server.url("/")).timeouts(short(|t| &mut t.idle));
        let error = fails(&mut bench, get);
        assert_eq!(
            facts(&error),
            (ErrorKind::Timeout, phase, Sent::Yes),
            "{wire:?}"
        );
        assert_eq!(error.status().map(|s| s.as_u16()), status);
        assert_eq!(
            error.partial_body(),
            if phase == Phase::Body { &b"a"[..] } else { b"" }
        );
        bench.assert_empty();
    }
}

#[test]
fn idle_begins_anew_with_each_byte() {
    let server = Server::start(|peer| {
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n");
        for _ in 0..8 {
            std::thread::sleep(SHORT * 2);
            peer.send(b"x");
        }
        peer.hold();
    });
    let mut bench = Bench::new();
    let get = Request::get(server.url("/")).timeouts(|t| t.idle = Some(SHORT * 12));
    assert_eq!(bench.fetch_ok(get.build().unwrap()).body.len(), 8);
    bench.assert_empty();
}

#[test]
fn total_ends_a_response_that_drips() {
    let server = Server::start(|peer| {
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n");
        while peer.send(b"x") {
            std::thread::sleep(SHORT / 8);
        }
    });
    let mut bench = Bench::new();
    let error = fails(&mut bench, Request::get(server.url("/")).timeout(SHORT));
    assert_eq!(facts(&error), (ErrorKind::Timeout, Phase::Body, Sent::Yes));
    bench.assert_empty();
}

#[test]
fn total_counts_time_in_the_queue() {
    let server = Server::start(|peer| {
        peer.request();
        peer.hold();
    });
    let mut bench = Bench::with(|c| c.max_connections_per_origin = 1);
    let held = bench.submit(server.get("/held"));
    let error = fails(&mut bench, Request::post(server.url("/")).timeout(SHORT));
    assert_eq!(facts(&error), (ErrorKind::Timeout, Phase::Queue, Sent::No));
    assert!(error.resend_is_safe());
    assert_eq!(error.origin().unwrap().port(), server.addr.port());
    bench.engine.cancel(held);
    bench.replies(1);
    assert_eq!(server.so_far().len(), 1);
    bench.assert_empty();
}

#[test]
fn total_does_not_count_a_delay() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    let get = Request::get(server.url("/"))
        .timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let before = Instant::now();
    bench.engine.start(
        bench
            .engine
            .send(get)
            .after(Duration::from_millis(100))
            .read_by(|log: &mut common::Log, reply: httpstream::Reply<'_>, cx| {
                let done = reply.as_ref().unwrap().info().timings.done.unwrap();
                log.notes
                    .push(format!("{}", done < Duration::from_millis(90)));
                common::note(log, reply, cx)
            }),
    );
    bench.replies(1);
    assert!(before.elapsed() >= Duration::from_millis(100));
    assert_eq!(bench.log.texts(), ["a"]);
    bench.assert_empty();
}

#[test]
fn a_hold_outlasts_the_deadlines_of_the_engine() {
    let gate = Gate::new();
    let at = gate.clone();
    let server = Server::start(move |peer| {
        peer.request();
        at.pass();
        peer.send(&ok("news"));
        peer.hold();
    });
    let mut bench = Bench::with(|c| {
        c.timeouts.first_byte = Some(Duration::from_millis(30));
        c.timeouts.idle = Some(Duration::from_millis(30));
        c.timeouts.total = Some(Duration::from_millis(30));
    });
    let hold = Request::get(server.url("/"))
        .long_poll(Duration::from_secs(5))
        .build()
        .unwrap();
    bench.submit(hold);
    bench.until("it is sent", |engine, _| engine.stats().bytes_out > 0);
    let due = bench.engine.next_timeout().unwrap();
    assert!(
        due > Duration::from_secs(12) && due <= Duration::from_millis(15_002),
        "the hold and 10 s: {due:?}"
    );
    let end = Instant::now() + Duration::from_millis(60);
    bench.until("the others would be over", |_, _| Instant::now() > end);
    gate.open(1);
    bench.replies(1);
    assert_eq!(bench.log.texts(), ["news"]);
    bench.assert_empty();
}

#[test]
fn a_response_in_time_leaves_no_timer_that_could_strike_the_next_exchange() {
    let server = Server::start(|peer| {
        peer.answer(&ok("a"));
        peer.request();
        std::thread::sleep(SHORT * 2);
        peer.send(&ok("b"));
        peer.hold();
    });
    let mut bench = Bench::new();
    let first = Request::get(server.url("/"))
        .timeout(SHORT * 3)
        .timeouts(|t| t.idle = Some(SHORT));
    assert!(bench.fetch(first.build().unwrap()).is_ok());
    let got = bench.fetch_ok(server.get("/"));
    assert_eq!((got.text(), got.reused), ("b", true));
    bench.assert_empty();
}

#[test]
fn none_is_no_deadline() {
    let gate = Gate::new();
    let at = gate.clone();
    let server = Server::start(move |peer| {
        peer.request();
        at.pass();
        peer.send(&ok("a"));
    });
    let mut bench = Bench::with(|c| {
        let t = &mut c.timeouts;
        (t.connect, t.write, t.first_byte, t.idle, t.total) = (None, None, None, None, None);
    });
    bench.submit(server.get("/"));
    bench.until("it is sent", |engine, _| engine.stats().bytes_out > 0);
    assert_eq!(bench.engine.next_deadline(), None);
    gate.open(1);
    bench.replies(1);
    bench.assert_empty();
}

#[test]
fn a_look_up_that_is_given_up_leaves_no_turn_due() {
    // The lookup is started and canceled within one turn, so the resolver is never polled.
    let gate = Gate::new();
    let at = gate.clone();
    let server = Server::start(move |peer| {
        peer.request();
        at.pass();
        peer.send(&ok("a"));
        peer.hold();
    });
    let mut bench = Bench::with(|c| c.resolver = Some(common::resolver(Unresponsive::default())));
    let lookup = Request::get("http://nowhere.test/").build().unwrap();
    for _ in 0..2 {
        let lookup = lookup.clone();
        bench.engine.submit(server.get("/"), move |log, reply, cx| {
            let _ = common::note(log, reply, cx);
            match log.notes.pop() {
                None => {
                    let id = cx.submit(lookup.clone(), common::note);
                    log.notes.push(id.to_u64().to_string());
                }
                Some(id) => {
                    let id = httpstream::ChainId::from_u64(id.parse().unwrap());
                    log.notes.push(format!("{}", cx.cancel(id)));
                }
            }
            cx.done()
        });
    }
    bench.until("both are sent", |engine, _| engine.stats().in_flight == 2);
    server.next();
    server.next();
    gate.open(2);
    // Both answers must arrive before the next turn.
    std::thread::sleep(Duration::from_millis(50));
    bench.replies(3);
    assert_eq!(bench.log.notes, ["true"]);
    bench.quiet();
    assert!(
        bench
            .engine
            .next_timeout()
            .is_none_or(|t| t > Duration::from_secs(1)),
        "no turn is due"
    );
    bench.assert_empty();
}

/// How long a slow readback takes, longer than [`SHORT`].
const SLOW: Duration = Duration::from_millis(150);

/// Returns a request that is answered, and one that fails.
fn told(server: &Server) -> [Request; 2] {
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", refused.local_addr().unwrap());
    [server.get("/"), Request::get(&url).build().unwrap()]
}

/// Records whether the delay had passed.
fn note_due(log: &mut Log, asked: Instant) {
    log.notes.push((asked.elapsed() >= SHORT).to_string());
}

#[test]
fn a_delay_asked_for_by_a_slow_readback_counts_from_the_asking() {
    let server = Server::answering(ok("a"));
    for request in told(&server) {
        let mut bench = Bench::new();
        let again = server.get("/");
        bench
            .engine
            .submit(request, move |_: &mut Log, _: Reply<'_>, cx| {
                std::thread::sleep(SLOW);
                let asked = Instant::now();
                let follow = move |log: &mut Log, reply: Reply<'_>, cx: &mut Context<'_, Log>| {
                    note_due(log, asked);
                    common::note(log, reply, cx)
                };
                cx.start(cx.send(again.clone()).after(SHORT).read_by(follow));
                cx.done()
            });
        bench.replies(1);
        assert_eq!(
            (bench.log.texts(), bench.log.notes.clone()),
            (vec!["a".to_owned()], vec!["true".to_owned()])
        );
        bench.assert_empty();
    }
}

#[test]
fn a_chain_that_goes_on_after_a_delay_counts_it_from_a_slow_readbacks_end() {
    let server = Server::answering(ok("a"));
    for request in told(&server) {
        let mut bench = Bench::new();
        let again = server.get("/");
        let mut asked = None;
        bench
            .engine
            .submit(request, move |log: &mut Log, reply: Reply<'_>, cx| {
                let Some(asked) = asked else {
                    std::thread::sleep(SLOW);
                    asked = Some(Instant::now());
                    return match reply {
                        Ok(_) => cx.again().after(SHORT),
                        Err(_) => cx.send(again.clone()).after(SHORT),
                    };
                };
                note_due(log, asked);
                common::note(log, reply, cx)
            });
        bench.replies(1);
        assert_eq!(
            (bench.log.texts(), bench.log.notes.clone()),
            (vec!["a".to_owned()], vec!["true".to_owned()])
        );
        bench.assert_empty();
    }
}

#[test]
fn a_deadline_set_by_a_slow_readback_is_not_over_before_it_has_begun() {
    let server = Server::answering(ok("a"));
    for request in told(&server) {
        let mut bench = Bench::new();
        // Idle connections, on which a request is written at once.
        let crowd = 8;
        for _ in 0..crowd {
            bench.submit(server.get("/"));
        }
        bench.replies(crowd);
        bench.log.replies.clear();
        let url = server.url("/");
        bench
            .engine
            .submit(request, move |_: &mut Log, _: Reply<'_>, cx| {
                std::thread::sleep(SLOW);
                for _ in 0..crowd {
                    let hasty = Request::get(&url).timeouts(|t| t.first_byte = Some(SHORT));
                    cx.submit(hasty.build().unwrap(), common::note);
                }
                cx.done()
            });
        bench.replies(crowd);
        assert_eq!(bench.log.texts(), vec!["a"; crowd]);
        bench.assert_empty();
    }
}
