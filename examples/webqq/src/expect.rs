//! What people expect to hear from the bot.

use std::collections::BTreeMap;

use crate::server::{Account, Ledger, Place};

/// The expected answer to a message, without the message's number and, in groups and discussions,
/// the sender's name in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Nothing,
    Exactly(String),
    /// Begins with this; the rest is unknown.
    Begins(String),
    /// Too long for one message: the parts must add up to this.
    Parts(String),
    /// Too long for one message: as much of this as fits, and a mark.
    Cut(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// The prefix of each message of the answer.
    pub(crate) head: String,
    pub(crate) answer: Expect,
}

impl Expected {
    pub(crate) fn new(
        account: &Account,
        place: &Place,
        who: &str,
        nonce: u64,
        answer: Expect,
    ) -> Self {
        let name = match place {
            Place::Group(_) | Place::Discu(_) => account.shown_name(place, who),
            Place::Buddy | Place::Sess(_) => None,
        };
        let head = match name {
            Some(name) => format!("{name}: #{nonce} "),
            None => format!("#{nonce} "),
        };
        Self { head, answer }
    }

    /// Whether `texts` are the answer, complete and exactly once.
    pub(crate) fn is_met_by(&self, texts: &[&str]) -> bool {
        let bodies: Vec<&str> = texts
            .iter()
            .filter_map(|text| text.strip_prefix(&*self.head))
            .collect();
        bodies.len() == texts.len()
            && match &self.answer {
                Expect::Nothing => bodies.is_empty(),
                Expect::Exactly(words) => bodies == [words],
                Expect::Begins(words) => matches!(&*bodies, [one] if one.starts_with(words)),
                Expect::Cut(words) => matches!(&*bodies, [one] if is_cut(one, words)),
                Expect::Parts(words) => joined(&bodies).as_ref() == Some(words),
            }
    }
}

/// The bot's messages, by the number of the message that each answers.
pub(crate) struct Answers<'a> {
    by_number: BTreeMap<u64, Vec<&'a str>>,
    ledger: &'a Ledger,
}

impl<'a> Answers<'a> {
    pub(crate) fn of(ledger: &'a Ledger) -> Self {
        let mut by_number: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
        for answer in ledger.answers.iter().filter(|answer| answer.accepted) {
            if let Some(number) = number_of(&answer.text) {
                by_number.entry(number).or_default().push(&answer.text);
            }
        }
        Self { by_number, ledger }
    }

    /// Whether message number `nonce` has been delivered, and has its whole answer if one is
    /// expected.
    pub(crate) fn meet(&self, nonce: u64, expected: Option<&Expected>) -> bool {
        let texts = self.by_number.get(&nonce).map_or(&[][..], Vec::as_slice);
        let is_delivered = || {
            // Messages are numbered from 1.
            let message = self.ledger.messages.get((nonce as usize).saturating_sub(1));
            message.is_none_or(|message| message.delivered > 0)
        };
        expected.is_none_or(|expected| expected.is_met_by(texts) && is_delivered())
    }
}

fn is_cut(text: &str, words: &str) -> bool {
    let kept = text.strip_suffix(" [...]");
    kept.is_some_and(|kept| kept.len() > 20 && words.starts_with(kept))
}

/// Returns the number behind the first `#`.
pub(crate) fn number_of(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once('#')?;
    rest.split(' ').next()?.parse().ok()
}

/// Joins the parts `(1/3) …`, `(2/3) …`, `(3/3) …`, if all are there and in order.
fn joined(bodies: &[&str]) -> Option<String> {
    let mut whole = String::new();
    for (i, body) in bodies.iter().enumerate() {
        let count = format!("({}/{}) ", i + 1, bodies.len());
        whole.push_str(body.strip_prefix(&count)?);
    }
    (bodies.len() > 1).then_some(whole)
}
