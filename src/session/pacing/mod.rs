//! Holds requests back until the rates of their session and the bounds of their lane let them
//! through.
//!
//! A request enters its lane when it begins and leaves it when its readback is called. For each
//! exchange, it takes a token of its lane and one of the session:
//!
//! ```text
//!  lane "a"   ┌─ waiting, by priority ─┐  first ─┐
//!  lane "b"   └────────────────────────┘  first ─┼─► the line: a lane at a time ─► exchange
//!  lane "c"                               first ─┘
//!             a place in the lane, its tokens          the session's tokens
//! ```
//!
//! Only the first request of a lane may stand in the line, so lanes take turns however many
//! requests each has. A request that knows when it may go on waits by a timer of its own; all
//! others are woken by the one before them. So the work for a request does not grow with the number
//! of lanes or of waiting requests, apart from their order by priority.
//!
//! A request that waits holds no connection. One that leaves, for whatever reason, passes on what
//! it had: see the destructor of [`Place`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::policy::{Moment, Start};
use crate::session::rate::Rate;

mod tokens;

use tokens::{Pace, Ready, Tokens};

/// The most requests that wait in a lane, by default.
pub(super) const MAX_WAITING: usize = 10_000;

/// How many idle lanes are looked at, to be forgotten, when a request enters one.
const SWEPT: usize = 2;

/// The rates and bounds of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    rate: Option<Pace>,
    lane_rate: Option<Pace>,
    lane_concurrency: usize,
    max_waiting: usize,
}

/// The lanes of a session, on all threads.
pub(super) struct Pacing {
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clock: Clock,
    tokens: Tokens,
    lanes: Slab<Lane>,
    by_name: HashMap<Arc<str>, usize>,
    /// The lane of the requests that name none.
    nameless: Option<usize>,
    /// The lanes whose first requests wait for a token of the session.
    line: VecDeque<usize>,
    /// Lanes without requests, which are forgotten once their tokens are back.
    idle: VecDeque<usize>,
    waiting: usize,
    /// The number of requests that have entered.
    entered: u64,
}

/// The time of all engines in which the session is used, in microseconds: the latest of their
/// readings.
#[derive(Default)]
struct Clock {
    epoch: Option<Instant>,
    now: u64,
}

struct Lane {
    name: Option<Arc<str>>,
    tokens: Tokens,
    /// Until when the server has asked to send nothing.
    held_until: u64,
    /// Requests that are in the lane.
    members: usize,
    /// Those of them that have a place.
    running: usize,
    /// Those that wait for a place or a token. The waker is that of a request that waits to be
    /// woken, until it is.
    waiting: BTreeMap<Key, Option<Waker>>,
    is_in_line: bool,
    is_in_idle: bool,
}

/// Requests that have a place come first, since they have begun; then those of higher priority, and
/// then those that entered first.
type Key = (bool, Reverse<i8>, u64);

/// A request that is in a lane. Dropping it leaves the lane.
pub(super) struct Place {
    pacing: Arc<Pacing>,
    lane: usize,
    priority: i8,
    number: u64,
    has_place: bool,
    is_waiting: bool,
    token: Token,
}

/// The tokens of a request's current exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    None,
    /// The exchange has not been sent; the numbers of its tokens of the lane and of the session.
    Taken {
        of_lane: u64,
        of_session: u64,
    },
    /// The exchange has been sent; its numbers among those that are.
    Sent {
        of_lane: u64,
        of_session: u64,
    },
}

/// How a request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Go,
    Until(u64),
    UntilWoken,
}

/// The requests to wake, once the lock is released.
#[derive(Default)]
struct Woken(Vec<Waker>);

impl Woken {
    fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

/// The queue of a lane is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaneFull(usize);

impl fmt::Display for LaneFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests wait in its lane already (max_waiting)",
            self.0
        )
    }
}

impl StdError for LaneFull {}

/// The state of one [lane](crate::RequestBuilder::lane) of a session, returned by
/// [`Session::lane`](super::Session::lane).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStats {
    /// Requests that wait for the ones before them, or for a rate. Those that have begun, and wait
    /// for the rate to be retried or redirected, are among them.
    pub waiting: usize,
    /// Requests that have begun and whose readback has not been called yet, also while they wait
    /// for a retry.
    pub running: usize,
}

impl Bounds {
    pub(super) fn new(
        rate: Option<Rate>,
        lane_rate: Option<Rate>,
        lane_concurrency: Option<usize>,
        max_waiting: Option<usize>,
    ) -> Self {
        Self {
            rate: rate.map(Pace::new),
            lane_rate: lane_rate.map(Pace::new),
            lane_concurrency: lane_concurrency.unwrap_or(usize::MAX),
            max_waiting: max_waiting.unwrap_or(MAX_WAITING),
        }
    }
}

impl Pacing {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            state: Mutex::default(),
        }
    }

    /// Enters the lane with this name. `None` means that nothing holds the request back.
    pub(super) fn enter(self: &Arc<Self>, name: Option<&str>, priority: i8) -> Option<Place> {
        if name.is_none() && self.bounds.rate.is_none() {
            return None;
        }
        let mut state = self.state();
        state.forget_idle(&self.bounds);
        state.entered += 1;
        Some(Place {
            lane: state.enter(name),
            number: state.entered,
            pacing: Arc::clone(self),
            priority,
            has_place: false,
            is_waiting: false,
            token: Token::None,
        })
    }

    /// Returns how many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting
    }

    /// Returns the state of a lane.
    pub(super) fn lane(&self, name: &str) -> LaneStats {
        let state = self.state();
        let lane = state.by_name.get(name);
        lane.map_or_else(LaneStats::default, |&lane| LaneStats {
            waiting: state.lanes[lane].waiting.len(),
            running: state.lanes[lane].running,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock would be a mistake in this file. The session goes on then.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn key(&self) -> Key {
        (!self.has_place, Reverse(self.priority), self.number)
    }

    /// Called before each exchange, and again after each wait.
    ///
    /// # Errors
    /// Too many requests wait.
    pub(super) fn start(&mut self, at: &Moment<'_>) -> Result<Start, LaneFull> {
        let pacing = Arc::clone(&self.pacing);
        let mut woken = Woken::default();
        let mut state = pacing.state();
        let now = state.clock.read(at.now());
        self.end_exchange(&mut state);
        let start = match state.step(&pacing.bounds, self, &mut woken)? {
            Step::Go => {
                state.go(&pacing.bounds, self, &mut woken);
                Start::Now
            }
            Step::Until(time) => {
                state.wait(self, None);
                Start::After(Duration::from_micros(time - now))
            }
            Step::UntilWoken => {
                state.wait(self, Some(at.waker()));
                Start::Wait
            }
        };
        drop(state);
        woken.wake();
        Ok(start)
    }

    /// Called when the request is sent.
    pub(super) fn on_sent(&mut self, at: &Moment<'_>) {
        let pacing = Arc::clone(&self.pacing);
        let mut state = pacing.state();
        let now = state.clock.read(at.now());
        let lane = &mut state.lanes[self.lane];
        let (lane_rate, rate) = (lane.rate(&pacing.bounds), pacing.bounds.rate);
        let (of_lane, of_session) = match self.token {
            Token::None => return,
            Token::Taken {
                of_lane,
                of_session,
            } => (of_lane, of_session),
            // The engine sends the request again by itself, because a kept connection was closed.
            // The server may have seen it twice, so it takes two tokens.
            Token::Sent { .. } => (
                lane.tokens.take(lane_rate, now),
                state.tokens.take(rate, now),
            ),
        };
        let lane = &mut state.lanes[self.lane];
        self.token = Token::Sent {
            of_lane: lane.tokens.on_sent(lane_rate, of_lane, now),
            of_session: state.tokens.on_sent(rate, of_session, now),
        };
    }

    /// Called when the head of the response has arrived. An exchange that fails without one is not
    /// over for the server: the request may still be on its way.
    pub(super) fn on_answered(&mut self, at: &Moment<'_>) {
        let Token::Sent {
            of_lane,
            of_session,
        } = self.token
        else {
            return;
        };
        self.token = Token::None;
        let mut state = self.pacing.state();
        let now = state.clock.read(at.now());
        let bounds = &self.pacing.bounds;
        let lane = &mut state.lanes[self.lane];
        let rate = lane.rate(bounds);
        lane.tokens.on_answered(rate, of_lane, now);
        state.tokens.on_answered(bounds.rate, of_session, now);
    }

    /// Holds the lane back: the server has asked for this wait.
    pub(super) fn hold(&mut self, wait: Duration, at: &Moment<'_>) {
        let mut state = self.pacing.state();
        let now = state.clock.read(at.now());
        let lane = &mut state.lanes[self.lane];
        let wait = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        lane.held_until = lane.held_until.max(now.saturating_add(wait));
    }

    /// Gives back the tokens of an exchange that has not been sent.
    fn end_exchange(&mut self, state: &mut State) {
        if let Token::Taken {
            of_lane,
            of_session,
        } = self.token
        {
            state.lanes[self.lane].tokens.give_back(of_lane);
            state.tokens.give_back(of_session);
        }
        self.token = Token::None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let pacing = Arc::clone(&self.pacing);
        let mut woken = Woken::default();
        let mut state = pacing.state();
        self.end_exchange(&mut state);
        state.leave(&pacing.bounds, self, &mut woken);
        drop(state);
        woken.wake();
    }
}

impl Clock {
    fn read(&mut self, now: Instant) -> u64 {
        let epoch = *self.epoch.get_or_insert(now);
        let passed = now.saturating_duration_since(epoch).as_micros() as u64;
        self.now = self.now.max(passed);
        self.now
    }
}

impl Lane {
    /// Returns the rate of each lane. Requests without a lane have none.
    fn rate(&self, bounds: &Bounds) -> Option<Pace> {
        self.name.as_ref().and(bounds.lane_rate)
    }

    /// Returns whether the first request that waits has a place or can take one.
    fn has_room(&self, bounds: &Bounds) -> bool {
        let has_place = self.first().is_some_and(|&(is_new, ..)| !is_new);
        has_place || self.name.is_none() || self.running < bounds.lane_concurrency
    }

    fn first(&self) -> Option<&Key> {
        self.waiting.first_key_value().map(|(key, _)| key)
    }

    /// Takes the waker of the first request that waits, if it waits to be woken.
    fn take_first(&mut self) -> Option<Waker> {
        self.waiting.first_entry()?.get_mut().take()
    }
}

impl State {
    /// Returns the lane with this name, with one more member.
    fn enter(&mut self, name: Option<&str>) -> usize {
        let known = match name {
            Some(name) => self.by_name.get(name).copied(),
            None => self.nameless,
        };
        let lane = known.unwrap_or_else(|| self.insert(name.map(Arc::from)));
        self.lanes[lane].members += 1;
        lane
    }

    fn insert(&mut self, name: Option<Arc<str>>) -> usize {
        let lane = self.lanes.insert(Lane {
            name: name.clone(),
            tokens: Tokens::default(),
            held_until: 0,
            members: 0,
            running: 0,
            waiting: BTreeMap::new(),
            is_in_line: false,
            is_in_idle: false,
        });
        match name {
            Some(name) => drop(self.by_name.insert(name, lane)),
            None => self.nameless = Some(lane),
        }
        lane
    }

    /// Returns whether a request may begin its next exchange.
    ///
    /// # Errors
    /// Too many requests wait in its lane.
    fn step(
        &mut self,
        bounds: &Bounds,
        place: &Place,
        woken: &mut Woken,
    ) -> Result<Step, LaneFull> {
        let lane = &self.lanes[place.lane];
        let waiting = lane.waiting.len();
        let is_new = !place.is_waiting && !place.has_place;
        // Whatever its priority: each one that goes before the others would be one more.
        if is_new && waiting >= bounds.max_waiting {
            return Err(LaneFull(waiting));
        }
        if lane.first().is_some_and(|first| *first < place.key()) {
            return Ok(Step::UntilWoken);
        }
        let step = self.step_in_lane(bounds, place);
        if step != Step::Go {
            self.leave_line(place.lane, woken);
            return Ok(step);
        }
        Ok(self.step_in_line(bounds, place.lane))
    }

    /// Returns whether the first request of a lane may go on, as far as the lane is concerned.
    fn step_in_lane(&mut self, bounds: &Bounds, place: &Place) -> Step {
        let now = self.clock.now;
        let lane = &mut self.lanes[place.lane];
        let is_full = lane.name.is_some() && lane.running >= bounds.lane_concurrency;
        if !place.has_place && is_full {
            return Step::UntilWoken;
        }
        if lane.held_until > now {
            return Step::Until(lane.held_until);
        }
        match lane.tokens.ready(lane.rate(bounds), now) {
            Ready::Now => Step::Go,
            Ready::At(time) => Step::Until(time),
        }
    }

    /// Returns whether the first request of a lane may go on, as far as the session is concerned.
    /// The lane joins the line.
    fn step_in_line(&mut self, bounds: &Bounds, key: usize) -> Step {
        if bounds.rate.is_none() {
            return Step::Go;
        }
        let lane = &mut self.lanes[key];
        if !lane.is_in_line {
            lane.is_in_line = true;
            self.line.push_back(key);
        }
        if self.line.front() != Some(&key) {
            return Step::UntilWoken;
        }
        match self.tokens.ready(bounds.rate, self.clock.now) {
            Ready::Now => Step::Go,
            Ready::At(time) => Step::Until(time),
        }
    }

    /// Lets a request through, and wakes those behind it.
    fn go(&mut self, bounds: &Bounds, place: &mut Place, woken: &mut Woken) {
        self.stop_waiting(place);
        let now = self.clock.now;
        let lane = &mut self.lanes[place.lane];
        if !place.has_place {
            place.has_place = true;
            lane.running += 1;
        }
        place.token = Token::Taken {
            of_lane: lane.tokens.take(lane.rate(bounds), now),
            of_session: self.tokens.take(bounds.rate, now),
        };
        if lane.has_room(bounds) {
            woken.0.extend(lane.take_first());
        }
        self.leave_line(place.lane, woken);
    }

    /// Notes that a request waits. Without a waker, it asks again by itself.
    fn wait(&mut self, place: &mut Place, waker: Option<Waker>) {
        if !place.is_waiting {
            place.is_waiting = true;
            self.waiting += 1;
        }
        let waiting = &mut self.lanes[place.lane].waiting;
        waiting.insert(place.key(), waker);
    }

    fn stop_waiting(&mut self, place: &mut Place) {
        if std::mem::take(&mut place.is_waiting) {
            self.waiting -= 1;
            self.lanes[place.lane].waiting.remove(&place.key());
        }
    }

    /// Takes a lane off the front of the line, where its first request cannot go on, and wakes the
    /// next one.
    fn leave_line(&mut self, lane: usize, woken: &mut Woken) {
        if self.line.front() == Some(&lane) {
            self.line.pop_front();
            self.lanes[lane].is_in_line = false;
            self.wake_line(woken);
        }
    }

    /// Wakes the first request of the lane at the front of the line.
    fn wake_line(&mut self, woken: &mut Woken) {
        while let Some(&lane) = self.line.front() {
            let lane = &mut self.lanes[lane];
            if let Some(waker) = lane.take_first() {
                woken.0.push(waker);
                return;
            }
            // It has left, or it waits for something else by now and joins the line again.
            lane.is_in_line = false;
            self.line.pop_front();
        }
    }

    /// Takes a request out of its lane, and wakes those that it stood in the way of.
    fn leave(&mut self, bounds: &Bounds, place: &mut Place, woken: &mut Woken) {
        let was_first = self.lanes[place.lane].first() == Some(&place.key());
        self.stop_waiting(place);
        let lane = &mut self.lanes[place.lane];
        lane.members -= 1;
        lane.running -= usize::from(place.has_place);
        if was_first && self.line.front() == Some(&place.lane) {
            // The next of the lane goes on, or else the next lane.
            self.wake_line(woken);
        } else if was_first || place.has_place {
            woken.0.extend(lane.take_first());
        }
        self.forget_if_idle(place.lane, bounds);
    }

    /// Looks at a few lanes without requests, to forget them.
    fn forget_idle(&mut self, bounds: &Bounds) {
        for _ in 0..SWEPT.min(self.idle.len()) {
            if let Some(lane) = self.idle.pop_front() {
                self.lanes[lane].is_in_idle = false;
                self.forget_if_idle(lane, bounds);
            }
        }
    }

    /// Forgets a lane without requests if it is as new, or else notes that it is idle.
    fn forget_if_idle(&mut self, key: usize, bounds: &Bounds) {
        let now = self.clock.now;
        let lane = &mut self.lanes[key];
        if lane.members > 0 || lane.is_in_idle {
            return;
        }
        // An empty map keeps a node.
        lane.waiting = BTreeMap::new();
        let is_busy = lane.is_in_line
            || lane.held_until > now
            || !lane.tokens.is_full(lane.rate(bounds), now);
        if is_busy {
            lane.is_in_idle = true;
            self.idle.push_back(key);
            return;
        }
        match self.lanes.remove(key).name {
            Some(name) => drop(self.by_name.remove(&name)),
            None => self.nameless = None,
        }
    }
}

impl fmt::Debug for Pacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Pacing")
            .field("bounds", &self.bounds)
            .field("lanes", &state.lanes.len())
            .field("waiting", &state.waiting)
            .finish()
    }
}

#[cfg(test)]
mod tests;
