//! The scripted conversation: people talk to the bot while everything that can go wrong does, one
//! thing after another.
//!
//! It waits for events that it caused itself and never for a clock, so it plays the same on a slow
//! machine as on a fast one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::expect::{Answers, Expect, Expected};
use crate::server::{Direct, Director, Fault, Place, Server, Step, Switch, Wish};

/// The expected answers by message number, for the judgment after the play.
pub(crate) type Expectations = Arc<Mutex<BTreeMap<u64, Expected>>>;

/// A scene: what goes wrong, what is done, what is said. It is over when all of that has happened
/// and is answered.
pub(crate) struct Scene {
    pub(crate) title: String,
    pub(crate) faults: Vec<(Step, Fault)>,
    pub(crate) deed: Deed,
    /// Done when the faults have occurred.
    pub(crate) afterwards: Deed,
    pub(crate) lines: Vec<Line>,
    pub(crate) ends_offline: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Nothing,
    Kick,
    Intrude,
    /// The operator has the bot log in.
    LogIn,
    LogOut,
}

/// What somebody says, and the answer to expect.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) place: Place,
    pub(crate) who: &'static str,
    pub(crate) words: String,
    pub(crate) picture: bool,
    pub(crate) answer: Expect,
}

/// How long a scene may last on a slow machine, or at the protocol's own pace. After that the play
/// is over, and the judgment reports what is missing.
const LONGEST_SCENE: Duration = Duration::from_secs(20);
const LONGEST_SCENE_UNSCALED: Duration = Duration::from_secs(1200);
/// The time until the operator notices that the bot has stopped.
const OPERATOR: Duration = Duration::from_millis(100);
/// The interval between two lines that only keep the conversation going.
const SMALL_TALK: Duration = Duration::from_millis(100);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Directs scenes with one account.
pub(crate) struct Play {
    account: u64,
    scenes: VecDeque<Scene>,
    expectations: Expectations,
    running: Option<Running>,
    /// When the next scene begins.
    begins_at: Duration,
    /// Called with the title of each scene that begins.
    on_scene: Box<dyn FnMut(&str) + Send>,
}

struct Running {
    scene: Scene,
    began: Duration,
    /// The numbers of the messages that wait for their answer.
    open: Vec<u64>,
    /// How often each fault must have occurred in total for this scene's to be done.
    due: Vec<(String, u64)>,
    struck_at: Option<Duration>,
    last_line: Duration,
    logouts: u64,
}

impl Play {
    pub(crate) fn new(
        account: u64,
        scenes: Vec<Scene>,
        expectations: Expectations,
        on_scene: impl FnMut(&str) + Send + 'static,
    ) -> Self {
        let (scenes, on_scene) = (scenes.into(), Box::new(on_scene));
        Self {
            account,
            scenes,
            expectations,
            running: None,
            begins_at: Duration::ZERO,
            on_scene,
        }
    }

    fn begin(&mut self, scene: Scene, server: &mut Server, now: Duration) -> Running {
        (self.on_scene)(&scene.title);
        let mut due: Vec<(String, u64)> = Vec::new();
        for &(step, fault) in &scene.faults {
            let name = Switch::Arm(step, fault).name();
            let before = fired(server, &name)
                + due.iter().filter(|(other, _)| *other == name).count() as u64;
            due.push((name, before + 1));
            server.arm(self.account, step, fault);
        }
        if scene.deed == Deed::Intrude {
            let name = Switch::Intrude.name();
            due.push((name.clone(), fired(server, &name) + 1));
        }
        self.act(scene.deed, server, now);
        let open = scene
            .lines
            .iter()
            .map(|line| self.say(line, server, now))
            .collect();
        let logouts = server.ledger().logouts;
        Running {
            scene,
            began: now,
            open,
            due,
            struck_at: None,
            last_line: now,
            logouts,
        }
    }

    fn act(&self, deed: Deed, server: &mut Server, now: Duration) {
        let account = self.account;
        match deed {
            Deed::Nothing => {}
            Deed::Kick => server.kick(now, account),
            Deed::Intrude => server.intrude(now, account),
            Deed::LogIn => server.wish(Wish::Login { account }),
            Deed::LogOut => server.wish(Wish::Logout { account }),
        }
    }

    fn say(&self, line: &Line, server: &mut Server, now: Duration) -> u64 {
        say(line, self.account, &self.expectations, server, now)
    }

    /// Returns whether the scene is over; if not, does its next step.
    fn is_over(&self, running: &mut Running, server: &mut Server, now: Duration) -> bool {
        let expectations = self.expectations.lock().expect("the lock is not poisoned");
        let answers = Answers::of(server.ledger());
        running
            .open
            .retain(|nonce| !answers.meet(*nonce, expectations.get(nonce)));
        drop(expectations);
        let has_struck = running
            .due
            .iter()
            .all(|(name, count)| fired(server, name) >= *count);
        if has_struck && running.struck_at.is_none() {
            running.struck_at = Some(now);
        }
        match running.struck_at {
            Some(at) if running.scene.afterwards != Deed::Nothing => {
                if now >= at + OPERATOR {
                    let deed = std::mem::replace(&mut running.scene.afterwards, Deed::Nothing);
                    self.act(deed, server, now);
                }
                false
            }
            Some(at) if running.scene.ends_offline => {
                // A scene that ends offline is over when the server has recorded the last step.
                let is_out =
                    running.scene.deed != Deed::LogOut || server.ledger().logouts > running.logouts;
                is_out && now >= at + OPERATOR
            }
            Some(_) => running.open.is_empty() && server.is_online(self.account),
            None => {
                // Between two polls an intruder would disturb nothing: try again each time.
                if running.scene.deed == Deed::Intrude {
                    self.act(Deed::Intrude, server, now);
                }
                // With few answers open and a fault yet to occur, keep the conversation going. Some
                // faults strike a poll only when two messages wait.
                let is_quiet = running.open.len() < 2 && now >= running.last_line + SMALL_TALK;
                if is_quiet && server.is_online(self.account) {
                    running.open.push(self.say(&small_talk(), server, now));
                    running.last_line = now;
                }
                false
            }
        }
    }
}

impl Director for Play {
    fn direct(&mut self, server: &mut Server, now: Duration) -> Direct {
        let mut running = match self.running.take() {
            Some(running) => running,
            None if now < self.begins_at => return Direct::Wait(Some(self.begins_at)),
            None => match self.scenes.pop_front() {
                Some(scene) => self.begin(scene, server, now),
                None => return Direct::Over,
            },
        };
        if self.is_over(&mut running, server, now) {
            // The bot has not yet read the answer to its last send. The event that it reports then
            // belongs to this scene.
            self.begins_at = now + LOOK_AGAIN;
            return Direct::Wait(Some(self.begins_at));
        }
        let longest = LONGEST_SCENE_UNSCALED.div_f64(server.settings().scale);
        if now >= running.began + longest.max(LONGEST_SCENE) {
            (self.on_scene)(&format!(
                "{}: takes too long, the play is over",
                running.scene.title
            ));
            return Direct::Over;
        }
        self.running = Some(running);
        Direct::Wait(Some(now + LOOK_AGAIN))
    }
}

impl Scene {
    pub(crate) fn new(title: &str, lines: Vec<Line>) -> Self {
        Self {
            title: title.to_owned(),
            faults: Vec::new(),
            deed: Deed::Nothing,
            afterwards: Deed::Nothing,
            lines,
            ends_offline: false,
        }
    }

    pub(crate) fn with(mut self, faults: &[(Step, Fault)]) -> Self {
        self.faults.extend_from_slice(faults);
        self
    }

    pub(crate) fn deed(mut self, deed: Deed) -> Self {
        self.deed = deed;
        self
    }

    /// The scene is over when its faults have occurred, even if the bot is not online.
    pub(crate) fn ends_offline(mut self) -> Self {
        self.ends_offline = true;
        self
    }

    pub(crate) fn afterwards(mut self, deed: Deed) -> Self {
        self.afterwards = deed;
        self
    }
}

impl Line {
    pub(crate) fn new(place: Place, who: &'static str, words: &str, answer: Expect) -> Self {
        Self {
            place,
            who,
            words: words.to_owned(),
            picture: false,
            answer,
        }
    }
}

/// Has somebody say something, and records the expected answer.
pub(crate) fn say(
    line: &Line,
    account: u64,
    expectations: &Expectations,
    server: &mut Server,
    now: Duration,
) -> u64 {
    let nonce = server.say(
        now,
        account,
        &line.place,
        line.who,
        &line.words,
        line.picture,
    );
    if let Some(account) = server.account(account) {
        let expected = Expected::new(account, &line.place, line.who, nonce, line.answer.clone());
        expectations
            .lock()
            .expect("the lock is not poisoned")
            .insert(nonce, expected);
    }
    nonce
}

fn fired(server: &Server, name: &str) -> u64 {
    server.ledger().fired.get(name).copied().unwrap_or(0)
}

fn small_talk() -> Line {
    let answer = Expect::Exactly("still there?".to_owned());
    Line::new(Place::Buddy, "Alice", "echo still there?", answer)
}
