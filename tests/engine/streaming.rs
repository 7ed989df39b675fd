//! Bodies in pieces: streamed, discarded, paused and resumed, aborted.

use crate::common;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use common::{Bench, Gate, Log, Script, Server, facts, ok};
use httpstream::{ErrorKind, Flow, Next, Phase, Request, Sent, Unread};

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\nSum: 6\r\n\r\n";

fn script(head: Flow, data: &[Flow]) -> Script {
    Script {
        head,
        data: VecDeque::from(data.to_vec()),
        ..Script::default()
    }
}

#[test]
fn pieces_come_before_a_reply_without_body_but_with_trailers() {
    let server = Server::answering(CHUNKED);
    let mut bench = Bench::new();
    // Buffer counts as Stream if it is too late to collect the body.
    bench.engine.submit_to(
        server.get("/"),
        script(Flow::Stream, &[Flow::Buffer, Flow::Stream]),
    );
    bench.replies(1);
    assert_eq!(bench.log.notes, ["head 200", "data abc", "data def"]);
    let got = bench.log.replies[0].as_ref().unwrap();
    assert_eq!(
        (got.text(), &got.trailers[..]),
        ("", &[("Sum".to_owned(), b"6".to_vec())][..])
    );
    assert_eq!(bench.stats().links_idle, 1);
    bench.assert_empty();
}

#[test]
fn buffered_is_what_a_head_that_says_nothing_gets() {
    let server = Server::answering(CHUNKED);
    let mut bench = Bench::new();
    bench
        .engine
        .submit_to(server.get("/"), script(Flow::Buffer, &[]));
    bench.replies(1);
    assert_eq!(bench.log.notes, ["head 200"]);
    assert_eq!(bench.log.texts(), ["abcdef"]);
    bench.assert_empty();
}

#[test]
fn discarded_bodies_leave_the_connection_usable() {
    let server = Server::answering(CHUNKED);
    let mut bench = Bench::new();
    for (flow, data, notes) in [
        (Flow::Discard, &[][..], &["head 200"][..]),
        (Flow::Stream, &[Flow::Discard], &["head 200", "data abc"]),
    ] {
        bench.engine.submit_to(server.get("/"), script(flow, data));
        bench.replies(1);
        assert_eq!(bench.log.notes, notes);
        let got = bench.log.replies.pop().unwrap().unwrap();
        assert_eq!((got.text(), got.trailers.len()), ("", 1));
        assert_eq!(bench.stats().links_idle, 1);
        bench.log.notes.clear();
    }
    bench.engine.submit_to(server.get("/"), Unread);
    bench.until("it is over", |engine, _| engine.pending() == 0);
    assert_eq!(bench.stats().opened, 1);
    bench.assert_empty();
}

#[test]
fn aborting_closes_the_connection() {
    let server = Server::answering(CHUNKED);
    for (flow, data) in [
        (Flow::Abort, &[][..]),
        (Flow::Stream, &[Flow::Abort]),
        (Flow::Stream, &[Flow::Stream, Flow::Abort]),
    ] {
        let mut bench = Bench::new();
        bench.engine.submit_to(server.get("/"), script(flow, data));
        bench.replies(1);
        let error = bench.log.replies.pop().unwrap().unwrap_err();
        assert_eq!(facts(&error), (ErrorKind::Aborted, Phase::Body, Sent::Yes));
        assert_eq!(error.status().map(|s| s.as_u16()), Some(200));
        assert_eq!(bench.stats().links_open, 0);
        assert_eq!(bench.log.notes.len(), 1 + data.len());
        bench.assert_empty();
    }
}

#[test]
fn a_pause_holds_back_each_piece_until_it_is_resumed() {
    let server = Server::answering(CHUNKED);
    let mut bench = Bench::new();
    let id = bench.engine.submit_to(
        server.get("/"),
        script(Flow::Pause, &[Flow::Pause, Flow::Pause]),
    );
    for (seen, notes) in [(1, "head 200"), (2, "data abc"), (3, "data def")] {
        bench.until("it is paused", |engine, _| engine.stats().paused == 1);
        bench.quiet();
        assert_eq!(
            (
                bench.log.notes.len(),
                bench.log.notes.last().unwrap().as_str()
            ),
            (seen, notes)
        );
        assert!(
            bench.log.replies.is_empty(),
            "paused, though everything has arrived"
        );
        assert!(bench.engine.resume(id));
        assert!(bench.engine.next_timeout().unwrap().is_zero());
        bench.until("it goes on", |engine, log| {
            engine.stats().paused == 0 || log.notes.len() > seen
        });
    }
    bench.replies(1);
    assert_eq!(bench.log.replies[0].as_ref().unwrap().trailers.len(), 1);
    assert!(!bench.engine.resume(id));
    assert_eq!(bench.stats().links_idle, 1);
    bench.assert_empty();
}

#[test]
fn a_pause_before_an_empty_body_holds_back_the_reply() {
    for wire in [
        &ok("")[..],
        b"HTTP/1.1 204 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let server = Server::answering(wire.to_vec());
        let mut bench = Bench::new();
        let id = bench
            .engine
            .submit_to(server.get("/"), script(Flow::Pause, &[]));
        bench.until("it is paused", |engine, _| engine.stats().paused == 1);
        bench.quiet();
        assert!(bench.log.replies.is_empty());
        assert!(bench.engine.resume(id));
        bench.replies(1);
        assert!(bench.log.replies[0].is_ok());
        assert_eq!(bench.stats().links_idle, 1);
        bench.assert_empty();
    }
}

#[test]
fn a_pause_in_a_body_that_ends_with_its_connection() {
    let server = Server::once("HTTP/1.1 200 OK\r\n\r\nabc");
    let mut bench = Bench::new();
    let id = bench
        .engine
        .submit_to(server.get("/"), script(Flow::Stream, &[Flow::Pause]));
    bench.until("it is paused", |engine, _| engine.stats().paused == 1);
    std::thread::sleep(Duration::from_millis(20));
    bench.quiet();
    assert!(bench.log.replies.is_empty());
    bench.engine.resume(id);
    bench.replies(1);
    assert!(bench.log.replies[0].is_ok());
    bench.assert_empty();
}

#[test]
fn a_paused_response_that_is_cut_short_says_so_after_its_pieces() {
    let server = Server::once("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
    let mut bench = Bench::new();
    let id = bench
        .engine
        .submit_to(server.get("/"), script(Flow::Pause, &[]));
    bench.until("it is paused", |engine, _| engine.stats().paused == 1);
    bench.quiet();
    bench.engine.resume(id);
    bench.replies(1);
    assert_eq!(bench.log.notes, ["head 200", "data abc"]);
    assert_eq!(bench.log.kinds(), [ErrorKind::Truncated]);
    bench.assert_empty();
}

#[test]
fn resumed_from_a_readback_and_from_another_thread() {
    let server = Server::answering(CHUNKED);
    let mut bench = Bench::new();
    let id = bench
        .engine
        .submit_to(server.get("/"), script(Flow::Pause, &[Flow::Pause]));
    bench.until("it is paused", |engine, _| engine.stats().paused == 1);
    bench.engine.submit(
        server.get("/"),
        move |log: &mut Log, _: httpstream::Reply<'_>, cx| {
            log.notes.push(format!("resume {}", cx.resume(id)));
            Next::done()
        },
    );
    bench.until("a piece", |engine, log| {
        engine.stats().paused == 1 && log.notes.len() == 3
    });
    let submitter = bench.engine.submitter();
    std::thread::spawn(move || submitter.resume(id).unwrap())
        .join()
        .unwrap();
    bench.replies(1);
    assert_eq!(bench.log.notes, ["head 200", "resume true", "data abcdef"]);
    bench.assert_empty();
}

#[test]
fn while_paused_nothing_is_read() {
    const LEN: usize = 64 << 20;
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&sent);
    let server = Server::start(move |peer| {
        peer.request();
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n").as_bytes());
        let piece = vec![b'x'; 1 << 16];
        for _ in 0..LEN >> 16 {
            if !peer.send(&piece) {
                return;
            }
            count.fetch_add(piece.len(), std::sync::atomic::Ordering::Relaxed);
        }
        peer.hold();
    });
    let mut bench = Bench::new();
    let id = bench
        .engine
        .submit_to(server.get("/"), script(Flow::Stream, &[Flow::Pause]));
    bench.until("it is paused", |engine, _| engine.stats().paused == 1);
    let read = bench.stats().bytes_in;
    // The server fills the sockets' buffers in the meantime.
    let end = Instant::now() + Duration::from_millis(100);
    bench.until("a while", |_, _| Instant::now() > end);
    assert_eq!(
        bench.stats().bytes_in,
        read,
        "the engine reads while paused"
    );
    assert!(read <= 1 << 20 && sent.load(std::sync::atomic::Ordering::Relaxed) < LEN);
    bench.engine.resume(id);
    bench.until("all of it", |_, log| log.replies.len() == 1);
    let bytes: usize = bench
        .log
        .notes
        .iter()
        .filter_map(|n| n.strip_prefix("data "))
        .map(str::len)
        .sum();
    assert_eq!(bytes, LEN);
    bench.assert_empty();
}

#[test]
fn the_idle_deadline_stands_still_in_a_pause_and_the_total_does_not() {
    let server = Server::start(|peer| {
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
        peer.hold();
    });
    let mut bench = Bench::new();
    let get = Request::get(server.url("/")).timeouts(|t| t.idle = Some(Duration::from_millis(20)));
    let id = bench
        .engine
        .submit_to(get.build().unwrap(), script(Flow::Pause, &[]));
    let end = Instant::now() + Duration::from_millis(100);
    bench.until("a while", |_, _| Instant::now() > end);
    assert_eq!(bench.stats().paused, 1);
    bench.engine.resume(id);
    bench.replies(1);
    assert_eq!(bench.log.kinds(), [ErrorKind::Timeout]);
    bench.log.replies.clear();

    let get = Request::get(server.url("/")).timeout(Duration::from_millis(80));
    bench
        .engine
        .submit_to(get.build().unwrap(), script(Flow::Pause, &[]));
    bench.replies(1);
    assert_eq!(bench.log.kinds(), [ErrorKind::Timeout]);
    bench.assert_empty();
}

#[test]
fn one_fast_download_starves_no_neighbour() {
    const LEN: usize = 64 << 20;
    let gate = Gate::new();
    let fast = Server::start(|peer| {
        peer.request();
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n").as_bytes());
        let piece = vec![b'x'; 1 << 20];
        while peer.send(&piece) {}
    });
    let other = Server::answering(ok("a"));
    let mut bench = Bench::new();
    let id = bench.engine.submit_to(fast.get("/"), Unread);
    bench.until("it runs", |engine, _| engine.stats().bytes_in > 1 << 20);
    for _ in 0..10 {
        bench.fetch_ok(other.get("/"));
    }
    assert!(bench.stats().bytes_in < LEN as u64 * 2);
    bench.engine.cancel(id);
    bench.until("it is over", |engine, _| engine.pending() == 0);
    gate.open(1);
    bench.assert_empty();
}
