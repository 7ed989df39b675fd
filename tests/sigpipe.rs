//! A send on a connection that the peer has reset must not kill a process that leaves SIGPIPE at
//! its default, as C hosts do.
//!
//! Rust's runtime ignores SIGPIPE before `main`, and restoring the default takes an unsafe call,
//! which this package forbids. The child therefore runs under strace, which turns the one
//! `rt_sigaction` that would ignore the signal into a no-op.

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
        println!("skipped: strace is not installed");
        return;
    }
    // Find the runtime's call.
    let calls = strace(&["-e", "trace=rt_sigaction"], "nothing");
    let calls = String::from_utf8_lossy(&calls.stderr).into_owned();
    let mut actions = calls
        .lines()
        .filter(|line| line.starts_with("rt_sigaction("));
    let number =
        actions.position(|line| line.starts_with("rt_sigaction(SIGPIPE, {sa_handler=SIG_IGN"));
    let number =
        number.unwrap_or_else(|| panic!("the runtime does not ignore SIGPIPE: {calls}")) + 1;
    let inject = format!("inject=rt_sigaction:retval=0:when={number}");
    let args = ["-e", "trace=rt_sigaction", "-e", &inject];

    let killed = strace(&args, "pipe");
    assert_eq!(
        killed.status.signal(),
        Some(SIGPIPE),
        "the signal is not at its default: {killed:?}"
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
        // The end of file first: if a reset follows it, the next send fails with EPIPE, not
        // ECONNRESET.
        peer.half_close();
        peer.reset();
        broken.open(1);
    });
    let mut bench = Bench::new();
    bench.fetch_ok(server.get("/"));
    for _ in 0..20 {
        // The engine has not turned since, so it considers the pooled connection usable, and
        // writes.
        gate.pass();
        let got = bench.fetch_ok(server.post("/", vec![b'x'; 100_000]));
        assert_eq!(got.text(), "a");
    }
    let retried = bench.stats().retried;
    println!("{retried} retried");

    // The same during an upload.
    let server = Server::start(|peer| {
        peer.head();
        peer.half_close();
        peer.reset();
    });
    for _ in 0..20 {
        bench.fetch_err(server.post("/", vec![b'x'; 8 << 20]));
    }
}
