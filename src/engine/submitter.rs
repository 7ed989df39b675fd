//! Submitter: reaches an engine from other threads.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use crate::engine::readback::{Context, Next, Readback, ReadbackFn};
use crate::engine::waking::Waking;
use crate::error::{Gone, SubmitError};
use crate::id::ChainId;
use crate::proto::Origin;
use crate::request::Request;

/// Submits to an engine from any thread. Each call wakes the engine's loop. Clones submit to the
/// same engine.
///
/// Readbacks run on the engine's thread. A `Submitter` does not keep
/// [`Engine::run`](crate::Engine::run) going, which returns when nothing is pending. If another
/// thread is to find the engine running, hold a guard from [`keep_alive`](Self::keep_alive).
///
/// # An engine that does not keep up
/// Submissions wait in an inbox until a turn takes them. The inbox holds
/// [`Config::max_inbox`](crate::Config::max_inbox) submissions and calls. When it is full,
/// `submit`, `call`, `spawn` and their variants return [`SubmitError::Full`], which gives their
/// arguments back. The futures of [`fetch`](Self::fetch), [`sleep`](Self::sleep) and
/// [`with`](Self::with) wait for room. `cancel`, `resume` and `stop` are never refused. Neither are
/// the submissions of a task or readback inside a turn of the same engine, because room becomes
/// available only after that turn.
///
/// ```
/// use httpstream::{Engine, Next, Request};
///
/// let mut engine = Engine::<u32>::new()?;
/// let submitter = engine.submitter();
/// let alive = submitter.keep_alive();
/// let worker = std::thread::spawn(move || {
///     let _alive = alive;
///     let request = Request::get("http://127.0.0.1:1/").build().unwrap();
///     submitter.submit(request, |failures, reply, _| {
///         *failures += u32::from(reply.is_err());
///         Next::done()
///     })
/// });
/// let mut failures = 0;
/// engine.run(&mut failures)?; // until the worker has dropped its guard and its chain is over
/// assert!(worker.join().unwrap().is_ok());
/// assert_eq!(failures, 1);
/// # Ok::<(), httpstream::Error>(())
/// ```
pub struct Submitter<S> {
    remote: Arc<Remote<S>>,
}

/// The state that a [`Submitter`] shares with its engine.
pub(crate) struct Remote<S> {
    inbox: Mutex<Inbox<S>>,
    waking: Arc<Waking>,
    kept: Arc<Kept>,
    last_id: AtomicU64,
    /// The number of submissions that the inbox holds.
    max_inbox: usize,
    /// Whether the configuration has a policy for all requests.
    has_policy: bool,
}

/// Counts the guards that keep an engine running.
struct Kept {
    guards: AtomicUsize,
    waking: Arc<Waking>,
}

/// Keeps [`Engine::run`](crate::Engine::run) and its variants from returning when nothing is
/// pending; created by [`Submitter::keep_alive`]. Its holder may submit at any time. [`stop`] and
/// [`drain`](crate::Engine::drain) end a run nevertheless.
///
/// ```
/// use std::time::Duration;
/// use httpstream::{Engine, Next};
///
/// let mut engine = Engine::<u32>::new()?;
/// let submitter = engine.submitter();
/// let alive = submitter.keep_alive();
/// std::thread::spawn(move || {
///     std::thread::sleep(Duration::from_millis(5));
///     let _ = submitter.call(|calls, _| {
///         *calls += 1;
///         Next::done()
///     });
///     drop(alive);
/// });
/// let mut calls = 0;
/// engine.run(&mut calls)?; // waits for the other thread
/// assert_eq!(calls, 1);
/// # Ok::<(), httpstream::Error>(())
/// ```
///
/// [`stop`]: Submitter::stop
#[must_use = "the engine is kept running only as long as this guard exists"]
pub struct KeepAlive(Arc<Kept>);

impl KeepAlive {
    fn new(kept: &Arc<Kept>) -> Self {
        kept.guards.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(kept))
    }
}

impl Clone for KeepAlive {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        let is_last = self.0.guards.fetch_sub(1, Ordering::AcqRel) == 1;
        if is_last {
            // This guard may have been the last thing that `run` was waiting for.
            self.0.waking.announce();
        }
    }
}

impl fmt::Debug for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeepAlive")
    }
}

struct Inbox<S> {
    /// In order of arrival, so that no order overtakes the submission that it refers to.
    orders: VecDeque<Order<S>>,
    /// The number of orders that take room.
    submissions: usize,
    open: bool,
    /// The wakers of futures that wait for room, by ticket: first come, first served.
    waiting: BTreeMap<u64, Waker>,
    last_ticket: u64,
}

/// The capacity above which the memory of an empty order queue is released.
const KEPT_ORDERS: usize = 4096;

/// A place in the line of futures that wait for room in an inbox. It keeps the engine running,
/// because its holder is about to submit.
#[derive(Debug)]
pub(super) struct Ticket {
    number: u64,
    _alive: KeepAlive,
}

/// A message to the engine from a [`Submitter`] or a future.
pub(crate) enum Order<S> {
    Submit {
        id: ChainId,
        request: Request,
        readback: Box<dyn Readback<S> + Send>,
        delay: Duration,
    },
    Call {
        id: ChainId,
        call: SendCall<S>,
        delay: Duration,
    },
    Preconnect(Origin),
    Cancel(ChainId),
    Resume(ChainId),
    Stop,
}

impl<S> Order<S> {
    /// Returns whether the order takes room in the inbox, and may therefore be refused.
    fn takes_room(&self) -> bool {
        matches!(
            self,
            Order::Submit { .. } | Order::Call { .. } | Order::Preconnect(_)
        )
    }

    /// Returns whether the order has no effect if the engine takes it together with `before`.
    fn repeats(&self, before: &Self) -> bool {
        match (self, before) {
            (Order::Stop, Order::Stop) => true,
            (Order::Preconnect(origin), Order::Preconnect(before)) => origin == before,
            (Order::Resume(id), Order::Resume(before))
            | (Order::Cancel(id), Order::Cancel(before)) => id == before,
            _ => false,
        }
    }
}

/// A [`Call`](crate::engine::readback::Call) that can be sent to another thread.
pub(crate) type SendCall<S> = Box<dyn FnOnce(&mut S, &mut Context<'_, S>) -> Next<S> + Send>;

impl<S> Remote<S> {
    pub(super) fn new(waking: Arc<Waking>, max_inbox: usize, has_policy: bool) -> Self {
        Self {
            inbox: Mutex::new(Inbox {
                orders: VecDeque::new(),
                submissions: 0,
                open: true,
                waiting: BTreeMap::new(),
                last_ticket: 0,
            }),
            kept: Arc::new(Kept {
                guards: AtomicUsize::new(0),
                waking: Arc::clone(&waking),
            }),
            waking,
            last_id: AtomicU64::new(0),
            max_inbox,
            has_policy,
        }
    }

    /// Puts the order that `make` creates from `given` into the inbox, or returns `given` if there
    /// is no room.
    pub(super) fn admit<T>(
        &self,
        given: T,
        make: impl FnOnce(T) -> Order<S>,
    ) -> Result<(), SubmitError<T>> {
        let inbox = self.inbox();
        match (inbox.open, self.has_room(&inbox)) {
            (false, _) => Err(SubmitError::Gone(given)),
            (true, false) => Err(SubmitError::Full(given)),
            (true, true) => {
                self.push(inbox, make(given));
                Ok(())
            }
        }
    }

    /// Does what [`admit`](Self::admit) does, for futures, which can wait: if there is no room,
    /// `waker` is woken when there may be some. The ticket keeps the future's place in the line. It
    /// must be [given up](Self::give_up) if the future is dropped before its order was admitted.
    pub(super) fn admit_or_wait(
        &self,
        order: Order<S>,
        waker: &Waker,
        ticket: &mut Option<Ticket>,
    ) -> Result<(), SubmitError<Order<S>>> {
        let mut inbox = self.inbox();
        if !inbox.open {
            return Err(SubmitError::Gone(order));
        }
        if self.has_room(&inbox) {
            let ticket = ticket.take();
            let former = ticket
                .as_ref()
                .and_then(|at| inbox.waiting.remove(&at.number));
            self.push(inbox, order);
            // The lock is released first, as everywhere in this module, because dropping a waker
            // may run an executor's code.
            drop((former, ticket));
            return Ok(());
        }
        let ticket = ticket.get_or_insert_with(|| {
            inbox.last_ticket += 1;
            Ticket {
                number: inbox.last_ticket,
                _alive: KeepAlive::new(&self.kept),
            }
        });
        let former = inbox.waiting.insert(ticket.number, waker.clone());
        drop(inbox);
        drop(former);
        Err(SubmitError::Full(order))
    }

    /// Gives up a place in the line. If its waker has already been woken, the room is offered to
    /// the next in line.
    pub(super) fn give_up(&self, ticket: Ticket) {
        let mut inbox = self.inbox();
        let own = inbox.waiting.remove(&ticket.number);
        let next = if own.is_none() && self.has_room(&inbox) {
            inbox.waiting.pop_first()
        } else {
            None
        };
        drop(inbox);
        drop(own);
        next.into_iter().for_each(|(_, waker)| waker.wake());
    }

    fn has_room(&self, inbox: &Inbox<S>) -> bool {
        // A turn that waited for room would wait for itself.
        inbox.submissions < self.max_inbox || self.waking.is_turning_here()
    }

    /// Returns whether a policy visits the request.
    pub(super) fn is_visited(&self, request: &Request) -> bool {
        self.has_policy || request.policies().is_some()
    }

    /// Returns an id for a chain that has no slot yet.
    pub(super) fn new_id(&self) -> ChainId {
        ChainId::remote(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(super) fn is_open(&self) -> bool {
        self.inbox().open
    }

    /// Sends the engine an order that is never refused, and wakes the engine unless it is awake.
    pub(super) fn order(&self, order: Order<S>) -> Result<(), Gone> {
        let inbox = self.inbox();
        if !inbox.open {
            return Err(Gone);
        }
        // Repeating an order while the engine is busy takes no memory.
        if !inbox.orders.back().is_some_and(|last| order.repeats(last)) {
            self.push(inbox, order);
        }
        Ok(())
    }

    fn push(&self, mut inbox: MutexGuard<'_, Inbox<S>>, order: Order<S>) {
        let first = inbox.orders.is_empty();
        inbox.submissions += usize::from(order.takes_room());
        inbox.orders.push_back(order);
        drop(inbox);
        // The wakeup for the first order covers all later ones: the engine takes them all, in the
        // next turn or in later turns, which are then due without a wakeup.
        if first {
            self.waking.announce();
        }
    }

    pub(super) fn submitter(self: &Arc<Self>) -> Submitter<S> {
        Submitter {
            remote: Arc::clone(self),
        }
    }

    /// Returns whether a guard keeps the engine running, or orders wait in the inbox.
    pub(super) fn has_orders_to_come(&self) -> bool {
        // Guards are checked first, because the holder of the last guard may submit an order just
        // before it drops the guard.
        self.kept.guards.load(Ordering::Acquire) > 0 || !self.inbox().orders.is_empty()
    }

    /// Moves the first `most` orders to the end of `orders`, and wakes the futures for which there
    /// may now be room.
    pub(super) fn take(&self, orders: &mut Vec<Order<S>>, most: usize) {
        let mut inbox = self.inbox();
        let taken = most.min(inbox.orders.len());
        orders.extend(inbox.orders.drain(..taken));
        let freed = orders.iter().rev().take(taken);
        let freed = freed.filter(|order| order.takes_room()).count();
        inbox.submissions -= freed;
        let is_empty = inbox.orders.is_empty();
        self.waking.set_unannounced(!is_empty);
        let outgrown = if is_empty && inbox.orders.capacity() > KEPT_ORDERS {
            std::mem::take(&mut inbox.orders)
        } else {
            VecDeque::new()
        };
        // Each free place is offered once, so a turn wakes no more futures than it took
        // submissions. A future that is dropped after it was woken passes the offer on.
        let room = self.max_inbox.saturating_sub(inbox.submissions);
        let called: Vec<_> = std::iter::from_fn(|| inbox.waiting.pop_first())
            .take(freed.min(room))
            .collect();
        drop(inbox);
        drop(outgrown);
        called.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Closes the inbox when the engine is dropped. Orders that are still in it are dropped.
    pub(super) fn close(&self) {
        let mut inbox = self.inbox();
        inbox.open = false;
        let unread = std::mem::take(&mut inbox.orders);
        let waiting = std::mem::take(&mut inbox.waiting);
        // A readback's destructor may submit, which takes the lock.
        drop(inbox);
        drop(unread);
        waiting.into_values().for_each(Waker::wake);
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox<S>> {
        // A poisoned lock is harmless: nothing that runs under it can leave the inbox half changed.
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

    pub(super) fn new_id(&self) -> ChainId {
        self.remote.new_id()
    }

    /// Returns a guard that keeps [`Engine::run`](crate::Engine::run) waiting for submissions as
    /// long as the guard or one of its clones exists.
    pub fn keep_alive(&self) -> KeepAlive {
        KeepAlive::new(&self.remote.kept)
    }

    /// Starts a chain that sends `request`; `readback` reads the response.
    ///
    /// # Errors
    /// [`SubmitError::Full`] and [`SubmitError::Gone`], each with `request` and `readback`.
    pub fn submit<R>(
        &self,
        request: Request,
        readback: R,
    ) -> Result<ChainId, SubmitError<(Request, R)>>
    where
        R: ReadbackFn<S> + Send + 'static,
    {
        self.submit_to(request, readback)
    }

    /// Opens a connection to `origin`, for the next request; see
    /// [`Engine::preconnect`](crate::Engine::preconnect).
    ///
    /// # Errors
    /// [`SubmitError::Full`] and [`SubmitError::Gone`], each with `origin`.
    pub fn preconnect(&self, origin: Origin) -> Result<(), SubmitError<Origin>> {
        self.remote.admit(origin, Order::Preconnect)
    }

    /// [`submit`](Self::submit) for a type that implements [`Readback`].
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_to<R>(
        &self,
        request: Request,
        readback: R,
    ) -> Result<ChainId, SubmitError<(Request, R)>>
    where
        R: Readback<S> + Send + 'static,
    {
        self.submit_to_after(Duration::ZERO, request, readback)
    }

    /// [`submit`](Self::submit) after `delay`, counted from when the engine takes the submission.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_after<R>(
        &self,
        delay: Duration,
        request: Request,
        readback: R,
    ) -> Result<ChainId, SubmitError<(Request, R)>>
    where
        R: ReadbackFn<S> + Send + 'static,
    {
        self.submit_to_after(delay, request, readback)
    }

    /// [`submit_after`](Self::submit_after) for a type that implements [`Readback`].
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_to_after<R>(
        &self,
        delay: Duration,
        request: Request,
        readback: R,
    ) -> Result<ChainId, SubmitError<(Request, R)>>
    where
        R: Readback<S> + Send + 'static,
    {
        let id = self.new_id();
        self.remote
            .admit((request, readback), |(request, readback)| Order::Submit {
                id,
                request,
                readback: Box::new(readback),
                delay,
            })?;
        Ok(id)
    }

    /// Starts a chain that begins with a call; see [`Engine::call`](crate::Engine::call). Use it to
    /// hand something over to the engine's thread, or to change the state.
    ///
    /// ```
    /// use httpstream::{Engine, Next};
    ///
    /// let mut engine = Engine::<String>::new()?;
    /// let submitter = engine.submitter();
    /// let alive = submitter.keep_alive();
    /// let typing = std::thread::spawn(move || {
    ///     let _alive = alive;
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
    /// A conversation that waits for a person can be parked in this way: its chain returns
    /// [`Next::done`] and leaves its data in the state, and the call begins the next chain. A guard
    /// from [`keep_alive`](Self::keep_alive) keeps [`Engine::run`](crate::Engine::run) waiting in
    /// the meantime.
    ///
    /// # Errors
    /// [`SubmitError::Full`] and [`SubmitError::Gone`], each with `f`.
    pub fn call<F>(&self, f: F) -> Result<ChainId, SubmitError<F>>
    where
        F: FnOnce(&mut S, &mut Context<'_, S>) -> Next<S> + Send + 'static,
    {
        self.call_after(Duration::ZERO, f)
    }

    /// [`call`](Self::call) after `delay`, counted from when the engine takes the call.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn call_after<F>(&self, delay: Duration, f: F) -> Result<ChainId, SubmitError<F>>
    where
        F: FnOnce(&mut S, &mut Context<'_, S>) -> Next<S> + Send + 'static,
    {
        let id = self.new_id();
        self.remote.admit(f, |f| Order::Call {
            id,
            call: Box::new(f),
            delay,
        })?;
        Ok(id)
    }

    /// Does what [`call`](Self::call) does, with the closure that `make` creates from `given`.
    /// `make` runs only if there is room.
    pub(super) fn call_with<F>(
        &self,
        given: F,
        make: impl FnOnce(F) -> SendCall<S>,
    ) -> Result<ChainId, SubmitError<F>> {
        let id = self.new_id();
        let delay = Duration::ZERO;
        self.remote.admit(given, |given| Order::Call {
            id,
            call: make(given),
            delay,
        })?;
        Ok(id)
    }

    /// Cancels a chain as [`Engine::cancel`](crate::Engine::cancel) does, unless it is over when
    /// the engine takes this order. The engine takes the chain's own submission first.
    ///
    /// # Errors
    /// [`Gone`] if the engine has been dropped.
    pub fn cancel(&self, id: ChainId) -> Result<(), Gone> {
        self.order(Order::Cancel(id))
    }

    /// Resumes a response, if it is paused when the engine takes this order.
    ///
    /// # Errors
    /// As [`cancel`](Self::cancel).
    pub fn resume(&self, id: ChainId) -> Result<(), Gone> {
        self.order(Order::Resume(id))
    }

    /// Makes [`Engine::run`](crate::Engine::run) return after the turn that takes this order.
    ///
    /// # Errors
    /// As [`cancel`](Self::cancel).
    pub fn stop(&self) -> Result<(), Gone> {
        self.order(Order::Stop)
    }

    /// Returns an error if the engine has been dropped.
    pub(crate) fn check_alive(&self) -> Result<(), Gone> {
        self.remote.is_open().then_some(()).ok_or(Gone)
    }
}

impl<S> Clone for Submitter<S> {
    fn clone(&self) -> Self {
        self.remote.submitter()
    }
}

impl<S> fmt::Debug for Submitter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Submitter")
    }
}
