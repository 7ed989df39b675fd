//! A malformed response fails only its own exchange, and the error reports the violation and its
//! position.

use crate::common;

use common::{Bench, Gate, Server, ok};
use httpstream::{ErrorKind, Phase, Sent, Violation};

fn rows() -> Vec<(&'static str, &'static str, Phase, Violation)> {
    use Phase::{Body, Head};
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked =
        |rest: &str| -> &'static str { Box::leak((CHUNKED.to_owned() + rest).into_boxed_str()) };
    vec![
        (
            "another protocol",
            "SSH-2.0-OpenSSH\r\n\r\n",
            Head,
            Violation::NotHttp {
                offset: 0,
                byte: b'S',
            },
        ),
        ("HTTP/2", "HTTP/2 200 OK\r\n\r\n", Head, Violation::Http2),
        (
            "no status",
            "HTTP/1.1 OK\r\n\r\n",
            Head,
            Violation::StatusLine {
                offset: 9,
                byte: b'O',
            },
        ),
        (
            "a space before the colon",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            Head,
            Violation::FieldName {
                offset: 18,
                byte: b' ',
            },
        ),
        (
            "NUL in a value",
            "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
            Head,
            Violation::FieldValue {
                offset: 21,
                byte: 0,
            },
        ),
        (
            "a length with a sign",
            "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
            Head,
            Violation::ContentLength {
                offset: 33,
                byte: Some(b'+'),
            },
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            Head,
            Violation::ConflictingContentLengths {
                first: 3,
                second: 4,
            },
        ),
        (
            "an unknown coding",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: br\r\n\r\n",
            Head,
            Violation::UnsupportedTransferCoding { name: "br".into() },
        ),
        (
            "chunked twice",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            Head,
            Violation::ChunkedTwice,
        ),
        (
            "101 unasked",
            "HTTP/1.1 101 x\r\nUpgrade: a\r\n\r\n",
            Head,
            Violation::SwitchingProtocols,
        ),
        (
            "a size without digits",
            chunked("\r\n"),
            Body,
            Violation::ChunkSize {
                offset: 0,
                byte: b'\r',
            },
        ),
        (
            "a size with a sign",
            chunked("-1\r\n"),
            Body,
            Violation::ChunkSize {
                offset: 0,
                byte: b'-',
            },
        ),
        (
            "a bare line feed",
            chunked("3\nabc"),
            Body,
            Violation::ChunkSize {
                offset: 1,
                byte: b'\n',
            },
        ),
        (
            "no end after a chunk",
            chunked("3\r\nabcd\r\n"),
            Body,
            Violation::ChunkEnd {
                offset: 6,
                byte: b'd',
            },
        ),
    ]
}

#[test]
fn each_fails_alone_with_the_violation_and_its_place() {
    let gate = Gate::new();
    let at = gate.clone();
    let neighbour = Server::start(move |peer| {
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
        at.pass();
        peer.send(b"def");
        peer.hold();
    });
    let mut bench = Bench::new();
    bench.submit(neighbour.get("/"));
    bench.until("the neighbor is half read", |engine, _| {
        engine.stats().bytes_in > 0
    });
    for (why, wire, phase, violation) in rows() {
        for bytewise in [false, true] {
            let server = Server::start(move |peer| {
                peer.request();
                match bytewise {
                    true => peer.send_pieces(wire.as_bytes().chunks(1)),
                    false => drop(peer.send(wire.as_bytes())),
                }
                // The client closes the connection, without the server's doing.
                peer.hold();
            });
            let error = bench.fetch_err(server.get("/"));
            assert_eq!(error.violation(), Some(&violation), "{why}");
            assert_eq!(
                common::facts(&error),
                (ErrorKind::Malformed, phase, Sent::Yes),
                "{why}"
            );
            assert!(
                error
                    .origin()
                    .is_some_and(|o| o.port() == server.addr.port())
            );
            assert_eq!(
                bench.stats().links_open,
                1,
                "{why}: only the neighbor's link is left"
            );
        }
    }
    gate.open(1);
    bench.replies(1);
    assert_eq!(bench.log.texts(), ["abcdef"]);
    bench.assert_empty();
}

#[test]
fn garbage_on_a_pooled_connection_is_no_reason_to_send_again() {
    let server = Server::start(|peer| {
        peer.answer(&ok("a"));
        peer.answer(b"garbage\r\n\r\n");
        peer.hold();
    });
    let mut bench = Bench::new();
    bench.fetch_ok(server.get("/"));
    let error = bench.fetch_err(server.get("/"));
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert_eq!((bench.stats().retried, server.so_far().len()), (0, 2));
    bench.assert_empty();
}

#[test]
fn a_malformed_trailer_section_fails_the_response_and_keeps_its_status() {
    let wire =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nbad trailer\r\n\r\n";
    let server = Server::answering(wire);
    let mut bench = Bench::new();
    let error = bench.fetch_err(server.get("/"));
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Malformed, Phase::Body)
    );
    assert_eq!(error.status().map(|s| s.as_u16()), Some(200));
    assert_eq!(error.partial_body(), b"abc");
    bench.assert_empty();
}
