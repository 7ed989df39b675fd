//! In front of every resolver: literals, `localhost`, overrides, and one look-up for all who ask the same.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use mio::Token;

use crate::error::Error;
use crate::net::link::Candidates;
use crate::resolver::{Family, LookupError, LookupId, Resolve};

/// What a question is answered with at once.
#[derive(Debug)]
pub(crate) enum Known {
    /// One address: nothing is allocated for it.
    One(SocketAddr),
    Several(Candidates),
    /// The resolver has been asked; see [`Names::next_answer`].
    Later,
}

/// The end of a look-up, for every link that waits for it.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) links: Vec<(Token, u16)>,
    pub(crate) addresses: Result<Vec<IpAddr>, LookupError>,
}

/// Answers names.
#[derive(Debug)]
pub(crate) struct Names {
    overrides: Vec<Override>,
    resolver: Box<dyn Resolve>,
    lookups: HashMap<Box<str>, Lookup>,
    hosts: HashMap<LookupId, (Box<str>, Family)>,
    last_id: u64,
    /// A question was put since the resolver was last asked for answers: it may have one at once.
    news: bool,
}

/// One host that is being looked up, in both families.
#[derive(Debug)]
struct Lookup {
    ids: [LookupId; 2],
    v4: Option<Result<Vec<IpAddr>, LookupError>>,
    v6: Option<Result<Vec<IpAddr>, LookupError>>,
    /// Who waits, and for which port.
    links: Vec<(Token, u16)>,
}

#[derive(Debug)]
struct Override {
    host: Pattern,
    port: Option<u16>,
    addr: SocketAddr,
}

#[derive(Debug)]
enum Pattern {
    Any,
    /// Ends with this, which begins with a dot.
    Below(Box<str>),
    Exactly(Box<str>),
}

impl Names {
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for a pattern that cannot be read.
    pub(crate) fn new(
        overrides: &[(String, SocketAddr)],
        resolver: Box<dyn Resolve>,
    ) -> Result<Self, Error> {
        let overrides = overrides
            .iter()
            .map(|(pattern, addr)| Override::parse(pattern, *addr));
        Ok(Self {
            overrides: overrides.collect::<Result<_, _>>()?,
            resolver,
            lookups: HashMap::new(),
            hosts: HashMap::new(),
            last_id: 0,
            news: false,
        })
    }

    /// Asks for the addresses of `host` on behalf of the link behind `token`.
    pub(crate) fn ask(&mut self, host: &str, port: u16, token: Token) -> Known {
        let host = host.strip_suffix('.').unwrap_or(host);
        if let Some(known) = self.overrides.iter().find(|o| o.fits(host, port)) {
            return Known::One(known.addr);
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Known::One(SocketAddr::new(ip, port));
        }
        // RFC 6761 §6.3: always loopback, never asked for.
        if host == "localhost" || host.ends_with(".localhost") {
            let loopback = [
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ];
            return Known::Several(candidates(&loopback, port));
        }
        if let Some(lookup) = self.lookups.get_mut(host) {
            lookup.links.push((token, port));
            return Known::Later;
        }
        let ids = [LookupId(self.last_id + 1), LookupId(self.last_id + 2)];
        self.last_id += 2;
        self.news = true;
        self.hosts.insert(ids[0], (host.into(), Family::V4));
        self.hosts.insert(ids[1], (host.into(), Family::V6));
        let lookup = Lookup {
            ids,
            v4: None,
            v6: None,
            links: vec![(token, port)],
        };
        self.lookups.insert(host.into(), lookup);
        self.resolver.start(host, Family::V4, ids[0]);
        self.resolver.start(host, Family::V6, ids[1]);
        Known::Later
    }

    /// The link behind `token` waits no longer for `host`; the last to go cancels the look-up.
    pub(crate) fn forget(&mut self, host: &str, token: Token) {
        let host = host.strip_suffix('.').unwrap_or(host);
        let Some(lookup) = self.lookups.get_mut(host) else {
            return;
        };
        lookup.links.retain(|(waiting, _)| *waiting != token);
        if !lookup.links.is_empty() {
            return;
        }
        for id in lookup.ids {
            if self.hosts.remove(&id).is_some() {
                self.resolver.cancel(id);
            }
        }
        self.lookups.remove(host);
    }

    /// When the resolver wants to be asked without having woken the engine.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.resolver.deadline()
    }

    /// Whether answers may be there already.
    pub(crate) fn has_news(&self) -> bool {
        self.news
    }

    /// Whether anything is being looked up.
    pub(crate) fn is_busy(&self) -> bool {
        !self.lookups.is_empty()
    }

    pub(crate) fn on_tick(&mut self, now: Instant) {
        self.resolver.on_tick(now);
    }

    /// A look-up that has ended since last asked.
    pub(crate) fn next_answer(&mut self) -> Option<Answered> {
        while let Some((id, answer)) = self.resolver.take() {
            let Some((host, family)) = self.hosts.remove(&id) else {
                continue;
            };
            let Some(lookup) = self.lookups.get_mut(&host) else {
                continue;
            };
            match family {
                Family::V4 => lookup.v4 = Some(answer),
                Family::V6 => lookup.v6 = Some(answer),
            }
            if lookup.v4.is_none() || lookup.v6.is_none() {
                continue;
            }
            let Some(Lookup {
                v4: Some(v4),
                v6: Some(v6),
                links,
                ..
            }) = self.lookups.remove(&host)
            else {
                continue;
            };
            return Some(Answered {
                links,
                addresses: join(v4, v6),
            });
        }
        self.news = false;
        None
    }
}

/// Both families' answers as one: interleaved, IPv4 first, since an unreachable IPv6 address can take the whole connect
/// deadline.
fn join(
    v4: Result<Vec<IpAddr>, LookupError>,
    v6: Result<Vec<IpAddr>, LookupError>,
) -> Result<Vec<IpAddr>, LookupError> {
    let (v4, v6) = match (v4, v6) {
        (Ok(v4), Ok(v6)) => (v4, v6),
        (Ok(addrs), Err(error)) | (Err(error), Ok(addrs)) => {
            return if addrs.is_empty() {
                Err(error)
            } else {
                Ok(addrs)
            };
        }
        // "Not found" is the weaker of two reasons.
        (Err(LookupError::NotFound), Err(error)) | (Err(error), Err(_)) => return Err(error),
    };
    let mut joined = Vec::with_capacity(v4.len() + v6.len());
    for i in 0..v4.len().max(v6.len()) {
        joined.extend(v4.get(i));
        joined.extend(v6.get(i));
    }
    if joined.is_empty() {
        Err(LookupError::NotFound)
    } else {
        Ok(joined)
    }
}

/// The addresses of a host with a port, in the order in which they are to be tried.
pub(crate) fn candidates(addrs: &[IpAddr], port: u16) -> Candidates {
    let left = addrs
        .iter()
        .rev()
        .map(|ip| SocketAddr::new(*ip, port))
        .collect();
    Candidates {
        left,
        failed: Vec::new(),
    }
}

impl Override {
    fn parse(pattern: &str, addr: SocketAddr) -> Result<Self, Error> {
        let invalid = |why: &str| Error::invalid_config(format!("resolve_to {pattern:?}: {why}"));
        // "[::1]:80" and "::1" hold colons that part no port.
        let (host, port) = match pattern.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest
                    .split_once(']')
                    .ok_or_else(|| invalid("no closing bracket"))?;
                match port.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if port.is_empty() => (host, None),
                    None => return Err(invalid("something other than a port after the bracket")),
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
                    .map_err(|_| invalid("the port is not a number"))?,
            ),
            None => None,
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        let host = match host.strip_prefix('*') {
            Some("") => Pattern::Any,
            Some(below) if below.starts_with('.') && below.len() > 1 && !below.contains('*') => {
                Pattern::Below(below.into())
            }
            Some(_) => return Err(invalid("a wildcard stands for whole labels: *.domain")),
            None if host.is_empty() => return Err(invalid("no host")),
            None if host.contains('*') => return Err(invalid("a wildcard stands first: *.domain")),
            None => Pattern::Exactly(host.into()),
        };
        Ok(Self { host, port, addr })
    }

    fn fits(&self, host: &str, port: u16) -> bool {
        let fits = match &self.host {
            Pattern::Any => true,
            Pattern::Below(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
            Pattern::Exactly(name) => host == &**name,
        };
        fits && self.port.is_none_or(|p| p == port)
    }
}
