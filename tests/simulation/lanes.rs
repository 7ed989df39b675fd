//! The rates and lanes of sessions: their rules, and a model of who is in which lane.
//!
//! The model is told what a policy sees that is nested in the session: when a request begins, when
//! its session lets it through, when it is sent, and when it leaves. It says what the session must
//! not have done, and what it has no reason not to do.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use httpstream::session::{Rate, Session, SessionBuilder};
use httpstream::sim::Random;

use crate::plan::{MS, SECOND};

/// The names of the lanes. The first one is chosen most often.
pub(crate) const LANES: [&str; 5] = ["a", "a", "a", "b", "c"];

/// The longest time that a server holds back a lane.
pub(crate) const MAX_HOLD: Duration = Duration::from_secs(3600);

/// The least time in which requests are assumed to reach a server.
const LEAST_SLACK: Duration = SECOND;

/// How long a request that has not been sent keeps its token from others.
const PATIENCE: Duration = Duration::from_secs(10);

/// The sessions count in these.
const MICROSECOND: Duration = Duration::from_micros(1);

/// A timer goes off in the next tick but one, at the latest.
const TICKS: Duration = Duration::from_millis(2);

/// How a session limits its requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct LaneRules {
    pub(crate) rate: Option<Limit>,
    pub(crate) lane_rate: Option<Limit>,
    pub(crate) concurrency: Option<usize>,
    pub(crate) max_waiting: Option<usize>,
}

/// A bound on how often something is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    most: u32,
    window: Duration,
    burst: u32,
}

impl LaneRules {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let which = random.between(1, 7);
        Self {
            rate: (which & 1 != 0).then(|| Limit::draw(random)),
            lane_rate: (which & 2 != 0).then(|| Limit::draw(random)),
            concurrency: (which & 4 != 0).then(|| *random.pick(&[1, 1, 1, 2, 3])),
            max_waiting: random.chance(300).then(|| random.between(1, 4)),
        }
    }

    pub(crate) fn add_to(&self, mut builder: SessionBuilder) -> SessionBuilder {
        if let Some(rate) = self.rate {
            builder = builder.rate(rate.rate());
        }
        if let Some(rate) = self.lane_rate {
            builder = builder.lane_rate(rate.rate());
        }
        if let Some(most) = self.concurrency {
            builder = builder.lane_concurrency(most);
        }
        if let Some(most) = self.max_waiting {
            builder = builder.max_waiting(most);
        }
        builder
    }
}

impl Limit {
    fn draw(random: &mut Random) -> Self {
        let most = *random.pick(&[1, 2, 3, 5]);
        Self {
            most,
            window: *random.pick(&[50 * MS, 300 * MS, SECOND, 5 * SECOND]),
            burst: *random.pick(&[1, 1, 2, most, most + 1]),
        }
    }

    fn rate(self) -> Rate {
        Rate::new(self.most, self.window).burst(self.burst)
    }

    /// Returns the time within which requests are assumed to reach the server.
    fn slack(self) -> Duration {
        (self.window / 10).max(LEAST_SLACK)
    }

    /// Returns the time in which the bucket gets one more token.
    fn interval(self) -> Duration {
        let micros = self.window.as_micros() as u64 / u64::from(self.most);
        Duration::from_micros(micros)
    }

    /// Returns how far a full bucket is ahead. It makes up for timers that go off late.
    fn ahead(self) -> Duration {
        let others = self.burst.min(self.most) - 1;
        (self.interval() * others).max(TICKS.min(self.window))
    }

    /// Returns the time after which a request that waits notices that another one has given back
    /// its token, or was answered.
    fn glance(self) -> Duration {
        (self.window / 10).clamp(10 * MS, SECOND)
    }

    /// Returns whether some window has more of these times than it may.
    fn is_exceeded(self, times: &[Duration]) -> Option<&[Duration]> {
        let mut windows = times.windows(self.most as usize + 1);
        windows.find(|times| times[self.most as usize] - times[0] <= self.window)
    }
}

/// What is known of the tokens of a rate.
#[derive(Debug, Default)]
struct Meter {
    /// The tokens that are not back for sure, in the order in which they were taken.
    tokens: Vec<Token>,
    /// When the bucket is full.
    full_at: Duration,
    /// When requests arrived that came in time, except those that were sent although they had lost
    /// their token.
    arrived: Vec<Duration>,
}

/// A token that an exchange has taken.
#[derive(Clone, Copy, Debug)]
struct Token {
    visit: u64,
    taken: Duration,
    sent: Option<Duration>,
    answered: Option<Duration>,
    given_back: GivenBack,
}

/// Whether a token was given back that was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GivenBack {
    No,
    /// It is not known when.
    Sometime,
    /// At this time at the latest.
    By(Duration),
}

impl Token {
    /// Returns when the token is back: not before the first time, and not after the second one.
    fn back(&self, limit: Limit) -> (Duration, Duration) {
        match (self.sent, self.given_back) {
            (Some(sent), _) => {
                let latest = sent + limit.slack();
                let seen = self.answered.map_or(latest, |at| at.clamp(sent, latest));
                (seen + limit.window, seen + limit.window + MS)
            }
            (None, GivenBack::No) => (self.taken + PATIENCE, self.taken + PATIENCE),
            (None, GivenBack::Sometime) => (Duration::ZERO, self.taken + PATIENCE),
            (None, GivenBack::By(at)) => (Duration::ZERO, at.min(self.taken + PATIENCE)),
        }
    }
}

impl Meter {
    /// Notes that an exchange is let through. Returns what is wrong with that.
    fn take(&mut self, visit: u64, limit: Limit, now: Duration) -> Option<String> {
        let ahead = limit.ahead() + 2 * MICROSECOND;
        let out = self.tokens.iter();
        let out: Vec<_> = out
            .filter(|it| it.back(limit).0 > now + MICROSECOND)
            .collect();
        let wrong = if now + ahead < self.full_at {
            Some(format!("exceeds the burst of {limit:?}"))
        } else if out.len() >= limit.most as usize {
            Some(format!("exceeds {limit:?}, with {out:?}"))
        } else {
            None
        };
        self.add(visit, limit, now);
        wrong
    }

    fn add(&mut self, visit: u64, limit: Limit, now: Duration) {
        self.tokens.push(Token {
            visit,
            taken: now,
            sent: None,
            answered: None,
            given_back: GivenBack::No,
        });
        self.full_at = self.full_at.max(now) + limit.interval();
    }

    fn last(&mut self, visit: u64) -> Option<&mut Token> {
        let mut tokens = self.tokens.iter_mut().rev();
        tokens.find(|token| token.visit == visit)
    }

    /// Notes that the exchange of a visit is sent, perhaps once more: that takes another token, but
    /// does not wait for it. Returns whether it does.
    fn on_sent(&mut self, visit: u64, limit: Limit, now: Duration) -> bool {
        let is_again = self.last(visit).is_some_and(|token| token.sent.is_some());
        if is_again {
            self.add(visit, limit, now);
        }
        if let Some(token) = self.last(visit) {
            token.sent = Some(now);
        }
        is_again
    }

    fn on_answered(&mut self, visit: u64, now: Duration) {
        if let Some(token) = self.last(visit)
            && token.sent.is_some()
        {
            token.answered.get_or_insert(now);
        }
    }

    /// Notes that a visit begins another exchange or ends. If it has not been sent, the server has
    /// not seen it. Returns whether that is so.
    fn give_back(&mut self, visit: u64) -> bool {
        if let Some(token) = self.last(visit)
            && token.sent.is_none()
            && token.given_back == GivenBack::No
        {
            token.given_back = GivenBack::Sometime;
            return true;
        }
        false
    }

    /// Returns whether an exchange may still have to wait for a token, once the engines have done
    /// all they can. Timers may have been set too late by `late`.
    fn holds_back(&mut self, limit: Limit, now: Duration, late: Duration) -> bool {
        for token in &mut self.tokens {
            if token.given_back == GivenBack::Sometime {
                token.given_back = GivenBack::By(now);
            }
        }
        let unnoticed = limit.glance() + TICKS + late;
        let out = self.tokens.iter();
        let out = out.filter(|token| token.back(limit).1 + unnoticed > now);
        let by_bucket = self.full_at + TICKS + late > now + limit.ahead();
        by_bucket || out.count() >= limit.most as usize
    }
}

/// The lanes of a session.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    rules: LaneRules,
    meter: Meter,
    lanes: BTreeMap<Option<&'static str>, Lane>,
    members: BTreeMap<u64, Member>,
    entered: u64,
    /// The exchanges that have arrived.
    arrived: BTreeSet<u64>,
    pub(crate) log: Log,
}

/// What was found, and what was reached.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) wrong: Vec<String>,
    pub(crate) reached: Vec<(&'static str, &'static str)>,
}

#[derive(Debug, Default)]
struct Lane {
    meter: Meter,
    /// It is held back until the first of these times at least, and the second one at most.
    held: (Duration, Duration),
    /// Since when nothing has held back its requests.
    idle_since: Option<Duration>,
}

/// A request that enters a lane.
#[derive(Debug)]
pub(crate) struct Entrant {
    pub(crate) nonce: usize,
    pub(crate) lane: Option<&'static str>,
    pub(crate) priority: i8,
    /// Another engine sends it.
    pub(crate) is_guest: bool,
}

/// A request in a lane.
#[derive(Debug)]
struct Member {
    who: Entrant,
    /// The order in which they entered. It is not known of one whose visit served another before.
    number: Option<u64>,
    is_through: bool,
    /// What went before it although it should not have.
    overtaken: Option<String>,
}

impl Member {
    /// Returns whether it is let through before another one that waits as well.
    fn comes_before(&self, other: &Self) -> bool {
        match (self.number, other.number) {
            (Some(own), Some(its)) => {
                (Reverse(self.who.priority), own) < (Reverse(other.who.priority), its)
            }
            _ => self.who.priority > other.who.priority,
        }
    }
}

impl Lanes {
    pub(crate) fn new(rules: LaneRules) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }

    /// Returns whether requests of a lane, or those without one, are held back at all.
    pub(crate) fn holds(&self, lane: Option<&str>) -> bool {
        lane.is_some() || self.rules.rate.is_some()
    }

    /// Notes that a request enters its lane, if it was seen to, or that one is in it.
    pub(crate) fn enter(&mut self, visit: u64, who: Entrant, is_seen: bool) {
        self.entered += 1;
        self.lanes.entry(who.lane).or_default();
        let member = Member {
            who,
            number: is_seen.then_some(self.entered),
            is_through: false,
            overtaken: None,
        };
        self.members.insert(visit, member);
    }

    pub(crate) fn has(&self, visit: u64) -> bool {
        self.members.contains_key(&visit)
    }

    /// Returns whether a request waits in its lane.
    pub(crate) fn is_waiting(&self, nonce: usize) -> bool {
        let mut waiting = self.waiting();
        waiting.any(|member| member.who.nonce == nonce)
    }

    /// Returns whether requests wait in their lane.
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting().next().is_some()
    }

    fn waiting(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| !member.is_through)
    }

    /// Notes that an exchange is let through.
    pub(crate) fn let_through(&mut self, visit: u64, now: Duration) {
        self.give_back(visit);
        let Some(mut member) = self.members.remove(&visit) else {
            return;
        };
        let name = member.who.lane;
        if !member.is_through {
            self.check_turn(&mut member);
        }
        let lane = self.lanes.entry(name).or_default();
        let mut complain = |why: String| {
            let (nonce, name) = (member.who.nonce, name.unwrap_or_default());
            let why = format!("at {now:?}: nonce {nonce} in lane {name:?} {why}");
            self.log.wrong.push(why);
        };
        if let Some(by) = member.overtaken.take() {
            complain(format!("was overtaken by {by}"));
        }
        if lane.held.0 > now + MICROSECOND {
            complain(format!("is let through, but held until {:?}", lane.held.0));
        }
        if let (Some(_), Some(limit)) = (name, self.rules.lane_rate)
            && let Some(why) = lane.meter.take(visit, limit, now)
        {
            complain(format!("of its lane {why}"));
        }
        if let Some(limit) = self.rules.rate
            && let Some(why) = self.meter.take(visit, limit, now)
        {
            complain(format!("of the session {why}"));
        }
        member.is_through = true;
        self.members.insert(visit, member);
    }

    /// Checks that it is the turn of a request that begins its first exchange.
    fn check_turn(&mut self, member: &mut Member) {
        let its = |other: &Member| other.who.lane == member.who.lane;
        let running = self.members.values().filter(|it| its(it) && it.is_through);
        let running = running.count();
        if member.who.lane.is_some() && self.rules.concurrency.is_some_and(|most| running >= most) {
            self.log.wrong.push(format!(
                "nonce {} is let through, but {running} of lane {:?} run",
                member.who.nonce, member.who.lane
            ));
        }
        let others = self.members.values_mut();
        for other in others.filter(|it| it.who.lane == member.who.lane) {
            if other.who.is_guest != member.who.is_guest {
                self.log.reached.push(("lane", "shared by two engines"));
            }
            if other.is_through {
                continue;
            }
            if other.comes_before(member) {
                // It may be one that the session has refused, and that has not been told.
                other.overtaken = Some(format!("nonce {}", member.who.nonce));
            } else if other.number < member.number && other.who.priority < member.who.priority {
                self.log.reached.push(("lane", "overtaken by priority"));
            }
        }
    }

    /// Calls `act` with the meters of a visit.
    fn meters(&mut self, visit: u64, mut act: impl FnMut(&mut Meter, Limit)) {
        let Some(member) = self.members.get(&visit) else {
            return;
        };
        if let Some(limit) = self.rules.rate {
            act(&mut self.meter, limit);
        }
        if let (Some(_), Some(limit)) = (member.who.lane, self.rules.lane_rate) {
            let lane = self.lanes.entry(member.who.lane).or_default();
            act(&mut lane.meter, limit);
        }
    }

    /// Notes that an exchange is sent.
    pub(crate) fn on_sent(&mut self, visit: u64, now: Duration) {
        let mut is_again = false;
        self.meters(visit, |meter, limit| {
            is_again |= meter.on_sent(visit, limit, now);
        });
        if is_again {
            self.log.reached.push(("lane", "sent once more"));
        }
    }

    /// Notes that an exchange is answered.
    pub(crate) fn on_answered(&mut self, visit: u64, now: Duration) {
        self.meters(visit, |meter, _| meter.on_answered(visit, now));
    }

    /// Notes that another exchange begins, or none. If the last one was not sent, the server has
    /// not seen it.
    fn give_back(&mut self, visit: u64) {
        let mut is_back = false;
        self.meters(visit, |meter, _| is_back |= meter.give_back(visit));
        if is_back {
            self.log.reached.push(("lane", "gives its token back"));
        }
    }

    /// Notes that an exchange arrives that was let through and sent at these times.
    pub(crate) fn on_arrived(
        &mut self,
        exchange: u64,
        lane: Option<&'static str>,
        (begun, sent, now): (Duration, Duration, Duration),
    ) {
        // One that waits for a connection for long loses its token, and is sent all the same.
        if !self.arrived.insert(exchange) {
            return;
        }
        if sent >= begun + PATIENCE {
            self.log.reached.push(("lane", "has lost its token"));
            return;
        }
        if let Some(limit) = self.rules.rate
            && now <= sent + limit.slack()
        {
            self.meter.arrived.push(now);
        }
        if let (Some(_), Some(limit)) = (lane, self.rules.lane_rate)
            && now <= sent + limit.slack()
        {
            let lane = self.lanes.entry(lane).or_default();
            lane.meter.arrived.push(now);
        }
    }

    /// Notes that a server has turned a request away, which holds back its lane: at least for the
    /// first wait, and at most for the second one.
    pub(crate) fn hold(&mut self, visit: u64, wait: (Duration, Duration), now: Duration) {
        let Some(member) = self.members.get(&visit) else {
            return;
        };
        if member.who.lane.is_none() && wait.0 > Duration::ZERO {
            self.log.reached.push(("lane", "held without a name"));
        }
        let lane = self.lanes.entry(member.who.lane).or_default();
        lane.held.0 = lane.held.0.max(now + wait.0.min(MAX_HOLD));
        lane.held.1 = lane.held.1.max(now + wait.1.min(MAX_HOLD));
    }

    /// Notes that a request leaves its lane. Returns its nonce if it has never been let through.
    pub(crate) fn leave(&mut self, visit: u64) -> Option<usize> {
        self.give_back(visit);
        let member = self.members.remove(&visit)?;
        (!member.is_through).then_some(member.who.nonce)
    }

    /// Checks that those that wait have a reason to, once the engines have done all they can.
    /// `late` is how much later than the engine knew it may have been when they began to wait.
    pub(crate) fn check_settled(&mut self, session: &Session, now: Duration, late: Duration) {
        let Self {
            rules,
            meter,
            lanes,
            members,
            log,
            ..
        } = self;
        let of_session = rules
            .rate
            .is_some_and(|limit| meter.holds_back(limit, now, late));
        let mut all_waiting = 0;
        for (name, lane) in lanes {
            let its = || members.values().filter(|it| it.who.lane == *name);
            let waiting: Vec<_> = its().filter(|it| !it.is_through).collect();
            let running = its().count() - waiting.len();
            all_waiting += waiting.len();
            let of_lane = rules.lane_rate.filter(|_| name.is_some());
            let of_lane = of_lane.is_some_and(|limit| lane.meter.holds_back(limit, now, late));
            let mut complain = |why: String| {
                let why = format!(
                    "at {now:?}: of lane {name:?}, {running} run and {waiting:?} wait, {why}"
                );
                log.wrong.push(why);
            };
            let stats = session.lane(name.unwrap_or_default());
            if name.is_some() && (stats.running != running || stats.waiting < waiting.len()) {
                complain(format!("but the session counts {stats:?}"));
            }
            if rules.max_waiting.is_some_and(|most| waiting.len() > most) {
                complain("too many".to_owned());
            }
            let is_full = rules.concurrency.is_some_and(|most| running >= most);
            if waiting.is_empty() {
                lane.idle_since = None;
                continue;
            }
            let reasons = [
                (name.is_some() && is_full, "waits for a place"),
                (lane.held.0 > now, "held back by a 429"),
                (of_lane, "waits for its rate"),
                (of_session, "waits for the session's rate"),
            ];
            let mut is_held = lane.held.1 + TICKS + late > now;
            for (_, reason) in reasons.into_iter().filter(|(holds, _)| *holds) {
                log.reached.push(("lane", reason));
                is_held = true;
            }
            if is_held {
                lane.idle_since = None;
                continue;
            }
            let since = *lane.idle_since.get_or_insert(now);
            if since + late <= now {
                complain(format!("but nothing holds them back: {lane:?}"));
            }
        }
        if session.waiting() < all_waiting {
            let seen = session.waiting();
            let why = format!("at {now:?}: {all_waiting} wait, but the session counts {seen}");
            log.wrong.push(why);
        }
    }

    /// Checks when the requests have arrived.
    pub(crate) fn check_arrivals(&mut self) {
        let of_session = self
            .rules
            .rate
            .map(|limit| (limit, &mut self.meter.arrived));
        let of_lanes = self.lanes.iter_mut().filter_map(|(name, lane)| {
            let limit = self.rules.lane_rate.filter(|_| name.is_some())?;
            Some((limit, &mut lane.meter.arrived))
        });
        for (limit, times) in of_session.into_iter().chain(of_lanes) {
            times.sort_unstable();
            if let Some(times) = limit.is_exceeded(times) {
                let why = format!("more than {limit:?} arrived: at {times:?}");
                self.log.wrong.push(why);
            }
        }
    }
}
