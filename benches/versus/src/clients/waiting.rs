//! Requests that wait, beyond what [`Workload::Held`](crate::job::Workload::Held) requires of every
//! client: the cost of each until it is sent.
//!
//! A delayed request is sent later without further action by the caller. In tokio that is a task
//! that sleeps and then sends the request through a shared client; or, for programs with a loop
//! around it, an entry of tokio-util's `DelayQueue`. The queue gets the least that a request can be
//! made from: a clone of a `Uri`. httpstream's are whole requests with their readbacks, which can
//! be canceled by id. No vector is allocated to size beforehand, so each structure shows how it
//! grows.

use std::error::Error;
use std::time::Duration;

use ::httpstream::{Config, Context, Engine, Next, Reply, Request};
use ::hyper_util::client::legacy::Client;
use ::hyper_util::rt::TokioExecutor;
use http_body_util::Empty;
use hyper::Uri;
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use tokio_util::time::DelayQueue;

use super::ask::{self, Holding};
use crate::job::{Cost, Job};
use crate::meter::Meter;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Waiting {
    /// Held polls, each with a request of its own.
    HttpstreamOwnPolls,
    /// Delayed clones of one request.
    Httpstream,
    /// Delayed requests, each one of its own.
    HttpstreamOwn,
    /// Tasks that sleep, then send a request through hyper-util's client.
    TaskHyperUtil,
    /// The same through reqwest's client.
    TaskReqwest,
    /// tokio-util's queue, with a `Uri` per entry.
    DelayQueue,
}

/// Nothing ends during the measurement.
const LONG: Duration = Duration::from_secs(3600);

/// As many as the job has connections; only the polls use other parts of the job.
pub(crate) fn run(waiting: Waiting, job: &Job) -> Result<Cost> {
    match waiting {
        Waiting::HttpstreamOwnPolls => own_polls(job),
        Waiting::Httpstream => {
            let request = Request::get(URL).build()?;
            delayed(job.connections, |_| Ok(request.clone()))
        }
        Waiting::HttpstreamOwn => delayed(job.connections, |i| {
            Ok(Request::get(format!("{URL}?id={i}")).build()?)
        }),
        Waiting::TaskHyperUtil => {
            let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
            let uri: Uri = URL.parse()?;
            tasks(job.connections, || {
                let (client, uri) = (client.clone(), uri.clone());
                async move {
                    tokio::time::sleep(LONG).await;
                    let _ = client.get(uri).await;
                }
            })
        }
        Waiting::TaskReqwest => {
            let client = ::reqwest::Client::builder().no_proxy().build()?;
            let url: ::reqwest::Url = URL.parse()?;
            tasks(job.connections, || {
                let (client, url) = (client.clone(), url.clone());
                async move {
                    tokio::time::sleep(LONG).await;
                    let _ = client.get(url).send().await;
                }
            })
        }
        Waiting::DelayQueue => delay_queue(job.connections),
    }
}

/// Nothing connects to it.
const URL: &str = "http://127.0.0.1:9/rooms/42/messages";

fn ignore(_: &mut (), _: Reply<'_>, _: &mut Context<'_, ()>) -> Next<()> {
    Next::done()
}

fn own_polls(job: &Job) -> Result<Cost> {
    let mut config = Config::default();
    config.max_connections = job.connections;
    config.max_connections_per_origin = job.connections;
    let mut engine = Engine::with_config(config)?;
    let mut holding = Holding::new(job, job.connections)?;
    let urls: Vec<String> = (0..job.servers.len())
        .map(|server| ask::url(job, server))
        .collect();
    let meter = Meter::start();
    for connection in 0..job.connections {
        let request = Request::get(&urls[connection % urls.len()]).long_poll(LONG);
        engine.submit(request.build()?, ignore);
    }
    while !holding.is_complete()? {
        engine.turn(&mut (), Some(Holding::PAUSE))?;
    }
    Ok(meter.stop(job.connections as u64))
}

fn delayed(count: usize, request: impl Fn(usize) -> Result<Request>) -> Result<Cost> {
    let mut engine = Engine::new()?;
    let meter = Meter::start();
    for i in 0..count {
        engine.start(engine.send(request(i)?).after(LONG).read_by(ignore));
    }
    // Submissions are taken in over several turns.
    while engine.turn(&mut (), Some(Duration::ZERO))?.more {}
    let waiting = engine.stats().delayed;
    Ok(meter.stop(waiting as u64))
}

fn tasks<T>(count: usize, task: impl Fn() -> T) -> Result<Cost>
where
    T: Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let meter = Meter::start();
        for _ in 0..count {
            tokio::spawn(task());
        }
        // Longer than the tasks need to start: when it is over, all of them sleep.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let waiting = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        Ok(meter.stop(waiting as u64))
    })
}

fn delay_queue(count: usize) -> Result<Cost> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let uri: Uri = URL.parse()?;
        let mut queue = DelayQueue::new();
        let meter = Meter::start();
        for _ in 0..count {
            queue.insert(uri.clone(), LONG);
        }
        Ok(meter.stop(queue.len() as u64))
    })
}
