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
//!
//! # Nonces for one request
//! A request that answers a challenge reserves a use of the challenge's nonce for its next attempt.
//! Other requests may use the same nonce at once, with later counts, which saves each of them a
//! challenge. Some servers, however, accept a nonce only once. If another request reaches such a
//! server first, the server challenges the slower one again, with `stale`; that request then has
//! the next nonce to itself. At most three attempts with credentials are therefore needed, whatever
//! the number of requests in flight.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::challenge::info;
use super::login::{Attempt, Login};
use super::offer::{Freshness, Offer, checked_nonce, strongest};

/// The most challenges that are answered for one request: the first one, and two nonces that
/// expired or were used up on the way.
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
    /// What was sent last, if there were credentials.
    sent: Option<Use>,
    /// What the next attempt sends, if it answers a challenge.
    reserved: Option<Use>,
}

/// One use of a nonce. There is only one with the same nonce and count.
struct Use {
    login: Arc<Login>,
    nonce: Arc<[u8]>,
    count: u32,
}

#[derive(Default)]
struct State {
    /// The login that requests begin with. Its nonce is the current one of `nonces`.
    login: Option<Arc<Login>>,
    nonces: Nonces,
}

/// What a 401 response means for its request.
enum Reaction {
    /// The challenge is answered.
    Answer,
    /// Another request has brought another nonce, which is used.
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

    /// Returns the same credentials, without anything that a server has said about them.
    pub(super) fn anew(&self) -> Arc<Self> {
        Arc::new(Self {
            user: self.user.clone(),
            password: self.password.clone(),
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
        let reserved = used.reserved.take();
        let sent = reserved.or_else(|| self.lock().next_use())?;
        let login = &sent.login;
        let (cnonce, a1) = login.key(random);
        let value = login.value(&Attempt {
            method,
            target,
            nonce: &sent.nonce,
            count: sent.count,
            cnonce: &cnonce,
            a1: &a1,
        });
        used.sent = Some(sent);
        Some(value)
    }

    /// Takes in a 401 response; see [`Auth::on_unauthorized`](super::Auth::on_unauthorized).
    pub(super) fn on_unauthorized<'v>(
        &self,
        used: &mut Used,
        fields: impl Iterator<Item = &'v [u8]>,
    ) -> bool {
        // A use that was not sent belongs to an earlier challenge.
        used.reserved = None;
        let Some(offer) = strongest(fields) else {
            return false;
        };
        let mut state = self.lock();
        match state.reaction(used, &offer) {
            Reaction::Answer => {
                let login = Login::new(&self.user, &self.password, offer);
                used.reserved = match state.has_lost_its_nonce(used) {
                    true => state.begin_apart(login),
                    false => state.begin(login),
                };
                if used.reserved.is_none() {
                    // The server has repeated a nonce that has no counts left.
                    return false;
                }
            }
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
        if state.is_current(&sent.login) {
            state.nonces.take_up(nonce);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Begins an authentication session with the nonce of its challenge (RFC 7616 §3.6). Returns
    /// the next use of that nonce, if any is left, and leaves later ones to other requests.
    fn begin(&mut self, login: Login) -> Option<Use> {
        self.nonces.take_up(login.nonce());
        self.login = Some(Arc::new(login));
        self.next_use()
    }

    /// Begins an authentication session for one request only: others do not learn of its nonce.
    fn begin_apart(&mut self, login: Login) -> Option<Use> {
        let (nonce, count) = self.nonces.count_apart(login.nonce())?;
        let login = Arc::new(login);
        Some(Use {
            login,
            nonce,
            count,
        })
    }

    /// Takes the next use of the current nonce. `None` without a login.
    fn next_use(&mut self) -> Option<Use> {
        let login = Arc::clone(self.login.as_ref()?);
        let Some((nonce, count)) = self.nonces.count() else {
            // All counts of this nonce are used up: the next challenge brings another.
            self.login = None;
            return None;
        };
        Some(Use {
            login,
            nonce,
            count,
        })
    }

    /// Returns whether a request that has answered a challenge was refused after others had used
    /// the same nonce. If no others had, the nonce was merely too old.
    fn has_lost_its_nonce(&self, used: &Used) -> bool {
        let is_shared = |sent: &Use| self.nonces.last_count(&sent.nonce) != Some(sent.count);
        used.answers > 0 && used.sent.as_ref().is_some_and(is_shared)
    }

    /// Returns whether this is the login that requests begin with.
    fn is_current(&self, login: &Arc<Login>) -> bool {
        let current = self.login.as_ref();
        current.is_some_and(|current| Arc::ptr_eq(current, login))
    }

    fn reaction(&self, used: &Used, offer: &Offer) -> Reaction {
        if used.answers >= MAX_ANSWERS {
            return Reaction::GiveUp;
        }
        let Some(sent) = &used.sent else {
            return Reaction::Answer;
        };
        let is_stale = offer.freshness == Freshness::Stale;
        let is_new = *offer.nonce != *sent.nonce;
        let is_overtaken = self.current().is_some_and(|nonce| *nonce != *sent.nonce);
        if !is_stale && used.answers > 0 {
            // The server has just issued the nonce, so it is the credentials that it refuses.
            Reaction::GiveUp
        } else if is_new {
            // Without `stale`, the credentials may be wrong. But servers that never send it
            // challenge an expired nonce in the same way.
            Reaction::Answer
        } else if is_overtaken {
            Reaction::SendAgain
        } else if is_stale {
            // The same nonce is as stale as before, but its next count may be accepted.
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
        let refused = used.sent.as_ref();
        if refused.is_some_and(|sent| self.is_current(&sent.login)) {
            self.login = None;
        }
    }
}

/// The latest nonces, each with the number of times that it was used. The last one is the current
/// one. No count is used twice, even if a nonce comes again: servers take that for a replay.
#[derive(Default)]
struct Nonces(Vec<(Arc<[u8]>, u32)>);

impl Nonces {
    /// Makes this nonce the current one.
    fn take_up(&mut self, nonce: &[u8]) {
        let entry = self.remove(nonce);
        self.0.push(entry);
    }

    fn current(&self) -> Option<&[u8]> {
        self.0.last().map(|(nonce, _)| &**nonce)
    }

    /// Returns the current nonce and its next count, from 1. `None` after the last one.
    fn count(&mut self) -> Option<(Arc<[u8]>, u32)> {
        self.0.last_mut().and_then(next_count)
    }

    /// Returns this nonce and its next count, as [`count`](Self::count) does, but leaves the
    /// current one in its place.
    fn count_apart(&mut self, nonce: &[u8]) -> Option<(Arc<[u8]>, u32)> {
        if self.current() == Some(nonce) {
            return self.count();
        }
        let entry = self.remove(nonce);
        let before_current = self.0.len().saturating_sub(1);
        self.0.insert(before_current, entry);
        next_count(&mut self.0[before_current])
    }

    /// Returns the count that was used last, or `None` if the nonce was forgotten.
    fn last_count(&self, nonce: &[u8]) -> Option<u32> {
        let entry = self.0.iter().find(|(known, _)| **known == *nonce);
        entry.map(|(_, count)| *count)
    }

    /// Removes the entry of this nonce, or returns a new one that there is room for.
    fn remove(&mut self, nonce: &[u8]) -> (Arc<[u8]>, u32) {
        if let Some(at) = self.0.iter().position(|(known, _)| **known == *nonce) {
            return self.0.remove(at);
        }
        if self.0.len() == MAX_NONCES {
            self.0.remove(0);
        }
        (nonce.into(), 0)
    }
}

fn next_count((nonce, count): &mut (Arc<[u8]>, u32)) -> Option<(Arc<[u8]>, u32)> {
    *count = count.checked_add(1)?;
    Some((Arc::clone(nonce), *count))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::super::algorithm::Hash;
    use super::super::challenge::challenges;
    use super::super::offer::MAX_NONCE;
    use super::super::testing::{counter, parameter};
    use super::*;
    use crate::proto::testing::Random;

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

    fn fresh(nonce: &str) -> String {
        format!("Digest realm=\"r\", qop=\"auth\", nonce=\"{nonce}\"")
    }

    fn stale(nonce: &str) -> String {
        format!("{}, stale=true", fresh(nonce))
    }

    /// The key is made of the nonce of the challenge and the first cnonce, which stays.
    #[test]
    fn a_session_key_lasts_until_the_next_challenge() {
        let digest = digest();
        let mut used = Used::default();
        let mut random = counter();
        let mut send = |used: &mut Used, key_nonce: &str| {
            let value = digest.authorize(used, "GET", "/", &mut random);
            let value = String::from_utf8(value.unwrap()).unwrap();
            let of = |parts: &[&str]| {
                let parts: Vec<_> = parts.iter().map(|part| part.as_bytes()).collect();
                Hash::Sha256.of(&parts)
            };
            let get = |name| parameter(&value, name);
            let (nonce, count, cnonce) = (get("nonce"), get("nc"), get("cnonce"));
            let secret = of(&["Mufasa", "r", "Circle of Life"]);
            let a1 = of(&[&secret, key_nonce, cnonce]);
            let response = of(&[&a1, nonce, count, cnonce, "auth", &of(&["GET", "/"])]);
            assert_eq!(get("response"), response, "{value}");
            (nonce.to_owned(), cnonce.to_owned())
        };
        let challenge = |nonce| format!("{}, algorithm=SHA-256-sess", stale(nonce));
        let refused = |used: &mut Used, nonce| {
            let field = challenge(nonce);
            assert!(digest.on_unauthorized(used, [field.as_bytes()].into_iter()));
        };
        refused(&mut used, "n1");
        let (_, cnonce) = send(&mut used, "n1");
        assert_eq!(send(&mut used, "n1").1, cnonce);
        digest.on_info(&used, b"nextnonce=n2");
        let sent = send(&mut used, "n1");
        assert_eq!(sent, ("n2".to_owned(), cnonce.clone()), "no new key");
        refused(&mut used, "n3");
        assert_ne!(send(&mut used, "n3").1, cnonce);
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
        assert_eq!(other.sends(), "n5 2");
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
        assert_eq!(slow.sends(), "n1 2");
        assert_eq!(quick.sends(), "n1 1");
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
    fn a_request_sends_what_it_has_reserved() {
        type Meanwhile = fn(&Digest);
        let rows: &[(&str, Meanwhile)] = &[
            ("nothing happens", |_| {}),
            ("others use the nonce", |digest| {
                assert_eq!(Client::of(digest).sends(), "n 2");
                assert_eq!(Client::of(digest).sends(), "n 3");
            }),
            ("others are given the same nonce", |digest| {
                let mut other = Client::of(digest);
                assert!(other.refused(&fresh("n")));
                assert_eq!(other.sends(), "n 2");
            }),
            ("others are given another nonce", |digest| {
                assert!(Client::of(digest).refused(&fresh("m")));
                assert_eq!(Client::of(digest).sends(), "m 2");
            }),
            ("others are told the next nonce", |digest| {
                let mut other = Client::of(digest);
                assert_eq!(other.sends(), "n 2");
                other.informed("nextnonce=m");
                assert_eq!(Client::of(digest).sends(), "m 1");
            }),
            ("others are refused for good", |digest| {
                let mut other = Client::of(digest);
                assert_eq!(other.sends(), "n 2");
                assert!(!other.refused(&fresh("n")));
                assert_eq!(Client::of(digest).sends(), "nothing");
            }),
            ("its nonce is forgotten", |digest| {
                for i in 0..MAX_NONCES {
                    assert!(Client::of(digest).refused(&fresh(&format!("m{i}"))));
                }
            }),
        ];
        for (why, meanwhile) in rows {
            let digest = digest();
            let mut client = Client::of(&digest);
            assert!(client.refused(&fresh("n")), "{why}");
            meanwhile(&digest);
            assert_eq!(client.sends(), "n 1", "{why}");
            assert_ne!(client.sends(), "n 1", "{why}: once");
        }
    }

    #[test]
    fn what_was_reserved_ends_with_the_next_refusal() {
        let digest = digest();
        let mut client = Client::of(&digest);
        assert!(client.refused(&fresh("n1")));
        // The request was sent without it, for instance with a field of its own.
        assert!(!client.refused("Basic realm=r"));
        assert_eq!(client.sends(), "n1 2");
    }

    #[test]
    fn a_request_that_lost_its_nonce_has_the_next_one_to_itself() {
        let digest = digest();
        let mut first = Client::of(&digest);
        assert!(first.refused(&fresh("n1")));
        assert_eq!(Client::of(&digest).sends(), "n1 2", "this one comes first");
        assert_eq!(first.sends(), "n1 1");
        assert!(first.refused(&stale("n2")));
        assert_eq!(Client::of(&digest).sends(), "n1 3", "n2 is taken");
        assert_eq!(first.sends(), "n2 1");
        // What follows from n2 does not concern the others, either.
        first.informed("nextnonce=n3");
        assert_eq!(Client::of(&digest).sends(), "n1 4");
        assert!(!first.refused(&fresh("n4")));
        assert_eq!(Client::of(&digest).sends(), "n1 5");
        // If the server gives the same nonce to others, the counts go on.
        let mut second = Client::of(&digest);
        assert!(second.refused(&fresh("n2")));
        assert_eq!(second.sends(), "n2 2");
    }

    /// Otherwise each of the others would have to be challenged, too.
    #[test]
    fn a_nonce_that_nobody_has_lost_is_for_all() {
        let digest = digest();
        let mut first = Client::of(&digest);
        for nonce in ["n1", "n2", "n3"] {
            assert!(first.refused(&stale(nonce)));
            assert_eq!(first.sends(), format!("{nonce} 1"));
        }
        assert_eq!(Client::of(&digest).sends(), "n3 2");
    }

    #[test]
    fn nonces_kept_apart_leave_the_current_one_in_its_place() {
        let mut nonces = Nonces::default();
        nonces.take_up(b"current");
        for i in 0..3 * MAX_NONCES {
            let nonce = format!("n{i}");
            assert_eq!(nonces.count_apart(nonce.as_bytes()).unwrap().1, 1);
            assert_eq!(nonces.count_apart(nonce.as_bytes()).unwrap().1, 2);
            assert_eq!(nonces.current(), Some(&b"current"[..]));
            assert!(nonces.0.len() <= MAX_NONCES);
        }
        assert_eq!(nonces.count_apart(b"current").unwrap().1, 1);
        assert_eq!(nonces.count().unwrap().1, 2);
        nonces.0[0].1 = u32::MAX;
        let full = Arc::clone(&nonces.0[0].0);
        assert!(nonces.count_apart(&full).is_none());
        assert_eq!(nonces.last_count(&full), Some(u32::MAX), "still known");
    }

    /// A server that accepts each nonce once, and many requests in flight that reach it in any
    /// order.
    #[test]
    fn one_time_nonces_suffice_for_many_requests_at_once() {
        const REQUESTS: usize = 40;
        /// Two with a nonce that others may have as well, and one with a nonce of its own.
        const MAX_SENT: usize = 3;
        enum Stage {
            Queued,
            Sent(Option<String>),
        }
        let mut most_sent = 0;
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let digest = digest();
            let mut issued = 0;
            let mut unused = HashSet::new();
            let mut requests: Vec<_> = (0..REQUESTS)
                .map(|_| (Client::of(&digest), 0, Stage::Queued))
                .collect();
            while !requests.is_empty() {
                let at = random.below(requests.len());
                let (client, sent, stage) = &mut requests[at];
                match stage {
                    Stage::Queued => {
                        *sent += usize::from(client.digest.lock().login.is_some());
                        let nonce = client.send().map(|value| parameter(&value, "nonce").into());
                        *stage = Stage::Sent(nonce);
                    }
                    Stage::Sent(Some(nonce)) if unused.remove(&*nonce) => {
                        most_sent = most_sent.max(*sent);
                        requests.swap_remove(at);
                    }
                    Stage::Sent(nonce) => {
                        let new = format!("n{issued}");
                        issued += 1;
                        let challenge = match nonce {
                            Some(_) => stale(&new),
                            None => fresh(&new),
                        };
                        unused.insert(new);
                        assert!(client.refused(&challenge), "seed {seed}: {sent} times sent");
                        *stage = Stage::Queued;
                    }
                }
            }
        }
        assert_eq!(most_sent, MAX_SENT, "the others are ahead of some twice");
    }

    #[test]
    fn counts_never_repeat_for_a_nonce() {
        let digest = digest();
        let mut client = Client::of(&digest);
        let rows = [
            ("a", 1, 2),
            ("b", 1, 2),
            ("a", 3, 4),
            ("a", 5, 6),
            ("b", 3, 4),
        ];
        for (nonce, reserved, next) in rows {
            let mut challenged = Client::of(&digest);
            assert!(challenged.refused(&fresh(nonce)));
            assert_eq!(client.sends(), format!("{nonce} {next}"));
            assert_eq!(challenged.sends(), format!("{nonce} {reserved}"));
        }
        client.informed("nextnonce=a");
        assert_eq!(client.sends(), "a 7");
        // A refusal forgets the login, not the counts.
        assert!(!client.refused(&fresh("a")));
        assert_eq!(client.sends(), "nothing");
        assert!(client.refused(&fresh("a")));
        assert_eq!(client.sends(), "a 8");
        // Nor does a use that is never sent come back.
        assert!(Client::of(&digest).refused(&fresh("a")));
        assert_eq!(Client::of(&digest).sends(), "a 10");
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
        assert_eq!(client.sends(), "n 1");
        digest.lock().nonces.0[0].1 = u32::MAX - 1;
        let value = client.send().unwrap();
        assert_eq!(parameter(&value, "nc"), "ffffffff");
        assert_eq!(client.sends(), "nothing");
        assert!(
            !Client::of(&digest).refused(&fresh("n")),
            "none to answer with"
        );
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
    fn a_nextnonce_of_invalid_length_is_ignored() {
        let digest = digest();
        let mut client = Client::of(&digest);
        assert!(client.refused(&fresh("n")));
        client.send();
        client.informed(&format!("nextnonce={}", "x".repeat(MAX_NONCE + 1)));
        client.informed("nextnonce=\"\"");
        assert_eq!(client.sends(), "n 2");
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
        client.informed("nextnonce=\"n2\", nextnonce");
        assert_eq!(client.sends(), "n1 3", "malformed");
        client.informed("NextNonce=\"n2\", qop=auth");
        assert_eq!(client.sends(), "n2 1");
        client.informed("nextnonce=n2");
        assert_eq!(client.sends(), "n2 2", "the same");
        client.informed("nextnonce=n1, nextnonce=n3");
        assert_eq!(client.sends(), "n3 1", "the last of two");
        // Another challenge was answered in the meantime.
        assert!(Client::of(&digest).refused(&fresh("n5")));
        client.informed("nextnonce=n4");
        assert_eq!(client.sends(), "n5 2");
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
