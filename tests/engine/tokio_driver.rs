//! An engine driven by tokio.
#![cfg(feature = "tokio")]

use crate::common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{Log, Server, ok};
use httpstream::session::{Jar, Redirects, Session};
use httpstream::tokio::{Client, Driver};
use httpstream::{Config, Engine, ErrorKind, Info, Next, Request};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Fails if `future` does not complete.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(common::PATIENCE, future)
        .await
        .expect("the future does not complete")
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
            let next = Next::send(server.get(&path)).after(delay).read_by(
                move |log: &mut Log, reply, cx| {
                    assert!(began.elapsed() >= delay, "early");
                    common::note(log, reply, cx)
                },
            );
            driver.engine_mut().start(next);
        }
        let silent = Request::get(server.url("/silent")).timeout(Duration::from_millis(25));
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
fn a_client_on_a_thread_uses_a_session_and_ends_it() {
    let server = Server::start(|peer| {
        while let Some(seen) = peer.request() {
            let cookie = seen.head.contains("Cookie: id=1");
            match &*seen.path {
                "/login" => peer.send(
                    b"HTTP/1.1 303 \r\nLocation: home\r\nSet-Cookie: id=1\r\nContent-Length: 0\r\n\r\n",
                ),
                "/home" if cookie => peer.send(&ok("welcome")),
                "/held" => return drop(peer.hold()),
                _ => peer.send(&ok("who?")),
            };
        }
    });
    current_thread().block_on(in_time(async {
        let client = Client::on_thread(Config::default()).unwrap();
        let session = Session::builder()
            .base(server.url("/"))
            .redirects(Redirects::limited(1))
            .cookies(Jar::new())
            .build()
            .unwrap();
        let login = session.post("login").body("bot").build().unwrap();
        let response = client.fetch(login).await.unwrap();
        assert_eq!(response.body(), b"welcome");
        assert_eq!(response.extensions().get::<Info>().unwrap().hops().len(), 1);
        let held = client.fetch(session.get("held").build().unwrap());
        let end = async {
            // The request is under way once the server has seen it.
            while !server.so_far().iter().any(|seen| seen.path == "/held") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            session.end();
        };
        let (held, ()) = tokio::join!(held, end);
        assert_eq!(held.unwrap_err().kind(), ErrorKind::Cancelled);
        let home = session.get("home").build().unwrap();
        assert_eq!(client.fetch(home).await.unwrap().body(), b"welcome");
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
    // The driver's task ends with the last client.
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
    // The set runs on this thread, and the poll's events come from a worker.
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
            let http = driver.engine().submitter();
            tell.send((http.keep_alive(), http)).unwrap();
            driver.run(&mut Log::default()).await.unwrap();
        });
    });
    runtime.block_on(in_time(async {
        let (_alive, http) = told.await.unwrap();
        let request = server.get("/");
        let tasks = (0..20).map(|_| {
            let page = http.fetch(request.clone());
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
            engine.start(
                engine
                    .send(server.get("/"))
                    .after(delay)
                    .read_by(common::note),
            );
        }
        let mut log = Log::default();
        while driver.engine().pending() > 0 {
            // Polled once or twice, then dropped.
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
        // So that the runtime has had an event, which is handled by then.
        driver
            .engine_mut()
            .submit(server.get("/late"), common::note);
        while driver.engine().stats().in_flight != 50 || log.replies.is_empty() {
            driver.turn(&mut log).await.unwrap();
        }
        // Lets the last events of the setup pass.
        let settle = Duration::from_millis(200);
        let _ = tokio::time::timeout(settle, driver.run(&mut log)).await;
        let before = driver.engine().stats().turns;
        let quiet = tokio::time::timeout(settle, driver.run(&mut log)).await;
        assert!(quiet.is_err(), "the polls are held");
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

/// Returns a future's output, or its panic.
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

// ---- a client on a thread of its own ----

fn is_shared<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}

fn multi_thread() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// Returns how many threads of this process run engines.
#[cfg(target_os = "linux")]
fn engine_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "httpstream").count()
}

#[test]
fn outside_of_a_local_set_an_error_says_what_to_do() {
    let hook = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let panics = std::sync::Arc::clone(&hook);
    let here = std::thread::current().id();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == here {
            panics.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        usual(info);
    }));
    let refused = |why: &str, client: Result<Client, httpstream::Error>| {
        let error = client.expect_err(why);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{why}");
        let text = error.to_string();
        assert!(
            text.contains("LocalSet") && text.contains("on_thread"),
            "{why}: {text}"
        );
    };
    refused("no runtime", Client::new(Config::default()));
    current_thread().block_on(async {
        refused("no set", Client::new(Config::default()));
    });
    multi_thread().block_on(async {
        refused("no set", Client::new(Config::default()));
        let task = tokio::spawn(async { Client::new(Config::default()).map(drop).unwrap_err() });
        assert_eq!(task.await.unwrap().kind(), ErrorKind::InvalidConfig);
    });
    let bare = Builder::new_current_thread().build().unwrap();
    LocalSet::new().block_on(&bare, async {
        refused("no I/O", Client::new(Config::default()));
    });
    // The panic hook belongs to the whole process, and must be unchanged.
    let told = hook.load(std::sync::atomic::Ordering::SeqCst);
    let _ = std::panic::catch_unwind(|| panic!("on purpose"));
    assert_eq!(hook.load(std::sync::atomic::Ordering::SeqCst), told + 1);
}

#[test]
fn a_client_on_a_thread_fetches_from_tasks_of_every_kind() {
    let server = Server::start(|peer| {
        while let Some(seen) = peer.request() {
            peer.send(&ok(&seen.path));
        }
    });
    let client = Client::on_thread(Config::default()).unwrap();
    is_shared(&client);
    for runtime in [current_thread(), multi_thread(), current_thread()] {
        runtime.block_on(in_time(async {
            let mut pages = tokio::task::JoinSet::new();
            for i in 0..50 {
                let request = server.get(&format!("/{i}"));
                pages.spawn(client.fetch(request));
            }
            let mut texts: Vec<_> = pages
                .join_all()
                .await
                .into_iter()
                .map(|page| String::from_utf8(page.unwrap().into_body()).unwrap())
                .collect();
            texts.sort_by_key(|text| text[1..].parse::<u32>().unwrap());
            assert_eq!(texts, Vec::from_iter((0..50).map(|i| format!("/{i}"))));
        }));
    }
    // There may be several, and also one in a set.
    let other = client.clone();
    let second = Client::on_thread(Config::default()).unwrap();
    LocalSet::new().block_on(
        &current_thread(),
        in_time(async {
            let local = Client::new(Config::default()).unwrap();
            for client in [&other, &second, &local] {
                let page = client.fetch(server.get("/a")).await.unwrap();
                assert_eq!(page.body(), b"/a");
                let info = page.extensions().get::<Info>().unwrap();
                assert_eq!((info.peer, info.attempts), (server.addr, 1));
            }
        }),
    );
    // An invalid configuration is reported when the client is created.
    let mut config = Config::default();
    config.max_connections = 0;
    let error = Client::on_thread(config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

#[test]
fn a_fetch_that_is_dropped_is_cancelled_and_the_thread_ends_with_the_last_client() {
    let (tell, told) = std::sync::mpsc::channel();
    let server = Server::start(move |peer| {
        if peer.request().is_some_and(|seen| seen.path == "/held") {
            // Until the peer closes.
            drop(peer.hold());
            tell.send(()).unwrap();
        } else {
            peer.send(&ok("a"));
        }
    });
    let client = Client::on_thread(Config::default()).unwrap();
    let runtime = multi_thread();
    let held = runtime.spawn(client.fetch(server.get("/held")));
    assert_eq!(server.next().path, "/held");
    held.abort();
    told.recv_timeout(common::PATIENCE)
        .expect("the connection is closed");
    // A pending future keeps the thread, like a clone of the client.
    let last = client.fetch(server.get("/last"));
    drop(client);
    assert_eq!(runtime.block_on(in_time(last)).unwrap().body(), b"a");
    // A pending future is dropped, and so canceled, when its runtime is shut down.
    let client = Client::on_thread(Config::default()).unwrap();
    drop(runtime.spawn(client.fetch(server.get("/held"))));
    assert_eq!(server.next().path, "/last");
    assert_eq!(server.next().path, "/held");
    runtime.shutdown_timeout(common::PATIENCE);
    told.recv_timeout(common::PATIENCE)
        .expect("the connection is closed");
    // The client outlives the runtime.
    let page = current_thread().block_on(in_time(client.fetch(server.get("/a"))));
    assert_eq!(page.unwrap().body(), b"a");
}

#[test]
fn a_panic_on_the_clients_thread_is_the_end_of_it_and_nothing_hangs() {
    let server = Server::start(|peer| {
        peer.request();
        drop(peer.hold());
    });
    let mut config = Config::default();
    let forbidden = Server::start(|peer| drop(peer.hold()));
    let port = forbidden.addr.port();
    config.address_filter = Some(std::sync::Arc::new(move |addr| {
        assert_ne!(addr.port(), port, "on purpose");
        true
    }));
    let client = Client::on_thread(config.clone()).unwrap();
    multi_thread().block_on(in_time(async {
        let held = tokio::spawn(client.fetch(server.get("/held")));
        server.next();
        let request = forbidden.get("/secret");
        let error = client.fetch(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gone);
        assert_eq!(error.request().unwrap().uri().path(), "/secret");
        assert!(!format!("{error} {error:#} {error:?}").contains("secret"));
        let error = held.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gone);
        assert_eq!(error.request_sent(), httpstream::Sent::Maybe);
        // From now on requests are refused.
        let error = client.fetch(server.get("/")).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.request_sent()),
            (ErrorKind::Gone, httpstream::Sent::No)
        );
    }));
    config.resolver = Some(std::sync::Arc::new(|| panic!("on purpose")));
    let error = Client::on_thread(config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gone);
}

/// This would be better in a file of its own; here it waits for the clients of other tests.
#[cfg(target_os = "linux")]
#[test]
fn no_thread_is_left_behind() {
    let before = Client::on_thread(Config::default()).unwrap();
    assert!(engine_threads() >= 1);
    drop(before);
    let end = Instant::now() + common::PATIENCE;
    while engine_threads() > 0 {
        assert!(
            Instant::now() < end,
            "{} threads are left",
            engine_threads()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
