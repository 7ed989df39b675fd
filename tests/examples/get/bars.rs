//! Progress on a terminal, which `script` provides.

use std::process::Command;
use std::time::Duration;

use super::scripted::{Answer, Scripted};
use super::{files, get, without_variables};
use crate::servers::{Ended, TempDir, example, run, tool};

#[allow(dead_code, reason = "only its own tests use it here")]
#[path = "../../../examples/get/board.rs"]
mod board;

/// Runs `get` on a terminal of this size, and returns what appears on it. stdout is discarded or
/// goes to the terminal, too.
fn on_terminal(dir: &TempDir, size: &str, redirection: &str, args: &[&str]) -> Option<Ended> {
    let Some(script) = tool("script") else {
        println!("skipped: script is not installed");
        return None;
    };
    // The arguments are passed in variables, since script takes a line for the shell.
    let mut line = format!("stty {size}; \"$GET\"");
    let mut command = Command::new(script);
    without_variables(&mut command).env("GET", example("get").get_program());
    for (number, arg) in args.iter().enumerate() {
        command.env(format!("ARG{number}"), arg);
        line += &format!(" \"$ARG{number}\"");
    }
    command.args(["-qec", &format!("{line} {redirection}"), "/dev/null"]);
    Some(run(command.current_dir(dir.path())))
}

/// Sends this many bytes over about a second.
fn slowly(pieces: usize) -> Scripted {
    Scripted::start(move |seen, _| {
        let pause = Duration::from_millis(1000 / pieces as u64);
        let head = match seen.target.contains("unknown") {
            true => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned(),
            false => format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                pieces * 1000
            ),
        };
        let answer = Answer::default().then(head);
        let answer = answer.repeated(pieces, pause, vec![b'x'; 1000]);
        match seen.target.contains("unknown") {
            true => answer.closing(),
            false => answer,
        }
    })
}

/// Returns the frames that were drawn: each erases the one before.
fn frames(text: &str) -> Vec<&str> {
    text.split("\x1b[J").collect()
}

#[test]
fn each_download_has_a_line_that_is_redrawn_ten_times_a_second_at_most() {
    let server = slowly(200);
    let dir = TempDir::new();
    let names = ["/one", "/two-unknown", "/three"].map(|path| server.url(path));
    let urls: Vec<_> = names.iter().map(String::as_str).collect();
    let args = [&["-Z", "--remote-name-all"], &*urls].concat();
    let Some(ended) = on_terminal(&dir, "rows 24 cols 100", "> /dev/null", &args) else {
        return;
    };
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let text = ended.text();
    let (_, lasted) = text.split_once(" bytes in ").expect("the summary");
    let (seconds, _) = lasted.split_once(" s;").expect("seconds");
    let tenths = (seconds.parse::<f64>().expect("a number") * 10.0) as usize;
    let frames = frames(&text);
    // One more that removes the bars.
    assert!(
        frames.len() <= tenths + 2,
        "{} in {tenths} tenths",
        frames.len()
    );
    assert!(frames.len() > 3, "{text:?}");
    let middle = frames[frames.len() / 2];
    let lines: Vec<_> = middle.lines().filter(|line| line.contains('[')).collect();
    assert!(lines.len() >= 3, "{middle:?}");
    for (name, line) in ["one", "two-unknown", "three"].iter().zip(&lines) {
        assert!(line.starts_with(name) && line.len() < 100, "{line:?}");
        assert!(line.contains("kB/s "), "{line:?}");
        let is_known = !name.contains("unknown");
        assert_eq!(
            line.contains("#") && line.contains('%'),
            is_known,
            "{line:?}"
        );
        assert_eq!(line.contains(" 0:0"), is_known, "{line:?}");
    }
    // In the end, only the lines about what was fetched are left.
    let last = frames[frames.len() - 1];
    assert!(!last.contains('['), "{last:?}");
    assert!(last.contains("3 of 3 fetched, 600000 bytes "), "{last:?}");
    for name in ["one", "two-unknown", "three"] {
        assert_eq!(text.matches(&format!("/{name}\r\n")).count(), 1, "{text:?}");
    }
    assert_eq!(files(dir.path()).len(), 3);
}

#[test]
fn bars_that_have_no_room_are_counted() {
    let server = slowly(20);
    let dir = TempDir::new();
    let urls: Vec<_> = (0..20).map(|n| server.url(&format!("/{n}"))).collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let args = [&["-Z", "--remote-name-all"], &*urls].concat();
    let Some(ended) = on_terminal(&dir, "rows 8 cols 40", "", &args) else {
        return;
    };
    let text = ended.text();
    let is_full = |frame: &&&str| frame.contains("and 14 more\r\n");
    let frames = frames(&text);
    let full = frames.iter().find(is_full);
    let full = full.unwrap_or_else(|| panic!("no full frame in {text:?}"));
    let has_bar = |line: &&str| line.contains("% ");
    assert_eq!(full.lines().filter(has_bar).count(), 6, "{full:?}");
    assert!(full.lines().all(|line| line.len() < 40), "{full:?}");
}

#[test]
fn nothing_is_drawn_where_it_would_be_in_the_way() {
    let server = slowly(20);
    let (dir, url) = (TempDir::new(), server.url("/one"));
    for (redirection, args) in [
        // The body goes to the terminal.
        ("", &[&*url][..]),
        ("", &["-Z", &url, &url]),
        ("> /dev/null", &["-s", "-o", "file", &url]),
        ("2> /dev/null", &["-o", "file", &url]),
    ] {
        let Some(ended) = on_terminal(&dir, "rows 24 cols 80", redirection, args) else {
            return;
        };
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert!(!ended.stdout.contains(&b'\x1b'), "{args:?}: {ended:?}");
    }
    // No terminal: a line when it has ended.
    let ended = get(&["-o", "/dev/null", &url]);
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(
        ended
            .stderr
            .starts_with("200 HTTP/1.1      20000 B  fresh "),
        "{ended:?}"
    );
}

#[test]
fn a_binary_body_does_not_go_to_a_terminal_unless_it_is_meant_to() {
    let server = Scripted::always(Answer::ok("a\0b"));
    let (dir, url) = (TempDir::new(), server.url("/"));
    let Some(ended) = on_terminal(&dir, "rows 24 cols 80", "", &[&url]) else {
        return;
    };
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(
        ended.text().contains("would garble the terminal"),
        "{ended:?}"
    );
    assert!(!ended.stdout.contains(&0), "{ended:?}");
    let ended = on_terminal(&dir, "rows 24 cols 80", "", &["-o-", &url]).expect("script");
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains(&0), "{ended:?}");
}

#[test]
fn a_failure_is_told_above_the_bars() {
    let server = Scripted::start(|seen, _| match &*seen.target {
        "/cut" => Answer::cut("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        _ => Answer::default()
            .then("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
            .repeated(9, Duration::from_millis(50), "x"),
    });
    let dir = TempDir::new();
    let (cut, slow) = (server.url("/cut"), server.url("/slow"));
    let args = ["-Z", "--remote-name-all", &cut, &slow];
    let Some(ended) = on_terminal(&dir, "rows 24 cols 200", "", &args) else {
        return;
    };
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let text = ended.text();
    let (failure, bar) = (text.find("/cut failed: "), text.rfind("slow  "));
    assert!(failure.is_some() && failure < bar, "{text:?}");
}
