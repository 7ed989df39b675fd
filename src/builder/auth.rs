//! Values of Authorization: Basic (RFC 7617) and Bearer (RFC 6750).
//!
//! No fault shows a byte of the credentials.

use crate::proto::base64;
use crate::proto::target::Fault;

/// Returns Basic credentials (RFC 7617 §2). Text is encoded in UTF-8 (§2.1); a URL may contain any
/// bytes.
///
/// # Errors
/// If the user contains a colon, or if either contains a control character.
pub(crate) fn basic(user: &[u8], password: &[u8]) -> Result<String, Fault> {
    let has_control = |bytes: &[u8]| bytes.iter().any(u8::is_ascii_control);
    if user.contains(&b':') {
        return Err(Fault::whole(
            "the user contains a colon, which would end it",
        ));
    }
    if has_control(user) {
        return Err(Fault::whole("the user contains a control character"));
    }
    if has_control(password) {
        return Err(Fault::whole("the password contains a control character"));
    }
    let mut value = String::from("Basic ");
    let pair = [user, b":", password].concat();
    base64::encode(&mut value, &pair).expect("writing to a String cannot fail");
    Ok(value)
}

/// Returns Bearer credentials (RFC 6750 §2.1).
///
/// # Errors
/// If the token is not a `b64token`, at the position of the first byte that cannot be part of one.
pub(crate) fn bearer(token: &str) -> Result<String, Fault> {
    let body = token.trim_end_matches('=');
    let stands = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
    match body.bytes().position(|b| !stands(b)) {
        Some(at) => Err(Fault::rule(at, "not allowed in a bearer token")),
        None if body.is_empty() => Err(Fault::whole("the bearer token is empty")),
        None => Ok(format!("Bearer {token}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_those_of_the_rfc() {
        // Why, user, password, the value or why there is none.
        type Row = (
            &'static str,
            &'static [u8],
            &'static [u8],
            Result<&'static str, &'static str>,
        );
        #[rustfmt::skip]
        const ROWS: &[Row] = &[
            ("the example of §2", b"Aladdin", b"open sesame", Ok("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")),
            ("the example of §2.1, in UTF-8", b"test", "123\u{a3}".as_bytes(), Ok("Basic dGVzdDoxMjPCow==")),
            ("no password", b"user", b"", Ok("Basic dXNlcjo=")),
            ("no user", b"", b"pass", Ok("Basic OnBhc3M=")),
            ("colons in the password", b"u", b":a:", Ok("Basic dTo6YTo=")),
            ("bytes that are not UTF-8", b"\xff", b"", Ok("Basic /zo=")),
            ("colon in the user", b"a:b", b"", Err("the user contains a colon, which would end it")),
            ("control character in the user", b"a\n", b"", Err("the user contains a control character")),
            ("NUL", b"\0", b"", Err("the user contains a control character")),
            ("DEL in the password", b"a", b"b\x7f", Err("the password contains a control character")),
        ];
        for (why, user, password, expected) in ROWS {
            let found = basic(user, password).map_err(|fault| fault.to_string());
            let found = found.as_deref().map_err(String::as_str);
            assert_eq!(found, *expected, "{why}");
        }
    }

    #[test]
    fn bearer_tokens_follow_their_syntax() {
        #[rustfmt::skip]
        const ROWS: &[(&str, &str, Result<&str, &str>)] = &[
            ("the example of §2.1", "mF_9.B5f-4.1JqM", Ok("Bearer mF_9.B5f-4.1JqM")),
            ("all characters", "aZ09-._~+/==", Ok("Bearer aZ09-._~+/==")),
            ("empty", "", Err("the bearer token is empty")),
            ("padding alone", "==", Err("the bearer token is empty")),
            ("padding inside", "a=b", Err("not allowed in a bearer token (byte 1)")),
            ("space", "a b", Err("not allowed in a bearer token (byte 1)")),
            ("line end", "ab\r\nX: y", Err("not allowed in a bearer token (byte 2)")),
            ("line end behind", "ab=\n", Err("not allowed in a bearer token (byte 2)")),
            ("quotes", "\"ab\"", Err("not allowed in a bearer token (byte 0)")),
            ("not ASCII", "ab\u{e9}", Err("not allowed in a bearer token (byte 2)")),
        ];
        for (why, token, expected) in ROWS {
            let found = bearer(token).map_err(|fault| fault.to_string());
            let found = found.as_deref().map_err(String::as_str);
            assert_eq!(found, *expected, "{why}");
        }
    }
}
