//! `examples/outbox.rs`: what arrives at a server with limits, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[allow(dead_code, reason = "`main` and the fields that it prints")]
#[path = "../../examples/outbox.rs"]
mod program;

use program::{CHATS, MESSAGES, run};

/// The limits allow the 21st message to a chat a minute after its first. The first five messages to
/// all chats take until the end of the sixth second, so the last five do until that of the 66th.
const LEAST_SECONDS: f64 = 66.0;

/// Checks that each message has arrived once, and those of each chat in order.
fn check_messages(messages: &[(String, String)]) {
    assert_eq!(messages.len(), MESSAGES);
    let different: BTreeSet<_> = messages.iter().collect();
    assert_eq!(different.len(), MESSAGES);
    let mut chats = BTreeMap::<_, Vec<usize>>::new();
    for (chat, text) in messages {
        let number = text.rsplit(' ').next().unwrap().parse().unwrap();
        chats.entry(chat).or_default().push(number);
    }
    assert_eq!(chats.len(), CHATS);
    assert!(chats.values().all(|numbers| numbers.is_sorted()));
}

#[test]
fn alone_it_is_never_refused_and_takes_no_longer_than_the_limits_ask() {
    // Up to these, a round trip, and two for a new connection, fit into a tenth of the time.
    for latency in [0, 1, 20, 60, 100, 150].map(Duration::from_millis) {
        let (outbox, api) = run(latency, None).unwrap();
        assert_eq!(outbox.sent, MESSAGES);
        check_messages(&api.record.messages);
        assert_eq!(api.record.refused, 0, "{latency:?}");
        let seconds = api.record.last_at.as_secs_f64();
        assert!(seconds < 1.1 * LEAST_SECONDS, "{latency:?}: {seconds}");
    }
}

#[test]
fn on_a_slow_network_it_is_slower_and_not_refused() {
    let (outbox, api) = run(Duration::from_millis(400), None).unwrap();
    assert_eq!(outbox.sent, MESSAGES);
    check_messages(&api.record.messages);
    assert_eq!(api.record.refused, 0);
}

#[test]
fn beside_another_client_nothing_is_lost_and_no_refusal_ignored() {
    for seed in 0..20 {
        let latency = Duration::from_millis(seed * 5);
        let (outbox, api) = run(latency, Some(seed)).unwrap();
        assert_eq!(outbox.sent, MESSAGES);
        check_messages(&api.record.messages);
        assert!(api.record.refused > 0);
        assert_eq!(api.record.too_early, 0, "seed {seed}");
        // The other client takes a third of what is allowed, and up to as much of each chat.
        let seconds = api.record.last_at.as_secs_f64();
        assert!(seconds < 3.0 * LEAST_SECONDS, "seed {seed}: {seconds}");
    }
}
