//! What a client of Digest computes and sends (RFC 7616 §3.4).

use std::sync::OnceLock;

use super::algorithm::Key;
use super::challenge::unescaped;
use super::offer::{Naming, Offer, Protection};
use crate::proto::percent::percent_encode;

/// An authentication session: an answered challenge, and what follows from it for the user.
pub(super) struct Login {
    offer: Offer,
    /// The parameter `username` or `username*`.
    name: Vec<u8>,
    /// The hash of user name, realm and password.
    secret: String,
    session: OnceLock<SessionKey>,
}

/// What the `-sess` algorithms keep from the first request that answers a challenge, also when the
/// nonce changes by `nextnonce` (RFC 7616 §3.4.2).
///
/// All requests use its cnonce. Servers that compute the key again from each request, instead of
/// keeping it, then arrive at the same one.
struct SessionKey {
    cnonce: String,
    a1: String,
}

/// What distinguishes one attempt to send a request.
pub(super) struct Attempt<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) nonce: &'a [u8],
    pub(super) count: u32,
    pub(super) cnonce: &'a str,
    /// H(A1).
    pub(super) a1: &'a str,
}

impl Login {
    pub(super) fn new(user: &str, password: &str, offer: Offer) -> Self {
        let (hash, realm) = (offer.algorithm.hash, unescaped(&offer.realm));
        let mut name = Vec::new();
        match offer.naming {
            Naming::Hashed => {
                let hashed = hash.of(&[user.as_bytes(), &realm]);
                push_quoted(&mut name, "username", hashed.as_bytes());
            }
            Naming::Utf8 if !user.is_ascii() => push_extended(&mut name, "username", user),
            // Without `charset`, the server may not know `username*`, so the bytes are sent as they
            // are.
            Naming::Utf8 | Naming::Plain => push_quoted(&mut name, "username", &escaped(user)),
        }
        let secret = hash.of(&[user.as_bytes(), &realm, password.as_bytes()]);
        Self {
            offer,
            name,
            secret,
            session: OnceLock::new(),
        }
    }

    /// Returns the nonce of the challenge.
    pub(super) fn nonce(&self) -> &[u8] {
        &self.offer.nonce
    }

    /// Returns the cnonce and H(A1) for an attempt. `random` returns 64 unpredictable bits.
    pub(super) fn key(&self, random: &mut dyn FnMut() -> u64) -> (String, String) {
        let mut cnonce = || format!("{:016x}{:016x}", random(), random());
        match self.offer.algorithm.key {
            Key::Plain => (cnonce(), self.secret.clone()),
            Key::Session => {
                let key = self.session.get_or_init(|| self.session_key(cnonce()));
                (key.cnonce.clone(), key.a1.clone())
            }
        }
    }

    fn session_key(&self, cnonce: String) -> SessionKey {
        let nonce = unescaped(&self.offer.nonce);
        let parts = [self.secret.as_bytes(), &nonce, cnonce.as_bytes()];
        let a1 = self.offer.algorithm.hash.of(&parts);
        SessionKey { cnonce, a1 }
    }

    /// Returns the value of the Authorization field (RFC 7616 §3.4).
    ///
    /// The parameters are quoted as the RFC says, which servers rely on: `algorithm`, `qop`, `nc`
    /// and `userhash` are not.
    pub(super) fn value(&self, attempt: &Attempt<'_>) -> Vec<u8> {
        let offer = &self.offer;
        let count = format!("{:08x}", attempt.count);
        let mut out = b"Digest ".to_vec();
        out.extend_from_slice(&self.name);
        push_quoted(&mut out, "realm", &offer.realm);
        push_quoted(&mut out, "uri", &escaped(attempt.target));
        if let Some(name) = &offer.algorithm_name {
            push(&mut out, "algorithm", name);
        }
        push_quoted(&mut out, "nonce", attempt.nonce);
        if offer.protection == Protection::Auth {
            push(&mut out, "nc", count.as_bytes());
            push_quoted(&mut out, "cnonce", attempt.cnonce.as_bytes());
            push(&mut out, "qop", b"auth");
        }
        let response = self.response(attempt, &count);
        push_quoted(&mut out, "response", response.as_bytes());
        if let Some(opaque) = &offer.opaque {
            push_quoted(&mut out, "opaque", opaque);
        }
        if offer.naming == Naming::Hashed {
            push(&mut out, "userhash", b"true");
        }
        out
    }

    /// Computes the response (RFC 7616 §3.4.1).
    fn response(&self, attempt: &Attempt<'_>, count: &str) -> String {
        let hash = self.offer.algorithm.hash;
        let a1 = attempt.a1.as_bytes();
        let a2 = hash.of(&[attempt.method.as_bytes(), attempt.target.as_bytes()]);
        let (nonce, a2) = (unescaped(attempt.nonce), a2.as_bytes());
        let (count, cnonce) = (count.as_bytes(), attempt.cnonce.as_bytes());
        match self.offer.protection {
            Protection::Auth => hash.of(&[a1, &nonce, count, cnonce, b"auth", a2]),
            Protection::Legacy => hash.of(&[a1, &nonce, a2]),
        }
    }
}

/// Appends `name=value`, after a comma unless it is the first parameter.
fn push(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    if !out.is_empty() && !out.ends_with(b" ") {
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(value);
}

/// Appends `name="value"`. `raw` must be [`escaped`], or come from a challenge.
fn push_quoted(out: &mut Vec<u8>, name: &str, raw: &[u8]) {
    push(out, name, &[b"\"", raw, b"\""].concat());
}

/// Appends `name*=UTF-8''value` (RFC 8187 §3.2).
fn push_extended(out: &mut Vec<u8>, name: &str, value: &str) {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&b);
    let mut encoded = "UTF-8''".to_owned();
    percent_encode(&mut encoded, value.as_bytes(), is_plain);
    push(out, &format!("{name}*"), encoded.as_bytes());
}

/// Escapes text for a quoted string.
fn escaped(text: &str) -> Vec<u8> {
    let mut raw = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            raw.push(b'\\');
        }
        raw.push(byte);
    }
    raw
}

#[cfg(test)]
mod tests {
    use super::super::algorithm::Algorithm;
    use super::super::offer::strongest;
    use super::super::testing::{counter, parameter};
    use super::*;

    /// Answers the challenge with this cnonce.
    fn answer(user: &str, password: &str, challenge: &str, target: &str, cnonce: &str) -> String {
        let offer = strongest([challenge.as_bytes()].into_iter()).expect("a usable challenge");
        let login = Login::new(user, password, offer);
        if login.offer.algorithm.key == Key::Session {
            login
                .session
                .get_or_init(|| login.session_key(cnonce.to_owned()));
        }
        let (_, a1) = login.key(&mut counter());
        let value = login.value(&Attempt {
            method: "GET",
            target,
            nonce: &login.offer.nonce,
            count: 1,
            cnonce,
            a1: &a1,
        });
        String::from_utf8(value).unwrap()
    }

    #[test]
    fn the_examples_of_the_rfcs() {
        struct Row {
            why: &'static str,
            user: &'static str,
            password: &'static str,
            challenge: &'static str,
            target: &'static str,
            cnonce: &'static str,
            expected: &'static str,
        }
        let rows = [
            Row {
                why: "RFC 7616 §3.9.1, MD5",
                user: "Mufasa",
                password: "Circle of Life",
                challenge: "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", \
                    algorithm=MD5, nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
                    opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"",
                target: "/dir/index.html",
                cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
                expected: "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", \
                    uri=\"/dir/index.html\", algorithm=MD5, \
                    nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
                    cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, \
                    response=\"8ca523f5e9506fed4657c9700eebdbec\", \
                    opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"",
            },
            Row {
                why: "RFC 7616 §3.9.1, SHA-256",
                user: "Mufasa",
                password: "Circle of Life",
                challenge: "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", \
                    algorithm=SHA-256, nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
                    opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"",
                target: "/dir/index.html",
                cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
                expected: "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", \
                    uri=\"/dir/index.html\", algorithm=SHA-256, \
                    nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
                    cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, response=\
                    \"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1\", \
                    opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"",
            },
            Row {
                why: "RFC 7616 §3.9.2, as corrected by erratum 4897",
                user: "Jäsøn Doe",
                password: "Secret, or not?",
                challenge: "Digest realm=\"api@example.org\", qop=\"auth\", \
                    algorithm=SHA-512-256, \
                    nonce=\"5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK\", \
                    opaque=\"HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS\", \
                    charset=UTF-8, userhash=true",
                target: "/doe.json",
                cnonce: "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v",
                expected: "Digest username=\
                    \"793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b\", \
                    realm=\"api@example.org\", uri=\"/doe.json\", algorithm=SHA-512-256, \
                    nonce=\"5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK\", nc=00000001, \
                    cnonce=\"NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v\", qop=auth, response=\
                    \"3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5\", \
                    opaque=\"HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS\", userhash=true",
            },
            Row {
                why: "the same, with the name in clear text",
                user: "Jäsøn Doe",
                password: "Secret, or not?",
                challenge: "Digest realm=\"api@example.org\", qop=\"auth\", \
                    algorithm=SHA-512-256, \
                    nonce=\"5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK\", \
                    opaque=\"HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS\", \
                    charset=UTF-8, userhash=false",
                target: "/doe.json",
                cnonce: "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v",
                expected: "Digest username*=UTF-8''J%C3%A4s%C3%B8n%20Doe, \
                    realm=\"api@example.org\", uri=\"/doe.json\", algorithm=SHA-512-256, \
                    nonce=\"5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK\", nc=00000001, \
                    cnonce=\"NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v\", qop=auth, response=\
                    \"3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5\", \
                    opaque=\"HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS\"",
            },
            Row {
                why: "RFC 2617 §3.5",
                user: "Mufasa",
                password: "Circle Of Life",
                challenge: "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", \
                    nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
                    opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
                target: "/dir/index.html",
                cnonce: "0a4f113b",
                expected: "Digest username=\"Mufasa\", realm=\"testrealm@host.com\", \
                    uri=\"/dir/index.html\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
                    nc=00000001, cnonce=\"0a4f113b\", qop=auth, \
                    response=\"6629fae49393a05397450978507c4ef1\", \
                    opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
            },
            Row {
                why: "RFC 2069 §2.4, as corrected by erratum 749",
                user: "Mufasa",
                password: "CircleOfLife",
                challenge: "Digest realm=\"testrealm@host.com\", \
                    nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
                    opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
                target: "/dir/index.html",
                cnonce: "unused",
                expected: "Digest username=\"Mufasa\", realm=\"testrealm@host.com\", \
                    uri=\"/dir/index.html\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
                    response=\"1949323746fe6a43ef61f9606e7febea\", \
                    opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
            },
        ];
        for row in rows {
            let value = answer(
                row.user,
                row.password,
                row.challenge,
                row.target,
                row.cnonce,
            );
            assert_eq!(value, row.expected, "{}", row.why);
        }
    }

    /// The session key is the secret, the nonce and the cnonce, hashed once more (RFC 7616 §3.4.2).
    #[test]
    fn session_algorithms_use_a_key_of_their_own() {
        let value = answer(
            "u",
            "p",
            "Digest realm=r, nonce=n, qop=auth, algorithm=MD5-sess",
            "/",
            "c",
        );
        let md5 = |parts: &[&[u8]]| Algorithm::DEFAULT.hash.of(parts);
        let (secret, a2) = (md5(&[b"u:r:p"]), md5(&[b"GET:/"]));
        let a1 = md5(&[secret.as_bytes(), b"n:c"]);
        let response = md5(&[a1.as_bytes(), b"n:00000001:c:auth", a2.as_bytes()]);
        assert_eq!(parameter(&value, "response"), response);
        assert_eq!(parameter(&value, "algorithm"), "MD5-sess");
    }

    #[test]
    fn values_are_sent_back_as_they_came() {
        #[rustfmt::skip]
        let rows = [
            ("escaped quotes and backslashes", r#"Digest realm="a\"b\\", nonce="c\d", opaque="\e""#,
                r#"realm="a\"b\\", uri="/", nonce="c\d", response"#),
            ("values without quotes are quoted", "Digest realm=a, nonce=b==, opaque=c",
                r#"realm="a", uri="/", nonce="b==", response"#),
            ("the name of the algorithm as the server spells it",
                "Digest realm=a, nonce=b, algorithm=\"Md5\"",
                r#"realm="a", uri="/", algorithm=Md5, nonce="b", response"#),
        ];
        for (why, challenge, expected) in rows {
            let value = answer("u", "p", challenge, "/", "c");
            assert!(value.contains(expected), "{why}: {value}");
        }
        let value = answer(
            "u",
            "p",
            r#"Digest realm="a", nonce="b", opaque="\e""#,
            "/",
            "c",
        );
        assert!(value.ends_with(r#", opaque="\e""#), "{value}");
    }

    /// Escaping changes what is sent, not what is hashed (RFC 7616 §3.4.1, `unq`).
    #[test]
    fn hashes_are_of_unescaped_values() {
        let response = |user, challenge: &str| {
            let value = answer(user, "p", challenge, "/", "c");
            parameter(&value, "response").to_owned()
        };
        let plain = response("u", "Digest realm=ab, nonce=cd");
        assert_eq!(response("u", r#"Digest realm="a\b", nonce="\c\d""#), plain);
        let value = answer(r#"DOMAIN\u"x"#, "p", "Digest realm=r, nonce=n", "/", "c");
        assert!(value.contains(r#"username="DOMAIN\\u\"x""#), "{value}");
        let md5 = |parts: &[&[u8]]| Algorithm::DEFAULT.hash.of(parts);
        let (a1, a2) = (md5(&[br#"DOMAIN\u"x:r:p"#]), md5(&[b"GET:/"]));
        let expected = md5(&[a1.as_bytes(), b"n", a2.as_bytes()]);
        assert_eq!(parameter(&value, "response"), expected);
    }

    #[test]
    fn names_are_written_as_the_server_accepts_them() {
        #[rustfmt::skip]
        let rows = [
            ("ASCII needs no encoding", "Doe", "charset=UTF-8", "Digest username=\"Doe\", "),
            ("the charset is case-insensitive",
                "Döe", "charset=utf-8", "Digest username*=UTF-8''D%C3%B6e, "),
            ("reserved characters are encoded",
                "ö'%*\"\\", "charset=UTF-8", "Digest username*=UTF-8''%C3%B6%27%25%2A%22%5C, "),
            ("without a charset, UTF-8 is sent as it is",
                "Döe", "x=y", "Digest username=\"Döe\", "),
            ("another charset is ignored",
                "Döe", "charset=ISO-8859-1", "Digest username=\"Döe\", "),
            ("a hash needs no encoding",
                "Döe", "charset=UTF-8, userhash=true", "Digest username=\"3a9a8e4b"),
        ];
        for (why, user, extra, expected) in rows {
            let challenge = format!("Digest realm=r, nonce=n, {extra}");
            let value = answer(user, "p", &challenge, "/", "c");
            let hashed = Algorithm::DEFAULT.hash.of(&[user.as_bytes(), b"r"]);
            let expected = expected.replace("3a9a8e4b", &hashed);
            assert!(value.starts_with(&expected), "{why}: {value}");
            assert_eq!(
                value.ends_with(", userhash=true"),
                extra.contains("userhash"),
                "{why}"
            );
        }
    }
}
