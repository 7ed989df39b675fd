//! A client inside a mio program. One poll watches the sockets of the program's own server and
//! those of the engine.

use std::error::Error;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;

use httpstream::{Config, Engine, Next, Request, Shared};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

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
    let mut clients = Vec::new();

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
        // 2. Pass each event to the engine, which returns whether the event was its own.
        for event in &events {
            match event.token() {
                _ if engine.on_event(event) => {}
                LISTENER => accept(&listener, &poll, &mut clients)?,
                Token(token @ CLIENTS..) if token < ENGINE.start => {
                    answer(&mut clients[token - CLIENTS])?;
                }
                _ => {} // the waker
            }
        }
        // 3. Make a turn after every poll, even without an event: a deadline may have passed.
        engine.turn(&mut replies)?;
    }
    Ok(())
}

/// Accepts and registers all waiting connections.
fn accept(listener: &TcpListener, poll: &Poll, clients: &mut Vec<TcpStream>) -> io::Result<()> {
    // mio is edge-triggered: accept until `accept` would block.
    while let Some((mut stream, _)) = unless_it_would_block(listener.accept())? {
        let token = Token(CLIENTS + clients.len());
        poll.registry()
            .register(&mut stream, token, Interest::READABLE)?;
        clients.push(stream);
    }
    Ok(())
}

/// Answers whatever is read as if it were one complete request. A real server would parse it.
fn answer(stream: &mut TcpStream) -> io::Result<()> {
    let mut buf = [0; 4096];
    while unless_it_would_block(stream.read(&mut buf))?.is_some_and(|n| n > 0) {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")?;
    }
    Ok(())
}

/// Turns a `WouldBlock` error into `None`.
fn unless_it_would_block<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}
