//! The roster: people and groups in this login and in the next.

use crate::answers::From;
use crate::roster::{Address, Roster, Target};

/// A roster whose uins begin at `base`: every login assigns different ones.
fn roster(base: u64) -> Roster {
    let name = |name: &str| name.to_owned();
    let mut roster = Roster::default();
    roster.add_friend(base + 1, name("Alice"));
    roster.set_account(base + 1, 10_001);
    roster.add_friend(base + 2, name("Bob"));
    // Ghosts: one with a known account, and one without.
    roster.add_friend(base + 3, String::new());
    roster.set_account(base + 3, 10_003);
    roster.add_friend(base + 4, String::new());
    roster.add_group(base + 31, name("Rustaceans"));
    roster.set_members(
        base + 31,
        vec![
            (base + 1, name("Alice")),
            (base + 5, name("Fatima, who knows")),
            (base + 6, String::new()),
        ],
    );
    roster.add_group(base + 32, name("Chess club"));
    roster.set_members(base + 32, vec![(base + 5, name("Fatima"))]);
    roster.add_discu(base + 51, name("Lunch"));
    roster.set_discu_people(base + 51, vec![(base + 7, name("Mira"))]);
    roster
}

const OLD: u64 = 100;
const NEW: u64 = 900;

/// Returns who speaks, in the uins from `base` on, and where the answer goes.
fn voices(base: u64) -> Vec<(&'static str, From, Address)> {
    let (gid, did) = (base + 31, base + 51);
    #[rustfmt::skip]
    let voices = vec![
        ("a friend",                From::Buddy { uin: base + 1 },      Address::Buddy { uin: base + 1 }),
        ("a friend by name",        From::Buddy { uin: base + 2 },      Address::Buddy { uin: base + 2 }),
        ("a ghost by account",      From::Buddy { uin: base + 3 },      Address::Buddy { uin: base + 3 }),
        ("a member",                From::Group { gid, uin: base + 5 }, Address::Group { gid }),
        ("a member without name",   From::Group { gid, uin: base + 6 }, Address::Group { gid }),
        ("a new member",            From::Group { gid, uin: base + 9 }, Address::Group { gid }),
        ("somebody at lunch",       From::Discu { did, uin: base + 7 }, Address::Discu { did }),
        ("a member in private",     From::Sess { gid, uin: base + 5 },  Address::Sess { gid, uin: base + 5 }),
    ];
    voices
}

#[test]
fn an_answer_goes_where_the_message_came_from_in_the_same_login() {
    let roster = roster(OLD);
    for (who, from, expected) in voices(OLD) {
        let target = roster.target(from, 1);
        assert_eq!(roster.address(&target, 1), Some(expected), "{who}");
    }
    // The answer also reaches people who are in no list.
    for (from, expected) in [
        (From::Buddy { uin: 7 }, Address::Buddy { uin: 7 }),
        (From::Group { gid: 8, uin: 7 }, Address::Group { gid: 8 }),
        (
            From::Sess { gid: 8, uin: 7 },
            Address::Sess { gid: 8, uin: 7 },
        ),
    ] {
        let target = roster.target(from, 1);
        assert_eq!(roster.address(&target, 1), Some(expected), "{from:?}");
    }
}

#[test]
fn after_a_login_it_goes_to_the_same_people_under_their_new_uins() {
    let (old, new) = (roster(OLD), roster(NEW));
    for ((who, from, _), (_, _, expected)) in voices(OLD).into_iter().zip(voices(NEW)) {
        let target = old.target(from, 1);
        assert_eq!(new.address(&target, 2), Some(expected), "{who}");
    }
}

#[test]
fn it_goes_to_nobody_rather_than_to_somebody_else() {
    let (old, new) = (roster(OLD), roster(NEW));
    let gid = OLD + 31;
    for (who, from) in [
        ("a ghost without account", From::Buddy { uin: OLD + 4 }),
        ("somebody in no list", From::Buddy { uin: 7 }),
        (
            "a group that was in no list",
            From::Group { gid: 8, uin: 7 },
        ),
        (
            "a discussion that was in no list",
            From::Discu { did: 8, uin: 7 },
        ),
        ("a member without name", From::Sess { gid, uin: OLD + 6 }),
        (
            "somebody in no list, in private",
            From::Sess { gid, uin: 7 },
        ),
    ] {
        let target = old.target(from, 1);
        assert_eq!(new.address(&target, 2), None, "{who}");
    }
    for (who, from, _) in voices(OLD) {
        let target = old.target(from, 1);
        assert_eq!(Roster::default().address(&target, 2), None, "{who}");
    }
}

#[test]
fn what_has_no_name_is_not_what_had_none_before() {
    let old = roster(OLD);
    let mut new = roster(NEW);
    // The name has not arrived, or is empty.
    new.set_members(NEW + 39, vec![(NEW + 7, "Mira".to_owned())]);
    new.set_discu_people(NEW + 59, vec![(NEW + 7, "Mira".to_owned())]);
    for from in [
        From::Group { gid: 8, uin: 7 },
        From::Discu { did: 8, uin: 7 },
        From::Sess { gid: 8, uin: 7 },
    ] {
        let target = old.target(from, 1);
        assert_eq!(new.address(&target, 2), None, "{from:?}");
    }
}

#[test]
fn of_two_people_with_one_name_neither_is_told_what_is_for_the_other() {
    let old = roster(OLD);
    let mut new = roster(NEW);
    new.add_friend(NEW + 8, "Bob".to_owned());
    new.add_group(NEW + 33, "Chess club".to_owned());
    let members = [
        (NEW + 5, "Fatima, who knows"),
        (NEW + 8, "Fatima, who knows"),
    ];
    let members = members.map(|(uin, name)| (uin, name.to_owned()));
    new.set_members(NEW + 31, members.to_vec());
    for from in [
        From::Buddy { uin: OLD + 2 },
        From::Group {
            gid: OLD + 32,
            uin: OLD + 5,
        },
        From::Sess {
            gid: OLD + 31,
            uin: OLD + 5,
        },
    ] {
        let target = old.target(from, 1);
        assert_eq!(new.address(&target, 2), None, "{from:?}");
    }
}

#[test]
fn an_account_is_worth_more_than_a_name() {
    let friend = |uin: u64, name: &str, account: Option<u64>| {
        let mut roster = Roster::default();
        roster.add_friend(uin, name.to_owned());
        if let Some(account) = account {
            roster.set_account(uin, account);
        }
        roster
    };
    #[rustfmt::skip]
    let rows = [
        ("the same account under another name", Some(1), "Alice", Some(1), "Al",    true),
        ("another account under the same name", Some(1), "Alice", Some(2), "Alice", false),
        ("a name, where no account was known",  None,    "Alice", Some(1), "Alice", true),
        ("a name, where no account is known now", Some(1), "Alice", None,    "Alice", true),
        ("a name, where no account was ever known", None,    "Alice", None,    "Alice", true),
        ("neither account nor name",            None,    "",      None,    "",      false),
        ("an account, and no name now",         Some(1), "",      None,    "",      false),
    ];
    for (why, account, name, new_account, new_name, found) in rows {
        let target = friend(11, name, account).target(From::Buddy { uin: 11 }, 1);
        let address = friend(21, new_name, new_account).address(&target, 2);
        let expected = found.then_some(Address::Buddy { uin: 21 });
        assert_eq!(address, expected, "{why}");
    }
}

#[test]
fn a_refreshed_list_replaces_who_was_in_it() {
    let mut roster = roster(OLD);
    roster.set_members(OLD + 31, vec![(OLD + 8, "Goran".to_owned())]);
    let speaker = |uin| {
        roster
            .speaker(From::Group { gid: OLD + 31, uin })
            .to_owned()
    };
    assert_eq!(speaker(OLD + 5), "");
    assert_eq!(speaker(OLD + 8), "Goran");
    assert_eq!(roster.counts(), [4, 2, 1]);
}

#[test]
fn members_come_before_or_after_their_groups_name() {
    let mut roster = Roster::default();
    roster.set_members(31, vec![(5, "Fatima".to_owned())]);
    roster.add_group(31, "Chess club".to_owned());
    let target = roster.target(From::Group { gid: 31, uin: 5 }, 1);
    assert_eq!(target.speaker(), "Fatima in [Chess club]");
    // A group member who is not a friend has no account to be stored.
    roster.set_account(5, 10_005);
    assert_eq!(roster.counts(), [0, 1, 0]);
}

#[test]
fn people_are_called_as_they_are_called_there() {
    let roster = roster(OLD);
    let show = |target: &Target| [target.describe(), target.speaker(), target.prefix()];
    let gid = OLD + 31;
    #[rustfmt::skip]
    let rows = [
        (From::Buddy { uin: OLD + 1 },              ["Alice", "Alice", ""]),
        (From::Buddy { uin: OLD + 3 },              ["account 10003", "account 10003", ""]),
        (From::Buddy { uin: OLD + 4 },              ["uin 104", "uin 104", ""]),
        (From::Buddy { uin: 7 },                    ["uin 7", "uin 7", ""]),
        (From::Group { gid, uin: OLD + 5 },         ["[Rustaceans]", "Fatima, who knows in [Rustaceans]", "Fatima, who knows: "]),
        (From::Group { gid: OLD + 32, uin: OLD + 5 }, ["[Chess club]", "Fatima in [Chess club]", "Fatima: "]),
        (From::Group { gid, uin: OLD + 6 },         ["[Rustaceans]", " in [Rustaceans]", ""]),
        (From::Discu { did: OLD + 51, uin: OLD + 7 }, ["[Lunch]", "Mira in [Lunch]", "Mira: "]),
        (From::Sess { gid, uin: OLD + 5 },          ["Fatima, who knows by [Rustaceans]", "Fatima, who knows by [Rustaceans]", ""]),
        (From::Sess { gid, uin: 7 },                ["uin 7 by [Rustaceans]", "uin 7 by [Rustaceans]", ""]),
    ];
    for (from, expected) in rows {
        assert_eq!(show(&roster.target(from, 1)), expected, "{from:?}");
    }
}
