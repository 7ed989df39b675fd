//! A turn is bounded, however much is submitted to the engine at once: in the number of commands,
//! and in the processor time of its thread.
//!
//! Counts are exact. The time is that of the longest turn, by the thread's clock, and its bound is
//! far above what a turn takes: a turn that did everything at once would take many times as long.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use httpstream::{ChainId, Config, Context, Engine, Next, Request};

/// The most that one turn takes or carries out.
const PIECE: usize = 2048;

/// How much is submitted at once.
const MANY: usize = if cfg!(debug_assertions) {
    200_000
} else {
    1_000_000
};

/// How long a turn may take. The value for release builds is the promised one; a debug build takes
/// about ten times as long.
const BOUND: Duration = Duration::from_millis(if cfg!(debug_assertions) { 150 } else { 25 });

/// Returns the processor time of this thread.
fn cpu() -> Duration {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
    #[cfg(not(unix))]
    Duration::ZERO
}

fn engine() -> Engine<u64> {
    engine_with(|_| ())
}

fn engine_with(change: impl FnOnce(&mut Config)) -> Engine<u64> {
    let mut config = Config::default();
    config.max_inbox = MANY;
    change(&mut config);
    Engine::with_config(config).unwrap()
}

fn get() -> Request {
    Request::get("http://192.0.2.1/").build().unwrap()
}

fn done(calls: &mut u64, _: &mut Context<'_, u64>) -> Next<u64> {
    *calls += 1;
    Next::done()
}

/// Turns until nothing is due, and returns the number of turns and the time of the longest one.
/// `each` is called after each turn.
fn turn_all(
    engine: &mut Engine<u64>,
    state: &mut u64,
    mut each: impl FnMut(&Engine<u64>, u64),
) -> (usize, Duration) {
    let (mut turns, mut longest) = (0, Duration::ZERO);
    loop {
        let before = cpu();
        let turn = engine.turn(state, Some(Duration::ZERO)).unwrap();
        longest = longest.max(cpu() - before);
        turns += 1;
        each(engine, *state);
        let is_due = engine
            .next_timeout()
            .is_some_and(|timeout| timeout.is_zero());
        assert!(!turn.more || is_due, "more work, but no turn is due");
        if !turn.more && !is_due {
            return (turns, longest);
        }
        assert!(turns < 100 * MANY / PIECE + 1000, "the turns do not end");
    }
}

fn check(why: &str, turns: usize, longest: Duration) {
    println!("{why}: {turns} turns, the longest {longest:?} of processor time");
    assert!(
        longest <= BOUND,
        "{why}: the longest of {turns} turns took {longest:?}"
    );
    assert!(turns >= MANY / PIECE, "{why}: only {turns} turns");
}

#[test]
fn orders_of_another_thread() {
    let mut engine = engine();
    let submitter = engine.submitter();
    std::thread::spawn(move || {
        for _ in 0..MANY {
            submitter.call_after(Duration::MAX, done).unwrap();
        }
    })
    .join()
    .unwrap();
    assert_eq!(engine.pending(), 0);
    let mut taken = Vec::new();
    let (turns, longest) = turn_all(&mut engine, &mut 0, |engine, _| {
        taken.push(engine.pending());
    });
    // A full piece in each turn until nothing is left, and one wake-up for all.
    assert_eq!(
        taken[..MANY / PIECE],
        Vec::from_iter((1..=MANY / PIECE).map(|n| n * PIECE))
    );
    assert_eq!(engine.pending(), MANY);
    assert_eq!(engine.stats().wakeups, 1);
    check("orders", turns, longest);
}

#[test]
fn cancellations_of_another_thread_come_behind_what_they_cancel() {
    let mut engine = engine();
    let submitter = engine.submitter();
    std::thread::spawn(move || {
        let ids: Vec<_> = (0..MANY / 2)
            .map(|_| submitter.call(done).unwrap())
            .collect();
        for id in ids {
            submitter.cancel(id).unwrap();
        }
    })
    .join()
    .unwrap();
    let mut calls = 0;
    let (turns, longest) = turn_all(&mut engine, &mut calls, |_, _| ());
    assert_eq!(engine.pending(), 0);
    // The inbox was taken as a whole: first all submissions, then all cancellations.
    assert!(calls > 0);
    check("canceled orders", turns, longest);
}

#[test]
fn submissions_of_the_engines_own_thread() {
    let mut engine =
        engine_with(|config| config.address_filter = Some(std::sync::Arc::new(|_| false)));
    for i in 0..MANY {
        match i % 2 {
            0 => engine.submit(get(), |_, _, _| Next::done()),
            _ => engine.start(Next::call(done).after(Duration::MAX)),
        };
    }
    let mut waiting = Vec::new();
    let (turns, longest) = turn_all(&mut engine, &mut 0, |engine, _| {
        waiting.push(engine.pending());
    });
    assert_eq!(engine.pending(), MANY / 2, "those that wait forever");
    check("submissions", turns, longest);
}

#[test]
fn cancellations_of_the_engines_own_thread() {
    let mut engine = engine();
    let calls: Vec<_> = (0..MANY)
        .map(|_| engine.start(Next::call(done).after(Duration::MAX)))
        .collect();
    turn_all(&mut engine, &mut 0, |_, _| ());
    for id in calls {
        assert!(engine.cancel(id));
    }
    let mut left = Vec::new();
    let (turns, longest) = turn_all(&mut engine, &mut 0, |engine, _| left.push(engine.pending()));
    assert_eq!(engine.pending(), 0);
    assert!(left[0] >= MANY - PIECE, "{}", left[0]);
    check("cancellations", turns, longest);
}

#[test]
fn what_one_call_asks_for() {
    let mut engine = engine();
    let ids: Rc<Cell<Vec<ChainId>>> = Rc::default();
    let named = Rc::clone(&ids);
    engine.call(move |_, cx| {
        named.set(
            (0..MANY)
                .map(|_| cx.start(Next::call(done).after(Duration::MAX)))
                .collect(),
        );
        cx.done()
    });
    // The turn with the call takes as long as the call itself.
    engine.turn(&mut 0, Some(Duration::ZERO)).unwrap();
    let (turns, longest) = turn_all(&mut engine, &mut 0, |_, _| ());
    check("a call's submissions", turns, longest);
    assert_eq!(engine.pending(), MANY);
    engine.call(move |_, cx| {
        for id in ids.take() {
            assert!(cx.cancel(id));
        }
        cx.done()
    });
    engine.turn(&mut 0, Some(Duration::ZERO)).unwrap();
    let (turns, longest) = turn_all(&mut engine, &mut 0, |_, _| ());
    check("a call's cancellations", turns, longest);
    assert_eq!(engine.pending(), 0);
}

#[test]
fn delays_that_are_over_at_once() {
    for delay in [1, 50, 5000] {
        let mut engine = engine();
        let delay = Duration::from_millis(delay);
        for _ in 0..MANY {
            engine.start(Next::call(done).after(delay));
        }
        let began = std::time::Instant::now();
        let mut calls = 0;
        // Delays that expire in the meantime are called.
        let (_, first) = turn_all(&mut engine, &mut calls, |_, _| ());
        std::thread::sleep((delay + Duration::from_millis(10)).saturating_sub(began.elapsed()));
        let (turns, longest) = turn_all(&mut engine, &mut calls, |_, _| ());
        assert_eq!(calls, MANY as u64);
        let longest = first.max(longest);
        println!("delays of {delay:?}: {turns} turns, the longest {longest:?}");
        assert!(longest <= BOUND, "delays of {delay:?}: {longest:?}");
    }
}

#[test]
fn tasks_that_are_woken_all_at_once() {
    let mut engine = engine();
    let gate: Rc<Cell<bool>> = Rc::default();
    let wakers: Rc<std::cell::RefCell<Vec<std::task::Waker>>> = Rc::default();
    for _ in 0..MANY {
        let (gate, wakers) = (Rc::clone(&gate), Rc::clone(&wakers));
        engine.spawn(std::future::poll_fn(move |cx| match gate.get() {
            true => std::task::Poll::Ready(()),
            false => {
                wakers.borrow_mut().push(cx.waker().clone());
                std::task::Poll::Pending
            }
        }));
    }
    turn_all(&mut engine, &mut 0, |_, _| ());
    assert_eq!((engine.pending(), wakers.borrow().len()), (MANY, MANY));
    gate.set(true);
    for waker in wakers.take() {
        // Several wakes are one order.
        waker.wake_by_ref();
        waker.wake();
    }
    let (turns, longest) = turn_all(&mut engine, &mut 0, |_, _| ());
    assert_eq!(engine.pending(), 0);
    check("wakes", turns, longest);
}

#[test]
fn draining() {
    let (addr, _kept) = common::unresponsive_listener();
    let held = Request::get(format!("http://{addr}/")).build().unwrap();
    let mut engine = engine_with(|config| config.max_connections = 1);
    for i in 0..MANY {
        match i % 2 {
            0 => engine.submit(held.clone(), |_, _, _| Next::done()),
            _ => engine.start(Next::call(done).after(Duration::from_secs(3600))),
        };
    }
    turn_all(&mut engine, &mut 0, |_, _| ());
    let turns = engine.stats().turns;
    let before = cpu();
    let cancelled = engine.drain(&mut 0, Duration::ZERO).unwrap();
    let (turns, took) = (engine.stats().turns - turns, cpu() - before);
    assert_eq!((cancelled, engine.pending()), (MANY, 0));
    println!("draining: {turns} turns, {took:?} in total");
    assert!(turns as usize >= MANY / PIECE, "only {turns} turns");
    // Searching a million chains in each turn would take ten times as long.
    assert!(
        took <= BOUND * turns as u32 / 10,
        "{took:?} for {turns} turns"
    );
}
