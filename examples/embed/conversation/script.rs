//! The script: for each step of each chain, the request, the delay after the previous step, and how
//! the server responds.
//!
//! It contains only pure functions of chain and step, simple enough to be repeated in C
//! (`../c/conversation.h`, which must agree).

use std::time::Duration;

/// The number of chains, which run concurrently, in pairs.
pub(crate) const CHAINS: usize = 20;
/// The number of steps of each chain, one after the other.
pub(crate) const STEPS: usize = 50;

/// The subject of a step.
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
    /// 200 with `Connection: close`.
    Closing,
    /// 200 without a length: the end of the connection ends the body.
    UntilClose,
    /// 103 twice, then 200.
    Interim,
    /// 204, which has no body.
    NoContent,
    /// 304, which has no body either, whatever its Content-Length.
    NotModified,
    /// The response to HEAD: a length and no body.
    Head,
    /// 404 with a body: a response like any other.
    NotFound,
    /// The server sends the request's body back.
    Echo,
    /// 503, then 200 when the same request is sent again.
    Busy,
    /// 200; the follow-on, which carries the response's checksum, is read by another readback.
    Elsewhere,
    /// 200, streamed: paused before and after the first piece, and resumed each time by a delayed
    /// call.
    Paused,
    /// 200 with 256 KiB; the readback aborts it when it has seen the head.
    Abort,
    /// The server holds the request of the even chain of a pair. The odd chain gets a response once
    /// that request has arrived, and cancels it.
    Cancelled,
    /// The status is not a number.
    Malformed,
    /// The body is longer than the request allows.
    TooLarge,
    /// The connection ends inside the body.
    Truncated,
    /// The connection ends between two chunks.
    TruncatedChunked,
    /// The connection ends when the request has arrived, and again for each retry.
    Closed,
    /// The same for a POST, which is never sent again.
    ClosedPost,
    /// The server sends nothing until the request times out.
    Silence,
    /// The port refuses the connection.
    Refused,
}

/// The acts in the order used by [`Place::act`].
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
/// The number of bytes of the body that arrive in [`Act::Truncated`].
pub(crate) const TRUNCATED_AT: usize = 90;
/// The size of each chunk of [`Act::Chunked`] except the last. [`Act::TruncatedChunked`] sends one.
pub(crate) const CHUNK: usize = 120;

/// One step of one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) chain: usize,
    pub(crate) step: usize,
}

impl Place {
    /// Returns the act of this step. Both chains of a pair have the same acts. 7 and the number of
    /// acts are coprime, so each chain goes through all acts.
    pub(crate) fn act(self) -> Act {
        ACTS[(self.step * 7 + self.chain / 2 * 3) % ACTS.len()]
    }

    /// Returns the delay between the response of the previous step, or the start, and the request.
    pub(crate) fn delay(self) -> Duration {
        Duration::from_millis(self.delay_ms())
    }

    pub(crate) fn delay_ms(self) -> u64 {
        ((self.chain * 3 + self.step * 5) % 8) as u64
    }

    /// Returns whether this request is held and canceled, as opposed to the one that cancels it.
    pub(crate) fn is_held(self) -> bool {
        self.act() == Act::Cancelled && self.chain.is_multiple_of(2)
    }

    /// Returns the same step of the other chain of the pair.
    pub(crate) fn partner(self) -> Self {
        Self {
            chain: self.chain ^ 1,
            ..self
        }
    }

    /// Returns the length of the body: the request's in [`Act::Echo`] and [`Act::ClosedPost`],
    /// otherwise the response's.
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

/// FNV-1a, 32 bits: no protection against tampering, but five lines in any language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checksum(pub(crate) u32);

impl Checksum {
    pub(crate) const EMPTY: Self = Self(0x811c_9dc5);

    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::EMPTY.and(bytes)
    }

    /// Returns the checksum of the bytes so far followed by `bytes`.
    pub(crate) fn and(self, bytes: &[u8]) -> Self {
        let add = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        Self(bytes.iter().fold(self.0, add))
    }
}
