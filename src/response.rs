//! The response as it is lent to a readback, and to a policy before that.
//!
//! A policy sees responses, and a request carries its policy. This module is therefore above
//! `request` and `net`, whose buffers it lends from, and below `policy` and `engine`.

mod content;
mod ext;
mod retry_after;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use http::{StatusCode, Uri, Version};

use crate::error::{Circumstances, Error, ErrorKind, Phase, Sent};
use crate::h1::exchange::Times;
use crate::h1::reading::Body;
use crate::id::{ChainId, ConnectionId};
use crate::net::link::BothEnds;
use crate::net::slots::{Generation, LinkKey};
use crate::net::tls::TlsInfo;
use crate::proto::Headers;
use crate::proto::field::Field;
use crate::proto::head::Head;
use crate::request::Request;

pub use ext::ResponseExt;

/// What a readback receives: the response, or why there is none or only part of one.
///
/// A response of any status is `Ok`; look at [`status`](Response::status), or turn an unwanted
/// status into an error with [`Response::error_for_status`].
///
/// ```
/// use std::time::Duration;
/// use httpstream::{Context, Next, Reply};
///
/// struct Feed { news: Vec<String> }
///
/// impl Feed {
///     fn on_poll(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
///         match reply {
///             Ok(response) if response.status() == 200 => {
///                 self.news.extend(response.text().map(str::to_owned));
///                 Next::again().after(Duration::from_secs(1))
///             }
///             Ok(response) if response.status() == 404 => Next::done(),
///             Ok(_) => Next::again().after(Duration::from_secs(60)),
///             Err(error) => {
///                 eprintln!("{error:#}");
///                 Next::again().after(Duration::from_secs(10))
///             }
///         }
///     }
/// }
/// ```
pub type Reply<'a> = Result<Response<'a>, Error>;

/// A response, lent from the engine's buffers for the duration of a call.
///
/// What has to outlive the call is copied or moved out of it: [`into_body`](Self::into_body),
/// [`into_http`](Self::into_http), or a clone of [`info`](Self::info).
///
/// ```
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Next, Request, Sim};
///
/// let network = Network::new(1);
/// network.host("a.test", [[10, 0, 0, 1]]);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
///     Answer::ok("hello").header("Content-Type", "text/plain")
/// });
///
/// let mut engine = Engine::<Vec<u8>, Sim>::on_network(&network, Config::default())?;
/// engine.submit(Request::get("http://a.test/").build()?, |page, reply, _| {
///     if let Ok(response) = reply {
///         assert_eq!(response.status(), 200);
///         assert_eq!(response.header("content-type"), Some(&b"text/plain"[..]));
///         assert_eq!(response.text().ok(), Some("hello"));
///         *page = response.into_body();
///     }
///     Next::done()
/// });
/// let mut page = Vec::new();
/// engine.run(&mut page)?;
/// assert_eq!(page, b"hello");
/// # Ok::<(), httpstream::Error>(())
/// ```
pub struct Response<'a> {
    pub(crate) head: &'a Head,
    /// The bytes that contain the head's fields.
    pub(crate) section: &'a [u8],
    pub(crate) trailers: Headers<'a>,
    pub(crate) body: Body<'a>,
    pub(crate) about: &'a About,
    /// Filled in when [`Response::info`] is first called. It is kept outside of this struct because
    /// it is large and would be moved with every response.
    pub(crate) info: &'a OnceLock<Info>,
}

/// The compact form of an [`Info`], which is expanded only on request: expanding costs more than
/// keeping this.
pub(crate) struct About {
    pub(crate) id: ChainId,
    pub(crate) link: (LinkKey, Generation),
    pub(crate) ends: BothEnds,
    pub(crate) reused: bool,
    pub(crate) attempts: u8,
    /// Microseconds from the submission until the request was put on the connection.
    pub(crate) queued: u64,
    pub(crate) times: Times,
    /// Microseconds after the request was put on the connection, plus one like the others; 0 until
    /// the response is complete.
    pub(crate) done: u64,
    pub(crate) tls: Option<TlsInfo>,
    pub(crate) request: Request,
    /// Whether everything that was sent in place of `request` before it was idempotent.
    pub(crate) earlier_is_safe: bool,
    /// The time of day in a simulation. `None` stands for the system's clock, which few readers of
    /// a response need.
    pub(crate) simulated_time: Option<SystemTime>,
    /// What a policy has done on the way here.
    pub(crate) way: Option<Arc<Way>>,
}

/// What a policy has done with a request before its current exchange.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    pub(crate) hops: Vec<Hop>,
    /// The attempts of earlier exchanges since the last redirect.
    pub(crate) attempts: u32,
    /// How long the request was held back.
    pub(crate) waited: Duration,
}

/// A redirect that was followed, or is about to be.
///
/// The URLs may contain secrets, so `Debug` prints only their origins.
///
/// ```
/// use httpstream::{Context, Next, Reply};
///
/// /// Notes where the response has come from, and each redirect before it.
/// fn on_reply(from: &mut Vec<String>, reply: Reply<'_>, _: &mut Context<'_, Vec<String>>)
/// -> Next<Vec<String>> {
///     if let Ok(response) = reply {
///         let info = response.info();
///         from.extend(info.hops().iter().map(|hop| hop.from.to_string()));
///         from.push(info.request().uri().to_string());
///     }
///     Next::done()
/// }
/// # use httpstream::session::Session;
/// # use httpstream::sim::{Answer, Incoming, Network};
/// # use httpstream::{Config, Engine, Sim};
/// # let network = Network::new(1);
/// # network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| match request.path() {
/// #     "/old" => Answer::status(308).header("Location", "/new"),
/// #     _ => Answer::ok(""),
/// # });
/// # let mut engine = Engine::<Vec<String>, Sim>::on_network(&network, Config::default())?;
/// # engine.submit(Session::new().get("http://10.0.0.1/old").build()?, on_reply);
/// # let mut from = Vec::new();
/// # engine.run(&mut from)?;
/// # assert_eq!(from, ["http://10.0.0.1/old", "http://10.0.0.1/new"]);
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hop {
    /// The status of the redirect.
    pub status: StatusCode,
    /// The URL that answered with it.
    pub from: Uri,
    /// The URL that it leads to, without a fragment.
    pub to: Uri,
}

impl Hop {
    /// Returns the redirect that leads from one request to the next, if `status` is one.
    pub(crate) fn between(from: &Request, status: StatusCode, to: &Request) -> Option<Self> {
        is_redirect(status).then(|| Self {
            status,
            from: from.uri().clone(),
            to: to.uri().clone(),
        })
    }
}

impl fmt::Debug for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = |uri: &Uri| {
            let (scheme, authority) = (uri.scheme_str(), uri.authority());
            let authority = authority.map_or("", |authority| authority.as_str());
            format!("{}://{authority}", scheme.unwrap_or_default())
        };
        f.debug_struct("Hop")
            .field("status", &self.status)
            .field("from", &format_args!("{}", origin(&self.from)))
            .field("to", &format_args!("{}", origin(&self.to)))
            .finish()
    }
}

/// Whether the status refers to another URL that a client may follow by itself (RFC 9110 §15.4).
#[inline]
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

impl About {
    /// Returns how often the request was given to a connection, those times included that a policy
    /// has sent it again.
    fn all_attempts(&self) -> u8 {
        let earlier = self.way.as_ref().map_or(0, |way| way.attempts);
        u8::try_from(earlier).map_or(u8::MAX, |earlier| self.attempts.saturating_add(earlier))
    }

    fn write_out(&self) -> Info {
        let step = |stamp: u64| {
            let micros = stamp.checked_sub(1)?;
            Some(Duration::from_micros(self.queued + micros))
        };
        let (peer, local) = self.ends.addresses();
        let (slot, generation) = self.link;
        Info {
            id: self.id,
            connection: ConnectionId::new(slot, generation.number()),
            peer,
            local,
            reused: self.reused,
            attempts: self.all_attempts().into(),
            timings: Timings {
                queued: Some(Duration::from_micros(self.queued)),
                resolve: step(self.times.resolve.into()),
                connect: step(self.times.connect.into()),
                tls: step(self.times.tls.into()),
                sent: step(self.times.sent.into()),
                first_byte: step(self.times.first_byte.into()),
                done: step(self.done),
            },
            tls: self.tls.clone(),
            request: self.request.clone(),
            way: self.way.clone(),
            earlier_is_safe: self.earlier_is_safe,
            simulated_time: self.simulated_time,
        }
    }
}

/// Facts about an exchange besides its response: connection, timings, attempts, and TLS.
///
/// A readback gets it from [`Response::info`]. A response that a future resolves to has it in its
/// extensions, where [`ResponseExt::info`] finds it.
///
/// ```
/// use std::time::Duration;
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Info, Next, Request, Sim};
///
/// let network = Network::new(1);
/// network.host("a.test", [[10, 0, 0, 1]]);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
///     Answer::ok("slow").after(Duration::from_millis(200))
/// });
///
/// let mut engine = Engine::<Option<Info>, Sim>::on_network(&network, Config::default())?;
/// engine.submit(Request::get("http://a.test/slow").build()?, |info, reply, _| {
///     *info = reply.ok().map(|response| response.info().clone());
///     Next::done()
/// });
/// let mut info = None;
/// engine.run(&mut info)?;
/// let info = info.unwrap();
/// assert_eq!(info.peer.to_string(), "10.0.0.1:80");
/// assert_eq!((info.reused, info.attempts), (false, 1));
/// assert_eq!(info.url(), "http://a.test/slow");
/// assert!(info.timings.first_byte >= Some(Duration::from_millis(200)));
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Info {
    /// The id of the chain.
    pub id: ChainId,
    /// The id of the connection that the response came over.
    pub connection: ConnectionId,
    /// The address that the response came from; 0.0.0.0 and port 0 for a unix socket.
    pub peer: SocketAddr,
    /// The connection's address on this machine; 0.0.0.0 and port 0 for a unix socket.
    pub local: SocketAddr,
    /// Whether the connection had already served another exchange.
    pub reused: bool,
    /// How many times the request was given to a connection: 2 after it was resent, by the engine
    /// or by a policy. The count begins anew after a redirect. The same count as
    /// [`Error::attempts`].
    pub attempts: u32,
    /// When each step was completed.
    pub timings: Timings,
    tls: Option<TlsInfo>,
    request: Request,
    way: Option<Arc<Way>>,
    earlier_is_safe: bool,
    simulated_time: Option<SystemTime>,
}

/// When each step of an exchange was completed, counted from its submission or from the end of its
/// delay. The time in the queue is included in all of them, and if the request was sent again, so
/// is the time of its earlier attempts.
///
/// The resolution is that of turns: the clock is read after the poll, and after each readback that
/// has the engine do something, such as send a request. A step that did not take place is `None`,
/// such as `connect` on a connection that was open already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// The request got a connection: an open one, a place in its pipeline, or one that was then
    /// opened for it. This is the time that the request waited for its
    /// [policy](crate::policy) and in the queue of its origin.
    pub queued: Option<Duration>,
    /// The host's addresses were known.
    pub resolve: Option<Duration>,
    /// The connection was established.
    pub connect: Option<Duration>,
    /// The TLS handshake was complete.
    pub tls: Option<Duration>,
    /// The last byte of the request was written.
    pub sent: Option<Duration>,
    /// The first byte of the response was read.
    pub first_byte: Option<Duration>,
    /// The response was complete.
    pub done: Option<Duration>,
}

impl Info {
    /// Returns the URL that was answered: after redirects, the last one. It may contain secrets: do
    /// not log it.
    pub fn url(&self) -> &Uri {
        self.request.uri()
    }

    /// Returns how the connection is protected: protocol, cipher suite, certificates. `None` for
    /// `http`, and in the simulation (feature `sim`), where `https` is sent without TLS.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.tls.as_ref()
    }

    /// Returns the request that this response answers: the last one, if a policy has sent others
    /// before it.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Returns the redirects that led to this response, in order; see
    /// [`session`](crate::session). An error has none.
    pub fn hops(&self) -> &[Hop] {
        self.way.as_ref().map_or(&[], |way| &way.hops)
    }

    /// Returns how long a policy held the request back, over all its exchanges. The time in the
    /// queue is [`Timings::queued`].
    pub fn waited(&self) -> Duration {
        self.way.as_ref().map_or(Duration::ZERO, |way| way.waited)
    }

    /// As [`Error::resend_is_safe`].
    fn resend_is_safe(&self) -> bool {
        self.request.is_idempotent() && self.earlier_is_safe
    }
}

impl fmt::Debug for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Info")
            .field("id", &self.id)
            .field("request", &self.request)
            .field("connection", &self.connection)
            .field("peer", &self.peer)
            .field("local", &self.local)
            .field("reused", &self.reused)
            .field("attempts", &self.attempts)
            .field("timings", &self.timings)
            .field("tls", &self.tls)
            .finish()
    }
}

impl<'a> Response<'a> {
    /// Returns the status code, 100 to 999.
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// Returns HTTP/1.0 or HTTP/1.1; a higher minor version counts as 1.1 (RFC 9110 §2.5).
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// Returns the reason phrase, which is often empty and means nothing to a client (RFC 9112 §4).
    pub fn reason(&self) -> &'a [u8] {
        let (start, len) = (self.head.reason.0 as usize, self.head.reason.1 as usize);
        &self.section[start..start + len]
    }

    /// Returns the value of the first field line of this name; names are case-insensitive.
    pub fn header(&self, name: impl AsRef<str>) -> Option<&'a [u8]> {
        self.headers().find(name.as_ref())
    }

    /// Returns the same value as [`header`](Self::header), as text. Also returns `None` if the
    /// value is not UTF-8. Field values are usually ASCII (RFC 9110 §5.5).
    pub fn header_str(&self, name: impl AsRef<str>) -> Option<&'a str> {
        str::from_utf8(self.header(name)?).ok()
    }

    /// Returns the values of all field lines of this name, in order.
    pub fn header_all<N: AsRef<str>>(
        &self,
        name: N,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a, N> {
        self.headers()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_ref()))
            .map(|(_, value)| value)
    }

    /// Returns the field lines as received, in order.
    pub fn headers(&self) -> Headers<'a> {
        Headers::new(self.section, &self.head.fields)
    }

    /// Returns the trailer fields (RFC 9112 §7.1.2), which are never merged into the headers. They
    /// are empty until the response is complete.
    pub fn trailers(&self) -> Headers<'a> {
        self.trailers.clone()
    }

    /// Returns the value of a valid Content-Length field, even if the response has no body (HEAD,
    /// 304).
    pub fn content_length(&self) -> Option<u64> {
        self.head.content_length
    }

    /// Returns the body without its transfer coding. It is empty if the body was streamed or
    /// discarded.
    pub fn body(&self) -> &[u8] {
        match &self.body {
            Body::Lent(body) => body,
            Body::Collected(body) => body.as_slice(),
        }
    }

    /// Returns the body as UTF-8.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] if it is not UTF-8, with the position of the first invalid byte. A
    /// body with a content coding, such as gzip, is decoded only by a
    /// [session](crate::session::SessionBuilder::decode) or a policy; otherwise the error names the
    /// coding.
    pub fn text(&self) -> Result<&str, Error> {
        content::text(self.body(), self.header_str("Content-Encoding"))
            .map_err(|why| self.malformed(why))
    }

    /// Parses the body as JSON (RFC 8259), whatever its Content-Type.
    ///
    /// ```
    /// use httpstream::sim::{Answer, Incoming, Network};
    /// use httpstream::{Config, Engine, Next, Request, Sim};
    /// use serde_json::{Value, json};
    ///
    /// let network = Network::new(1);
    /// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::ok(r#"{"id":7}"#));
    /// let mut engine = Engine::<Value, Sim>::on_network(&network, Config::default())?;
    /// engine.submit(Request::get("http://10.0.0.1/").build()?, |message, reply, _| {
    ///     match reply.and_then(|response| response.error_for_status()?.json()) {
    ///         Ok(parsed) => *message = parsed,
    ///         Err(error) => eprintln!("{error:#}"),
    ///     }
    ///     Next::done()
    /// });
    /// let mut message = Value::Null;
    /// engine.run(&mut message)?;
    /// assert_eq!(message, json!({"id": 7}));
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] if it is not JSON, or not of the type `T`, with line and column.
    /// The error contains nothing of the body. If the body has a content coding, such as gzip, the
    /// error names it, as that of [`text`](Self::text) does.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        content::json(self.body(), self.header_str("Content-Encoding"))
            .map_err(|why| self.malformed(why))
    }

    fn malformed(&self, why: String) -> Error {
        Error::from_text(ErrorKind::Malformed, why, self.circumstances())
    }

    /// Returns the response unless its status is 400 or greater: a client or server error. An
    /// invalid status, above 599, counts as a server error (RFC 9110 §15).
    ///
    /// # Errors
    /// [`ErrorKind::Status`] with the [`status`](Error::status), with the delay that the server
    /// asks for as [`retry_after`](Error::retry_after), and with the response's body as
    /// [`partial_body`](Error::partial_body). It is the error of [`Error::of_status`], but takes
    /// the body without copying it if possible.
    pub fn error_for_status(self) -> Result<Self, Error> {
        if !is_error(self.status()) {
            return Ok(self);
        }
        let (at, wait) = (self.circumstances(), self.retry_after());
        let partial_body = self.into_body();
        let at = Circumstances { partial_body, ..at };
        Err(Error::of(ErrorKind::Status, at).with_retry_after(wait))
    }

    /// Returns how long the server asks to wait, by its Retry-After field (RFC 9110 §10.2.3): from
    /// zero to 2³¹ seconds.
    ///
    /// The field contains a number of seconds or a date. A date is measured from the response's own
    /// Date field, so that it does not matter whether the two clocks agree; if there is none, from
    /// the time of day. A date in the past means no delay. `None` if there is no such field,
    /// or if it contains neither.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::{Context, Next, Reply};
    ///
    /// fn on_reply(sent: &mut u32, reply: Reply<'_>, _: &mut Context<'_, u32>) -> Next<u32> {
    ///     match reply {
    ///         Ok(response) if response.status() == 429 => {
    ///             Next::again().after(response.retry_after().unwrap_or(Duration::from_secs(1)))
    ///         }
    ///         Ok(_) => {
    ///             *sent += 1;
    ///             Next::done()
    ///         }
    ///         Err(_) => Next::done(),
    ///     }
    /// }
    /// ```
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.header("Retry-After")?;
        retry_after::delay(value, self.header("Date"), || {
            self.about.simulated_time.unwrap_or_else(SystemTime::now)
        })
    }

    /// Returns whether sending the request again cannot have the server process it twice: it is
    /// [idempotent](crate::Request::is_idempotent), and so were those that were sent before in its
    /// place. As [`Error::resend_is_safe`], for a response whose status is a failure.
    pub fn resend_is_safe(&self) -> bool {
        self.about.request.is_idempotent() && self.about.earlier_is_safe
    }

    /// Returns the circumstances for an error about this response.
    pub(crate) fn circumstances(&self) -> Circumstances {
        let request = &self.about.request;
        Circumstances {
            phase: Phase::Body,
            sent: Sent::Yes,
            resend_is_safe: self.resend_is_safe(),
            reused: self.about.reused,
            attempts: self.about.all_attempts(),
            origin: Some(request.origin()),
            request: Some(request.clone()),
            status: Some(self.status()),
            partial_body: Vec::new(),
        }
    }

    /// Returns the body as an owned vector: moves a body that the engine collected, copies one that
    /// it lent.
    pub fn into_body(self) -> Vec<u8> {
        match self.body {
            Body::Lent(body) => body.to_vec(),
            Body::Collected(body) => body.take(),
        }
    }

    /// Returns a copy as an [`http::Response`]. Field values that `http` does not accept (it
    /// refuses control bytes) are left out, and so are fields beyond its limit of 32,768.
    pub fn to_http(&self) -> http::Response<Vec<u8>> {
        self.http_with(self.body().to_vec())
    }

    /// Like [`to_http`](Self::to_http), but moves the body if possible.
    pub fn into_http(self) -> http::Response<Vec<u8>> {
        let mut response = self.http_with(Vec::new());
        *response.body_mut() = self.into_body();
        response
    }

    /// Copies status, version and headers.
    pub(crate) fn head_to_http(&self) -> http::Response<()> {
        self.http_with(Vec::new()).map(drop)
    }

    fn http_with(&self, body: Vec<u8>) -> http::Response<Vec<u8>> {
        let mut response = http::Response::new(body);
        *response.status_mut() = self.status();
        *response.version_mut() = self.version();
        for (name, value) in self.headers() {
            let name = http::HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(value)) {
                // `http` holds at most 32,768 fields. Any beyond that are left out, like values it
                // does not accept.
                let _ = response.headers_mut().try_append(name, value);
            }
        }
        response
    }

    /// Returns facts about the exchange: peer, timings, whether the connection was reused.
    pub fn info(&self) -> &Info {
        self.info.get_or_init(|| self.about.write_out())
    }
}

impl Error {
    /// Creates an error from a response whose status the caller treats as an error. Its kind is
    /// [`ErrorKind::Status`]; it holds the [`status`](Error::status), the delay that the server
    /// asks for as [`retry_after`](Error::retry_after), and a copy of the body as
    /// [`partial_body`](Error::partial_body). Any status is accepted.
    ///
    /// ```
    /// use httpstream::{Error, Reply};
    ///
    /// fn checked(reply: &Reply<'_>) -> Result<(), Error> {
    ///     match reply {
    ///         Ok(response) if !response.status().is_success() => Err(Error::of_status(response)),
    ///         Ok(_) | Err(_) => Ok(()),
    ///     }
    /// }
    /// ```
    pub fn of_status(response: &Response<'_>) -> Self {
        let at = Circumstances {
            partial_body: response.body().to_vec(),
            ..response.circumstances()
        };
        Self::of(ErrorKind::Status, at).with_retry_after(response.retry_after())
    }

    /// Creates the error of a readback that could not write what it received to a file. `reply` is
    /// how the exchange ended: most often with [`ErrorKind::Aborted`], because the readback has
    /// returned [`Flow::Abort`](crate::Flow::Abort). The kind is [`ErrorKind::Body`], and the
    /// source is `why`; all else is taken from `reply`. [`Save`](crate::Save) makes its errors in
    /// this way.
    ///
    /// ```
    /// use std::io;
    /// use httpstream::{Context, Error, Next, Reply};
    ///
    /// struct Disk { failure: Option<io::Error> }
    ///
    /// fn on_reply(disk: &mut Disk, reply: Reply<'_>, _: &mut Context<'_, Disk>) -> Next<Disk> {
    ///     let outcome = match disk.failure.take() {
    ///         Some(why) => Err(Error::of_file(why, reply)),
    ///         None => reply,
    ///     };
    ///     if let Err(error) = outcome {
    ///         eprintln!("{error:#}");
    ///     }
    ///     Next::done()
    /// }
    /// ```
    pub fn of_file(why: io::Error, reply: Reply<'_>) -> Self {
        match reply {
            Ok(response) => Self::from_io(ErrorKind::Body, why, response.circumstances()),
            Err(error) => error.into_file(why),
        }
    }
}

/// Prints status, number of fields and length of the body. Values and body are left out, since they
/// may contain secrets.
impl fmt::Debug for Response<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status())
            .field("version", &self.version())
            .field("fields", &self.headers().len())
            .field("body_bytes", &self.body().len())
            .field("info", self.info())
            .finish()
    }
}

/// Whether a status says that the request failed.
fn is_error(status: StatusCode) -> bool {
    status.as_u16() >= 400
}

/// Returns an empty list of field lines.
pub(crate) fn no_fields<'a>() -> Headers<'a> {
    const NONE: &[Field] = &[];
    Headers::new(&[], NONE)
}

#[cfg(test)]
pub(crate) mod testing {
    //! Responses without an engine.

    use std::net::Ipv4Addr;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::net::link::Ends;
    use crate::proto::Limits;

    /// The time of day of these responses: 1994-11-06 08:49:37 UTC.
    const NOW: Duration = Duration::from_secs(784_111_777);

    /// Lends a response to `request`. `wire` is its head, from the status line to the empty line.
    pub(crate) fn lend<T>(
        request: &Request,
        wire: &str,
        body: &[u8],
        to: impl FnOnce(Response<'_>) -> T,
    ) -> T {
        let mut section = wire.as_bytes().to_vec();
        let mut head = Head::default();
        head.read(&mut section, &mut 0, &Limits::default())
            .expect("a well-formed head")
            .expect("a complete head");
        // A connection finds the length together with the framing.
        let length = Headers::new(&section, &head.fields).find("Content-Length");
        head.content_length = length.and_then(|it| str::from_utf8(it).ok()?.parse().ok());
        let about = About {
            id: ChainId::from_u64(1),
            link: (0, Generation::default()),
            ends: Ends::towards((Ipv4Addr::LOCALHOST, 80).into()).both(),
            reused: true,
            attempts: 1,
            queued: 0,
            times: Times::default(),
            done: 0,
            tls: None,
            request: request.clone(),
            earlier_is_safe: true,
            way: None,
            simulated_time: Some(UNIX_EPOCH + NOW),
        };
        to(Response {
            head: &head,
            section: &section,
            trailers: no_fields(),
            body: Body::Lent(body),
            about: &about,
            info: &OnceLock::new(),
        })
    }
}

#[cfg(test)]
mod tests;
