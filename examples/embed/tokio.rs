//! In a tokio program: a driver in a task of a current-thread runtime. Feature `tokio`.
//!
//! The trap: an engine stays on its thread, so its driver is no task for `tokio::spawn`, but for
//! `block_on`, `spawn_local` or a `select!` beside other things; other tasks reach it through a
//! `Submitter`.

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

/// How often the task was woken up. The runtime itself wakes up more often, and then finds nothing
/// to run: its timers are brought nearer step by step, and one that is set to an earlier time has
/// it look at them anew.
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
    // As `Driver::run` does, which counts nothing.
    while driver.engine().pending() > 0 {
        driver.turn(&mut job).await?;
        job.has_woken(WAKEUPS.load(Ordering::Relaxed));
    }
    Ok(job.end())
}
