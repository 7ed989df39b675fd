//! A connection that is opened ahead of a request completes its handshake without one.

use std::sync::Arc;
use std::time::Duration;

use httpstream::{Origin, Request};

use crate::certificates::Authority;
use crate::common::{Bench, Gate, Server, ok};
use crate::peer::{Pieces, TlsPeer, VERSIONS, World, url};

fn origin(world: &World) -> Origin {
    world.get("/").origin()
}

#[test]
fn the_next_request_finds_the_handshake_complete() {
    for pieces in [Pieces::Whole, Pieces::Bytes] {
        let world = World::of(
            |_| (),
            pieces,
            |peer| {
                while let Some((path, _)) = peer.request() {
                    peer.send(&ok(&path));
                }
            },
        );
        let mut bench = world.bench();
        bench.engine.preconnect(&origin(&world));
        bench.until("it is idle", |engine, _| engine.stats().links_idle == 1);
        // Session tickets may arrive after the handshake, and leave the connection as it is.
        std::thread::sleep(Duration::from_millis(20));
        bench.quiet();
        let got = bench.fetch_ok(world.get("/first"));
        assert_eq!((got.text(), got.reused, got.attempts), ("/first", false, 1));
        assert!(bench.fetch_ok(world.get("/second")).reused);
        assert_eq!(bench.stats().opened, 1);
        bench.assert_empty();
    }
}

#[test]
fn a_request_takes_over_a_handshake_under_way() {
    let (gate, authority) = (Gate::new(), Authority::new());
    let at = gate.clone();
    let config = Arc::new(authority.server().config(&VERSIONS));
    let server = Server::start(move |tcp| {
        at.pass();
        let mut peer = TlsPeer::new(tcp, &config, Pieces::Whole);
        assert!(peer.shake());
        while let Some((path, _)) = peer.request() {
            peer.send(&ok(&path));
        }
    });
    let mut bench = Bench::with(|config| config.route.tls = authority.tls());
    bench.engine.preconnect(&url(&server, "").parse().unwrap());
    bench.until("it is connected", |engine, _| engine.stats().bytes_out > 0);
    bench.submit(Request::get(url(&server, "/first")).build().unwrap());
    bench.quiet();
    let stats = bench.stats();
    assert_eq!((stats.links_dialing, stats.in_flight), (1, 1));
    gate.open(1);
    bench.replies(1);
    assert_eq!(bench.log.texts(), ["/first"]);
    assert_eq!(bench.stats().opened, 1);
    bench.assert_empty();
}

#[test]
fn a_server_that_cannot_be_trusted_is_left_without_a_word_to_anyone() {
    let world = World::of(|_| (), Pieces::Whole, |peer| peer.hold());
    let mut bench = Bench::new();
    bench.engine.preconnect(&origin(&world));
    bench.until("it is opened", |engine, _| engine.stats().opened == 1);
    bench.until("it is closed", |engine, _| engine.stats().links_open == 0);
    assert!(bench.log.replies.is_empty());
    assert_eq!(bench.stats().failed, 0);
    bench.assert_empty();
}

#[test]
fn a_response_that_comes_before_any_request_ends_the_connection() {
    let world = World::of(
        |_| (),
        Pieces::Whole,
        |peer| {
            if peer.number() == 0 {
                peer.send(&ok("unasked"));
                peer.hold();
                return;
            }
            while let Some((path, _)) = peer.request() {
                peer.send(&ok(&path));
            }
        },
    );
    let mut bench = world.bench();
    bench.engine.preconnect(&origin(&world));
    bench.until("it is opened", |engine, _| engine.stats().opened == 1);
    bench.until("it is closed", |engine, _| engine.stats().links_open == 0);
    assert_eq!(bench.fetch_ok(world.get("/own")).text(), "/own");
    bench.assert_empty();
}
