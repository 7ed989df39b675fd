//! Runs the client on a corpus of wire cases: one JSON job per line on stdin, one JSON result per
//! line on stdout, in any order.
//!
//! A job of kind `response` has the members `id`, `method`, `url`, `timeout_ms`, and optionally
//! `body_b64` and `probe_url`. Its result has `id`, `ok`, `status`, `reason`, `headers`,
//! `body_b64`, `interim`, `trailers`, `error` and `timed_out`. If the response was read completely,
//! a GET of `probe_url` follows; it shows the server whether the connection is reused. The result
//! of a job of any other kind is `unsupported`. In the JSON, each byte of a field line is a code
//! point up to U+00FF, and bodies are in base64.
//!
//! Each job runs on its own engine, so no case affects another.

use std::error::Error;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use http::Method;
use httpstream::{
    Config, Context, Engine, ErrorKind, Headers, Next, Readback, Reply, Request, Response,
};
use serde_json::{Value, json};

#[path = "support/args.rs"]
mod args;

const USAGE: &str = "\
Usage: corpus

Reads jobs from stdin, one JSON object per line, and prints a result for each.
";

/// Concurrent jobs. A job spends most of its time waiting for the server.
const WORKERS: usize = 8;

type Failure = Box<dyn Error>;

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
    let job: Value = match serde_json::from_str(line) {
        Ok(job) => job,
        Err(error) => return json!({"id": null, "unsupported": true, "error": error.to_string()}),
    };
    let id = &job["id"];
    if job["kind"] != "response" {
        return json!({"id": id, "unsupported": true});
    }
    let mut result = match fetch(&job) {
        Ok(transcript) => transcript.result,
        Err(failure) => json!({"ok": false, "error": format!("{failure:#}"), "timed_out": false}),
    };
    result["id"] = id.clone();
    result
}

/// Runs one job on its own engine.
fn fetch(job: &Value) -> Result<Transcript, Failure> {
    let timeout = Duration::from_millis(job["timeout_ms"].as_u64().unwrap_or(10_000));
    let mut config = Config::default();
    // The only timeout is that of the job.
    let t = &mut config.timeouts;
    (t.resolve, t.connect, t.write, t.first_byte, t.idle) = (None, None, None, None, None);
    t.total = Some(timeout);

    let method = Method::from_bytes(text(job, "method")?.as_bytes())?;
    let mut request = Request::builder(method, text(job, "url")?);
    if let Some(body) = job["body_b64"].as_str() {
        request = request.body(from_base64(body)?);
    }
    let probe = match job["probe_url"].as_str() {
        Some(url) => Some(Request::get(url).build()?),
        None => None,
    };
    let mut transcript = Transcript {
        probe,
        ..Transcript::default()
    };
    let mut engine = Engine::with_config(config)?;
    engine.submit_to(request.build()?, Recorder);
    engine.run(&mut transcript)?;
    Ok(transcript)
}

fn text<'a>(job: &'a Value, key: &str) -> Result<&'a str, Failure> {
    job[key]
        .as_str()
        .ok_or_else(|| format!("the job has no {key}").into())
}

#[derive(Default)]
struct Transcript {
    /// The request to send after a response that was read completely.
    probe: Option<Request>,
    interim: Vec<u16>,
    result: Value,
}

struct Recorder;

impl Readback<Transcript> for Recorder {
    fn on_interim(
        &mut self,
        transcript: &mut Transcript,
        head: &Response<'_>,
        _: &mut Context<'_, Transcript>,
    ) {
        transcript.interim.push(head.status().as_u16());
    }

    fn on_reply(
        &mut self,
        transcript: &mut Transcript,
        reply: Reply<'_>,
        cx: &mut Context<'_, Transcript>,
    ) -> Next<Transcript> {
        match reply {
            Ok(response) => {
                transcript.result = json!({
                    "ok": true,
                    "status": response.status().as_u16(),
                    "reason": latin1(response.reason()),
                    "headers": pairs(response.headers()),
                    "trailers": pairs(response.trailers()),
                    "interim": transcript.interim,
                    "body_b64": to_base64(response.body()),
                    "error": null,
                });
                match transcript.probe.take() {
                    Some(probe) => cx.send(probe).read_by(|_, _, cx| cx.done()),
                    None => cx.done(),
                }
            }
            Err(error) => {
                transcript.result = json!({
                    "ok": false,
                    "status": error.status().map(|status| status.as_u16()),
                    "interim": transcript.interim,
                    "body_b64": to_base64(error.partial_body()),
                    "error": format!("{error:#}"),
                    "timed_out": error.kind() == ErrorKind::Timeout,
                });
                cx.done()
            }
        }
    }
}

fn pairs(headers: Headers<'_>) -> Value {
    headers
        .map(|(name, value)| json!([name, latin1(value)]))
        .collect()
}

/// Decodes ISO 8859-1, in which each byte is the code point of the same number.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes as base64 with padding (RFC 4648 §4).
fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|i| group.get(i).copied().unwrap_or(0));
        let bits = u32::from_be_bytes([0, a, b, c]);
        for i in 0..4 {
            match i <= group.len() {
                true => text.push(BASE64[(bits >> (18 - 6 * i)) as usize & 63].into()),
                false => text.push('='),
            }
        }
    }
    text
}

/// Decodes base64, with or without padding.
fn from_base64(text: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = BASE64.iter().position(|&known| known == byte);
        let digit = digit.ok_or("the job's body is not valid base64")?;
        bits = bits << 6 | digit as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Ok(bytes)
}
