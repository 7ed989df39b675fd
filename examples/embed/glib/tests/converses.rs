//! Checks that the conversation under GLib goes as the script says, and that its loop sleeps while
//! nothing happens.

#[path = "../../../../tests/programs/mod.rs"]
mod programs;

#[allow(dead_code, reason = "the client uses the rest")]
#[path = "../../conversation"]
mod conversation {
    pub(crate) mod expected;
    pub(crate) mod script;
}

use std::process::Command;
use std::time::Duration;

use conversation::expected;
use programs::{Ended, run};

/// A program that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(120);

fn embed_glib(arg: &str) -> Ended {
    run(
        Command::new(env!("CARGO_BIN_EXE_embed_glib")).arg(arg),
        PATIENCE,
    )
}

#[test]
fn converses_as_the_script_has_it() {
    for _ in 0..2 {
        let ended = embed_glib("--transcript");
        for (found, expected) in ended.stdout.lines().zip(expected::transcript().lines()) {
            assert_eq!(found, expected);
        }
        assert!(ended.stdout == expected::transcript(), "{ended:?}");
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

#[test]
fn sleeps_while_nothing_happens() {
    let ended = embed_glib("--idle");
    // The program itself checks that it woke up only as often as there was a reason.
    assert!(ended.stdout.contains("100 paused"), "{ended:?}");
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
