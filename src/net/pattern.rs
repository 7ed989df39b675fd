//! Patterns for the hosts, and optionally the port, that a setting of the configuration applies to.
//!
//! A trailing dot is ignored, both in a pattern and in a host.

use std::net::Ipv6Addr;

/// `host`, `host:port`, `*.domain`, `*.domain:port`, `*` or `*:port`.
#[derive(Debug)]
pub(crate) struct Pattern {
    host: Host,
    port: Option<u16>,
}

#[derive(Debug)]
enum Host {
    Any,
    /// Matches hosts that end with this string, which begins with a dot.
    Below(Box<str>),
    Exactly(Box<str>),
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Returns why the pattern is invalid.
    pub(crate) fn parse(pattern: &str) -> Result<Self, &'static str> {
        if pattern.contains('/') || pattern.contains(char::is_whitespace) {
            return Err("expected a host with an optional port, not a URL");
        }
        // "[::1]:80" and "::1" contain colons that do not separate a port.
        let (host, port) = match pattern.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or("missing closing bracket")?;
                match port.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if port.is_empty() => (host, None),
                    None => return Err("expected a port after the closing bracket"),
                }
            }
            None if pattern.matches(':').count() > 1 => (pattern, None),
            None => match pattern.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (pattern, None),
            },
        };
        let port = match port {
            Some(port) => Some(
                port.parse()
                    .map_err(|_| "expected a port number after the colon")?,
            ),
            None => None,
        };
        let host = if host == "*." {
            host
        } else {
            host.strip_suffix('.').unwrap_or(host)
        };
        let host = match host.strip_prefix('*') {
            Some("") => Host::Any,
            Some(below) if below.starts_with('.') && below.len() > 1 && !below.contains('*') => {
                Host::Below(below.to_ascii_lowercase().into())
            }
            Some(_) => return Err("a wildcard must stand for whole labels, as in *.domain"),
            None if host.is_empty() => return Err("missing host"),
            None if host.contains('*') => return Err("a wildcard must come first, as in *.domain"),
            None => Host::Exactly(as_origins_have_it(host).into()),
        };
        Ok(Self { host, port })
    }

    /// Returns whether the pattern matches `host`, a name without trailing dot, and `port`.
    pub(crate) fn fits(&self, host: &str, port: u16) -> bool {
        let fits = match &self.host {
            Host::Any => true,
            Host::Below(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
            Host::Exactly(name) => host == &**name,
        };
        fits && self.port.is_none_or(|p| p == port)
    }
}

/// Normalizes a host to the form of [`Origin::host`](crate::Origin::host): names in lower case,
/// IPv6 addresses in their short form, and the case of a zone id unchanged.
fn as_origins_have_it(host: &str) -> String {
    let (addr, zone) = match host.split_once('%') {
        Some((addr, zone)) => (addr, Some(zone)),
        None => (host, None),
    };
    let host = match addr.parse::<Ipv6Addr>() {
        Ok(addr) => addr.to_string(),
        Err(_) => addr.to_ascii_lowercase(),
    };
    match zone {
        Some(zone) => format!("{host}%{zone}"),
        None => host,
    }
}
