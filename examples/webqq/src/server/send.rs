//! Messages from bots, and the pictures that they fetch.

use serde_json::{Value, json};

use super::ledger::{Heard, Picture};
use super::login;
use super::mint::Kind;
use super::seat::Seat;
use super::step::Step;
use super::visit::Visit;
use super::wire::{Answer, Place};

/// Retcodes of sends that are delivered all the same.
const PROBABLY_SENT: &[i64] = &[0, 1202, 100_003, 100_100];

/// Returns the text of a `content`: a JSON array whose last element is the font.
pub(crate) fn text_of(content: &str) -> Option<String> {
    let Ok(Value::Array(mut parts)) = serde_json::from_str(content) else {
        return None;
    };
    let font = parts.pop()?;
    if font.get(0) != Some(&json!("font")) {
        return None;
    }
    let part = |part: &Value| match part {
        Value::String(text) => text.clone(),
        other => format!("[{}]", other.get(0).and_then(Value::as_str).unwrap_or("?")),
    };
    Some(parts.iter().map(part).collect())
}

impl Seat {
    /// Returns the place of a send, and the recipient if it is a single person.
    pub(crate) fn place_of(&self, visit: &Visit<'_>) -> Option<(Place, &'static str)> {
        let numbers = &self.numbers;
        match visit.step {
            Step::SendBuddy => {
                let who = numbers.who(visit.number("to"))?;
                self.account.is_friend(who).then_some((Place::Buddy, who))
            }
            Step::SendGroup => {
                let group = numbers.group(visit.number("group_uin"))?;
                Some((Place::Group(group.into()), ""))
            }
            Step::SendDiscu => {
                let discussion = numbers.discussion(visit.number("did"))?;
                Some((Place::Discu(discussion.into()), ""))
            }
            Step::SendSess => {
                let who = numbers.who(visit.number("to"))?;
                let given = visit.parameter("group_sig")?;
                let mut groups = self.account.groups();
                let group = groups.find(|group| given == self.sess_token(visit, group, who))?;
                Some((Place::Sess(group.into()), who))
            }
            _ => None,
        }
    }

    /// The signature for messages to a group member who is not a friend.
    pub(crate) fn sess_sig(&self, visit: &Visit<'_>) -> Answer {
        let group = self.numbers.group(visit.number("id"));
        let who = self.numbers.who(visit.number("to_uin"));
        let (Some(group), Some(who)) = (group, who) else {
            return Answer::retcode(100_012);
        };
        let sig = self.sess_token(visit, group, who);
        let flags = json!({"text": 1, "pic": 1, "file": 1, "audio": 1, "video": 1});
        Answer::result(json!({"type": 0, "value": sig, "flags": flags}))
    }

    fn sess_token(&self, visit: &Visit<'_>, group: &str, who: &str) -> String {
        let pair = self.numbers.gid(group) << 32 | self.numbers.uin(who);
        let mint = &visit.house.mint;
        mint.token(Kind::SessSig, self.account.number, pair)
    }

    /// Records a bot's message, which is answered with `retcode`.
    pub(crate) fn hear(&mut self, visit: &mut Visit<'_>, retcode: i64) -> Answer {
        let accepted = PROBABLY_SENT.contains(&retcode);
        let content = visit.parameter("content").unwrap_or_default();
        if let Some((place, to)) = self.place_of(visit) {
            visit.house.ledger.answers.push(Heard {
                account: self.account.number,
                place,
                to: to.into(),
                text: text_of(&content).unwrap_or_default(),
                at: visit.now,
                accepted,
                retcode,
            });
        }
        if accepted {
            self.last_send = Some(visit.now);
            self.last_msg_id = visit.number("msg_id");
        }
        match retcode {
            0 => Answer::result("ok".into()),
            code => Answer::retcode(code),
        }
    }

    /// Returns the nonce of the message whose picture is requested.
    pub(crate) fn picture_of(&self, visit: &Visit<'_>) -> Option<u64> {
        let nonce = match visit.step {
            Step::Offpic => {
                let path = visit.parameter("file_path")?;
                let token = visit
                    .house
                    .mint
                    .read(Kind::Picture, path.strip_prefix('/')?)?;
                token.is_ours.then_some(token.serial)?
            }
            _ => visit.number("fid"),
        };
        let index = usize::try_from(nonce.checked_sub(1)?).ok()?;
        let said = visit.house.ledger.messages.get(index)?;
        (said.picture && said.account == self.account.number).then_some(nonce)
    }

    pub(crate) fn picture(&self, visit: &mut Visit<'_>) -> Answer {
        let Some(nonce) = self.picture_of(visit) else {
            return Answer::status(404);
        };
        let bytes = login::picture(nonce);
        if !visit.is_lost() {
            visit.house.ledger.pictures.push(Picture {
                account: self.account.number,
                nonce,
                len: bytes.len(),
                at: visit.now,
            });
        }
        Answer::jpeg(bytes)
    }
}
