//! Servers of WebSockets.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;

use httpstream::sim::{Answer, ConnectionId, Incoming, Network, Server as SimServer};
use tungstenite::handshake::derive_accept_key;

use crate::common::{Peer, Server};

pub(super) const TEXT: u8 = 0x81;
pub(super) const BINARY: u8 = 0x82;
pub(super) const CLOSE: u8 = 0x88;
pub(super) const PING: u8 = 0x89;
pub(super) const PONG: u8 = 0x8a;

/// A frame: its first byte, and its payload without a mask.
pub(super) type Frame = (u8, Vec<u8>);

/// Encodes a frame of a server.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(len as u8),
        len @ 126..65_536 => {
            frame.push(126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

pub(super) fn text(text: &str) -> Vec<u8> {
    frame(TEXT, text.as_bytes())
}

pub(super) fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// Takes the first frame of a client from `bytes`, if it is complete.
pub(super) fn take_frame(bytes: &mut Vec<u8>) -> Option<Frame> {
    let [first, second, rest @ ..] = &bytes[..] else {
        return None;
    };
    assert!(second & 0x80 != 0, "a client masks its frames");
    let (size, len) = match second & 0x7f {
        126 => (2, u16::from_be_bytes(*rest.first_chunk()?) as usize),
        127 => (8, u64::from_be_bytes(*rest.first_chunk()?) as usize),
        len => (0, len as usize),
    };
    let mask = *rest.get(size..)?.first_chunk::<4>()?;
    let payload = rest.get(size + 4..size + 4 + len)?;
    let payload = payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]);
    let frame = (*first, payload.collect());
    bytes.drain(..2 + size + 4 + len);
    Some(frame)
}

/// Returns the value of a field in a request's head.
pub(super) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// A 101 that accepts the key of a request's head, with further field lines.
pub(super) fn accepting(head: &str, more: &str) -> String {
    let key = field(head, "Sec-WebSocket-Key").expect("a key");
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

/// A scripted server on loopback, behind its handshake. What it sends first comes together with the
/// 101.
pub(super) fn scripted(
    first: impl Into<Vec<u8>>,
    script: impl Fn(&mut Socket<'_>) + Send + Sync + 'static,
) -> Server {
    let first = first.into();
    Server::start(move |peer| {
        let Some(seen) = peer.request() else { return };
        let wire = [accepting(&seen.head, "").as_bytes(), &first].concat();
        if peer.send(&wire) {
            script(&mut Socket {
                bytes: peer.unread().to_vec(),
                peer,
            });
        }
    })
}

/// The server's end of a WebSocket.
pub(super) struct Socket<'p> {
    pub(super) peer: &'p mut Peer,
    bytes: Vec<u8>,
}

impl Socket<'_> {
    pub(super) fn send(&mut self, wire: &[u8]) {
        self.peer.send(wire);
    }

    /// Reads a frame. Returns `None` if the client has closed the connection.
    pub(super) fn read(&mut self) -> Option<Frame> {
        let mut room = [0; 4096];
        loop {
            if let Some(frame) = take_frame(&mut self.bytes) {
                return Some(frame);
            }
            let mut stream: &TcpStream = self.peer.stream();
            match stream.read(&mut room) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.bytes.extend_from_slice(&room[..n]),
            }
        }
    }

    /// Answers a Close frame, and waits until the client has closed the connection.
    pub(super) fn close(&mut self) {
        while let Some((first, payload)) = self.read() {
            if first == CLOSE {
                self.send(&frame(CLOSE, &payload));
            }
        }
    }
}

/// A server of tungstenite that sends messages back, until the client closes.
pub(super) fn echo() -> Server {
    tungstenite(|socket| {
        while let Ok(message) = socket.read() {
            if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                break;
            }
        }
    })
}

/// A server of tungstenite.
pub(super) fn tungstenite(
    script: impl Fn(&mut tungstenite::WebSocket<&TcpStream>) + Send + Sync + 'static,
) -> Server {
    Server::start(move |peer| {
        let config = tungstenite::protocol::WebSocketConfig::default().max_frame_size(None);
        if let Ok(mut socket) = tungstenite::accept_with_config(peer.stream(), Some(config)) {
            script(&mut socket);
            let _ = socket.get_mut().flush();
        }
    })
}

/// A simulated server. `on_frame` returns what it sends for a frame.
pub(super) struct Simulated<F> {
    pub(super) network: Network,
    /// The frames that the server has received.
    pub(super) seen: Rc<RefCell<Vec<Frame>>>,
    pub(super) bytes: BTreeMap<ConnectionId, Vec<u8>>,
    pub(super) on_frame: F,
}

/// Serves at 10.0.0.1:80, and returns the frames that the server receives.
pub(super) fn simulated(
    network: &Network,
    on_frame: impl FnMut(&Frame) -> Vec<u8> + 'static,
) -> Rc<RefCell<Vec<Frame>>> {
    let server = Simulated {
        network: network.clone(),
        seen: Rc::default(),
        bytes: BTreeMap::new(),
        on_frame,
    };
    let seen = Rc::clone(&server.seen);
    network.serve("10.0.0.1:80".parse().unwrap(), server);
    seen
}

/// Sends back texts and bytes, and a Close frame.
pub(super) fn echoed((first, payload): &Frame) -> Vec<u8> {
    match *first {
        TEXT | BINARY | CLOSE => frame(*first, payload),
        PING => frame(PONG, payload),
        _ => Vec::new(),
    }
}

impl<F: FnMut(&Frame) -> Vec<u8>> SimServer for Simulated<F> {
    fn on_request(&mut self, request: &Incoming) -> Answer {
        let head = String::from_utf8_lossy(&request.bytes).into_owned();
        Answer::raw(accepting(&head, ""))
    }

    fn on_data(&mut self, connection: ConnectionId, bytes: &[u8]) {
        let unread = self.bytes.entry(connection).or_default();
        unread.extend_from_slice(bytes);
        while let Some(frame) = take_frame(unread) {
            let answer = (self.on_frame)(&frame);
            self.seen.borrow_mut().push(frame);
            if !answer.is_empty() {
                self.network.push(connection, answer);
            }
        }
    }
}
