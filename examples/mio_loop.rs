//! A client inside a mio program. One poll watches the sockets of the program's own server and
//! those of the engine.

use std::error::Error;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;

use httpstream::{Config, Engine, Next, Request, Shared};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

const WAKE: Token = Token(0);
const LISTENER: Token = Token(1);
/// The first token for connections to the server.
const CLIENTS: usize = 2;
/// The tokens that the engine may use.
const ENGINE: Range<usize> = 1 << 16..1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut clients = Slab::new();

    // mio allows one waker per poll. It belongs to the program; the engine wakes the poll through
    // this closure.
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let wake = move || waker.wake().expect("the poll can be woken");
    let mut engine =
        Engine::<u32, Shared>::on_registry(poll.registry(), ENGINE, wake, Config::default())?;
    let request = Request::get(format!("http://{}/", listener.local_addr()?)).build()?;
    engine.submit(request, |replies, reply, _| {
        println!(
            "{:?}",
            reply.map(|response| response.text().unwrap_or_default().to_owned())
        );
        *replies += 1;
        if *replies < 3 {
            Next::again()
        } else {
            Next::done()
        }
    });

    let mut replies = 0;
    let mut events = Events::with_capacity(64);
    while engine.pending() > 0 {
        // 1. Wait no longer than the engine's next deadline.
        match poll.poll(&mut events, engine.next_timeout()) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        // 2. Pass the engine its events. False: one for a connection that is already closed.
        for event in &events {
            match event.token() {
                Token(token) if ENGINE.contains(&token) => _ = engine.on_event(event),
                WAKE => {}
                LISTENER => accept(&listener, &poll, &mut clients)?,
                Token(token) => {
                    if !answer(&mut clients[token - CLIENTS])? {
                        clients.remove(token - CLIENTS);
                    }
                }
            }
        }
        // 3. Make a turn after every poll, even without an event: a deadline may have passed.
        engine.turn(&mut replies)?;
    }
    Ok(())
}

/// Accepts and registers all waiting connections.
fn accept(listener: &TcpListener, poll: &Poll, clients: &mut Slab<TcpStream>) -> io::Result<()> {
    // mio is edge-triggered: accept until `accept` would block.
    while let Some((mut stream, _)) = unless_it_would_block(listener.accept())? {
        let token = Token(CLIENTS + clients.vacant_key());
        poll.registry()
            .register(&mut stream, token, Interest::READABLE)?;
        clients.insert(stream);
    }
    Ok(())
}

/// Answers whatever is read as if it were one complete request. Returns false at the end of the
/// connection. A real server would parse, and wait until it can write.
fn answer(stream: &mut TcpStream) -> io::Result<bool> {
    let mut buf = [0; 4096];
    while let Some(n) = unless_it_would_block(stream.read(&mut buf))? {
        if n == 0 {
            return Ok(false);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")?;
    }
    Ok(true)
}

/// Turns a `WouldBlock` error into `None`.
fn unless_it_would_block<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}
