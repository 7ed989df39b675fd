//! The arguments of an example: options, each with one value or none. Help goes to stdout; an
//! argument that is wrong ends the program with 2, before anything was done.

#![allow(dead_code, reason = "not every program wants every part")]

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

    /// The next option. Help is given here.
    pub(crate) fn next(&mut self) -> Option<String> {
        let arg = self.text("an argument")?;
        if matches!(&*arg, "-h" | "--help") {
            // Who does not listen needs no help.
            let _ = std::io::stdout().write_all(self.usage.as_bytes());
            exit(0);
        }
        Some(arg)
    }

    /// The value of `option`, which is `what`: `parse` has the word.
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

    pub(crate) fn parsed<T>(
        &self,
        name: &str,
        value: &str,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        parse(value).unwrap_or_else(|| self.wrong(&format!("{name} {value:?}: not {what}")))
    }

    pub(crate) fn wrong(&self, what: &str) -> ! {
        eprint!("{}: {what}\n{}", self.program, self.usage);
        exit(2);
    }

    fn text(&mut self, what: &str) -> Option<String> {
        let text = self.left.next()?.into_string();
        Some(text.unwrap_or_else(|_| self.wrong(&format!("{what}: not UTF-8"))))
    }
}
