//! The front-end as a client sees it: bytes, and how a connection ends. This file tests it without
//! a brain, `served` with one.

mod served;
mod tls;
mod visitor;

use std::future::ready;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::server::http::tls::Identity;
use crate::server::http::travel;
use crate::server::{Answer, Call, Manner};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// No test takes this long: one that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a connection ended, for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Closed,
    /// Without TLS's close_notify (RFC 8446 §6.1).
    Cut,
    Reset,
}

/// A server without a brain, which answers each call according to its path.
struct Scripted {
    addr: SocketAddr,
    calls: Receiver<Call>,
    /// The numbers of connections whose task has ended.
    ended: Receiver<u64>,
    _running: oneshot::Sender<()>,
}

impl Scripted {
    fn start() -> Self {
        Self::start_at(None)
    }

    fn start_tls(identity: &Identity) -> Self {
        Self::start_at(Some(identity.clone()))
    }

    fn start_at(identity: Option<Identity>) -> Self {
        let listener = std::net::TcpListener::bind(LOOPBACK).unwrap();
        let addr = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (call_came, calls) = mpsc::channel();
        let (task_ended, ended) = mpsc::channel();
        let (running, stopped) = oneshot::channel::<()>();
        let accept = async move {
            let listener = TcpListener::from_std(listener).unwrap();
            for number in 1.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (call_came, task_ended) = (call_came.clone(), task_ended.clone());
                let reply = move |call: Call| {
                    let answer = answer_to(&call.path);
                    let _ = call_came.send(call);
                    ready(answer)
                };
                let identity = identity.clone();
                tokio::spawn(async move {
                    match identity {
                        Some(identity) => {
                            let stream = identity.accept(stream).await.unwrap();
                            travel::serve(stream, number, reply).await;
                        }
                        None => travel::serve(stream, number, reply).await,
                    }
                    let _ = task_ended.send(number);
                });
            }
        };
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! { () = accept => {}, _ = stopped => {} }
            });
        });
        Self {
            addr,
            calls,
            ended,
            _running: running,
        }
    }

    fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    /// Waits for the next task to end.
    fn ended(&self) -> u64 {
        self.ended.recv_timeout(PATIENCE).unwrap()
    }
}

fn answer_to(path: &str) -> Answer {
    let (manner, body) = match path {
        "/chunked" => (Manner::Chunked, "one two three"),
        "/chunked/nothing" => (Manner::Chunked, ""),
        "/until-close" => (Manner::UntilClose, "one two three"),
        "/until-close/nothing" => (Manner::UntilClose, ""),
        "/drip" => (Manner::Drip, "one two three"),
        "/no-byte" => (Manner::NoByte, ""),
        "/reset" => (Manner::Reset, ""),
        "/reset-in-body" => (Manner::ResetInBody, "one two three"),
        "/cut-short" => (Manner::CutShort, "one two three"),
        "/cut-short/nothing" => (Manner::CutShort, ""),
        "/silence" => (Manner::Silence, ""),
        "/nothing" => (Manner::Length, ""),
        "/long-drip" => (Manner::Drip, LONG),
        _ => (Manner::Length, "one two three"),
    };
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Answer {
        status: 200,
        headers: vec![header("Set-Cookie", "a=1"), header("Set-Cookie", "b=2")],
        body: body.into(),
        manner,
    }
}

/// Takes at least a tenth of a second to drip.
const LONG: &str = match std::str::from_utf8(&[b'x'; 4000]) {
    Ok(text) => text,
    Err(_) => unreachable!(),
};

struct Client<W = TcpStream>(W);

impl Client {
    fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }
}

impl<W: Read + Write> Client<W> {
    fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    fn get(&mut self, path: &str) {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: d.web2.qq.com\r\n\r\n"
        ));
    }

    /// Reads as many bytes as `expected` has, and compares them.
    fn expect(&mut self, expected: &str) {
        let mut seen = vec![0; expected.len()];
        self.0.read_exact(&mut seen).unwrap();
        assert_eq!(String::from_utf8_lossy(&seen), expected);
    }

    /// Reads an answer with Content-Length: head and body.
    fn answer(&mut self) -> (String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    /// Reads until the end.
    fn rest(&mut self) -> (String, Ended) {
        let mut seen = Vec::new();
        let ended = match self.0.read_to_end(&mut seen) {
            Ok(_) => Ended::Closed,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ended::Reset,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ended::Cut,
            Err(error) => panic!("{error}"),
        };
        (String::from_utf8(seen).unwrap(), ended)
    }
}

const COOKIES: &str = "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n";

#[test]
fn an_answer_leaves_the_connection_for_the_next_one() {
    let rows = [
        ("/length", "Content-Length: 13\r\n\r\none two three"),
        ("/nothing", "Content-Length: 0\r\n\r\n"),
        ("/drip", "Content-Length: 13\r\n\r\none two three"),
        (
            "/chunked",
            "Transfer-Encoding: chunked\r\n\r\n5\r\none t\r\n5\r\nwo th\r\n3\r\nree\r\n0\r\n\r\n",
        ),
        (
            "/chunked/nothing",
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ];
    let server = Scripted::start();
    let mut client = server.connect();
    for (path, expected) in rows {
        client.get(path);
        client.expect(&format!("HTTP/1.1 200 OK\r\n{COOKIES}{expected}"));
    }
    client.0.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), (String::new(), Ended::Closed));
}

#[test]
fn an_answer_ends_the_connection() {
    let new = "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n";
    let old = "HTTP/1.0 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: close\r\n\r\n";
    let half = format!("{new}Content-Length: 13\r\n\r\none tw");
    let rows = [
        ("/until-close", format!("{old}one two three"), Ended::Closed),
        ("/until-close/nothing", old.to_owned(), Ended::Closed),
        ("/no-byte", String::new(), Ended::Closed),
        ("/reset", String::new(), Ended::Reset),
        ("/cut-short", half.clone(), Ended::Closed),
        (
            "/cut-short/nothing",
            format!("{new}Content-Length: 1\r\n\r\n"),
            Ended::Closed,
        ),
    ];
    let server = Scripted::start();
    for (path, bytes, ended) in rows {
        // The second call arrives on a connection that has been used.
        for before in [false, true] {
            let mut client = server.connect();
            if before {
                client.get("/nothing");
                client.expect(&format!("{new}Content-Length: 0\r\n\r\n"));
            }
            client.get(path);
            assert_eq!(client.rest(), (bytes.clone(), ended), "{path}");
        }
    }
    let mut client = server.connect();
    client.get("/reset-in-body");
    client.expect(&half);
    assert_eq!(client.rest(), (String::new(), Ended::Reset));
}

#[test]
fn a_dripping_body_comes_in_drops() {
    let server = Scripted::start();
    let mut client = server.connect();
    client.get("/long-drip");
    client.expect(&format!(
        "HTTP/1.1 200 OK\r\n{COOKIES}Content-Length: 4000\r\n\r\n"
    ));
    let mut seen = [0; 4000];
    let first = client.0.read(&mut seen).unwrap();
    assert!(first < seen.len());
    client.0.read_exact(&mut seen[first..]).unwrap();
    assert_eq!(seen, LONG.as_bytes());
}

#[test]
fn silence_lasts_until_the_client_closes() {
    let server = Scripted::start();
    let mut silent = server.connect();
    silent.get("/silence");
    // Another connection has come and gone meanwhile, so the first one had enough time.
    let mut other = server.connect();
    other.get("/no-byte");
    other.rest();
    assert_eq!(server.ended(), 2);
    silent.0.set_nonblocking(true).unwrap();
    let error = silent.0.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    silent.0.set_nonblocking(false).unwrap();
    silent.0.shutdown(Shutdown::Write).unwrap();
    assert_eq!(silent.rest(), (String::new(), Ended::Closed));
    assert_eq!(server.ended(), 1);
}

#[test]
fn nothing_is_left_of_a_client_that_closes() {
    let server = Scripted::start();
    // The bytes to send, and how many bytes to read before the client closes.
    let rows = [
        ("", 0),
        ("GET /silence HTT", 0),
        ("GET /silence HTTP/1.1\r\nHost: a.qq.com\r\n\r\n", 0),
        ("GET /long-drip HTTP/1.1\r\nHost: a.qq.com\r\n\r\n", 50),
        ("GET /length HTTP/1.1\r\nHost: a.qq.com\r\n\r\n", 50),
        ("POST /length HTTP/1.1\r\nContent-Length: 9\r\n\r\na=1", 0),
    ];
    for (number, (sent, read)) in (1..).zip(rows) {
        let mut client = server.connect();
        client.send(sent);
        client.0.read_exact(&mut vec![0; read]).unwrap();
        drop(client);
        assert_eq!(server.ended(), number, "{sent:?}");
    }
}

#[test]
fn a_call_is_what_was_sent() {
    let server = Scripted::start();
    let mut client = server.connect();
    client.send(
        "POST /channel/send?t=1&t=2&empty HTTP/1.1\r\nHOST: D.Web2.QQ.com:8080\r\nX-Name:  of \r\n\
         Content-Length: 31\r\n\r\nr=%7B%22a%22%3A1%7D&text=a+b%26",
    );
    let call = server.calls.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        (call.connection, &*call.method, &*call.host, &*call.path),
        (1, "POST", "d.web2.qq.com", "/channel/send")
    );
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        call.query,
        [pair("t", "1"), pair("t", "2"), pair("empty", "")]
    );
    assert_eq!(call.form, [pair("r", r#"{"a":1}"#), pair("text", "a b&")]);
    assert_eq!(call.header("x-name"), Some("of"));
    assert_eq!(call.header("host"), Some("D.Web2.QQ.com:8080"));
}

#[test]
fn a_request_that_is_too_long_is_not_read() {
    let server = Scripted::start();
    let mut client = server.connect();
    client.send("POST /send HTTP/1.1\r\nContent-Length: 70000\r\n\r\n");
    let _ = client.0.write_all(&[b'a'; 70_000]);
    assert_eq!(server.ended(), 1);
    assert!(server.calls.try_recv().is_err());
}
