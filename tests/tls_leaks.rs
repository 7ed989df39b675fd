//! After two thousand handshakes that failed in every way, everything is as before: descriptors,
//! links, chains, timers, heap.
#![cfg(unix)]

#[path = "tls/certificates.rs"]
mod certificates;
mod common;
mod counting;
#[path = "tls/peer.rs"]
mod peer;

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use httpstream::{ErrorKind, Request};

use certificates::{Authority, for_servers};
use common::{Bench, PATIENCE, Peer, Server, ok};
use peer::{Pieces, TlsPeer, VERSIONS};

/// In total, of six kinds.
const TIMES: usize = 2000;
const CROWD: usize = 20;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What a server does to each connection, and the resulting error.
struct Kind {
    name: &'static str,
    server: Server,
    expected: ErrorKind,
}

fn kind(
    name: &'static str,
    expected: ErrorKind,
    script: impl Fn(&mut Peer) + Send + Sync + 'static,
) -> Kind {
    Kind {
        name,
        server: Server::start(script),
        expected,
    }
}

/// Waits for the first bytes of a ClientHello: if a connection ends before them, it may not count
/// as connected.
fn hello(peer: &mut Peer) {
    let _ = peer.stream().read(&mut [0; 1024]);
}

fn kinds(authority: &Authority) -> [Kind; 6] {
    let expired = {
        let mut params = for_servers(&["127.0.0.1"]);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        Arc::new(authority.sign(params).config(&VERSIONS))
    };
    let half = Arc::new(authority.server().config(&VERSIONS));
    [
        kind("silence", ErrorKind::Timeout, |peer| drop(peer.hold())),
        kind("a plain answer", ErrorKind::Tls, |peer| {
            hello(peer);
            peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }),
        kind("the end", ErrorKind::Tls, hello),
        kind("a reset", ErrorKind::Tls, |peer| {
            hello(peer);
            peer.reset();
        }),
        kind("an expired certificate", ErrorKind::Tls, move |tcp| {
            TlsPeer::new(tcp, &expired, Pieces::Whole).shake();
        }),
        kind("half a handshake", ErrorKind::Timeout, move |tcp| {
            let mut peer = TlsPeer::new(tcp, &half, Pieces::Whole);
            while !peer.tls.wants_write() && peer.fill_silently() {}
            let wire = peer.wire();
            peer.send_raw(&wire[..wire.len() / 2]);
            peer.tcp.hold();
        }),
    ]
}

impl Kind {
    /// Runs many handshakes at once, which all fail as expected.
    fn fail(&self, bench: &mut Bench, request: &Request) {
        for _ in 0..CROWD {
            bench.submit(request.clone());
        }
        bench.replies(CROWD);
        for reply in bench.log.replies.drain(..) {
            let error = reply.unwrap_err();
            assert_eq!(error.kind(), self.expected, "{}: {error:#}", self.name);
        }
        // Frees an allocation whose size depends on the number of replies.
        bench.log.replies = Vec::new();
    }
}

#[test]
fn nothing_is_left_of_two_thousand_failed_handshakes() {
    let authority = Authority::new();
    let mut bench = Bench::with(|config| config.route.tls = authority.tls());
    let good = Arc::new(authority.server().config(&VERSIONS));
    let good = Server::start(move |tcp| {
        let mut peer = TlsPeer::new(tcp, &good, Pieces::Whole);
        if peer.shake() {
            while peer.answer(&ok("a")) {}
        }
    });
    let get = |server: &Server| Request::get(peer::url(server, "/"));
    let kinds = kinds(&authority).map(|kind| {
        // If the server sends nothing, the deadline must end the handshake. Other failures may take
        // their time on a busy machine.
        let tls = match kind.expected {
            ErrorKind::Timeout => Duration::from_millis(200),
            _ => common::PATIENCE,
        };
        let request = get(&kind.server).timeouts(|t| t.tls = Some(tls));
        (kind, request.build().unwrap())
    });
    let good = get(&good).build().unwrap();
    // One of each first, for what is kept: buffers, slabs, origins.
    for (kind, request) in &kinds {
        kind.fail(&mut bench, request);
    }
    bench.fetch_ok(good.clone());
    bench.assert_empty();
    bench.log.replies = Vec::new();
    let (files, heap) = (descriptors(), counting::live_bytes());
    for _ in 0..TIMES / CROWD / kinds.len() + 1 {
        for (kind, request) in &kinds {
            kind.fail(&mut bench, request);
        }
    }
    bench.fetch_ok(good);
    bench.assert_empty();
    bench.log.replies = Vec::new();
    let grown = counting::live_bytes() - heap;
    // The number of the good server's session tickets varies.
    assert!(grown < 8 << 10, "{grown} bytes are left");
    let end = Instant::now() + PATIENCE;
    // The servers' ends of connections are in this process, too, and take some time to close.
    while descriptors() > files {
        assert!(
            Instant::now() < end,
            "{} descriptors, {files} before",
            descriptors()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
