//! Answers kept for their TTL, and a while longer for when no other is to be had (RFC 8767).
//!
//! - Addresses are kept for their TTL, a day at most as the engine comes; that there are none, or
//!   no such name, for what the zone's SOA says (RFC 2308 §5), five minutes at most. A TTL of zero,
//!   and a failure, leaves nothing.
//! - Addresses whose TTL is over are *stale*. They are the answer to a question that failed or
//!   takes too long. For the next 30 s they are the answer at once, so that servers in trouble are
//!   not asked by everybody all the time; then a question comes first again.
//! - That a name has no address of one family is stale in the same way, as long as it has some of
//!   the other: or else each of its questions would wait in vain beside the stale answer.
//! - Of too many names the one goes whose last answer expires first.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Both, FamilyAnswer};
use crate::resolver::{Family, LookupError};

const MAX_NAMES: usize = 4096;

/// The longest that "no such name" and "no such address" are kept: what is put right at the server
/// has to be seen soon.
const MAX_NEGATIVE: Duration = Duration::from_secs(300);

/// How long stale addresses *rest*, given at once: the failure recheck timer (RFC 8767 §5).
pub(super) const RECHECK: Duration = Duration::from_secs(30);

/// RFC 8767 §4: no TTL is longer. It also keeps the sums below what an `Instant` can hold.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

#[derive(Debug)]
pub(super) struct Cache {
    names: HashMap<Rc<str>, Both<Option<Kept>>>,
    /// Each name by when the last of its answers expires.
    order: BTreeSet<(Instant, Rc<str>)>,
    /// The longest that an answer is fresh.
    max_fresh: Duration,
    /// How much longer it may be used where there is no other.
    max_stale: Duration,
}

#[derive(Debug)]
struct Kept {
    /// Of errors, only that there is no such name.
    answer: FamilyAnswer,
    expires: Instant,
    /// Stale, it is given without a question until then.
    resting_until: Option<Instant>,
}

/// How things stand with one family of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Fresh(FamilyAnswer),
    /// To be used if a question brings nothing better.
    Stale(Rc<[IpAddr]>),
    /// Stale, and nothing better was to be had a moment ago.
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

    /// Keeps an answer in place of the one that was there.
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

    /// The stale answer to a question that has failed or takes too long. It rests from now on.
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

    /// How long it is still known that there is no such name, by the answer to the other family's
    /// question.
    pub(super) fn gone_for(&self, name: &str, family: Family, now: Instant) -> Option<Duration> {
        let other = self.names.get(name)?.of(family.other()).as_ref()?;
        let left = other.expires.saturating_duration_since(now);
        (other.answer == Err(LookupError::NotFound) && !left.is_zero()).then_some(left)
    }

    /// Whether stale addresses of this family, or that there are none, are not too old.
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

    /// Lets go what nobody may use any more, and of too many names the first to expire.
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

/// When the last of a name's answers expires.
fn expiry(answers: &Both<Option<Kept>>) -> Option<Instant> {
    let expires = |family| answers.of(family).as_ref().map(|kept: &Kept| kept.expires);
    expires(Family::V6).max(expires(Family::V4))
}

#[cfg(test)]
impl Cache {
    /// How many names there are, after a check of what holds between any two calls.
    pub(super) fn count(&self) -> usize {
        let order = self.names.iter().map(|(name, answers)| {
            let expiry = expiry(answers).expect("what is kept expires");
            (expiry, Rc::clone(name))
        });
        assert_eq!(self.order, order.collect());
        self.names.len()
    }
}
