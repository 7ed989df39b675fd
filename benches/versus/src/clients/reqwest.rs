//! reqwest's async client on tokio's current-thread runtime: a task for each connection in flight,
//! and one client for all of them.
//!
//! The URL is parsed once, which saves each request a fifth of its instructions. The environment's
//! proxy variables are ignored.

use std::error::Error;
use std::sync::{Arc, Mutex};

use ::reqwest::{Client, Response, Url};

use super::ask::{self, DELAY, Holding, Tally, not_applicable};
use crate::job::{Cost, Job, Workload};
use crate::meter::Meter;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub(crate) fn run(job: &Job) -> Result<Cost> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match job.workload {
        Workload::Small
        | Workload::Chunked
        | Workload::Fields
        | Workload::Large
        | Workload::Huge
        | Workload::HugeStreamed
        | Workload::Close
        | Workload::Delayed => runtime.block_on(ask(job)),
        Workload::Held => runtime.block_on(hold(job)),
        Workload::Tls => not_applicable("built without TLS; hyper with rustls is measured instead"),
        Workload::Pipelined { .. } => not_applicable("it does not pipeline"),
    }
}

fn client() -> ::reqwest::Result<Client> {
    Client::builder().no_proxy().build()
}

async fn ask(job: &Job) -> Result<Cost> {
    let client = client()?;
    let tally = Arc::new(Mutex::new(Tally::new(job)));
    let mut tasks = Vec::new();
    for connection in 0..job.connections {
        let url: Url = ask::url(job, connection).parse()?;
        let chain = chain(client.clone(), url, job.workload, Arc::clone(&tally));
        tasks.push(tokio::spawn(chain));
    }
    for task in tasks {
        task.await?;
    }
    tally.lock().map_err(|_| "a task panicked")?.cost()
}

async fn chain(client: Client, url: Url, workload: Workload, tally: Arc<Mutex<Tally>>) {
    let tally = || tally.lock().expect("no task panicked");
    while tally().send() {
        match one(&client, &url, workload).await {
            Ok((status, body_len)) => tally().on_answer(status, body_len),
            Err(error) => tally().on_error(&error),
        }
        if workload == Workload::Delayed {
            tokio::time::sleep(DELAY).await;
        }
    }
}

/// Returns the status, and the length of the body.
async fn one(client: &Client, url: &Url, workload: Workload) -> ::reqwest::Result<(u16, usize)> {
    let response = client.get(url.clone()).send().await?;
    let status = response.status().as_u16();
    let body_len = match workload {
        Workload::HugeStreamed => stream(response).await?,
        _ => response.bytes().await?.len(),
    };
    Ok((status, body_len))
}

async fn stream(mut response: Response) -> ::reqwest::Result<usize> {
    let mut len = 0;
    while let Some(piece) = response.chunk().await? {
        len += piece.len();
    }
    Ok(len)
}

async fn hold(job: &Job) -> Result<Cost> {
    let client = client()?;
    let mut holding = Holding::new(job, job.connections)?;
    let urls: Vec<Url> = (0..job.servers.len())
        .map(|server| ask::url(job, server).parse())
        .collect::<std::result::Result<_, _>>()?;
    let meter = Meter::start();
    for connection in 0..job.connections {
        let sent = client.get(urls[connection % urls.len()].clone()).send();
        tokio::spawn(async move { sent.await.map(|_| ()) });
    }
    while !holding.is_complete()? {
        tokio::time::sleep(Holding::PAUSE).await;
    }
    Ok(meter.stop(job.connections as u64))
}
