//! Names looked up by the engine itself, on its own loop: with dnsmasq, and with a scripted server.
#![cfg(feature = "hickory")]

#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod degraded;
mod dnsmasq;
mod flood;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the resolver's own tests, and each uses a part of it"
)]
mod server;
mod wire;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use common::{Bench, Server, ok};
use httpstream::Request;
use httpstream::resolver::{Hickory, HickoryConfig};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Makes an engine that queries these servers, each once. `change` adapts its configuration.
fn bench(servers: &[SocketAddr], change: impl FnOnce(&mut HickoryConfig)) -> Bench {
    let mut names = HickoryConfig::default();
    names.servers = servers.to_vec();
    names.timeout = Duration::from_secs(15);
    names.attempts = 1;
    change(&mut names);
    Bench::with(|config| {
        config.resolver = Some(Arc::new(move || {
            Box::new(Hickory::with_config(names.clone()))
        }))
    })
}

/// An HTTP server on 127.0.0.1 that answers `a`.
fn http() -> Server {
    Server::answering(ok("a"))
}

/// A request for `host`, on the port of `server`.
fn get(host: &str, server: &Server) -> Request {
    let url = format!("http://{host}:{}/", server.addr.port());
    Request::get(&url).build().unwrap()
}
