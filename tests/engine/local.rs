//! Chains started from inside of tasks and by `start`, and the chain's data in a context.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Engine, ErrorKind, Gone, Next, Reply, Request, Sim};

/// A network with one server, and an engine on it.
fn simulated<S>(server: impl Fn(&Incoming) -> Answer + 'static) -> (Network, Engine<S, Sim>) {
    let network = Network::new(1);
    let addr: SocketAddr = "192.0.2.1:80".parse().unwrap();
    network.serve(addr, move |incoming: &Incoming| server(incoming));
    let engine = Engine::on_network(&network, Config::default()).unwrap();
    (network, engine)
}

fn get(path: &str) -> Request {
    Request::get(format!("http://192.0.2.1{path}"))
        .build()
        .unwrap()
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_task_starts_tasks_that_need_not_be_send() {
    let (network, mut engine) = simulated::<u32>(|seen| Answer::ok(seen.path()));
    let http = engine.local();
    let found = Rc::new(RefCell::new(Vec::new()));
    let running = Rc::new(Cell::new(0));
    engine.spawn({
        let (found, running) = (Rc::clone(&found), Rc::clone(&running));
        async move {
            for page in 0..3 {
                let (task, found, running) = (http.clone(), Rc::clone(&found), Rc::clone(&running));
                running.set(running.get() + 1);
                http.spawn(async move {
                    let page = task.fetch(get(&format!("/{page}"))).await.unwrap();
                    let pages = task.with(|pages, cx| {
                        *pages += 1;
                        (*pages, cx.id())
                    });
                    let (_, id) = pages.await.unwrap();
                    assert!(id.to_u64() > 0);
                    found
                        .borrow_mut()
                        .push(String::from_utf8(page.into_body()).unwrap());
                    running.set(running.get() - 1);
                });
            }
            while running.get() > 0 {
                http.sleep(Duration::from_millis(10)).await;
            }
            found.borrow_mut().push("over".to_owned());
        }
    });
    let mut pages = 0;
    engine.run(&mut pages).unwrap();
    found.borrow_mut().sort();
    assert_eq!(*found.borrow(), ["/0", "/1", "/2", "over"]);
    assert_eq!((pages, engine.pending()), (3, 0));
    assert!(network.elapsed() >= Duration::from_millis(10));
}

#[test]
fn what_is_asked_for_between_turns_makes_a_turn_due() {
    let mut engine = Engine::<u32>::new().unwrap();
    let http = engine.local();
    assert_eq!(engine.next_deadline(), None);
    http.start(Next::call(|calls: &mut u32, _| {
        *calls += 1;
        Next::done()
    }));
    let mut calls = 0;
    let turn = engine.turn(&mut calls, Some(Duration::from_secs(10)));
    assert_eq!(turn.unwrap().events, 1, "the engine was woken");
    while engine.next_deadline().is_some() {
        engine.turn(&mut calls, Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(calls, 1);
    // `run` waits for the chains, not for the `Local`.
    http.start(Next::call(|calls: &mut u32, _| {
        *calls += 1;
        Next::done()
    }));
    engine.run(&mut calls).unwrap();
    assert_eq!((calls, engine.pending()), (2, 0));
}

#[test]
fn a_fetch_that_is_dropped_cancels_its_request_and_a_chain_is_cancelled_by_its_id() {
    let (network, mut engine) = simulated::<Vec<ErrorKind>>(|_| Answer::held());
    let http = engine.local();
    let id = http.start(Next::send(get("/held")).read_by(
        |kinds: &mut Vec<_>, reply: Reply<'_>, _: &mut _| {
            kinds.push(reply.unwrap_err().kind());
            Next::done()
        },
    ));
    engine.spawn({
        let http = http.clone();
        async move {
            assert!(poll_once(http.fetch(get("/dropped"))).is_pending());
            http.sleep(Duration::from_secs(1)).await;
            http.cancel(id);
        }
    });
    let mut kinds = Vec::new();
    engine.run(&mut kinds).unwrap();
    assert_eq!((kinds, engine.pending()), (vec![ErrorKind::Cancelled], 0));
    assert_eq!(network.elapsed(), Duration::from_secs(1));
}

#[test]
fn tasks_of_equal_seeds_see_the_same_times_and_numbers() {
    let seen = |seed| {
        let network = Network::new(seed);
        let mut engine: Engine<Vec<_>, Sim> =
            Engine::on_network(&network, Config::default()).unwrap();
        let http = engine.local();
        engine.spawn(async move {
            for _ in 0..3 {
                http.sleep(Duration::from_secs(1)).await;
                let (wall, random) = (http.moment().wall_clock(), http.moment().random());
                let noted = http.with(move |seen: &mut Vec<_>, _| seen.push((wall, random)));
                noted.await.unwrap();
            }
        });
        let mut seen = Vec::new();
        engine.run(&mut seen).unwrap();
        seen
    };
    assert_eq!(seen(1).len(), 3);
    assert_eq!(seen(1), seen(1));
    assert_ne!(seen(1), seen(2));
    let times = seen(1).into_iter().map(|(wall, _)| wall);
    assert!(
        times
            .collect::<Vec<_>>()
            .windows(2)
            .all(|two| two[0] < two[1])
    );
}

#[test]
fn a_cancellation_overtakes_no_submission() {
    let (network, mut engine) = simulated::<Vec<Option<ErrorKind>>>(|_| Answer::ok("a"));
    let (http, submitter) = (engine.local(), engine.submitter());
    fn note(
        told: &mut Vec<Option<ErrorKind>>,
        reply: Reply<'_>,
        _: &mut httpstream::Context<'_, Vec<Option<ErrorKind>>>,
    ) -> Next<Vec<Option<ErrorKind>>> {
        told.push(reply.err().map(|error| error.kind()));
        Next::done()
    }
    // Each way to submit, and a way to cancel for each.
    let ids = [
        submitter.submit(get("/"), note).unwrap(),
        http.start(Next::send(get("/")).read_by(note)),
    ];
    ids.into_iter().for_each(|id| http.cancel(id));
    let ids = [
        http.start(Next::send(get("/")).read_by(note)),
        submitter.submit(get("/"), note).unwrap(),
    ];
    ids.into_iter().for_each(|id| submitter.cancel(id).unwrap());
    let mut told = Vec::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told, [Some(ErrorKind::Cancelled); 4]);
    assert_eq!(network.ledger().requests().len(), 0);
}

#[test]
fn of_an_engine_that_is_gone_each_future_says_so() {
    let (_network, mut engine) = simulated::<()>(|_| Answer::held());
    let http = engine.local();
    let before = (http.fetch(get("/before")), http.sleep(Duration::MAX));
    engine.turn(&mut ()).unwrap();
    drop(engine);
    let gone = |reply: Poll<Result<_, httpstream::Error>>| match reply {
        Poll::Ready(Err(error)) => error.kind() == ErrorKind::Gone,
        _ => false,
    };
    assert!(gone(poll_once(before.0)));
    assert!(poll_once(before.1).is_ready());
    assert!(gone(poll_once(http.fetch(get("/after")))));
    assert!(poll_once(http.sleep(Duration::MAX)).is_ready());
    assert_eq!(poll_once(http.with(|(), _| 1)), Poll::Ready(Err(Gone)));
    // A task spawned now is dropped with everything that it holds.
    let held = Rc::new(());
    let task = Rc::clone(&held);
    http.spawn(async move { drop(task) });
    assert_eq!(Rc::strong_count(&held), 1);
}

#[test]
fn done_and_again_start_nothing() {
    let (_network, mut engine) = simulated::<()>(|_| Answer::ok(""));
    let ids = [engine.start(Next::done()), engine.start(Next::again())];
    assert_eq!(engine.pending(), 0);
    for id in ids {
        assert!(!engine.cancel(id));
    }
    assert!(Next::<()>::done().is_done() && !Next::<()>::again().is_done());
}

#[test]
fn a_chain_begins_with_whatever_can_come_next() {
    static TOLD: AtomicUsize = AtomicUsize::new(0);
    async fn count() {
        TOLD.fetch_add(1, Ordering::Relaxed);
    }
    let (network, mut engine) = simulated::<Vec<&str>>(|_| Answer::ok("a"));
    let second = Duration::from_secs(1);
    let send = engine.send(get("/"));
    engine.start(send.after(2 * second).read_by(|told, reply, cx| {
        assert_eq!(reply.unwrap().body(), b"a");
        told.push("request");
        cx.done()
    }));
    // Its response has no readback.
    engine.start(engine.send(get("/")));
    engine.start(Next::call(move |told: &mut Vec<_>, _| {
        told.push("call");
        Next::task(count()).after(second)
    }));
    engine.start(Next::task(count()).after(second));
    let mut told = Vec::new();
    engine.advance(&mut told, second / 2).unwrap();
    assert_eq!(
        (&told[..], TOLD.load(Ordering::Relaxed)),
        (&["call"][..], 0)
    );
    engine.run(&mut told).unwrap();
    assert_eq!(told, ["call", "request"]);
    assert_eq!(TOLD.load(Ordering::Relaxed), 2);
    assert!(network.elapsed() >= 2 * second);
}

#[test]
fn tasks_run_over_a_state_that_borrows() {
    struct Bot<'n> {
        name: &'n str,
        said: Vec<&'n str>,
    }
    let name = String::from("bot");
    let mut bot = Bot {
        name: &name,
        said: Vec::new(),
    };
    let (_network, mut engine) = simulated::<Bot<'_>>(|_| Answer::ok(""));
    let done = Rc::new(Cell::new(false));
    let task = Rc::clone(&done);
    engine.start(Next::call(move |bot: &mut Bot<'_>, _| {
        bot.said.push(bot.name);
        Next::task(async move { task.set(true) })
    }));
    engine.run(&mut bot).unwrap();
    assert!(done.get());
    assert_eq!(bot.said, ["bot"]);
}

#[test]
fn a_context_knows_the_request_of_its_chain() {
    let (_network, mut engine) = simulated::<Vec<Option<String>>>(|_| Answer::ok(""));
    let path = |request: Option<&Request>| request.map(|r| r.uri().path().to_owned());
    engine.call(move |seen: &mut Vec<_>, cx| {
        seen.push(path(cx.request()));
        cx.send(get("/first")).read_by(move |seen, _, cx| {
            let request = cx.request();
            // The request does not borrow the context.
            cx.submit(get("/other"), move |seen, _, cx| {
                seen.push(path(cx.request()));
                cx.done()
            });
            seen.push(path(request));
            Next::call(move |seen: &mut Vec<_>, cx| {
                seen.push(path(cx.request()));
                cx.done()
            })
        })
    });
    let mut seen = Vec::new();
    engine.run(&mut seen).unwrap();
    seen.sort();
    let seen: Vec<_> = seen.iter().map(Option::as_deref).collect();
    assert_eq!(seen, [None, Some("/first"), Some("/first"), Some("/other")]);
}

#[test]
fn a_context_counts_failures_since_the_last_exchange_that_was_none() {
    let answers = [503, 429, 404, 500, 200];
    let count = Cell::new(0);
    let (network, mut engine) = simulated::<Vec<u32>>(move |_| {
        let n = count.replace(count.get() + 1);
        match answers.get(n) {
            Some(status) => Answer::status(*status),
            None => Answer::nothing(),
        }
    });
    let mut left = 7;
    engine.submit(get("/"), move |seen, _, cx| {
        seen.push(cx.failures());
        left -= 1;
        match left {
            0 => cx.done(),
            _ => cx.again().after(Duration::from_secs(1)),
        }
    });
    let mut seen = Vec::new();
    engine.run(&mut seen).unwrap();
    // The last two get no response, which is an error.
    assert_eq!(seen, [1, 2, 0, 1, 0, 1, 2]);
    assert!(network.misuses().is_empty());
}
