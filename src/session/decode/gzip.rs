//! The coding `gzip` (RFC 1952): members, each with a header, deflated data, and a trailer.
//!
//! A body may have several members. What follows the last one is ignored, such as the zeros that
//! some programs pad with. Header fields are skipped and bounded. The checksum and the length of
//! each member are compared with what was decoded.

use std::io;

use flate2::{Crc, Decompress, DecompressError, FlushDecompress, Status};

use crate::policy::{Decoder, Progress};
use crate::session::decode::Install;
use crate::session::decode::contained::Contained;
use crate::session::decode::fault::{cut_short, malformed};

const NAME: &str = "gzip";

pub(super) const DECODER: Option<Install> =
    Some(|screening| screening.decode(Contained::new(NAME, Gzip::default())));

/// The most bytes that are decompressed in one go. A turn ends between two of them.
const MAX_INPUT: usize = 4096;

/// The first two bytes of a member.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The only compression method, deflate.
const DEFLATE: u8 = 8;

/// The most bytes of a file name or a comment, which a header may contain.
const MAX_TEXT: usize = 64 * 1024;

// Flags of a header.
const HAS_CRC: u8 = 1 << 1;
const HAS_EXTRA: u8 = 1 << 2;
const HAS_NAME: u8 = 1 << 3;
const HAS_COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

#[derive(Default)]
struct Gzip {
    state: State,
    inflate: Inflate,
    crc: Crc,
}

/// The parts of a member come in this order; optional ones are left out.
#[derive(Default)]
enum State {
    /// Before the first member.
    #[default]
    First,
    /// After a member. The first byte of another one may have been consumed.
    Next {
        has_begun: bool,
    },
    /// The rest of the fixed part of a header.
    Fixed,
    /// A part of a header that its flags announce.
    Optional(Part, u8),
    /// Deflated data.
    Data,
    Trailer,
    /// Bytes after the last member.
    Rest,
}

/// A part of a header, in this order.
#[derive(Clone, Copy)]
enum Part {
    ExtraLen,
    /// So many bytes of extra fields.
    Extra(usize),
    /// A name of which so many bytes were skipped.
    Name(usize),
    Comment(usize),
    Crc,
}

/// Decompresses deflated data, which may follow a zlib header.
#[derive(Default)]
pub(super) struct Inflate(Option<Decompress>);

impl Inflate {
    /// Begins another body, or another part of it. Allocates only the first time.
    pub(super) fn begin(&mut self, zlib_header: bool) {
        match &mut self.0 {
            Some(decompress) => decompress.reset(zlib_header),
            None => self.0 = Some(Decompress::new(zlib_header)),
        }
    }

    /// Returns what was consumed and produced, and whether the data has ended.
    pub(super) fn decode(
        &mut self,
        coding: &str,
        input: &[u8],
        room: &mut [u8],
    ) -> io::Result<(Progress, bool)> {
        let decompress = self.0.as_mut().expect("`begin` comes first");
        let (before_in, before_out) = (decompress.total_in(), decompress.total_out());
        let input = &input[..input.len().min(MAX_INPUT)];
        let status = decompress
            .decompress(input, room, FlushDecompress::None)
            .map_err(|error| malformed(coding, describe(&error)))?;
        let progress = Progress {
            consumed: (decompress.total_in() - before_in) as usize,
            produced: (decompress.total_out() - before_out) as usize,
        };
        Ok((progress, status == Status::StreamEnd))
    }
}

fn describe(error: &DecompressError) -> &str {
    match error.needs_dictionary() {
        Some(_) => "it needs a dictionary",
        None => error.message().unwrap_or("the deflated data is malformed"),
    }
}

impl Gzip {
    /// Goes on by one step, which may consume nothing. Returns `None` if the input is too short.
    fn step(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Option<Progress>> {
        match self.state {
            State::First => self.begin(input),
            State::Next { has_begun } => Ok(self.begin_next(input, has_begun)),
            State::Fixed => self.fixed(input),
            State::Optional(part, flags) => self.optional(part, flags, input),
            State::Data => self.data(input, room),
            State::Trailer => self.trailer(input),
            State::Rest if input.is_empty() => Ok(None),
            State::Rest => Ok(consumed(input.len())),
        }
    }

    fn begin(&mut self, input: &[u8]) -> io::Result<Option<Progress>> {
        let Some(magic) = input.first_chunk() else {
            return Ok(None);
        };
        if *magic != MAGIC {
            let [a, b] = magic;
            let why = format!("it begins with the bytes {a:02x} {b:02x}");
            return Err(malformed(NAME, why));
        }
        self.begin_member();
        Ok(consumed(MAGIC.len()))
    }

    /// Continues after a member. Input is consumed at once, because a single byte may be all that
    /// follows.
    fn begin_next(&mut self, input: &[u8], has_begun: bool) -> Option<Progress> {
        let byte = *input.first()?;
        match (byte == MAGIC[usize::from(has_begun)], has_begun) {
            (true, true) => self.begin_member(),
            (true, false) => self.state = State::Next { has_begun: true },
            (false, _) => self.state = State::Rest,
        }
        consumed(1)
    }

    fn begin_member(&mut self) {
        self.crc.reset();
        self.crc.update(&MAGIC);
        self.state = State::Fixed;
    }

    fn fixed(&mut self, input: &[u8]) -> io::Result<Option<Progress>> {
        let Some(fixed) = input.first_chunk::<8>() else {
            return Ok(None);
        };
        let [method, flags, ..] = *fixed;
        if method != DEFLATE {
            let why = format!("unknown compression method {method}");
            return Err(malformed(NAME, why));
        }
        if flags & RESERVED != 0 {
            // RFC 1952 §2.3.1.2.
            let why = format!("reserved flags in a header ({flags:#04x})");
            return Err(malformed(NAME, why));
        }
        self.crc.update(fixed);
        self.enter(Part::ExtraLen, flags);
        Ok(consumed(fixed.len()))
    }

    /// Enters a part of a header, or the first one after it that is there.
    fn enter(&mut self, part: Part, flags: u8) {
        let has = |flag| flags & flag != 0;
        let (is_there, next) = match part {
            Part::ExtraLen => (has(HAS_EXTRA), Some(Part::Name(0))),
            Part::Extra(_) => (true, None),
            Part::Name(_) => (has(HAS_NAME), Some(Part::Comment(0))),
            Part::Comment(_) => (has(HAS_COMMENT), Some(Part::Crc)),
            Part::Crc => (has(HAS_CRC), None),
        };
        match (is_there, next) {
            (true, _) => self.state = State::Optional(part, flags),
            (false, Some(next)) => self.enter(next, flags),
            (false, None) => {
                self.crc.reset();
                self.inflate.begin(false);
                self.state = State::Data;
            }
        }
    }

    fn optional(&mut self, part: Part, flags: u8, input: &[u8]) -> io::Result<Option<Progress>> {
        if input.is_empty() {
            return Ok(None);
        }
        let n = match part {
            Part::ExtraLen => {
                let Some(len) = input.first_chunk::<2>() else {
                    return Ok(None);
                };
                self.crc.update(len);
                self.enter(Part::Extra(u16::from_le_bytes(*len).into()), flags);
                len.len()
            }
            Part::Extra(left) => {
                let n = left.min(input.len());
                self.crc.update(&input[..n]);
                match left - n {
                    0 => self.enter(Part::Name(0), flags),
                    left => self.enter(Part::Extra(left), flags),
                }
                n
            }
            Part::Name(seen) => {
                let (n, more) = self.skip_text(seen, input)?;
                self.enter(more.map_or(Part::Comment(0), Part::Name), flags);
                n
            }
            Part::Comment(seen) => {
                let (n, more) = self.skip_text(seen, input)?;
                self.enter(more.map_or(Part::Crc, Part::Comment), flags);
                n
            }
            Part::Crc => {
                let Some(crc) = input.first_chunk::<2>() else {
                    return Ok(None);
                };
                if u32::from(u16::from_le_bytes(*crc)) != self.crc.sum() & 0xffff {
                    return Err(malformed(NAME, "wrong checksum of a header"));
                }
                // None of the parts is left.
                self.enter(Part::Crc, 0);
                crc.len()
            }
        };
        Ok(consumed(n))
    }

    /// Skips text up to its zero byte. Returns how much of the input it takes and, if it is not
    /// over, its length so far.
    fn skip_text(&mut self, seen: usize, input: &[u8]) -> io::Result<(usize, Option<usize>)> {
        let end = input.iter().position(|&b| b == 0);
        let n = end.map_or(input.len(), |end| end + 1);
        if seen + n > MAX_TEXT {
            let why = format!("a name or a comment has more than {MAX_TEXT} bytes");
            return Err(malformed(NAME, why));
        }
        self.crc.update(&input[..n]);
        Ok((n, end.is_none().then_some(seen + n)))
    }

    fn data(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Option<Progress>> {
        let (progress, is_over) = self.inflate.decode(NAME, input, room)?;
        self.crc.update(&room[..progress.produced]);
        if is_over {
            self.state = State::Trailer;
        }
        let is_stuck = !is_over && progress == Progress::default();
        Ok((!is_stuck).then_some(progress))
    }

    fn trailer(&mut self, input: &[u8]) -> io::Result<Option<Progress>> {
        let Some([crc @ .., _, _, _, _]) = input.first_chunk::<8>() else {
            return Ok(None);
        };
        let len = &input[4..8];
        if *crc != self.crc.sum().to_le_bytes() {
            return Err(malformed(NAME, "wrong checksum"));
        }
        // The length modulo 2^32 (RFC 1952 §2.3.1).
        if *len != self.crc.amount().to_le_bytes() {
            return Err(malformed(NAME, "wrong length"));
        }
        self.state = State::Next { has_begun: false };
        Ok(consumed(8))
    }
}

/// The result of a step that produces nothing.
fn consumed(consumed: usize) -> Option<Progress> {
    Some(Progress {
        consumed,
        produced: 0,
    })
}

impl Decoder for Gzip {
    fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
        let mut total = Progress::default();
        loop {
            let was_data = matches!(self.state, State::Data);
            let Some(progress) = self.step(&input[total.consumed..], room)? else {
                return Ok(total);
            };
            total.consumed += progress.consumed;
            total.produced = progress.produced;
            // Nothing at all would mean that the input is too short.
            if was_data && total != Progress::default() {
                return Ok(total);
            }
        }
    }

    fn finish(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match self.state {
            State::Next { .. } | State::Rest => Ok(0),
            _ => Err(cut_short(NAME)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::session::decode::testing::{
        ALL, CUT_SHORT, check, check_cuts, check_mutations, check_pieces, decode, noise, repeated,
        words,
    };

    const HELLO: &[u8] = b"hello, hello!";

    // Made by Python's gzip and zlib.
    const MEMBER: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\
        \xcbH\xcd\xc9\xc9\xd7Q\xc8\x00Q\x8a\x00\x9b\xdc\x9a\xb3\x0d\x00\x00\x00";
    const EMPTY: &[u8] =
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    const NAMED: &[u8] = b"\x1f\x8b\x08\x08\x01\x00\x00\x00\x02\xffname.txt\x00\
        \xcbH\xcd\xc9\xc9\xd7Q\xc8\x00Q\x8a\x00\x9b\xdc\x9a\xb3\x0d\x00\x00\x00";
    const FLUSHED: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\
        \xcaH\xcd\xc9\xc9\xd7Q\x00\x00\x00\x00\xff\xff\xcb\x00Q\x8a\x00\
        \x9b\xdc\x9a\xb3\x0d\x00\x00\x00";
    /// A header with all optional parts: five bytes of extra fields, a name, a comment, a checksum.
    const FULL_HEADER: &[u8] = b"\x1f\x8b\x08\x1e\x00\x00\x00\x00\x00\x03\
        \x05\x00extraname\x00comment\x00\x03\xa5";

    /// Joins a header with the deflated data and the trailer of `MEMBER`.
    fn with_header(header: &[u8]) -> Vec<u8> {
        [header, &MEMBER[10..]].concat()
    }

    fn edited(wire: &[u8], at: usize, byte: u8) -> Vec<u8> {
        let mut wire = wire.to_vec();
        wire[at] = byte;
        wire
    }

    #[test]
    fn members_are_decoded_at_every_split() {
        let end = MEMBER.len();
        let text = |n: usize| [&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3][..], &vec![b'n'; n]].concat();
        let no_extra = b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\x03\x00\x00";
        #[rustfmt::skip]
        check("gzip", &[
            ("a member", MEMBER, Ok(HELLO)),
            ("an empty one", EMPTY, Ok(b"")),
            ("a name", NAMED, Ok(HELLO)),
            ("flushed halfway", FLUSHED, Ok(HELLO)),
            ("all parts of a header", &with_header(FULL_HEADER), Ok(HELLO)),
            ("extra fields without a byte", &with_header(no_extra), Ok(HELLO)),
            ("two members", &[MEMBER, MEMBER].concat(), Ok(b"hello, hello!hello, hello!")),
            ("empty members between", &[EMPTY, MEMBER, EMPTY, NAMED, EMPTY].concat(), Ok(b"hello, hello!hello, hello!")),
            ("zeros after it", &[MEMBER, &[0; 20]].concat(), Ok(HELLO)),
            ("a member after zeros is not one", &[MEMBER, &[0], MEMBER].concat(), Ok(HELLO)),
            ("a line end after it", &[MEMBER, b"\r\n"].concat(), Ok(HELLO)),
            ("half of the magic after it", &[MEMBER, b"\x1f"].concat(), Ok(HELLO)),
            ("half of the magic and more", &[MEMBER, b"\x1f\x1f\x8b\x08"].concat(), Ok(HELLO)),
            ("another member cut short", &[MEMBER, &MEMBER[..2]].concat(), Err(CUT_SHORT)),
            ("another member that is none", &[MEMBER, b"\x1f\x8b\x07\0\0\0\0\0\0\0"].concat(), Err("gzip: unknown compression method 7")),
            ("no gzip", b"hello", Err("gzip: it begins with the bytes 68 65")),
            ("the zlib format", b"x\x9c\x03\x00\x00\x00\x00\x01", Err("gzip: it begins with the bytes 78 9c")),
            ("a reserved flag", &edited(MEMBER, 3, 0x20), Err("gzip: reserved flags in a header (0x20)")),
            ("a wrong checksum", &edited(MEMBER, end - 8, 0), Err("gzip: wrong checksum")),
            ("a wrong length", &edited(MEMBER, end - 4, 14), Err("gzip: wrong length")),
            ("a wrong length, far off", &edited(MEMBER, end - 1, 1), Err("gzip: wrong length")),
            ("a wrong checksum of a header", &with_header(&edited(FULL_HEADER, 14, b'E')), Err("gzip: wrong checksum of a header")),
            ("no deflated data", &edited(MEMBER, 10, 0xff), Err("gzip: ")),
        ]);
        // Too long for every split.
        let around = (64, 0);
        for (n, fits) in [(MAX_TEXT - 1, true), (MAX_TEXT, false)] {
            let wire = [&text(n), &b"\0"[..], &MEMBER[10..]].concat();
            for cut in [wire.len(), 1000, 1] {
                let feed: Vec<_> = wire.chunks(cut).collect();
                let (body, error) = decode("gzip", &feed, ALL, around);
                assert_eq!((body == HELLO, error.is_none()), (fits, fits), "{n} {cut}");
            }
        }
        let longest_extra = [&no_extra[..10], &[0xff; 2], &vec![b'x'; 0xffff][..]].concat();
        let found = decode("gzip", &[&with_header(&longest_extra)], ALL, around);
        assert_eq!(found, (HELLO.to_vec(), None));
    }

    #[test]
    fn a_member_cut_anywhere_is_cut_short() {
        for wire in [MEMBER, NAMED, FLUSHED, &with_header(FULL_HEADER)] {
            check_cuts("gzip", wire, HELLO);
        }
    }

    #[test]
    fn long_bodies_are_decoded_in_any_pieces() {
        check_pieces("gzip", include_bytes!("fixtures/words.gz"), &words());
        check_pieces("gzip", include_bytes!("fixtures/repeated.gz"), &repeated());
        for len in [1, 1000, 300_000] {
            for level in [0, 1, 6] {
                let data = noise(len);
                let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
                encoder.write_all(&data).unwrap();
                check_pieces("gzip", &encoder.finish().unwrap(), &data);
            }
        }
    }

    #[test]
    fn many_members_are_decoded_one_after_the_other() {
        let wire = MEMBER.repeat(3000);
        check_pieces("gzip", &wire, &HELLO.repeat(3000));
    }

    #[test]
    fn what_is_flushed_is_there_before_the_rest() {
        let (body, _) = decode("gzip", &[&FLUSHED[..22]], ALL, (64, 0));
        assert_eq!(body, b"hello, ");
    }

    #[test]
    fn no_input_panics() {
        let full = with_header(FULL_HEADER);
        let words = include_bytes!("fixtures/words.gz");
        check_mutations("gzip", &[MEMBER, EMPTY, FLUSHED, &full, &words[..]]);
    }
}
