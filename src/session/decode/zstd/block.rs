//! Compressed blocks: literals, and sequences that put them and repetitions together (RFC 8878
//! §3.1.1.3).

use super::bits::{Backward, Fault, number};
use super::window::Window;
use super::{fse, huffman};

/// The most bytes that a block may have, before and after it is decompressed.
pub(super) const MAX_BLOCK: usize = 128 * 1024;

const SHORT: Fault = "a block is cut short";

/// What the blocks of a frame share.
pub(super) struct Blocks {
    huffman: Option<huffman::Table>,
    literals: Vec<u8>,
    literal_lengths: Field,
    offsets: Field,
    match_lengths: Field,
    /// The last offsets, the most recent one first.
    last: [usize; 3],
}

/// A part of each sequence, with its table.
struct Field {
    kind: &'static Kind,
    table: Option<fse::Table>,
}

struct Kind {
    max_log: u8,
    max_symbol: u8,
    /// The counts of the predefined table, and the logarithm of its size (RFC 8878 §3.1.1.3.2.2).
    counts: &'static [i16],
    log: u8,
}

static LITERAL_LENGTHS: Kind = Kind {
    max_log: 9,
    max_symbol: 35,
    counts: &[
        4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1,
        1, 1, -1, -1, -1, -1,
    ],
    log: 6,
};

static MATCH_LENGTHS: Kind = Kind {
    max_log: 9,
    max_symbol: 52,
    counts: &[
        1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
    ],
    log: 6,
};

static OFFSETS: Kind = Kind {
    max_log: 8,
    max_symbol: 31,
    counts: &[
        1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
    ],
    log: 5,
};

/// The first value of each code, and how many bits are added to it (RFC 8878 §3.1.1.3.2.1.1).
#[rustfmt::skip]
const LITERAL_LENGTH_CODES: [(u32, u8); 36] = [
    (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0), (9, 0), (10, 0),
    (11, 0), (12, 0), (13, 0), (14, 0), (15, 0), (16, 1), (18, 1), (20, 1), (22, 1), (24, 2),
    (28, 2), (32, 3), (40, 3), (48, 4), (64, 6), (128, 7), (256, 8), (512, 9), (1024, 10),
    (2048, 11), (4096, 12), (8192, 13), (16384, 14), (32768, 15), (65536, 16),
];

#[rustfmt::skip]
const MATCH_LENGTH_CODES: [(u32, u8); 53] = [
    (3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0), (9, 0), (10, 0), (11, 0), (12, 0), (13, 0),
    (14, 0), (15, 0), (16, 0), (17, 0), (18, 0), (19, 0), (20, 0), (21, 0), (22, 0), (23, 0),
    (24, 0), (25, 0), (26, 0), (27, 0), (28, 0), (29, 0), (30, 0), (31, 0), (32, 0), (33, 0),
    (34, 0), (35, 1), (37, 1), (39, 1), (41, 1), (43, 2), (47, 2), (51, 3), (59, 3), (67, 4),
    (83, 4), (99, 5), (131, 7), (259, 8), (515, 9), (1027, 10), (2051, 11), (4099, 12),
    (8195, 13), (16387, 14), (32771, 15), (65539, 16),
];

impl Default for Blocks {
    fn default() -> Self {
        let field = |kind| Field { kind, table: None };
        Self {
            huffman: None,
            literals: Vec::new(),
            literal_lengths: field(&LITERAL_LENGTHS),
            offsets: field(&OFFSETS),
            match_lengths: field(&MATCH_LENGTHS),
            last: [1, 4, 8],
        }
    }
}

impl Blocks {
    /// Begins a frame.
    pub(super) fn begin(&mut self) {
        self.huffman = None;
        self.literal_lengths.table = None;
        self.offsets.table = None;
        self.match_lengths.table = None;
        self.last = [1, 4, 8];
    }

    /// Decompresses a block of at most `most` bytes.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        most: usize,
        window: &mut Window,
    ) -> Result<(), Fault> {
        let rest = self.decode_literals(block)?;
        let end = window.len() + most;
        let used = self.decode_sequences(rest, end, window)?;
        let literals = &self.literals[used..];
        if window.len() + literals.len() > end {
            return Err(TOO_LONG);
        }
        window.push(literals);
        Ok(())
    }

    /// Reads the literals section (RFC 8878 §3.1.1.3.1), and returns what follows it.
    fn decode_literals<'b>(&mut self, block: &'b [u8]) -> Result<&'b [u8], Fault> {
        self.literals.clear();
        let (kind, format) = (block.first().ok_or(SHORT)? & 3, block[0] >> 2 & 3);
        let header = |len: usize| Ok::<_, Fault>(number(block.get(..len).ok_or(SHORT)?) as usize);
        if kind < 2 {
            let (len, size) = match format {
                0 | 2 => (1, header(1)? >> 3),
                1 => (2, header(2)? >> 4),
                _ => (3, header(3)? >> 4),
            };
            check_literals(size)?;
            let content = &block[len..];
            return match kind {
                0 => {
                    let literals = content.get(..size).ok_or(SHORT)?;
                    self.literals.extend_from_slice(literals);
                    Ok(&content[size..])
                }
                _ => {
                    let (byte, rest) = content.split_first().ok_or(SHORT)?;
                    self.literals.resize(size, *byte);
                    Ok(rest)
                }
            };
        }
        let (len, bits) = match format {
            0 | 1 => (3, 10),
            2 => (4, 14),
            _ => (5, 18),
        };
        let (header, mask) = (header(len)? >> 4, (1 << bits) - 1);
        let (size, packed) = (header & mask, header >> bits & mask);
        check_literals(size)?;
        let content = block[len..].get(..packed).ok_or(SHORT)?;
        let rest = &block[len + packed..];
        let streams = match kind {
            2 => {
                let (table, len) = huffman::Table::parse(content)?;
                self.huffman = Some(table);
                &content[len..]
            }
            // The table of the last block that had one.
            _ => content,
        };
        let table = self.huffman.as_ref().ok_or("no Huffman table to repeat")?;
        if format == 0 {
            table.decode(streams, size, &mut self.literals)?;
            return Ok(rest);
        }
        // Four streams, of which the first three have the same number of literals.
        let (jumps, mut streams) = streams.split_at_checked(6).ok_or(SHORT)?;
        let each = size.div_ceil(4);
        let last = size
            .checked_sub(3 * each)
            .ok_or("too few literals for four streams")?;
        for jump in jumps.chunks(2) {
            let stream;
            (stream, streams) = streams
                .split_at_checked(number(jump) as usize)
                .ok_or(SHORT)?;
            table.decode(stream, each, &mut self.literals)?;
        }
        table.decode(streams, last, &mut self.literals)?;
        Ok(rest)
    }

    /// Reads the sequences section (RFC 8878 §3.1.1.3.2) and carries it out. The window may not
    /// become longer than `end`. Returns how many literals were used.
    fn decode_sequences(
        &mut self,
        section: &[u8],
        end: usize,
        window: &mut Window,
    ) -> Result<usize, Fault> {
        let (count, section) = match *section {
            [0] => return Ok(0),
            [0, ..] => return Err("a block without sequences has more bytes"),
            [a @ ..=127, ref rest @ ..] => (usize::from(a), rest),
            [a @ ..=254, b, ref rest @ ..] => (usize::from(a - 128) << 8 | usize::from(b), rest),
            [255, b, c, ref rest @ ..] => (0x7f00 + number(&[b, c]) as usize, rest),
            _ => return Err(SHORT),
        };
        let (modes, mut rest) = section.split_first().ok_or(SHORT)?;
        if modes & 3 != 0 {
            return Err("a reserved bit is set in a block");
        }
        let Self {
            literal_lengths,
            offsets,
            match_lengths,
            ..
        } = self;
        for (field, shift) in [(literal_lengths, 6), (offsets, 4), (match_lengths, 2)] {
            rest = field.set(modes >> shift & 3, rest)?;
        }
        let lengths = self.literal_lengths.table()?;
        let offsets = self.offsets.table()?;
        let matches = self.match_lengths.table()?;

        let mut bits = Backward::new(rest)?;
        let mut length = lengths.begin(&mut bits);
        let mut offset = offsets.begin(&mut bits);
        let mut repeat = matches.begin(&mut bits);
        let mut used = 0;
        for i in 1..=count {
            let code = offsets.symbol(offset);
            let offset_value = (1 << code) + bits.read(code) as usize;
            let (base, more) = MATCH_LENGTH_CODES[usize::from(matches.symbol(repeat))];
            let match_len = base as usize + bits.read(more) as usize;
            let (base, more) = LITERAL_LENGTH_CODES[usize::from(lengths.symbol(length))];
            let literal_len = base as usize + bits.read(more) as usize;
            if i < count {
                length = lengths.next(length, &mut bits);
                repeat = matches.next(repeat, &mut bits);
                offset = offsets.next(offset, &mut bits);
            }
            if bits.is_overread() {
                return Err("the sequences of a block are cut short");
            }
            let literals = self.literals[used..].get(..literal_len);
            let literals = literals.ok_or("a block has too few literals")?;
            if window.len() + literal_len + match_len > end {
                return Err(TOO_LONG);
            }
            window.push(literals);
            used += literal_len;
            let offset = next_offset(&mut self.last, offset_value, literal_len)?;
            window.repeat(offset, match_len)?;
        }
        bits.end()?;
        Ok(used)
    }
}

const TOO_LONG: Fault = "a block is longer than blocks may be";

fn check_literals(size: usize) -> Result<(), Fault> {
    match size > MAX_BLOCK {
        true => Err(TOO_LONG),
        false => Ok(()),
    }
}

/// Returns the offset of a sequence, which may be one of the last three (RFC 8878 §3.1.1.5).
fn next_offset(last: &mut [usize; 3], value: usize, literal_len: usize) -> Result<usize, Fault> {
    let index = match value {
        // Without literals before it, the last offset would make no sense.
        ..=3 => value - 1 + usize::from(literal_len == 0),
        _ => {
            *last = [value - 3, last[0], last[1]];
            return Ok(last[0]);
        }
    };
    let offset = match index {
        3 => last[0] - 1,
        index => last[index],
    };
    if offset == 0 {
        return Err("an offset of zero");
    }
    last.copy_within(..index.min(2), 1);
    last[0] = offset;
    Ok(offset)
}

impl Field {
    /// Sets the table as the block says, and returns what follows its description.
    fn set<'b>(&mut self, mode: u8, bytes: &'b [u8]) -> Result<&'b [u8], Fault> {
        let Kind {
            max_log,
            max_symbol,
            counts,
            log,
        } = *self.kind;
        let (table, rest) = match mode {
            0 => (fse::Table::of_counts(counts, log)?, bytes),
            1 => {
                let (&symbol, rest) = bytes.split_first().ok_or(SHORT)?;
                if symbol > max_symbol {
                    return Err("a code is not defined");
                }
                (fse::Table::of_one(symbol), rest)
            }
            2 => {
                let (table, len) = fse::Table::parse(bytes, max_log, max_symbol)?;
                (table, &bytes[len..])
            }
            // The table of the last block that had sequences.
            _ => return Ok(bytes),
        };
        self.table = Some(table);
        Ok(rest)
    }

    fn table(&self) -> Result<&fse::Table, Fault> {
        self.table.as_ref().ok_or("no table to repeat")
    }
}
