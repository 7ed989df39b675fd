//! In a mio program, deeper: the engine's sockets on the host's own poll, beside the host's own.
//!
//! The trap: the tokens are shared out beforehand, and each event of the engine's window has to be
//! handed over; then comes a turn after every poll, also after one that told nothing. The poll's
//! one waker is the host's, and the engine asks for it by a closure.

#[path = "conversation/mod.rs"]
mod conversation;

use std::error::Error;
use std::io;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conversation::program::Job;
use httpstream::{Engine, Shared};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

/// The host's tokens, ...
const WAKE: Token = Token(0);
const LISTENER: Token = Token(1);
/// ... and those that it lends to the engine.
const ENGINE: Range<usize> = 1 << 16..1 << 24;

/// The host's own timer.
const TICK: Duration = Duration::from_secs(1);

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut job = Job::from_args("embed_shared")?;
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let wake = move || waker.wake().expect("an eventfd that is never full");
    let mut engine = Engine::<_, Shared>::on_registry(poll.registry(), ENGINE, wake, job.config())?;
    job.begin(&mut engine);

    // What the host does beside: it accepts, and it ticks.
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut next_tick = Instant::now() + TICK;

    while engine.pending() > 0 {
        let until = engine.next_deadline().unwrap_or(next_tick).min(next_tick);
        let timeout = until.saturating_duration_since(Instant::now());
        match poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            // The other events are the waker's, which needs no handling, and stale events of the
            // engine.
            if !engine.on_event(event) && event.token() == LISTENER {
                accept(&listener)?;
            }
        }
        match events.is_empty() && Instant::now() >= next_tick {
            true => next_tick += TICK,
            false => job.woke(),
        }
        engine.turn(&mut job)?;
    }
    Ok(job.end())
}

/// Drained, since mio tells edges.
fn accept(listener: &TcpListener) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
