//! `get`, run as users run it, against servers that record what they are sent. Where curl is meant
//! to do the same, it is given the same command line, and the two are compared.

mod arguments;
mod bars;
mod consent;
mod cookies;
mod credentials;
mod failures;
mod forms;
mod outputs;
mod parallel;
mod redirects;
mod requests;
mod responses;
mod resuming;
mod retries;
mod scripted;
mod streams;
mod uploads;
mod write_out;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::servers::{Ended, TempDir, example, run, tool};
use scripted::{Scripted, Seen};

/// Variables that would have one of the programs do something else.
const VARIABLES: &[&str] = &[
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "RUST_LOG",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Runs `get` in `dir`.
fn get_in(dir: &Path, args: &[&str]) -> Ended {
    run(without_variables(&mut example("get"))
        .args(args)
        .current_dir(dir))
}

/// Runs `get` in a directory that nothing is expected to be written to.
fn get(args: &[&str]) -> Ended {
    let dir = TempDir::new();
    let ended = get_in(dir.path(), args);
    assert_eq!(files(dir.path()), BTreeMap::new(), "{args:?}");
    ended
}

/// Runs curl in `dir`, without the user's settings. Returns `None` if it is not installed.
fn curl_in(dir: &Path, args: &[&str]) -> Option<Ended> {
    let Some(curl) = tool("curl") else {
        println!("skipped: curl is not installed");
        return None;
    };
    let mut command = Command::new(curl);
    without_variables(&mut command).args(["-q", "-sS"]);
    Some(run(command.args(args).current_dir(dir)))
}

fn without_variables(command: &mut Command) -> &mut Command {
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command
}

/// Returns the files below `dir`, by their path.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).expect("a readable directory") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let name = path.strip_prefix(dir).expect("below it").display();
            found.insert(name.to_string(), fs::read(&path).expect("readable"));
        }
    }
    found
}

/// What a run of `get` has led to.
struct Ran {
    ended: Ended,
    seen: Vec<Seen>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Ran {
    /// Returns the requests that the server has seen, as `METHOD target`.
    fn lines(&self) -> Vec<String> {
        self.seen.iter().map(Seen::line).collect()
    }

    fn only(&self) -> &Seen {
        assert_eq!(self.seen.len(), 1, "{self:?}");
        &self.seen[0]
    }

    fn file(&self, name: &str) -> &[u8] {
        let content = self.files.get(name);
        content.unwrap_or_else(|| panic!("no file {name}: {self:?}"))
    }
}

/// Shows no long bodies.
impl fmt::Debug for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = self
            .files
            .iter()
            .map(|(name, content)| (name, content.len()));
        f.debug_struct("Ran")
            .field("code", &self.ended.code())
            .field(
                "stdout",
                &self.ended.text().chars().take(500).collect::<String>(),
            )
            .field("stdout_bytes", &self.ended.stdout.len())
            .field("stderr", &self.ended.stderr)
            .field("requests", &self.lines())
            .field("files", &sizes.collect::<Vec<_>>())
            .finish()
    }
}

/// Runs `get` with these files in its directory.
fn run_with(server: &Scripted, given: &[(&str, &[u8])], args: &[&str]) -> Ran {
    let dir = directory_with(given);
    let ended = get_in(dir.path(), args);
    Ran {
        seen: server.take(),
        files: files(dir.path()),
        ended,
    }
}

fn directory_with(given: &[(&str, &[u8])]) -> TempDir {
    let dir = TempDir::new();
    for (name, content) in given {
        fs::write(dir.path().join(name), content).expect("writable");
    }
    dir
}

/// Runs `get` as curl is run, and asserts that the two send the same requests, print the same on
/// stdout, write the same files, and agree on whether they have succeeded. Returns what `get` has
/// done, also if curl is not installed.
fn same_as_curl(server: &Scripted, given: &[(&str, &[u8])], args: &[&str]) -> Ran {
    let ran = run_with(server, given, args);
    let dir = directory_with(given);
    let Some(curl) = curl_in(dir.path(), args) else {
        return ran;
    };
    let seen = server.take();
    let requests = |seen: &[Seen]| seen.iter().map(Seen::comparable).collect::<Vec<_>>();
    assert_eq!(
        requests(&ran.seen),
        requests(&seen),
        "{args:?}, and then curl's"
    );
    assert_eq!(ran.ended.text(), curl.text(), "{args:?}, and then curl's");
    assert_eq!(
        ran.ended.code() == Some(0),
        curl.code() == Some(0),
        "{args:?}: {ran:?} and {curl:?}"
    );
    let written = files(dir.path());
    assert_eq!(ran.files, written, "{args:?}, and then curl's");
    ran
}
