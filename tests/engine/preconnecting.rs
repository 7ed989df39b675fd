//! A connection that is opened ahead of a request: the next request finds it open, or takes it over
//! while it is being opened, and nothing else changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Engine, Error, ErrorKind, Info, Next, Origin, Request, Route, Sim};

use crate::common::{Bench, Gate, Server, ok, unresponsive_listener};
use crate::visits::on_send;

/// Long enough for a lookup and a connect on the simulated network.
const A_WHILE: Duration = Duration::from_millis(20);

/// A network with two hosts, `a.test` and `b.test`.
fn network() -> Network {
    let network = Network::new(1);
    for (host, last) in [("a.test", 1), ("b.test", 2)] {
        network.host(host, [[10, 0, 0, last]]);
        let addr = SocketAddr::from(([10, 0, 0, last], 80));
        network.serve(addr, |_: &Incoming| Answer::ok("hello"));
    }
    network
}

type Replies = Vec<Result<Info, ErrorKind>>;

/// An engine on a simulated network, with what its readbacks received.
struct World {
    network: Network,
    engine: Engine<Replies, Sim>,
    replies: Replies,
}

impl World {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        Self::on(network(), change)
    }

    fn on(network: Network, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let engine = Engine::on_network(&network, config).unwrap();
        Self {
            network,
            engine,
            replies: Vec::new(),
        }
    }

    fn submit(&mut self, url: &str) {
        self.submit_request(Request::get(url).build().unwrap());
    }

    fn submit_request(&mut self, request: Request) {
        self.engine
            .submit(request, |replies: &mut Replies, reply, _| {
                replies.push(match reply {
                    Ok(response) => Ok(response.info().clone()),
                    Err(error) => Err(error.kind()),
                });
                Next::done()
            });
    }

    fn pass(&mut self, time: Duration) {
        self.engine.advance(&mut self.replies, time).unwrap();
    }

    /// Sends a request, and returns what is known about its exchange.
    fn fetch(&mut self, url: &str) -> Info {
        self.submit(url);
        self.engine.run(&mut self.replies).unwrap();
        self.replies.pop().unwrap().unwrap()
    }

    fn links(&self) -> (usize, usize, usize) {
        let stats = self.engine.stats();
        (stats.links_open, stats.links_dialing, stats.links_idle)
    }

    /// Checks that neither a connection nor a timer is left.
    fn assert_nothing_left(&mut self) {
        assert_eq!(self.links(), (0, 0, 0));
        assert_eq!(self.network.open_fds(), 0);
        assert_eq!(self.engine.next_deadline(), None, "a timer is left");
        assert!(self.engine.origins().is_empty());
        assert_eq!(self.network.misuses(), []);
    }
}

fn a() -> Origin {
    "http://a.test".parse().unwrap()
}

fn b() -> Origin {
    "http://b.test".parse().unwrap()
}

#[test]
fn the_next_request_finds_the_connection_open() {
    let mut world = World::new(|_| ());
    world.engine.preconnect(&a());
    assert_eq!(world.links(), (0, 0, 0), "it begins with the next turn");
    world.pass(A_WHILE);
    assert_eq!(world.links(), (1, 0, 1));
    assert_eq!(world.network.ledger().attempts().count(), 1);
    let info = world.fetch("http://a.test/");
    assert!(!info.reused, "no exchange came before this one");
    let timings = info.timings;
    assert_eq!((timings.resolve, timings.connect), (None, None));
    let stats = world.engine.stats();
    assert_eq!((stats.opened, stats.reused, stats.submitted), (1, 0, 1));
    let next = world.fetch("http://a.test/");
    assert!(next.reused);
    assert_eq!(next.connection, info.connection);
    assert_eq!(world.engine.stats().reused, 1);
}

/// Whatever the connection has come to, the request uses it.
#[test]
fn a_request_takes_over_a_connection_that_is_being_opened() {
    // A lookup takes 1 ms, and a connect twice the latency.
    for micros in (0..=5000).step_by(250) {
        let mut world = World::new(|_| ());
        world.network.set_latency(Duration::from_millis(1));
        world.engine.preconnect(&a());
        world.pass(Duration::from_micros(micros));
        let info = world.fetch("http://a.test/");
        assert!(!info.reused, "{micros}");
        assert_eq!(world.engine.stats().opened, 1, "{micros}");
        assert_eq!(world.network.ledger().attempts().count(), 1, "{micros}");
        assert_eq!(world.links(), (1, 0, 1), "{micros}");
        world.engine.close_idle();
        world.pass(A_WHILE);
        world.assert_nothing_left();
    }
}

#[test]
fn a_request_that_takes_it_over_has_its_own_deadlines() {
    let network = network();
    network.host("silent.test", [[10, 0, 0, 9]]);
    network.black_hole("10.0.0.9:80".parse().unwrap());
    let mut world = World::on(network, |config| {
        config.timeouts.connect = Some(Duration::from_secs(60));
    });
    world
        .engine
        .preconnect(&"http://silent.test".parse().unwrap());
    world.pass(A_WHILE);
    let request = Request::get("http://silent.test/")
        .timeouts(|timeouts| timeouts.connect = Some(Duration::from_secs(1)));
    world.submit_request(request.build().unwrap());
    world.pass(Duration::from_millis(999));
    assert!(world.replies.is_empty());
    world.pass(Duration::from_millis(10));
    assert!(matches!(world.replies[..], [Err(ErrorKind::Timeout)]));
    world.assert_nothing_left();
}

#[test]
fn only_one_connection_is_opened_however_often_it_is_asked_for() {
    let mut world = World::new(|_| ());
    for _ in 0..3 {
        world.engine.preconnect(&a());
    }
    world.pass(A_WHILE);
    assert_eq!(world.links(), (1, 0, 1));
    world.engine.preconnect(&a());
    world.pass(A_WHILE);
    assert_eq!(
        world.links(),
        (1, 0, 1),
        "the origin has an idle connection"
    );
    world.engine.preconnect(&b());
    world.pass(A_WHILE);
    assert_eq!(
        world.links(),
        (2, 0, 2),
        "another origin has a connection of its own"
    );
}

#[test]
fn it_is_not_pending_and_run_does_not_wait_for_it() {
    let mut world = World::new(|_| ());
    world.engine.preconnect(&a());
    assert_eq!(world.engine.pending(), 0);
    assert!(
        world.engine.next_timeout().unwrap().is_zero(),
        "a turn is due"
    );
    let before = world.network.now();
    world.engine.run(&mut world.replies).unwrap();
    assert_eq!(world.network.now(), before);
    world.pass(A_WHILE);
    assert_eq!(world.links(), (1, 0, 1), "the turns after that open it");
}

#[test]
fn a_failure_concerns_nobody() {
    let network = network();
    network.host("refused.test", [[10, 0, 0, 8]]);
    network.host("many.test", [[10, 0, 0, 8], [10, 0, 0, 7]]);
    for (why, host) in [
        ("refused", "refused.test"),
        ("refused at both addresses", "many.test"),
        ("an unknown host", "unknown.test"),
    ] {
        let mut world = World::on(network.clone(), |_| ());
        world
            .engine
            .preconnect(&format!("http://{host}").parse().unwrap());
        world.pass(Duration::from_secs(2));
        let stats = world.engine.stats();
        assert_eq!((stats.failed, stats.answered), (0, 0), "{why}");
        world.assert_nothing_left();
        world.submit(&format!("http://{host}/"));
        world.engine.run(&mut world.replies).unwrap();
        assert!(
            world.replies[0].is_err(),
            "{why}: the request makes its own attempt"
        );
    }
}

#[test]
fn the_address_filter_applies() {
    let mut world = World::new(|config| {
        config.address_filter = Some(Arc::new(|addr| addr.port() != 80));
    });
    world.engine.preconnect(&a());
    world.pass(A_WHILE);
    assert_eq!(world.network.ledger().attempts().count(), 0);
    world.assert_nothing_left();
}

#[test]
fn it_gives_up_after_the_timeouts_of_the_configuration() {
    let network = network();
    network.host("silent.test", [[10, 0, 0, 9]]);
    network.black_hole("10.0.0.9:80".parse().unwrap());
    network
        .host("slow.test", [[10, 0, 0, 9]])
        .after(Duration::from_secs(60));
    for host in ["silent.test", "slow.test"] {
        let mut world = World::on(network.clone(), |config| {
            config.timeouts.resolve = Some(Duration::from_secs(1));
            config.timeouts.connect = Some(Duration::from_secs(1));
        });
        world
            .engine
            .preconnect(&format!("http://{host}").parse().unwrap());
        world.pass(Duration::from_millis(900));
        assert_eq!(world.links(), (1, 1, 0), "{host}");
        world.pass(Duration::from_millis(200));
        world.assert_nothing_left();
    }
}

#[test]
fn it_is_idle_no_longer_than_other_connections() {
    let mut world = World::new(|config| config.idle_timeout = Duration::from_secs(5));
    world.engine.preconnect(&a());
    world.pass(Duration::from_millis(4900));
    assert_eq!(world.links(), (1, 0, 1));
    world.pass(Duration::from_millis(200));
    world.assert_nothing_left();
}

#[test]
fn it_is_not_opened_where_it_could_not_be_kept_or_would_exceed_a_limit() {
    type Change = fn(&mut Config);
    let rows: [(&str, Change); 4] = [
        ("max_connections", |config| config.max_connections = 1),
        ("max_connections_per_origin", |config| {
            config.max_connections_per_origin = 1
        }),
        ("max_idle_per_origin", |config| {
            config.max_idle_per_origin = 0
        }),
        ("idle_timeout", |config| {
            config.idle_timeout = Duration::ZERO
        }),
    ];
    for (why, change) in rows {
        let network = network();
        network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
            Answer::ok("late").after(Duration::from_secs(1))
        });
        let mut world = World::on(network, change);
        world.submit("http://a.test/");
        world.pass(A_WHILE);
        world.engine.preconnect(&a());
        world.pass(A_WHILE);
        assert_eq!(world.links(), (1, 0, 0), "{why}");
    }
}

#[test]
fn a_request_to_another_origin_gets_the_room_of_one_that_is_being_opened() {
    let network = network();
    network.host("silent.test", [[10, 0, 0, 9]]);
    network.black_hole("10.0.0.9:80".parse().unwrap());
    let mut world = World::on(network, |config| config.max_connections = 1);
    world
        .engine
        .preconnect(&"http://silent.test".parse().unwrap());
    world.pass(A_WHILE);
    assert_eq!(world.links(), (1, 1, 0));
    let info = world.fetch("http://b.test/");
    assert!(info.timings.done < Some(A_WHILE));
}

#[test]
fn nothing_is_left_of_one_that_is_cut_off_while_it_is_opened() {
    type Cut = fn(&mut Engine<Replies, Sim>);
    let cuts: [(&str, Cut); 2] = [
        ("close_idle", Engine::close_idle),
        ("network_changed", Engine::network_changed),
    ];
    for (why, cut) in cuts {
        for micros in (0..=5000).step_by(250) {
            let mut world = World::new(|_| ());
            world.engine.preconnect(&a());
            world.pass(Duration::from_micros(micros));
            let has_begun = world.links().0 == 1;
            cut(&mut world.engine);
            assert_eq!(world.links(), (0, 0, 0), "{why} {micros}");
            world.pass(A_WHILE);
            let expected = usize::from(!has_begun);
            assert_eq!(
                world.links().2,
                expected,
                "{why} {micros}: only what came after it"
            );
        }
    }
}

#[test]
fn an_engine_that_is_dropped_closes_it() {
    for micros in (0..=5000).step_by(250) {
        let mut world = World::new(|_| ());
        world.engine.preconnect(&a());
        world.pass(Duration::from_micros(micros));
        drop(world.engine);
        assert_eq!(world.network.open_fds(), 0, "{micros}");
    }
}

#[test]
fn a_drain_begins_none() {
    let mut world = World::new(|_| ());
    world.submit("http://b.test/");
    world.engine.submit(
        Request::get("http://b.test/").build().unwrap(),
        |_: &mut Replies, _, cx| {
            cx.preconnect(&"http://a.test".parse().unwrap());
            Next::done()
        },
    );
    world
        .engine
        .drain(&mut world.replies, Duration::from_secs(5))
        .unwrap();
    let ledger = world.network.ledger();
    let of_a = SocketAddr::from(([10, 0, 0, 1], 80));
    let to_a = ledger.attempts().filter(|attempt| attempt.server == of_a);
    assert_eq!(to_a.count(), 0);
}

/// The server closes the connection while it is idle, and the news has not arrived when the request
/// is sent. Such a request is sent again, as on a connection that has served others.
#[test]
fn a_request_on_one_that_the_server_has_closed_is_sent_again() {
    let mut world = World::new(|_| ());
    world.network.set_latency(Duration::from_millis(10));
    world.engine.preconnect(&a());
    world.pass(Duration::from_millis(100));
    assert_eq!(world.links(), (1, 0, 1));
    assert_eq!(world.network.close_idle_peers(), 1);
    let info = world.fetch("http://a.test/");
    assert_eq!((info.attempts, info.reused), (2, false));
    assert_eq!(world.engine.stats().retried, 1);
}

#[test]
fn origins_that_were_only_opened_ahead_are_forgotten() {
    let mut world = World::new(|config| config.max_connections = 100);
    world.network.host("*", [[10, 0, 0, 9]]);
    for round in 0..20 {
        for host in 0..500 {
            let origin = format!("http://h{round}x{host}.test").parse().unwrap();
            world.engine.preconnect(&origin);
        }
        // Nothing listens there.
        world.pass(Duration::from_secs(60));
    }
    world.pass(Duration::from_secs(1000));
    let kept = world.engine.origins().len();
    assert!(kept < 1000, "{kept} of 10,000 are kept");
    world.assert_nothing_left();
}

#[test]
fn bytes_that_answer_no_request_close_it() {
    let mut world = World::new(|_| ());
    world.engine.preconnect(&a());
    world.pass(A_WHILE);
    let connection = world.network.connections()[0];
    let forged = &b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"[..];
    assert!(world.network.push(connection, forged));
    world.pass(A_WHILE);
    world.assert_nothing_left();
}

#[test]
fn a_request_that_its_policy_refuses_leaves_it_to_the_next() {
    let refuses = on_send(|_, _| Err(Error::policy("not today")));
    let mut world = World::new(|_| ());
    world.engine.preconnect(&a());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.links(), (1, 1, 0));
    let request = Request::get("http://a.test/").policy(refuses);
    world.submit_request(request.build().unwrap());
    world.pass(Duration::ZERO);
    assert!(matches!(world.replies[..], [Err(ErrorKind::Policy)]));
    world.replies.clear();
    world.pass(A_WHILE);
    assert_eq!(world.links(), (1, 0, 1));
    world.fetch("http://a.test/");
    assert_eq!(world.engine.stats().opened, 1);
}

#[test]
fn requests_with_another_route_do_not_use_it() {
    let mut world = World::new(|_| ());
    let mut route = Route::default();
    route.nodelay = true;
    let route = Arc::new(route);
    world.engine.preconnect_by(&a(), &route);
    world.pass(A_WHILE);
    world.fetch("http://a.test/");
    assert_eq!(world.engine.stats().opened, 2);
    let request = Request::get("http://a.test/").route(Arc::clone(&route));
    world.submit_request(request.build().unwrap());
    world.engine.run(&mut world.replies).unwrap();
    assert_eq!(world.engine.stats().opened, 2);
}

#[test]
fn a_context_a_local_and_a_submitter_open_one_too() {
    type Ask = fn(&mut World);
    let asks: [(&str, Ask); 3] = [
        ("a context", |world| {
            world.engine.call(|_, cx| {
                cx.preconnect(&a());
                cx.done()
            });
        }),
        ("a local", |world| world.engine.local().preconnect(&a())),
        ("a submitter", |world| {
            world.engine.submitter().preconnect(a()).unwrap()
        }),
    ];
    for (who, ask) in asks {
        let mut world = World::new(|_| ());
        ask(&mut world);
        world.pass(A_WHILE);
        assert_eq!(world.links(), (1, 0, 1), "{who}");
    }
}

#[test]
fn a_pipeline_begins_on_one_that_is_being_opened() {
    let mut world = World::new(|config| config.pipeline_without_trial("a.test", 4));
    world.engine.preconnect(&a());
    world.pass(Duration::from_millis(1));
    for i in 0..4 {
        world.submit(&format!("http://a.test/{i}"));
    }
    world.engine.run(&mut world.replies).unwrap();
    assert_eq!(world.replies.len(), 4);
    assert_eq!(world.engine.stats().opened, 1);
}

// ---- on loopback ----

#[test]
fn on_loopback_the_server_sees_one_connection() {
    let server = Server::start(|peer| {
        while let Some(seen) = peer.request() {
            peer.send(&ok(&seen.path));
        }
    });
    let mut bench = Bench::new();
    bench.engine.preconnect(&server.url("").parse().unwrap());
    bench.until("it is idle", |engine, _| engine.stats().links_idle == 1);
    let got = bench.fetch_ok(server.get("/first"));
    assert_eq!((got.text(), got.reused), ("/first", false));
    assert_eq!(server.next().connection, 0);
    bench.assert_empty();
}

#[test]
fn on_loopback_a_server_that_sends_first_loses_the_connection() {
    let gate = Gate::new();
    let at = gate.clone();
    let server = Server::start(move |peer| {
        if peer.number == 0 {
            peer.send(&ok("unasked"));
            at.open(1);
            peer.hold();
            return;
        }
        while let Some(seen) = peer.request() {
            peer.send(&ok(&seen.path));
        }
    });
    let mut bench = Bench::new();
    bench.engine.preconnect(&server.url("").parse().unwrap());
    bench.until("it is opened", |engine, _| engine.stats().opened == 1);
    gate.pass();
    bench.until("it is closed", |engine, _| engine.stats().links_open == 0);
    assert_eq!(bench.fetch_ok(server.get("/own")).text(), "/own");
    bench.assert_empty();
}

#[test]
fn on_loopback_a_refused_or_silent_port_leaves_nothing() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = closed.local_addr().unwrap();
    drop(closed);
    let (silent, _kept) = unresponsive_listener();
    let mut bench = Bench::with(|config| {
        config.timeouts.connect = Some(Duration::from_millis(100));
    });
    for addr in [addr, silent] {
        bench
            .engine
            .preconnect(&format!("http://{addr}").parse().unwrap());
        bench
            .engine
            .turn(&mut bench.log, Some(Duration::ZERO))
            .unwrap();
        bench.until("it is gone", |engine, _| engine.stats().links_open == 0);
        assert!(bench.log.replies.is_empty());
    }
    bench.assert_empty();
}
