//! The messages that the bot has to send, and when each may be sent.
//!
//! The server loses messages that arrive less than half a second apart, and repeats that arrive
//! less than a second apart. So one message is under way at a time, and the pause begins when its
//! answer has arrived. The bot does not have to count messages, and its clock need not agree with
//! the server's.
//!
//! The queue is kept here, and not in the lane of the HTTP session, because messages outlast a
//! login: the request for a message, with the login's keys and the recipient's uin, is made when
//! the message is the next. Nor is the pause a rate of the lane. A rate counts from when a request
//! was sent, and assumes that the request reaches the server within a tenth of the window.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::answers::MessageId;
use crate::roster::Target;

/// The shortest time between two messages.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) target: Target,
    pub(crate) text: String,
    /// The signature that a session with a stranger needs, and the login it is valid for.
    pub(crate) sig: Option<(u32, String)>,
    /// How often the server refused it.
    pub(crate) refusals: u32,
    /// How often its session ended before it was sent.
    pub(crate) relinks: u32,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: VecDeque<Outgoing>,
    under_way: Option<Outgoing>,
    pause: Duration,
    last_text: String,
    not_before: Option<Instant>,
}

impl Outbox {
    /// `pause` is [`PAUSE`], or less where waits are compressed.
    pub(crate) fn new(pause: Duration) -> Self {
        Self {
            waiting: VecDeque::new(),
            under_way: None,
            pause,
            last_text: String::new(),
            not_before: None,
        }
    }

    pub(crate) fn push(&mut self, target: &Target, text: String) {
        let target = target.clone();
        self.waiting.push_back(Outgoing {
            target,
            text,
            sig: None,
            refusals: 0,
            relinks: 0,
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_none()
    }

    /// Takes the next message, which is under way until `done` or `put_back`, and returns how long
    /// it must wait. `None` if there is none, or if one is under way.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Duration> {
        if self.under_way.is_some() {
            return None;
        }
        let next = self.waiting.pop_front()?;
        let extra = match next.text == self.last_text {
            true => self.pause,
            false => Duration::ZERO,
        };
        self.under_way = Some(next);
        let not_before = self.not_before.map(|at| at + extra);
        Some(not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(now)))
    }

    pub(crate) fn under_way(&mut self) -> Option<&mut Outgoing> {
        self.under_way.as_mut()
    }

    /// Removes and returns all waiting messages, but not the one under way.
    pub(crate) fn drain(&mut self) -> Vec<Outgoing> {
        self.waiting.drain(..).collect()
    }

    /// Ends the message under way: it was sent, or given up.
    pub(crate) fn done(&mut self, now: Instant) -> Option<Outgoing> {
        let sent = self.under_way.take()?;
        self.last_text.clone_from(&sent.text);
        self.not_before = Some(now + self.pause);
        Some(sent)
    }

    /// Puts the message under way back in front, to be sent after `wait`, or after the pause if
    /// that is longer.
    pub(crate) fn put_back(&mut self, now: Instant, wait: Duration) {
        if let Some(message) = self.under_way.take() {
            self.waiting.push_front(message);
            self.not_before = Some(now + wait.max(self.pause));
        }
    }
}

/// How to treat an answer that is longer than a message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Long {
    Split,
    Cut,
}

/// Returns `text` as messages of at most `most` characters, with `head` in front of each.
pub(crate) fn messages(head: &str, text: &str, most: usize, long: Long) -> Vec<String> {
    const CUT: &str = " [...]";
    let head_len = head.chars().count();
    if head_len + text.chars().count() <= most {
        return vec![format!("{head}{text}")];
    }
    let letters: Vec<char> = text.chars().collect();
    let room = |rest: usize| most.saturating_sub(head_len + rest).max(1);
    if long == Long::Cut {
        let kept: String = letters.iter().take(room(CUT.len())).collect();
        return vec![format!("{head}{kept}{CUT}")];
    }
    // "(12/34) " for up to 99 parts. More digits leave less room for text, which may take more
    // parts.
    let room = (2..)
        .map(|digits| (digits, room("(/) ".len() + 2 * digits)))
        .find(|(digits, room)| letters.len().div_ceil(*room).to_string().len() <= *digits)
        .map_or(1, |(_, room)| room);
    let parts: Vec<String> = letters
        .chunks(room)
        .map(|part| part.iter().collect())
        .collect();
    let count = parts.len();
    let numbered = parts.iter().enumerate();
    numbered
        .map(|(i, part)| format!("{head}({}/{count}) {part}", i + 1))
        .collect()
}

/// The ids of recent messages. A message that is delivered twice is answered once.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    ids: HashSet<MessageId>,
    order: VecDeque<MessageId>,
}

impl Seen {
    const KEPT: usize = 512;

    /// Adds an id, and returns whether it is new.
    pub(crate) fn insert(&mut self, id: MessageId) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > Self::KEPT {
            self.ids
                .remove(&self.order.pop_front().expect("it has just been filled"));
        }
        true
    }
}
