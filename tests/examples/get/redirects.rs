//! -L and --max-redirs.

use super::scripted::{Answer, Scripted, Seen};
use super::{get, run_with, same_as_curl};

/// Redirects `/301` to `/end` with that status, `/loop` to itself, and `/count/3` to `/count/2`.
fn redirect(seen: &Seen) -> Answer {
    let path = &*seen.target;
    let to = |status: &str, location: &str| {
        let location = format!("Location: {location}");
        Answer::new(&format!("{status} Elsewhere"), &[&location], "moved")
    };
    match path {
        "/301" | "/302" | "/303" | "/307" | "/308" => to(&path[1..], "end?from=there"),
        "/300" | "/304" => to(&path[1..], "end"),
        "/loop" => to("302", "/loop"),
        "/ftp" => to("302", "ftp://127.0.0.1/file"),
        "/dots/more" => to("302", ".././end"),
        "/count/0" => Answer::ok("done"),
        _ => match path.strip_prefix("/count/").map(str::parse::<u32>) {
            Some(Ok(count)) => to("302", &format!("/count/{}", count - 1)),
            _ => Answer::ok("end"),
        },
    }
}

const FACTS: &str = "\n%{http_code} %{num_redirects} %{url_effective}\n";

#[test]
fn redirects_are_followed_as_by_curl() {
    let server = Scripted::start(|seen, _| redirect(seen));
    for status in ["/301", "/302", "/303", "/307", "/308"] {
        let url = server.url(status);
        for row in [
            &["-L"][..],
            &["-L", "-d", "a=1"],
            &["-L", "-H", "X-A: b", "-H", "Authorization: c"],
            &["-IL"],
            &["--location", "-o", "file"],
            // Not followed.
            &[],
            &["-d", "a=1"],
        ] {
            let ran = same_as_curl(&server, &[], &[row, &["-w", FACTS, &url]].concat());
            let is_followed = row
                .iter()
                .any(|arg| arg.contains('L') || *arg == "--location");
            assert_eq!(ran.seen.len(), 1 + usize::from(is_followed), "{row:?}");
        }
    }
    for path in ["/dots/more", "/count/7"] {
        same_as_curl(&server, &[], &["-L", "-w", FACTS, &server.url(path)]);
    }
}

#[test]
fn a_method_given_by_hand_is_kept_only_where_the_status_says_so() {
    let server = Scripted::start(|seen, _| redirect(seen));
    for (path, expected) in [
        ("/301", "PUT /end?from=there"),
        ("/303", "GET /end?from=there"),
        ("/307", "PUT /end?from=there"),
    ] {
        let ran = run_with(&server, &[], &["-LXPUT", "-da", &server.url(path)]);
        assert_eq!(ran.lines()[1], expected);
        let is_kept = expected.starts_with("PUT");
        assert_eq!(ran.seen[1].field("content-type").is_some(), is_kept);
        assert_eq!(ran.seen[1].body.is_empty(), !is_kept);
    }
}

#[test]
fn the_number_of_redirects_is_limited_as_by_curl() {
    let server = Scripted::start(|seen, _| redirect(seen));
    for (most, path, requests) in [
        ("3", "/count/3", 4),
        ("2", "/count/3", 3),
        ("0", "/count/3", 1),
        ("-1", "/count/60", 61),
    ] {
        let url = server.url(path);
        let args = ["-L", "--max-redirs", most, "-w", FACTS, &url];
        let ran = same_as_curl(&server, &[], &args);
        assert_eq!(ran.seen.len(), requests, "{most}");
    }
    // Without a limit of one's own, there are fifty.
    let ran = same_as_curl(&server, &[], &["-L", "-w", FACTS, &server.url("/loop")]);
    assert_eq!(ran.seen.len(), 51);
    let stderr = ran.ended.stderr;
    assert!(
        stderr.contains("redirect 51, and at most 50 are followed"),
        "{stderr}"
    );
}

#[test]
fn another_origin_gets_no_credentials() {
    let end = Scripted::always(Answer::ok("end"));
    let location = format!("Location: {}", end.url("/"));
    let start = Scripted::always(Answer::new("302 Found", &[&location], ""));
    for row in [
        &["-u", "a:b"][..],
        &["-H", "Authorization: Bearer t"],
        &["-u", "a:b", "-H", "X-A: b"],
    ] {
        let url = start.url("/");
        let ran = run_with(&start, &[], &[&["-L"], row, &[&url]].concat());
        assert!(ran.only().field("authorization").is_some());
        let seen = end.take();
        assert_eq!(seen[0].field("authorization"), None, "{row:?}");
        same_as_curl(&start, &[], &[&["-L"], row, &[&url]].concat());
        let (ours, curls) = match &end.take()[..] {
            [ours, curls] => (ours.comparable(), curls.comparable()),
            // Without curl.
            [ours] => (ours.comparable(), ours.comparable()),
            all => panic!("{all:?}"),
        };
        assert_eq!(ours, curls);
    }
    let ran = run_with(&start, &[], &["-L", "-b", "a=s3cret", &start.url("/")]);
    assert_eq!(ran.only().field("cookie"), Some("a=s3cret"));
    assert_eq!(end.take()[0].field("cookie"), None);
}

#[test]
fn a_redirect_that_cannot_be_followed_is_a_failure() {
    let server = Scripted::start(|seen, _| redirect(seen));
    let ended = get(&["-L", &server.url("/ftp")]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("redirect that cannot be followed"),
        "{ended:?}"
    );
    // It was not asked to follow this one, and these are none.
    for args in [&["/ftp"][..], &["/300", "-L"], &["/304", "-L"]] {
        let url = server.url(args[0]);
        let ended = get(&[&args[1..], &[&*url]].concat());
        assert_eq!(ended.code(), Some(0), "{args:?}: {ended:?}");
    }
}
