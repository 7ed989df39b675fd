//! Describes why a request cannot be sent: the part, the position of the byte, and the reason.
//! Contains no more of the text than a header's name, or the beginning of a wrong one, and the
//! IPv4 address that a host may have meant.

use std::error::Error as StdError;
use std::fmt;

use super::target::Fault;

/// The most bytes of a wrong header name that an error shows: enough to recognize it by, and little
/// of a secret that was passed for a name.
const MAX_NAME_START: usize = 16;

/// Describes why a request cannot be sent. This is the source of an [`Error`](crate::Error) of kind
/// [`InvalidRequest`](crate::ErrorKind::InvalidRequest).
///
/// Contains which part is wrong, at which byte, and why. Neither `Display` nor `Debug` shows a
/// field's value. Of a URL they show the one offending byte, or the IPv4 address that its host may
/// have meant.
///
/// ```
/// use std::error::Error;
/// use httpstream::{Invalid, Request};
///
/// let error = Request::get("http://example.com/")
///     .header("X-A", "two\r\nlines")
///     .build()
///     .unwrap_err();
/// let invalid: &Invalid = error.source().unwrap().downcast_ref().unwrap();
/// assert_eq!(invalid.to_string(), r#"header value of "X-A": CR at byte 3"#);
/// assert_eq!(invalid.offset(), Some(3));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    part: InvalidPart,
    fault: Fault,
    /// Of a header name, what precedes the offending byte; the rest may be anything, such as a
    /// secret value that was passed for a name. Of a body that cannot be serialized, why not.
    text: Box<str>,
}

/// The part of a request that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidPart {
    /// The method.
    Method,
    /// The URL.
    Url,
    /// The reference passed to [`Request::resolve`](crate::Request::resolve).
    Reference,
    /// A segment appended to the URL's path with
    /// [`RequestBuilder::segments`](crate::RequestBuilder::segments) or
    /// [`segment`](crate::RequestBuilder::segment).
    Segment {
        /// The index of the segment, in the order in which they were appended, starting at 0.
        index: usize,
    },
    /// A pair appended to the URL with [`RequestBuilder::query`](crate::RequestBuilder::query) or
    /// [`param`](crate::RequestBuilder::param).
    Query,
    /// The credentials passed to [`RequestBuilder::basic_auth`](crate::RequestBuilder::basic_auth)
    /// or [`bearer_auth`](crate::RequestBuilder::bearer_auth).
    Credentials,
    /// The name of a header. The name itself is not included, because an invalid name may contain
    /// anything.
    HeaderName {
        /// The index of the header, in the order of the calls, starting at 0.
        index: usize,
    },
    /// The value of the header with this name.
    HeaderValue {
        /// The name as given.
        name: Box<str>,
    },
    /// The header with this name, whatever its value.
    Header {
        /// The name as given.
        name: Box<str>,
    },
    /// The body.
    Body,
    /// The pipeline depth set with [`RequestBuilder::pipeline`](crate::RequestBuilder::pipeline).
    Pipeline,
}

impl Invalid {
    /// `fault` is in `name`, that of the header with this index.
    pub(crate) fn header_name(index: usize, name: &str, fault: Fault) -> Self {
        let at = fault.at.unwrap_or_default().min(MAX_NAME_START);
        let start = name.get(..at).unwrap_or_default();
        InvalidPart::HeaderName { index }.is(fault).with_text(start)
    }

    /// Adds what is shown with the fault. It must not be secret.
    pub(crate) fn with_text(self, text: &str) -> Self {
        Self {
            text: text.into(),
            ..self
        }
    }

    /// Returns the part that is wrong.
    pub fn part(&self) -> &InvalidPart {
        &self.part
    }

    /// Returns the index of the offending byte in that part as given. `None` means that the part as
    /// a whole is wrong.
    pub fn offset(&self) -> Option<usize> {
        self.fault.at
    }
}

impl fmt::Display for InvalidPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidPart::Method => f.write_str("method"),
            InvalidPart::Url => f.write_str("URL"),
            InvalidPart::Reference => f.write_str("reference"),
            InvalidPart::Segment { index } => write!(f, "path segment {index}"),
            InvalidPart::Query => f.write_str("query"),
            InvalidPart::Credentials => f.write_str("credentials"),
            InvalidPart::HeaderName { .. } => f.write_str("header name"),
            InvalidPart::HeaderValue { name } => write!(f, "header value of {name:?}"),
            InvalidPart::Header { name } => write!(f, "header {name:?}"),
            InvalidPart::Body => f.write_str("body"),
            InvalidPart::Pipeline => f.write_str("pipeline"),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.part {
            InvalidPart::HeaderName { index } if self.text.is_empty() => {
                write!(f, "name of header {index}")?;
            }
            InvalidPart::HeaderName { .. } => {
                write!(f, "header name starting with {:?}", self.text)?;
            }
            part => write!(f, "{part}")?,
        }
        write!(f, ": {}", self.fault)?;
        match &self.part {
            InvalidPart::Body if !self.text.is_empty() => write!(f, ": {}", self.text),
            _ => Ok(()),
        }
    }
}

impl StdError for Invalid {}

impl InvalidPart {
    pub(crate) fn value_of(name: &str) -> Self {
        InvalidPart::HeaderValue { name: name.into() }
    }

    pub(crate) fn header(name: &str) -> Self {
        InvalidPart::Header { name: name.into() }
    }

    pub(crate) fn is(self, fault: Fault) -> Invalid {
        Invalid {
            part: self,
            fault,
            text: Box::default(),
        }
    }
}
