//! The same answers over TLS, read by rustls' client.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{COOKIES, Client, Ended, LONG, LOOPBACK, PATIENCE, Scripted};
use crate::server::http::tls::Identity;
use crate::server::http::{Doors, HttpServer, listen};
use crate::server::{Direct, Director, Https, Scheme, Server, Settings, Step};

const HOST: &str = "ui.ptlogin2.qq.com";

type TlsClient = Client<StreamOwned<ClientConnection, TcpStream>>;

fn identity() -> Identity {
    Identity::new([HOST]).expect("a certificate")
}

/// Connects to `host`, and trusts `identity`'s root.
fn connect(addr: SocketAddr, host: &'static str, identity: &Identity) -> TlsClient {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(identity.root_pem().as_bytes()).unwrap();
    roots.add(root).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = ClientConnection::new(Arc::new(config), host.try_into().unwrap()).unwrap();
    let Client(tcp) = Client::connect(addr);
    Client(StreamOwned::new(tls, tcp))
}

#[test]
fn an_answer_leaves_the_session_for_the_next_one() {
    let identity = identity();
    let server = Scripted::start_tls(&identity);
    let mut client = connect(server.addr, HOST, &identity);
    for (path, length, body) in [
        ("/length", 13, "one two three"),
        ("/nothing", 0, ""),
        ("/drip", 13, "one two three"),
        ("/long-drip", 4000, LONG),
    ] {
        client.get(path);
        let expected =
            format!("HTTP/1.1 200 OK\r\n{COOKIES}Content-Length: {length}\r\n\r\n{body}");
        client.expect(&expected);
        let call = server.calls.recv_timeout(PATIENCE).unwrap();
        assert_eq!((&*call.path, call.scheme), (path, Scheme::Https));
    }
    client.0.conn.send_close_notify();
    client.0.flush().unwrap();
    assert_eq!(client.rest(), (String::new(), Ended::Closed));
}

#[test]
fn an_answer_ends_the_session_as_it_should() {
    let new = format!("HTTP/1.1 200 OK\r\n{COOKIES}");
    let old = format!("HTTP/1.0 200 OK\r\n{COOKIES}Connection: close\r\n\r\n");
    let half = format!("{new}Content-Length: 13\r\n\r\none tw");
    let rows = [
        // TLS confirms the end of the body with close_notify.
        ("/until-close", format!("{old}one two three"), Ended::Closed),
        ("/until-close/nothing", old, Ended::Closed),
        ("/no-byte", String::new(), Ended::Cut),
        ("/cut-short", half, Ended::Cut),
        ("/reset", String::new(), Ended::Reset),
    ];
    let identity = identity();
    let server = Scripted::start_tls(&identity);
    for (path, bytes, ended) in rows {
        // The second call arrives in a session that has been used.
        for before in [false, true] {
            let mut client = connect(server.addr, HOST, &identity);
            if before {
                client.get("/nothing");
                client.expect(&format!("{new}Content-Length: 0\r\n\r\n"));
            }
            client.get(path);
            assert_eq!(client.rest(), (bytes.clone(), ended), "{path}");
        }
    }
    let mut client = connect(server.addr, HOST, &identity);
    client.get("/reset-in-body");
    client.expect(&format!("{new}Content-Length: 13\r\n\r\none tw"));
    assert_eq!(client.rest(), (String::new(), Ended::Reset));
}

struct Nobody;

impl Director for Nobody {
    fn direct(&mut self, _: &mut Server, _: std::time::Duration) -> Direct {
        Direct::Wait(None)
    }
}

#[test]
fn each_door_has_its_scheme_and_strangers_do_not_get_in() {
    let identity = identity();
    let (http, https) = (listen(LOOPBACK).unwrap(), listen(LOOPBACK).unwrap());
    let (plain, tls) = (http.local_addr().unwrap(), https.local_addr().unwrap());
    let doors = Doors::from(http).with_https(https, identity.clone());
    let brain = Server::new(Settings {
        https: Https::OverTls,
        ..Settings::default()
    });
    let server = HttpServer::start(doors, brain, Box::new(Nobody), |_| {}).unwrap();

    let ask = format!("GET /cgi-bin/login HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut by_tls = connect(tls, HOST, &identity);
    by_tls.send(&ask);
    let (head, _) = by_tls.answer();
    // It is refused because of its query only.
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    let mut by_tcp = Client::connect(plain);
    by_tcp.send(&ask);
    let (head, _) = by_tcp.answer();
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");

    for (host, root) in [
        (HOST, &Identity::new([HOST]).unwrap()),
        ("qq.com", &identity),
    ] {
        let mut stranger = connect(tls, host, root);
        let error = stranger.0.write_all(ask.as_bytes()).unwrap_err();
        let why = error.to_string();
        assert!(why.contains("invalid peer certificate"), "{host}: {why}");
    }
    // A client that does not speak TLS is refused, too.
    let mut unresponsive = Client::connect(tls);
    unresponsive.send(&ask);
    unresponsive.rest();

    let brain = server.stop();
    let ledger = brain.ledger();
    assert_eq!((ledger.connections, ledger.tls_connections), (2, 1));
    assert_eq!(ledger.over_tls.get(&Step::Sig), Some(&1));
    assert_eq!(ledger.requests, 2);
}
