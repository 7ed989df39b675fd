//! Huffman codes of literals (RFC 8878 §4.2).

use super::bits::{Backward, Fault};
use super::fse;

/// The most bits of a code.
const MAX_BITS: u8 = 11;

/// The most symbols: bytes.
const MAX_SYMBOLS: usize = 256;

/// The size of the table that weights may be compressed with (RFC 8878 §4.2.1.2).
const MAX_WEIGHT_LOG: u8 = 6;

/// A decoding table: the next bits are an index into it.
pub(super) struct Table {
    bits: u8,
    codes: Vec<Code>,
}

#[derive(Clone, Copy, Default)]
struct Code {
    symbol: u8,
    bits: u8,
}

impl Table {
    /// Reads the description at the beginning of `bytes` (RFC 8878 §4.2.1). Returns the table and
    /// the length of its description.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Self, usize), Fault> {
        const SHORT: Fault = "a Huffman table is cut short";
        let (&first, rest) = bytes.split_first().ok_or(SHORT)?;
        let mut weights = [0; MAX_SYMBOLS];
        let (count, len) = match first.checked_sub(127) {
            Some(count @ 1..) => {
                let len = usize::from(count).div_ceil(2);
                let packed = rest.get(..len).ok_or(SHORT)?;
                for (i, weight) in weights[..count.into()].iter_mut().enumerate() {
                    // The first of two is in the upper half.
                    *weight = packed[i / 2] >> (4 * (1 - i % 2)) & 0xf;
                }
                (usize::from(count), len)
            }
            _ => {
                let len = usize::from(first);
                let packed = rest.get(..len).ok_or(SHORT)?;
                (unpack(packed, &mut weights)?, len)
            }
        };
        Ok((Self::of_weights(&mut weights, count)?, 1 + len))
    }

    /// Builds a table from the weights of all symbols but the last (RFC 8878 §4.2.1.3).
    fn of_weights(weights: &mut [u8; MAX_SYMBOLS], count: usize) -> Result<Self, Fault> {
        const WRONG: Fault = "the weights of a Huffman table are wrong";
        let size_of = |weight: u8| (1u32 << weight) >> 1;
        if weights.iter().any(|&weight| weight > MAX_BITS + 1) {
            return Err(WRONG);
        }
        let sum: u32 = weights[..count].iter().map(|&weight| size_of(weight)).sum();
        let bits = sum.checked_ilog2().ok_or(WRONG)? as u8 + 1;
        // The last weight completes a power of two.
        let left = (1 << bits) - sum;
        if bits > MAX_BITS || !left.is_power_of_two() {
            return Err(WRONG);
        }
        weights[count] = left.ilog2() as u8 + 1;
        let weights = &weights[..=count];
        let longest = weights.iter().filter(|&&weight| weight == 1).count();
        if longest < 2 || longest % 2 != 0 {
            return Err(WRONG);
        }
        let mut codes = Vec::with_capacity(1 << bits);
        for weight in 1..=bits {
            for (symbol, _) in weights.iter().enumerate().filter(|it| *it.1 == weight) {
                let code = Code {
                    symbol: symbol as u8,
                    bits: bits + 1 - weight,
                };
                codes.resize(codes.len() + size_of(weight) as usize, code);
            }
        }
        Ok(Self { bits, codes })
    }

    /// Decodes a stream of `count` literals.
    pub(super) fn decode(
        &self,
        stream: &[u8],
        count: usize,
        literals: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let mut bits = Backward::new(stream)?;
        for _ in 0..count {
            let code = self.codes[bits.peek(self.bits) as usize];
            bits.skip(code.bits);
            literals.push(code.symbol);
        }
        bits.end()
    }
}

/// Decompresses weights (RFC 8878 §4.2.1.2), and returns how many there are.
fn unpack(packed: &[u8], weights: &mut [u8; MAX_SYMBOLS]) -> Result<usize, Fault> {
    let (table, len) = fse::Table::parse(packed, MAX_WEIGHT_LOG, u8::MAX)?;
    let mut bits = Backward::new(&packed[len..])?;
    // Two states take turns, until the bits are too few for the next state of one of them.
    let mut states = [table.begin(&mut bits), table.begin(&mut bits)];
    if bits.is_overread() {
        return Err("a Huffman table is cut short");
    }
    let mut count = 0;
    let mut push = |symbol| {
        // The weight of the last symbol follows from the others.
        let weight = weights[..MAX_SYMBOLS - 1].get_mut(count);
        *weight.ok_or("a Huffman table has too many weights")? = symbol;
        count += 1;
        Ok::<_, Fault>(())
    };
    for turn in (0..2).cycle() {
        push(table.symbol(states[turn]))?;
        states[turn] = table.next(states[turn], &mut bits);
        if bits.is_overread() {
            push(table.symbol(states[1 - turn]))?;
            break;
        }
    }
    Ok(count)
}
