//! Embeds the engine in a mio program more closely: the engine's sockets are registered with the
//! host's own poll, next to the host's.
//!
//! The traps: the token ranges must be divided beforehand, and every event in the engine's range
//! must be passed to the engine. A turn must follow every poll, even one without events. The poll's
//! only waker belongs to the host; the engine uses it through a closure.

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

/// The host's tokens.
const WAKE: Token = Token(0);
const LISTENER: Token = Token(1);
/// The tokens that the host lends to the engine.
const ENGINE: Range<usize> = 1 << 16..1 << 24;

/// The interval of the host's own timer.
const TICK: Duration = Duration::from_secs(1);

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut job = Job::from_args("embed_shared")?;
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let wake = move || waker.wake().expect("the eventfd is never full");
    let mut engine = Engine::<_, Shared>::on_registry(poll.registry(), ENGINE, wake, job.config())?;
    job.begin(&mut engine);

    // The host's other work: it accepts connections, and has a timer.
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

/// Accepts until there are no more connections, since mio is edge-triggered.
fn accept(listener: &TcpListener) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
