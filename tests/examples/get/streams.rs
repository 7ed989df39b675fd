//! --sse: event streams.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use super::scripted::{Answer, Scripted};
use super::{get, run_with, without_variables};
use crate::servers::{example, free_addr};

const TYPE: &str = "Content-Type: text/event-stream; charset=utf-8";

fn stream(events: &str) -> Answer {
    Answer::new("200 OK", &[TYPE], events)
}

/// A stream that stays open.
fn open(events: &str) -> Answer {
    let head = format!("HTTP/1.1 200 OK\r\n{TYPE}\r\n\r\n");
    let answer = Answer::default().then(head).then(events);
    answer.later(Duration::from_secs(100), "")
}

/// Two streams one after the other, and then there are no more.
fn two_streams() -> Scripted {
    Scripted::start(|seen, _| match seen.field("last-event-id") {
        None => stream("id: 1\ndata: hello\n\nid: 2\nevent: join\ndata: bob\n\ndata: lost"),
        Some("2") => stream(": comment\n\nid: 3\ndata: two\ndata: lines\n\nevent: e\ndata\n\n"),
        Some(_) => Answer::new("204 No Content", &[], ""),
    })
}

const EVENTS: &str = "hello\n[join] bob\ntwo\n  lines\n[e] \n";

/// Reconnects at once, as often as necessary here.
const SOON: &[&str] = &["--sse", "--retry", "3", "--retry-delay", "0.01"];

#[test]
fn events_are_printed_over_all_connections() {
    let server = two_streams();
    let url = server.url("/");
    let ended = get(&[SOON, &["-H", "X-A: b", &*url]].concat());
    assert_eq!(
        (ended.code(), &*ended.text()),
        (Some(0), EVENTS),
        "{ended:?}"
    );
    assert_eq!(ended.stderr, format!("4 events  {url}\n"));
    let seen = server.take();
    let ids: Vec<_> = seen.iter().map(|it| it.field("last-event-id")).collect();
    assert_eq!(ids, [None, Some("2"), Some("3")]);
    for seen in &seen {
        assert_eq!(seen.all("accept"), ["text/event-stream"]);
        assert_eq!(seen.all("x-a"), ["b"]);
    }

    let ran = run_with(&server, &[], &[SOON, &["-o", "events", &*url]].concat());
    assert_eq!(
        (ran.ended.code(), &*ran.ended.text()),
        (Some(0), ""),
        "{ran:?}"
    );
    assert_eq!(ran.file("events"), EVENTS.as_bytes());
}

#[test]
fn several_streams_are_read_at_once_or_one_after_the_other() {
    let server = two_streams();
    let (one, two) = (server.url("/1"), server.url("/2"));
    let ended = get(&[SOON, &["-w", "%{url} %{http_code}\n", &*one, &*two]].concat());
    let expected = format!("{EVENTS}{one} 204\n{EVENTS}{two} 204\n");
    assert_eq!((ended.code(), ended.text()), (Some(0), expected));
    let both = ["-Z", "-o", "one", "-o", "two", &one, &two];
    let ran = run_with(&server, &[], &[SOON, &both].concat());
    assert_eq!(ran.ended.code(), Some(0), "{ran:?}");
    assert_eq!(ran.file("one"), EVENTS.as_bytes());
    assert_eq!(ran.file("two"), EVENTS.as_bytes());
}

/// Ends its program, as Ctrl-C would.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_event_is_printed_as_it_comes() {
    let server = Scripted::always(open("data: first\n\nevent: a\ndata: second\n\n"));
    let mut command = example("get");
    without_variables(&mut command).args(["--sse", &server.url("/")]);
    let child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut child = Stopped(child);
    let stdout = child.0.stdout.take().expect("piped");
    let mut lines = BufReader::new(stdout)
        .lines()
        .map(|line| line.expect("text"));
    // The stream is open for longer than the test may take.
    assert_eq!(lines.next().as_deref(), Some("first"));
    assert_eq!(lines.next().as_deref(), Some("[a] second"));
    assert_eq!(child.0.try_wait().expect("our child"), None);
}

#[test]
fn a_stream_is_read_for_the_time_that_it_is_given() {
    let server = Scripted::always(open("data: first\n\n"));
    let (one, two) = (server.url("/1"), server.url("/2"));
    // Each of them has this time.
    let ended = get(&["--sse", "-m", "0.5", &one, &two]);
    assert_eq!(
        (ended.code(), &*ended.text()),
        (Some(0), "first\nfirst\n"),
        "{ended:?}"
    );
    // Without a stream, it has failed.
    let url = format!("http://{}/", free_addr());
    let ended = get(&["--sse", "-m", "0.3", &url]);
    assert_eq!((ended.code(), &*ended.text()), (Some(1), ""), "{ended:?}");
    assert!(ended.stderr.contains(" failed: "), "{ended:?}");
}

#[test]
fn what_is_no_stream_is_a_failure() {
    let page = Answer::new("200 OK", &["Content-Type: text/html"], "<html>");
    let missing = Answer::new("404 Not Found", &[TYPE], "data: no\n\n");
    let busy = Answer::new("503 Busy", &[], "");
    for (answer, args, code, expected) in [
        (page, &[][..], 1, "not an event stream but \"text/html\""),
        (missing.clone(), &[], 1, "answered with 404 Not Found"),
        (missing, &["-f"], 22, "answered with 404 Not Found"),
        (
            busy,
            &["--retry", "2", "--retry-delay", "0.01"],
            1,
            "answered with 503",
        ),
    ] {
        let server = Scripted::always(answer);
        let ended = get(&[&["--sse"], args, &[&*server.url("/")]].concat());
        assert_eq!(
            (ended.code(), &*ended.text()),
            (Some(code), ""),
            "{ended:?}"
        );
        assert!(ended.stderr.contains(expected), "{ended:?}");
        let expected = if args.contains(&"--retry") { 3 } else { 1 };
        assert_eq!(server.take().len(), expected, "{args:?}");
    }
}

#[test]
fn a_stream_may_answer_a_post() {
    let server = Scripted::always(stream("data: a\n\n"));
    let ended = get(&["--sse", "-d", "question", &server.url("/")]);
    // It is not sent again, since the server has seen it.
    assert_eq!(
        (ended.code(), &*ended.text()),
        (Some(0), "a\n"),
        "{ended:?}"
    );
    assert_eq!(server.take()[0].body, b"question");
}

#[test]
fn a_file_that_cannot_be_written_ends_the_stream() {
    let server = Scripted::always(open("data: first\n\n"));
    let ended = get(&["--sse", "-o", "no/such/file", &server.url("/")]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("no/such/file: No such file"),
        "{ended:?}"
    );
}
