//! Percent-encoding (RFC 3986 §2.1) and its variant for forms.
//!
//! Which bytes are encoded depends on where they stand: in a URL that may be encoded already, in a
//! component of one, or in a form.

use std::fmt;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Where encoded text stands, which decides how its bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A path segment, or a name or value of a query: all but unreserved characters are encoded
    /// (RFC 3986 §2.3), so that none of them can delimit anything.
    Component,
    /// A name or value of `application/x-www-form-urlencoded` (WHATWG URL §5.2): like a component
    /// but for a few characters, and a space becomes `+`.
    Form,
}

impl Place {
    /// Appends `text` to `out`, encoded. Pieces of a text may be appended one after the other.
    fn append(self, out: &mut String, text: &str) {
        match self {
            Place::Component => percent_encode(out, text.as_bytes(), is_unreserved),
            Place::Form => {
                for (i, word) in text.split(' ').enumerate() {
                    if i > 0 {
                        out.push('+');
                    }
                    percent_encode(out, word.as_bytes(), stands_in_form);
                }
            }
        }
    }
}

/// Appends `value` to `out`, encoded for `place`.
///
/// # Errors
/// If the value's own `Display` fails. What it has written before that stays in `out`.
pub(crate) fn encode(out: &mut String, place: Place, value: impl fmt::Display) -> fmt::Result {
    use fmt::Write;
    write!(Encoder { out, place }, "{value}")
}

/// Encodes what is written to it.
struct Encoder<'a> {
    out: &'a mut String,
    place: Place,
}

impl fmt::Write for Encoder<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.place.append(self.out, text);
        Ok(())
    }
}

/// Appends `bytes`, with those that do not satisfy `stands` encoded as `%XX`. `stands` must accept
/// ASCII only.
pub(crate) fn percent_encode(out: &mut String, bytes: &[u8], stands: impl Fn(u8) -> bool) {
    for &byte in bytes {
        if stands(byte) {
            out.push(byte.into());
        } else {
            out.push('%');
            out.push(HEX[usize::from(byte >> 4)].into());
            out.push(HEX[usize::from(byte & 15)].into());
        }
    }
}

/// Decodes each `%XX`; all other bytes stand for themselves.
///
/// # Errors
/// The index of a `%` that is not followed by two hexadecimal digits.
pub(crate) fn percent_decode(bytes: &[u8]) -> Result<Vec<u8>, usize> {
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let (high, low) = digit(at + 1).zip(digit(at + 2)).ok_or(at)?;
                decoded.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    Ok(decoded)
}

/// RFC 3986 §2.3.
pub(crate) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn stands_in_form(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'*' | b'-' | b'.' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_encoded_for_its_place() {
        // Text, as a component, in a form.
        const ROWS: &[(&str, &str, &str)] = &[
            ("", "", ""),
            ("aZ09-._~*", "aZ09-._~%2A", "aZ09-._%7E*"),
            ("a b ", "a%20b%20", "a+b+"),
            (" ", "%20", "+"),
            ("+&=", "%2B%26%3D", "%2B%26%3D"),
            ("/?#%", "%2F%3F%23%25", "%2F%3F%23%25"),
            ("é\r\n\0", "%C3%A9%0D%0A%00", "%C3%A9%0D%0A%00"),
        ];
        for (text, component, form) in ROWS {
            for (place, expected) in [(Place::Component, component), (Place::Form, form)] {
                let mut out = String::from("<");
                encode(&mut out, place, text).unwrap();
                assert_eq!(out[1..], **expected, "{text:?}");
                // A value may be written in any number of pieces.
                let mut pieces = String::new();
                for char in text.chars() {
                    encode(&mut pieces, place, char).unwrap();
                }
                assert_eq!(pieces, *expected, "{text:?}");
            }
        }
    }

    #[test]
    fn any_value_that_can_be_displayed_is_encoded() {
        let mut out = String::new();
        encode(&mut out, Place::Component, -7).unwrap();
        encode(&mut out, Place::Component, true).unwrap();
        encode(&mut out, Place::Component, format_args!("{:.1}&", 0.5)).unwrap();
        assert_eq!(out, "-7true0.5%26");
    }

    #[test]
    fn a_display_that_fails_is_reported() {
        struct Fails;
        impl fmt::Display for Fails {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        assert!(encode(&mut String::new(), Place::Form, Fails).is_err());
    }

    #[test]
    fn decoding_is_strict() {
        // Why, text, what it decodes to or the index of the percent sign.
        type Row = (&'static str, &'static [u8], Result<&'static [u8], usize>);
        #[rustfmt::skip]
        const ROWS: &[Row] = &[
            ("empty", b"", Ok(b"")),
            ("nothing to decode", b"a+b", Ok(b"a+b")),
            ("digits in either case", b"%2f%2F%fF", Ok(b"//\xff")),
            ("decoded once only", b"%252f", Ok(b"%2f")),
            ("bytes that are not ASCII", b"\xc3\xa9%00", Ok(b"\xc3\xa9\0")),
            ("percent sign at the end", b"ab%", Err(2)),
            ("one digit", b"%2", Err(0)),
            ("not a digit", b"%41%4g", Err(3)),
            ("a sign is no digit", b"%+1", Err(0)),
        ];
        for (why, text, expected) in ROWS {
            assert_eq!(
                percent_decode(text).as_deref(),
                expected.as_ref().copied(),
                "{why}"
            );
        }
    }

    #[test]
    fn what_was_encoded_decodes_to_itself() {
        let all: Vec<u8> = (0..=255).collect();
        let mut out = String::new();
        percent_encode(&mut out, &all, is_unreserved);
        assert_eq!(percent_decode(out.as_bytes()), Ok(all));
    }
}
