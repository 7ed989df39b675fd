//! Builds sessions, and checks their settings.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::builder::url::IntoUrl;
use crate::error::Error;
use crate::generation::Generation;
use crate::policy::{Fields, Policies, Policy, both};
use crate::request::Request;
use crate::session::auth::Auth;
use crate::session::decode::Decode;
use crate::session::jar::Jar;
use crate::session::rate::Rate;
use crate::session::redirects::Redirects;
use crate::session::retry::Retry;
use crate::session::rules::Rules;
use crate::session::visit::Visits;
use crate::session::{Inner, Session};

/// Builds a [`Session`] that does only what it is told to. [`build`](Self::build) reports the first
/// mistake.
///
/// ```
/// use std::time::Duration;
/// use httpstream::session::{Auth, Jar, Redirects, Session};
///
/// let session = Session::builder()
///     .base("https://api.example.com/v1/")
///     .user_agent("bot/1.0")
///     .header("Accept", "application/json")
///     .auth(Auth::bearer("mF_9.B5f-4.1JqM"))
///     .redirects(Redirects::limited(10))
///     .total(Duration::from_secs(60))
///     .build()?;
/// let request = session.get("users").build()?;
/// assert_eq!(request.uri(), "https://api.example.com/v1/users");
/// # Ok::<(), httpstream::Error>(())
/// ```
#[must_use = "a session is checked and made by `build`"]
pub struct SessionBuilder {
    rules: Rules,
    base: Option<Result<Request, Error>>,
    inner: Option<Arc<dyn Policy>>,
    /// Names of settings that this version does not provide.
    missing: Vec<&'static str>,
}

impl SessionBuilder {
    pub(super) fn new() -> Self {
        Self {
            rules: Rules::default(),
            base: None,
            inner: None,
            missing: Vec::new(),
        }
    }

    /// Sets the URL that the session's requests are relative to: see [`Session::get`]. Its path
    /// counts as a directory, with or without a slash at its end. A query is refused.
    ///
    /// The session's headers and credentials are for the origin of this URL. Credentials in it
    /// (`user:password@`) are sent as by [`Auth::basic`].
    pub fn base<Form>(mut self, url: impl IntoUrl<Form>) -> Self {
        self.base = Some(Request::get(url).build());
        self
    }

    /// Sets the User-Agent field of all requests that do not have their own, in place of
    /// [`Config::user_agent`](crate::Config::user_agent).
    pub fn user_agent(mut self, text: impl AsRef<str>) -> Self {
        self.rules.user_agent = Some(text.as_ref().into());
        self
    }

    /// Adds a field to the requests that do not have it themselves.
    ///
    /// The field goes only to the origin of the [base](Self::base) or, without one, to the origin
    /// at which a request starts. After a redirect to another origin, it is no longer sent. The
    /// fields of framing and connection are refused, as by [`Fields::add`].
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = (name.as_ref().into(), value.as_ref().into());
        self.rules.headers.push((name, value));
        self
    }

    /// Follows redirects. Without this setting, they are delivered like other responses.
    pub fn redirects(mut self, redirects: Redirects) -> Self {
        self.rules.redirects = Some(redirects);
        self
    }

    /// Keeps cookies in `jar`: stores those that responses set, and sends those that are for the
    /// request. They are chosen for each attempt and each redirect. A request with a Cookie field
    /// of its own, or one of the session's [headers](Self::header), keeps it and sends no others.
    ///
    /// Several sessions may share a jar. Without the feature `cookies`, [`build`](Self::build)
    /// refuses any jar.
    pub fn cookies(mut self, jar: Jar) -> Self {
        self.rules.jar = Some(jar);
        self
    }

    /// Decodes content codings. Not available yet: [`build`](Self::build) refuses it.
    pub fn decode(mut self, _: Decode) -> Self {
        self.missing.push("decode");
        self
    }

    /// Sends credentials to the origin set by [`Auth::at`], or else to that of the
    /// [base](Self::base); without either, [`build`](Self::build) refuses them. They are not sent
    /// after a redirect to another origin, even if that is theirs. A request with an Authorization
    /// field of its own keeps it.
    pub fn auth(mut self, auth: Auth) -> Self {
        self.rules.auth = Some(auth);
        self
    }

    /// Sends failed requests again. Not available yet: [`build`](Self::build) refuses it.
    pub fn retry(mut self, _: Retry) -> Self {
        self.missing.push("retry");
        self
    }

    /// Limits how often requests are sent. Not available yet: [`build`](Self::build) refuses it.
    pub fn rate(mut self, _: Rate) -> Self {
        self.missing.push("rate");
        self
    }

    /// Limits how often the requests of each [lane](crate::RequestBuilder::lane) are sent. Not
    /// available yet: [`build`](Self::build) refuses it.
    pub fn lane_rate(mut self, _: Rate) -> Self {
        self.missing.push("lane_rate");
        self
    }

    /// Limits how many requests of a [lane](crate::RequestBuilder::lane) run at once. Not available
    /// yet: [`build`](Self::build) refuses it.
    pub fn lane_concurrency(mut self, _: usize) -> Self {
        self.missing.push("lane_concurrency");
        self
    }

    /// Sets how long a request may take in total, redirects included. By default, the engine's
    /// [`Timeouts::total`](crate::Timeouts::total) applies. A request that sets
    /// [its own](crate::RequestBuilder::timeout) keeps that, and
    /// [`long_poll`](crate::RequestBuilder::long_poll) raises this one as it raises the engine's.
    pub fn total(mut self, total: Duration) -> Self {
        self.rules.total = Some(total);
        self
    }

    /// Turns responses with a status of 400 or more into errors of kind
    /// [`Status`](crate::ErrorKind::Status), made by [`Error::of_status`].
    pub fn error_for_status(mut self, yes: bool) -> Self {
        self.rules.error_for_status = yes;
        self
    }

    /// Nests another policy inside the session: one that signs requests, for example. It is called
    /// for every exchange, also for those at other origins that a redirect leads to: a policy that
    /// adds a secret checks first where the request [goes](crate::Request::goes_to). A policy of a
    /// request itself
    /// ([`RequestBuilder::policy`](crate::RequestBuilder::policy)) is nested inside this one.
    pub fn policy(mut self, inner: Arc<dyn Policy>) -> Self {
        self.inner = Some(inner);
        self
    }

    /// Checks the settings and makes the session.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig), with the setting that was
    /// wrong. It does not show values, which may be secrets.
    pub fn build(self) -> Result<Session, Error> {
        let Self {
            mut rules,
            base,
            inner,
            missing,
        } = self;
        if let Some(name) = missing.first() {
            return Err(invalid(format!("{name}: not available in this version")));
        }
        let base = match base {
            Some(base) => Some(check_base(base?, &mut rules)?),
            None => None,
        };
        check_fields(&rules)?;
        check_auth(&rules)?;
        if let (Some(auth), Some(base)) = (&rules.auth, &rules.base) {
            rules.auth = Some(auth.bound_to(base));
        }
        if rules.jar.is_some() && !cfg!(feature = "cookies") {
            return Err(invalid("cookies: needs the feature `cookies`"));
        }
        let rules = Arc::new(rules);
        let visits: Arc<dyn Policy> = Arc::new(Visits(Arc::clone(&rules)));
        let is_brief = inner.is_none() && !rules.runs_code();
        let policy = match inner {
            Some(inner) => both(visits, inner),
            None => visits,
        };
        Ok(Session(Arc::new(Inner {
            carried: Policies::of_session(Arc::clone(&policy), is_brief),
            policy,
            rules,
            base,
            generation: Generation::new(),
        })))
    }
}

impl fmt::Debug for SessionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionBuilder")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

fn invalid(why: impl Into<String>) -> Error {
    Error::invalid_config(why.into())
}

/// Returns the request that those of the session are resolved against, and takes over its origin
/// and its credentials.
fn check_base(base: Request, rules: &mut Rules) -> Result<Request, Error> {
    if base.target().contains('?') {
        return Err(invalid("base: has a query"));
    }
    rules.base = Some(base.origin());
    if let Some(credentials) = base.header("Authorization") {
        if rules.auth.is_some() {
            return Err(invalid("base: has credentials, and so has auth"));
        }
        rules
            .headers
            .push(("Authorization".into(), credentials.into()));
    }
    let plain = base.edit().without("Authorization");
    if base.target().ends_with('/') {
        return plain.build();
    }
    // References are relative to the directory (RFC 3986 §5.2.3).
    let folder = format!("{}/", base.target());
    plain.build()?.resolve(folder).build()
}

/// Checks the session's fields as they are added to a request.
fn check_fields(rules: &Rules) -> Result<(), Error> {
    let request = Request::get("http://localhost/").build()?;
    let mut block = Vec::new();
    let mut fields = Fields::new(&mut block, &request);
    let mut check = |name: &str, value: &[u8]| match fields.add(name, value) {
        Ok(()) => Ok(()),
        Err(error) => Err(match error.invalid() {
            Some(fault) => invalid(fault.to_string()),
            None => error,
        }),
    };
    if let Some(user_agent) = &rules.user_agent {
        check("User-Agent", user_agent.as_bytes())?;
    }
    for (name, value) in &rules.headers {
        check(name, value)?;
    }
    Ok(())
}

fn check_auth(rules: &Rules) -> Result<(), Error> {
    let Some(auth) = &rules.auth else {
        return Ok(());
    };
    auth.check().map_err(invalid)?;
    if auth.origin().is_none() && rules.base.is_none() {
        return Err(invalid("auth: for which origin? Set `base`, or `Auth::at`"));
    }
    let is_authorization = |name: &str| name.eq_ignore_ascii_case("Authorization");
    if rules.headers.iter().any(|(name, _)| is_authorization(name)) {
        return Err(invalid("auth: there is an Authorization header as well"));
    }
    Ok(())
}
