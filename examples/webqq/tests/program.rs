//! The program as its users see it: separate processes on loopback, judged by their exit codes and
//! their output.
//!
//! The judgment is tested as well: [`MUTANTS`] are copies of the program with one thing broken,
//! which must exit with 1.

/// The names of the server's switches, and the modules that they need.
#[allow(dead_code, reason = "only the names are used")]
#[path = "../src/server"]
mod server {
    mod answer;
    pub(crate) mod fault;
    mod step;
    mod wire;
}

#[path = "../../../tests/cargo/mod.rs"]
mod cargo;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A program that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// The same for cargo, which has to build a crate, its dependencies, and a dozen mutants.
const PATIENCE_WITH_CARGO: Duration = Duration::from_secs(1200);

// ---- processes ----

/// A process and its output on both streams. It is killed when this is dropped.
struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// The output so far.
    said: String,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, lines) = channel();
        read_lines(child.stdout.take().unwrap(), sender.clone());
        read_lines(child.stderr.take().unwrap(), sender);
        Self {
            stdin: child.stdin.take(),
            child,
            lines,
            said: String::new(),
        }
    }

    fn webqq(args: &[&str]) -> Self {
        Self::start(Command::new(webqq()).args(args))
    }

    fn type_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is piped");
        writeln!(stdin, "{line}").unwrap_or_else(|error| panic!("{line}: {error}\n{}", self.said));
    }

    /// Waits for the next line that `is_it` accepts.
    fn wait_for(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.next_line(until) {
                Ok(line) if is_it(&line) => return line,
                Ok(_) => {}
                Err(why) => panic!("{what}: {why}\n{}", self.said),
            }
        }
    }

    fn next_line(&mut self, until: Instant) -> Result<String, RecvTimeoutError> {
        let left = until.saturating_duration_since(Instant::now());
        let line = self.lines.recv_timeout(left)?;
        self.said.push_str(&line);
        self.said.push('\n');
        Ok(line)
    }

    /// Reads output until then, and panics if the process has ended.
    fn listen_until(&mut self, until: Instant) {
        while self.next_line(until).is_ok() {}
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("it has ended with {status}:\n{}", self.said);
        }
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status();
        assert!(kill.is_ok_and(|status| status.success()), "kill {name}");
    }

    /// Waits until the process has ended on its own, and returns its exit code and output.
    fn end(self) -> (Option<i32>, String) {
        self.end_within(PATIENCE)
    }

    fn end_within(mut self, limit: Duration) -> (Option<i32>, String) {
        let until = Instant::now() + limit;
        loop {
            match self.next_line(until) {
                Ok(_) => {}
                // Both streams are closed.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("still running after {limit:?}:\n{}", self.said)
                }
            }
        }
        let status = self.child.wait().expect("a child");
        (status.code(), std::mem::take(&mut self.said))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // If it has ended, there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(stream: impl Read + Send + 'static, sender: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
}

// ---- cargo ----

/// Runs `cargo build` with the cargo of this build, offline. Returns the programs by name.
fn build(folder: &Path, args: &[&str]) -> BTreeMap<String, PathBuf> {
    let cargo = Program::start(
        cargo::cargo()
            .args([
                "build",
                "--offline",
                "--message-format=json-render-diagnostics",
            ])
            .args(args)
            .current_dir(folder),
    );
    let (code, output) = cargo.end_within(PATIENCE_WITH_CARGO);
    // Messages for programs are mixed with messages for people.
    let (messages, complaints): (Vec<&str>, Vec<&str>) =
        output.lines().partition(|line| line.starts_with('{'));
    assert_eq!(code, Some(0), "cargo build: {}", complaints.join("\n"));
    let messages = messages.into_iter().map(serde_json::from_str);
    let messages: Vec<Value> = messages.map_while(Result::ok).collect();
    let program = |message: &Value| {
        let name = message["target"]["name"].as_str()?.to_owned();
        Some((name, message["executable"].as_str()?.into()))
    };
    messages.iter().filter_map(program).collect()
}

/// The program, built as users are told to.
fn webqq() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        build(folder, &["--release", "--package", "webqq"])["webqq"].clone()
    })
}

/// Makes an empty folder for a test.
fn fresh_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

// ---- the scripted conversation ----

#[test]
fn the_conversation_ends_well_and_shows_every_switch() {
    let (code, output) = Program::webqq(&[]).end();
    assert_eq!(code, Some(0), "{output}");
    assert!(
        !output.contains('\x1b'),
        "colors without a terminal: {output}"
    );
    // The plugin's crash is reported to the sender of its message only.
    assert!(!output.contains("panicked"), "{output}");
    let (_, table) = output
        .split_once("What went wrong on purpose")
        .expect("a table");
    let rows: Vec<&str> = table.lines().map(str::trim).collect();
    for switch in server::fault::all_switches() {
        let (step, fault) = switch.split_once(": ").unwrap_or(("the session", &switch));
        // A name is followed by its count, by the next name, or by nothing.
        let names = |row: &&&str| {
            let mut places = row.match_indices(fault);
            row.starts_with(step)
                && places.any(|(at, _)| {
                    let rest = &row[at + fault.len()..];
                    rest.is_empty() || rest.starts_with(',') || rest.starts_with(" x")
                })
        };
        assert!(rows.iter().any(|row| names(&row)), "{switch}: {table}");
    }
    for row in ["messages in", "answers out", "logins again", "troubles"] {
        assert!(table.contains(row), "{row}: {table}");
    }
    assert!(!output.contains("TLS"), "{output}");
}

/// Returns how many requests came over TLS, according to the judgment.
fn over_tls(output: &str) -> usize {
    let count = output
        .lines()
        .find_map(|line| line.strip_suffix(" requests came over TLS."));
    count.expect(output).parse().expect(output)
}

#[test]
fn the_conversation_ends_well_over_tls() {
    let (code, output) = Program::webqq(&["--tls"]).end();
    assert_eq!(code, Some(0), "{output}");
    // At least SIG and PTLOGIN of each login.
    assert!(over_tls(&output) > 20, "{output}");
}

/// Reads a log of one object per line.
fn read_log(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn the_logs_agree() {
    let folder = fresh_folder("webqq-logs");
    let (code, output) = Program::webqq(&["--log", folder.to_str().unwrap()]).end();
    assert_eq!(code, Some(0), "{output}");
    let of_kind = |file: &str, kind: &str| {
        let log = read_log(&folder.join(file)).into_iter();
        let entries: Vec<Value> = log.filter(|entry| entry["kind"] == kind).collect();
        entries
    };
    let ids = |entries: &[Value]| {
        let id = |entry: &Value| entry["msg_id"].as_u64().expect("a message has an id");
        let mut ids: Vec<u64> = entries.iter().map(id).collect();
        ids.sort_unstable();
        ids
    };
    let messages = of_kind("server.jsonl", "message");
    assert!(messages.len() > 50, "{} messages", messages.len());
    assert_eq!(ids(&messages), ids(&of_kind("bot.jsonl", "heard")));
    let mut answers = of_kind("server.jsonl", "answer");
    answers.retain(|answer| answer["accepted"] == true);
    let said = of_kind("bot.jsonl", "said").len() + of_kind("bot.jsonl", "perhaps said").len();
    assert!(answers.len() <= said, "{} answers, {said}", answers.len());
}

#[test]
fn answers_are_cut_where_they_are_not_to_be_split() {
    let (code, output) = Program::webqq(&["--long", "cut", "--max-text", "120"]).end();
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains(" [...]"), "{output}");
}

#[test]
fn thirty_bots_share_an_engine() {
    let (code, output) = Program::webqq(&["--accounts", "30"]).end();
    assert_eq!(code, Some(0), "{output}");
    assert!(!output.contains('\x1b'), "{output}");
    let row = output
        .lines()
        .find_map(|line| line.trim().strip_prefix("heap per bot"));
    let kib = row.and_then(|row| row.trim().strip_suffix(" KiB"));
    let kib: f64 = kib.and_then(|kib| kib.parse().ok()).expect(&output);
    assert!(kib > 0.0, "{output}");
}

#[test]
fn two_hundred_bots_share_an_engine_over_tls() {
    let (code, output) = Program::webqq(&["--accounts", "200", "--tls"]).end();
    assert_eq!(code, Some(0), "{output}");
    // SIG, PTLOGIN, two lists, two sends with a signature before one of them, and LOGOUT.
    assert!(over_tls(&output) >= 7 * 200, "{output}");
}

#[test]
fn help_is_given_and_nonsense_is_refused() {
    let (code, output) = Program::webqq(&["--help"]).end();
    assert_eq!(code, Some(0), "{output}");
    for option in [
        "--time-scale",
        "--log",
        "--accounts",
        "--serve",
        "--server",
        "--tls",
        "--cacert",
    ] {
        assert!(output.contains(option), "{option}: {output}");
    }
    for args in [
        &["--bogus"][..],
        &["--accounts", "none"],
        &["--time-scale"],
        &["--serve", "--accounts", "2"],
        &["--https", "127.0.0.1:1"],
        &["--cacert", "root.pem", "--tls"],
        &["--tls", "--server", "127.0.0.1:1", "--https", "127.0.0.1:2"],
    ] {
        let output = Command::new(webqq()).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(output.stdout, b"", "{args:?}");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(complaint.contains(args[0]), "{args:?}: {complaint}");
    }
}

// ---- a person at the terminal ----

#[test]
fn a_person_talks_to_the_bot() {
    let mut webqq = Program::webqq(&["--serve", "--seconds", "100"]);
    let says = |what: &'static str| move |line: &str| line.contains(what);
    webqq.wait_for("a login", says("online"));
    webqq.type_line("ping");
    webqq.wait_for("an answer to a friend", says("#1 pong"));
    webqq.type_line("/as 5");
    webqq.wait_for("a role", says("You are "));
    webqq.type_line("echo hi");
    webqq.wait_for("an answer in a role", says("#2 hi"));
    webqq.type_line("/kick");
    webqq.wait_for("a kick", says("relink"));
    webqq.type_line("ping");
    webqq.wait_for("another login", says("online"));
    webqq.wait_for("an answer after a kick", says("#3 pong"));
    webqq.type_line("/quit");
    let (code, output) = webqq.end();
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("logged out"), "{output}");
}

#[test]
fn a_talk_can_be_limited_in_time() {
    let (code, output) = Program::webqq(&["--serve", "--seconds", "1"]).end();
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("logged out"), "{output}");
}

// ---- TLS between processes ----

/// Starts a server with TLS, and returns what it prints for clients: its addresses for http and
/// https, and its root's file.
fn serve_tls() -> (Program, [String; 3]) {
    let args = ["--server-only", "--tls", "--seconds", "100"];
    let mut server = Program::webqq(&[&args[..], &["--time-scale", "60"]].concat());
    let line = server.wait_for("a server", |line| line.contains("listening at"));
    let places = line
        .strip_prefix("listening at ")
        .and_then(|line| line.split_once(", for https at "))
        .and_then(|(http, rest)| Some((http, rest.split_once("; its root certificate is in ")?)));
    let (http, (https, root)) = places.expect(&line);
    (server, [http, https, root].map(str::to_owned))
}

fn bot_of([http, https, root]: &[String; 3]) -> Program {
    Program::webqq(&[
        "--server",
        http,
        "--tls",
        "--https",
        https,
        "--cacert",
        root,
        "--time-scale",
        "60",
        "--seconds",
        "100",
    ])
}

#[test]
fn a_bot_elsewhere_believes_the_root_that_it_is_given() {
    let (server, places) = serve_tls();
    let mut bot = bot_of(&places);
    watch(&mut bot, 3);
    server.signal("-INT");
    let (code, output) = server.end();
    assert_eq!(code, Some(0), "{output}\n{}", bot.said);
    // Two for the login and two for lists. Questions are answered over http, except for those of
    // the discussion.
    assert!(over_tls(&output) >= 5, "{output}");
    let [.., root] = places;
    assert!(!Path::new(&root).exists(), "{root} is left behind");
    bot.signal("-INT");
    let (code, output) = bot.end_within(Duration::from_secs(20));
    assert_eq!(code, Some(0), "{output}");
}

#[test]
fn a_bot_that_is_given_another_root_says_so_and_stops() {
    let (server, places) = serve_tls();
    let (_other, [_, _, wrong]) = serve_tls();
    let [http, https, _] = places;
    let folder = fresh_folder("webqq-roots");
    let no_root = folder.join("no-root.pem");
    fs::write(&no_root, "there is none in here\n").unwrap();
    let missing = folder.join("missing.pem");
    for (root, complaints) in [
        (
            Path::new(&wrong),
            ["stopped", "certificate has an unknown issuer"],
        ),
        (no_root.as_path(), ["no-root.pem", "no certificate found"]),
        (missing.as_path(), ["missing.pem", "No such file"]),
    ] {
        let root = root.to_str().unwrap().to_owned();
        let (code, output) = bot_of(&[http.clone(), https.clone(), root]).end();
        assert_eq!(code, Some(1), "{output}");
        for complaint in complaints {
            assert!(output.contains(complaint), "{complaint}: {output}");
        }
    }
    // The bots did not send the server anything.
    server.signal("-INT");
    let (code, output) = server.end();
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains(" 0 logins"), "{output}");
    assert!(!output.contains("over TLS"), "{output}");
}

#[test]
fn a_talk_can_be_over_tls() {
    let (code, output) = Program::webqq(&["--serve", "--tls", "--seconds", "1"]).end();
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("logged out"), "{output}");
    assert!(output.contains("its root certificate is in"), "{output}");
}

// ---- mutants ----

/// A copy of the program with parts of its source replaced, and the complaint that its judgment
/// must then print.
struct Mutant {
    name: &'static str,
    /// Its arguments.
    args: &'static [&'static str],
    /// A file, a text that it contains once, and the replacement.
    changes: &'static [(&'static str, &'static str, &'static str)],
    /// All of these must be in one line.
    complaint: &'static [&'static str],
}

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "deduplication-removed",
        args: &[],
        changes: &[(
            "outbox.rs",
            "        if !self.ids.insert(id) {\n            return false;\n        }\n",
            "        self.ids.insert(id);\n",
        )],
        complaint: &["was answered", "times"],
    },
    Mutant {
        name: "old-logins-go-on",
        args: &[],
        changes: &[(
            "sessions.rs",
            "        cx.end(&self.once);\n        cx.end(&self.again);\n",
            "        let _ = cx;\n",
        )],
        complaint: &[
            "Heartbeat",
            "two heartbeats in less than half their interval",
        ],
    },
    Mutant {
        name: "old-lists-go-on",
        args: &[],
        changes: &[("sessions.rs", "        cx.end(&self.again);\n", "")],
        complaint: &["was answered wrongly"],
    },
    Mutant {
        name: "old-waits-go-on",
        args: &[],
        changes: &[("steps.rs", ".session(&self.login.sessions.once)", "")],
        complaint: &[
            "Heartbeat",
            "two heartbeats in less than half their interval",
        ],
    },
    Mutant {
        name: "redirects-not-followed",
        args: &[],
        changes: &[("sessions.rs", ".redirects(redirects)", "")],
        complaint: &["never happened: checksig: 4 redirects"],
    },
    Mutant {
        name: "messages-without-cookies",
        args: &[],
        changes: &[(
            "sessions.rs",
            "outbox: build(of_account()",
            "outbox: build(Session::builder().error_for_status(true)",
        )],
        complaint: &["SendBuddy", "cookies ptwebqq, skey or p_skey are missing"],
    },
    Mutant {
        name: "messages-without-a-pause",
        args: &[],
        changes: &[(
            "outbox.rs",
            "self.not_before = Some(now + self.pause);",
            "self.not_before = Some(now);",
        )],
        complaint: &["SendBuddy", "sent too soon after the last one"],
    },
    Mutant {
        name: "messages-repeated-by-their-session",
        args: &[],
        changes: &[
            (
                "sessions.rs",
                "outbox: build(of_account()",
                "outbox: build(repeating(of_account(), TRIES)",
            ),
            (
                "protocol.rs",
                "request.lane(OUTBOX)",
                "request.lane(OUTBOX).idempotent(true)",
            ),
        ],
        complaint: &["was answered", "times"],
    },
    Mutant {
        name: "resends-what-was-lost",
        args: &[],
        changes: &[("talk.rs", "error.request_sent() == Sent::No", "true")],
        complaint: &["was answered", "times"],
    },
    Mutant {
        name: "resends-what-was-answered-badly",
        args: &[],
        changes: &[(
            "talk.rs",
            "Err(trouble) => self.perhaps_said(&trouble, cx),",
            "Err(trouble) => self.delay(&trouble, 1, cx),",
        )],
        complaint: &["was answered", "times"],
    },
    Mutant {
        name: "asks-for-a-list-in-plain",
        args: &["--tls"],
        changes: &[(
            "protocol.rs",
            "let query = [query, &keys].concat();",
            "let query = [query, &keys].concat();\n        if action == \"get_online_buddies2\" {\n            \
             return self.get(session, &format!(\"{CHANNEL}{action}\"), &query).header(\"Referer\", CHANNEL_REFERER);\n        }",
        )],
        complaint: &["OnlineBuddies", "is https, but came over http"],
    },
];

/// An unchanged copy must succeed, which shows that the mutants fail because of their changes.
const ORIGINAL: Mutant = Mutant {
    name: "original",
    args: &["--tls"],
    changes: &[],
    complaint: &[],
};

/// Builds the original and all mutants, in a package of their own that uses the crate by its path.
fn mutants() -> &'static BTreeMap<String, PathBuf> {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("webqq-mutants");
        let mut examples = String::new();
        for mutant in MUTANTS.iter().chain([&ORIGINAL]) {
            let name = mutant.name;
            write_sources(mutant, &package.join(name));
            let main = format!("{name}/examples/webqq/src/main.rs");
            examples += &format!("[[example]]\nname = {name:?}\npath = {main:?}\n\n");
        }
        let root = repository();
        let manifest = manifest_of_mutants(&root, &examples);
        write_if_new(&package.join("lib.rs"), "");
        write_if_new(&package.join("Cargo.toml"), &manifest);
        fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock")).expect("a lock file");
        // In cargo's usual target directory, so that the dependencies need not be built again.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let target = target.to_str().unwrap();
        build(&package, &["--examples", "--target-dir", target])
    })
}

/// Returns the root of the repository, which contains the crate.
fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize()
        .expect("the package is inside of the repository")
}

/// Writes the program and the files that it includes, with the mutant's changes.
fn write_sources(mutant: &Mutant, folder: &Path) {
    let root = repository();
    for part in ["examples/webqq/src", "examples/support", "tests/counting"] {
        for file in files_in(&root.join(part)) {
            let mut text = fs::read_to_string(&file).expect("a source");
            let path = file.strip_prefix(&root).expect("a file of the repository");
            for (name, old, new) in mutant.changes {
                if path == Path::new("examples/webqq/src").join(name) {
                    let count = text.matches(old).count();
                    assert_eq!(
                        count, 1,
                        "{}: found {count} times in {name}: {old}",
                        mutant.name
                    );
                    text = text.replace(old, new);
                }
            }
            write_if_new(&folder.join(path), &text);
        }
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    entries
        .map(|entry| entry.expect("an entry").path())
        .flat_map(|path| match path.is_dir() {
            true => files_in(&path),
            false => vec![path],
        })
        .collect()
}

/// An unchanged file keeps its modification time, so it need not be built again.
fn write_if_new(file: &Path, text: &str) {
    if fs::read_to_string(file).is_ok_and(|old| old == text) {
        return;
    }
    fs::create_dir_all(file.parent().unwrap()).expect("a folder");
    fs::write(file, text).unwrap_or_else(|error| panic!("{file:?}: {error}"));
}

/// An empty library that has the program's dependencies; each mutant is an example of it.
fn manifest_of_mutants(root: &Path, examples: &str) -> String {
    let manifest = include_str!("../Cargo.toml");
    let begin = manifest.find("[dependencies]\n").expect("dependencies");
    let end = manifest
        .find("[dev-dependencies]\n")
        .expect("dev-dependencies");
    let here = "httpstream = { path = \"../..\"";
    let there = format!("httpstream = {{ path = {:?}", root.to_str().unwrap());
    let dependencies = &manifest[begin..end];
    assert!(dependencies.contains(here), "{dependencies}");
    let dependencies = dependencies.replace(here, &there);
    // Quick to build, and otherwise as users run it.
    let quick = "[profile.dev.package.webqq-mutants]\ndebug = false\noverflow-checks = false\n";
    format!(
        "[package]\nname = \"webqq-mutants\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n[lib]\npath = \"lib.rs\"\n\n\
         {examples}{dependencies}\n{quick}"
    )
}

fn has_to_be_found_out(name: &str) {
    let mutant = MUTANTS.iter().find(|mutant| mutant.name == name).unwrap();
    let (code, output) = Program::start(Command::new(&mutants()[name]).args(mutant.args)).end();
    assert_eq!(code, Some(1), "{output}");
    let mut complaints = output.lines().filter(|line| line.contains("wrong:"));
    let is_meant = |line: &str| mutant.complaint.iter().all(|words| line.contains(words));
    assert!(complaints.any(is_meant), "{output}");
}

#[test]
fn the_original_is_judged_good() {
    let original = &mutants()[ORIGINAL.name];
    let (code, output) = Program::start(Command::new(original).args(ORIGINAL.args)).end();
    assert_eq!(code, Some(0), "{output}");
}

#[test]
fn a_bot_without_deduplication_is_found_out() {
    has_to_be_found_out("deduplication-removed");
}

#[test]
fn a_bot_whose_old_logins_go_on_is_found_out() {
    has_to_be_found_out("old-logins-go-on");
}

#[test]
fn a_bot_whose_old_lists_go_on_is_found_out() {
    has_to_be_found_out("old-lists-go-on");
}

#[test]
fn a_bot_whose_old_waits_go_on_is_found_out() {
    has_to_be_found_out("old-waits-go-on");
}

#[test]
fn a_bot_that_follows_no_redirects_is_found_out() {
    has_to_be_found_out("redirects-not-followed");
}

#[test]
fn a_bot_whose_messages_lack_cookies_is_found_out() {
    has_to_be_found_out("messages-without-cookies");
}

#[test]
fn a_bot_that_talks_without_a_pause_is_found_out() {
    has_to_be_found_out("messages-without-a-pause");
}

#[test]
fn a_bot_whose_session_repeats_messages_is_found_out() {
    has_to_be_found_out("messages-repeated-by-their-session");
}

#[test]
fn a_bot_that_says_openly_what_is_for_tls_is_found_out() {
    has_to_be_found_out("asks-for-a-list-in-plain");
}

#[test]
fn a_bot_that_sends_again_what_was_lost_is_found_out() {
    has_to_be_found_out("resends-what-was-lost");
}

#[test]
fn a_bot_that_sends_again_what_was_answered_badly_is_found_out() {
    has_to_be_found_out("resends-what-was-answered-badly");
}

// ---- a server that is killed ----

/// Returns the processor time that a process has used, in clock ticks: user and system
/// (proc_pid_stat(5), fields 14 and 15).
fn ticks(process: &Program) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.child.id())).unwrap();
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    let field = |number: usize| fields.split(' ').nth(number - 3).unwrap();
    field(14).parse::<u64>().unwrap() + field(15).parse::<u64>().unwrap()
}

/// Returns a process's open files, by kind: `socket:`, `pipe:`, `anon_inode:` or a file.
fn open_files(process: &Program) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{}/fd", process.child.id())).unwrap() {
        let Ok(target) = fs::read_link(entry.unwrap().path()) else {
            continue;
        };
        let kind = target.to_string_lossy();
        let kind = kind.split('[').next().unwrap_or_default();
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    kinds
}

/// Returns a port without a listener. It is outside of the ephemeral range, so it stays free while
/// its server is down.
fn free_port() -> u16 {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let mine = std::process::id() as usize * 10;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut ports = std::iter::repeat_with(|| {
        let next = ASKED.fetch_add(1, Ordering::Relaxed);
        20_000 + ((mine + next) % 10_000) as u16
    });
    ports.find(is_free).expect("a port is free")
}

/// Reads output until the bot has answered `count` more questions. Returns the largest number of
/// sockets that it had meanwhile, and its other open files.
fn watch(bot: &mut Program, count: usize) -> (usize, BTreeMap<String, usize>) {
    let mut most = 0;
    let mut others = BTreeMap::new();
    for _ in 0..count {
        bot.wait_for("an answer", |line| {
            line.contains(" to ") && line.contains(" question ")
        });
        others = open_files(bot);
        most = most.max(others.remove("socket:").unwrap_or(0));
    }
    (most, others)
}

#[test]
fn a_bot_outlives_its_server() {
    const DOWN: Duration = Duration::from_secs(10);
    let folder = fresh_folder("webqq-killed");
    let addr = format!("127.0.0.1:{}", free_port());
    let scale = ["--time-scale", "60"];
    let serve = |seed, seconds| {
        let alone = ["--server-only", "--listen", &addr, "--seed", seed];
        let mut server = Program::webqq(&[&alone[..], &scale, &["--seconds", seconds]].concat());
        server.wait_for("a server", |line| line.contains("listening at"));
        server
    };
    let server = serve("5", "100");
    let bot = ["--server", &addr, "--log", folder.to_str().unwrap()];
    let mut bot = Program::webqq(&[&bot[..], &scale, &["--seconds", "100"]].concat());
    let (before, others_before) = watch(&mut bot, 3);
    // A question is asked every second. Between two of them the bot has no answer left that it
    // could send to the next server.
    bot.listen_until(Instant::now() + Duration::from_millis(300));

    server.signal("-KILL");
    let (code, _) = server.end();
    assert_eq!(code, None);
    let ticks_before = ticks(&bot);
    bot.listen_until(Instant::now() + DOWN);
    // A tick is a hundredth of a second: a loop that never waits would use a thousand.
    let used = ticks(&bot) - ticks_before;
    assert!(used < 100, "{used} ticks: {}", bot.said);
    let without = open_files(&bot).remove("socket:").unwrap_or(0);
    // Connections that are just being attempted.
    assert!(without <= 3, "{without} sockets are left of {before}");

    // Its uins, cookies and messages differ from the first server's. It judges at its end whether
    // its questions were answered.
    let server = serve("9", "10");
    bot.wait_for("another login", |line| line.contains("online"));
    let (after, others_after) = watch(&mut bot, 3);
    println!(
        "{before} sockets, {without} while the server was away, {after} with the next; {used} ticks in {DOWN:?}"
    );
    assert_eq!(others_after, others_before, "{}", bot.said);
    // How many lists are fetched at once varies.
    assert!(after <= before + 4, "{after} sockets, {before} before");
    let (code, output) = server.end();
    assert_eq!(code, Some(0), "{output}\n{}", bot.said);
    let questions = output
        .lines()
        .find_map(|line| line.split_once(" questions, "));
    let questions: usize = questions.expect(&output).0.parse().expect(&output);
    assert!(questions >= 3, "{output}");

    bot.signal("-INT");
    let (code, output) = bot.end_within(Duration::from_secs(20));
    assert_eq!(code, Some(0), "{output}");
    let log = read_log(&folder.join("bot.jsonl"));
    let said = log.iter().filter(|entry| entry["kind"] == "said").count();
    assert!(said >= 3 + questions, "{said}: {output}");
}

#[test]
fn a_bot_with_something_to_say_and_nobody_to_say_it_to_can_be_ended() {
    let addr = format!("127.0.0.1:{}", free_port());
    // A poll is held three times as long as it takes until the next question.
    let scale = ["--time-scale", "20", "--seconds", "100"];
    let mut server = Program::webqq(&[&["--server-only", "--listen", &addr], &scale[..]].concat());
    server.wait_for("a server", |line| line.contains("listening at"));
    let mut bot = Program::webqq(&[&["--server", &addr], &scale[..]].concat());
    // The first may arrive before the lists, and the poll after it waits for them: a bot that is
    // stopped there would never get the second.
    bot.wait_for("a question", |line| line.contains(": #2 "));
    // It reads the next question when the server is gone.
    bot.signal("-STOP");
    thread::sleep(Duration::from_secs(2));
    server.signal("-KILL");
    server.end();
    bot.signal("-CONT");
    bot.wait_for("an answer that cannot be sent", |line| {
        line.contains("not sent yet")
    });
    bot.signal("-INT");
    let (code, output) = bot.end_within(Duration::from_secs(30));
    assert_eq!(code, Some(0), "{output}");
}
