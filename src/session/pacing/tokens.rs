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

/// The least time that a request is given to reach the server: for a new connection, a TLS
/// handshake and a lost packet.
const LEAST_SLACK: u64 = 1_000_000;

/// How long a request that waits for a connection keeps its token from others.
const PATIENCE: u64 = 10_000_000;

/// When the next token is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    Now,
    /// Not before this time. There may be none yet then.
    At(u64),
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
    /// The requests that have taken a token and have not been sent, in that order: their numbers,
    /// and since when. One that waits for a connection for long is forgotten, so that it does not
    /// stop all others.
    unsent: VecDeque<(u64, u64)>,
    /// The number of the last request that has taken a token.
    taken: u64,
    /// The requests that have been sent, in order, from the first whose token has not come back.
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

    /// Returns how often to look whether another request has been sent, given up or answered.
    fn glance(self) -> u64 {
        (self.window / 10).clamp(10_000, 1_000_000)
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

    /// Whether the token of a request may come back earlier than [`returns`](Self::returns) says:
    /// if the request is answered.
    fn may_hurry(self, sent: Sent, now: u64) -> bool {
        let is_late = now >= sent.at() + self.window + MARGIN;
        is_late && !sent.is_answered() && now < sent.at() + self.slack()
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
        while let Some((_, since)) = self.unsent.front()
            && since + PATIENCE <= now
        {
            self.unsent.pop_front();
        }
        let by_bucket = self.full_at.saturating_sub(pace.ahead);
        let by_window = match self.unsent.len() + self.sent.len() < pace.most {
            true => 0,
            false => self.first_back(pace, now),
        };
        match by_bucket.max(by_window) {
            at if at > now => Ready::At(at),
            _ => Ready::Now,
        }
    }

    /// Returns when the first token comes back, or may: 0 if there is one.
    fn first_back(&self, pace: Pace, now: u64) -> u64 {
        let (mut out, mut first) = (self.unsent.len(), u64::MAX);
        // Other requests may be sent, give their tokens back, or be answered.
        let mut is_open = !self.unsent.is_empty();
        // They come back in another order if some requests are answered late or not at all.
        for &sent in &self.sent {
            let at = pace.returns(sent, now);
            if at > now {
                out += 1;
                first = first.min(at);
                is_open |= pace.may_hurry(sent, now);
            }
        }
        match out < pace.most {
            true => 0,
            false if is_open => first.min(now + pace.glance()),
            false => first,
        }
    }

    /// Takes a token that is there, and returns its number.
    pub(super) fn take(&mut self, pace: Option<Pace>, now: u64) -> u64 {
        if let Some(pace) = pace {
            self.taken += 1;
            self.unsent.push_back((self.taken, now));
            self.full_at = self.full_at.max(now) + pace.interval;
        }
        self.taken
    }

    /// Notes that the request that has taken the token with this number is sent, and returns its
    /// number among those that are sent.
    pub(super) fn on_sent(&mut self, pace: Option<Pace>, token: u64, now: u64) -> u64 {
        if pace.is_some() {
            self.give_back(token);
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

    /// Gives back a token, whose request is not going to be sent.
    pub(super) fn give_back(&mut self, token: u64) {
        // Most often the first.
        if let Some(place) = self.unsent.iter().position(|(number, _)| *number == token) {
            self.unsent.remove(place);
        }
    }

    /// Whether all tokens are back and the bucket is full, as in the beginning.
    pub(super) fn is_full(&mut self, pace: Option<Pace>, now: u64) -> bool {
        self.ready(pace, now);
        self.unsent.is_empty() && self.sent.is_empty() && self.full_at <= now
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
                    let token = tokens.take(pace, now);
                    times.push(now);
                    unanswered.push_back((tokens.on_sent(pace, token, now), now + latency));
                }
                Ready::At(at) => {
                    assert!(at > now);
                    // Rounded up to the tick, as the engine does.
                    now = at.div_ceil(1000) * 1000;
                }
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
        let (one, two) = (tokens.take(pace, 0), tokens.take(pace, 0));
        assert_eq!(tokens.ready(pace, 5 * SECOND), Ready::At(51 * SECOND / 10));
        let number = tokens.on_sent(pace, one, 5 * SECOND);
        assert_eq!(tokens.ready(pace, 5 * SECOND), Ready::At(51 * SECOND / 10));
        // The other one failed to connect.
        tokens.give_back(two);
        assert_eq!(tokens.ready(pace, 5 * SECOND), Ready::Now);
        tokens.on_answered(pace, number, 5 * SECOND);
        assert!(!tokens.is_full(pace, 6 * SECOND));
        assert!(tokens.is_full(pace, 6 * SECOND + MARGIN));
        // Much too late.
        tokens.on_answered(pace, number, 200 * SECOND);
    }

    /// Takes a token for a request that is sent at once, and returns its number.
    fn send(tokens: &mut Tokens, pace: Option<Pace>, now: u64) -> u64 {
        assert_eq!(tokens.ready(pace, now), Ready::Now);
        let token = tokens.take(pace, now);
        tokens.on_sent(pace, token, now)
    }

    #[test]
    fn a_request_without_a_response_keeps_only_its_own_token() {
        let pace = pace(2, 1, 2);
        let mut tokens = Tokens::default();
        send(&mut tokens, pace, 0);
        let second = send(&mut tokens, pace, SECOND / 10);
        tokens.on_answered(pace, second, SECOND / 5);
        let third = 6 * SECOND / 5 + MARGIN;
        assert_eq!(tokens.ready(pace, third - 1), Ready::At(third));
        send(&mut tokens, pace, third);
        assert_eq!(tokens.ready(pace, third), Ready::At(2 * SECOND + MARGIN));
        send(&mut tokens, pace, 2 * SECOND + MARGIN);
    }

    #[test]
    fn what_was_sent_again_stays_out_although_another_token_is_back() {
        let pace = pace(2, 1, 2);
        let mut tokens = Tokens::default();
        send(&mut tokens, pace, 0);
        let second = send(&mut tokens, pace, 0);
        tokens.on_answered(pace, second, 0);
        // The engine sends the first one again.
        let again = tokens.take(pace, SECOND);
        tokens.on_sent(pace, again, SECOND);
        let next = 2 * SECOND + MARGIN;
        assert_eq!(tokens.ready(pace, SECOND + MARGIN), Ready::At(next));
    }

    #[test]
    fn an_answer_that_takes_longer_than_the_window_is_noticed() {
        let rate = Rate::new(1, Duration::from_millis(100));
        let pace = Some(Pace::new(rate));
        let mut tokens = Tokens::default();
        let number = send(&mut tokens, pace, 0);
        let (window, glance) = (SECOND / 10, SECOND / 100);
        assert_eq!(tokens.ready(pace, 0), Ready::At(window + MARGIN));
        let now = window + MARGIN;
        assert_eq!(tokens.ready(pace, now), Ready::At(now + glance));
        tokens.on_answered(pace, number, now + 1);
        let back = now + 1 + window + MARGIN;
        assert_eq!(tokens.ready(pace, now + glance), Ready::At(back));
        send(&mut tokens, pace, back);
        // An answer after a second changes nothing, so it is not waited for.
        assert_eq!(
            tokens.ready(pace, back + SECOND),
            Ready::At(back + SECOND + window + MARGIN)
        );
    }

    #[test]
    fn a_token_that_is_given_back_is_noticed() {
        let pace = pace(2, 60, 2);
        let mut tokens = Tokens::default();
        send(&mut tokens, pace, 0);
        let (now, glance) = (40 * SECOND, SECOND);
        let unsent = tokens.take(pace, now);
        assert_eq!(tokens.ready(pace, now), Ready::At(now + glance));
        tokens.give_back(unsent);
        assert_eq!(tokens.ready(pace, now + glance), Ready::Now);
    }

    #[test]
    fn who_waits_for_a_connection_for_long_does_not_stop_the_others() {
        let pace = pace(1, 1, 1);
        let mut tokens = Tokens::default();
        let stuck = tokens.take(pace, 0);
        assert!(matches!(tokens.ready(pace, PATIENCE - 1), Ready::At(_)));
        assert_eq!(tokens.ready(pace, PATIENCE), Ready::Now);
        // If it is sent after all, it counts.
        tokens.on_sent(pace, stuck, PATIENCE);
        assert_eq!(
            tokens.ready(pace, PATIENCE),
            Ready::At(PATIENCE + SECOND + MARGIN)
        );
        tokens.give_back(stuck);
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
            let (mut unsent, mut unanswered) = (VecDeque::new(), Vec::new());
            let mut seen = Vec::new();
            for _ in 0..2000 {
                match random.below(4) {
                    0 => now += random.below(200_000) as u64,
                    1 if !unsent.is_empty() => {
                        let token = unsent.pop_front().unwrap();
                        if random.below(5) == 0 {
                            tokens.give_back(token);
                        } else {
                            let number = tokens.on_sent(pace, token, now);
                            let at = now + random.below(1_000_000) as u64;
                            seen.push(at);
                            let answered = at + random.below(2_000_000) as u64;
                            unanswered.push((number, answered));
                        }
                    }
                    _ if tokens.ready(pace, now) == Ready::Now => {
                        unsent.push_back(tokens.take(pace, now));
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
