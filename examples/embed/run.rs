//! No host: the engine runs itself. What the other programs are compared with.

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
        // As `Engine::run` does, which counts nothing.
        engine.turn(&mut job, None)?;
        job.woke();
    }
    Ok(job.end())
}
