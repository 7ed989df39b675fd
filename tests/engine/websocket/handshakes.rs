//! The opening handshake.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use httpstream::policy::{Fields, Visit};
use httpstream::session::{Jar, Redirects, Session};
use httpstream::websocket::Violation;
use httpstream::{Error, ErrorKind, Moment, Next, Reply, Request};

use super::peers::{accepting, close, field, scripted, text};
use super::{record, recorded};
use crate::common::{Bench, Log, Server};

fn ws(server: &Server, path: &str) -> String {
    server.url(path).replace("http", "ws")
}

#[test]
fn the_request_is_that_of_the_rfc_with_a_new_key_each_time() {
    let server = scripted(close(1000, ""), |socket| socket.close());
    let mut bench = Bench::new();
    let request = Request::websocket(ws(&server, "/chat?a=b"))
        .build()
        .unwrap();
    for _ in 0..2 {
        bench.engine.submit_to(request.clone(), recorded());
        bench.engine.run(&mut bench.log).unwrap();
    }
    let seen = server.so_far();
    let mut keys = Vec::new();
    for seen in &seen {
        assert!(seen.head.starts_with("GET /chat?a=b HTTP/1.1\r\n"));
        assert_eq!(field(&seen.head, "Upgrade"), Some("websocket"));
        assert_eq!(field(&seen.head, "Connection"), Some("Upgrade"));
        assert_eq!(field(&seen.head, "Sec-WebSocket-Version"), Some("13"));
        assert_eq!(field(&seen.head, "Sec-WebSocket-Protocol"), None);
        assert_eq!(field(&seen.head, "Sec-WebSocket-Extensions"), None);
        let key = field(&seen.head, "Sec-WebSocket-Key").unwrap();
        assert!(key.len() == 24 && key.ends_with("=="), "16 bytes: {key}");
        keys.push(key);
    }
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn a_wrong_answer_is_an_error_by_name() {
    let protocol = |name: &str| Violation::Protocol(name.to_owned());
    let rows: [(&str, &str, &str, Violation); 5] = [
        (
            "Upgrade: websocket",
            "Upgrade: other",
            "",
            Violation::Upgrade,
        ),
        (
            "Connection: Upgrade",
            "Connection: x",
            "",
            Violation::Connection,
        ),
        (
            "Sec-WebSocket-Accept: ",
            "Sec-WebSocket-Accept: x",
            "",
            Violation::Accept,
        ),
        (
            "",
            "",
            "Sec-WebSocket-Extensions: permessage-deflate; a=b\r\n",
            Violation::Extension("permessage-deflate; a=b".to_owned()),
        ),
        (
            "",
            "",
            "Sec-WebSocket-Protocol: other\r\n",
            protocol("other"),
        ),
    ];
    for (from, to, more, expected) in rows {
        let server = Server::start(move |peer| {
            if let Some(seen) = peer.request() {
                let wire = accepting(&seen.head, more).replacen(from, to, 1);
                peer.send(&[wire.as_bytes(), &text("not read")].concat());
                peer.hold();
            }
        });
        let mut bench = Bench::new();
        let chat = recorded().protocols("a, b");
        let sender = chat.sender();
        let request = Request::websocket(ws(&server, "/")).build().unwrap();
        bench.engine.submit_to(request, chat);
        bench.engine.run(&mut bench.log).unwrap();
        let [Err(error)] = &bench.log.replies[..] else {
            panic!("{expected:?}: no error");
        };
        let violation = error.source().and_then(|source| source.downcast_ref());
        assert_eq!(violation, Some(&expected));
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert_eq!(error.status().map(|it| it.as_u16()), Some(101));
        assert_eq!(bench.log.notes.len(), 1, "{:?}", bench.log.notes);
        assert!(sender.send("x").is_err() && sender.protocol().is_none());
        bench.assert_empty();
    }
}

#[test]
fn protocols_are_offered_and_the_chosen_one_is_known() {
    let server = Server::start(|peer| {
        let Some(seen) = peer.request() else { return };
        let offered = field(&seen.head, "Sec-WebSocket-Protocol").map(str::to_owned);
        let chosen = match offered.as_deref() {
            Some("chat.v2, chat") => "Sec-WebSocket-Protocol: chat\r\n",
            Some("own") => "Sec-WebSocket-Protocol: own\r\n",
            _ => "",
        };
        peer.send(accepting(&seen.head, chosen).as_bytes());
        peer.send(&text("open"));
        peer.hold();
    });
    let plain = || Request::websocket(ws(&server, "/"));
    let own = || plain().header("Sec-WebSocket-Protocol", "own");
    for (request, names, chosen) in [
        (plain(), Some("chat.v2, chat"), Some("chat")),
        (plain(), Some("others"), None),
        (plain(), None, None),
        (own(), None, Some("own")),
        (own(), Some("chat.v2, chat"), Some("own")),
    ] {
        let mut bench = Bench::new();
        let chat = match names {
            Some(names) => recorded().protocols(names),
            None => recorded(),
        };
        let sender = chat.sender();
        bench.engine.submit_to(request.build().unwrap(), chat);
        while bench.log.notes.is_empty() {
            bench.engine.turn(&mut bench.log, None).unwrap();
        }
        assert_eq!(bench.log.notes, [r#"Text("open")"#]);
        assert_eq!(sender.protocol().as_deref(), chosen);
    }
    // Also if the WebSocket is the next step of a chain.
    let mut bench = Bench::new();
    let request = plain().build().unwrap();
    let mut chat = Some(recorded().protocols("chat.v2, chat"));
    let sender = chat.as_ref().unwrap().sender();
    let first = httpstream::Next::<Log>::call(move |_, _| {
        Next::send(request.clone()).read_to(chat.take().unwrap())
    });
    bench.engine.start(first);
    while bench.log.notes.is_empty() {
        bench.engine.turn(&mut bench.log, None).unwrap();
    }
    assert_eq!(sender.protocol().as_deref(), Some("chat"));
}

#[test]
fn another_status_is_a_response_like_any_other() {
    let server = Server::answering(&b"HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nbye!"[..]);
    let mut bench = Bench::new();
    let chat = recorded();
    let sender = chat.sender();
    sender.send("never sent").unwrap();
    let request = Request::websocket(ws(&server, "/")).build().unwrap();
    bench.engine.submit_to(request, chat);
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(bench.log.notes, ["over 403"]);
    assert_eq!(bench.log.texts(), ["bye!"]);
    assert!(sender.send("x").is_err());
    assert_eq!(sender.queued(), 0);
    bench.assert_empty();
}

#[test]
fn a_session_brings_cookies_and_follows_redirects() {
    let server = Server::start(|peer| {
        while let Some(seen) = peer.request() {
            match seen.path.as_str() {
                "/v1/login" => peer.send(
                    b"HTTP/1.1 200 OK\r\nSet-Cookie: id=7; Path=/\r\nContent-Length: 0\r\n\r\n",
                ),
                "/v1/socket" => {
                    peer.send(b"HTTP/1.1 307 x\r\nLocation: /moved\r\nContent-Length: 0\r\n\r\n")
                }
                _ => {
                    assert_eq!(field(&seen.head, "Cookie"), Some("id=7"));
                    peer.send(accepting(&seen.head, "").as_bytes());
                    peer.send(&close(1000, &seen.path));
                    peer.hold();
                    return;
                }
            };
        }
    });
    let session = Session::builder()
        .base(server.url("/v1/"))
        .cookies(Jar::new())
        .redirects(Redirects::limited(3))
        .total(Duration::from_secs(60))
        .build()
        .unwrap();
    let mut bench = Bench::new();
    let login = session.get("login").build().unwrap();
    bench.engine.submit(login, crate::common::note);
    bench.engine.run(&mut bench.log).unwrap();
    let request = session.websocket("socket").build().unwrap();
    bench.engine.submit_to(request, recorded());
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(bench.log.notes, [r#"Close(1000, "/moved")"#, "over 101"]);
}

#[test]
fn a_policy_of_the_request_does_not_replace_the_handshake() {
    #[derive(Clone)]
    struct Sign;
    impl Visit for Sign {
        fn on_send(
            &mut self,
            _: &Request,
            fields: &mut Fields<'_>,
            _: &Moment<'_>,
        ) -> Result<(), Error> {
            fields.add("X-Signed", "yes")
        }
    }
    let server = scripted(close(1000, ""), |socket| socket.close());
    let mut bench = Bench::new();
    let request = Request::websocket(ws(&server, "/")).policy(Arc::new(Sign));
    let request = request.build().unwrap().edit().build().unwrap();
    bench.engine.submit_to(request, recorded());
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(bench.log.notes, [r#"Close(1000, "")"#, "over 101"]);
    let seen = server.next();
    assert_eq!(field(&seen.head, "X-Signed"), Some("yes"));
}

#[test]
fn the_same_readback_opens_it_again_with_the_same_sender() {
    let server = scripted("", |socket| {
        if let Some((first, payload)) = socket.read() {
            socket.send(&super::peers::frame(first, &payload));
        }
        // Without a Close frame.
    });
    let mut bench = Bench::new();
    let sender: Arc<std::sync::OnceLock<httpstream::WebSocketSender>> = Arc::default();
    let again = Arc::clone(&sender);
    let mut left = 3;
    let chat = httpstream::WebSocket::new(record).then(
        move |log: &mut Log, reply: Reply<'_>, _: &mut httpstream::Context<'_, Log>| {
            log.notes
                .push(reply.map_or_else(|it| format!("{:?}", it.kind()), |_| "101".into()));
            left -= 1;
            let again = again.get().unwrap();
            assert!(again.send("dropped").is_err(), "it is over");
            if left == 0 {
                Next::done()
            } else {
                Next::again()
            }
        },
    );
    sender.set(chat.sender()).unwrap();
    let request = Request::websocket(ws(&server, "/")).build().unwrap();
    bench.engine.submit_to(request, chat);
    let sender = sender.get().unwrap();
    for i in 0..3 {
        while bench.log.notes.len() < 2 * i {
            bench.engine.turn(&mut bench.log, None).unwrap();
        }
        // Not open again yet, perhaps.
        while sender.send(i.to_string()).is_err() {
            bench.engine.turn(&mut bench.log, None).unwrap();
        }
    }
    bench.engine.run(&mut bench.log).unwrap();
    let expected = [
        r#"Text("0")"#,
        "Truncated",
        r#"Text("1")"#,
        "Truncated",
        r#"Text("2")"#,
        "Truncated",
    ];
    assert_eq!(bench.log.notes, expected);
    assert!(sender.send("x").is_err());
}
