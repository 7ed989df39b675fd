//! What is known of a TLS connection once it is there.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, CommonState, HandshakeKind, ProtocolVersion};

/// The certificates that a server has shown, its own first.
pub(crate) type CertificateChain = Arc<[CertificateDer<'static>]>;

/// How a connection is protected. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsInfo {
    version: ProtocolVersion,
    suite: CipherSuite,
    protocol: Protocol,
    handshake: Handshake,
    chain: CertificateChain,
}

/// What ALPN came to.
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
    /// Of a connection whose handshake is over, and has chosen no other protocol than `http/1.1`.
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

    /// The version: `TLSv1.2` or `TLSv1.3`.
    pub fn version(&self) -> &'static str {
        match self.version {
            ProtocolVersion::TLSv1_2 => "TLSv1.2",
            ProtocolVersion::TLSv1_3 => "TLSv1.3",
            other => other.as_str().unwrap_or("unknown"),
        }
    }

    /// The cipher suite by its name at IANA, such as `TLS_AES_128_GCM_SHA256`.
    pub fn cipher_suite(&self) -> &'static str {
        match self.suite {
            // rustls has names of its own for these.
            CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
            CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
            other => other.as_str().unwrap_or("unknown"),
        }
    }

    /// The protocol that server and client agreed on by ALPN (RFC 7301); `None`: the server left it
    /// open.
    pub fn alpn(&self) -> Option<&'static str> {
        match self.protocol {
            Protocol::Http11 => Some("http/1.1"),
            Protocol::Unnamed => None,
        }
    }

    /// Whether an earlier session went on, without certificates being shown again.
    pub fn is_resumed(&self) -> bool {
        self.handshake == Handshake::Resumed
    }

    /// The certificates that the server has shown, as DER, its own first; of a resumed session
    /// those of the handshake that began it.
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

/// Chains that connections hold, each once: ten thousand connections to one server share one.
#[derive(Default)]
pub(super) struct Chains {
    /// By the hash of their bytes.
    held: HashMap<u64, Weak<[CertificateDer<'static>]>>,
    /// How many there were when those that nobody holds any more were last removed.
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
        // Each is looked at a constant number of times, whatever comes and goes.
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
