//! Runs the client on a corpus of cases: one JSON job per line on stdin, one JSON result per line
//! on stdout, in any order.
//!
//! Each job has an `id`, which its result repeats, and a `kind`. The kinds are described in the
//! modules:
//!
//! - `response`: one response, byte by byte as a server sends it.
//! - `exchange`: requests in a session, with what servers answer to them.
//! - `cookies`: what a jar makes of Set-Cookie fields.
//! - `url`: how a URL or a reference is read.
//!
//! The result of a job that the client has no means to do is `{"unsupported": true}`, with the
//! reason as `why`. In the JSON, each byte of a field line is a code point up to U+00FF, and bodies
//! are in base64.
//!
//! Each job runs on its own engine, with its own jar, so no case affects another.

use std::io::{self, Write};
use std::thread;

use serde_json::{Value, json};

#[path = "../support/args.rs"]
mod args;
mod cookies;
mod exchange;
mod in_session;
mod response;
mod url;
mod wire;

const USAGE: &str = "\
Usage: corpus

Reads jobs from stdin, one JSON object per line, and prints a result for each.
";

/// Concurrent jobs. A job spends most of its time waiting for the server.
const WORKERS: usize = 8;

/// Why the client has no means to do a job.
struct Unsupported(String);

impl From<&str> for Unsupported {
    fn from(why: &str) -> Self {
        Self(why.to_owned())
    }
}

fn main() {
    env_logger::init();
    let mut args = args::Args::new("corpus", USAGE);
    if let Some(arg) = args.next() {
        args.wrong(&format!(
            "{arg:?}: jobs are read from stdin, not from arguments"
        ));
    }
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(line) = next_line() {
                    let result = answer(&line);
                    writeln!(io::stdout(), "{result}").expect("stdout can be written to");
                }
            });
        }
    });
}

/// Returns the next line of stdin that is not blank, or `None` at its end. All workers share stdin.
fn next_line() -> Option<String> {
    let mut line = String::new();
    while line.trim().is_empty() {
        line.clear();
        let bytes = io::stdin().read_line(&mut line);
        if bytes.expect("stdin is readable and UTF-8") == 0 {
            return None;
        }
    }
    Some(line)
}

fn answer(line: &str) -> Value {
    let (job, result) = match serde_json::from_str(line) {
        Ok(job) => {
            let result = run(&job);
            (job, result)
        }
        Err(error) => (
            without_surrogates(line),
            Err(Unsupported(error.to_string())),
        ),
    };
    let mut result = match result {
        Ok(result) => result,
        Err(Unsupported(why)) => json!({"unsupported": true, "why": why}),
    };
    result["id"] = job["id"].clone();
    result
}

fn run(job: &Value) -> Result<Value, Unsupported> {
    match job["kind"].as_str() {
        Some("response") => response::run(job),
        Some("exchange") => exchange::run(job),
        Some("cookies") => cookies::run(job),
        Some("url") => url::run(job),
        Some(_) | None => Err("no such kind of job".into()),
    }
}

/// Parses a job with lone surrogates, which a string cannot hold. Their escapes are taken for text,
/// and so are those of pairs: it is enough to find the job's `id`.
fn without_surrogates(line: &str) -> Value {
    let line = line.replace(r"\ud", r"\\ud").replace(r"\uD", r"\\uD");
    serde_json::from_str(&line).unwrap_or_default()
}
