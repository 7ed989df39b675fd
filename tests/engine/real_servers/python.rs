//! Sessions with a server in Python, `digest.py`, which implements what lighttpd does not: all
//! algorithms, nonces for one request, `nextnonce`, hashed user names, and several challenges.

use std::collections::BTreeMap;

use httpstream::Request;
use httpstream::session::{Auth, Jar, Session};

use super::{following, skip, storing};
use crate::common::Bench;
use crate::servers::PythonProgram;

const USER: &str = "Mufasa";
const PASSWORD: &str = "Circle of Life";

fn start() -> Option<PythonProgram> {
    PythonProgram::start(include_str!("digest.py"))
}

fn session(python: &PythonProgram, user: &str, password: &str) -> Session {
    let session = following().base(format!("http://{}/", python.addr));
    session.auth(Auth::digest(user, password)).build().unwrap()
}

/// Returns what the server has seen since the last time.
fn seen(bench: &mut Bench, python: &PythonProgram) -> Vec<String> {
    let log = Request::get(format!("http://{}/log", python.addr));
    let got = bench.fetch_ok(log.build().unwrap());
    got.text().lines().map(str::to_owned).collect()
}

#[test]
fn credentials_are_accepted_in_each_mode() {
    let Some(python) = start() else {
        return skip("python3");
    };
    // The mode, and the challenges that are answered for four requests one after another.
    #[rustfmt::skip]
    let rows = [
        ("md5", 1), ("md5-sess", 1),
        ("sha-256", 1), ("sha-256-sess", 1),
        ("sha-512-256", 1), ("sha-512-256-sess", 1),
        ("unnamed", 1), ("legacy", 1), ("either", 1),
        // Nonces for one request, or for three.
        ("once", 4), ("thrice", 2), ("thrice-unsaid", 2),
        // The server names the next nonce in time.
        ("next", 1), ("next-sess", 1),
        ("hashed", 1), ("utf-8", 1), ("commas", 1), ("several", 1),
    ];
    let mut bench = Bench::new();
    for (mode, challenges) in rows {
        let session = session(&python, USER, PASSWORD);
        let post = session.post(format!("{mode}/a?b=c,%22d%22")).body("text");
        let requests = [
            session.get(format!("{mode}/a")).build().unwrap(),
            post.build().unwrap(),
            session.head(format!("{mode}/")).build().unwrap(),
            session
                .delete(format!("{mode}/a;b=c/../d"))
                .build()
                .unwrap(),
        ];
        for request in requests {
            let got = bench.fetch_ok(request.clone());
            assert_eq!(
                got.status,
                200,
                "{mode} {}: {}",
                request.method(),
                got.text()
            );
            if request.body() == Some(b"text") {
                assert_eq!(got.text(), "POST text", "{mode}");
            }
        }
        let log = seen(&mut bench, &python);
        let accepted = log.iter().filter(|line| line.ends_with(" ok")).count();
        assert_eq!(
            (accepted, log.len()),
            (4, 4 + challenges),
            "{mode}: {log:#?}"
        );
        assert_eq!(log[0], format!("GET /{mode}/a 0 no credentials"));
        let refused = log[1..].iter().filter(|line| !line.ends_with(" ok"));
        assert!(
            refused.clone().all(|line| line.ends_with(" stale")),
            "{mode}: {log:#?}"
        );
        assert_eq!(session.stats().challenged as usize, challenges, "{mode}");
    }
    assert_eq!(bench.stats().opened, 1, "{:?}", bench.stats());
}

#[test]
fn names_and_passwords_of_any_letters_are_accepted() {
    let Some(python) = start() else {
        return skip("python3");
    };
    let users = [("J\u{e4}s\u{f8}n Doe", "Secret, or not?"), ("q\"u\\o", "")];
    let mut bench = Bench::new();
    for (user, password) in users {
        for mode in ["md5", "sha-512-256-sess", "hashed", "utf-8", "commas"] {
            let session = session(&python, user, password);
            let got = bench.fetch_ok(session.get(format!("{mode}/a")).build().unwrap());
            assert_eq!(got.status, 200, "{user} {mode}: {}", got.text());
        }
    }
}

#[test]
fn wrong_credentials_are_sent_once() {
    let Some(python) = start() else {
        return skip("python3");
    };
    let mut bench = Bench::new();
    let rows = [
        (USER, "wrong", "wrong response"),
        ("Scar", PASSWORD, "unknown user"),
    ];
    for (user, password, why) in rows {
        for mode in ["md5", "sha-256-sess", "legacy", "once", "hashed", "several"] {
            let session = session(&python, user, password);
            let post = session.post(format!("{mode}/a")).body("text");
            assert_eq!(bench.fetch_ok(post.build().unwrap()).status, 401, "{mode}");
            let log = seen(&mut bench, &python);
            let verdicts = ["no credentials", why].map(|why| format!("POST /{mode}/a 4 {why}"));
            assert_eq!(log, verdicts, "{mode}");
        }
    }
}

/// Each has a count of its own. If the nonce is used up, the request is challenged again, and in
/// the end has a nonce that no other request uses.
#[test]
fn many_requests_at_once_share_a_nonce() {
    const REQUESTS: usize = 50;
    let Some(python) = start() else {
        return skip("python3");
    };
    for mode in ["sha-256", "sha-256-sess", "next", "once"] {
        let session = session(&python, USER, PASSWORD);
        let mut bench = Bench::with(|config| config.max_connections_per_origin = 8);
        // One request learns the nonce; otherwise all of those that run at once are challenged.
        let first = bench.fetch_ok(session.get(format!("{mode}/first")).build().unwrap());
        assert_eq!(first.status, 200, "{mode}");
        for n in 0..REQUESTS {
            let post = session.post(format!("{mode}/{n}")).body(n.to_string());
            bench.submit(post.build().unwrap());
        }
        bench.replies(REQUESTS);
        let mut texts = bench.log.texts();
        let mut expected: Vec<_> = (0..REQUESTS).map(|n| format!("POST {n}")).collect();
        texts.sort();
        expected.sort();
        assert_eq!(texts, expected, "{mode}");
        bench.log.replies.clear();
        let log = seen(&mut bench, &python);
        assert!(
            !log.iter().any(|line| line.ends_with(" replay")),
            "{mode}: {log:#?}"
        );
        if mode.starts_with("sha") {
            assert_eq!(log.len(), 2 + REQUESTS, "{mode}: {log:#?}");
        } else {
            // Two attempts with a nonce that others are ahead with, and one with a nonce of its
            // own.
            let paths = (0..REQUESTS).map(|n| format!("POST /{mode}/{n} "));
            let attempts =
                paths.map(|path| log.iter().filter(|line| line.starts_with(&path)).count());
            assert!(attempts.clone().all(|n| n <= 3), "{mode}: {log:#?}");
        }
    }
}

#[test]
fn a_redirect_inside_a_protected_space_is_followed_with_credentials() {
    let Some(python) = start() else {
        return skip("python3");
    };
    let mut bench = Bench::new();
    for mode in ["sha-256", "next", "once"] {
        let session = session(&python, USER, PASSWORD);
        let target = format!("{mode}/start?to=/{mode}/end");
        let got = bench.fetch_ok(session.post(&target).body("text").build().unwrap());
        assert_eq!((got.status, got.text()), (200, "POST text"), "{mode}");
        let log = seen(&mut bench, &python);
        let mut expected = vec![
            format!("POST /{target} 4 no credentials"),
            format!("POST /{target} 4 ok"),
            format!("POST /{mode}/end 4 ok"),
        ];
        if mode == "once" {
            expected.insert(2, format!("POST /{mode}/end 4 stale"));
        }
        assert_eq!(log, expected);
    }
}

#[test]
fn values_of_cookies_come_back_as_they_were_set() {
    let Some(python) = start() else {
        return skip("python3");
    };
    // Python quotes and escapes what is no token, and undoes it when the cookie comes back.
    let values = [
        ("plain", "abc"),
        ("empty", ""),
        ("spaces", " a  b "),
        ("separators", "a;b,c=d"),
        ("quotes", "\"a\\\"b\""),
        ("letters", "\u{e4}\u{f8}"),
        ("line", "a\r\nb\t\0"),
        ("base64", "YQ==/+"),
    ];
    let jar = Jar::new();
    let session = storing(&jar);
    let mut bench = Bench::new();
    let url = format!("http://{}/cookies/", python.addr);
    let set = session.get(&url).query(values).build().unwrap();
    assert_eq!(bench.fetch_ok(set).text(), "{}");
    let got = bench.fetch_ok(session.get(&url).build().unwrap());
    let came: BTreeMap<String, String> = serde_json::from_slice(&got.body).unwrap();
    // `parse_qsl` leaves out empty values.
    let values = values.iter().filter(|(_, value)| !value.is_empty());
    let expected = values.map(|(name, value)| (name.to_string(), value.to_string()));
    assert_eq!(came, expected.collect());
    assert_eq!(jar.len(), came.len());
}
