//! The state that all downloads share: what is still to be fetched, where output goes, and the
//! count of what has ended.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use httpstream::session::Retry;
use httpstream::{ChainId, Context, Next, Outcome, Request, Stats};

use crate::board::{Board, PACE};
use crate::download::Download;
use crate::listen::listen;
use crate::options::Fail;
use crate::outlet::Outlet;
use crate::report::Ended;
use crate::stdout::Stdout;
use crate::tap::Tap;
use crate::write_out::Format;

/// One URL to fetch.
pub(crate) struct Job {
    /// From 0, in the order of the URLs.
    pub(crate) number: usize,
    /// As given.
    pub(crate) url: String,
    pub(crate) request: Request,
    pub(crate) tap: Tap,
    /// Where in the body to begin (-C).
    pub(crate) offset: u64,
    pub(crate) outlet: Outlet,
}

pub(crate) struct Hub {
    pub(crate) rules: Rules,
    pub(crate) board: Board,
    pub(crate) stdout: Stdout,
    pub(crate) tally: Tally,
    jobs: VecDeque<Job>,
    /// The number of downloads in progress.
    active: usize,
    /// The chain that redraws the bars.
    pub(crate) ticker: Option<ChainId>,
}

/// What applies to all downloads.
pub(crate) struct Rules {
    pub(crate) follows: bool,
    pub(crate) fail: Option<Fail>,
    pub(crate) only_head: bool,
    pub(crate) retry: Option<Patience>,
    /// Bodies are event streams.
    pub(crate) events: bool,
    /// How long an event stream is read.
    pub(crate) max_time: Option<Duration>,
    pub(crate) write_out: Option<Format>,
}

/// What was fetched.
#[derive(Default)]
pub(crate) struct Tally {
    fetched: usize,
    /// Failed because of their status.
    refused: usize,
    /// Failed for another reason.
    broken: usize,
    /// In the bodies that were fetched.
    bytes: u64,
    /// Requests that were sent again, by --retry.
    pub(crate) retried: u64,
}

/// How often a failed request is sent again, and until when.
pub(crate) struct Patience {
    pub(crate) retry: Retry,
    pub(crate) max_time: Option<Duration>,
}

impl Patience {
    /// Returns how long to wait before a request is sent again that has failed `failures` times,
    /// the first time `since`; `None` if it is not to be sent again.
    pub(crate) fn wait<'o>(
        &self,
        failures: usize,
        since: Instant,
        why: impl Into<Outcome<'o>>,
        cx: &Context<'_, Hub>,
    ) -> Option<Duration> {
        let failures = u32::try_from(failures).unwrap_or(u32::MAX);
        let wait = self.retry.wait(failures, why, &cx.moment())?;
        let in_all = cx
            .now()
            .saturating_duration_since(since)
            .saturating_add(wait);
        let is_too_late = self.max_time.is_some_and(|most| in_all > most);
        (!is_too_late).then_some(wait)
    }
}

impl Hub {
    pub(crate) fn new(rules: Rules, board: Board, jobs: Vec<Job>) -> Self {
        Self {
            rules,
            board,
            stdout: Stdout::default(),
            tally: Tally::default(),
            jobs: jobs.into(),
            active: 0,
            ticker: None,
        }
    }

    /// Returns the next download.
    pub(crate) fn next(&mut self) -> Option<Next<Self>> {
        let job = self.jobs.pop_front()?;
        self.active += 1;
        if self.rules.events {
            return Some(listen(job, &self.rules));
        }
        let request = job.request.clone();
        let download = Download::new(job);
        download.show(&mut self.board);
        Some(Next::send(request).read_to(download))
    }

    /// Notes that a download has ended, and returns the one that follows it in its chain.
    pub(crate) fn follow(&mut self, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.active -= 1;
        if let Some(next) = self.next() {
            return next;
        }
        if self.active == 0
            && let Some(ticker) = self.ticker.take()
        {
            cx.cancel(ticker);
        }
        Next::done()
    }

    /// Redraws the bars, and does so again after a while.
    pub(crate) fn tick(&mut self, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.board.draw(cx.now());
        Next::call(Self::tick).after(PACE)
    }
}

impl Tally {
    /// Counts a download with so many bytes, and returns the exit code if it were the only one.
    pub(crate) fn count(&mut self, ended: &Ended, bytes: u64) -> u8 {
        match ended {
            Ended::Fetched(_) => {
                self.fetched += 1;
                self.bytes += bytes;
                0
            }
            Ended::Refused(_) => {
                self.refused += 1;
                REFUSED
            }
            Ended::Broken(_) => {
                self.broken += 1;
                BROKEN
            }
        }
    }

    /// Returns the number of downloads that have ended.
    pub(crate) fn ended(&self) -> usize {
        self.fetched + self.refused + self.broken
    }

    pub(crate) fn sum_up(&self, stats: &Stats, took: Duration) -> String {
        format!(
            "{} of {} fetched, {} bytes in {:.3} s; {} connections opened, \
             {} requests on reused connections, {} sent again",
            self.fetched,
            self.ended(),
            self.bytes,
            took.as_secs_f64(),
            stats.opened,
            stats.reused,
            stats.retried + self.retried,
        )
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match (self.broken, self.refused) {
            (0, 0) => 0,
            (0, _) => REFUSED,
            _ => BROKEN,
        }
    }
}

/// The exit code if a transfer has failed.
pub(crate) const BROKEN: u8 = 1;

/// The exit code if a response had a status of 400 or above, with -f.
pub(crate) const REFUSED: u8 = 22;
