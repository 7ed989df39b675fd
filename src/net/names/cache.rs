//! Keeps answers for their TTL, and for some time beyond it in case no other answer can be obtained
//! (RFC 8767).
//!
//! - Addresses are kept for their TTL, by default at most for a day. Negative answers, that a name
//!   does not exist or has no addresses, are kept for the time in the zone's SOA (RFC 2308 §5), at
//!   most five minutes. Answers with a TTL of zero, and failures, are not kept.
//! - Addresses whose TTL has expired are *stale*. They answer a question that failed or takes too
//!   long, and for the next 30 s they answer without a question, so that servers in trouble are not
//!   queried all the time. After that, a question comes first again.
//! - The answer that a name has no addresses of one family becomes stale in the same way, as long
//!   as there are addresses of the other. Otherwise each lookup would wait in vain although the
//!   other family has a stale answer.
//! - If there are too many names, the one whose last answer expires first is removed.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Both, FamilyAnswer};
use crate::resolver::{Family, LookupError};

const MAX_NAMES: usize = 4096;

/// The longest that a negative answer is kept: a correction at the server must be noticed soon.
const MAX_NEGATIVE: Duration = Duration::from_secs(300);

/// How long stale addresses *rest*, which means that they answer without a question: the failure
/// recheck timer (RFC 8767 §5).
pub(super) const RECHECK: Duration = Duration::from_secs(30);

/// RFC 8767 §4: no TTL is longer. This also keeps sums within the range of an `Instant`.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

#[derive(Debug)]
pub(super) struct Cache {
    names: HashMap<Rc<str>, Both<Option<Kept>>>,
    /// All names, ordered by when the last of their answers expires.
    order: BTreeSet<(Instant, Rc<str>)>,
    /// The longest that an answer is fresh.
    max_fresh: Duration,
    /// How much longer it may be used if there is no other.
    max_stale: Duration,
}

#[derive(Debug)]
struct Kept {
    /// The only error kept is that the name does not exist.
    answer: FamilyAnswer,
    expires: Instant,
    /// Until then, a stale answer is used without a question.
    resting_until: Option<Instant>,
}

/// The state of one family of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Fresh(FamilyAnswer),
    /// To be used if a question brings nothing better.
    Stale(Rc<[IpAddr]>),
    /// Stale, and a question has recently brought nothing better.
    Resting(Rc<[IpAddr]>),
    Unknown,
}

impl Cache {
    pub(super) fn new(max_fresh: Duration, max_stale: Duration) -> Self {
        Self {
            names: HashMap::new(),
            order: BTreeSet::new(),
            max_fresh: max_fresh.min(LONGEST),
            max_stale: max_stale.min(LONGEST),
        }
    }

    pub(super) fn clear(&mut self) {
        self.names.clear();
        self.order.clear();
    }

    pub(super) fn look(&self, name: &str, family: Family, now: Instant) -> Standing {
        let Some(answers) = self.names.get(name) else {
            return Standing::Unknown;
        };
        let Some(kept) = answers.of(family) else {
            return Standing::Unknown;
        };
        match &kept.answer {
            answer if now < kept.expires => Standing::Fresh(answer.clone()),
            Ok(addrs) if self.may_be_used(answers, family, now) => match kept.resting_until {
                Some(until) if now < until => Standing::Resting(Rc::clone(addrs)),
                Some(_) | None => Standing::Stale(Rc::clone(addrs)),
            },
            Ok(_) | Err(_) => Standing::Unknown,
        }
    }

    /// Stores an answer in place of the previous one.
    pub(super) fn keep(
        &mut self,
        name: &Rc<str>,
        family: Family,
        answer: &FamilyAnswer,
        ttl: Duration,
        now: Instant,
    ) {
        let longest = match answer {
            Ok(addrs) if !addrs.is_empty() => self.max_fresh,
            Ok(_) | Err(LookupError::NotFound) => self.max_fresh.min(MAX_NEGATIVE),
            Err(
                LookupError::NoAddress
                | LookupError::Timeout(_)
                | LookupError::Exhausted(_)
                | LookupError::Failed(_),
            ) => Duration::ZERO,
        };
        let ttl = ttl.min(longest);
        let mut answers = self.remove(name);
        *answers.of_mut(family) = (!ttl.is_zero()).then(|| Kept {
            answer: answer.clone(),
            expires: now + ttl,
            resting_until: None,
        });
        if let Some(expiry) = expiry(&answers) {
            self.order.insert((expiry, Rc::clone(name)));
            self.names.insert(Rc::clone(name), answers);
        }
        self.shrink(now);
    }

    /// Returns the stale answer to a question that has failed or takes too long. The answer rests
    /// from now on.
    pub(super) fn fall_back(
        &mut self,
        name: &str,
        family: Family,
        now: Instant,
    ) -> Option<Rc<[IpAddr]>> {
        let usable = match self.look(name, family, now) {
            Standing::Stale(addrs) | Standing::Resting(addrs) => addrs,
            Standing::Fresh(_) | Standing::Unknown => return None,
        };
        let kept = self.names.get_mut(name)?.of_mut(family).as_mut()?;
        kept.resting_until = Some(now + RECHECK);
        Some(usable)
    }

    /// Returns how long the name is still known not to exist, according to the answer for the other
    /// family.
    pub(super) fn gone_for(&self, name: &str, family: Family, now: Instant) -> Option<Duration> {
        let other = self.names.get(name)?.of(family.other()).as_ref()?;
        let left = other.expires.saturating_duration_since(now);
        (other.answer == Err(LookupError::NotFound) && !left.is_zero()).then_some(left)
    }

    /// Returns whether the stale answer for this family, addresses or none, is not too old.
    fn may_be_used(&self, answers: &Both<Option<Kept>>, family: Family, now: Instant) -> bool {
        let has_addresses = |family| {
            answers.of(family).as_ref().is_some_and(|kept| {
                let addrs = kept.answer.as_ref();
                now < kept.expires + self.max_stale && addrs.is_ok_and(|addrs| !addrs.is_empty())
            })
        };
        let is_negative = |kept: &Kept| kept.answer.as_ref().is_ok_and(|addrs| addrs.is_empty());
        match answers.of(family) {
            Some(kept) if is_negative(kept) => {
                now < kept.expires + self.max_stale && has_addresses(family.other())
            }
            Some(_) | None => has_addresses(family),
        }
    }

    fn remove(&mut self, name: &Rc<str>) -> Both<Option<Kept>> {
        let answers = self.names.remove(name).unwrap_or_default();
        if let Some(expiry) = expiry(&answers) {
            self.order.remove(&(expiry, Rc::clone(name)));
        }
        answers
    }

    /// Removes names that are too old to be used and, if there are too many, those that expire
    /// first.
    fn shrink(&mut self, now: Instant) {
        while let Some((expiry, name)) = self.order.first() {
            if self.names.len() <= MAX_NAMES && now < *expiry + self.max_stale {
                break;
            }
            let name = Rc::clone(name);
            self.remove(&name);
        }
    }
}

/// Returns when the last of a name's answers expires.
fn expiry(answers: &Both<Option<Kept>>) -> Option<Instant> {
    let expires = |family| answers.of(family).as_ref().map(|kept: &Kept| kept.expires);
    expires(Family::V6).max(expires(Family::V4))
}

#[cfg(test)]
impl Cache {
    /// Returns how many names there are, after checking the invariants.
    pub(super) fn count(&self) -> usize {
        let order = self.names.iter().map(|(name, answers)| {
            let expiry = expiry(answers).expect("a name that is kept has an expiry");
            (expiry, Rc::clone(name))
        });
        assert_eq!(self.order, order.collect());
        self.names.len()
    }
}
