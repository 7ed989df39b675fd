//! Challenges of Digest that can be answered, and the choice between them (RFC 7616 §3.3, §3.7).

use super::algorithm::{Algorithm, Key};
use super::challenge::{Parameters, Value, challenges};

/// The longest realm and nonce in bytes. They are sent back with every request.
const MAX_REALM: usize = 1024;
pub(super) const MAX_NONCE: usize = 1024;

/// The longest opaque value in bytes. Some servers keep state in it.
const MAX_OPAQUE: usize = 4096;

/// A challenge that can be answered (RFC 7616 §3.3). Strings are as received, with backslashes.
pub(super) struct Offer {
    pub(super) realm: Box<[u8]>,
    pub(super) nonce: Box<[u8]>,
    pub(super) opaque: Option<Box<[u8]>>,
    pub(super) algorithm: Algorithm,
    /// The name of the algorithm, if the challenge has one.
    pub(super) algorithm_name: Option<Box<[u8]>>,
    pub(super) protection: Protection,
    pub(super) naming: Naming,
    pub(super) freshness: Freshness,
}

/// The quality of protection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protection {
    /// None, as in RFC 2069.
    Legacy,
    /// `qop=auth`.
    Auth,
}

/// How the server accepts user names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// The server does not say.
    Plain,
    /// `charset=UTF-8`.
    Utf8,
    /// `userhash=true`: not in clear text.
    Hashed,
}

/// What a challenge says about the nonce of the request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// The nonce was too old.
    Stale,
    /// Anything else: if there was a nonce, the credentials were refused.
    Unstated,
}

/// Returns the challenge to answer: one with a sound algorithm if there is any, and otherwise the
/// first (RFC 7616 §3.7).
pub(super) fn strongest<'v>(fields: impl Iterator<Item = &'v [u8]>) -> Option<Offer> {
    fields
        .flat_map(challenges)
        .filter_map(|challenge| challenge.parameters_of("Digest").and_then(Offer::read))
        .reduce(
            |best, next| match next.algorithm.strength() > best.algorithm.strength() {
                true => next,
                false => best,
            },
        )
}

impl Offer {
    /// Returns `None` if the challenge lacks something, has a value that is too long, or asks for
    /// what is not supported.
    fn read(parameters: &Parameters<'_>) -> Option<Self> {
        let is = |name, text| parameters.get(name).is_some_and(|value| value.is(text));
        let realm = parameters.get("realm").map(Value::raw)?;
        let nonce = parameters.get("nonce").and_then(checked_nonce)?;
        let opaque = parameters.get("opaque").map(Value::raw);
        if realm.len() > MAX_REALM || opaque.is_some_and(|opaque| opaque.len() > MAX_OPAQUE) {
            return None;
        }
        let algorithm_name = parameters.get("algorithm").map(Value::text);
        let algorithm = match &algorithm_name {
            Some(name) => Algorithm::named(name)?,
            None => Algorithm::DEFAULT,
        };
        let protection = match parameters.get("qop") {
            Some(qop) if qop.lists("auth") => Protection::Auth,
            Some(qop) if !qop.raw().is_empty() => return None,
            // The session key is made with a cnonce, which this form does not send.
            _ if algorithm.key == Key::Session => return None,
            Some(_) | None => Protection::Legacy,
        };
        let naming = match (is("userhash", "true"), is("charset", "UTF-8")) {
            (true, _) => Naming::Hashed,
            (false, true) => Naming::Utf8,
            (false, false) => Naming::Plain,
        };
        let freshness = match is("stale", "true") {
            true => Freshness::Stale,
            false => Freshness::Unstated,
        };
        Some(Self {
            realm: realm.into(),
            nonce: nonce.into(),
            opaque: opaque.map(Into::into),
            algorithm,
            algorithm_name: algorithm_name.map(|name| name.into_owned().into()),
            protection,
            naming,
            freshness,
        })
    }
}

pub(super) fn checked_nonce(nonce: Value<'_>) -> Option<&[u8]> {
    let nonce = nonce.raw();
    (1..=MAX_NONCE).contains(&nonce.len()).then_some(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_usable_challenge_is_chosen() {
        const REST: &str = "realm=r, qop=\"auth\"";
        #[rustfmt::skip]
        let rows: &[(&str, &[&str], Option<&str>)] = &[
            ("no challenge", &[], None),
            ("Basic is never answered", &["Basic realm=\"r\""], None),
            ("nor is anything else", &["NTLM", "Bearer realm=r", "Negotiate YII="], None),
            ("Digest among others", &["Basic realm=r, Digest {}, nonce=a, NTLM"], Some("a")),
            ("Digest in a field of its own", &["Basic realm=r", "Digest {}, nonce=a"], Some("a")),
            ("SHA-256 before MD5, as RFC 7616 sends them",
                &["Digest {}, nonce=a, algorithm=SHA-256",
                    "Digest {}, nonce=b, algorithm=MD5"], Some("a")),
            ("SHA-256 after MD5",
                &["Digest {}, nonce=a, algorithm=MD5, Digest {}, nonce=b, algorithm=SHA-256"],
                Some("b")),
            ("SHA-512-256 after no algorithm, which is MD5",
                &["Digest {}, nonce=a", "Digest {}, nonce=b, algorithm=sha-512-256"], Some("b")),
            ("sound algorithms in the order of the server",
                &["Digest {}, nonce=a, algorithm=SHA-256-sess",
                    "Digest {}, nonce=b, algorithm=SHA-512-256"], Some("a")),
            ("the same in the other order",
                &["Digest {}, nonce=a, algorithm=SHA-512-256",
                    "Digest {}, nonce=b, algorithm=SHA-256"], Some("a")),
            ("the first of several with one algorithm",
                &["Digest {}, nonce=a", "Digest {}, nonce=b"], Some("a")),
            ("an unknown algorithm is passed over",
                &["Digest {}, nonce=a, algorithm=SHA-1",
                    "Digest {}, nonce=b, algorithm=MD5"], Some("b")),
            ("an unknown algorithm alone", &["Digest {}, nonce=a, algorithm=SHA-512"], None),
            ("an algorithm in quotes", &["Digest {}, nonce=a, algorithm=\"MD5\""], Some("a")),
            ("a malformed challenge is passed over",
                &["Digest {}, nonce=a b", "Digest {}, nonce=c"], Some("c")),
            ("of two nonces, the last one", &["Digest {}, nonce=a, nonce=b"], Some("b")),
            ("an empty nonce after another", &["Digest {}, nonce=a, nonce=\"\""], None),
            ("the same qop twice", &["Digest {}, nonce=a, qop=auth"], Some("a")),
            ("of two algorithms, the last one",
                &["Digest {}, nonce=a, algorithm=SHA-1, algorithm=MD5"], Some("a")),
            ("no nonce", &["Digest {}"], None),
            ("an empty nonce", &["Digest {}, nonce=\"\""], None),
            ("no realm", &["Digest nonce=a, qop=auth"], None),
            ("an empty realm", &["Digest realm=\"\", nonce=a, qop=auth"], Some("a")),
            ("qop without quotes (httpbin)", &["Digest realm=r, nonce=a, qop=auth"], Some("a")),
            ("qop with a space after the comma",
                &["Digest realm=r, nonce=a, qop=\"auth-int, auth\""], Some("a")),
            ("qop without auth", &["Digest realm=r, nonce=a, qop=\"auth-int\""], None),
            ("unknown qop", &["Digest realm=r, nonce=a, qop=auth-conf"], None),
            ("no qop, as in RFC 2069", &["Digest realm=r, nonce=a"], Some("a")),
            ("an empty qop counts as none", &["Digest realm=r, nonce=a, qop=\"\""], Some("a")),
            ("no qop for a session key, which needs the cnonce",
                &["Digest realm=r, nonce=a, algorithm=MD5-sess"], None),
            ("unknown parameters", &["Digest {}, nonce=a, domain=\"/b /c\", x=y"], Some("a")),
            ("names in any case", &["DIGEST REALM=r, QOP=AUTH, NONCE=a, ALGORITHM=md5"], Some("a")),
        ];
        for (why, fields, expected) in rows {
            let fields: Vec<_> = fields
                .iter()
                .map(|field| field.replace("{}", REST))
                .collect();
            let offer = strongest(fields.iter().map(String::as_bytes));
            let nonce = offer.map(|offer| String::from_utf8(offer.nonce.into()).unwrap());
            assert_eq!(nonce.as_deref(), *expected, "{why}");
        }
    }

    #[test]
    fn long_values_are_not_sent_back() {
        let usable = |realm: usize, nonce: usize, opaque: usize| {
            let [realm, nonce, opaque] = [realm, nonce, opaque].map(|n| "x".repeat(n));
            let field = format!("Digest realm={realm}, nonce={nonce}, opaque={opaque}, qop=auth");
            strongest([field.as_bytes()].into_iter()).is_some()
        };
        assert!(usable(MAX_REALM, MAX_NONCE, MAX_OPAQUE));
        assert!(!usable(MAX_REALM + 1, 1, 1));
        assert!(!usable(1, MAX_NONCE + 1, 1));
        assert!(!usable(1, 1, MAX_OPAQUE + 1));
    }
}
