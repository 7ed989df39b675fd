//! The bot: a plain struct whose methods are readbacks.
//!
//! Each step is a method that reads one answer and returns what follows, so the login below reads
//! as the sequence it is. Its requests and waits belong to HTTP sessions (`sessions.rs`), which
//! keep the cookies, follow redirects, and repeat what may be repeated. When a login is over, they
//! all end with it, except for a message that is being sent. The lists are in `lists.rs`, incoming
//! and outgoing messages in `talk.rs`, the wire formats in `protocol.rs` and `answers.rs`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use httpstream::{ChainId, Context, Error, Next, Reply, Response};

use crate::answers::{self, Item, Poll, Trouble};
use crate::clock::Clock;
use crate::events::{Entry, Event};
use crate::lists::{Lists, Why};
use crate::outbox::{self, Outbox, Seen};
use crate::plugins::Plugins;
use crate::policy::{self, AfterPoll, Backoff, How, Kicks, MOST_REFUSALS};
use crate::protocol::Login;
use crate::roster::Roster;
use crate::steps::{OfLogin, Step, good, text, trouble_of};
use crate::talk::Received;

#[allow(unused_imports, reason = "the example and its tests each use a part")]
pub(crate) use crate::settings::{Https, Settings};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
const BEAT: Duration = Duration::from_secs(60);
/// How long a captcha's picture is valid.
const CAPTCHA_LIFE: Duration = Duration::from_secs(900);
/// A poll that lasted this long was held open by the server, however it ended.
const HALF_A_HOLD: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Offline,
    LoggingIn,
    /// A person is reading the captcha; no request is in flight.
    Parked,
    Online,
    LoggingOut,
}

pub(crate) struct Bot {
    pub(crate) stage: Stage,
    pub(crate) settings: Settings,
    pub(crate) login: Login,
    pub(crate) roster: Roster,
    /// The lists being fetched, if any.
    pub(crate) lists: Option<Lists>,
    pub(crate) plugins: Plugins,
    pub(crate) inbox: VecDeque<Received>,
    pub(crate) seen: Seen,
    pub(crate) outbox: Outbox,
    /// The number of answers that wait for something to be fetched.
    pub(crate) fetching: usize,
    /// Set when the bot was told to log out.
    pub(crate) is_leaving: bool,
    /// The chain of the message under way.
    pub(crate) sending: Option<ChainId>,
    pub(crate) backoff: Backoff,
    kicks: Kicks,
    suspicions: u32,
    refusals: u32,
    /// What happens if nobody reads the captcha.
    expiry: Option<ChainId>,
    /// Events since they were last taken.
    pub(crate) events: Vec<Entry>,
}

impl Bot {
    pub(crate) fn new(settings: Settings, begin: Instant) -> Self {
        let clock = Clock::new(
            begin,
            settings.epoch,
            settings.scale,
            settings.least_patience,
        );
        Self {
            stage: Stage::Offline,
            login: Login::new(
                settings.account,
                &settings.password,
                clock,
                settings.https,
                settings.seed,
            ),
            roster: Roster::default(),
            lists: None,
            plugins: Plugins::standard(),
            inbox: VecDeque::new(),
            seen: Seen::default(),
            outbox: Outbox::new(clock.wait(outbox::PAUSE)),
            fetching: 0,
            is_leaving: false,
            sending: None,
            backoff: Backoff::default(),
            kicks: Kicks::default(),
            suspicions: 0,
            refusals: 0,
            expiry: None,
            events: Vec::new(),
            settings,
        }
    }

    pub(crate) fn account(&self) -> u64 {
        self.settings.account
    }

    /// Whether the bot was ever told to log in.
    pub(crate) fn has_come(&self) -> bool {
        self.login.number > 0
    }

    // ---- the login: SIG, CHECK, perhaps CAPTCHA, PTLOGIN, CHECKSIG, LOGIN2, FRIENDS ----

    /// Starts a login from scratch. Called from outside of the bot.
    pub(crate) fn log_in(&mut self, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.end_login(Stage::LoggingIn, cx);
        self.is_leaving = false;
        self.refusals = 0;
        self.backoff.reset();
        self.begin_login(cx)
    }

    fn begin_login(&mut self, _: &mut Context<'_, Self>) -> Next<Self> {
        self.login.forget();
        self.suspicions = 0;
        self.tell(Event::LoggingIn);
        self.step(self.login.sig(), Self::on_sig)
    }

    fn on_sig(&mut self, answer: &Response<'_>, _: &mut Context<'_, Self>) -> Step {
        self.login.login_sig = answers::login_sig(text(answer)?).unwrap_or_default();
        let check = self.login.check();
        Ok(self.step(check, Self::on_check))
    }

    fn on_check(&mut self, answer: &Response<'_>, _: &mut Context<'_, Self>) -> Step {
        let arguments = answers::arguments(text(answer)?, "ptui_checkVC")?;
        let [result, code, huin, ..] = &*arguments else {
            return Err(Trouble::Garbled(format!(
                "{} arguments of CHECK",
                arguments.len()
            )));
        };
        let huin =
            answers::bytes_of(huin).ok_or(Trouble::Garbled(format!("the number {huin:?}")))?;
        self.login.huin = huin;
        self.login.verify_code.clone_from(code);
        match &**result {
            "0" => Ok(self.step(self.login.ptlogin(), Self::on_ptlogin)),
            _ => Ok(self.ask_for_captcha()),
        }
    }

    fn ask_for_captcha(&mut self) -> Next<Self> {
        let captcha = self.login.captcha();
        self.step(captcha, Self::on_captcha)
    }

    /// The chain ends here; the code that a person enters starts another.
    fn on_captcha(&mut self, answer: &Response<'_>, cx: &mut Context<'_, Self>) -> Step {
        self.stage = Stage::Parked;
        self.tell(Event::Parked {
            picture: answer.body().len(),
        });
        let expiry = self.later(self.wait(CAPTCHA_LIFE), |bot, cx| {
            bot.start_again(How::Login, "the captcha has expired", cx)
        });
        self.expiry = Some(cx.start(expiry));
        Ok(Next::done())
    }

    /// Takes the text that a person read in the captcha's picture. Called from outside of the bot.
    /// If the picture is still in flight, the code waits for it.
    pub(crate) fn enter_code(&mut self, code: String, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.login.set_now(cx.now());
        match self.stage {
            Stage::Parked => {
                if let Some(expiry) = self.expiry.take() {
                    cx.cancel(expiry);
                }
                self.stage = Stage::LoggingIn;
                self.login.verify_code = code;
                self.step(self.login.ptlogin(), Self::on_ptlogin)
            }
            Stage::LoggingIn => {
                Next::call(|bot: &mut Self, cx| bot.enter_code(code, cx)).after(self.wait(SECOND))
            }
            _ => Next::done(),
        }
    }

    fn on_ptlogin(&mut self, answer: &Response<'_>, cx: &mut Context<'_, Self>) -> Step {
        let arguments = answers::arguments(text(answer)?, "ptuiCB")?;
        let argument = |i: usize| arguments.get(i).map_or("", String::as_str);
        match argument(0) {
            "0" => {}
            // The captcha was wrong, or it has expired.
            "4" => return Ok(self.ask_for_captcha()),
            "3" => return Ok(self.stop(argument(4), cx)),
            code => return Err(Trouble::Refused(code.to_owned(), argument(4).to_owned())),
        }
        self.login.take_ptwebqq();
        // Its redirects are followed; each sets cookies.
        let url = argument(2);
        let checksig = self.login.checksig(url);
        let checksig = checksig.ok_or(Trouble::Garbled(format!("CHECKSIG leads to {url:?}")))?;
        Ok(self.step(checksig, Self::on_checksig))
    }

    fn on_checksig(&mut self, answer: &Response<'_>, _: &mut Context<'_, Self>) -> Step {
        if answer.status().is_redirection() {
            let status = answer.status();
            return Err(Trouble::Garbled(format!("CHECKSIG leads away ({status})")));
        }
        Ok(self.step(self.login.login2(), Self::on_login2))
    }

    fn on_login2(&mut self, answer: &Response<'_>, _: &mut Context<'_, Self>) -> Step {
        self.login.set_keys(answers::keys(text(answer)?)?);
        self.refusals = 0;
        // `on_first_friends` is in `lists.rs`, which calls `go_online` when the first group's
        // members have arrived.
        Ok(self.step(self.login.friends(), Self::on_first_friends))
    }

    // ---- online: the poll and the heartbeat ----

    pub(crate) fn go_online(&mut self, cx: &mut Context<'_, Self>) {
        if self.stage != Stage::LoggingIn {
            return;
        }
        self.stage = Stage::Online;
        self.tell(Event::Online);
        cx.start(self.poll());
        cx.start(self.beat());
    }

    fn poll(&self) -> Next<Self> {
        let begun = self.login.clock().now();
        Next::send(self.login.poll()).read_to(OfLogin::new("poll", move |bot, reply, cx| {
            let held = cx.now().saturating_duration_since(begun);
            bot.on_poll(reply, held, cx)
        }))
    }

    fn on_poll(
        &mut self,
        reply: Reply<'_>,
        held: Duration,
        cx: &mut Context<'_, Self>,
    ) -> Next<Self> {
        let answer = match reply {
            Ok(answer) => text(&answer).and_then(answers::poll),
            Err(error) => return self.on_no_poll(&error, held, cx),
        };
        match answer {
            Ok(Poll::Items(items)) => self.on_items(items, cx),
            Ok(Poll::NewPtwebqq(value)) => {
                self.login.set_ptwebqq(value);
                self.renew_lists(cx);
                self.poll_on()
            }
            Err(Trouble::Retcode(code)) => self.on_poll_retcode(code, cx),
            Err(trouble) => {
                self.report("poll", &trouble);
                self.poll_after_trouble()
            }
        }
    }

    /// Polls again after a poll without an answer, which says nothing about the login.
    fn on_no_poll(
        &mut self,
        error: &Error,
        held: Duration,
        cx: &mut Context<'_, Self>,
    ) -> Next<Self> {
        let trouble = trouble_of(error);
        self.report("poll", &trouble);
        // Servers end long polls in many ways; only one that ended early calls for a pause.
        if held >= self.wait(HALF_A_HOLD) {
            return self.poll();
        }
        let polls = &self.login.sessions.polls;
        match polls.wait(cx.failures(), error, &cx.moment()) {
            Some(pause) => self.later(pause, |bot, _| bot.poll()),
            None => self.start_again(How::Login, &format!("poll: {trouble}"), cx),
        }
    }

    fn on_poll_retcode(&mut self, code: i64, cx: &mut Context<'_, Self>) -> Next<Self> {
        let trouble = Trouble::Retcode(code);
        let why = format!("poll: {trouble}");
        match policy::after_poll(code) {
            AfterPoll::Poll => self.poll_on(),
            AfterPoll::Relink => self.start_again(How::Relink, &why, cx),
            AfterPoll::LogIn => self.start_again(How::Login, &why, cx),
            AfterPoll::Stop => self.stop(&why, cx),
            AfterPoll::Suspect if self.is_bad_session() => self.start_again(How::Login, &why, cx),
            AfterPoll::Suspect | AfterPoll::Report => {
                self.report("poll", &trouble);
                self.poll_after_trouble()
            }
        }
    }

    /// Continues after a poll that showed the session to be valid.
    fn poll_on(&mut self) -> Next<Self> {
        self.backoff.reset();
        self.suspicions = 0;
        self.poll_when_known()
    }

    /// Polls once the senders of the last poll's messages are known.
    ///
    /// The next poll acknowledges what the last one delivered, so it must not start before the
    /// lists have arrived. If the session ends before that, the next session gets those messages
    /// again, with uins that are valid there.
    fn poll_when_known(&mut self) -> Next<Self> {
        match self.has_strangers() {
            true => self.later(self.wait(SECOND / 10), |bot, _| bot.poll_when_known()),
            false => self.poll(),
        }
    }

    /// Polls again after an answer that helps with nothing.
    fn poll_after_trouble(&mut self) -> Next<Self> {
        let pause = self.backoff.next_wait();
        let pause = self.jittered(pause);
        self.later(pause, |bot, _| bot.poll())
    }

    fn on_items(&mut self, items: Vec<Item>, cx: &mut Context<'_, Self>) -> Next<Self> {
        let mut kicked = None;
        for item in items {
            match item {
                Item::Message(message) => self.on_message(message),
                Item::Kick(reason) => kicked = Some(reason),
                Item::Other => {}
            }
        }
        self.login.was_polled = true;
        // A call runs after this readback's result has been carried out, so the next poll is sent
        // before any message is handled.
        cx.call(Self::read_inbox);
        match kicked {
            Some(reason) => self.on_kick(&reason, cx),
            None => self.poll_on(),
        }
    }

    fn beat(&mut self) -> Next<Self> {
        Next::send(self.login.heartbeat()).read_to(OfLogin::new(
            "heartbeat",
            |bot: &mut Self, reply, _| {
                match good(reply) {
                    Ok(_) => bot.tell(Event::Beat),
                    Err(trouble) => bot.report("heartbeat", &trouble),
                }
                // The next heartbeat follows in either case.
                bot.later(bot.wait(BEAT), |bot, _| bot.beat())
            },
        ))
    }

    // ---- the ends of a login ----

    fn on_kick(&mut self, reason: &str, cx: &mut Context<'_, Self>) -> Next<Self> {
        let stay_away = self.kicks.on_kick(self.login.clock().wall());
        self.start_again_after(stay_away, How::Relink, &format!("kicked: {reason}"), cx)
    }

    /// Ends the login; the next one begins after a pause.
    pub(crate) fn start_again(
        &mut self,
        how: How,
        why: &str,
        cx: &mut Context<'_, Self>,
    ) -> Next<Self> {
        self.start_again_after(Duration::ZERO, how, why, cx)
    }

    fn start_again_after(
        &mut self,
        at_least: Duration,
        how: How,
        why: &str,
        cx: &mut Context<'_, Self>,
    ) -> Next<Self> {
        self.end_login(Stage::LoggingIn, cx);
        let pause = self.backoff.next_wait();
        let wait = self.jittered(pause).max(self.wait(at_least));
        self.tell(Event::LoggingInAgain {
            how,
            why: why.to_owned(),
            wait,
        });
        cx.start(self.later(
            wait,
            match how {
                How::Login => Self::begin_login,
                How::Relink => Self::relink,
            },
        ));
        Next::done()
    }

    /// Repeats LOGIN2 alone, with the cookies of the login.
    fn relink(&mut self, _: &mut Context<'_, Self>) -> Next<Self> {
        self.step(self.login.login2(), |bot, answer, cx| {
            bot.login.set_keys(answers::keys(text(answer)?)?);
            bot.go_online(cx);
            bot.fetch_lists(Why::Relink, cx);
            Ok(Next::done())
        })
    }

    pub(crate) fn on_login_trouble(
        &mut self,
        trouble: &Trouble,
        cx: &mut Context<'_, Self>,
    ) -> Next<Self> {
        if let Trouble::Refused(..) = trouble {
            self.refusals += 1;
        }
        match (trouble, self.refusals) {
            // The next handshake would fail the same way, and the password must not go to an
            // unverified server.
            (Trouble::Unverified(why), _) => self.stop(why, cx),
            (_, MOST_REFUSALS..) => self.stop(&trouble.to_string(), cx),
            _ => self.start_again(How::Login, &trouble.to_string(), cx),
        }
    }

    /// Stops the bot until it is told to log in again.
    pub(crate) fn stop(&mut self, why: &str, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.end_login(Stage::Offline, cx);
        self.tell(Event::Stopped {
            why: why.to_owned(),
        });
        Next::done()
    }

    /// Ends the login and all that was begun for it: poll, heartbeat, lists and waits.
    pub(crate) fn end_login(&mut self, next: Stage, cx: &mut Context<'_, Self>) {
        self.login.set_now(cx.now());
        self.withdraw(cx);
        self.login.sessions.end_login(cx);
        self.login.begin_another();
        self.stage = next;
        self.lists = None;
    }

    pub(crate) fn is_bad_session(&mut self) -> bool {
        self.suspicions += 1;
        self.suspicions >= policy::SUSPICIONS
    }
}
