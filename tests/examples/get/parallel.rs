//! Several URLs, one after the other or at once.

use std::time::Duration;

use super::scripted::{Answer, Scripted};
use super::{get, run_with, same_as_curl};

/// A body of its target's letter, in pieces, so that bodies sent at once would mix.
fn slowly() -> Scripted {
    Scripted::start(|seen, _| {
        let letter = seen.target.trim_start_matches('/');
        Answer::default()
            .then("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
            .repeated(20, Duration::from_millis(10), letter)
    })
}

#[test]
fn urls_are_fetched_in_order_over_one_connection_as_by_curl() {
    let server = Scripted::start(|seen, _| Answer::ok(&seen.target));
    let urls: Vec<_> = (0..20).map(|n| server.url(&format!("/{n}"))).collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let ran = same_as_curl(&server, &[], &urls);
    let expected: Vec<_> = (0..20).map(|n| format!("GET /{n}")).collect();
    assert_eq!(ran.lines(), expected);
    assert_eq!(server.most_connections(), 1);
}

#[test]
fn no_more_urls_are_fetched_at_once_than_wanted() {
    let urls = |server: &Scripted| (0..12).map(|_| server.url("/x")).collect::<Vec<_>>();
    for (args, expected) in [
        (&[][..], 1),
        (&["-Z", "--parallel-max", "3"], 3),
        (&["--parallel-max", "3"], 1),
        (&["-Z", "--connections", "5"], 5),
        (&["-Z"], 12),
    ] {
        let server = slowly();
        let urls = urls(&server);
        let urls: Vec<_> = urls.iter().map(String::as_str).collect();
        let ended = get(&[args, &*urls].concat());
        assert_eq!(ended.code(), Some(0), "{args:?}");
        assert_eq!(server.most_connections(), expected, "{args:?}");
        assert!(
            ended.stderr.contains("\n12 of 12 fetched, 240 bytes "),
            "{ended:?}"
        );
    }
}

#[test]
fn bodies_on_stdout_follow_one_another() {
    let server = slowly();
    let urls: Vec<_> = "abcdef"
        .chars()
        .map(|c| server.url(&format!("/{c}")))
        .collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let ended = get(&[&["-Z", "-i", "-w", "<%{urlnum}>"], &*urls].concat());
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(server.most_connections(), 6, "they are fetched at once");
    let mut text = ended.text();
    for (number, letter) in "abcdef".chars().enumerate() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n";
        let body = letter.to_string().repeat(20);
        let expected = format!("{head}{body}<{number}>");
        let at = text.find(&expected);
        let at = at.unwrap_or_else(|| panic!("no {expected:?} in {text:?}"));
        text.replace_range(at..at + expected.len(), "");
    }
    assert_eq!(text, "", "nothing else");
}

#[test]
fn a_body_that_waits_for_stdout_is_not_lost_with_the_one_before() {
    let server = Scripted::start(|seen, _| match &*seen.target {
        "/cut" => Answer::default()
            .then("HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nhalf")
            .later(Duration::from_millis(300), "more"),
        "/empty" => Answer::default().later(
            Duration::from_millis(100),
            "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
        ),
        _ => Answer::default().later(
            Duration::from_millis(100),
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
                1 << 20,
                "x".repeat(1 << 20)
            ),
        ),
    });
    let paths = ["/cut", "/empty", "/a", "/b"].map(|path| server.url(path));
    let [cut, empty, a, b] = &paths;
    // The server of /cut stays silent, until the time is over.
    let ended = get(&[
        "-Z",
        "-m",
        "2",
        "-w",
        "<%{urlnum} %{size_download}>",
        cut,
        empty,
        a,
        b,
    ]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let text = ended.text();
    let rest = text.strip_prefix("halfmore<0 8>");
    let rest = rest.unwrap_or_else(|| panic!("{text:.60}"));
    // The time of those that waited is over as well.
    assert!(rest.starts_with("<1 0>") && !rest.contains('x'), "{rest}");
    let ended = get(&["-Z", "-m", "20", empty, a, b, empty]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stdout.len(), 2 << 20);
}

#[test]
fn many_downloads_at_once_each_have_their_file() {
    let server = Scripted::start(|seen, _| Answer::ok(seen.target.repeat(1000)));
    let urls: Vec<_> = (0..100).map(|n| server.url(&format!("/{n:03}"))).collect();
    let list = urls.join("\n");
    let ran = run_with(
        &server,
        &[("list", list.as_bytes())],
        &[
            "-Zs",
            "--remote-name-all",
            "--list",
            "list",
            "-w",
            "%{exitcode}",
        ],
    );
    assert_eq!(ran.ended.code(), Some(0), "{ran:?}");
    assert_eq!(ran.ended.text(), "0".repeat(100));
    for n in 0..100 {
        let name = format!("{n:03}");
        assert_eq!(ran.file(&name), format!("/{name}").repeat(1000).as_bytes());
    }
}
