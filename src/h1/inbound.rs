//! What is kept of a response between two reads.

use crate::h1::collected::Collected;
use crate::proto::field::Field;
use crate::proto::head::Head;

/// What is kept of a response that did not arrive whole. Recycled.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    /// The head section; while it is incomplete, all that has come.
    pub(crate) section: Vec<u8>,
    pub(crate) head: Head,
    pub(crate) body: Collected,
    pub(crate) trailers: Vec<u8>,
    pub(crate) trailer_fields: Vec<Field>,
    /// Read, but held back by a pause.
    pub(crate) held: Vec<u8>,
}

impl Inbound {
    /// Empty again, its buffers kept.
    pub(crate) fn clear(&mut self) {
        self.section.clear();
        self.body.clear();
        self.trailers.clear();
        self.trailer_fields.clear();
        self.held.clear();
    }

    /// Bytes that its buffers take.
    pub(crate) fn capacity(&self) -> usize {
        self.section.capacity()
            + self.body.capacity()
            + self.trailers.capacity()
            + self.held.capacity()
    }
}
