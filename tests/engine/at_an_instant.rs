//! Steps that begin at an instant (`Next::at`), in virtual time.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Context, Engine, Next, Reply, Request, Sim};

/// A slow server, and when each request reached it.
fn slow(answer_after: Duration) -> (Network, Rc<RefCell<Vec<Duration>>>) {
    let network = Network::new(1);
    network.host("bot.test", [[10, 0, 0, 1]]);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&seen);
    let _ = network.serve("10.0.0.1:80".parse().unwrap(), move |request: &Incoming| {
        log.borrow_mut().push(request.at);
        Answer::status(204).after(answer_after)
    });
    (network, seen)
}

fn request() -> Request {
    Request::get("http://bot.test/").build().unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);

struct Heart {
    next: Instant,
}

impl Heart {
    fn on_beat(&mut self, _: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        self.next += MINUTE;
        Next::again().at(self.next)
    }
}

#[test]
fn a_heartbeat_does_not_drift() {
    let (network, seen) = slow(Duration::from_millis(777));
    let mut engine = Engine::<Heart, Sim>::on_network(&network, Config::default()).unwrap();
    let mut heart = Heart {
        next: network.now(),
    };
    engine.submit(request(), Heart::on_beat);
    engine.advance(&mut heart, 60 * MINUTE).unwrap();
    let seen = seen.borrow();
    assert_eq!(seen.len(), 60);
    // The connection is kept, so every beat after the first takes equally long.
    for pair in seen[1..].windows(2) {
        let period = pair[1] - pair[0];
        assert!(
            period.abs_diff(MINUTE) <= Duration::from_millis(50),
            "{period:?}"
        );
    }
    let drift = (seen[59] - seen[1]).abs_diff(58 * MINUTE);
    assert!(drift <= Duration::from_millis(50), "{drift:?} in an hour");
}

#[test]
fn an_instant_that_has_passed_is_now() {
    let (network, seen) = slow(Duration::ZERO);
    let mut engine = Engine::<u32, Sim>::on_network(&network, Config::default()).unwrap();
    let past = network.now();
    engine.advance(&mut 0, MINUTE).unwrap();
    let mut replies = 0;
    engine.submit(request(), move |replies: &mut u32, _, _| {
        *replies += 1;
        if *replies < 5 {
            Next::again().at(past)
        } else {
            Next::done()
        }
    });
    engine
        .advance(&mut replies, Duration::from_secs(5))
        .unwrap();
    assert_eq!((replies, seen.borrow().len()), (5, 5));
    assert_eq!(engine.pending(), 0);
}

#[test]
fn at_replaces_delays_given_before_and_delays_given_after_count_from_it() {
    type Row = (
        &'static str,
        fn(Next<u32>, Instant) -> Next<u32>,
        Option<u64>,
    );
    const ROWS: [Row; 5] = [
        ("at", |next, at| next.at(at), Some(60)),
        (
            "after, at",
            |next, at| next.after(9 * MINUTE).at(at),
            Some(60),
        ),
        ("at, after", |next, at| next.at(at).after(MINUTE), Some(120)),
        ("at, at", |next, at| next.at(at + MINUTE).at(at), Some(60)),
        (
            "at, after for ever",
            |next, at| next.at(at).after(Duration::MAX),
            None,
        ),
    ];
    for (why, step, due) in ROWS {
        let network = Network::new(1);
        let mut engine = Engine::<u32, Sim>::on_network(&network, Config::default()).unwrap();
        let begin = network.now();
        // Some time passes first, so a mix-up of the two clocks would show.
        engine.advance(&mut 0, Duration::from_secs(10)).unwrap();
        engine.start(step(
            Next::call(|calls: &mut u32, cx| {
                *calls += 1;
                cx.done()
            }),
            begin + MINUTE,
        ));
        let mut calls = 0;
        let Some(due) = due else {
            assert_eq!(engine.next_timeout().map(|t| t.is_zero()), Some(true));
            engine.advance(&mut calls, 1000 * MINUTE).unwrap();
            assert_eq!((calls, engine.pending()), (0, 1), "{why}");
            continue;
        };
        let almost = Duration::from_secs(due - 10) - Duration::from_millis(1);
        engine.advance(&mut calls, almost).unwrap();
        assert_eq!(calls, 0, "{why}: early");
        engine
            .advance(&mut calls, Duration::from_millis(2))
            .unwrap();
        assert_eq!(calls, 1, "{why}: late");
    }
}

#[test]
fn a_drain_lets_a_request_end_whose_instant_has_passed() {
    let (network, seen) = slow(Duration::from_millis(5));
    let mut engine = Engine::<u32, Sim>::on_network(&network, Config::default()).unwrap();
    for at in [network.now(), network.now() + MINUTE] {
        engine.start(
            engine
                .send(request())
                .at(at)
                .read_by(|answered: &mut u32, reply, cx| {
                    *answered += u32::from(reply.is_ok());
                    cx.done()
                }),
        );
    }
    let mut answered = 0;
    // The one that is due is sent, and the delayed one is canceled.
    assert_eq!(engine.drain(&mut answered, MINUTE).unwrap(), 1);
    assert_eq!((answered, seen.borrow().len(), engine.pending()), (1, 1, 0));
}
