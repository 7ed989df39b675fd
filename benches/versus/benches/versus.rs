//! `cargo bench -p versus`: everything is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    versus::main()
}
