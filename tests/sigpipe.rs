//! A send on a connection that the peer has reset must not end a process whose SIGPIPE is at its
//! default, as a C host's is.
//!
//! Rust's runtime ignores SIGPIPE before `main`, and restoring it takes an unsafe call, which this
//! package forbids. So the child runs under strace, which makes the one `rt_sigaction` that would
//! ignore the signal do nothing.

mod common;

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use common::{Bench, Gate, Server, ok};

const CHILD: &str = "HTTPSTREAM_TEST_SIGPIPE";
const SIGPIPE: i32 = 13;

fn strace(args: &[&str], part: &str) -> Output {
    Command::new("strace")
        .args(args)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, part)
        .output()
        .unwrap()
}

#[test]
fn a_reset_connection_does_not_kill_a_process_that_leaves_sigpipe_at_its_default() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: no strace");
        return;
    }
    // Which of the runtime's calls it is.
    let calls = strace(&["-e", "trace=rt_sigaction"], "nothing");
    let calls = String::from_utf8_lossy(&calls.stderr).into_owned();
    let mut actions = calls
        .lines()
        .filter(|line| line.starts_with("rt_sigaction("));
    let number =
        actions.position(|line| line.starts_with("rt_sigaction(SIGPIPE, {sa_handler=SIG_IGN"));
    let number = number.unwrap_or_else(|| panic!("the runtime ignores SIGPIPE: {calls}")) + 1;
    let inject = format!("inject=rt_sigaction:retval=0:when={number}");
    let args = ["-e", "trace=rt_sigaction", "-e", &inject];

    let killed = strace(&args, "pipe");
    assert_eq!(
        killed.status.signal(),
        Some(SIGPIPE),
        "the signal is at its default: {killed:?}"
    );

    let survived = strace(&args, "send");
    let out = String::from_utf8_lossy(&survived.stdout);
    assert!(
        survived.status.success() && out.contains("survived"),
        "{survived:?}"
    );
}

#[test]
fn child() {
    let part = std::env::var(CHILD).unwrap_or_default();
    match part.as_str() {
        "pipe" => {
            let (reader, mut writer) = std::io::pipe().unwrap();
            drop(reader);
            let written = writer.write(b"x");
            println!("lived on: {written:?}");
        }
        "send" => {
            sends_on_broken_connections();
            println!("survived");
        }
        _ => {}
    }
}

fn sends_on_broken_connections() {
    let gate = Gate::new();
    let broken = gate.clone();
    let server = Server::start(move |peer| {
        peer.answer(&ok("a"));
        // The end of file first: a reset after it has the next send fail with EPIPE, not
        // ECONNRESET.
        peer.half_close();
        peer.reset();
        broken.open(1);
    });
    let mut bench = Bench::new();
    bench.fetch_ok(server.get("/"));
    for _ in 0..20 {
        // The engine has not turned since: it takes the pooled connection for good, and writes.
        gate.pass();
        let got = bench.fetch_ok(server.post("/", vec![b'x'; 100_000]));
        assert_eq!(got.text(), "a");
    }
    let retried = bench.stats().retried;
    println!("{retried} retried");

    // And in the middle of an upload.
    let server = Server::start(|peer| {
        peer.head();
        peer.half_close();
        peer.reset();
    });
    for _ in 0..20 {
        bench.fetch_err(server.post("/", vec![b'x'; 8 << 20]));
    }
}
