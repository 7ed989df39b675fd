//! Name resolution: the layer in front of every resolver. It answers what needs no resolver, and
//! applies the rules that all resolvers share.
//!
//! Each host is looked for in this order:
//!
//! 1. the *overrides* of the configuration,
//! 2. *literals*: IP addresses, with or without a zone id,
//! 3. `localhost` and names below it: loopback, whatever a file or a server says (RFC 6761 §6.3).
//!    Names that must never be looked up are refused here, likewise in any case: `.onion` (RFC 7686
//!    §2), and hosts that end in a number,
//! 4. the *hosts file*,
//! 5. the *cache* of earlier answers,
//! 6. *questions* put to the resolver: each only once for all links that ask it, AAAA before A (RFC
//!    8305 §3), and a limited number at a time.
//!
//! A trailing dot makes no difference in steps 1 to 4. For a resolver it does, since a name that
//! ends in a dot is complete and is not tried with a search list. From step 5 on, `h.test.` and
//! `h.test` are therefore two names.
//!
//! The cache is cleared when the host changes to another network or the resolver to other servers.
//! Questions asked before that accept no further links.
//!
//! Nothing here reads a clock or waits: `now` is an argument, and the hosts file is a local one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::{Level, debug, log};
use mio::Token;

use crate::error::Error;
use crate::net::Machine;
use crate::proto::target::{ends_in_a_number, is_onion};
use crate::resolver::{Family, LookupAnswer, LookupError, LookupId, Resolve};

mod cache;
mod entries;
mod hosts;
mod literal;
mod overrides;
mod questions;
#[cfg(test)]
mod tests;

use cache::{Cache, Standing};
use hosts::HostsFile;
use overrides::Overrides;
use questions::{Closed, Question, Questions};

/// How long links wait if there is a stale answer: the client response timer (RFC 8767 §5).
const PATIENCE: Duration = Duration::from_millis(1800);

/// The most addresses of one family that are used. The first ones are kept, since the order is the
/// resolver's. A name's owner could publish thousands, and each is a socket in a race.
const MAX_ADDRS: usize = 128;

/// When a question without links is given up: the query resolution timer (RFC 8767 §5). Until then
/// the stale answer is used without asking, so no further link waits for the question.
const GIVE_UP: Duration = cache::RECHECK;

/// All addresses of one family, which may be none, or why they are unknown.
pub(crate) type FamilyAnswer = Result<Rc<[IpAddr]>, LookupError>;

/// The part of an answer that is available at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// One address, and no others will follow. It needs no allocation.
    One(SocketAddr),
    /// The result for each family. `None` means that a question is in flight, whose answer
    /// [`Names::next_answer`] returns.
    ///
    /// The caller has to find out whether the name has no address at all: both families are empty
    /// or have failed.
    Families {
        v6: Option<FamilyAnswer>,
        v4: Option<FamilyAnswer>,
    },
}

/// The answer for one family of one host, for all links that wait for it. There is at least one.
#[derive(Debug)]
pub(crate) struct Answered {
    /// In the order of their tokens.
    pub(crate) links: Vec<Token>,
    pub(crate) family: Family,
    pub(crate) addresses: FamilyAnswer,
}

/// The configuration of [`Names`], and where it runs.
#[derive(Debug)]
pub(crate) struct NamesConfig<'a> {
    pub(crate) overrides: &'a [(String, SocketAddr)],
    pub(crate) hosts_file: Option<PathBuf>,
    pub(crate) max_lookups: usize,
    pub(crate) keep_names: Duration,
    pub(crate) keep_stale_names: Duration,
    pub(crate) machine: Machine,
}

/// Answers lookups of names.
///
/// # Contract for links
/// A link asks once, with its own token. For each family that [`ask`](Self::ask) leaves open, it
/// then waits until [`next_answer`](Self::next_answer) returns that family or the link is
/// [forgotten](Self::forget). Exactly one of the two happens. A link that goes on before both
/// families are known (because it is connected, or closed) must therefore be forgotten; otherwise
/// its questions run to their end. In any other case, forgetting a link has no effect.
#[derive(Debug)]
pub(crate) struct Names {
    overrides: Overrides,
    machine: Machine,
    localhost: Both<Rc<[IpAddr]>>,
    hosts: HostsFile,
    cache: Cache,
    questions: Questions,
    resolver: Box<dyn Resolve>,
    /// When the resolver wants to be called, as of the last call. Saved so as not to ask it each
    /// turn.
    resolver_due: Option<Instant>,
    /// A question was put since the resolver was last polled for answers. It may have one at once.
    news: bool,
    /// The resolver has received events since the last turn.
    events: bool,
    /// Limits how often the use of stale addresses is logged.
    stale_log: RateLimit,
}

/// Limits the rate of one kind of log line: a thousand names may go stale at once.
#[derive(Debug, Default)]
struct RateLimit {
    last: Option<Instant>,
    suppressed: u32,
}

impl RateLimit {
    const EVERY: Duration = Duration::from_secs(1);

    /// If a line may be logged now, returns how many were suppressed since the last one.
    fn admits(&mut self, now: Instant) -> Option<u32> {
        match self.last {
            Some(last) if now.saturating_duration_since(last) < Self::EVERY => {
                self.suppressed += 1;
                None
            }
            Some(_) | None => {
                self.last = Some(now);
                Some(std::mem::take(&mut self.suppressed))
            }
        }
    }
}

/// The families in the order in which they are looked up.
const FAMILIES: [Family; 2] = [Family::V6, Family::V4];

/// A value for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Both<T> {
    v6: T,
    v4: T,
}

impl<T> Both<T> {
    fn of(&self, family: Family) -> &T {
        match family {
            Family::V6 => &self.v6,
            Family::V4 => &self.v4,
        }
    }

    fn of_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V6 => &mut self.v6,
            Family::V4 => &mut self.v4,
        }
    }

    fn map<U>(self, mut f: impl FnMut(T) -> U) -> Both<U> {
        Both {
            v6: f(self.v6),
            v4: f(self.v4),
        }
    }
}

impl Known {
    fn new(families: Both<Option<FamilyAnswer>>, port: u16) -> Self {
        let Both { v6, v4 } = families;
        if let (Some(v6), Some(v4)) = (&v6, &v4)
            && let ([one], []) | ([], [one]) = (addresses(v6), addresses(v4))
        {
            return Known::One(SocketAddr::new(*one, port));
        }
        Known::Families { v6, v4 }
    }

    fn all(addrs: &Both<Rc<[IpAddr]>>, port: u16) -> Self {
        Self::new(addrs.clone().map(|addrs| Some(Ok(addrs))), port)
    }

    /// Returns an answer that there is certainly no address in either family.
    fn nothing(why: LookupError) -> Self {
        Known::Families {
            v6: Some(Err(why.clone())),
            v4: Some(Err(why)),
        }
    }
}

/// Returns the addresses, or none if the answer is an error.
fn addresses(answer: &FamilyAnswer) -> &[IpAddr] {
    answer.as_deref().ok().unwrap_or_default()
}

impl Names {
    /// Creates the name layer in front of `resolver`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for an override with an
    /// invalid pattern.
    pub(crate) fn new(config: NamesConfig<'_>, resolver: Box<dyn Resolve>) -> Result<Self, Error> {
        let hosts_file = match config.machine {
            Machine::Real => config.hosts_file,
            Machine::Simulated => None,
        };
        Ok(Self {
            overrides: Overrides::new(config.overrides)?,
            machine: config.machine,
            localhost: Both {
                v6: Rc::new([Ipv6Addr::LOCALHOST.into()]),
                v4: Rc::new([Ipv4Addr::LOCALHOST.into()]),
            },
            hosts: HostsFile::new(hosts_file),
            cache: Cache::new(config.keep_names, config.keep_stale_names),
            questions: Questions::new(config.max_lookups),
            resolver_due: resolver.deadline(),
            resolver,
            news: false,
            events: false,
            stale_log: RateLimit::default(),
        })
    }

    /// Looks up the addresses of `host`, which must be in lower case, for the link with this token.
    pub(crate) fn ask(&mut self, host: &str, port: u16, token: Token, now: Instant) -> Known {
        let name = host.strip_suffix('.').unwrap_or(host);
        if let Some(addr) = self.overrides.find(name, port) {
            return Known::One(addr);
        }
        match literal::read(name, port, self.machine) {
            Ok(Some(addr)) => return Known::One(addr),
            Ok(None) => {}
            Err(why) => return Known::nothing(why),
        }
        if name == "localhost" || name.ends_with(".localhost") {
            return Known::all(&self.localhost, port);
        }
        if let Some(why) = refusal(name) {
            return Known::nothing(LookupError::Failed(why.into()));
        }
        if let Some(addrs) = self.hosts.find(name, now) {
            return Known::all(addrs, port);
        }
        if self.resolver.has_changed(now) {
            self.forget_answers();
        }
        let [v6, v4] = FAMILIES.map(|family| self.ask_family(host, family, token, now));
        self.ask_resolver();
        Known::new(Both { v6, v4 }, port)
    }

    /// Records that the host is on another network. The cache is cleared, and the hosts file and
    /// the resolver's configuration are read again with the next question. Links that are waiting
    /// still get the answers to their questions.
    pub(crate) fn on_network_changed(&mut self) {
        self.hosts.forget();
        self.resolver.on_network_changed();
        self.resolver_due = self.resolver.deadline();
        self.forget_answers();
        self.ask_resolver();
    }

    /// Clears the cache, and keeps answers to questions in flight out of it.
    fn forget_answers(&mut self) {
        self.cache.clear();
        self.questions.outdate();
    }

    /// Returns the answer for one family. `None` means that the link waits for it.
    fn ask_family(
        &mut self,
        host: &str,
        family: Family,
        link: Token,
        now: Instant,
    ) -> Option<FamilyAnswer> {
        let timer = match self.cache.look(host, family, now) {
            Standing::Fresh(answer) => return Some(answer),
            Standing::Resting(addrs) => return Some(Ok(addrs)),
            Standing::Stale(_) => Some(now + PATIENCE),
            Standing::Unknown => None,
        };
        self.questions.join(host, family, link, timer);
        None
    }

    /// Leaks the resolver. In a forked process its sockets are shared with the parent, and dropping
    /// them would deregister them from the parent's poll.
    pub(crate) fn abandon(&mut self) {
        let nobody = Box::new(crate::resolver::Table::new());
        std::mem::forget(std::mem::replace(&mut self.resolver, nobody));
    }

    /// Puts as many questions to the resolver as the window allows.
    fn ask_resolver(&mut self) {
        loop {
            while let Some((id, question)) = self.questions.next_to_ask() {
                self.news = true;
                self.resolver.start(&question.name, question.family, id);
                self.resolver_due = self.resolver.deadline();
            }
            // A question that only serves the cache gives way to links that have no answer at all.
            let Some(id) = self.questions.next_to_make_way() else {
                break;
            };
            self.give_up(id);
        }
    }

    /// Stops the link behind `token` from waiting for `host`. The last link to go cancels the
    /// questions still in flight.
    pub(crate) fn forget(&mut self, host: &str, token: Token) {
        let Both { v6, v4 } = self.questions.forget(host, token);
        for id in [v6, v4].into_iter().flatten() {
            self.give_up(id);
        }
        while let Some(id) = self.questions.forget_outdated(host, token) {
            self.give_up(id);
        }
        self.ask_resolver();
    }

    fn give_up(&mut self, id: LookupId) {
        if let Some(Closed {
            was_asked: true, ..
        }) = self.questions.close(id)
        {
            self.resolver.cancel(id);
            self.resolver_due = self.resolver.deadline();
        }
    }

    /// Returns when a turn is due even if the resolver does not wake the engine.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if let Some(since) = self.hosts.deadline() {
            return Some(since);
        }
        match (self.resolver_due, self.questions.deadline()) {
            (Some(resolver), Some(questions)) => Some(resolver.min(questions)),
            (resolver, questions) => resolver.or(questions),
        }
    }

    /// Returns whether answers may be available.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        // If the only question was canceled in the meantime, there is no answer.
        self.news && self.is_busy()
    }

    /// Records that the engine was woken, by the resolver or another thread. Answers may be
    /// available.
    pub(crate) fn on_wake(&mut self) {
        self.resolver_due = self.resolver.deadline();
        self.news = self.is_busy();
    }

    /// Returns whether any lookup is in progress.
    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Tells the resolver that one of its own sources is ready.
    pub(crate) fn on_event(&mut self, token: Token) {
        self.events = true;
        self.resolver.on_event(token);
        self.resolver_due = self.resolver.deadline();
    }

    /// Runs once per turn, after its events: continues to read the hosts file, and calls the
    /// resolver if it is due.
    #[inline]
    pub(crate) fn on_turn(&mut self, now: Instant) {
        if self.hosts.deadline().is_some() {
            self.hosts.read_on();
        }
        let is_due = self.resolver_due.is_some_and(|due| due <= now);
        if std::mem::take(&mut self.events) || is_due {
            self.resolver.on_tick(now);
            self.resolver_due = self.resolver.deadline();
        }
    }

    /// Returns the next answer, or the next stale one for links that have waited long enough.
    pub(crate) fn next_answer(&mut self, now: Instant) -> Option<Answered> {
        while let Some((id, answer)) = self.resolver.take() {
            // The question may have been given up.
            let Some(Closed { question, .. }) = self.questions.close(id) else {
                continue;
            };
            self.ask_resolver();
            let family = question.family;
            let addresses = self.learn(&question, answer, now);
            if !question.is_left_behind() {
                return Some(Answered {
                    links: question.into_links(),
                    family,
                    addresses,
                });
            }
        }
        self.news = false;
        self.resolver_due = self.resolver.deadline();
        self.next_late(now)
    }

    /// Processes a resolver's answer, and returns the result for the links.
    fn learn(&mut self, question: &Question, answer: LookupAnswer, now: Instant) -> FamilyAnswer {
        let Question { name, family, .. } = question;
        let LookupAnswer { addresses, ttl } = answer;
        let (answer, ttl) = match addresses {
            Ok(addrs) => {
                let mut known: Vec<IpAddr> = Vec::new();
                for ip in addrs.into_iter().filter(|ip| family.has(ip)) {
                    if known.len() < MAX_ADDRS && !known.contains(&ip) {
                        known.push(ip);
                    }
                }
                (Ok(known.into()), ttl)
            }
            // NoAddress refers to the requested family: the name has no address of it.
            Err(LookupError::NoAddress) => (Ok(Rc::from([])), ttl),
            Err(LookupError::NotFound) => (Err(LookupError::NotFound), ttl),
            Err(error @ LookupError::Exhausted(_)) => return Err(error),
            Err(error) if question.is_outdated() => return Err(error),
            Err(error @ (LookupError::Timeout(_) | LookupError::Failed(_))) => {
                if let Some(addrs) = self.fall_back(question, now, &error) {
                    return Ok(addrs);
                }
                // RFC 8020 §2: NXDOMAIN means that the name does not exist, whatever the record
                // type. The other family is nevertheless asked for, because some servers return
                // NXDOMAIN for AAAA queries only (RFC 4074 §4.2).
                match self.cache.gone_for(name, *family, now) {
                    Some(left) => (Err(LookupError::NotFound), left),
                    None => return Err(error),
                }
            }
        };
        // An answer from the servers of a former network is only passed to links that already wait.
        if !question.is_outdated() {
            self.cache.keep(name, *family, &answer, ttl, now);
        }
        answer
    }

    /// Returns a stale answer for links that have waited long enough. Their question stays in
    /// flight to refresh the cache.
    fn next_late(&mut self, now: Instant) -> Option<Answered> {
        while let Some(id) = self.questions.next_due(now) {
            let Some(question) = self.questions.get(id) else {
                continue;
            };
            if question.is_left_behind() {
                self.give_up(id);
                self.ask_resolver();
                continue;
            }
            let (name, family) = (Rc::clone(&question.name), question.family);
            if let Some(addrs) = self.cache.fall_back(&name, family, now) {
                let why = format_args!("no answer within {PATIENCE:?}");
                self.log_stale(&name, family, &addrs, &why, now);
                let links = self.questions.leave_behind(id, now + GIVE_UP);
                self.ask_resolver();
                return Some(Answered {
                    links,
                    family,
                    addresses: Ok(addrs),
                });
            }
        }
        None
    }

    /// Returns the stale answer to a question that has failed.
    fn fall_back(
        &mut self,
        question: &Question,
        now: Instant,
        why: &LookupError,
    ) -> Option<Rc<[IpAddr]>> {
        let Question { name, family, .. } = question;
        let addrs = self.cache.fall_back(name, *family, now)?;
        // If the question was left behind, this has been logged already.
        if !question.is_left_behind() {
            self.log_stale(name, *family, &addrs, why, now);
        }
        Some(addrs)
    }

    /// Returns which servers the resolver asks, for error texts.
    pub(crate) fn servers(&self) -> String {
        self.resolver.servers()
    }

    /// Logs that stale addresses are used. This happens at most every 30 s for each name.
    fn log_stale(
        &mut self,
        name: &str,
        family: Family,
        addrs: &[IpAddr],
        why: &dyn fmt::Display,
        now: Instant,
    ) {
        let kind = match family {
            Family::V6 => "IPv6",
            Family::V4 => "IPv4",
        };
        if addrs.is_empty() {
            return debug!("{name}: {why}; still assuming that it has no {kind} address");
        }
        let told = self.stale_log.admits(now);
        let level = if told.is_some() {
            Level::Warn
        } else {
            Level::Debug
        };
        let more = match told {
            Some(more @ 1..) => format!(" (and {more} more names since the last line)"),
            Some(0) | None => String::new(),
        };
        log!(
            level,
            "{name}: {why}; using stale {kind} addresses whose TTL has expired{more}"
        );
    }
}

/// Returns why `name`, given without a trailing dot, is never looked up. URLs with such a host are
/// refused when the request is built, and overrides are the user's own decision. This covers names
/// that arrive any other way.
fn refusal(name: &str) -> Option<&'static str> {
    if is_onion(name) {
        return Some("a .onion name is reached through Tor and never looked up in the DNS");
    }
    if ends_in_a_number(name) {
        return Some("a host that ends in a number must be an IPv4 address of four parts");
    }
    None
}
