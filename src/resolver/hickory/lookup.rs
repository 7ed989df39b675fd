//! One look-up: which names are asked for, of which servers, in which order, and until when.
//!
//! hickory carries a question to one server and its answer back: identifiers and ports that cannot be guessed, datagrams sent again, TCP
//! for what does not fit into one, aliases followed. What goes beyond one server is done here, since hickory's pool gives up before it has
//! come to the second, and does not say which server said no.
//!
//! - **Search list**: as resolv.conf(5) has it, except that only "no such name" leads on to the next candidate. A name that exists without
//!   an address of the family is the one that was meant, or the two families would be of two hosts; and after any other failure
//!   nobody can say which was.
//! - **Servers**: in the order given, since the first may know what the others do not. The next is asked as well when the first has failed,
//!   or has been silent for [`PATIENCE`]; the first verdict of any is taken. A server that let others answer is asked last for
//!   [`PASSED_OVER`], so that a dead one costs one look-up in that time its patience.
//! - **Attempts**: rounds over all servers that might answer if asked again.

use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hickory_resolver::Resolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::Name;
use log::debug;

use super::HickoryConfig;
use super::reactor::{Reactor, Sleep, within};
use super::runtime::Runtime;
use super::verdict::{
    Failed, Failure, MAX_TTL_SECONDS, Verdict, addresses, explain, negative, record_type,
};
use crate::resolver::{Family, LookupAnswer, LookupError};

/// How long a server may be silent before the next is asked as well: a datagram, and the second one after a third of a second, have then
/// both gone unanswered.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a server that was silent is asked last.
const PASSED_OVER: Duration = Duration::from_secs(30);

/// Questions on one TCP connection at once: far over what the engine has under way, since one too many is a failure.
const MAX_ON_CONNECTION: usize = 1024;

/// Whom to ask, and how.
#[derive(Debug)]
pub(super) struct Stub {
    servers: Vec<Server>,
    search: Vec<Name>,
    ndots: usize,
    timeout: Duration,
    attempts: u32,
}

impl Stub {
    pub(super) fn new(config: &HickoryConfig, reactor: &Reactor) -> Result<Self, NetError> {
        let servers = config
            .servers
            .iter()
            .map(|addr| Server::new(*addr, config.timeout, reactor));
        Ok(Self {
            servers: servers.collect::<Result<_, _>>()?,
            search: config.search_names(),
            ndots: config.ndots.into(),
            timeout: config.timeout,
            attempts: config.attempts.max(1),
        })
    }

    /// Looks up `host`, which is complete if it ends in a dot.
    pub(super) async fn look_up(&self, host: &str, family: Family) -> LookupAnswer {
        let candidates = self.candidates(host);
        if candidates.is_empty() {
            let why = format!("{host:?} is no name that the DNS could hold");
            return LookupAnswer::failed(LookupError::Failed(why));
        }
        let mut no_name = Duration::MAX;
        for name in &candidates {
            match self.ask(name, family).await {
                Ok(Verdict::NoName { ttl }) => no_name = no_name.min(ttl),
                Ok(verdict) => return verdict.into_answer(),
                Err(failures) => return LookupAnswer::failed(explain(&failures)),
            }
        }
        Verdict::NoName { ttl: no_name }.into_answer()
    }

    /// The names that `host` may stand for, in the order in which they are to be tried.
    fn candidates(&self, host: &str) -> Vec<Name> {
        // Label by label: hickory's parsers know escapes and rewrite what is not ASCII, neither of which is wanted of a URL's host.
        let complete = |host: &str| Name::from_labels(host.split('.').map(str::as_bytes)).ok();
        if let Some(host) = host.strip_suffix('.') {
            return complete(host).into_iter().collect();
        }
        let Some(as_is) = complete(host) else {
            return Vec::new();
        };
        let below = |domain: &Name| {
            let mut relative = as_is.clone();
            relative.set_fqdn(false);
            // Too long a name cannot exist.
            relative.append_domain(domain).ok()
        };
        let mut candidates: Vec<_> = self.search.iter().filter_map(below).collect();
        let place = match host.matches('.').count() >= self.ndots {
            true => 0,
            false => candidates.len(),
        };
        candidates.insert(place, as_is);
        candidates
    }

    /// Asks the servers for `name` until one has a verdict.
    async fn ask(&self, name: &Name, family: Family) -> Result<Verdict, Vec<Failed>> {
        let mut servers = self.in_order();
        let mut failures: Vec<Failed> = Vec::new();
        for _ in 0..self.attempts {
            // What may have passed is asked again, and its new failure takes the place of the old one.
            failures.retain(|failed| !failed.failure.may_pass());
            match self.race(&servers, name, family).await {
                Ok(verdict) => return Ok(verdict),
                Err(failed) => failures.extend(failed),
            }
            servers.retain(|server| {
                let of_server = failures.iter().find(|failed| failed.server == server.addr);
                of_server.is_none_or(|failed| failed.failure.may_pass())
            });
            if servers.is_empty() || failures.iter().any(Failed::is_exhaustion) {
                break;
            }
        }
        debug!("{name} {family:?}: {} servers failed", failures.len());
        Err(failures)
    }

    /// As given, but for those that were silent of late.
    fn in_order(&self) -> Vec<&Server> {
        let now = Instant::now();
        let mut servers: Vec<_> = self.servers.iter().collect();
        servers.sort_by_key(|server| server.is_passed_over(now));
        servers
    }

    /// One round: asks one server after the other, the next when one has failed or is silent, and takes the first verdict.
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
                Some(server) => asked.push(server.ask(name, family, self.timeout)),
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
}

/// Those asked before `winner` have been silent for longer than it.
fn pass_over_before(winner: SocketAddr, asked: &[Asked<'_>]) {
    let until = Instant::now() + PASSED_OVER;
    for silent in asked.iter().take_while(|one| one.server.addr != winner) {
        debug!(
            "{} is silent, and asked last for a while",
            silent.server.addr
        );
        silent.server.passed_over_until.set(Some(until));
    }
}

/// A server that has been asked, and its answer to come.
struct Asked<'a> {
    server: &'a Server,
    answer: Pin<Box<dyn Future<Output = Result<Verdict, Failure>> + 'a>>,
}

/// What happens next in a round.
enum Next {
    Verdict {
        server: SocketAddr,
        verdict: Verdict,
    },
    /// It is not among those asked any more.
    Failed(Failed),
    /// For longer than there is patience.
    Silence,
}

/// Waits for an answer of one of `asked`, and for the end of `patience` if there is one.
async fn next_of(asked: &mut Vec<Asked<'_>>, patience: Option<Sleep>) -> Next {
    let mut patience = std::pin::pin!(patience);
    std::future::poll_fn(|cx| {
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
                asked.remove(i);
                Next::Failed(Failed { server, failure })
            }
        });
    }
    Poll::Pending
}

/// One name server.
#[derive(Debug)]
struct Server {
    addr: SocketAddr,
    runtime: Runtime,
    timeout: Duration,
    resolver: Resolver<Runtime>,
    /// Asks without EDNS; made when the server first needs that, and from then on in place of the other.
    without_edns: OnceCell<Resolver<Runtime>>,
    passed_over_until: Cell<Option<Instant>>,
}

impl Server {
    fn new(addr: SocketAddr, timeout: Duration, reactor: &Reactor) -> Result<Self, NetError> {
        let runtime = Runtime::new(reactor, addr);
        let resolver = resolver(&runtime, addr, timeout, Edns::On)?;
        Ok(Self {
            addr,
            runtime,
            timeout,
            resolver,
            without_edns: OnceCell::new(),
            passed_over_until: Cell::new(None),
        })
    }

    fn is_passed_over(&self, now: Instant) -> bool {
        self.passed_over_until
            .get()
            .is_some_and(|until| until > now)
    }

    /// Begins to ask; the answer is there within `timeout`, aliases, TCP and a second question without EDNS included.
    fn ask<'a>(&'a self, name: &'a Name, family: Family, timeout: Duration) -> Asked<'a> {
        let answer = async move {
            let answer = within(timeout, self.ask_either_way(name, family)).await;
            answer.unwrap_or(Err(Failure::Mute))
        };
        Asked {
            server: self,
            answer: Box::pin(answer),
        }
    }

    async fn ask_either_way(&self, name: &Name, family: Family) -> Result<Verdict, Failure> {
        if let Some(resolver) = self.without_edns.get() {
            return self.ask_by(resolver, name, family).await;
        }
        match self.ask_by(&self.resolver, name, family).await {
            Err(failure) if failure.may_be_edns() => {
                let Ok(plain) = resolver(&self.runtime, self.addr, self.timeout, Edns::Off) else {
                    return Err(failure);
                };
                let verdict = self.ask_by(&plain, name, family).await?;
                debug!("{} does not speak EDNS", self.addr);
                // Another look-up may have found out in the meantime.
                let _ = self.without_edns.set(plain);
                Ok(verdict)
            }
            answer => answer,
        }
    }

    async fn ask_by(
        &self,
        resolver: &Resolver<Runtime>,
        name: &Name,
        family: Family,
    ) -> Result<Verdict, Failure> {
        match resolver.lookup(name.clone(), record_type(family)).await {
            Ok(found) => addresses(name, family, &found),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => negative(&none),
            Err(error) => Err(Failure::new(error, self.runtime.trouble().take())),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edns {
    On,
    Off,
}

/// hickory's resolver for one server. It keeps nothing, reads no hosts file, and asks once: all of that is done elsewhere.
fn resolver(
    runtime: &Runtime,
    addr: SocketAddr,
    timeout: Duration,
    edns: Edns,
) -> Result<Resolver<Runtime>, NetError> {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = addr.port();
        connection
    });
    let server = NameServerConfig::new(addr.ip(), true, connections.into());
    let config = ResolverConfig::from_name_servers(vec![server]);
    let mut builder = Resolver::builder_with_config(config, runtime.clone());
    let options: &mut ResolverOpts = builder.options_mut();
    options.timeout = timeout;
    options.attempts = 0;
    options.edns0 = edns == Edns::On;
    options.cache_size = 0;
    // One more than the largest, so that what is too large can still be told from it.
    let max_ttl = Duration::from_secs(u64::from(MAX_TTL_SECONDS) + 1);
    options.positive_max_ttl = Some(max_ttl);
    options.use_hosts_file = ResolveHosts::Never;
    // The letters' case, which a forger has to guess as well (draft-vixie-dnsext-dns0x20).
    options.case_randomization = true;
    options.max_active_requests = MAX_ON_CONNECTION;
    // The aliases of an answer bound how long it may be kept.
    options.preserve_intermediates = true;
    builder.build()
}
