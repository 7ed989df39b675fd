//! Reads a response body to its exact end, by the rule that [`framing`](super::framing) chose (RFC
//! 9112 §6.3).

use super::chunked::{Chunked, Content, Decoded};
use super::framing::BodyLength;
use super::limits::Limits;
use super::violation::Violation;

/// What is still to come of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    /// Nothing.
    Empty,
    /// So many bytes, at least one.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// Whatever comes until the connection ends.
    UntilClose,
}

impl From<BodyLength> for Body {
    fn from(length: BodyLength) -> Self {
        match length {
            BodyLength::Empty | BodyLength::Length(0) => Body::Empty,
            BodyLength::Length(left) => Body::Length(left),
            BodyLength::Chunked => Body::Chunked(Chunked::new()),
            BodyLength::UntilClose => Body::UntilClose,
        }
    }
}

impl Body {
    /// The exact end has been reached. Never so of a body that only the connection's end can end.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Chunked(chunked) => chunked.is_done(),
            Body::Length(_) | Body::UntilClose => false,
        }
    }

    /// Reads on, up to the end of one piece, of the body, or of `input`, which is not empty.
    #[inline]
    pub(crate) fn decode(&mut self, input: &[u8], limits: &Limits) -> Result<Decoded, Violation> {
        let taken = match self {
            Body::Empty => 0,
            Body::Length(left) => {
                let taken = usize::try_from(*left).map_or(input.len(), |n| n.min(input.len()));
                *self = match *left - taken as u64 {
                    0 => Body::Empty,
                    left => Body::Length(left),
                };
                taken
            }
            Body::Chunked(chunked) => return chunked.decode(input, limits),
            Body::UntilClose => input.len(),
        };
        let content = match taken {
            0 => Content::None,
            _ => Content::Data(0..taken),
        };
        Ok(Decoded {
            consumed: taken,
            content,
        })
    }
}
