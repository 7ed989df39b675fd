//! Origin: scheme, host and port (RFC 9110 §4.3.1), the key of the pool and the source of the Host
//! value.

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

/// As [`as_str`](Scheme::as_str).
impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Scheme, host and port of a request (RFC 9110 §4.3.1).
///
/// The host is in lower case, an IPv6 literal without its brackets. Its zone id, if it has one,
/// stands behind a `%` as it was given: `fe80::1%eth0`, since on another interface it is another
/// host.
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

    /// The host: a name in lower case, or an IP address without brackets, with its zone id if it
    /// has one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, also where it is the scheme's own.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value of the Host field (RFC 9110 §7.2): `host:port`, an IPv6 literal in brackets, the
    /// scheme's own port left out.
    ///
    /// A zone id is left out as well: it says which way to take on this machine, and means nothing
    /// to another (RFC 6874 §3).
    pub(crate) fn authority(&self) -> Authority<'_> {
        Authority(self)
    }

    /// Whether the host is an IPv6 address with a zone id.
    pub(crate) fn has_zone(&self) -> bool {
        self.zone().is_some()
    }

    fn zone(&self) -> Option<&str> {
        self.host.split_once('%').map(|(_, zone)| zone)
    }

    /// The host without its zone id.
    fn address(&self) -> &str {
        self.host.split('%').next().unwrap_or_default()
    }

    fn is_ipv6(&self) -> bool {
        self.host.contains(':')
    }

    /// `:port`, unless it is the scheme's own.
    fn write_port(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port == self.scheme.default_port() {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}

pub(crate) struct Authority<'a>(&'a Origin);

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(origin) = self;
        if origin.is_ipv6() {
            write!(f, "[{}]", origin.address())?
        } else {
            f.write_str(&origin.host)?
        }
        origin.write_port(f)
    }
}

/// `http://host:port`, an IPv6 literal in brackets, a zone id in it behind `%25`, the scheme's own
/// port left out.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.as_str();
        match self.zone() {
            Some(zone) => {
                write!(f, "{scheme}://[{}%25{zone}]", self.address())?;
                self.write_port(f)
            }
            None => write!(f, "{scheme}://{}", self.authority()),
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
