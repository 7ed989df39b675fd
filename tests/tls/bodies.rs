//! Bodies in both directions, of all sizes, in all kinds of pieces.

use std::time::Duration;

use httpstream::{ErrorKind, Flow, Phase, Request};

use crate::common::{Gate, Log, Script, ok};
use crate::peer::{Pieces, TlsPeer, VERSIONS, World};
use crate::servers::Random;

/// Sizes around that of a record, and some that take many records.
pub(crate) const SIZES: [usize; 7] = [
    0,
    1,
    (16 << 10) - 1,
    16 << 10,
    (16 << 10) + 1,
    1 << 20,
    20 << 20,
];

/// Returns the body of this size, always the same.
pub(crate) fn body_of(size: usize) -> Vec<u8> {
    Random(0x9e37_79b9_7f4a_7c15 ^ size as u64).bytes(size)
}

#[track_caller]
pub(crate) fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    // Does not print the whole body.
    let differs = || found.iter().zip(expected).position(|(a, b)| a != b);
    assert!(found == expected, "{what}: differs at {:?}", differs());
}

/// Encodes a body in chunks of all sizes up to several records.
fn chunked(body: &[u8]) -> Vec<u8> {
    let mut wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let (mut rest, mut size) = (body, 1);
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(size.min(rest.len()));
        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
        (rest, size) = (behind, size * 3 % 70_000 + 1);
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

fn sized(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn bodies_of_all_sizes_come_as_they_were_sent() {
    for version in VERSIONS {
        let world = World::speaking(version, |peer| {
            while let Some((path, _)) = peer.request() {
                let (kind, size) = path[1..].split_once('/').unwrap();
                let body = body_of(size.parse().unwrap());
                let wire = match kind {
                    "sized" => sized(&body),
                    _ => chunked(&body),
                };
                if !peer.send(&wire) {
                    return;
                }
            }
        });
        let mut bench = world.bench();
        for kind in ["sized", "chunked"] {
            for size in SIZES {
                let path = format!("/{kind}/{size}");
                let request = world.at(&path).limits(|l| l.max_body_bytes = 32 << 20);
                let got = bench.fetch_ok(request.build().unwrap());
                assert_same(&got.body, &body_of(size), &path);
            }
        }
        assert_eq!(bench.stats().opened, 1, "all use one connection");
        bench.assert_empty();
    }
}

#[test]
fn bodies_of_all_sizes_arrive_as_they_are_sent() {
    for version in VERSIONS {
        let world = World::speaking(version, |peer| {
            while let Some((_, body)) = peer.request() {
                let size = body.len();
                let verdict = match body == body_of(size) {
                    true => "as it was sent",
                    false => "changed",
                };
                peer.send(&ok(&format!("{size} {verdict}")));
            }
        });
        let mut bench = world.bench();
        for size in &SIZES[..6] {
            let got = bench.fetch_ok(world.post("/", body_of(*size)));
            assert_eq!(got.text(), format!("{size} as it was sent"));
        }
        assert_eq!(bench.stats().opened, 1);
        bench.assert_empty();
    }
}

#[test]
fn a_server_may_be_heard_byte_by_byte() {
    for version in VERSIONS {
        let world = World::with(
            &[version],
            |_| (),
            Pieces::Bytes,
            |peer| {
                while peer.answer(&ok(&"x".repeat(500))) {}
            },
        );
        let mut bench = world.bench();
        for _ in 0..3 {
            let got = bench.fetch_ok(world.get("/"));
            assert_eq!(got.text(), "x".repeat(500));
        }
        assert_eq!(bench.stats().opened, 1);
        bench.assert_empty();
    }
}

#[test]
fn a_server_may_send_each_byte_in_a_record_of_its_own() {
    let world = World::new(|peer| {
        while peer.request().is_some() {
            let plaintext = chunked(b"record by record");
            let wires: Vec<_> = plaintext.chunks(1).map(|byte| peer.seal(byte)).collect();
            // All at once, in pieces that do not end where records end.
            let wire = wires.concat();
            for piece in wire.chunks(wire.len() / 7) {
                peer.send_raw(piece);
            }
        }
    });
    let mut bench = world.bench();
    for _ in 0..10 {
        assert_eq!(bench.fetch_ok(world.get("/")).text(), "record by record");
    }
    assert_eq!(bench.stats().opened, 1);
    bench.assert_empty();
}

/// Reads a little at intervals.
fn read_slowly(peer: &mut TlsPeer<'_>, len: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(len);
    while body.len() < len {
        let some = (len - body.len()).min(40 << 10);
        let piece = peer.body(some);
        if piece.is_empty() {
            break;
        }
        body.extend(piece);
        std::thread::sleep(Duration::from_millis(2));
    }
    body
}

/// Buffers so small that ciphertext almost always waits in the session.
fn small_buffers(config: &mut httpstream::Config) {
    config.route.send_buffer = Some(4096);
}

#[test]
fn an_upload_waits_for_a_server_that_reads_slowly() {
    const SIZE: usize = 1 << 20;
    for version in VERSIONS {
        let world = World::speaking(version, |peer| {
            while let Some(head) = peer.head() {
                let body = read_slowly(peer, SIZE);
                let same = body == body_of(SIZE);
                peer.tcp.tell(head, Vec::new());
                peer.send(&ok(&same.to_string()));
            }
        });
        let mut bench = crate::common::Bench::with(|config| {
            small_buffers(config);
            config.route.tls = world.authority.tls();
        });
        for _ in 0..2 {
            let got = bench.fetch_ok(world.post("/", body_of(SIZE)));
            assert_eq!(got.text(), "true");
        }
        assert_eq!(bench.stats().opened, 1);
        bench.assert_empty();
    }
}

#[test]
fn an_upload_that_is_not_read_ends_at_its_deadline() {
    let gate = Gate::new();
    let at = gate.clone();
    let world = World::new(move |peer| {
        peer.head();
        at.pass();
    });
    let mut bench = world.bench();
    let post = Request::post(world.url("/"))
        .body(vec![0; 32 << 20])
        .timeouts(|t| t.write = Some(Duration::from_millis(50)));
    let error = bench.fetch_err(post.build().unwrap());
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Timeout, Phase::Write)
    );
    assert!(
        format!("{error:#}").contains("timeout of 50ms"),
        "{error:#}"
    );
    assert!(!error.resend_is_safe());
    gate.open(1);
    bench.assert_empty();
}

#[test]
fn an_answer_before_the_end_of_an_upload_is_heard() {
    type Row = (&'static str, fn(&mut TlsPeer<'_>) -> Vec<u8>);
    let endings: &[Row] = &[
        ("nothing", |_| Vec::new()),
        ("close_notify", |peer| peer.close_notify()),
        ("garbage", |_| {
            b"\x17\x03\x03\x00\x20nothing that these keys can open".to_vec()
        }),
    ];
    for (why, end) in endings {
        let end = *end;
        let world = World::new(move |peer| {
            peer.head();
            peer.body(100_000);
            let refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
            let mut wire = peer.seal(refusal);
            wire.extend(end(peer));
            peer.send_raw(&wire);
            // Keeps reading, so that no reset overtakes the answer.
            peer.tcp.hold();
        });
        let mut bench = world.bench();
        let got = bench.fetch_ok(world.post("/", vec![7; 32 << 20]));
        assert_eq!((got.status, got.text()), (413, "big"), "{why}");
        bench.assert_empty();
    }
}

#[test]
fn an_answer_before_the_upload_hears_of_a_reset_is_heard() {
    let world = World::new(|peer| {
        peer.head();
        peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
        // Unread data turns this close into a reset.
    });
    let mut bench = world.bench();
    for _ in 0..20 {
        let got = bench.fetch(world.post("/", vec![7; 8 << 20]));
        match got {
            Ok(got) => assert_eq!((got.status, got.text()), (413, "big")),
            // The kernel may discard the answer with the connection; then the error must say so.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ClosedBeforeResponse, "{error:#}"),
        }
    }
    bench.assert_empty();
}

#[test]
fn a_body_waits_for_100_continue() {
    for interim in [&b"HTTP/1.1 100 Continue\r\n\r\n"[..], b""] {
        let world = World::new(move |peer| {
            while let Some(head) = peer.head() {
                assert!(head.contains("Expect: 100-continue\r\n"), "{head}");
                peer.send(interim);
                let body = peer.body(5);
                peer.tcp.tell(head, body.clone());
                peer.send(&ok(std::str::from_utf8(&body).unwrap()));
            }
        });
        let mut bench = world.bench();
        for _ in 0..2 {
            let post = Request::post(world.url("/")).header("Expect", "100-continue");
            let got = bench.fetch_ok(post.body("hello").build().unwrap());
            assert_eq!(got.text(), "hello");
        }
        assert_eq!(bench.stats().opened, 1);
        bench.assert_empty();
    }
}

#[test]
fn a_stream_is_paused_and_goes_on() {
    const SIZE: usize = 1 << 20;
    let world = World::new(|peer| {
        while peer.request().is_some() {
            peer.send(&sized(&body_of(SIZE)));
        }
    });
    let mut bench = world.bench();
    let script = || Script {
        head: Flow::Pause,
        data: [Flow::Pause; 40].into(),
        ..Script::default()
    };
    for _ in 0..2 {
        bench.log = Log::default();
        let id = bench.engine.submit_to(world.get("/"), script());
        let mut pauses = 0;
        while bench.log.replies.is_empty() {
            bench.until("a pause or the end", |engine, log| {
                engine.stats().paused == 1 || !log.replies.is_empty()
            });
            pauses += usize::from(bench.engine.resume(id));
            // Resumed in a turn.
            bench.quiet();
        }
        assert!(pauses > 8, "only {pauses} pauses between records");
        assert!(bench.log.replies[0].is_ok());
    }
    assert_eq!(bench.stats().opened, 1);
    bench.assert_empty();
}

#[test]
fn a_thousand_follow_ons_share_a_connection() {
    for version in VERSIONS {
        let world = World::speaking(version, |peer| while peer.answer(&ok("a")) {});
        let mut bench = world.bench();
        bench.engine.submit(world.get("/"), |log, reply, cx| {
            let _ = crate::common::note(log, reply, cx);
            match log.replies.len() {
                1000 => cx.done(),
                _ => cx.again(),
            }
        });
        bench.replies(1000);
        assert!(bench.log.texts().iter().all(|text| text == "a"));
        let stats = bench.stats();
        assert_eq!((stats.opened, stats.reused, stats.retried), (1, 999, 0));
        bench.assert_empty();
    }
}

#[test]
fn a_server_that_closes_is_connected_to_anew() {
    let world = World::new(|peer| {
        peer.answer(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na");
        peer.hold();
    });
    let mut bench = world.bench();
    for opened in 1..5 {
        assert_eq!(bench.fetch_ok(world.get("/")).text(), "a");
        assert_eq!(
            (bench.stats().opened, bench.stats().links_open),
            (opened, 0)
        );
    }
    bench.assert_empty();
}
