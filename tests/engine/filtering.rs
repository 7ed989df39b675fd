//! The address filter is called for every address that is dialed, each time, wherever the address
//! comes from.

use crate::common;

use std::io::ErrorKind as IoKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Bench, Log, Server, facts, note, ok};
use httpstream::resolver::{System, Table};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Engine, Error, ErrorKind, Phase, Request, Sent, Sim, public_only};

const REFUSED: &str = "refused by the address filter";

/// The addresses that a filter was called with.
type Asked = Arc<Mutex<Vec<SocketAddr>>>;

fn taken(asked: &Asked) -> Vec<SocketAddr> {
    std::mem::take(&mut asked.lock().unwrap())
}

/// A filter that records its calls.
fn noting(
    config: &mut Config,
    allows: impl Fn(&SocketAddr) -> bool + Send + Sync + 'static,
) -> Asked {
    let asked = Asked::default();
    let notes = Arc::clone(&asked);
    config.address_filter = Some(Arc::new(move |addr| {
        notes.lock().unwrap().push(*addr);
        allows(addr)
    }));
    asked
}

fn bench(change: impl FnOnce(&mut Config), allows: fn(&SocketAddr) -> bool) -> (Bench, Asked) {
    let mut asked = None;
    let bench = Bench::with(|config| {
        change(config);
        asked = Some(noting(config, allows));
    });
    (bench, asked.unwrap())
}

fn get(url: &str) -> Request {
    Request::get(url).build().unwrap()
}

/// Checks that no address remained, and that the error gives the reason for each of them.
fn assert_refused(error: &Error, addrs: &[SocketAddr]) {
    assert_refused_when(Sent::No, error, addrs);
}

fn assert_refused_when(sent: Sent, error: &Error, addrs: &[SocketAddr]) {
    assert_eq!(
        facts(error),
        (ErrorKind::Connect, Phase::Connect, sent),
        "{error:#}"
    );
    let told: Vec<_> = error.addresses().iter().map(|(addr, _)| *addr).collect();
    assert_eq!(told, addrs, "{error:#}");
    let text = format!("{error:#}");
    for (addr, why) in error.addresses() {
        assert_eq!(why.kind(), IoKind::PermissionDenied);
        assert!(text.contains(&format!("{addr}: {REFUSED}")), "{text}");
    }
}

#[test]
fn it_is_asked_for_the_address_that_is_dialled() {
    let server = Server::answering(ok("a"));
    let (addr, port) = (server.addr, server.addr.port());
    let mut table = Table::new();
    table.insert("named.test", [addr.ip()]);
    let (mut bench, asked) = bench(
        |c| {
            c.resolver = Some(common::resolver(table));
            c.resolve_to("elsewhere.test", addr);
            c.resolve_to("192.0.2.1", addr);
        },
        |_| true,
    );
    // The filter is called for the address that is dialed, which may differ from the one in the
    // URL.
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://named.test:{port}/"),
        "http://elsewhere.test/".to_owned(),
        "http://192.0.2.1/".to_owned(),
    ] {
        assert_eq!(bench.fetch_ok(get(&url)).text(), "a", "{url}");
        assert_eq!(taken(&asked), [addr], "{url}");
    }
    bench.assert_empty();
}

#[test]
fn what_it_refuses_is_not_dialled_wherever_it_comes_from() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    let port = addr.port();
    let mut table = Table::new();
    table.insert("named.test", [addr.ip()]);
    let (mut bench, asked) = bench(
        |c| {
            c.resolver = Some(common::resolver(table));
            c.resolve_to("elsewhere.test", addr);
        },
        |_| false,
    );
    for host in [
        format!("127.0.0.1:{port}"),
        format!("named.test:{port}"),
        "elsewhere.test".to_owned(),
    ] {
        assert_refused(&bench.fetch_err(get(&format!("http://{host}/"))), &[addr]);
        assert_eq!(taken(&asked), [addr], "{host}");
    }
    let dialled = listener.accept().map(drop).unwrap_err().kind();
    assert_eq!(dialled, IoKind::WouldBlock);
    bench.assert_empty();
}

#[test]
fn for_what_it_refuses_no_socket_is_opened() {
    let network = Network::new(1);
    network.host("named.test", [INSIDE]);
    let mut config = Config::default();
    config.resolve_to("elsewhere.test", (INSIDE, 80).into());
    noting(&mut config, |_| false);
    let mut engine = Engine::<Log, Sim>::on_network(&network, config).unwrap();
    let mut log = Log::default();
    for host in ["127.0.0.1", "named.test", "elsewhere.test"] {
        engine.submit(get(&format!("http://{host}/")), note);
        engine.run(&mut log).unwrap();
        assert_refused(
            &log.replies.pop().unwrap().unwrap_err(),
            &[(INSIDE, 80).into()],
        );
    }
    let waits = engine.stats().turns;
    assert_eq!(
        network.system_calls(),
        waits,
        "the only system calls were waits"
    );
}

#[test]
fn the_address_that_it_allows_is_taken() {
    let server = Server::answering(ok("a"));
    let port = server.addr.port();
    let ips = [7, 8, 1].map(|last| Ipv4Addr::new(127, 0, 0, last));
    let mut table = Table::new();
    table.insert("several.test", ips.map(IpAddr::from));
    let (mut bench, asked) = bench(
        |c| c.resolver = Some(common::resolver(table)),
        |addr| addr.ip() == Ipv4Addr::LOCALHOST,
    );
    let got = bench.fetch_ok(get(&format!("http://several.test:{port}/")));
    assert_eq!(got.text(), "a");
    let addrs = ips.map(|ip| SocketAddr::from((ip, port)));
    assert_eq!(taken(&asked), addrs);
    bench.assert_empty();
}

#[test]
fn where_it_refuses_all_addresses_each_is_named() {
    let (mut bench, asked) = bench(|_| (), public_only);
    let addrs: [SocketAddr; 2] = [
        (Ipv6Addr::LOCALHOST, 80).into(),
        (Ipv4Addr::LOCALHOST, 80).into(),
    ];
    assert_refused(&bench.fetch_err(get("http://localhost/")), &addrs);
    assert_eq!(taken(&asked), addrs);
    bench.assert_empty();
}

#[test]
fn a_connection_that_is_there_was_asked_for_when_it_was_made() {
    let server = Server::answering(ok("a"));
    let (mut bench, asked) = bench(|_| (), |_| true);
    for _ in 0..3 {
        bench.fetch_ok(server.get("/"));
    }
    assert_eq!((taken(&asked).len(), bench.stats().opened), (1, 1));
    bench.engine.close_idle();
    bench.fetch_ok(server.get("/"));
    assert_eq!((taken(&asked).len(), bench.stats().opened), (1, 2));
    bench.assert_empty();
}

/// Every notation of an address that is not public. The C library accepts some as addresses that
/// the standard library does not. To the engine these are names, which the system's resolver
/// resolves without a query.
#[test]
fn urls_of_strangers_lead_to_public_addresses_only() {
    let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
    v4.set_nonblocking(true).unwrap();
    let port = v4.local_addr().unwrap().port();
    let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).ok();
    if let Some(v6) = &v6 {
        v6.set_nonblocking(true).unwrap();
    }
    let (mut bench, asked) = bench(
        |c| c.resolver = Some(Arc::new(|| Box::new(System::new()))),
        public_only,
    );
    const LOOPBACK: &str = "127.0.0.1";
    let rows = [
        (LOOPBACK, LOOPBACK),
        ("127.255.255.254", "127.255.255.254"),
        ("[::1]", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("[::]", "::"),
        ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1"),
        ("[::ffff:7f00:1]", "::ffff:127.0.0.1"),
        ("[::127.0.0.1]", "::7f00:1"),
        ("[64:ff9b::7f00:1]", "64:ff9b::7f00:1"),
        ("[2002:7f00:1::]", "2002:7f00:1::"),
        ("0.0.0.0", "0.0.0.0"),
        ("10.0.0.1", "10.0.0.1"),
        ("192.168.1.1", "192.168.1.1"),
        ("169.254.169.254", "169.254.169.254"),
        ("[fd00:ec2::254]", "fd00:ec2::254"),
        ("[fe80::1]", "fe80::1"),
    ];
    for (host, leads_to) in rows {
        let error = bench.fetch_err(get(&format!("http://{host}:{port}/")));
        let addr = SocketAddr::new(leads_to.parse().unwrap(), port);
        assert_refused(&error, &[addr]);
        assert_eq!(taken(&asked), [addr], "{host}");
    }
    // Notations that the C library would take for addresses such as 127.0.0.1 are refused even
    // earlier.
    for host in [
        "2130706433",
        "0x7f000001",
        "017700000001",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "0",
        "2852039166",
    ] {
        let built = Request::get(format!("http://{host}:{port}/")).build();
        let error = built.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{host}: {error:#}");
    }
    for listener in [Some(v4), v6].into_iter().flatten() {
        let dialled = listener.accept().map(drop).unwrap_err().kind();
        assert_eq!(dialled, IoKind::WouldBlock, "{listener:?}");
    }
    bench.assert_empty();
}

// ---- names whose addresses change, on a simulated network ----

const PUBLIC: [u8; 4] = [93, 184, 216, 34];
const INSIDE: [u8; 4] = [127, 0, 0, 1];

struct Rebinding {
    network: Network,
    engine: Engine<Log, Sim>,
    log: Log,
    asked: Asked,
}

impl Rebinding {
    fn new() -> Self {
        let network = Network::new(1);
        network.host("rebinding.test", [PUBLIC]);
        for (ip, body) in [(PUBLIC, "public"), (INSIDE, "inside")] {
            let addr = SocketAddr::from((ip, 80));
            network.serve(addr, move |_: &Incoming| Answer::ok(body));
        }
        let mut config = Config::default();
        let asked = noting(&mut config, public_only);
        Self {
            engine: Engine::on_network(&network, config).unwrap(),
            network,
            log: Log::default(),
            asked,
        }
    }

    /// Makes the name resolve to the internal address from now on.
    fn rebind(&self) {
        self.network.host("rebinding.test", [INSIDE]);
    }

    fn submit(&mut self) {
        self.engine.submit(get("http://rebinding.test/"), note);
    }

    fn fetch(&mut self) -> Result<String, Error> {
        self.submit();
        self.engine.run(&mut self.log).unwrap();
        let reply = self.log.replies.pop().unwrap();
        reply.map(|got| got.text().to_owned())
    }

    fn assert_never_inside(&self) {
        let ledger = self.network.ledger();
        let inside = |addr: &SocketAddr| addr.ip() == Ipv4Addr::from(INSIDE);
        assert!(!ledger.attempts().any(|attempt| inside(&attempt.server)));
    }
}

#[test]
fn a_name_that_changes_its_address_leads_nowhere() {
    let mut sim = Rebinding::new();
    assert_eq!(sim.fetch().unwrap(), "public");
    sim.rebind();
    // This connection was allowed when it was opened.
    assert_eq!(sim.fetch().unwrap(), "public");
    assert_eq!(taken(&sim.asked), [SocketAddr::from((PUBLIC, 80))]);
    sim.engine.close_idle();
    let inside = SocketAddr::from((INSIDE, 80));
    assert_refused(&sim.fetch().unwrap_err(), &[inside]);
    assert_eq!(taken(&sim.asked), [inside]);
    sim.assert_never_inside();
}

#[test]
fn sending_again_after_a_stale_connection_asks_anew() {
    let mut sim = Rebinding::new();
    assert_eq!(sim.fetch().unwrap(), "public");
    taken(&sim.asked);
    sim.rebind();
    // The server has closed its end, and the FIN is in flight when the request is written.
    assert_eq!(sim.network.close_idle_peers(), 1);
    let inside = SocketAddr::from((INSIDE, 80));
    // The server may have received the first attempt.
    assert_refused_when(Sent::Maybe, &sim.fetch().unwrap_err(), &[inside]);
    assert_eq!(sim.engine.stats().retried, 1);
    assert_eq!(taken(&sim.asked), [inside]);
    sim.assert_never_inside();
}

#[test]
fn an_address_among_others_that_leads_inside_is_passed_over() {
    let mut sim = Rebinding::new();
    sim.network.host("rebinding.test", [INSIDE, PUBLIC]);
    assert_eq!(sim.fetch().unwrap(), "public");
    assert_eq!(
        taken(&sim.asked),
        [INSIDE, PUBLIC].map(|ip| SocketAddr::from((ip, 80)))
    );
    sim.assert_never_inside();
}

#[test]
fn what_it_refused_once_is_no_worse_when_it_is_allowed() {
    let network = Network::new(1);
    let (v6, v4) = (
        Ipv6Addr::new(0x2600, 0, 0, 0, 0, 0, 0, 1),
        Ipv4Addr::from(PUBLIC),
    );
    network.host("both.test", [IpAddr::from(v6), IpAddr::from(v4)]);
    for ip in [IpAddr::from(v6), IpAddr::from(v4)] {
        let body = ip.to_string();
        network.serve(SocketAddr::new(ip, 80), move |_: &Incoming| {
            Answer::ok(body.clone())
        });
    }
    let allows_v6 = Arc::new(AtomicBool::new(false));
    let allowed = Arc::clone(&allows_v6);
    let mut config = Config::default();
    noting(&mut config, move |addr| {
        addr.is_ipv4() || allowed.load(Ordering::Relaxed)
    });
    let mut engine = Engine::<Log, Sim>::on_network(&network, config).unwrap();
    let mut log = Log::default();
    for allows in [false, true] {
        allows_v6.store(allows, Ordering::Relaxed);
        let request = Request::get("http://both.test/").close().build().unwrap();
        engine.submit(request, note);
        engine.advance(&mut log, Duration::from_secs(1)).unwrap();
    }
    assert_eq!(log.texts(), [v4.to_string(), v6.to_string()]);
}
