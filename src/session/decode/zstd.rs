//! The coding `zstd` (RFC 8878): frames, of blocks that have at most 128 KiB.
//!
//! The frames are read here and the blocks in them by ruzstd, which is given one whole block at a
//! time. A window has at most 8 MiB, as RFC 9659 requires of this coding. Skippable frames are
//! skipped; frames with a dictionary are refused. The length and the checksum of each frame are
//! compared with what was decoded, if it has them.

use std::io::{self, Read};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::policy::{Decoder, Progress};
use crate::session::decode::Install;
use crate::session::decode::contained::Contained;
use crate::session::decode::fault::{cut_short, malformed};

const NAME: &str = "zstd";

pub(super) const DECODER: Option<Install> =
    Some(|screening| screening.decode(Contained::new(NAME, Zstd::default())));

/// The first four bytes of a frame, as a little-endian number.
const MAGIC: u32 = 0xfd2f_b528;

/// The same of a skippable frame, whose last four bits may have any value.
const SKIPPABLE: u32 = 0x184d_2a50;

/// The largest window (RFC 9659 §3).
const MAX_WINDOW: u64 = 8 * 1024 * 1024;

/// The most bytes of a frame header, with its magic number.
const MAX_HEADER: usize = 18;

/// The header of a block.
const BLOCK_HEADER: usize = 3;

/// The most bytes of a block.
const MAX_BLOCK: usize = 128 * 1024;

const HAS_CHECKSUM: u8 = 1 << 2;

#[derive(Default)]
struct Zstd {
    state: State,
    decoder: Option<Box<FrameDecoder>>,
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
        let number = |bytes: &[u8]| {
            let digits = bytes.iter().rev();
            digits.fold(0, |number, &byte| number << 8 | u64::from(byte))
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
        // The checksum, which only has to be complete, is read here and not by ruzstd.
        let mut bytes = [0; MAX_HEADER];
        let bytes = &mut bytes[..header.len];
        bytes.copy_from_slice(&input[..header.len]);
        bytes[4] &= !HAS_CHECKSUM;
        let decoder = self.decoder.get_or_insert_default();
        decoder
            .reset(&*bytes)
            .map_err(|error| malformed(NAME, error))?;
        self.state = State::Block(Frame {
            len: header.content_len,
            has_checksum: header.has_checksum,
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
        if size > MAX_BLOCK {
            return Err(malformed(NAME, format!("a block of {size} bytes")));
        }
        // One byte that is repeated, or as many as its size says.
        let len = BLOCK_HEADER + if kind == 1 { 1 } else { size };
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
        let decoder = self.decoder.as_mut().expect("a frame has begun");
        decoder
            .decode_blocks(whole, BlockDecodingStrategy::UptoBlocks(1))
            .map_err(|error| malformed(NAME, error))?;
        self.block.clear();
        self.state = State::Decoded(frame, is_last);
        Ok(Some(consumed(n)))
    }

    /// Hands out what has been decoded, except for the window as long as more blocks follow.
    fn decoded(
        &mut self,
        mut frame: Frame,
        is_last: IsLast,
        room: &mut [u8],
    ) -> io::Result<Option<Progress>> {
        let decoder = self.decoder.as_mut().expect("a frame has begun");
        let produced = decoder.read(room)?;
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
        let decoder = self.decoder.as_ref().expect("a frame has begun");
        if decoder.get_calculated_checksum() != Some(u32::from_le_bytes(*checksum)) {
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
        while total.produced == 0
            && let Some(progress) = self.step(&input[total.consumed..], room)?
        {
            total.consumed += progress.consumed;
            total.produced = progress.produced;
        }
        Ok(total)
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
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use crate::session::decode::testing::{
        CUT_SHORT, check, check_cuts, check_mutations, check_pieces, noise, repeated, words,
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
        check_pieces("zstd", include_bytes!("fixtures/words.zst"), &words());
        let (small, large) = (
            include_bytes!("fixtures/repeated-small.zst"),
            include_bytes!("fixtures/repeated-large.zst"),
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
    fn no_input_panics() {
        let words = include_bytes!("fixtures/words.zst");
        let repeated = include_bytes!("fixtures/repeated-large.zst");
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
}
