//! Local: reaches an engine from the engine's own thread, for futures and readbacks that are not
//! `Send`.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::future::{Awaited, Fetched, awaited, fetch, promise};
use crate::engine::mode::Mode;
use crate::engine::readback::{Context, Next};
use crate::engine::submitter::{Order, Remote};
use crate::engine::waking::Waking;
use crate::error::Gone;
use crate::id::ChainId;
use crate::policy::{Moment, Present, Wakeups};
use crate::proto::Origin;
use crate::request::Request;

/// Reaches an engine from its own thread: from inside tasks, and from any code of the host that has
/// neither the engine nor a [`Context`] at hand, such as the handler of another event. It starts
/// chains and tasks that need not be `Send`, and awaits their results. Clones reach the same
/// engine, and the engine's state may hold one.
///
/// Unlike a [`Submitter`](crate::Submitter), it is never refused. Like a `Submitter`, it does not
/// keep [`Engine::run`](crate::Engine::run) going.
///
/// ```
/// use std::time::Duration;
///
/// use httpstream::{Engine, Request};
///
/// let mut engine = Engine::<u32>::new()?;
/// let http = engine.local();
/// engine.spawn(async move {
///     let task = http.clone();
///     // A task starts a task. Neither has to be `Send`.
///     http.spawn(async move {
///         let page = task.fetch(Request::get("http://127.0.0.1:1/").build().unwrap()).await;
///         let failures = task.with(move |failures: &mut u32, _| {
///             *failures += u32::from(page.is_err());
///             *failures
///         });
///         assert_eq!(failures.await, Ok(1));
///     });
///     http.sleep(Duration::from_millis(1)).await;
/// });
/// engine.run(&mut 0)?;
/// # Ok::<(), httpstream::Error>(())
/// ```
pub struct Local<S> {
    queue: Rc<Queue<S>>,
    present: Rc<Present>,
    wakeups: Arc<Wakeups>,
}

/// What is asked for on the engine's thread, until a turn takes it.
pub(super) struct Queue<S> {
    asked: RefCell<Vec<Asked<S>>>,
    remote: Arc<Remote<S>>,
    waking: Arc<Waking>,
    /// False once the engine has been dropped.
    is_open: Cell<bool>,
}

/// A start, or the cancellation of the holder of a key. Both are in one queue, because a later
/// start may take the same key, and the cancellation does not concern that one.
pub(super) enum Asked<S> {
    Start(ChainId, Next<S>),
    CancelKey(Box<str>),
}

impl<S> Queue<S> {
    pub(super) fn new(remote: Arc<Remote<S>>, waking: Arc<Waking>) -> Self {
        Self {
            asked: RefCell::new(Vec::new()),
            remote,
            waking,
            is_open: Cell::new(true),
        }
    }

    pub(super) fn take(&self) -> Vec<Asked<S>> {
        self.asked.take()
    }

    pub(super) fn has_some(&self) -> bool {
        !self.asked.borrow().is_empty()
    }

    /// Closes the queue when the engine is dropped. Chains that are still queued are dropped.
    pub(super) fn close(&self) {
        self.is_open.set(false);
        // The queue must not be borrowed here, because a readback's destructor may call back into
        // it.
        drop(self.asked.take());
    }

    /// Queues what is asked for, or drops it if the engine has been dropped.
    fn push(&self, what: Asked<S>) {
        if !self.is_open.get() {
            return;
        }
        let mut asked = self.asked.borrow_mut();
        let is_first = asked.is_empty();
        asked.push(what);
        drop(asked);
        if is_first {
            self.waking.announce();
        }
    }
}

impl<S> Local<S> {
    /// Starts a chain; see [`Engine::start`](crate::Engine::start). If the engine has been dropped,
    /// `next` is dropped.
    pub fn start(&self, next: Next<S>) -> ChainId {
        let id = self.queue.remote.new_id();
        self.start_as(id, next);
        id
    }

    /// Starts a chain whose id was taken before.
    pub(super) fn start_as(&self, id: ChainId, next: Next<S>) {
        self.queue.push(Asked::Start(id, next));
    }

    pub(super) fn remote(&self) -> &Arc<Remote<S>> {
        &self.queue.remote
    }

    /// Starts a task; see [`Engine::spawn`](crate::Engine::spawn).
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) -> ChainId {
        self.start(Next::task(future))
    }

    /// Opens a connection to `origin`, for the next request; see
    /// [`Engine::preconnect`](crate::Engine::preconnect). For another route, call
    /// [`Context::preconnect_by`] in [`with`](Self::with).
    pub fn preconnect(&self, origin: &Origin) {
        // An error means that the engine has been dropped.
        let _ = self.queue.remote.order(Order::Preconnect(origin.clone()));
    }

    /// Cancels a chain; see [`Engine::cancel`](crate::Engine::cancel).
    pub fn cancel(&self, id: ChainId) {
        // The order goes through the inbox, behind the submissions of a `Submitter`, so it
        // overtakes none of them. Nor does it overtake chains started here, which the engine takes
        // first. An error means that the engine has been dropped, and its chains with it.
        let _ = self.queue.remote.order(Order::Cancel(id));
    }

    /// Resumes a response, if it is paused when the engine takes this order; see
    /// [`Engine::resume`](crate::Engine::resume).
    pub fn resume(&self, id: ChainId) {
        // An error means that the engine has been dropped.
        let _ = self.queue.remote.order(Order::Resume(id));
    }

    /// Cancels the chain that holds a key; see [`Engine::cancel_key`](crate::Engine::cancel_key).
    /// That may be a chain that was started here before, but none that is started here later.
    pub fn cancel_key(&self, name: &str) {
        self.queue.push(Asked::CancelKey(name.into()));
    }

    /// Returns clocks and random numbers for tasks; in a simulation they depend on its seed. Its
    /// [`waker`](Moment::waker) wakes nothing, since a task is woken by its own waker.
    pub fn moment(&self) -> Moment<'_> {
        Moment::new(&self.present, &self.wakeups, None)
    }
}

impl<S: 'static> Local<S> {
    /// Sends `request` and completes with the response; see
    /// [`Engine::fetch`](crate::Engine::fetch). Dropping the future cancels the request.
    ///
    /// # Errors
    /// Those of the exchange; [`ErrorKind::Gone`](crate::ErrorKind::Gone) if the engine is dropped
    /// first, or if the request's policy panics.
    #[must_use = "dropping the future cancels the request"]
    pub fn fetch(&self, request: Request) -> impl Future<Output = Fetched> + use<S> {
        let (promise, slot) = promise();
        let id = self.start(Next::send(request.clone()).read_to(fetch(promise)));
        let remote = Arc::clone(&self.queue.remote);
        awaited(request, Awaited::of(remote, id, slot))
    }

    /// Completes after `delay`; [`Duration::MAX`] means never. Completes early if the engine is
    /// dropped or drained, or cancels all its chains.
    pub fn sleep(&self, delay: Duration) -> impl Future<Output = ()> + use<S> {
        let (promise, slot) = promise();
        let id = self.start(Next::call(|_, _| promise.keep(())).after(delay));
        let remote = Arc::clone(&self.queue.remote);
        let awaited = Awaited::of(remote, id, slot);
        async { awaited.await.unwrap_or(()) }
    }

    /// Runs `f` with the state that the turn is lent, and completes with what `f` returns.
    ///
    /// # Errors
    /// [`Gone`] if the engine has been dropped, or has canceled the call.
    pub fn with<T, F>(&self, f: F) -> impl Future<Output = Result<T, Gone>> + use<S, T, F>
    where
        T: 'static,
        F: FnOnce(&mut S, &mut Context<'_, S>) -> T + 'static,
    {
        let (promise, slot) = promise();
        let id = self.start(Next::call(|state: &mut S, cx: &mut Context<'_, S>| {
            promise.keep(f(state, cx))
        }));
        Awaited::of(Arc::clone(&self.queue.remote), id, slot)
    }
}

impl<S> Clone for Local<S> {
    fn clone(&self) -> Self {
        Self {
            queue: Rc::clone(&self.queue),
            present: Rc::clone(&self.present),
            wakeups: Arc::clone(&self.wakeups),
        }
    }
}

impl<S> fmt::Debug for Local<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Local")
    }
}

impl<S, M: Mode> Engine<S, M> {
    /// Returns a handle through which tasks on this thread reach the engine.
    pub fn local(&self) -> Local<S> {
        Local {
            queue: Rc::clone(self.orders.local()),
            present: Rc::clone(self.core.clock.present()),
            wakeups: Arc::clone(&self.core.wakeups),
        }
    }
}
