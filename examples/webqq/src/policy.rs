//! The bot's reactions to each retcode, its waits before another login, and its limit on kicks.

use std::collections::VecDeque;
use std::time::Duration;

/// What a poll's retcode calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterPoll {
    /// There was nothing to deliver.
    Poll,
    /// The session is gone but the cookies are valid: LOGIN2 is enough.
    Relink,
    /// The cookies are invalid as well.
    LogIn,
    /// The session may be bad. If this happens repeatedly, it is.
    Suspect,
    /// The account has logged out: stop.
    Stop,
    /// An unknown code: it is logged, and the bot polls again after a while.
    Report,
}

pub(crate) fn after_poll(retcode: i64) -> AfterPoll {
    match retcode {
        102 => AfterPoll::Poll,
        120 | 121 | 100006 => AfterPoll::Relink,
        100 | 108 | 114 | 100002 => AfterPoll::LogIn,
        103 => AfterPoll::Suspect,
        109 | 110 => AfterPoll::Stop,
        _ => AfterPoll::Report,
    }
}

/// What a send's retcode says about the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterSend {
    /// It was sent, or probably so. Sending it twice would be worse than not at all.
    Sent,
    TooFast,
    Relink,
    Suspect,
    Refused,
}

pub(crate) fn after_send(retcode: i64) -> AfterSend {
    match retcode {
        108 => AfterSend::TooFast,
        8 => AfterSend::Relink,
        103 => AfterSend::Suspect,
        100001 | 100012 => AfterSend::Refused,
        // 1202, 100003 and 100100 were known to accompany messages that had arrived. For other
        // codes it is unknown.
        _ => AfterSend::Sent,
    }
}

/// How a session follows one that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// With the cookies of the login.
    Relink,
    /// With a new login.
    Login,
}

/// After this many consecutive refusals by PTLOGIN the bot stops.
pub(crate) const MOST_REFUSALS: u32 = 5;

/// How often a message is sent if it is refused, or if its session ends (the next session may end
/// as well), and how often a step of the login, a list or a picture is requested.
pub(crate) const TRIES: u32 = 3;
/// How often something is fetched for an answer. The network may be down for a while, so the waits
/// double from 1 s to 32 s.
pub(crate) const LONG_TRIES: u32 = 7;
/// How many answers of [`AfterPoll::Suspect`] show that a session is bad.
pub(crate) const SUSPICIONS: u32 = 3;

/// Exponential backoff: 1 s, 2 s, 4 s, up to a minute.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) const FIRST: Duration = Duration::from_secs(1);
    pub(crate) const MOST: Duration = Duration::from_secs(60);

    pub(crate) fn next_wait(&mut self) -> Duration {
        let wait = Self::FIRST * 2_u32.pow(self.failures.min(6));
        self.failures += 1;
        wait.min(Self::MOST)
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Limits reactions to kicks: two bots of one account would kick each other forever. This one
/// returns after a few kicks an hour, then stays away until the hour is over.
#[derive(Debug, Default)]
pub(crate) struct Kicks {
    /// When kicks were or will be reacted to: within the last hour, or later.
    recent: VecDeque<Duration>,
}

impl Kicks {
    pub(crate) const AN_HOUR: usize = 5;
    const HOUR: Duration = Duration::from_secs(3600);

    /// Counts a kick, and returns how long to stay away.
    pub(crate) fn on_kick(&mut self, now: Duration) -> Duration {
        self.recent
            .retain(|at| now.saturating_sub(*at) < Self::HOUR);
        let wait = match self.recent.len().checked_sub(Self::AN_HOUR) {
            Some(first) => (self.recent[first] + Self::HOUR).saturating_sub(now),
            None => Duration::ZERO,
        };
        self.recent.push_back(now + wait);
        wait
    }
}
