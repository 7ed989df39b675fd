use std::hash::{BuildHasher, RandomState};

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::error::{Error, ErrorKind};

/// A certificate and its key, as PEM.
fn identity_pem() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["server.example".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn why(error: &Error) -> String {
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    format!("{error:#}")
}

#[test]
fn roots_that_cannot_be_used_are_refused_by_their_number() {
    let (good, _) = identity_pem();
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (pem, expected) in [
        (
            String::new(),
            "root certificates: no certificate found in the PEM",
        ),
        (
            "not PEM".to_owned(),
            "root certificates: no certificate found in the PEM",
        ),
        (
            identity_pem().1,
            "root certificates: no certificate found in the PEM",
        ),
        (
            format!("{good}{bad}{good}"),
            "root certificate 2 cannot be read",
        ),
        (
            good.replace("-----END", "----END"),
            "root certificates: the PEM cannot be read",
        ),
    ] {
        let shown = why(&Tls::with_roots_pem(pem.as_bytes()).unwrap_err());
        assert!(shown.contains(expected), "{shown}");
    }
    let second = good.lines().count() + 1;
    let pem = format!("{good}{bad}");
    let shown = why(&Tls::with_roots_pem(pem.as_bytes()).unwrap_err());
    assert!(shown.ends_with(&format!("(in line {second})")), "{shown}");
    let both = format!("{}{}", good.trim_end(), identity_pem().0);
    assert!(format!("{:?}", Tls::with_roots_pem(both.as_bytes()).unwrap()).contains("roots: 2"));
}

#[test]
fn a_client_certificate_that_cannot_be_used_is_refused_by_its_part() {
    let tls = Tls::default();
    let ((chain, key), (_, other_key)) = (identity_pem(), identity_pem());
    let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let not_a_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let not_one = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (chain, key, expected) in [
        ("", &key[..], "client certificate: no certificate found"),
        (not_one, &key, "client certificate cannot be read"),
        (&chain, "", "client key: no private key found in the PEM"),
        (
            &chain,
            &encrypted,
            "client key: the PEM cannot be read: line 1: the key is encrypted",
        ),
        (&chain, not_a_key, "client key cannot be used"),
        (
            &chain,
            &other_key,
            "client key does not belong to the first certificate",
        ),
    ] {
        let refused = tls.client_certificate_pem(chain.as_bytes(), key.as_bytes());
        let shown = why(&refused.unwrap_err());
        assert!(shown.contains(expected), "{shown}");
    }
    assert!(
        tls.client_certificate_pem(chain.as_bytes(), key.as_bytes())
            .is_ok()
    );
}

#[test]
fn a_client_chain_and_its_key_may_be_glued() {
    let ((chain, key), (other, other_key)) = (identity_pem(), identity_pem());
    let chain = format!("\u{feff}{}{other}", chain.trim_end());
    // Of several keys, the one that matches the certificate is used.
    let keys = format!("{}{key}", other_key.trim_end());
    for (chain, key) in [
        (chain.clone(), key.clone()),
        (chain.clone(), keys),
        (
            format!("{}{key}", chain.trim_end()),
            format!("{}{key}", chain.trim_end()),
        ),
    ] {
        let identity = identity(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(identity.cert.len(), 2);
    }
}

#[test]
fn only_clones_are_equal() {
    let (pem, _) = identity_pem();
    let one = Tls::with_roots_pem(pem.as_bytes()).unwrap();
    let other = Tls::with_roots_pem(pem.as_bytes()).unwrap();
    assert_eq!(one, one.clone());
    assert_ne!(one, other);
    assert_ne!(one, one.key_log_from_env().unwrap());
    let hasher = RandomState::new();
    assert_eq!(hasher.hash_one(&one), hasher.hash_one(one.clone()));
    assert_ne!(hasher.hash_one(&one), hasher.hash_one(&other));
    let (config, again) = (one.config().unwrap(), one.clone().config().unwrap());
    assert!(
        Arc::ptr_eq(&config, &again),
        "clones share their resumable sessions"
    );
}

#[test]
fn a_configuration_of_the_caller_is_used_as_it_is() {
    let (pem, key) = identity_pem();
    let config = Tls::with_roots_pem(pem.as_bytes())
        .unwrap()
        .config()
        .unwrap();
    let tls = Tls::from(config.clone());
    assert!(Arc::ptr_eq(&tls.config().unwrap(), &config));
    let refused = tls.client_certificate_pem(pem.as_bytes(), key.as_bytes());
    assert!(why(&refused.unwrap_err()).contains("the client certificate has to be part of it"));
    let refused = tls.key_log_from_env();
    assert!(why(&refused.unwrap_err()).contains("the key log has to be part of it"));
}

#[test]
fn debug_shows_no_key() {
    let (chain, key) = identity_pem();
    let tls = Tls::with_roots_pem(chain.as_bytes()).unwrap();
    let tls = tls
        .client_certificate_pem(chain.as_bytes(), key.as_bytes())
        .unwrap();
    assert_eq!(
        format!("{tls:?} {:?}", Tls::from(tls.config().unwrap())),
        "Tls { roots: 1, client_certificate: true, key_log: Never } Tls(rustls::ClientConfig)"
    );
}

#[cfg(feature = "webpki-roots")]
#[test]
fn there_are_roots_of_mozilla_where_they_are_built_in() {
    let tls = Tls::webpki_roots();
    let shown = format!("{tls:?}");
    assert!(shown.starts_with("Tls { roots: 1"), "{shown}");
    assert!(tls.config().is_ok());
}
