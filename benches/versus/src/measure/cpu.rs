//! Processor time, wall-clock time and allocations: all clients in turn, round by round.
//!
//! A round is one run of each client, one after another, each in a process of its own. The first
//! client changes from round to round. The number of requests in a run is determined for each
//! client by a run before the first round, so that all runs take about the same time.

use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::job::{Client, Cost, Outcome, Workload};
use crate::scene::{SMALL_50, Scene};

/// The approximate duration of a run, without its warm-up.
const RUN_SECONDS: f64 = 0.15;
const FEWEST_REQUESTS: usize = 50;
const MOST_REQUESTS: usize = 100_000;

/// One client in one scene.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Timed {
    pub(crate) scene: Scene,
    pub(crate) client: Client,
    pub(crate) runs: Runs,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Runs {
    /// By round.
    Costs(Vec<Cost>),
    /// Why there are none.
    None(String),
}

impl Timed {
    pub(crate) fn costs(&self) -> &[Cost] {
        match &self.runs {
            Runs::Costs(costs) => costs,
            Runs::None(_) => &[],
        }
    }

    /// Returns the seconds of user and system time per request, by round.
    pub(crate) fn cpu_seconds(&self) -> Vec<f64> {
        self.costs().iter().map(Cost::cpu_seconds_each).collect()
    }

    pub(crate) fn wall_seconds(&self) -> Vec<f64> {
        let each = |cost: &Cost| cost.wall_seconds / cost.answered.max(1) as f64;
        self.costs().iter().map(each).collect()
    }

    pub(crate) fn latencies(&self) -> Vec<f64> {
        let costs = self.costs().iter();
        costs
            .filter_map(|cost| cost.median_latency_seconds)
            .collect()
    }

    /// Returns the least of all rounds: buffers that are kept are allocated once, while the cost of
    /// every request shows in every round.
    pub(crate) fn allocations(&self) -> Option<f64> {
        self.least(|cost| cost.allocations)
    }

    pub(crate) fn allocated_bytes(&self) -> Option<f64> {
        self.least(|cost| cost.allocated_bytes)
    }

    fn least(&self, of: impl Fn(&Cost) -> u64) -> Option<f64> {
        if self.client == Client::Wrk {
            return None;
        }
        let each = self.costs().iter();
        each.map(|cost| of(cost) as f64 / cost.answered.max(1) as f64)
            .min_by(f64::total_cmp)
    }
}

/// Measures `clients` in `scene`.
pub(crate) fn measure(
    bench: &Bench,
    scene: Scene,
    clients: &[Client],
    repeats: usize,
) -> Vec<Timed> {
    let mut timed: Vec<(Timed, usize)> = clients
        .iter()
        .map(|&client| {
            let (runs, requests) = match calibrate(bench, scene, client) {
                Ok(requests) => (Runs::Costs(Vec::new()), requests),
                Err(why) => (Runs::None(why), 0),
            };
            let timed = Timed {
                scene,
                client,
                runs,
            };
            (timed, requests)
        })
        .collect();
    for round in 0..repeats {
        for turn in 0..timed.len() {
            let (timed, requests) = &mut timed[(round + turn) % clients.len()];
            let Runs::Costs(costs) = &mut timed.runs else {
                continue;
            };
            match run(bench, scene, timed.client, *requests) {
                Ok(cost) => costs.push(cost),
                Err(why) => timed.runs = Runs::None(why),
            }
        }
    }
    timed.into_iter().map(|(timed, _)| timed).collect()
}

/// Determines the number of requests in a run.
fn calibrate(bench: &Bench, scene: Scene, client: Client) -> Result<usize, String> {
    let trial = (4 * scene.connections).max(FEWEST_REQUESTS);
    let cost = run(bench, scene, client, trial)?;
    let each = cost.wall_seconds / cost.answered.max(1) as f64;
    let requests = (RUN_SECONDS / each.max(1e-9)) as usize;
    Ok(requests.clamp(trial, MOST_REQUESTS))
}

fn run(bench: &Bench, scene: Scene, client: Client, requests: usize) -> Result<Cost, String> {
    let mut job = bench.job(client, stand_in(client, scene));
    job.requests = requests;
    job.timed = scene.connections == 1;
    match bench.run(&job) {
        Outcome::Cost(cost) => Ok(cost),
        Outcome::NotApplicable(why) => Err(format!("not applicable: {why}")),
        Outcome::Failed(why) => Err(format!("failed: {why}")),
    }
}

/// The floor does not pipeline. As a reference for those that do, it sends one request after
/// another on 50 connections.
fn stand_in(client: Client, scene: Scene) -> Scene {
    match (client, scene.workload) {
        (Client::Floor, Workload::Pipelined { .. }) => SMALL_50,
        _ => scene,
    }
}
