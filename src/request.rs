//! Requests: built once, checked once, serialised once.
//!
//! Whatever cannot be sent is refused in [`RequestBuilder::build`], so that nothing after it needs a check: no byte of a caller's can
//! end a line, and the framing is always a Content-Length which is true (RFC 9112 §11.1 and §11.2 are what this prevents). What is
//! added on the way, such as User-Agent, is the engine's business; how URLs are read is that of `proto::target`.

use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, Uri};

use crate::config::{Clock, Limits, LimitsEdit, Millis, Timeouts, change_limits};
use crate::error::Error;
use crate::proto::target::{Fault, Target, check_host_value, percent_encode};
use crate::proto::{Invalid, InvalidPart, Origin, Scheme};

/// The longest method in bytes; the longest in the IANA registry has 17.
const MAX_METHOD: usize = 255;

/// What a long poll is allowed beyond the server's own silence: the way there and back, and a server that is late.
const HOLD_SLACK: Duration = Duration::from_secs(10);

/// What a long poll is allowed besides its silence, in all: connecting, sending, and reading the answer.
const HOLD_REST: Duration = Duration::from_secs(30);

const KEEPS_PROTOCOL: &str = "a connection keeps its protocol";

/// Whether `https` can be sent.
const fn has_tls() -> bool {
    false
}

/// A request: a value, serialised once, cheap to clone and to send between threads.
///
/// `Debug` shows the method and the origin, and neither path, query, fields nor body: a token in a path is as secret as a password.
///
/// ```
/// use httpstream::Request;
///
/// let request = Request::get("http://example.com/search")
///     .query([("q", "long poll")])
///     .header("Accept", "text/html")
///     .build()?;
/// assert_eq!(request.uri(), "http://example.com/search?q=long%20poll");
/// assert_eq!(format!("{request:?}"), "Request { method: GET, origin: http://example.com }");
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone)]
pub struct Request(Arc<Inner>);

/// Ten thousand of these wait at once, each with a URL of its own: what can be read from the head is not kept beside it.
struct Inner {
    /// The head; before it the origin's host, where the caller's own Host value took its place in the head.
    store: Box<[u8]>,
    body: Box<[u8]>,
    parsed: OnceLock<Box<Parsed>>,
    limits: Option<Box<LimitsEdit>>,
    timeouts: Millis,
    /// The [`field_bit`] of each field in the head.
    fields: u32,
    /// Where in `store` the host begins; 0: before the head rather than in it.
    host_at: u32,
    port: u16,
    host_len: u8,
    flags: Flags,
}

/// What the engine itself never asks for.
struct Parsed {
    method: Method,
    uri: Uri,
}

#[derive(Clone, Copy)]
struct Flags(u8);

impl Flags {
    const HTTPS: Self = Self(1);
    const IDEMPOTENT: Self = Self(2);
    const FRESH: Self = Self(4);
    const CLOSE: Self = Self(8);
    const EXPECT: Self = Self(16);

    fn with(self, other: Self, yes: bool) -> Self {
        match yes {
            true => Self(self.0 | other.0),
            false => self,
        }
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl Request {
    /// Begins a GET request (RFC 9110 §9.3.1).
    ///
    /// `url` is absolute, `http` (`https` is refused as long as there is no TLS), its host in ASCII (the A-label form, `xn--`, of any other) or an IP address. Path and
    /// query may be encoded or not: what cannot stand in a URL is percent-encoded, `%` stays as it is, a fragment is dropped.
    /// Credentials (`user:password@`) are refused.
    pub fn get(url: &str) -> RequestBuilder {
        Self::builder(Method::GET, url)
    }

    /// Begins a HEAD request (RFC 9110 §9.3.2).
    pub fn head(url: &str) -> RequestBuilder {
        Self::builder(Method::HEAD, url)
    }

    /// Begins a POST request (RFC 9110 §9.3.3).
    pub fn post(url: &str) -> RequestBuilder {
        Self::builder(Method::POST, url)
    }

    /// Begins a PUT request (RFC 9110 §9.3.4).
    pub fn put(url: &str) -> RequestBuilder {
        Self::builder(Method::PUT, url)
    }

    /// Begins a PATCH request (RFC 5789).
    pub fn patch(url: &str) -> RequestBuilder {
        Self::builder(Method::PATCH, url)
    }

    /// Begins a DELETE request (RFC 9110 §9.3.5).
    pub fn delete(url: &str) -> RequestBuilder {
        Self::builder(Method::DELETE, url)
    }

    /// Begins an OPTIONS request (RFC 9110 §9.3.7) about the URL; `*`, the server as a whole, has no URL.
    pub fn options(url: &str) -> RequestBuilder {
        Self::builder(Method::OPTIONS, url)
    }

    /// Begins a request with any method but CONNECT, which asks for a tunnel. For `url` see [`get`](Self::get).
    pub fn builder(method: Method, url: &str) -> RequestBuilder {
        RequestBuilder(Parts::new(method, url))
    }

    /// The method.
    pub fn method(&self) -> &Method {
        match self.method_bytes() {
            b"GET" => &Method::GET,
            b"HEAD" => &Method::HEAD,
            b"POST" => &Method::POST,
            b"PUT" => &Method::PUT,
            b"PATCH" => &Method::PATCH,
            b"DELETE" => &Method::DELETE,
            b"OPTIONS" => &Method::OPTIONS,
            b"TRACE" => &Method::TRACE,
            _ => &self.parsed().method,
        }
    }

    /// The URL in absolute form, encoded as it goes out, without fragment. Parsed at the first call and kept.
    pub fn uri(&self) -> &Uri {
        &self.parsed().uri
    }

    fn parsed(&self) -> &Parsed {
        self.0.parsed.get_or_init(|| {
            let mut words = self.wire_head().splitn(3, |&b| b == b' ');
            let method = words.next().unwrap_or_default();
            let path = String::from_utf8_lossy(words.next().unwrap_or_default());
            Box::new(Parsed {
                method: Method::from_bytes(method).expect("it was a Method before"),
                uri: format!("{}{path}", self.origin())
                    .parse()
                    .expect("Target takes less than http::Uri"),
            })
        })
    }

    fn method_bytes(&self) -> &[u8] {
        let head = self.wire_head();
        let end = head.iter().position(|&b| b == b' ');
        &head[..end.unwrap_or_default()]
    }

    /// Request line and field lines, each with its CRLF. The empty line after them is the engine's, which may add fields first.
    pub(crate) fn wire_head(&self) -> &[u8] {
        let start = match self.0.host_at {
            0 => usize::from(self.0.host_len),
            _ => 0,
        };
        &self.0.store[start..]
    }

    pub(crate) fn wire_body(&self) -> &[u8] {
        &self.0.body
    }

    pub(crate) fn scheme(&self) -> Scheme {
        match self.0.flags.has(Flags::HTTPS) {
            true => Scheme::Https,
            false => Scheme::Http,
        }
    }

    /// The host to connect to, as in [`Origin::host`].
    pub(crate) fn host(&self) -> &str {
        let start = self.0.host_at as usize;
        let host = &self.0.store[start..start + usize::from(self.0.host_len)];
        str::from_utf8(host).expect("Target takes ASCII hosts only")
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port
    }

    /// Scheme, host and port in one. Allocates.
    pub(crate) fn origin(&self) -> Origin {
        Origin::new(self.scheme(), self.host(), self.port())
    }

    /// Whether it may be sent again after a peer may have processed it: what the caller said, else RFC 9110 §9.2.2.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.0.flags.has(Flags::IDEMPOTENT)
    }

    pub(crate) fn is_head(&self) -> bool {
        self.wire_head().starts_with(b"HEAD ")
    }

    pub(crate) fn wants_fresh_connection(&self) -> bool {
        self.0.flags.has(Flags::FRESH)
    }

    /// Whether the head says `Connection: close`.
    pub(crate) fn wants_close(&self) -> bool {
        self.0.flags.has(Flags::CLOSE)
    }

    pub(crate) fn timeouts(&self) -> &Millis {
        &self.0.timeouts
    }

    pub(crate) fn limits(&self) -> Option<&LimitsEdit> {
        self.0.limits.as_deref()
    }

    /// Where in the head the line `Expect: 100-continue` stands, its CRLF included, for a peer that answered 417. Only a request
    /// with a body has one (RFC 9110 §10.1.1).
    pub(crate) fn expect_line(&self) -> Option<Range<usize>> {
        match self.0.flags.has(Flags::EXPECT) {
            true => field_lines(self.wire_head())
                .find(|line| line.is_named("expect"))
                .map(|line| line.place),
            false => None,
        }
    }

    /// Whether the head has a field of this name, in any case.
    pub(crate) fn has_field(&self, name: &str) -> bool {
        self.0.fields & field_bit(name.as_bytes()) != 0
            && field_lines(self.wire_head()).any(|line| line.is_named(name))
    }

    /// The [`field_bit`] of each field in the head: a field whose bit is not among them is not there.
    pub(crate) fn field_mask(&self) -> u32 {
        self.0.fields
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = String::from_utf8_lossy(self.method_bytes());
        f.debug_struct("Request")
            .field("method", &format_args!("{method}"))
            .field("origin", &self.origin())
            .finish()
    }
}

/// Takes method, URI (which must be absolute), fields in their order, and body. The version is not looked at: what goes out is
/// HTTP/1.1.
///
/// # Errors
/// As [`RequestBuilder::build`].
///
/// ```
/// let ours = httpstream::Request::try_from(http::Request::put("http://example.com/a").body("text")?)?;
/// assert_eq!(ours.method(), http::Method::PUT);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<B: Into<Vec<u8>>> TryFrom<http::Request<B>> for Request {
    type Error = Error;

    fn try_from(request: http::Request<B>) -> Result<Self, Error> {
        let (head, body) = request.into_parts();
        let mut builder = Self::builder(head.method, &head.uri.to_string());
        for (name, value) in &head.headers {
            builder = builder.header(name.as_str(), value);
        }
        builder.body(body).build()
    }
}

/// One bit of 32 for a field name in any case: names with different bits differ.
pub(crate) fn field_bit(name: &[u8]) -> u32 {
    // FNV-1a, whose upper bits are the well mixed ones.
    let hash = name.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    });
    1 << (hash >> 27)
}

struct FieldLine<'a> {
    /// Where in the head, CRLF included.
    place: Range<usize>,
    name: &'a [u8],
}

impl FieldLine<'_> {
    fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The field lines of a head of ours: each ends in CRLF, and no LF stands anywhere else.
fn field_lines(head: &[u8]) -> impl Iterator<Item = FieldLine<'_>> {
    let mut end = 0;
    head.split_inclusive(|&b| b == b'\n')
        .map(move |line| {
            let start = end;
            end += line.len();
            let colon = line.iter().position(|&b| b == b':');
            FieldLine {
                place: start..end,
                name: &line[..colon.unwrap_or_default()],
            }
        })
        .skip(1)
}

/// Collects a [`Request`]. The first mistake is kept, and comes out of [`build`](Self::build).
#[must_use = "nothing is checked or sent before `build`"]
pub struct RequestBuilder(Result<Parts, Invalid>);

struct Parts {
    method: Method,
    target: Target,
    /// The caller's field lines in their order, without Host and Content-Length.
    lines: Vec<u8>,
    /// The [`field_bit`] of each name in `lines`.
    fields: u32,
    /// Calls of `header` so far.
    headers: usize,
    host: Option<Box<[u8]>>,
    content_length: Option<u64>,
    has_content_type: bool,
    /// Where in `lines` the Expect line stands.
    expect: Option<Range<usize>>,
    has_close: bool,
    close: bool,
    body: Vec<u8>,
    is_form: bool,
    timeouts: Millis,
    limits: Option<Box<LimitsEdit>>,
    idempotent: Option<bool>,
    fresh: bool,
}

impl RequestBuilder {
    fn with(mut self, step: impl FnOnce(&mut Parts) -> Result<(), Invalid>) -> Self {
        if let Ok(parts) = &mut self.0
            && let Err(invalid) = step(parts)
        {
            self.0 = Err(invalid);
        }
        self
    }

    /// Adds a field line; several of one name stay several lines (RFC 9110 §5.2). Whitespace around the value is taken off.
    ///
    /// `Host` replaces the one from the URL, and connects to the URL's host all the same. `Content-Length` must be the body's.
    /// `Connection: close` is as [`close`](Self::close). `Expect: 100-continue` is left out where there is no body to hold back.
    ///
    /// Refused: names that are no tokens (RFC 9110 §5.1), control bytes other than HTAB in values (§5.5), a second `Host`
    /// or `Content-Length`, `Transfer-Encoding` (the length of a body is known), `Upgrade`, and any other `Expect`.
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.with(|parts| parts.header(name, value.as_ref()))
    }

    /// Appends `name=value` pairs to the URL's query, all but unreserved characters (RFC 3986 §2.3) percent-encoded; a space
    /// becomes `%20`.
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

    /// Makes the body a form (`application/x-www-form-urlencoded`, a space becomes `+`), and says so in `Content-Type` unless
    /// there is one. Replaces an earlier body.
    ///
    /// ```
    /// let login = httpstream::Request::post("http://example.com/login").form([("user", "a b"), ("code", "1&2")]).build()?;
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
            parts.body = form.into_bytes();
            parts.is_form = true;
            Ok(())
        })
    }

    /// Sets the body. Its length goes out as `Content-Length`; an empty body has one with POST, PUT and PATCH only (RFC 9110 §8.6).
    pub fn body(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.with(|parts| {
            parts.body = bytes.into();
            parts.is_form = false;
            Ok(())
        })
    }

    /// Sets [`Timeouts::total`]: from the submission, time in the queue included, to the end of the response's body, but without
    /// the delay of a delayed request.
    pub fn timeout(self, total: Duration) -> Self {
        self.with(|parts| {
            parts.timeouts.set(Clock::Total, Some(total));
            Ok(())
        })
    }

    /// Makes it a long poll: the server may be silent for as long as `silence`.
    ///
    /// [`Timeouts::first_byte`] and [`Timeouts::idle`] become `silence` and 10 s, for the way there and back; [`Timeouts::total`],
    /// whether set here or in the engine, is lifted to `silence` and 40 s where it is shorter. A later call of
    /// [`timeout`](Self::timeout) wins.
    pub fn hold(self, silence: Duration) -> Self {
        self.with(|parts| {
            let quiet = silence.saturating_add(HOLD_SLACK);
            parts.timeouts.set(Clock::FirstByte, Some(quiet));
            parts.timeouts.set(Clock::Idle, Some(quiet));
            parts
                .timeouts
                .lift(Clock::Total, quiet.saturating_add(HOLD_REST));
            Ok(())
        })
    }

    /// Changes the deadlines for this request. What `change` leaves alone stays the engine's own
    /// ([`Config::timeouts`](crate::Config::timeouts)), though `change` is shown the defaults.
    pub fn timeouts(self, change: impl FnOnce(&mut Timeouts)) -> Self {
        self.with(|parts| {
            parts.timeouts.change(change);
            Ok(())
        })
    }

    /// Changes the bounds on this request's response. What `change` leaves alone stays the engine's own
    /// ([`Config::limits`](crate::Config::limits)), though `change` is shown the defaults. An engine's
    /// [`refuse_obs_fold`](Limits::refuse_obs_fold) can be turned on here, not off.
    pub fn limits(self, change: impl FnOnce(&mut Limits)) -> Self {
        self.with(|parts| {
            parts.limits = Some(Box::new(change_limits(parts.limits.as_deref(), change)));
            Ok(())
        })
    }

    /// Says whether the request may be sent again after the peer may have processed it, in place of what the method says: GET,
    /// HEAD, OPTIONS, TRACE, PUT and DELETE may (RFC 9110 §9.2.2). True of a POST with a transaction id that the server knows again.
    pub fn idempotent(self, yes: bool) -> Self {
        self.with(|parts| {
            parts.idempotent = Some(yes);
            Ok(())
        })
    }

    /// Sends it on a connection of its own making, not on one from the pool.
    pub fn fresh_connection(self) -> Self {
        self.with(|parts| {
            parts.fresh = true;
            Ok(())
        })
    }

    /// Sends `Connection: close`: the connection serves no request after this one (RFC 9112 §9.6).
    pub fn close(self) -> Self {
        self.with(|parts| {
            parts.close = true;
            Ok(())
        })
    }

    /// Checks what is left to check, and serialises.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest) with an [`Invalid`] as its source: the first mistake of the
    /// chain, or one of the whole: a `Content-Length` that is not the body's, a TRACE request with a body (RFC 9110 §9.3.8).
    pub fn build(self) -> Result<Request, Error> {
        self.0
            .and_then(Parts::build)
            .map(|inner| Request(Arc::new(inner)))
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

impl Parts {
    fn new(method: Method, url: &str) -> Result<Self, Invalid> {
        if let Some(fault) = method_fault(&method) {
            return Err(InvalidPart::Method.is(fault));
        }
        let target = Target::parse(url).map_err(|fault| InvalidPart::Url.is(fault))?;
        if target.origin().scheme() == Scheme::Https && !has_tls() {
            let fault = Fault::rule(0, "https is not supported yet: there is no TLS");
            return Err(InvalidPart::Url.is(fault));
        }
        Ok(Self {
            method,
            target,
            lines: Vec::new(),
            fields: 0,
            headers: 0,
            host: None,
            content_length: None,
            has_content_type: false,
            expect: None,
            has_close: false,
            close: false,
            body: Vec::new(),
            is_form: false,
            timeouts: Millis::INHERITED,
            limits: None,
            idempotent: None,
            fresh: false,
        })
    }

    fn header(&mut self, name: &str, value: &[u8]) -> Result<(), Invalid> {
        let index = self.headers;
        self.headers += 1;
        if let Some(fault) = name_fault(name) {
            return Err(InvalidPart::HeaderName { index }.is(fault));
        }
        if let Some(fault) = value_fault(value) {
            return Err(InvalidPart::value_of(name).is(fault));
        }
        let refused = |why| Err(InvalidPart::header(name).is(Fault::whole(why)));
        let trimmed = trim(value);
        match Known::of(name) {
            Known::Host if self.host.is_some() => return refused("given twice"),
            Known::Host => self.set_host(name, value)?,
            Known::ContentLength if self.content_length.is_some() => return refused("given twice"),
            Known::ContentLength => self.set_content_length(name, trimmed)?,
            Known::TransferEncoding => {
                return refused(
                    "the length of a request's body is known, and sent as Content-Length",
                );
            }
            Known::Upgrade => return refused(KEEPS_PROTOCOL),
            Known::Connection => self.push_connection(name, trimmed)?,
            Known::Expect => self.push_expect(name, trimmed)?,
            Known::ContentType => {
                self.has_content_type = true;
                self.push_line(name, trimmed);
            }
            Known::Other => self.push_line(name, trimmed),
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
        for option in value.split(|&b| b == b',').map(trim) {
            if option.eq_ignore_ascii_case(b"upgrade") {
                return Err(InvalidPart::value_of(name).is(Fault::whole(KEEPS_PROTOCOL)));
            }
            self.has_close |= option.eq_ignore_ascii_case(b"close");
        }
        self.push_line(name, value);
        Ok(())
    }

    fn push_expect(&mut self, name: &str, value: &[u8]) -> Result<(), Invalid> {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            let fault = Fault::whole("100-continue is the only expectation there is");
            return Err(InvalidPart::value_of(name).is(fault));
        }
        // Said once is enough, and one line is easily taken out again.
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

    fn build(mut self) -> Result<Inner, Invalid> {
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
        }
        if self.is_form && !self.has_content_type {
            self.push_line("Content-Type", b"application/x-www-form-urlencoded");
        }
        let awaits_body = matches!(self.method, Method::POST | Method::PUT | Method::PATCH);
        if length > 0 || awaits_body || self.content_length.is_some() {
            self.push_line("Content-Length", length.to_string().as_bytes());
        }
        if self.close && !self.has_close {
            self.push_line("Connection", b"close");
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

        let origin = self.target.origin();
        let (store, host_at) = self.serialise();
        Ok(Inner {
            store: store.into_boxed_slice(),
            parsed: OnceLock::new(),
            fields: self.fields | field_bit(b"host"),
            host_at: u32::try_from(host_at).expect("method and URL are bounded"),
            host_len: u8::try_from(origin.host().len()).expect("hosts are bounded"),
            port: origin.port(),
            flags: Flags(0)
                .with(Flags::HTTPS, origin.scheme() == Scheme::Https)
                .with(Flags::IDEMPOTENT, idempotent)
                .with(Flags::FRESH, self.fresh)
                .with(Flags::CLOSE, self.close || self.has_close)
                .with(Flags::EXPECT, self.expect.is_some()),
            body: self.body.into_boxed_slice(),
            limits: self.limits,
            timeouts: self.timeouts,
        })
    }

    /// [`Inner::store`] and [`Inner::host_at`].
    fn serialise(&self) -> (Vec<u8>, usize) {
        let (method, path, origin) = (
            self.method.as_str(),
            self.target.path(),
            self.target.origin(),
        );
        let own_host = self.host.as_deref().unwrap_or_default();
        // " ", " HTTP/1.1\r\n", "Host: ", "[]:65535", "\r\n".
        const AROUND: usize = 1 + 11 + 6 + 8 + 2;
        let mut store = Vec::with_capacity(
            method.len()
                + path.len()
                + origin.host().len()
                + own_host.len()
                + self.lines.len()
                + AROUND,
        );
        let mut write = |line: fmt::Arguments<'_>| {
            store.write_fmt(line).expect("a Vec takes all");
            store.len()
        };
        let host_at = match self.host {
            None => {
                let name = write(format_args!("{method} {path} HTTP/1.1\r\nHost: "));
                write(format_args!("{}", origin.authority()));
                name + usize::from(origin.host().contains(':'))
            }
            Some(_) => {
                write(format_args!(
                    "{}{method} {path} HTTP/1.1\r\nHost: ",
                    origin.host()
                ));
                store.extend_from_slice(own_host);
                0
            }
        };
        store.extend_from_slice(b"\r\n");
        store.extend_from_slice(&self.lines);
        (store, host_at)
    }
}

/// The fields that are not the caller's alone: those of the message's framing, of the connection, and of what is sent when.
#[derive(Clone, Copy)]
enum Known {
    Host,
    ContentLength,
    TransferEncoding,
    Upgrade,
    Connection,
    Expect,
    ContentType,
    Other,
}

impl Known {
    fn of(name: &str) -> Self {
        const NAMES: [(&str, Known); 7] = [
            ("host", Known::Host),
            ("content-length", Known::ContentLength),
            ("transfer-encoding", Known::TransferEncoding),
            ("upgrade", Known::Upgrade),
            ("connection", Known::Connection),
            ("expect", Known::Expect),
            ("content-type", Known::ContentType),
        ];
        NAMES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map_or(Known::Other, |(_, known)| *known)
    }
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
    // http's own table agrees with RFC 9110; injection would be too high a price for a slip in it.
    token_fault(bytes)
}

fn name_fault(name: &str) -> Option<Fault> {
    match name {
        "" => Some(Fault::whole("is empty")),
        _ => token_fault(name.as_bytes()),
    }
}

fn token_fault(bytes: &[u8]) -> Option<Fault> {
    let at = bytes.iter().position(|&b| !is_tchar(b))?;
    Some(Fault::byte(at, bytes[at]))
}

/// RFC 9110 §5.6.2.
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 §5.5: visible ASCII, SP, HTAB and obs-text.
fn value_fault(value: &[u8]) -> Option<Fault> {
    let is_bad = |b: &u8| b.is_ascii_control() && *b != b'\t';
    let at = value.iter().position(is_bad)?;
    Some(Fault::byte(at, value[at]))
}

/// Takes off optional whitespace (RFC 9110 §5.6.3): SP and HTAB, and nothing else that Unicode or C calls a space.
fn trim(value: &[u8]) -> &[u8] {
    let is_text = |b: &u8| !matches!(b, b' ' | b'\t');
    let start = offset_of_trimmed(value);
    let end = value.iter().rposition(is_text).map_or(start, |at| at + 1);
    &value[start..end]
}

fn offset_of_trimmed(value: &[u8]) -> usize {
    let blank = |b: &&u8| matches!(b, b' ' | b'\t');
    value.iter().take_while(blank).count()
}

/// `1*DIGIT`: no sign, which `str::parse` would take.
fn decimal(bytes: &[u8]) -> Option<u64> {
    if !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(bytes).ok()?.parse().ok()
}

/// The serialiser of application/x-www-form-urlencoded in WHATWG URL §5.2.
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
mod tests {
    use std::mem::size_of;

    use std::error::Error as _;

    use super::*;
    use crate::error::ErrorKind;

    const URL: &str = "http://example.com/a";

    fn built(builder: RequestBuilder) -> Request {
        builder.build().unwrap_or_else(|error| panic!("{error:?}"))
    }

    fn refused(builder: RequestBuilder) -> Invalid {
        let error = builder.build().expect_err("a mistake");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        error
            .source()
            .and_then(|source| source.downcast_ref::<Invalid>())
            .expect("an Invalid")
            .clone()
    }

    fn head(request: &Request) -> &str {
        str::from_utf8(request.wire_head()).expect("ASCII")
    }

    fn method(name: &str) -> Method {
        Method::from_bytes(name.as_bytes()).expect("a token")
    }

    #[test]
    fn heads_go_out_as_written_here() {
        #[rustfmt::skip]
        let rows: Vec<(&str, RequestBuilder, &str, &[u8])> = vec![
            ("plain", Request::get(URL), "GET /a HTTP/1.1\r\nHost: example.com\r\n", b""),
            (
                "fields keep order, case and number",
                Request::get(URL).header("x-B", "1").header("X-a", "").header("x-b", "2"),
                "GET /a HTTP/1.1\r\nHost: example.com\r\nx-B: 1\r\nX-a: \r\nx-b: 2\r\n",
                b"",
            ),
            (
                "whitespace around a value is taken off, inside it stays",
                Request::get(URL).header("x", " \t a \t b\t "),
                "GET /a HTTP/1.1\r\nHost: example.com\r\nx: a \t b\r\n",
                b"",
            ),
            ("IPv6", Request::get("http://[::1]:81"), "GET / HTTP/1.1\r\nHost: [::1]:81\r\n", b""),
            ("head", Request::head(URL), "HEAD /a HTTP/1.1\r\nHost: example.com\r\n", b""),
            ("delete", Request::delete(URL), "DELETE /a HTTP/1.1\r\nHost: example.com\r\n", b""),
            ("options", Request::options(URL), "OPTIONS /a HTTP/1.1\r\nHost: example.com\r\n", b""),
            ("post without body", Request::post(URL), "POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n", b""),
            ("put without body", Request::put(URL), "PUT /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n", b""),
            ("patch without body", Request::patch(URL).body(""), "PATCH /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n", b""),
            ("delete with body", Request::delete(URL).body("abc"), "DELETE /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 3\r\n", b"abc"),
            ("get with an empty body", Request::get(URL).body(""), "GET /a HTTP/1.1\r\nHost: example.com\r\n", b""),
            ("method of one's own", Request::builder(method("MKCOL"), URL).header("a", "b"), "MKCOL /a HTTP/1.1\r\nHost: example.com\r\na: b\r\n", b""),
            (
                "length and close come last",
                Request::post(URL).close().body("x").header("a", "b"),
                "POST /a HTTP/1.1\r\nHost: example.com\r\na: b\r\nContent-Length: 1\r\nConnection: close\r\n",
                b"x",
            ),
            ("close is said once", Request::get(URL).header("connection", "TE, Close").close(), "GET /a HTTP/1.1\r\nHost: example.com\r\nconnection: TE, Close\r\n", b""),
            (
                "a length that agrees is written once",
                Request::post(URL).header("content-length", " 03 ").body("abc"),
                "POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 3\r\n",
                b"abc",
            ),
            ("length 0 on a get", Request::get(URL).header("Content-Length", "0"), "GET /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n", b""),
            ("own Host comes first", Request::get(URL).header("a", "b").header("host", " Other:8080 "), "GET /a HTTP/1.1\r\nHost: Other:8080\r\na: b\r\n", b""),
            ("queries add up", Request::get("http://a/?x").query([("k", "a b")]).query([(String::from("ü"), "+")]), "GET /?x&k=a%20b&%C3%BC=%2B HTTP/1.1\r\nHost: a\r\n", b""),
            (
                "form",
                Request::post(URL).form([("a b", "c+d&e=f"), ("", "é~*\r\n")]),
                "POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 38\r\n",
                b"a+b=c%2Bd%26e%3Df&=%C3%A9%7E*%0D%0A",
            ),
            (
                "form under another type",
                Request::post(URL).form([("a", "b")]).header("content-type", "x/y"),
                "POST /a HTTP/1.1\r\nHost: example.com\r\ncontent-type: x/y\r\nContent-Length: 3\r\n",
                b"a=b",
            ),
            (
                "a body takes the place of a form, type and all",
                Request::post(URL).form([("a", "b")]).body("cd"),
                "POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 2\r\n",
                b"cd",
            ),
            (
                "expectation without body is left out",
                Request::post(URL).header("Expect", "100-continue").header("a", "b"),
                "POST /a HTTP/1.1\r\nHost: example.com\r\na: b\r\nContent-Length: 0\r\n",
                b"",
            ),
        ];
        for (why, builder, expected, body) in rows {
            let request = built(builder);
            let expected = expected.replace(
                "Content-Length: 38",
                &format!("Content-Length: {}", request.wire_body().len()),
            );
            assert_eq!(head(&request), expected, "{why}");
            assert_eq!(request.wire_body(), body, "{why}");
        }
    }

    #[test]
    fn obs_text_goes_out_as_it_is() {
        let request = built(Request::get(URL).header("x", [0x80, b' ', 0xff]));
        assert!(request.wire_head().ends_with(b"x: \x80 \xff\r\n"));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_with_its_place() {
        let part = |name: &str| InvalidPart::header(name);
        let value = |name: &str| InvalidPart::value_of(name);
        let name = |index| InvalidPart::HeaderName { index };
        #[rustfmt::skip]
        let rows: Vec<(&str, RequestBuilder, InvalidPart, Option<usize>)> = vec![
            ("url", Request::get("http://a b/"), InvalidPart::Url, Some(8)),
            ("https", Request::get("https://a/"), InvalidPart::Url, Some(0)),
            ("connect", Request::builder(Method::CONNECT, URL), InvalidPart::Method, None),
            ("endless method", Request::builder(method(&"M".repeat(256)), URL), InvalidPart::Method, Some(255)),
            ("trace with a body", Request::builder(Method::TRACE, URL).body("a"), InvalidPart::Body, None),
            ("endless query", Request::get(URL).query([("a", "b".repeat(70_000))]), InvalidPart::Query, None),
            ("empty name", Request::get(URL).header("", "a"), name(0), None),
            ("space before the colon", Request::get(URL).header("a", "").header("b ", "c"), name(1), Some(1)),
            ("colon in a name", Request::get(URL).header("a:b", "c"), name(0), Some(1)),
            ("name not ASCII", Request::get(URL).header("é", "c"), name(0), Some(0)),
            ("pseudo header", Request::get(URL).header(":path", "/"), name(0), Some(0)),
            ("offset counts the whitespace before", Request::get(URL).header("a", "  \x01"), value("a"), Some(2)),
            ("CR behind the value", Request::get(URL).header("a", "b \r"), value("a"), Some(2)),
            ("DEL", Request::get(URL).header("a", "\x7f"), value("a"), Some(0)),
            ("two Hosts", Request::get(URL).header("Host", "a").header("host", "a"), part("host"), None),
            ("malformed Host", Request::get(URL).header("host", " a/"), value("host"), Some(2)),
            ("empty Host", Request::get(URL).header("host", ""), value("host"), Some(0)),
            ("user in Host", Request::get(URL).header("host", "u@a"), value("host"), Some(1)),
            ("two lengths", Request::post(URL).header("content-length", "1").header("Content-Length", "1").body("a"), part("Content-Length"), None),
            ("length too small", Request::post(URL).header("Content-Length", "1").body("ab"), value("Content-Length"), None),
            ("length without body", Request::get(URL).header("Content-Length", "1"), value("Content-Length"), None),
            ("list of lengths", Request::post(URL).header("Content-Length", "1, 1").body("a"), value("Content-Length"), None),
            ("signed length", Request::post(URL).header("Content-Length", "+1").body("a"), value("Content-Length"), None),
            ("empty length", Request::post(URL).header("Content-Length", ""), value("Content-Length"), None),
            ("transfer coding", Request::post(URL).header("transfer-encoding", "chunked"), part("transfer-encoding"), None),
            ("upgrade", Request::get(URL).header("Upgrade", "h2c"), part("Upgrade"), None),
            ("connection upgrade", Request::get(URL).header("Connection", "close , UPGRADE"), value("Connection"), None),
            ("other expectation", Request::put(URL).header("Expect", "x").body("a"), value("Expect"), None),
            ("first of two mistakes", Request::get(URL).header("a\n", "b").header("c", "\n"), name(0), Some(1)),
            ("mistake in front of one of the whole", Request::get(URL).header("Content-Length", "9").header("a", "\0"), value("a"), Some(0)),
        ];
        for (why, builder, part, offset) in rows {
            let invalid = refused(builder);
            assert_eq!((invalid.part(), invalid.offset()), (&part, offset), "{why}");
        }
    }

    #[test]
    fn no_part_takes_a_line_break() {
        for byte in ['\r', '\n', '\0'] {
            for text in [
                format!("{byte}ab"),
                format!("a{byte}b"),
                format!("ab{byte}"),
            ] {
                let at = text.find(byte);
                let name = refused(Request::get(URL).header(&text, "x"));
                assert_eq!(
                    (name.part(), name.offset()),
                    (&InvalidPart::HeaderName { index: 0 }, at)
                );
                for header in ["x", "Host", "Expect", "Connection", "Content-Length"] {
                    let value = refused(Request::get(URL).header(header, &text));
                    assert_eq!(
                        (value.part(), value.offset()),
                        (&InvalidPart::value_of(header), at)
                    );
                }
                let url = refused(Request::get(&format!("http://a/{text}")));
                assert_eq!(
                    (url.part(), url.offset()),
                    (&InvalidPart::Url, at.map(|at| at + 9))
                );
                let host = refused(Request::get(&format!("http://{text}/")));
                assert_eq!(
                    (host.part(), host.offset()),
                    (&InvalidPart::Url, at.map(|at| at + 7))
                );
                assert!(Method::from_bytes(text.as_bytes()).is_err());
                // A query and a form may hold any text: it is encoded.
                let encoded = built(
                    Request::post(URL)
                        .query([(&text, &text)])
                        .form([(&text, &text)]),
                );
                assert_eq!(head(&encoded).matches('\n').count(), 4);
                assert!(!encoded.wire_body().contains(&(byte as u8)));
            }
        }
    }

    #[test]
    fn mistakes_are_told_in_one_clause() {
        #[rustfmt::skip]
        let rows = [
            (Request::get(URL).header("x-a", "abc\r"), r#"header value of "x-a": byte 3 is CR"#),
            (Request::get(URL).header("x a", ""), "name of header 0: byte 1 is SP"),
            (Request::get(URL).header("a(", ""), "name of header 0: byte 1 is '('"),
            (Request::get("http://a:0/"), "url: port is 0 (byte 9)"),
            (Request::get("https://a/"), "url: https is not supported yet: there is no TLS (byte 0)"),
            (Request::get("http://u:p@a/"), "url: userinfo is refused: credentials belong in an Authorization field (byte 10)"),
            (Request::get(URL).header("Upgrade", "x"), r#"header "Upgrade": a connection keeps its protocol"#),
            (Request::builder(Method::TRACE, URL).body("x"), "body: a TRACE request has none"),
        ];
        for (builder, expected) in rows {
            assert_eq!(refused(builder).to_string(), expected);
        }
    }

    #[test]
    fn nothing_shows_a_secret() {
        const SECRET: &str = "s3cret";
        #[rustfmt::skip]
        let rows = [
            Request::get("http://example.com/s3cret?k=s3cret"),
            Request::get(URL).query([(SECRET, SECRET)]).header("authorization", SECRET),
            Request::post(URL).form([(SECRET, SECRET)]),
            Request::get(URL).header("Host", "s3cret"),
            Request::get("http://s3cret:s3cret@example.com/"),
            Request::get("http://example.com/s3cret\n"),
            Request::get("s3cret://example.com/"),
            Request::get("http://[s3cret]/"),
            Request::get(URL).header("authorization", "s3cret\n"),
            Request::get(URL).header("authorization: s3cret", ""),
            Request::get(URL).header("host", "s3cret@a"),
            Request::get(URL).header("content-length", SECRET),
            Request::get(URL).header("expect", SECRET),
            Request::get(URL).header("upgrade", SECRET),
            Request::get(URL).query([("a", SECRET.repeat(20_000))]),
        ];
        for (i, builder) in rows.into_iter().enumerate() {
            let mut shown = format!("{builder:?} {builder:#?}");
            match builder.build() {
                Ok(request) => shown += &format!("{request:?} {request:#?}"),
                Err(error) => {
                    let source = error.source().expect("an Invalid");
                    shown += &format!("{error} {error:?} {source} {source:?}");
                }
            }
            assert!(!shown.contains(SECRET), "row {i}: {shown}");
            for text in ["/s", "/a", "k="] {
                assert!(
                    !shown.replace("http://", "").contains(text),
                    "row {i}: {shown}"
                );
            }
        }
        let shown = format!(
            "{:?}",
            built(Request::builder(method("MKCOL"), "http://[::1]:81/a"))
        );
        assert_eq!(shown, "Request { method: MKCOL, origin: http://[::1]:81 }");
    }

    #[test]
    fn the_engine_is_told_where_to_connect() {
        // URL, Host field, host, port.
        #[rustfmt::skip]
        const ROWS: &[(&str, Option<&str>, &str, u16)] = &[
            ("http://Example.COM", None, "example.com", 80),
            ("http://example.com:81/x", None, "example.com", 81),
            ("http://[::1]:81", None, "::1", 81),
            ("http://[::1]", Some("other:7"), "::1", 80),
            ("http://127.0.0.1:81/", Some("example.com"), "127.0.0.1", 81),
        ];
        for (url, host_field, host, port) in ROWS {
            let mut builder = Request::get(url);
            if let Some(value) = host_field {
                builder = builder.header("Host", value);
            }
            let request = built(builder);
            assert_eq!(
                (request.scheme(), request.host(), request.port()),
                (Scheme::Http, *host, *port)
            );
            assert_eq!(request.origin(), Origin::new(Scheme::Http, host, *port));
            assert_eq!(request.uri().port_u16().unwrap_or(80), *port);
            let value = host_field.map_or(request.origin().authority().to_string(), str::to_owned);
            assert!(head(&request).contains(&format!("\r\nHost: {value}\r\n")));
            assert!(head(&request).starts_with("GET /"));
        }
    }

    #[test]
    fn methods_and_uris_come_back() {
        for name in [
            "GET",
            "HEAD",
            "POST",
            "PUT",
            "PATCH",
            "DELETE",
            "OPTIONS",
            "TRACE",
            "get",
            "MKCOL",
            "A-METHOD-LONGER-THAN-ANY",
        ] {
            let request =
                built(Request::builder(method(name), "http://[::1]:81/ü?a#f").query([("b", "c")]));
            assert_eq!(request.method().as_str(), name);
            assert_eq!(request.uri(), "http://[::1]:81/%C3%BC?a&b=c");
            assert!(std::ptr::eq(request.uri(), request.clone().uri()));
            assert_eq!(request.is_head(), name == "HEAD");
        }
    }

    #[test]
    fn idempotence_follows_the_method_unless_said() {
        const ROWS: &[(&str, bool)] = &[
            ("GET", true),
            ("HEAD", true),
            ("OPTIONS", true),
            ("TRACE", true),
            ("PUT", true),
            ("DELETE", true),
            ("POST", false),
            ("PATCH", false),
            ("MKCOL", false),
            ("get", false),
        ];
        for (name, expected) in ROWS {
            let builder = || Request::builder(method(name), URL);
            assert_eq!(built(builder()).is_idempotent(), *expected, "{name}");
            for said in [true, false] {
                assert_eq!(
                    built(builder().idempotent(said)).is_idempotent(),
                    said,
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn connections_are_asked_for() {
        let plain = built(Request::get(URL).header("Connection", "keep-alive"));
        assert!(!plain.wants_close() && !plain.wants_fresh_connection());
        let fresh = built(Request::get(URL).fresh_connection());
        assert!(!fresh.wants_close() && fresh.wants_fresh_connection());
        for closing in [
            Request::get(URL).close(),
            Request::get(URL).header("CONNECTION", "x,\tcLose"),
        ] {
            let closing = built(closing);
            assert!(closing.wants_close() && !closing.wants_fresh_connection());
        }
    }

    #[test]
    fn expect_line_can_be_cut_out() {
        let request = built(
            Request::put(URL)
                .header("a", "Expect: 1")
                .header("eXpect", "100-Continue")
                .header("expect", "100-continue")
                .header("b", "")
                .body("x"),
        );
        let line = request.expect_line().expect("a line");
        assert_eq!(&head(&request)[line.clone()], "eXpect: 100-Continue\r\n");
        let mut rest = head(&request).to_owned();
        rest.replace_range(line, "");
        assert_eq!(
            rest,
            "PUT /a HTTP/1.1\r\nHost: example.com\r\na: Expect: 1\r\nb: \r\nContent-Length: 1\r\n"
        );
        // A caller's Host puts the origin's before the head; places stay those of the head.
        let request = built(
            Request::put(URL)
                .header("Expect", "100-continue")
                .header("Host", "h")
                .body("x"),
        );
        assert_eq!(
            &head(&request)[request.expect_line().expect("a line")],
            "Expect: 100-continue\r\n"
        );
        assert_eq!(
            built(Request::put(URL).header("Expect", "100-continue")).expect_line(),
            None
        );
    }

    #[test]
    fn fields_are_found_in_any_case() {
        let request = built(
            Request::post("http://example.com/user-agent")
                .header("X-Foo", "bar: baz")
                .form([("a", "b")])
                .close(),
        );
        for present in [
            "x-foo",
            "X-FOO",
            "host",
            "content-length",
            "Content-Type",
            "connection",
        ] {
            assert!(request.has_field(present), "{present}");
            assert_ne!(
                request.field_mask() & field_bit(present.as_bytes()),
                0,
                "{present}"
            );
        }
        for absent in [
            "x-fo",
            "x-foo2",
            "user-agent",
            "bar",
            "POST /user-agent HTTP/1.1",
            "",
        ] {
            assert!(!request.has_field(absent), "{absent}");
        }
        for name in ["", "a", "user-agent", "Accept"] {
            assert_eq!(field_bit(name.as_bytes()).count_ones(), 1);
            assert_eq!(
                field_bit(name.as_bytes()),
                field_bit(name.to_uppercase().as_bytes())
            );
        }
    }

    #[test]
    fn a_clone_shares_its_bytes() {
        let request = built(Request::get(URL));
        assert_eq!(
            request.wire_head().as_ptr(),
            request.clone().wire_head().as_ptr()
        );
    }

    #[test]
    fn timeouts_are_the_engines_own_until_set() {
        const S: Duration = Duration::from_secs(1);
        // The engine's: first_byte 7 s, idle 7 s, total 60 s.
        let mut engine = Timeouts::default();
        (engine.first_byte, engine.idle, engine.total) = (Some(7 * S), Some(7 * S), Some(60 * S));
        let get = || Request::get(URL);
        // Why, request, first_byte, idle, total in seconds.
        type Row = (
            &'static str,
            RequestBuilder,
            Option<u32>,
            Option<u32>,
            Option<u32>,
        );
        #[rustfmt::skip]
        let rows: Vec<Row> = vec![
            ("nothing set", get(), Some(7), Some(7), Some(60)),
            ("nothing changed", get().timeouts(|_| ()), Some(7), Some(7), Some(60)),
            ("total", get().timeout(5 * S), Some(7), Some(7), Some(5)),
            ("total for ever", get().timeout(Duration::MAX), Some(7), Some(7), None),
            ("set to the default", get().timeouts(|t| t.idle = Timeouts::default().idle), Some(7), Some(30), Some(60)),
            ("set to never", get().timeouts(|t| t.idle = None), Some(7), None, Some(60)),
            ("changes add up", get().timeouts(|t| t.idle = Some(2 * S)).timeouts(|t| t.first_byte = Some(3 * S)), Some(3), Some(2), Some(60)),
            ("hold fits into the total", get().hold(20 * S), Some(30), Some(30), Some(60)),
            ("hold lifts the engine's total", get().hold(90 * S), Some(100), Some(100), Some(130)),
            ("hold lifts a total set before", get().timeout(5 * S).hold(60 * S), Some(70), Some(70), Some(100)),
            ("hold leaves a longer total", get().timeout(500 * S).hold(60 * S), Some(70), Some(70), Some(500)),
            ("hold leaves no total", get().timeouts(|t| t.total = None).hold(60 * S), Some(70), Some(70), None),
            ("a later total wins", get().hold(90 * S).timeout(5 * S), Some(100), Some(100), Some(5)),
            ("a later change keeps the hold", get().hold(90 * S).timeouts(|t| t.first_byte = Some(S)), Some(1), Some(100), Some(130)),
            ("a second hold lifts further", get().hold(90 * S).hold(100 * S), Some(110), Some(110), Some(140)),
            ("hold for ever", get().hold(Duration::MAX), None, None, None),
        ];
        let engine_ms = Millis::new(&engine);
        for (why, builder, first_byte, idle, total) in rows {
            let request = built(builder);
            let seconds = |clock| {
                request
                    .timeouts()
                    .get(clock, &engine_ms)
                    .map(|ms| ms / 1000)
            };
            assert_eq!(
                [
                    seconds(Clock::FirstByte),
                    seconds(Clock::Idle),
                    seconds(Clock::Total)
                ],
                [first_byte, idle, total],
                "{why}"
            );
        }
        // An engine without a total has none under a hold either.
        engine.total = None;
        let held = built(get().hold(90 * S));
        assert_eq!(
            held.timeouts().get(Clock::Total, &Millis::new(&engine)),
            None
        );
    }

    #[test]
    fn limits_are_the_engines_own_until_set() {
        let mut engine = Limits::default();
        (
            engine.max_fields,
            engine.max_interim,
            engine.refuse_obs_fold,
        ) = (5, 6, true);
        assert!(built(Request::get(URL)).limits().is_none());
        let request = built(
            Request::get(URL)
                .limits(|l| l.max_fields = Limits::default().max_fields)
                .limits(|l| l.max_body_bytes = 9),
        );
        let mut expected = engine.clone();
        (expected.max_fields, expected.max_body_bytes) = (Limits::default().max_fields, 9);
        assert_eq!(
            request.limits().map(|edit| edit.over(&engine)),
            Some(expected)
        );
    }

    #[test]
    fn requests_of_http_are_taken() {
        let request = http::Request::post("http://example.com:81/a?b")
            .version(http::Version::HTTP_2)
            .header("b", "1")
            .header("a", "2")
            .header("b", "3")
            .body(b"xy".to_vec())
            .expect("valid");
        let request = Request::try_from(request).expect("valid");
        assert_eq!(
            head(&request),
            "POST /a?b HTTP/1.1\r\nHost: example.com:81\r\nb: 1\r\nb: 3\r\na: 2\r\nContent-Length: 2\r\n"
        );
        assert_eq!(request.wire_body(), b"xy");
        for uri in ["/a", "*", "example.com:80", "ftp://a/", "http://u:p@a/"] {
            let request = http::Request::get(uri).body("").expect("valid");
            assert!(Request::try_from(request).is_err(), "{uri}");
        }
        let chunked = http::Request::get(URL)
            .header("transfer-encoding", "chunked")
            .body("")
            .expect("valid");
        assert!(Request::try_from(chunked).is_err());
    }

    #[test]
    fn a_waiting_request_is_small() {
        // Beside head and body: two counts of an Arc, and this. 112 bytes are one size class of the usual allocators.
        const COUNTS: usize = 2 * size_of::<usize>();
        assert!(COUNTS + size_of::<Inner>() <= 112, "{}", size_of::<Inner>());
        assert_eq!(size_of::<Option<Request>>(), size_of::<usize>());
    }

    /// Whatever goes in, what comes out has the lines that were asked for, and no others, to a reader that knows but CRLF.
    #[test]
    fn any_input_is_refused_or_keeps_its_lines() {
        #[rustfmt::skip]
        const PIECES: &[&str] = &[
            "http://", "https://", "a", "example.com", ":", "80", "/", "?", "#", "@", "\\", "[", "::1", "]", "%", "é", "\u{1f600}",
            "\r\n", "\r", "\n", "\0", "\t", " ", ".", "..", "\u{7f}", "\"", "{", "|", "x", "100-continue", "0", "3", "close", ",",
            "\u{85}", "\u{2028}", "&", "=", "+",
        ];
        const STARTS: &[&str] = &["http://a", "http://a/", "http://[::1]", "http://", ""];
        const NAMES: &[&str] = &[
            "x",
            "X-Foo",
            "Host",
            "Expect",
            "Content-Length",
            "Connection",
            "",
        ];
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 11) as usize % below
        };
        let mut accepted = 0;
        for _ in 0..20_000 {
            let url = STARTS[random(STARTS.len())];
            let names = [NAMES[random(NAMES.len())], NAMES[random(NAMES.len())]];
            let mut after = |start: &str, most: usize| {
                let n = random(most + 1);
                (0..n).fold(start.to_owned(), |text, _| {
                    text + PIECES[random(PIECES.len())]
                })
            };
            let (url, query, body) = (after(url, 3), after("", 3), after("", 1));
            let fields =
                names.map(|name| (after(name, usize::from(name.is_empty())), after("", 2)));
            let verb = [Method::GET, Method::POST, Method::PUT, method("X")][url.len() % 4].clone();
            let mut builder = Request::builder(verb.clone(), &url)
                .query([(&query, &query)])
                .body(body.clone());
            for (name, value) in &fields {
                builder = builder.header(name, value);
            }
            let Ok(request) = builder.build() else {
                continue;
            };
            accepted += 1;

            let mut lines: Vec<&str> = str::from_utf8(request.wire_head())
                .expect("UTF-8 went in")
                .split("\r\n")
                .collect();
            assert_eq!(lines.pop(), Some(""), "{url:?} {fields:?}");
            assert!(
                lines.iter().all(|line| !line.contains(['\r', '\n', '\0'])),
                "{lines:?}"
            );
            let path_and_query = request.uri().path_and_query().expect("absolute");
            assert_eq!(lines.remove(0), format!("{verb} {path_and_query} HTTP/1.1"));
            assert_eq!(
                request.uri().host().map(|h| h.trim_matches(['[', ']'])),
                Some(request.host())
            );
            assert_eq!(request.uri().port_u16().unwrap_or(80), request.port());
            let given = |known: &str| {
                fields
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(known))
            };
            let host = given("host").map_or(request.origin().authority().to_string(), |(_, v)| {
                v.trim().to_owned()
            });
            assert_eq!(lines.remove(0), format!("Host: {host}"));
            let mut expects = 0;
            for (name, value) in &fields {
                match name.as_str() {
                    "Host" | "Content-Length" => continue,
                    "Expect" if body.is_empty() || expects > 0 => continue,
                    "Expect" => expects += 1,
                    _ => {}
                }
                assert_eq!(
                    lines.remove(0),
                    format!("{name}: {}", value.trim_matches([' ', '\t']))
                );
            }
            let has_length = !body.is_empty()
                || verb == Method::POST
                || verb == Method::PUT
                || given("content-length").is_some();
            if has_length {
                assert_eq!(lines.remove(0), format!("Content-Length: {}", body.len()));
            }
            assert!(lines.is_empty(), "{lines:?}");
        }
        assert!(
            accepted > 1000,
            "{accepted} accepted: the pieces are too wild"
        );
    }
}
