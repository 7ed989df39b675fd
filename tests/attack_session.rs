//! Attacks on sessions.

mod common;
#[path = "counting/mod.rs"]
mod counting;

use std::time::{Duration, Instant};

use common::{Server, ok};
use httpstream::session::{Jar, Redirects, Session};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Context, Engine, Next, Reply, Sim};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_session_keeps_nothing_of_engines_that_are_gone() {
    let server = Server::start(|peer| while peer.answer(&ok("a")) {});
    let session = Session::new();
    let url = format!("http://{}/", server.addr);
    let mut before = 0;
    for round in 0..200 {
        let mut engine = Engine::<u64>::with_config(Config::default()).unwrap();
        let request = session.get(&url).build().unwrap();
        engine.submit(
            request,
            |n: &mut u64, reply: Reply<'_>, _: &mut Context<'_, u64>| {
                *n += u64::from(reply.is_ok());
                Next::done()
            },
        );
        let mut n = 0;
        engine.run(&mut n).unwrap();
        assert_eq!(n, 1);
        drop(engine);
        if round == 20 {
            before = descriptors();
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    let after = descriptors();
    println!("{before} -> {after}");
    assert!(after <= before + 20, "{before} -> {after} descriptors");
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
        let start = Instant::now();
        let calls = counting::calls();
        let mut n = 0;
        engine.run(&mut n).unwrap();
        assert_eq!(n, count);
        println!(
            "{count}: {:?} {} calls",
            start.elapsed(),
            counting::calls() - calls
        );
        times.push(start.elapsed());
    }
    assert!(times[1] < times[0] * 8, "{times:?}");
}

#[test]
fn two_ends_a_turn_do_not_starve() {
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
    println!("{}", engine.pending());
    let _ = Jar::new();
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn an_end_with_100_000_chains_takes_short_turns_and_arrives() {
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
    let (mut turns, mut longest) = (0, Duration::ZERO);
    while engine.pending() > 150_100 && turns < 2000 {
        engine.start(Next::wait().after(Duration::MAX).session(&other));
        let before = cpu();
        engine.turn(&mut n).unwrap();
        longest = longest.max(cpu() - before);
        other.end();
        turns += 1;
    }
    println!(
        "{turns} turns, the longest {longest:?}, {} left",
        engine.pending()
    );
    assert!(
        turns < 2000,
        "{} chains of an ended session are left",
        engine.pending() - 150_000
    );
}
