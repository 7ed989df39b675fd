//! The job of one client process, and the cost that it reports. Both are passed between processes
//! as JSON, one line each.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A client that is compared.
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
    /// Another program, if installed: throughput only.
    Wrk,
}

/// What is requested, and how.
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
    /// 1 MiB, handed out in pieces.
    HugeStreamed,
    /// Like small, each on a connection of its own.
    Close,
    /// Like small, over https.
    Tls,
    /// Like small, with `depth` unanswered requests on each connection.
    Pipelined { depth: usize },
    /// Like small, each a millisecond after the answer to the last.
    Delayed,
    /// Requests that are not answered, to measure their cost while they wait.
    Held,
}

/// The job of one client process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) client: Client,
    pub(crate) workload: Workload,
    /// Where the server listens, on one port of several loopback addresses.
    pub(crate) servers: Vec<SocketAddr>,
    /// A PEM file with the root of the server's certificate.
    pub(crate) root: PathBuf,
    /// Requests in flight at once, each on a connection of its own unless they are pipelined.
    pub(crate) connections: usize,
    /// Additional open connections, each with a request that is not answered.
    #[serde(default)]
    pub(crate) held: usize,
    /// Requests before the measurement, after which all connections are open.
    pub(crate) warm_up: usize,
    /// Requests that are measured.
    pub(crate) requests: usize,
    /// Whether each request is timed, with one in flight at a time. Reading the clock is not part
    /// of the counts.
    #[serde(default)]
    pub(crate) timed: bool,
}

/// The cost of all measured requests together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) wall_seconds: f64,
    pub(crate) user_seconds: f64,
    pub(crate) system_seconds: f64,
    pub(crate) allocations: u64,
    pub(crate) allocated_bytes: u64,
    /// The growth of the heap in use, in bytes.
    pub(crate) heap_bytes: i64,
    /// The growth of resident memory, in bytes.
    pub(crate) resident_bytes: i64,
    /// The number of measured requests that were answered; the rest failed.
    pub(crate) answered: u64,
    /// The median time between a request and its answer, if only one is in flight.
    pub(crate) median_latency_seconds: Option<f64>,
}

impl Cost {
    /// Returns the user and system time per request.
    pub(crate) fn cpu_seconds_each(&self) -> f64 {
        (self.user_seconds + self.system_seconds) / self.answered.max(1) as f64
    }
}

/// The outcome of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Cost(Cost),
    /// The job does not apply to this client, for this reason.
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
        let line = serde_json::to_string(&job).expect("a job is serializable");
        assert!(!line.contains('\n'));
        let read: Job = serde_json::from_str(&line).expect("a job");
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
            let line = serde_json::to_string(&outcome).expect("an outcome is serializable");
            assert!(!line.contains('\n'));
            let read: Outcome = serde_json::from_str(&line).expect("an outcome");
            assert_eq!(read, outcome);
        }
    }
}
