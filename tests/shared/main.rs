//! An engine on its host's own poll: it uses tokens that the host lends it, and gets its events
//! from the host.
#![cfg(target_os = "linux")]

#[cfg(feature = "tls")]
#[path = "../tls/certificates.rs"]
mod certificates;
#[path = "../common/mod.rs"]
mod common;
mod handing;
mod host;
#[cfg(feature = "hickory")]
mod names;
#[cfg(feature = "tls")]
#[path = "../tls/peer.rs"]
mod peer;
#[cfg(feature = "tls")]
mod secure;

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use common::{Gate, Log, Script, Server, note, ok};
use host::{FIRST, Host, LISTENER, Turns, WAKE, engine_on, smallest_window};
use httpstream::{Config, Engine, ErrorKind, Flow, Next, Reply, Request, Shared};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

/// Kinds of requests in a mixture.
const KINDS: usize = 7;
const LARGE: usize = 1 << 20;

/// Does what the path says.
pub(crate) fn server() -> Server {
    Server::by_path(LARGE)
}

/// Submits `each` requests of every kind, some of them delayed.
pub(crate) fn submit_mixture(host: &mut Host, server: &Server, each: usize) {
    let paths = ["/", "/close", "/large", "/slow", "/silent", "/reset", "/"];
    for i in 0..each * KINDS {
        let path = paths[i % KINDS];
        let total = Duration::from_millis(if path == "/silent" { 50 } else { 20_000 });
        let get = Request::get(server.url(path)).timeout(total);
        let delay = Duration::from_millis((i % 5) as u64 * 4);
        let request = get.build().unwrap();
        host.engine
            .start(host.engine.send(request).after(delay).read_by(note));
    }
}

/// Checks that all requests of a mixture have ended as expected.
pub(crate) fn assert_mixture(host: &mut Host, each: usize) {
    assert_eq!(host.log.replies.len(), each * KINDS);
    let failed = |kind| {
        let kinds = host.log.kinds();
        kinds.into_iter().filter(|found| *found == kind).count()
    };
    assert_eq!(failed(ErrorKind::Timeout), each);
    assert_eq!(failed(ErrorKind::ClosedBeforeResponse), each);
    let sizes = |size| {
        let replies = host.log.replies.iter().flatten();
        replies.filter(|got| got.body.len() == size).count()
    };
    assert_eq!((sizes(1), sizes(LARGE)), (4 * each, each));
    host.assert_empty();
}

#[test]
fn a_conversation_runs_beside_a_listener_and_a_timer_of_the_hosts_own() {
    let server = server();
    let mut host = Host::with(|c| c.max_connections_per_origin = 7);
    let mut listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let registry = host.poll.registry();
    registry
        .register(&mut listener, LISTENER, Interest::READABLE)
        .unwrap();
    let addr = listener.local_addr().unwrap();
    let visitors = std::thread::spawn(move || {
        for _ in 0..20 {
            let mut visitor = std::net::TcpStream::connect(addr).unwrap();
            let mut word = String::new();
            visitor.read_to_string(&mut word).unwrap();
            assert_eq!(word, "hello");
        }
    });
    submit_mixture(&mut host, &server, 14);
    let (mut greeted, mut ticks) = (0, 0);
    let mut next_tick = Instant::now();
    let end = next_tick + common::PATIENCE;
    while greeted < 20 || ticks < 20 || host.engine.pending() > 0 {
        assert!(Instant::now() < end, "{greeted} {ticks} {:?}", host.engine);
        host.round(next_tick.saturating_duration_since(Instant::now()));
        while host.own.pop().is_some() {
            while let Ok((mut visitor, _)) = listener.accept() {
                visitor.write_all(b"hello").unwrap();
                greeted += 1;
            }
        }
        if Instant::now() >= next_tick {
            ticks += 1;
            next_tick = Instant::now() + Duration::from_millis(5);
        }
        host.registered_by_engine();
    }
    visitors.join().unwrap();
    assert_mixture(&mut host, 14);
    assert_eq!(host.registered().len(), 2, "the waker and the listener");
}

#[test]
fn a_host_that_turns_only_when_told_loses_nothing() {
    let server = server();
    let mut host = Host::with(|c| c.max_connections_per_origin = 7);
    host.turns = Turns::WhenTold;
    submit_mixture(&mut host, &server, 14);
    let rounds = host.until("replies", |host| host.log.replies.len() == 98);
    assert!(rounds < 100_000, "busy loop: {rounds} rounds");
    assert_mixture(&mut host, 14);
}

#[test]
fn one_event_in_a_poll_is_enough() {
    let server = server();
    let mut host = Host::new();
    host.events = Events::with_capacity(1);
    submit_mixture(&mut host, &server, 14);
    host.replies(98);
    assert_mixture(&mut host, 14);
}

#[test]
fn a_thousand_requests_on_short_lived_connections_fit_into_the_smallest_window() {
    let server = server();
    let mut host = Host::with(|c| {
        c.max_connections = 3;
        c.max_connections_per_origin = 3;
    });
    assert_eq!(host.window.len(), 70);
    for _ in 0..1000 {
        host.submit(server.get("/close"));
    }
    host.until("replies", |host| {
        assert!(host.registered_by_engine() <= 3);
        host.log.replies.len() == 1000
    });
    assert!(host.log.kinds().is_empty(), "{:?}", host.log.kinds());
    assert_eq!(host.engine.stats().opened, 1000);
    host.assert_empty();
}

#[test]
fn a_window_that_is_too_small_is_refused() {
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), WAKE).unwrap());
    let engine = |tokens, connections| {
        let mut config = Config::default();
        config.max_connections = connections;
        engine_on(&poll, &waker, tokens, config)
    };
    let error = engine(FIRST..FIRST + 83, 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(
        why,
        "tokens 1000..1083 are only 83, but max_connections 10 needs at least 84"
    );
    for tokens in [0..0, 0..1] {
        let error = engine(tokens, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    }
    let error = engine(0..usize::MAX, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "no connections");
    drop(engine(usize::MAX - 84..usize::MAX, 10).unwrap());
}

#[test]
fn two_engines_live_on_one_poll_side_by_side() {
    let server = server();
    let mut one = Host::with(|c| c.max_connections = 5);
    let after = one.window.end..one.window.end + 74;
    let mut config = Config::default();
    config.max_connections = 5;
    let mut two = engine_on(&one.poll, &one.waker, after.clone(), config).unwrap();
    let mut log = Log::default();
    for _ in 0..50 {
        one.submit(server.get("/one"));
        two.submit(server.get("/close"), note);
    }
    let end = Instant::now() + common::PATIENCE;
    while one.log.replies.len() + log.replies.len() < 100 {
        assert!(Instant::now() < end);
        let wait = two.next_timeout().unwrap_or(common::PATIENCE);
        one.poll(wait);
        for event in &one.events {
            let taken = (one.engine.on_event(event), two.on_event(event));
            let token = event.token().0;
            assert!(!taken.0 || one.window.contains(&token), "{event:?}");
            assert!(!taken.1 || after.contains(&token), "{event:?}");
        }
        one.turn();
        two.turn(&mut log).unwrap();
    }
    assert_eq!((one.log.replies.len(), log.replies.len()), (50, 50));
    assert!(one.log.kinds().is_empty() && log.kinds().is_empty());
    drop(two);
    one.window.end = after.end;
    let idle = one.engine.stats().links_idle;
    assert_eq!(
        one.registered_by_engine(),
        idle,
        "only the first engine's tokens are left"
    );
    one.window.end = after.start;
    one.assert_empty();
}

#[test]
fn foreign_and_stale_events_are_not_taken() {
    let gate = Gate::new();
    let (tell, told) = channel();
    let server = {
        let gate = gate.clone();
        Server::start(move |peer| {
            while peer.request().is_some() {
                gate.pass();
                peer.send(&ok("a"));
                tell.send(()).unwrap();
            }
        })
    };
    let mut host = Host::new();
    host.submit(server.get("/stays"));
    let go = [1, 2].map(|_| host.submit(server.get("/goes")));
    host.until_seen(&server, 3);
    gate.open(3);
    for _ in 0..3 {
        told.recv_timeout(common::PATIENCE).unwrap();
    }
    host.waker.wake().unwrap();
    // Collects all answers, and the host's own wake-up, before handing over any of them.
    let (mut late, mut events) = (Vec::new(), 0);
    while events < 4 {
        host.poll(common::PATIENCE);
        events += host.events.iter().count();
        late.push(std::mem::replace(
            &mut host.events,
            Events::with_capacity(8),
        ));
    }
    for id in go {
        assert!(host.engine.cancel(id));
    }
    host.turn();
    assert_eq!(host.log.kinds(), [ErrorKind::Cancelled; 2]);
    // The next link reuses the slot of one that is gone; the other slot is free.
    host.submit(server.get("/"));
    host.turn();
    let before = host.engine.stats();
    assert_eq!(before.links_open, 2);
    let mut taken = 0;
    for events in late {
        host.events = events;
        taken += host.hand_over();
    }
    assert_eq!(taken, 1);
    assert_eq!((host.stale, host.own.as_slice()), (2, [WAKE].as_slice()));
    gate.open(1);
    host.replies(4);
    assert_eq!(host.log.texts(), ["Cancelled", "Cancelled", "a", "a"]);
    host.assert_empty();
}

#[test]
fn a_submitter_makes_the_hosts_poll_return() {
    let server = server();
    let mut host = Host::new();
    let submitter = host.engine.submitter();
    let request = server.get("/");
    let thread = std::thread::spawn(move || submitter.submit(request, note).unwrap());
    host.poll
        .poll(&mut host.events, Some(common::PATIENCE))
        .unwrap();
    assert_eq!(host.hand_over(), 0);
    assert_eq!(host.own, [WAKE]);
    thread.join().unwrap();
    assert!(
        host.engine.next_timeout().unwrap().is_zero(),
        "a turn is due"
    );
    host.replies(1);
    assert!(host.engine.stats().wakeups >= 1);
    host.assert_empty();
}

/// The host's thread may be faster than the one that wakes it.
#[test]
fn a_host_that_turns_while_it_is_being_woken_hears_of_the_order() {
    let poll = Poll::new().unwrap();
    let (tell, told) = channel();
    let turned = Gate::new();
    let wake = {
        let turned = turned.clone();
        move || {
            tell.send(()).unwrap();
            turned.pass();
        }
    };
    let mut config = Config::default();
    config.max_connections = 1;
    let window = smallest_window(1);
    let mut engine: Engine<Log, Shared> =
        Engine::on_registry(poll.registry(), window, wake, config).unwrap();
    let mut log = Log::default();
    let submitter = engine.submitter();
    let thread = std::thread::spawn(move || {
        let ordered = submitter.call(|log: &mut Log, _| {
            log.notes.push("called".to_owned());
            Next::done()
        });
        ordered.unwrap();
        // Dropping the submitter would also wake the host.
        drop(submitter);
    });
    told.recv_timeout(common::PATIENCE).unwrap();
    assert!(engine.next_timeout().unwrap().is_zero());
    engine.turn(&mut log).unwrap();
    assert_eq!(log.notes, ["called"]);
    turned.open(2);
    thread.join().unwrap();
}

#[test]
fn getaddrinfo_makes_the_hosts_poll_return() {
    let Some((name, ip)) = common::hosts_name() else {
        println!("skipped: this machine has no name except localhost");
        return;
    };
    let server = Server::on(&format!("{}", std::net::SocketAddr::new(ip, 0)), |peer| {
        while peer.answer(&ok("a")) {}
    });
    let mut host = Host::with(|c| {
        c.hosts_file = None;
        c.resolver = Some(std::sync::Arc::new(|| {
            Box::new(httpstream::resolver::System::new())
        }));
    });
    host.turns = Turns::WhenTold;
    let url = format!("http://{name}:{}/", server.addr.port());
    let got = host.fetch(Request::get(&url).build().unwrap()).unwrap();
    assert_eq!(got.text(), "a");
    assert!(host.own.contains(&WAKE));
    host.assert_empty();
}

#[test]
fn what_is_asked_for_between_turns_makes_a_turn_due() {
    let server = server();
    let mut host = Host::new();
    host.turns = Turns::WhenTold;
    let is_due = |host: &Host| {
        host.engine
            .next_timeout()
            .is_some_and(|left| left.is_zero())
    };
    assert_eq!(host.engine.next_deadline(), None);
    host.submit(server.get("/"));
    assert!(is_due(&host), "submit");
    host.replies(1);
    let id = host.submit(server.get("/silent"));
    host.quiet();
    assert!(!is_due(&host));
    assert!(host.engine.cancel(id));
    assert!(is_due(&host), "cancel");
    host.replies(2);
    let script = Script {
        head: Flow::Pause,
        ..Script::default()
    };
    let id = host.engine.submit_to(server.get("/"), script);
    host.until("it is paused", |host| host.engine.stats().paused == 1);
    host.quiet();
    assert!(!is_due(&host));
    assert!(host.engine.resume(id));
    assert!(is_due(&host), "resume");
    host.replies(3);
    assert!(host.registered_by_engine() > 0);
    host.engine.close_idle();
    assert_eq!(
        host.registered_by_engine(),
        0,
        "idle links are closed at once"
    );
    assert!(!is_due(&host));
    assert_eq!(host.log.texts(), ["a", "Cancelled", ""]);
    host.assert_empty();
}

#[test]
fn after_a_panic_the_rest_of_what_was_handed_over_comes_next() {
    let server = server();
    let mut host = Host::with(|c| c.turn_events = 3);
    for i in 0..9 {
        let readback =
            move |log: &mut Log, reply: Reply<'_>, cx: &mut httpstream::Context<'_, Log>| {
                let next = note(log, reply, cx);
                assert!(i % 2 == 1, "on purpose");
                next
            };
        host.engine.submit(server.get("/"), readback);
    }
    let end = Instant::now() + common::PATIENCE;
    let mut panics = 0;
    while host.log.replies.len() < 9 {
        assert!(Instant::now() < end);
        host.poll(common::PATIENCE);
        host.hand_over();
        let Host { engine, log, .. } = &mut host;
        let turn = catch_unwind(AssertUnwindSafe(|| engine.turn(log).unwrap()));
        panics += usize::from(turn.is_err());
    }
    assert_eq!(panics, 5);
    assert!(host.log.kinds().is_empty());
    host.assert_empty();
}

#[test]
fn an_engine_that_is_dropped_leaves_nothing_on_the_poll() {
    let gate = Gate::new();
    let server = {
        let gate = gate.clone();
        Server::start(move |peer| {
            while peer.request().is_some() {
                gate.pass();
                while peer.send(&ok(&"x".repeat(1000))) {}
            }
        })
    };
    let (unresponsive, _kept) = common::unresponsive_listener();
    let mut host = Host::new();
    for _ in 0..20 {
        host.submit(server.get("/"));
        host.submit(
            Request::get(format!("http://{unresponsive}/"))
                .build()
                .unwrap(),
        );
    }
    host.until_seen(&server, 20);
    assert!(host.registered_by_engine() > 20);
    let submitter = host.engine.submitter();
    let Host {
        engine,
        mut poll,
        mut events,
        log,
        waker,
        window,
        ..
    } = host;
    drop(engine);
    gate.open(20);
    poll.poll(&mut events, Some(Duration::from_millis(100)))
        .unwrap();
    assert!(events.is_empty(), "{events:?}");
    assert!(log.replies.is_empty(), "no readback runs");
    assert!(
        submitter.submit(server.get("/"), note).is_err(),
        "the engine is gone"
    );
    // The poll can be used again.
    let engine = engine_on(&poll, &waker, window.clone(), Config::default());
    assert!(
        engine.is_err(),
        "the default allows more connections than the window"
    );
    let mut again = Host::new();
    (again.poll, again.waker) = (poll, waker);
    let mut config = Config::default();
    config.max_connections = 64;
    again.engine = engine_on(&again.poll, &again.waker, window, config).unwrap();
    assert_eq!(again.registered(), [WAKE.0]);
    let other = crate::server();
    assert_eq!(again.fetch(other.get("/")).unwrap().text(), "a");
    again.assert_empty();
}

#[test]
fn the_hosts_poll_may_go_first() {
    let server = server();
    let mut host = Host::new();
    assert_eq!(host.fetch(server.get("/")).unwrap().text(), "a");
    host.submit(server.get("/silent"));
    host.quiet();
    let Host {
        mut engine,
        poll,
        mut log,
        ..
    } = host;
    drop(poll);
    let id = engine.submit(server.get("/"), note);
    // No events arrive any more; what needs no event still works.
    for _ in 0..3 {
        engine.turn(&mut log).unwrap();
    }
    assert!(engine.cancel(id));
    engine.turn(&mut log).unwrap();
    assert_eq!(log.kinds(), [ErrorKind::Cancelled]);
    engine.close_idle();
    drop(engine);
    assert_eq!(log.replies.len(), 1);
}

#[test]
fn an_engine_that_waits_keeps_nobody_awake() {
    let server = Server::start(|peer| {
        while let Some(seen) = peer.request() {
            match seen.path.as_str() {
                "/held" => drop(peer.hold()),
                _ => drop(peer.send(&ok(&"x".repeat(4 << 20)))),
            }
        }
    });
    let mut host = Host::with(|c| {
        c.max_connections = 200;
        c.max_connections_per_origin = 200;
    });
    host.turns = Turns::WhenTold;
    for _ in 0..50 {
        let held = Request::get(server.url("/held")).long_poll(Duration::from_secs(60));
        host.submit(held.build().unwrap());
        let script = Script {
            head: Flow::Pause,
            ..Script::default()
        };
        host.engine.submit_to(server.get("/large"), script);
    }
    host.until("all wait", |host| {
        let stats = host.engine.stats();
        stats.in_flight == 100 && stats.paused == 50
    });
    // Data for the paused responses arrives until the buffers are full.
    let end = Instant::now() + common::PATIENCE;
    loop {
        assert!(Instant::now() < end, "the engine does not come to rest");
        let turns = host.engine.stats().turns;
        host.round(Duration::from_millis(300));
        if host.engine.stats().turns == turns {
            break;
        }
    }
    assert!(host.events.is_empty(), "{:?}", host.events);
    let left = host.engine.next_timeout().unwrap();
    assert!(left > Duration::from_secs(1), "{left:?}");
    // An engine that has nothing to do is never due.
    let mut idle = Host::new();
    idle.poll(Duration::from_millis(50));
    assert!(idle.events.is_empty());
    assert_eq!(idle.engine.next_deadline(), None);
}

#[test]
fn a_chain_of_follow_ons_runs_on_the_hosts_poll() {
    let server = server();
    let mut host = Host::new();
    let mut left = 200;
    host.engine
        .submit(server.get("/"), move |log: &mut Log, reply, cx| {
            let _ = note(log, reply, cx);
            left -= 1;
            match left {
                0 => Next::done(),
                _ if left % 50 == 0 => Next::again().after(Duration::from_millis(5)),
                _ => Next::again(),
            }
        });
    host.replies(200);
    assert_eq!(host.engine.stats().opened, 1);
    assert_eq!(host.own, [] as [Token; 0]);
    assert!(host.window == smallest_window(64));
    host.assert_empty();
}
