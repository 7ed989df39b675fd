//! WebSockets with the servers of websockets (Python), ws (Node) and tungstenite (Rust), plain and
//! inside of TLS.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use httpstream::WebSocketSender;
use httpstream::tls::Tls;
use httpstream::{Config, Context, Engine, Flow, Message, Next, Reply, Request, WebSocket};
use tungstenite::Message as Theirs;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::certificates::Authority;
use crate::common::{PATIENCE, Server};
use crate::programs::{self, Program};
use crate::servers::{Random, TempDir};

/// How many messages may usually be on their way.
const WINDOW: usize = 50;

/// Upon this the servers close.
const PLEASE_CLOSE: &str = "close 4001 that is \"all\"";

const MIB: usize = 1 << 20;

/// What the messages are cut from, so that each is different.
struct Pool {
    bytes: Vec<u8>,
    text: String,
}

impl Pool {
    fn new() -> Self {
        let bytes = Random(11).bytes(MIB + 100_000);
        // Characters of one to four bytes.
        let text = bytes.iter().map(|byte| match byte % 8 {
            0 => 'ü',
            1 => '€',
            2 => '🦀',
            _ => char::from(b'a' + byte % 26),
        });
        let text = text.take(MIB).collect();
        Self { bytes, text }
    }

    /// Returns the message of this number. Half of them are texts. Most are short, the longest of
    /// the usual ones has 100 KB, and one in a thousand has a megabyte.
    fn message(&self, number: usize) -> Message<'_> {
        let len = match number % 1000 {
            // Around the limits of the encodings of lengths.
            0..4 => 124 + number % 1000,
            4..7 => 65_534 + number % 1000 - 4,
            7 => 0,
            8 | 9 if number < 5000 => MIB,
            i => 100_000 >> (i % 17),
        };
        let from = number * 37 % 50_000;
        match number % 2 {
            0 => Message::from(&self.bytes[from..from + len]),
            _ => {
                let (mut from, mut end) = (from, (from + len).min(self.text.len()));
                while !self.text.is_char_boundary(from) {
                    from += 1;
                }
                while !self.text.is_char_boundary(end) {
                    end += 1;
                }
                Message::from(&self.text[from..end.max(from)])
            }
        }
    }
}

/// Sends messages, and compares what comes back.
struct Chat {
    pool: Pool,
    count: usize,
    /// How many messages may be on their way.
    window: usize,
    sender: WebSocketSender,
    sent: usize,
    received: usize,
    failures: usize,
    ending: Ending,
    /// The server is to be asked to close.
    is_asking: bool,
    protocol: Option<String>,
    /// The Close frame of the server, and how the WebSocket ended.
    closed: Option<(u16, String)>,
    end: Option<Result<u16, String>>,
}

/// Who closes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Client,
    Server,
    /// The server, while messages are on their way to it.
    ServerInTheMiddle,
}

impl Chat {
    fn new(count: usize, ending: Ending, sender: WebSocketSender) -> Self {
        Self {
            pool: Pool::new(),
            count,
            window: WINDOW,
            sender,
            sent: 0,
            received: 0,
            failures: 0,
            ending,
            is_asking: false,
            protocol: None,
            closed: None,
            end: None,
        }
    }

    /// Sends as much as there is room for. If there is none, a message is on its way, and what is
    /// left is sent when it has come back.
    fn send(&mut self) {
        if self.is_asking && self.sender.send(PLEASE_CLOSE).is_ok() {
            self.is_asking = false;
        }
        while self.sent < self.count && self.sent < self.received + self.window {
            if self.sender.send(self.pool.message(self.sent)).is_err() {
                return;
            }
            self.sent += 1;
            if self.sent.is_multiple_of(300) {
                // Not if the queue is full.
                let _ = self.sender.ping("are you there?");
            }
        }
    }

    fn on_message(&mut self, message: Message<'_>, _: &mut Context<'_, Self>) -> Flow {
        if let Message::Close(code, reason) = message {
            self.closed = Some((code, reason.into_owned()));
            return Flow::Stream;
        }
        let number = self.received;
        assert!(message == self.pool.message(number), "number {number}");
        self.received += 1;
        self.protocol = self.sender.protocol();
        let last = match self.ending {
            Ending::ServerInTheMiddle => self.count / 2,
            _ => self.count,
        };
        if self.received == last {
            match self.ending {
                Ending::Client => self.sender.close(1000, "that is all"),
                _ => self.is_asking = true,
            }
        }
        self.send();
        Flow::Stream
    }

    /// Opens a WebSocket for what has not come back yet, and another one when it has failed.
    fn open(&mut self, server: SocketAddr) -> Next<Self> {
        let socket = WebSocket::new(Self::on_message).protocols("chat");
        self.sender = socket.sender();
        self.sent = self.received;
        self.send();
        let end = move |chat: &mut Self, reply: Reply<'_>, cx: &mut Context<'_, Self>| {
            if reply.is_ok() {
                return chat.on_end(reply, cx);
            }
            chat.failures += 1;
            chat.open(server).after(Duration::from_millis(20))
        };
        let request = Request::websocket(format!("ws://{server}/1"));
        Next::send(request.build().unwrap()).read_to(socket.then(end))
    }

    fn on_end(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        self.end = Some(match reply {
            Ok(response) => Ok(response.status().as_u16()),
            Err(error) => Err(format!("{error:#}")),
        });
        Next::done()
    }
}

/// A server, and how it is reached.
struct Place {
    addr: SocketAddr,
    tls: Option<Tls>,
}

/// Turns until `is_done`, or panics if that takes too long.
fn until(engine: &mut Engine<Chat>, chat: &mut Chat, is_done: impl Fn(&Chat) -> bool) {
    let end = Instant::now() + 2 * PATIENCE;
    while !is_done(chat) {
        let seen = (chat.sent, chat.received, chat.count);
        assert!(Instant::now() < end, "{seen:?}");
        engine.turn(chat, Some(PATIENCE)).unwrap();
    }
}

/// Sends this many messages to a server that sends them back in so many frames, and closes.
fn chat(place: &Place, count: usize, frames: usize, ending: Ending) {
    let mut config = Config::default();
    let scheme = match &place.tls {
        None => "ws",
        Some(tls) => {
            config.route.tls = tls.clone();
            "wss"
        }
    };
    let socket = WebSocket::new(Chat::on_message)
        .protocols("chat.v2, chat")
        .max_queued(256 << 10);
    let mut chat = Chat::new(count, ending, socket.sender());
    chat.send();
    let request = Request::websocket(format!("{scheme}://{}/{frames}", place.addr));
    let mut engine = Engine::with_config(config).unwrap();
    engine.submit_to(request.build().unwrap(), socket.then(Chat::on_end));
    until(&mut engine, &mut chat, |chat| chat.end.is_some());
    let closed = &chat.closed;
    assert_eq!(chat.end, Some(Ok(101)), "{closed:?}");
    match ending {
        Ending::ServerInTheMiddle => assert!((count / 2..count).contains(&chat.received)),
        _ => assert_eq!(chat.received, count, "{closed:?}"),
    }
    assert_eq!(chat.protocol.as_deref(), Some("chat"));
    let closed = match ending {
        Ending::Client => (1000, "that is all".to_owned()),
        _ => (4001, "that is \"all\"".to_owned()),
    };
    // ws repeats the code alone.
    let (code, reason) = chat.closed.unwrap();
    assert_eq!(code, closed.0);
    assert!(
        reason == closed.1 || (ending == Ending::Client && reason.is_empty()),
        "{reason}"
    );
    assert_eq!(engine.pending(), 0);
}

/// Messages in one frame and in several, and both kinds of closing.
fn chats(place: &Place, count: usize) {
    chat(place, count, 1, Ending::Client);
    chat(place, count / 4, 3, Ending::Server);
    chat(place, count / 4, 7, Ending::Client);
    chat(place, 1000, 2, Ending::ServerInTheMiddle);
    chat(place, 1, 1, Ending::Server);
}

/// Starts a program twice: without TLS, and with a certificate.
fn with_program(start: impl Fn(&[PathBuf]) -> Option<Program>) {
    let port = PathBuf::from("0");
    let Some(plain) = start(std::slice::from_ref(&port)) else {
        return;
    };
    let addr = plain.addr;
    chats(&Place { addr, tls: None }, 10_000);

    let (authority, folder) = (Authority::new(), TempDir::new());
    authority.server().write_to(folder.path());
    let [cert, key] = ["server.pem", "server.key"].map(|name| folder.path().join(name));
    let secure = start(&[port, cert, key]).unwrap();
    let addr = secure.addr;
    let tls = Some(authority.tls());
    chats(&Place { addr, tls }, 2000);
}

#[test]
fn messages_go_to_websockets_of_python_and_back() {
    with_program(|args| programs::python("websocket_server.py", args));
}

#[test]
fn messages_go_to_ws_of_node_and_back() {
    with_program(|args| programs::node("websocket_server.js", args));
}

#[test]
fn a_chat_goes_on_when_its_server_is_restarted() {
    let start = |port: u16| programs::python("websocket_server.py", [port.to_string()]);
    let Some(server) = start(0) else {
        return;
    };
    let addr = server.addr;
    let unused = WebSocket::new(Chat::on_message).sender();
    let mut chat = Chat::new(usize::MAX, Ending::Client, unused);
    // When more messages wait for the handler of `websockets`, it does not read, and would not see
    // our Close frame before a timeout.
    chat.window = 10;
    let mut engine = Engine::new().unwrap();
    engine.start(chat.open(addr));

    until(&mut engine, &mut chat, |chat| chat.received >= 300);
    drop(server);
    until(&mut engine, &mut chat, |chat| chat.failures >= 1);
    let server = start(addr.port()).unwrap();
    until(&mut engine, &mut chat, |chat| chat.received >= 1000);
    // It closes its WebSockets with 1001 (going away).
    server.terminate();
    until(&mut engine, &mut chat, |chat| chat.end.is_some());
    server.wait();
    assert_eq!(chat.end, Some(Ok(101)));
    assert_eq!(chat.closed.map(|(code, _)| code), Some(1001));
    assert_eq!(engine.pending(), 0);
}

#[test]
fn messages_go_to_tungstenite_and_back() {
    let plain = Server::start(|peer| echo(peer.stream()));
    let addr = plain.addr;
    chats(&Place { addr, tls: None }, 10_000);

    let authority = Authority::new();
    let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
    let config = Arc::new(authority.server().config(&versions));
    let secure = Server::start(move |peer| {
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        echo(rustls::StreamOwned::new(connection, peer.stream()));
    });
    let addr = secure.addr;
    let tls = Some(authority.tls());
    chats(&Place { addr, tls }, 2000);
}

/// Does what `checks/interop/websocket_server.py` does.
fn echo(stream: impl Read + Write) {
    use tungstenite::handshake::server::{ErrorResponse, Request, Response};

    let mut frames = 1;
    #[expect(
        clippy::result_large_err,
        reason = "the type of tungstenite's callbacks"
    )]
    let choose = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        frames = request.uri().path()[1..].parse().unwrap();
        let chosen = "chat".parse().unwrap();
        response
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", chosen);
        Ok(response)
    };
    let Ok(mut socket) = tungstenite::accept_hdr(stream, choose) else {
        return;
    };
    let (mut count, mut pongs) = (0, 0);
    while let Ok(message) = socket.read() {
        let (opcode, bytes) = match message {
            Theirs::Text(text) if text.starts_with("close ") => {
                let (mut code, reason) = text["close ".len()..].split_once(' ').unwrap();
                // Of several pings, only the last must be answered (RFC 6455 §5.5.3).
                if count >= 500 && pongs == 0 {
                    code = "4999";
                }
                let close = tungstenite::protocol::CloseFrame {
                    code: code.parse::<u16>().unwrap().into(),
                    reason: reason.into(),
                };
                let _ = socket.close(Some(close));
                continue;
            }
            Theirs::Text(text) => (Data::Text, tungstenite::Bytes::from(text)),
            Theirs::Binary(bytes) => (Data::Binary, bytes),
            Theirs::Pong(_) => {
                pongs += 1;
                continue;
            }
            _ => continue,
        };
        count += 1;
        if count % 500 == 0 && socket.send(Theirs::Ping("?".into())).is_err() {
            break;
        }
        let size = bytes.len() / frames + 1;
        let last = bytes.len() / size * size;
        for at in (0..=last).step_by(size) {
            let end = bytes.len().min(at + size);
            let opcode = OpCode::Data(if at == 0 { opcode } else { Data::Continue });
            let frame = Frame::message(bytes.slice(at..end), opcode, at == last);
            if socket.send(Theirs::Frame(frame)).is_err() {
                break;
            }
        }
    }
}
