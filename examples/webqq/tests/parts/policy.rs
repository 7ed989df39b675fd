//! The bot's reaction to each retcode, as documented.

use std::time::Duration;

use crate::policy::{AfterPoll, AfterSend, Backoff, Kicks, after_poll, after_send};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_polls_retcode_decides_what_follows() {
    #[rustfmt::skip]
    let rows: &[(&str, &[i64], AfterPoll)] = &[
        ("nothing before the hold ended",   &[102],                     AfterPoll::Poll),
        ("relinking failed elsewhere",      &[120, 121],                AfterPoll::Relink),
        ("a bad session",                   &[100_006],                 AfterPoll::Relink),
        ("not logged in",                   &[100],                     AfterPoll::LogIn),
        ("a cookie is missing",             &[108],                     AfterPoll::LogIn),
        ("told to stop",                    &[114],                     AfterPoll::LogIn),
        ("relogin failed",                  &[100_002],                 AfterPoll::LogIn),
        ("perhaps a bad session",           &[103],                     AfterPoll::Suspect),
        ("logged out on its own",            &[109, 110],                AfterPoll::Stop),
        ("fatal",                           &[100_000],                 AfterPoll::Report),
        ("unknown code",                    &[-1, 1, 7, 101, 122, 1202, i64::MAX], AfterPoll::Report),
    ];
    for (why, codes, expected) in rows {
        for code in *codes {
            assert_eq!(after_poll(*code), *expected, "{why}: {code}");
        }
    }
}

#[test]
fn a_sends_retcode_tells_whether_it_was_said() {
    #[rustfmt::skip]
    let rows: &[(&str, &[i64], AfterSend)] = &[
        ("too fast",                        &[108],                     AfterSend::TooFast),
        ("the session is invalid",          &[8],                       AfterSend::Relink),
        ("perhaps a bad session",           &[103],                     AfterSend::Suspect),
        ("refused",                         &[100_001, 100_012],        AfterSend::Refused),
        ("probably sent",                   &[1202, 100_003, 100_100],  AfterSend::Sent),
        // Sending twice would be worse than not at all.
        ("unknown code",                    &[-1, 1, 100_000, 100_101, i64::MIN], AfterSend::Sent),
    ];
    for (why, codes, expected) in rows {
        for code in *codes {
            assert_eq!(after_send(*code), *expected, "{why}: {code}");
        }
    }
}

#[test]
fn waits_double_from_a_second_to_a_minute() {
    let mut backoff = Backoff::default();
    let waits: Vec<u64> = (0..9).map(|_| backoff.next_wait().as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    backoff.reset();
    assert_eq!(backoff.next_wait(), SECOND);
    assert_eq!(backoff.next_wait(), 2 * SECOND);
}

#[test]
fn five_kicks_an_hour_are_answered_at_once() {
    let mut kicks = Kicks::default();
    for minute in 0..5 {
        assert_eq!(kicks.on_kick(minute * MINUTE), Duration::ZERO, "{minute}");
    }
    // The sixth waits until the first is an hour old, and so does each one after it.
    assert_eq!(kicks.on_kick(10 * MINUTE), 50 * MINUTE);
    assert_eq!(kicks.on_kick(HOUR), MINUTE);
    assert_eq!(kicks.on_kick(HOUR + MINUTE), MINUTE);
}

#[test]
fn what_is_an_hour_ago_counts_no_more() {
    let mut kicks = Kicks::default();
    for _ in 0..5 {
        kicks.on_kick(7 * HOUR);
    }
    assert_eq!(kicks.on_kick(8 * HOUR), Duration::ZERO);
}

#[test]
fn in_the_long_run_there_are_no_more_kicks_than_that() {
    // The other bot kicks a minute after each login.
    let mut kicks = Kicks::default();
    let mut now = Duration::ZERO;
    let mut logins: Vec<Duration> = Vec::new();
    while now < 24 * HOUR {
        now += MINUTE;
        now += kicks.on_kick(now);
        logins.push(now);
    }
    for hour in logins.windows(Kicks::AN_HOUR + 1) {
        let span = hour[Kicks::AN_HOUR] - hour[0];
        assert!(span >= HOUR, "{hour:?}");
    }
    assert!(
        logins.len() >= 24 * (Kicks::AN_HOUR - 1),
        "{}",
        logins.len()
    );
}
