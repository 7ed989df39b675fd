//! Origins: scheme, host and port (RFC 9110 §4.3.1). An origin is part of the pool's key, and the
//! source of the Host value.

use std::fmt;

/// The scheme of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Scheme {
    /// `http`, with default port 80.
    Http,
    /// `https`, with default port 443.
    Https,
}

impl Scheme {
    /// Returns the scheme as in a URL, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// Returns the port of URLs that do not specify one.
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
/// The host is in lower case, and an IPv6 address has no brackets. A zone id follows a `%` as it
/// was given, as in `fe80::1%eth0`, because the same address on another interface is another host.
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

    /// Returns the scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns the host: a name in lower case, or an IP address without brackets, with its zone id
    /// if it has one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, even if it is the scheme's default.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the value of the Host field (RFC 9110 §7.2): `host:port`, with brackets around an
    /// IPv6 address, and without the scheme's default port.
    ///
    /// A zone id is also omitted: it selects a local interface, and has no meaning on another host
    /// (RFC 6874 §3).
    pub(crate) fn authority(&self) -> Authority<'_> {
        Authority(self)
    }

    /// Returns whether the host is an IPv6 address with a zone id.
    pub(crate) fn has_zone(&self) -> bool {
        self.zone().is_some()
    }

    fn zone(&self) -> Option<&str> {
        self.host.split_once('%').map(|(_, zone)| zone)
    }

    /// Returns the host without its zone id.
    fn address(&self) -> &str {
        self.host.split('%').next().unwrap_or_default()
    }

    fn is_ipv6(&self) -> bool {
        self.host.contains(':')
    }

    /// Writes `:port`, unless it is the scheme's default.
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

/// Shows `http://host:port`, with brackets around an IPv6 address, its zone id after `%25`, and
/// without the scheme's default port.
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
