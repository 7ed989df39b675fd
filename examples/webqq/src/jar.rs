//! A cookie jar: what servers set, and what goes back to them (RFC 6265).
//!
//! One jar per account, whatever connections its requests take. A request asks for its Cookie field
//! each time it is sent: one that is sent for hours must not say what was true at first. Time is an
//! argument, and counts from the epoch.
//!
//! Where RFC 6265 leaves a choice, or its successor (6265bis) has another rule:
//! - A Secure cookie may be set over http, which 6265bis forbids: to a server without TLS the bot
//!   speaks http where https is meant, and would lose its login. It goes back where the caller says
//!   `secure`.
//! - A cookie without a name is ignored.
//! - There is no list of public suffixes: a Domain of one label (`com`) is one, `co.uk` is not. The
//!   bot knows whom it talks to.
//! - As in 6265bis, a control other than HTAB anywhere in a line makes it be refused, and an
//!   attribute of over 1024 bytes is ignored.
//! - A name or value that is not UTF-8 is refused: the field is a string.

use std::cmp::Reverse;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Name and value together.
const MAX_COOKIE_BYTES: usize = 4096;
const MAX_ATTRIBUTE_BYTES: usize = 1024;
const MAX_PER_DOMAIN: usize = 50;
/// What servers take in one field, about: the cookies of shorter paths are left out where there are
/// too many.
const MAX_FIELD_BYTES: usize = 16 * 1024;

/// The cookies of one account. Its `Debug` shows names and no values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jar {
    /// In the order of creation; one that replaces another takes its place, and so its age.
    cookies: Vec<Cookie>,
    /// How many cookies were written so far.
    writes: u64,
}

impl Jar {
    /// Stores what a response from `host` to a request for `path` sets, given the values of its
    /// Set-Cookie fields.
    ///
    /// The host is without port; a query behind the path does no harm. What cannot be understood is
    /// ignored.
    pub(crate) fn store<'a>(
        &mut self,
        host: &str,
        path: &str,
        set_cookie: impl IntoIterator<Item = &'a [u8]>,
        now: Duration,
    ) {
        self.cookies.retain(|cookie| cookie.is_live(now));
        for line in set_cookie {
            match Cookie::parse(line, host, path, now) {
                Some(cookie) if cookie.is_live(now) => self.put(cookie),
                Some(expired) => self.cookies.retain(|old| !old.is_same(&expired)),
                None => {}
            }
        }
    }

    /// The Cookie field's value for a request to `host` for `path`, if there is one (RFC 6265
    /// §5.4).
    ///
    /// With `secure`, Secure cookies go along.
    pub(crate) fn header(
        &self,
        host: &str,
        path: &str,
        secure: bool,
        now: Duration,
    ) -> Option<String> {
        let (host, path) = (host.to_ascii_lowercase(), path_of(path));
        let goes_along = |cookie: &&Cookie| {
            let at_home = host == cookie.domain;
            cookie.is_live(now)
                && (at_home || (!cookie.host_only && domain_matches(&host, &cookie.domain)))
                && path_matches(path, &cookie.path)
                && (secure || !cookie.secure)
        };
        let mut chosen: Vec<&Cookie> = self.cookies.iter().filter(goes_along).collect();
        // Longer paths first. The sort is stable: among equals, the older first.
        chosen.sort_by_key(|cookie| Reverse(cookie.path.len()));
        let mut field = String::new();
        for Cookie { name, value, .. } in chosen {
            if field.len() + name.len() + value.len() > MAX_FIELD_BYTES {
                break;
            }
            let separator = if field.is_empty() { "" } else { "; " };
            field.push_str(&format!("{separator}{name}={value}"));
        }
        (!field.is_empty()).then_some(field)
    }

    /// The value written last under this name, whatever its domain and path.
    pub(crate) fn get(&self, name: &str, now: Duration) -> Option<&str> {
        let named = self
            .cookies
            .iter()
            .filter(|cookie| cookie.name == name && cookie.is_live(now));
        Some(&named.max_by_key(|cookie| cookie.written)?.value)
    }

    /// Stores what did not come in a Set-Cookie field, for `domain` and all hosts below, without an
    /// end.
    ///
    /// As with [`store`](Self::store), what could not be sent back is ignored.
    pub(crate) fn set(&mut self, domain: &str, name: &str, value: &str) {
        let domain = domain.strip_prefix('.').unwrap_or(domain);
        let line = format!("{name}={value}; Domain={domain}; Path=/");
        let breaks_out = name.contains(['=', ';']) || value.contains(';');
        let cookie = Cookie::parse(line.as_bytes(), domain, "/", Duration::ZERO);
        if let Some(cookie) = cookie.filter(|_| !breaks_out) {
            self.put(cookie);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.cookies.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.cookies.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.cookies.is_empty()
    }

    /// Replaces, or adds and makes room: in a full domain, what was not written for longest goes
    /// (RFC 6265 §5.3, steps 11 and 12).
    fn put(&mut self, mut cookie: Cookie) {
        self.writes += 1;
        cookie.written = self.writes;
        if let Some(old) = self.cookies.iter_mut().find(|old| old.is_same(&cookie)) {
            *old = cookie;
            return;
        }
        let near = self
            .cookies
            .iter()
            .filter(|old| old.domain == cookie.domain);
        let near: Vec<u64> = near.map(|old| old.written).collect();
        if near.len() >= MAX_PER_DOMAIN {
            let stalest = near.into_iter().min();
            self.cookies.retain(|old| Some(old.written) != stalest);
        }
        self.cookies.push(cookie);
    }
}

#[derive(Clone, Default)]
struct Cookie {
    /// In lower case, without a leading dot.
    domain: String,
    /// It goes to no host below.
    host_only: bool,
    path: String,
    name: String,
    value: String,
    /// `None`: as long as the jar lives.
    expires: Option<Duration>,
    secure: bool,
    /// Which of the jar's writes this was.
    written: u64,
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}{}", self.name, self.domain, self.path)
    }
}

impl Cookie {
    /// Reads a Set-Cookie value (RFC 6265 §5.2) and decides where it belongs (§5.3, steps 1 to 10).
    /// `None`: it is ignored.
    fn parse(line: &[u8], host: &str, request_path: &str, now: Duration) -> Option<Self> {
        if line.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
            return None;
        }
        let pair_ends = line.iter().position(|b| *b == b';').unwrap_or(line.len());
        let (pair, attributes) = line.split_at(pair_ends);
        let (name, value) = str::from_utf8(pair).ok()?.split_once('=')?;
        let (name, value) = (trim(name), trim(value));
        if name.is_empty() || name.len() + value.len() > MAX_COOKIE_BYTES {
            return None;
        }
        let mut cookie = Self {
            name: name.to_owned(),
            value: value.to_owned(),
            ..Self::default()
        };

        // Of an attribute given twice, the last one counts.
        let (mut domain, mut path, mut max_age, mut expires) = ("", None, None, None);
        let attributes = String::from_utf8_lossy(attributes);
        for attribute in attributes.split(';') {
            let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            let value = trim(value);
            match trim(name).to_ascii_lowercase().as_str() {
                _ if value.len() > MAX_ATTRIBUTE_BYTES => {}
                "expires" => expires = cookie_date(value).or(expires),
                "max-age" => max_age = expiry(value, now).or(max_age),
                "domain" if value.is_empty() => {}
                "domain" => domain = value.strip_prefix('.').unwrap_or(value),
                "path" => path = Some(value).filter(|path| path.starts_with('/')),
                "secure" => cookie.secure = true,
                _ => {} // HttpOnly is for browsers: it keeps scripts off.
            }
        }
        cookie.expires = max_age.or(expires);
        let path = path.unwrap_or_else(|| default_path(path_of(request_path)));
        cookie.path = path.to_owned();
        cookie.domain = domain.to_ascii_lowercase();

        let host = host.to_ascii_lowercase();
        let is_suffix = !cookie.domain.contains('.');
        if cookie.domain.is_empty() || (is_suffix && cookie.domain == host) {
            // None is named, or that of a host of one label (step 5).
            cookie.host_only = true;
            cookie.domain = host;
        } else if is_suffix || !domain_matches(&host, &cookie.domain) {
            return None;
        }
        Some(cookie)
    }

    /// In its last moment it is not: Max-Age=0 deletes at once.
    fn is_live(&self, now: Duration) -> bool {
        self.expires.is_none_or(|at| now < at)
    }

    /// Whether one replaces the other. The same name may stand in a domain under several paths.
    fn is_same(&self, other: &Self) -> bool {
        (&self.name, &self.domain, &self.path) == (&other.name, &other.domain, &other.path)
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// RFC 6265 §5.1.3, both in lower case. An IP address has nothing above it: 10.0.0.1 is not in
/// 0.0.1.
fn domain_matches(host: &str, domain: &str) -> bool {
    // No top-level domain is a number, so the short forms (127.1) are recognised as well. With a
    // dot at its end, a host is taken for one, too: `com.` is as public as `com`.
    let last_label = host.rsplit('.').next().unwrap_or(host);
    let is_address = host.contains(':') || last_label.bytes().all(|b| b.is_ascii_digit());
    let below = host.strip_suffix(domain);
    host == domain || (!is_address && below.is_some_and(|rest| rest.ends_with('.')))
}

/// The path of a request target, `/` for none.
fn path_of(target: &str) -> &str {
    let path = target.split(['?', '#']).next().unwrap_or(target);
    if path.starts_with('/') { path } else { "/" }
}

/// Everything before the last slash (RFC 6265 §5.1.4).
fn default_path(path: &str) -> &str {
    let before = path.rsplit_once('/').map_or("", |(before, _)| before);
    if before.is_empty() { "/" } else { before }
}

/// RFC 6265 §5.1.4: /a is for /a/b, and not for /ab.
fn path_matches(path: &str, wanted: &str) -> bool {
    let rest = path.strip_prefix(wanted);
    rest.is_some_and(|rest| rest.is_empty() || wanted.ends_with('/') || rest.starts_with('/'))
}

/// When a cookie of this Max-Age expires (RFC 6265 §5.2.2), if it is a number.
fn expiry(max_age: &str, now: Duration) -> Option<Duration> {
    let digits = max_age.strip_prefix('-').unwrap_or(max_age);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if digits.len() < max_age.len() {
        return Some(Duration::ZERO);
    }
    // What can still be wrong with it is its size.
    let age = Duration::from_secs(digits.parse().unwrap_or(u64::MAX));
    Some(now.saturating_add(age))
}

/// 1970, in seconds since the first of March of the year 0.
const EPOCH: u64 = 719_468 * 24 * 60 * 60;

/// Reads a date in any of the forms that servers send (RFC 6265 §5.1.1). What was before the epoch
/// was long ago, as the epoch is.
fn cookie_date(text: &str) -> Option<Duration> {
    let is_delimiter = |c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && c != ':';
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(is_delimiter) {
        let number = |digits| leading_number(token, digits).map(|(number, _)| number);
        // A token is the first of these that it can be and that is still missing.
        let _ = fill(&mut time, time_of_day(token))
            || fill(&mut day, number(1..=2))
            || fill(&mut month, month_of_year(token))
            || fill(&mut year, number(2..=4));
    }
    let ([hour, minute, second], day, month) = (time?, day?, month?);
    let year = match year? {
        short @ 0..=69 => short + 2000,
        short @ 70..=99 => short + 1900,
        year => year,
    };
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last_day = match month {
        2 => 28 + u64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if year < 1601 || !(1..=last_day).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // In years that begin in March, the leap day is the last one, and months have 153 days in five.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(Duration::from_secs(seconds.saturating_sub(EPOCH)))
}

fn fill<T>(missing: &mut Option<T>, found: Option<T>) -> bool {
    missing.is_none() && found.map(|found| *missing = Some(found)).is_some()
}

/// A number of so many digits, and what follows.
fn leading_number(token: &str, digits: RangeInclusive<usize>) -> Option<(u64, &str)> {
    let is_other = |c: char| !c.is_ascii_digit();
    let count = token.find(is_other).unwrap_or(token.len());
    let (number, rest) = token.split_at(count);
    let number = number.parse().ok()?;
    digits.contains(&count).then_some((number, rest))
}

fn time_of_day(token: &str) -> Option<[u64; 3]> {
    let (hour, rest) = leading_number(token, 1..=2)?;
    let (minute, rest) = leading_number(rest.strip_prefix(':')?, 1..=2)?;
    let (second, _) = leading_number(rest.strip_prefix(':')?, 1..=2)?;
    Some([hour, minute, second])
}

/// From 1, by its first three letters.
fn month_of_year(token: &str) -> Option<u64> {
    let start = token.get(..3)?.as_bytes();
    let mut names = b"janfebmaraprmayjunjulaugsepoctnovdec".chunks(3);
    Some(names.position(|name| name.eq_ignore_ascii_case(start))? as u64 + 1)
}
