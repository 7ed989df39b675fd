//! A late host loses no data: bytes in the kernel's buffers are read before a deadline that passed
//! in the meantime takes effect.

use crate::common;

use std::thread;
use std::time::Duration;

use common::{Bench, Gate, Server, ok};
use httpstream::{Config, Engine, ErrorKind, Next, Request, Shared};
use mio::{Events, Poll, Token, Waker};

/// The length of the deadlines, and how long the host is away.
const DEADLINE: Duration = Duration::from_millis(1000);
const AWAY: Duration = Duration::from_millis(1500);

/// The requests, and the configuration of the engine.
struct Row {
    name: &'static str,
    count: usize,
    len: usize,
    set: fn(&mut Config),
}

const ROWS: [Row; 6] = [
    Row {
        name: "large responses, over the budget of bytes",
        count: 60,
        len: 100_000,
        set: |config| config.timeouts.first_byte = Some(DEADLINE),
    },
    Row {
        name: "small responses, over the budget of events",
        count: 250,
        len: 10,
        set: |config| {
            config.timeouts.first_byte = Some(DEADLINE);
            config.turn_events = 20;
        },
    },
    Row {
        name: "one event a turn",
        count: 40,
        len: 10,
        set: |config| {
            config.timeouts.first_byte = Some(DEADLINE);
            config.turn_events = 1;
        },
    },
    Row {
        // The length is limited to what a kernel receives before the engine reads it.
        name: "the total deadline",
        count: 60,
        len: 30_000,
        set: |config| config.timeouts.total = Some(DEADLINE),
    },
    Row {
        name: "the total deadline, and few bytes a turn",
        count: 20,
        len: 30_000,
        set: |config| {
            config.timeouts.total = Some(DEADLINE);
            config.turn_bytes = 5000;
        },
    },
    Row {
        name: "the idle deadline",
        count: 60,
        len: 100_000,
        set: |config| {
            config.timeouts.idle = Some(DEADLINE);
            config.turn_bytes = 20_000;
        },
    },
];

/// A server that answers with a body of this length when its gate is open.
fn server(len: usize) -> (Server, Gate) {
    let gate = Gate::new();
    let at = gate.clone();
    let wire = ok(&"x".repeat(len));
    let server = Server::start(move |peer| {
        while peer.request().is_some() {
            at.pass();
            if !peer.send(&wire) {
                return;
            }
        }
    });
    (server, gate)
}

/// The results of the turns: the lengths of bodies, and errors.
#[derive(Debug, Default)]
struct Got {
    bodies: Vec<usize>,
    errors: Vec<String>,
}

impl Got {
    fn len(&self) -> usize {
        self.bodies.len() + self.errors.len()
    }

    fn assert_whole(&self, row: &Row, host: &str) {
        let Row {
            name, count, len, ..
        } = row;
        assert!(self.errors.is_empty(), "{host}, {name}: {:?}", self.errors);
        assert_eq!(self.bodies, vec![*len; *count], "{host}, {name}");
    }
}

fn note(got: &mut Got, reply: httpstream::Reply<'_>) {
    match reply {
        Ok(response) => got.bodies.push(response.body().len()),
        Err(error) => got.errors.push(format!("{error:#}")),
    }
}

fn config(row: &Row) -> Config {
    let mut config = Config::default();
    config.max_connections_per_origin = row.count;
    (row.set)(&mut config);
    config
}

#[test]
fn an_engine_on_its_own_poll_loses_nothing() {
    for row in &ROWS {
        let (server, gate) = server(row.len);
        let mut engine = Engine::<Got>::with_config(config(row)).unwrap();
        for _ in 0..row.count {
            engine.submit(server.get("/"), |got, reply, _| {
                note(got, reply);
                Next::done()
            });
        }
        let mut got = Got::default();
        while engine.stats().bytes_out == 0 || engine.stats().in_flight < row.count {
            engine.turn(&mut got, Some(Duration::ZERO)).unwrap();
        }
        for _ in 0..row.count {
            let _ = server.next();
        }
        gate.open(row.count);
        thread::sleep(AWAY);
        engine.run(&mut got).unwrap();
        got.assert_whole(row, "own poll");
    }
}

#[test]
fn an_engine_on_its_hosts_poll_loses_nothing() {
    for row in &ROWS {
        let (server, gate) = server(row.len);
        let mut poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let wake = move || waker.wake().unwrap();
        let mut engine = Engine::<Got, Shared>::on_registry(
            poll.registry(),
            1 << 16..1 << 20,
            wake,
            config(row),
        )
        .unwrap();
        for _ in 0..row.count {
            engine.submit(server.get("/"), |got, reply, _| {
                note(got, reply);
                Next::done()
            });
        }
        let mut got = Got::default();
        // Fewer than there are sockets with events.
        let mut events = Events::with_capacity(16);
        let mut turn = |engine: &mut Engine<Got, Shared>, got: &mut Got, wait| {
            poll.poll(&mut events, wait).unwrap();
            for event in &events {
                engine.on_event(event);
            }
            engine.turn(got).unwrap();
        };
        while engine.stats().bytes_out == 0 || engine.stats().in_flight < row.count {
            turn(&mut engine, &mut got, Some(Duration::ZERO));
        }
        for _ in 0..row.count {
            let _ = server.next();
        }
        gate.open(row.count);
        thread::sleep(AWAY);
        while got.len() < row.count {
            let wait = engine.next_timeout();
            turn(&mut engine, &mut got, wait);
        }
        got.assert_whole(row, "host's poll");
    }
}

#[cfg(feature = "tokio")]
#[test]
fn an_engine_in_a_runtime_that_was_blocked_loses_nothing() {
    for row in &ROWS {
        let (server, gate) = server(row.len);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let local = tokio::task::LocalSet::new();
        let got = local.block_on(&runtime, async {
            let client = httpstream::tokio::Client::new(config(row)).unwrap();
            let fetches: Vec<_> = (0..row.count)
                .map(|_| {
                    let (client, request) = (client.clone(), server.get("/"));
                    tokio::task::spawn_local(async move { client.fetch(request).await })
                })
                .collect();
            let mut seen = 0;
            while seen < row.count {
                tokio::time::sleep(Duration::from_millis(1)).await;
                seen += server.so_far().len();
            }
            gate.open(row.count);
            thread::sleep(AWAY);
            let mut got = Got::default();
            for fetch in fetches {
                match fetch.await.unwrap() {
                    Ok(response) => got.bodies.push(response.body().len()),
                    Err(error) => got.errors.push(format!("{error:#}")),
                }
            }
            got
        });
        got.assert_whole(row, "tokio");
    }
}

/// If a server refuses a body, the body is not sent, even though the wait for the refusal had
/// expired before the host turned, and events of other connections precede it.
#[test]
fn a_refusal_that_is_there_comes_before_the_end_of_the_wait_for_it() {
    const OTHERS: usize = 5;
    let (others, answering) = server(10);
    let refusing = Gate::new();
    let at = refusing.clone();
    let server = Server::start(move |peer| {
        if let Some(head) = peer.head() {
            peer.tell(head, Vec::new());
            at.pass();
            peer.send(
                b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
        peer.hold();
    });
    let mut bench = Bench::with(|config| config.turn_events = 1);
    for _ in 0..OTHERS {
        bench.submit(others.get("/"));
    }
    bench.until("all sent", |engine, _| {
        engine.stats().bytes_out > 0 && engine.stats().in_flight == OTHERS
    });
    for _ in 0..OTHERS {
        let _ = others.next();
    }
    let sent = bench.stats().bytes_out;
    let request = Request::post(server.url("/"))
        .header("Expect", "100-continue")
        .body(vec![0; 100_000])
        .build()
        .unwrap();
    bench.submit(request);
    bench.until("the head sent", |engine, _| engine.stats().bytes_out > sent);
    let _ = server.next();
    answering.open(OTHERS);
    thread::sleep(Duration::from_millis(100));
    refusing.open(1);
    // A client waits for one second.
    thread::sleep(Duration::from_millis(1200));
    bench.replies(OTHERS + 1);
    let replies = bench.log.replies.iter();
    let mut statuses: Vec<_> = replies
        .map(|reply| reply.as_ref().unwrap().status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 413]);
    assert!(bench.stats().bytes_out - sent < 1000, "{:?}", bench.stats());
}

/// An endlessly dripping response is still ended by its total deadline, and a silent server by the
/// deadline of its phase.
#[test]
fn deadlines_still_end_what_goes_on_and_what_does_not() {
    let server = Server::start(|peer| {
        if let Some(seen) = peer.request() {
            if seen.path == "/silent" {
                peer.hold();
            }
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
            while peer.send(&[0; 10_000]) {}
        }
    });
    let mut bench = Bench::with(|config| {
        config.timeouts.first_byte = Some(DEADLINE);
        config.timeouts.total = Some(DEADLINE * 2);
        config.limits.max_body_bytes = u64::MAX;
    });
    for (path, what) in [("/silent", "first_byte"), ("/endless", "total")] {
        let error = bench.fetch_err(server.get(path));
        assert_eq!(error.kind(), ErrorKind::Timeout, "{path}");
        assert!(format!("{error:#}").contains(what), "{path}: {error:#}");
    }
    bench.assert_empty();
}
