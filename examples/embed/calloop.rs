//! Embeds the engine in a calloop program, as Wayland compositors and clients are: an event source,
//! whose readbacks are lent the loop's own data. Feature `calloop`.
//!
//! The trap: a source is borrowed while its callback runs, so a callback that accesses its own
//! source panics. Readbacks submit through their `Context`; other code submits through the
//! dispatcher, between two iterations of the loop.

#[path = "conversation/mod.rs"]
mod conversation;

use std::error::Error;
use std::process::ExitCode;

use calloop::{Dispatcher, EventLoop};
use conversation::program::Job;
use httpstream::Engine;
use httpstream::calloop::{EngineSource, turn};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut job = Job::from_args("embed_calloop")?;
    let engine = Engine::with_config(job.config())?;
    let source = Dispatcher::<_, Job>::new(EngineSource::new(engine)?, turn);
    job.begin(source.as_source_mut().engine_mut());

    let mut event_loop = EventLoop::try_new()?;
    event_loop.handle().register_dispatcher(source.clone())?;
    while source.as_source_ref().engine().pending() > 0 {
        event_loop.dispatch(None, &mut job)?;
        job.woke();
    }
    Ok(job.end())
}
