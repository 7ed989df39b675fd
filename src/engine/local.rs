//! Local: the way into an engine for what stays on its thread.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::future::{Awaited, Fetched, fetch, fetched, promise};
use crate::engine::mode::Mode;
use crate::engine::readback::{Context, Next};
use crate::engine::submitter::{Order, Remote};
use crate::engine::waking::Waking;
use crate::error::Gone;
use crate::id::ChainId;
use crate::policy::{Bell, Moment, Present};
use crate::request::Request;

/// Reaches an engine from its own thread, above all from inside tasks: starts chains and tasks that
/// need not be `Send`, and awaits what they come to. Clones reach the same engine.
///
/// Unlike a [`Submitter`](crate::Submitter) it is never refused. Like one, it does not keep
/// [`Engine::run`](crate::Engine::run) going.
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
    bell: Arc<Bell>,
}

/// What was asked for on the engine's thread, until a turn takes it.
pub(super) struct Queue<S> {
    starts: RefCell<Vec<(ChainId, Next<S>)>>,
    remote: Arc<Remote<S>>,
    waking: Arc<Waking>,
    /// The engine is there.
    is_open: Cell<bool>,
}

impl<S> Queue<S> {
    pub(super) fn new(remote: Arc<Remote<S>>, waking: Arc<Waking>) -> Self {
        Self {
            starts: RefCell::new(Vec::new()),
            remote,
            waking,
            is_open: Cell::new(true),
        }
    }

    pub(super) fn take(&self) -> Vec<(ChainId, Next<S>)> {
        self.starts.take()
    }

    pub(super) fn has_some(&self) -> bool {
        !self.starts.borrow().is_empty()
    }

    /// The engine ends: what it has not taken is dropped.
    pub(super) fn close(&self) {
        self.is_open.set(false);
        // A readback's own drop may come back here: not while it is borrowed.
        drop(self.starts.take());
    }

    /// Has a chain started; where the engine is gone, it is dropped.
    fn push(&self, id: ChainId, next: Next<S>) {
        if !self.is_open.get() {
            return;
        }
        let mut starts = self.starts.borrow_mut();
        let is_first = starts.is_empty();
        starts.push((id, next));
        drop(starts);
        if is_first {
            self.waking.announce();
        }
    }
}

impl<S> Local<S> {
    /// Starts a chain; see [`Engine::start`](crate::Engine::start). Where the engine is gone,
    /// `next` is dropped.
    pub fn start(&self, next: Next<S>) -> ChainId {
        let id = self.queue.remote.new_id();
        self.queue.push(id, next);
        id
    }

    /// Starts a task; see [`Engine::spawn`](crate::Engine::spawn).
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) -> ChainId {
        self.start(Next::task(future))
    }

    /// Ends a chain; see [`Engine::cancel`](crate::Engine::cancel).
    pub fn cancel(&self, id: ChainId) {
        // Through the inbox, where the submissions of a `Submitter` are: it overtakes neither those
        // nor what was started here, which is taken before. An engine that is gone has no chains.
        let _ = self.queue.remote.order(Order::Cancel(id));
    }

    /// Clocks and random numbers, for tasks: in a simulation, those of its seed. Its
    /// [`waker`](Moment::waker) wakes nothing, since a task is woken by its own.
    pub fn moment(&self) -> Moment<'_> {
        Moment::new(&self.present, &self.bell, None)
    }
}

impl<S: 'static> Local<S> {
    /// Sends `request`, and ends with the response; see [`Engine::fetch`](crate::Engine::fetch).
    /// Dropped, it cancels the request.
    ///
    /// # Errors
    /// Those of the exchange; [`ErrorKind::Gone`](crate::ErrorKind::Gone) where the engine is
    /// dropped before it is over, or the request's policy panics.
    #[must_use = "dropping the future cancels the request"]
    pub fn fetch(&self, request: Request) -> impl Future<Output = Fetched> + use<S> {
        let (promise, slot) = promise();
        let id = self.start(Next::send(request.clone()).read_to(fetch(promise)));
        let remote = Arc::clone(&self.queue.remote);
        fetched(request, Awaited::of(remote, id, slot))
    }

    /// Ends after `delay`; [`Duration::MAX`] is never. If the engine is dropped, at once.
    pub fn sleep(&self, delay: Duration) -> impl Future<Output = ()> + use<S> {
        let (promise, slot) = promise();
        let id = self.start(Next::call(|_, _| promise.keep(())).after(delay));
        let remote = Arc::clone(&self.queue.remote);
        let awaited = Awaited::of(remote, id, slot);
        async { awaited.await.unwrap_or(()) }
    }

    /// Runs `f` with the state that the turn is lent, and gives back what it returns.
    ///
    /// # Errors
    /// [`Gone`]: the engine is dropped.
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
            bell: Arc::clone(&self.bell),
        }
    }
}

impl<S> fmt::Debug for Local<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Local")
    }
}

impl<S, M: Mode> Engine<S, M> {
    /// The way in for what stays on this thread: tasks that start tasks.
    pub fn local(&self) -> Local<S> {
        Local {
            queue: Rc::clone(self.orders.local()),
            present: Rc::clone(self.core.clock.present()),
            bell: Arc::clone(&self.core.bell),
        }
    }
}
