//! Constructors for answers.

use serde_json::{Value, json};

use super::wire::{Answer, Manner};

impl Answer {
    pub(crate) fn new(status: u16, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("content-type".into(), media_type.into())],
            body: body.into(),
            manner: Manner::Length,
        }
    }

    pub(crate) fn text(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, "text/plain; charset=utf-8", body)
    }

    pub(crate) fn html(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, "text/html; charset=utf-8", body)
    }

    pub(crate) fn jpeg(body: Vec<u8>) -> Self {
        Self::new(200, "image/jpeg", body)
    }

    pub(crate) fn json(body: &Value) -> Self {
        Self::new(200, "application/json; charset=utf-8", body.to_string())
    }

    /// A successful answer with this result.
    pub(crate) fn result(result: Value) -> Self {
        Self::json(&json!({"retcode": 0, "result": result}))
    }

    pub(crate) fn retcode(code: i64) -> Self {
        Self::json(&match code {
            102 => json!({"retcode": 102, "errmsg": ""}),
            121 => json!({"retcode": 121, "t": "0"}),
            code => json!({"retcode": code, "errmsg": "refused"}),
        })
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::new(status, "text/plain", format!("status {status}\n"))
    }

    /// PTLOGIN's answer. `url` is the next page to fetch.
    pub(crate) fn ptui(code: u16, url: &str, message: &str, nick: &str) -> Self {
        Self::html(format!(
            "ptuiCB('{code}','0','{url}','0','{message}', '{nick}');"
        ))
    }

    pub(crate) fn redirect(location: String) -> Self {
        Self::new(302, "text/html", "Moved.\n").with("location", location)
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets a cookie, spelled exactly as in `line`.
    pub(crate) fn cookie(self, line: impl Into<String>) -> Self {
        self.with("set-cookie", line)
    }
}
