//! Requests that are sent before the previous ones are answered (RFC 9112 §9.3.2): their order, the
//! cost of a broken connection, and the requests that are never pipelined.
//!
//! Where the order of events matters, the network is simulated.

use crate::common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use common::{Bench, Got, Log, Server, facts, note, ok};
use httpstream::sim::{Answer, Fault, Faults, Incoming, Network, Random};
use httpstream::{
    ChainId, Config, Context, Engine, ErrorKind, Flow, Next, Phase, Readback, Reply, Request,
    Response, Sent, Sim,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// An engine on a simulated network with one server.
struct Lab {
    network: Network,
    engine: Engine<Log, Sim>,
    log: Log,
}

impl Lab {
    /// One connection at a time, sixteen requests deep. The server is known to answer pipelined
    /// requests.
    fn new(server: impl FnMut(&Incoming) -> Answer + 'static) -> Self {
        Self::with(|config| config.max_connections_per_origin = 1, server)
    }

    fn with(
        change: impl FnOnce(&mut Config),
        server: impl FnMut(&Incoming) -> Answer + 'static,
    ) -> Self {
        let network = Network::new(1);
        let addr: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let _ = network.serve(addr, server);
        let mut config = Config::default();
        config.pipeline_without_trial("10.0.0.1", 16);
        change(&mut config);
        let engine = Engine::on_network(&network, config).unwrap();
        Self {
            network,
            engine,
            log: Log::default(),
        }
    }

    fn get(&mut self, path: &str) -> ChainId {
        self.submit(Request::get(url(path)).build().unwrap())
    }

    fn submit(&mut self, request: Request) -> ChainId {
        self.engine.submit(request, note)
    }

    /// Requests /0, /1 and so on.
    fn get_many(&mut self, count: usize) -> Vec<ChainId> {
        (0..count).map(|i| self.get(&format!("/{i}"))).collect()
    }

    fn advance(&mut self, time: Duration) {
        self.engine.advance(&mut self.log, time).unwrap();
    }

    fn run(&mut self) {
        self.engine.run(&mut self.log).unwrap();
        assert_eq!(self.network.misuses(), []);
    }

    /// Returns the connections, by number, on which each path arrived, in order of arrival.
    fn arrivals(&self) -> BTreeMap<String, Vec<u64>> {
        let mut arrivals = BTreeMap::<_, Vec<_>>::new();
        let mut numbers = Vec::new();
        for request in self.network.ledger().requests() {
            if !numbers.contains(&request.connection) {
                numbers.push(request.connection);
            }
            let number = numbers.iter().position(|id| *id == request.connection);
            let paths = arrivals.entry(request.target.clone()).or_default();
            paths.push(number.unwrap() as u64);
        }
        arrivals
    }

    /// Returns how often the paths /0, /1 and so on arrived.
    fn counts(&self, paths: usize) -> Vec<usize> {
        let arrivals = self.arrivals();
        let count = |i| arrivals.get(&format!("/{i}")).map_or(0, Vec::len);
        (0..paths).map(count).collect()
    }

    /// Returns the paths of requests that arrived behind an unanswered one, with the number of
    /// their connection.
    fn pipelined(&self) -> Vec<String> {
        let ledger = self.network.ledger();
        let pipelined = ledger.requests().filter(|request| request.pipelined);
        pipelined.map(|request| request.target.clone()).collect()
    }
}

fn url(path: &str) -> String {
    format!("http://10.0.0.1{path}")
}

/// Answers with the path after a while, so that pipelined requests arrive before the answer.
fn echo_slowly(request: &Incoming) -> Answer {
    Answer::ok(request.path()).after(100 * MS)
}

fn paths(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("/{i}")).collect()
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    let mut lab = Lab::new(echo_slowly);
    lab.get_many(100);
    lab.run();
    assert_eq!(lab.log.texts(), paths(0..100));
    assert_eq!(lab.counts(100), vec![1; 100]);
    let stats = lab.engine.stats();
    assert_eq!((stats.opened, stats.retried), (1, 0));
    assert_eq!(stats.pipelined, 99, "all except the first");
    let attempts = |got: &Got| (got.attempts, got.reused);
    let replies: Vec<_> = lab.log.replies.iter().flatten().map(attempts).collect();
    assert_eq!(replies[0], (1, false));
    assert!(replies[1..].iter().all(|reply| *reply == (1, true)));
}

#[test]
fn no_more_are_unanswered_than_the_depth_says() {
    for depth in [1, 2, 5, 16] {
        let mut lab = Lab::with(
            |config| {
                config.max_connections_per_origin = 1;
                config.pipeline_without_trial("*", 1);
            },
            echo_slowly,
        );
        for i in 0..40 {
            let request = Request::get(url(&format!("/{i}"))).pipeline(depth);
            lab.submit(request.build().unwrap());
        }
        lab.advance(50 * MS);
        let arrived = lab.network.ledger().requests().len();
        assert_eq!(arrived, depth, "before the first answer");
        lab.run();
        assert_eq!(lab.log.texts(), paths(0..40), "{depth}");
    }
}

#[test]
fn pipelines_fill_before_connections_are_opened() {
    let rows = [(16, 1), (17, 2), (32, 2), (33, 3)];
    for (requests, connections) in rows {
        let mut lab = Lab::with(|_| (), echo_slowly);
        lab.get_many(requests);
        lab.run();
        let stats = lab.engine.stats();
        assert_eq!(stats.opened, connections, "for {requests} requests");
        assert_eq!(stats.reused, requests as u64 - connections);
        assert_eq!(stats.answered, requests as u64);
    }
}

#[test]
fn the_link_with_the_fewest_unanswered_is_joined() {
    let mut lab = Lab::with(|config| config.max_connections_per_origin = 2, echo_slowly);
    // The second request of each pair fills its connection.
    for path in ["/a", "/b"] {
        lab.submit(Request::get(url(path)).pipeline(2).build().unwrap());
        lab.submit(Request::get(url(path)).pipeline(2).build().unwrap());
    }
    lab.run();
    lab.engine.close_idle();
    lab.get_many(16);
    lab.get("/other");
    lab.advance(110 * MS);
    // One connection has sixteen minus an answered one, the other one or none.
    lab.get("/joins");
    lab.run();
    let arrivals = lab.arrivals();
    assert_eq!(arrivals["/joins"], arrivals["/other"]);
}

#[test]
fn a_crowd_of_follow_ons_goes_out_together() {
    struct Rounds {
        answered: usize,
    }
    let network = Network::new(1);
    let addr: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let _ = network.serve(addr, |_: &Incoming| Answer::ok("a"));
    let mut config = Config::default();
    config.pipeline_without_trial("*", 16);
    config.max_connections = 1;
    let mut engine = Engine::<Rounds, Sim>::on_network(&network, config).unwrap();
    let mut rounds = Rounds { answered: 0 };
    for _ in 0..16 {
        engine.submit(
            Request::get(url("/")).build().unwrap(),
            |rounds, reply, _| {
                reply.unwrap();
                rounds.answered += 1;
                match rounds.answered < 16 * 100 {
                    true => Next::again(),
                    false => Next::done(),
                }
            },
        );
    }
    engine.run(&mut rounds).unwrap();
    let stats = engine.stats();
    assert_eq!(stats.answered, rounds.answered as u64);
    // One send for all sixteen, and one read of their answers. Making the connection, on which the
    // first answer came alone, is extra.
    let calls = network.system_calls() - stats.turns;
    assert!(
        calls <= 2 * 101 + 8,
        "{calls} calls on sockets for 100 rounds"
    );
}

#[test]
fn sixteen_take_three_system_calls() {
    const ROUNDS: u64 = 200;
    let network = Network::new(1);
    let _ = network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
        Answer::ok("a")
    });
    let mut config = Config::default();
    config.pipeline_without_trial("*", 16);
    config.max_connections = 1;
    let mut engine = Engine::<u64, Sim>::on_network(&network, config).unwrap();
    let again = |answered: &mut u64, reply: Reply<'_>, _: &mut Context<'_, u64>| {
        reply.unwrap();
        *answered += 1;
        Next::again()
    };
    for _ in 0..16 {
        engine.submit(Request::get(url("/")).build().unwrap(), again);
    }
    // By then the connection is open and all sixteen are sent together, a millisecond later each
    // time.
    let mut answered = 0;
    engine.advance(&mut answered, 20 * MS).unwrap();
    let (before, begun) = (network.system_calls(), answered);
    engine.advance(&mut answered, ROUNDS as u32 * MS).unwrap();
    assert_eq!(answered - begun, 16 * ROUNDS);
    let calls = network.system_calls() - before;
    assert_eq!(calls, 3 * ROUNDS, "a wait, a read and a write");
}

/// The answers to a pipeline of one request of each kind, on the wire and as readbacks get them.
const MIXED: [(&str, &str, u16, &str); 8] = [
    (
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        200,
        "abc",
    ),
    (
        "HEAD",
        "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n",
        200,
        "",
    ),
    (
        "GET",
        "HTTP/1.1 203 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1;x\r\nf\r\n0\r\nt: u\r\n\r\n",
        203,
        "def",
    ),
    ("DELETE", "HTTP/1.1 204 x\r\n\r\n", 204, ""),
    (
        "GET",
        "HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n",
        304,
        "",
    ),
    (
        "PUT",
        "HTTP/1.1 103 x\r\nLink: l\r\n\r\nHTTP/1.1 201 x\r\nContent-Length: 1\r\n\r\ng",
        201,
        "g",
    ),
    (
        "OPTIONS",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        200,
        "",
    ),
    (
        "GET",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        200,
        "hi",
    ),
];

/// Returns this flow for the head and each piece of the body, and records status and body at the
/// end.
struct Watcher {
    flow: Flow,
    body: String,
}

type Seen = Vec<(u16, String)>;

impl Readback<Seen> for Watcher {
    fn on_head(&mut self, _: &mut Seen, _: &Response<'_>, _: &mut Context<'_, Seen>) -> Flow {
        self.flow
    }

    fn on_data(&mut self, _: &mut Seen, data: &[u8], _: &mut Context<'_, Seen>) -> Flow {
        self.body += str::from_utf8(data).unwrap();
        self.flow
    }

    fn on_reply(
        &mut self,
        seen: &mut Seen,
        reply: Reply<'_>,
        _: &mut Context<'_, Seen>,
    ) -> Next<Seen> {
        let response = reply.unwrap();
        self.body += response.text().unwrap();
        seen.push((response.status().as_u16(), std::mem::take(&mut self.body)));
        Next::done()
    }
}

/// Returns what readbacks get of the mixed pipeline when it is answered in these pieces.
fn receive_mixed(pieces: &[&str], flow: Flow) -> Seen {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut config = Config::default();
    config.pipeline_without_trial("*", 16);
    let mut engine = Engine::<Seen>::with_config(config).unwrap();
    let mut seen = Seen::new();
    let mut ids = Vec::new();
    for (method, ..) in MIXED {
        let request = Request::builder(method.parse().unwrap(), &url)
            .pipeline(16)
            .timeout(common::PATIENCE);
        let body = String::new();
        let readback = Watcher { flow, body };
        ids.push(engine.submit_to(request.build().unwrap(), readback));
    }
    let mut turn = |engine: &mut Engine<Seen>| {
        for id in &ids {
            engine.resume(*id);
        }
        engine.turn(&mut seen, None).unwrap();
    };
    engine.turn(&mut Vec::new(), Some(Duration::ZERO)).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    while engine.stats().pipelined < MIXED.len() as u64 - 1 {
        turn(&mut engine);
    }
    stream.set_nodelay(true).unwrap();
    let mut requests = Vec::new();
    while requests.windows(4).filter(|end| end == b"\r\n\r\n").count() < MIXED.len() {
        let mut buf = [0; 4096];
        let n = stream.read(&mut buf).unwrap();
        assert!(n > 0);
        requests.extend_from_slice(&buf[..n]);
    }
    let mut written = 0;
    for piece in pieces {
        stream.write_all(piece.as_bytes()).unwrap();
        written += piece.len() as u64;
        while engine.pending() > 0 && engine.stats().bytes_in < written {
            turn(&mut engine);
        }
    }
    drop(stream);
    while engine.pending() > 0 {
        turn(&mut engine);
    }
    assert_eq!(engine.stats().opened, 1);
    seen
}

#[test]
fn a_stream_of_answers_is_read_alike_however_it_is_cut() {
    let wire: String = MIXED.iter().map(|(_, wire, ..)| *wire).collect();
    let expect = |pieces: &[&str], flow: Flow| {
        let body = |text: &str| match flow {
            Flow::Discard => String::new(),
            _ => text.to_owned(),
        };
        let expected: Vec<_> = MIXED
            .iter()
            .map(|(_, _, status, text)| (*status, body(text)))
            .collect();
        assert_eq!(
            receive_mixed(pieces, flow),
            expected,
            "{flow:?} of {pieces:?}"
        );
    };
    let bytes: Vec<_> = (0..wire.len()).map(|i| &wire[i..=i]).collect();
    for flow in [Flow::Buffer, Flow::Stream, Flow::Discard, Flow::Pause] {
        expect(&[&wire], flow);
        expect(&bytes, flow);
        for cut in 1..wire.len() {
            expect(&[&wire[..cut], &wire[cut..]], flow);
        }
    }
}

type Respond = fn(&Incoming) -> Answer;

/// How a connection breaks after a few answers.
const BREAKS: [(&str, Respond); 4] = [
    ("closed", |_| Answer::nothing().close()),
    ("reset", |_| Answer::nothing().reset()),
    ("announced", |r| {
        Answer::ok(r.path()).header("Connection", "close").close()
    }),
    ("closed after an answer", |r| Answer::ok(r.path()).close()),
];

#[test]
fn of_a_connection_that_breaks_the_unanswered_are_sent_again_and_no_others() {
    for (how, last_answer) in BREAKS {
        for answered in [2, 3, 7, 15] {
            let mut first = None;
            let mut lab = Lab::new(move |request| {
                let is_first = *first.get_or_insert(request.connection) == request.connection;
                match is_first && request.number == answered {
                    true => last_answer(request),
                    false => Answer::ok(request.path()),
                }
            });
            lab.get_many(16);
            lab.run();
            assert_eq!(lab.log.texts(), paths(0..16), "{how} after {answered}");
            // Some of these ways answer the request that breaks the connection.
            let told = match how {
                "closed" | "reset" => answered,
                _ => answered + 1,
            };
            let expected: Vec<_> = (0..16).map(|i| 1 + usize::from(i >= told)).collect();
            let attempts = lab.log.replies.iter().flatten();
            let attempts: Vec<_> = attempts.map(|got| got.attempts as usize).collect();
            assert_eq!(attempts, expected, "{how} after {answered}");
            // Requests that the server has not read when it closes do not count as arrived.
            let counts = lab.counts(16);
            assert_eq!(counts[..told], vec![1; told], "{how} after {answered}");
            assert!(counts.iter().all(|count| (1..=2).contains(count)));
            assert_eq!(lab.engine.stats().retried, 16 - told as u64, "{how}");
            // Requests that were queued behind others and lost with them were not exchanged on that
            // connection.
            let stats = lab.engine.stats();
            assert!(stats.reused < stats.answered, "{how}: {stats:?}");
        }
    }
}

#[test]
fn what_is_no_answer_fails_the_one_in_front_and_sends_the_others_again() {
    let rows: [(&str, ErrorKind, Respond); 3] = [
        ("garbage", ErrorKind::Malformed, |_| {
            Answer::raw("HTTP/1.1 2x0\r\n\r\n")
        }),
        ("cut short", ErrorKind::Truncated, |_| {
            Answer::ok("0123456789").truncate(42).close()
        }),
        ("a bad chunk", ErrorKind::Malformed, |_| {
            Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        }),
    ];
    for (why, kind, answer) in rows {
        let mut lab = Lab::new(move |request| match request.path() {
            "/3" => answer(request),
            path => Answer::ok(path),
        });
        lab.get_many(8);
        lab.run();
        let mut expected = paths(0..8);
        expected[3] = format!("{kind:?}");
        let mut told = lab.log.texts();
        told.sort_by_key(|text| expected.iter().position(|other| other == text));
        assert_eq!(told, expected, "{why}");
        assert_eq!(lab.counts(8)[..4], [1; 4], "{why}");
    }
}

#[test]
fn fresh_connections_that_never_answer_fail_one_request_each() {
    let mut lab = Lab::new(|_| Answer::nothing().close());
    lab.get_many(8);
    lab.run();
    let closed = format!("{:?}", ErrorKind::ClosedBeforeResponse);
    assert_eq!(lab.log.texts(), vec![closed; 8]);
    let stats = lab.engine.stats();
    // The first may have lost its answer because of the requests behind it, and has a second
    // attempt.
    assert_eq!((stats.opened, stats.retried), (9, 8));
}

type EndOne = fn(&mut Lab, ChainId);

/// Cancels the request at `place` or lets it time out, while the second is being answered.
fn end_one(place: usize, end: EndOne) -> (Lab, Vec<usize>) {
    let mut lab = Lab::new(|request| Answer::ok(request.path()).after(SECOND));
    let mut ids = Vec::new();
    for i in 0..8 {
        let mut request = Request::get(url(&format!("/{i}")));
        if i == place {
            request = request.timeout(1500 * MS);
        }
        ids.push(lab.submit(request.build().unwrap()));
    }
    lab.advance(1200 * MS);
    assert_eq!(lab.log.texts(), ["/0"]);
    end(&mut lab, ids[place]);
    lab.run();
    let counts = lab.counts(8);
    (lab, counts)
}

#[test]
fn one_that_ends_early_takes_none_with_it() {
    let ends: [(ErrorKind, EndOne); 2] = [
        (ErrorKind::Cancelled, |lab, id| {
            assert!(lab.engine.cancel(id))
        }),
        (ErrorKind::Timeout, |lab, _| lab.advance(400 * MS)),
    ];
    for (kind, end) in ends {
        for place in 1..8 {
            let (lab, counts) = end_one(place, end);
            let mut told: Vec<_> = paths(0..8);
            told.retain(|path| *path != format!("/{place}"));
            let mut answered = lab.log.texts();
            answered.retain(|text| text.starts_with('/'));
            assert_eq!(answered, told, "{kind:?} at {place}");
            let errors: Vec<_> = lab.log.replies.iter().flat_map(Result::as_ref).collect();
            assert_eq!(errors.len(), 7);
            let error = lab
                .log
                .replies
                .iter()
                .find_map(|reply| reply.as_ref().err());
            let expected = (kind, Phase::FirstByte, Sent::Maybe);
            assert_eq!(facts(error.unwrap()), expected, "at {place}");
            // Requests before it are answered on their connection, those behind it on another.
            let expected: Vec<_> = (0..8).map(|i| 1 + usize::from(i > place)).collect();
            assert_eq!(counts, expected, "{kind:?} at {place}");
        }
    }
}

#[test]
fn what_is_not_written_yet_is_simply_taken_out() {
    // The peer reads little at a time, so long bodies delay the requests behind them.
    let network = Network::new(1);
    let addr: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let echo = |request: &Incoming| Answer::ok(request.path());
    let _ = network.serve(addr, echo).window(500).send_buffer(500);
    let mut config = Config::default();
    config.max_connections_per_origin = 1;
    config.pipeline_without_trial("*", 16);
    let mut engine = Engine::<Log, Sim>::on_network(&network, config).unwrap();
    let mut log = Log::default();
    let ids: Vec<_> = (0..6)
        .map(|i| {
            let request = Request::put(url(&format!("/{i}"))).body(vec![b'x'; 5000]);
            engine.submit(request.build().unwrap(), note)
        })
        .collect();
    engine.turn(&mut log).unwrap();
    assert!(engine.cancel(ids[3]) && engine.cancel(ids[5]));
    engine.run(&mut log).unwrap();
    let error = log.replies.iter().find_map(|reply| reply.as_ref().err());
    let expected = (ErrorKind::Cancelled, Phase::Queue, Sent::No);
    assert_eq!(facts(error.unwrap()), expected);
    let mut texts = log.texts();
    texts.retain(|text| text.starts_with('/'));
    assert_eq!(texts, ["/0", "/1", "/2", "/4"]);
    let stats = engine.stats();
    assert_eq!((stats.opened, stats.retried), (1, 0));
    let arrived = network.ledger().requests().len();
    assert_eq!(arrived, 4);
    assert_eq!(network.misuses(), []);
}

#[test]
fn a_wait_for_the_first_byte_begins_when_its_turn_comes() {
    let mut lab = Lab::with(
        |config| {
            config.max_connections_per_origin = 1;
            config.timeouts.first_byte = Some(1500 * MS);
        },
        |request| match request.path() {
            "/5" => Answer::nothing(),
            path => Answer::ok(path).after(SECOND),
        },
    );
    lab.get_many(7);
    lab.run();
    let mut expected = paths(0..7);
    expected[5] = "Timeout".to_owned();
    assert_eq!(lab.log.texts(), expected);
    let error = lab.log.replies[5].as_ref().unwrap_err();
    assert_eq!(
        facts(error),
        (ErrorKind::Timeout, Phase::FirstByte, Sent::Maybe)
    );
}

#[test]
fn what_may_not_be_sent_twice_goes_alone() {
    let mut lab = Lab::with(|config| config.max_connections_per_origin = 2, echo_slowly);
    for i in 0..30 {
        let url = url(&format!("/{i}"));
        let request = match i % 5 {
            0 => Request::post(&url).body("once"),
            1 => Request::get(&url).idempotent(false),
            2 => Request::put(&url)
                .body("b")
                .header("Expect", "100-continue"),
            _ => Request::get(&url),
        };
        lab.submit(request.build().unwrap());
    }
    lab.run();
    assert_eq!(lab.log.kinds(), []);
    assert_eq!(lab.counts(30), vec![1; 30]);
    let pipelined = lab.pipelined();
    assert!(!pipelined.is_empty());
    let ledger = lab.network.ledger();
    let mut last = BTreeMap::new();
    for request in ledger.requests() {
        let number: usize = request.path()[1..].parse().unwrap();
        let before = last.insert(request.connection, number);
        if request.pipelined {
            let both = [number, before.unwrap()];
            assert!(both.iter().all(|number| number % 5 > 2), "{both:?}");
        }
    }
}

#[test]
fn a_request_says_more_than_the_configuration() {
    let mut lab = Lab::new(echo_slowly);
    for i in 0..6 {
        let request = Request::get(url(&format!("/{i}"))).pipeline(1);
        lab.submit(request.build().unwrap());
    }
    lab.run();
    assert_eq!(lab.pipelined(), [""; 0]);
    let mut lab = Lab::with(
        |config| {
            config.max_connections_per_origin = 1;
            config.pipeline_without_trial("*", 4);
        },
        echo_slowly,
    );
    lab.get_many(6);
    lab.run();
    assert_eq!(
        lab.pipelined(),
        paths(1..6),
        "the first matching pattern applies"
    );
}

#[test]
fn what_cannot_be_pipelined_is_refused() {
    let builder = |method: &str| Request::builder(method.parse().unwrap(), url("/")).body("b");
    let rows = [
        ("not idempotent", builder("POST").pipeline(2)),
        (
            "not idempotent",
            builder("GET").idempotent(false).pipeline(2),
        ),
        ("closes the connection", builder("GET").pipeline(2).close()),
        (
            "closes the connection",
            builder("GET").header("Connection", "close").pipeline(2),
        ),
        ("of its own", builder("GET").fresh_connection().pipeline(2)),
        (
            "Expect",
            builder("PUT").header("Expect", "100-continue").pipeline(2),
        ),
        ("from 1", builder("GET").pipeline(0)),
        ("to 1024", builder("GET").pipeline(1025)),
        ("to 1024", builder("GET").pipeline(usize::MAX)),
    ];
    for (why, builder) in rows {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        let text = format!("{error:#}");
        assert!(text.contains("pipeline: ") && text.contains(why), "{text}");
    }
    for builder in [
        builder("POST").pipeline(1),
        builder("POST").idempotent(true).pipeline(1024),
        builder("GET").close().pipeline(1),
    ] {
        builder.build().unwrap();
    }
    for (pattern, depth, why) in [
        ("*", 0, "from 1"),
        ("*", 1025, "to 1024"),
        ("a.*", 2, "wildcard"),
    ] {
        let mut config = Config::default();
        config.pipeline(pattern, depth);
        let error = Engine::<()>::with_config(config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(format!("{error:#}").contains(why), "{error:#}");
    }
}

#[test]
fn behind_a_break_a_new_connection_answers_one_before_it_is_given_a_second() {
    // The first connection breaks after three answers, the second after its first.
    let mut seen = Vec::new();
    let mut lab = Lab::new(move |request| {
        if !seen.contains(&request.connection) {
            seen.push(request.connection);
        }
        match (seen.len(), request.number) {
            (1, 3) | (2, 1) => Answer::nothing().reset(),
            _ => echo_slowly(request),
        }
    });
    lab.get_many(12);
    lab.run();
    assert_eq!(lab.log.texts(), paths(0..12));
    let ledger = lab.network.ledger();
    let mut connections = Vec::new();
    for request in ledger.requests() {
        if !connections.contains(&request.connection) {
            connections.push(request.connection);
        }
        let is_first = connections.len() == 1;
        let expected = request.number > if is_first { 0 } else { 1 };
        assert_eq!(request.pipelined, expected, "{request:?}");
    }
    assert_eq!(connections.len(), 3);
}

#[test]
fn behind_a_break_care_is_taken_with_new_requests_too() {
    let mut first = None;
    let mut lab = Lab::with(
        |config| config.max_connections_per_origin = 2,
        move |request| {
            let is_first = *first.get_or_insert(request.connection) == request.connection;
            match (is_first, request.number) {
                (true, 1) => Answer::nothing().reset(),
                _ => echo_slowly(request),
            }
        },
    );
    lab.get_many(3);
    lab.advance(110 * MS);
    // The first is answered; each other one is on a connection of its own.
    assert_eq!(lab.log.texts(), ["/0"]);
    for i in 3..9 {
        lab.get(&format!("/{i}"));
    }
    lab.run();
    let mut texts = lab.log.texts();
    texts.sort();
    assert_eq!(texts, paths(0..9));
    let ledger = lab.network.ledger();
    let begun = ledger.requests().filter(|request| request.number == 1);
    let begun: Vec<_> = begun.map(|request| request.pipelined).collect();
    assert!(begun.len() > 1, "{begun:?}");
    assert!(begun[0], "the second request on the first connection");
    assert!(
        !begun[1..].contains(&true),
        "the second request on the others: {begun:?}"
    );
}

#[test]
fn what_is_sent_again_shares_no_connection_that_has_not_answered_yet() {
    // Sixteen are on the first connection, which breaks, and one is on the second, which is slow.
    let mut lab = Lab::with(
        |config| config.max_connections_per_origin = 2,
        |request| match (request.path(), request.number) {
            ("/16", _) => Answer::ok(request.path()).after(SECOND),
            ("/1", 1) => Answer::nothing().reset(),
            _ => echo_slowly(request),
        },
    );
    lab.get_many(17);
    lab.advance(900 * MS);
    let ledger = lab.network.ledger();
    let slow = ledger.requests().find(|request| request.path() == "/16");
    let slow = slow.unwrap().connection;
    let there = ledger.requests().filter(|at| at.connection == slow);
    assert_eq!(there.count(), 1, "none joins before it has answered");
    lab.run();
    let mut texts = lab.log.texts();
    texts.sort();
    let mut expected = paths(0..17);
    expected.sort();
    assert_eq!(texts, expected);
}

#[test]
fn an_origin_that_breaks_every_pipeline_is_pipelined_no_more() {
    for announced in [true, false] {
        let mut lab = Lab::new(move |request| {
            let answer = Answer::ok(request.path()).after(MS);
            match announced {
                true => answer.header("Connection", "close").close(),
                false => answer.close(),
            }
        });
        lab.get_many(30);
        lab.run();
        assert_eq!(lab.log.texts(), paths(0..30), "announced: {announced}");
        let ledger = lab.network.ledger();
        let pipelining = ledger.requests().filter(|request| request.pipelined);
        let mut pipelining: Vec<_> = pipelining.map(|request| request.connection).collect();
        pipelining.dedup();
        assert!(pipelining.len() <= 3, "{pipelining:?}");
        assert_eq!(lab.engine.stats().opened, 30);
    }
}

#[test]
fn a_server_of_http_1_0_is_pipelined_once() {
    let mut lab = Lab::new(|request| {
        let path = request.path();
        let length = path.len();
        let head = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length:";
        Answer::raw(format!("{head} {length}\r\n\r\n{path}")).after(10 * MS)
    });
    lab.get_many(20);
    lab.run();
    assert_eq!(lab.log.texts(), paths(0..20));
    assert_eq!(
        lab.engine.stats().opened,
        2,
        "connections are kept alive from then on"
    );
    assert_eq!(lab.engine.stats().pipelined, 15);
}

#[test]
fn a_server_that_drops_all_but_the_first_is_found_out() {
    // The server reads one request and discards the others that arrived with it.
    let mut lab = Lab::with(
        |config| {
            config.max_connections_per_origin = 1;
            config.timeouts.first_byte = Some(SECOND);
        },
        |request| match request.pipelined {
            true => Answer::nothing(),
            false => Answer::ok(request.path()).after(10 * MS),
        },
    );
    lab.get_many(40);
    lab.run();
    let failed = lab.log.kinds();
    assert!(failed.len() <= 3, "{failed:?}");
    assert_eq!(lab.log.replies.len(), 40);
}

#[test]
fn bytes_that_nobody_asked_for_are_no_answer_to_what_is_not_sent_yet() {
    /// The size of one read, the same as with TLS.
    const READ: usize = 32 << 10;
    // Three answers to two requests, either in one read, or with the third behind a read that the
    // others have filled. By then the request after the first is in line, and not written.
    for fills_a_read in [false, true] {
        let server = Server::start(move |peer| {
            if peer.number == 0 {
                let paths = [peer.request(), peer.request()].map(|seen| seen.unwrap().path);
                let head = "HTTP/1.1 200 OK\r\nPadding: ";
                let first = format!("\r\nContent-Length: 2\r\n\r\n{}", paths[0]);
                let second = ok(&paths[1]);
                let padding = match fills_a_read {
                    true => READ - head.len() - first.len() - second.len(),
                    false => 1,
                };
                let first = format!("{head}{}{first}", "x".repeat(padding));
                peer.send(&[first.into_bytes(), second, ok("forged")].concat());
            }
            while let Some(seen) = peer.request() {
                peer.send(&ok(&seen.path));
            }
        });
        let mut bench = Bench::with(|config| {
            config.pipeline_without_trial("*", 16);
            config.read_buffer = READ;
        });
        let next = server.get("/next");
        let follow = move |log: &mut Log, reply: Reply<'_>, cx: &mut Context<'_, Log>| {
            log.replies.push(reply.map(Got::of));
            cx.send(next.clone()).read_by(note)
        };
        bench.engine.submit(server.get("/0"), follow);
        bench.submit(server.get("/1"));
        bench.replies(3);
        assert_eq!(bench.log.texts(), ["/0", "/1", "/next"], "{fills_a_read}");
        assert_eq!(bench.stats().opened, 2);
    }
}

#[test]
fn bytes_that_nobody_asked_for_are_no_answer_to_what_the_socket_will_not_take() {
    let put = |i: usize| {
        let put = Request::put(url(&format!("/{i}"))).body(vec![b'x'; 400]);
        put.build().unwrap()
    };
    let mut lab = Lab::new(echo_slowly);
    lab.submit(put(0));
    lab.run();
    let request_bytes = lab.engine.stats().bytes_out as usize;
    // Two requests fit into the send buffer of a server that reads nothing.
    let network = Network::new(1);
    let addr: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let listener = network.serve(addr, echo_slowly).reads_at_most(0);
    let _ = listener.send_buffer(2 * request_bytes);
    let mut config = Config::default();
    config.max_connections_per_origin = 1;
    config.pipeline_without_trial("*", 16);
    let mut engine = Engine::<Log, Sim>::on_network(&network, config).unwrap();
    let mut log = Log::default();
    for i in 0..3 {
        engine.submit(put(i), note);
    }
    engine.advance(&mut log, SECOND).unwrap();
    assert_eq!(engine.stats().bytes_out as usize, 2 * request_bytes);
    let connection = network.connections()[0];
    for i in 0..3 {
        assert!(network.push(connection, ok(&format!("answer {i}"))));
        engine.advance(&mut log, SECOND).unwrap();
    }
    assert_eq!(log.texts(), ["answer 0", "answer 1"]);
    assert_eq!((engine.stats().opened, engine.pending()), (2, 1));
}

#[test]
fn a_readback_that_cancels_the_next_in_line_costs_the_connection_and_no_answer() {
    let mut lab = Lab::new(|request| Answer::ok(request.path()));
    let ids = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let later = ids.clone();
    let first = lab.engine.submit(
        Request::get(url("/0")).build().unwrap(),
        move |log: &mut Log, reply, cx| {
            log.replies.push(reply.map(Got::of));
            let second: ChainId = later.borrow()[1];
            assert!(cx.cancel(second));
            Next::done()
        },
    );
    ids.borrow_mut().push(first);
    for i in 1..5 {
        let id = lab.get(&format!("/{i}"));
        ids.borrow_mut().push(id);
    }
    lab.run();
    let mut texts = lab.log.texts();
    texts.sort();
    assert_eq!(texts, ["/0", "/2", "/3", "/4", "Cancelled"]);
}

#[test]
fn of_answers_that_come_together_one_readback_panics_and_the_others_hear_theirs() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.to_string().contains("on purpose") {
            usual(info);
        }
    }));
    for place in 0..8 {
        let server = Server::start(|peer| {
            let paths: Vec<_> = (0..8)
                .filter_map(|_| peer.request())
                .map(|seen| seen.path)
                .collect();
            let wire: Vec<_> = paths.iter().flat_map(|path| ok(path)).collect();
            peer.send(&wire);
            while let Some(seen) = peer.request() {
                peer.send(&ok(&seen.path));
            }
        });
        let mut bench = Bench::with(|config| config.pipeline_without_trial("*", 8));
        for i in 0..8 {
            let request = server.get(&format!("/{i}"));
            bench
                .engine
                .submit(request, move |log: &mut Log, reply, cx| {
                    assert!(i != place, "on purpose");
                    note(log, reply, cx)
                });
        }
        let mut panics = 0;
        while bench.engine.pending() > 0 {
            let wait = Some(Duration::from_millis(20));
            let turned = catch_unwind(AssertUnwindSafe(|| bench.engine.turn(&mut bench.log, wait)));
            panics += usize::from(turned.is_err());
        }
        assert_eq!(panics, 1);
        let mut expected = paths(0..8);
        expected.remove(place);
        assert_eq!(bench.log.texts(), expected, "the {place}th panics");
        assert_eq!(bench.fetch_ok(server.get("/after")).text(), "/after");
        assert_eq!(bench.stats().opened, 1, "the connection is kept");
        bench.assert_empty();
    }
}

#[test]
fn a_pipeline_that_never_runs_empty_keeps_no_other_origin_out() {
    let mut lab = Lab::with(
        |config| config.max_connections = 1,
        |request| Answer::ok(request.path()).after(MS),
    );
    let other: SocketAddr = "10.0.0.2:80".parse().unwrap();
    let _ = lab.network.serve(other, |_: &Incoming| Answer::ok("other"));
    for _ in 0..8 {
        let endless = |log: &mut Log, reply: Reply<'_>, _: &mut Context<'_, Log>| {
            log.notes.push(reply.unwrap().text().unwrap().to_owned());
            Next::again()
        };
        lab.engine
            .submit(Request::get(url("/")).build().unwrap(), endless);
    }
    lab.advance(100 * MS);
    lab.submit(Request::get("http://10.0.0.2/").build().unwrap());
    lab.advance(SECOND);
    assert_eq!(lab.log.texts(), ["other"]);
}

#[test]
fn names_that_cannot_be_looked_up_fail_all_in_their_own_time() {
    let network = Network::new(1);
    let mut config = Config::default();
    config.pipeline_without_trial("*", 16);
    config.timeouts.resolve = Some(5 * SECOND);
    let _ = network
        .host("slow.test", [[10, 0, 0, 1]])
        .after(60 * SECOND);
    let mut engine = Engine::<Log, Sim>::on_network(&network, config).unwrap();
    let mut log = Log::default();
    for _ in 0..12 {
        engine.submit(Request::get("http://slow.test/").build().unwrap(), note);
    }
    engine.run(&mut log).unwrap();
    assert_eq!(log.kinds(), [ErrorKind::Timeout; 12]);
    assert!(
        network.elapsed() < 11 * SECOND,
        "the timeouts do not add up: {:?}",
        network.elapsed()
    );
}

#[test]
fn one_that_is_cancelled_while_it_connects_takes_the_others_with_it_nowhere() {
    let mut lab = Lab::with(|_| (), echo_slowly);
    let ids = lab.get_many(16);
    lab.advance(Duration::ZERO);
    assert_eq!(lab.engine.stats().links_dialing, 1);
    assert!(lab.engine.cancel(ids[0]));
    lab.run();
    let mut expected = paths(0..16);
    expected[0] = "Cancelled".to_owned();
    assert_eq!(lab.log.texts(), expected);
    assert_eq!(
        lab.engine.stats().opened,
        2,
        "the others share a connection"
    );
}

/// The state of a run under faults, by path.
#[derive(Default)]
struct Fuzz {
    told: Vec<Option<String>>,
    again: Vec<u32>,
    random: Option<Random>,
}

/// Each chain requests paths of its own, one after another. Whatever happens on the network, each
/// request gets one reply, and the right one.
fn fuzz(seed: u64) -> (u64, u64) {
    let mut random = Random::new(seed);
    let network = Network::new(random.next_u64());
    let faults = match random.below(3) {
        0 => Faults::none(),
        1 => Faults::some(&mut random),
        _ => Faults::storm()
            .with(Fault::SmallWindow, 0)
            .with(Fault::SmallSendBuffer, 0),
    };
    // No unsolicited answers, which could not be distinguished from the next one.
    network.set_faults(faults.with(Fault::Unsolicited, 0));
    let mut server_random = random.fork();
    let addr: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let breaks = *random.pick(&[0, 20, 100, 400]);
    let _ = network.serve(addr, move |request: &Incoming| {
        let path = request.path().to_owned();
        let answer = match server_random.below(6) {
            0 => Answer::status(200).chunked([&path[..1], &path[1..]]),
            1 => Answer::ok(path).after(server_random.duration(30 * MS)),
            2 => Answer::ok(path).interim(103, &[]),
            _ => Answer::ok(path),
        };
        match server_random.chance(breaks) {
            false => answer,
            true => match server_random.below(5) {
                0 => answer.close(),
                1 => answer.reset(),
                2 => answer.header("Connection", "close").close(),
                3 => Answer::nothing().close(),
                _ => answer.truncate(server_random.below(50)).reset(),
            },
        }
    });
    let mut config = Config::default();
    config.max_connections_per_origin = *random.pick(&[1, 2, 5]);
    config.read_buffer = *random.pick(&[4096, 16 << 10]);
    config.turn_bytes = *random.pick(&[100, 1 << 19]);
    config.timeouts.first_byte = Some(5 * SECOND);
    config.timeouts.idle = Some(5 * SECOND);
    config.pipeline_without_trial("*", *random.pick(&[2, 3, 16, 1024]));
    let mut engine = Engine::<Fuzz, Sim>::on_network(&network, config).unwrap();
    let mut fuzz = Fuzz {
        random: Some(random.fork()),
        ..Fuzz::default()
    };
    let chains = random.between(1, 40);
    let each = random.between(1, 6);
    let mut ids = Vec::new();
    for chain in 0..chains {
        for _ in 0..each {
            fuzz.told.push(None);
            fuzz.again.push(0);
        }
        let mut at = chain * each;
        let request = |at: usize| Request::get(url(&format!("/{at}"))).build().unwrap();
        ids.push(
            engine.submit(request(at), move |fuzz: &mut Fuzz, reply, _| {
                assert_eq!(fuzz.told[at], None, "/{at} got two replies");
                let told = match reply {
                    Ok(response) => {
                        let text = response.text().unwrap();
                        assert_eq!(text, format!("/{at}"), "the answer to another request");
                        "answered".to_owned()
                    }
                    Err(error) => format!("{:?}", error.kind()),
                };
                let is_over = told == "Cancelled";
                fuzz.told[at] = Some(told);
                at += 1;
                match at % each {
                    _ if is_over => Next::done(),
                    0 => Next::done(),
                    _ if fuzz.random.as_mut().unwrap().chance(300) => {
                        Next::send(request(at)).after(20 * MS)
                    }
                    _ => Next::send(request(at)),
                }
            }),
        );
    }
    while engine.pending() > 0 {
        engine.advance(&mut fuzz, random.duration(50 * MS)).unwrap();
        if random.chance(100) {
            engine.cancel(*random.pick(&ids));
        }
    }
    assert_eq!(network.misuses(), [], "seed {seed}");
    engine.close_idle();
    let stats = engine.stats();
    assert_eq!((stats.links_open, stats.in_flight), (0, 0), "seed {seed}");
    assert_eq!(engine.next_deadline(), None, "seed {seed}: a timer is left");
    // A canceled chain does not continue; in all other chains each request has a reply.
    for chain in fuzz.told.chunks(each) {
        let cancelled = chain.iter().flatten().any(|told| told == "Cancelled");
        assert!(
            cancelled || chain.iter().all(Option::is_some),
            "seed {seed}: {chain:?}"
        );
    }
    (stats.pipelined, stats.retried)
}

#[test]
fn whatever_the_network_does_each_is_told_once_and_told_its_own() {
    let (mut pipelined, mut retried) = (0, 0);
    for seed in 0..1000 {
        let done = catch_unwind(AssertUnwindSafe(|| fuzz(seed)));
        let (more, again) = done.unwrap_or_else(|_| panic!("seed {seed}"));
        pipelined += more;
        retried += again;
    }
    assert!(
        pipelined > 10_000 && retried > 1_000,
        "{pipelined} {retried}"
    );
}

/// A server that cannot handle pipelining: of the requests in one read it answers `answers`, and
/// drops the others.
fn dropping(answers: usize, read: usize) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let accepting = listener.try_clone().unwrap();
    std::thread::spawn(move || {
        for stream in accepting.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut buf = vec![0; read];
                loop {
                    let n = match stream.read(&mut buf) {
                        Ok(0) | Err(_) => return,
                        Ok(n) => n,
                    };
                    let text = String::from_utf8_lossy(&buf[..n]).into_owned();
                    let paths = text
                        .lines()
                        .filter_map(|line| line.strip_prefix("GET ")?.split(' ').next());
                    for path in paths.take(answers) {
                        if stream.write_all(&ok(path)).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    listener
}

#[test]
fn a_server_that_drops_what_comes_together_gives_no_request_the_answer_to_another() {
    // Connections, answers per read, bytes per read, bytes of a field. Each read has room for two
    // requests.
    let rows = [
        (1, 1, 64 << 10, 0),
        (2, 1, 2048, 700),
        (2, 1, 4096, 1000),
        (2, 1, 1024, 100),
        (4, 1, 16 << 10, 1500),
        (256, 1, 64 << 10, 0),
        (1, 2, 64 << 10, 0),
        (2, 3, 64 << 10, 0),
        (1, 15, 64 << 10, 0),
    ];
    // In parallel, because each waits for dropped requests to time out.
    std::thread::scope(|scope| {
        for row in rows {
            scope.spawn(move || each_hears_its_own(row));
        }
    });
}

fn each_hears_its_own((connections, answers, read, padding): (usize, usize, usize, usize)) {
    let listener = dropping(answers, read);
    let addr = listener.local_addr().unwrap();
    let mut bench = Bench::with(|config| {
        config.pipeline("*", 16);
        config.max_connections_per_origin = connections;
    });
    for i in 0..40 {
        let request = Request::get(format!("http://{addr}/{i}"))
            .header("Padding", "x".repeat(padding))
            .build()
            .unwrap();
        bench
            .engine
            .submit(request, move |log: &mut Log, reply, _| {
                let got = Got::of(reply.unwrap());
                let row = (connections, answers, read, padding);
                assert_eq!(got.text(), format!("/{i}"), "{row:?}");
                log.replies.push(Ok(got));
                Next::done()
            });
    }
    bench.replies(40);
    bench.assert_empty();
}

/// An origin gets a single pair of requests until it has answered both; then all its connections
/// take more.
#[test]
fn an_origin_is_pipelined_everywhere_when_it_has_passed_one_trial() {
    let mut lab = Lab::with(
        |config| {
            config.pipeline("10.0.0.2", 16);
            config.max_connections_per_origin = 2;
        },
        |_| Answer::nothing(),
    );
    let addr: SocketAddr = "10.0.0.2:80".parse().unwrap();
    let _ = lab.network.serve(addr, |request: &Incoming| {
        Answer::ok(request.path()).after(10 * MS)
    });
    let get = |lab: &mut Lab, i: usize| {
        let request = Request::get(format!("http://10.0.0.2/{i}"));
        lab.submit(request.build().unwrap());
    };
    (0..32).for_each(|i| get(&mut lab, i));
    lab.advance(5 * MS);
    assert_eq!(lab.arrivals().len(), 2, "one request on each connection");
    assert_eq!(lab.pipelined(), [""; 0]);
    lab.advance(11 * MS);
    assert_eq!(lab.pipelined().len(), 1, "then a single pair");
    lab.advance(SECOND);
    assert_eq!(lab.log.texts().len(), 32);
    let pipelined = lab.pipelined();
    assert!((10..20).contains(&pipelined.len()), "{pipelined:?}");
    assert_eq!(lab.engine.stats().opened, 2);
    // The last trial is of sixteen; after that, all are sent together.
    for (from, more) in [(32, 15), (64, 30)] {
        let before = lab.pipelined().len();
        (from..from + 32).for_each(|i| get(&mut lab, i));
        lab.advance(5 * MS);
        assert_eq!(lab.pipelined().len(), before + more, "from {from}");
        lab.advance(SECOND);
    }
    assert_eq!(lab.log.texts().len(), 96);
}
