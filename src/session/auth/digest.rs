//! Digest access authentication (RFC 7616).
//!
//! ```text
//! no login ──401──► login, nonce 1 ──401, stale──► login, nonce 2 ──nextnonce──► nonce 3
//!    ▲                                                                              │
//!    └──────────────────────────── credentials refused ─────────────────────────────┘
//! ```
//!
//! The state is shared by all requests of a session, on all threads, behind one lock. Requests in
//! flight may have used an older nonce than the current one, so each keeps a [`Used`] of its own.
//!
//! The protection space is the whole origin: `domain` is ignored, since credentials never leave the
//! origin anyway. There is one login at a time, so an origin with several realms costs another
//! round trip whenever the realm changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::algorithm::{Algorithm, Key};
use super::challenge::{Parameters, Value, challenges, info, unescaped};
use crate::proto::percent::percent_encode;

/// The longest realm and nonce in bytes. They are sent back with every request.
const MAX_REALM: usize = 1024;
const MAX_NONCE: usize = 1024;

/// The longest opaque value in bytes. Some servers keep state in it.
const MAX_OPAQUE: usize = 4096;

/// The most challenges that are answered for one request: the first one, and two nonces that
/// expired on the way.
const MAX_ANSWERS: u8 = 3;

/// The number of nonces whose counts are kept. A server may return to an earlier nonce, for
/// instance if several machines share a name.
const MAX_NONCES: usize = 16;

/// The credentials of Digest, and what the server has said about them.
pub(super) struct Digest {
    user: Box<str>,
    /// Kept as it is, because a challenge decides what it is hashed with: any later one may come
    /// with another realm or algorithm.
    password: Box<str>,
    state: Mutex<State>,
}

/// What one request has used so far, over all times that it was sent.
#[derive(Default)]
pub(crate) struct Used {
    /// The number of challenges that were answered.
    answers: u8,
    /// The credentials that were sent last, if any.
    sent: Option<Sent>,
}

struct Sent {
    login: u64,
    nonce: Arc<[u8]>,
}

#[derive(Default)]
struct State {
    login: Option<Login>,
    /// The number of logins so far, which identifies the current one.
    logins: u64,
    nonces: Nonces,
}

/// What a 401 response means for its request.
enum Reaction {
    /// The challenge is answered.
    Answer,
    /// Another request has brought a newer nonce, which is used.
    SendAgain,
    /// The credentials are not accepted.
    GiveUp,
}

impl Digest {
    /// # Errors
    /// A text that quotes neither argument.
    pub(super) fn new(user: &str, password: &str) -> Result<Self, &'static str> {
        if user.bytes().any(|b| b.is_ascii_control()) {
            return Err("a control character in the user name");
        }
        Ok(Self {
            user: user.into(),
            password: password.into(),
            state: Mutex::default(),
        })
    }

    /// Returns the value of the Authorization field. `None` before the first challenge.
    pub(super) fn authorize(
        &self,
        used: &mut Used,
        method: &str,
        target: &str,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<Vec<u8>> {
        used.sent = None;
        let mut state = self.lock();
        let state = &mut *state;
        let login = state.login.as_mut()?;
        let Some((nonce, count)) = state.nonces.count() else {
            // All counts of this nonce are used up: the next challenge brings another.
            state.login = None;
            return None;
        };
        let (cnonce, a1) = login.key(random);
        let value = login.value(&Attempt {
            method,
            target,
            nonce: &nonce,
            count,
            cnonce: &cnonce,
            a1: &a1,
        });
        let login = state.logins;
        used.sent = Some(Sent { login, nonce });
        Some(value)
    }

    /// Takes in a 401 response; see [`Auth::on_unauthorized`](super::Auth::on_unauthorized).
    pub(super) fn on_unauthorized<'v>(
        &self,
        used: &mut Used,
        fields: impl Iterator<Item = &'v [u8]>,
    ) -> bool {
        let Some(offer) = strongest(fields) else {
            return false;
        };
        let mut state = self.lock();
        match state.reaction(used, &offer) {
            Reaction::Answer => state.begin(Login::new(&self.user, &self.password, offer)),
            Reaction::SendAgain => {}
            Reaction::GiveUp => {
                state.forget(used);
                return false;
            }
        }
        used.answers += 1;
        true
    }

    /// Takes in Authentication-Info (RFC 7616 §3.5). Its `nextnonce` is used from now on, unless
    /// another challenge has been answered since the request was sent.
    ///
    /// `rspauth` is not checked: it would show that the server knows the password, but without
    /// `auth-int` not that the body came from that server.
    pub(super) fn on_info(&self, used: &Used, field: &[u8]) {
        let nonce = info(field)
            .and_then(|parameters| parameters.get("nextnonce"))
            .and_then(checked_nonce);
        let (Some(nonce), Some(sent)) = (nonce, &used.sent) else {
            return;
        };
        let mut state = self.lock();
        if state.login.is_some() && state.logins == sent.login {
            state.nonces.take_up(nonce);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Begins an authentication session with the nonce of its challenge (RFC 7616 §3.6).
    fn begin(&mut self, login: Login) {
        self.nonces.take_up(&login.offer.nonce);
        self.logins += 1;
        self.login = Some(login);
    }

    fn reaction(&self, used: &Used, offer: &Offer) -> Reaction {
        if used.answers >= MAX_ANSWERS {
            return Reaction::GiveUp;
        }
        let Some(sent) = &used.sent else {
            return Reaction::Answer;
        };
        // An expired nonce says nothing about the credentials. Servers that never send `stale`
        // challenge an expired nonce like a wrong password, so the first such challenge is answered
        // if its nonce is a new one.
        let is_stale = offer.freshness == Freshness::Stale;
        if !is_stale && used.answers > 0 {
            Reaction::GiveUp
        } else if *offer.nonce != *sent.nonce {
            Reaction::Answer
        } else if self
            .current()
            .is_some_and(|current| *current != *sent.nonce)
        {
            Reaction::SendAgain
        } else if is_stale {
            // Odd, but the next count may be accepted.
            Reaction::Answer
        } else {
            Reaction::GiveUp
        }
    }

    /// Returns the nonce that the next request will use.
    fn current(&self) -> Option<&[u8]> {
        self.login.as_ref().and_then(|_| self.nonces.current())
    }

    /// Ends the login if it is the one that was refused. Later requests then do not begin with
    /// credentials that count as another failure.
    fn forget(&mut self, used: &Used) {
        if used
            .sent
            .as_ref()
            .is_some_and(|sent| sent.login == self.logins)
        {
            self.login = None;
        }
    }
}

/// The nonces taken up last, the current one at the end, each with the number of requests that used
/// it. No count is used twice, even if a nonce comes again: servers take that for a replay.
#[derive(Default)]
struct Nonces(Vec<(Arc<[u8]>, u32)>);

impl Nonces {
    fn take_up(&mut self, nonce: &[u8]) {
        let known = self.0.iter().position(|(known, _)| **known == *nonce);
        let entry = known.map(|at| self.0.remove(at));
        if self.0.len() == MAX_NONCES {
            self.0.remove(0);
        }
        self.0.push(entry.unwrap_or_else(|| (nonce.into(), 0)));
    }

    fn current(&self) -> Option<&[u8]> {
        self.0.last().map(|(nonce, _)| &**nonce)
    }

    /// Returns the current nonce and its next count, from 1. `None` after the last one.
    fn count(&mut self) -> Option<(Arc<[u8]>, u32)> {
        let (nonce, count) = self.0.last_mut()?;
        *count = count.checked_add(1)?;
        Some((Arc::clone(nonce), *count))
    }
}

/// A challenge that can be answered (RFC 7616 §3.3). Strings are as received, with backslashes.
struct Offer {
    realm: Box<[u8]>,
    nonce: Box<[u8]>,
    opaque: Option<Box<[u8]>>,
    algorithm: Algorithm,
    /// The name of the algorithm, if the challenge has one.
    algorithm_name: Option<Box<[u8]>>,
    protection: Protection,
    naming: Naming,
    freshness: Freshness,
}

/// The quality of protection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protection {
    /// None, as in RFC 2069.
    Legacy,
    /// `qop=auth`.
    Auth,
}

/// How the server accepts user names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// The server does not say.
    Plain,
    /// `charset=UTF-8`.
    Utf8,
    /// `userhash=true`: not in clear text.
    Hashed,
}

/// What a challenge says about the nonce of the request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Freshness {
    /// The nonce was too old.
    Stale,
    /// Anything else: if there was a nonce, the credentials were refused.
    Unstated,
}

/// Returns the challenge to answer: one with a sound algorithm if there is any, and otherwise the
/// first (RFC 7616 §3.7).
fn strongest<'v>(fields: impl Iterator<Item = &'v [u8]>) -> Option<Offer> {
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

fn checked_nonce(nonce: Value<'_>) -> Option<&[u8]> {
    let nonce = nonce.raw();
    (1..=MAX_NONCE).contains(&nonce.len()).then_some(nonce)
}

/// An authentication session: an answered challenge, and what follows from it for the user.
struct Login {
    offer: Offer,
    /// The parameter `username` or `username*`.
    name: Vec<u8>,
    /// The hash of user name, realm and password.
    secret: String,
    session: Option<SessionKey>,
}

/// What the `-sess` algorithms keep from the first request that answers a challenge, also when the
/// nonce changes by `nextnonce` (RFC 7616 §3.4.2).
///
/// All requests use its cnonce. Servers that compute the key again from each request, instead of
/// keeping it, then arrive at the same one.
#[derive(Clone)]
struct SessionKey {
    cnonce: String,
    a1: String,
}

/// What distinguishes one attempt to send a request.
struct Attempt<'a> {
    method: &'a str,
    target: &'a str,
    nonce: &'a [u8],
    count: u32,
    cnonce: &'a str,
    /// H(A1).
    a1: &'a str,
}

impl Login {
    fn new(user: &str, password: &str, offer: Offer) -> Self {
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
            session: None,
        }
    }

    /// Returns the cnonce and H(A1) for an attempt.
    fn key(&mut self, random: &mut dyn FnMut() -> u64) -> (String, String) {
        let mut cnonce = || format!("{:016x}{:016x}", random(), random());
        match self.offer.algorithm.key {
            Key::Plain => (cnonce(), self.secret.clone()),
            Key::Session => {
                if self.session.is_none() {
                    self.session = Some(self.session_key(cnonce()));
                }
                let key = self.session.clone().expect("set above");
                (key.cnonce, key.a1)
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
    fn value(&self, attempt: &Attempt<'_>) -> Vec<u8> {
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
    use std::collections::HashSet;
    use std::thread;

    use super::*;
    use crate::proto::testing::Random;

    /// Random numbers that never repeat.
    fn counter() -> impl FnMut() -> u64 {
        let mut n = 0;
        move || {
            n += 1;
            n
        }
    }

    fn digest() -> Digest {
        Digest::new("Mufasa", "Circle of Life").unwrap()
    }

    /// A client with one request.
    struct Client<'d> {
        digest: &'d Digest,
        used: Used,
    }

    impl<'d> Client<'d> {
        fn of(digest: &'d Digest) -> Self {
            let used = Used::default();
            Self { digest, used }
        }

        /// Sends the request. Returns the field value.
        fn send(&mut self) -> Option<String> {
            let mut random = counter();
            let value = self
                .digest
                .authorize(&mut self.used, "GET", "/a?b", &mut random);
            value.map(|value| String::from_utf8(value).unwrap())
        }

        /// Sends the request. Returns its nonce and count, as `nonce 1`.
        fn sends(&mut self) -> String {
            match self.send() {
                Some(value) => {
                    let count = u32::from_str_radix(parameter(&value, "nc"), 16).unwrap();
                    format!("{} {count}", parameter(&value, "nonce"))
                }
                None => "nothing".to_owned(),
            }
        }

        fn refused(&mut self, challenge: &str) -> bool {
            let fields = [challenge.as_bytes()];
            self.digest
                .on_unauthorized(&mut self.used, fields.into_iter())
        }

        fn informed(&self, info: &str) {
            self.digest.on_info(&self.used, info.as_bytes());
        }
    }

    /// Returns a parameter of an Authorization field, without quotes.
    fn parameter<'v>(value: &'v str, name: &str) -> &'v str {
        let parameters = value.strip_prefix("Digest ").unwrap().split(", ");
        let mut values = parameters.filter_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        values.next().unwrap_or_default().trim_matches('"')
    }

    fn fresh(nonce: &str) -> String {
        format!("Digest realm=\"r\", qop=\"auth\", nonce=\"{nonce}\"")
    }

    fn stale(nonce: &str) -> String {
        format!("{}, stale=true", fresh(nonce))
    }

    /// Answers the challenge with this cnonce.
    fn answer(user: &str, password: &str, challenge: &str, target: &str, cnonce: &str) -> String {
        let offer = strongest([challenge.as_bytes()].into_iter()).expect("a usable challenge");
        let mut login = Login::new(user, password, offer);
        if login.offer.algorithm.key == Key::Session {
            login.session = Some(login.session_key(cnonce.to_owned()));
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
    fn a_session_key_lasts_until_the_next_challenge() {
        let digest = digest();
        let mut client = Client::of(&digest);
        assert!(client.refused("Digest realm=r, nonce=n1, qop=auth, algorithm=SHA-256-sess"));
        let mut random = counter();
        let mut cnonce = |client: &mut Client<'_>| {
            let value = digest.authorize(&mut client.used, "GET", "/", &mut random);
            let value = String::from_utf8(value.unwrap()).unwrap();
            parameter(&value, "cnonce").to_owned()
        };
        let first = cnonce(&mut client);
        assert_eq!(cnonce(&mut client), first);
        client.informed("nextnonce=n2");
        assert_eq!(
            cnonce(&mut client),
            first,
            "nextnonce begins no new session"
        );
        let key = |digest: &Digest| {
            digest
                .lock()
                .login
                .as_ref()
                .unwrap()
                .session
                .clone()
                .unwrap()
        };
        let secret = digest.lock().login.as_ref().unwrap().secret.clone();
        let hash = super::super::algorithm::Hash::Sha256;
        let parts = [secret.as_bytes(), b"n1", first.as_bytes()];
        assert_eq!(
            key(&digest).a1,
            hash.of(&parts),
            "of the nonce of the challenge"
        );
        assert!(
            client.refused("Digest realm=r, nonce=n3, qop=auth, algorithm=MD5-sess, stale=true")
        );
        assert_ne!(cnonce(&mut client), first);
    }

    #[test]
    fn cnonces_have_128_bits_and_differ() {
        let digest = digest();
        let mut client = Client::of(&digest);
        assert!(client.refused(&fresh("n")));
        let mut random = counter();
        let mut seen = HashSet::new();
        for _ in 0..10 {
            let value = digest
                .authorize(&mut client.used, "GET", "/", &mut random)
                .unwrap();
            let value = String::from_utf8(value).unwrap();
            let cnonce = parameter(&value, "cnonce").to_owned();
            assert_eq!(cnonce.len(), 32);
            assert!(seen.insert(cnonce));
        }
    }

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
                &["Digest {}, nonce=a, algorithm=SHA-256", "Digest {}, nonce=b, algorithm=MD5"], Some("a")),
            ("SHA-256 after MD5", &["Digest {}, nonce=a, algorithm=MD5, Digest {}, nonce=b, algorithm=SHA-256"], Some("b")),
            ("SHA-512-256 after no algorithm, which is MD5", &["Digest {}, nonce=a", "Digest {}, nonce=b, algorithm=sha-512-256"], Some("b")),
            ("sound algorithms in the order of the server",
                &["Digest {}, nonce=a, algorithm=SHA-256-sess", "Digest {}, nonce=b, algorithm=SHA-512-256"], Some("a")),
            ("the same in the other order",
                &["Digest {}, nonce=a, algorithm=SHA-512-256", "Digest {}, nonce=b, algorithm=SHA-256"], Some("a")),
            ("the first of several with one algorithm", &["Digest {}, nonce=a", "Digest {}, nonce=b"], Some("a")),
            ("an unknown algorithm is passed over",
                &["Digest {}, nonce=a, algorithm=SHA-1", "Digest {}, nonce=b, algorithm=MD5"], Some("b")),
            ("an unknown algorithm alone", &["Digest {}, nonce=a, algorithm=SHA-512"], None),
            ("an algorithm in quotes", &["Digest {}, nonce=a, algorithm=\"MD5\""], Some("a")),
            ("a malformed challenge is passed over", &["Digest {}, nonce=a, nonce=b", "Digest {}, nonce=c"], Some("c")),
            ("no nonce", &["Digest {}"], None),
            ("an empty nonce", &["Digest {}, nonce=\"\""], None),
            ("no realm", &["Digest nonce=a, qop=auth"], None),
            ("an empty realm", &["Digest realm=\"\", nonce=a, qop=auth"], Some("a")),
            ("qop without quotes (httpbin)", &["Digest realm=r, nonce=a, qop=auth"], Some("a")),
            ("qop with a space after the comma", &["Digest realm=r, nonce=a, qop=\"auth-int, auth\""], Some("a")),
            ("qop without auth", &["Digest realm=r, nonce=a, qop=\"auth-int\""], None),
            ("unknown qop", &["Digest realm=r, nonce=a, qop=auth-conf"], None),
            ("no qop, as in RFC 2069", &["Digest realm=r, nonce=a"], Some("a")),
            ("an empty qop counts as none", &["Digest realm=r, nonce=a, qop=\"\""], Some("a")),
            ("no qop for a session key, which needs the cnonce", &["Digest realm=r, nonce=a, algorithm=MD5-sess"], None),
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
        let digest = digest();
        let mut client = Client::of(&digest);
        assert!(client.refused(&fresh("n")));
        client.send();
        client.informed(&format!("nextnonce={}", "x".repeat(MAX_NONCE + 1)));
        client.informed("nextnonce=\"\"");
        assert_eq!(client.sends(), "n 2");
    }

    #[test]
    fn values_are_sent_back_as_they_came() {
        #[rustfmt::skip]
        let rows = [
            ("escaped quotes and backslashes", r#"Digest realm="a\"b\\", nonce="c\d", opaque="\e""#,
                r#"realm="a\"b\\", uri="/", nonce="c\d", response"#),
            ("values without quotes are quoted", "Digest realm=a, nonce=b==, opaque=c",
                r#"realm="a", uri="/", nonce="b==", response"#),
            ("the name of the algorithm as the server spells it", "Digest realm=a, nonce=b, algorithm=\"Md5\"",
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

    /// A realm in Latin-1 is hashed and sent as it is.
    #[test]
    fn realms_need_not_be_utf_8() {
        let digest = digest();
        let mut used = Used::default();
        let field = b"Digest realm=\"\xe9\", nonce=n";
        assert!(digest.on_unauthorized(&mut used, [&field[..]].into_iter()));
        let value = digest
            .authorize(&mut used, "GET", "/", &mut counter())
            .unwrap();
        let sent = b"realm=\"\xe9\"";
        assert!(value.windows(sent.len()).any(|part| part == sent));
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
            ("the charset is case-insensitive", "Döe", "charset=utf-8", "Digest username*=UTF-8''D%C3%B6e, "),
            ("reserved characters are encoded", "ö'%*\"\\", "charset=UTF-8", "Digest username*=UTF-8''%C3%B6%27%25%2A%22%5C, "),
            ("without a charset, UTF-8 is sent as it is", "Döe", "x=y", "Digest username=\"Döe\", "),
            ("another charset is ignored", "Döe", "charset=ISO-8859-1", "Digest username=\"Döe\", "),
            ("a hash needs no encoding", "Döe", "charset=UTF-8, userhash=true", "Digest username=\"3a9a8e4b"),
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

    #[test]
    fn requests_begin_with_what_earlier_ones_learned() {
        let digest = digest();
        let mut first = Client::of(&digest);
        assert_eq!(first.sends(), "nothing");
        assert!(first.refused(&fresh("n")));
        assert_eq!(first.sends(), "n 1");
        assert_eq!(Client::of(&digest).sends(), "n 2");
        assert_eq!(first.sends(), "n 3", "a resend has a count of its own");
    }

    #[test]
    fn wrong_credentials_are_sent_once() {
        for challenge in [fresh("n"), fresh("n2")] {
            let digest = digest();
            let mut client = Client::of(&digest);
            assert!(client.refused(&fresh("n")));
            client.send();
            assert!(!client.refused(&challenge));
            assert_eq!(
                Client::of(&digest).sends(),
                "nothing",
                "later requests do not add failures"
            );
        }
    }

    #[test]
    fn an_expired_nonce_is_no_refusal() {
        let digest = digest();
        let mut client = Client::of(&digest);
        assert!(client.refused(&fresh("n1")));
        client.send();
        assert!(client.refused(&stale("n2")), "expired on the way");
        assert_eq!(client.sends(), "n2 1");
        // A later request, and a server that does not send `stale`.
        let mut later = Client::of(&digest);
        assert_eq!(later.sends(), "n2 2");
        assert!(later.refused(&fresh("n3")));
        assert_eq!(later.sends(), "n3 1");
        assert!(
            !later.refused(&fresh("n4")),
            "refused with a nonce of its own"
        );
        // The same nonce again is a refusal from the start.
        let mut last = Client::of(&digest);
        assert!(last.refused(&fresh("n5")));
        let mut other = Client::of(&digest);
        assert_eq!(other.sends(), "n5 1");
        assert!(!other.refused(&fresh("n5")));
    }

    #[test]
    fn only_true_is_stale() {
        let rows = [
            ("stale=TRUE", true),
            ("stale=\"true\"", true),
            ("stale=false", false),
            ("stale=1", false),
            ("stale=\"\"", false),
        ];
        for (parameter, expected) in rows {
            let digest = digest();
            let mut client = Client::of(&digest);
            assert!(client.refused(&fresh("n1")));
            client.send();
            let challenge = format!("{}, {parameter}", fresh("n2"));
            assert_eq!(client.refused(&challenge), expected, "{parameter}");
        }
    }

    #[test]
    fn a_request_is_answered_so_many_times_only() {
        let digest = digest();
        let mut client = Client::of(&digest);
        let mut answers = 0;
        while client.refused(&stale(&format!("n{answers}"))) {
            answers += 1;
            assert_eq!(client.sends(), format!("n{} 1", answers - 1));
            assert!(answers < 100, "endless");
        }
        assert_eq!(answers, MAX_ANSWERS);
        // Neither does it help to send the same nonce, or to forget the credentials.
        let mut client = Client::of(&digest);
        let mut answers = 0;
        while client.refused(&stale("same")) {
            answers += 1;
            if answers == 2 {
                digest.lock().login = None;
            }
            client.send();
            assert!(answers < 100, "endless");
        }
        assert_eq!(answers, MAX_ANSWERS);
    }

    #[test]
    fn a_newer_nonce_of_another_request_is_used() {
        let digest = digest();
        let (mut slow, mut quick) = (Client::of(&digest), Client::of(&digest));
        assert!(quick.refused(&fresh("n1")));
        assert_eq!(slow.sends(), "n1 1");
        assert_eq!(quick.sends(), "n1 2");
        quick.informed("nextnonce=\"n2\"");
        // The server allows one request per nonce, and repeats the old challenge.
        assert!(slow.refused(&fresh("n1")));
        assert_eq!(slow.sends(), "n2 1");
        assert!(!slow.refused(&fresh("n1")), "once");
        // A challenge with a new nonce is newer still.
        assert!(quick.refused(&stale("n3")));
        assert_eq!(quick.sends(), "n3 1");
    }

    #[test]
    fn counts_never_repeat_for_a_nonce() {
        let digest = digest();
        let mut client = Client::of(&digest);
        for expected in ["a 1", "b 1", "a 2", "a 3", "b 2"] {
            let nonce = &expected[..1];
            assert!(Client::of(&digest).refused(&fresh(nonce)));
            assert_eq!(client.sends(), expected);
        }
        client.informed("nextnonce=a");
        assert_eq!(client.sends(), "a 4");
        // A refusal forgets the login, not the counts.
        assert!(!client.refused(&fresh("a")));
        assert_eq!(client.sends(), "nothing");
        assert!(client.refused(&fresh("a")));
        assert_eq!(client.sends(), "a 5");
    }

    #[test]
    fn old_nonces_are_forgotten() {
        let digest = digest();
        for i in 0..3 * MAX_NONCES {
            let mut client = Client::of(&digest);
            assert!(client.refused(&fresh(&format!("n{i}"))));
            assert_eq!(client.sends(), format!("n{i} 1"));
            assert!(digest.lock().nonces.0.len() <= MAX_NONCES);
        }
        let last = format!("n{}", 2 * MAX_NONCES);
        let mut client = Client::of(&digest);
        assert!(client.refused(&fresh(&last)));
        assert_eq!(
            client.sends(),
            format!("{last} 2"),
            "the last ones are known"
        );
    }

    #[test]
    fn a_nonce_without_counts_left_is_not_used() {
        let digest = digest();
        let mut client = Client::of(&digest);
        assert!(client.refused(&fresh("n")));
        digest.lock().nonces.0[0].1 = u32::MAX - 1;
        let value = client.send().unwrap();
        assert_eq!(parameter(&value, "nc"), "ffffffff");
        assert_eq!(client.sends(), "nothing");
        assert!(client.refused(&fresh("m")));
        assert_eq!(client.sends(), "m 1");
    }

    #[test]
    fn threads_share_nonces_and_never_a_count() {
        const THREADS: usize = 4;
        const REQUESTS: usize = 100;
        let digest = digest();
        let values = thread::scope(|scope| {
            let run = |thread: usize| {
                let mut sent = Vec::new();
                for i in 0..REQUESTS {
                    let mut client = Client::of(&digest);
                    if i % 10 == 0 {
                        assert!(client.refused(&fresh(&format!("n{}", thread % 2))));
                    }
                    sent.push(client.sends());
                }
                sent
            };
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| scope.spawn(move || run(thread)))
                .collect();
            let results = threads.into_iter().map(|thread| thread.join().unwrap());
            results.flatten().collect::<Vec<_>>()
        });
        assert!(!values.contains(&"nothing".to_owned()));
        let distinct: HashSet<_> = values.iter().collect();
        assert_eq!(distinct.len(), THREADS * REQUESTS);
    }

    #[test]
    fn nextnonce_is_used_from_then_on() {
        let digest = digest();
        let mut client = Client::of(&digest);
        client.informed("nextnonce=early");
        assert_eq!(client.sends(), "nothing", "without a login");
        assert!(client.refused(&fresh("n1")));
        client.informed("nextnonce=early");
        assert_eq!(client.sends(), "n1 1", "from a response to no credentials");
        client.informed("qop=auth, rspauth=\"\", cnonce=\"c\", nc=00000001");
        assert_eq!(client.sends(), "n1 2", "no nextnonce");
        client.informed("nextnonce=\"n2\", nextnonce=\"n3\"");
        assert_eq!(client.sends(), "n1 3", "malformed");
        client.informed("NextNonce=\"n2\", qop=auth");
        assert_eq!(client.sends(), "n2 1");
        client.informed("nextnonce=n2");
        assert_eq!(client.sends(), "n2 2", "the same");
        // Another challenge was answered in the meantime.
        assert!(Client::of(&digest).refused(&fresh("n4")));
        client.informed("nextnonce=n3");
        assert_eq!(client.sends(), "n4 1");
    }

    #[test]
    fn a_401_without_a_usable_challenge_is_final() {
        let digest = digest();
        let mut client = Client::of(&digest);
        assert!(!client.refused("Basic realm=r"));
        assert!(!client.refused(""));
        assert!(client.refused(&fresh("n")));
        client.send();
        assert!(!client.refused("Basic realm=r"));
        assert_eq!(
            Client::of(&digest).sends(),
            "n 2",
            "which says nothing about the login"
        );
    }

    #[test]
    fn user_names_have_no_control_characters() {
        for user in ["secret\r\n", "\0", "a\x7f"] {
            let why = Digest::new(user, "p").err().unwrap();
            assert!(!why.contains("secret"), "{why}");
        }
        for (user, password) in [("a:b", "c"), ("", ""), ("é\u{85}", "\n")] {
            assert!(Digest::new(user, password).is_ok());
        }
    }

    /// Whatever a server sends, the value is one that can stand in a field.
    #[test]
    fn any_challenge_is_answered_or_ignored() {
        const FIELD: &[u8] = br#"Basic realm="a", Digest realm="b\"c", qop="auth,auth-int",
            nonce="d", opaque="e", algorithm=MD5, userhash=false, stale=true"#;
        let field: Vec<u8> = FIELD.iter().filter(|b| **b != b'\n').copied().collect();
        let mut random = Random::new(11);
        let mut answered = 0;
        for _ in 0..5000 {
            let digest = digest();
            let mut used = Used::default();
            let field = random.mutate(&field);
            let answers = digest.on_unauthorized(&mut used, [&field[..]].into_iter());
            let value = digest.authorize(&mut used, "GET", "/", &mut counter());
            assert_eq!(value.is_some(), answers);
            if let Some(value) = value {
                answered += 1;
                assert!(value.iter().all(|b| *b == b'\t' || !b.is_ascii_control()));
                assert_eq!(
                    challenges(&value).len(),
                    1,
                    "{}",
                    String::from_utf8_lossy(&value)
                );
                assert!(challenges(&value)[0].parameters_of("Digest").is_some());
            }
            digest.on_info(&used, &random.mutate(b"nextnonce=\"a\\\"b\", qop=auth"));
        }
        assert!(answered > 1000, "{answered} answered");
    }
}
