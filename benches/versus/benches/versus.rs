//! `cargo bench -p versus`. All code is in the library of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    versus::main()
}
