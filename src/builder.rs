//! Builds requests and checks them once: nothing after [`RequestBuilder::build`] needs another
//! check.
//!
//! No byte from a caller can end a line, and the framing is always a correct Content-Length; this
//! prevents the attacks of RFC 9112 §11.1 and §11.2. URLs are parsed by `proto::target`.
//!
//! `build` returns an [`Error`], and an error may hold a [`Request`]. The value is therefore in a
//! layer below the error, in `request`, and its builder in a layer above both.

pub(crate) mod url;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::error::Error;
use crate::generation::Mark;
use crate::proto::field::{name_fault, offset_of_trimmed, token_fault, trim, value_fault};
use crate::proto::target::{Fault, Target, check_host_value, percent_encode};
use crate::proto::{Invalid, InvalidPart, Limits, Scheme};
use crate::request::{
    Carried, Checked, CheckedBody, MAX_PIPELINE, Rare, Request, field_bit, lines,
};
use crate::route::Route;
use crate::timeouts::{Timeout, Timeouts, TimeoutsEdit};
use url::IntoUrl;

/// The longest accepted method in bytes. The longest in the IANA registry has 17.
const MAX_METHOD: usize = 255;

/// What a long poll may take beyond the server's own silence: the round trip, and a server that is
/// late.
const LONG_POLL_SLACK: Duration = Duration::from_secs(10);

/// What a long poll may take in total beyond its silence: connecting, sending, and reading the
/// response.
const LONG_POLL_REST: Duration = Duration::from_secs(30);

/// The line that [`RequestBuilder::close`] appends.
const CLOSE: &[u8] = b"Connection: close\r\n";

/// The line added to a request with an Upgrade field if the caller does not add one.
const UPGRADE: &[u8] = b"Connection: Upgrade\r\n";

/// Whether `https` can be sent. In the simulation it is sent without TLS; without feature `tls`, an
/// engine on the real network refuses such a request.
const fn has_tls() -> bool {
    cfg!(any(feature = "tls", feature = "sim"))
}

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
    /// is ([`resolve`](Self::resolve) removes it). Credentials (`user:password@`) are refused.
    ///
    /// Do not format untrusted text into a URL: a `?` or `#` in it ends the path. For pairs there
    /// are [`query`](RequestBuilder::query) and [`form`](RequestBuilder::form).
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
    /// [`build`](RequestBuilder::build) refuses user information and schemes other than http and
    /// https, and reports the position of the offending byte in `reference`.
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
}

/// Takes over method, URI (which must be absolute), fields in their order, and body. The version is
/// ignored; requests are sent as HTTP/1.1.
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

struct Draft {
    method: Method,
    target: Target,
    /// The caller's field lines in their order, without Host and Content-Length.
    lines: Vec<u8>,
    /// The [`field_bit`]s of the names in `lines`.
    fields: u32,
    /// Number of calls of `header` so far.
    headers: usize,
    host: Option<Box<[u8]>>,
    content_length: Option<u64>,
    /// Whether Content-Length is sent although the body is empty and the method does not require
    /// it.
    says_length: bool,
    has_content_type: bool,
    /// The position of the Expect line in `lines`.
    expect: Option<Range<usize>>,
    has_close: bool,
    /// Whether there is an `Upgrade` field, and a `Connection` field with the option `upgrade`.
    has_upgrade: bool,
    has_upgrade_option: bool,
    close: bool,
    body: CheckedBody,
    is_form: bool,
    timeouts: TimeoutsEdit,
    idempotent: Option<bool>,
    fresh: bool,
    /// The depth as given. The one in `rare` is set when the request is built.
    pipeline: Option<usize>,
    rare: Rare,
}

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
    /// - `Expect: 100-continue` is left out if there is no body to hold back.
    /// - `Upgrade` asks the server to switch to another protocol (RFC 9110 §7.8), and `Connection:
    ///   Upgrade` is added to it. After a 101 (Switching Protocols) the connection is a tunnel: see
    ///   [`Context::write`](crate::Context::write).
    ///
    /// Refused are names that are not tokens (RFC 9110 §5.1), control bytes other than HTAB in
    /// values (§5.5), a second `Host` or `Content-Length`, `Transfer-Encoding` (the length of a
    /// body is always known), and any other `Expect`.
    pub fn header(self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        self.with(|parts| parts.header(name.as_ref(), value.as_ref()))
    }

    /// Removes all field lines of this name, so that [`header`](Self::header) can set another
    /// value: those added by `header`, those taken over by [`edit`](Request::edit), and those that
    /// [`close`](Self::close) and [`form`](Self::form) would add. `Host` is the URL's again, and
    /// `Content-Length` the body's.
    pub fn without(self, name: impl AsRef<str>) -> Self {
        self.with(|parts| {
            parts.without(name.as_ref());
            Ok(())
        })
    }

    /// Changes the method, to any except CONNECT. The new method also decides whether the request
    /// is idempotent, unless [`idempotent`](Self::idempotent) has been called.
    pub fn method(self, method: Method) -> Self {
        self.with(|parts| {
            if let Some(fault) = method_fault(&method) {
                return Err(InvalidPart::Method.is(fault));
            }
            parts.method = method;
            Ok(())
        })
    }

    /// Appends `name=value` pairs to the URL's query. All characters except unreserved ones (RFC
    /// 3986 §2.3) are percent-encoded; a space becomes `%20`.
    pub fn query(
        self,
        pairs: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>,
    ) -> Self {
        self.with(|parts| {
            for (name, value) in pairs {
                parts.target.push_query(name.as_ref(), value.as_ref());
            }
            let checked = parts.target.check_length();
            checked.map_err(|fault| InvalidPart::Query.is(fault))
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
    pub fn form(self, pairs: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>) -> Self {
        self.with(|parts| {
            let mut form = String::new();
            for (name, value) in pairs {
                if !form.is_empty() {
                    form.push('&');
                }
                push_form(&mut form, name.as_ref());
                form.push('=');
                push_form(&mut form, value.as_ref());
            }
            parts.body = CheckedBody::Bytes(form.into_bytes());
            parts.is_form = true;
            Ok(())
        })
    }

    /// Sets the body. Its length is sent as `Content-Length`; an empty body has one only with POST,
    /// PUT and PATCH (RFC 9110 §8.6).
    pub fn body(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.with(|parts| {
            parts.body = CheckedBody::Bytes(bytes.into());
            parts.is_form = false;
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
    /// default plus a fraction of a millisecond. Any other value counts as set, including the
    /// default itself.
    pub fn timeouts(self, change: impl FnOnce(&mut Timeouts)) -> Self {
        self.with(|parts| {
            parts.timeouts.change(change);
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
    /// those to one chat. The name is not sent. By default a request is in no lane.
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

impl Draft {
    fn new(method: Method, url: &str) -> Result<Self, Invalid> {
        if let Some(fault) = method_fault(&method) {
            return Err(InvalidPart::Method.is(fault));
        }
        let target = Target::parse(url).and_then(check_scheme);
        Ok(Self {
            method,
            target: target.map_err(|fault| InvalidPart::Url.is(fault))?,
            lines: Vec::new(),
            fields: 0,
            headers: 0,
            host: None,
            content_length: None,
            says_length: false,
            has_content_type: false,
            expect: None,
            has_close: false,
            has_upgrade: false,
            has_upgrade_option: false,
            close: false,
            body: CheckedBody::Bytes(Vec::new()),
            is_form: false,
            timeouts: TimeoutsEdit::NONE,
            idempotent: None,
            fresh: false,
            pipeline: None,
            rare: Rare::default(),
        })
    }

    /// Recovers the parts that `request` was built from. The lines that [`build`](Self::build)
    /// appended are removed in reverse order.
    fn of(request: &Request) -> Self {
        let mut lines = request.lines();
        take_last(&mut lines, |line| line == UPGRADE);
        let close = request.wants_close() && take_last(&mut lines, |line| line == CLOSE);
        let has_length = take_last(&mut lines, |line| is_named(line, "Content-Length"));
        let is_form = request.has_form_type();
        if is_form {
            take_last(&mut lines, |line| is_named(line, "Content-Type"));
        }
        let body = match request.wire_body() {
            [] => CheckedBody::Bytes(Vec::new()),
            [..] => CheckedBody::Of(request.clone()),
        };
        let mut rare = request.rare().cloned().unwrap_or_default();
        rare.mark = rare.mark.map(|mark| mark.renewed());
        let mut parts = Self {
            method: request.method().clone(),
            target: Target::restored(request.origin(), request.target()),
            lines: lines.to_vec(),
            fields: 0,
            headers: 0,
            host: request.own_host().map(Into::into),
            content_length: None,
            says_length: has_length && body.is_empty() && !awaits_body(request.method()),
            has_content_type: false,
            expect: None,
            has_close: false,
            has_upgrade: false,
            has_upgrade_option: false,
            close,
            body,
            is_form,
            timeouts: *request.timeouts(),
            idempotent: request.explicit_idempotence(),
            fresh: request.wants_fresh_connection(),
            pipeline: rare.pipeline.map(usize::from),
            rare,
        };
        parts.read_lines();
        if parts.close && parts.has_close {
            // The caller asked for it in both ways. Both lines are kept as they are; `close` alone
            // would append nothing, since there is a line already.
            parts.lines.extend_from_slice(CLOSE);
            parts.close = false;
        }
        parts
    }

    /// Derives everything else that is stored about the lines from the lines themselves.
    fn read_lines(&mut self) {
        (self.fields, self.expect) = (0, None);
        (self.has_content_type, self.has_close) = (false, false);
        (self.has_upgrade, self.has_upgrade_option) = (false, false);
        for line in lines(&self.lines) {
            self.fields |= field_bit(line.name);
            // Names were checked when their lines were pushed.
            match OwnField::of(str::from_utf8(line.name).unwrap_or_default()) {
                OwnField::ContentType => self.has_content_type = true,
                OwnField::Expect => self.expect = Some(line.place),
                OwnField::Connection => {
                    for option in options(line.value()) {
                        self.has_close |= is_close(option);
                        self.has_upgrade_option |= is_upgrade(option);
                    }
                }
                OwnField::Upgrade => self.has_upgrade = true,
                OwnField::Host
                | OwnField::ContentLength
                | OwnField::TransferEncoding
                | OwnField::Other => {}
            }
        }
    }

    fn without(&mut self, name: &str) {
        match OwnField::of(name) {
            OwnField::Host => self.host = None,
            OwnField::ContentLength => (self.content_length, self.says_length) = (None, false),
            OwnField::ContentType => self.is_form = false,
            OwnField::Connection => self.close = false,
            OwnField::TransferEncoding | OwnField::Upgrade | OwnField::Expect | OwnField::Other => {
            }
        }
        if self.fields & field_bit(name.as_bytes()) == 0 {
            return;
        }
        let mut kept = Vec::with_capacity(self.lines.len());
        for line in lines(&self.lines).filter(|line| !line.is_named(name)) {
            kept.extend_from_slice(&self.lines[line.place]);
        }
        self.lines = kept;
        self.read_lines();
    }

    fn resolve(&mut self, reference: &str) -> Result<(), Invalid> {
        let target = self.target.resolve(reference).and_then(check_scheme);
        let target = target.map_err(|fault| InvalidPart::Reference.is(fault))?;
        if target.origin() != self.target.origin() {
            for meant_for_the_old in ["Host", "Cookie", "Authorization", "Proxy-Authorization"] {
                self.without(meant_for_the_old);
            }
        }
        self.target = target;
        Ok(())
    }

    fn header(&mut self, name: &str, value: &[u8]) -> Result<(), Invalid> {
        let index = self.headers;
        self.headers += 1;
        if let Some(fault) = name_fault(name) {
            return Err(Invalid::header_name(index, name, fault));
        }
        if let Some(fault) = value_fault(value) {
            return Err(InvalidPart::value_of(name).is(fault));
        }
        let refused = |why| Err(InvalidPart::header(name).is(Fault::whole(why)));
        let trimmed = trim(value);
        match OwnField::of(name) {
            OwnField::Host if self.host.is_some() => return refused("given twice"),
            OwnField::Host => self.set_host(name, value)?,
            OwnField::ContentLength if self.content_length.is_some() => {
                return refused("given twice");
            }
            OwnField::ContentLength => self.set_content_length(name, trimmed)?,
            OwnField::TransferEncoding => {
                return refused("the length of the body is known and sent as Content-Length");
            }
            OwnField::Upgrade => {
                self.has_upgrade = true;
                self.push_line(name, trimmed);
            }
            OwnField::Connection => self.push_connection(name, trimmed)?,
            OwnField::Expect => self.push_expect(name, trimmed)?,
            OwnField::ContentType => {
                self.has_content_type = true;
                self.push_line(name, trimmed);
            }
            OwnField::Other => self.push_line(name, trimmed),
        }
        Ok(())
    }

    fn set_host(&mut self, name: &str, value: &[u8]) -> Result<(), Invalid> {
        let trimmed = trim(value);
        check_host_value(trimmed).map_err(|fault| {
            let before = offset_of_trimmed(value);
            InvalidPart::value_of(name).is(Fault {
                at: fault.at.map(|at| before + at),
                ..fault
            })
        })?;
        self.host = Some(trimmed.into());
        Ok(())
    }

    fn set_content_length(&mut self, name: &str, value: &[u8]) -> Result<(), Invalid> {
        self.content_length = decimal(value);
        match self.content_length {
            Some(_) => Ok(()),
            None => Err(InvalidPart::value_of(name).is(Fault::whole("not a decimal number"))),
        }
    }

    fn push_connection(&mut self, name: &str, value: &[u8]) -> Result<(), Invalid> {
        for option in options(value) {
            self.has_upgrade_option |= is_upgrade(option);
            self.has_close |= is_close(option);
        }
        self.push_line(name, value);
        Ok(())
    }

    fn push_expect(&mut self, name: &str, value: &[u8]) -> Result<(), Invalid> {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            let fault = Fault::whole("100-continue is the only expectation defined");
            return Err(InvalidPart::value_of(name).is(fault));
        }
        // One line is enough, and a single line is easy to remove.
        if self.expect.is_none() {
            let start = self.lines.len();
            self.push_line(name, value);
            self.expect = Some(start..self.lines.len());
        }
        Ok(())
    }

    fn push_line(&mut self, name: &str, value: &[u8]) {
        for piece in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.lines.extend_from_slice(piece);
        }
        self.fields |= field_bit(name.as_bytes());
    }

    fn build(mut self) -> Result<Request, Invalid> {
        if self.method == Method::TRACE && !self.body.is_empty() {
            let fault = Fault::whole("a TRACE request has none");
            return Err(InvalidPart::Body.is(fault));
        }
        let length = self.body.len() as u64;
        if self.content_length.is_some_and(|given| given != length) {
            let fault = Fault::whole("not the length of the body");
            return Err(InvalidPart::value_of("Content-Length").is(fault));
        }
        if self.body.is_empty()
            && let Some(line) = self.expect.take()
        {
            self.lines.drain(line);
            self.read_lines();
        }
        let has_form_type = self.is_form && !self.has_content_type;
        if has_form_type {
            self.push_line("Content-Type", b"application/x-www-form-urlencoded");
        }
        let says_length = self.says_length || self.content_length.is_some();
        if length > 0 || awaits_body(&self.method) || says_length {
            self.push_line("Content-Length", length.to_string().as_bytes());
        }
        if self.close && !self.has_close {
            self.lines.extend_from_slice(CLOSE);
            self.fields |= field_bit(b"connection");
        }
        match (self.has_upgrade, self.has_upgrade_option) {
            // RFC 9110 §7.8: a sender of Upgrade also sends the connection option `upgrade`.
            (true, false) => {
                self.lines.extend_from_slice(UPGRADE);
                self.fields |= field_bit(b"connection");
            }
            (false, true) => {
                let fault = Fault::whole("there is no Upgrade field");
                return Err(InvalidPart::value_of("Connection").is(fault));
            }
            (true, true) | (false, false) => {}
        }
        let idempotent = self.idempotent.unwrap_or(matches!(
            self.method,
            Method::GET
                | Method::HEAD
                | Method::OPTIONS
                | Method::TRACE
                | Method::PUT
                | Method::DELETE
        ));

        self.rare.pipeline = match self.pipeline {
            Some(depth) => Some(self.check_pipeline(depth, idempotent)?),
            None => None,
        };

        Ok(Request::new(Checked {
            method: &self.method,
            target: &self.target,
            own_host: self.host.as_deref(),
            lines: &self.lines,
            fields: self.fields,
            body: self.body,
            is_idempotent: idempotent,
            idempotence_is_explicit: self.idempotent.is_some(),
            has_form_type,
            wants_fresh_connection: self.fresh,
            wants_close: self.close || self.has_close,
            wants_upgrade: self.has_upgrade,
            expects_continue: self.expect.is_some(),
            timeouts: self.timeouts,
            rare: self.rare,
        }))
    }

    /// Checks the depth given to [`RequestBuilder::pipeline`] and returns it as a request stores
    /// it.
    fn check_pipeline(&self, depth: usize, idempotent: bool) -> Result<u16, Invalid> {
        let refused = |why| Err(InvalidPart::Pipeline.is(Fault::whole(why)));
        match u16::try_from(depth) {
            Ok(1) => Ok(1),
            Ok(2..=MAX_PIPELINE) if !idempotent => {
                refused("not idempotent, so it could not be sent again if the connection broke")
            }
            Ok(2..=MAX_PIPELINE) if self.close || self.has_close => {
                refused("it closes the connection")
            }
            Ok(2..=MAX_PIPELINE) if self.has_upgrade => {
                refused("the connection may switch to another protocol")
            }
            Ok(2..=MAX_PIPELINE) if self.fresh => refused("it uses a connection of its own"),
            Ok(2..=MAX_PIPELINE) if self.expect.is_some() => {
                refused("its body waits for an interim response (Expect)")
            }
            Ok(depth @ 2..=MAX_PIPELINE) => Ok(depth),
            Ok(0 | 1025..) | Err(_) => refused("the depth must be from 1 (off) to 1024"),
        }
    }
}

/// The fields that are not solely the caller's: those of message framing and of the connection, and
/// those that decide when something is sent.
#[derive(Clone, Copy)]
enum OwnField {
    Host,
    ContentLength,
    TransferEncoding,
    Upgrade,
    Connection,
    Expect,
    ContentType,
    Other,
}

impl OwnField {
    fn of(name: &str) -> Self {
        const NAMES: [(&str, OwnField); 7] = [
            ("host", OwnField::Host),
            ("content-length", OwnField::ContentLength),
            ("transfer-encoding", OwnField::TransferEncoding),
            ("upgrade", OwnField::Upgrade),
            ("connection", OwnField::Connection),
            ("expect", OwnField::Expect),
            ("content-type", OwnField::ContentType),
        ];
        NAMES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map_or(OwnField::Other, |(_, known)| *known)
    }
}

fn check_scheme(target: Target) -> Result<Target, Fault> {
    match target.origin().scheme() {
        Scheme::Https if !has_tls() => Err(Fault::rule(0, "https needs the feature `tls`")),
        Scheme::Http | Scheme::Https => Ok(target),
    }
}

/// Whether a request of this method has a Content-Length even if its body is empty (RFC 9110 §8.6).
fn awaits_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Iterates over the options in the value of a Connection field (RFC 9110 §7.6.1).
fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}

fn is_upgrade(option: &[u8]) -> bool {
    option.eq_ignore_ascii_case(b"upgrade")
}

fn is_close(option: &[u8]) -> bool {
    option.eq_ignore_ascii_case(b"close")
}

fn is_named(line: &[u8], name: &str) -> bool {
    lines(line).any(|line| line.is_named(name))
}

/// Removes the last line if `is` holds for it, and returns whether it did.
fn take_last(lines: &mut &[u8], is: impl Fn(&[u8]) -> bool) -> bool {
    let before = lines.strip_suffix(b"\n").unwrap_or_default();
    let start = before.iter().rposition(|&b| b == b'\n');
    let (rest, last) = lines.split_at(start.map_or(0, |at| at + 1));
    let found = is(last);
    if found {
        *lines = rest;
    }
    found
}

fn method_fault(method: &Method) -> Option<Fault> {
    let bytes = method.as_str().as_bytes();
    if *method == Method::CONNECT {
        return Some(Fault::whole(
            "CONNECT asks for a tunnel, not for a response",
        ));
    }
    if bytes.len() > MAX_METHOD {
        return Some(Fault::rule(MAX_METHOD, "longer than 255 bytes"));
    }
    // `http` checks methods by its own table, which agrees with RFC 9110. An error in it would
    // allow request injection, so the method is checked here again.
    token_fault(bytes)
}

/// Parses `1*DIGIT`: no sign, which `str::parse` would accept.
fn decimal(bytes: &[u8]) -> Option<u64> {
    if !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(bytes).ok()?.parse().ok()
}

/// The serializer of application/x-www-form-urlencoded of WHATWG URL §5.2.
fn push_form(out: &mut String, text: &str) {
    for (i, word) in text.split(' ').enumerate() {
        if i > 0 {
            out.push('+');
        }
        percent_encode(out, word.as_bytes(), |b| {
            b.is_ascii_alphanumeric() || matches!(b, b'*' | b'-' | b'.' | b'_')
        });
    }
}

#[cfg(test)]
mod tests;
