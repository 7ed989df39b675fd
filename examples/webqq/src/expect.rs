//! What people expect to hear from the bot.

use std::collections::BTreeMap;

use crate::server::{Account, Ledger, Place};

/// What a message is to be answered with, behind its number and, in company, behind the name of who
/// said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Nothing,
    Exactly(String),
    /// Begins so; nobody knows what follows.
    Begins(String),
    /// Too long for one message: these are the parts put together.
    Parts(String),
    /// Too long for one message: as much of this as there is room for, and a mark.
    Cut(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// What stands in front of each message of the answer.
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

    /// Whether `texts` are the answer, whole and once.
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

/// What people could read, by the number of the message that it answers.
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

    /// Whether message number `nonce` has its whole answer; where none is expected, whether the bot
    /// has the message.
    pub(crate) fn meet(&self, nonce: u64, expected: Option<&Expected>) -> bool {
        let texts = self.by_number.get(&nonce).map_or(&[][..], Vec::as_slice);
        let is_delivered = || {
            // They are numbered from 1.
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

/// The number behind the first `#`.
pub(crate) fn number_of(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once('#')?;
    rest.split(' ').next()?.parse().ok()
}

/// What stands in `(1/3) …`, `(2/3) …`, `(3/3) …`, if they are all there and in order.
fn joined(bodies: &[&str]) -> Option<String> {
    let mut whole = String::new();
    for (i, body) in bodies.iter().enumerate() {
        let count = format!("({}/{}) ", i + 1, bodies.len());
        whole.push_str(body.strip_prefix(&count)?);
    }
    (bodies.len() > 1).then_some(whole)
}
