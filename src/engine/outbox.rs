//! The bytes waiting to be written on a tunnel.

/// Bytes that wait to be written on a tunnel.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// How many of them are written.
    written: usize,
    /// A command that writes them is already queued.
    is_noted: bool,
}

impl Outbox {
    /// Adds bytes. Returns whether the caller has to queue a command that writes them.
    pub(super) fn put(&mut self, bytes: &[u8]) -> bool {
        self.bytes.extend_from_slice(bytes);
        !self.waiting().is_empty() && !std::mem::replace(&mut self.is_noted, true)
    }

    /// Notes that the waiting bytes are being written now. Bytes added later need another command.
    pub(super) fn on_looked_at(&mut self) {
        self.is_noted = false;
    }

    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Notes that the connection has taken `n` more bytes.
    pub(super) fn on_written(&mut self, n: usize) {
        self.written += n;
        // Written bytes are removed once they are the larger part, so that each byte is moved at
        // most twice.
        if self.written * 2 > self.bytes.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_OUTBOX {
            self.bytes = Vec::new();
        }
    }
}

/// A buffer larger than this is freed when all of it is written.
const KEPT_OUTBOX: usize = 64 << 10;
