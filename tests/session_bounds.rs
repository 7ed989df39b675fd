//! What sessions cost stays in proportion, however many redirects, ends and chains there are.
#![cfg(target_os = "linux")]

use std::time::Duration;

use httpstream::session::{Redirects, Session};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Context, Engine, Next, Reply, Sim};

/// Returns the processor time of this thread.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn many_redirects_cost_the_same_each() {
    let network = Network::new(1);
    network.host("a.test", [[10, 0, 0, 1]]);
    network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| {
        let n: usize = request.path()[1..].parse().unwrap();
        match n {
            0 => Answer::ok("end"),
            n => Answer::status(302).header("Location", format!("/{}", n - 1)),
        }
    });
    let mut times = Vec::new();
    for count in [2000, 8000] {
        let session = Session::builder()
            .redirects(Redirects::limited(usize::MAX))
            .build()
            .unwrap();
        let request = session
            .get(format!("http://a.test/{count}"))
            .build()
            .unwrap();
        let mut engine = Engine::<usize, Sim>::on_network(&network, Config::default()).unwrap();
        engine.submit(
            request,
            |n: &mut usize, reply: Reply<'_>, _: &mut Context<'_, usize>| {
                *n = reply.unwrap().info().hops().len();
                Next::done()
            },
        );
        let before = processor_time();
        let mut n = 0;
        engine.run(&mut n).unwrap();
        assert_eq!(n, count);
        times.push(processor_time() - before);
    }
    // Four times as many would take sixteen times as long if each copied all before it.
    assert!(times[1] < times[0] * 8, "{times:?}");
}

#[test]
fn an_end_is_not_overtaken_by_those_of_another_session() {
    let network = Network::new(1);
    network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
        Answer::ok("a").after(Duration::from_secs(1))
    });
    let mut engine = Engine::<u64, Sim>::on_network(&network, Config::default()).unwrap();
    let (old, other) = (Session::new(), Session::new());
    // 40,000 waits of nobody in the low slots.
    for _ in 0..40_000 {
        engine.start(Next::wait().after(Duration::MAX));
    }
    engine.start(Next::wait().after(Duration::MAX).session(&old));
    let mut n = 0;
    while engine.next_timeout() == Some(Duration::ZERO) {
        engine.turn(&mut n).unwrap();
    }
    assert_eq!(engine.pending(), 40_001);
    old.end();
    for _ in 0..50 {
        engine.start(Next::wait().after(Duration::MAX).session(&other));
        engine.turn(&mut n).unwrap();
        other.end();
    }
    assert!(engine.pending() <= 40_001, "{}", engine.pending());
}

#[test]
fn an_end_reaches_100_000_chains_while_another_session_keeps_ending() {
    let network = Network::new(1);
    let mut engine = Engine::<u64, Sim>::on_network(&network, Config::default()).unwrap();
    let (old, other) = (Session::new(), Session::new());
    for _ in 0..150_000 {
        engine.start(Next::wait().after(Duration::MAX));
    }
    for _ in 0..100_000 {
        engine.start(Next::wait().after(Duration::MAX).session(&old));
    }
    let mut n = 0;
    while engine.next_timeout() == Some(Duration::ZERO) {
        engine.turn(&mut n).unwrap();
    }
    // Another session ends in every turn.
    old.end();
    let mut turns = 0;
    while engine.pending() > 150_100 && turns < 2000 {
        engine.start(Next::wait().after(Duration::MAX).session(&other));
        engine.turn(&mut n).unwrap();
        other.end();
        turns += 1;
    }
    assert!(
        turns < 2000,
        "{} chains of an ended session are left",
        engine.pending() - 150_000
    );
}
