//! Routes: how a connection is made, apart from its origin.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::tls::Tls;

/// How connections are made: local address, interface, socket options, unix socket, TLS. Requests
/// with different routes never share a connection, not even to the same origin.
///
/// [`Config::route`](crate::Config::route) applies to all requests of an engine,
/// [`RequestBuilder::route`](crate::RequestBuilder::route) to one.
///
/// ```
/// use std::time::Duration;
/// use httpstream::{Config, Keepalive, Route};
///
/// let mut config = Config::default();
/// config.route.bind_v4 = Some([127, 0, 0, 1].into());
/// config.route.keepalive = Some(Keepalive::after(Duration::from_secs(60)));
/// let docker = Route::unix("/run/docker.sock");
/// ```
///
/// A route for single requests is made once and shared by them:
///
/// ```
/// use std::sync::Arc;
/// use httpstream::{Request, Route};
///
/// let docker = Arc::new(Route::unix("/run/docker.sock"));
/// let version = Request::get("http://localhost/version").route(Arc::clone(&docker)).build()?;
/// let events = Request::get("http://localhost/events").route(docker).build()?;
/// assert_eq!(version.header("Host"), Some(&b"localhost"[..]));
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Route {
    /// Connect to this unix socket, whatever the host of the URL: no name is looked up, and the
    /// address filter is not called. The URL still determines the `Host` field. Default none.
    pub unix_path: Option<PathBuf>,
    /// Connect from this IPv4 address. If only one of the two families has an address, the other
    /// family is not used at all. By default the system chooses.
    pub bind_v4: Option<Ipv4Addr>,
    /// Connect from this IPv6 address; see [`bind_v4`](Self::bind_v4).
    pub bind_v6: Option<Ipv6Addr>,
    /// Send and receive through this interface only (`SO_BINDTODEVICE`, Linux), for example
    /// `"eth0"`. On other systems connecting fails. By default any interface is used.
    pub interface: Option<String>,
    /// TCP keepalive: probes on a silent connection. Off by default, since deadlines notice a dead
    /// peer sooner. It is useful where a NAT drops silent connections under a long poll.
    pub keepalive: Option<Keepalive>,
    /// How long data may stay unacknowledged before the connection is given up (`TCP_USER_TIMEOUT`,
    /// RFC 5482; Linux). On other systems connecting fails. Whole milliseconds, at least one.
    /// Defaults to the system's value, which is many minutes.
    pub user_timeout: Option<Duration>,
    /// Set `TCP_NODELAY` from the start. By default (`false`) it is set only where it matters, for
    /// requests longer than a segment and for TLS.
    pub nodelay: bool,
    /// Size of the socket's send buffer in bytes (`SO_SNDBUF`). Defaults to the system's.
    pub send_buffer: Option<usize>,
    /// Size of the socket's receive buffer in bytes (`SO_RCVBUF`). Defaults to the system's, which
    /// grows on demand.
    pub receive_buffer: Option<usize>,
    /// How https connections are protected: the trusted root certificates and our own certificate.
    /// By default these are the platform's root certificates, and no certificate of our own. A
    /// value is equal to its clones and to no other value.
    #[cfg(feature = "tls")]
    pub tls: Tls,
    #[cfg(not(feature = "tls"))]
    pub(crate) tls: Tls,
}

/// When a silent connection is probed, and when it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Keepalive {
    /// Silence before the first probe, in whole seconds from 1 to 32,767.
    pub idle: Duration,
    /// Time between two probes, within the same bounds. `None` is the system's value, 75 s on
    /// Linux.
    pub interval: Option<Duration>,
    /// Unanswered probes before the connection is given up, from 1 to 127. `None` is the system's
    /// value, 9 on Linux.
    pub probes: Option<u32>,
}

impl Keepalive {
    /// Sends the first probe after this much silence and leaves the rest to the system's values.
    pub fn after(idle: Duration) -> Self {
        Self {
            idle,
            interval: None,
            probes: None,
        }
    }
}

impl Route {
    /// Creates a route through a unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self {
            unix_path: Some(path.into()),
            ..Self::default()
        }
    }

    /// Returns the same route without a client certificate, or `None` if it has none.
    pub(crate) fn without_identity(&self) -> Option<Self> {
        let tls = self.tls.without_identity()?;
        Some(Self {
            tls,
            ..self.clone()
        })
    }

    /// Returns the address to connect from, if the route sets one.
    ///
    /// # Errors
    /// The route has an address of the other family only.
    pub(crate) fn source_for(&self, peer: SocketAddr) -> Result<Option<IpAddr>, NoSource> {
        let (own, other) = match peer {
            SocketAddr::V4(_) => (self.bind_v4.map(IpAddr::V4), self.bind_v6.is_some()),
            SocketAddr::V6(_) => (self.bind_v6.map(IpAddr::V6), self.bind_v4.is_some()),
        };
        match (own, other) {
            (None, true) => Err(NoSource),
            (own, _) => Ok(own),
        }
    }

    /// Whether a socket needs nothing set before it connects.
    pub(crate) fn is_plain(&self) -> bool {
        let Self {
            unix_path: _,
            bind_v4,
            bind_v6,
            interface,
            keepalive,
            user_timeout,
            nodelay,
            send_buffer,
            receive_buffer,
            tls: _,
        } = self;
        (bind_v4.is_none() && bind_v6.is_none() && interface.is_none())
            && (keepalive.is_none() && user_timeout.is_none() && !nodelay)
            && (send_buffer.is_none() && receive_buffer.is_none())
    }

    pub(crate) fn tls(&self) -> &Tls {
        &self.tls
    }

    pub(crate) fn unix_path(&self) -> Option<&Path> {
        self.unix_path.as_deref()
    }
}

/// The route sets an address to connect from, but only for the other family.
#[derive(Debug)]
pub(crate) struct NoSource;

impl fmt::Display for NoSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the route has no address of this family to connect from")
    }
}

impl std::error::Error for NoSource {}

/// Returns whether `addr` is on the public internet. For
/// [`Config::address_filter`](crate::Config::address_filter), if URLs come from untrusted sources.
///
/// Refused are all addresses that the IANA special-purpose registries list as not globally
/// reachable: this network and 0.0.0.0, loopback, private (RFC 1918) and shared (RFC 6598)
/// networks, link-local networks including the metadata services of clouds (169.254.169.254,
/// fd00:ec2::254), unique-local addresses (RFC 4193), and documentation, benchmarking, multicast,
/// broadcast and reserved ranges. An IPv6 address that embeds an IPv4 address (mapped, NAT64, 6to4)
/// is judged by the latter. Teredo and deprecated ranges are refused.
///
/// ```
/// use httpstream::public_only;
///
/// assert!(public_only(&"93.184.216.34:80".parse().unwrap()));
/// for inside in ["127.0.0.1:80", "192.168.1.1:80", "[::ffff:10.0.0.1]:80"] {
///     assert!(!public_only(&inside.parse().unwrap()));
/// }
/// ```
pub fn public_only(addr: &SocketAddr) -> bool {
    match addr.ip() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, d] = ip.octets();
    let refused = match (a, b, c) {
        (0 | 10 | 127, ..) => true,
        (100, 64..=127, _) => true,
        (169, 254, _) | (192, 168, _) => true,
        (172, 16..=31, _) => true,
        // IETF protocol assignments, of which two addresses are anycast services (RFC 7723, RFC
        // 8155).
        (192, 0, 0) => !matches!(d, 9 | 10),
        // 192.88.99.0/24, the old 6to4 relays, is deprecated (RFC 7526).
        (192, 0, 2) | (192, 88, 99) | (198, 51, 100) | (203, 0, 113) => true,
        (198, 18..=19, _) => true,
        (224.., ..) => true,
        _ => false,
    };
    // Alibaba's metadata service is in shared address space (100.100.100.200); those of Oracle and
    // Azure are in link-local space or at this address.
    !refused && ip != Ipv4Addr::new(168, 63, 129, 16)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match s {
        // IPv4-mapped. IPv4-compatible addresses, among them `::` and `::1`, are refused below,
        // together with everything outside of 2000::/3.
        [0, 0, 0, 0, 0, 0xffff, high, low] => is_public_v4(embedded(high, low)),
        // NAT64 (RFC 6052); its local-use prefix 64:ff9b:1::/48 (RFC 8215) is refused below.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(embedded(high, low)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => is_public_v4(embedded(high, low)),
        // 2001::/23, IETF protocol assignments, including Teredo. The exceptions are the anycast
        // services, AS112 and ORCHIDv2.
        [0x2001, 0, ..] => false,
        [0x2001, 1, 0, 0, 0, 0, 0, 1..=3] => true,
        [0x2001, 4, 0x112, ..] => true,
        [0x2001, 3, ..] | [0x2001, 0x20..=0x3f, ..] => true,
        [0x2001, 1..=0x1ff, ..] => false,
        // Documentation (RFC 3849, RFC 9637).
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Global unicast (RFC 4291 §2.4): everything that has been allocated.
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_pass() {
        #[rustfmt::skip]
        const ROWS: &[(&str, bool)] = &[
            ("8.8.8.8", true), ("1.1.1.1", true), ("172.15.255.255", true), ("172.32.0.0", true), ("100.63.0.1", true),
            ("100.128.0.1", true), ("198.17.0.1", true), ("198.20.0.1", true), ("192.0.0.9", true), ("223.255.255.255", true),
            ("169.253.0.1", true), ("192.167.1.1", true), ("11.0.0.1", true), ("126.255.255.255", true), ("128.0.0.1", true),
            ("0.0.0.0", false), ("0.1.2.3", false), ("127.0.0.1", false), ("127.255.255.254", false), ("10.0.0.1", false),
            ("172.16.0.1", false), ("172.31.255.255", false), ("192.168.0.1", false), ("100.64.0.1", false),
            ("100.100.100.200", false), ("169.254.169.254", false), ("169.254.0.1", false), ("192.0.0.8", false),
            ("192.0.0.192", false), ("192.0.2.1", false), ("198.51.100.1", false), ("203.0.113.1", false), ("198.18.0.1", false),
            ("224.0.0.1", false), ("240.0.0.1", false), ("255.255.255.255", false), ("168.63.129.16", false),
            ("2606:4700:4700::1111", true), ("2a00:1450:4001::200e", true), ("2001:4860:4860::8888", true),
            ("2001:1::1", true), ("2001:4:112::1", true), ("2001:200::1", true),
            ("::", false), ("::1", false), ("::8.8.8.8", false), ("::127.0.0.1", false),
            ("::ffff:8.8.8.8", true), ("::ffff:127.0.0.1", false), ("::ffff:10.0.0.1", false), ("::ffff:169.254.169.254", false),
            ("64:ff9b::8.8.8.8", true), ("64:ff9b::127.0.0.1", false), ("64:ff9b::169.254.169.254", false), ("64:ff9b:1::8.8.8.8", false),
            ("2002:808:808::1", true), ("2002:7f00:1::1", false), ("2002:a9fe:a9fe::1", false),
            ("2001::1", false), ("2001:2::1", false), ("2001:1::4", false), ("2001:db8::1", false), ("3fff::1", false), ("3fff:1000::1", true),
            ("fe80::1", false), ("febf::1", false), ("fc00::1", false), ("fd00:ec2::254", false), ("fec0::1", false),
            ("ff02::1", false), ("100::1", false), ("5f00::1", false), ("4000::1", false),
        ];
        for (ip, public) in ROWS {
            let addr = SocketAddr::new(ip.parse().unwrap(), 80);
            assert_eq!(public_only(&addr), *public, "{ip}");
        }
    }

    #[test]
    fn routes_that_say_the_same_are_one() {
        assert_eq!(Route::default(), Route::default());
        assert_eq!(Route::unix("/run/a"), Route::unix("/run/a"));
        assert_ne!(Route::unix("/run/a"), Route::unix("/run/b"));
        assert_ne!(Route::unix("/run/a"), Route::default());
    }

    #[test]
    fn a_source_is_of_the_peers_family_or_there_is_none() {
        let v4: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        let source =
            |route: &Route, peer| route.source_for(peer).map_err(|error| error.to_string());
        let mut route = Route::default();
        assert_eq!(source(&route, v4), Ok(None));
        assert_eq!(source(&route, v6), Ok(None));
        route.bind_v4 = Some(Ipv4Addr::LOCALHOST);
        assert_eq!(source(&route, v4), Ok(Some(Ipv4Addr::LOCALHOST.into())));
        let none = NoSource.to_string();
        assert_eq!(source(&route, v6), Err(none));
        route.bind_v6 = Some(Ipv6Addr::LOCALHOST);
        assert_eq!(source(&route, v6), Ok(Some(Ipv6Addr::LOCALHOST.into())));
    }
}
