//! The cargo that runs a test, for tests that build something. Also used by the tests of other
//! packages of this repository.

use std::process::Command;

/// The variables through which cargo describes the test's package.
const OF_THE_PACKAGE: [&str; 5] = [
    "CARGO_BIN_",
    "CARGO_CRATE_",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PRIMARY_",
];

/// Returns the cargo that runs this test, without the variables that describe the test's package.
///
/// ring's build script is run again whenever these change. Passing them on would rebuild ring,
/// rustls and this crate, and again in the next cargo that is started by hand.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        if OF_THE_PACKAGE
            .iter()
            .any(|prefix| shown.starts_with(prefix))
        {
            cargo.env_remove(&name);
        }
    }
    cargo
}
