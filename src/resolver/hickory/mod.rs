//! hickory-resolver on the engine's own loop.
//!
//! - `config`: which servers to ask, and how; `resolv_conf` or `system_conf` reads this from the
//!   system
//! - `lookup`: one lookup, across search list, servers and attempts
//! - `server`: one server, over UDP and TCP, with and without EDNS; `verdict`: what an answer means
//! - `udp`: a question in a datagram; `runtime`: the runtime that hickory requires, for TCP;
//!   `reactor`: tasks, timers and sockets
//!
//! hickory encodes and decodes messages and multiplexes TCP connections. UDP is implemented here,
//! since hickory reads datagrams without a bound and discards truncated answers. No type of hickory
//! appears outside this module.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

use super::{Family, LookupAnswer, LookupError, LookupId, Resolve, Wake};
use lookup::Stub;
use reactor::{Reactor, TaskKey, TaskKind};

mod config;
mod lookup;
mod reactor;
mod runtime;
mod server;
#[cfg(not(any(windows, target_vendor = "apple", target_os = "android")))]
#[path = "resolv_conf.rs"]
mod system;
#[cfg(any(windows, target_vendor = "apple", target_os = "android"))]
#[path = "system_conf.rs"]
mod system;
#[cfg(test)]
mod tests;
mod udp;
mod verdict;

pub use config::HickoryConfig;

/// A stub resolver on the engine's own loop. It queries name servers over UDP, and over TCP if an
/// answer does not fit.
///
/// It uses no thread and never waits for a lock: its sockets are registered with the engine's poll,
/// and its work is done in the engine's turns, a bounded amount in each. Every question has a
/// random port, identifier and spelling (0x20), and datagrams from other addresses are dropped by
/// the kernel. Servers are asked in order; if one has not answered for half a second, the next is
/// asked as well.
///
/// Faulty servers are tolerated as by the C library: a failure leads to the next attempt and to the
/// next name of the search list; a server that does not support EDNS or does not preserve the
/// spelling is asked without it; the records of a truncated answer are used if TCP fails.
///
/// It needs a poll of the operating system. On a simulated network every lookup fails.
pub struct Hickory {
    config: HickoryConfig,
    /// The source of the configuration, if it was read from the system.
    watched: Option<system::Watched>,
    /// The configuration has changed since [`has_changed`](Resolve::has_changed) was last called.
    has_changed: bool,
    state: State,
    answered: Rc<RefCell<VecDeque<(LookupId, LookupAnswer)>>>,
}

/// `New -> Attached -> Running`.
enum State {
    New,
    /// Can wake its engine, but has no poll yet.
    Attached(Wake),
    Running(Running),
}

struct Running {
    stub: Rc<Stub>,
    reactor: Rc<Reactor>,
    lookups: HashMap<LookupId, TaskKey>,
}

impl Hickory {
    /// Uses the servers that the system is configured with.
    ///
    /// On Unix, the configuration is `/etc/resolv.conf`: its first three `nameserver`s, `search` or
    /// `domain`, and the options `ndots`, `timeout`, `attempts`, `use-vc`, `rotate`, `no-tld-query`
    /// and `no-aaaa`. The environment variables `LOCALDOMAIN` and `RES_OPTIONS` are honored. As in
    /// resolv.conf(5), if the file is missing, cannot be read or names no server, the server on the
    /// local host is used; if it has no search list, the domain of the host's own name is searched.
    ///
    /// The file is checked for changes when a name is looked up, at most once a second. A change
    /// applies to lookups that begin after it, and discards what was learned about the servers. On
    /// other systems, the configuration is reread after
    /// [`on_network_changed`](Resolve::on_network_changed).
    pub fn from_system() -> Self {
        let (watched, config) = system::Watched::system();
        Self::new(config, Some(watched))
    }

    /// Uses the servers named in the file at `path`. The file is read and checked for changes in
    /// the same way as `/etc/resolv.conf` is by [`from_system`](Self::from_system).
    #[cfg(not(any(windows, target_vendor = "apple", target_os = "android")))]
    pub fn from_resolv_conf(path: impl Into<std::path::PathBuf>) -> Self {
        let (watched, config) = system::Watched::file(path.into());
        Self::new(config, Some(watched))
    }

    /// Uses the servers of `config`.
    pub fn with_config(config: HickoryConfig) -> Self {
        Self::new(config, None)
    }

    fn new(config: HickoryConfig, watched: Option<system::Watched>) -> Self {
        Self {
            config,
            watched,
            has_changed: false,
            state: State::New,
            answered: Rc::default(),
        }
    }

    fn look(&mut self, now: Instant) {
        if let Some(config) = self.watched.as_mut().and_then(|watched| watched.look(now)) {
            self.config = config;
            self.has_changed = true;
            self.begin_anew();
        }
    }

    /// Discards what was learned about the servers. Lookups in progress keep the state they began
    /// with.
    fn begin_anew(&mut self) {
        if let State::Running(running) = &mut self.state {
            running.stub = Rc::new(Stub::new(&self.config, &running.reactor));
        }
    }
}

impl Resolve for Hickory {
    fn attach(&mut self, wake: Wake) {
        self.state = State::Attached(wake);
    }

    fn attach_poll(&mut self, registry: mio::Registry, tokens: Range<usize>) -> io::Result<()> {
        let State::Attached(wake) = &self.state else {
            return Err(io::Error::other(
                "attach must be called before attach_poll, and each only once",
            ));
        };
        let reactor = Reactor::new(registry, tokens, wake.clone());
        let stub = Stub::new(&self.config, &reactor);
        self.state = State::Running(Running {
            stub: Rc::new(stub),
            reactor,
            lookups: HashMap::new(),
        });
        Ok(())
    }

    fn start(&mut self, host: &str, family: Family, id: LookupId) {
        if self.watched.is_some() {
            self.look(Instant::now());
        }
        let State::Running(running) = &mut self.state else {
            let why = "this resolver needs a poll of the operating system";
            let failed = LookupAnswer::failed(LookupError::Failed(why.into()));
            return self.answered.borrow_mut().push_back((id, failed));
        };
        let (stub, answered) = (Rc::clone(&running.stub), Rc::clone(&self.answered));
        let host = host.to_owned();
        let task = running.reactor.spawn(TaskKind::LookUp, async move {
            let answer = stub.look_up(&host, family).await;
            answered.borrow_mut().push_back((id, answer));
        });
        running.lookups.insert(id, task);
    }

    fn cancel(&mut self, id: LookupId) {
        let before = self.answered.borrow().len();
        self.answered.borrow_mut().retain(|(of, _)| *of != id);
        let was_answered = self.answered.borrow().len() < before;
        if let State::Running(running) = &mut self.state
            && let Some(task) = running.lookups.remove(&id)
            // The task of an answered lookup has ended, and its key may belong to another task by
            // now.
            && !was_answered
        {
            running.reactor.cancel(task);
        }
    }

    fn on_event(&mut self, token: mio::Token) {
        if let State::Running(running) = &self.state {
            running.reactor.on_event(token);
        }
    }

    fn on_tick(&mut self, now: Instant) {
        if let State::Running(running) = &self.state {
            running.reactor.run(now);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::New | State::Attached(_) => None,
            State::Running(running) => running.reactor.deadline(),
        }
    }

    fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
        let answered = self.answered.borrow_mut().pop_front();
        if let (Some((id, _)), State::Running(running)) = (&answered, &mut self.state) {
            running.lookups.remove(id);
        }
        answered
    }

    fn has_changed(&mut self, now: Instant) -> bool {
        self.look(now);
        std::mem::take(&mut self.has_changed)
    }

    fn on_network_changed(&mut self) {
        if let Some(watched) = &mut self.watched {
            watched.forget();
        }
        self.begin_anew();
    }

    fn servers(&self) -> String {
        let servers: Vec<_> = self
            .config
            .servers
            .iter()
            .map(SocketAddr::to_string)
            .collect();
        servers.join(", ")
    }
}

impl fmt::Debug for Hickory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Hickory");
        debug.field("config", &self.config);
        if let State::Running(running) = &self.state {
            debug.field("reactor", &running.reactor);
        }
        debug.finish()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Done before the reactor is dropped, which has to deregister the sockets before they are
        // closed.
        self.reactor.clear();
    }
}
