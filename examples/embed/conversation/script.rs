//! The script: what is asked in each step of each chain, how long after the step before, and what
//! the server makes of it.
//!
//! Nothing here but pure functions of chain and step, plain enough to be said once more in C
//! (`../c/conversation.h`, which has to agree).

use std::time::Duration;

/// Chains that run beside each other, in pairs.
pub(crate) const CHAINS: usize = 20;
/// Steps of each chain, one after the other.
pub(crate) const STEPS: usize = 50;

/// What a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// 200 with a Content-Length.
    Whole,
    /// 200 in chunks, with a trailer field.
    Chunked,
    /// 200 in five pieces, a millisecond between them.
    Pieces,
    /// 200 with 256 KiB.
    Large,
    /// 200, after which the server closes the connection and says so.
    Closing,
    /// 200 of unknown length: the end of the connection is the end of the body.
    UntilClose,
    /// 103 twice, then 200.
    Interim,
    /// 204, which has no body.
    NoContent,
    /// 304, which has none either, whatever length it tells.
    NotModified,
    /// The answer to HEAD: a length, and no body.
    Head,
    /// 404 with a body: a response like any other.
    NotFound,
    /// A body is sent, and comes back.
    Echo,
    /// 503, and 200 when the same request is sent again.
    Busy,
    /// 200; what follows at once, and tells the checksum of that, is read by another readback.
    Elsewhere,
    /// 200, streamed: paused before the first piece and after it, and each time resumed by a
    /// delayed call.
    Paused,
    /// 200 with 256 KiB; the readback gives it up when it has seen the head.
    Abort,
    /// In the even chain of a pair the server holds the request, until the odd one, which was told
    /// that it is there, cancels it.
    Cancelled,
    /// The status is no number.
    Malformed,
    /// More of a body than the request allows.
    TooLarge,
    /// The connection ends inside the body.
    Truncated,
    /// The connection ends between two chunks.
    TruncatedChunked,
    /// The connection ends when the request has come, each time it comes.
    Closed,
    /// The same of a POST, which is never sent twice.
    ClosedPost,
    /// Not a byte, until the request's own time is over.
    Silence,
    /// Nobody listens.
    Refused,
}

/// The order in which the acts stand for [`Place::act`].
const ACTS: [Act; 25] = [
    Act::Whole,
    Act::Chunked,
    Act::Pieces,
    Act::Large,
    Act::Closing,
    Act::UntilClose,
    Act::Interim,
    Act::NoContent,
    Act::NotModified,
    Act::Head,
    Act::NotFound,
    Act::Echo,
    Act::Busy,
    Act::Elsewhere,
    Act::Paused,
    Act::Abort,
    Act::Cancelled,
    Act::Malformed,
    Act::TooLarge,
    Act::Truncated,
    Act::TruncatedChunked,
    Act::Closed,
    Act::ClosedPost,
    Act::Silence,
    Act::Refused,
];

/// How long the server may be silent in [`Act::Silence`].
pub(crate) const PATIENCE: Duration = Duration::from_millis(25);
/// How long [`Act::Paused`] is paused, each time.
pub(crate) const PAUSE: Duration = Duration::from_millis(3);
/// How long the two of [`Act::Cancelled`] may wait for each other.
pub(crate) const HOLD: Duration = Duration::from_secs(60);
/// The body that a request of [`Act::TooLarge`] allows.
pub(crate) const MAX_BODY_BYTES: u64 = 100;
/// What comes of the body in [`Act::Truncated`].
pub(crate) const TRUNCATED_AT: usize = 90;
/// The chunks of [`Act::Chunked`], but for the last; of [`Act::TruncatedChunked`] one comes.
pub(crate) const CHUNK: usize = 120;

/// One step of one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) chain: usize,
    pub(crate) step: usize,
}

impl Place {
    /// Both chains of a pair do the same, and 7 has no divisor in common with the number of acts:
    /// each chain goes through all.
    pub(crate) fn act(self) -> Act {
        ACTS[(self.step * 7 + self.chain / 2 * 3) % ACTS.len()]
    }

    /// Between the answer to the step before, or the start, and the request.
    pub(crate) fn delay(self) -> Duration {
        Duration::from_millis(self.delay_ms())
    }

    pub(crate) fn delay_ms(self) -> u64 {
        ((self.chain * 3 + self.step * 5) % 8) as u64
    }

    /// Whether this request is the one that is held and cancelled, rather than the one that waits
    /// for that.
    pub(crate) fn is_held(self) -> bool {
        self.act() == Act::Cancelled && self.chain.is_multiple_of(2)
    }

    /// The step that the odd chain of a pair cancels.
    pub(crate) fn partner(self) -> Self {
        Self {
            chain: self.chain ^ 1,
            ..self
        }
    }

    /// The length of the body: of the request in [`Act::Echo`] and [`Act::ClosedPost`], else of the
    /// response.
    pub(crate) fn body_bytes(self) -> usize {
        match self.act() {
            Act::Large | Act::Abort => 256 * 1024,
            Act::Paused => 40_000,
            Act::NoContent => 0,
            Act::Whole
            | Act::Chunked
            | Act::Pieces
            | Act::Closing
            | Act::UntilClose
            | Act::Interim
            | Act::NotModified
            | Act::Head
            | Act::NotFound
            | Act::Echo
            | Act::Busy
            | Act::Elsewhere
            | Act::Cancelled
            | Act::Malformed
            | Act::TooLarge
            | Act::Truncated
            | Act::TruncatedChunked
            | Act::Closed
            | Act::ClosedPost
            | Act::Silence
            | Act::Refused => 200 + self.chain * 13 + self.step * 7,
        }
    }

    pub(crate) fn body(self) -> Vec<u8> {
        let letter = |i: usize| b'a' + ((i * 7 + i / 26 + self.chain + self.step) % 26) as u8;
        (0..self.body_bytes()).map(letter).collect()
    }
}

/// FNV-1a over 32 bits: of no worth against malice, and five lines in any language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checksum(pub(crate) u32);

impl Checksum {
    pub(crate) const EMPTY: Self = Self(0x811c_9dc5);

    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::EMPTY.and(bytes)
    }

    /// The checksum of what this one is of and `bytes` behind it.
    pub(crate) fn and(self, bytes: &[u8]) -> Self {
        let add = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        Self(bytes.iter().fold(self.0, add))
    }
}
