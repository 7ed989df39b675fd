//! Base64 with padding (RFC 4648 §4), as credentials are encoded (RFC 7617 §2).

use std::fmt::Write;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends the encoding of `bytes` to `out`.
pub(crate) fn encode(out: &mut impl Write, bytes: &[u8]) -> std::fmt::Result {
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            // A group of n bytes takes n + 1 digits.
            let digit = match i <= group.len() {
                true => ALPHABET[(bits >> (18 - 6 * i)) as usize & 63],
                false => b'=',
            };
            out.write_char(digit.into())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 4648 §10, and the example of RFC 7617 §2.
        const ROWS: &[(&str, &str)] = &[
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
            ("Aladdin:open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ];
        for (plain, expected) in ROWS {
            let mut out = String::new();
            encode(&mut out, plain.as_bytes()).unwrap();
            assert_eq!(out, *expected, "{plain}");
        }
        let mut out = String::new();
        encode(&mut out, &[0xff, 0xfe, 0xfb, 0xef]).unwrap();
        assert_eq!(out, "//777w==");
    }
}
