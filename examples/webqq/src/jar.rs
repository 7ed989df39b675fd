//! A cookie jar: stores the cookies that servers set, and returns those for a request (RFC 6265).
//!
//! There is one jar per account, whichever connections its requests use. The Cookie field of a
//! request is built each time the request is sent, because cookies may change while it waits. Time
//! is an argument, counted from the Unix epoch.
//!
//! Where RFC 6265 leaves a choice, or its successor (6265bis) has another rule:
//! - A Secure cookie may be set over http, which 6265bis forbids. The bot uses http instead of
//!   https with a server without TLS, and would lose its login. The cookie is returned if the
//!   caller says `secure`.
//! - A cookie without a name is ignored.
//! - There is no list of public suffixes: a Domain of one label (`com`) counts as one, `co.uk` does
//!   not. The bot connects to known servers only.
//! - As in 6265bis, a line with a control character other than HTAB is refused, and an attribute of
//!   over 1024 bytes is ignored.
//! - A name or value that is not UTF-8 is refused, because the field is a string.

use std::cmp::Reverse;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Of name and value together.
const MAX_COOKIE_BYTES: usize = 4096;
const MAX_ATTRIBUTE_BYTES: usize = 1024;
const MAX_PER_DOMAIN: usize = 50;
/// About what servers accept in one field. If there are too many cookies, those with the shortest
/// paths are left out.
const MAX_FIELD_BYTES: usize = 16 * 1024;

/// The cookies of one account. Its `Debug` output shows names but no values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jar {
    /// In order of creation. A cookie that replaces another keeps its position, and so its age.
    cookies: Vec<Cookie>,
    /// The number of cookies written so far.
    writes: u64,
}

impl Jar {
    /// Stores the cookies that a response from `host` to a request for `path` sets, given the
    /// values of its Set-Cookie fields.
    ///
    /// `host` has no port; `path` may include a query. Values that cannot be parsed are ignored.
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

    /// Returns the value of the Cookie field for a request to `host` for `path`, if there is one
    /// (RFC 6265 §5.4).
    ///
    /// Secure cookies are included if `secure` is set.
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
        // Longer paths first. The sort is stable, so older cookies precede newer ones of the same
        // length.
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

    /// Returns the value last written under this name, whatever its domain and path.
    pub(crate) fn get(&self, name: &str, now: Duration) -> Option<&str> {
        let named = self
            .cookies
            .iter()
            .filter(|cookie| cookie.name == name && cookie.is_live(now));
        Some(&named.max_by_key(|cookie| cookie.written)?.value)
    }

    /// Stores a cookie that did not come from a Set-Cookie field, for `domain` and all hosts below
    /// it, without an expiry.
    ///
    /// As with [`store`](Self::store), a cookie that could not be sent back is ignored.
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

    /// Replaces the same cookie or adds a new one. A full domain loses the cookie that was written
    /// longest ago (RFC 6265 §5.3, steps 11 and 12).
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
    /// Not sent to hosts below `domain`.
    host_only: bool,
    path: String,
    name: String,
    value: String,
    /// `None` if the cookie lives as long as the jar.
    expires: Option<Duration>,
    secure: bool,
    /// The number of the jar's write that stored this cookie.
    written: u64,
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}{}", self.name, self.domain, self.path)
    }
}

impl Cookie {
    /// Parses a Set-Cookie value (RFC 6265 §5.2) and determines where the cookie belongs (§5.3,
    /// steps 1 to 10). Returns `None` if it is to be ignored.
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

        // If an attribute is repeated, the last one counts.
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
                // HttpOnly only matters to browsers, where it hides the cookie from scripts.
                _ => {}
            }
        }
        cookie.expires = max_age.or(expires);
        let path = path.unwrap_or_else(|| default_path(path_of(request_path)));
        cookie.path = path.to_owned();
        cookie.domain = domain.to_ascii_lowercase();

        let host = host.to_ascii_lowercase();
        let is_suffix = !cookie.domain.contains('.');
        if cookie.domain.is_empty() || (is_suffix && cookie.domain == host) {
            // No domain was given, or that of a host of one label (step 5).
            cookie.host_only = true;
            cookie.domain = host;
        } else if is_suffix || !domain_matches(&host, &cookie.domain) {
            return None;
        }
        Some(cookie)
    }

    /// Whether the cookie has not expired. It expires at `expires` exactly, so Max-Age=0 deletes at
    /// once.
    fn is_live(&self, now: Duration) -> bool {
        self.expires.is_none_or(|at| now < at)
    }

    /// Whether one replaces the other. A domain may have the same name under several paths.
    fn is_same(&self, other: &Self) -> bool {
        (&self.name, &self.domain, &self.path) == (&other.name, &other.domain, &other.path)
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Domain matching (RFC 6265 §5.1.3), with both in lower case. An IP address has no parent domain:
/// 10.0.0.1 is not in 0.0.1.
fn domain_matches(host: &str, domain: &str) -> bool {
    // No top-level domain is a number, so a numeric last label recognizes short forms (127.1) as
    // well. A host with a trailing dot counts as an address, too: `com.` is as public as `com`.
    let last_label = host.rsplit('.').next().unwrap_or(host);
    let is_address = host.contains(':') || last_label.bytes().all(|b| b.is_ascii_digit());
    let below = host.strip_suffix(domain);
    host == domain || (!is_address && below.is_some_and(|rest| rest.ends_with('.')))
}

/// Returns the path of a request target, `/` if it has none.
fn path_of(target: &str) -> &str {
    let path = target.split(['?', '#']).next().unwrap_or(target);
    if path.starts_with('/') { path } else { "/" }
}

/// Returns everything before the last slash (RFC 6265 §5.1.4).
fn default_path(path: &str) -> &str {
    let before = path.rsplit_once('/').map_or("", |(before, _)| before);
    if before.is_empty() { "/" } else { before }
}

/// Path matching (RFC 6265 §5.1.4): /a matches /a/b, but not /ab.
fn path_matches(path: &str, wanted: &str) -> bool {
    let rest = path.strip_prefix(wanted);
    rest.is_some_and(|rest| rest.is_empty() || wanted.ends_with('/') || rest.starts_with('/'))
}

/// Returns when a cookie of this Max-Age expires (RFC 6265 §5.2.2), if it is a number.
fn expiry(max_age: &str, now: Duration) -> Option<Duration> {
    let digits = max_age.strip_prefix('-').unwrap_or(max_age);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if digits.len() < max_age.len() {
        return Some(Duration::ZERO);
    }
    // Only its size can be invalid now.
    let age = Duration::from_secs(digits.parse().unwrap_or(u64::MAX));
    Some(now.saturating_add(age))
}

/// 1970-01-01, in seconds since March 1 of the year 0.
const EPOCH: u64 = 719_468 * 24 * 60 * 60;

/// Parses a date in any of the forms that servers send (RFC 6265 §5.1.1). Dates before the epoch
/// become the epoch.
fn cookie_date(text: &str) -> Option<Duration> {
    let is_delimiter = |c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && c != ':';
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(is_delimiter) {
        let number = |digits| leading_number(token, digits).map(|(number, _)| number);
        // A token counts as the first of these that it can be and that is still missing.
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
    // In years that begin in March, the leap day is the last day, and five months have 153 days.
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

/// Splits off a leading number with that many digits.
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

/// Returns the month, from 1, by its first three letters.
fn month_of_year(token: &str) -> Option<u64> {
    let start = token.get(..3)?.as_bytes();
    let mut names = b"janfebmaraprmayjunjulaugsepoctnovdec".chunks(3);
    Some(names.position(|name| name.eq_ignore_ascii_case(start))? as u64 + 1)
}
