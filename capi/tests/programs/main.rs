//! Programs in C, built and run as users of the library do, and once more under valgrind.
//!
//! The programs check themselves, and abort when a check fails. `tests/c/check.h` contains the code
//! they share.

#[path = "../../../tests/common/mod.rs"]
mod common;
mod install;
mod library;
mod server;
mod unasked;

use std::process::Command;

use library::{Linked, compile, run, run_to_end, under_valgrind};

/// Tests one program: alone with the first list of arguments, and under valgrind with the second
/// and these options for valgrind. The server's URL precedes the arguments.
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
// With "forget", the program leaks an engine, which valgrind would report.
program!(threads, &["forget"], &[]);
// A child process keeps the memory of its parent's engine, and valgrind reports a hash table that
// is never freed as "possibly lost".
program!(
    forks,
    &["threads"],
    &[],
    &["--errors-for-leak-kinds=definite"]
);
program!(garbage);
program!(many, &["10000"], &["200"]);
program!(sigpipe);

/// Tests of data that arrives on an idle connection while no response is outstanding.
mod kept_connections {
    use super::unasked::{Ports, Speaks, start};
    use super::*;

    /// Runs the program against a server that speaks this scheme.
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

    /// Checks also that TLS leaks nothing.
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
