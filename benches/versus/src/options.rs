//! The command line.

use crate::job::{Client, Workload};
use crate::scene::{CLIENTS, ONLY};

pub(crate) const USAGE: &str = "\
Usage: cargo bench -p versus [-- OPTIONS]

Measures httpstream and its peers against a server of its own on loopback, and prints tables.

  --quick             in under a minute: 3 repeats of small, close and tls at 1 and 50 connections, few counts, no waiting requests,
                      no growth
  --bars              only what the table of limits needs
  --only A,B          only these parts: small, chunked, fields, large, huge, huge-streamed, close, tls, pipelined, delayed, held,
                      timers, growth, transfers
  --clients A,B       only these clients: floor, httpstream, hyper-conn, hyper-util, reqwest, curl-multi, mio-httpc, ureq, wrk
  --repeats N         rounds in which each client runs once (default 15)
  --gib N             the size of transfers in GiB (default 1)
  --no-counts         no instructions and no system calls (valgrind, strace)
  --write             write versus.md, versus.json and the charts to docs/performance instead of the target directory; whole runs only
  -h, --help          print this text
";

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    Bars,
    Quick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    Target,
    Docs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) extent: Extent,
    pub(crate) only: Vec<&'static str>,
    pub(crate) clients: Vec<Client>,
    pub(crate) repeats: usize,
    /// The size of a transfer.
    pub(crate) gib: u64,
    pub(crate) exact_counts: bool,
    pub(crate) destination: Destination,
    /// As it was typed.
    pub(crate) command: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Run(Options),
    Help,
}

impl Options {
    /// Parses the arguments.
    ///
    /// # Errors
    /// Names the invalid option.
    pub(crate) fn parse(args: &[String]) -> Result<Asked, String> {
        let mut args = args
            .iter()
            .map(String::as_str)
            .filter(|&arg| arg != "--bench");
        let mut command = String::from("cargo bench -p versus");
        let mut options = Self {
            extent: Extent::Whole,
            only: ONLY.to_vec(),
            clients: CLIENTS.to_vec(),
            repeats: 0,
            gib: 1,
            exact_counts: true,
            destination: Destination::Target,
            command: String::new(),
        };
        let mut separator = " -- ";
        while let Some(arg) = args.next() {
            command += separator;
            command += arg;
            separator = " ";
            let mut value = || {
                let value = args.next().ok_or(format!("{arg}: a value is missing"))?;
                command = format!("{command} {value}");
                Ok::<_, String>(value)
            };
            match arg {
                "-h" | "--help" => return Ok(Asked::Help),
                "--quick" => options.extent = Extent::Quick,
                "--bars" => options.extent = Extent::Bars,
                "--write" => options.destination = Destination::Docs,
                "--no-counts" => options.exact_counts = false,
                "--only" => {
                    options.only = list(arg, value()?, |word| {
                        ONLY.into_iter().find(|&part| part == word)
                    })?;
                }
                "--clients" => {
                    options.clients = list(arg, value()?, |word| {
                        CLIENTS.into_iter().find(|client| client.name() == word)
                    })?;
                }
                "--repeats" => {
                    let value = value()?;
                    options.repeats = match value.parse() {
                        Ok(n @ 1..=1000) => n,
                        _ => {
                            return Err(format!(
                                "--repeats {value:?}: not a number from 1 to 1000"
                            ));
                        }
                    };
                }
                "--gib" => {
                    let value = value()?;
                    options.gib = match value.parse() {
                        Ok(n @ 1..=1000) => n,
                        _ => return Err(format!("--gib {value:?}: not a number from 1 to 1000")),
                    };
                }
                _ => return Err(format!("{arg:?}: no such option")),
            }
        }
        if options.repeats == 0 {
            options.repeats = match options.extent {
                Extent::Whole | Extent::Bars => 15,
                Extent::Quick => 3,
            };
        }
        let is_whole = options.only == ONLY && options.clients == CLIENTS;
        if options.destination == Destination::Docs
            && !(is_whole && options.extent == Extent::Whole && options.exact_counts)
        {
            return Err(
                "--write: a partial run would replace the published results of a whole one"
                    .to_owned(),
            );
        }
        options.command = command;
        Ok(Asked::Run(options))
    }

    pub(crate) fn wants(&self, workload: Workload) -> bool {
        self.wants_part(workload.name())
    }

    pub(crate) fn wants_part(&self, part: &str) -> bool {
        self.only.contains(&part)
    }
}

fn list<T>(option: &str, words: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    words
        .split(',')
        .map(|word| parse(word).ok_or_else(|| format!("{option}: {word:?} is unknown")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Asked, String> {
        let args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        Options::parse(&args)
    }

    #[test]
    fn options_are_taken_as_they_are_written() {
        let Ok(Asked::Run(options)) =
            parse("--quick --only small,close --clients floor,httpstream --bench")
        else {
            panic!("valid options are refused");
        };
        assert_eq!(options.extent, Extent::Quick);
        assert_eq!(options.only, ["small", "close"]);
        assert_eq!(options.clients, [Client::Floor, Client::Httpstream]);
        assert_eq!(options.repeats, 3);
        assert_eq!(options.destination, Destination::Target);
        assert_eq!(
            options.command,
            "cargo bench -p versus -- --quick --only small,close --clients floor,httpstream"
        );
        assert!(matches!(parse("--write --repeats 20"), Ok(Asked::Run(_))));
        assert!(options.wants(Workload::Small) && !options.wants(Workload::Tls));
        assert_eq!(parse("--repeats 3 --help"), Ok(Asked::Help));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, named) in [
            ("--fast", "\"--fast\""),
            ("--only smal", "\"smal\""),
            ("--clients floor,curl", "\"curl\""),
            ("--repeats 0", "\"0\""),
            ("--repeats", "--repeats"),
            ("--gib 0", "\"0\""),
            ("--write --only small", "--write"),
            ("--quick --write", "--write"),
        ] {
            let said = parse(words).expect_err(words);
            assert!(said.contains(named), "{words}: {said}");
        }
    }
}
