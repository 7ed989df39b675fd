//! A week of the bot in virtual time, while everything goes wrong that can: nothing is lost, and
//! nothing is said twice.
//!
//! - `HTTPSTREAM_SIM_SEED=7 cargo test --test webqq week` runs the week and the hours with another
//!   seed;
//! - `HTTPSTREAM_SIM_SEEDS=1000 cargo test --release --test webqq hours` runs that many hours,
//!   `50..60` just these.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use httpstream::sim::{Fault, Faults};

use crate::bot::Stage;
use crate::events::Event;
use crate::life::{Diary, Life, Pace};
use crate::script::Expectations;
use crate::server::{Ledger, Wish, all_switches};
use crate::simulated::{ACCOUNT, HOUR, MINUTE, Simulation};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long the operator takes to restart a bot that has stopped.
const OPERATOR: Duration = MINUTE;

/// What the network may do at any time; `roughness` says how often.
///
/// Faults that can destroy a send before its server has read all of it are left out. A server that
/// closes connections on its own ([`Fault::CloseAfter`], `CloseBefore`, ...) may close one with a
/// send in flight, [`Fault::Silence`] and `StopsReading` swallow a send, and [`Fault::Delay`]
/// delays it for longer than the bot waits. The bot never repeats a send that may have been
/// received, and it cannot tell these cases from a lost answer, so a missing message would prove
/// nothing. Lost answers are left to the brain, which records what it has received. Slow lookups
/// are left out as well: a request that waits for one may belong to a session that has been over
/// for longer than the brain excuses.
fn weather(roughness: u16) -> Faults {
    let harmless = [
        (Fault::Split, 20),
        (Fault::ShortWrite, 10),
        (Fault::SmallSendBuffer, 6),
        (Fault::SmallWindow, 6),
        (Fault::NoLatency, 10),
        (Fault::MidTurn, 10),
        (Fault::Reorder, 50),
        (Fault::BareEvent, 20),
        (Fault::Stale, 10),
        (Fault::Spurious, 2),
        (Fault::Interrupted, 2),
        (Fault::ConnectedAtOnce, 20),
        (Fault::EndWithData, 100),
        (Fault::ResetDiscards, 60),
    ];
    // These fail an attempt to send before its first byte is sent, so that it is repeated.
    let early = [
        (Fault::Refused, 2),
        (Fault::Unreachable, 1),
        (Fault::NoDescriptor, 1),
        (Fault::NoPort, 1),
        (Fault::NoWatch, 1),
        (Fault::FailedLookup, 1),
        (Fault::ExhaustedLookup, 1),
    ];
    let all = harmless.into_iter().chain(early);
    all.fold(Faults::none(), |faults, (fault, per_mille)| {
        faults.with(fault, per_mille * roughness)
    })
}

/// A simulated life and its judgment.
struct Lived {
    sim: Simulation,
    diary: Diary,
    complaints: Vec<String>,
    fingerprint: u64,
}

fn live(seed: u64, time: Duration, refresh: Duration, roughness: u16, pace: Pace) -> Lived {
    let (expectations, diary) = (Expectations::default(), Arc::new(Mutex::default()));
    let life = Life::new(seed, pace, expectations.clone(), Arc::clone(&diary));
    let mut sim = Simulation::new(seed, refresh, life);
    sim.network.set_faults(weather(roughness));
    sim.set_slow(roughness);
    let is_over = || diary.lock().expect("the lock is not poisoned").is_over;
    while sim.elapsed() < time || !is_over() {
        let until = sim.elapsed() + OPERATOR;
        sim.run(until, |_| false);
        // Otherwise the network would keep every request of a week.
        sim.network.clear_ledger();
        if sim.bot.stage == Stage::Offline {
            sim.grant(Wish::Login { account: ACCOUNT });
        }
    }
    // A bot that has just come back has messages to read.
    sim.run(sim.elapsed() + 2 * MINUTE, |_| false);
    sim.log_out();
    let diary = diary.lock().expect("the lock is not poisoned").clone();
    let complaints = sim.complaints(&expectations, &[]);
    let fingerprint = sim.network.fingerprint();
    Lived {
        sim,
        diary,
        complaints,
        fingerprint,
    }
}

impl Lived {
    fn count(&self, is_meant: fn(&Event) -> bool) -> usize {
        let events = self.sim.log.iter();
        events.filter(|entry| is_meant(&entry.event)).count()
    }

    fn ledger<R>(&self, look: impl FnOnce(&Ledger) -> R) -> R {
        self.sim.brain(|brain| look(brain.ledger()))
    }

    /// Checks that all went well.
    fn check(&self, seed: u64) {
        if one_seed().is_some() {
            self.tell();
        }
        let complaints = &self.complaints;
        let count = complaints.len();
        let first: Vec<&String> = complaints.iter().take(10).collect();
        assert!(
            count == 0,
            "seed {seed}: {count} complaints, such as {first:#?}"
        );
    }

    /// Returns how many heartbeats the bot has sent, whatever their answers.
    fn beats(&self) -> usize {
        self.count(|event| match event {
            Event::Beat => true,
            Event::Trouble { what, .. } => *what == "heartbeat",
            _ => false,
        })
    }

    /// Prints what happened, from both sides.
    fn tell(&self) {
        for entry in &self.sim.log {
            println!("{:12.3} {}", entry.at.as_secs_f64(), entry.event);
        }
        self.ledger(|ledger| {
            for error in &ledger.errors {
                println!("{:12.3} {error:?}", error.at.as_secs_f64());
            }
        });
    }

    fn summary(&self) -> String {
        let (messages, answers, requests, beats, errors) = self.ledger(|ledger| {
            (
                ledger.messages.len(),
                ledger
                    .answers
                    .iter()
                    .filter(|answer| answer.accepted)
                    .count(),
                ledger.requests,
                ledger.heartbeats,
                ledger.errors.len(),
            )
        });
        let (logins, relinks, fired) = self.ledger(|ledger| {
            let fired: u64 = ledger.fired.values().sum();
            (ledger.logins, ledger.relinks, fired)
        });
        let struck: u64 = Fault::ALL
            .iter()
            .map(|fault| self.sim.network.struck(*fault))
            .sum();
        let again = self.count(|event| matches!(event, Event::LoggingInAgain { .. }));
        let perhaps = self.count(|event| matches!(event, Event::PerhapsSaid { .. }));
        let repeated = self.count(|event| matches!(event, Event::Repeated { .. }));
        let days = self.sim.elapsed().as_secs_f64() / 86_400.0;
        let stats = self.sim.engine.stats();
        format!(
            "{days:.2} days: {messages} messages, {answers} answers ({perhaps} perhaps said), {repeated} repeated, \
             {beats} of {} heartbeats, {logins} logins and {relinks} relinks after {again} ends, {} episodes, {fired} faults of the \
             server in {requests} requests ({errors} refused), {struck} of the network, {} connections",
            self.beats(),
            self.diary.episodes.len(),
            stats.opened,
        )
    }
}

fn one_seed() -> Option<u64> {
    let seed = std::env::var("HTTPSTREAM_SIM_SEED").ok()?;
    Some(seed.parse().expect("HTTPSTREAM_SIM_SEED must be a number"))
}

fn seeds(usual: Range<u64>) -> Range<u64> {
    if let Some(seed) = one_seed() {
        return seed..seed + 1;
    }
    let Ok(text) = std::env::var("HTTPSTREAM_SIM_SEEDS") else {
        return usual;
    };
    let number = |text: &str| text.trim().parse::<u64>();
    let range = match text.split_once("..") {
        Some((from, to)) => number(from).and_then(|from| Ok(from..number(to)?)),
        None => number(&text).map(|count| 0..count),
    };
    range.expect("HTTPSTREAM_SIM_SEEDS must be a number, or a range such as 5..9")
}

#[test]
fn a_week_passes_and_nothing_is_lost_or_said_twice() {
    let seed = one_seed().unwrap_or(1);
    let pace = Pace {
        line: Duration::from_secs(100),
        episode: Duration::from_secs(10 * 60),
        lines_end: WEEK - 2 * MINUTE,
        episodes_end: WEEK - HOUR,
    };
    let began = Instant::now();
    let lived = live(seed, WEEK, 10 * MINUTE, 1, pace);
    println!(
        "{} in {:.1} s",
        lived.summary(),
        began.elapsed().as_secs_f64()
    );
    lived.check(seed);
    let (messages, beats) = lived.ledger(|ledger| (ledger.messages.len(), ledger.heartbeats));
    assert!(messages >= 5000, "{messages} messages");
    // One a minute, and one extra after each login.
    assert!((10_080..11_000).contains(&beats), "{beats} heartbeats");
    let Diary { stuck, .. } = &lived.diary;
    assert!(stuck.is_empty(), "never occurred: {stuck:?}");
    let unused: Vec<String> = lived.ledger(|ledger| {
        let switches = all_switches().into_iter();
        switches
            .filter(|name| !ledger.fired.contains_key(name))
            .collect()
    });
    assert!(unused.is_empty(), "never happened in a week: {unused:?}");
}

#[test]
fn hours_full_of_faults_lose_nothing() {
    for seed in seeds(0..20) {
        let pace = Pace {
            line: Duration::from_secs(20),
            episode: Duration::from_secs(30),
            lines_end: HOUR - 2 * MINUTE,
            episodes_end: HOUR,
        };
        let lived = live(seed, HOUR, MINUTE, 5, pace);
        println!("seed {seed}: {}", lived.summary());
        lived.check(seed);
    }
}

#[test]
fn equal_seeds_live_the_same_hour() {
    let hour = |seed| {
        let pace = Pace {
            line: Duration::from_secs(20),
            episode: Duration::from_secs(30),
            lines_end: HOUR - 2 * MINUTE,
            episodes_end: HOUR,
        };
        live(seed, HOUR, MINUTE, 5, pace)
    };
    let (first, second, other) = (hour(1), hour(1), hour(2));
    assert_eq!(first.fingerprint, second.fingerprint);
    assert_ne!(first.fingerprint, other.fingerprint);
    let lines = |lived: &Lived| -> Vec<String> {
        let log = lived.sim.log.iter();
        log.map(|entry| entry.to_json(ACCOUNT).to_string())
            .collect()
    };
    assert_eq!(lines(&first), lines(&second));
}
