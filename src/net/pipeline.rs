//! Pipelines: the requests of a link behind the one in front, and how far an origin is trusted with them (RFC 9112 §9.3.2).
//!
//! The one in front is the link's own, as it is without a pipeline: its chain and its bytes are in the link's state, and what is read is
//! its response. Those behind it wait here, in the order in which they are written and answered.
//!
//! ```text
//!  front │ behind: written ── written ── partly written ── unwritten ── unwritten
//!        │         └──── sent ────┘      └── written ─┘
//! ```

use std::collections::VecDeque;

use crate::net::slots::MaybeKey;

/// The requests behind the one in front, of a link all of whose requests may be pipelined. Recycled.
#[derive(Debug)]
pub(crate) struct Pipeline {
    behind: VecDeque<Behind>,
    /// How many of them, from the first on, are written to their end.
    sent: usize,
    /// Bytes written of the one after those.
    written: usize,
    /// Unanswered requests that the most modest of them allows, the one in front included.
    depth: u16,
    pub(crate) intake: Intake,
    /// How many of those behind may be written.
    allowed: usize,
    trial: Option<Trial>,
    record: Record,
    /// Its link's place among those of its origin that take more.
    pub(crate) spot: MaybeKey,
}

/// A request that waits behind others on its link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behind {
    pub(crate) chain: u32,
    /// When it was written, in microseconds after its start; 0 before.
    pub(crate) sent: u32,
    /// All its bytes.
    pub(crate) bytes: usize,
    /// Which of the engine's blocks of default fields goes with it.
    pub(crate) defaults: u16,
}

/// Whether a link takes more requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intake {
    Open,
    /// Once it has answered one.
    AfterAnswer,
    /// None any more: it is closed behind the last that it has.
    Shut,
}

/// What the answers so far say of the connection's server. One that reads a request and drops what came with it answers, too.
///
/// ```text
/// Untried ──► Answered ◄──► OnTrial ──► Proven
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    /// It has answered nothing since the pipeline began.
    Untried,
    /// Only what it was sent when all before was answered.
    Answered,
    /// The one in front was sent before the one before it was answered.
    OnTrial,
    /// It has answered such a one.
    Proven,
}

/// Requests in one send, and nothing behind them until all are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trial {
    requests: u16,
    unanswered: u16,
}

impl Trial {
    /// As many as go out in one send, however deep a pipeline is.
    const MOST: u16 = 16;
}

/// How much of a request that waits behind others is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Unwritten,
    Partly,
    Whole,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self {
            behind: VecDeque::new(),
            sent: 0,
            written: 0,
            depth: 0,
            intake: Intake::Shut,
            allowed: 0,
            trial: None,
            record: Record::Untried,
            spot: MaybeKey::NONE,
        }
    }
}

impl Pipeline {
    /// Begins anew behind a request of that depth.
    pub(crate) fn begin(&mut self, depth: u16, intake: Intake) {
        debug_assert!(
            self.behind.is_empty() && self.spot == MaybeKey::NONE,
            "it was given back empty"
        );
        self.sent = 0;
        self.written = 0;
        self.depth = depth;
        self.intake = intake;
        self.allowed = 0;
        self.trial = None;
        self.record = Record::Untried;
    }

    /// Requests without an answer, the one in front included.
    pub(crate) fn unanswered(&self) -> usize {
        1 + self.behind.len()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.intake == Intake::Open && self.unanswered() < usize::from(self.depth)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.behind.is_empty()
    }

    /// Puts a request of that depth behind all others.
    pub(crate) fn push(&mut self, behind: Behind, depth: u16) {
        self.depth = self.depth.min(depth);
        self.behind.push_back(behind);
    }

    /// How much is written of the one at `place` among those behind.
    pub(crate) fn progress(&self, place: usize) -> Progress {
        match place {
            _ if place < self.sent => Progress::Whole,
            _ if place == self.sent && self.written > 0 => Progress::Partly,
            _ => Progress::Unwritten,
        }
    }

    /// Whether a byte of one of them is written.
    pub(crate) fn has_begun(&self) -> bool {
        self.progress(0) != Progress::Unwritten
    }

    /// Whether something of them is to be written now.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.sent < self.behind.len().min(self.allowed)
    }

    /// Those of which something is still to be written.
    pub(crate) fn unwritten(&self) -> impl Iterator<Item = &Behind> {
        self.behind.range(self.sent..)
    }

    /// Those of them that are not held back.
    pub(crate) fn writable(&self) -> impl Iterator<Item = &Behind> {
        self.unwritten()
            .take(self.allowed.saturating_sub(self.sent))
    }

    /// Holds nothing back any more.
    pub(crate) fn release(&mut self) {
        self.allowed = usize::MAX;
    }

    /// Lets those behind go out with the one in front, of which nothing is written, `most` requests
    /// in all: a trial of their origin. False: there is none, or one is under way.
    pub(crate) fn begin_trial(&mut self, most: u16) -> bool {
        if self.trial.is_some() || self.is_empty() {
            return false;
        }
        self.allowed = self.behind.len().min(usize::from(most) - 1);
        let requests = 1 + self.allowed as u16;
        self.trial = Some(Trial {
            requests,
            unanswered: requests,
        });
        true
    }

    /// Whether its origin's trial is under way on it.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// Ends the trial, if there is one and all of its requests are answered. Answers how many they
    /// were, and whether more need not be tried.
    pub(crate) fn end_trial(&mut self) -> Option<(u16, bool)> {
        let Trial { requests, .. } = self.trial.take_if(|trial| trial.unanswered == 0)?;
        Some((requests, requests >= self.depth.min(Trial::MOST)))
    }

    /// How much is written of the first of those.
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    /// The socket has taken `bytes` more of those behind; `on_sent` is told of each whose last byte is among them, and answers when that is.
    pub(crate) fn on_written(&mut self, bytes: usize, mut on_sent: impl FnMut(u32) -> u32) {
        self.written += bytes;
        while let Some(next) = self.behind.get_mut(self.sent)
            && self.written >= next.bytes
        {
            self.written -= next.bytes;
            self.sent += 1;
            next.sent = on_sent(next.chain);
        }
    }

    /// A response has come to its end.
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

    /// Whether its connection has shown that it can be pipelined.
    pub(crate) fn is_proven(&self) -> bool {
        self.record == Record::Proven
    }

    /// Whether its connection has answered nothing of it.
    pub(crate) fn is_untried(&self) -> bool {
        self.record == Record::Untried
    }

    /// Takes the next in line out, to be the one in front, and says how much of it is written.
    pub(crate) fn take_next(&mut self) -> Option<(Behind, usize)> {
        let next = self.behind.pop_front()?;
        if self.allowed != usize::MAX {
            self.allowed = self.allowed.saturating_sub(1);
        }
        if self.sent == 0 {
            return Some((next, std::mem::take(&mut self.written)));
        }
        self.sent -= 1;
        if self.record == Record::Answered {
            self.record = Record::OnTrial;
        }
        Some((next, next.bytes))
    }

    /// Takes the last in line out, and says how much of it was written.
    pub(crate) fn take_last(&mut self) -> Option<(Behind, Progress)> {
        let last = self.behind.pop_back()?;
        let place = self.behind.len();
        let progress = self.progress(place);
        match progress {
            Progress::Whole => self.sent = place,
            Progress::Partly => self.written = 0,
            Progress::Unwritten => {}
        }
        Some((last, progress))
    }

    /// Takes out the one at `place`, of which nothing is written.
    pub(crate) fn remove(&mut self, place: usize) {
        debug_assert_eq!(self.progress(place), Progress::Unwritten);
        self.behind.remove(place);
        if place < self.allowed && self.allowed != usize::MAX {
            self.allowed -= 1;
        }
    }

    /// Where a chain is among those behind.
    pub(crate) fn place_of(&self, chain: u32) -> Option<usize> {
        self.behind.iter().position(|next| next.chain == chain)
    }

    pub(crate) fn len(&self) -> usize {
        self.behind.len()
    }
}

/// How far an origin is trusted with pipelines.
///
/// A server that answers some of the requests that it finds in a read and drops the others would
/// have every later response taken for the answer to the request before. So an origin is sent one
/// request at a time, and beside that a pair in one send; when both are answered, four, then eight,
/// then sixteen. Nothing goes behind such a batch until all of it is answered.
///
/// ```text
/// Untried ─── its trials are passed ───► Full ─── a pipeline breaks ──► Wary
///    │                                    ◄── a connection is proven ────┘
///    ├── the third connection in a row breaks that was not proven ──► Lost
///    └── it is silent inside of a batch, or speaks HTTP/1.0 ───►┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Its requests go one at a time, but for one batch of at most so many. So many connections in
    /// a row broke in that.
    Untried {
        breaks: u8,
        on_trial: bool,
        most: u16,
    },
    Full,
    /// A new connection has to answer a request before it is given a second. So many in a row broke before they were proven.
    Wary {
        breaks: u8,
    },
    /// Its requests go one at a time.
    Lost,
}

impl Trust {
    const MAX_BREAKS: u8 = 3;

    /// Of an origin of which nothing is known.
    pub(crate) const NEW: Self = Self::Untried {
        breaks: 0,
        on_trial: false,
        most: 2,
    };

    /// A connection ended with requests of a pipeline unanswered. `is_excused`: that says nothing against pipelining. Answers whether the
    /// trust is lost by that.
    #[must_use]
    pub(crate) fn on_broken(&mut self, is_excused: bool) -> bool {
        let before = match *self {
            Trust::Full => 0,
            Trust::Untried { breaks, .. } | Trust::Wary { breaks } => breaks,
            Trust::Lost => return false,
        };
        let breaks = before + u8::from(!is_excused);
        *self = match *self {
            _ if breaks >= Self::MAX_BREAKS => Trust::Lost,
            Trust::Untried { on_trial, most, .. } => Trust::Untried {
                breaks,
                on_trial,
                most,
            },
            _ => Trust::Wary { breaks },
        };
        *self == Trust::Lost
    }

    /// A connection has shown that it can be pipelined.
    pub(crate) fn on_proven(&mut self) {
        if let Trust::Wary { .. } = self {
            *self = Trust::Full;
        }
    }

    /// A trial of so many requests is passed; `is_last`: no more are ever sent at once.
    pub(crate) fn on_passed(&mut self, requests: u16, is_last: bool) {
        if let Trust::Untried { on_trial, most, .. } = self {
            *on_trial = false;
            *most = (*most).max(requests.saturating_mul(2)).min(Trial::MOST);
            if is_last {
                *self = Trust::Full;
            }
        }
    }

    /// A trial begins, or ends without a result.
    pub(crate) fn set_on_trial(&mut self, is_on_trial: bool) {
        if let Trust::Untried { on_trial, .. } = self {
            *on_trial = is_on_trial;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(chain: u32) -> Behind {
        Behind {
            chain,
            sent: 0,
            bytes: 10,
            defaults: 0,
        }
    }

    fn pipeline(requests_behind: u32) -> Pipeline {
        let mut pipeline = Pipeline::default();
        pipeline.begin(16, Intake::Open);
        for chain in 1..=requests_behind {
            pipeline.push(behind(chain), 16);
        }
        pipeline
    }

    #[test]
    fn what_is_written_is_told_request_by_request() {
        let mut pipeline = pipeline(3);
        let mut told = Vec::new();
        for (bytes, expected) in [(9, 0), (1, 1), (5, 1), (0, 1), (15, 3)] {
            pipeline.on_written(bytes, |chain| {
                told.push(chain);
                7
            });
            assert_eq!(told.len(), expected, "after {bytes} more");
        }
        assert_eq!(told, [1, 2, 3]);
        assert!(!pipeline.has_unwritten());
        let (next, written) = pipeline.take_next().unwrap();
        assert_eq!((next.chain, next.sent, written), (1, 7, 10));
    }

    #[test]
    fn the_next_in_line_brings_what_is_written_of_it() {
        let mut pipeline = pipeline(3);
        pipeline.on_written(14, |_| 1);
        let written = std::iter::from_fn(|| pipeline.take_next()).map(|(_, written)| written);
        assert_eq!(written.collect::<Vec<_>>(), [10, 4, 0]);
        assert!(!pipeline.has_begun() && pipeline.is_empty());
    }

    #[test]
    fn the_last_in_line_is_taken_with_what_is_written_of_it() {
        let mut pipeline = pipeline(4);
        pipeline.on_written(24, |_| 1);
        assert_eq!(pipeline.place_of(3), Some(2));
        let mut taken = Vec::new();
        while let Some((last, progress)) = pipeline.take_last() {
            taken.push((last.chain, progress));
        }
        let expected = [
            (4, Progress::Unwritten),
            (3, Progress::Partly),
            (2, Progress::Whole),
            (1, Progress::Whole),
        ];
        assert_eq!(taken, expected);
        assert!(!pipeline.has_begun() && !pipeline.has_unwritten());
    }

    #[test]
    fn the_most_modest_request_says_how_deep_it_goes() {
        let mut pipeline = pipeline(1);
        assert!(pipeline.has_room());
        pipeline.push(behind(2), 3);
        assert!(!pipeline.has_room(), "three are unanswered");
        pipeline.take_next();
        assert!(pipeline.has_room());
        pipeline.intake = Intake::AfterAnswer;
        assert!(!pipeline.has_room());
        pipeline.on_answer();
        assert!(pipeline.has_room());
    }

    #[test]
    fn only_what_was_sent_early_proves_a_connection() {
        let mut alone = pipeline(2);
        while !alone.is_empty() {
            alone.on_answer();
            alone.take_next();
        }
        alone.on_answer();
        assert!(!alone.is_proven(), "each was written when it was in front");

        let mut early = pipeline(1);
        early.on_written(10, |_| 1);
        early.on_answer();
        early.take_next();
        assert!(!early.is_proven(), "its answer is still to come");
        early.on_answer();
        assert!(early.is_proven());
    }

    #[test]
    fn trust_is_lost_by_three_connections_in_a_row() {
        let wary = |breaks| Trust::Wary { breaks };
        let mut trust = Trust::Full;
        for breaks in [1, 2] {
            assert!(!trust.on_broken(false));
            assert_eq!(trust, wary(breaks));
        }
        assert!(!trust.on_broken(true), "it had been proven");
        assert_eq!(trust, wary(2));
        trust.on_proven();
        assert_eq!(trust, Trust::Full);
        let lost: Vec<_> = (0..4).map(|_| trust.on_broken(false)).collect();
        assert_eq!(lost, [false, false, true, false]);
        trust.on_proven();
        assert_eq!(trust, Trust::Lost);
    }
}
