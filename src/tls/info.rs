//! Properties of an established TLS connection.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, CommonState, HandshakeKind, ProtocolVersion};

/// The certificates that a server presented, its own first.
pub(crate) type CertificateChain = Arc<[CertificateDer<'static>]>;

/// How a connection is protected: version, cipher suite and certificates. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsInfo {
    version: ProtocolVersion,
    suite: CipherSuite,
    protocol: Protocol,
    handshake: Handshake,
    chain: CertificateChain,
}

/// The outcome of ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Unnamed,
    Http11,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handshake {
    Full,
    Resumed,
}

impl TlsInfo {
    /// Describes a connection whose handshake is complete. If ALPN chose a protocol, it is
    /// `http/1.1`.
    pub(crate) fn new(connection: &CommonState, chain: CertificateChain) -> Self {
        Self {
            version: connection
                .protocol_version()
                .unwrap_or(ProtocolVersion::Unknown(0)),
            suite: connection
                .negotiated_cipher_suite()
                .map_or(CipherSuite::Unknown(0), |suite| suite.suite()),
            protocol: match connection.alpn_protocol() {
                Some(_) => Protocol::Http11,
                None => Protocol::Unnamed,
            },
            handshake: match connection.handshake_kind() {
                Some(HandshakeKind::Resumed) => Handshake::Resumed,
                Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => {
                    Handshake::Full
                }
            },
            chain,
        }
    }

    /// Returns the protocol version: `TLSv1.2` or `TLSv1.3`.
    pub fn version(&self) -> &'static str {
        match self.version {
            ProtocolVersion::TLSv1_2 => "TLSv1.2",
            ProtocolVersion::TLSv1_3 => "TLSv1.3",
            other => other.as_str().unwrap_or("unknown"),
        }
    }

    /// Returns the IANA name of the cipher suite, such as `TLS_AES_128_GCM_SHA256`.
    pub fn cipher_suite(&self) -> &'static str {
        match self.suite {
            // rustls uses names of its own for these.
            CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
            CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
            other => other.as_str().unwrap_or("unknown"),
        }
    }

    /// Returns the protocol negotiated by ALPN (RFC 7301), or `None` if the server chose none.
    pub fn alpn(&self) -> Option<&'static str> {
        match self.protocol {
            Protocol::Http11 => Some("http/1.1"),
            Protocol::Unnamed => None,
        }
    }

    /// Returns whether an earlier session was resumed. The server then presented no certificates.
    pub fn is_resumed(&self) -> bool {
        self.handshake == Handshake::Resumed
    }

    /// Returns the certificates that the server presented, as DER, its own first. For a resumed
    /// session, they are those of the original handshake.
    pub fn certificates(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.chain.iter().map(|certificate| certificate.as_ref())
    }
}

impl fmt::Debug for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsInfo")
            .field("version", &self.version())
            .field("cipher_suite", &self.cipher_suite())
            .field("alpn", &self.alpn())
            .field("is_resumed", &self.is_resumed())
            .field("certificates", &self.chain.len())
            .finish()
    }
}

/// Deduplicates the certificate chains of connections: ten thousand connections to one server share
/// one chain.
#[derive(Default)]
pub(super) struct Chains {
    /// Chains by the hash of their bytes.
    held: HashMap<u64, Weak<[CertificateDer<'static>]>>,
    /// How many chains were left when unused ones were last removed.
    swept: usize,
}

impl Chains {
    pub(super) fn intern(&mut self, chain: &[CertificateDer<'static>]) -> CertificateChain {
        let mut hasher = DefaultHasher::new();
        chain.hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(held) = self.held.get(&hash).and_then(Weak::upgrade)
            && *held == *chain
        {
            return held;
        }
        // Sweeping only at twice the size after the last sweep makes the cost per insertion
        // constant.
        if self.held.len() >= 2 * self.swept + 16 {
            self.held.retain(|_, chain| chain.strong_count() > 0);
            self.swept = self.held.len();
        }
        let chain = CertificateChain::from(chain);
        self.held.insert(hash, Arc::downgrade(&chain));
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(n: usize) -> Vec<CertificateDer<'static>> {
        vec![
            CertificateDer::from(n.to_be_bytes().to_vec()),
            CertificateDer::from(vec![0; 10]),
        ]
    }

    #[test]
    fn equal_chains_are_one() {
        let mut chains = Chains::default();
        let first = chains.intern(&chain(1));
        let other = chains.intern(&chain(2));
        let again = chains.intern(&chain(1));
        assert!(Arc::ptr_eq(&first, &again));
        assert!(!Arc::ptr_eq(&first, &other));
        assert_eq!(*other, *chain(2));
    }

    #[test]
    fn chains_that_nobody_holds_are_forgotten() {
        let mut chains = Chains::default();
        let kept = chains.intern(&chain(0));
        for n in 1..10_000 {
            chains.intern(&chain(n));
        }
        assert!(chains.held.len() < 64, "{}", chains.held.len());
        assert!(Arc::ptr_eq(&kept, &chains.intern(&chain(0))));
    }
}
