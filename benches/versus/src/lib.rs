//! Compares httpstream with its peers: one command starts a server, runs each client in turn in a
//! process of its own, and reports.

mod bench;
mod clients;
mod job;
mod machine;
mod measure;
mod meter;
mod options;
mod report;
mod run;
mod scene;
mod server;
mod stats;

use std::error::Error;
use std::process::ExitCode;

use options::{Asked, Options, USAGE};

/// What `cargo bench -p versus` runs. The server and each of the clients are this same program,
/// started again.
pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [clients::ASKED, job] => clients::run(job),
        [measure::held::ASKED, ask] => ended(measure::held::run(ask)),
        [measure::timers::ASKED, ask] => ended(measure::timers::run(ask)),
        [measure::transfers::ASKED, ask] => ended(measure::transfers::run(ask)),
        [server::ASKED, core] => ended(server::run(core)),
        _ => match Options::parse(&args) {
            Ok(Asked::Run(options)) => ended(measure_and_publish(&options)),
            Ok(Asked::Help) => {
                print!("{USAGE}");
                ExitCode::SUCCESS
            }
            Err(wrong) => {
                eprint!("versus: {wrong}\n{USAGE}");
                ExitCode::from(2)
            }
        },
    }
}

fn measure_and_publish(options: &Options) -> Result<(), Box<dyn Error>> {
    report::publish(&run::run(options)?, options)
}

fn ended(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("versus: {error}");
            ExitCode::FAILURE
        }
    }
}
