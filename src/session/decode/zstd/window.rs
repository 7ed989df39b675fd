//! What a frame has produced: what blocks may refer to, and what has not been handed out yet.

use super::bits::Fault;

/// The least space after the window, so that blocks do not each have to move it.
const LEAST_SPACE: usize = 256 * 1024;

#[derive(Default)]
pub(super) struct Window {
    bytes: Vec<u8>,
    size: usize,
    /// Bytes at the beginning that were handed out.
    taken: usize,
}

impl Window {
    /// Begins a frame with a window of this size.
    pub(super) fn begin(&mut self, size: usize) {
        self.bytes.clear();
        self.size = size;
        self.taken = 0;
    }

    /// Moves the window to the beginning if there is no space for a block of `len` bytes.
    /// Everything has been handed out.
    pub(super) fn make_space(&mut self, len: usize) {
        let space = LEAST_SPACE.max(self.size / 4);
        if self.bytes.len() + len > self.size + space {
            let surplus = self.bytes.len().saturating_sub(self.size);
            self.bytes.drain(..surplus);
            self.taken -= surplus;
        }
        let needed = self.bytes.len() + len;
        if needed > self.bytes.capacity() {
            // No more than is ever used.
            let capacity = (2 * self.bytes.capacity()).clamp(needed, self.size + space);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn fill(&mut self, byte: u8, len: usize) {
        self.bytes.resize(self.bytes.len() + len, byte);
    }

    /// Repeats `len` bytes from this many bytes back.
    pub(super) fn repeat(&mut self, offset: usize, len: usize) -> Result<(), Fault> {
        let start = self.bytes.len().checked_sub(offset);
        let start = start
            .filter(|_| offset > 0)
            .ok_or("an offset before the beginning")?;
        if offset >= len {
            self.bytes.extend_from_within(start..start + len);
            return Ok(());
        }
        if offset == 1 {
            self.fill(self.bytes[start], len);
            return Ok(());
        }
        // What is repeated becomes part of what there is to repeat.
        let mut left = len;
        while left > 0 {
            let n = left.min(self.bytes.len() - start);
            self.bytes.extend_from_within(start..start + n);
            left -= n;
        }
        Ok(())
    }

    /// Hands out bytes, as many as there is room for.
    pub(super) fn take(&mut self, room: &mut [u8]) -> usize {
        let rest = &self.bytes[self.taken..];
        let n = rest.len().min(room.len());
        room[..n].copy_from_slice(&rest[..n]);
        self.taken += n;
        n
    }
}
