//! Each limit on a response, at the limit and one past it.

use crate::common;

use common::{Bench, Script, Server};
use httpstream::{ErrorKind, Flow, Limits, Request, Violation};

fn with(server: &Server, change: impl FnOnce(&mut Limits)) -> Request {
    Request::get(server.url("/"))
        .limits(change)
        .build()
        .unwrap()
}

/// Checks that `wire` passes if the limit is `limit`, and fails if it is one less.
fn at_the_limit(
    why: &str,
    wire: String,
    limit: usize,
    set: impl Fn(&mut Limits, usize),
    expected: Violation,
) {
    let server = Server::answering(wire.clone());
    let bytewise = Server::start(move |peer| {
        while peer.request().is_some() {
            peer.send_pieces(wire.as_bytes().chunks(1));
        }
    });
    for server in [&server, &bytewise] {
        let mut bench = Bench::new();
        let fits = with(server, |l| set(l, limit));
        assert_eq!(bench.fetch_ok(fits).status, 200, "{why}");
        let error = bench.fetch_err(with(server, |l| set(l, limit - 1)));
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{why}");
        let violation = error.violation().unwrap();
        assert_eq!(
            std::mem::discriminant(violation),
            std::mem::discriminant(&expected),
            "{why}: {violation}"
        );
        let text = violation.to_string();
        assert!(
            text.contains(&(limit - 1).to_string()),
            "{why}: the limit is named in {text:?}"
        );
        let links = bench.stats().links_open;
        assert!(links <= 1, "{why}");
        bench.assert_empty();

        let mut strict = Bench::with(|c| set(&mut c.limits, limit - 1));
        assert_eq!(
            strict.fetch_err(server.get("/")).kind(),
            ErrorKind::TooLarge,
            "{why}: the engine's limit"
        );
        assert_eq!(
            strict.fetch_ok(with(server, |l| set(l, limit))).status,
            200,
            "{why}: the request's limit takes precedence"
        );
        strict.assert_empty();
    }
}

#[test]
fn bytes_of_the_head() {
    let wire = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nA: {}\r\n\r\n",
        "b".repeat(300)
    );
    let len = wire.len();
    at_the_limit(
        "head",
        wire,
        len,
        |l, n| l.max_head_bytes = n,
        Violation::HeadTooLarge { limit: 0, seen: 0 },
    );
}

#[test]
fn bytes_of_all_heads_together() {
    let interim = "HTTP/1.1 103 x\r\nA: b\r\n\r\n".repeat(3);
    let wire = interim + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let len = wire.len();
    at_the_limit(
        "heads",
        wire,
        len,
        |l, n| l.max_head_bytes = n,
        Violation::HeadTooLarge { limit: 0, seen: 0 },
    );
}

#[test]
fn field_lines() {
    let wire = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n",
        "A: b\r\n".repeat(19)
    );
    at_the_limit(
        "fields",
        wire,
        20,
        |l, n| l.max_fields = n,
        Violation::TooManyFields { limit: 0, seen: 0 },
    );
}

#[test]
fn interim_responses() {
    let wire = "HTTP/1.1 103 x\r\n\r\n".repeat(5) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    at_the_limit(
        "interim",
        wire,
        5,
        |l, n| l.max_interim = n,
        Violation::TooManyInterim { limit: 0, seen: 0 },
    );
}

#[test]
fn bytes_of_a_collected_body() {
    let set = |l: &mut Limits, n: usize| l.max_body_bytes = n as u64;
    let expected = Violation::BodyTooLarge { limit: 0, seen: 0 };
    let length = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}",
        "x".repeat(50)
    );
    at_the_limit("length", length, 50, set, expected.clone());
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        "5\r\nabcde\r\n".repeat(10)
    );
    at_the_limit("chunked", chunked, 50, set, expected);
}

#[test]
fn bytes_of_trailers_and_their_number() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    let section = "A: b\r\n".repeat(10) + "\r\n";
    at_the_limit(
        "trailer fields",
        format!("{head}{section}"),
        10,
        |l, n| l.max_fields = n,
        Violation::TooManyFields { limit: 0, seen: 0 },
    );
    let server = Server::answering(format!("{head}{section}"));
    let mut bench = Bench::new();
    assert_eq!(
        bench
            .fetch_ok(with(&server, |l| l.max_trailer_bytes = 62))
            .trailers
            .len(),
        10
    );
    let error = bench.fetch_err(with(&server, |l| l.max_trailer_bytes = 50));
    assert!(matches!(
        error.violation(),
        Some(Violation::TrailersTooLarge { limit: 50, .. })
    ));
    bench.assert_empty();
}

#[test]
fn bytes_of_chunk_extensions() {
    let wire = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        "1;ab=c\r\nx\r\n".repeat(10)
    );
    let server = Server::answering(wire);
    let mut bench = Bench::new();
    assert_eq!(
        bench
            .fetch_ok(with(&server, |l| l.max_chunk_extension_bytes = 100))
            .body
            .len(),
        10
    );
    let error = bench.fetch_err(with(&server, |l| l.max_chunk_extension_bytes = 30));
    assert!(matches!(
        error.violation(),
        Some(Violation::ChunkExtensionsTooLarge { limit: 30, .. })
    ));
    bench.assert_empty();
}

#[test]
fn a_body_that_is_not_collected_has_no_bound() {
    let server = Server::answering(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n{}",
        "x".repeat(500_000)
    ));
    for flow in [Flow::Stream, Flow::Discard] {
        let mut bench = Bench::with(|c| c.limits.max_body_bytes = 10);
        bench.engine.submit_to(
            server.get("/"),
            Script {
                head: flow,
                ..Script::default()
            },
        );
        bench.replies(1);
        assert!(bench.log.replies[0].is_ok());
        assert_eq!(bench.stats().links_idle, 1);
        bench.assert_empty();
    }
}

#[test]
fn a_length_over_the_limit_is_refused_before_the_body_comes() {
    let server = Server::start(|peer| {
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n");
        peer.hold();
    });
    let mut bench = Bench::new();
    let error = bench.fetch_err(server.get("/"));
    let seen = u64::MAX;
    assert!(
        matches!(error.violation(), Some(Violation::BodyTooLarge { seen: s, .. }) if *s == seen)
    );
    assert_eq!(error.status().map(|s| s.as_u16()), Some(200));
    bench.assert_empty();
}
