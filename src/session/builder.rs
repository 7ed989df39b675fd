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
use crate::session::pacing::{Bounds, Pacing};
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
    decode: Option<Decode>,
    rate: Option<Rate>,
    lane_rate: Option<Rate>,
    lane_concurrency: Option<usize>,
    max_waiting: Option<usize>,
}

impl SessionBuilder {
    pub(super) fn new() -> Self {
        Self {
            rules: Rules::default(),
            base: None,
            inner: None,
            decode: None,
            rate: None,
            lane_rate: None,
            lane_concurrency: None,
            max_waiting: None,
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

    /// Decodes content codings: adds Accept-Encoding to requests, and decodes their responses. See
    /// [`Decode`]. An Accept-Encoding among the session's [headers](Self::header) is refused beside
    /// it.
    pub fn decode(mut self, decode: Decode) -> Self {
        self.decode = Some(decode);
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

    /// Sends failed requests again: see [`Retry`]. Without this setting, failures are delivered.
    /// The readback is told of each retry by [`Readback::on_retry`](crate::Readback::on_retry). Why
    /// a request is not sent again is logged at the level `debug`.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.rules.retry = Some(retry);
        self
    }

    /// Limits how often the session's requests are sent, on all threads together. Each exchange
    /// counts, also a retry, a redirect, and the answer to a challenge.
    ///
    /// Requests that must wait do so before they take a connection, and the
    /// [lanes](crate::RequestBuilder::lane) take turns, so that one with many requests does not
    /// keep the others waiting. Requests without a lane take turns as if they were in one, and a
    /// 429 holds all of them back. Those of a higher [priority](crate::RequestBuilder::priority) go
    /// before all others, whatever their lane: a heartbeat, for example.
    ///
    /// The engines that share a session take turns as well. One that is not turned, because a
    /// readback blocks, holds up the others when it is its turn.
    pub fn rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Limits how often the requests of each [lane](crate::RequestBuilder::lane) are sent, such as
    /// those for one chat. Requests without a lane are not limited by it.
    ///
    /// With this or another limit, a 429 (Too Many Requests) holds back its lane, and no other, for
    /// as long as the server asks, but at most for an hour. With [`retry`](Self::retry), the
    /// request that was refused waits as long, and is sent before those behind it. Requests that
    /// wait may [time out](Self::total) meanwhile.
    pub fn lane_rate(mut self, rate: Rate) -> Self {
        self.lane_rate = Some(rate);
        self
    }

    /// Limits how many requests of a [lane](crate::RequestBuilder::lane) run at once. With 1, a
    /// lane is an outbox: its requests are sent in the order in which they were submitted, each
    /// when the one before it has ended, retries included. Higher
    /// [priorities](crate::RequestBuilder::priority) come first.
    ///
    /// A request counts as running until its readback is called. What the readback then returns,
    /// [`again`](crate::Next::again) included, enters the lane as a new request, behind those that
    /// wait. To keep the order, let [`retry`](Self::retry) send messages again.
    pub fn lane_concurrency(mut self, most: usize) -> Self {
        self.lane_concurrency = Some(most);
        self
    }

    /// Limits how many requests may wait in each lane, and how many without a lane: 10,000 by
    /// default. A request that would be one too many fails at once, with an error of kind
    /// [`Policy`](crate::ErrorKind::Policy).
    pub fn max_waiting(mut self, most: usize) -> Self {
        self.max_waiting = Some(most);
        self
    }

    /// Sets how long a request may take in total, with redirects, retries, and the time in its
    /// lane. A retry whose wait would last longer is not begun, so that the readback learns of the
    /// failure rather than of the timeout. If that shows only once the body has been read and
    /// dropped, the readback receives an error of kind [`Status`](crate::ErrorKind::Status) in
    /// place of the response. By default, the engine's [`Timeouts::total`](crate::Timeouts::total)
    /// applies. A request that sets [its own](crate::RequestBuilder::timeout) keeps that, and
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
        let pacing = self.check_pacing()?;
        let Self {
            mut rules,
            base,
            inner,
            decode,
            ..
        } = self;
        let base = match base {
            Some(base) => Some(check_base(base?, &mut rules)?),
            None => None,
        };
        check_fields(&rules)?;
        check_auth(&rules)?;
        if let Some(decode) = decode {
            check_decode(&decode, &mut rules)?;
        }
        if let (Some(auth), Some(base)) = (&rules.auth, &rules.base) {
            rules.auth = Some(auth.bound_to(base));
        }
        if rules.jar.is_some() && !cfg!(feature = "cookies") {
            return Err(invalid("cookies: needs the feature `cookies`"));
        }
        if let Some(retry) = &rules.retry {
            retry.check().map_err(invalid)?;
        }
        rules.pacing = pacing;
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

impl SessionBuilder {
    /// Checks the rates and bounds. `None` means that nothing is limited.
    fn check_pacing(&self) -> Result<Option<Arc<Pacing>>, Error> {
        let rates = [("rate", self.rate), ("lane_rate", self.lane_rate)];
        for (name, rate) in rates {
            let checked = rate.map_or(Ok(()), |rate| rate.check());
            checked.map_err(|why| invalid(format!("{name}: {why}")))?;
        }
        let bounds = [
            ("lane_concurrency", self.lane_concurrency),
            ("max_waiting", self.max_waiting),
        ];
        for (name, most) in bounds {
            if most == Some(0) {
                return Err(invalid(format!("{name}: 0 would send nothing")));
            }
        }
        if self.rate.is_none() && self.lane_rate.is_none() && self.lane_concurrency.is_none() {
            return Ok(None);
        }
        let bounds = Bounds::new(
            self.rate,
            self.lane_rate,
            self.lane_concurrency,
            self.max_waiting,
        );
        Ok(Some(Arc::new(Pacing::new(bounds))))
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

fn check_decode(decode: &Decode, rules: &mut Rules) -> Result<(), Error> {
    let refused = |why: &str| invalid(format!("decode: {why}"));
    rules.codings = decode.check().map_err(|why| refused(&why))?;
    let is_accept = |name: &str| name.eq_ignore_ascii_case("Accept-Encoding");
    if rules.headers.iter().any(|(name, _)| is_accept(name)) {
        return Err(refused("there is an Accept-Encoding header as well"));
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
