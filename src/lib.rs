//! An HTTP/1.1 client engine on a hand-rolled mio event loop: requests, readbacks and delays that
//! run whole conversations by themselves.
//!
//! You submit a [`Request`] with a *readback*; the readback gets the response and answers what
//! comes next: nothing, another request, the same one again, at once or after a delay. A login, a
//! long poll for ever and a heartbeat every minute are three short methods of a plain struct, and
//! run by the thousand in one thread.
//!
//! ```no_run
//! use httpstream::{Context, Engine, Next, Reply, Request};
//! use std::time::Duration;
//!
//! struct Bot { poll: Request, seen: usize }
//!
//! impl Bot {
//!     fn on_poll(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
//!         match reply {
//!             Ok(response) if response.status() == 200 => {
//!                 self.seen += response.body().len();
//!                 Next::again()
//!             }
//!             other => {
//!                 log::warn!("no news: {other:?}");
//!                 Next::again().after(Duration::from_secs(1))
//!             }
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), httpstream::Error> {
//! let poll = Request::get("http://127.0.0.1:8080/poll").long_poll(Duration::from_secs(60)).build()?;
//! let mut bot = Bot { poll, seen: 0 };
//! let mut engine = Engine::new()?;
//! engine.submit(bot.poll.clone(), Bot::on_poll);
//! engine.run(&mut bot)?;
//! # Ok(()) }
//! ```
//!
//! # Map
//! - [`Engine`]: submit, turn, run; in another loop: its file descriptor and
//!   [`next_deadline`](Engine::next_deadline), or, on that loop's own [`mio::Poll`],
//!   [`Engine::on_registry`]
//! - [`Request`], [`Response`], [`Error`]: what goes out, what comes back, and why it did not
//! - [`Readback`], [`Next`], [`Context`], [`Flow`]: what a readback is given and may answer;
//!   [`within`]: over a part of the state
//! - [`Submitter`]: from other threads; [`Local`]: from tasks on the engine's own
//! - [`Engine::fetch`], [`Engine::spawn`], [`Submitter::fetch`], [`Submitter::sleep`]:
//!   conversations as futures, without a runtime
//! - `calloop`, `tokio`: an engine in those loops (features of these names); in others see
//!   docs/EMBEDDING.md
//! - [`policy`]: what is done for a request besides sending it
//! - [`Context::write`]: connections that switch to another protocol
//! - [`Config`], [`Timeouts`], [`Limits`]: every tunable with its default and the reason for it
//! - [`resolver`]: names to addresses; [`Route`]: how connections are made; [`public_only`]: which
//!   addresses may be dialled
//! - `tls`: how https connections are protected (feature `tls`)
//! - `sim`: a simulated network and clock (feature `sim`)
//!
//! # Logging
//! Through the `log` facade: `trace` for readiness, `debug` for each step of a link (connected,
//! answered, idle, closed) and each failure, `warn` where a peer surprises or this machine runs out
//! of something. Lines name origins; paths, queries, field values and bodies are never logged, but
//! for the name of a transfer coding that is refused.
//!
//! # Features
//! - `hickory` (default): names by hickory-resolver on the engine's own loop, `resolver::Hickory`;
//!   without it `getaddrinfo` on helper threads.
//! - `tls` (default): `https`, by rustls with ring and the platform's root certificates; see `tls`.
//! - `webpki-roots`: Mozilla's root certificates, built in.
//! - `sim`: `Engine<S, Sim>`, the whole engine in virtual time, for tests of bots.
//! - `calloop`: `calloop::EngineSource`, an event source.
//! - `tokio`: `tokio::Driver` and `tokio::Client`.
//! - `timerfd` (Linux): a timer in the engine's own poll, so that its file descriptor alone is
//!   enough for a host; see `Config::timerfd`.
//!
//! Without features the crate is mio, httparse, slab, socket2, log and http. No feature but `tokio`
//! brings an async runtime along.
//!
//! # What it does not do
//! Redirects, cookies, content codings (a [`policy`] can take them off), proxies, HTTP/2 and
//! request bodies of unknown length.

#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod config;
#[cfg(all(unix, any(feature = "calloop", feature = "tokio")))]
mod embed;
mod engine;
mod error;
mod generation;
mod h1;
mod id;
mod io_error;
mod net;
pub mod policy;
mod proto;
mod request;
pub mod resolver;
mod response;
mod route;
mod sched;
#[cfg(feature = "sim")]
pub mod sim;
mod timeouts;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(not(feature = "tls"))]
#[path = "tls/absent.rs"]
mod tls;

/// The types that stand in this crate's own: `Method`, `StatusCode`, `Version`, `Uri`.
pub use http;
/// For hosts with an engine on their own poll: `Registry` and `Event` stand in
/// [`Engine::on_registry`] and [`Engine::on_event`].
pub use mio;

#[cfg(all(unix, feature = "calloop"))]
pub use embed::calloop;
#[cfg(all(unix, feature = "tokio"))]
pub use embed::tokio;

pub use builder::RequestBuilder;
pub use builder::url::IntoUrl;
pub use config::{AddressFilter, Config, ResolverFactory};
#[cfg(feature = "sim")]
pub use engine::Sim;
pub use engine::{
    Context, Engine, Flow, KeepAlive, Local, Mode, Next, Owned, Readback, ReadbackFn, Shared,
    Stats, Submitter, Turn, Unread, within, within_call, within_to,
};
pub use error::{Error, ErrorKind, Gone, Phase, Sent, SubmitError};
pub use id::ChainId;
pub use policy::{Moment, Outcome, Policy};
pub use proto::{Headers, Invalid, InvalidPart, Limits, Origin, Scheme, Violation};
pub use request::Request;
pub use response::{Info, Reply, Response, Timings};
pub use route::{Keepalive, Route, public_only};
pub use timeouts::Timeouts;

/// The README's example is compiled as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
