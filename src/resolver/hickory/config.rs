//! Which name servers to ask, and how.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::rr::Name;
use log::warn;

/// Name servers and how to query them. The defaults are those of resolv.conf(5).
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
    /// Servers to ask, in order. Default `127.0.0.1:53`, the server on the local host. If empty,
    /// every lookup fails.
    pub servers: Vec<SocketAddr>,
    /// Domains to append to names that do not end in a dot, tried in order until one has an
    /// address. Any other outcome of a candidate leads on to the next one.
    ///
    /// `.` is the root and stands for the name itself. Invalid domain names are skipped with a
    /// warning. Default none, because the host of a URL is meant literally.
    pub search: Vec<String>,
    /// The number of dots from which a name is tried as given before the search list is; names with
    /// fewer dots are tried as given last. Default 1: a single label is seldom a complete name, and
    /// anything longer usually is.
    pub ndots: u8,
    /// How long one server has for one attempt, including TCP and aliases that the server does not
    /// follow itself. Default 5 s. Within that time, an unanswered datagram is repeated at most
    /// twice, a third of a second apart.
    pub timeout: Duration,
    /// How often each server is asked before the lookup fails, regardless of its earlier answers.
    /// Zero counts as one. Default 2: with the default timeout, this is exactly what
    /// [`Timeouts::resolve`](crate::Timeouts::resolve) allows.
    pub attempts: u32,
    /// Whether to use only TCP (`options use-vc`). Default no: TCP is used for answers that do not
    /// fit into a datagram.
    pub tcp_only: bool,
    /// Whether each question starts with a different server (`options rotate`). Default no: each
    /// starts with the first.
    pub rotate: bool,
    /// Whether a name without dots is looked up only in the search list (`options no-tld-query`).
    /// Default no: it is also looked up as given.
    pub no_tld_query: bool,
    /// Whether to look up IPv6 addresses. Default yes; `options no-aaaa` turns it off.
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
    /// Returns the search list as fully qualified names.
    pub(super) fn search_names(&self) -> Vec<Name> {
        let name = |domain: &String| {
            if domain == "." {
                return Some(Name::root());
            }
            let labels = domain.strip_suffix('.').unwrap_or(domain).split('.');
            let name = Name::from_labels(labels.map(str::as_bytes));
            name.inspect_err(|_| warn!("search list: {domain:?} is not a valid domain name"))
                .ok()
        };
        self.search.iter().filter_map(name).collect()
    }
}
