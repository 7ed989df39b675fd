//! Conversations as futures: what a chain of readbacks does, read from top to bottom.
//!
//! A task is a chain that sends nothing itself: it waits, and its future is polled when a waker has made it due, by an order to the engine;
//! within a turn that is no system call. What a task awaits are chains of their own, which leave what they are told in a slot and wake
//! whoever waits there. Those futures know no runtime: any executor may poll them while some loop turns the engine.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll, Wake, Waker};
use std::time::Duration;

use crate::engine::chains::RequestId;
use crate::engine::mode::Mode;
use crate::engine::readback::{Context, Next, Readback, Reply};
use crate::engine::submitter::{Order, Remote, Submitter};
use crate::engine::{Engine, Response};
use crate::error::{Error, Gone};
use crate::request::Request;

/// What a request comes to, for who cannot be lent the response.
type Fetched = Result<http::Response<Vec<u8>>, Error>;

impl<S: 'static, M: Mode> Engine<S, M> {
    /// Starts a chain that ends with the response to `request`, and answers a future of it, for an executor of any kind. The
    /// request goes out with the next turns, whether it is polled or not; dropped, it cancels the request.
    ///
    /// # Errors
    /// Those of the exchange; [`ErrorKind::Gone`](crate::ErrorKind::Gone) if the engine is dropped before it is over.
    pub fn fetch(&mut self, request: Request) -> impl Future<Output = Fetched> + Send + use<S, M> {
        let (promise, slot) = promise();
        let id = Some(self.submit_to(request, fetch(promise)));
        let remote = self.remote();
        fetched(Awaited { remote, id, slot })
    }

    /// Runs `future` as a chain of its own, polled inside turns only. A turn is then due.
    ///
    /// So a conversation reads from top to bottom; what it asks of the engine goes through a [`Submitter`]. The chain is pending as long as
    /// the future is, and [`cancel`](Self::cancel) drops it. A panic in it is one in a readback.
    ///
    /// ```
    /// # let mut engine = httpstream::Engine::<()>::new()?;
    /// # let request = |_: &str| httpstream::Request::get("http://127.0.0.1:1/").build();
    /// let http = engine.submitter();
    /// let login = async move {
    ///     let page = http.send(request("/login")?).await?;
    ///     http.sleep(std::time::Duration::from_secs(1)).await;
    ///     let token = page.headers()["x-token"].to_str().unwrap_or_default();
    ///     http.send(request(token)?).await
    /// };
    /// engine.spawn(async { println!("{:?}", login.await) });
    /// engine.run(&mut ())?;
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn spawn(&mut self, future: impl Future<Output = ()> + 'static) -> RequestId {
        let remote = self.remote();
        self.call(|_, _| task(remote, future))
    }
}

impl<S: 'static> Submitter<S> {
    /// [`Engine::fetch`] from a task, or from anywhere else; its errors are the same.
    pub fn send(&self, request: Request) -> impl Future<Output = Fetched> + Send + use<S> {
        let (promise, slot) = promise();
        // If the engine is gone, the promise is dropped, which tells.
        let id = self.submit_to(request, fetch(promise)).ok();
        let remote = self.remote();
        fetched(Awaited { remote, id, slot })
    }

    /// Ends after `delay`, counted from when the engine hears of it; [`Duration::MAX`] is never. If the engine is dropped, at once.
    pub fn sleep(&self, delay: Duration) -> impl Future<Output = ()> + Send + use<S> {
        let (promise, slot) = promise();
        let id = self.call_after(delay, |_, _| promise.keep(())).ok();
        let remote = self.remote();
        let awaited = Awaited { remote, id, slot };
        async { awaited.await.unwrap_or(()) }
    }

    /// Runs `f` on the engine's thread, with the state that the turn is lent, and gives back what it answers.
    ///
    /// # Errors
    /// [`Gone`]: the engine is dropped.
    pub fn with<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, Gone>> + Send {
        let (promise, slot) = promise();
        let id = self.call(|state, _| promise.keep(f(state))).ok();
        let remote = self.remote();
        Awaited { remote, id, slot }
    }

    /// [`Engine::spawn`] from anywhere: `make` makes the future on the engine's thread, so that it need not be `Send`.
    ///
    /// # Errors
    /// [`Gone`]: the engine is dropped.
    pub fn spawn<F: Future<Output = ()> + 'static>(
        &self,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> Result<RequestId, Gone> {
        let remote = self.remote();
        self.call(|_, _| task(remote, make()))
    }
}

/// Keeps the promise of a response.
fn fetch<S>(promise: Promise<Fetched>) -> impl Readback<S> + Send {
    let mut promise = Some(promise);
    move |_: &mut S, reply: Reply<'_>, _: &mut Context<'_, S>| match promise.take() {
        Some(promise) => promise.keep(reply.map(Response::into_http)),
        None => Next::done(),
    }
}

/// A future, polled whenever its chain is due.
struct Task<S> {
    future: Pin<Box<dyn Future<Output = ()>>>,
    remote: Arc<Remote<S>>,
    /// Made at the first poll: the chain has its name by then.
    waker: Option<Waker>,
}

/// What a chain does next that becomes a task.
fn task<S: 'static>(remote: Arc<Remote<S>>, future: impl Future<Output = ()> + 'static) -> Next<S> {
    Next::wait().read_to(Task {
        future: Box::pin(future),
        remote,
        waker: None,
    })
}

impl<S: 'static> Readback<S> for Task<S> {
    fn on_due(&mut self, _: &mut S, cx: &mut Context<'_, S>) -> Next<S> {
        let waker = self.waker.get_or_insert_with(|| {
            let (id, remote) = (cx.id(), Arc::clone(&self.remote));
            Waker::from(Arc::new(Signal { id, remote }))
        });
        let mut polled_by = task::Context::from_waker(waker);
        match self.future.as_mut().poll(&mut polled_by) {
            Poll::Ready(()) => Next::done(),
            Poll::Pending => Next::wait().after(Duration::MAX),
        }
    }

    /// Cancelled: the chain is over, and with it the future.
    fn on_reply(&mut self, _: &mut S, _: Reply<'_>, _: &mut Context<'_, S>) -> Next<S> {
        Next::done()
    }
}

/// Makes a task due.
struct Signal<S> {
    id: RequestId,
    remote: Arc<Remote<S>>,
}

impl<S: 'static> Wake for Signal<S> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Of an engine that is gone, so is the task.
        let _ = self.remote.order(Order::Wake(self.id));
    }
}

/// Where a value is left for who awaits it.
enum Slot<T> {
    Awaited(Option<Waker>),
    /// None: taken, or nobody is left to keep the promise.
    Over(Option<T>),
}

fn lock<T>(slot: &Mutex<Slot<T>>) -> MutexGuard<'_, Slot<T>> {
    // Nothing that runs under the lock can leave the slot half changed.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A value to come. Dropped, it says that there will be none.
struct Promise<T>(Arc<Mutex<Slot<T>>>);

fn promise<T>() -> (Promise<T>, Arc<Mutex<Slot<T>>>) {
    let slot = Arc::new(Mutex::new(Slot::Awaited(None)));
    (Promise(Arc::clone(&slot)), slot)
}

impl<T> Promise<T> {
    /// Answers what a chain does next that was there for nothing else.
    fn keep<S>(self, value: T) -> Next<S> {
        self.settle(Some(value));
        Next::done()
    }

    fn settle(&self, value: Option<T>) {
        let mut slot = lock(&self.0);
        if let Slot::Awaited(waker) = &mut *slot {
            let waker = waker.take();
            *slot = Slot::Over(value);
            // Not under the lock: it may poll at once.
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

/// What a chain comes to.
struct Awaited<S, T> {
    remote: Arc<Remote<S>>,
    /// None: the engine was gone before.
    id: Option<RequestId>,
    slot: Arc<Mutex<Slot<T>>>,
}

async fn fetched<S>(awaited: Awaited<S, Fetched>) -> Fetched {
    awaited.await?
}

impl<S, T> Future for Awaited<S, T> {
    type Output = Result<T, Gone>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let waker = cx.waker().clone();
        let former = match &mut *lock(&self.slot) {
            Slot::Over(value) => return Poll::Ready(value.take().ok_or(Gone)),
            Slot::Awaited(former) => former.replace(waker),
        };
        // Not under the lock: it may be an executor's last hold on a task.
        drop(former);
        Poll::Pending
    }
}

impl<S, T> Drop for Awaited<S, T> {
    fn drop(&mut self) {
        let is_open = matches!(*lock(&self.slot), Slot::Awaited(_));
        if let (true, Some(id)) = (is_open, self.id) {
            let _ = self.remote.order(Order::Cancel(id));
        }
    }
}
