//! Conversations as futures, which do the work of a chain of readbacks in straight-line code.
//!
//! A task is a chain that sends nothing itself. It waits, and its future is polled when a waker has
//! made the chain due. The waker sends an order to the engine, which costs no system call within a
//! turn. The requests that a task awaits are chains of their own. Each stores its result in a slot
//! and wakes the task that waits there. These futures depend on no runtime: any executor may poll
//! them while some loop runs the engine's turns.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll, Wake, Waker};
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::mode::{Mode, Owned};
use crate::engine::readback::{Context, Next, Readback, Reply};
use crate::engine::submitter::{Order, Remote, Submitter, Ticket};
use crate::engine::waking::Waking;
use crate::error::{Earlier, Error, Gone, Sent, SubmitError};
use crate::id::ChainId;
use crate::request::Request;
use crate::response::Info;

/// The result of a fetch. The response is owned, because a future cannot borrow one. Its extensions
/// contain the [`Info`]; [`ResponseExt`](crate::ResponseExt) reads it.
pub(super) type Fetched = Result<http::Response<Vec<u8>>, Error>;

impl<S: 'static, M: Mode> Engine<S, M> {
    /// Sends `request` as a chain of its own, and returns a future of the response.
    ///
    /// Any executor can poll the future. The engine sends the request in its next turns, whether
    /// the future is polled or not. Dropping the future cancels the request.
    ///
    /// The response carries its [`Info`] in its extensions. [`ResponseExt`](crate::ResponseExt)
    /// reads it, and adds the methods of a [`Response`](crate::Response), such as `text`.
    ///
    /// ```
    /// use httpstream::ResponseExt;
    ///
    /// # let mut engine = httpstream::Engine::<()>::new()?;
    /// # let request = httpstream::Request::get("http://127.0.0.1:1/").build()?;
    /// let page = engine.fetch(request);
    /// engine.spawn(async {
    ///     match page.await {
    ///         Ok(page) => println!("{:?}", page.info()),
    ///         Err(error) => println!("{:?} failed: {error:#}", error.request()),
    ///     }
    /// });
    /// engine.run(&mut ())?;
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the exchange; [`ErrorKind::Gone`](crate::ErrorKind::Gone) if the engine is dropped
    /// first, or if the request's policy panics.
    #[must_use = "dropping the future cancels the request"]
    pub fn fetch(&mut self, request: Request) -> impl Future<Output = Fetched> + Send + use<S, M> {
        let (promise, slot) = promise();
        let id = self.submit_to(request.clone(), fetch(promise));
        awaited(request, Awaited::of(self.remote(), id, slot))
    }

    /// Runs `future` as a chain of its own; it is polled inside turns only. Makes a turn due.
    ///
    /// A conversation in a task reads from top to bottom. It reaches the engine through a
    /// [`Local`](crate::Local) or a [`Submitter`]. The chain is pending as long as the future is,
    /// and [`cancel`](Self::cancel) drops the future. A panic in the future is treated as one in a
    /// readback.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::sim::{Answer, Incoming, Network};
    /// use httpstream::{Config, Engine, Error, Local, Request, Sim};
    ///
    /// async fn conversation(http: Local<usize>) -> Result<(), Error> {
    ///     let login = Request::post("http://10.0.0.1/login").build()?;
    ///     let token = http.fetch(login).await?.into_body();
    ///     http.sleep(Duration::from_secs(1)).await;
    ///     let page = Request::get("http://10.0.0.1/page").header("X-Token", token).build()?;
    ///     let page = http.fetch(page).await?;
    ///     http.with(move |bytes, _| *bytes = page.body().len()).await?;
    ///     Ok(())
    /// }
    ///
    /// let network = Network::new(1);
    /// network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| match request.path() {
    ///     "/login" => Answer::ok("7KXW"),
    ///     _ if request.header("X-Token") == Some(b"7KXW") => Answer::ok("hello"),
    ///     _ => Answer::status(403),
    /// });
    /// let mut engine = Engine::<usize, Sim>::on_network(&network, Config::default())?;
    /// let http = engine.local();
    /// engine.spawn(async {
    ///     if let Err(error) = conversation(http).await {
    ///         eprintln!("{error:#}");
    ///     }
    /// });
    /// let mut bytes = 0;
    /// engine.run(&mut bytes)?;
    /// assert_eq!(bytes, 5);
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn spawn(&mut self, future: impl Future<Output = ()> + 'static) -> ChainId {
        self.start(Next::task(future))
    }
}

impl Engine<(), Owned> {
    /// Sends `request`, runs the engine until the response is complete, and returns the response.
    ///
    /// Use it in programs and tests that send one request at a time. Other chains continue in the
    /// meantime.
    ///
    /// ```
    /// use httpstream::{Engine, Request};
    ///
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    /// # let url = format!("http://{}/", listener.local_addr().unwrap());
    /// # std::thread::spawn(move || {
    /// #     use std::io::{Read, Write};
    /// #     let (mut peer, _) = listener.accept().unwrap();
    /// #     let _ = peer.read(&mut [0; 4096]);
    /// #     let _ = peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    /// # });
    /// let mut engine = Engine::new()?;
    /// let page = engine.fetch_blocking(Request::get(url).build()?)?;
    /// assert_eq!((page.status().as_u16(), &page.body()[..]), (200, &b"hello"[..]));
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`fetch`](Self::fetch) and [`turn`](Self::turn).
    ///
    /// # Panics
    /// As [`turn`](Self::turn).
    pub fn fetch_blocking(&mut self, request: Request) -> Fetched {
        let page = self.fetch(request);
        self.block_on(page)?
    }

    /// Runs the engine until `future` is ready, and returns its output.
    ///
    /// The future may borrow and need not be `Send`. It sends requests through a [`Submitter`] or a
    /// [`Local`](crate::Local). Other chains continue in the meantime, and those that have not
    /// ended when the future is ready stay pending. [`Context::stop`] does not end the wait, nor
    /// does anything else: a future that is never woken blocks the thread forever.
    ///
    /// This is for engines without a state. With one, [`spawn`](Self::spawn) the future and
    /// [`run`](Self::run) the engine.
    ///
    /// ```
    /// # let mut engine = httpstream::Engine::<()>::new()?;
    /// # let request = |_: &str| httpstream::Request::get("http://127.0.0.1:1/").build();
    /// let http = engine.local();
    /// let pages = engine.block_on(async {
    ///     let mut pages = Vec::new();
    ///     for path in ["/a", "/b"] {
    ///         pages.push(http.fetch(request(path)?).await);
    ///     }
    ///     Ok::<_, httpstream::Error>(pages)
    /// })??;
    /// assert_eq!(pages.len(), 2);
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the poll failed; the future is then dropped.
    ///
    /// # Panics
    /// If a readback or `future` panics; the engine can still be used.
    pub fn block_on<F: Future>(&mut self, future: F) -> Result<F::Output, Error> {
        let alert = Arc::new(Alert {
            is_woken: AtomicBool::new(true),
            waking: Arc::clone(self.orders.waking()),
        });
        let waker = Waker::from(Arc::clone(&alert));
        let mut polled_by = task::Context::from_waker(&waker);
        let mut future = pin!(future);
        loop {
            if alert.is_woken.swap(false, Ordering::Acquire)
                && let Poll::Ready(output) = future.as_mut().poll(&mut polled_by)
            {
                return Ok(output);
            }
            // A wake since then ends the wait, or has made this turn due.
            self.turn(&mut (), None)?;
        }
    }
}

/// Wakes a future that [`Engine::block_on`] polls between turns.
struct Alert {
    is_woken: AtomicBool,
    waking: Arc<Waking>,
}

impl Wake for Alert {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Inside a turn, this makes the next one due at once, and the future is polled before it.
        if !self.is_woken.swap(true, Ordering::Release) {
            self.waking.announce();
        }
    }
}

impl<S: 'static> Submitter<S> {
    /// Sends `request` as [`Engine::fetch`] does, from a task or from any thread; the errors are
    /// the same.
    ///
    /// If the engine's inbox is full, the request is submitted when there is room; until then the
    /// future has to be polled.
    ///
    /// ```
    /// use httpstream::{Engine, Request};
    ///
    /// let mut engine = Engine::<()>::new()?;
    /// let http = engine.submitter();
    /// engine.spawn(async move {
    ///     let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    ///     match http.fetch(request).await {
    ///         Ok(page) => println!("{}: {} bytes", page.status(), page.body().len()),
    ///         Err(error) => println!("{error:#}"),
    ///     }
    /// });
    /// engine.run(&mut ())?;
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    #[must_use = "dropping the future cancels the request"]
    pub fn fetch(&self, request: Request) -> impl Future<Output = Fetched> + Send + use<S> {
        let (promise, slot) = promise();
        let id = self.new_id();
        let order = Order::Submit {
            id,
            request: request.clone(),
            readback: Box::new(fetch(promise)),
            delay: Duration::ZERO,
        };
        awaited(request, Awaited::begin(self.remote(), id, order, slot))
    }

    /// Completes after `delay`, counted from when the engine takes the order; [`Duration::MAX`]
    /// means never. Completes early if the engine is dropped or drained, or cancels all its chains.
    pub fn sleep(&self, delay: Duration) -> impl Future<Output = ()> + Send + use<S> {
        let (promise, slot) = promise();
        let id = self.new_id();
        let call = Box::new(|_: &mut S, _: &mut Context<'_, S>| promise.keep(()));
        let order = Order::Call { id, call, delay };
        let awaited = Awaited::begin(self.remote(), id, order, slot);
        async { awaited.await.unwrap_or(()) }
    }

    /// Runs `f` on the engine's thread, with the state that the turn is lent, and completes with
    /// what `f` returns.
    ///
    /// ```
    /// use httpstream::Engine;
    ///
    /// let mut engine = Engine::<Vec<u32>>::new()?;
    /// let http = engine.submitter();
    /// engine.spawn(async move {
    ///     let count = http.with(|numbers| {
    ///         numbers.push(7);
    ///         numbers.len()
    ///     });
    ///     assert_eq!(count.await, Ok(1));
    /// });
    /// engine.run(&mut Vec::new())?;
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Gone`] if the engine has been dropped, or has canceled the call.
    pub fn with<T, F>(&self, f: F) -> impl Future<Output = Result<T, Gone>> + Send + use<S, T, F>
    where
        T: Send + 'static,
        F: FnOnce(&mut S) -> T + Send + 'static,
    {
        let (promise, slot) = promise();
        let id = self.new_id();
        let call = Box::new(|state: &mut S, _: &mut Context<'_, S>| promise.keep(f(state)));
        let delay = Duration::ZERO;
        Awaited::begin(self.remote(), id, Order::Call { id, call, delay }, slot)
    }

    /// Runs a task as [`Engine::spawn`] does, from any thread. `make` creates the future on the
    /// engine's thread, so the future need not be `Send`.
    ///
    /// # Errors
    /// [`SubmitError::Full`] and [`SubmitError::Gone`], each with `make`.
    pub fn spawn<F, T>(&self, make: F) -> Result<ChainId, SubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Future<Output = ()> + 'static,
    {
        self.call_with(make, |make| Box::new(|_, _| Next::task(make())))
    }
}

/// Returns a readback that keeps the promise of a response.
pub(super) fn fetch<S>(promise: Promise<Fetched>) -> impl Readback<S> + Send {
    let mut promise = Some(promise);
    move |_: &mut S, reply: Reply<'_>, _: &mut Context<'_, S>| match promise.take() {
        Some(promise) => promise.keep(reply.map(|response| {
            let info: Info = response.info().clone();
            let mut response = response.into_http();
            response.extensions_mut().insert(info);
            response
        })),
        None => Next::done(),
    }
}

/// The place where a chain leaves a value for the future that awaits it.
pub(super) enum Slot<T> {
    Awaited(Option<Waker>),
    /// `None` if the value was taken, or the promise was dropped.
    Over(Option<T>),
}

fn lock<T>(slot: &Mutex<Slot<T>>) -> MutexGuard<'_, Slot<T>> {
    // A poisoned lock is harmless: nothing that runs under it can leave the slot half changed.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Delivers a value to a slot. If it is dropped, the future completes without a value.
pub(super) struct Promise<T>(Arc<Mutex<Slot<T>>>);

pub(super) fn promise<T>() -> (Promise<T>, Arc<Mutex<Slot<T>>>) {
    let slot = Arc::new(Mutex::new(Slot::Awaited(None)));
    (Promise(Arc::clone(&slot)), slot)
}

impl<T> Promise<T> {
    /// Delivers the value. Returns the end of the chain, which has no other purpose.
    pub(super) fn keep<S>(self, value: T) -> Next<S> {
        self.settle(Some(value));
        Next::done()
    }

    fn settle(&self, value: Option<T>) {
        let mut slot = lock(&self.0);
        if let Slot::Awaited(waker) = &mut *slot {
            let waker = waker.take();
            *slot = Slot::Over(value);
            // The lock is released first, because the waker may poll the future at once.
            drop(slot);
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.settle(None);
    }
}

/// A future of the value that a chain delivers.
pub(super) struct Awaited<S, T> {
    remote: Arc<Remote<S>>,
    step: Step<S>,
    slot: Arc<Mutex<Slot<T>>>,
}

/// The progress of the order that begins an awaited chain.
enum Step<S> {
    /// The inbox has no room for the order.
    Waiting {
        id: ChainId,
        order: Order<S>,
        ticket: Option<Ticket>,
    },
    /// The engine has the order, or will take it.
    Taken(ChainId),
    /// The engine has been dropped.
    Gone,
}

pub(super) async fn awaited<S, T>(
    request: Request,
    awaited: Awaited<S, Result<T, Error>>,
) -> Result<T, Error> {
    let mut awaited = awaited;
    let value = (&mut awaited).await;
    value.unwrap_or_else(|Gone| {
        let (sent, resend_is_safe) = match awaited.step {
            // A policy may have sent another request in its place, of which nothing is known here.
            Step::Taken(_) => (
                Sent::Maybe,
                request.is_idempotent() && !awaited.remote.is_visited(&request),
            ),
            Step::Waiting { .. } | Step::Gone => (Sent::No, true),
        };
        let earlier = Earlier {
            sent,
            resend_is_safe,
        };
        Err(Error::gone(request, earlier))
    })
}

impl<S, T> Awaited<S, T> {
    /// Awaits a chain that the engine has, or will take.
    pub(super) fn of(remote: Arc<Remote<S>>, id: ChainId, slot: Arc<Mutex<Slot<T>>>) -> Self {
        let step = if remote.is_open() {
            Step::Taken(id)
        } else {
            Step::Gone
        };
        Self { remote, step, slot }
    }

    /// Puts the order into the inbox if there is room.
    pub(super) fn begin(
        remote: Arc<Remote<S>>,
        id: ChainId,
        order: Order<S>,
        slot: Arc<Mutex<Slot<T>>>,
    ) -> Self {
        let step = match remote.admit(order, |order| order) {
            Ok(()) => Step::Taken(id),
            Err(SubmitError::Full(order)) => Step::Waiting {
                id,
                order,
                ticket: None,
            },
            // Dropping the order drops its promise, which completes the future.
            Err(SubmitError::Gone(_)) => Step::Gone,
        };
        Self { remote, step, slot }
    }

    /// Puts an order that had to wait into the inbox. Returns false if it still has to wait.
    fn begin_late(&mut self, waker: &Waker) -> bool {
        let Step::Waiting { .. } = self.step else {
            return true;
        };
        let waiting = std::mem::replace(&mut self.step, Step::Gone);
        let Step::Waiting {
            id,
            order,
            mut ticket,
        } = waiting
        else {
            return true;
        };
        match self.remote.admit_or_wait(order, waker, &mut ticket) {
            Ok(()) => self.step = Step::Taken(id),
            Err(SubmitError::Full(order)) => {
                self.step = Step::Waiting { id, order, ticket };
                return false;
            }
            Err(SubmitError::Gone(_)) => {}
        }
        true
    }
}

impl<S, T> Future for Awaited<S, T> {
    type Output = Result<T, Gone>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if !this.begin_late(cx.waker()) {
            return Poll::Pending;
        }
        let waker = cx.waker().clone();
        let former = match &mut *lock(&this.slot) {
            Slot::Over(value) => return Poll::Ready(value.take().ok_or(Gone)),
            Slot::Awaited(former) => former.replace(waker),
        };
        // The lock is released first, because the old waker may hold an executor's last reference
        // to a task.
        drop(former);
        Poll::Pending
    }
}

impl<S, T> Drop for Awaited<S, T> {
    fn drop(&mut self) {
        match &mut self.step {
            Step::Waiting { ticket, .. } => {
                if let Some(ticket) = ticket.take() {
                    self.remote.give_up(ticket);
                }
            }
            Step::Taken(id) => {
                if matches!(*lock(&self.slot), Slot::Awaited(_)) {
                    let _ = self.remote.order(Order::Cancel(*id));
                }
            }
            Step::Gone => {}
        }
    }
}
