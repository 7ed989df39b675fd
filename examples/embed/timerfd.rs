//! In a host without timers: the descriptor is readable whenever a turn is due, for a deadline too. Linux, feature `timerfd`.
//!
//! The trap: `submit`, `cancel` and `resume` outside of a turn make a turn due without making anything readable. So this host turns once after them,
//! before it waits.

#[path = "conversation/mod.rs"]
mod conversation;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use conversation::program::Job;
use httpstream::Engine;
use rustix::event::{PollFd, PollFlags, poll};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut job = Job::from_args("embed_timerfd")?;
    let mut engine = Engine::with_config(job.config())?;
    job.begin(&mut engine);
    engine.turn(&mut job, Some(Duration::ZERO))?;
    while engine.pending() > 0 {
        poll(&mut [PollFd::new(&engine, PollFlags::IN)], None)?;
        job.woke();
        engine.turn(&mut job, Some(Duration::ZERO))?;
    }
    Ok(job.end())
}
