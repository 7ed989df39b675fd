//! Builds requests and checks them once: nothing after [`RequestBuilder::build`] needs another
//! check.
//!
//! No byte from a caller can end a line, and the framing is always a correct Content-Length; this
//! prevents the attacks of RFC 9112 §11.1 and §11.2. URLs are parsed by `proto::target`, and the
//! parts are kept and checked by `draft`.
//!
//! `build` returns an [`Error`], and an error may hold a [`Request`]. The value is therefore in a
//! layer below the error, in `request`, and its builder in a layer above both.

pub(crate) mod auth;
mod draft;
pub(crate) mod url;

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::error::Error;
use crate::generation::Mark;
use crate::proto::target::Fault;
use crate::proto::{Invalid, InvalidPart, Limits};
use crate::request::{Carried, CarriedBody, Request};
use crate::route::Route;
use crate::timeouts::{LowSpeed, LowSpeedEdit, Timeout, Timeouts, milliseconds};
use draft::Draft;
use url::IntoUrl;

/// What a long poll may take beyond the server's own silence: the round trip, and a server that is
/// late.
const LONG_POLL_SLACK: Duration = Duration::from_secs(10);

/// What a long poll may take in total beyond its silence: connecting, sending, and reading the
/// response.
const LONG_POLL_REST: Duration = Duration::from_secs(30);

impl Request {
    /// Begins a GET request (RFC 9110 §9.3.1).
    ///
    /// `url` is an absolute URL with the scheme `http` or, with feature `tls`, `https`. Its host is
    /// an IP address or an ASCII name; any other name has to be given in its A-label form (`xn--`).
    /// An IPv6 address may have a zone id, `http://[fe80::1%25eth0]/` (RFC 6874): the name or
    /// number of the interface to use. The zone id is not sent.
    ///
    /// Path and query may be encoded or not: characters that a URL cannot contain are
    /// percent-encoded, `%` is left alone, and a fragment is dropped. `..` in a path is sent as it
    /// is ([`resolve`](Self::resolve) removes it).
    ///
    /// Credentials (`user:password@`) are percent-decoded, removed from the URL, and sent as by
    /// [`basic_auth`](RequestBuilder::basic_auth). The host begins after the last `@`, and the
    /// password after the first `:`.
    ///
    /// Do not format untrusted text into a URL: a `?` or `#` in it ends the path, and an `@` the
    /// credentials. Use [`segments`](RequestBuilder::segments), [`query`](RequestBuilder::query)
    /// and [`form`](RequestBuilder::form), which encode it.
    ///
    /// ```
    /// let request = httpstream::Request::get("http://bot:pa%20ss@example.com/a").build()?;
    /// assert_eq!(request.uri(), "http://example.com/a");
    /// assert_eq!(request.header_str("Authorization"), Some("Basic Ym90OnBhIHNz"));
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn get<Form>(url: impl IntoUrl<Form>) -> RequestBuilder {
        Self::builder(Method::GET, url)
    }

    /// Begins a HEAD request (RFC 9110 §9.3.2).
    pub fn head<Form>(url: impl IntoUrl<Form>) -> RequestBuilder {
        Self::builder(Method::HEAD, url)
    }

    /// Begins a POST request (RFC 9110 §9.3.3).
    pub fn post<Form>(url: impl IntoUrl<Form>) -> RequestBuilder {
        Self::builder(Method::POST, url)
    }

    /// Begins a PUT request (RFC 9110 §9.3.4).
    pub fn put<Form>(url: impl IntoUrl<Form>) -> RequestBuilder {
        Self::builder(Method::PUT, url)
    }

    /// Begins a PATCH request (RFC 5789).
    pub fn patch<Form>(url: impl IntoUrl<Form>) -> RequestBuilder {
        Self::builder(Method::PATCH, url)
    }

    /// Begins a DELETE request (RFC 9110 §9.3.5).
    pub fn delete<Form>(url: impl IntoUrl<Form>) -> RequestBuilder {
        Self::builder(Method::DELETE, url)
    }

    /// Begins an OPTIONS request (RFC 9110 §9.3.7) about the URL. `*`, which means the server as a
    /// whole, cannot be written as a URL.
    pub fn options<Form>(url: impl IntoUrl<Form>) -> RequestBuilder {
        Self::builder(Method::OPTIONS, url)
    }

    /// Begins a request with any method except CONNECT, which asks for a tunnel. For `url` see
    /// [`get`](Self::get).
    pub fn builder<Form>(method: Method, url: impl IntoUrl<Form>) -> RequestBuilder {
        RequestBuilder(Draft::new(method, &url.text()))
    }

    /// Begins a new request that starts with everything this one has: method, URL, fields in their
    /// order, body, timeouts, limits, route, policies, and all settings about its connection.
    /// Whatever is not changed stays, and the body is shared rather than copied.
    ///
    /// To replace a field, call [`without`](RequestBuilder::without) and then
    /// [`header`](RequestBuilder::header).
    ///
    /// ```
    /// use httpstream::Request;
    ///
    /// let first = Request::put("http://example.com/job")
    ///     .header("X-Token", "a")
    ///     .body("run")
    ///     .build()?;
    /// let again = first.edit().without("X-Token").header("X-Token", "b").build()?;
    /// assert_eq!(again.header("X-Token"), Some(&b"b"[..]));
    /// assert_eq!((again.uri(), again.body()), (first.uri(), first.body()));
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn edit(&self) -> RequestBuilder {
        RequestBuilder(Ok(Draft::of(self)))
    }

    /// Begins a new request by [editing](Self::edit) this one to go to `reference`, resolved
    /// against its URL (RFC 3986 §5), like a link on a page or a Location field. The fragment of
    /// `reference` is dropped, and characters that a URL cannot contain are percent-encoded.
    ///
    /// If this leads to another origin (scheme, host or port), the fields meant for the old origin
    /// are removed: `Cookie`, `Authorization`, `Proxy-Authorization`, and a `Host` set by the
    /// caller. Method, body and other fields stay.
    ///
    /// [`build`](RequestBuilder::build) refuses credentials in `reference`, since it may come from
    /// someone else, and schemes other than http and https. It reports the position of the
    /// offending byte in `reference`.
    ///
    /// ```
    /// let page = httpstream::Request::get("http://example.com/a/b?page=1").build()?;
    /// let next = page.resolve("../c?page=2#top").build()?;
    /// assert_eq!(next.uri(), "http://example.com/c?page=2");
    ///
    /// let error = page.resolve("mailto:someone@example.com").build().unwrap_err();
    /// let expected = "reference: leads to a scheme other than http and https (byte 0)";
    /// assert_eq!(error.to_string(), format!("request cannot be sent: {expected}"));
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn resolve(&self, reference: impl AsRef<str>) -> RequestBuilder {
        self.edit().with(|parts| parts.resolve(reference.as_ref()))
    }

    /// Begins a request to where a Location field leads, as [`resolve`](Self::resolve) does, with
    /// two differences. Credentials in the location are ignored: a server cannot choose those of
    /// its clients. And `location` need not be UTF-8: bytes that are not ASCII are
    /// percent-encoded, as browsers do.
    ///
    /// If it is not UTF-8, the position in an error counts bytes after encoding.
    pub(crate) fn follow(&self, location: &[u8]) -> RequestBuilder {
        self.edit().with(|parts| parts.follow(location))
    }
}

/// Takes over method, URI (which must be absolute), fields in their order, and body. The version is
/// ignored; requests are sent as HTTP/1.1. Credentials in the URI are sent as by [`Request::get`],
/// unless there is an Authorization field.
///
/// # Errors
/// As [`RequestBuilder::build`].
///
/// ```
/// let ours = httpstream::Request::try_from(
///     http::Request::put("http://example.com/a").body("text")?,
/// )?;
/// assert_eq!(ours.method(), http::Method::PUT);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<B: Into<Vec<u8>>> TryFrom<http::Request<B>> for Request {
    type Error = Error;

    fn try_from(request: http::Request<B>) -> Result<Self, Error> {
        let (head, body) = request.into_parts();
        let mut builder = Self::builder(head.method, &head.uri);
        for (name, value) in &head.headers {
            builder = builder.header(name, value);
        }
        builder.body(body).build()
    }
}

/// Builds a [`Request`]. The first mistake is kept and returned by [`build`](Self::build).
///
/// ```
/// use std::time::Duration;
/// use httpstream::Request;
///
/// let request = Request::post("http://example.com/send")
///     .query([("room", "tea & cake")])
///     .header("X-Token", "s3cret")
///     .form([("text", "hello, world")])
///     .timeout(Duration::from_secs(20))
///     .build()?;
/// assert_eq!(request.target(), "/send?room=tea%20%26%20cake");
/// assert_eq!(request.body(), Some(&b"text=hello%2C+world"[..]));
///
/// let error = Request::get("http://example.com/")
///     .header("X-A", "two\nlines")
///     .build()
///     .unwrap_err();
/// assert_eq!(error.to_string(), r#"request cannot be sent: header value of "X-A": LF at byte 3"#);
/// # Ok::<(), httpstream::Error>(())
/// ```
#[must_use = "nothing is checked or sent before `build`"]
pub struct RequestBuilder(Result<Draft, Invalid>);

impl RequestBuilder {
    fn with(mut self, step: impl FnOnce(&mut Draft) -> Result<(), Invalid>) -> Self {
        if let Ok(parts) = &mut self.0
            && let Err(invalid) = step(parts)
        {
            self.0 = Err(invalid);
        }
        self
    }

    /// Adds a field line. Several lines of one name stay separate (RFC 9110 §5.2). Whitespace
    /// around the value is removed.
    ///
    /// Some fields are special:
    ///
    /// - `Host` replaces the one derived from the URL; the connection is still made to the URL's
    ///   host.
    /// - `Content-Length` must equal the length of the body.
    /// - `Connection: close` has the effect of [`close`](Self::close).
    /// - `Expect: 100-continue` is left out if there is no body to hold back; see
    ///   [`expect_continue`](Self::expect_continue).
    /// - `Upgrade` asks the server to switch to another protocol (RFC 9110 §7.8), and `Connection:
    ///   Upgrade` is added to it. After a 101 (Switching Protocols) the connection is a tunnel: see
    ///   [`Context::write`](crate::Context::write).
    /// - `Authorization` replaces one that was set before, by this method or any other.
    ///
    /// Refused are names that are not tokens (RFC 9110 §5.1), control bytes other than HTAB in
    /// values (§5.5), a second `Host` or `Content-Length`, `Transfer-Encoding` (the length of a
    /// body is always known), and any other `Expect`.
    pub fn header(self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        self.with(|parts| parts.header(name.as_ref(), value.as_ref()))
    }

    /// Adds a field line, unless there is one of this name already.
    pub(crate) fn header_if_unset(self, name: &str, value: &str) -> Self {
        self.with(|parts| match parts.has_header(name) {
            true => Ok(()),
            false => parts.header(name, value.as_bytes()),
        })
    }

    /// Removes all field lines of this name, so that [`header`](Self::header) can set another
    /// value: those added by `header`, those taken over by [`edit`](Request::edit), and those that
    /// [`close`](Self::close), [`form`](Self::form) and `json` would add. `Host` is the URL's
    /// again, and `Content-Length` the body's.
    pub fn without(self, name: impl AsRef<str>) -> Self {
        self.with(|parts| {
            parts.without(name.as_ref());
            Ok(())
        })
    }

    /// Changes the method, to any except CONNECT. The new method also decides whether the request
    /// is idempotent, unless [`idempotent`](Self::idempotent) has been called.
    pub fn method(self, method: Method) -> Self {
        self.with(|parts| parts.set_method(method))
    }

    /// Appends segments to the URL's path, before its query. A segment may be any text: all
    /// characters except unreserved ones (RFC 3986 §2.3) are percent-encoded, including `/`, `?`
    /// and `%`. A slash at the end of the path is not doubled.
    ///
    /// Segments that are empty, `.` or `..` are refused, because they could lead elsewhere.
    ///
    /// ```
    /// use httpstream::Request;
    ///
    /// let request = Request::get("http://example.com/v1/?pretty")
    ///     .segments(["chats", "tea & cake", "messages"])
    ///     .segment(42)
    ///     .build()?;
    /// assert_eq!(request.target(), "/v1/chats/tea%20%26%20cake/messages/42?pretty");
    ///
    /// let users = Request::get("http://example.com/users");
    /// let error = users.segment("..").build().unwrap_err();
    /// let expected = "request cannot be sent: path segment 0: a segment must not be . or ..";
    /// assert_eq!(error.to_string(), expected);
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn segments(self, segments: impl IntoIterator<Item = impl fmt::Display>) -> Self {
        self.with(|parts| {
            let mut segments = segments.into_iter();
            segments.try_for_each(|segment| parts.push_segment(segment))
        })
    }

    /// Appends one segment to the URL's path, as [`segments`](Self::segments) does. All segments of
    /// an array have the same type; with this method, each may have its own.
    pub fn segment(self, segment: impl fmt::Display) -> Self {
        self.with(|parts| parts.push_segment(segment))
    }

    /// Appends `name=value` pairs to the URL's query. All characters except unreserved ones (RFC
    /// 3986 §2.3) are percent-encoded; a space becomes `%20`.
    ///
    /// ```
    /// let request = httpstream::Request::get("http://example.com/search")
    ///     .query([("page", 2), ("per_page", 50)])
    ///     .param("q", "tea & cake")
    ///     .build()?;
    /// assert_eq!(request.target(), "/search?page=2&per_page=50&q=tea%20%26%20cake");
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn query(
        self,
        pairs: impl IntoIterator<Item = (impl AsRef<str>, impl fmt::Display)>,
    ) -> Self {
        self.with(|parts| {
            let mut pairs = pairs.into_iter();
            pairs.try_for_each(|(name, value)| parts.push_query(name.as_ref(), value))
        })
    }

    /// Appends one pair to the URL's query, as [`query`](Self::query) does. All values of an array
    /// have the same type; with this method, each may have its own.
    pub fn param(self, name: impl AsRef<str>, value: impl fmt::Display) -> Self {
        self.with(|parts| parts.push_query(name.as_ref(), value))
    }

    /// Sets `Authorization` to Basic credentials (RFC 7617), encoded in UTF-8. They can be read by
    /// anyone who sees the request, so use `https`.
    ///
    /// Of this method, [`bearer_auth`](Self::bearer_auth), credentials in the URL, and
    /// [`header`](Self::header) with the name `Authorization`, the last one wins.
    ///
    /// A colon in `user` and control characters in either are refused.
    ///
    /// ```
    /// let request = httpstream::Request::get("https://example.com/")
    ///     .basic_auth("Aladdin", "open sesame")
    ///     .build()?;
    /// let expected = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
    /// assert_eq!(request.header_str("Authorization"), Some(expected));
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn basic_auth(self, user: &str, password: &str) -> Self {
        self.with(|parts| {
            let value = auth::basic(user.as_bytes(), password.as_bytes());
            parts.authorize(&value.map_err(|fault| InvalidPart::Credentials.is(fault))?);
            Ok(())
        })
    }

    /// Sets `Authorization` to a Bearer token (RFC 6750). Replaces what was set before, like
    /// [`basic_auth`](Self::basic_auth).
    ///
    /// A token consists of ASCII letters, digits and `-._~+/`, and may end in `=`; any other is
    /// refused.
    pub fn bearer_auth(self, token: &str) -> Self {
        self.with(|parts| {
            let value = auth::bearer(token);
            parts.authorize(&value.map_err(|fault| InvalidPart::Credentials.is(fault))?);
            Ok(())
        })
    }

    /// Sets the body to a form (`application/x-www-form-urlencoded`, where a space becomes `+`) and
    /// adds `Content-Type` unless there is one. Replaces an earlier body.
    ///
    /// ```
    /// let login = httpstream::Request::post("http://example.com/login")
    ///     .form([("user", "a b"), ("code", "1&2")])
    ///     .build()?;
    /// // The body is user=a+b&code=1%262.
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn form(
        self,
        pairs: impl IntoIterator<Item = (impl AsRef<str>, impl fmt::Display)>,
    ) -> Self {
        self.with(|parts| parts.set_form(pairs))
    }

    /// Sets the body to `value`, serialized as JSON, and adds `Content-Type: application/json`
    /// unless there is a Content-Type. Replaces an earlier body.
    ///
    /// A value that cannot be serialized is refused, such as a map with keys other than strings.
    /// The error does not contain the value, so if the value's own `Serialize` refused it, the
    /// error does not say why.
    ///
    /// ```
    /// use serde_json::json;
    ///
    /// let request = httpstream::Request::post("http://example.com/messages")
    ///     .json(&json!({"chat": 42, "text": "hello"}))
    ///     .build()?;
    /// assert_eq!(request.body(), Some(&br#"{"chat":42,"text":"hello"}"#[..]));
    /// assert_eq!(request.header_str("Content-Type"), Some("application/json"));
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    #[cfg(feature = "json")]
    pub fn json(self, value: &(impl serde::Serialize + ?Sized)) -> Self {
        self.with(|parts| parts.set_json(value))
    }

    /// Sets a body that is read while it is sent, and its Content-Type, which is sent unless the
    /// caller sets one.
    pub(crate) fn carry_body(self, body: Arc<CarriedBody>, body_type: Option<String>) -> Self {
        self.with(|parts| {
            parts.carry_body(body, body_type);
            Ok(())
        })
    }

    /// Makes the request invalid, because of its body.
    pub(crate) fn refuse_body(self, fault: Fault, what: &str) -> Self {
        self.with(|_| Err(InvalidPart::Body.is(fault).with_text(what)))
    }

    /// Sets the body. Its length is sent as `Content-Length`; an empty body has one only with POST,
    /// PUT and PATCH (RFC 9110 §8.6).
    pub fn body(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.with(|parts| {
            parts.set_body(bytes.into(), None);
            Ok(())
        })
    }

    /// Lets the body wait for the server's consent: adds `Expect: 100-continue`, and sends the body
    /// after a 100 (Continue) or once `wait` has passed (RFC 9110 §10.1.1). A final response that
    /// comes first is delivered without the body having been sent; after a 417 (Expectation
    /// Failed), the request is sent once more without the field.
    ///
    /// Useful for large uploads that a server may refuse or redirect by their head. Not every
    /// server answers with a 100, so `wait` should be short; it is rounded up to whole
    /// milliseconds. With `header("Expect", "100-continue")` it is one second. Without a body there
    /// is nothing to wait, and the field is left out.
    pub fn expect_continue(self, wait: Duration) -> Self {
        self.header("Expect", "100-continue").with(|parts| {
            // What lasts for weeks is no wait for an interim response, but it is what was asked
            // for.
            let longest = Duration::from_millis(u64::from(u32::MAX >> 1));
            parts.rare.continue_wait = milliseconds(Some(wait.min(longest)));
            Ok(())
        })
    }

    /// Sets [`Timeouts::total`]: the time from the submission to the end of the response's body.
    /// The delay of a delayed request is not included. The time in the queue is: see `total` for
    /// what to set where many requests wait.
    pub fn timeout(self, total: Duration) -> Self {
        self.with(|parts| {
            parts.timeouts.set(Timeout::Total, Some(total));
            Ok(())
        })
    }

    /// Makes the request a long poll: the server may stay silent for up to `silence`.
    ///
    /// [`Timeouts::first_byte`] and [`Timeouts::idle`] become `silence` plus 10 s for the round
    /// trip. [`Timeouts::total`], whether set here or in the engine, is raised to `silence` plus 40
    /// s if it is shorter. A later call of [`timeout`](Self::timeout) overrides that.
    pub fn long_poll(self, silence: Duration) -> Self {
        self.with(|parts| {
            let quiet = silence.saturating_add(LONG_POLL_SLACK);
            parts.timeouts.set(Timeout::FirstByte, Some(quiet));
            parts.timeouts.set(Timeout::Idle, Some(quiet));
            parts
                .timeouts
                .lift(Timeout::Total, quiet.saturating_add(LONG_POLL_REST));
            Ok(())
        })
    }

    /// Changes the timeouts of this request. A timeout that `change` does not assign follows the
    /// engine's ([`Config::timeouts`](crate::Config::timeouts)).
    ///
    /// The engine's values are not known here, so `change` sees a placeholder instead of each: the
    /// default plus a fraction of a millisecond, and for the low speed one of 0 bytes a second. Any
    /// other value counts as set, including the default itself.
    pub fn timeouts(self, change: impl FnOnce(&mut Timeouts)) -> Self {
        self.with(|parts| {
            let timeouts = &mut parts.timeouts;
            let rare = &mut parts.rare;
            rare.change_speeds(|speeds| timeouts.change(&mut speeds.low, change));
            Ok(())
        })
    }

    /// Sets [`Timeouts::low_speed`]: the request fails if less than `bytes_per_second` is
    /// transferred on average over a `window`. [`LowSpeed`] has the details.
    ///
    /// 0 bytes a second turn the check off, also if the engine has one. The head of the response
    /// counts, so a slow body may pass the first window.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// // Ends a download that has practically stopped, without a limit for its total time.
    /// let request = httpstream::Request::get("http://example.com/image.iso")
    ///     .low_speed(1000, Duration::from_secs(60))
    ///     .timeouts(|t| t.total = None)
    ///     .build()?;
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn low_speed(self, bytes_per_second: u64, window: Duration) -> Self {
        let low_speed = LowSpeed::new(bytes_per_second, window);
        self.with(|parts| {
            let low = LowSpeedEdit::set(Some(low_speed));
            parts.rare.change_speeds(|speeds| speeds.low = low);
            Ok(())
        })
    }

    /// Caps the speed at which the response is read, in bytes a second. 0 removes the cap.
    ///
    /// The engine reads in bursts, and lets time pass in between. A burst is at most what an eighth
    /// of a second allows, or 1 KiB if that is more. In any span of `t` seconds, at most one burst
    /// more than `t * bytes_per_second` bytes are read. The engine buffers nothing meanwhile,
    /// except part of a TLS record: what it does not read stays in the system's receive buffer, and
    /// once that is full, the server has to wait.
    ///
    /// All bytes of the response count: head, framing, body and trailers, before any decoding; with
    /// TLS, the bytes of its records. The cap also applies to a tunnel, after a 101 (Switching
    /// Protocols). While the engine waits for the cap, [`Timeouts::idle`] and
    /// [`Timeouts::low_speed`] are suspended, but [`Timeouts::total`] is not, so give a long
    /// download enough of it. Each request has a cap of its own: requests do not share one, and
    /// each attempt begins anew.
    ///
    /// A capped request is pipelined only if it says so itself ([`pipeline`](Self::pipeline)),
    /// because the requests behind it wait for it. Its cap then applies while its response is the
    /// one being read. Bytes that were read with the end of the response before it count towards
    /// its cap, too.
    ///
    /// ```
    /// let request = httpstream::Request::get("http://example.com/image.iso")
    ///     .download_rate(200_000)
    ///     .timeouts(|t| t.total = None)
    ///     .build()?;
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn download_rate(self, bytes_per_second: u64) -> Self {
        self.with(|parts| {
            let rate = NonZeroU64::new(bytes_per_second);
            parts.rare.change_speeds(|speeds| speeds.download = rate);
            Ok(())
        })
    }

    /// Caps the speed at which the request is written, head included, in bytes a second. 0 removes
    /// the cap.
    ///
    /// The rules are those of [`download_rate`](Self::download_rate): bursts, a cap for each
    /// attempt of each request, tunnels. While the engine waits for the cap, [`Timeouts::write`]
    /// and [`Timeouts::low_speed`] are suspended, and [`Timeouts::total`] is not. With TLS, the
    /// bytes before encryption count.
    ///
    /// If the request is [pipelined](Self::pipeline), it is written only once all responses before
    /// its own have arrived, and requests behind it follow it.
    pub fn upload_rate(self, bytes_per_second: u64) -> Self {
        self.with(|parts| {
            let rate = NonZeroU64::new(bytes_per_second);
            parts.rare.change_speeds(|speeds| speeds.upload = rate);
            Ok(())
        })
    }

    /// Changes the limits on this request's response. A limit that `change` does not assign follows
    /// the engine's ([`Config::limits`](crate::Config::limits)).
    ///
    /// The engine's values are not known here, so `change` sees a placeholder above the default
    /// instead of each: assign limits rather than computing with them. Any other value counts as
    /// set, including the default itself. [`refuse_obs_fold`](Limits::refuse_obs_fold) can only be
    /// turned on: `false` follows the engine.
    ///
    /// ```
    /// let request = httpstream::Request::get("http://example.com/")
    ///     .limits(|l| l.max_body_bytes = 1 << 20)
    ///     .build()?;
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn limits(self, change: impl FnOnce(&mut Limits)) -> Self {
        self.with(|parts| {
            parts.rare.limits.get_or_insert_default().change(change);
            Ok(())
        })
    }

    /// Sends the request over a route of its own instead of
    /// [`Config::route`](crate::Config::route): through a unix socket, from another address, with
    /// other certificates. Requests with equal routes share connections.
    pub fn route(self, route: impl Into<Arc<Route>>) -> Self {
        self.with(|parts| {
            parts.rare.route = Some(route.into());
            Ok(())
        })
    }

    /// Sets whether the request may be sent again after the peer may have processed it. By default
    /// the method decides: GET, HEAD, OPTIONS, TRACE, PUT and DELETE are idempotent (RFC 9110
    /// §9.2.2).
    ///
    /// The engine sends an idempotent request once more if its kept-alive connection turns out to
    /// be closed. Pass true for a POST that the server recognizes when it arrives twice, for
    /// example by a transaction id. Without that, the POST fails with
    /// [`resend_is_safe`](Error::resend_is_safe) false; [`Error::request_sent`] describes the case.
    /// [`fresh_connection`](Self::fresh_connection) is the alternative for requests that cannot be
    /// repeated.
    pub fn idempotent(self, yes: bool) -> Self {
        self.with(|parts| {
            parts.idempotent = Some(yes);
            Ok(())
        })
    }

    /// Sends the request without waiting for the responses to earlier ones on its connection (RFC
    /// 9112 §9.3.2). Up to `depth` requests may be unanswered there, this one included; 1 turns
    /// pipelining off, and 1024 is the maximum. Overrides
    /// [`Config::pipeline`](crate::Config::pipeline).
    ///
    /// The request goes over an idle connection of its origin, or else behind similar requests,
    /// before another connection is opened;
    /// [`Config::max_connections_per_origin`](crate::Config::max_connections_per_origin) limits how
    /// many there are. Requests that are submitted at the same moment are written together.
    /// Responses arrive in the order of the requests, so a slow one delays all those behind it: do
    /// not pipeline long polls.
    ///
    /// When a connection breaks, its unanswered requests are sent again on others. Only
    /// [idempotent](Self::idempotent) requests are therefore accepted, and pipelining cannot be
    /// combined with [`close`](Self::close), [`fresh_connection`](Self::fresh_connection),
    /// `Upgrade` or `Expect`. Canceling a request that has been written costs its connection.
    ///
    /// An origin that answers in HTTP/1.0, or breaks three pipelines in a row, is no longer
    /// pipelined for as long as the engine has requests or connections to it.
    ///
    /// ```
    /// let request = httpstream::Request::get("http://example.com/").pipeline(16).build()?;
    /// let error = httpstream::Request::post("http://example.com/")
    ///     .pipeline(16)
    ///     .build()
    ///     .unwrap_err();
    /// assert!(format!("{error:#}").contains("pipeline: not idempotent"));
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn pipeline(self, depth: usize) -> Self {
        self.with(|parts| {
            parts.pipeline = Some(depth);
            Ok(())
        })
    }

    /// Sends the request on a newly made connection, not on one from the pool.
    ///
    /// A pooled connection may be closed by the server just as the request is written to it, and a
    /// request that is not idempotent then fails without anyone knowing whether it was processed:
    /// see [`Error::request_sent`]. A new connection avoids this at the price of a round trip, and
    /// of a TLS handshake for `https`. For a request that may be repeated,
    /// [`idempotent`](Self::idempotent) costs less.
    pub fn fresh_connection(self) -> Self {
        self.with(|parts| {
            parts.fresh = true;
            Ok(())
        })
    }

    /// Sends `Connection: close`: the connection serves no further request (RFC 9112 §9.6).
    pub fn close(self) -> Self {
        self.with(|parts| {
            parts.close = true;
            Ok(())
        })
    }

    /// Names the lane of the request. Policies limit the requests of one lane together, for example
    /// those to one chat: see [sessions](crate::session#outboxes). The name is not sent. By default
    /// a request is in no lane.
    pub fn lane(self, name: impl AsRef<str>) -> Self {
        self.with(|parts| {
            parts.rare.lane = Some(name.as_ref().into());
            Ok(())
        })
    }

    /// Sets the priority by which policies order waiting requests: higher values first, 0 by
    /// default. Requests of the same priority are served in the order in which they arrived.
    pub fn priority(self, priority: i8) -> Self {
        self.with(|parts| {
            parts.rare.priority = priority;
            Ok(())
        })
    }

    /// Changes the policies that the request carries: see [`Carried`].
    pub(crate) fn carry(self, change: impl FnOnce(Option<&Carried>) -> Option<Carried>) -> Self {
        self.with(|parts| {
            parts.rare.policies = change(parts.rare.policies.as_ref());
            Ok(())
        })
    }

    /// Makes the request belong to a generation of a session.
    pub(crate) fn marked(self, mark: Mark) -> Self {
        self.with(|parts| {
            parts.rare.mark = Some(mark);
            Ok(())
        })
    }

    /// Returns the first mistake so far, which [`build`](Self::build) will report. It is for
    /// callers that have to report a mistake at the step that made it.
    pub fn mistake(&self) -> Option<&Invalid> {
        self.0.as_ref().err()
    }

    /// Performs the remaining checks and serializes the request.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest) with an [`Invalid`] as its
    /// source. It is the first mistake made while building, or one of the request as a whole: a
    /// `Content-Length` that differs from the body's length, a TRACE request with a body (RFC 9110
    /// §9.3.8), or a combination that cannot be [pipelined](Self::pipeline).
    pub fn build(self) -> Result<Request, Error> {
        self.0
            .and_then(Draft::build)
            .map_err(Error::invalid_request)
    }
}

impl fmt::Debug for RequestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("RequestBuilder");
        match &self.0 {
            Ok(parts) => s
                .field("method", &parts.method)
                .field("origin", parts.target.origin()),
            Err(invalid) => s.field("invalid", invalid),
        };
        s.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
