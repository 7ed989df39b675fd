//! The clients: each does the same job in its own way, and measures itself.

pub(crate) mod ask;
mod curl;
mod floor;
mod httpstream;
mod hyper_conn;
mod hyper_util;
mod mio_httpc;
mod reqwest;
pub(crate) mod transfers;
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

/// Does a job and prints the outcome, both in JSON.
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
    println!(
        "{}",
        serde_json::to_string(&outcome).expect("an outcome is serializable")
    );
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::PathBuf;

    use super::ask::Holding;
    use super::*;
    use crate::job::Workload;
    use crate::server;

    const WORKLOADS: [Workload; 11] = [
        Workload::Small,
        Workload::Chunked,
        Workload::Fields,
        Workload::Large,
        Workload::Huge,
        Workload::HugeStreamed,
        Workload::Close,
        Workload::Tls,
        Workload::Pipelined { depth: 4 },
        Workload::Delayed,
        Workload::Held,
    ];

    const CLIENTS: [Client; 8] = [
        Client::Floor,
        Client::Httpstream,
        Client::HyperConn,
        Client::HyperUtil,
        Client::Reqwest,
        Client::CurlMulti,
        Client::MioHttpc,
        Client::Ureq,
    ];

    fn is_applicable(client: Client, workload: Workload) -> bool {
        match workload {
            Workload::Small
            | Workload::Chunked
            | Workload::Fields
            | Workload::Large
            | Workload::Huge
            | Workload::HugeStreamed
            | Workload::Close
            | Workload::Delayed => true,
            Workload::Tls => matches!(client, Client::Httpstream | Client::HyperConn),
            Workload::Pipelined { .. } => client == Client::Httpstream,
            Workload::Held => client != Client::Ureq,
        }
    }

    const CONNECTIONS: usize = 3;
    const REQUESTS: usize = 30;

    fn job(client: Client, workload: Workload, servers: Vec<SocketAddr>, root: PathBuf) -> Job {
        Job {
            client,
            workload,
            servers,
            root,
            connections: CONNECTIONS,
            held: 0,
            warm_up: 2 * CONNECTIONS,
            requests: REQUESTS,
            timed: false,
        }
    }

    /// One test for all of them, since libcurl's allocator is set for the whole process.
    #[test]
    fn each_client_does_each_job_or_says_why_not() {
        let reached = server::start_threads().expect("a server");
        let root = std::env::temp_dir().join(format!("versus-{}.pem", std::process::id()));
        std::fs::write(&root, &reached.root_pem).expect("the temporary directory is writable");
        for client in CLIENTS {
            for workload in WORKLOADS {
                let servers = match workload {
                    Workload::Tls => vec![reached.tls],
                    _ => reached.plain.clone(),
                };
                let job = job(client, workload, servers, root.clone());
                let right = match workload {
                    Workload::Held => CONNECTIONS,
                    _ => REQUESTS,
                };
                match do_job(&job) {
                    Ok(cost) => {
                        assert!(is_applicable(client, workload), "{client:?} {workload:?}");
                        assert_eq!(cost.answered, right as u64, "{client:?} {workload:?}");
                    }
                    Err(why) => {
                        let why = why.to_string();
                        assert!(why.starts_with("not applicable: "), "{client:?}: {why}");
                        assert!(!is_applicable(client, workload), "{client:?}: {why}");
                    }
                }
                if workload == Workload::Held {
                    Holding::wait_for_none(job.servers[0]).expect("no request is left");
                }
            }
        }
        let _ = std::fs::remove_file(root);
    }
}
