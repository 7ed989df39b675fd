//! How the addresses of a host race (RFC 8305): when each is dialed, which one wins, and what
//! happens to the others.
//!
//! The schedule is checked to the millisecond, in virtual time. At the end, a dead address on
//! loopback shows the same on the real loop.

use crate::common;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Bench, Server, ok, unresponsive_listener_on};
use httpstream::resolver::{Family, LookupAnswer, LookupId, Resolve, Table, Wake};
use httpstream::sim::{Answer, Fault, Faults, Incoming, Network};
use httpstream::{
    Config, Context, Engine, Error, ErrorKind, Next, Phase, Reply, Request, RequestBuilder,
    ResolverFactory, Sim,
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The name that all of these tests request.
const URL: &str = "http://race.test/";

/// Abbreviated addresses: `6a` is 2001:db8::a, `4b` is 192.0.2.11.
fn ip(name: &str) -> IpAddr {
    let number = u8::from_str_radix(&name[1..], 16).unwrap();
    match name.as_bytes()[0] {
        b'6' => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
        _ => Ipv4Addr::new(192, 0, 2, number).into(),
    }
}

fn addr(name: &str) -> SocketAddr {
    SocketAddr::new(ip(name), 80)
}

fn name(addr: SocketAddr) -> String {
    match addr.ip() {
        IpAddr::V4(ip) => format!("4{:x}", ip.octets()[3]),
        IpAddr::V6(ip) => format!("6{:x}", ip.segments()[7]),
    }
}

/// The outcome of a request, and its time.
#[derive(Debug)]
struct End {
    at: Duration,
    outcome: Result<Won, Error>,
}

#[derive(Debug)]
struct Won {
    peer: SocketAddr,
    connected: Option<Duration>,
    reused: bool,
}

/// An engine on a simulated network, and the outcomes of its requests.
struct Track {
    network: Network,
    engine: Engine<Vec<End>, Sim>,
    ends: Vec<End>,
}

impl Track {
    fn new(sites: &str) -> Self {
        Self::with(1, sites, |_| ())
    }

    /// `sites` describes each address of the host: `6a:dead 4a:serves`.
    fn with(seed: u64, sites: &str, change: impl FnOnce(&mut Config)) -> Self {
        let network = Network::new(seed);
        let mut ips = Vec::new();
        for (address, site) in sites.split(' ').filter_map(|site| site.split_once(':')) {
            ips.push(ip(address));
            place(&network, address, site);
        }
        network.host("race.test", ips);
        let mut config = Config::default();
        change(&mut config);
        let engine = Engine::on_network(&network, config).unwrap();
        Self {
            network,
            engine,
            ends: Vec::new(),
        }
    }

    fn submit(&mut self, request: RequestBuilder) -> httpstream::ChainId {
        let network = self.network.clone();
        let readback = move |ends: &mut Vec<End>, reply: Reply<'_>, _: &mut Context<'_, _>| {
            let outcome = reply.map(|response| Won {
                peer: response.info().peer,
                connected: response.info().timings.connect,
                reused: response.info().reused,
            });
            let at = network.elapsed();
            ends.push(End { at, outcome });
            Next::done()
        };
        self.engine.submit(request.build().unwrap(), readback)
    }

    fn advance_to(&mut self, at: Duration) {
        let time = at - self.network.elapsed();
        self.engine.advance(&mut self.ends, time).unwrap();
    }

    /// Sends a request and lets time pass until it has ended.
    fn fetch(&mut self, request: RequestBuilder) -> End {
        self.submit(request);
        self.run();
        self.ends.pop().unwrap()
    }

    fn run(&mut self) {
        self.engine.run(&mut self.ends).unwrap();
    }

    /// Returns the attempts since the last call, as `6a@1 4a@251`, in milliseconds.
    fn attempts(&self) -> String {
        let ledger = self.network.ledger();
        self.network.clear_ledger();
        let attempts = ledger.attempts().map(|attempt| {
            let whole = attempt.begun.subsec_micros() % 1000 == 0;
            let millis = attempt.begun.as_millis();
            format!(
                "{}@{millis}{}",
                name(attempt.server),
                if whole { "" } else { "+" }
            )
        });
        attempts.collect::<Vec<_>>().join(" ")
    }

    /// Checks that no submission is left, and that the network saw no misuse.
    fn assert_empty(&mut self) {
        self.engine.close_idle();
        self.engine.turn(&mut self.ends).unwrap();
        assert_eq!(self.engine.pending(), 0);
        assert_eq!(self.engine.stats().links_open, 0);
        assert_eq!(self.network.open_fds(), 0, "a socket is left");
        assert_eq!(self.engine.next_deadline(), None, "a timer is left");
        assert_eq!(self.network.misuses(), []);
    }
}

fn place(network: &Network, address: &str, site: &str) {
    let addr = addr(address);
    match site {
        "serves" => drop(network.serve(addr, |_: &Incoming| Answer::ok("a"))),
        "dead" => network.black_hole(addr),
        "refuses" => network.refuse(addr),
        "unreachable" => network.unreachable(addr),
        other => panic!("{other:?}: unknown kind of site"),
    }
}

fn get() -> RequestBuilder {
    Request::get(URL)
}

/// Returns how each address failed, as `6a: no answer; 4a: refused`.
fn failures(error: &Error) -> String {
    let each = error.addresses().iter().map(|(addr, error)| {
        let why = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "refused".to_owned(),
            _ => error.to_string(),
        };
        format!("{}: {why}", name(*addr))
    });
    each.collect::<Vec<_>>().join("; ")
}

/// A race in which some address answers.
struct Row {
    why: &'static str,
    sites: &'static str,
    /// How long the lookups take.
    v4: u64,
    v6: u64,
    /// The duration of a whole round trip.
    latency: Duration,
    attempts: &'static str,
    won: &'static str,
}

const PLAIN: Row = Row {
    why: "",
    sites: "",
    v4: 1,
    v6: 1,
    latency: Duration::from_millis(1),
    attempts: "",
    won: "",
};

#[test]
fn every_attempt_has_its_time() {
    let rows = [
        Row {
            why: "IPv6 comes first",
            sites: "4a:serves 6a:serves",
            attempts: "6a@1",
            won: "6a@2",
            ..PLAIN
        },
        Row {
            why: "the next address is dialed after 250 ms",
            sites: "6a:dead 4a:serves",
            attempts: "6a@1 4a@251",
            won: "4a@252",
            ..PLAIN
        },
        Row {
            why: "families alternate",
            sites: "6a:dead 6b:dead 6c:serves 4a:dead 4b:dead",
            attempts: "6a@1 4a@251 6b@501 4b@751 6c@1001",
            won: "6c@1002",
            ..PLAIN
        },
        Row {
            why: "when one family is exhausted the other continues",
            sites: "6a:dead 4a:dead 4b:dead 4c:serves",
            attempts: "6a@1 4a@251 4b@501 4c@751",
            won: "4c@752",
            ..PLAIN
        },
        Row {
            why: "after a failure the next is dialed at once",
            sites: "6a:refuses 4a:serves",
            attempts: "6a@1 4a@2",
            won: "4a@3",
            ..PLAIN
        },
        Row {
            why: "and its delay starts then",
            sites: "6a:refuses 4a:dead 6b:serves",
            attempts: "6a@1 4a@2 6b@252",
            won: "6b@253",
            ..PLAIN
        },
        Row {
            why: "a later failure, too, while an earlier one is unanswered",
            sites: "6a:dead 4a:refuses 6b:refuses 4b:serves",
            attempts: "6a@1 4a@251 6b@252 4b@253",
            won: "4b@254",
            ..PLAIN
        },
        Row {
            why: "IPv4 waits for IPv6, which comes in time",
            sites: "6a:serves 4a:serves",
            v6: 50,
            attempts: "6a@50",
            won: "6a@51",
            ..PLAIN
        },
        Row {
            why: "IPv4 waits no longer than 50 ms",
            sites: "6a:serves 4a:serves",
            v6: 100,
            attempts: "4a@51",
            won: "4a@52",
            ..PLAIN
        },
        Row {
            why: "IPv4 waits only until IPv6 is known to be absent",
            sites: "4a:serves",
            v6: 31,
            attempts: "4a@31",
            won: "4a@32",
            ..PLAIN
        },
        Row {
            why: "a late IPv6 address takes its turn",
            sites: "6a:serves 4a:dead 4b:dead",
            v6: 200,
            attempts: "4a@51 6a@301",
            won: "6a@302",
            ..PLAIN
        },
        Row {
            why: "a late IPv6 address is dialed at once if it is due",
            sites: "6a:serves 4a:dead",
            v6: 400,
            attempts: "4a@51 6a@400",
            won: "6a@401",
            ..PLAIN
        },
        Row {
            why: "a late IPv6 address is dialed at once if the others failed",
            sites: "6a:serves 4a:refuses",
            v6: 400,
            attempts: "4a@51 6a@400",
            won: "6a@401",
            ..PLAIN
        },
        Row {
            why: "IPv6 does not wait for IPv4",
            sites: "6a:serves 4a:serves",
            v4: 500,
            attempts: "6a@1",
            won: "6a@2",
            ..PLAIN
        },
        Row {
            why: "a late IPv4 address joins the race",
            sites: "6a:dead 4a:serves",
            v4: 100,
            attempts: "6a@1 4a@251",
            won: "4a@252",
            ..PLAIN
        },
        Row {
            why: "a very late IPv4 address joins the race",
            sites: "6a:dead 4a:serves",
            v4: 4000,
            attempts: "6a@1 4a@4000",
            won: "4a@4001",
            ..PLAIN
        },
        Row {
            why: "the first to connect wins, though others were dialed since",
            sites: "6a:serves 4a:serves 6b:serves",
            latency: Duration::from_millis(600),
            attempts: "6a@1 4a@251 6b@501",
            won: "6a@601",
            ..PLAIN
        },
        Row {
            why: "a failure at the time of the next attempt causes no third",
            sites: "6a:refuses 4a:serves 6b:serves",
            latency: Duration::from_millis(250),
            attempts: "6a@1 4a@251",
            won: "4a@501",
            ..PLAIN
        },
    ];
    for row in rows {
        let why = row.why;
        let mut track = Track::new(row.sites);
        track.network.set_latency(row.latency / 2);
        let ips: Vec<_> = row.sites.split(' ').map(|site| ip(&site[..2])).collect();
        let host = track.network.host("race.test", ips);
        drop(host.after(ms(row.v4)).after_v6(ms(row.v6)));
        let end = track.fetch(get());
        let won = end.outcome.expect(why);
        let won_at = format!("{}@{}", name(won.peer), won.connected.unwrap().as_millis());
        assert_eq!(track.attempts(), row.attempts, "{why}");
        assert_eq!(won_at, row.won, "{why}");
        assert_eq!(track.network.open_fds(), 1, "{why}: the losers are closed");
        // Errors of the losers must not affect the winner.
        let again = track.fetch(get()).outcome.expect(why);
        assert!(again.reused, "{why}");
        assert_eq!(track.attempts(), "", "{why}");
        assert_eq!(track.engine.stats().opened, 1, "{why}: one connection");
        // By now, answers for the losers have arrived.
        track.advance_to(ms(10_000));
        track.assert_empty();
    }
}

#[test]
fn what_a_loser_was_told_is_not_the_winners() {
    let calls = |sites| {
        let mut track = Track::new(sites);
        track.fetch(get()).outcome.unwrap();
        let calls = track.network.system_calls() - track.engine.stats().turns;
        track.assert_empty();
        calls
    };
    // Apart from waits, the loser costs socket, connect, register, a send in vain, one that returns
    // the refusal, deregister and close.
    assert_eq!(calls("6a:refuses 4a:serves"), calls("4a:serves") + 7);
}

#[test]
fn an_unreachable_address_costs_no_time() {
    let mut begun = [0, 0];
    for seed in 0..20 {
        let mut track = Track::with(seed, "6a:unreachable 4a:serves", |_| ());
        track.fetch(get()).outcome.unwrap();
        // `connect` fails either at once, or after a round trip.
        match &*track.attempts() {
            "6a@1 4a@1" => begun[0] += 1,
            "6a@1 4a@2" => begun[1] += 1,
            other => panic!("{other}"),
        }
        track.assert_empty();
    }
    assert!(begun[0] > 0 && begun[1] > 0, "{begun:?}");
}

#[test]
fn a_race_that_nobody_wins_names_every_address() {
    // The sites, when the request ends in milliseconds, how, and the failure of each address.
    let rows = [
        (
            "6a:dead 4a:dead",
            10_001,
            ErrorKind::Timeout,
            "6a: no answer; 4a: no answer",
        ),
        (
            "6a:refuses 4a:refuses",
            3,
            ErrorKind::Connect,
            "6a: refused; 4a: refused",
        ),
        (
            "6a:dead 4a:refuses",
            10_001,
            ErrorKind::Timeout,
            "4a: refused; 6a: no answer",
        ),
        (
            "6a:refuses 4a:dead",
            10_001,
            ErrorKind::Timeout,
            "6a: refused; 4a: no answer",
        ),
        ("6a:refuses", 2, ErrorKind::Connect, "6a: refused"),
        ("4a:refuses", 2, ErrorKind::Connect, "4a: refused"),
        ("4a:dead", 10_001, ErrorKind::Timeout, "4a: no answer"),
    ];
    for (sites, at, kind, said) in rows {
        let mut track = Track::new(sites);
        let end = track.fetch(get());
        let error = end.outcome.unwrap_err();
        assert_eq!(end.at, ms(at), "{sites}");
        assert_eq!((error.kind(), error.phase()), (kind, Phase::Connect));
        assert_eq!(failures(&error), said, "{sites}");
        assert!(error.resend_is_safe());
        let text = format!("{error:#}");
        for (addr, _) in error.addresses() {
            assert!(text.contains(&addr.to_string()), "{text}");
        }
        if kind == ErrorKind::Timeout {
            assert!(text.contains("connect timeout of 10s"), "{text}");
        }
        track.assert_empty();
    }
}

#[test]
fn the_connect_deadline_is_that_of_all_addresses_together() {
    let mut track = Track::new("6a:dead 6b:dead 4a:dead 4b:dead");
    let end = track.fetch(get().timeouts(|t| t.connect = Some(ms(600))));
    assert_eq!(
        end.at,
        ms(601),
        "the deadline begins with the first attempt"
    );
    // The fourth address was never dialed, so the error does not mention it.
    assert_eq!(
        failures(&end.outcome.unwrap_err()),
        "6a: no answer; 4a: no answer; 6b: no answer"
    );
    track.assert_empty();
}

#[test]
fn what_failed_lately_goes_last_for_a_minute() {
    let mut track = Track::new("6a:dead 4a:serves");
    track.fetch(get().close()).outcome.unwrap();
    assert_eq!(track.attempts(), "6a@1 4a@251");
    // It was overtaken at 252 ms; each lookup takes 1 ms.
    track.advance_to(ms(60_250));
    track.fetch(get().close()).outcome.unwrap();
    assert_eq!(track.attempts(), "4a@60251");
    let mut track = Track::new("6a:dead 4a:serves");
    track.fetch(get().close()).outcome.unwrap();
    track.attempts();
    track.advance_to(ms(60_251));
    track.fetch(get().close()).outcome.unwrap();
    assert_eq!(track.attempts(), "6a@60252 4a@60502");
    track.assert_empty();
}

#[test]
fn what_failed_lately_is_tried_all_the_same() {
    let mut track = Track::new("6a:refuses 4a:serves");
    track.fetch(get().close()).outcome.unwrap();
    assert_eq!(track.attempts(), "6a@1 4a@2");
    place(&track.network, "6a", "serves");
    place(&track.network, "4a", "dead");
    track.advance_to(ms(1000));
    let won = track.fetch(get().close()).outcome.unwrap();
    assert_eq!(won.peer, addr("6a"));
    assert_eq!(track.attempts(), "4a@1001 6a@1251");
    // This address has connected, so it is no longer doubted; the other one is.
    let ips = ["6a", "4a", "4b"].map(ip);
    drop(track.network.host("race.test", ips));
    place(&track.network, "4b", "serves");
    track.advance_to(ms(2000));
    track.fetch(get().close()).outcome.unwrap();
    assert_eq!(track.attempts(), "6a@2001");
    for address in ["6a", "4b"] {
        place(&track.network, address, "dead");
    }
    track.advance_to(ms(3000));
    let error = track
        .fetch(get().timeouts(|t| t.connect = Some(ms(1000))))
        .outcome
        .unwrap_err();
    assert_eq!(track.attempts(), "6a@3001 4b@3251 4a@3501");
    assert_eq!(
        failures(&error),
        "6a: no answer; 4b: no answer; 4a: no answer"
    );
    track.assert_empty();
}

#[test]
fn a_doubted_ipv6_address_gives_ipv4_time_to_be_known() {
    let mut track = Track::new("6a:refuses 4a:serves");
    track.fetch(get().close()).outcome.unwrap();
    track.attempts();
    for (v4, attempts) in [(30, "4a@1030"), (100, "6a@2051 4a@2100")] {
        let ips = [ip("6a"), ip("4a")];
        drop(
            track
                .network
                .host("race.test", ips)
                .after(ms(v4))
                .after_v6(ms(1)),
        );
        track.advance_to(ms(if v4 == 30 { 1000 } else { 2000 }));
        track.fetch(get().close()).outcome.unwrap();
        assert_eq!(track.attempts(), attempts);
    }
    track.assert_empty();
}

#[test]
fn requests_with_little_time_get_past_a_dead_address() {
    for limit in [
        |t: &mut httpstream::Timeouts| t.total = Some(ms(200)),
        |t: &mut httpstream::Timeouts| t.connect = Some(ms(200)),
    ] {
        let mut track = Track::new("6a:dead 4a:serves");
        let error = track.fetch(get().timeouts(limit)).outcome.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Timeout, Phase::Connect)
        );
        assert_eq!(failures(&error), "6a: no answer");
        let won = track.fetch(get().timeouts(limit)).outcome.unwrap();
        assert_eq!(won.peer, addr("4a"));
        track.assert_empty();
    }
}

#[test]
fn addresses_that_are_kept_race_without_a_look_up() {
    let mut track = Track::new("6a:dead 4a:serves 4b:serves");
    let ips = ["6a", "4a", "4b"].map(ip);
    let host = track.network.host("race.test", ips).after(ms(100));
    drop(host.ttl(Duration::from_secs(120)));
    track.fetch(get().close()).outcome.unwrap();
    assert_eq!(track.attempts(), "6a@100 4a@350");
    // Once while the first address is doubted, and once after that.
    track.advance_to(ms(1000));
    track.fetch(get().close()).outcome.unwrap();
    assert_eq!(track.attempts(), "4a@1000");
    track.advance_to(ms(61_000));
    track.fetch(get().close()).outcome.unwrap();
    assert_eq!(track.attempts(), "6a@61000 4a@61250");
    // After its TTL, the name is looked up again.
    track.advance_to(ms(120_100));
    track.fetch(get().close()).outcome.unwrap();
    assert_eq!(track.attempts(), "4a@120200");
    track.assert_empty();
}

#[test]
fn cancelled_in_the_middle_nothing_is_left() {
    // The sites, how long the lookups take, when the request is canceled, and how many sockets
    // exist by then.
    let rows = [
        ("6a:dead 4a:dead", (1, 1), 300, 2, Phase::Connect),
        ("6a:dead 4a:dead 6b:dead", (1, 1), 100, 1, Phase::Connect),
        ("6a:dead", (500, 1), 300, 1, Phase::Connect),
        ("4a:dead", (1, 500), 20, 0, Phase::Resolve),
        ("4a:dead", (1, 500), 100, 1, Phase::Connect),
        ("6a:dead 4a:dead", (500, 500), 100, 0, Phase::Resolve),
    ];
    for (sites, (v4, v6), at, sockets, phase) in rows {
        for cancels in [true, false] {
            let mut track = Track::new(sites);
            let ips: Vec<_> = sites.split(' ').map(|site| ip(&site[..2])).collect();
            let host = track.network.host("race.test", ips);
            drop(host.after(ms(v4)).after_v6(ms(v6)));
            let id = track.submit(get());
            track.advance_to(ms(at));
            assert_eq!(track.network.open_fds(), sockets, "{sites} at {at} ms");
            if !cancels {
                // Dropping the engine releases everything as well.
                let Track {
                    network, engine, ..
                } = track;
                drop(engine);
                assert_eq!((network.open_fds(), network.misuses()), (0, vec![]));
                continue;
            }
            assert!(track.engine.cancel(id));
            track.run();
            let error = track.ends.pop().unwrap().outcome.unwrap_err();
            assert_eq!((error.kind(), error.phase()), (ErrorKind::Cancelled, phase));
            track.assert_empty();
        }
    }
}

#[test]
fn one_connection_at_most_races_with_several_sockets() {
    let mut track = Track::with(1, "6a:dead 4a:serves", |c| c.max_connections = 1);
    track.submit(get());
    track.submit(get());
    track.advance_to(ms(251));
    assert_eq!(track.network.open_fds(), 2);
    assert_eq!(track.engine.stats().links_open, 1);
    track.run();
    assert_eq!(track.attempts(), "6a@1 4a@251");
    let stats = track.engine.stats();
    assert_eq!((stats.opened, stats.reused, stats.answered), (1, 1, 2));
    track.assert_empty();
}

#[test]
fn two_connections_to_one_host_race_side_by_side() {
    let mut track = Track::new("6a:dead 4a:serves");
    track.submit(get());
    track.submit(get());
    track.run();
    assert_eq!(track.attempts(), "6a@1 6a@1 4a@251 4a@251");
    let ended: Vec<_> = track.ends.drain(..).collect();
    assert!(ended.iter().all(|end| end.outcome.is_ok()), "{ended:?}");
    assert_eq!(track.engine.stats().opened, 2);
    track.assert_empty();
}

#[test]
fn a_dead_address_gives_its_descriptor_to_the_next() {
    let mut track = Track::new("6a:dead 4a:serves");
    track.network.limit_fds(1);
    let won = track.fetch(get()).outcome.unwrap();
    assert_eq!(won.peer, addr("4a"));
    assert_eq!(track.attempts(), "6a@1 4a@251");
    assert_eq!(track.engine.stats().opened, 1);
    track.assert_empty();

    // If the first attempt is given up in time, it releases its descriptor anyway.
    let mut track = Track::new("6a:refuses 4a:serves");
    track.network.set_latency(ms(50));
    track.network.limit_fds(1);
    track.fetch(get()).outcome.unwrap();
    assert_eq!(track.attempts(), "6a@1 4a@101");
    track.assert_empty();

    // The last address to be dialed keeps the descriptor, and the error says how each attempt
    // ended.
    let mut track = Track::new("6a:dead 4a:dead 4b:dead");
    track.network.limit_fds(2);
    let end = track.fetch(get());
    assert_eq!(end.at, ms(10_001));
    assert_eq!(track.attempts(), "6a@1 4a@251 4b@501");
    assert_eq!(
        failures(&end.outcome.unwrap_err()),
        "6a: no answer, and no file descriptor left to wait for one; 4a: no answer; 4b: no answer"
    );
    track.assert_empty();
}

#[test]
fn an_attempt_without_a_port_is_made_when_there_is_one() {
    let no_port = || Faults::none().with(Fault::NoPort, 1000);
    let mut track = Track::new("6a:dead 4a:serves");
    track.submit(get());
    track.advance_to(ms(100));
    track.network.set_faults(no_port());
    track.advance_to(ms(600));
    assert_eq!(track.attempts(), "6a@1");
    assert_eq!(track.network.open_fds(), 1, "the first attempt continues");
    track.network.set_faults(Faults::none());
    track.run();
    assert_eq!(track.attempts(), "4a@751");
    assert!(track.ends.pop().unwrap().outcome.is_ok());
    track.assert_empty();

    // No port becomes free. The error names only addresses that were dialed, and the others are not
    // doubted.
    let mut track = Track::new("6a:dead 4a:serves");
    track.submit(get());
    track.advance_to(ms(100));
    track.network.set_faults(no_port());
    track.run();
    let end = track.ends.pop().unwrap();
    assert_eq!(end.at, ms(10_001));
    let error = end.outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(failures(&error), "6a: no answer");
    track.network.set_faults(Faults::none());
    track.attempts();
    track.fetch(get()).outcome.unwrap();
    assert_eq!(track.attempts(), "4a@10002");
    track.assert_empty();
}

#[test]
fn an_idle_connection_gives_its_descriptor_to_a_race() {
    let mut track = Track::new("6a:dead 4a:serves");
    place(&track.network, "4f", "serves");
    track
        .fetch(Request::get("http://192.0.2.15/"))
        .outcome
        .unwrap();
    track.network.limit_fds(2);
    assert_eq!(track.engine.stats().links_idle, 1);
    track.advance_to(ms(99));
    track.attempts();
    let won = track.fetch(get()).outcome.unwrap();
    assert_eq!(won.peer, addr("4a"));
    assert_eq!(track.attempts(), "6a@100 4a@350");
    assert_eq!(track.network.open_fds(), 1);
    track.assert_empty();
}

#[test]
fn the_losers_sockets_make_room_at_once() {
    let mut track = Track::new("6a:dead 4a:serves");
    place(&track.network, "4f", "serves");
    track.network.limit_fds(2);
    track.submit(get());
    track.advance_to(Duration::from_micros(251_200));
    track.submit(Request::get("http://192.0.2.15/"));
    track.run();
    assert_eq!(track.attempts(), "6a@1 4a@251 4f@252");
    assert!(track.ends.iter().all(|end| end.outcome.is_ok()));
    track.assert_empty();
}

/// Answers IPv6 lookups at once, and IPv4 lookups only at the next question, whether or not they
/// are still wanted.
#[derive(Clone, Debug, Default)]
struct Belated {
    late: Vec<LookupId>,
    ready: VecDeque<(LookupId, LookupAnswer)>,
    cancelled: Arc<Mutex<Vec<LookupId>>>,
}

impl Resolve for Belated {
    fn attach(&mut self, _: Wake) {}
    fn start(&mut self, _: &str, family: Family, id: LookupId) {
        let answer = |name| LookupAnswer::found([ip(name)]);
        match family {
            Family::V6 => {
                for late in self.late.drain(..) {
                    self.ready.push_back((late, answer("4a")));
                }
                self.ready.push_back((id, answer("6a")));
            }
            Family::V4 => self.late.push(id),
        }
    }
    fn cancel(&mut self, id: LookupId) {
        self.cancelled.lock().unwrap().push(id);
    }
    fn on_tick(&mut self, _: Instant) {}
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
        self.ready.pop_front()
    }
}

#[test]
fn an_answer_after_the_race_is_nobodys() {
    let belated = Belated::default();
    let cancelled = Arc::clone(&belated.cancelled);
    let mut track = Track::with(1, "6a:serves 4a:dead", |c| {
        c.resolver = Some(common::resolver(belated));
    });
    for round in 1..=3 {
        let won = track.fetch(get().close()).outcome.unwrap();
        assert_eq!(won.peer, addr("6a"));
        assert_eq!(
            cancelled.lock().unwrap().len(),
            round,
            "the IPv4 lookup is canceled"
        );
    }
    assert!(!track.attempts().contains("4a"));
    track.assert_empty();
}

// ---- on the real loop ----

/// Returns a live IPv4 server, and the listener of an IPv6 address with the same port that accepts
/// no connection; `None` without IPv6.
fn half_dead() -> Option<(Server, impl Sized)> {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: no IPv6 on loopback");
        return None;
    }
    for _ in 0..100 {
        let server = Server::answering(ok("a"));
        // Another test may use the port in this family.
        let dead = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), server.addr.port());
        if let Ok((_, kept)) = unresponsive_listener_on(dead) {
            return Some((server, kept));
        }
    }
    panic!("no port is free in both families");
}

fn both_families() -> ResolverFactory {
    let mut table = Table::new();
    let (v6, v4) = (Ipv6Addr::LOCALHOST, Ipv4Addr::LOCALHOST);
    table.insert("race.test", [IpAddr::from(v6), IpAddr::from(v4)]);
    common::resolver(table)
}

/// Sends a request on a connection of its own, and returns when that was established.
fn time_to_connect(engine: &mut Engine<Option<Duration>>, url: &str) -> Duration {
    let request = Request::get(url).fresh_connection().close();
    engine.submit(request.build().unwrap(), |connected, reply, _| {
        let response = reply.expect("an answer");
        assert!(response.info().peer.is_ipv4());
        *connected = response.info().timings.connect;
        Next::done()
    });
    let mut connected = None;
    engine.run(&mut connected).unwrap();
    connected.expect("the readback ran")
}

/// This measures time. A single try may be late on a busy machine, the median of several is not.
#[test]
fn a_dead_ipv6_address_costs_a_quarter_of_a_second_once() {
    let Some((server, _kept)) = half_dead() else {
        return;
    };
    let url = format!("http://race.test:{}/", server.addr.port());
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut config = Config::default();
        config.resolver = Some(both_families());
        let mut engine = Engine::with_config(config).unwrap();
        first.push(time_to_connect(&mut engine, &url));
        assert_eq!(engine.stats().opened, 1);
        second.push(time_to_connect(&mut engine, &url));
        assert_eq!(engine.stats().opened, 2);
    }
    first.sort();
    second.sort();
    println!("connected after {first:?}, the next time after {second:?}");
    assert!(first[0] >= ms(250), "the dead address is dialed first");
    assert!(first[2] < ms(400), "{first:?}");
    assert!(
        second[2] < ms(250),
        "the dead address is not doubted: {second:?}"
    );
}

#[test]
fn two_dead_addresses_are_both_told_of_by_the_deadline() {
    let Ok((v6, _kept)) = unresponsive_listener_on(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0))
    else {
        println!("skipped: no IPv6 on loopback");
        return;
    };
    let v4 = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), v6.port());
    let Ok((v4, _kept)) = unresponsive_listener_on(v4) else {
        // Another test uses the port, so the address may answer: try again.
        return two_dead_addresses_are_both_told_of_by_the_deadline();
    };
    let mut bench = Bench::with(|c| c.resolver = Some(both_families()));
    let url = format!("http://race.test:{}/", v6.port());
    let request = Request::get(&url).timeouts(|t| t.connect = Some(ms(600)));
    let begin = Instant::now();
    let error = bench.fetch_err(request.build().unwrap());
    assert!(begin.elapsed() >= ms(600), "the deadline is early");
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Timeout, Phase::Connect)
    );
    let told: Vec<_> = error
        .addresses()
        .iter()
        .map(|(addr, why)| (*addr, why.to_string()))
        .collect();
    let silent = "no answer".to_owned();
    assert_eq!(told, [(v6, silent.clone()), (v4, silent)]);
    bench.assert_empty();
}
