//! What is sent.

use super::scripted::{Answer, Scripted};
use super::{get, run_with, same_as_curl};

/// Files that the command lines below refer to.
const FILES: &[(&str, &[u8])] = &[
    ("form", b"a=1\r\nb=2\n"),
    ("text", b"two words & \xc3\xbc\n"),
    ("json", b"{\n  \"a\": 1\n}\n"),
    ("fields", b"X-One: 1\n\nX-Two: 2\nAccept:\n"),
];

#[test]
fn requests_are_those_of_curl() {
    let server = Scripted::always(Answer::ok("fine"));
    let rows: &[&[&str]] = &[
        &[],
        &["-X", "PUT", "-d", "a"],
        &["-XDELETE"],
        &["--request", "PATCH", "-d", "a"],
        &["-d", "a=1", "-d", "b=2"],
        &["-d", ""],
        &["-d", "", "-d", "a"],
        &["-d", "@form"],
        &[
            "--data",
            "@form",
            "--data-raw",
            "@form",
            "--data-ascii",
            "c",
        ],
        &["--data-binary", "@form"],
        &["--data-urlencode", "two words & \u{fc}"],
        &[
            "--data-urlencode",
            "=a=b",
            "--data-urlencode",
            "n a=b=c~-._",
        ],
        &["--data-urlencode", "@text", "--data-urlencode", "name@text"],
        &["--json", "{\"a\": ", "--json", "1}"],
        &["--json", "@json"],
        &[
            "--json",
            "{}",
            "-H",
            "Accept: text/plain",
            "-H",
            "content-type: a/b",
        ],
        &["-G", "-d", "a=1", "-d", "b=2"],
        &["-G", "--data-urlencode", "a=x y&z"],
        &["-GI", "-d", "a"],
        &["-G", "-d", "a", "-X", "DELETE"],
        &["-H", "X-A: 1", "-H", "X-A:2", "-H", "X-B:  3 "],
        &["-H", "Accept:"],
        &["-H", "Accept: a/b"],
        &[
            "-H",
            "accept:",
            "-H",
            "User-Agent:",
            "-d",
            "a",
            "-H",
            "Content-Type:",
        ],
        &["-H", "X-Empty;"],
        &["-H", "@fields"],
        &["-H", "Host: other.test"],
        &["-A", "me/1.0"],
        &["-A", ""],
        &["-A", "me", "-H", "User-Agent: you"],
        &["-A", "", "-A", "me", "-e", "a", "-e", "b"],
        &["-A", "me", "-e", "a", "-H", "Referer:", "-H", "user-agent:"],
        &["-e", "http://here.test/", "-b", "a=1; b=2"],
        &["-b", "a=1; b=2;c"],
        &["-u", "user:pass:word"],
        &["-uuser:"],
        &["-u", "u:p", "-H", "Authorization: Bearer t"],
        &["-I"],
        &["-sIX", "OPTIONS"],
        &["--compressed", "-H", "X-A: 1"],
    ];
    for row in rows {
        for path in ["/a/b", "/q?z=1"] {
            let ran = same_as_curl(&server, FILES, &[*row, &[&*server.url(path)]].concat());
            // That it is compared with something.
            assert!(ran.only().target.starts_with(path), "{row:?}: {ran:?}");
            assert_eq!(ran.ended.code(), Some(0), "{row:?}: {ran:?}");
        }
    }
}

#[test]
fn a_query_is_encoded_where_curl_refuses_it() {
    let server = Scripted::always(Answer::ok("fine"));
    let ran = run_with(
        &server,
        &[],
        &["-G", "-d", "a b#c", &server.url("/q#there")],
    );
    assert_eq!(ran.lines(), ["GET /q?a%20b%23c"]);
}

#[test]
fn urls_are_read_as_by_curl() {
    let server = Scripted::always(Answer::ok("fine"));
    let addr = server.addr;
    for url in [
        format!("{addr}/x"),
        format!("{addr}"),
        format!("{addr}/to?url=http://a/"),
        format!("http://{addr}/a/../b/./c"),
        format!("http://{addr}/../../x/.."),
        format!("http://{addr}/a//..//b"),
        format!("http://{addr}/.hidden"),
        format!("http://{addr}/%2e%2e%2fx"),
        format!("http://{addr}/a?../b#c"),
        format!("http://user:p%40ss@{addr}/x"),
        format!("HTTP://{addr}/X"),
    ] {
        same_as_curl(&server, &[], &[&url]).only();
    }
    same_as_curl(
        &server,
        &[],
        &["--url", &server.url("/a"), &server.url("/b")],
    );
}

#[test]
fn what_is_asked_for_is_what_is_sent() {
    let server = Scripted::always(Answer::ok("fine"));
    let ran = run_with(
        &server,
        FILES,
        &["-sSd@form", "--data-urlencode", "c@text", &server.url("/")],
    );
    let seen = ran.only();
    assert_eq!(seen.body, b"a=1b=2&c=two+words+%26+%C3%BC%0A");
    let form = "application/x-www-form-urlencoded";
    assert_eq!(seen.all("content-type"), [form]);
    assert_eq!(seen.all("accept"), ["*/*"]);

    let ran = run_with(
        &server,
        &[],
        &["--json", "{}", "-u", "a:b", &server.url("/")],
    );
    let seen = ran.only();
    assert_eq!(seen.line(), "POST /");
    assert_eq!(seen.all("content-type"), ["application/json"]);
    assert_eq!(seen.all("accept"), ["application/json"]);
    assert_eq!(seen.all("authorization"), ["Basic YTpi"]);
}

#[test]
fn connections_are_kept_unless_they_are_to_be_closed() {
    let server = Scripted::always(Answer::ok("a"));
    let url = server.url("/");
    let ended = get(&["-w", "%{local_port} ", &url, &url]);
    let text = ended.text();
    let mut ports = text.split(' ').map(|part| part.trim_start_matches('a'));
    assert_eq!(ports.next(), ports.next(), "{text}");

    server.take();
    assert_eq!(get(&["--close", &url, &url]).code(), Some(0));
    let seen = server.take();
    assert_eq!(seen.len(), 2);
    assert!(
        seen.iter()
            .all(|it| it.field("connection") == Some("close"))
    );
}
