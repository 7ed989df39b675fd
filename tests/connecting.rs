//! From a host's name to a connection, and what becomes of those that cannot be made.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use common::{Bench, Server, facts, ok};
use httpstream::resolver::Table;
use httpstream::{ErrorKind, Phase, Request, Sent};

/// A port that nobody listens on.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn get(url: &str) -> Request {
    Request::get(url).build().unwrap()
}

#[test]
fn a_refused_connection_fails_with_its_reason() {
    let mut bench = Bench::new();
    for request in [
        get(&format!("http://127.0.0.1:{}/", closed_port())),
        Request::post(&format!("http://127.0.0.1:{}/", closed_port()))
            .body(vec![0; 1 << 20])
            .build()
            .unwrap(),
    ] {
        let error = bench.fetch_err(request);
        assert_eq!(
            facts(&error),
            (ErrorKind::Connect, Phase::Connect, Sent::No)
        );
        assert!(error.resend_is_safe());
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("refused"), "{source}");
    }
    bench.assert_empty();
}

#[test]
fn a_socket_that_cannot_even_begin_to_connect_fails_in_the_same_phase() {
    let mut bench = Bench::new();
    // No route to the broadcast address, or no permission: known at once.
    let error = bench.fetch_err(get("http://255.255.255.255:9/"));
    assert_eq!(
        facts(&error),
        (ErrorKind::Connect, Phase::Connect, Sent::No)
    );
    bench.assert_empty();
}

#[test]
fn localhost_is_tried_in_both_families() {
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        if TcpListener::bind(addr).is_err() {
            // A machine without IPv6 has one family less to try.
            assert!(addr.starts_with('['));
            continue;
        }
        let server = Server::on(addr, |peer| while peer.answer(&ok("a")) {});
        let mut bench = Bench::new();
        for host in ["localhost", "LOCALHOST.", "bot.localhost"] {
            let got = bench.fetch_ok(get(&format!("http://{host}:{}/", server.addr.port())));
            assert_eq!(got.text(), "a");
        }
        bench.assert_empty();
    }
}

#[test]
fn when_all_addresses_fail_each_is_named() {
    let mut bench = Bench::new();
    let error = bench.fetch_err(get(&format!("http://localhost:{}/", closed_port())));
    assert_eq!(
        facts(&error),
        (ErrorKind::Connect, Phase::Connect, Sent::No)
    );
    let text = format!("{error:#}");
    assert!(
        text.contains("127.0.0.1:") && text.contains("[::1]:"),
        "{text}"
    );
    bench.assert_empty();
}

#[test]
fn the_next_address_is_tried_where_one_refuses() {
    let server = Server::answering(ok("a"));
    let mut table = Table::new();
    let addrs = [
        Ipv4Addr::new(127, 0, 0, 7),
        Ipv4Addr::new(127, 0, 0, 8),
        Ipv4Addr::LOCALHOST,
    ];
    table.insert("several.test", addrs.map(IpAddr::V4));
    table.insert("none.test", []);
    let mut bench = Bench::with(|c| c.resolver = Some(Box::new(table)));
    let port = server.addr.port();
    assert_eq!(
        bench
            .fetch_ok(get(&format!("http://several.test:{port}/")))
            .text(),
        "a"
    );
    assert_eq!(bench.stats().opened, 1);
    for host in ["none.test", "unknown.test"] {
        let error = bench.fetch_err(get(&format!("http://{host}/")));
        assert_eq!(
            facts(&error),
            (ErrorKind::Resolve, Phase::Resolve, Sent::No)
        );
    }
    bench.assert_empty();
}

#[test]
fn overrides_come_before_names_and_addresses() {
    let server = Server::start(|peer| {
        while let Some(seen) = peer.request() {
            let host = seen
                .head
                .lines()
                .find_map(|l| l.strip_prefix("Host: "))
                .unwrap();
            peer.send(&ok(host));
        }
    });
    let addr = server.addr;
    let refuse: SocketAddr = (Ipv6Addr::LOCALHOST, closed_port()).into();
    let mut bench = Bench::with(|c| {
        c.resolve_to("not.qq.com", refuse);
        c.resolve_to("*.qq.com", addr);
        c.resolve_to("a.test:8080", addr);
        c.resolve_to("192.0.2.1", addr);
    });
    for host in ["w.qq.com", "a.b.qq.com:99", "a.test:8080", "192.0.2.1"] {
        assert_eq!(bench.fetch_ok(get(&format!("http://{host}/"))).text(), host);
    }
    assert_eq!(
        bench.fetch_err(get("http://not.qq.com/")).kind(),
        ErrorKind::Connect
    );
    bench.assert_empty();
}

#[test]
fn names_are_asked_for_once_for_all_who_wait() {
    let Some((name, ip)) = common::hosts_name() else {
        println!("skipped: no name for an address of this machine beside localhost");
        return;
    };
    let server = Server::on(&SocketAddr::new(ip, 0).to_string(), |peer| {
        while peer.answer(&ok("a")) {}
    });
    let mut bench = Bench::new();
    for _ in 0..20 {
        bench.submit(get(&format!("http://{name}:{}/", server.addr.port())));
    }
    bench.replies(20);
    assert!(bench.log.replies.iter().all(Result::is_ok));
    bench.assert_empty();
}

#[test]
fn a_name_that_does_not_exist_fails_alone() {
    let server = Server::answering(ok("a"));
    let mut bench = Bench::new();
    // RFC 6761 §6.4: never exists. Without a name server it cannot be known either.
    let missing = bench.submit(get("http://does-not-exist.invalid/"));
    bench.submit(server.get("/"));
    bench.until("the other answer", |_, log| {
        log.replies.iter().any(Result::is_ok)
    });
    bench.engine.cancel(missing);
    bench.replies(2);
    bench.assert_empty();
}
