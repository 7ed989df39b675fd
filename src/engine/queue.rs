//! How a request finds a link: an idle one of its origin, for a pipelined one a link that others like it are on, a new one where
//! the limits allow it, or else a place in its origin's queue.
//!
//! Nothing is started from inside the ending of something else. What comes free is noted in the pool, what is to be started
//! anew in `restarts`, and `settle` carries both out: so there is no recursion to bound, and no order to guess.

use std::time::Duration;

use log::debug;

use crate::engine::alerts::alert;
use crate::engine::chains::{ChainKey, Command, Marks, Stage};
use crate::engine::mode::Mode;
use crate::engine::{Engine, Timer};
use crate::net::link::{Neighbours, Spot, State};
use crate::net::pool::{OriginKey, Parts};
use crate::net::slots::{LinkKey, MaybeKey};
use crate::request::Request;

/// Commands carried out in one turn: requests that begin, which are what a turn of ten thousand
/// submissions takes its time for where each has a name to be looked up, and all else that is asked
/// for. A host that asks for more at once has it done in several turns.
pub(super) const MAX_CARRIED_OUT: usize = 2048;

/// A request that has waited so long for a connection is worth a line in the log.
const LONG_WAIT_MILLIS: u64 = 1000;

/// Whether a request has waited already, or has just come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InLine {
    First,
    Last,
}

/// What `obtain` found for a request.
enum Grant {
    /// This link of the origin, open and without an exchange.
    Reuse(LinkKey),
    /// This link of the origin, behind the pipelined requests that are on it.
    Join(LinkKey),
    /// A link may be opened.
    Open,
    /// Neither: the request waits.
    Wait,
}

impl<S, M: Mode> Engine<S, M> {
    /// Carries out what was asked for, and gives links that came free to those who wait.
    #[inline(always)]
    pub(super) fn settle(&mut self) {
        // As it is nearly always, several times a request: a call would cost more than the question.
        if !self.chains.has_commands() && self.restarts.is_empty() && self.pool.is_settled() {
            return;
        }
        self.settle_all();
    }

    #[inline(never)]
    fn settle_all(&mut self) {
        self.catch_up();
        loop {
            if let Some(key) = self.restarts.pop_front() {
                self.place_again(key);
            } else if self.carried_out < MAX_CARRIED_OUT
                && let Some(command) = self.chains.next_command()
            {
                self.carried_out += 1;
                self.carry_out(command);
            } else if self.pool.is_starved() && self.has_room() {
                // One at a time, so that each origin has its turn.
                if let Some(origin) = self.pool.next_starved()
                    && self.serve_first(origin)
                    && self.pool[origin].waiting.is_some()
                {
                    self.pool.starve(origin);
                }
            } else if let Some(origin) = self.pool.next_hungry() {
                self.serve_queue(origin);
            } else {
                break;
            }
        }
    }

    /// As [`settle`](Self::settle); what rests after it goes to the pool, and what pipelines have collected to their sockets.
    #[inline(always)]
    pub(super) fn settle_and_park(&mut self) {
        self.settle();
        if let Some(key) = self.resting.take() {
            self.park(key);
            // A link that could only be closed has made room.
            self.settle();
        }
        if !self.unwritten.is_empty() {
            self.flush_noted();
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Start(key, _) if self.draining => {
                if let Stage::New | Stage::Waiting { .. } = self.chains[key].stage {
                    self.chains[key].marks.set(Marks::CANCELLED);
                    self.cancel_chain(key);
                }
            }
            // Cancelled before it began: the command behind this one sees to it.
            Command::Start(key, _) if self.chains[key].marks.has(Marks::CANCELLED) => {}
            Command::Start(key, delay) => match (self.chains[key].stage, delay) {
                (Stage::Waiting { call }, delay) => self.wait(key, call, delay),
                (_, Duration::ZERO) => self.begin(key),
                (_, delay) => self.delay(key, delay),
            },
            Command::Cancel(id) => {
                if let Some(key) = self.chains.find(id) {
                    self.cancel_chain(key);
                }
            }
            Command::Resume(id) => {
                if let Some(key) = self.chains.find(id) {
                    self.resume_chain(key);
                }
            }
            Command::Wake(id) => {
                if let Some(key) = self.chains.find(id) {
                    self.wake_chain(key);
                }
            }
        }
    }

    /// Sends the chain's request for the first time.
    pub(super) fn begin(&mut self, key: ChainKey) {
        let chain = &mut self.chains[key];
        chain.attempts = 0;
        chain.marks.clear(Marks::OF_ONE_REQUEST);
        if !chain.marks.has(Marks::AT_HOME)
            && let Some(request) = &chain.request
        {
            let parts = Parts {
                scheme: request.scheme(),
                host: request.host(),
                port: request.port(),
                route: request.route().unwrap_or(&self.settings.route),
            };
            chain.origin = self.pool.enter(chain.origin.get(), parts).into();
            chain.marks.set(Marks::AT_HOME);
        }
        self.place(key);
    }

    /// Finds a link for the chain's request, or a place in the queue.
    pub(super) fn place(&mut self, key: ChainKey) {
        let Some(origin) = self.chains[key].origin.get() else {
            return;
        };
        // First in, first out: nobody overtakes those who wait already.
        let grant = match self.pool[origin].waiting {
            Some(_) => Grant::Wait,
            // Nor those of other origins who wait for room.
            None => self.obtain(origin, key, InLine::Last),
        };
        match grant {
            Grant::Reuse(link) => self.assign(link, key),
            Grant::Join(link) => self.join(link, key),
            Grant::Open => self.open(origin, key),
            Grant::Wait => {
                self.enqueue(origin, key);
                self.arm(key, None);
            }
        }
    }

    /// As [`place`](Self::place) for a request that is sent again: it had its turn, and keeps it.
    fn place_again(&mut self, key: ChainKey) {
        let Some(origin) = self.chains[key].origin.get() else {
            return;
        };
        match self.obtain(origin, key, InLine::First) {
            Grant::Reuse(link) => self.assign(link, key),
            Grant::Join(link) => self.join(link, key),
            Grant::Open => self.open(origin, key),
            Grant::Wait => {
                self.enqueue_first(origin, key);
                self.arm(key, None);
            }
        }
    }

    fn obtain(&mut self, origin: OriginKey, key: ChainKey, place: InLine) -> Grant {
        let chain = &self.chains[key];
        let wants_fresh = chain
            .request
            .as_ref()
            .is_some_and(Request::wants_fresh_connection);
        if !wants_fresh && !chain.marks.has(Marks::FRESH) {
            if let Some(link) = self
                .resting
                .filter(|link| self.links[*link].origin == origin)
            {
                self.resting = None;
                if self.is_fit(link) {
                    return Grant::Reuse(link);
                }
            }
            if let Some(link) = self.take_idle(origin) {
                return Grant::Reuse(link);
            }
            if let Some(link) = self.link_to_join(origin, key) {
                return Grant::Join(link);
            }
        }
        if self.pool[origin].links >= self.settings.max_links_per_origin {
            // A fresh connection is wanted: an idle one makes way.
            match self.pool.oldest_idle(origin) {
                Some(idle) => self.close_idle_link(idle),
                None => return Grant::Wait,
            }
        }
        if self.pool[origin].turned_away.is_some() {
            return Grant::Wait;
        }
        let overtakes = place == InLine::Last && self.pool.is_starved();
        if overtakes || !self.make_room() {
            self.pool.starve(origin);
            return Grant::Wait;
        }
        Grant::Open
    }

    fn has_room(&self) -> bool {
        let free = self.exhausted.is_none() && self.links.len() < self.settings.max_links;
        free || self.pool.oldest_idle_of_all().is_some()
    }

    /// Sees that one more link may be opened, at the price of the oldest idle one if need be.
    fn make_room(&mut self) -> bool {
        if self.exhausted.is_none() && self.links.len() < self.settings.max_links {
            return true;
        }
        let idle = self.pool.oldest_idle_of_all();
        if let Some(idle) = idle {
            self.close_idle_link(idle);
        }
        idle.is_some()
    }

    /// The newest idle link of an origin whose time is not over, and on which nothing stands
    /// unread.
    fn take_idle(&mut self, origin: OriginKey) -> Option<LinkKey> {
        let now = self.now_tick();
        loop {
            let key = self.pool.newest_idle(origin)?;
            let spot = self.pool.take(&mut self.links, key);
            let expires = self.wheel.tick_of(spot.timer);
            self.wheel.cancel(spot.timer);
            if expires > now {
                match self.is_idle_fit(key) {
                    true => return Some(key),
                    false => continue,
                }
            }
            // Its timer is due in this very turn. Those that are older are no better, unless a server gave them longer.
            self.close(key);
        }
    }

    /// Starts those at the head of an origin's queue for whom there is a link or room for one.
    fn serve_queue(&mut self, origin: OriginKey) {
        while self.serve_first(origin) {}
    }

    /// Starts the first in an origin's queue, if there is a link or room for it.
    fn serve_first(&mut self, origin: OriginKey) -> bool {
        let Some((first, _)) = self.pool[origin].waiting else {
            return false;
        };
        match self.obtain(origin, first, InLine::First) {
            Grant::Reuse(link) => {
                self.dequeue(first);
                self.assign(link, first);
            }
            Grant::Join(link) => {
                self.dequeue(first);
                self.join(link, first);
            }
            Grant::Open => {
                self.dequeue(first);
                self.open(origin, first);
            }
            Grant::Wait => return false,
        }
        true
    }

    /// Sees that a line is logged if the first of the origin's requests waits for long.
    fn watch_queue(&mut self, origin: OriginKey) {
        if self.pool[origin].watch.is_none()
            && let Some((first, _)) = self.pool[origin].waiting
        {
            let due = Self::tick_after(self.chains[first].started) + LONG_WAIT_MILLIS;
            let timer = self.wheel.arm(due, Timer::LongWait(origin));
            self.pool[origin].watch = Some(timer);
        }
    }

    /// Nobody waits in the origin's queue any more.
    fn unwatch_queue(&mut self, origin: OriginKey) {
        if let Some(timer) = self.pool[origin].watch.take() {
            self.wheel.cancel(timer);
        }
    }

    /// A request may have waited for long by now; its timer is gone.
    pub(super) fn on_long_wait(&mut self, origin: OriginKey) {
        self.pool[origin].watch = None;
        let Some((first, _)) = self.pool[origin].waiting else {
            return;
        };
        let due = Self::tick_after(self.chains[first].started) + LONG_WAIT_MILLIS;
        if due > self.now_tick() {
            return self.watch_queue(origin);
        }
        let waited = self.now_tick() - due + LONG_WAIT_MILLIS;
        if let Some(limit) = self.limit_reached(origin) {
            let id = self.chains.id(first);
            alert!(
                self,
                Limit,
                "{} {id:?}: has waited {waited} ms for a connection: {limit}",
                self.pool[origin].origin
            );
        }
    }

    /// Which limit of the configuration keeps an origin's requests from a connection of their own.
    pub(super) fn limit_reached(&self, origin: OriginKey) -> Option<String> {
        let of_origin = self.settings.max_links_per_origin;
        let of_all = self.settings.max_links;
        if self.pool[origin].links >= of_origin {
            Some(format!(
                "all {of_origin} connections to this origin are in use (max_connections_per_origin)"
            ))
        } else if self.links.len() >= of_all {
            Some(format!(
                "all {of_all} connections are in use (max_connections)"
            ))
        } else {
            None
        }
    }

    fn enqueue(&mut self, origin: OriginKey, key: ChainKey) {
        let before = self.pool[origin].waiting.map(|(_, last)| last);
        self.chains[key].stage = Stage::Queued {
            before: before.into(),
            behind: MaybeKey::NONE,
        };
        if let Some(last) = before
            && let Stage::Queued { behind, .. } = &mut self.chains[last].stage
        {
            *behind = key.into();
        }
        let first = self.pool[origin].waiting.map_or(key, |(first, _)| first);
        self.pool[origin].waiting = Some((first, key));
        self.watch_queue(origin);
    }

    /// Back to where it came from: it was the first, and is again.
    pub(super) fn enqueue_first(&mut self, origin: OriginKey, key: ChainKey) {
        let behind = self.pool[origin].waiting.map(|(first, _)| first);
        self.chains[key].stage = Stage::Queued {
            before: MaybeKey::NONE,
            behind: behind.into(),
        };
        if let Some(first) = behind
            && let Stage::Queued { before, .. } = &mut self.chains[first].stage
        {
            *before = key.into();
        }
        let last = self.pool[origin].waiting.map_or(key, |(_, last)| last);
        self.pool[origin].waiting = Some((key, last));
        self.watch_queue(origin);
    }

    pub(super) fn dequeue(&mut self, key: ChainKey) {
        let Stage::Queued { before, behind } = self.chains[key].stage else {
            return;
        };
        let Some(origin) = self.chains[key].origin.get() else {
            return;
        };
        let (before, behind) = (before.get(), behind.get());
        if let Some(before) = before
            && let Stage::Queued { behind: its, .. } = &mut self.chains[before].stage
        {
            *its = behind.into();
        }
        if let Some(behind) = behind
            && let Stage::Queued { before: its, .. } = &mut self.chains[behind].stage
        {
            *its = before.into();
        }
        let waiting = &mut self.pool[origin].waiting;
        *waiting = match (*waiting, before, behind) {
            (Some(_), None, None) | (None, ..) => None,
            (Some((_, last)), None, Some(behind)) => Some((behind, last)),
            (Some((first, _)), Some(before), None) => Some((first, before)),
            (Some(ends), Some(_), Some(_)) => Some(ends),
        };
        if waiting.is_none() {
            self.unwatch_queue(origin);
            self.forget_turned_away(origin);
        }
        self.chains[key].stage = Stage::New;
        self.chains[key].marks.clear(Marks::EXHAUSTED);
    }

    /// How long a link may be idle.
    fn idle_millis(&self, key: LinkKey) -> u64 {
        // RFC 9112 §9.3: a server's word on its own timeout; a second less, since it counts from when it sent the response.
        let told = self.links[key]
            .keep_alive
            .map(|seconds| (u64::from(seconds.get()) - 1) * 1000);
        told.map_or(self.settings.idle_timeout, |ms| {
            ms.min(self.settings.idle_timeout)
        })
    }

    /// Closes the idle links of an origin that have been silent since tick `since`: one that was
    /// given a request then has been silent to its deadline, as it is where the way to the server
    /// has gone. Those that answered later are alive.
    pub(super) fn close_silent_since(&mut self, origin: OriginKey, since: u64) {
        // In the order in which they came to the pool, so that those behind the first one to be
        // kept are younger.
        while let Some(oldest) = self.pool.oldest_idle(origin)
            && let State::Idle(spot) = &self.links[oldest].state
            && let parked = self.wheel.tick_of(spot.timer) - self.idle_millis(oldest)
            && parked <= since
        {
            debug!(
                "{:?} {}: closed, since another that rested as long was silent",
                self.links.token(oldest),
                self.origin_of(oldest)
            );
            self.close_idle_link(oldest);
        }
    }

    /// Keeps a link that rests, if it is worth keeping.
    pub(super) fn park(&mut self, key: LinkKey) {
        let origin = self.links[key].origin;
        let millis = self.idle_millis(key);
        let wanted_elsewhere = self.pool.is_starved() && self.exhausted.is_some();
        if millis == 0 || wanted_elsewhere || self.settings.max_idle_per_origin == 0 {
            return self.close(key);
        }
        let expires = Self::tick_after(self.now_micros).saturating_add(millis);
        let timer = self.wheel.arm(expires, Timer::Idle(key));
        let alone = Neighbours::NONE;
        let spot = Spot {
            of_origin: alone,
            of_all: alone,
            timer,
        };
        debug!("{:?} {}: idle", self.links.token(key), self.origin_of(key));
        let most = self.settings.max_idle_per_origin;
        if self.pool.put(&mut self.links, key, spot, most)
            && let Some(oldest) = self.pool.oldest_idle(origin)
        {
            self.close_idle_link(oldest);
        }
        self.quiet.on_parked(key);
        self.pool.feed(origin);
    }

    /// Takes a link out of the pool and closes it.
    pub(super) fn close_idle_link(&mut self, key: LinkKey) {
        let spot: Spot = self.pool.take(&mut self.links, key);
        self.wheel.cancel(spot.timer);
        self.close(key);
    }

    /// An idle link's time in the pool is over; its timer is gone.
    pub(super) fn on_idle_timer(&mut self, key: LinkKey) {
        debug!(
            "{:?} {}: idle for too long",
            self.links.token(key),
            self.origin_of(key)
        );
        self.pool.take(&mut self.links, key);
        self.close(key);
    }
}
