//! In a tokio program: a driver in a task of a current-thread runtime. Feature `tokio`.
//!
//! The trap: an engine stays on its thread, so its driver is no task for `tokio::spawn`, but for `block_on`, `spawn_local` or a `select!` beside other
//! things; other tasks reach it through a `Submitter`.

#[path = "conversation/mod.rs"]
mod conversation;

use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use conversation::program::Job;
use httpstream::Engine;
use httpstream::tokio::Driver;
use tokio::runtime::Builder;

/// How often the runtime's wait has returned.
static WAKEUPS: AtomicU64 = AtomicU64::new(0);

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_unpark(|| {
            WAKEUPS.fetch_add(1, Ordering::Relaxed);
        })
        .build()?;
    let job = Job::from_args("embed_tokio")?;
    runtime.block_on(run(job))
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
