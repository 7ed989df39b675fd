//! wrk, if installed, for its throughput. It runs for a time instead of a number of requests, so
//! its start is part of its cost.

use std::error::Error;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::ask::{self, not_applicable};
use crate::job::{Cost, Job, Workload};
use crate::machine;

/// The shortest run that it supports.
const SECONDS: u32 = 1;

pub(crate) fn run(job: &Job) -> Result<Cost, Box<dyn Error>> {
    match job.workload {
        Workload::Small | Workload::Fields | Workload::Chunked | Workload::Large => ask(job),
        Workload::Huge
        | Workload::HugeStreamed
        | Workload::Close
        | Workload::Tls
        | Workload::Pipelined { .. }
        | Workload::Delayed
        | Workload::Held => not_applicable("it is run for its throughput with small answers"),
    }
}

/// Whether it can be started.
pub(crate) fn is_installed() -> bool {
    let version = Command::new("wrk")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok()
}

fn ask(job: &Job) -> Result<Cost, Box<dyn Error>> {
    let begin = Instant::now();
    let output = Command::new("wrk")
        .args(["--threads", "1"])
        .args(["--connections", &job.connections.to_string()])
        .args(["--duration", &format!("{SECONDS}s")])
        .arg(ask::url(job, 0))
        .output()?;
    let wall_seconds = begin.elapsed().as_secs_f64();
    let (user_seconds, system_seconds) = machine::children_computed();
    let said = String::from_utf8(output.stdout)?;
    Ok(Cost {
        wall_seconds,
        user_seconds,
        system_seconds,
        answered: answered(&said).ok_or_else(|| format!("wrk said: {said}"))?,
        ..Cost::default()
    })
}

/// Parses `  4242 requests in 1.00s, 1.45MB read`, if no line reports errors.
fn answered(said: &str) -> Option<u64> {
    let faults = ["Socket errors", "Non-2xx"];
    if faults.iter().any(|fault| said.contains(fault)) {
        return None;
    }
    let count = said
        .lines()
        .find_map(|line| line.split_once(" requests in "))?
        .0;
    count.trim().parse().ok()
}
