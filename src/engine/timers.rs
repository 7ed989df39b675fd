//! Everything that is due at a point in time: delays and deadlines of chains, idle links and
//! lookups.

use log::debug;

use crate::engine::agenda::Overdue;
use crate::engine::alerts::alert;
use crate::engine::chain::{ChainKey, Marks, Stage};
use crate::engine::clock::tick_after;
use crate::engine::core::{Core, Timer};
use crate::engine::fail::Failure;
use crate::engine::meter::Verdict;
use crate::engine::outbox::Until;
use crate::engine::waiting::LONG_WAIT_MILLIS;
use crate::error::ErrorKind;
use crate::h1::exchange::Exchange;
use crate::net::link::Reach;
use crate::net::pool::OriginKey;
use crate::net::slots::LinkKey;
use crate::net::{Net, Readiness};
use crate::timeouts::Timeout;

/// The number of timers that one turn may move down to a lower level of the wheel. A million of
/// them may have to be moved at the same moment.
const MAX_DEALT_OUT: usize = 16_384;

/// More bytes than a socket's receive buffer holds: once this many have been read, everything that
/// was there when the deadline passed has been read. (On Linux the third number of
/// `net.ipv4.tcp_rmem` is 6 MiB.)
const KERNEL_HOLDS: usize = 8 << 20;

/// The same limit in time, for a link that keeps receiving.
const GRACE_MILLIS: u64 = 1000;

impl<N: Net> Core<N> {
    /// Continues the links whose lookups have ended.
    #[inline]
    pub(super) fn on_names(&mut self) {
        // The answers that the resolver waits for may have arrived while the host was away,
        // although the poll has not reported them yet.
        let (may_hear_more, now) = (self.may_hear_more(), self.clock.now());
        if self.lookups.puts_off(may_hear_more, now) {
            return;
        }
        self.lookups.names.on_turn(self.clock.now());
        // Lookups may be abandoned before they have a result. Then there is nothing to process.
        if !self.lookups.names.is_busy() && !self.lookups.names.has_news() {
            return;
        }
        while let Some(answered) = self.lookups.names.next_answer(self.clock.now()) {
            for token in answered.links {
                if let Some(key) = self.links.find(token) {
                    self.on_answered(key, answered.family, answered.addresses.clone());
                }
            }
            self.settle_and_park();
        }
    }

    /// Handles the timers that have gone off.
    #[inline]
    pub(super) fn on_timers(&mut self) {
        self.timers.allow(MAX_DEALT_OUT);
        // Read once: policies may run for a long time, and timers that expire meanwhile are left to
        // the next turn.
        let now = self.clock.tick();
        for expired in 0..self.settings.turn_events {
            match self.timers.expire(now) {
                None if expired == 0 => return,
                None => break,
                Some(Timer::Chain(key)) => self.on_chain_timer(key),
                Some(Timer::ChainDeadline(key)) => self.on_chain_deadline(key),
                Some(Timer::Meter(key)) => self.on_meter_timer(key),
                Some(Timer::Tunnel(key)) => self.on_tunnel_timer(key),
                Some(Timer::Idle(key)) => self.on_idle_timer(key),
                Some(Timer::Dial(key)) => self.on_dial_timer(key),
                Some(Timer::Ahead(key)) => self.on_ahead_timer(key),
                Some(Timer::Exhausted) => self.exhausted = None,
                Some(Timer::LongWait(origin)) => self.on_long_wait(origin),
                Some(Timer::TurnedAway(origin)) => self.pool.try_again(origin),
            }
        }
        self.settle_and_park();
    }

    /// Handles a chain's timer that has gone off.
    pub(super) fn on_chain_timer(&mut self, key: ChainKey) {
        self.chains[key].timer = None;
        match self.chains[key].stage {
            Stage::HeldBack { .. } if self.total_is_over(key) => self.end_in_visit(key),
            Stage::HeldBack { .. } => self.ask_start(key),
            Stage::Delayed => {
                self.chains[key].submitted = self.clock.micros();
                self.begin(key);
            }
            Stage::Waiting { call } => self.fall_due(key, call),
            Stage::Queued { .. } => {
                let chain = &self.chains[key];
                let entry = chain.origin.get().map(|origin| &self.pool[origin]);
                let is_turned_away = entry.is_some_and(|entry| entry.turned_away.is_some());
                let kind = if is_turned_away || chain.marks.has(Marks::EXHAUSTED) {
                    ErrorKind::Exhausted
                } else {
                    ErrorKind::Timeout
                };
                self.fail_unlinked(key, kind);
            }
            Stage::New => self.fail_unlinked(key, ErrorKind::Timeout),
            Stage::Running { link } => self.look_before_timeout(key, link),
            // The timer has no meaning until the chain's next step moves it.
            Stage::Due { .. } | Stage::Failed | Stage::Reading | Stage::Retired => {}
        }
    }

    /// Handles the deadline of a chain as a whole, which has passed.
    fn on_chain_deadline(&mut self, key: ChainKey) {
        if let Some(deadline) = self.chains.deadlines.get_mut(key) {
            deadline.timer = None;
        }
        self.expire(key);
    }

    /// Ends what a chain is doing, because the deadline of the chain as a whole has passed.
    pub(super) fn expire(&mut self, key: ChainKey) {
        match self.chains[key].stage {
            Stage::New | Stage::Delayed | Stage::HeldBack { .. } | Stage::Queued { .. } => {
                self.fail_unlinked(key, ErrorKind::Timeout);
            }
            Stage::Waiting { call } => self.fail_wait(key, call, ErrorKind::Timeout),
            Stage::Running { link } => self.look_before_timeout(key, link),
            // A due call is dropped when its turn comes. A result that is there is delivered, and
            // the step that the readback then returns does not begin.
            Stage::Due { .. } | Stage::Failed | Stage::Reading | Stage::Retired => {}
        }
    }

    /// Schedules a check of the link before an expired deadline of its chain takes effect. The
    /// deadline may have passed while the host was away or the engine was busy. If the awaited
    /// bytes have arrived, the server has not been silent.
    fn look_before_timeout(&mut self, key: ChainKey, link: LinkKey) {
        let is_over = self.total_is_over(key);
        let marks = self.chains[key].marks;
        match &self.links[link].reach {
            _ if marks.has(Marks::OVER) => return,
            // Nothing would be read, even if it had arrived.
            _ if marks.has(Marks::PAUSED) => return self.time_out(key, link),
            // There is no socket yet, so there is nothing to check.
            Reach::Waiting { .. } => return self.time_out(key, link),
            Reach::Dialing(..)
            | Reach::Connecting(..)
            | Reach::Shaking(..)
            | Reach::Open(..)
            | Reach::Idle(..)
            | Reach::Closed => {}
        }
        let mark = if is_over { Marks::OVER } else { Marks::LATE };
        self.look_first(key, link, mark);
    }

    /// Schedules a check of the link before something of its chain takes effect that is over, as
    /// `mark` says.
    fn look_first(&mut self, key: ChainKey, link: LinkKey, mark: Marks) {
        self.chains[key].marks.set(mark);
        self.agenda.overdue.push_back(Overdue {
            link: self.links.token(link),
            chain: key,
            mark,
            left: KERNEL_HOLDS,
            until: self.clock.tick() + GRACE_MILLIS,
            turns: 0,
        });
    }

    /// Handles the timer of a chain's meter that has gone off.
    #[inline(never)]
    fn on_meter_timer(&mut self, key: ChainKey) {
        let (nanos, micros) = (self.nanos(), self.clock.micros());
        let Some(meter) = self.meters.get_mut(key) else {
            return;
        };
        meter.timer = None;
        let Stage::Running { link } = self.chains[key].stage else {
            return;
        };
        let reads = meter.download.as_mut().is_some_and(|it| it.let_go(nanos));
        let writes = meter.upload.as_mut().is_some_and(|it| it.let_go(nanos));
        let is_slow = meter.window.as_mut().is_some_and(|it| it.on_time(micros));
        if is_slow {
            self.look_first(key, link, Marks::SLOW);
        }
        if !reads && !writes {
            return self.arm_meter(key);
        }
        self.arm_again(link, key, reads);
        if reads {
            self.run_later(link);
        }
        if writes {
            // No event reports that the cap allows more. The write shows whether the socket does.
            let readiness = &mut self.links[link].readiness;
            *readiness = readiness.with(Readiness::WRITABLE);
            self.flush(link);
        }
    }

    /// Handles the timer of a chain's tunnel that has gone off.
    #[inline(never)]
    fn on_tunnel_timer(&mut self, key: ChainKey) {
        let chain = &self.chains[key];
        let is_paused = chain.marks.has(Marks::PAUSED);
        let Stage::Running { link } = chain.stage else {
            return;
        };
        let outbox = self.chains.outbox(key);
        let Some(deadline) = outbox.and_then(|outbox| outbox.deadline.take()) else {
            return;
        };
        match deadline.until {
            // The server may be waiting until the program reads again, and what it has sent by then
            // is not read.
            until if is_paused => self.arm_tunnel(key, until),
            // Another source has taken the place of the one that has ended.
            Until::Closes if self.chains.outbox(key).is_some_and(|it| it.has_source()) => {}
            until if !deadline.has_passed => {
                self.put_off_tunnel(key, until);
                let readiness = &mut self.links[link].readiness;
                *readiness = readiness.with(Readiness::WRITABLE);
                self.run_later(link);
            }
            until => {
                let text = self.tunnel_text(key, until);
                self.fail(link, Failure::Slow(text));
            }
        }
    }

    /// Ends the window in which a chain was too slow, unless what has been read since then
    /// suffices.
    pub(super) fn end_window(&mut self, key: ChainKey, link: LinkKey) {
        self.chains[key].marks.clear(Marks::SLOW);
        let now = self.clock.micros();
        let meter = self.meters.get_mut(key);
        let Some(window) = meter.and_then(|meter| meter.window.as_mut()) else {
            return;
        };
        match window.judge(now) {
            Verdict::GoesOn => self.arm_meter(key),
            Verdict::TooSlow => {
                let text = window.text(now);
                self.fail(link, Failure::Slow(text));
            }
        }
    }

    /// Applies a deadline that passed without any progress.
    pub(super) fn time_out(&mut self, key: ChainKey, link: LinkKey) {
        // A request behind others on its link has only its total deadline.
        if self.links[link].chain() != Some(key) {
            return self.fail_behind(link, key, ErrorKind::Timeout);
        }
        let is_over = self.total_is_over(key);
        let front = self.links[link].h1.front_mut();
        let waits = |front: &&mut Exchange<_>| front.awaits_continue();
        if let Some(front) = front.filter(waits)
            && !is_over
        {
            // The wait for a 100 (Continue) has ended without one, so the body is sent anyway.
            front.go_on();
            let clock = if front.is_answered() {
                Timeout::Idle
            } else {
                Timeout::Write
            };
            self.arm(key, Some(clock));
            self.flush(link);
        } else {
            self.fail(link, Failure::Timeout);
        }
    }

    /// Returns whether the poll may have more to report than this turn has processed.
    pub(super) fn may_hear_more(&self) -> bool {
        !self.quiet.has_heard_all() || self.agenda.events.has_rest()
    }

    /// Warns if a request has waited long in the origin's queue. The timer has already been
    /// removed.
    fn on_long_wait(&mut self, origin: OriginKey) {
        self.pool[origin].watch = None;
        let Some((first, _)) = self.pool[origin].waiting else {
            return;
        };
        let due = tick_after(self.chains[first].submitted) + LONG_WAIT_MILLIS;
        if due > self.clock.tick() {
            return self.watch_queue(origin);
        }
        let waited = self.clock.tick() - due + LONG_WAIT_MILLIS;
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

    /// Closes an idle link whose time in the pool is over. The timer has already been removed.
    fn on_idle_timer(&mut self, key: LinkKey) {
        debug!(
            "{:?} {}: closed after its idle timeout",
            self.links.token(key),
            self.origin_of(key)
        );
        self.pool.take(&mut self.links, key);
        self.close(key);
    }
}
