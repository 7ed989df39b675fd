//! A pooled connection that the server closed before the first byte of the response: the request is
//! sent again once, if that is safe.

use crate::common;

use common::{Bench, Peer, Server, facts, ok};
use httpstream::{ErrorKind, Phase, Request, Sent};

#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    Reset,
}

impl End {
    fn apply(self, peer: &mut Peer) {
        match self {
            End::Close => peer.close(),
            End::Reset => peer.reset(),
        }
    }
}

/// A server that answers one request on each connection, reads a second one and ends the
/// connection. Its first `answering` connections do so.
fn stale(end: End, answering: usize) -> Server {
    Server::start(move |peer| {
        if peer.number >= answering {
            peer.request();
            return end.apply(peer);
        }
        while let Some(seen) = peer.request() {
            if seen.path == "/stale" && peer.number == 0 {
                return end.apply(peer);
            }
            peer.send(&ok("a"));
        }
    })
}

#[test]
fn a_get_is_sent_once_more_on_a_fresh_connection() {
    for end in [End::Close, End::Reset] {
        let server = stale(end, 2);
        let mut bench = Bench::new();
        bench.fetch_ok(server.get("/"));
        let got = bench.fetch_ok(server.get("/stale"));
        assert_eq!(
            (got.text(), got.attempts, got.reused),
            ("a", 2, false),
            "{end:?}"
        );
        let stats = bench.stats();
        assert_eq!((stats.retried, stats.opened, stats.answered), (1, 2, 2));
        let connections: Vec<_> = server.so_far().iter().map(|seen| seen.connection).collect();
        assert_eq!(connections, [0, 0, 1]);
        bench.assert_empty();
    }
}

#[test]
fn a_retry_takes_no_other_pooled_connection() {
    let gate = common::Gate::new();
    let at = gate.clone();
    let server = Server::start(move |peer| {
        while let Some(seen) = peer.request() {
            match seen.path.as_str() {
                "/hold" => at.pass(),
                "/stale" if peer.number < 2 => return,
                _ => {}
            }
            peer.send(&ok(&peer.number.to_string()));
        }
    });
    let mut bench = Bench::new();
    bench.submit(server.get("/hold"));
    bench.submit(server.get("/hold"));
    bench.until("both are in flight", |engine, _| {
        engine.stats().in_flight == 2
    });
    gate.open(2);
    bench.replies(2);
    assert_eq!(bench.stats().links_idle, 2);
    let got = bench.fetch_ok(server.get("/stale"));
    assert_eq!((got.text(), got.attempts), ("2", 2));
    bench.assert_empty();
}

#[test]
fn a_post_is_not_sent_again() {
    for end in [End::Close, End::Reset] {
        let server = stale(end, 2);
        let mut bench = Bench::new();
        bench.fetch_ok(server.get("/"));
        let error = bench.fetch_err(server.post("/stale", "once"));
        let expected = (
            ErrorKind::ClosedBeforeResponse,
            Phase::FirstByte,
            Sent::Maybe,
        );
        assert_eq!(facts(&error), expected, "{end:?}");
        assert!(!error.resend_is_safe() && error.reused_connection());
        assert_eq!((bench.stats().retried, server.so_far().len()), (0, 2));
        bench.assert_empty();
    }
}

#[test]
fn a_post_that_is_said_to_be_idempotent_is_sent_again() {
    let server = stale(End::Close, 2);
    let mut bench = Bench::new();
    bench.fetch_ok(server.get("/"));
    let post = Request::post(server.url("/stale"))
        .body("once")
        .idempotent(true);
    let got = bench.fetch_ok(post.build().unwrap());
    assert_eq!(got.attempts, 2);
    let bodies: Vec<_> = server.so_far().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [&b""[..], b"once", b"once"]);
    bench.assert_empty();
}

#[test]
fn a_get_that_is_said_not_to_be_idempotent_is_not_sent_again() {
    let server = stale(End::Close, 2);
    let mut bench = Bench::new();
    bench.fetch_ok(server.get("/"));
    let get = Request::get(server.url("/stale")).idempotent(false);
    let error = bench.fetch_err(get.build().unwrap());
    assert_eq!(error.kind(), ErrorKind::ClosedBeforeResponse);
    assert!(!error.resend_is_safe());
    bench.assert_empty();
}

#[test]
fn a_second_failure_is_final() {
    for end in [End::Close, End::Reset] {
        let server = stale(end, 1);
        let mut bench = Bench::new();
        bench.fetch_ok(server.get("/"));
        let error = bench.fetch_err(server.get("/stale"));
        let expected = (
            ErrorKind::ClosedBeforeResponse,
            Phase::FirstByte,
            Sent::Maybe,
        );
        assert_eq!(facts(&error), expected, "{end:?}");
        assert!(error.resend_is_safe() && !error.reused_connection());
        assert_eq!(server.so_far().len(), 3);
        bench.assert_empty();
    }
}

#[test]
fn a_fresh_connection_that_is_closed_is_no_stale_one() {
    for end in [End::Close, End::Reset] {
        let server = stale(end, 0);
        let mut bench = Bench::new();
        let error = bench.fetch_err(server.get("/"));
        assert_eq!(error.kind(), ErrorKind::ClosedBeforeResponse, "{end:?}");
        assert!(!error.reused_connection());
        assert_eq!((bench.stats().retried, server.so_far().len()), (0, 1));
        bench.assert_empty();
    }
}

#[test]
fn a_response_that_has_begun_is_truncated_rather_than_stale() {
    for end in [End::Close, End::Reset] {
        let server = Server::start(move |peer| {
            peer.answer(&ok("a"));
            peer.request();
            peer.send(b"HTTP/1.1 2");
            // A reset discards nothing here: bytes that were sent before it are read first.
            end.apply(peer);
        });
        let mut bench = Bench::new();
        bench.fetch_ok(server.get("/"));
        let error = bench.fetch_err(server.get("/"));
        assert_eq!(
            facts(&error),
            (ErrorKind::Truncated, Phase::Head, Sent::Yes),
            "{end:?}"
        );
        bench.assert_empty();
    }
}

#[test]
fn each_step_of_a_chain_may_be_retried_once() {
    // Every connection serves one request and closes at the second.
    let server = Server::start(|peer| {
        peer.answer(&ok("a"));
        peer.request();
    });
    let mut bench = Bench::new();
    bench.engine.submit(server.get("/"), |log, reply, cx| {
        let _ = common::note(log, reply, cx);
        if log.replies.len() < 5 {
            cx.again()
        } else {
            cx.done()
        }
    });
    bench.replies(5);
    let attempts: Vec<_> = bench
        .log
        .replies
        .iter()
        .map(|r| r.as_ref().unwrap().attempts)
        .collect();
    assert_eq!(attempts, [1, 2, 2, 2, 2]);
    bench.assert_empty();
}

#[test]
fn a_retry_stays_within_the_total_deadline() {
    let server = Server::start(|peer| {
        if peer.number == 0 {
            peer.answer(&ok("a"));
            peer.request();
        } else {
            peer.request();
            peer.hold();
        }
    });
    let mut bench = Bench::new();
    bench.fetch_ok(server.get("/"));
    let get = Request::get(server.url("/")).timeout(std::time::Duration::from_millis(80));
    let error = bench.fetch_err(get.build().unwrap());
    assert_eq!(
        facts(&error),
        (ErrorKind::Timeout, Phase::FirstByte, Sent::Maybe)
    );
    assert_eq!(bench.stats().retried, 1);
    bench.assert_empty();
}

#[test]
fn a_retry_goes_before_those_that_wait() {
    let server = Server::start(|peer| {
        peer.answer(&ok("first"));
        if peer.number > 0 {
            while let Some(seen) = peer.request() {
                peer.send(&ok(&seen.path));
            }
        }
        peer.request();
    });
    let mut bench = Bench::with(|c| c.max_connections_per_origin = 1);
    for path in ["/0", "/1", "/2", "/3"] {
        bench.submit(server.get(path));
    }
    bench.replies(4);
    let paths: Vec<_> = server.so_far().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/0", "/1", "/1", "/2", "/3"]);
    assert_eq!(bench.stats().retried, 1);
    bench.assert_empty();
}
