//! Passes the version of the compiler on to the program.

use std::env;
use std::process::Command;

fn main() {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let version = version.unwrap_or_else(|_| "unknown".to_owned());
    println!("cargo::rustc-env=VERSUS_RUSTC={version}");
    println!("cargo::rerun-if-changed=build.rs");
}
