//! Which redirects a session follows, and how the next request is derived (RFC 9110 §15.4).

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use http::Method;

use crate::error::Error;
use crate::proto::{Invalid, Scheme};
use crate::request::Request;
use crate::response::{Hop, Response, is_redirect};

/// Which redirects are followed: responses with status 301, 302, 303, 307 or 308 and a Location
/// field (RFC 9110 §15.4).
///
/// The next request is the redirected one with these changes:
///
/// - Its URL is the Location, resolved against the current URL (RFC 3986 §5). Credentials in it are
///   ignored, and a fragment is never sent. Of several Location fields the last one counts; an
///   empty one does not count. It is read strictly: `http:x` is not a URL, and a backslash is no
///   slash.
/// - After a 303, any method other than HEAD becomes GET. After a 301 or 302, POST becomes GET,
///   unless [`keep_method`](Self::keep_method) says otherwise. A request that becomes a GET loses
///   its body and all `Content-*` fields. 307 and 308 keep method and body.
/// - At another origin, it loses `Cookie`, `Authorization`, `Proxy-Authorization` and `Host` if
///   they were set by hand, and the session's [headers](super::SessionBuilder::header) and
///   [credentials](super::SessionBuilder::auth); and it presents no client certificate. These do
///   not come back if a later redirect returns to the first origin. The session's cookies are
///   chosen for each URL, as always.
///
/// A redirect that is not followed is delivered to the readback like any other response. Among
/// these are redirects to schemes other than http and https, those to another origin on a route
/// through a unix socket, and those of a request whose body cannot be sent again.
///
/// ```
/// use httpstream::session::{Redirects, Session};
///
/// let session = Session::builder()
///     .redirects(
///         Redirects::limited(5)
///             .https_only()
///             .decide(|hop| hop.to.host() != Some("ads.example.com")),
///     )
///     .build()?;
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone)]
pub struct Redirects {
    most: usize,
    same_origin: bool,
    https_only: bool,
    /// The statuses after which the method is kept. Only 301 and 302 matter.
    keep_method: Vec<u16>,
    decide: Option<Arc<Decide>>,
}

type Decide = dyn Fn(&Hop) -> bool + Send + Sync;

/// What a redirect leads to.
pub(super) enum Lead {
    /// It is delivered to the readback.
    Nowhere,
    To(Request),
}

impl Redirects {
    /// Follows up to `most` redirects of one request. One more is an error of kind
    /// [`Policy`](crate::ErrorKind::Policy), with a [`RedirectError`] as its source. With 0, every
    /// redirect is an error.
    ///
    /// [`Info::hops`](crate::Info::hops) keeps the URLs of all redirects, each of up to 64 KiB, so
    /// a very large limit lets a server fill the memory.
    pub fn limited(most: usize) -> Self {
        Self {
            most,
            same_origin: false,
            https_only: false,
            keep_method: Vec::new(),
            decide: None,
        }
    }

    /// Follows only redirects to the same origin: scheme, host and port. Others are delivered with
    /// their status, which is no error, not even with
    /// [`error_for_status`](super::SessionBuilder::error_for_status).
    #[must_use]
    pub fn same_origin(mut self) -> Self {
        self.same_origin = true;
        self
    }

    /// Makes a redirect to an http URL an error, with [`RedirectError::NotHttps`] as its source.
    #[must_use]
    pub fn https_only(mut self) -> Self {
        self.https_only = true;
        self
    }

    /// Keeps the method, and with it the body, after these statuses. This concerns 301 and 302,
    /// after which POST otherwise becomes GET; 307 and 308 keep the method anyway, and 303 never
    /// does.
    #[must_use]
    pub fn keep_method(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.keep_method.extend(statuses);
        self
    }

    /// Calls `decide` for each redirect that would be followed, on the engine's thread, so it must
    /// not block. If it returns false, the redirect is delivered. This comes before
    /// [`limited`](Self::limited) and [`https_only`](Self::https_only): a redirect that `decide`
    /// declines is no error.
    #[must_use]
    pub fn decide(mut self, decide: impl Fn(&Hop) -> bool + Send + Sync + 'static) -> Self {
        self.decide = Some(Arc::new(decide));
        self
    }

    /// Whether the caller decides.
    pub(super) fn runs_code(&self) -> bool {
        self.decide.is_some()
    }

    /// Returns what `head`, the response to `request`, leads to, if `followed` redirects of the
    /// same visit were followed before.
    ///
    /// # Errors
    /// The redirect must not be followed, or its Location cannot be.
    pub(super) fn lead(
        &self,
        request: &Request,
        head: &Response<'_>,
        followed: usize,
    ) -> Result<Lead, Error> {
        let status = head.status();
        // An empty one would lead back to the same URL. Browsers ignore it.
        let locations = head.header_all("Location");
        let Some(location) = locations.filter(|location| !location.is_empty()).last() else {
            return Ok(Lead::Nowhere);
        };
        if !is_redirect(status) || leads_elsewhere_than_http(location) {
            return Ok(Lead::Nowhere);
        }
        let mut next = request.follow(location);
        if self.becomes_get(request.method(), status.as_u16()) {
            next = next.method(Method::GET).body(Vec::new());
            for (name, _) in request.headers() {
                if is_about_content(name) {
                    next = next.without(name);
                }
            }
        } else if !request.is_repeatable() {
            return Ok(Lead::Nowhere);
        }
        let next = next.build().map_err(|error| match error.invalid() {
            Some(invalid) => refused(RedirectError::Location(invalid.clone())),
            None => error,
        })?;
        let is_elsewhere = !request.has_origin_of(&next);
        // A unix socket has no address, and so no port. 0.0.0.0 alone is also this machine.
        let is_on_unix = || head.info().peer.port() == 0;
        if is_elsewhere && (self.same_origin || is_on_unix()) {
            return Ok(Lead::Nowhere);
        }
        if self.https_only && next.scheme() != Scheme::Https {
            return Err(refused(RedirectError::NotHttps));
        }
        if followed >= self.most {
            let (limit, seen) = (self.most, followed + 1);
            return Err(refused(RedirectError::TooMany { limit, seen }));
        }
        if let Some(decide) = &self.decide
            && let Some(hop) = Hop::between(request, status, &next)
            && !decide(&hop)
        {
            return Ok(Lead::Nowhere);
        }
        Ok(Lead::To(next))
    }

    /// Whether the next request is a GET without a body.
    fn becomes_get(&self, method: &Method, status: u16) -> bool {
        match status {
            303 => *method != Method::HEAD,
            301 | 302 => *method == Method::POST && !self.keep_method.contains(&status),
            _ => false,
        }
    }
}

impl fmt::Debug for Redirects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redirects")
            .field("most", &self.most)
            .field("same_origin", &self.same_origin)
            .field("https_only", &self.https_only)
            .field("keep_method", &self.keep_method)
            .field("decides", &self.decide.is_some())
            .finish()
    }
}

/// Why a redirect was not followed: the source of an error of kind
/// [`Policy`](crate::ErrorKind::Policy).
///
/// ```
/// use std::error::Error as _;
/// use httpstream::Error;
/// use httpstream::session::RedirectError;
///
/// fn is_redirect_loop(error: &Error) -> bool {
///     let source = error.source().and_then(|source| source.downcast_ref());
///     matches!(source, Some(RedirectError::TooMany { .. }))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedirectError {
    /// There was one redirect more than [`Redirects::limited`] allows.
    TooMany {
        /// The limit.
        limit: usize,
        /// The number of redirects, this one included.
        seen: usize,
    },
    /// The redirect leads to an http URL; see [`Redirects::https_only`].
    NotHttps,
    /// The Location field contains no valid reference.
    Location(Invalid),
}

impl fmt::Display for RedirectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedirectError::TooMany { limit, seen } => {
                write!(f, "redirect {seen}, and at most {limit} are followed")
            }
            RedirectError::NotHttps => {
                f.write_str("redirect to an http URL, and only https is followed")
            }
            RedirectError::Location(invalid) => write!(f, "redirect with an invalid {invalid}"),
        }
    }
}

impl StdError for RedirectError {}

fn refused(why: RedirectError) -> Error {
    Error::policy(why)
}

/// Whether a Location has a scheme that is neither http nor https.
fn leads_elsewhere_than_http(location: &[u8]) -> bool {
    let end = location
        .iter()
        .position(|&b| matches!(b, b':' | b'/' | b'?' | b'#'));
    let Some((scheme, [b':', ..])) = end.map(|end| location.split_at(end)) else {
        return false;
    };
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let is_http = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    is_scheme && !is_http
}

/// Whether a field describes the content of its message.
fn is_about_content(name: &str) -> bool {
    const PREFIX: &str = "content-";
    let prefix = name.get(..PREFIX.len());
    prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX))
}
