//! `RequestBuilder::download_rate` and `upload_rate`, on the simulated network, where every time is
//! exact, and on loopback.

use crate::common;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Bench, Server, ok};
use httpstream::sim::{Answer, Closed, Incoming, Network};
use httpstream::{
    Config, Context, Engine, Error, ErrorKind, Flow, LowSpeed, Next, Phase, Readback, Reply,
    Request, RequestBuilder, Response, Sim,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// When the client is connected, and when the first byte of a response arrives, at the latency of
/// 0.5 ms.
const CONNECTED: Duration = MS;
const FIRST: Duration = Duration::from_millis(2);

/// The most bytes that a rate allows at once.
fn burst(rate: u64) -> u64 {
    (rate / 8).max(1024)
}

/// The time after which `bytes` bytes are allowed: a burst is at once. Deadlines are rounded up to
/// milliseconds of the engine's life, so `begun` has to be whole ones.
fn due(begun: Duration, bytes: u64, rate: u64) -> Duration {
    let behind = bytes.saturating_sub(burst(rate));
    begun + Duration::from_millis((behind * 1000).div_ceil(rate))
}

/// What one exchange did, and when.
#[derive(Debug, Default)]
struct Log {
    /// The pieces of a streamed body.
    pieces: Vec<(Duration, usize)>,
    ends: Vec<(Duration, Result<usize, Error>)>,
}

impl Log {
    #[track_caller]
    fn only_end(&self) -> (Duration, usize) {
        assert_eq!(self.ends.len(), 1);
        match &self.ends[0] {
            (at, Ok(length)) => (*at, *length),
            (at, Err(error)) => panic!("at {at:?}: {error:#}"),
        }
    }
}

type Sims = Engine<Log, Sim>;

fn engine(network: &Network, change: impl FnOnce(&mut Config)) -> Sims {
    let mut config = Config::default();
    config.timeouts.total = None;
    change(&mut config);
    Engine::on_network(network, config).unwrap()
}

fn serve(answer: impl FnMut(&Incoming) -> Answer + 'static) -> Network {
    let network = Network::new(1);
    let _ = network.serve("10.0.0.1:80".parse().unwrap(), answer);
    network
}

fn get() -> RequestBuilder {
    Request::get("http://10.0.0.1/")
}

/// Takes a body in one of the ways that there are, and checks that it is the one that was sent.
struct Taking(Network, Flow);

impl Readback<Log> for Taking {
    fn on_head(&mut self, _: &mut Log, _: &Response<'_>, _: &mut Context<'_, Log>) -> Flow {
        self.1
    }

    fn on_data(&mut self, log: &mut Log, data: &[u8], _: &mut Context<'_, Log>) -> Flow {
        log.pieces.push((self.0.elapsed(), data.len()));
        self.1
    }

    fn on_reply(&mut self, log: &mut Log, reply: Reply<'_>, _: &mut Context<'_, Log>) -> Next<Log> {
        let length = reply.map(|response| response.body().len());
        log.ends.push((self.0.elapsed(), length));
        Next::done()
    }
}

fn submit(engine: &mut Sims, network: &Network, request: RequestBuilder) -> httpstream::ChainId {
    let readback = Taking(network.clone(), Flow::Buffer);
    engine.submit_to(request.build().unwrap(), readback)
}

/// Ends what is idle, after which no timer may be left.
fn assert_at_rest(engine: &mut Sims, network: &Network) {
    assert_eq!(engine.pending(), 0);
    engine.close_idle();
    assert_eq!(engine.next_deadline(), None, "no timer is left");
    assert_eq!(network.misuses(), []);
}

fn fetch(network: &Network, request: RequestBuilder) -> Log {
    let mut engine = engine(network, |_| ());
    submit(&mut engine, network, request);
    let mut log = Log::default();
    engine.run(&mut log).unwrap();
    assert_at_rest(&mut engine, network);
    log
}

/// Answers in each framing that there is, with a body of `length` bytes.
fn framings(length: usize) -> Vec<(&'static str, Answer, usize)> {
    let body = vec![b'x'; length];
    let pieces: Vec<Vec<u8>> = body.chunks(700).map(<[u8]>::to_vec).collect();
    let long = "y".repeat(3000);
    let head = (0..length / 3000).fold(Answer::status(200), |answer, n| {
        answer.header(&format!("X-{n}"), &long)
    });
    vec![
        ("known length", Answer::ok(body.clone()), length),
        ("chunked", Answer::status(200).chunked(pieces), length),
        (
            "until the close",
            Answer::status(200).until_close(body),
            length,
        ),
        ("long head", head, 0),
    ]
}

#[test]
fn a_response_takes_the_time_that_its_rate_gives_it() {
    for rate in [1000, 8192, 20_000, 1_000_000] {
        for (name, answer, length) in framings(60_000) {
            for flow in [Flow::Buffer, Flow::Stream, Flow::Discard] {
                let answer = answer.clone();
                let network = serve(move |_| answer.clone());
                let mut engine = engine(&network, |_| ());
                let request = get().download_rate(rate).build().unwrap();
                engine.submit_to(request, Taking(network.clone(), flow));
                let mut log = Log::default();
                engine.run(&mut log).unwrap();
                let stats = engine.stats();
                let (at, collected) = log.only_end();
                println!("{rate} bytes/s, {name}, {flow:?}: {at:?}, {stats:?}");
                let expected = due(FIRST, stats.bytes_in, rate);
                // Where the length is not known, the last bytes may wait for half a burst.
                let late = Duration::from_secs_f64(burst(rate) as f64 / 2.0 / rate as f64) + MS;
                assert!(at >= expected, "at {at:?}, not {expected:?}");
                assert!(at <= expected + late, "at {at:?}, not {expected:?}");
                if name == "known length" {
                    assert_eq!(at, expected);
                }
                let streamed: usize = log.pieces.iter().map(|(_, bytes)| bytes).sum();
                match flow {
                    Flow::Buffer => assert_eq!(collected, length),
                    Flow::Stream => assert_eq!(streamed, length),
                    _ => {}
                }
                let mut sum = 0;
                for (at, bytes) in log.pieces {
                    sum += bytes as u64;
                    let most = burst(rate) as f64 + (at - FIRST).as_secs_f64() * rate as f64;
                    assert!(sum as f64 <= most + 0.001, "{sum} bytes at {at:?}");
                }
                // It sleeps in between: a turn for the timer, and one to read.
                let wakes = stats.bytes_in / (burst(rate) / 2) + 2;
                assert!(stats.turns <= 3 * wakes + 10, "{} turns", stats.turns);
                assert_at_rest(&mut engine, &network);
            }
        }
    }
}

#[test]
fn a_request_takes_the_time_that_its_rate_gives_it() {
    for rate in [1000, 8192, 20_000, 1_000_000] {
        let long = "y".repeat(50_000);
        let put = || Request::put("http://10.0.0.1/");
        let body = || vec![b'x'; 60_000];
        let rows = [
            ("long body", put().body(body())),
            ("long head", get().header("X-Long", &long)),
            ("both", put().header("X-Long", &long).body(body())),
            ("neither", get()),
        ];
        for (name, request) in rows {
            let network = serve(|request| Answer::ok(request.body().len().to_string()));
            let mut engine = engine(&network, |_| ());
            submit(&mut engine, &network, request.upload_rate(rate));
            let mut log = Log::default();
            engine.run(&mut log).unwrap();
            let stats = engine.stats();
            let (at, _) = log.only_end();
            println!("{rate} bytes/s, {name}: {at:?}, {stats:?}");
            let sent = due(CONNECTED, stats.bytes_out, rate);
            assert_eq!(at, sent + MS, "the round trip takes a millisecond");
            let wakes = stats.bytes_out / (burst(rate) / 2) + 2;
            assert!(stats.turns <= 2 * wakes + 10, "{} turns", stats.turns);
            let most = wakes * 5 + 20;
            assert!(network.system_calls() <= most, "{}", network.system_calls());
            assert_at_rest(&mut engine, &network);
        }
    }
}

#[test]
fn any_rate_is_accepted_and_zero_is_none() {
    for (rate, at_once) in [(0, true), (u64::MAX, true), (1, false)] {
        let network = serve(|_| Answer::ok(vec![b'x'; 1000]));
        let put = Request::put("http://10.0.0.1/").body(vec![b'x'; 1000]);
        let put = put.download_rate(rate).upload_rate(rate);
        let log = fetch(&network, put);
        let (at, length) = log.only_end();
        assert_eq!(length, 1000);
        assert_eq!(at < SECOND, at_once, "{rate}: {at:?}");
    }
    // A cap survives `edit`, and can be removed.
    let network = serve(|_| Answer::ok(vec![b'x'; 20_000]));
    let capped = get().download_rate(1000).build().unwrap();
    assert!(fetch(&network, capped.edit()).only_end().0 > 10 * SECOND);
    let network = serve(|_| Answer::ok(vec![b'x'; 20_000]));
    let log = fetch(&network, capped.edit().download_rate(0));
    assert!(log.only_end().0 < SECOND);
}

/// What is not read stays with the server, beyond what the system's buffer holds.
#[test]
fn the_server_has_to_wait_and_what_is_canceled_leaves_no_timer() {
    let network = Network::new(1);
    let _ = network
        .serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
            Answer::ok(vec![b'x'; 100_000])
        })
        .window(3000);
    let mut engine = engine(&network, |_| ());
    let id = submit(&mut engine, &network, get().download_rate(1000));
    let mut log = Log::default();
    engine.advance(&mut log, 20 * SECOND).unwrap();
    let read = engine.stats().bytes_in;
    assert!(read <= 1024 + 20_000, "{read}");
    assert!(read >= 20_000, "{read}");
    assert!(engine.cancel(id));
    engine.run(&mut log).unwrap();
    assert_eq!(
        log.ends[0].1.as_ref().unwrap_err().kind(),
        ErrorKind::Cancelled
    );
    assert_at_rest(&mut engine, &network);
    network.sleep(SECOND);
    let ledger = network.ledger();
    let served = ledger.connections().next().unwrap();
    assert!(matches!(served.closed, Some((_, Closed::ResetByClient))));
    assert!(
        served.unread > 1000,
        "there was more in the system's buffer"
    );
    assert!(served.unread <= 3000, "the rest was still with the server");
}

#[test]
fn other_requests_are_not_disturbed() {
    let others = |with: bool| {
        let network = serve(|request| match request.path() {
            "/big" => Answer::ok(vec![b'x'; 100_000]),
            _ => Answer::ok("small").after(7 * MS),
        });
        let mut engine = engine(&network, |_| ());
        let capped = Request::put("http://10.0.0.1/big").body(vec![b'x'; 100_000]);
        if with {
            let capped = capped.upload_rate(1_000).download_rate(1_000).build();
            let mut readback = Taking(network.clone(), Flow::Discard);
            engine.submit(capped.unwrap(), move |log, reply, cx| {
                readback.on_reply(log, reply, cx)
            });
        }
        let times: Rc<RefCell<Vec<Duration>>> = Rc::default();
        let (told, clock) = (times.clone(), network.clone());
        engine.submit(get().build().unwrap(), move |_, reply, cx| {
            assert!(reply.is_ok());
            told.borrow_mut().push(clock.elapsed());
            match told.borrow().len() {
                200 => cx.done(),
                n => cx.again().after(Duration::from_micros(n as u64 * 777)),
            }
        });
        engine.advance(&mut Log::default(), 250 * SECOND).unwrap();
        assert_eq!(engine.pending(), 0);
        times.take()
    };
    assert_eq!(others(true), others(false));
}

#[test]
fn no_deadline_passes_because_of_a_cap() {
    // Half a burst takes five seconds.
    let short = Some(SECOND);
    let network = serve(|_| Answer::ok(vec![b'x'; 3000]));
    let mut engine = engine(&network, |config| {
        let t = &mut config.timeouts;
        (t.write, t.first_byte, t.idle) = (short, short, short);
        t.low_speed = Some(LowSpeed::new(1_000_000, SECOND));
    });
    let put = Request::put("http://10.0.0.1/").body(vec![b'x'; 3000]);
    let put = put.upload_rate(100).download_rate(100);
    submit(&mut engine, &network, put);
    let mut log = Log::default();
    engine.run(&mut log).unwrap();
    let (at, length) = log.only_end();
    assert_eq!(length, 3000);
    assert!(at > 40 * SECOND, "{at:?}");
    assert_at_rest(&mut engine, &network);
}

#[test]
fn deadlines_count_again_while_the_peer_is_waited_for() {
    type Row = (&'static str, fn(&mut Config), &'static str, u32);
    let rows: [Row; 2] = [
        (
            "idle",
            |config| config.timeouts.idle = Some(SECOND),
            "idle timeout of 1s",
            1,
        ),
        (
            "low speed",
            |config| config.timeouts.low_speed = Some(LowSpeed::new(300, SECOND)),
            "slower than 300 bytes/s over 1s (0 bytes/s)",
            // What has been read so far counts towards the first window.
            2,
        ),
    ];
    for (name, change, why, seconds) in rows {
        // The server stops after 3000 bytes. With 100 bytes a second, a burst is read at once, and
        // three times half a burst. Then the cap allows 512 bytes more, 5.12 s later.
        let network = serve(|_| Answer::ok(vec![b'x'; 30_000]).truncate(2_560));
        let mut engine = engine(&network, change);
        submit(&mut engine, &network, get().download_rate(100));
        let mut log = Log::default();
        engine.run(&mut log).unwrap();
        let (at, outcome) = &log.ends[0];
        let error = outcome.as_ref().unwrap_err();
        println!("{name}: {error:#}");
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Timeout, Phase::Body)
        );
        assert!(format!("{error:#}").ends_with(why), "{error:#}");
        assert_eq!(*at, FIRST + 4 * 5120 * MS + seconds * SECOND);
        assert_at_rest(&mut engine, &network);
    }
}

#[test]
fn the_total_deadline_ends_a_capped_exchange_in_its_tick() {
    for rate in [100, 3000] {
        let network = serve(|_| Answer::ok(vec![b'x'; 200_000]));
        let mut engine = engine(&network, |_| ());
        let request = get().download_rate(rate).timeout(10 * SECOND);
        submit(&mut engine, &network, request);
        let mut log = Log::default();
        engine.run(&mut log).unwrap();
        let (at, outcome) = &log.ends[0];
        assert_eq!(*at, 10 * SECOND, "{rate}");
        let error = outcome.as_ref().unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Timeout, Phase::Body)
        );
        assert!(!error.partial_body().is_empty());
        assert_at_rest(&mut engine, &network);
    }
    // The upload, too.
    let network = serve(|_| Answer::ok(""));
    let put = Request::put("http://10.0.0.1/").body(vec![b'x'; 200_000]);
    let log = fetch(&network, put.upload_rate(3000).timeout(10 * SECOND));
    let (at, outcome) = &log.ends[0];
    assert_eq!(*at, 10 * SECOND);
    assert_eq!(outcome.as_ref().unwrap_err().phase(), Phase::Write);
}

/// Pauses at each of the first pieces, and is resumed by the test.
struct Pausing {
    clock: Network,
    pauses: usize,
}

impl Readback<Log> for Pausing {
    fn on_head(&mut self, _: &mut Log, _: &Response<'_>, _: &mut Context<'_, Log>) -> Flow {
        Flow::Stream
    }

    fn on_data(&mut self, log: &mut Log, data: &[u8], _: &mut Context<'_, Log>) -> Flow {
        log.pieces.push((self.clock.elapsed(), data.len()));
        if self.pauses == 0 {
            return Flow::Stream;
        }
        self.pauses -= 1;
        Flow::Pause
    }

    fn on_reply(&mut self, log: &mut Log, reply: Reply<'_>, _: &mut Context<'_, Log>) -> Next<Log> {
        log.ends.push((self.clock.elapsed(), reply.map(|_| 0)));
        Next::done()
    }
}

#[test]
fn a_pause_saves_up_no_more_than_a_burst() {
    for long in [100 * MS, 20 * SECOND] {
        let network = serve(|_| Answer::ok(vec![b'x'; 30_000]));
        let mut engine = engine(&network, |_| ());
        let clock = network.clone();
        let readback = Pausing { clock, pauses: 3 };
        let id = engine.submit_to(get().download_rate(2000).build().unwrap(), readback);
        let mut log = Log::default();
        for pause in 1..=3 {
            for _ in 0..10_000 {
                if engine.stats().paused == 0 {
                    engine.advance(&mut log, MS).unwrap();
                }
            }
            assert_eq!(log.pieces.len(), pause);
            engine.advance(&mut log, long).unwrap();
            assert!(engine.resume(id));
            engine.advance(&mut log, Duration::ZERO).unwrap();
        }
        engine.run(&mut log).unwrap();
        let mut sums: Vec<(Duration, usize)> = log.pieces.clone();
        for at in 1..sums.len() {
            sums[at].1 += sums[at - 1].1;
        }
        assert_eq!(sums.last().unwrap().1, 30_000);
        for from in 0..sums.len() {
            let before = if from == 0 { 0 } else { sums[from - 1].1 };
            for (at, sum) in &sums[from..] {
                let most = 1024.0 + (*at - sums[from].0).as_secs_f64() * 2000.0;
                assert!((sum - before) as f64 <= most + 0.001, "{long:?}: {sums:?}");
            }
        }
        let waited = if long > SECOND {
            3 * long
        } else {
            Duration::ZERO
        };
        let (at, _) = log.only_end();
        assert!(at >= waited + 12_900 * MS, "{at:?}");
        assert!(at <= waited + 16 * SECOND, "{at:?}");
        assert_at_rest(&mut engine, &network);
    }
}

fn path(path: &str) -> RequestBuilder {
    Request::get(format!("http://10.0.0.1/{path}"))
}

#[test]
fn in_a_pipeline_the_cap_of_the_front_applies() {
    let network = serve(|request| {
        Answer::ok(vec![
            b'x';
            match request.path() {
                "/first" => 10_000,
                "/last" => 200_000,
                _ => 20_000,
            }
        ])
    });
    let mut engine = engine(&network, |config| {
        config.pipeline_without_trial("*", 8);
        config.max_connections_per_origin = 1;
    });
    submit(
        &mut engine,
        &network,
        path("first").download_rate(1000).pipeline(8),
    );
    submit(&mut engine, &network, path("uncapped"));
    // What was read with the end of the response before it counts.
    submit(
        &mut engine,
        &network,
        path("last").download_rate(10_000).pipeline(8),
    );
    let mut log = Log::default();
    engine.run(&mut log).unwrap();
    let times: Vec<Duration> = log.ends.iter().map(|(at, _)| *at).collect();
    let first = due(FIRST, 42 + 10_000, 1000);
    println!("{times:?}");
    assert!(
        times[0] >= first && times[0] <= first + 520 * MS,
        "{times:?}"
    );
    assert_eq!(times[1], times[0], "without a cap, all is read at once");
    assert_eq!(times[2], due(times[1], 43 + 200_000, 10_000), "{times:?}");
    assert_eq!(engine.stats().pipelined, 2);
    assert_at_rest(&mut engine, &network);
}

#[test]
fn a_capped_request_is_pipelined_only_if_it_says_so() {
    let connections = |first: RequestBuilder| {
        let network = serve(|_| Answer::ok(vec![b'x'; 3000]));
        let mut engine = engine(&network, |config| config.pipeline_without_trial("*", 8));
        submit(&mut engine, &network, first);
        for _ in 0..3 {
            submit(&mut engine, &network, get());
        }
        engine.run(&mut Log::default()).unwrap();
        (engine.stats().opened, engine.stats().pipelined)
    };
    assert_eq!(connections(get()), (1, 3));
    assert_eq!(connections(get().low_speed(1, SECOND)), (1, 3));
    assert_eq!(connections(get().download_rate(1000)), (2, 2));
    assert_eq!(connections(get().upload_rate(1000)), (2, 2));
    assert_eq!(connections(get().upload_rate(1000).pipeline(8)), (1, 3));
}

#[test]
fn in_a_pipeline_a_capped_upload_is_written_at_the_front_and_alone() {
    for trial in [true, false] {
        let network = serve(|_| Answer::ok("ok").after(2 * MS));
        let mut engine = engine(&network, |config| {
            config.max_connections_per_origin = 1;
            match trial {
                true => config.pipeline("*", 8),
                false => config.pipeline_without_trial("*", 8),
            }
        });
        let put = |to: &str| Request::put(format!("http://10.0.0.1/{to}")).body(vec![b'x'; 5000]);
        let capped = |to| put(to).upload_rate(1000).pipeline(8);
        for request in [
            put("a"),
            capped("b"),
            put("c"),
            put("d"),
            capped("e"),
            capped("f"),
            put("g"),
        ] {
            submit(&mut engine, &network, request);
        }
        let mut log = Log::default();
        engine.run(&mut log).unwrap();
        assert_eq!(log.ends.len(), 7);
        let ledger = network.ledger();
        let arrived: Vec<(&str, Duration)> =
            ledger.requests().map(|it| (it.path(), it.at)).collect();
        println!("{arrived:?}");
        let paths: Vec<&str> = arrived.iter().map(|(path, _)| *path).collect();
        assert_eq!(paths, ["/a", "/b", "/c", "/d", "/e", "/f", "/g"]);
        for at in [1, 4, 5] {
            let took = arrived[at].1 - arrived[at - 1].1;
            assert!(took >= 4_000 * MS, "{at}: {took:?}");
            assert!(took <= 4_200 * MS, "{at}: {took:?}");
        }
        for at in [2, 3, 6] {
            assert!(arrived[at].1 - arrived[at - 1].1 <= 10 * MS, "{arrived:?}");
        }
        // A trial is one send. Otherwise, requests are written while others are unanswered.
        let pipelined = ledger
            .requests()
            .filter(|it| it.pipelined)
            .map(|it| it.path());
        let expected = match trial {
            true => vec!["/d"],
            false => vec!["/c", "/d", "/g"],
        };
        assert_eq!(pipelined.collect::<Vec<_>>(), expected);
        assert_eq!(engine.stats().opened, 1);
        assert_at_rest(&mut engine, &network);
    }
}

#[test]
fn a_body_that_waits_for_a_100_is_capped_from_then_on() {
    for continues in [true, false] {
        let network = serve(|_| Answer::ok("done"));
        let mut engine = engine(&network, |_| ());
        let put = Request::put("http://10.0.0.1/").header("Expect", "100-continue");
        let put = put
            .header("X-Long", "y".repeat(2000))
            .body(vec![b'x'; 3000]);
        submit(
            &mut engine,
            &network,
            put.upload_rate(1000).download_rate(100),
        );
        let mut log = Log::default();
        // The head is written after about a second.
        engine.advance(&mut log, 1_500 * MS).unwrap();
        if continues {
            assert!(network.push(network.connections()[0], "HTTP/1.1 100 Continue\r\n\r\n"));
        }
        engine.run(&mut log).unwrap();
        let (at, _) = log.only_end();
        let sent = due(CONNECTED, engine.stats().bytes_out, 1000);
        // The wait of half a second or a second saves allowance up.
        assert!(at >= sent && at <= sent + 600 * MS, "{at:?}, not {sent:?}");
        assert_at_rest(&mut engine, &network);
    }
}

#[test]
fn a_cap_that_holds_interim_heads_back_does_not_prolong_the_wait_for_a_100() {
    let network = serve(|_| Answer::ok("done"));
    let mut engine = engine(&network, |_| ());
    let put = Request::put("http://10.0.0.1/").header("Expect", "100-continue");
    submit(&mut engine, &network, put.body("x").download_rate(100));
    let mut log = Log::default();
    engine.advance(&mut log, 500 * MS).unwrap();
    let link = "x".repeat(3000);
    let hints = format!("HTTP/1.1 103 Early Hints\r\nLink: <{link}>\r\n\r\n");
    assert!(network.push(network.connections()[0], hints));
    engine.advance(&mut log, 10 * SECOND).unwrap();
    let ledger = network.ledger();
    let arrived: Vec<Duration> = ledger.requests().map(|it| it.at).collect();
    // A second after the head was written, at the latency of half a millisecond.
    assert_eq!(arrived, [CONNECTED + SECOND + MS / 2]);
    engine.run(&mut log).unwrap();
    assert_eq!(log.only_end().1, 4);
    assert_at_rest(&mut engine, &network);
}

/// Answers a request as soon as its head has arrived.
struct Early;

impl httpstream::sim::Server for Early {
    fn on_head(&mut self, _: &Incoming) -> Option<Answer> {
        Some(Answer::ok(vec![b'x'; 5000]).drip(2500, MS))
    }

    fn on_request(&mut self, _: &Incoming) -> Answer {
        Answer::nothing()
    }
}

#[test]
fn an_upload_that_goes_on_behind_a_paused_response_lets_no_deadline_run() {
    let network = Network::new(1);
    let _ = network.serve("10.0.0.1:80".parse().unwrap(), Early);
    let mut engine = engine(&network, |config| config.timeouts.idle = Some(2 * SECOND));
    let put = Request::put("http://10.0.0.1/").body(vec![b'x'; 20_000]);
    let readback = Pausing {
        clock: network.clone(),
        pauses: 1,
    };
    let request = put.upload_rate(100).build().unwrap();
    let id = engine.submit_to(request, readback);
    let mut log = Log::default();
    engine.advance(&mut log, 100 * SECOND).unwrap();
    assert_eq!((log.ends.len(), engine.stats().paused), (0, 1));
    assert!(engine.resume(id));
    engine.run(&mut log).unwrap();
    log.only_end();
    assert_at_rest(&mut engine, &network);
}

#[test]
fn an_upload_that_is_stuck_behind_a_paused_response_has_its_write_deadline() {
    let network = Network::new(1);
    let _ = network
        .serve("10.0.0.1:80".parse().unwrap(), Early)
        .reads_at_most(3000)
        .send_buffer(1000);
    let mut engine = engine(&network, |config| {
        config.timeouts.idle = Some(2 * SECOND);
        config.timeouts.write = Some(5 * SECOND);
    });
    let put = Request::put("http://10.0.0.1/").body(vec![b'x'; 20_000]);
    let readback = Pausing {
        clock: network.clone(),
        pauses: 1,
    };
    engine.submit_to(put.upload_rate(10_000).build().unwrap(), readback);
    let mut log = Log::default();
    engine.run(&mut log).unwrap();
    let (at, outcome) = &log.ends[0];
    assert_eq!(outcome.as_ref().unwrap_err().kind(), ErrorKind::Timeout);
    assert!(*at >= 5 * SECOND && *at <= 6 * SECOND, "{at:?}");
    assert_at_rest(&mut engine, &network);
}

#[test]
fn each_request_of_a_chain_has_a_cap_of_its_own() {
    let network = serve(|_| Answer::ok(vec![b'x'; 3000]));
    let mut engine = engine(&network, |_| ());
    let request = get().download_rate(1000).build().unwrap();
    let clock = network.clone();
    engine.submit(request, move |log: &mut Log, reply, cx| {
        log.ends.push((clock.elapsed(), reply.map(|_| 0)));
        match log.ends.len() {
            4 => cx.done(),
            2 => cx.again().after(SECOND),
            _ => cx.again(),
        }
    });
    let mut log = Log::default();
    engine.run(&mut log).unwrap();
    let times: Vec<Duration> = log.ends.iter().map(|(at, _)| *at).collect();
    // The first is connected first.
    let each = times[1] - times[0];
    assert!(each > 2_000 * MS, "{times:?}");
    assert!(times[0] - each <= 2 * MS, "{times:?}");
    for (took, expected) in [
        (times[2] - times[1], each + SECOND),
        (times[3] - times[2], each),
    ] {
        assert!(took <= expected + MS && took + MS >= expected, "{times:?}");
    }
    assert_at_rest(&mut engine, &network);
}

#[test]
fn each_attempt_has_a_cap_of_its_own() {
    // The second request finds its connection closed, and is sent once more.
    let mut count = 0;
    let network = serve(move |_| {
        count += 1;
        match count {
            1 => Answer::ok("first"),
            2 => Answer::nothing().close(),
            _ => Answer::ok(vec![b'x'; 4000]),
        }
    });
    let mut engine = engine(&network, |_| ());
    let mut log = Log::default();
    for _ in 0..2 {
        let put = Request::put("http://10.0.0.1/").body(vec![b'x'; 3000]);
        submit(
            &mut engine,
            &network,
            put.upload_rate(1000).download_rate(1000),
        );
        engine.run(&mut log).unwrap();
    }
    assert_eq!(engine.stats().retried, 1);
    assert!(matches!(log.ends[1].1, Ok(4000)));
    let ledger = network.ledger();
    let arrived: Vec<Duration> = ledger.requests().map(|it| it.at).collect();
    // Each attempt takes as long as the first request, except for the connection.
    let took = arrived[0] - CONNECTED;
    for (attempt, begun) in [(1, log.ends[0].0), (2, arrived[1] + MS)] {
        let differs = (arrived[attempt] - begun).abs_diff(took);
        assert!(differs <= 3 * MS, "{arrived:?}, {:?}", log.ends[0].0);
    }
    assert_at_rest(&mut engine, &network);
}

/// Writes to its tunnel, and records what it hears.
struct Tunnel(Network);

impl Readback<Log> for Tunnel {
    fn on_head(&mut self, _: &mut Log, head: &Response<'_>, cx: &mut Context<'_, Log>) -> Flow {
        assert_eq!(head.status(), 101);
        assert_eq!(cx.write(cx.id(), &[b'y'; 5000]), Some(5000));
        Flow::Stream
    }

    fn on_data(&mut self, log: &mut Log, data: &[u8], _: &mut Context<'_, Log>) -> Flow {
        log.pieces.push((self.0.elapsed(), data.len()));
        Flow::Stream
    }

    fn on_reply(&mut self, log: &mut Log, reply: Reply<'_>, _: &mut Context<'_, Log>) -> Next<Log> {
        log.ends.push((self.0.elapsed(), reply.map(|_| 0)));
        Next::done()
    }
}

#[test]
fn a_tunnel_is_capped_in_both_directions() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
    let network = serve(move |_| Answer::raw(format!("{head}{}", "z".repeat(8000))));
    let mut engine = engine(&network, |config| config.timeouts.idle = Some(4 * SECOND));
    let request = get().header("Upgrade", "x");
    let request = request
        .upload_rate(1000)
        .download_rate(2000)
        .build()
        .unwrap();
    engine.submit_to(request, Tunnel(network.clone()));
    let mut log = Log::default();
    engine.run(&mut log).unwrap();
    let stats = engine.stats();
    assert_eq!(
        log.pieces.iter().map(|(_, bytes)| bytes).sum::<usize>(),
        8000
    );
    for (at, sum) in log.pieces.iter().scan(0, |sum, (at, bytes)| {
        *sum += bytes;
        Some((*at, *sum))
    }) {
        let most = 1024.0 + (at - FIRST).as_secs_f64() * 2000.0;
        assert!(sum as f64 <= most, "{sum} at {at:?}");
    }
    // Nothing has come for four seconds after the last byte, although bytes were still written.
    let (at, outcome) = &log.ends[0];
    let error = outcome.as_ref().unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Timeout, Phase::Body)
    );
    let last = log.pieces.last().unwrap().0;
    assert!(
        *at >= last + 4 * SECOND && *at <= last + 4_300 * MS,
        "{at:?}, {last:?}"
    );
    assert!(stats.bytes_out > 5000, "{stats:?}");
    assert_at_rest(&mut engine, &network);
}

#[test]
fn what_a_tunnel_writes_takes_its_time() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
    let network = serve(move |_| Answer::raw(head));
    let mut engine = engine(&network, |_| ());
    let request = get()
        .header("Upgrade", "x")
        .upload_rate(1000)
        .build()
        .unwrap();
    engine.submit_to(request, Tunnel(network.clone()));
    let mut log = Log::default();
    let mut before = 0;
    for millis in (0..5000).step_by(100) {
        engine.advance(&mut log, 100 * MS).unwrap();
        let out = engine.stats().bytes_out;
        let most = 1024 + millis + 100;
        assert!(out <= most, "{out} bytes after {millis} ms");
        before = before.max(out);
    }
    let head = before - 5000;
    assert!(head < 200, "all of it has been written: {before}");
    engine.cancel_all();
    engine.run(&mut log).unwrap();
    assert_at_rest(&mut engine, &network);
}

#[test]
fn a_host_that_is_late_reads_no_more_than_a_burst() {
    let network = serve(|_| Answer::ok(vec![b'x'; 100_000]));
    let mut engine = engine(&network, |_| ());
    submit(&mut engine, &network, get().download_rate(10_000));
    let mut log = Log::default();
    engine.advance(&mut log, SECOND).unwrap();
    let before = engine.stats().bytes_in;
    network.sleep(30 * SECOND);
    engine.advance(&mut log, Duration::ZERO).unwrap();
    assert_eq!(engine.stats().bytes_in - before, burst(10_000));
    engine.run(&mut log).unwrap();
    assert_eq!(log.only_end().1, 100_000);
}

#[test]
fn a_total_deadline_that_a_late_host_finds_passed_takes_effect_in_that_turn() {
    let network = serve(|_| Answer::ok(vec![b'x'; 100_000]));
    let mut engine = engine(&network, |_| ());
    let request = get().download_rate(1000).timeout(5 * SECOND);
    submit(&mut engine, &network, request);
    let mut log = Log::default();
    engine.advance(&mut log, SECOND).unwrap();
    network.sleep(30 * SECOND);
    // The cap allows a burst again, and holds the rest back.
    for _ in 0..5 {
        engine.turn(&mut log).unwrap();
    }
    assert!(log.ends[0].1.is_err());
    assert_at_rest(&mut engine, &network);
}

#[test]
fn on_loopback_the_server_has_to_wait() {
    // More than the system's buffers hold.
    const LENGTH: usize = 64 << 20;
    let has_sent = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&has_sent);
    let server = Server::start(move |peer| {
        peer.request();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        peer.send(head.as_bytes());
        told.store(peer.send(&vec![b'x'; LENGTH]), Ordering::Release);
    });
    let mut bench = Bench::new();
    let request = Request::get(server.url("/")).download_rate(200_000).build();
    let begun = Instant::now();
    let id = bench.submit(request.unwrap());
    let end = begun + Duration::from_millis(600);
    bench.until("some time is over", |_, _| Instant::now() > end);
    let stats = bench.stats();
    assert!(!has_sent.load(Ordering::Acquire));
    let most = 25_000.0 + begun.elapsed().as_secs_f64() * 200_000.0;
    assert!(stats.bytes_in as f64 <= most, "{stats:?}");
    assert!(stats.bytes_in >= 25_000, "{stats:?}");
    bench.engine.cancel(id);
    bench.replies(1);
    assert_eq!(bench.log.kinds(), [ErrorKind::Cancelled]);
    bench.assert_empty();
}

#[test]
fn on_loopback_bodies_arrive_whole_in_both_directions() {
    let server = Server::start(|peer| {
        while let Some(head) = peer.head() {
            let body = peer.body(60_000);
            assert!(body.iter().enumerate().all(|(i, b)| *b == (i % 251) as u8));
            peer.tell(head, Vec::new());
            let body: String = (0..60_000)
                .map(|i| char::from(b'a' + (i % 26) as u8))
                .collect();
            peer.send(&ok(&body));
        }
    });
    let mut bench = Bench::new();
    let body: Vec<u8> = (0..60_000).map(|i| (i % 251) as u8).collect();
    let put = Request::put(server.url("/")).body(body);
    let put = put
        .upload_rate(200_000)
        .download_rate(200_000)
        .build()
        .unwrap();
    for reused in [false, true] {
        let (begun, before) = (Instant::now(), bench.stats().turns);
        let got = bench.fetch_ok(put.clone());
        // Never sooner than the caps allow: 25,000 bytes go at once in each direction.
        assert!(begun.elapsed() >= 2 * Duration::from_millis(175));
        // It sleeps in between. (`Bench` makes at least twenty turns a second.)
        let turns = bench.stats().turns - before;
        let most = 300 + begun.elapsed().as_millis() as u64 / 10;
        assert!(turns <= most, "{turns} turns");
        assert_eq!((got.body.len(), got.reused), (60_000, reused));
        let right = |(i, b): (usize, &u8)| *b == b'a' + (i % 26) as u8;
        assert!(got.body.iter().enumerate().all(right));
    }
    bench.assert_empty();
}

/// Answers the head of a request, and resets the connection.
struct Impatient;

impl httpstream::sim::Server for Impatient {
    fn on_head(&mut self, _: &Incoming) -> Option<Answer> {
        Some(Answer::ok("some of the body").truncate(45).reset())
    }

    fn on_request(&mut self, _: &Incoming) -> Answer {
        unreachable!("the head has been answered")
    }
}

/// Pauses at the head.
struct Paused;

impl Readback<Log> for Paused {
    fn on_head(&mut self, _: &mut Log, _: &Response<'_>, _: &mut Context<'_, Log>) -> Flow {
        Flow::Pause
    }

    fn on_reply(&mut self, log: &mut Log, reply: Reply<'_>, _: &mut Context<'_, Log>) -> Next<Log> {
        log.ends.push((Duration::ZERO, reply.map(|_| 0)));
        Next::done()
    }
}

/// The cap lets go of a request whose connection has been reset during a pause.
#[test]
fn a_request_that_cannot_be_written_any_more_does_not_time_out_in_a_pause() {
    let network = Network::new(1);
    network.serve(([10, 0, 0, 1], 80).into(), Impatient);
    let mut engine = engine(&network, |_| {});
    let request = Request::post("http://10.0.0.1/")
        .body(vec![0; 3000])
        .upload_rate(1000)
        .low_speed(1, SECOND)
        .timeouts(|t| (t.write, t.idle, t.total) = (Some(SECOND), Some(SECOND), None));
    let chain = engine.submit_to(request.build().unwrap(), Paused);
    let mut log = Log::default();
    engine.advance(&mut log, 1000 * SECOND).unwrap();
    assert!(log.ends.is_empty(), "{:?}", log.ends);
    // Resumed, it learns of the reset.
    assert!(engine.resume(chain));
    engine.run(&mut log).unwrap();
    let error = log.ends[0].1.as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated, "{error:#}");
}
