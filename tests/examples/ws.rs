//! `examples/ws.rs`, with tungstenite's server.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Stdio;

use crate::servers::example;

#[test]
fn ws_sends_what_is_typed_and_prints_what_comes_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        // The first connection is lost.
        let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
        socket.send("welcome".into()).unwrap();
        assert_eq!(socket.read().unwrap().to_text().unwrap(), "hello");
        drop(socket);
        let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
        socket.send("welcome back".into()).unwrap();
        socket.send(vec![1, 2, 3].into()).unwrap();
        while let Ok(message) = socket.read() {
            if message.is_text() {
                socket.send(message).unwrap();
            }
        }
    });
    let mut ws = example("ws")
        .arg(url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = ws.stdin.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(ws.stdout.take().unwrap()));
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "welcome");
    writeln!(stdin, "hello").unwrap();
    assert_eq!(next(), "welcome back");
    assert_eq!(next(), "(3 bytes)");
    writeln!(stdin, "one\ntwo").unwrap();
    assert_eq!((next(), next()), ("one".to_owned(), "two".to_owned()));
    drop(stdin);
    assert_eq!(next(), "closed: 1000 ");
    let ended = ws.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("trying again"), "{stderr}");
    server.join().unwrap();
}
