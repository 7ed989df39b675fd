//! A forked process does not harm its parent's engine by dropping it, and may have engines of its
//! own. This is a program of its own, since forking a process that runs other tests is unsafe.
#![cfg(unix)]
#![allow(unsafe_code, reason = "fork")]

mod common;
#[cfg(feature = "hickory")]
#[path = "dns/server.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the resolver's own tests, and each uses a part of it"
)]
mod names;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Bench, Gate, Log, Server, ok};
use httpstream::mio::{Events, Poll};
use httpstream::{Config, Engine, Shared};

/// Has names looked up at a server that answers when `may` allows it. The returned function says
/// whether the server was queried.
#[cfg(feature = "hickory")]
fn look_up(config: &mut Config, may: &Gate) -> Box<dyn Fn() -> bool> {
    use httpstream::resolver::{Hickory, HickoryConfig};

    let may = may.clone();
    let server = names::NameServer::start(move |question, back| {
        may.pass();
        back.send(&question.addresses(60, &[LOOPBACK]));
    });
    let mut names = HickoryConfig::default();
    names.servers = vec![server.addr];
    names.timeout = std::time::Duration::from_secs(15);
    names.attempts = 1;
    config.hosts_file = None;
    config.resolver = Some(Arc::new(move || {
        Box::new(Hickory::with_config(names.clone()))
    }));
    // It reads the second question only after it has answered the first.
    Box::new(move || !server.seen().is_empty())
}

#[cfg(not(feature = "hickory"))]
fn look_up(config: &mut Config, _: &Gate) -> Box<dyn Fn() -> bool> {
    let mut table = httpstream::resolver::Table::new();
    table.insert("name.test", [LOOPBACK]);
    config.resolver = Some(Arc::new(move || Box::new(table.clone())));
    Box::new(|| true)
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A host with an engine on its own poll.
struct Host {
    poll: Poll,
    engine: Engine<Log, Shared>,
    log: Log,
}

impl Host {
    fn new() -> Self {
        let poll = Poll::new().unwrap();
        let config = Config::default();
        Self {
            engine: Engine::on_registry(poll.registry(), 0..1 << 16, || {}, config).unwrap(),
            poll,
            log: Log::default(),
        }
    }

    fn until(&mut self, what: &str, is_done: impl Fn(&Engine<Log, Shared>) -> bool) {
        let end = Instant::now() + common::PATIENCE;
        let mut events = Events::with_capacity(16);
        while !is_done(&self.engine) {
            assert!(Instant::now() < end, "gave up waiting for: {what}");
            let pause = Some(Duration::from_millis(100));
            let timeout = self.engine.next_timeout().into_iter().chain(pause).min();
            self.poll.poll(&mut events, timeout).unwrap();
            for event in &events {
                self.engine.on_event(event);
            }
            self.engine.turn(&mut self.log).unwrap();
        }
    }
}

/// The child's exit status.
const FINE: i32 = 0;
const NO_ANSWER: i32 = 1;

#[test]
fn a_child_may_drop_the_engine_and_the_parents_goes_on() {
    let gate = Arc::new(Gate::new());
    let server = {
        let gate = Arc::clone(&gate);
        Server::start(move |peer| {
            while let Some(seen) = peer.request() {
                if seen.path == "/held" {
                    gate.pass();
                }
                peer.send(&ok(&seen.path));
            }
        })
    };
    let (may, mut config) = (Gate::new(), Config::default());
    let is_asked = look_up(&mut config, &may);
    let mut bench = Bench::with(|c| *c = config);
    for _ in 0..10 {
        bench.submit(server.get("/held"));
    }
    bench.until("all are held", |engine, _| engine.stats().in_flight == 10);
    // A lookup under way, which has sockets in the poll, too.
    let url = format!("http://name.test:{}/named", server.addr.port());
    bench.submit(httpstream::Request::get(&url).build().unwrap());
    bench.until("it is looked up", |_, _| is_asked());
    let mut host = Host::new();
    for _ in 0..5 {
        host.engine.submit(server.get("/held"), common::note);
    }
    host.until("all are held", |engine| engine.stats().in_flight == 5);
    let of_the_child = server.get("/child");

    // SAFETY: the child only drops the engine, runs one of its own and leaves by _exit. The
    // allocator and the thread-locals that it uses are its own, and it takes no lock of another
    // thread.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    if child == 0 {
        drop((bench, host));
        let mut engine = Engine::<Log>::new().unwrap();
        let mut log = Log::default();
        engine.submit(of_the_child, common::note);
        let ran = engine.run(&mut log);
        let code = match ran.is_ok() && log.texts() == ["/child"] {
            true => FINE,
            false => NO_ANSWER,
        };
        // SAFETY: ends this process without running anything that belongs to the parent.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    assert!(libc::WIFEXITED(status), "{status:#x}");
    assert_eq!(libc::WEXITSTATUS(status), FINE);

    gate.open(15);
    host.until("the host's own", |engine| engine.pending() == 0);
    assert_eq!(host.log.texts(), ["/held"; 5]);
    // For both address families. A repeated question gets no answer, so a lost event would not be
    // made up for.
    may.open(2);
    bench.replies(11);
    let texts = bench.log.texts();
    let count = |path| texts.iter().filter(|text| *text == path).count();
    let counts = (count("/held"), count("/named"));
    assert_eq!(counts, (10, 1), "the child takes nothing from the parent");
    assert_eq!(bench.fetch_ok(server.get("/after")).text(), "/after");
}
