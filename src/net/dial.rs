//! Goes from the addresses of a host to one connection (Happy Eyeballs, RFC 8305). Opens no socket
//! and reads no clock: it only decides what to do next.
//!
//! ```text
//!   Fresh ──only IPv4 is known──► Grace ──IPv6, or 50 ms──► Open ◄──250 ms, or a failure──┐
//!     └──IPv6, or both families──────────────────────────────┴──an attempt──► Staggered ──┘
//! ```
//!
//! The families take turns, IPv6 first. Within a family the resolver's order is kept, since the
//! resolver applies the policy of its host or server (RFC 6724). Addresses without a route fail
//! immediately, at no cost. Addresses that failed recently go last.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::net::names::FamilyAnswer;
use crate::resolver::{Family, LookupError};
use crate::sched::wheel::TimerId;

/// How long known IPv4 addresses wait for IPv6 ones (RFC 8305 §3, Resolution Delay).
pub(crate) const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// The time between the starts of two attempts (RFC 8305 §5, Connection Attempt Delay).
pub(crate) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The connection attempts of one link.
#[derive(Debug)]
pub(crate) struct Dial<Socket> {
    port: u16,
    pace: Pace,
    v6: Half,
    v4: Half,
    /// Addresses of both families that failed recently.
    doubtful: VecDeque<IpAddr>,
    /// The family that was dialed last.
    last: Option<Family>,
    attempts: Vec<Attempt<Socket>>,
    failed: Vec<(SocketAddr, io::Error)>,
    /// Ends the grace period, or allows the next attempt.
    pub(crate) timer: Option<TimerId>,
}

/// A connection attempt in progress.
#[derive(Debug)]
pub(crate) struct Attempt<Socket> {
    pub(crate) addr: SocketAddr,
    pub(crate) socket: Socket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// Nothing has been dialed yet.
    Fresh,
    /// IPv4 waits for IPv6.
    Grace,
    /// The next address may be dialed as soon as there is one.
    Open,
    /// An attempt was started a moment ago.
    Staggered,
}

/// The lookup of one address family.
#[derive(Debug)]
enum Half {
    Asked,
    /// Addresses that have not been tried yet.
    Known(VecDeque<IpAddr>),
    Failed(LookupError),
}

impl Half {
    fn is_asked(&self) -> bool {
        matches!(self, Half::Asked)
    }

    fn pop(&mut self) -> Option<IpAddr> {
        match self {
            Half::Known(left) => left.pop_front(),
            Half::Asked | Half::Failed(_) => None,
        }
    }

    fn has_addresses(&self) -> bool {
        matches!(self, Half::Known(left) if !left.is_empty())
    }
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Start an attempt at this address.
    Connect(SocketAddr),
    /// Wait for an event, or until this much time has passed.
    Wait(Option<Duration>),
    /// All addresses have been tried.
    Over,
}

impl<Socket> Dial<Socket> {
    /// Creates a dial before any address is known.
    pub(crate) fn new(port: u16) -> Self {
        Self {
            port,
            pace: Pace::Fresh,
            v6: Half::Asked,
            v4: Half::Asked,
            doubtful: VecDeque::new(),
            last: None,
            attempts: Vec::new(),
            failed: Vec::new(),
            timer: None,
        }
    }

    /// Records the result of a lookup.
    pub(crate) fn on_answer(
        &mut self,
        family: Family,
        answer: FamilyAnswer,
        is_doubtful: impl Fn(SocketAddr) -> bool,
    ) {
        let half = match answer {
            Err(error) => Half::Failed(error),
            Ok(addrs) => {
                let (doubtful, good): (VecDeque<_>, _) = addrs
                    .iter()
                    .partition(|ip| is_doubtful(SocketAddr::new(**ip, self.port)));
                self.doubtful.extend(doubtful);
                Half::Known(good)
            }
        };
        *self.half(family) = half;
    }

    /// Records that the time given by [`Step::Wait`] has passed.
    pub(crate) fn on_delay(&mut self) {
        self.pace = Pace::Open;
    }

    /// Returns what to do now. A `Wait` with a time starts that time.
    pub(crate) fn next_step(&mut self) -> Step {
        match self.pace {
            Pace::Staggered => return Step::Wait(None),
            Pace::Grace if self.v6.is_asked() => return Step::Wait(None),
            // An address that is likely to fail is no reason to give up the other family.
            Pace::Fresh
                if !self.v6.has_addresses() && (self.v6.is_asked() || self.v4.is_asked()) =>
            {
                if !self.v4.has_addresses() && self.doubtful.is_empty() {
                    return Step::Wait(None);
                }
                self.pace = Pace::Grace;
                return Step::Wait(Some(RESOLUTION_DELAY));
            }
            Pace::Fresh | Pace::Grace | Pace::Open => {}
        }
        if let Some(ip) = self.pop() {
            return Step::Connect(SocketAddr::new(ip, self.port));
        }
        if self.is_asking() || !self.attempts.is_empty() {
            Step::Wait(None)
        } else {
            Step::Over
        }
    }

    /// Records that the attempt requested by [`Step::Connect`] has started. Returns how long the
    /// next one has to wait, if there may be one.
    pub(crate) fn on_begun(&mut self, addr: SocketAddr, socket: Socket) -> Option<Duration> {
        self.attempts.push(Attempt { addr, socket });
        self.pace = Pace::Staggered;
        let is_last = !self.v6.has_addresses()
            && !self.v4.has_addresses()
            && self.doubtful.is_empty()
            && !self.is_asking();
        (!is_last).then_some(ATTEMPT_DELAY)
    }

    /// Records that connecting to an address failed. The next address may be dialed at once.
    pub(crate) fn on_failed(&mut self, addr: SocketAddr, error: io::Error) {
        self.failed.push((addr, error));
        self.pace = Pace::Open;
    }

    /// Records that this host had no resources for the attempt requested by [`Step::Connect`]. The
    /// address is not to blame. It is tried again when another attempt has failed and released its
    /// resources, or after the returned time.
    pub(crate) fn on_no_room(&mut self, addr: SocketAddr) -> Duration {
        let family = match addr {
            SocketAddr::V4(_) => Family::V4,
            SocketAddr::V6(_) => Family::V6,
        };
        if let Half::Known(left) = self.half(family) {
            left.push_front(addr.ip());
        }
        self.pace = Pace::Staggered;
        ATTEMPT_DELAY
    }

    /// Returns the attempts in progress, in the order in which they were started.
    pub(crate) fn attempts(&self) -> &[Attempt<Socket>] {
        &self.attempts
    }

    /// Removes one of the attempts.
    pub(crate) fn take_attempt(&mut self, i: usize) -> Attempt<Socket> {
        self.attempts.remove(i)
    }

    /// Puts an attempt back in its old place, because it is not connected yet.
    pub(crate) fn put_back(&mut self, i: usize, attempt: Attempt<Socket>) {
        self.attempts.insert(i, attempt);
    }

    /// Removes all attempts.
    pub(crate) fn take_attempts(&mut self) -> Vec<Attempt<Socket>> {
        std::mem::take(&mut self.attempts)
    }

    /// Takes the errors of the addresses that failed.
    pub(crate) fn take_failed(&mut self) -> Vec<(SocketAddr, io::Error)> {
        std::mem::take(&mut self.failed)
    }

    /// Returns whether a lookup is still in progress.
    pub(crate) fn is_asking(&self) -> bool {
        self.v6.is_asked() || self.v4.is_asked()
    }

    /// Returns whether any address has been dialed.
    pub(crate) fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// Returns why there is no address: the more informative of two reasons.
    pub(crate) fn lookup_error(&self) -> LookupError {
        let telling = |half: &Half| match half {
            Half::Failed(LookupError::NotFound | LookupError::NoAddress) => None,
            Half::Failed(error) => Some(error.clone()),
            Half::Asked | Half::Known(_) => None,
        };
        let unknown = |half: &Half| matches!(half, Half::Failed(LookupError::NotFound));
        match telling(&self.v6).or_else(|| telling(&self.v4)) {
            Some(error) => error,
            None if unknown(&self.v6) || unknown(&self.v4) => LookupError::NotFound,
            None => LookupError::NoAddress,
        }
    }

    fn half(&mut self, family: Family) -> &mut Half {
        match family {
            Family::V6 => &mut self.v6,
            Family::V4 => &mut self.v4,
        }
    }

    fn pop(&mut self) -> Option<IpAddr> {
        let first = match self.last {
            None | Some(Family::V4) => Family::V6,
            Some(Family::V6) => Family::V4,
        };
        let second = match first {
            Family::V6 => Family::V4,
            Family::V4 => Family::V6,
        };
        let ip = self
            .half(first)
            .pop()
            .or_else(|| self.half(second).pop())
            .or_else(|| self.doubtful.pop_front())?;
        self.last = Some(match ip {
            IpAddr::V6(_) => Family::V6,
            IpAddr::V4(_) => Family::V4,
        });
        Some(ip)
    }
}

/// Addresses that failed recently, each with the time until which it is avoided.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    until: HashMap<SocketAddr, Instant>,
}

impl Doubts {
    /// Long enough that a burst of connections pays for a dead address only once, and short enough
    /// that a repaired network is soon used again.
    const LASTING: Duration = Duration::from_secs(60);
    const MAX: usize = 1024;

    /// Records that `addr` failed, or lost to an address that was dialed after it.
    pub(crate) fn add(&mut self, addr: SocketAddr, now: Instant) {
        if self.until.len() >= Self::MAX {
            self.until.retain(|_, until| *until > now);
        }
        if self.until.len() < Self::MAX {
            self.until.insert(addr, now + Self::LASTING);
        }
    }

    /// Records that `addr` was connected to.
    pub(crate) fn clear(&mut self, addr: SocketAddr) {
        if !self.until.is_empty() {
            self.until.remove(&addr);
        }
    }

    pub(crate) fn has(&self, addr: SocketAddr, now: Instant) -> bool {
        self.until.get(&addr).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// Returns an address, given its last number.
    fn v6(n: u16) -> IpAddr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into()
    }

    fn v4(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    fn addr(ip: IpAddr) -> SocketAddr {
        SocketAddr::new(ip, 80)
    }

    fn refused() -> io::Error {
        io::ErrorKind::ConnectionRefused.into()
    }

    const NOTHING: Step = Step::Wait(None);
    const GRACE: Step = Step::Wait(Some(RESOLUTION_DELAY));

    fn found(addrs: &[IpAddr]) -> FamilyAnswer {
        Ok(addrs.into())
    }

    struct Bench {
        dial: Dial<()>,
        doubtful: Vec<IpAddr>,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                dial: Dial::new(80),
                doubtful: Vec::new(),
            }
        }

        fn answer(&mut self, family: Family, answer: FamilyAnswer) {
            let doubtful = self.doubtful.clone();
            let is_doubtful = |addr: SocketAddr| doubtful.contains(&addr.ip());
            self.dial.on_answer(family, answer, is_doubtful);
        }

        /// Starts the attempt that is due, and returns whether another may follow.
        fn begin(&mut self, ip: IpAddr) -> bool {
            assert_eq!(self.dial.next_step(), Step::Connect(addr(ip)));
            let delay = self.dial.on_begun(addr(ip), ());
            assert!(delay.is_none_or(|delay| delay == ATTEMPT_DELAY));
            assert_eq!(
                self.dial.next_step(),
                NOTHING,
                "the next attempt has to wait"
            );
            delay.is_some()
        }

        fn fail_first(&mut self) {
            let attempt = self.dial.take_attempt(0);
            self.dial.on_failed(attempt.addr, refused());
        }
    }

    #[test]
    fn ipv6_is_dialled_without_waiting_for_ipv4() {
        let mut bench = Bench::new();
        assert_eq!(bench.dial.next_step(), NOTHING);
        bench.answer(Family::V6, found(&[v6(1)]));
        assert!(
            bench.begin(v6(1)),
            "the lookup of IPv4 is still in progress"
        );
        bench.answer(Family::V4, found(&[v4(1)]));
        assert_eq!(bench.dial.next_step(), NOTHING);
        bench.dial.on_delay();
        assert!(!bench.begin(v4(1)), "no address is left");
        assert_eq!(
            bench.dial.attempts().len(),
            2,
            "both attempts are in progress"
        );
    }

    #[test]
    fn ipv4_gives_ipv6_a_moments_grace() {
        for (why, then) in [
            ("the grace period is over", None),
            ("IPv6 has failed", Some(Err(LookupError::NotFound))),
            ("there are no IPv6 addresses", Some(found(&[]))),
        ] {
            let mut bench = Bench::new();
            bench.answer(Family::V4, found(&[v4(1)]));
            assert_eq!(bench.dial.next_step(), GRACE, "{why}");
            assert_eq!(bench.dial.next_step(), NOTHING, "{why}");
            match then {
                None => bench.dial.on_delay(),
                Some(answer) => bench.answer(Family::V6, answer),
            }
            bench.begin(v4(1));
        }
        let mut bench = Bench::new();
        bench.answer(Family::V4, found(&[v4(1)]));
        assert_eq!(bench.dial.next_step(), GRACE);
        bench.answer(Family::V6, found(&[v6(1)]));
        assert!(bench.begin(v6(1)), "IPv6 arrived in time");
    }

    #[test]
    fn families_take_turns_and_a_late_answer_joins_them() {
        let mut bench = Bench::new();
        bench.answer(Family::V4, found(&[v4(1), v4(2), v4(3)]));
        assert_eq!(bench.dial.next_step(), GRACE);
        bench.dial.on_delay();
        bench.begin(v4(1));
        bench.dial.on_delay();
        bench.begin(v4(2));
        bench.answer(Family::V6, found(&[v6(1), v6(2)]));
        for (ip, more) in [(v6(1), true), (v4(3), true), (v6(2), false)] {
            bench.dial.on_delay();
            assert_eq!(bench.begin(ip), more, "{ip}");
        }
    }

    #[test]
    fn a_failure_brings_the_next_address_at_once() {
        let mut bench = Bench::new();
        bench.answer(Family::V6, found(&[v6(1)]));
        bench.answer(Family::V4, found(&[v4(1), v4(2)]));
        bench.begin(v6(1));
        bench.fail_first();
        bench.begin(v4(1));
        bench.fail_first();
        bench.begin(v4(2));
        assert_eq!(bench.dial.attempts().len(), 1);
        bench.fail_first();
        assert_eq!(bench.dial.next_step(), Step::Over);
        let failed: Vec<_> = bench
            .dial
            .take_failed()
            .into_iter()
            .map(|(a, _)| a)
            .collect();
        assert_eq!(failed, [v6(1), v4(1), v4(2)].map(addr));
    }

    #[test]
    fn an_address_without_room_for_an_attempt_is_tried_again() {
        let mut bench = Bench::new();
        bench.answer(Family::V6, found(&[v6(1)]));
        bench.answer(Family::V4, found(&[v4(1)]));
        bench.begin(v6(1));
        for fails in [false, true] {
            bench.dial.on_delay();
            assert_eq!(bench.dial.next_step(), Step::Connect(addr(v4(1))));
            assert_eq!(bench.dial.on_no_room(addr(v4(1))), ATTEMPT_DELAY);
            assert_eq!(
                bench.dial.next_step(),
                NOTHING,
                "the next attempt has to wait"
            );
            if fails {
                bench.fail_first();
            }
        }
        assert!(!bench.begin(v4(1)), "the failed attempt has made room");
    }

    #[test]
    fn while_a_look_up_is_under_way_nothing_is_over() {
        let mut bench = Bench::new();
        bench.answer(Family::V6, found(&[v6(1)]));
        bench.begin(v6(1));
        bench.fail_first();
        assert_eq!(bench.dial.next_step(), NOTHING);
        bench.answer(Family::V4, found(&[v4(1)]));
        bench.begin(v4(1));
    }

    #[test]
    fn what_failed_lately_goes_last_and_is_tried_all_the_same() {
        let mut bench = Bench::new();
        bench.doubtful = vec![v6(1), v4(1)];
        bench.answer(Family::V6, found(&[v6(1)]));
        assert_eq!(
            bench.dial.next_step(),
            GRACE,
            "IPv4 may have a better address"
        );
        bench.answer(Family::V4, found(&[v4(1), v4(2)]));
        bench.dial.on_delay();
        for ip in [v4(2), v6(1), v4(1)] {
            bench.begin(ip);
            bench.dial.on_delay();
        }
    }

    #[test]
    fn the_more_telling_of_two_reasons_is_told() {
        let broken = || Err(LookupError::Failed("broken".into()));
        let unresponsive = || Err(LookupError::Timeout("a server".into()));
        let unknown = || Err(LookupError::NotFound);
        for (a, b, told) in [
            (unknown(), unknown(), LookupError::NotFound),
            (found(&[]), found(&[]), LookupError::NoAddress),
            (found(&[]), unknown(), LookupError::NotFound),
            (found(&[]), broken(), broken().unwrap_err()),
            (unknown(), unresponsive(), unresponsive().unwrap_err()),
        ] {
            for (v6, v4) in [(a.clone(), b.clone()), (b, a)] {
                let mut bench = Bench::new();
                bench.answer(Family::V6, v6);
                bench.answer(Family::V4, v4);
                assert_eq!(bench.dial.next_step(), Step::Over);
                assert_eq!(bench.dial.lookup_error(), told);
            }
        }
    }

    #[test]
    fn doubts_end_by_time_or_success_and_are_bounded() {
        let now = Instant::now();
        let mut doubts = Doubts::default();
        doubts.add(addr(v4(1)), now);
        assert!(doubts.has(addr(v4(1)), now) && !doubts.has(addr(v4(2)), now));
        assert!(!doubts.has(addr(v4(1)), now + Doubts::LASTING));
        doubts.clear(addr(v4(1)));
        assert!(!doubts.has(addr(v4(1)), now));
        for n in 0..2 * Doubts::MAX as u16 {
            doubts.add(addr(v6(n)), now);
        }
        assert_eq!(doubts.until.len(), Doubts::MAX);
        let later = now + Doubts::LASTING;
        doubts.add(addr(v4(1)), later);
        assert!(doubts.has(addr(v4(1)), later), "expired entries make room");
    }
}
