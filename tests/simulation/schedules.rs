//! Hosts that schedule badly, a thousand schedules each: smaller runs than those of
//! `whatever_chance`, with all they check.
//!
//! - `HTTPSTREAM_SIM_SCHEDULES=100000` runs so many, `5000..9000` just these; `.ci/run` asks for
//!   ten thousand and more;
//! - `HTTPSTREAM_SIM_SCHEDULE=7` runs one and tells what happens in it.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::host::{Scope, run_as};
use crate::watching::{Habit, Watching};
use crate::{FAILURES, range_in};

/// What a plain `cargo test` runs.
const SEEDS: Range<u64> = 0..1000;

/// Runs the schedules of one kind of host; answers the first that went wrong, with the way to see
/// them again.
fn failures(watching: Watching, seeds: Range<u64>, test: &str) -> Vec<String> {
    let mut failed = Vec::new();
    for seed in seeds {
        let wrong = match catch_unwind(AssertUnwindSafe(|| {
            run_as(seed, watching, Scope::Small, false)
        })) {
            Ok(report) if report.wrong.is_empty() => continue,
            Ok(report) => report.wrong[0].clone(),
            Err(_) => "it panicked".to_owned(),
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
        let seed = seed.parse().expect("HTTPSTREAM_SIM_SCHEDULE is a number");
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

/// The checks would see it if anything were lost: a host that does not do its part loses something
/// in some of every hundred schedules.
#[test]
fn a_host_that_does_not_do_its_part_is_found_out() {
    for habit in [Habit::Overhears, Habit::LeavesEarly] {
        let failed = failures(Watching::Edge(habit), 0..500, "");
        assert_eq!(failed.len(), FAILURES, "{habit:?}: {failed:#?}");
    }
}
