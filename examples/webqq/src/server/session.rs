//! How sessions end: by a retcode, a kick, a logout, or the next login.

use std::time::Duration;

use serde_json::json;

use super::fault::{Fault, Switch};
use super::mint::Kind;
use super::seat::{Ending, Heart, How, Keys, Seat};
use super::step::Step;
use super::visit::{House, Visit};
use super::wire::Answer;

/// A poll answered with one of these ends the session, but the cookies stay valid: LOGIN2 is
/// enough.
const ENDS_SESSION: &[i64] = &[120, 121, 100_006];
/// These end both: only a full login helps.
const ENDS_LOGIN: &[i64] = &[100, 108, 114, 100_002];
/// These report that the client has logged out.
const MUST_STOP: &[i64] = &[109, 110];
/// This many 103 in a row end the session.
const MAX_REFUSALS: u8 = 3;

impl Seat {
    /// Answers with an armed retcode, and applies its consequences.
    pub(crate) fn answer_retcode(&mut self, visit: &mut Visit<'_>, code: i64) -> Answer {
        match visit.step {
            Step::Poll => self.answer_poll_with(visit, code),
            Step::Login2 => {
                self.revoke(visit.house, visit.now);
                Answer::retcode(code)
            }
            step if step.is_send() => {
                if code == 8 {
                    self.end_session(visit.house, visit.now, How::Refused);
                }
                self.hear(visit, code)
            }
            _ => Answer::retcode(code),
        }
    }

    fn answer_poll_with(&mut self, visit: &mut Visit<'_>, code: i64) -> Answer {
        let (now, house) = (visit.now, &mut *visit.house);
        let refusals = match (&mut self.session, code) {
            (Some(session), 103) => {
                session.refusals += 1;
                session.refusals
            }
            _ => 0,
        };
        if let Some(session) = &mut self.session {
            session.refusals = refusals;
        }
        match code {
            116 => return self.change_ptwebqq(house, now),
            103 if refusals == MAX_REFUSALS => {
                let switch = Switch::ArmThrice(Step::Poll, Fault::Retcode(103));
                house.ledger.fire(switch.name());
                self.revoke(house, now);
            }
            code if ENDS_SESSION.contains(&code) => self.end_session(house, now, How::Refused),
            code if ENDS_LOGIN.contains(&code) => self.revoke(house, now),
            code if MUST_STOP.contains(&code) => self.end_session(house, now, How::LoggedOut),
            _ => {}
        }
        Answer::retcode(code)
    }

    /// Changes the ptwebqq that LOGIN2 requires. Only this answer contains the new one.
    fn change_ptwebqq(&mut self, house: &mut House, now: Duration) -> Answer {
        let serial = house.next_serial();
        if let Some(keys) = self.keys {
            let keys = Keys {
                ptwebqq: serial,
                ..keys
            };
            self.change_keys(now, house.settings.hold(), keys);
        }
        let p = house.mint.token(Kind::PtWebQq, self.account.number, serial);
        Answer::json(&json!({"retcode": 116, "p": p}))
    }

    /// Ends the session, and revokes the cookies.
    fn revoke(&mut self, house: &mut House, now: Duration) {
        self.end_session(house, now, How::Refused);
        self.keys = None;
        self.is_revoked = true;
    }

    /// Ends the session, if there is one. A held poll is answered accordingly.
    pub(crate) fn end_session(&mut self, house: &mut House, now: Duration, how: How) {
        let Some(session) = self.session.take() else {
            return;
        };
        self.ending = Some(Ending {
            serial: session.serial,
            at: now,
            how,
        });
        if let Some(poll) = self.take_poll(house) {
            let answer = match how {
                How::KickedUntold => self.kick_message(house),
                _ => Answer::retcode(121),
            };
            house.ready.push((poll.hold, answer));
        }
    }

    /// Logs in to the account from elsewhere.
    pub(crate) fn kick(&mut self, house: &mut House, now: Duration) {
        self.end_session(house, now, How::KickedUntold);
    }

    /// Reports a kick to the first poll after it.
    pub(crate) fn tell_kick(&mut self, visit: &mut Visit<'_>) -> Option<Answer> {
        let ending = self
            .ending
            .filter(|ending| ending.how == How::KickedUntold)?;
        let psessionid = visit.parameter("psessionid")?;
        let token = visit.house.mint.read(Kind::Session, &psessionid)?;
        let is_of_it = token.is_ours
            && token.account == self.account.number
            && token.serial == ending.serial
            && visit.step == Step::Poll
            && self.session.is_none();
        is_of_it.then(|| self.kick_message(visit.house))
    }

    fn kick_message(&mut self, house: &mut House) -> Answer {
        if let Some(ending) = &mut self.ending {
            ending.how = How::Refused;
        }
        house.ledger.fire(Switch::Kick.name());
        let reason = "您的帐号在另一地点登录，您已被迫下线。";
        let value = json!({"way": "poll", "show_reason": 1, "reason": reason});
        Answer::result(json!([{"poll_type": "kick_message", "value": value}]))
    }

    pub(crate) fn logout(&mut self, visit: &mut Visit<'_>) -> Answer {
        visit.house.ledger.logouts += 1;
        self.end_session(visit.house, visit.now, How::LoggedOut);
        Answer::result("ok".into())
    }

    /// Records a heartbeat. Clients ignore the answer.
    pub(crate) fn heartbeat(&mut self, visit: &mut Visit<'_>) -> Answer {
        let rc = visit.number("rc");
        self.heart = Some(Heart { rc, at: visit.now });
        Answer::text("{\"retcode\":0}")
    }
}
