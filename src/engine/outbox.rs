//! The bytes waiting to be written on a tunnel.

/// The bytes waiting to be written on a tunnel.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// The number of bytes at the front that have been written.
    written: usize,
    /// Whether a command that writes the bytes is already queued.
    is_noted: bool,
}

impl Outbox {
    /// Adds bytes. Returns whether the caller has to queue a command that writes them.
    pub(super) fn put(&mut self, bytes: &[u8]) -> bool {
        self.bytes.extend_from_slice(bytes);
        !self.waiting().is_empty() && !std::mem::replace(&mut self.is_noted, true)
    }

    /// Records that the waiting bytes are being written now. Bytes added later need another
    /// command.
    pub(super) fn on_looked_at(&mut self) {
        self.is_noted = false;
    }

    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Records that the connection has accepted `n` more bytes.
    pub(super) fn on_written(&mut self, n: usize) {
        self.written += n;
        // Written bytes are removed once they are more than half, so each byte is moved at most
        // twice.
        if self.written * 2 > self.bytes.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_OUTBOX {
            self.bytes = Vec::new();
        }
    }
}

/// The capacity above which a buffer is freed when all of it is written.
const KEPT_OUTBOX: usize = 64 << 10;
