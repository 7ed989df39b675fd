//! HTTP/1.1 without I/O: bytes in, events out. No sockets and no clock.

pub(crate) mod base64;
mod body;
pub(crate) mod chunked;
pub(crate) mod connection;
pub(crate) mod field;
pub(crate) mod framing;
pub(crate) mod head;
mod invalid;
mod limits;
mod origin;
pub(crate) mod percent;
mod plain;
mod reference;
pub(crate) mod target;
mod violation;

pub use field::Headers;
pub use invalid::{Invalid, InvalidPart};
pub use limits::Limits;
pub(crate) use limits::LimitsEdit;
pub use origin::{Origin, Scheme};
pub(crate) use reference::has_scheme;
pub use violation::Violation;

#[cfg(test)]
pub(crate) mod testing {
    //! Ways to split the same bytes, and a small random number generator.

    /// Returns the wire in one piece, byte by byte, and in two pieces for every position.
    pub(crate) fn feeds(wire: &[u8]) -> Vec<Vec<&[u8]>> {
        let mut feeds = vec![vec![wire], wire.chunks(1).collect()];
        feeds.extend((1..wire.len()).map(|at| vec![&wire[..at], &wire[at..]]));
        feeds
    }

    /// Marsaglia's xorshift: good enough to vary a test, and the same in every run.
    pub(crate) struct Random(u64);

    impl Random {
        pub(crate) fn new(seed: u64) -> Self {
            Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
        }

        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        /// Returns a number from 0 to `end`, exclusive.
        pub(crate) fn below(&mut self, end: usize) -> usize {
            ((self.next() >> 32) as usize) % end
        }

        pub(crate) fn byte(&mut self) -> u8 {
            (self.next() >> 32) as u8
        }

        /// Splits the wire into pieces of 1 to 20 bytes.
        pub(crate) fn cut<'a>(&mut self, mut wire: &'a [u8]) -> Vec<&'a [u8]> {
            let mut pieces = Vec::new();
            while !wire.is_empty() {
                let (piece, rest) = wire.split_at(1 + self.below(wire.len().min(20)));
                pieces.push(piece);
                wire = rest;
            }
            pieces
        }

        /// Returns the wire after one to three random changes: a byte replaced, removed, inserted
        /// or repeated.
        pub(crate) fn mutate(&mut self, wire: &[u8]) -> Vec<u8> {
            let mut wire = wire.to_vec();
            for _ in 0..=self.below(3) {
                let at = self.below(wire.len());
                // Prefer bytes that have a meaning.
                let byte = match self.below(2) {
                    0 => self.byte(),
                    _ => b"019aH/\r\n :;,\t\0"[self.below(14)],
                };
                match self.below(4) {
                    0 => wire[at] = byte,
                    1 => drop(wire.remove(at)),
                    2 => wire.insert(at, byte),
                    _ => wire.insert(at, wire[at]),
                }
                if wire.is_empty() {
                    wire.push(byte);
                }
            }
            wire
        }
    }
}
