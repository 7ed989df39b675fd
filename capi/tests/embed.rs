//! Runs the programs of `examples/embed/c`: the conversation is the same, byte for byte, as under
//! every host in Rust, also under valgrind.

#[path = "../../tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the programs here are different ones")]
#[path = "programs/library.rs"]
mod library;
#[path = "../../tests/programs/mod.rs"]
mod programs;

#[allow(dead_code, reason = "the client is in C")]
#[path = "../../examples/embed/conversation"]
mod conversation {
    pub(crate) mod expected;
    pub(crate) mod script;
    pub(crate) mod server;
}

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use conversation::expected;
use conversation::server::Server;
use library::{Library, STRICT, assert_success, library, package, scratch, under_valgrind};
use programs::{Ended, run};

/// Longer than any program takes, however slow valgrind makes it; beyond it, the program hangs.
const PATIENCE: Duration = Duration::from_secs(240);

/// Compiles examples/embed/c/NAME.c for `test`.
fn compile(name: &str, test: &str, libraries: &[&str]) -> PathBuf {
    let source = package()
        .join("../examples/embed/c")
        .join(name)
        .with_extension("c");
    let program = scratch("embed").join(format!("{name}-{test}"));
    let Library { shared, .. } = library();
    let dir = shared
        .parent()
        .expect("the library is in a directory")
        .display();
    let mut cc = Command::new("cc");
    cc.args(STRICT).arg("-I").arg(package().join("include"));
    cc.arg(source).arg("-o").arg(&program);
    cc.args([format!("-L{dir}"), format!("-Wl,-rpath,{dir}")]);
    cc.arg("-lhttpstream").args(libraries);
    assert_success(&mut cc);
    program
}

/// Returns whether a program that includes `uv.h` can be compiled.
fn has_libuv() -> bool {
    let probe = scratch("embed").join("probe.c");
    std::fs::write(&probe, "#include <uv.h>\n").expect("cannot write to the target directory");
    let found = Command::new("cc")
        .args(["-E", "-o", "/dev/null"])
        .arg(probe)
        .output();
    let has_it = found.is_ok_and(|found| found.status.success());
    if !has_it {
        println!("skipped: libuv is not installed");
    }
    has_it
}

fn converses(mut command: Command) {
    let server = Server::open().expect("ports on loopback");
    command.args([server.addr, server.refused].map(|addr| addr.to_string()));
    let ended = run(&mut command, PATIENCE);
    let expected = expected::transcript();
    for (found, expected) in ended.stdout.lines().zip(expected.lines()) {
        assert_eq!(found, expected, "{command:?}: {}", ended.stderr);
    }
    assert!(ended.stdout == expected, "{command:?}: {ended:?}");
    assert_eq!(ended.code, Some(0), "{command:?}: {ended:?}");
    assert_eq!(ended.stderr, "", "{command:?}");
}

fn fetches(mut command: Command) {
    let server = Server::open().expect("ports on loopback");
    let url = format!("http://{}/plain", server.addr);
    command.args(["--fetch", "250", "--at-once", "20", &url]);
    let Ended {
        code,
        stdout,
        stderr,
    } = run(&mut command, PATIENCE);
    assert_eq!((code, &*stdout), (Some(0), "done 250\n"), "{stderr}");
}

macro_rules! host {
    ($name:ident, $libraries:expr, $can_be_built:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn converses_as_the_script_has_it() {
                if !$can_be_built {
                    return;
                }
                let program = compile(stringify!($name), "alone", $libraries);
                for _ in 0..2 {
                    converses(Command::new(&program));
                }
            }

            #[test]
            fn converses_under_valgrind() {
                if !$can_be_built {
                    return;
                }
                let program = compile(stringify!($name), "valgrind", $libraries);
                if let Some(command) = under_valgrind(&[], &program) {
                    converses(command);
                }
            }

            #[test]
            fn fetches_as_often_as_it_is_told() {
                if !$can_be_built {
                    return;
                }
                let program = compile(stringify!($name), "fetch", $libraries);
                fetches(Command::new(program));
            }
        }
    };
}

host!(epoll, &[], true);
host!(uv, &["-luv"], has_libuv());
