//! The outbox: how long each message waits; long answers; duplicate detection.

use std::time::{Duration, Instant};

use httpstream::sim::Random;

use crate::answers::{From, Item, MessageId, Poll, poll};
use crate::outbox::{Long, Outbox, PAUSE, Seen, messages};
use crate::roster::{Roster, Target};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn somebody() -> Target {
    Roster::default().target(From::Buddy { uin: 11 }, 1)
}

fn outbox_of(texts: &[&str]) -> Outbox {
    let mut outbox = Outbox::new(PAUSE);
    for text in texts {
        outbox.push(&somebody(), (*text).to_owned());
    }
    outbox
}

/// Takes the next message, waits as long as it must, and sends it. Returns its text and the wait.
fn send(outbox: &mut Outbox, now: &mut Instant) -> (String, Duration) {
    let wait = outbox.take(*now).expect("there is a message");
    *now += wait;
    (outbox.done(*now).expect("it was under way").text, wait)
}

// ---- pacing ----

#[test]
fn nothing_is_taken_when_there_is_nothing_or_something_is_under_way() {
    let now = Instant::now();
    let mut outbox = outbox_of(&[]);
    assert!(outbox.is_empty());
    assert_eq!(outbox.take(now), None);

    let mut outbox = outbox_of(&["a", "b"]);
    assert_eq!(outbox.take(now), Some(Duration::ZERO));
    assert_eq!(outbox.under_way().map(|message| &*message.text), Some("a"));
    assert_eq!(outbox.take(now + 60 * SECOND), None);
    assert!(!outbox.is_empty());
}

#[test]
fn what_is_said_last_is_under_way_until_it_is_done() {
    let now = Instant::now();
    let mut outbox = outbox_of(&["a"]);
    outbox.take(now);
    assert!(!outbox.is_empty());
    assert_eq!(
        outbox.done(now).map(|message| message.text).as_deref(),
        Some("a")
    );
    assert!(outbox.is_empty());
    assert!(outbox.done(now).is_none());
}

#[test]
fn the_pause_is_half_a_second_and_a_second_before_a_repeat() {
    // The texts already sent, the next one, and how long it has to wait.
    #[rustfmt::skip]
    let rows: &[(&str, &[&str], &str, Duration)] = &[
        ("the first waits for nothing",         &[],            "a",    Duration::ZERO),
        ("another one, half a second",          &["a"],         "b",    500 * MS),
        ("the same one, a second",              &["a"],         "a",    1000 * MS),
        ("what was said before that is new",    &["a", "b"],    "a",    500 * MS),
        ("a second repeat waits no longer than the first", &["a", "a"], "a",   1000 * MS),
        ("case makes a difference",             &["a"],         "A",    500 * MS),
    ];
    for (why, said, next, expected) in rows {
        for later in [Duration::ZERO, MS, *expected, 60 * SECOND] {
            let mut outbox = outbox_of(said);
            outbox.push(&somebody(), (*next).to_owned());
            let mut now = Instant::now();
            for text in *said {
                now += 10 * SECOND;
                assert_eq!(send(&mut outbox, &mut now).0, *text, "{why}");
            }
            let wait = outbox.take(now + later);
            assert_eq!(wait, Some(expected.saturating_sub(later)), "{why}");
        }
    }
}

#[test]
fn the_pause_begins_when_the_answer_has_come() {
    let begun = Instant::now();
    let mut outbox = outbox_of(&["a", "b"]);
    outbox.take(begun);
    // The pause does not depend on how long the server took.
    let ended = begun + 30 * SECOND;
    outbox.done(ended);
    assert_eq!(outbox.take(ended), Some(PAUSE));
}

#[test]
fn a_backlog_goes_out_in_its_order_and_twice_a_second() {
    let texts: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let mut outbox = outbox_of(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let begun = Instant::now();
    let mut now = begun;
    for text in &texts {
        assert_eq!(send(&mut outbox, &mut now).0, *text);
    }
    // The intervals do not drift.
    assert_eq!(now - begun, 99 * PAUSE);
    assert!(outbox.is_empty());
}

#[test]
fn where_waits_are_compressed_the_pause_is_shorter() {
    let mut now = Instant::now();
    let mut outbox = Outbox::new(PAUSE / 50);
    outbox.push(&somebody(), "a".to_owned());
    outbox.push(&somebody(), "a".to_owned());
    send(&mut outbox, &mut now);
    assert_eq!(outbox.take(now), Some(20 * MS));
}

#[test]
fn what_is_put_back_is_the_next_again() {
    let mut now = Instant::now();
    let mut outbox = outbox_of(&["a", "b", "c"]);
    outbox.take(now);
    outbox.under_way().expect("a").refusals = 2;
    outbox.put_back(now, 2 * SECOND);
    assert_eq!(outbox.take(now), Some(2 * SECOND));

    let again = outbox.under_way().expect("a");
    assert_eq!((&*again.text, again.refusals), ("a", 2));
    now += 2 * SECOND;
    outbox.done(now);
    for text in ["b", "c"] {
        assert_eq!(send(&mut outbox, &mut now), (text.to_owned(), PAUSE));
    }
}

#[test]
fn what_is_put_back_waits_for_the_pause_at_least() {
    let now = Instant::now();
    let mut outbox = outbox_of(&["a"]);
    outbox.take(now);
    outbox.put_back(now, Duration::ZERO);
    // It was not sent, so it is not a repeat of itself.
    assert_eq!(outbox.take(now), Some(PAUSE));
}

#[test]
fn what_is_pushed_meanwhile_comes_after_what_is_put_back() {
    let mut now = Instant::now();
    let mut outbox = outbox_of(&["a"]);
    outbox.take(now);
    outbox.push(&somebody(), "b".to_owned());
    outbox.put_back(now, Duration::ZERO);
    assert_eq!(send(&mut outbox, &mut now).0, "a");
    assert_eq!(send(&mut outbox, &mut now).0, "b");
}

#[test]
fn with_nothing_under_way_there_is_nothing_to_put_back() {
    let mut now = Instant::now();
    let mut outbox = outbox_of(&[]);
    outbox.put_back(now, SECOND);
    assert!(outbox.is_empty());

    let mut outbox = outbox_of(&["a", "b", "c"]);
    outbox.put_back(now, SECOND);
    assert_eq!(
        send(&mut outbox, &mut now),
        ("a".to_owned(), Duration::ZERO)
    );
}

// ---- long answers ----

#[test]
fn long_answers_are_split_or_cut_by_characters() {
    type Row = (
        &'static str,
        &'static str,
        &'static str,
        usize,
        Long,
        &'static [&'static str],
    );
    #[rustfmt::skip]
    let rows: &[Row] = &[
        ("a text that fits is one message",     "",     "pong",         4,  Long::Split, &["pong"]),
        ("a text that fits is not cut",         "",     "pong",         4,  Long::Cut,   &["pong"]),
        ("a head counts",                       "#1 ",  "pong",         7,  Long::Split, &["#1 pong"]),
        ("an empty answer is one message",      "#1 ",  "",             40, Long::Split, &["#1 "]),
        ("a longer text is split",              "",     "0123456789abc", 12, Long::Split, &["(1/4) 0123", "(2/4) 4567", "(3/4) 89ab", "(4/4) c"]),
        ("the head precedes each part",         "B: ",  "0123456789abc", 15, Long::Split, &["B: (1/4) 0123", "B: (2/4) 4567", "B: (3/4) 89ab", "B: (4/4) c"]),
        ("a letter of three bytes is one",      "企: ", "鹅鹅鹅鹅鹅",   8,  Long::Split, &["企: 鹅鹅鹅鹅鹅"]),
        ("letters are not split",               "",     "企鹅企鹅企鹅企鹅企鹅企鹅企", 12, Long::Split, &["(1/4) 企鹅企鹅", "(2/4) 企鹅企鹅", "(3/4) 企鹅企鹅", "(4/4) 企"]),
        ("a cut message is marked",             "",     "0123456789abc", 12, Long::Cut,  &["012345 [...]"]),
        ("a cut message has its head",          "企: ", "鹅鹅鹅鹅鹅鹅鹅鹅鹅鹅鹅鹅鹅", 15, Long::Cut, &["企: 鹅鹅鹅鹅鹅鹅 [...]"]),
    ];
    for (why, head, text, most, long, expected) in rows {
        assert_eq!(messages(head, text, *most, *long), *expected, "{why}");
    }
}

#[test]
fn no_message_is_over_the_limit_and_nothing_is_lost_between_them() {
    const LETTERS: &[char] = &['a', ' ', '企', 'é', '🐧', '#', '(', '/'];
    for seed in 0..2_000 {
        let mut random = Random::new(seed);
        let mut some = |most: usize| -> String {
            let count = random.below(most);
            (0..count).map(|_| *random.pick(LETTERS)).collect()
        };
        // Texts as the options allow them, with names of maximum length.
        let (head, text) = (some(25), some(if seed % 50 == 0 { 20_000 } else { 600 }));
        let most = random.between(40, 300);
        let is_short = head.chars().count() + text.chars().count() <= most;

        let parts = messages(&head, &text, most, Long::Split);
        assert_eq!(parts.len() == 1, is_short, "seed {seed}");
        let mut whole = String::new();
        for (i, part) in parts.iter().enumerate() {
            let letters = part.chars().count();
            assert!(
                letters <= most,
                "seed {seed}: {letters} of {most} in {part:?}"
            );
            let body = part.strip_prefix(&head).expect("each part has the head");
            let count = format!("({}/{}) ", i + 1, parts.len());
            whole += match is_short {
                true => body,
                false => body.strip_prefix(&count).expect("each part has its number"),
            };
        }
        assert_eq!(whole, text, "seed {seed}");

        let cut = messages(&head, &text, most, Long::Cut);
        assert_eq!(cut.len(), 1, "seed {seed}");
        assert!(cut[0].chars().count() <= most, "seed {seed}");
        assert_eq!(cut[0].ends_with(" [...]"), !is_short, "seed {seed}");
    }
}

// ---- what was seen ----

fn id(msg_id: u64) -> MessageId {
    let value = format!(r#"{{"msg_id":{msg_id},"from_uin":11,"content":[]}}"#);
    let answer = format!(r#"{{"retcode":0,"result":[{{"poll_type":"message","value":{value}}}]}}"#);
    match poll(&answer) {
        Ok(Poll::Items(items)) => match &*items {
            [Item::Message(message)] => message.id,
            _ => panic!("not a message"),
        },
        _ => panic!("not a list of items"),
    }
}

#[test]
fn a_message_is_new_once() {
    let mut seen = Seen::default();
    assert!(seen.insert(id(1)));
    assert!(!seen.insert(id(1)));
    assert!(seen.insert(id(2)));
    assert!(!seen.insert(id(1)));
}

#[test]
fn the_last_512_messages_are_kept_in_mind() {
    let mut seen = Seen::default();
    assert!((0..512).all(|n| seen.insert(id(n))));
    assert!((0..512).all(|n| !seen.insert(id(n))));
    // One more, and the first is forgotten. Seeing the first again evicts the second.
    assert!(seen.insert(id(512)));
    assert!((1..=512).all(|n| !seen.insert(id(n))));
    assert!(seen.insert(id(0)));
    assert!(seen.insert(id(1)));
    assert!(!seen.insert(id(512)));
}
