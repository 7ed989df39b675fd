//! A director for a server that runs alone: every account that logs in is asked something every few
//! seconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::expect::{Answers, Expect};
use crate::script::{Expectations, Line, say};
use crate::server::{Direct, Director, Place, Server};

const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub(crate) struct Company {
    accounts: Vec<u64>,
    expectations: Expectations,
    silence: Silence,
    every: Duration,
    /// When each account gets its next message, and how many it has had.
    next: BTreeMap<u64, (Duration, u64)>,
}

/// Ends the questions once `fall` is called. The play is over when all of them have been answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Silence(Arc<AtomicBool>);

impl Silence {
    pub(crate) fn fall(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Company {
    /// Makes a director that sends each account a question every `every`, while it is online.
    pub(crate) fn new(
        accounts: Vec<u64>,
        every: Duration,
        expectations: Expectations,
    ) -> (Self, Silence) {
        let silence = Silence::default();
        let company = Self {
            accounts,
            expectations,
            silence: silence.clone(),
            every,
            next: BTreeMap::new(),
        };
        (company, silence)
    }

    fn all_answered(&self, server: &Server) -> bool {
        let answers = Answers::of(server.ledger());
        let expected = self.expectations.lock().expect("the lock is not poisoned");
        expected
            .iter()
            .all(|(nonce, expected)| answers.meet(*nonce, Some(expected)))
    }
}

impl Director for Company {
    fn direct(&mut self, server: &mut Server, now: Duration) -> Direct {
        if self.silence.0.load(Ordering::Relaxed) {
            return match self.all_answered(server) {
                true => Direct::Over,
                false => Direct::Wait(Some(now + LOOK_AGAIN)),
            };
        }
        for account in &self.accounts {
            let (at, count) = self.next.entry(*account).or_default();
            if now >= *at && server.is_online(*account) {
                say(&line(*count), *account, &self.expectations, server, now);
                *count += 1;
                *at = now + self.every;
            }
        }
        Direct::Wait(Some(now + LOOK_AGAIN))
    }
}

fn line(count: u64) -> Line {
    let (place, who) = match count % 3 {
        0 => (Place::Buddy, "Alice"),
        1 => (Place::Group("Rustaceans".to_owned()), "Goran"),
        _ => (Place::Discu("Lunch".to_owned()), "Nils"),
    };
    let words = format!("question {count}");
    Line::new(place, who, &format!("echo {words}"), Expect::Exactly(words))
}
