//! The fields of the requests: those of -H, -A and -e, and the defaults that these replace or
//! leave out.

use http::HeaderName;
use httpstream::Request;

use crate::values::{Content, Value};

/// Fields that a request cannot be without.
const REQUIRED: &[&str] = &["connection", "content-length", "host", "transfer-encoding"];

#[derive(Default)]
pub(crate) struct Fields {
    set: Vec<(String, String)>,
    /// Those of -A and -e, to which -H is preferred. Empty ones are not sent.
    usual: Vec<(&'static str, String)>,
    /// The names of fields that are not to be sent.
    left_out: Vec<String>,
    /// The number of -H options so far.
    count: usize,
}

impl Fields {
    /// Adds the value of -H: `Name: value`; `Name:`, which leaves the field out; `Name;`, which
    /// sends an empty one; or `@file` with such lines.
    ///
    /// It may be a secret, so an error identifies the field only by its number and name.
    pub(crate) fn add(&mut self, value: &Value) -> Result<(), String> {
        self.count += 1;
        let place = format!("-H number {}", self.count);
        match value.content()? {
            Content::Given(_) => self.add_line(&place, value.text()?),
            Content::File(bytes) => {
                let text = String::from_utf8(bytes).map_err(|_| format!("{place}: not UTF-8"))?;
                let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty());
                lines.try_for_each(|(number, line)| {
                    self.add_line(&format!("{place}: line {number}"), line)
                })
            }
        }
    }

    fn add_line(&mut self, place: &str, line: &str) -> Result<(), String> {
        let (name, value) = match (line.split_once(':'), line.strip_suffix(';')) {
            (Some((name, value)), _) => (name, Some(value).filter(|value| !is_blank(value))),
            (None, Some(name)) => (name, Some("")),
            (None, None) => return Err(format!("{place}: no colon")),
        };
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(format!("{place}: no valid header name before the colon"));
        }
        match value {
            Some(value) => self.set(place, name, value),
            None => self.leave_out(place, name),
        }
    }

    fn set(&mut self, place: &str, name: &str, value: &str) -> Result<(), String> {
        check(place, name, value)?;
        self.set.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    /// Sets a field by an option of its own. An empty value leaves it out.
    pub(crate) fn set_by(&mut self, option: &Value, name: &'static str) -> Result<(), String> {
        let (place, value) = (option.name(), option.text()?);
        check(place, name, value)?;
        self.usual.retain(|(usual, _)| *usual != name);
        self.usual.push((name, value.to_owned()));
        Ok(())
    }

    fn leave_out(&mut self, place: &str, name: &str) -> Result<(), String> {
        let name = name.to_ascii_lowercase();
        if REQUIRED.contains(&name.as_str()) {
            return Err(format!("{place}: the field {name:?} cannot be left out"));
        }
        self.left_out.push(name);
        Ok(())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.set
            .iter()
            .any(|(set, _)| set.eq_ignore_ascii_case(name))
    }

    /// Whether a field is to be sent if nothing else sets it.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let emptied = self.usual.iter().filter(|(_, value)| value.is_empty());
        let emptied = emptied.map(|(name, _)| *name);
        let mut unwanted = self.left_out.iter().map(String::as_str).chain(emptied);
        !unwanted.any(|left| left.eq_ignore_ascii_case(name))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let usual = self.usual.iter().map(|(name, value)| (*name, &**value));
        let usual = usual.filter(|(name, _)| !self.has(name) && self.wants(name));
        let set = self.set.iter().map(|(name, value)| (&**name, &**value));
        set.chain(usual)
    }
}

/// Checks a field. `place` is where it comes from, for the error.
fn check(place: &str, name: &str, value: &str) -> Result<(), String> {
    let probe = Request::get("http://localhost/").header(name, value);
    match probe.mistake() {
        Some(mistake) => Err(format!("{place}: {mistake}")),
        None => Ok(()),
    }
}

fn is_blank(value: &str) -> bool {
    value.trim().is_empty()
}
