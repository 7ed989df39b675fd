//! Key updates, and keys that are used up.

use std::sync::Arc;

use httpstream::tls::Tls;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, RootCertStore, SupportedCipherSuite, SupportedProtocolVersion, Tls12CipherSuite,
    Tls13CipherSuite,
};

use crate::certificates::{Authority, provider};
use crate::common::{Bench, ok};
use crate::peer::{VERSIONS, World};

#[test]
fn keys_change_before_between_and_during_responses() {
    let world = World::speaking(&TLS13, |peer| {
        peer.tls.refresh_traffic_keys().unwrap();
        while peer.request().is_some() {
            peer.tls.refresh_traffic_keys().unwrap();
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n");
            peer.tls.refresh_traffic_keys().unwrap();
            peer.send(b"\r\nold");
            peer.tls.refresh_traffic_keys().unwrap();
            peer.send(b"new");
            peer.tls.refresh_traffic_keys().unwrap();
            let wire = peer.wire();
            peer.send_raw(&wire);
        }
    });
    let mut bench = world.bench();
    for _ in 0..50 {
        assert_eq!(bench.fetch_ok(world.get("/")).text(), "oldnew");
    }
    let stats = bench.stats();
    assert_eq!((stats.opened, stats.retried), (1, 0));
    bench.assert_empty();
}

/// The number of records that keys can be used for.
const LIMIT: u64 = 100;

/// Makes keys that are used up soon: rustls' limit of 2^24 records for some suites is too much for
/// a test.
fn soon_worn_out(version: &'static SupportedProtocolVersion) -> CryptoProvider {
    let mut provider = (*provider()).clone();
    let suites = provider.cipher_suites.iter();
    provider.cipher_suites = suites.map(|suite| limited(*suite)).collect();
    provider
        .cipher_suites
        .retain(|suite| suite.version() == version);
    provider
}

fn limited(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    // Suites are statics.
    match suite {
        SupportedCipherSuite::Tls12(suite) => {
            let mut limited = Tls12CipherSuite {
                common: rustls::crypto::CipherSuiteCommon { ..suite.common },
                ..*suite
            };
            limited.common.confidentiality_limit = LIMIT;
            SupportedCipherSuite::Tls12(Box::leak(Box::new(limited)))
        }
        SupportedCipherSuite::Tls13(suite) => {
            let mut limited = Tls13CipherSuite {
                common: rustls::crypto::CipherSuiteCommon { ..suite.common },
                ..*suite
            };
            limited.common.confidentiality_limit = LIMIT;
            SupportedCipherSuite::Tls13(Box::leak(Box::new(limited)))
        }
    }
}

fn tls_of(authority: &Authority, version: &'static SupportedProtocolVersion) -> Tls {
    let mut roots = RootCertStore::empty();
    let pem = authority.pem();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(soon_worn_out(version));
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Tls::from(config)
}

#[test]
fn worn_out_keys_are_changed_or_the_connection_is() {
    const REQUESTS: u64 = 3 * LIMIT;
    for version in VERSIONS {
        let world = World::speaking(version, |peer| while peer.answer(&ok("a")) {});
        let tls = tls_of(&world.authority, version);
        let mut bench = Bench::with(|config| config.route.tls = tls);
        for i in 0..REQUESTS {
            // A POST is not sent twice unless no byte of it was sent.
            let got = bench.fetch_ok(world.post("/", "once"));
            assert_eq!(got.text(), "a", "request {i}");
        }
        let stats = bench.stats();
        let expected = match version == &TLS13 {
            true => (1, 0),
            // TLS 1.2 cannot update its keys.
            false => (4, 3),
        };
        assert_eq!((stats.opened, stats.retried), expected, "{version:?}");
        assert_eq!(world.server.so_far().len() as u64, REQUESTS);
        bench.assert_empty();
    }
}

#[test]
fn keys_worn_out_in_an_upload_fail_it() {
    let world = World::speaking(VERSIONS[0], |peer| while peer.answer(&ok("a")) {});
    let tls = tls_of(&world.authority, VERSIONS[0]);
    let mut bench = Bench::with(|config| config.route.tls = tls);
    // More records than the keys can be used for.
    let error = bench.fetch_err(world.post("/", vec![0; (LIMIT as usize + 10) << 14]));
    assert_eq!(error.kind(), httpstream::ErrorKind::Tls, "{error:#}");
    assert!(!error.resend_is_safe());
    // For such a long body a new connection would not help; for a short one it does.
    assert_eq!(bench.fetch_ok(world.post("/", "short")).text(), "a");
    bench.assert_empty();
}
