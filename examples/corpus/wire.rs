//! What jobs and results of several kinds have in common.

use std::error::Error;
use std::time::Duration;

use httpstream::{Config, ErrorKind, Headers, Reply};
use serde_json::{Value, json};

use crate::Unsupported;

pub(crate) type Failure = Box<dyn Error>;

pub(crate) fn text<'a>(job: &'a Value, key: &str) -> Result<&'a str, Unsupported> {
    let text = job[key].as_str();
    text.ok_or_else(|| Unsupported(format!("the job has no {key}")))
}

/// Returns a configuration whose only timeout is that of the job, for each of its requests.
pub(crate) fn config(job: &Value) -> Config {
    let mut config = Config::default();
    let t = &mut config.timeouts;
    (t.resolve, t.connect, t.write, t.first_byte, t.idle) = (None, None, None, None, None);
    let timeout = job["timeout_ms"].as_u64().unwrap_or(10_000);
    t.total = Some(Duration::from_millis(timeout));
    config
}

/// Returns the result for what a readback was given.
pub(crate) fn result(reply: &Reply<'_>) -> Value {
    match reply {
        Ok(response) => json!({
            "ok": true,
            "status": response.status().as_u16(),
            "reason": latin1(response.reason()),
            "headers": pairs(response.headers()),
            "trailers": pairs(response.trailers()),
            "body_b64": to_base64(response.body()),
            "error": null,
        }),
        Err(error) => json!({
            "ok": false,
            "status": error.status().map(|status| status.as_u16()),
            "body_b64": to_base64(error.partial_body()),
            "error": format!("{error:#}"),
            "timed_out": error.kind() == ErrorKind::Timeout,
        }),
    }
}

/// Returns the result for a request that could not be sent.
pub(crate) fn refused(failure: &Failure) -> Value {
    json!({"ok": false, "error": format!("{failure:#}"), "timed_out": false})
}

fn pairs(headers: Headers<'_>) -> Value {
    headers
        .map(|(name, value)| json!([name, latin1(value)]))
        .collect()
}

/// Decodes ISO 8859-1, in which each byte is the code point of the same number.
pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// Encodes as ISO 8859-1, or as UTF-8 if the text has other characters.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let bytes: Result<_, _> = text.chars().map(u8::try_from).collect();
    bytes.unwrap_or_else(|_| text.as_bytes().to_vec())
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes as base64 with padding (RFC 4648 §4).
pub(crate) fn to_base64(bytes: &[u8]) -> String {
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
pub(crate) fn from_base64(text: &str) -> Result<Vec<u8>, Failure> {
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
