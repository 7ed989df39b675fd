//! The kind `response`: one request, without a session.
//!
//! A job has the members `method`, `url`, `timeout_ms`, and optionally `body_b64` and `probe_url`.
//! Its result has `ok`, `status`, `reason`, `headers`, `body_b64`, `interim`, `trailers`, `error`
//! and `timed_out`. If the response was read completely, a GET of `probe_url` follows; it shows the
//! server whether the connection is reused.

use http::Method;
use httpstream::{Context, Engine, Next, Readback, Reply, Request, Response};
use serde_json::{Value, json};

use crate::Unsupported;
use crate::wire::{self, Failure};

pub(crate) fn run(job: &Value) -> Result<Value, Unsupported> {
    let (method, url) = (wire::text(job, "method")?, wire::text(job, "url")?);
    Ok(match fetch(job, method, url) {
        Ok(transcript) => transcript.result,
        Err(failure) => wire::refused(&failure),
    })
}

fn fetch(job: &Value, method: &str, url: &str) -> Result<Transcript, Failure> {
    let mut request = Request::builder(Method::from_bytes(method.as_bytes())?, url);
    if let Some(body) = job["body_b64"].as_str() {
        request = request.body(wire::from_base64(body)?);
    }
    let probe = match job["probe_url"].as_str() {
        Some(url) => Some(Request::get(url).build()?),
        None => None,
    };
    let mut transcript = Transcript {
        probe,
        ..Transcript::default()
    };
    let mut engine = Engine::with_config(wire::config(job))?;
    engine.submit_to(request.build()?, Recorder);
    engine.run(&mut transcript)?;
    Ok(transcript)
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
        transcript.result = wire::result(&reply);
        transcript.result["interim"] = json!(transcript.interim);
        match (reply, transcript.probe.take()) {
            (Ok(_), Some(probe)) => cx.send(probe).read_by(|_, _, cx| cx.done()),
            (Ok(_), None) | (Err(_), _) => cx.done(),
        }
    }
}
