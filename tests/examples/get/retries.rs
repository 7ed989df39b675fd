//! --retry, --retry-delay and --retry-max-time.

use std::thread;
use std::time::Duration;

use super::scripted::{Answer, Scripted};
use super::{get, run_with, same_as_curl};
use crate::servers::free_addr;

/// Answers with this status so many times, and then with a page.
fn failing(times: usize, status: &'static str) -> Scripted {
    Scripted::start(move |_, number| match number < times {
        true => Answer::new(status, &[], "not now"),
        false => Answer::ok("at last"),
    })
}

/// Waits that do not make the tests slow. curl reads whole seconds only.
const SOON: &[&str] = &["--retry-delay", "0.01"];

const FACTS: &str = "\n%{http_code} %{size_download} %{exitcode}\n";

#[test]
fn failures_that_may_pass_are_retried_as_by_curl() {
    let check = |status: &'static str, is_retried: bool| {
        let server = failing(1, status);
        let url = server.url("/");
        // To a file: curl prints the bodies of all attempts.
        let args = ["--retry", "1", "-ofile", "-w", FACTS, &url];
        let ran = same_as_curl(&server, &[], &args);
        assert_eq!(ran.seen.len(), 1 + usize::from(is_retried), "{status}");
    };
    // curl waits for a second each time.
    thread::scope(|scope| {
        for status in [
            "408 Request Timeout",
            "429 Too Many Requests",
            "500 Internal Server Error",
            "502 Bad Gateway",
            "503 Service Unavailable",
            "504 Gateway Timeout",
        ] {
            scope.spawn(move || check(status, true));
        }
        for status in ["404 Not Found", "501 Not Implemented", "400 Bad Request"] {
            scope.spawn(move || check(status, false));
        }
    });
}

#[test]
fn the_number_of_retries_is_limited_as_by_curl() {
    let server = failing(2, "503 Service Unavailable");
    let url = server.url("/");
    for (args, requests, file) in [
        (&["--retry", "0"][..], 1, "not now"),
        (&["--retry", "1"], 2, "not now"),
        (&["--retry", "2"], 3, "at last"),
        (&["--retry", "9"], 3, "at last"),
        (&["--retry", "9", "-f"], 3, "at last"),
    ] {
        let ran = run_with(&server, &[], &[SOON, args, &["-ofile", &*url]].concat());
        assert_eq!(ran.seen.len(), requests, "{args:?}");
        assert_eq!(ran.file("file"), file.as_bytes(), "{args:?}");
        assert_eq!(ran.ended.code(), Some(0));
        let told = ran.ended.stderr.matches("answered with 503").count();
        assert_eq!(told, requests - 1, "{ran:?}");
    }
    let ran = run_with(
        &server,
        &[],
        &[SOON, &["--retry", "1", "-fofile", &*url]].concat(),
    );
    assert_eq!(ran.ended.code(), Some(22));
    assert!(ran.files.is_empty());
    // Without a delay of one's own.
    let server = failing(1, "503 Service Unavailable");
    same_as_curl(
        &server,
        &[],
        &["--retry", "1", "-fw", FACTS, &server.url("/")],
    );
}

#[test]
fn retries_are_counted() {
    let server = failing(2, "503 Service Unavailable");
    let url = server.url("/");
    let ended = get(&[SOON, &["--retry", "2", "-w", "%{num_retries}", &*url, &url]].concat());
    assert_eq!(ended.text(), "at last2at last0");
    assert!(
        ended.stderr.ends_with(" connections, 2 sent again\n"),
        "{ended:?}"
    );
}

#[test]
fn what_a_server_asks_for_is_waited_for() {
    let server = Scripted::start(|_, number| match number {
        0 => Answer::new("429 Too Many", &["Retry-After: 1"], ""),
        _ => Answer::ok("at last"),
    });
    let url = server.url("/");
    let long = [SOON, &["--retry", "1", &*url]].concat();
    let began = std::time::Instant::now();
    let ran = run_with(&server, &[], &long);
    assert_eq!(ran.ended.text(), "at last");
    assert!(began.elapsed() >= Duration::from_secs(1));
    // Which would be too late, or too long.
    let ran = run_with(
        &server,
        &[],
        &[&["--retry-max-time", "0.5"], &*long].concat(),
    );
    assert_eq!((ran.seen.len(), ran.ended.code()), (1, Some(0)), "{ran:?}");
    let server = Scripted::always(Answer::new("429 Many", &["Retry-After: 99999"], "wait"));
    let ran = run_with(&server, &[], &["--retry", "3", &server.url("/")]);
    assert_eq!((ran.seen.len(), &*ran.ended.text()), (1, "wait"), "{ran:?}");
}

#[test]
fn retries_end_after_their_time_as_with_curl() {
    // Each attempt takes longer than all may.
    let slow = Duration::from_millis(1200);
    let server = Scripted::always(
        Answer::default().later(slow, "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"),
    );
    let url = server.url("/");
    let args = ["--retry", "9", "--retry-max-time", "1", "-w", FACTS, &url];
    let ran = same_as_curl(&server, &[], &args);
    assert_eq!(ran.seen.len(), 1);
}

#[test]
fn a_request_that_may_have_been_processed_is_not_sent_twice() {
    let server = failing(1, "503 Service Unavailable");
    let post = |args: &[&str]| {
        let url = server.url("/");
        let all = [SOON, &["--retry", "3", "-da"], args, &[&*url]].concat();
        run_with(&server, &[], &all).seen.len()
    };
    assert_eq!(post(&[]), 1);
    assert_eq!(post(&["-X", "PUT"]), 2);
    let server = failing(1, "429 Too Many Requests");
    let ran = run_with(&server, &[], &["-da", "--retry", "1", &server.url("/")]);
    assert_eq!(ran.seen.len(), 2);
    assert_eq!(ran.seen[0], ran.seen[1]);
    // A connection that was refused has carried nothing.
    let url = format!("http://{}/", free_addr());
    let ended = get(&[SOON, &["--retry", "2", "-da", &*url]].concat());
    assert_eq!(ended.code(), Some(1));
    assert_eq!(ended.stderr.matches("; again in ").count(), 2, "{ended:?}");
}

#[test]
fn a_file_begins_anew_with_a_retry() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf of";
    let server = Scripted::start(move |_, number| match number {
        0 => Answer::cut(half),
        _ => Answer::ok("whole"),
    });
    let url = server.url("/");
    let retry = [
        SOON,
        &["--retry", "1", "-w", "%{num_retries} %{size_download}"],
    ]
    .concat();
    let ran = run_with(&server, &[], &[&*retry, &["-iofile", &*url]].concat());
    assert_eq!((ran.seen.len(), ran.ended.code()), (2, Some(0)), "{ran:?}");
    assert_eq!(ran.ended.text(), "1 5");
    let expected = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole";
    assert_eq!(ran.file("file"), expected);
    // What is on stdout cannot be taken back.
    let ran = run_with(&server, &[], &[&*retry, &[&*url]].concat());
    assert_eq!((ran.seen.len(), ran.ended.code()), (1, Some(1)), "{ran:?}");
    assert_eq!(ran.ended.text(), "half of0 7");
    // But nothing is there yet.
    let server = Scripted::start(|_, number| match number {
        0 => Answer::cut("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        _ => Answer::ok("whole"),
    });
    let ran = run_with(&server, &[], &[&*retry, &[&*server.url("/")]].concat());
    assert_eq!(ran.ended.text(), "whole1 5", "{ran:?}");
}

#[test]
fn an_attempt_that_takes_too_long_is_retried_as_by_curl() {
    let server = Scripted::start(|_, number| match number {
        0 => Answer::default().later(Duration::from_secs(5), ""),
        _ => Answer::ok("at last"),
    });
    let url = server.url("/");
    let ran = same_as_curl(&server, &[], &["-m", "0.5", "--retry", "1", &url]);
    assert_eq!(ran.ended.text(), "at last");
}

#[test]
fn the_body_of_a_retried_response_may_be_endless() {
    let server = Scripted::start(|_, number| match number {
        0 => Answer::default()
            .then("HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            .later(Duration::from_secs(100), "never"),
        _ => Answer::ok("at last"),
    });
    let ended = get(&[SOON, &["--retry", "1", &*server.url("/")]].concat());
    assert_eq!(ended.text(), "at last");
}
