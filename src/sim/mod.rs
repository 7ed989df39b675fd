//! A simulated network and clock, for testing bots in virtual time (feature `sim`).
//!
//! A [`Network`] has host names, servers and a clock that moves only when told to. An engine on a
//! simulated network is the same engine as on the real one, with the same readbacks, pool,
//! deadlines and retries; the simulation replaces only sockets, readiness, name lookup and time. A
//! week of a bot's life takes milliseconds, every run is reproducible, and what happens once a
//! month on a real network can be made to happen in every run:
//!
//! - [`Server`] and [`Answer`] script the servers: what they answer, when, and how they end a
//!   connection.
//! - [`Faults`] injects random failures, drawn from the network's seed: bytes split at any point,
//!   short writes, resets, lost answers, exhausted file descriptors, and events that are reordered,
//!   spurious or late.
//! - [`Ledger`] records what the servers saw, and [`Network::misuses`] what no client should do.
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
//! The simulation models TCP as a program on Linux sees it:
//!
//! - Connections are established after a round trip, or immediately.
//! - Send buffers and receive windows have a limited size.
//! - A connection ends with an end of file or a reset, and an error is reported once, by the system
//!   call that would report it on Linux.
//! - A new socket gets the lowest free file descriptor.
//! - Readiness is edge-triggered, as with epoll: each arrival causes one edge, and data left unread
//!   causes none. An event carries the state of the socket at the time the event is fetched.
//!
//! Packets, congestion and UDP are not simulated.
//!
//! TLS is not simulated either. For an `https` URL, the engine connects (to port 443 unless the URL
//! names another one) and sends the request in the clear. There is no handshake: certificates are
//! not verified, the TLS timeout never expires, and `Info::tls` is `None`. The feature `tls` is
//! therefore not needed. [`Served::https`], [`Attempt::https`] and [`Incoming::https`] record that
//! the URL was `https`, so a test can check that a password was sent only where it should have
//! been:
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
