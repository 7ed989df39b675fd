//! Servers that break the protocol of an open WebSocket.

use std::sync::mpsc::channel;

use httpstream::websocket::Violation;
use httpstream::{Error, ErrorKind, Request};

use super::peers::{CLOSE, PING, TEXT, close, frame, scripted, text};
use super::recorded;
use crate::common::{Bench, Server};

fn open(server: &Server) -> Request {
    let url = server.url("/").replace("http", "ws");
    Request::websocket(url).build().unwrap()
}

fn violation(error: &Error) -> Option<Violation> {
    let source = std::error::Error::source(error)?;
    source.downcast_ref().cloned()
}

#[test]
fn each_violation_is_an_error_by_name_and_told_to_the_server() {
    let huge = [0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff].to_vec();
    let large = [0x82, 127, 0, 0, 0, 0, 0, 0, 0x10, 1].to_vec();
    let too_large = Violation::MessageTooLarge {
        limit: 0x1000,
        seen: 0x1001,
    };
    let fragments = [frame(0x02, &[0; 0x1000]), frame(0x80, &[0])].concat();
    let rows = [
        (frame(0xc1, b"x"), Violation::ReservedBits, 1002),
        (frame(0x83, b""), Violation::Opcode(3), 1002),
        (frame(0x8f, b""), Violation::Opcode(15), 1002),
        (frame(0x09, b""), Violation::FragmentedControl, 1002),
        (frame(PING, &[0; 126]), Violation::LongControl(126), 1002),
        (frame(0x80, b"x"), Violation::Continuation, 1002),
        (
            [frame(0x01, b"x"), text("y")].concat(),
            Violation::Interrupted,
            1002,
        ),
        (vec![TEXT, 0x80, 1, 2, 3, 4], Violation::Masked, 1002),
        (huge, Violation::Length, 1002),
        (frame(TEXT, &[0xff]), Violation::Utf8, 1007),
        (frame(0x01, &[0xed, 0xa0, 0x80]), Violation::Utf8, 1007),
        (frame(CLOSE, &[3]), Violation::CloseLength, 1002),
        (close(1005, ""), Violation::CloseCode(1005), 1002),
        (close(2000, ""), Violation::CloseCode(2000), 1002),
        (frame(CLOSE, &[3, 232, 0xff]), Violation::Utf8, 1007),
        (large, too_large.clone(), 1009),
        (fragments, too_large, 1009),
    ];
    for (wire, expected, code) in rows {
        let (tell, told) = channel();
        let first = [text("before"), wire].concat();
        let server = scripted(first, move |socket| {
            while let Some(frame) = socket.read() {
                tell.send(Some(frame)).unwrap();
                socket.peer.half_close();
            }
            tell.send(None).unwrap();
        });
        let mut bench = Bench::new();
        let chat = recorded().max_message_bytes(0x1000);
        let sender = chat.sender();
        bench.engine.submit_to(open(&server), chat);
        bench.engine.run(&mut bench.log).unwrap();
        assert_eq!(bench.log.notes[0], r#"Text("before")"#);
        assert_eq!(
            bench.log.notes.len(),
            2,
            "{expected:?}: {:?}",
            bench.log.notes
        );
        let [Err(error)] = &bench.log.replies[..] else {
            panic!("{expected:?}: no error");
        };
        assert_eq!(violation(error).as_ref(), Some(&expected));
        let kind = match code {
            1009 => ErrorKind::TooLarge,
            _ => ErrorKind::Malformed,
        };
        assert_eq!(error.kind(), kind);
        assert!(
            error.origin().is_some() && error.request().is_some(),
            "{error:?}"
        );
        assert!(sender.send("x").is_err());
        bench.assert_empty();
        let seen: Vec<_> = told.iter().map_while(|frame| frame).collect();
        assert_eq!(
            seen,
            [(CLOSE, u16::to_be_bytes(code).to_vec())],
            "{expected:?}"
        );
    }
}

#[test]
fn what_follows_a_violation_is_not_read() {
    let first = [frame(0x83, b""), text("after"), frame(PING, b"")].concat();
    let server = scripted(first, |socket| {
        // The server goes on as if nothing had happened, and then closes.
        for _ in 0..100 {
            socket.send(&[text("after"), frame(PING, b"")].concat());
        }
        let seen: Vec<_> = std::iter::from_fn(|| {
            let frame = socket.read();
            socket.peer.half_close();
            frame
        })
        .collect();
        assert_eq!(seen, [(CLOSE, vec![3, 234])]);
    });
    let mut bench = Bench::new();
    bench.engine.submit_to(open(&server), recorded());
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(
        bench.log.notes,
        ["Malformed: a frame has the reserved opcode 0x3"]
    );
}

#[test]
fn an_end_without_a_close_frame_is_an_error() {
    let ends: [fn(&mut crate::common::Peer); 2] = [
        |peer| peer.close(),
        |peer| {
            peer.send(&frame(TEXT, b"cut")[..4]);
            peer.close();
        },
    ];
    for end in ends {
        let server = scripted(text("x"), move |socket| end(socket.peer));
        let mut bench = Bench::new();
        bench.engine.submit_to(open(&server), recorded());
        bench.engine.run(&mut bench.log).unwrap();
        let expected = [
            r#"Text("x")"#,
            "Truncated: the connection ended without a Close frame",
        ];
        assert_eq!(bench.log.notes, expected);
        bench.assert_empty();
    }
    // A reset is an error of the connection.
    let server = scripted("", |socket| socket.peer.reset());
    let mut bench = Bench::new();
    bench.engine.submit_to(open(&server), recorded());
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(bench.log.kinds(), [ErrorKind::Truncated]);
}
