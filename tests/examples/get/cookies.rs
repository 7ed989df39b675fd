//! -b and -c.

use std::fs;

use super::scripted::{Answer, Scripted, Seen};
use super::{Ran, get, get_in, run_with, same_as_curl};
use crate::servers::TempDir;

/// Sets cookies at `/login`, and redirects to `/home`.
fn site(seen: &Seen) -> Answer {
    match &*seen.target {
        "/login" => Answer::new(
            "302 Found",
            &[
                "Location: /home",
                "Set-Cookie: session=7KXW; Path=/; HttpOnly",
                "Set-Cookie: until=late; Path=/; Expires=Wed, 01 Jan 2098 00:00:00 GMT",
                "Set-Cookie: short=1; Max-Age=0",
                "Set-Cookie: elsewhere=1; Path=/other",
                "Set-Cookie: foreign=1; Domain=example.com",
            ],
            "",
        ),
        _ => Answer::ok("home"),
    }
}

/// Returns the lines of cookies, sorted. Both programs limit lifetimes, in different ways, so the
/// time of expiry is replaced.
fn cookies(ran: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(ran).into_owned();
    let is_cookie = |line: &&str| line.split('\t').count() == 7;
    let shorten = |line: &str| {
        let mut fields: Vec<_> = line.split('\t').map(str::to_owned).collect();
        if fields[4] != "0" {
            fields[4] = "later".to_owned();
        }
        fields.join(" ")
    };
    let mut lines: Vec<_> = text.lines().filter(is_cookie).map(shorten).collect();
    lines.sort();
    lines
}

/// The cookies that `/login` leaves.
const LEFT: &[&str] = &[
    "#HttpOnly_127.0.0.1 FALSE / FALSE 0 session 7KXW",
    "127.0.0.1 FALSE / FALSE later until late",
    "127.0.0.1 FALSE /other FALSE 0 elsewhere 1",
];

fn cookies_sent(ran: &Ran) -> Vec<Option<&str>> {
    ran.seen.iter().map(|seen| seen.field("cookie")).collect()
}

#[test]
fn cookies_are_kept_on_the_way_if_there_is_a_jar() {
    let server = Scripted::start(|seen, _| site(seen));
    let url = server.url("/login");
    let kept = [None, Some("session=7KXW; until=late")];
    for (args, expected) in [
        (&["-L"][..], [None, None]),
        (&["-L", "-b", ""], kept),
        (&["-L", "-b", "no-such-file"], kept),
        (&["-L", "-c", "/dev/null"], kept),
        (&["-L", "-b", "a=b"], [Some("a=b"), Some("a=b")]),
    ] {
        let ran = same_as_curl(&server, &[], &[args, &[&*url]].concat());
        assert_eq!(cookies_sent(&ran), expected, "{args:?}");
    }
    let ran = run_with(&server, &[], &["-b", "a=1", "-bb=2", &server.url("/")]);
    assert_eq!(cookies_sent(&ran), [Some("a=1; b=2")]);
    // curl sends these last, and without a jar's rules.
    let ran = run_with(&server, &[], &["-L", "-b", "a=b; c=d", "-c", "-", &url]);
    let own = "a=b; c=d";
    let with_own = format!("{own}; session=7KXW; until=late");
    assert_eq!(cookies_sent(&ran), [Some(own), Some(&*with_own)]);
    assert_eq!(
        cookies(&ran.ended.stdout),
        LEFT,
        "the jar is that of the servers"
    );
}

#[test]
fn the_jar_is_read_and_written_as_by_curl() {
    let server = Scripted::start(|seen, _| site(seen));
    // Written by one, read by the other.
    let dirs = [TempDir::new(), TempDir::new()];
    let login = ["-L", "-c", "jar", &server.url("/login")];
    let home = ["-b", "jar", "-c", "jar", &server.url("/other/home")];
    assert_eq!(get_in(dirs[0].path(), &login).code(), Some(0));
    let Some(curl) = super::curl_in(dirs[1].path(), &login) else {
        return;
    };
    assert_eq!(curl.code(), Some(0));
    let jar = |dir: &TempDir| fs::read(dir.path().join("jar")).expect("a jar");
    for dir in &dirs {
        assert_eq!(cookies(&jar(dir)), LEFT);
    }
    server.take();
    assert_eq!(get_in(dirs[1].path(), &home).code(), Some(0));
    assert!(super::curl_in(dirs[0].path(), &home).is_some());
    for seen in server.take() {
        let mut sent: Vec<_> = seen
            .field("cookie")
            .unwrap_or_default()
            .split("; ")
            .collect();
        sent.sort_unstable();
        assert_eq!(sent, ["elsewhere=1", "session=7KXW", "until=late"]);
    }
    for dir in &dirs {
        assert_eq!(cookies(&jar(dir)), LEFT);
    }
}

#[test]
fn a_jar_is_written_after_a_failure_as_well() {
    let server = Scripted::start(|seen, _| match &*seen.target {
        "/login" => site(seen),
        _ => Answer::cut("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
    });
    let ran = run_with(&server, &[], &["-sLo", "x", "-cjar", &server.url("/login")]);
    assert_eq!(ran.ended.code(), Some(1));
    assert_eq!(cookies(ran.file("jar")), LEFT);
}

#[test]
fn cookies_of_the_command_line_give_way_to_those_of_the_server() {
    let server = Scripted::start(|seen, _| site(seen));
    let url = server.url("/login");
    let ran = run_with(&server, &[], &["-sLcjar", "-bsession=old", &url]);
    let expected = [Some("session=old"), Some("session=7KXW; until=late")];
    assert_eq!(cookies_sent(&ran), expected);
    assert_eq!(cookies(ran.file("jar")), LEFT);
}

#[test]
fn cookies_of_the_command_line_replace_none_of_the_file() {
    let server = Scripted::start(|seen, _| site(seen));
    let file = "127.0.0.1\tFALSE\t/\tFALSE\t0\ta\tS3CRET\n";
    let given = [("file", file.as_bytes())];
    let url = server.url("/");
    let both = ["-b", "b=2", "-b", "file", "-c", "jar", &url, &url];
    let ran = run_with(&server, &given, &both);
    for seen in &ran.seen {
        assert_eq!(seen.field("cookie"), Some("a=S3CRET; b=2"));
    }
    assert_eq!(ran.seen.len(), 2);
    assert_eq!(
        cookies(ran.file("jar")),
        ["127.0.0.1 FALSE / FALSE 0 a S3CRET"]
    );
    let ran = run_with(&server, &given, &["-b", "b=2; a=3", "-b", "file", &url]);
    assert_eq!((ran.ended.code(), ran.seen.len()), (Some(2), 0));
    let expected = "get: -b: cookie number 2: the file has another one of this name\n";
    assert!(ran.ended.stderr.starts_with(expected), "{ran:?}");
}

#[test]
fn a_jar_that_cannot_be_read_or_written_is_an_error() {
    let server = Scripted::start(|seen, _| site(seen));
    let url = server.url("/");
    let bad: &[(&str, &[u8])] = &[("bad", b"a\tb\tS3CRET\n")];
    let ran = run_with(&server, bad, &["-b", "bad", &url]);
    assert_eq!(ran.ended.code(), Some(2));
    let stderr = &ran.ended.stderr;
    assert!(stderr.starts_with("get: -b: bad: line 1: "), "{stderr}");
    assert!(!stderr.contains("S3CRET"), "{stderr}");
    assert_eq!(ran.seen, [], "nothing is sent");

    let ended = get(&["-s", "-S", "-c", "no/such/directory", &url]);
    assert_eq!(ended.code(), Some(1));
    assert!(
        ended.stderr.starts_with("get: -c no/such/directory: "),
        "{ended:?}"
    );
    let ended = get(&["-b", "a", "-b", "b", &url]);
    assert_eq!(ended.code(), Some(2));
    let ended = get(&["-b", "__Secure-a=S3CRET", "-c", "-", &url]);
    assert_eq!(ended.code(), Some(2));
    assert!(
        ended.stderr.starts_with("get: -b: cookie number 1: "),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("S3CRET"), "{ended:?}");
}
