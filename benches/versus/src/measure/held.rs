//! Waiting requests: held long polls of every client, and delayed requests.
//!
//! Each figure is from a process of its own, which counts its allocations between the moment before
//! the first request and the moment when the server holds all of them. The kernel's memory for a
//! socket is the same for all and not included. Connections are spread over the server's addresses,
//! so that ports do not run out before descriptors do. Processor time is that of opening:
//! connecting, sending the request, and storing it. For libcurl, block sizes are the C library's,
//! which are a few bytes larger than requested.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::child;
use crate::clients::ask::Holding;
use crate::clients::{self, waiting, waiting::Waiting};
use crate::job::{Client, Cost, Job, Outcome, Workload};
use crate::machine;
use crate::server::Reached;

/// The argument that starts this program for one kind of [`Waiting`].
pub(crate) const ASKED: &str = "--waiting";

/// The number of held polls that is always measured.
pub(crate) const POLLS: usize = 10_000;

/// The number of pending delayed requests.
pub(crate) const DELAYED: usize = 100_000;

/// The number of a process's descriptors that are not for polls.
const SPARE_DESCRIPTORS: usize = 100;

const HOLDERS: [Client; 7] = [
    Client::Floor,
    Client::Httpstream,
    Client::HyperConn,
    Client::HyperUtil,
    Client::Reqwest,
    Client::CurlMulti,
    Client::MioHttpc,
];

const DELAYERS: [Waiting; 5] = [
    Waiting::Httpstream,
    Waiting::HttpstreamOwn,
    Waiting::TaskHyperUtil,
    Waiting::TaskReqwest,
    Waiting::DelayQueue,
];

/// The most that libcurl can hold as the curl crate builds it: curl-sys 0.4.91 does not define
/// `HAVE_POLL` for libcurl 8.22, so libcurl waits with `select`, which supports no descriptor above
/// 1,023. `CFLAGS=-DHAVE_POLL` lifts this limit; the cost of a poll is then the same.
const BY_SELECT: usize = 1000;

/// Whose requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Whose {
    Client(Client),
    Waiting(Waiting),
}

/// The cost of this many waiting requests for one client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) whose: Whose,
    pub(crate) waiting: usize,
    /// Of each repeat, or why there is none.
    pub(crate) costs: Result<Vec<Cost>, String>,
}

/// The cost of one of them: the median of the repeats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Each {
    pub(crate) heap_bytes: f64,
    pub(crate) resident_bytes: f64,
    pub(crate) allocations: f64,
    pub(crate) processor_seconds: f64,
    /// Requests that failed to wait, in all repeats.
    pub(crate) errors: u64,
}

/// The job of a process that measures waiting requests.
#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    waiting: Waiting,
    job: Job,
}

/// Makes requests wait, and prints the cost; both are JSON.
pub(crate) fn run(ask: &str) -> Result<(), Box<dyn Error>> {
    machine::end_with_parent(clients::JOB_SECONDS);
    let Ask { waiting, job } = serde_json::from_str(ask)?;
    let cost = waiting::run(waiting, &job)?;
    println!("{}", serde_json::to_string(&cost)?);
    Ok(())
}

/// Measures held polls: [`POLLS`] of them, and as many as this machine has descriptors, ports and
/// memory for.
pub(crate) fn polls(
    server: &Reached,
    clients: &[Client],
    repeats: usize,
) -> Result<Vec<Row>, Box<dyn Error>> {
    let most = most_polls(server.plain.len())?;
    let mut counts = vec![(POLLS.min(most), repeats)];
    if most > POLLS {
        counts.push((most, 1));
    }
    let whose = HOLDERS.map(Whose::Client).into_iter();
    let whose: Vec<_> = whose
        .chain([Whose::Waiting(Waiting::HttpstreamOwnPolls)])
        .filter(|whose| whose.is_of(clients))
        .collect();
    let mut rows = Vec::new();
    for (count, repeats) in counts {
        for &whose in &whose {
            let count = whose.at_most(count);
            if rows
                .iter()
                .any(|row: &Row| row.whose == whose && row.waiting == count)
            {
                continue;
            }
            let costs = (0..repeats).map(|_| {
                Holding::wait_for_none(server.plain[0]).map_err(|error| error.to_string())?;
                measure(whose, job(&server.plain, count))
            });
            rows.push(Row {
                whose,
                waiting: count,
                costs: costs.collect(),
            });
        }
    }
    Ok(rows)
}

/// The memory that a poll may take, including the kernel's sockets at both ends: more than the most
/// expensive client does.
const MEMORY_A_POLL: usize = 64 << 10;

/// Returns the least of: the descriptors that a process may have, the ports for connections to
/// `addresses`, and what fits into half of the free memory.
fn most_polls(addresses: usize) -> std::io::Result<usize> {
    let files = machine::raise_open_files()?.saturating_sub(SPARE_DESCRIPTORS);
    let ports = machine::ports().map_or(usize::MAX, |ports| ports.saturating_mul(addresses));
    let memory = machine::free_memory().map_or(usize::MAX, |bytes| bytes / 2 / MEMORY_A_POLL);
    Ok(files.min(ports).min(memory))
}

/// Measures [`DELAYED`] delayed requests.
pub(crate) fn delayed(clients: &[Client], repeats: usize) -> Vec<Row> {
    let whose = DELAYERS.map(Whose::Waiting).into_iter();
    let row = |whose| Row {
        whose,
        waiting: DELAYED,
        costs: (0..repeats)
            .map(|_| measure(whose, job(&[], DELAYED)))
            .collect(),
    };
    whose
        .filter(|whose| whose.is_of(clients))
        .map(row)
        .collect()
}

fn job(servers: &[SocketAddr], count: usize) -> Job {
    Job {
        client: Client::Httpstream,
        workload: Workload::Held,
        servers: servers.to_vec(),
        root: PathBuf::new(),
        connections: count,
        held: 0,
        warm_up: 0,
        requests: 0,
        timed: false,
    }
}

fn measure(whose: Whose, job: Job) -> Result<Cost, String> {
    match whose {
        Whose::Client(client) => match child::run(clients::ASKED, &Job { client, ..job })? {
            Outcome::Cost(cost) => Ok(cost),
            Outcome::NotApplicable(why) | Outcome::Failed(why) => Err(why),
        },
        Whose::Waiting(waiting) => child::run(ASKED, &Ask { waiting, job }),
    }
}

impl Row {
    pub(crate) fn each(&self) -> Result<Each, &str> {
        let costs = self.costs.as_ref().map_err(String::as_str)?;
        let of = |what: fn(&Cost) -> f64| {
            let mut all: Vec<f64> = costs.iter().map(what).collect();
            all.sort_unstable_by(f64::total_cmp);
            all[all.len() / 2] / self.waiting as f64
        };
        let came = costs.iter().map(|cost| cost.answered).sum::<u64>();
        Ok(Each {
            heap_bytes: of(|cost| cost.heap_bytes as f64),
            resident_bytes: of(|cost| cost.resident_bytes as f64),
            allocations: of(|cost| cost.allocations as f64),
            processor_seconds: of(|cost| cost.user_seconds + cost.system_seconds),
            errors: (self.waiting * costs.len()) as u64 - came,
        })
    }
}

impl Whose {
    /// Whether it belongs to one of these clients. Entries without a client are always included.
    fn is_of(self, clients: &[Client]) -> bool {
        let client = match self {
            Self::Client(client) => client,
            Self::Waiting(Waiting::HttpstreamOwnPolls)
            | Self::Waiting(Waiting::Httpstream | Waiting::HttpstreamOwn) => Client::Httpstream,
            Self::Waiting(Waiting::TaskHyperUtil) => Client::HyperUtil,
            Self::Waiting(Waiting::TaskReqwest) => Client::Reqwest,
            Self::Waiting(Waiting::DelayQueue) => return true,
        };
        clients.contains(&client)
    }

    fn at_most(self, count: usize) -> usize {
        let by_poll = option_env!("CFLAGS").is_some_and(|flags| flags.contains("HAVE_POLL"));
        match self {
            Self::Client(Client::CurlMulti) if !by_poll => count.min(BY_SELECT),
            Self::Client(_) | Self::Waiting(_) => count,
        }
    }

    /// Returns the name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client(Client::Floor) => "floor",
            Self::Client(Client::Httpstream) => "httpstream, clones of one request",
            Self::Client(Client::HyperConn) => "hyper conn",
            Self::Client(Client::HyperUtil) => "hyper-util",
            Self::Client(Client::Reqwest) => "reqwest",
            Self::Client(Client::CurlMulti) => "libcurl multi",
            Self::Client(Client::MioHttpc) => "mio_httpc",
            Self::Client(Client::Ureq) => "ureq",
            Self::Client(Client::Wrk) => "wrk",
            Self::Waiting(Waiting::HttpstreamOwnPolls | Waiting::HttpstreamOwn) => {
                "httpstream, a request each"
            }
            Self::Waiting(Waiting::Httpstream) => "httpstream, clones of one request",
            Self::Waiting(Waiting::TaskHyperUtil) => "a tokio task that sleeps, then hyper-util",
            Self::Waiting(Waiting::TaskReqwest) => "a tokio task that sleeps, then reqwest",
            Self::Waiting(Waiting::DelayQueue) => "tokio-util's DelayQueue of a Uri",
        }
    }
}

/// Formats the rows in Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| waiting | client | heap B | resident B | allocations | processor µs to open | errors |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let (waiting, name) = (row.waiting, row.whose.name());
        table += &match row.each() {
            Ok(each) => format!(
                "| {waiting} | {name} | {:.0} | {:.0} | {:.2} | {:.1} | {} |\n",
                each.heap_bytes,
                each.resident_bytes,
                each.allocations,
                each.processor_seconds * 1e6,
                each.errors
            ),
            Err(why) => format!("| {waiting} | {name} | – | – | – | – | {why} |\n"),
        };
    }
    table
}
