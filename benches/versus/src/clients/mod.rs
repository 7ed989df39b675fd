//! The clients: each does the same job in its own way, and measures itself.

pub(crate) mod ask;
mod curl;
mod floor;
mod httpstream;
mod hyper_conn;
mod hyper_util;
mod mio_httpc;
mod reqwest;
mod ureq;
pub(crate) mod waiting;
pub(crate) mod wrk;

use std::error::Error;
use std::process::ExitCode;

use crate::job::{Client, Cost, Job, Outcome};
use crate::machine;
use ask::NotApplicable;

pub(crate) const ASKED: &str = "--client";

/// A job that takes longer hangs.
pub(crate) const JOB_SECONDS: u32 = 300;

/// Does a job and prints how it went; both are JSON.
pub(crate) fn run(job: &str) -> ExitCode {
    machine::end_with_parent(JOB_SECONDS);
    let done = serde_json::from_str(job)
        .map_err(Into::into)
        .and_then(|job: Job| do_job(&job));
    let outcome = match done {
        Ok(cost) => Outcome::Cost(cost),
        Err(error) => match error.downcast_ref::<NotApplicable>() {
            Some(why) => Outcome::NotApplicable(why.0.clone()),
            None => Outcome::Failed(error.to_string()),
        },
    };
    println!("{}", serde_json::to_string(&outcome).expect("it is data"));
    ExitCode::SUCCESS
}

fn do_job(job: &Job) -> Result<Cost, Box<dyn Error>> {
    match job.client {
        Client::Reqwest => reqwest::run(job),
        Client::CurlMulti => curl::run(job),
        Client::MioHttpc => mio_httpc::run(job),
        Client::Ureq => ureq::run(job),
        Client::Floor => floor::run(job),
        Client::Httpstream => httpstream::run(job),
        Client::HyperConn => hyper_conn::run(job),
        Client::HyperUtil => hyper_util::run(job),
        Client::Wrk => wrk::run(job),
    }
}
