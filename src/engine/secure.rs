//! The handshakes of a link, between the connect and the first request. Currently these are TLS
//! handshakes.
//!
//! After the handshakes, `receive` decrypts what is read, and `net::transport` encrypts what is
//! written.

use log::debug;

use crate::engine::core::Core;
use crate::net::handshake::{Handshakes, Step};
use crate::net::link::Reach;
use crate::net::pool::OriginKey;
use crate::net::slots::LinkKey;
use crate::net::tls::{Problem, TlsState};
use crate::net::transport;
use crate::net::{Net, Readiness};
use crate::proto::Scheme;
use crate::timeouts::Timeout;

impl<N: Net> Core<N> {
    /// Returns whether an origin requires handshakes before a connected link is open. In the
    /// simulation, https is plain http under another name.
    #[inline]
    pub(super) fn needs_handshakes(&self, origin: OriginKey) -> bool {
        N::HAS_TLS && self.pool[origin].origin.scheme() == Scheme::Https
    }

    /// Prepares the handshakes of a link that is about to be connected. Nothing has been sent yet.
    pub(super) fn handshakes_of(&self, key: LinkKey) -> Result<Handshakes, Problem> {
        let origin = self.links[key].origin;
        if !self.needs_handshakes(origin) {
            return Ok(Handshakes::none());
        }
        let entry = &self.pool[origin];
        let tls = TlsState::new(entry.route.tls(), entry.origin.host())?;
        Ok(Handshakes::tls(tls))
    }

    /// Sends the pending bytes of the handshakes. Returns whether all handshakes are complete, so
    /// the request may follow.
    pub(super) fn shake_hands(&mut self, key: LinkKey) -> bool {
        loop {
            let link = &mut self.links[key];
            let Reach::Shaking(socket, handshakes) = &mut link.reach else {
                return false;
            };
            match handshakes.step() {
                Step::Hear => return false,
                Step::Over => {
                    self.on_agreed(key);
                    return true;
                }
                Step::Speak => {}
            }
            let tls = handshakes.tls_state_mut();
            let (net, scratch) = (&mut self.net, &mut self.buffers.scratch);
            match transport::write(net, socket, tls, &[], 0, scratch) {
                Ok(done) => {
                    self.counts.bytes_out += done.sent as u64;
                    if done.is_blocked {
                        link.readiness = link.readiness.without(Readiness::WRITABLE);
                        return false;
                    }
                }
                Err(trouble) => {
                    self.on_trouble(key, trouble);
                    return false;
                }
            }
        }
    }

    /// Opens a link whose handshakes are complete.
    fn on_agreed(&mut self, key: LinkKey) {
        let now = self.clock.micros();
        let link = &mut self.links[key];
        let Reach::Shaking(socket, handshakes) = link.reach.take() else {
            unreachable!("only a link in its handshakes completes them")
        };
        link.reach
            .set(Reach::Open(socket, handshakes.into_layers()));
        if let Some(exchange) = link.h1.front_mut() {
            exchange.times.tls = exchange.since(now);
        }
        let token = self.links.token(key);
        debug!("{token:?} {}: TLS handshake complete", self.origin_of(key));
        // The last handshake bytes of the TLS state are sent together with the request.
        match self.links[key].chain() {
            Some(chain) => self.arm(chain, Some(Timeout::Write)),
            None => self.note_unwritten(key),
        }
    }
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ContentType, ProtocolVersion, ServerConfig, ServerConnection};

    use super::*;
    use crate::engine::probing::{MAX_UNASKED, MAX_UNASKED_BYTES};
    use crate::engine::{Engine, Next};
    use crate::tls::Tls;
    use crate::{Config, Request};

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    /// The behavior of a server on a connection. The argument contains the tickets that it may
    /// send.
    type Script = fn(&mut Peer, &[u8]);

    struct Peer {
        stream: TcpStream,
        tls: ServerConnection,
    }

    impl Peer {
        fn request(&mut self) -> bool {
            let mut heard = Vec::new();
            loop {
                // Part of the request may have arrived with the end of the handshake.
                let _ = self.tls.reader().read_to_end(&mut heard);
                if heard.ends_with(b"\r\n\r\n") {
                    return true;
                }
                let read = self.tls.read_tls(&mut self.stream);
                if !read.is_ok_and(|n| n > 0) || self.tls.process_new_packets().is_err() {
                    return false;
                }
            }
        }

        fn wire(&mut self) -> Vec<u8> {
            let mut wire = Vec::new();
            while self.tls.wants_write() {
                self.tls.write_tls(&mut wire).unwrap();
            }
            wire
        }

        fn answer(&mut self) {
            self.tls.writer().write_all(ANSWER).unwrap();
            let wire = self.wire();
            let _ = self.stream.write_all(&wire);
        }
    }

    /// Returns a client's trust in a server, and the server.
    fn certified() -> (Tls, ServerConfig) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let tls = Tls::with_roots_pem(certificate.pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(certificate.der().to_vec())],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        (tls, config)
    }

    /// Starts a server whose connections have this many tickets to send, each in one or two
    /// records. The script sends them.
    fn serve(tickets: usize, script: Script) -> (SocketAddr, Tls, Receiver<usize>) {
        let (tls, mut config) = certified();
        config.send_tls13_tickets = tickets;
        config.max_fragment_size = Some(100);
        config.enable_secret_extraction = true;
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (over, has_sent) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut peer = Peer { stream, tls };
                let over = over.clone();
                std::thread::spawn(move || {
                    while peer.tls.is_handshaking() {
                        let wire = peer.wire();
                        peer.stream.write_all(&wire).unwrap();
                        if !peer.tls.is_handshaking() {
                            break;
                        }
                        peer.tls.read_tls(&mut peer.stream).unwrap();
                        peer.tls.process_new_packets().unwrap();
                    }
                    let tickets = peer.wire();
                    script(&mut peer, &tickets);
                    let _ = over.send(tickets.len());
                });
            }
        });
        (addr, tls, has_sent)
    }

    fn engine(tls: &Tls) -> Engine<usize> {
        let mut config = Config::default();
        config.route.tls = tls.clone();
        config.max_connections_per_origin = 8;
        Engine::with_config(config).unwrap()
    }

    fn submit(engine: &mut Engine<usize>, addr: SocketAddr) {
        let request = Request::get(format!("https://{addr}/")).build().unwrap();
        engine.submit(request, |answered: &mut usize, reply, _| {
            assert_eq!(reply.unwrap().body(), b"ok");
            *answered += 1;
            Next::done()
        });
    }

    /// Returns the number of tickets that all links have received.
    fn tickets(engine: &Engine<usize>) -> usize {
        let links = engine.core.links.iter();
        links
            .filter_map(|link| link.tls_state())
            .map(TlsState::tickets)
            .sum()
    }

    #[test]
    fn a_flood_of_tickets_on_busy_connections_is_worked_off_a_part_a_turn() {
        const LINKS: usize = 8;
        const TICKETS: usize = 4000;
        let (addr, tls, _) = serve(TICKETS, |peer, tickets| {
            peer.request();
            peer.stream.write_all(tickets).unwrap();
            peer.answer();
            while peer.request() {}
        });
        let mut engine = engine(&tls);
        for _ in 0..LINKS {
            submit(&mut engine, addr);
        }
        let (mut answered, mut most, mut before) = (0, 0, 0);
        while answered < LINKS {
            engine
                .turn(&mut answered, Some(Duration::from_secs(10)))
                .unwrap();
            let now = tickets(&engine);
            most = most.max(now.saturating_sub(before));
            before = now;
        }
        // Two budgets, one for events and one for the run queue, plus the excess of each link.
        let budgets = 2 * 4 * (512 << 10);
        let expected = budgets / (8 << 10) + 2 * LINKS * 16;
        assert!(most <= expected, "{most} tickets in one turn");
        assert!(most > 100, "there was no flood: {most}");
        assert_eq!(engine.stats().opened, LINKS as u64);
    }

    /// A ticket of twenty bytes (RFC 8446 §4.6.1).
    const TICKET: &[u8] = b"\x04\0\0\x22\0\0\x0e\x10\0\0\0\0\x01n\0\x14twenty bytes in all.\0\0";

    /// Answers once, then sends `COUNT` tickets.
    fn answer_and_send_tickets<const COUNT: u64>(peer: &mut Peer, _: &[u8]) {
        peer.request();
        peer.answer();
        // The records from here on are made by hand.
        let server = std::mem::replace(&mut peer.tls, unconnected());
        let suite = server.negotiated_cipher_suite().unwrap().tls13().unwrap();
        let (first, secrets) = server.dangerous_extract_secrets().unwrap().tx;
        let (key, iv) = match secrets {
            rustls::ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | rustls::ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | rustls::ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
            _ => panic!("another cipher"),
        };
        let mut encrypter = suite.aead_alg.encrypter(key, iv);
        for number in first..first + COUNT {
            let message = OutboundPlainMessage {
                typ: ContentType::Handshake,
                version: ProtocolVersion::TLSv1_3,
                payload: OutboundChunks::Single(TICKET),
            };
            let record = encrypter.encrypt(message, number).unwrap().encode();
            if peer.stream.write_all(&record).is_err() {
                return;
            }
            std::thread::yield_now();
        }
        let mut rest = Vec::new();
        let _ = peer.stream.read_to_end(&mut rest);
    }

    #[test]
    fn an_idle_connection_is_closed_after_a_few_tickets() {
        let (addr, tls, has_sent) = serve(0, answer_and_send_tickets::<FLOOD>);
        let mut engine = engine(&tls);
        let mut answered = 0;
        submit(&mut engine, addr);
        while answered == 0 {
            engine
                .turn(&mut answered, Some(Duration::from_secs(10)))
                .unwrap();
        }
        let before = engine.stats().bytes_in;
        while engine.stats().links_open > 0 {
            engine
                .turn(&mut answered, Some(Duration::from_secs(10)))
                .unwrap();
        }
        let read = engine.stats().bytes_in - before;
        let most = (MAX_UNASKED_BYTES + (MAX_UNASKED + 1) * (TICKET.len() + 22)) as u64;
        assert!(read <= most, "{read} bytes");
        assert!(
            FLOOD * TICKET.len() as u64 > 4 * most,
            "the flood is too small"
        );
        let _ = has_sent.recv().unwrap();
    }

    const FLOOD: u64 = 4000;

    #[test]
    fn an_idle_connection_outlives_as_many_tickets_as_servers_send() {
        let (addr, tls, _) = serve(0, answer_and_send_tickets::<4>);
        let mut engine = engine(&tls);
        let mut answered = 0;
        submit(&mut engine, addr);
        while tickets(&engine) < 4 {
            engine
                .turn(&mut answered, Some(Duration::from_secs(10)))
                .unwrap();
        }
        engine.turn(&mut answered, Some(Duration::ZERO)).unwrap();
        assert_eq!((answered, engine.stats().links_idle), (1, 1));
    }

    fn unconnected() -> ServerConnection {
        let (_, config) = certified();
        ServerConnection::new(config.into()).unwrap()
    }
}
