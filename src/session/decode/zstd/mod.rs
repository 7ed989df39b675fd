//! The coding `zstd` (RFC 8878): frames, of blocks that have at most 128 KiB.
//!
//! A block is decoded once all of it has arrived, and handed out at once, so that what a server
//! flushes is not held back. A window has at most 8 MiB, as RFC 9659 requires of this coding.
//! Skippable frames are skipped; frames with a dictionary are refused. The length and the checksum
//! of each frame are compared with what was decoded, if it has them.
//!
//! The decoder is our own, because the others that are written in Rust hand out a frame only up to
//! its last window, which ends with the frame.

use std::hash::Hasher;
use std::io;

use twox_hash::XxHash64;

use crate::policy::{Decoder, Progress};
use crate::session::decode::Install;
use crate::session::decode::contained::Contained;
use crate::session::decode::fault::{cut_short, malformed};

mod bits;
mod block;
mod fse;
mod huffman;
mod window;

use bits::number;
use block::{Blocks, MAX_BLOCK};
use window::Window;

const NAME: &str = "zstd";

pub(super) const DECODER: Option<Install> =
    Some(|screening| screening.decode(Contained::new(NAME, Zstd::default())));

/// The first four bytes of a frame, as a little-endian number.
const MAGIC: u32 = 0xfd2f_b528;

/// The same of a skippable frame, whose last four bits may have any value.
const SKIPPABLE: u32 = 0x184d_2a50;

/// The largest window (RFC 9659 §3).
const MAX_WINDOW: u64 = 8 * 1024 * 1024;

/// The header of a block.
const BLOCK_HEADER: usize = 3;

const HAS_CHECKSUM: u8 = 1 << 2;

// Types of blocks (RFC 8878 §3.1.1.2.2).
const RAW: u32 = 0;
const REPEATED: u32 = 1;
const COMPRESSED: u32 = 2;

#[derive(Default)]
struct Zstd {
    state: State,
    blocks: Blocks,
    window: Window,
    checksum: XxHash64,
    /// The beginning of a block of which more has to arrive.
    block: Vec<u8>,
}

#[derive(Default)]
enum State {
    /// Before a frame, or at the end.
    #[default]
    Between,
    /// So many bytes of a skippable frame are left.
    Skipping(usize),
    /// Before a block, or within it.
    Block(Frame),
    /// A block has been decoded.
    Decoded(Frame, IsLast),
    Checksum,
}

type IsLast = bool;

/// The frame that is being decoded.
#[derive(Clone, Copy)]
struct Frame {
    /// The length of its content, if its header says so.
    len: Option<u64>,
    has_checksum: bool,
    /// The most bytes of a block, before and after it is decoded.
    max_block: usize,
    produced: u64,
}

/// A frame header (RFC 8878 §3.1.1.1).
struct Header {
    /// Its own length, with the magic number.
    len: usize,
    window: u64,
    dictionary: u32,
    content_len: Option<u64>,
    has_checksum: bool,
}

impl Header {
    /// Returns `None` if it is not there completely.
    fn parse(input: &[u8]) -> io::Result<Option<Self>> {
        let Some((&descriptor, fields)) = input.get(4..).and_then(<[u8]>::split_first) else {
            return Ok(None);
        };
        if descriptor & 1 << 3 != 0 {
            return Err(malformed(NAME, "a reserved bit is set in a frame header"));
        }
        let is_single_segment = descriptor & 1 << 5 != 0;
        let window_len = usize::from(!is_single_segment);
        let dictionary_len = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let content_len = match descriptor >> 6 {
            0 => usize::from(is_single_segment),
            flag => 1 << flag,
        };
        let (dictionary_at, content_at) = (window_len, window_len + dictionary_len);
        let end = content_at + content_len;
        let Some(fields) = fields.get(..end) else {
            return Ok(None);
        };
        let content = match content_len {
            0 => None,
            // RFC 8878 §3.1.1.1.4.
            2 => Some(number(&fields[content_at..]) + 256),
            _ => Some(number(&fields[content_at..])),
        };
        let window = match (is_single_segment, content) {
            (true, Some(content)) => content,
            _ => {
                // RFC 8878 §3.1.1.1.2.
                let (exponent, mantissa) = (fields[0] >> 3, fields[0] & 7);
                let base = 1u64 << (10 + exponent);
                base + base / 8 * u64::from(mantissa)
            }
        };
        Ok(Some(Self {
            len: 5 + end,
            window,
            dictionary: number(&fields[dictionary_at..content_at]) as u32,
            content_len: content,
            has_checksum: descriptor & HAS_CHECKSUM != 0,
        }))
    }
}

impl Zstd {
    /// Goes on by one step, which may consume nothing. Returns `None` if the input is too short.
    fn step(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Option<Progress>> {
        match self.state {
            State::Between => self.begin(input),
            State::Skipping(left) => {
                let n = left.min(input.len());
                self.state = match left - n {
                    0 => State::Between,
                    left => State::Skipping(left),
                };
                Ok((n > 0 || left == 0).then_some(consumed(n)))
            }
            State::Block(frame) => self.block(frame, input),
            State::Decoded(frame, is_last) => self.decoded(frame, is_last, room),
            State::Checksum => self.checksum(input),
        }
    }

    /// Begins a frame.
    fn begin(&mut self, input: &[u8]) -> io::Result<Option<Progress>> {
        let Some(magic) = input.first_chunk() else {
            return Ok(None);
        };
        let magic = u32::from_le_bytes(*magic);
        if magic & !0xf == SKIPPABLE {
            let Some([_, _, _, _, len @ ..]) = input.first_chunk::<8>() else {
                return Ok(None);
            };
            self.state = State::Skipping(u32::from_le_bytes(*len) as usize);
            return Ok(Some(consumed(8)));
        }
        if magic != MAGIC {
            let why = format!("a frame begins with the bytes {:02x?}", magic.to_le_bytes());
            return Err(malformed(NAME, why));
        }
        let Some(header) = Header::parse(input)? else {
            return Ok(None);
        };
        if header.dictionary != 0 {
            let why = format!("it needs the dictionary {}", header.dictionary);
            return Err(malformed(NAME, why));
        }
        if header.window > MAX_WINDOW {
            let window = header.window;
            let why = format!("a window of {window} bytes, more than {MAX_WINDOW}");
            return Err(malformed(NAME, why));
        }
        self.blocks.begin();
        self.window.begin(header.window as usize);
        self.checksum = XxHash64::default();
        self.state = State::Block(Frame {
            len: header.content_len,
            has_checksum: header.has_checksum,
            max_block: MAX_BLOCK.min(header.window as usize),
            produced: 0,
        });
        Ok(Some(consumed(header.len)))
    }

    /// Decodes a block once all of it has arrived.
    fn block(&mut self, frame: Frame, input: &[u8]) -> io::Result<Option<Progress>> {
        let mut n = 0;
        if self.block.len() < BLOCK_HEADER {
            n = input.len().min(BLOCK_HEADER - self.block.len());
        }
        let mut header = [0; BLOCK_HEADER];
        let (kept, new) = header.split_at_mut(self.block.len().min(BLOCK_HEADER));
        kept.copy_from_slice(&self.block[..kept.len()]);
        if new.len() > n {
            self.block.extend_from_slice(&input[..n]);
            return Ok((n > 0).then_some(consumed(n)));
        }
        new.copy_from_slice(&input[..n]);
        let [a, b, c] = header;
        let bits = u32::from_le_bytes([a, b, c, 0]);
        let (is_last, kind, size) = (bits & 1 != 0, bits >> 1 & 3, (bits >> 3) as usize);
        if size > frame.max_block {
            return Err(malformed(NAME, format!("a block of {size} bytes")));
        }
        let len = BLOCK_HEADER + if kind == REPEATED { 1 } else { size };
        let n = input.len().min(len - self.block.len());
        let whole = match self.block.is_empty() && n == len {
            true => &input[..n],
            false => {
                self.block.extend_from_slice(&input[..n]);
                &self.block
            }
        };
        if whole.len() < len {
            return Ok((n > 0).then_some(consumed(n)));
        }
        let content = &whole[BLOCK_HEADER..];
        let most = if kind == COMPRESSED {
            frame.max_block
        } else {
            size
        };
        self.window.make_space(most);
        match kind {
            RAW => self.window.push(content),
            REPEATED => self.window.fill(content[0], size),
            COMPRESSED => self
                .blocks
                .decode(content, frame.max_block, &mut self.window)
                .map_err(|why| malformed(NAME, why))?,
            _ => return Err(malformed(NAME, "a block of the reserved type")),
        }
        self.block.clear();
        self.state = State::Decoded(frame, is_last);
        Ok(Some(consumed(n)))
    }

    /// Hands out what has been decoded.
    fn decoded(
        &mut self,
        mut frame: Frame,
        is_last: IsLast,
        room: &mut [u8],
    ) -> io::Result<Option<Progress>> {
        let produced = self.window.take(room);
        if frame.has_checksum {
            self.checksum.write(&room[..produced]);
        }
        frame.produced += produced as u64;
        let differs = |len| match produced == 0 && is_last {
            true => frame.produced != len,
            false => frame.produced > len,
        };
        if frame.len.is_some_and(differs) {
            return Err(malformed(NAME, "a frame has another length than it says"));
        }
        self.state = match (produced, is_last) {
            (1.., _) => State::Decoded(frame, is_last),
            (0, false) => State::Block(frame),
            (0, true) if frame.has_checksum => State::Checksum,
            (0, true) => State::Between,
        };
        Ok(Some(Progress {
            consumed: 0,
            produced,
        }))
    }

    fn checksum(&mut self, input: &[u8]) -> io::Result<Option<Progress>> {
        let Some(checksum) = input.first_chunk() else {
            return Ok(None);
        };
        // The lower half of it (RFC 8878 §3.1.1).
        if self.checksum.finish() as u32 != u32::from_le_bytes(*checksum) {
            return Err(malformed(NAME, "wrong checksum"));
        }
        self.state = State::Between;
        Ok(Some(consumed(checksum.len())))
    }
}

/// The result of a step that produces nothing.
fn consumed(consumed: usize) -> Progress {
    Progress {
        consumed,
        produced: 0,
    }
}

impl Decoder for Zstd {
    fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
        let mut total = Progress::default();
        loop {
            let was_decoded = matches!(self.state, State::Decoded(..));
            let Some(progress) = self.step(&input[total.consumed..], room)? else {
                return Ok(total);
            };
            total.consumed += progress.consumed;
            total.produced = progress.produced;
            // A turn ends between two blocks. Nothing at all would mean that the input is too
            // short.
            if was_decoded && total != Progress::default() {
                return Ok(total);
            }
        }
    }

    fn finish(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match self.state {
            State::Between => Ok(0),
            _ => Err(cut_short(NAME)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use ruzstd::decoding::StreamingDecoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::{COMPRESSED, HAS_CHECKSUM, RAW};
    use crate::policy::ROOM;
    use crate::proto::testing::Random;
    use crate::session::decode::testing::{
        ALL, CUT_SHORT, check, check_cuts, check_mutations, check_pieces, decode, noise, repeated,
        words,
    };

    const HELLO: &[u8] = b"hello, hello!";

    // Made by the package zstandard 0.25.0 of PyPI.
    const FRAME: &[u8] = b"(\xb5/\xfd \x0di\x00\x00hello, hello!";
    const WITH_CHECKSUM: &[u8] = b"(\xb5/\xfd$\x0di\x00\x00hello, hello!6\x16\xa1\x9b";
    const FLUSHED: &[u8] = b"(\xb5/\xfd\x00X8\x00\x00hello, 1\x00\x00hello!";
    const EMPTY: &[u8] = b"(\xb5/\xfd \x00\x01\x00\x00";
    const LETTERS: &[u8] = b"(\xb5/\xfd`\xe8\x02M\x00\x00\x10aa\x01\x00\xe3+\x80\x05";
    const SENTENCES: &[u8] = b"(\xb5/\xfdd\x1a\x00M\x02\x00\x14\x03\
        the engine reads what the server sends andanswers\
        \x08\x00\x9f0P\x00\x05\x00u\xc0\xaa3\xb0\x80\x08\x07\x9c*\x80\xd0\x9be\xde\x89JB";

    const SKIPPABLE_FRAME: &[u8] = b"\x5a*M\x18\x03\x00\x00\x00abc";

    fn sentences() -> Vec<u8> {
        let sentence = "the engine reads what the server sends and the server sends what the \
            engine reads and answers ";
        sentence.repeat(3).into()
    }

    fn edited(wire: &[u8], at: usize, byte: u8) -> Vec<u8> {
        let mut wire = wire.to_vec();
        wire[at] = byte;
        wire
    }

    #[test]
    fn frames_are_decoded_at_every_split() {
        let end = WITH_CHECKSUM.len();
        let magic = &FRAME[..4];
        let header = |rest: &[u8]| [magic, rest, b"\x01\x00\x00"].concat();
        #[rustfmt::skip]
        check("zstd", &[
            ("a frame", FRAME, Ok(HELLO)),
            ("a checksum", WITH_CHECKSUM, Ok(HELLO)),
            ("flushed halfway", FLUSHED, Ok(HELLO)),
            ("an empty one", EMPTY, Ok(b"")),
            ("a letter many times", LETTERS, Ok(&[b'a'; 1000])),
            ("sentences", SENTENCES, Ok(&sentences())),
            ("a repeated byte", b"(\xb5/\xfd \x05\x2b\x00\x00x", Ok(b"xxxxx")),
            ("several frames", &[FRAME, EMPTY, WITH_CHECKSUM, FLUSHED].concat(), Ok(&HELLO.repeat(3))),
            ("a skippable frame", SKIPPABLE_FRAME, Ok(b"")),
            ("an empty skippable frame", b"\x50*M\x18\x00\x00\x00\x00", Ok(b"")),
            ("skippable frames between", &[SKIPPABLE_FRAME, FRAME, SKIPPABLE_FRAME, FRAME].concat(), Ok(&HELLO.repeat(2))),
            ("a window of 8 MiB", &header(b"\x00\x68"), Ok(b"")),
            ("a window of 9 MiB", &header(b"\x00\x69"), Err("zstd: a window of 9437184 bytes, more than 8388608")),
            ("a window of terabytes", &header(b"\x00\xff"), Err("zstd: a window of 4123168604160 bytes, more than 8388608")),
            ("a single segment of gigabytes", &header(b"\xa0\x00\x00\x00\xff"), Err("zstd: a window of 4278190080 bytes")),
            ("a dictionary", &header(b"\x01\x58\x07"), Err("zstd: it needs the dictionary 7")),
            ("the dictionary 0 is none", &header(b"\x01\x58\x00"), Ok(b"")),
            ("a reserved bit", &header(b"\x08\x58"), Err("zstd: a reserved bit is set in a frame header")),
            ("a reserved type of block", b"(\xb5/\xfd\x00\x58\x07\x00\x00", Err("zstd: ")),
            ("a block of more than 128 KiB", b"(\xb5/\xfd\x00\x58\x09\x00\x10", Err("zstd: a block of 131073 bytes")),
            ("a wrong checksum", &edited(WITH_CHECKSUM, end - 1, 0), Err("zstd: wrong checksum")),
            ("longer than it says", b"(\xb5/\xfd\x80\x58\x03\x00\x00\x00\x21\x00\x00abcd", Err("zstd: a frame has another length than it says")),
            ("shorter than it says", &edited(FRAME, 5, 14), Err("zstd: a frame has another length than it says")),
            ("no frame", b"hello", Err("zstd: a frame begins with the bytes [68, 65, 6c, 6c]")),
            ("more after it", &[FRAME, b"\0\0\0\0"].concat(), Err("zstd: a frame begins with the bytes [00, 00, 00, 00]")),
            ("less than a magic number after it", &[FRAME, b"\0"].concat(), Err(CUT_SHORT)),
        ]);
    }

    #[test]
    fn a_frame_cut_anywhere_is_cut_short() {
        check_cuts("zstd", WITH_CHECKSUM, HELLO);
        check_cuts("zstd", FLUSHED, HELLO);
        check_cuts("zstd", SENTENCES, &sentences());
        check_cuts("zstd", SKIPPABLE_FRAME, b"");
    }

    #[test]
    fn long_bodies_are_decoded_in_any_pieces() {
        check_pieces("zstd", include_bytes!("../fixtures/words.zst"), &words());
        let (small, large) = (
            include_bytes!("../fixtures/repeated-small.zst"),
            include_bytes!("../fixtures/repeated-large.zst"),
        );
        for wire in [&small[..], &large[..]] {
            check_pieces("zstd", wire, &repeated());
        }
        for level in [CompressionLevel::Uncompressed, CompressionLevel::Fastest] {
            for data in [noise(1), noise(1000), noise(300_000), repeated()] {
                check_pieces("zstd", &compress_to_vec(&*data, level), &data);
            }
        }
    }

    #[test]
    fn what_is_flushed_is_there_before_the_rest() {
        let (body, _) = decode("zstd", &[&FLUSHED[..16]], ALL, (64, 0));
        assert_eq!(body, b"hello, ");
    }

    #[test]
    fn no_input_panics() {
        let words = include_bytes!("../fixtures/words.zst");
        let repeated = include_bytes!("../fixtures/repeated-large.zst");
        let wires = [
            FRAME,
            WITH_CHECKSUM,
            FLUSHED,
            LETTERS,
            SENTENCES,
            words,
            repeated,
        ];
        check_mutations("zstd", &wires);
    }

    /// A frame with a window of 2 MiB, of blocks of these types.
    fn frame(blocks: &[(u32, &[u8])]) -> Vec<u8> {
        let mut frame = b"(\xb5/\xfd\x00\x58".to_vec();
        for (i, (kind, content)) in blocks.iter().enumerate() {
            let is_last = u32::from(i + 1 == blocks.len());
            let header = (content.len() as u32) << 3 | kind << 1 | is_last;
            frame.extend_from_slice(&header.to_le_bytes()[..3]);
            frame.extend_from_slice(content);
        }
        frame
    }

    #[test]
    fn parts_of_a_block_are_checked() {
        let compressed = |content: &[u8]| frame(&[(COMPRESSED, content)]);
        // Sequences whose tables know one code each: literal lengths, offsets, match lengths.
        let sequences = |literals: &[u8], codes: [u8; 3], stream: &[u8]| {
            let section = [&[1, 0x54][..], &codes, stream].concat();
            compressed(&[literals, &section].concat())
        };
        // Three matches of 65,539 bytes from four bytes back, then from one.
        let long = [&[0, 3, 0x54, 0, 0, 52][..], &[0; 6], &[1]].concat();
        let long = frame(&[(RAW, b"abcd"), (COMPRESSED, &long)]);
        #[rustfmt::skip]
        check("zstd", &[
            ("nothing", &compressed(b"\x00\x00"), Ok(b"")),
            ("literals", &compressed(b"\x18abc\x00"), Ok(b"abc")),
            ("a repeated literal", &compressed(b"\x19a\x00"), Ok(b"aaa")),
            ("literals and a match", &sequences(b"\x20abcd", [4, 0, 0], b"\x01"), Ok(b"abcdddd")),
            ("literals after it", &sequences(b"\x20abcd", [2, 0, 0], b"\x01"), Ok(b"abbbbcd")),
            ("a match in the last block", &frame(&[(RAW, b"abcd"), (COMPRESSED, &[0, 1, 0x54, 0, 0, 0, 1])]), Ok(b"abcdabc")),
            ("no literals section", &compressed(b""), Err("zstd: a block is cut short")),
            ("too few literals for their header", &compressed(b"\x18ab"), Err("zstd: a block is cut short")),
            ("no sequences section", &compressed(b"\x18abc"), Err("zstd: a block is cut short")),
            ("more than no sequences", &compressed(b"\x18abc\x00\x00"), Err("zstd: a block without sequences has more bytes")),
            ("too many literals", &compressed(b"\x1d\xd4\x30a\x00"), Err("zstd: a block is longer than blocks may be")),
            ("too long a match", &long, Err("zstd: a block is longer than blocks may be")),
            ("no Huffman table to repeat", &compressed(b"\x13\x40\x00\x01\x00"), Err("zstd: no Huffman table to repeat")),
            ("no table to repeat", &compressed(b"\x00\x01\xfc\x01"), Err("zstd: no table to repeat")),
            ("a reserved bit", &compressed(b"\x00\x01\x01\x01"), Err("zstd: a reserved bit is set in a block")),
            ("no such code", &sequences(b"\x20abcd", [36, 0, 0], b"\x01"), Err("zstd: a code is not defined")),
            ("more literals than there are", &sequences(b"\x20abcd", [5, 0, 0], b"\x01"), Err("zstd: a block has too few literals")),
            ("before the beginning", &sequences(b"\x20abcd", [4, 3, 0], b"\x08"), Err("zstd: an offset before the beginning")),
            ("an offset of zero", &sequences(b"\x00", [0, 1, 0], b"\x03"), Err("zstd: an offset of zero")),
            ("bits that are left", &sequences(b"\x20abcd", [4, 0, 0], b"\x03"), Err("zstd: a stream of another length than its content")),
            ("bits that are missing", &sequences(b"\x20abcd", [4, 4, 0], b"\x01"), Err("zstd: the sequences of a block are cut short")),
            ("no end mark", &sequences(b"\x20abcd", [4, 0, 0], b"\x00"), Err("zstd: a stream without an end mark")),
            ("no stream", &sequences(b"\x20abcd", [4, 0, 0], b""), Err("zstd: a stream of no bytes")),
        ]);
    }

    /// Whatever is decoded of a damaged frame, ruzstd agrees with it. The reverse does not hold, as
    /// ruzstd checks less.
    #[test]
    fn what_is_decoded_is_what_another_decoder_makes_of_it() {
        let words = include_bytes!("../fixtures/words.zst");
        let repeated = include_bytes!("../fixtures/repeated-large.zst");
        let wires = [WITH_CHECKSUM, FLUSHED, LETTERS, SENTENCES, words, repeated];
        let mut random = Random::new(3);
        let mut agreed = 0;
        for round in 0..3000 {
            let mut wire = wires[random.below(wires.len())].to_vec();
            // The checksum would notice all changes.
            let has_checksum = wire[4] & HAS_CHECKSUM != 0;
            wire[4] &= !HAS_CHECKSUM;
            wire.truncate(wire.len() - if has_checksum { 4 } else { 0 });
            for _ in 0..random.below(3) {
                let bit = 8 * 4 + random.below(8 * (wire.len() - 4));
                wire[bit / 8] ^= 1 << (bit % 8);
            }
            let (body, error) = decode("zstd", &[&wire], 1 << 20, (ROOM, 0));
            if error.is_none() {
                let mut other = Vec::new();
                let decoder = StreamingDecoder::new(&*wire);
                let read = decoder.unwrap().read_to_end(&mut other);
                assert!(read.is_ok() && other == body, "{round}: {wire:02x?}");
                agreed += 1;
            }
        }
        assert!(agreed > 1000, "{agreed}");
    }
}
