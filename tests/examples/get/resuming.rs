//! -C: downloads that are continued.

use super::scripted::{Answer, Scripted, Seen};
use super::{Ran, files, get_in, run_with, same_as_curl};
use crate::servers::TempDir;

const WHOLE: &str = "0123456789";

/// Returns the offset that a request asks for.
fn offset(seen: &Seen) -> Option<usize> {
    let range = seen.field("range")?;
    let offset = range.strip_prefix("bytes=")?.strip_suffix('-')?;
    Some(offset.parse().expect("an offset"))
}

/// Answers a request for a part of the body.
fn part(seen: &Seen) -> Answer {
    let length = WHOLE.len();
    match offset(seen) {
        None => Answer::ok(WHOLE),
        Some(offset) if offset < length => {
            let field = format!("Content-Range: bytes {offset}-{}/{length}", length - 1);
            Answer::new("206 Partial Content", &[&field], &WHOLE[offset..])
        }
        Some(_) => {
            let field = format!("Content-Range: bytes */{length}");
            Answer::new("416 Range Not Satisfiable", &[&field], "an error page")
        }
    }
}

/// Arguments, the file before, the Range that is sent, and the file after.
type Row = (
    &'static [&'static str],
    Option<&'static [u8]>,
    Option<&'static str>,
    &'static [u8],
);

#[test]
fn downloads_are_continued_as_by_curl() {
    let server = Scripted::start(|seen, _| part(seen));
    let url = server.url("/file");
    let (half, all): (&[u8], &[u8]) = (b"01234", WHOLE.as_bytes());
    let cut = Some("bytes=5-");
    #[rustfmt::skip]
    let rows: &[Row] = &[
        (&["-C", "-", "-o", "file"], Some(half), cut, all),
        (&["-C-", "-O"], Some(half), cut, all),
        (&["-f", "--continue-at", "5", "-o", "file"], Some(half), cut, all),
        (&["-C", "-", "-o", "file"], None, None, all),
        (&["-C", "-", "-o", "file"], Some(b""), None, all),
        (&["-C", "0", "-o", "file"], Some(half), None, all),
        (&["-C", "5", "-o", "file"], None, cut, b"56789"),
        (&["-C", "7", "-o", "file"], Some(half), Some("bytes=7-"), b"01234789"),
        // It is whole already.
        (&["-C", "-", "-o", "file"], Some(all), Some("bytes=10-"), all),
    ];
    for (args, given, range, expected) in rows {
        let given: Vec<_> = given.iter().map(|content| ("file", *content)).collect();
        let args = [*args, &["-w", "%{http_code}", &*url]].concat();
        let ran = same_as_curl(&server, &given, &args);
        assert_eq!(ran.ended.code(), Some(0), "{args:?}: {ran:?}");
        assert_eq!(ran.only().field("range"), *range, "{args:?}");
        assert_eq!(ran.file("file"), *expected, "{args:?}");
    }
    // curl fails because of the status then.
    let ran = run_with(&server, &[("file", all)], &["-f", "-C-", "-ofile", &url]);
    assert_eq!(ran.ended.code(), Some(0), "{ran:?}");
    assert_eq!(ran.file("file"), all);
    // Without a file, `-` is the beginning.
    for (offset, expected) in [("3", "3456789"), ("-", WHOLE)] {
        let ran = same_as_curl(&server, &[], &["-C", offset, &url]);
        assert_eq!(ran.ended.text(), expected);
    }
}

#[test]
fn each_url_continues_its_own_file() {
    let server = Scripted::start(|seen, _| part(seen));
    let (a, b, c) = (server.url("/a"), server.url("/b"), server.url("/c"));
    let given: &[(&str, &[u8])] = &[("a", b"0"), ("c", WHOLE.as_bytes())];
    let check = |ran: &Ran, dir: &str| {
        assert_eq!(ran.ended.code(), Some(0), "{ran:?}");
        assert_eq!(ran.seen.len(), 3, "{ran:?}");
        for name in ["a", "b", "c"] {
            assert_eq!(
                ran.file(&format!("{dir}{name}")),
                WHOLE.as_bytes(),
                "{ran:?}"
            );
        }
    };
    let args = ["-C", "-", "--remote-name-all", &a, &b, &c];
    check(&same_as_curl(&server, given, &args), "");
    check(
        &run_with(&server, given, &[&["-Z"], &args[..]].concat()),
        "",
    );
    check(
        &run_with(
            &server,
            given,
            &["-Z", "-C", "-", "--tree", ".", &a, &b, &c],
        ),
        "",
    );
}

#[test]
fn what_is_no_continuation_is_not_appended() {
    fn partial(range: &str) -> Answer {
        let field = format!("Content-Range: {range}");
        Answer::new("206 Partial Content", &[&field], "56789")
    }
    let ranges = "the server does not seem to support byte ranges";
    let other = "the server sends another part of the body: ";
    #[rustfmt::skip]
    let rows: &[(Answer, bool, &str)] = &[
        (Answer::ok(WHOLE), true, ranges),
        (Answer::cut("HTTP/1.1 200 OK\r\n\r\n0123456789"), true, ranges),
        (Answer::new("404 Not Found", &[], "an error page"), true, "answered with 404 Not Found"),
        // What curl takes for success.
        (partial("bytes 4-9/10"), false, other),
        (Answer::new("206 Partial Content", &[], "56789"), false, "206 without a part of the body"),
        (partial("bytes 5-6/10"), false, other),
        (partial("items 5-9/10"), false, "206 without a part of the body"),
        (Answer::new("416 No", &["Content-Range: bytes */3"], ""), false, "the body has 3 bytes only"),
        (Answer::new("416 No", &[], ""), false, "answered with 416"),
    ];
    for (answer, is_as_with_curl, expected) in rows.iter().cloned() {
        let server = Scripted::always(answer);
        let url = server.url("/");
        let given: &[(&str, &[u8])] = &[("file", b"01234")];
        let args = ["-C", "-", "-o", "file", &url];
        let ran = match is_as_with_curl {
            true => same_as_curl(&server, given, &args),
            false => run_with(&server, given, &args),
        };
        assert_eq!(ran.ended.code(), Some(1), "{expected}: {ran:?}");
        let expected = format!("failed: {expected}");
        assert!(ran.ended.stderr.contains(&expected), "{expected}: {ran:?}");
        assert_eq!(ran.file("file"), b"01234", "{expected}");
    }
    // A body that is as long as the file, from a server without ranges.
    let server = Scripted::always(Answer::ok("01234"));
    let args = ["-C", "-", "-o", "file", &server.url("/")];
    let ran = same_as_curl(&server, &[("file", b"01234")], &args);
    assert_eq!(ran.ended.code(), Some(0), "{ran:?}");
    assert_eq!(ran.file("file"), b"01234");
    // With -f, the status is the failure.
    let server = Scripted::always(Answer::new("404 Not Found", &[], ""));
    let args = ["-f", "-C", "-", "-o", "file", &server.url("/")];
    let ran = same_as_curl(&server, &[("file", b"01234")], &args);
    assert_eq!(ran.ended.code(), Some(22), "{ran:?}");
}

/// Answers with one byte, and breaks off.
fn one_byte(seen: &Seen) -> Answer {
    let from = offset(seen).unwrap_or(0);
    let (head, left) = match from {
        0 => ("200 OK".to_owned(), WHOLE.len()),
        _ => (
            format!("206 Part\r\nContent-Range: bytes {from}-9/10"),
            WHOLE.len() - from,
        ),
    };
    let byte = &WHOLE[from..=from];
    Answer::cut(format!(
        "HTTP/1.1 {head}\r\nContent-Length: {left}\r\n\r\n{byte}"
    ))
}

#[test]
fn a_download_goes_on_however_often_it_breaks_off() {
    let server = Scripted::start(|seen, _| one_byte(seen));
    for where_to in [&["-o", "file"][..], &["--tree", "."]] {
        let dir = TempDir::new();
        let url = server.url("/file");
        let args = [&["-C", "-"], where_to, &[&*url]].concat();
        for bytes in 1..=WHOLE.len() {
            let ended = get_in(dir.path(), &args);
            let is_done = bytes == WHOLE.len();
            assert_eq!(ended.code(), Some(i32::from(!is_done)), "{ended:?}");
            let told = format!("(./file is incomplete, with {bytes} bytes)\n");
            let told = told.replace("./", if where_to[0] == "-o" { "" } else { "./" });
            assert_eq!(ended.stderr.ends_with(&told), !is_done, "{ended:?}");
            let found = &files(dir.path())["file"];
            assert_eq!(found, &WHOLE.as_bytes()[..bytes]);
        }
    }
}

#[test]
fn an_attempt_that_broke_off_is_not_appended_twice() {
    let server = Scripted::start(|seen, count| match count {
        0 => one_byte(seen),
        _ => part(seen),
    });
    #[rustfmt::skip]
    let args = ["-C", "-", "--retry", "1", "--retry-delay", "0.01", "-o", "file", &server.url("/")];
    let ran = run_with(&server, &[("file", b"01234")], &args);
    assert_eq!(ran.ended.code(), Some(0), "{ran:?}");
    assert_eq!(ran.seen.len(), 2, "{ran:?}");
    assert_eq!(ran.file("file"), WHOLE.as_bytes());
}
