//! Submitter: the way into an engine from other threads.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::engine::chains::RequestId;
use crate::engine::readback::{Context, Next, Readback, Reply};
use crate::error::Gone;
use crate::request::Request;
use crate::resolver::Wake;

/// Submits from any thread; each call wakes the engine's loop. Clones go to the same engine.
///
/// [`Engine::run`](crate::Engine::run) goes on as long as a `Submitter` is left. Readbacks run on the engine's thread.
///
/// ```
/// use httpstream::{Engine, Next, Request};
///
/// let mut engine = Engine::<u32>::new()?;
/// let submitter = engine.submitter();
/// let worker = std::thread::spawn(move || {
///     let request = Request::get("http://127.0.0.1:1/").build().unwrap();
///     submitter.submit(request, |failures, reply, _| {
///         *failures += u32::from(reply.is_err());
///         Next::done()
///     })
/// });
/// let mut failures = 0;
/// engine.run(&mut failures)?; // until the worker has dropped its submitter and the request is answered
/// assert!(worker.join().unwrap().is_ok());
/// assert_eq!(failures, 1);
/// # Ok::<(), httpstream::Error>(())
/// ```
pub struct Submitter<S> {
    remote: Arc<Remote<S>>,
}

/// What a [`Submitter`] shares with its engine.
pub(crate) struct Remote<S> {
    inbox: Mutex<Inbox<S>>,
    wake: Wake,
    submitters: AtomicUsize,
    last_id: AtomicU64,
    /// Orders have come from inside a turn, which nobody was woken for.
    from_within: AtomicBool,
}

thread_local! {
    /// The engine whose turn runs on this thread; of several, the innermost.
    static TURNING: Cell<*const ()> = const { Cell::new(std::ptr::null()) };
}

/// While it is there, this thread is inside a turn.
pub(super) struct Inside {
    before: *const (),
}

impl Drop for Inside {
    fn drop(&mut self) {
        TURNING.set(self.before);
    }
}

struct Inbox<S> {
    orders: Vec<Order<S>>,
    open: bool,
}

/// What came from another thread.
pub(crate) enum Order<S> {
    Submit {
        id: RequestId,
        request: Request,
        readback: Box<dyn Readback<S> + Send>,
        delay: Duration,
    },
    Call {
        id: RequestId,
        call: SendCall<S>,
        delay: Duration,
    },
    Cancel(RequestId),
    Resume(RequestId),
    /// A chain that waits without a request goes on now.
    Wake(RequestId),
    Stop,
}

impl<S> Order<S> {
    /// Whether nothing is left of it for an engine that takes it together with `before`.
    fn repeats(&self, before: &Self) -> bool {
        match (self, before) {
            (Order::Stop, Order::Stop) => true,
            (Order::Resume(id), Order::Resume(before)) | (Order::Wake(id), Order::Wake(before)) => {
                id == before
            }
            _ => false,
        }
    }
}

/// A [`Call`](crate::engine::calls::Call) that can be handed to another thread.
pub(crate) type SendCall<S> = Box<dyn FnOnce(&mut S, &mut Context<'_, S>) -> Next<S> + Send>;

impl<S> Remote<S> {
    pub(super) fn new(wake: Wake) -> Self {
        Self {
            inbox: Mutex::new(Inbox {
                orders: Vec::new(),
                open: true,
            }),
            wake,
            submitters: AtomicUsize::new(0),
            last_id: AtomicU64::new(0),
            from_within: AtomicBool::new(false),
        }
    }

    /// A turn begins on this thread, and lasts as long as what is answered.
    pub(super) fn enter(self: &Arc<Self>) -> Inside {
        Inside {
            before: TURNING.replace(Arc::as_ptr(self).cast()),
        }
    }

    fn is_turning_here(&self) -> bool {
        std::ptr::addr_eq(TURNING.get(), self)
    }

    /// Whether orders have come from inside a turn. They wake nobody: the turn takes them before it ends, or another is due.
    pub(super) fn has_orders_from_within(&self) -> bool {
        // Set and read by one thread.
        self.from_within.load(Ordering::Relaxed)
    }

    /// Gives an order, and wakes the engine, unless it is awake.
    pub(super) fn order(&self, order: Order<S>) -> Result<(), Gone> {
        let mut inbox = self.inbox();
        if !inbox.open {
            drop(inbox);
            return Err(Gone);
        }
        // Who asks again and again while the engine is busy takes no room for it.
        if let Some(last) = inbox.orders.last()
            && order.repeats(last)
        {
            return Ok(());
        }
        let first = inbox.orders.is_empty();
        inbox.orders.push(order);
        drop(inbox);
        // Those behind the first are covered by what it does: the engine empties the whole inbox after it.
        match first {
            true if self.is_turning_here() => self.from_within.store(true, Ordering::Relaxed),
            true => self.wake.wake(),
            false => {}
        }
        Ok(())
    }

    pub(super) fn submitter(self: &Arc<Self>) -> Submitter<S> {
        self.submitters.fetch_add(1, Ordering::Relaxed);
        Submitter {
            remote: Arc::clone(self),
        }
    }

    /// Whether orders may still come, or have come and are not taken.
    pub(super) fn has_orders_to_come(&self) -> bool {
        // In this order: the last submitter may leave an order behind as it goes.
        self.submitters.load(Ordering::Acquire) > 0 || !self.inbox().orders.is_empty()
    }

    /// Moves all orders to the end of `orders`.
    pub(super) fn take(&self, orders: &mut Vec<Order<S>>) {
        self.from_within.store(false, Ordering::Relaxed);
        orders.append(&mut self.inbox().orders);
    }

    /// The engine ends: what it has not taken is dropped unread.
    pub(super) fn close(&self) {
        let mut inbox = self.inbox();
        inbox.open = false;
        let unread = std::mem::take(&mut inbox.orders);
        // A readback's own drop may submit: not under the lock.
        drop(inbox);
        drop(unread);
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox<S>> {
        // Nothing that runs under the lock can leave the inbox half changed.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Submitter<S> {
    pub(super) fn remote(&self) -> Arc<Remote<S>> {
        Arc::clone(&self.remote)
    }

    fn order(&self, order: Order<S>) -> Result<(), Gone> {
        self.remote.order(order)
    }

    fn new_id(&self) -> RequestId {
        RequestId::remote(self.remote.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn submit_boxed(
        &self,
        request: Request,
        readback: Box<dyn Readback<S> + Send>,
        delay: Duration,
    ) -> Result<RequestId, Gone> {
        let id = self.new_id();
        self.order(Order::Submit {
            id,
            request,
            readback,
            delay,
        })?;
        Ok(id)
    }

    /// Starts a chain: `request`, read by `readback`.
    ///
    /// # Errors
    /// [`Gone`]: the engine was dropped, and `readback` with this call.
    pub fn submit(
        &self,
        request: Request,
        readback: impl FnMut(&mut S, Reply<'_>, &mut Context<'_, S>) -> Next<S> + Send + 'static,
    ) -> Result<RequestId, Gone> {
        self.submit_to(request, readback)
    }

    /// Starts a chain: `request`, read by `readback`.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_to(
        &self,
        request: Request,
        readback: impl Readback<S> + Send + 'static,
    ) -> Result<RequestId, Gone> {
        self.submit_boxed(request, Box::new(readback), Duration::ZERO)
    }

    /// Starts a chain after `delay`, counted from when the engine hears of it.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_after(
        &self,
        delay: Duration,
        request: Request,
        readback: impl FnMut(&mut S, Reply<'_>, &mut Context<'_, S>) -> Next<S> + Send + 'static,
    ) -> Result<RequestId, Gone> {
        self.submit_boxed(request, Box::new(readback), delay)
    }

    /// Starts a chain which begins with a call; see [`Engine::call`](crate::Engine::call). So another thread hands over what it
    /// has, or changes the state.
    ///
    /// ```
    /// use httpstream::{Engine, Next};
    ///
    /// let mut engine = Engine::<String>::new()?;
    /// let submitter = engine.submitter();
    /// let typing = std::thread::spawn(move || {
    ///     submitter.call(|code: &mut String, _| {
    ///         code.push_str("7KXW");
    ///         Next::done()
    ///     })
    /// });
    /// let mut code = String::new();
    /// engine.run(&mut code)?;
    /// assert!(typing.join().unwrap().is_ok());
    /// assert_eq!(code, "7KXW");
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    ///
    /// So a chain is parked that waits for a person: it answers [`Next::done`], what it knew stays in the state, and this begins the next
    /// one. [`Engine::run`](crate::Engine::run) waits meanwhile, as long as the `Submitter` is there.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn call(
        &self,
        f: impl FnOnce(&mut S, &mut Context<'_, S>) -> Next<S> + Send + 'static,
    ) -> Result<RequestId, Gone> {
        self.call_after(Duration::ZERO, f)
    }

    /// [`call`](Self::call) after `delay`, counted from when the engine hears of it.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn call_after(
        &self,
        delay: Duration,
        f: impl FnOnce(&mut S, &mut Context<'_, S>) -> Next<S> + Send + 'static,
    ) -> Result<RequestId, Gone> {
        let id = self.new_id();
        let call = Box::new(f);
        self.order(Order::Call { id, call, delay })?;
        Ok(id)
    }

    /// Ends a chain as [`Engine::cancel`](crate::Engine::cancel) does, if it is not over when the engine hears of it.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn cancel(&self, id: RequestId) -> Result<(), Gone> {
        self.order(Order::Cancel(id))
    }

    /// Lets a paused exchange go on, if it is paused when the engine hears of it.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn resume(&self, id: RequestId) -> Result<(), Gone> {
        self.order(Order::Resume(id))
    }

    /// Ends [`Engine::run`](crate::Engine::run) after the turn that hears of it.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn stop(&self) -> Result<(), Gone> {
        self.order(Order::Stop)
    }
}

impl<S> Clone for Submitter<S> {
    fn clone(&self) -> Self {
        self.remote.submitter()
    }
}

impl<S> Drop for Submitter<S> {
    fn drop(&mut self) {
        let is_last = self.remote.submitters.fetch_sub(1, Ordering::AcqRel) == 1;
        if is_last && !self.remote.is_turning_here() {
            // `run` may wait for nothing else.
            self.remote.wake.wake();
        }
    }
}

impl<S> fmt::Debug for Submitter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Submitter")
    }
}
