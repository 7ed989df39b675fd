//! The judgment: compares the server's ledger with the expected answers, and with the bots' own
//! logs.

use std::collections::{BTreeMap, BTreeSet};

use crate::events::{Entry, Event};
use crate::expect::{Expected, number_of};
use crate::server::{Heard, Ledger, Place, Said, Step};

/// What went wrong. Without complaints the verdict is good.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) complaints: Vec<String>,
    pub(crate) messages: usize,
    pub(crate) answers: usize,
    pub(crate) requests_over_tls: u64,
}

/// The input of the judgment.
pub(crate) struct Evidence<'a> {
    pub(crate) ledger: &'a Ledger,
    /// By message number.
    pub(crate) expected: &'a BTreeMap<u64, Expected>,
    /// The events of each account's bot.
    pub(crate) logs: &'a BTreeMap<u64, Vec<Entry>>,
    /// The faults that the script was to cause.
    pub(crate) switches: &'a [String],
    /// The steps that must have come over TLS. The ledger reports requests that came over the wrong
    /// transport.
    pub(crate) over_tls: &'a [Step],
}

pub(crate) fn judge(evidence: &Evidence<'_>) -> Verdict {
    let ledger = evidence.ledger;
    let mut verdict = Verdict {
        messages: ledger.messages.len(),
        requests_over_tls: ledger.requests_over_tls(),
        ..Verdict::default()
    };
    let mut answers: BTreeMap<u64, Vec<&Heard>> = BTreeMap::new();
    for answer in ledger.answers.iter().filter(|answer| answer.accepted) {
        verdict.answers += 1;
        match number_of(&answer.text) {
            Some(number) => answers.entry(number).or_default().push(answer),
            None => verdict.complain(format!("said without being asked: {:?}", answer.text)),
        }
    }
    for message in &ledger.messages {
        let answers = answers.remove(&message.nonce).unwrap_or_default();
        verdict.judge_message(message, &answers, evidence.expected.get(&message.nonce));
    }
    for (number, answers) in answers {
        verdict.complain(format!(
            "#{number} was never asked, but answered {} times",
            answers.len()
        ));
    }
    for error in ledger.unprovoked() {
        let step = error
            .step
            .map(|step| format!("{step:?}: "))
            .unwrap_or_default();
        verdict.complain(format!("protocol error: {step}{}", error.what));
    }
    for switch in evidence.switches {
        if ledger.fired.get(switch).is_none_or(|count| *count == 0) {
            verdict.complain(format!("never happened: {switch}"));
        }
    }
    for step in evidence.over_tls {
        if !ledger.over_tls.contains_key(step) {
            verdict.complain(format!("never came over TLS: {step}"));
        }
    }
    for (account, log) in evidence.logs {
        verdict.judge_log(*account, log, ledger);
    }
    verdict
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.complaints.is_empty()
    }

    fn complain(&mut self, what: String) {
        self.complaints.push(what);
    }

    fn judge_message(&mut self, message: &Said, answers: &[&Heard], expected: Option<&Expected>) {
        let Said {
            place, who, text, ..
        } = message;
        if message.delivered == 0 {
            self.complain(format!("never fetched: {text:?}"));
        }
        for answer in answers {
            let to_whom = match place {
                Place::Buddy | Place::Sess(_) => who.as_str(),
                Place::Group(_) | Place::Discu(_) => "",
            };
            if answer.account != message.account || answer.place != *place || answer.to != to_whom {
                self.complain(format!(
                    "{text:?} by {who} ({place}) was answered elsewhere: {answer:?}"
                ));
            }
        }
        let texts: Vec<&str> = answers.iter().map(|answer| answer.text.as_str()).collect();
        let is_right = expected.map_or(texts.is_empty(), |expected| expected.is_met_by(&texts));
        let how = match texts.len() {
            _ if is_right => return,
            0 => "was lost".to_owned(),
            1 => format!("was answered wrongly: {:?}", texts[0]),
            count => format!("was answered {count} times: {texts:?}"),
        };
        self.complain(format!(
            "{text:?} by {who} ({place}) {how}, expected was {expected:?}"
        ));
    }

    fn judge_log(&mut self, account: u64, log: &[Entry], ledger: &Ledger) {
        let mut heard: BTreeMap<u64, usize> = BTreeMap::new();
        let mut said: BTreeMap<&str, i64> = BTreeMap::new();
        let mut perhaps: BTreeMap<&str, i64> = BTreeMap::new();
        for entry in log {
            match &entry.event {
                Event::Heard { msg_id, .. } => *heard.entry(*msg_id).or_default() += 1,
                Event::Said { text, .. } => *said.entry(text).or_default() += 1,
                Event::PerhapsSaid { text, .. } => *perhaps.entry(text).or_default() += 1,
                Event::NotSaid { text, why, .. } => {
                    self.complain(format!("{account} gave up {text:?}: {why}"));
                }
                _ => {}
            }
        }
        for message in ledger
            .messages
            .iter()
            .filter(|message| message.account == account)
        {
            match heard.get(&message.msg_id) {
                Some(1) => {}
                Some(count) => self.complain(format!("{:?} was heard {count} times", message.text)),
                None => self.complain(format!("{:?} was not heard", message.text)),
            }
        }
        let sent = ledger.messages.iter().filter(|m| m.account == account);
        let sent: BTreeSet<u64> = sent.map(|message| message.msg_id).collect();
        for msg_id in heard.keys().filter(|msg_id| !sent.contains(msg_id)) {
            self.complain(format!("{account} heard {msg_id}, which was never sent"));
        }
        for answer in ledger
            .answers
            .iter()
            .filter(|a| a.account == account && a.accepted)
        {
            let take = |from: &mut BTreeMap<&str, i64>| match from.get_mut(&*answer.text) {
                Some(count) if *count > 0 => {
                    *count -= 1;
                    true
                }
                _ => false,
            };
            if !take(&mut said) && !take(&mut perhaps) {
                self.complain(format!(
                    "{account} did not log that it said {:?}",
                    answer.text
                ));
            }
        }
        for (text, count) in said.into_iter().filter(|(_, count)| *count > 0) {
            self.complain(format!(
                "{account} logged {text:?} as said, {count} times more than it was received"
            ));
        }
    }
}
