//! Content codings of bodies, some of them broken.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use httpstream::ErrorKind;
use httpstream::sim::Random;

/// The value of Accept-Encoding that sessions with codings send.
pub(crate) const ACCEPTED: &str = "gzip, deflate, br, zstd";

/// The most codings of a body that are removed.
const MOST: usize = 3;

/// A body with codings.
pub(crate) struct Coded {
    pub(crate) bytes: Vec<u8>,
    /// The values of Content-Encoding.
    pub(crate) names: Vec<String>,
    /// The error of a client that decodes it.
    pub(crate) spoiled: Option<ErrorKind>,
    pub(crate) layers: usize,
}

/// Applies one to three codings, or one too many, and breaks some of them.
pub(crate) fn code(random: &mut Random, body: &[u8]) -> Coded {
    let layers = match random.chance(40) {
        true => MOST + 1,
        false => *random.pick(&[1, 1, 2, 3]),
    };
    let mut bytes = body.to_vec();
    let mut names: Vec<String> = Vec::new();
    let mut has_checksum = false;
    for _ in 0..layers {
        let (name, coded) = layer(random, &bytes);
        has_checksum = name.1;
        bytes = coded;
        // All in one line, or each in its own.
        match names.last_mut().filter(|_| random.chance(700)) {
            Some(line) => *line += &format!(", {}", name.0),
            None => names.push(name.0.to_owned()),
        }
    }
    let spoiled = match random.below(10) {
        _ if layers > MOST => Some(ErrorKind::Malformed),
        0 if has_checksum => {
            // An empty body has no coding.
            let most = (bytes.len() - 1).min(30);
            bytes.truncate(bytes.len() - random.between(1, most));
            Some(ErrorKind::Truncated)
        }
        1 if has_checksum => {
            // It is the last thing in both formats.
            let last = bytes.len() - random.between(1, 4);
            bytes[last] ^= 1 << random.below(8);
            Some(ErrorKind::Malformed)
        }
        _ => None,
    };
    Coded {
        bytes,
        names,
        spoiled,
        layers,
    }
}

/// Applies one coding. Returns its name, and whether it ends with a checksum.
fn layer(random: &mut Random, body: &[u8]) -> ((&'static str, bool), Vec<u8>) {
    let level = Compression::new(random.between(0, 9) as u32);
    let wrong = "a vector accepts all that is written";
    match random.below(6) {
        0..3 => {
            let name = *random.pick(&["gzip", "gzip", "GZip", "x-gzip"]);
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(body).expect(wrong);
            ((name, true), encoder.finish().expect(wrong))
        }
        3 | 4 => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(body).expect(wrong);
            (("deflate", true), encoder.finish().expect(wrong))
        }
        _ => {
            // Without the format around it, as some servers do.
            let mut encoder = DeflateEncoder::new(Vec::new(), level);
            encoder.write_all(body).expect(wrong);
            (("deflate", false), encoder.finish().expect(wrong))
        }
    }
}
