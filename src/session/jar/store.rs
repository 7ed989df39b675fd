//! All cookies of a jar, by site.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::cookie::{Cookie, Place};
use super::domain;
use super::lines::{Line, Lines, Paths};
use super::refusal::Refusal;
use super::set_cookie::SetCookie;
use super::site::{Effect, SEPARATOR, Site};
use crate::proto::Scheme;

/// The most cookies in a jar.
pub(super) const MAX_COOKIES: usize = 3000;

/// How many cookies are left when there were too many. The search for those that go looks at all
/// cookies, so it must not run again for each new one: a server may set thousands in a turn.
pub(super) const LEFT_COOKIES: usize = MAX_COOKIES - MAX_COOKIES / 10;

/// Cookies by the site of their domain. A host gets cookies of its own site only, so a lookup sees
/// at most [`MAX_PER_SITE`](super::site::MAX_PER_SITE) cookies.
#[derive(Default)]
pub(super) struct Store {
    sites: HashMap<Box<str>, Site>,
    len: usize,
    /// The number for the next cookie that is stored or used.
    next: u64,
    lines: Lines,
}

impl Store {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn sites(&self) -> usize {
        self.sites.len()
    }

    /// Stores what a Set-Cookie field from `from` sets.
    ///
    /// # Errors
    /// If the cookie is refused; nothing has changed then.
    pub(super) fn receive(
        &mut self,
        field: &[u8],
        from: &Place<'_>,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let cookie = Cookie::received(&SetCookie::parse(field)?, from, now)?;
        self.put(cookie, from.scheme, now)
    }

    /// Stores a cookie that was set over `scheme`, and evicts others if there are too many.
    ///
    /// # Errors
    /// [`Refusal::ShadowsSecure`].
    pub(super) fn put(
        &mut self,
        mut cookie: Cookie,
        scheme: Scheme,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        (cookie.created, cookie.used) = (self.next, self.next);
        self.next += 1;
        let domain = cookie.domain.clone();
        let key = domain::site(&domain);
        let site = self.sites.entry(key.into()).or_default();
        let before = site.cookies().len();
        let effect = site.put(cookie, scheme, now);
        site.evict(&domain);
        let after = site.cookies().len();
        self.len = self.len - before + after;
        if after == 0 {
            self.sites.remove(key);
        }
        if effect? == Effect::Changed {
            self.lines.clear();
        }
        if self.len > MAX_COOKIES {
            self.evict(now);
        }
        Ok(())
    }

    /// Removes the cookies that have expired, then the least recently used ones, until
    /// [`LEFT_COOKIES`] are left.
    fn evict(&mut self, now: SystemTime) {
        self.sites.values_mut().for_each(|site| site.expire(now));
        self.recount();
        let Some(surplus) = self.len.checked_sub(LEFT_COOKIES) else {
            return;
        };
        let all = self.sites.values().flat_map(Site::cookies);
        let mut uses = Vec::from_iter(all.map(|cookie| cookie.used));
        if surplus < uses.len() {
            let (_, &mut first, _) = uses.select_nth_unstable(surplus);
            let sites = self.sites.values_mut();
            sites.for_each(|site| site.remove_used_before(first));
            self.recount();
        }
    }

    /// Restores `len` after cookies were removed, and removes the sites that have none any more.
    fn recount(&mut self) {
        self.sites.retain(|_, site| !site.cookies().is_empty());
        self.len = self.sites.values().map(|site| site.cookies().len()).sum();
        self.lines.clear();
    }

    /// Returns the value of the Cookie field for a request to `place`.
    pub(super) fn line(&mut self, place: &Place<'_>, now: SystemTime) -> Option<Arc<[u8]>> {
        if let Some(value) = self.lines.find(place, now) {
            return value;
        }
        let line = self.compose(place, now);
        let value = line.value();
        self.lines.keep(line);
        value
    }

    fn compose(&mut self, place: &Place<'_>, now: SystemTime) -> Line {
        let Some(site) = self.sites.get_mut(domain::site(place.host)) else {
            return Line::new(place, Paths::All, None, None);
        };
        self.next = site.touch(place, now, self.next);
        let cookies = site.sent(place, now);
        let value = (!cookies.is_empty()).then(|| joined(&cookies).into());
        let until = cookies.iter().filter_map(|cookie| cookie.expires).min();
        let mut of_host = site
            .cookies()
            .iter()
            .filter(|cookie| cookie.is_for_host(place.host));
        let paths = if of_host.all(|cookie| *cookie.path == *b"/") {
            Paths::All
        } else {
            Paths::One(place.path.into())
        };
        Line::new(place, paths, value, until)
    }

    /// Returns the value of the cookie of this name that a request to `place` carries, the first if
    /// there are several.
    pub(super) fn value(&self, place: &Place<'_>, name: &[u8], now: SystemTime) -> Option<&[u8]> {
        let site = self.sites.get(domain::site(place.host))?;
        let mut cookies = site.sent(place, now).into_iter();
        cookies
            .find(|cookie| *cookie.name == *name)
            .map(|cookie| &*cookie.value)
    }

    /// Removes the cookies of this name that a request to `place` would carry, and returns whether
    /// there were any.
    pub(super) fn remove(&mut self, place: &Place<'_>, name: &[u8], now: SystemTime) -> bool {
        let Some(site) = self.sites.get_mut(domain::site(place.host)) else {
            return false;
        };
        let has_removed = site.remove(place, name, now);
        if has_removed {
            self.recount();
        }
        has_removed
    }

    pub(super) fn clear(&mut self) {
        self.sites.clear();
        self.recount();
    }

    /// Returns the cookies that have not expired, in the order in which they were created.
    pub(super) fn cookies(&self, now: SystemTime) -> Vec<&Cookie> {
        let all = self.sites.values().flat_map(Site::cookies);
        let mut cookies = Vec::from_iter(all.filter(|cookie| !cookie.is_expired(now)));
        cookies.sort_by_key(|cookie| cookie.created);
        cookies
    }
}

/// Returns the value of a Cookie field with these cookies.
fn joined(cookies: &[&Cookie]) -> Vec<u8> {
    let mut line = Vec::new();
    for cookie in cookies {
        if !line.is_empty() {
            line.extend_from_slice(SEPARATOR);
        }
        cookie.write(&mut line);
    }
    line
}
