//! The interface between the server and its front-ends: calls in, answers out.

use std::fmt;
use std::time::Duration;

use form_urlencoded::parse;

/// The scheme of a URL, which decides whether its request uses TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scheme {
    #[default]
    Http,
    Https,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        })
    }
}

/// A request, as a front-end read it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    /// The number of its connection. Numbers are never reused.
    pub(crate) connection: u64,
    /// When the connection was established, if this is its first call.
    pub(crate) opened: Option<Duration>,
    /// The connection's scheme.
    pub(crate) scheme: Scheme,
    pub(crate) method: String,
    /// Without the port, in lower case.
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) form: Vec<(String, String)>,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

impl Call {
    /// `headers` have their names in lower case.
    pub(crate) fn parse(
        connection: u64,
        scheme: Scheme,
        method: &str,
        target: &str,
        headers: Vec<(String, String)>,
        body: &[u8],
    ) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let host = headers.iter().find(|(name, _)| name == "host");
        let host = host.map_or("", |(_, value)| value.split(':').next().unwrap_or_default());
        Self {
            connection,
            opened: None,
            scheme,
            method: method.to_owned(),
            host: host.to_ascii_lowercase(),
            path: path.to_owned(),
            query: parse(query.as_bytes()).into_owned().collect(),
            form: parse(body).into_owned().collect(),
            headers,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        value(&self.headers, name)
    }

    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        value(&self.query, name)
    }

    pub(crate) fn form(&self, name: &str) -> Option<&str> {
        value(&self.form, name)
    }
}

fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let pair = pairs.iter().find(|(n, _)| n == name);
    pair.map(|(_, value)| value.as_str())
}

/// The server's reaction to a call.
#[derive(Debug)]
pub(crate) enum Reaction {
    Answer(Answer),
    /// The call is held; its answer follows later under this id.
    Hold(HoldId),
}

/// The id of a held call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct HoldId(pub(crate) u64);

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) manner: Manner,
}

/// How an answer travels, or fails to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// With Content-Length.
    Length,
    Chunked,
    /// Ends with the connection.
    UntilClose,
    /// With Content-Length, a few bytes at a time.
    Drip,
    /// The connection is closed without a byte.
    NoByte,
    /// The connection is reset without a byte.
    Reset,
    /// The connection is reset inside the body.
    ResetInBody,
    /// The connection is closed inside the body.
    CutShort,
    /// Nothing comes; the connection stays open until the client closes it.
    Silence,
}

/// Actions outside of HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A person has read the captcha's picture, and types its text.
    Code { account: u64, code: String },
    /// The bot's operator has it log in.
    Login { account: u64 },
    /// The bot's operator has it log out.
    Logout { account: u64 },
}

/// The place where something is said.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    Buddy,
    Group(String),
    Discu(String),
    /// Between the bot and a member of a group who is not a buddy.
    Sess(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Buddy => f.write_str("buddy"),
            Place::Group(name) => write!(f, "group {name}"),
            Place::Discu(name) => write!(f, "discussion {name}"),
            Place::Sess(group) => write!(f, "session by {group}"),
        }
    }
}
