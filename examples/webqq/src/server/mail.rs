//! What waits for an account's next poll, and what the last poll delivered.
//!
//! Delivery is at least once. An answer's contents count as received when the next poll of the
//! session arrives on the same connection; otherwise they go back to the front of the queue.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};

use super::ledger::{Ledger, Said};
use super::mint::{Kind, Mint};
use super::numbers::Numbers;
use super::people::Account;
use super::wire::Place;

#[derive(Debug)]
pub(crate) struct Mail {
    /// Oldest first.
    pub(crate) waiting: VecDeque<Letter>,
    pub(crate) out: Option<Delivery>,
    last_msg_id: u64,
}

/// Something to deliver to a client. It stays the same however often it is delivered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Letter {
    /// A person's message, by its nonce.
    Said {
        nonce: u64,
        msg_id2: u64,
    },
    Notice(Notice),
}

/// Something that needs no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A friend goes online or offline.
    Status {
        who: &'static str,
        status: &'static str,
    },
    /// A friend is typing.
    Typing(&'static str),
    /// A friend has shaken the chat window.
    Shake(&'static str),
    /// Somebody asks to become a friend.
    VerifyRequired(&'static str),
    /// A group has a new member.
    GroupChange(&'static str),
    BuddyListChange,
    /// A friend offers a file.
    File(&'static str),
}

/// What a poll's answer contained.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) letters: Vec<Letter>,
    pub(crate) session: u64,
    /// `None` if the connection ended with this answer, so the next poll cannot arrive on it.
    pub(crate) connection: Option<u64>,
    /// Whether it is delivered again even if it was received.
    pub(crate) again: bool,
}

impl Mail {
    pub(crate) fn new(last_msg_id: u64) -> Self {
        Self {
            waiting: VecDeque::new(),
            out: None,
            last_msg_id,
        }
    }

    pub(crate) fn next_msg_id(&mut self) -> u64 {
        self.last_msg_id += 1;
        self.last_msg_id
    }

    /// Handles a poll of `session` on `connection`: requeues the last delivery unless it was
    /// received.
    pub(crate) fn on_poll(&mut self, session: u64, connection: u64) {
        let Some(out) = self.out.take() else {
            return;
        };
        let is_same_connection = out.connection.is_none_or(|c| c == connection);
        if out.again || !is_same_connection || out.session != session {
            for letter in out.letters.into_iter().rev() {
                self.waiting.push_front(letter);
            }
        }
    }
}

/// The data that a letter is written from. Its numbers are those of the present login.
pub(crate) struct Writer<'a> {
    pub(crate) account: &'a Account,
    pub(crate) numbers: &'a Numbers,
    pub(crate) ledger: &'a Ledger,
    pub(crate) mint: &'a Mint,
}

/// Messages are dated: the server starts in 2014.
const EPOCH: Duration = Duration::from_secs(1_400_000_000);
const REPLY_IP: u64 = 176_886_360;

impl Writer<'_> {
    /// Returns an item of a poll's result.
    pub(crate) fn write(&self, letter: &Letter) -> Value {
        let (kind, value) = match *letter {
            Letter::Said { nonce, msg_id2 } => {
                let said = &self.ledger.messages[nonce as usize - 1];
                self.message(said, msg_id2)
            }
            Letter::Notice(notice) => self.notice(notice),
        };
        json!({"poll_type": kind, "value": value})
    }

    fn message(&self, said: &Said, msg_id2: u64) -> (&'static str, Value) {
        let numbers = self.numbers;
        let uin = numbers.uin(&said.who);
        let person = self.account.person(&said.who);
        let (kind, msg_type, from, more) = match &said.place {
            Place::Buddy => ("message", 9, uin, json!({})),
            Place::Group(name) => {
                let number = self.account.group(name).map(|group| group.number);
                let (gid, code) = (numbers.gid(name), numbers.code(name));
                let more = json!({"group_code": code, "send_uin": uin, "seq": said.nonce, "info_seq": number});
                ("group_message", 43, gid, more)
            }
            Place::Discu(name) => {
                let did = numbers.did(name);
                let more = json!({"did": did, "send_uin": uin, "seq": said.nonce, "info_seq": 0});
                ("discu_message", 42, did, more)
            }
            Place::Sess(group) => {
                let number = person.map(|person| person.number);
                let gid = numbers.gid(group);
                let more = json!({"id": gid, "ruin": number, "service_type": 0, "flags": {"text": 1, "pic": 1, "file": 1}});
                ("sess_message", 140, uin, more)
            }
        };
        let mut value = json!({
            "msg_id": said.msg_id, "msg_id2": msg_id2, "from_uin": from, "to_uin": self.account.number,
            "msg_type": msg_type, "reply_ip": REPLY_IP, "time": (EPOCH + said.at).as_secs(),
            "content": self.content(said),
        });
        if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
            value.extend(more);
        }
        (kind, value)
    }

    fn content(&self, said: &Said) -> Value {
        let font =
            json!(["font", {"size": 10, "color": "000000", "style": [0, 0, 0], "name": "宋体"}]);
        let mut content = vec![font, json!(said.text)];
        if said.picture {
            let token = self.mint.token(Kind::Picture, said.account, said.nonce);
            content.push(match said.place {
                Place::Buddy | Place::Sess(_) => {
                    json!(["offpic", {"success": 1, "file_path": format!("/{token}")}])
                }
                Place::Group(_) | Place::Discu(_) => json!(["cface", {
                    "name": format!("{token}.jpg"), "file_id": said.nonce, "key": "key",
                    "server": "127.0.0.1:8000",
                }]),
            });
        }
        content.into()
    }

    fn notice(&self, notice: Notice) -> (&'static str, Value) {
        let uin = |who| self.numbers.uin(who);
        let own = self.account.number;
        match notice {
            Notice::Status { who, status } => (
                "buddies_status_change",
                json!({"uin": uin(who), "status": status, "client_type": 1}),
            ),
            Notice::Typing(who) => (
                "input_notify",
                json!({"from_uin": uin(who), "to_uin": own, "msg_type": 121}),
            ),
            Notice::Shake(who) => (
                "shake_message",
                json!({"from_uin": uin(who), "to_uin": own, "msg_type": 9}),
            ),
            Notice::VerifyRequired(who) => {
                let number = self.account.person(who).map(|person| person.number);
                let value = json!({
                    "type": "verify_required", "from_uin": uin(who), "to_uin": own,
                    "account": number, "msg": "hello",
                });
                ("system_message", value)
            }
            Notice::GroupChange(group) => (
                "sys_g_msg",
                json!({"type": "group_join", "from_uin": self.numbers.gid(group), "to_uin": own}),
            ),
            Notice::BuddyListChange => ("buddylist_change", json!({"added_friends": []})),
            Notice::File(who) => (
                "file_message",
                json!({
                    "from_uin": uin(who), "to_uin": own, "session_id": 1, "name": "a.txt",
                    "type": 101, "mode": "recv",
                }),
            ),
        }
    }
}
