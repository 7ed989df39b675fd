//! A driver for [tokio](https://docs.rs/tokio) (feature `tokio`): an engine in a task of a current-thread runtime or a `LocalSet`.
//!
//! [`Client`] is for programs that only want to fetch: a driver in a task of its own, and `fetch(request).await`. [`Driver`] is for the rest:
//! readbacks, a state, delays. An engine never leaves its thread, so a driver is not `Send`; the futures of a
//! [`Submitter`](crate::Submitter) are, and may be awaited in any task. The engine's time is real: in a runtime whose clock is paused for a test,
//! a driver that waits for a deadline never sleeps.
//!
//! ```
//! use httpstream::tokio::Driver;
//! use httpstream::{Engine, Next, Request};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! let replies = runtime.block_on(async {
//!     let mut driver = Driver::new(Engine::<u32>::new()?)?;
//!     let request = Request::get("http://127.0.0.1:1/").build()?;
//!     driver.engine_mut().submit(request.clone(), |replies, _, _| {
//!         *replies += 1;
//!         Next::done()
//!     });
//!     let http = driver.engine().submitter();
//!     let mut replies = 0;
//!     let fetches = async move { http.send(request).await.is_err() };
//!     let (ran, refused) = tokio::join!(driver.run(&mut replies), fetches);
//!     ran?;
//!     Ok::<_, httpstream::Error>(replies + u32::from(refused))
//! })?;
//! assert_eq!(replies, 2);
//! # Ok(()) }
//! ```

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Config;
use crate::engine::{Engine, Submitter, Turn};
use crate::error::Error;
use crate::request::Request;

/// Turns an engine when its descriptor is readable or its deadline has passed.
#[derive(Debug)]
pub struct Driver<S> {
    engine: Engine<S>,
    /// A duplicate of the engine's descriptor.
    fd: AsyncFd<OwnedFd>,
    timer: Pin<Box<Sleep>>,
}

impl<S> Driver<S> {
    /// Takes the engine to drive.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io): the engine's descriptor cannot be duplicated or registered.
    ///
    /// # Panics
    /// Outside of a runtime that has I/O and time enabled.
    pub fn new(engine: Engine<S>) -> Result<Self, Error> {
        let fd = engine.as_fd().try_clone_to_owned();
        Ok(Self {
            engine,
            fd: fd.and_then(watch).map_err(Error::io)?,
            timer: Box::pin(sleep_until(Instant::now())),
        })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine<S> {
        &self.engine
    }

    /// The engine, to submit, cancel and resume between turns.
    pub fn engine_mut(&mut self) -> &mut Engine<S> {
        &mut self.engine
    }

    /// Gives the engine back.
    pub fn into_engine(self) -> Engine<S> {
        self.engine
    }

    /// Waits until a turn is due, and makes it. Nothing is lost if the future is dropped before.
    ///
    /// # Errors
    /// As [`Engine::turn`].
    ///
    /// # Panics
    /// When a readback does; the driver can be used on.
    pub async fn turn(&mut self, state: &mut S) -> Result<Turn, Error> {
        poll_fn(|cx| self.poll_due(cx)).await.map_err(Error::io)?;
        // A turn that is due at once, again and again, leaves something to the other tasks.
        tokio::task::consume_budget().await;
        let (fd, engine) = (&self.fd, &mut self.engine);
        let mut made = None;
        // The runtime tells of each event once: what it said is believed until a turn has found nothing. Inside `try_io`, so that
        // an event that comes meanwhile, told by another thread, is not forgotten with it.
        let tried = fd.try_io(Interest::READABLE, |_| {
            let turn = made.insert(engine.turn(state, Some(Duration::ZERO)));
            match turn {
                Ok(turn) if turn.events == 0 && !turn.more => Err(io::ErrorKind::WouldBlock.into()),
                Ok(_) | Err(_) => Ok(()),
            }
        });
        match (made, tried) {
            (Some(turn), _) => turn,
            // Not readable: due for its deadline.
            (None, _) => self.engine.turn(state, Some(Duration::ZERO)),
        }
    }

    /// Turns until nothing is pending and no [`Submitter`] is left, or to the end of the turn in which `stop` was called. Dropped, it
    /// leaves everything where it is.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    ///
    /// # Panics
    /// As [`turn`](Self::turn).
    pub async fn run(&mut self, state: &mut S) -> Result<(), Error> {
        while self.engine.has_something_to_come() {
            if self.turn(state).await?.stopped {
                break;
            }
        }
        Ok(())
    }

    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let deadline = self.engine.next_deadline();
        if deadline.is_some_and(|deadline| deadline <= std::time::Instant::now()) {
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(ready) = self.fd.poll_read_ready(cx) {
            return Poll::Ready(ready.map(|_| ()));
        }
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        let deadline = Instant::from_std(deadline);
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(Ok(()))
    }
}

/// Has the present runtime watch `fd`.
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[allow(
        deprecated,
        reason = "what has replaced it is unsafe, since a descriptor might be closed while it is watched: an `OwnedFd` is not"
    )]
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// Fetches. Clones share one engine, whose driver is a task of the thread where it was made; it ends when the last clone and the last
/// future are gone. Clones may be used in tasks of any thread, as long as that `LocalSet` runs.
///
/// ```
/// use httpstream::tokio::Client;
/// use httpstream::{Config, Request};
/// use tokio::runtime::Builder;
/// use tokio::task::{JoinSet, LocalSet};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = Builder::new_current_thread().enable_all().build()?;
/// let refused = LocalSet::new().block_on(&runtime, async {
///     let client = Client::new(Config::default())?;
///     let mut pages = JoinSet::new();
///     for page in 1..=20 {
///         let (client, url) = (client.clone(), format!("http://127.0.0.1:1/{page}"));
///         pages.spawn(async move { client.fetch(Request::get(&url).build()?).await });
///     }
///     let pages = pages.join_all().await;
///     Ok::<_, httpstream::Error>(pages.iter().filter(|page| page.is_err()).count())
/// })?;
/// assert_eq!(refused, 20);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    http: Submitter<()>,
}

impl Client {
    /// Starts an engine in a task of the present `LocalSet`.
    ///
    /// # Errors
    /// As [`Engine::with_config`] and [`Driver::new`].
    ///
    /// # Panics
    /// As [`Driver::new`], and outside of a [`LocalSet`](tokio::task::LocalSet).
    pub fn new(config: Config) -> Result<Self, Error> {
        let mut driver = Driver::new(Engine::with_config(config)?)?;
        let http = driver.engine().submitter();
        tokio::task::spawn_local(async move {
            if let Err(error) = driver.run(&mut ()).await {
                log::error!("the engine cannot go on ({error:#})");
            }
        });
        Ok(Self { http })
    }

    /// The response to `request`. Dropped before, it cancels the request.
    ///
    /// # Errors
    /// Those of the exchange; [`ErrorKind::Gone`](crate::ErrorKind::Gone) if the `LocalSet` is gone.
    pub async fn fetch(&self, request: Request) -> Result<http::Response<Vec<u8>>, Error> {
        self.http.send(request).await
    }
}
