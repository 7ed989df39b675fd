//! Bodies that are read from sources while they are sent: framing, waits, ends of all kinds.

use crate::common;

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use common::{Bench, Server, ok};
use httpstream::policy::Fields;
use httpstream::session::Auth;
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    BodySource, Config, Engine, Error, ErrorKind, Next, Phase, Request, RequestBuilder, Sent,
    Session, Sim, Supply, body,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
enum Step {
    Bytes(&'static str),
    /// As many bytes as there is room for, `x` each.
    Fill(usize),
    Wait,
    Fail,
    Panic,
    /// Says this many bytes, and writes none.
    Say(usize),
}

/// Does these steps, and then ends.
#[derive(Clone)]
struct Steps {
    size: Option<u64>,
    steps: VecDeque<Step>,
    trailers: Vec<(&'static str, &'static str)>,
    waker: Arc<Mutex<Option<Waker>>>,
    reads: Arc<AtomicUsize>,
}

fn steps(size: impl Into<Option<u64>>, steps: impl Into<VecDeque<Step>>) -> Steps {
    Steps {
        size: size.into(),
        steps: steps.into(),
        trailers: Vec::new(),
        waker: Arc::default(),
        reads: Arc::default(),
    }
}

impl BodySource for Steps {
    fn size(&self) -> Option<u64> {
        self.size
    }

    fn read(&mut self, room: &mut [u8], waker: &Waker) -> io::Result<Supply> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        assert!(!room.is_empty());
        Ok(match self.steps.pop_front() {
            None => Supply::End,
            Some(Step::Bytes(text)) => {
                room[..text.len()].copy_from_slice(text.as_bytes());
                Supply::Bytes(text.len())
            }
            Some(Step::Fill(most)) => {
                let n = most.min(room.len());
                room[..n].fill(b'x');
                if n < most {
                    self.steps.push_front(Step::Fill(most - n));
                }
                Supply::Bytes(n)
            }
            Some(Step::Wait) => {
                *self.waker.lock().unwrap() = Some(waker.clone());
                Supply::Wait
            }
            Some(Step::Fail) => return Err(io::Error::other("the disk is on fire")),
            Some(Step::Panic) => panic!("a source panics"),
            Some(Step::Say(n)) => Supply::Bytes(n),
        })
    }

    fn trailers(&mut self, fields: &mut Fields<'_>) -> io::Result<()> {
        for (name, value) in &self.trailers {
            fields.add(name, value).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

type Ends = Vec<Result<(u16, String), Error>>;
type Sims = Engine<Ends, Sim>;

fn serve(answer: impl FnMut(&Incoming) -> Answer + 'static) -> Network {
    let network = Network::new(1);
    let _ = network.serve("10.0.0.1:80".parse().unwrap(), answer);
    network
}

fn engine(network: &Network) -> Sims {
    let mut config = Config::default();
    config.timeouts.write = Some(SECOND);
    Engine::on_network(network, config).unwrap()
}

fn submit(engine: &mut Sims, request: &Request) {
    engine.submit(request.clone(), |ends: &mut Ends, reply, _| {
        ends.push(reply.map(|it| (it.status().as_u16(), it.text().unwrap().into())));
        Next::done()
    });
}

fn run(engine: &mut Sims, request: &Request) -> Result<(u16, String), Error> {
    submit(engine, request);
    let mut ends = Ends::new();
    engine.run(&mut ends).unwrap();
    assert_eq!(ends.len(), 1);
    ends.pop().unwrap()
}

fn put(path: &str) -> RequestBuilder {
    Request::put(format!("http://10.0.0.1{path}"))
}

/// Describes how a request arrived.
fn described(request: &Incoming) -> String {
    let field = |name| {
        request
            .header(name)
            .map(|it| String::from_utf8_lossy(it).into_owned())
    };
    let body = match request.body().len() {
        0..100 => String::from_utf8_lossy(request.body()).into_owned(),
        long => format!("{long} bytes"),
    };
    format!(
        "{:?} {:?} {body:?} {}",
        field("content-length"),
        field("transfer-encoding"),
        request.trailers.len()
    )
}

fn told(request: &Incoming) -> Answer {
    Answer::ok(described(request))
}

#[test]
fn a_known_length_is_sent_and_an_unknown_one_is_chunked() {
    use Step::{Bytes, Fill};
    let network = serve(told);
    let mut engine = engine(&network);
    let chunked = "None Some(\"chunked\")";
    let rows = [
        (
            steps(5, [Bytes("hello")]),
            "Some(\"5\") None \"hello\" 0".to_owned(),
        ),
        (
            steps(5, [Bytes("he"), Bytes("llo")]),
            "Some(\"5\") None \"hello\" 0".into(),
        ),
        (steps(0, []), "Some(\"0\") None \"\" 0".into()),
        (steps(None, []), format!("{chunked} \"\" 0")),
        (
            steps(None, [Bytes("he"), Bytes("llo")]),
            format!("{chunked} \"hello\" 0"),
        ),
        (
            steps(300_000, [Fill(300_000)]),
            "Some(\"300000\") None \"300000 bytes\" 0".into(),
        ),
        (
            steps(None, [Fill(300_000)]),
            format!("{chunked} \"300000 bytes\" 0"),
        ),
        (
            steps(None, vec![Bytes("a"); 5000]),
            format!("{chunked} \"5000 bytes\" 0"),
        ),
        (
            steps(65536, [Fill(65536)]),
            "Some(\"65536\") None \"65536 bytes\" 0".into(),
        ),
    ];
    for (source, expected) in rows {
        let request = put("/")
            .body_with(move || Ok(source.clone()))
            .build()
            .unwrap();
        assert!(request.body().is_none() && request.is_repeatable());
        for _ in 0..2 {
            assert_eq!(run(&mut engine, &request).unwrap(), (200, expected.clone()));
        }
        let same = request.edit().build().unwrap();
        assert_eq!(run(&mut engine, &same).unwrap().1, expected, "edited");
    }
    assert!(network.misuses().is_empty());
    // All on the same connection: what follows a body is read as the next request.
    assert_eq!(engine.stats().opened, 1);
}

#[test]
fn trailers_follow_a_chunked_body() {
    let network = serve(|request| {
        assert_eq!(request.trailers, [("X-Sum".to_owned(), b"15".to_vec())]);
        told(request)
    });
    let mut engine = engine(&network);
    let mut source = steps(None, [Step::Bytes("12345")]);
    source.trailers.push(("X-Sum", "15"));
    let request = put("/").body_from(source).build().unwrap();
    assert!(run(&mut engine, &request).is_ok());
    for bad in ["Content-Length", "a b", "Host"] {
        let mut source = steps(None, [Step::Bytes("12345")]);
        source.trailers.push((bad, "15"));
        let request = put("/").body_from(source).build().unwrap();
        let error = run(&mut engine, &request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Body);
    }
    assert_eq!(
        network.ledger().requests().len(),
        1,
        "no other one was complete"
    );
}

#[test]
fn a_source_that_waits_is_asked_again_when_it_is_woken() {
    for size in [None, Some(9)] {
        let network = serve(told);
        let mut engine = engine(&network);
        let all = [
            Step::Wait,
            Step::Bytes("one "),
            Step::Wait,
            Step::Bytes("two, "),
            Step::Wait,
        ];
        let source = steps(size, all);
        let waker = source.waker.clone();
        let request = put("/").body_from(source).build().unwrap();
        submit(&mut engine, &request);
        // Ten times as long as the peer may take to accept a byte.
        for i in 1..=3 {
            let waker = waker.clone();
            let wake = Next::<Ends>::call(move |_, _| {
                waker.lock().unwrap().take().expect("it waits").wake();
                Next::done()
            });
            engine.start(wake.after(10 * i * SECOND));
        }
        let mut ends = Ends::new();
        engine.run(&mut ends).unwrap();
        let (_, text) = ends.pop().unwrap().unwrap();
        assert!(text.contains("one two, "), "{text}");
        let at = network.ledger().requests().next().unwrap().at;
        assert!((30 * SECOND..30 * SECOND + 10 * MS).contains(&at), "{at:?}");
    }
}

#[test]
fn while_a_source_waits_only_the_total_deadline_runs() {
    let network = serve(told);
    let mut engine = engine(&network);
    let source = steps(None, [Step::Bytes("a"), Step::Wait]);
    let request = put("/")
        .body_from(source)
        .timeout(20 * SECOND)
        .build()
        .unwrap();
    let error = run(&mut engine, &request).unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Timeout, Phase::Write)
    );
    assert_eq!(network.elapsed(), 20 * SECOND);
    assert_eq!(network.ledger().requests().len(), 0);
}

#[test]
fn a_source_that_lies_or_fails_ends_its_request_only() {
    use Step::{Bytes, Fail, Fill, Say};
    let rows: Vec<(Steps, &str)> = vec![
        (steps(4, [Bytes("hello")]), "more than the 4 bytes"),
        (
            steps(5, [Bytes("hello"), Bytes("!")]),
            "more than the 5 bytes",
        ),
        (steps(0, [Bytes("!")]), "more than the 0 bytes"),
        (
            steps(100_000, [Fill(100_001)]),
            "more than the 100000 bytes",
        ),
        (steps(6, [Bytes("hello")]), "ended after 5 of 6 bytes"),
        (steps(6, []), "ended after 0 of 6 bytes"),
        (steps(6, [Bytes("hello"), Fail]), "on fire"),
        (steps(None, [Bytes("hello"), Fail]), "on fire"),
        (steps(None, [Fail]), "on fire"),
        (steps(None, [Say(0)]), "said 0 bytes"),
        (steps(None, [Say(usize::MAX)]), "bytes for a room of"),
        (steps(u64::MAX, [Fill(1000)]), "ended after 1000 of"),
    ];
    for (source, why) in rows {
        let network = serve(told);
        let mut engine = engine(&network);
        let request = put("/")
            .body_with(move || Ok(source.clone()))
            .build()
            .unwrap();
        submit(&mut engine, &put("/other").body("other").build().unwrap());
        let error = run_second(&mut engine, &request);
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Body, Phase::Write),
            "{why}"
        );
        assert!(format!("{error:#}").contains(why), "{error:#}");
        let ledger = network.ledger();
        let paths: Vec<_> = ledger.requests().map(|it| it.target.clone()).collect();
        assert_eq!(paths, ["/other"], "{why}: no complete request arrived");
        assert_eq!(engine.stats().in_flight, 0);
        let after = run(&mut engine, &put("/after").body("a").build().unwrap());
        assert!(after.is_ok(), "{why}");
    }
}

fn run_second(engine: &mut Sims, request: &Request) -> Error {
    submit(engine, request);
    let mut ends = Ends::new();
    engine.run(&mut ends).unwrap();
    assert_eq!(ends.len(), 2);
    let mut errors = ends.into_iter().filter_map(Result::err);
    errors.next().expect("the source failed")
}

#[test]
fn a_source_that_panics_ends_its_chain() {
    let network = serve(told);
    let mut engine = engine(&network);
    let opens = put("/").body_with(|| -> io::Result<Steps> { panic!("a factory panics") });
    let reads = put("/").body_from(steps(None, [Step::Bytes("a"), Step::Panic]));
    for request in [opens.build().unwrap(), reads.build().unwrap()] {
        submit(&mut engine, &request);
        let mut ends = Ends::new();
        let run = std::panic::AssertUnwindSafe(|| engine.run(&mut ends));
        assert!(std::panic::catch_unwind(run).is_err());
        engine.run(&mut ends).unwrap();
        assert!(ends.is_empty());
        assert_eq!(engine.stats().in_flight, 0);
    }
    assert!(run(&mut engine, &put("/").body("a").build().unwrap()).is_ok());
}

#[test]
fn a_source_for_one_use_is_used_once() {
    let network = serve(told);
    let mut engine = engine(&network);
    let source = steps(None, [Step::Bytes("hello")]);
    let request = put("/").body_from(source).build().unwrap();
    assert!(!request.is_repeatable());
    assert!(run(&mut engine, &request).is_ok());
    let error = run(&mut engine, &request).unwrap_err();
    assert_eq!(
        (error.kind(), error.request_sent()),
        (ErrorKind::Body, Sent::No)
    );
    assert!(format!("{error:#}").contains("sent once"), "{error:#}");
    let reader = put("/").body_reader(io::Read::take(io::repeat(b'x'), 10), Some(10));
    assert!(
        run(&mut engine, &reader.build().unwrap())
            .unwrap()
            .1
            .contains("xxxxxxxxxx")
    );
}

#[test]
fn a_factory_that_fails_sends_nothing() {
    let network = serve(told);
    let mut engine = engine(&network);
    let request = put("/").body_with(|| Err::<Steps, _>(io::Error::other("no such thing")));
    let error = run(&mut engine, &request.build().unwrap()).unwrap_err();
    assert_eq!(
        (error.kind(), error.request_sent()),
        (ErrorKind::Body, Sent::No)
    );
    assert!(format!("{error:#}").contains("no such thing"));
    assert_eq!(network.ledger().requests().len(), 0);
}

#[test]
fn a_redirect_that_keeps_the_body_opens_another_source() {
    let network = serve(|request| match request.path() {
        "/307" => Answer::status(307).header("Location", "/there"),
        "/303" => Answer::status(303).header("Location", "/there"),
        _ => Answer::ok(format!("{} {}", request.method, described(request))),
    });
    let mut engine = engine(&network);
    let made = Arc::new(AtomicUsize::new(0));
    for (path, opened, expected) in [
        ("/307", 2, "PUT None Some(\"chunked\") \"hello\" 0"),
        ("/303", 1, "GET None None \"\" 0"),
    ] {
        let count = made.clone();
        let make = move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(steps(None, [Step::Bytes("hello")]))
        };
        let request = put(path).body_with(make).session(&Session::new());
        let (_, text) = run(&mut engine, &request.build().unwrap()).unwrap();
        assert_eq!(text, expected);
        assert_eq!(made.swap(0, Ordering::Relaxed), opened, "{path}");
    }
    // A source for one use has been sent, so the redirect is delivered.
    let once = put("/307").body_from(steps(None, [Step::Bytes("hello")]));
    let reply = run(&mut engine, &once.session(&Session::new()).build().unwrap());
    assert_eq!(
        reply.map_or_else(|error| error.kind().to_string(), |it| it.0.to_string()),
        "307"
    );
}

#[test]
fn a_challenge_is_answered_with_another_source() {
    let network = serve(|request| match request.header("authorization") {
        Some(_) => told(request),
        None => Answer::status(401).header(
            "WWW-Authenticate",
            "Digest realm=\"r\", nonce=\"n\", qop=\"auth\", algorithm=SHA-256",
        ),
    });
    let mut engine = engine(&network);
    let auth = Auth::digest("user", "password").at("http://10.0.0.1");
    let session = Session::builder().auth(auth).build().unwrap();
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let make = move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(steps(None, [Step::Bytes("hello")]))
    };
    let request = put("/").body_with(make).session(&session).build().unwrap();
    let (_, text) = run(&mut engine, &request).unwrap();
    assert_eq!(text, "None Some(\"chunked\") \"hello\" 0");
    assert_eq!(made.load(Ordering::Relaxed), 2);
    // A source for one use has been sent, so the challenge is delivered.
    let once = put("/").body_from(steps(None, [Step::Bytes("hello")]));
    let session = Session::builder()
        .auth(Auth::digest("other", "password").at("http://10.0.0.1"))
        .build()
        .unwrap();
    let request = once.session(&session).build().unwrap();
    assert_eq!(run(&mut engine, &request).unwrap().0, 401);
}

#[test]
fn a_refused_expectation_keeps_the_source_for_the_next_attempt() {
    let server = Server::start(|peer| {
        while let Some(head) = peer.head() {
            if head.contains("Expect") {
                peer.send(b"HTTP/1.1 417 x\r\nContent-Length: 0\r\n\r\n");
                return;
            }
            let body = peer.body(5);
            peer.tell(head, body);
            peer.send(&ok("thanks"));
        }
    });
    let mut bench = Bench::new();
    let source = steps(5, [Step::Bytes("hello")]);
    let reads = source.reads.clone();
    let request = Request::post(server.url("/"))
        .header("Expect", "100-continue")
        .body_from(source)
        .build()
        .unwrap();
    let got = bench.fetch_ok(request);
    assert_eq!((got.text(), got.attempts), ("thanks", 2));
    assert_eq!(server.next().body, b"hello");
    assert!(reads.load(Ordering::Relaxed) <= 2);
    bench.assert_empty();
}

#[test]
fn a_body_waits_for_its_100_and_follows_it() {
    let server = Server::start(|peer| {
        let head = peer.head().unwrap();
        assert!(
            head.contains("Expect: 100-continue\r\nContent-Length: 5\r\n"),
            "{head}"
        );
        assert!(peer.unread().is_empty());
        peer.send(b"HTTP/1.1 100 x\r\n\r\n");
        let body = peer.body(5);
        peer.tell(head, body);
        peer.send(&ok("thanks"));
        peer.hold();
    });
    let mut bench = Bench::new();
    let request = Request::post(server.url("/"))
        .header("Expect", "100-continue")
        .body_from(steps(5, [Step::Bytes("hello")]))
        .build()
        .unwrap();
    assert_eq!(bench.fetch_ok(request).text(), "thanks");
    assert_eq!(server.next().body, b"hello");
}

#[test]
fn an_early_answer_ends_an_upload_whose_source_waits() {
    let server = Server::start(|peer| {
        peer.head();
        peer.send(b"HTTP/1.1 413 x\r\nContent-Length: 3\r\n\r\nbig");
        peer.hold();
    });
    let mut bench = Bench::new();
    let (mut sender, receiver) = body::channel(10);
    let request = Request::post(server.url("/"))
        .body_from(receiver)
        .build()
        .unwrap();
    sender.send(b"hello").unwrap();
    let got = bench.fetch_ok(request);
    assert_eq!((got.status, got.text()), (413, "big"));
    let error = sender.send(&[b'x'; 100]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    bench.assert_empty();
}

#[test]
fn a_canceled_upload_drops_its_source() {
    let server = Server::start(|peer| {
        peer.head();
        peer.hold();
    });
    let mut bench = Bench::new();
    let (mut sender, receiver) = body::channel(10);
    let request = Request::post(server.url("/"))
        .body_from(receiver)
        .build()
        .unwrap();
    let id = bench.submit(request);
    bench.until("it waits for its source", |engine, _| {
        engine.stats().bytes_out > 0
    });
    assert!(bench.engine.cancel(id));
    bench.replies(1);
    let error = bench.log.replies.pop().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(sender.try_send(b"x").is_err() && sender.finish().is_err());
    bench.assert_empty();
}

#[test]
fn a_thread_writes_a_body_with_backpressure() {
    const LINES: usize = 200_000;
    let server = Server::start(|peer| {
        let head = peer.head().unwrap();
        assert!(head.contains("Transfer-Encoding: chunked"));
        let mut body = Vec::new();
        loop {
            let mut size = Vec::new();
            while !size.ends_with(b"\r\n") {
                size.extend(peer.body(1));
            }
            let size = std::str::from_utf8(&size[..size.len() - 2])
                .unwrap()
                .to_owned();
            let size = usize::from_str_radix(&size, 16).unwrap();
            body.extend(peer.body(size));
            assert_eq!(peer.body(2), b"\r\n");
            if size == 0 {
                break;
            }
        }
        peer.tell(head, body);
        peer.send(&ok("thanks"));
        peer.hold();
    });
    let mut bench = Bench::new();
    let (mut sender, receiver) = body::channel(1000);
    let writing = std::thread::spawn(move || {
        for i in 0..LINES {
            writeln!(sender, "line {i}").unwrap();
        }
        sender.finish().unwrap();
    });
    let request = Request::post(server.url("/"))
        .body_from(receiver)
        .build()
        .unwrap();
    assert_eq!(bench.fetch_ok(request).text(), "thanks");
    writing.join().unwrap();
    let body = String::from_utf8(server.next().body).unwrap();
    assert!(
        body.lines()
            .enumerate()
            .all(|(i, line)| line == format!("line {i}"))
    );
    assert_eq!(body.lines().count(), LINES);
    bench.assert_empty();
}

#[test]
fn a_task_waits_for_room() {
    let network = serve(told);
    let mut engine = engine(&network);
    let (mut sender, receiver) = body::channel(7);
    let request = put("/").body_from(receiver).build().unwrap();
    engine.spawn(async move {
        let mut left = 1000;
        while left > 0 {
            let room = sender.room().await.unwrap().min(left);
            assert!(room <= 7);
            assert_eq!(sender.try_send(&b"x".repeat(room)).unwrap(), room);
            left -= room;
        }
        sender.finish().unwrap();
    });
    let (_, text) = run(&mut engine, &request).unwrap();
    assert_eq!(text, "None Some(\"chunked\") \"1000 bytes\" 0");
}

#[test]
fn a_sender_that_is_dropped_breaks_the_upload_off() {
    let network = serve(told);
    let mut engine = engine(&network);
    let (mut sender, receiver) = body::channel(10);
    assert_eq!(sender.try_send(b"hello, world").unwrap(), 10);
    assert_eq!(sender.try_send(b"!").unwrap(), 0);
    drop(sender);
    let request = put("/").body_from(receiver).build().unwrap();
    let error = run(&mut engine, &request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Body);
    assert!(format!("{error:#}").contains("finish"), "{error:#}");
    assert_eq!(network.ledger().requests().len(), 0);
}

#[test]
fn files_are_sent_with_their_length() {
    let folder = std::env::temp_dir().join(format!("httpstream-sources-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("file");
    std::fs::write(&file, vec![b'x'; 200_000]).unwrap();
    let network = serve(told);
    let mut engine = engine(&network);
    let request = put("/").body_file(&file).build().unwrap();
    for length in [200_000, 150_000] {
        std::fs::write(&file, vec![b'x'; length]).unwrap();
        let (_, text) = run(&mut engine, &request).unwrap();
        assert_eq!(
            text,
            format!("Some(\"{length}\") None \"{length} bytes\" 0")
        );
    }
    for (path, why) in [
        (folder.join("missing"), "missing"),
        (folder.clone(), "not a regular file"),
    ] {
        let error = run(&mut engine, &put("/").body_file(&path).build().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Body);
        let text = format!("{error:#}");
        assert!(
            text.contains(why) && text.contains(path.to_str().unwrap()),
            "{text}"
        );
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_capped_upload_from_a_source_keeps_to_its_rate() {
    let network = serve(told);
    let mut engine = engine(&network);
    let source = steps(100_000, [Step::Fill(100_000)]);
    let request = put("/")
        .body_from(source)
        .upload_rate(10_000)
        .build()
        .unwrap();
    let (_, text) = run(&mut engine, &request).unwrap();
    assert!(text.contains("100000 bytes"));
    let took = network.ledger().requests().next().unwrap().at;
    assert!((9 * SECOND..11 * SECOND).contains(&took), "{took:?}");
}

#[test]
fn what_a_source_says_is_not_said_otherwise() {
    let source = || Ok(steps(5, [Step::Bytes("hello")]));
    let with = put("/").body_with(source);
    assert!(with.header("Content-Length", "5").build().is_err());
    assert!(put("/").body_with(source).pipeline(2).build().is_err());
    let plain = put("/").body_with(source).body("plain").build().unwrap();
    assert_eq!(plain.body(), Some(&b"plain"[..]));
    assert_eq!(plain.header("Content-Length"), Some(&b"5"[..]));
    let trace = Request::get("http://10.0.0.1/").method(httpstream::http::Method::TRACE);
    assert!(trace.body_with(source).build().is_err());
}
