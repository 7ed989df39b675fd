//! WebSockets inside of TLS, with tungstenite's server.

use std::io::{self, Read, Write};

use httpstream::{Context, Flow, Message, Next, Reply, Request, WebSocket};

use crate::bodies::body_of;
use crate::common::Log;
use crate::peer::{Pieces, TlsPeer, VERSIONS, World};

/// The plaintext of a connection, as a stream.
struct Plaintext<'a, 'p>(&'a mut TlsPeer<'p>);

impl Read for Plaintext<'_, '_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let waiting = self.0.unread_len().max(1).min(room.len());
        let bytes = self.0.body(waiting);
        room[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

impl Write for Plaintext<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.send(bytes) {
            true => Ok(bytes.len()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn record(log: &mut Log, message: Message<'_>, _: &mut Context<'_, Log>) -> Flow {
    log.notes.push(match message {
        Message::Text(text) => text.into_owned(),
        Message::Binary(bytes) => {
            assert!(bytes == body_of(bytes.len()), "it has changed on its way");
            bytes.len().to_string()
        }
        Message::Close(code, reason) => format!("{code} {reason}"),
        _ => "another".to_owned(),
    });
    Flow::Stream
}

fn end(log: &mut Log, reply: Reply<'_>, _: &mut Context<'_, Log>) -> Next<Log> {
    log.notes.push(match reply {
        Ok(response) => response.status().to_string(),
        Err(error) => format!("{error:#}"),
    });
    Next::done()
}

#[test]
fn messages_go_both_ways_through_tls() {
    for version in VERSIONS {
        for pieces in [Pieces::Whole, Pieces::Bytes] {
            let world = World::with(
                &[version],
                |_| (),
                pieces,
                |peer| {
                    let Ok(mut socket) = tungstenite::accept(Plaintext(peer)) else {
                        return;
                    };
                    while let Ok(message) = socket.read() {
                        if !message.is_close() && socket.send(message).is_err() {
                            break;
                        }
                    }
                },
            );
            let sizes: &[usize] = match pieces {
                Pieces::Whole => &[0, 5, 70_000, 1 << 20],
                Pieces::Bytes => &[0, 5, 300],
            };
            let mut bench = world.bench();
            let socket = WebSocket::new(record).then(end);
            let sender = socket.sender();
            sender.send("hello").unwrap();
            for size in sizes {
                sender.send(body_of(*size)).unwrap();
            }
            sender.close(1000, "bye");
            let request = Request::websocket(world.url("/").replace("https:", "wss:"));
            bench.engine.submit_to(request.build().unwrap(), socket);
            bench.engine.run(&mut bench.log).unwrap();
            let mut expected = vec!["hello".to_owned()];
            expected.extend(sizes.iter().map(usize::to_string));
            expected.extend(["1000 bye".to_owned(), "101 Switching Protocols".to_owned()]);
            assert_eq!(bench.log.notes, expected, "{pieces:?}");
            bench.assert_empty();
        }
    }
}
