//! Overrides: hosts that are sent to a configured address without any lookup
//! ([`Config::resolve_to`](crate::Config::resolve_to)).
//!
//! The first matching pattern applies.

use std::net::SocketAddr;

use crate::error::Error;
use crate::net::pattern::Pattern;

/// All overrides of an engine, in the order in which they were added.
#[derive(Debug)]
pub(super) struct Overrides(Vec<(Pattern, SocketAddr)>);

impl Overrides {
    /// Parses the patterns.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for an invalid pattern.
    pub(super) fn new(patterns: &[(String, SocketAddr)]) -> Result<Self, Error> {
        let overrides = patterns.iter().map(|(pattern, addr)| {
            Pattern::parse(pattern)
                .map(|parsed| (parsed, *addr))
                .map_err(|why| Error::invalid_config(format!("resolve_to {pattern:?}: {why}")))
        });
        Ok(Self(overrides.collect::<Result<_, _>>()?))
    }

    /// Returns the address that `host`, a name without trailing dot, is sent to instead.
    pub(super) fn find(&self, host: &str, port: u16) -> Option<SocketAddr> {
        let fits = self.0.iter().find(|(pattern, _)| pattern.fits(host, port));
        fits.map(|(_, addr)| *addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(patterns: &[(&str, &str)]) -> Result<Overrides, Error> {
        let patterns: Vec<_> = patterns
            .iter()
            .map(|(pattern, addr)| ((*pattern).to_owned(), addr.parse().unwrap()))
            .collect();
        Overrides::new(&patterns)
    }

    #[test]
    fn an_override_fits_its_hosts_and_no_others() {
        #[rustfmt::skip]
        let rows: &[(&str, &str, &str, u16, bool)] = &[
            ("a host matches itself", "h.test", "h.test", 80, true),
            ("on every port", "h.test", "h.test", 8080, true),
            ("but not names below it", "h.test", "a.h.test", 80, false),
            ("with a port it matches that port", "h.test:80", "h.test", 80, true),
            ("and no other", "h.test:80", "h.test", 81, false),
            ("in any case", "H.Test", "h.test", 80, true),
            ("a wildcard matches names below", "*.qq.com", "d.web2.qq.com", 80, true),
            ("in any case too", "*.QQ.com", "w.qq.com", 80, true),
            ("not the domain itself", "*.qq.com", "qq.com", 80, false),
            ("not a mere common suffix", "*.qq.com", "xqq.com", 80, false),
            ("a wildcard can have a port", "*.qq.com:443", "s.qq.com", 443, true),
            ("a star matches any host", "*", "anything.test", 1, true),
            ("a star with a port needs that port", "*:81", "anything.test", 80, false),
            ("a trailing dot is ignored", "h.test.", "h.test", 80, true),
            ("a literal can be overridden", "127.0.0.1", "127.0.0.1", 80, true),
            ("in brackets with a port", "[::1]:80", "::1", 80, true),
            ("without brackets there is no port", "::1", "::1", 80, true),
            ("an address in a long form", "[0:0::A]:80", "::a", 80, true),
            ("a zone id is part of the host", "[fe80::1%eth0]", "fe80::1%eth0", 80, true),
            ("another zone is another host", "[fe80::1%eth0]", "fe80::1%eth1", 80, false),
            ("the case of a zone counts", "[FE80::1%Eth0]", "fe80::1%Eth0", 80, true),
        ];
        for (why, pattern, host, port, fits) in rows {
            let overrides = overrides(&[(pattern, "10.9.8.7:6")]).unwrap();
            let found = overrides.find(host, *port);
            assert_eq!(found, fits.then(|| "10.9.8.7:6".parse().unwrap()), "{why}");
        }
    }

    #[test]
    fn the_first_override_that_fits_is_taken() {
        let overrides = overrides(&[("a.test", "10.0.0.1:1"), ("*", "10.0.0.2:2")]).unwrap();
        let found = |host| overrides.find(host, 80).unwrap().to_string();
        assert_eq!(found("a.test"), "10.0.0.1:1");
        assert_eq!(found("b.test"), "10.0.0.2:2");
    }

    #[test]
    fn patterns_that_cannot_be_read_are_refused_by_name() {
        for pattern in [
            "", "a.*", "*a.test", "*.", "h:port", "h:99999", "[::1", "[::1]80", "*.*.a",
        ] {
            let error = overrides(&[(pattern, "10.0.0.1:1")]).unwrap_err();
            assert!(
                format!("{error:#}").contains(&format!("{pattern:?}")),
                "{error}"
            );
        }
    }
}
