//! One large body, up or down, by each of the clients that stream both ways.
//!
//! Each copies what it sends from [`Content`], in pieces of the size that it asks for, or of
//! [`PIECE`] if it does not ask. What is received is counted.

use std::error::Error;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use ::curl::easy::{Easy2, Handler, List, ReadError, WriteError};
use ::httpstream::{Engine, Flow, Next, Readback, Reply, Request};
use ::ureq::SendBody;
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::ask::not_applicable;
use crate::job::{Client, Cost};
use crate::measure::transfers::{Ask, Transfer};
use crate::meter::Meter;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The pieces that hyper and reqwest get. hyper sends several in one call.
const PIECE: usize = 64 << 10;
/// As large as httpstream's.
const CURL_READ_BUFFER: usize = 128 << 10;

/// Transfers the body.
///
/// # Errors
/// If it does not arrive whole.
pub(crate) fn run(ask: &Ask) -> Result<Cost> {
    let meter = Meter::start();
    let transferred = match ask.client {
        Client::Httpstream => httpstream(ask)?,
        Client::HyperConn => in_tokio(hyper(ask))?,
        Client::Reqwest => in_tokio(reqwest(ask))?,
        Client::CurlMulti => curl(ask)?,
        Client::Ureq => ureq(ask)?,
        Client::Floor | Client::HyperUtil | Client::MioHttpc | Client::Wrk => {
            return not_applicable("it is not among those that are compared");
        }
    };
    let cost = meter.stop(1);
    match transferred == ask.bytes {
        true => Ok(cost),
        false => Err(format!("{transferred} of {} bytes arrived", ask.bytes).into()),
    }
}

/// What is sent, without an end of its own: copied from memory, as the content of a cached file
/// would be.
static CONTENT: [u8; 64 << 10] = [b'x'; 64 << 10];

struct Content {
    left: u64,
}

impl Content {
    fn of(ask: &Ask) -> Self {
        Self { left: ask.bytes }
    }

    fn next(&mut self, most: usize) -> &'static [u8] {
        let n = most
            .min(CONTENT.len())
            .min(self.left.try_into().unwrap_or(usize::MAX));
        self.left -= n as u64;
        &CONTENT[..n]
    }
}

impl Read for Content {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let piece = self.next(room.len());
        room[..piece.len()].copy_from_slice(piece);
        Ok(piece.len())
    }
}

/// Returns the URL, and the length that is announced.
fn target(ask: &Ask) -> (String, Option<u64>) {
    let server = ask.server;
    match ask.transfer {
        Transfer::Up => (format!("http://{server}/up"), Some(ask.bytes)),
        Transfer::UpChunked => (format!("http://{server}/up"), None),
        Transfer::Down | Transfer::DownToTask => (format!("http://{server}/{}", ask.bytes), None),
    }
}

/// Counts the bytes of a response that is streamed.
struct Counting;

impl Readback<Result<u64>> for Counting {
    fn on_head(
        &mut self,
        _: &mut Result<u64>,
        _: &::httpstream::Response<'_>,
        _: &mut ::httpstream::Context<'_, Result<u64>>,
    ) -> Flow {
        Flow::Stream
    }

    fn on_data(
        &mut self,
        counted: &mut Result<u64>,
        data: &[u8],
        _: &mut ::httpstream::Context<'_, Result<u64>>,
    ) -> Flow {
        if let Ok(counted) = counted {
            *counted += data.len() as u64;
        }
        Flow::Stream
    }

    fn on_reply(
        &mut self,
        counted: &mut Result<u64>,
        reply: Reply<'_>,
        _: &mut ::httpstream::Context<'_, Result<u64>>,
    ) -> Next<Result<u64>> {
        if let Err(error) = reply {
            *counted = Err(error.to_string().into());
        }
        Next::done()
    }
}

fn httpstream(ask: &Ask) -> Result<u64> {
    let mut engine = Engine::new()?;
    let mut outcome = Ok(0);
    let (url, size) = target(ask);
    match ask.transfer {
        Transfer::Up | Transfer::UpChunked => {
            let put = Request::put(&url).body_reader(Content::of(ask), size);
            engine.submit(put.build()?, |outcome: &mut Result<u64>, reply, _| {
                let text = reply.map_err(|error| error.to_string());
                *outcome = text.and_then(|it| parse(it.body())).map_err(Into::into);
                Next::done()
            });
        }
        Transfer::Down => {
            engine.submit_to(Request::get(&url).build()?, Counting);
        }
        Transfer::DownToTask => {
            let http = engine.local();
            let get = Request::get(&url).build()?;
            engine.spawn(async move {
                let counted = read_in_task(&http, get)
                    .await
                    .map_err(|error| error.to_string());
                let told = http.with(move |outcome: &mut Result<u64>, _| {
                    *outcome = counted.map_err(Into::into);
                });
                let _ = told.await;
            });
        }
    }
    engine.run(&mut outcome)?;
    outcome
}

async fn read_in_task(
    http: &::httpstream::Local<Result<u64>>,
    get: Request,
) -> std::result::Result<u64, ::httpstream::Error> {
    let mut body = http.open(get).await?.into_body();
    let mut counted = 0;
    while let Some(piece) = body.next().await {
        counted += piece?.len() as u64;
    }
    Ok(counted)
}

/// Returns what the server has counted.
fn parse(body: &[u8]) -> std::result::Result<u64, String> {
    let text = String::from_utf8_lossy(body);
    text.parse().map_err(|_| format!("not a length: {text:?}"))
}

fn in_tokio(transferred: impl Future<Output = Result<u64>>) -> Result<u64> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build()?.block_on(transferred)
}

/// A body for hyper and reqwest.
struct Pieces {
    content: Content,
    size: Option<u64>,
}

impl Pieces {
    fn of(ask: &Ask) -> Self {
        let (_, size) = target(ask);
        let content = match ask.transfer {
            Transfer::Up | Transfer::UpChunked => Content::of(ask),
            Transfer::Down | Transfer::DownToTask => Content { left: 0 },
        };
        Self { content, size }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(match self.content.next(PIECE) {
            [] => None,
            piece => Some(Ok(Frame::data(Bytes::copy_from_slice(piece)))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.content.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        self.size
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

async fn hyper(ask: &Ask) -> Result<u64> {
    let (url, _) = target(ask);
    let uri: hyper::Uri = url.parse()?;
    let socket = TcpStream::connect(ask.server).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    let mut request = hyper::Request::new(Pieces::of(ask));
    *request.uri_mut() = uri.path().parse()?;
    request
        .headers_mut()
        .insert(HOST, ask.server.to_string().parse()?);
    if ask.transfer.is_upload() {
        *request.method_mut() = hyper::Method::PUT;
        let response = sender.send_request(request).await?;
        return Ok(parse(&response.collect().await?.to_bytes())?);
    }
    let mut body: Incoming = sender.send_request(request).await?.into_body();
    let mut counted = 0;
    while let Some(frame) = body.frame().await {
        counted += frame?.data_ref().map_or(0, Bytes::len) as u64;
    }
    Ok(counted)
}

async fn reqwest(ask: &Ask) -> Result<u64> {
    let client = ::reqwest::Client::builder().no_proxy().build()?;
    let (url, _) = target(ask);
    if ask.transfer.is_upload() {
        let put = client.put(url).body(::reqwest::Body::wrap(Pieces::of(ask)));
        return Ok(parse(&put.send().await?.bytes().await?)?);
    }
    let mut response = client.get(url).send().await?;
    let mut counted = 0;
    while let Some(piece) = response.chunk().await? {
        counted += piece.len() as u64;
    }
    Ok(counted)
}

/// What libcurl reads from and writes to.
struct Curl {
    content: Content,
    counted: u64,
    text: Option<Vec<u8>>,
}

impl Handler for Curl {
    fn read(&mut self, room: &mut [u8]) -> std::result::Result<usize, ReadError> {
        self.content.read(room).map_err(|_| ReadError::Abort)
    }

    fn write(&mut self, piece: &[u8]) -> std::result::Result<usize, WriteError> {
        match &mut self.text {
            Some(text) => text.extend_from_slice(piece),
            None => self.counted += piece.len() as u64,
        }
        Ok(piece.len())
    }
}

/// Its easy interface, since there is a single transfer.
fn curl(ask: &Ask) -> Result<u64> {
    let (url, size) = target(ask);
    let mut easy = Easy2::new(Curl {
        content: Content::of(ask),
        counted: 0,
        text: ask.transfer.is_upload().then(Vec::new),
    });
    easy.url(&url)?;
    // Ignore the environment's proxy variables.
    easy.noproxy("*")?;
    easy.buffer_size(CURL_READ_BUFFER)?;
    if ask.transfer.is_upload() {
        easy.upload(true)?;
        // Without this field it waits a second for a 100 (Continue).
        let mut fields = List::new();
        fields.append("Expect:")?;
        easy.http_headers(fields)?;
        if let Some(size) = size {
            easy.in_filesize(size)?;
        }
    }
    easy.perform()?;
    match &easy.get_ref().text {
        Some(text) => Ok(parse(text)?),
        None => Ok(easy.get_ref().counted),
    }
}

fn ureq(ask: &Ask) -> Result<u64> {
    let agent: ::ureq::Agent = ::ureq::Agent::config_builder().proxy(None).build().into();
    let (url, size) = target(ask);
    if ask.transfer.is_upload() {
        let mut put = agent.put(&url);
        if let Some(size) = size {
            put = put.header("Content-Length", size.to_string());
        }
        let mut response = put.send(SendBody::from_owned_reader(Content::of(ask)))?;
        return Ok(parse(&response.body_mut().read_to_vec()?)?);
    }
    let mut response = agent.get(&url).call()?;
    let mut body = response.body_mut().as_reader();
    let mut piece = [0; 64 << 10];
    let mut counted = 0;
    loop {
        match body.read(&mut piece)? {
            0 => return Ok(counted),
            n => counted += n as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::transfers::TRANSFERS;
    use crate::server;

    #[test]
    fn each_client_transfers_a_small_body() {
        let reached = server::start_threads().expect("a server");
        for transfer in TRANSFERS {
            for &client in transfer.clients() {
                // Sizes that are no multiple of any buffer.
                for bytes in [1, 1_000_003] {
                    let ask = Ask {
                        client,
                        transfer,
                        server: reached.transfers,
                        bytes,
                    };
                    if let Err(error) = run(&ask) {
                        panic!("{client:?} {transfer:?} of {bytes}: {error}");
                    }
                }
            }
        }
    }
}
