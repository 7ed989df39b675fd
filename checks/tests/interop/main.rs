//! The crate with servers that other people have written, where the wire formats of uploads, forms,
//! event streams, downloads and WebSockets meet: nginx, hyper, uvicorn, Node and tungstenite.
//!
//! `HTTPSTREAM_INTEROP_PYTHON` is the Python of a virtual environment that has
//! `checks/interop/requirements.txt`, and `HTTPSTREAM_INTEROP_NODE` a directory where `npm ci` has
//! installed what `checks/interop/package.json` lists. Without them, the tests that need them are
//! skipped.

use httpstream::Request;
use sha2::{Digest, Sha256};

#[path = "../../../tests/tls/certificates.rs"]
mod certificates;
#[path = "../../../tests/common/mod.rs"]
mod common;
#[path = "../../../tests/servers/mod.rs"]
#[allow(
    unexpected_cfgs,
    reason = "it looks at the features of the crate's own package"
)]
mod servers;

mod downloads;
mod events;
mod forms;
mod hyper_server;
mod programs;
mod uploads;
mod websockets;

use common::Bench;

/// Returns the checksum of `bytes` in hexadecimal digits.
fn sha256(bytes: &[u8]) -> String {
    let digits = |byte: &u8| format!("{byte:02x}");
    Sha256::digest(bytes).iter().map(digits).collect()
}

/// Sends a request that a server answers with JSON.
fn described(bench: &mut Bench, request: Request) -> serde_json::Value {
    let got = bench.fetch_ok(request);
    assert_eq!(got.status, 200, "{}", String::from_utf8_lossy(&got.body));
    serde_json::from_slice(&got.body).unwrap()
}
