//! The algorithms of Digest (RFC 7616 §3.3, §6.1).

use std::fmt::Write;

use md5::Md5;
use sha2::{Digest, Sha256, Sha512_256};

/// A value of the parameter `algorithm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Algorithm {
    pub(super) hash: Hash,
    pub(super) key: Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Md5,
    Sha256,
    /// SHA-512/256 as published (FIPS 180-4 §6.7). RFC 7616 §3.9.2 was computed with a draft of
    /// it, which erratum 4897 corrects.
    Sha512_256,
}

/// What A1 is computed from (RFC 7616 §3.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// User name, realm and password.
    Plain,
    /// Also the nonce and cnonce of the first request: the `-sess` algorithms.
    Session,
}

/// How strong an algorithm is. All that is sound counts the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Strength {
    Weak,
    Sound,
}

impl Algorithm {
    /// The algorithm of challenges that do not name one.
    pub(super) const DEFAULT: Self = Self {
        hash: Hash::Md5,
        key: Key::Plain,
    };

    /// Returns the algorithm with this name, in any case, if it is supported.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        const ALL: [(&str, Hash, Key); 6] = [
            ("MD5", Hash::Md5, Key::Plain),
            ("MD5-sess", Hash::Md5, Key::Session),
            ("SHA-256", Hash::Sha256, Key::Plain),
            ("SHA-256-sess", Hash::Sha256, Key::Session),
            ("SHA-512-256", Hash::Sha512_256, Key::Plain),
            ("SHA-512-256-sess", Hash::Sha512_256, Key::Session),
        ];
        ALL.iter()
            .find(|(known, ..)| known.as_bytes().eq_ignore_ascii_case(name))
            .map(|&(_, hash, key)| Self { hash, key })
    }

    pub(super) fn strength(self) -> Strength {
        match self.hash {
            Hash::Md5 => Strength::Weak,
            Hash::Sha256 | Hash::Sha512_256 => Strength::Sound,
        }
    }
}

impl Hash {
    /// Returns the hash of `parts`, joined by colons, in lower-case hexadecimal digits.
    pub(super) fn of(self, parts: &[&[u8]]) -> String {
        match self {
            Hash::Md5 => hex_of::<Md5>(parts),
            Hash::Sha256 => hex_of::<Sha256>(parts),
            Hash::Sha512_256 => hex_of::<Sha512_256>(parts),
        }
    }
}

fn hex_of<D: Digest>(parts: &[&[u8]]) -> String {
    let mut hash = D::new();
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            hash.update(b":");
        }
        hash.update(part);
    }
    let mut hex = String::with_capacity(64);
    for byte in hash.finalize() {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_case_insensitive_and_complete() {
        let named = |name: &str| Algorithm::named(name.as_bytes());
        let sess = Algorithm {
            hash: Hash::Sha512_256,
            key: Key::Session,
        };
        assert_eq!(named("sha-512-256-SESS"), Some(sess));
        assert_eq!(named("md5"), Some(Algorithm::DEFAULT));
        for name in ["", "MD", "MD5-", "SHA", "SHA-512", "SHA-1", "MD5-sess-sess"] {
            assert_eq!(named(name), None, "{name}");
        }
    }

    #[test]
    fn hashes_join_their_parts_by_colons() {
        // RFC 1321 appendix A.5; FIPS 180-4 examples for "abc".
        let abc: &[&[u8]] = &[b"abc"];
        #[rustfmt::skip]
        let rows = [
            (Hash::Md5, "900150983cd24fb0d6963f7d28e17f72"),
            (Hash::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (Hash::Sha512_256, "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23"),
        ];
        for (hash, expected) in rows {
            assert_eq!(hash.of(abc), expected, "{hash:?}");
            assert_eq!(hash.of(&[b"a", b"", b"b"]), hash.of(&[b"a::b"]), "{hash:?}");
        }
    }
}
