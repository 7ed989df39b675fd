//! hyper's connection API on tokio's current-thread runtime, as in its own example: a task for each
//! connection, and another for its requests. The request is built anew each time, since hyper
//! consumes it. Small bodies are read by frames, those to be collected by `collect` with a limit.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, HOST, HeaderName, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::ask::{self, DELAY, Holding, Tally, not_applicable};
use crate::job::{Cost, Job, Workload};
use crate::meter::Meter;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The longest body that is collected, in bytes; the same as httpstream's default.
const MAX_BODY: usize = 16 << 20;

pub(crate) fn run(job: &Job) -> std::result::Result<Cost, Box<dyn Error>> {
    match job.workload {
        Workload::Small
        | Workload::Chunked
        | Workload::Fields
        | Workload::Large
        | Workload::Huge
        | Workload::HugeStreamed
        | Workload::Close
        | Workload::Tls
        | Workload::Delayed => runtime(job)?.block_on(ask(job)).map_err(|error| error as _),
        Workload::Held => runtime(job)?
            .block_on(hold(job))
            .map_err(|error| error as _),
        Workload::Pipelined { .. } => not_applicable("it does not pipeline"),
    }
}

/// Enables the timer only if something waits for one: it has a cost each time the runtime waits.
pub(super) fn runtime(job: &Job) -> std::io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_io();
    if matches!(job.workload, Workload::Delayed | Workload::Held) {
        builder.enable_time();
    }
    builder.build()
}

async fn ask(job: &Job) -> Result<Cost> {
    let tally = Arc::new(Mutex::new(Tally::new(job)));
    let target = Target::new(job)?;
    let mut tasks = Vec::new();
    for connection in 0..job.connections {
        let server = job.servers[connection % job.servers.len()];
        let chain = chain(target.clone(), server, job.workload, Arc::clone(&tally));
        tasks.push(tokio::spawn(chain));
    }
    for task in tasks {
        task.await??;
    }
    let mut tally = tally.lock().map_err(|_| "a task panicked")?;
    tally.cost().map_err(|error| error.to_string().into())
}

/// How the server is reached.
#[derive(Clone)]
enum Target {
    Plain,
    Tls(TlsConnector),
}

impl Target {
    /// rustls is configured as in httpstream: ring, and only http/1.1.
    fn new(job: &Job) -> Result<Self> {
        if job.workload != Workload::Tls {
            return Ok(Self::Plain);
        }
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&fs::read(&job.root)?)?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self::Tls(TlsConnector::from(Arc::new(config))))
    }

    async fn connect(&self, server: SocketAddr) -> Result<SendRequest<Empty<Bytes>>> {
        let socket = TcpStream::connect(server).await?;
        match self {
            Self::Plain => shake_hands(socket).await,
            Self::Tls(connector) => {
                let name = ServerName::from(server.ip());
                shake_hands(connector.connect(name, socket).await?).await
            }
        }
    }
}

async fn shake_hands<T>(io: T) -> Result<SendRequest<Empty<Bytes>>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn chain(
    target: Target,
    server: SocketAddr,
    workload: Workload,
    tally: Arc<Mutex<Tally>>,
) -> Result<()> {
    let tally = || tally.lock().expect("no task panicked");
    let parts = Parts::to(workload, server)?;
    let mut sender = None;
    while tally().send() {
        let mut open = match sender.take() {
            Some(open) => open,
            None => target.connect(server).await?,
        };
        match one(&mut open, &parts, workload).await {
            Ok((status, body_len)) => tally().on_answer(status, body_len),
            Err(error) => tally().on_error(&error),
        }
        match workload {
            Workload::Close => continue,
            Workload::Delayed => tokio::time::sleep(DELAY).await,
            _ => {}
        }
        sender = Some(open);
    }
    Ok(())
}

/// Returns the status, and the length of the body.
async fn one(
    sender: &mut SendRequest<Empty<Bytes>>,
    parts: &Parts,
    workload: Workload,
) -> Result<(u16, usize)> {
    sender.ready().await?;
    let response = sender.send_request(parts.request()).await?;
    read(response, workload).await
}

/// The parts of a request, which are neither parsed nor copied again.
#[derive(Clone)]
pub(super) struct Parts {
    uri: Uri,
    /// In the order in which they are sent.
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Parts {
    pub(super) fn new(uri: Uri, host: Option<SocketAddr>) -> Result<Self> {
        let mut fields = Vec::new();
        if let Some(host) = host {
            fields.push((HOST, host.to_string().parse()?));
        }
        fields.push((ACCEPT, HeaderValue::from_static("*/*")));
        Ok(Self { uri, fields })
    }

    fn to(workload: Workload, server: SocketAddr) -> Result<Self> {
        Self::new(Uri::from_static(ask::path(workload)), Some(server))
    }

    pub(super) fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.uri.clone();
        for (name, value) in &self.fields {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        request
    }
}

pub(super) async fn read(response: Response<Incoming>, workload: Workload) -> Result<(u16, usize)> {
    let status = response.status().as_u16();
    let body = response.into_body();
    let body_len = match workload {
        Workload::Large | Workload::Huge => {
            let collected = Limited::new(body, MAX_BODY).collect().await?;
            collected.to_bytes().len()
        }
        _ => frames(body).await?,
    };
    Ok((status, body_len))
}

async fn frames<B: Body<Data = Bytes> + Unpin>(
    mut body: B,
) -> std::result::Result<usize, B::Error> {
    let mut len = 0;
    while let Some(frame) = body.frame().await {
        len += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(len)
}

async fn hold(job: &Job) -> Result<Cost> {
    let said = |error: Box<dyn Error>| error.to_string();
    let mut holding = Holding::new(job, job.connections)?;
    let meter = Meter::start();
    for connection in 0..job.connections {
        let server = job.servers[connection % job.servers.len()];
        let parts = Parts::to(Workload::Held, server)?;
        let mut sender = Target::Plain.connect(server).await?;
        tokio::spawn(async move { one(&mut sender, &parts, Workload::Held).await });
    }
    while !holding.is_complete().map_err(said)? {
        tokio::time::sleep(Holding::PAUSE).await;
    }
    Ok(meter.stop(job.connections as u64))
}
