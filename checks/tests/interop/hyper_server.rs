//! A server of hyper, which describes what is uploaded to it.

use std::convert::Infallible;
use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;

use crate::sha256;

/// Starts a server, whose thread ends with the process.
pub(crate) fn start() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    std::thread::spawn(move || runtime.block_on(serve(listener)));
    addr
}

async fn serve(listener: std::net::TcpListener) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
        tokio::spawn(connection);
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/refuse" {
        // The body is not read, so hyper sends no 100 (Continue).
        let refusal = Response::builder().status(413);
        return Ok(refusal.body(Full::from("too large")).unwrap());
    }
    let field = |name| {
        let value = request.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let mut described = json!({
        "content-length": field("content-length"),
        "transfer-encoding": field("transfer-encoding"),
        "expect": field("expect"),
    });
    match request.into_body().collect().await {
        Ok(body) => {
            let trailer = body.trailers().and_then(|it| it.get("x-checksum"));
            described["trailer"] = trailer.map(|it| it.to_str().unwrap()).into();
            let bytes = body.to_bytes();
            described["length"] = bytes.len().into();
            described["sha256"] = sha256(&bytes).into();
        }
        Err(error) => described["error"] = error.to_string().into(),
    }
    Ok(Response::new(Full::from(described.to_string())))
}
