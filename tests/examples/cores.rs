//! The program of `examples/cores.rs`: engines on several threads, to which one thread submits.

use crate::programs;
use crate::servers;

use std::time::Duration;

use programs::{Ended, run};

/// Returns how many requests each engine answered in the run with this many threads.
fn answered(stdout: &str, threads: usize) -> Vec<u64> {
    let start = format!("threads      {threads}, which answered ");
    let line = stdout.lines().find_map(|line| line.strip_prefix(&*start));
    let line = line.unwrap_or_else(|| panic!("no run of {threads} threads: {stdout}"));
    line.split(" + ")
        .map(|n| n.parse().expect("a number"))
        .collect()
}

fn cores(args: &[&str]) -> String {
    let Ended {
        code,
        stdout,
        stderr,
    } = run(
        servers::example("cores").args(args),
        Duration::from_secs(120),
    );
    assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
    stdout
}

#[test]
fn each_engine_has_its_turn_and_every_request_is_answered() {
    let stdout = cores(&["--threads", "3", "--requests", "3050", "--chain", "10"]);
    assert_eq!(answered(&stdout, 1), [3050]);
    // 305 submissions.
    assert_eq!(answered(&stdout, 3), [1020, 1020, 1010]);
    assert_eq!(
        stdout.matches("answered     3050 (0 failed)").count(),
        2,
        "{stdout}"
    );
}

#[test]
fn what_is_spread_by_key_comes_to_the_same_engine_each_time() {
    let share = |requests: &str| {
        let args = ["--by-key", "--chain", "1", "--requests", requests];
        answered(&cores(&args), 2)
    };
    // Each of the thousand accounts once, and three times.
    let (once, thrice) = (share("1000"), share("3000"));
    assert_eq!(once.iter().sum::<u64>(), 1000);
    assert!(once.iter().all(|&n| n > 300), "unevenly spread: {once:?}");
    assert_eq!(thrice, [3 * once[0], 3 * once[1]]);
}

#[test]
fn arguments_that_are_wrong_are_refused_before_anything_is_done() {
    for args in [&["--threads", "0"][..], &["--chain"], &["--fast"]] {
        let ended = run(
            servers::example("cores").args(args),
            Duration::from_secs(60),
        );
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{args:?}");
        assert!(ended.stderr.contains(args[0]), "{}", ended.stderr);
    }
}
