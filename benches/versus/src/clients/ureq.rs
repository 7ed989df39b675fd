//! ureq, which blocks: a thread for each connection in flight, and one agent for all of them.
//!
//! Each thread warms up and waits for the others; then the meter starts, and each does its share.
//! The heap is slightly undercounted, since threads that allocate at the same time lose some
//! counts.

use std::error::Error;
use std::io::Read;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use ::ureq::Agent;
use ::ureq::http::Uri;

use super::ask::{self, DELAY, not_applicable};
use crate::job::{Cost, Job, Workload};
use crate::meter::Meter;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// With more threads, a run mostly measures how the kernel switches between them.
const MAX_THREADS: usize = 100;

pub(crate) fn run(job: &Job) -> Result<Cost> {
    match job.workload {
        _ if job.connections > MAX_THREADS => {
            not_applicable("it blocks: each request in flight is a thread")
        }
        Workload::Small
        | Workload::Chunked
        | Workload::Fields
        | Workload::Large
        | Workload::Huge
        | Workload::HugeStreamed
        | Workload::Close
        | Workload::Delayed => ask(job),
        Workload::Held => not_applicable("it blocks: each held request is a thread"),
        Workload::Tls => not_applicable("built without TLS; hyper with rustls is measured instead"),
        Workload::Pipelined { .. } => not_applicable("it does not pipeline"),
    }
}

fn ask(job: &Job) -> Result<Cost> {
    let agent: Agent = Agent::config_builder()
        // Ignore the environment's proxy variables.
        .proxy(None)
        // A connection for each thread; by default ureq keeps ten.
        .max_idle_connections(job.connections)
        .max_idle_connections_per_host(job.connections)
        .build()
        .into();
    // Used twice: when all threads are warm, and when the meter runs.
    let barrier = Arc::new(Barrier::new(job.connections + 1));
    let threads: Vec<_> = (0..job.connections)
        .map(|connection| {
            let uri = ask::url(job, connection).parse()?;
            let thread = Thread {
                agent: agent.clone(),
                uri,
                workload: job.workload,
                warm_up: share(job.warm_up, connection, job.connections),
                requests: share(job.requests, connection, job.connections),
                latencies: (job.timed && job.connections == 1)
                    .then(|| Vec::with_capacity(job.requests)),
            };
            let barrier = Arc::clone(&barrier);
            Ok(std::thread::spawn(move || thread.run(&barrier)))
        })
        .collect::<Result<_>>()?;
    barrier.wait();
    let meter = Meter::start();
    barrier.wait();
    let mut answered = 0;
    let mut latencies = Vec::new();
    for thread in threads {
        let (right, taken) = thread.join().map_err(|_| "a thread panicked")?;
        answered += right;
        latencies.extend(taken.unwrap_or_default());
    }
    let mut cost = meter.stop(answered);
    latencies.sort_unstable();
    cost.median_latency_seconds = latencies
        .get(latencies.len() / 2)
        .map(Duration::as_secs_f64);
    Ok(cost)
}

/// Returns one thread's share of the requests.
fn share(requests: usize, thread: usize, threads: usize) -> usize {
    requests / threads + usize::from(thread < requests % threads)
}

struct Thread {
    agent: Agent,
    /// Parsed once.
    uri: Uri,
    workload: Workload,
    warm_up: usize,
    requests: usize,
    latencies: Option<Vec<Duration>>,
}

impl Thread {
    /// Returns the number of right answers, and how long they took.
    fn run(mut self, barrier: &Barrier) -> (u64, Option<Vec<Duration>>) {
        for _ in 0..self.warm_up {
            self.ask();
        }
        barrier.wait();
        barrier.wait();
        let mut right = 0;
        for _ in 0..self.requests {
            let sent = self.latencies.as_ref().map(|_| Instant::now());
            right += u64::from(self.ask());
            if let (Some(latencies), Some(sent)) = (&mut self.latencies, sent) {
                latencies.push(sent.elapsed());
            }
            if self.workload == Workload::Delayed {
                std::thread::sleep(DELAY);
            }
        }
        (right, self.latencies)
    }

    /// Whether the answer was right.
    fn ask(&self) -> bool {
        match self.one() {
            Ok((status, body_len)) => status == 200 && body_len == ask::body_len(self.workload),
            Err(error) => {
                eprintln!("{error}");
                false
            }
        }
    }

    /// Returns the status, and the length of the body.
    fn one(&self) -> Result<(u16, usize)> {
        let mut response = self.agent.get(self.uri.clone()).call()?;
        let status = response.status().as_u16();
        let body_len = match self.workload {
            Workload::HugeStreamed => stream(response.body_mut().as_reader())?,
            _ => response.body_mut().read_to_vec()?.len(),
        };
        Ok((status, body_len))
    }
}

fn stream(mut body: impl Read) -> Result<usize> {
    let mut piece = [0; 64 * 1024];
    let mut len = 0;
    loop {
        match body.read(&mut piece)? {
            0 => return Ok(len),
            n => len += n,
        }
    }
}
