//! Submitter: the way into an engine from other threads.

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
use crate::request::Request;

/// Submits from any thread; each call wakes the engine's loop. Clones go to the same engine.
///
/// Readbacks run on the engine's thread. [`Engine::run`](crate::Engine::run) returns when nothing
/// is pending, whoever has a `Submitter`; where another thread is to find it running, a guard from
/// [`keep_alive`](Self::keep_alive) keeps it so.
///
/// # An engine that does not keep up
/// What is submitted waits in an inbox until a turn takes it, and the inbox holds
/// [`Config::max_inbox`](crate::Config::max_inbox) submissions and calls. Beyond it `submit`,
/// `call`, `spawn` and their kin are refused with [`SubmitError::Full`], which gives back what it
/// was given; the futures of [`fetch`](Self::fetch), [`sleep`](Self::sleep) and
/// [`with`](Self::with) wait for room. Refused never: `cancel`, `resume`, `stop`, and what a task
/// or readback submits from inside a turn of this engine, which could wait for nobody but itself.
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
/// engine.run(&mut failures)?; // until the worker has dropped its guard and the request is answered
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
    waking: Arc<Waking>,
    kept: Arc<Kept>,
    last_id: AtomicU64,
    /// So many submissions fit.
    max_inbox: usize,
    /// The configuration has a policy for all requests.
    has_policy: bool,
}

/// Who keeps an engine running.
struct Kept {
    guards: AtomicUsize,
    waking: Arc<Waking>,
}

/// Keeps [`Engine::run`](crate::Engine::run) and its kin from returning for want of anything to do;
/// from [`Submitter::keep_alive`]. Whoever has one may submit when it pleases. [`stop`] and
/// [`drain`](crate::Engine::drain) end a run all the same.
///
/// [`stop`]: Submitter::stop
#[must_use = "the engine is kept running for as long as this is there"]
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
            // `run` may wait for nothing else.
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
    /// In the order in which they came, so that nothing overtakes the submission that it is about.
    orders: VecDeque<Order<S>>,
    /// How many of them take room.
    submissions: usize,
    open: bool,
    /// Who waits for room, by tickets, first come first served.
    waiting: BTreeMap<u64, Waker>,
    last_ticket: u64,
}

/// A longer queue of orders is given back when it is empty.
const KEPT_ORDERS: usize = 4096;

/// A place in the line of those who wait for room in an inbox. Whoever has one is about to submit,
/// and keeps the engine running.
#[derive(Debug)]
pub(super) struct Ticket {
    number: u64,
    _alive: KeepAlive,
}

/// What came from another thread.
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
    Cancel(ChainId),
    Resume(ChainId),
    Stop,
}

impl<S> Order<S> {
    /// Whether it may be refused.
    fn takes_room(&self) -> bool {
        matches!(self, Order::Submit { .. } | Order::Call { .. })
    }

    /// Whether nothing is left of it for an engine that takes it together with `before`.
    fn repeats(&self, before: &Self) -> bool {
        match (self, before) {
            (Order::Stop, Order::Stop) => true,
            (Order::Resume(id), Order::Resume(before))
            | (Order::Cancel(id), Order::Cancel(before)) => id == before,
            _ => false,
        }
    }
}

/// A [`Call`](crate::engine::readback::Call) that can be handed to another thread.
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

    /// Gives what takes room, made by `make` of what is `given`, unless there is none.
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

    /// As [`admit`](Self::admit) for who can wait: without room, `waker` is woken when there may be
    /// some. The ticket keeps his place in the line; it is to be [given up](Self::give_up) if he
    /// goes before he was admitted.
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
            // Not under the lock, as everywhere: dropping it may run an executor's code.
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

    /// Gives up a place in the line. Whoever was called goes, and the room that he was called for
    /// is the next one's.
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
        // Who is inside a turn would wait for himself.
        inbox.submissions < self.max_inbox || self.waking.is_turning_here()
    }

    /// Whether a policy sees to a request.
    pub(super) fn is_visited(&self, request: &Request) -> bool {
        self.has_policy || request.policies().is_some()
    }

    /// The id of a chain that has no slot yet.
    pub(super) fn new_id(&self) -> ChainId {
        ChainId::remote(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(super) fn is_open(&self) -> bool {
        self.inbox().open
    }

    /// Gives an order that is never refused, and wakes the engine, unless it is awake.
    pub(super) fn order(&self, order: Order<S>) -> Result<(), Gone> {
        let inbox = self.inbox();
        if !inbox.open {
            return Err(Gone);
        }
        // Who asks again and again while the engine is busy takes no room for it.
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
        // Those behind the first are covered by what it does: the engine takes all of them, in this
        // turn or in those that follow by themselves.
        if first {
            self.waking.announce();
        }
    }

    pub(super) fn submitter(self: &Arc<Self>) -> Submitter<S> {
        Submitter {
            remote: Arc::clone(self),
        }
    }

    /// Whether somebody keeps the engine running, or orders have come and are not taken.
    pub(super) fn has_orders_to_come(&self) -> bool {
        // In this order: the last guard may leave an order behind as it goes.
        self.kept.guards.load(Ordering::Acquire) > 0 || !self.inbox().orders.is_empty()
    }

    /// Moves `most` orders, the first ones, to the end of `orders`, and calls those who wait for
    /// the room.
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
        // Each room that comes free is offered once, so that no turn wakes more than it takes. Who
        // is called and goes without using it passes the call on.
        let room = self.max_inbox.saturating_sub(inbox.submissions);
        let called: Vec<_> = std::iter::from_fn(|| inbox.waiting.pop_first())
            .take(freed.min(room))
            .collect();
        drop(inbox);
        drop(outgrown);
        called.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// The engine ends: what it has not taken is dropped unread.
    pub(super) fn close(&self) {
        let mut inbox = self.inbox();
        inbox.open = false;
        let unread = std::mem::take(&mut inbox.orders);
        let waiting = std::mem::take(&mut inbox.waiting);
        // A readback's own drop may submit: not under the lock.
        drop(inbox);
        drop(unread);
        waiting.into_values().for_each(Waker::wake);
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

    pub(super) fn new_id(&self) -> ChainId {
        self.remote.new_id()
    }

    /// Has [`Engine::run`](crate::Engine::run) wait for what may still be submitted, for as long as
    /// the guard, or a clone of it, is there.
    pub fn keep_alive(&self) -> KeepAlive {
        KeepAlive::new(&self.remote.kept)
    }

    /// Starts a chain: `request`, read by `readback`.
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

    /// Starts a chain: `request`, read by `readback`.
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

    /// Starts a chain after `delay`, counted from when the engine hears of it.
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

    /// [`submit_after`](Self::submit_after) for a [`Readback`] that wants to see more than the
    /// reply.
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

    /// Starts a chain which begins with a call; see [`Engine::call`](crate::Engine::call). So
    /// another thread hands over what it has, or changes the state.
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
    /// So a chain is parked that waits for a person: it returns [`Next::done`], what it knew stays
    /// in the state, and this begins the next one. A guard from [`keep_alive`](Self::keep_alive)
    /// has [`Engine::run`](crate::Engine::run) wait meanwhile.
    ///
    /// # Errors
    /// [`SubmitError::Full`] and [`SubmitError::Gone`], each with `f`.
    pub fn call<F>(&self, f: F) -> Result<ChainId, SubmitError<F>>
    where
        F: FnOnce(&mut S, &mut Context<'_, S>) -> Next<S> + Send + 'static,
    {
        self.call_after(Duration::ZERO, f)
    }

    /// [`call`](Self::call) after `delay`, counted from when the engine hears of it.
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

    /// [`call`](Self::call) of what `make` makes of what is `given`, once there is room for it.
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

    /// Ends a chain as [`Engine::cancel`](crate::Engine::cancel) does, if it is not over when the
    /// engine hears of it, which is after the chain's own submission.
    ///
    /// # Errors
    /// [`Gone`]: the engine is dropped.
    pub fn cancel(&self, id: ChainId) -> Result<(), Gone> {
        self.order(Order::Cancel(id))
    }

    /// Lets a paused exchange go on, if it is paused when the engine hears of it.
    ///
    /// # Errors
    /// As [`cancel`](Self::cancel).
    pub fn resume(&self, id: ChainId) -> Result<(), Gone> {
        self.order(Order::Resume(id))
    }

    /// Ends [`Engine::run`](crate::Engine::run) after the turn that hears of it.
    ///
    /// # Errors
    /// As [`cancel`](Self::cancel).
    pub fn stop(&self) -> Result<(), Gone> {
        self.order(Order::Stop)
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
