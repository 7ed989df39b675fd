//! Tests of [`Names`] with a scripted resolver and a simulated clock.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::proto::testing::Random;
use crate::resolver::{Table, Wake};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A directory that is removed when this is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "httpstream-names-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the resolver was asked, and what it will answer.
#[derive(Debug, Default)]
struct Script {
    /// Questions since the last look, such as `AAAA h.test`.
    asked: Vec<String>,
    open: BTreeMap<LookupId, (String, Family)>,
    ready: VecDeque<(LookupId, LookupAnswer)>,
    cancelled: usize,
    deadline: Option<Instant>,
    ticks: Vec<Instant>,
    /// Its servers have changed since it was last asked.
    has_changed: bool,
    told_of_network: usize,
}

#[derive(Debug)]
struct Scripted(Rc<RefCell<Script>>);

impl Resolve for Scripted {
    fn attach(&mut self, _: Wake) {}

    fn start(&mut self, host: &str, family: Family, id: LookupId) {
        let mut script = self.0.borrow_mut();
        script.asked.push(format!("{} {host}", record(family)));
        let before = script.open.insert(id, (host.to_owned(), family));
        assert_eq!(before, None, "each question has its own id");
    }

    fn cancel(&mut self, id: LookupId) {
        let mut script = self.0.borrow_mut();
        script
            .open
            .remove(&id)
            .expect("only an open question is canceled");
        script.ready.retain(|(ready, _)| *ready != id);
        script.cancelled += 1;
    }

    fn on_tick(&mut self, now: Instant) {
        self.0.borrow_mut().ticks.push(now);
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.borrow().deadline
    }

    fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
        let mut script = self.0.borrow_mut();
        let (id, answer) = script.ready.pop_front()?;
        script.open.remove(&id);
        Some((id, answer))
    }

    fn has_changed(&mut self, _: Instant) -> bool {
        std::mem::take(&mut self.0.borrow_mut().has_changed)
    }

    fn on_network_changed(&mut self) {
        self.0.borrow_mut().told_of_network += 1;
    }

    fn servers(&self) -> String {
        "192.0.2.53:53".to_owned()
    }
}

fn record(family: Family) -> &'static str {
    match family {
        Family::V6 => "AAAA",
        Family::V4 => "A",
    }
}

fn found(addrs: &str, ttl: Duration) -> LookupAnswer {
    let addrs = addrs.split_whitespace().map(|ip| ip.parse().unwrap());
    LookupAnswer::found(addrs).kept_for(ttl)
}

fn no_such_name(ttl: Duration) -> LookupAnswer {
    LookupAnswer::failed(LookupError::NotFound).kept_for(ttl)
}

fn timeout() -> LookupAnswer {
    LookupAnswer::failed(LookupError::Timeout("192.0.2.53:53".to_owned()))
}

fn broken() -> LookupAnswer {
    LookupAnswer::failed(LookupError::Failed("SERVFAIL".to_owned()))
}

/// Formats the answer for one family: `-` is no address, `?` is not known yet.
fn show_family(answer: Option<&FamilyAnswer>) -> String {
    match answer {
        None => "?".to_owned(),
        Some(Err(error)) => error.to_string(),
        Some(Ok(addrs)) if addrs.is_empty() => "-".to_owned(),
        Some(Ok(addrs)) => {
            let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
            addrs.join(" ")
        }
    }
}

/// Formats one address with its port, or both families as `IPv6 | IPv4`.
fn show(known: &Known) -> String {
    match known {
        Known::One(addr) => addr.to_string(),
        Known::Families { v6, v4 } => {
            format!(
                "{} | {}",
                show_family(v6.as_ref()),
                show_family(v4.as_ref())
            )
        }
    }
}

struct Bench {
    names: Names,
    script: Rc<RefCell<Script>>,
    now: Instant,
    last_token: usize,
}

fn config() -> NamesConfig<'static> {
    NamesConfig {
        overrides: &[],
        hosts_file: None,
        max_lookups: 64,
        keep_names: DAY,
        keep_stale_names: DAY,
        machine: Machine::Real,
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: NamesConfig<'_>) -> Self {
        let script = Rc::default();
        let names = Names::new(config, Box::new(Scripted(Rc::clone(&script)))).unwrap();
        Self {
            names,
            script,
            now: Instant::now(),
            last_token: 0,
        }
    }

    /// Asks with a new link.
    fn ask(&mut self, host: &str) -> String {
        self.last_token += 1;
        let known = self.names.ask(host, 80, Token(self.last_token), self.now);
        self.names.questions.assert_sound();
        show(&known)
    }

    fn forget(&mut self, host: &str, token: usize) {
        self.names.forget(host, Token(token));
        self.names.questions.assert_sound();
    }

    /// Returns what the resolver was asked since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.script.borrow_mut().asked)
    }

    fn answer(&mut self, host: &str, family: Family, answer: LookupAnswer) {
        let mut script = self.script.borrow_mut();
        let mut open = script.open.iter();
        let question = open.find(|(_, (name, of))| name == host && *of == family);
        let (id, _) = question.unwrap_or_else(|| panic!("{family:?} of {host} was not looked up"));
        let id = *id;
        script.ready.push_back((id, answer));
    }

    /// Runs a turn, and returns its answers as `AAAA 1 2: 2001:db8::1`: the family, the links, and
    /// their answer.
    fn turn(&mut self) -> Vec<String> {
        self.names.on_turn(self.now);
        let mut told = Vec::new();
        while let Some(answered) = self.names.next_answer(self.now) {
            self.names.questions.assert_sound();
            let links = answered.links.iter().map(|token| token.0.to_string());
            let links = links.collect::<Vec<_>>().join(" ");
            let family = record(answered.family);
            told.push(format!(
                "{family} {links}: {}",
                show_family(Some(&answered.addresses))
            ));
        }
        self.names.questions.assert_sound();
        told
    }

    /// Asks with a new link, and answers with `v6` and `v4`.
    fn learn(&mut self, host: &str, v6: LookupAnswer, v4: LookupAnswer) -> Vec<String> {
        assert_eq!(self.ask(host), "? | ?");
        self.answer(host, Family::V6, v6);
        self.answer(host, Family::V4, v4);
        self.turn()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Asserts that no question is open, waits or has a timer.
    fn assert_idle(&self) {
        assert!(!self.names.is_busy() && !self.names.has_news());
        assert_eq!(self.names.deadline(), None);
        let script = self.script.borrow();
        assert!(
            script.open.is_empty() && script.ready.is_empty(),
            "{script:?}"
        );
    }
}

// ---- without a resolver ----

#[test]
fn literals_and_localhost_are_never_asked_for() {
    let scratch = Scratch::new();
    let hosts = scratch.path("hosts");
    std::fs::write(&hosts, "10.0.0.9 localhost a.localhost 192.0.2.1").unwrap();
    let mut bench = Bench::with(NamesConfig {
        hosts_file: Some(hosts),
        ..config()
    });
    assert_eq!(bench.ask("192.0.2.1"), "192.0.2.1:80");
    assert_eq!(bench.ask("192.0.2.1."), "192.0.2.1:80");
    assert_eq!(bench.ask("2001:db8::1"), "[2001:db8::1]:80");
    assert_eq!(bench.ask("fe80::1%7"), "[fe80::1%7]:80");
    let unknown = "no network interface \"no-such-if\"";
    assert_eq!(
        bench.ask("fe80::1%no-such-if"),
        format!("{unknown} | {unknown}")
    );
    for host in ["localhost", "localhost.", "a.localhost", "a.b.localhost."] {
        assert_eq!(bench.ask(host), "::1 | 127.0.0.1", "{host}");
    }
    assert!(bench.asked().is_empty());
    assert_eq!(bench.ask("notlocalhost"), "? | ?");
    assert_eq!(bench.asked(), ["AAAA notlocalhost", "A notlocalhost"]);
}

#[test]
fn overrides_come_before_all_else() {
    let scratch = Scratch::new();
    let hosts = scratch.path("hosts");
    std::fs::write(&hosts, "10.0.0.9 h.test\n").unwrap();
    let hosts_of = [
        "h.test",
        "192.0.2.1",
        "localhost",
        "fe80::1%eth9",
        "kept.test",
    ];
    let to = |port: u16| ([10, 1, 1, 1], port).into();
    let overrides: Vec<_> = hosts_of
        .iter()
        .map(|host| ((*host).to_owned(), to(7)))
        .collect();
    let mut bench = Bench::with(NamesConfig {
        overrides: &overrides,
        hosts_file: Some(hosts),
        ..config()
    });
    for host in hosts_of {
        assert_eq!(bench.ask(host), "10.1.1.1:7", "{host}");
        assert_eq!(bench.ask(&format!("{host}.")), "10.1.1.1:7", "{host}");
    }
    bench.assert_idle();
}

#[test]
fn a_name_in_the_hosts_file_is_answered_from_it_alone() {
    let scratch = Scratch::new();
    let hosts = scratch.path("hosts");
    std::fs::write(
        &hosts,
        "10.0.0.1 one.test\n::2 six.test\n10.0.0.3 two.test\n::3 Two.Test\n",
    )
    .unwrap();
    let mut bench = Bench::with(NamesConfig {
        hosts_file: Some(hosts),
        ..config()
    });
    assert_eq!(bench.ask("one.test"), "10.0.0.1:80", "no AAAA is looked up");
    assert_eq!(
        bench.ask("six.test."),
        "[::2]:80",
        "no A is looked up, and the dot is ignored"
    );
    assert_eq!(bench.ask("two.test"), "::3 | 10.0.0.3");
    bench.assert_idle();
    assert_eq!(bench.ask("below.one.test"), "? | ?");
}

#[test]
fn a_hosts_file_that_changes_changes_the_answers() {
    let scratch = Scratch::new();
    let hosts = scratch.path("hosts");
    let mut bench = Bench::with(NamesConfig {
        hosts_file: Some(hosts.clone()),
        ..config()
    });
    let told = bench.learn("h.test", found("", HOUR), found("10.0.0.1", HOUR));
    assert_eq!(told, ["AAAA 1: -", "A 1: 10.0.0.1"]);
    std::fs::write(&hosts, "10.0.0.2 h.test").unwrap();
    bench.pass(SECOND);
    assert_eq!(
        bench.ask("h.test"),
        "10.0.0.2:80",
        "the file takes precedence over the cache"
    );
    std::fs::remove_file(&hosts).unwrap();
    bench.pass(SECOND);
    assert_eq!(bench.ask("h.test"), "10.0.0.1:80");
}

#[test]
fn a_simulation_reads_no_file() {
    let scratch = Scratch::new();
    let hosts = scratch.path("hosts");
    std::fs::write(&hosts, "10.0.0.1 h.test").unwrap();
    let mut bench = Bench::with(NamesConfig {
        hosts_file: Some(hosts),
        machine: Machine::Simulated,
        ..config()
    });
    assert_eq!(bench.ask("h.test"), "? | ?");
    assert!(bench.ask("fe80::1%lo").starts_with("no network interface"));
}

// ---- questions ----

#[test]
fn all_who_ask_the_same_share_one_look_up_and_the_last_to_go_cancels_it() {
    let mut table = Table::new();
    table.attach(Wake::new(|| {}));
    let ips: [IpAddr; 3] = ["10.0.0.1", "10.0.0.2", "2001:db8::1"].map(|ip| ip.parse().unwrap());
    table.insert("h.test", ips);
    let mut names = Names::new(config(), Box::new(table)).unwrap();
    let now = Instant::now();
    for (token, port) in [(1, 80), (2, 81), (3, 82)] {
        let known = names.ask("h.test", port, Token(token), now);
        assert_eq!(show(&known), "? | ?");
    }
    assert!(names.has_news());
    names.forget("h.test", Token(2));
    for (family, addrs) in [(Family::V6, &ips[2..]), (Family::V4, &ips[..2])] {
        let answered = names.next_answer(now).unwrap();
        assert_eq!(answered.links, [Token(1), Token(3)]);
        assert_eq!(answered.family, family);
        assert_eq!(&*answered.addresses.unwrap(), addrs);
    }
    assert!(names.next_answer(now).is_none() && !names.is_busy() && !names.has_news());

    names.ask("h.test", 80, Token(1), now);
    names.forget("h.test", Token(1));
    assert!(!names.is_busy() && !names.has_news() && names.next_answer(now).is_none());
}

#[test]
fn a_question_goes_with_the_last_who_forgets_it() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        assert_eq!(bench.ask("h.test"), "? | ?");
    }
    assert_eq!(bench.asked(), ["AAAA h.test", "A h.test"]);
    bench.answer("h.test", Family::V6, found("::1", Duration::ZERO));
    assert_eq!(bench.turn(), ["AAAA 1 2 3: ::1"]);
    for token in [2, 2, 9, 1] {
        bench.forget("h.test", token);
        bench.forget("other.test", token);
    }
    assert_eq!(bench.script.borrow().cancelled, 0, "one link still waits");
    bench.forget("h.test", 3);
    assert_eq!(
        bench.script.borrow().cancelled,
        1,
        "only the family without an answer is canceled"
    );
    bench.assert_idle();
}

#[test]
fn an_answer_that_was_ready_is_nobodys_when_all_have_forgotten() {
    let mut bench = Bench::new();
    bench.ask("h.test");
    bench.answer("h.test", Family::V6, found("::1", HOUR));
    bench.forget("h.test", 1);
    bench.assert_idle();
    assert!(bench.turn().is_empty());
    // A resolver may answer a canceled question nevertheless.
    let late = (LookupId(1), found("::1", HOUR));
    bench.script.borrow_mut().ready.push_back(late);
    assert!(bench.turn().is_empty());
    assert_eq!(bench.ask("h.test"), "? | ?", "such an answer is not cached");
}

#[test]
fn who_asks_later_waits_only_for_what_is_not_answered() {
    let mut bench = Bench::new();
    bench.ask("h.test");
    bench.answer("h.test", Family::V4, found("10.0.0.1", MINUTE));
    assert_eq!(bench.turn(), ["A 1: 10.0.0.1"]);
    assert_eq!(bench.ask("h.test"), "? | 10.0.0.1");
    assert_eq!(bench.asked(), ["AAAA h.test", "A h.test"]);
    bench.answer("h.test", Family::V6, found("", Duration::ZERO));
    assert_eq!(bench.turn(), ["AAAA 1 2: -"]);
    bench.assert_idle();
}

#[test]
fn a_trailing_dot_makes_another_question() {
    let mut bench = Bench::new();
    bench.ask("h.test");
    bench.ask("h.test.");
    let asked = ["AAAA h.test", "A h.test", "AAAA h.test.", "A h.test."];
    assert_eq!(
        bench.asked(),
        asked,
        "the resolver decides what the dot means"
    );
    bench.answer("h.test.", Family::V6, found("::1", HOUR));
    assert_eq!(bench.turn(), ["AAAA 2: ::1"]);
    bench.forget("h.test", 2);
    assert_eq!(bench.script.borrow().cancelled, 0);
    assert_eq!(
        bench.ask("h.test"),
        "? | ?",
        "the answer is not cached for the other name"
    );
    assert_eq!(bench.ask("h.test."), "::1 | ?");
}

#[test]
fn no_more_questions_are_asked_than_the_window_has_room_for() {
    let mut bench = Bench::with(NamesConfig {
        max_lookups: 3,
        ..config()
    });
    for host in ["a", "b", "c", "d"] {
        bench.ask(host);
    }
    assert_eq!(bench.asked(), ["AAAA a", "A a", "AAAA b"]);
    bench.answer("a", Family::V4, found("10.0.0.1", Duration::ZERO));
    assert_eq!(bench.turn(), ["A 1: 10.0.0.1"]);
    assert_eq!(bench.asked(), ["A b"], "first in, first out");
    bench.forget("c", 3);
    assert!(
        bench.asked().is_empty() && bench.script.borrow().cancelled == 0,
        "the question was never put"
    );
    bench.forget("b", 2);
    assert_eq!(bench.script.borrow().cancelled, 2);
    assert_eq!(
        bench.asked(),
        ["AAAA d", "A d"],
        "nobody waits for c any more"
    );
    assert!(bench.names.has_news(), "a question may be answered at once");
    for (host, token) in [("a", 1), ("d", 4)] {
        bench.forget(host, token);
    }
    bench.assert_idle();
}

#[test]
fn a_resolver_that_answers_at_once_lets_a_queue_through_in_one_turn() {
    let mut table = Table::new();
    table.insert("h.test", [IpAddr::from([10, 0, 0, 1])]);
    let config = NamesConfig {
        max_lookups: 1,
        ..config()
    };
    let mut names = Names::new(config, Box::new(table)).unwrap();
    let now = Instant::now();
    for token in 0..100 {
        names.ask(&format!("{token}.test"), 80, Token(token), now);
    }
    let answers = std::iter::from_fn(|| names.next_answer(now));
    assert_eq!(answers.count(), 200);
    assert!(!names.is_busy() && !names.has_news());
}

#[test]
fn answers_are_of_the_family_that_was_asked_for() {
    let mut bench = Bench::new();
    let told = bench.learn("h.test", found("10.0.0.1 ::1", HOUR), found("::1", HOUR));
    assert_eq!(told, ["AAAA 1: ::1", "A 1: -"]);
    let no_address = LookupAnswer::failed(LookupError::NoAddress).kept_for(HOUR);
    let told = bench.learn("other.test", no_address.clone(), no_address);
    assert_eq!(told, ["AAAA 2: -", "A 2: -"]);
    assert_eq!(bench.ask("other.test"), "- | -");
}

#[test]
fn the_resolver_says_whom_it_asks() {
    assert_eq!(Bench::new().names.servers(), "192.0.2.53:53");
}

#[test]
fn the_resolver_is_called_behind_its_events_and_when_it_is_due() {
    let mut bench = Bench::new();
    let start = bench.now;
    bench.turn();
    bench.script.borrow_mut().deadline = Some(start + SECOND);
    assert_eq!(
        bench.names.deadline(),
        None,
        "the deadline is read after each call"
    );
    bench.names.on_wake();
    assert_eq!(bench.names.deadline(), Some(start + SECOND));
    bench.turn();
    assert!(bench.script.borrow().ticks.is_empty());
    bench.names.on_event(Token(7));
    bench.turn();
    bench.turn();
    bench.pass(SECOND);
    bench.turn();
    assert_eq!(bench.script.borrow().ticks, [start, start + SECOND]);
    // The earlier of the resolver's deadline and the questions' own.
    let mut bench = stale();
    let now = bench.now;
    bench.ask("h.test");
    for (theirs, earlier) in [(SECOND, SECOND), (MINUTE, PATIENCE)] {
        bench.script.borrow_mut().deadline = Some(now + theirs);
        bench.names.on_wake();
        assert_eq!(bench.names.deadline(), Some(now + earlier));
    }
}

#[test]
fn an_answer_counts_each_address_once_and_not_thousands() {
    let mut bench = Bench::new();
    let many = (0..3000_u16).map(|n| {
        let [high, low] = (n / 2).to_be_bytes();
        IpAddr::from([10, 0, high, low])
    });
    let many = LookupAnswer::found(many).kept_for(HOUR);
    bench.learn("h.test", found("", HOUR), many);
    let Known::Families {
        v4: Some(Ok(v4)), ..
    } = bench.names.ask("h.test", 80, Token(9), bench.now)
    else {
        panic!("the answer is cached")
    };
    assert_eq!(v4.len(), MAX_ADDRS);
    assert_eq!(v4[1], IpAddr::from([10, 0, 0, 1]));
}

// ---- the cache ----

#[test]
fn answers_are_kept_for_their_ttl_and_no_longer() {
    let none = Duration::ZERO;
    #[rustfmt::skip]
    let rows: &[(&str, LookupAnswer, LookupAnswer, Duration, &str)] = &[
        ("both families", found("::1", MINUTE), found("10.0.0.1", MINUTE), MINUTE, "::1 | 10.0.0.1"),
        ("several addresses in their order", found("::2 ::1", MINUTE), found("", MINUTE), MINUTE, "::2 ::1 | -"),
        ("one address of all", found("", MINUTE), found("10.0.0.1", MINUTE), MINUTE, "10.0.0.1:80"),
        ("one address, of the other family", found("::1", MINUTE), found("", MINUTE), MINUTE, "[::1]:80"),
        ("one address, and no such name for the other family", no_such_name(MINUTE), found("10.0.0.1", MINUTE), MINUTE, "10.0.0.1:80"),
        ("addresses are kept for at most a day", found("::1", 30 * DAY), found("10.0.0.1", Duration::MAX), DAY, "::1 | 10.0.0.1"),
        ("no address is kept for at most five minutes", found("", DAY), found("", DAY), 5 * MINUTE, "- | -"),
        ("no such name is kept for at most five minutes", no_such_name(DAY), no_such_name(DAY), 5 * MINUTE, "no such name | no such name"),
        ("no address may be kept for less", found("", SECOND), found("", SECOND), SECOND, "- | -"),
        ("a TTL of zero is not kept", found("::1", none), found("", none), none, ""),
        ("failures are not kept", timeout().kept_for(HOUR), broken().kept_for(HOUR), none, ""),
    ];
    for (why, v6, v4, kept, known) in rows {
        let mut bench = Bench::with(NamesConfig {
            keep_stale_names: Duration::ZERO,
            ..config()
        });
        bench.learn("h.test", v6.clone(), v4.clone());
        if !kept.is_zero() {
            bench.pass(*kept - Duration::from_nanos(1));
            assert_eq!(bench.ask("h.test"), *known, "{why}");
            bench.assert_idle();
            bench.pass(Duration::from_nanos(1));
        }
        assert_eq!(bench.ask("h.test"), "? | ?", "{why}");
    }
}

#[test]
fn each_family_is_kept_for_its_own_ttl() {
    let mut bench = Bench::new();
    bench.learn("h.test", found("", MINUTE), found("10.0.0.1", HOUR));
    bench.asked();
    bench.pass(MINUTE);
    assert_eq!(bench.ask("h.test"), "? | 10.0.0.1");
    assert_eq!(bench.asked(), ["AAAA h.test"]);
}

#[test]
fn a_new_answer_takes_the_place_of_the_old_one() {
    let mut bench = Bench::new();
    bench.learn("h.test", found("", HOUR), found("10.0.0.1", MINUTE));
    bench.pass(MINUTE);
    bench.ask("h.test");
    bench.answer("h.test", Family::V4, found("10.0.0.2", Duration::ZERO));
    assert_eq!(bench.turn(), ["A 2: 10.0.0.2"]);
    bench.ask("h.test");
    bench.answer("h.test", Family::V4, timeout());
    let told = bench.turn();
    assert_eq!(
        told,
        ["A 3: no answer from 192.0.2.53:53"],
        "the old answer is not even kept as stale"
    );
}

#[test]
fn keeping_can_be_bounded_and_switched_off() {
    for (keep_names, ttl) in [
        (MINUTE, MINUTE),
        (Duration::ZERO, Duration::ZERO),
        (Duration::MAX, 7 * DAY),
    ] {
        let mut bench = Bench::with(NamesConfig {
            keep_names,
            keep_stale_names: Duration::ZERO,
            ..config()
        });
        bench.learn(
            "h.test",
            found("::1", 30 * DAY),
            found("10.0.0.1", 30 * DAY),
        );
        if !ttl.is_zero() {
            bench.pass(ttl - SECOND);
            assert_eq!(bench.ask("h.test"), "::1 | 10.0.0.1");
            bench.pass(SECOND);
        }
        assert_eq!(bench.ask("h.test"), "? | ?");
    }
}

#[test]
fn of_too_many_names_the_first_to_expire_goes() {
    let mut bench = Bench::new();
    // The one that expires first is neither the first nor the last added.
    for n in 0..4097 {
        let ttl = match n {
            1000 => MINUTE,
            _ => HOUR,
        };
        bench.learn(&format!("{n}.test"), found("", ttl), found("10.0.0.1", ttl));
    }
    bench.asked();
    for n in [0, 999, 1001, 4096] {
        assert_eq!(bench.ask(&format!("{n}.test")), "10.0.0.1:80");
    }
    assert_eq!(bench.ask("1000.test"), "? | ?");
}

#[test]
fn what_is_no_use_any_more_goes() {
    let mut bench = Bench::new();
    for n in 0..10 {
        let ttl = SECOND * (n + 1);
        bench.learn(&format!("{n}.test"), found("", ttl), found("10.0.0.1", ttl));
    }
    assert_eq!(bench.names.cache.count(), 10);
    bench.pass(DAY + 5 * SECOND);
    bench.learn(
        "h.test",
        found("", SECOND),
        found("10.0.0.1", Duration::ZERO),
    );
    assert_eq!(bench.names.cache.count(), 6);
    bench.pass(SECOND);
    bench.learn(
        "h.test",
        no_such_name(Duration::ZERO),
        no_such_name(Duration::ZERO),
    );
    assert_eq!(
        bench.names.cache.count(),
        4,
        "names without answers are not counted either"
    );
}

#[test]
fn a_name_that_does_not_exist_does_not_in_the_other_family_either() {
    let mut bench = Bench::new();
    let told = bench.learn("h.test", no_such_name(MINUTE), timeout());
    assert_eq!(told, ["AAAA 1: no such name", "A 1: no such name"]);
    assert_eq!(bench.ask("h.test"), "no such name | no such name");
    bench.pass(MINUTE);
    assert_eq!(
        bench.ask("h.test"),
        "? | ?",
        "only as long as the first answer is kept"
    );
    // An answer that is not cached only applies to the link that asked.
    let told = bench.learn("other.test", no_such_name(Duration::ZERO), broken());
    assert_eq!(told, ["AAAA 4: no such name", "A 4: SERVFAIL"]);
}

/// RFC 4074 §4.2: some servers return NXDOMAIN for AAAA, although there is an A record.
#[test]
fn a_name_that_does_not_exist_in_one_family_is_asked_for_in_the_other() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        assert!(bench.ask("h.test").ends_with("| ?"));
        let asked_for = bench.asked();
        if asked_for.len() == 2 {
            bench.answer("h.test", Family::V6, no_such_name(HOUR));
        }
        bench.answer("h.test", Family::V4, found("10.0.0.1", Duration::ZERO));
        assert!(
            bench
                .turn()
                .contains(&format!("A {}: 10.0.0.1", bench.last_token))
        );
    }
}

#[test]
fn exhaustion_is_passed_on_as_it_is() {
    let mut bench = Bench::new();
    let exhausted = || LookupAnswer::failed(LookupError::Exhausted("no descriptor".to_owned()));
    bench.learn("h.test", found("::1", MINUTE), found("10.0.0.1", MINUTE));
    bench.pass(MINUTE);
    let told = bench.learn("h.test", exhausted(), exhausted());
    assert_eq!(
        told,
        ["AAAA 2: no descriptor", "A 2: no descriptor"],
        "although there is a stale answer"
    );
    bench.assert_idle();
}

// ---- stale answers ----

/// Returns a bench that has a stale answer for `h.test`.
fn stale() -> Bench {
    let mut bench = Bench::new();
    bench.learn("h.test", found("::1", MINUTE), found("10.0.0.1", MINUTE));
    bench.pass(MINUTE);
    bench.asked();
    bench
}

#[test]
fn a_stale_answer_stands_in_for_one_that_failed() {
    for failure in [timeout(), broken()] {
        let mut bench = stale();
        let told = bench.learn("h.test", failure.clone(), failure);
        assert_eq!(told, ["AAAA 2: ::1", "A 2: 10.0.0.1"]);
        bench.assert_idle();
        // For half a minute, no link waits for the same failure again.
        bench.asked();
        bench.pass(cache::RECHECK - SECOND);
        assert_eq!(bench.ask("h.test"), "::1 | 10.0.0.1");
        assert!(bench.asked().is_empty());
        bench.pass(SECOND);
        assert_eq!(
            bench.ask("h.test"),
            "? | ?",
            "then the question is put again"
        );
        bench.answer("h.test", Family::V6, found("::2", MINUTE));
        bench.answer("h.test", Family::V4, found("10.0.0.2", MINUTE));
        assert_eq!(bench.turn(), ["AAAA 4: ::2", "A 4: 10.0.0.2"]);
        assert_eq!(bench.ask("h.test"), "::2 | 10.0.0.2");
    }
}

#[test]
fn a_stale_answer_does_not_stand_in_for_a_negative_one() {
    let mut bench = stale();
    let told = bench.learn(
        "h.test",
        no_such_name(Duration::ZERO),
        found("", Duration::ZERO),
    );
    assert_eq!(told, ["AAAA 2: no such name", "A 2: -"]);
    let told = bench.learn("h.test", timeout(), broken());
    let failed = ["AAAA 3: no answer from 192.0.2.53:53", "A 3: SERVFAIL"];
    assert_eq!(
        told, failed,
        "the negative answer has replaced the addresses"
    );
}

#[test]
fn a_stale_answer_is_used_for_a_day() {
    let mut bench = stale();
    bench.pass(DAY - SECOND);
    let told = bench.learn("h.test", timeout(), timeout());
    assert_eq!(told, ["AAAA 2: ::1", "A 2: 10.0.0.1"]);
    bench.pass(SECOND);
    let told = bench.learn("h.test", timeout(), timeout());
    let none = "no answer from 192.0.2.53:53";
    assert_eq!(told, [format!("AAAA 3: {none}"), format!("A 3: {none}")]);
    bench.assert_idle();
}

#[test]
fn stale_answers_can_be_switched_off() {
    let mut bench = Bench::with(NamesConfig {
        keep_stale_names: Duration::ZERO,
        ..config()
    });
    bench.learn("h.test", found("::1", MINUTE), found("10.0.0.1", MINUTE));
    bench.pass(MINUTE);
    assert_eq!(bench.ask("h.test"), "? | ?");
    assert_eq!(
        bench.names.deadline(),
        None,
        "only the resolver's answer can help"
    );
    bench.answer("h.test", Family::V4, broken());
    assert_eq!(bench.turn(), ["A 2: SERVFAIL"]);
}

#[test]
fn a_stale_answer_stands_in_for_one_that_takes_too_long() {
    let mut bench = stale();
    let asked_at = bench.now;
    assert_eq!(bench.ask("h.test"), "? | ?");
    assert_eq!(bench.names.deadline(), Some(asked_at + PATIENCE));
    bench.pass(SECOND);
    assert_eq!(
        bench.ask("h.test"),
        "? | ?",
        "a link that asks the same joins the question"
    );
    bench.pass(PATIENCE - SECOND - Duration::from_nanos(1));
    assert!(bench.turn().is_empty());
    bench.pass(Duration::from_nanos(1));
    assert_eq!(bench.turn(), ["AAAA 2 3: ::1", "A 2 3: 10.0.0.1"]);
    assert!(bench.names.is_busy(), "the question stays in flight");
    bench.forget("h.test", 2);
    bench.forget("h.test", 3);
    assert_eq!(
        bench.script.borrow().cancelled,
        0,
        "although no link waits for it"
    );
    // Other links do not have to wait either.
    bench.pass(SECOND);
    assert_eq!(bench.ask("h.test"), "::1 | 10.0.0.1");
    assert_eq!(bench.asked(), ["AAAA h.test", "A h.test"]);
    bench.answer("h.test", Family::V4, found("10.0.0.2", MINUTE));
    assert!(bench.turn().is_empty(), "its answer is passed to no link");
    assert_eq!(bench.ask("h.test"), "::1 | 10.0.0.2", "but it is cached");
    bench.answer("h.test", Family::V6, timeout());
    assert!(bench.turn().is_empty());
    bench.assert_idle();
    assert_eq!(bench.ask("h.test"), "::1 | 10.0.0.2");
}

#[test]
fn a_question_that_was_left_behind_makes_way_for_one_that_somebody_waits_for() {
    let mut bench = Bench::with(NamesConfig {
        max_lookups: 2,
        ..config()
    });
    bench.learn("h.test", found("::1", MINUTE), found("10.0.0.1", MINUTE));
    bench.pass(MINUTE);
    bench.asked();
    bench.ask("h.test");
    assert_eq!(bench.asked().len(), 2, "the window is full");
    bench.ask("new.test");
    assert!(
        bench.asked().is_empty(),
        "questions with waiting links do not give way"
    );
    bench.pass(PATIENCE);
    assert_eq!(bench.turn().len(), 2, "stale answers stand in");
    assert_eq!(bench.asked().len(), 2, "the new name is looked up");
    bench.answer("new.test", Family::V6, found("::2", MINUTE));
    bench.answer("new.test", Family::V4, found("", MINUTE));
    assert_eq!(bench.turn().len(), 2);
    bench.assert_idle();
}

#[test]
fn a_question_that_was_left_behind_is_given_up_some_time() {
    let mut bench = stale();
    bench.ask("h.test");
    bench.pass(PATIENCE);
    assert_eq!(bench.turn().len(), 2);
    assert_eq!(bench.names.deadline(), Some(bench.now + GIVE_UP));
    bench.pass(GIVE_UP - Duration::from_nanos(1));
    assert!(bench.turn().is_empty() && bench.names.is_busy());
    bench.pass(Duration::from_nanos(1));
    assert!(bench.turn().is_empty());
    assert_eq!(bench.script.borrow().cancelled, 2);
    bench.assert_idle();
    bench.asked();
    assert_eq!(bench.ask("h.test"), "? | ?");
    assert_eq!(
        bench.asked(),
        ["AAAA h.test", "A h.test"],
        "the question is put again"
    );
}

#[test]
fn a_question_that_waits_for_room_is_late_like_any_other() {
    let mut bench = stale();
    bench.names.questions = Questions::new(1);
    bench.ask("unresponsive.test");
    bench.ask("h.test");
    assert_eq!(bench.asked(), ["AAAA unresponsive.test"]);
    bench.pass(PATIENCE);
    assert_eq!(bench.turn(), ["AAAA 3: ::1", "A 3: 10.0.0.1"]);
    bench.forget("unresponsive.test", 2);
    assert_eq!(bench.asked(), ["AAAA h.test"]);
    bench.answer("h.test", Family::V6, found("::2", HOUR));
    assert!(bench.turn().is_empty());
    assert_eq!(bench.asked(), ["A h.test"]);
    assert_eq!(bench.ask("h.test"), "::2 | 10.0.0.1");
}

#[test]
fn who_forgets_before_the_stale_answer_takes_the_question_along() {
    let mut bench = stale();
    bench.ask("h.test");
    bench.forget("h.test", 2);
    assert_eq!(bench.script.borrow().cancelled, 2);
    bench.assert_idle();
}

#[test]
fn that_there_is_no_address_is_stale_beside_one_that_is() {
    let mut bench = Bench::new();
    bench.learn("h.test", found("", MINUTE), found("10.0.0.1", MINUTE));
    bench.pass(MINUTE);
    let told = bench.learn("h.test", timeout(), timeout());
    assert_eq!(told, ["AAAA 2: -", "A 2: 10.0.0.1"]);
    assert_eq!(
        bench.ask("h.test"),
        "10.0.0.1:80",
        "the resolver is not asked again"
    );
    // By itself, a stale negative answer is not used.
    bench.learn("none.test", found("", MINUTE), found("", MINUTE));
    bench.pass(MINUTE);
    let told = bench.learn("none.test", broken(), broken());
    assert_eq!(told, ["AAAA 5: SERVFAIL", "A 5: SERVFAIL"]);
}

// ---- everything together ----

/// A model of the behavior that the module's documentation promises, independent of the
/// implementation.
#[derive(Default)]
struct Model {
    /// The waiting links, with what they wait for.
    waiting: HashMap<(usize, Family), String>,
    /// The last cacheable answer to each question, when it came, and its bounded TTL.
    kept: HashMap<(String, Family), (FamilyAnswer, Instant, Duration)>,
}

impl Model {
    fn is_fresh(&self, host: &str, family: Family, now: Instant) -> bool {
        let kept = self.kept.get(&(host.to_owned(), family));
        kept.is_some_and(|(_, at, ttl)| now < *at + *ttl)
    }

    /// Returns whether `answer` may be given at `now` without a new answer of the resolver.
    fn is_kept(&self, host: &str, family: Family, answer: &FamilyAnswer, now: Instant) -> bool {
        let kept = self.kept.get(&(host.to_owned(), family));
        kept.is_some_and(|(kept, at, ttl)| {
            let is_stale_enough = kept.is_ok() && now < *at + *ttl + DAY;
            kept == answer && (now < *at + *ttl || is_stale_enough)
        })
    }

    fn keep(
        &mut self,
        host: &str,
        family: Family,
        answer: &FamilyAnswer,
        ttl: Duration,
        now: Instant,
    ) {
        let longest = match answer {
            Ok(addrs) if !addrs.is_empty() => DAY,
            _ => 5 * MINUTE,
        };
        let entry = (answer.clone(), now, ttl.min(longest));
        self.kept.insert((host.to_owned(), family), entry);
        if ttl.is_zero() {
            self.kept.remove(&(host.to_owned(), family));
        }
    }
}

const HOSTS: [&str; 6] = ["a.test", "b.test", "c.test", "d.test", "e.test", "a.test."];

fn some_answer(random: &mut Random, family: Family) -> LookupAnswer {
    let ttls = [Duration::ZERO, SECOND, 20 * SECOND, 10 * MINUTE, 7 * DAY];
    let ttl = ttls[random.below(ttls.len())];
    let n = random.below(200);
    match random.below(7) {
        0 => timeout(),
        1 => broken(),
        2 => no_such_name(ttl),
        3 => found("", ttl),
        _ => match family {
            Family::V6 => found(&format!("2001:db8::{n:x}"), ttl),
            Family::V4 => found(&format!("10.0.0.{n}"), ttl),
        },
    }
}

/// Random links ask and forget, a random resolver answers, and time passes. Each link must be
/// answered exactly once for each family it waits for, unless it forgets, with the resolver's last
/// answer, and the window must not be exceeded.
#[test]
fn every_link_is_answered_once_or_forgets() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let window = 1 + random.below(6);
        let mut bench = Bench::with(NamesConfig {
            max_lookups: window,
            ..config()
        });
        let mut model = Model::default();
        let mut told = 0;
        for _ in 0..200 {
            match random.below(8) {
                0..3 => {
                    let host = HOSTS[random.below(HOSTS.len())];
                    model_ask(&mut bench, &mut model, host);
                }
                3 => {
                    let token = 1 + random.below(bench.last_token + 1);
                    for family in FAMILIES {
                        if let Some(host) = model.waiting.remove(&(token, family)) {
                            bench.forget(&host, token);
                        }
                    }
                }
                4 => {
                    let times = [SECOND / 10, SECOND, 2 * SECOND, 31 * SECOND, HOUR, DAY];
                    bench.pass(times[random.below(times.len())]);
                    told += model_turn(&mut bench, &mut model, seed);
                }
                _ => {
                    model_answer(&mut bench, &mut random);
                    told += model_turn(&mut bench, &mut model, seed);
                }
            }
            bench.names.questions.assert_sound();
            assert!(bench.names.cache.count() <= HOSTS.len());
            let script = bench.script.borrow();
            assert!(script.open.len() <= window, "seed {seed}");
            for ((_, family), host) in &model.waiting {
                let is_open = script
                    .open
                    .values()
                    .any(|(name, of)| name == host && of == family);
                assert!(
                    is_open || script.open.len() == window,
                    "seed {seed}: {host} is not being looked up"
                );
            }
        }
        assert!(told > 0, "seed {seed}");
        // Half of them are answered, and the other half forget.
        for ((token, family), host) in std::mem::take(&mut model.waiting) {
            match token % 2 {
                0 => bench.forget(&host, token),
                _ => drop(model.waiting.insert((token, family), host)),
            }
        }
        model.waiting.retain(|(token, _), _| token % 2 == 1);
        while bench.names.is_busy() {
            if !model_answer(&mut bench, &mut random) {
                panic!("seed {seed}: busy without an open question");
            }
            model_turn(&mut bench, &mut model, seed);
        }
        assert!(model.waiting.is_empty(), "seed {seed}: {:?}", model.waiting);
        bench.assert_idle();
    }
}

fn model_ask(bench: &mut Bench, model: &mut Model, host: &str) {
    bench.last_token += 1;
    let token = bench.last_token;
    let (v6, v4) = match bench.names.ask(host, 80, Token(token), bench.now) {
        Known::Families { v6, v4 } => (v6, v4),
        Known::One(addr) => {
            // Both families are known, and there is only one address.
            let family = match addr {
                SocketAddr::V6(_) => Family::V6,
                SocketAddr::V4(_) => Family::V4,
            };
            let answer = Ok(Rc::from([addr.ip()]));
            assert!(model.is_kept(host, family, &answer, bench.now));
            let other = &model.kept[&(host.to_owned(), family.other())].0;
            assert!(addresses(other).is_empty());
            return;
        }
    };
    for (family, answer) in [(Family::V6, v6), (Family::V4, v4)] {
        match answer {
            Some(answer) => assert!(model.is_kept(host, family, &answer, bench.now)),
            None => {
                assert!(!model.is_fresh(host, family, bench.now));
                model.waiting.insert((token, family), host.to_owned());
            }
        }
    }
}

/// Answers an open question. Returns false if there is none.
fn model_answer(bench: &mut Bench, random: &mut Random) -> bool {
    let mut script = bench.script.borrow_mut();
    let ready: Vec<_> = script.ready.iter().map(|(id, _)| *id).collect();
    let open: Vec<_> = script
        .open
        .iter()
        .filter(|(id, _)| !ready.contains(id))
        .collect();
    if open.is_empty() {
        return false;
    }
    let (id, (_, family)) = open[random.below(open.len())];
    let answer = (*id, some_answer(random, *family));
    script.ready.push_back(answer);
    true
}

/// Runs one turn, and returns how many links were answered.
fn model_turn(bench: &mut Bench, model: &mut Model, seed: u64) -> usize {
    let now = bench.now;
    // At most one answer is ready, so any answer to its question comes from it.
    let fresh = bench.script.borrow().ready.front().cloned();
    let fresh = fresh.map(|(id, answer)| {
        let (host, family) = bench.script.borrow().open[&id].clone();
        (host, family, answer)
    });
    let mut told = 0;
    let mut said = None;
    if let Some((host, family, answer)) = &fresh {
        said = match &answer.addresses {
            Ok(addrs) => Some(Ok(Rc::from(&addrs[..]))),
            Err(LookupError::NotFound) => Some(Err(LookupError::NotFound)),
            Err(_) => None,
        };
        if said.is_none() && !stands_in(model, host, *family, now) {
            let other = model.kept.get(&(host.clone(), family.other()));
            let left = other.filter(|(answer, at, ttl)| {
                *answer == Err(LookupError::NotFound) && now < *at + *ttl
            });
            if let Some((_, at, ttl)) = left {
                let left = (*at + *ttl) - now;
                said = Some(Err(LookupError::NotFound));
                model.keep(host, *family, &Err(LookupError::NotFound), left, now);
            }
        } else if let Some(said) = &said {
            model.keep(host, *family, said, answer.ttl, now);
        }
    }
    while let Some(answered) = bench.names.next_answer(now) {
        assert!(!answered.links.is_empty());
        for token in answered.links {
            told += 1;
            let host = model.waiting.remove(&(token.0, answered.family));
            let host = host.unwrap_or_else(|| panic!("seed {seed}: {token:?} did not wait"));
            let of_fresh = fresh
                .as_ref()
                .is_some_and(|(of, family, _)| *of == host && *family == answered.family);
            let answer = &answered.addresses;
            let is_right = match (of_fresh, &said, &fresh) {
                (true, Some(said), _) => said == answer,
                (true, None, Some((_, _, failure))) => {
                    model.is_kept(&host, answered.family, answer, now)
                        || failure.addresses.as_ref().err() == answer.as_ref().err()
                }
                _ => model.is_kept(&host, answered.family, answer, now),
            };
            assert!(
                is_right,
                "seed {seed}: {host} {:?} is answered {answer:?}",
                answered.family
            );
        }
    }
    told
}

/// Returns whether there is a stale answer for a question that failed.
fn stands_in(model: &Model, host: &str, family: Family, now: Instant) -> bool {
    let usable = |family| {
        let kept = model.kept.get(&(host.to_owned(), family));
        kept.filter(|(answer, at, ttl)| answer.is_ok() && now < *at + *ttl + DAY)
            .map(|(answer, _, _)| addresses(answer).len())
    };
    match usable(family) {
        Some(0) => usable(family.other()).is_some_and(|n| n > 0),
        Some(_) => true,
        None => false,
    }
}

// ---- another network, other servers ----

/// The change: the host's network, or the resolver's servers.
fn changes() -> [fn(&mut Bench); 2] {
    [
        |bench| {
            bench.names.on_network_changed();
            bench.names.questions.assert_sound();
            assert_eq!(bench.script.borrow().told_of_network, 1);
        },
        |bench| bench.script.borrow_mut().has_changed = true,
    ]
}

#[test]
fn what_was_kept_is_forgotten_on_another_network_and_with_other_servers() {
    for change in changes() {
        let mut bench = Bench::new();
        bench.learn("fresh.test", found("::1", HOUR), found("10.0.0.1", HOUR));
        bench.learn("gone.test", no_such_name(MINUTE), no_such_name(MINUTE));
        bench.learn("empty.test", found("", MINUTE), found("", MINUTE));
        bench.learn("stale.test", found("", SECOND), found("10.0.0.1", SECOND));
        bench.pass(2 * SECOND);
        bench.asked();
        assert_eq!(bench.ask("fresh.test"), "::1 | 10.0.0.1");
        change(&mut bench);
        let hosts = ["fresh.test", "gone.test", "empty.test", "stale.test"];
        for host in hosts {
            assert_eq!(bench.ask(host), "? | ?");
            bench.answer(host, Family::V6, timeout());
            bench.answer(host, Family::V4, timeout());
            let told = bench.turn();
            assert!(
                told.iter().all(|told| told.contains("no answer")),
                "{told:?}"
            );
        }
        assert_eq!(bench.asked().len(), 2 * hosts.len());
        bench.assert_idle();
    }
}

#[test]
fn questions_put_before_are_joined_by_nobody_and_their_answers_not_kept() {
    for change in changes() {
        let mut bench = Bench::new();
        assert_eq!(bench.ask("h.test"), "? | ?");
        assert_eq!(bench.asked(), ["AAAA h.test", "A h.test"]);
        change(&mut bench);
        assert_eq!(bench.ask("h.test"), "? | ?");
        assert_eq!(
            bench.asked(),
            ["AAAA h.test", "A h.test"],
            "the questions are put again"
        );
        // The older questions are answered first, since their ids are smaller.
        bench.answer("h.test", Family::V6, found("::1", HOUR));
        bench.answer("h.test", Family::V4, found("10.0.0.1", HOUR));
        assert_eq!(bench.turn(), ["AAAA 1: ::1", "A 1: 10.0.0.1"]);
        assert_eq!(
            bench.ask("h.test"),
            "? | ?",
            "an outdated answer is not cached"
        );
        assert!(
            bench.asked().is_empty(),
            "the link joins the second question"
        );
        bench.answer("h.test", Family::V6, found("::2", HOUR));
        bench.answer("h.test", Family::V4, found("10.0.0.2", HOUR));
        assert_eq!(bench.turn(), ["AAAA 2 3: ::2", "A 2 3: 10.0.0.2"]);
        assert_eq!(bench.ask("h.test"), "::2 | 10.0.0.2");
        bench.assert_idle();
    }
}

#[test]
fn a_link_that_goes_takes_its_questions_along_whenever_they_were_put() {
    let mut bench = Bench::new();
    bench.ask("h.test");
    bench.ask("h.test");
    bench.names.on_network_changed();
    bench.ask("h.test");
    bench.forget("h.test", 1);
    assert_eq!(
        bench.script.borrow().cancelled,
        0,
        "another link waits for them"
    );
    bench.forget("h.test", 2);
    assert_eq!(bench.script.borrow().cancelled, 2);
    bench.forget("h.test", 3);
    assert_eq!(bench.script.borrow().cancelled, 4);
    bench.assert_idle();
}

#[test]
fn questions_that_wait_for_room_are_put_to_the_servers_there_are_then() {
    let mut bench = Bench::with(NamesConfig {
        max_lookups: 1,
        ..config()
    });
    bench.ask("h.test");
    assert_eq!(bench.asked(), ["AAAA h.test"]);
    bench.names.on_network_changed();
    bench.ask("h.test");
    assert_eq!(
        bench.asked(),
        ["A h.test"],
        "an outdated question takes no place in the window"
    );
    bench.answer("h.test", Family::V4, found("10.0.0.1", HOUR));
    assert_eq!(
        bench.turn(),
        ["A 1 2: 10.0.0.1"],
        "one question for both links"
    );
    assert_eq!(bench.asked(), ["AAAA h.test"]);
    bench.names.on_network_changed();
    bench.ask("i.test");
    assert!(
        bench.asked().is_empty(),
        "two outdated questions do take a place"
    );
    bench.answer("h.test", Family::V6, found("::1", HOUR));
    assert_eq!(bench.turn(), ["AAAA 1: ::1"]);
    assert_eq!(bench.asked(), ["AAAA i.test"]);
    for (host, link) in [("h.test", 2), ("i.test", 3)] {
        bench.forget(host, link);
    }
    bench.assert_idle();
}

#[test]
fn names_that_nobody_may_be_asked_for_are_refused_unless_they_are_overridden() {
    let overrides = [("*.onion".to_owned(), "127.0.0.1:9050".parse().unwrap())];
    let scratch = Scratch::new();
    let hosts = scratch.path("hosts");
    std::fs::write(&hosts, "10.0.0.9 a.onion h.127.1 127.1").unwrap();
    for overridden in [false, true] {
        let mut bench = Bench::with(NamesConfig {
            overrides: if overridden { &overrides } else { &[] },
            hosts_file: Some(hosts.clone()),
            ..config()
        });
        for host in ["a.onion", "a.onion.", "b.a.onion"] {
            let told = bench.ask(host);
            if overridden {
                assert_eq!(
                    told, "127.0.0.1:9050",
                    "an override is the user's own decision"
                )
            } else {
                assert!(told.contains("Tor"), "{told}")
            }
        }
        for host in [
            "127.1",
            "0x7f.1",
            "2130706433",
            "h.127.1",
            "256.256.256.256",
        ] {
            let told = bench.ask(host);
            assert!(told.contains("ends in a number"), "{told}");
        }
        assert!(bench.asked().is_empty());
        bench.assert_idle();
    }
}

#[test]
fn a_large_hosts_file_makes_turns_due_until_it_is_read() {
    let scratch = Scratch::new();
    let hosts = scratch.path("hosts");
    let mut bench = Bench::with(NamesConfig {
        hosts_file: Some(hosts.clone()),
        ..config()
    });
    let names: String = (0..20_000)
        .map(|n| format!("0.0.0.0 ad-{n}.test\n"))
        .collect();
    std::fs::write(&hosts, format!("{names}10.0.0.1 h.test\n")).unwrap();
    bench.pass(SECOND);
    assert_eq!(
        bench.ask("ad-19999.test"),
        "? | ?",
        "the file has not been read that far"
    );
    bench.forget("ad-19999.test", 1);
    let mut turns = 0;
    while let Some(deadline) = bench.names.deadline() {
        assert!(deadline <= bench.now);
        assert!(bench.turn().is_empty());
        turns += 1;
    }
    assert!(turns > 3, "{turns}");
    assert_eq!(bench.ask("h.test"), "10.0.0.1:80");
}

#[test]
fn lines_of_one_kind_are_rare() {
    let (mut limit, now) = (RateLimit::default(), Instant::now());
    assert_eq!(limit.admits(now), Some(0));
    for _ in 0..1000 {
        assert_eq!(limit.admits(now + SECOND / 2), None);
    }
    assert_eq!(limit.admits(now + SECOND), Some(1000));
    assert_eq!(limit.admits(now + SECOND), None);
    assert_eq!(limit.admits(now + 2 * SECOND), Some(1));
}
