//! What the bot does about each retcode, how long it waits before it tries again, and how often it
//! lets itself be kicked.

use std::collections::VecDeque;
use std::time::Duration;

/// What a poll's retcode asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterPoll {
    /// There was nothing to tell.
    Poll,
    /// The session is gone, the cookies are good: LOGIN2 will do.
    Relink,
    /// The cookies are gone as well.
    LogIn,
    /// Perhaps the session is bad; certainly when it happens again and again.
    Suspect,
    /// The account has logged out: so be it.
    Stop,
    /// Not known here: said in the log, and polled again after a while.
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

/// What a send's retcode says of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterSend {
    /// It was sent, or probably so; twice would be worse than not at all.
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
        // 1202, 100003 and 100100 were known to say so of messages that had come through; what
        // others say is not known.
        _ => AfterSend::Sent,
    }
}

/// How a session that is over is followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// With the cookies of the login.
    Relink,
    /// From the beginning.
    Login,
}

/// So many refusals of PTLOGIN in a row end the attempts.
pub(crate) const MOST_REFUSALS: u32 = 5;

/// How often a message that was refused is offered, or one that met the end of a session (a second
/// relink may meet the next end), and a list or picture asked for.
pub(crate) const TRIES: u32 = 3;
/// How many answers of [`AfterPoll::Suspect`] make a session bad.
pub(crate) const SUSPICIONS: u32 = 3;

/// Exponential backoff: 1 s, 2 s, 4 s, up to a minute.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(60);

    pub(crate) fn next_wait(&mut self) -> Duration {
        let wait = Self::FIRST * 2_u32.pow(self.failures.min(6));
        self.failures += 1;
        wait.min(Self::MOST)
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Two bots of one account kick each other for ever: this one answers a few kicks an hour, and then
/// waits until the hour is over.
#[derive(Debug, Default)]
pub(crate) struct Kicks {
    /// When they were answered, or will be: within the last hour, or later.
    recent: VecDeque<Duration>,
}

impl Kicks {
    pub(crate) const AN_HOUR: usize = 5;
    const HOUR: Duration = Duration::from_secs(3600);

    /// Counts a kick, and answers how long to stay away.
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
