//! The server's record of everything that happened. The verdict on a bot is based on it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::step::Step;
use super::wire::Place;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By nonce, which starts at 1.
    pub(crate) messages: Vec<Said>,
    pub(crate) answers: Vec<Heard>,
    pub(crate) errors: Vec<ProtocolError>,
    pub(crate) pictures: Vec<Picture>,
    /// How often each switch has taken effect.
    pub(crate) fired: BTreeMap<String, u64>,
    pub(crate) requests: u64,
    pub(crate) connections: u64,
    /// How many of the requests came over TLS, by step.
    pub(crate) over_tls: BTreeMap<Step, u64>,
    pub(crate) tls_connections: u64,
    /// Full logins.
    pub(crate) logins: u64,
    pub(crate) relinks: u64,
    pub(crate) polls: u64,
    pub(crate) heartbeats: u64,
    pub(crate) logouts: u64,
}

/// A message from a person to a bot.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) nonce: u64,
    pub(crate) account: u64,
    pub(crate) place: Place,
    pub(crate) who: String,
    /// `#<nonce> ` and the message.
    pub(crate) text: String,
    pub(crate) picture: bool,
    pub(crate) msg_id: u64,
    pub(crate) at: Duration,
    /// The number of polls that delivered it completely.
    pub(crate) delivered: u32,
}

/// A message from a bot.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) account: u64,
    pub(crate) place: Place,
    /// The recipient of a buddy or session message.
    pub(crate) to: String,
    pub(crate) text: String,
    pub(crate) at: Duration,
    /// Whether people could read it, whatever its sender was told.
    pub(crate) accepted: bool,
    pub(crate) retcode: i64,
}

#[derive(Clone, Debug)]
pub(crate) struct ProtocolError {
    pub(crate) at: Duration,
    pub(crate) account: Option<u64>,
    pub(crate) step: Option<Step>,
    pub(crate) what: String,
    /// Whether the server or its script made the error unavoidable.
    pub(crate) provoked: bool,
}

/// A picture that a bot fetched after it had been sent to it.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pub(crate) account: u64,
    pub(crate) nonce: u64,
    pub(crate) len: usize,
    pub(crate) at: Duration,
}

impl Ledger {
    pub(crate) fn fire(&mut self, switch: String) {
        *self.fired.entry(switch).or_default() += 1;
    }

    pub(crate) fn note_tls(&mut self, step: Step) {
        *self.over_tls.entry(step).or_default() += 1;
    }

    /// Returns how many requests came over TLS.
    pub(crate) fn requests_over_tls(&self) -> u64 {
        self.over_tls.values().sum()
    }

    /// Returns the protocol errors that are the bot's fault.
    pub(crate) fn unprovoked(&self) -> impl Iterator<Item = &ProtocolError> {
        self.errors.iter().filter(|error| !error.provoked)
    }

    /// Returns one JSON object per line, each with its `kind`.
    pub(crate) fn to_json_lines(&self) -> String {
        let messages = self.messages.iter().map(Said::to_json);
        let answers = self.answers.iter().map(Heard::to_json);
        let errors = self.errors.iter().map(ProtocolError::to_json);
        let pictures = self.pictures.iter().map(Picture::to_json);
        let fired = self.fired.iter();
        let fired =
            fired.map(|(name, times)| json!({"kind": "fired", "switch": name, "times": times}));
        let totals = [self.totals()];
        let all = messages
            .chain(answers)
            .chain(errors)
            .chain(pictures)
            .chain(fired)
            .chain(totals);
        all.map(|object| format!("{object}\n")).collect()
    }

    fn totals(&self) -> Value {
        json!({
            "kind": "totals", "requests": self.requests, "connections": self.connections,
            "requests_over_tls": self.requests_over_tls(), "tls_connections": self.tls_connections,
            "logins": self.logins, "relinks": self.relinks, "logouts": self.logouts,
            "polls": self.polls, "heartbeats": self.heartbeats,
        })
    }
}

impl Said {
    fn to_json(&self) -> Value {
        json!({
            "kind": "message", "at": self.at.as_secs_f64(), "nonce": self.nonce, "account": self.account,
            "place": self.place.to_string(), "who": self.who, "text": self.text, "picture": self.picture,
            "msg_id": self.msg_id, "delivered": self.delivered,
        })
    }
}

impl Heard {
    fn to_json(&self) -> Value {
        json!({
            "kind": "answer", "at": self.at.as_secs_f64(), "account": self.account,
            "place": self.place.to_string(), "to": self.to, "text": self.text,
            "accepted": self.accepted, "retcode": self.retcode,
        })
    }
}

impl ProtocolError {
    fn to_json(&self) -> Value {
        json!({
            "kind": "error", "at": self.at.as_secs_f64(), "account": self.account,
            "step": self.step.map(Step::name), "what": self.what, "provoked": self.provoked,
        })
    }
}

impl Picture {
    fn to_json(&self) -> Value {
        json!({
            "kind": "picture", "at": self.at.as_secs_f64(), "account": self.account,
            "nonce": self.nonce, "len": self.len,
        })
    }
}
