//! Names in the whole engine: the hosts file, zone ids, and lookups that are shared, limited,
//! cached and stale.

use crate::common;

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Bench, Log, Server, ok};
use httpstream::resolver::{Family, LookupAnswer, LookupError, LookupId, Resolve, Wake};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Engine, ErrorKind, Phase, Request, Sim};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A resolver with a script. The answers for each name are returned in order, in the turn after the
/// question or on command.
#[derive(Clone, Debug, Default)]
struct Scripted(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    /// Answers to `A`. `AAAA` is answered with no data, or with the same failure.
    answers: HashMap<&'static str, VecDeque<LookupAnswer>>,
    asked: Vec<(Family, String)>,
    held: VecDeque<(LookupId, LookupAnswer)>,
    ready: VecDeque<(LookupId, LookupAnswer)>,
    holds: bool,
    wake: Option<Wake>,
}

impl Scripted {
    fn new(answers: impl IntoIterator<Item = (&'static str, Vec<LookupAnswer>)>) -> Self {
        let scripted = Self::default();
        let answers = answers
            .into_iter()
            .map(|(host, answers)| (host, answers.into()));
        scripted.0.lock().unwrap().answers = answers.collect();
        scripted
    }

    /// Makes answers wait until they are released.
    fn holding(self) -> Self {
        self.0.lock().unwrap().holds = true;
        self
    }

    /// Returns the number of lookups in progress.
    fn under_way(&self) -> usize {
        self.0.lock().unwrap().held.len()
    }

    fn let_one_go(&self) {
        let mut script = self.0.lock().unwrap();
        let answer = script.held.pop_front();
        script.ready.extend(answer);
        script.wake.as_ref().unwrap().wake();
    }

    fn asked(&self) -> usize {
        self.0.lock().unwrap().asked.len()
    }
}

impl Resolve for Scripted {
    fn attach(&mut self, wake: Wake) {
        self.0.lock().unwrap().wake = Some(wake);
    }

    fn start(&mut self, host: &str, family: Family, id: LookupId) {
        let mut script = self.0.lock().unwrap();
        script.asked.push((family, host.to_owned()));
        let answer = match (script.answers.get_mut(host), family) {
            (None, _) => LookupAnswer::failed(LookupError::NotFound),
            (Some(answers), Family::V4) => answers.pop_front().expect("no further answer"),
            (Some(answers), Family::V6) => {
                let next = answers.front().expect("no further answer");
                let none = next.addresses.clone().map(|_| Vec::new());
                let mut answer = next.clone();
                answer.addresses = none;
                answer
            }
        };
        match script.holds {
            true => script.held.push_back((id, answer)),
            false => script.ready.push_back((id, answer)),
        }
    }

    fn cancel(&mut self, id: LookupId) {
        let mut script = self.0.lock().unwrap();
        script.held.retain(|(held, _)| *held != id);
        script.ready.retain(|(ready, _)| *ready != id);
    }

    fn on_tick(&mut self, _: Instant) {}

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
        self.0.lock().unwrap().ready.pop_front()
    }
}

fn found(addr: SocketAddr, ttl: Duration) -> LookupAnswer {
    LookupAnswer::found([addr.ip()]).kept_for(ttl)
}

fn broken() -> LookupAnswer {
    LookupAnswer::failed(LookupError::Failed("SERVFAIL".to_owned()))
}

/// A request with a connection of its own.
fn get(url: &str) -> Request {
    Request::get(url)
        .fresh_connection()
        .close()
        .build()
        .unwrap()
}

/// A temporary hosts file.
struct Hosts(PathBuf);

impl Hosts {
    fn new(test: &str, text: &str) -> Self {
        let name = format!("httpstream-hosts-{test}-{}", std::process::id());
        let hosts = Self(std::env::temp_dir().join(name));
        hosts.write(text);
        hosts
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

// ---- on loopback ----

#[test]
fn a_hosts_file_is_read_again_when_it_changes() {
    if TcpListener::bind("127.0.0.2:0").is_err() {
        println!("skipped: 127.0.0.2 is not an address of this machine");
        return;
    }
    // Another test may use the first server's port at the second address.
    let (first, _second) = (0..100)
        .find_map(|_| {
            let first = Server::start(|peer| while peer.answer(&ok("first")) {});
            let second = format!("127.0.0.2:{}", first.addr.port());
            TcpListener::bind(&second).ok()?;
            let answers = |peer: &mut common::Peer| while peer.answer(&ok("second")) {};
            Some((first, Server::on(&second, answers)))
        })
        .expect("no port is free at both addresses");
    let port = first.addr.port();
    let hosts = Hosts::new("changes", "127.0.0.1 h.test\n");
    let resolver = Scripted::default();
    let asked = resolver.clone();
    let mut bench = Bench::with(|c| {
        c.hosts_file = Some(hosts.0.clone());
        c.resolver = Some(common::resolver(resolver));
    });
    let url = format!("http://H.test:{port}/");
    assert_eq!(bench.fetch_ok(get(&url)).text(), "first");
    hosts.write("127.0.0.2 h.test\n");
    let end = Instant::now() + common::PATIENCE;
    while bench.fetch_ok(get(&url)).text() != "second" {
        assert!(
            Instant::now() < end,
            "the change is not noticed within a second"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(
        bench
            .fetch_ok(get(&format!("http://h.test.:{port}/")))
            .text(),
        "second"
    );
    assert_eq!(
        asked.asked(),
        0,
        "nothing is looked up, not even for the other family"
    );
    hosts.write("");
    let end = Instant::now() + common::PATIENCE;
    let error = loop {
        match bench.fetch(get(&url)) {
            Ok(_) => assert!(
                Instant::now() < end,
                "the change is not noticed within a second"
            ),
            Err(error) => break error,
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Resolve, Phase::Resolve)
    );
    assert_eq!(asked.asked(), 2);
    bench.assert_empty();
}

/// Returns the processor time of this thread.
fn computed() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn a_large_hosts_file_that_changes_holds_no_turn_up() {
    // A release build takes a fraction of this time.
    const LONGEST_TURN: Duration =
        Duration::from_millis(if cfg!(debug_assertions) { 60 } else { 25 });
    // The first is read whole; the end of the other is not read.
    for megabytes in [4, 50] {
        // Cache misses caused by other programs count as processor time here, so repeat the
        // measurement.
        let mut longest = longest_turn_with_hosts(megabytes);
        for _ in 0..2 {
            if longest > LONGEST_TURN {
                longest = longest_turn_with_hosts(megabytes);
            }
        }
        assert!(longest <= LONGEST_TURN, "{megabytes} MB: {longest:?}");
        println!("{megabytes} MB: the longest turn took {longest:?}");
    }
}

/// Returns the processor time of the longest turn while a hosts file of this size is read again.
fn longest_turn_with_hosts(megabytes: usize) -> Duration {
    let first = Server::start(|peer| while peer.answer(&ok("first")) {});
    let port = first.addr.port();
    let list: String = (0..)
        .map(|n| format!("0.0.0.0 ad-{n}.tracking.test\n"))
        .take(megabytes << 15)
        .collect();
    assert!(list.len() > megabytes << 19);
    let hosts = Hosts::new(
        &format!("large-{megabytes}"),
        &format!("127.0.0.1 h.test\n{list}"),
    );
    let mut bench = Bench::with(|c| {
        c.hosts_file = Some(hosts.0.clone());
        c.resolver = Some(common::resolver(Scripted::default()));
    });
    let url = format!("http://h.test:{port}/");
    assert_eq!(bench.fetch_ok(get(&url)).text(), "first");
    let early = if megabytes == 4 {
        ""
    } else {
        "127.0.0.1 new.test\n"
    };
    let late = if megabytes == 4 {
        "127.0.0.1 new.test\n"
    } else {
        ""
    };
    hosts.write(&format!("{early}127.0.0.1 h.test\n{list}{late}"));
    let (mut longest, end) = (Duration::ZERO, Instant::now() + common::PATIENCE);
    let mut turn = |bench: &mut Bench| {
        assert!(
            Instant::now() < end,
            "the change is not noticed within a second"
        );
        let before = computed();
        bench
            .engine
            .turn(&mut bench.log, Some(Duration::from_millis(10)))
            .unwrap();
        longest = longest.max(computed() - before);
    };
    // The old contents are used until the new file has been read completely.
    for (host, expected) in [("h.test", "first"), ("new.test", "first")] {
        loop {
            bench.submit(get(&format!("http://{host}:{port}/")));
            while bench.log.replies.is_empty() {
                turn(&mut bench);
            }
            match bench.log.replies.remove(0) {
                Ok(got) => break assert_eq!(got.text(), expected),
                Err(error) => {
                    assert_eq!((host, error.kind()), ("new.test", ErrorKind::Resolve));
                    turn(&mut bench);
                }
            }
        }
    }
    longest
}

#[test]
fn an_address_with_a_zone_id_is_dialled_and_the_zone_is_not_sent() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let server = Server::on("[::1]:0", |peer| while peer.answer(&ok("a")) {});
    let port = server.addr.port();
    let mut bench = Bench::new();
    let mut zones = vec!["1"];
    match std::fs::exists("/sys/class/net/lo") {
        Ok(true) => zones.push("lo"),
        Ok(false) | Err(_) => println!("skipped in part: no interface \"lo\""),
    }
    for zone in zones {
        bench.fetch_ok(get(&format!("http://[::1%25{zone}]:{port}/a")));
        let head = server.next().head;
        assert!(head.starts_with("GET /a HTTP/1.1\r\n"), "{head}");
        assert!(
            head.contains(&format!("\r\nHost: [::1]:{port}\r\n")),
            "{head}"
        );
        assert!(!head.contains('%'), "{head}");
    }
    let error = bench.fetch_err(get("http://[fe80::1%25no-such-if]/"));
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Resolve, Phase::Resolve)
    );
    let text = format!("{error:#}");
    assert!(
        text.contains("no network interface \"no-such-if\""),
        "{text}"
    );
    assert!(text.contains("http://[fe80::1%25no-such-if]"), "{text}");
    bench.assert_empty();
}

#[test]
fn addresses_that_differ_in_their_zone_share_no_connection() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let server = Server::on("[::1]:0", |peer| while peer.answer(&ok("a")) {});
    let mut bench = Bench::new();
    for (zone, reused) in [("1", false), ("1", true), ("2", false)] {
        let url = format!("http://[::1%25{zone}]:{}/", server.addr.port());
        let got = bench.fetch_ok(Request::get(&url).build().unwrap());
        assert_eq!(got.reused, reused, "zone {zone}");
    }
    bench.assert_empty();
}

#[test]
fn a_crowd_asks_once_and_keeps_the_answer_for_its_ttl() {
    let server = Server::start(|peer| while peer.answer(&ok("a")) {});
    let answers = vec![found(server.addr, MINUTE)];
    let resolver = Scripted::new([("h.test", answers)]).holding();
    let mut bench = Bench::with(|c| c.resolver = Some(common::resolver(resolver.clone())));
    let url = format!("http://h.test:{}/", server.addr.port());
    for _ in 0..100 {
        bench.submit(get(&url));
    }
    bench.until("all wait", |engine, _| engine.stats().links_dialing == 100);
    assert_eq!(resolver.asked(), 2, "one lookup each for AAAA and A");
    resolver.let_one_go();
    resolver.let_one_go();
    bench.replies(100);
    assert!(bench.log.replies.iter().all(Result::is_ok));
    // A further lookup would panic, because the script has no more answers.
    bench.log.replies.clear();
    bench.fetch_ok(get(&url));
    assert_eq!(resolver.asked(), 2);
    bench.assert_empty();
}

#[test]
fn a_crowd_of_names_is_asked_for_through_a_window() {
    let server = Server::start(|peer| while peer.answer(&ok("a")) {});
    let resolver = Scripted::default().holding();
    let mut bench = Bench::with(|c| {
        c.max_lookups = 5;
        c.resolver = Some(common::resolver(resolver.clone()));
    });
    for n in 0..50 {
        bench.submit(get(&format!("http://{n}.test:{}/", server.addr.port())));
    }
    bench.until("all wait", |engine, _| engine.stats().links_dialing == 50);
    for answered in 0..100 {
        assert_eq!(resolver.under_way(), 5.min(100 - answered));
        resolver.let_one_go();
        let due = 6 + answered;
        bench.until("the next one is asked", |_, _| {
            resolver.asked() >= due.min(100)
        });
    }
    bench.replies(50);
    assert!(
        bench
            .log
            .kinds()
            .iter()
            .all(|kind| *kind == ErrorKind::Resolve)
    );
    let asked = std::mem::take(&mut resolver.0.lock().unwrap().asked);
    for (n, pair) in asked.chunks(2).enumerate() {
        let expected = [Family::V6, Family::V4].map(|family| (family, format!("{n}.test")));
        assert_eq!(
            pair, expected,
            "first in, first out, both families together"
        );
    }
    bench.assert_empty();
}

#[test]
fn a_window_of_nothing_is_refused() {
    let mut config = Config::default();
    config.max_lookups = 0;
    let error = Engine::<()>::with_config(config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(format!("{error:#}").contains("max_lookups"), "{error:#}");
}

#[test]
fn an_answer_whose_ttl_is_over_serves_where_no_other_is_to_be_had() {
    let server = Server::start(|peer| while peer.answer(&ok("a")) {});
    let url = format!("http://h.test:{}/", server.addr.port());
    // Expired as soon as it arrives.
    let answers = || vec![found(server.addr, Duration::from_nanos(1)), broken()];
    let resolver = Scripted::new([("h.test", answers())]);
    let mut bench = Bench::with(|c| c.resolver = Some(common::resolver(resolver.clone())));
    for asked in [2, 4, 4] {
        assert_eq!(bench.fetch_ok(get(&url)).text(), "a");
        assert_eq!(
            resolver.asked(),
            asked,
            "after a failure there is no lookup for half a minute"
        );
    }
    bench.assert_empty();
    // Switched off.
    let resolver = Scripted::new([("h.test", answers())]);
    let mut bench = Bench::with(|c| {
        c.resolver = Some(common::resolver(resolver));
        c.keep_stale_names = Duration::ZERO;
    });
    assert_eq!(bench.fetch_ok(get(&url)).text(), "a");
    let error = bench.fetch_err(get(&url));
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Resolve, Phase::Resolve)
    );
    assert!(format!("{error:#}").contains("SERVFAIL"), "{error:#}");
    bench.assert_empty();
}

// ---- in virtual time ----

/// A network on which `h.test` is `10.0.0.1`, and each address answers with itself.
struct World {
    network: Network,
    engine: Engine<Log, Sim>,
    log: Log,
}

impl World {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let network = Network::new(1);
        for ip in ["10.0.0.1", "10.0.0.2"] {
            let addr = format!("{ip}:80").parse().unwrap();
            network.serve(addr, move |_: &Incoming| Answer::ok(ip));
        }
        let mut config = Config::default();
        change(&mut config);
        let engine = Engine::on_network(&network, config).unwrap();
        let log = Log::default();
        Self {
            network,
            engine,
            log,
        }
    }

    /// Returns the answer of `h.test`, and how long it took.
    fn fetch(&mut self) -> (String, Duration) {
        let before = self.network.elapsed();
        self.engine.submit(get("http://h.test/"), common::note);
        self.engine.run(&mut self.log).unwrap();
        let text = self.log.texts().pop().unwrap();
        self.log.replies.clear();
        (text, self.network.elapsed() - before)
    }

    fn says(&mut self) -> String {
        self.fetch().0
    }

    fn pass(&mut self, time: Duration) {
        self.engine.advance(&mut self.log, time).unwrap();
    }
}

#[test]
fn a_name_moves_when_its_ttl_is_over() {
    let mut world = World::new(|_| ());
    world.network.host("h.test", [[10, 0, 0, 1]]).ttl(MINUTE);
    assert_eq!(world.says(), "10.0.0.1");
    world.network.host("h.test", [[10, 0, 0, 2]]).ttl(MINUTE);
    world.pass(MINUTE / 2);
    assert_eq!(world.says(), "10.0.0.1");
    world.pass(MINUTE / 2);
    assert_eq!(world.says(), "10.0.0.2");
}

#[test]
fn a_name_without_a_ttl_moves_at_once() {
    let mut world = World::new(|_| ());
    world.network.host("h.test", [[10, 0, 0, 1]]);
    assert_eq!(world.says(), "10.0.0.1");
    world.network.host("h.test", [[10, 0, 0, 2]]);
    assert_eq!(world.says(), "10.0.0.2");
}

#[test]
fn names_are_not_kept_where_that_is_switched_off() {
    let mut world = World::new(|c| c.keep_names = Duration::ZERO);
    world.network.host("h.test", [[10, 0, 0, 1]]).ttl(MINUTE);
    assert_eq!(world.says(), "10.0.0.1");
    world.network.host("h.test", [[10, 0, 0, 2]]).ttl(MINUTE);
    assert_eq!(world.says(), "10.0.0.2");
}

#[test]
fn servers_of_names_that_are_down_for_an_hour_are_not_missed() {
    let mut world = World::new(|_| ());
    world.network.host("h.test", [[10, 0, 0, 1]]).ttl(MINUTE);
    assert_eq!(world.says(), "10.0.0.1");
    let timeout = LookupError::Timeout("10.0.0.53:53".to_owned());
    world
        .network
        .host_fails("h.test", timeout)
        .after(5 * SECOND);
    world.pass(MINUTE);
    let (text, time) = world.fetch();
    assert_eq!(text, "10.0.0.1");
    let patience = Duration::from_millis(1800);
    assert!((patience..patience + SECOND).contains(&time), "{time:?}");
    let (text, time) = world.fetch();
    assert_eq!(text, "10.0.0.1");
    assert!(time < SECOND, "the second request does not wait: {time:?}");
    world.pass(60 * MINUTE);
    assert_eq!(world.says(), "10.0.0.1");
    // The server is back, at another address. The late lookup delivers the answer to the next
    // request.
    world
        .network
        .host("h.test", [[10, 0, 0, 2]])
        .ttl(MINUTE)
        .after(5 * SECOND);
    world.pass(MINUTE);
    assert_eq!(world.says(), "10.0.0.1");
    world.pass(5 * SECOND);
    let (text, time) = world.fetch();
    assert_eq!(text, "10.0.0.2");
    assert!(time < SECOND, "{time:?}");
}

#[test]
fn a_simulation_sees_nothing_of_the_machine_it_runs_on() {
    let hosts = Hosts::new("simulation", "10.0.0.2 h.test\n");
    let mut world = World::new(|c| c.hosts_file = Some(hosts.0.clone()));
    assert_eq!(world.says(), "Resolve");
    world.network.host("h.test", [[10, 0, 0, 1]]);
    assert_eq!(world.says(), "10.0.0.1");
    world
        .engine
        .submit(get("http://[fe80::1%25lo]/"), common::note);
    world.engine.run(&mut world.log).unwrap();
    assert_eq!(
        world.log.texts(),
        ["Resolve"],
        "a simulation has no interfaces"
    );
}
