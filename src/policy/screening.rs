//! What becomes of a response that has begun.

use std::fmt;

use http::StatusCode;

use crate::policy::decoding::Decoder;
use crate::response::Response;

/// What becomes of the response that has begun: whether the readback sees it, and what is decoded.
/// A 101 (Switching Protocols) is always shown as it comes, since what follows it is no body.
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
}

/// How much of a response the readback sees, and when. The later one keeps more back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shown {
    /// All, as it comes.
    AtOnce,
    /// All, once the visit has seen it whole.
    AtTheEnd,
    /// The head. The body is not even kept.
    WithoutBody,
}

impl Screening {
    fn of(shown: Shown) -> Self {
        Self {
            shown,
            decoders: Vec::new(),
        }
    }

    /// The readback sees the response as it comes. It stands then, and cannot be sent again.
    pub fn show() -> Self {
        Self::of(Shown::AtOnce)
    }

    /// The response is kept from the readback until [`Visit::on_end`](super::Visit::on_end), which
    /// sees the body. If it is delivered then, it is shown as though it came at once. Its body is
    /// bounded by [`Limits::max_body_bytes`](crate::Limits::max_body_bytes).
    pub fn collect() -> Self {
        Self::of(Shown::AtTheEnd)
    }

    /// The response is kept from the readback until [`Visit::on_end`](super::Visit::on_end), and
    /// has no body: that is read unseen, or its connection closed, whichever is cheaper.
    pub fn discard() -> Self {
        Self::of(Shown::WithoutBody)
    }

    /// Has `decoder` decode the body, so that what goes on sees decoded bytes, and neither
    /// `Content-Encoding` nor `Content-Length`. Called again for each layer, the outermost first:
    /// the last coding that Content-Encoding names; 5 at most. A collected body is bounded by
    /// [`Limits::max_body_bytes`](crate::Limits::max_body_bytes) in each of its layers; one that is
    /// streamed is not, as any streamed body.
    pub fn decode(mut self, decoder: impl Decoder + 'static) -> Self {
        self.decoders.push(Box::new(decoder));
        self
    }

    /// That of two policies: kept back as far as either says. `self`, which is nearer to the wire,
    /// decodes first.
    pub(crate) fn then(mut self, outer: Self) -> Self {
        self.shown = self.shown.max(outer.shown);
        self.decoders.extend(outer.decoders);
        self
    }

    /// Whether the readback sees the response that has begun with `head` as it comes.
    pub(crate) fn shows(&self, head: &Response<'_>) -> bool {
        // What follows a switch is no body, but another protocol, which the readback speaks.
        self.shown == Shown::AtOnce || head.status() == StatusCode::SWITCHING_PROTOCOLS
    }

    pub(crate) fn into_parts(self) -> (Shown, Vec<Box<dyn Decoder>>) {
        (self.shown, self.decoders)
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
