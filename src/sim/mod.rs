//! A simulated network and clock, for testing bots in virtual time (feature `sim`).
//!
//! A [`Network`] has names, servers and a clock that moves only when it is told to. An engine on it
//! is the same engine, with the same readbacks, pool, deadlines and retries, as on the real
//! network; only sockets, readiness, names and time come from here. So a week of a bot's life takes
//! milliseconds, every run of it is the same, and what the real network does once a month can be
//! made to happen in every run:
//!
//! - [`Server`] and [`Answer`] script the servers: what they answer, when, and how they end a
//!   connection;
//! - [`Faults`] let chance have its say, drawn from the network's seed: bytes cut at any place,
//!   short writes, resets, lost answers, exhausted descriptors, events out of order, without a
//!   reason, or too late;
//! - [`Ledger`] is what the servers saw, and [`Network::misuses`] what no client should do.
//!
//! ```
//! use httpstream::sim::{Answer, Incoming, Network};
//! use httpstream::{Config, Engine, Next, Request, Sim};
//! use std::time::Duration;
//!
//! let network = Network::new(1);
//! network.host("bot.test", [[10, 0, 0, 1]]);
//! network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| match request.path() {
//!     "/beat" => Answer::ok("alive"),
//!     _ => Answer::status(404),
//! });
//!
//! let mut engine = Engine::<u32, Sim>::on_network(&network, Config::default())?;
//! let beat = Request::get("http://bot.test/beat").build()?;
//! engine.submit(beat, |beats, reply, _| {
//!     *beats += u32::from(reply.is_ok_and(|response| response.body() == b"alive"));
//!     Next::again().after(Duration::from_secs(60))
//! });
//! let mut beats = 0;
//! engine.advance(&mut beats, Duration::from_secs(3600))?;
//! assert_eq!(beats, 60);
//! # Ok::<(), httpstream::Error>(())
//! ```
//!
//! # What is simulated
//! TCP as Linux shows it to a program: connections that take a round trip, or stand at once; send
//! buffers and receive windows; ends, resets and which call reports them, once; descriptors whose
//! lowest free number is used next. Readiness is edge-triggered as epoll's is: one edge for an
//! arrival, none for what was left unread; what an event says is the state at the time it is
//! fetched. Not simulated: packets, congestion, UDP.
//!
//! Nor is TLS: an `https` URL is connected to (port 443 unless it names one), and the request is
//! sent as it would be to an `http` one. There is no handshake, so certificates are not looked at,
//! none of the tls deadline passes, and `Info::tls` is `None`; this needs no feature `tls`. But
//! that it was `https` is noted, in [`Served::https`], [`Attempt::https`] and [`Incoming::https`],
//! so a test can tell whether a password went where it had to:
//!
//! ```
//! use httpstream::sim::{Answer, Incoming, Network};
//! use httpstream::{Config, Engine, Next, Request, Sim};
//!
//! let network = Network::new(1);
//! network.host("bot.test", [[10, 0, 0, 1]]);
//! network.serve("10.0.0.1:443".parse().unwrap(), |request: &Incoming| match request.path() {
//!     "/login" if request.https => Answer::ok("token"),
//!     _ => Answer::status(403),
//! });
//!
//! let mut engine = Engine::<u16, Sim>::on_network(&network, Config::default())?;
//! let login = Request::post("https://bot.test/login").form([("password", "secret")]).build()?;
//! engine.submit(login, |status, reply, _| {
//!     *status = reply.map_or(0, |response| response.status().as_u16());
//!     Next::done()
//! });
//! let mut status = 0;
//! engine.run(&mut status)?;
//! assert_eq!(status, 200);
//! assert!(network.ledger().connections().all(|connection| connection.https));
//! # Ok::<(), httpstream::Error>(())
//! ```

mod connection;
mod delivery;
mod faults;
mod ledger;
mod network;
mod poll;
mod random;
mod reader;
mod resolver;
mod server;
mod serving;
mod socket;
mod syscalls;
#[cfg(test)]
mod tests;
mod world;

pub use faults::{Fault, Faults};
pub use ledger::{Attempt, Closed, Ledger, Misuse, Served};
pub use network::{Host, Listener, Network};
pub use random::Random;
pub use server::{Answer, ConnectionId, Incoming, Server};
pub(crate) use socket::SimNet;
