//! `Timeouts::low_speed`, on the simulated network, where every time is exact.

use std::time::Duration;

use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    Config, Context, Engine, Error, ErrorKind, Flow, LowSpeed, Next, Phase, Readback, Reply,
    Request, RequestBuilder, Response, Sent, Sim, Timeouts,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// When the first byte of a response arrives, at the latency of 0.5 ms: after the handshake, the
/// request, and the response.
const FIRST: Duration = Duration::from_millis(2);

/// How an exchange ended, and when.
#[derive(Debug)]
struct End {
    at: Duration,
    /// The body's length, or the error.
    outcome: Result<usize, Error>,
}

impl End {
    fn error(&self) -> &Error {
        self.outcome.as_ref().unwrap_err()
    }

    #[track_caller]
    fn assert_slow(&self, at: Duration, phase: Phase, why: &str) {
        let error = self.error();
        assert_eq!((error.kind(), error.phase()), (ErrorKind::Timeout, phase));
        let source = std::error::Error::source(error).unwrap();
        assert_eq!(source.to_string(), why);
        assert_eq!(self.at, at);
    }

    #[track_caller]
    fn assert_length(&self, length: usize) {
        match &self.outcome {
            Ok(len) => assert_eq!(*len, length),
            Err(error) => panic!("at {:?}: {error:#}", self.at),
        }
    }
}

type Ends = Vec<End>;

/// Has no other deadline than the low speed.
fn engine(network: &Network, low_speed: Option<LowSpeed>) -> Engine<Ends, Sim> {
    let mut config = Config::default();
    let t = &mut config.timeouts;
    (t.write, t.first_byte, t.idle, t.total) = (None, None, None, None);
    t.low_speed = low_speed;
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

fn submit(engine: &mut Engine<Ends, Sim>, network: &Network, request: RequestBuilder) {
    let network = network.clone();
    engine.submit(
        request.build().unwrap(),
        move |ends: &mut Ends, reply, _| {
            ends.push(End {
                at: network.elapsed(),
                outcome: reply.map(|response| response.body().len()),
            });
            Next::done()
        },
    );
}

/// Runs one request to its end, after which nothing must be left.
fn fetch(network: &Network, low_speed: Option<LowSpeed>, request: RequestBuilder) -> End {
    let mut engine = engine(network, low_speed);
    submit(&mut engine, network, request);
    let mut ends = Vec::new();
    engine.run(&mut ends).unwrap();
    engine.close_idle();
    assert_eq!(engine.next_deadline(), None, "no timer is left");
    assert_eq!(network.misuses(), []);
    ends.pop().unwrap()
}

fn low(bytes_per_second: u64, window: Duration) -> Option<LowSpeed> {
    Some(LowSpeed::new(bytes_per_second, window))
}

/// Sends `first` at once, and then a byte of `rest` a second.
fn dribble(first: &str, rest: &str) -> Answer {
    let wire = format!("{first}{rest}");
    let answer = Answer::raw(wire);
    (first.len()..first.len() + rest.len()).fold(answer, |answer, at| answer.pause(at, SECOND))
}

#[test]
fn a_byte_a_second_for_ever_ends_after_one_window_wherever_it_comes() {
    let many = "x".repeat(5000);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let rows = [
        ("status line", "H", "TTP/1.1 200 OK\r\n", &many, Phase::Head),
        ("field", "HTTP/1.1 200 OK\r\n", "A: ", &many, Phase::Head),
        (
            "body of known length",
            "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
            "",
            &many,
            Phase::Body,
        ),
        (
            "body until the close",
            "HTTP/1.1 200 OK\r\n\r\n",
            "",
            &many,
            Phase::Body,
        ),
        ("chunk", chunked, "ffff\r\n", &many, Phase::Body),
        (
            "chunk of one byte",
            chunked,
            "",
            &"1\r\nx\r\n".repeat(900),
            Phase::Body,
        ),
        ("chunk extension", chunked, "5;", &many, Phase::Body),
        ("chunk size", chunked, "", &"0".repeat(12), Phase::Body),
        ("trailer", chunked, "0\r\nA: ", &many, Phase::Body),
        (
            "interim heads",
            "HTTP/1.1 103 Early Hints\r\n",
            "Link: ",
            &many,
            Phase::Head,
        ),
    ];
    for (name, first, begun, rest, phase) in rows {
        let first = format!("{first}{begun}");
        let length = first.len();
        // The tenth byte arrives just as the window ends, and counts: it is read first.
        let speed = (length + 10) / 10;
        let rest = rest.clone();
        let network = serve(move |_| dribble(&first, &rest));
        let end = fetch(&network, low(100, 10 * SECOND), get());
        let why = format!("slower than 100 bytes/s over 10s ({speed} bytes/s)");
        println!("{name}");
        end.assert_slow(FIRST + 10 * SECOND, phase, &why);
        assert_eq!(end.error().request_sent(), Sent::Yes, "{name}");
    }
}

/// Answers with a body of which this many bytes arrive at these times after the head.
fn body_at(times: &[(u64, usize)]) -> Answer {
    let length: usize = times.iter().map(|(_, bytes)| bytes).sum();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let mut answer = Answer::raw(format!("{head}{}", "x".repeat(length)));
    let (mut place, mut before) = (head.len(), 0);
    for (ms, bytes) in times {
        let pause = Duration::from_millis(ms - before);
        (answer, before) = (answer.pause(place, pause), *ms);
        place += bytes;
    }
    answer
}

#[test]
fn each_window_is_judged_by_its_own_bytes_and_at_its_end() {
    /// The millisecond and the number of bytes of each piece, and the second and the speed of the
    /// failure.
    type Row = (&'static str, &'static [(u64, usize)], Option<(u64, u64)>);
    let rows: &[Row] = &[
        (
            "slow, then fast, in each window",
            &[(9_900, 1000), (19_900, 1000), (29_900, 1000)],
            None,
        ),
        (
            "fast, then slow, within a window",
            &[(1, 1000), (9_999, 1)],
            None,
        ),
        (
            "all at the last moment",
            &[(10_000, 1000), (20_000, 1000), (20_001, 1)],
            None,
        ),
        ("a millisecond too late", &[(10_001, 1000)], Some((10, 4))),
        // The head counts towards the first window: 40 bytes of it.
        (
            "a byte less than that",
            &[(9_000, 959), (15_000, 1)],
            Some((10, 99)),
        ),
        ("exactly that", &[(9_000, 960), (15_000, 1)], None),
        (
            "bytes are not carried over",
            &[(1_000, 5000), (19_000, 999), (25_000, 1)],
            Some((20, 99)),
        ),
        (
            "the third",
            &[(1, 1000), (11_000, 1000), (40_000, 1)],
            Some((30, 0)),
        ),
    ];
    for (name, times, fails) in rows {
        let network = serve(|_| body_at(times));
        let end = fetch(&network, low(100, 10 * SECOND), get());
        println!("{name}");
        match fails {
            None => end.assert_length(times.iter().map(|(_, bytes)| bytes).sum()),
            Some((seconds, speed)) => {
                let why = format!("slower than 100 bytes/s over 10s ({speed} bytes/s)");
                end.assert_slow(FIRST + *seconds as u32 * SECOND, Phase::Body, &why);
            }
        }
    }
}

#[test]
fn the_wait_for_a_response_has_no_speed() {
    let hour = 3600 * SECOND;
    for interims in [0, 3] {
        let network = serve(move |_| {
            let answer = Answer::ok("news").after(hour);
            (0..interims).fold(answer, |answer, _| answer.interim(103, &[]))
        });
        fetch(&network, low(1000, SECOND), get()).assert_length(4);
        assert!(network.elapsed() > hour);
    }
    // Nor has the wait for a 100 (Continue), which takes a second and never comes.
    let network = serve(|_| Answer::ok("done"));
    let post = Request::post("http://10.0.0.1/").header("Expect", "100-continue");
    fetch(&network, low(1000, 100 * MS), post.body("x")).assert_length(4);
    assert!(network.elapsed() > SECOND);
}

/// Pauses at the first piece of the body.
struct Pausing(Network, bool);

impl Readback<Ends> for Pausing {
    fn on_head(&mut self, _: &mut Ends, _: &Response<'_>, _: &mut Context<'_, Ends>) -> Flow {
        Flow::Stream
    }

    fn on_data(&mut self, _: &mut Ends, _: &[u8], _: &mut Context<'_, Ends>) -> Flow {
        match std::mem::replace(&mut self.1, true) {
            false => Flow::Pause,
            true => Flow::Stream,
        }
    }

    fn on_reply(
        &mut self,
        ends: &mut Ends,
        reply: Reply<'_>,
        _: &mut Context<'_, Ends>,
    ) -> Next<Ends> {
        ends.push(End {
            at: self.0.elapsed(),
            outcome: reply.map(|response| response.body().len()),
        });
        Next::done()
    }
}

#[test]
fn time_in_which_the_readback_has_paused_does_not_count() {
    // Pauses 4 s after the head, for 100 s.
    for (last, fails) in [(150_000, true), (109_000, false)] {
        let network = serve(move |_| body_at(&[(4_000, 10), (5_000, 500), (last, 490)]));
        let mut engine = engine(&network, low(100, 10 * SECOND));
        let readback = Pausing(network.clone(), false);
        let id = engine.submit_to(get().build().unwrap(), readback);
        let mut ends = Vec::new();
        engine.advance(&mut ends, FIRST + 104 * SECOND).unwrap();
        assert_eq!((ends.len(), engine.stats().paused), (0, 1));
        assert_eq!(engine.next_deadline(), None, "a pause has no window");
        assert!(engine.resume(id));
        engine.run(&mut ends).unwrap();
        let end = ends.pop().unwrap();
        match fails {
            true => {
                let why = "slower than 100 bytes/s over 10s (55 bytes/s)";
                end.assert_slow(FIRST + 110 * SECOND, Phase::Body, why);
            }
            false => end.assert_length(0),
        }
    }
}

#[test]
fn a_tunnel_has_no_speed() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
    let network = serve(move |_| Answer::raw(format!("{head}ab")).drip(30, SECOND).close());
    let mut engine = engine(&network, low(1000, 10 * SECOND));
    let request = get().header("Upgrade", "x").build().unwrap();
    engine.submit_to(request, Pausing(network.clone(), true));
    let mut ends = Vec::new();
    engine.advance(&mut ends, 2 * SECOND).unwrap();
    assert_eq!(ends.len(), 1, "the server closes it");

    let network = serve(move |_| Answer::raw(head).drip(30, SECOND));
    let mut engine = self::engine(&network, low(1000, 10 * SECOND));
    let request = get().header("Upgrade", "x").build().unwrap();
    engine.submit_to(request, Pausing(network.clone(), true));
    engine.advance(&mut ends, 1000 * SECOND).unwrap();
    assert_eq!((ends.len(), engine.pending()), (1, 1));
    assert_eq!(engine.next_deadline(), None);
}

/// A server that reads slowly, and a client's send buffer of 300 bytes.
fn slow_reader(bytes: usize, every: Duration) -> Network {
    let network = serve(|request| Answer::ok(request.body().len().to_string()));
    let _ = network
        .serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| {
            Answer::ok(request.body().len().to_string())
        })
        .send_buffer(300)
        .reads_slowly(bytes, every);
    network
}

#[test]
fn an_upload_to_a_peer_that_reads_a_byte_a_second_ends_after_a_window() {
    let post = || Request::post("http://10.0.0.1/").body(vec![b'x'; 5000]);
    // The connection is established after a millisecond, and takes 300 bytes at once. That is less
    // than a window needs.
    let end = fetch(&slow_reader(1, SECOND), low(50, 10 * SECOND), post());
    let why = "slower than 50 bytes/s over 10s (30 bytes/s)";
    end.assert_slow(MS + 10 * SECOND, Phase::Write, why);
    assert_eq!(end.error().request_sent(), Sent::Maybe);
    // They suffice for one window. In the next, the socket does not report the little room that it
    // has, which is used when the window ends.
    let end = fetch(&slow_reader(1, SECOND), low(30, 10 * SECOND), post());
    let why = "slower than 30 bytes/s over 10s (1 bytes/s)";
    end.assert_slow(MS + 20 * SECOND, Phase::Write, why);
    // A peer that reads faster than required may take as long as it needs.
    let end = fetch(&slow_reader(40, SECOND), low(30, 10 * SECOND), post());
    end.assert_length(4);
    assert!(end.at > 110 * SECOND);
    // A byte a second that is required, and comes.
    let end = fetch(&slow_reader(10, SECOND), low(1, 30 * SECOND), post());
    end.assert_length(4);
}

#[test]
fn a_request_has_its_own_low_speed_or_that_of_the_engine() {
    let engine = low(100, 10 * SECOND);
    let long = Some(Duration::MAX);
    let other = |t: &mut Timeouts| t.low_speed = low(100, 20 * SECOND);
    let none = |t: &mut Timeouts| t.low_speed = None;
    let rows: Vec<(&str, Option<LowSpeed>, RequestBuilder, Option<u32>)> = vec![
        ("the engine's", engine, get(), Some(10)),
        (
            "its own",
            engine,
            get().low_speed(100, 20 * SECOND),
            Some(20),
        ),
        (
            "its own, in a change",
            engine,
            get().timeouts(other),
            Some(20),
        ),
        (
            "only its own",
            None,
            get().low_speed(100, 20 * SECOND),
            Some(20),
        ),
        ("none", None, get(), None),
        ("none, at zero", engine, get().low_speed(0, SECOND), None),
        ("none, in a change", engine, get().timeouts(none), None),
        (
            "a window for ever",
            engine,
            get().low_speed(1, Duration::MAX),
            None,
        ),
        ("the engine's at zero", low(0, SECOND), get(), None),
        (
            "the engine's, in a change of another",
            engine,
            get().timeouts(|t| t.idle = long),
            Some(10),
        ),
        (
            "the last one",
            engine,
            get().low_speed(1, SECOND).low_speed(100, 30 * SECOND),
            Some(30),
        ),
    ];
    for (name, engine, request, fails) in rows {
        println!("{name}");
        let network = serve(|_| body_at(&[(40_000, 10)]));
        let edited = request.build().unwrap().edit();
        let end = fetch(&network, engine, edited);
        match fails {
            Some(seconds) => assert_eq!(end.at, FIRST + seconds * SECOND),
            None => end.assert_length(10),
        }
    }
}

#[test]
fn a_late_host_reads_what_has_arrived_before_it_judges() {
    // The host is away from the third second on: until shortly after the end of the window, or for
    // longer.
    for (away, bytes, fails) in [
        (7_500, 1000, false),
        (7_500, 900, true),
        (17_000, 1000, false),
        // The absence may have kept the server from sending more, so it has another window.
        (17_000, 900, false),
    ] {
        let network = serve(move |_| body_at(&[(4_000, bytes), (22_000, 1000)]));
        let mut engine = engine(&network, low(100, 10 * SECOND));
        let mut ends = Vec::new();
        submit(&mut engine, &network, get());
        engine.advance(&mut ends, 3 * SECOND).unwrap();
        network.sleep(away * MS);
        engine.advance(&mut ends, Duration::ZERO).unwrap();
        println!("{away} ms, {bytes} bytes: {ends:?}");
        if fails {
            let why = "slower than 100 bytes/s over 10s (89 bytes/s)";
            ends[0].assert_slow((3_000 + away) * MS, Phase::Body, why);
            continue;
        }
        assert_eq!(ends.len(), 0);
        engine.run(&mut ends).unwrap();
        match away {
            // The second window has no bytes up to its end.
            7_500 => assert_eq!(ends[0].at, (20_500) * MS),
            _ => ends[0].assert_length(bytes + 1000),
        }
    }
}

#[test]
fn a_host_that_is_always_late_excuses_a_slow_peer_only_once() {
    let network = serve(|_| body_at(&[(1_000_000, 1000)]));
    let mut engine = engine(&network, low(100, 10 * SECOND));
    submit(&mut engine, &network, get());
    let mut ends = Vec::new();
    engine.advance(&mut ends, SECOND).unwrap();
    for turns in 0..4 {
        network.sleep(15 * SECOND);
        engine.advance(&mut ends, Duration::ZERO).unwrap();
        assert_eq!(ends.len(), usize::from(turns > 0));
        if turns == 1 {
            ends[0].assert_slow(
                31 * SECOND,
                Phase::Body,
                "slower than 100 bytes/s over 10s (0 bytes/s)",
            );
        }
    }
}

#[test]
fn what_arrives_in_many_small_reads_is_read_before_the_window_is_judged() {
    let network = serve(|_| body_at(&[(9_900, 100_000)]));
    let mut config = Config::default();
    config.turn_bytes = 100;
    config.timeouts.low_speed = low(9_000, 10 * SECOND);
    let mut engine = Engine::<Ends, Sim>::on_network(&network, config).unwrap();
    submit(&mut engine, &network, get());
    let mut ends = Vec::new();
    engine.advance(&mut ends, 3 * SECOND).unwrap();
    // The host is too little late to be excused.
    network.sleep(7_500 * MS);
    engine.run(&mut ends).unwrap();
    ends[0].assert_length(100_000);
}

#[test]
fn the_bytes_of_a_request_do_not_count_for_its_response() {
    // The cap has no effect, except that the request is measured to its end.
    let network = serve(|_| body_at(&[(50_000, 10)]).after(100 * SECOND));
    let put = Request::put("http://10.0.0.1/").body(vec![b'x'; 500_000]);
    let end = fetch(&network, low(1000, 10 * SECOND), put.upload_rate(1 << 40));
    let why = "slower than 1000 bytes/s over 10s (3 bytes/s)";
    assert!(
        end.at >= 110 * SECOND && end.at <= 111 * SECOND,
        "{:?}",
        end.at
    );
    let error = end.error();
    assert!(format!("{error:#}").ends_with(why), "{error:#}");
}

#[test]
fn a_head_that_was_written_in_pieces_has_no_speed_while_its_body_waits() {
    let network = serve(|_| Answer::ok("done"));
    let put = Request::put("http://10.0.0.1/").header("Expect", "100-continue");
    let put = put.header("X-Long", "y".repeat(2000)).body("x");
    let end = fetch(&network, low(1 << 20, 500 * MS), put.upload_rate(1000));
    end.assert_length(4);
    assert!(end.at > 2 * SECOND, "{:?}", end.at);
}

#[test]
fn a_slow_peer_costs_no_other_connection() {
    let network = slow_reader(1, SECOND);
    // Two connections become idle, and a request on one of them is slow.
    let mut engine = engine(&network, low(100, 10 * SECOND));
    let mut ends = Vec::new();
    for _ in 0..2 {
        submit(&mut engine, &network, get().low_speed(0, SECOND));
    }
    engine.run(&mut ends).unwrap();
    assert_eq!(engine.stats().links_idle, 2);
    submit(
        &mut engine,
        &network,
        Request::put("http://10.0.0.1/").body(vec![b'x'; 5000]),
    );
    engine.advance(&mut ends, 30 * SECOND).unwrap();
    assert_eq!(ends[2].error().phase(), Phase::Write);
    assert!(ends[2].error().reused_connection());
    assert_eq!(engine.stats().links_idle, 1);
}

#[test]
fn a_slow_response_in_front_of_a_pipeline_sends_those_behind_it_elsewhere() {
    let network = serve(|request| match request.path() {
        "/slow" => dribble(
            "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
            &"x".repeat(500),
        ),
        _ => Answer::ok("fast"),
    });
    let mut config = Config::default();
    config.pipeline_without_trial("*", 8);
    config.max_connections_per_origin = 1;
    config.timeouts.low_speed = low(100, 10 * SECOND);
    let mut engine = Engine::<Ends, Sim>::on_network(&network, config).unwrap();
    submit(&mut engine, &network, Request::get("http://10.0.0.1/slow"));
    for _ in 0..3 {
        submit(&mut engine, &network, get());
    }
    let mut ends = Vec::new();
    engine.run(&mut ends).unwrap();
    assert_eq!(ends.len(), 4);
    let slow = ends.iter().position(|end| end.outcome.is_err()).unwrap();
    assert_eq!(ends[slow].at, FIRST + 10 * SECOND);
    for end in ends.iter().filter(|end| end.outcome.is_ok()) {
        end.assert_length(4);
        assert!(end.at > FIRST + 10 * SECOND);
    }
    assert_eq!(engine.stats().opened, 2);
}

#[test]
fn a_window_belongs_to_one_exchange() {
    // Each exchange of the chain takes 6 s, with 240 bytes: more than the speed, but less than a
    // window's bytes.
    let network = serve(|_| body_at(&[(6_000, 200)]));
    let mut engine = engine(&network, low(30, 10 * SECOND));
    engine.submit(get().build().unwrap(), |ends: &mut Ends, reply, cx| {
        let outcome = reply.map(|response| response.body().len());
        ends.push(End {
            at: Duration::ZERO,
            outcome,
        });
        match ends.len() {
            5 => cx.done(),
            _ => cx.again(),
        }
    });
    let mut ends = Vec::new();
    engine.run(&mut ends).unwrap();
    assert!(ends.iter().all(|end| end.outcome.is_ok()), "{ends:?}");
}
