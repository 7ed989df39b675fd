//! An engine driven by tokio.
#![cfg(feature = "tokio")]

use crate::common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{Log, Server, ok};
use httpstream::tokio::{Client, Driver};
use httpstream::{Config, Engine, ErrorKind, Next, Request};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Whatever hangs is an error.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(common::PATIENCE, future)
        .await
        .expect("in time")
}

fn driver() -> Driver<Log> {
    Driver::new(Engine::new().unwrap()).unwrap()
}

#[test]
fn readbacks_delays_and_deadlines_run_on_tokio() {
    let server = Server::start(|peer| {
        while let Some(seen) = peer.request() {
            if seen.path == "/silent" {
                return drop(peer.hold());
            }
            peer.send(&ok(&seen.path));
        }
    });
    current_thread().block_on(in_time(async {
        let mut driver = driver();
        for ms in [30, 20, 10, 5, 1] {
            let path = format!("/{ms}");
            let delay = Duration::from_millis(ms);
            let began = Instant::now();
            driver.engine_mut().submit_after(
                delay,
                server.get(&path),
                move |log: &mut Log, reply, cx| {
                    assert!(began.elapsed() >= delay, "early");
                    common::note(log, reply, cx)
                },
            );
        }
        let silent = Request::get(&server.url("/silent")).timeout(Duration::from_millis(25));
        let silent = silent.build().unwrap();
        driver.engine_mut().submit(silent, common::note);
        let mut log = Log::default();
        driver.run(&mut log).await.unwrap();
        let mut texts = log.texts();
        texts.sort();
        assert_eq!(texts, ["/1", "/10", "/20", "/30", "/5", "Timeout"]);
        assert_eq!(driver.engine().pending(), 0);
        assert!(driver.into_engine().stats().turns > 0);
    }));
}

#[test]
fn a_client_fetches_in_a_local_set() {
    let server = Server::start(|peer| {
        while let Some(seen) = peer.request() {
            peer.send(&ok(&seen.path));
        }
    });
    let local = LocalSet::new();
    local.block_on(
        &current_thread(),
        in_time(async {
            let client = Client::new(Config::default()).unwrap();
            let fetches = (0..100).map(|i| {
                let (client, request) = (client.clone(), server.get(&format!("/{i}")));
                tokio::task::spawn_local(async move {
                    let page = client.fetch(request).await.unwrap();
                    assert_eq!(page.body(), format!("/{i}").as_bytes());
                })
            });
            for fetch in fetches.collect::<Vec<_>>() {
                fetch.await.unwrap();
            }
            let refused = Request::get("http://127.0.0.1:1/").build().unwrap();
            let refused = client.fetch(refused).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Connect);
        }),
    );
    // The task of its driver ends with the last client.
    current_thread().block_on(in_time(local));
}

#[test]
fn a_runtime_whose_events_come_from_other_threads_loses_none() {
    let server = Server::answering(ok("a"));
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    // The set runs on this thread, what the poll tells comes from a worker.
    LocalSet::new().block_on(
        &runtime,
        in_time(async {
            let client = Client::new(Config::default()).unwrap();
            for _ in 0..300 {
                let page = client.fetch(server.get("/")).await.unwrap();
                assert_eq!(page.body(), b"a");
            }
        }),
    );
}

#[test]
fn futures_of_a_submitter_are_awaited_in_any_task() {
    let server = Server::answering(ok("abc"));
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    let engine = std::thread::spawn(move || {
        current_thread().block_on(async move {
            let mut driver = driver();
            tell.send(driver.engine().submitter()).unwrap();
            driver.run(&mut Log::default()).await.unwrap();
        });
    });
    runtime.block_on(in_time(async {
        let http = told.await.unwrap();
        let request = server.get("/");
        let tasks = (0..20).map(|_| {
            let page = http.send(request.clone());
            tokio::spawn(async move { page.await.unwrap().into_body() })
        });
        for task in tasks.collect::<Vec<_>>() {
            assert_eq!(task.await.unwrap(), b"abc");
        }
    }));
    engine.join().unwrap();
}

#[test]
fn a_turn_that_is_given_up_loses_nothing() {
    let server = Server::start(|peer| while peer.answer(&ok(&"x".repeat(50_000))) {});
    current_thread().block_on(in_time(async {
        let mut driver = driver();
        for i in 0..50 {
            let delay = Duration::from_micros(i * 700);
            let engine = driver.engine_mut();
            engine.submit_after(delay, server.get("/"), common::note);
        }
        let mut log = Log::default();
        while driver.engine().pending() > 0 {
            // Polled once or twice, and dropped.
            tokio::select! {
                biased;
                turn = driver.turn(&mut log) => drop(turn.unwrap()),
                () = tokio::task::yield_now() => {}
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(log.texts().len(), 50);
    }));
}

#[test]
fn an_engine_that_is_always_due_leaves_something_to_other_tasks() {
    fn spin(_: &mut Log, _: &mut httpstream::Context<'_, Log>) -> Next<Log> {
        Next::call(spin)
    }
    let local = LocalSet::new();
    local.block_on(
        &current_thread(),
        in_time(async {
            let mut driver = driver();
            driver.engine_mut().call(spin);
            let task = tokio::task::spawn_local(async move {
                driver.run(&mut Log::default()).await.unwrap();
            });
            let ticks = Rc::new(Cell::new(0));
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                ticks.set(ticks.get() + 1);
            }
            assert_eq!(ticks.get(), 5);
            task.abort();
        }),
    );
}

#[test]
fn an_engine_with_held_polls_lets_the_runtime_sleep() {
    let server = Server::start(|peer| {
        if peer.request().is_some_and(|seen| seen.path == "/late") {
            std::thread::sleep(Duration::from_millis(50));
            peer.send(&ok("a"));
        }
        drop(peer.hold());
    });
    current_thread().block_on(in_time(async {
        let mut driver = driver();
        let mut log = Log::default();
        for _ in 0..50 {
            driver.engine_mut().submit(server.get("/"), common::note);
        }
        // So that the runtime has told of something, which is over by then.
        driver
            .engine_mut()
            .submit(server.get("/late"), common::note);
        while driver.engine().stats().in_flight != 50 || log.replies.is_empty() {
            driver.turn(&mut log).await.unwrap();
        }
        // What is left of the beginning.
        let settle = Duration::from_millis(200);
        let _ = tokio::time::timeout(settle, driver.run(&mut log)).await;
        let before = driver.engine().stats().turns;
        let quiet = tokio::time::timeout(settle, driver.run(&mut log)).await;
        assert!(quiet.is_err(), "they are held");
        assert_eq!(driver.engine().stats().turns, before);
    }));
}

#[test]
fn a_budget_of_one_event_loses_nothing() {
    let server = Server::start(|peer| {
        while peer.request().is_some() {
            std::thread::sleep(Duration::from_millis(2));
            peer.send(&ok(&"x".repeat(30_000)));
        }
    });
    let mut config = Config::default();
    config.turn_events = 1;
    config.max_connections_per_origin = 50;
    current_thread().block_on(in_time(async {
        let mut driver = Driver::new(Engine::with_config(config).unwrap()).unwrap();
        for _ in 0..50 {
            driver.engine_mut().submit(server.get("/"), common::note);
        }
        let mut log = Log::default();
        driver.run(&mut log).await.unwrap();
        assert!(log.texts().iter().all(|text| text.len() == 30_000));
        assert_eq!(log.replies.len(), 50);
    }));
}

#[test]
fn a_panic_is_the_tasks_and_the_driver_goes_on() {
    let server = Server::answering(ok("a"));
    current_thread().block_on(in_time(async {
        let mut driver = driver();
        let engine = driver.engine_mut();
        engine.submit(server.get("/"), |_, _, _| panic!("in a readback"));
        engine.submit(server.get("/"), common::note);
        let mut log = Log::default();
        let mut panics = 0;
        while driver.engine().pending() > 0 {
            let turn = catch(driver.turn(&mut log)).await;
            panics += usize::from(turn.is_err());
        }
        assert_eq!(panics, 1);
        assert_eq!(log.texts(), ["a"]);
    }));
}

/// What a future comes to, or its panic.
async fn catch<T>(future: impl Future<Output = T>) -> std::thread::Result<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        let poll = std::panic::AssertUnwindSafe(|| future.as_mut().poll(cx));
        match std::panic::catch_unwind(poll) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        }
    })
    .await
}
