//! One lookup: which names are asked for, which servers are asked, in which order and for how long.
//! It succeeds wherever glibc's would.
//!
//! - **Search list**: a candidate that ends in anything but addresses leads on to the next one,
//!   including the name as it stands. A server that fails or refuses below one suffix says nothing
//!   about the name below another. A failure is reported only if no candidate has an address.
//! - **Families**: each is looked up on its own, but both must end at the same candidate, since two
//!   candidates may be two hosts. A family without addresses at a candidate therefore checks
//!   whether the other family has some before it goes on ([`Walk`]).
//! - **Servers**: in the order given, since the first may know names that the others do not. The
//!   next one is asked as well when the first has failed or has been silent for [`PATIENCE`]; the
//!   first verdict is taken. A server that was overtaken like this is asked last for
//!   [`PASSED_OVER`], so that a dead server delays only one lookup in that time.
//! - **Attempts**: rounds over all servers, whatever they answered before. If all servers were
//!   silent about a candidate, its further rounds come after the other candidates, because waiting
//!   for silence takes longest.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::Name;
use log::debug;

use super::HickoryConfig;
use super::reactor::{Reactor, Sleep};
use super::server::{Server, Transport};
use super::verdict::{Failed, Failure, Verdict, explain};
use crate::resolver::{Family, LookupAnswer, LookupError};

/// How long a server may be silent before the next one is asked as well. By then, two datagrams
/// have gone unanswered: the first, and its repetition after a third of a second.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a server that did not answer in time is asked last.
const PASSED_OVER: Duration = Duration::from_secs(30);

/// The servers, how to query them, and what has been learned about them.
#[derive(Debug)]
pub(super) struct Stub {
    servers: Vec<Server>,
    search: Vec<Name>,
    ndots: usize,
    attempts: u32,
    rotate: bool,
    search_only: bool,
    ipv6: bool,
    /// The number of questions asked so far, for `rotate`.
    asked: Cell<usize>,
    walks: RefCell<HashMap<Box<str>, Weak<Walk>>>,
}

/// The outcome for a candidate: a verdict, or the failure of each server.
type Outcome = Result<Verdict, Vec<Failed>>;

impl Stub {
    pub(super) fn new(config: &HickoryConfig, reactor: &Reactor) -> Self {
        let transport = if config.tcp_only {
            Transport::Tcp
        } else {
            Transport::Udp
        };
        let server = |addr: &SocketAddr| Server::new(*addr, config.timeout, transport, reactor);
        Self {
            servers: config.servers.iter().map(server).collect(),
            search: config.search_names(),
            ndots: config.ndots.into(),
            attempts: config.attempts.max(1),
            rotate: config.rotate,
            search_only: config.no_tld_query,
            ipv6: config.ipv6,
            asked: Cell::new(0),
            walks: RefCell::default(),
        }
    }

    /// Looks up `host`, which is fully qualified if it ends in a dot.
    pub(super) async fn look_up(&self, host: &str, family: Family) -> LookupAnswer {
        if family == Family::V6 && !self.ipv6 {
            return LookupAnswer::found([]);
        }
        let Some(Candidates { names, as_is }) = self.candidates(host) else {
            let why = format!("{host:?} is not a valid DNS name");
            return LookupAnswer::failed(LookupError::Failed(why));
        };
        let walk = Member::join(self, host, family, names.len());
        let mut outcomes: Vec<Outcome> = Vec::new();
        let mut put_off = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let is_last = i + 1 == names.len();
            let mut outcome = self.ask(name, family, 0..1).await;
            if let Err(failures) = &outcome
                && self.attempts > 1
            {
                if !is_last && are_unresponsive(failures) {
                    put_off.push(i)
                } else {
                    outcome = self.ask(name, family, 1..self.attempts).await
                }
            }
            let has_addresses = matches!(outcome, Ok(Verdict::Addresses { .. }));
            walk.publish(i, has_addresses);
            let ends_here = has_addresses
                || is_exhausted(&outcome)
                || !is_last && self.other_has_addresses(&walk, i, name, &outcome).await;
            if ends_here {
                return into_answer(outcome, None);
            }
            outcomes.push(outcome);
        }
        for i in put_off {
            outcomes[i] = self.ask(&names[i], family, 1..self.attempts).await;
            if matches!(outcomes[i], Ok(Verdict::Addresses { .. })) || is_exhausted(&outcomes[i]) {
                return into_answer(outcomes.swap_remove(i), None);
            }
        }
        conclude(outcomes, &names, as_is)
    }

    /// Returns the names that `host` may stand for, in the order in which to try them, or `None` if
    /// it is not a valid DNS name.
    fn candidates(&self, host: &str) -> Option<Candidates> {
        // Built label by label, because hickory's parsers process escapes and rewrite non-ASCII
        // characters. Neither is wanted for the host of a URL.
        let complete = |host: &str| Name::from_labels(host.split('.').map(str::as_bytes)).ok();
        if let Some(host) = host.strip_suffix('.') {
            return Some(Candidates {
                names: vec![complete(host)?],
                as_is: Some(0),
            });
        }
        let name = complete(host)?;
        let below = |domain: &Name| {
            let mut relative = name.clone();
            relative.set_fqdn(false);
            // A candidate that is too long cannot exist.
            relative.append_domain(domain).ok()
        };
        let dots = host.matches('.').count();
        let mut names: Vec<Name> = Vec::new();
        if dots >= self.ndots {
            names.push(name.clone());
        }
        // Below the root, the candidate is the name itself.
        for candidate in self.search.iter().filter_map(below) {
            if !names.contains(&candidate) {
                names.push(candidate);
            }
        }
        let is_wanted = dots > 0 || !self.search_only || names.is_empty();
        if is_wanted && !names.contains(&name) {
            names.push(name.clone());
        }
        let as_is = names.iter().position(|candidate| *candidate == name);
        Some(Candidates { names, as_is })
    }

    /// Asks the servers for `name` until one has a verdict, in the given rounds of attempts.
    async fn ask(&self, name: &Name, family: Family, rounds: Range<u32>) -> Outcome {
        let servers = self.in_order();
        let mut failures: Vec<Failed> = Vec::new();
        for _ in rounds {
            match self.race(&servers, name, family).await {
                Ok(verdict) => return Ok(verdict),
                Err(failed) => failures = failed,
            }
            if failures.is_empty() || failures.iter().any(Failed::is_exhaustion) {
                break;
            }
        }
        debug!("{name} {family:?}: {} servers failed", failures.len());
        Err(failures)
    }

    /// Returns the servers in order, rotated if configured, with those that recently did not answer
    /// last.
    fn in_order(&self) -> Vec<&Server> {
        let now = Instant::now();
        let mut servers: Vec<_> = self.servers.iter().collect();
        if self.rotate && !servers.is_empty() {
            let asked = self.asked.get();
            self.asked.set(asked.wrapping_add(1));
            let first = asked % servers.len();
            servers.rotate_left(first);
        }
        servers.sort_by_key(|server| server.is_passed_over(now));
        servers
    }

    /// Runs one round: asks the servers one after another, continuing with the next when one has
    /// failed or is silent, and returns the first verdict.
    async fn race(
        &self,
        servers: &[&Server],
        name: &Name,
        family: Family,
    ) -> Result<Verdict, Vec<Failed>> {
        let mut to_ask = servers.iter().peekable();
        let mut asked: Vec<Asked<'_>> = Vec::new();
        let mut failures = Vec::new();
        loop {
            match to_ask.next() {
                Some(server) => asked.push(Asked {
                    server,
                    answer: Box::pin(server.ask(name, family)),
                }),
                None if asked.is_empty() => return Err(failures),
                None => {}
            }
            let patience = to_ask.peek().map(|_| Sleep::new(PATIENCE));
            match next_of(&mut asked, patience).await {
                Next::Verdict { server, verdict } => {
                    pass_over_before(server, &asked);
                    return Ok(verdict);
                }
                Next::Failed(failed) => failures.push(failed),
                Next::Silence => {}
            }
        }
    }

    /// Returns whether the other family has addresses at candidate `i`, where this one has none. If
    /// so, `name` is the host that was meant.
    ///
    /// NXDOMAIN applies to both families (RFC 8020 §2), and a server that was silent would be
    /// silent again. In these cases no question is asked; only what the other lookup has already
    /// learned is taken into account.
    async fn other_has_addresses(
        &self,
        walk: &Member<'_>,
        i: usize,
        name: &Name,
        outcome: &Outcome,
    ) -> bool {
        let other = walk.family.other();
        let is_worth_a_question = match outcome {
            Ok(verdict) => !matches!(verdict, Verdict::NoName { .. }),
            Err(failures) => !are_unresponsive(failures),
        };
        if !is_worth_a_question {
            return walk.walk.has_addresses(i, other) == Some(true);
        }
        if let Some(known) = walk.other_at(i).await {
            return known;
        }
        if other == Family::V6 && !self.ipv6 {
            return false;
        }
        let answer = self.ask(name, other, 0..self.attempts).await;
        let has_addresses = matches!(answer, Ok(Verdict::Addresses { .. }));
        walk.walk.publish(i, other, has_addresses);
        has_addresses
    }
}

/// The names that a host may stand for.
struct Candidates {
    /// Never empty.
    names: Vec<Name>,
    /// The index of the host as given.
    as_is: Option<usize>,
}

fn are_unresponsive(failures: &[Failed]) -> bool {
    let is_unresponsive = |failed: &Failed| matches!(failed.failure, Failure::Unresponsive);
    !failures.is_empty() && failures.iter().all(is_unresponsive)
}

fn is_exhausted(outcome: &Outcome) -> bool {
    let failures = outcome.as_ref().err();
    failures.is_some_and(|failures| failures.iter().any(Failed::is_exhaustion))
}

fn into_answer(outcome: Outcome, under: Option<&Name>) -> LookupAnswer {
    match outcome {
        Ok(verdict) => verdict.into_answer(),
        Err(failures) => LookupAnswer::failed(explain(&failures, under)),
    }
}

/// Chooses the answer if no candidate has an address, in glibc's order of precedence: the outcome
/// of the name as given, if that was tried first; a candidate that exists without addresses; a
/// candidate that could not be looked up; otherwise, that there is no such name.
fn conclude(mut outcomes: Vec<Outcome>, names: &[Name], as_is: Option<usize>) -> LookupAnswer {
    let ttl = |outcome: &Outcome| match outcome {
        Ok(Verdict::NoData { ttl } | Verdict::NoName { ttl }) => *ttl,
        // It may have an address when asked again.
        Ok(Verdict::Addresses { .. }) | Err(_) => Duration::ZERO,
    };
    let ttl = outcomes.iter().map(ttl).min().unwrap_or_default();
    let is_no_data = |outcome: &Outcome| matches!(outcome, Ok(Verdict::NoData { .. }));
    let told = match as_is {
        Some(0) => Some(0),
        Some(_) | None => outcomes.iter().position(is_no_data).or_else(|| {
            // Of several failures, that of the name as given is preferred, since the caller knows
            // this name.
            let as_is = as_is.filter(|i| outcomes[*i].is_err());
            as_is.or_else(|| outcomes.iter().position(Result::is_err))
        }),
    };
    let told = told.unwrap_or_default();
    let under = (Some(told) != as_is).then(|| &names[told]);
    match outcomes.swap_remove(told) {
        Ok(verdict) => verdict.at_most(ttl).into_answer(),
        failures @ Err(_) => into_answer(failures, under),
    }
}

// ---- both families ------------------------------------------------------------------------------

/// The progress of one host through its candidates, shared by the lookups of both families.
#[derive(Debug)]
struct Walk {
    /// The number of lookups in progress, for V6 and V4.
    members: [Cell<u32>; 2],
    /// Whether each candidate has addresses of V6 and V4; `None` if not known yet.
    has_addresses: RefCell<Vec<[Option<bool>; 2]>>,
    waiting: RefCell<Vec<Waker>>,
}

fn place(family: Family) -> usize {
    match family {
        Family::V6 => 0,
        Family::V4 => 1,
    }
}

impl Walk {
    fn new(candidates: usize) -> Self {
        Self {
            members: Default::default(),
            has_addresses: RefCell::new(vec![[None; 2]; candidates]),
            waiting: RefCell::default(),
        }
    }

    fn has_addresses(&self, i: usize, family: Family) -> Option<bool> {
        self.has_addresses.borrow()[i][place(family)]
    }

    fn publish(&self, i: usize, family: Family, has_addresses: bool) {
        self.has_addresses.borrow_mut()[i][place(family)] = Some(has_addresses);
        self.wake();
    }

    fn wake(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }
}

/// A lookup that takes part in a walk.
struct Member<'a> {
    stub: &'a Stub,
    host: &'a str,
    family: Family,
    walk: Rc<Walk>,
}

impl<'a> Member<'a> {
    fn join(stub: &'a Stub, host: &'a str, family: Family, candidates: usize) -> Self {
        let mut walks = stub.walks.borrow_mut();
        let walk = match walks.get(host).and_then(Weak::upgrade) {
            Some(walk) => walk,
            None => {
                let walk = Rc::new(Walk::new(candidates));
                walks.insert(host.into(), Rc::downgrade(&walk));
                walk
            }
        };
        let members = &walk.members[place(family)];
        members.set(members.get() + 1);
        Self {
            stub,
            host,
            family,
            walk,
        }
    }

    fn publish(&self, i: usize, has_addresses: bool) {
        self.walk.publish(i, self.family, has_addresses);
    }

    /// Waits until the other family's lookup has reached candidate `i`, and returns whether it
    /// found addresses. Returns `None` if no such lookup is in progress.
    async fn other_at(&self, i: usize) -> Option<bool> {
        let other = self.family.other();
        poll_fn(|cx| {
            if let Some(known) = self.walk.has_addresses(i, other) {
                return Poll::Ready(Some(known));
            }
            if self.walk.members[place(other)].get() == 0 {
                return Poll::Ready(None);
            }
            self.walk.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        let members = &self.walk.members[place(self.family)];
        members.set(members.get() - 1);
        if self.walk.members.iter().all(|members| members.get() == 0) {
            self.stub.walks.borrow_mut().remove(self.host);
        }
        self.walk.wake();
    }
}

// ---- one round ----------------------------------------------------------------------------------

/// Demotes the servers asked before `winner`, which have been silent for longer.
fn pass_over_before(winner: SocketAddr, asked: &[Asked<'_>]) {
    let until = Instant::now() + PASSED_OVER;
    for silent in asked.iter().take_while(|one| one.server.addr != winner) {
        debug!(
            "{} does not answer, and is asked last for now",
            silent.server.addr
        );
        silent.server.pass_over_until(until);
    }
}

/// A server that has been asked, and the future of its answer.
struct Asked<'a> {
    server: &'a Server,
    answer: Pin<Box<dyn Future<Output = Result<Verdict, Failure>> + 'a>>,
}

/// The next event of a round.
enum Next {
    Verdict {
        server: SocketAddr,
        verdict: Verdict,
    },
    /// A server failed, and has been removed from those asked.
    Failed(Failed),
    /// No answer arrived within the given time.
    Silence,
}

/// Waits for an answer from one of `asked`, or until `patience` elapses.
async fn next_of(asked: &mut Vec<Asked<'_>>, patience: Option<Sleep>) -> Next {
    let mut patience = std::pin::pin!(patience);
    poll_fn(|cx| {
        if let Poll::Ready(next) = poll_answers(asked, cx) {
            return Poll::Ready(next);
        }
        match patience.as_mut().as_pin_mut() {
            Some(sleep) => sleep.poll(cx).map(|()| Next::Silence),
            None => Poll::Pending,
        }
    })
    .await
}

fn poll_answers(asked: &mut Vec<Asked<'_>>, cx: &mut Context<'_>) -> Poll<Next> {
    for i in 0..asked.len() {
        let Poll::Ready(answer) = asked[i].answer.as_mut().poll(cx) else {
            continue;
        };
        let server = asked[i].server.addr;
        return Poll::Ready(match answer {
            Ok(verdict) => Next::Verdict { server, verdict },
            Err(failure) => {
                drop(asked.remove(i));
                Next::Failed(Failed { server, failure })
            }
        });
    }
    Poll::Pending
}
