//! An HTTP/1.1 client engine on a hand-rolled [mio] event loop.
//!
//! A program submits a [`Request`] together with a *readback*, a function that receives the
//! response and returns the next step: nothing, another request, or the same request again, at once
//! or after a delay. A login, an endless long poll and a heartbeat every minute are then a few
//! short methods of a plain struct, and one thread runs thousands of such conversations. An engine
//! either runs its own event loop or is embedded in another, to which it is one file descriptor and
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
//! To fetch one response and wait for it, use [`Engine::fetch_blocking`].
//!
//! A [`Request`] is checked and serialized once, by its [`RequestBuilder`], and is cheap to clone.
//! It can carry [`Timeouts`], [`Limits`] on the response, a [`Route`] (how to connect) and a
//! [`Policy`] (code that accompanies the request, for example to sign it or to decode its
//! response). [`Config`] holds these settings for all requests of an engine, along with the
//! settings of the engine itself. Its documentation states each default and the reason for it.
//!
//! # The next step
//!
//! A readback returns a [`Next`]. [`Next::done`] ends the conversation, [`Next::send`] sends
//! another request, [`Next::again`] sends the same request again, and [`Next::call`] runs a
//! function. [`Next::after`] delays the step. A submission and everything that follows from it form
//! a *chain*. While a readback runs, it can start, cancel and resume chains through its
//! [`Context`].
//!
//! A readback also receives `&mut S`, the state that the program lends to the engine. If `S` is a
//! struct, its methods can be the readbacks:
//!
//! ```
//! use std::time::Duration;
//! use httpstream::{Context, Engine, Error, Next, Reply, Request};
//!
//! struct Bot { login: Request, poll: Request, beat: Request, news: usize }
//!
//! impl Bot {
//!     fn new() -> Result<Self, Error> {
//!         let poll = Request::get("http://chat.test/poll").long_poll(Duration::from_secs(60));
//!         Ok(Self {
//!             login: Request::post("http://chat.test/login").build()?,
//!             poll: poll.build()?,
//!             beat: Request::post("http://chat.test/beat").build()?,
//!             news: 0,
//!         })
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
//!     fn on_poll(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
//!         match reply {
//!             Ok(response) if response.status() == 200 => {
//!                 self.news += 1;
//!                 // The server holds a poll until it has news. If it does not, the pause
//!                 // prevents a flood.
//!                 Next::again().after(Duration::from_millis(100))
//!             }
//!             // On any other status, such as 401, end all other chains, including the heartbeat.
//!             Ok(_) => {
//!                 cx.cancel_others();
//!                 let login = Next::send(self.login.clone()).read_by(Bot::on_login);
//!                 login.after(Duration::from_secs(5))
//!             }
//!             Err(_) => Next::again().after(Duration::from_secs(5)),
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
//! engine.submit(bot.login.clone(), Bot::on_login);
//! engine.run(&mut bot)?; // returns when no chain is left
//! # Ok(()) }
//! # let mut bot = Bot::new()?;
//! # engine.submit(bot.login.clone(), Bot::on_login);
//! # engine.advance(&mut bot, Duration::from_secs(3600))?;
//! # assert!((119..=120).contains(&bot.news), "{}", bot.news);
//! # Ok::<(), Error>(())
//! ```
//!
//! Functions and closures receive whole responses. A type that implements [`Readback`] also
//! receives response heads, interim responses and pieces of the body as they arrive. It returns a
//! [`Flow`] to choose whether the body is collected, streamed, discarded or paused. [`within`] runs
//! a readback on one part of the state. [`Events`] reads an event stream and opens it again when it
//! ends, [`Lines`] reads newline-delimited JSON and the like, and [`Save`] writes a body to a file
//! and continues a download that breaks off. After a 101 (Switching Protocols) response,
//! [`Context::write`] sends bytes on the connection.
//!
//! # Sessions
//!
//! A [`Session`] is what the requests of one login share: a base URL, fields, credentials, cookies
//! (feature `cookies`), and rules for redirects and content codings. A request joins a session when
//! it is begun. When the login ends, [`Context::end`] ends everything else that was prepared for
//! it: requests in flight, queued or delayed, and waits, calls and tasks that [`Next::session`] has
//! marked. See [`session`].
//!
//! ```
//! use std::time::Duration;
//! use httpstream::session::{Jar, Redirects, Session};
//! use httpstream::{Context, Engine, Error, Next, Reply};
//!
//! struct Member { session: Session, news: usize }
//!
//! impl Member {
//!     fn new() -> Result<Self, Error> {
//!         let session = Session::builder()
//!             .base("http://chat.test/")
//!             .redirects(Redirects::limited(10).same_origin())
//!             .cookies(Jar::new())
//!             .error_for_status(true)
//!             .build()?;
//!         Ok(Self { session, news: 0 })
//!     }
//!
//!     fn log_in(&self) -> Next<Self> {
//!         let form = [("user", "bot"), ("password", "s3cret")];
//!         match self.session.post("login").form(form).build() {
//!             Ok(login) => Next::send(login).read_by(Self::on_login),
//!             Err(_) => Next::done(),
//!         }
//!     }
//!
//!     /// The server has redirected to the start page, with a cookie that the jar keeps.
//!     fn on_login(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
//!         let poll = self.session.get("poll").long_poll(Duration::from_secs(60));
//!         match (reply, poll.build()) {
//!             (Ok(_), Ok(poll)) => Next::send(poll).read_by(Self::on_poll),
//!             _ => self.log_in().after(Duration::from_secs(60)),
//!         }
//!     }
//!
//!     fn on_poll(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
//!         match reply {
//!             Ok(_) => {
//!                 self.news += 1;
//!                 Next::again().after(Duration::from_millis(100))
//!             }
//!             // The login has ended, and with it everything that was prepared for it.
//!             Err(error) if error.status().is_some_and(|status| status == 401) => {
//!                 cx.end(&self.session);
//!                 self.log_in().after(Duration::from_secs(5))
//!             }
//!             // If the session was ended elsewhere, what is returned here is ignored.
//!             Err(_) => Next::again().after(Duration::from_secs(5)),
//!         }
//!     }
//! }
//!
//! # use httpstream::sim::{Answer, Incoming, Network};
//! # use httpstream::{Config, Sim};
//! # let network = Network::new(1);
//! # network.host("chat.test", [[10, 0, 0, 1]]);
//! # let (mut logins, mut polls) = (0, 0);
//! # network.serve("10.0.0.1:80".parse().unwrap(), move |request: &Incoming| {
//! #     let id = format!("id={logins}");
//! #     let is_member = logins > 0 && request.header("Cookie") == Some(id.as_bytes());
//! #     match request.path() {
//! #         "/login" => {
//! #             logins += 1;
//! #             let login = Answer::status(303).header("Location", "/home");
//! #             login.header("Set-Cookie", format!("id={logins}; HttpOnly"))
//! #         }
//! #         "/home" if is_member => Answer::ok("welcome"),
//! #         "/poll" if is_member && polls % 10 < 9 => {
//! #             polls += 1;
//! #             Answer::ok("news").after(Duration::from_secs(30))
//! #         }
//! #         _ => {
//! #             polls += 1;
//! #             Answer::status(401)
//! #         }
//! #     }
//! # });
//! # let mut engine = Engine::<Member, Sim>::on_network(&network, Config::default())?;
//! # fn on_the_real_network() -> Result<(), Error> {
//! let mut member = Member::new()?;
//! let mut engine = Engine::new()?;
//! engine.start(member.log_in());
//! engine.run(&mut member)?;
//! # Ok(()) }
//! # let mut member = Member::new()?;
//! # engine.start(member.log_in());
//! # engine.advance(&mut member, Duration::from_secs(3600))?;
//! # assert!((110..120).contains(&member.news), "{}", member.news);
//! # let counts = member.session.stats();
//! # assert!(counts.redirected > 10 && counts.failed == 0, "{counts:?}");
//! # Ok::<(), Error>(())
//! ```
//!
//! Without a session, redirects are responses like any other, and no cookies are kept.
//!
//! # The loop
//!
//! [`Engine::run`] is the engine's own loop and returns when no chain is left. [`Engine::drain`]
//! finishes the requests that are in flight or queued and starts nothing new.
//!
//! In a program that already has a loop, the engine is one more event source. The program calls
//! [`Engine::turn`] whenever the engine's file descriptor ([`AsFd`](std::os::fd::AsFd)) becomes
//! readable or its [`next_deadline`](Engine::next_deadline) passes. A turn does a bounded amount of
//! the work that is due. A turn that is late, early or repeated does no harm.
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
//!     wait_readable(&engine, engine.next_timeout()); // stands in for poll(2), epoll, GLib, ...
//!     engine.turn(&mut replies, Some(Duration::ZERO))?;
//! }
//! assert_eq!(replies, 1);
//! # Ok::<(), httpstream::Error>(())
//! ```
//!
//! - With mio, [`Engine::on_registry`] puts the engine on the program's own [`mio::Poll`].
//! - With calloop, use `calloop::EngineSource` (feature `calloop`). With tokio, use `tokio::Driver`
//!   (feature `tokio`).
//! - On other threads, use a [`Submitter`], which wakes the loop. In tasks on the engine's own
//!   thread, use a [`Local`].
//! - For each kind of loop, [`embedding`] has a recipe. For C, `capi/` in the repository contains
//!   an interface.
//!
//! # Errors
//!
//! If a request fails, its readback receives an [`Error`], and the loop continues. `{error}` prints
//! one clause that says what failed, and `{error:#}` adds the causes. [`kind`](Error::kind) and
//! [`phase`](Error::phase) identify what failed and when, and
//! [`resend_is_safe`](Error::resend_is_safe) indicates whether the request can be sent again
//! without harm. An error prints the origin of its request (scheme, host and port) but never the
//! path, which may contain secrets; [`request`](Error::request) returns the whole request. A
//! response with any status is `Ok`; [`Response::error_for_status`] and [`Error::of_status`] turn
//! one with an unwanted status into an error.
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
//! The engine itself resends a request at most once, and only if the keep-alive connection turned
//! out to be closed and resending is safe. (Pipelined requests and a refused `Expect` are
//! exceptions; policies and sessions may send requests again, too.) A POST sent on such a
//! connection fails; see [`Error::request_sent`] for how to handle this.
//!
//! # Testing
//!
//! With the `sim` feature, an engine can run on a simulated network and clock, with the same
//! readbacks, pool, deadlines and retries, but without sockets or waiting. A simulated day takes
//! milliseconds, and all runs with the same seed are identical. See the `sim` module.
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
//! Conversations can also be written as futures, without an async runtime. [`Engine::fetch`] and
//! [`Submitter::fetch`] return futures, and [`Engine::spawn`] runs a future inside the engine. Any
//! executor can poll the futures that `fetch` returns, as long as some loop drives the engine. They
//! resolve to an [`http::Response`]; [`ResponseExt`] adds the methods of a [`Response`] to it.
//!
//! ```
//! use std::time::Duration;
//! use httpstream::{Engine, Error, Request, ResponseExt};
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
//!     let login = login.error_for_status()?;
//!     let news = Request::get("http://chat.test/news").param("token", login.text()?).build()?;
//!     http.sleep(Duration::from_secs(1)).await;
//!     http.fetch(news).await?.error_for_status()
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
//! In a tokio program, `tokio::Client` (feature `tokio`) runs an engine on its own thread or in a
//! `LocalSet`:
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
//! - `hickory` (default): name resolution by hickory-resolver on the engine's own loop
//!   (`resolver::Hickory`). Without this feature, `getaddrinfo` runs on helper threads
//!   ([`resolver::System`]).
//! - `tls` (default): `https`, through rustls with ring and the platform's root certificates; see
//!   the `tls` module.
//! - `webpki-roots`: Mozilla's root certificates, built in.
//! - `cookies`: cookies of a session ([`session::Jar`]), with the list of public suffixes built in.
//! - `digest`: Digest authentication in a session ([`session::Auth::digest`]).
//! - `gzip`, `brotli` and `zstd`: content codings that a session decodes ([`session::Decode`]).
//! - `websocket`: WebSockets (`WebSocket`), with the hash of their handshake.
//! - `json`: JSON bodies, `RequestBuilder::json` and `Response::json`.
//! - `sim`: `Engine<S, Sim>`, the whole engine in virtual time, for tests.
//! - `calloop`: `calloop::EngineSource`, an event source.
//! - `tokio`: `tokio::Driver` and `tokio::Client`.
//! - `timerfd` (Linux): a timer in the engine's own poll, so that another event loop needs to watch
//!   only the engine's file descriptor; see `Config::timerfd`.
//!
//! With no features enabled, the crate depends only on mio, http, httparse, httpdate, slab, socket2
//! and log.
//! Only the `tokio` feature adds an async runtime.
//!
//! # Logging
//!
//! The crate logs through the `log` facade: `trace` for readiness events, `debug` for each step of
//! a connection (connected, answered, idle, closed) and for each failure, and `warn` for unexpected
//! behavior of a peer and for exhausted system resources. Log lines contain origins. They never
//! contain paths, queries, field values or bodies, with one exception: the name of a refused
//! transfer coding.
//!
//! # Limitations
//!
//! - The crate does not use proxies or speak HTTP/2.
//! - Content codings are decoded only in a session or by a [`policy`], and requests are not coded.
//! - Sessions answer no challenges other than those of Digest, and check no `rspauth`. `SameSite`
//!   of cookies is ignored.
//! - Request bodies are held in memory, and bodies of unknown length cannot be sent.
//! - Names are resolved over plain DNS.
//! - Certificate revocation is not checked.
//! - Addresses are not restricted by default. If URLs come from untrusted sources, set
//!   [`Config::address_filter`] to [`public_only`].

#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backlog;
pub mod body;
mod builder;
mod config;
#[cfg(all(unix, any(feature = "calloop", feature = "tokio")))]
mod embed;
mod engine;
mod error;
pub mod events;
mod generation;
mod h1;
mod id;
mod io_error;
pub mod lines;
mod net;
pub mod policy;
mod proto;
mod request;
pub mod resolver;
mod response;
mod route;
mod save;
mod sched;
pub mod session;
#[cfg(feature = "sim")]
pub mod sim;
mod timeouts;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(not(feature = "tls"))]
#[path = "tls/absent.rs"]
mod tls;
#[cfg(feature = "websocket")]
pub mod websocket;

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

pub use body::{BodySource, Form, Supply};
pub use builder::RequestBuilder;
pub use builder::url::IntoUrl;
pub use config::{AddressFilter, Config, ResolverFactory};
#[cfg(feature = "sim")]
pub use engine::Sim;
pub use engine::{
    Context, Engine, Flow, KeepAlive, Local, Mode, Next, OriginStats, Owned, Readback, ReadbackFn,
    Shared, Stats, Submitter, Turn, Unread, within, within_call, within_to,
};
pub use error::{Error, ErrorKind, Gone, Phase, Sent, SubmitError};
pub use events::Events;
pub use id::{ChainId, ConnectionId};
pub use lines::Lines;
pub use policy::{Moment, Outcome, Policy};
pub use proto::{Headers, Invalid, InvalidPart, Limits, Origin, Scheme, Violation};
pub use request::Request;
pub use response::{Info, Reply, Response, ResponseExt, Timings};
pub use route::{Keepalive, Route, public_only};
pub use save::{Save, SaveThen, Saved};
pub use session::{Retry, Session};
pub use timeouts::{LowSpeed, Timeouts};
#[cfg(feature = "websocket")]
pub use websocket::{Message, WebSocket, WebSocketSender};

/// Recipes for engines in other event loops: `docs/EMBEDDING.md` of the repository, to which its
/// links are relative.
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
