//! Everything the server knows of one account's client, and the way of a call through it.

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

/// An account's place at the server.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) account: Account,
    pub(crate) numbers: Numbers,
    /// Those that `Fault::DropUins` took away: the client cannot know.
    pub(crate) dropped: Numbers,

    /// The login that is under way.
    pub(crate) attempt: Option<Attempt>,
    pub(crate) keys: Option<Keys>,
    /// What calls that are still on their way may bring.
    pub(crate) former_keys: Option<(Keys, Duration)>,
    /// The server has taken the keys away: only a full login helps.
    pub(crate) is_revoked: bool,
    pub(crate) shelf: Shelf,

    pub(crate) session: Option<Session>,
    /// How the session before it ended.
    pub(crate) ending: Option<Ending>,
    /// Some LOGIN2 has been answered, since this server began.
    pub(crate) was_online: bool,
    pub(crate) heart: Option<Heart>,
    pub(crate) last_msg_id: u64,
    pub(crate) last_send: Option<Duration>,

    pub(crate) mail: Mail,
    pub(crate) poll: Option<HeldPoll>,
    /// What the last one said, for whoever has overheard it.
    pub(crate) last_poll: Option<Call>,
    /// Lists that come after the next login.
    pub(crate) late: Vec<(HoldId, Answer)>,

    pub(crate) armed: VecDeque<(Step, Fault)>,
    /// Steps whose last answer a fault took away: that they come again is no fault of the client.
    pub(crate) struck: BTreeSet<Step>,
}

/// What a full login gives, by their serial numbers; the tokens follow from these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) login: u64,
    /// A poll can change it.
    pub(crate) ptwebqq: u64,
    /// No LOGIN2 has used them yet.
    pub(crate) is_fresh: bool,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) serial: u64,
    pub(crate) clientid: String,
    /// When the client could learn of it; `None` if the answer of LOGIN2 was lost.
    pub(crate) announced: Option<Duration>,
    pub(crate) was_polled: bool,
    /// How many polls in a row were answered 103.
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
    /// By the server.
    Refused,
    /// Somebody else logged in; no poll has told the client yet.
    KickedUntold,
    /// The client logged out, or was told that it had: it must stop.
    LoggedOut,
    /// By the next login.
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

    /// The way of a call: it is checked, perhaps a fault is due, its step does its work, and the
    /// answer goes out as the fault lets it.
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

    /// Each step's own work.
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

    /// What is true of every call that was let in, whatever becomes of its answer.
    fn note_arrival(&mut self, visit: &mut Visit<'_>) {
        self.note_keys(visit);
        match visit.step {
            Step::Poll => self.note_poll(visit),
            Step::Heartbeat => visit.house.ledger.heartbeats += 1,
            _ => {}
        }
    }

    /// Who has brought the present keys knows them: the former ones are good only for what is still
    /// on its way.
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

    /// A fault could not strike this time: it waits for the next call.
    pub(crate) fn rearm(&mut self, step: Step, fault: Fault) {
        self.armed.push_front((step, fault));
    }

    /// Lets `fault` strike `answer`, and counts it.
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

/// Asked for by anybody.
pub(crate) fn weather(visit: &Visit<'_>) -> Answer {
    match visit.call.query("city").unwrap_or_default() {
        "nowhere" => Answer::status(404),
        city => Answer::text(format!("{city}: sunny, 21 C")),
    }
}
