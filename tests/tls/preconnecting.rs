//! A connection that is opened ahead of a request completes its handshake without one.

use std::time::Duration;

use crate::common::{Gate, ok};
use crate::peer::{Pieces, World};

fn origin(world: &World) -> httpstream::Origin {
    world.get("/").origin()
}

#[test]
fn the_next_request_finds_the_handshake_complete() {
    for pieces in [Pieces::Whole, Pieces::Bytes] {
        let world = World::of(|_| (), pieces, |peer| {
            while let Some((path, _)) = peer.request() {
                peer.send(&ok(&path));
            }
        });
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
    let gate = Gate::new();
    let at = gate.clone();
    let world = World::of(|_| (), Pieces::Whole, move |peer| {
        at.pass();
        while let Some((path, _)) = peer.request() {
            peer.send(&ok(&path));
        }
    });
    let mut bench = world.bench();
    bench.engine.preconnect(&origin(&world));
    bench.until("it is connected", |engine, _| engine.stats().bytes_out > 0);
    assert_eq!(bench.stats().links_dialing, 1);
    bench.submit(world.get("/first"));
    bench.quiet();
    gate.open(1);
    bench.replies(1);
    assert_eq!(bench.log.texts(), ["/first"]);
    assert_eq!(bench.stats().opened, 1);
    bench.assert_empty();
}

#[test]
fn a_server_that_cannot_be_trusted_is_left_without_a_word_to_anyone() {
    let world = World::of(|_| (), Pieces::Whole, |peer| peer.hold());
    let mut bench = crate::common::Bench::new();
    bench.engine.preconnect(&origin(&world));
    bench.until("it is opened", |engine, _| engine.stats().opened == 1);
    bench.until("it is closed", |engine, _| engine.stats().links_open == 0);
    assert!(bench.log.replies.is_empty());
    assert_eq!(bench.stats().failed, 0);
    bench.assert_empty();
}

#[test]
fn a_response_that_comes_before_any_request_ends_the_connection() {
    let world = World::of(|_| (), Pieces::Whole, |peer| {
        if peer.number() == 0 {
            peer.shake();
            peer.send(&ok("unasked"));
            peer.hold();
            return;
        }
        while let Some((path, _)) = peer.request() {
            peer.send(&ok(&path));
        }
    });
    let mut bench = world.bench();
    bench.engine.preconnect(&origin(&world));
    bench.until("it is opened", |engine, _| engine.stats().opened == 1);
    bench.until("it is closed", |engine, _| engine.stats().links_open == 0);
    assert_eq!(bench.fetch_ok(world.get("/own")).text(), "/own");
    bench.assert_empty();
}
