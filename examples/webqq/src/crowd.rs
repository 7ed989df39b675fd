//! A director for many accounts: each logs in, is asked a few things while a few things go wrong,
//! and logs out.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::expect::{Answers, Expect};
use crate::script::{Expectations, Line, say};
use crate::server::{Direct, Director, Fault, Place, Server, Step, Wish};

/// The number of messages to each account.
pub(crate) const MESSAGES: usize = 6;
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How many logins may be under way: people do not all log in at the same moment, and neither do
/// bots after a start.
const AT_ONCE: usize = 50;

pub(crate) struct Crowd {
    waiting: Vec<u64>,
    /// Accounts that were told to log in and are not yet online.
    coming: Vec<u64>,
    online: Vec<u64>,
    /// The numbers of messages without an answer.
    open: BTreeSet<u64>,
    leaving: bool,
    expectations: Expectations,
    look_at: Duration,
}

impl Crowd {
    pub(crate) fn new(accounts: &[u64], expectations: Expectations) -> Self {
        Self {
            waiting: accounts.iter().rev().copied().collect(),
            coming: Vec::new(),
            online: Vec::new(),
            open: BTreeSet::new(),
            leaving: false,
            expectations,
            look_at: Duration::ZERO,
        }
    }

    fn let_in(&mut self, server: &mut Server) {
        while self.coming.len() < AT_ONCE
            && let Some(account) = self.waiting.pop()
        {
            for (step, fault) in faults(account) {
                server.arm(account, step, fault);
            }
            server.wish(Wish::Login { account });
            self.coming.push(account);
        }
    }

    fn talk(&mut self, server: &mut Server, now: Duration) {
        let came = self
            .coming
            .extract_if(.., |account| server.is_online(*account));
        let came: Vec<u64> = came.collect();
        for account in &came {
            for line in &lines() {
                self.open
                    .insert(say(line, *account, &self.expectations, server, now));
            }
        }
        self.online.extend(came);
    }

    fn forget_answered(&mut self, server: &Server) {
        let answers = Answers::of(server.ledger());
        let expectations = self.expectations.lock().expect("the lock is not poisoned");
        self.open
            .retain(|nonce| !answers.meet(*nonce, expectations.get(nonce)));
    }
}

impl Director for Crowd {
    fn direct(&mut self, server: &mut Server, now: Duration) -> Direct {
        // This is called after every request of every bot, and examines all of them.
        if now < self.look_at {
            return Direct::Wait(Some(self.look_at));
        }
        self.look_at = now + LOOK_AGAIN;
        self.let_in(server);
        self.talk(server, now);
        self.forget_answered(server);
        // All bots stay until the last message has been answered, so that many are online at once.
        let is_done = self.waiting.is_empty() && self.coming.is_empty() && self.open.is_empty();
        if is_done && !self.leaving {
            self.leaving = true;
            for account in &self.online {
                server.wish(Wish::Logout { account: *account });
            }
        }
        match self.leaving && server.ledger().logouts >= self.online.len() as u64 {
            true => Direct::Over,
            false => Direct::Wait(Some(self.look_at)),
        }
    }
}

/// The messages to each account.
fn lines() -> [Line; MESSAGES] {
    let exactly = |words: &str| Expect::Exactly(words.to_owned());
    let line = |place, who, words, answer| Line::new(place, who, words, exactly(answer));
    [
        line(Place::Buddy, "Alice", "ping", "pong"),
        line(Place::Buddy, "Bob", "divide 84 2", "42"),
        line(
            Place::Group("Rustaceans".to_owned()),
            "Fatima",
            "echo all here",
            "all here",
        ),
        line(Place::Discu("Lunch".to_owned()), "Mira", "ping", "pong"),
        line(Place::Sess("Chess club".to_owned()), "Kofi", "ping", "pong"),
        line(
            Place::Buddy,
            "Emil",
            "weather Shenzhen",
            "Shenzhen: sunny, 21 C",
        ),
    ]
}

/// Returns the faults of an account; every other account has some.
fn faults(account: u64) -> Vec<(Step, Fault)> {
    match account % 10 {
        1 => vec![(Step::Check, Fault::Captcha)],
        2 => vec![(Step::Poll, Fault::NoByte)],
        3 => vec![(Step::Poll, Fault::Reset), (Step::Poll, Fault::Twice)],
        4 => vec![(Step::SendBuddy, Fault::Retcode(108))],
        5 => vec![
            (Step::Poll, Fault::Retcode(121)),
            (Step::SendGroup, Fault::NoByte),
        ],
        _ => vec![],
    }
}
