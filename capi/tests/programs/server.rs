//! The server that the programs talk to.

use std::time::Duration;

use super::common::{Peer, Server, ok};

pub(crate) fn start() -> Server {
    Server::start(serve)
}

fn serve(peer: &mut Peer) {
    while let Some(head) = peer.head() {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        if !answer(peer, &head, &path) {
            return;
        }
    }
}

/// Answers one request; returns whether the connection stays open.
fn answer(peer: &mut Peer, head: &str, path: &str) -> bool {
    match path {
        "/whole?q=long%20poll" => peer.send(
            b"HTTP/1.1 200 Fine\r\nX-One: 1\r\nX-Two: a\r\nX-Two: b\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
              5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 9\r\n\r\n",
        ),
        "/echo" => {
            let length = head.split("Content-Length: ").nth(1);
            let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
            let body = peer.body(length.unwrap_or(0));
            peer.send(&ok(&String::from_utf8_lossy(
                &[head.as_bytes(), &body].concat(),
            )))
        }
        // Ten pieces of 100 KB.
        "/pieces" => {
            let sent = peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
            sent && (0..10).all(|i| peer.send(&[b'0' + i; 100_000]))
        }
        // Sends nothing as long as the client waits.
        "/silent" => {
            peer.hold();
            false
        }
        "/late" => {
            // The delay is intended: the test does something else meanwhile.
            std::thread::sleep(Duration::from_millis(300));
            peer.send(&ok("late"))
        }
        "/cut" => {
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour");
            false
        }
        // Sends less than it has announced, and nothing more as long as the client waits.
        "/stuck" => {
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour");
            peer.hold();
            false
        }
        "/nonsense" => {
            peer.send(b"This is no HTTP\r\n\r\n");
            false
        }
        "/close" => false,
        "/reset" => {
            peer.reset();
            false
        }
        path => peer.send(&ok(path.trim_start_matches('/'))),
    }
}
