//! Measures that do not depend on the machine's load: instructions and system calls per request.
//!
//! Each is the difference between two runs that differ only in the number of requests, so that
//! start, warm-up and end cancel out.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::callgrind::{self, Instructions};
use crate::bench::Bench;
use crate::job::{Client, Job, Outcome, Workload};
use crate::scene::Scene;

/// One client in one scene.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Counted<T> {
    pub(crate) scene: Scene,
    pub(crate) client: Client,
    pub(crate) each: Result<T, String>,
}

/// User-space instructions per request.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Each {
    pub(crate) all: f64,
    /// Outside of rustls and its provider; without TLS the same as `all`.
    pub(crate) outside_tls: f64,
}

/// System calls per request, by name.
pub(crate) type Calls = BTreeMap<String, f64>;

/// All calls except the waits for readiness, one of which may return a single answer or fifty.
pub(crate) fn calls_but_waits(calls: &Calls) -> f64 {
    let waits = ["epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll"];
    calls
        .iter()
        .filter(|(name, _)| !waits.contains(&name.as_str()))
        .map(|(_, count)| count)
        .sum()
}

/// The number of requests in the shorter and the longer run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    few: usize,
    many: usize,
}

impl Lengths {
    pub(crate) fn of(workload: Workload, connections: usize) -> Self {
        let (few, many) = match workload {
            Workload::Huge | Workload::HugeStreamed => (20, 120),
            Workload::Large => (100, 600),
            _ => (300, 1500),
        };
        // More if each connection contributes to the cost of a request.
        let more = if connections > 500 { connections } else { 0 };
        Self {
            few,
            many: many + more,
        }
    }
}

pub(crate) fn is_installed(tool: &str) -> bool {
    let version = Command::new(tool)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// Returns the instructions of one more request of `job`.
pub(crate) fn instructions(bench: &Bench, job: &Job, passes: usize) -> Result<Each, String> {
    if job.client == Client::Wrk {
        return Err("not applicable: it counts time, not requests".to_owned());
    }
    let lengths = Lengths::of(job.workload, job.connections);
    let (mut few, mut many) = (f64::INFINITY, f64::INFINITY);
    let (mut few_outside, mut many_outside) = (f64::INFINITY, f64::INFINITY);
    // The number of pieces in which an answer arrives varies, so the least of each length is used.
    for _ in 0..passes {
        let run = run_callgrind(bench, job, lengths.few)?;
        (few, few_outside) = (few.min(run.all), few_outside.min(run.all - run.tls));
        let run = run_callgrind(bench, job, lengths.many)?;
        (many, many_outside) = (many.min(run.all), many_outside.min(run.all - run.tls));
    }
    let requests = (lengths.many - lengths.few) as f64;
    Ok(Each {
        all: (many - few) / requests,
        outside_tls: (many_outside - few_outside) / requests,
    })
}

fn run_callgrind(bench: &Bench, job: &Job, requests: usize) -> Result<Instructions, String> {
    let out = bench.work_file("callgrind");
    let mut job = job.clone();
    job.requests = requests;
    let tool = [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        format!("--callgrind-out-file={}", out.display()),
    ];
    counted(bench, &tool, &job)?;
    let written = fs::read_to_string(&out).map_err(|error| format!("callgrind: {error}"))?;
    callgrind::read(&written).ok_or_else(|| "callgrind's file cannot be parsed".to_owned())
}

/// Returns the system calls of one more request of `job`.
pub(crate) fn calls(bench: &Bench, job: &Job) -> Result<Calls, String> {
    if job.client == Client::Wrk {
        return Err("not applicable: it counts time, not requests".to_owned());
    }
    let lengths = Lengths::of(job.workload, job.connections);
    let few = run_strace(bench, job, lengths.few)?;
    let many = run_strace(bench, job, lengths.many)?;
    let requests = (lengths.many - lengths.few) as f64;
    let difference = many.into_iter().map(|(name, count)| {
        let before = few.get(&name).copied().unwrap_or(0.0);
        (name, (count - before) / requests)
    });
    // Calls that a run makes once vary by a few; they are not part of a request.
    Ok(difference.filter(|(_, each)| *each >= 0.005).collect())
}

fn run_strace(bench: &Bench, job: &Job, requests: usize) -> Result<Calls, String> {
    let out = bench.work_file("strace");
    let mut job = job.clone();
    job.requests = requests;
    let tool = ["strace", "-f", "-c", "-o"].map(str::to_owned);
    let tool = [&tool[..], &[out.display().to_string()]].concat();
    counted(bench, &tool, &job)?;
    let written = fs::read_to_string(&out).map_err(|error| format!("strace: {error}"))?;
    Ok(read_strace(&written))
}

fn counted(bench: &Bench, tool: &[String], job: &Job) -> Result<(), String> {
    let name = &tool[0];
    if !is_installed(name) {
        return Err(format!("{name} is not installed"));
    }
    match bench.run_under(tool, job) {
        Ok((Outcome::Cost(_), _)) => Ok(()),
        Ok((Outcome::NotApplicable(why), _)) => Err(format!("not applicable: {why}")),
        Ok((Outcome::Failed(why), _)) => Err(format!("failed: {why}")),
        Err(error) => Err(format!("failed: {error}")),
    }
}

/// Parses strace's table: percent, seconds, microseconds per call, calls, perhaps errors, name.
fn read_strace(text: &str) -> Calls {
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, count) = (*words.last()?, words.get(3)?);
        words[0].parse::<f64>().ok()?;
        (name != "total").then_some((name.to_owned(), count.parse().ok()?))
    };
    text.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn straces_table_is_read_with_and_without_errors() {
        let text = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.003000           3      1000           sendto
 35.00    0.002000           2       900        12 recvfrom
  5.00    0.000100          10        10           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.005100           2      1910        12 total
";
        let calls = read_strace(text);
        assert_eq!(calls["sendto"], 1000.0);
        assert_eq!(calls["recvfrom"], 900.0);
        assert_eq!(calls.len(), 3);
        assert_eq!(calls_but_waits(&calls), 1900.0);
    }
}
