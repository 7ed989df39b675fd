//! The coding `br` (RFC 7932).
//!
//! The window has at most 16 MiB: larger ones, an extension of the format, are refused. What
//! follows the end is ignored.

use std::io;

use brotli_decompressor::{
    Allocator, BrotliDecompressStream, BrotliResult, BrotliState, SliceWrapper, SliceWrapperMut,
};

use crate::policy::{Decoder, Progress};
use crate::session::decode::Install;
use crate::session::decode::contained::Contained;
use crate::session::decode::fault::{cut_short, malformed};

const NAME: &str = "br";

/// The most bytes that are decompressed in one go. A turn ends between two of them.
const MAX_INPUT: usize = 4096;

pub(super) const DECODER: Option<Install> =
    Some(|screening| screening.decode(Contained::new(NAME, Brotli::default())));

#[derive(Default)]
struct Brotli {
    /// Created with the first bytes of a body.
    stream: Option<Box<BrotliState<Heap, Heap, Heap>>>,
    is_over: bool,
}

impl Decoder for Brotli {
    fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
        if self.is_over {
            return Ok(Progress {
                consumed: input.len(),
                produced: 0,
            });
        }
        let whole = input.len();
        let input = &input[..whole.min(MAX_INPUT)];
        let new = || Box::new(BrotliState::new_strict(Heap, Heap, Heap));
        let stream = self.stream.get_or_insert_with(new);
        let (mut input_left, mut consumed) = (input.len(), 0);
        let (mut room_left, mut produced) = (room.len(), 0);
        let result = BrotliDecompressStream(
            &mut input_left,
            &mut consumed,
            input,
            &mut room_left,
            &mut produced,
            room,
            &mut 0,
            stream,
        );
        match result {
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultSuccess => {
                self.is_over = true;
                self.stream = None;
                if produced == 0 {
                    consumed = whole;
                }
            }
            BrotliResult::ResultFailure => {
                let code = format!("{:?}", stream.error_code);
                let why = code.trim_start_matches("BROTLI_DECODER_ERROR_");
                return Err(malformed(NAME, why));
            }
        }
        Ok(Progress { consumed, produced })
    }

    fn finish(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match self.is_over {
            true => Ok(0),
            false => Err(cut_short(NAME)),
        }
    }
}

/// Allocates what the decoder asks for: tables of up to 4 MiB, and a window that grows with the
/// body.
struct Heap;

#[derive(Default)]
struct Memory<T>(Box<[T]>);

impl<T: Clone + Default> Allocator<T> for Heap {
    type AllocatedMemory = Memory<T>;

    fn alloc_cell(&mut self, len: usize) -> Memory<T> {
        Memory(vec![T::default(); len].into())
    }

    fn free_cell(&mut self, memory: Memory<T>) {
        drop(memory);
    }
}

impl<T> SliceWrapper<T> for Memory<T> {
    fn slice(&self) -> &[T] {
        &self.0
    }
}

impl<T> SliceWrapperMut<T> for Memory<T> {
    fn slice_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use crate::session::decode::testing::{
        ALL, check, check_cuts, check_mutations, check_pieces, decode, noise, repeated, words,
    };

    const HELLO: &[u8] = b"hello, hello!";

    // Made by the package brotli 1.2.0 of PyPI.
    const STREAM: &[u8] = b"\x0b\x06\x80hello, hello!\x03";
    const FLUSHED: &[u8] = b"\x0b\x03\x80hello, (\x00\x08hello!\x03";
    const WITH_WORDS: &[u8] = b"\x1b2\x00\xf8%\x00\xfa\x10`\x82\x11Fw\xb2\x0b>\x00q!p\xff\x19\x1b";

    /// Stores data as it is, in one metablock (RFC 7932 §9.2).
    fn stored(data: &[u8]) -> Vec<u8> {
        // A window of 16 bits, then not the last, a length of 4, 5 or 6 nibbles, uncompressed.
        let len = data.len() - 1;
        let nibbles: usize = if len < 1 << 16 {
            4
        } else if len < 1 << 20 {
            5
        } else {
            6
        };
        let bits = ((nibbles - 4) as u64) << 2 | (len as u64) << 4 | 1 << (4 + 4 * nibbles);
        let bytes = bits.to_le_bytes();
        let used = (5 + 4 * nibbles).div_ceil(8);
        [&bytes[..used], data, b"\x03"].concat()
    }

    #[test]
    fn streams_are_decoded_at_every_split() {
        #[rustfmt::skip]
        check("br", &[
            ("a stream", STREAM, Ok(HELLO)),
            ("an empty one", b";", Ok(b"")),
            ("flushed halfway", FLUSHED, Ok(HELLO)),
            ("words of the dictionary", WITH_WORDS, Ok(b"The time of the world, the number of the university")),
            ("stored", &stored(b"stored"), Ok(b"stored")),
            ("more after it", &[STREAM, b"more"].concat(), Ok(HELLO)),
            ("a window of more than 16 MiB", b"\x11\x1e\x03\x03\x03", Err("br: FORMAT_WINDOW_BITS")),
            ("no stream", b"\xff\xff\xff\xff", Err("br: FORMAT_")),
        ]);
    }

    #[test]
    fn a_stream_cut_anywhere_is_cut_short() {
        for (wire, expected) in [(STREAM, HELLO), (FLUSHED, HELLO)] {
            check_cuts("br", wire, expected);
        }
    }

    #[test]
    fn long_bodies_are_decoded_in_any_pieces() {
        check_pieces("br", include_bytes!("fixtures/words.br"), &words());
        check_pieces("br", include_bytes!("fixtures/repeated.br"), &repeated());
        for len in [1, 1000, 1 << 16, 300_000] {
            let data = noise(len);
            check_pieces("br", &stored(&data), &data);
        }
    }

    #[test]
    fn what_is_flushed_is_there_before_the_rest() {
        let (body, _) = decode("br", &[&FLUSHED[..11]], ALL, (64, 0));
        assert_eq!(body, b"hello, ");
    }

    #[test]
    fn no_input_panics() {
        let words = include_bytes!("fixtures/words.br");
        let repeated = include_bytes!("fixtures/repeated.br");
        check_mutations("br", &[STREAM, FLUSHED, WITH_WORDS, words, repeated]);
    }
}
