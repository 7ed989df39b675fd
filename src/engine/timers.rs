//! What is due by time: chains' delays and deadlines, idle links, look-ups.

use log::debug;

use crate::engine::agenda::Overdue;
use crate::engine::alerts::alert;
use crate::engine::chain::{ChainKey, Marks, Stage};
use crate::engine::clock::tick_after;
use crate::engine::core::{Core, Timer};
use crate::engine::fail::Failure;
use crate::engine::waiting::LONG_WAIT_MILLIS;
use crate::error::ErrorKind;
use crate::h1::exchange::{Exchange, Upload};
use crate::net::Net;
use crate::net::link::Reach;
use crate::net::pool::OriginKey;
use crate::net::slots::LinkKey;
use crate::timeouts::Timeout;

/// Timers that a turn moves nearer to when they are due. A million of them may have to be moved at
/// one moment.
const MAX_DEALT_OUT: usize = 16_384;

/// More than a socket's receive buffer holds: who has read as much has read what was there when the
/// deadline passed. (Linux: the third number of `net.ipv4.tcp_rmem` is 6 MiB.)
const KERNEL_HOLDS: usize = 8 << 20;

/// And who has read for so long, too, unless more comes all the time.
const GRACE_MILLIS: u64 = 1000;

impl<N: Net> Core<N> {
    /// Links whose names are known by now go on.
    #[inline]
    pub(super) fn on_names(&mut self) {
        // What the resolver waits for may have come while the host was away, and the poll has not
        // told of it yet.
        let (may_hear_more, now) = (self.may_hear_more(), self.clock.now());
        if self.lookups.puts_off(may_hear_more, now) {
            return;
        }
        self.lookups.names.on_turn(self.clock.now());
        // A look-up may have been begun and given up since: its news are that there are none.
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

    /// Deals with the timers that have gone off.
    #[inline]
    pub(super) fn on_timers(&mut self) {
        self.timers.allow(MAX_DEALT_OUT);
        // A policy may take its time: what is due by then is for the next turn.
        let now = self.clock.tick();
        for expired in 0..self.settings.turn_events {
            match self.timers.expire(now) {
                None if expired == 0 => return,
                None => break,
                Some(Timer::Chain(key)) => self.on_chain_timer(key),
                Some(Timer::Idle(key)) => self.on_idle_timer(key),
                Some(Timer::Dial(key)) => self.on_dial_timer(key),
                Some(Timer::Exhausted) => self.exhausted = None,
                Some(Timer::LongWait(origin)) => self.on_long_wait(origin),
                Some(Timer::TurnedAway(origin)) => self.pool.try_again(origin),
            }
        }
        self.settle_and_park();
    }

    /// The chain's timer has gone off.
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
            Stage::Due { .. } | Stage::Failed | Stage::Reading | Stage::Retired => {}
        }
    }

    /// A deadline of a chain on a link has passed. It may have done so while the host was away, or
    /// while this engine had its hands full, and what was waited for may be there: that is no
    /// silence of the server's. So the link is looked at first.
    fn look_before_timeout(&mut self, key: ChainKey, link: LinkKey) {
        let is_over = self.total_is_over(key);
        let marks = &mut self.chains[key].marks;
        match &self.links[link].reach {
            _ if marks.has(Marks::OVER) => return,
            // Nothing that could have come would be read.
            _ if marks.has(Marks::PAUSED) => return self.time_out(key, link),
            Reach::Waiting { .. } => return self.time_out(key, link),
            Reach::Dialing(..)
            | Reach::Connecting(..)
            | Reach::Shaking(..)
            | Reach::Open(..)
            | Reach::Idle(..)
            | Reach::Closed => {}
        }
        let mark = if is_over { Marks::OVER } else { Marks::LATE };
        marks.set(mark);
        self.agenda.overdue.push_back(Overdue {
            link: self.links.token(link),
            chain: key,
            mark,
            left: KERNEL_HOLDS,
            until: self.clock.tick() + GRACE_MILLIS,
            turns: 0,
        });
    }

    /// A deadline of a chain on a link has passed in vain.
    pub(super) fn time_out(&mut self, key: ChainKey, link: LinkKey) {
        // Behind others on its link, it has the total deadline alone.
        if self.links[link].chain() != Some(key) {
            return self.fail_behind(link, key, ErrorKind::Timeout);
        }
        let is_over = self.total_is_over(key);
        let front = self.links[link].h1.front_mut();
        let waits = |front: &&mut Exchange<_>| front.upload == Upload::AwaitingContinue;
        if let Some(front) = front.filter(waits)
            && !is_over
        {
            // Enough waited for a 100 (Continue): the body goes out without one.
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

    /// Whether the poll may know more than was dealt with in this turn.
    pub(super) fn may_hear_more(&self) -> bool {
        !self.quiet.has_heard_all() || self.agenda.events.has_rest()
    }

    /// A request may have waited for long by now; its timer is gone.
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

    /// An idle link's time in the pool is over; its timer is gone.
    fn on_idle_timer(&mut self, key: LinkKey) {
        debug!(
            "{:?} {}: idle for too long",
            self.links.token(key),
            self.origin_of(key)
        );
        self.pool.take(&mut self.links, key);
        self.close(key);
    }
}
