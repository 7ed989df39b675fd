//! What happens to a response that has begun.

use std::fmt;

use http::StatusCode;

use crate::policy::decoding::Decoder;
use crate::response::Response;

/// What happens to a response that has begun: whether the readback sees it, and how its body is
/// decoded. A 101 (Switching Protocols) is always shown as it arrives, since the bytes after it are
/// not a body.
///
/// ```
/// use httpstream::policy::Screening;
/// use httpstream::Response;
///
/// /// A response that is to be sent again is kept from the readback.
/// fn screen(head: &Response<'_>) -> Screening {
///     match head.status().as_u16() {
///         401 => Screening::discard(),
///         429 => Screening::collect(),
///         _ => Screening::show(),
///     }
/// }
/// ```
#[must_use]
pub struct Screening {
    shown: Shown,
    decoders: Vec<Box<dyn Decoder>>,
    max_decoded: u64,
}

/// How much of a response the readback sees, and when. Later variants hold back more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shown {
    /// Everything, as it arrives.
    AtOnce,
    /// Everything, after the visit has seen the whole response.
    AtTheEnd,
    /// Only the head. The body is not even stored.
    WithoutBody,
}

impl Screening {
    fn of(shown: Shown) -> Self {
        Self {
            shown,
            decoders: Vec::new(),
            max_decoded: u64::MAX,
        }
    }

    /// Shows the response to the readback as it arrives. Once the readback has
    /// [seen](crate::Moment::is_shown) any of it, the request cannot be sent again.
    pub fn show() -> Self {
        Self::of(Shown::AtOnce)
    }

    /// Holds the response back until [`Visit::on_end`](super::Visit::on_end), which sees the body.
    /// If it is delivered then, the readback sees it as if it had just arrived. Its body is limited
    /// by [`Limits::max_body_bytes`](crate::Limits::max_body_bytes).
    pub fn collect() -> Self {
        Self::of(Shown::AtTheEnd)
    }

    /// Holds the response back until [`Visit::on_end`](super::Visit::on_end) and drops its body,
    /// either by reading past it or by closing the connection, whichever is cheaper.
    pub fn discard() -> Self {
        Self::of(Shown::WithoutBody)
    }

    /// Decodes the body with `decoder`, so that everything after it sees decoded bytes, and neither
    /// `Content-Encoding` nor `Content-Length`.
    ///
    /// Call it once for each layer, the outermost first, which is the last coding named in
    /// Content-Encoding; there may be at most 5.
    /// [`Limits::max_body_bytes`](crate::Limits::max_body_bytes) limits a collected body in each of
    /// its layers, and [`max_decoded_bytes`](Self::max_decoded_bytes) a streamed one.
    pub fn decode(mut self, decoder: impl Decoder + 'static) -> Self {
        self.decoders.push(Box::new(decoder));
        self
    }

    /// Limits how many bytes a streamed body may have in each of its layers once it is
    /// [decoded](Self::decode). A body that exceeds this fails as
    /// [`TooLarge`](crate::ErrorKind::TooLarge), after the readback has seen at most that many
    /// bytes. By default it is not limited. Has no effect on a body that is not decoded or is
    /// collected.
    pub fn max_decoded_bytes(mut self, most: u64) -> Self {
        self.max_decoded = most;
        self
    }

    /// Combines the screenings of two policies: the response is held back as far as either of them
    /// asks. `self`, which is nearer to the wire, decodes first.
    pub(crate) fn then(mut self, outer: Self) -> Self {
        self.shown = self.shown.max(outer.shown);
        self.decoders.extend(outer.decoders);
        self.max_decoded = self.max_decoded.min(outer.max_decoded);
        self
    }

    /// Whether the readback sees the response that begins with `head` as it arrives.
    pub(crate) fn shows(&self, head: &Response<'_>) -> bool {
        // After a switch there is no body, but another protocol, which the readback speaks.
        self.shown == Shown::AtOnce || head.status() == StatusCode::SWITCHING_PROTOCOLS
    }

    /// Returns how the response is presented, the decoders of its body, and the most bytes of a
    /// streamed body in each of its layers.
    pub(crate) fn into_parts(self) -> (Shown, Vec<Box<dyn Decoder>>, u64) {
        (self.shown, self.decoders, self.max_decoded)
    }
}

impl fmt::Debug for Screening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screening")
            .field("shown", &self.shown)
            .field("decoders", &self.decoders.len())
            .finish()
    }
}
