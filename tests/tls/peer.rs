//! A scripted https server: `common::Server` with rustls' server on each connection.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{Read, Write};
use std::sync::Arc;

use httpstream::{Context, Next, Reply, Request, RequestBuilder};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};

use crate::certificates::Authority;
use crate::common::{Bench, Got, Log, Peer, Server};

pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// How ciphertext is split when it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pieces {
    Whole,
    /// Each byte in a segment of its own.
    Bytes,
}

/// A server, and the authority that its clients trust.
pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) server: Server,
}

impl World {
    /// Runs `script` for each connection whose handshake succeeds.
    pub(crate) fn new(script: impl Fn(&mut TlsPeer<'_>) + Send + Sync + 'static) -> Self {
        Self::of(|_| (), Pieces::Whole, script)
    }

    pub(crate) fn speaking(
        version: &'static SupportedProtocolVersion,
        script: impl Fn(&mut TlsPeer<'_>) + Send + Sync + 'static,
    ) -> Self {
        Self::with(&[version], |_| (), Pieces::Whole, script)
    }

    pub(crate) fn of(
        change: impl FnOnce(&mut ServerConfig),
        pieces: Pieces,
        script: impl Fn(&mut TlsPeer<'_>) + Send + Sync + 'static,
    ) -> Self {
        Self::with(&VERSIONS, change, pieces, script)
    }

    pub(crate) fn with(
        versions: &[&'static SupportedProtocolVersion],
        change: impl FnOnce(&mut ServerConfig),
        pieces: Pieces,
        script: impl Fn(&mut TlsPeer<'_>) + Send + Sync + 'static,
    ) -> Self {
        let authority = Authority::new();
        let mut config = authority.server().config(versions);
        change(&mut config);
        let config = Arc::new(config);
        let server = Server::start(move |peer| {
            let mut peer = TlsPeer::new(peer, &config, pieces);
            if peer.shake() {
                script(&mut peer);
            }
        });
        Self { authority, server }
    }

    pub(crate) fn bench(&self) -> Bench {
        Bench::with(|config| config.route.tls = self.authority.tls())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        url(&self.server, path)
    }

    pub(crate) fn at(&self, path: &str) -> RequestBuilder {
        Request::get(self.url(path))
    }

    pub(crate) fn get(&self, path: &str) -> Request {
        self.at(path).build().unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Request {
        Request::post(self.url(path)).body(body).build().unwrap()
    }
}

pub(crate) fn url(server: &Server, path: &str) -> String {
    format!("https://{}{path}", server.addr)
}

/// The server's end of one connection.
pub(crate) struct TlsPeer<'p> {
    pub(crate) tcp: &'p mut Peer,
    pub(crate) tls: ServerConnection,
    pieces: Pieces,
    /// Plaintext that was read and not taken.
    unread: Vec<u8>,
}

impl<'p> TlsPeer<'p> {
    pub(crate) fn new(tcp: &'p mut Peer, config: &Arc<ServerConfig>, pieces: Pieces) -> Self {
        Self {
            tcp,
            tls: ServerConnection::new(Arc::clone(config)).unwrap(),
            pieces,
            unread: Vec::new(),
        }
    }

    pub(crate) fn number(&self) -> usize {
        self.tcp.number
    }

    /// Performs the handshake. Returns false if the client is gone or rejects it.
    pub(crate) fn shake(&mut self) -> bool {
        while self.tls.is_handshaking() {
            if !self.send_wire() || !self.fill() {
                return false;
            }
        }
        self.send_wire()
    }

    /// Reads once. Returns false at the end or on an error.
    pub(crate) fn fill(&mut self) -> bool {
        match self.tls.read_tls(&mut self.tcp.stream()) {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
        let state = self.tls.process_new_packets();
        // Alerts, and answers to key updates.
        let is_sent = self.send_wire();
        let Ok(state) = state else { return false };
        let mut plaintext = vec![0; state.plaintext_bytes_to_read()];
        self.tls.reader().read_exact(&mut plaintext).unwrap();
        self.unread.extend_from_slice(&plaintext);
        is_sent && !state.peer_has_closed()
    }

    /// Reads once, without sending anything. Returns false at the end or on an error.
    pub(crate) fn fill_silently(&mut self) -> bool {
        let read = self.tls.read_tls(&mut self.tcp.stream());
        read.is_ok_and(|n| n > 0) && self.tls.process_new_packets().is_ok()
    }

    /// Reads a request's head and nothing after it. Returns `None` if the client has closed.
    pub(crate) fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.unread.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads this many bytes of a body, or fewer if the client closes.
    pub(crate) fn body(&mut self, len: usize) -> Vec<u8> {
        while self.unread.len() < len && self.fill() {}
        let len = len.min(self.unread.len());
        self.unread.drain(..len).collect()
    }

    /// Returns the number of bytes read and not taken.
    pub(crate) fn unread_len(&self) -> usize {
        self.unread.len()
    }

    /// Reads a request and reports it to the test. Returns its path and body, or `None` if the
    /// client has closed.
    pub(crate) fn request(&mut self) -> Option<(String, Vec<u8>)> {
        let head = self.head()?;
        let length = head.lines().find_map(|line| {
            let line = line.to_ascii_lowercase();
            line.strip_prefix("content-length: ")?.parse().ok()
        });
        let body = self.body(length.unwrap_or(0));
        let seen = self.tcp.tell(head, body);
        Some((seen.path, seen.body))
    }

    pub(crate) fn answer(&mut self, plaintext: &[u8]) -> bool {
        self.request().is_some() && self.send(plaintext)
    }

    pub(crate) fn send(&mut self, plaintext: &[u8]) -> bool {
        let wire = self.seal(plaintext);
        self.send_raw(&wire)
    }

    /// Returns the encrypted bytes instead of sending them.
    pub(crate) fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut wire = self.wire();
        // As much as rustls buffers at a time.
        for piece in plaintext.chunks(16 << 10) {
            self.tls.writer().write_all(piece).unwrap();
            wire.extend(self.wire());
        }
        wire
    }

    /// Takes the bytes that rustls has to send.
    pub(crate) fn wire(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut wire).unwrap();
        }
        wire
    }

    /// Returns the closure alert instead of sending it.
    pub(crate) fn close_notify(&mut self) -> Vec<u8> {
        self.tls.send_close_notify();
        self.wire()
    }

    fn send_wire(&mut self) -> bool {
        let wire = self.wire();
        self.send_raw(&wire)
    }

    pub(crate) fn send_raw(&mut self, wire: &[u8]) -> bool {
        match self.pieces {
            Pieces::Whole => self.tcp.send(wire),
            Pieces::Bytes => wire.chunks(1).all(|byte| self.tcp.send(byte)),
        }
    }

    /// Reads until the client closes.
    pub(crate) fn hold(&mut self) {
        while self.fill() {}
    }
}

/// Records the reply, and how its connection is protected: `TLSv1.3 full`, `TLSv1.2 resumed`.
pub(crate) fn note(log: &mut Log, reply: Reply<'_>, _: &mut Context<'_, Log>) -> Next<Log> {
    if let Ok(response) = &reply {
        let tls = response.info().tls().expect("an https response");
        let kind = if tls.is_resumed() { "resumed" } else { "full" };
        log.notes.push(format!("{} {kind}", tls.version()));
    }
    log.replies.push(reply.map(Got::of));
    Next::done()
}
