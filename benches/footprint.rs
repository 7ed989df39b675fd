//! The cost of building this crate as a dependency: the foreign crates, and the time of a clean
//! release build.
//!
//! ```sh
//! cargo bench --bench footprint
//! ```
//!
//! Builds the library alone, as a dependency is built, in a directory of its own that is removed
//! afterwards; the sources must have been downloaded before. Wall-clock time depends on the number
//! of cores; processor time (user and system, all processes together) hardly does.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const ROWS: &[(&str, &[&str])] = &[
    ("no features", &["--no-default-features"]),
    (
        "`hickory`",
        &["--no-default-features", "--features", "hickory"],
    ),
    ("`tls`", &["--no-default-features", "--features", "tls"]),
    (
        "`cookies`",
        &["--no-default-features", "--features", "cookies"],
    ),
    (
        "`digest`",
        &["--no-default-features", "--features", "digest"],
    ),
    ("`gzip`", &["--no-default-features", "--features", "gzip"]),
    (
        "`brotli`",
        &["--no-default-features", "--features", "brotli"],
    ),
    ("`zstd`", &["--no-default-features", "--features", "zstd"]),
    ("`json`", &["--no-default-features", "--features", "json"]),
    (
        "`calloop`",
        &["--no-default-features", "--features", "calloop"],
    ),
    ("`tokio`", &["--no-default-features", "--features", "tokio"]),
    (
        "`timerfd`",
        &["--no-default-features", "--features", "timerfd"],
    ),
    ("default: `hickory`, `tls`", &[]),
    ("all", &["--all-features"]),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("| features | foreign crates | clean build, wall | processor time |");
    println!("|---|---|---|---|");
    for (name, features) in ROWS {
        let crates = foreign_crates(features)?;
        let target = Scratch::new()?;
        let (begin, before) = (Instant::now(), children_computed()?);
        build(features, &target.0)?;
        let (wall, computed) = (begin.elapsed(), children_computed()? - before);
        let (wall, computed) = (wall.as_secs_f64(), computed.as_secs_f64());
        println!("| {name} | {crates} | {wall:.1} s | {computed:.1} s |");
    }
    Ok(())
}

/// Returns the crates that are compiled for this platform, including build dependencies but not our
/// own crate.
fn foreign_crates(features: &[&str]) -> Result<usize, Box<dyn Error>> {
    let output = cargo("tree")
        .args([
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .args(features)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let lines = String::from_utf8(output.stdout)?;
    let crates: BTreeSet<_> = lines
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter(|line| !line.is_empty() && !line.starts_with(env!("CARGO_PKG_NAME")))
        .collect();
    Ok(crates.len())
}

fn build(features: &[&str], target: &Path) -> Result<(), Box<dyn Error>> {
    let output = cargo("build")
        .args(["--release", "--lib"])
        .args(features)
        .env("CARGO_TARGET_DIR", target)
        .output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into()),
    }
}

fn cargo(what: &str) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args([what, "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// Returns the processor time of the child processes that have ended.
fn children_computed() -> Result<Duration, Box<dyn Error>> {
    // proc_pid_stat(5): fields 16 and 17 are the children's, in hundredths of a second; the name
    // before them may contain spaces.
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("/proc/self/stat has no name")?;
    let ticks = fields
        .split_whitespace()
        .skip(13)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// A directory that is removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let name = format!(
            "{}-footprint-{}",
            env!("CARGO_PKG_NAME"),
            std::process::id()
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
