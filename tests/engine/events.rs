//! Event streams on whole engines, in the simulation.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{self, Poll, Waker};
use std::time::Duration;

use httpstream::events::{Event, Stream};
use httpstream::policy::Verdict;
use httpstream::session::{Decode, Redirects, Session};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    ChainId, Config, Context, Engine, Error, ErrorKind, Events, Flow, Local, LowSpeed, Next,
    Readback, Reply, Request, Response, Retry, Sim, Unread, Violation, within_to,
};

use crate::visits::at_end;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

#[derive(Debug, Default)]
struct Log {
    /// The events, and in the end the outcome, each with the second in which it came.
    lines: Vec<(u64, String)>,
}

impl Log {
    fn note(&mut self, network: &Network, line: impl Into<String>) {
        self.lines.push((network.elapsed().as_secs(), line.into()));
    }

    fn texts(&self) -> Vec<&str> {
        self.lines.iter().map(|(_, line)| &line[..]).collect()
    }
}

fn text(event: &Event<'_>) -> String {
    format!("{}|{}|{}", event.id(), event.name(), event.data())
}

fn outcome(reply: Reply<'_>) -> String {
    match reply {
        Ok(response) => format!("{} {:?}", response.status(), response.text().unwrap()),
        Err(error) => format!("{:?}", error.kind()),
    }
}

type OnEvent = Box<dyn FnMut(&mut Log, Event<'_>, &mut Context<'_, Log>) -> Flow>;
type Then = Box<dyn FnMut(&mut Log, Reply<'_>, &mut Context<'_, Log>) -> Next<Log>>;

/// Reads events and the outcome into the log.
fn noting(network: &Network) -> Events<OnEvent, Then> {
    let (at, over) = (network.clone(), network.clone());
    let on_event: OnEvent = Box::new(move |log, event, _| {
        log.note(&at, text(&event));
        Flow::Stream
    });
    let then: Then = Box::new(move |log, reply, _| {
        log.note(&over, outcome(reply));
        Next::done()
    });
    Events::new(on_event).then(then)
}

/// Waits of exactly one second, so that times can be compared.
fn second(retry: Retry) -> Retry {
    retry.backoff(SECOND, SECOND).floor(SECOND)
}

/// A stream that begins at once and sends each part after so many seconds. It lasts until the
/// connection is closed.
fn stream<'p>(parts: impl IntoIterator<Item = (u64, &'p str)>) -> Answer {
    let mut wire = HEAD.to_owned();
    let mut pauses = Vec::new();
    for (seconds, part) in parts {
        pauses.push((wire.len(), seconds));
        wire += part;
    }
    let pause = |answer: Answer, (at, seconds)| answer.pause(at, seconds * SECOND);
    pauses
        .into_iter()
        .filter(|(_, seconds)| *seconds > 0)
        .map(|(at, seconds)| (at, seconds as u32))
        .fold(Answer::raw(wire), pause)
}

/// A network with a server that answers its requests in turn, and then with 204. Returns what the
/// requests were: when they arrived, and their Last-Event-ID.
type Requests = Rc<RefCell<Vec<(u64, Option<String>)>>>;

fn serve(answers: impl IntoIterator<Item = Answer>) -> (Network, Requests) {
    let network = Network::new(1);
    let requests = Requests::default();
    let answers = RefCell::new(answers.into_iter().collect::<Vec<_>>().into_iter());
    let seen = Rc::clone(&requests);
    network.host("a.test", [[10, 0, 0, 1]]);
    network.serve(addr(), move |request: &Incoming| {
        let id = request.header("Last-Event-ID");
        let id = id.map(|id| String::from_utf8_lossy(id).into_owned());
        seen.borrow_mut().push((request.at.as_secs(), id));
        let answer = answers.borrow_mut().next();
        answer.unwrap_or_else(|| Answer::status(204))
    });
    (network, requests)
}

fn addr() -> SocketAddr {
    "10.0.0.1:80".parse().unwrap()
}

fn get() -> Request {
    let request = Request::get("http://a.test/news").accept_events();
    request.build().unwrap()
}

fn engine<S>(network: &Network) -> Engine<S, Sim> {
    Engine::on_network(network, Config::default()).unwrap()
}

/// Reads a stream until it is over for good.
fn run<R: Readback<Log> + 'static>(network: &Network, request: Request, events: R) -> Log {
    let mut engine = engine(network);
    engine.submit_to(request, events);
    let mut log = Log::default();
    engine.run(&mut log).unwrap();
    log
}

fn numbered(id: &str) -> Option<String> {
    Some(id.to_owned())
}

#[test]
fn a_stream_is_opened_again_where_it_ended() {
    let (network, requests) = serve([
        stream([(
            0,
            "id: 1\ndata: a\n\nid: 2\nevent: b\ndata: b\n\nid: 3\ndata: lost\n",
        )])
        .close(),
        // Cut off within a chunk, and the id counts without data.
        Answer::raw(
            HEAD.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n")
                + "10\r\nid: 4\n\ndata: c\n\n\r\nff\r\ndata: lost",
        )
        .reset(),
        // Without an id, and none is set here either.
        stream([(0, "data: d\n\n")]).close(),
        // An empty id is none.
        stream([(0, "id\ndata: e\n\n")]).close(),
    ]);
    let events = noting(&network).retry(second(Retry::forever()));
    let log = run(&network, get(), events);
    let expected = [
        (0, "1|message|a"),
        (0, "2|b|b"),
        (1, "4|message|c"),
        (2, "4|message|d"),
        (3, "|message|e"),
        (4, "204 No Content \"\""),
    ];
    assert_eq!(log.lines, expected.map(|(at, line)| (at, line.to_owned())));
    let expected = [
        (0, None),
        (1, numbered("2")),
        (2, numbered("4")),
        (3, numbered("4")),
        (4, None),
    ];
    assert_eq!(*requests.borrow(), expected);
}

#[test]
fn the_first_id_is_that_of_the_request_or_of_the_program() {
    let answers = || [stream([]).close(), stream([(0, "data: x\n\n")]).close()];
    let events = |network: &Network| noting(network).retry(second(Retry::forever()));

    let (network, requests) = serve(answers());
    let request = get().edit().header("last-event-id", "41").build().unwrap();
    let log = run(&network, request, events(&network));
    assert_eq!(log.texts(), ["41|message|x", "204 No Content \"\""]);
    assert!(
        requests
            .borrow()
            .iter()
            .all(|(_, id)| *id == numbered("41")),
        "{requests:?}"
    );

    // `open` sends the id that was set, and asks for events.
    let (network, requests) = serve(answers());
    let mut engine = engine(&network);
    let plain = Request::get("http://a.test/news")
        .header("Accept", "text/*")
        .build()
        .unwrap();
    engine.start(events(&network).last_event_id("42").open(plain));
    let mut log = Log::default();
    engine.run(&mut log).unwrap();
    assert_eq!(log.texts(), ["42|message|x", "204 No Content \"\""]);
    assert!(
        requests
            .borrow()
            .iter()
            .all(|(_, id)| *id == numbered("42")),
        "{requests:?}"
    );
    let ledger = network.ledger();
    let first = ledger.requests().next().unwrap();
    let head = String::from_utf8_lossy(&first.bytes).into_owned();
    assert!(head.contains("Accept: text/*\r\n"), "{head}");
    assert!(head.contains("Cache-Control: no-store\r\n"), "{head}");
    assert!(!head.contains("text/event-stream"), "{head}");
}

#[test]
fn the_server_sets_the_least_wait_and_keeps_nobody_away_for_longer_than_an_hour() {
    let (network, requests) = serve([
        stream([(0, "retry: 5000\ndata: a\n\n")]).close(),
        stream([]).close(),
        // A field alone counts, and one that is no number does not.
        stream([(0, "retry: 7000\nretry: 1s\n")]).close(),
        stream([(0, "retry: 0\n\n")]).close(),
        stream([(0, "retry: 99999999999999999999\n\n")]).close(),
    ]);
    let log = run(
        &network,
        get(),
        noting(&network).retry(second(Retry::forever())),
    );
    assert_eq!(log.texts(), ["|message|a", "204 No Content \"\""]);
    let times: Vec<u64> = requests.borrow().iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [0, 5, 10, 17, 18, 3618]);
}

#[test]
fn a_server_that_ends_every_stream_at_once_is_not_flooded() {
    for answer in [
        || stream([]).close(),
        // A comment, or a field without data, is not an event.
        || stream([(0, ": hello\n\nretry: 10\nid: 7\n\n")]).close(),
        || Answer::status(200).header("Content-Type", "text/event-stream"),
        || Answer::status(503),
        || Answer::nothing().reset(),
    ] {
        let network = Network::new(1);
        let count = Rc::new(Cell::new(0));
        let seen = Rc::clone(&count);
        network.host("a.test", [[10, 0, 0, 1]]);
        network.serve(addr(), move |_: &Incoming| {
            seen.set(seen.get() + 1);
            answer()
        });
        let mut engine = engine::<Log>(&network);
        engine.submit_to(get(), noting(&network));
        let stop = Next::call(|_: &mut Log, cx: &mut Context<'_, Log>| {
            cx.stop();
            Next::done()
        });
        engine.start(stop.after(3600 * SECOND));
        let mut log = Log::default();
        engine.run(&mut log).unwrap();
        assert_eq!(log.lines, [], "it is tried forever");
        // About half a minute each, once the wait has grown.
        let count = count.get();
        assert!((60..250).contains(&count), "{count} requests in an hour");
    }
}

#[test]
fn events_and_a_long_life_start_the_count_of_failures_anew() {
    let flows = || stream([(0, "data: x\n\n")]).close();
    let lasts = || stream([(30, ":\n"), (31, ":\n")]).close();
    let fails = || stream([(59, ":\n")]).close();
    let (network, requests) = serve([
        fails(),
        flows(),
        fails(),
        lasts(),
        fails(),
        fails(),
        flows(),
    ]);
    let log = run(
        &network,
        get(),
        noting(&network).retry(second(Retry::attempts(3))),
    );
    assert_eq!(log.texts(), ["|message|x", "200 OK \"\""]);
    // The end of a stream that has flowed or lasted is the first failure, and the third is one too
    // many.
    assert_eq!(requests.borrow().len(), 6);

    let (network, requests) = serve([fails(), fails(), flows()]);
    let log = run(
        &network,
        get(),
        noting(&network).retry(second(Retry::attempts(2))),
    );
    assert_eq!(log.texts(), ["200 OK \"\""]);
    assert_eq!(requests.borrow().len(), 2);
}

#[test]
fn a_silent_stream_is_cut_off_and_opened_again() {
    let (network, requests) = serve([
        stream([
            (0, "id: 1\ndata: a\n\n"),
            (44, ": ping\n"),
            (44, "data: b\n\n"),
        ]),
        stream([]),
    ]);
    let events = noting(&network)
        .retry(second(Retry::forever()))
        .silence(45 * SECOND);
    let log = run(&network, get(), events);
    assert_eq!(
        log.texts(),
        ["1|message|a", "1|message|b", "204 No Content \"\""]
    );
    let times: Vec<u64> = requests.borrow().iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [0, 88 + 45 + 1, 88 + 45 + 1 + 45 + 1]);
}

#[test]
fn a_stream_may_last_for_days_and_be_silent_for_minutes() {
    // Five minutes are the limit, unless it is lifted.
    for (silence, most) in [(290, None), (100_000, Some(Duration::MAX))] {
        let parts = (0..200).map(|_| (silence, "data: x\n\n"));
        let (network, requests) = serve([stream(parts).close()]);
        let mut config = Config::default();
        config.timeouts.low_speed = Some(LowSpeed::new(1000, 10 * SECOND));
        let mut engine = Engine::<Log, Sim>::on_network(&network, config).unwrap();
        let mut events = noting(&network).retry(second(Retry::forever()));
        if let Some(most) = most {
            events = events.silence(most);
        }
        engine.submit_to(get(), events);
        let mut log = Log::default();
        engine.run(&mut log).unwrap();
        assert_eq!(log.lines.len(), 201);
        assert_eq!(requests.borrow().len(), 2);
    }
    let (network, requests) = serve([stream([(301, "data: x\n\n")])]);
    run(
        &network,
        get(),
        noting(&network).retry(second(Retry::forever())),
    );
    assert_eq!(requests.borrow()[1].0, 301);
}

#[test]
fn what_is_no_stream_is_over_for_good() {
    let ok = || Answer::status(200);
    let page = |media_type: &str| ok().header("Content-Type", media_type).body("data: x\n\n");
    for (answer, expected) in [
        (Answer::status(204), "204 No Content \"\""),
        (Answer::status(404).body("gone"), "404 Not Found \"gone\""),
        (
            Answer::status(301).header("Location", "/other"),
            "301 Moved Permanently \"\"",
        ),
        (page("text/html"), "200 OK \"data: x\\n\\n\""),
        (page("text/event-streams"), "200 OK \"data: x\\n\\n\""),
        (
            page("application/json; x=text/event-stream"),
            "200 OK \"data: x\\n\\n\"",
        ),
        (ok().body("data: x\n\n"), "200 OK \"data: x\\n\\n\""),
        (
            Answer::status(201)
                .header("Content-Type", "text/event-stream")
                .body("data: x\n\n"),
            "201 Created \"data: x\\n\\n\"",
        ),
    ] {
        let (network, requests) = serve([answer, stream([(0, "data: y\n\n")])]);
        let log = run(&network, get(), noting(&network));
        assert_eq!(log.texts(), [expected]);
        assert_eq!(requests.borrow().len(), 1, "{expected}");
    }
    for media_type in [
        "text/event-stream;charset=utf-8",
        "Text/Event-Stream",
        " text/event-stream ;",
    ] {
        let (network, _) = serve([page(media_type)]);
        let log = run(
            &network,
            get(),
            noting(&network).retry(second(Retry::forever())),
        );
        assert_eq!(
            log.texts(),
            ["|message|x", "204 No Content \"\""],
            "{media_type:?}"
        );
    }
}

#[test]
fn failures_before_the_stream_are_retried_as_the_retry_says() {
    let busy = |status| {
        Answer::status(status)
            .header("Retry-After", "9")
            .body("busy")
    };
    let (network, requests) = serve([
        Answer::nothing().close(),
        busy(429),
        busy(503),
        stream([(0, "data: x\n\n")]).close(),
    ]);
    let log = run(
        &network,
        get(),
        noting(&network).retry(second(Retry::forever()).max_wait(9 * SECOND)),
    );
    assert_eq!(log.texts(), ["|message|x", "204 No Content \"\""]);
    let times: Vec<u64> = requests.borrow().iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [0, 1, 10, 19, 20]);

    // The last failure is told when the attempts are used up, with its body.
    let (network, _) = serve([busy(503), busy(503)]);
    let log = run(
        &network,
        get(),
        noting(&network).retry(second(Retry::attempts(2)).max_wait(9 * SECOND)),
    );
    assert_eq!(log.texts(), ["503 Service Unavailable \"busy\""]);

    // How long to wait may be in the body.
    let (network, requests) = serve([Answer::status(503).body("30"), Answer::status(204)]);
    let retry = second(Retry::forever())
        .max_wait(60 * SECOND)
        .wait_from(|response| Some(Duration::from_secs(response.text().ok()?.parse().ok()?)));
    run(
        &network,
        get(),
        noting(&network).retry(retry).then_to(Unread),
    );
    assert_eq!(requests.borrow()[1].0, 30);
}

#[test]
fn a_post_is_sent_once() {
    let post = || Request::post("http://a.test/ask").accept_events().body("?");
    let answers = || {
        [
            stream([(0, "data: x\n\n")]).close(),
            stream([(0, "data: y\n\n")]).close(),
        ]
    };
    let (network, requests) = serve(answers());
    let log = run(&network, post().build().unwrap(), noting(&network));
    assert_eq!(log.texts(), ["|message|x", "200 OK \"\""]);
    assert_eq!(requests.borrow().len(), 1);

    let (network, requests) = serve(answers());
    let asked = post().idempotent(true).build().unwrap();
    run(&network, asked, noting(&network));
    assert_eq!(requests.borrow().len(), 3);

    let (network, requests) = serve([stream([(0, "data: x\n\n")]).reset()]);
    let log = run(&network, post().build().unwrap(), noting(&network));
    assert_eq!(log.texts().len(), 2);
    assert_eq!(requests.borrow().len(), 1);
}

#[test]
fn an_id_that_no_field_can_hold_ends_nothing() {
    let (network, requests) = serve([
        stream([(0, "id: 1\n\nid: a\u{1}b\ndata: x\n\n")]).close(),
        stream([(0, "id:  é \ndata: y\n\n")]).close(),
    ]);
    let log = run(
        &network,
        get(),
        noting(&network).retry(second(Retry::forever())),
    );
    assert_eq!(
        log.texts(),
        ["a\u{1}b|message|x", " é |message|y", "204 No Content \"\""]
    );
    let ids: Vec<_> = requests.borrow().iter().map(|(_, id)| id.clone()).collect();
    assert_eq!(ids, [None, None, numbered("é")]);
}

#[test]
fn an_event_without_an_end_is_refused() {
    for part in ["data: ", "x", ":", "event: ", "data: x\ndata: "] {
        let long = part.to_owned() + &"x".repeat(2000) + "\n\n";
        let (network, requests) = serve([
            stream([(0, "data: a\n\n"), (0, &long)]),
            Answer::status(204),
        ]);
        let events = noting(&network).max_event_bytes(1000);
        let seen = Rc::new(Cell::new(None));
        let events = events.then({
            let seen = Rc::clone(&seen);
            move |_: &mut Log, reply, _| {
                seen.set(reply.err());
                Next::done()
            }
        });
        let log = run(&network, get(), events);
        assert_eq!(log.texts(), ["|message|a"]);
        assert_eq!(requests.borrow().len(), 1, "it is not opened again");
        let error = seen.take().unwrap();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        let Some(Violation::EventTooLarge { limit: 1000, seen }) = error.violation() else {
            panic!("{error:#}");
        };
        assert!((1001..=2020).contains(seen), "{seen}");
        let text = format!("{error:#}");
        assert!(
            text.contains("event exceeds max_event_bytes (1000 bytes; "),
            "{text}"
        );
    }
    // The default.
    let (network, _) = serve([stream([(0, &*"x".repeat(1 << 20)), (0, "x")])]);
    assert_eq!(run(&network, get(), noting(&network)).texts(), ["TooLarge"]);
}

/// Pauses after each event, and is resumed after a second.
fn pausing(
    network: &Network,
    every: Duration,
) -> impl FnMut(&mut Log, Event<'_>, &mut Context<'_, Log>) -> Flow + use<> {
    let network = network.clone();
    move |log: &mut Log, event, cx| {
        log.note(&network, text(&event));
        let id = cx.id();
        let resume = Next::<Log>::call(move |_, cx| {
            assert!(cx.resume(id), "it is paused");
            Next::done()
        });
        cx.start(resume.after(every));
        Flow::Pause
    }
}

#[test]
fn a_pause_holds_back_the_events_of_its_piece() {
    let piece = "data: a\n\ndata: b\r\n\r\n\r\ndata: c\r\rid: 1\ndata: d\n\nda";
    let parts = || [(0, piece), (2, "ta: e\n\nid: 2\ndata: f\n\n")];
    let expected = |network: &Network| {
        let pausing = pausing(network, SECOND);
        let over = network.clone();
        Events::new(pausing)
            .retry(second(Retry::forever()))
            .then(move |log: &mut Log, reply, _| {
                log.note(&over, outcome(reply));
                Next::done()
            })
    };
    let lines = [
        (0, "|message|a"),
        (1, "|message|b"),
        (2, "|message|c"),
        (3, "1|message|d"),
        (4, "1|message|e"),
        (5, "2|message|f"),
        // The end is noticed after the last pause.
        (7, "204 No Content \"\""),
    ];
    let lines = lines.map(|(at, line)| (at, line.to_owned()));
    let (network, requests) = serve([stream(parts()).close()]);
    assert_eq!(run(&network, get(), expected(&network)).lines, lines);
    assert_eq!(requests.borrow()[1], (7, numbered("2")));

    // Byte by byte, and decoded.
    let wire = piece.to_owned() + "ta: e\n\nid: 2\ndata: f\n\n";
    let (network, _) = serve([Answer::raw(HEAD.to_owned() + &wire).drip(1, MS).close()]);
    let texts = |log: &Log| {
        log.lines
            .iter()
            .map(|(_, line)| line.clone())
            .collect::<Vec<_>>()
    };
    let dripped = run(&network, get(), expected(&network));
    let expected_texts: Vec<_> = lines.iter().map(|(_, line)| line.clone()).collect();
    assert_eq!(texts(&dripped), expected_texts);
    let (network, _) = serve([gzipped(wire.as_bytes())]);
    let session = Session::builder().decode(Decode::all()).build().unwrap();
    let request = get().edit().session(&session).build().unwrap();
    let decoded = run(&network, request, expected(&network));
    assert_eq!(texts(&decoded), expected_texts);
}

fn gzipped(body: &[u8]) -> Answer {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body).unwrap();
    Answer::status(200)
        .header("Content-Type", "text/event-stream")
        .header("Content-Encoding", "gzip")
        .chunked([encoder.finish().unwrap()])
}

#[test]
fn a_stream_that_breaks_during_a_pause_goes_on_after_the_last_delivered_event() {
    // The second event waits behind the pause, and the reset is noticed when it is over.
    let (network, requests) = serve([
        stream([(0, "id: 1\ndata: a\n\nid: 2\ndata: b\n\n")]).reset(),
        stream([(0, "id: 3\ndata: c\n\n")]).close(),
    ]);
    let events = Events::new(pausing(&network, SECOND)).retry(second(Retry::forever()));
    let log = run(&network, get(), events);
    assert_eq!(log.texts(), ["1|message|a", "2|message|b", "3|message|c"]);
    let ids: Vec<_> = requests.borrow().iter().map(|(_, id)| id.clone()).collect();
    assert_eq!(ids, [None, numbered("2"), numbered("3")]);
}

#[test]
fn nothing_is_delivered_after_an_abort_or_a_cancellation() {
    for aborts in [true, false] {
        let (network, requests) = serve([stream([(0, "data: a\n\ndata: b\n\ndata: c\n\n")])]);
        let (at, over) = (network.clone(), network.clone());
        let events = Events::new(move |log: &mut Log, event, cx| {
            log.note(&at, text(&event));
            match (event.data(), aborts) {
                ("b", true) => Flow::Abort,
                ("b", false) => {
                    cx.cancel(cx.id());
                    assert!(cx.is_cancelled());
                    Flow::Stream
                }
                _ => {
                    assert!(!cx.is_cancelled());
                    Flow::Stream
                }
            }
        });
        let events = events.then(move |log: &mut Log, reply, _| {
            log.note(&over, outcome(reply));
            Next::done()
        });
        let log = run(&network, get(), events);
        let end = if aborts { "Aborted" } else { "Cancelled" };
        assert_eq!(log.texts(), ["|message|a", "|message|b", end]);
        assert_eq!(requests.borrow().len(), 1);
    }
}

#[test]
fn a_pause_does_not_stop_what_a_policy_has_held_back() {
    let collects = at_end(|_, _| Ok(Verdict::Deliver));
    let request = || get().edit().policy(collects.clone()).build().unwrap();
    let wire = "data: a\n\nid: 2\ndata: b\n\ndata: c\n\n";
    let (network, requests) = serve([stream([(0, wire)]).close()]);
    let at = network.clone();
    let events = Events::new(move |log: &mut Log, event, _| {
        log.note(&at, text(&event));
        Flow::Pause
    });
    let events = events.retry(second(Retry::forever()));
    let log = run(&network, request(), events);
    assert_eq!(log.texts(), ["|message|a", "2|message|b", "2|message|c"]);
    assert_eq!(requests.borrow()[1], (1, numbered("2")));

    // It may still be aborted, and is refused if it is too large.
    let over = |wire: &'static str, last: Flow| {
        let (network, requests) = serve([stream([(0, wire)]).close()]);
        let (at, then) = (network.clone(), network.clone());
        let events = Events::new(move |log: &mut Log, event, _| {
            log.note(&at, text(&event));
            if event.data() == "b" {
                last
            } else {
                Flow::Pause
            }
        });
        let events = events
            .max_event_bytes(10)
            .then(move |log: &mut Log, reply, _| {
                log.note(&then, outcome(reply));
                Next::done()
            });
        let log = run(&network, request(), events);
        assert_eq!(requests.borrow().len(), 1);
        log.texts().join(", ")
    };
    let aborted = over("data: a\n\ndata: b\n\ndata: c\n\n", Flow::Abort);
    assert_eq!(aborted, "|message|a, |message|b, 200 OK \"\"");
    let large = over("data: a\n\ndata: b\n\ndata: cdefgh\n\n", Flow::Pause);
    assert_eq!(large, "|message|a, |message|b, TooLarge");
}

#[test]
fn the_deadline_of_a_chain_is_told() {
    // While the stream is read, and while it waits to be opened again.
    for answer in [stream([]), Answer::status(503).header("Retry-After", "50")] {
        let (network, _) = serve([answer]);
        let mut engine = engine::<Log>(&network);
        let open = noting(&network).open(get());
        engine.start(open.chain_timeout(10 * SECOND));
        let mut log = Log::default();
        engine.run(&mut log).unwrap();
        assert_eq!(log.lines, [(10, "Timeout".to_owned())]);
    }
}

#[test]
fn a_stream_works_for_a_part_of_the_state() {
    struct World {
        logs: Vec<Log>,
    }
    let (network, requests) = serve([
        stream([(0, "id: 1\ndata: a\n\nid: 2\ndata: b\n\n")]).close(),
        Answer::status(503),
        stream([(0, "id: 3\ndata: c\n\n")]).close(),
    ]);
    let mut engine = engine::<World>(&network);
    let over = network.clone();
    let events = Events::new(pausing(&network, SECOND)).retry(second(Retry::forever()));
    let events = events.then(move |log: &mut Log, reply, _| {
        log.note(&over, outcome(reply));
        Next::done()
    });
    engine.submit_to(
        get(),
        within_to(|world: &mut World| world.logs.get_mut(1), events),
    );
    let mut world = World {
        logs: vec![Log::default(), Log::default()],
    };
    engine.run(&mut world).unwrap();
    assert_eq!(world.logs[0].lines, []);
    assert_eq!(
        world.logs[1].texts(),
        [
            "1|message|a",
            "2|message|b",
            "3|message|c",
            "204 No Content \"\""
        ]
    );
    let ids: Vec<_> = requests.borrow().iter().map(|(_, id)| id.clone()).collect();
    assert_eq!(ids, [None, numbered("2"), numbered("2"), numbered("3")]);
}

#[test]
fn what_follows_may_begin_the_stream_anew() {
    let (network, requests) = serve([
        stream([(0, "id: 1\ndata: a\n\n")]).close(),
        Answer::status(404),
        stream([(0, "id: 2\ndata: b\n\n")]).close(),
    ]);
    let over = network.clone();
    let events =
        noting(&network)
            .retry(second(Retry::forever()))
            .then(move |log: &mut Log, reply, _| {
                log.note(&over, outcome(reply));
                match log.lines.len() {
                    // With a delay, a key and a deadline, which it keeps.
                    2 => Next::again().after(10 * SECOND).key("news"),
                    _ => Next::done(),
                }
            });
    let log = run(&network, get(), events);
    assert_eq!(
        log.texts(),
        [
            "1|message|a",
            "404 Not Found \"\"",
            "2|message|b",
            "204 No Content \"\""
        ]
    );
    let expected = [
        (0, None),
        (1, numbered("1")),
        (11, numbered("1")),
        (12, numbered("2")),
    ];
    assert_eq!(*requests.borrow(), expected);

    // After an abort, the request that was sent last has the wrong id.
    let (network, requests) = serve([stream([(0, "id: 1\ndata: a\n\n")])]);
    let events = Events::new(|_: &mut Log, _, _| Flow::Abort);
    let events = events.then(|_, reply, _| match reply {
        Err(_) => Next::again().after(SECOND),
        Ok(_) => Next::done(),
    });
    run(&network, get(), events);
    assert_eq!(*requests.borrow(), [(0, None), (1, numbered("1"))]);
}

#[test]
fn a_readback_that_follows_sees_the_other_response_as_it_comes() {
    /// Streams a page, and waits before it ends.
    #[derive(Default)]
    struct Page(Option<ChainId>);
    impl Readback<Log> for Page {
        fn on_head(
            &mut self,
            log: &mut Log,
            head: &Response<'_>,
            cx: &mut Context<'_, Log>,
        ) -> Flow {
            log.lines
                .push((0, format!("head {}", head.status().as_u16())));
            self.0 = Some(cx.id());
            Flow::Stream
        }
        fn on_data(&mut self, log: &mut Log, data: &[u8], cx: &mut Context<'_, Log>) -> Flow {
            log.lines
                .push((0, String::from_utf8_lossy(data).into_owned()));
            let id = cx.id();
            cx.call(move |_, cx| {
                cx.resume(id);
                Next::done()
            });
            Flow::Pause
        }
        fn on_resume(&mut self, log: &mut Log, _: &mut Context<'_, Log>) -> Flow {
            log.lines.push((0, "resumed".to_owned()));
            Flow::Stream
        }
        fn on_due(&mut self, log: &mut Log, _: &mut Context<'_, Log>) -> Next<Log> {
            log.lines.push((0, "due".to_owned()));
            Next::done()
        }
        fn on_reply(
            &mut self,
            log: &mut Log,
            reply: Reply<'_>,
            _: &mut Context<'_, Log>,
        ) -> Next<Log> {
            log.lines.push((0, outcome(reply)));
            Next::wait().after(SECOND)
        }
    }
    let (network, _) = serve([Answer::status(503), Answer::status(200).chunked(["page"])]);
    let events = noting(&network)
        .retry(second(Retry::forever()))
        .then_to(Page::default());
    let log = run(&network, get(), events);
    assert_eq!(
        log.texts(),
        ["head 200", "page", "resumed", "200 OK \"\"", "due"]
    );
}

#[test]
fn sessions_follow_redirects_and_decode_streams() {
    let network = Network::new(1);
    network.host("a.test", [[10, 0, 0, 1]]);
    network.serve(addr(), |request: &Incoming| {
        match (request.path(), request.header("Last-Event-ID")) {
            ("/news", _) => Answer::status(307).header("Location", "/moved"),
            ("/moved", None) => gzipped(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n"),
            ("/moved", Some(b"2")) => stream([(0, "id: 3\ndata: c\n\n")]).close(),
            _ => Answer::status(204),
        }
    });
    let session = Session::builder()
        .base("http://a.test/")
        .redirects(Redirects::limited(2))
        .decode(Decode::all())
        .retry(Retry::attempts(2))
        .total(5 * SECOND)
        .build()
        .unwrap();
    let request = session.get("news").accept_events().build().unwrap();
    let log = run(
        &network,
        request,
        noting(&network).retry(second(Retry::forever())),
    );
    assert_eq!(
        log.texts(),
        [
            "1|message|a",
            "2|message|b",
            "3|message|c",
            "204 No Content \"\""
        ]
    );
    let ledger = network.ledger();
    let paths: Vec<_> = ledger.requests().map(|it| it.target.clone()).collect();
    assert_eq!(paths, ["/news", "/moved"].repeat(3));
}

#[test]
fn a_stream_does_not_outlive_its_login() {
    // The session ends while the stream waits to be opened again.
    let (network, requests) = serve([stream([(0, "id: 1\ndata: a\n\n")]).close()]);
    let session = Session::new();
    let mut engine = engine::<Log>(&network);
    let request = get().edit().session(&session).build().unwrap();
    engine.submit_to(request, noting(&network).retry(second(Retry::forever())));
    let end = Next::call(move |_: &mut Log, _| {
        session.end();
        Next::done()
    });
    engine.start(end.after(500 * MS));
    let mut log = Log::default();
    engine.run(&mut log).unwrap();
    assert_eq!(log.texts(), ["1|message|a", "Cancelled"]);
    assert_eq!(requests.borrow().len(), 1);

    // It ends in a handler of the stream, which is spared, and goes on in the next login.
    let (network, requests) = serve([stream([(0, "id: 1\ndata: a\n\n")]).close()]);
    let session = Session::new();
    let request = get().edit().session(&session).build().unwrap();
    let over = network.clone();
    let events = Events::new(move |_: &mut Log, _, cx| {
        cx.end(&session);
        Flow::Stream
    });
    let events = events
        .retry(second(Retry::forever()))
        .then(move |log: &mut Log, reply, _| {
            log.note(&over, outcome(reply));
            Next::done()
        });
    let log = run(&network, request, events);
    assert_eq!(log.texts(), ["204 No Content \"\""]);
    assert_eq!(*requests.borrow(), [(0, None), (1, numbered("1"))]);
}

#[test]
fn a_stream_that_ends_with_its_login_is_not_opened_again() {
    // The end of the session is not noticed before the readback hears of the end of the stream.
    let (network, requests) = serve([stream([(0, "id: 1\ndata: a\n\n")]).close()]);
    let session = Session::new();
    let request = get().edit().session(&session).build().unwrap();
    let over = network.clone();
    let events = Events::new(move |_: &mut Log, _, _| {
        session.end();
        Flow::Stream
    });
    let events = events
        .retry(second(Retry::forever()))
        .then(move |log: &mut Log, reply, _| {
            log.note(&over, outcome(reply));
            Next::done()
        });
    let log = run(&network, request, events);
    assert_eq!(log.texts(), ["Cancelled"]);
    assert_eq!(requests.borrow().len(), 1);
}

// ---- tasks ----

/// Reads a stream in a task, to its end.
fn read(network: &Network, open: impl FnOnce(&Local<()>) -> Stream) -> Vec<String> {
    let mut engine = engine::<()>(network);
    let mut events = open(&engine.local());
    let seen = Rc::new(RefCell::new(Vec::new()));
    let task = Rc::clone(&seen);
    engine.spawn(async move {
        while let Some(event) = events.next().await {
            let told = match event {
                Ok(event) => text(&event),
                Err(error) => format!("{error:#}"),
            };
            task.borrow_mut().push(told);
        }
        assert!(events.next().await.is_none(), "after the end");
        task.borrow_mut().push("over".to_owned());
    });
    engine.run(&mut ()).unwrap();
    assert_eq!(engine.pending(), 0);
    seen.take()
}

#[test]
fn a_task_reads_a_stream_to_its_end() {
    let (network, requests) = serve([
        stream([(0, "id: 1\ndata: a\n\nid: 2\ndata: b\n\n")]).close(),
        Answer::status(503),
        stream([(1, "id: 3\ndata: c\n\n")]).close(),
    ]);
    let request = Request::get("http://a.test/news").build().unwrap();
    let seen = read(&network, |http| {
        let stream = Stream::builder()
            .retry(second(Retry::forever()))
            .last_event_id("0");
        stream.open(http, request)
    });
    assert_eq!(seen, ["1|message|a", "2|message|b", "3|message|c", "over"]);
    let ids: Vec<_> = requests.borrow().iter().map(|(_, id)| id.clone()).collect();
    assert_eq!(
        ids,
        [numbered("0"), numbered("2"), numbered("2"), numbered("3")]
    );
    let ledger = network.ledger();
    let first = ledger.requests().next().unwrap();
    let head = String::from_utf8_lossy(&first.bytes).into_owned();
    assert!(head.contains("Accept: text/event-stream\r\n"), "{head}");
}

#[test]
fn a_task_learns_why_a_stream_is_over() {
    let ends = |answer: Answer| {
        let (network, _) = serve([answer]);
        let seen = read(&network, |http| {
            let stream = Stream::builder()
                .retry(Retry::attempts(1))
                .max_event_bytes(100);
            stream.open(http, get())
        });
        seen.join(", ")
    };
    assert_eq!(ends(Answer::status(204)), "over");
    assert_eq!(ends(stream([]).close()), "over");
    assert_eq!(
        ends(Answer::status(404)),
        "http://a.test: answered with 404 Not Found, over"
    );
    let html = Answer::ok("hello").header("Content-Type", "text/html");
    assert_eq!(
        ends(html),
        "http://a.test: malformed response while reading the body: \
            the content type is not text/event-stream, over"
    );
    let long = "data: a\n\n".to_owned() + &"x".repeat(101);
    assert_eq!(
        ends(stream([(0, &*long)])),
        "|message|a, http://a.test: response exceeds a limit while reading the body: \
            event exceeds max_event_bytes (100 bytes; 101 received), over"
    );
    assert_eq!(
        ends(stream([]).reset()),
        "http://a.test: response cut short while reading the body: connection reset, over"
    );
}

#[test]
fn a_slow_task_slows_the_server_down() {
    let event = format!("data: {}\n\n", "x".repeat(990));
    let many = event.repeat(10_000);
    let (network, _) = serve([Answer::raw(HEAD.to_owned() + &many).close()]);
    let mut engine = engine::<usize>(&network);
    let http = engine.local();
    let mut events = Stream::open(&http, get());
    engine.spawn(async move {
        while let Some(event) = events.next().await {
            assert_eq!(event.unwrap().data().len(), 990);
            http.sleep(MS).await;
            let count = http.with(|seen, cx| {
                *seen += 1;
                if *seen == 10_000 {
                    cx.stop();
                }
            });
            count.await.unwrap();
        }
    });
    let mut seen = 0;
    while !engine.advance(&mut seen, 100 * MS).unwrap() {
        // A queue, and what one read brings.
        let read = engine.stats().bytes_in as usize;
        assert!(
            read <= (seen + 64) * 1000 + (256 << 10),
            "{read} bytes for {seen} events"
        );
    }
    assert!(network.elapsed() >= 10 * SECOND);
}

#[test]
fn dropping_a_stream_ends_it() {
    // While it is read, while it is paused, and while it waits to be opened again.
    let full = "data: x\n\n".repeat(1000);
    for answer in [
        stream([(0, "data: x\n\n")]),
        stream([(0, &*full)]),
        stream([(0, "retry: 60000\ndata: x\n\n")]).close(),
    ] {
        let (network, requests) = serve([answer]);
        let mut engine = engine::<()>(&network);
        let http = engine.local();
        let mut events = Stream::open(&http, get());
        engine.spawn(async move {
            assert_eq!(events.next().await.unwrap().unwrap().data(), "x");
            http.sleep(SECOND).await;
            drop(events);
            http.sleep(SECOND).await;
        });
        engine.run(&mut ()).unwrap();
        assert_eq!(engine.pending(), 0);
        assert_eq!(requests.borrow().len(), 1);
        assert!(network.elapsed() < 3 * SECOND);
        assert!(network.connections().iter().all(|it| !network.is_open(*it)));
    }
}

#[test]
fn a_stream_learns_of_the_end_of_its_chain_and_of_its_engine() {
    let kind = |event: Option<Result<Event<'static>, Error>>| event.unwrap().unwrap_err().kind();
    let (network, _) = serve([stream([])]);
    let mut engine = engine::<()>(&network);
    let session = Session::new();
    let request = get().edit().session(&session).build().unwrap();
    let mut events = Stream::open(&engine.local(), request);
    let ended = Rc::new(Cell::new(None));
    let task = Rc::clone(&ended);
    engine.spawn(async move {
        task.set(Some(kind(events.next().await)));
        assert!(events.next().await.is_none());
    });
    let end = Next::call(move |(), _| {
        session.end();
        Next::done()
    });
    engine.start(end.after(SECOND));
    engine.run(&mut ()).unwrap();
    assert_eq!(ended.get(), Some(ErrorKind::Cancelled));

    let mut events = Stream::open(&engine.local(), get());
    drop(engine);
    let mut next = pin!(events.next());
    let mut cx = task::Context::from_waker(Waker::noop());
    match next.as_mut().poll(&mut cx) {
        Poll::Ready(event) => assert_eq!(kind(event), ErrorKind::Gone),
        Poll::Pending => panic!("the engine is gone"),
    }
}
