//! What sessions send again: their rules, the waits that servers ask for, and the budget.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpstream::ErrorKind;
use httpstream::session::Retry;
use httpstream::sim::Random;

use crate::lanes::MAX_HOLD;
use crate::plan::{MS, SECOND};

/// The statuses with which servers turn requests away.
pub(crate) const TROUBLES: [u16; 9] = [429, 429, 429, 408, 425, 500, 502, 503, 504];

/// The statuses after which a session sends a request again by default.
const STATUSES: [u16; 7] = [408, 425, 429, 500, 502, 503, 504];

/// What a session sends again, and when.
#[derive(Clone, Debug)]
pub(crate) struct RetryRules {
    /// `None` means any number.
    pub(crate) attempts: Option<u32>,
    base: Duration,
    pub(crate) cap: Duration,
    floor: Option<Duration>,
    max_wait: Option<Duration>,
    statuses: Vec<u16>,
    budget: f32,
    /// Bodies may ask for a wait: see [`wait_in`].
    pub(crate) reads_bodies: bool,
    /// The number of the budget. Two sessions may share one.
    pub(crate) purse: usize,
}

impl RetryRules {
    pub(crate) fn draw(random: &mut Random, purse: usize) -> Self {
        let attempts = *random.pick(&[None, Some(1), Some(2), Some(3), Some(5), Some(5)]);
        // Without a bound on the attempts, short waits would fill the run.
        let base = match attempts {
            None => *random.pick(&[200 * MS, SECOND]),
            Some(_) => *random.pick(&[MS, 20 * MS, 500 * MS, 3 * SECOND]),
        };
        let statuses = match random.chance(300) {
            true => {
                let some = STATUSES.iter().filter(|_| random.chance(500));
                some.copied().collect()
            }
            false => STATUSES.to_vec(),
        };
        Self {
            attempts,
            base,
            cap: base * *random.pick(&[1, 4, 20]),
            floor: (random.chance(300)).then(|| *random.pick(&[Duration::ZERO, 10 * MS, SECOND])),
            max_wait: (random.chance(500))
                .then(|| *random.pick(&[Duration::ZERO, SECOND, 5 * SECOND, 60 * SECOND])),
            statuses,
            budget: *random.pick(&[0.0, 0.2, 0.2, 1.0, f32::INFINITY, f32::INFINITY]),
            reads_bodies: random.chance(350),
            purse,
        }
    }

    pub(crate) fn build(&self) -> Retry {
        let retry = match self.attempts {
            Some(most) => Retry::attempts(most),
            None => Retry::forever(),
        };
        let mut retry = retry
            .backoff(self.base, self.cap)
            .statuses(self.statuses.iter().copied())
            .budget(self.budget);
        if let Some(floor) = self.floor {
            retry = retry.floor(floor);
        }
        if let Some(most) = self.max_wait {
            retry = retry.max_wait(most);
        }
        if self.reads_bodies {
            retry = retry.wait_from(|response| wait_in(response.body()));
        }
        retry
    }

    /// Returns the longest wait that a server may ask for.
    pub(crate) fn longest(&self) -> Duration {
        self.max_wait.unwrap_or(self.cap)
    }

    /// Returns the longest wait that a server may ask for with this status. `holds` is whether it
    /// holds back the lane of the request.
    pub(crate) fn longest_after(&self, status: Option<u16>, holds: bool) -> Duration {
        match self.max_wait {
            None if status == Some(429) && holds => self.cap.max(MAX_HOLD),
            _ => self.longest(),
        }
    }

    /// Returns whether a request that got this status may be sent again.
    pub(crate) fn repeats(&self, status: u16, is_idempotent: bool) -> bool {
        self.statuses.contains(&status) && (is_idempotent || is_unprocessed(status))
    }

    /// Returns whether a request that has failed this often may be sent again.
    pub(crate) fn allows(&self, failures: u32) -> bool {
        self.attempts.is_none_or(|most| failures < most)
    }

    pub(crate) fn has_status(&self, status: u16) -> bool {
        self.statuses.contains(&status)
    }

    fn floor(&self) -> Duration {
        self.floor.unwrap_or(self.base / 5)
    }

    /// Returns the bound of the wait after so many failures, as long as the budget lasts.
    fn bound(&self, failures: u32) -> Duration {
        let doubled = self.base.saturating_mul(1 << (failures - 1).min(31));
        doubled.min(self.cap)
    }

    /// Returns the bounds of the wait when the budget is exhausted.
    fn slow(&self) -> Option<(Duration, Duration)> {
        let half = self.cap.max(SECOND) / 2;
        self.attempts.is_none().then_some((half, 2 * half))
    }

    /// Returns the longest wait after so many failures that no server has asked for.
    pub(crate) fn longest_own(&self, failures: u32) -> Duration {
        let slow = self.slow().map_or(Duration::ZERO, |(_, most)| most);
        self.bound(failures).max(self.floor()).max(slow)
    }

    /// Returns whether a wait may follow so many failures as long as the budget lasts, and whether
    /// it may be one without. `asked` bounds the wait that the server has asked for.
    pub(crate) fn is_wait(
        &self,
        after: Duration,
        failures: u32,
        asked: (Duration, Duration),
    ) -> (bool, bool) {
        let (floor, bound) = (self.floor(), self.bound(failures));
        let (least, most) = (floor.max(asked.0), floor.max(asked.1).max(bound));
        let is_own = (least..=most).contains(&after);
        let is_slow = self.slow().is_some_and(|slow| {
            let (least, most) = (least.max(slow.0), most.max(slow.1));
            (least..=most).contains(&after)
        });
        (is_own, is_slow)
    }
}

/// Whether a status says that the request has not been processed.
pub(crate) fn is_unprocessed(status: u16) -> bool {
    matches!(status, 408 | 425 | 429)
}

/// Whether another attempt may succeed after an error of this kind. The simulation has neither TLS
/// nor an address filter.
pub(crate) fn is_transient(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Resolve
            | ErrorKind::Connect
            | ErrorKind::ClosedBeforeResponse
            | ErrorKind::Truncated
            | ErrorKind::Io
            | ErrorKind::Timeout
            | ErrorKind::Exhausted
    )
}

/// Returns the wait that a body asks for. All bodies here are random, so some of them do.
pub(crate) fn wait_in(body: &[u8]) -> Option<Duration> {
    let number = u32::from(*body.first()?);
    match number % 4 {
        0 => Some(number * MS),
        1 => Some(number * 20 * MS),
        2 => Some(number * SECOND),
        _ => None,
    }
}

/// The wait that an answer asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) in_head: Option<Until>,
    pub(crate) in_body: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    In(Duration),
    /// A date of the client's clock.
    At(SystemTime),
}

impl Until {
    /// Returns how long to wait, if the answer is read at this time.
    pub(crate) fn from(self, now: SystemTime) -> Duration {
        match self {
            Self::In(wait) => wait,
            Self::At(date) => date.duration_since(now).unwrap_or_default(),
        }
    }
}

impl Asked {
    /// Returns the wait that the head asks for, if it is read at this time.
    pub(crate) fn by_head(self, now: SystemTime) -> Duration {
        self.in_head.map_or(Duration::ZERO, |until| until.from(now))
    }

    /// Returns the longer wait of head and body, if the body is read.
    pub(crate) fn by_all(self, rules: &RetryRules, now: SystemTime) -> Duration {
        let in_body = self.in_body.filter(|_| rules.reads_bodies);
        self.by_head(now).max(in_body.unwrap_or_default())
    }
}

/// Returns a Retry-After field for an answer that is sent at this time, with a Date field if it has
/// one, and what they ask for.
pub(crate) fn retry_after(
    random: &mut Random,
    now: SystemTime,
) -> (Option<String>, Option<String>, Option<Until>) {
    let date = |time: SystemTime| Some(httpdate::fmt_http_date(time));
    // Dates have whole seconds.
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let whole = UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs());
    let wait = Duration::from_secs(*random.pick(&[0, 1, 2, 5, 30]));
    match random.below(20) {
        0..7 => (None, None, None),
        7..12 => {
            let seconds = wait.as_secs().to_string();
            (Some(seconds), None, Some(Until::In(wait)))
        }
        12 => {
            let past = whole - wait;
            (date(past), None, Some(Until::At(past)))
        }
        13 | 14 => {
            let then = whole + wait;
            (date(then), None, Some(Until::At(then)))
        }
        15 | 16 => {
            // The server's clock is wrong, and its Date says so.
            let its = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            (date(its + wait), date(its), Some(Until::In(wait)))
        }
        17 => {
            let year = Duration::from_secs(365 * 24 * 60 * 60);
            match random.chance(500) {
                true => (
                    Some(year.as_secs().to_string()),
                    None,
                    Some(Until::In(year)),
                ),
                false => (date(whole + year), None, Some(Until::At(whole + year))),
            }
        }
        18 => {
            let vast = "99999999999999999999999".to_owned();
            (
                Some(vast),
                None,
                Some(Until::In(Duration::from_secs(1 << 31))),
            )
        }
        _ => {
            let nothing = *random.pick(&["soon", "-1", "1.5", ""]);
            (Some(nothing.to_owned()), None, None)
        }
    }
}

/// The retries of a budget that are there in the beginning, and that come back by themselves.
const RESERVE: f64 = 10.0;

/// The time in which one of them does.
const REFILL: f64 = 10.0;

/// The most retries that are saved up.
const MOST: f64 = 100.0;

/// Sums of shares are not exact.
const ROUNDING: f64 = 1e-6;

/// What a budget has earned and paid, on behalf of all sessions that share it. It is not always
/// known at once whether a retry was taken, so this is checked in the end.
#[derive(Clone, Debug)]
pub(crate) struct Purse {
    share: f64,
    log: Vec<(Duration, Entry)>,
    fates: BTreeMap<u64, Fate>,
}

#[derive(Clone, Copy, Debug)]
enum Entry {
    Earned {
        is_sure: bool,
    },
    /// A retry was judged.
    Judged(u64),
    /// A retry is not sent, if it was taken.
    GivenBack(u64),
}

/// What has become of a retry that was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It may have been taken from the budget, or refused for another reason.
    Unknown,
    /// It was taken.
    Paid,
    /// There was none left.
    Refused,
}

impl Purse {
    pub(crate) fn new(rules: &RetryRules) -> Self {
        Self {
            share: f64::from(rules.budget),
            log: Vec::new(),
            fates: BTreeMap::new(),
        }
    }

    /// Notes that an attempt is sent that is no retry, if `is_sure`.
    pub(crate) fn earn(&mut self, now: Duration, is_sure: bool) {
        self.log.push((now, Entry::Earned { is_sure }));
    }

    /// Notes that a retry is judged.
    pub(crate) fn take(&mut self, number: u64, now: Duration) {
        self.log.push((now, Entry::Judged(number)));
        self.fates.insert(number, Fate::Unknown);
    }

    /// Notes that a retry is not sent, if it was taken.
    pub(crate) fn give_back(&mut self, number: u64) {
        let last = self.log.last().map_or(Duration::ZERO, |(at, _)| *at);
        self.log.push((last, Entry::GivenBack(number)));
    }

    /// Notes what has become of a retry.
    pub(crate) fn settle(&mut self, number: u64, fate: Fate) {
        if let Some(known) = self.fates.get_mut(&number) {
            *known = fate;
        }
    }

    /// Notes that it can never be known what has become of a retry.
    pub(crate) fn blur(&mut self, number: u64) {
        self.fates.remove(&number);
    }

    /// Checks that retries were taken only as long as there were some, and refused only when there
    /// were none.
    pub(crate) fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.share.is_infinite() {
            if self.fates.values().any(|fate| *fate == Fate::Refused) {
                wrong.push("a retry was refused, although they are unlimited".to_owned());
            }
            return wrong;
        }
        // The most and the least that may be left, and until when they were refilled. The most is
        // refilled all the time, the least only when a retry is judged.
        let (mut most, mut least) = (RESERVE, RESERVE);
        let (mut at_most, mut at_least) = (Duration::ZERO, None);
        let mut taken = BTreeMap::new();
        let refilled = |left: f64, from: Duration, to: Duration| match left < RESERVE {
            true => (left + (to - from).as_secs_f64() / REFILL).min(RESERVE),
            false => left,
        };
        for (at, entry) in &self.log {
            let at = at_most.max(*at);
            most = refilled(most, at_most, at);
            at_most = at;
            match entry {
                Entry::Earned { is_sure } => {
                    most = (most + self.share).min(MOST);
                    if *is_sure {
                        least = (least + self.share).min(MOST);
                    }
                }
                Entry::Judged(number) => {
                    let full = refilled(least, *at_least.get_or_insert(at), at);
                    at_least = Some(at);
                    let fate = self.fates.get(number).copied().unwrap_or(Fate::Unknown);
                    match fate {
                        Fate::Paid => {
                            if most < 1.0 - ROUNDING {
                                wrong.push(format!("at {at:?}: a retry beyond the budget: {most}"));
                            }
                            most -= 1.0;
                        }
                        Fate::Refused if full >= 1.0 + ROUNDING => {
                            wrong.push(format!("at {at:?}: no retry, although {full} were left"));
                        }
                        Fate::Refused | Fate::Unknown => {}
                    }
                    let left = match fate {
                        Fate::Paid => full - 1.0,
                        Fate::Refused => full,
                        // If it was refused for another reason, nothing was refilled.
                        Fate::Unknown => least.min(full - 1.0),
                    };
                    taken.insert(
                        *number,
                        if fate == Fate::Paid {
                            1.0
                        } else {
                            least - left
                        },
                    );
                    least = left;
                }
                Entry::GivenBack(number) => {
                    let fate = self.fates.get(number).copied().unwrap_or(Fate::Unknown);
                    // If it was taken, more may have been refilled since.
                    if fate == Fate::Paid || fate == Fate::Unknown && most < RESERVE + 1.0 {
                        most = (most + 1.0).min(MOST);
                    }
                    let back = taken.get(number).copied().unwrap_or_default();
                    least = match fate {
                        Fate::Paid => (least + back).min(MOST),
                        Fate::Refused => least,
                        // If it was not taken, less may have been refilled since.
                        Fate::Unknown => least.max((least + back).min(RESERVE)),
                    };
                }
            }
        }
        wrong
    }
}
