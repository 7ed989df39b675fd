//! The front before every resolver: what is answered without one, and what all of them have to
//! agree on.
//!
//! In this order, each host is looked for among
//!
//! 1. the *overrides* of the configuration,
//! 2. *literals*: IP addresses, with or without a zone id,
//! 3. `localhost` and what is below it: loopback, whatever a file or a server says (RFC 6761 §6.3);
//!    and what is no name to be asked for, as `.onion` (RFC 7686 §2) and hosts that end in a
//!    number, is refused, whatever they say,
//! 4. the *hosts file* of this machine,
//! 5. the answers that are *kept*, and at last
//! 6. the *questions* put to the resolver: each once for all who ask it, AAAA before A (RFC 8305
//!    §3), so many at a time.
//!
//! A trailing dot makes no difference in 1 to 4. For a resolver it does, since a name that ends in
//! one is complete and no search list is tried; so from 5 on `h.test.` and `h.test` are two names.
//!
//! What is kept is forgotten when the machine comes to another network or the resolver to other
//! servers, and a question that was put before is joined by nobody after that.
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

/// How long links wait where there is a stale answer: the client response timer (RFC 8767 §5).
const PATIENCE: Duration = Duration::from_millis(1800);

/// Addresses of one family that count; the first ones, since their order is the resolver's. Whoever
/// owns a name could have it bring thousands, and each is a socket in a race.
const MAX_ADDRS: usize = 128;

/// When a question is given up that goes on without links: the query resolution timer (RFC 8767
/// §5). Until then the stale answer rests, so that no link comes to wait for it.
const GIVE_UP: Duration = cache::RECHECK;

/// All addresses of one family, empty where the name has none of it, or why they are not known.
pub(crate) type FamilyAnswer = Result<Rc<[IpAddr]>, LookupError>;

/// What a question is answered with at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// One address, and no other will come: nothing is allocated for it.
    One(SocketAddr),
    /// What is known of each family. `None`: it has been asked for, and comes out of
    /// [`Names::next_answer`].
    ///
    /// That a name has no address at all, both families known and empty, or each without a name or
    /// a server that knows of it, is for the caller to find.
    Families {
        v6: Option<FamilyAnswer>,
        v4: Option<FamilyAnswer>,
    },
}

/// One family of one host, for all links that wait for it; there is at least one.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The first to ask first.
    pub(crate) links: Vec<Token>,
    pub(crate) family: Family,
    pub(crate) addresses: FamilyAnswer,
}

/// What the front takes from the configuration, and where it runs.
#[derive(Debug)]
pub(crate) struct NamesConfig<'a> {
    pub(crate) overrides: &'a [(String, SocketAddr)],
    pub(crate) hosts_file: Option<PathBuf>,
    pub(crate) max_lookups: usize,
    pub(crate) keep_names: Duration,
    pub(crate) keep_stale_names: Duration,
    pub(crate) machine: Machine,
}

/// Answers names.
///
/// # Who waits
/// A link asks once, with its own token. For each family that [`ask`](Self::ask) leaves open it
/// then waits, until that family comes out of [`next_answer`](Self::next_answer) or the link is
/// [forgotten](Self::forget); one of the two happens, and only once. So a link that goes on before
/// both families are there (it is connected, or closed) has to be forgotten, or its questions are
/// asked to their end; in any other case forgetting does nothing.
#[derive(Debug)]
pub(crate) struct Names {
    overrides: Overrides,
    machine: Machine,
    localhost: Both<Rc<[IpAddr]>>,
    hosts: HostsFile,
    cache: Cache,
    questions: Questions,
    resolver: Box<dyn Resolve>,
    /// When the resolver wants to be called, as it said when it was called last: it is not asked
    /// each turn.
    resolver_due: Option<Instant>,
    /// A question was put since the resolver was last asked for answers: it may have one at once.
    news: bool,
    /// The resolver was told of events since the last turn.
    events: bool,
    /// When it was last told that stale addresses are used, and of how many names it has not been
    /// since.
    told_stale: Seldom,
}

/// Keeps lines of one kind apart: a thousand names may go stale at once.
#[derive(Debug, Default)]
struct Seldom {
    last: Option<Instant>,
    untold: u32,
}

impl Seldom {
    const EVERY: Duration = Duration::from_secs(1);

    /// Whether it may be told now; if so, of how many it was not.
    fn may_tell(&mut self, now: Instant) -> Option<u32> {
        match self.last {
            Some(last) if now.saturating_duration_since(last) < Self::EVERY => {
                self.untold += 1;
                None
            }
            Some(_) | None => {
                self.last = Some(now);
                Some(std::mem::take(&mut self.untold))
            }
        }
    }
}

/// The families in the order in which they are asked for.
const FAMILIES: [Family; 2] = [Family::V6, Family::V4];

/// One thing of each family.
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

    /// It is certain that there is no address, in either family.
    fn nothing(why: LookupError) -> Self {
        Known::Families {
            v6: Some(Err(why.clone())),
            v4: Some(Err(why)),
        }
    }
}

/// None where the answer is an error.
fn addresses(answer: &FamilyAnswer) -> &[IpAddr] {
    answer.as_deref().ok().unwrap_or_default()
}

impl Names {
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for an override's pattern that
    /// cannot be read.
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
            told_stale: Seldom::default(),
        })
    }

    /// Asks for the addresses of `host`, which is in lower case, on behalf of the link behind
    /// `token`.
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

    /// The machine is on another network now: nothing that was kept holds any longer, and the hosts
    /// file and what the resolver reads are read again with the next question. Links that wait go
    /// on waiting for the answers to their questions.
    pub(crate) fn on_network_changed(&mut self) {
        self.hosts.forget();
        self.resolver.on_network_changed();
        self.resolver_due = self.resolver.deadline();
        self.forget_answers();
        self.ask_resolver();
    }

    /// Of earlier answers, and of those to come to questions that have been put.
    fn forget_answers(&mut self) {
        self.cache.clear();
        self.questions.outdate();
    }

    /// `None`: the link waits for it.
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

    /// Leaves the resolver as it is, for good: in a process that was forked off, its sockets are
    /// the parent's too, and it would deregister them from the parent's poll.
    pub(crate) fn abandon(&mut self) {
        let nobody = Box::new(crate::resolver::Table::new());
        std::mem::forget(std::mem::replace(&mut self.resolver, nobody));
    }

    /// Asks the resolver what there is room for in the window.
    fn ask_resolver(&mut self) {
        loop {
            while let Some((id, question)) = self.questions.next_to_ask() {
                self.news = true;
                self.resolver.start(&question.name, question.family, id);
                self.resolver_due = self.resolver.deadline();
            }
            // What goes on for the cache alone keeps nobody waiting who has no answer at all.
            let Some(id) = self.questions.next_to_make_way() else {
                break;
            };
            self.give_up(id);
        }
    }

    /// The link behind `token` waits no longer for `host`; the last to go takes what is still asked
    /// with it.
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

    /// When a turn is due without the resolver having woken the engine.
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

    /// Whether answers may be there already.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        // A question that was cancelled before it was asked after has none.
        self.news && self.is_busy()
    }

    /// The resolver has woken the engine, or another thread has: answers may be there.
    pub(crate) fn on_wake(&mut self) {
        self.resolver_due = self.resolver.deadline();
        self.news = self.is_busy();
    }

    /// Whether anything is being looked up.
    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        !self.questions.is_empty()
    }

    /// One of the resolver's own sources is ready.
    pub(crate) fn on_event(&mut self, token: Token) {
        self.events = true;
        self.resolver.on_event(token);
        self.resolver_due = self.resolver.deadline();
    }

    /// Once a turn, behind its events.
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

    /// The end of a question, or of what its links waited for.
    pub(crate) fn next_answer(&mut self, now: Instant) -> Option<Answered> {
        while let Some((id, answer)) = self.resolver.take() {
            // An answer to a question that was given up is nobody's.
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

    /// Takes an answer in, and says what is to be made of it.
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
            // Asked for one family, it speaks for both: there is none of this one.
            Err(LookupError::NoAddress) => (Ok(Rc::from([])), ttl),
            Err(LookupError::NotFound) => (Err(LookupError::NotFound), ttl),
            Err(error @ LookupError::Exhausted(_)) => return Err(error),
            Err(error) if question.is_outdated() => return Err(error),
            Err(error @ (LookupError::Timeout(_) | LookupError::Failed(_))) => {
                if let Some(addrs) = self.fall_back(question, now, &error) {
                    return Ok(addrs);
                }
                // RFC 8020 §2: it is the name that does not exist, for one type of records as for
                // the other. That alone does not keep the other family from being asked for: there
                // are servers that say so of AAAA only (RFC 4074 §4.2).
                match self.cache.gone_for(name, *family, now) {
                    Some(left) => (Err(LookupError::NotFound), left),
                    None => return Err(error),
                }
            }
        };
        // What the servers of another network say holds for who waits, and for nobody else.
        if !question.is_outdated() {
            self.cache.keep(name, *family, &answer, ttl, now);
        }
        answer
    }

    /// A stale answer for links that have waited long enough. Their question goes on, for what it
    /// leaves in the cache.
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
                self.tell_stale(&name, family, &addrs, &why, now);
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

    /// The stale answer to a question that has failed.
    fn fall_back(
        &mut self,
        question: &Question,
        now: Instant,
        why: &LookupError,
    ) -> Option<Rc<[IpAddr]>> {
        let Question { name, family, .. } = question;
        let addrs = self.cache.fall_back(name, *family, now)?;
        // Of one that was left behind it has been told.
        if !question.is_left_behind() {
            self.tell_stale(name, *family, &addrs, why, now);
        }
        Some(addrs)
    }

    /// Whom the resolver asks, for the words of an error.
    pub(crate) fn servers(&self) -> String {
        self.resolver.servers()
    }

    /// Tells that stale addresses are used, which happens no more than every 30 s for a name.
    fn tell_stale(
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
            return debug!("{name}: {why}; as before, it has no {kind} address");
        }
        let told = self.told_stale.may_tell(now);
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
            "{name}: {why}; its {kind} addresses of before are used, though their TTL is over{more}"
        );
    }
}

/// Why nobody is asked for `name`, which has no trailing dot. URLs with such a host are refused
/// when a request is built, and an override is the user's own wish; this is for what comes by
/// another way.
fn refusal(name: &str) -> Option<&'static str> {
    if is_onion(name) {
        return Some("a .onion name is reached through Tor, and the DNS is not asked for it");
    }
    if ends_in_a_number(name) {
        return Some("a host that ends in a number is an IPv4 address of four, or nothing");
    }
    None
}
