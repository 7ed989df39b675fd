//! -f, -m, -s, and how failures are reported.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::scripted::{Answer, Scripted};
use super::{get, get_in, run_with, same_as_curl, without_variables};
use crate::servers::{TempDir, example, free_addr, run, serve_once};

#[test]
fn statuses_are_failures_only_on_request_as_with_curl() {
    for status in [
        "200 OK",
        "399 Odd",
        "400 Bad",
        "404 Not Found",
        "503 Busy",
        "599 Odd",
    ] {
        let server = Scripted::always(Answer::new(status, &[], "body"));
        let url = server.url("/");
        let code = "\n%{http_code} %{exitcode}\n";
        for args in [
            &[][..],
            &["-f"],
            &["--fail-with-body"],
            &["-fi"],
            &["-fI"],
            &["-fiofile"],
            &["-ofile"],
            &["-fofile"],
            &["--fail-with-body", "-ofile"],
        ] {
            let ran = same_as_curl(&server, &[], &[args, &["-w", code, &*url]].concat());
            let is_failure =
                status >= "400" && args.iter().any(|arg| arg.contains('f') && *arg != "-ofile");
            let expected = if is_failure { 22 } else { 0 };
            assert_eq!(ran.ended.code(), Some(expected), "{status} {args:?}");
        }
    }
}

#[test]
fn an_unwanted_body_costs_nothing() {
    let server = Scripted::always(
        Answer::default()
            .then("HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            .later(Duration::from_secs(100), "never"),
    );
    let ended = get(&["-f", &server.url("/")]);
    assert_eq!(ended.code(), Some(22), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("failed: answered with 404 Not Found\n"),
        "{ended:?}"
    );
    // A short one is read, and the connection is used again.
    let server = Scripted::always(Answer::new("404 Not Found", &[], "short"));
    let url = server.url("/");
    let ended = get(&["-f", "-w", "%{local_port} ", &url, &url]);
    let text = ended.text();
    let mut ports = text.split(' ');
    assert_eq!(ports.next(), ports.next(), "{text}");
}

#[test]
fn others_are_fetched_after_one_that_is_refused() {
    let (gone, there) = (
        free_addr(),
        serve_once(b"HTTP/1.0 200 OK\r\n\r\nto the end"),
    );
    let ended = get(&[&format!("http://{gone}/x"), &format!("http://{there}/y")]);
    assert_eq!(ended.code(), Some(1));
    let expected = format!("get: http://{gone}/x failed: http://{gone}: could not connect: ");
    assert!(ended.stderr.starts_with(&expected), "{ended:?}");
    assert_eq!(ended.text(), "to the end");
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert!(
        lines[1].starts_with("200 HTTP/1.0         10 B  fresh "),
        "{lines:?}"
    );
    assert!(
        lines[2].starts_with("1 of 2 fetched, 10 bytes "),
        "{lines:?}"
    );
}

#[test]
fn the_exit_code_tells_statuses_from_other_failures() {
    let server = Scripted::start(|seen, _| match &*seen.target {
        "/404" => Answer::new("404 Not Found", &[], ""),
        "/cut" => Answer::cut("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        _ => Answer::ok(""),
    });
    for (paths, expected) in [
        (&["/", "/"][..], 0),
        (&["/404", "/"], 22),
        (&["/", "/404"], 22),
        (&["/404", "/cut"], 1),
        (&["/cut", "/404", "/"], 1),
    ] {
        let urls: Vec<_> = paths.iter().map(|path| server.url(path)).collect();
        let urls: Vec<_> = urls.iter().map(String::as_str).collect();
        let ended = get(&[&["-f"], &*urls].concat());
        assert_eq!(ended.code(), Some(expected), "{paths:?}");
    }
}

#[test]
fn a_transfer_ends_at_its_time() {
    let never = Answer::default().later(Duration::from_secs(100), "");
    let slow = Answer::default()
        .then("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        .later(Duration::from_secs(100), "");
    for (answer, phase, file) in [(never, "first byte", None), (slow, "body", Some("half"))] {
        let server = Scripted::always(answer);
        let url = server.url("/");
        let format = "%{http_code} %{exitcode} %{size_download}";
        let ran = run_with(&server, &[], &["-m", "0.3", "-ofile", "-w", format, &url]);
        assert_eq!(ran.ended.code(), Some(1), "{ran:?}");
        assert!(ran.ended.stderr.contains("timed out"), "{phase}: {ran:?}");
        let expected = if file.is_some() { "200 1 4" } else { "000 1 0" };
        assert_eq!(ran.ended.text(), expected, "{phase}");
        let found = ran.files.get("file").map(Vec::as_slice);
        assert_eq!(found, file.map(str::as_bytes), "{phase}");
        same_as_curl(&server, &[], &["-m", "0.3", "-ofile", &url]);
    }
    // 0 is no limit.
    let server = Scripted::always(Answer::ok("fine"));
    same_as_curl(&server, &[], &["-m", "0", &server.url("/")]);
}

#[test]
fn a_transfer_that_is_too_slow_ends_as_with_curl() {
    let second = Duration::from_millis(100);
    let slow = Answer::default()
        .then("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        .repeated(1000, second, "x");
    let never = Answer::default().later(Duration::from_secs(100), "");
    for answer in [slow, never] {
        let server = Scripted::always(answer);
        let args = ["-Y", "1000", "-y", "1", "-o", "/dev/null", &server.url("/")];
        let ran = same_as_curl(&server, &[], &args);
        assert_eq!(ran.ended.code(), Some(1), "{ran:?}");
        assert!(ran.ended.stderr.contains(": timed out while "), "{ran:?}");
    }
    // One that is as fast as it should be, and one without a limit.
    for speed in ["5", "0"] {
        let server = Scripted::always(
            Answer::default()
                .then("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n")
                .repeated(15, second, "x"),
        );
        same_as_curl(&server, &[], &["-Y", speed, "-y1", &server.url("/")]);
    }
}

#[test]
fn a_rate_is_kept() {
    let server = Scripted::always(Answer::ok("x".repeat(100 * 1024)));
    let url = server.url("/");
    let began = Instant::now();
    let ended = get(&["--limit-rate", "50k", &url]);
    assert_eq!(ended.stdout.len(), 100 * 1024);
    // An eighth of a second's worth is a burst.
    assert!(began.elapsed() >= Duration::from_millis(1700));
    let server = Scripted::always(Answer::ok(""));
    let url = server.url("/");
    let upload = "x".repeat(100 * 1024);
    let given = [("upload", upload.as_bytes())];
    let began = Instant::now();
    let ran = run_with(
        &server,
        &given,
        &["--limit-rate", "51200", "-d@upload", &url],
    );
    assert_eq!(ran.only().body.len(), 100 * 1024);
    assert!(began.elapsed() >= Duration::from_millis(1700));
}

#[test]
fn a_silent_get_says_nothing_unless_errors_are_wanted() {
    let server = Scripted::start(|seen, _| match &*seen.target {
        "/404" => Answer::new("404 Not Found", &[], ""),
        _ => Answer::ok("fine"),
    });
    let (fine, bad) = (server.url("/"), server.url("/404"));
    let stderr = |args: &[&str]| {
        let ended = get(args);
        let first = ended.stderr.lines().next().unwrap_or_default().to_owned();
        (ended.code(), first)
    };
    assert_eq!(stderr(&["-s", &fine, &fine]), (Some(0), String::new()));
    assert_eq!(
        stderr(&["-s", "-f", &bad, &fine]),
        (Some(22), String::new())
    );
    let error = format!("get: {bad} failed: answered with 404 Not Found");
    assert_eq!(stderr(&["-sSf", &bad, &fine]), (Some(22), error.clone()));
    assert_eq!(stderr(&["-Sf", &bad, &fine]), (Some(22), error));
}

/// `get ... | head` ends when nobody reads any more.
#[test]
fn a_closed_stdout_ends_a_transfer() {
    let server = Scripted::always(Answer::default().then("HTTP/1.0 200 OK\r\n\r\n").repeated(
        1000,
        Duration::from_millis(1),
        vec![b'x'; 100_000],
    ));
    let mut child = without_variables(&mut example("get"))
        .arg(server.url("/"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("our child");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("nobody reads stdout any more"), "{stderr}");
}

#[test]
fn a_disk_that_is_full_is_named() {
    if !std::path::Path::new("/dev/full").exists() {
        return println!("skipped: there is no /dev/full");
    }
    let server = Scripted::always(Answer::ok("x".repeat(1 << 20)));
    let url = server.url("/");
    let ended = get(&["-o", "/dev/full", &url]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("/dev/full: cannot write the body: No space"),
        "{ended:?}"
    );

    let mut command = Command::new("sh");
    command.args(["-c", r#""$0" "$1" > /dev/full"#]);
    let ended = run(without_variables(
        command.arg(example("get").get_program()).arg(&url),
    ));
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("cannot write the body: No space"),
        "{ended:?}"
    );
    // Also if it only shows at the end.
    let server = Scripted::always(Answer::ok("short"));
    let mut command = Command::new("sh");
    command.args(["-c", r#""$0" "$1" > /dev/full"#]);
    command
        .arg(example("get").get_program())
        .arg(server.url("/"));
    let ended = run(without_variables(&mut command));
    assert_eq!(ended.code(), Some(1), "{ended:?}");
}

#[test]
fn a_stderr_that_takes_nothing_ends_nothing() {
    if !std::path::Path::new("/dev/full").exists() {
        return println!("skipped: there is no /dev/full");
    }
    let server = Scripted::always(Answer::ok("fine"));
    for (url, expected) in [
        (server.url("/"), (Some(0), "fine")),
        (String::new(), (Some(2), "")),
    ] {
        let mut command = Command::new("sh");
        command.args(["-c", r#""$0" "$1" 2> /dev/full"#]);
        command.arg(example("get").get_program()).arg(url);
        let ended = run(without_variables(&mut command));
        assert_eq!((ended.code(), &*ended.text()), expected, "{ended:?}");
    }
}

#[test]
fn a_response_that_breaks_off_is_kept_as_by_curl() {
    for cut in [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let server = Scripted::always(Answer::cut(cut));
        let url = server.url("/a/name");
        for args in [&["-ofile"][..], &["-O"], &[], &["-iofile"]] {
            let ran = same_as_curl(&server, &[], &[args, &[&*url]].concat());
            assert_eq!(ran.ended.code(), Some(1));
            assert!(ran.ended.stderr.contains("response cut short"), "{ran:?}");
        }
        let ran = run_with(&server, &[], &["-O", &url]);
        assert_eq!(ran.file("name"), b"half");
        let told = "(name is incomplete, with 4 bytes)\n";
        assert!(ran.ended.stderr.ends_with(told), "{ran:?}");
        let ran = same_as_curl(&server, &[], &["--remove-on-error", "-O", &url]);
        assert!(ran.files.is_empty(), "{ran:?}");
        let ended = get_in(TempDir::new().path(), &["--remove-on-error", "-O", &url]);
        assert!(ended.stderr.ends_with("(name was removed)\n"), "{ended:?}");
    }
}

#[test]
fn a_tree_keeps_no_half_of_a_file() {
    let server = Scripted::always(Answer::cut(
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
    ));
    let ran = run_with(&server, &[], &["--tree", "out", &server.url("/a/b")]);
    assert_eq!(ran.ended.code(), Some(1));
    assert!(ran.ended.stderr.contains("5 bytes missing"), "{ran:?}");
    assert!(ran.files.is_empty(), "{ran:?}");
    // Nor an error page.
    let server = Scripted::always(Answer::new("404 Not Found", &[], "nope"));
    let ran = run_with(&server, &[], &["--tree", "out", &server.url("/a/b")]);
    assert_eq!(ran.ended.code(), Some(22));
    assert!(ran.ended.stderr.contains("404 Not Found"), "{ran:?}");
    assert!(ran.files.is_empty(), "{ran:?}");
}
