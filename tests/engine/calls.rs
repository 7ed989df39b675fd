//! Calls: a chain waits without a request, and then runs code.

use crate::common;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{Bench, Log, Server, note, ok};
use httpstream::{
    Context, Engine, Error, ErrorKind, Next, Phase, Readback, Reply, within, within_call, within_to,
};

const MS: Duration = Duration::from_millis(1);

/// Counts its drops.
struct Guard(Rc<Cell<u32>>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

type Never = Box<dyn FnOnce(&mut Log, &mut Context<'_, Log>) -> Next<Log>>;

/// A call that must never run, and a count of its drops.
fn never() -> (Never, Rc<Cell<u32>>) {
    let dropped = Rc::new(Cell::new(0));
    let guard = Guard(dropped.clone());
    let call = move |_: &mut Log, _: &mut Context<'_, Log>| -> Next<Log> {
        let _guard = &guard;
        panic!("the call was made");
    };
    (Box::new(call), dropped)
}

#[test]
fn call_runs_in_the_next_turn_and_what_it_sends_is_read_by_whom_it_says() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    let request = server.get("/");
    let id = bench
        .engine
        .call(move |_, _| Next::send(request).read_by(note));
    assert_eq!((bench.engine.pending(), bench.stats().delayed), (1, 1));
    assert!(bench.engine.next_timeout().unwrap().is_zero());
    assert_eq!(server.so_far().len(), 0);
    bench.replies(1);
    assert_eq!(bench.log.texts(), ["a"]);
    assert!(!bench.engine.cancel(id));
    let stats = bench.stats();
    assert_eq!((stats.submitted, stats.answered, stats.failed), (1, 1, 0));
    bench.assert_empty();
}

#[test]
fn without_a_readback_the_answer_is_thrown_away() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    let request = server.get("/");
    bench.engine.call(move |_, _| Next::send(request));
    bench.until("the end", |engine, _| engine.pending() == 0);
    assert_eq!(bench.stats().answered, 1);
    assert!(bench.log.replies.is_empty());
    bench.assert_empty();
}

#[test]
fn delayed_call_is_never_early() {
    let mut engine = Engine::<Vec<Duration>>::new().unwrap();
    let begun = Instant::now();
    engine.start(
        Next::<Vec<Duration>>::call(move |late, cx| {
            late.push(begun.elapsed());
            // Delays that the call sets count from its end, however long it takes.
            std::thread::sleep(10 * MS);
            let ended = Instant::now();
            cx.start(
                Next::<Vec<Duration>>::call(move |late, _| {
                    late.push(ended.elapsed());
                    Next::done()
                })
                .after(20 * MS),
            );
            Next::call(move |late: &mut Vec<_>, _| {
                late.push(ended.elapsed());
                Next::done()
            })
            .after(20 * MS)
        })
        .after(20 * MS),
    );
    let mut late = Vec::new();
    engine.turn(&mut late, Some(Duration::ZERO)).unwrap();
    if late.is_empty() {
        let due = engine.next_deadline().unwrap();
        assert!(due >= begun + 20 * MS && due <= Instant::now() + 21 * MS);
    }
    engine.run(&mut late).unwrap();
    assert_eq!(late.len(), 3);
    assert!(late.iter().all(|late| *late >= 20 * MS), "{late:?}");
}

#[test]
fn readback_keeps_reading_what_its_call_sends() {
    fn on_reply(log: &mut Log, reply: Reply<'_>, cx: &mut Context<'_, Log>) -> Next<Log> {
        let _ = note(log, reply, cx);
        match log.replies.len() {
            // The previous request, then another one.
            1 => Next::call(|_: &mut Log, _| Next::again()),
            2 => Next::call(|_: &mut Log, _| {
                Next::call(|_: &mut Log, cx| cx.again().after(MS)).after(MS)
            }),
            3 => Next::call(|_: &mut Log, _| Next::again()).read_by(|log, reply, cx| {
                let _ = note(log, reply, cx);
                log.replies.push(Err(cx_error()));
                Next::done()
            }),
            _ => unreachable!("another readback has taken over"),
        }
    }
    fn cx_error() -> httpstream::Error {
        httpstream::Request::get("no url").build().unwrap_err()
    }
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    bench.engine.submit(server.get("/"), on_reply);
    bench.replies(5);
    assert!(bench.log.replies[4].is_err());
    assert_eq!(server.so_far().len(), 4);
    bench.assert_empty();
}

#[test]
fn again_without_a_request_is_the_end() {
    let mut bench = Bench::new();
    bench.engine.call(|_, _| Next::again().read_by(note));
    bench
        .engine
        .call(|_, _| Next::call(|_: &mut Log, _| Next::again()).after(MS));
    bench.until("the end", |engine, _| engine.pending() == 0);
    assert!(bench.log.replies.is_empty());
    bench.assert_empty();
}

#[test]
fn cancelled_call_is_dropped_unmade_and_nobody_is_told() {
    for delay in [Duration::ZERO, Duration::from_secs(100), Duration::MAX] {
        for turns in [0, 1] {
            let mut bench = Bench::new();
            let (call, dropped) = never();
            let id = bench.engine.start(Next::call(call).after(delay));
            if turns == 1 && !delay.is_zero() {
                bench.quiet();
                assert_eq!((bench.engine.pending(), bench.stats().delayed), (1, 1));
            }
            assert!(bench.engine.cancel(id) && !bench.engine.cancel(id));
            bench.until("the end", |engine, _| engine.pending() == 0);
            assert_eq!(dropped.get(), 1);
            assert_eq!(bench.stats().failed, 0, "no request failed");
            bench.assert_empty();
        }
    }
}

#[test]
fn cancelled_while_it_waits_the_readback_that_was_kept_is_told_once() {
    let server = Server::answering(ok("a"));
    for delay in [Duration::ZERO, Duration::from_secs(100)] {
        let mut bench = Bench::new();
        let (call, dropped) = never();
        let mut call = Some(call);
        let id = bench.engine.submit(server.get("/"), move |log, reply, cx| {
            let _ = note(log, reply, cx);
            match call.take() {
                Some(call) => Next::call(call).after(delay),
                None => cx.again(),
            }
        });
        if delay.is_zero() {
            bench
                .engine
                .call(move |log: &mut Log, cx: &mut Context<'_, Log>| {
                    // Runs each turn until the call is due, then cancels it before it runs.
                    watch(id, log, cx)
                });
            bench.replies(2);
        } else {
            bench.replies(1);
            bench.quiet();
            assert_eq!(bench.stats().delayed, 1);
            assert!(bench.engine.cancel(id));
            bench.replies(2);
        }
        let error = bench.log.replies.pop().unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Cancelled, Phase::Queue)
        );
        assert_eq!(dropped.get(), 1);
        bench.quiet();
        assert_eq!(bench.log.replies.len(), 1);
        assert_eq!(bench.stats().failed, 1);
        bench.assert_empty();
    }
}

/// Calls itself each turn until there is a reply, and then cancels `id`.
fn watch(id: httpstream::ChainId, log: &mut Log, cx: &mut Context<'_, Log>) -> Next<Log> {
    if !log.replies.is_empty() {
        assert!(cx.cancel(id));
        return cx.done();
    }
    Next::call(move |log: &mut Log, cx| watch(id, log, cx))
}

#[test]
fn call_that_cancels_its_own_chain_goes_no_further() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    let request = server.get("/");
    bench.engine.call(move |_, cx| {
        assert!(cx.cancel(cx.id()));
        Next::send(request).read_by(note)
    });
    bench.until("the end", |engine, _| engine.pending() == 0);
    assert!(
        bench.log.replies.is_empty(),
        "the chain has no readback to call"
    );
    bench.engine.submit(server.get("/"), |log, reply, cx| {
        let _ = note(log, reply, cx);
        Next::call(|_: &mut Log, cx| {
            cx.cancel(cx.id());
            cx.again()
                .read_by(|_, _, _| unreachable!("its result is dropped"))
        })
    });
    bench.replies(2);
    assert_eq!(bench.log.kinds(), [ErrorKind::Cancelled]);
    bench.assert_empty();
}

#[test]
fn calls_without_delay_take_turns_with_everything_else() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::with(|config| config.turn_events = 8);
    let made = Rc::new(Cell::new(0_u32));
    fn spin(made: Rc<Cell<u32>>) -> Next<Log> {
        made.set(made.get() + 1);
        Next::call(move |_: &mut Log, _| spin(made))
    }
    let ids: Vec<_> = (0..20)
        .map(|_| {
            let made = made.clone();
            bench.engine.call(move |_, _| spin(made))
        })
        .collect();
    let turn = bench
        .engine
        .turn(&mut bench.log, Some(Duration::from_secs(9)));
    assert!(turn.unwrap().more);
    assert_eq!(made.get(), 8, "a turn is bounded");
    bench.fetch_ok(server.get("/"));
    let late = Rc::new(Cell::new(false));
    let set = late.clone();
    bench.engine.start(
        Next::call(move |_, _| {
            set.set(true);
            Next::done()
        })
        .after(5 * MS),
    );
    bench.until("a timer", |_, _| late.get());
    for id in ids {
        assert!(bench.engine.cancel(id));
    }
    bench.until("the end", |engine, _| engine.pending() == 0);
    assert_eq!(Rc::strong_count(&made), 1);
    bench.assert_empty();
}

#[test]
fn call_runs_after_what_its_readback_asked_for() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    let other = server.get("/other");
    bench.engine.submit(server.get("/"), move |_, _, cx| {
        cx.submit(other.clone(), note);
        let (call, dropped) = never();
        let id = cx.call(call);
        assert!(cx.cancel(id));
        Next::call(move |log: &mut Log, _| {
            assert_eq!(dropped.get(), 1, "carried out before the call");
            assert!(log.replies.is_empty());
            Next::done()
        })
    });
    bench.replies(1);
    bench.assert_empty();
}

#[test]
fn panicking_call_ends_its_chain_and_no_other() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    let told = Rc::new(Cell::new(0_u32));
    let guard = Guard(told.clone());
    bench.engine.submit(server.get("/"), move |_, reply, _| {
        assert!(reply.is_ok(), "called once only");
        let _guard = &guard;
        Next::call(|_: &mut Log, _| std::panic::resume_unwind(Box::new("on purpose")))
    });
    bench.engine.submit(server.get("/"), note);
    let mut panics = 0;
    while bench.engine.pending() > 0 {
        let turned = catch_unwind(AssertUnwindSafe(|| bench.engine.turn(&mut bench.log, None)));
        panics += usize::from(turned.is_err());
    }
    assert_eq!((panics, told.get(), bench.log.texts().len()), (1, 1, 1));
    bench.assert_empty();
}

/// A readback that continues on its own, through `on_due`.
struct Beat(u32);

impl<S> Readback<S> for Beat {
    fn on_due(&mut self, _: &mut S, cx: &mut Context<'_, S>) -> Next<S> {
        self.0 += 1;
        match self.0 {
            3 => cx.again(),
            _ => Next::wait().after(MS),
        }
    }

    fn on_reply(&mut self, _: &mut S, reply: Reply<'_>, cx: &mut Context<'_, S>) -> Next<S> {
        assert!(reply.is_ok());
        match self.0 {
            0 => Next::wait(),
            3 => cx.done(),
            beats => unreachable!("{beats} beats"),
        }
    }
}

#[test]
fn readback_that_waits_is_told_when_it_is_due() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    bench.engine.submit_to(server.get("/"), Beat(0));
    bench.engine.submit_to(
        server.get("/"),
        within_to(|log: &mut Log| Some(log), Beat(0)),
    );
    // Closures have no `on_due`, so the chain ends.
    bench.engine.submit(server.get("/"), |log, reply, cx| {
        let _ = note(log, reply, cx);
        Next::wait()
    });
    bench.until("the end", |engine, _| engine.pending() == 0);
    assert_eq!((server.so_far().len(), bench.log.replies.len()), (5, 1));
    bench.assert_empty();
}

#[test]
fn parts_call_as_the_whole_does() {
    #[derive(Default)]
    struct Bot(Vec<&'static str>);

    impl Bot {
        fn on_reply(&mut self, _: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
            self.0.push("reply");
            cx.call(|bot, _| {
                bot.0.push("beside");
                Next::done()
            });
            match self.0.len() {
                1 => Next::call(Self::on_call).after(MS),
                _ => Next::done(),
            }
        }

        fn on_call(&mut self, cx: &mut Context<'_, Self>) -> Next<Self> {
            self.0.push("call");
            cx.again()
        }
    }

    let server = Server::answering(ok("a"));
    let mut engine = Engine::<Vec<Bot>>::new().unwrap();
    let mut bots = vec![Bot::default(), Bot::default()];
    fn part(i: usize) -> impl Fn(&mut Vec<Bot>) -> Option<&mut Bot> + Clone + Send {
        move |bots| bots.get_mut(i)
    }
    engine.submit_to(server.get("/"), within(part(0), Bot::on_reply));
    let request = server.get("/");
    let start =
        move |_: &mut Bot, _: &mut Context<'_, Bot>| Next::send(request).read_by(Bot::on_reply);
    engine
        .submitter()
        .call(within_call(part(1), start))
        .unwrap();
    engine.call(within_call(
        part(2),
        |_: &mut Bot, _: &mut Context<'_, Bot>| unreachable!("the part does not exist"),
    ));
    engine.run(&mut bots).unwrap();
    for bot in bots {
        assert_eq!(bot.0, ["reply", "beside", "call", "reply", "beside"]);
    }
}

#[test]
fn submitter_calls_wake_a_waiting_turn() {
    let mut engine = Engine::<u32>::new().unwrap();
    let submitter = engine.submitter();
    let alive = submitter.keep_alive();
    let thread = std::thread::spawn(move || {
        let _alive = alive;
        std::thread::sleep(20 * MS);
        let dropped = submitter
            .call_after(Duration::MAX, |_, _| Next::done())
            .unwrap();
        submitter.cancel(dropped).unwrap();
        let later = submitter.call_after(MS, |sum, _| {
            *sum += 1;
            Next::done()
        });
        later?;
        submitter.call(|sum, _| {
            *sum += 10;
            Next::done()
        })?;
        Ok::<_, Error>(())
    });
    let mut sum = 0;
    engine.run(&mut sum).unwrap();
    assert_eq!(sum, 11);
    assert!(thread.join().unwrap().is_ok());
    let submitter = engine.submitter();
    drop(engine);
    assert!(submitter.call(|_, _| Next::done()).is_err());
}

#[test]
fn draining_drops_calls() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    let (late, late_dropped) = never();
    bench
        .engine
        .start(Next::call(late).after(Duration::from_secs(100)));
    let (now, now_dropped) = never();
    bench.engine.call(now);
    let (next, next_dropped) = never();
    let (beside, beside_dropped) = never();
    let mut calls = Some((next, beside));
    bench.engine.submit(server.get("/"), move |log, reply, cx| {
        let _ = note(log, reply, cx);
        let (next, beside) = calls.take().unwrap();
        cx.call(beside);
        Next::call(next)
    });
    let drained = bench.engine.drain(&mut bench.log, Duration::from_secs(10));
    assert_eq!(drained.unwrap(), 2);
    assert_eq!(bench.log.texts(), ["a"]);
    for dropped in [late_dropped, now_dropped, next_dropped, beside_dropped] {
        assert_eq!(dropped.get(), 1);
    }
    bench.assert_empty();
}

#[test]
fn dropped_engine_drops_its_calls() {
    let mut bench = Bench::new();
    let (call, dropped) = never();
    bench.engine.start(Next::call(call).after(Duration::MAX));
    bench.quiet();
    drop(bench);
    assert_eq!(dropped.get(), 1);
}
