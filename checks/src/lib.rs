//! Tests of the whole repository that a plain `cargo test` leaves out, because they take long or
//! need tools: see `tests/`.

use std::path::Path;
use std::process::Command;

#[path = "../../tests/cargo/mod.rs"]
mod cargo;

/// Returns the root of the repository.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .expect("the package is inside of the repository")
}

/// Returns the cargo that runs the tests, with [`root`] as its directory.
pub fn cargo() -> Command {
    let mut cargo = cargo::cargo();
    cargo.current_dir(root());
    cargo
}
