//! Embeds the engine in a tokio program: a driver in a task of a current-thread runtime. Feature
//! `tokio`.
//!
//! The trap: an engine stays on its thread, so its driver cannot be passed to `tokio::spawn`. Run
//! it in `block_on`, in `spawn_local` or in a `select!` next to other futures. Other tasks reach
//! the engine through a `Submitter`.

#[path = "conversation/mod.rs"]
mod conversation;

use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use conversation::program::Job;
use httpstream::Engine;
use httpstream::tokio::Driver;
use tokio::runtime::Builder;

/// How often the task was woken up. The runtime itself wakes up more often and then finds no task
/// to run: its timers move closer in several steps, and a timer that is reset to an earlier time
/// makes the runtime check all of them.
static WAKEUPS: AtomicU64 = AtomicU64::new(0);

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let job = Job::from_args("embed_tokio")?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut host = pin!(run(job));
    runtime.block_on(poll_fn(|cx| {
        WAKEUPS.fetch_add(1, Ordering::Relaxed);
        host.as_mut().poll(cx)
    }))
}

async fn run(mut job: Job) -> Result<ExitCode, Box<dyn Error>> {
    let mut driver = Driver::new(Engine::with_config(job.config())?)?;
    job.begin(driver.engine_mut());
    // The same as `Driver::run`, plus a count of wakeups.
    while driver.engine().pending() > 0 {
        driver.turn(&mut job).await?;
        job.has_woken(WAKEUPS.load(Ordering::Relaxed));
    }
    Ok(job.end())
}
