//! Sessions against rustls' own server, in memory.

use std::io::{Read, Write};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};

use super::*;

const HOST: &str = "server.example";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
const READ_BUFFER: usize = 128 << 10;

/// Who signs the tests' certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = rcgen::DnType::CommonName;
        params.distinguished_name.push(name, "an authority");
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

/// A server, and a client that believes its authority.
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

/// A session and the server it talks to.
struct Pair {
    client: Session,
    server: ServerConnection,
    scratch: Scratch,
    buffer: Vec<u8>,
}

impl Pair {
    fn new(tls: &Tls, host: &str, server: &Arc<ServerConfig>) -> Self {
        Self {
            client: Session::new(tls, host).unwrap(),
            server: ServerConnection::new(server.clone()).unwrap(),
            scratch: Scratch::default(),
            buffer: vec![0; READ_BUFFER],
        }
    }

    /// Sends what is outbound and then as much of `data` as goes into one flight. Answers how much that was.
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

    /// Brings ciphertext to the server. What it thinks of it shows in what it sends.
    fn deliver(&mut self, mut wire: &[u8]) {
        while !wire.is_empty() {
            self.server.read_tls(&mut wire).unwrap();
            let _ = self.server.process_new_packets();
        }
    }

    /// What the server has read.
    fn heard(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        let _ = self.server.reader().read_to_end(&mut heard);
        heard
    }

    /// What the server has to send.
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

    /// One read by the client.
    fn read(&mut self, wire: &[u8]) -> Result<Vec<u8>, Problem> {
        read(&mut self.client, &mut self.buffer, wire)
    }

    /// Shakes hands. The error of the client, if it is not content.
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

fn read(session: &mut Session, buffer: &mut [u8], wire: &[u8]) -> Result<Vec<u8>, Problem> {
    let kept = session.restore(buffer);
    buffer[kept..kept + wire.len()].copy_from_slice(wire);
    let mut plaintext = Vec::new();
    session
        .receive(buffer, kept + wire.len(), &mut plaintext)
        .map(|()| plaintext)
}

/// A pair that has shaken hands.
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
