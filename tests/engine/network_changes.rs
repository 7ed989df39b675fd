//! Knowledge about one network is not applied to the next, and one timeout is enough to give up all
//! connections on a dead path.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::common;
use common::{Bench, Gate, Server, ok};
use httpstream::resolver::{Family, LookupAnswer, LookupId, Resolve, Table, Wake};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Engine, ErrorKind, Next, Request, Sim};

const DEADLINE: Duration = Duration::from_millis(200);

/// A server that answers while its gate is open. Connections that were opened earlier are silent
/// from a certain time on.
fn going_silent() -> (Server, Gate) {
    let gate = Gate::new();
    let at = gate.clone();
    let server = Server::start(move |peer| {
        if peer.number < 6 {
            if let Some(seen) = peer.request() {
                at.pass();
                peer.send(&ok(&seen.path));
            }
            peer.hold();
        }
        while let Some(seen) = peer.request() {
            peer.send(&ok(&seen.path));
        }
    });
    (server, gate)
}

#[test]
fn six_silent_connections_cost_one_timeout() {
    let (server, gate) = going_silent();
    let mut bench = Bench::with(|config| config.timeouts.first_byte = Some(DEADLINE));
    for i in 0..6 {
        bench.submit(server.get(&format!("/{i}")));
    }
    bench.until("six are sent", |engine, _| engine.stats().in_flight == 6);
    gate.open(6);
    bench.replies(6);
    bench.log.replies.clear();
    assert_eq!(bench.stats().links_idle, 6);

    let error = bench.fetch_err(server.get("/timeout"));
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.reused_connection());
    assert_eq!(bench.stats().links_idle, 0, "{:?}", bench.stats());
    for path in ["/a", "/b", "/c"] {
        assert_eq!(bench.fetch_ok(server.get(path)).text(), path);
    }
    assert_eq!(bench.stats().opened, 7);
    bench.assert_empty();
}

/// A connection that has answered in the meantime is not closed because of another's silence.
#[test]
fn a_connection_that_answered_meanwhile_is_kept() {
    let server = Server::start(|peer| {
        while let Some(seen) = peer.request() {
            if seen.path == "/silent" {
                peer.hold();
            }
            peer.send(&ok(&seen.path));
        }
    });
    let mut bench = Bench::with(|config| config.timeouts.first_byte = Some(DEADLINE));
    bench.submit(server.get("/0"));
    bench.submit(server.get("/1"));
    bench.replies(2);
    bench.log.replies.clear();
    bench.submit(server.get("/silent"));
    bench.until("it is sent", |engine, _| engine.stats().in_flight == 1);
    std::thread::sleep(Duration::from_millis(20));
    // This uses the other connection, which was idle just as long.
    assert_eq!(bench.fetch_ok(server.get("/alive")).text(), "/alive");
    bench.replies(1);
    let error = bench.log.replies.pop().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(bench.stats().links_idle, 1);
    assert_eq!(bench.fetch_ok(server.get("/again")).text(), "/again");
    assert_eq!(bench.stats().opened, 2);
    bench.assert_empty();
}

/// A table whose answers may be cached, and which counts its lookups.
#[derive(Debug)]
struct Counting {
    table: Table,
    asked: Rc<Cell<usize>>,
    told: Rc<Cell<usize>>,
}

impl Resolve for Counting {
    fn attach(&mut self, wake: Wake) {
        self.table.attach(wake);
    }
    fn start(&mut self, host: &str, family: Family, id: LookupId) {
        self.asked.set(self.asked.get() + 1);
        self.table.start(host, family, id);
    }
    fn cancel(&mut self, id: LookupId) {
        self.table.cancel(id);
    }
    fn on_tick(&mut self, now: Instant) {
        self.table.on_tick(now);
    }
    fn deadline(&self) -> Option<Instant> {
        self.table.deadline()
    }
    fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
        let (id, answer) = self.table.take()?;
        Some((id, answer.kept_for(Duration::from_secs(3600))))
    }
    fn on_network_changed(&mut self) {
        self.told.set(self.told.get() + 1);
    }
}

thread_local! {
    static ASKED: Rc<Cell<usize>> = Rc::default();
    static TOLD: Rc<Cell<usize>> = Rc::default();
}

#[test]
fn on_another_network_connections_and_names_are_new() {
    let gate = Gate::new();
    let at = gate.clone();
    let server = Server::start(move |peer| {
        while let Some(seen) = peer.request() {
            if seen.path == "/held" {
                at.pass();
            }
            peer.send(&ok(&seen.path));
        }
    });
    let ip = server.addr.ip();
    let mut bench = Bench::with(|config| {
        config.hosts_file = None;
        // The table is created on the engine's thread, which is this one.
        config.resolver = Some(std::sync::Arc::new(move || {
            let mut table = Table::new();
            table.insert("h.test", [ip]);
            let (asked, told) = (ASKED.with(Rc::clone), TOLD.with(Rc::clone));
            Box::new(Counting { table, asked, told })
        }));
    });
    let (asked, told) = (ASKED.with(Rc::clone), TOLD.with(Rc::clone));
    let get = |path: &str| {
        let url = format!("http://h.test:{}{path}", server.addr.port());
        httpstream::Request::get(&url).build().unwrap()
    };
    assert_eq!(bench.fetch_ok(get("/a")).text(), "/a");
    let first = asked.get();
    assert!(first > 0);
    bench.submit(get("/held"));
    bench.until("it is sent", |engine, _| engine.stats().reused == 1);
    assert_eq!(bench.fetch_ok(get("/b")).text(), "/b");
    assert_eq!(
        (bench.stats().opened, asked.get()),
        (2, first),
        "the name is cached"
    );

    bench.engine.network_changed();
    assert_eq!(told.get(), 1);
    assert_eq!((bench.stats().links_open, bench.stats().links_idle), (1, 0));
    assert_eq!(bench.fetch_ok(get("/c")).text(), "/c");
    assert_eq!(bench.stats().opened, 3);
    assert_eq!(asked.get(), 2 * first, "the name is looked up again");
    // An exchange under way ends on its connection, which is not used again.
    gate.open(1);
    bench.replies(1);
    assert_eq!(bench.log.replies.pop().unwrap().unwrap().text(), "/held");
    assert_eq!(bench.stats().links_open, 1);
    bench.assert_empty();
}

#[test]
fn a_handshake_under_way_when_the_server_is_stopped_is_refused() {
    let network = Network::new(1);
    network.host("a.test", [[10, 0, 0, 1]]);
    network.set_latency(Duration::from_millis(50));
    let addr = "10.0.0.1:80".parse().unwrap();
    let _ = network.serve(addr, |_: &Incoming| Answer::ok("never"));
    let mut engine =
        Engine::<Vec<ErrorKind>, Sim>::on_network(&network, Config::default()).unwrap();
    engine.submit(
        Request::get("http://a.test/").build().unwrap(),
        |log, reply, _| {
            log.push(reply.unwrap_err().kind());
            Next::done()
        },
    );
    let mut log = Vec::new();
    engine.advance(&mut log, Duration::from_millis(60)).unwrap();
    assert_eq!(network.stop(addr), 0, "nothing is established yet");
    engine.advance(&mut log, Duration::from_secs(1)).unwrap();
    assert_eq!(log, [ErrorKind::Connect]);
    assert!(network.connections().is_empty());
}
