//! A buffer that collects a body and that a socket can be read into.
//!
//! Without `unsafe`, a socket can only be read into initialized bytes, and zeroing a megabyte for
//! each body would cost as much as copying it. The buffer therefore keeps bytes that were
//! initialized once: it is longer than its contents, and is zeroed only where it grows.

use std::fmt;

/// Received bytes, followed by spare room that has been initialized once.
#[derive(Default)]
pub(crate) struct Collected {
    bytes: Vec<u8>,
    /// The number of received bytes.
    filled: usize,
}

impl Collected {
    pub(crate) fn len(&self) -> usize {
        self.filled
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Returns the last `n` bytes.
    pub(crate) fn last_mut(&mut self, n: usize) -> &mut [u8] {
        &mut self.bytes[self.filled - n..self.filled]
    }

    /// Returns the number of allocated bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Clears the contents and keeps the buffer.
    pub(crate) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Makes sure that `more` bytes can be appended without another allocation.
    pub(crate) fn reserve_exact(&mut self, more: usize) {
        let missing = (self.filled + more).saturating_sub(self.bytes.len());
        self.bytes.reserve_exact(missing);
    }

    pub(crate) fn extend_from_slice(&mut self, data: &[u8]) {
        let (known, new) = data.split_at(data.len().min(self.bytes.len() - self.filled));
        self.bytes[self.filled..self.filled + known.len()].copy_from_slice(known);
        self.bytes.extend_from_slice(new);
        self.filled += data.len();
    }

    /// Returns room after the contents for at most `most` bytes. This is the room that exists, or
    /// new room of the length received so far, but at least `least`. The buffer therefore never
    /// grows faster than by doubling, whatever length the server declares.
    pub(crate) fn room(&mut self, least: usize, most: usize) -> &mut [u8] {
        let there = self.bytes.len() - self.filled;
        let room = there.max(self.filled).max(least).min(most);
        if there < room {
            // Reserve exactly: doubling is growth enough, and recycled buffers are accounted for by
            // their capacity.
            self.bytes.reserve_exact(room - there);
            self.bytes.resize(self.filled + room, 0);
        }
        &mut self.bytes[self.filled..self.filled + room]
    }

    /// Records that the first `n` bytes of [`room`](Self::room) have been received.
    ///
    /// # Panics
    /// Panics if there was less room than that.
    pub(crate) fn on_received(&mut self, n: usize) {
        assert!(
            n <= self.bytes.len() - self.filled,
            "received more than there was room for"
        );
        self.filled += n;
    }

    /// Removes and returns everything after the first `at` bytes.
    pub(crate) fn split_off(&mut self, at: usize) -> Vec<u8> {
        let rest = self.as_slice()[at..].to_vec();
        self.filled = at;
        rest
    }

    /// Moves the contents out and keeps no buffer.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let Self { mut bytes, filled } = std::mem::take(self);
        bytes.truncate(filled);
        bytes
    }
}

impl From<Vec<u8>> for Collected {
    fn from(bytes: Vec<u8>) -> Self {
        let filled = bytes.len();
        Self { bytes, filled }
    }
}

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collected")
            .field("len", &self.filled)
            .field("room", &(self.bytes.len() - self.filled))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_received_is_what_is_there_however_it_came() {
        let mut body = Collected::default();
        for round in 0..3 {
            body.extend_from_slice(b"ab");
            body.room(2, 3)[..2].copy_from_slice(b"cd");
            body.on_received(2);
            assert_eq!(body.last_mut(3), b"bcd");
            body.extend_from_slice(b"efghij");
            assert_eq!(body.as_slice(), b"abcdefghij", "round {round}");
            assert_eq!(body.split_off(4), b"efghij");
            assert_eq!((body.as_slice(), body.len()), (&b"abcd"[..], 4));
            body.clear();
        }
        body.extend_from_slice(b"x");
        assert_eq!(body.take(), b"x", "without remains of earlier contents");
        assert_eq!((body.len(), body.capacity()), (0, 0));
    }

    #[test]
    fn a_body_of_known_length_has_no_more_memory_than_that() {
        const LENGTH: usize = 1 << 20;
        let mut body = Collected::default();
        while body.len() < LENGTH {
            let room = body.room(64 << 10, LENGTH - body.len()).len();
            body.on_received(room.min(50_000));
        }
        assert_eq!(body.capacity(), LENGTH);
    }

    #[test]
    fn room_grows_with_what_has_come_and_is_cleared_once() {
        let mut body = Collected::default();
        assert_eq!(body.room(4, 1000), [0; 4]);
        body.on_received(4);
        assert_eq!(body.room(4, 1000), [0; 4]);
        body.on_received(4);
        assert_eq!(body.room(4, 1000).len(), 8);
        assert_eq!(body.room(4, 5).len(), 5, "never more than `most`");
        body.room(4, 8).fill(b'x');
        let capacity = body.capacity();
        body.clear();
        assert_eq!(body.room(4, 1000).len(), 16, "all existing room");
        assert_eq!(body.last_mut(0), b"");
        assert_eq!(&body.room(4, 1000)[8..], b"xxxxxxxx", "not zeroed again");
        assert_eq!(body.capacity(), capacity);
    }

    #[test]
    fn a_body_that_is_appended_to_has_what_was_reserved() {
        let mut body = Collected::from(b"abc".to_vec());
        body.reserve_exact(100);
        let capacity = body.capacity();
        body.extend_from_slice(&[b'x'; 100]);
        assert_eq!((body.len(), body.capacity()), (103, capacity));
    }
}
