//! Bits of the entropy codings: read forwards in tables, and backwards in streams (RFC 8878 §4).

/// Why a block is malformed.
pub(super) type Fault = &'static str;

/// A stream that is read from its end to its beginning. The bits of a number keep their order.
pub(super) struct Backward<'a> {
    bytes: &'a [u8],
    /// The number of bits that are left. Negative if more were read than there are.
    left: isize,
}

impl<'a> Backward<'a> {
    /// The highest bit that is set in the last byte marks the end.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Fault> {
        let last = *bytes.last().ok_or("a stream of no bytes")?;
        let marker = last.checked_ilog2().ok_or("a stream without an end mark")?;
        let left = (bytes.len() - 1) * 8 + marker as usize;
        Ok(Self {
            bytes,
            left: left as isize,
        })
    }

    /// Returns the next `count` bits, at most 56, without reading them. Bits that are missing count
    /// as zeros.
    #[inline]
    pub(super) fn peek(&self, count: u8) -> u64 {
        let count = isize::from(count);
        let mask = |count: isize| (1u64 << count) - 1;
        match self.left - count {
            start @ 0.. => self.bits_from(start as usize) & mask(count),
            missing if self.left > 0 => (self.bits_from(0) & mask(self.left)) << -missing,
            _ => 0,
        }
    }

    #[inline]
    fn bits_from(&self, start: usize) -> u64 {
        let bytes = &self.bytes[start / 8..];
        let word = match bytes.first_chunk() {
            Some(word) => u64::from_le_bytes(*word),
            None => number(bytes),
        };
        word >> (start % 8)
    }

    #[inline]
    pub(super) fn skip(&mut self, count: u8) {
        self.left -= isize::from(count);
    }

    #[inline]
    pub(super) fn read(&mut self, count: u8) -> u64 {
        let bits = self.peek(count);
        self.skip(count);
        bits
    }

    /// Whether more bits were read than there are.
    #[inline]
    pub(super) fn is_overread(&self) -> bool {
        self.left < 0
    }

    /// Checks that all bits were read, and no more.
    pub(super) fn end(&self) -> Result<(), Fault> {
        match self.left {
            0 => Ok(()),
            _ => Err("a stream of another length than its content"),
        }
    }
}

/// A table description, read from its first bit on.
pub(super) struct Forward<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Forward<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns the next `count` bits, at most 16, without reading them. Bits that are missing count
    /// as zeros.
    pub(super) fn peek(&self, count: u8) -> u32 {
        let bytes = self.bytes.get(self.at / 8..).unwrap_or_default();
        let word = number(&bytes[..bytes.len().min(4)]) >> (self.at % 8);
        word as u32 & ((1 << count) - 1)
    }

    pub(super) fn skip(&mut self, count: u8) {
        self.at += usize::from(count);
    }

    pub(super) fn read(&mut self, count: u8) -> u32 {
        let bits = self.peek(count);
        self.skip(count);
        bits
    }

    /// Returns the number of bytes of which bits were read.
    ///
    /// # Errors
    /// These are more than there are.
    pub(super) fn bytes_read(&self) -> Result<usize, Fault> {
        let read = self.at.div_ceil(8);
        match read <= self.bytes.len() {
            true => Ok(read),
            false => Err("a table is cut short"),
        }
    }
}

/// Returns the little-endian number of up to eight bytes.
pub(super) fn number(bytes: &[u8]) -> u64 {
    let digits = bytes.iter().rev();
    digits.fold(0, |number, &byte| number << 8 | u64::from(byte))
}
