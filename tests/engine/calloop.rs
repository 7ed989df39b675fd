//! An engine as an event source of calloop.
#![cfg(feature = "calloop")]

use crate::common;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use calloop::timer::{TimeoutAction, Timer};
use calloop::{Dispatcher, EventLoop};
use common::{Log, Server, ok};
use httpstream::calloop::{EngineSource, turn};
use httpstream::{Config, Engine, Flow, Next};

type Source = Dispatcher<'static, EngineSource<Log>, Log>;

/// A loop with an engine in it, whose data is the log.
struct Host {
    event_loop: EventLoop<'static, Log>,
    source: Source,
    log: Log,
    rounds: usize,
}

impl Host {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let event_loop = EventLoop::try_new().unwrap();
        let engine = Engine::with_config(config).unwrap();
        let source = Dispatcher::new(EngineSource::new(engine).unwrap(), turn);
        event_loop
            .handle()
            .register_dispatcher(source.clone())
            .unwrap();
        Self {
            event_loop,
            source,
            log: Log::default(),
            rounds: 0,
        }
    }

    fn engine<R>(&self, use_it: impl FnOnce(&mut Engine<Log>) -> R) -> R {
        use_it(self.source.as_source_mut().engine_mut())
    }

    /// Dispatches, without a timeout, until `is_done`.
    fn until(&mut self, what: &str, mut is_done: impl FnMut(&Engine<Log>, &Log) -> bool) {
        let end = Instant::now() + common::PATIENCE;
        while !is_done(self.source.as_source_ref().engine(), &self.log) {
            assert!(Instant::now() < end, "gave up waiting for: {what}");
            self.rounds += 1;
            // With a timeout, a lost wake-up fails this test instead of blocking all of them.
            self.event_loop
                .dispatch(common::PATIENCE, &mut self.log)
                .unwrap();
        }
    }
}

#[test]
fn readbacks_get_the_loops_data() {
    let server = Server::answering(ok("abc"));
    let mut host = Host::new();
    for _ in 0..20 {
        host.engine(|engine| engine.submit(server.get("/"), common::note));
    }
    host.until("all", |engine, _| engine.pending() == 0);
    assert_eq!(host.log.texts(), ["abc"; 20]);
}

#[test]
fn delays_and_deadlines_wake_the_loop_though_each_is_earlier_than_the_last() {
    let server = Server::start(|peer| drop(peer.hold()));
    let mut host = Host::new();
    let began = Instant::now();
    for ms in [90, 60, 40, 20, 5, 1] {
        let delay = Duration::from_millis(ms);
        host.engine(|engine| {
            engine.start(
                Next::call(move |log: &mut Log, _| {
                    log.notes.push(format!("{ms} {}", began.elapsed() >= delay));
                    Next::done()
                })
                .after(delay),
            )
        });
        // This round sets the loop's timer; the next delay is due earlier.
        host.until("settled", |engine, _| {
            engine.next_timeout().is_some_and(|left| !left.is_zero()) || engine.pending() == 0
        });
    }
    let held = httpstream::Request::get(server.url("/"))
        .timeout(Duration::from_millis(30))
        .build()
        .unwrap();
    host.engine(|engine| engine.submit(held, common::note));
    host.until("all", |engine, _| engine.pending() == 0);
    host.log.notes.sort();
    let expected = [
        "1 true", "20 true", "40 true", "5 true", "60 true", "90 true",
    ];
    assert_eq!(host.log.notes, expected);
    assert_eq!(host.log.kinds(), [httpstream::ErrorKind::Timeout]);
}

#[test]
fn other_sources_submit_resume_and_cancel() {
    let server = Server::start(|peer| match peer.request().map(|seen| seen.path) {
        Some(path) if path == "/held" => drop(peer.hold()),
        _ => drop(peer.send(&ok(&"x".repeat(100_000)))),
    });
    let mut host = Host::new();
    let script = common::Script {
        head: Flow::Pause,
        ..common::Script::default()
    };
    let paused = host.engine(|engine| engine.submit_to(server.get("/paused"), script));
    let held = host.engine(|engine| engine.submit(server.get("/held"), common::note));
    host.until("they are there", |engine, _| {
        engine.stats().paused == 1 && engine.stats().in_flight == 2
    });
    let (source, request) = (host.source.clone(), server.get("/late"));
    let timer = Timer::from_duration(Duration::from_millis(10));
    host.event_loop
        .handle()
        .insert_source(timer, move |_, (), _| {
            let mut source = source.as_source_mut();
            let engine = source.engine_mut();
            assert!(engine.resume(paused));
            assert!(engine.cancel(held));
            engine.submit(request.clone(), common::note);
            TimeoutAction::Drop
        })
        .unwrap();
    host.until("all", |engine, log| {
        engine.pending() == 0 && log.replies.len() == 3
    });
    assert_eq!(host.log.kinds(), [httpstream::ErrorKind::Cancelled]);
}

#[test]
fn a_submitter_wakes_the_loop() {
    let server = Server::answering(ok("a"));
    let mut host = Host::new();
    let submitter = host.engine(|engine| engine.submitter());
    let request = server.get("/");
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        submitter.submit(request, common::note).unwrap();
    });
    host.until("the reply", |_, log| log.replies.len() == 1);
    thread.join().unwrap();
}

#[test]
fn a_budget_of_one_event_loses_nothing() {
    let server = Server::start(|peer| while peer.answer(&ok(&"x".repeat(30_000))) {});
    let mut config = Config::default();
    config.turn_events = 1;
    config.turn_bytes = 1;
    config.read_buffer = 4096;
    let mut host = Host::with(config);
    for i in 0..50 {
        let delay = Duration::from_millis(i % 5);
        host.engine(|engine| {
            engine.start(
                engine
                    .send(server.get("/"))
                    .after(delay)
                    .read_by(common::note),
            )
        });
    }
    host.until("all", |engine, _| engine.pending() == 0);
    assert!(host.log.texts().iter().all(|text| text.len() == 30_000));
    assert_eq!(host.log.replies.len(), 50);
}

#[test]
fn an_engine_with_held_polls_lets_the_loop_sleep() {
    let server = Server::start(|peer| drop(peer.hold()));
    let mut host = Host::new();
    for _ in 0..50 {
        host.engine(|engine| engine.submit(server.get("/"), common::note));
    }
    host.until("all are sent", |engine, _| engine.stats().in_flight == 50);
    let turns = |host: &Host| host.engine(|engine| engine.stats().turns);
    // Lets the last events of the setup pass.
    let settled = Instant::now() + Duration::from_millis(200);
    while Instant::now() < settled {
        let pause = Some(Duration::from_millis(50));
        host.event_loop.dispatch(pause, &mut host.log).unwrap();
    }
    let before = turns(&host);
    for _ in 0..10 {
        let pause = Some(Duration::from_millis(20));
        host.event_loop.dispatch(pause, &mut host.log).unwrap();
    }
    assert_eq!(turns(&host), before, "nothing was due");
}

#[test]
fn a_panic_goes_through_the_dispatch_and_what_it_left_behind_is_not_lost() {
    let server = Server::answering(ok("a"));
    let mut host = Host::new();
    host.engine(|engine| {
        engine.submit(server.get("/"), |_, _, cx| {
            // It is due earlier than any timer that is set, and the panic keeps this turn from
            // setting one.
            cx.start(
                Next::call(|log: &mut Log, _| {
                    log.notes.push("after".into());
                    Next::done()
                })
                .after(Duration::from_millis(10)),
            );
            panic!("in a readback")
        })
    });
    let panic = catch_unwind(AssertUnwindSafe(|| {
        host.until("the end", |engine, _| engine.pending() == 0)
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"in a readback"));
    host.until("the call", |_, log| log.notes == ["after"]);
}

#[test]
fn it_can_be_disabled_enabled_and_taken_out() {
    let server = Server::answering(ok("a"));
    let mut host = Host::new();
    let handle = host.event_loop.handle();
    let token = {
        // A second engine, in a source of its own.
        let engine = Engine::<Log>::new().unwrap();
        let mut source = EngineSource::new(engine).unwrap();
        source.engine_mut().submit(server.get("/"), common::note);
        handle.insert_source(source, turn).unwrap()
    };
    handle.disable(&token).unwrap();
    host.event_loop
        .dispatch(Some(Duration::from_millis(30)), &mut host.log)
        .unwrap();
    assert!(host.log.replies.is_empty(), "its source is disabled");
    handle.enable(&token).unwrap();
    host.until("the second engine's", |_, log| log.replies.len() == 1);
    handle.update(&token).unwrap();
    handle.remove(token);
    host.engine(|engine| engine.submit(server.get("/"), common::note));
    host.until("the first engine's", |_, log| log.replies.len() == 2);
    let Host {
        event_loop, source, ..
    } = host;
    drop((event_loop, handle));
    let mut engine = Dispatcher::into_source_inner(source).into_engine();
    let mut log = Log::default();
    engine.submit(server.get("/"), common::note);
    engine.run(&mut log).unwrap();
    assert_eq!(log.texts(), ["a"], "the engine runs on its own again");
}

#[test]
fn a_loop_with_other_data_lends_a_part_of_it() {
    struct App {
        log: Log,
        turns: usize,
    }
    let server = Server::answering(ok("a"));
    let mut event_loop = EventLoop::<App>::try_new().unwrap();
    let mut source = EngineSource::new(Engine::new().unwrap()).unwrap();
    source.engine_mut().submit(server.get("/"), common::note);
    event_loop
        .handle()
        .insert_source(source, |(), engine, app: &mut App| {
            app.turns += 1;
            engine.turn(&mut app.log, Some(Duration::ZERO))
        })
        .unwrap();
    let mut app = App {
        log: Log::default(),
        turns: 0,
    };
    let end = Instant::now() + common::PATIENCE;
    while app.log.replies.is_empty() {
        assert!(Instant::now() < end);
        event_loop.dispatch(None, &mut app).unwrap();
    }
    assert!(app.turns > 0);
}

/// Each time a source is registered again, calloop adds another entry to the list of those to call
/// before it sleeps.
#[test]
fn a_loop_that_had_many_timers_makes_one_turn_where_one_is_due() {
    fn beat(left: u32) -> Next<Log> {
        match left {
            0 => Next::done(),
            _ => Next::call(move |_: &mut Log, _| beat(left - 1)).after(Duration::from_millis(1)),
        }
    }
    let mut host = Host::new();
    host.engine(|engine| engine.call(|_, _| beat(200)));
    host.until("all beats", |engine, _| engine.pending() == 0);
    let turns = |host: &Host| host.source.as_source_ref().engine().stats().turns;
    let before = turns(&host);
    host.engine(|engine| engine.call(|_, _| Next::done()));
    host.until("the call", |engine, _| engine.pending() == 0);
    let made = turns(&host) - before;
    assert!(made <= 3, "{made} turns for one call");
}

#[test]
fn a_readback_may_disable_its_own_source() {
    let mut host = Host::new();
    let handle = host.event_loop.handle();
    let engine = Engine::<Log>::new().unwrap();
    let mut source = EngineSource::new(engine).unwrap();
    let token = Rc::new(Cell::new(None));
    let (own, by) = (Rc::clone(&token), handle.clone());
    source.engine_mut().call(move |log: &mut Log, cx| {
        log.notes.push("disables".into());
        by.disable(&own.get().unwrap()).unwrap();
        // Something for which the loop would have to set a timer.
        cx.start(
            Next::call(|log: &mut Log, _| {
                log.notes.push("later".into());
                Next::done()
            })
            .after(Duration::from_millis(1)),
        );
        Next::done()
    });
    token.set(Some(handle.insert_source(source, turn).unwrap()));
    let end = Instant::now() + common::PATIENCE;
    while host.log.notes.is_empty() {
        assert!(Instant::now() < end);
        let pause = Some(Duration::from_millis(5));
        host.event_loop.dispatch(pause, &mut host.log).unwrap();
    }
    for _ in 0..10 {
        let pause = Some(Duration::from_millis(5));
        host.event_loop.dispatch(pause, &mut host.log).unwrap();
    }
    assert_eq!(host.log.notes, ["disables"]);
    handle.enable(&token.get().unwrap()).unwrap();
    host.until("what was left", |_, log| log.notes == ["disables", "later"]);
}

#[test]
fn a_source_that_another_one_has_disabled_makes_no_turn() {
    let mut host = Host::new();
    let handle = host.event_loop.handle();
    let (ping, pings) = calloop::ping::make_ping().unwrap();
    let engine = Engine::<Log>::new().unwrap();
    let submitter = engine.submitter();
    let source = Dispatcher::new(EngineSource::new(engine).unwrap(), turn);
    let token = handle.register_dispatcher(source.clone()).unwrap();
    let by = handle.clone();
    handle
        .insert_source(pings, move |(), (), _| by.disable(&token).unwrap())
        .unwrap();
    let pause = Some(Duration::from_millis(5));
    host.event_loop.dispatch(pause, &mut host.log).unwrap();
    let turns = || source.as_source_ref().engine().stats().turns;
    let before = turns();
    // One round has events for both, for the first one first.
    ping.ping();
    submitter
        .call(|log: &mut Log, _| {
            log.notes.push("called".into());
            Next::done()
        })
        .unwrap();
    for _ in 0..3 {
        host.event_loop.dispatch(pause, &mut host.log).unwrap();
    }
    assert_eq!(turns(), before);
    handle.enable(&token).unwrap();
    host.until("what was left", |_, log| log.notes == ["called"]);
}
