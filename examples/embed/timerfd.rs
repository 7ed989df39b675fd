//! Embeds the engine in a host without timers: the descriptor is readable whenever a turn is due,
//! also for a deadline. Linux, feature `timerfd`.
//!
//! The trap: every deadline that is earlier than the current one costs a system call. A host with
//! timers should set `Config::timerfd = false` and use the deadline.

#[path = "conversation/mod.rs"]
mod conversation;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use conversation::program::Job;
use httpstream::Engine;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut job = Job::from_args("embed_timerfd")?;
    let mut engine = Engine::with_config(job.config())?;
    job.begin(&mut engine);
    while engine.pending() > 0 {
        match poll(&mut [PollFd::new(&engine, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => job.woke(),
            Err(error) => return Err(error.into()),
        }
        engine.turn(&mut job, Some(Duration::ZERO))?;
    }
    Ok(job.end())
}
