//! hyper-util's pooled client on tokio's current-thread runtime: one client, and a task for each
//! request in flight.

use std::error::Error;
use std::sync::{Arc, Mutex};

use ::hyper_util::client::legacy::Client;
use ::hyper_util::client::legacy::connect::HttpConnector;
use ::hyper_util::rt::TokioExecutor;
use http_body_util::Empty;
use hyper::body::Bytes;

use super::ask::{self, DELAY, Holding, Tally, not_applicable};
use super::hyper_conn::{Parts, read, runtime};
use crate::job::{Cost, Job, Workload};
use crate::meter::Meter;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
type Pooled = Client<HttpConnector, Empty<Bytes>>;

pub(crate) fn run(job: &Job) -> std::result::Result<Cost, Box<dyn Error>> {
    match job.workload {
        Workload::Small
        | Workload::Chunked
        | Workload::Fields
        | Workload::Large
        | Workload::Huge
        | Workload::HugeStreamed
        | Workload::Close
        | Workload::Delayed => runtime(job)?.block_on(ask(job)).map_err(|error| error as _),
        Workload::Held => runtime(job)?
            .block_on(hold(job))
            .map_err(|error| error as _),
        Workload::Tls => not_applicable("hyper's connection API is measured instead"),
        Workload::Pipelined { .. } => not_applicable("it does not pipeline"),
    }
}

fn client() -> Pooled {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn ask(job: &Job) -> Result<Cost> {
    let client = client();
    let tally = Arc::new(Mutex::new(Tally::new(job)));
    let mut tasks = Vec::new();
    for connection in 0..job.connections {
        let parts = Parts::new(ask::url(job, connection).parse()?, None)?;
        let chain = chain(client.clone(), parts, job.workload, Arc::clone(&tally));
        tasks.push(tokio::spawn(chain));
    }
    for task in tasks {
        task.await?;
    }
    let mut tally = tally.lock().map_err(|_| "a task panicked")?;
    tally.cost().map_err(|error| error.to_string().into())
}

async fn chain(client: Pooled, parts: Parts, workload: Workload, tally: Arc<Mutex<Tally>>) {
    let tally = || tally.lock().expect("no task panicked");
    while tally().send() {
        match one(&client, &parts, workload).await {
            Ok((status, body_len)) => tally().on_answer(status, body_len),
            Err(error) => tally().on_error(&error),
        }
        if workload == Workload::Delayed {
            tokio::time::sleep(DELAY).await;
        }
    }
}

/// Returns the status, and the length of the body.
async fn one(client: &Pooled, parts: &Parts, workload: Workload) -> Result<(u16, usize)> {
    read(client.request(parts.request()).await?, workload).await
}

async fn hold(job: &Job) -> Result<Cost> {
    let client = client();
    let all = (0..job.servers.len())
        .map(|server| Parts::new(ask::url(job, server).parse()?, None))
        .collect::<Result<Vec<_>>>()?;
    let mut holding = Holding::new(job, job.connections)?;
    let meter = Meter::start();
    for connection in 0..job.connections {
        let (client, parts) = (client.clone(), all[connection % all.len()].clone());
        tokio::spawn(async move { one(&client, &parts, Workload::Held).await });
    }
    while !holding.is_complete().map_err(|error| error.to_string())? {
        tokio::time::sleep(Holding::PAUSE).await;
    }
    Ok(meter.stop(job.connections as u64))
}
