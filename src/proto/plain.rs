//! Fast path for plain heads, which nearly every server sends: read in one pass, values eight bytes
//! at a time.
//!
//! A plain head has a status line with a reason, or at least the space before it. Its field lines
//! end in CRLF and have a name, a colon, at most one space, and a value that contains no tabs and
//! neither starts nor ends with a space. This reader refuses nothing. Heads that are incomplete or
//! not plain are left to [`head`](super::head), which uses httparse. httparse reads plain heads to
//! the same end, but takes half as many instructions again.

use http::{StatusCode, Version};

use super::field::Field;
use super::framing::Framing;
use super::head::{AFTER_STATUS, Head, STATUS, is_token_byte};

const LINE_END: &[u8] = b"\r\n";

impl Head {
    /// Returns `None` if the head is incomplete, not plain, or has more than `max_fields` lines.
    /// The contents of `self` are then meaningless.
    #[inline(never)]
    pub(super) fn read_plain(&mut self, head: &[u8], max_fields: usize) -> Option<Framing> {
        let (start, rest) = head.split_first_chunk::<{ AFTER_STATUS + 1 }>()?;
        self.version = match &start[..STATUS] {
            b"HTTP/1.0 " => Version::HTTP_10,
            b"HTTP/1.1 " => Version::HTTP_11,
            _ => return None,
        };
        self.status = match &start[STATUS..AFTER_STATUS] {
            b"200" => StatusCode::OK,
            code => StatusCode::from_bytes(code).ok()?,
        };
        if start[AFTER_STATUS] != b' ' {
            return None;
        }
        let reason = text_len(rest)?;
        self.reason = (start.len() as u32, reason as u32);
        let mut rest = rest[reason..].strip_prefix(LINE_END)?;

        let mut framing = Framing::default();
        self.fields.clear();
        loop {
            if let Some(behind) = rest.strip_prefix(LINE_END) {
                self.len = (head.len() - behind.len()) as u32;
                return Some(framing);
            }
            let place = head.len() - rest.len();
            let name = name_len(rest)?;
            let (1.., [b':', after @ ..]) = (name, &rest[name..]) else {
                return None;
            };
            let value = after.strip_prefix(b" ").unwrap_or(after);
            let len = text_len(value)?;
            let text = &value[..len];
            if let [b' ', ..] | [.., b' '] = text {
                return None;
            }
            if self.fields.len() == max_fields {
                return None;
            }
            let value_place = head.len() - value.len();
            framing.note(&rest[..name], text, value_place);
            let at = |place: usize, len: usize| (place as u32, len as u32);
            self.fields
                .push(Field::at(at(place, name), at(value_place, len)));
            rest = value[len..].strip_prefix(LINE_END)?;
        }
    }
}

/// Returns a word of eight equal bytes.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The top bit of each byte.
const TOP: u64 = each(0x80);

/// Returns the number of bytes before the first control byte, or `None` if there is none.
#[inline(always)]
fn text_len(bytes: &[u8]) -> Option<usize> {
    let mut left = bytes;
    while let Some((window, rest)) = left.split_first_chunk::<32>() {
        for (i, word) in window.as_chunks::<8>().0.iter().enumerate() {
            let found = control_bytes(u64::from_le_bytes(*word));
            if found != 0 {
                return Some(bytes.len() - left.len() + i * 8 + first(found));
            }
        }
        left = rest;
    }
    let at = left.iter().position(u8::is_ascii_control)?;
    Some(bytes.len() - left.len() + at)
}

/// Returns a word with the top bit set in each byte that is below the space, or DEL. Bytes above
/// the first such byte may also be set, because the subtraction borrows.
#[inline(always)]
fn control_bytes(word: u64) -> u64 {
    let below = word.wrapping_sub(each(b' '));
    let delete = (word ^ each(0x7f)).wrapping_sub(each(1));
    (below | delete) & !word & TOP
}

/// Returns the length of the token at the start of `bytes` (RFC 9110 §5.6.2), or `None` if its end
/// is missing.
#[inline(always)]
fn name_len(bytes: &[u8]) -> Option<usize> {
    let mut left = bytes;
    while let Some((window, rest)) = left.split_first_chunk::<16>() {
        if let Some(n) = window.iter().position(|byte| !TOKEN[usize::from(*byte)]) {
            return Some(bytes.len() - left.len() + n);
        }
        left = rest;
    }
    let n = left.iter().position(|byte| !TOKEN[usize::from(*byte)])?;
    Some(bytes.len() - left.len() + n)
}

/// For each byte, whether it is allowed in a token.
static TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        token[byte] = is_token_byte(byte as u8);
        byte += 1;
    }
    token
};

/// Returns the index of the first byte with its top bit set, in a word that was read in
/// little-endian order.
fn first(found: u64) -> usize {
    found.trailing_zeros() as usize / 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::Random;

    #[test]
    fn every_byte_at_every_place_is_told_apart() {
        for len in 0..20 {
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    // Neighbors from which a borrow might come.
                    for around in [b' ', b'~', 0x80, 0xff] {
                        let mut bytes = vec![around; len];
                        bytes[at] = byte;
                        bytes.push(b'\r');
                        let text = bytes.iter().position(u8::is_ascii_control);
                        assert_eq!(text_len(&bytes), text, "{bytes:?}");
                    }
                }
            }
        }
        assert_eq!(text_len(b"no end, longer than a word"), None);
    }

    #[test]
    fn random_words_are_told_apart() {
        let mut random = Random::new(3);
        for _ in 0..100_000 {
            let bytes: [u8; 17] = std::array::from_fn(|_| random.byte());
            let text = bytes.iter().position(u8::is_ascii_control);
            assert_eq!(text_len(&bytes), text, "{bytes:?}");
        }
    }
}
