//! The cost of a request and of a wait, in counts, which are the same on every machine, however
//! busy.
//!
//! Heap, calls and instructions are those of `examples/hold` and `examples/load` in release builds,
//! which this test makes itself, with the server in a process of its own. Allocations are counted
//! in the crate's `tests/allocations.rs`.

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

/// Returns an example in a release build. The examples are built once, by the cargo that runs this,
/// in its usual target directory.
fn release_example(name: &str) -> &'static Path {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let names = ["embed_run", "embed_shared", "hold", "load", "lookups"];
    &BUILT.get_or_init(|| build(names.iter().flat_map(|name| ["--example", name])))[name]
}

/// Builds with these arguments, and returns the executables by name.
fn build<'a>(args: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, PathBuf> {
    let output = checks::cargo()
        .args(["build", "--locked", "--release", "--message-format=json"])
        .args(args)
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
}

/// Whether a tool is installed. If not, prints that the test is skipped.
fn has_tool(name: &str) -> bool {
    let found = Command::new(name).arg("--version").output().is_ok();
    if !found {
        println!("skipped: {name} is not installed");
    }
    found
}

/// `lookups` measures the processor time of its thread, which other programs hardly affect. If they
/// do, another run shows it.
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
    assert_eq!(table.matches("individual").count(), 2, "{table}");
    assert_eq!(table.matches("in a session").count(), 1, "{table}");
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

/// The system calls of a program's main thread, which runs the engine. Servers are left out.
struct Traced {
    /// The program's output.
    summary: String,
    /// One call per line, as strace prints them.
    trace: String,
}

fn trace(strace: &[&str], program: &Path, args: &[&str]) -> Traced {
    let output = Command::new("strace")
        .args(["-e", "signal=none"])
        .args(strace)
        .arg("--")
        .arg(program)
        .args(args)
        .output()
        .expect("strace can be started");
    Traced {
        summary: String::from_utf8_lossy(&output.stdout).into_owned(),
        trace: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn trace_load(strace: &[&str], target: &[&str], requests: u64) -> Traced {
    let requests = requests.to_string();
    let args = [target, &["--requests", &requests]].concat();
    trace(strace, release_example("load"), &args)
}

/// System calls by name, and by [`LOOK`].
type Calls = BTreeMap<String, u64>;

/// A read that finds nothing: if the program had to wait for a millisecond between a response and
/// the next request, the engine checks the connection before it uses it again.
const LOOK: &str = "look";

/// Returns the name under which a line of a trace is counted.
fn name_of<'a>(call: &'a str, rest: &str) -> &'a str {
    match call == "recvfrom" && rest.contains("= -1 EAGAIN") {
        true => LOOK,
        false => call,
    }
}

impl Traced {
    /// Returns how often each system call was made.
    fn calls(&self) -> Calls {
        let mut calls = Calls::new();
        for line in self.trace.lines() {
            if let Some((name, rest)) = line.split_once('(') {
                *calls.entry(name_of(name, rest).to_owned()).or_default() += 1;
            }
        }
        calls
    }

    /// Returns the calls on sockets and on the poll, of all kinds, up to the summary.
    fn on_sockets_and_poll(&self) -> Calls {
        let (mut calls, mut ours) = (Calls::new(), BTreeSet::new());
        for line in self.trace.lines() {
            let Some((name, rest)) = line.split_once('(') else {
                continue;
            };
            let first = rest.split([',', ')']).next();
            let is_counted = match name {
                "write" if first == Some("1") => break,
                "epoll_create1" | "socket" => {
                    // A failed call ends with the name of the error.
                    ours.extend(rest.rsplit(" = ").next());
                    name == "socket"
                }
                _ => first.is_some_and(|fd| ours.contains(fd)),
            };
            if is_counted {
                *calls.entry(name_of(name, rest).to_owned()).or_default() += 1;
            }
            if name == "close" {
                first.map(|fd| ours.remove(fd));
            }
        }
        calls
    }
}

/// Returns how often `load` makes each system call.
fn calls_of_load(target: &[&str], requests: u64) -> Calls {
    let traced = trace_load(&[], target, requests);
    let Traced { summary, trace } = &traced;
    assert!(summary.contains("(0 failed)"), "{summary}{trace}");
    traced.calls()
}

/// A server on a unix socket, which runs as long as the tests. It closes a connection after a
/// request for `/close`.
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

/// A target and manner of 200 requests by `load`, and the system calls that these take.
struct Row<'a> {
    why: &'a str,
    strace: &'a [&'a str],
    target: &'a [&'a str],
    connections: &'a [&'a str],
    exactly: &'a [(&'a str, u64)],
    /// Calls whose number varies within these bounds: requests that met a connection that was just
    /// closed, and calls interrupted by a signal.
    about: &'a [(&'a str, u64, u64)],
}

#[test]
fn every_way_to_connect_takes_the_calls_that_it_needs() {
    if !has_tool("strace") {
        return;
    }
    // An address without a listener.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let refuses = format!("http://{}/", listener.local_addr().expect("it listens"));
    drop(listener);
    let unix = UnixServer::start();
    const NAME: &str = "http://unix.invalid";
    let closes = format!("{NAME}/close");
    let row = Row {
        why: "",
        strace: &[],
        target: &["--path", "/close"],
        connections: &["1", "50"],
        exactly: &[],
        about: &[],
    };
    let rows = [
        Row {
            why: "keep-alive",
            target: &["--path", "/small"],
            connections: &["1"],
            exactly: &[
                ("socket", 1),
                ("connect", 1),
                ("getsockname", 1),
                ("epoll_ctl", 1),
                ("sendmsg", 200),
                ("recvfrom", 200),
            ],
            ..row
        },
        Row {
            why: "keep-alive, with 32 idle connections at most",
            target: &["--path", "/small"],
            connections: &["50"],
            exactly: &[
                ("socket", 50),
                ("connect", 50),
                ("getsockname", 50),
                ("epoll_ctl", 50 + 18),
                ("sendmsg", 200),
                ("recvfrom", 200),
                ("close", 18),
            ],
            ..row
        },
        Row {
            why: "a connection per request",
            exactly: &[
                ("socket", 200),
                ("connect", 200),
                ("getsockname", 200),
                ("epoll_ctl", 400),
                ("sendmsg", 200),
                ("recvfrom", 200),
                ("close", 200),
            ],
            ..row
        },
        Row {
            why: "options on each socket",
            target: &["--options", "--path", "/close"],
            exactly: &[
                ("socket", 200),
                // Making a socket non-blocking reads its flags first.
                ("fcntl", 400),
                // Two buffers, keepalive with its time, interval and probes, and TCP_NODELAY.
                ("setsockopt", 7 * 200),
                ("bind", 200),
                ("connect", 200),
                ("getsockname", 200),
                ("epoll_ctl", 400),
                ("sendmsg", 200),
                ("recvfrom", 200),
                ("close", 200),
            ],
            ..row
        },
        Row {
            why: "options, and occasionally no port of the source",
            strace: &["-e", "inject=bind:error=EADDRINUSE:when=7+50"],
            target: &["--options", "--path", "/close"],
            exactly: &[
                ("socket", 204),
                ("fcntl", 408),
                ("setsockopt", 7 * 200 + 2 * 4),
                ("bind", 204),
                ("connect", 200),
                ("getsockname", 200),
                ("epoll_ctl", 400),
                ("sendmsg", 200),
                ("recvfrom", 200),
                ("close", 204),
            ],
            ..row
        },
        Row {
            why: "options, and a source that is occasionally not local",
            strace: &["-e", "inject=bind:error=EADDRNOTAVAIL:when=7+10"],
            target: &["--options", "--path", "/close"],
            exactly: &[
                ("socket", 200),
                ("fcntl", 400),
                ("setsockopt", 7 * 180 + 2 * 20),
                ("bind", 200),
                ("connect", 180),
                ("getsockname", 180),
                ("epoll_ctl", 360),
                ("sendmsg", 180),
                ("recvfrom", 180),
                ("close", 200),
            ],
            ..row
        },
        Row {
            why: "a unix socket, kept alive",
            target: &["--unix", &unix.path, "--url", NAME],
            connections: &["1"],
            exactly: &[
                ("socket", 1),
                ("fcntl", 2),
                ("connect", 1),
                ("epoll_ctl", 1),
                ("sendmsg", 200),
                ("recvfrom", 200),
            ],
            ..row
        },
        Row {
            why: "a unix socket, with 32 idle connections at most",
            target: &["--unix", &unix.path, "--url", NAME],
            connections: &["50"],
            exactly: &[
                ("socket", 50),
                ("fcntl", 100),
                ("connect", 50),
                ("epoll_ctl", 50 + 18),
                ("sendmsg", 200),
                ("recvfrom", 200),
                ("close", 18),
            ],
            ..row
        },
        Row {
            why: "a unix socket, a connection per request, with a read for its end",
            target: &["--unix", &unix.path, "--url", &closes],
            exactly: &[("socket", 200), ("fcntl", 400), ("connect", 200)],
            // The end of the last one may arrive after the summary.
            about: &[
                ("epoll_ctl", 399, 400),
                ("sendmsg", 200, 300),
                ("recvfrom", 300, 400),
                ("close", 199, 200),
            ],
            ..row
        },
        Row {
            why: "a unix socket whose queue is occasionally full",
            strace: &["-e", "inject=connect:error=EAGAIN:when=7+50"],
            target: &["--unix", &unix.path, "--url", &closes],
            exactly: &[("socket", 204), ("fcntl", 408), ("connect", 204)],
            about: &[
                ("epoll_ctl", 399, 400),
                // A request is resent at most once.
                ("sendmsg", 200, 400),
                ("recvfrom", 300, 400),
                ("close", 203, 204),
            ],
            ..row
        },
        Row {
            why: "a unix socket that does not exist",
            target: &["--unix", "/nowhere/to.sock", "--url", NAME],
            exactly: &[
                ("socket", 200),
                ("fcntl", 400),
                ("connect", 200),
                ("close", 200),
            ],
            ..row
        },
        Row {
            why: "refused",
            target: &["--url", &refuses],
            exactly: &[
                ("socket", 200),
                ("connect", 200),
                ("epoll_ctl", 400),
                ("sendmsg", 200),
                ("close", 200),
            ],
            ..row
        },
        Row {
            why: "unreachable, which connect reports at once",
            target: &["--url", "http://127.255.255.255/"],
            exactly: &[("socket", 200), ("connect", 200), ("close", 200)],
            ..row
        },
        Row {
            why: "occasionally no descriptor",
            strace: &["-e", "inject=socket:error=EMFILE:when=7+50"],
            exactly: &[
                ("socket", 204),
                ("connect", 200),
                ("getsockname", 200),
                ("epoll_ctl", 400),
                ("sendmsg", 200),
                ("recvfrom", 200),
                ("close", 200),
            ],
            ..row
        },
        Row {
            why: "occasionally no port, with a check whether the address is reachable at all",
            strace: &["-e", "inject=connect:error=EADDRNOTAVAIL:when=7+50"],
            exactly: &[
                ("socket", 210),
                ("bind", 5),
                ("connect", 210),
                ("getsockname", 200),
                ("epoll_ctl", 400),
                ("sendmsg", 200),
                ("recvfrom", 200),
                ("close", 210),
            ],
            ..row
        },
        Row {
            why: "no source address after a while",
            strace: &["-e", "inject=connect:error=EADDRNOTAVAIL:when=7+"],
            exactly: &[
                ("socket", 6 + 2 * 194),
                ("bind", 194),
                ("connect", 6 + 2 * 194),
                ("getsockname", 6),
                ("epoll_ctl", 12),
                ("sendmsg", 6),
                ("recvfrom", 6),
                ("close", 6 + 2 * 194),
            ],
            ..row
        },
        Row {
            why: "occasionally an address family that the kernel does not support",
            strace: &["-e", "inject=socket:error=EAFNOSUPPORT:when=7+10"],
            exactly: &[
                ("socket", 200),
                ("connect", 180),
                ("getsockname", 180),
                ("epoll_ctl", 360),
                ("sendmsg", 180),
                ("recvfrom", 180),
                ("close", 180),
            ],
            ..row
        },
        Row {
            why: "occasionally interrupted by a signal",
            strace: &[
                "-e",
                "inject=sendmsg,recvfrom,epoll_wait:error=EINTR:when=7+10",
            ],
            target: &["--path", "/small"],
            connections: &["1"],
            exactly: &[
                ("socket", 1),
                ("connect", 1),
                ("getsockname", 1),
                ("epoll_ctl", 1),
            ],
            about: &[("sendmsg", 220, 250), ("recvfrom", 220, 250)],
        },
    ];
    for row in &rows {
        for connections in row.connections {
            let target = [row.target, &["--connections", connections]].concat();
            let mut calls = trace_load(row.strace, &target, 200).on_sockets_and_poll();
            println!("{}, C={connections}: {calls:?}", row.why);
            // The number of answers that a wait returns varies, and so does the number of checks of
            // connections.
            calls.remove("epoll_wait");
            calls.remove(LOOK);
            // Not counted: when the poll is made, the waker is registered, and the resolver gets a
            // duplicate of the poll.
            for name in ["epoll_ctl", "fcntl"] {
                calls.entry(name.to_owned()).and_modify(|count| *count -= 1);
            }
            calls.retain(|_, count| *count > 0);
            for &(name, least, most) in row.about {
                let count = calls.remove(name).unwrap_or(0);
                let fits = (least..=most).contains(&count);
                assert!(fits, "{}, C={connections}: {count} {name}", row.why);
            }
            let exactly = row.exactly.iter();
            let exactly: Calls = exactly.map(|&(name, n)| (name.to_owned(), n)).collect();
            assert_eq!(calls, exactly, "{}, C={connections}", row.why);
        }
    }
}

/// Checks the calls of a program that sends this many requests, where `calls` returns its calls.
/// Returns those of the longer of two runs.
fn assert_one_write_and_one_read(
    what: &str,
    [few, many]: [u64; 2],
    calls: impl Fn(u64) -> Calls,
) -> Calls {
    let count = |calls: &Calls, name: &str| calls.get(name).copied().unwrap_or(0);
    let requests = many - few;
    let most_looks = requests / 20;
    let (mut before, mut after) = (calls(few), calls(many));
    // How often the program has to wait varies.
    for _ in 0..2 {
        if count(&after, LOOK) > most_looks {
            (before, after) = (calls(few), calls(many));
        }
    }
    let looks = count(&after, LOOK);
    assert!(looks <= most_looks, "{looks} checks, {what}");
    for (name, expected) in [
        ("sendmsg", requests),
        ("recvfrom", requests),
        ("epoll_ctl", 0),
        ("socket", 0),
        ("close", 0),
    ] {
        let found = count(&after, name) - count(&before, name);
        assert_eq!(found, expected, "{name}, {what}");
    }
    // No other call is made for each request, except for waiting and, after a longer wait, giving
    // up the processor.
    for name in after.keys() {
        let expected = matches!(
            &**name,
            "sendmsg" | "recvfrom" | LOOK | "epoll_wait" | "ppoll"
        );
        let grown = count(&after, name).saturating_sub(count(&before, name));
        assert!(expected || grown < 100, "{name} {grown} times, {what}");
    }
    after
}

#[test]
fn a_request_is_one_write_and_one_read() {
    if !has_tool("strace") {
        return;
    }
    // Arguments of `load`, and the number of connections whose own address is queried, which is
    // each of them once.
    const ROWS: [(&[&str], u64); 4] = [
        (&["--connections", "1"], 1),
        (&["--connections", "50"], 50),
        (&["--connections", "1", "--tls"], 1),
        (&["--connections", "50", "--tls"], 50),
    ];
    for (target, asked) in ROWS {
        let calls = |requests| calls_of_load(target, requests);
        let calls = assert_one_write_and_one_read(&format!("{target:?}"), [500, 2500], calls);
        let found = calls.get("getsockname").copied().unwrap_or(0);
        assert_eq!(found, asked, "getsockname, {target:?}");
    }
}

/// Returns the system calls per request on sockets and the poll, as strace counts them. The least
/// of some runs counts, since the number of pieces in which a response arrives varies.
fn least_calls_of_load(args: &[&str], requests: u64, bar: f64) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..5 {
        let traced = trace_load(&[], args, requests);
        let Traced { summary, trace } = &traced;
        assert!(summary.contains("(0 failed)"), "{summary}{trace}");
        let calls: u64 = traced.on_sockets_and_poll().values().sum();
        least = least.min(calls as f64 / requests as f64);
        if least <= bar {
            break;
        }
    }
    least
}

#[test]
fn large_bodies_pipelines_and_new_connections_take_few_calls() {
    if !has_tool("strace") {
        return;
    }
    const ROWS: [(&[&str], u64, f64); 4] = [
        // A server that is slower than the client makes it wait for each piece, which varies
        // between 13 and 20. This row checks that no buffer is small.
        (&["--path", "/huge"], 500, 28.0),
        (&["--path", "/huge", "--stream"], 500, 28.0),
        // Besides the wait, which many share: socket, connect, two calls on the poll, send,
        // getsockname, receive, close. The limit is that of docs/PERFORMANCE.md.
        (&["--path", "/close", "--connections", "50"], 2000, 8.1),
        // Sixteen share a wait, a read and a write, after a start with fewer.
        (&["--pipeline", "16"], 3200, 3.25 / 16.0),
    ];
    for (args, requests, bar) in ROWS {
        let each = least_calls_of_load(args, requests, bar);
        println!("{args:?}: {each:.2} system calls per request, limit {bar}");
        assert!(each <= bar, "{args:?}: {each} exceeds {bar}");
    }
}

#[test]
fn deadlines_that_are_not_reached_cost_no_system_calls() {
    if !has_tool("strace") {
        return;
    }
    let built = build(["--features", "timerfd", "--example", "embed_timerfd"]);
    let url = format!("http://{}/small", start_server());
    for at_once in ["1", "10"] {
        let calls = |requests: u64| {
            let requests = requests.to_string();
            let args = ["--fetch", &requests, "--at-once", at_once, &url];
            let traced = trace(&[], &built["embed_timerfd"], &args);
            let done = format!("done {requests}\n");
            assert_eq!(traced.summary, done, "{}", traced.trace);
            traced.calls()
        };
        let what = format!("{at_once} at once");
        let calls = assert_one_write_and_one_read(&what, [1000, 11_000], calls);
        // The first deadline sets the timer. Each time the timer fires, for nothing, it is set to
        // the next deadline.
        let set = calls["timerfd_settime"];
        assert!((1..=10).contains(&set), "{set} times, {what}");
    }
}

#[test]
fn a_connection_is_registered_once_and_deregistered_once() {
    if !has_tool("strace") {
        return;
    }
    let (few, many) = (100, 600);
    let before = calls_of_load(&["--path", "/close"], few);
    let after = calls_of_load(&["--path", "/close"], many);
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

/// Returns the user-space instructions of `load`, without its server.
fn instructions_of_load(args: &[&str], requests: u64) -> u64 {
    let mut load = Command::new("valgrind");
    load.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(release_example("load"))
        .args(args)
        .args(["--requests", &requests.to_string()]);
    collected(load)
}

/// Returns the number of instructions that callgrind counted.
fn collected(mut valgrind: Command) -> u64 {
    let output = valgrind.output().expect("valgrind can be started");
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
    report
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok())
        .unwrap_or_else(|| panic!("no count from callgrind: {report}"))
}

/// Returns the cost of one more request, where `count` returns the cost of this many.
fn each(bar: f64, count: impl Fn(u64) -> u64) -> f64 {
    let (few, many) = (1000, 4000);
    let (mut least_few, mut least_many, mut each) = (u64::MAX, u64::MAX, f64::INFINITY);
    // The number of pieces in which a response arrives varies, so a row over its limit is counted
    // again. The least count of each length is used: if only the shorter run were disturbed, a
    // request would seem cheap.
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
        println!(
            "{at_once} at once: {run:.0} instructions per request with run, {shared:.0} shared"
        );
        assert!(
            shared <= run * 1.05,
            "{at_once} at once: {shared} and {run}"
        );
    }
}

/// Neither a redirect nor a cookie is on the wire.
#[test]
fn a_session_takes_few_instructions_more() {
    const MORE: f64 = 900.0;
    if !has_tool("valgrind") {
        return;
    }
    for connections in ["1", "50"] {
        let args = ["--path", "/small", "--connections", connections];
        let without = each(0.0, |requests| instructions_of_load(&args, requests));
        let args = [&args[..], &["--session"]].concat();
        let bar = without + MORE;
        let within = each(bar, |requests| instructions_of_load(&args, requests));
        let more = within - without;
        println!("{args:?}: {more:.0} instructions more per request, limit {MORE}");
        assert!(within <= bar, "{args:?}: {within} after {without}");
    }
}

#[test]
fn a_request_takes_few_instructions() {
    if !has_tool("valgrind") {
        return;
    }
    // The limits of docs/PERFORMANCE.md if they are less than a tenth away, otherwise a twentieth
    // more than the count when this was written.
    const ROWS: [(&[&str], f64); 11] = [
        (&["--path", "/small"], 4500.0),
        (&["--path", "/small", "--connections", "50"], 3910.0),
        (&["--path", "/chunked"], 5500.0),
        (&["--path", "/chunked", "--connections", "50"], 4910.0),
        (&["--path", "/fields"], 9000.0),
        (&["--path", "/large"], 5000.0),
        (&["--path", "/large", "--connections", "50"], 3930.0),
        // One turn per request or two, which varies: it depends on whether the response arrives
        // before the connection is reported writable.
        (&["--path", "/close"], 6840.0),
        (&["--path", "/close", "--connections", "50"], 5820.0),
        (&["--path", "/small", "--pipeline", "16"], 3910.0),
        // Most of these are rustls' and ring's.
        (&["--path", "/small", "--tls"], 10_400.0),
    ];
    for (args, bar) in ROWS {
        let each = each(bar, |requests| instructions_of_load(args, requests));
        println!("{args:?}: {each:.0} instructions per request, limit {bar}");
        assert!(each <= bar, "{args:?}: {each} exceeds {bar}");
    }
}
