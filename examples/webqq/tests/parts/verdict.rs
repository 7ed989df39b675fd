//! The judgment: each complaint can be provoked, and is then the only one.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::events::{Entry, Event};
use crate::expect::{Answers, Expect, Expected, number_of};
use crate::policy::How;
use crate::server::{Account, Heard, Ledger, Place, ProtocolError, Said, Step};
use crate::verdict::{Evidence, judge};

const BOT: u64 = 1_685_359_365;
const OTHER: u64 = 10_001;

/// What happened, and what should have.
struct Scene {
    ledger: Ledger,
    expected: BTreeMap<u64, Expected>,
    logs: BTreeMap<u64, Vec<Entry>>,
    switches: Vec<String>,
    over_tls: Vec<Step>,
}

fn message(nonce: u64, place: Place, who: &str, words: &str) -> Said {
    Said {
        nonce,
        account: BOT,
        place,
        who: who.to_owned(),
        text: format!("#{nonce} {words}"),
        picture: false,
        msg_id: 7000 + nonce,
        at: Duration::ZERO,
        delivered: 1,
    }
}

fn answer(place: Place, to: &str, text: &str) -> Heard {
    Heard {
        account: BOT,
        place,
        to: to.to_owned(),
        text: text.to_owned(),
        at: Duration::ZERO,
        accepted: true,
        retcode: 0,
    }
}

fn error(provoked: bool) -> ProtocolError {
    ProtocolError {
        at: Duration::ZERO,
        account: Some(BOT),
        step: Some(Step::Poll),
        what: "Referer is missing or wrong".to_owned(),
        provoked,
    }
}

fn lunch() -> Place {
    Place::Discu("Lunch".to_owned())
}

impl Scene {
    /// Three messages: a friend's, one at lunch with a long answer, and one that needs no answer.
    fn good() -> Self {
        let mut scene = Self {
            ledger: Ledger::default(),
            expected: BTreeMap::new(),
            logs: BTreeMap::from([(BOT, Vec::new())]),
            switches: vec!["poll: reset".to_owned()],
            over_tls: vec![Step::Sig],
        };
        let account = Account::sample(BOT);
        let mut ask = |message: Said, expect: Expect| {
            let Said {
                nonce, place, who, ..
            } = &message;
            let expected = Expected::new(&account, place, who, *nonce, expect);
            scene.expected.insert(*nonce, expected);
            scene.logs.get_mut(&BOT).unwrap().push(Entry {
                at: Duration::ZERO,
                event: Event::Heard {
                    msg_id: message.msg_id,
                    from: who.clone(),
                    text: message.text.clone(),
                },
            });
            scene.ledger.messages.push(message);
        };
        ask(
            message(1, Place::Buddy, "Alice", "ping"),
            Expect::Exactly("pong".to_owned()),
        );
        ask(
            message(2, lunch(), "Mira", "count 4"),
            Expect::Parts("1 2 3 4".to_owned()),
        );
        ask(message(3, lunch(), "Mira", "hello"), Expect::Nothing);
        scene.answers(answer(Place::Buddy, "Alice", "#1 pong"));
        scene.answers(answer(lunch(), "", "Mira: #2 (1/2) 1 2 "));
        scene.answers(answer(lunch(), "", "Mira: #2 (2/2) 3 4"));
        scene.ledger.fire("poll: reset".to_owned());
        scene.ledger.note_tls(Step::Sig);
        scene
    }

    fn answers(&mut self, answer: Heard) {
        self.logs_that(Event::Said {
            to: answer.to.clone(),
            text: answer.text.clone(),
        });
        self.ledger.answers.push(answer);
    }

    fn logs_that(&mut self, event: Event) {
        let at = Duration::ZERO;
        self.log().push(Entry { at, event });
    }

    fn log(&mut self) -> &mut Vec<Entry> {
        self.logs.get_mut(&BOT).unwrap()
    }

    fn forgets(&mut self, is_forgotten: fn(&Event) -> bool) {
        self.log().retain(|entry| !is_forgotten(&entry.event));
    }

    /// Changes the text of the first answer to `text`, in the ledger and in the log.
    fn rewords(&mut self, text: &str) {
        text.clone_into(&mut self.ledger.answers[0].text);
        for entry in self.log() {
            if let Event::Said { text: said, .. } = &mut entry.event
                && said.starts_with("#1 ")
            {
                text.clone_into(said);
            }
        }
    }

    fn complaints(&self) -> Vec<String> {
        let verdict = judge(&Evidence {
            ledger: &self.ledger,
            expected: &self.expected,
            logs: &self.logs,
            switches: &self.switches,
            over_tls: &self.over_tls,
        });
        assert_eq!(verdict.is_good(), verdict.complaints.is_empty());
        verdict.complaints
    }
}

fn is_pong(event: &Event) -> bool {
    matches!(event, Event::Said { text, .. } if text == "#1 pong")
}

fn first_was_heard(event: &Event) -> bool {
    matches!(event, Event::Heard { msg_id: 7001, .. })
}

fn unsure() -> Event {
    Event::PerhapsSaid {
        to: "Alice".to_owned(),
        text: "#1 pong".to_owned(),
        why: "no answer".to_owned(),
    }
}

#[test]
fn each_complaint_is_made_where_there_is_reason_for_it() {
    type Row = (&'static str, fn(&mut Scene), &'static [&'static str]);
    let rows: &[Row] = &[
        ("all was well", |_| {}, &[]),
        (
            "an answer never came",
            |s| {
                s.ledger.answers.remove(0);
                s.forgets(is_pong);
            },
            &["\"#1 ping\" by Alice (buddy) was lost"],
        ),
        (
            "an answer was lost, but logged as said",
            |s| drop(s.ledger.answers.remove(0)),
            &[
                "\"#1 ping\" by Alice (buddy) was lost",
                "logged \"#1 pong\" as said",
            ],
        ),
        (
            "an answer was lost, and the bot is unsure",
            |s| {
                s.ledger.answers.remove(0);
                s.forgets(is_pong);
                s.logs_that(unsure());
            },
            &["was lost"],
        ),
        (
            "an answer was given up",
            |s| {
                s.ledger.answers.remove(0);
                s.forgets(is_pong);
                s.logs_that(Event::NotSaid {
                    to: "Alice".to_owned(),
                    text: "#1 pong".to_owned(),
                    why: "retcode 100001".to_owned(),
                });
            },
            &["was lost", "gave up \"#1 pong\": retcode 100001"],
        ),
        (
            "an answer was sent but not accepted",
            |s| s.ledger.answers[0].accepted = false,
            &["was lost", "as said"],
        ),
        (
            "an answer arrived, and the bot is unsure",
            |s| {
                s.forgets(is_pong);
                s.logs_that(unsure());
            },
            &[],
        ),
        (
            "an answer arrived, but is not in the log",
            |s| s.forgets(is_pong),
            &["did not log that it said \"#1 pong\""],
        ),
        (
            "an answer arrived twice",
            |s| s.answers(answer(Place::Buddy, "Alice", "#1 pong")),
            &["was answered 2 times"],
        ),
        (
            "an answer arrived twice, and was logged once",
            |s| {
                s.ledger
                    .answers
                    .push(answer(Place::Buddy, "Alice", "#1 pong"))
            },
            &["was answered 2 times", "did not log that it said"],
        ),
        (
            "an answer has the wrong text",
            |s| s.rewords("#1 ping"),
            &["was answered wrongly: \"#1 ping\""],
        ),
        (
            "an answer to a friend begins with a name",
            |s| s.rewords("Alice: #1 pong"),
            &["was answered wrongly"],
        ),
        (
            "another person got the answer",
            |s| "Bob".clone_into(&mut s.ledger.answers[0].to),
            &["was answered elsewhere"],
        ),
        (
            "the answer went to another place",
            |s| s.ledger.answers[0].place = Place::Sess("Rustaceans".to_owned()),
            &["was answered elsewhere"],
        ),
        (
            "another bot sent the answer",
            |s| s.ledger.answers[0].account = OTHER,
            &["was answered elsewhere", "logged \"#1 pong\" as said"],
        ),
        (
            "a part is missing",
            |s| {
                s.ledger.answers.pop();
                s.log().pop();
            },
            &["\"#2 count 4\" by Mira (discussion Lunch) was answered wrongly"],
        ),
        (
            "parts are out of order",
            |s| s.ledger.answers.swap(1, 2),
            &["was answered 2 times"],
        ),
        (
            "a message that needs no answer was answered",
            |s| s.answers(answer(lunch(), "", "Mira: #3 hello")),
            &["\"#3 hello\" by Mira (discussion Lunch) was answered wrongly"],
        ),
        (
            "an answer to a question that was never asked",
            |s| s.answers(answer(Place::Buddy, "Alice", "#9 pong")),
            &["#9 was never asked, but answered 1 times"],
        ),
        (
            "an answer without a number",
            |s| s.answers(answer(Place::Buddy, "Alice", "hello")),
            &["said without being asked: \"hello\""],
        ),
        (
            "a protocol error of the bot's",
            |s| s.ledger.errors.push(error(false)),
            &["protocol error: Poll: Referer is missing or wrong"],
        ),
        (
            "a protocol error that the script provoked",
            |s| s.ledger.errors.push(error(true)),
            &[],
        ),
        (
            "a switch never struck",
            |s| s.switches.push("send: 108".to_owned()),
            &["never happened: send: 108"],
        ),
        (
            "no switch struck",
            |s| s.ledger.fired.clear(),
            &["never happened: poll: reset"],
        ),
        (
            "a step never came over TLS",
            |s| s.over_tls.push(Step::SendSess),
            &["never came over TLS: send to session"],
        ),
        (
            "no step came over TLS",
            |s| s.ledger.over_tls.clear(),
            &["never came over TLS: sig"],
        ),
        (
            "a message was never fetched",
            |s| {
                s.ledger.messages[2].delivered = 0;
                s.forgets(|event| matches!(event, Event::Heard { msg_id: 7003, .. }));
            },
            &["never fetched: \"#3 hello\"", "\"#3 hello\" was not heard"],
        ),
        (
            "a message was fetched, and not heard",
            |s| s.forgets(first_was_heard),
            &["\"#1 ping\" was not heard"],
        ),
        (
            "a message was heard twice",
            |s| {
                let again = s.log()[0].clone();
                s.log().push(again);
            },
            &["\"#1 ping\" was heard 2 times"],
        ),
        (
            "a message was delivered twice, and recognized",
            |s| {
                s.ledger.messages[0].delivered = 2;
                s.logs_that(Event::Repeated {
                    msg_id: 7001,
                    text: String::new(),
                });
            },
            &[],
        ),
        (
            "trouble was overcome",
            |s| {
                s.logs_that(Event::Delayed {
                    why: "retcode 108".to_owned(),
                });
                s.logs_that(Event::LoggingInAgain {
                    how: How::Relink,
                    why: "kicked".to_owned(),
                    wait: Duration::ZERO,
                });
            },
            &[],
        ),
    ];
    for (why, happens, expected) in rows {
        let mut scene = Scene::good();
        happens(&mut scene);
        let complaints = scene.complaints();
        let is_expected = |(complaint, expected): (&String, &&str)| complaint.contains(expected);
        assert!(
            complaints.len() == expected.len() && complaints.iter().zip(*expected).all(is_expected),
            "{why}: {complaints:#?}"
        );
    }
}

#[test]
fn a_verdict_counts_what_people_said_and_read() {
    let mut scene = Scene::good();
    scene.ledger.answers.push(Heard {
        accepted: false,
        ..answer(Place::Buddy, "Alice", "#1 pong")
    });
    let verdict = judge(&Evidence {
        ledger: &scene.ledger,
        expected: &scene.expected,
        logs: &scene.logs,
        switches: &scene.switches,
        over_tls: &scene.over_tls,
    });
    assert!(verdict.is_good(), "{:?}", verdict.complaints);
    assert_eq!((verdict.messages, verdict.answers), (3, 3));
    assert_eq!(verdict.requests_over_tls, 1);
}

// ---- what is expected ----

#[test]
fn answers_begin_with_the_number_and_in_company_with_the_name_shown_there() {
    let account = Account::sample(BOT);
    let group = |name: &str| Place::Group(name.to_owned());
    #[rustfmt::skip]
    let rows = [
        ("a friend, without name",          Place::Buddy,                           "Bob",      "#7 "),
        ("in private, without name",        Place::Sess("Rustaceans".to_owned()),   "Fatima",   "#7 "),
        ("a nick",                          group("Rustaceans"),                    "Alice",    "Alice: #7 "),
        ("a card takes precedence",         group("Rustaceans"),                    "Fatima",   "Fatima, who knows: #7 "),
        ("a card without a nick",           group("Rustaceans"),                    "Ivo",      "Ivo: #7 "),
        ("the nick, not the markname",      group("Chess club"),                    "Bob",      "Bob: #7 "),
        ("at lunch",                        lunch(),                                "Chen Wei", "陈伟: #7 "),
    ];
    for (why, place, who, head) in rows {
        let expected = Expected::new(&account, &place, who, 7, Expect::Nothing);
        assert_eq!(expected.head, head, "{why}");
    }
}

#[test]
fn an_answer_is_right_when_it_is_whole_and_there_once() {
    let exactly = || Expect::Exactly("pong".to_owned());
    let begins = || Expect::Begins("up for ".to_owned());
    let parts = || Expect::Parts("1 2 3".to_owned());
    #[rustfmt::skip]
    let rows: &[(&str, Expect, &[&str], bool)] = &[
        ("nothing",                     Expect::Nothing, &[],                               true),
        ("something instead",           Expect::Nothing, &["#7 "],                          false),
        ("exactly that",                exactly(),       &["#7 pong"],                      true),
        ("not there",                   exactly(),       &[],                               false),
        ("twice",                       exactly(),       &["#7 pong", "#7 pong"],           false),
        ("more than that",              exactly(),       &["#7 pong!"],                     false),
        ("another number",              exactly(),       &["#8 pong"],                      false),
        ("another number as well",      exactly(),       &["#7 pong", "#8 pong"],           false),
        ("no number",                   exactly(),       &["pong"],                         false),
        ("a beginning",                 begins(),        &["#7 up for 3 s"],                true),
        ("another beginning",           begins(),        &["#7 down"],                      false),
        ("a beginning twice",           begins(),        &["#7 up for 3 s", "#7 up for 4 s"], false),
        ("all parts in order",          parts(),         &["#7 (1/2) 1 2", "#7 (2/2)  3"],  true),
        ("in another order",            parts(),         &["#7 (2/2)  3", "#7 (1/2) 1 2"],  false),
        ("one is missing",              parts(),         &["#7 (1/2) 1 2"],                 false),
        ("one is there twice",          parts(),         &["#7 (1/2) 1 2", "#7 (1/2) 1 2"], false),
        ("one too many",                parts(),         &["#7 (1/3) 1 2", "#7 (2/3)  3", "#7 (3/3) 4"], false),
        ("whole, where it was too long", parts(),        &["#7 1 2 3"],                     false),
        ("a whole in one part",         parts(),         &["#7 (1/1) 1 2 3"],               false),
        ("no part",                     parts(),         &[],                               false),
    ];
    for (why, answer, texts, expected) in rows {
        let wanted = Expected {
            head: "#7 ".to_owned(),
            answer: answer.clone(),
        };
        assert_eq!(wanted.is_met_by(texts), *expected, "{why}");
    }
}

#[test]
fn an_answer_has_the_number_of_its_question() {
    #[rustfmt::skip]
    let rows: &[(&str, Option<u64>)] = &[
        ("#7 pong",             Some(7)),
        ("#7",                  Some(7)),
        ("Mira: #12 (1/2) a",   Some(12)),
        ("#7 echo #8",          Some(7)),
        ("pong",                None),
        ("#",                   None),
        ("# 7",                 None),
        ("#seven",              None),
        ("#7: pong",            None),
    ];
    for (text, expected) in rows {
        assert_eq!(number_of(text), *expected, "{text:?}");
    }
}

#[test]
fn people_go_on_when_they_have_their_answer_or_the_bot_has_their_message() {
    let mut scene = Scene::good();
    let meet =
        |scene: &Scene, nonce| Answers::of(&scene.ledger).meet(nonce, scene.expected.get(&nonce));
    assert!([1, 2, 3].iter().all(|nonce| meet(&scene, *nonce)));
    scene.ledger.answers.pop();
    assert!(!meet(&scene, 2));
    scene.ledger.messages[2].delivered = 0;
    assert!(!meet(&scene, 3));
    scene.ledger.answers[0].accepted = false;
    assert!(!meet(&scene, 1));
    // A message without an expectation is not waited for.
    assert!(meet(&scene, 99));
}
