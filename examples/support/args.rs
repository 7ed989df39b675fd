//! Command-line arguments of an example: options with one value or none. Help goes to stdout. A
//! wrong argument ends the program with exit code 2 before it has done anything.

#![allow(dead_code, reason = "not every program uses every part")]

use std::env::{ArgsOs, args_os};
use std::io::Write;
use std::process::exit;

pub(crate) struct Args {
    program: &'static str,
    usage: &'static str,
    left: ArgsOs,
}

impl Args {
    pub(crate) fn new(program: &'static str, usage: &'static str) -> Self {
        let mut left = args_os();
        left.next();
        Self {
            program,
            usage,
            left,
        }
    }

    /// Returns the next argument, or `None` after the last. On `-h` or `--help`, prints the usage
    /// and exits.
    pub(crate) fn next(&mut self) -> Option<String> {
        let arg = self.text("an argument")?;
        if matches!(&*arg, "-h" | "--help") {
            // If stdout is closed, nobody reads the help.
            let _ = std::io::stdout().write_all(self.usage.as_bytes());
            exit(0);
        }
        Some(arg)
    }

    /// Returns the value that follows `option`. If it is missing, or if `parse` returns `None`, the
    /// program exits; `what` describes valid values in the message.
    pub(crate) fn value<T>(
        &mut self,
        option: &str,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        match self.text(option) {
            Some(value) => self.parsed(option, &value, what, parse),
            None => self.wrong(&format!("{option}: a value is missing")),
        }
    }

    /// Returns `value` as parsed by `parse`, or exits as [`value`](Self::value) does.
    pub(crate) fn parsed<T>(
        &self,
        name: &str,
        value: &str,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        parse(value).unwrap_or_else(|| self.wrong(&format!("{name} {value:?}: not {what}")))
    }

    /// Prints what is wrong with the arguments and how to use the program, and exits.
    pub(crate) fn wrong(&self, what: &str) -> ! {
        eprint!("{}: {what}\n{}", self.program, self.usage);
        exit(2);
    }

    fn text(&mut self, what: &str) -> Option<String> {
        let text = self.left.next()?.into_string();
        Some(text.unwrap_or_else(|_| self.wrong(&format!("{what}: not UTF-8"))))
    }
}
