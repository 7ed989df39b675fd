//! The state of one account's client, and the path of a call through it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::checks::GRACE;
use super::cookies::{Shelf, brought};
use super::fault::{Fault, Switch};
use super::login::{self, Attempt};
use super::mail::Mail;
use super::mint::Kind;
use super::numbers::Numbers;
use super::people::Account;
use super::poll::HeldPoll;
use super::step::Step;
use super::visit::{House, Visit};
use super::wire::{Answer, Call, HoldId, Reaction};

/// An account's state at the server.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) account: Account,
    pub(crate) numbers: Numbers,
    /// Numbers that `Fault::DropUins` has replaced, without the client's knowledge.
    pub(crate) dropped: Numbers,

    /// The login in progress.
    pub(crate) attempt: Option<Attempt>,
    pub(crate) keys: Option<Keys>,
    /// The previous keys, which calls in flight may still carry, and until when.
    pub(crate) former_keys: Option<(Keys, Duration)>,
    /// Whether the server has revoked the keys, so that only a full login helps.
    pub(crate) is_revoked: bool,
    pub(crate) shelf: Shelf,

    pub(crate) session: Option<Session>,
    /// How the previous session ended.
    pub(crate) ending: Option<Ending>,
    /// Whether a LOGIN2 has been answered since this server began.
    pub(crate) was_online: bool,
    pub(crate) heart: Option<Heart>,
    pub(crate) last_msg_id: u64,
    pub(crate) last_send: Option<Duration>,

    pub(crate) mail: Mail,
    pub(crate) poll: Option<HeldPoll>,
    /// The last poll, which an intruder repeats.
    pub(crate) last_poll: Option<Call>,
    /// Lists that are sent only after the next login.
    pub(crate) late: Vec<(HoldId, Answer)>,

    pub(crate) armed: VecDeque<(Step, Fault)>,
    /// Steps whose last answer was lost to a fault. Repeating them is not the client's error.
    pub(crate) struck: BTreeSet<Step>,
}

/// The serial numbers of what a full login hands out. The tokens are derived from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) login: u64,
    /// A poll can change it.
    pub(crate) ptwebqq: u64,
    /// Whether no LOGIN2 has used them yet.
    pub(crate) is_fresh: bool,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) serial: u64,
    pub(crate) clientid: String,
    /// When the client could know of the session; `None` if the answer to LOGIN2 was lost.
    pub(crate) announced: Option<Duration>,
    pub(crate) was_polled: bool,
    /// How many polls in a row were answered with 103.
    pub(crate) refusals: u8,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pub(crate) serial: u64,
    pub(crate) at: Duration,
    pub(crate) how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Ended by the server.
    Refused,
    /// Another client logged in; no poll has reported it yet.
    KickedUntold,
    /// The client logged out, or was told that it had: it must stop.
    LoggedOut,
    /// Ended by the next login.
    Succeeded,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Heart {
    pub(crate) rc: u64,
    pub(crate) at: Duration,
}

impl Seat {
    pub(crate) fn new(account: Account, house: &mut House) -> Self {
        Self {
            numbers: Numbers::draw(&account, &mut house.mint),
            mail: Mail::new(10_000 + house.mint.draw_below(10_000)),
            account,
            dropped: Numbers::default(),
            attempt: None,
            keys: None,
            former_keys: None,
            is_revoked: false,
            shelf: Shelf::default(),
            session: None,
            ending: None,
            was_online: false,
            heart: None,
            last_msg_id: 0,
            last_send: None,
            poll: None,
            last_poll: None,
            late: Vec::new(),
            armed: VecDeque::new(),
            struck: BTreeSet::new(),
        }
    }

    /// Handles a call: checks it, takes the fault that is due, does the step's work, and sends the
    /// answer as the fault allows.
    pub(crate) fn on_call(&mut self, visit: &mut Visit<'_>) -> Reaction {
        if let Some(answer) = self.tell_kick(visit) {
            return Reaction::Answer(answer);
        }
        if let Err(breach) = self.admit(visit) {
            return Reaction::Answer(self.refuse(visit, breach));
        }
        self.note_arrival(visit);
        visit.fault = self.next_fault(visit.step);
        let reaction = match visit.fault {
            Some(Fault::Retcode(code)) => Reaction::Answer(self.answer_retcode(visit, code)),
            _ => self.perform(visit),
        };
        match (reaction, visit.fault) {
            (Reaction::Answer(answer), Some(Fault::Late)) => self.keep_late(visit, answer),
            (Reaction::Answer(answer), fault) => {
                let answer = self.finish(visit.house, visit.step, fault, answer);
                Reaction::Answer(answer)
            }
            (held, _) => held,
        }
    }

    /// Does the work of each step.
    fn perform(&mut self, visit: &mut Visit<'_>) -> Reaction {
        Reaction::Answer(match visit.step {
            Step::Sig => login::sig(visit),
            Step::Check => self.check(visit),
            Step::Captcha => self.captcha(visit),
            Step::PtLogin => self.ptlogin(visit),
            Step::CheckSig => self.checksig(visit),
            Step::Login2 => self.login2(visit),
            Step::Friends => self.friends(),
            Step::OnlineBuddies => self.online_buddies(),
            Step::Groups => self.groups(),
            Step::Members => self.members(visit),
            Step::Discus => self.discus(),
            Step::DiscuInfo => self.discu_info(visit),
            Step::Poll => return self.poll(visit),
            Step::Heartbeat => self.heartbeat(visit),
            Step::SendBuddy | Step::SendGroup | Step::SendDiscu | Step::SendSess => {
                self.hear(visit, 0)
            }
            Step::SessSig => self.sess_sig(visit),
            Step::FriendUin => self.friend_uin(visit),
            Step::LongNick => Answer::result(serde_json::json!({})),
            Step::AllowAdd => self.allow_add(visit),
            Step::Offpic | Step::GroupPic => self.picture(visit),
            Step::File => Answer::text("a file\n"),
            Step::Logout => self.logout(visit),
            Step::Weather => weather(visit),
        })
    }

    /// Records a call that passed the checks, whatever happens to its answer.
    fn note_arrival(&mut self, visit: &mut Visit<'_>) {
        self.note_keys(visit);
        match visit.step {
            Step::Poll => self.note_poll(visit),
            Step::Heartbeat => visit.house.ledger.heartbeats += 1,
            _ => {}
        }
    }

    /// A client that sends the present keys knows them. From then on the former keys are accepted
    /// only from calls in flight.
    fn note_keys(&mut self, visit: &Visit<'_>) {
        let (Some(keys), Some((_, until))) = (self.keys, &mut self.former_keys) else {
            return;
        };
        let mint = &visit.house.mint;
        let present = mint.token(Kind::PtWebQq, self.account.number, keys.ptwebqq);
        if brought(visit.call, "ptwebqq") == Some(&present) {
            *until = (*until).min(visit.now + GRACE);
        }
    }

    fn next_fault(&mut self, step: Step) -> Option<Fault> {
        let index = self.armed.iter().position(|&(armed, _)| armed == step)?;
        self.armed.remove(index).map(|(_, fault)| fault)
    }

    /// Puts back a fault that could not occur this time, for the next call.
    pub(crate) fn rearm(&mut self, step: Step, fault: Fault) {
        self.armed.push_front((step, fault));
    }

    /// Applies `fault` to `answer`, and counts it.
    pub(crate) fn finish(
        &mut self,
        house: &mut House,
        step: Step,
        fault: Option<Fault>,
        answer: Answer,
    ) -> Answer {
        let Some(fault) = fault else {
            self.struck.remove(&step);
            return answer;
        };
        house.ledger.fire(Switch::Arm(step, fault).name());
        if fault.loses_answer() {
            self.struck.insert(step);
        }
        fault.dress(answer)
    }

    fn keep_late(&mut self, visit: &mut Visit<'_>, answer: Answer) -> Reaction {
        let hold = visit.house.next_hold();
        let answer = self.finish(visit.house, visit.step, visit.fault, answer);
        self.late.push((hold, answer));
        Reaction::Hold(hold)
    }
}

/// The weather service, which needs no login.
pub(crate) fn weather(visit: &Visit<'_>) -> Answer {
    match visit.call.query("city").unwrap_or_default() {
        "nowhere" => Answer::status(404),
        city => Answer::text(format!("{city}: sunny, 21 C")),
    }
}
