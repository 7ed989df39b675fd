//! Submitters reach an engine from other threads, wake it, and keep `run` going.

use crate::common;

use std::time::Duration;

use common::{Gate, Log, Server, ok};
use httpstream::{Engine, ErrorKind, Flow, Reply};

#[test]
fn run_goes_on_until_the_last_one_has_gone() {
    let server = Server::answering(ok("a"));
    let mut engine = Engine::<Log>::new().unwrap();
    let mut log = Log::default();
    let submitter = engine.submitter();
    let request = server.get("/");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (submitter, request) = (submitter.clone(), request.clone());
            std::thread::spawn(move || {
                let mut ids = Vec::new();
                for _ in 0..50 {
                    ids.push(submitter.submit(request.clone(), common::note).unwrap());
                }
                ids
            })
        })
        .collect();
    drop(submitter);
    engine.run(&mut log).unwrap();
    let mut ids: Vec<_> = threads
        .into_iter()
        .flat_map(|t| t.join().unwrap())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), log.replies.len()), (200, 200));
    assert!(log.replies.iter().all(Result::is_ok));
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
            // Without a wake-up this would wait for ever.
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
        (submitter, server, other)
    });
    engine.run(&mut log).unwrap();
    let (submitter, _server, other) = thread.join().unwrap();
    while log.replies.len() < 2 {
        engine
            .turn(&mut log, Some(Duration::from_millis(10)))
            .unwrap();
    }
    assert_eq!(log.kinds(), [ErrorKind::Cancelled; 2]);
    assert_eq!(engine.pending(), 1);
    assert!(engine.cancel(other), "its ids are good on the engine too");
    drop(submitter);
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
