//! The events that a bot reports: for the transcript, the log file, and the judgment.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::policy::How;

/// An event and its time since the bot started.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Duration,
    pub(crate) event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    LoggingIn,
    /// The login waits for a person to read the picture, whose size in bytes this is.
    Parked {
        picture: usize,
    },
    Online,
    /// The numbers of friends, groups and discussions.
    Lists([usize; 3]),
    Heard {
        msg_id: u64,
        from: String,
        text: String,
    },
    /// A message that was delivered before.
    Repeated {
        msg_id: u64,
        text: String,
    },
    Said {
        to: String,
        text: String,
    },
    /// The send was not answered, or not clearly. It is not repeated.
    PerhapsSaid {
        to: String,
        text: String,
        why: String,
    },
    NotSaid {
        to: String,
        text: String,
        why: String,
    },
    Delayed {
        why: String,
    },
    Trouble {
        what: &'static str,
        why: String,
    },
    /// The session is over; the next one begins after a wait.
    LoggingInAgain {
        how: How,
        why: String,
        wait: Duration,
    },
    Beat,
    Stopped {
        why: String,
    },
    LoggedOut,
}

impl Event {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Event::LoggingIn => "logging in",
            Event::Parked { .. } => "parked",
            Event::Online => "online",
            Event::Lists(_) => "lists",
            Event::Heard { .. } => "heard",
            Event::Repeated { .. } => "repeated",
            Event::Said { .. } => "said",
            Event::PerhapsSaid { .. } => "perhaps said",
            Event::NotSaid { .. } => "not said",
            Event::Delayed { .. } => "delayed",
            Event::Trouble { .. } => "trouble",
            Event::LoggingInAgain { .. } => "logging in again",
            Event::Beat => "beat",
            Event::Stopped { .. } => "stopped",
            Event::LoggedOut => "logged out",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::LoggingIn => f.write_str("logging in"),
            Event::Parked { picture } => {
                write!(
                    f,
                    "a captcha of {picture} bytes: waiting for a person to read it"
                )
            }
            Event::Online => f.write_str("online"),
            Event::Lists([friends, groups, discus]) => {
                write!(
                    f,
                    "{friends} friends, {groups} groups, {discus} discussions"
                )
            }
            Event::Heard { from, text, .. } => write!(f, "{from}: {text}"),
            Event::Repeated { text, .. } => write!(f, "delivered again, already answered: {text}"),
            Event::Said { to, text } => write!(f, "to {to}: {text}"),
            Event::PerhapsSaid { to, text, why } => {
                write!(f, "to {to}, perhaps sent ({why}): {text}")
            }
            Event::NotSaid { to, text, why } => write!(f, "to {to}, not sent ({why}): {text}"),
            Event::Delayed { why } => write!(f, "not sent yet: {why}"),
            Event::Trouble { what, why } => write!(f, "{what}: {why}"),
            Event::LoggingInAgain { how, why, wait } => {
                let how = match how {
                    How::Login => "login",
                    How::Relink => "relink",
                };
                write!(f, "{why}: {how} in {} ms", wait.as_millis())
            }
            Event::Beat => f.write_str("heartbeat"),
            Event::Stopped { why } => write!(f, "stopped: {why}"),
            Event::LoggedOut => f.write_str("logged out"),
        }
    }
}

impl Entry {
    /// Returns the approximate size in a log, in bytes.
    pub(crate) fn size(&self) -> usize {
        let texts = match &self.event {
            Event::Heard { from, text, .. } => from.capacity() + text.capacity(),
            Event::Said { to, text } => to.capacity() + text.capacity(),
            Event::Trouble { why, .. } | Event::Delayed { why } => why.capacity(),
            _ => 0,
        };
        size_of::<Self>() + texts
    }

    /// Returns a line of the log file.
    pub(crate) fn to_json(&self, account: u64) -> Value {
        let mut line = json!({
            "at_ms": self.at.as_millis() as u64,
            "account": account,
            "kind": self.event.kind(),
            "text": self.event.to_string(),
        });
        if let Event::Heard { msg_id, .. } | Event::Repeated { msg_id, .. } = self.event {
            line["msg_id"] = msg_id.into();
        }
        line
    }
}
