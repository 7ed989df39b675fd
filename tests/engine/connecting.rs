//! From a host name to a connection, and what happens if none can be made.

use crate::common;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Bench, Gate, Log, Server, facts, ok};
use httpstream::resolver::{Family, LookupAnswer, LookupId, Resolve, System, Table, Wake};
use httpstream::{ErrorKind, Phase, Reply, Request, Sent};
use socket2::{Domain, Socket, Type};

/// Returns a port without a listener.
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
        Request::post(format!("http://127.0.0.1:{}/", closed_port()))
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
    // There is no route to the broadcast address, or no permission, and `connect` fails at once.
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
            // A machine without IPv6 has only one family to try.
            assert!(addr.starts_with('['));
            continue;
        }
        let serve = || Server::on(addr, |peer| while peer.answer(&ok("a")) {});
        // Another test's server may have the same port in the other family. Take a port that is
        // free there, and keep it bound, so that connecting is refused.
        let (server, _kept) = (0..100)
            .map(|_| serve())
            .find_map(|server| {
                let other = match server.addr.is_ipv4() {
                    true => SocketAddr::from((Ipv6Addr::LOCALHOST, server.addr.port())),
                    false => SocketAddr::from((Ipv4Addr::LOCALHOST, server.addr.port())),
                };
                let kept = Socket::new(Domain::for_address(other), Type::STREAM, None).ok();
                let bound = kept.as_ref().map(|socket| socket.bind(&other.into()));
                match bound {
                    Some(Err(error)) if error.kind() == std::io::ErrorKind::AddrInUse => None,
                    _ => Some((server, kept)),
                }
            })
            .expect("no port is free in both families");
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
    let mut bench = Bench::with(|c| c.resolver = Some(common::resolver(table)));
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
        println!("skipped: this machine has no name except localhost");
        return;
    };
    let server = Server::on(&SocketAddr::new(ip, 0).to_string(), |peer| {
        while peer.answer(&ok("a")) {}
    });
    // The name may be in the hosts file, and only the system may be able to resolve it. This test
    // needs the system's resolver.
    let mut bench = Bench::with(|c| {
        c.hosts_file = None;
        c.resolver = Some(Arc::new(|| Box::new(System::new())));
    });
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
    // This name never exists (RFC 6761 §6.4). Without a name server the lookup fails, too.
    let missing = bench.submit(get("http://does-not-exist.invalid/"));
    bench.submit(server.get("/"));
    bench.until("the other answer", |_, log| {
        log.replies.iter().any(Result::is_ok)
    });
    bench.engine.cancel(missing);
    bench.replies(2);
    bench.assert_empty();
}

/// A resolver that needs a tick every two milliseconds, even if nothing is being looked up.
#[derive(Clone, Debug)]
struct Periodic {
    next: Instant,
    ticks: Arc<AtomicUsize>,
}

impl Resolve for Periodic {
    fn attach(&mut self, _: Wake) {}
    fn start(&mut self, _: &str, _: Family, _: LookupId) {}
    fn cancel(&mut self, _: LookupId) {}
    fn on_tick(&mut self, now: Instant) {
        assert!(now >= self.next, "early");
        self.next = now + Duration::from_millis(2);
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }
    fn deadline(&self) -> Option<Instant> {
        Some(self.next)
    }
    fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
        None
    }
}

#[test]
fn a_resolver_with_nothing_to_look_up_has_its_deadlines_kept() {
    let ticks = Arc::new(AtomicUsize::new(0));
    let periodic = Periodic {
        next: Instant::now(),
        ticks: Arc::clone(&ticks),
    };
    let mut bench = Bench::with(|c| c.resolver = Some(common::resolver(periodic)));
    let mut turns = 0;
    while ticks.load(Ordering::Relaxed) < 10 {
        turns += 1;
        assert!(
            turns <= 30,
            "{turns} turns for {} ticks",
            ticks.load(Ordering::Relaxed)
        );
        bench
            .engine
            .turn(&mut bench.log, Some(common::PATIENCE))
            .unwrap();
    }
    // The same while an exchange is under way.
    let server = Server::answering(ok("a"));
    assert_eq!(bench.fetch_ok(server.get("/")).text(), "a");
    assert_eq!(bench.engine.pending(), 0);
}

/// A resolver that answers on the test's command. It holds the questions, its answers, and the
/// handle that wakes the engine.
#[derive(Clone, Debug, Default)]
struct Prompted(Arc<Mutex<Prompt>>);

#[derive(Debug, Default)]
struct Prompt {
    asked: Vec<(LookupId, Family)>,
    ready: VecDeque<(LookupId, LookupAnswer)>,
    wake: Option<Wake>,
}

impl Prompted {
    fn answer(&self, addr: IpAddr) {
        let mut prompt = self.0.lock().unwrap();
        for (id, family) in std::mem::take(&mut prompt.asked) {
            let fits = addr.is_ipv4() == (family == Family::V4);
            let addrs = fits.then_some(addr);
            prompt.ready.push_back((id, LookupAnswer::found(addrs)));
        }
        prompt.wake.as_ref().unwrap().wake();
    }
}

impl Resolve for Prompted {
    fn attach(&mut self, wake: Wake) {
        self.0.lock().unwrap().wake = Some(wake);
    }
    fn start(&mut self, _: &str, family: Family, id: LookupId) {
        self.0.lock().unwrap().asked.push((id, family));
    }
    fn cancel(&mut self, _: LookupId) {}
    fn on_tick(&mut self, _: Instant) {}
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
        self.0.lock().unwrap().ready.pop_front()
    }
}

#[test]
fn an_answer_in_the_same_turn_as_a_panic_is_not_lost() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.to_string().contains("on purpose") {
            usual(info);
        }
    }));
    // The wake-up comes before the response that causes the panic, or after it.
    for wake_first in [true, false] {
        let (gate, sent) = (Gate::new(), Gate::new());
        let (at, told) = (gate.clone(), sent.clone());
        let server = Server::start(move |peer| {
            while let Some(seen) = peer.request() {
                if seen.path == "/panics" {
                    at.pass();
                }
                peer.send(&ok("a"));
                told.open(1);
            }
        });
        let prompted = Prompted::default();
        let resolver = prompted.clone();
        let mut bench = Bench::with(|c| c.resolver = Some(common::resolver(resolver)));
        bench
            .engine
            .submit(server.get("/panics"), |_: &mut Log, _: Reply<'_>, _| {
                panic!("on purpose")
            });
        bench.submit(get(&format!("http://slow.test:{}/", server.addr.port())));
        bench.until("both are under way", |engine, _| {
            engine.stats().in_flight == 2 && engine.stats().links_dialing == 1
        });
        assert_eq!(server.next().path, "/panics");
        // No events are left from setting this up.
        bench.quiet();
        let answer = || prompted.answer(server.addr.ip());
        if wake_first {
            answer();
        }
        gate.open(1);
        sent.pass();
        if !wake_first {
            answer();
        }
        let turn = catch_unwind(AssertUnwindSafe(|| {
            bench
                .engine
                .turn(&mut bench.log, Some(common::PATIENCE))
                .map(drop)
        }));
        assert!(turn.is_err(), "the readback panics in this turn");
        assert_eq!(
            bench.engine.next_timeout(),
            Some(Duration::ZERO),
            "the answer makes a turn due"
        );
        bench.replies(1);
        assert_eq!(bench.log.texts(), ["a"]);
        bench.assert_empty();
    }
}
