//! Interprets the answers of servers in terms of this crate.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::io_error::is_exhaustion;
use crate::resolver::{Family, LookupAnswer, LookupError};

/// The largest valid TTL. Larger ones count as zero (RFC 2181 §8).
const MAX_TTL_SECONDS: u32 = i32::MAX as u32;

/// What the DNS contains for a name, in one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Addresses {
        addresses: Vec<IpAddr>,
        /// The smallest TTL of all records from the name to these addresses.
        ttl: Duration,
    },
    /// NODATA: the name exists but has no address of this family. The TTL comes from the zone's SOA
    /// (RFC 2308 §5).
    NoData { ttl: Duration },
    /// NXDOMAIN, with a TTL from the same source.
    NoName { ttl: Duration },
}

impl Verdict {
    /// Limits the TTL to that of an alias that led here.
    pub(super) fn at_most(mut self, alias_ttl: Duration) -> Self {
        let (Verdict::Addresses { ttl, .. } | Verdict::NoData { ttl } | Verdict::NoName { ttl }) =
            &mut self;
        *ttl = alias_ttl.min(*ttl);
        self
    }

    pub(super) fn into_answer(self) -> LookupAnswer {
        match self {
            Verdict::Addresses { addresses, ttl } => LookupAnswer::found(addresses).kept_for(ttl),
            Verdict::NoData { ttl } => LookupAnswer::found([]).kept_for(ttl),
            Verdict::NoName { ttl } => LookupAnswer::failed(LookupError::NotFound).kept_for(ttl),
        }
    }
}

/// Why a server gave no verdict.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server did not answer in time.
    Unresponsive,
    /// The server answered with an error code.
    Refused(ResponseCode),
    /// The server referred to other servers: it does not resolve names recursively.
    Referral,
    Socket(io::Error),
    /// The answer is unusable, for the reason given by hickory or by this module.
    Unusable(String),
}

impl Failure {
    /// Converts hickory's `error` on a connection, or the socket error behind it if one was
    /// recorded.
    pub(super) fn new(error: NetError, trouble: Option<io::Error>) -> Self {
        match (error, trouble) {
            (NetError::Timeout, None) => Failure::Unresponsive,
            (_, Some(trouble)) => Failure::Socket(trouble),
            (NetError::Io(error), None) if error.kind() == io::ErrorKind::TimedOut => {
                Failure::Unresponsive
            }
            (NetError::Io(error), None) => Failure::Socket(error.kind().into()),
            (error, None) => Failure::Unusable(error.to_string()),
        }
    }

    /// Returns whether the server certainly failed because of the question's OPT record (RFC 6891
    /// §6.1.3, §7).
    pub(super) fn is_edns(&self) -> bool {
        use ResponseCode::{BADVERS, FormErr, NotImp};
        matches!(self, Failure::Refused(FormErr | NotImp | BADVERS))
    }

    /// Returns whether the OPT record may be the cause. Some servers answer SERVFAIL or REFUSED to
    /// anything they do not support, or send an unreadable answer.
    pub(super) fn may_be_edns(&self) -> bool {
        match self {
            Failure::Refused(_) | Failure::Unusable(_) => true,
            Failure::Unresponsive | Failure::Referral | Failure::Socket(_) => false,
        }
    }

    /// Returns whether a local resource is exhausted.
    pub(super) fn is_exhaustion(&self) -> bool {
        matches!(self, Failure::Socket(error) if is_exhaustion(error))
    }

    /// Converts the failure of TCP after a truncated answer.
    pub(super) fn of_the_rest(self) -> Self {
        let why = match self {
            failure if failure.is_exhaustion() => return failure,
            Failure::Unresponsive => "no answer".to_owned(),
            Failure::Refused(code) => Mnemonic(code).to_string(),
            Failure::Referral => "a referral".to_owned(),
            Failure::Socket(error) => error.to_string(),
            Failure::Unusable(why) => why,
        };
        Failure::Unusable(format!("truncated, and TCP failed: {why}"))
    }
}

/// One server's failure.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) server: SocketAddr,
    pub(super) failure: Failure,
}

impl Failed {
    pub(super) fn is_exhaustion(&self) -> bool {
        self.failure.is_exhaustion()
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = self.server;
        match &self.failure {
            Failure::Unresponsive => write!(f, "no answer from {server}"),
            Failure::Refused(code) => write!(f, "{} from {server}", Mnemonic(*code)),
            Failure::Referral => write!(f, "a referral from {server}"),
            Failure::Socket(error) => write!(f, "{server}: {error}"),
            Failure::Unusable(why) => write!(f, "unusable answer from {server}: {why}"),
        }
    }
}

/// A response code, written as in RFCs, logs and other tools. hickory writes sentences.
struct Mnemonic(ResponseCode);

impl fmt::Display for Mnemonic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ResponseCode::FormErr => f.write_str("FORMERR"),
            ResponseCode::ServFail => f.write_str("SERVFAIL"),
            ResponseCode::NotImp => f.write_str("NOTIMP"),
            ResponseCode::Refused => f.write_str("REFUSED"),
            ResponseCode::NotAuth => f.write_str("NOTAUTH"),
            ResponseCode::BADVERS => f.write_str("BADVERS"),
            // Codes that no server is known to return for an address query.
            code => write!(f, "RCODE {}", u16::from(code)),
        }
    }
}

/// Returns the error of a lookup for which no server had a verdict. `under` is the name that was
/// asked for, if it differs from the host.
pub(super) fn explain(failures: &[Failed], under: Option<&Name>) -> LookupError {
    let list = |one: fn(&Failed) -> String, between: &str| {
        let each: Vec<_> = failures.iter().map(one).collect();
        each.join(between)
    };
    if let Some(failed) = failures.iter().find(|failed| failed.is_exhaustion()) {
        LookupError::Exhausted(failed.to_string())
    } else if failures.is_empty() {
        LookupError::Failed("no name server is configured".into())
    } else if failures
        .iter()
        .all(|f| matches!(f.failure, Failure::Unresponsive))
    {
        LookupError::Timeout(list(|f| f.server.to_string(), ", "))
    } else {
        let why = list(Failed::to_string, "; ");
        LookupError::Failed(match under {
            Some(name) => format!("{}: {why}", name.to_ascii().trim_end_matches('.')),
            None => why,
        })
    }
}

/// The meaning of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Verdict(Verdict),
    /// The answer ends at an alias for this name, whose addresses have to be asked for.
    Alias {
        target: Name,
        ttl: Duration,
    },
    /// The answer did not fit into a datagram. Holds the verdict that follows from the part that
    /// did.
    Truncated(Option<Verdict>),
}

/// Interprets what `message` says about `name`. The caller has checked that it answers that
/// question.
///
/// A server may put any records into the answer section. Only the addresses at the end of the chain
/// of aliases that starts at `name` count.
pub(super) fn judge(name: &Name, family: Family, message: &Message) -> Result<Finding, Failure> {
    let code = message.response_code;
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return Err(Failure::Refused(code));
    }
    let (end, alias_ttl) = follow(name, &message.answers);
    let (addresses, ttl) = addresses(end, family, &message.answers, alias_ttl);
    if !addresses.is_empty() && code == ResponseCode::NoError {
        let verdict = Verdict::Addresses { addresses, ttl };
        return Ok(if message.truncation {
            Finding::Truncated(Some(verdict))
        } else {
            Finding::Verdict(verdict)
        });
    }
    if message.truncation {
        return Ok(Finding::Truncated(None));
    }
    let soa = negative_ttl(message);
    if end != name && soa.is_none() {
        return Ok(Finding::Alias {
            target: end.clone(),
            ttl: alias_ttl,
        });
    }
    let ttl = soa.unwrap_or_default().min(alias_ttl);
    if code == ResponseCode::NXDomain {
        return Ok(Finding::Verdict(Verdict::NoName { ttl }));
    }
    if message.answers.is_empty() && soa.is_none() {
        let is_ns = |record: &Record| record.record_type() == RecordType::NS;
        // Neither NODATA nor a referral has answer records; name servers without an SOA make it a
        // referral (RFC 2308 §2.2). As in glibc, a server is lame if it is not authoritative,
        // offers no recursion and sends no records at all.
        let is_lame = !message.authoritative
            && !message.recursion_available
            && message.additionals.is_empty()
            && message.edns.is_none();
        if is_lame || message.authorities.iter().any(is_ns) {
            return Err(Failure::Referral);
        }
    }
    let is_about = |record: &Record| record.name == *end;
    if message.answers.is_empty() || end != name || message.answers.iter().any(is_about) {
        Ok(Finding::Verdict(Verdict::NoData { ttl }))
    } else {
        Err(Failure::Unusable(format!(
            "it contains no record for {name}"
        )))
    }
}

/// Returns the addresses of `name` among `records`, and the smallest of their TTLs and `ttl`.
fn addresses(
    name: &Name,
    family: Family,
    records: &[Record],
    mut ttl: Duration,
) -> (Vec<IpAddr>, Duration) {
    let mut addresses = Vec::new();
    let of_name = |record: &&Record| record.name == *name && record.dns_class == DNSClass::IN;
    for record in records.iter().filter(of_name) {
        let ip = match &record.data {
            RData::A(a) => IpAddr::V4(a.0),
            RData::AAAA(aaaa) => IpAddr::V6(aaaa.0),
            _ => continue,
        };
        if family.has(&ip) {
            addresses.push(ip);
            ttl = ttl.min(self::ttl(record.ttl));
        }
    }
    (addresses, ttl)
}

/// Returns how long NXDOMAIN or NODATA may be cached, according to the zone's SOA (RFC 2308 §5).
fn negative_ttl(message: &Message) -> Option<Duration> {
    message
        .authorities
        .iter()
        .find_map(|record| match &record.data {
            RData::SOA(soa) => Some(ttl(record.ttl.min(soa.minimum))),
            _ => None,
        })
}

/// How many aliases are followed in one answer. Real chains have two or three; a longer one is a
/// loop or an attack.
const MAX_ALIASES: usize = 16;

/// Follows aliases from `name` as far as `records` lead. Also returns the smallest TTL on the way.
fn follow<'a>(name: &'a Name, records: &'a [Record]) -> (&'a Name, Duration) {
    let (mut name, mut smallest) = (name, Duration::MAX);
    for _ in 0..MAX_ALIASES {
        let alias = records.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *name => Some((&target.0, record.ttl)),
            _ => None,
        });
        let Some((target, seconds)) = alias else {
            break;
        };
        name = target;
        smallest = smallest.min(ttl(seconds));
    }
    (name, smallest)
}

fn ttl(seconds: u32) -> Duration {
    match seconds {
        0..=MAX_TTL_SECONDS => Duration::from_secs(seconds.into()),
        _ => Duration::ZERO,
    }
}

/// Returns the type of records that contain addresses of `family`.
pub(super) fn record_type(family: Family) -> RecordType {
    match family {
        Family::V4 => RecordType::A,
        Family::V6 => RecordType::AAAA,
    }
}
