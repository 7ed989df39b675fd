//! Origin: scheme, host and port (RFC 9110 §4.3.1), the key of the pool and the source of the Host value.

use std::fmt;

/// The scheme of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Scheme {
    /// `http`, port 80 unless another is given.
    Http,
    /// `https`, port 443 unless another is given.
    Https,
}

impl Scheme {
    /// As it stands in a URL, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port that a URL of this scheme need not name.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// Scheme, host and port of a request (RFC 9110 §4.3.1).
///
/// The host is in lower case, an IPv6 literal without its brackets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    scheme: Scheme,
    port: u16,
    host: Box<str>,
}

impl Origin {
    pub(crate) fn new(scheme: Scheme, host: &str, port: u16) -> Self {
        Self {
            scheme,
            port,
            host: host.into(),
        }
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host: a name in lower case, or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, also where it is the scheme's own.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value of the Host field (RFC 9110 §7.2): `host:port`, an IPv6 literal in brackets, the scheme's own port left out.
    pub(crate) fn authority(&self) -> Authority<'_> {
        Authority(self)
    }
}

pub(crate) struct Authority<'a>(&'a Origin);

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { scheme, port, host } = self.0;
        match host.contains(':') {
            true => write!(f, "[{host}]")?,
            false => f.write_str(host)?,
        }
        match *port == scheme.default_port() {
            true => Ok(()),
            false => write!(f, ":{port}"),
        }
    }
}

/// `http://host:port`, an IPv6 literal in brackets, the scheme's own port left out.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
