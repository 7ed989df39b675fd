//! Runs this program again for one measurement.

use std::process::{Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Runs it with `asked` and the question in JSON. Returns its answer from JSON, or the last line of
/// its error output.
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
        let last = said.lines().last().unwrap_or("no message");
        // A client also repeats its job.
        return Err(last.replace(&format!(": {what}"), ""));
    }
    serde_json::from_slice(&ended.stdout).map_err(|error| format!("invalid answer: {error}"))
}

/// Returns the user-space instructions of such a run, as callgrind counts them.
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
        return Err(said.lines().last().unwrap_or("no message").into());
    }
    said.lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok())
        .ok_or_else(|| "no count from callgrind".into())
}
