//! Tests of the whole repository that a plain `cargo test` leaves out, since they take long, or
//! need tools: see `tests/`.

use std::path::Path;
use std::process::Command;

#[path = "../../tests/cargo/mod.rs"]
mod cargo;

/// The root of the repository.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("this package lies in the repository")
}

/// The cargo that runs the tests, in [`root`].
pub fn cargo() -> Command {
    let mut cargo = cargo::cargo();
    cargo.current_dir(root());
    cargo
}
