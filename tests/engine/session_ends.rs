//! The end of a session: which chains it reaches, and that it reaches all of them.

use std::future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use httpstream::session::{Jar, Redirects, Session};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Context, Engine, Next, Readback, Reply, Sim};

use crate::common::{Server, ok};
use crate::sessions::{SECOND, Told, found, note, outcome, simulated};

fn held(seen: &Incoming) -> Answer {
    match seen.path() {
        "/start" => found(302, "/held"),
        "/now" => Answer::ok("now"),
        _ => Answer::ok("late").after(20 * SECOND),
    }
}

const CANCELLED: &str = "canceled";

#[test]
fn requests_of_an_ended_session_end_wherever_they_are() {
    let (_network, mut engine, seen) = simulated(Config::default(), held);
    let (session, other) = (Session::new(), Session::new());
    let get = |path: &str| session.get(format!("http://a.test{path}")).build().unwrap();
    // In flight after a redirect, delayed, in the inbox, a call, and one of another session.
    engine.submit(get("/start"), note);
    engine.start(Next::send(get("/now")).after(50 * SECOND).read_by(note));
    let call = Next::call(|_: &mut Told, _: &mut Context<'_, Told>| panic!("it has ended"));
    engine.start(call.after(50 * SECOND).session(&session));
    engine.submit(other.get("http://a.test/held").build().unwrap(), note);
    let mut told = Told::new();
    engine.advance(&mut told, SECOND).unwrap();
    let submitter = engine.submitter();
    submitter.submit(get("/now"), note).unwrap();
    let kept = get("/now");
    submitter.end(&session).unwrap();
    drop(submitter);
    engine.run(&mut told).unwrap();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(
        told[..3].iter().all(|it| it == &Err(CANCELLED.to_owned())),
        "{told:?}"
    );
    assert_eq!(told[3], Ok("200 /held late".to_owned()));
    assert_eq!(
        seen.take(),
        ["GET a.test/start", "GET a.test/held", "GET a.test/held"]
    );
    // A request built before the end is void; edited, it belongs to the next login.
    engine.submit(kept.clone(), note);
    engine.submit(kept.edit().build().unwrap(), note);
    told.clear();
    engine.run(&mut told).unwrap();
    told.sort();
    let expected = [Ok("200 /now now".to_owned()), Err(CANCELLED.to_owned())];
    assert_eq!(told, expected);
}

/// A chain that has ended its session, and waits without belonging to it, goes on if another
/// session ends, even if it is the chain itself that ends this one.
#[test]
fn a_call_is_not_ended_for_the_last_request_of_its_chain() {
    let (_network, mut engine, _) = simulated(Config::default(), held);
    let (session, other) = (Session::new(), Session::new());
    let get = session.get("http://a.test/now").build().unwrap();
    let (ends, its) = (session.clone(), session.clone());
    let mut is_first = true;
    engine.submit(get, move |told: &mut Told, reply, cx| {
        told.push(outcome(&reply));
        if !std::mem::take(&mut is_first) {
            return Next::done();
        }
        cx.end(&ends);
        let (its, other) = (its.clone(), other.clone());
        let call = move |_: &mut Told, cx: &mut Context<'_, Told>| {
            cx.end(&other);
            Next::send(its.get("http://a.test/now").build().unwrap())
        };
        Next::call(call).after(SECOND)
    });
    let mut told = Told::new();
    engine.advance(&mut told, SECOND / 2).unwrap();
    session.end();
    engine.run(&mut told).unwrap();
    assert_eq!(told, [(); 2].map(|()| Ok("200 /now now".to_owned())));
}

/// What has ended a chain outside of its session stays that if the session of its last request ends
/// before the readback has been told.
#[test]
fn the_deadline_of_a_chain_ends_a_wait_that_belongs_to_no_session() {
    let (network, mut engine, _) = simulated(Config::default(), held);
    let session = Session::new();
    let get = session.get("http://a.test/now").build().unwrap();
    let mut is_first = true;
    engine.submit(get, move |told: &mut Told, reply: Reply<'_>, _: &mut _| {
        told.push(outcome(&reply));
        if !std::mem::take(&mut is_first) {
            return Next::done();
        }
        Next::wait().after(60 * SECOND).chain_timeout(5 * SECOND)
    });
    let its = session.clone();
    let ends = Next::call(move |_: &mut Told, cx: &mut Context<'_, Told>| {
        cx.end(&its);
        Next::done()
    });
    engine.start(ends.after(3 * SECOND));
    let mut told = Told::new();
    engine.advance(&mut told, SECOND).unwrap();
    // The host is late: in one turn, the wait fails, the session is ended, and the wait is told.
    network.sleep(20 * SECOND);
    engine.run(&mut told).unwrap();
    let [Ok(_), Err(why)] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(why.contains("chain_timeout of 5s"), "{why}");
}

#[test]
fn the_chain_that_ends_its_session_is_spared() {
    let (_network, mut engine, seen) = simulated(Config::default(), held);
    let session = Session::new();
    let get = |path: &str| session.get(format!("http://a.test{path}")).build().unwrap();
    engine.submit(get("/held"), note);
    let (ends, mut left) = (session.clone(), 3);
    engine.submit(get("/now"), move |told: &mut Told, reply, cx| {
        told.push(outcome(&reply));
        left -= 1;
        match left {
            0 => Next::done(),
            2 => {
                cx.end(&ends);
                Next::again().after(SECOND)
            }
            _ => Next::again(),
        }
    });
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    let now = Ok("200 /now now".to_owned());
    assert_eq!(
        told,
        [now.clone(), Err(CANCELLED.to_owned()), now.clone(), now]
    );
    assert_eq!(seen.take().len(), 4);
}

#[test]
fn of_responses_that_arrive_together_only_the_one_that_ends_the_session_is_read() {
    let (_network, mut engine, seen) = simulated(Config::default(), |request| {
        let is_first = request.at < SECOND;
        Answer::status(if is_first { 401 } else { 200 }).after(SECOND)
    });
    let session = Session::new();
    for _ in 0..3 {
        let ends = session.clone();
        let request = session.get("http://a.test/").build().unwrap();
        engine.submit(request, move |told: &mut Told, reply, cx| {
            told.push(outcome(&reply));
            match reply {
                Ok(response) if response.status() == 401 => {
                    cx.end(&ends);
                    Next::again()
                }
                _ => Next::done(),
            }
        });
    }
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    let canceled = Err(CANCELLED.to_owned());
    let expected = [Ok("401 / ".to_owned()), canceled.clone(), canceled];
    assert_eq!(told[..3], expected);
    assert_eq!(told[3..], [Ok("200 / ".to_owned())]);
    assert_eq!(seen.take().len(), 4);
}

#[test]
fn a_spared_chain_ends_with_the_next_end() {
    let (_network, mut engine, _) = simulated(Config::default(), held);
    let session = Session::new();
    let ends = session.clone();
    let now = session.get("http://a.test/now").build().unwrap();
    engine.submit(now, move |told: &mut Told, reply, cx| {
        let is_first = told.is_empty();
        told.push(outcome(&reply));
        if is_first {
            cx.end(&ends);
        }
        Next::again().after(10 * SECOND)
    });
    let mut told = Told::new();
    engine.advance(&mut told, 5 * SECOND).unwrap();
    assert_eq!(engine.pending(), 1, "it waits for its second round");
    engine.end(&session);
    engine.run(&mut told).unwrap();
    assert_eq!(told[1..], [Err(CANCELLED.to_owned())]);
}

#[test]
fn a_chain_of_another_session_is_not_moved_into_the_one_it_ends() {
    let (_network, mut engine, _) = simulated(Config::default(), held);
    let (one, other) = (Session::new(), Session::new());
    let ends = other.clone();
    let now = one.get("http://a.test/now").build().unwrap();
    engine.submit(now, move |told: &mut Told, reply, cx| {
        let is_first = told.is_empty();
        told.push(outcome(&reply));
        if is_first {
            cx.end(&ends);
            return Next::again().after(10 * SECOND);
        }
        Next::done()
    });
    let mut told = Told::new();
    engine.advance(&mut told, 5 * SECOND).unwrap();
    other.end();
    engine.run(&mut told).unwrap();
    assert_eq!(
        told,
        [Ok("200 /now now".to_owned()), Ok("200 /now now".to_owned())]
    );
    // Its own session still reaches it.
    let now = one.get("http://a.test/held").build().unwrap();
    engine.submit(now, note);
    told.clear();
    engine.advance(&mut told, SECOND).unwrap();
    one.end();
    engine.run(&mut told).unwrap();
    assert_eq!(told, [Err(CANCELLED.to_owned())]);
}

#[test]
fn a_chain_that_goes_back_to_a_request_of_an_ended_login_is_told_at_once() {
    let (_network, mut engine, seen) = simulated(Config::default(), held);
    let session = Session::new();
    let now = session.get("http://a.test/now").build().unwrap();
    engine.submit(now, |told: &mut Told, reply, _| {
        told.push(outcome(&reply));
        // The call itself belongs to no session.
        let call = Next::call(|_: &mut Told, _: &mut Context<'_, Told>| {
            Next::again().after(1000 * SECOND)
        });
        call.after(10 * SECOND)
    });
    let mut told = Told::new();
    engine.advance(&mut told, 5 * SECOND).unwrap();
    session.end();
    engine.advance(&mut told, 10 * SECOND).unwrap();
    let expected = [Ok("200 /now now".to_owned()), Err(CANCELLED.to_owned())];
    assert_eq!(told, expected);
    assert_eq!((engine.pending(), seen.take().len()), (0, 1));
}

#[test]
fn an_end_between_two_hops_lets_no_further_one_out() {
    let (network, mut engine, seen) = simulated(Config::default(), |seen| match seen.path() {
        "/0" => found(302, "/1").after(SECOND),
        _ => found(302, "/2").after(SECOND),
    });
    let session = Session::new();
    engine.submit(session.get("http://a.test/0").build().unwrap(), note);
    let mut told = Told::new();
    engine.advance(&mut told, SECOND / 2).unwrap();
    // The redirect has arrived when the session ends, and the engine has not seen it yet.
    network.sleep(SECOND);
    session.end();
    engine.run(&mut told).unwrap();
    assert_eq!(told, [Err(CANCELLED.to_owned())]);
    assert_eq!(seen.take(), ["GET a.test/0"]);
}

/// Chains are ended while other code of the program is being dropped, which may end the session
/// again.
#[test]
fn a_session_may_end_in_the_destructors_of_what_its_end_drops() {
    const EACH: usize = 5000;

    struct Ends(Session, Arc<AtomicUsize>);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.end();
        }
    }

    let (_network, mut engine, _) = simulated(Config::default(), held);
    let session = Session::new();
    let drops = Arc::new(AtomicUsize::new(0));
    let ends = || Ends(session.clone(), Arc::clone(&drops));
    for _ in 0..EACH {
        let guard = ends();
        let task = async move {
            future::pending::<()>().await;
            drop(guard);
        };
        engine.start(Next::task(task).session(&session));
        let (guard, request) = (ends(), session.get("http://a.test/held").build().unwrap());
        engine.submit(request, move |told: &mut Told, reply, _| {
            let _owned = &guard;
            told.push(outcome(&reply));
            Next::done()
        });
    }
    let mut told = Told::new();
    engine.advance(&mut told, Duration::from_millis(1)).unwrap();
    session.end();
    engine.advance(&mut told, SECOND).unwrap();
    assert_eq!(
        (engine.pending(), drops.load(Ordering::Relaxed)),
        (0, 2 * EACH)
    );
    assert_eq!(told, vec![Err(CANCELLED.to_owned()); EACH]);
}

/// Another thread ends the session in a loop, while two engines share it and its jar.
#[test]
fn every_request_is_answered_once_however_often_its_session_ends() {
    const CHAINS: usize = 50;
    const REQUESTS: usize = 60;

    /// Counts its calls, and sends the next request in a chain of its own, because one that is
    /// canceled ends.
    struct Counts(Session, usize);
    impl Readback<usize> for Counts {
        fn on_reply(
            &mut self,
            calls: &mut usize,
            _: Reply<'_>,
            cx: &mut Context<'_, usize>,
        ) -> Next<usize> {
            *calls += 1;
            if self.1 > 1 {
                let next = Counts(self.0.clone(), self.1 - 1);
                cx.submit_to(self.0.get("next").build().unwrap(), next);
            }
            Next::done()
        }
    }

    let server = Server::start(|peer| {
        let mut n = 0;
        while let Some(seen) = peer.request() {
            n += 1;
            let redirect = |location: &str| {
                format!(
                    "HTTP/1.1 307 F\r\nLocation: {location}\r\nSet-Cookie: c{n}=1\r\nContent-Length: 0\r\n\r\n"
                )
            };
            match (seen.path.as_str(), n % 3) {
                ("/end", _) | (_, 1) => peer.send(&ok("a")),
                (_, 0) => peer.send(redirect("/end").as_bytes()),
                _ => peer.send(redirect("/next").as_bytes()),
            };
        }
    });
    let session = Session::builder()
        .base(server.url("/"))
        .redirects(Redirects::limited(20))
        .cookies(Jar::new())
        .build()
        .unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = {
        let (session, is_over) = (session.clone(), Arc::clone(&is_over));
        thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                session.end();
                thread::yield_now();
            }
        })
    };
    let engines = [1, 2].map(|_| {
        let session = session.clone();
        thread::spawn(move || {
            let mut engine = Engine::new().unwrap();
            for n in 0..CHAINS {
                let request = session.get("first").pipeline(1 + n % 3).build().unwrap();
                engine.submit_to(request, Counts(session.clone(), REQUESTS));
            }
            let mut calls = 0;
            engine.run(&mut calls).unwrap();
            (calls, engine.pending())
        })
    });
    let counts = engines.map(|engine| engine.join().unwrap());
    is_over.store(true, Ordering::Relaxed);
    ends.join().unwrap();
    assert_eq!(counts, [(CHAINS * REQUESTS, 0); 2]);
}

/// Starts `count` delays that are never over, and turns until the engine has noted them.
fn start_delays(engine: &mut Engine<Told, Sim>, count: usize, session: Option<&Session>) {
    for _ in 0..count {
        let delay = Next::wait().after(Duration::MAX);
        engine.start(match session {
            Some(session) => delay.session(session),
            None => delay,
        });
    }
    while engine.next_timeout() == Some(Duration::ZERO) {
        engine.turn(&mut Told::new()).unwrap();
    }
}

/// An end takes several turns where there are many chains. Those of another session, which come in
/// every turn, do not start it anew.
#[test]
fn an_end_reaches_every_chain_while_another_session_keeps_ending() {
    // Many more than one turn looks at or ends; those in front belong to nobody.
    for (others, own) in [(40_000, 1), (150_000, 100_000)] {
        let network = Network::new(1);
        let mut engine = Engine::<Told, Sim>::on_network(&network, Config::default()).unwrap();
        let (old, other) = (Session::new(), Session::new());
        start_delays(&mut engine, others, None);
        start_delays(&mut engine, own, Some(&old));
        assert_eq!(engine.pending(), others + own);
        old.end();
        // The other session has one chain at a time, which its end may not have reached yet.
        let mut turns = 0;
        let mut told = Told::new();
        while engine.pending() > others + 2 {
            engine.start(Next::wait().after(Duration::MAX).session(&other));
            engine.turn(&mut told).unwrap();
            other.end();
            turns += 1;
            assert!(
                turns < 1000,
                "{} chains are left",
                engine.pending() - others
            );
        }
    }
}
