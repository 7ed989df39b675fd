//! The cookies that the server sets, and the check that a client stores and returns them as RFC
//! 6265 says.

use super::wire::{Call, Scheme};

/// Returns the value of the cookie `name` in `call`.
pub(crate) fn brought<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    let headers = call.headers.iter().filter(|(header, _)| header == "cookie");
    let mut pairs = headers
        .flat_map(|(_, value)| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|&(n, _)| n == name).map(|(_, value)| value)
}

#[derive(Clone, Debug)]
pub(crate) struct Cookie {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) scope: Scope,
    pub(crate) path: &'static str,
    pub(crate) life: Life,
    pub(crate) reach: Reach,
}

/// The hosts that a cookie is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope {
    /// The host that sets it: no Domain.
    Host(&'static str),
    Domain(&'static str),
    /// A domain for which its host may not set cookies: a jar must ignore it.
    Barred(&'static str),
}

/// The requests that may carry a cookie.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reach {
    All,
    /// Requests over TLS only.
    Secure,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Life {
    Session,
    MaxAge(u32),
    /// It has expired when it arrives.
    Gone,
}

impl Cookie {
    pub(crate) fn new(name: impl Into<String>, value: impl Into<String>, scope: Scope) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            scope,
            path: "/",
            life: Life::Session,
            reach: Reach::All,
        }
    }

    pub(crate) fn path(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    pub(crate) fn life(self, life: Life) -> Self {
        Self { life, ..self }
    }

    pub(crate) fn secure(self) -> Self {
        Self {
            reach: Reach::Secure,
            ..self
        }
    }

    /// Returns the value of Set-Cookie, in the spelling of old servers.
    pub(crate) fn line(&self) -> String {
        let Self {
            name, value, path, ..
        } = self;
        let life = match self.life {
            Life::Session => String::new(),
            Life::MaxAge(seconds) => format!("MAX-AGE={seconds};"),
            Life::Gone => "EXPIRES=Fri, 02-Jan-2020 00:00:00 GMT;".into(),
        };
        let domain = match self.scope {
            Scope::Host(_) => String::new(),
            Scope::Domain(domain) | Scope::Barred(domain) => format!("DOMAIN={domain};"),
        };
        let reach = match self.reach {
            Reach::All => "",
            Reach::Secure => "SECURE;",
        };
        format!("{name}={value};{life}PATH={path};{domain}{reach}")
    }

    /// RFC 6265 §5.4, step 1.
    fn belongs_to(&self, call: &Call) -> bool {
        let host_fits = match self.scope {
            Scope::Host(host) => call.host == host,
            Scope::Domain(domain) => {
                let domain = domain.trim_start_matches('.');
                let rest = call.host.strip_suffix(domain);
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Scope::Barred(_) => false,
        };
        let scheme_fits = match self.reach {
            Reach::All => true,
            Reach::Secure => call.scheme == Scheme::Https,
        };
        host_fits
            && scheme_fits
            && path_matches(&call.path, self.path)
            && !matches!(self.life, Life::Gone)
    }
}

/// Path matching (RFC 6265 §5.1.4).
fn path_matches(path: &str, cookie_path: &str) -> bool {
    let rest = path.strip_prefix(cookie_path);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || cookie_path.ends_with('/'))
}

/// The cookies that an account's client has been given, each with the login that set it.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Vec<(u64, Cookie)>);

impl Shelf {
    pub(crate) fn put(&mut self, login: u64, cookie: &Cookie) {
        self.0.retain(|(_, old)| old.name != cookie.name);
        self.0.push((login, cookie.clone()));
    }

    /// Checks that `call` carries all cookies that it must, and none that it must not. Cookies of
    /// an earlier login may be present or missing, since a client may start with an empty jar.
    pub(crate) fn check(&self, call: &Call, login: u64) -> Result<(), String> {
        for (given_at, cookie) in &self.0 {
            let name = &cookie.name;
            let value = brought(call, name);
            let belongs = cookie.belongs_to(call);
            if value.is_some() && !belongs {
                return Err(format!(
                    "cookie {name} does not belong to {}{}",
                    call.host, call.path
                ));
            }
            if belongs && *given_at == login && value != Some(&cookie.value) {
                return Err(format!("cookie {name} is missing or wrong"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Cookie, Life, Scope};
    use crate::server::wire::Call;

    fn call(host: &str, path: &str) -> Call {
        Call {
            host: host.into(),
            path: path.into(),
            ..Call::default()
        }
    }

    #[test]
    fn cookies_go_where_rfc_6265_sends_them() {
        let wide = Cookie::new("a", "1", Scope::Domain(".web2.qq.com")).path("/channel");
        let own = Cookie::new("a", "1", Scope::Host("web2.qq.com"));
        let barred = Cookie::new("a", "1", Scope::Barred("qq.example"));
        let gone = own.clone().life(Life::Gone);
        for (cookie, host, path, belongs) in [
            (&wide, "d.web2.qq.com", "/channel/poll2", true),
            (&wide, "web2.qq.com", "/channel", true),
            (&wide, "notweb2.qq.com", "/channel", false),
            (&wide, "d.web2.qq.com", "/channels", false),
            (&own, "web2.qq.com", "/x", true),
            (&own, "d.web2.qq.com", "/x", false),
            (&barred, "qq.example", "/x", false),
            (&gone, "web2.qq.com", "/x", false),
        ] {
            assert_eq!(
                cookie.belongs_to(&call(host, path)),
                belongs,
                "{cookie:?} {host}{path}"
            );
        }
        assert_eq!(
            gone.line(),
            "a=1;EXPIRES=Fri, 02-Jan-2020 00:00:00 GMT;PATH=/;"
        );
    }
}
