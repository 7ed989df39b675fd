//! Runs the engine without a host: the baseline for the other programs.

#[path = "conversation/mod.rs"]
mod conversation;

use std::error::Error;
use std::process::ExitCode;

use conversation::program::Job;
use httpstream::Engine;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut job = Job::from_args("embed_run")?;
    let mut engine = Engine::with_config(job.config())?;
    job.begin(&mut engine);
    while engine.pending() > 0 {
        // The same as `Engine::run`, plus a count of wakeups.
        engine.turn(&mut job, None)?;
        job.woke();
    }
    Ok(job.end())
}
