//! Tables of finite state entropy (RFC 8878 §4.1).

use super::bits::{Backward, Fault, Forward};

/// The most symbols of a table: Huffman weights are bytes.
const MAX_SYMBOLS: usize = 256;

/// A decoding table. Its states are indices into it.
#[derive(Clone)]
pub(super) struct Table {
    log: u8,
    states: Vec<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    symbol: u8,
    /// Bits to read for the next state, which are added to `base`.
    bits: u8,
    base: u16,
}

impl Table {
    /// A table that knows one symbol.
    pub(super) fn of_one(symbol: u8) -> Self {
        let state = State {
            symbol,
            ..State::default()
        };
        Self {
            log: 0,
            states: vec![state],
        }
    }

    /// Reads the description at the beginning of `bytes` (RFC 8878 §4.1.1). Returns the table and
    /// the length of its description.
    pub(super) fn parse(bytes: &[u8], max_log: u8, max_symbol: u8) -> Result<(Self, usize), Fault> {
        let mut bits = Forward::new(bytes);
        let log = bits.read(4) as u8 + 5;
        if log > max_log {
            return Err("a table is too large");
        }
        let mut counts = [0; MAX_SYMBOLS];
        let mut symbols = 0;
        // One more than what is left of the sum of all counts.
        let mut left = (1i32 << log) + 1;
        let (mut threshold, mut width) = (1i32 << log, log + 1);
        while left > 1 {
            if symbols > usize::from(max_symbol) {
                return Err("a table has too many symbols");
            }
            // The smallest values have one bit less.
            let spared = 2 * threshold - 1 - left;
            let value = bits.peek(width) as i32;
            let count = match value & (threshold - 1) {
                short if short < spared => {
                    bits.skip(width - 1);
                    short
                }
                _ => {
                    bits.skip(width);
                    if value >= threshold {
                        value - spared
                    } else {
                        value
                    }
                }
            };
            // 0 stands for "less than one", which has a state of its own.
            let count = count - 1;
            counts[symbols] = count as i16;
            symbols += 1;
            left -= count.abs();
            if count == 0 {
                symbols += skip_zeros(&mut bits);
            }
            while left < threshold && threshold > 1 {
                threshold >>= 1;
                width -= 1;
            }
            bits.bytes_read()?;
        }
        if left < 1 || symbols > usize::from(max_symbol) + 1 {
            return Err("the counts of a table are wrong");
        }
        Ok((
            Self::of_counts(&counts[..symbols], log)?,
            bits.bytes_read()?,
        ))
    }

    /// Builds a table of size 2^`log` from the counts of its symbols, where -1 is "less than one"
    /// (RFC 8878 §4.1.1).
    pub(super) fn of_counts(counts: &[i16], log: u8) -> Result<Self, Fault> {
        const WRONG: Fault = "the counts of a table are wrong";
        let size = 1usize << log;
        let mut states = vec![State::default(); size];
        let mut next = [0u16; MAX_SYMBOLS];
        // States from here on are those of symbols with less than one.
        let mut end = size;
        for (symbol, &count) in counts.iter().enumerate() {
            next[symbol] = count.unsigned_abs();
            if count == -1 {
                end = end.checked_sub(1).ok_or(WRONG)?;
                states[end].symbol = symbol as u8;
            }
        }
        let step = (size >> 1) + (size >> 3) + 3;
        let mut at = 0;
        for (symbol, &count) in counts.iter().enumerate() {
            for _ in 0..count.max(0) {
                states[at].symbol = symbol as u8;
                at = (at + step) % size;
                while at >= end && end > 0 {
                    at = (at + step) % size;
                }
            }
        }
        if at != 0 {
            return Err(WRONG);
        }
        for state in &mut states {
            let next = &mut next[usize::from(state.symbol)];
            let bits = log - next.checked_ilog2().ok_or(WRONG)? as u8;
            state.bits = bits;
            state.base = (*next << bits).wrapping_sub(size as u16);
            *next += 1;
        }
        Ok(Self { log, states })
    }

    /// Reads the first state.
    pub(super) fn begin(&self, bits: &mut Backward<'_>) -> usize {
        bits.read(self.log) as usize
    }

    #[inline]
    pub(super) fn symbol(&self, state: usize) -> u8 {
        self.states[state].symbol
    }

    /// Reads the state after this one.
    #[inline]
    pub(super) fn next(&self, state: usize, bits: &mut Backward<'_>) -> usize {
        let State {
            bits: count, base, ..
        } = self.states[state];
        usize::from(base) + bits.read(count) as usize
    }
}

/// Reads how many symbols with a count of zero follow one.
fn skip_zeros(bits: &mut Forward<'_>) -> usize {
    let mut zeros = 0;
    loop {
        let more = bits.read(2) as usize;
        zeros += more;
        // What was read is checked for its length before this is used.
        if more < 3 || zeros > MAX_SYMBOLS {
            return zeros;
        }
    }
}
