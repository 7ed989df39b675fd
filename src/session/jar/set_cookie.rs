//! Parser for the value of a Set-Cookie field (RFC 6265bis §5.6).
//!
//! Values are bytes: they need not be UTF-8, and are kept as they came. Unknown attributes are
//! ignored. So is `SameSite`: it restricts requests that a page of another site causes, and a
//! client without pages has none.

use std::time::{Duration, SystemTime};

use super::date;
use super::refusal::Refusal;

/// The most bytes of a cookie's name and value together (§5.6).
pub(super) const MAX_NAME_AND_VALUE: usize = 4096;

/// The most bytes of an attribute's value; an attribute with a longer one is ignored (§5.6).
pub(super) const MAX_ATTRIBUTE: usize = 1024;

/// The longest that a cookie is kept (§5.5).
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// What a Set-Cookie field says.
#[derive(Default)]
pub(super) struct SetCookie<'a> {
    /// Empty for a cookie without a name.
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    /// Without a leading dot. Empty if the cookie is for one host only.
    pub(super) domain: &'a [u8],
    pub(super) path: Option<&'a [u8]>,
    pub(super) secure: bool,
    pub(super) http_only: bool,
    max_age: Option<u64>,
    expires: Option<SystemTime>,
}

impl<'a> SetCookie<'a> {
    /// Parses a field value.
    ///
    /// # Errors
    /// [`Refusal::ControlCharacter`], [`Refusal::Empty`] or [`Refusal::TooLong`].
    pub(super) fn parse(field: &'a [u8]) -> Result<Self, Refusal> {
        if field
            .iter()
            .any(|&byte| byte != b'\t' && byte.is_ascii_control())
        {
            return Err(Refusal::ControlCharacter);
        }
        let mut parts = field.split(|&byte| byte == b';');
        let (name, value) = match split(parts.next().unwrap_or_default()) {
            (value, None) => (&[][..], value),
            (name, Some(value)) => (name, value),
        };
        check(name, value)?;
        let mut cookie = Self {
            name,
            value,
            ..Self::default()
        };
        for part in parts {
            let (name, value) = split(part);
            cookie.set_attribute(name, value.unwrap_or_default());
        }
        Ok(cookie)
    }

    /// Of an attribute that is repeated, the last one counts (§5.7).
    fn set_attribute(&mut self, name: &[u8], value: &'a [u8]) {
        if value.len() > MAX_ATTRIBUTE {
            return;
        }
        match name.to_ascii_lowercase().as_slice() {
            b"expires" => self.expires = date::parse(value).or(self.expires),
            b"max-age" => self.max_age = max_age(value).or(self.max_age),
            b"domain" => self.domain = value.strip_prefix(b".").unwrap_or(value),
            b"path" => self.path = Some(value),
            b"secure" => self.secure = true,
            b"httponly" => self.http_only = true,
            _ => {}
        }
    }

    /// Returns when the cookie expires, for a cookie that is received at `now`; `None` if it lasts
    /// as long as the session. `Max-Age` takes precedence over `Expires` (§5.7).
    pub(super) fn expires(&self, now: SystemTime) -> Option<SystemTime> {
        match self.max_age {
            Some(seconds) => now
                .checked_add(Duration::from_secs(seconds))
                .or(self.expires),
            None => self.expires,
        }
    }
}

/// Checks name and value of a cookie.
///
/// # Errors
/// [`Refusal::Empty`] or [`Refusal::TooLong`].
pub(super) fn check(name: &[u8], value: &[u8]) -> Result<(), Refusal> {
    match name.len() + value.len() {
        0 => Err(Refusal::Empty),
        1..=MAX_NAME_AND_VALUE => Ok(()),
        _ => Err(Refusal::TooLong),
    }
}

/// Splits at the first `=`, and removes spaces and tabs around both parts.
fn split(pair: &[u8]) -> (&[u8], Option<&[u8]>) {
    match pair.iter().position(|&byte| byte == b'=') {
        Some(at) => (trim(&pair[..at]), Some(trim(&pair[at + 1..]))),
        None => (trim(pair), None),
    }
}

/// Removes spaces and tabs at both ends.
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Reads the seconds of `Max-Age` (§5.6.2), 0 for a negative number. Returns `None` if this is not
/// a number. A number that is too large counts as the longest lifetime.
fn max_age(text: &[u8]) -> Option<u64> {
    match text.strip_prefix(b"-") {
        Some(digits) => seconds(digits).map(|_| 0),
        None => seconds(text).map(|seconds| seconds.min(MAX_LIFETIME.as_secs())),
    }
}

/// Reads a decimal number without a sign; one that is too large becomes the largest.
pub(super) fn seconds(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| {
        digits.iter().fold(0, |value: u64, digit| {
            value
                .saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'))
        })
    })
}
