//! A bot on an engine in virtual time, with its server: a week takes seconds.
//!
//! All waits use the network's clock, so equal seeds give equal runs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Once;
use std::time::{Duration, SystemTime};

use httpstream::sim::Network;
use httpstream::{Config, Engine, Sim};

use crate::bot::{self, Bot, Stage};
use crate::desk::{self, Desk, HOSTS, addrs};
use crate::events::Entry;
use crate::outbox::Long;
use crate::plugins;
use crate::script::Expectations;
use crate::server::{self, Account, Director, Server, Wish};
use crate::verdict::{Evidence, judge};

/// The account of the published examples, whose password and hashes are known.
pub(crate) const ACCOUNT: u64 = 1_685_359_365;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A bot, its engine, and their surroundings.
pub(crate) struct Simulation {
    pub(crate) network: Network,
    pub(crate) engine: Engine<Bot, Sim>,
    pub(crate) bot: Bot,
    /// The bot's events.
    pub(crate) log: Vec<Entry>,
    desk: Rc<RefCell<Desk>>,
    /// Whether codes of captchas are withheld.
    keeps_codes: bool,
}

impl Simulation {
    /// The bot is not told to log in; the director does that.
    pub(crate) fn new(seed: u64, refresh: Duration, director: impl Director + 'static) -> Self {
        static QUIET: Once = Once::new();
        QUIET.call_once(plugins::keep_crashes_quiet);
        let network = desk::network(seed);
        for (host, addr) in HOSTS.iter().zip(addrs()) {
            network.host(host, [addr.ip()]);
        }
        let desk = Desk::open(&network, seed, Account::sample(ACCOUNT), Box::new(director));
        let settings = bot::Settings {
            account: ACCOUNT,
            password: Account::sample(ACCOUNT).password,
            scale: 1.0,
            least_patience: Duration::ZERO,
            refresh,
            max_text: server::Settings::default().max_text,
            long: Long::Split,
            seed,
            epoch: since_epoch(network.wall_clock()),
            https: bot::Https::AsHttp,
        };
        Self {
            engine: Engine::on_network(&network, Config::default()).expect("a valid config"),
            bot: Bot::new(settings, network.now()),
            network,
            log: Vec::new(),
            desk,
            keeps_codes: false,
        }
    }

    /// Runs until `until`, or until `is_over`, which is called whenever nothing is left to do at a
    /// moment.
    pub(crate) fn run(&mut self, until: Duration, mut is_over: impl FnMut(&Self) -> bool) {
        loop {
            let deadline = self.engine.next_deadline();
            let now = self.network.now();
            if deadline.is_some_and(|at| at <= now) || self.network.has_events() {
                self.engine.turn(&mut self.bot).expect("the turn succeeds");
                self.log.append(&mut self.bot.events);
            } else if self.elapsed() >= until || is_over(self) {
                return;
            } else {
                // One step at a time: an event may make something due earlier than what was the
                // next before.
                let wake = self.desk.borrow().next_wake();
                let wait = wake.unwrap_or(until).min(until);
                let wait = wait.saturating_sub(self.elapsed());
                let events = [deadline, self.network.next_event_at()];
                let events = events.into_iter().flatten();
                let waits = events.map(|at| at.saturating_duration_since(now));
                self.network.sleep(waits.fold(wait, Duration::min));
            }
            let wishes = self.desk.borrow_mut().on_time();
            for wish in wishes {
                self.grant(wish);
            }
        }
    }

    /// Returns how long the simulation has lasted.
    pub(crate) fn elapsed(&self) -> Duration {
        desk::elapsed(&self.network)
    }

    pub(crate) fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Code { .. } if self.keeps_codes => return,
            Wish::Login { .. } => self.engine.call(Bot::log_in),
            Wish::Logout { .. } => self.engine.call(Bot::log_out),
            Wish::Code { code, .. } => self
                .engine
                .call(move |bot: &mut Bot, cx| bot.enter_code(code, cx)),
        };
    }

    /// Stops typing the codes of captchas.
    pub(crate) fn keep_codes(&mut self) {
        self.keeps_codes = true;
    }

    /// Inspects the brain.
    pub(crate) fn brain<R>(&self, look: impl FnOnce(&Server) -> R) -> R {
        look(&self.desk.borrow().brain)
    }

    /// Makes `per_mille` of the answers slow.
    pub(crate) fn set_slow(&self, per_mille: u16) {
        self.desk.borrow_mut().slow = per_mille;
    }

    /// Kills the server: its connections are reset, and connecting is refused from now on.
    pub(crate) fn kill_server(&self) {
        for addr in addrs() {
            self.network.refuse(addr);
        }
        for connection in self.network.connections() {
            self.network.reset(connection);
        }
    }

    /// Replaces the server with one that does not know the old sessions. Returns the old one's
    /// brain.
    pub(crate) fn replace_server(
        &mut self,
        seed: u64,
        director: impl Director + 'static,
    ) -> Server {
        let desk = Desk::open(
            &self.network,
            seed,
            Account::sample(ACCOUNT),
            Box::new(director),
        );
        let old = std::mem::replace(&mut self.desk, desk);
        let old = Rc::into_inner(old).expect("the old desk has no other owner");
        old.into_inner().brain
    }

    /// Has the bot send its pending messages, and log out.
    pub(crate) fn log_out(&mut self) {
        self.grant(Wish::Logout { account: ACCOUNT });
        let patience = self.elapsed() + 10 * MINUTE;
        // Idle connections are kept for a while, in case there is another request.
        self.run(patience, |sim| {
            sim.engine.pending() == 0 && sim.network.open_fds() == 0
        });
    }

    /// Returns what is wrong after the bot has left: by the brain's judgment, and by the bot's
    /// remains.
    pub(crate) fn complaints(
        &self,
        expectations: &Expectations,
        switches: &[String],
    ) -> Vec<String> {
        let log = BTreeMap::from([(ACCOUNT, self.log.clone())]);
        let mut complaints = self.brain(|brain| complaints(brain, expectations, &log, switches));
        let stage = self.bot.stage;
        let (pending, fds) = (self.engine.pending(), self.network.open_fds());
        let misuses = self.network.misuses();
        for (is_good, what) in [
            (stage == Stage::Offline, format!("the bot is {stage:?}")),
            (pending == 0, format!("{pending} chains are still pending")),
            (fds == 0, format!("{fds} sockets are open")),
            (misuses.is_empty(), format!("misuses: {misuses:?}")),
        ] {
            if !is_good {
                complaints.push(what);
            }
        }
        complaints
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .expect("it is later than 1970")
}

/// Judges the bot by `brain`'s ledger and the bot's log.
pub(crate) fn complaints(
    brain: &Server,
    expectations: &Expectations,
    logs: &BTreeMap<u64, Vec<Entry>>,
    switches: &[String],
) -> Vec<String> {
    let expected = expectations.lock().expect("the lock is not poisoned");
    let evidence = Evidence {
        ledger: brain.ledger(),
        expected: &expected,
        logs,
        switches,
        over_tls: &[],
    };
    judge(&evidence).complaints
}
