//! Rates and lanes of sessions on whole engines.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use httpstream::session::{Rate, Redirects, Retry, Session, SessionBuilder};
use httpstream::sim::{Answer, Incoming, Random};
use httpstream::{Config, Context, Engine, ErrorKind, Next, Phase, Reply, Request, Response, Sim};

use crate::common::Server;
use crate::sessions::{SECOND, Told, found, note, outcome, simulated};

fn outbox() -> SessionBuilder {
    Session::builder()
        .base("http://a.test/")
        .lane_concurrency(1)
}

fn message(session: &Session, chat: &str, text: impl ToString) -> Request {
    let message = session.post("send").lane(chat).param("chat", chat);
    message.body(text.to_string()).build().unwrap()
}

/// The chat and the number of each message that a server has accepted, with its second.
type Arrived = Rc<RefCell<Vec<(String, usize, f64)>>>;

/// Accepts messages, unless `answer` says otherwise.
fn server(answer: impl Fn(&Incoming) -> Option<Answer>) -> (impl Fn(&Incoming) -> Answer, Arrived) {
    let arrived = Arrived::default();
    let noted = Rc::clone(&arrived);
    let server = move |request: &Incoming| {
        if let Some(answer) = answer(request) {
            return answer;
        }
        let chat = request.query().unwrap_or_default();
        let chat = chat.strip_prefix("chat=").unwrap_or(chat).to_owned();
        let number = String::from_utf8_lossy(request.body()).parse().unwrap_or(0);
        let at = request.at.as_secs_f64();
        noted.borrow_mut().push((chat, number, at));
        Answer::ok("")
    };
    (server, arrived)
}

fn numbers(arrived: &Arrived, chat: &str) -> Vec<usize> {
    let arrived = arrived.borrow();
    let its = arrived.iter().filter(|(of, ..)| of == chat);
    its.map(|(_, number, _)| *number).collect()
}

#[test]
fn an_outbox_keeps_its_order_whatever_the_server_does() {
    for seed in 0..30 {
        let random = RefCell::new(Random::new(seed));
        // It refuses some, closes the connection under some before it has read them, and takes its
        // time.
        let (server, arrived) = server(move |_| match random.borrow_mut().below(6) {
            0 => Some(Answer::status(429).header("Retry-After", "2")),
            1 => Some(Answer::status(429)),
            2 => Some(Answer::status(425).after(SECOND)),
            _ => None,
        });
        let (_network, mut engine, _) = simulated(Config::default(), server);
        let retry = Retry::forever().budget(f32::INFINITY);
        let session = outbox().retry(retry).total(3600 * SECOND).build().unwrap();
        for number in 0..60 {
            engine.submit(message(&session, ["a", "b", "c"][number % 3], number), note);
        }
        let mut told = Told::new();
        engine.run(&mut told).unwrap();
        assert!(told.len() == 60 && told.iter().all(Result::is_ok));
        for (first, chat) in ["a", "b", "c"].into_iter().enumerate() {
            let expected: Vec<_> = (first..60).step_by(3).collect();
            assert_eq!(numbers(&arrived, chat), expected, "seed {seed}");
        }
        assert_eq!(session.waiting(), 0);
    }
}

#[test]
fn a_drain_lets_an_outbox_finish() {
    let (server, arrived) = server(|_| None);
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let session = outbox().rate(Rate::per_second(2)).build().unwrap();
    for number in 0..10 {
        engine.submit(message(&session, "a", number), note);
    }
    let mut told = Told::new();
    engine.turn(&mut told).unwrap();
    assert_eq!(engine.stats().queued, 9);
    assert_eq!(session.waiting(), 9);
    let lane = session.lane("a");
    assert_eq!((lane.waiting, lane.running), (9, 1));
    assert_eq!(engine.drain(&mut told, 60 * SECOND).unwrap(), 0);
    assert_eq!(numbers(&arrived, "a"), (0..10).collect::<Vec<_>>());
    assert_eq!(told.len(), 10);
    assert_eq!((session.waiting(), session.lane("a").running), (0, 0));
}

#[test]
fn requests_that_wait_hold_no_connection() {
    let (server, arrived) = server(|_| None);
    let mut config = Config::default();
    config.max_connections_per_origin = 1;
    let (_network, mut engine, _) = simulated(config, server);
    let session = outbox().lane_rate(Rate::per_minute(1)).build().unwrap();
    for number in 0..3 {
        engine.submit(message(&session, "a", number), note);
    }
    // One of another lane, one without a lane, and one without the session.
    engine.submit(message(&session, "b", 10), note);
    engine.submit(session.get("none").build().unwrap(), note);
    engine.submit(Request::get("http://a.test/other").build().unwrap(), note);
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told.len(), 6);
    let arrived = arrived.borrow();
    let at: Vec<_> = arrived.iter().map(|(.., at)| at.floor()).collect();
    assert_eq!(at, [0.0, 0.0, 0.0, 0.0, 60.0, 120.0]);
}

#[test]
fn a_request_that_waits_for_a_connection_does_not_stop_others_for_ever() {
    // The only connection to one origin is held by a poll, and another poll waits for it.
    let server = |request: &Incoming| match request.path() {
        "/poll" => Answer::ok("").after(200 * SECOND),
        _ => Answer::ok(""),
    };
    let mut config = Config::default();
    config.max_connections_per_origin = 1;
    let (network, mut engine, _) = simulated(config, server);
    let session = Session::builder()
        .rate(Rate::per_second(1))
        .build()
        .unwrap();
    for _ in 0..2 {
        let poll = session.get("http://a.test/poll").long_poll(300 * SECOND);
        engine.submit(poll.timeouts(|t| t.total = None).build().unwrap(), note);
    }
    let sent = Rc::new(Cell::new(Duration::ZERO));
    let at = Rc::clone(&sent);
    let began = network.now();
    let other = session.get("http://b.test/send").build().unwrap();
    engine.submit(other, move |_: &mut Told, reply, cx| {
        assert!(reply.is_ok());
        at.set(cx.now() - began);
        Next::done()
    });
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told.len(), 2);
    assert!(sent.get() < 15 * SECOND, "{:?}", sent.get());
}

/// A kept connection that the server closes under a request: the engine sends it again.
#[test]
fn what_the_engine_sends_again_takes_tokens() {
    let times = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&times);
    let server = move |request: &Incoming| {
        noted.borrow_mut().push(request.at.as_secs_f64());
        match request.number % 2 {
            0 => Answer::ok(""),
            _ => Answer::nothing().reset(),
        }
    };
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let session = Session::builder()
        .base("http://a.test/")
        .rate(Rate::per_second(1));
    let session = session.lane_concurrency(1).build().unwrap();
    for _ in 0..20 {
        engine.submit(session.get("x").lane("a").build().unwrap(), note);
    }
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert!(told.len() == 20 && told.iter().all(Result::is_ok));
    let times = times.take();
    assert!(times.len() > 30, "{}", times.len());
    // On average, no more than one a second.
    let last = times.last().unwrap();
    assert!(
        *last > times.len() as f64 - 3.0,
        "{} within {last} s",
        times.len()
    );
}

#[test]
fn every_exchange_takes_a_token() {
    // A redirect, a retry, and the response: three tokens, one each second.
    let times = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&times);
    let server = move |request: &Incoming| {
        noted.borrow_mut().push(request.at.as_secs_f64().floor());
        match (request.path(), noted.borrow().len()) {
            ("/x", _) => found(302, "/y"),
            (_, 2) => Answer::status(503),
            _ => Answer::ok(""),
        }
    };
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let fast = Retry::attempts(3).backoff(Duration::ZERO, Duration::ZERO);
    let session = Session::builder()
        .base("http://a.test/")
        .rate(Rate::per_second(1));
    let session = session
        .redirects(Redirects::limited(2))
        .retry(fast)
        .build()
        .unwrap();
    engine.submit(session.get("x").build().unwrap(), note);
    engine.submit(session.get("z").build().unwrap(), note);
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told.len(), 2);
    assert_eq!(times.take(), [0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn a_request_that_has_failed_may_still_arrive() {
    let times = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&times);
    let server = move |request: &Incoming| {
        noted.borrow_mut().push(request.at);
        Answer::ok("")
    };
    let mut config = Config::default();
    config.timeouts.first_byte = Some(Duration::from_millis(10));
    let (network, mut engine, _) = simulated(config, server);
    let rate = Rate::new(1, 10 * SECOND);
    let session = Session::builder().base("http://a.test/").rate(rate);
    let get = session.build().unwrap().get("x").build().unwrap();
    engine.submit(get.clone(), note);
    engine.submit(get, note);
    // The first one is given up while it is on its way, and the second one gets there sooner.
    let mut told = Told::new();
    network.set_latency(SECOND / 5);
    engine.advance(&mut told, SECOND).unwrap();
    assert!(told[0].as_ref().unwrap_err().contains("timed out"));
    network.set_latency(Duration::from_millis(1));
    engine.run(&mut told).unwrap();
    assert!(told[1].is_ok(), "{told:?}");
    let times = times.take();
    assert!(times[1] - times[0] > 10 * SECOND, "{times:?}");
}

#[test]
fn a_429_holds_back_its_lane_and_no_other() {
    for with_retry in [false, true] {
        let (server, arrived) = server(|request| {
            let is_early = request.at < 20 * SECOND;
            (is_early && request.query() == Some("chat=a"))
                .then(|| Answer::status(429).header("Retry-After", "20"))
        });
        let (_network, mut engine, _) = simulated(Config::default(), server);
        let session = outbox().lane_rate(Rate::per_second(10).burst(10));
        let session = match with_retry {
            true => session.retry(Retry::attempts(2)),
            false => session,
        };
        let session = session.build().unwrap();
        for number in 0..3 {
            engine.submit(message(&session, "a", number), note);
            engine.submit(message(&session, "b", number), note);
        }
        let mut told = Told::new();
        engine.run(&mut told).unwrap();
        let expected = if with_retry {
            vec![0, 1, 2]
        } else {
            vec![1, 2]
        };
        assert_eq!(numbers(&arrived, "a"), expected);
        assert_eq!(numbers(&arrived, "b"), [0, 1, 2]);
        let arrived = arrived.borrow();
        let of = |chat| {
            let its = arrived.iter().filter(move |(of, ..)| of == chat);
            its.map(|(.., at)| *at).collect::<Vec<_>>()
        };
        assert!(of("a").iter().all(|at| (20.0..21.0).contains(at)));
        assert!(of("b").iter().all(|at| *at < 1.0));
    }
}

/// The server asks for a short wait, and the retry itself takes a longer one than a server may ask
/// for.
#[test]
fn a_429_holds_back_its_lane_however_long_the_retry_waits() {
    let count = Cell::new(0);
    let (server, arrived) = server(move |_| {
        count.set(count.get() + 1);
        (count.get() == 1).then(|| Answer::status(429).header("Retry-After", "4"))
    });
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let minute = 60 * SECOND;
    let patient = Retry::attempts(2).backoff(minute, minute).floor(minute);
    let session = Session::builder()
        .base("http://a.test/")
        .lane_concurrency(2)
        .retry(patient.max_wait(5 * SECOND));
    let session = session.build().unwrap();
    engine.submit(message(&session, "a", 0), note);
    let mut told = Told::new();
    engine.advance(&mut told, SECOND).unwrap();
    engine.submit(message(&session, "a", 1), note);
    engine.run(&mut told).unwrap();
    let arrived = arrived.borrow();
    let at: Vec<_> = arrived
        .iter()
        .map(|(_, number, at)| (*number, at.floor()))
        .collect();
    assert_eq!(at, [(1, 60.0), (0, 60.0)]);
}

/// The body may ask for a longer wait, but the head has asked already.
#[test]
fn a_429_holds_back_its_lane_while_its_body_arrives() {
    let count = Cell::new(0);
    let (server, arrived) = server(move |_| {
        count.set(count.get() + 1);
        let slow = || busy("20").body("x".repeat(100)).drip(10, SECOND);
        (count.get() == 1).then(slow)
    });
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let session = Session::builder()
        .base("http://a.test/")
        .lane_concurrency(2)
        .retry(Retry::attempts(2).wait_from(|_| None));
    let session = session.build().unwrap();
    engine.submit(message(&session, "a", 0), note);
    let mut told = Told::new();
    engine.advance(&mut told, 12 * SECOND).unwrap();
    engine.submit(message(&session, "a", 1), note);
    engine.run(&mut told).unwrap();
    let arrived = arrived.borrow();
    assert_eq!(arrived.len(), 2);
    assert!(arrived.iter().all(|(.., at)| *at >= 20.0), "{arrived:?}");
}

#[test]
fn a_lane_is_held_back_as_long_as_the_server_asks_whether_or_not_it_is_retried() {
    type Settings = fn(SessionBuilder) -> SessionBuilder;
    let of_body = |response: &Response<'_>| {
        let seconds = response.text().ok()?.parse().ok()?;
        Some(Duration::from_secs(seconds))
    };
    type Row = (&'static str, Settings, fn() -> Answer, &'static [usize]);
    #[rustfmt::skip]
    let rows: [Row; 4] = [
        // More than the longest wait for a retry.
        ("in its head", |it| it.retry(Retry::forever().max_wait(60 * SECOND)), || busy("200"), &[1, 2]),
        ("nothing is retried", |it| it, || busy("200"), &[1, 2]),
        ("the last attempt", |it| it.retry(Retry::attempts(1)), || busy("200"), &[1, 2]),
        // Nobody can wait for a year, so they time out.
        ("a year", |it| it.retry(Retry::forever()), || busy("31536000"), &[]),
    ];
    for (why, settings, refusal, expected) in rows {
        let (server, arrived) = server(move |request| (request.at < SECOND).then(refusal));
        let (_network, mut engine, _) = simulated(Config::default(), server);
        let session = settings(outbox()).build().unwrap();
        for number in 0..3 {
            engine.submit(message(&session, "a", number), note);
        }
        let mut told = Told::new();
        engine.run(&mut told).unwrap();
        assert_eq!(told.len(), 3);
        assert_eq!(numbers(&arrived, "a"), expected, "{why}");
        let arrived = arrived.borrow();
        assert!(arrived.iter().all(|(.., at)| *at >= 200.0), "{why}");
    }
    // A wait that only the body names, of the last attempt and of others.
    for attempts in [1, 3] {
        let (server, arrived) =
            server(|request| (request.at < 30 * SECOND).then(|| Answer::status(429).body("30")));
        let (_network, mut engine, _) = simulated(Config::default(), server);
        let retry = Retry::attempts(attempts).wait_from(of_body);
        let session = outbox().retry(retry).build().unwrap();
        for number in 0..3 {
            engine.submit(message(&session, "a", number), note);
        }
        engine.run(&mut Told::new()).unwrap();
        let expected = if attempts == 1 {
            vec![1, 2]
        } else {
            vec![0, 1, 2]
        };
        assert_eq!(numbers(&arrived, "a"), expected);
        assert!(arrived.borrow().iter().all(|(.., at)| *at >= 30.0));
    }
}

fn busy(after: &str) -> Answer {
    Answer::status(429).header("Retry-After", after)
}

/// A lane that goes on without the request that was refused would lose exactly that one.
#[test]
fn a_request_that_was_refused_waits_as_long_as_its_lane() {
    // How long the server asks to wait, which messages arrive, and what becomes of the first one.
    let hour = Retry::attempts(3).max_wait(60 * SECOND);
    let rows: [(&str, u16, Retry, &[usize], bool); 6] = [
        ("50", 429, Retry::attempts(3), &[0, 1, 2], true),
        ("90", 429, Retry::attempts(3), &[0, 1, 2], true),
        ("3600", 429, Retry::forever(), &[0, 1, 2], true),
        // Longer than a lane is held back, or than was set, or for another reason.
        ("3601", 429, Retry::forever(), &[1, 2], false),
        ("61", 429, hour, &[1, 2], false),
        ("90", 503, Retry::forever(), &[1, 2], false),
    ];
    for (asked, status, retry, expected, is_sent) in rows {
        let count = Cell::new(0);
        let (server, arrived) = server(move |_| {
            count.set(count.get() + 1);
            (count.get() == 1).then(|| Answer::status(status).header("Retry-After", asked))
        });
        let (_network, mut engine, _) = simulated(Config::default(), server);
        let session = outbox()
            .retry(retry)
            .total(10_000 * SECOND)
            .build()
            .unwrap();
        for number in 0..3 {
            let message = message(&session, "a", number).edit().idempotent(true);
            engine.submit(message.build().unwrap(), note);
        }
        let mut told = Told::new();
        engine.run(&mut told).unwrap();
        assert_eq!(numbers(&arrived, "a"), expected, "{status} {asked}");
        let is_ok = told
            .iter()
            .all(|it| it.as_ref().is_ok_and(|it| it.starts_with("200")));
        assert_eq!(is_ok, is_sent, "{status} {asked}: {told:?}");
        if is_sent {
            let at = arrived.borrow()[0].2;
            assert!(at >= asked.parse().unwrap(), "{asked}: sent at {at}");
        }
    }
    // Not if the request would time out before.
    let (server, arrived) = server(|_| Some(busy("90")));
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let session = outbox()
        .retry(Retry::forever())
        .total(80 * SECOND)
        .build()
        .unwrap();
    engine.submit(message(&session, "a", 0), note);
    let mut told = Told::new();
    engine.advance(&mut told, SECOND).unwrap();
    assert_eq!((told.len(), arrived.borrow().len()), (1, 0));
}

#[test]
fn what_is_canceled_or_panics_passes_its_place_on() {
    let (server, arrived) = server(|_| None);
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let session = outbox().build().unwrap();
    let ids: Vec<_> = (0..6)
        .map(|number| engine.submit(message(&session, "a", number), note))
        .collect();
    let panics = |_: &mut Told, _: Reply<'_>, _: &mut Context<'_, Told>| -> Next<Told> {
        std::panic::resume_unwind(Box::new("on purpose"))
    };
    engine.submit(message(&session, "a", 6), panics);
    engine.submit(message(&session, "a", 7), note);
    let mut told = Told::new();
    engine.turn(&mut told).unwrap();
    // One that runs, the one behind it, and one in the middle.
    for number in [0, 1, 4] {
        assert!(engine.cancel(ids[number]));
    }
    let panicked = catch_unwind(AssertUnwindSafe(|| engine.run(&mut told)));
    assert!(panicked.is_err());
    engine.run(&mut told).unwrap();
    let arrived = numbers(&arrived, "a");
    let expected = [2, 3, 5, 6, 7];
    assert!(arrived.ends_with(&expected), "{arrived:?}");
    assert_eq!(told.iter().filter(|told| told.is_err()).count(), 3);
    assert_eq!((session.waiting(), session.lane("a").running), (0, 0));
}

#[test]
fn the_end_of_a_session_empties_its_lanes() {
    let (server, arrived) = server(|_| None);
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let session = outbox().rate(Rate::per_second(1)).build().unwrap();
    for number in 0..50 {
        engine.submit(message(&session, "a", number), note);
    }
    let mut told = Told::new();
    engine.turn(&mut told).unwrap();
    session.end();
    engine.submit(message(&session, "a", 100), note);
    engine.run(&mut told).unwrap();
    assert_eq!(told.iter().filter(|told| told.is_err()).count(), 50);
    assert_eq!(numbers(&arrived, "a").last(), Some(&100));
    assert_eq!((session.waiting(), session.lane("a").running), (0, 0));
}

#[test]
fn a_full_lane_refuses_at_once_and_the_others_go_on() {
    let (server, arrived) = server(|_| None);
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let session = outbox().max_waiting(3).build().unwrap();
    let refused = Rc::new(Cell::new(0));
    for number in 0..10 {
        let refused = Rc::clone(&refused);
        engine.submit(
            message(&session, "a", number),
            move |_: &mut Told, reply, _| {
                if let Err(error) = reply {
                    assert_eq!(error.kind(), ErrorKind::Policy);
                    assert_eq!(error.phase(), Phase::Queue);
                    assert!(error.resend_is_safe());
                    let text = format!("{error:#}");
                    assert!(text.ends_with("3 requests wait in its lane already (max_waiting)"));
                    refused.set(refused.get() + 1);
                }
                Next::done()
            },
        );
    }
    engine.run(&mut Told::new()).unwrap();
    assert_eq!(refused.get(), 6);
    assert_eq!(numbers(&arrived, "a"), [0, 1, 2, 3]);
}

#[test]
fn a_request_may_time_out_while_it_waits() {
    let (server, arrived) = server(|_| None);
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let session = outbox()
        .lane_rate(Rate::new(1, 10 * SECOND))
        .build()
        .unwrap();
    engine.submit(message(&session, "a", 0), note);
    let hurried = message(&session, "a", 1)
        .edit()
        .timeout(3 * SECOND)
        .build()
        .unwrap();
    engine.submit(hurried, |told: &mut Told, reply, cx| {
        let error = reply.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Timeout, Phase::Queue)
        );
        assert!(error.resend_is_safe());
        note(told, Err(error), cx)
    });
    engine.submit(message(&session, "a", 2), note);
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told.len(), 3);
    assert_eq!(numbers(&arrived, "a"), [0, 2]);
    let last = arrived.borrow().last().unwrap().2;
    assert!((10.0..10.2).contains(&last), "{last}");
}

#[test]
fn the_time_in_a_lane_is_known() {
    let (server, _) = server(|_| None);
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let session = outbox()
        .lane_rate(Rate::new(1, 10 * SECOND))
        .build()
        .unwrap();
    for number in 0..2 {
        engine.submit(
            message(&session, "a", number),
            |told: &mut Told, reply, _| {
                let waited = reply.as_ref().unwrap().info().waited().as_secs();
                told.push(Ok(waited.to_string()));
                Next::done()
            },
        );
    }
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told, [Ok("0".into()), Ok("10".into())]);
}

#[test]
fn priorities_are_of_a_lane() {
    let (server, arrived) = server(|_| None);
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let session = outbox().rate(Rate::per_second(10)).build().unwrap();
    for (number, (chat, priority)) in [("a", 0), ("a", 0), ("a", 9), ("b", -9), ("a", -1)]
        .into_iter()
        .enumerate()
    {
        let message = message(&session, chat, number).edit().priority(priority);
        engine.submit(message.build().unwrap(), note);
    }
    engine.run(&mut Told::new()).unwrap();
    assert_eq!(numbers(&arrived, "a"), [0, 2, 1, 4]);
    assert_eq!(arrived.borrow()[1].0, "b");
}

/// A bot that answers what it is asked, in chains that go on: a lane is entered anew by each
/// request, so other requests of the lane come in between.
#[test]
fn chains_share_a_lane_fairly() {
    let (server, arrived) = server(|_| None);
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let session = outbox().build().unwrap();
    for number in 0..3 {
        let mut left = 4;
        engine.submit(
            message(&session, "a", number),
            move |told: &mut Told, reply, _| {
                told.push(outcome(&reply));
                left -= 1;
                if left > 0 {
                    Next::again()
                } else {
                    Next::done()
                }
            },
        );
    }
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(numbers(&arrived, "a"), [0, 1, 2].repeat(4));
}

#[test]
fn two_threads_share_the_lanes_of_a_session() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let server = {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        Server::start(move |peer| {
            while peer.request().is_some() {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                thread::sleep(Duration::from_micros(200));
                running.fetch_sub(1, Ordering::SeqCst);
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        })
    };
    let session = Session::builder().lane_concurrency(1).build().unwrap();
    let request = server.get("/").edit().session(&session).lane("one");
    let request = request.build().unwrap();
    let answered: usize = thread::scope(|scope| {
        let threads = [(); 3].map(|()| {
            scope.spawn(|| {
                let mut engine = Engine::<usize>::new().unwrap();
                for _ in 0..100 {
                    engine.submit(request.clone(), |answered, reply, _| {
                        *answered += usize::from(reply.is_ok());
                        Next::done()
                    });
                }
                let mut answered = 0;
                engine.run(&mut answered).unwrap();
                answered
            })
        });
        threads
            .map(|thread| thread.join().unwrap())
            .into_iter()
            .sum()
    });
    assert_eq!(answered, 300);
    assert_eq!(most.load(Ordering::SeqCst), 1);
    assert_eq!(session.waiting(), 0);
}

#[test]
fn an_engine_that_is_dropped_passes_its_places_on() {
    let (server, arrived) = server(|_| None);
    let (network, mut engine, _) = simulated(Config::default(), server);
    let session = outbox().build().unwrap();
    let mut told = Told::new();
    for number in 0..3 {
        engine.submit(message(&session, "a", number), note);
    }
    engine.turn(&mut told).unwrap();
    let mut other = Engine::<Told, Sim>::on_network(&network, Config::default()).unwrap();
    other.submit(message(&session, "a", 7), note);
    other.turn(&mut told).unwrap();
    assert_eq!(session.lane("a").waiting, 3);
    drop(engine);
    other.run(&mut told).unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(numbers(&arrived, "a").last(), Some(&7));
}

#[test]
fn settings_that_would_send_nothing_are_refused() {
    let rows: BTreeMap<&str, SessionBuilder> = BTreeMap::from([
        (
            "rate: a rate of 0",
            Session::builder().rate(Rate::per_second(0)),
        ),
        (
            "rate: a rate of 0 ",
            Session::builder().rate(Rate::per_second(1).burst(0)),
        ),
        (
            "lane_rate: the window",
            Session::builder().lane_rate(Rate::new(1, Duration::ZERO)),
        ),
        (
            "lane_rate: the window ",
            Session::builder().lane_rate(Rate::new(1, Duration::MAX)),
        ),
        (
            "lane_concurrency: 0",
            Session::builder().lane_concurrency(0),
        ),
        ("max_waiting: 0", Session::builder().max_waiting(0)),
        (
            "retry: attempts",
            Session::builder().retry(Retry::attempts(0)),
        ),
    ]);
    for (expected, builder) in rows {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let text = format!("{error:#}");
        assert!(text.contains(expected.trim_end()), "{text}");
    }
}
