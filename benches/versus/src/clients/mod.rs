//! The clients: each does the same job in its own way, and measures itself.

use std::error::Error;
use std::process::ExitCode;

use crate::job::{Client, Cost, Job};

/// Does a job and prints its cost; both are JSON.
pub(crate) fn run(job: &str) -> ExitCode {
    let done = serde_json::from_str(job)
        .map_err(Into::into)
        .and_then(|job: Job| do_job(&job))
        .and_then(|cost| Ok(serde_json::to_string(&cost)?));
    match done {
        Ok(cost) => {
            println!("{cost}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}: {job}");
            ExitCode::FAILURE
        }
    }
}

fn do_job(job: &Job) -> Result<Cost, Box<dyn Error>> {
    match job.client {
        Client::Floor
        | Client::Httpstream
        | Client::HyperConn
        | Client::HyperUtil
        | Client::Reqwest
        | Client::CurlMulti
        | Client::MioHttpc
        | Client::Ureq
        | Client::Wrk => Err(format!("{:?} is not there yet", job.client).into()),
    }
}
