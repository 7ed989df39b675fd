//! Field lines: ordered, with case-insensitive names (RFC 9110 §5).
//!
//! A section is kept as received, in one run of bytes. A [`Field`] holds the positions of a line's
//! name and value in it. A section therefore needs no allocation per line, and moves with its
//! buffer.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::Range;
use std::slice;

use super::target::Fault;

/// One field line, as positions in the bytes of its section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Field {
    name_start: u32,
    name_len: u32,
    value_start: u32,
    value_len: u32,
}

impl Field {
    /// The positions must be below 4 GiB. The readers of sections enforce this by their limits.
    pub(crate) fn new(name: Range<usize>, value: Range<usize>) -> Self {
        Self {
            name_start: name.start as u32,
            name_len: name.len() as u32,
            value_start: value.start as u32,
            value_len: value.len() as u32,
        }
    }

    /// Like [`new`](Self::new), from starts and lengths.
    #[inline]
    pub(crate) fn at(name: (u32, u32), value: (u32, u32)) -> Self {
        Self {
            name_start: name.0,
            name_len: name.1,
            value_start: value.0,
            value_len: value.1,
        }
    }

    /// Returns the range of the name.
    pub(crate) fn name(self) -> Range<usize> {
        self.name_start as usize..self.name_start as usize + self.name_len as usize
    }

    /// Returns the range of the value, without surrounding white space.
    pub(crate) fn value(self) -> Range<usize> {
        self.value_start as usize..self.value_start as usize + self.value_len as usize
    }
}

/// Field lines as received, in order: pairs of a name and a value.
///
/// Compare names without regard to case ([`str::eq_ignore_ascii_case`]). A value has no surrounding
/// white space, and need not be UTF-8.
#[derive(Clone)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    fields: slice::Iter<'a, Field>,
}

impl<'a> Headers<'a> {
    /// Creates an iterator over the lines at `fields` in `bytes`.
    pub(crate) fn new(bytes: &'a [u8], fields: &'a [Field]) -> Self {
        Self {
            bytes,
            fields: fields.iter(),
        }
    }

    /// Returns the value of the first line with this name.
    pub(crate) fn find(&self, name: &str) -> Option<&'a [u8]> {
        self.fields
            .as_slice()
            .iter()
            .find(|field| {
                // Compare the length first: it rules out most names without looking at their bytes.
                field.name_len as usize == name.len()
                    && self.bytes[field.name()].eq_ignore_ascii_case(name.as_bytes())
            })
            .map(|field| &self.bytes[field.value()])
    }

    fn pair(bytes: &'a [u8], field: Field) -> (&'a str, &'a [u8]) {
        // The name was parsed as a token, which is ASCII.
        let name = std::str::from_utf8(&bytes[field.name()]).unwrap_or_default();
        (name, &bytes[field.value()])
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.fields
            .next()
            .map(|&field| Self::pair(self.bytes, field))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.fields.size_hint()
    }

    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        self.fields
            .nth(n)
            .map(|&field| Self::pair(self.bytes, field))
    }
}

impl DoubleEndedIterator for Headers<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.fields
            .next_back()
            .map(|&field| Self::pair(self.bytes, field))
    }
}

impl ExactSizeIterator for Headers<'_> {}

impl FusedIterator for Headers<'_> {}

/// Shows each name with the length of its value, because the value may be secret.
impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.clone().map(|(name, value)| (name, value.len())))
            .finish()
    }
}

/// Returns why `name` is not a field name (RFC 9110 §5.1).
pub(crate) fn name_fault(name: &str) -> Option<Fault> {
    match name {
        "" => Some(Fault::whole("is empty")),
        _ => token_fault(name.as_bytes()),
    }
}

pub(crate) fn token_fault(bytes: &[u8]) -> Option<Fault> {
    let at = bytes.iter().position(|&b| !is_tchar(b))?;
    Some(Fault::byte(at, bytes[at]))
}

/// RFC 9110 §5.6.2.
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Returns why `value` is not a field value, which consists of visible ASCII, SP, HTAB and obs-text
/// (RFC 9110 §5.5).
pub(crate) fn value_fault(value: &[u8]) -> Option<Fault> {
    let is_bad = |b: &u8| b.is_ascii_control() && *b != b'\t';
    let at = value.iter().position(is_bad)?;
    Some(Fault::byte(at, value[at]))
}

/// Removes optional white space (RFC 9110 §5.6.3): SP and HTAB, but nothing else that Unicode or C
/// calls white space.
pub(crate) fn trim(value: &[u8]) -> &[u8] {
    let is_text = |b: &u8| !matches!(b, b' ' | b'\t');
    let start = offset_of_trimmed(value);
    let end = value.iter().rposition(is_text).map_or(start, |at| at + 1);
    &value[start..end]
}

/// Returns the length of the leading optional white space.
pub(crate) fn offset_of_trimmed(value: &[u8]) -> usize {
    let blank = |b: &&u8| matches!(b, b' ' | b'\t');
    value.iter().take_while(blank).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: &[u8] = b"Host: a\r\nSet-Cookie: b\r\nset-cookie: \xff\r\n";

    fn fields() -> Vec<Field> {
        vec![
            Field::new(0..4, 6..7),
            Field::new(9..19, 21..22),
            Field::new(24..34, 36..37),
        ]
    }

    #[test]
    fn lines_come_in_order_from_both_ends() {
        let fields = fields();
        let headers = Headers::new(BYTES, &fields);
        assert_eq!(headers.len(), 3);
        let expected: [(&str, &[u8]); 3] = [
            ("Host", b"a"),
            ("Set-Cookie", b"b"),
            ("set-cookie", b"\xff"),
        ];
        assert!(headers.clone().eq(expected));
        assert!(headers.rev().eq(expected.into_iter().rev()));
    }

    #[test]
    fn the_first_of_a_name_is_found_in_any_case() {
        let fields = fields();
        let headers = Headers::new(BYTES, &fields);
        assert_eq!(headers.find("SET-COOKIE"), Some(&b"b"[..]));
        assert_eq!(headers.find("host"), Some(&b"a"[..]));
        assert_eq!(headers.find("hosts"), None);
        assert_eq!(headers.find(""), None);
    }

    #[test]
    fn debug_shows_no_value() {
        let fields = fields();
        let shown = format!("{:?}", Headers::new(BYTES, &fields[2..]));
        assert_eq!(shown, r#"{"set-cookie": 1}"#);
    }
}
