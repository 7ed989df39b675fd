//! The people and groups that the bot can address. Uins are temporary: each login assigns new ones,
//! so anything that outlasts a login is stored by name.

use std::collections::HashMap;

use crate::answers::{From, Picture};

/// How much of a name is put in front of an answer, in characters.
const LONGEST_NAME: usize = 40;

/// The lists of one login.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    friends: HashMap<u64, Friend>,
    groups: HashMap<u64, Circle>,
    discus: HashMap<u64, Circle>,
}

#[derive(Clone, Debug, Default)]
struct Friend {
    name: String,
    /// The permanent account number.
    account: Option<u64>,
}

/// A group or a discussion, with its members' names by uin.
#[derive(Clone, Debug, Default)]
struct Circle {
    name: String,
    people: HashMap<u64, String>,
}

/// Where an answer goes, in the session's uins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Buddy { uin: u64 },
    Group { gid: u64 },
    Discu { did: u64 },
    Sess { gid: u64, uin: u64 },
}

/// Where an answer goes, valid across logins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// In the uins of login number `session`.
    seen: Address,
    session: u32,
    person: String,
    account: Option<u64>,
    circle: String,
}

impl Roster {
    pub(crate) fn add_friend(&mut self, uin: u64, name: String) {
        self.friends.insert(
            uin,
            Friend {
                name,
                account: None,
            },
        );
    }

    pub(crate) fn set_account(&mut self, uin: u64, account: u64) {
        if let Some(friend) = self.friends.get_mut(&uin) {
            friend.account = Some(account);
        }
    }

    pub(crate) fn add_group(&mut self, gid: u64, name: String) {
        self.groups.entry(gid).or_default().name = name;
    }

    pub(crate) fn set_members(&mut self, gid: u64, people: Vec<(u64, String)>) {
        self.groups.entry(gid).or_default().people = people.into_iter().collect();
    }

    pub(crate) fn add_discu(&mut self, did: u64, name: String) {
        self.discus.entry(did).or_default().name = name;
    }

    pub(crate) fn set_discu_people(&mut self, did: u64, people: Vec<(u64, String)>) {
        self.discus.entry(did).or_default().people = people.into_iter().collect();
    }

    /// The number of friends, groups and discussions.
    pub(crate) fn counts(&self) -> [usize; 3] {
        [self.friends.len(), self.groups.len(), self.discus.len()]
    }

    /// Returns the sender's name; empty for those in no list.
    pub(crate) fn speaker(&self, from: From) -> &str {
        let name = match from {
            From::Buddy { uin } => self.friends.get(&uin).map(|friend| &friend.name),
            From::Group { gid, uin } | From::Sess { gid, uin } => self
                .groups
                .get(&gid)
                .and_then(|group| group.people.get(&uin)),
            From::Discu { did, uin } => self
                .discus
                .get(&did)
                .and_then(|discu| discu.people.get(&uin)),
        };
        name.map_or("", String::as_str)
    }

    /// Returns the target of the answer to a message that arrived in login number `session`.
    pub(crate) fn target(&self, from: From, session: u32) -> Target {
        let circle = |circles: &HashMap<u64, Circle>, id| {
            circles
                .get(&id)
                .map(|circle: &Circle| circle.name.clone())
                .unwrap_or_default()
        };
        let (seen, account, circle) = match from {
            From::Buddy { uin } => {
                let account = self.friends.get(&uin).and_then(|friend| friend.account);
                (Address::Buddy { uin }, account, String::new())
            }
            From::Group { gid, .. } => (Address::Group { gid }, None, circle(&self.groups, gid)),
            From::Discu { did, .. } => (Address::Discu { did }, None, circle(&self.discus, did)),
            From::Sess { gid, uin } => {
                (Address::Sess { gid, uin }, None, circle(&self.groups, gid))
            }
        };
        Target {
            seen,
            session,
            person: self.speaker(from).to_owned(),
            account,
            circle,
        }
    }

    /// Returns the target's address in login number `session`, or `None` if no entry or more than
    /// one matches its name.
    pub(crate) fn address(&self, target: &Target, session: u32) -> Option<Address> {
        if target.session == session {
            return Some(target.seen);
        }
        let circle = |circles: &HashMap<u64, Circle>| -> Option<u64> {
            let names = circles.iter().map(|(id, circle)| (*id, &*circle.name));
            only_one(names, &target.circle)
        };
        Some(match target.seen {
            Address::Buddy { .. } => Address::Buddy {
                uin: self.friend(target)?,
            },
            Address::Group { .. } => Address::Group {
                gid: circle(&self.groups)?,
            },
            Address::Discu { .. } => Address::Discu {
                did: circle(&self.discus)?,
            },
            Address::Sess { .. } => {
                let gid = circle(&self.groups)?;
                let people = self.groups[&gid].people.iter();
                let names = people.map(|(uin, name)| (*uin, &**name));
                let uin = only_one(names, &target.person)?;
                Address::Sess { gid, uin }
            }
        })
    }

    /// Returns the picture of a message by `target`, in the uins of login number `session`.
    pub(crate) fn picture(&self, picture: &Picture, target: &Target, session: u32) -> Picture {
        let mut picture = picture.clone();
        if target.session == session {
            return picture;
        }
        match (&mut picture, self.address(target, session)) {
            (
                Picture::Offline { from_uin, .. },
                Some(Address::Buddy { uin } | Address::Sess { uin, .. }),
            ) => *from_uin = uin,
            (
                Picture::Group { gid, uin, .. },
                Some(Address::Group { gid: now } | Address::Discu { did: now }),
            ) => {
                *gid = now;
                let circle = self.groups.get(&now).or_else(|| self.discus.get(&now));
                let mut people = circle.into_iter().flat_map(|circle| &circle.people);
                if let Some((now, _)) = people.find(|(_, name)| **name == target.person) {
                    *uin = *now;
                }
            }
            // The server may recognize the old uin all the same.
            _ => {}
        }
        picture
    }

    /// Finds a friend by account, or by name if one of the two accounts is unknown.
    fn friend(&self, target: &Target) -> Option<u64> {
        let same_account =
            |friend: &Friend| target.account.is_some() && friend.account == target.account;
        let known = self
            .friends
            .iter()
            .find(|(_, friend)| same_account(friend))
            .map(|(uin, _)| *uin);
        let perhaps = self
            .friends
            .iter()
            .filter(|(_, friend)| target.account.is_none() || friend.account.is_none());
        let names = perhaps.map(|(uin, friend)| (*uin, &*friend.name));
        known.or_else(|| only_one(names, &target.person))
    }
}

/// Returns the only entry of that name. Names need not be unique and may be empty, and a message
/// for one person must not go to another.
fn only_one<'a>(names: impl Iterator<Item = (u64, &'a str)>, wanted: &str) -> Option<u64> {
    let mut found = names.filter(|(_, name)| !name.is_empty() && *name == wanted);
    let (number, _) = found.next()?;
    found.next().is_none().then_some(number)
}

impl Target {
    /// Describes the recipient and the place, for display.
    pub(crate) fn describe(&self) -> String {
        match self.seen {
            Address::Buddy { uin } => self.named(uin),
            Address::Group { .. } | Address::Discu { .. } => format!("[{}]", self.circle),
            Address::Sess { uin, .. } => format!("{} by [{}]", self.named(uin), self.circle),
        }
    }

    /// Describes the sender and the place, for display.
    pub(crate) fn speaker(&self) -> String {
        match self.seen {
            Address::Group { .. } | Address::Discu { .. } => {
                format!("{} in [{}]", self.person, self.circle)
            }
            Address::Buddy { .. } | Address::Sess { .. } => self.describe(),
        }
    }

    /// A ghost has no name, and is described by number.
    fn named(&self, uin: u64) -> String {
        match (&*self.person, self.account) {
            ("", Some(account)) => format!("account {account}"),
            ("", None) => format!("uin {uin}"),
            (name, _) => name.to_owned(),
        }
    }

    /// Returns the name that an answer in a group or discussion begins with.
    pub(crate) fn prefix(&self) -> String {
        match self.seen {
            Address::Group { .. } | Address::Discu { .. } if !self.person.is_empty() => {
                let name: String = self.person.chars().take(LONGEST_NAME).collect();
                format!("{name}: ")
            }
            _ => String::new(),
        }
    }
}
