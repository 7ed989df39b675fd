//! After ten thousand engines were made and dropped, some with a request under way, everything is
//! as before: descriptors, the host's poll, heap. The test has a program of its own, since it
//! counts the descriptors of its process.
#![cfg(target_os = "linux")]

mod common;
mod counting;

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[cfg(not(feature = "hickory"))]
use httpstream::resolver::{Family, LookupAnswer, LookupId, Resolve};

use common::{Log, PATIENCE, Server, note, ok};
use httpstream::session::Session;
use httpstream::{Config, Context, Engine, Mode, Next, Request, ResolverFactory, Shared};
use mio::{Events, Poll, Token, Waker};

/// Engines of each kind; there are ten kinds.
const TIMES: usize = 1000;

/// How far an engine gets before it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Made,
    Asked,
    LookingUp,
    Waiting,
    Answered,
}

impl Until {
    const ALL: [Self; 5] = [
        Self::Made,
        Self::Asked,
        Self::LookingUp,
        Self::Waiting,
        Self::Answered,
    ];

    /// Submits a request that leads to this state.
    fn submit<M: Mode>(self, engine: &mut Engine<Log, M>, server: &Server) {
        match self {
            Self::Made => {}
            Self::Asked => {
                let never = Request::get("http://never.test/").build().unwrap();
                engine.start(
                    engine
                        .send(never.clone())
                        .after(Duration::MAX)
                        .read_by(note),
                );
                engine.submit(never, note);
            }
            Self::LookingUp => {
                let never = Request::get("http://never.test/").build().unwrap();
                engine.submit(never, note);
            }
            Self::Waiting => drop(engine.submit_to(server.get("/silent"), httpstream::Unread)),
            Self::Answered => drop(engine.submit(server.get("/"), note)),
        }
    }

    fn is_reached<M: Mode>(self, engine: &Engine<Log, M>, log: &Log, world: &World) -> bool {
        match self {
            Self::Made | Self::Asked => true,
            Self::LookingUp => engine.stats().links_dialing == 1,
            Self::Waiting => world.asked.swap(0, Ordering::Relaxed) == 1,
            Self::Answered => log.replies.len() == 1,
        }
    }
}

/// A resolver that queries a server that never answers.
#[cfg(feature = "hickory")]
fn resolver(unresponsive: &UdpSocket) -> ResolverFactory {
    let mut names = httpstream::resolver::HickoryConfig::default();
    names.servers = vec![unresponsive.local_addr().unwrap()];
    Arc::new(move || Box::new(httpstream::resolver::Hickory::with_config(names.clone())))
}

/// A resolver that never answers.
#[cfg(not(feature = "hickory"))]
fn resolver(_: &UdpSocket) -> ResolverFactory {
    #[derive(Debug)]
    struct Unresponsive;
    impl Resolve for Unresponsive {
        fn attach(&mut self, _: httpstream::resolver::Wake) {}
        fn start(&mut self, _: &str, _: Family, _: LookupId) {}
        fn cancel(&mut self, _: LookupId) {}
        fn on_tick(&mut self, _: Instant) {}
        fn deadline(&self) -> Option<Instant> {
            None
        }
        fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
            None
        }
    }
    Arc::new(|| Box::new(Unresponsive))
}

/// The servers.
struct World {
    server: Server,
    /// The number of requests that the server has read and does not answer.
    asked: Arc<AtomicUsize>,
    unresponsive: UdpSocket,
    /// Outlives all engines.
    session: Session,
}

impl World {
    fn new() -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let in_vain = Arc::clone(&asked);
        // Nothing allocated on the server's threads is passed to this one: freeing it here would
        // hide a leak.
        let server = Server::start(move |peer| {
            while let Some(head) = peer.head() {
                if head.starts_with("GET /silent ") {
                    in_vain.fetch_add(1, Ordering::Relaxed);
                    drop(peer.hold());
                } else {
                    peer.send(&ok("a"));
                }
            }
        });
        let unresponsive = UdpSocket::bind("127.0.0.1:0").unwrap();
        Self {
            server,
            asked,
            unresponsive,
            session: Session::new(),
        }
    }

    /// Returns a step that is never taken, and ends with the session.
    fn never(&self) -> Next<Log> {
        let never = Next::call(|_: &mut Log, _: &mut Context<'_, Log>| Next::done());
        never.after(Duration::MAX).session(&self.session)
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        config.max_connections = 8;
        config.hosts_file = None;
        config.resolver = Some(resolver(&self.unresponsive));
        config
    }

    /// Engines on polls of their own.
    fn own(&self, until: Until, times: usize) {
        for _ in 0..times {
            let mut engine = Engine::<Log>::with_config(self.config()).unwrap();
            let submitter = engine.submitter();
            let mut log = Log::default();
            engine.start(self.never());
            until.submit(&mut engine, &self.server);
            while !until.is_reached(&engine, &log, self) {
                let wait = Some(Duration::from_millis(1));
                engine.turn(&mut log, wait).unwrap();
            }
            drop(engine);
            let late = submitter.submit(self.server.get("/"), note);
            assert!(late.is_err(), "{until:?}: the engine is gone");
            assert_eq!(log.replies.len(), usize::from(until == Until::Answered));
        }
    }

    /// Engines on their host's poll, one after another.
    fn shared(&self, until: Until, times: usize) {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut events = Events::with_capacity(8);
        for _ in 0..times {
            let waker = Arc::clone(&waker);
            let wake = move || waker.wake().unwrap();
            let (registry, tokens) = (poll.registry(), 1..1 + 2 * 8 + 64);
            let engine = Engine::on_registry(registry, tokens, wake, self.config());
            let mut engine: Engine<Log, Shared> = engine.unwrap();
            let mut log = Log::default();
            engine.start(self.never());
            until.submit(&mut engine, &self.server);
            while !until.is_reached(&engine, &log, self) {
                let timeout = engine.next_timeout().unwrap_or(PATIENCE);
                poll.poll(&mut events, Some(timeout.min(Duration::from_millis(1))))
                    .unwrap();
                for event in &events {
                    engine.on_event(event);
                }
                engine.turn(&mut log).unwrap();
            }
            drop(engine);
            assert_eq!(in_poll(&poll), 1, "{until:?}: only the waker is left");
        }
    }
}

/// Returns the number of descriptors in a poll (proc_pid_fdinfo(5)).
fn in_poll(poll: &Poll) -> usize {
    let path = format!("/proc/self/fdinfo/{}", poll.as_raw_fd());
    let info = std::fs::read_to_string(path).unwrap();
    info.lines().filter(|line| line.starts_with("tfd:")).count()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn nothing_is_left_of_ten_thousand_engines() {
    let world = World::new();
    // One of each first, for what a process keeps.
    let run = |times| {
        for until in Until::ALL {
            world.own(until, times);
            world.shared(until, times);
        }
    };
    run(10);
    let (files, heap) = (descriptors(), counting::live_bytes());
    run(TIMES);
    let grown = counting::live_bytes() - heap;
    assert!(grown.abs() < 1024, "{grown} bytes are left");
    let end = Instant::now() + PATIENCE;
    // The server's ends of connections are in this process, too, and take some time to close.
    while descriptors() > files {
        let now = descriptors();
        assert!(Instant::now() < end, "{now} descriptors, {files} before");
        std::thread::sleep(Duration::from_millis(5));
    }
}
