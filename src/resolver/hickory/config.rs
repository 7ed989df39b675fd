//! Whom to ask, and how.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::rr::Name;
use log::warn;

/// Name servers, and how they are asked. The defaults are those of resolv.conf(5).
///
/// ```
/// use std::sync::Arc;
/// use httpstream::resolver::{Hickory, HickoryConfig};
///
/// let mut names = HickoryConfig::default();
/// names.servers = vec!["192.0.2.53:53".parse().unwrap(), "[2001:db8::53]:53".parse().unwrap()];
/// let mut config = httpstream::Config::default();
/// config.resolver = Some(Arc::new(move || Box::new(Hickory::with_config(names.clone()))));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HickoryConfig {
    /// Servers to ask, in this order: addresses and ports. Default `127.0.0.1:53`, the one of the
    /// local machine. Without any, every look-up fails.
    pub servers: Vec<SocketAddr>,
    /// Domains under which a name is looked for that does not end in a dot, in this order, until
    /// one has an address: whatever else comes of a candidate leads on to the next. `.` is the
    /// root, below which a name is what it is. Default none: a URL's host is meant as it stands.
    /// What is no domain name is left out, with a warning.
    pub search: Vec<String>,
    /// A name with at least so many dots is tried as it stands before the search list, any other
    /// after it. Default 1: a single label is seldom complete, anything longer mostly is.
    pub ndots: u8,
    /// How long one server has for one attempt, aliases it does not follow itself and TCP included.
    /// Default 5 s. A datagram is repeated within it, twice at most and not before a third of a
    /// second.
    pub timeout: Duration,
    /// How often each server is asked before the look-up fails, whatever it said before, zero
    /// counting as one. Default 2, which with the timeout's default is just what
    /// [`Timeouts::resolve`](crate::Timeouts::resolve) allows.
    pub attempts: u32,
    /// Whether servers are asked over TCP only. Default no: over TCP what does not fit into a
    /// datagram. `options use-vc`.
    pub tcp_only: bool,
    /// Whether each question begins with another of the servers. Default no: with the first.
    /// `options rotate`.
    pub rotate: bool,
    /// Whether a name without dots is looked for in the search list only. Default no: as it stands
    /// too. `options no-tld-query`.
    pub no_tld_query: bool,
    /// Whether IPv6 addresses are asked for. Default yes. `options no-aaaa` says no.
    pub ipv6: bool,
}

impl Default for HickoryConfig {
    fn default() -> Self {
        Self {
            servers: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))],
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            tcp_only: false,
            rotate: false,
            no_tld_query: false,
            ipv6: true,
        }
    }
}

impl HickoryConfig {
    /// The search list, complete names all.
    pub(super) fn search_names(&self) -> Vec<Name> {
        let name = |domain: &String| {
            if domain == "." {
                return Some(Name::root());
            }
            let labels = domain.strip_suffix('.').unwrap_or(domain).split('.');
            let name = Name::from_labels(labels.map(str::as_bytes));
            name.inspect_err(|_| warn!("search list: {domain:?} is no domain name"))
                .ok()
        };
        self.search.iter().filter_map(name).collect()
    }
}
