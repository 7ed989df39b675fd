//! An engine for programs on [tokio](https://docs.rs/tokio) (feature `tokio`).
//!
//! [`Client`] is for most programs: `client.fetch(request).await`, with the engine on a thread or
//! in a task of its own. Its [`submitter`](Client::submitter) streams bodies. [`Driver`] is for an
//! engine with a state, whose readbacks run in a task of the program.
//!
//! An engine stays on its thread, so a `Driver` is not `Send`. The futures of a
//! [`Submitter`](crate::Submitter) are `Send`, and any task may await them. The engine uses the
//! real clock: in a runtime whose clock is paused for a test, a driver that waits for a deadline
//! never sleeps.
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
//!     let alive = http.keep_alive(); // keeps `run` going until the other task has fetched
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

use crate::body::BodyStream;
use crate::config::Config;
use crate::engine::{Engine, KeepAlive, Submitter, Turn};
use crate::error::{Error, Gone};
use crate::request::Request;

/// Makes an engine's turns when its descriptor is readable or its deadline has passed.
///
/// A driver is not `Send`, because an engine stays on its thread: `tokio::spawn` refuses it. Run it
/// in the future of `main` (under any `#[tokio::main]`), in `block_on`, or in `spawn_local`.
///
/// ```
/// use httpstream::tokio::Driver;
/// use httpstream::{Engine, Next, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut driver = Driver::new(Engine::<u32>::new()?)?;
/// let request = Request::get("http://127.0.0.1:1/").build()?;
/// driver.engine_mut().submit(request, |replies, _, _| {
///     *replies += 1;
///     Next::done()
/// });
/// let mut replies = 0;
/// driver.run(&mut replies).await?;
/// assert_eq!(replies, 1);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Driver<S> {
    engine: Engine<S>,
    /// A duplicate of the engine's descriptor.
    fd: AsyncFd<OwnedFd>,
    timer: Pin<Box<Sleep>>,
}

impl<S> Driver<S> {
    /// Creates a driver for an engine.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the engine's descriptor cannot be duplicated or
    /// registered.
    ///
    /// # Panics
    /// Outside of a tokio runtime that has I/O and time enabled.
    pub fn new(engine: Engine<S>) -> Result<Self, Error> {
        let fd = engine.as_fd().try_clone_to_owned();
        Ok(Self {
            engine,
            fd: fd.and_then(watch).map_err(Error::io)?,
            timer: Box::pin(sleep_until(Instant::now())),
        })
    }

    /// Returns the engine.
    pub fn engine(&self) -> &Engine<S> {
        &self.engine
    }

    /// Returns the engine, for calls between turns such as `submit`, `cancel` and `resume`.
    pub fn engine_mut(&mut self) -> &mut Engine<S> {
        &mut self.engine
    }

    /// Returns the engine and drops the driver.
    pub fn into_engine(self) -> Engine<S> {
        self.engine
    }

    /// Waits until a turn is due, and makes it. Dropping the future before it completes loses
    /// nothing.
    ///
    /// # Errors
    /// As [`Engine::turn`].
    ///
    /// # Panics
    /// If a readback panics. The driver remains usable.
    pub async fn turn(&mut self, state: &mut S) -> Result<Turn, Error> {
        poll_fn(|cx| self.poll_due(cx)).await.map_err(Error::io)?;
        // Yields to the other tasks from time to time, even if a turn is always due.
        tokio::task::consume_budget().await;
        let (fd, engine) = (&self.fd, &mut self.engine);
        let mut made = None;
        // tokio reports each event once, so the descriptor counts as readable until a turn has
        // found nothing. The turn runs inside `try_io`, which keeps an event that another thread
        // reports during the turn from being cleared with the readiness.
        let tried = fd.try_io(Interest::READABLE, |_| {
            let turn = made.insert(engine.turn(state, Some(Duration::ZERO)));
            match turn {
                Ok(turn) if turn.events == 0 && !turn.more => Err(io::ErrorKind::WouldBlock.into()),
                Ok(_) | Err(_) => Ok(()),
            }
        });
        match (made, tried) {
            (Some(turn), _) => turn,
            // Not readable: the deadline has passed.
            (None, _) => self.engine.turn(state, Some(Duration::ZERO)),
        }
    }

    /// Makes turns until nothing is pending and no [`KeepAlive`] is left, or to the end of the turn
    /// in which `stop` is called. Dropping the future leaves the engine as it is.
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

/// Makes the current runtime watch `fd`.
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[allow(
        deprecated,
        reason = "the replacement is unsafe, because a descriptor might be closed while it is watched; an `OwnedFd` is not"
    )]
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// Fetches, with an engine of its own. Clones share the engine, and may be used in tasks of any
/// thread. The engine runs until the last clone and the last [`fetch`](Self::fetch) are dropped.
///
/// [`on_thread`](Self::on_thread) works everywhere, also under plain `#[tokio::main]`: its engine
/// runs on a thread of its own and does not depend on tasks to yield. [`new`](Self::new) needs no
/// extra thread: its engine is a task of the current `LocalSet`, and runs as long as that does.
///
/// ```
/// use httpstream::tokio::Client;
/// use httpstream::{Config, Request, ResponseExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::on_thread(Config::default())?;
/// let mut pages = tokio::task::JoinSet::new();
/// for page in 1..=20 {
///     let request = Request::get(format!("http://127.0.0.1:1/{page}")).build()?;
///     pages.spawn(client.fetch(request));
/// }
/// while let Some(page) = pages.join_next().await {
///     match page? {
///         Ok(page) => {
///             let peer = page.info().map(|info| info.peer);
///             println!("{} from {peer:?}", page.status());
///         }
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
    /// The engine ends when the last clone of this guard is dropped.
    alive: KeepAlive,
}

impl Client {
    /// Starts an engine in a task of the current `LocalSet`, or of a runtime that is a `LocalSet`
    /// itself.
    ///
    /// # Errors
    /// As [`Engine::with_config`] and [`Driver::new`];
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig), saying what to do, outside of
    /// such a set or if its runtime has no I/O or no time enabled. tokio reports these by a panic,
    /// which is caught here, but whose message the panic hook prints. A program that is compiled
    /// with `panic = "abort"` ends instead.
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
    /// The thread ends when the last clone and the last future of [`fetch`](Self::fetch), which
    /// holds a clone, are dropped, and no chain is left that the [`submitter`](Self::submitter)
    /// started. So a fetch that is still awaited is never cut short; one whose
    /// future was dropped is canceled. If the thread panics, for example in an address filter or a
    /// resolver, it ends, and fetches fail with [`ErrorKind::Gone`](crate::ErrorKind::Gone).
    ///
    /// The futures depend on no runtime: tasks of several runtimes may await them, tokio's or
    /// others.
    ///
    /// # Errors
    /// As [`Engine::with_config`]; [`ErrorKind::Io`](crate::ErrorKind::Io) if no thread can be
    /// started; `Gone` if the thread panicked before it had an engine.
    pub fn on_thread(config: Config) -> Result<Self, Error> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let run = move || {
            let mut engine = match Engine::with_config(config) {
                Ok(engine) => engine,
                Err(error) => return drop(tell.send(Err(error))),
            };
            // If the receiver is gone, sending fails and drops the guard; `run` returns at once.
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

    /// Returns a handle of this client's engine, for what [`fetch`](Self::fetch) does not do, such
    /// as reading a body in pieces: [`submit_to`](Submitter::submit_to) sends a request whose
    /// [`Readback`](crate::Readback) passes the pieces on. `examples/tokio_client.rs` does that.
    /// [`cancel`](Submitter::cancel) ends it at once, and [`Flow::Pause`](crate::Flow::Pause) with
    /// [`resume`](Submitter::resume) holds back a server that is faster than the task.
    ///
    /// The engine runs as long as a client does, and then until no chain is left: a chain that goes
    /// on forever keeps its thread. [`stop`](Submitter::stop) ends it for all clients.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use httpstream::Config;
    /// use httpstream::tokio::Client;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Client::on_thread(Config::default())?;
    /// client.submitter().sleep(Duration::from_millis(1)).await;
    /// # Ok(()) }
    /// ```
    pub fn submitter(&self) -> Submitter<()> {
        self.http.clone()
    }

    /// Returns a future of the response to `request`, which completes when its head has arrived.
    /// The [body](BodyStream) is read as it arrives, and is an `AsyncRead`. See
    /// [`Submitter::open`].
    ///
    /// ```no_run
    /// use httpstream::Request;
    /// use httpstream::tokio::Client;
    ///
    /// # async fn save(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let request = Request::get("http://example.com/big").timeouts(|t| t.total = None).build()?;
    /// let mut response = client.open(request).await?;
    /// let mut bytes = 0;
    /// while let Some(piece) = response.body_mut().next().await {
    ///     bytes += piece?.len();
    /// }
    /// println!("{}, {bytes} bytes", response.status());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub fn open(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<http::Response<BodyStream>, Error>> + Send + use<> {
        let Self { http, alive } = self.clone();
        async move {
            let response = http.open(request).await?;
            Ok(response.map(|body| body.keeping(alive)))
        }
    }

    /// Returns a future of the response to `request`. The request is sent when the future is first
    /// polled. The response carries its [`Info`](crate::Info) in its extensions. Dropping the
    /// future cancels the request.
    ///
    /// # Errors
    /// Those of the exchange; [`ErrorKind::Gone`](crate::ErrorKind::Gone) if the `LocalSet` or the
    /// thread has ended.
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

/// Returns the error of [`Client::new`] in a place where it cannot work.
fn misplaced(place: &str) -> Error {
    Error::invalid_config(format!(
        "tokio::Client::new {place}: create the client inside a LocalSet (run_until or block_on) of a runtime with enable_all, or use \
         Client::on_thread, which needs neither"
    ))
}

/// Calls `run`, which panics outside of a `LocalSet`; tokio has no other way to report that. The
/// panic hook stays as it is, because it belongs to the whole process, so its output appears before
/// the error.
fn caught<T>(run: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(run)).ok()
}
