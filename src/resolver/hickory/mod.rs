//! hickory-resolver on the engine's own loop.
//!
//! - `config`: whom to ask, and `resolv_conf` or `system_conf`, where the system says so
//! - `lookup`: one look-up, over search list, servers and attempts; `verdict`: what an answer comes to
//! - `runtime`: what hickory wants of a runtime; `reactor`: tasks, timers and sockets
//!
//! hickory's types stay in here.

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
#[cfg(not(any(windows, target_vendor = "apple", target_os = "android")))]
#[path = "resolv_conf.rs"]
mod system;
#[cfg(any(windows, target_vendor = "apple", target_os = "android"))]
#[path = "system_conf.rs"]
mod system;
#[cfg(test)]
mod tests;
mod verdict;

pub use config::HickoryConfig;

/// A stub resolver on the engine's own loop: asks name servers over UDP, and over TCP what does not fit.
///
/// No thread, no lock that anybody waits for: its sockets are on the engine's poll, and its work is done in the engine's turns, a bounded
/// part in each. Every question has a random port, identifier and spelling (0x20); answers from elsewhere are not seen. Servers are asked
/// in their order, and the next as well when one is silent for half a second.
///
/// It needs a poll of the operating system: under a simulated network every look-up fails.
pub struct Hickory {
    config: HickoryConfig,
    stage: Stage,
    answered: Rc<RefCell<VecDeque<(LookupId, LookupAnswer)>>>,
}

/// `New -> Attached -> Running`.
enum Stage {
    New,
    /// Knows how to wake its engine, and not yet of a poll.
    Attached(Wake),
    Running(Running),
}

struct Running {
    stub: Rc<Stub>,
    reactor: Rc<Reactor>,
    lookups: HashMap<LookupId, TaskKey>,
}

impl Hickory {
    /// Asks the servers that the system is configured to ask.
    ///
    /// What the system says is read here, once; a change is not noticed. On Unix that is `/etc/resolv.conf`: its first three `nameserver`s,
    /// `search` or `domain`, and the options `ndots`, `timeout` and `attempts`. Where it is missing, cannot be read or names no server, the server
    /// is the local machine's, as in resolv.conf(5).
    pub fn from_system() -> Self {
        Self::with_config(system::read())
    }

    /// Asks the servers of `config`.
    pub fn with_config(config: HickoryConfig) -> Self {
        Self {
            config,
            stage: Stage::New,
            answered: Rc::default(),
        }
    }
}

impl Resolve for Hickory {
    fn attach(&mut self, wake: Wake) {
        self.stage = Stage::Attached(wake);
    }

    fn attach_poll(&mut self, registry: mio::Registry, tokens: Range<usize>) -> io::Result<()> {
        let Stage::Attached(wake) = &self.stage else {
            return Err(io::Error::other(
                "attach comes before attach_poll, and each once",
            ));
        };
        let reactor = Reactor::new(registry, tokens, wake.clone());
        let stub = Stub::new(&self.config, &reactor).map_err(io::Error::other)?;
        self.stage = Stage::Running(Running {
            stub: Rc::new(stub),
            reactor,
            lookups: HashMap::new(),
        });
        Ok(())
    }

    fn start(&mut self, host: &str, family: Family, id: LookupId) {
        let Stage::Running(running) = &mut self.stage else {
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
        if let Stage::Running(running) = &mut self.stage
            && let Some(task) = running.lookups.remove(&id)
            // The task of one that was answered has ended, and its key may be another's by now.
            && !was_answered
        {
            running.reactor.cancel(task);
        }
    }

    fn on_event(&mut self, token: mio::Token) {
        if let Stage::Running(running) = &self.stage {
            running.reactor.on_event(token);
        }
    }

    fn on_tick(&mut self, now: Instant) {
        if let Stage::Running(running) = &self.stage {
            running.reactor.run(now);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::New | Stage::Attached(_) => None,
            Stage::Running(running) => running.reactor.deadline(),
        }
    }

    fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
        let answered = self.answered.borrow_mut().pop_front();
        if let (Some((id, _)), Stage::Running(running)) = (&answered, &mut self.stage) {
            running.lookups.remove(id);
        }
        answered
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
        if let Stage::Running(running) = &self.stage {
            debug.field("reactor", &running.reactor);
        }
        debug.finish()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Before the reactor goes: sockets are deregistered by it, before they are closed.
        self.reactor.clear();
    }
}
