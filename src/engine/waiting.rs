//! The chains that wait for a connection, in order of arrival. The queue of an origin is a list
//! linked through the chains themselves.

use crate::engine::chain::{ChainKey, Marks, Stage};
use crate::engine::clock::tick_after;
use crate::engine::core::{Core, Timer};
use crate::net::Net;
use crate::net::pool::{OriginKey, TurnedAway};
use crate::net::slots::MaybeKey;

/// A warning is logged after this many milliseconds in a queue.
pub(super) const LONG_WAIT_MILLIS: u64 = 1000;

impl<N: Net> Core<N> {
    /// Arms the timer for the warning about the origin's first request, which may wait for long.
    pub(super) fn watch_queue(&mut self, origin: OriginKey) {
        if self.pool[origin].watch.is_none()
            && let Some((first, _)) = self.pool[origin].waiting
        {
            let due = tick_after(self.chains[first].submitted) + LONG_WAIT_MILLIS;
            let timer = self.timers.arm(due, Timer::LongWait(origin));
            self.pool[origin].watch = Some(timer);
        }
    }

    /// Cancels that timer, because the origin's queue is empty.
    fn unwatch_queue(&mut self, origin: OriginKey) {
        if let Some(timer) = self.pool[origin].watch.take() {
            self.timers.cancel(timer);
        }
    }

    /// Describes the configured limit that keeps an origin's requests from getting another
    /// connection, if there is one.
    pub(super) fn limit_reached(&self, origin: OriginKey) -> Option<String> {
        let of_origin = self.settings.max_links_per_origin;
        let of_all = self.settings.max_links;
        if self.pool[origin].links >= of_origin {
            Some(format!(
                "all {of_origin} connections to this origin are in use (max_connections_per_origin)"
            ))
        } else if self.links.len() >= of_all {
            Some(format!(
                "all {of_all} connections are in use (max_connections)"
            ))
        } else {
            None
        }
    }

    /// Puts a chain at the end of its origin's queue.
    pub(super) fn enqueue(&mut self, origin: OriginKey, key: ChainKey) {
        let before = self.pool[origin].waiting.map(|(_, last)| last);
        self.chains[key].stage = Stage::Queued {
            before: before.into(),
            behind: MaybeKey::NONE,
        };
        if let Some(last) = before
            && let Stage::Queued { behind, .. } = &mut self.chains[last].stage
        {
            *behind = key.into();
        }
        let first = self.pool[origin].waiting.map_or(key, |(first, _)| first);
        self.pool[origin].waiting = Some((first, key));
        self.watch_queue(origin);
    }

    /// Puts a chain back at the head of its origin's queue.
    pub(super) fn enqueue_first(&mut self, origin: OriginKey, key: ChainKey) {
        let behind = self.pool[origin].waiting.map(|(first, _)| first);
        self.chains[key].stage = Stage::Queued {
            before: MaybeKey::NONE,
            behind: behind.into(),
        };
        if let Some(first) = behind
            && let Stage::Queued { before, .. } = &mut self.chains[first].stage
        {
            *before = key.into();
        }
        let last = self.pool[origin].waiting.map_or(key, |(_, last)| last);
        self.pool[origin].waiting = Some((key, last));
        self.watch_queue(origin);
    }

    /// Removes a chain from its queue.
    pub(super) fn dequeue(&mut self, key: ChainKey) {
        let Stage::Queued { before, behind } = self.chains[key].stage else {
            unreachable!("{:?} is in no queue", self.chains[key].stage)
        };
        let origin = self.chains[key].origin_key();
        let (before, behind) = (before.get(), behind.get());
        if let Some(before) = before
            && let Stage::Queued { behind: its, .. } = &mut self.chains[before].stage
        {
            *its = behind.into();
        }
        if let Some(behind) = behind
            && let Stage::Queued { before: its, .. } = &mut self.chains[behind].stage
        {
            *its = before.into();
        }
        let waiting = &mut self.pool[origin].waiting;
        *waiting = match (*waiting, before, behind) {
            (Some(_), None, None) | (None, ..) => None,
            (Some((_, last)), None, Some(behind)) => Some((behind, last)),
            (Some((first, _)), Some(before), None) => Some((first, before)),
            (Some(ends), Some(_), Some(_)) => Some(ends),
        };
        if waiting.is_none() {
            self.unwatch_queue(origin);
            self.forget_turned_away(origin);
        }
        self.chains[key].stage = Stage::New;
        self.chains[key].marks.clear(Marks::EXHAUSTED);
    }

    /// Allows the origin to connect again before the retry timer goes off.
    pub(super) fn forget_turned_away(&mut self, origin: OriginKey) {
        if let Some(TurnedAway { retry, .. }) = self.pool[origin].turned_away.take() {
            self.timers.cancel(retry);
        }
    }
}
