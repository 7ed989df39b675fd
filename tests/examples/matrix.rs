//! The example `matrix` against simulated servers: that of the name, that of the rooms, and one
//! that should learn nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Engine, Sim};
use serde_json::{Value, json};

use super::bots::matrix::Bot;

/// What the servers answer and what they are asked.
pub(crate) struct Case {
    pub(crate) why: &'static str,
    /// The answers to the requests of a kind, in order. Others succeed, except that a sync is
    /// refused, which ends the bot, and that an old token is refused.
    answers: fn() -> Vec<(&'static str, Answer)>,
    /// The second of the arrival, method, target, token and body of each request, without what all
    /// have in common.
    requests: &'static [&'static str],
}

#[rustfmt::skip]
pub(crate) const CASES: &[Case] = &[
    Case {
        why: "invitations are accepted, and messages are answered if they are new, by others and by persons",
        answers: || vec![
            ("sync", news("a", &["!new:matrix.test"], &[("$0", "ann", "m.text")])),
            ("sync", news("b", &[], &[
                ("$1/x", "ann", "m.text"),
                ("$2", "bot", "m.text"),
                ("$3", "other bot", "m.notice"),
            ]).after(secs(5))),
        ],
        requests: &[
            "0 GET name.test/.well-known/matrix/client",
            "0 POST login LOGIN",
            "0 GET sync?timeout=30000 token-1",
            "0 POST join/%21new%3Amatrix.test token-1 {}",
            "0 GET sync?since=a&timeout=30000 token-1",
            r#"5 PUT rooms/%21room%3Amatrix.test/send/m.room.message/%241%2Fx token-1 {"body":"You said: hi","msgtype":"m.notice"}"#,
            "5 GET sync?since=b&timeout=30000 token-1",
        ],
    },
    Case {
        why: "the homeserver is found behind redirects to other hosts",
        answers: || vec![
            ("client", moved(301, "https://other.test/a")),
            ("a", moved(308, "/b")),
            ("b", Answer::ok(r#"{"m.homeserver":{"base_url":"https://matrix.test/"}}"#)),
        ],
        requests: &[
            "0 GET name.test/.well-known/matrix/client",
            "0 GET other.test/a",
            "0 GET other.test/b",
            "0 POST login LOGIN",
            "0 GET sync?timeout=30000 token-1",
        ],
    },
    Case {
        why: "the homeserver is not looked for without TLS",
        answers: || vec![("client", moved(302, "http://other.test/a"))],
        requests: &["0 GET name.test/.well-known/matrix/client"],
    },
    Case {
        why: "a homeserver without TLS is not used",
        answers: || vec![("client", Answer::ok(r#"{"m.homeserver":{"base_url":"http://matrix.test"}}"#))],
        requests: &["0 GET name.test/.well-known/matrix/client"],
    },
    Case {
        why: "too many redirects lead nowhere",
        answers: || vec![
            ("client", moved(302, "/a")), ("a", moved(302, "/a")), ("a", moved(302, "/a")),
            ("a", moved(302, "/a")), ("a", moved(302, "/a")), ("a", moved(302, "/a")),
        ],
        requests: &[
            "0 GET name.test/.well-known/matrix/client",
            "0 GET name.test/a",
            "0 GET name.test/a",
            "0 GET name.test/a",
            "0 GET name.test/a",
            "0 GET name.test/a",
        ],
    },
    Case {
        why: "redirects within the homeserver are followed, with credentials and body",
        answers: || vec![
            ("login", moved(308, "/hs/login")),
            ("/hs/login", logged_in(1)),
            ("sync", moved(307, "/hs/sync?timeout=30000")),
            ("/hs/sync", news("a", &["!new:matrix.test"], &[])),
            ("join", moved(303, "/hs/joined")),
        ],
        requests: &[
            "0 GET name.test/.well-known/matrix/client",
            "0 POST login LOGIN",
            "0 POST matrix.test/hs/login LOGIN",
            "0 GET sync?timeout=30000 token-1",
            "0 GET matrix.test/hs/sync?timeout=30000 token-1",
            "0 POST join/%21new%3Amatrix.test token-1 {}",
            "0 GET matrix.test/hs/joined token-1",
            "0 GET sync?since=a&timeout=30000 token-1",
        ],
    },
    Case {
        why: "neither password nor token leaves the homeserver: login",
        answers: || vec![("login", moved(308, "https://other.test/login"))],
        requests: &["0 GET name.test/.well-known/matrix/client", "0 POST login LOGIN"],
    },
    Case {
        why: "neither password nor token leaves the homeserver: sync",
        answers: || vec![("sync", moved(307, "https://other.test/sync"))],
        requests: &[
            "0 GET name.test/.well-known/matrix/client",
            "0 POST login LOGIN",
            "0 GET sync?timeout=30000 token-1",
        ],
    },
    Case {
        why: "a wrong password ends the bot",
        answers: || vec![("login", refused(403, "M_FORBIDDEN"))],
        requests: &["0 GET name.test/.well-known/matrix/client", "0 POST login LOGIN"],
    },
    Case {
        why: "a login is tried again when the server allows it or has recovered",
        answers: || vec![
            ("client", Answer::status(502)),
            ("login", refused(429, "M_LIMIT_EXCEEDED").header("Retry-After", "100")),
            ("login", Answer::status(503)),
            ("login", Answer::nothing().close()),
        ],
        requests: &[
            "0 GET name.test/.well-known/matrix/client",
            "2 GET name.test/.well-known/matrix/client",
            "2 POST login LOGIN",
            "102 POST login LOGIN",
            "106 POST login LOGIN",
            "106 POST login LOGIN",
            "106 GET sync?timeout=30000 token-1",
        ],
    },
    Case {
        why: "a sync goes on where it was after failures",
        answers: || vec![
            ("sync", news("a", &[], &[])),
            ("sync", Answer::status(502)),
            ("sync", Answer::status(504)),
        ],
        requests: &[
            "0 GET name.test/.well-known/matrix/client",
            "0 POST login LOGIN",
            "0 GET sync?timeout=30000 token-1",
            "0 GET sync?since=a&timeout=30000 token-1",
            "2 GET sync?since=a&timeout=30000 token-1",
            "6 GET sync?since=a&timeout=30000 token-1",
        ],
    },
    Case {
        why: "an answer waits as long as the server asks, and is the same after a failure",
        answers: || vec![
            ("sync", news("a", &[], &[])),
            ("sync", news("b", &[], &[("$1", "ann", "m.text")])),
            ("send", refused(429, "M_LIMIT_EXCEEDED").header("Retry-After", "5")),
            ("send", Answer::nothing().close()),
        ],
        requests: &[
            "0 GET name.test/.well-known/matrix/client",
            "0 POST login LOGIN",
            "0 GET sync?timeout=30000 token-1",
            "0 GET sync?since=a&timeout=30000 token-1",
            r#"0 PUT rooms/%21room%3Amatrix.test/send/m.room.message/%241 token-1 {"body":"You said: hi","msgtype":"m.notice"}"#,
            "0 GET sync?since=b&timeout=30000 token-1",
            r#"5 PUT rooms/%21room%3Amatrix.test/send/m.room.message/%241 token-1 {"body":"You said: hi","msgtype":"m.notice"}"#,
            r#"5 PUT rooms/%21room%3Amatrix.test/send/m.room.message/%241 token-1 {"body":"You said: hi","msgtype":"m.notice"}"#,
        ],
    },
    Case {
        why: "a login that ends while the sync waits takes everything along, and the next one resumes",
        answers: || vec![
            ("sync", news("a", &[], &[])),
            ("sync", news("b", &[], &[("$1", "ann", "m.text")])),
            ("send", refused(429, "M_LIMIT_EXCEEDED").header("Retry-After", "8")),
            ("sync", refused(401, "M_UNKNOWN_TOKEN").after(secs(5))),
        ],
        requests: &[
            "0 GET name.test/.well-known/matrix/client",
            "0 POST login LOGIN",
            "0 GET sync?timeout=30000 token-1",
            "0 GET sync?since=a&timeout=30000 token-1",
            r#"0 PUT rooms/%21room%3Amatrix.test/send/m.room.message/%241 token-1 {"body":"You said: hi","msgtype":"m.notice"}"#,
            "0 GET sync?since=b&timeout=30000 token-1",
            "5 POST login LOGIN",
            r#"5 PUT rooms/%21room%3Amatrix.test/send/m.room.message/%241 token-2 {"body":"You said: hi","msgtype":"m.notice"}"#,
            "5 GET sync?since=b&timeout=30000 token-2",
        ],
    },
    Case {
        why: "whichever chain notices the end logs in, and only that one",
        answers: || vec![
            ("sync", news("a", &[], &[])),
            ("sync", news("b", &["!new:matrix.test"], &[("$1", "ann", "m.text")])),
            ("send", refused(401, "M_UNKNOWN_TOKEN").after(secs(5))),
            ("join", refused(401, "M_UNKNOWN_TOKEN").after(secs(5))),
        ],
        requests: &[
            "0 GET name.test/.well-known/matrix/client",
            "0 POST login LOGIN",
            "0 GET sync?timeout=30000 token-1",
            "0 GET sync?since=a&timeout=30000 token-1",
            "0 POST join/%21new%3Amatrix.test token-1 {}",
            r#"0 PUT rooms/%21room%3Amatrix.test/send/m.room.message/%241 token-1 {"body":"You said: hi","msgtype":"m.notice"}"#,
            "0 GET sync?since=b&timeout=30000 token-1",
            "5 POST login LOGIN",
            "5 POST join/%21new%3Amatrix.test token-2 {}",
            r#"5 PUT rooms/%21room%3Amatrix.test/send/m.room.message/%241 token-2 {"body":"You said: hi","msgtype":"m.notice"}"#,
            "5 GET sync?since=b&timeout=30000 token-2",
        ],
    },
    Case {
        why: "a room that refuses an answer, or whose id is no path segment, concerns no other",
        answers: || vec![
            ("sync", news("a", &["..", "!new:matrix.test"], &[])),
            ("join", refused(403, "M_FORBIDDEN")),
            ("sync", news("b", &[], &[]).after(secs(1))),
        ],
        requests: &[
            "0 GET name.test/.well-known/matrix/client",
            "0 POST login LOGIN",
            "0 GET sync?timeout=30000 token-1",
            "0 POST join/%21new%3Amatrix.test token-1 {}",
            "0 GET sync?since=a&timeout=30000 token-1",
            "1 GET sync?since=b&timeout=30000 token-1",
        ],
    },
];

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn moved(status: u16, to: &str) -> Answer {
    Answer::status(status).header("Location", to)
}

fn refused(status: u16, errcode: &str) -> Answer {
    Answer::status(status).body(json!({"errcode": errcode, "error": "no"}).to_string())
}

fn logged_in(login: u32) -> Answer {
    let token = format!("token-{login}");
    Answer::ok(json!({"access_token": token, "user_id": "bot"}).to_string())
}

/// News up to `next`: rooms with an invitation, and messages in another room by id, sender and
/// type.
fn news(next: &str, invites: &[&str], messages: &[(&str, &str, &str)]) -> Answer {
    let invites: BTreeMap<_, _> = invites.iter().map(|room| (room, json!({}))).collect();
    let event = |(id, sender, kind): &(&str, &str, &str)| {
        let content = json!({"msgtype": kind, "body": "hi"});
        json!({"type": "m.room.message", "event_id": id, "sender": sender, "content": content})
    };
    let events: Value = messages.iter().map(event).collect();
    let joined = json!({"!room:matrix.test": {"timeline": {"events": events}}});
    let rooms = json!({"invite": invites, "join": joined});
    Answer::ok(json!({"next_batch": next, "rooms": rooms}).to_string())
}

/// Which of a case's answers a request gets.
fn kind(request: &Incoming) -> &str {
    let path = request.path();
    match path.strip_prefix("/_matrix/client/v3/") {
        Some(path) if path.starts_with("rooms/") => "send",
        Some(path) => path.split('/').next().unwrap_or_default(),
        None if path.starts_with("/hs/") => path,
        None => path.rsplit('/').next().unwrap_or_default(),
    }
}

/// The server of a case, under all names.
fn server(case: &Case) -> impl FnMut(&Incoming) -> Answer + use<> {
    let mut answers = BTreeMap::<_, VecDeque<_>>::new();
    for (kind, answer) in (case.answers)() {
        answers.entry(kind).or_default().push_back(answer);
    }
    let mut logins = 0;
    move |request| {
        if let Some(answer) = answers.get_mut(kind(request)).and_then(VecDeque::pop_front) {
            return answer;
        }
        match kind(request) {
            "client" => Answer::ok(r#"{"m.homeserver":{"base_url":"https://matrix.test"}}"#),
            "login" => {
                logins += 1;
                logged_in(logins)
            }
            "sync" => refused(403, "M_FORBIDDEN").after(secs(20)),
            _ => Answer::ok("{}"),
        }
    }
}

/// Returns a request as a case writes it. Panics if it has a credential that it should not have.
fn shown(request: &Incoming) -> String {
    const LOGIN: &str = r#"{"device_id":"HTTPSTREAM","identifier":{"type":"m.id.user","user":"bot"},"password":"s3cret","type":"m.login.password"}"#;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let url = request.header("Host").map(text).unwrap_or_default() + &request.target;
    let is_api = url.starts_with("matrix.test/");
    let url = url.trim_start_matches("matrix.test/_matrix/client/v3/");
    let token = request
        .header("Authorization")
        .map(text)
        .unwrap_or_default();
    let body = text(request.body()).replace(LOGIN, "LOGIN");
    assert!(is_api || token.is_empty() && body.is_empty(), "{url}");
    assert_eq!(
        body.is_empty(),
        request.header("Content-Type").is_none(),
        "{url}"
    );
    let (at, token) = (request.at.as_secs(), token.replace("Bearer ", ""));
    let parts = [&format!("{at} {}", request.method), url, &token, &body];
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(" ")
}

/// Runs the bot against the servers of a case, and returns the requests.
pub(crate) fn requests_of(case: &Case) -> Vec<String> {
    let network = Network::new(1);
    let servers = std::rc::Rc::new(std::cell::RefCell::new(server(case)));
    for (n, name) in (1..).zip(["name.test", "matrix.test", "other.test"]) {
        network.host(name, [[10, 0, 0, n]]);
        for port in [80, 443] {
            let server = servers.clone();
            let serve = move |request: &Incoming| server.borrow_mut()(request);
            network.serve(([10, 0, 0, n], port).into(), serve);
        }
    }
    let mut bot = Bot::new("name.test", "bot", "s3cret").unwrap();
    let mut engine = Engine::<_, Sim>::on_network(&network, Config::default()).unwrap();
    engine.call(Bot::start);
    engine.run(&mut bot).unwrap();
    assert!(network.misuses().is_empty(), "{}", case.why);
    network.ledger().requests().map(shown).collect()
}

#[test]
fn the_servers_are_asked_what_they_should_be() {
    for case in CASES {
        assert_eq!(requests_of(case), case.requests, "{}", case.why);
    }
}
