//! There are never more connections than the limits allow. Other requests wait, first in, first
//! out.

use crate::common;

use common::{Bench, Gate, Log, Server, ok};
use httpstream::{Context, Next, Reply, Request};

fn gated(gate: &Gate) -> Server {
    let gate = gate.clone();
    Server::start(move |peer| {
        while let Some(seen) = peer.request() {
            gate.pass();
            peer.send(&ok(&seen.path));
        }
    })
}

#[test]
fn one_origin_gets_no_more_than_its_share_and_its_queue_is_served_in_order() {
    let gate = Gate::new();
    let server = gated(&gate);
    let mut bench = Bench::with(|c| c.max_connections_per_origin = 2);
    for i in 0..10 {
        bench.submit(server.get(&format!("/{i}")));
    }
    bench.until("two are in flight", |engine, _| {
        engine.stats().in_flight == 2
    });
    assert_eq!((bench.stats().links_open, bench.stats().queued), (2, 8));
    let mut paths = Vec::new();
    paths.push(server.next().path);
    paths.push(server.next().path);
    paths.sort();
    for i in 2..10 {
        gate.open(1);
        bench.until("the next is sent", |engine, _| {
            engine.stats().queued == 9 - i
        });
        paths.push(server.next().path);
        assert_eq!(bench.stats().links_open, 2);
    }
    gate.open(2);
    bench.replies(10);
    let expected: Vec<_> = (0..10).map(|i| format!("/{i}")).collect();
    assert_eq!(paths, expected);
    assert_eq!(bench.stats().opened, 2);
    bench.assert_empty();
}

#[test]
fn with_one_connection_requests_are_answered_in_the_order_of_their_submission() {
    let server = Server::start(|peer| {
        while let Some(seen) = peer.request() {
            peer.send(&ok(&seen.path));
        }
    });
    let mut bench = Bench::with(|c| c.max_connections_per_origin = 1);
    let expected: Vec<_> = (0..200).map(|i| format!("/{i}")).collect();
    for path in &expected {
        bench.submit(server.get(path));
    }
    bench.replies(200);
    assert_eq!(bench.log.texts(), expected);
    assert_eq!(bench.stats().opened, 1);
    bench.assert_empty();
}

#[test]
fn all_origins_together_get_no_more_than_the_total() {
    let gate = Gate::new();
    let servers: Vec<_> = (0..6).map(|_| gated(&gate)).collect();
    let mut bench = Bench::with(|c| {
        c.max_connections = 3;
        c.max_connections_per_origin = 1;
    });
    for round in 0..3 {
        for server in &servers {
            bench.submit(server.get(&format!("/{round}")));
        }
    }
    bench.until("three are in flight", |engine, _| {
        engine.stats().in_flight == 3
    });
    assert_eq!(bench.stats().links_open, 3);
    gate.open(18);
    bench.until("all are answered", |engine, log| {
        assert!(engine.stats().links_open <= 3);
        log.replies.len() == 18
    });
    assert!(bench.log.replies.iter().all(Result::is_ok));
    for server in &servers {
        let paths: Vec<_> = server.so_far().into_iter().map(|seen| seen.path).collect();
        assert_eq!(paths, ["/0", "/1", "/2"], "each origin keeps its order");
    }
    bench.assert_empty();
}

#[test]
fn an_idle_connection_makes_way_for_another_origin() {
    let one = Server::answering(ok("one"));
    let two = Server::answering(ok("two"));
    let mut bench = Bench::with(|c| c.max_connections = 1);
    for _ in 0..3 {
        assert_eq!(bench.fetch_ok(one.get("/")).text(), "one");
        assert_eq!(bench.fetch_ok(two.get("/")).text(), "two");
        assert_eq!(bench.stats().links_open, 1);
    }
    bench.assert_empty();
}

#[test]
fn a_chain_that_never_ends_keeps_no_other_origin_out() {
    let one = Server::answering(ok("one"));
    let two = Server::answering(ok("two"));
    let mut bench = Bench::with(|c| c.max_connections = 1);
    bench.engine.submit(one.get("/"), |_, reply, _| {
        assert!(reply.is_ok());
        httpstream::Next::again()
    });
    for _ in 0..3 {
        assert_eq!(bench.fetch_ok(two.get("/")).text(), "two");
    }
    assert_eq!(bench.engine.pending(), 1);
}

#[test]
fn a_crawler_that_goes_on_to_new_origins_keeps_no_other_out() {
    const HOSTS: usize = 300;
    fn get(host: &str) -> Request {
        Request::get(format!("http://{host}/")).build().unwrap()
    }
    fn crawl(log: &mut Log, reply: Reply<'_>, cx: &mut Context<'_, Log>) -> Next<Log> {
        let next = log.replies.len() + 1;
        log.replies.push(reply.map(common::Got::of));
        if next < HOSTS {
            cx.submit(get(&format!("h{next}.test")), crawl);
        }
        cx.done()
    }
    let server = Server::answering(ok("a"));
    let addr = server.addr;
    let mut bench = Bench::with(|c| {
        c.max_connections = 1;
        c.resolve_to("*.test", addr);
    });
    bench.engine.submit(get("h0.test"), crawl);
    bench
        .engine
        .submit(get("c.test"), |log: &mut Log, reply: Reply<'_>, cx| {
            assert!(reply.is_ok());
            log.notes.push(log.replies.len().to_string());
            cx.done()
        });
    bench.until("the other is answered", |_, log| {
        !log.notes.is_empty() || log.replies.len() == HOSTS
    });
    let before: usize = bench
        .log
        .notes
        .first()
        .map_or(HOSTS, |n| n.parse().unwrap());
    assert!(before <= 5, "{before} were answered before it");
    bench.replies(HOSTS);
    assert!(bench.log.replies.iter().all(Result::is_ok));
    bench.assert_empty();
}

#[test]
fn a_connection_that_fails_lets_the_next_in_the_queue_go() {
    let server = Server::start(|peer| {
        let seen = peer.request().unwrap();
        match seen.path.as_str() {
            "/reset" => peer.reset(),
            "/close" => peer.close(),
            "/garbage" => drop(peer.send(b"garbage\r\n\r\n")),
            path => drop(peer.send(&ok(path))),
        }
    });
    let mut bench = Bench::with(|c| c.max_connections_per_origin = 1);
    for path in ["/reset", "/a", "/close", "/b", "/garbage", "/c"] {
        bench.submit(server.get(path));
    }
    bench.replies(6);
    let texts = bench.log.texts();
    assert_eq!(
        texts,
        [
            "ClosedBeforeResponse",
            "/a",
            "ClosedBeforeResponse",
            "/b",
            "Malformed",
            "/c"
        ]
    );
    bench.assert_empty();
}

#[test]
fn cancelling_at_head_middle_and_tail_of_a_queue_keeps_its_order() {
    let gate = Gate::new();
    let server = gated(&gate);
    let mut bench = Bench::with(|c| c.max_connections_per_origin = 1);
    let ids: Vec<_> = (0..8)
        .map(|i| bench.submit(server.get(&format!("/{i}"))))
        .collect();
    bench.until("one is in flight", |engine, _| {
        engine.stats().in_flight == 1
    });
    for i in [1, 4, 7] {
        assert!(bench.engine.cancel(ids[i]));
    }
    bench.replies(3);
    bench.submit(server.get("/8"));
    gate.open(6);
    bench.replies(9);
    assert_eq!(bench.log.texts()[3..], ["/0", "/2", "/3", "/5", "/6", "/8"]);
    bench.assert_empty();
}
