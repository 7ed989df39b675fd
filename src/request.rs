//! Requests as values: serialised once, and read from what was serialised.
//!
//! The [builder](crate::RequestBuilder) has checked all parts, so nothing here can fail. Fields
//! that are added on the way, such as User-Agent, are the engine's business.

use std::any::Any;
use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use http::{Method, Uri};

use crate::generation::Mark;
use crate::proto::target::Target;
use crate::proto::{LimitsEdit, Origin, Scheme};
use crate::route::Route;
use crate::timeouts::TimeoutsEdit;

/// The most requests that may be unanswered on one connection. Servers answer no faster for more
/// than a few dozen.
pub(crate) const MAX_PIPELINE: u16 = 1024;

/// A request: a value, serialised once, cheap to clone and to send between threads.
///
/// `Debug` shows the method and the origin, and neither path, query, fields nor body: a token in a
/// path is as secret as a password.
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

/// Ten thousand of these wait at once, each with a URL of its own: what can be read from the head
/// is not kept beside it.
struct Inner {
    /// The head; before it the origin's host, where the head does not hold it: the caller's own
    /// Host value took its place, or it has a zone id, which is not sent.
    store: Box<[u8]>,
    body: Body,
    parsed: OnceLock<Box<Parsed>>,
    rare: Option<Box<Rare>>,
    timeouts: TimeoutsEdit,
    /// The [`field_bit`] of each field in the head.
    fields: u32,
    /// Where in `store` the host begins; 0: before the head rather than in it.
    host_at: u32,
    port: u16,
    host_len: u8,
    flags: Flags,
}

/// A body is shared, not copied, by a request that was [edited](Request::edit) from another.
enum Body {
    Own(Box<[u8]>),
    /// That of this request, which has it of its own.
    Of(Request),
}

/// What few requests have.
#[derive(Clone, Default)]
pub(crate) struct Rare {
    /// Boxed: it is longer than all the others together.
    pub(crate) limits: Option<Box<LimitsEdit>>,
    pub(crate) route: Option<Arc<Route>>,
    pub(crate) pipeline: Option<u16>,
    pub(crate) policies: Option<Carried>,
    /// The login of its session that it belongs to.
    pub(crate) mark: Option<Mark>,
    pub(crate) lane: Option<Box<str>>,
    pub(crate) priority: i8,
}

/// What a request carries for a layer above, which alone knows its type.
///
/// A policy is asked about responses and errors, and an error holds the request that failed: so the
/// trait stands above all of them, and the request that carries a policy cannot name it.
pub(crate) type Carried = Arc<dyn Any + Send + Sync>;

impl Rare {
    fn is_empty(&self) -> bool {
        let Self {
            limits,
            route,
            pipeline,
            policies,
            mark,
            lane,
            priority,
        } = self;
        limits.is_none()
            && route.is_none()
            && pipeline.is_none()
            && policies.is_none()
            && mark.is_none()
            && lane.is_none()
            && *priority == 0
    }
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
    /// Whether it is idempotent was said, rather than taken from the method.
    const SAID: Self = Self(32);
    /// Its Content-Type comes from `form`.
    const FORM: Self = Self(64);
    const UPGRADE: Self = Self(128);
    /// What says how a request wants to go over a connection.
    const OF_PIPELINING: Self = Self(2 | 4 | 8 | 16 | 128);

    fn with(self, other: Self, yes: bool) -> Self {
        if yes { Self(self.0 | other.0) } else { self }
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The parts of a request, checked by the builder: the head they make is well-formed.
pub(crate) struct Checked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) target: &'a Target,
    /// The value of `Host`, where it is not the origin's.
    pub(crate) own_host: Option<&'a [u8]>,
    /// The other field lines, each with its CRLF.
    pub(crate) lines: &'a [u8],
    /// The [`field_bit`] of each name in `lines`.
    pub(crate) fields: u32,
    pub(crate) body: CheckedBody,
    pub(crate) is_idempotent: bool,
    /// Whether the caller said so, rather than the method.
    pub(crate) idempotence_was_said: bool,
    /// Whether the line in front of Content-Length is the Content-Type of a form, which goes with
    /// the form.
    pub(crate) has_form_type: bool,
    pub(crate) wants_fresh_connection: bool,
    /// Whether `lines` say `Connection: close`.
    pub(crate) wants_close: bool,
    /// Whether an `Upgrade` field is among `lines`.
    pub(crate) wants_upgrade: bool,
    /// Whether `Expect: 100-continue` is among `lines`.
    pub(crate) expects_continue: bool,
    pub(crate) timeouts: TimeoutsEdit,
    pub(crate) rare: Rare,
}

/// The body of a request to be.
pub(crate) enum CheckedBody {
    Bytes(Vec<u8>),
    /// The same as this request's.
    Of(Request),
}

impl CheckedBody {
    pub(crate) fn len(&self) -> usize {
        match self {
            CheckedBody::Bytes(bytes) => bytes.len(),
            CheckedBody::Of(request) => request.wire_body().len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Checked<'_> {
    /// [`Inner::store`] and [`Inner::host_at`].
    fn serialise(&self) -> (Vec<u8>, usize) {
        let (method, path, origin) = (
            self.method.as_str(),
            self.target.path(),
            self.target.origin(),
        );
        let own_host_len = self.own_host.map_or(0, <[u8]>::len);
        // " ", " HTTP/1.1\r\n", "Host: ", "[]:65535", "\r\n".
        const AROUND: usize = 1 + 11 + 6 + 8 + 2;
        let mut store = Vec::with_capacity(
            method.len()
                + path.len()
                + origin.host().len()
                + own_host_len
                + self.lines.len()
                + AROUND,
        );
        let mut write = |line: fmt::Arguments<'_>| {
            store.write_fmt(line).expect("a Vec takes all");
            store.len()
        };
        let host_at = match (self.own_host, origin.has_zone()) {
            (None, false) => {
                let name = write(format_args!("{method} {path} HTTP/1.1\r\nHost: "));
                write(format_args!("{}", origin.authority()));
                name + usize::from(origin.host().contains(':'))
            }
            (own, _) => {
                let host = origin.host();
                write(format_args!("{host}{method} {path} HTTP/1.1\r\nHost: "));
                match own {
                    Some(value) => store.extend_from_slice(value),
                    None => drop(write(format_args!("{}", origin.authority()))),
                }
                0
            }
        };
        store.extend_from_slice(b"\r\n");
        store.extend_from_slice(self.lines);
        (store, host_at)
    }
}

impl Request {
    pub(crate) fn new(checked: Checked<'_>) -> Self {
        let (store, host_at) = checked.serialise();
        let origin = checked.target.origin();
        let rare = if checked.rare.is_empty() {
            None
        } else {
            Some(Box::new(checked.rare))
        };
        let body = match checked.body {
            CheckedBody::Bytes(bytes) => Body::Own(bytes.into_boxed_slice()),
            CheckedBody::Of(other) => Body::Of(other.owner_of_body()),
        };
        Self(Arc::new(Inner {
            store: store.into_boxed_slice(),
            parsed: OnceLock::new(),
            fields: checked.fields | field_bit(b"host"),
            host_at: u32::try_from(host_at).expect("method and URL are bounded"),
            host_len: u8::try_from(origin.host().len()).expect("hosts are bounded"),
            port: origin.port(),
            flags: Flags(0)
                .with(Flags::HTTPS, origin.scheme() == Scheme::Https)
                .with(Flags::IDEMPOTENT, checked.is_idempotent)
                .with(Flags::FRESH, checked.wants_fresh_connection)
                .with(Flags::CLOSE, checked.wants_close)
                .with(Flags::EXPECT, checked.expects_continue)
                .with(Flags::UPGRADE, checked.wants_upgrade)
                .with(Flags::SAID, checked.idempotence_was_said)
                .with(Flags::FORM, checked.has_form_type),
            body,
            rare,
            timeouts: checked.timeouts,
        }))
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

    /// The URL in absolute form, encoded as it goes out, without fragment. Parsed at the first call
    /// and kept.
    pub fn uri(&self) -> &Uri {
        &self.parsed().uri
    }

    /// Path and query as they go out in the request line.
    pub fn target(&self) -> &str {
        let head = self.wire_head();
        let mut words = head.split(|&b| b == b' ');
        let target = words.nth(1).unwrap_or_default();
        str::from_utf8(target).expect("Target is a String")
    }

    /// The value of the first field line of that name, as the request itself carries it; names are
    /// case-insensitive. The engine's own fields, such as User-Agent, and what policies add are not
    /// part of it.
    ///
    /// ```
    /// let request = httpstream::Request::get("http://a.test:81/").header("X-Key", "7").build()?;
    /// assert_eq!(request.header("x-key"), Some(&b"7"[..]));
    /// assert_eq!(request.header("Host"), Some(&b"a.test:81"[..]));
    /// assert_eq!(request.header("User-Agent"), None);
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn header(&self, name: impl AsRef<str>) -> Option<&[u8]> {
        let name = name.as_ref();
        if self.0.fields & field_bit(name.as_bytes()) == 0 {
            return None;
        }
        let mut lines = field_lines(self.wire_head());
        lines.find(|line| line.is_named(name)).map(FieldLine::value)
    }

    /// [`header`](Self::header) as text; `None` as well if the value is not UTF-8.
    pub fn header_str(&self, name: impl AsRef<str>) -> Option<&str> {
        str::from_utf8(self.header(name)?).ok()
    }

    /// Its field lines in the order in which they go out, Host first.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        field_lines(self.wire_head()).map(|line| {
            let name = str::from_utf8(line.name).expect("a name is a token");
            (name, line.value())
        })
    }

    /// The body; empty if there is none. `None` of a body that is read only as it is sent, which no
    /// request has yet.
    pub fn body(&self) -> Option<&[u8]> {
        Some(self.wire_body())
    }

    /// Whether it can be sent more than once. False only of a body that is used up when it has been
    /// sent, which no request has yet.
    pub fn is_repeatable(&self) -> bool {
        match self.0.body {
            Body::Own(_) | Body::Of(_) => true,
        }
    }

    /// The lane that it waits in: see [`RequestBuilder::lane`](crate::RequestBuilder::lane).
    pub fn lane(&self) -> Option<&str> {
        self.0.rare.as_ref()?.lane.as_deref()
    }

    /// How urgent it is, 0 unless it was said:
    /// see [`RequestBuilder::priority`](crate::RequestBuilder::priority).
    pub fn priority(&self) -> i8 {
        self.0.rare.as_ref().map_or(0, |rare| rare.priority)
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

    /// Request line and field lines, each with its CRLF. The empty line after them is the engine's,
    /// which may add fields first.
    #[inline]
    pub(crate) fn wire_head(&self) -> &[u8] {
        let start = match self.0.host_at {
            0 => usize::from(self.0.host_len),
            _ => 0,
        };
        &self.0.store[start..]
    }

    #[inline]
    pub(crate) fn wire_body(&self) -> &[u8] {
        match &self.0.body {
            Body::Own(body) => body,
            Body::Of(owner) => match &owner.0.body {
                Body::Own(body) => body,
                Body::Of(_) => unreachable!("an owner has its body of its own"),
            },
        }
    }

    /// The request that holds the bytes of the body: itself, or the one that it was edited from.
    fn owner_of_body(&self) -> Request {
        match &self.0.body {
            Body::Own(_) => self.clone(),
            Body::Of(owner) => owner.clone(),
        }
    }

    pub(crate) fn scheme(&self) -> Scheme {
        if self.0.flags.has(Flags::HTTPS) {
            Scheme::Https
        } else {
            Scheme::Http
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

    /// Scheme, host and port of its URL. Allocates.
    pub fn origin(&self) -> Origin {
        Origin::new(self.scheme(), self.host(), self.port())
    }

    /// Whether it may be sent again after a peer may have processed it: what the caller said, else
    /// RFC 9110 §9.2.2.
    pub fn is_idempotent(&self) -> bool {
        self.0.flags.has(Flags::IDEMPOTENT)
    }

    /// What was said of its being idempotent, where it was.
    pub(crate) fn said_idempotent(&self) -> Option<bool> {
        let was_said = self.0.flags.has(Flags::SAID);
        was_said.then_some(self.is_idempotent())
    }

    /// The value of Host that took the place of the origin's.
    pub(crate) fn own_host(&self) -> Option<&[u8]> {
        if self.0.host_at != 0 {
            return None;
        }
        let host = self.header("Host")?;
        let origin = self.origin();
        let is_own = !origin.has_zone() || host != origin.authority().to_string().as_bytes();
        is_own.then_some(host)
    }

    /// The field lines behind Host, each with its CRLF.
    pub(crate) fn lines(&self) -> &[u8] {
        let head = self.wire_head();
        let host = field_lines(head).next().expect("Host is the first of each");
        &head[host.place.end..]
    }

    /// Whether the line in front of Content-Length is the Content-Type of a form.
    pub(crate) fn has_form_type(&self) -> bool {
        self.0.flags.has(Flags::FORM)
    }

    pub(crate) fn rare(&self) -> Option<&Rare> {
        self.0.rare.as_deref()
    }

    /// What it carries of policies, in whatever form the room of policies keeps them.
    #[inline]
    pub(crate) fn policies(&self) -> Option<&Carried> {
        self.0.rare.as_ref()?.policies.as_ref()
    }

    /// The generation of its session that it belongs to. One that is over ends the request,
    /// wherever it is.
    #[inline]
    pub(crate) fn generation(&self) -> Option<&Mark> {
        self.0.rare.as_ref()?.mark.as_ref()
    }

    #[inline]
    pub(crate) fn is_head(&self) -> bool {
        self.wire_head().starts_with(b"HEAD ")
    }

    #[inline]
    pub(crate) fn wants_fresh_connection(&self) -> bool {
        self.0.flags.has(Flags::FRESH)
    }

    /// Whether the head says `Connection: close`.
    #[inline]
    pub(crate) fn wants_close(&self) -> bool {
        self.0.flags.has(Flags::CLOSE)
    }

    /// Whether it asks for another protocol, so that a 101 may answer it.
    #[inline]
    pub(crate) fn wants_upgrade(&self) -> bool {
        self.0.flags.has(Flags::UPGRADE)
    }

    #[inline]
    pub(crate) fn timeouts(&self) -> &TimeoutsEdit {
        &self.0.timeouts
    }

    #[inline]
    pub(crate) fn route(&self) -> Option<&Arc<Route>> {
        self.0.rare.as_ref()?.route.as_ref()
    }

    #[inline]
    pub(crate) fn limits(&self) -> Option<&LimitsEdit> {
        self.0.rare.as_ref()?.limits.as_deref()
    }

    /// How many requests may be unanswered on its connection, where it says so itself.
    #[inline]
    pub(crate) fn pipeline(&self) -> Option<u16> {
        self.0.rare.as_ref()?.pipeline
    }

    /// Whether it may share a connection with others before it is answered: it can be sent again if
    /// that breaks (RFC 9112 §9.3.2), ends it not itself, and waits for nothing before its body.
    #[inline]
    pub(crate) fn may_be_pipelined(&self) -> bool {
        self.0.flags.0 & Flags::OF_PIPELINING.0 == Flags::IDEMPOTENT.0
    }

    /// Where in the head the line `Expect: 100-continue` stands, its CRLF included, for a peer that
    /// answered 417. Only a request with a body has one (RFC 9110 §10.1.1).
    #[inline]
    pub(crate) fn expect_line(&self) -> Option<Range<usize>> {
        if self.expects_continue() {
            self.find_expect_line()
        } else {
            None
        }
    }

    #[inline(never)]
    fn find_expect_line(&self) -> Option<Range<usize>> {
        field_lines(self.wire_head())
            .find(|line| line.is_named("expect"))
            .map(|line| line.place)
    }

    /// Whether the head has a line `Expect: 100-continue`.
    #[inline]
    pub(crate) fn expects_continue(&self) -> bool {
        self.0.flags.has(Flags::EXPECT)
    }

    /// Whether the head has a field of this name, in any case.
    pub(crate) fn has_field(&self, name: &str) -> bool {
        self.0.fields & field_bit(name.as_bytes()) != 0
            && field_lines(self.wire_head()).any(|line| line.is_named(name))
    }

    /// The [`field_bit`] of each field in the head: a field whose bit is not among them is not
    /// there.
    #[inline]
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

/// One bit of 32 for a field name in any case: names with different bits differ.
pub(crate) fn field_bit(name: &[u8]) -> u32 {
    // FNV-1a, whose upper bits are the well mixed ones.
    let hash = name.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    });
    1 << (hash >> 27)
}

/// A field line as we write it: `name: value` CRLF.
pub(crate) struct FieldLine<'a> {
    /// Where in the lines, CRLF included.
    pub(crate) place: Range<usize>,
    pub(crate) name: &'a [u8],
    line: &'a [u8],
}

impl<'a> FieldLine<'a> {
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    pub(crate) fn value(self) -> &'a [u8] {
        const AROUND: (usize, usize) = (": ".len(), "\r\n".len());
        &self.line[self.name.len() + AROUND.0..self.line.len() - AROUND.1]
    }
}

/// The field lines of a head of ours.
fn field_lines(head: &[u8]) -> impl Iterator<Item = FieldLine<'_>> {
    lines(head).skip(1)
}

/// Lines of ours: each ends in CRLF, and no LF stands anywhere else.
pub(crate) fn lines(block: &[u8]) -> impl Iterator<Item = FieldLine<'_>> {
    let mut end = 0;
    block.split_inclusive(|&b| b == b'\n').map(move |line| {
        let start = end;
        end += line.len();
        let colon = line.iter().position(|&b| b == b':');
        FieldLine {
            place: start..end,
            name: &line[..colon.unwrap_or_default()],
            line,
        }
    })
}

#[cfg(test)]
impl Request {
    /// Fails unless both have the same in all their parts.
    pub(crate) fn assert_same(&self, other: &Self, why: &str) {
        let shown = |request: &Self| String::from_utf8_lossy(&request.0.store).into_owned();
        assert_eq!(shown(self), shown(other), "{why}");
        let plain = |Self(inner): &Self| {
            (
                (inner.fields, inner.host_at, inner.host_len, inner.port),
                (inner.flags.0, inner.timeouts),
            )
        };
        assert_eq!(plain(self), plain(other), "{why}");
        assert_eq!(self.wire_body(), other.wire_body(), "{why}");
        let rare = |request: &Self| {
            let rare = request.rare()?.clone();
            let route = rare.route.map(|route| Arc::as_ptr(&route).addr());
            let policies = rare.policies.map(|it| Arc::as_ptr(&it).cast::<()>().addr());
            let mark = rare.mark.map(|mark| format!("{mark:?}"));
            Some((
                (rare.limits, rare.pipeline, rare.lane, rare.priority),
                (route, policies, mark),
            ))
        };
        assert_eq!(rare(self), rare(other), "{why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_request_is_small() {
        // Beside head and body: two counts of an Arc, and this. 112 bytes are one size class of the
        // usual allocators.
        const COUNTS: usize = 2 * size_of::<usize>();
        assert!(COUNTS + size_of::<Inner>() <= 112, "{}", size_of::<Inner>());
        assert_eq!(size_of::<Option<Request>>(), size_of::<usize>());
        // Each request of a session has this besides.
        assert!(size_of::<Rare>() <= 80, "{}", size_of::<Rare>());
    }
}
