//! How answers travel over a connection: hyper reads and writes, and is made to break off where the
//! server should.
//!
//! The answers themselves come from the caller, see [`serve`]. Breaking a connection has no
//! representation in hyper, so the service or the body returns an error, [`Break`], which says how
//! the connection then ends.

use std::error::Error;
use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::TokioIo;
use log::{debug, warn};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

use crate::server::{Answer, Call, Manner, Scheme};

/// No form is longer.
const MAX_REQUEST_BODY: usize = 64 * 1024;

/// The pause before a connection breaks inside a body, in which the bytes so far are sent.
const BEFORE_BREAK: Duration = Duration::from_millis(10);

/// The pause between two pieces of a dripping body, its maximum number of pieces, and their minimum
/// size in bytes.
const DRIP: Duration = Duration::from_millis(3);
const MAX_DROPS: usize = 40;
const MIN_DROP: usize = 3;

/// A connection that [`serve`] can use.
pub(crate) trait Carrier: AsyncRead + AsyncWrite + Unpin {
    const SCHEME: Scheme;

    /// The TCP connection below.
    fn tcp(&self) -> &TcpStream;
}

impl Carrier for TcpStream {
    const SCHEME: Scheme = Scheme::Http;

    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Carrier for TlsStream<TcpStream> {
    const SCHEME: Scheme = Scheme::Https;

    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Reads the calls of a connection and writes `reply`'s answers, one after another, until either
/// side ends it.
///
/// When the client closes, a pending `reply` is dropped. This does not work if the client had sent
/// more bytes by then, because hyper reads those before it sees the end.
pub(crate) async fn serve<C, R, F>(stream: C, number: u64, reply: R)
where
    C: Carrier,
    R: Fn(Call) -> F + Clone,
    F: Future<Output = Answer>,
{
    let service = service_fn(move |request| {
        let reply = reply.clone();
        async move {
            let call = read_call(number, C::SCHEME, request).await?;
            render(reply(call).await).await
        }
    });
    let mut connection = http1::Builder::new()
        .title_case_headers(true)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    let Err(error) = (&mut connection).await else {
        return;
    };
    debug!("connection {number}: {error}");
    if let Some(Break::Reset) = error.source().and_then(|source| source.downcast_ref()) {
        let stream = connection.into_parts().io.into_inner();
        // Closing with a linger time of zero sends a reset. No TLS alert is sent before it.
        if let Err(error) = SockRef::from(stream.tcp()).set_linger(Some(Duration::ZERO)) {
            warn!("connection {number}: closed instead of reset ({error})");
        }
    }
}

/// # Errors
/// If the client closes inside the body, or sends a body of more than [`MAX_REQUEST_BODY`] bytes.
async fn read_call(number: u64, scheme: Scheme, request: Request<Incoming>) -> Result<Call, Break> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_REQUEST_BODY).collect().await;
    let body = body.map_err(|error| {
        debug!("connection {number}: {error}");
        Break::Close
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = head.headers.iter();
    let headers = fields.map(|(name, value)| (name.to_string(), text(value.as_bytes())));
    let target = head.uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(Call::parse(
        number,
        scheme,
        head.method.as_str(),
        target,
        headers.collect(),
        &body.to_bytes(),
    ))
}

/// Converts an answer for hyper. If the client is to get none, this fails or never returns.
async fn render(answer: Answer) -> Result<Response<Outgoing>, Break> {
    match answer.manner {
        Manner::NoByte => return Err(Break::Close),
        Manner::Reset => return Err(Break::Reset),
        Manner::Silence => pending().await,
        _ => {}
    }
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    if answer.manner == Manner::UntilClose {
        // An older version keeps hyper from using chunked coding, and from keeping the connection
        // alive.
        response = response.version(Version::HTTP_10);
        response = response.header("Connection", "close");
    }
    let response = response.body(Outgoing::new(answer.body, answer.manner));
    response.map_err(|error| {
        warn!("answer cannot be sent: {error}");
        Break::Close
    })
}

/// How a connection ends before its answer is complete.
#[derive(Clone, Copy, Debug)]
enum Break {
    Close,
    Reset,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Break::Close => "closed on purpose",
            Break::Reset => "reset on purpose",
        })
    }
}

impl Error for Break {}

/// A body that is being sent.
#[derive(Debug)]
struct Outgoing {
    rest: Bytes,
    end: End,
    /// The size of each piece.
    piece: usize,
    /// The pause between pieces, and before a break.
    pause: Duration,
    /// The pause that is running.
    pausing: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum End {
    /// The length is announced.
    Known,
    /// The end is not announced.
    Open,
    /// The connection breaks this many bytes before the end.
    Never { missing: u64, by: Break },
}

impl Outgoing {
    fn new(body: Vec<u8>, manner: Manner) -> Self {
        let len = body.len();
        let mut rest = Bytes::from(body);
        let mut cut = |by| {
            rest.truncate(len / 2);
            // Even an empty body must lack something.
            let missing = (len - len / 2).max(1) as u64;
            End::Never { missing, by }
        };
        let end = match manner {
            Manner::Chunked | Manner::UntilClose => End::Open,
            Manner::CutShort => cut(Break::Close),
            Manner::ResetInBody => cut(Break::Reset),
            _ => End::Known,
        };
        let (piece, pause) = match manner {
            Manner::Drip => (len.div_ceil(MAX_DROPS).max(MIN_DROP), DRIP),
            Manner::Chunked => (len.div_ceil(3).max(1), Duration::ZERO),
            Manner::CutShort | Manner::ResetInBody => (len.max(1), BEFORE_BREAK),
            _ => (len.max(1), Duration::ZERO),
        };
        Self {
            // There must be at least one pause before a break, because hyper flushes only when it
            // has to wait.
            pausing: (rest.is_empty() && !pause.is_zero()).then(|| Box::pin(sleep(pause))),
            rest,
            end,
            piece,
            pause,
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Break;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Break>>> {
        if let Some(pausing) = &mut self.pausing {
            ready!(pausing.as_mut().poll(cx));
            self.pausing = None;
        }
        if self.rest.is_empty() {
            return Poll::Ready(match self.end {
                End::Known | End::Open => None,
                End::Never { by, .. } => Some(Err(by)),
            });
        }
        let piece = self.piece.min(self.rest.len());
        let piece = self.rest.split_to(piece);
        if !self.pause.is_zero() {
            self.pausing = Some(Box::pin(sleep(self.pause)));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, End::Known) && self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        match self.end {
            End::Known => SizeHint::with_exact(rest),
            End::Open => SizeHint::default(),
            End::Never { missing, .. } => SizeHint::with_exact(rest + missing),
        }
    }
}
