//! Programs in C against the library, as its users build and run them; each once more under
//! valgrind.
//!
//! They check for themselves, and end with an abort at what is wrong. `tests/c/check.h` is what
//! they have in common.

#[path = "../../../tests/common/mod.rs"]
mod common;
mod install;
mod library;
mod server;
mod unasked;

use std::process::Command;

use library::{Linked, compile, run, run_to_end, under_valgrind};

/// Tests of one program: alone, and under valgrind with these arguments beside the server's URL,
/// and with these options for valgrind.
macro_rules! program {
    ($name:ident, $arguments:expr, $under_valgrind:expr) => {
        program!($name, $arguments, $under_valgrind, &[]);
    };
    ($name:ident, $arguments:expr, $under_valgrind:expr, $options:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn alone() {
                let program = compile(stringify!($name), Linked::Dynamically);
                run(Command::new(program), server::start(), $arguments);
            }

            #[test]
            fn under_valgrind() {
                let program = compile(stringify!($name), Linked::Statically);
                if let Some(command) = super::under_valgrind($options, &program) {
                    run(command, server::start(), $under_valgrind);
                }
            }
        }
    };
    ($name:ident) => {
        program!($name, &[], &[]);
    };
}

program!(functions);
program!(durations);
program!(errors);
program!(streaming);
// What is forgotten there is lost, as valgrind would say.
program!(threads, &["forget"], &[]);
// A child keeps the memory of its parent's engine, and a hash table that nobody has freed is
// "possibly lost" to valgrind.
program!(
    forks,
    &["threads"],
    &[],
    &["--errors-for-leak-kinds=definite"]
);
program!(garbage);
program!(many, &["10000"], &["200"]);
program!(sigpipe);

/// What arrives on a kept connection while no response is outstanding.
mod kept_connections {
    use super::unasked::{Ports, Speaks, start};
    use super::*;

    /// Runs the program against a server that speaks http.
    fn over(scheme: &str, speaks: Speaks, mut program: Command, arguments: &[&str]) {
        let Ports {
            first,
            second,
            orders,
        } = start(speaks);
        program.args([format!("{scheme}://{first}"), format!("http://{second}")]);
        program.arg(orders.port().to_string()).args(arguments);
        run_to_end(program);
    }

    #[test]
    fn are_used_again() {
        let program = Command::new(compile("unasked", Linked::Dynamically));
        over("http", Speaks::Http, program, &["-", "nothing"]);
    }

    /// TLS leaves nothing behind.
    #[cfg(feature = "tls")]
    #[test]
    fn are_used_again_over_https_under_valgrind() {
        let program = compile("unasked", Linked::Statically);
        let suppressions = library::package().join("httpstream.supp");
        let suppressions = format!("--suppressions={}", suppressions.display());
        let Some(program) = under_valgrind(&[&suppressions], &program) else {
            return;
        };
        let (config, certificate) = unasked::identity();
        over(
            "https",
            Speaks::Https(config),
            program,
            &[&certificate, "nothing"],
        );
    }

    #[test]
    fn are_left_alone_after_what_nobody_asked_for() {
        let program = Command::new(compile("unasked", Linked::Dynamically));
        over("http", Speaks::Http, program, &["-"]);
    }

    #[cfg(feature = "tls")]
    #[test]
    fn are_left_alone_after_what_nobody_asked_for_over_https() {
        let program = Command::new(compile("unasked", Linked::Statically));
        let (config, certificate) = unasked::identity();
        over("https", Speaks::Https(config), program, &[&certificate]);
    }
}
