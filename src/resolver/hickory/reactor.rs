//! Tasks, timers and sockets of one resolver, driven by the turns of its engine.
//!
//! hickory is written against an async runtime, and this is one. A task is polled after it was
//! woken, a socket wakes its waiter when the engine's poll reports an event, and a timer fires in
//! the first turn after its deadline. Nothing here blocks, and nothing runs outside
//! [`Reactor::run`], which makes at most [`POLLS`] polls and [`READS`] reads. The remaining work is
//! due in the next turn, after all other work. A large number of lookups or a flood of datagrams
//! therefore neither lengthens a turn nor delays a timer.
//!
//! Objects that hickory holds have to be `Send`, so they find their reactor through the thread they
//! are used on: a [`ReactorId`] identifies it. A timer, which hickory creates without any context,
//! belongs to the reactor whose task is being polled. On a thread without that reactor, every
//! operation fails, and none panics. The same happens while a thread exits, when its reactors may
//! be dropped before the owners of their sockets.
//!
//! No future is polled or dropped, and no task is woken, while anything here is borrowed, because
//! each of them may call back.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake as _, Waker};
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::{Interest, Registry, Token};
use slab::Slab;

use crate::resolver::Wake;

/// Polls per turn. A lookup takes about five polls of seven microseconds on average, so a large
/// number of lookups adds at most two milliseconds to a turn.
const POLLS: usize = 256;

/// Socket reads per turn, for all tasks together. A read that yields only a forged datagram takes
/// two microseconds.
const READS: u32 = 256;

thread_local! {
    /// The reactors of this thread. Each is owned by its resolver.
    static REACTORS: RefCell<BTreeMap<ReactorId, Weak<Reactor>>> = const { RefCell::new(BTreeMap::new()) };
    /// The reactor whose task is being polled.
    static POLLED: Cell<Option<ReactorId>> = const { Cell::new(None) };
}

/// Identifies a reactor within the process. Identifiers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReactorId(u64);

impl ReactorId {
    fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Returns the reactor, if it belongs to this thread and still exists.
    pub(super) fn find(self) -> Option<Rc<Reactor>> {
        REACTORS
            .try_with(|reactors| reactors.borrow().get(&self)?.upgrade())
            .ok()?
    }

    pub(super) fn of_polled_task() -> Option<Self> {
        POLLED.try_with(Cell::get).ok()?
    }
}

/// The error of a socket or timer without a reactor.
pub(super) fn no_reactor() -> io::Error {
    io::Error::other("the resolver has been dropped, or belongs to another thread")
}

/// Identifies a task of a reactor until the task ends.
pub(super) type TaskKey = usize;

pub(super) struct Reactor {
    id: ReactorId,
    registry: Registry,
    /// Tokens in this range are assigned in rotation, so that a late event seldom reaches another
    /// socket with the same token. If it does, the cost is one call that would block.
    tokens: Range<usize>,
    last_offset: Cell<usize>,
    sources: RefCell<HashMap<Token, Directions>>,
    timers: RefCell<BTreeMap<TimerKey, Waker>>,
    /// The deadline of the first timer.
    next_timer: Cell<Option<Instant>>,
    last_timer: Cell<u64>,
    /// An entry is `None` while its task is being polled, and after the task has panicked.
    tasks: RefCell<Slab<Option<Task>>>,
    /// A lookup has finished or was canceled since the background tasks were last woken.
    lookup_ended: Cell<bool>,
    woken: Arc<Woken>,
    /// The reads left in this turn.
    reads: Cell<u32>,
    put_off: RefCell<PutOff>,
    /// The time of the last run.
    now: Cell<Instant>,
}

/// Tasks that continue to read in the next turn.
#[derive(Default)]
struct PutOff {
    /// These have read nothing in this turn, because others had used up its reads. They come first
    /// in the next one.
    unread: Vec<Waker>,
    read: Vec<Waker>,
}

impl PutOff {
    fn is_empty(&self) -> bool {
        self.unread.is_empty() && self.read.is_empty()
    }
}

/// The deadline, and a number that makes the key unique.
type TimerKey = (Instant, u64);

struct Task {
    kind: TaskKind,
    future: Pin<Box<dyn Future<Output = ()>>>,
    signal: Arc<Signal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskKind {
    LookUp,
    /// Communicates with a server on behalf of lookups. It releases the resources of an ended
    /// lookup only when it is next polled, and nothing notifies it. All background tasks are
    /// therefore woken when a lookup ends.
    Background,
}

/// The readiness of a socket in both directions.
#[derive(Debug)]
struct Directions {
    read: Readiness,
    write: Readiness,
}

impl Directions {
    fn get_mut(&mut self, direction: Direction) -> &mut Readiness {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    Read,
    Write,
}

/// The assumed readiness of one direction of a socket. Events are edge-triggered: a socket is
/// assumed to be ready from an event until a call would block.
#[derive(Debug)]
pub(super) enum Readiness {
    /// A call may succeed.
    Ready,
    /// A call would block. Holds the waker of the task that waits for an event.
    Blocked(Option<Waker>),
}

/// The thread that a reactor belongs to, identified by the address of a thread-local variable.
///
/// [`std::thread::current`] would also do. But on a main thread that Rust did not start, it
/// allocates a handle that is never freed, which valgrind reports in every C program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OwnThread(usize);

impl OwnThread {
    fn here() -> Self {
        thread_local! {
            // Not zero-sized, since two zero-sized statics may share an address.
            static PLACE: u8 = const { 0 };
        }
        Self(PLACE.with(|place| std::ptr::from_ref(place).addr()))
    }
}

/// The tasks that have been woken, in order.
struct Woken {
    tasks: Mutex<VecDeque<TaskKey>>,
    /// The number of woken tasks, kept so that the engine can check for them after each call
    /// without taking the lock.
    count: AtomicUsize,
    owner: OwnThread,
    wake: Wake,
}

impl Woken {
    fn new(wake: Wake) -> Self {
        Self {
            tasks: Mutex::default(),
            count: AtomicUsize::new(0),
            owner: OwnThread::here(),
            wake,
        }
    }

    fn push(&self, task: TaskKey) {
        self.change(|tasks| tasks.push_back(task));
        // On its own thread, the engine checks the deadline before it waits.
        if OwnThread::here() != self.owner {
            self.wake.wake();
        }
    }

    fn pop(&self) -> Option<TaskKey> {
        self.change(VecDeque::pop_front)
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    fn change<T>(&self, change: impl FnOnce(&mut VecDeque<TaskKey>) -> T) -> T {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut tasks);
        self.count.store(tasks.len(), Ordering::Release);
        changed
    }
}

/// Wakes one task. A waker left over from a task that has ended may wake the next task with the
/// same key, which is then polled once without need.
struct Signal {
    task: TaskKey,
    given: AtomicBool,
    woken: Arc<Woken>,
}

impl std::task::Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.given.swap(true, Ordering::AcqRel) {
            self.woken.push(self.task);
        }
    }
}

/// Marks a reactor as the one whose task is being polled, until dropped.
struct Polling(Option<ReactorId>);

impl Polling {
    fn begin(reactor: ReactorId) -> Self {
        Self(POLLED.replace(Some(reactor)))
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        POLLED.set(self.0);
    }
}

impl Reactor {
    /// Creates a reactor for this thread, with its sockets on `registry`.
    pub(super) fn new(registry: Registry, tokens: Range<usize>, wake: Wake) -> Rc<Self> {
        let reactor = Rc::new(Self {
            id: ReactorId::next(),
            registry,
            tokens,
            last_offset: Cell::new(0),
            sources: RefCell::default(),
            timers: RefCell::default(),
            next_timer: Cell::new(None),
            last_timer: Cell::new(0),
            tasks: RefCell::default(),
            lookup_ended: Cell::new(false),
            woken: Arc::new(Woken::new(wake)),
            reads: Cell::new(READS),
            put_off: RefCell::default(),
            now: Cell::new(Instant::now()),
        });
        // While the thread exits, the reactor cannot be found, and all lookups fail.
        let _ = REACTORS.try_with(|reactors| {
            let mut reactors = reactors.borrow_mut();
            reactors.insert(reactor.id, Rc::downgrade(&reactor))
        });
        reactor
    }

    pub(super) fn id(&self) -> ReactorId {
        self.id
    }

    // ---- tasks ----

    /// Starts a task. It is first polled in the next run.
    pub(super) fn spawn(
        &self,
        kind: TaskKind,
        future: impl Future<Output = ()> + 'static,
    ) -> TaskKey {
        let future = Box::pin(future);
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let task = entry.key();
        let signal = Arc::new(Signal {
            task,
            given: AtomicBool::new(false),
            woken: Arc::clone(&self.woken),
        });
        signal.wake_by_ref();
        entry.insert(Some(Task {
            kind,
            future,
            signal,
        }));
        task
    }

    /// Cancels a lookup and releases its resources.
    pub(super) fn cancel(&self, task: TaskKey) {
        let ended = self.tasks.borrow_mut().try_remove(task);
        drop(ended);
        self.lookup_ended.set(true);
    }

    /// Cancels all tasks.
    pub(super) fn clear(&self) {
        // Dropping a task may wake another one, but never starts a new one.
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
        drop(self.put_off.take());
    }

    /// Advances to the time `now`: fires the timers that are due, and polls the tasks that were
    /// woken.
    pub(super) fn run(&self, now: Instant) {
        self.now.set(now);
        self.fire_timers(now);
        self.reads.set(READS);
        let PutOff { unread, read } = self.put_off.take();
        for waker in unread.into_iter().chain(read) {
            waker.wake();
        }
        let _polling = Polling::begin(self.id);
        for _ in 0..POLLS {
            if let Some((key, task)) = self.next_woken() {
                self.poll(key, task);
            } else if self.lookup_ended.take() {
                self.wake_background();
            } else {
                break;
            }
        }
    }

    /// Takes the first woken task that still exists.
    fn next_woken(&self) -> Option<(TaskKey, Task)> {
        loop {
            let key = self.woken.pop()?;
            let task = self.tasks.borrow_mut().get_mut(key).and_then(Option::take);
            if let Some(task) = task {
                return Some((key, task));
            }
        }
    }

    fn poll(&self, key: TaskKey, mut task: Task) {
        task.signal.given.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&task.signal));
        match task.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => self.tasks.borrow_mut()[key] = Some(task),
            Poll::Ready(()) => {
                self.tasks.borrow_mut().remove(key);
                if task.kind == TaskKind::LookUp {
                    self.lookup_ended.set(true);
                }
            }
        }
    }

    fn wake_background(&self) {
        let tasks = self.tasks.borrow();
        for task in tasks.iter().filter_map(|(_, task)| task.as_ref()) {
            if task.kind == TaskKind::Background {
                // The waker is our own and only records the task.
                task.signal.wake_by_ref();
            }
        }
    }

    /// Returns when [`run`](Self::run) next has work to do. A time in the past means immediately.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.lookup_ended.get() || !self.woken.is_empty() || !self.put_off.borrow().is_empty() {
            return Some(self.now.get());
        }
        self.next_timer.get()
    }

    // ---- timers ----

    fn fire_timers(&self, now: Instant) {
        let due = self.change_timers(|timers| {
            let later = timers.split_off(&(now, u64::MAX));
            std::mem::replace(timers, later)
        });
        for waker in due.into_values() {
            waker.wake();
        }
    }

    fn arm(&self, at: Instant, waker: &Waker) -> TimerKey {
        self.last_timer.set(self.last_timer.get() + 1);
        let key = (at, self.last_timer.get());
        self.change_timers(|timers| timers.insert(key, waker.clone()));
        key
    }

    /// Returns ready if the timer has fired. Otherwise, the timer will wake `waker`.
    fn poll_timer(&self, key: TimerKey, waker: &Waker) -> Poll<()> {
        match self.timers.borrow_mut().get_mut(&key) {
            None => Poll::Ready(()),
            Some(waiting) => {
                waiting.clone_from(waker);
                Poll::Pending
            }
        }
    }

    fn disarm(&self, key: TimerKey) {
        let disarmed = self.change_timers(|timers| timers.remove(&key));
        drop(disarmed);
    }

    fn change_timers<T>(&self, change: impl FnOnce(&mut BTreeMap<TimerKey, Waker>) -> T) -> T {
        let mut timers = self.timers.borrow_mut();
        let changed = change(&mut timers);
        let first = timers.first_key_value();
        self.next_timer.set(first.map(|((at, _), _)| *at));
        changed
    }

    // ---- sockets ----

    /// Registers `source` with the poll until [`deregister`](Self::deregister).
    pub(super) fn register(
        &self,
        source: &mut impl Source,
        interest: Interest,
        write: Readiness,
    ) -> io::Result<Token> {
        let token = self.next_token()?;
        self.registry.register(source, token, interest)?;
        let directions = Directions {
            read: Readiness::Blocked(None),
            write,
        };
        self.sources.borrow_mut().insert(token, directions);
        Ok(token)
    }

    /// Undoes `register`. Must be called before the socket is closed.
    pub(super) fn deregister(&self, source: &mut impl Source, token: Token) {
        // Fails only if the source is not registered.
        let _ = self.registry.deregister(source);
        let forgotten = self.sources.borrow_mut().remove(&token);
        drop(forgotten);
    }

    fn next_token(&self) -> io::Result<Token> {
        let sources = self.sources.borrow();
        if sources.len() >= self.tokens.len() {
            let why = "all tokens of the resolver are in use";
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, why));
        }
        loop {
            self.last_offset
                .set((self.last_offset.get() + 1) % self.tokens.len());
            let token = Token(self.tokens.start + self.last_offset.get());
            if !sources.contains_key(&token) {
                return Ok(token);
            }
        }
    }

    /// Handles an event for `token`. Both directions are assumed to be ready; calls will show which
    /// one is.
    pub(super) fn on_event(&self, token: Token) {
        let mut sources = self.sources.borrow_mut();
        // No entry means that the event is stale.
        let Some(directions) = sources.get_mut(&token) else {
            return;
        };
        let before = [Direction::Read, Direction::Write]
            .map(|direction| std::mem::replace(directions.get_mut(direction), Readiness::Ready));
        drop(sources);
        for readiness in before {
            if let Readiness::Blocked(Some(waker)) = readiness {
                waker.wake();
            }
        }
    }

    /// Takes one of the turn's reads. Returns `false` if none is left; `waker` is then woken in the
    /// next turn.
    pub(super) fn may_read(&self, waker: &Waker) -> bool {
        match self.reads.get().checked_sub(1) {
            Some(left) => {
                self.reads.set(left);
                true
            }
            None => {
                self.put_off.borrow_mut().unread.push(waker.clone());
                false
            }
        }
    }

    /// Wakes `waker` in the next turn, because its task has used up its share of reads in this one.
    pub(super) fn put_off(&self, waker: &Waker) {
        self.put_off.borrow_mut().read.push(waker.clone());
    }

    /// Makes a call on a socket once the socket is ready for it.
    pub(super) fn poll_io<T>(
        &self,
        token: Token,
        direction: Direction,
        cx: &mut Context<'_>,
        mut call: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            if self.is_blocked(token, direction, cx.waker()) {
                return Poll::Pending;
            }
            match call() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.on_blocked(token, direction);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Returns whether a call would block. If so, `waker` is woken when that may have changed.
    fn is_blocked(&self, token: Token, direction: Direction, waker: &Waker) -> bool {
        let mut sources = self.sources.borrow_mut();
        let Some(directions) = sources.get_mut(&token) else {
            return false;
        };
        match directions.get_mut(direction) {
            Readiness::Ready => false,
            Readiness::Blocked(waiting) => {
                let before = waiting.replace(waker.clone());
                drop(sources);
                drop(before);
                true
            }
        }
    }

    fn on_blocked(&self, token: Token, direction: Direction) {
        if let Some(directions) = self.sources.borrow_mut().get_mut(&token) {
            *directions.get_mut(direction) = Readiness::Blocked(None);
        }
    }

    /// Returns the number of tasks, timers and sockets.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            tasks: self.tasks.borrow().len(),
            timers: self.timers.borrow().len(),
            sockets: self.sources.borrow().len(),
        }
    }
}

/// The numbers of objects in a reactor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) tasks: usize,
    pub(super) timers: usize,
    pub(super) sockets: usize,
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("id", &self.id)
            .field("counts", &self.counts())
            .finish()
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        // While the thread exits, the table may already be gone.
        let _ = REACTORS.try_with(|reactors| reactors.borrow_mut().remove(&self.id));
    }
}

/// Completes after a duration. Without a reactor it completes at once; this does not happen in
/// practice, since hickory creates timers only inside tasks.
#[derive(Debug)]
pub(super) struct Sleep {
    reactor: Option<ReactorId>,
    state: SleepState,
}

#[derive(Debug)]
enum SleepState {
    /// Not polled yet. `None` if the deadline is beyond the range of `Instant`.
    Until(Option<Instant>),
    Armed(TimerKey),
    Over,
}

impl Sleep {
    /// Creates a timer for the task that is being polled.
    pub(super) fn new(duration: Duration) -> Self {
        Self {
            reactor: ReactorId::of_polled_task(),
            state: SleepState::Until(Instant::now().checked_add(duration)),
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(reactor) = self.reactor.and_then(ReactorId::find) else {
            return Poll::Ready(());
        };
        match self.state {
            SleepState::Until(None) => Poll::Pending,
            SleepState::Until(Some(at)) => {
                self.state = SleepState::Armed(reactor.arm(at, cx.waker()));
                Poll::Pending
            }
            SleepState::Armed(key) => {
                let poll = reactor.poll_timer(key, cx.waker());
                if poll.is_ready() {
                    self.state = SleepState::Over;
                }
                poll
            }
            SleepState::Over => Poll::Ready(()),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let (SleepState::Armed(key), Some(reactor)) =
            (&self.state, self.reactor.and_then(ReactorId::find))
        {
            reactor.disarm(*key);
        }
    }
}

/// Returns the output of `future`, or `None` if it does not complete within `duration`.
pub(super) async fn within<F: Future>(duration: Duration, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut sleep = std::pin::pin!(Sleep::new(duration));
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
    })
    .await
}
