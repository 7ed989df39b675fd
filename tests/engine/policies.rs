//! Policies: the work done for a request besides sending it, tested on whole engines.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, UNIX_EPOCH};

use httpstream::policy::{
    Decoder, Fields, Lane, Policy, Progress, Screening, Start, Ticket, Verdict, Visit,
};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    Config, Context, Engine, Error, ErrorKind, Flow, Moment, Next, Phase, Readback, Reply, Request,
    RequestBuilder, Response, Sim,
};

use crate::visits::{at_end, on_send};

const SECOND: Duration = Duration::from_secs(1);

/// The results of readbacks: bodies, and kinds of errors.
type Told = Vec<Result<String, ErrorKind>>;

fn simulated<S>(server: impl Fn(&Incoming) -> Answer + 'static) -> (Network, Engine<S, Sim>) {
    simulated_with(Config::default(), server)
}

fn simulated_with<S>(
    config: Config,
    server: impl Fn(&Incoming) -> Answer + 'static,
) -> (Network, Engine<S, Sim>) {
    let network = Network::new(1);
    let addr: SocketAddr = "192.0.2.1:80".parse().unwrap();
    network.serve(addr, move |incoming: &Incoming| server(incoming));
    let engine = Engine::on_network(&network, config).unwrap();
    (network, engine)
}

fn get(path: &str) -> RequestBuilder {
    Request::get(format!("http://192.0.2.1{path}"))
}

fn build(request: RequestBuilder, policy: impl Policy + 'static) -> Request {
    request.policy(Arc::new(policy)).build().unwrap()
}

fn note(told: &mut Told, reply: Reply<'_>, _: &mut Context<'_, Told>) -> Next<Told> {
    told.push(match reply {
        Ok(response) => Ok(response.text().unwrap().to_owned()),
        Err(error) => Err(error.kind()),
    });
    Next::done()
}

fn ok(body: &str) -> Result<String, ErrorKind> {
    Ok(body.to_owned())
}

/// Adds a numbered signature over method, target, body and time of day.
#[derive(Clone, Default)]
struct Sign {
    signed: Arc<AtomicUsize>,
}

impl Visit for Sign {
    fn on_send(
        &mut self,
        request: &Request,
        fields: &mut Fields<'_>,
        at: &Moment<'_>,
    ) -> Result<(), Error> {
        let time = at.wall_clock().duration_since(UNIX_EPOCH).unwrap();
        let body = request.body().map_or(0, <[u8]>::len);
        let n = self.signed.fetch_add(1, Ordering::Relaxed) + 1;
        fields.add("X-Key", "bot")?;
        fields.add_fmt(
            "X-Signature",
            format_args!(
                "{n} {} {} {body} {}",
                request.method(),
                request.target(),
                time.as_secs()
            ),
        )
    }
}

fn echo_signature(seen: &Incoming) -> Answer {
    let field = |name| String::from_utf8_lossy(seen.header(name).unwrap_or(b"-")).into_owned();
    Answer::ok(format!(
        "{}; {}; {}",
        field("X-Key"),
        field("X-Signature"),
        field("User-Agent")
    ))
}

#[test]
fn a_policy_signs_each_attempt() {
    let (network, mut engine) = simulated(echo_signature);
    let post = Request::post("http://192.0.2.1/orders?a=b").body("buy 1");
    let request = build(post, Sign::default());
    let mut left = 2;
    engine.submit(request, move |told: &mut Told, reply, cx| {
        left -= 1;
        let _ = note(told, reply, cx);
        match left {
            0 => cx.done(),
            _ => cx.again().after(SECOND),
        }
    });
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    // Midnight at the beginning of 2013, and a second later; default fields are sent as well.
    let agent = concat!("httpstream/", env!("CARGO_PKG_VERSION"));
    let expected = [1, 2].map(|n| {
        let time = 1_356_998_399 + n;
        ok(&format!("bot; {n} POST /orders?a=b 5 {time}; {agent}"))
    });
    assert_eq!(told, expected);
    assert!(network.misuses().is_empty());
    assert_eq!(engine.stats().opened, 1);
}

#[test]
fn a_default_field_that_a_policy_adds_is_not_sent_twice() {
    let agent = on_send(|_, fields| fields.add("user-agent", "policy"));
    let (_network, mut engine) = simulated(|seen| {
        let lines = seen.header("User-Agent").map(<[u8]>::to_vec);
        Answer::ok(lines.unwrap_or_default())
    });
    engine.submit(get("/").policy(agent).build().unwrap(), note);
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told, [ok("policy")]);
}

#[test]
fn a_stale_connection_has_its_second_attempt_signed_anew() {
    // The server closes the kept connection instead of answering the request on it.
    let came = Cell::new(0);
    let (network, mut engine) = simulated(move |seen| {
        came.set(came.get() + 1);
        match came.get() {
            2 => Answer::nothing().close(),
            _ => echo_signature(seen),
        }
    });
    let request = build(get("/"), Sign::default());
    let mut told = Told::new();
    for _ in 0..2 {
        engine.submit(request.clone(), note);
        engine.run(&mut told).unwrap();
    }
    let told = told.iter().map(|told| &told.as_ref().unwrap()[..6]);
    assert_eq!(told.collect::<Vec<_>>(), ["bot; 1", "bot; 3"]);
    let stats = engine.stats();
    assert_eq!((stats.opened, stats.retried), (2, 1));
    assert_eq!(network.ledger().requests().len(), 3);
}

/// Sends a request again that is answered with 503, up to `left` times, a second later.
#[derive(Clone)]
struct Again {
    left: u32,
    screening: fn() -> Screening,
}

impl Visit for Again {
    fn on_head(
        &mut self,
        _: &Request,
        head: &Response<'_>,
        _: &Moment<'_>,
    ) -> Result<Screening, Error> {
        Ok(match head.status().as_u16() {
            503 => (self.screening)(),
            _ => Screening::show(),
        })
    }

    fn on_end(
        &mut self,
        request: &Request,
        reply: &Reply<'_>,
        _: &Moment<'_>,
    ) -> Result<Verdict, Error> {
        let is_worth_it = match reply {
            Ok(response) => response.status() == 503,
            Err(error) => error.resend_is_safe(),
        };
        match self.left {
            0 => Ok(Verdict::Deliver),
            _ if !is_worth_it => Ok(Verdict::Deliver),
            _ => {
                self.left -= 1;
                let request = request.edit().header("X-Left", self.left.to_string());
                Ok(Verdict::Resend {
                    request: request.without("X-Old").build()?,
                    after: SECOND,
                })
            }
        }
    }
}

/// A server that answers `times` requests with 503 and a body, and later ones with their fields.
fn busy(times: usize) -> impl Fn(&Incoming) -> Answer {
    let left = RefCell::new(times);
    move |seen| {
        let mut left = left.borrow_mut();
        if *left > 0 {
            *left -= 1;
            return Answer::status(503).body("busy");
        }
        let field = String::from_utf8_lossy(seen.header("X-Left").unwrap_or(b"-")).into_owned();
        Answer::ok(field)
    }
}

#[test]
fn a_policy_sends_again_and_the_readback_hears_of_the_last_only() {
    for screening in [Screening::collect as fn() -> Screening, Screening::discard] {
        let (network, mut engine) = simulated(busy(2));
        let visit = Again { left: 3, screening };
        engine.submit(build(get("/").header("X-Old", "1"), visit), note);
        let mut told = Told::new();
        engine.run(&mut told).unwrap();
        // The second resend adds to the first one's fields, so the field is there twice: the first
        // counts.
        assert_eq!(told, [ok("2")]);
        assert!(network.elapsed() >= 2 * SECOND, "the policy has waited");
        assert_eq!((engine.pending(), engine.stats().answered), (0, 3));
    }
}

/// Always sends the request again, after this delay, forever.
#[derive(Clone)]
struct Stubborn(Duration);

impl Visit for Stubborn {
    fn on_head(
        &mut self,
        _: &Request,
        _: &Response<'_>,
        _: &Moment<'_>,
    ) -> Result<Screening, Error> {
        Ok(Screening::discard())
    }

    fn on_end(&mut self, r: &Request, _: &Reply<'_>, _: &Moment<'_>) -> Result<Verdict, Error> {
        Ok(Verdict::Resend {
            request: r.clone(),
            after: self.0,
        })
    }
}

#[test]
fn the_total_deadline_bounds_all_that_a_policy_sends_again() {
    let answers: [fn(&Incoming) -> Answer; 3] = [
        |_| Answer::ok("a").after(SECOND / 8),
        |_| Answer::nothing(),
        |_| Answer::nothing().close(),
    ];
    let waits = [Duration::ZERO, SECOND / 4, 100 * SECOND];
    for (i, answer) in answers.into_iter().enumerate() {
        for wait in waits {
            let (network, mut engine) = simulated(answer);
            let timed = get("/").timeouts(|timeouts| timeouts.total = Some(SECOND));
            engine.submit(build(timed, Stubborn(wait)), note);
            let mut told = Told::new();
            engine.advance(&mut told, SECOND - SECOND / 8).unwrap();
            assert!(told.is_empty(), "{i}, {wait:?}");
            // A silent server is given one more second in which it might answer.
            engine.advance(&mut told, 2 * SECOND).unwrap();
            assert_eq!(told, [Err(ErrorKind::Timeout)], "{i}, {wait:?}");
            let sent = engine.stats().submitted;
            engine.advance(&mut told, 9 * SECOND).unwrap();
            assert_eq!((engine.pending(), told.len()), (0, 1), "{i}, {wait:?}");
            assert_eq!(engine.stats().submitted, sent);
            assert!(network.misuses().is_empty());
        }
    }
}

#[test]
fn what_a_policy_has_sent_before_counts_where_its_readback_asks_whether_it_was_sent() {
    use httpstream::Sent::{Maybe, Yes};
    // The second attempt is never sent: it is held back until its deadline.
    for (method, answer, sent, is_safe) in [
        ("POST", Answer::status(503), Yes, false),
        ("GET", Answer::status(503), Yes, true),
        ("POST", Answer::nothing().close(), Maybe, false),
        ("GET", Answer::nothing().close(), Maybe, true),
    ] {
        let answer = Rc::new(answer);
        let (_network, mut engine) = simulated(move |_| Answer::clone(&answer));
        let request = Request::builder(method.parse().unwrap(), "http://192.0.2.1/")
            .body("1")
            .timeouts(|timeouts| timeouts.total = Some(SECOND));
        let policy = Stubborn(9 * SECOND);
        engine.submit(build(request, policy), |told: &mut Vec<_>, reply, _| {
            let error = reply.unwrap_err();
            told.push((error.kind(), error.request_sent(), error.resend_is_safe()));
            Next::done()
        });
        let mut told = Vec::new();
        engine.run(&mut told).unwrap();
        assert_eq!(told, [(ErrorKind::Timeout, sent, is_safe)], "{method}");
    }
}

#[test]
fn what_was_shown_is_delivered_whatever_the_policy_says() {
    let (_network, mut engine) = simulated(busy(1));
    let visit = Again {
        left: 3,
        screening: Screening::show,
    };
    engine.submit(build(get("/"), visit), note);
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told, [ok("busy")]);
}

/// Records all its calls, and returns this flow for heads.
struct Watching(Flow);

impl Readback<Vec<String>> for Watching {
    fn on_head(
        &mut self,
        seen: &mut Vec<String>,
        head: &Response<'_>,
        _: &mut Context<'_, Vec<String>>,
    ) -> Flow {
        let coding = head.header("Content-Encoding").is_some();
        seen.push(format!("head {} {coding}", head.status().as_u16()));
        self.0
    }

    fn on_data(
        &mut self,
        seen: &mut Vec<String>,
        data: &[u8],
        _: &mut Context<'_, Vec<String>>,
    ) -> Flow {
        seen.push(format!("data {}", String::from_utf8_lossy(data)));
        Flow::Stream
    }

    fn on_reply(
        &mut self,
        seen: &mut Vec<String>,
        reply: Reply<'_>,
        _: &mut Context<'_, Vec<String>>,
    ) -> Next<Vec<String>> {
        seen.push(match reply {
            Ok(response) => format!("reply {}", response.text().unwrap()),
            Err(error) => format!("{:?}", error.kind()),
        });
        Next::done()
    }
}

#[test]
fn a_response_that_was_kept_back_is_shown_as_though_it_came_at_once() {
    let rows = [
        (Flow::Buffer, &["head 503 false", "reply busy"][..]),
        (Flow::Stream, &["head 503 false", "data busy", "reply "]),
        (Flow::Discard, &["head 503 false", "reply "]),
        (Flow::Abort, &["head 503 false", "Aborted"]),
    ];
    for (flow, expected) in rows {
        let (_network, mut engine) = simulated(busy(9));
        let visit = Again {
            left: 1,
            screening: Screening::collect,
        };
        engine.submit_to(build(get("/"), visit), Watching(flow));
        let mut seen = Vec::new();
        engine.run(&mut seen).unwrap();
        assert_eq!(seen, expected, "{flow:?}");
    }
}

/// Each byte on the wire stands for one letter, repeated `times` times.
struct Repeat {
    times: usize,
    left: Option<(u8, usize)>,
}

impl Decoder for Repeat {
    fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
        let mut progress = Progress::default();
        while progress.produced < room.len() {
            let (byte, left) = match self.left.take() {
                Some(left) => left,
                None => match input.get(progress.consumed) {
                    None => break,
                    Some(b'!') => return Err(io::Error::other("a bad byte")),
                    Some(byte) => {
                        progress.consumed += 1;
                        (*byte, self.times)
                    }
                },
            };
            let n = left.min(room.len() - progress.produced);
            room[progress.produced..][..n].fill(byte);
            progress.produced += n;
            self.left = (left > n).then_some((byte, left - n));
        }
        Ok(progress)
    }
}

#[derive(Clone)]
struct Repeated(usize);

impl Visit for Repeated {
    fn on_head(
        &mut self,
        _: &Request,
        _: &Response<'_>,
        _: &Moment<'_>,
    ) -> Result<Screening, Error> {
        let (times, left) = (self.0, None);
        Ok(Screening::show().decode(Repeat { times, left }))
    }
}

fn coded(body: &str) -> Answer {
    Answer::ok(body).header("Content-Encoding", "repeat")
}

#[test]
fn a_policy_decodes_what_the_readback_is_told() {
    type Make = fn() -> Answer;
    let rows: [(&str, Make); 4] = [
        ("of known length", || coded("abc")),
        ("in chunks", || {
            let chunked = Answer::status(200).chunked(["a", "b", "c"]);
            chunked.header("Content-Encoding", "repeat")
        }),
        ("until the close", || {
            let answer = Answer::status(200).until_close("abc");
            answer.header("Content-Encoding", "repeat")
        }),
        ("byte by byte", || {
            coded("abc").drip(1, Duration::from_millis(3))
        }),
    ];
    for (why, answer) in rows {
        for (flow, expected) in [
            (Flow::Buffer, "reply aaabbbccc"),
            (Flow::Stream, "data aaabbbccc"),
            (Flow::Discard, "reply "),
        ] {
            let (_network, mut engine) = simulated(move |_| answer());
            engine.submit_to(build(get("/"), Repeated(3)), Watching(flow));
            let mut seen = Vec::new();
            engine.run(&mut seen).unwrap();
            assert_eq!(seen[0], "head 200 false", "{why}");
            let data: String = seen
                .iter()
                .filter_map(|seen| seen.strip_prefix("data "))
                .collect();
            match flow {
                Flow::Stream => assert_eq!(format!("data {data}"), expected, "{why}"),
                _ => assert_eq!(seen[1..], [expected], "{why} {flow:?}"),
            }
            assert_eq!(engine.pending(), 0);
        }
    }
}

/// Pauses at each piece, and resumes shortly after.
struct Pausing(usize);

impl Readback<usize> for Pausing {
    fn on_head(&mut self, _: &mut usize, _: &Response<'_>, _: &mut Context<'_, usize>) -> Flow {
        Flow::Stream
    }

    fn on_data(&mut self, seen: &mut usize, data: &[u8], cx: &mut Context<'_, usize>) -> Flow {
        *seen += data.len();
        self.0 += 1;
        let id = cx.id();
        cx.start(
            Next::call(move |_: &mut usize, cx: &mut Context<'_, usize>| {
                assert!(cx.resume(id));
                Next::done()
            })
            .after(Duration::from_millis(1)),
        );
        Flow::Pause
    }

    fn on_reply(
        &mut self,
        _: &mut usize,
        reply: Reply<'_>,
        _: &mut Context<'_, usize>,
    ) -> Next<usize> {
        assert!(reply.is_ok());
        assert!(self.0 > 10, "{} pauses", self.0);
        Next::done()
    }
}

#[test]
fn a_pause_holds_back_what_is_not_decoded_yet() {
    let (_network, mut engine) = simulated(|_| coded(&"ab".repeat(10)));
    engine.submit_to(build(get("/"), Repeated(50_000)), Pausing(0));
    let mut seen = 0;
    engine.run(&mut seen).unwrap();
    assert_eq!((seen, engine.pending()), (1_000_000, 0));
}

#[test]
fn a_body_that_decodes_without_end_stops_at_the_limit_and_holds_nobody_up() {
    let (network, mut engine) = simulated(|seen| match seen.path() {
        "/bomb" => coded("a"),
        _ => Answer::ok("small"),
    });
    let limited = get("/bomb").limits(|limits| limits.max_body_bytes = 1 << 20);
    engine.submit(build(limited, Repeated(usize::MAX)), note);
    engine.submit(get("/").build().unwrap(), note);
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    told.sort_by_key(Result::is_ok);
    assert_eq!(told, [Err(ErrorKind::TooLarge), ok("small")]);

    // A streamed body has no limit; each turn decodes a bounded part of it. Canceled after many
    // times the limit for collected bodies.
    #[derive(Default)]
    struct Counting(usize);
    impl Readback<Told> for Counting {
        fn on_head(&mut self, _: &mut Told, _: &Response<'_>, _: &mut Context<'_, Told>) -> Flow {
            Flow::Stream
        }
        fn on_data(&mut self, told: &mut Told, data: &[u8], cx: &mut Context<'_, Told>) -> Flow {
            self.0 += data.len();
            // The other request is answered in the meantime.
            if self.0 > 64 << 20 && !told.is_empty() {
                assert!(cx.cancel(cx.id()));
            }
            Flow::Stream
        }
        fn on_reply(
            &mut self,
            told: &mut Told,
            reply: Reply<'_>,
            cx: &mut Context<'_, Told>,
        ) -> Next<Told> {
            note(told, reply, cx)
        }
    }
    let limited = get("/bomb").limits(|limits| limits.max_body_bytes = 1 << 20);
    engine.submit_to(build(limited, Repeated(usize::MAX)), Counting::default());
    let request = get("/").build().unwrap();
    engine.start(engine.send(request).after(SECOND).read_by(note));
    let mut told = Told::new();
    let mut turns = 0;
    while engine.pending() > 0 {
        turns += 1;
        let turn = engine.turn(&mut told).unwrap();
        assert!(turns < 100_000, "the body is never canceled");
        if turns % 10 == 0 || !turn.more {
            network.sleep(Duration::from_millis(100));
        }
    }
    assert_eq!(told, [ok("small"), Err(ErrorKind::Cancelled)]);
}

#[test]
fn what_all_bodies_of_a_turn_are_decoded_to_is_bounded_together() {
    /// Counts the bytes that it gets.
    struct Weighing;
    impl Readback<usize> for Weighing {
        fn on_head(&mut self, _: &mut usize, _: &Response<'_>, _: &mut Context<'_, usize>) -> Flow {
            Flow::Stream
        }
        fn on_data(&mut self, seen: &mut usize, data: &[u8], _: &mut Context<'_, usize>) -> Flow {
            *seen += data.len();
            Flow::Stream
        }
        fn on_reply(
            &mut self,
            _: &mut usize,
            reply: Reply<'_>,
            _: &mut Context<'_, usize>,
        ) -> Next<usize> {
            assert!(reply.is_ok());
            Next::done()
        }
    }
    const LINKS: usize = 40;
    const EACH: usize = 1 << 20;
    const SHARE: usize = 64 << 10;
    let mut config = Config::default();
    config.turn_bytes = SHARE;
    config.max_connections_per_origin = LINKS;
    let (network, mut engine) = simulated_with(config, |_| coded("a"));
    for _ in 0..LINKS {
        engine.submit_to(build(get("/"), Repeated(EACH)), Weighing);
    }
    let (mut seen, mut turns) = (0, 0);
    while engine.pending() > 0 {
        let before = seen;
        let turn = engine.turn(&mut seen).unwrap();
        // Four shares, plus the excess of the last one.
        assert!(seen - before <= 4 * SHARE + (16 << 10), "{}", seen - before);
        turns += 1;
        assert!(turns < 10_000);
        if !turn.more {
            network.sleep(Duration::from_millis(10));
        }
    }
    assert_eq!(seen, LINKS * EACH);
    assert!(turns >= seen / (4 * SHARE + (16 << 10)));
}

#[test]
fn a_body_that_cannot_be_decoded_is_an_error_and_the_connection_closed() {
    let (_network, mut engine) = simulated(|_| coded("ab!c"));
    engine.submit(build(get("/"), Repeated(2)), note);
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told, [Err(ErrorKind::Malformed)]);
    assert_eq!(engine.stats().links_open, 0);
}

/// Holds a request back with this `Start`.
#[derive(Clone)]
struct Hold(Arc<Mutex<Vec<Waker>>>, Start, u32);

impl Visit for Hold {
    fn on_start(&mut self, _: &Request, at: &Moment<'_>) -> Result<Start, Error> {
        self.2 += 1;
        if self.2 > 1 {
            return Ok(Start::Now);
        }
        self.0.lock().unwrap().push(at.waker());
        Ok(self.1)
    }
}

#[test]
fn a_policy_holds_a_request_back_for_a_time_or_until_it_is_woken() {
    let (network, mut engine) = simulated(|_| Answer::ok("a"));
    let wakers = Arc::new(Mutex::new(Vec::new()));
    engine.submit(
        build(get("/"), Hold(Arc::clone(&wakers), Start::After(SECOND), 0)),
        note,
    );
    engine.submit(
        build(get("/"), Hold(Arc::clone(&wakers), Start::Wait, 0)),
        note,
    );
    let mut told = Told::new();
    engine.advance(&mut told, SECOND / 2).unwrap();
    assert_eq!(
        (told.len(), engine.stats().queued),
        (0, 2),
        "a held request counts as queued"
    );
    assert_eq!(engine.stats().links_open, 0, "it has no connection");
    engine.advance(&mut told, SECOND).unwrap();
    assert_eq!(told, [ok("a")]);
    engine.advance(&mut told, 100 * SECOND).unwrap();
    assert_eq!(told.len(), 1);
    let woken = wakers.lock().unwrap()[1].clone();
    std::thread::spawn(move || woken.wake()).join().unwrap();
    engine.run(&mut told).unwrap();
    assert_eq!((told.len(), engine.pending()), (2, 0));
    assert!(network.misuses().is_empty());
}

#[test]
fn a_waker_that_is_left_over_shortens_no_delay() {
    /// Waits, then delays, then sends again after a delay.
    #[derive(Clone)]
    struct Slow(Arc<Mutex<Vec<Waker>>>, u32);
    impl Visit for Slow {
        fn on_start(&mut self, _: &Request, at: &Moment<'_>) -> Result<Start, Error> {
            self.1 += 1;
            self.0.lock().unwrap().push(at.waker());
            Ok(match self.1 {
                1 => Start::Wait,
                2 => Start::After(10 * SECOND),
                _ => Start::Now,
            })
        }
        fn on_head(
            &mut self,
            _: &Request,
            _: &Response<'_>,
            _: &Moment<'_>,
        ) -> Result<Screening, Error> {
            Ok(Screening::collect())
        }
        fn on_end(&mut self, r: &Request, _: &Reply<'_>, _: &Moment<'_>) -> Result<Verdict, Error> {
            Ok(match self.1 {
                3 => Verdict::Resend {
                    request: r.clone(),
                    after: 10 * SECOND,
                },
                _ => Verdict::Deliver,
            })
        }
    }
    let wakers = Arc::new(Mutex::new(Vec::new()));
    let (network, mut engine) = simulated(|_| Answer::ok("a"));
    engine.submit(
        build(get("/"), Slow(Arc::clone(&wakers), 0)),
        |told: &mut Told, reply, cx| {
            let _ = note(told, reply, cx);
            Next::call(|told: &mut Told, _: &mut Context<'_, Told>| {
                told.push(ok("called"));
                Next::done()
            })
            .after(10 * SECOND)
        },
    );
    let mut told = Told::new();
    let mut turns = 0;
    while engine.pending() > 0 {
        // Twice a second, whatever the state of the chain.
        engine.advance(&mut told, SECOND / 2).unwrap();
        wakers.lock().unwrap().iter().for_each(Waker::wake_by_ref);
        turns += 1;
        assert!(turns < 100, "{told:?}");
    }
    assert_eq!(told, [ok("a"), ok("called")]);
    // Half a second until it is woken, and three delays.
    let elapsed = network.elapsed();
    assert!(
        elapsed >= 30 * SECOND && elapsed < 33 * SECOND,
        "{elapsed:?}"
    );
}

#[test]
fn a_waker_of_a_visit_ends_no_wait_of_its_readback() {
    /// Waits for a minute once it is answered.
    struct Waits;
    impl Readback<Told> for Waits {
        fn on_reply(
            &mut self,
            told: &mut Told,
            reply: Reply<'_>,
            cx: &mut Context<'_, Told>,
        ) -> Next<Told> {
            let _ = note(told, reply, cx);
            Next::wait().after(60 * SECOND)
        }
        fn on_due(&mut self, told: &mut Told, _: &mut Context<'_, Told>) -> Next<Told> {
            told.push(ok("due"));
            Next::done()
        }
    }
    let wakers = Arc::new(Mutex::new(Vec::new()));
    let (network, mut engine) = simulated(|_| Answer::ok("a"));
    let hold = Hold(Arc::clone(&wakers), Start::After(SECOND), 0);
    engine.submit_to(build(get("/"), hold), Waits);
    let mut told = Told::new();
    engine.advance(&mut told, 2 * SECOND).unwrap();
    assert_eq!(told, [ok("a")]);
    wakers.lock().unwrap().iter().for_each(Waker::wake_by_ref);
    engine.run(&mut told).unwrap();
    assert_eq!(told, [ok("a"), ok("due")]);
    assert!(network.elapsed() > 60 * SECOND, "{:?}", network.elapsed());
}

#[test]
fn a_ticket_that_was_asked_elsewhere_wakes_a_visit_that_waits_for_it() {
    /// Waits with the ticket of another chain.
    #[derive(Clone)]
    struct Waits(Arc<Mutex<Ticket>>);
    impl Visit for Waits {
        fn on_start(&mut self, _: &Request, at: &Moment<'_>) -> Result<Start, Error> {
            Ok(match self.0.lock().unwrap().is_due(at) {
                true => Start::Now,
                false => Start::Wait,
            })
        }
    }
    let (_network, mut engine) = simulated(|_| Answer::ok("a"));
    let lane = Lane::new(1);
    let place = lane.enter(0);
    let ticket = Arc::new(Mutex::new(lane.enter(0)));
    let timed = get("/").timeouts(|timeouts| timeouts.total = Some(SECOND));
    let request = build(timed, Waits(Arc::clone(&ticket)));
    let mut place = Some(place);
    engine.call(move |_: &mut Told, cx| {
        // By its readback first, then by two visits, the first of which ends while it waits.
        assert!(!ticket.lock().unwrap().is_due(&cx.moment()));
        let mut ends = 0;
        cx.send(request).read_by(move |told, reply, cx| {
            ends += 1;
            let _ = note(told, reply, cx);
            match ends {
                1 => {
                    let place = place.take();
                    cx.start(
                        Next::call(move |_, cx| {
                            drop(place);
                            cx.done()
                        })
                        .after(SECOND / 2),
                    );
                    cx.again()
                }
                _ => cx.done(),
            }
        })
    });
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told, [Err(ErrorKind::Timeout), ok("a")]);
}

#[test]
fn a_policy_that_refuses_all_that_waits_holds_up_no_turn() {
    const MANY: usize = 20_000;
    /// Refuses every request from the second on.
    #[derive(Clone)]
    struct Refuses(Arc<AtomicUsize>);
    impl Visit for Refuses {
        fn on_send(
            &mut self,
            _: &Request,
            _: &mut Fields<'_>,
            _: &Moment<'_>,
        ) -> Result<(), Error> {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                0 => Ok(()),
                _ => Err(Error::policy("no more")),
            }
        }
    }
    let answers: [fn() -> Answer; 2] = [|| Answer::ok("a"), || Answer::ok("a").close()];
    for answer in answers {
        let mut config = Config::default();
        config.max_connections_per_origin = 1;
        let (network, mut engine) = simulated_with(config, move |_| answer());
        let asked = Arc::new(AtomicUsize::new(0));
        let request = build(get("/"), Refuses(Arc::clone(&asked)));
        for _ in 0..MANY {
            engine.submit(request.clone(), note);
        }
        let mut told = Told::new();
        let mut most = 0;
        while engine.pending() > 0 {
            let before = asked.load(Ordering::Relaxed);
            if !engine.turn(&mut told).unwrap().more {
                network.sleep(Duration::from_millis(1));
            }
            most = most.max(asked.load(Ordering::Relaxed) - before);
        }
        let refused = told.iter().filter(|told| **told == Err(ErrorKind::Policy));
        assert_eq!((told.len(), refused.count()), (MANY, MANY - 1));
        assert!(most <= 4096, "{most} in a turn");
    }
}

#[test]
fn a_policy_that_takes_its_time_is_asked_once_a_turn() {
    /// Is never ready, and takes a millisecond each time.
    #[derive(Clone)]
    struct Slow(Arc<AtomicUsize>);
    impl Visit for Slow {
        fn on_start(&mut self, _: &Request, _: &Moment<'_>) -> Result<Start, Error> {
            self.0.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
            Ok(Start::After(Duration::ZERO))
        }
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let mut engine = Engine::<Told>::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").timeouts(|timeouts| {
        timeouts.total = Some(SECOND / 10);
    });
    let request = build(request, Slow(Arc::clone(&asked)));
    for _ in 0..4 {
        engine.submit(request.clone(), note);
    }
    let mut told = Told::new();
    while engine.pending() > 0 {
        let before = asked.load(Ordering::Relaxed);
        engine.turn(&mut told, None).unwrap();
        // When they are submitted, and when their timers fire.
        let most = asked.load(Ordering::Relaxed) - before;
        assert!(most <= 8, "{most}");
    }
    assert_eq!(told, vec![Err(ErrorKind::Timeout); 4]);
}

#[test]
fn the_total_deadline_ends_what_is_held_back_unasked() {
    #[derive(Clone)]
    struct Holds(Start);
    impl Visit for Holds {
        fn on_start(&mut self, _: &Request, at: &Moment<'_>) -> Result<Start, Error> {
            std::mem::forget(at.waker());
            Ok(self.0)
        }
        fn on_end(&mut self, _: &Request, _: &Reply<'_>, _: &Moment<'_>) -> Result<Verdict, Error> {
            panic!("no exchange has started")
        }
    }
    let starts = [
        Start::Wait,
        Start::After(SECOND / 4),
        Start::After(9 * SECOND),
    ];
    for start in starts {
        let mut config = Config::default();
        config.max_connections = 1;
        let (_network, mut engine) = simulated_with(config, |seen| match seen.path() {
            "/held" => Answer::held(),
            _ => Answer::ok("a"),
        });
        let timed = get("/").timeouts(|timeouts| timeouts.total = Some(SECOND));
        let mut held_back = Some(build(timed, Holds(start)));
        engine.submit(
            get("/").build().unwrap(),
            move |told: &mut Told, reply, cx| {
                if let Some(request) = held_back.take() {
                    // Another request takes the previous connection, which this one does not need.
                    cx.submit(get("/held").build().unwrap(), note);
                    return Next::send(request);
                }
                let text = format!("{:#}", reply.as_ref().unwrap_err());
                assert!(!text.contains("max_connections"), "{text}");
                note(told, reply, cx)
            },
        );
        let mut told = Told::new();
        engine.advance(&mut told, 3 * SECOND).unwrap();
        assert_eq!(told, [Err(ErrorKind::Timeout)], "{start:?}");
        assert_eq!(engine.pending(), 1, "{start:?}");
    }
}

#[test]
fn what_a_policy_sends_elsewhere_goes_there() {
    let follows = at_end(|request, reply| {
        let Some(location) = reply.as_ref().unwrap().header("Location") else {
            return Ok(Verdict::Deliver);
        };
        let location = std::str::from_utf8(location).unwrap();
        Ok(Verdict::Resend {
            request: request.resolve(location).build()?,
            after: Duration::ZERO,
        })
    });
    let (network, mut engine) =
        simulated(|_| Answer::status(302).header("Location", "http://192.0.2.2/there"));
    network.serve("192.0.2.2:80".parse().unwrap(), |seen: &Incoming| {
        Answer::ok(seen.path())
    });
    engine.submit(get("/").policy(follows).build().unwrap(), note);
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!((told, engine.pending()), (vec![ok("/there")], 0));
}

#[test]
fn the_total_deadline_and_a_cancellation_end_what_is_held_back() {
    let (network, mut engine) = simulated(|_| Answer::ok("a"));
    let wakers = Arc::new(Mutex::new(Vec::new()));
    let hold = |start| Hold(Arc::clone(&wakers), start, 0);
    let timed = get("/").timeouts(|timeouts| timeouts.total = Some(SECOND));
    engine.submit(build(timed, hold(Start::Wait)), note);
    let id = engine.submit(build(get("/"), hold(Start::After(100 * SECOND))), note);
    let mut told = Told::new();
    engine.advance(&mut told, 2 * SECOND).unwrap();
    assert_eq!(told, [Err(ErrorKind::Timeout)]);
    assert!(engine.cancel(id));
    engine.run(&mut told).unwrap();
    assert_eq!(told[1..], [Err(ErrorKind::Cancelled)]);
    assert!(network.elapsed() < 3 * SECOND);
    // Waking them has no effect.
    wakers.lock().unwrap().drain(..).for_each(Waker::wake);
    engine.run(&mut told).unwrap();
    assert_eq!((told.len(), engine.pending()), (2, 0));
}

#[test]
fn a_wait_that_nothing_can_end_is_refused() {
    #[derive(Clone)]
    struct Forever;
    impl Visit for Forever {
        fn on_start(&mut self, _: &Request, _: &Moment<'_>) -> Result<Start, Error> {
            Ok(Start::Wait)
        }
        fn on_end(&mut self, _: &Request, _: &Reply<'_>, _: &Moment<'_>) -> Result<Verdict, Error> {
            panic!("no exchange has started")
        }
    }
    let (_network, mut engine) = simulated(|_| Answer::ok("a"));
    engine.submit(build(get("/"), Forever), |told: &mut Told, reply, cx| {
        let error = reply.as_ref().unwrap_err();
        assert_eq!((error.phase(), error.attempts()), (Phase::Queue, 0));
        assert!(error.request().is_some());
        note(told, reply, cx)
    });
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told, [Err(ErrorKind::Policy)]);
}

/// Sends its requests one at a time.
struct OneByOne(Lane);
struct InLane(Lane, Option<Ticket>);

impl Policy for OneByOne {
    fn visit(&self, _: &Request, _: &Moment<'_>) -> Box<dyn Visit> {
        Box::new(InLane(self.0.clone(), None))
    }
}

impl Visit for InLane {
    fn on_start(&mut self, request: &Request, at: &Moment<'_>) -> Result<Start, Error> {
        let ticket = self
            .1
            .get_or_insert_with(|| self.0.enter(request.priority()));
        Ok(match ticket.is_due(at) {
            true => Start::Now,
            false => Start::Wait,
        })
    }
}

#[test]
fn a_lane_has_as_many_at_once_as_it_has_places_in_the_order_of_their_priority() {
    let (network, mut engine) = simulated(|seen| Answer::ok(seen.path()).after(SECOND));
    let lane = Lane::new(1);
    let doors: Arc<dyn Policy> = Arc::new(OneByOne(lane.clone()));
    let mut ids = Vec::new();
    for (path, priority) in [("/1", 0), ("/2", 0), ("/3", 9), ("/4", 0), ("/5", 0)] {
        let request = get(path).priority(priority).policy(Arc::clone(&doors));
        ids.push(engine.submit(request.build().unwrap(), note));
    }
    let mut told = Told::new();
    engine.advance(&mut told, SECOND / 2).unwrap();
    assert_eq!(lane.waiting(), 4);
    // One request that has its place, and one that waits for it.
    assert!(engine.cancel(ids[0]) && engine.cancel(ids[3]));
    engine.run(&mut told).unwrap();
    let cancelled = Err(ErrorKind::Cancelled);
    assert_eq!(told[..2], [cancelled.clone(), cancelled]);
    assert_eq!(told[2..], [ok("/3"), ok("/2"), ok("/5")]);
    assert!(
        network.elapsed() >= 3 * SECOND,
        "they run one after another"
    );
    assert_eq!(lane.waiting(), 0);
}

#[test]
fn a_policy_refuses_an_attempt_and_hears_of_that_failure_itself() {
    struct Refusing(Rc<RefCell<Vec<String>>>, bool);
    impl Visit for Refusing {
        fn on_send(
            &mut self,
            _: &Request,
            fields: &mut Fields<'_>,
            _: &Moment<'_>,
        ) -> Result<(), Error> {
            match std::mem::replace(&mut self.1, false) {
                true => fields.add("Host", "other"),
                false => Ok(()),
            }
        }
        fn on_end(
            &mut self,
            request: &Request,
            reply: &Reply<'_>,
            _: &Moment<'_>,
        ) -> Result<Verdict, Error> {
            let came = match reply {
                Ok(_) => "ok".to_owned(),
                Err(error) => format!("{:?}", error.kind()),
            };
            self.0.borrow_mut().push(came);
            let (request, after) = (request.clone(), Duration::ZERO);
            match reply {
                Ok(_) => Ok(Verdict::Deliver),
                Err(_) => Ok(Verdict::Resend { request, after }),
            }
        }
    }
    struct Once;
    thread_local! {
        static SEEN: Rc<RefCell<Vec<String>>> = Rc::default();
    }
    impl Policy for Once {
        fn visit(&self, _: &Request, _: &Moment<'_>) -> Box<dyn Visit> {
            Box::new(Refusing(SEEN.with(Rc::clone), true))
        }
    }
    let (network, mut engine) = simulated(|_| Answer::ok("a"));
    let mut told = Told::new();
    // The connection survives the refusal.
    engine.submit(get("/").build().unwrap(), note);
    engine.run(&mut told).unwrap();
    engine.submit(build(get("/"), Once), note);
    engine.run(&mut told).unwrap();
    assert_eq!(told, [ok("a"), ok("a")]);
    assert_eq!(SEEN.with(|seen| seen.take()), ["InvalidRequest", "ok"]);
    assert_eq!(engine.stats().opened, 1);
    assert!(network.misuses().is_empty());
}

#[test]
fn an_error_that_a_policy_makes_of_a_response_is_what_the_readback_is_told() {
    #[derive(Clone)]
    struct Strict;
    impl Visit for Strict {
        fn on_end(
            &mut self,
            _: &Request,
            reply: &Reply<'_>,
            _: &Moment<'_>,
        ) -> Result<Verdict, Error> {
            match reply {
                Ok(response) if !response.status().is_success() => Err(Error::of_status(response)),
                _ => Ok(Verdict::Deliver),
            }
        }
    }
    let (_network, mut engine) = simulated(|_| Answer::status(404));
    engine.submit(build(get("/"), Strict), |told: &mut Told, reply, cx| {
        let error = reply.as_ref().unwrap_err();
        assert_eq!(error.status().unwrap(), 404);
        assert_eq!(error.request().unwrap().target(), "/");
        assert_eq!(cx.failures(), 0, "as for a 404 that is delivered");
        note(told, reply, cx)
    });
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told, [Err(ErrorKind::Status)]);
}

#[test]
fn the_configurations_policy_is_around_that_of_a_request() {
    #[derive(Clone)]
    struct Mark(&'static str, Arc<Mutex<Vec<String>>>);
    impl Mark {
        fn note(&self, what: &str) {
            self.1.lock().unwrap().push(format!("{} {what}", self.0));
        }
    }
    impl Visit for Mark {
        fn on_start(&mut self, _: &Request, _: &Moment<'_>) -> Result<Start, Error> {
            self.note("start");
            Ok(Start::Now)
        }
        fn on_send(
            &mut self,
            _: &Request,
            _: &mut Fields<'_>,
            _: &Moment<'_>,
        ) -> Result<(), Error> {
            self.note("send");
            Ok(())
        }
        fn on_end(&mut self, _: &Request, _: &Reply<'_>, _: &Moment<'_>) -> Result<Verdict, Error> {
            self.note("end");
            Ok(Verdict::Deliver)
        }
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut config = Config::default();
    config.policy = Some(Arc::new(Mark("outer", Arc::clone(&seen))));
    let (_network, mut engine) = simulated_with(config, |_| Answer::ok("a"));
    engine.submit(build(get("/"), Mark("inner", Arc::clone(&seen))), note);
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    let expected = [
        "outer start",
        "inner start",
        "outer send",
        "inner send",
        "inner end",
        "outer end",
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[test]
fn a_policy_that_panics_ends_its_chain_and_nothing_else() {
    #[derive(Clone)]
    struct Panics(&'static str);
    impl Panics {
        fn at(&self, place: &str) {
            assert_ne!(self.0, place, "on purpose");
        }
    }
    impl Decoder for Panics {
        fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
            self.at("decode");
            let n = input.len().min(room.len());
            room[..n].copy_from_slice(&input[..n]);
            Ok(Progress {
                consumed: n,
                produced: n,
            })
        }
        fn finish(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.at("finish");
            Ok(0)
        }
    }
    /// A decoder that panics when it is dropped.
    struct Last(Panics);
    impl Decoder for Last {
        fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
            self.0.decode(input, room)
        }
        fn finish(&mut self, room: &mut [u8]) -> io::Result<usize> {
            self.0.finish(room)
        }
    }
    impl Drop for Last {
        fn drop(&mut self) {
            self.0.at("drop");
        }
    }
    impl Visit for Panics {
        fn on_start(&mut self, _: &Request, _: &Moment<'_>) -> Result<Start, Error> {
            self.at("start");
            Ok(Start::Now)
        }
        fn on_send(
            &mut self,
            _: &Request,
            _: &mut Fields<'_>,
            _: &Moment<'_>,
        ) -> Result<(), Error> {
            self.at("send");
            Ok(())
        }
        fn on_head(
            &mut self,
            _: &Request,
            _: &Response<'_>,
            _: &Moment<'_>,
        ) -> Result<Screening, Error> {
            self.at("head");
            Ok(Screening::show().decode(Last(self.clone())))
        }
        fn on_end(&mut self, _: &Request, _: &Reply<'_>, _: &Moment<'_>) -> Result<Verdict, Error> {
            self.at("end");
            Ok(Verdict::Deliver)
        }
        fn reset(&mut self) -> bool {
            self.at("reset");
            true
        }
    }
    /// Panics again when it is dropped after a panic.
    struct Twice(Panics);
    impl Policy for Twice {
        fn visit(&self, _: &Request, _: &Moment<'_>) -> Box<dyn Visit> {
            Box::new(Dropped(self.0.clone(), false))
        }
    }
    struct Dropped(Panics, bool);
    impl Visit for Dropped {
        fn reset(&mut self) -> bool {
            self.1 = true;
            self.0.reset()
        }
    }
    impl Drop for Dropped {
        fn drop(&mut self) {
            assert!(!self.1, "on purpose: it was reset");
        }
    }
    let (_network, mut engine) = simulated(|_| Answer::ok("a"));
    engine.submit(build(get("/"), Twice(Panics("reset"))), note);
    let mut told = Told::new();
    let ran = catch_unwind(AssertUnwindSafe(|| engine.run(&mut told)));
    assert!(ran.is_err());
    engine.run(&mut told).unwrap();
    assert_eq!((told, engine.pending()), (vec![ok("a")], 0));

    let places = [
        "start", "send", "head", "decode", "finish", "end", "drop", "reset",
    ];
    for place in places {
        let (network, mut engine) = simulated(|_| Answer::ok("a"));
        engine.submit(build(get("/"), Panics(place)), note);
        engine.submit(get("/").build().unwrap(), note);
        let mut told = Told::new();
        let ran = catch_unwind(AssertUnwindSafe(|| engine.run(&mut told)));
        assert!(ran.is_err(), "{place}: no panic propagates");
        engine.run(&mut told).unwrap();
        // A panic in `reset` or in the destructor comes after the exchange, so its readback is
        // called.
        let expected = match place {
            "reset" | "drop" => 2,
            _ => 1,
        };
        assert_eq!(told, vec![ok("a"); expected], "{place}");
        assert_eq!(engine.pending(), 0, "{place}");
        assert!(network.misuses().is_empty(), "{place}");
    }
}

#[test]
fn a_visit_that_can_be_reset_serves_the_chain_for_ever() {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    struct Kept(bool);
    impl Visit for Kept {
        fn reset(&mut self) -> bool {
            self.0
        }
    }
    struct Counted(bool);
    impl Policy for Counted {
        fn visit(&self, _: &Request, _: &Moment<'_>) -> Box<dyn Visit> {
            MADE.fetch_add(1, Ordering::Relaxed);
            Box::new(Kept(self.0))
        }
    }
    for (is_kept, made) in [(true, 1), (false, 5)] {
        MADE.store(0, Ordering::Relaxed);
        let (_network, mut engine) = simulated(|_| Answer::ok("a"));
        let mut left = 5;
        engine.submit(
            build(get("/"), Counted(is_kept)),
            move |told: &mut Told, reply, cx| {
                left -= 1;
                let _ = note(told, reply, cx);
                match left {
                    0 => cx.done(),
                    _ => cx.again(),
                }
            },
        );
        let mut told = Told::new();
        engine.run(&mut told).unwrap();
        assert_eq!((told.len(), MADE.load(Ordering::Relaxed)), (5, made));
    }
}
