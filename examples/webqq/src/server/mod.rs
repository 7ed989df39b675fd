//! A WebQQ server without sockets and without a clock: calls come in with the time, answers go out.
//!
//! A call is recognized as a [`Step`], assigned to the [`seat`] of its account, checked (`checks`),
//! possibly altered by a [`Fault`], and carried out (`login`, `lists`, `poll`, `send`, `session`).
//! The [`Ledger`] records everything that happens. The same server runs on real and on simulated
//! sockets, with different front-ends.

mod answer;
mod breach;
mod checks;
mod cookies;
mod fault;
pub(crate) mod hashes;
pub(crate) mod http;
mod ledger;
mod lists;
mod login;
mod mail;
mod mint;
mod numbers;
mod parameters;
mod people;
mod poll;
mod seat;
mod send;
mod session;
mod step;
mod visit;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use serde_json::Value;

#[allow(unused_imports, reason = "the example and its tests each use a part")]
pub(crate) use self::{
    fault::{Fault, Switch, all_switches, switches},
    ledger::{Heard, Ledger, Picture, ProtocolError, Said},
    mail::Notice,
    people::{Account, Discussion, Friend, Group, Member, Person},
    step::Step,
    wire::{Answer, Call, HoldId, Manner, Place, Reaction, Scheme, Wish},
};

use breach::Breach;
use cookies::brought;
use mail::Letter;
use mint::Kind;
use seat::Seat;
use visit::{Due, House, Visit, r_of};

/// Plays the people. Called after every change, and at the times it requested.
pub(crate) trait Director: Send {
    fn direct(&mut self, server: &mut Server, now: Duration) -> Direct;
}

/// What a director wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direct {
    /// To be called again, at this time at the latest.
    Wait(Option<Duration>),
    Over,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The divisor of all waits of the protocol; more than 0.
    pub(crate) scale: f64,
    /// Different for each server: tokens of one are not accepted by another.
    pub(crate) seed: u64,
    /// The longest message that a bot may send, in characters.
    pub(crate) max_text: usize,
    pub(crate) https: Https,
}

/// How the protocol's https steps arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Https {
    /// Over http, like all others.
    AsHttp,
    /// Over TLS, and the other steps do not.
    OverTls,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            scale: 1.0,
            seed: 1,
            max_text: 300,
            https: Https::AsHttp,
        }
    }
}

impl Settings {
    /// How long a poll is held.
    pub(crate) fn hold(&self) -> Duration {
        Duration::from_secs(60).div_f64(self.scale)
    }

    /// The shortest time between two sends.
    pub(crate) fn pause(&self) -> Duration {
        Duration::from_millis(500).div_f64(self.scale)
    }

    /// The interval between heartbeats.
    pub(crate) fn beat(&self) -> Duration {
        Duration::from_secs(60).div_f64(self.scale)
    }

    /// How long a captcha's code is valid.
    pub(crate) fn captcha_life(&self) -> Duration {
        Duration::from_secs(900).div_f64(self.scale)
    }

    /// How long a person takes to read a captcha.
    pub(crate) fn reading(&self) -> Duration {
        Duration::from_secs(2)
            .div_f64(self.scale)
            .max(Duration::from_millis(500))
    }
}

#[derive(Debug)]
pub(crate) struct Server {
    house: House,
    seats: BTreeMap<u64, Seat>,
}

/// Methods for front-ends. After each of them, and after a director has run, `take_ready` and
/// `next_wake` may return something new.
impl Server {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            house: House::new(settings),
            seats: BTreeMap::new(),
        }
    }

    pub(crate) fn add_account(&mut self, account: Account) {
        let seat = Seat::new(account, &mut self.house);
        self.seats.insert(seat.account.number, seat);
    }

    /// Records a new connection, after the TLS handshake in the case of https. Returns the
    /// connection's number.
    pub(crate) fn on_connection(&mut self, scheme: Scheme) -> u64 {
        let ledger = &mut self.house.ledger;
        ledger.connections += 1;
        match scheme {
            Scheme::Http => {}
            Scheme::Https => ledger.tls_connections += 1,
        }
        ledger.connections
    }

    pub(crate) fn on_call(&mut self, now: Duration, call: &Call) -> Reaction {
        self.house.ledger.requests += 1;
        let Some(step) = Step::of(call) else {
            return Reaction::Answer(self.on_stray(now, call));
        };
        let r = r_of(call);
        let account = self.whose(step, call, &r);
        let mut visit = Visit::new(now, call, step, r, &mut self.house);
        visit.note_scheme();
        if let Err(breach) = visit.check_scheme() {
            return Reaction::Answer(visit.refuse(account, breach));
        }
        match account.and_then(|number| self.seats.get_mut(&number)) {
            Some(seat) => seat.on_call(&mut visit),
            None => Reaction::Answer(visit.serve_anybody(account)),
        }
    }

    /// The client closed the connection of a held call.
    pub(crate) fn on_gone(&mut self, _now: Duration, hold: HoldId) {
        self.house.ready.retain(|(ready, _)| *ready != hold);
        for seat in self.seats.values_mut() {
            seat.on_gone(&mut self.house, hold);
        }
    }

    /// Returns when `on_time` must be called next.
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        self.house.agenda.first().map(|&(at, _)| at)
    }

    pub(crate) fn on_time(&mut self, now: Duration) {
        while let Some(&(at, due)) = self.house.agenda.first()
            && at <= now
        {
            self.house.agenda.pop_first();
            let (Due::HoldEnds(account) | Due::CaptchaIsRead(account)) = due;
            let Some(seat) = self.seats.get_mut(&account) else {
                continue;
            };
            match due {
                Due::HoldEnds(_) => seat.on_hold_end(&mut self.house),
                Due::CaptchaIsRead(_) => seat.on_captcha_read(&mut self.house),
            }
        }
    }

    /// Returns the held calls that can be answered now.
    pub(crate) fn take_ready(&mut self) -> Vec<(HoldId, Answer)> {
        mem::take(&mut self.house.ready)
    }

    /// Returns the actions outside of HTTP to carry out.
    pub(crate) fn take_wishes(&mut self) -> Vec<Wish> {
        mem::take(&mut self.house.wishes)
    }

    /// Whether a poll of this session is held. If so, a front-end may wait a moment before it
    /// submits another.
    pub(crate) fn is_polled(&self, call: &Call) -> bool {
        let account = self.whose(Step::Poll, call, &r_of(call));
        let seat = account.and_then(|number| self.seats.get(&number));
        Step::of(call) == Some(Step::Poll) && seat.is_some_and(|seat| seat.poll.is_some())
    }

    fn on_stray(&mut self, now: Duration, call: &Call) -> Answer {
        self.house.ledger.errors.push(ProtocolError {
            at: now,
            account: None,
            step: None,
            what: format!("there is no {}{}", call.host, call.path),
            provoked: false,
        });
        Answer::status(404)
    }

    /// Returns the account of a call, from a parameter or else from the cookie.
    fn whose(&self, step: Step, call: &Call, r: &Value) -> Option<u64> {
        let number = |name| call.query(name).and_then(|uin| uin.parse().ok());
        let token = |kind, text: &str| self.house.mint.read(kind, text).map(|token| token.account);
        let in_r = |kind, name: &str| token(kind, r.get(name)?.as_str()?);
        let in_query = |kind, name: &str| token(kind, call.query(name)?);
        let told = match step {
            Step::Check | Step::Captcha | Step::CheckSig => number("uin"),
            Step::PtLogin => number("u"),
            Step::Login2 => in_r(Kind::PtWebQq, "ptwebqq"),
            Step::Sig | Step::Weather | Step::Heartbeat => None,
            _ => in_r(Kind::Session, "psessionid")
                .or_else(|| in_query(Kind::Session, "psessionid"))
                .or_else(|| in_r(Kind::Vfwebqq, "vfwebqq"))
                .or_else(|| in_query(Kind::Vfwebqq, "vfwebqq")),
        };
        told.or_else(|| token(Kind::PtWebQq, brought(call, "ptwebqq")?))
            .or_else(|| self.armed_for(step).filter(|_| step.is_for_anybody()))
    }

    /// Signatures and the weather need no account. A fault armed for these steps affects the first
    /// client that requests them.
    fn armed_for(&self, step: Step) -> Option<u64> {
        let mut seats = self.seats.values();
        let seat = seats.find(|seat| seat.armed.iter().any(|&(armed, _)| armed == step))?;
        Some(seat.account.number)
    }
}

/// Methods for directors.
impl Server {
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.house.ledger
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.house.settings
    }

    pub(crate) fn account(&self, number: u64) -> Option<&Account> {
        self.seats.get(&number).map(|seat| &seat.account)
    }

    pub(crate) fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.seats.values().map(|seat| &seat.account)
    }

    /// Whether the account is logged in, and a poll of the present session has arrived.
    pub(crate) fn is_online(&self, account: u64) -> bool {
        let session = self
            .seats
            .get(&account)
            .and_then(|seat| seat.session.as_ref());
        session.is_some_and(|session| session.was_polled)
    }

    /// Whether a poll is held at this moment.
    pub(crate) fn is_waiting(&self, account: u64) -> bool {
        self.seats
            .get(&account)
            .is_some_and(|seat| seat.poll.is_some())
    }

    /// The number of armed faults that have not occurred yet.
    pub(crate) fn armed(&self, account: u64) -> usize {
        self.seats.get(&account).map_or(0, |seat| seat.armed.len())
    }

    /// Lets `who` say something at `place`, where they must be able to speak. Returns the nonce in
    /// front of the text.
    pub(crate) fn say(
        &mut self,
        now: Duration,
        account: u64,
        place: &Place,
        who: &str,
        text: &str,
        picture: bool,
    ) -> u64 {
        let nonce = self.house.ledger.messages.len() as u64 + 1;
        let Some(seat) = self.seats.get_mut(&account) else {
            panic!("no account {account}");
        };
        assert!(
            seat.account.can_speak(place, who),
            "{who} cannot speak here: {place}"
        );
        let msg_id = seat.mail.next_msg_id();
        let msg_id2 = self.house.mint.draw_below(1_000_000);
        self.house.ledger.messages.push(Said {
            nonce,
            account,
            place: place.clone(),
            who: who.into(),
            text: format!("#{nonce} {text}"),
            picture,
            msg_id,
            at: now,
            delivered: 0,
        });
        seat.mail.waiting.push_back(Letter::Said { nonce, msg_id2 });
        seat.on_mail(&mut self.house);
        nonce
    }

    /// Delivers a notice, which needs no answer.
    pub(crate) fn notify(&mut self, account: u64, notice: Notice) {
        if let Some(seat) = self.seats.get_mut(&account) {
            seat.mail.waiting.push_back(Letter::Notice(notice));
            seat.on_mail(&mut self.house);
        }
    }

    /// Arms `fault` for the next call of `step` that is not refused anyway. It occurs once; several
    /// faults form a queue.
    pub(crate) fn arm(&mut self, account: u64, step: Step, fault: Fault) {
        assert!(fault.suits(step), "{fault:?} does not apply to {step}");
        if let Some(seat) = self.seats.get_mut(&account) {
            seat.armed.push_back((step, fault));
        }
    }

    /// Logs in to the account elsewhere: its session ends, which the held poll or the next one
    /// reports.
    pub(crate) fn kick(&mut self, now: Duration, account: u64) {
        if let Some(seat) = self.seats.get_mut(&account) {
            seat.kick(&mut self.house, now);
        }
    }

    /// Sends a copy of the held poll on another connection, as another client with the account's
    /// session would.
    pub(crate) fn intrude(&mut self, now: Duration, account: u64) {
        let seat = self.seats.get(&account);
        let held = seat.filter(|seat| seat.poll.is_some());
        let Some(call) = held.and_then(|seat| seat.last_poll.clone()) else {
            return;
        };
        let connection = u64::MAX;
        let errors = self.house.ledger.errors.len();
        let reaction = self.on_call(now, &Call { connection, ..call });
        // The errors are not the bot's fault.
        for error in &mut self.house.ledger.errors[errors..] {
            error.provoked = true;
        }
        if let Reaction::Answer(answer) = reaction
            && answer.body == Answer::retcode(121).body
        {
            self.house.ledger.fire(Switch::Intrude.name());
        }
    }

    pub(crate) fn wish(&mut self, wish: Wish) {
        self.house.wishes.push(wish);
    }
}

impl Visit<'_> {
    /// Serves a call that belongs to no account here.
    fn serve_anybody(&mut self, account: Option<u64>) -> Answer {
        let checked = match self.step.is_for_anybody() {
            true => self.check_form(),
            false => Err(breach::nobody()),
        };
        match (checked, self.step) {
            (Ok(()), Step::Weather) => seat::weather(self),
            (Ok(()), _) => login::sig(self),
            (Err(breach), _) => self.refuse(account, breach),
        }
    }

    fn refuse(&mut self, account: Option<u64>, breach: Breach) -> Answer {
        let answer = breach.answer(self.step);
        self.note_error(account, breach.what, breach.provoked);
        answer
    }
}
