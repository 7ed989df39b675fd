//! One cookie: whether it may be stored (RFC 6265bis §5.7), and which requests carry it (§5.8.3).

use std::time::SystemTime;

use super::domain;
use super::refusal::Refusal;
use super::set_cookie::{MAX_ATTRIBUTE, MAX_LIFETIME, SetCookie, check};
use crate::proto::Scheme;

/// Where a request goes, or a response comes from: all that cookies are chosen by.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) scheme: Scheme,
    /// As [`Origin::host`](crate::Origin::host) returns it.
    pub(super) host: &'a str,
    /// Begins with a slash, and has no query.
    pub(super) path: &'a str,
}

impl<'a> Place<'a> {
    /// `path` may have a query. The asterisk-form of OPTIONS counts as `/`.
    pub(super) fn new(scheme: Scheme, host: &'a str, path: &'a str) -> Self {
        let end = path.bytes().position(|byte| matches!(byte, b'?' | b'#'));
        let path = &path[..end.unwrap_or(path.len())];
        Self {
            scheme,
            host,
            path: if path.starts_with('/') { path } else { "/" },
        }
    }

    /// Returns the path of a cookie that does not choose one (§5.1.4): the folder of the request.
    fn folder(&self) -> &'a str {
        match self.path.rfind('/') {
            None | Some(0) => "/",
            Some(last) => &self.path[..last],
        }
    }
}

/// The hosts that a cookie goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The one that set it.
    Host,
    /// The domain and all hosts in it.
    Domain,
}

pub(super) struct Cookie {
    /// Empty for a cookie without a name.
    pub(super) name: Box<[u8]>,
    pub(super) value: Box<[u8]>,
    pub(super) domain: Box<str>,
    pub(super) scope: Scope,
    pub(super) path: Box<[u8]>,
    pub(super) secure: bool,
    pub(super) http_only: bool,
    /// `None` if the cookie lasts as long as the session.
    pub(super) expires: Option<SystemTime>,
    /// Numbers the cookies in the order in which they were created. A time would not tell apart the
    /// cookies of one response.
    pub(super) created: u64,
    /// Numbers the cookies in the order in which they were last stored or chosen for a request.
    pub(super) used: u64,
}

impl Cookie {
    /// Makes a cookie from a Set-Cookie field that `from` sent.
    ///
    /// # Errors
    /// If `from` may not set this cookie, whatever else is stored.
    pub(super) fn received(
        set: &SetCookie<'_>,
        from: &Place<'_>,
        now: SystemTime,
    ) -> Result<Self, Refusal> {
        let (domain, scope) = domain_and_scope(set.domain, from.host)?;
        if set.secure && from.scheme != Scheme::Https {
            return Err(Refusal::InsecureOrigin);
        }
        if set.path.is_none() && has_prefix(set.name, HOST_PREFIX) {
            return Err(Refusal::HostPrefix);
        }
        let path = match set.path {
            Some(path) if path.starts_with(b"/") => path,
            _ => from.folder().as_bytes(),
        };
        let cookie = Self {
            name: set.name.into(),
            value: set.value.into(),
            domain: domain.into(),
            scope,
            path: path.into(),
            secure: set.secure,
            http_only: set.http_only,
            expires: set.expires(now),
            created: 0,
            used: 0,
        };
        cookie.checked(now)
    }

    /// Checks the rules that do not depend on where the cookie comes from, and limits its lifetime
    /// from `now` on.
    ///
    /// # Errors
    /// If a cookie like this may not be stored.
    pub(super) fn checked(mut self, now: SystemTime) -> Result<Self, Refusal> {
        check(&self.name, &self.value)?;
        if self.path.len() > MAX_ATTRIBUTE {
            return Err(Refusal::PathTooLong);
        }
        if self.scope == Scope::Domain && domain::is_public_suffix(&self.domain) {
            return Err(Refusal::PublicSuffix);
        }
        self.check_prefix()?;
        let latest = now.checked_add(MAX_LIFETIME);
        self.expires = self
            .expires
            .map(|at| latest.map_or(at, |latest| at.min(latest)));
        Ok(self)
    }

    /// Checks what a prefix of the name promises (§5.4). The case of the prefix does not matter,
    /// because some servers compare names without regard to it.
    fn check_prefix(&self) -> Result<(), Refusal> {
        let has_either = |text| {
            [SECURE_PREFIX, HOST_PREFIX]
                .iter()
                .any(|p| has_prefix(text, p))
        };
        // Sent without a name, such a value would look like a name with the prefix.
        if self.name.is_empty() && has_either(&self.value) {
            return Err(Refusal::NamelessPrefix);
        }
        if has_prefix(&self.name, SECURE_PREFIX) && !self.secure {
            return Err(Refusal::SecurePrefix);
        }
        let is_bound = self.secure && self.scope == Scope::Host && *self.path == *b"/";
        if has_prefix(&self.name, HOST_PREFIX) && !is_bound {
            return Err(Refusal::HostPrefix);
        }
        Ok(())
    }

    /// Returns whether this cookie replaces `old`, or is replaced by it (§5.7).
    pub(super) fn is_same(&self, old: &Cookie) -> bool {
        self.name == old.name
            && self.domain == old.domain
            && self.scope == old.scope
            && self.path == old.path
    }

    /// Returns whether requests that carried `old` carry the same bytes with this cookie in its
    /// place, for as long as they would have carried `old`.
    pub(super) fn renews(&self, old: &Cookie) -> bool {
        let lasts = match (self.expires, old.expires) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(new), Some(old)) => new >= old,
        };
        lasts && self.is_same(old) && self.value == old.value && self.secure == old.secure
    }

    /// Returns whether a cookie set over http, as this one, would take the place of `old`, a Secure
    /// cookie, or be sent beside it in a request that carries it (§5.7).
    pub(super) fn shadows(&self, old: &Cookie) -> bool {
        old.secure
            && self.name == old.name
            && (domain::includes(&self.domain, &old.domain)
                || domain::includes(&old.domain, &self.domain))
            && path_matches(&old.path, &self.path)
    }

    pub(super) fn is_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// Returns whether the cookie goes to this host, if scheme, path and time agree.
    pub(super) fn is_for_host(&self, host: &str) -> bool {
        match self.scope {
            Scope::Host => *self.domain == *host,
            Scope::Domain => domain::includes(&self.domain, host),
        }
    }

    /// Returns whether a request to `place` carries this cookie (§5.8.3).
    pub(super) fn goes_to(&self, place: &Place<'_>, now: SystemTime) -> bool {
        self.is_for_host(place.host)
            && path_matches(&self.path, place.path.as_bytes())
            && (!self.secure || place.scheme == Scheme::Https)
            && !self.is_expired(now)
    }

    /// Returns how many bytes [`write`](Self::write) adds.
    pub(super) fn written_len(&self) -> usize {
        let equals = usize::from(!self.name.is_empty());
        self.name.len() + equals + self.value.len()
    }

    /// Writes `name=value`, or the value alone for a cookie without a name (§5.8.3).
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        if !self.name.is_empty() {
            out.extend_from_slice(&self.name);
            out.push(b'=');
        }
        out.extend_from_slice(&self.value);
    }
}

const SECURE_PREFIX: &[u8] = b"__Secure-";
const HOST_PREFIX: &[u8] = b"__Host-";

fn has_prefix(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Returns the domain of a cookie that `host` sets with this Domain attribute (§5.7).
fn domain_and_scope(attribute: &[u8], host: &str) -> Result<(String, Scope), Refusal> {
    let domain = str::from_utf8(attribute)
        .ok()
        .filter(|domain| domain.is_ascii());
    let domain = domain.ok_or(Refusal::DomainNotAscii)?.to_ascii_lowercase();
    let has_hosts = !domain::is_address(host) && !domain::is_public_suffix(host);
    if domain.is_empty() || domain == host {
        let is_domain = !domain.is_empty() && has_hosts;
        let scope = if is_domain {
            Scope::Domain
        } else {
            Scope::Host
        };
        return Ok((host.to_owned(), scope));
    }
    if !domain::includes(&domain, host) {
        return Err(Refusal::OtherDomain);
    }
    // A domain above a public suffix need not be one itself: `s3.amazonaws.com` is in the list, but
    // `amazonaws.com` is not. Hosts of different registrants have that domain in common, so looking
    // up the domain alone, as the RFC does, is not enough.
    if domain::site(&domain) != domain::site(host) || domain::is_public_suffix(&domain) {
        return Err(Refusal::PublicSuffix);
    }
    Ok((domain, Scope::Domain))
}

/// Returns whether a cookie of this path goes to a request of that path (§5.1.4).
fn path_matches(cookie: &[u8], request: &[u8]) -> bool {
    request
        .strip_prefix(cookie)
        .is_some_and(|rest| rest.is_empty() || cookie.ends_with(b"/") || rest.starts_with(b"/"))
}
