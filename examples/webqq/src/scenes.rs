//! The scenes of the scripted conversation. Together they use every switch of the server.

use crate::expect::Expect;
use crate::outbox::Long;
use crate::script::{Deed, Line, Scene};
use crate::server::Fault::*;
use crate::server::{Fault, Place, Step};

/// From the login to the logout.
pub(crate) fn all(long: Long) -> Vec<Scene> {
    let mut scenes = logins();
    scenes.extend(talk(long));
    scenes.extend(polls());
    scenes.extend(lost_sessions());
    scenes.extend(sends());
    scenes.push(patience());
    let logout = Scene::new("the operator logs the bot out", vec![]);
    scenes.push(logout.deed(Deed::LogOut).ends_offline());
    scenes
}

/// Every step of the login fails before it works.
fn logins() -> Vec<Scene> {
    // Each login attempt meets the first remaining fault of the step that it has reached.
    let refused = [
        (Step::Sig, Empty),
        (Step::Sig, Status(503)),
        (Step::Sig, NoSig),
        (Step::Check, NoData),
        (Step::Check, Chunked),
        (Step::Check, Captcha),
        (Step::Captcha, Expired),
        (Step::Captcha, Drip),
        (Step::PtLogin, NoByte),
        (Step::PtLogin, Ptui(4)),
        (Step::PtLogin, Ptui(7)),
        (Step::PtLogin, Ptui(24)),
        (Step::PtLogin, Ptui(3)),
    ];
    let admitted = [
        (Step::CheckSig, Redirects(4)),
        (Step::Login2, Empty),
        (Step::Login2, Retcode(108)),
        (Step::CheckSig, SubdomainCookies),
        (Step::Friends, Retcode(100101)),
        (Step::Friends, Retcode(100000)),
        (Step::Groups, NotJson),
        (Step::Groups, TextPlain),
        (Step::Members, Drip),
    ];
    vec![
        Scene::new(
            "a login that fails at every step, and is finally refused",
            vec![],
        )
        .with(&refused)
        .deed(Deed::LogIn)
        .ends_offline(),
        Scene::new(
            "a login that fails at every later step, and finally succeeds",
            said_after(),
        )
        .with(&admitted)
        .deed(Deed::LogIn),
    ]
}

/// Every ability of the bot, in every kind of place.
fn talk(long: Long) -> Vec<Scene> {
    let group = |name: &str| Place::Group(name.to_owned());
    let sess = |name: &str| Place::Sess(name.to_owned());
    let lunch = Place::Discu("Lunch".to_owned());
    let exactly = |words: &str| Expect::Exactly(words.to_owned());
    let count: Vec<String> = (1..=200).map(|n| n.to_string()).collect();
    let count_to_200 = match long {
        Long::Split => Expect::Parts(count.join(" ")),
        Long::Cut => Expect::Cut(count.join(" ")),
    };
    let picture = |line: Line| Line {
        picture: true,
        ..line
    };
    vec![
        Scene::new(
            "friends, groups, a discussion and strangers",
            vec![
                buddy("Bob", "echo 你好, Bot", "你好, Bot"),
                Line::new(group("Rustaceans"), "Fatima", "ping", exactly("pong")),
                Line::new(
                    group("Chess club"),
                    "Judit",
                    "echo e4 e5 & more = 100%+",
                    exactly("e4 e5 & more = 100%+"),
                ),
                Line::new(lunch, "Mira", "ping", exactly("pong")),
                Line::new(sess("Rustaceans"), "Hana", "ping", exactly("pong")),
                Line::new(
                    group("Rustaceans"),
                    "Ivo",
                    "good morning, all",
                    Expect::Nothing,
                ),
            ],
        ),
        Scene::new(
            "plugins: some that work, one that crashes, one that fetches its answer",
            vec![
                Line::new(
                    Place::Buddy,
                    "Alice",
                    "uptime",
                    Expect::Begins("up for ".to_owned()),
                ),
                Line::new(
                    Place::Buddy,
                    "Alice",
                    "about",
                    Expect::Begins("a WebQQ bot on httpstream".to_owned()),
                ),
                Line::new(
                    Place::Buddy,
                    "Dora",
                    "help",
                    Expect::Begins("about, count N, ".to_owned()),
                ),
                buddy("Alice", "divide 42 6", "7"),
                buddy("Alice", "divide 1 0", "sorry: that plugin has crashed"),
                buddy("Alice", "divide one two", "sorry: two numbers, please"),
                buddy("Emil", "weather Shenzhen", "Shenzhen: sunny, 21 C"),
                buddy("Emil", "weather nowhere", "nobody knows that city"),
            ],
        ),
        Scene::new(
            "pictures, and an answer too long for one message",
            vec![
                picture(Line::new(
                    Place::Buddy,
                    "Chen Wei",
                    "look",
                    Expect::Begins("a picture of ".to_owned()),
                )),
                picture(Line::new(
                    group("Rustaceans"),
                    "Goran",
                    "look",
                    Expect::Begins("a picture of ".to_owned()),
                )),
                Line::new(Place::Buddy, "Alice", "count 200", count_to_200),
            ],
        ),
    ]
}

/// Every way in which a poll can be answered, or fail to be.
fn polls() -> Vec<Scene> {
    let one_by_one = [
        Chunked,
        UntilClose,
        TextPlain,
        Drip,
        NoByte,
        Reset,
        ResetInBody,
        CutShort,
        Empty,
        NotJson,
        Status(502),
        ShortHold,
        Twice,
        Retcode(102),
        Retcode(116),
        Retcode(103),
    ];
    let mut scenes: Vec<Scene> = one_by_one
        .into_iter()
        .map(|fault| strikes("a poll", Step::Poll, fault))
        .collect();
    let pair = vec![
        buddy("Alice", "ping", "pong"),
        buddy("Bob", "echo as well", "as well"),
    ];
    scenes.push(Scene::new("two messages in one poll", pair).with(&[(Step::Poll, Batch)]));
    scenes.push(
        Scene::new("another client polls at the same time", said_after()).deed(Deed::Intrude),
    );
    scenes
}

/// Every way in which a session ends.
fn lost_sessions() -> Vec<Scene> {
    let mut scenes: Vec<Scene> = [120, 121, 100006, 100, 108, 114, 100002]
        .map(|code| strikes("a session ends", Step::Poll, Retcode(code)))
        .into();
    let suspect = (Step::Poll, Retcode(103));
    scenes.push(Scene::new("three bad answers end a session", said_after()).with(&[suspect; 3]));
    for code in [109, 110] {
        let stopped = strikes(
            "the bot is told to stop, and later to log in",
            Step::Poll,
            Retcode(code),
        );
        scenes.push(stopped.afterwards(Deed::LogIn));
    }
    scenes.push(Scene::new("kicked", said_after()).deed(Deed::Kick));
    // These lists arrive after the login that requested them has ended, and name people by uins
    // that are no longer valid.
    for (late, whose) in [(Step::Friends, "friends"), (Step::Members, "members")] {
        let faults = [(Step::Login2, DropUins), (late, Late)];
        let title = format!("kicked, all uins change, and the list of {whose} arrives too late");
        scenes.push(Scene::new(&title, vec![]).with(&faults).deed(Deed::Kick));
    }
    // In a group or discussion an answer names its recipient, so a mixed-up list is noticed.
    let ping = |place, who| Line::new(place, who, "ping", Expect::Exactly("pong".to_owned()));
    let in_company = vec![
        buddy("Alice", "ping", "pong"),
        ping(Place::Group("Rustaceans".to_owned()), "Fatima"),
        ping(Place::Group("Chess club".to_owned()), "Judit"),
        ping(Place::Discu("Lunch".to_owned()), "Mira"),
    ];
    scenes.push(Scene::new("kicked again", in_company).deed(Deed::Kick));
    scenes
}

/// Every way in which a send can be answered.
fn sends() -> Vec<Scene> {
    let one_by_one = [
        Retcode(108),
        Retcode(8),
        Retcode(103),
        Retcode(1202),
        Retcode(100003),
        Retcode(100100),
        Retcode(100001),
        Retcode(100012),
        NoByte,
        Reset,
        CutShort,
        Empty,
        NotJson,
        Status(500),
    ];
    let mut scenes: Vec<Scene> = one_by_one
        .into_iter()
        .map(|fault| strikes("a send", Step::SendBuddy, fault))
        .collect();
    let stranger = Line::new(
        Place::Sess("Chess club".to_owned()),
        "Kofi",
        "ping",
        Expect::Exactly("pong".to_owned()),
    );
    let sig = (Step::SessSig, Retcode(100000));
    scenes.push(Scene::new("no signature for a stranger at first", vec![stranger]).with(&[sig]));
    scenes
}

/// Everything that takes long, at the same time.
fn patience() -> Scene {
    let faults = [
        (Step::Poll, Silence),
        (Step::Heartbeat, Status(500)),
        (Step::Heartbeat, NoByte),
        (Step::Heartbeat, Silence),
        (Step::Weather, Status(500)),
        (Step::Weather, Silence),
        (Step::Friends, CutShort),
        (Step::Friends, CutShort),
        (Step::Friends, CutShort),
    ];
    let lines = vec![buddy("Emil", "weather Harbin", "Harbin: sunny, 21 C")];
    Scene::new(
        "polls and heartbeats that are never answered, lists that cannot be refreshed",
        lines,
    )
    .with(&faults)
}

/// One fault, and a message after it.
fn strikes(what: &str, step: Step, fault: Fault) -> Scene {
    Scene::new(&format!("{what}: {}", fault.words()), said_after()).with(&[(step, fault)])
}

fn said_after() -> Vec<Line> {
    vec![buddy("Alice", "ping", "pong")]
}

fn buddy(who: &'static str, words: &str, answer: &str) -> Line {
    Line::new(Place::Buddy, who, words, Expect::Exactly(answer.to_owned()))
}
