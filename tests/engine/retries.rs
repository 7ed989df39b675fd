//! Retries on whole engines, in the simulation: in a session, and by hand.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use httpstream::policy::Verdict;
use httpstream::session::{Redirects, Retry, Session, SessionBuilder};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    Config, Context, Engine, Error, ErrorKind, Flow, Next, Outcome, Readback, Reply, Request,
    Response, Sim, within_to,
};

use crate::sessions::{SECOND, Told, found, note, outcome, simulated};
use crate::visits::{at_end, on_send};

fn session(retry: Retry) -> SessionBuilder {
    Session::builder().base("http://a.test/").retry(retry)
}

/// Waits of exactly one second, so that times can be compared.
fn second(retry: Retry) -> Retry {
    retry.backoff(SECOND, SECOND).floor(SECOND)
}

fn built(session: SessionBuilder) -> Session {
    session.build().unwrap()
}

/// Answers the requests in turn, each with the time at which it arrived noted.
fn script(answers: Vec<Answer>) -> (impl Fn(&Incoming) -> Answer, Rc<RefCell<Vec<f64>>>) {
    let answers = RefCell::new(answers.into_iter());
    let times = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&times);
    let server = move |request: &Incoming| {
        seen.borrow_mut().push(request.at.as_secs_f64().round());
        answers.borrow_mut().next().unwrap_or(Answer::ok("at last"))
    };
    (server, times)
}

/// Sends one request to a server that answers so, and returns the outcome and the seconds at which
/// requests arrived.
fn exchange(
    request: Request,
    answers: impl IntoIterator<Item = Answer>,
) -> (Result<String, String>, Vec<f64>) {
    let (server, times) = script(answers.into_iter().collect());
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let mut told = Told::new();
    engine.submit(request, note);
    engine.run(&mut told).unwrap();
    assert_eq!(told.len(), 1);
    (told.remove(0), times.take())
}

fn busy(status: u16, after: &str) -> Answer {
    Answer::status(status).header("Retry-After", after)
}

fn at_last() -> Result<String, String> {
    Ok("200 /x at last".into())
}

#[test]
fn a_post_is_sent_again_when_the_server_says_so_and_not_before() {
    let session = built(session(Retry::attempts(4)));
    let post = session.post("x").body("text").build().unwrap();
    let answers = [busy(429, "7"), busy(429, "20"), busy(429, "0")];
    let (told, times) = exchange(post, answers);
    assert_eq!(told, at_last());
    assert_eq!(times[..3], [0.0, 7.0, 27.0]);
    assert!(times[3] <= 29.0);
    let stats = session.stats();
    assert_eq!((stats.retried, stats.attempts, stats.ended), (3, 4, 1));
}

#[test]
fn dates_are_waited_for_and_those_of_the_past_are_no_reason_to_hurry() {
    let session = built(session(second(Retry::attempts(3)).max_wait(60 * SECOND)));
    let get = session.get("x").build().unwrap();
    let dated = |after| busy(503, after).header("Date", "Sun, 06 Nov 1994 08:49:00 GMT");
    let later = dated("Sun, 06 Nov 1994 08:49:37 GMT");
    let (told, times) = exchange(get.clone(), [later]);
    assert_eq!((told, times), (at_last(), vec![0.0, 37.0]));
    let much_later = dated("Sun, 06 Nov 1994 08:50:01 GMT");
    let (told, times) = exchange(get.clone(), [much_later]);
    assert_eq!((told, times), (Ok("503 /x ".into()), vec![0.0]));
    let (told, times) = exchange(get, [busy(503, "Sat, 05 Nov 1994 08:49:37 GMT")]);
    assert_eq!(told, at_last());
    assert_eq!(times, [0.0, 1.0]);
}

#[test]
fn a_wait_of_a_year_is_not_begun() {
    let session = built(session(Retry::forever()));
    let get = session.get("x").build().unwrap();
    let (told, times) = exchange(get, [busy(429, "31536000").body("come back later")]);
    assert_eq!(told, Ok("429 /x come back later".into()));
    assert_eq!(times, [0.0]);
}

#[test]
fn what_may_have_been_processed_is_not_sent_again() {
    let session = built(session(second(Retry::attempts(3))));
    let closes = || [Answer::nothing().close()];
    let (told, times) = exchange(session.get("x").build().unwrap(), closes());
    assert_eq!((told, times), (at_last(), vec![0.0, 1.0]));
    let (told, times) = exchange(session.post("x").build().unwrap(), closes());
    assert!(told.unwrap_err().contains("closed"));
    assert_eq!(times, [0.0]);
    let marked = session.post("x").idempotent(true).build().unwrap();
    let (told, times) = exchange(marked, closes());
    assert_eq!((told, times), (at_last(), vec![0.0, 1.0]));
    let (told, _) = exchange(session.post("x").build().unwrap(), [Answer::status(503)]);
    assert_eq!(told, Ok("503 /x ".into()));
}

#[test]
fn attempts_are_used_up_and_the_last_failure_is_delivered() {
    let session = built(session(second(Retry::attempts(3))).error_for_status(true));
    let answers = (1..9).map(|n| Answer::status(503).body(format!("no {n}")));
    let (told, times) = exchange(session.get("x").build().unwrap(), answers);
    let error = told.unwrap_err();
    assert!(
        error.contains("503") && error.contains("sent 3 times"),
        "{error}"
    );
    assert_eq!(times, [0.0, 1.0, 2.0]);
    assert_eq!(session.stats().failed, 0);
}

#[test]
fn a_body_may_say_how_long_to_wait_and_is_delivered_if_nothing_follows() {
    let seconds = |response: &Response<'_>| {
        let text = response.text().ok()?;
        Some(Duration::from_secs(
            text.strip_prefix("retry ")?.parse().ok()?,
        ))
    };
    let session = built(session(Retry::attempts(3).wait_from(seconds)));
    let post = session.post("x").build().unwrap();
    let said = |text: &str| Answer::status(429).body(text);
    let (told, times) = exchange(post.clone(), [said("retry 5"), said("retry 40")]);
    assert_eq!((told, times), (at_last(), vec![0.0, 5.0, 45.0]));
    let (told, times) = exchange(post.clone(), [said("retry 61")]);
    assert_eq!((told, times), (Ok("429 /x retry 61".into()), vec![0.0]));
    // A body that breaks off says nothing, but the head does.
    let broken = busy(429, "9").body("x".repeat(1000)).truncate(500).close();
    let (told, times) = exchange(post, [broken]);
    assert_eq!((told, times), (at_last(), vec![0.0, 9.0]));
}

#[test]
fn after_a_redirect_its_target_is_asked_again() {
    let asked = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&asked);
    let server = move |request: &Incoming| {
        noted.borrow_mut().push(request.path().to_owned());
        match request.path() {
            "/x" => found(302, "/y"),
            _ if noted.borrow().len() == 2 => Answer::status(503),
            _ => Answer::ok("here"),
        }
    };
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let session = session(second(Retry::attempts(3))).redirects(Redirects::limited(3));
    let get = built(session).get("x").build().unwrap();
    let mut told = Told::new();
    let mut is_first = true;
    engine.submit(get, move |told: &mut Told, reply, _| {
        told.push(outcome(&reply));
        let info = reply.unwrap();
        let info = info.info();
        assert_eq!(info.hops().len(), 1);
        match std::mem::take(&mut is_first) {
            true => Next::again(),
            false => Next::done(),
        }
    });
    engine.run(&mut told).unwrap();
    assert_eq!(told, [Ok("200 /y here".into()), Ok("200 /y here".into())]);
    assert_eq!(asked.take(), ["/x", "/y", "/y", "/x", "/y"]);
}

/// Notes the calls of a readback that streams.
struct Streams;

impl Readback<Told> for Streams {
    fn on_head(&mut self, told: &mut Told, head: &Response<'_>, _: &mut Context<'_, Told>) -> Flow {
        told.push(Ok(format!("head {}", head.status().as_u16())));
        Flow::Stream
    }

    fn on_data(&mut self, told: &mut Told, data: &[u8], _: &mut Context<'_, Told>) -> Flow {
        told.push(Ok(format!("data {}", String::from_utf8_lossy(data))));
        Flow::Stream
    }

    fn on_retry(
        &mut self,
        told: &mut Told,
        why: Outcome<'_>,
        after: Duration,
        _: &mut Context<'_, Told>,
    ) {
        let why = match (why.error(), why.response()) {
            (Some(error), _) => format!("{:?}", error.kind()),
            (None, Some(response)) => response.status().as_u16().to_string(),
            (None, None) => unreachable!("one of them"),
        };
        told.push(Ok(format!("retry after {after:?}: {why}")));
    }

    fn on_reply(
        &mut self,
        told: &mut Told,
        reply: Reply<'_>,
        _: &mut Context<'_, Told>,
    ) -> Next<Told> {
        told.push(Ok(match reply {
            Ok(_) => "reply".into(),
            Err(error) => format!("{:?}", error.kind()),
        }));
        Next::done()
    }
}

#[test]
fn a_readback_sees_the_response_that_stands_and_hears_of_the_retries() {
    let expected: Told = [
        "retry after 1s: ClosedBeforeResponse",
        "retry after 7s: 429",
        "retry after 1s: 503",
        "head 200",
        "data at last",
        "reply",
    ]
    .map(|text| Ok(text.to_owned()))
    .into();
    for is_within in [false, true] {
        let answers = [
            Answer::nothing().close(),
            busy(429, "7").body("no"),
            Answer::status(503).body("x".repeat(100_000)),
        ];
        let (server, _) = script(answers.into());
        let (_network, mut engine, _) = simulated(Config::default(), server);
        let retry = second(Retry::attempts(4)).max_wait(10 * SECOND);
        let get = built(session(retry)).get("x").build().unwrap();
        match is_within {
            false => engine.submit_to(get, Streams),
            true => engine.submit_to(get, within_to(|told: &mut Told| Some(told), Streams)),
        };
        let mut told = Told::new();
        engine.run(&mut told).unwrap();
        assert_eq!(told, expected);
    }
}

#[cfg(feature = "digest")]
#[test]
fn what_leads_on_is_no_retry_although_its_body_breaks_off() {
    use httpstream::session::Auth;

    let broken = |answer: Answer| answer.body("x".repeat(1000)).truncate(500).close();
    let challenge = Answer::status(401).header("WWW-Authenticate", "Digest realm=a, nonce=b");
    let answers = [broken(challenge), broken(found(302, "/y"))];
    let (server, times) = script(answers.into());
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let session = session(second(Retry::attempts(4)))
        .auth(Auth::digest("user", "password"))
        .redirects(Redirects::limited(3));
    engine.submit_to(built(session).get("x").build().unwrap(), Streams);
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    let expected = ["head 200", "data at last", "reply"];
    assert_eq!(told, expected.map(|text| Ok(text.to_owned())));
    assert_eq!(times.take().len(), 3);
}

#[test]
fn a_body_that_breaks_off_is_asked_for_again_if_nothing_of_it_was_seen() {
    let session = built(session(second(Retry::attempts(4))));
    let breaks_off = || Answer::ok("0123456789").truncate(45).close();
    // A closure sees only whole responses.
    let (told, times) = exchange(session.get("x").build().unwrap(), [breaks_off()]);
    assert_eq!((told, times), (at_last(), vec![0.0, 1.0]));
    let (told, times) = exchange(session.post("x").build().unwrap(), [breaks_off()]);
    assert!(told.unwrap_err().contains("cut short"));
    assert_eq!(times, [0.0]);
    assert_eq!((session.stats().retried, session.stats().failed), (1, 1));
    // A readback that has seen the head cannot unsee it.
    let (server, times) = script(vec![breaks_off()]);
    let (_network, mut engine, _) = simulated(Config::default(), server);
    engine.submit_to(session.get("x").build().unwrap(), Streams);
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told.first(), Some(&Ok("head 200".into())));
    assert_eq!(told.last(), Some(&Ok("Truncated".into())));
    assert_eq!(times.take(), [0.0]);
    assert_eq!((session.stats().retried, session.stats().failed), (1, 2));
}

/// Does something when it hears of a retry.
struct Hears<F>(F);

impl<F: FnMut(&mut Told, &mut Context<'_, Told>)> Readback<Told> for Hears<F> {
    fn on_retry(
        &mut self,
        told: &mut Told,
        _: Outcome<'_>,
        _: Duration,
        cx: &mut Context<'_, Told>,
    ) {
        told.push(Ok("retry".into()));
        (self.0)(told, cx);
    }

    fn on_reply(
        &mut self,
        told: &mut Told,
        reply: Reply<'_>,
        _: &mut Context<'_, Told>,
    ) -> Next<Told> {
        told.push(outcome(&reply));
        Next::done()
    }
}

#[test]
fn a_readback_may_cancel_and_begin_others_when_it_hears_of_a_retry() {
    for answer in [|| Answer::status(503), || Answer::nothing().close()] {
        let (server, times) = script(vec![answer()]);
        let (_network, mut engine, _) = simulated(Config::default(), server);
        let session = built(session(second(Retry::attempts(4))));
        let other = session.get("other").build().unwrap();
        engine.submit_to(
            session.get("x").build().unwrap(),
            Hears(move |_: &mut Told, cx: &mut Context<'_, Told>| {
                cx.submit(other.clone(), note);
                cx.cancel(cx.id());
            }),
        );
        let mut told = Told::new();
        engine.run(&mut told).unwrap();
        told.sort();
        let expected = [
            Ok("200 /other at last".into()),
            Ok("retry".into()),
            Err("canceled".into()),
        ];
        assert_eq!(told, expected);
        assert_eq!(times.take().len(), 2);
        assert_eq!(engine.stats().in_flight + engine.stats().queued, 0);
    }
}

#[test]
fn a_panic_when_it_hears_of_a_retry_ends_only_that_chain() {
    for answer in [|| Answer::status(503), || Answer::nothing().close()] {
        let (server, _) = script(vec![answer()]);
        let (_network, mut engine, _) = simulated(Config::default(), server);
        let session = built(session(second(Retry::attempts(4))));
        let get = session.get("x").build().unwrap();
        let panics = |_: &mut Told, _: &mut Context<'_, Told>| {
            std::panic::resume_unwind(Box::new("on purpose"));
        };
        engine.submit_to(get.clone(), Hears(panics));
        let mut told = Told::new();
        let run = catch_unwind(AssertUnwindSafe(|| engine.run(&mut told)));
        assert!(run.is_err());
        assert_eq!(told, [Ok("retry".into())]);
        assert_eq!(engine.stats().in_flight + engine.stats().queued, 0);
        engine.submit(get, note);
        engine.run(&mut told).unwrap();
        assert_eq!(told[1], at_last());
    }
}

/// A panic drops the visit instead of ending it.
#[test]
fn what_a_panic_ends_takes_nothing_from_the_budget() {
    let (server, times) = script((0..11).map(|_| Answer::status(503)).collect());
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let session = built(session(second(Retry::attempts(2)).budget(0.0)));
    let get = session.get("x").build().unwrap();
    let mut told = Told::new();
    for _ in 0..10 {
        let panics = |_: &mut Told, _: &mut Context<'_, Told>| {
            std::panic::resume_unwind(Box::new("on purpose"));
        };
        engine.submit_to(get.clone(), Hears(panics));
        let run = catch_unwind(AssertUnwindSafe(|| engine.run(&mut told)));
        assert!(run.is_err());
    }
    told.clear();
    engine.submit(get, note);
    engine.run(&mut told).unwrap();
    assert_eq!((told, times.take().len()), (vec![at_last()], 12));
    assert_eq!(session.stats().retried, 1);
}

/// The readback would hear of a retry that is never sent, and only of a timeout in the end.
#[test]
fn a_retry_for_which_the_body_leaves_no_time_is_not_begun() {
    let slow = || {
        let body = Answer::status(503).body("x".repeat(100));
        body.drip(10, SECOND)
    };
    let answers = [slow(), slow().truncate(140).close()];
    for (answer, kind) in answers.into_iter().zip(["Status", "Truncated"]) {
        let (server, times) = script(vec![answer]);
        let (_network, mut engine, _) = simulated(Config::default(), server);
        let retry = Retry::attempts(2).backoff(40 * SECOND, 40 * SECOND);
        let session = built(session(retry.floor(40 * SECOND)).total(50 * SECOND));
        engine.submit_to(session.get("x").build().unwrap(), Streams);
        let mut told = Told::new();
        engine.run(&mut told).unwrap();
        assert_eq!((told, times.take().len()), (vec![Ok(kind.into())], 1));
        assert_eq!(session.stats().retried, 0);
    }
}

#[test]
fn what_a_replaced_response_led_to_is_forgotten_although_its_successor_is_not_sent() {
    let server = |request: &Incoming| match request.path() {
        "/hold" => Answer::ok("").after(100 * SECOND),
        "/x" => found(302, "/y"),
        _ => Answer::status(503),
    };
    for path in ["x", "busy"] {
        let mut config = Config::default();
        config.max_connections = 1;
        let (_network, mut engine, seen) = simulated(config, server);
        let again = at_end(move |request, reply| match reply {
            Ok(_) => Ok(Verdict::Resend {
                request: request.clone(),
                after: SECOND,
            }),
            Err(_) => Ok(Verdict::Deliver),
        });
        let session = session(second(Retry::attempts(3)))
            .redirects(Redirects::limited(3))
            .policy(again);
        let session = built(session.total(10 * SECOND));
        engine.submit_to(session.get(path).build().unwrap(), Streams);
        let hold = Request::get("http://a.test/hold").build().unwrap();
        let mut told = Told::new();
        engine.advance(&mut told, SECOND / 2).unwrap();
        engine.submit(hold, |_: &mut Told, _, _| Next::done());
        engine.run(&mut told).unwrap();
        // Of the policy inside, and not of a retry or a redirect of the session.
        let expected = match path {
            "busy" => vec![Ok("retry after 1s: 503".into()), Ok("Timeout".into())],
            _ => vec![Ok("Timeout".into())],
        };
        assert_eq!(told, expected);
        assert_eq!(seen.take().len(), 2);
        let stats = session.stats();
        assert_eq!((stats.redirected, stats.retried, stats.failed), (0, 0, 1));
    }
}

#[test]
fn a_poll_for_ever_is_ended_by_the_total_or_with_the_session() {
    let (server, times) = script((0..1000).map(|_| Answer::status(503)).collect());
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let forever = second(Retry::forever()).budget(f32::INFINITY);
    let session = built(session(forever).total(100 * SECOND));
    let get = session.get("x").build().unwrap();
    engine.submit(get.clone(), note);
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    // The last failure before the total is delivered.
    assert_eq!(told, [Ok("503 /x ".into())]);
    assert_eq!(times.take().len(), 100);

    engine.submit(get, note);
    let its = session.clone();
    engine.call(move |_: &mut Told, cx| {
        cx.end(&its);
        Next::done()
    });
    let end = session.clone();
    engine.start(
        Next::call(move |_: &mut Told, cx: &mut Context<'_, Told>| {
            cx.end(&end);
            Next::done()
        })
        .after(30 * SECOND),
    );
    engine.run(&mut told).unwrap();
    assert_eq!(told[1], Err("canceled".into()));
}

/// Counts the requests of a server that fails, while `sent` of them are submitted, ten a second.
fn load(retry: Retry, sent: usize, server: impl Fn(usize) -> Answer + 'static) -> (usize, usize) {
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    let (_network, mut engine, _) = simulated(Config::default(), move |_| {
        counted.set(counted.get() + 1);
        server(counted.get())
    });
    let session = built(session(retry));
    for number in 0..sent {
        let get = session.get("x").build().unwrap();
        let after = Duration::from_millis(100) * number as u32;
        engine.start(Next::send(get).after(after).read_by(note));
    }
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told.len(), sent);
    let succeeded = told.iter().filter(|told| **told == at_last()).count();
    (count.get(), succeeded)
}

#[test]
fn the_load_on_a_server_in_trouble_stays_within_the_budget() {
    // For a minute, every second request fails, or all do.
    let most = |share: f64| (600.0 * (1.0 + share)) as usize + 10 + 7;
    let every_second = |n: usize| match n % 2 {
        0 => Answer::status(503),
        _ => Answer::ok("at last"),
    };
    let (requests, succeeded) = load(Retry::attempts(4), 600, every_second);
    assert!(requests <= most(0.2), "{requests}");
    // Those that are retried succeed, half of the time.
    assert!(succeeded > 350, "{succeeded}");
    for storm in [
        |_| busy(429, "0"),
        |_| busy(429, "1"),
        |_| Answer::nothing().reset(),
    ] {
        let (requests, succeeded) = load(Retry::attempts(4), 600, storm);
        assert!((600 + 10..=most(0.2)).contains(&requests), "{requests}");
        assert_eq!(succeeded, 0);
    }
    // Without a limit, each of them would be sent four times.
    let unlimited = Retry::attempts(4).budget(f32::INFINITY);
    let (requests, _) = load(unlimited, 600, |_| Answer::status(503));
    assert_eq!(requests, 2400);
}

/// The lane is not held back for another origin, so nothing else bounds the load.
#[test]
fn a_429_of_another_origin_takes_from_the_budget() {
    let sent = |target: &'static str| {
        let server = move |request: &Incoming| match request.path() {
            "/x" => found(307, target),
            _ => busy(429, "1"),
        };
        let (_network, mut engine, seen) = simulated(Config::default(), server);
        let session = session(second(Retry::attempts(30)).budget(0.0))
            .redirects(Redirects::limited(3))
            .lane_concurrency(1);
        let get = built(session).get("x").lane("a").build().unwrap();
        engine.submit(get, note);
        engine.run(&mut Told::new()).unwrap();
        seen.take().len()
    };
    // One more is refilled meanwhile.
    assert_eq!(sent("http://b.test/y"), 1 + 1 + 11);
    assert_eq!(sent("/y"), 1 + 30);
}

#[test]
fn a_policy_inside_signs_each_attempt_and_may_retry_by_itself() {
    let signed = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&signed);
    let server = move |request: &Incoming| {
        let number = request.header("X-Attempt").unwrap_or(b"-").to_vec();
        noted.borrow_mut().push(String::from_utf8(number).unwrap());
        match noted.borrow().len() {
            1 | 2 => Answer::status(503),
            _ => Answer::ok("at last"),
        }
    };
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let mut count = 0;
    let signs = on_send(move |_, fields| {
        count += 1;
        fields.add("X-Attempt", count.to_string())
    });
    let session = built(session(second(Retry::attempts(4))).policy(signs));
    engine.submit(session.get("x").build().unwrap(), note);
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told, [at_last()]);
    assert_eq!(signed.take(), ["1", "2", "3"]);

    // One that sends the request again has the last word, and the session's budget is untouched.
    let (server, times) = script((0..40).map(|_| Answer::status(503)).collect());
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let again = at_end(move |request, reply| match reply {
        Ok(response) if response.status() == 503 => Ok(Verdict::Resend {
            request: request.clone(),
            after: Duration::ZERO,
        }),
        _ => Ok(Verdict::Deliver),
    });
    let session = built(self::session(second(Retry::attempts(2))).policy(again));
    engine.submit(session.get("x").build().unwrap(), note);
    told.clear();
    engine.run(&mut told).unwrap();
    assert_eq!((told, times.take().len()), (vec![at_last()], 41));
    assert_eq!(session.stats().retried, 0);
    let failing = second(Retry::attempts(2));
    let (_, succeeded) = load(failing, 10, |n| match n {
        1..=10 => Answer::status(503),
        _ => Answer::ok("at last"),
    });
    assert_eq!(succeeded, 10);
}

#[test]
fn a_wait_that_the_total_would_cut_short_is_not_begun() {
    let session = built(session(Retry::forever()).total(5 * SECOND));
    let (told, times) = exchange(session.get("x").build().unwrap(), [busy(429, "50")]);
    assert_eq!((told, times), (Ok("429 /x ".into()), vec![0.0]));
    // Nor is a retry when the total has passed. The error is that of the attempt.
    let held = Answer::ok("").after(100 * SECOND);
    let (told, times) = exchange(session.get("x").build().unwrap(), [held]);
    assert!(told.unwrap_err().contains("waiting for the response"));
    assert_eq!(times, [0.0]);
    assert_eq!((session.stats().retried, session.stats().failed), (0, 1));
}

#[test]
fn what_is_not_sent_takes_nothing_from_the_budget() {
    let (server, times) = script((0..10).map(|_| busy(503, "30")).collect());
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let session =
        built(session(second(Retry::attempts(2)).max_wait(60 * SECOND)).total(60 * SECOND));
    let get = session.get("x").build().unwrap();
    let ids: Vec<_> = (0..10).map(|_| engine.submit(get.clone(), note)).collect();
    engine.call(move |_: &mut Told, _| {
        Next::call(move |_: &mut Told, cx: &mut Context<'_, Told>| {
            for id in &ids {
                cx.cancel(*id);
            }
            Next::done()
        })
        .after(10 * SECOND)
    });
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(times.borrow().len(), 10);
    assert_eq!(session.stats().retried, 0);
    // All ten of the reserve are left.
    let (server, _) = script((0..10).map(|_| busy(503, "1")).collect());
    let (_network, mut engine, _) = simulated(Config::default(), server);
    (0..10).for_each(|_| _ = engine.submit(get.clone(), note));
    told.clear();
    engine.run(&mut told).unwrap();
    assert!(told.iter().all(|told| *told == at_last()), "{told:?}");
}

#[test]
fn a_response_that_breaks_off_is_not_asked_for_before_its_head_says() {
    let broken = |after| {
        busy(503, after)
            .body("x".repeat(1000))
            .truncate(500)
            .close()
    };
    let patient = || second(Retry::attempts(4)).max_wait(60 * SECOND);
    let session = built(session(patient()));
    let (told, times) = exchange(session.get("x").build().unwrap(), [broken("61")]);
    assert!(told.unwrap_err().contains("cut short"));
    assert_eq!(times, [0.0]);
    // This status is no reason to retry, but the broken connection is.
    let session = built(self::session(patient().statuses([429])));
    let (told, times) = exchange(session.get("x").build().unwrap(), [broken("30")]);
    assert_eq!((told, times), (at_last(), vec![0.0, 30.0]));
    // What a response asks for is over with the next one.
    let answers = [broken("30"), Answer::nothing().close()];
    let (told, times) = exchange(session.get("x").build().unwrap(), answers);
    assert_eq!((told, times), (at_last(), vec![0.0, 30.0, 31.0]));
}

#[test]
fn a_total_deadline_that_has_passed_takes_nothing_from_the_budget() {
    let silent = (0..13).map(|_| Answer::nothing());
    let (server, _) = script(silent.chain([Answer::status(503)]).collect());
    let (_network, mut engine, _) = simulated(Config::default(), server);
    // For ten retries, and no more.
    let retry = second(Retry::attempts(2)).budget(0.0);
    let session = built(session(retry).total(3 * SECOND));
    let mut told = Told::new();
    for _ in 0..14 {
        engine.submit_to(session.get("x").build().unwrap(), Streams);
        engine.run(&mut told).unwrap();
    }
    let mut expected = vec!["Timeout"; 13];
    expected.extend(["retry after 1s: 503", "head 200", "data at last", "reply"]);
    let expected: Told = expected
        .into_iter()
        .map(|text| Ok(text.to_owned()))
        .collect();
    assert_eq!(told, expected);
    let stats = session.stats();
    assert_eq!((stats.retried, stats.failed), (1, 13));
}

// ---- by hand ----

struct Bot {
    retry: Retry,
    given_up: Vec<(String, u32)>,
    done: usize,
}

impl Bot {
    fn on_reply(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        if let Ok(response) = &reply
            && response.status() == 200
        {
            self.done += 1;
            return Next::done();
        }
        let next = cx.retry(&self.retry, &reply);
        if next.is_done() {
            let target = cx.request().unwrap().target().to_owned();
            self.given_up.push((target, cx.failures()));
        }
        next
    }
}

#[test]
fn by_hand_each_chain_counts_for_itself() {
    let network = Network::new(1);
    let times = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&times);
    network.serve(
        "192.0.2.1:80".parse().unwrap(),
        move |request: &Incoming| {
            let at = request.at.as_secs_f64().round();
            seen.borrow_mut().push((request.target.clone(), at));
            let so_far = seen
                .borrow()
                .iter()
                .filter(|(it, _)| *it == request.target)
                .count();
            match (request.path(), so_far) {
                ("/third", 3) => Answer::ok(""),
                ("/gone", _) => Answer::status(404),
                _ => Answer::status(503),
            }
        },
    );
    let mut engine = Engine::<Bot, Sim>::on_network(&network, Config::default()).unwrap();
    for path in ["third", "never", "gone"] {
        let url = format!("http://192.0.2.1/{path}");
        engine.submit(Request::get(url).build().unwrap(), Bot::on_reply);
    }
    let post = Request::post("http://192.0.2.1/post").build().unwrap();
    engine.submit(post, Bot::on_reply);
    let mut bot = Bot {
        retry: second(Retry::attempts(4)),
        given_up: Vec::new(),
        done: 0,
    };
    engine.run(&mut bot).unwrap();
    bot.given_up.sort();
    let expected = [("/gone", 0), ("/never", 4), ("/post", 1)];
    let expected = expected.map(|(target, failures)| (target.to_owned(), failures));
    assert_eq!(bot.given_up, expected);
    assert_eq!(bot.done, 1);
    let of = |target: &str| {
        let times = times.borrow();
        let its = times.iter().filter(|(it, _)| it == target);
        its.map(|(_, at)| *at).collect::<Vec<_>>()
    };
    assert_eq!(of("/third"), [0.0, 1.0, 2.0]);
    assert_eq!(of("/never"), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!((of("/gone").len(), of("/post").len()), (1, 1));
}

#[test]
fn by_hand_a_redirected_post_is_not_sent_twice() {
    // The session follows the redirect to a GET, which fails. `again` would send the POST.
    let server = |request: &Incoming| match request.path() {
        "/x" => found(303, "/y"),
        _ => Answer::status(503),
    };
    let (_network, mut engine, seen) = simulated(Config::default(), server);
    let session = Session::builder()
        .base("http://a.test/")
        .redirects(Redirects::limited(3));
    let post = built(session).post("x").build().unwrap();
    let retry = second(Retry::attempts(4));
    engine.submit(post, move |_: &mut Told, reply, cx| {
        assert!(!reply.as_ref().unwrap().resend_is_safe());
        cx.retry(&retry, &reply)
    });
    engine.run(&mut Told::new()).unwrap();
    assert_eq!(seen.take().len(), 2);
}

#[test]
fn errors_of_a_status_are_retried_as_the_status_is() {
    let (server, times) = script(vec![
        busy(429, "5"),
        Answer::status(500),
        Answer::status(501),
    ]);
    let (_network, mut engine, _) = simulated(Config::default(), server);
    let session = Session::builder()
        .base("http://a.test/")
        .error_for_status(true);
    let retry = second(Retry::forever()).max_wait(10 * SECOND);
    let get = built(session).get("x").build().unwrap();
    engine.submit(get, move |told: &mut Told, reply, cx| {
        let error = reply.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Status);
        told.push(outcome(&Err(Error::from(httpstream::Gone))));
        cx.retry(&retry, &error)
    });
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told.len(), 3);
    assert_eq!(times.take(), [0.0, 5.0, 6.0]);
}
