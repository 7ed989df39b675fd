//! The engine without the caller's code: connections, exchanges and chains, and how they work
//! together.
//!
//! This part never sees the caller's state, so it cannot run a readback. Outcomes for readbacks go
//! on the agenda, and [`Engine`](crate::Engine) delivers them between two links. The only user code
//! called from here is that of policies, the address filter and the resolver, which do not see the
//! state.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::config::Config;
use crate::engine::agenda::Agenda;
use crate::engine::ages::Ages;
use crate::engine::alerts::Alerts;
use crate::engine::buffers::Buffers;
use crate::engine::chain::{ChainKey, Marks, Stage};
use crate::engine::chains::Chains;
use crate::engine::clock::{Since, TurnClock};
use crate::engine::generations::Ended;
use crate::engine::lookups::Lookups;
use crate::engine::meter::Meters;
use crate::engine::quiet::Quiet;
use crate::engine::settings::{self, Settings};
use crate::engine::stats::{OriginStats, Stats};
use crate::engine::supplies::Supplies;
use crate::engine::visit::VisitState;
use crate::engine::waking::Waking;
use crate::error::Error;
use crate::net::Net;
use crate::net::ahead::AheadLinks;
use crate::net::link::Link;
use crate::net::names::{Names, NamesConfig};
use crate::net::pool::{OriginKey, Pool};
use crate::net::slots::{LinkKey, Slots};
use crate::policy::Wakeups;
use crate::response::Way;
use crate::sched::wheel::{TimerId, Wheel};

/// See the [module documentation](self).
pub(super) struct Core<N: Net> {
    pub(super) net: N,
    pub(super) settings: Settings,
    pub(super) clock: TurnClock,
    pub(super) timers: Wheel<Timer>,
    pub(super) agenda: Agenda,
    pub(super) chains: Chains,
    pub(super) links: Slots<Link<N::Socket>>,
    pub(super) pool: Pool,
    pub(super) quiet: Quiet,
    pub(super) ages: Ages,
    /// Links that are being opened before there is a request for them.
    pub(super) ahead: AheadLinks,
    pub(super) lookups: Lookups,
    pub(super) buffers: Buffers,
    /// Set while this machine is out of file descriptors or memory.
    pub(super) exhausted: Option<Exhaustion>,
    /// Visits of policies, by the keys that chains hold.
    pub(super) visits: Slab<VisitState>,
    /// The speeds of exchanges that limit them, by chain.
    pub(super) meters: Meters,
    /// The bodies that are being read from their sources.
    pub(super) supplies: Supplies,
    /// Wakes waiting chains.
    pub(super) wakeups: Arc<Wakeups>,
    /// Set when a generation that chains belong to has ended.
    pub(super) ended: Arc<Ended>,
    /// A panic of a readback or a policy, until it reaches the host.
    pub(super) panic: Option<Box<dyn Any + Send>>,
    /// Counts of past events. Counts of what exists now are computed when `stats` is called.
    pub(super) counts: Stats,
    pub(super) alerts: Alerts,
}

/// The purpose of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The chain's delay, or the deadline of its phase.
    Chain(ChainKey),
    /// The deadline of the chain as a whole.
    ChainDeadline(ChainKey),
    /// The end of the window in which the speed of the chain's exchange is measured, or the time
    /// from which on a cap allows more bytes.
    Meter(ChainKey),
    /// The deadline of the chain's tunnel.
    Tunnel(ChainKey),
    /// The end of the idle link's time in the pool.
    Idle(LinkKey),
    /// The link's next attempt to connect.
    Dial(LinkKey),
    /// The deadline of a link that is opened ahead.
    Ahead(LinkKey),
    /// A retry after exhaustion.
    Exhausted,
    /// A warning, if a request has waited too long in the origin's queue.
    LongWait(OriginKey),
    /// A retry for an origin to which no new connection could be opened.
    TurnedAway(OriginKey),
}

/// The resource that this machine ran out of, and the timer of the next retry.
#[derive(Debug)]
pub(super) struct Exhaustion {
    pub(super) why: String,
    pub(super) retry: TimerId,
}

impl<N: Net> Core<N> {
    pub(super) fn new(net: N, config: Config, waking: Arc<Waking>) -> Result<Self, Error> {
        let settings = Settings::new(&config)?;
        let ended = Arc::new(Ended::new(Arc::clone(&waking)));
        // The session must not keep the engine's wakeup, which is a file descriptor.
        let watcher: Weak<Ended> = Arc::downgrade(&ended);
        let mut resolver = match &config.resolver {
            Some(make) => make(),
            None => net.resolver(),
        };
        net.attach(&mut *resolver).map_err(Error::io)?;
        let names = NamesConfig {
            overrides: &config.overrides,
            hosts_file: config.hosts_file,
            max_lookups: config.max_lookups,
            keep_names: config.keep_names,
            keep_stale_names: config.keep_stale_names,
            machine: N::MACHINE,
        };
        let names = Names::new(names, resolver)?;
        let depths = settings::depths(&config.pipelines)?;
        let (now, net_simulated) = (net.now(), net.simulated());
        Ok(Self {
            net,
            clock: TurnClock::new(now, net_simulated),
            timers: Wheel::new(),
            agenda: Agenda::default(),
            chains: Chains::new(watcher),
            ended,
            links: Slots::new(),
            pool: Pool::new(depths),
            quiet: Quiet::default(),
            ages: Ages::new(config.max_age),
            ahead: AheadLinks::default(),
            lookups: Lookups::new(names),
            buffers: Buffers::new(settings.read_buffer),
            exhausted: None,
            visits: Slab::new(),
            meters: Meters::default(),
            supplies: Supplies::default(),
            wakeups: Arc::new(Wakeups::new(move || waking.announce())),
            panic: None,
            counts: Stats::default(),
            alerts: Alerts::default(),
            settings,
        })
    }

    pub(super) fn read_clock(&mut self) {
        self.clock.set(self.net.now());
        self.chains.now = self.clock.micros();
    }

    /// Reads the clock if user code has run since it was last read. That code may have taken any
    /// amount of time, and a delay or deadline computed from the old time would end too early.
    #[inline(always)]
    pub(super) fn catch_up(&mut self) {
        if self.clock.since == Since::UserCode {
            self.read_clock();
        }
    }

    /// Drops a value that belongs to the caller. Like a readback, its destructor may panic.
    pub(super) fn discard<T>(&mut self, users: T) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(users))) {
            self.panic.get_or_insert(panic);
        }
    }

    /// Returns what the chain's policy has done with its request before the current exchange.
    #[inline]
    pub(super) fn way_of(&self, key: ChainKey) -> Option<Arc<Way>> {
        let visit = self.chains.visit_of(key)?;
        self.visits[visit].way().cloned()
    }

    /// Returns whether a turn would have work even if nothing became readable and no time passed.
    pub(super) fn is_due(&self) -> bool {
        self.chains.has_commands()
            || self.agenda.is_due()
            || self.lookups.names.has_news()
            || self.net.has_handed_events()
    }

    /// Returns the time until the first timer goes off, the resolver's included. `life` is the
    /// engine's age at `now`.
    #[inline]
    pub(super) fn until_next_timer(&self, now: Instant, life: Duration) -> Option<Duration> {
        let timer = self.timers.next_tick();
        let timer = timer.map(|tick| Duration::from_millis(tick).saturating_sub(life));
        let names = self.lookups.names.deadline();
        let names = names.map(|at| at.saturating_duration_since(now));
        match (timer, names) {
            (Some(timer), Some(names)) => Some(timer.min(names)),
            (timer, names) => timer.or(names),
        }
    }

    /// Returns when the first timer goes off, the resolver's included.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        let timer = self.timers.next_tick();
        let timer = timer.map(|tick| self.clock.instant_of(tick));
        match (timer, self.lookups.names.deadline()) {
            (Some(timer), Some(names)) => Some(timer.min(names)),
            (timer, names) => timer.or(names),
        }
    }

    /// See [`Engine::stats`](crate::Engine::stats).
    pub(super) fn stats(&self) -> Stats {
        let mut stats = self.counts;
        stats.links_open = self.links.len();
        stats.submitted = self.chains.submitted;
        for link in self.links.iter() {
            stats.links_dialing += usize::from(link.is_dialing());
            stats.links_idle += usize::from(link.is_idle());
        }
        for key in self.chains.keys() {
            let chain = &self.chains[key];
            stats.paused += usize::from(chain.marks.has(Marks::PAUSED));
            match chain.stage {
                Stage::New | Stage::HeldBack { .. } | Stage::Queued { .. } => stats.queued += 1,
                Stage::Delayed | Stage::Waiting { .. } | Stage::Due { .. } => stats.delayed += 1,
                Stage::Running { .. } => stats.in_flight += 1,
                Stage::Failed | Stage::Reading | Stage::Retired => {}
            }
        }
        stats
    }

    /// See [`Engine::origins`](crate::Engine::origins).
    pub(super) fn origins(&self) -> Vec<OriginStats> {
        let mut origins = Vec::new();
        let mut places = HashMap::new();
        for (key, entry) in self.pool.iter() {
            places.insert(key, origins.len());
            origins.push(OriginStats {
                origin: entry.origin.clone(),
                route: Arc::clone(&entry.route),
                open: 0,
                idle: 0,
                dialing: 0,
                in_flight: 0,
                queued: 0,
            });
        }
        for link in self.links.iter() {
            let origin = &mut origins[places[&link.origin]];
            origin.dialing += usize::from(link.is_dialing());
            origin.open += usize::from(!link.is_dialing());
            origin.idle += usize::from(link.is_idle());
        }
        for key in self.chains.keys() {
            let chain = &self.chains[key];
            if let Some(origin) = chain.origin.get() {
                let origin = &mut origins[places[&origin]];
                origin.in_flight += usize::from(matches!(chain.stage, Stage::Running { .. }));
                origin.queued += usize::from(matches!(chain.stage, Stage::Queued { .. }));
            }
        }
        origins
    }
}

impl<N: Net> Drop for Core<N> {
    fn drop(&mut self) {
        let is_forked = self.net.is_forked();
        // A forked child shares the parent's poll. Deregistering sockets there would remove the
        // parent's registrations, so the child only closes its copies of the sockets.
        for mut link in self.links.drain() {
            for socket in link.take_sockets() {
                if is_forked {
                    self.net.close(socket)
                } else {
                    close_socket(&mut self.net, socket)
                }
            }
        }
        if is_forked {
            self.lookups.names.abandon();
        }
    }
}

/// Deregisters a socket, then closes it. If it were only closed, it would keep causing events as
/// long as a forked child held a duplicate of the descriptor.
pub(super) fn close_socket<N: Net>(net: &mut N, mut socket: N::Socket) {
    if let Err(error) = net.deregister(&mut socket) {
        log::warn!("deregistering {socket:?} failed ({error})");
    }
    net.close(socket);
}
