//! Embeds the engine in a mio program: the engine's file descriptor, itself a poll, is registered
//! with the host's poll.
//!
//! The trap: mio is edge-triggered. Work that is left when a turn ends causes no new edge, so the
//! host turns until a turn has no events and leaves no work.

#[path = "conversation/mod.rs"]
mod conversation;

use std::error::Error;
use std::io;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::Duration;

use conversation::program::Job;
use httpstream::Engine;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

const ENGINE: Token = Token(0);

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut job = Job::from_args("embed_nested")?;
    let mut engine = Engine::with_config(job.config())?;
    job.begin(&mut engine);

    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(16);
    poll.registry().register(
        &mut SourceFd(&engine.as_raw_fd()),
        ENGINE,
        Interest::READABLE,
    )?;
    while engine.pending() > 0 {
        match poll.poll(&mut events, engine.next_timeout()) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => job.woke(),
        }
        loop {
            let turn = engine.turn(&mut job, Some(Duration::ZERO))?;
            if turn.events == 0 && !turn.more {
                break;
            }
        }
    }
    // The engine still owns the descriptor, so deregister it before the engine closes it.
    poll.registry()
        .deregister(&mut SourceFd(&engine.as_raw_fd()))?;
    Ok(job.end())
}
