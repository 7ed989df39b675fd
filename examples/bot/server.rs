//! The chat server of the `bot` example. Its only user, Alice, posts a message every 200 ms.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

#[path = "../support/demo.rs"]
mod demo;

use demo::{Answer, Asked};

/// The interval between Alice's messages.
const PACE: Duration = Duration::from_millis(200);
/// How long a poll is held open while there is no news.
const HOLD: Duration = Duration::from_secs(20);
const SESSION: &str = "4711";

/// The server, which runs until the process ends.
pub(crate) struct Chat {
    url: String,
    room: Arc<Room>,
}

#[derive(Default)]
struct Room {
    log: Mutex<Log>,
    changed: Condvar,
}

#[derive(Default)]
struct Log {
    phase: Phase,
    /// The number of Alice's last message; the first is 1.
    said: usize,
    delivered: usize,
    answered: BTreeSet<usize>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Phase {
    #[default]
    BeforeLogin,
    Open,
    Closed,
}

impl Chat {
    pub(crate) fn open() -> io::Result<Self> {
        let room = Arc::new(Room::default());
        let (alice, host) = (Arc::clone(&room), Arc::clone(&room));
        thread::spawn(move || alice.talk());
        let url = demo::serve(move |asked| host.answer(asked))?;
        Ok(Self { url, room })
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// Prints how many messages were posted, and how many were answered.
    ///
    /// # Errors
    /// If there was no message, or if one was not answered.
    pub(crate) fn check(&self) -> Result<(), Box<dyn Error>> {
        let log = self.room.log();
        println!("{} messages, {} answered", log.said, log.answered.len());
        if log.said == 0 || log.answered.len() != log.said {
            return Err("not every message was answered".into());
        }
        Ok(())
    }
}

impl Room {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn talk(&self) {
        loop {
            thread::sleep(PACE);
            let mut log = self.log();
            match log.phase {
                Phase::BeforeLogin => {}
                Phase::Open => log.said += 1,
                Phase::Closed => return,
            }
            self.changed.notify_all();
        }
    }

    fn answer(
        &self,
        Asked {
            path, body: form, ..
        }: &Asked,
    ) -> Answer {
        let value = |name| {
            let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(n, _)| *n == name).map(|(_, value)| value)
        };
        if path == "/login" {
            self.enter(Phase::Open);
            return demo::ok(SESSION);
        }
        if value("session") != Some(SESSION) {
            return ("403 Forbidden", String::new());
        }
        match &**path {
            "/poll" => self.hold(),
            "/beat" => demo::ok(""),
            "/answer" => {
                let id = value("to").and_then(|id| id.parse::<usize>().ok());
                self.log().answered.extend(id);
                demo::ok("")
            }
            "/logout" => {
                self.enter(Phase::Closed);
                demo::ok("")
            }
            _ => ("404 Not Found", String::new()),
        }
    }

    fn enter(&self, phase: Phase) {
        self.log().phase = phase;
        self.changed.notify_all();
    }

    /// Answers a poll as soon as there is news or the session has ended, at the latest after
    /// `HOLD`.
    fn hold(&self) -> Answer {
        let is_quiet = |log: &mut Log| log.delivered == log.said && log.phase == Phase::Open;
        let waited = self.changed.wait_timeout_while(self.log(), HOLD, is_quiet);
        let (mut log, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let new = log.delivered + 1..=log.said;
        log.delivered = log.said;
        match (new.is_empty(), log.phase) {
            (false, _) => demo::ok(
                new.map(|id| format!("{id} is a fine number\n"))
                    .collect::<String>(),
            ),
            (true, Phase::Closed) => ("410 Gone", String::new()),
            (true, _) => demo::ok(""),
        }
    }
}
