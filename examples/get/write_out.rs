//! The text of -w: what is known of a transfer when it has ended.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, StatusCode, Version};
use httpstream::{Info, Timings};
use serde_json::{Map, Number, Value as Json};

use crate::files::Destination;
use crate::values::Value;

/// What is known of a transfer.
pub(crate) struct Facts {
    pub(crate) url: String,
    pub(crate) number: usize,
    pub(crate) method: Method,
    pub(crate) effective_url: Option<String>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) version: Option<Version>,
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) ends: Option<Ends>,
    pub(crate) file: Option<Destination>,
    pub(crate) size: u64,
    pub(crate) redirects: usize,
    pub(crate) retries: usize,
    pub(crate) timings: Timings,
    /// How long the transfer has lasted, also if it failed.
    pub(crate) lasted: Duration,
    pub(crate) exit_code: u8,
    pub(crate) error: Option<String>,
}

/// The addresses of a connection. A unix socket has none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

impl Ends {
    pub(crate) fn of(info: &Info) -> Option<Self> {
        (info.peer.port() != 0).then_some(Self {
            peer: info.peer,
            local: info.local,
        })
    }
}

/// What a variable stands for.
enum Fact {
    Text(Option<String>),
    Number(u64),
    /// A time since the start.
    Time(Option<Duration>),
}

type Read = fn(&Facts) -> Fact;

const VARIABLES: &[(&str, Read)] = &[
    ("content_type", |it| Fact::Text(it.field("Content-Type"))),
    ("errormsg", |it| Fact::Text(it.error.clone())),
    ("exitcode", |it| Fact::Number(it.exit_code.into())),
    ("filename_effective", |it| Fact::Text(it.file_name())),
    ("http_code", |it| Fact::Number(it.code())),
    ("http_version", |it| {
        Fact::Text(it.version().map(str::to_owned))
    }),
    ("local_ip", |it| {
        Fact::Text(it.ends.map(|ends| ends.local.ip().to_string()))
    }),
    ("local_port", |it| {
        Fact::Number(it.ends.map_or(0, |ends| ends.local.port().into()))
    }),
    ("method", |it| Fact::Text(Some(it.method.to_string()))),
    ("num_headers", |it| Fact::Number(it.fields.len() as u64)),
    ("num_redirects", |it| Fact::Number(it.redirects as u64)),
    ("num_retries", |it| Fact::Number(it.retries as u64)),
    ("remote_ip", |it| {
        Fact::Text(it.ends.map(|ends| ends.peer.ip().to_string()))
    }),
    ("remote_port", |it| {
        Fact::Number(it.ends.map_or(0, |ends| ends.peer.port().into()))
    }),
    ("response_code", |it| Fact::Number(it.code())),
    ("size_download", |it| Fact::Number(it.size)),
    ("speed_download", |it| Fact::Number(it.speed())),
    ("time_appconnect", |it| Fact::Time(it.timings.tls)),
    ("time_connect", |it| Fact::Time(it.timings.connect)),
    ("time_namelookup", |it| Fact::Time(it.timings.resolve)),
    ("time_starttransfer", |it| Fact::Time(it.timings.first_byte)),
    ("time_total", |it| Fact::Time(Some(it.total()))),
    ("url", |it| Fact::Text(Some(it.url.clone()))),
    ("url_effective", |it| Fact::Text(it.effective_url.clone())),
    ("urlnum", |it| Fact::Number(it.number as u64)),
];

/// Variables that are printed with three digits.
const CODES: &[&str] = &["http_code", "response_code"];

impl Facts {
    fn field(&self, name: &str) -> Option<String> {
        let mut fields = self.fields.iter();
        let (_, value) = fields.find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    fn file_name(&self) -> Option<String> {
        let file = self.file.as_ref()?;
        Some(file.path.display().to_string())
    }

    /// Returns 0 if there was no response.
    fn code(&self) -> u64 {
        self.status.map_or(0, |status| status.as_u16().into())
    }

    fn version(&self) -> Option<&'static str> {
        match self.version? {
            Version::HTTP_10 => Some("1"),
            _ => Some("1.1"),
        }
    }

    fn total(&self) -> Duration {
        self.timings.done.unwrap_or(self.lasted)
    }

    /// Returns bytes per second.
    fn speed(&self) -> u64 {
        match self.total().as_secs_f64() {
            0.0 => 0,
            seconds => (self.size as f64 / seconds) as u64,
        }
    }

    fn to_json(&self) -> String {
        let mut all = Map::new();
        for (name, read) in VARIABLES {
            let value = match read(self) {
                Fact::Text(text) => text.map_or(Json::Null, Json::String),
                Fact::Number(number) => number.into(),
                Fact::Time(time) => {
                    let seconds = time.unwrap_or_default().as_micros() as f64 / 1e6;
                    Number::from_f64(seconds).map_or(Json::Null, Json::Number)
                }
            };
            all.insert((*name).to_owned(), value);
        }
        Json::Object(all).to_string()
    }
}

/// The value of -w, split into its parts.
pub(crate) struct Format(Vec<Part>);

enum Part {
    Text(String),
    Variable(&'static str, Read),
    Field(String),
    Json,
    To(Stream),
}

/// Where the text is printed from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Format {
    pub(crate) fn parse(value: &Value) -> Result<Self, String> {
        let text = String::from_utf8(value.content()?.without_line_ends())
            .map_err(|_| value.wrong("its value is not UTF-8"))?;
        let mut parts = Vec::new();
        let (mut plain, mut rest) = (String::new(), text.as_str());
        while let Some(at) = rest.find(['%', '\\']) {
            plain.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = escaped(rest, &mut plain) {
                rest = after;
                continue;
            }
            let (part, after) = variable(rest).map_err(|why| value.wrong(why))?;
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(part);
            rest = after;
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }

    /// Returns the text for a transfer, and where each piece of it goes.
    pub(crate) fn text(&self, facts: &Facts) -> Vec<(Stream, String)> {
        let mut pieces = vec![(Stream::Stdout, String::new())];
        for part in &self.0 {
            if let Part::To(stream) = part {
                pieces.push((*stream, String::new()));
            } else if let Some((_, text)) = pieces.last_mut() {
                part.write(facts, text);
            }
        }
        pieces.retain(|(_, text)| !text.is_empty());
        pieces
    }
}

impl Part {
    fn write(&self, facts: &Facts, out: &mut String) {
        // Writing to a string does not fail.
        let _ = match self {
            Part::To(_) => Ok(()),
            Part::Text(text) => out.write_str(text),
            Part::Json => out.write_str(&facts.to_json()),
            Part::Field(name) => out.write_str(&facts.field(name).unwrap_or_default()),
            Part::Variable(name, read) => match read(facts) {
                Fact::Text(text) => out.write_str(&text.unwrap_or_default()),
                Fact::Number(code) if CODES.contains(name) => write!(out, "{code:03}"),
                Fact::Number(number) => write!(out, "{number}"),
                Fact::Time(time) => write!(out, "{:.6}", time.unwrap_or_default().as_secs_f64()),
            },
        };
    }
}

/// If `text` does not begin with a variable, adds what its first characters stand for to `plain`,
/// and returns what follows. As with curl, a `%` or a backslash may stand for itself.
fn escaped<'a>(text: &'a str, plain: &mut String) -> Option<&'a str> {
    const ESCAPES: &[(&str, char)] = &[("%%", '%'), ("\\n", '\n'), ("\\r", '\r'), ("\\t", '\t')];
    let known = ESCAPES
        .iter()
        .find_map(|(escape, meaning)| Some((*meaning, text.strip_prefix(escape)?)));
    if known.is_none() && (text.starts_with("%{") || text.starts_with("%header{")) {
        return None;
    }
    let mut rest = text.chars();
    let (character, rest) = match known {
        Some(known) => known,
        None => (rest.next()?, rest.as_str()),
    };
    plain.push(character);
    Some(rest)
}

/// Parses `%{name}` or `%header{name}` at the beginning of `text`, and returns what follows.
fn variable(text: &str) -> Result<(Part, &str), String> {
    let braces = |prefix| text.strip_prefix(prefix)?.split_once('}');
    if let Some((name, rest)) = braces("%header{") {
        return Ok((Part::Field(name.to_owned()), rest));
    }
    let Some((name, rest)) = braces("%{") else {
        return Err("a variable without its closing brace".to_owned());
    };
    let part = match name {
        "json" => Part::Json,
        "stdout" => Part::To(Stream::Stdout),
        "stderr" => Part::To(Stream::Stderr),
        _ => match VARIABLES.iter().find(|(variable, _)| *variable == name) {
            Some((name, read)) => Part::Variable(name, *read),
            None => return Err(format!("%{{{name}}}: no such variable")),
        },
    };
    Ok((part, rest))
}
