//! Where a response ends: received whole, byte by byte, and cut in two at every position.

use crate::common;

use common::{Bench, Gate, Script, Server};
use httpstream::{ErrorKind, Flow, Phase, Request, Sent};

struct Row {
    why: &'static str,
    wire: &'static str,
    status: u16,
    body: &'static str,
    trailers: &'static [(&'static str, &'static str)],
    /// Whether the server closes the connection after it.
    closes: bool,
    kept: bool,
}

const ROWS: &[Row] = &[
    Row {
        why: "a length",
        wire: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello",
        status: 200,
        body: "hello",
        trailers: &[],
        closes: false,
        kept: true,
    },
    Row {
        why: "chunks with extensions and trailers",
        wire: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n02\r\nlo\r\n0\r\nSum: 1\r\nTwo: 2\r\n\r\n",
        status: 200,
        body: "hello",
        trailers: &[("Sum", "1"), ("Two", "2")],
        closes: false,
        kept: true,
    },
    Row {
        why: "until the connection ends",
        wire: "HTTP/1.1 404 \r\nX: y\r\n\r\nhello",
        status: 404,
        body: "hello",
        trailers: &[],
        closes: true,
        kept: false,
    },
    Row {
        why: "interim responses before it",
        wire: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok",
        status: 201,
        body: "ok",
        trailers: &[],
        closes: false,
        kept: true,
    },
    Row {
        why: "204 without a body",
        wire: "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
        status: 204,
        body: "",
        trailers: &[],
        closes: false,
        kept: true,
    },
    Row {
        why: "HTTP/1.0 with a length and bare line feeds",
        wire: "HTTP/1.0 200 OK\nContent-Length: 3\n\nabc",
        status: 200,
        body: "abc",
        trailers: &[],
        closes: true,
        kept: false,
    },
    Row {
        why: "304 with the length of what it does not send",
        wire: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        status: 304,
        body: "",
        trailers: &[],
        closes: false,
        kept: true,
    },
];

/// A server that sends the row's bytes in pieces according to the path: `/0` whole, `/1` byte by
/// byte, `/n` in two after n - 1 bytes.
fn cutting(row: &'static Row) -> Server {
    Server::start(move |peer| {
        while let Some(seen) = peer.request() {
            let wire = row.wire.as_bytes();
            match seen.path[1..].parse().unwrap() {
                0 => drop(peer.send(wire)),
                1 => peer.send_pieces(wire.chunks(1)),
                n => peer.send_pieces([&wire[..n - 1], &wire[n - 1..]]),
            }
            if row.closes {
                return;
            }
        }
    })
}

#[test]
fn a_response_is_the_same_however_it_is_cut() {
    for row in ROWS {
        let server = cutting(row);
        let mut bench = Bench::new();
        for n in 0..=row.wire.len() {
            let got = bench.fetch_ok(server.get(&format!("/{n}")));
            let trailers: Vec<_> = got
                .trailers
                .iter()
                .map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap()))
                .collect();
            let why = format!("{}, cut {n}", row.why);
            assert_eq!(
                (got.status, got.text(), &trailers[..]),
                (row.status, row.body, row.trailers),
                "{why}"
            );
            if !row.closes {
                assert_eq!(bench.stats().links_idle, usize::from(row.kept), "{why}");
            }
        }
        if row.kept {
            assert_eq!(bench.stats().opened, 1, "{}", row.why);
        }
        bench.assert_empty();
    }
}

#[test]
fn a_streamed_response_is_the_same_however_it_is_cut() {
    for row in ROWS {
        let server = cutting(row);
        let mut bench = Bench::new();
        for n in 0..=row.wire.len() {
            let request = server.get(&format!("/{n}"));
            bench.engine.submit_to(request, Script::default());
            bench.replies(1);
            let got = bench.log.replies.pop().unwrap().unwrap();
            assert_eq!(
                (got.status, got.text(), got.trailers.len()),
                (row.status, "", row.trailers.len())
            );
            let mut expected = Vec::new();
            if row.status == 201 {
                expected.extend(["interim 103".to_owned(), "interim 100".into()]);
            }
            expected.push(format!("head {}", row.status));
            if !row.body.is_empty() {
                expected.push(format!("data {}", row.body));
            }
            assert_eq!(bench.log.notes, expected, "{}, cut {n}", row.why);
            bench.log.notes.clear();
        }
        bench.assert_empty();
    }
}

#[test]
fn a_response_to_head_has_no_body_whatever_its_fields_say() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    let mut bench = Bench::new();
    for i in 0..3 {
        let request = Request::head(server.url("/")).build().unwrap();
        let got = bench.fetch_ok(request);
        assert_eq!((got.status, got.body.len(), got.reused), (200, 0, i > 0));
        assert_eq!(got.fields[0], ("Content-Length".to_owned(), b"5".to_vec()));
    }
    bench.assert_empty();
}

#[test]
fn a_body_behind_204_is_out_of_turn() {
    let server = Server::answering("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello");
    let mut bench = Bench::new();
    for _ in 0..3 {
        let got = bench.fetch_ok(server.get("/"));
        assert_eq!((got.status, got.body.len(), got.reused), (204, 0, false));
    }
    bench.assert_empty();
}

#[test]
fn an_end_inside_a_response_is_told_with_what_had_come() {
    /// The case and the bytes received; then the reported phase, status, part of the body and
    /// missing bytes.
    type Row = (
        &'static str,
        &'static str,
        Phase,
        Option<u16>,
        &'static str,
        Option<u64>,
    );
    let rows: [Row; 6] = [
        (
            "in the status line",
            "HTTP/1.1 20",
            Phase::Head,
            None,
            "",
            None,
        ),
        (
            "in the fields",
            "HTTP/1.1 200 OK\r\nA: b\r\n",
            Phase::Head,
            None,
            "",
            None,
        ),
        (
            "after an interim response",
            "HTTP/1.1 103 x\r\n\r\n",
            Phase::FirstByte,
            None,
            "",
            None,
        ),
        (
            "before the body",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            Phase::Body,
            Some(200),
            "",
            Some(5),
        ),
        (
            "in the body",
            "HTTP/1.1 201 OK\r\nContent-Length: 5\r\n\r\nhe",
            Phase::Body,
            Some(201),
            "he",
            Some(3),
        ),
        (
            "in a chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            Phase::Body,
            Some(200),
            "hel",
            None,
        ),
    ];
    for (why, wire, phase, status, body, missing) in rows {
        for reset in [false, true] {
            let server = Server::start(move |peer| {
                peer.request();
                peer.send(wire.as_bytes());
                if reset {
                    peer.reset();
                }
            });
            let mut bench = Bench::new();
            let error = bench.fetch_err(server.get("/"));
            let facts = common::facts(&error);
            assert_eq!(
                facts,
                (ErrorKind::Truncated, phase, Sent::Yes),
                "{why} {reset}"
            );
            assert_eq!(error.status().map(|s| s.as_u16()), status, "{why} {reset}");
            assert_eq!(error.partial_body(), body.as_bytes(), "{why} {reset}");
            if !reset {
                let expected = httpstream::Violation::Truncated { missing };
                assert_eq!(error.violation(), Some(&expected), "{why}");
            }
            bench.assert_empty();
        }
    }
}

#[test]
fn a_connection_that_ends_behind_the_last_chunks_line_has_sent_all() {
    let wire = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
    let server = Server::once(wire);
    let mut bench = Bench::new();
    assert_eq!(bench.fetch_ok(server.get("/")).text(), "hello");
    bench.assert_empty();
}

/// Framed messages, and at how many bytes before their end a close is a valid end.
const FRAMED: &[(&str, &str, &[usize])] = &[
    (
        "chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\r\nOK\r\n0\r\n\r\n",
        // After the last chunk's line, where the zero-sized chunk has arrived, and at the very end.
        &[2, 0],
    ),
    (
        "chunks and trailers",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0;b=c\r\nA: b\r\nC: d\r\n\r\n",
        &[14, 0],
    ),
    (
        "a length",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK",
        &[0],
    ),
    (
        "a length after an interim response",
        "HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK",
        &[0],
    ),
];

/// With `None` the whole response is collected.
fn ends_at_every_byte(flow: Option<Flow>, end_comes_later: bool) {
    for &(why, wire, from_end) in FRAMED {
        let gate = Gate::new();
        let at = gate.clone();
        let server = Server::start(move |peer| {
            let Some(seen) = peer.request() else {
                return;
            };
            let (way, len) = seen.path[1..].split_once('/').unwrap();
            peer.send(&wire.as_bytes()[..len.parse().unwrap()]);
            if way == "later" {
                at.pass();
            }
        });
        let mut bench = Bench::new();
        for len in 1..=wire.len() {
            let way = if end_comes_later { "later" } else { "at-once" };
            let request = server.get(&format!("/{way}/{len}"));
            let due = bench.stats().bytes_in + len as u64;
            match flow {
                None => drop(bench.submit(request)),
                Some(head) => {
                    let script = Script {
                        head,
                        ..Script::default()
                    };
                    bench.engine.submit_to(request, script);
                }
            }
            if end_comes_later {
                bench.until("the response", |engine, _| engine.stats().bytes_in == due);
                gate.open(1);
            }
            bench.replies(1);
            let reply = bench.log.replies.pop().unwrap();
            let why = format!("{why}, {len} of {} bytes, {flow:?}", wire.len());
            match from_end.contains(&(wire.len() - len)) {
                true => assert_eq!(reply.expect(&why).status, 200, "{why}"),
                false => {
                    let error = reply.expect_err(&why);
                    assert_eq!(error.kind(), ErrorKind::Truncated, "{why}: {error:#}");
                    assert_eq!(error.request_sent(), Sent::Yes, "{why}");
                }
            }
            bench.until("the end", |engine, _| engine.stats().links_open == 0);
        }
        bench.assert_empty();
    }
}

#[test]
fn an_end_before_the_last_byte_of_a_framed_message_truncates_it() {
    for end_comes_later in [false, true] {
        ends_at_every_byte(None, end_comes_later);
    }
}

#[test]
fn an_end_before_the_last_byte_truncates_what_is_streamed_or_discarded() {
    for flow in [Flow::Stream, Flow::Discard] {
        for end_comes_later in [false, true] {
            ends_at_every_byte(Some(flow), end_comes_later);
        }
    }
}

#[test]
fn an_end_in_a_pipelined_message_truncates_it_and_sends_the_others_again() {
    let (_, wire, _) = FRAMED[0];
    let server = Server::start(move |peer| {
        if peer.number > 0 {
            while peer.answer(&common::ok("again")) {}
            return;
        }
        for _ in 0..6 {
            peer.answer(wire.as_bytes());
        }
        peer.answer(&wire.as_bytes()[..wire.len() - 1]);
    });
    let mut bench = Bench::with(|config| {
        config.pipeline_without_trial("*", 8);
        config.max_connections_per_origin = 1;
    });
    for _ in 0..8 {
        bench.submit(server.get("/"));
    }
    bench.replies(8);
    let expected = ["OK", "OK", "OK", "OK", "OK", "OK", "Truncated", "again"];
    assert_eq!(bench.log.texts(), expected);
    bench.assert_empty();
}

#[test]
fn large_bodies_come_whole() {
    let body: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
    let length = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(7001) {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    for wire in [[length.as_bytes(), &body].concat(), chunked] {
        let server = Server::answering(wire);
        let mut bench = Bench::new();
        for i in 0..3 {
            let got = bench.fetch_ok(server.get("/"));
            assert!(got.body == body, "the body differs");
            assert_eq!(got.reused, i > 0);
        }
        bench.assert_empty();
    }
}

#[test]
fn a_body_as_long_as_the_read_buffer_leaves_the_connection_usable() {
    // The read that fills the buffer cannot tell whether it emptied the socket.
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n";
    for len in [
        4096 - head.len() - 1,
        4096 - head.len(),
        4096 - head.len() + 1,
        8192 - head.len(),
    ] {
        let wire = head.replace("4000", &len.to_string()) + &"x".repeat(len);
        let server = Server::answering(wire);
        let mut bench = Bench::with(|c| c.read_buffer = 4096);
        for i in 0..5 {
            let got = bench.fetch_ok(server.get("/"));
            assert_eq!((got.body.len(), got.reused), (len, i > 0));
        }
        bench.assert_empty();
    }
}
