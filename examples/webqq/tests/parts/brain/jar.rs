//! The client's jar: as much of RFC 6265 as the server requires, written independently of the
//! example's jar.

use crate::server::{Answer, Scheme};

/// A cookie in the jar.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) value: String,
    /// With a leading dot if sub-domains get it, too.
    pub(crate) domain: String,
    pub(crate) path: String,
    pub(crate) is_secure: bool,
}

impl Kept {
    fn is_for(&self, host: &str) -> bool {
        match self.domain.strip_prefix('.') {
            Some(domain) => host == domain || host.ends_with(&self.domain),
            None => host == self.domain,
        }
    }

    pub(crate) fn belongs_to(&self, scheme: Scheme, host: &str, path: &str) -> bool {
        let rest = path.strip_prefix(self.path.as_str());
        self.is_for(host)
            && (scheme == Scheme::Https || !self.is_secure)
            && rest.is_some_and(|r| r.is_empty() || r.starts_with('/') || self.path.ends_with('/'))
    }
}

/// Keeps the cookies that `host` may set.
pub(crate) fn keep(jar: &mut Vec<Kept>, host: &str, answer: &Answer) {
    let lines = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "set-cookie");
    for (_, line) in lines {
        let (kept, is_good) = read(host, line);
        let key = |kept: &Kept| (kept.name.clone(), kept.domain.clone(), kept.path.clone());
        jar.retain(|old| key(old) != key(&kept));
        if is_good {
            jar.push(kept);
        }
    }
}

/// Parses a Set-Cookie line, and returns the cookie and whether to keep it.
fn read(host: &str, line: &str) -> (Kept, bool) {
    let (pair, attributes) = line.split_once(';').unwrap_or((line, ""));
    let (name, value) = pair.split_once('=').unwrap();
    let mut kept = Kept {
        name: name.into(),
        value: value.into(),
        domain: host.into(),
        path: "/".into(),
        is_secure: false,
    };
    let mut is_good = true;
    for attribute in attributes.split(';') {
        let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "domain" => {
                kept.domain = format!(".{}", value.trim_start_matches('.'));
                is_good &= kept.is_for(host);
            }
            "path" => kept.path = value.into(),
            "secure" => kept.is_secure = true,
            "expires" => is_good = false, // all of them have expired
            _ => {}
        }
    }
    (kept, is_good)
}
