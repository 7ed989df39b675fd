//! The kind `url`: how a URL, or a reference relative to one, is read.
//!
//! A job has the members `input` and optionally `base`. Its result has `href`, the URL of the
//! request that was built from them, or `null` with an `error` if it was refused. The URL of a
//! request has neither credentials nor a fragment, since neither is sent in a request target.
//!
//! Not supported are URLs that no request can have: other schemes than http and https, hosts that
//! are not ASCII, and credentials in a reference.

use httpstream::{Error, Request};
use serde_json::{Value, json};

use crate::{Unsupported, wire};

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
        Err(error) => match offending_byte(&error, input) {
            // Elsewhere in a URL, these bytes are encoded.
            Some(0x80..) => Err("a host that is not ASCII".into()),
            Some(b'@') => Err("credentials in a reference".into()),
            Some(_) | None => Ok(json!({"href": null, "error": error.to_string()})),
        },
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

/// Returns the byte of `input` at which it was refused.
fn offending_byte(error: &Error, input: &str) -> Option<u8> {
    let offset = error.invalid()?.offset()?;
    input.as_bytes().get(offset).copied()
}
