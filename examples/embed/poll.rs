//! Embeds the engine in a host that uses poll(2) or any other level-triggered interface: one
//! descriptor, one timeout, one turn for each wakeup.
//!
//! The trap: poll(2) counts whole milliseconds. If the timeout were rounded down, the loop would
//! spin during the last millisecond before a deadline. Zero stays zero.

#[path = "conversation/mod.rs"]
mod conversation;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use conversation::program::Job;
use httpstream::Engine;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut job = Job::from_args("embed_poll")?;
    let mut engine = Engine::with_config(job.config())?;
    job.begin(&mut engine);
    while engine.pending() > 0 {
        let timeout = engine.next_timeout().map(whole_milliseconds);
        let mut watched = [PollFd::new(&engine, PollFlags::IN)];
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => job.woke(),
            Err(error) => return Err(error.into()),
        }
        // An early or late turn does no harm. What it leaves over, the next poll reports again.
        engine.turn(&mut job, Some(Duration::ZERO))?;
    }
    Ok(job.end())
}

/// Rounds up to whole milliseconds, the unit of C's poll(2).
fn whole_milliseconds(timeout: Duration) -> Timespec {
    let ms = timeout.as_nanos().div_ceil(1_000_000);
    // A wait longer than poll(2) allows is split into several.
    let ms = u32::try_from(ms).unwrap_or(u32::MAX).min(i32::MAX as u32);
    Duration::from_millis(ms.into())
        .try_into()
        .expect("24 days fit into a Timespec")
}
