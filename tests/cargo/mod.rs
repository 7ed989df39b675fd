//! The cargo that runs a test, for a test that has it build something. Used by the tests of other
//! packages of this repository as well.

use std::process::Command;

/// What cargo tells a test about its package.
const OF_THE_PACKAGE: [&str; 5] = [
    "CARGO_BIN_",
    "CARGO_CRATE_",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PRIMARY_",
];

/// The cargo that runs this test, without what it has told the test about its package.
///
/// ring's build script is run anew whenever that has changed, so passing it on would have ring,
/// rustls and this crate built again, and once more by the next cargo that is started by hand.
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
