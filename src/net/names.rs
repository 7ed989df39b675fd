//! In front of every resolver: literals, `localhost`, overrides, and one look-up for all who ask the same.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use mio::Token;

use crate::error::Error;
use crate::resolver::{Family, LookupError, LookupId, Resolve};

/// The addresses of a host in one family. Empty: the name has none.
pub(crate) type FamilyAnswer = Result<Rc<[IpAddr]>, LookupError>;

/// What a question is answered with at once.
#[derive(Debug)]
pub(crate) enum Known {
    /// One address, and no other will come: nothing is allocated for it.
    One(SocketAddr),
    /// What is known of each family; `None`: it has been asked for, see [`Names::next_answer`].
    Families {
        v6: Option<FamilyAnswer>,
        v4: Option<FamilyAnswer>,
    },
}

/// The end of a look-up in one family, for every link that waits for it.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) links: Vec<(Token, u16)>,
    pub(crate) family: Family,
    pub(crate) addresses: FamilyAnswer,
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
    /// The resolver was told of events since the last turn.
    events: bool,
}

/// One host that is being looked up, in both families.
#[derive(Debug)]
struct Lookup {
    ids: [LookupId; 2],
    v6: Option<FamilyAnswer>,
    v4: Option<FamilyAnswer>,
    /// Who asked, and for which port; and who of them waits still.
    links: Vec<(Token, u16)>,
    waiting: HashSet<Token>,
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
            events: false,
        })
    }

    /// Asks for the addresses of `host` on behalf of the link behind `token`.
    pub(crate) fn ask(&mut self, host: &str, port: u16, token: Token, _now: Instant) -> Known {
        let host = host.strip_suffix('.').unwrap_or(host);
        if let Some(known) = self.overrides.iter().find(|o| o.fits(host, port)) {
            return Known::One(known.addr);
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Known::One(SocketAddr::new(ip, port));
        }
        // RFC 6761 §6.3: always loopback, never asked for.
        if host == "localhost" || host.ends_with(".localhost") {
            return Known::Families {
                v6: Some(Ok([Ipv6Addr::LOCALHOST.into()].into())),
                v4: Some(Ok([Ipv4Addr::LOCALHOST.into()].into())),
            };
        }
        if let Some(lookup) = self.lookups.get_mut(host) {
            lookup.links.push((token, port));
            lookup.waiting.insert(token);
            return Known::Families {
                v6: lookup.v6.clone(),
                v4: lookup.v4.clone(),
            };
        }
        let ids = [LookupId(self.last_id + 1), LookupId(self.last_id + 2)];
        self.last_id += 2;
        self.news = true;
        self.hosts.insert(ids[0], (host.into(), Family::V4));
        self.hosts.insert(ids[1], (host.into(), Family::V6));
        let lookup = Lookup {
            ids,
            v6: None,
            v4: None,
            links: vec![(token, port)],
            waiting: HashSet::from([token]),
        };
        self.lookups.insert(host.into(), lookup);
        self.resolver.start(host, Family::V6, ids[1]);
        self.resolver.start(host, Family::V4, ids[0]);
        Known::Families { v6: None, v4: None }
    }

    /// The link behind `token` waits no longer for `host`; the last to go cancels the look-up.
    pub(crate) fn forget(&mut self, host: &str, token: Token) {
        let host = host.strip_suffix('.').unwrap_or(host);
        let Some(lookup) = self.lookups.get_mut(host) else {
            return;
        };
        lookup.waiting.remove(&token);
        if !lookup.waiting.is_empty() {
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
        // A look-up that was cancelled before it was asked after has none.
        self.news && self.is_busy()
    }

    /// The resolver has woken the engine, or another thread has: answers may be there.
    pub(crate) fn on_wake(&mut self) {
        self.news = self.is_busy();
    }

    /// Whether anything is being looked up.
    pub(crate) fn is_busy(&self) -> bool {
        !self.lookups.is_empty()
    }

    /// One of the resolver's own sources is ready.
    pub(crate) fn on_event(&mut self, token: Token) {
        self.events = true;
        self.resolver.on_event(token);
    }

    /// Once a turn, behind its events.
    pub(crate) fn on_turn(&mut self, now: Instant) {
        let is_due = self.deadline().is_some_and(|deadline| deadline <= now);
        if std::mem::take(&mut self.events) || is_due {
            self.resolver.on_tick(now);
        }
    }

    /// A look-up that has ended since last asked.
    pub(crate) fn next_answer(&mut self, _now: Instant) -> Option<Answered> {
        while let Some((id, answer)) = self.resolver.take() {
            let Some((host, family)) = self.hosts.remove(&id) else {
                continue;
            };
            let Some(lookup) = self.lookups.get_mut(&host) else {
                continue;
            };
            let addresses = answer.addresses.map(Rc::from);
            match family {
                Family::V4 => lookup.v4 = Some(addresses.clone()),
                Family::V6 => lookup.v6 = Some(addresses.clone()),
            }
            let mut links = lookup.links.clone();
            links.retain(|(token, _)| lookup.waiting.contains(token));
            if lookup.v4.is_some() && lookup.v6.is_some() {
                self.lookups.remove(&host);
            }
            return Some(Answered {
                links,
                family,
                addresses,
            });
        }
        self.news = false;
        None
    }

    /// Whom the resolver asks, for the words of an error.
    pub(crate) fn servers(&self) -> String {
        self.resolver.servers()
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
        let host = if host == "*." {
            host
        } else {
            host.strip_suffix('.').unwrap_or(host)
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::{Table, Wake};

    fn names(overrides: &[(&str, &str)], table: Table) -> Names {
        let overrides: Vec<_> = overrides
            .iter()
            .map(|(pattern, addr)| ((*pattern).to_owned(), addr.parse().unwrap()))
            .collect();
        Names::new(&overrides, Box::new(table)).unwrap()
    }

    fn one(known: Known) -> String {
        match known {
            Known::One(addr) => addr.to_string(),
            known => format!("{known:?}"),
        }
    }

    #[test]
    fn an_override_fits_its_hosts_and_no_others() {
        let rows: &[(&str, &str, &str, u16, bool)] = &[
            ("a host is itself", "h.test", "h.test", 80, true),
            ("on every port", "h.test", "h.test", 8080, true),
            ("and not what is below it", "h.test", "a.h.test", 80, false),
            (
                "with a port it is for that port",
                "h.test:80",
                "h.test",
                80,
                true,
            ),
            ("and for no other", "h.test:80", "h.test", 81, false),
            (
                "a wildcard is what is below",
                "*.qq.com",
                "d.web2.qq.com",
                80,
                true,
            ),
            ("not the domain itself", "*.qq.com", "qq.com", 80, false),
            ("not what only ends alike", "*.qq.com", "xqq.com", 80, false),
            (
                "a wildcard can have a port",
                "*.qq.com:443",
                "s.qq.com",
                443,
                true,
            ),
            ("a star is all", "*", "anything.test", 1, true),
            (
                "a star with a port is all on it",
                "*:81",
                "anything.test",
                80,
                false,
            ),
            (
                "a trailing dot says nothing",
                "h.test.",
                "h.test.",
                80,
                true,
            ),
            (
                "a literal can be overridden",
                "127.0.0.1",
                "127.0.0.1",
                80,
                true,
            ),
            ("in brackets with a port", "[::1]:80", "::1", 80, true),
            ("without brackets there is no port", "::1", "::1", 80, true),
        ];
        for (why, pattern, host, port, fits) in rows {
            let mut names = names(&[(pattern, "10.9.8.7:6")], Table::new());
            let known = one(names.ask(host, *port, Token(0), Instant::now()));
            assert_eq!(known == "10.9.8.7:6", *fits, "{why}: {known}");
        }
    }

    #[test]
    fn the_first_override_that_fits_is_taken() {
        let mut names = names(
            &[("a.test", "10.0.0.1:1"), ("*", "10.0.0.2:2")],
            Table::new(),
        );
        assert_eq!(
            one(names.ask("a.test", 80, Token(0), Instant::now())),
            "10.0.0.1:1"
        );
        assert_eq!(
            one(names.ask("b.test", 80, Token(0), Instant::now())),
            "10.0.0.2:2"
        );
    }

    #[test]
    fn patterns_that_cannot_be_read_are_refused_by_name() {
        for pattern in [
            "", "a.*", "*a.test", "*.", "h:port", "h:99999", "[::1", "[::1]80", "*.*.a",
        ] {
            let addr = "10.0.0.1:1".parse().unwrap();
            let error =
                Names::new(&[(pattern.to_owned(), addr)], Box::new(Table::new())).unwrap_err();
            assert!(
                format!("{error:#}").contains(&format!("{pattern:?}")),
                "{error}"
            );
        }
    }

    #[test]
    fn literals_and_localhost_are_never_asked_for() {
        let mut names = names(&[], Table::new());
        assert_eq!(
            one(names.ask("192.0.2.1", 8, Token(0), Instant::now())),
            "192.0.2.1:8"
        );
        assert_eq!(
            one(names.ask("2001:db8::1", 8, Token(0), Instant::now())),
            "[2001:db8::1]:8"
        );
        for host in ["localhost", "localhost.", "a.localhost"] {
            let known = names.ask(host, 8, Token(0), Instant::now());
            let Known::Families {
                v6: Some(Ok(v6)),
                v4: Some(Ok(v4)),
            } = known
            else {
                panic!("{host} is known, not {known:?}")
            };
            assert_eq!((v6[0].to_string(), v6.len()), ("::1".to_owned(), 1));
            assert_eq!((v4[0].to_string(), v4.len()), ("127.0.0.1".to_owned(), 1));
        }
        assert!(!names.is_busy());
    }

    #[test]
    fn all_who_ask_the_same_share_one_look_up_and_the_last_to_go_cancels_it() {
        let mut table = Table::new();
        table.attach(Wake::new(|| {}));
        let ips: [IpAddr; 3] =
            ["10.0.0.1", "10.0.0.2", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        table.insert("h.test", ips);
        let mut names = names(&[], table);
        let now = Instant::now();
        for (token, port) in [(1, 80), (2, 81), (3, 82)] {
            let known = names.ask("h.test", port, Token(token), now);
            let Known::Families { v6: None, v4: None } = known else {
                panic!("nothing is known yet, not {known:?}")
            };
        }
        assert!(names.has_news());
        names.forget("h.test", Token(2));
        for (family, addrs) in [(Family::V6, &ips[2..]), (Family::V4, &ips[..2])] {
            let answered = names.next_answer(now).unwrap();
            assert_eq!(answered.links, [(Token(1), 80), (Token(3), 82)]);
            assert_eq!(answered.family, family);
            assert_eq!(&*answered.addresses.unwrap(), addrs);
        }
        assert!(names.next_answer(now).is_none() && !names.is_busy() && !names.has_news());

        names.ask("h.test", 80, Token(1), now);
        names.forget("h.test", Token(1));
        assert!(!names.is_busy() && !names.has_news() && names.next_answer(now).is_none());
    }
}
