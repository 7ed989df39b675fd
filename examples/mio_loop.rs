//! A client inside a mio program: one poll, with a server's sockets and the engine's on it.

use std::error::Error;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;

use httpstream::{Config, Engine, Next, Request, Shared};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

const WAKE: Token = Token(0);
const LISTENER: Token = Token(1);
/// Tokens of the server's connections, from this one on.
const CLIENTS: usize = 2;
/// Tokens that the engine may use.
const ENGINE: Range<usize> = 1 << 16..1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut clients = Vec::new();

    // A poll has one waker, which is the program's: the engine borrows it.
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let wake = move || waker.wake().expect("the poll is open");
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
        poll.poll(&mut events, engine.next_timeout())?;
        // 2. Each event is either the engine's or the program's.
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
        // 3. A turn after every poll, even if there was no event: a deadline may have passed.
        engine.turn(&mut replies)?;
    }
    Ok(())
}

fn accept(listener: &TcpListener, poll: &Poll, clients: &mut Vec<TcpStream>) -> io::Result<()> {
    // mio reports edges: accept until nothing is left.
    while let Some((mut stream, _)) = unless_it_would_block(listener.accept())? {
        let token = Token(CLIENTS + clients.len());
        poll.registry()
            .register(&mut stream, token, Interest::READABLE)?;
        clients.push(stream);
    }
    Ok(())
}

/// Takes whatever arrives for a request. A real server parses it.
fn answer(stream: &mut TcpStream) -> io::Result<()> {
    let mut buf = [0; 4096];
    while unless_it_would_block(stream.read(&mut buf))?.is_some_and(|n| n > 0) {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")?;
    }
    Ok(())
}

fn unless_it_would_block<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}
