//! A mio program with a poll of its own, which an engine shares with the program's other sources.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use httpstream::{ChainId, Config, Engine, Error, Request, Shared};
use mio::{Events, Poll, Token, Waker};

use crate::common::{Got, Log, PATIENCE, Server, note};

/// The program's own.
pub(crate) const WAKE: Token = Token(0);
pub(crate) const LISTENER: Token = Token(1);
/// The first of the engine's tokens.
pub(crate) const FIRST: usize = 1000;

/// When the host makes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turns {
    /// After each poll.
    Always,
    /// When an event was handed over, or the timeout is zero.
    WhenTold,
}

pub(crate) struct Host {
    pub(crate) engine: Engine<Log, Shared>,
    pub(crate) log: Log,
    pub(crate) poll: Poll,
    pub(crate) waker: Arc<Waker>,
    pub(crate) events: Events,
    pub(crate) window: Range<usize>,
    pub(crate) turns: Turns,
    /// Tokens of events that are not the engine's.
    pub(crate) own: Vec<Token>,
    /// Events with one of the engine's tokens whose registration was gone.
    pub(crate) stale: usize,
}

/// Returns as many tokens as this number of connections requires.
pub(crate) fn smallest_window(max_connections: usize) -> Range<usize> {
    FIRST..FIRST + 2 * max_connections + 64
}

/// Makes an engine on `poll`, woken by `waker`.
pub(crate) fn engine_on(
    poll: &Poll,
    waker: &Arc<Waker>,
    window: Range<usize>,
    config: Config,
) -> Result<Engine<Log, Shared>, Error> {
    let waker = Arc::clone(waker);
    let wake = move || waker.wake().unwrap();
    Engine::on_registry(poll.registry(), window, wake, config)
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    /// Makes a host with the smallest window that the configuration allows.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.max_connections = 64;
        change(&mut config);
        let window = smallest_window(config.max_connections);
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKE).unwrap());
        let engine = engine_on(&poll, &waker, window.clone(), config).unwrap();
        Self {
            engine,
            log: Log::default(),
            poll,
            waker,
            events: Events::with_capacity(64),
            window,
            turns: Turns::Always,
            own: Vec::new(),
            stale: 0,
        }
    }

    pub(crate) fn submit(&mut self, request: Request) -> ChainId {
        self.engine.submit(request, note)
    }

    /// Polls, for `longest` at most. The result is in `events`.
    pub(crate) fn poll(&mut self, longest: Duration) {
        let timeout = self.engine.next_timeout();
        let timeout = timeout.map_or(longest, |timeout| timeout.min(longest));
        self.poll.poll(&mut self.events, Some(timeout)).unwrap();
    }

    /// Hands over the poll's events, and returns how many of them the engine took.
    pub(crate) fn hand_over(&mut self) -> usize {
        let mut taken = 0;
        for event in &self.events {
            let is_lent = self.window.contains(&event.token().0);
            match self.engine.on_event(event) {
                true => {
                    assert!(is_lent, "{event:?} is not in {:?}", self.window);
                    taken += 1;
                }
                false if is_lent => self.stale += 1,
                false => self.own.push(event.token()),
            }
        }
        taken
    }

    pub(crate) fn turn(&mut self) -> httpstream::Turn {
        self.engine.turn(&mut self.log).unwrap()
    }

    /// Polls once, then hands over events and makes a turn as configured.
    pub(crate) fn round(&mut self, longest: Duration) {
        self.poll(longest);
        let taken = self.hand_over();
        let is_due = || {
            self.engine
                .next_timeout()
                .is_some_and(|left| left.is_zero())
        };
        if self.turns == Turns::Always || taken > 0 || is_due() {
            self.turn();
        }
    }

    /// Makes rounds until `is_done`, and returns their number. Panics if that takes too long.
    pub(crate) fn until(&mut self, what: &str, mut is_done: impl FnMut(&Self) -> bool) -> usize {
        let end = Instant::now() + PATIENCE;
        for rounds in 0.. {
            if is_done(self) {
                return rounds;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "gave up after {PATIENCE:?}, waiting for: {what}; {:?} {:?}",
                self.engine.stats(),
                self.log
            );
            self.round(left);
        }
        unreachable!()
    }

    /// Makes rounds until the server's connections have read this many requests.
    pub(crate) fn until_seen(&mut self, server: &Server, count: usize) {
        let end = Instant::now() + PATIENCE;
        let mut seen = 0;
        while seen < count {
            assert!(Instant::now() < end, "{seen} of {count} were seen");
            self.round(Duration::from_millis(5));
            seen += server.so_far().len();
        }
    }

    pub(crate) fn replies(&mut self, count: usize) {
        self.until("replies", |host| host.log.replies.len() >= count);
        assert_eq!(self.log.replies.len(), count);
    }

    pub(crate) fn fetch(&mut self, request: Request) -> Result<Got, Error> {
        let before = self.log.replies.len();
        self.submit(request);
        self.replies(before + 1);
        self.log.replies.pop().unwrap()
    }

    /// Makes rounds until the poll is empty and no turn is due.
    pub(crate) fn quiet(&mut self) {
        for _ in 0..5 {
            self.round(Duration::from_millis(1));
        }
    }

    pub(crate) fn assert_empty(&mut self) {
        self.engine.close_idle();
        self.quiet();
        let stats = self.engine.stats();
        assert_eq!(
            (self.engine.pending(), stats.links_open),
            (0, 0),
            "{stats:?}"
        );
        assert_eq!(self.engine.next_deadline(), None, "a timer is left");
    }

    /// Returns the tokens registered with the poll (proc_pid_fdinfo(5)).
    pub(crate) fn registered(&self) -> Vec<usize> {
        use std::os::fd::AsRawFd;
        let fd = self.poll.as_raw_fd();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        let targets = info.lines().filter(|line| line.starts_with("tfd:"));
        let token = |line: &str| {
            let mut words = line.split_whitespace();
            words.find(|word| *word == "data:")?;
            usize::from_str_radix(words.next()?, 16).ok()
        };
        targets.map(|line| token(line).unwrap()).collect()
    }

    /// Returns how many of them are the engine's.
    pub(crate) fn registered_by_engine(&self) -> usize {
        let mut tokens = self.registered();
        tokens.retain(|token| *token != WAKE.0 && *token != LISTENER.0);
        let foreign = tokens.iter().find(|token| !self.window.contains(token));
        assert_eq!(foreign, None, "all of {:?}", self.window);
        tokens.len()
    }
}
