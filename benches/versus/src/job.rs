//! What one client process is asked to do, and what it says it has cost. Both go between processes as JSON, a line each.

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
    /// Requests in flight at once.
    pub(crate) connections: usize,
    /// Requests before the measurement: each connection is open after them.
    pub(crate) warm_up: usize,
    /// Requests that are measured.
    pub(crate) requests: usize,
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
