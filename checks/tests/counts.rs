//! What a request and a wait cost, in counts: they are the same on every machine, however busy it is.
//!
//! Heap, calls and instructions are those of `examples/hold` and `examples/load` in a release build, which this makes itself, with
//! the server in a process of its own. Allocations are counted in `tests/allocations.rs` of the crate.

#[path = "../../examples/support/server.rs"]
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Starts a server on another thread.
fn start_server() -> SocketAddr {
    let listener = server::listen().expect("a port on loopback");
    let addr = listener.local_addr().expect("it listens");
    std::thread::spawn(move || server::serve(listener));
    addr
}

/// The examples as they are measured: built once, by the cargo that runs this, where it builds everything else.
fn release_example(name: &str) -> &'static Path {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let output = checks::cargo()
            .args(["build", "--locked", "--release", "--message-format=json"])
            .args([
                "--example",
                "embed_run",
                "--example",
                "embed_shared",
                "--example",
                "hold",
                "--example",
                "load",
                "--example",
                "lookups",
            ])
            .output()
            .expect("cargo can be started");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cargo build: {complaint}");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| {
                let message: serde_json::Value = serde_json::from_str(line).ok()?;
                let name = message["target"]["name"].as_str()?.to_owned();
                Some((name, message["executable"].as_str()?.into()))
            })
            .collect()
    });
    &built[name]
}

/// Whether a tool is there; says so where it is not, which `.ci/run` takes for a failure.
fn has_tool(name: &str) -> bool {
    let found = Command::new(name).arg("--version").output().is_ok();
    if !found {
        println!("skipped: {name} is not installed");
    }
    found
}

/// `lookups` counts the time that its thread computes, which other programs on the machine hardly change; where one did all the same,
/// another run shows it.
#[test]
fn ten_thousand_look_ups_at_once_hold_up_no_turn_and_leave_nothing() {
    let mut tables = String::new();
    for _ in 0..3 {
        let output = Command::new(release_example("lookups"))
            .output()
            .expect("lookups can be started");
        tables += &String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(complaint.is_empty(), "{tables}{complaint}");
        if output.status.success() {
            println!("{tables}");
            return;
        }
    }
    panic!("{tables}");
}

#[test]
fn held_polls_and_delayed_requests_are_small() {
    let output = Command::new(release_example("hold"))
        .args(["--polls", "2000", "--delayed", "100000"])
        .output()
        .expect("hold can be started");
    let (table, complaint) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{table}{complaint}");
    assert_eq!(table.matches("of one request").count(), 2, "{table}");
    assert_eq!(table.matches("of their own").count(), 2, "{table}");
}

#[test]
fn held_https_polls_take_little_beside_what_rustls_keeps() {
    let output = Command::new(release_example("hold"))
        .args(["--polls", "1000", "--delayed", "0", "--tls"])
        .output()
        .expect("hold can be started");
    let (table, complaint) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    println!("{table}");
    assert!(output.status.success(), "{table}{complaint}");
    assert_eq!(table.matches("held https polls").count(), 1, "{table}");
    assert_eq!(table.matches("goal reached").count(), 1, "{table}");
}

/// The system calls of `load`, its server left out.
struct Traced {
    /// What `load` prints.
    summary: String,
    /// A call a line, as strace prints them. It traces one thread, which is the engine's.
    trace: String,
}

fn trace_load(strace: &[&str], target: &[&str], connections: u64, requests: u64) -> Traced {
    let output = Command::new("strace")
        .args(["-e", "signal=none"])
        .args(strace)
        .arg("--")
        .arg(release_example("load"))
        .args(target)
        .args(["--connections", &connections.to_string()])
        .args(["--requests", &requests.to_string()])
        .output()
        .expect("strace can be started");
    Traced {
        summary: String::from_utf8_lossy(&output.stdout).into_owned(),
        trace: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Traced {
    /// Calls that `load` says its engine has made.
    fn counted(&self) -> u64 {
        let rest = self.summary.split("system calls ").nth(1);
        let count = rest.and_then(|rest| rest.split(' ').next()?.parse().ok());
        count.unwrap_or_else(|| panic!("load counts: {}{}", self.summary, self.trace))
    }

    /// Calls on sockets and on the poll, whatever they are, up to the summary.
    fn on_sockets_and_poll(&self) -> u64 {
        let (mut calls, mut ours) = (0, BTreeSet::new());
        for line in self.trace.lines() {
            let Some((name, rest)) = line.split_once('(') else {
                continue;
            };
            let first = rest.split([',', ')']).next();
            match name {
                "write" if first == Some("1") => break,
                "epoll_create1" | "socket" => {
                    calls += u64::from(name == "socket");
                    // A failed one ends with the error's name.
                    ours.extend(rest.rsplit(" = ").next());
                }
                _ if first.is_some_and(|fd| ours.contains(fd)) => calls += 1,
                _ => {}
            }
            if name == "close" {
                first.map(|fd| ours.remove(fd));
            }
        }
        // When the poll is made, the waker is registered, and the resolver gets a duplicate.
        calls - 2
    }
}

/// How often `load` makes each system call.
fn calls_of_load(target: &[&str], connections: u64, requests: u64) -> BTreeMap<String, u64> {
    let Traced { summary, trace } = trace_load(&[], target, connections, requests);
    assert!(summary.contains("(0 failed)"), "{summary}{trace}");
    let mut calls = BTreeMap::new();
    for line in trace.lines() {
        if let Some((name, _)) = line.split_once('(') {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    calls
}

/// A server on a unix socket, as long as the tests run. It closes a connection on which `/close` was asked for.
struct UnixServer {
    path: String,
}

impl UnixServer {
    fn start() -> Self {
        let file = format!("httpstream-counts-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(file);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket in the temporary directory");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || Self::serve(stream));
            }
        });
        Self {
            path: path.to_str().expect("a path in UTF-8").to_owned(),
        }
    }

    fn serve(mut stream: UnixStream) {
        let mut head = Vec::new();
        let mut byte = [0];
        while let Ok(1) = stream.read(&mut byte) {
            head.push(byte[0]);
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            let answered = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na");
            if answered.is_err() || head.starts_with(b"GET /close ") {
                return;
            }
            head.clear();
        }
    }
}

impl Drop for UnixServer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn an_engine_counts_its_system_calls() {
    if !has_tool("strace") {
        return;
    }
    // Where nobody listens any more.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let refuses = format!("http://{}/", listener.local_addr().expect("it listens"));
    drop(listener);
    let unix = UnixServer::start();
    const NOTHING: &[&str] = &[];
    const NAME: &str = "http://unix.invalid";
    let closes = format!("{NAME}/close");
    let rows: &[(&str, &[&str], &[&str])] = &[
        ("keep-alive", NOTHING, &["--path", "/small"]),
        ("a connection a request", NOTHING, &["--path", "/close"]),
        (
            "options on each socket",
            NOTHING,
            &["--options", "--path", "/close"],
        ),
        (
            "options, and now and then no port of the source",
            &["-e", "inject=bind:error=EADDRINUSE:when=7+50"],
            &["--options", "--path", "/close"],
        ),
        (
            "options, and a source that is now and then not this machine's",
            &["-e", "inject=bind:error=EADDRNOTAVAIL:when=7+10"],
            &["--options", "--path", "/close"],
        ),
        (
            "a unix socket, kept alive",
            NOTHING,
            &["--unix", &unix.path, "--url", NAME],
        ),
        (
            "a unix socket, a connection a request",
            NOTHING,
            &["--unix", &unix.path, "--url", &closes],
        ),
        (
            "a unix socket whose queue is now and then full",
            &["-e", "inject=connect:error=EAGAIN:when=7+50"],
            &["--unix", &unix.path, "--url", &closes],
        ),
        (
            "a unix socket that is not there",
            NOTHING,
            &["--unix", "/nowhere/to.sock", "--url", NAME],
        ),
        ("refused", NOTHING, &["--url", &refuses]),
        (
            "unreachable, as connect says at once",
            NOTHING,
            &["--url", "http://127.255.255.255/"],
        ),
        (
            "now and then no descriptor",
            &["-e", "inject=socket:error=EMFILE:when=7+50"],
            &["--path", "/close"],
        ),
        (
            "now and then no port",
            &["-e", "inject=connect:error=EADDRNOTAVAIL:when=7+50"],
            &["--path", "/close"],
        ),
        (
            "no address to connect from, after a while",
            &["-e", "inject=connect:error=EADDRNOTAVAIL:when=7+"],
            &["--path", "/close"],
        ),
        (
            "now and then an address family that the kernel does not know",
            &["-e", "inject=socket:error=EAFNOSUPPORT:when=7+10"],
            &["--path", "/close"],
        ),
        (
            "now and then interrupted by a signal",
            &[
                "-e",
                "inject=sendmsg,recvfrom,epoll_wait:error=EINTR:when=7+10",
            ],
            &["--path", "/small"],
        ),
    ];
    for (why, strace, target) in rows {
        for connections in [1, 50] {
            let requests = 200;
            let traced = trace_load(strace, target, connections, requests);
            let (counted, seen) = (traced.counted(), traced.on_sockets_and_poll());
            let each = counted as f64 / requests as f64;
            println!("{why}, C={connections}: {each:.3} system calls a request");
            assert_eq!(counted, seen, "{why}, C={connections}");
            assert!(counted > requests, "{why}, C={connections}");
        }
    }
}

#[test]
fn a_request_is_one_write_and_one_read() {
    if !has_tool("strace") {
        return;
    }
    for (scheme, connections) in [("http", 1), ("http", 50), ("https", 1), ("https", 50)] {
        let (few, many) = (500, 2500);
        let target = match scheme {
            "https" => &["--path", "/small", "--tls"][..],
            _ => &["--path", "/small"],
        };
        let before = calls_of_load(target, connections, few);
        let after = calls_of_load(target, connections, many);
        let difference = |name: &str| {
            let count = |calls: &BTreeMap<String, u64>| calls.get(name).copied().unwrap_or(0);
            count(&after) - count(&before)
        };
        for (name, expected) in [
            ("sendmsg", many - few),
            ("recvfrom", many - few),
            ("epoll_ctl", 0),
            ("socket", 0),
            ("close", 0),
        ] {
            let found = difference(name);
            // Where this process was kept waiting for a millisecond between a response and the
            // request behind it, the connection is looked at again: in either of the two runs.
            let slack = match name {
                "recvfrom" => expected / 20,
                _ => 0,
            };
            let fits = found.abs_diff(expected) <= slack;
            assert!(fits, "{found} {name}, {scheme}, C={connections}");
        }
        // Nothing else is called for each request, but for waiting and, where a wait took longer, giving up the processor.
        for (name, count) in &after {
            let expected = matches!(&**name, "sendmsg" | "recvfrom" | "epoll_wait");
            let grown = count - before.get(name).copied().unwrap_or(0).min(*count);
            assert!(
                expected || grown < 100,
                "{name} {grown} times, C={connections}"
            );
        }
    }
}

/// System calls a request, as `load` counts them: the least of some runs, since in how many pieces a response arrives is chance.
fn least_calls_of_load(args: &[&str], requests: u64, bar: f64) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..5 {
        let output = Command::new(release_example("load"))
            .args(args)
            .args(["--requests", &requests.to_string()])
            .output()
            .expect("load can be started");
        assert!(output.status.success(), "{output:?}");
        let load = Traced {
            summary: String::from_utf8_lossy(&output.stdout).into_owned(),
            trace: String::new(),
        };
        least = least.min(load.counted() as f64 / requests as f64);
        if least <= bar {
            break;
        }
    }
    least
}

#[test]
fn large_bodies_and_new_connections_take_few_calls() {
    const ROWS: [(&[&str], u64, f64); 3] = [
        // A server that is slower than the client has it wait for each piece, which is chance: 13 to 20. What is held here is that no buffer is small.
        (&["--path", "/huge"], 500, 28.0),
        (&["--path", "/huge", "--stream"], 500, 28.0),
        // Beside the wait, which many share: socket, connect, two on the poll, send, receive, close.
        (&["--path", "/close", "--connections", "50"], 2000, 7.5),
    ];
    for (args, requests, bar) in ROWS {
        let each = least_calls_of_load(args, requests, bar);
        println!("{args:?}: {each:.2} system calls a request, at most {bar}");
        assert!(each <= bar, "{args:?}: {each}, over {bar}");
    }
}

#[test]
fn a_connection_is_registered_once_and_deregistered_once() {
    if !has_tool("strace") {
        return;
    }
    let (few, many) = (100, 600);
    let before = calls_of_load(&["--path", "/close"], 1, few);
    let after = calls_of_load(&["--path", "/close"], 1, many);
    for (name, each) in [
        ("socket", 1),
        ("connect", 1),
        ("close", 1),
        ("epoll_ctl", 2),
    ] {
        let difference = after[name] - before[name];
        assert_eq!(difference, each * (many - few), "{name}");
    }
}

/// User instructions of `load`, its server left out.
fn instructions_of_load(args: &[&str], requests: u64) -> u64 {
    let mut load = Command::new("valgrind");
    load.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(release_example("load"))
        .args(args)
        .args(["--requests", &requests.to_string()]);
    collected(load)
}

/// What callgrind has counted.
fn collected(mut valgrind: Command) -> u64 {
    let output = valgrind.output().expect("valgrind can be started");
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
    report
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok())
        .unwrap_or_else(|| panic!("callgrind counts: {report}"))
}

/// What one more request costs where `count` tells what so many cost.
fn each(bar: f64, count: impl Fn(u64) -> u64) -> f64 {
    let (few, many) = (1000, 4000);
    let (mut least_few, mut least_many, mut each) = (u64::MAX, u64::MAX, f64::INFINITY);
    // In how many pieces a response arrives is chance: a row over its bar is counted again. Of each length the least counts: a bad moment in the
    // shorter one alone would make a request look cheap.
    for _ in 0..3 {
        least_few = least_few.min(count(few));
        least_many = least_many.min(count(many));
        each = (least_many - least_few) as f64 / (many - few) as f64;
        if each <= bar {
            break;
        }
    }
    each
}

#[test]
fn an_engine_on_its_hosts_poll_costs_five_percent_more_than_run_at_most() {
    if !has_tool("valgrind") {
        return;
    }
    let addr = start_server();
    for at_once in [1, 50] {
        let of = |program: &str, bar: f64| {
            each(bar, |requests| {
                let mut fetch = Command::new("valgrind");
                fetch
                    .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
                    .arg(release_example(program))
                    .args(["--fetch", &requests.to_string()])
                    .args(["--at-once", &at_once.to_string()])
                    .arg(format!("http://{addr}/small"));
                collected(fetch)
            })
        };
        let run = of("embed_run", 0.0);
        let shared = of("embed_shared", run * 1.05);
        println!("{at_once} at once: {run:.0} instructions a request by run, {shared:.0} shared");
        assert!(
            shared <= run * 1.05,
            "{at_once} at once: {shared} and {run}"
        );
    }
}

#[test]
fn a_request_takes_few_instructions() {
    if !has_tool("valgrind") {
        return;
    }
    // The bars of docs/PERFORMANCE.md where that is within a tenth, and else a twentieth over what it was when this was written.
    const ROWS: [(&[&str], f64); 11] = [
        (&["--path", "/small"], 4500.0),
        (&["--path", "/small", "--connections", "50"], 3720.0),
        (&["--path", "/chunked"], 5500.0),
        (&["--path", "/chunked", "--connections", "50"], 4670.0),
        (&["--path", "/fields"], 9000.0),
        (&["--path", "/large"], 5000.0),
        (&["--path", "/large", "--connections", "50"], 3800.0),
        // One turn a request or two: whether the response comes before the news that the connection can be written is chance.
        (&["--path", "/close"], 6500.0),
        (&["--path", "/close", "--connections", "50"], 5320.0),
        (&["--path", "/small", "--pipeline", "16"], 3690.0),
        // Most of them are rustls' and ring's.
        (&["--path", "/small", "--tls"], 10_400.0),
    ];
    for (args, bar) in ROWS {
        let each = each(bar, |requests| instructions_of_load(args, requests));
        println!("{args:?}: {each:.0} instructions a request, at most {bar}");
        assert!(each <= bar, "{args:?}: {each}, over {bar}");
    }
}
