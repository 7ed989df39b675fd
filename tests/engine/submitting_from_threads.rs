//! Submitters reach an engine from other threads and wake it; guards keep `run` going.

use crate::common;

use std::time::Duration;

use common::{Gate, Log, Server, ok};
use httpstream::{Config, Context, Engine, Error, ErrorKind, Flow, Reply, SubmitError, Unread};

#[test]
fn run_goes_on_until_the_last_guard_has_gone() {
    let server = Server::answering(ok("a"));
    let mut engine = Engine::<Log>::new().unwrap();
    let mut log = Log::default();
    let submitter = engine.submitter();
    let alive = submitter.keep_alive();
    let request = server.get("/");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (submitter, request) = (submitter.clone(), request.clone());
            let alive = alive.clone();
            std::thread::spawn(move || {
                let _alive = alive;
                let mut ids = Vec::new();
                for _ in 0..50 {
                    ids.push(submitter.submit(request.clone(), common::note).unwrap());
                }
                ids
            })
        })
        .collect();
    drop(alive);
    engine.run(&mut log).unwrap();
    let mut ids: Vec<_> = threads
        .into_iter()
        .flat_map(|t| t.join().unwrap())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), log.replies.len()), (200, 200));
    assert!(log.replies.iter().all(Result::is_ok));
    // A submitter without a guard does not keep the engine running, but its submissions are not
    // lost.
    submitter.submit(server.get("/"), common::note).unwrap();
    engine.run(&mut log).unwrap();
    engine.run(&mut log).unwrap();
    assert_eq!(log.replies.len(), 201);
}

#[test]
fn a_run_that_waits_for_a_guard_alone_ends_with_it() {
    let mut engine = Engine::<Log>::new().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let alive = engine.submitter().keep_alive();
    let thread = std::thread::spawn(move || {
        // The engine is asleep by then, or is about to be.
        told.recv().unwrap();
        drop(alive);
    });
    engine.call(move |_, cx| {
        tell.send(()).unwrap();
        cx.done()
    });
    engine.run(&mut Log::default()).unwrap();
    thread.join().unwrap();
    // The guard that was dropped on the thread may have woken the engine after its run.
    engine
        .turn(&mut Log::default(), Some(Duration::ZERO))
        .unwrap();
    // A guard that is dropped inside of a turn causes no wake-up.
    let mut alive = Some(engine.submitter().keep_alive());
    engine.call(move |_, cx| {
        alive.take();
        cx.done()
    });
    let before = engine.stats().wakeups;
    engine.run(&mut Log::default()).unwrap();
    assert_eq!(engine.next_timeout(), None, "no turn is due for it");
    engine
        .turn(&mut Log::default(), Some(Duration::ZERO))
        .unwrap();
    assert_eq!(engine.stats().wakeups, before);
}

#[test]
fn a_waiting_turn_is_woken() {
    let server = Server::answering(ok("a"));
    let mut engine = Engine::<Log>::new().unwrap();
    let mut log = Log::default();
    let submitter = engine.submitter();
    let (request, gate) = (server.get("/"), Gate::new());
    let at = gate.clone();
    let thread = std::thread::spawn(move || {
        for _ in 0..20 {
            at.pass();
            submitter.submit(request.clone(), common::note).unwrap();
        }
        submitter
    });
    for i in 0..20 {
        gate.open(1);
        while log.replies.len() <= i {
            // Without a wake-up this would wait forever.
            engine.turn(&mut log, None).unwrap();
        }
    }
    drop(thread.join().unwrap());
    assert!(engine.stats().wakeups >= 20);
}

#[test]
fn cancel_and_stop() {
    let server = Server::start(|peer| {
        peer.request();
        peer.hold();
    });
    let mut engine = Engine::<Log>::new().unwrap();
    let mut log = Log::default();
    let submitter = engine.submitter();
    let alive = submitter.keep_alive();
    let request = server.get("/");
    let thread = std::thread::spawn(move || {
        let held = submitter.submit(request.clone(), common::note).unwrap();
        let delayed = submitter
            .submit_after(Duration::from_secs(100), request.clone(), common::note)
            .unwrap();
        let other = submitter.submit(request, common::note).unwrap();
        assert_eq!(server.next().path, "/");
        submitter.cancel(held).unwrap();
        submitter.cancel(held).unwrap();
        submitter.cancel(delayed).unwrap();
        submitter.stop().unwrap();
        (alive, server, other)
    });
    engine.run(&mut log).unwrap();
    let (alive, _server, other) = thread.join().unwrap();
    while log.replies.len() < 2 {
        engine
            .turn(&mut log, Some(Duration::from_millis(10)))
            .unwrap();
    }
    assert_eq!(log.kinds(), [ErrorKind::Cancelled; 2]);
    assert_eq!(engine.pending(), 1);
    assert!(engine.cancel(other), "its ids are valid on the engine, too");
    drop(alive);
    engine.run(&mut log).unwrap();
    assert_eq!(log.kinds(), [ErrorKind::Cancelled; 3]);
}

#[test]
fn a_readback_may_stop_run() {
    let server = Server::answering(ok("a"));
    let mut engine = Engine::<Log>::new().unwrap();
    let mut log = Log::default();
    engine.submit(server.get("/"), |log: &mut Log, reply: Reply<'_>, cx| {
        let _ = common::note(log, reply, cx);
        if log.replies.len() == 3 {
            cx.stop();
        }
        cx.again()
    });
    engine.run(&mut log).unwrap();
    assert_eq!((log.replies.len(), engine.pending()), (3, 1));
}

#[test]
fn after_the_engine_everything_is_gone() {
    let server = Server::answering(ok("a"));
    let engine = Engine::<Log>::new().unwrap();
    let submitter = engine.submitter();
    let id = submitter.submit(server.get("/"), common::note).unwrap();
    drop(engine);
    assert!(submitter.submit(server.get("/"), common::note).is_err());
    assert!(
        submitter
            .submit_to(server.get("/"), httpstream::Unread)
            .is_err()
    );
    assert!(
        submitter
            .submit_after(Duration::ZERO, server.get("/"), common::note)
            .is_err()
    );
    assert!(
        submitter.cancel(id).is_err() && submitter.resume(id).is_err() && submitter.stop().is_err()
    );
    let error = httpstream::Error::from(submitter.clone().stop().unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Gone);
}

#[test]
fn resuming_from_another_thread_wakes_the_engine() {
    let server = Server::answering(ok("abc"));
    let mut engine = Engine::<Log>::new().unwrap();
    let mut log = Log::default();
    let script = common::Script {
        head: Flow::Pause,
        ..common::Script::default()
    };
    let id = engine.submit_to(server.get("/"), script);
    while engine.stats().paused == 0 {
        engine
            .turn(&mut log, Some(Duration::from_millis(10)))
            .unwrap();
    }
    let submitter = engine.submitter();
    let thread = std::thread::spawn(move || submitter.resume(id).unwrap());
    engine.run(&mut log).unwrap();
    thread.join().unwrap();
    assert_eq!(log.notes, ["head 200", "data abc"]);
}

#[test]
fn a_submitter_may_live_in_the_engines_own_state() {
    struct World {
        submitter: Option<httpstream::Submitter<World>>,
        answers: usize,
    }
    let server = Server::answering(ok("a"));
    let mut engine = Engine::<World>::new().unwrap();
    let mut world = World {
        submitter: Some(engine.submitter()),
        answers: 0,
    };
    let request = server.get("/");
    engine.submit(
        server.get("/"),
        move |world: &mut World, _: Reply<'_>, cx| {
            let submitter = world.submitter.take().unwrap();
            let count =
                |world: &mut World, _: Reply<'_>, cx: &mut httpstream::Context<'_, World>| {
                    world.answers += 1;
                    cx.done()
                };
            submitter.submit(request.clone(), count).unwrap();
            cx.done()
        },
    );
    engine.run(&mut world).unwrap();
    assert_eq!(world.answers, 1);
}

// ---- the inbox is bounded ----

fn small(max_inbox: usize) -> Engine<Log> {
    let mut config = Config::default();
    config.max_inbox = max_inbox;
    Engine::with_config(config).unwrap()
}

#[test]
fn what_does_not_fit_is_given_back() {
    let server = Server::answering(ok("a"));
    let mut engine = small(3);
    let mut log = Log::default();
    let submitter = engine.submitter();
    let ids: Vec<_> = (0..3)
        .map(|_| submitter.submit(server.get("/"), common::note).unwrap())
        .collect();
    // A readback that owns data, by which it is recognized.
    let owned = String::from("mine");
    let readback = move |log: &mut Log, reply: Reply<'_>, cx: &mut Context<'_, Log>| {
        log.notes.push(owned.clone());
        common::note(log, reply, cx)
    };
    let refused = submitter.submit(server.get("/mine"), readback).unwrap_err();
    assert!(refused.is_full());
    assert_eq!(
        format!("{refused:?} {refused}"),
        "Full(..) the engine's inbox is full"
    );
    let (request, readback) = refused.into_inner();
    assert_eq!(request.uri().path(), "/mine");
    let call = |log: &mut Log, cx: &mut Context<'_, Log>| {
        log.notes.push("called".to_owned());
        cx.done()
    };
    let refused = submitter.call(call).unwrap_err();
    let SubmitError::Full(call) = refused else {
        panic!("{refused:?}");
    };
    let error = Error::from(submitter.submit_to(server.get("/"), Unread).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(
        submitter
            .submit_after(Duration::ZERO, server.get("/"), common::note)
            .is_err()
    );
    assert!(submitter.call_after(Duration::MAX, call).is_err());
    assert!(submitter.spawn(|| async {}).unwrap_err().is_full());
    // These are never refused.
    submitter.cancel(ids[1]).unwrap();
    submitter.resume(ids[0]).unwrap();
    submitter.stop().unwrap();
    assert!(engine.turn(&mut log, Some(Duration::ZERO)).unwrap().stopped);
    // There is room again. New submissions come after the earlier ones.
    submitter.submit(request, readback).unwrap();
    submitter.call(call).unwrap();
    drop(submitter);
    engine.run(&mut log).unwrap();
    assert_eq!(log.kinds(), [ErrorKind::Cancelled]);
    assert_eq!(log.replies.len(), 4);
    assert_eq!(log.notes, ["called", "mine"]);
    let paths: Vec<_> = server.so_far().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths.iter().filter(|path| *path == "/mine").count(), 1);
}

#[test]
fn what_is_submitted_inside_a_turn_is_not_refused() {
    let server = Server::answering(ok("a"));
    let mut engine = small(1);
    let (submitter, request) = (engine.submitter(), server.get("/"));
    engine.call(move |_, cx| {
        for _ in 0..5000 {
            submitter
                .call(|log: &mut Log, cx| {
                    log.notes.push(String::new());
                    cx.done()
                })
                .unwrap();
        }
        submitter.submit(request.clone(), common::note).unwrap();
        cx.done()
    });
    let mut log = Log::default();
    engine.run(&mut log).unwrap();
    assert_eq!((log.notes.len(), log.texts()), (5000, vec!["a".to_owned()]));
    assert_eq!(engine.stats().wakeups, 0);
}

#[test]
fn many_threads_and_a_small_inbox_lose_nothing() {
    const EACH: usize = 2000;
    let mut engine = small(10);
    let submitter = engine.submitter();
    let alive = submitter.keep_alive();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (submitter, alive) = (submitter.clone(), alive.clone());
            std::thread::spawn(move || {
                let _alive = alive;
                let mut refused = 0;
                for _ in 0..EACH {
                    let mut call = |log: &mut Log, cx: &mut Context<'_, Log>| {
                        log.notes.push(String::new());
                        cx.done()
                    };
                    while let Err(full) = submitter.call(call) {
                        assert!(full.is_full());
                        call = full.into_inner();
                        refused += 1;
                        std::thread::yield_now();
                    }
                }
                refused
            })
        })
        .collect();
    drop(alive);
    let mut log = Log::default();
    engine.run(&mut log).unwrap();
    let refused: usize = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .sum();
    println!("{refused} refused");
    assert_eq!(log.notes.len(), 4 * EACH);
}
