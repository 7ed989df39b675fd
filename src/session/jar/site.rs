//! The cookies of one site: what replaces what, which ones a request carries and in which order,
//! and which ones are evicted (RFC 6265bis §5.7 and §5.8.3).

use std::cmp::Reverse;
use std::time::SystemTime;

use super::cookie::{Cookie, Place};
use super::refusal::Refusal;
use crate::proto::Scheme;

/// The most cookies of one domain, that is, with the same domain in the sense of §5.7.
pub(super) const MAX_PER_DOMAIN: usize = 50;

/// The most cookies of a site, over all its domains. Without this limit, one site with many
/// subdomains could evict the cookies of all others.
pub(super) const MAX_PER_SITE: usize = 180;

/// The most cookies in one Cookie field.
pub(super) const MAX_SENT: usize = 150;

/// The most bytes of one Cookie field's value. Servers refuse requests with larger fields.
pub(super) const MAX_SENT_BYTES: usize = 16 * 1024;

/// Between the cookies of a Cookie field.
pub(super) const SEPARATOR: &[u8] = b"; ";

#[derive(Default)]
pub(super) struct Site(Vec<Cookie>);

/// What storing a cookie means for the requests that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// They carry the same cookies as before.
    None,
    /// They may carry other cookies.
    Changed,
}

impl Site {
    pub(super) fn cookies(&self) -> &[Cookie] {
        &self.0
    }

    /// Stores a cookie that was set over `scheme`. An expired cookie deletes the one that it
    /// replaces. A cookie that replaces another keeps its place in the order of creation.
    ///
    /// # Errors
    /// [`Refusal::ShadowsSecure`].
    pub(super) fn put(
        &mut self,
        mut cookie: Cookie,
        scheme: Scheme,
        now: SystemTime,
    ) -> Result<Effect, Refusal> {
        self.expire(now);
        let is_secure = cookie.secure || scheme == Scheme::Https;
        if !is_secure && self.0.iter().any(|old| cookie.shadows(old)) {
            return Err(Refusal::ShadowsSecure);
        }
        let place = self.0.iter().position(|old| cookie.is_same(old));
        match place {
            None if cookie.is_expired(now) => Ok(Effect::None),
            None => {
                self.0.push(cookie);
                Ok(Effect::Changed)
            }
            Some(at) if cookie.is_expired(now) => {
                self.0.remove(at);
                Ok(Effect::Changed)
            }
            Some(at) => {
                let is_renewed = cookie.renews(&self.0[at]);
                cookie.created = self.0[at].created;
                self.0[at] = cookie;
                Ok(if is_renewed {
                    Effect::None
                } else {
                    Effect::Changed
                })
            }
        }
    }

    /// Removes the cookies that have expired.
    pub(super) fn expire(&mut self, now: SystemTime) {
        self.0.retain(|cookie| !cookie.is_expired(now));
    }

    /// Removes the cookies that exceed the limits for `domain` and for the site.
    pub(super) fn evict(&mut self, domain: &str) {
        while self
            .0
            .iter()
            .filter(|cookie| *cookie.domain == *domain)
            .count()
            > MAX_PER_DOMAIN
        {
            self.evict_one(|cookie| *cookie.domain == *domain);
        }
        while self.0.len() > MAX_PER_SITE {
            self.evict_one(|_| true);
        }
    }

    /// Removes, of these cookies, one that is not Secure, if there is one, and the least recently
    /// used among those.
    fn evict_one(&mut self, is_candidate: impl Fn(&Cookie) -> bool) {
        let cookies = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, cookie)| is_candidate(cookie));
        let first = cookies.min_by_key(|(_, cookie)| (cookie.secure, cookie.used));
        if let Some((at, _)) = first {
            self.0.remove(at);
        }
    }

    /// Removes the cookies that were used before `first`, a time as in [`Cookie::used`], Secure or
    /// not.
    pub(super) fn remove_used_before(&mut self, first: u64) {
        self.0.retain(|cookie| cookie.used >= first);
    }

    /// Removes the cookies of this name that a request to `place` would carry, and returns whether
    /// there were any.
    pub(super) fn remove(&mut self, place: &Place<'_>, name: &[u8], now: SystemTime) -> bool {
        let before = self.0.len();
        self.0
            .retain(|cookie| *cookie.name != *name || !cookie.goes_to(place, now));
        self.0.len() < before
    }

    /// Marks the cookies for a request to `place` as used, each with a number from `next` on, and
    /// returns the next number.
    pub(super) fn touch(&mut self, place: &Place<'_>, now: SystemTime, next: u64) -> u64 {
        let cookies = self
            .0
            .iter_mut()
            .filter(|cookie| cookie.goes_to(place, now));
        cookies.fold(next, |next, cookie| {
            cookie.used = next;
            next + 1
        })
    }

    /// Returns the cookies that a request to `place` carries, in this order: longer paths first,
    /// then those created earlier. The cookies beyond [`MAX_SENT`] and [`MAX_SENT_BYTES`] are left
    /// out, from the first that does not fit.
    pub(super) fn sent(&self, place: &Place<'_>, now: SystemTime) -> Vec<&Cookie> {
        let mut cookies = Vec::from_iter(self.0.iter().filter(|cookie| cookie.goes_to(place, now)));
        cookies.sort_by_key(|cookie| (Reverse(cookie.path.len()), cookie.created));
        let mut bytes = 0;
        let fits = |cookie: &&&Cookie| {
            let separator = if bytes > 0 { SEPARATOR.len() } else { 0 };
            bytes += separator + cookie.written_len();
            bytes <= MAX_SENT_BYTES
        };
        let count = cookies.iter().take(MAX_SENT).take_while(fits).count();
        cookies.truncate(count);
        cookies
    }
}
