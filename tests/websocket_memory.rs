//! The memory that a silent WebSocket takes: counted, also after large messages. The server is on
//! other threads, whose allocations are counted separately.

mod counting;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use httpstream::{Config, Context, Engine, Flow, Message, Request, WebSocket, WebSocketSender};

const COUNT: usize = 100;

/// The most bytes of a silent WebSocket: its connection, its chain and its request's handshake, its
/// readback and its queue.
const MOST: isize = 1300;

/// The length of a message that a client sends, whose header has 14 bytes.
const LEN: usize = 100_000;

/// Opens a WebSocket, and answers each message with one that is whole and one in fragments.
fn serve(mut stream: TcpStream) -> Option<()> {
    let mut head = Vec::new();
    let mut room = vec![0; LEN + 14];
    while !head.ends_with(b"\r\n\r\n") {
        let n = stream.read(&mut room).ok().filter(|n| *n > 0)?;
        head.extend_from_slice(&room[..n]);
    }
    // For the key of the RFC.
    let answer = "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    stream.write_all(answer.as_bytes()).ok()?;
    stream.write_all(b"\x81\x04open").ok()?;
    let payload = [7; 65_535];
    loop {
        stream.read_exact(&mut room).ok()?;
        for first in [0x82, 0x02, 0x80] {
            stream.write_all(&[first, 126, 0xff, 0xff]).ok()?;
            stream.write_all(&payload).ok()?;
        }
    }
}

fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(stream));
        }
    });
    addr
}

fn open(engine: &mut Engine<usize>, request: &Request) -> WebSocketSender {
    let count = |heard: &mut usize, _: Message<'_>, _: &mut Context<'_, usize>| {
        *heard += 1;
        Flow::Stream
    };
    let socket = WebSocket::new(count);
    let sender = socket.sender();
    engine.submit_to(request.clone(), socket);
    sender
}

/// Runs the engine until this many messages have been heard, and returns the bytes in use.
fn run_until(engine: &mut Engine<usize>, heard: &mut usize, expected: usize) -> isize {
    while *heard < expected {
        engine.turn(heard, None).unwrap();
    }
    assert_eq!(*heard, expected);
    counting::live_bytes()
}

#[test]
fn a_silent_websocket_is_small() {
    let request = Request::websocket(format!("ws://{}/", start()))
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .build()
        .unwrap();
    let mut config = Config::default();
    config.max_connections_per_origin = COUNT + 1;
    let mut engine = Engine::<usize>::with_config(config).unwrap();
    let mut heard = 0;
    // The engine's own buffers are there before anything is counted.
    let first = open(&mut engine, &request);
    first.send(vec![0; LEN]).unwrap();
    let before = run_until(&mut engine, &mut heard, 3);

    let mut senders = Vec::with_capacity(COUNT);
    let held = counting::live_bytes() - before;
    senders.extend((0..COUNT).map(|_| open(&mut engine, &request)));
    let opened = run_until(&mut engine, &mut heard, 3 + COUNT) - held;
    // Large messages leave nothing behind.
    for sender in &senders {
        sender.send(vec![1; LEN]).unwrap();
    }
    let after = run_until(&mut engine, &mut heard, 3 + 3 * COUNT) - held;
    assert!(senders.iter().all(|sender| sender.queued() == 0));
    let each = (opened - before) / COUNT as isize;
    let kept = (after - opened) / COUNT as isize;
    println!("{each} bytes, and {kept} after large messages");
    assert!(each <= MOST, "a silent WebSocket takes {each} bytes");
    assert!(kept <= 100, "a WebSocket has kept {kept} bytes");
}
