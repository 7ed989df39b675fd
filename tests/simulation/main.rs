//! The whole engine, readbacks included, on a simulated network: whatever happens by chance, its
//! guarantees hold.
//!
//! A seed determines the servers, the faults, the configuration, the chains, what the readbacks do,
//! and when the host makes turns. Checked throughout: each request is answered once, by its own
//! response, byte for byte; deadlines are neither early nor late, and no chain outlives its own; at
//! most one delayed chain holds a key; nothing that is not idempotent is sent twice; a turn that is
//! not due does nothing; nothing is left at the end; no credential and no cookie reaches an origin
//! that it is not for; nothing of a session that was ended is sent.
//!
//! Of sessions, a policy nested inside keeps the books (`books`), for all engines that share them:
//! - Nothing is retried that may have been processed, more often than allowed, before the time that
//!   the server has asked for, or after a wait that the total deadline would cut short. The budget
//!   pays for each retry as long as there is one left, and refuses none before. Readbacks hear of
//!   each retry once.
//! - In a lane, requests begin in order of their priority and their entry, at most as many at once
//!   as may run, and none as long as a 429 holds it back.
//! - No more requests arrive in any window than the rates allow, nor are more let through at once
//!   than their bursts. None waits without a reason.
//!
//! `MUTANTS.md` in this directory lists faults that these checks have been shown to catch.
//!
//! - `HTTPSTREAM_SIM_SEED=7 cargo test --test simulation` runs one seed and prints what happens in
//!   it.
//! - `HTTPSTREAM_SIM_SEEDS=100000 cargo test --release --test simulation` runs this many seeds, and
//!   `5000..9000` exactly these.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

mod books;
mod codings;
mod coverage;
mod deadlines;
mod host;
mod lanes;
mod neighbor;
mod plan;
mod probe;
mod retries;
mod schedules;
mod server;
mod sessions;
mod sources;
mod watching;
mod world;

use coverage::Coverage;
use host::run;

/// The seeds that `cargo test` runs. Together they have to reach every place listed in `coverage`.
const SEEDS: Range<u64> = 0..1000;

/// The run stops after this many failing seeds.
const FAILURES: usize = 5;

/// Parses the range in an environment variable.
fn range_in(variable: &str) -> Option<Range<u64>> {
    let text = std::env::var(variable).ok()?;
    let number = |text: &str| match text.trim().parse::<u64>() {
        Ok(number) => number,
        Err(_) => panic!("{variable} must be a number, or a range such as 5..9"),
    };
    Some(match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&text),
    })
}

fn replay(seed: u64) -> String {
    let release = if cfg!(debug_assertions) {
        ""
    } else {
        " --release"
    };
    format!(
        "HTTPSTREAM_SIM_SEED={seed} cargo test{release} --test simulation whatever_chance -- --nocapture"
    )
}

#[test]
fn whatever_chance_brings_the_promises_hold() {
    if let Ok(seed) = std::env::var("HTTPSTREAM_SIM_SEED") {
        let seed = seed.parse().expect("HTTPSTREAM_SIM_SEED must be a number");
        // With RUST_LOG=trace, the network and the engine log what they do as well.
        let _ = env_logger::try_init();
        let report = run(seed, true);
        assert!(report.wrong.is_empty(), "seed {seed}: {:#?}", report.wrong);
        return;
    }
    let seeds = range_in("HTTPSTREAM_SIM_SEEDS").unwrap_or(SEEDS);
    let mut coverage = Coverage::default();
    let mut failed = Vec::new();
    for seed in seeds.clone() {
        match catch_unwind(AssertUnwindSafe(|| run(seed, false))) {
            Ok(report) if report.wrong.is_empty() => coverage.add(&report.coverage),
            Ok(report) => failed.push(format!(
                "seed {seed}: {}\n  {}",
                report.wrong[0],
                replay(seed)
            )),
            Err(_) => failed.push(format!("seed {seed} panicked\n  {}", replay(seed))),
        }
        if failed.len() == FAILURES {
            break;
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    println!("{} seeds reached:{coverage}", seeds.end - seeds.start);
    let missing = coverage.missing();
    let enough = seeds.end - seeds.start >= SEEDS.end - SEEDS.start;
    assert!(
        missing.is_empty() || !enough,
        "{seeds:?} never reached {missing:#?}"
    );
}

#[test]
fn equal_seeds_do_the_same() {
    for seed in (0..1000).step_by(25) {
        let (first, second) = (run(seed, false), run(seed, false));
        assert_eq!(first.fingerprint, second.fingerprint, "{}", replay(seed));
    }
}
