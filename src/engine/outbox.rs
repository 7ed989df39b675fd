//! Bytes on their way into a tunnel.

/// Bytes that wait to be written on a tunnel.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// Up to here they are written.
    written: usize,
    /// A command is on its way that writes them.
    is_noted: bool,
}

impl Outbox {
    /// Adds bytes. Answers whether a command is to write them, which is not on its way yet.
    pub(super) fn put(&mut self, bytes: &[u8]) -> bool {
        self.bytes.extend_from_slice(bytes);
        !self.waiting().is_empty() && !std::mem::replace(&mut self.is_noted, true)
    }

    /// What waits is being written now: what is put from here on needs a command again.
    pub(super) fn on_looked_at(&mut self) {
        self.is_noted = false;
    }

    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// The connection has taken `n` more.
    pub(super) fn on_written(&mut self, n: usize) {
        self.written += n;
        // What is written is moved away once it is the larger part, so that a byte is moved twice
        // at most.
        if self.written * 2 > self.bytes.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_OUTBOX {
            self.bytes = Vec::new();
        }
    }
}

/// A longer buffer of a tunnel is given back when all of it is written.
const KEPT_OUTBOX: usize = 64 << 10;
