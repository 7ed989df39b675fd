//! The resources of a resolver, and their release.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll as TaskPoll, Waker};
use std::thread;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::super::reactor::{Reactor, TaskKind};
use super::server::{A, Message, Transport};
use super::*;

const NOTHING: Counts = Counts {
    tasks: 0,
    timers: 0,
    sockets: 0,
};

fn reactor(names: &Loop) -> Rc<Reactor> {
    let State::Running(running) = &names.hickory.state else {
        panic!("the resolver is not attached")
    };
    Rc::clone(&running.reactor)
}

/// Raises the limit on descriptors: a question is asked at most three times, each from its own
/// socket.
fn make_room_for(questions: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = 3 * questions as u64 + 500;
    let room = limit.maximum.map_or(wanted, |hard| hard.min(wanted));
    if limit.current.is_some_and(|current| current < room) {
        limit.current = Some(room);
        setrlimit(Resource::Nofile, limit).unwrap();
    }
    assert!(
        room > questions as u64,
        "{room} descriptors are too few for this test"
    );
}

/// Starts `count` lookups, and turns until each has asked its question.
fn ask_for(names: &mut Loop, count: usize, server: &NameServer) -> Vec<LookupId> {
    make_room_for(count);
    let ids: Vec<_> = (0..count)
        .map(|n| names.start(&format!("h{n}.test"), Family::V4))
        .collect();
    names.turn_until(|_| {
        let mut asked: Vec<_> = server.seen().iter().map(|q| q.name()).collect();
        asked.sort_unstable();
        asked.dedup();
        (asked.len() == count).then_some(())
    });
    ids
}

#[test]
fn an_answer_leaves_nothing_behind() {
    let server = honest();
    let mut names = Loop::asking(&[&server]);
    assert_eq!(names.counts(), NOTHING);
    assert_eq!(names.hickory.deadline(), None);
    for n in 0..50 {
        names.look_up(&format!("h{n}.test"), Family::V4);
    }
    assert_eq!(names.counts(), NOTHING);
    assert_eq!(
        names.hickory.deadline(),
        None,
        "nothing is left to wait for"
    );
}

#[test]
fn fifty_look_ups_at_once_are_answered_each_with_its_own() {
    let server = NameServer::start(|question, back| {
        let number: u8 = question.name()[1..]
            .split('.')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        back.send(&question.addresses(60, &[IpAddr::from([192, 0, 2, number])]));
    });
    let mut names = Loop::asking(&[&server]);
    let mut expected: Vec<_> = (0..50u8)
        .map(|n| {
            (
                names.start(&format!("h{n}.test"), Family::V4),
                IpAddr::from([192, 0, 2, n]),
            )
        })
        .collect();
    while !expected.is_empty() {
        let (id, answer) = names.turn_until(|this| this.hickory.take());
        let place = expected.iter().position(|(of, _)| *of == id).unwrap();
        let (_, ip) = expected.remove(place);
        assert_eq!(answer.addresses, Ok(vec![ip]));
    }
}

#[test]
fn a_thousand_cancelled_look_ups_are_gone_at_once() {
    let server = NameServer::unresponsive();
    let mut names = Loop::asking(&[&server]);
    let ids = ask_for(&mut names, 1000, &server);
    let counts = names.counts();
    assert!(
        counts.tasks == 1000 && counts.sockets >= 1000 && counts.timers >= 2000,
        "{counts:?}"
    );
    for id in &ids {
        names.hickory.cancel(*id);
    }
    assert_eq!(names.counts(), NOTHING);
    names.turn();
    assert!(names.hickory.take().is_none());
    names.hickory.cancel(ids[0]);
    assert_eq!(
        names.counts(),
        NOTHING,
        "canceling twice has no further effect"
    );
}

#[test]
fn a_look_up_cancelled_before_its_answer_is_taken_has_none() {
    let server = honest();
    let mut names = Loop::asking(&[&server]);
    let (first, second) = (
        names.start("a.test", Family::V4),
        names.start("b.test", Family::V4),
    );
    names.turn_until(|this| (this.hickory.answered.borrow().len() == 2).then_some(()));
    names.hickory.cancel(first);
    assert_eq!(names.hickory.take().unwrap().0, second);
    assert!(names.hickory.take().is_none());
}

#[test]
fn a_look_up_cancelled_late_does_not_take_the_next_one_along() {
    let server = honest();
    let mut names = Loop::asking(&[&server]);
    let first = names.start("a.test", Family::V4);
    names.turn_until(|this| (this.hickory.answered.borrow().len() == 1).then_some(()));
    let second = names.start("b.test", Family::V4);
    names.hickory.cancel(first);
    let (of, answer) = names.turn_until(|this| this.hickory.take());
    assert_eq!((of, answer), (second, found(&["192.0.2.1"], 60)));
}

#[test]
fn a_connection_that_the_server_closes_is_made_anew() {
    let server = NameServer::start(|question, back| match question.transport {
        Transport::Udp => back.send(&question.answer().truncated()),
        Transport::Tcp => {
            back.send(&question.addresses(60, &[ip("192.0.2.1")]));
            back.close();
        }
    });
    let mut names = Loop::asking(&[&server]);
    for n in 0..5 {
        let answer = names.look_up(&format!("h{n}.test"), Family::V4);
        assert_eq!(answer, found(&["192.0.2.1"], 60));
        if n % 2 == 0 {
            // In every other iteration, the close has been noticed before the next lookup.
            names.turn_until(|this| (this.counts().sockets == 0).then_some(()));
        }
    }
}

#[test]
fn a_slow_family_does_not_hold_up_the_other() {
    let held: Arc<Mutex<Vec<(Back, Message)>>> = Arc::default();
    let holds = Arc::clone(&held);
    let server = NameServer::start(move |question, back| {
        let answer = question.addresses(60, &[ip("192.0.2.1"), ip("2001:db8::1")]);
        match question.kind {
            A => back.send(&answer),
            _ => holds.lock().unwrap().push((back, answer)),
        }
    });
    let mut names = Loop::asking(&[&server]);
    let v6 = names.start("h.test", Family::V6);
    let v4 = names.start("h.test", Family::V4);
    let (first, answer) = names.turn_until(|this| this.hickory.take());
    assert_eq!((first, answer), (v4, found(&["192.0.2.1"], 60)));
    names.turn_until(|_| (!held.lock().unwrap().is_empty()).then_some(()));
    for (back, answer) in held.lock().unwrap().drain(..) {
        back.send(&answer);
    }
    let (second, answer) = names.turn_until(|this| this.hickory.take());
    assert_eq!((second, answer), (v6, found(&["2001:db8::1"], 60)));
}

#[test]
fn a_thousand_at_once_share_one_tcp_connection() {
    make_room_for(1000);
    // All answers arrive at once, more of them than hickory takes at a time.
    let held: Mutex<Vec<(Back, Message)>> = Mutex::default();
    let server = NameServer::start(move |question, back| {
        let answer = question.addresses(60, &[ip("192.0.2.1")]);
        match question.transport {
            Transport::Udp => back.send(&question.answer().truncated()),
            Transport::Tcp if question.name() == "first.test" => back.send(&answer),
            Transport::Tcp => {
                let mut held = held.lock().unwrap();
                held.push((back, answer));
                if held.len() == 1000 {
                    held.drain(..).for_each(|(back, answer)| back.send(&answer));
                }
            }
        }
    });
    let mut names = Loop::asking(&[&server]);
    // Opens the connection first, so that the lookups do not each open one.
    names.look_up("first.test", Family::V4);
    for n in 0..1000 {
        names.start(&format!("h{n}.test"), Family::V4);
    }
    for _ in 0..1000 {
        let (_, answer) = names.turn_until(|this| this.hickory.take());
        assert_eq!(answer, found(&["192.0.2.1"], 60));
    }
    let left = Counts {
        tasks: 1,
        timers: 0,
        sockets: 1,
    };
    assert_eq!(
        names.counts(),
        left,
        "only the task that owns the connection is left"
    );
    // Its last read may have been postponed.
    names.turn_until(|this| this.hickory.deadline().is_none().then_some(()));
}

#[test]
fn answers_that_nobody_waits_for_do_not_hide_the_one_behind_them() {
    let held: Arc<Mutex<Vec<(Back, Message)>>> = Arc::default();
    let holds = Arc::clone(&held);
    let server = NameServer::start(move |question, back| {
        let answer = question.addresses(60, &[ip("192.0.2.1")]);
        match question.transport {
            Transport::Udp => back.send(&question.answer().truncated()),
            Transport::Tcp if question.name() == "first.test" => back.send(&answer),
            Transport::Tcp => holds.lock().unwrap().push((back, answer)),
        }
    });
    let mut names = Loop::asking(&[&server]);
    names.look_up("first.test", Family::V4);
    let hold = |names: &mut Loop, count| {
        names.turn_until(|_| (held.lock().unwrap().len() == count).then_some(()));
    };
    let ids: Vec<_> = (0..300)
        .map(|n| names.start(&format!("h{n}.test"), Family::V4))
        .collect();
    hold(&mut names, 300);
    let last = names.start("last.test", Family::V4);
    hold(&mut names, 301);
    for id in ids {
        names.hickory.cancel(id);
    }
    names.turn();
    for (back, answer) in held.lock().unwrap().drain(..) {
        back.send(&answer);
    }
    let (of, answer) = names.turn_until(|this| this.hickory.take());
    assert_eq!((of, answer), (last, found(&["192.0.2.1"], 60)));
}

#[test]
fn questions_on_a_connection_free_their_timers_in_the_turn_after_they_are_cancelled() {
    let server = NameServer::start(|question, back| match question.transport {
        Transport::Udp => back.send(&question.answer().truncated()),
        Transport::Tcp => {}
    });
    let mut names = Loop::asking(&[&server]);
    let id = names.start("h.test", Family::V4);
    names.turn_until(|_| {
        let is_tcp = |q: &server::Question| q.transport == Transport::Tcp;
        server.seen().iter().any(is_tcp).then_some(())
    });
    assert!(names.counts().timers > 0);
    names.hickory.cancel(id);
    names.turn();
    let counts = names.counts();
    assert_eq!(
        (counts.timers, counts.sockets),
        (0, 1),
        "the connection stays"
    );
}

#[test]
fn a_resolver_that_is_dropped_takes_everything_along() {
    let server = NameServer::start(|question, back| {
        if question.transport == Transport::Udp {
            back.send(&question.answer().truncated());
        }
    });
    let unresponsive = NameServer::unresponsive();
    let mut names = Loop::asking(&[&server, &unresponsive]);
    ask_for(&mut names, 100, &server);
    names.turn_until(|_| (!unresponsive.seen().is_empty()).then_some(()));
    let reactor = reactor(&names);
    let counts = reactor.counts();
    assert!(
        counts.tasks >= 100 && counts.sockets > 0 && counts.timers > 100,
        "{counts:?}"
    );
    drop(names);
    assert_eq!(reactor.counts(), NOTHING);
}

#[test]
fn a_turn_polls_a_bounded_number_and_the_rest_is_due_at_once() {
    make_room_for(1000);
    let server = honest();
    let mut names = Loop::asking(&[&server]);
    for n in 0..1000 {
        names.start(&format!("h{n}.test"), Family::V4);
    }
    let now = Instant::now();
    names.hickory.on_tick(now);
    assert!(
        names.counts().sockets <= 256,
        "the first turn starts only some of them"
    );
    assert!(names.hickory.deadline().unwrap() <= now, "the rest is due");
    for _ in 0..1000 {
        let (_, answer) = names.turn_until(|this| this.hickory.take());
        assert_eq!(answer, found(&["192.0.2.1"], 60));
    }
}

#[test]
fn a_turn_reads_a_bounded_number_of_datagrams_and_all_look_ups_have_their_share() {
    const LOOK_UPS: usize = 20;
    const LIES: usize = 150;
    let held: Arc<Mutex<Vec<(server::Question, Back)>>> = Arc::default();
    let holds = Arc::clone(&held);
    let server = NameServer::start(move |question, back| {
        holds.lock().unwrap().push((question, back));
    });
    let mut names = Loop::asking(&[&server]);
    ask_for(&mut names, LOOK_UPS, &server);
    // The datagrams arrive before the resolver reads: on loopback, one has arrived once it is sent.
    let asked: Vec<_> = held.lock().unwrap().drain(..).collect();
    for (question, back) in &asked {
        let lie = Message {
            question: Some(("other.test".into(), A)),
            ..question.addresses(60, &[ip("192.0.2.66")])
        };
        for _ in 0..LIES {
            back.send(&lie);
        }
        back.send(&question.addresses(60, &[ip("192.0.2.1")]));
    }
    let (mut turns, mut answered) = (0, Vec::new());
    while answered.len() < LOOK_UPS {
        names.turn();
        turns += 1;
        let due = names.hickory.deadline();
        let before = answered.len();
        while let Some((_, answer)) = names.hickory.take() {
            assert_eq!(answer, found(&["192.0.2.1"], 60));
            answered.push(turns);
        }
        if answered.len() < LOOK_UPS && before == answered.len() {
            assert!(
                due.is_some_and(|due| due <= Instant::now()),
                "the rest is due"
            );
        }
    }
    let least = LOOK_UPS * LIES / 256;
    assert!(turns >= least, "{turns} turns for {} lies", LOOK_UPS * LIES);
    // Lookups are read side by side: none is read to its end before all have had a turn.
    assert!(answered[0] > least / 2, "{answered:?}");
}

#[test]
fn resolvers_on_one_thread_do_not_get_into_each_others_way() {
    let servers = [honest(), honest()];
    let mut loops = servers.each_ref().map(|server| Loop::asking(&[server]));
    for n in 0..20 {
        for names in &mut loops {
            names.start(&format!("h{n}.test"), Family::V4);
        }
    }
    for names in &mut loops {
        for _ in 0..20 {
            let (_, answer) = names.turn_until(|this| this.hickory.take());
            assert_eq!(answer, found(&["192.0.2.1"], 60));
        }
    }
    let [first, mut second] = loops;
    drop(first);
    assert_eq!(
        second.look_up("h.test", Family::V4),
        found(&["192.0.2.1"], 60)
    );
    let asked = servers.map(|server| {
        let mut names = server.names();
        names.sort_unstable();
        names.dedup();
        names.len()
    });
    assert_eq!(asked, [20, 21]);
}

#[test]
fn each_thread_may_have_its_resolver() {
    let server = honest();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut names = Loop::asking(&[&server]);
                for n in 0..20 {
                    let answer = names.look_up(&format!("h{n}.test"), Family::V4);
                    assert_eq!(answer, found(&["192.0.2.1"], 60));
                }
            });
        }
    });
}

#[test]
fn a_thread_may_end_before_its_look_ups() {
    thread_local! {
        static LEFT: RefCell<Option<Loop>> = const { RefCell::new(None) };
    }
    let server = NameServer::unresponsive();
    for leaves_it_to_the_thread in [true, false] {
        thread::scope(|scope| {
            let run = || {
                if leaves_it_to_the_thread {
                    // Initialized before the reactors' own thread-local. The two are dropped in
                    // either order.
                    LEFT.set(None);
                }
                let mut names = Loop::asking(&[&server]);
                names.start("h.test", Family::V4);
                for _ in 0..3 {
                    names.turn();
                }
                assert!(names.counts().sockets > 0);
                if leaves_it_to_the_thread {
                    LEFT.set(Some(names))
                } else {
                    std::mem::forget(names)
                }
            };
            scope.spawn(run).join().expect("the thread does not panic");
        });
    }
}

#[test]
fn without_a_poll_every_look_up_fails() {
    let mut hickory = Hickory::with_config(HickoryConfig::default());
    hickory.attach(Wake::new(|| {}));
    hickory.start("h.test", Family::V4, LookupId(7));
    let (id, answer) = hickory.take().unwrap();
    assert_eq!(id, LookupId(7));
    assert_eq!(
        answer,
        failed("this resolver needs a poll of the operating system".into())
    );
    assert!(hickory.take().is_none() && hickory.deadline().is_none());
}

#[test]
fn when_no_token_is_left_it_is_this_machine_that_is_short_of_something() {
    let server = NameServer::unresponsive();
    let mut names = Loop::on_tokens(10..13, config(&[&server]));
    for n in 0..4 {
        names.start(&format!("h{n}.test"), Family::V4);
    }
    let (_, answer) = names.turn_until(|this| this.hickory.take());
    let Err(LookupError::Exhausted(why)) = &answer.addresses else {
        panic!("{answer:?}")
    };
    assert!(why.starts_with(&format!("{}: ", server.addr)), "{why}");
}

/// A token is reused only after all others in the range have been used.
#[test]
fn events_for_sockets_that_are_gone_reach_nobody() {
    let server = honest();
    let mut names = Loop::on_tokens(100..108, config(&[&server]));
    for _ in 0..30 {
        assert_eq!(
            names.look_up("h.test", Family::V4),
            found(&["192.0.2.1"], 60)
        );
        for token in 90..120 {
            names.hickory.on_event(mio::Token(token));
        }
    }
    let unresponsive = NameServer::unresponsive();
    let mut names = Loop::on_tokens(100..108, config(&[&unresponsive]));
    names.start("h.test", Family::V4);
    names.turn_until(|_| (!unresponsive.seen().is_empty()).then_some(()));
    for token in 90..120 {
        names.hickory.on_event(mio::Token(token));
    }
    names.turn();
    assert!(names.hickory.take().is_none(), "an event is not an answer");
}

#[test]
fn a_task_can_be_woken_from_another_thread_and_the_engine_with_it() {
    let (woken, poll) = (Arc::new(AtomicUsize::new(0)), Poll::new().unwrap());
    let wake = Wake::new({
        let woken = Arc::clone(&woken);
        move || {
            woken.fetch_add(1, Ordering::Relaxed);
        }
    });
    let reactor = Reactor::new(poll.registry().try_clone().unwrap(), 0..10, wake);
    let waker: Rc<RefCell<Option<Waker>>> = Rc::default();
    let polls = Rc::new(RefCell::new(0));
    let (leaves, counts) = (Rc::clone(&waker), Rc::clone(&polls));
    let task = std::future::poll_fn(move |cx| {
        *leaves.borrow_mut() = Some(cx.waker().clone());
        *counts.borrow_mut() += 1;
        TaskPoll::Pending
    });
    reactor.spawn(TaskKind::LookUp, task);
    reactor.run(Instant::now());
    assert_eq!((*polls.borrow(), reactor.deadline()), (1, None));
    let far = waker.borrow().clone().unwrap();
    thread::spawn(move || far.wake()).join().unwrap();
    assert_eq!(woken.load(Ordering::Relaxed), 1);
    assert!(reactor.deadline().is_some(), "the woken task is due");
    reactor.run(Instant::now());
    assert_eq!(*polls.borrow(), 2);
    waker.borrow().as_ref().unwrap().wake_by_ref();
    waker.borrow().as_ref().unwrap().wake_by_ref();
    assert_eq!(
        woken.load(Ordering::Relaxed),
        1,
        "the reactor's own thread needs no wake-up"
    );
    reactor.run(Instant::now());
    assert_eq!(*polls.borrow(), 3, "a task woken twice is polled once");
    reactor.clear();
}
