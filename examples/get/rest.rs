//! What a response means for a body that is continued (-C): a part of it (RFC 9110 §14.4), or
//! something else.

use http::StatusCode;
use httpstream::Response;

pub(crate) enum Rest {
    /// The body follows, from the offset to its end.
    Follows,
    /// The body ends at the offset.
    None,
    /// Something that must not be appended; contains why.
    Other(String),
}

impl Rest {
    /// Returns what the response that begins with `head` contains of a body from `offset` on.
    pub(crate) fn of(head: &Response<'_>, offset: u64) -> Self {
        if offset == 0 {
            return Self::Follows;
        }
        let range = head.header_str("Content-Range").unwrap_or_default();
        match head.status() {
            StatusCode::PARTIAL_CONTENT => match Part::parse(range) {
                Some(part) if part.is_from(offset) => Self::Follows,
                Some(_) => Self::Other(format!(
                    "the server sends another part of the body: {range}"
                )),
                None => Self::Other("206 without a part of the body".to_owned()),
            },
            StatusCode::RANGE_NOT_SATISFIABLE => match length(range) {
                Some(length) if length == offset => Self::None,
                Some(length) => Self::Other(format!("the body has {length} bytes only")),
                None => Self::Other(format!("answered with {}", head.status())),
            },
            status if status.is_success() => match head.content_length() {
                // As with curl, it does not matter then that the server sends all of it.
                Some(length) if length == offset => Self::None,
                _ => Self::Other("the server does not seem to support byte ranges".to_owned()),
            },
            status => Self::Other(format!("answered with {status}")),
        }
    }
}

/// The value of Content-Range: `bytes first-last/length`.
struct Part {
    first: u64,
    last: u64,
    /// `None` if the server does not know it yet (`*`).
    length: Option<u64>,
}

impl Part {
    fn parse(range: &str) -> Option<Self> {
        let (part, length) = range.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = part.split_once('-')?;
        Some(Self {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
            length: match length {
                "*" => None,
                length => Some(length.parse().ok()?),
            },
        })
    }

    /// Whether this is all from `offset` on. With a part that ends early, a file would look
    /// complete that is not.
    fn is_from(&self, offset: u64) -> bool {
        let is_to_the_end = self
            .length
            .is_none_or(|length| self.last.checked_add(1) == Some(length));
        self.first == offset && is_to_the_end
    }
}

/// Returns the length that a server names because a range is outside of it: `bytes */length`.
fn length(range: &str) -> Option<u64> {
    range.strip_prefix("bytes */")?.parse().ok()
}
