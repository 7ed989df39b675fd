//! Reads a response body to its exact end, by the rule that [`framing`](super::framing) selected
//! (RFC 9112 §6.3).

use super::chunked::{Chunked, Content, Decoded};
use super::framing::BodyLength;
use super::limits::Limits;
use super::violation::Violation;

/// The rest of a body that is still to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    /// Nothing.
    Empty,
    /// This many bytes, at least one.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// All bytes until the connection ends.
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
    /// Returns whether the exact end has been reached. Always false for a body that ends with the
    /// connection.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Chunked(chunked) => chunked.is_done(),
            Body::Length(_) | Body::UntilClose => false,
        }
    }

    /// Decodes up to the end of one piece, of the body, or of `input`, which must not be empty.
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
