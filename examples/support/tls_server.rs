//! The server of `server.rs` with TLS, in a separate process; and connections to it by rustls
//! alone, which show how much memory rustls keeps for each.

#![allow(dead_code, reason = "not every program uses every part")]

use std::error::Error;
use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::unbuffered::{ConnectionState, EncodeError};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::server::{self, Server};

const ASKED: &str = "--serve-tls";
const HOST: &str = "127.0.0.1";
/// Room for the handshake data of the server that has not been processed yet.
const FLIGHT: usize = 16 << 10;

pub(crate) struct TlsServer {
    server: Server,
    /// The server's self-signed certificate, for the client to trust.
    pub(crate) root_pem: String,
}

impl TlsServer {
    /// Starts this program once more, as a server with TLS.
    pub(crate) fn start() -> io::Result<Self> {
        let (server, lines) = Server::start_as(ASKED)?;
        let mut root_pem = String::new();
        for line in lines.lines() {
            root_pem = root_pem + &line? + "\n";
            if root_pem.ends_with("END CERTIFICATE-----\n") {
                return Ok(Self { server, root_pem });
            }
        }
        Err(io::Error::other("the server did not print its certificate"))
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.server.addr
    }
}

/// If this process was started as a server with TLS, serves until standard input ends and then
/// exits. Otherwise returns at once.
pub(crate) fn serve_if_asked() {
    if std::env::args().nth(1).as_deref() != Some(ASKED) {
        return;
    }
    let (config, pem) = server_config().expect("a self-signed certificate can be created");
    let config = Arc::new(config);
    server::serve_on_a_thread(&pem, move |socket| {
        let tls = ServerConnection::new(Arc::clone(&config)).expect("the configuration is valid");
        StreamOwned::new(tls, socket)
    });
}

fn server_config() -> Result<(ServerConfig, String), Box<dyn Error>> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([HOST.to_owned()])?.self_signed(&key)?;
    let chain = vec![certificate.der().clone()];
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Without tickets every handshake is a full one, so each connection keeps as much as any can.
    config.send_tls13_tickets = 0;
    Ok((config, certificate.pem()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Opens `count` connections to `server` with rustls alone, without an engine, and completes their
/// handshakes.
pub(crate) fn bare_connections(
    server: &TlsServer,
    config: &Arc<ClientConfig>,
    count: usize,
) -> Result<Vec<UnbufferedClientConnection>, Box<dyn Error>> {
    // The exact capacity: spare room would be counted as well.
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        connections.push(bare_connection(server.addr(), config)?);
    }
    Ok(connections)
}

/// Returns a configuration like that of an engine that trusts this server.
pub(crate) fn client_config(server: &TlsServer) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.root_pem.as_bytes())?)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn bare_connection(
    addr: SocketAddr,
    config: &Arc<ClientConfig>,
) -> Result<UnbufferedClientConnection, Box<dyn Error>> {
    let name = ServerName::try_from(HOST)?;
    let mut connection = UnbufferedClientConnection::new(Arc::clone(config), name)?;
    let mut socket = TcpStream::connect(addr)?;
    let mut buffer = vec![0; FLIGHT];
    let (mut filled, mut outbound) = (0, Vec::new());
    loop {
        let status = connection.process_tls_records(&mut buffer[..filled]);
        let discard = status.discard;
        let is_over = match status.state? {
            ConnectionState::EncodeTlsData(mut message) => {
                let end = outbound.len();
                while let Err(EncodeError::InsufficientSize(short)) =
                    message.encode(&mut outbound[end..])
                {
                    outbound.resize(end + short.required_size, 0);
                }
                false
            }
            ConnectionState::TransmitTlsData(message) => {
                socket.write_all(&outbound)?;
                outbound.clear();
                message.done();
                false
            }
            ConnectionState::BlockedHandshake => {
                filled += socket.read(&mut buffer[filled..])?;
                false
            }
            ConnectionState::WriteTraffic(_) => true,
            other => return Err(format!("unexpected state in a handshake: {other:?}").into()),
        };
        buffer.copy_within(discard..filled, 0);
        filled -= discard;
        if is_over {
            return Ok(connection);
        }
    }
}
