//! The coding `deflate`: the zlib format (RFC 1950) as it should be, or deflated data (RFC 1951)
//! without it, as some servers send (RFC 9110 §8.4.1.2).
//!
//! The two are told apart by the first two bytes. What follows the end is ignored: some servers
//! send the checksum of zlib without its header.

use std::io;

use crate::policy::{Decoder, Progress};
use crate::session::decode::Install;
use crate::session::decode::contained::Contained;
use crate::session::decode::fault::cut_short;
use crate::session::decode::gzip::Inflate;

const NAME: &str = "deflate";

pub(super) const DECODER: Option<Install> =
    Some(|screening| screening.decode(Contained::new(NAME, Deflate::default())));

#[derive(Default)]
struct Deflate {
    state: State,
    inflate: Inflate,
}

#[derive(Default)]
enum State {
    #[default]
    Start,
    Data,
    Rest,
}

/// Whether a body begins with a zlib header (RFC 1950 §2.2). Deflated data without one would have
/// to begin with a stored block after bits that encoders leave at zero.
fn is_zlib(start: [u8; 2]) -> bool {
    let (method, window) = (start[0] & 0x0f, start[0] >> 4);
    method == 8 && window <= 7 && u16::from_be_bytes(start).is_multiple_of(31)
}

impl Decoder for Deflate {
    fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
        if let State::Start = self.state {
            let Some(start) = input.first_chunk() else {
                return Ok(Progress::default());
            };
            self.inflate.begin(is_zlib(*start));
            self.state = State::Data;
        }
        if let State::Data = self.state {
            let (progress, is_over) = self.inflate.decode(NAME, input, room)?;
            if !is_over {
                return Ok(progress);
            }
            self.state = State::Rest;
            if progress != Progress::default() {
                return Ok(progress);
            }
        }
        Ok(Progress {
            consumed: input.len(),
            produced: 0,
        })
    }

    fn finish(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match self.state {
            State::Rest => Ok(0),
            State::Start | State::Data => Err(cut_short(NAME)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, ZlibEncoder};

    use crate::session::decode::testing::{
        ALL, check, check_cuts, check_mutations, check_pieces, decode, noise, repeated, words,
    };

    const HELLO: &[u8] = b"hello, hello!";

    // Made by Python's zlib.
    const ZLIB: &[u8] = b"x\xda\xcbH\xcd\xc9\xc9\xd7Q\xc8\x00Q\x8a\x00!p\x04\x96";
    const RAW: &[u8] = b"\xcbH\xcd\xc9\xc9\xd7Q\xc8\x00Q\x8a\x00";
    const STORED: &[u8] = b"\x01\x0d\x00\xf2\xffhello, hello!";
    const WITH_DICTIONARY: &[u8] = b"x\xf9\x06,\x02\x15\xcb\x00\x11:\x0a`J\x11\x00!p\x04\x96";

    #[test]
    fn both_formats_are_decoded_at_every_split() {
        let end = ZLIB.len();
        let wrong_sum = [&ZLIB[..end - 1], &[0]].concat();
        #[rustfmt::skip]
        check("deflate", &[
            ("the zlib format", ZLIB, Ok(HELLO)),
            ("at another level", b"x\x01\xcbH\xcd\xc9\xc9\xd7Q\xc8\x00Q\x8a\x00!p\x04\x96", Ok(HELLO)),
            ("deflated data", RAW, Ok(HELLO)),
            ("stored data", STORED, Ok(HELLO)),
            ("nothing, in the zlib format", b"x\x9c\x03\x00\x00\x00\x00\x01", Ok(b"")),
            ("nothing, without it", b"\x03\x00", Ok(b"")),
            ("more after it", &[ZLIB, ZLIB].concat(), Ok(HELLO)),
            ("a checksum without a header", &[RAW, b"!p\x04\x96"].concat(), Ok(HELLO)),
            ("a wrong checksum", &wrong_sum, Err("deflate: incorrect data check")),
            ("a dictionary", WITH_DICTIONARY, Err("deflate: it needs a dictionary")),
            ("no deflated data", b"\xff\xff\xff", Err("deflate: ")),
            ("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x03\x00", Err("deflate: ")),
        ]);
    }

    #[test]
    fn a_body_cut_anywhere_is_cut_short() {
        for wire in [ZLIB, RAW, STORED] {
            check_cuts("deflate", wire, HELLO);
        }
    }

    #[test]
    fn long_bodies_are_decoded_in_any_pieces() {
        let zlib = include_bytes!("fixtures/words.zlib");
        let raw = &zlib[2..zlib.len() - 4];
        for wire in [&zlib[..], raw] {
            check_pieces("deflate", wire, &words());
        }
        for data in [noise(100_000), repeated()] {
            for level in [0, 1, 6] {
                let level = Compression::new(level);
                let mut zlib = ZlibEncoder::new(Vec::new(), level);
                zlib.write_all(&data).unwrap();
                check_pieces("deflate", &zlib.finish().unwrap(), &data);
                let mut raw = DeflateEncoder::new(Vec::new(), level);
                raw.write_all(&data).unwrap();
                check_pieces("deflate", &raw.finish().unwrap(), &data);
            }
        }
    }

    #[test]
    fn what_is_flushed_is_there_before_the_rest() {
        for encoder in [true, false] {
            let mut zlib = ZlibEncoder::new(Vec::new(), Compression::new(6));
            zlib.write_all(HELLO).unwrap();
            zlib.flush().unwrap();
            let wire = &zlib.get_ref()[if encoder { 0 } else { 2 }..];
            let (body, _) = decode("deflate", &[wire], ALL, (64, 0));
            assert_eq!(body, HELLO);
        }
    }

    #[test]
    fn no_input_panics() {
        let words = include_bytes!("fixtures/words.zlib");
        check_mutations("deflate", &[ZLIB, RAW, STORED, WITH_DICTIONARY, words]);
    }
}
