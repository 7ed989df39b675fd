//! The fields that policies add to one attempt.
//!
//! They are written as lines into a buffer that the engine reuses, and sent after the request's own
//! fields. Nothing is allocated, and the request itself does not change when it is sent again.

use std::fmt::{self, Write as _};

use crate::error::Error;
use crate::proto::field::{name_fault, offset_of_trimmed, trim, value_fault};
use crate::proto::target::Fault;
use crate::proto::{Invalid, InvalidPart};
use crate::request::{Request, lines};

/// The fields of one attempt, to which a policy adds its own.
///
/// They are sent after the request's own fields, and requested again for the next attempt.
pub struct Fields<'a> {
    /// The added lines, each with its CRLF.
    block: &'a mut Vec<u8>,
    request: &'a Request,
    /// Number of fields that policies tried to add so far.
    index: usize,
}

/// Fields about message framing and the connection, which are set by the engine alone (RFC 9110
/// §7.6.1, RFC 9112 §6).
const RESERVED: [&str; 10] = [
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "TE",
    "Trailer",
    "Upgrade",
    "Expect",
    "Keep-Alive",
    "Proxy-Connection",
];

/// Credentials that a program sets on a request itself override a policy's, without an error.
const THE_REQUESTS_FIRST: [&str; 2] = ["Cookie", "Authorization"];

impl<'a> Fields<'a> {
    /// Creates the fields of `request`, to be written after those that `block` already holds.
    pub(crate) fn new(block: &'a mut Vec<u8>, request: &'a Request) -> Self {
        Self {
            block,
            request,
            index: 0,
        }
    }

    /// Adds a field. Whitespace around the value is removed.
    ///
    /// If the request itself carries a `Cookie` or `Authorization`, that one wins: a second one is
    /// left out, without an error.
    ///
    /// # Errors
    /// As [`RequestBuilder::header`](crate::RequestBuilder::header) for an invalid name or value.
    /// Also refused are a field that is already there, and the fields of framing and connection:
    /// `Host`, `Content-Length`, `Transfer-Encoding`, `Connection`, `TE`, `Trailer`, `Upgrade`,
    /// `Expect`, `Keep-Alive`, `Proxy-Connection`. Nothing is added in these cases.
    pub fn add(&mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.push(name.as_ref(), |block| {
            block.extend_from_slice(value.as_ref());
            Ok(())
        })
    }

    /// Like [`add`](Self::add), for a value that has to be formatted: `fields.add_fmt("X-Time",
    /// format_args!("{seconds}"))`. Allocates nothing.
    ///
    /// # Errors
    /// As [`add`](Self::add), and if the formatted value returns an error.
    pub fn add_fmt(
        &mut self,
        name: impl AsRef<str>,
        value: fmt::Arguments<'_>,
    ) -> Result<(), Error> {
        self.push(name.as_ref(), |block| Text(block).write_fmt(value))
    }

    /// Returns whether the request carries this field or it has been added; names are
    /// case-insensitive.
    pub fn has(&self, name: impl AsRef<str>) -> bool {
        let name = name.as_ref();
        self.request.has_field(name) || self.was_added(name)
    }

    fn was_added(&self, name: &str) -> bool {
        has(self.block, name)
    }

    fn push(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut Vec<u8>) -> fmt::Result,
    ) -> Result<(), Error> {
        let index = self.index;
        self.index += 1;
        let start = self.block.len();
        self.check_name(name, index)
            .map_err(Error::invalid_request)?;
        self.block.extend_from_slice(name.as_bytes());
        self.block.extend_from_slice(b": ");
        let written = match write(self.block) {
            Ok(()) => self.end_line(name, start).map_err(Error::invalid_request),
            Err(fmt::Error) => {
                let why = format!("the value of field {name:?} could not be written");
                Err(Error::policy(why))
            }
        };
        // The request's own field wins, but an invalid value is still an error.
        let wins = || {
            THE_REQUESTS_FIRST
                .iter()
                .any(|it| it.eq_ignore_ascii_case(name))
        };
        if written.is_err() || wins() && self.request.has_field(name) {
            self.block.truncate(start);
        }
        written
    }

    fn check_name(&self, name: &str, index: usize) -> Result<(), Invalid> {
        if let Some(fault) = name_fault(name) {
            return Err(Invalid::header_name(index, name, fault));
        }
        let is_in = |names: &[&str]| names.iter().any(|other| other.eq_ignore_ascii_case(name));
        let refused = |why| Err(InvalidPart::header(name).is(Fault::whole(why)));
        if is_in(&RESERVED) {
            return refused("set by the engine only, since it concerns framing or the connection");
        }
        if self.was_added(name) {
            return refused("added twice");
        }
        if self.request.has_field(name) && !is_in(&THE_REQUESTS_FIRST) {
            return refused("the request has it already");
        }
        Ok(())
    }

    /// Checks the value at the end of the block and terminates its line, which begins at `start`.
    fn end_line(&mut self, name: &str, start: usize) -> Result<(), Invalid> {
        let value_start = start + name.len() + ": ".len();
        let value = &self.block[value_start..];
        if let Some(fault) = value_fault(value) {
            return Err(InvalidPart::value_of(name).is(fault));
        }
        let (before, len) = (offset_of_trimmed(value), trim(value).len());
        self.block.drain(value_start..value_start + before);
        self.block.truncate(value_start + len);
        self.block.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// Whether one of the added lines has this name, in any case.
pub(crate) fn has(block: &[u8], name: &str) -> bool {
    lines(block).any(|line| line.is_named(name))
}

/// Writes text as bytes; writing to a `Vec` cannot fail.
struct Text<'a>(&'a mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Prints the names only: values may be secrets.
impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = lines(self.block).map(|line| String::from_utf8_lossy(line.name).into_owned());
        f.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::error::ErrorKind;
    use crate::proto::testing::Random;
    use crate::request::Request;

    fn request() -> Request {
        let request = Request::post("http://a/")
            .header("Cookie", "own")
            .header("AUTHORIZATION", "own")
            .header("X-Own", "own")
            .body("x");
        request.build().unwrap()
    }

    fn invalid(error: &Error) -> Invalid {
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        let source = error.source().and_then(|source| source.downcast_ref());
        source.cloned().expect("an Invalid")
    }

    #[test]
    fn lines_are_written_behind_what_is_there() {
        let request = Request::get("http://a/").build().unwrap();
        let mut block = b"X-Before: 1\r\n".to_vec();
        let mut fields = Fields::new(&mut block, &request);
        fields.add("X-A", "b").unwrap();
        fields.add("x-c", [0x80, b' ', 0xff]).unwrap();
        fields.add("X-Empty", "").unwrap();
        fields.add("X-Blank", " \t ").unwrap();
        fields.add("X-Trimmed", "\t a \t b ").unwrap();
        fields
            .add_fmt("X-Time", format_args!(" {:03} ", 7))
            .unwrap();
        fields.add("Cookie", "d=e").unwrap();
        for name in ["x-before", "X-A", "X-C", "cookie", "host"] {
            assert!(fields.has(name), "{name}");
        }
        for name in ["X", "X-A: b", "", "b"] {
            assert!(!fields.has(name), "{name}");
        }
        let shown = format!("{fields:?}");
        assert!(
            shown.contains("Cookie") && !shown.contains("d=e"),
            "{shown}"
        );
        assert_eq!(
            block,
            b"X-Before: 1\r\nX-A: b\r\nx-c: \x80 \xff\r\nX-Empty: \r\nX-Blank: \r\n\
              X-Trimmed: a \t b\r\nX-Time: 007\r\nCookie: d=e\r\n"
        );
        assert!(has(&block, "x-TIME") && !has(&block, "time"));
    }

    #[test]
    fn what_is_refused_leaves_nothing_behind() {
        let part = |name: &str| InvalidPart::header(name);
        let value = |name: &str| InvalidPart::value_of(name);
        let name = |index| InvalidPart::HeaderName { index };
        // Name, value, part, offset.
        #[rustfmt::skip]
        let rows: &[(&str, &str, InvalidPart, Option<usize>)] = &[
            ("", "a", name(1), None),
            ("a b", "c", name(1), Some(1)),
            ("a:", "c", name(1), Some(1)),
            ("é", "c", name(1), Some(0)),
            ("a\r\nb", "c", name(1), Some(1)),
            (":path", "/", name(1), Some(0)),
            ("x", "a\r\nb", value("x"), Some(1)),
            ("x", "\n", value("x"), Some(0)),
            ("x", " a \0", value("x"), Some(3)),
            ("x", "\x7f", value("x"), Some(0)),
            ("Cookie", "a\n", value("Cookie"), Some(1)),
            ("host", "a", part("host"), None),
            ("CONTENT-LENGTH", "1", part("CONTENT-LENGTH"), None),
            ("transfer-encoding", "chunked", part("transfer-encoding"), None),
            ("Connection", "close", part("Connection"), None),
            ("te", "trailers", part("te"), None),
            ("Trailer", "x", part("Trailer"), None),
            ("upgrade", "h2c", part("upgrade"), None),
            ("Expect", "100-continue", part("Expect"), None),
            ("keep-alive", "1", part("keep-alive"), None),
            ("Proxy-Connection", "close", part("Proxy-Connection"), None),
            ("x-first", "again", part("x-first"), None),
            ("X-FIRST", "again", part("X-FIRST"), None),
            ("x-own", "another", part("x-own"), None),
        ];
        let request = request();
        for (field, text, part, offset) in rows {
            for formatted in [false, true] {
                let mut block = Vec::new();
                let mut fields = Fields::new(&mut block, &request);
                fields.add("X-First", "1").unwrap();
                let error = if formatted {
                    fields.add_fmt(field, format_args!("{text}"))
                } else {
                    fields.add(field, text)
                };
                let invalid = invalid(&error.expect_err(field));
                assert_eq!(
                    (invalid.part(), invalid.offset()),
                    (part, *offset),
                    "{field:?}"
                );
                assert_eq!(block, b"X-First: 1\r\n", "{field:?}");
            }
        }
    }

    #[test]
    fn credentials_of_the_request_win_without_a_word() {
        let request = request();
        let mut block = Vec::new();
        let mut fields = Fields::new(&mut block, &request);
        for name in ["cookie", "COOKIE", "Authorization"] {
            assert!(fields.has(name));
            fields.add(name, "added").unwrap();
            fields.add_fmt(name, format_args!("added")).unwrap();
        }
        fields.add("Proxy-Authorization", "added").unwrap();
        assert_eq!(block, b"Proxy-Authorization: added\r\n");
        // If the request has none of its own, one may be added, but not two.
        let request = Request::get("http://a/").build().unwrap();
        let mut block = Vec::new();
        let mut fields = Fields::new(&mut block, &request);
        fields.add("Authorization", "added").unwrap();
        assert!(fields.add("authorization", "another").is_err());
        assert_eq!(block, b"Authorization: added\r\n");
    }

    #[test]
    fn a_value_that_fails_to_write_itself_is_the_policys_mistake() {
        struct Failing;
        impl fmt::Display for Failing {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("half")?;
                Err(fmt::Error)
            }
        }
        let request = request();
        let mut block = Vec::new();
        let mut fields = Fields::new(&mut block, &request);
        let error = fields
            .add_fmt("X-A", format_args!("{Failing}"))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Policy);
        assert!(block.is_empty());
    }

    #[test]
    fn a_buffer_that_is_used_again_is_enough() {
        let request = request();
        let mut block = Vec::with_capacity(64);
        let place = block.as_ptr();
        for round in 0..100 {
            block.clear();
            let mut fields = Fields::new(&mut block, &request);
            fields.add("X-Key", "k1").unwrap();
            fields.add_fmt("X-Round", format_args!("{round}")).unwrap();
        }
        assert_eq!((block.as_ptr(), block.capacity()), (place, 64));
    }

    /// Whatever is added, the block consists of exactly the lines that were asked for.
    #[test]
    fn any_input_is_refused_or_keeps_its_lines() {
        let request = request();
        let mut random = Random::new(23);
        let mut added = 0;
        for _ in 0..5000 {
            let mut block = Vec::new();
            let mut fields = Fields::new(&mut block, &request);
            let mut expected = Vec::new();
            for _ in 0..3 {
                let (name, value) = (random.mutate(b"X-Name"), random.mutate(b"a value"));
                let Ok(name) = String::from_utf8(name) else {
                    continue;
                };
                if fields.add(&name, &value).is_ok() {
                    added += 1;
                    expected.push((name.into_bytes(), trim(&value).to_vec()));
                }
            }
            let found: Vec<_> = lines(&block)
                .map(|line| (line.name.to_vec(), line.value().to_vec()))
                .collect();
            assert_eq!(found, expected);
        }
        assert!(added > 1000, "{added} added");
    }
}
