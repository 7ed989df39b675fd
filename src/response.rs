//! The response as it is lent to a readback, and to what a policy does before it.
//!
//! A policy is asked about responses, and a request carries its policy: so the response stands
//! above `request` and `net`, from whose buffers it is lent, and below `policy` and `engine`.

use std::fmt;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use http::{StatusCode, Uri, Version};

use crate::error::{Circumstances, Error, ErrorKind, Phase, Sent};
use crate::h1::exchange::Times;
use crate::h1::reading::Body;
use crate::id::ChainId;
use crate::net::tls::TlsInfo;
use crate::proto::Headers;
use crate::proto::field::Field;
use crate::proto::head::Head;
use crate::request::Request;

/// What a readback is given: the response, or why there is none, or not all of it.
///
/// A response of any status is `Ok`: look at [`status`](Response::status).
pub type Reply<'a> = Result<Response<'a>, Error>;

/// A response, lent from the engine's buffers for the length of the call.
pub struct Response<'a> {
    pub(crate) head: &'a Head,
    /// The bytes that the head's fields stand in.
    pub(crate) section: &'a [u8],
    pub(crate) trailers: Headers<'a>,
    pub(crate) body: Body<'a>,
    pub(crate) about: &'a About,
    /// Where what was asked of it is written out. Beside it, since it is large, and would be moved
    /// wherever that is made.
    pub(crate) info: &'a OnceLock<Info>,
}

/// What is known of an exchange, before anybody asks for it: to write it out costs more than to
/// keep it.
pub(crate) struct About {
    pub(crate) id: ChainId,
    pub(crate) peer: SocketAddr,
    pub(crate) reused: bool,
    pub(crate) attempts: u8,
    pub(crate) times: Times,
    /// Microseconds after the request's start; 0 while it is not complete.
    pub(crate) done: u64,
    pub(crate) tls: Option<TlsInfo>,
    pub(crate) request: Request,
    /// Whether all that was sent in the place of `request`, before it, was idempotent.
    pub(crate) earlier_is_safe: bool,
}

impl About {
    fn write_out(&self) -> Info {
        let at = |micros: u64| (micros > 0).then(|| Duration::from_micros(micros));
        Info {
            id: self.id,
            peer: self.peer,
            reused: self.reused,
            attempts: self.attempts.into(),
            timings: Timings {
                resolve: at(self.times.resolve.into()),
                connect: at(self.times.connect.into()),
                tls: at(self.times.tls.into()),
                sent: at(self.times.sent.into()),
                first_byte: at(self.times.first_byte.into()),
                done: at(self.done),
            },
            tls: self.tls.clone(),
            request: self.request.clone(),
        }
    }
}

/// What is known of an exchange beside its response.
///
/// A response that a future comes to has it in its extensions:
/// `response.extensions().get::<Info>()`.
#[derive(Clone)]
#[non_exhaustive]
pub struct Info {
    /// The chain.
    pub id: ChainId,
    /// The address that the response came from; of a unix socket 0.0.0.0 and port 0.
    pub peer: SocketAddr,
    /// Whether the connection had served another exchange before.
    pub reused: bool,
    /// How often the request was sent: 2 after a retry on a fresh connection.
    pub attempts: u32,
    /// When each step was done.
    pub timings: Timings,
    tls: Option<TlsInfo>,
    request: Request,
}

/// When each step of an exchange was done, counted from its submission, or from the end of its
/// delay.
///
/// Resolution is that of the turns: the clock is read after the poll, and after readbacks that ask
/// for something. `None` for a step that has not been taken, such as `connect` on a connection that
/// was already there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// The host's addresses were known.
    pub resolve: Option<Duration>,
    /// The connection was there.
    pub connect: Option<Duration>,
    /// The TLS handshake was over.
    pub tls: Option<Duration>,
    /// The last byte of the request was written.
    pub sent: Option<Duration>,
    /// The first byte of the response was read.
    pub first_byte: Option<Duration>,
    /// The response was complete.
    pub done: Option<Duration>,
}

impl Info {
    /// The URL that was asked for. It may hold secrets: do not log it.
    pub fn url(&self) -> &Uri {
        self.request.uri()
    }

    /// How the connection is protected: protocol, cipher suite, certificates; `None` of `http`, and
    /// in the simulation (feature `sim`), where `https` is sent without TLS.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.tls.as_ref()
    }

    /// The request that was answered.
    pub fn request(&self) -> &Request {
        &self.request
    }
}

impl fmt::Debug for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Info")
            .field("id", &self.id)
            .field("request", &self.request)
            .field("peer", &self.peer)
            .field("reused", &self.reused)
            .field("attempts", &self.attempts)
            .field("timings", &self.timings)
            .field("tls", &self.tls)
            .finish()
    }
}

impl<'a> Response<'a> {
    /// The status code, 100 to 999.
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// HTTP/1.0 or HTTP/1.1; a higher minor version counts as 1.1 (RFC 9110 §2.5).
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// The reason phrase, often empty, of no meaning to a client (RFC 9112 §4).
    pub fn reason(&self) -> &'a [u8] {
        let (start, len) = (self.head.reason.0 as usize, self.head.reason.1 as usize);
        &self.section[start..start + len]
    }

    /// The value of the first field line of that name; names are case-insensitive.
    pub fn header(&self, name: impl AsRef<str>) -> Option<&'a [u8]> {
        self.headers().find(name.as_ref())
    }

    /// [`header`](Self::header) as text; `None` as well if the value is not UTF-8. Field values
    /// are ASCII as a rule (RFC 9110 §5.5).
    pub fn header_str(&self, name: impl AsRef<str>) -> Option<&'a str> {
        str::from_utf8(self.header(name)?).ok()
    }

    /// The values of all field lines of that name, in order.
    pub fn header_all<N: AsRef<str>>(
        &self,
        name: N,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a, N> {
        self.headers()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_ref()))
            .map(|(_, value)| value)
    }

    /// The field lines as received, in order.
    pub fn headers(&self) -> Headers<'a> {
        Headers::new(self.section, &self.head.fields)
    }

    /// The trailer fields (RFC 9112 §7.1.2), never merged into the headers; empty before the
    /// response is complete.
    pub fn trailers(&self) -> Headers<'a> {
        self.trailers.clone()
    }

    /// The valid Content-Length of the response, also where there is no body to it (HEAD, 304).
    pub fn content_length(&self) -> Option<u64> {
        self.head.content_length
    }

    /// The body, its transfer coding removed; empty if it was streamed or discarded.
    pub fn body(&self) -> &[u8] {
        match &self.body {
            Body::Lent(body) => body,
            Body::Collected(body) => body.as_slice(),
        }
    }

    /// The body as UTF-8.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the first byte that is not.
    pub fn text(&self) -> Result<&str, Error> {
        std::str::from_utf8(self.body()).map_err(|error| {
            let why = format!("body is not UTF-8 at byte {}", error.valid_up_to());
            Error::from_text(ErrorKind::Malformed, why, self.circumstances())
        })
    }

    /// What an error says that is about this response.
    pub(crate) fn circumstances(&self) -> Circumstances {
        let request = &self.about.request;
        Circumstances {
            phase: Phase::Body,
            sent: Sent::Yes,
            resend_is_safe: request.is_idempotent() && self.about.earlier_is_safe,
            reused: self.about.reused,
            attempts: self.about.attempts,
            origin: Some(request.origin()),
            request: Some(request.clone()),
            status: Some(self.status()),
            partial_body: Vec::new(),
        }
    }

    /// The body for keeps: moves what the engine collected, copies what it lent.
    pub fn into_body(self) -> Vec<u8> {
        match self.body {
            Body::Lent(body) => body.to_vec(),
            Body::Collected(body) => body.take(),
        }
    }

    /// A copy as an [`http::Response`]. Field values that `http` does not take (it refuses control
    /// bytes) are left out, and so are fields beyond its 32,768.
    pub fn to_http(&self) -> http::Response<Vec<u8>> {
        self.http_with(self.body().to_vec())
    }

    /// [`to_http`](Self::to_http), the body moved where it can be.
    pub fn into_http(self) -> http::Response<Vec<u8>> {
        let mut response = self.http_with(Vec::new());
        *response.body_mut() = self.into_body();
        response
    }

    fn http_with(&self, body: Vec<u8>) -> http::Response<Vec<u8>> {
        let mut response = http::Response::new(body);
        *response.status_mut() = self.status();
        *response.version_mut() = self.version();
        for (name, value) in self.headers() {
            let name = http::HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(value)) {
                // `http` holds 32,768 fields at most; what is beyond is left out like what it does
                // not take.
                let _ = response.headers_mut().try_append(name, value);
            }
        }
        response
    }

    /// About the exchange: peer, timings, whether the connection was reused.
    pub fn info(&self) -> &Info {
        self.info.get_or_init(|| self.about.write_out())
    }
}

impl Error {
    /// Makes an error of a response whose status counts as one: [`ErrorKind::Status`], with its
    /// [`status`](Error::status) and a copy of its body as [`partial_body`](Error::partial_body).
    /// Any status is taken.
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
        Self::of(ErrorKind::Status, at)
    }
}

/// Status, number of fields and length of the body: neither values nor body, which may hold
/// secrets.
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

/// No field lines.
pub(crate) fn no_fields<'a>() -> Headers<'a> {
    const NONE: &[Field] = &[];
    Headers::new(&[], NONE)
}

#[cfg(test)]
pub(crate) mod testing {
    //! Responses without an engine.

    use std::net::Ipv4Addr;

    use super::*;
    use crate::proto::Limits;

    /// Lends a response to `request`: `wire` is its head, from the status line to the empty line.
    pub(crate) fn lend<T>(
        request: &Request,
        wire: &str,
        body: &[u8],
        to: impl FnOnce(Response<'_>) -> T,
    ) -> T {
        let mut section = wire.as_bytes().to_vec();
        let mut head = Head::default();
        head.read(&mut section, &mut 0, &Limits::default())
            .expect("a head without mistakes")
            .expect("a whole head");
        let about = About {
            id: ChainId::from_u64(1),
            peer: (Ipv4Addr::LOCALHOST, 80).into(),
            reused: true,
            attempts: 1,
            times: Times::default(),
            done: 0,
            tls: None,
            request: request.clone(),
            earlier_is_safe: true,
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
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_status_has_what_the_response_had() {
        let request = Request::post("http://a:81/secret").build().unwrap();
        let wire = "HTTP/1.1 429 Slow Down\r\nContent-Length: 4\r\n\r\n";
        let error = testing::lend(&request, wire, b"wait", |response| {
            Error::of_status(&response)
        });
        assert_eq!(error.kind(), ErrorKind::Status);
        assert_eq!(error.status(), Some(StatusCode::TOO_MANY_REQUESTS));
        assert_eq!(error.partial_body(), b"wait");
        assert_eq!(
            (error.phase(), error.request_sent()),
            (Phase::Body, Sent::Yes)
        );
        assert!(!error.resend_is_safe() && error.reused_connection());
        assert_eq!(error.request().map(Request::target), Some("/secret"));
        let expected = "http://a:81: answered with 429 Too Many Requests";
        assert_eq!(format!("{error}"), expected);
        assert_eq!(format!("{error:#}"), expected);
        assert!(!format!("{error:?}").contains("secret"));
    }
}
