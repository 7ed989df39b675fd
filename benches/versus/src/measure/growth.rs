//! From one open connection to 15,000: the cost of a request, and of a connection.
//!
//! There are two modes. *All busy*: each connection always has a request in flight, so that each
//! answer is another connection's. *Fifty busy*: fifty connections send requests, and all others
//! hold a request that is not answered. Memory is that of the held ones.

use serde::{Deserialize, Serialize};

use super::counts;
use crate::bench::Bench;
use crate::job::{Client, Job, Outcome, Workload};
use crate::scene::Scene;
use crate::stats;

pub(crate) const OPEN: [usize; 7] = [1, 10, 100, 1_000, 5_000, 10_000, 15_000];
const BUSY: usize = 50;
const ROUNDS: usize = 7;
const PASSES: usize = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    AllBusy,
    FiftyBusy,
}

/// One client with this many connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Grown {
    pub(crate) client: Client,
    pub(crate) open: usize,
    pub(crate) way: Way,
    /// The median of all rounds.
    pub(crate) cpu_seconds: Result<f64, String>,
    pub(crate) instructions: Result<f64, String>,
    /// Heap bytes per connection, with all of them holding a request.
    pub(crate) held_bytes: Result<f64, String>,
}

/// Measures both clients at one number of connections, in turn.
pub(crate) fn measure(
    bench: &Bench,
    open: usize,
    clients: &[Client],
    with_instructions: bool,
) -> Vec<Grown> {
    if open > bench.most_connections {
        let why = format!("only {} files may be open", bench.most_connections);
        return clients
            .iter()
            .map(|&client| Grown {
                client,
                open,
                way: Way::AllBusy,
                cpu_seconds: Err(why.clone()),
                instructions: Err(why.clone()),
                held_bytes: Err(why.clone()),
            })
            .collect();
    }
    let ways = match open > BUSY {
        true => &[Way::AllBusy, Way::FiftyBusy][..],
        false => &[Way::AllBusy],
    };
    let mut grown = Vec::new();
    for &way in ways {
        let mut costs = vec![Vec::new(); clients.len()];
        let mut fault = vec![None; clients.len()];
        for round in 0..ROUNDS {
            for turn in 0..clients.len() {
                let at = (round + turn) % clients.len();
                let mut job = job(bench, clients[at], open, way);
                // Enough requests for the kernel's data of each connection to leave the processor's
                // caches in between.
                job.requests = (12 * open).max(10_000);
                match bench.run(&job) {
                    Outcome::Cost(cost) => costs[at].push(cost.cpu_seconds_each()),
                    Outcome::NotApplicable(why) | Outcome::Failed(why) => fault[at] = Some(why),
                }
            }
        }
        for (at, &client) in clients.iter().enumerate() {
            let cpu_seconds = match fault[at].take() {
                Some(why) => Err(why),
                None => stats::median(&costs[at]).ok_or_else(|| "no run".to_owned()),
            };
            let instructions = match with_instructions {
                true => counts::instructions(bench, &job(bench, client, open, way), PASSES)
                    .map(|each| each.all),
                false => Err("not counted".to_owned()),
            };
            grown.push(Grown {
                client,
                open,
                way,
                cpu_seconds,
                instructions,
                held_bytes: held_bytes(bench, client, open),
            });
        }
    }
    grown
}

/// Uses all addresses at any number of connections, so that only the number changes.
fn job(bench: &Bench, client: Client, open: usize, way: Way) -> Job {
    let busy = match way {
        Way::AllBusy => open,
        Way::FiftyBusy => BUSY,
    };
    let mut job = bench.job(client, Scene::new(Workload::Small, busy));
    job.servers = bench.server().plain.clone();
    job.held = open - busy;
    job.warm_up = (4 * busy).max(200);
    job
}

fn held_bytes(bench: &Bench, client: Client, open: usize) -> Result<f64, String> {
    let mut job = bench.job(client, Scene::new(Workload::Held, open));
    job.servers = bench.server().plain.clone();
    match bench.run(&job) {
        Outcome::Cost(cost) => Ok(cost.heap_bytes as f64 / open as f64),
        Outcome::NotApplicable(why) | Outcome::Failed(why) => Err(why),
    }
}
