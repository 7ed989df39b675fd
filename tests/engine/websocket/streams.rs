//! WebSockets that tasks read.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::channel;

use httpstream::websocket::Stream;
use httpstream::{Engine, ErrorKind, Local, Message, Request};

use super::peers::{CLOSE, close, echo, frame, scripted, text, tungstenite};
use crate::common::{PATIENCE, Server};

fn open(server: &Server) -> Request {
    let url = server.url("/").replace("http", "ws");
    Request::websocket(url).build().unwrap()
}

/// Runs a task to its end, and returns its output.
fn run<T: 'static, F: Future<Output = T> + 'static>(task: impl FnOnce(Local<()>) -> F) -> T {
    let mut engine = Engine::<()>::new().unwrap();
    let task = task(engine.local());
    let output = Rc::new(RefCell::new(None));
    let kept = Rc::clone(&output);
    engine.spawn(async move {
        let output = task.await;
        *kept.borrow_mut() = Some(output);
    });
    engine.run(&mut ()).unwrap();
    output.take().expect("the task has ended")
}

#[test]
fn a_task_talks_to_an_independent_server() {
    let server = echo();
    let request = open(&server);
    let seen = run(async move |http| {
        let (sender, mut messages) = Stream::open(&http, request).await.unwrap();
        let mut seen = Vec::new();
        for text in ["a", "b", "c"] {
            sender.send(text).unwrap();
            seen.push(messages.next().await.unwrap().unwrap());
        }
        sender.close(1000, "bye");
        while let Some(message) = messages.next().await {
            seen.push(message.unwrap());
        }
        assert!(messages.next().await.is_none());
        seen
    });
    let mut expected: Vec<Message<'_>> = ["a", "b", "c"].map(Message::from).into();
    expected.push(Message::Close(1000, "bye".into()));
    assert_eq!(seen, expected);
}

#[test]
fn what_cannot_be_opened_is_an_error() {
    let refusing = Server::answering(&b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nbye"[..]);
    let wrong = Server::once(&b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n"[..]);
    for (server, kind, body) in [
        (refusing, ErrorKind::Status, "bye"),
        (wrong, ErrorKind::Malformed, ""),
    ] {
        let request = open(&server);
        let error = run(async move |http| Stream::open(&http, request).await.err().unwrap());
        assert_eq!(
            (error.kind(), error.partial_body()),
            (kind, body.as_bytes())
        );
    }
}

#[test]
fn an_error_comes_after_the_messages() {
    let server = scripted(
        [text("1"), text("2"), frame(0x83, b"")].concat(),
        |socket| {
            socket.read();
        },
    );
    let request = open(&server);
    run(async move |http: Local<()>| {
        let (_sender, mut messages) = Stream::open(&http, request).await.unwrap();
        http.sleep(std::time::Duration::from_millis(20)).await;
        for expected in ["1", "2"] {
            let message = messages.next().await.unwrap().unwrap();
            assert_eq!(message, Message::from(expected));
        }
        let error = messages.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(messages.next().await.is_none());
    });
}

#[test]
fn a_slow_task_holds_the_server_back() {
    const LEN: usize = 1 << 20;
    const COUNT: usize = 40;
    let (tell, told) = channel();
    let server = tungstenite(move |socket| {
        for i in 0..COUNT {
            socket.send(vec![i as u8; LEN].into()).unwrap();
            tell.send(i).unwrap();
        }
        let _ = socket.close(None);
        while socket.read().is_ok() {}
    });
    let request = open(&server);
    run(async move |http: Local<()>| {
        let (_sender, mut messages) = Stream::open(&http, request).await.unwrap();
        http.sleep(std::time::Duration::from_millis(300)).await;
        // The buffers of both kernels hold some MiB.
        let sent = told.try_iter().count();
        assert!(sent < COUNT, "{sent} were sent while nobody read");
        for i in 0..COUNT {
            let message = messages.next().await.unwrap().unwrap();
            assert!(message == Message::from(vec![i as u8; LEN]), "message {i}");
        }
        let end = messages.next().await.unwrap().unwrap();
        assert_eq!(end, Message::Close(1005, "".into()));
        assert!(messages.next().await.is_none());
    });
}

#[test]
fn dropping_both_halves_closes() {
    for stream_first in [true, false] {
        let (tell, told) = channel();
        let server = scripted(text("hello"), move |socket| {
            tell.send(socket.read()).unwrap();
            socket.send(&close(1000, ""));
            socket.close();
        });
        let request = open(&server);
        run(async move |http: Local<()>| {
            let (sender, messages) = Stream::open(&http, request).await.unwrap();
            let other = sender.clone();
            if stream_first {
                drop(messages);
                drop(sender);
                drop(other);
            } else {
                drop((sender, other));
                drop(messages);
            }
        });
        let seen = told.recv_timeout(PATIENCE).expect("the server has read");
        assert_eq!(seen, Some((CLOSE, vec![3, 232])));
    }
}

#[test]
fn one_half_alone_goes_on() {
    let server = echo();
    let request = open(&server);
    run(async move |http: Local<()>| {
        // Without a sender, messages still arrive.
        let (sender, mut messages) = Stream::open(&http, request.clone()).await.unwrap();
        sender.send("a").unwrap();
        drop(sender);
        assert_eq!(messages.next().await.unwrap().unwrap(), Message::from("a"));
        drop(messages);
        // Without a stream, they are dropped, and sending goes on.
        let (sender, messages) = Stream::open(&http, request).await.unwrap();
        drop(messages);
        for _ in 0..100 {
            sender.room().await.unwrap();
            sender.send(vec![0; 100_000]).unwrap();
        }
    });
}

#[test]
fn an_opening_that_is_dropped_is_canceled() {
    let server = Server::start(|peer| {
        peer.request();
        assert_eq!(peer.hold(), b"", "nothing but the end");
    });
    let request = open(&server);
    let mut engine = Engine::<()>::new().unwrap();
    let http = engine.local();
    engine.spawn(async move {
        let opening = Stream::open(&http, request);
        let mut opening = Box::pin(opening);
        let mut polled = 0;
        std::future::poll_fn(|cx| {
            polled += 1;
            assert!(opening.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        http.sleep(std::time::Duration::from_millis(10)).await;
        drop(opening);
    });
    engine.run(&mut ()).unwrap();
    assert_eq!(engine.pending(), 0);
}
