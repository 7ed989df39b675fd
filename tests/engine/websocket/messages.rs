//! Messages in both directions.

use std::sync::mpsc::channel;
use std::time::Duration;

use httpstream::websocket::SendError;
use httpstream::{Context, Flow, Message, Next, Request, WebSocket, WebSocketSender, within_to};

use super::peers::{BINARY, CLOSE, PING, PONG, TEXT, close, echo, frame, scripted, text};
use super::{note_end, record, recorded};
use crate::common::{Bench, Log, PATIENCE, Server};

fn open(server: &Server) -> Request {
    let url = server.url("/chat").replace("http", "ws");
    Request::websocket(url).build().unwrap()
}

#[test]
fn messages_come_back_from_an_independent_server() {
    let server = echo();
    let mut bench = Bench::new();
    let chat = recorded();
    let sender = chat.sender();
    // Before it is open.
    sender.send("hello").unwrap();
    sender.send(&[0, 255]).unwrap();
    sender.send(String::from("a€𐍈")).unwrap();
    sender.send(vec![7; 70_000]).unwrap();
    sender.ping("are you there?").unwrap();
    sender.send("").unwrap();
    sender.close(3456, "enough");
    assert_eq!(sender.send("late"), Err(SendError::Gone));
    bench.engine.submit_to(open(&server), chat);
    bench.engine.run(&mut bench.log).unwrap();
    let long = format!("Binary({:?})", vec![7; 70_000]);
    let expected = [
        r#"Text("hello")"#,
        "Binary([0, 255])",
        r#"Text("a€𐍈")"#,
        &long,
        r#"Text("")"#,
        r#"Close(3456, "enough")"#,
        "over 101",
    ];
    assert_eq!(bench.log.notes, expected);
    assert_eq!(sender.send("x"), Err(SendError::Gone));
    bench.assert_empty();
}

#[test]
fn what_comes_with_the_101_is_not_lost() {
    let first = [text("one"), frame(0x01, b"t"), frame(0x00, b"w")].concat();
    let server = scripted(first, |socket| {
        let rest = [frame(0x80, b"o"), close(1000, "")].concat();
        socket.send(&rest);
        socket.close();
    });
    let mut bench = Bench::new();
    bench.engine.submit_to(open(&server), recorded());
    bench.engine.run(&mut bench.log).unwrap();
    let expected = [
        r#"Text("one")"#,
        r#"Text("two")"#,
        r#"Close(1000, "")"#,
        "over 101",
    ];
    assert_eq!(bench.log.notes, expected);
}

#[test]
fn pings_are_answered_and_pongs_are_not_shown() {
    let (tell, told) = channel();
    let server = scripted(frame(PING, b"1"), move |socket| {
        tell.send(socket.read()).unwrap();
        socket.send(&[frame(PONG, b""), frame(PING, b""), text("x")].concat());
        tell.send(socket.read()).unwrap();
        socket.send(&close(1000, ""));
        socket.close();
    });
    let mut bench = Bench::new();
    bench.engine.submit_to(open(&server), recorded());
    bench.engine.run(&mut bench.log).unwrap();
    let pongs: Vec<_> = told.try_iter().collect();
    let expected = [Some((PONG, b"1".to_vec())), Some((PONG, Vec::new()))];
    assert_eq!(pongs, expected);
    assert_eq!(
        bench.log.notes,
        [r#"Text("x")"#, r#"Close(1000, "")"#, "over 101"]
    );
}

/// Answers each text with the next number.
struct Count {
    chat: Option<WebSocketSender>,
    count: u32,
    seen: Vec<String>,
}

impl Count {
    fn on_message(&mut self, message: Message<'_>, _: &mut Context<'_, Self>) -> Flow {
        self.seen.push(format!("{message:?}"));
        if let (Message::Text(_), Some(chat)) = (message, &self.chat) {
            self.count += 1;
            // An error means that the test is closing it.
            let _ = chat.send(self.count.to_string());
        }
        Flow::Stream
    }
}

#[test]
fn an_answer_goes_out_in_the_turn_that_received_the_message() {
    let (tell, told) = channel();
    let server = scripted(text("hello"), move |socket| {
        tell.send(socket.read()).unwrap();
        socket.close();
    });
    let mut engine = httpstream::Engine::<Count>::new().unwrap();
    let chat = WebSocket::new(Count::on_message);
    let mut count = Count {
        chat: Some(chat.sender()),
        count: 0,
        seen: Vec::new(),
    };
    engine.submit_to(open(&server), chat);
    while count.count == 0 {
        engine.turn(&mut count, None).unwrap();
    }
    // No other turn is run before the server has it.
    let answer = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(answer, Some((TEXT, b"1".to_vec())));
}

#[test]
fn a_part_of_the_state_has_its_own_websocket() {
    let server = echo();
    let mut engine = httpstream::Engine::<Vec<Count>>::new().unwrap();
    let mut all = Vec::new();
    for i in 0..3 {
        let chat = WebSocket::new(Count::on_message);
        let sender = chat.sender();
        sender.send("begin").unwrap();
        all.push(Count {
            chat: Some(sender),
            count: i as u32 * 10,
            seen: Vec::new(),
        });
        let chat = within_to(move |all: &mut Vec<Count>| all.get_mut(i), chat);
        engine.submit_to(open(&server), chat);
    }
    while all.iter().any(|one| one.seen.len() < 4) {
        engine.turn(&mut all, None).unwrap();
    }
    for (i, one) in all.iter().enumerate() {
        let number = |n: usize| format!("Text({:?})", (i * 10 + n).to_string());
        let expected = [
            "Text(\"begin\")".to_owned(),
            number(1),
            number(2),
            number(3),
        ];
        assert_eq!(one.seen[..4], expected);
        one.chat.as_ref().unwrap().close(1000, "");
    }
    engine.run(&mut all).unwrap();
    assert!(
        all.iter()
            .all(|one| one.seen.last().unwrap() == "Close(1000, \"\")")
    );
}

#[test]
fn another_thread_sends() {
    let server = echo();
    let mut bench = Bench::new();
    let chat = recorded();
    let sender = chat.sender();
    bench.engine.submit_to(open(&server), chat);
    let thread = std::thread::spawn(move || {
        for i in 0..200 {
            // Some are sent while the engine sleeps, and some before it has written the last one.
            if i % 50 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            sender.send(i.to_string()).unwrap();
        }
        sender.close(1000, "");
    });
    bench.engine.run(&mut bench.log).unwrap();
    thread.join().unwrap();
    let mut expected: Vec<_> = (0..200).map(|i| format!("Text(\"{i}\")")).collect();
    expected.extend(["Close(1000, \"\")".to_owned(), "over 101".to_owned()]);
    assert_eq!(bench.log.notes, expected);
}

#[test]
fn many_fragmented_messages_arrive_in_order() {
    let mut wire = Vec::new();
    for i in 0..1000 {
        let message = format!("message {i} ä€");
        let bytes = message.as_bytes();
        // At every byte, characters included.
        let cut = i % (bytes.len() + 1);
        wire.extend(frame(0x01, &bytes[..cut]));
        wire.extend(frame(PING, &[i as u8]));
        wire.extend(frame(0x80, &bytes[cut..]));
    }
    let server = scripted("", move |socket| {
        for piece in wire.chunks(1461) {
            socket.send(piece);
        }
        socket.send(&close(1000, ""));
        socket.close();
    });
    let mut bench = Bench::new();
    bench.engine.submit_to(open(&server), recorded());
    bench.engine.run(&mut bench.log).unwrap();
    let mut expected: Vec<_> = (0..1000)
        .map(|i| format!("Text({:?})", format!("message {i} ä€")))
        .collect();
    expected.extend(["Close(1000, \"\")".to_owned(), "over 101".to_owned()]);
    assert_eq!(bench.log.notes, expected);
}

#[test]
fn large_messages_go_both_ways() {
    const LEN: usize = 10 << 20;
    let server = echo();
    let mut engine = httpstream::Engine::<Vec<usize>>::new().unwrap();
    let pattern = |i: usize| (i * 7 + i / 1000) as u8;
    let message: Vec<u8> = (0..LEN).map(pattern).collect();
    let expected = message.clone();
    let chat = WebSocket::new(
        move |lens: &mut Vec<usize>, message: Message<'_>, _: &mut Context<'_, _>| {
            if let Message::Binary(bytes) = message {
                assert!(bytes == expected, "it has changed on its way");
                lens.push(bytes.len());
            }
            Flow::Stream
        },
    );
    let sender = chat.sender();
    engine.submit_to(open(&server), chat);
    let http = engine.local();
    engine.spawn(async move {
        for _ in 0..3 {
            // The second one waits until less than a MiB of the first is left.
            sender.room().await.unwrap();
            sender.send(&message[..]).unwrap();
            assert_eq!(sender.send("x"), Err(SendError::Full));
        }
        sender.room().await.unwrap();
        sender.close(1000, "");
        assert_eq!(sender.room().await, Err(SendError::Gone));
        drop(http);
    });
    let mut lens = Vec::new();
    engine.run(&mut lens).unwrap();
    assert_eq!(lens, [LEN; 3]);
}

#[test]
fn a_pause_in_the_middle_of_a_piece_holds_back_the_rest() {
    let server = scripted(
        [
            text("1"),
            text("2"),
            text("3"),
            frame(0x01, b"4"),
            frame(PING, b"p"),
        ]
        .concat(),
        |socket| {
            assert_eq!(socket.read(), Some((PONG, b"p".to_vec())));
            socket.send(&[frame(0x80, b"5"), text("6"), close(1000, "")].concat());
            socket.close();
        },
    );
    let mut bench = Bench::new();
    let pausing = |log: &mut Log, message: Message<'_>, cx: &mut Context<'_, Log>| {
        record(log, message, cx);
        let id = cx.id();
        let resume = Next::<Log>::call(move |log, cx| {
            log.notes.push("resumed".to_owned());
            cx.resume(id);
            Next::done()
        });
        cx.start(resume.after(Duration::from_millis(2)));
        Flow::Pause
    };
    let chat = WebSocket::new(pausing).then(note_end);
    bench.engine.submit_to(open(&server), chat);
    bench.engine.run(&mut bench.log).unwrap();
    let mut expected = Vec::new();
    for text in ["1", "2", "3", "45", "6"] {
        expected.extend([format!("Text({text:?})"), "resumed".to_owned()]);
    }
    expected.extend([r#"Close(1000, "")"#.to_owned(), "over 101".to_owned()]);
    // After the Close, nothing is left to be resumed.
    expected.push("resumed".to_owned());
    assert_eq!(bench.log.notes, expected);
}

#[test]
fn what_a_program_returns_decides_on_the_rest() {
    let rows: [(Flow, &[&str]); 4] = [
        (Flow::Discard, &[r#"Text("1")"#, "over 101"]),
        (Flow::Finish, &[r#"Text("1")"#, "over 101"]),
        (Flow::Abort, &[r#"Text("1")"#, "Aborted: http"]),
        (
            Flow::Buffer,
            &[
                r#"Text("1")"#,
                r#"Text("2")"#,
                r#"Close(1000, "")"#,
                "over 101",
            ],
        ),
    ];
    for (flow, expected) in rows {
        let (tell, told) = channel();
        let first = [text("1"), text("2"), frame(PING, b"p"), close(1000, "")].concat();
        let server = scripted(first, move |socket| {
            while let Some(frame) = socket.read() {
                tell.send(Some(frame)).unwrap();
            }
            tell.send(None).unwrap();
        });
        let mut bench = Bench::new();
        let once = move |log: &mut Log, message: Message<'_>, cx: &mut Context<'_, Log>| {
            record(log, message, cx);
            flow
        };
        let chat = WebSocket::new(once).then(note_end);
        bench.engine.submit_to(open(&server), chat);
        bench.engine.run(&mut bench.log).unwrap();
        let mut notes = bench.log.notes;
        if let Some(end) = notes.last_mut() {
            // Without the address.
            end.truncate("Aborted: http".len());
        }
        assert_eq!(notes, expected, "{flow:?}");
        drop(bench.engine);
        let seen: Vec<_> = told.iter().map_while(|frame| frame).collect();
        let is_closed = seen.contains(&(CLOSE, vec![3, 232]));
        assert_eq!(is_closed, flow != Flow::Abort, "{flow:?} {seen:?}");
    }
}

#[test]
fn a_program_that_cancels_itself_hears_no_further_message() {
    let server = scripted([text("1"), text("2")].concat(), |socket| socket.close());
    let mut bench = Bench::new();
    let cancel = |log: &mut Log, message: Message<'_>, cx: &mut Context<'_, Log>| {
        record(log, message, cx);
        cx.cancel(cx.id());
        Flow::Stream
    };
    let chat = WebSocket::new(cancel).then(note_end);
    bench.engine.submit_to(open(&server), chat);
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(bench.log.notes[0], r#"Text("1")"#);
    assert!(
        bench.log.notes[1].starts_with("Cancelled"),
        "{:?}",
        bench.log.notes
    );
    assert_eq!(bench.log.notes.len(), 2);
}

#[test]
fn binary_frames_are_lent_as_bytes() {
    let server = scripted(
        [frame(BINARY, &[1, 2]), close(1000, "")].concat(),
        |socket| {
            socket.close();
        },
    );
    let mut bench = Bench::new();
    let lent = |log: &mut Log, message: Message<'_>, _: &mut Context<'_, Log>| {
        if let Message::Binary(bytes) = message {
            let is_lent = matches!(bytes, std::borrow::Cow::Borrowed(_));
            log.notes.push(format!("{bytes:?} {is_lent}"));
        }
        Flow::Stream
    };
    bench.engine.submit_to(open(&server), WebSocket::new(lent));
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(bench.log.notes, ["[1, 2] true"]);
}
