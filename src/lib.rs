//! An HTTP/1.1 client engine on a hand-rolled [mio] event loop.
//!
//! A program submits a [`Request`] together with a *readback*, a function that receives the
//! response and returns what comes next: nothing, another request, or the same one again, at once
//! or after a delay. A conversation such as a login, an endless long poll and a heartbeat every
//! minute is then a few short methods of a plain struct, and thousands of conversations run on one
//! thread. An engine runs a loop of its own, or lives inside another one as one file descriptor and
//! one deadline.
//!
//! # A request
//!
//! ```no_run
//! use httpstream::{Engine, Error, Next, Request};
//!
//! fn main() -> Result<(), Error> {
//!     let mut engine = Engine::new()?;
//!     let request = Request::get("http://example.com/").build()?;
//!     engine.submit(request, |_, reply, _| {
//!         match reply {
//!             Ok(response) => println!("{}, {} bytes", response.status(), response.body().len()),
//!             Err(error) => eprintln!("{error:#}"),
//!         }
//!         Next::done()
//!     });
//!     engine.run(&mut ())
//! }
//! ```
//!
//! For one response at a time there is [`Engine::fetch_blocking`].
//!
//! A [`Request`] is a value that is checked and serialized once, by its [`RequestBuilder`], and
//! cheap to clone. It can carry [`Timeouts`], [`Limits`] on the response, a [`Route`] (how its
//! connection is made) and a [`Policy`] (what is done for it besides sending it). [`Config`] holds
//! the same settings for all requests of an engine, and further ones, each with its default and the
//! reason for it.
//!
//! # What comes next
//!
//! A readback returns a [`Next`]: [`done`](Next::done), [`send`](Next::send) another request, the
//! same one [`again`](Next::again), or [`call`](Next::call) a function; each of them
//! [`after`](Next::after) a delay if need be. Together with what follows, a submission forms a
//! *chain*. The [`Context`] starts, cancels and resumes chains while a readback runs.
//!
//! A readback also receives `&mut S`, the state that the program lends to the engine. If `S` is a
//! struct, its methods are the readbacks:
//!
//! ```
//! use std::time::Duration;
//! use httpstream::{Context, Engine, Error, Next, Reply, Request};
//!
//! struct Bot { poll: Request, beat: Request, news: usize }
//!
//! impl Bot {
//!     fn new() -> Result<Self, Error> {
//!         let poll = Request::get("http://chat.test/poll").long_poll(Duration::from_secs(60));
//!         let beat = Request::post("http://chat.test/beat");
//!         Ok(Self { poll: poll.build()?, beat: beat.build()?, news: 0 })
//!     }
//!
//!     fn on_login(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
//!         match reply {
//!             Ok(response) if response.status() == 200 => {
//!                 cx.submit(self.beat.clone(), Bot::on_beat); // starts a second chain
//!                 Next::send(self.poll.clone()).read_by(Bot::on_poll)
//!             }
//!             _ => Next::again().after(Duration::from_secs(60)),
//!         }
//!     }
//!
//!     fn on_poll(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
//!         match reply {
//!             Ok(response) if response.status() == 200 => {
//!                 self.news += 1;
//!                 Next::again() // the server holds it until there is news
//!             }
//!             // An error, or another status, which is a response too: never without a delay.
//!             _ => Next::again().after(Duration::from_secs(5)),
//!         }
//!     }
//!
//!     fn on_beat(&mut self, _: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
//!         Next::again().after(Duration::from_secs(60))
//!     }
//! }
//!
//! # use httpstream::sim::{Answer, Incoming, Network};
//! # use httpstream::{Config, Sim};
//! # let network = Network::new(1);
//! # network.host("chat.test", [[10, 0, 0, 1]]);
//! # network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| match request.path() {
//! #     "/poll" => Answer::ok("news").after(Duration::from_secs(30)),
//! #     _ => Answer::ok(""),
//! # });
//! # let mut engine = Engine::<Bot, Sim>::on_network(&network, Config::default())?;
//! # fn on_the_real_network() -> Result<(), Error> {
//! let mut bot = Bot::new()?;
//! let mut engine = Engine::new()?;
//! engine.submit(Request::post("http://chat.test/login").build()?, Bot::on_login);
//! engine.run(&mut bot)?; // returns when no chain is left
//! # Ok(()) }
//! # let mut bot = Bot::new()?;
//! # engine.submit(Request::post("http://chat.test/login").build()?, Bot::on_login);
//! # engine.advance(&mut bot, Duration::from_secs(3600))?;
//! # assert!((119..=120).contains(&bot.news), "{}", bot.news);
//! # Ok::<(), Error>(())
//! ```
//!
//! Functions and closures see whole responses. A type that implements [`Readback`] also sees heads,
//! interim responses and the pieces of a body as they arrive, and chooses by its [`Flow`] whether a
//! body is collected, streamed, discarded or paused. [`within`] runs a readback over a part of the
//! state. After a 101 (Switching Protocols), [`Context::write`] sends on the connection.
//!
//! # The loop
//!
//! [`Engine::run`] is the engine's own loop: it runs until no chain is left. [`Engine::drain`]
//! brings the chains to an end.
//!
//! In a program that has a loop already, the engine is one source of events: when its file
//! descriptor ([`AsFd`](std::os::fd::AsFd)) becomes readable or its
//! [`next_deadline`](Engine::next_deadline) passes, the program calls [`Engine::turn`]. A turn does
//! what is due, within bounds, and may come late, early or twice.
//!
//! ```
//! use std::time::Duration;
//! use httpstream::{Engine, Next, Request};
//! # #[cfg(unix)]
//! # fn wait_readable(fd: impl std::os::fd::AsFd, timeout: Option<Duration>) {
//! #     use rustix::event::{PollFd, PollFlags, poll};
//! #     let timeout = timeout.map(|time| time.min(Duration::from_secs(3600)).try_into().unwrap());
//! #     poll(&mut [PollFd::new(&fd, PollFlags::IN)], timeout.as_ref()).unwrap();
//! # }
//! # #[cfg(not(unix))]
//! # fn wait_readable<T>(_: T, _: Option<Duration>) {}
//!
//! let mut engine = Engine::<u32>::new()?;
//! engine.submit(Request::get("http://127.0.0.1:1/").build()?, |replies, _, _| {
//!     *replies += 1;
//!     Next::done()
//! });
//! let mut replies = 0;
//! while engine.pending() > 0 {
//!     wait_readable(&engine, engine.next_timeout()); // stands for poll(2), epoll, GLib, ...
//!     engine.turn(&mut replies, Some(Duration::ZERO))?;
//! }
//! assert_eq!(replies, 1);
//! # Ok::<(), httpstream::Error>(())
//! ```
//!
//! - On a mio loop an engine can use the program's own [`mio::Poll`]: [`Engine::on_registry`].
//! - calloop has `calloop::EngineSource` and tokio has `tokio::Driver`, each behind the feature of
//!   that name.
//! - Other threads use a [`Submitter`], which wakes the loop; tasks on the engine's own thread use
//!   a [`Local`].
//! - [`embedding`] has a recipe for each kind of loop. `capi/` in the repository is an interface
//!   for C.
//!
//! # Errors
//!
//! Whatever goes wrong with a request reaches its readback as an [`Error`]; the loop goes on.
//! `{error}` prints one clause that says what failed, and `{error:#}` adds the causes.
//! [`kind`](Error::kind) and [`phase`](Error::phase) tell what failed and when, and
//! [`resend_is_safe`](Error::resend_is_safe) whether sending the request again can do harm. A
//! response of any status is `Ok`; [`Error::of_status`] makes an error of one that is not wanted.
//!
//! ```
//! use std::time::Duration;
//! use httpstream::{Context, Error, Next, Reply};
//!
//! /// Retries five times, after 2, 4, 8, 16 and 32 seconds, if that can do no harm.
//! fn on_reply(done: &mut bool, reply: Reply<'_>, cx: &mut Context<'_, bool>) -> Next<bool> {
//!     let error = match reply {
//!         Ok(response) if response.status().is_success() => {
//!             *done = true;
//!             return Next::done();
//!         }
//!         Ok(response) => Error::of_status(&response),
//!         Err(error) => error,
//!     };
//!     match cx.failures() {
//!         n @ 1..=5 if error.resend_is_safe() => Next::again().after(Duration::from_secs(1 << n)),
//!         _ => {
//!             eprintln!("{error:#}");
//!             Next::done()
//!         }
//!     }
//! }
//! # use httpstream::sim::{Answer, Incoming, Network};
//! # use httpstream::{Config, Engine, Request, Sim};
//! # let network = Network::new(1);
//! # network.host("busy.test", [[10, 0, 0, 1]]);
//! # let mut requests = 0;
//! # network.serve("10.0.0.1:80".parse().unwrap(), move |_: &Incoming| {
//! #     requests += 1;
//! #     match requests {
//! #         1 => Answer::nothing().close(),
//! #         2 => Answer::status(503),
//! #         _ => Answer::ok("at last"),
//! #     }
//! # });
//! # let mut engine = Engine::<bool, Sim>::on_network(&network, Config::default())?;
//! # engine.submit(Request::get("http://busy.test/").build()?, on_reply);
//! # let mut done = false;
//! # engine.run(&mut done)?;
//! # assert!(done && network.elapsed() >= Duration::from_secs(6));
//! # Ok::<(), Error>(())
//! ```
//!
//! The engine itself sends a request again only once, if its kept-alive connection turned out to be
//! closed and if that is safe (pipelined requests and a refused `Expect` aside). A POST that meets
//! such a connection fails; [`Error::request_sent`] describes what to do about it.
//!
//! # Testing
//!
//! With feature `sim`, an engine runs on a simulated network and clock: the same readbacks, pool,
//! deadlines and retries, but no sockets and no waiting. A day takes milliseconds, and every run
//! with the same seed is the same. See the module `sim`.
//!
//! ```
//! use std::time::Duration;
//! use httpstream::sim::{Answer, Fault, Faults, Incoming, Network};
//! use httpstream::{Config, Context, Engine, Next, Reply, Request, Sim};
//!
//! #[derive(Default)]
//! struct Heart { beats: u32, failures: u32 }
//!
//! impl Heart {
//!     fn on_beat(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
//!         match reply {
//!             Ok(response) if response.status() == 204 => self.beats += 1,
//!             _ => self.failures += 1,
//!         }
//!         Next::again().after(Duration::from_secs(60))
//!     }
//! }
//!
//! let network = Network::new(2013); // the seed
//! network.host("bot.test", [[10, 0, 0, 1]]);
//! network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| match request.path() {
//!     "/beat" => Answer::status(204),
//!     _ => Answer::status(404),
//! });
//! network.set_faults(Faults::none().with(Fault::Refused, 500)); // per mille
//!
//! let mut engine = Engine::<Heart, Sim>::on_network(&network, Config::default())?;
//! let beat = Request::post("http://bot.test/beat").fresh_connection().build()?;
//! engine.submit(beat, Heart::on_beat);
//! let mut heart = Heart::default();
//! engine.advance(&mut heart, Duration::from_secs(86_400))?;
//! assert!(heart.beats > 600 && heart.failures > 600);
//! assert_eq!(engine.pending(), 1, "it still beats");
//! # Ok::<(), httpstream::Error>(())
//! ```
//!
//! # Async
//!
//! Conversations can also be futures, without an async runtime: [`Engine::fetch`] and
//! [`Submitter::fetch`] return one, and [`Engine::spawn`] runs one inside the engine. Any executor
//! may poll them, as long as some loop turns the engine.
//!
//! ```
//! use std::time::Duration;
//! use httpstream::{Engine, Error, Request};
//!
//! let mut engine = Engine::<()>::new()?;
//! # use httpstream::sim::{Answer, Incoming, Network};
//! # use httpstream::{Config, Sim};
//! # let network = Network::new(1);
//! # network.host("chat.test", [[10, 0, 0, 1]]);
//! # network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| match request.path() {
//! #     "/login" => Answer::ok("42"),
//! #     "/news" if request.query() == Some("token=42") => Answer::ok("hello"),
//! #     _ => Answer::status(404),
//! # });
//! # let mut engine = Engine::<(), Sim>::on_network(&network, Config::default())?;
//! let http = engine.submitter();
//! let news = async move {
//!     let login = http.fetch(Request::post("http://chat.test/login").build()?).await?;
//!     let token = String::from_utf8_lossy(login.body()).into_owned();
//!     http.sleep(Duration::from_secs(1)).await;
//!     http.fetch(Request::get("http://chat.test/news").query([("token", token)]).build()?).await
//! };
//! engine.spawn(async {
//!     match news.await {
//! #       Ok(news) if news.body() != b"hello" => panic!("{}", news.status()),
//!         Ok(news) => println!("{}", String::from_utf8_lossy(news.body())),
//!         Err(error) => eprintln!("{error:#}"),
//!     }
//! });
//! engine.run(&mut ())?;
//! # assert_eq!(network.ledger().requests().count(), 2);
//! # Ok::<(), Error>(())
//! ```
//!
//! In a tokio program, `tokio::Client` (feature `tokio`) runs an engine on a thread of its own, or
//! in a `LocalSet`:
//!
//! ```
//! # #[cfg(unix)]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), httpstream::Error> {
//! use httpstream::{Config, Request, tokio::Client};
//!
//! let client = Client::on_thread(Config::default())?;
//! match client.fetch(Request::get("http://127.0.0.1:1/").build()?).await {
//!     Ok(page) => println!("{} bytes", page.body().len()),
//!     Err(error) => eprintln!("{error:#}"),
//! }
//! # Ok(()) }
//! # #[cfg(not(unix))]
//! # fn main() {}
//! ```
//!
//! # Features
//!
//! - `hickory` (default): names are resolved by hickory-resolver on the engine's own loop,
//!   `resolver::Hickory`. Without it, `getaddrinfo` runs on helper threads ([`resolver::System`]).
//! - `tls` (default): `https`, by rustls with ring and the platform's root certificates; see the
//!   module `tls`.
//! - `webpki-roots`: Mozilla's root certificates, built in.
//! - `sim`: `Engine<S, Sim>`, the whole engine in virtual time, for tests.
//! - `calloop`: `calloop::EngineSource`, an event source.
//! - `tokio`: `tokio::Driver` and `tokio::Client`.
//! - `timerfd` (Linux): a timer in the engine's own poll, so that its file descriptor alone is
//!   enough for a host; see `Config::timerfd`.
//!
//! Without features the crate depends on mio, httparse, slab, socket2, log and http only. No
//! feature except `tokio` adds an async runtime.
//!
//! # Logging
//!
//! The crate logs through the `log` facade: `trace` for readiness, `debug` for each step of a
//! connection (connected, answered, idle, closed) and for each failure, and `warn` if a peer does
//! something unexpected or this machine runs out of a resource. Lines contain origins. Paths,
//! queries, field values and bodies are never logged, with one exception: the name of a transfer
//! coding that is refused.
//!
//! # Limitations
//!
//! - The crate does not follow redirects, keep cookies, use proxies, or speak HTTP/2.
//! - Content codings such as gzip are not decoded, but a [`policy`] can do that.
//! - A request's body is held in memory; bodies of unknown length cannot be sent.
//! - Names are resolved by plain DNS, and the revocation of certificates is not checked.
//! - Addresses are not restricted by default: if URLs come from untrusted sources, set
//!   [`public_only`] as the [`Config::address_filter`].

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

/// Re-exported because its types are part of this crate's API: `Method`, `StatusCode`, `Version`,
/// `Uri`.
pub use http;
/// Re-exported for hosts that run an engine on their own poll: `Registry` and `Event` are part of
/// the signatures of [`Engine::on_registry`] and [`Engine::on_event`].
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

/// `docs/EMBEDDING.md`: recipes for engines in other event loops. Its links lead to files of the
/// repository.
#[cfg(all(doc, not(doctest)))]
#[doc = include_str!("../docs/EMBEDDING.md")]
#[allow(
    rustdoc::invalid_rust_codeblocks,
    reason = "they are pieces of programs"
)]
pub mod embedding {}

/// Runs the examples of the documents as doc tests.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;

    #[doc = include_str!("../docs/HISTORY.md")]
    struct History;
}
