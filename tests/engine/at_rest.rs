//! Bytes that arrive on a connection between two exchanges are never taken for the next response,
//! and a connection that has ended is not used (RFC 9112 §9.2, §9.3.1). This holds whenever the
//! host polls: before a turn, during it, or after a slow readback.

use crate::common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Gate, ok};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Context, Engine, Next, Reply, Request, Shared, Sim};
use mio::{Events, Poll, Token, Waker};

/// The server's action on a connection after its first answer.
#[derive(Clone, Copy, Debug)]
struct Act {
    name: &'static str,
    bytes: &'static [u8],
    ends: bool,
}

const ACTS: [Act; 9] = [
    Act {
        name: "an end",
        bytes: b"",
        ends: true,
    },
    Act {
        name: "408 and an end",
        bytes:
            b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate",
        ends: true,
    },
    Act {
        name: "408",
        bytes: b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nlate",
        ends: false,
    },
    Act {
        name: "an unsolicited response",
        bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
        ends: false,
    },
    Act {
        name: "an interim response",
        bytes: b"HTTP/1.1 103 Early Hints\r\n\r\n",
        ends: false,
    },
    Act {
        name: "an empty line",
        bytes: b"\r\n",
        ends: false,
    },
    Act {
        name: "the end of a chunked body",
        bytes: b"0\r\n\r\n",
        ends: false,
    },
    Act {
        name: "a byte",
        bytes: b"H",
        ends: false,
    },
    Act {
        name: "half a head",
        bytes: b"HTTP/1.1 200 OK\r\nContent-",
        ends: false,
    },
];

/// A server that answers the first request of its first connection, and performs its action when
/// the gate opens. All other requests are answered with their path.
struct Rude {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    cue: Cue,
}

/// Triggers the server's action, and waits until it is done. On loopback, the written bytes have
/// then arrived.
#[derive(Clone)]
struct Cue {
    gate: Gate,
    acted: Arc<AtomicUsize>,
}

impl Cue {
    fn give(&self) {
        self.gate.open(1);
        let end = Instant::now() + Duration::from_secs(20);
        while self.acted.load(Ordering::SeqCst) == 0 {
            assert!(Instant::now() < end, "the server did not act");
            thread::sleep(Duration::from_millis(1));
        }
        // The engine does not check a connection again within a millisecond.
        thread::sleep(Duration::from_millis(3));
    }
}

impl Rude {
    fn start(act: Option<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let cue = Cue {
            gate: Gate::new(),
            acted: Arc::default(),
        };
        let for_peers = cue.clone();
        thread::spawn(move || {
            for peer in listener.incoming() {
                let cue = (count.fetch_add(1, Ordering::SeqCst) == 0).then(|| for_peers.clone());
                thread::spawn(move || serve(peer.unwrap(), act, cue));
            }
        });
        Self {
            addr,
            connections,
            cue,
        }
    }

    fn request(&self, method: &str, path: &str) -> Request {
        let url = format!("http://{}{path}", self.addr);
        match method {
            "GET" => Request::get(&url).build(),
            _ => Request::post(&url).body("body").build(),
        }
        .unwrap()
    }
}

fn serve(mut peer: TcpStream, act: Option<Act>, cue: Option<Cue>) {
    let Some(path) = read_request(&mut peer) else {
        return;
    };
    peer.write_all(&ok(&path)).unwrap();
    if let Some(cue) = cue {
        cue.gate.pass();
        if let Some(act) = act {
            peer.write_all(act.bytes).unwrap();
            if act.ends {
                peer.shutdown(std::net::Shutdown::Write).unwrap();
            }
        }
        cue.acted.store(1, Ordering::SeqCst);
    }
    while let Some(path) = read_request(&mut peer) {
        if peer.write_all(&ok(&path)).is_err() {
            return;
        }
    }
}

/// Reads a request and returns its path. A POST has a body of four bytes.
fn read_request(peer: &mut TcpStream) -> Option<String> {
    let mut seen = Vec::new();
    let mut buf = [0; 1024];
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && (!head.starts_with("POST") || body.len() >= 4)
        {
            return head.split(' ').nth(1).map(str::to_owned);
        }
        match peer.read(&mut buf) {
            Ok(0) | Err(_) => return None,
            Ok(n) => seen.extend_from_slice(&buf[..n]),
        }
    }
}

/// When the next request is submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// By the host, which then turns.
    BeforeATurn,
    /// By the readback of an exchange with another origin, whose event is in the same batch.
    InATurn,
    /// As the follow-on of a slow readback.
    BehindSlowWork,
    /// By a slow readback of another origin, after the poll has returned.
    InSlowWork,
}

const WHENS: [When; 4] = [
    When::BeforeATurn,
    When::InATurn,
    When::BehindSlowWork,
    When::InSlowWork,
];

/// The state of a run.
#[derive(Default)]
struct Seen {
    bodies: Vec<Result<(u16, String), String>>,
    /// The request that the readback of the other origin submits.
    next: Option<Request>,
    /// The server action that the readback triggers before that.
    work: Option<Cue>,
}

fn note(seen: &mut Seen, reply: Reply<'_>, _: &mut Context<'_, Seen>) -> Next<Seen> {
    seen.bodies.push(match reply {
        Ok(response) => {
            let text = String::from_utf8_lossy(response.body()).into_owned();
            Ok((response.status().as_u16(), text))
        }
        Err(error) => Err(format!("{error:#}")),
    });
    Next::done()
}

fn work_and_submit(seen: &mut Seen, reply: Reply<'_>, cx: &mut Context<'_, Seen>) -> Next<Seen> {
    reply.unwrap();
    if let Some(cue) = seen.work.take() {
        cue.give();
    }
    cx.submit(seen.next.take().unwrap(), note);
    Next::done()
}

fn work_and_follow(seen: &mut Seen, reply: Reply<'_>, _: &mut Context<'_, Seen>) -> Next<Seen> {
    reply.unwrap();
    seen.work.take().unwrap().give();
    Next::send(seen.next.take().unwrap()).read_by(note)
}

/// An engine in either mode.
trait Host {
    fn submit(
        &mut self,
        request: Request,
        readback: impl FnMut(&mut Seen, Reply<'_>, &mut Context<'_, Seen>) -> Next<Seen> + 'static,
    );
    fn turn(&mut self, seen: &mut Seen);
    fn stats(&self) -> httpstream::Stats;
}

struct Own(Engine<Seen>);

impl Host for Own {
    fn submit(
        &mut self,
        request: Request,
        readback: impl FnMut(&mut Seen, Reply<'_>, &mut Context<'_, Seen>) -> Next<Seen> + 'static,
    ) {
        self.0.submit(request, readback);
    }

    fn turn(&mut self, seen: &mut Seen) {
        self.0.turn(seen, Some(Duration::from_millis(5))).unwrap();
    }

    fn stats(&self) -> httpstream::Stats {
        self.0.stats()
    }
}

struct OnHostsPoll {
    engine: Engine<Seen, Shared>,
    poll: Poll,
    events: Events,
}

impl OnHostsPoll {
    fn new(config: Config) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let wake = move || waker.wake().unwrap();
        let engine = Engine::on_registry(poll.registry(), 1 << 16..1 << 20, wake, config).unwrap();
        let events = Events::with_capacity(64);
        Self {
            engine,
            poll,
            events,
        }
    }
}

impl Host for OnHostsPoll {
    fn submit(
        &mut self,
        request: Request,
        readback: impl FnMut(&mut Seen, Reply<'_>, &mut Context<'_, Seen>) -> Next<Seen> + 'static,
    ) {
        self.engine.submit(request, readback);
    }

    fn turn(&mut self, seen: &mut Seen) {
        let most = Duration::from_millis(5);
        let wait = self
            .engine
            .next_timeout()
            .map_or(most, |wait| wait.min(most));
        self.poll.poll(&mut self.events, Some(wait)).unwrap();
        for event in &self.events {
            self.engine.on_event(event);
        }
        self.engine.turn(seen).unwrap();
    }

    fn stats(&self) -> httpstream::Stats {
        self.engine.stats()
    }
}

fn until(host: &mut impl Host, seen: &mut Seen, what: &str, is_done: impl Fn(&Seen) -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_done(seen) {
        assert!(Instant::now() < end, "{what}: {:?}", host.stats());
        host.turn(seen);
    }
}

/// Returns the second response, and the number of connections that the two requests took.
fn second(
    mut host: impl Host,
    act: Option<Act>,
    when: When,
    method: &str,
) -> (Result<(u16, String), String>, usize, u64) {
    let rude = Rude::start(act);
    // The other origin answers on command.
    let other_cue = Cue {
        gate: Gate::new(),
        acted: Arc::default(),
    };
    let other = common::Server::start({
        let cue = other_cue.clone();
        move |peer| {
            while peer.request().is_some() {
                cue.gate.pass();
                peer.send(&ok("other"));
                cue.acted.store(1, Ordering::SeqCst);
            }
        }
    });
    let what = format!("{act:?} {when:?} {method}");
    let mut seen = Seen {
        next: Some(rude.request(method, "/second")),
        ..Seen::default()
    };
    if when == When::BehindSlowWork {
        seen.work = Some(rude.cue.clone());
        host.submit(rude.request("GET", "/first"), work_and_follow);
    } else {
        host.submit(rude.request("GET", "/first"), note);
        until(&mut host, &mut seen, &what, |seen| seen.bodies.len() == 1);
        assert_eq!(seen.bodies.pop().unwrap(), Ok((200, "/first".to_owned())));
        match when {
            When::BeforeATurn => {
                rude.cue.give();
                let next = seen.next.take().unwrap();
                host.submit(next, note);
            }
            When::InATurn => {
                host.submit(other.get("/"), work_and_submit);
                for _ in 0..3 {
                    host.turn(&mut seen);
                }
                let _ = other.next();
                // Its event comes first, then that of the idle connection.
                other_cue.give();
                rude.cue.give();
            }
            When::InSlowWork => {
                seen.work = Some(rude.cue.clone());
                host.submit(other.get("/"), work_and_submit);
                other_cue.gate.open(1);
            }
            When::BehindSlowWork => unreachable!("handled above"),
        }
    }
    while when == When::InATurn && seen.next.is_some() {
        host.turn(&mut seen);
    }
    until(&mut host, &mut seen, &what, |seen| seen.bodies.len() == 1);
    let connections = rude.connections.load(Ordering::SeqCst);
    let retried = host.stats().retried;
    (seen.bodies.pop().unwrap(), connections, retried)
}

fn all_rows(what: &str, host: impl Fn() -> Box<dyn FnOnce(Option<Act>, When, &str) -> Outcome>) {
    let right = Ok((200, "/second".to_owned()));
    for when in WHENS {
        for method in ["GET", "POST"] {
            for act in ACTS {
                let (got, connections, retried) = host()(Some(act), when, method);
                let row = format!("{what}: {method} {when:?} after {}", act.name);
                assert_eq!(got, right, "{row}");
                assert_eq!((connections, retried), (2, 0), "{row}");
            }
            let (got, connections, _) = host()(None, when, method);
            assert_eq!(got, right, "{what}: {method} {when:?} after nothing");
            assert_eq!(connections, 1, "{what}: {method} {when:?} after nothing");
        }
    }
}

type Outcome = (Result<(u16, String), String>, usize, u64);

#[test]
fn what_comes_at_rest_is_no_answer_on_the_engines_own_poll() {
    all_rows("own poll", || {
        Box::new(|act, when, method| second(Own(Engine::new().unwrap()), act, when, method))
    });
}

#[test]
fn what_comes_at_rest_is_no_answer_on_the_hosts_poll() {
    all_rows("host's poll", || {
        Box::new(|act, when, method| second(OnHostsPoll::new(Config::default()), act, when, method))
    });
}

#[test]
fn what_comes_at_rest_is_no_answer_where_a_turn_deals_with_one_event() {
    all_rows("one event a turn", || {
        Box::new(|act, when, method| {
            let mut config = Config::default();
            config.turn_events = 1;
            let engine = Engine::with_config(config).unwrap();
            second(Own(engine), act, when, method)
        })
    });
}

/// Requests that may be pipelined pass the same check.
#[test]
fn what_comes_at_rest_is_no_answer_to_pipelined_requests() {
    all_rows("pipelined", || {
        Box::new(|act, when, method| {
            let mut config = Config::default();
            config.pipeline("*", 16);
            let engine = Engine::with_config(config).unwrap();
            second(Own(engine), act, when, method)
        })
    });
}

/// A chain that continues at once costs no check; a submission between two turns costs one.
#[test]
fn looking_costs_a_call_only_where_it_can_tell_something() {
    const COUNT: u64 = 200;
    let network = Network::new(1);
    network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
        Answer::ok("here")
    });
    let request = Request::get("http://10.0.0.1/").build().unwrap();
    let mut engine = Engine::<u64, Sim>::on_network(&network, Config::default()).unwrap();
    let besides_waits = |engine: &Engine<u64, Sim>| network.system_calls() - engine.stats().turns;
    engine.submit(request.clone(), |left, reply, _| {
        reply.unwrap();
        *left -= 1;
        match *left {
            0 => Next::done(),
            _ => Next::again(),
        }
    });
    let mut left = COUNT;
    engine.run(&mut left).unwrap();
    let before = besides_waits(&engine);
    // Socket, connect, register, a send that comes too early and the local address; then a send and
    // a read for each request.
    assert_eq!(before, 5 + 2 * COUNT);

    for _ in 0..COUNT {
        engine.submit(request.clone(), |left, reply, _| {
            reply.unwrap();
            *left += 1;
            Next::done()
        });
        engine.run(&mut left).unwrap();
    }
    assert_eq!((left, engine.stats().opened), (COUNT, 1));
    let calls = besides_waits(&engine) - before;
    assert_eq!(calls, 3 * COUNT, "a check, a send, a read");
}
