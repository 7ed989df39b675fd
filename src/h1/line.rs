//! The requests behind the front one on a connection (RFC 9112 §9.3.2), in the order in which they
//! are written and answered.
//!
//! ```text
//!  front │ behind: written ── written ── partly written ── unwritten ── unwritten
//!        │         └──── sent ────┘
//! ```

use std::collections::VecDeque;

use crate::h1::exchange::Exchange;
use crate::h1::trust::MOST_IN_TRIAL;

/// The requests behind the front one, on a connection where every request may be pipelined.
///
/// A line exists from the first such request until the connection is free again, and is then reused
/// for another connection: anything that must outlast it belongs in [`H1`](crate::h1::H1). The pool
/// records whether a line [has room](Self::has_room), so code that changes this must call
/// [`note_room`](crate::net::pool::Pool::note_room).
#[derive(Debug)]
pub(crate) struct Line<T> {
    behind: VecDeque<Exchange<T>>,
    /// How many of them have been written completely, counted from the first.
    sent: usize,
    /// The most unanswered requests, including the front one, that all of them allow: the smallest
    /// depth requested.
    depth: u16,
    pub(crate) intake: Intake,
    /// How many of the requests in `behind` may be written.
    allowed: usize,
    trial: Option<Trial>,
    record: Record,
    /// Everything written on the connection has been answered, and the requests in line are
    /// unwritten: the connection must be checked before they are sent.
    pub(crate) is_unsure: bool,
}

/// Whether a connection accepts further requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intake {
    Open,
    /// Opens after the next response.
    AfterAnswer,
    /// Accepts no more. The requests in line are written and answered, and the connection closes
    /// after the last of them. Lasts for the life of this line; [`begin`](Line::begin) sets it
    /// anew.
    Shut,
}

/// What the responses so far show about the connection's server. A response alone proves little: a
/// server that drops the requests behind the one it reads also answers.
///
/// ```text
/// Untried ──► Answered ◄──► OnTrial ──► Proven
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    /// No response yet since the line began.
    Untried,
    /// Responses only to requests that were sent when everything before them had been answered.
    Answered,
    /// The front request was sent before the previous one was answered.
    OnTrial,
    /// A request that was sent before the previous one was answered has been answered.
    Proven,
}

/// Requests that go out in one send, with nothing after them until all are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trial {
    requests: u16,
    unanswered: u16,
}

/// How much of a request in line has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Unwritten,
    Partly,
    Whole,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            behind: VecDeque::new(),
            sent: 0,
            depth: 0,
            intake: Intake::Shut,
            allowed: 0,
            trial: None,
            record: Record::Untried,
            is_unsure: false,
        }
    }
}

impl<T> Line<T> {
    /// Resets the line to start behind a request with this pipeline depth.
    pub(crate) fn begin(&mut self, depth: u16, intake: Intake) {
        debug_assert!(self.behind.is_empty(), "a recycled line is empty");
        self.sent = 0;
        self.depth = depth;
        self.intake = intake;
        self.allowed = 0;
        self.trial = None;
        self.record = Record::Untried;
        self.is_unsure = false;
    }

    /// Returns the number of unanswered requests, including the front one.
    pub(crate) fn unanswered(&self) -> usize {
        1 + self.behind.len()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.intake == Intake::Open && self.unanswered() < usize::from(self.depth)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.behind.is_empty()
    }

    /// Appends a request with this pipeline depth.
    pub(crate) fn push(&mut self, behind: Exchange<T>, depth: u16) {
        self.depth = self.depth.min(depth);
        self.behind.push_back(behind);
    }

    /// Returns the last request in line.
    pub(crate) fn last_mut(&mut self) -> Option<&mut Exchange<T>> {
        self.behind.back_mut()
    }

    /// Returns how much has been written of the request at `place` in the line.
    pub(crate) fn extent(&self, place: usize) -> Extent {
        match self.behind.get(place) {
            _ if place < self.sent => Extent::Whole,
            Some(next) if next.written() > 0 => Extent::Partly,
            Some(_) | None => Extent::Unwritten,
        }
    }

    /// Returns whether any byte of the requests in line has been written.
    pub(crate) fn has_begun(&self) -> bool {
        self.extent(0) != Extent::Unwritten
    }

    /// Returns whether part of a request in line can be written now.
    pub(crate) fn has_unwritten(&self) -> bool {
        let next = self.behind.get(self.sent);
        self.sent < self.allowed && next.is_some_and(|next| !next.is_capped())
    }

    /// Returns the requests that have not been written completely.
    pub(crate) fn unwritten(&self) -> impl Iterator<Item = &Exchange<T>> {
        self.behind.range(self.sent..)
    }

    /// Returns the requests that have not been written completely and are not held back.
    pub(crate) fn writable(&self) -> impl Iterator<Item = &Exchange<T>> {
        self.unwritten()
            .take(self.allowed.saturating_sub(self.sent))
            .take_while(|next| !next.is_capped())
    }

    /// Lets all requests be written as soon as they are added.
    pub(crate) fn hold_nothing_back(&mut self) {
        self.allowed = usize::MAX;
    }

    /// Starts a trial of the origin: requests in line go out together with the front one, none of
    /// which has been written yet, `most` requests in all. Returns false if the line is empty, if
    /// the first request in it is written only at the front, or if a trial is already running.
    pub(crate) fn begin_trial(&mut self, most: u16) -> bool {
        let first = self.behind.iter().take(usize::from(most) - 1);
        let together = first.take_while(|next| !next.is_capped()).count();
        if self.trial.is_some() || together == 0 {
            return false;
        }
        self.allowed = together;
        let requests = 1 + self.allowed as u16;
        self.trial = Some(Trial {
            requests,
            unanswered: requests,
        });
        true
    }

    /// Returns whether a trial of the origin is running on this connection.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// Ends the trial, if one is running and all of its requests have been answered. Returns how
    /// many requests it had, and whether no larger trial is needed.
    pub(crate) fn end_trial(&mut self) -> Option<(u16, bool)> {
        let Trial { requests, .. } = self.trial.take_if(|trial| trial.unanswered == 0)?;
        Some((requests, requests >= self.depth.min(MOST_IN_TRIAL)))
    }

    /// Records that `bytes` more of the requests in line have been written. Returns how many
    /// requests that completed.
    pub(crate) fn on_written(&mut self, bytes: usize, now: u64) -> u64 {
        let before = self.sent;
        let mut left = bytes;
        while left > 0
            && let Some(next) = self.behind.get_mut(self.sent)
        {
            left -= next.on_written(left, true, now).0;
            if !next.is_sent() {
                break;
            }
            self.sent += 1;
        }
        (self.sent - before) as u64
    }

    /// Records that a response has been read to its end.
    pub(crate) fn on_answer(&mut self) {
        if let Some(trial) = &mut self.trial {
            trial.unanswered = trial.unanswered.saturating_sub(1);
        }
        self.record = match self.record {
            Record::Untried | Record::Answered => Record::Answered,
            Record::OnTrial | Record::Proven => Record::Proven,
        };
        if self.intake == Intake::AfterAnswer {
            self.intake = Intake::Open;
        }
    }

    /// Returns whether the connection has shown that it can be pipelined.
    pub(crate) fn is_proven(&self) -> bool {
        self.record == Record::Proven
    }

    /// Returns whether no response has come since the line began.
    pub(crate) fn is_untried(&self) -> bool {
        self.record == Record::Untried
    }

    /// Removes the first request in line, to become the front one.
    pub(crate) fn take_next(&mut self) -> Option<Exchange<T>> {
        let next = self.behind.pop_front()?;
        if self.allowed != usize::MAX {
            self.allowed = self.allowed.saturating_sub(1);
        }
        if self.sent > 0 {
            self.sent -= 1;
            if self.record == Record::Answered {
                self.record = Record::OnTrial;
            }
        }
        Some(next)
    }

    /// Removes the last request in line, and returns it with how much of it has been written.
    pub(crate) fn take_last(&mut self) -> Option<(Exchange<T>, Extent)> {
        let place = self.behind.len().checked_sub(1)?;
        let progress = self.extent(place);
        let last = self.behind.pop_back()?;
        self.sent = self.sent.min(place);
        Some((last, progress))
    }

    /// Removes the request at `place`, of which nothing has been written.
    pub(crate) fn remove(&mut self, place: usize) {
        debug_assert_eq!(self.extent(place), Extent::Unwritten);
        self.behind.remove(place);
        if place < self.allowed && self.allowed != usize::MAX {
            self.allowed -= 1;
        }
    }

    /// Returns the place in line of the request with this tag.
    pub(crate) fn place_of(&self, tag: T) -> Option<usize>
    where
        T: PartialEq,
    {
        self.behind.iter().position(|next| next.tag == tag)
    }

    pub(crate) fn len(&self) -> usize {
        self.behind.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;

    /// A request with ten bytes more than the head of a minimal one.
    fn behind(tag: u32) -> Exchange<u32> {
        let request = Request::get("http://a.example/").build().unwrap();
        Exchange::new(tag, request, (0, b"X: y\r\n\r\n"), false, 0)
    }

    fn bytes() -> usize {
        behind(0).writable()
    }

    fn line(requests_behind: u32) -> Line<u32> {
        let mut line = Line::default();
        line.begin(16, Intake::Open);
        for tag in 1..=requests_behind {
            line.push(behind(tag), 16);
        }
        line
    }

    #[test]
    fn what_is_written_is_told_request_by_request() {
        let mut line = line(3);
        let all = bytes();
        let mut sent = 0;
        for (bytes, expected) in [(all - 1, 0), (1, 1), (5, 1), (0, 1), (2 * all - 5, 3)] {
            sent += line.on_written(bytes, 7);
            assert_eq!(sent, expected, "after {bytes} more");
        }
        assert!(!line.has_unwritten());
        let next = line.take_next().unwrap();
        assert_eq!((next.tag, next.times.sent, next.written()), (1, 8, all));
    }

    #[test]
    fn the_next_in_line_brings_what_is_written_of_it() {
        let mut line = line(3);
        let all = bytes();
        line.on_written(all + 4, 1);
        let written = std::iter::from_fn(|| line.take_next()).map(|next| next.written());
        assert_eq!(written.collect::<Vec<_>>(), [all, 4, 0]);
        assert!(!line.has_begun() && line.is_empty());
    }

    /// A request like that of [`behind`], with a capped upload.
    fn capped(tag: u32) -> Exchange<u32> {
        let request = Request::get("http://a.example/").upload_rate(1).build();
        let mut capped = Exchange::new(tag, request.unwrap(), (0, b"X: y\r\n\r\n"), false, 0);
        capped.cap_upload();
        capped
    }

    #[test]
    fn a_capped_request_holds_back_itself_and_those_behind_it() {
        let mut line = line(2);
        line.push(capped(3), 16);
        line.push(behind(4), 16);
        line.hold_nothing_back();
        let tags = |line: &Line<u32>| line.writable().map(|next| next.tag).collect::<Vec<_>>();
        assert_eq!(tags(&line), [1, 2]);
        line.on_written(2 * bytes(), 7);
        assert!(tags(&line).is_empty());
        assert!(!line.has_unwritten());
        for tag in [1, 2, 3] {
            assert_eq!(line.take_next().unwrap().tag, tag);
        }
        assert!(
            line.has_unwritten(),
            "once it is in front, the next may follow"
        );
        assert_eq!(tags(&line), [4]);
    }

    #[test]
    fn a_capped_request_is_in_no_trial() {
        let mut line = line(2);
        line.push(capped(3), 16);
        line.push(behind(4), 16);
        assert!(line.begin_trial(16));
        assert_eq!(line.writable().count(), 2);
        for _ in 0..3 {
            assert_eq!(line.end_trial(), None);
            line.on_answer();
        }
        assert_eq!(line.end_trial(), Some((3, false)));
        line.take_next();
        line.take_next();
        assert!(!line.begin_trial(16), "a capped request is first in line");
        assert!(!line.is_on_trial());
    }

    #[test]
    fn the_last_in_line_is_taken_with_what_is_written_of_it() {
        let mut line = line(4);
        line.on_written(2 * bytes() + 4, 1);
        assert_eq!(line.place_of(3), Some(2));
        let mut taken = Vec::new();
        while let Some((last, progress)) = line.take_last() {
            taken.push((last.tag, progress));
        }
        let expected = [
            (4, Extent::Unwritten),
            (3, Extent::Partly),
            (2, Extent::Whole),
            (1, Extent::Whole),
        ];
        assert_eq!(taken, expected);
        assert!(!line.has_begun() && !line.has_unwritten());
    }

    #[test]
    fn the_most_modest_request_says_how_deep_it_goes() {
        let mut line = line(1);
        assert!(line.has_room());
        line.push(behind(2), 3);
        assert!(!line.has_room(), "three are unanswered");
        line.take_next();
        assert!(line.has_room());
        line.intake = Intake::AfterAnswer;
        assert!(!line.has_room());
        line.on_answer();
        assert!(line.has_room());
    }

    #[test]
    fn only_what_was_sent_early_proves_a_connection() {
        let mut alone = line(2);
        while !alone.is_empty() {
            alone.on_answer();
            alone.take_next();
        }
        alone.on_answer();
        assert!(
            !alone.is_proven(),
            "each was written while it was the front request"
        );

        let mut early = line(1);
        early.on_written(bytes(), 1);
        early.on_answer();
        early.take_next();
        assert!(!early.is_proven(), "its response is still outstanding");
        early.on_answer();
        assert!(early.is_proven());
    }
}
