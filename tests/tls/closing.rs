//! How connections end: with or without a close_notify (RFC 8446 §6.1, RFC 9112 §9.8), while busy,
//! idle or paused.

use httpstream::{ErrorKind, Flow, Phase, Sent};

use crate::common::{Gate, Script, facts, ok};
use crate::peer::{TlsPeer, VERSIONS, World};

const TO_THE_END: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nto the end";

#[test]
fn a_framed_response_needs_no_close_notify() {
    for version in VERSIONS {
        let world = World::speaking(version, |peer| {
            peer.answer(&ok("framed"));
        });
        let mut bench = world.bench();
        for _ in 0..3 {
            let got = bench.fetch_ok(world.get("/"));
            assert_eq!(got.text(), "framed");
        }
        assert_eq!(world.server.so_far().last().unwrap().connection, 2);
        bench.assert_empty();
    }
}

#[test]
fn a_body_that_lasts_until_the_end_needs_a_close_notify() {
    for version in VERSIONS {
        let world = World::speaking(version, |peer| {
            let Some((path, _)) = peer.request() else {
                return;
            };
            match &*path {
                "/said/together" => {
                    let wire = [peer.seal(TO_THE_END), peer.close_notify()].concat();
                    peer.send_raw(&wire);
                }
                "/said/apart" => {
                    peer.send(TO_THE_END);
                    let alert = peer.close_notify();
                    peer.send_raw(&alert);
                }
                "/cut" => {
                    peer.send(TO_THE_END);
                }
                "/reset" => {
                    peer.send(TO_THE_END);
                    peer.tcp.reset();
                }
                other => panic!("{other}"),
            }
        });
        let mut bench = world.bench();
        for path in ["/said/together", "/said/apart"] {
            assert_eq!(bench.fetch_ok(world.get(path)).text(), "to the end");
        }
        let error = bench.fetch_err(world.get("/cut"));
        assert_eq!(
            facts(&error),
            (ErrorKind::Truncated, Phase::Body, Sent::Yes)
        );
        assert_eq!(error.partial_body(), b"to the end");
        let expected = format!(
            "https://{}: response cut short while reading the body: the connection ended without a TLS close_notify",
            world.server.addr
        );
        assert_eq!(format!("{error:#}"), expected);
        let error = bench.fetch_err(world.get("/reset"));
        assert_eq!(error.kind(), ErrorKind::Truncated);
        bench.assert_empty();
    }
}

#[test]
fn a_response_that_is_cut_is_truncated_with_a_close_notify_or_without() {
    const CUTS: [(&str, &str); 4] = [
        ("Content-Length: 9\r\n\r\nhalf", "half"),
        ("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0", "half"),
        (
            "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n\r",
            "half",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nA: b\r\n",
            "half",
        ),
    ];
    for (cut, body) in CUTS {
        let world = World::new(move |peer| {
            let Some((path, _)) = peer.request() else {
                return;
            };
            let wire = peer.seal(format!("HTTP/1.1 200 OK\r\n{cut}").as_bytes());
            let end = match path.ends_with("said") {
                true => peer.close_notify(),
                false => Vec::new(),
            };
            match path.starts_with("/together") {
                true => drop(peer.send_raw(&[wire, end].concat())),
                false => drop(peer.send_raw(&wire) && peer.send_raw(&end)),
            }
        });
        let mut bench = world.bench();
        for path in ["/together/said", "/apart/said", "/together", "/apart"] {
            let error = bench.fetch_err(world.get(path));
            let expected = (ErrorKind::Truncated, Phase::Body, Sent::Yes);
            assert_eq!(facts(&error), expected, "{path} {cut:?}");
            assert_eq!(error.partial_body(), body.as_bytes());
        }
        bench.assert_empty();
    }
}

#[test]
fn a_connection_is_not_used_again_behind_a_close_notify_in_the_same_segment() {
    for version in VERSIONS {
        // The server's half of the TCP connection stays open.
        let world = World::speaking(version, |peer| {
            if peer.request().is_some() {
                let wire = [peer.seal(&ok("last")), peer.close_notify()].concat();
                peer.send_raw(&wire);
                peer.hold();
            }
        });
        let mut bench = world.bench();
        for opened in 1..4 {
            assert_eq!(bench.fetch_ok(world.get("/")).text(), "last");
            let stats = bench.stats();
            assert_eq!((stats.links_open, stats.opened), (0, opened));
        }
        assert_eq!(bench.stats().retried, 0);
        bench.assert_empty();
    }
}

/// A server that does something to a connection that is idle in the pool.
fn between_two_requests(meanwhile: fn(&mut TlsPeer<'_>)) -> (World, Gate) {
    let gate = Gate::new();
    let at = gate.clone();
    let world = World::of(
        |_| (),
        crate::peer::Pieces::Whole,
        move |peer| {
            peer.answer(&ok("first"));
            if peer.number() == 0 {
                at.pass();
                meanwhile(peer);
                if !peer.tcp.is_open() {
                    return;
                }
            }
            while peer.answer(&ok("second")) {}
        },
    );
    (world, gate)
}

#[test]
fn an_idle_connection_is_closed_by_whatever_ends_it() {
    type Row = (&'static str, fn(&mut TlsPeer<'_>));
    let rows: &[Row] = &[
        ("close_notify alone", |peer| {
            let alert = peer.close_notify();
            peer.send_raw(&alert);
            peer.hold();
        }),
        ("close_notify and the end", |peer| {
            let alert = peer.close_notify();
            peer.send_raw(&alert);
            peer.tcp.close();
        }),
        ("the end alone", |peer| peer.tcp.close()),
        ("a reset", |peer| peer.tcp.reset()),
        ("an unsolicited response", |peer| {
            peer.send(&ok("out of turn"));
            peer.hold();
        }),
        ("garbage", |peer| {
            peer.send_raw(b"HTTP/1.1 408 Request Timeout\r\n\r\n");
            peer.hold();
        }),
    ];
    for (why, meanwhile) in rows {
        let (world, gate) = between_two_requests(*meanwhile);
        let mut bench = world.bench();
        assert_eq!(bench.fetch_ok(world.get("/")).text(), "first");
        bench.quiet();
        assert_eq!(bench.stats().links_idle, 1, "{why}");
        gate.open(1);
        bench.until(why, |engine, _| engine.stats().links_open == 0);
        assert_eq!(bench.fetch_ok(world.get("/")).text(), "first", "{why}");
        let stats = bench.stats();
        assert_eq!((stats.opened, stats.retried), (2, 0), "{why}");
        bench.assert_empty();
    }
}

#[test]
fn an_idle_connection_outlives_a_change_of_keys() {
    let (world, gate) = between_two_requests(|peer| {
        // TLS 1.3 only, which is what these two agree on.
        peer.tls.refresh_traffic_keys().unwrap();
        let wire = peer.wire();
        peer.send_raw(&wire);
    });
    let mut bench = world.bench();
    assert_eq!(bench.fetch_ok(world.get("/")).text(), "first");
    let before = bench.stats().bytes_in;
    gate.open(1);
    bench.until("new keys", |engine, _| engine.stats().bytes_in > before);
    bench.quiet();
    assert_eq!(bench.stats().links_idle, 1);
    let got = bench.fetch_ok(world.get("/"));
    assert_eq!((got.text(), got.reused), ("second", true));
    bench.assert_empty();
}

/// The server's answer to the request itself would come after its early one, and be read by the
/// next request.
#[test]
fn a_connection_whose_server_speaks_before_it_is_asked_serves_one_request() {
    let authority = crate::certificates::Authority::new();
    let mut config = authority.server().config(&VERSIONS);
    config.send_half_rtt_data = true;
    let config = std::sync::Arc::new(config);
    let server = crate::common::Server::start(move |tcp| {
        let mut peer = TlsPeer::new(tcp, &config, crate::peer::Pieces::Whole);
        while !peer.tls.wants_write() {
            if !peer.fill_silently() {
                return;
            }
        }
        peer.send(&ok("early"));
        peer.shake();
        while peer.answer(&ok("asked for")) {}
    });
    let mut bench = crate::common::Bench::with(|c| c.route.tls = authority.tls());
    for opened in 1..4 {
        let url = crate::peer::url(&server, "/");
        let request = httpstream::Request::get(&url).build().unwrap();
        assert_eq!(bench.fetch_ok(request).text(), "early");
        let stats = bench.stats();
        assert_eq!((stats.links_open, stats.opened), (0, opened));
    }
    bench.assert_empty();
}

#[test]
fn a_stale_connection_is_tried_again_where_that_is_safe() {
    for said in [true, false] {
        let world = World::new(move |peer| {
            peer.answer(&ok("a"));
            peer.request();
            if said {
                let alert = peer.close_notify();
                peer.send_raw(&alert);
            }
        });
        let mut bench = world.bench();
        bench.fetch_ok(world.get("/"));
        let got = bench.fetch_ok(world.get("/stale"));
        assert_eq!((got.text(), got.attempts, got.reused), ("a", 2, false));
        bench.assert_empty();

        let mut bench = world.bench();
        bench.fetch_ok(world.get("/"));
        let error = bench.fetch_err(world.post("/stale", "once"));
        assert_eq!(
            facts(&error),
            (
                ErrorKind::ClosedBeforeResponse,
                Phase::FirstByte,
                Sent::Maybe
            )
        );
        assert!(!error.resend_is_safe());
        bench.assert_empty();
    }
}

/// Pauses after the first piece.
fn pausing() -> Script {
    Script {
        head: Flow::Stream,
        data: [Flow::Pause].into(),
        ..Script::default()
    }
}

#[test]
fn what_stands_behind_a_pause_comes_after_it_without_any_news_from_the_socket() {
    type Row = (
        &'static str,
        fn(&mut TlsPeer<'_>) -> Vec<u8>,
        Option<ErrorKind>,
    );
    let rows: &[Row] = &[
        ("a regular end", |peer| peer.close_notify(), None),
        (
            "garbage",
            |_| b"\x17\x03\x03\x00\x20nothing that these keys can open".to_vec(),
            Some(ErrorKind::Tls),
        ),
    ];
    for (why, end, expected) in rows {
        let end = *end;
        let world = World::new(move |peer| {
            if peer.request().is_some() {
                let mut wire = peer.seal(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                // A chunked body would mark its own end.
                wire = [wire, peer.seal(b"3\r\none\r\n3\r\ntwo\r\n")].concat();
                wire.extend(end(peer));
                peer.send_raw(&wire);
                peer.hold();
            }
        });
        let mut bench = world.bench();
        let id = bench.engine.submit_to(world.get("/"), pausing());
        bench.until("a pause", |engine, _| engine.stats().paused == 1);
        bench.quiet();
        assert_eq!(bench.log.notes, ["head 200", "data one"], "{why}");
        assert!(bench.log.replies.is_empty(), "{why}: still paused");
        assert!(bench.engine.resume(id));
        bench.replies(1);
        assert_eq!(bench.log.notes, ["head 200", "data onetwo"], "{why}");
        let error = bench.log.replies.remove(0).unwrap_err();
        let kind = expected.unwrap_or(ErrorKind::Truncated);
        assert_eq!((error.kind(), error.phase()), (kind, Phase::Body), "{why}");
        bench.assert_empty();
    }
}

#[test]
fn a_body_that_ends_with_the_connection_ends_behind_a_pause() {
    let world = World::new(|peer| {
        if peer.request().is_some() {
            let wire = [peer.seal(TO_THE_END), peer.close_notify()].concat();
            peer.send_raw(&wire);
            peer.hold();
        }
    });
    let mut bench = world.bench();
    let id = bench.engine.submit_to(world.get("/"), pausing());
    bench.until("a pause", |engine, _| engine.stats().paused == 1);
    bench.quiet();
    assert!(bench.log.replies.is_empty());
    bench.engine.resume(id);
    bench.replies(1);
    assert!(bench.log.replies[0].is_ok());
    assert_eq!(bench.log.notes, ["head 200", "data to the end"]);
    bench.assert_empty();
}

#[test]
fn closing_idle_connections_tells_their_servers() {
    let world = World::new(|peer| {
        peer.answer(&ok("a"));
        peer.hold();
        // The client has sent close_notify, or the connection is gone.
        let said = match peer.tls.process_new_packets() {
            Ok(state) => state.peer_has_closed(),
            Err(_) => false,
        };
        peer.tcp.tell(format!("CLOSED {said} -"), Vec::new());
    });
    let mut bench = world.bench();
    bench.fetch_ok(world.get("/"));
    assert_eq!(bench.stats().links_idle, 1);
    bench.engine.close_idle();
    bench.quiet();
    assert_eq!(bench.stats().links_open, 0);
    assert_eq!(world.server.next().path, "/");
    assert_eq!(world.server.next().path, "true");
    bench.assert_empty();
}
