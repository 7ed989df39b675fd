//! Requests as values, serialized once and read back from the serialized bytes.
//!
//! The [builder](crate::RequestBuilder) has checked all parts, so nothing here can fail. Fields
//! added on the way out, such as User-Agent, are added by the engine.

use std::any::Any;
use std::fmt;
use std::io::Write;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use http::{Method, Uri};

use crate::generation::Mark;
use crate::proto::target::Target;
use crate::proto::{LimitsEdit, Origin, Scheme};
use crate::route::Route;
use crate::timeouts::{Floor, LowSpeedEdit, Ms, TimeoutsEdit};

/// The most requests that may be unanswered on one connection. Beyond a few dozen, servers answer
/// no faster.
pub(crate) const MAX_PIPELINE: u16 = 1024;

/// How long a body waits for a 100 (Continue) unless the request says otherwise.
const CONTINUE_MILLIS: u32 = 1000;

/// An HTTP request: an immutable value, serialized once, cheap to clone and to send to other
/// threads.
///
/// [`Request::get`], [`Request::post`] and the other methods begin a
/// [`RequestBuilder`](crate::RequestBuilder); [`edit`](Self::edit) derives a request from an
/// existing one.
///
/// `Debug` prints the method and the origin, and neither path, query, fields nor body: a token in a
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

/// Ten thousand requests wait at once, each with its own URL, so whatever can be read from
/// the head is not stored a second time.
struct Inner {
    /// The head. It is preceded by the origin's host if the head does not contain it, which is so
    /// if the caller set a Host value of its own, or if the host has a zone id, which is not sent.
    store: Box<[u8]>,
    body: Body,
    parsed: OnceLock<Box<Parsed>>,
    rare: Option<Box<Rare>>,
    timeouts: TimeoutsEdit,
    /// The [`field_bit`]s of the fields in the head.
    fields: u32,
    /// Where in `store` the host begins; 0 if it precedes the head rather than being part of it.
    host_at: u32,
    port: u16,
    host_len: u8,
    flags: Flags,
}

/// A body. A request that was [edited](Request::edit) from another shares its body instead of
/// copying it.
enum Body {
    Own(Box<[u8]>),
    /// The body of this request, which owns it.
    Of(Request),
}

/// The parts that few requests have.
#[derive(Clone, Default)]
pub(crate) struct Rare {
    /// Boxed because it is larger than all the other fields together.
    pub(crate) limits: Option<Box<LimitsEdit>>,
    /// The body, if it is read while it is sent.
    pub(crate) body: Option<Arc<CarriedBody>>,
    pub(crate) route: Option<Arc<Route>>,
    pub(crate) speeds: Option<Box<Speeds>>,
    pub(crate) pipeline: Option<u16>,
    /// How long the body waits for a 100 (Continue), if it expects one.
    pub(crate) continue_wait: Option<Ms>,
    pub(crate) policies: Option<Carried>,
    /// The generation of its session that the request belongs to.
    pub(crate) mark: Option<Mark>,
    pub(crate) lane: Option<Box<str>>,
    pub(crate) priority: i8,
    /// A server has led it to another origin than that of the request it was derived from.
    pub(crate) is_elsewhere: bool,
}

/// How fast a request and its response may or must go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Speeds {
    pub(crate) low: LowSpeedEdit,
    /// The most bytes a second of the response, and of the request.
    pub(crate) download: Option<NonZeroU64>,
    pub(crate) upload: Option<NonZeroU64>,
}

impl Speeds {
    pub(crate) const NONE: Self = Self {
        low: LowSpeedEdit::Nothing,
        download: None,
        upload: None,
    };

    /// Returns whether neither direction has a cap.
    pub(crate) fn has_no_cap(&self) -> bool {
        self.download.is_none() && self.upload.is_none()
    }

    /// Returns the low speed that applies, for an engine whose own is `engine`.
    pub(crate) fn floor(&self, engine: Option<Floor>) -> Option<Floor> {
        self.low.over(engine)
    }
}

/// A value that a request carries for a higher layer, which alone knows its type.
///
/// A policy sees responses and errors, and an error holds the request that failed. The trait
/// therefore lives in a layer above all of these, and a request that carries a policy cannot name
/// its type.
pub(crate) type Carried = Arc<dyn Any + Send + Sync>;

/// A body that is read from a source while it is sent. Like a policy, the source is of a higher
/// layer, so a request that carries one cannot name its type.
pub(crate) struct CarriedBody {
    /// What makes the source, in the form that the body module stores it.
    pub(crate) factory: Box<dyn Any + Send + Sync>,
    /// Whether each attempt gets a source of its own. Otherwise there is only one.
    pub(crate) is_repeatable: bool,
}

impl Rare {
    /// Lets `change` edit the speeds.
    pub(crate) fn change_speeds(&mut self, change: impl FnOnce(&mut Speeds)) {
        let before = self.speeds.as_deref().copied().unwrap_or_default();
        let mut speeds = before;
        change(&mut speeds);
        if speeds != before {
            self.speeds = (speeds != Speeds::NONE).then(|| Box::new(speeds));
        }
    }

    fn is_empty(&self) -> bool {
        let Self {
            limits,
            body,
            route,
            speeds,
            pipeline,
            continue_wait,
            policies,
            mark,
            lane,
            priority,
            is_elsewhere,
        } = self;
        limits.is_none()
            && body.is_none()
            && route.is_none()
            && speeds.is_none()
            && pipeline.is_none()
            && continue_wait.is_none()
            && policies.is_none()
            && mark.is_none()
            && lane.is_none()
            && *priority == 0
            && !is_elsewhere
    }
}

/// Parts that the engine itself never needs.
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
    /// The caller set whether the request is idempotent; otherwise its method decides.
    const EXPLICIT: Self = Self(32);
    /// The request's Content-Type came with its body, from `form` or `json`.
    const BODY_TYPE: Self = Self(64);
    const UPGRADE: Self = Self(128);
    /// The flags that decide whether a request may be pipelined.
    const OF_PIPELINING: Self = Self(2 | 4 | 8 | 16 | 128);

    fn with(self, other: Self, yes: bool) -> Self {
        if yes { Self(self.0 | other.0) } else { self }
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The parts of a request. The builder has checked them, so the head made from them is well-formed.
pub(crate) struct Checked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) target: &'a Target,
    /// The value of `Host`, if it is not the origin's.
    pub(crate) own_host: Option<&'a [u8]>,
    /// The other field lines, each with its CRLF.
    pub(crate) lines: &'a [u8],
    /// The [`field_bit`]s of the names in `lines`.
    pub(crate) fields: u32,
    pub(crate) body: CheckedBody,
    pub(crate) is_idempotent: bool,
    /// Whether the caller set that, rather than the method.
    pub(crate) idempotence_is_explicit: bool,
    /// Whether the line before Content-Length is a Content-Type that came with the body, from
    /// `form` or `json`. It is removed together with the body.
    pub(crate) has_body_type: bool,
    pub(crate) wants_fresh_connection: bool,
    /// Whether `lines` contains `Connection: close`.
    pub(crate) wants_close: bool,
    /// Whether `lines` contains an `Upgrade` field.
    pub(crate) wants_upgrade: bool,
    /// Whether `lines` contains `Expect: 100-continue`.
    pub(crate) expects_continue: bool,
    pub(crate) timeouts: TimeoutsEdit,
    pub(crate) rare: Rare,
}

/// The body of a request that is being built.
pub(crate) enum CheckedBody {
    Bytes(Vec<u8>),
    /// The body of this request, which is shared.
    Of(Request),
    /// It is read while it is sent.
    From(Arc<CarriedBody>),
}

impl CheckedBody {
    /// Returns the length in bytes. `None` if only the source knows it.
    pub(crate) fn len(&self) -> Option<usize> {
        match self {
            CheckedBody::Bytes(bytes) => Some(bytes.len()),
            CheckedBody::Of(request) => Some(request.wire_body().len()),
            CheckedBody::From(_) => None,
        }
    }

    /// Returns whether it is known that there are no bytes.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

impl Checked<'_> {
    /// Returns [`Inner::store`] and [`Inner::host_at`].
    fn serialize(&self) -> (Vec<u8>, usize) {
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
            store.write_fmt(line).expect("writing to a Vec cannot fail");
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
        let (store, host_at) = checked.serialize();
        let origin = checked.target.origin();
        let mut rare = checked.rare;
        rare.body = None;
        let body = match checked.body {
            CheckedBody::Bytes(bytes) => Body::Own(bytes.into_boxed_slice()),
            CheckedBody::Of(other) => Body::Of(other.owner_of_body()),
            CheckedBody::From(source) => {
                rare.body = Some(source);
                Body::Own(Box::default())
            }
        };
        let rare = (!rare.is_empty()).then(|| Box::new(rare));
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
                .with(Flags::EXPLICIT, checked.idempotence_is_explicit)
                .with(Flags::BODY_TYPE, checked.has_body_type),
            body,
            rare,
            timeouts: checked.timeouts,
        }))
    }

    /// Returns the method.
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

    /// Returns the URL in absolute form, encoded as it is sent and without a fragment. It is parsed
    /// on the first call and kept.
    pub fn uri(&self) -> &Uri {
        &self.parsed().uri
    }

    /// Returns path and query as they appear in the request line.
    pub fn target(&self) -> &str {
        let head = self.wire_head();
        let mut words = head.split(|&b| b == b' ');
        let target = words.nth(1).unwrap_or_default();
        str::from_utf8(target).expect("a target was a String")
    }

    /// Returns the value of the first field line of this name that the request itself carries;
    /// names are case-insensitive. Fields that the engine adds, such as User-Agent, and those of
    /// policies are not part of the request.
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

    /// Returns the same value as [`header`](Self::header), as text. Also returns `None` if the
    /// value is not UTF-8.
    pub fn header_str(&self, name: impl AsRef<str>) -> Option<&str> {
        str::from_utf8(self.header(name)?).ok()
    }

    /// Returns the field lines in the order in which they are sent, Host first.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        field_lines(self.wire_head()).map(|line| {
            let name = str::from_utf8(line.name).expect("a name is a token");
            (name, line.value())
        })
    }

    /// Returns the body, which is empty if there is none. `None` if the body is read from a
    /// [source](crate::BodySource) while it is sent.
    pub fn body(&self) -> Option<&[u8]> {
        match self.carried_body() {
            None => Some(self.wire_body()),
            Some(_) => None,
        }
    }

    /// Returns whether the request can be sent more than once. False for a body that is consumed by
    /// sending it: see [`RequestBuilder::body_from`](crate::RequestBuilder::body_from).
    pub fn is_repeatable(&self) -> bool {
        self.carried_body().is_none_or(|body| body.is_repeatable)
    }

    /// Returns the body, if it is read while it is sent.
    #[inline]
    pub(crate) fn carried_body(&self) -> Option<&Arc<CarriedBody>> {
        self.0.rare.as_ref()?.body.as_ref()
    }

    /// Returns the name of the request's lane: see
    /// [`RequestBuilder::lane`](crate::RequestBuilder::lane).
    pub fn lane(&self) -> Option<&str> {
        self.0.rare.as_ref()?.lane.as_deref()
    }

    /// Returns the priority, 0 unless [`RequestBuilder::priority`](crate::RequestBuilder::priority)
    /// set another.
    pub fn priority(&self) -> i8 {
        self.0.rare.as_ref().map_or(0, |rare| rare.priority)
    }

    fn parsed(&self) -> &Parsed {
        self.0.parsed.get_or_init(|| {
            let mut words = self.wire_head().splitn(3, |&b| b == b' ');
            let method = words.next().unwrap_or_default();
            let path = String::from_utf8_lossy(words.next().unwrap_or_default());
            Box::new(Parsed {
                method: Method::from_bytes(method).expect("the head was written from a Method"),
                uri: format!("{}{path}", self.origin())
                    .parse()
                    .expect("http::Uri accepts every Target"),
            })
        })
    }

    fn method_bytes(&self) -> &[u8] {
        let head = self.wire_head();
        let end = head.iter().position(|&b| b == b' ');
        &head[..end.unwrap_or_default()]
    }

    /// Returns request line and field lines, each with its CRLF. The engine writes the empty line
    /// after them, since it may add fields first.
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
                Body::Of(_) => unreachable!("an owner stores its own body"),
            },
        }
    }

    /// Returns the request that owns the bytes of the body: this one, or the one it was edited
    /// from.
    fn owner_of_body(&self) -> Request {
        match &self.0.body {
            Body::Own(_) => self.clone(),
            Body::Of(owner) => owner.clone(),
        }
    }

    /// Returns the scheme of the URL.
    pub fn scheme(&self) -> Scheme {
        if self.0.flags.has(Flags::HTTPS) {
            Scheme::Https
        } else {
            Scheme::Http
        }
    }

    /// Returns the host of the URL, as in [`Origin::host`].
    pub fn host(&self) -> &str {
        let start = self.0.host_at as usize;
        let host = &self.0.store[start..start + usize::from(self.0.host_len)];
        str::from_utf8(host).expect("Target accepts ASCII hosts only")
    }

    /// Returns the port of the URL, even if it is the scheme's default.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Returns whether the request goes to this origin. Unlike [`origin`](Self::origin), this
    /// allocates nothing.
    pub fn goes_to(&self, origin: &Origin) -> bool {
        self.port() == origin.port()
            && self.scheme() == origin.scheme()
            && self.host() == origin.host()
    }

    /// Whether one is a clone of the other. A request that was edited is another one, even if
    /// nothing was changed.
    pub(crate) fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether both go to the same origin.
    pub(crate) fn has_origin_of(&self, other: &Self) -> bool {
        self.port() == other.port()
            && self.scheme() == other.scheme()
            && self.host() == other.host()
    }

    /// Returns scheme, host and port of the URL. Allocates.
    pub fn origin(&self) -> Origin {
        Origin::new(self.scheme(), self.host(), self.port())
    }

    /// Returns whether the request may be sent again after the peer may have processed it. The
    /// method decides (RFC 9110 §9.2.2), unless
    /// [`RequestBuilder::idempotent`](crate::RequestBuilder::idempotent) overrides it.
    pub fn is_idempotent(&self) -> bool {
        self.0.flags.has(Flags::IDEMPOTENT)
    }

    /// Returns what the caller set for idempotence, if anything.
    pub(crate) fn explicit_idempotence(&self) -> Option<bool> {
        let is_explicit = self.0.flags.has(Flags::EXPLICIT);
        is_explicit.then_some(self.is_idempotent())
    }

    /// Returns the value of Host that replaced the origin's.
    pub(crate) fn own_host(&self) -> Option<&[u8]> {
        if self.0.host_at != 0 {
            return None;
        }
        let host = self.header("Host")?;
        let origin = self.origin();
        let is_own = !origin.has_zone() || host != origin.authority().to_string().as_bytes();
        is_own.then_some(host)
    }

    /// Returns the field lines after Host, each with its CRLF.
    pub(crate) fn lines(&self) -> &[u8] {
        let head = self.wire_head();
        let host = field_lines(head)
            .next()
            .expect("Host is the first field of every head");
        &head[host.place.end..]
    }

    /// Whether the line before Content-Length is a Content-Type that came with the body.
    pub(crate) fn has_body_type(&self) -> bool {
        self.0.flags.has(Flags::BODY_TYPE)
    }

    pub(crate) fn rare(&self) -> Option<&Rare> {
        self.0.rare.as_deref()
    }

    /// Returns the policies that the request carries, in the form that the policy module stores
    /// them.
    #[inline]
    pub(crate) fn policies(&self) -> Option<&Carried> {
        self.0.rare.as_ref()?.policies.as_ref()
    }

    /// Whether the request carries policies or belongs to a generation.
    #[inline]
    pub(crate) fn is_accompanied(&self) -> bool {
        let rare = self.0.rare.as_ref();
        rare.is_some_and(|rare| rare.policies.is_some() || rare.mark.is_some())
    }

    /// Returns the generation of its session that the request belongs to. Once that generation has
    /// ended, the request is ended too, at whatever stage it is.
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

    /// Whether the head contains `Connection: close`.
    #[inline]
    pub(crate) fn wants_close(&self) -> bool {
        self.0.flags.has(Flags::CLOSE)
    }

    /// Whether the request asks for another protocol, so that a 101 is a valid response.
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

    /// Whether a server has led the request to another origin than that of the request it was
    /// derived from. It then shows no client certificate.
    #[inline]
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.0.rare.as_ref().is_some_and(|rare| rare.is_elsewhere)
    }

    #[inline]
    pub(crate) fn limits(&self) -> Option<&LimitsEdit> {
        self.0.rare.as_ref()?.limits.as_deref()
    }

    /// Returns the speeds that the request sets, if it sets any.
    #[inline]
    pub(crate) fn speeds(&self) -> Option<&Speeds> {
        self.0.rare.as_ref()?.speeds.as_deref()
    }

    /// Returns how many requests may be unanswered on its connection, where `default` is the number
    /// for its origin. That does not apply to a request whose speed is capped, or whose body is
    /// read while it is sent, because others would wait for it.
    #[inline]
    pub(crate) fn pipeline(&self, default: u16) -> u16 {
        let Some(rare) = &self.0.rare else {
            return default;
        };
        if rare.body.is_some() {
            return 1;
        }
        rare.pipeline.unwrap_or_else(|| {
            let is_capped = rare.speeds.as_ref().is_some_and(|it| !it.has_no_cap());
            if is_capped { 1 } else { default }
        })
    }

    /// Whether the request may share a connection with others before it is answered: it can be sent
    /// again if the connection breaks (RFC 9112 §9.3.2), does not end the connection itself, and
    /// waits for nothing before its body.
    #[inline]
    pub(crate) fn may_be_pipelined(&self) -> bool {
        self.0.flags.0 & Flags::OF_PIPELINING.0 == Flags::IDEMPOTENT.0
    }

    /// Returns the position of the line `Expect: 100-continue` in the head, its CRLF included, so
    /// that it can be left out for a peer that answered 417. Only a request with a body has one
    /// (RFC 9110 §10.1.1).
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

    /// Returns how long the body waits for a 100 (Continue), in microseconds, before it is sent
    /// without one (RFC 9110 §10.1.1).
    #[inline]
    pub(crate) fn continue_wait(&self) -> u64 {
        let rare = self.0.rare.as_ref();
        let ms = rare.and_then(|rare| rare.continue_wait).map(Ms::get);
        u64::from(ms.unwrap_or(CONTINUE_MILLIS)) * 1000
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

    /// Returns the [`field_bit`]s of the fields in the head. A field whose bit is not set is not in
    /// the head.
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

/// Maps a field name, in any case, to one of 32 bits. Names with different bits differ.
pub(crate) fn field_bit(name: &[u8]) -> u32 {
    // FNV-1a, whose upper bits are the well-mixed ones.
    let hash = name.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    });
    1 << (hash >> 27)
}

/// A field line as this crate writes it: `name: value` CRLF.
pub(crate) struct FieldLine<'a> {
    /// Position within the lines, CRLF included.
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

/// Iterates over the field lines of a head that this crate wrote.
fn field_lines(head: &[u8]) -> impl Iterator<Item = FieldLine<'_>> {
    lines(head).skip(1)
}

/// Iterates over lines that this crate wrote: each ends in CRLF, and no other LF occurs.
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
    /// Panics unless both requests are equal in all their parts.
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
            let body = rare.body.map(|body| Arc::as_ptr(&body).addr());
            let route = rare.route.map(|route| Arc::as_ptr(&route).addr());
            let policies = rare.policies.map(|it| Arc::as_ptr(&it).cast::<()>().addr());
            let mark = rare.mark.map(|mark| format!("{mark:?}"));
            Some((
                (rare.limits, rare.pipeline, rare.lane, rare.priority),
                rare.continue_wait,
                (route, policies, mark, rare.speeds, body),
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
        // An `Arc` allocates two counters and this struct, besides head and body. 112 bytes is a
        // size class of the usual allocators.
        const COUNTS: usize = 2 * size_of::<usize>();
        assert!(COUNTS + size_of::<Inner>() <= 112, "{}", size_of::<Inner>());
        assert_eq!(size_of::<Option<Request>>(), size_of::<usize>());
        // Every request of a session has one of these as well. 88 bytes is a size class, too.
        assert!(size_of::<Rare>() <= 88, "{}", size_of::<Rare>());
    }
}
