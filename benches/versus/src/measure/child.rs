//! This very program, started anew for one measurement.

use std::process::{Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Runs it with `asked` and what is asked in JSON; answers what it says in JSON, or the last line
/// of what it complains of.
pub(crate) fn run<A: DeserializeOwned>(asked: &str, what: &impl Serialize) -> Result<A, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let what = serde_json::to_string(what).map_err(|error| error.to_string())?;
    let ended = Command::new(program)
        .args([asked, &what])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        let last = said.lines().last().unwrap_or("it said nothing");
        // A client says also what it was asked.
        return Err(last.replace(&format!(": {what}"), ""));
    }
    serde_json::from_slice(&ended.stdout).map_err(|error| format!("its answer: {error}"))
}

/// User instructions of the same, as callgrind counts them.
pub(crate) fn instructions(asked: &str, what: &impl Serialize) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let what = serde_json::to_string(what).map_err(|error| error.to_string())?;
    let ended = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([asked, &what])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    if !ended.status.success() {
        return Err(said.lines().last().unwrap_or("it said nothing").into());
    }
    said.lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok())
        .ok_or_else(|| "callgrind counted nothing".into())
}
