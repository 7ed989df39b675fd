//! The 2013 system, running: a WebQQ bot on this crate's engine, and a WebQQ server for it to talk
//! to.
//!
//! `cargo run --release -p webqq` plays a scripted conversation and judges it; `--help` lists the
//! other modes. Read `bot.rs` first: a login, a poll that never ends and a heartbeat every minute,
//! as methods of a plain struct. `sessions.rs` has the HTTP sessions that its requests belong to,
//! `protocol.rs` builds the requests, and `answers.rs` reads the answers. The server (`server/`) is
//! built on hyper and shares no code with the engine.

/// Prints a line, or ends the program if stdout is closed.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        if writeln!(std::io::stdout(), $($text)*).is_err() {
            std::process::exit(1);
        }
    }};
}

mod alone;
mod answers;
#[path = "../../support/args.rs"]
mod args;
mod bot;
mod clock;
mod company;
#[path = "../../../tests/counting/mod.rs"]
mod counting;
mod crowd;
mod doors;
mod events;
mod expect;
mod lists;
mod options;
mod outbox;
mod play;
mod plugins;
mod policy;
mod protocol;
mod roster;
mod scenes;
mod script;
mod serve;
#[allow(dead_code, reason = "its tests ask more of it")]
mod server;
mod sessions;
mod settings;
mod show;
mod steps;
mod talk;
mod verdict;
mod world;

use std::process::ExitCode;

use options::{Mode, Options};

fn main() -> ExitCode {
    env_logger::init();
    let options = Options::read();
    plugins::keep_crashes_quiet();
    if let Some(folder) = &options.log
        && let Err(error) = std::fs::create_dir_all(folder)
    {
        eprintln!("webqq: --log {}: {error}", folder.display());
        return ExitCode::FAILURE;
    }
    let done = match &options.mode {
        Mode::Play => play::run(&options),
        Mode::Serve => serve::run(&options),
        Mode::ServerOnly => alone::run_server(&options),
        Mode::BotOnly(server) => alone::run_bot(&options, server),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("webqq: {error:#}");
            ExitCode::FAILURE
        }
    }
}
