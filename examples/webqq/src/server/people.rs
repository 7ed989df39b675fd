//! An account and the people around it. Only permanent facts are here; what changes with a login is
//! in `numbers`.

use super::wire::Place;

/// A QQ account, with all the people that it knows.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) number: u64,
    pub(crate) password: String,
    pub(crate) nick: String,
    pub(crate) people: Vec<Person>,
    pub(crate) friends: Vec<Friend>,
    pub(crate) groups: Vec<Group>,
    pub(crate) discussions: Vec<Discussion>,
}

/// A person, with the same name everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) name: &'static str,
    /// The QQ number, which never changes.
    pub(crate) number: u64,
    /// The nick in lists, where the real ones sometimes had null.
    pub(crate) nick: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) struct Friend {
    pub(crate) who: &'static str,
    /// The name that the account's owner gave them.
    pub(crate) markname: Option<&'static str>,
    /// The list contains the uin, but no other data.
    pub(crate) is_ghost: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// The group's number, which never changes.
    pub(crate) number: u64,
    pub(crate) members: Vec<Member>,
    /// Answers about some groups lack `cards`.
    pub(crate) has_cards: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) who: &'static str,
    /// The member's name in this group.
    pub(crate) card: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) struct Discussion {
    pub(crate) name: &'static str,
    pub(crate) members: Vec<&'static str>,
}

const PEOPLE: &[(&str, Option<&str>)] = &[
    ("Alice", Some("Alice")),
    ("Bob", Some("Bob")),
    ("Chen Wei", Some("陈伟")),
    ("Dora", Some("Dora")),
    ("Emil", None),
    ("Fatima", Some("Fatima")),
    ("Goran", Some("Goran")),
    ("Hana", Some("Hana")),
    ("Ivo", None),
    ("Judit", Some("Judit")),
    ("Kofi", Some("Kofi")),
    ("Mira", Some("Mira")),
    ("Nils", Some("Nils")),
];

impl Account {
    /// An account with five friends, two groups and a discussion. `password123` belongs to
    /// 1685359365.
    pub(crate) fn sample(number: u64) -> Self {
        let people = (10_001..).zip(PEOPLE);
        let people = people.map(|(k, &(name, nick))| Person {
            name,
            number: number.wrapping_mul(31) % 2_000_000_000 + k,
            nick,
        });
        Self {
            number,
            password: format!("password{:03}", number % 1011),
            nick: format!("bot {number}"),
            people: people.collect(),
            friends: sample_friends(),
            groups: sample_groups(number),
            discussions: vec![Discussion {
                name: "Lunch",
                members: vec!["Chen Wei", "Mira", "Nils"],
            }],
        }
    }

    /// Returns the friends' names.
    pub(crate) fn friends(&self) -> impl Iterator<Item = &'static str> {
        self.friends.iter().map(|friend| friend.who)
    }

    /// Returns the groups' names.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &'static str> {
        self.groups.iter().map(|group| group.name)
    }

    /// Returns the discussions' names.
    pub(crate) fn discussions(&self) -> impl Iterator<Item = &'static str> {
        self.discussions.iter().map(|discussion| discussion.name)
    }

    /// Returns who can speak at `place`. Friends are excluded from sessions, because they can write
    /// directly.
    pub(crate) fn speakers(&self, place: &Place) -> Vec<&'static str> {
        let mut group = Vec::new();
        if let Place::Group(name) | Place::Sess(name) = place {
            let members = self.group(name).map(|group| group.members.iter());
            group.extend(members.into_iter().flatten().map(|member| member.who));
        }
        match place {
            Place::Buddy => self.friends().collect(),
            Place::Group(_) => group,
            Place::Discu(name) => self
                .discussion(name)
                .map_or(Vec::new(), |d| d.members.clone()),
            Place::Sess(_) => {
                group.retain(|&who| !self.is_friend(who));
                group
            }
        }
    }

    pub(crate) fn can_speak(&self, place: &Place, who: &str) -> bool {
        self.speakers(place).contains(&who)
    }

    /// Returns everyone who can speak, with each of their places.
    pub(crate) fn places(&self) -> Vec<(Place, &'static str)> {
        let groups = self.groups().flat_map(|name| {
            let name = name.to_owned();
            [Place::Group(name.clone()), Place::Sess(name)]
        });
        let discussions = self.discussions().map(|name| Place::Discu(name.to_owned()));
        let places = [Place::Buddy].into_iter().chain(groups).chain(discussions);
        let pairs = places.flat_map(|place| {
            let speakers = self.speakers(&place);
            speakers.into_iter().map(move |who| (place.clone(), who))
        });
        pairs.collect()
    }

    /// Returns the name that a client can show for `who` at `place`, by the lists: card or markname
    /// take precedence over the nick.
    pub(crate) fn shown_name(&self, place: &Place, who: &str) -> Option<&'static str> {
        let nick = self.person(who)?.nick;
        match place {
            Place::Buddy => {
                let friend = self.friends.iter().find(|friend| friend.who == who)?;
                friend.markname.or(nick.filter(|_| !friend.is_ghost))
            }
            Place::Group(name) | Place::Sess(name) => {
                let group = self.group(name)?;
                let member = group.members.iter().find(|member| member.who == who)?;
                member.card.filter(|_| group.has_cards).or(nick)
            }
            Place::Discu(_) => nick,
        }
    }

    pub(crate) fn is_friend(&self, who: &str) -> bool {
        self.friends().any(|friend| friend == who)
    }

    pub(crate) fn person(&self, who: &str) -> Option<&Person> {
        self.people.iter().find(|person| person.name == who)
    }

    pub(crate) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    pub(crate) fn discussion(&self, name: &str) -> Option<&Discussion> {
        self.discussions
            .iter()
            .find(|discussion| discussion.name == name)
    }
}

fn sample_friends() -> Vec<Friend> {
    let mut friends = ["Alice", "Bob", "Chen Wei", "Dora", "Emil"].map(|who| Friend {
        who,
        markname: None,
        is_ghost: false,
    });
    friends[1].markname = Some("Bob from work");
    friends[3].is_ghost = true;
    friends.to_vec()
}

fn sample_groups(number: u64) -> Vec<Group> {
    let number = number.wrapping_mul(17) % 900_000_000;
    let rust = [
        ("Alice", None),
        ("Fatima", Some("Fatima, who knows")),
        ("Goran", None),
        ("Hana", Some("花")),
        ("Ivo", Some("Ivo")),
    ];
    let chess = ["Bob", "Goran", "Judit", "Kofi"];
    vec![
        Group {
            name: "Rustaceans",
            number: number + 1_000_001,
            members: rust.map(|(who, card)| Member { who, card }).to_vec(),
            has_cards: true,
        },
        Group {
            name: "Chess club",
            number: number + 1_000_002,
            members: chess.map(|who| Member { who, card: None }).to_vec(),
            has_cards: false,
        },
    ]
}
