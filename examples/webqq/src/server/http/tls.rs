//! The server's side of TLS: a certificate with its own root, generated at startup, and the
//! handshake.
//!
//! The root's key is dropped as soon as it has signed. A client that trusts the root trusts this
//! one server, for as long as it runs.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;

/// A server's certificate and key, and the root that clients must trust.
#[derive(Clone)]
pub(crate) struct Identity {
    config: Arc<ServerConfig>,
    root_pem: String,
}

impl Identity {
    /// Makes a certificate for all of `hosts`.
    ///
    /// # Errors
    /// If there is no randomness for the keys.
    pub(crate) fn new(
        hosts: impl IntoIterator<Item = &'static str>,
    ) -> Result<Self, Box<dyn Error>> {
        let root_key = KeyPair::generate()?;
        // Each root gets its own name. A certificate refers to its root by name, and with two roots
        // of the same name verification could pick the wrong one and report a bad signature.
        let [.., a, b, c, d] = root_key.public_key_raw() else {
            return Err("the public key is too short".into());
        };
        let name = format!("webqq, root {a:02x}{b:02x}{c:02x}{d:02x}");
        let mut root = CertificateParams::default();
        root.distinguished_name.push(DnType::CommonName, name);
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = CertifiedIssuer::self_signed(root, root_key)?;

        let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
        let mut server = CertificateParams::new(hosts)?;
        server
            .distinguished_name
            .push(DnType::CommonName, "webqq, server");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &root)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())?;

        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Session state is sealed into the tickets that clients keep: a store on the server would
        // be too small for a thousand connections.
        config.ticketer = ring::Ticketer::new()?;
        Ok(Self {
            config: Arc::new(config),
            root_pem: root.pem(),
        })
    }

    pub(crate) fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Performs the handshake with a client that has just connected.
    ///
    /// # Errors
    /// If the client aborts it, for example because it does not trust the root.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(Arc::clone(&self.config))
            .accept(stream)
            .await
    }
}

/// Leaves out the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("root_pem", &self.root_pem)
            .finish_non_exhaustive()
    }
}
