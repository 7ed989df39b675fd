//! Fetches URLs, with the options of curl. `get --help` lists them; `RUST_LOG=debug` logs each
//! transition of the engine: connected, answered, idle, closed.
//!
//! - `args` and `options` read the command line, with `values`, `fields`, `body`, `form`, `upload`,
//!   `cookies` and `trust` for its parts.
//! - `template` makes the requests, and `plan` puts them into sessions; `files` decides where
//!   bodies go.
//! - `download` is the readback of one request, `listen` that of an event stream, `outlet` the way
//!   of a body, `rest` what continues one, `report` what is said in the end, and `hub` the state
//!   that all of them share. A chain fetches one URL after the other; with -Z, there are several.
//! - `tap` is the policy through which a download learns of redirects.
//! - `board`, `stdout` and `write_out` are what the user sees.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use httpstream::{Config, Engine, Error, Next};

use crate::board::{PACE, write_to_stderr};
use crate::hub::{BROKEN, Hub};
use crate::options::Options;
use crate::plan::Plan;

mod args;
mod board;
mod body;
mod cookies;
mod download;
mod fields;
mod files;
mod form;
mod hub;
mod listen;
mod options;
mod outlet;
mod plan;
mod report;
mod rest;
mod stdout;
mod tap;
mod template;
mod trust;
mod upload;
mod values;
mod write_out;

const HELP: &str = include_str!("help.txt");

/// The exit code if the arguments are wrong.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    env_logger::init();
    let options = Options::parse(std::env::args_os().skip(1));
    let code = match options.and_then(|options| options.map(Plan::new).transpose()) {
        Ok(Some(plan)) => run(plan),
        Ok(None) => {
            // If stdout is closed, nobody reads the help.
            let _ = io::stdout().write_all(HELP.as_bytes());
            0
        }
        Err(wrong) => {
            write_to_stderr(&format!("get: {wrong}\nTry get --help.\n"));
            WRONG
        }
    };
    ExitCode::from(code)
}

/// Fetches the URLs, and returns the exit code.
fn run(plan: Plan) -> u8 {
    let Plan {
        config,
        mut hub,
        parallel,
        kept,
    } = plan;
    let fetched = fetch(config, &mut hub, parallel);
    let mut code = hub.tally.exit_code();
    if let Err(error) = fetched {
        hub.board.complain(&format!("{error:#}"));
        code = BROKEN;
    }
    hub.board.close();
    if let Some(Err(error)) = kept.map(|kept| kept.save()) {
        hub.board.complain(&error);
        code = BROKEN;
    }
    code
}

fn fetch(config: Config, hub: &mut Hub, parallel: usize) -> Result<(), Error> {
    let mut engine = Engine::with_config(config)?;
    let begin = Instant::now();
    for _ in 0..parallel {
        if let Some(next) = hub.next() {
            engine.start(next);
        }
    }
    if hub.board.draws() {
        hub.ticker = Some(engine.start(Next::call(Hub::tick).after(PACE)));
    }
    engine.run(hub)?;
    if hub.tally.ended() > 1 {
        let line = hub.tally.sum_up(&engine.stats(), begin.elapsed());
        hub.board.say(line);
    }
    Ok(())
}
