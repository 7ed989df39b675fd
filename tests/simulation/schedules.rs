//! Hosts that schedule badly, with a thousand schedules each: shorter runs than those of
//! `whatever_chance`, with all their checks.
//!
//! - `HTTPSTREAM_SIM_SCHEDULES=100000` runs this many schedules, and `5000..9000` exactly these;
//!   `.ci/run` runs ten thousand and more.
//! - `HTTPSTREAM_SIM_SCHEDULE=7` runs one schedule and prints what happens in it.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::host::{Scope, run_as};
use crate::watching::{Habit, Watching};
use crate::{FAILURES, range_in};

/// The schedules that a plain `cargo test` runs.
const SEEDS: Range<u64> = 0..1000;

/// Runs the schedules of one kind of host. Returns the first failures, with the commands that
/// reproduce them.
fn failures(watching: Watching, seeds: Range<u64>, test: &str) -> Vec<String> {
    let mut failed = Vec::new();
    for seed in seeds {
        let wrong = match catch_unwind(AssertUnwindSafe(|| {
            run_as(seed, watching, Scope::Small, false)
        })) {
            Ok(report) if report.wrong.is_empty() => continue,
            Ok(report) => report.wrong[0].clone(),
            Err(_) => "the run panicked".to_owned(),
        };
        failed.push(format!(
            "seed {seed}: {wrong}\n  HTTPSTREAM_SIM_SCHEDULE={seed} cargo test --test simulation {test} -- --nocapture"
        ));
        if failed.len() == FAILURES {
            break;
        }
    }
    failed
}

fn lose_nothing(watching: Watching, test: &str) {
    if let Ok(seed) = std::env::var("HTTPSTREAM_SIM_SCHEDULE") {
        let seed = seed
            .parse()
            .expect("HTTPSTREAM_SIM_SCHEDULE must be a number");
        let report = run_as(seed, watching, Scope::Small, true);
        assert!(report.wrong.is_empty(), "seed {seed}: {:#?}", report.wrong);
        return;
    }
    let seeds = range_in("HTTPSTREAM_SIM_SCHEDULES").unwrap_or(SEEDS);
    let failed = failures(watching, seeds, test);
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_host_that_is_told_of_edges_loses_nothing() {
    lose_nothing(Watching::Edge(Habit::Sound), "told_of_edges");
}

#[test]
fn a_host_with_a_budget_of_one_event_loses_nothing() {
    lose_nothing(Watching::OneEvent, "budget_of_one");
}

#[test]
fn equal_schedules_do_the_same() {
    for watching in [Watching::Edge(Habit::Sound), Watching::OneEvent] {
        for seed in 0..20 {
            let run = || run_as(seed, watching, Scope::Small, false).fingerprint;
            assert_eq!(run(), run(), "{watching:?} {seed}");
        }
    }
}

/// Validates the checks: a faulty host loses something in some of every hundred schedules, and the
/// checks notice.
#[test]
fn a_host_that_does_not_do_its_part_is_found_out() {
    for habit in [Habit::Overhears, Habit::LeavesEarly] {
        let failed = failures(Watching::Edge(habit), 0..500, "");
        assert_eq!(failed.len(), FAILURES, "{habit:?}: {failed:#?}");
    }
}
