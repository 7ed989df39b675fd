//! httpstream beside its peers: one command that starts a server, runs each client in a process of its own, in turns, and reports.

use std::process::ExitCode;

mod clients;
mod job;
mod meter;

/// What `cargo bench -p versus` runs; also the server and each of the clients, which are this same program started anew.
pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--client", job] => clients::run(job),
        _ => ExitCode::FAILURE,
    }
}
