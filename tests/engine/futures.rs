//! Conversations as futures: polled by the engine's own turns, and by executors that are unaware of
//! it.

use crate::common;

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use common::{Bench, Log, Server, ok};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    Config, Engine, Error, ErrorKind, Gone, Info, Next, Request, ResponseExt, Sent, Sim,
    SubmitError, Submitter,
};

/// Records something in the log, from a task.
async fn say(http: &Submitter<Log>, what: impl Into<String>) {
    let what = what.into();
    let noted = http.with(|log: &mut Log| log.notes.push(what)).await;
    noted.expect("the engine still exists");
}

fn text(response: &httpstream::http::Response<Vec<u8>>) -> String {
    String::from_utf8_lossy(response.body()).into_owned()
}

/// Wakes a parked thread.
struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A minimal executor.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    let end = Instant::now() + common::PATIENCE;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        assert!(Instant::now() < end, "the future never completes");
        std::thread::park_timeout(common::PATIENCE);
    }
}

#[test]
fn a_login_reads_from_top_to_bottom() {
    let server = Server::start(|peer| {
        while let Some(seen) = peer.request() {
            peer.send(&ok(&format!("token of {}", seen.path)));
        }
    });
    let mut bench = Bench::new();
    let http = bench.engine.submitter();
    let get = move |path: &str| server.get(path);
    bench.engine.spawn(async move {
        let page = http.fetch(get("/login")).await.unwrap();
        http.sleep(Duration::from_millis(5)).await;
        let next = text(&page).replace(' ', "-");
        let list = http.fetch(get(&format!("/{next}"))).await.unwrap();
        say(&http, text(&list)).await;
    });
    assert_eq!(bench.engine.pending(), 1, "a task is a chain");
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(bench.log.notes, ["token of /token-of-/login"]);
    assert_eq!(bench.stats().answered, 2);
    assert_eq!(bench.stats().opened, 1, "both use one connection");
    bench.assert_empty();
}

#[test]
fn a_task_takes_no_wakeup_and_no_more_system_calls_than_a_chain_of_readbacks() {
    const REQUESTS: u64 = 50;
    let network = Network::new(1);
    network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
        Answer::ok("a")
    });
    let request = Request::get("http://10.0.0.1/").build().unwrap();
    let mut engine = Engine::<(), Sim>::on_network(&network, Config::default()).unwrap();
    // Neither count includes the cost of connecting.
    engine.submit(request.clone(), |(), _, cx| cx.done());
    engine.run(&mut ()).unwrap();

    let before = network.system_calls();
    let mut left = REQUESTS;
    engine.submit(request.clone(), move |(), reply, cx| {
        assert!(reply.is_ok());
        left -= 1;
        if left > 0 { Next::again() } else { cx.done() }
    });
    engine.run(&mut ()).unwrap();
    let by_readback = network.system_calls() - before;

    let (before, stats) = (network.system_calls(), engine.stats());
    let http = engine.submitter();
    engine.spawn(async move {
        for _ in 0..REQUESTS {
            assert!(http.fetch(request.clone()).await.is_ok());
        }
    });
    engine.run(&mut ()).unwrap();
    let after = engine.stats();
    assert_eq!(after.answered - stats.answered, REQUESTS);
    assert_eq!(after.wakeups - stats.wakeups, 0);
    let by_task = network.system_calls() - before;
    assert!(by_task <= by_readback, "{by_task}, and {by_readback}");
}

#[test]
fn futures_are_polled_by_any_executor_while_another_thread_turns() {
    let server = Server::answering(ok("abc"));
    let (tell, told) = std::sync::mpsc::channel();
    let engine = std::thread::spawn(move || {
        let mut engine = Engine::<u32>::new().unwrap();
        let http = engine.submitter();
        tell.send((http.keep_alive(), http)).unwrap();
        let mut state = 40;
        engine.run(&mut state).unwrap();
        state
    });
    let (alive, http) = told.recv().unwrap();
    let page = block_on(async {
        let page = http.fetch(server.get("/")).await?;
        http.sleep(Duration::from_millis(3)).await;
        let sum = http.with(|state| {
            *state += 2;
            *state
        });
        assert_eq!(sum.await, Ok(42));
        Ok::<_, Error>(page)
    });
    assert_eq!(text(&page.unwrap()), "abc");
    drop(alive);
    assert_eq!(engine.join().unwrap(), 42);
}

#[test]
fn a_fetched_response_is_there_whenever_it_is_asked_for() {
    let server = Server::answering(ok("abc"));
    let mut bench = Bench::new();
    let early = bench.engine.fetch(server.get("/"));
    let refused = Request::get("http://127.0.0.1:1/").build().unwrap();
    let refused = bench.engine.fetch(refused);
    // A future alone does not keep the engine running.
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(text(&block_on(early).unwrap()), "abc");
    assert_eq!(block_on(refused).unwrap_err().kind(), ErrorKind::Connect);
    bench.assert_empty();
}

#[test]
fn what_is_dropped_is_cancelled() {
    let server = Server::start(|peer| drop(peer.hold()));
    let mut bench = Bench::new();
    let held = bench.engine.fetch(server.get("/"));
    let http = bench.engine.submitter();
    let also_held = http.fetch(server.get("/"));
    let long = http.sleep(Duration::from_secs(3600));
    bench.until("all are there", |engine, _| engine.pending() == 3);
    bench.until("they are sent", |engine, _| engine.stats().in_flight == 2);
    drop((held, also_held, long, http));
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(bench.stats().failed, 2, "a canceled sleep is not a failure");
    bench.assert_empty();
}

#[test]
fn a_cancelled_task_is_dropped_and_with_it_what_it_awaits() {
    let server = Server::start(|peer| drop(peer.hold()));
    let mut bench = Bench::new();
    let http = bench.engine.submitter();
    let witness = Rc::new(());
    let held = Rc::clone(&witness);
    let request = server.get("/");
    let task = bench.engine.spawn(async move {
        let _held = held;
        let _ = http.fetch(request).await;
        unreachable!("the server never answers");
    });
    bench.until("it is sent", |engine, _| engine.stats().in_flight == 1);
    assert!(bench.engine.cancel(task));
    assert!(!bench.engine.cancel(task), "once");
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(Rc::strong_count(&witness), 1);
    assert_eq!(bench.stats().failed, 1, "the request");
    bench.assert_empty();
}

#[test]
fn of_an_engine_that_is_gone_the_futures_say_so() {
    let server = Server::start(|peer| drop(peer.hold()));
    let mut bench = Bench::new();
    let http = bench.engine.submitter();
    let before = bench.engine.fetch(server.get("/"));
    let asked = http.with(|log: &mut Log| log.notes.len());
    let slept = http.sleep(Duration::MAX);
    let kept = Rc::new(RefCell::new(None));
    let (submitter, left) = (http.clone(), Rc::clone(&kept));
    bench.engine.spawn(async move {
        // A future that nothing awaits any more when the task is dropped.
        *left.borrow_mut() = Some(submitter.sleep(Duration::MAX));
        std::future::pending().await
    });
    bench.until("it is sent", |engine, _| engine.stats().in_flight == 1);
    bench.until("it sleeps", |_, _| kept.borrow().is_some());
    drop(bench);
    assert_eq!(block_on(before).unwrap_err().kind(), ErrorKind::Gone);
    block_on(slept);
    block_on(kept.take().unwrap());
    // It completed before the engine was dropped.
    assert_eq!(block_on(asked), Ok(0));
    let after = http.fetch(server.get("/"));
    assert_eq!(block_on(after).unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(block_on(http.with(|_| ())), Err(Gone));
    block_on(http.sleep(Duration::MAX));
    assert!(matches!(http.spawn(|| async {}), Err(SubmitError::Gone(_))));
}

#[test]
fn a_panic_in_a_task_is_the_hosts_and_the_others_go_on() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    let http = bench.engine.submitter();
    let request = server.get("/");
    bench.engine.spawn(async { panic!("in a task") });
    bench.engine.spawn(async move {
        let page = http.fetch(request).await.unwrap();
        say(&http, text(&page)).await;
    });
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        bench.engine.run(&mut bench.log)
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"in a task"));
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(bench.log.notes, ["a"]);
    bench.assert_empty();
}

#[test]
fn tasks_start_tasks_and_wake_each_other() {
    let mut bench = Bench::new();
    let http = bench.engine.submitter();
    // A hand-made channel of one value. Its waker wakes a task.
    let cell: Rc<RefCell<(Option<u32>, Option<Waker>)>> = Rc::default();
    let (give, take) = (Rc::clone(&cell), cell);
    let giver = http.clone();
    bench.engine.spawn(async move {
        giver.sleep(Duration::from_millis(2)).await;
        let waker = {
            let mut cell = give.borrow_mut();
            cell.0 = Some(7);
            cell.1.take()
        };
        waker.expect("the other task waits").wake();
    });
    bench.engine.spawn(async move {
        let taken = std::future::poll_fn(|cx| {
            let mut cell = take.borrow_mut();
            cell.1 = Some(cx.waker().clone());
            cell.0.map_or(Poll::Pending, Poll::Ready)
        });
        let taken = taken.await;
        let inner = http.clone();
        let started = http.spawn(move || async move {
            // Not `Send`, and created on the engine's thread.
            let taken = Rc::new(taken);
            say(&inner, format!("got {taken}")).await;
        });
        assert!(started.is_ok());
    });
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(bench.log.notes, ["got 7"]);
}

#[test]
fn a_task_that_wakes_itself_lets_the_loop_go_on() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    let spinning = bench.engine.spawn(std::future::poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    }));
    bench.fetch_ok(server.get("/"));
    bench.engine.cancel(spinning);
    bench.engine.run(&mut bench.log).unwrap();
}

#[test]
fn what_a_slow_task_asks_for_is_not_early() {
    let mut bench = Bench::new();
    let http = bench.engine.submitter();
    bench.engine.spawn(async move {
        // A task should not block, but a delay that it sets afterwards must still be full.
        std::thread::sleep(Duration::from_millis(20));
        let began = Instant::now();
        http.sleep(Duration::from_millis(10)).await;
        assert!(began.elapsed() >= Duration::from_millis(10));
    });
    bench.engine.run(&mut bench.log).unwrap();
}

#[test]
fn tasks_run_in_simulated_time() {
    let network = Network::new(1);
    let addr = "192.0.2.1:80".parse().unwrap();
    network.serve(addr, |_: &Incoming| Answer::ok("a"));
    let mut engine = Engine::<u32, Sim>::on_network(&network, Config::default()).unwrap();
    let http = engine.submitter();
    engine.spawn(async move {
        for _ in 0..24 {
            let page = Request::get("http://192.0.2.1/").build().unwrap();
            let page = http.fetch(page).await.unwrap();
            assert_eq!(text(&page), "a");
            http.sleep(Duration::from_secs(3600)).await;
            http.with(|hours| *hours += 1).await.unwrap();
        }
    });
    let (mut hours, began) = (0, network.now());
    engine.run(&mut hours).unwrap();
    assert_eq!(hours, 24);
    let day = network.now() - began;
    assert!(
        day >= Duration::from_secs(86_400) && day < Duration::from_secs(86_401),
        "{day:?}"
    );
}

/// The futures of a `Submitter` may be awaited in tasks of any runtime, on any thread.
#[test]
fn futures_of_a_submitter_are_send() {
    fn is_send<T: Send>(_: &T) {}
    let mut engine = Engine::<Rc<()>>::new().unwrap();
    let http = engine.submitter();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    is_send(&http.fetch(request.clone()));
    is_send(&http.sleep(Duration::ZERO));
    is_send(&http.with(|_| 1));
    is_send(&engine.fetch(request));
}

// ---- details of the exchange ----

#[test]
fn a_response_has_its_info_among_its_extensions() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    let http = bench.engine.submitter();
    let fetched = bench.engine.fetch(server.get("/"));
    let sent = http.fetch(server.get("/second"));
    drop(http);
    bench.engine.run(&mut bench.log).unwrap();
    for (page, path) in [(block_on(fetched), "/"), (block_on(sent), "/second")] {
        let page = page.unwrap();
        let info: Info = page.extensions().get::<Info>().unwrap().clone();
        assert_eq!((info.peer, info.attempts), (server.addr, 1), "{path}");
        assert_eq!(info.url().path(), path);
        assert!(
            info.timings.sent.is_some() && info.timings.done.is_some(),
            "{path}"
        );
        assert!(!format!("{info:?}").contains("second"));
    }
}

#[test]
fn a_delay_until_a_date_counts_from_the_simulated_time() {
    // The network begins on 2013-01-01, and the answer takes ten seconds.
    let network = Network::new(1);
    network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
        Answer::status(503)
            .header("Retry-After", "Tue, 01 Jan 2013 00:00:30 GMT")
            .after(Duration::from_secs(10))
    });
    let mut engine = Engine::<Vec<Duration>, Sim>::on_network(&network, Config::default()).unwrap();
    let request = Request::get("http://10.0.0.1/").build().unwrap();
    engine.submit(request.clone(), |delays, reply, _| {
        delays.extend(reply.unwrap().retry_after());
        Next::done()
    });
    let page = engine.fetch(request);
    let mut delays = Vec::new();
    engine.run(&mut delays).unwrap();
    delays.extend(block_on(page).unwrap().retry_after());
    // The last event was the arrival.
    let rest = Duration::from_secs(30) - network.elapsed();
    assert_eq!(delays, [rest; 2]);
    assert_eq!(rest.as_secs_f32().round(), 20.0);
}

#[test]
fn of_an_engine_that_is_gone_the_error_has_the_request() {
    let server = Server::start(|peer| drop(peer.hold()));
    let mut bench = Bench::new();
    let http = bench.engine.submitter();
    let post = |path: &str| server.post(path, "a");
    let under_way = bench.engine.fetch(post("/fetched"));
    let sent = http.fetch(post("/sent"));
    bench.until("they are sent", |engine, _| engine.stats().in_flight == 2);
    drop(bench);
    let rows = [
        (block_on(under_way), "/fetched", Sent::Maybe),
        (block_on(sent), "/sent", Sent::Maybe),
        (block_on(http.fetch(post("/late"))), "/late", Sent::No),
    ];
    for (fetched, path, sent) in rows {
        let error = fetched.unwrap_err();
        assert_eq!(
            (error.kind(), error.request_sent()),
            (ErrorKind::Gone, sent)
        );
        assert_eq!(
            error.resend_is_safe(),
            sent == Sent::No,
            "a POST is safe only if it was not sent"
        );
        assert_eq!(error.request().unwrap().uri().path(), path);
        assert!(!format!("{error} {error:#} {error:?}").contains(path));
    }
}

// ---- futures wait for a place in the inbox ----

/// Counts its wake-ups.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Woken {
    fn times(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

type Boxed<T> = std::pin::Pin<Box<dyn Future<Output = T>>>;

fn poll<T>(future: &mut Boxed<T>, woken: &Arc<Woken>) -> Poll<T> {
    let waker = Waker::from(Arc::clone(woken));
    future.as_mut().poll(&mut Context::from_waker(&waker))
}

#[test]
fn futures_wait_for_room_first_come_first_served() {
    let mut config = Config::default();
    config.max_inbox = 2;
    let mut engine = Engine::<Vec<usize>>::with_config(config).unwrap();
    let http = engine.submitter();
    let mut futures: Vec<(Boxed<_>, Arc<Woken>)> = (0..10)
        .map(|n| {
            let noted = http.with(move |noted: &mut Vec<usize>| noted.push(n));
            (Box::pin(noted) as Boxed<_>, Arc::default())
        })
        .collect();
    for (future, woken) in &mut futures {
        assert!(poll(future, woken).is_pending());
    }
    assert!(http.call(|_, cx| cx.done()).unwrap_err().is_full());
    let mut noted = Vec::new();
    // Two at a time. A woken future must be polled to take its place.
    for round in 1..=5 {
        engine.turn(&mut noted, Some(Duration::ZERO)).unwrap();
        assert_eq!(noted, Vec::from_iter(0..2 * round));
        let called = futures
            .iter()
            .filter(|(_, woken)| woken.times() > 0)
            .count();
        assert_eq!(
            called,
            (2 * round + 2).min(10),
            "only as many as there are places"
        );
        for (n, (future, woken)) in futures.iter_mut().enumerate().take(2 * round + 2) {
            match n < 2 * round {
                true if n >= 2 * round - 2 => assert_eq!(poll(future, woken), Poll::Ready(Ok(()))),
                true => {}
                false => assert!(poll(future, woken).is_pending()),
            }
        }
    }
}

#[test]
fn a_future_that_goes_before_it_was_admitted_leaves_its_room_to_the_next() {
    let mut config = Config::default();
    config.max_inbox = 1;
    let mut engine = Engine::<Vec<usize>>::with_config(config).unwrap();
    let http = engine.submitter();
    let mut futures: Vec<(Boxed<_>, Arc<Woken>)> = (0..4)
        .map(|n| {
            let noted = http.with(move |noted: &mut Vec<usize>| noted.push(n));
            (Box::pin(noted) as Boxed<_>, Arc::default())
        })
        .collect();
    for (future, woken) in &mut futures {
        assert!(poll(future, woken).is_pending());
    }
    let (mut last, woken_last) = futures.pop().unwrap();
    let (called, woken_called) = futures.remove(1);
    let (waiting, woken_waiting) = futures.remove(1);
    // This future has not been woken yet, so it holds no place.
    drop(waiting);
    let mut noted = Vec::new();
    engine.turn(&mut noted, Some(Duration::ZERO)).unwrap();
    assert_eq!((woken_called.times(), woken_waiting.times()), (1, 0));
    assert_eq!(woken_last.times(), 0);
    // This future was woken and dropped, so the next one is woken in its place.
    drop(called);
    assert_eq!(woken_last.times(), 1);
    assert!(poll(&mut last, &woken_last).is_pending());
    engine.turn(&mut noted, Some(Duration::ZERO)).unwrap();
    assert_eq!(noted, [0, 3]);
    assert_eq!(poll(&mut last, &woken_last), Poll::Ready(Ok(())));
    assert_eq!(engine.pending(), 0);
}

#[test]
fn who_waits_for_room_is_told_when_the_engine_goes() {
    let mut config = Config::default();
    config.max_inbox = 1;
    let engine = Engine::<()>::with_config(config).unwrap();
    let http = engine.submitter();
    let _first = http.sleep(Duration::ZERO);
    let request = Request::post("http://127.0.0.1:1/").build().unwrap();
    let mut late: Boxed<_> = Box::pin(http.fetch(request));
    let woken = Arc::default();
    assert!(poll(&mut late, &woken).is_pending());
    drop(engine);
    assert_eq!(woken.times(), 1);
    let Poll::Ready(Err(error)) = poll(&mut late, &woken) else {
        panic!("the future is still pending");
    };
    assert_eq!(
        (error.kind(), error.request_sent()),
        (ErrorKind::Gone, Sent::No)
    );
}

#[test]
fn run_waits_for_who_waits_for_room() {
    let server = Server::answering(ok("abc"));
    let mut config = Config::default();
    config.max_inbox = 1;
    let mut engine = Engine::<u32>::with_config(config).unwrap();
    let http = engine.submitter();
    // This call takes the only place, and ends as soon as the engine turns.
    http.call(|calls, cx| {
        *calls += 1;
        cx.done()
    })
    .unwrap();
    let (is_waiting, waits) = std::sync::mpsc::channel();
    let request = server.get("/");
    let thread = std::thread::spawn(move || {
        let mut page: Boxed<_> = Box::pin(http.fetch(request));
        assert!(poll(&mut page, &Arc::default()).is_pending());
        is_waiting.send(()).unwrap();
        // Its executor polls it long after a place has become free.
        std::thread::sleep(Duration::from_millis(100));
        block_on(page).map(|page| text(&page))
    });
    waits.recv().unwrap();
    let mut calls = 0;
    engine.run(&mut calls).unwrap();
    assert_eq!((calls, engine.stats().answered), (1, 1));
    assert_eq!(thread.join().unwrap().unwrap(), "abc");
}

#[test]
fn a_crowd_of_futures_goes_through_a_small_inbox() {
    let server = Server::answering(ok("abc"));
    let mut config = Config::default();
    config.max_inbox = 3;
    let mut engine = Engine::<u32>::with_config(config).unwrap();
    let http = engine.submitter();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (http, request) = (http.clone(), server.get("/"));
            let alive = http.keep_alive();
            std::thread::spawn(move || {
                let _alive = alive;
                // All of them wait at once, and are polled whenever one is woken.
                let mut pages: Vec<_> = (0..50)
                    .map(|_| Some(Box::pin(http.fetch(request.clone()))))
                    .collect();
                block_on(std::future::poll_fn(move |cx| {
                    for slot in &mut pages {
                        if let Some(page) = slot
                            && let Poll::Ready(page) = page.as_mut().poll(cx)
                        {
                            assert_eq!(text(&page.unwrap()), "abc");
                            *slot = None;
                        }
                    }
                    match pages.iter().all(Option::is_none) {
                        true => Poll::Ready(()),
                        false => Poll::Pending,
                    }
                }));
            })
        })
        .collect();
    engine.run(&mut 0).unwrap();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(engine.stats().answered, 200);
}
