//! The public API as external programs use it: each item is used once, and the documented
//! properties of types are asserted.

use crate::common;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::Server;
use httpstream::http;
use httpstream::{
    ChainId, Config, Context, Engine, Error, ErrorKind, Flow, Gone, Headers, Info, Limits, Next,
    Origin, Owned, Phase, Readback, Reply, Request, RequestBuilder, Response, Sent, Stats,
    Submitter, Timeouts, Turn, Unread, Violation, within, within_call, within_to,
};

/// Not `Send`, and not `Clone`.
#[derive(Default)]
struct Bot {
    calls: Rc<Cell<u32>>,
}

impl Bot {
    fn on_check(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.calls.set(self.calls.get() + 1);
        let _: (ChainId, Instant) = (cx.id(), cx.now());
        match reply {
            Ok(_) => Next::send(refused()).read_by(Self::on_check),
            Err(_) => Next::done(),
        }
    }

    fn on_call(&mut self, cx: &mut Context<'_, Self>) -> Next<Self> {
        let _: (ChainId, Instant) = (cx.id(), cx.now());
        Next::done()
    }
}

struct Collector(Vec<u8>);

impl Readback<Bot> for Collector {
    fn on_interim(&mut self, _: &mut Bot, head: &Response<'_>, _: &mut Context<'_, Bot>) {
        let _: http::StatusCode = head.status();
    }

    fn on_head(&mut self, _: &mut Bot, _: &Response<'_>, _: &mut Context<'_, Bot>) -> Flow {
        Flow::Stream
    }

    fn on_data(&mut self, _: &mut Bot, data: &[u8], _: &mut Context<'_, Bot>) -> Flow {
        self.0.extend_from_slice(data);
        Flow::Stream
    }

    fn on_due(&mut self, _: &mut Bot, _: &mut Context<'_, Bot>) -> Next<Bot> {
        Next::wait().after(Duration::MAX)
    }

    fn on_reply(&mut self, bot: &mut Bot, _: Reply<'_>, cx: &mut Context<'_, Bot>) -> Next<Bot> {
        bot.calls.set(bot.calls.get() + 1);
        cx.done()
    }
}

fn refused() -> Request {
    Request::get("http://127.0.0.1:1/").build().unwrap()
}

fn is_send<T: Send>() {}
fn is_send_sync_static<T: Send + Sync + 'static>() {}
fn is_id<T: Copy + Eq + std::hash::Hash + Ord + Send + std::fmt::Debug>() {}

#[test]
fn types_keep_what_the_contract_says_of_them() {
    is_send::<Request>();
    is_id::<ChainId>();
    is_send_sync_static::<Error>();
    is_send_sync_static::<Gone>();
    // For every `S`, even if it is not `Send`.
    is_send_sync_static::<Submitter<Bot>>();
    assert_eq!(
        size_of::<Error>(),
        size_of::<usize>(),
        "an error is one pointer wide"
    );
    let id = ChainId::from_u64(7);
    assert_eq!(id.to_u64(), 7);
}

#[test]
fn an_engine_does_what_each_line_of_the_contract_promises() {
    let mut config = Config::default();
    config.max_connections = 64;
    config.max_connections_per_origin = 8;
    config.max_idle_per_origin = 4;
    config.idle_timeout = Duration::from_secs(5);
    config.timeouts.resolve = Some(Duration::from_secs(1));
    config.limits.max_head_bytes = 10_000;
    config.user_agent = None;
    config
        .default_headers
        .push(("Accept".to_owned(), b"*/*".to_vec()));
    config.resolve_to("*.qq.com", SocketAddr::from(([127, 0, 0, 1], 1)));
    let _: (&Timeouts, &Limits) = (&config.timeouts, &config.limits);

    let mut engine: Engine<Bot, Owned> = Engine::with_config(config).unwrap();
    let mut bot = Bot::default();
    let calls = Rc::clone(&bot.calls);

    engine.submit(refused(), Bot::on_check);
    engine.submit(refused(), |_, reply, _| {
        let error: Error = reply.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect);
        assert_eq!(error.phase(), Phase::Connect);
        assert_eq!(error.request_sent(), Sent::No);
        assert!(error.resend_is_safe() && !error.reused_connection());
        let _: (Option<&Violation>, Option<http::StatusCode>) = (error.violation(), error.status());
        assert_eq!(
            error.origin().map(Origin::to_string).as_deref(),
            Some("http://127.0.0.1:1")
        );
        assert!(error.partial_body().is_empty());
        Next::done()
    });
    engine.submit_to(
        Request::get("http://s.web2.qq.com/").build().unwrap(),
        Unread,
    );
    engine.submit_to(refused(), Collector(Vec::new()));
    let delayed = engine.start(
        engine
            .send(refused())
            .after(Duration::MAX)
            .read_by(Bot::on_check),
    );
    engine.submit_to(refused(), within(|bot: &mut Bot| Some(bot), Bot::on_check));
    engine.submit_to(
        refused(),
        within_to(|bot: &mut Bot| Some(bot), Collector(Vec::new())),
    );
    engine.submit(refused(), |_, _, cx| {
        let id = cx.submit(refused(), Bot::on_check);
        cx.submit_to(refused(), Unread);
        cx.start(
            cx.send(refused())
                .after(Duration::from_millis(1))
                .read_by(Bot::on_check),
        );
        assert!(cx.cancel(id) && !cx.resume(id));
        cx.send(refused()).read_by(|bot, _, cx| {
            bot.calls.set(bot.calls.get() + 1);
            cx.stop();
            cx.again().after(Duration::MAX).read_to(Unread)
        })
    });
    let unmade: ChainId = engine.start(Next::call(|_, _| Next::done()).after(Duration::MAX));
    let once = String::from("an FnOnce");
    engine.call(within_call(
        |bot: &mut Bot| Some(bot),
        |bot: &mut Bot, cx| {
            drop(once);
            bot.calls.set(bot.calls.get() + 1);
            let _: ChainId = cx.start(Next::call(|_, cx| cx.done()).after(Duration::ZERO));
            let _: ChainId = cx.call(|_, _| Next::call(Bot::on_call).after(Duration::ZERO));
            Next::done()
        },
    ));
    assert_eq!(engine.pending(), 10);
    assert!(
        engine
            .next_deadline()
            .is_some_and(|due| due <= Instant::now())
    );
    assert_eq!(engine.next_timeout(), Some(Duration::ZERO));

    engine.run(&mut bot).unwrap();
    let turn: Turn = engine.turn(&mut bot, Some(Duration::ZERO)).unwrap();
    let _: (usize, usize, bool, bool) = (turn.events, turn.answered, turn.more, turn.stopped);
    assert!(engine.cancel(unmade) && !engine.cancel(unmade));
    assert!(engine.cancel(delayed) && !engine.cancel(delayed) && !engine.resume(delayed));

    let submitter = engine.submitter();
    let called = submitter.call(|_, cx| cx.done());
    let cancelled: Result<(), Gone> = submitter.cancel(called.unwrap());
    cancelled.unwrap();
    let called = submitter.call_after(Duration::MAX, Bot::on_call);
    submitter.cancel(called.unwrap()).unwrap();
    let from_afar = submitter
        .clone()
        .submit_after(Duration::MAX, refused(), |_, _, _| Next::done())
        .unwrap();
    submitter.submit(refused(), |_, _, _| Next::done()).unwrap();
    submitter.submit_to(refused(), Unread).unwrap();
    submitter.cancel(from_afar).unwrap();
    submitter.resume(from_afar).unwrap();
    submitter.stop().unwrap();
    engine.run(&mut bot).unwrap();

    engine.close_idle();
    engine.drain(&mut bot, Duration::from_secs(5)).unwrap();
    assert_eq!(engine.pending(), 0);
    let stats: Stats = engine.stats();
    assert_eq!(
        (
            stats.links_open,
            stats.links_idle,
            stats.links_dialing,
            stats.in_flight
        ),
        (0, 0, 0, 0)
    );
    assert_eq!((stats.queued, stats.delayed, stats.paused), (0, 0, 0));
    let _: [u64; 10] = [
        stats.opened,
        stats.reused,
        stats.submitted,
        stats.answered,
        stats.failed,
        stats.retried,
        stats.bytes_in,
        stats.bytes_out,
        stats.turns,
        stats.wakeups,
    ];
    assert!(calls.get() >= 5);
    drop(engine);
    // A refusal returns the submission, of whatever type.
    let refusal = submitter.submit(refused(), |_, _, _| Next::done());
    let refusal = refusal.unwrap_err();
    assert!(!refusal.is_full() && format!("{refusal:?} {refusal}").starts_with("Gone"));
    let (request, readback) = refusal.into_inner();
    let refusal = submitter.submit(request, readback).unwrap_err();
    let error: Error = refusal.into();
    assert_eq!(error.kind(), ErrorKind::Gone);
}

#[test]
fn requests_are_built_as_the_contract_writes_them() {
    let builder: RequestBuilder = Request::builder(http::Method::PUT, "http://h.test/p")
        .header("X-A", "text")
        .header("X-B", b"bytes")
        .query([("a b", "c d")])
        .form([("k", "v w")])
        .body(b"body".to_vec())
        .timeout(Duration::from_secs(1))
        .long_poll(Duration::from_secs(60))
        .timeouts(|t| t.idle = None)
        .limits(|l| l.max_body_bytes = 10)
        .idempotent(true)
        .fresh_connection()
        .close();
    let request = builder.build().unwrap();
    assert_eq!(request.method(), http::Method::PUT);
    assert_eq!(request.uri().to_string(), "http://h.test/p?a%20b=c%20d");
    for make in [
        Request::get,
        Request::head,
        Request::post,
        Request::put,
        Request::patch,
        Request::delete,
        Request::options,
    ] {
        let _: Request = make("http://h.test/").build().unwrap();
    }
    let foreign = http::Request::get("http://h.test/")
        .body(Vec::new())
        .unwrap();
    assert!(Request::try_from(foreign).is_ok());
    let error = Request::get("http://h.test/\r\n").build().unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::InvalidRequest, Phase::Build)
    );
}

/// Never called: it only has to compile.
#[allow(dead_code)]
fn responses_have_what_the_contract_lists(response: Response<'_>) {
    let _: (http::StatusCode, http::Version, &[u8]) =
        (response.status(), response.version(), response.reason());
    let _: Option<&[u8]> = response.header("a");
    let _: Option<&[u8]> = response.header_all("a").next();
    let headers: Headers<'_> = response.headers();
    let _: (usize, Option<(&str, &[u8])>) = (headers.clone().len(), headers.clone().next());
    let _: (Headers<'_>, Option<u64>) = (response.trailers(), response.content_length());
    let _: (&[u8], Result<&str, Error>) = (response.body(), response.text());
    let _: http::Response<Vec<u8>> = response.to_http();
    let info: &Info = response.info();
    let _: (ChainId, &http::Uri, SocketAddr) = (info.id, info.url(), info.peer);
    let _: (bool, u32) = (info.reused, info.attempts);
    let t = info.timings;
    let _: [Option<Duration>; 6] = [t.resolve, t.connect, t.tls, t.sent, t.first_byte, t.done];
    let _: Vec<u8> = response.into_body();
}

#[test]
fn a_response_becomes_one_of_http_and_its_body_moves() {
    let fields = "X-A: one\r\nX-A: two\r\nTransfer-Encoding: chunked\r\n";
    let chunked = format!("HTTP/1.1 203 Fine\r\n{fields}\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    let sized = "HTTP/1.0 203 Fine\r\nX-A: one\r\nX-A: two\r\nContent-Length: 5\r\n\r\nabcde";
    for (wire, version) in [
        (chunked.as_bytes(), http::Version::HTTP_11),
        (sized.as_bytes(), http::Version::HTTP_10),
    ] {
        let server = Server::once(wire.to_vec());
        let mut engine = Engine::<Vec<http::Response<Vec<u8>>>>::new().unwrap();
        let mut got = Vec::new();
        engine.submit(server.get("/"), |got, reply, _| {
            let response = reply.unwrap();
            got.push(response.to_http());
            got.push(response.into_http());
            Next::done()
        });
        engine.run(&mut got).unwrap();
        assert_eq!(got.len(), 2);
        for response in got {
            assert_eq!(response.status(), 203);
            assert_eq!(response.version(), version);
            let values: Vec<_> = response.headers().get_all("x-a").iter().collect();
            assert_eq!(values, ["one", "two"]);
            assert_eq!(response.body(), b"abcde");
        }
    }
}

#[test]
fn more_fields_than_http_can_hold_make_no_panic() {
    const FIELDS: usize = 40_000;
    for same in [false, true] {
        let mut wire = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n".to_vec();
        for i in 0..FIELDS {
            let name = if same { 0 } else { i };
            wire.extend(format!("X-{name}: {i}\r\n").bytes());
        }
        wire.extend(b"\r\na");
        let server = Server::once(wire);
        let mut config = Config::default();
        config.limits.max_head_bytes = 4 << 20;
        config.limits.max_fields = 2 * FIELDS;
        let mut engine = Engine::<Vec<http::Response<Vec<u8>>>>::with_config(config).unwrap();
        let mut got = Vec::new();
        engine.submit(server.get("/"), |got, reply, _| {
            let response = reply.unwrap();
            assert_eq!(response.headers().len(), FIELDS + 1);
            got.push(response.to_http());
            got.push(response.into_http());
            Next::done()
        });
        engine.run(&mut got).unwrap();
        assert_eq!(got.len(), 2);
        for response in got {
            assert_eq!(
                (response.status().as_u16(), &response.body()[..]),
                (200, &b"a"[..])
            );
            assert_eq!(response.headers()["x-0"], "0");
        }
    }
}

#[cfg(unix)]
#[test]
fn an_engine_is_one_file_descriptor() {
    use std::os::fd::{AsFd, AsRawFd};
    let engine = Engine::<()>::new().unwrap();
    assert_eq!(engine.as_fd().as_raw_fd(), engine.as_raw_fd());
}

#[test]
fn an_engine_on_the_hosts_poll_takes_its_events() {
    use httpstream::mio::{Events, Interest, Poll, Registry, Token, event::Event};
    use httpstream::{Mode, Shared};

    fn is_mode<M: Mode>(_: &Engine<Bot, M>) {}

    let mut poll = Poll::new().unwrap();
    let registry: &Registry = poll.registry();
    let mut config = Config::default();
    config.max_connections = 16;
    let made = Engine::<Bot, Shared>::on_registry(registry, 100..100 + 96, || {}, config);
    let mut engine: Engine<Bot, Shared> = made.unwrap();
    is_mode(&engine);
    // A registration of the host's own, under a token that is not the engine's.
    let (mut own, _other) = httpstream::mio::net::UnixStream::pair().unwrap();
    registry
        .register(&mut own, Token(1), Interest::WRITABLE)
        .unwrap();
    let server = Server::answering(common::ok("a"));
    let mut bot = Bot::default();
    engine.submit(server.get("/"), |bot, _, cx| {
        bot.calls.set(bot.calls.get() + 1);
        cx.done()
    });
    let (mut events, mut ours, mut foreign) = (Events::with_capacity(8), 0, 0);
    while engine.pending() > 0 {
        poll.poll(&mut events, engine.next_timeout()).unwrap();
        for event in &events {
            let event: &Event = event;
            match engine.on_event(event) {
                true => ours += 1,
                false => foreign += 1,
            }
        }
        let _: Turn = engine.turn(&mut bot).unwrap();
    }
    assert_eq!((bot.calls.get(), foreign), (1, 1));
    assert!(ours > 0);
    let _: (Submitter<Bot>, Stats, Option<Duration>) =
        (engine.submitter(), engine.stats(), engine.next_timeout());
    engine.close_idle();
}
