//! Credentials that a session sends with its requests: Basic, Bearer and Digest.
//!
//! Basic and Bearer are one field value, computed once. Digest answers the server's challenges; its
//! state belongs to one origin and is shared by all requests that carry the same [`Auth`]. Which
//! requests carry one, and when they are sent again, is left to the session.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::builder::auth;
use crate::proto::Origin;
use crate::proto::target::{Fault, Target};

#[cfg(feature = "digest")]
mod algorithm;
#[cfg(feature = "digest")]
mod challenge;
#[cfg(feature = "digest")]
mod digest;
#[cfg(not(feature = "digest"))]
#[path = "absent.rs"]
mod digest;
#[cfg(feature = "digest")]
mod login;
#[cfg(feature = "digest")]
mod offer;

use digest::Digest;
pub(crate) use digest::Used;

/// Credentials for an origin.
///
/// With [`digest`](Self::digest), sessions share what the server has said if their credentials are
/// clones made after [`at`](Self::at). Otherwise each session is challenged on its own.
///
/// Invalid credentials are reported by [`SessionBuilder::build`](super::SessionBuilder::build).
/// `Debug` shows the scheme only.
///
/// ```
/// use httpstream::session::{Auth, Session};
///
/// let auth = Auth::basic("Aladdin", "open sesame").at("https://example.com");
/// assert_eq!(format!("{auth:?}"), "Auth(Basic)");
/// let session = Session::builder().auth(auth).build()?;
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone)]
pub struct Auth {
    scheme: AuthScheme,
    credentials: Result<Credentials, Fault>,
    origin: Option<Result<Origin, Fault>>,
}

#[derive(Clone, Copy, Debug)]
enum AuthScheme {
    Basic,
    Bearer,
    Digest,
}

#[derive(Clone)]
enum Credentials {
    /// The value of the Authorization field of every request.
    Fixed(Arc<[u8]>),
    Digest(Arc<Digest>),
}

/// The value of an Authorization field. Not printable, since it is secret.
pub(crate) struct Authorization<'a>(Cow<'a, [u8]>);

impl AsRef<[u8]> for Authorization<'_> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Auth {
    /// A user name and a password in UTF-8 (RFC 7617), sent with every request.
    ///
    /// They are encoded, but not encrypted: whoever can read the request can read them. Use Basic
    /// over `https` only.
    ///
    /// A colon in the user name and control characters in either are refused.
    pub fn basic(user: &str, password: &str) -> Self {
        let value = auth::basic(user.as_bytes(), password.as_bytes());
        Self::new(AuthScheme::Basic, fixed(value))
    }

    /// A bearer token (RFC 6750 §2.1), sent with every request.
    ///
    /// Whoever can read the request can use the token. Use Bearer over `https` only.
    ///
    /// A token consists of letters, digits, `-`, `.`, `_`, `~`, `+` and `/`, and may end in `=`.
    /// Any other is refused.
    pub fn bearer(token: &str) -> Self {
        Self::new(AuthScheme::Bearer, fixed(auth::bearer(token)))
    }

    /// A user name and a password for the challenges of Digest (RFC 7616), which does not send the
    /// password.
    ///
    /// The first request is sent without credentials. Once the server has answered it with 401
    /// (Unauthorized) and a challenge, it is sent again with credentials, and so are later requests
    /// from the start. Other challenges are not answered, in particular those for Basic.
    ///
    /// - Algorithms: SHA-512-256, SHA-256 and MD5, with or without `-sess`. If the server offers
    ///   several, MD5 comes last; otherwise the server's order decides (RFC 7616 §3.7).
    /// - Quality of protection: `auth`, or none as in RFC 2069. Bodies are not protected
    ///   (`auth-int`).
    /// - The server is not authenticated: `rspauth` is not checked.
    ///
    /// A control character in the user name is refused. Without the feature `digest`, all are.
    pub fn digest(user: &str, password: &str) -> Self {
        let digest = Digest::new(user, password).map_err(Fault::whole);
        let digest = digest.map(|digest| Credentials::Digest(digest.into()));
        Self::new(AuthScheme::Digest, digest)
    }

    /// Sets the origin that the credentials are for: `https://example.com`, with a port if it is
    /// not the default one. They are never sent anywhere else.
    ///
    /// With [`digest`](Self::digest), the result shares nothing with the credentials that it was
    /// cloned from.
    ///
    /// Anything after the host and port is refused, even a slash.
    #[must_use]
    pub fn at(mut self, origin: &str) -> Self {
        self.origin = Some(parse_origin(origin));
        self.forget_challenges();
        self
    }

    fn new(scheme: AuthScheme, credentials: Result<Credentials, Fault>) -> Self {
        Self {
            scheme,
            credentials,
            origin: None,
        }
    }

    /// Stops sharing challenges with clones, so that what one origin has sent never reaches
    /// another.
    fn forget_challenges(&mut self) {
        if let Ok(Credentials::Digest(digest)) = &mut self.credentials {
            *digest = digest.anew();
        }
    }
}

impl Auth {
    /// # Errors
    /// What was wrong with the arguments, without quoting them.
    pub(crate) fn check(&self) -> Result<(), String> {
        let scheme = self.scheme;
        if let Err(why) = &self.credentials {
            return Err(format!("{scheme:?} credentials: {why}"));
        }
        match &self.origin {
            Some(Err(fault)) => Err(format!("origin of the {scheme:?} credentials: {fault}")),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Returns a clone for `origin`, which shares nothing with others. If [`at`](Self::at) has set
    /// an origin, that one stays, and the clone shares what has been learned there.
    pub(crate) fn bound_to(&self, origin: &Origin) -> Self {
        let mut bound = self.clone();
        if bound.origin.is_none() {
            bound.origin = Some(Ok(origin.clone()));
            bound.forget_challenges();
        }
        bound
    }

    /// Whether the credentials answer challenges, and so depend on what the server has sent.
    pub(crate) fn is_challenged(&self) -> bool {
        matches!(self.credentials, Ok(Credentials::Digest(_)))
    }

    /// Returns the origin that the credentials are for, if one was set.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()?.as_ref().ok()
    }

    /// Returns the value of the Authorization field for one attempt to send a request, and notes in
    /// `used` what it depends on. `None` if there are no credentials to send yet.
    ///
    /// `used` belongs to one request and begins with its default; `target` is the request target as
    /// it is sent. `random` returns 64 unpredictable bits.
    pub(crate) fn authorize(
        &self,
        used: &mut Used,
        method: &str,
        target: &str,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<Authorization<'_>> {
        let value = match self.credentials.as_ref().ok()? {
            Credentials::Fixed(value) => Cow::Borrowed(&**value),
            Credentials::Digest(digest) => {
                Cow::Owned(digest.authorize(used, method, target, random)?)
            }
        };
        Some(Authorization(value))
    }

    /// Takes in a 401 response to a request, given the values of its WWW-Authenticate fields.
    ///
    /// Returns whether the request is to be sent again, with new credentials. The number of times
    /// is limited.
    pub(crate) fn on_unauthorized<'v>(
        &self,
        used: &mut Used,
        challenges: impl Iterator<Item = &'v [u8]>,
    ) -> bool {
        match &self.credentials {
            Ok(Credentials::Digest(digest)) => digest.on_unauthorized(used, challenges),
            // The same credentials would be refused again.
            Ok(Credentials::Fixed(_)) | Err(_) => false,
        }
    }

    /// Takes in the value of an Authentication-Info field of a response.
    pub(crate) fn on_info(&self, used: &Used, info: &[u8]) {
        if let Ok(Credentials::Digest(digest)) = &self.credentials {
            digest.on_info(used, info);
        }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Auth").field(&self.scheme).finish()
    }
}

/// Credentials that every request sends as they are.
fn fixed(value: Result<String, Fault>) -> Result<Credentials, Fault> {
    Ok(Credentials::Fixed(value?.into_bytes().into()))
}

/// Parses a URL that ends after its authority.
fn parse_origin(origin: &str) -> Result<Origin, Fault> {
    let target = Target::parse(origin)?;
    let start = origin.find("://").map_or(0, |at| at + "://".len());
    match origin[start..].find(['/', '?', '#']) {
        Some(at) => Err(Fault::rule(
            start + at,
            "an origin ends with its host or port",
        )),
        None => Ok(target.origin().clone()),
    }
}

#[cfg(all(test, feature = "digest"))]
mod testing {
    //! What the tests of Digest have in common.

    /// Random numbers that never repeat.
    pub(super) fn counter() -> impl FnMut() -> u64 {
        let mut n = 0;
        move || {
            n += 1;
            n
        }
    }

    /// Returns a parameter of an Authorization field, without quotes.
    pub(super) fn parameter<'v>(value: &'v str, name: &str) -> &'v str {
        let parameters = value.strip_prefix("Digest ").unwrap().split(", ");
        let mut values = parameters.filter_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        values.next().unwrap_or_default().trim_matches('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(auth: &Auth) -> Option<Vec<u8>> {
        let mut used = Used::default();
        let value = auth.authorize(&mut used, "GET", "/", &mut || 0);
        value.map(|value| value.as_ref().to_vec())
    }

    #[test]
    fn types_are_shared_and_sent_as_promised() {
        fn shared<T: Clone + Send + Sync + 'static>() {}
        shared::<Auth>();
    }

    #[test]
    fn basic_and_bearer_are_fixed_values() {
        #[rustfmt::skip]
        let rows = [
            ("the example of RFC 7617 §2", Auth::basic("Aladdin", "open sesame"),
                "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("the example of RFC 7617 §2.1", Auth::basic("test", "123£"), "Basic dGVzdDoxMjPCow=="),
            ("a password may contain colons", Auth::basic("a", "b:c"), "Basic YTpiOmM="),
            ("both may be empty", Auth::basic("", ""), "Basic Og=="),
            ("the example of RFC 6750 §2.1",
                Auth::bearer("mF_9.B5f-4.1JqM"), "Bearer mF_9.B5f-4.1JqM"),
            ("a token may end in equals signs", Auth::bearer("a+/~=="), "Bearer a+/~=="),
        ];
        for (why, auth, expected) in rows {
            assert_eq!(auth.check(), Ok(()), "{why}");
            assert_eq!(value(&auth).as_deref(), Some(expected.as_bytes()), "{why}");
            assert!(auth.origin().is_none(), "{why}");
        }
    }

    #[test]
    fn a_401_is_final_for_fixed_values() {
        for auth in [Auth::basic("a", "b"), Auth::bearer("c")] {
            let mut used = Used::default();
            let challenges = [&b"Digest realm=a, nonce=b, qop=auth"[..], b"Basic realm=a"];
            assert!(!auth.on_unauthorized(&mut used, challenges.into_iter()));
            auth.on_info(&used, b"nextnonce=a");
            assert!(
                value(&auth).is_some(),
                "later requests are still authorized"
            );
        }
    }

    #[test]
    fn mistakes_are_kept_and_quote_no_secret() {
        #[rustfmt::skip]
        let rows = [
            (Auth::basic("se:cret", "b"), "Basic credentials: the user contains a colon"),
            (Auth::basic("secret\n", "b"), "Basic credentials: the user contains a control character"),
            (Auth::basic("a", "secret\0"), "Basic credentials: the password contains a control character"),
            (Auth::basic("a", "secret\x7f"), "Basic credentials: the password contains a control character"),
            (Auth::bearer(""), "Bearer credentials: the bearer token is empty"),
            (Auth::bearer("=="), "Bearer credentials: the bearer token is empty"),
            (Auth::bearer("se cret"), "Bearer credentials: not allowed in a bearer token (byte "),
            (Auth::bearer("secret=a"), "Bearer credentials: not allowed in a bearer token (byte "),
            (Auth::bearer("secret\r\nX: a"), "Bearer credentials: not allowed in a bearer token (byte "),
            (Auth::bearer("secrét"), "Bearer credentials: not allowed in a bearer token (byte "),
            (Auth::basic("secret:", "").at("http://a"), "Basic credentials: the user contains a colon"),
            (Auth::basic("secret", "secret").at("a"),
                "origin of the Basic credentials: not an absolute URL"),
            (Auth::bearer("secret").at("http://secret@a"),
                "origin of the Bearer credentials: userinfo"),
        ];
        for (auth, expected) in rows {
            let why = auth.check().unwrap_err();
            assert!(why.starts_with(expected), "{why}");
            assert!(!format!("{why} {auth:?}").contains("secr"), "{why}");
        }
    }

    #[test]
    fn origins_end_with_their_authority() {
        let origin = |text: &str| {
            let auth = Auth::bearer("a").at(text);
            assert_eq!(auth.check().is_ok(), auth.origin().is_some(), "{text}");
            auth.origin().map(ToString::to_string)
        };
        #[rustfmt::skip]
        let rows = [
            ("http://a.test", Some("http://a.test")),
            ("HTTPS://A.test:443", Some("https://a.test")),
            ("http://a.test:", Some("http://a.test")),
            ("https://a.test:80", Some("https://a.test:80")),
            ("http://[::1]:8080", Some("http://[::1]:8080")),
            ("http://a.test/", None),
            ("http://a.test/secret", None),
            ("http://a.test?secret", None),
            ("http://a.test#", None),
            ("http://", None),
            ("ftp://a.test", None),
            ("a.test", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(origin(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn credentials_are_bound_to_the_origin_of_their_session() {
        let origin = |text| parse_origin(text).unwrap();
        let shown = |auth: &Auth| auth.origin().map(ToString::to_string);
        let bearer = Auth::bearer("a");
        let bound = bearer.bound_to(&origin("http://a.test"));
        assert_eq!(shown(&bound).as_deref(), Some("http://a.test"));
        assert_eq!(shown(&bearer), None);
        assert_eq!(value(&bound), value(&bearer));
        let elsewhere = bound.bound_to(&origin("http://b.test"));
        assert_eq!(shown(&elsewhere), shown(&bound), "one that is set stays");
        let mistaken = Auth::bearer("").bound_to(&origin("http://a.test"));
        assert!(mistaken.check().is_err());
    }

    #[cfg(feature = "digest")]
    #[test]
    fn what_one_origin_has_sent_is_not_used_at_another() {
        let learn = |auth: &Auth| {
            let challenge = b"Digest realm=r, nonce=n, qop=auth";
            let mut used = Used::default();
            assert!(auth.on_unauthorized(&mut used, [&challenge[..]].into_iter()));
        };
        let knows = |auth: &Auth| value(auth).is_some();
        let (a, b) = ("http://a.test", "http://b.test");
        let origin = |text| parse_origin(text).unwrap();

        let auth = Auth::digest("user", "password");
        let sessions = [a, a, b].map(|text| auth.bound_to(&origin(text)));
        learn(&sessions[0]);
        assert_eq!(sessions.each_ref().map(knows), [true, false, false]);
        assert!(knows(&sessions[0].clone()) && !knows(&auth));

        let at_a = auth.clone().at(a);
        let sessions = [a, b].map(|text| at_a.bound_to(&origin(text)));
        learn(&sessions[1]);
        assert_eq!(
            sessions.each_ref().map(knows),
            [true, true],
            "both are for a"
        );
        assert!(knows(&at_a) && !knows(&auth));
        assert!(!knows(&at_a.clone().at(b)) && !knows(&at_a.at(a)));
    }

    #[test]
    fn debug_shows_the_scheme_only() {
        let shown = |auth: Auth| format!("{auth:?}");
        assert_eq!(shown(Auth::basic("user", "pass")), "Auth(Basic)");
        assert_eq!(shown(Auth::bearer("token")), "Auth(Bearer)");
        assert_eq!(
            shown(Auth::digest("user", "pass").at("http://a")),
            "Auth(Digest)"
        );
    }
}
