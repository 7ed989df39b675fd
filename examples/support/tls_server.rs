//! The server of `server.rs` behind TLS, in a process of its own, and what rustls keeps for a
//! connection to it.

#![allow(dead_code, reason = "not every program wants every part")]

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
/// No server needs a longer one here.
const FLIGHT: usize = 16 << 10;

pub(crate) struct TlsServer {
    server: Server,
    /// The certificate to believe it by.
    pub(crate) root_pem: String,
}

impl TlsServer {
    /// Starts this very program as a server.
    pub(crate) fn start() -> io::Result<Self> {
        let (server, lines) = Server::start_as(ASKED)?;
        let mut root_pem = String::new();
        for line in lines.lines() {
            root_pem = root_pem + &line? + "\n";
            if root_pem.ends_with("END CERTIFICATE-----\n") {
                return Ok(Self { server, root_pem });
            }
        }
        Err(io::Error::other("the server did not show its certificate"))
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.server.addr
    }
}

/// Serves until standard input ends, and does not return, if this process was started for that.
pub(crate) fn serve_if_asked() {
    if std::env::args().nth(1).as_deref() != Some(ASKED) {
        return;
    }
    let (config, pem) = server_config().expect("a certificate of its own");
    let config = Arc::new(config);
    server::serve_on_a_thread(&pem, move |socket| {
        let tls = ServerConnection::new(Arc::clone(&config)).expect("a configuration that holds");
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
    // So that every handshake is a full one, and each connection keeps as much as any can.
    config.send_tls13_tickets = 0;
    Ok((config, certificate.pem()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Connections of rustls itself to a server, each after its handshake, with nothing around them.
pub(crate) fn bare_connections(
    server: &TlsServer,
    config: &Arc<ClientConfig>,
    count: usize,
) -> Result<Vec<UnbufferedClientConnection>, Box<dyn Error>> {
    // Without room for more, which would be counted.
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        connections.push(bare_connection(server.addr(), config)?);
    }
    Ok(connections)
}

/// As an engine has it that believes this server.
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
            other => return Err(format!("not in a handshake: {other:?}").into()),
        };
        buffer.copy_within(discard..filled, 0);
        filled -= discard;
        if is_over {
            return Ok(connection);
        }
    }
}
