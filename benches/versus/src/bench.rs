//! The base of all measurements: the server on its core, and clients as processes on another.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::clients::ask::Holding;
use crate::clients::{self, wrk};
use crate::job::{Client, Job, Outcome, Workload};
use crate::machine;
use crate::scene::Scene;
use crate::server::{Reached, Server};

/// The files that a process opens besides its connections: its output, its poll, and the connection
/// that watches the server.
const SPARE_FILES: usize = 64;
const ROOT: &str = "root.pem";

#[derive(Debug)]
pub(crate) struct Bench {
    server: Server,
    /// A directory for the certificate, and for what the tools write.
    work: PathBuf,
    /// The most connections that one process can hold.
    pub(crate) most_connections: usize,
    pub(crate) cores: Cores,
}

/// The cores that server and clients run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cores {
    Two {
        server: usize,
        client: usize,
    },
    /// Server and clients share a core, so neither is measured properly.
    One,
}

impl Bench {
    /// Starts the server. This process stays on the clients' core, because it is idle while they
    /// run.
    pub(crate) fn start() -> Result<Self, Box<dyn Error>> {
        let files = machine::raise_open_files()?;
        let (cores, server, client) = match machine::cores()?[..] {
            [] => return Err("no core is available".into()),
            [only] => (Cores::One, only, only),
            [client, server, ..] => (Cores::Two { server, client }, server, client),
        };
        let server = Server::start(server)?;
        machine::pin(client)?;
        let work = target_dir()?.join("work");
        fs::create_dir_all(&work)?;
        fs::write(work.join(ROOT), &server.reached.root_pem)?;
        Ok(Self {
            server,
            work,
            most_connections: files.saturating_sub(SPARE_FILES),
            cores,
        })
    }

    /// Makes a job without requests. All connections go to one address, as long as that has enough
    /// ports for twice as many.
    pub(crate) fn job(&self, client: Client, scene: Scene) -> Job {
        const ONE_ADDRESS: usize = 4000;
        let reached = &self.server.reached;
        let servers = match scene.workload {
            Workload::Tls => vec![reached.tls],
            _ if scene.connections > ONE_ADDRESS => reached.plain.clone(),
            _ => vec![reached.plain[0]],
        };
        Job {
            client,
            workload: scene.workload,
            servers,
            root: self.work.join(ROOT),
            connections: scene.connections,
            held: 0,
            warm_up: (4 * scene.connections).max(200),
            requests: 0,
            timed: false,
        }
    }

    pub(crate) fn server(&self) -> &Reached {
        &self.server.reached
    }

    pub(crate) fn run(&self, job: &Job) -> Outcome {
        if job.client == Client::Wrk && !wrk::is_installed() {
            return Outcome::NotApplicable("it is not installed".to_owned());
        }
        match self.output(Self::program(), job) {
            Ok((outcome, _)) => outcome,
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }

    /// Runs the client under a tool, and returns what the tool writes to standard error.
    pub(crate) fn run_under(
        &self,
        tool: &[String],
        job: &Job,
    ) -> Result<(Outcome, String), Box<dyn Error>> {
        let (name, arguments) = tool.split_first().ok_or("no tool is named")?;
        let mut command = Command::new(name);
        command.args(arguments).arg(std::env::current_exe()?);
        self.output(Ok(command), job)
    }

    pub(crate) fn work_file(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    fn program() -> std::io::Result<Command> {
        Ok(Command::new(std::env::current_exe()?))
    }

    fn output(
        &self,
        command: std::io::Result<Command>,
        job: &Job,
    ) -> Result<(Outcome, String), Box<dyn Error>> {
        if job.workload == Workload::Held || job.held > 0 {
            Holding::wait_for_none(self.server.reached.plain[0])?;
        }
        let Output { stdout, stderr, .. } = command?
            .arg(clients::ASKED)
            .arg(serde_json::to_string(job)?)
            .stdin(Stdio::null())
            .output()?;
        let (said, complaints) = (String::from_utf8(stdout)?, String::from_utf8_lossy(&stderr));
        let outcome = said
            .lines()
            .find_map(|line| serde_json::from_str(line).ok())
            .ok_or_else(|| format!("{} ended without a result: {complaints}", job.client.name()))?;
        Ok((complete(outcome, job, &complaints), complaints.into_owned()))
    }
}

/// A cost counts only if every request was answered.
fn complete(outcome: Outcome, job: &Job, complaints: &str) -> Outcome {
    match outcome {
        Outcome::Cost(cost)
            if job.client != Client::Wrk
                && job.workload != Workload::Held
                && cost.answered != job.requests as u64 =>
        {
            let (answered, requests) = (cost.answered, job.requests);
            let complaint = complaints.lines().next().unwrap_or("no message");
            Outcome::Failed(format!(
                "{answered} of {requests} were answered: {complaint}"
            ))
        }
        outcome => outcome,
    }
}

/// Returns `target/versus`, which is next to this program's directory.
pub(crate) fn target_dir() -> Result<PathBuf, Box<dyn Error>> {
    let exe = std::env::current_exe()?;
    let target = exe
        .ancestors()
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name == "release" || name == "debug")
        })
        .and_then(Path::parent)
        .ok_or("this program is not in a target directory")?;
    Ok(target.join("versus"))
}
