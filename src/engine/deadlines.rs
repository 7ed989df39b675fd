//! Delays and deadlines. A chain has one timer: its delay, or the nearer of its phase's deadline and the total one.

use std::time::Duration;

use mio::Token;

use crate::config::Clock;
use crate::engine::chains::{ChainKey, Marks, Stage};
use crate::engine::exchange::Failure;
use crate::engine::mode::Mode;
use crate::engine::turn::MOST_PUT_OFF;
use crate::engine::{Engine, Timer};
use crate::error::ErrorKind;
use crate::net::Readiness;
use crate::net::link::{LinkMarks, State};
use crate::net::slots::LinkKey;
use crate::net::tls::Session;

/// A deadline that has passed, whose link is to be looked at before anything comes of it.
#[derive(Debug)]
pub(super) struct Overdue {
    link: Token,
    chain: ChainKey,
    /// Which deadline: as long as the chain has this mark, nothing has come of it.
    mark: Marks,
    /// Bytes that may still be read for its sake, and until which tick.
    left: usize,
    until: u64,
    /// Turns in which its host was still being looked up.
    turns: u8,
}

/// More than a socket's receive buffer holds: who has read as much has read what was there when the
/// deadline passed. (Linux: the third number of `net.ipv4.tcp_rmem` is 6 MiB.)
const KERNEL_HOLDS: usize = 8 << 20;

/// And who has read for so long, too, unless more comes all the time.
const GRACE_MILLIS: u64 = 1000;

impl<S, M: Mode> Engine<S, M> {
    /// Lets a chain wait for its delay, counted from its submission.
    pub(super) fn delay(&mut self, key: ChainKey, delay: Duration) {
        self.chains[key].stage = Stage::Delayed;
        self.arm_delay(key, delay);
    }

    /// Has the chain's timer go off when `delay`, counted from its submission, is over.
    pub(super) fn arm_delay(&mut self, key: ChainKey, delay: Duration) {
        let micros = u64::try_from(delay.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        // What does not fit, or lies further off than any clock will run, is never.
        match self.chains[key]
            .started
            .checked_add(micros)
            .filter(|due| due >> 60 == 0)
        {
            Some(due) => self.set_timer(key, Self::tick_after(due)),
            None => self.disarm(key),
        }
    }

    /// The chain's timer has gone off.
    pub(super) fn on_chain_timer(&mut self, key: ChainKey) {
        self.chains[key].timer = None;
        match self.chains[key].stage {
            Stage::Delayed => {
                self.chains[key].started = self.now_micros;
                self.begin(key);
            }
            Stage::Waiting { call } => self.fall_due(key, call),
            Stage::Queued { .. } => {
                let chain = &self.chains[key];
                let entry = chain.origin.get().map(|origin| &self.pool[origin]);
                let is_turned_away = entry.is_some_and(|entry| entry.turned_away.is_some());
                let kind = match is_turned_away || chain.marks.has(Marks::EXHAUSTED) {
                    true => ErrorKind::Exhausted,
                    false => ErrorKind::Timeout,
                };
                self.fail_unlinked(key, kind);
            }
            Stage::New => self.fail_unlinked(key, ErrorKind::Timeout),
            Stage::Running { link } => self.look_before_timeout(key, link),
            Stage::Due { .. } | Stage::Failed | Stage::Reading => {}
        }
    }

    /// A deadline of a chain on a link has passed. It may have done so while the host was away, or
    /// while this engine had its hands full, and what was waited for may be there: that is no
    /// silence of the server's. So the link is looked at first.
    fn look_before_timeout(&mut self, key: ChainKey, link: LinkKey) {
        let is_over = self.total_is_over(key);
        let marks = &mut self.chains[key].marks;
        match &self.links[link].state {
            _ if marks.has(Marks::OVER) => return,
            // Nothing that could have come would be read.
            _ if marks.has(Marks::PAUSED) => return self.time_out(key, link),
            State::TurnedAway { .. } => return self.time_out(key, link),
            State::Dialing { .. }
            | State::Connecting { .. }
            | State::Handshaking { .. }
            | State::Busy { .. }
            | State::Resting
            | State::Idle(_) => {}
        }
        let mark = match is_over {
            true => Marks::OVER,
            false => Marks::LATE,
        };
        marks.set(mark);
        self.overdue.push_back(Overdue {
            link: self.links.token(link),
            chain: key,
            mark,
            left: KERNEL_HOLDS,
            until: self.now_tick() + GRACE_MILLIS,
            turns: 0,
        });
    }

    /// Looks at the links on which a deadline has passed, and ends the exchanges that have not gone
    /// on by that.
    pub(super) fn on_overdue(&mut self, state: &mut S, budget: &mut usize) {
        for _ in 0..self.overdue.len() {
            if *budget == 0 || self.panic.is_some() {
                return;
            }
            let Some(mut overdue) = self.overdue.pop_front() else {
                return;
            };
            let Some(link) = self.overdue_link(&overdue) else {
                continue;
            };
            if self.is_looked_up(link) {
                // The resolver's sockets are not known here. Where the poll may have more to tell
                // of them, they have some more turns.
                overdue.turns += 1;
                match overdue.turns < MOST_PUT_OFF && self.may_hear_more() {
                    true => self.overdue.push_back(overdue),
                    false => self.time_out(overdue.chain, link),
                }
                continue;
            }
            let both = Readiness::READABLE.with(Readiness::WRITABLE);
            self.links[link].readiness = self.links[link].readiness.with(both);
            let before = self.counts.bytes_in;
            self.on_link(state, link, budget);
            self.settle_and_park();
            let Some(link) = self.overdue_link(&overdue) else {
                continue;
            };
            let read = usize::try_from(self.counts.bytes_in - before).unwrap_or(usize::MAX);
            overdue.left = overdue.left.saturating_sub(read);
            let may_go_on = overdue.left > 0 && self.now_tick() < overdue.until;
            if may_go_on && self.is_unread(link) {
                self.overdue.push_back(overdue);
            } else {
                self.time_out(overdue.chain, link);
            }
        }
    }

    /// The link on which a deadline is overdue; `None` where the chain has gone on.
    fn overdue_link(&mut self, overdue: &Overdue) -> Option<LinkKey> {
        let chain = self.chains.get_mut(overdue.chain)?;
        let link = self.links.find(overdue.link);
        let is_there = link.is_some_and(|link| chain.stage == Stage::Running { link });
        if is_there && chain.marks.has(overdue.mark) {
            return link;
        }
        let is_due = chain.marks.has(overdue.mark);
        chain.marks.clear(overdue.mark);
        let waits = matches!(chain.stage, Stage::Queued { .. } | Stage::Running { .. });
        if is_due && waits && chain.timer.is_none() {
            // Its link has ended, and it is sent elsewhere: there it is looked at anew.
            self.arm(overdue.chain, None);
        }
        None
    }

    fn is_looked_up(&self, key: LinkKey) -> bool {
        matches!(&self.links[key].state, State::Dialing { dial, .. } if !dial.has_begun())
    }

    /// Whether the poll may know more than was dealt with in this turn.
    pub(super) fn may_hear_more(&self) -> bool {
        !self.quiet.has_heard_all() || self.next_event < self.batch.len()
    }

    /// Whether more may be read from a link at once.
    fn is_unread(&self, key: LinkKey) -> bool {
        let link = &self.links[key];
        let chain = match link.state {
            State::Busy { chain, .. } | State::Handshaking { chain } => chain,
            _ => return false,
        };
        let pending = link.session.as_ref().is_some_and(Session::has_pending);
        let is_readable = pending || link.readiness.has(Readiness::READ_SIDE);
        is_readable && !self.chains[chain].marks.has(Marks::PAUSED)
    }

    /// A deadline of a chain on a link has passed in vain.
    fn time_out(&mut self, key: ChainKey, link: LinkKey) {
        // Behind others on its link, it has the total deadline alone.
        if self.links[link].chain() != Some(key) {
            return self.fail_behind(link, key, ErrorKind::Timeout);
        }
        let over = self.total_is_over(key);
        let marks = &mut self.links[link].marks;
        if marks.has(LinkMarks::AWAITING) && !over {
            marks.clear(LinkMarks::AWAITING.and(LinkMarks::BODY_HELD));
            let received = marks.has(LinkMarks::RECEIVED);
            let clock = if received { Clock::Idle } else { Clock::Write };
            self.arm(key, Some(clock));
            self.flush(link);
        } else {
            self.fail(link, Failure::Timeout);
        }
    }

    /// Arms the deadline of a chain's phase, which begins now, or the total one if that is nearer.
    pub(super) fn arm(&mut self, key: ChainKey, clock: Option<Clock>) {
        let (total, chain) = (self.total_tick(key), &self.chains[key]);
        let phase = chain
            .request
            .as_ref()
            .zip(clock)
            .and_then(|(request, clock)| request.timeouts().get(clock, &self.settings.timeouts))
            .map(|ms| Self::tick_after(self.now_micros) + u64::from(ms));
        match (phase, total) {
            (Some(phase), Some(total)) => self.set_timer(key, phase.min(total)),
            (Some(tick), None) | (None, Some(tick)) => self.set_timer(key, tick),
            (None, None) => self.disarm(key),
        }
    }

    /// Has the chain's timer go off at `tick`, or at the total deadline if that is nearer.
    pub(super) fn arm_at(&mut self, key: ChainKey, tick: u64) {
        let tick = self.total_tick(key).map_or(tick, |total| tick.min(total));
        self.set_timer(key, tick);
    }

    fn set_timer(&mut self, key: ChainKey, tick: u64) {
        let chain = &mut self.chains[key];
        chain.marks.clear(Marks::LATE);
        let timer = &mut chain.timer;
        match *timer {
            Some(timer) => self.wheel.rearm(timer, tick),
            None => *timer = Some(self.wheel.arm(tick, Timer::Chain(key))),
        }
    }

    /// When the chain's total deadline is.
    pub(super) fn total_tick(&self, key: ChainKey) -> Option<u64> {
        let chain = &self.chains[key];
        let ms = chain
            .request
            .as_ref()?
            .timeouts()
            .get(Clock::Total, &self.settings.timeouts)?;
        Some(Self::tick_after(chain.started) + u64::from(ms))
    }

    pub(super) fn total_is_over(&self, key: ChainKey) -> bool {
        self.total_tick(key)
            .is_some_and(|total| total <= self.now_tick())
    }

    /// Which deadline passed, and how long it was.
    pub(super) fn timeout_text(&self, key: ChainKey, clock: Clock) -> String {
        let request = self.chains[key].request.as_ref();
        let ms = request.and_then(|request| request.timeouts().get(clock, &self.settings.timeouts));
        let time = Duration::from_millis(ms.unwrap_or_default().into());
        format!("{} timeout of {time:?}", clock.as_str())
    }

    pub(super) fn disarm(&mut self, key: ChainKey) {
        let chain = &mut self.chains[key];
        chain.marks.clear(Marks::LATE);
        if let Some(timer) = chain.timer.take() {
            self.wheel.cancel(timer);
        }
    }

    /// Microseconds since the chain's request was submitted, at least 1 so that 0 can stand for "not yet".
    pub(super) fn since_start(&self, key: ChainKey) -> u32 {
        let micros = self.now_micros.saturating_sub(self.chains[key].started);
        u32::try_from(micros).unwrap_or(u32::MAX).max(1)
    }
}
