//! Tests TLS states against rustls' own server, in memory.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, process, thread};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion,
};

use super::*;
use crate::net::handshake::{Handshakes, Step};
use crate::tls::CertificateProblem;

/// The longest plaintext of a record (RFC 8446 §5.1).
const RECORD: usize = 16 << 10;

const HOST: &str = "server.example";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
const READ_BUFFER: usize = 128 << 10;

/// The issuer of the tests' certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        Self::named("an authority")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, key()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn sign(&self, params: CertificateParams) -> Identity {
        let key = key();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity { certificate, key }
    }
}

struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Identity {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().clone()]
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// A server, and a client that trusts its authority.
struct World {
    authority: Authority,
    tls: Tls,
    server: Arc<ServerConfig>,
}

impl World {
    fn new(version: &'static SupportedProtocolVersion) -> Self {
        let authority = Authority::new();
        let identity = authority.sign(params(&[HOST, "127.0.0.1", "::1"]));
        let tls = Tls::with_roots_pem(authority.pem().as_bytes()).unwrap();
        let server = Arc::new(server_of(version, &identity));
        Self {
            authority,
            tls,
            server,
        }
    }

    fn pair(&self) -> Pair {
        Pair::new(&self.tls, HOST, &self.server)
    }
}

fn server_of(version: &'static SupportedProtocolVersion, identity: &Identity) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain(), identity.key())
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A TLS state and the server that it talks to.
struct Pair {
    client: TlsState,
    server: ServerConnection,
    scratch: Scratch,
    buffer: Vec<u8>,
    /// What the server has read.
    heard: Vec<u8>,
}

impl Pair {
    fn new(tls: &Tls, host: &str, server: &Arc<ServerConfig>) -> Self {
        Self {
            client: TlsState::new(tls, host).unwrap(),
            server: ServerConnection::new(server.clone()).unwrap(),
            scratch: Scratch::default(),
            buffer: vec![0; READ_BUFFER],
            heard: Vec::new(),
        }
    }

    /// Sends what is outbound, then as much of `data` as fits into one flight. Returns how much
    /// that was.
    fn send_once(&mut self, data: &[u8]) -> usize {
        let flight = self.client.seal(&[data], 0, &mut self.scratch).unwrap();
        let sealed = flight.sealed();
        let wire = flight.slices().map(|slice| slice.to_vec()).concat();
        assert_eq!(wire.len(), flight.len());
        flight.on_sent(wire.len());
        self.deliver(&wire);
        sealed
    }

    fn send(&mut self, data: &[u8]) {
        let mut sent = self.send_once(data);
        while sent < data.len() {
            let n = self.send_once(&data[sent..]);
            assert!(n > 0);
            sent += n;
        }
        assert!(!self.client.has_outbound());
    }

    /// Delivers ciphertext to the server. Errors show in what the server sends.
    fn deliver(&mut self, mut wire: &[u8]) {
        while !wire.is_empty() {
            self.server.read_tls(&mut wire).unwrap();
            let _ = self.server.process_new_packets();
            // An error means that there is nothing more to read.
            let _ = self.server.reader().read_to_end(&mut self.heard);
        }
    }

    /// Returns what the server has read since the last call.
    fn heard(&mut self) -> Vec<u8> {
        mem::take(&mut self.heard)
    }

    /// Returns what the server has to send.
    fn wire(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut wire).unwrap();
        }
        wire
    }

    fn say(&mut self, data: &[u8]) -> Vec<u8> {
        self.server.writer().write_all(data).unwrap();
        self.wire()
    }

    /// Performs one read of the client.
    fn read(&mut self, wire: &[u8]) -> Result<Vec<u8>, Problem> {
        read(&mut self.client, &mut self.buffer, wire)
    }

    /// Performs the handshake. Returns the client's error, if it fails.
    fn shake(&mut self) -> Result<(), Problem> {
        for _ in 0..4 {
            self.send(b"");
            let wire = self.wire();
            let plaintext = self.read(&wire);
            if plaintext.is_err() {
                self.send_alert();
            }
            assert_eq!(plaintext?, b"");
        }
        Ok(())
    }

    fn send_alert(&mut self) {
        let alert = mem::take(&mut self.client.0.outbound);
        self.deliver(&alert);
    }
}

fn read(tls: &mut TlsState, buffer: &mut [u8], wire: &[u8]) -> Result<Vec<u8>, Problem> {
    let kept = tls.restore(buffer);
    buffer[kept..kept + wire.len()].copy_from_slice(wire);
    let mut plaintext = Vec::new();
    tls.receive(buffer, kept + wire.len(), &mut plaintext, &mut {
        usize::MAX
    })
    .map(|()| plaintext)
}

/// Returns a TLS state whose ClientHello goes nowhere.
fn unconnected() -> TlsState {
    TlsState::new(&World::new(&TLS13).tls, HOST).unwrap()
}

/// Returns a pair that has completed its handshake.
fn established(version: &'static SupportedProtocolVersion) -> Pair {
    let mut pair = World::new(version).pair();
    pair.shake().unwrap();
    assert!(pair.client.is_established());
    pair
}

#[test]
fn both_versions_shake_hands_and_carry_data() {
    for (version, name, suite) in [
        (&TLS12, "TLSv1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        (&TLS13, "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
    ] {
        let mut pair = World::new(version).pair();
        assert!(!pair.client.is_established());
        assert_eq!(pair.client.info(), None);
        pair.shake().unwrap();
        assert!(pair.client.is_established());

        let info = pair.client.info().unwrap();
        assert_eq!(info.version(), name);
        assert_eq!(info.cipher_suite(), suite);
        assert_eq!(info.alpn(), Some("http/1.1"));
        assert!(!info.is_resumed());
        assert_eq!(info.certificates().len(), 1);

        pair.send(b"a question");
        assert_eq!(pair.heard(), b"a question");
        let wire = pair.say(b"an answer");
        assert_eq!(pair.read(&wire).unwrap(), b"an answer");
    }
}

#[test]
fn a_stack_of_handshakes_speaks_hears_and_leaves_its_layer() {
    let mut none = Handshakes::none();
    assert!(none.is_empty() && none.tls_state().is_none());
    assert_eq!(none.step(), Step::Over);
    assert!(none.into_layers().tls_state().is_none());
    for version in VERSIONS {
        let mut pair = World::new(version).pair();
        let client = mem::replace(&mut pair.client, unconnected());
        let mut stack = Handshakes::tls(client);
        assert!(!stack.is_empty());
        let mut steps = Vec::new();
        while stack.step() != Step::Over {
            steps.push(stack.step());
            // Drive the TLS state whose handshake is in progress.
            mem::swap(&mut pair.client, stack.tls_state_mut().unwrap());
            match steps.last() {
                Some(Step::Speak) => pair.send(b""),
                _ => {
                    let wire = pair.wire();
                    assert_eq!(pair.read(&wire).unwrap(), b"");
                }
            }
            mem::swap(&mut pair.client, stack.tls_state_mut().unwrap());
        }
        assert_eq!(steps[..2], [Step::Speak, Step::Hear], "{steps:?}");
        assert!(stack.is_empty(), "the handshake has become a layer");
        assert!(stack.tls_state().is_some_and(TlsState::is_established));
        let mut layers = stack.into_layers();
        mem::swap(&mut pair.client, layers.tls_state_mut().unwrap());
        pair.send(b"a question");
        assert_eq!(pair.heard(), b"a question");
    }
}

#[test]
fn a_session_at_rest_holds_no_buffer() {
    for version in VERSIONS {
        let mut pair = established(version);
        pair.send(&[7; 100_000]);
        let wire = pair.say(&[8; 60_000]);
        let (a, b) = wire.split_at(30_000);
        assert_eq!(
            pair.read(a).unwrap().len() + pair.read(b).unwrap().len(),
            60_000
        );
        let inner = &pair.client.0;
        assert_eq!((inner.kept.capacity(), inner.outbound.capacity()), (0, 0));
    }
}

#[test]
fn a_second_connection_resumes_the_session_and_shares_the_chain() {
    for version in VERSIONS {
        let world = World::new(version);
        let mut first = world.pair();
        first.shake().unwrap();
        let mut second = world.pair();
        second.shake().unwrap();
        let (first, second) = (first.client.info().unwrap(), second.client.info().unwrap());
        assert!(!first.is_resumed());
        assert!(second.is_resumed(), "{second:?}");
        assert!(first.certificates().eq(second.certificates()));
        let der = |info: &TlsInfo| info.certificates().next().unwrap().as_ptr();
        assert_eq!(der(&first), der(&second), "both share one copy");
    }
}

/// Runs the server's part of a conversation, with the client's responses in between. What the
/// server sends does not depend on how it is cut, so `cut` may be called each time.
fn converse(pair: &mut Pair, mut cut: impl FnMut(&[u8]) -> Vec<Vec<u8>>) -> Vec<u8> {
    let mut plaintext = Vec::new();
    for round in 0..5 {
        pair.send(b"");
        if round == 3 {
            pair.server.writer().write_all(b"in one record").unwrap();
            pair.server.writer().write_all(b", in two").unwrap();
            pair.server.send_close_notify();
        }
        let wire = pair.wire();
        for piece in cut(&wire) {
            plaintext.extend(pair.read(&piece).unwrap());
        }
    }
    plaintext
}

#[test]
fn the_server_may_be_read_byte_by_byte() {
    for version in VERSIONS {
        let mut pair = World::new(version).pair();
        let bytes = |wire: &[u8]| wire.iter().map(|&byte| vec![byte]).collect();
        assert_eq!(converse(&mut pair, bytes), b"in one record, in two");
        assert!(pair.client.is_finished());
    }
}

#[test]
fn the_server_may_be_cut_anywhere() {
    for version in VERSIONS {
        let world = World::new(version);
        // The first connection makes a full handshake. Later ones resume, with a shorter handshake.
        for tls in [None, Some(world.tls.clone())] {
            let mut at = 0;
            loop {
                let tls = match &tls {
                    Some(tls) => tls.clone(),
                    None => Tls::with_roots_pem(world.authority.pem().as_bytes()).unwrap(),
                };
                let mut pair = Pair::new(&tls, HOST, &world.server);
                let mut before = 0;
                let plaintext = converse(&mut pair, |wire| {
                    let here = at.clamp(before, before + wire.len()) - before;
                    before += wire.len();
                    let (front, back) = wire.split_at(here);
                    [front, back]
                        .into_iter()
                        .filter(|piece| !piece.is_empty())
                        .map(<[u8]>::to_vec)
                        .collect()
                });
                assert_eq!(plaintext, b"in one record, in two", "cut at {at}");
                assert!(pair.client.is_finished());
                at += 1;
                if at >= before {
                    break;
                }
            }
            assert!(at > 200, "{at} bytes of a whole handshake");
        }
    }
}

#[test]
fn records_of_one_read_come_in_one_piece() {
    for version in VERSIONS {
        let mut pair = established(version);
        let mut wire = Vec::new();
        for n in 0..10 {
            wire.extend(pair.say(&[n; 10]));
        }
        let expected: Vec<u8> = (0..10).flat_map(|n| [n; 10]).collect();
        assert_eq!(pair.read(&wire).unwrap(), expected);
    }
}

#[test]
fn a_record_may_take_many_reads() {
    for version in VERSIONS {
        let mut pair = established(version);
        let sent: Vec<u8> = (0..RECORD).map(|i| i as u8).collect();
        let wire = pair.say(&sent);
        let mut plaintext = Vec::new();
        for piece in wire.chunks(1000) {
            assert_eq!(plaintext, b"", "nothing before the whole record");
            plaintext.extend(pair.read(piece).unwrap());
        }
        assert_eq!(plaintext, sent);
    }
}

#[test]
fn what_was_restored_is_kept_until_it_is_received() {
    let mut pair = established(&TLS13);
    let wire = pair.say(b"an answer");
    let (front, back) = wire.split_at(10);
    assert_eq!(pair.read(front).unwrap(), b"");
    assert_eq!(pair.client.restore(&mut pair.buffer), 10);
    // The socket had nothing to read. Meanwhile something is sent, and another link is read.
    pair.send(b"a question");
    pair.buffer.fill(0xff);
    assert_eq!(pair.read(back).unwrap(), b"an answer");
    assert_eq!(pair.heard(), b"a question");
}

#[test]
fn tickets_and_changes_of_keys_on_an_idle_connection_are_no_data() {
    let mut pair = World::new(&TLS13).pair();
    pair.send(b"");
    let wire = pair.wire();
    assert_eq!(pair.read(&wire).unwrap(), b"");
    pair.send(b"");
    let tickets = pair.wire();
    assert!(!tickets.is_empty());
    for piece in tickets.chunks(3) {
        assert_eq!(pair.read(piece).unwrap(), b"");
        // Requests can be sent in the middle of a ticket.
        pair.send(b"q");
    }
    for _ in 0..3 {
        pair.server.refresh_traffic_keys().unwrap();
        let update = pair.wire();
        assert_eq!(pair.read(&update).unwrap(), b"");
        let wire = pair.say(b"under new keys");
        assert_eq!(pair.read(&wire).unwrap(), b"under new keys");
        let before = pair.heard();
        pair.send(b"so are these");
        assert_eq!(pair.heard(), b"so are these", "after {before:?}");
    }
}

/// Handshake messages may be split over records at will (RFC 8446 §5.1).
#[test]
fn messages_in_many_records_may_be_cut_anywhere_and_written_between() {
    for version in VERSIONS {
        let world = World::new(version);
        let mut server = ServerConfig::clone(&world.server);
        server.max_fragment_size = Some(32 + 5);
        let mut pair = Pair::new(&world.tls, HOST, &Arc::new(server));
        let mut asked = 0;
        for _ in 0..4 {
            pair.send(b"");
            for piece in pair.wire().chunks(11) {
                assert_eq!(pair.read(piece).unwrap(), b"");
                asked += pair.send_once(b"q");
            }
        }
        // TLS 1.3 sends tickets after the handshake, TLS 1.2 does not.
        assert_eq!(
            asked > 10,
            version.version == rustls::ProtocolVersion::TLSv1_3
        );
        assert_eq!(pair.heard(), vec![b'q'; asked]);
        let wire = pair.say(b"an answer");
        assert_eq!(pair.read(&wire).unwrap(), b"an answer");
    }
}

#[test]
fn a_certificate_may_be_longer_than_a_record() {
    let names: Vec<_> = (0..1500).map(|n| format!("host-{n}.example")).collect();
    let mut names: Vec<_> = names.iter().map(String::as_str).collect();
    names.push(HOST);
    for version in VERSIONS {
        let world = World::new(version);
        let identity = world.authority.sign(params(&names));
        assert!(identity.chain()[0].len() > 2 * RECORD - 8192);
        let server = Arc::new(server_of(version, &identity));
        let mut pair = Pair::new(&world.tls, HOST, &server);
        for _ in 0..4 {
            pair.send(b"");
            for piece in pair.wire().chunks(999) {
                assert_eq!(pair.read(piece).unwrap(), b"");
            }
        }
        assert!(pair.client.is_established());
        assert_eq!(pair.client.0.kept.capacity(), 0);
    }
}

#[test]
fn a_server_may_ask_for_another_key_share() {
    let world = World::new(&TLS13);
    let mut server_provider = rustls::crypto::ring::default_provider();
    server_provider.kx_groups = vec![rustls::crypto::ring::kx_group::SECP384R1];
    let identity = world.authority.sign(params(&[HOST]));
    let server = ServerConfig::builder_with_provider(Arc::new(server_provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain(), identity.key())
        .unwrap();
    let mut pair = Pair::new(&world.tls, HOST, &Arc::new(server));
    pair.shake().unwrap();
    let kind = pair.client.0.connection.handshake_kind();
    assert_eq!(kind, Some(rustls::HandshakeKind::FullWithHelloRetryRequest));
    assert!(!pair.client.info().unwrap().is_resumed());
}

#[test]
fn a_peer_that_changes_its_keys_without_end_is_refused() {
    let mut pair = established(&TLS13);
    let ended = (0..1000).find_map(|_| {
        pair.server.refresh_traffic_keys().unwrap();
        let update = pair.wire();
        pair.read(&update).err()
    });
    assert!(matches!(ended, Some(Problem::Rustls(_))), "{ended:?}");
    assert!(pair.client.0.outbound.len() < 1000);
}

#[test]
fn only_a_close_notify_finishes() {
    for version in VERSIONS {
        let mut pair = established(version);
        let wire = pair.say(b"all of it");
        assert_eq!(pair.read(&wire).unwrap(), b"all of it");
        assert!(!pair.client.is_finished());

        pair.server.send_close_notify();
        let mut wire = pair.wire();
        let notify = wire.len();
        wire.extend_from_slice(b"what nobody wants to hear");
        assert_eq!(pair.read(&wire[..notify - 1]).unwrap(), b"");
        assert!(!pair.client.is_finished());
        assert_eq!(pair.read(&wire[notify - 1..]).unwrap(), b"");
        assert!(pair.client.is_finished());
        assert_eq!(pair.read(b"nor this").unwrap(), b"");
        assert_eq!(pair.client.0.kept.capacity(), 0);

        // The other direction is still open.
        pair.send(b"a last word");
        assert_eq!(pair.heard(), b"a last word");
    }
}

#[test]
fn a_close_notify_inside_the_handshake_finishes_nothing() {
    for version in VERSIONS {
        let mut pair = World::new(version).pair();
        // At this point anybody can send it unauthenticated. The end of the stream follows.
        assert_eq!(pair.read(&[21, 3, 3, 0, 2, 1, 0]).unwrap(), b"");
        assert!(!pair.client.is_finished() && !pair.client.is_established());
    }
}

#[test]
fn closing_is_told_to_the_peer_behind_what_waits() {
    for version in VERSIONS {
        let mut pair = established(version);
        drop(pair.client.seal(&[b"a last word"], 0, &mut pair.scratch));
        assert!(pair.client.has_outbound());
        let farewell = mem::replace(&mut pair.client, unconnected()).close();
        pair.deliver(&farewell);
        assert!(pair.server.process_new_packets().unwrap().peer_has_closed());
        assert_eq!(pair.heard(), b"a last word");
    }
}

#[test]
fn closing_a_session_that_failed_tells_why() {
    for version in VERSIONS {
        let mut pair = established(version);
        pair.read(&[
            23, 3, 3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ])
        .unwrap_err();
        let farewell = mem::replace(&mut pair.client, unconnected()).close();
        pair.deliver(&farewell);
        let told = pair.server.process_new_packets().unwrap_err();
        assert_eq!(told, Error::AlertReceived(AlertDescription::BadRecordMac));
    }
}

#[test]
fn closing_inside_the_handshake_says_nothing() {
    let mut tls = unconnected();
    assert!(tls.has_outbound());
    assert_eq!(tls.close(), b"");
}

#[test]
fn for_a_socket_that_takes_nothing_not_much_is_sealed() {
    let mut pair = established(&TLS13);
    let body = [0; 4 * MAX_SEALED];
    let mut sealed = Vec::new();
    for _ in 0..10 {
        let flight = pair.client.seal(&[&body], 0, &mut pair.scratch).unwrap();
        sealed.push(flight.sealed());
    }
    assert_eq!(sealed[0], MAX_SEALED);
    assert_eq!(sealed[1..], [0; 9]);
}

#[test]
fn nothing_is_sealed_before_the_handshake_is_over() {
    for version in VERSIONS {
        let mut pair = World::new(version).pair();
        assert_eq!(pair.send_once(b"too early"), 0);
        pair.shake().unwrap();
        assert_eq!(pair.send_once(b"in time"), 7);
        assert_eq!(pair.heard(), b"in time");
    }
}

#[test]
fn small_parts_share_a_record_and_large_ones_are_sealed_by_the_flight() {
    let mut pair = established(&TLS13);
    let parts: [&[u8]; 4] = [b"head\r\n", b"", b"fields\r\n", b"\r\nbody"];
    let whole = parts.concat();
    for skip in 0..=whole.len() {
        let flight = pair.client.seal(&parts, skip, &mut pair.scratch).unwrap();
        assert_eq!(flight.sealed(), whole.len() - skip);
        let wire = flight.slices().map(|slice| slice.to_vec()).concat();
        let records = if skip < whole.len() { 1 } else { 0 };
        // Header, content type and tag.
        assert_eq!(wire.len(), whole.len() - skip + records * (5 + 1 + 16));
        flight.on_sent(wire.len());
        pair.deliver(&wire);
        assert_eq!(pair.heard(), &whole[skip..]);
    }
    let body: Vec<u8> = (0..300_000).map(|i| (i / 7) as u8).collect();
    let parts = [&whole[..], &body];
    let (mut sent, mut heard) = (0, Vec::new());
    while sent < whole.len() + body.len() {
        let flight = pair.client.seal(&parts, sent, &mut pair.scratch).unwrap();
        assert_eq!(
            flight.sealed(),
            MAX_SEALED.min(whole.len() + body.len() - sent)
        );
        sent += flight.sealed();
        let wire = flight.slices().map(|slice| slice.to_vec()).concat();
        flight.on_sent(wire.len());
        pair.deliver(&wire);
        heard.extend(pair.heard());
    }
    assert_eq!(heard, [whole, body].concat());
}

#[test]
fn what_the_socket_does_not_take_is_sent_first_next_time() {
    for version in VERSIONS {
        let mut random = Random(1);
        let mut pair = World::new(version).pair();
        let said: Vec<u8> = (0..200_000).map(|i| (i / 5) as u8).collect();
        let (mut sealed, mut heard) = (0, Vec::new());
        while heard.len() < said.len() {
            let flight = pair
                .client
                .seal(&[&said], sealed, &mut pair.scratch)
                .unwrap();
            sealed += flight.sealed();
            let wire = flight.slices().map(|slice| slice.to_vec()).concat();
            let taken = random.below(flight.len() + 1);
            match random.below(8) {
                0 => drop(flight),
                _ => {
                    flight.on_sent(taken);
                    pair.deliver(&wire[..taken]);
                }
            }
            let most = 2 * MAX_SEALED + MAX_SEALED / 16;
            assert!(pair.client.0.outbound.len() < most);
            heard.extend(pair.heard());
            let wire = pair.wire();
            assert_eq!(pair.read(&wire).unwrap(), b"");
        }
        assert_eq!(heard, said);
    }
}

/// A small generator of fixed seed (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[test]
fn a_peer_that_does_not_speak_tls_is_told_from_a_bad_one() {
    for wire in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.example ESMTP\r\n",
        &[0; 100],
    ] {
        let mut pair = World::new(&TLS13).pair();
        assert_eq!(pair.read(wire), Err(Problem::NotTls));
        assert_eq!(
            pair.read(wire),
            Err(Problem::NotTls),
            "the error stays the same"
        );
        assert!(pair.client.seal(&[b"data"], 0, &mut pair.scratch).is_err());
    }
    for bad_header in [&[22, 9, 9, 0, 1, 0], &[22, 3, 3, 0xff, 0xff, 0]] {
        let mut pair = World::new(&TLS13).pair();
        let ended = pair.read(bad_header).unwrap_err();
        let is_invalid = matches!(ended, Problem::Rustls(Error::InvalidMessage(_)));
        assert!(is_invalid, "{ended:?}");
    }
}

/// Flips one bit in every byte of the server's output in turn. A TLS state may survive if the byte
/// is insignificant, but it must never return data that the server did not send, and must return
/// the same error twice.
#[test]
fn no_changed_byte_changes_what_is_read() {
    for version in VERSIONS {
        let world = World::new(version);
        let mut at = 0;
        let mut survived = 0;
        loop {
            let tls = Tls::with_roots_pem(world.authority.pem().as_bytes()).unwrap();
            let mut pair = Pair::new(&tls, HOST, &world.server);
            let (mut before, mut plaintext) = (0, Vec::new());
            let mut failure = None;
            'said: for round in 0..4 {
                pair.send(b"");
                if round == 3 {
                    pair.server.writer().write_all(b"an answer").unwrap();
                }
                let mut wire = pair.wire();
                if (before..before + wire.len()).contains(&at) {
                    wire[at - before] ^= 1 << (at % 8);
                }
                before += wire.len();
                match pair.read(&wire) {
                    Ok(bytes) => plaintext.extend(bytes),
                    Err(problem) => {
                        assert_eq!(pair.read(&wire).as_ref(), Err(&problem));
                        failure = Some(problem);
                        break 'said;
                    }
                }
            }
            assert!(b"an answer".starts_with(&plaintext[..]), "{plaintext:?}");
            if failure.is_none() {
                survived += 1;
            } else if at >= before {
                panic!("failed without a changed byte: {failure:?}");
            }
            if at >= before {
                break;
            }
            at += 1;
        }
        assert!(at > 300 && survived < at / 4, "{survived} of {at}");
    }
}

/// Random bytes, partly formed into whole records, before, during and after a handshake must only
/// end the TLS state.
#[test]
fn garbage_ends_the_session_and_nothing_else() {
    let mut random = Random(2);
    for version in VERSIONS {
        let world = World::new(version);
        for _ in 0..300 {
            let mut pair = world.pair();
            let mut failed = false;
            for _ in 0..random.below(4) {
                pair.send(b"");
                let wire = pair.wire();
                assert_eq!(pair.read(&wire).unwrap(), b"");
            }
            for _ in 0..20 {
                let len = random.below(40);
                let mut wire: Vec<u8> = (0..len).map(|_| random.below(256) as u8).collect();
                if random.below(4) > 0 {
                    let kind = 20 + random.below(5) as u8;
                    let more = random.below(3) * random.below(10);
                    wire.splice(0..0, [kind, 3, 3, 0, (len + more) as u8]);
                    if kind == 22 && len > 4 {
                        // A handshake message whose length field is right or wrong.
                        wire[5] = random.below(25) as u8;
                        wire[6..8].fill(0);
                        wire[8] = (len - random.below(5)) as u8;
                    }
                }
                match pair.read(&wire) {
                    Ok(plaintext) => assert_eq!(plaintext, b""),
                    Err(_) => failed = true,
                }
                if !failed {
                    let _ = pair.client.seal(&[b"data"], 0, &mut pair.scratch);
                }
            }
            assert!(pair.client.0.kept.len() < 1000);
        }
    }
}

#[test]
fn a_message_longer_than_the_read_buffer_is_refused_and_not_waited_for() {
    let mut pair = established(&TLS13);
    pair.buffer.truncate(4096);
    let wire = pair.say(&[1; 10_000]);
    assert_eq!(pair.read(&wire[..4000]).unwrap(), b"");
    let ended = pair.read(&wire[4000..4096]).unwrap_err();
    assert_eq!(ended, Problem::TooLong { limit: 4096 });
    assert_eq!(
        ended.to_string(),
        "TLS message longer than the read buffer of 4096 bytes"
    );
    assert_eq!(pair.client.restore(&mut pair.buffer), 0);
}

#[test]
fn a_record_over_the_limit_of_the_protocol_is_refused_by_its_header() {
    for version in VERSIONS {
        let mut pair = established(version);
        let ended = pair.read(&[23, 3, 3, 0xff, 0xff]).unwrap_err();
        assert!(matches!(ended, Problem::Rustls(_)), "{ended}");
        assert!(pair.client.has_outbound(), "an alert reports the reason");
    }
}

#[test]
fn alerts_are_called_by_their_names() {
    let world = World::new(&TLS13);
    let mut pair = world.pair();
    let ended = pair.read(&[21, 3, 3, 0, 2, 2, 40]).unwrap_err();
    assert_eq!(ended.to_string(), "server sent the alert handshake_failure");

    // A server of another protocol, and a client that insists on HTTP/1.1.
    let mut server = ServerConfig::clone(&world.server);
    server.alpn_protocols = vec![b"h2".to_vec()];
    let mut pair = Pair::new(&world.tls, HOST, &Arc::new(server));
    let ended = pair.shake().unwrap_err();
    assert_eq!(
        ended.to_string(),
        "server sent the alert no_application_protocol"
    );
}

#[test]
fn another_protocol_by_alpn_is_refused_by_its_name() {
    for version in VERSIONS {
        let world = World::new(version);
        let mut server = ServerConfig::clone(&world.server);
        server.alpn_protocols = vec![b"h2".to_vec()];
        let mut client = ClientConfig::clone(&world.tls.config().unwrap());
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut pair = Pair::new(&client.into(), HOST, &Arc::new(server));
        let ended = pair.shake().unwrap_err();
        assert_eq!(ended, Problem::Protocol(b"h2".to_vec()));
        assert_eq!(
            ended.to_string(),
            "server chose the protocol h2 instead of http/1.1"
        );
        assert!(!pair.client.is_established());
    }
}

#[test]
fn a_server_without_alpn_is_taken_to_speak_http() {
    let world = World::new(&TLS12);
    let mut server = ServerConfig::clone(&world.server);
    server.alpn_protocols.clear();
    let mut pair = Pair::new(&world.tls, HOST, &Arc::new(server));
    pair.shake().unwrap();
    assert_eq!(pair.client.info().unwrap().alpn(), None);
}

#[test]
fn a_client_certificate_is_shown_where_there_is_one() {
    for version in VERSIONS {
        let world = World::new(version);
        let mut roots = RootCertStore::empty();
        roots.add(world.authority.0.der().clone()).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider())
            .build()
            .unwrap();
        let identity = world.authority.sign(params(&[HOST]));
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(identity.chain(), identity.key())
            .unwrap();
        let server = Arc::new(server);

        // In TLS 1.3 the client completes the handshake before the server has checked its
        // certificate.
        let mut without = Pair::new(&world.tls, HOST, &server);
        let ended = without.shake().unwrap_err();
        assert_eq!(
            ended.to_string(),
            "server sent the alert certificate_required"
        );

        let mut client = params(&["a client"]);
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client = world.authority.sign(client);
        let (chain, key) = (client.certificate.pem(), client.key.serialize_pem());
        let tls = world
            .tls
            .client_certificate_pem(chain.as_bytes(), key.as_bytes())
            .unwrap();
        assert_ne!(tls, world.tls);
        let mut with = Pair::new(&tls, HOST, &server);
        with.shake().unwrap();
        assert_eq!(with.server.peer_certificates(), Some(&client.chain()[..]));
    }
}

/// Returns the problem that a client with `tls` has with a server's certificate.
fn judged(tls: &Tls, host: &str, identity: &Identity) -> Problem {
    let mut problems = VERSIONS.map(|version| {
        let mut pair = Pair::new(tls, host, &Arc::new(server_of(version, identity)));
        let problem = pair.shake().unwrap_err();
        let told = pair.server.process_new_packets().unwrap_err();
        assert!(matches!(told, Error::AlertReceived(_)), "{told}");
        problem
    });
    problems.sort_by_key(|problem| format!("{problem:?}"));
    let [one, other] = problems;
    assert_eq!(one.to_string(), other.to_string());
    one
}

#[test]
fn a_certificate_that_is_not_believed_is_refused_with_the_reason() {
    let world = World::new(&TLS13);
    let good = params(&[HOST]);
    let sign = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = good.clone();
        change(&mut params);
        world.authority.sign(params)
    };
    let alone = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = good.clone();
        change(&mut params);
        let key = key();
        let certificate = params.self_signed(&key).unwrap();
        Identity { certificate, key }
    };
    let rows = [
        (
            sign(&|it| it.not_after = rcgen::date_time_ymd(2021, 2, 3)),
            "certificate expired on 2021-02-03 00:00:00 UTC",
        ),
        (
            sign(&|it| it.not_before = rcgen::date_time_ymd(4000, 1, 2)),
            "certificate is not valid before 4000-01-02 00:00:00 UTC",
        ),
        (
            world
                .authority
                .sign(params(&["other.example", "*.third.example"])),
            "certificate is not valid for server.example: it is valid for other.example, *.third.example",
        ),
        (
            sign(&|it| it.subject_alt_names.clear()),
            "certificate is not valid for server.example: it has no subject alternative names, \
             and its common name is ignored",
        ),
        (
            sign(&|it| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            "certificate is not valid for server authentication",
        ),
        (
            sign(&|it| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            "certificate is that of an authority, which may sign server certificates but not serve as one",
        ),
        (alone(&|_| ()), "certificate is self-signed"),
        (
            alone(&|it| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            "certificate is self-signed",
        ),
        (
            Authority::new().sign({
                let mut params = good.clone();
                params.use_authority_key_identifier_extension = true;
                params
            }),
            "certificate or handshake has a bad signature",
        ),
        (
            Authority::named("somebody").sign(good.clone()),
            "certificate has an unknown issuer: its chain leads to no trusted root",
        ),
    ];
    for (identity, expected) in &rows {
        let problem = judged(&world.tls, HOST, identity);
        assert_eq!(problem.to_string(), *expected);
        assert!(matches!(problem, Problem::Certificate(_)));
    }
}

/// Returns a certificate signed with its own key.
fn self_signed(params: &CertificateParams) -> Identity {
    let key = key();
    let certificate = params.self_signed(&key).unwrap();
    Identity { certificate, key }
}

fn trusting_pem(identity: &Identity) -> Tls {
    Tls::with_roots_pem(identity.certificate.pem().as_bytes()).unwrap()
}

fn authority(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

#[test]
fn a_certificate_that_is_itself_a_root_is_believed_whoever_signed_it() {
    let somebody = Authority::named("somebody");
    // The output of `openssl req -x509`: an authority's certificate, for no particular purpose.
    let mut one_liner = params(&[HOST]);
    authority(&mut one_liner);
    one_liner.extended_key_usages.clear();
    let mut for_signing = one_liner.clone();
    for_signing.key_usages = vec![
        rcgen::KeyUsagePurpose::DigitalSignature,
        rcgen::KeyUsagePurpose::KeyCertSign,
    ];
    let mut expired = params(&[HOST]);
    expired.not_after = rcgen::date_time_ymd(2021, 2, 3);
    let expired = somebody.sign(expired);
    let rows = [
        ("self-signed", self_signed(&params(&[HOST])), None),
        (
            "self-signed, as an authority",
            self_signed(&one_liner),
            None,
        ),
        (
            "self-signed, with the key usages of both",
            self_signed(&for_signing),
            None,
        ),
        (
            "signed by another authority",
            somebody.sign(params(&[HOST])),
            None,
        ),
        (
            "signed by another authority, as an authority",
            somebody.sign(one_liner.clone()),
            None,
        ),
        (
            "self-signed, sent with others",
            self_signed(&one_liner),
            Some(vec![
                expired.certificate.der().clone(),
                somebody.0.der().clone(),
            ]),
        ),
        (
            "signed by another authority, sent with others",
            somebody.sign(params(&[HOST])),
            Some(vec![
                expired.certificate.der().clone(),
                somebody.0.der().clone(),
            ]),
        ),
    ];
    for (why, identity, others) in rows {
        let tls = trusting_pem(&identity);
        for version in VERSIONS {
            let mut chain = identity.chain();
            chain.extend(others.clone().unwrap_or_default());
            let server = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[version])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain, identity.key())
                .unwrap();
            let mut pair = Pair::new(&tls, HOST, &Arc::new(server));
            pair.shake()
                .unwrap_or_else(|problem| panic!("{why}: {problem}"));
        }
    }
}

#[test]
fn a_certificate_that_is_itself_a_root_has_to_be_good_in_all_else() {
    let mut good = params(&[HOST, "127.0.0.1"]);
    authority(&mut good);
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = good.clone();
        change(&mut params);
        self_signed(&params)
    };
    let rows = [
        (
            with(&|it| it.not_after = rcgen::date_time_ymd(2021, 2, 3)),
            "certificate expired on 2021-02-03 00:00:00 UTC",
        ),
        (
            with(&|it| it.not_before = rcgen::date_time_ymd(4000, 1, 2)),
            "certificate is not valid before 4000-01-02 00:00:00 UTC",
        ),
        (
            with(&|it| it.subject_alt_names = params(&["other.example"]).subject_alt_names),
            "certificate is not valid for server.example: it is valid for other.example",
        ),
        (
            with(&|it| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            "certificate is not valid for server authentication",
        ),
        (
            with(&|it| it.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign]),
            "certificate is not valid for server authentication",
        ),
    ];
    for (identity, expected) in &rows {
        let problem = judged(&trusting_pem(identity), HOST, identity);
        assert_eq!(problem.to_string(), *expected);
    }
}

#[test]
fn a_certificate_is_not_believed_for_being_like_a_root() {
    let mut params = params(&[HOST]);
    authority(&mut params);
    let root = self_signed(&params);
    let tls = trusting_pem(&root);

    // Same name and key as the root, but another serial number.
    params.serial_number = Some(7.into());
    let certificate = params.self_signed(&root.key).unwrap();
    let key = KeyPair::from_pem(&root.key.serialize_pem()).unwrap();
    let same_key = Identity { certificate, key };
    let expected = Problem::Certificate(CertificateProblem::AuthorityAsServer);
    assert_eq!(judged(&tls, HOST, &same_key), expected);
    // Only the name is the same.
    assert_eq!(judged(&tls, HOST, &self_signed(&params)), expected);

    // A server that presents the root must have its key.
    let thief = key_of_another(&root);
    for version in VERSIONS {
        let mut pair = Pair::new(&tls, HOST, &Arc::new(server_with(version, &thief)));
        let problem = pair.shake().unwrap_err();
        let expected = Problem::Certificate(CertificateProblem::BadSignature);
        assert_eq!(problem, expected);
    }
}

fn key_of_another(identity: &Identity) -> Identity {
    Identity {
        certificate: identity.certificate.clone(),
        key: key(),
    }
}

/// Returns a server that does not check whether its key belongs to its certificate.
fn server_with(version: &'static SupportedProtocolVersion, identity: &Identity) -> ServerConfig {
    let key = provider()
        .key_provider
        .load_private_key(identity.key())
        .unwrap();
    let certified = rustls::sign::CertifiedKey::new(identity.chain(), key);
    let resolver = rustls::sign::SingleCertAndKey::from(certified);
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver))
}

#[test]
fn programs_can_tell_a_wrong_name() {
    let world = World::new(&TLS13);
    let identity = world.authority.sign(params(&["a.example", "10.0.0.1"]));
    let problem = judged(&world.tls, "10.0.0.2", &identity);
    let Problem::Certificate(CertificateProblem::WrongName { host, valid_for }) = problem else {
        panic!("{problem}");
    };
    assert_eq!(host, "10.0.0.2");
    assert_eq!(valid_for, ["a.example", "10.0.0.1"]);

    let problem = judged(&world.tls, "b.example.", &identity).to_string();
    assert!(
        problem.starts_with("certificate is not valid for b.example:"),
        "{problem}"
    );
}

#[test]
fn an_address_that_is_listed_as_a_name_is_called_that() {
    let world = World::new(&TLS13);
    for host in ["127.0.0.1", "::1"] {
        let mut params = params(&["a.example"]);
        let as_name = rcgen::SanType::DnsName(host.try_into().unwrap());
        params.subject_alt_names.push(as_name);
        let problem = judged(&world.tls, host, &world.authority.sign(params));
        let expected = format!(
            "certificate is not valid for {host}: it lists the address as a DNS name instead of an IP address \
             (use subjectAltName IP:{host} instead of DNS:{host})"
        );
        assert_eq!(problem.to_string(), expected);
    }
}

#[test]
fn names_and_addresses_are_verified_without_dot_zone_or_brackets() {
    for version in VERSIONS {
        let world = World::new(version);
        for host in [HOST, "server.example.", "127.0.0.1", "::1", "::1%lo"] {
            let mut pair = Pair::new(&world.tls, host, &world.server);
            pair.shake().unwrap();
            let by_name = host.starts_with("server").then_some(HOST);
            assert_eq!(pair.server.server_name(), by_name, "{host}");
        }
    }
    for host in ["", ".", "a..b", "a b", "[::1]", "-"] {
        let problem = TlsState::new(&World::new(&TLS13).tls, host).unwrap_err();
        assert_eq!(problem, Problem::Name(host.to_owned()));
    }
}

/// `openssl s_server`, which sends each line back reversed.
struct Openssl {
    process: Child,
    addr: String,
}

impl Openssl {
    /// Starts the server. Returns `None` if this host has no openssl.
    fn start(identity: &Identity, option: &str) -> Option<Self> {
        let [certificate, key] =
            ["certificate", "key"].map(|name| Temporary::new(&format!("{option}-{name}")));
        fs::write(&certificate.0, identity.certificate.pem()).unwrap();
        fs::write(&key.0, identity.key.serialize_pem()).unwrap();
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-rev", option])
            .arg("-cert")
            .arg(&certificate.0)
            .arg("-key")
            .arg(&key.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut lines = BufReader::new(process.stdout.take()?).lines();
        let accepts =
            |line: io::Result<String>| Some(line.ok()?.strip_prefix("ACCEPT ")?.to_owned());
        let addr = lines.find_map(accepts);
        // Later output has to be drained.
        thread::spawn(move || lines.for_each(drop));
        let addr = addr.expect("openssl s_server accepts connections");
        Some(Self { process, addr })
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A TLS state over a blocking socket.
struct Line {
    tls: TlsState,
    socket: TcpStream,
    scratch: Scratch,
    buffer: Vec<u8>,
}

impl Line {
    fn new(tls: &Tls, addr: &str) -> Self {
        let socket = TcpStream::connect(addr).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut line = Self {
            tls: TlsState::new(tls, HOST).unwrap(),
            socket,
            scratch: Scratch::default(),
            buffer: vec![0; READ_BUFFER],
        };
        while !line.tls.is_established() {
            line.write(b"");
            assert_eq!(line.read(), b"");
        }
        line
    }

    fn write(&mut self, data: &[u8]) {
        let flight = self.tls.seal(&[data], 0, &mut self.scratch).unwrap();
        assert_eq!(flight.sealed(), data.len());
        for slice in flight.slices() {
            self.socket.write_all(&slice).unwrap();
        }
        let all = flight.len();
        flight.on_sent(all);
    }

    fn read(&mut self) -> Vec<u8> {
        let kept = self.tls.restore(&mut self.buffer);
        let n = self.socket.read(&mut self.buffer[kept..]).unwrap();
        assert!(n > 0, "unexpected end of stream");
        let mut plaintext = Vec::new();
        self.tls
            .receive(&mut self.buffer, kept + n, &mut plaintext, &mut {
                usize::MAX
            })
            .unwrap();
        plaintext
    }
}

#[test]
fn openssl_is_understood() {
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let world = World::new(&TLS13);
        let identity = world.authority.sign(params(&[HOST]));
        let Some(server) = Openssl::start(&identity, option) else {
            println!("skipped: openssl is not installed");
            return;
        };
        for resumed in [false, true] {
            let mut line = Line::new(&world.tls, &server.addr);
            for _ in 0..3 {
                line.write(b"a line of text\n");
                let mut plaintext = Vec::new();
                while plaintext.len() < 15 {
                    plaintext.extend(line.read());
                }
                assert_eq!(plaintext, b"txet fo enil a\n");
            }
            let info = line.tls.info().unwrap();
            assert_eq!((info.version(), info.is_resumed()), (version, resumed));
            line.socket.write_all(&line.tls.close()).unwrap();
        }
    }
}

/// Set in the process started by [`with_variable`].
const CHILD: &str = "HTTPSTREAM_TEST_CHILD";

/// Runs the test `name` again in a process whose environment has `variable` set to `value`, and
/// [`CHILD`] set to `part`.
fn with_variable(name: &str, variable: &str, value: &Path, part: &str) {
    let name = format!("net::tls::tests::{name}");
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", &name])
        .env_remove("SSL_CERT_FILE")
        .env_remove("SSL_CERT_DIR")
        .env(variable, value)
        .env(CHILD, part)
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let passed = shown.contains("1 passed") && output.status.success();
    assert!(passed, "{part}: {shown}");
}

/// A file that is removed when the test is over.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("httpstream-{}-{name}", process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // The file may never have been created.
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn secrets_are_logged_only_where_that_was_asked_for() {
    let shake = |tls: &Tls, world: &World| Pair::new(tls, HOST, &world.server).shake().unwrap();
    match env::var(CHILD).as_deref() {
        Ok("unasked") => {
            let world = World::new(&TLS13);
            shake(&world.tls, &world);
        }
        Ok(_) => {
            let world = World::new(&TLS13);
            shake(&world.tls.key_log_from_env().unwrap(), &world);
        }
        Err(_) => {
            let file = Temporary::new("keys");
            let run = |part| {
                let name = "secrets_are_logged_only_where_that_was_asked_for";
                with_variable(name, "SSLKEYLOGFILE", &file.0, part);
                fs::read_to_string(&file.0).unwrap_or_default()
            };
            assert_eq!(run("unasked"), "");
            let logged = run("asked");
            assert!(logged.contains("CLIENT_TRAFFIC_SECRET_0 "), "{logged:?}");
        }
    }
}

#[test]
fn roots_of_the_machine_may_be_glued_and_one_of_them_the_servers_own() {
    let name = "roots_of_the_machine_may_be_glued_and_one_of_them_the_servers_own";
    if env::var(CHILD).is_err() {
        for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
            let place = Temporary::new(variable);
            with_variable(name, variable, &place.0, "here");
        }
        return;
    }
    let mut params = params(&[HOST]);
    authority(&mut params);
    let own = self_signed(&params);
    let bad = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----";
    let worlds = [World::new(&TLS12), World::new(&TLS13)];
    let (first, second) = (worlds[0].authority.pem(), worlds[1].authority.pem());
    let text = format!(
        "\u{feff}{}{bad}{}{}",
        first.trim_end(),
        second.trim_end(),
        own.certificate.pem()
    );
    match env::var_os("SSL_CERT_FILE") {
        Some(file) => fs::write(file, text).unwrap(),
        None => {
            let dir = PathBuf::from(env::var_os("SSL_CERT_DIR").unwrap());
            let _ = fs::remove_file(&dir);
            fs::create_dir_all(dir.join("deeper")).unwrap();
            fs::write(dir.join("README"), "no certificates").unwrap();
            fs::write(dir.join("roots.pem"), text).unwrap();
            std::os::unix::fs::symlink("roots.pem", dir.join("0123abcd.0")).unwrap();
            std::os::unix::fs::symlink("nowhere", dir.join("0123abcd.1")).unwrap();
        }
    }
    for mut world in worlds {
        world.tls = Tls::platform();
        world.pair().shake().unwrap();
    }
    for version in VERSIONS {
        let server = Arc::new(server_of(version, &own));
        Pair::new(&Tls::platform(), HOST, &server).shake().unwrap();
    }
    if let Some(dir) = env::var_os("SSL_CERT_DIR") {
        fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn roots_of_the_machine_are_read_at_the_first_connection_and_asked_for_again_where_there_are_none()
{
    if env::var(CHILD).is_err() {
        let file = Temporary::new("roots");
        fs::write(&file.0, "").unwrap();
        let name = "roots_of_the_machine_are_read_at_the_first_connection_and_asked_for_again_where_there_are_none";
        return with_variable(name, "SSL_CERT_FILE", &file.0, "here");
    }
    let file = env::var_os("SSL_CERT_FILE").unwrap();
    let mut world = World::new(&TLS13);
    world.tls = Tls::default();

    let problem = TlsState::new(&world.tls, HOST).unwrap_err();
    assert!(matches!(problem, Problem::NoRoots(_)));
    let problem = problem.to_string();
    assert!(
        problem.starts_with("no root certificates found"),
        "{problem}"
    );
    assert!(
        problem.ends_with("no certificate found: the text is empty"),
        "{problem}"
    );
    fs::remove_file(&file).unwrap();
    let problem = TlsState::new(&world.tls, HOST).unwrap_err().to_string();
    let named = file.to_str().unwrap();
    assert!(problem.contains(named), "{problem}");

    fs::write(&file, world.authority.pem()).unwrap();
    world.pair().shake().unwrap();
    fs::remove_file(&file).unwrap();
    world.pair().shake().unwrap();
}

/// Returns a server that sends this many tickets after the handshake, in records of at most
/// `fragment` bytes.
fn with_tickets(world: &World, tickets: usize, fragment: Option<usize>) -> Arc<ServerConfig> {
    let mut server = (*world.server).clone();
    server.send_tls13_tickets = tickets;
    server.max_fragment_size = fragment;
    Arc::new(server)
}

/// Performs one read of the client within an allowance. Returns what is left of the allowance.
fn read_within(
    pair: &mut Pair,
    wire: &[u8],
    allowance: usize,
    plaintext: &mut Vec<u8>,
) -> Result<usize, Problem> {
    let kept = pair.client.restore(&mut pair.buffer);
    pair.buffer[kept..kept + wire.len()].copy_from_slice(wire);
    let mut left = allowance;
    let filled = kept + wire.len();
    let received = pair
        .client
        .receive(&mut pair.buffer, filled, plaintext, &mut left);
    received.map(|()| left)
}

#[test]
fn what_is_read_does_not_depend_on_how_much_is_allowed_at_a_time() {
    for version in VERSIONS {
        let world = World::new(version);
        // Every handshake message takes several records, and tickets follow it.
        let server = with_tickets(&world, 5, Some(100));
        for allowance in [0, 1, RECORD_WORK, 20 * RECORD_WORK, 20 * UNASKED_WORK] {
            let mut pair = Pair::new(&world.tls, HOST, &server);
            let mut heard = Vec::new();
            let mut calls = 0;
            let mut read_all = |pair: &mut Pair, wire: &[u8]| {
                let mut heard = Vec::new();
                let mut wire = wire;
                loop {
                    calls += 1;
                    read_within(pair, wire, allowance, &mut heard).unwrap();
                    // Whatever the client sends between two calls is not needed for the next one.
                    pair.send(b"");
                    wire = b"";
                    if !pair.client.has_pending() {
                        return heard;
                    }
                }
            };
            for _ in 0..4 {
                pair.send(b"");
                let wire = pair.wire();
                assert_eq!(read_all(&mut pair, &wire), b"");
            }
            assert!(pair.client.is_established());
            let data: Vec<u8> = (0..5000u32).map(|i| i as u8).collect();
            let mut wire = pair.say(&data);
            if version == &TLS13 {
                pair.server.refresh_traffic_keys().unwrap();
            }
            wire.extend(pair.wire());
            wire.extend(pair.say(&data));
            // The start of a further record.
            let last = pair.say(b"the last");
            let (first_half, second_half) = last.split_at(7);
            wire.extend_from_slice(first_half);
            heard.extend(read_all(&mut pair, &wire));
            heard.extend(read_all(&mut pair, second_half));
            assert_eq!(heard, [&data[..], &data, b"the last"].concat());
            if allowance == 0 {
                assert!(calls > 10, "{calls}");
            }
            assert_eq!(pair.client.0.kept.capacity(), 0, "nothing is kept");
            pair.send(b"and back");
            assert_eq!(pair.heard(), b"and back");
        }
    }
}

#[test]
fn records_of_a_byte_use_an_allowance_up_and_wait_for_the_next() {
    const BYTES: usize = 1000;
    for version in VERSIONS {
        let world = World::new(version);
        let mut pair = world.pair();
        pair.shake().unwrap();
        let wire: Vec<u8> = (0..BYTES).flat_map(|i| pair.say(&[i as u8])).collect();
        let mut heard = Vec::new();
        let left = read_within(&mut pair, &wire, 100 * RECORD_WORK, &mut heard).unwrap();
        // Sixteen are processed at a time.
        assert_eq!((heard.len(), left), (112, 0));
        assert!(pair.client.has_pending());
        // Data sent meanwhile is not delayed by the pending records, and does not affect them.
        pair.send(b"meanwhile");
        assert_eq!(pair.heard(), b"meanwhile");
        let left = read_within(&mut pair, b"", 2000 * RECORD_WORK, &mut heard).unwrap();
        assert_eq!(left, (2000 - (BYTES - 112)) * RECORD_WORK);
        assert!(!pair.client.has_pending());
        assert!(heard.iter().enumerate().all(|(i, byte)| *byte == i as u8));
        assert_eq!(heard.len(), BYTES);
    }
}

#[test]
fn tickets_use_more_of_an_allowance_than_data_do() {
    const TICKETS: usize = 2000;
    let world = World::new(&TLS13);
    for fragment in [None, Some(32), Some(100)] {
        let server = with_tickets(&world, TICKETS, fragment);
        let mut pair = Pair::new(&world.tls, HOST, &server);
        pair.buffer = vec![0; 1 << 20];
        let mut plaintext = Vec::new();
        while !pair.client.is_established() {
            pair.send(b"");
            let wire = pair.wire();
            read_within(&mut pair, &wire, usize::MAX, &mut plaintext).unwrap();
        }
        pair.send(b"");
        let mut wire = pair.wire();
        let mut calls = 0;
        let mut before = 0;
        loop {
            calls += 1;
            read_within(&mut pair, &wire, 100 * UNASKED_WORK, &mut plaintext).unwrap();
            wire.clear();
            let tickets = pair.client.0.connection.tls13_tickets_received() as usize;
            // One record is always processed to its end.
            let most = match fragment {
                None => 100 + (16 << 10) / 32,
                Some(_) => 100 + 16,
            };
            assert!(tickets - before <= most, "{}", tickets - before);
            before = tickets;
            if !pair.client.has_pending() {
                break;
            }
        }
        assert_eq!(before, TICKETS);
        assert!(calls >= 4, "{calls}");
        assert!(pair.client.unasked() >= TICKETS);
        // A request resets the count, as received data does.
        pair.send(b"x");
        assert_eq!(pair.client.unasked(), 0);
        assert_eq!(plaintext, b"");
    }
}
