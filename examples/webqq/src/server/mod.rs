//! A WebQQ server without sockets and without a clock: calls come in with the time, answers go out.
//!
//! A call is recognised as a [`Step`], finds the [`seat`] of its account, is checked (`checks`),
//! perhaps struck by a [`Fault`], and does its step's work (`login`, `lists`, `poll`, `send`,
//! `session`). Everything that happened stands in the [`Ledger`]. One server serves over real
//! sockets as well as over simulated ones: what differs is the front-end.

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

/// Plays the people. Called after every change, and when it asked to be.
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
    /// Divides all waits of the protocol; more than 0.
    pub(crate) scale: f64,
    /// Another one for each server: what one hands out, no other takes.
    pub(crate) seed: u64,
    /// What a bot says may have so many characters.
    pub(crate) max_text: usize,
    pub(crate) https: Https,
}

/// How the https steps come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Https {
    /// Over http, as all others.
    AsHttp,
    /// Over TLS, and no others do.
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

    /// The least time between two sends.
    pub(crate) fn pause(&self) -> Duration {
        Duration::from_millis(500).div_f64(self.scale)
    }

    /// The time from heartbeat to heartbeat.
    pub(crate) fn beat(&self) -> Duration {
        Duration::from_secs(60).div_f64(self.scale)
    }

    /// How long a captcha's code is good.
    pub(crate) fn captcha_life(&self) -> Duration {
        Duration::from_secs(900).div_f64(self.scale)
    }

    /// How long somebody takes to read a captcha.
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

/// What front-ends do. After each of these, and after whatever a director does, `take_ready` and
/// `next_wake` may have changed.
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

    /// A client has connected; with https, the TLS handshake is over. Answers the connection's
    /// number.
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

    /// When `on_time` wants to be called.
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

    /// Held calls that can be answered now.
    pub(crate) fn take_ready(&mut self) -> Vec<(HoldId, Answer)> {
        mem::take(&mut self.house.ready)
    }

    /// What is to happen beside HTTP.
    pub(crate) fn take_wishes(&mut self) -> Vec<Wish> {
        mem::take(&mut self.house.wishes)
    }

    /// Whether a poll of this session is held: a front-end may wait a moment before it brings
    /// another one.
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

    /// Whose call it is: a parameter tells, or else the cookie.
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

    /// Nobody has to say who he is to get a signature or the weather. A fault armed there strikes
    /// whoever comes first.
    fn armed_for(&self, step: Step) -> Option<u64> {
        let mut seats = self.seats.values();
        let seat = seats.find(|seat| seat.armed.iter().any(|&(armed, _)| armed == step))?;
        Some(seat.account.number)
    }
}

/// What directors do.
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

    /// Logged in, and a poll of the present session has come.
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

    /// How many faults are armed that have not struck.
    pub(crate) fn armed(&self, account: u64) -> usize {
        self.seats.get(&account).map_or(0, |seat| seat.armed.len())
    }

    /// `who` says something at `place`, where he can speak. Answers the nonce that stands before
    /// the text.
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

    /// Something happens that needs no answer.
    pub(crate) fn notify(&mut self, account: u64, notice: Notice) {
        if let Some(seat) = self.seats.get_mut(&account) {
            seat.mail.waiting.push_back(Letter::Notice(notice));
            seat.on_mail(&mut self.house);
        }
    }

    /// `fault` strikes once, at the next call of `step` that is not refused anyway. Several queue
    /// up.
    pub(crate) fn arm(&mut self, account: u64, step: Step, fault: Fault) {
        assert!(fault.suits(step), "{step} cannot be struck by {fault:?}");
        if let Some(seat) = self.seats.get_mut(&account) {
            seat.armed.push_back((step, fault));
        }
    }

    /// Somebody logs in to the account elsewhere: its session ends, and the held poll, or the next
    /// one, is told.
    pub(crate) fn kick(&mut self, now: Duration, account: u64) {
        if let Some(seat) = self.seats.get_mut(&account) {
            seat.kick(&mut self.house, now);
        }
    }

    /// Somebody else polls with the account's session while a poll is held: with the words of the
    /// bot's own, on another connection.
    pub(crate) fn intrude(&mut self, now: Duration, account: u64) {
        let seat = self.seats.get(&account);
        let held = seat.filter(|seat| seat.poll.is_some());
        let Some(call) = held.and_then(|seat| seat.last_poll.clone()) else {
            return;
        };
        let connection = u64::MAX;
        let errors = self.house.ledger.errors.len();
        let reaction = self.on_call(now, &Call { connection, ..call });
        // The bot cannot help it.
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
    /// A call that is of no account here.
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
