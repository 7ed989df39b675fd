//! A driver for [tokio](https://docs.rs/tokio) (feature `tokio`): an engine in a task of a
//! current-thread runtime or a `LocalSet`.
//!
//! [`Client`] is for programs that only want to fetch: an engine on a thread, or in a task of its
//! own, and `fetch(request).await`. [`Driver`] is for the rest: readbacks, a state, delays. An
//! engine never leaves its thread, so a driver is not `Send`; the futures of a
//! [`Submitter`](crate::Submitter) are, and may be awaited in any task. The engine's time is real:
//! in a runtime whose clock is paused for a test, a driver that waits for a deadline never sleeps.
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
//!     let alive = http.keep_alive(); // `run` waits for what the other task is still to fetch
//!     let mut replies = 0;
//!     let fetches = async move {
//!         let _alive = alive;
//!         http.fetch(request).await.is_err()
//!     };
//!     let (ran, refused) = tokio::join!(driver.run(&mut replies), fetches);
//!     ran?;
//!     Ok::<_, httpstream::Error>(replies + u32::from(refused))
//! })?;
//! assert_eq!(replies, 2);
//! # Ok(()) }
//! ```

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Config;
use crate::engine::{Engine, KeepAlive, Submitter, Turn};
use crate::error::{Error, Gone};
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
    /// [`ErrorKind::Io`](crate::ErrorKind::Io): the engine's descriptor cannot be duplicated or
    /// registered.
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
        // The runtime tells of each event once: what it said is believed until a turn has found
        // nothing. Inside `try_io`, so that an event that comes meanwhile, told by another thread,
        // is not forgotten with it.
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

    /// Turns until nothing is pending and no [`KeepAlive`] is left, or to the end of the turn in
    /// which `stop` was called. Dropped, it leaves everything where it is.
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

/// Fetches. Clones share one engine, and may be used in tasks of any thread; a fetch that is under
/// way holds one.
///
/// [`on_thread`](Self::on_thread) works everywhere, under plain `#[tokio::main]` too: its engine
/// runs on a thread of its own, which the tasks need not leave anything to. [`new`](Self::new)
/// spares that thread: its engine is a task of the present `LocalSet`, and goes on as long as that
/// runs.
///
/// ```
/// use httpstream::tokio::Client;
/// use httpstream::{Config, Info, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::on_thread(Config::default())?;
/// let mut pages = tokio::task::JoinSet::new();
/// for page in 1..=20 {
///     let request = Request::get(&format!("http://127.0.0.1:1/{page}")).build()?;
///     pages.spawn(client.fetch(request));
/// }
/// while let Some(page) = pages.join_next().await {
///     match page? {
///         Ok(page) => println!("from {:?}", page.extensions().get::<Info>().map(|info| info.peer)),
///         Err(error) => println!("{error:#}"),
///     }
/// }
/// # Ok(()) }
/// ```
///
/// In a `LocalSet`:
///
/// ```
/// use httpstream::tokio::Client;
/// use httpstream::{Config, Request};
/// use tokio::runtime::Builder;
/// use tokio::task::LocalSet;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = Builder::new_current_thread().enable_all().build()?;
/// let page = LocalSet::new().block_on(&runtime, async {
///     let client = Client::new(Config::default())?;
///     client.fetch(Request::get("http://127.0.0.1:1/").build()?).await
/// });
/// assert!(page.is_err());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    http: Submitter<()>,
    /// With the last clone the engine ends.
    alive: KeepAlive,
}

impl Client {
    /// Starts an engine in a task of the present `LocalSet`, or of a runtime that is one itself.
    ///
    /// # Errors
    /// As [`Engine::with_config`] and [`Driver::new`];
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig), saying what to do, where
    /// there is no such set, or its runtime has no I/O or no time.
    pub fn new(config: Config) -> Result<Self, Error> {
        if Handle::try_current().is_err() {
            return Err(misplaced("outside of a tokio runtime"));
        }
        let engine = Engine::with_config(config)?;
        let http = engine.submitter();
        let alive = http.keep_alive();
        let started = caught(|| {
            let mut driver = Driver::new(engine)?;
            tokio::task::spawn_local(async move {
                if let Err(error) = driver.run(&mut ()).await {
                    log::error!("the engine cannot go on ({error:#})");
                }
            });
            Ok(())
        });
        match started {
            Some(started) => started.map(|()| Self { http, alive }),
            None => Err(misplaced(
                "outside of a LocalSet, or in a runtime without I/O or time",
            )),
        }
    }

    /// Starts an engine on a thread of its own.
    ///
    /// The thread ends when the last clone is gone, and the last future of [`fetch`](Self::fetch),
    /// each of which holds one: nothing that somebody waits for is cut short. What nobody waits for
    /// is cancelled. A panic on that thread, such as one of an address filter or a resolver, ends
    /// it, and what is fetched comes to [`ErrorKind::Gone`](crate::ErrorKind::Gone).
    ///
    /// The futures know no runtime: they may be awaited in tasks of several, or of none that is
    /// tokio's.
    ///
    /// # Errors
    /// As [`Engine::with_config`]; [`ErrorKind::Io`](crate::ErrorKind::Io): no thread is to be had;
    /// `Gone`: it panicked before it had an engine.
    pub fn on_thread(config: Config) -> Result<Self, Error> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let run = move || {
            let mut engine = match Engine::with_config(config) {
                Ok(engine) => engine,
                Err(error) => return drop(tell.send(Err(error))),
            };
            // Nobody is there any more: then nothing is to come, either.
            let http = engine.submitter();
            let _ = tell.send(Ok((http.keep_alive(), http)));
            drop(tell);
            if let Err(error) = engine.run(&mut ()) {
                log::error!("the engine cannot go on ({error:#})");
            }
        };
        let thread = std::thread::Builder::new().name("httpstream".to_owned());
        thread.spawn(run).map_err(Error::io)?;
        let (alive, http) = told.recv().map_err(|_| Gone)??;
        Ok(Self { http, alive })
    }

    /// The response to `request`, which is sent when the future is first polled; its
    /// [`Info`](crate::Info) is among its extensions. Dropped before, it cancels the request.
    ///
    /// # Errors
    /// Those of the exchange; [`ErrorKind::Gone`](crate::ErrorKind::Gone) if the `LocalSet` or the
    /// thread is gone.
    pub fn fetch(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<http::Response<Vec<u8>>, Error>> + Send + use<> {
        let Self { http, alive } = self.clone();
        async move {
            let _alive = alive;
            http.fetch(request).await
        }
    }
}

/// What [`Client::new`] says where it cannot be.
fn misplaced(place: &str) -> Error {
    Error::invalid_config(format!(
        "tokio::Client::new {place}: make the client inside a LocalSet (run_until or block_on) of a runtime with enable_all, or use \
         Client::on_thread, which needs neither"
    ))
}

/// Runs what panics where it is called outside of a `LocalSet`: tokio has no other way to tell. The
/// panic hook is left alone, since it is the whole process's: what it prints comes before the
/// error.
fn caught<T>(run: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(run)).ok()
}
