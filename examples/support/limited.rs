//! An API with limits, on a simulated network. It keeps a record of what it was asked for.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use httpstream::sim::{Answer, Incoming, Random};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// At most 30 messages in any second, and 20 to a chat in any minute. Others are refused with 429
/// and the time after which there is room again.
pub(crate) struct Limited {
    all: Window,
    chats: BTreeMap<String, Chat>,
    /// Another client, which sends ten messages a second to random chats.
    neighbor: Option<(Random, Duration)>,
    pub(crate) record: Record,
}

#[derive(Default)]
pub(crate) struct Record {
    /// The chat and the text of each message, in order of arrival.
    pub(crate) messages: Vec<(String, String)>,
    pub(crate) last_at: Duration,
    /// Requests that were refused.
    pub(crate) refused: usize,
    /// Requests for a chat that came before the time that the refusal of an earlier one had named.
    pub(crate) too_early: usize,
}

#[derive(Default)]
struct Chat {
    window: Window,
    closed_until: Duration,
}

/// The arrivals within the last second or minute.
#[derive(Default)]
struct Window(VecDeque<Duration>);

impl Window {
    /// Returns how long it takes until there is room, if there is none at `now`.
    fn wait(&mut self, most: usize, length: Duration, now: Duration) -> Option<Duration> {
        while self.0.front().is_some_and(|first| *first + length <= now) {
            self.0.pop_front();
        }
        let first = self.0.front()?;
        (self.0.len() >= most).then(|| *first + length - now)
    }
}

impl Limited {
    pub(crate) fn new(neighbor: Option<u64>) -> Self {
        Self {
            all: Window::default(),
            chats: BTreeMap::new(),
            neighbor: neighbor.map(|seed| (Random::new(seed), Duration::ZERO)),
            record: Record::default(),
        }
    }

    /// `POST /send?chat=…`, with the text as the body.
    pub(crate) fn on_request(&mut self, request: &Incoming) -> Answer {
        let chat = request.query().unwrap_or_default().to_owned();
        let text = String::from_utf8_lossy(request.body()).into_owned();
        self.neighbor_until(request.at);
        let closed_until = self.chats.entry(chat.clone()).or_default().closed_until;
        self.record.too_early += usize::from(request.at < closed_until);
        if let Err(wait) = self.accept(&chat, request.at) {
            self.record.refused += 1;
            // Retry-After is in whole seconds.
            let seconds = wait.as_millis().div_ceil(1000) as u64;
            let closed = self.chats.entry(chat).or_default();
            closed.closed_until = request.at + Duration::from_secs(seconds);
            return Answer::status(429).header("Retry-After", seconds.to_string());
        }
        self.record.messages.push((chat, text));
        self.record.last_at = request.at;
        Answer::ok("{\"ok\":true}")
    }

    fn accept(&mut self, chat: &str, now: Duration) -> Result<(), Duration> {
        let chat = self.chats.entry(chat.to_owned()).or_default();
        let waits = [
            self.all.wait(30, SECOND, now),
            chat.window.wait(20, MINUTE, now),
        ];
        if let Some(wait) = waits.into_iter().flatten().max() {
            return Err(wait);
        }
        self.all.0.push_back(now);
        chat.window.0.push_back(now);
        Ok(())
    }

    fn neighbor_until(&mut self, now: Duration) {
        let Some((mut random, mut at)) = self.neighbor.take() else {
            return;
        };
        while at <= now {
            let chat = format!("chat={}", random.below(40));
            let _ = self.accept(&chat, at);
            at += Duration::from_millis(100);
        }
        self.neighbor = Some((random, at));
    }
}
