//! A director for long simulations: people say all sorts of things, and one thing after another
//! goes wrong.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use httpstream::sim::Random;

use crate::expect::Expect;
use crate::script::{Expectations, Line, say};
use crate::server::{Direct, Director, Fault, Place, Server, Step, Switch, Wish, switches};
use crate::simulated::ACCOUNT;

/// How long an episode may take until its faults have occurred. A bot that was kicked too often
/// stays away for an hour.
const LONGEST_EPISODE: Duration = Duration::from_secs(2 * 3600);
/// When to try again: a login in which a fault is to occur may end before it gets that far.
const INSIST: Duration = Duration::from_secs(600);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How much happens.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// The average time between two messages, and between two episodes.
    pub(crate) line: Duration,
    pub(crate) episode: Duration,
    /// When the last of each may begin.
    pub(crate) lines_end: Duration,
    pub(crate) episodes_end: Duration,
}

/// The results, for the test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diary {
    pub(crate) episodes: Vec<Switch>,
    /// The faults that did not occur in all that time.
    pub(crate) stuck: Vec<String>,
    /// Nothing more is to come, and the bot is online.
    pub(crate) is_over: bool,
}

pub(crate) struct Life {
    random: Random,
    pace: Pace,
    expectations: Expectations,
    diary: Arc<Mutex<Diary>>,
    has_begun: bool,
    next_line: Duration,
    next_episode: Duration,
    /// Switches that are yet to be used.
    deck: Vec<Switch>,
    running: Option<Episode>,
}

struct Episode {
    switch: Switch,
    began: Duration,
    /// If the fault has not occurred by then, its step is brought about again.
    insist_at: Duration,
    /// Whether to kick the bot once more when the faults have occurred.
    kicks_again: bool,
}

impl Life {
    pub(crate) fn new(
        seed: u64,
        pace: Pace,
        expectations: Expectations,
        diary: Arc<Mutex<Diary>>,
    ) -> Self {
        Self {
            random: Random::new(seed).fork(),
            pace,
            expectations,
            diary,
            has_begun: false,
            next_line: Duration::ZERO,
            next_episode: Duration::ZERO,
            deck: Vec::new(),
            running: None,
        }
    }

    fn diary(&self) -> std::sync::MutexGuard<'_, Diary> {
        self.diary.lock().expect("the lock is not poisoned")
    }

    // ---- what people say ----

    fn talk(&mut self, server: &mut Server, now: Duration) {
        while now >= self.next_line && now < self.pace.lines_end {
            // Sometimes several people speak at once.
            let count = match self.random.chance(100) {
                true => self.random.between(2, 4),
                false => 1,
            };
            for _ in 0..count {
                self.say_something(server, now);
            }
            self.next_line = now + self.random.duration(self.pace.line * 2);
        }
    }

    fn say_something(&mut self, server: &mut Server, now: Duration) {
        let places = server
            .account(ACCOUNT)
            .expect("the account exists")
            .places();
        let (place, who) = self.random.pick(&places).clone();
        let (words, picture, answer) = self.words();
        let mut line = Line::new(place, who, &words, answer);
        line.picture = picture;
        say(&line, ACCOUNT, &self.expectations, server, now);
    }

    fn words(&mut self) -> (String, bool, Expect) {
        let exactly = |words: &str| Expect::Exactly(words.to_owned());
        let (a, b) = (self.random.below(1000), self.random.between(1, 99));
        let (words, answer) = match self.random.below(100) {
            0..25 => {
                let words = *self
                    .random
                    .pick(&["你好", "e4 e5 & more = 100%+", "\"so\"", "hello"]);
                (
                    format!("echo {words} {a}"),
                    exactly(&format!("{words} {a}")),
                )
            }
            25..45 => ("ping".to_owned(), exactly("pong")),
            45..60 => (format!("divide {a} {b}"), exactly(&(a / b).to_string())),
            60..70 => {
                let city = *self.random.pick(&["Shenzhen", "Harbin", "Kashgar"]);
                (
                    format!("weather {city}"),
                    exactly(&format!("{city}: sunny, 21 C")),
                )
            }
            70..75 => {
                let answer = Expect::Begins("a picture of ".to_owned());
                return ("look".to_owned(), true, answer);
            }
            75..78 => {
                let most = self.random.between(150, 250);
                let count: Vec<String> = (1..=most).map(|n| n.to_string()).collect();
                (format!("count {most}"), Expect::Parts(count.join(" ")))
            }
            78..80 => (
                "weather nowhere".to_owned(),
                exactly("nobody knows that city"),
            ),
            80..85 => ("uptime".to_owned(), Expect::Begins("up for ".to_owned())),
            85 => (
                "divide 1 0".to_owned(),
                exactly("sorry: that plugin has crashed"),
            ),
            _ => ("good morning, all".to_owned(), Expect::Nothing),
        };
        (words, false, answer)
    }

    // ---- what goes wrong ----

    fn go_wrong(&mut self, server: &mut Server, now: Duration) {
        if let Some(episode) = self.running.take() {
            return self.go_on(episode, server, now);
        }
        let is_time = now >= self.next_episode && now < self.pace.episodes_end;
        if !is_time || !server.is_online(ACCOUNT) {
            return;
        }
        if self.deck.is_empty() {
            self.deck = switches();
            self.random.shuffle(&mut self.deck);
        }
        if let Some(switch) = self.deck.pop() {
            self.begin(switch, server, now);
        }
    }

    fn go_on(&mut self, mut episode: Episode, server: &mut Server, now: Duration) {
        if server.armed(ACCOUNT) > 0 || !server.is_online(ACCOUNT) {
            if now < episode.began + LONGEST_EPISODE {
                if now >= episode.insist_at {
                    episode.insist_at = now + INSIST;
                    bring_about(episode.switch, server, now);
                }
                self.running = Some(episode);
            } else {
                self.diary().stuck.push(episode.switch.name());
                self.next_episode = self.pace.episodes_end;
            }
            return;
        }
        if std::mem::take(&mut episode.kicks_again) {
            server.kick(now, ACCOUNT);
            self.running = Some(episode);
            return;
        }
        self.next_episode = now + self.random.duration(self.pace.episode * 2);
    }

    /// Arms `switch`, and brings about the step that meets it.
    fn begin(&mut self, switch: Switch, server: &mut Server, now: Duration) {
        self.diary().episodes.push(switch);
        let mut arm = |step, fault| server.arm(ACCOUNT, step, fault);
        let mut kicks_again = false;
        match switch {
            Switch::Kick => server.kick(now, ACCOUNT),
            Switch::Intrude => server.intrude(now, ACCOUNT),
            Switch::ArmThrice(step, fault) => (0..3).for_each(|_| arm(step, fault)),
            Switch::Arm(step @ Step::Login2, fault @ Fault::DropUins) => {
                arm(step, fault);
                bring_about(switch, server, now);
            }
            Switch::Arm(step, fault @ Fault::Late) => {
                arm(Step::Login2, Fault::DropUins);
                arm(step, fault);
                server.kick(now, ACCOUNT);
                kicks_again = true;
            }
            Switch::Arm(step, fault) if is_of_login(step) => {
                arm(step, fault);
                bring_about(switch, server, now);
            }
            Switch::Arm(step, fault) if step.is_send() => self.spoil_send(fault, server, now),
            Switch::Arm(step, fault) => {
                arm(step, fault);
                self.ask_for(step, fault, server, now);
            }
        }
        self.running = Some(Episode {
            switch,
            began: now,
            insist_at: now + INSIST,
            kicks_again,
        });
    }

    /// The switches name one of the four steps of sending; this picks any of them.
    fn spoil_send(&mut self, fault: Fault, server: &mut Server, now: Duration) {
        let places = server
            .account(ACCOUNT)
            .expect("the account exists")
            .places();
        let (place, who) = self.random.pick(&places).clone();
        let step = match place {
            Place::Buddy => Step::SendBuddy,
            Place::Group(_) => Step::SendGroup,
            Place::Discu(_) => Step::SendDiscu,
            Place::Sess(_) => Step::SendSess,
        };
        server.arm(ACCOUNT, step, fault);
        let ping = Expect::Exactly("pong".to_owned());
        let line = Line::new(place, who, "ping", ping);
        say(&line, ACCOUNT, &self.expectations, server, now);
    }

    /// Has somebody say what it takes for the fault to be met.
    fn ask_for(&mut self, step: Step, fault: Fault, server: &mut Server, now: Duration) {
        match (step, fault) {
            (Step::Poll, Fault::Batch) => {
                self.say_something(server, now);
                self.say_something(server, now);
            }
            (Step::Poll, Fault::Twice) => self.say_something(server, now),
            (Step::SessSig, _) => {
                let place = Place::Sess("Rustaceans".to_owned());
                let ping = Expect::Exactly("pong".to_owned());
                let line = Line::new(place, "Hana", "ping", ping);
                say(&line, ACCOUNT, &self.expectations, server, now);
            }
            (Step::Weather, _) => {
                let sunny = Expect::Exactly("Lhasa: sunny, 21 C".to_owned());
                let line = Line::new(Place::Buddy, "Alice", "weather Lhasa", sunny);
                say(&line, ACCOUNT, &self.expectations, server, now);
            }
            _ => {}
        }
    }
}

fn is_of_login(step: Step) -> bool {
    step.is_before_login() || step == Step::Login2
}

/// Ends the session, so that the next login reaches the step of `switch`.
fn bring_about(switch: Switch, server: &mut Server, now: Duration) {
    if let Switch::Arm(_, Fault::DropUins | Fault::Late) = switch {
        // A full login has new uins anyway.
        server.kick(now, ACCOUNT);
    } else if let Switch::Arm(step, _) = switch
        && is_of_login(step)
    {
        if step == Step::Captcha {
            server.arm(ACCOUNT, Step::Check, Fault::Captcha);
        }
        server.arm(ACCOUNT, Step::Poll, Fault::Retcode(100));
    }
}

impl Director for Life {
    fn direct(&mut self, server: &mut Server, now: Duration) -> Direct {
        if !std::mem::replace(&mut self.has_begun, true) {
            server.wish(Wish::Login { account: ACCOUNT });
            self.next_line = now + self.pace.line;
            self.next_episode = now + self.pace.episode;
        }
        self.go_wrong(server, now);
        self.talk(server, now);
        let is_past = now >= self.pace.lines_end && now >= self.pace.episodes_end;
        if is_past && self.running.is_none() && server.is_online(ACCOUNT) {
            self.diary().is_over = true;
        }
        let lines = (now < self.pace.lines_end).then_some(self.next_line);
        let episodes = match &self.running {
            Some(_) => Some(now + LOOK_AGAIN),
            // If the time has passed, the episode waits for the bot, whose calls the director sees
            // anyway.
            None => Some(self.next_episode).filter(|at| *at > now),
        };
        let wakes = [lines, episodes];
        Direct::Wait(wakes.into_iter().flatten().min())
    }
}
