//! Bodies of all kinds and sizes, as nginx, hyper, Node and uvicorn receive them.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use httpstream::policy::Fields;
use httpstream::{BodySource, Request, RequestBuilder, Supply, body};
use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::common::Bench;
use crate::servers::{Nginx, Random, TempDir};
use crate::{described, hyper_server, programs, sha256};

const SIZES: [usize; 6] = [0, 1, 65_535, 65_536, 65_537, 5_000_000];

/// Longer than a test may take: a body that is sent has been asked for by a 100 (Continue).
const FOR_EVER: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bytes,
    File,
    /// A source that knows its length.
    Sized,
    /// A source that does not, with a trailer field.
    Chunked,
    /// A thread that writes.
    Channel,
    /// A source that knows its length, and waits for a 100 (Continue).
    Expected,
    /// A source that does not, and waits, too.
    ExpectedChunked,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Bytes,
        Self::File,
        Self::Sized,
        Self::Chunked,
        Self::Channel,
        Self::Expected,
        Self::ExpectedChunked,
    ];

    fn is_chunked(self) -> bool {
        matches!(self, Self::Chunked | Self::Channel | Self::ExpectedChunked)
    }

    fn has_trailer(self) -> bool {
        matches!(self, Self::Chunked | Self::ExpectedChunked)
    }
}

/// Yields pieces of various lengths, and waits in between.
struct Pieces {
    bytes: Arc<[u8]>,
    at: usize,
    calls: usize,
    is_sized: bool,
    total_calls: Arc<AtomicUsize>,
}

impl BodySource for Pieces {
    fn size(&self) -> Option<u64> {
        self.is_sized.then_some(self.bytes.len() as u64)
    }

    fn read(&mut self, room: &mut [u8], waker: &Waker) -> io::Result<Supply> {
        self.total_calls.fetch_add(1, Ordering::Relaxed);
        self.calls += 1;
        if self.calls.is_multiple_of(3) {
            waker.wake_by_ref();
            return Ok(Supply::Wait);
        }
        let left = &self.bytes[self.at..];
        // From 1 byte to more than there is ever room for.
        let most = 1_usize << (self.calls % 20);
        let piece = left.len().min(room.len()).min(most);
        if piece == 0 {
            return Ok(Supply::End);
        }
        room[..piece].copy_from_slice(&left[..piece]);
        self.at += piece;
        Ok(Supply::Bytes(piece))
    }

    fn trailers(&mut self, fields: &mut Fields<'_>) -> io::Result<()> {
        let checksum = sha256(&self.bytes);
        fields.add("X-Checksum", checksum).map_err(io::Error::other)
    }
}

/// Bodies of one size.
struct Content {
    bytes: Arc<[u8]>,
    file: PathBuf,
    /// How often a source was asked.
    calls: Arc<AtomicUsize>,
}

impl Content {
    fn all(folder: &TempDir) -> Vec<Self> {
        let content = |size: usize| {
            let bytes = Random(size as u64 + 1).bytes(size);
            let file = folder.path().join(size.to_string());
            fs::write(&file, &bytes).unwrap();
            Self {
                bytes: bytes.into(),
                file,
                calls: Arc::default(),
            }
        };
        SIZES.map(content).into()
    }

    fn upload(&self, kind: Kind, put: RequestBuilder) -> Request {
        let (bytes, calls) = (Arc::clone(&self.bytes), Arc::clone(&self.calls));
        let pieces = move || {
            Ok(Pieces {
                bytes: Arc::clone(&bytes),
                at: 0,
                calls: 0,
                is_sized: !kind.is_chunked(),
                total_calls: Arc::clone(&calls),
            })
        };
        let put = match kind {
            Kind::Bytes => put.body(self.bytes.to_vec()),
            Kind::File => put.body_file(&self.file),
            Kind::Sized | Kind::Chunked => put.body_with(pieces),
            Kind::Expected | Kind::ExpectedChunked => {
                put.body_with(pieces).expect_continue(FOR_EVER)
            }
            Kind::Channel => {
                let (mut sender, receiver) = body::channel(10_000);
                let bytes = Arc::clone(&self.bytes);
                std::thread::spawn(move || {
                    for piece in bytes.chunks(7777) {
                        sender.write_all(piece)?;
                    }
                    sender.finish()
                });
                put.body_from(receiver)
            }
        };
        put.build().unwrap()
    }
}

/// Uploads everything on one connection. The server describes what it has received.
fn upload_all(addr: SocketAddr, check: impl Fn(Kind, &Content, &Value)) {
    let folder = TempDir::new();
    let mut bench = Bench::new();
    for content in &Content::all(&folder) {
        for kind in Kind::ALL {
            let put = Request::put(format!("http://{addr}/upload"));
            let told = described(&mut bench, content.upload(kind, put));
            let length = content.bytes.len();
            let arrived = (&told["length"], &told["sha256"]);
            let sent = (&json!(length), &json!(sha256(&content.bytes)));
            assert_eq!(arrived, sent, "{kind:?} {length}: {told}");
            check(kind, content, &told);
        }
    }
    assert_eq!(bench.stats().opened, 1, "{:?}", bench.stats());
    bench.assert_empty();
}

/// Checks the fields that describe the framing.
fn check_framing(kind: Kind, content: &Content, told: &Value) {
    let length = content.bytes.len();
    let (coding, length) = match kind.is_chunked() {
        true => (json!("chunked"), json!(null)),
        false => (json!(null), json!(length.to_string())),
    };
    let framing = (&told["transfer-encoding"], &told["content-length"]);
    assert_eq!(framing, (&coding, &length), "{kind:?}: {told}");
    let is_expected = match kind {
        // A body that is known to be empty is not waited for.
        Kind::Expected => !content.bytes.is_empty(),
        kind => kind == Kind::ExpectedChunked,
    };
    let expect = is_expected.then_some("100-continue");
    assert_eq!(told["expect"], json!(expect), "{kind:?}: {told}");
}

/// Uploads what a server refuses by its head, after which no source was asked for anything.
fn upload_what_is_refused(url: &str) {
    let folder = TempDir::new();
    let mut bench = Bench::new();
    for kind in [Kind::Expected, Kind::ExpectedChunked] {
        for content in &Content::all(&folder)[1..] {
            let got = bench.fetch_ok(content.upload(kind, Request::put(url)));
            assert_eq!(got.status, 413, "{kind:?}");
            assert_eq!(content.calls.load(Ordering::Relaxed), 0, "{kind:?}");
        }
    }
    bench.assert_empty();
}

/// Checks the trailer field, too.
fn check_all(kind: Kind, content: &Content, told: &Value) {
    check_framing(kind, content, told);
    let checksum = kind.has_trailer().then(|| sha256(&content.bytes));
    assert_eq!(told["trailer"], json!(checksum), "{kind:?}: {told}");
}

#[test]
fn hyper_receives_what_is_sent() {
    let addr = hyper_server::start();
    upload_all(addr, check_all);
    upload_what_is_refused(&format!("http://{addr}/refuse"));
}

#[test]
fn node_receives_what_is_sent() {
    let Some(node) = programs::node("http_server.js", [""; 0]) else {
        return;
    };
    upload_all(node.addr, check_all);
    upload_what_is_refused(&node.url("/refuse"));
}

/// It does not show trailer fields.
#[test]
fn uvicorn_receives_what_is_sent() {
    let Some(uvicorn) = programs::python("http_server.py", ["0", "."]) else {
        return;
    };
    upload_all(uvicorn.addr, check_framing);
    upload_what_is_refused(&uvicorn.url("/refuse"));
}

/// nginx passes each body on while it receives it, with its framing.
#[test]
fn uvicorn_receives_through_nginx_what_is_sent() {
    let Some(uvicorn) = programs::python("http_server.py", ["0", "."]) else {
        return;
    };
    let server = format!(
        "location / {{
            proxy_pass http://{}; proxy_http_version 1.1; proxy_request_buffering off;
            client_max_body_size 0;
        }}",
        uvicorn.addr
    );
    let Some(nginx) = Nginx::serving(&server) else {
        return println!("skipped: nginx is not installed");
    };
    upload_all(nginx.addr, |_, _, _| ());
}

/// Stores everything on one connection to nginx, as files in `docs`.
fn store_all(mut bench: Bench, scheme: &str, nginx: &Nginx) {
    let folder = TempDir::new();
    for content in &Content::all(&folder) {
        for kind in Kind::ALL {
            let name = format!("{kind:?}-{}", content.bytes.len());
            let put = Request::put(format!("{scheme}://{}/{name}", nginx.addr));
            let got = bench.fetch_ok(content.upload(kind, put));
            assert_eq!(got.status, 201, "{name}");
            let stored = fs::read(nginx.prefix().join("docs").join(&name)).unwrap();
            assert!(stored == *content.bytes, "{name}: {} bytes", stored.len());
        }
    }
    assert_eq!(bench.stats().opened, 1, "{:?}", bench.stats());
    bench.assert_empty();
}

const STORING: &str =
    "root docs; dav_methods PUT; create_full_put_path on; client_max_body_size 0;";

#[test]
fn nginx_stores_what_is_sent() {
    match Nginx::serving(STORING) {
        Some(nginx) => store_all(Bench::new(), "http", &nginx),
        None => println!("skipped: nginx is not installed"),
    }
}

#[test]
fn nginx_stores_what_is_sent_through_tls() {
    let authority = Authority::new();
    let server = format!(
        "{STORING} ssl_certificate server.pem; ssl_certificate_key server.key;
        ssl_protocols TLSv1.2 TLSv1.3;"
    );
    let prepare = |prefix: &Path| authority.server().write_to(prefix);
    match Nginx::serving_with(&server, "ssl", prepare) {
        Some(nginx) => {
            let bench = Bench::with(|config| config.route.tls = authority.tls());
            store_all(bench, "https", &nginx);
        }
        None => println!("skipped: nginx is not installed"),
    }
}

/// nginx knows that a body is too large from the head, if it has a length, and otherwise when it
/// has received too much. Both times it answers at once, and ignores for a while what else comes.
#[test]
fn the_refusal_of_nginx_arrives_while_the_body_is_sent() {
    let server = "root docs; dav_methods PUT; client_max_body_size 60k;";
    let Some(nginx) = Nginx::serving(server) else {
        return println!("skipped: nginx is not installed");
    };
    let folder = TempDir::new();
    let contents = Content::all(&folder);
    let mut bench = Bench::new();
    for content in &contents[2..] {
        for kind in Kind::ALL {
            let name = format!("{kind:?}-{}", content.bytes.len());
            let put = Request::put(format!("http://{}/{name}", nginx.addr));
            let got = bench.fetch_ok(content.upload(kind, put));
            assert_eq!(got.status, 413, "{name}");
        }
    }
    // What has a length was refused by its head.
    let url = format!("http://{}/refused", nginx.addr);
    for content in &contents[2..] {
        let before = content.calls.load(Ordering::Relaxed);
        let got = bench.fetch_ok(content.upload(Kind::Expected, Request::put(&url)));
        let after = content.calls.load(Ordering::Relaxed);
        assert_eq!((got.status, after), (413, before));
    }
    bench.assert_empty();
}
