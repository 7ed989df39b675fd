//! The engine against scripted servers on loopback, and on the simulated network where time
//! matters: a module for each behavior. Sessions also meet nginx, lighttpd and Python.
//!
//! All modules share one program, because linking each separately would take longer than running
//! it. Tests that count the descriptors of their process, fork, or set up something that exists
//! once per process are files next to this folder, each a program of its own.

#[path = "../common/mod.rs"]
mod common;
#[cfg(unix)]
#[path = "../servers/mod.rs"]
mod servers;

mod at_an_instant;
mod at_rest;
mod blocking;
mod calloop;
mod calls;
mod cancelling;
mod chain_timeouts;
mod chains;
mod codings;
mod connecting;
mod connection_age;
mod connection_facts;
mod connection_limits;
mod contract;
mod counts_by_origin;
mod deadlines;
mod decoding;
mod draining;
mod embedding;
mod events;
mod filtering;
mod finishing;
mod forms;
mod framing_on_the_wire;
mod futures;
mod hostile_sessions;
mod keep_alive;
mod keyed_chains;
mod lanes;
mod late_host;
mod lines;
mod local;
mod low_speed;
mod malformed_response;
mod names;
mod network_changes;
mod opened;
mod panicking;
mod pipelining;
mod policies;
mod policy_errors;
mod preconnecting;
mod racing;
mod readme_bot;
#[cfg(unix)]
mod real_servers;
mod response_limits;
mod resuming;
mod retiming;
mod retries;
mod routes;
mod saving;
mod schedules;
mod session_ends;
mod sessions;
mod sources;
mod speed_caps;
mod splits;
mod stale_connection;
mod streaming;
mod submitting_from_threads;
mod tokio_driver;
mod tunnels;
mod upload;
mod visits;
mod websocket;
