//! https, with nginx and `openssl s_server`, and with a scripted server for misbehavior that those
//! do not show.
#![cfg(unix)]

mod certificates;
mod peer;

#[path = "../common/mod.rs"]
mod common;
#[path = "../servers/mod.rs"]
mod servers;

mod at_rest;
mod bodies;
mod closing;
mod failing;
mod judging;
mod keys;
mod nginx;
mod pipelining;
mod preconnecting;
mod programs;
mod routes;
mod sessions;
mod speeds;
mod tunnels;
mod websockets;
