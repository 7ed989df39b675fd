//! The bot in virtual time, in special situations: a script, another client that keeps kicking it,
//! a server that is gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use httpstream::sim::Random;

use crate::bot::Stage;
use crate::events::{Entry, Event};
use crate::expect::Expect;
use crate::outbox::Long;
use crate::policy::{self, Kicks};
use crate::scenes;
use crate::script::{Expectations, Line, Play, say};
use crate::server::{Direct, Director, Fault, Place, Server, Step, Wish, all_switches};
use crate::simulated::{ACCOUNT, HOUR, MINUTE, Simulation, complaints};

const SECOND: Duration = Duration::from_secs(1);

/// A play that is directed only after new calls and once a second, because it reads the whole
/// ledger each time.
struct Unhurried {
    play: Play,
    requests: u64,
    look_at: Duration,
    is_over: Arc<Mutex<bool>>,
}

impl Director for Unhurried {
    fn direct(&mut self, server: &mut Server, now: Duration) -> Direct {
        let requests = server.ledger().requests;
        if self.requests != requests || now >= self.look_at {
            (self.requests, self.look_at) = (requests, now + SECOND);
            if self.play.direct(server, now) == Direct::Over {
                *self.is_over.lock().expect("the lock is not poisoned") = true;
                return Direct::Over;
            }
        }
        Direct::Wait(Some(self.look_at))
    }
}

/// Plays the script, and returns the transcript.
fn play(seed: u64) -> Vec<String> {
    let (expectations, is_over) = (Expectations::default(), Arc::new(Mutex::new(false)));
    let titles = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&titles);
    let on_scene = move |title: &str| {
        let mut titles = seen.lock().expect("the lock is not poisoned");
        titles.push(title.to_owned());
    };
    let director = Unhurried {
        play: Play::new(
            ACCOUNT,
            scenes::all(Long::Split),
            expectations.clone(),
            on_scene,
        ),
        requests: 0,
        look_at: Duration::ZERO,
        is_over: Arc::clone(&is_over),
    };
    let mut sim = Simulation::new(seed, 2 * MINUTE, director);
    let has_ended = || *is_over.lock().expect("the lock is not poisoned");
    sim.run(12 * HOUR, |sim| {
        has_ended() && sim.engine.pending() == 0 && sim.network.open_fds() == 0
    });
    let titles = titles.lock().expect("the lock is not poisoned").join("\n");
    assert!(has_ended(), "the play does not end: {titles}");
    let complaints = sim.complaints(&expectations, &all_switches());
    assert!(complaints.is_empty(), "{complaints:#?} in\n{titles}");
    println!(
        "{} messages, {} requests in {:?}",
        sim.brain(|brain| brain.ledger().messages.len()),
        sim.brain(|brain| brain.ledger().requests),
        sim.elapsed(),
    );
    sim.log
        .iter()
        .map(|entry| entry.to_json(ACCOUNT).to_string())
        .collect()
}

#[test]
fn scripted_conversation_is_the_same_each_time_at_its_real_pace() {
    let first = play(1);
    assert_eq!(first, play(1));
}

/// Has the bot log in, kicks it once a minute for a while, and sends it a message every quarter of
/// an hour.
struct Kicker {
    expectations: Expectations,
    until: Duration,
    next_kick: Duration,
    next_line: Duration,
}

impl Director for Kicker {
    fn direct(&mut self, server: &mut Server, now: Duration) -> Direct {
        if self.next_kick.is_zero() {
            server.wish(Wish::Login { account: ACCOUNT });
            (self.next_kick, self.next_line) = (now + MINUTE, now + 5 * MINUTE);
        }
        while now >= self.next_kick && now < self.until {
            server.kick(now, ACCOUNT);
            self.next_kick += MINUTE;
        }
        if now >= self.next_line {
            self.next_line += 15 * MINUTE;
            ask(&self.expectations, server, now);
        }
        let kick = Some(self.next_kick).filter(|_| now < self.until);
        Direct::Wait(kick.into_iter().chain([self.next_line]).min())
    }
}

/// Alice checks whether the bot is still there.
fn ask(expectations: &Expectations, server: &mut Server, now: Duration) -> u64 {
    let pong = Expect::Exactly("pong".to_owned());
    let line = Line::new(Place::Buddy, "Alice", "ping", pong);
    say(&line, ACCOUNT, expectations, server, now)
}

#[test]
fn kicked_every_minute_it_comes_back_five_times_an_hour() {
    let expectations = Expectations::default();
    let kicker = Kicker {
        expectations: expectations.clone(),
        until: 3 * HOUR,
        next_kick: Duration::ZERO,
        next_line: Duration::ZERO,
    };
    let mut sim = Simulation::new(1, 10 * MINUTE, kicker);
    sim.run(4 * HOUR + 10 * MINUTE, |_| false);
    assert_eq!(sim.bot.stage, Stage::Online, "the kicks have stopped");
    let returns: Vec<Duration> = ats(&sim.log, |event| *event == Event::Online).collect();
    // The first is the login.
    let relinks = &returns[1..];
    let an_hour_apart = relinks.iter().zip(&relinks[Kicks::AN_HOUR..]);
    for (first, sixth) in an_hour_apart {
        // Measured between decisions; the pause after each, up to a minute, is not counted.
        assert!(
            *sixth - *first >= HOUR - MINUTE,
            "six times within an hour: {relinks:?}"
        );
    }
    // Nor does it stay away for longer than it has to.
    assert!(relinks.len() >= 3 * Kicks::AN_HOUR, "{relinks:?}");
    sim.log_out();
    let complaints = sim.complaints(&expectations, &["kick".to_owned()]);
    assert!(complaints.is_empty(), "{complaints:#?}");
}

fn ats(log: &[Entry], is_meant: fn(&Event) -> bool) -> impl Iterator<Item = Duration> {
    let events = log.iter().filter(move |entry| is_meant(&entry.event));
    events.map(|entry| entry.at)
}

/// Says something every few seconds, whether the bot is online or not.
struct Chatter {
    expectations: Expectations,
    random: Random,
    next: Duration,
    until: Duration,
    /// Whether to have the bot log in; only the first server does.
    logs_in: bool,
}

impl Director for Chatter {
    fn direct(&mut self, server: &mut Server, now: Duration) -> Direct {
        if std::mem::take(&mut self.logs_in) {
            server.wish(Wish::Login { account: ACCOUNT });
        }
        while now >= self.next && now < self.until {
            ask(&self.expectations, server, now);
            self.next = now + self.random.duration(30 * SECOND);
        }
        Direct::Wait(Some(self.next).filter(|_| now < self.until))
    }
}

#[test]
fn after_ten_minutes_without_a_server_it_answers_the_next_one() {
    for seed in 0..10 {
        let chatter = |from: Duration, logs_in| Chatter {
            expectations: Expectations::default(),
            random: Random::new(seed),
            next: from,
            until: from + 20 * MINUTE,
            logs_in,
        };
        let first = chatter(Duration::ZERO, true);
        let asked = first.expectations.clone();
        let mut sim = Simulation::new(seed, MINUTE, first);
        // No question is open when the server dies, because the bot could not answer it any more.
        sim.run(21 * MINUTE, |_| false);
        let log = BTreeMap::from([(ACCOUNT, std::mem::take(&mut sim.log))]);
        sim.kill_server();
        sim.run(31 * MINUTE, |_| false);
        let away = std::mem::take(&mut sim.log);
        let tries = ats(&away, |event| matches!(event, Event::LoggingInAgain { .. }));
        // Once a minute in the end, and a few more at first.
        assert!(tries.count() <= 20, "seed {seed}: {away:#?}");
        let polls = ats(&away, |event| {
            matches!(event, Event::Trouble { what: "poll", .. })
        });
        let polls = polls.count();
        assert!((5..=40).contains(&polls), "seed {seed}: {away:#?}");

        let second = chatter(31 * MINUTE, false);
        let asked_since = second.expectations.clone();
        let old = sim.replace_server(seed + 1000, second);
        let wrong = complaints(&old, &asked, &log, &[]);
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
        sim.run(52 * MINUTE, |_| false);
        let back = ats(&sim.log, |event| *event == Event::Online).next();
        let back = back.expect("the bot is back");
        // A poll detects the new server, and a relink that its sessions are gone. Each comes after
        // a wait of a minute or more.
        assert!(back < 35 * MINUTE, "seed {seed}: back only at {back:?}");
        sim.log_out();
        let wrong = sim.complaints(&asked_since, &[]);
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    }
}

/// Has the bot log in, with faults and messages at certain times.
struct Armed {
    faults: Vec<(Duration, Step, Fault)>,
    /// The times, and whether the message has a picture.
    lines: Vec<(Duration, bool)>,
    has_begun: bool,
}

impl Armed {
    fn new(faults: impl IntoIterator<Item = (Duration, Step, Fault)>) -> Self {
        Self {
            faults: faults.into_iter().collect(),
            lines: Vec::new(),
            has_begun: false,
        }
    }

    fn with_picture(self, at: Duration) -> Self {
        Self {
            lines: vec![(at, true)],
            ..self
        }
    }

    fn with_line(self, at: Duration) -> Self {
        Self {
            lines: vec![(at, false)],
            ..self
        }
    }
}

impl Director for Armed {
    fn direct(&mut self, server: &mut Server, now: Duration) -> Direct {
        for (_, step, fault) in self.faults.extract_if(.., |(at, ..)| *at <= now) {
            server.arm(ACCOUNT, step, fault);
        }
        if !self.has_begun {
            self.has_begun = true;
            server.wish(Wish::Login { account: ACCOUNT });
        }
        for (_, picture) in self.lines.extract_if(.., |(at, _)| *at <= now) {
            server.say(now, ACCOUNT, &Place::Buddy, "Alice", "ping", picture);
        }
        let faults = self.faults.iter().map(|(at, ..)| *at);
        Direct::Wait(faults.chain(self.lines.iter().map(|(at, _)| *at)).min())
    }
}

#[test]
fn a_refresh_that_fails_fails_alone() {
    let thrice = [(MINUTE, Step::Friends, Fault::CutShort); policy::TRIES as usize];
    let mut sim = Simulation::new(7, 10 * MINUTE, Armed::new(thrice));
    let lists = |sim: &Simulation| {
        let events = sim.log.iter().map(|entry| &entry.event);
        events
            .filter(|event| matches!(event, Event::Lists(_)))
            .count()
    };
    sim.run(15 * MINUTE, |_| false);
    assert_eq!(lists(&sim), 1, "the refresh after ten minutes has failed");
    let roster = sim.bot.roster.counts();
    assert_eq!(roster, [5, 2, 1], "the old roster is kept");
    sim.run(25 * MINUTE, |_| false);
    assert_eq!(lists(&sim), 2, "the next refresh succeeds");
    let logins = sim.brain(|brain| brain.ledger().logins + brain.ledger().relinks);
    assert_eq!((logins, sim.bot.stage), (1, Stage::Online));
}

#[test]
fn a_list_that_is_refused_for_a_moment_is_fetched_again() {
    let refused = [(MINUTE, Step::Friends, Fault::Status(503)); policy::TRIES as usize - 1];
    let mut sim = Simulation::new(7, 10 * MINUTE, Armed::new(refused));
    sim.run(15 * MINUTE, |_| false);
    let lists = ats(&sim.log, |event| matches!(event, Event::Lists(_)));
    assert_eq!(lists.count(), 2, "the refresh after ten minutes succeeds");
    let troubles = ats(&sim.log, |event| matches!(event, Event::Trouble { .. }));
    assert_eq!(
        troubles.count(),
        2,
        "the bot hears of what its session does"
    );
}

#[test]
fn lists_under_way_are_fetched_with_the_ptwebqq_of_now() {
    let refresh = 10 * MINUTE;
    // The second try has not begun when a poll brings a new ptwebqq.
    let faults = [
        (MINUTE, Step::Friends, Fault::Status(503)),
        (MINUTE, Step::Friends, Fault::Status(503)),
        (refresh, Step::Poll, Fault::Retcode(116)),
    ];
    let line = refresh + SECOND / 10;
    let mut sim = Simulation::new(7, refresh, Armed::new(faults).with_line(line));
    sim.run(15 * MINUTE, |_| false);
    let lists: Vec<Duration> = ats(&sim.log, |event| matches!(event, Event::Lists(_))).collect();
    assert_eq!(lists.len(), 2, "{:#?}", sim.log);
    assert!(lists[1] > line, "the lists arrived before the new ptwebqq");
    sim.brain(|brain| {
        assert!(
            brain.ledger().errors.is_empty(),
            "{:?}",
            brain.ledger().errors
        );
    });
}

#[test]
fn a_message_that_waits_when_its_login_ends_is_made_anew_for_the_next() {
    // The second message waits for the pause after the first when the next poll ends the session.
    let second = MINUTE + SECOND / 10;
    let mut armed = Armed::new([(second, Step::Poll, Fault::Retcode(121))]);
    armed.lines = vec![(MINUTE, false), (second, false)];
    let mut sim = Simulation::new(12, HOUR, armed);
    sim.run(5 * MINUTE, |_| false);
    assert_eq!(sim.bot.stage, Stage::Online);
    sim.brain(|brain| {
        let heard = brain.ledger().answers.iter();
        let heard: Vec<&str> = heard.map(|heard| &*heard.text).collect();
        assert_eq!(heard, ["#1 pong", "#2 pong"]);
        assert_eq!(brain.ledger().relinks, 1);
        assert!(
            brain.ledger().errors.is_empty(),
            "{:?}",
            brain.ledger().errors
        );
    });
}

#[test]
fn a_picture_under_way_when_its_login_ends_is_fetched_in_the_next() {
    let end = MINUTE + SECOND;
    let mut armed = Armed::new([
        (MINUTE, Step::Offpic, Fault::Silence),
        (end, Step::Poll, Fault::Retcode(121)),
    ]);
    armed.lines = vec![(MINUTE, true), (end, false)];
    let mut sim = Simulation::new(13, HOUR, armed);
    // The picture would be given up after half a minute.
    sim.run(end + 10 * SECOND, |_| false);
    sim.brain(|brain| {
        let mut heard: Vec<&str> = brain
            .ledger()
            .answers
            .iter()
            .map(|heard| &*heard.text)
            .collect();
        heard.sort_unstable();
        assert!(
            matches!(*heard, [picture, "#2 pong"] if picture.starts_with("#1 a picture of ")),
            "{heard:?}"
        );
        assert_eq!(brain.ledger().pictures.len(), 1);
    });
}

#[test]
fn a_parked_login_holds_no_connection_and_starts_anew_when_its_captcha_expires() {
    let captcha = [(Duration::ZERO, Step::Check, Fault::Captcha)];
    let mut sim = Simulation::new(8, HOUR, Armed::new(captcha));
    sim.keep_codes();
    // Longer than idle connections are kept.
    sim.run(10 * MINUTE, |_| false);
    assert_eq!(sim.bot.stage, Stage::Parked);
    assert_eq!(sim.network.open_fds(), 0);
    sim.run(16 * MINUTE, |_| false);
    assert_eq!(
        sim.bot.stage,
        Stage::Online,
        "the second login requires no captcha"
    );
}

#[test]
fn nothing_of_a_session_waits_on_when_another_has_begun() {
    let relinks = [
        (2 * MINUTE, Step::Poll, Fault::Retcode(121)),
        (4 * MINUTE, Step::SendBuddy, Fault::Retcode(8)),
        (6 * MINUTE, Step::Poll, Fault::Retcode(100)),
    ];
    let mut sim = Simulation::new(9, HOUR, Armed::new(relinks).with_picture(5 * MINUTE));
    for minutes in [1, 3, 5, 7] {
        sim.run(minutes * MINUTE + 30 * SECOND, |_| false);
        assert_eq!(sim.bot.stage, Stage::Online, "after {minutes} minutes");
        // This session's poll, heartbeat and refresh. Those of earlier sessions would still be
        // waiting.
        assert_eq!(sim.engine.pending(), 3, "after {minutes} minutes");
        let stats = sim.engine.stats();
        assert_eq!(
            (stats.in_flight, stats.delayed),
            (1, 2),
            "after {minutes} minutes"
        );
    }
    let ended = sim.brain(|brain| brain.ledger().fired.len());
    assert_eq!(ended, 3, "each fault has occurred");
}

#[test]
fn the_next_poll_is_on_the_wire_before_a_message_is_looked_at() {
    let mut sim = Simulation::new(10, HOUR, Armed::new([]).with_line(MINUTE));
    sim.run(MINUTE - SECOND, |_| false);
    sim.network.clear_ledger();
    sim.run(MINUTE + 10 * SECOND, |_| false);
    let ledger = sim.network.ledger();
    let paths: Vec<&str> = ledger.requests().map(|request| request.path()).collect();
    let place = |path: &str| paths.iter().position(|other| *other == path);
    let (poll, answer) = (place("/channel/poll2"), place("/channel/send_buddy_msg2"));
    assert!(
        poll.is_some() && answer.is_some() && poll < answer,
        "{paths:?}"
    );
}

#[test]
fn a_bot_that_was_stopped_with_a_picture_to_fetch_can_be_ended() {
    let faults = [
        (Duration::ZERO, Step::Offpic, Fault::Status(503)),
        (MINUTE, Step::Poll, Fault::Retcode(109)),
    ];
    let mut sim = Simulation::new(11, HOUR, Armed::new(faults).with_picture(MINUTE));
    sim.run(10 * MINUTE, |_| false);
    assert_eq!(sim.bot.stage, Stage::Offline);
    sim.log_out();
    assert_eq!((sim.engine.pending(), sim.network.open_fds()), (0, 0));
}
