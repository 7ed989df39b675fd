//! The books of a session: what it may send, and what it has sent. A policy nested in the session
//! keeps them, since it sees when the session lets a request through, when each attempt is sent,
//! and how an exchange ended.

use std::time::Duration;

use http::StatusCode;
use httpstream::policy::{Fields, Policy, Screening, Start, Verdict, Visit};
use httpstream::sim::Random;
use httpstream::{Error, Headers, Moment, Origin, Reply, Request, Response};

use crate::lanes::{Entrant, LANES, Lanes};
use crate::retries::{Fate, RetryRules, is_transient};
use crate::server::serial_of;
use crate::sessions::{Journal, Notes, Rules, place};

/// The field that names an attempt.
pub(crate) const ATTEMPT: &str = "X-Attempt";

/// What is known of a session.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) lanes: Option<Lanes>,
    retry: Option<RetryRules>,
    /// How many attempts were sent.
    pub(crate) attempts: u64,
    /// How many exchanges were sent that were retries, and of how many of them a readback has
    /// heard.
    pub(crate) retried: u64,
    pub(crate) heard: u64,
    /// How many more exchanges may have been retried: their requests ended after them, or went on
    /// for a reason that is not known.
    pub(crate) unsure: u64,
}

/// One attempt to send a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) session: usize,
    /// The request, by nonce and step.
    pub(crate) place: (usize, usize),
    pub(crate) exchange: u64,
    pub(crate) lane: Option<&'static str>,
    /// How often the session has sent the request again, and whether it has this time.
    pub(crate) retries: u32,
    pub(crate) is_retry: bool,
    /// The exchange that the session has ended to begin this one, and the answer to it.
    pub(crate) former: (u64, Option<usize>),
    /// When the exchange was let through, and when it was sent first.
    pub(crate) begun: Duration,
    pub(crate) at: Duration,
}

impl Books {
    pub(crate) fn new(rules: &Rules) -> Self {
        Self {
            lanes: rules.lanes.clone().map(Lanes::new),
            retry: rules.retry.clone(),
            attempts: 0,
            retried: 0,
            heard: 0,
            unsure: 0,
        }
    }

    /// Returns the number of its budget.
    pub(crate) fn purse(&self) -> Option<usize> {
        self.retry.as_ref().map(|retry| retry.purse)
    }
}

#[derive(Clone)]
pub(crate) struct Keeper {
    pub(crate) journal: Journal,
    pub(crate) session: usize,
}

struct KeeperVisit {
    journal: Journal,
    random: Random,
    session: usize,
    visit: u64,
    nonce: usize,
    lane: Option<&'static str>,
    holds_back: bool,
    /// None of its exchanges has begun.
    is_new: bool,
    /// The current exchange, when it was let through, and when it was sent.
    exchange: u64,
    begun: Duration,
    sent: Option<Duration>,
    /// Where it goes, and whether a redirect has led elsewhere.
    origin: Option<Origin>,
    is_astray: bool,
    retries: u32,
    is_retry: bool,
    /// It is a retry that has not been sent.
    is_uncounted: bool,
    /// Whether the attempts of the current exchange earn a share of a retry.
    earns: Earns,
    /// A readback has heard of the current exchange, which is a retry.
    is_heard: bool,
    /// The retry that may have been taken from the budget and has not been sent, and whether
    /// another exchange is sent in its place.
    taken: Option<u64>,
    is_replaced: bool,
    /// The body of the current response decides whether the request is sent again.
    is_undecided: bool,
    /// When its head arrived.
    head_at: Duration,
    /// The answer to the current exchange, and to the one before.
    serial: Option<usize>,
    former: (u64, Option<usize>),
    /// How the exchange before ended, if the session has ended it.
    ended: Option<Ended>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Earns {
    Yes,
    No,
    Perhaps,
}

/// How an exchange ended.
struct Ended {
    step: usize,
    status: Option<u16>,
    has_broken_off: bool,
    /// The wait that the server has asked for, at least and at most.
    asked: (Duration, Duration),
    /// The session may send the request again only after this time.
    not_before: Duration,
}

impl Policy for Keeper {
    fn visit(&self, request: &Request, at: &Moment<'_>) -> Box<dyn Visit> {
        let mut notes = self.journal.notes();
        let lanes = notes.books_of(self.session).lanes.as_ref();
        let mut visit = KeeperVisit {
            journal: self.journal.clone(),
            random: Random::new(at.random()),
            session: self.session,
            visit: 0,
            nonce: 0,
            lane: None,
            holds_back: lanes.is_some(),
            is_new: true,
            exchange: 0,
            begun: Duration::ZERO,
            sent: None,
            origin: None,
            is_astray: false,
            retries: 0,
            is_retry: false,
            is_uncounted: false,
            earns: Earns::Yes,
            is_heard: false,
            taken: None,
            is_replaced: false,
            is_undecided: false,
            head_at: Duration::ZERO,
            serial: None,
            former: (0, None),
            ended: None,
        };
        visit.renew(&mut notes);
        visit.enter(&mut notes, request, true);
        Box::new(visit)
    }
}

impl KeeperVisit {
    /// Prepares for another request of the chain.
    fn renew(&mut self, notes: &mut Notes) {
        self.visit = notes.next_number();
        self.is_new = true;
        (self.retries, self.is_retry, self.is_heard) = (0, false, false);
        (self.origin, self.is_astray, self.is_uncounted) = (None, false, false);
        (self.earns, self.taken, self.is_replaced) = (Earns::Yes, None, false);
        (self.serial, self.former, self.ended) = (None, (0, None), None);
        self.begin(notes);
    }

    fn begin(&mut self, notes: &mut Notes) {
        self.exchange = notes.next_number();
        self.sent = None;
        self.is_undecided = false;
        self.head_at = Duration::MAX;
    }

    /// Notes that the visit of a request begins.
    fn enter(&mut self, notes: &mut Notes, request: &Request, is_seen: bool) {
        self.nonce = place(request).0;
        let name = request.lane();
        self.lane = name.and_then(|name| LANES.into_iter().find(|it| *it == name));
        let entrant = Entrant {
            nonce: self.nonce,
            lane: self.lane,
            priority: request.priority(),
            is_guest: notes.guests.contains(&self.nonce),
        };
        let lanes = notes.books_of(self.session).lanes.as_mut();
        if let Some(lanes) = lanes.filter(|lanes| lanes.holds(self.lane) && !lanes.has(self.visit))
        {
            lanes.enter(self.visit, entrant, is_seen);
        }
    }

    /// Notes that another exchange begins.
    fn on_exchange(&mut self, notes: &mut Notes, request: &Request, now: Duration) {
        if std::mem::take(&mut self.is_new) {
            // If this visit has served another request before, it is not known when this one has
            // entered its lane.
            self.enter(notes, request, false);
        }
        let (nonce, step) = place(request);
        if notes.is_over(notes.mark_of(nonce)) {
            notes.complain(
                now,
                format!("nonce {nonce}: begun after its session was ended"),
            );
        }
        let origin = request.origin();
        let has_left = |last: &Origin| *last != origin;
        self.is_astray |= self.origin.as_ref().is_some_and(has_left);
        self.origin = Some(origin);
        let former = (self.exchange, self.serial.take());
        self.begin(notes);
        self.begun = now;
        let announced = notes.announced.remove(&nonce);
        let Some(ended) = self.ended.take() else {
            // It is the first one, or a policy nested inside sends the request again. If the
            // session was going to do so as well, that is forgotten.
            self.is_replaced = self.taken.is_some();
            if self.is_replaced && self.earns == Earns::No {
                self.earns = Earns::Perhaps;
            }
            return;
        };
        self.former = former;
        let is_led = step != ended.step || ended.status == Some(401);
        // Nobody hears of retries of what leads on to other requests, even if it is broken off.
        let is_silent = matches!(ended.status, Some(300..=399 | 401 | 407));
        (self.is_retry, self.is_heard) = (!is_led, announced.is_some() || is_silent);
        if is_led {
            self.earns = Earns::Yes;
            if step == ended.step && ended.has_broken_off {
                // It may be a retry because of that.
                self.earns = Earns::Perhaps;
                notes.resent.push((nonce, step));
                notes.books_of(self.session).unsure += 1;
            }
            return;
        }
        (self.earns, self.is_uncounted) = (Earns::No, true);
        self.retries += 1;
        notes.resent.push((nonce, step));
        if now < ended.not_before {
            let due = ended.not_before;
            notes.complain(
                now,
                format!("nonce {nonce}, step {step}: retried before {due:?}"),
            );
        }
        let Some(rules) = notes.books_of(self.session).retry.clone() else {
            notes.complain(
                now,
                format!("nonce {nonce}: retried by session {}", self.session),
            );
            return;
        };
        if !rules.allows(self.retries) {
            let retries = self.retries;
            notes.complain(now, format!("nonce {nonce}: retried {retries} times"));
        }
        let (is_own, is_slow) = match announced {
            Some(after) => rules.is_wait(after, self.retries, ended.asked),
            // How long it was to wait is known only roughly.
            None => (true, rules.attempts.is_none()),
        };
        let fate = match (is_own, is_slow) {
            (true, false) => Fate::Paid,
            (false, true) => Fate::Refused,
            _ => Fate::Unknown,
        };
        if let (Some(taken), Some(purse)) = (self.taken, notes.purse_of(self.session)) {
            purse.settle(taken, fate);
        }
    }

    /// Notes that a retry may be taken from the budget.
    fn take(&mut self, notes: &mut Notes, now: Duration) {
        let number = notes.next_number();
        let is_second = self.taken.is_some();
        let Some(purse) = notes.purse_of(self.session) else {
            return;
        };
        if let Some(taken) = self.taken.take() {
            // Only one of both is, and it is not known which.
            purse.blur(taken);
        }
        purse.take(number, now);
        if is_second {
            purse.blur(number);
        }
        self.taken = Some(number);
        notes.last_taken.insert(self.nonce, number);
    }

    /// Notes that the retry that may have been taken is not sent.
    fn give_back(&mut self, notes: &mut Notes) {
        if let Some(taken) = self.taken.take()
            && let Some(purse) = notes.purse_of(self.session)
        {
            purse.give_back(taken);
        }
    }

    fn tell(&self, notes: &Notes, now: Duration, what: &str) {
        notes.tell(|| {
            let Self {
                nonce,
                session,
                visit,
                lane,
                ..
            } = self;
            format!("{now:?} nonce {nonce} of session {session}, visit {visit} in {lane:?}: {what}")
        });
    }

    fn leave(&mut self, notes: &mut Notes) {
        notes.tell(|| format!("visit {} of nonce {} is over", self.visit, self.nonce));
        self.give_back(notes);
        let books = notes.books_of(self.session);
        books.unsure += u64::from(self.ended.is_some());
        let left = books
            .lanes
            .as_mut()
            .and_then(|lanes| lanes.leave(self.visit));
        if let Some(nonce) = left {
            notes.left = Some(nonce);
        }
        notes.announced.remove(&self.nonce);
    }
}

impl Visit for KeeperVisit {
    fn holds_back(&self) -> bool {
        self.holds_back
    }

    fn reads_head(&self, status: StatusCode, _: &Headers<'_>) -> bool {
        status.as_u16() >= 300
    }

    fn reads_shown(&self) -> bool {
        false
    }

    fn on_start(&mut self, request: &Request, at: &Moment<'_>) -> Result<Start, Error> {
        let journal = self.journal.clone();
        let mut notes = journal.notes();
        let now = notes.time(at);
        self.on_exchange(&mut notes, request, now);
        self.tell(&notes, now, "let through");
        if let Some(lanes) = notes.books_of(self.session).lanes.as_mut() {
            lanes.let_through(self.visit, now);
        }
        Ok(Start::Now)
    }

    fn on_send(
        &mut self,
        request: &Request,
        fields: &mut Fields<'_>,
        at: &Moment<'_>,
    ) -> Result<(), Error> {
        let journal = self.journal.clone();
        let mut notes = journal.notes();
        let now = notes.time(at);
        if !self.holds_back && (self.is_new || self.ended.is_some()) {
            self.on_exchange(&mut notes, request, now);
        }
        let is_first = self.sent.is_none();
        let sent = *self.sent.get_or_insert(now);
        self.tell(
            &notes,
            now,
            if is_first { "sent" } else { "sent once more" },
        );
        let books = notes.books_of(self.session);
        books.attempts += 1;
        if let Some(lanes) = books.lanes.as_mut() {
            lanes.on_sent(self.visit, now);
        }
        if std::mem::take(&mut self.is_uncounted) {
            let books = notes.books_of(self.session);
            books.retried += 1;
            books.heard += u64::from(self.is_heard);
        }
        if std::mem::take(&mut self.is_replaced) {
            self.give_back(&mut notes);
        } else if is_first {
            self.taken = None;
        }
        if self.earns != Earns::No
            && let Some(purse) = notes.purse_of(self.session)
        {
            purse.earn(now, self.earns == Earns::Yes);
        }
        let number = notes.attempts.len();
        notes.attempts.push(Attempt {
            session: self.session,
            place: place(request),
            exchange: self.exchange,
            lane: self.lane,
            retries: self.retries,
            is_retry: self.is_retry,
            former: self.former,
            begun: self.begun,
            at: sent,
        });
        fields.add_fmt(ATTEMPT, format_args!("{number}"))
    }

    fn on_head(
        &mut self,
        request: &Request,
        head: &Response<'_>,
        at: &Moment<'_>,
    ) -> Result<Screening, Error> {
        let journal = self.journal.clone();
        let mut notes = journal.notes();
        let now = notes.time(at);
        self.serial = serial_of(head);
        self.head_at = now;
        let status = head.status().as_u16();
        if status >= 400
            && let Some(serial) = self.serial
        {
            notes.last_refusal.insert(self.nonce, serial);
        }
        if let Some(lanes) = notes.books_of(self.session).lanes.as_mut() {
            lanes.on_answered(self.visit, now);
        }
        let asked = notes.asked_in(self.serial).by_head(at.wall_clock());
        let rules = notes.books_of(self.session).retry.clone();
        let Some(rules) = rules.filter(|_| status >= 400) else {
            if status == 429 {
                self.hold(&mut notes, (asked, asked), now);
            }
            return Ok(Screening::show());
        };
        let is_again = rules.repeats(status, request.is_idempotent())
            && rules.allows(self.retries + 1)
            && asked <= rules.longest_after(Some(status), self.holds_lane(&mut notes));
        self.is_undecided = rules.reads_bodies
            && rules.has_status(status)
            && (is_again || status == 429 && self.has_place(&mut notes));
        let longest = match is_again && !self.is_undecided {
            true => asked.max(rules.longest_own(self.retries + 1)),
            false => asked,
        };
        if status == 429 {
            self.hold(&mut notes, (asked, longest), now);
        }
        if is_again && !self.is_undecided && !self.is_free(&mut notes, status, asked) {
            self.take(&mut notes, now);
        }
        Ok(Screening::show())
    }

    fn on_end(
        &mut self,
        request: &Request,
        reply: &Reply<'_>,
        at: &Moment<'_>,
    ) -> Result<Verdict, Error> {
        let journal = self.journal.clone();
        let mut notes = journal.notes();
        let now = notes.time(at);
        let status = match reply {
            Ok(response) => Some(response.status()),
            Err(error) => error.status(),
        };
        let status = status.map(|status| status.as_u16());
        self.tell(&notes, now, "at its end");
        let asked = notes.asked_in(self.serial);
        let rules = notes.books_of(self.session).retry.clone();
        let wall = at.wall_clock();
        let asked_at = |wall| match (&rules, reply) {
            (Some(rules), Ok(_)) => asked.by_all(rules, wall),
            _ => asked.by_head(wall),
        };
        // A date was read when the head arrived, or will be now.
        let head_at = wall - now.saturating_sub(self.head_at);
        let (wait, most) = (asked_at(wall), asked_at(head_at));
        if let Some(rules) = rules {
            let is_undecided = std::mem::take(&mut self.is_undecided);
            let is_again = rules.allows(self.retries + 1)
                && wait <= rules.longest_after(status, self.holds_lane(&mut notes))
                && match reply {
                    Ok(_) => {
                        is_undecided
                            && status.is_some_and(|it| rules.repeats(it, request.is_idempotent()))
                    }
                    Err(_) if is_undecided => true,
                    Err(error) => {
                        let is_safe = request.is_idempotent() || error.resend_is_safe();
                        is_safe && is_transient(error.kind()) && !at.is_shown()
                    }
                };
            let status = status.filter(|_| is_undecided);
            if status == Some(429) {
                let own = rules.longest_own(self.retries + 1);
                let longest = if is_again { own } else { Duration::ZERO };
                self.hold(&mut notes, (wait, most.max(longest)), now);
            }
            if is_again && !self.is_free(&mut notes, status.unwrap_or_default(), most) {
                self.take(&mut notes, now);
            }
        }
        self.ended = Some(Ended {
            step: place(request).1,
            status: match reply {
                Ok(response) => Some(response.status().as_u16()),
                Err(error) => error.status().map(|status| status.as_u16()),
            },
            has_broken_off: reply.is_err(),
            asked: (wait, most.max(wait)),
            not_before: now.saturating_add(wait),
        });
        Ok(Verdict::Deliver)
    }

    fn reset(&mut self) -> bool {
        let journal = self.journal.clone();
        let mut notes = journal.notes();
        self.leave(&mut notes);
        self.renew(&mut notes);
        self.random.chance(300)
    }
}

impl KeeperVisit {
    /// Notes that the lane is held back, unless the server is one that has no say in it.
    fn hold(&self, notes: &mut Notes, wait: (Duration, Duration), now: Duration) {
        let Some(lanes) = notes.books_of(self.session).lanes.as_mut() else {
            return;
        };
        if self.is_astray {
            lanes
                .log
                .reached
                .push(("lane", "not held by another origin"));
        } else {
            lanes.hold(self.visit, wait, now);
        }
    }

    fn has_place(&self, notes: &mut Notes) -> bool {
        let lanes = notes.books_of(self.session).lanes.as_ref();
        lanes.is_some_and(|lanes| lanes.has(self.visit))
    }

    /// Returns whether a 429 holds back the lane of the request.
    fn holds_lane(&self, notes: &mut Notes) -> bool {
        self.has_place(notes) && !self.is_astray
    }

    /// Returns whether a retry takes nothing from the budget, since its lane is held back.
    fn is_free(&self, notes: &mut Notes, status: u16, asked: Duration) -> bool {
        let is_held = status == 429 && self.holds_lane(notes);
        let is_free = is_held && !asked.is_zero();
        if let Some(lanes) = notes
            .books_of(self.session)
            .lanes
            .as_mut()
            .filter(|_| is_free)
        {
            lanes.log.reached.push(("retry", "not charged"));
        }
        is_free
    }
}

impl Drop for KeeperVisit {
    fn drop(&mut self) {
        let journal = self.journal.clone();
        let mut notes = journal.notes();
        self.leave(&mut notes);
    }
}
