//! Handshakes that fail, each with an error that says where and why.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use httpstream::tls::{Problem, Tls};
use httpstream::{Error, ErrorKind, Phase, Request, RequestBuilder, Sent};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{AlertDescription, ClientConfig, RootCertStore};

use crate::certificates::{Authority, provider};
use crate::common::{Bench, Peer, Server, facts, ok};
use crate::peer::{Pieces, TlsPeer, VERSIONS, World};

/// A server whose handshake fails.
fn bad(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> (Server, Bench) {
    let tls = Authority::new().tls();
    let bench = Bench::with(|config| config.route.tls = tls);
    (Server::start(script), bench)
}

fn at(server: &Server) -> RequestBuilder {
    Request::get(crate::peer::url(server, "/"))
}

/// Fetches from such a server, checks the error, and that nothing is left.
fn fails(server: &Server, bench: &mut Bench, request: RequestBuilder) -> Error {
    let error = bench.fetch_err(request.build().unwrap());
    assert_eq!(error.phase(), Phase::Tls, "{error:#}");
    assert_eq!(error.request_sent(), Sent::No);
    assert!(error.resend_is_safe());
    let origin = format!("https://{}", server.addr);
    assert_eq!(error.origin().map(ToString::to_string), Some(origin));
    assert_eq!(bench.stats().retried, 0);
    bench.assert_empty();
    error
}

/// Returns the text after the origin.
fn why(error: &Error) -> String {
    let text = format!("{error:#}");
    text.splitn(4, ':').nth(3).unwrap().trim().to_owned()
}

/// Waits for the first bytes of a ClientHello.
fn hello(peer: &mut Peer) {
    use std::io::Read;
    let _ = peer.stream().read(&mut [0; 1024]);
}

#[test]
fn a_peer_that_does_not_speak_tls_is_called_that() {
    for answer in [
        &b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.example ESMTP\r\n",
        b"<html>",
    ] {
        let (server, mut bench) = bad(move |peer| {
            hello(peer);
            peer.send(answer);
        });
        let request = at(&server);
        let error = fails(&server, &mut bench, request);
        assert_eq!(error.kind(), ErrorKind::Tls);
        assert_eq!(error.tls(), Some(&Problem::NotTls));
        assert_eq!(
            why(&error),
            "TLS handshake failed: peer does not speak TLS; is it a plain http port?"
        );
    }
}

#[test]
fn a_connection_that_is_cut_in_the_handshake_says_so() {
    type Row = (&'static str, fn(&mut Peer), &'static str);
    let rows: &[Row] = &[
        ("at once", |_| (), "unexpected end of file"),
        ("after the hello", hello, "unexpected end of file"),
        (
            "inside a record",
            |peer| {
                hello(peer);
                peer.send(b"\x16\x03\x03\x01");
            },
            "unexpected end of file",
        ),
        (
            "by a reset",
            |peer| {
                hello(peer);
                peer.reset();
            },
            "Connection reset by peer (os error 104)",
        ),
    ];
    for (when, script, expected) in rows {
        let (server, mut bench) = bad(*script);
        let request = at(&server);
        let error = fails(&server, &mut bench, request);
        assert_eq!(
            (error.kind(), error.tls()),
            (ErrorKind::Tls, None),
            "{when}"
        );
        let found = why(&error);
        // Unread bytes of the hello turn an end into a reset, and the reset may hit the client
        // while it sends the hello.
        let others = [
            "Connection reset by peer (os error 104)",
            "Broken pipe (os error 32)",
            "broken pipe",
        ];
        let is_known = [*expected]
            .iter()
            .chain(&others)
            .any(|&known| found == format!("TLS handshake failed: {known}"));
        assert!(is_known, "{when}: {found}");
    }
}

#[test]
fn an_alert_is_called_by_its_name() {
    for (alert, name) in [
        (40, "handshake_failure"),
        (70, "protocol_version"),
        (80, "internal_error"),
        (112, "unrecognized_name"),
        (0, "close_notify"),
    ] {
        let (server, mut bench) = bad(move |peer| {
            hello(peer);
            peer.send(&[21, 3, 3, 0, 2, 2, alert]);
        });
        let request = at(&server);
        let error = fails(&server, &mut bench, request);
        assert_eq!(error.kind(), ErrorKind::Tls);
        let expected = Problem::Alert(AlertDescription::from(alert));
        assert_eq!(error.tls(), Some(&expected));
        let text = format!("TLS handshake failed: server sent the alert {name}");
        assert_eq!(why(&error), text);
    }
}

const SOON: Duration = Duration::from_millis(60);

fn soon(request: RequestBuilder) -> RequestBuilder {
    request.timeouts(|t| t.tls = Some(SOON))
}

#[test]
fn a_server_that_says_nothing_is_waited_for_until_the_deadline() {
    let (server, mut bench) = bad(|peer| drop(peer.hold()));
    let request = soon(at(&server));
    let error = fails(&server, &mut bench, request);
    assert_eq!(facts(&error), (ErrorKind::Timeout, Phase::Tls, Sent::No));
    let text = format!("{error:#}");
    let expected = format!(
        "https://{}: timed out while in the TLS handshake: tls timeout of 60ms",
        server.addr
    );
    assert_eq!(text, expected);
}

#[test]
fn a_handshake_that_stalls_half_way_is_waited_for_until_the_deadline() {
    for version in VERSIONS {
        let authority = Authority::new();
        let config = Arc::new(authority.server().config(&[version]));
        let server = Server::start(move |tcp| {
            let mut peer = TlsPeer::new(tcp, &config, Pieces::Whole);
            while !peer.tls.wants_write() && peer.fill_silently() {}
            let wire = peer.wire();
            peer.send_raw(&wire[..wire.len() / 2]);
            peer.tcp.hold();
        });
        let mut bench = Bench::with(|config| config.route.tls = authority.tls());
        let request = soon(at(&server));
        let error = fails(&server, &mut bench, request);
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
}

#[test]
fn nothing_is_left_of_a_link_that_is_cancelled_in_the_handshake() {
    let (server, mut bench) = bad(|peer| {
        let bytes = peer.hold();
        peer.tell(format!("HELD {} -", bytes.len()), Vec::new());
    });
    for _ in 0..10 {
        let id = bench.submit(at(&server).build().unwrap());
        bench.until("a hello", |engine, _| engine.stats().bytes_out > 0);
        bench.quiet();
        assert!(bench.engine.cancel(id));
        bench.replies(1);
        let error = bench.log.replies.remove(0).unwrap_err();
        assert_eq!(facts(&error), (ErrorKind::Cancelled, Phase::Tls, Sent::No));
        bench.assert_empty();
        server.next();
    }
}

fn offering_h2(authority: &Authority) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let pem = authority.pem();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

#[test]
fn an_answer_in_the_same_read_as_a_refused_handshake_is_none() {
    let authority = Authority::new();
    let mut config = authority.server().config(&[&rustls::version::TLS12]);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    let server = Server::start(move |tcp| {
        let mut peer = TlsPeer::new(tcp, &config, Pieces::Whole);
        // Sent with the last message of the handshake.
        let early = ok("before it was asked for");
        peer.tls.writer().write_all(&early).unwrap();
        peer.shake();
        peer.hold();
    });
    let config = offering_h2(&authority);
    let mut bench = Bench::with(|c| c.route.tls = Tls::from(config));
    let error = fails(&server, &mut bench, at(&server));
    assert_eq!(error.tls(), Some(&Problem::Protocol(b"h2".to_vec())));
}

#[test]
fn a_server_of_another_protocol_is_refused_by_its_name() {
    let alpn_h2 = |config: &mut rustls::ServerConfig| config.alpn_protocols = vec![b"h2".to_vec()];
    let world = World::of(alpn_h2, Pieces::Whole, |peer| peer.hold());
    let mut bench = world.bench();
    let request = world.at("/");
    let error = fails(&world.server, &mut bench, request);
    assert_eq!(
        why(&error),
        "TLS handshake failed: server sent the alert no_application_protocol"
    );

    // If the caller offers h2, it is negotiated, but the engine does not support it.
    let config = offering_h2(&world.authority);
    let mut bench = Bench::with(|c| c.route.tls = Tls::from(config));
    let request = world.at("/");
    let error = fails(&world.server, &mut bench, request);
    assert_eq!(error.tls(), Some(&Problem::Protocol(b"h2".to_vec())));
    assert_eq!(
        why(&error),
        "TLS handshake failed: server chose the protocol h2 instead of http/1.1"
    );
}

#[test]
fn a_queue_goes_on_behind_a_handshake_that_failed() {
    let world = World::new(|peer| while peer.answer(&ok("a")) {});
    let stranger = Authority::new().tls();
    let mut bench = Bench::with(|config| {
        config.max_connections_per_origin = 1;
        config.route.tls = stranger;
    });
    for _ in 0..10 {
        bench.submit(world.get("/"));
    }
    bench.replies(10);
    let kinds = bench.log.kinds();
    assert_eq!(kinds, [ErrorKind::Tls; 10]);
    bench.assert_empty();
}
