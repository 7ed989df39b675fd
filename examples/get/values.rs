//! The values of options. An error names the option and what is wrong, and repeats the value unless
//! it may be a secret.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use httpstream::Request;

use crate::options::Resume;

/// The value of an option.
#[derive(Clone)]
pub(crate) struct Value {
    name: String,
    value: OsString,
}

impl Value {
    pub(crate) fn new(name: String, value: OsString) -> Self {
        Self { name, value }
    }

    /// Returns the option, as the user has written it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns an error that does not repeat the value.
    pub(crate) fn wrong(&self, what: impl std::fmt::Display) -> String {
        format!("{}: {what}", self.name)
    }

    pub(crate) fn raw(&self) -> &OsStr {
        &self.value
    }

    pub(crate) fn text(&self) -> Result<&str, String> {
        let text = self.value.to_str();
        text.ok_or_else(|| self.wrong("its value is not UTF-8"))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.value.clone().into()
    }

    /// Returns a whole number within `range`.
    pub(crate) fn number(&self, range: RangeInclusive<usize>) -> Result<usize, String> {
        let text = self.text()?;
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let (name, least, most) = (&self.name, range.start(), range.end());
            format!("{name} {text:?}: not a number from {least} to {most}")
        })
    }

    /// Returns a number of bytes, with one of the units of curl, which are powers of 1024.
    pub(crate) fn bytes(&self) -> Result<u64, String> {
        const UNITS: &[(char, u32)] = &[('k', 10), ('m', 20), ('g', 30), ('t', 40), ('p', 50)];
        let text = self.text()?;
        let lower = text.to_ascii_lowercase();
        let mut units = UNITS.iter();
        let unit = units.find_map(|(unit, bits)| Some((lower.strip_suffix(*unit)?, *bits)));
        let (number, bits) = unit.unwrap_or((&lower, 0));
        let bytes = number.parse().ok();
        let bytes = bytes.and_then(|number: u64| number.checked_mul(1 << bits));
        bytes.ok_or_else(|| format!("{} {text:?}: not a number of bytes", self.name))
    }

    /// Returns a number of seconds, which may have a fraction; `None` for 0.
    pub(crate) fn seconds(&self) -> Result<Option<Duration>, String> {
        let text = self.text()?;
        let seconds = text.parse().ok().map(Duration::try_from_secs_f64);
        match seconds {
            Some(Ok(seconds)) => Ok(Some(seconds).filter(|seconds| !seconds.is_zero())),
            _ => Err(format!("{} {text:?}: not a number of seconds", self.name)),
        }
    }

    /// Returns a number of redirects. As with curl, -1 means any number.
    pub(crate) fn redirects(&self) -> Result<usize, String> {
        match self.value == "-1" {
            true => Ok(usize::MAX),
            false => self.number(0..=usize::MAX),
        }
    }

    /// Returns an offset in bytes; `-` is the length of a file.
    pub(crate) fn offset(&self) -> Result<Resume, String> {
        match self.text()? {
            "-" => Ok(Resume::AfterFile),
            text => match text.parse() {
                Ok(offset) => Ok(Resume::At(offset)),
                Err(_) => Err(format!("{} {text:?}: not a number of bytes", self.name)),
            },
        }
    }

    /// Splits `USER:PASSWORD`. The error does not repeat it.
    pub(crate) fn user(&self) -> Result<User, String> {
        match self.text()?.split_once(':') {
            Some((name, password)) => Ok(User {
                name: name.to_owned(),
                password: password.to_owned(),
            }),
            None => Err(self.wrong("not USER:PASSWORD")),
        }
    }

    pub(crate) fn method(&self) -> Result<Method, String> {
        let text = self.text()?;
        let wrong = |why: &dyn std::fmt::Display| format!("{} {text:?}: {why:#}", self.name);
        let method = Method::from_bytes(text.as_bytes()).map_err(|why| wrong(&why))?;
        match Request::builder(method.clone(), "http://localhost/").build() {
            Ok(_) => Ok(method),
            Err(error) => Err(wrong(&error)),
        }
    }

    /// Parses `HOST:PORT:ADDR`. An IPv6 address may be in brackets or not.
    pub(crate) fn address(&self) -> Result<(String, SocketAddr), String> {
        let text = self.text()?;
        let parse = || {
            let mut parts = text.splitn(3, ':');
            let (host, port, addr) = (parts.next()?, parts.next()?, parts.next()?);
            let bare = addr
                .strip_prefix('[')
                .and_then(|addr| addr.strip_suffix(']'));
            let (port, ip): (u16, IpAddr) =
                (port.parse().ok()?, bare.unwrap_or(addr).parse().ok()?);
            Some((format!("{host}:{port}"), SocketAddr::new(ip, port)))
        };
        parse().ok_or_else(|| format!("{} {text:?}: not HOST:PORT:ADDR", self.name))
    }

    /// Returns the value, or the content of the file that it names after an `@`.
    pub(crate) fn content(&self) -> Result<Content, String> {
        match self.value.as_encoded_bytes() {
            [b'@', ..] => self.file_after_at().map(Content::File),
            text => Ok(Content::Given(text.to_owned())),
        }
    }

    fn file_after_at(&self) -> Result<Vec<u8>, String> {
        match self.text()?.strip_prefix('@') {
            Some(file) => self.read(OsStr::new(file)),
            None => Err(self.wrong("no file is named")),
        }
    }

    /// Reads a file; `-` is stdin.
    pub(crate) fn read(&self, file: &OsStr) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let read = match file == "-" {
            true => io::stdin().read_to_end(&mut bytes),
            false => File::open(file).and_then(|mut file| file.read_to_end(&mut bytes)),
        };
        match read {
            Ok(_) => Ok(bytes),
            Err(error) => Err(format!("{} {}: {error}", self.name, file.display())),
        }
    }
}

pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) password: String,
}

/// Where a value came from: `@file` is often read differently.
pub(crate) enum Content {
    Given(Vec<u8>),
    File(Vec<u8>),
}

impl Content {
    /// Returns the bytes, those of a file without its line ends.
    pub(crate) fn without_line_ends(self) -> Vec<u8> {
        match self {
            Content::Given(bytes) => bytes,
            Content::File(mut bytes) => {
                bytes.retain(|byte| !matches!(byte, b'\r' | b'\n' | 0));
                bytes
            }
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self {
            Content::Given(bytes) | Content::File(bytes) => bytes,
        }
    }
}
