//! httpstream beside its peers: one command that starts a server, runs each client in a process of its own, in turns, and reports.

use std::process::ExitCode;

mod clients;
mod job;
mod machine;
mod measure;
mod meter;
mod server;
mod stats;

/// What `cargo bench -p versus` runs; also the server and each of the clients, which are this same program started anew.
pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [clients::ASKED, job] => clients::run(job),
        [measure::held::ASKED, ask] => ended(measure::held::run(ask).map(drop)),
        ["--waiting"] => ended(waiting()),
        [measure::timers::ASKED, ask] => ended(measure::timers::run(ask)),
        ["--timers"] => ended(timers()),
        [server::ASKED, core] => ended(server::run(core)),
        _ => ExitCode::FAILURE,
    }
}

fn ended(result: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("versus: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Held polls and delayed requests alone.
fn waiting() -> Result<(), Box<dyn std::error::Error>> {
    machine::raise_open_files()?;
    let server = server::Server::start(0)?;
    let rows = measure::held::polls(&server.reached, 1, |row| {
        eprint!("{}", measure::held::table(std::slice::from_ref(row)))
    })?;
    println!("{}", measure::held::table(&rows));
    let rows = measure::held::delayed(1, |_| ());
    println!("{}", measure::held::table(&rows));
    Ok(())
}

/// Timers alone.
fn timers() -> Result<(), Box<dyn std::error::Error>> {
    let rows = measure::timers::measure(15, |round| eprintln!("timers: round {round}"))?;
    println!("{}", measure::timers::table(&rows));
    Ok(())
}
