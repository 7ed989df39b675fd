//! The closing handshake, and connections that do not end by it.

use std::sync::mpsc::channel;
use std::time::Duration;

use httpstream::sim::Network;
use httpstream::websocket::SendError;
use httpstream::{
    Config, Context, Engine, ErrorKind, Flow, Message, Next, Request, Sim, WebSocket,
};
use tungstenite::protocol::CloseFrame;

use super::peers::{CLOSE, PING, TEXT, close, frame, scripted, simulated, text, tungstenite};
use super::recorded;
use crate::common::{Bench, Log, Server};

fn open(server: &Server) -> Request {
    let url = server.url("/").replace("http", "ws");
    Request::websocket(url).build().unwrap()
}

#[test]
fn an_independent_server_closes_and_sees_its_code_again() {
    let (tell, told) = channel();
    let server = tungstenite(move |socket| {
        let frame = CloseFrame {
            code: 4001.into(),
            reason: "shift is over".into(),
        };
        socket.close(Some(frame)).unwrap();
        let answer = socket.read();
        tell.send(format!("{answer:?}")).unwrap();
        let end = socket.read();
        tell.send(format!("{end:?}")).unwrap();
    });
    let mut bench = Bench::new();
    bench.engine.submit_to(open(&server), recorded());
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(
        bench.log.notes,
        [r#"Close(4001, "shift is over")"#, "over 101"]
    );
    let told: Vec<_> = told.iter().take(2).collect();
    assert!(told[0].contains("4001"), "{told:?}");
    assert_eq!(told[1], "Err(ConnectionClosed)");
}

#[test]
fn a_close_without_a_code_is_answered_without_one() {
    let (tell, told) = channel();
    let server = scripted(frame(CLOSE, b""), move |socket| {
        tell.send((socket.read(), socket.read())).unwrap();
    });
    let mut bench = Bench::new();
    bench.engine.submit_to(open(&server), recorded());
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(bench.log.notes, [r#"Close(1005, "")"#, "over 101"]);
    assert_eq!(told.recv().unwrap(), (Some((CLOSE, Vec::new())), None));
}

#[test]
fn messages_arrive_until_the_server_answers_the_close() {
    let server = scripted("", |socket| {
        assert_eq!(socket.read(), Some((TEXT, b"last words".to_vec())));
        assert_eq!(socket.read(), Some((CLOSE, b"\x03\xe8bye".to_vec())));
        socket.send(&[text("1"), frame(PING, b""), text("2")].concat());
        socket.send(&close(1001, "bye, too"));
        assert_eq!(socket.read(), None, "neither a pong nor a second Close");
    });
    let mut bench = Bench::new();
    let chat = recorded();
    let sender = chat.sender();
    sender.send("last words").unwrap();
    sender.close(1000, "bye");
    bench.engine.submit_to(open(&server), chat);
    bench.engine.run(&mut bench.log).unwrap();
    let expected = [
        r#"Text("1")"#,
        r#"Text("2")"#,
        r#"Close(1001, "bye, too")"#,
        "over 101",
    ];
    assert_eq!(bench.log.notes, expected);
    bench.assert_empty();
}

#[test]
fn what_is_queued_when_the_server_closes_is_dropped() {
    let server = scripted(close(1000, ""), |socket| {
        assert_eq!(socket.read(), Some((CLOSE, vec![3, 232])));
        assert_eq!(socket.read(), None);
    });
    let mut bench = Bench::new();
    let chat = recorded();
    let sender = chat.sender();
    bench.engine.submit_to(open(&server), chat);
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(sender.send("x"), Err(SendError::Gone));
    assert_eq!(bench.log.notes, [r#"Close(1000, "")"#, "over 101"]);
}

fn engine(network: &Network) -> Engine<Log, Sim> {
    Engine::on_network(network, Config::default()).unwrap()
}

fn request() -> Request {
    Request::websocket("ws://10.0.0.1/").build().unwrap()
}

#[test]
fn a_server_that_never_answers_a_close_is_left_after_ten_seconds() {
    // Silent, or busy with everything but the Close frame.
    for is_busy in [false, true] {
        let network = Network::new(1);
        let handle = network.clone();
        let seen = simulated(&network, move |(first, _)| {
            let connection = handle.connections()[0];
            if *first == CLOSE && is_busy {
                handle.push(connection, text("still here"));
            }
            Vec::new()
        });
        let mut engine = engine(&network);
        let chat = recorded();
        chat.sender().close(1000, "");
        engine.submit_to(request(), chat);
        let mut log = Log::default();
        engine.advance(&mut log, Duration::from_secs(1)).unwrap();
        assert_eq!(*seen.borrow(), [(CLOSE, vec![3, 232])]);
        while engine.pending() > 0 {
            if is_busy && let Some(connection) = network.connections().first() {
                network.push(*connection, text("and here"));
            }
            engine
                .advance(&mut log, Duration::from_millis(100))
                .unwrap();
            assert!(network.elapsed() < Duration::from_secs(20), "it never ends");
        }
        assert!(network.elapsed() > Duration::from_secs(10));
        assert!(network.elapsed() < Duration::from_secs(11));
        let end = log.notes.pop().unwrap();
        let expected = "Timeout: the server has not closed the tunnel within 10s of its end";
        assert_eq!(end, expected);
        assert_eq!(log.notes.is_empty(), !is_busy);
        assert_eq!(network.connections(), []);
    }
}

#[test]
fn a_server_that_reads_nothing_is_left_after_the_write_timeout() {
    let network = Network::new(1);
    let seen = simulated(&network, |_| Vec::new());
    network.stop("10.0.0.1:80".parse().unwrap());
    drop(seen);
    let server = super::peers::Simulated {
        network: network.clone(),
        seen: Default::default(),
        bytes: Default::default(),
        on_frame: |_: &super::peers::Frame| Vec::new(),
    };
    let listener = network.serve("10.0.0.1:80".parse().unwrap(), server);
    listener.reads_at_most(1000).send_buffer(4096);
    let mut engine = engine(&network);
    let chat = recorded();
    let sender = chat.sender();
    sender.send(vec![1; 100_000]).unwrap();
    // Behind a message that never gets away.
    sender.close(1000, "");
    engine.submit_to(request(), chat);
    let mut log = Log::default();
    engine.run(&mut log).unwrap();
    let expected = "Timeout: write timeout of 30s: the tunnel's server accepts no bytes";
    assert_eq!(log.notes, [expected]);
    // At the first deadline, the kernel accepted some bytes without having reported room for them.
    let elapsed = network.elapsed();
    assert!((30..=61).contains(&elapsed.as_secs()), "{elapsed:?}");
    assert_eq!(log.kinds(), [ErrorKind::Timeout]);
    assert_eq!(sender.send("x"), Err(SendError::Gone));
}

#[test]
fn a_server_that_reads_slowly_is_not_left_while_the_program_pauses() {
    for pauses in [true, false] {
        let network = Network::new(1);
        let server = super::peers::Simulated {
            network: network.clone(),
            seen: Default::default(),
            bytes: Default::default(),
            on_frame: |_: &super::peers::Frame| Vec::new(),
        };
        let seen = std::rc::Rc::clone(&server.seen);
        let listener = network.serve("10.0.0.1:80".parse().unwrap(), server);
        // It accepts some bytes every fifty seconds, perhaps because its own messages are not read.
        let listener = listener.reads_slowly(4096, Duration::from_secs(50));
        listener.send_buffer(4096);
        let mut engine = engine(&network);
        let pausing = move |log: &mut Log, message: Message<'_>, cx: &mut Context<'_, Log>| {
            super::record(log, message, cx);
            let id = cx.id();
            let resume = Next::<Log>::call(move |_, cx| {
                cx.resume(id);
                Next::done()
            });
            cx.start(resume.after(Duration::from_secs(1000)));
            if pauses { Flow::Pause } else { Flow::Stream }
        };
        let chat = WebSocket::new(pausing).then(super::note_end);
        let sender = chat.sender();
        let request = Request::websocket("ws://10.0.0.1/").timeouts(|t| t.first_byte = None);
        engine.submit_to(request.build().unwrap(), chat);
        let mut log = Log::default();
        engine.advance(&mut log, Duration::from_secs(60)).unwrap();
        network.push(network.connections()[0], text("hello"));
        engine.advance(&mut log, Duration::from_secs(1)).unwrap();
        assert_eq!(log.notes, [r#"Text("hello")"#]);
        sender.send(vec![1; 20_000]).unwrap();
        engine.advance(&mut log, Duration::from_secs(500)).unwrap();
        assert_eq!(seen.borrow().len(), usize::from(pauses));
        assert_eq!(log.kinds().is_empty(), pauses, "{:?}", log.notes);
    }
}
