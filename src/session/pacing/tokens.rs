//! The tokens of one rate.
//!
//! Two rules decide when the next token is there:
//!
//! - *In a window*: of `most` tokens, each comes back a window after its request was answered. This
//!   is what a server sees that counts the requests of the last window, however long they took to
//!   reach it.
//! - *At once*: a bucket of `burst` tokens is refilled evenly, by the generic cell rate algorithm
//!   (ITU-T I.371).
//!
//! Without a rate, nothing is counted, and there is always a token.
//!
//! Times are in microseconds of the pacing's life.

use std::collections::VecDeque;
use std::time::Duration;

use crate::session::rate::Rate;

/// Added to each window, for servers that count both of its ends, and for clocks in milliseconds.
const MARGIN: u64 = 1000;

/// The bucket holds this much more than its burst, so that a timer that goes off late, by the
/// engine's tick of 1 ms, costs no throughput.
const LATENESS: u64 = 2000;

/// The least time that a request is given to reach the server: for a new connection, a TLS handshake
/// and a lost packet.
const LEAST_SLACK: u64 = 1_000_000;

/// When the next token is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    Now,
    /// Not before this time.
    At(u64),
    /// Not before another request has been sent, or has failed to be.
    OnceSent,
}

/// A [`Rate`] in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    most: usize,
    window: u64,
    /// The time in which the bucket gets one token.
    interval: u64,
    /// The time that a full bucket is ahead.
    ahead: u64,
}

/// The tokens that have been taken from a rate.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// How many requests have taken a token and have not been sent.
    unsent: usize,
    /// The requests that have been sent and whose tokens have not come back, in order.
    sent: VecDeque<Sent>,
    /// The number of the first of them. All requests are numbered in the order in which they are
    /// sent.
    first: u64,
    /// When the bucket is full again.
    full_at: u64,
}

/// A request whose token comes back a window after this time. Ten thousand lanes may have twenty of
/// these each, so they are small: the lowest bit is whether the request was answered.
#[derive(Clone, Copy, Debug)]
struct Sent(u64);

impl Sent {
    fn new(at: u64, is_answered: bool) -> Self {
        Self(at << 1 | u64::from(is_answered))
    }

    fn at(self) -> u64 {
        self.0 >> 1
    }

    fn is_answered(self) -> bool {
        self.0 & 1 == 1
    }
}

impl Pace {
    pub(super) fn new(rate: Rate) -> Self {
        let micros = |time: Duration| time.as_micros() as u64;
        let window = micros(rate.window);
        let interval = window / u64::from(rate.most);
        Self {
            most: rate.most as usize,
            window,
            interval,
            // More than there are in a window cannot be sent at once.
            ahead: (interval * u64::from(rate.burst.min(rate.most) - 1)).max(LATENESS.min(window)),
        }
    }

    /// Returns the time within which a request is assumed to reach the server, on a connection that
    /// may have to be opened first.
    fn slack(self) -> u64 {
        (self.window / 10).max(LEAST_SLACK)
    }

    /// Returns when the token of a request comes back. Of a request without a response, this is the
    /// earliest time as long as that is not over.
    fn returns(self, sent: Sent, now: u64) -> u64 {
        let earliest = sent.at() + self.window + MARGIN;
        if sent.is_answered() || now < earliest {
            earliest
        } else {
            earliest + self.slack()
        }
    }
}

impl Tokens {
    /// Returns when the next token is there.
    pub(super) fn ready(&mut self, pace: Option<Pace>, now: u64) -> Ready {
        let Some(pace) = pace else {
            return Ready::Now;
        };
        while let Some(&sent) = self.sent.front()
            && pace.returns(sent, now) <= now
        {
            self.sent.pop_front();
            self.first += 1;
        }
        let by_bucket = self.full_at.saturating_sub(pace.ahead);
        let out = self.unsent + self.sent.len();
        let by_window = match out.checked_sub(pace.most) {
            None => 0,
            Some(over) => match self.sent.get(over) {
                Some(&sent) => pace.returns(sent, now),
                None => return Ready::OnceSent,
            },
        };
        match by_bucket.max(by_window) {
            at if at > now => Ready::At(at),
            _ => Ready::Now,
        }
    }

    /// Takes a token that is there.
    pub(super) fn take(&mut self, pace: Option<Pace>, now: u64) {
        if let Some(pace) = pace {
            self.unsent += 1;
            self.full_at = self.full_at.max(now) + pace.interval;
        }
    }

    /// Notes that a request that has a token is sent, and returns its number.
    pub(super) fn on_sent(&mut self, pace: Option<Pace>, now: u64) -> u64 {
        if pace.is_some() {
            self.unsent -= 1;
            self.sent.push_back(Sent::new(now, false));
        }
        (self.first + self.sent.len() as u64).saturating_sub(1)
    }

    /// Notes that a request was answered.
    pub(super) fn on_answered(&mut self, pace: Option<Pace>, number: u64, now: u64) {
        // A token that has come back has no place.
        let place = number.checked_sub(self.first);
        let sent = place.and_then(|place| self.sent.get_mut(place as usize));
        if let (Some(pace), Some(sent)) = (pace, sent) {
            let latest = sent.at() + pace.slack();
            *sent = Sent::new(now.clamp(sent.at(), latest), true);
        }
    }

    /// Notes that a request that has a token is not going to be sent.
    pub(super) fn give_back(&mut self, pace: Option<Pace>) {
        self.unsent -= usize::from(pace.is_some());
    }

    /// Whether all tokens are back and the bucket is full, as in the beginning.
    pub(super) fn is_full(&mut self, pace: Option<Pace>, now: u64) -> bool {
        self.ready(pace, now);
        self.unsent == 0 && self.sent.is_empty() && self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::Random;

    const SECOND: u64 = 1_000_000;

    fn pace(most: u32, seconds: u64, burst: u32) -> Option<Pace> {
        let rate = Rate::new(most, Duration::from_secs(seconds)).burst(burst);
        Some(Pace::new(rate))
    }

    /// Takes tokens as soon as they are there, up to `end`; each request is sent at once and
    /// answered `latency` later. Returns when they were sent.
    fn sends(pace: Option<Pace>, latency: u64, end: u64) -> Vec<u64> {
        let (mut tokens, mut now) = (Tokens::default(), 0);
        let (mut times, mut unanswered) = (Vec::new(), VecDeque::new());
        while now < end {
            while let Some(&(number, at)) = unanswered.front()
                && at <= now
            {
                tokens.on_answered(pace, number, at);
                unanswered.pop_front();
            }
            match tokens.ready(pace, now) {
                Ready::Now => {
                    tokens.take(pace, now);
                    times.push(now);
                    unanswered.push_back((tokens.on_sent(pace, now), now + latency));
                }
                Ready::At(at) => {
                    assert!(at > now);
                    // Rounded up to the tick, as the engine does.
                    now = at.div_ceil(1000) * 1000;
                }
                Ready::OnceSent => panic!("all have been sent"),
            }
        }
        times
    }

    #[test]
    fn requests_are_spread_evenly_by_default() {
        let times = sends(pace(30, 1, 1), 0, 10 * SECOND);
        assert_eq!(times.len(), 300);
        assert!(times.windows(2).all(|two| two[1] - two[0] >= 31_000));
    }

    #[test]
    fn bursts_are_allowed_and_no_window_has_too_many() {
        let times = sends(pace(20, 60, 20), 50_000, 200 * SECOND);
        assert_eq!(times.iter().filter(|at| **at == 0).count(), 20);
        assert!(
            times
                .windows(21)
                .all(|some| some[20] - some[0] > 60 * SECOND)
        );
        assert_eq!(times.len(), 80);
        // Of a bucket that is smaller than the window.
        let times = sends(pace(12, 60, 10), 0, 300 * SECOND);
        assert_eq!(times.iter().filter(|at| **at == 0).count(), 10);
        assert!(
            times
                .windows(13)
                .all(|some| some[12] - some[0] > 60 * SECOND)
        );
        assert!(times.len() >= 58, "{}", times.len());
    }

    #[test]
    fn a_slow_way_to_the_server_moves_the_window() {
        // The first 30 may have reached the server up to 80 ms later than the others.
        let times = sends(pace(30, 1, 30), 80_000, 2 * SECOND);
        assert_eq!(times[30], 1_081_000);
        // Nothing is known of requests that are not answered. Polls must not stop all others.
        let times = sends(pace(30, 1, 30), 3600 * SECOND, 3 * SECOND);
        assert_eq!(times[30], 2_001_000);
    }

    #[test]
    fn tokens_of_requests_that_are_not_sent_are_not_there() {
        let pace = pace(2, 1, 2);
        let mut tokens = Tokens::default();
        tokens.take(pace, 0);
        tokens.take(pace, 0);
        assert_eq!(tokens.ready(pace, 100 * SECOND), Ready::OnceSent);
        let number = tokens.on_sent(pace, 100 * SECOND);
        assert_eq!(
            tokens.ready(pace, 100 * SECOND),
            Ready::At(101 * SECOND + MARGIN)
        );
        // The other one failed to connect.
        tokens.give_back(pace);
        assert_eq!(tokens.ready(pace, 100 * SECOND), Ready::Now);
        tokens.on_answered(pace, number, 100 * SECOND);
        assert!(!tokens.is_full(pace, 101 * SECOND));
        assert!(tokens.is_full(pace, 101 * SECOND + MARGIN));
        // Much too late.
        tokens.on_answered(pace, number, 200 * SECOND);
    }

    #[test]
    fn a_thousand_a_second_are_a_thousand() {
        for burst in [1, 10, 1000] {
            let times = sends(pace(1000, 1, burst), 0, 10 * SECOND);
            assert!(
                times
                    .windows(1001)
                    .all(|some| some[1000] - some[0] > SECOND)
            );
            assert!(times.len() > 9_900, "{burst}: {}", times.len());
        }
    }

    /// Requests that take tokens at random times, are sent late or not at all, and reach a server
    /// within a second: it never counts too many.
    #[test]
    fn no_server_counts_too_many() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let most = 1 + random.below(8) as u32;
            let pace = pace(most, 1, 1 + random.below(most as usize) as u32);
            let (mut tokens, mut now) = (Tokens::default(), 0);
            let (mut unsent, mut unanswered) = (0, Vec::new());
            let mut seen = Vec::new();
            for _ in 0..2000 {
                match random.below(4) {
                    0 => now += random.below(200_000) as u64,
                    1 if unsent > 0 => {
                        unsent -= 1;
                        if random.below(5) == 0 {
                            tokens.give_back(pace);
                        } else {
                            let number = tokens.on_sent(pace, now);
                            let at = now + random.below(1_000_000) as u64;
                            seen.push(at);
                            let answered = at + random.below(2_000_000) as u64;
                            unanswered.push((number, answered));
                        }
                    }
                    _ if tokens.ready(pace, now) == Ready::Now => {
                        tokens.take(pace, now);
                        unsent += 1;
                    }
                    _ => {}
                }
                unanswered.retain(|&(number, at)| {
                    if at <= now {
                        tokens.on_answered(pace, number, now);
                    }
                    at > now
                });
            }
            seen.sort_unstable();
            let most = most as usize;
            for some in seen.windows(most + 1) {
                assert!(some[most] - some[0] > SECOND, "seed {seed}: {some:?}");
            }
            assert!(seen.len() > 10);
        }
    }
}
