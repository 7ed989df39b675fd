//! A body as it is collected, in a buffer that a socket can be read into.
//!
//! Without `unsafe` a socket is read only into bytes that have been written before, and to clear a
//! megabyte for each body would cost as much as to copy it. So what was once written stays: the
//! buffer is longer than what is in it, and is cleared where it grows, once.

use std::fmt;

/// Bytes that were received, and behind them room that has been cleared once.
#[derive(Default)]
pub(crate) struct Collected {
    bytes: Vec<u8>,
    /// Up to here they were received.
    filled: usize,
}

impl Collected {
    pub(crate) fn len(&self) -> usize {
        self.filled
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// The last `n` bytes.
    pub(crate) fn last_mut(&mut self, n: usize) -> &mut [u8] {
        &mut self.bytes[self.filled - n..self.filled]
    }

    /// Allocated bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Empty again; the buffer is kept.
    pub(crate) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Has `more` bytes fit in without another allocation.
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

    /// Room behind what is there for at most `most` bytes. It is what there is, or as much again as
    /// has come and `least`: so a body has no more memory than it would have by doubling, whatever
    /// its server says it will be.
    pub(crate) fn room(&mut self, least: usize, most: usize) -> &mut [u8] {
        let there = self.bytes.len() - self.filled;
        let room = there.max(self.filled).max(least).min(most);
        if there < room {
            // Exactly: as much again as has come is growth enough, and what is kept for the next
            // body is counted by what it could hold.
            self.bytes.reserve_exact(room - there);
            self.bytes.resize(self.filled + room, 0);
        }
        &mut self.bytes[self.filled..self.filled + room]
    }

    /// The first `n` bytes of [`room`](Self::room) have been received.
    ///
    /// # Panics
    /// There was less room.
    pub(crate) fn on_received(&mut self, n: usize) {
        assert!(n <= self.bytes.len() - self.filled, "no more than the room");
        self.filled += n;
    }

    /// Takes away what is behind the first `at` bytes.
    pub(crate) fn split_off(&mut self, at: usize) -> Vec<u8> {
        let rest = self.as_slice()[at..].to_vec();
        self.filled = at;
        rest
    }

    /// Moves all of it out; nothing is kept.
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
        assert_eq!(body.take(), b"x", "and nothing of what was there before");
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
        assert_eq!(body.room(4, 5).len(), 5, "never more than is wanted");
        body.room(4, 8).fill(b'x');
        let capacity = body.capacity();
        body.clear();
        assert_eq!(body.room(4, 1000).len(), 16, "all that there is");
        assert_eq!(body.last_mut(0), b"");
        assert_eq!(&body.room(4, 1000)[8..], b"xxxxxxxx", "as it was left");
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
