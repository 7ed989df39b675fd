//! Polls: held, answered, delivered at least once; and how they end sessions.

use super::client::{json, retcode, texts};
use super::{Client, NUMBER, errors, online, seconds};
use crate::server::{Fault, Manner, Place, Reaction, Step, Wish};

fn say(client: &mut Client, text: &str) -> u64 {
    client
        .server
        .say(client.now, NUMBER, &Place::Buddy, "Alice", text, false)
}

/// Arms a fault for the next poll, and ends the held one.
fn arm(client: &mut Client, fault: Fault) {
    client.server.arm(NUMBER, Step::Poll, fault);
    client.after(60.0);
    assert_eq!(retcode(&client.news().unwrap()), 102);
}

#[test]
fn a_poll_is_held_for_its_time_and_no_longer() {
    let mut client = online();
    assert_eq!(client.server.next_wake(), Some(client.now + seconds(60.0)));
    client.after(59.9);
    assert!(client.news().is_none());
    client.after(0.1);
    assert_eq!(retcode(&client.news().unwrap()), 102);
    assert_eq!(client.server.next_wake(), None);
}

#[test]
fn a_message_answers_the_held_poll() {
    let mut client = online();
    assert_eq!(say(&mut client, "你好"), 1);
    assert_eq!(texts(&client.news().unwrap()), ["#1 你好"]);
    assert_eq!(client.server.ledger().messages[0].delivered, 1);
    client.hold_poll(); // on the same connection, which acknowledges the message
    assert!(client.news().is_none());
}

#[test]
fn what_waits_comes_newest_first() {
    let mut client = online();
    for text in ["a", "b", "c"] {
        say(&mut client, text);
    }
    assert_eq!(texts(&client.news().unwrap()), ["#1 a"]);
    assert_eq!(texts(&client.poll_answer()), ["#3 c", "#2 b"]);
}

#[test]
fn a_poll_on_another_connection_is_given_the_same_again() {
    let mut client = online();
    say(&mut client, "a");
    let first = client.news().unwrap();
    say(&mut client, "b");
    client.connection = 2;
    let second = client.poll_answer();
    assert_eq!(texts(&second), ["#2 b", "#1 a"]);
    assert_eq!(json(&second)["result"][1], json(&first)["result"][0]);
    assert_eq!(client.server.ledger().messages[0].delivered, 2);
}

#[test]
fn a_new_login_is_given_the_same_again_with_its_own_uins() {
    let mut client = online();
    say(&mut client, "a");
    let first = json(&client.news().unwrap())["result"][0]["value"].clone();
    client.log_in();
    let second = json(&client.poll_answer())["result"][0]["value"].clone();
    for field in ["msg_id", "msg_id2", "time", "content"] {
        assert_eq!(first[field], second[field], "{field}");
    }
    assert_ne!(first["from_uin"], second["from_uin"]);
}

#[test]
fn each_place_has_its_kind_of_message() {
    let mut client = online();
    let account = client.server.account(NUMBER).unwrap().clone();
    let group = || "Rustaceans".to_owned();
    let mut says = vec![(Place::Buddy, "Alice", "message", "offpic")];
    says.push((Place::Group(group()), "Hana", "group_message", "cface"));
    says.push((Place::Sess(group()), "Goran", "sess_message", "offpic"));
    says.push((
        Place::Discu("Lunch".into()),
        "Mira",
        "discu_message",
        "cface",
    ));
    for (place, who, kind, picture) in says {
        assert!(account.can_speak(&place, who));
        client
            .server
            .say(client.now, NUMBER, &place, who, "x", true);
        let answer = client.news().unwrap();
        let item = &json(&answer)["result"][0];
        assert_eq!(item["poll_type"], kind);
        assert_eq!(item["value"]["content"][2][0], picture);
        client.hold_poll();
    }
}

#[test]
fn a_destroyed_answer_delivers_nothing() {
    let destroying = [
        (Fault::NoByte, Manner::NoByte),
        (Fault::Reset, Manner::Reset),
        (Fault::ResetInBody, Manner::ResetInBody),
        (Fault::CutShort, Manner::CutShort),
        (Fault::Silence, Manner::Silence),
    ];
    for (fault, manner) in destroying {
        let mut client = online();
        arm(&mut client, fault);
        client.hold_poll();
        say(&mut client, "a");
        assert_eq!(client.news().unwrap().manner, manner);
        assert_eq!(client.server.ledger().messages[0].delivered, 0, "{fault:?}");
        assert_eq!(texts(&client.poll_answer()), ["#1 a"], "{fault:?}");
    }
    for fault in [Fault::Empty, Fault::NotJson, Fault::Status(502)] {
        let mut client = online();
        arm(&mut client, fault);
        say(&mut client, "a");
        assert_eq!(texts(&client.poll_answer()), [""; 0], "{fault:?}");
        assert_eq!(texts(&client.poll_answer()), ["#1 a"], "{fault:?}");
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_counts_as_received() {
    let mut client = online();
    arm(&mut client, Fault::UntilClose);
    client.hold_poll();
    say(&mut client, "a");
    assert_eq!(client.news().unwrap().manner, Manner::UntilClose);
    client.connection = 2;
    client.hold_poll();
    assert!(client.news().is_none());
}

#[test]
fn a_batch_waits_for_two_messages() {
    let mut client = online();
    arm(&mut client, Fault::Batch);
    client.hold_poll();
    say(&mut client, "a");
    assert!(client.news().is_none());
    say(&mut client, "b");
    assert_eq!(texts(&client.news().unwrap()), ["#2 b", "#1 a"]);
    assert_eq!(
        client.server.ledger().fired["poll: two messages in one answer"],
        1
    );
}

#[test]
fn a_batch_of_one_comes_at_the_holds_end_and_the_fault_waits() {
    let mut client = online();
    arm(&mut client, Fault::Batch);
    client.hold_poll();
    say(&mut client, "a");
    client.after(60.0);
    assert_eq!(texts(&client.news().unwrap()), ["#1 a"]);
    assert_eq!(client.server.armed(NUMBER), 1);
}

#[test]
fn twice_is_delivered_again_though_it_was_received() {
    let mut client = online();
    arm(&mut client, Fault::Twice);
    client.hold_poll();
    say(&mut client, "a");
    assert_eq!(texts(&client.news().unwrap()), ["#1 a"]);
    assert_eq!(texts(&client.poll_answer()), ["#1 a"]);
    client.hold_poll();
    assert!(client.news().is_none());
}

#[test]
fn a_held_poll_that_is_gone_gives_its_fault_to_the_next() {
    let mut client = online();
    arm(&mut client, Fault::NoByte);
    let hold = client.hold_poll();
    client.server.on_gone(client.now, hold);
    assert!(!client.server.is_waiting(NUMBER));
    assert_eq!(client.server.next_wake(), None);
    client.hold_poll();
    say(&mut client, "a");
    assert_eq!(client.news().unwrap().manner, Manner::NoByte);
    assert_eq!(errors(&client.server), []);
}

#[test]
fn a_second_poll_is_refused_and_the_first_goes_on() {
    let mut client = online();
    let hold = client.held.unwrap();
    assert_eq!(retcode(&client.poll_answer()), 121);
    assert_eq!(
        errors(&client.server),
        [("a second poll of one session", false)]
    );
    client.server.intrude(client.now, NUMBER);
    assert_eq!(client.server.ledger().fired["second poll refused"], 1);
    say(&mut client, "a");
    assert_eq!(client.server.take_ready()[0].0, hold);
}

#[test]
fn a_kick_ends_the_held_poll_and_a_relink_brings_the_bot_back() {
    let mut client = online();
    client.server.kick(client.now, NUMBER);
    let answer = client.news().unwrap();
    assert_eq!(json(&answer)["result"][0]["poll_type"], "kick_message");
    assert!(!client.server.is_online(NUMBER));
    assert_eq!(retcode(&client.poll_answer()), 121);
    assert_eq!(retcode(&client.login2()), 0);
    client.hold_poll();
    assert_eq!(
        errors(&client.server),
        [("a session that is not the present one", true)]
    );
}

#[test]
fn a_kick_between_polls_is_told_to_the_next() {
    let mut client = online();
    say(&mut client, "a");
    client.news();
    client.server.kick(client.now, NUMBER);
    let answer = client.poll_answer();
    assert_eq!(json(&answer)["result"][0]["poll_type"], "kick_message");
    assert_eq!(client.server.ledger().fired["kick"], 1);
    assert_eq!(errors(&client.server), []);
    client.login2();
    assert_eq!(
        texts(&client.poll_answer()),
        ["#1 a"],
        "the previous poll's session was over"
    );
}

#[test]
fn an_old_session_is_an_error_once_it_is_succeeded() {
    let mut client = online();
    let (alice, old) = (client.alice(), client.psessionid.clone());
    client.login2();
    assert_eq!(
        retcode(&client.news().unwrap()),
        121,
        "the held poll belongs to the old session"
    );
    let new = std::mem::replace(&mut client.psessionid, old);
    client.send_buddy(alice, "on its way");
    client.poll_answer();
    client.after(0.25).send_buddy(alice, "too late");
    client.psessionid = new;
    client.hold_poll();
    let provoked: Vec<bool> = errors(&client.server).iter().map(|&(_, p)| p).collect();
    assert_eq!(provoked, [true, false, false]);
}

#[test]
fn nobody_can_know_a_session_whose_login2_was_lost() {
    let mut client = online();
    client.server.arm(NUMBER, Step::Login2, Fault::NoByte);
    let old = client.psessionid.clone();
    client.login2();
    client.psessionid = old;
    assert_eq!(retcode(&client.poll_answer()), 121);
    client.login2();
    client.hold_poll();
    assert_eq!(
        errors(&client.server),
        [("a session that is not the present one", true)]
    );
}

#[test]
fn retcodes_end_the_session_or_the_login() {
    // The retcode, and the answers to a poll and a RELINK after it.
    for (code, poll, relink) in [
        (102, None, 0),
        (103, None, 0),
        (116, None, 103),
        (120, Some(121), 0),
        (121, Some(121), 0),
        (100_006, Some(121), 0),
        (100, Some(121), 103),
        (108, Some(121), 103),
        (114, Some(121), 103),
        (100_002, Some(121), 103),
        (109, Some(121), 0),
        (110, Some(121), 0),
    ] {
        let mut client = online();
        arm(&mut client, Fault::Retcode(code));
        assert_eq!(retcode(&client.poll_answer()), code);
        let next = client.poll();
        match (next, poll) {
            (Reaction::Hold(_), None) => {}
            (Reaction::Answer(answer), Some(code)) => assert_eq!(retcode(&answer), code),
            (other, _) => panic!("after {code}: {other:?}"),
        }
        assert_eq!(retcode(&client.login2()), relink, "after {code}");
        client.log_in();
        client.hold_poll();
    }
}

#[test]
fn the_third_103_in_a_row_ends_the_login() {
    let mut client = online();
    client.after(60.0).news();
    for _ in 0..3 {
        client.server.arm(NUMBER, Step::Poll, Fault::Retcode(103));
        assert_eq!(retcode(&client.poll_answer()), 103);
    }
    assert_eq!(
        client.server.ledger().fired["poll: retcode 103, three in a row"],
        1
    );
    assert_eq!(retcode(&client.login2()), 103);
    assert_eq!(
        errors(&client.server),
        [("ptwebqq is not the present one", true)]
    );
}

#[test]
fn after_116_the_new_ptwebqq_is_the_one() {
    let mut client = online();
    arm(&mut client, Fault::Retcode(116));
    let p = json(&client.poll_answer())["p"]
        .as_str()
        .unwrap()
        .to_owned();
    client.ptwebqq = p.clone();
    let kept = client
        .jar
        .iter_mut()
        .find(|kept| kept.name == "ptwebqq")
        .unwrap();
    kept.value = p;
    client.hold_poll();
    client.after(1.0).friends();
    assert_eq!(retcode(&client.login2()), 0);
    assert_eq!(errors(&client.server), []);
}

#[test]
fn who_has_logged_out_must_stop() {
    let mut client = online();
    arm(&mut client, Fault::Retcode(109));
    client.poll_answer();
    client.heartbeat(); // may have been in flight
    client.after(1.0).heartbeat();
    client.poll_answer();
    let provoked: Vec<bool> = errors(&client.server).iter().map(|&(_, p)| p).collect();
    assert_eq!(provoked, [true, false, false]);
    client.log_in();
    let logout = client.query("d.web2.qq.com", "/channel/logout2", "ids=");
    assert_eq!(retcode(&logout), 0);
    assert_eq!(client.server.ledger().logouts, 1);
}

#[test]
fn wishes_of_a_director_come_out_as_they_went_in() {
    let mut client = online();
    let wish = Wish::Login { account: NUMBER };
    client.server.wish(wish.clone());
    assert_eq!(client.server.take_wishes(), [wish]);
}
