//! Connections are kept, reused newest first, watched while idle, and closed when their time is
//! over or the limit is exceeded.

use crate::common;

use std::time::{Duration, Instant};

use common::{Bench, Gate, Server, ok};
use httpstream::{Config, Next, Request, Timeouts};

/// A server whose answers contain the number of the connection.
fn naming() -> Server {
    Server::start(|peer| while peer.answer(&ok(&peer.number.to_string())) {})
}

/// Opens `count` connections at once, because all requests are held until the last has arrived.
/// Returns the connections in the order in which they were parked.
fn park(bench: &mut Bench, server: &Server, gate: &Gate, count: usize) -> Vec<String> {
    let before = bench.log.replies.len();
    for i in 0..count {
        bench.submit(server.get(&format!("/hold/{i}")));
    }
    bench.until("all are in flight", |engine, _| {
        engine.stats().in_flight == count
    });
    for _ in 0..count {
        gate.open(1);
        let next = bench.log.replies.len() + 1;
        bench.replies(next);
    }
    let texts = bench.log.texts().split_off(before);
    bench.log.replies.truncate(before);
    texts
}

fn holding(gate: &Gate) -> Server {
    let gate = gate.clone();
    Server::start(move |peer| {
        while let Some(seen) = peer.request() {
            if seen.path.starts_with("/hold") {
                gate.pass();
            }
            peer.send(&ok(&peer.number.to_string()));
        }
    })
}

#[test]
fn one_connection_serves_one_request_after_another() {
    let server = naming();
    let mut bench = Bench::new();
    for i in 0..10 {
        let got = bench.fetch_ok(server.get("/"));
        assert_eq!((got.text(), got.reused, got.attempts), ("0", i > 0, 1));
    }
    let stats = bench.stats();
    assert_eq!((stats.opened, stats.reused, stats.links_idle), (1, 9, 1));
    bench.assert_empty();
}

#[test]
fn the_newest_idle_connection_is_taken() {
    let gate = Gate::new();
    let server = holding(&gate);
    let mut bench = Bench::new();
    let parked = park(&mut bench, &server, &gate, 3);
    let last = parked.last().unwrap().clone();
    for _ in 0..3 {
        assert_eq!(bench.fetch_ok(server.get("/")).text(), last);
    }
    assert_eq!(bench.stats().links_idle, 3);
    bench.assert_empty();
}

#[test]
fn over_the_idle_limit_the_oldest_are_closed() {
    let gate = Gate::new();
    let server = holding(&gate);
    let mut bench = Bench::with(|c| c.max_idle_per_origin = 2);
    let parked = park(&mut bench, &server, &gate, 5);
    assert_eq!(bench.stats().links_idle, 2);
    assert_eq!(bench.stats().links_open, 2);
    assert_eq!(bench.fetch_ok(server.get("/")).text(), parked[4]);
    bench.assert_empty();
}

#[test]
fn without_idle_connections_each_request_opens_one() {
    let server = naming();
    let mut bench = Bench::with(|c| c.max_idle_per_origin = 0);
    for i in 0..3 {
        assert_eq!(bench.fetch_ok(server.get("/")).text(), i.to_string());
        assert_eq!(bench.stats().links_open, 0);
    }
    bench.assert_empty();
}

#[test]
fn a_chain_keeps_its_connection_even_where_none_is_kept_idle() {
    let server = naming();
    let mut bench = Bench::with(|c| c.max_idle_per_origin = 0);
    bench.engine.submit(server.get("/"), |log, reply, cx| {
        let _ = common::note(log, reply, cx);
        if log.replies.len() < 3 {
            cx.again()
        } else {
            cx.done()
        }
    });
    bench.replies(3);
    assert_eq!(bench.log.texts(), ["0", "0", "0"]);
    bench.assert_empty();
}

#[test]
fn an_idle_connection_is_closed_when_its_time_is_over() {
    let server = naming();
    let timeout = Duration::from_millis(60);
    let mut bench = Bench::with(|c| c.idle_timeout = timeout);
    bench.fetch_ok(server.get("/"));
    let since = Instant::now();
    assert_eq!(bench.stats().links_idle, 1);
    let due = bench.engine.next_deadline().expect("the idle timer");
    assert!(due <= since + timeout + Duration::from_millis(2));
    bench.until("it closes", |engine, _| engine.stats().links_open == 0);
    // The connection was parked before `since`; the tick rounds up.
    assert!(since.elapsed() + Duration::from_millis(30) >= timeout);
    assert_eq!(bench.fetch_ok(server.get("/")).text(), "1");
    bench.assert_empty();
}

#[test]
fn a_servers_own_idle_timeout_is_believed_less_one_second() {
    let server = Server::answering(
        b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=100\r\nContent-Length: 0\r\n\r\n",
    );
    let mut bench = Bench::new();
    let before = Instant::now();
    bench.fetch_ok(server.get("/"));
    let left = bench.engine.next_deadline().expect("the idle timer") - before;
    assert!(
        left >= Duration::from_secs(4) && left < Duration::from_secs(9),
        "{left:?}"
    );
    bench.assert_empty();
}

#[test]
fn a_server_that_keeps_a_connection_for_one_second_only_is_not_waited_for() {
    let server =
        Server::answering(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 0\r\n\r\n");
    let mut bench = Bench::new();
    bench.fetch_ok(server.get("/"));
    assert_eq!(bench.stats().links_open, 0);
}

#[test]
fn the_end_of_an_idle_connection_closes_it_at_once() {
    for reset in [false, true] {
        let gate = Gate::new();
        let at = gate.clone();
        let server = Server::start(move |peer| {
            peer.answer(&ok("a"));
            at.pass();
            if reset {
                peer.reset();
            }
        });
        let mut bench = Bench::new();
        bench.fetch_ok(server.get("/"));
        bench.quiet();
        assert_eq!(bench.stats().links_idle, 1);
        gate.open(1);
        bench.until("it closes", |engine, _| engine.stats().links_idle == 0);
        assert_eq!(bench.stats().links_open, 0, "reset: {reset}");
        bench.assert_empty();
    }
}

#[test]
fn bytes_out_of_turn_close_an_idle_connection() {
    let gate = Gate::new();
    let at = gate.clone();
    let server = Server::start(move |peer| {
        peer.answer(&ok("a"));
        if peer.number == 0 {
            at.pass();
            peer.send(&ok("poison"));
        }
        while peer.answer(&ok("b")) {}
    });
    let mut bench = Bench::new();
    assert_eq!(bench.fetch_ok(server.get("/")).text(), "a");
    gate.open(1);
    bench.until("it closes", |engine, _| engine.stats().links_idle == 0);
    let got = bench.fetch_ok(server.get("/"));
    assert_eq!((got.text(), got.reused), ("a", false));
    bench.assert_empty();
}

#[test]
fn bytes_behind_a_response_close_its_connection_and_are_never_the_next_response() {
    let server = Server::answering([ok("a"), ok("poison")].concat());
    let mut bench = Bench::new();
    for _ in 0..3 {
        let got = bench.fetch_ok(server.get("/"));
        assert_eq!((got.text(), got.reused), ("a", false));
    }
    bench.assert_empty();
}

#[test]
fn an_end_of_file_right_behind_a_response_is_noticed_with_it() {
    let server = Server::once(ok("a"));
    let mut bench = Bench::new();
    for _ in 0..20 {
        // The end may be seen in the same turn or later; the next request is answered in either
        // case.
        let got = bench.fetch_ok(server.get("/"));
        assert_eq!(got.text(), "a");
    }
    bench.until("all close", |engine, _| engine.stats().links_open == 0);
}

#[test]
fn responses_that_end_their_connection() {
    let rows = [
        (
            "close",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na",
            false,
        ),
        (
            "in any case",
            "HTTP/1.1 200 OK\r\nConnection: ClOsE\r\nContent-Length: 1\r\n\r\na",
            false,
        ),
        (
            "in a list",
            "HTTP/1.1 200 OK\r\nConnection: te , close\r\nContent-Length: 1\r\n\r\na",
            false,
        ),
        (
            "in a second line",
            "HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\na",
            false,
        ),
        (
            "HTTP/1.0",
            "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na",
            false,
        ),
        (
            "HTTP/1.0 kept alive",
            "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\na",
            true,
        ),
        (
            "not UTF-8",
            "HTTP/1.1 200 OK\r\nConnection: \u{e9}\r\nContent-Length: 1\r\n\r\na",
            true,
        ),
        (
            "length and chunks",
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            false,
        ),
    ];
    for (why, wire, kept) in rows {
        let server = Server::answering(wire);
        let mut bench = Bench::new();
        assert_eq!(bench.fetch_ok(server.get("/")).text(), "a", "{why}");
        assert_eq!(bench.stats().links_idle, usize::from(kept), "{why}");
        bench.assert_empty();
    }
}

#[test]
fn a_request_may_end_its_connection_or_want_its_own() {
    let server = naming();
    let mut bench = Bench::new();
    bench.fetch_ok(server.get("/"));
    let fresh = Request::get(server.url("/"))
        .fresh_connection()
        .build()
        .unwrap();
    let got = bench.fetch_ok(fresh);
    assert_eq!((got.text(), got.reused), ("1", false));
    assert_eq!(bench.stats().links_idle, 2);
    let close = Request::get(server.url("/")).close().build().unwrap();
    assert_eq!(bench.fetch_ok(close).text(), "1", "the newest is reused");
    assert_eq!(bench.stats().links_idle, 1);
    assert!(server.so_far()[2].head.contains("Connection: close"));
    assert_eq!(bench.fetch_ok(server.get("/")).text(), "0");
    bench.assert_empty();
}

#[test]
fn a_fresh_connection_is_opened_at_the_limit_too() {
    let server = naming();
    let mut bench = Bench::with(|c| c.max_connections_per_origin = 1);
    bench.fetch_ok(server.get("/"));
    let fresh = Request::get(server.url("/"))
        .fresh_connection()
        .build()
        .unwrap();
    assert_eq!(bench.fetch_ok(fresh).text(), "1");
    assert_eq!(bench.stats().links_open, 1);
    bench.assert_empty();
}

#[test]
fn close_idle_closes_what_is_idle_and_lets_nothing_open_be_used_again() {
    let gate = Gate::new();
    let server = holding(&gate);
    let mut bench = Bench::new();
    park(&mut bench, &server, &gate, 2);
    bench.submit(server.get("/hold"));
    bench.until("it is in flight", |engine, _| {
        engine.stats().links_idle == 1
    });
    bench.engine.close_idle();
    assert_eq!((bench.stats().links_idle, bench.stats().links_open), (0, 1));
    gate.open(1);
    bench.replies(1);
    assert!(bench.log.replies[0].is_ok());
    assert_eq!(bench.stats().links_open, 0);
    bench.assert_empty();
}

#[test]
fn hosts_do_not_share_connections() {
    let server = naming();
    let addr = server.addr;
    let mut bench = Bench::with(|c| c.resolve_to("*.test", addr));
    for (host, connection) in [("a", "0"), ("b", "1"), ("a", "0"), ("A", "0"), ("b", "1")] {
        let request = Request::get(format!("http://{host}.test/"))
            .build()
            .unwrap();
        assert_eq!(bench.fetch_ok(request).text(), connection);
    }
    bench.assert_empty();
}

#[test]
fn expired_connections_are_not_used_though_their_timers_have_not_run() {
    let gate = Gate::new();
    let server = holding(&gate);
    let mut bench = Bench::with(|c| c.idle_timeout = Duration::from_millis(300));
    park(&mut bench, &server, &gate, 30);
    std::thread::sleep(Duration::from_millis(320));
    bench.submit(server.get("/"));
    bench.replies(1);
    assert!(!bench.log.replies[0].as_ref().unwrap().reused);
    bench.assert_empty();
}

/// Endless durations: each setting of the configuration and of a request at its maximum.
#[test]
fn durations_without_end_are_never_and_connections_are_used_again() {
    type Set = fn(&mut Config, Duration);
    let rows: [(&str, Set); 11] = [
        ("idle_timeout", |c, d| c.idle_timeout = d),
        ("keep_names", |c, d| c.keep_names = d),
        ("keep_stale_names", |c, d| c.keep_stale_names = d),
        ("resolve", |c, d| c.timeouts.resolve = Some(d)),
        ("connect", |c, d| c.timeouts.connect = Some(d)),
        ("tls", |c, d| c.timeouts.tls = Some(d)),
        ("write", |c, d| c.timeouts.write = Some(d)),
        ("first_byte", |c, d| c.timeouts.first_byte = Some(d)),
        ("idle", |c, d| c.timeouts.idle = Some(d)),
        ("total", |c, d| c.timeouts.total = Some(d)),
        ("all", |c, d| {
            (c.idle_timeout, c.keep_names, c.keep_stale_names) = (d, d, d);
            let t = &mut c.timeouts;
            for slot in [
                &mut t.resolve,
                &mut t.connect,
                &mut t.tls,
                &mut t.write,
                &mut t.first_byte,
                &mut t.idle,
                &mut t.total,
            ] {
                *slot = Some(d);
            }
        }),
    ];
    let ms = Duration::from_millis;
    let never = [
        Duration::MAX,
        Duration::MAX - ms(1),
        ms(u64::MAX),
        ms(u64::MAX - 1),
        ms(1 << 63),
        ms(1 << 62),
        ms(u64::MAX >> 16),
        ms((u64::MAX >> 16) + 1),
        Duration::from_micros(u64::MAX),
        Duration::from_nanos(u64::MAX),
        ms(1 << 32),
        ms((1 << 32) - 1),
        ms(1 << 31),
    ];
    let server = Server::start(|peer| while peer.answer(&ok(&peer.number.to_string())) {});
    for (name, set) in rows {
        for duration in never {
            let mut bench = Bench::with(|c| set(c, duration));
            let url = server.url("/");
            let lasting = |t: &mut Timeouts| t.idle = Some(duration);
            let requests = [
                Request::get(&url),
                Request::get(&url).timeout(duration),
                Request::get(&url).long_poll(duration),
                Request::get(&url).timeouts(lasting),
            ];
            for request in requests {
                bench.fetch_ok(request.build().unwrap());
                // As far as a host can tell, nothing is due.
                bench.quiet();
                let deadline = bench.engine.next_timeout();
                assert!(
                    deadline.is_none_or(|left| left > ms(10_000)),
                    "{name} {duration:?}: {deadline:?}"
                );
            }
            // A chain that is delayed forever waits, and can be canceled.
            let id = bench.engine.start(
                bench
                    .engine
                    .send(server.get("/"))
                    .after(duration)
                    .read_by(common::note),
            );
            let call = bench
                .engine
                .start(Next::call(|_, cx| cx.done()).after(duration));
            bench.quiet();
            assert_eq!(bench.engine.pending(), 2, "{name} {duration:?}");
            assert!(bench.engine.cancel(id) && bench.engine.cancel(call));
            bench.engine.drain(&mut bench.log, duration).unwrap();
            let stats = bench.stats();
            assert_eq!((stats.opened, stats.reused), (1, 3), "{name} {duration:?}");
        }
    }
}
