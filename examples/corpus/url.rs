//! The kind `url`: how a URL, or a reference relative to one, is read.
//!
//! A job has the members `input` and optionally `base`. Its result has `href`, the URL of the
//! request that was built from them, or `null` with an `error` if it was refused. The URL of a
//! request has neither credentials nor a fragment, since neither is sent in a request target.
//!
//! Not supported are URLs that no request can have: other schemes than http and https, hosts that
//! are not ASCII, and credentials in a reference.

use httpstream::Request;
use serde_json::{Value, json};

use crate::{Unsupported, wire};

/// The rules that exclude valid URLs, as errors name them.
const UNSUPPORTED: [&str; 2] = ["host is not ASCII", "userinfo is refused"];

pub(crate) fn run(job: &Value) -> Result<Value, Unsupported> {
    let input = wire::text(job, "input")?;
    if has_other_scheme(input) {
        return Err("a scheme other than http and https".into());
    }
    let request = match job["base"].as_str() {
        Some(base) => {
            let base = Request::get(base).build();
            let base = base.map_err(|error| Unsupported(format!("the base: {error}")))?;
            base.resolve(input).build()
        }
        None => Request::get(input).build(),
    };
    match request {
        Ok(request) => Ok(json!({"href": request.uri().to_string()})),
        Err(error) => {
            let why = error.to_string();
            match UNSUPPORTED.iter().any(|rule| why.contains(rule)) {
                true => Err(Unsupported(why)),
                false => Ok(json!({"href": null, "error": why})),
            }
        }
    }
}

fn has_other_scheme(input: &str) -> bool {
    let Some((scheme, _)) = input.split_once(':') else {
        return false;
    };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let is_http = ["http", "https"]
        .iter()
        .any(|http| scheme.eq_ignore_ascii_case(http));
    is_scheme && !is_http
}
