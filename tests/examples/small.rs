//! The small examples do what examples/README.md says, each in little time.

use std::fs;
use std::path::Path;

use crate::programs::{Ended, run};
use crate::servers::{example, serve_once};

use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs an example, which has to succeed, and returns its lines.
fn lines(name: &str, args: &[&str]) -> Vec<String> {
    let Ended {
        code,
        stdout,
        stderr,
    } = run(example(name).args(args), PATIENCE);
    assert_eq!((code, &*stderr), (Some(0), ""), "{name}: {stdout}");
    stdout.lines().map(str::to_owned).collect()
}

#[test]
fn hello_prints_a_page() {
    let addr = serve_once(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let url = format!("http://{addr}/");
    assert_eq!(lines("hello", &[&url]), ["200 OK", "hello"]);
}

#[test]
fn hello_fails_with_the_reason() {
    let ended = run(example("hello").arg("http://127.0.0.1:1/"), PATIENCE);
    assert_ne!(ended.code, Some(0));
    assert!(ended.stderr.contains("could not connect"), "{ended:?}");
    assert!(ended.stderr.contains("127.0.0.1:1"), "{ended:?}");
}

#[test]
fn chain_goes_from_the_login_to_the_news() {
    assert_eq!(lines("chain", &[]), [r#"["one", "two"]"#]);
}

#[test]
fn many_uses_eight_connections_for_fifty_pages() {
    let [line] = &lines("many", &[])[..] else {
        panic!("one line")
    };
    assert!(line.starts_with("50 pages, "), "{line}");
    assert!(line.ends_with(", 8 connections"), "{line}");
}

#[test]
fn delays_backs_off_and_keeps_its_beat() {
    let lines = lines("delays", &[]);
    // Each line begins with its time.
    let texts: Vec<&str> = lines.iter().map(|line| &line[9..]).collect();
    let retries: Vec<&str> = texts
        .iter()
        .copied()
        .filter(|text| text.contains("failed"))
        .collect();
    assert_eq!(
        retries,
        ["20ms", "40ms", "80ms"]
            .map(|delay| format!("login failed, next attempt in {delay} or a little more"))
    );
    assert!(texts.contains(&"logged in"), "{texts:?}");
    assert!(texts.contains(&"beat 5"), "{texts:?}");
}

#[test]
fn json_reads_what_it_sent() {
    assert_eq!(lines("json", &[]), ["\"hello\""]);
}

#[test]
fn download_streams_the_whole_body() {
    assert_eq!(lines("download", &[]), ["200 OK", "10485760 bytes"]);
}

#[test]
fn events_go_on_where_a_stream_has_ended() {
    let expected = [
        "event 1, message: hello",
        "event 2, join: bob",
        "event 3, message: bye",
        "204 No Content, after 3 events",
    ];
    assert_eq!(lines("events", &[]), expected);
}

#[test]
fn within_serves_both_accounts() {
    let mut lines = lines("within", &[]);
    lines.sort();
    assert_eq!(
        lines,
        [
            "alice: news for /1",
            "alice: news for /1",
            "bob: news for /2",
            "bob: news for /2"
        ]
    );
}

#[test]
fn tasks_run_three_conversations() {
    let lines = lines("tasks", &[]);
    for user in 1..=3 {
        let news = format!("user {user}: news at /poll?token=token-of-{user}");
        assert_eq!(lines.iter().filter(|line| **line == news).count(), 3);
    }
    assert_eq!(lines.len(), 9);
}

#[test]
fn testing_is_the_same_each_time() {
    assert_eq!(lines("testing", &[]), lines("testing", &[]));
}

#[cfg(feature = "tokio")]
#[test]
fn tokio_client_fetches_and_streams() {
    let mut lines = lines("tokio_client", &[]);
    assert_eq!(lines.pop().unwrap(), "70000 bytes in pieces");
    assert_eq!(lines, ["200 OK, 20000 bytes"; 10]);
}

#[test]
fn mio_loop_serves_its_own_client() {
    assert_eq!(lines("mio_loop", &[]), ["Ok(\"hello\")"; 3]);
}

#[test]
fn bot_answers_every_message() {
    let lines = lines("bot", &[]);
    let last = lines.last().unwrap();
    let (said, answered) = last.split_once(" messages, ").expect(last);
    assert_eq!(answered, format!("{said} answered"));
    assert!(said.parse::<u32>().unwrap() >= 5, "{last}");
}

#[test]
fn telegram_ends_with_its_token_and_does_not_show_it() {
    let addr = serve_once(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 12\r\n\r\n{\"ok\":false}");
    let mut bot = example("telegram");
    bot.env("TELEGRAM_SERVER", format!("http://{addr}"));
    bot.env("TELEGRAM_TOKEN", "123:s3cret");
    let ended = run(&mut bot, PATIENCE);
    let expected = format!(
        "http://{addr}: answered with 401 Unauthorized\nError: \"the token is not valid\"\n"
    );
    assert_eq!((ended.code, ended.stderr), (Some(1), expected));
    assert_eq!(ended.stdout, "");
}

#[test]
fn matrix_says_which_variable_is_missing() {
    let mut bot = example("matrix");
    bot.env("MATRIX_SERVER", "name.test")
        .env("MATRIX_USER", "bot");
    let ended = run(bot.env_remove("MATRIX_PASSWORD"), PATIENCE);
    let expected = "Error: \"MATRIX_PASSWORD is not set\"\n";
    assert_eq!((ended.code, &*ended.stderr), (Some(1), expected));
}

#[test]
fn the_index_names_every_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let index = fs::read_to_string(root.join("README.md")).unwrap();
    for entry in fs::read_dir(&root).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".rs") {
            assert!(index.contains(&format!("]({name})")), "{name}");
        }
    }
}

#[test]
fn the_first_and_the_last_are_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for (name, most) in [("hello.rs", 12), ("bot.rs", 100)] {
        let lines = fs::read_to_string(root.join(name)).unwrap().lines().count();
        assert!(lines <= most, "{name}: {lines} lines");
    }
}
