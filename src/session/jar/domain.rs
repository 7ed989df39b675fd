//! Hosts and domains: which host a domain includes, and what belongs to one site.
//!
//! A site is what one registrant controls: the part of a host name that was registered under a
//! public suffix, as `example.co.uk` under `co.uk`. The public suffixes are those of the list at
//! publicsuffix.org, including its private section, in the version that the crate `psl` contains.
//! A top-level domain that is not in the list is a public suffix.
//!
//! All names are in lower case. A name with a trailing dot is another host than the name without,
//! as it is in browsers.

use std::net::Ipv4Addr;

/// Returns whether the host is an IP address. An IPv6 address has no brackets.
pub(super) fn is_address(host: &str) -> bool {
    host.contains(':') || host.parse::<Ipv4Addr>().is_ok()
}

/// Returns whether `domain` includes `host` (RFC 6265bis §5.1.3). An IP address includes itself
/// alone.
pub(super) fn includes(domain: &str, host: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| {
        rest.is_empty() || !domain.is_empty() && rest.ends_with('.') && !is_address(host)
    })
}

/// Returns the site of a host. A host that is an address or a public suffix is a site of its own.
pub(super) fn site(host: &str) -> &str {
    registered(host).unwrap_or(host)
}

pub(super) fn is_public_suffix(host: &str) -> bool {
    !is_address(host) && registered(host).is_none()
}

/// Returns the registrable domain of a name: its public suffix and one more label.
fn registered(host: &str) -> Option<&str> {
    if is_address(host) {
        return None;
    }
    // The list has no names with a trailing dot.
    let name = host.strip_suffix('.').unwrap_or(host);
    let found = psl::domain_str(name)?;
    host.get(name.len() - found.len()..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_includes_itself_and_its_subdomains() {
        #[rustfmt::skip]
        const ROWS: &[(&str, &str, &str, bool)] = &[
            ("itself", "a.test", "a.test", true),
            ("a subdomain", "a.test", "b.a.test", true),
            ("a deep subdomain", "a.test", "c.b.a.test", true),
            ("a name that only ends alike", "a.test", "ba.test", false),
            ("the parent", "b.a.test", "a.test", false),
            ("an address", "10.0.0.1", "10.0.0.1", true),
            ("the end of an address", "0.0.1", "10.0.0.1", false),
            ("the end of an IPv6 address", "1", "::1", false),
            ("a trailing dot is another host", "a.test", "a.test.", false),
            ("of the host only", "a.test.", "a.test", false),
            ("no domain", "", "a.test.", false),
        ];
        for (why, domain, host, expected) in ROWS {
            assert_eq!(includes(domain, host), *expected, "{why}");
        }
    }

    #[test]
    fn a_site_is_what_one_registrant_controls() {
        #[rustfmt::skip]
        const ROWS: &[(&str, &str, &str)] = &[
            ("registered under a top-level domain", "c.b.example.com", "example.com"),
            ("registered under a second level", "www.example.co.uk", "example.co.uk"),
            ("a private suffix", "www.someone.github.io", "someone.github.io"),
            ("a public suffix", "co.uk", "co.uk"),
            ("a public suffix with a trailing dot", "co.uk.", "co.uk."),
            ("a trailing dot", "www.example.com.", "example.com."),
            ("a wildcard rule", "a.b.c.ck", "b.c.ck"),
            ("an exception to a wildcard rule", "a.www.ck", "www.ck"),
            ("an unknown top-level domain", "www.example.test", "example.test"),
            ("an encoded name", "www.xn--85x722f.xn--55qx5d.cn", "xn--85x722f.xn--55qx5d.cn"),
            ("a single label", "localhost", "localhost"),
            ("an IPv4 address", "192.0.2.1", "192.0.2.1"),
            ("an IPv6 address", "2001:db8::1", "2001:db8::1"),
            ("an IPv6 address with a zone", "fe80::1%eth0", "fe80::1%eth0"),
        ];
        for (why, host, expected) in ROWS {
            assert_eq!(site(host), *expected, "{why}");
        }
        assert!(is_public_suffix("co.uk.") && is_public_suffix("github.io"));
        assert!(!is_public_suffix("example.co.uk") && !is_public_suffix("192.0.2.1"));
    }
}
