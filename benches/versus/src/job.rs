//! What one client process is asked to do, and what it says it has cost. Both go between processes
//! as JSON, a line each.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One of those that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Client {
    /// A minimal mio client: a pre-serialized request, httparse, and no features.
    Floor,
    Httpstream,
    HyperConn,
    HyperUtil,
    Reqwest,
    CurlMulti,
    MioHttpc,
    Ureq,
    /// Another program, where it is installed: throughput only.
    Wrk,
}

/// What is asked for, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// Six fields and 128 bytes.
    Small,
    /// The same in three chunks.
    Chunked,
    /// 30 fields.
    Fields,
    /// 64 KiB, collected.
    Large,
    /// 1 MiB, collected.
    Huge,
    /// 1 MiB, handed out piece by piece.
    HugeStreamed,
    /// As small, each on a connection of its own.
    Close,
    /// As small, over https.
    Tls,
    /// As small, so many requests unanswered on each connection.
    Pipelined { depth: usize },
    /// As small, each a millisecond after the answer to the last.
    Delayed,
    /// Requests that are not answered: what is measured is what they cost while they wait.
    Held,
}

/// What one client process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) client: Client,
    pub(crate) workload: Workload,
    /// Where the server listens, on one port of several loopback addresses.
    pub(crate) servers: Vec<SocketAddr>,
    /// PEM of the root certificate that the server shows one of.
    pub(crate) root: PathBuf,
    /// Requests in flight at once, each on a connection of its own but where they are pipelined.
    pub(crate) connections: usize,
    /// Open beside them, with a request that is not answered.
    #[serde(default)]
    pub(crate) held: usize,
    /// Requests before the measurement: each connection is open after them.
    pub(crate) warm_up: usize,
    /// Requests that are measured.
    pub(crate) requests: usize,
    /// Whether the time of each request is taken, where one is in flight at a time. The clock is no
    /// part of what is counted.
    #[serde(default)]
    pub(crate) timed: bool,
}

/// What the measured requests have cost, all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) wall_seconds: f64,
    pub(crate) user_seconds: f64,
    pub(crate) system_seconds: f64,
    pub(crate) allocations: u64,
    pub(crate) allocated_bytes: u64,
    /// More bytes of heap in use at the end than at the start.
    pub(crate) heap_bytes: i64,
    /// Likewise of resident memory.
    pub(crate) resident_bytes: i64,
    /// Of the requests that were measured: the rest failed.
    pub(crate) answered: u64,
    /// Median time between a request and its answer, where only one is in flight.
    pub(crate) median_latency_seconds: Option<f64>,
}

impl Cost {
    /// User and system time of a request.
    pub(crate) fn cpu_seconds_each(&self) -> f64 {
        (self.user_seconds + self.system_seconds) / self.answered.max(1) as f64
    }
}

/// How a job went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Cost(Cost),
    /// It is none for this client, and why.
    NotApplicable(String),
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_and_its_outcome_come_through_as_they_were() {
        let job = Job {
            client: Client::HyperConn,
            workload: Workload::Pipelined { depth: 16 },
            servers: vec![SocketAddr::from(([127, 0, 0, 1], 80))],
            root: PathBuf::from("/tmp/a root.pem"),
            connections: 50,
            held: 7,
            warm_up: 100,
            requests: 1000,
            timed: true,
        };
        let line = serde_json::to_string(&job).expect("it is data");
        assert!(!line.contains('\n'));
        let read: Job = serde_json::from_str(&line).expect("it is a job");
        assert_eq!(format!("{read:?}"), format!("{job:?}"));

        let cost = Cost {
            user_seconds: 0.25,
            answered: 1000,
            median_latency_seconds: Some(1e-5),
            ..Cost::default()
        };
        for outcome in [
            Outcome::Cost(cost),
            Outcome::NotApplicable("it has no \"TLS\"\n".to_owned()),
            Outcome::Failed("no".to_owned()),
        ] {
            let line = serde_json::to_string(&outcome).expect("it is data");
            assert!(!line.contains('\n'));
            let read: Outcome = serde_json::from_str(&line).expect("it is an outcome");
            assert_eq!(read, outcome);
        }
    }
}
