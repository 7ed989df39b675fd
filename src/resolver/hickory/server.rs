//! One name server: how a question is sent to it, and which features are used.
//!
//! The first datagram of a question carries an OPT record (EDNS) and spells the name with random
//! case. Some servers cannot handle one or the other, so these features are dropped step by step:
//!
//! - **EDNS**: a repeated datagram has no OPT record. After FORMERR, NOTIMP or BADVERS, the next
//!   datagram goes out at once, without one. The same applies after SERVFAIL, REFUSED or an
//!   unreadable answer, unless the server has already answered a question with an OPT record
//!   properly. A server that answers only without an OPT record gets none for the next
//!   [`DEGRADED`].
//! - **Spelling**: an answer in a different spelling is either forged or comes from a server that
//!   does not preserve the case. The question is repeated over TCP, where forging is hard. If that
//!   fails, it is repeated in the given spelling, and so are others for the next [`DEGRADED`].
//! - **TCP** is used for answers that do not fit into a datagram, or for everything if the
//!   configuration says so. If it fails, the records of the truncated answer are used.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use hickory_resolver::net::NetError;
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle, FirstAnswer};
use hickory_resolver::proto::op::{DnsRequest, Message, Query};
use hickory_resolver::proto::rr::Name;
use log::debug;

use super::reactor::{Reactor, Sleep, within};
use super::runtime::Runtime;
use super::udp::{self, Edns0, Reply, Spelling, UnmatchedCount, Wire};
use super::verdict::{Failure, Finding, Verdict, judge, record_type};
use crate::resolver::Family;

/// The interval after which an unanswered datagram is repeated.
const RESEND: Duration = Duration::from_millis(333);

/// Datagrams per attempt.
const DATAGRAMS: usize = 3;

/// How long a feature that a server failed on is not used with it.
const DEGRADED: Duration = Duration::from_secs(300);

/// How long to wait for a complete answer over TCP if the truncated one is usable.
const WHOLE: Duration = Duration::from_secs(1);

/// Concurrent questions on one TCP connection. This is far more than the engine has in progress,
/// since hickory fails any beyond the limit.
const MAX_ON_CONNECTION: usize = 1024;

/// How many aliases are followed with a question of their own.
const MAX_ALIASES: usize = 8;

/// One name server.
pub(super) struct Server {
    pub(super) addr: SocketAddr,
    runtime: Runtime,
    timeout: Duration,
    transport: Transport,
    edns: Cell<Edns>,
    plain_letters_until: Cell<Option<Instant>>,
    connection: RefCell<Option<DnsExchange<Runtime>>>,
    strangers: UnmatchedCount,
    passed_over_until: Cell<Option<Instant>>,
}

/// The transport that a server is first asked over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What is known about a server's support of EDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edns {
    Unknown,
    /// The server has properly answered a question with an OPT record.
    Spoken,
    /// The server has answered without an OPT record, but not with one.
    Refused {
        until: Instant,
    },
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + 'a>>;

impl Server {
    pub(super) fn new(
        addr: SocketAddr,
        timeout: Duration,
        transport: Transport,
        reactor: &Reactor,
    ) -> Self {
        Self {
            addr,
            runtime: Runtime::new(reactor, addr),
            timeout,
            transport,
            edns: Cell::new(Edns::Unknown),
            plain_letters_until: Cell::new(None),
            connection: RefCell::default(),
            strangers: UnmatchedCount::default(),
            passed_over_until: Cell::new(None),
        }
    }

    pub(super) fn is_passed_over(&self, now: Instant) -> bool {
        self.passed_over_until
            .get()
            .is_some_and(|until| until > now)
    }

    pub(super) fn pass_over_until(&self, until: Instant) {
        self.passed_over_until.set(Some(until));
    }

    /// Asks the server for `name`. The timeout includes aliases that the server does not follow
    /// itself, repeated datagrams, and TCP.
    pub(super) async fn ask(&self, name: &Name, family: Family) -> Result<Verdict, Failure> {
        let answer = within(self.timeout, self.ask_along(name, family)).await;
        answer.unwrap_or(Err(Failure::Unresponsive))
    }

    /// Asks for `name` and follows aliases that the server does not follow itself.
    async fn ask_along(&self, name: &Name, family: Family) -> Result<Verdict, Failure> {
        let mut alias_ttl = Duration::MAX;
        let mut name = name.clone();
        for _ in 0..MAX_ALIASES {
            match self.ask_for(&name, family).await? {
                Finding::Alias { target, ttl } => {
                    alias_ttl = alias_ttl.min(ttl);
                    name = target;
                }
                Finding::Verdict(verdict) => return Ok(verdict.at_most(alias_ttl)),
                Finding::Truncated(Some(verdict)) => return Ok(verdict.at_most(alias_ttl)),
                Finding::Truncated(None) => {
                    return Err(Failure::Unusable("truncated".to_owned()));
                }
            }
        }
        // A loop, or a chain that is deliberately endless.
        Ok(Verdict::NoData {
            ttl: Duration::ZERO,
        })
    }

    async fn ask_for(&self, name: &Name, family: Family) -> Result<Finding, Failure> {
        if self.transport == Transport::Tcp {
            return self.ask_by_tcp(name, family).await;
        }
        let judged = match self.ask_by_udp(name, family, self.spelling()).await? {
            Some(judged) => judged,
            None => match within(self.patience(), self.ask_by_tcp(name, family)).await {
                Some(Ok(judged)) => judged,
                Some(Err(failure)) if failure.is_exhaustion() => return Err(failure),
                Some(Err(_)) | None => {
                    debug!("{} does not preserve the spelling of a question", self.addr);
                    let until = Instant::now() + DEGRADED;
                    self.plain_letters_until.set(Some(until));
                    let again = self.ask_by_udp(name, family, Spelling::AsGiven).await?;
                    again.ok_or_else(|| {
                        Failure::Unusable("it spells the name differently".to_owned())
                    })?
                }
            },
        };
        let Finding::Truncated(part) = judged else {
            return Ok(judged);
        };
        let patience = match &part {
            Some(_) => self.patience(),
            None => self.timeout,
        };
        let whole = within(patience, self.ask_by_tcp(name, family)).await;
        match (whole.unwrap_or(Err(Failure::Unresponsive)), part) {
            (Ok(Finding::Truncated(None)), Some(part)) => Ok(Finding::Verdict(part)),
            (Ok(whole), _) => Ok(whole),
            (Err(failure), Some(part)) => {
                debug!(
                    "{}: using a truncated answer, since TCP failed: {failure:?}",
                    self.addr
                );
                Ok(Finding::Verdict(part))
            }
            (Err(failure), None) => Err(failure.of_the_rest()),
        }
    }

    /// Returns how long TCP may take if there is an alternative, which needs part of the timeout
    /// too.
    fn patience(&self) -> Duration {
        WHOLE.min(self.timeout / 2)
    }

    fn spelling(&self) -> Spelling {
        match self.plain_letters_until.get() {
            Some(until) if Instant::now() < until => Spelling::AsGiven,
            Some(_) | None => Spelling::Random,
        }
    }

    // ---- UDP ------------------------------------------------------------------------------------

    /// Sends up to [`DATAGRAMS`] datagrams and returns the first answer to any of them, or `None`
    /// if that answer was spelled differently.
    async fn ask_by_udp(
        &self,
        name: &Name,
        family: Family,
        spelling: Spelling,
    ) -> Result<Option<Finding>, Failure> {
        let mut edns = match self.edns.get() {
            Edns::Refused { until } if Instant::now() < until => Edns0::Without,
            Edns::Refused { .. } => {
                self.edns.set(Edns::Unknown);
                Edns0::With
            }
            Edns::Unknown | Edns::Spoken => Edns0::With,
        };
        let began_with = edns;
        let mut refused = None;
        let mut left = DATAGRAMS;
        let mut sent: Vec<(Edns0, Answer<'_, Option<Finding>>)> = Vec::new();
        loop {
            if let Some(fewer) = left.checked_sub(1) {
                left = fewer;
                sent.push((edns, Box::pin(self.send(name, family, edns, spelling))));
                edns = Edns0::Without;
            } else if sent.is_empty() {
                return Err(refused.unwrap_or(Failure::Unresponsive));
            }
            let next = (left > 0).then(|| Sleep::new(RESEND));
            let Some((of, answer)) = next_of(&mut sent, next).await else {
                continue;
            };
            match (of, answer) {
                // The next datagram goes out at once, instead of when this one would be repeated.
                (Edns0::With, Err(failure)) if self.may_be_edns(&failure) => {
                    refused = Some(failure);
                }
                (Edns0::With, answer) => {
                    if matches!(answer, Ok(Some(_))) {
                        self.edns.set(Edns::Spoken);
                    }
                    return answer;
                }
                (Edns0::Without, answer) => {
                    let is_proven = matches!(answer, Ok(Some(_))) && began_with == Edns0::With;
                    // The datagram with the OPT record may simply have been lost. This is assumed
                    // if the server has supported EDNS before.
                    if is_proven && (refused.is_some() || self.edns.get() == Edns::Unknown) {
                        debug!("{} does not support EDNS", self.addr);
                        let until = Instant::now() + DEGRADED;
                        self.edns.set(Edns::Refused { until });
                    }
                    return answer;
                }
            }
        }
    }

    fn may_be_edns(&self, failure: &Failure) -> bool {
        failure.is_edns() || failure.may_be_edns() && self.edns.get() != Edns::Spoken
    }

    async fn send(
        &self,
        name: &Name,
        family: Family,
        edns: Edns0,
        spelling: Spelling,
    ) -> Result<Option<Finding>, Failure> {
        let question = Wire::new(name, family, edns, spelling)?;
        let reactor = self.runtime.reactor();
        match udp::ask(reactor, self.addr, question, &self.strangers).await? {
            Reply::Answer(message) => judge(name, family, &message).map(Some),
            Reply::Respelled => Ok(None),
        }
    }

    // ---- TCP ------------------------------------------------------------------------------------

    /// Asks over TCP, without EDNS, since TCP has room for any answer.
    async fn ask_by_tcp(&self, name: &Name, family: Family) -> Result<Finding, Failure> {
        let query = Query::query(name.clone(), record_type(family));
        let mut message = Message::query();
        message.add_query(query.clone());
        message.metadata.recursion_desired = true;
        // Discards the error of an earlier connection.
        drop(self.runtime.trouble().take());
        let kept = self.connection.borrow().clone();
        let answer = match kept {
            Some(connection) => match Self::send_on(&connection, message.clone()).await {
                Ok(answer) => Ok(answer),
                Err(NetError::Timeout) => Err(NetError::Timeout),
                // The server may have closed it long ago.
                Err(_) => {
                    *self.connection.borrow_mut() = None;
                    drop(self.runtime.trouble().take());
                    self.send_on_new(message).await
                }
            },
            None => self.send_on_new(message).await,
        };
        let message = answer.map_err(|error| Failure::new(error, self.runtime.trouble().take()))?;
        if message.queries.first().is_some_and(|other| *other != query) {
            return Err(Failure::Unusable(
                "it answers a different question".to_owned(),
            ));
        }
        judge(name, family, &message)
    }

    async fn send_on_new(&self, message: Message) -> Result<Message, NetError> {
        let connection = TcpClientStream::exchange(
            self.addr,
            None,
            self.timeout,
            Some(MAX_ON_CONNECTION),
            self.runtime.clone(),
        )
        .await?;
        // A concurrent question may have opened a connection too. The last one is kept.
        *self.connection.borrow_mut() = Some(connection.clone());
        Self::send_on(&connection, message).await
    }

    async fn send_on(
        connection: &DnsExchange<Runtime>,
        message: Message,
    ) -> Result<Message, NetError> {
        let response = connection
            .send(DnsRequest::from(message))
            .first_answer()
            .await?;
        Ok(response.into_message())
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("addr", &self.addr)
            .field("edns", &self.edns)
            .field("passed_over_until", &self.passed_over_until)
            .finish_non_exhaustive()
    }
}

/// Waits for an answer to one of `sent`, which is removed from it, or until `until` completes.
async fn next_of<K: Copy, T>(
    sent: &mut Vec<(K, Answer<'_, T>)>,
    until: Option<Sleep>,
) -> Option<(K, Result<T, Failure>)> {
    let mut until = std::pin::pin!(until);
    poll_fn(|cx| {
        for i in 0..sent.len() {
            if let Poll::Ready(answer) = sent[i].1.as_mut().poll(cx) {
                let (of, _) = sent.remove(i);
                return Poll::Ready(Some((of, answer)));
            }
        }
        match until.as_mut().as_pin_mut() {
            Some(sleep) => sleep.poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}
