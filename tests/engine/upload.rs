//! Requests with bodies: answered early, held back by `Expect: 100-continue`, cut off by the
//! server.

use crate::common;

use std::time::{Duration, Instant};

use common::{Bench, Gate, Script, Server, facts, ok};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Engine, ErrorKind, Next, Phase, Request, Sent, Sim};

/// More than socket buffers hold.
const LARGE: usize = 32 << 20;

fn expecting(server: &Server, body: &str) -> Request {
    let post = Request::post(server.url("/")).header("Expect", "100-continue");
    post.body(body).build().unwrap()
}

#[test]
fn a_large_body_arrives_byte_for_byte() {
    let body: Vec<u8> = (0..LARGE as u32 / 4).map(|i| (i / 5) as u8).collect();
    let server = Server::start(|peer| while peer.answer(&ok("thanks")) {});
    let mut bench = Bench::new();
    let request = server.post("/", body.clone());
    for i in 0..2 {
        let got = bench.fetch_ok(request.clone());
        assert_eq!((got.text(), got.reused), ("thanks", i > 0));
        assert!(server.next().body == body);
    }
    bench.assert_empty();
}

#[test]
fn a_refusal_stops_the_upload_and_is_delivered() {
    for wire in [
        "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig",
        "HTTP/1.1 503 x\r\nContent-Length: 3\r\n\r\nbig",
    ] {
        let (delivered, taken) = (Gate::new(), Gate::new());
        let (at, closed) = (delivered.clone(), taken.clone());
        let server = Server::start(move |peer| {
            let head = peer.head().unwrap();
            peer.tell(head, Vec::new());
            peer.send(wire.as_bytes());
            // Reads nothing before, or the client could have written everything by then.
            at.pass();
            // The client has closed without sending everything.
            assert!(peer.hold().len() < LARGE);
            closed.open(1);
        });
        let mut bench = Bench::new();
        let got = bench.fetch_ok(server.post("/", vec![b'x'; LARGE]));
        assert_eq!(got.text(), "big");
        assert_eq!(bench.stats().links_open, 0);
        delivered.open(1);
        taken.pass();
        bench.assert_empty();
    }
}

#[test]
fn a_refusal_in_pieces_stops_the_upload_at_its_head() {
    let gate = Gate::new();
    let at = gate.clone();
    let server = Server::start(move |peer| {
        peer.head();
        peer.send(b"HTTP/1.1 400 x\r\nContent-Length: 6\r\n\r\nabc");
        at.pass();
        peer.send(b"def");
        peer.hold();
    });
    let mut bench = Bench::new();
    bench
        .engine
        .submit_to(server.post("/", vec![b'x'; LARGE]), Script::default());
    bench.until("the first half", |_, log| {
        log.notes.last().is_some_and(|n| n == "data abc")
    });
    let sent = bench.stats().bytes_out;
    bench.quiet();
    assert_eq!(bench.stats().bytes_out, sent, "the upload has stopped");
    gate.open(1);
    bench.replies(1);
    assert!(bench.log.replies[0].is_ok());
    bench.assert_empty();
}

#[test]
fn an_early_success_lets_the_upload_go_on_while_it_is_read() {
    let gate = Gate::new();
    let at = gate.clone();
    let server = Server::start(move |peer| {
        peer.head();
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na");
        assert_eq!(peer.body(LARGE).len(), LARGE);
        at.pass();
        peer.send(b"b");
        peer.hold();
    });
    let mut bench = Bench::new();
    bench.submit(server.post("/", vec![b'x'; LARGE]));
    bench.until("all is written", |engine, _| {
        engine.stats().bytes_out > LARGE as u64
    });
    gate.open(1);
    bench.replies(1);
    assert_eq!(bench.log.texts(), ["ab"]);
    assert_eq!(
        bench.stats().links_open,
        0,
        "a connection that was answered early is not reused"
    );
    bench.assert_empty();
}

#[test]
fn a_reset_behind_a_response_does_not_lose_the_response() {
    let server = Server::start(|peer| {
        peer.head();
        peer.body(1 << 20);
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig");
        // Unread data makes this a reset.
        peer.close();
    });
    let mut bench = Bench::new();
    for _ in 0..10 {
        let got = bench.fetch_ok(server.post("/", vec![b'x'; LARGE]));
        assert_eq!((got.status, got.text()), (413, "big"));
    }
    bench.assert_empty();
}

#[test]
fn a_reset_during_the_upload_may_have_been_too_late() {
    let server = Server::start(|peer| {
        peer.head();
        peer.body(1000);
        peer.reset();
    });
    let mut bench = Bench::new();
    let error = bench.fetch_err(server.post("/", vec![b'x'; LARGE]));
    assert_eq!(
        facts(&error),
        (ErrorKind::ClosedBeforeResponse, Phase::Write, Sent::Maybe)
    );
    assert!(!error.resend_is_safe());
    bench.assert_empty();
}

#[test]
fn an_end_of_file_during_the_upload_ends_it() {
    let server = Server::start(|peer| {
        peer.head();
        peer.half_close();
        peer.hold();
    });
    let mut bench = Bench::new();
    let error = bench.fetch_err(server.post("/", vec![b'x'; LARGE]));
    assert_eq!(
        facts(&error),
        (ErrorKind::ClosedBeforeResponse, Phase::Write, Sent::Maybe)
    );
    bench.assert_empty();
}

#[test]
fn a_body_follows_100_continue() {
    let server = Server::start(|peer| {
        while let Some(head) = peer.head() {
            assert!(peer.unread().is_empty(), "the body is sent too early");
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\n");
            let body = peer.body(5);
            peer.tell(head, body);
            peer.send(&ok("thanks"));
        }
    });
    let mut bench = Bench::new();
    let before = Instant::now();
    for i in 0..3 {
        let got = bench.fetch_ok(expecting(&server, "hello"));
        assert_eq!((got.text(), got.attempts, got.reused), ("thanks", 1, i > 0));
        let seen = server.next();
        assert!(
            seen.head.contains("Expect: 100-continue\r\n")
                && seen.head.contains("Content-Length: 5\r\n")
        );
        assert_eq!(seen.body, b"hello");
    }
    assert!(before.elapsed() < Duration::from_secs(15));
    bench.assert_empty();
}

#[test]
fn a_final_status_instead_of_100_keeps_the_body_back() {
    for status in [200, 401] {
        let gate = Gate::new();
        let told = gate.clone();
        let server = Server::start(move |peer| {
            peer.head();
            peer.send(format!("HTTP/1.1 {status} x\r\nContent-Length: 1\r\n\r\na").as_bytes());
            assert_eq!(peer.hold(), b"", "a part of the body was sent");
            told.open(1);
        });
        let mut bench = Bench::new();
        let got = bench.fetch_ok(expecting(&server, "hello"));
        assert_eq!((got.status, got.text()), (status, "a"));
        assert_eq!(bench.stats().links_open, 0);
        gate.pass();
        bench.assert_empty();
    }
}

#[test]
fn a_final_status_that_stalls_keeps_the_body_back_and_times_out_in_its_own_time() {
    let server = Server::start(|peer| {
        peer.head();
        peer.send(b"HTTP/1.1 401 x\r\nContent-Length: 9\r\n\r\na");
        peer.hold();
    });
    let mut bench = Bench::new();
    let post = Request::post(server.url("/"))
        .header("Expect", "100-continue")
        .body("hello");
    let before = Instant::now();
    let error = bench.fetch_err(
        post.timeouts(|t| t.idle = Some(Duration::from_millis(100)))
            .build()
            .unwrap(),
    );
    assert_eq!(facts(&error), (ErrorKind::Timeout, Phase::Body, Sent::Yes));
    assert!(
        before.elapsed() < Duration::from_secs(15),
        "the write deadline of 30 s does not apply"
    );
    bench.assert_empty();
}

#[test]
fn silence_lets_the_body_go_after_a_second() {
    let server = Server::start(|peer| {
        peer.answer(&ok("thanks"));
    });
    let mut bench = Bench::new();
    let before = Instant::now();
    let got = bench.fetch_ok(expecting(&server, "hello"));
    assert_eq!((got.text(), got.attempts), ("thanks", 1));
    assert!(before.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.next().body, b"hello");
    bench.assert_empty();
}

#[test]
fn an_interim_response_other_than_100_does_not_make_the_wait_longer() {
    let server = Server::start(|peer| {
        let head = peer.head().unwrap();
        peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n");
        let body = peer.body(5);
        peer.tell(head, body);
        peer.send(&ok("thanks"));
    });
    let mut bench = Bench::new();
    let before = Instant::now();
    assert_eq!(bench.fetch_ok(expecting(&server, "hello")).text(), "thanks");
    assert!(
        before.elapsed() >= Duration::from_secs(1) && before.elapsed() < Duration::from_secs(15)
    );
    bench.assert_empty();
}

#[test]
fn the_deadlines_before_the_body_hold_for_a_request_that_expects_100_too() {
    // The backlog is full, so the connection is never established.
    let (addr, _kept) = common::unresponsive_listener();
    let mut bench = Bench::new();
    let post = Request::post(format!("http://{addr}/"))
        .header("Expect", "100-continue")
        .body("hello");
    let before = Instant::now();
    let error = bench.fetch_err(
        post.timeouts(|t| t.connect = Some(Duration::from_millis(100)))
            .build()
            .unwrap(),
    );
    assert_eq!(
        facts(&error),
        (ErrorKind::Timeout, Phase::Connect, Sent::No)
    );
    assert!(
        before.elapsed() < Duration::from_secs(15),
        "the write deadline of 30 s is not added"
    );
    bench.assert_empty();
}

#[test]
fn the_total_deadline_holds_while_the_body_is_held_back() {
    let server = Server::start(|peer| drop(peer.hold()));
    let mut bench = Bench::new();
    let post = Request::post(server.url("/"))
        .header("Expect", "100-continue")
        .body("hello");
    let error = bench.fetch_err(post.timeout(Duration::from_millis(100)).build().unwrap());
    assert_eq!(
        facts(&error),
        (ErrorKind::Timeout, Phase::Write, Sent::Maybe)
    );
    bench.assert_empty();
}

#[test]
fn refused_expectations_are_left_out_and_the_request_is_sent_again() {
    let server = Server::start(|peer| {
        if peer.number == 0 {
            let head = peer.head().unwrap();
            peer.tell(head, Vec::new());
            peer.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(peer.hold(), b"");
        } else {
            peer.answer(&ok("thanks"));
        }
    });
    let mut bench = Bench::new();
    let got = bench.fetch_ok(expecting(&server, "hello"));
    assert_eq!((got.text(), got.attempts, got.reused), ("thanks", 2, false));
    assert!(server.next().head.contains("Expect"));
    let second = server.next();
    assert!(!second.head.contains("Expect"), "{}", second.head);
    assert_eq!(second.body, b"hello");
    bench.assert_empty();
}

#[test]
fn a_second_417_is_an_answer() {
    let refusal = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n";
    let server = Server::start(|peer| {
        if peer.number == 0 {
            peer.head().unwrap();
            peer.send(refusal);
            assert_eq!(peer.hold(), b"");
        } else {
            peer.answer(refusal);
        }
    });
    let mut bench = Bench::new();
    let got = bench.fetch_ok(expecting(&server, "hello"));
    assert_eq!((got.status, got.attempts), (417, 2));
    bench.assert_empty();
}

#[test]
fn a_417_behind_the_whole_body_is_an_answer() {
    // The server reads the whole request before it answers: the body comes after a second of
    // silence.
    let server = Server::answering("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
    let mut bench = Bench::new();
    let got = bench.fetch_ok(expecting(&server, "hello"));
    assert_eq!((got.status, got.attempts), (417, 1));
    assert_eq!(server.next().body, b"hello");
    bench.assert_empty();
}

#[test]
fn cancelling_an_upload_closes_its_connection() {
    // Only the second one lets the server read, so that the upload cannot end before.
    let (gate, reading) = (Gate::new(), Gate::new());
    let (told, may_read) = (gate.clone(), reading.clone());
    let server = Server::start(move |peer| {
        let head = peer.head().unwrap();
        peer.tell(head, Vec::new());
        may_read.pass();
        assert!(peer.hold().len() < LARGE);
        told.open(1);
    });
    let mut bench = Bench::new();
    let id = bench.submit(server.post("/", vec![b'x'; LARGE]));
    bench.until("some is written", |engine, _| {
        engine.stats().bytes_out > 1 << 16
    });
    assert!(bench.engine.cancel(id));
    bench.replies(1);
    let error = bench.log.replies.pop().unwrap().unwrap_err();
    assert_eq!(
        facts(&error),
        (ErrorKind::Cancelled, Phase::Write, Sent::Maybe)
    );
    reading.open(1);
    gate.pass();
    bench.assert_empty();
}

#[test]
fn the_wait_for_a_100_can_be_chosen() {
    for wait in [20, 5000] {
        let network = Network::new(1);
        let answer = move |request: &Incoming| {
            let waited = Duration::from_millis(wait);
            assert!((waited..waited + Duration::from_millis(10)).contains(&request.at));
            Answer::ok(request.body())
        };
        let _ = network.serve("10.0.0.1:80".parse().unwrap(), answer);
        let mut engine = Engine::<Vec<u8>, Sim>::on_network(&network, Config::default()).unwrap();
        let post = Request::post("http://10.0.0.1/").body("hello");
        let post = post.expect_continue(Duration::from_millis(wait));
        let mut got = Vec::new();
        engine.submit(post.build().unwrap(), |got: &mut Vec<u8>, reply, _| {
            got.extend_from_slice(reply.unwrap().body());
            Next::done()
        });
        engine.run(&mut got).unwrap();
        assert_eq!(got, b"hello");
    }
    let none = Request::get("http://10.0.0.1/").expect_continue(Duration::MAX);
    assert_eq!(none.build().unwrap().header("Expect"), None);
}
