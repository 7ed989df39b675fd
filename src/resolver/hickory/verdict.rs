//! What a server's answer comes to, in this crate's words.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use crate::error::is_exhaustion;
use crate::resolver::{Family, LookupAnswer, LookupError};

/// The largest TTL there is: greater ones count as zero (RFC 2181 §8).
pub(super) const MAX_TTL_SECONDS: u32 = i32::MAX as u32;

/// What the DNS has for a name, in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Addresses {
        addresses: Vec<IpAddr>,
        /// The smallest of all records on the way from the name to these.
        ttl: Duration,
    },
    /// NODATA: the name exists, and has no address of the family. Kept as long as the zone's SOA allows (RFC 2308 §5).
    NoData { ttl: Duration },
    /// NXDOMAIN, likewise.
    NoName { ttl: Duration },
}

impl Verdict {
    pub(super) fn into_answer(self) -> LookupAnswer {
        match self {
            Verdict::Addresses { addresses, ttl } => LookupAnswer::found(addresses).kept_for(ttl),
            Verdict::NoData { ttl } => LookupAnswer::found([]).kept_for(ttl),
            Verdict::NoName { ttl } => LookupAnswer::failed(LookupError::NotFound).kept_for(ttl),
        }
    }
}

/// Why a server gave none.
#[derive(Debug)]
pub(super) enum Failure {
    /// It did not answer in time.
    Mute,
    /// It said no, and would again.
    Refused(ResponseCode),
    /// A referral elsewhere: it does not look names up for others.
    Referral,
    Socket(io::Error),
    /// An answer from which nothing can be learnt, in hickory's words or ours.
    Unusable(String),
}

impl Failure {
    /// Of hickory's `error`, and of the socket that it may have had `trouble` with.
    pub(super) fn new(error: NetError, trouble: Option<io::Error>) -> Self {
        match (error, trouble) {
            (NetError::Timeout, _) => Failure::Mute,
            (NetError::Dns(DnsError::ResponseCode(code)), _) => Failure::Refused(code),
            (NetError::Truncated, Some(trouble)) if !is_exhaustion(&trouble) => {
                Failure::Unusable(format!("it is cut short, and over TCP: {trouble}"))
            }
            (NetError::NoConnections | NetError::Io(_) | NetError::Truncated, Some(trouble)) => {
                Failure::Socket(trouble)
            }
            (NetError::Io(error), None) => Failure::Socket(error.kind().into()),
            (error, _) => Failure::Unusable(error.to_string()),
        }
    }

    /// Whether asking the same server once more might help.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Failure::Mute | Failure::Socket(_) | Failure::Unusable(_) => true,
            Failure::Refused(_) | Failure::Referral => false,
        }
    }

    /// Whether the server may have stumbled over the question's EDNS (RFC 6891 §6.2.2, §7).
    pub(super) fn may_be_edns(&self) -> bool {
        use ResponseCode::{BADVERS, FormErr, NotImp};
        matches!(self, Failure::Refused(FormErr | NotImp | BADVERS))
    }
}

/// One server's failure.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) server: SocketAddr,
    pub(super) failure: Failure,
}

impl Failed {
    /// Whether it is this machine that is short of something.
    pub(super) fn is_exhaustion(&self) -> bool {
        matches!(&self.failure, Failure::Socket(error) if is_exhaustion(error))
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = self.server;
        match &self.failure {
            Failure::Mute => write!(f, "no answer from {server}"),
            Failure::Refused(code) => write!(f, "{} from {server}", Mnemonic(*code)),
            Failure::Referral => write!(f, "a referral from {server}"),
            Failure::Socket(error) => write!(f, "{server}: {error}"),
            Failure::Unusable(why) => write!(f, "unusable answer from {server}: {why}"),
        }
    }
}

/// A response code as RFCs, logs and other tools write it; hickory has sentences.
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
            // What no server says of a query for addresses, but might.
            code => write!(f, "RCODE {}", u16::from(code)),
        }
    }
}

/// What is told of a look-up that no server had a verdict on.
pub(super) fn explain(failures: &[Failed]) -> LookupError {
    let list = |one: fn(&Failed) -> String, between: &str| {
        let each: Vec<_> = failures.iter().map(one).collect();
        each.join(between)
    };
    if let Some(failed) = failures.iter().find(|failed| failed.is_exhaustion()) {
        LookupError::Exhausted(failed.to_string())
    } else if failures.is_empty() {
        LookupError::Failed("no name server is configured".into())
    } else if failures.iter().all(|f| matches!(f.failure, Failure::Mute)) {
        LookupError::Timeout(list(|f| f.server.to_string(), ", "))
    } else {
        LookupError::Failed(list(Failed::to_string, "; "))
    }
}

/// The addresses at the end of the chain of aliases that starts at `name`.
///
/// hickory answers with all records of the answer section, among which a server may have put anything.
pub(super) fn addresses(name: &Name, family: Family, found: &Lookup) -> Result<Verdict, Failure> {
    let records = found.answers();
    let (name, alias_ttl) = follow(name, records);
    let mut ttl = alias_ttl;
    let mut addresses = Vec::new();
    for record in records.iter().filter(|record| record.name == *name) {
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
    if addresses.is_empty() {
        return Err(Failure::Unusable(format!("nothing in it is about {name}")));
    }
    Ok(Verdict::Addresses { addresses, ttl })
}

/// Aliases that are followed in one answer: chains have two or three, and a longer one is a loop or made to be one.
const MAX_ALIASES: usize = 16;

/// Follows aliases from `name` as far as `records` lead; also the smallest TTL on the way.
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

/// The verdict in an answer without records, where it has one.
pub(super) fn negative(none: &NoRecords) -> Result<Verdict, Failure> {
    let ttl = none.negative_ttl.map_or(Duration::ZERO, ttl);
    match none.response_code {
        ResponseCode::NXDomain => Ok(Verdict::NoName { ttl }),
        // Both NODATA and a referral have no answer; name servers without an SOA make a referral (RFC 2308 §2.2).
        ResponseCode::NoError if none.soa.is_none() && none.ns.is_some() => Err(Failure::Referral),
        ResponseCode::NoError => Ok(Verdict::NoData { ttl }),
        code => Err(Failure::Refused(code)),
    }
}

fn ttl(seconds: u32) -> Duration {
    match seconds {
        0..=MAX_TTL_SECONDS => Duration::from_secs(seconds.into()),
        _ => Duration::ZERO,
    }
}

/// The record type that has addresses of `family`.
pub(super) fn record_type(family: Family) -> RecordType {
    match family {
        Family::V4 => RecordType::A,
        Family::V6 => RecordType::AAAA,
    }
}
