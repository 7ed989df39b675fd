//! The programs of `examples/embed`: the same conversation, byte by byte, in every event loop, and
//! no loop that wakes up without a reason.
//!
//! Each program is a process of its own, which includes its server. Programs that need a feature
//! are tested if the tests are built with it.

use crate::programs;
use crate::servers::example;

#[allow(dead_code, reason = "the client has the rest")]
#[path = "../../examples/embed/conversation"]
mod conversation {
    pub(crate) mod expected;
    pub(crate) mod script;
    pub(crate) mod server;
}

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use conversation::expected;
use conversation::server::Server;
use programs::{Ended, run};

/// A program that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The programs under test: those available with the features of the tests.
const PROGRAMS: &[&str] = &[
    "embed_run",
    "embed_nested",
    "embed_poll",
    "embed_shared",
    #[cfg(feature = "timerfd")]
    "embed_timerfd",
    #[cfg(feature = "tokio")]
    "embed_tokio",
    #[cfg(feature = "calloop")]
    "embed_calloop",
];

fn run_program(name: &str, args: &[&str]) -> Ended {
    run(example(name).args(args), PATIENCE)
}

/// Runs a program twice, once with a server of its own and once with ours. Neither run may differ
/// from the script.
fn converses(name: &str) {
    let expected = expected::transcript();
    let server = Server::open().expect("ports on loopback");
    let [addr, refused] = [server.addr, server.refused].map(|addr| addr.to_string());
    for args in [&["--transcript"][..], &["--transcript", &addr, &refused]] {
        let ended = run_program(name, args);
        for (found, expected) in ended.stdout.lines().zip(expected.lines()) {
            assert_eq!(found, expected, "{name} {args:?}");
        }
        assert!(ended.stdout == expected, "{name} {args:?}: {ended:?}");
        assert_eq!(ended.code, Some(0), "{name} {args:?}: {ended:?}");
    }
}

/// Returns how the program ended when there was little to do. The first call starts all programs,
/// since each takes some seconds, most of them asleep.
fn idled(name: &str) -> Ended {
    type Running = BTreeMap<&'static str, JoinHandle<Ended>>;
    static RUNNING: OnceLock<Mutex<Running>> = OnceLock::new();
    let running = RUNNING.get_or_init(|| {
        let start = |&name| (name, spawn(move || run_program(name, &["--idle"])));
        Mutex::new(PROGRAMS.iter().map(start).collect())
    });
    let mine = running.lock().unwrap().remove(name);
    mine.expect("each is asked for once").join().unwrap()
}

/// With a hundred paused exchanges and a hundred polls held open, each wake-up of the host is
/// caused by a deadline or an answer.
fn sleeps(name: &str) {
    let ended = idled(name);
    let words = ended.stdout.split([' ', ',', '\n']);
    let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    let [wakeups, reasons, paused] = *numbers else {
        panic!("{name}: {ended:?}");
    };
    assert_eq!(paused, 100, "{name}: {ended:?}");
    // Nine beats with a deadline and an answer each, and at least one poll; fewer on a busy
    // machine.
    assert!((4..=40).contains(&reasons), "{name}: {ended:?}");
    assert!(wakeups <= reasons, "{name}: {ended:?}");
    // Reasons that coincide share a wake-up; a host that never woke up would have none.
    assert!(wakeups >= 2, "{name}: {ended:?}");
    assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
}

/// The mode that benchmarks use.
fn fetches(name: &str) {
    let server = Server::open().expect("ports on loopback");
    let url = format!("http://{}/plain", server.addr);
    let ended = run_program(name, &["--fetch", "250", "--at-once", "20", &url]);
    assert_eq!(ended.stdout, "done 250\n", "{name}: {ended:?}");
    assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
}

/// Stops and continues the program while it waits, as with Ctrl-Z or under a debugger. A wait that
/// ends without a reason must not end the loop.
fn goes_on_when_interrupted(name: &str) {
    const STOPPED_AGAIN_AND_AGAIN: &str = r#"
        "$@" & program=$!
        i=0
        while [ $i -lt 60 ]; do
            i=$((i + 1))
            sleep 0.01
            kill -STOP $program 2>/dev/null && kill -CONT $program 2>/dev/null
        done
        wait $program"#;
    let server = Server::open().expect("ports on loopback");
    let url = format!("http://{}/plain", server.addr);
    let mut shell = Command::new("sh");
    shell.args(["-c", STOPPED_AGAIN_AND_AGAIN, "sh"]);
    shell
        .arg(example(name).get_program())
        .args(["--fetch", "5000", "--at-once", "2", &url]);
    let ended = run(&mut shell, PATIENCE);
    assert_eq!(ended.stdout, "done 5000\n", "{name}: {ended:?}");
    assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
}

macro_rules! hosts {
    ($($(#[$when:meta])* $host:ident)*) => {$(
        $(#[$when])*
        mod $host {
            const NAME: &str = concat!("embed_", stringify!($host));

            #[test]
            fn converses_as_the_script_has_it() {
                super::converses(NAME);
            }

            #[test]
            fn sleeps_while_nothing_happens() {
                super::sleeps(NAME);
            }

            #[test]
            fn fetches_as_often_as_it_is_told() {
                super::fetches(NAME);
            }

            #[test]
            fn goes_on_when_interrupted() {
                super::goes_on_when_interrupted(NAME);
            }
        }
    )*};
}

hosts! {
    run
    nested
    poll
    shared
    #[cfg(feature = "timerfd")]
    timerfd
    #[cfg(feature = "tokio")]
    tokio
    #[cfg(feature = "calloop")]
    calloop
}
