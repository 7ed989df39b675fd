//! https in the simulation: there is no TLS, but the ledger records the scheme.

use std::time::Duration;

use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Engine, Next, Request, Sim};

/// `bot.test`, whose ports 80, 443 and 8443 answer with the details of the request.
fn network() -> Network {
    let network = Network::new(1);
    network.host("bot.test", [[10, 0, 0, 1]]);
    for port in [80, 443, 8443] {
        network.serve(([10, 0, 0, 1], port).into(), move |request: &Incoming| {
            let host = request.header("host").unwrap_or_default();
            let host = String::from_utf8_lossy(host);
            Answer::ok(format!("{port} {} {host}", request.https))
        });
    }
    network
}

fn engine(network: &Network) -> Engine<Vec<String>, Sim> {
    Engine::on_network(network, Config::default()).unwrap()
}

fn submit(engine: &mut Engine<Vec<String>, Sim>, url: &str) {
    let request = Request::get(url).build().unwrap();
    engine.submit(request, |texts: &mut Vec<String>, reply, _| {
        let response = reply.unwrap();
        #[cfg(feature = "tls")]
        assert!(response.info().tls().is_none());
        texts.push(response.text().unwrap().to_owned());
        Next::done()
    });
}

#[test]
fn https_connects_without_a_handshake_and_the_ledger_says_that_it_was_https() {
    let network = network();
    let mut engine = engine(&network);
    let mut texts = Vec::new();
    for url in [
        "https://bot.test/",
        "http://bot.test/",
        "https://bot.test:8443/",
        "https://10.0.0.1/",
        "http://bot.test:443/",
    ] {
        submit(&mut engine, url);
        engine.run(&mut texts).unwrap();
    }
    let expected = [
        "443 true bot.test",
        "80 false bot.test",
        "8443 true bot.test:8443",
        "443 true 10.0.0.1",
        // A URL without the s is detected.
        "443 false bot.test:443",
    ];
    assert_eq!(texts, expected);
    let https = [true, false, true, true, false];
    let ledger = network.ledger();
    assert!(ledger.attempts().map(|attempt| attempt.https).eq(https));
    assert!(ledger.connections().map(|served| served.https).eq(https));
    assert!(ledger.requests().map(|request| request.https).eq(https));
    assert!(network.misuses().is_empty());
    assert_eq!(
        network.ledger().attempts().len(),
        5,
        "no request is retried"
    );
}

#[test]
fn connections_are_kept_and_never_shared_by_http_and_https() {
    let network = network();
    let mut engine = engine(&network);
    let mut texts = Vec::new();
    for _ in 0..3 {
        for url in ["https://bot.test:8443/", "http://bot.test:8443/"] {
            submit(&mut engine, url);
            engine.run(&mut texts).unwrap();
        }
    }
    let ledger = network.ledger();
    let connections: Vec<_> = ledger
        .connections()
        .map(|served| (served.https, served.requests))
        .collect();
    assert_eq!(connections, [(true, 3), (false, 3)]);
    assert_eq!(engine.stats().opened, 2);
}

#[test]
fn https_is_as_fast_as_http() {
    let network = network();
    network.set_latency(Duration::from_millis(10));
    let mut engine = engine(&network);
    let mut times = Vec::new();
    for url in ["http://bot.test/", "https://bot.test/"] {
        let began = network.elapsed();
        let mut texts = Vec::new();
        submit(&mut engine, url);
        engine.run(&mut texts).unwrap();
        times.push(network.elapsed() - began);
    }
    assert_eq!(times[0], times[1]);
}

#[cfg(not(feature = "tls"))]
#[test]
fn the_real_network_refuses_https_without_the_feature() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let mut engine = Engine::<Vec<String>>::new().unwrap();
    let request = Request::get(&url).build().unwrap();
    engine.submit(request, |texts: &mut Vec<String>, reply, _| {
        let error = reply.err().unwrap();
        assert_eq!(error.phase(), httpstream::Phase::Tls);
        assert_eq!(error.request_sent(), httpstream::Sent::No);
        texts.push(format!("{error:#}"));
        Next::done()
    });
    let mut texts = Vec::new();
    engine.run(&mut texts).unwrap();
    assert!(
        texts[0].contains("built without the feature `tls`"),
        "{texts:?}"
    );
    // No connection was made.
    assert!(listener.accept().is_err());
}
