//! The parts of a response that are kept between two reads.

use crate::h1::collected::Collected;
use crate::proto::field::Field;
use crate::proto::head::Head;

/// What is kept of a response that did not arrive in one read. Recycled between responses.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    /// The head section. While it is incomplete, everything received so far.
    pub(crate) section: Vec<u8>,
    pub(crate) head: Head,
    pub(crate) body: Collected,
    pub(crate) trailers: Vec<u8>,
    pub(crate) trailer_fields: Vec<Field>,
    /// Bytes that were read, but must not be processed during a pause.
    pub(crate) held: Vec<u8>,
    /// The readback has paused the response, and has not heard yet that it goes on.
    pub(crate) is_paused: bool,
}

impl Inbound {
    /// Clears the contents and keeps the buffers.
    pub(crate) fn clear(&mut self) {
        self.section.clear();
        self.body.clear();
        self.trailers.clear();
        self.trailer_fields.clear();
        self.held.clear();
        self.is_paused = false;
    }

    /// Returns the number of bytes allocated for its buffers.
    pub(crate) fn capacity(&self) -> usize {
        self.section.capacity()
            + self.body.capacity()
            + self.trailers.capacity()
            + self.held.capacity()
    }
}
