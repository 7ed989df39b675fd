//! The header of a frame, and masks (RFC 6455 §5.2, §5.3).

use crate::websocket::Violation;

/// The longest header that a client sends: with a length of eight bytes, and a mask.
pub(super) const MAX_HEADER: usize = 14;

/// The longest payload of a control frame, in bytes (RFC 6455 §5.5).
pub(super) const MAX_CONTROL: usize = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn number(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    pub(super) fn is_control(self) -> bool {
        match self {
            Self::Continuation | Self::Text | Self::Binary => false,
            Self::Close | Self::Ping | Self::Pong => true,
        }
    }
}

/// The header of a frame that a server has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) opcode: Opcode,
    /// This is the last frame of its message.
    pub(super) is_final: bool,
    pub(super) len: u64,
}

impl Header {
    /// Parses a header at the beginning of `bytes`. Returns it with its length, or `None` if it is
    /// incomplete.
    ///
    /// A length may be written in more bytes than it needs. RFC 6455 §5.2 forbids that to senders,
    /// but it does no harm, and other clients accept it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let &[first, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        let opcode = match first & 0xf {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            reserved => return Err(Violation::Opcode(reserved)),
        };
        let is_final = first & 0x80 != 0;
        if opcode.is_control() && !is_final {
            return Err(Violation::FragmentedControl);
        }
        let &[second, ref rest @ ..] = rest else {
            return Ok(None);
        };
        if second & 0x80 != 0 {
            return Err(Violation::Masked);
        }
        let (len, size) = match second {
            126 => match rest.first_chunk() {
                Some(bytes) => (u16::from_be_bytes(*bytes).into(), 4),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(bytes) => (u64::from_be_bytes(*bytes), 10),
                None => return Ok(None),
            },
            len => (len.into(), 2),
        };
        if len >> 63 != 0 {
            return Err(Violation::Length);
        }
        if opcode.is_control() && len > MAX_CONTROL as u64 {
            return Err(Violation::LongControl(len));
        }
        let header = Self {
            opcode,
            is_final,
            len,
        };
        Ok(Some((header, size)))
    }
}

/// Writes the header of an unfragmented frame with a mask to the beginning of `room`, and returns
/// the header's length.
pub(super) fn write_header(
    opcode: Opcode,
    len: usize,
    mask: [u8; 4],
    room: &mut [u8; MAX_HEADER],
) -> usize {
    const MASKED: u8 = 0x80;
    room[0] = 0x80 | opcode.number();
    let end = match len {
        0..126 => {
            room[1] = MASKED | len as u8;
            2
        }
        126..65_536 => {
            room[1] = MASKED | 126;
            room[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            room[1] = MASKED | 127;
            room[2..10].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    };
    room[end..end + 4].copy_from_slice(&mask);
    end + 4
}

/// Returns the length of the header of an unfragmented frame with a mask.
pub(super) const fn header_len(len: usize) -> usize {
    match len {
        0..126 => 6,
        126..65_536 => 8,
        _ => MAX_HEADER,
    }
}

/// Copies `from`, masked, to `to`, which is as long. `from` begins at byte `at` of the payload.
pub(super) fn copy_masked(to: &mut [u8], from: &[u8], mask: [u8; 4], at: usize) {
    let mut mask = mask;
    mask.rotate_left(at % 4);
    let [a, b, c, d] = mask;
    let mask = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = from.as_chunks::<8>();
    let (places, room) = to.as_chunks_mut::<8>();
    for (place, chunk) in places.iter_mut().zip(chunks) {
        *place = (u64::from_ne_bytes(*chunk) ^ mask).to_ne_bytes();
    }
    for ((place, byte), mask) in room.iter_mut().zip(rest).zip(mask.to_ne_bytes()) {
        *place = byte ^ mask;
    }
}

/// Returns whether a Close frame may have this code (RFC 6455 §7.4, and the registry of IANA).
pub(super) fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_parsed_as_soon_as_they_are_complete() {
        type Row = (&'static [u8], Result<(Opcode, bool, u64), Violation>);
        let rows: &[Row] = &[
            (&[0x81, 0], Ok((Opcode::Text, true, 0))),
            (&[0x02, 125], Ok((Opcode::Binary, false, 125))),
            (&[0x80, 126, 1, 2], Ok((Opcode::Continuation, true, 258))),
            (&[0x81, 126, 0, 5], Ok((Opcode::Text, true, 5))),
            (
                &[0x82, 127, 0, 0, 0, 1, 0, 0, 0, 2],
                Ok((Opcode::Binary, true, (1 << 32) + 2)),
            ),
            (&[0x89, 125], Ok((Opcode::Ping, true, 125))),
            (&[0x8a, 0], Ok((Opcode::Pong, true, 0))),
            (&[0x88, 2], Ok((Opcode::Close, true, 2))),
            (&[0xc1], Err(Violation::ReservedBits)),
            (&[0xa1], Err(Violation::ReservedBits)),
            (&[0x91], Err(Violation::ReservedBits)),
            (&[0x83], Err(Violation::Opcode(3))),
            (&[0x8f], Err(Violation::Opcode(15))),
            (&[0x09], Err(Violation::FragmentedControl)),
            (&[0x08], Err(Violation::FragmentedControl)),
            (&[0x81, 0x80], Err(Violation::Masked)),
            (
                &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
                Err(Violation::Length),
            ),
            (&[0x8a, 126, 0, 126], Err(Violation::LongControl(126))),
        ];
        for (bytes, expected) in rows {
            let what = format!("{bytes:x?}");
            for len in 0..bytes.len() {
                assert_eq!(Header::parse(&bytes[..len]), Ok(None), "{what}");
            }
            let parsed = Header::parse(&[bytes, &b"tail"[..]].concat());
            match expected {
                Ok((opcode, is_final, len)) => {
                    let header = Header {
                        opcode: *opcode,
                        is_final: *is_final,
                        len: *len,
                    };
                    assert_eq!(parsed, Ok(Some((header, bytes.len()))), "{what}");
                }
                Err(violation) => assert_eq!(parsed.as_ref(), Err(violation), "{what}"),
            }
        }
    }

    #[test]
    fn headers_take_as_many_bytes_as_their_length_needs() {
        for (len, size) in [
            (0, 6),
            (125, 6),
            (126, 8),
            (65_535, 8),
            (65_536, 14),
            (1 << 40, 14),
        ] {
            let mut room = [0; MAX_HEADER];
            let written = write_header(Opcode::Binary, len, [0; 4], &mut room);
            assert_eq!((written, header_len(len)), (size, size));
            // Without its mask it could come from a server.
            room[1] &= 0x7f;
            let (header, without_mask) = Header::parse(&room).unwrap().unwrap();
            assert_eq!((header.len, without_mask), (len as u64, size - 4));
        }
    }

    #[test]
    fn a_payload_is_masked_the_same_in_pieces() {
        let payload: Vec<u8> = (0..100).collect();
        let mask = [1, 20, 255, 7];
        let expected: Vec<u8> = (0..100).map(|i| i as u8 ^ mask[i % 4]).collect();
        for first in 0..payload.len() {
            let mut masked = vec![0; payload.len()];
            let (one, other) = masked.split_at_mut(first);
            copy_masked(one, &payload[..first], mask, 0);
            copy_masked(other, &payload[first..], mask, first);
            assert_eq!(masked, expected, "split at {first}");
        }
    }

    #[test]
    fn codes_that_only_a_program_may_see_are_not_sendable() {
        let sendable = [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999];
        assert!(sendable.into_iter().all(is_sendable));
        let others = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535];
        assert!(!others.into_iter().any(is_sendable));
    }
}
