//! Tasks, timers and sockets of one resolver, moved on by the turns of its engine.
//!
//! hickory is written against a runtime, and this is one: a task is polled when it was woken, a
//! socket wakes who waits for it when the engine's poll tells of it, a timer when a turn comes
//! after its time. Nothing here waits, and nothing runs but in [`Reactor::run`], at most [`POLLS`]
//! tasks and [`READS`] reads at a time: what is left is due at once, in the next turn, behind
//! everybody else's work. So neither a herd of look-ups nor a flood of datagrams makes a turn
//! longer, or holds back a timer.
//!
//! What hickory holds of it has to be `Send` and finds its reactor through the thread it is used
//! on: [`ReactorId`] names one, and a timer, which hickory makes out of nothing, belongs to the one
//! whose task is being polled. Used on a thread where there is no such reactor, everything fails,
//! and nothing panics; so also while a thread ends, when its reactors may be gone before those who
//! hold their sockets.
//!
//! No future is polled or dropped and no task is woken while anything here is borrowed: each of
//! them may call back.

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

/// Polls in one turn. A look-up takes about five, of seven microseconds each in the mean: so a herd
/// of them costs the others two milliseconds a turn.
const POLLS: usize = 256;

/// Reads from sockets in one turn, of all tasks together. One that brings nothing but a forged
/// datagram takes two microseconds.
const READS: u32 = 256;

thread_local! {
    /// The reactors of this thread. Each belongs to its resolver.
    static REACTORS: RefCell<BTreeMap<ReactorId, Weak<Reactor>>> = const { RefCell::new(BTreeMap::new()) };
    /// Whose task is being polled.
    static POLLED: Cell<Option<ReactorId>> = const { Cell::new(None) };
}

/// Names a reactor among all of this process. Never given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReactorId(u64);

impl ReactorId {
    fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The reactor, where it is one of this thread and is still there.
    pub(super) fn find(self) -> Option<Rc<Reactor>> {
        REACTORS
            .try_with(|reactors| reactors.borrow().get(&self)?.upgrade())
            .ok()?
    }

    pub(super) fn of_polled_task() -> Option<Self> {
        POLLED.try_with(Cell::get).ok()?
    }
}

/// Why a socket or a timer cannot be had.
pub(super) fn no_reactor() -> io::Error {
    io::Error::other("the resolver is gone, or belongs to another thread")
}

/// Names a task of a reactor until it ends.
pub(super) type TaskKey = usize;

pub(super) struct Reactor {
    id: ReactorId,
    registry: Registry,
    /// Offsets of tokens in this range are given out in turn, so that a late event seldom finds
    /// another socket under its token; one that does costs a call that would block.
    tokens: Range<usize>,
    last_offset: Cell<usize>,
    sources: RefCell<HashMap<Token, Directions>>,
    timers: RefCell<BTreeMap<TimerKey, Waker>>,
    /// When the first of them goes off.
    next_timer: Cell<Option<Instant>>,
    last_timer: Cell<u64>,
    /// `None`: is being polled, or has panicked.
    tasks: RefCell<Slab<Option<Task>>>,
    /// A look-up has ended, one way or the other, since the background tasks were last woken.
    lookup_ended: Cell<bool>,
    woken: Arc<Woken>,
    /// Reads that are left in this turn.
    reads: Cell<u32>,
    put_off: RefCell<PutOff>,
    /// The time of the last run.
    now: Cell<Instant>,
}

/// Who goes on reading in the next turn.
#[derive(Default)]
struct PutOff {
    /// They have read nothing in this turn, since others had used it up: they come first in the
    /// next.
    unread: Vec<Waker>,
    read: Vec<Waker>,
}

impl PutOff {
    fn is_empty(&self) -> bool {
        self.unread.is_empty() && self.read.is_empty()
    }
}

/// When, and which of those.
type TimerKey = (Instant, u64);

struct Task {
    kind: TaskKind,
    future: Pin<Box<dyn Future<Output = ()>>>,
    signal: Arc<Signal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskKind {
    LookUp,
    /// Speaks to a server on behalf of look-ups. It frees what it holds for one that has ended when
    /// it is next polled, and nobody tells it: so all of these are woken then.
    Background,
}

/// Both directions of a socket.
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

/// What is believed of one direction of a socket. Events are edges: an arrival is told once, and
/// believed until a call refutes it.
#[derive(Debug)]
pub(super) enum Readiness {
    /// A call may succeed.
    Ready,
    /// A call would block; and who waits for that to change.
    Blocked(Option<Waker>),
}

/// The thread that a reactor belongs to, by the address of a thread-local variable.
///
/// [`std::thread::current`] would do, but on a thread that Rust did not start it allocates a handle
/// that is never freed on the main thread: valgrind reports it in every C program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OwnThread(usize);

impl OwnThread {
    fn here() -> Self {
        thread_local! {
            // Not of size zero: two of those may share an address.
            static PLACE: u8 = const { 0 };
        }
        Self(PLACE.with(|place| std::ptr::from_ref(place).addr()))
    }
}

/// Tasks that were woken, in that order.
struct Woken {
    tasks: Mutex<VecDeque<TaskKey>>,
    /// How many: the engine asks after each call whether there are any, and is spared the lock.
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
        // On its own thread, the engine asks for the deadline before it waits.
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

/// Wakes one task. One left over from a task that has ended may wake the next under its key, which
/// is polled once for nothing.
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

/// Marks a reactor as the one being polled, until dropped.
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
    /// A reactor for this thread, with sockets on `registry`.
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
        // Where the thread is at its end, nothing finds it, and all look-ups fail.
        let _ = REACTORS.try_with(|reactors| {
            let mut reactors = reactors.borrow_mut();
            reactors.insert(reactor.id, Rc::downgrade(&reactor))
        });
        reactor
    }

    pub(super) fn id(&self) -> ReactorId {
        self.id
    }

    // ---- tasks
    // ---------------------------------------------------------------------------------------------------------

    /// Begins a task: it is polled in the next run.
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

    /// Ends a look-up where it is, and frees what it holds.
    pub(super) fn cancel(&self, task: TaskKey) {
        let ended = self.tasks.borrow_mut().try_remove(task);
        drop(ended);
        self.lookup_ended.set(true);
    }

    /// Ends all tasks.
    pub(super) fn clear(&self) {
        // What one task drops may wake another, or be the last that another waits for: none of them
        // begins a new one.
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
        drop(self.put_off.take());
    }

    /// The time is `now`: wakes whose time has come, and polls who was woken.
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

    /// Takes the first task that was woken and has not ended since.
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
                // Our own, which does no more than to note it.
                task.signal.wake_by_ref();
            }
        }
    }

    /// When [`run`](Self::run) has something to do; in the past: at once.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.lookup_ended.get() || !self.woken.is_empty() || !self.put_off.borrow().is_empty() {
            return Some(self.now.get());
        }
        self.next_timer.get()
    }

    // ---- timers
    // --------------------------------------------------------------------------------------------------------

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

    /// Whether the timer has gone off. If not, it will wake `waker`.
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

    // ---- sockets
    // -------------------------------------------------------------------------------------------------------

    /// Watches `source` until [`deregister`](Self::deregister).
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

    /// Ends `register`; must come before the socket is closed.
    pub(super) fn deregister(&self, source: &mut impl Source, token: Token) {
        // Fails only for a source that is not registered.
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

    /// The poll has told of `token`. Which way it is ready, calls will show.
    pub(super) fn on_event(&self, token: Token) {
        let mut sources = self.sources.borrow_mut();
        // None: the event is stale.
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

    /// Takes one of the turn's reads. `false`: there are none left, and `waker` is woken in the
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

    /// Wakes `waker`, which has read its part of this turn, in the next.
    pub(super) fn put_off(&self, waker: &Waker) {
        self.put_off.borrow_mut().read.push(waker.clone());
    }

    /// Makes a call on a socket when it is ready for it.
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

    /// Whether a call would block. If so, `waker` is woken when it might no longer.
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

    /// How many tasks, timers and sockets there are.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            tasks: self.tasks.borrow().len(),
            timers: self.timers.borrow().len(),
            sockets: self.sources.borrow().len(),
        }
    }
}

/// What a reactor holds.
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
        // The thread may be at its end, and its table gone.
        let _ = REACTORS.try_with(|reactors| reactors.borrow_mut().remove(&self.id));
    }
}

/// Ends after a time. Without a reactor, which hickory never leaves a task for, and so never in
/// practice: at once.
#[derive(Debug)]
pub(super) struct Sleep {
    reactor: Option<ReactorId>,
    state: SleepState,
}

#[derive(Debug)]
enum SleepState {
    /// Not polled yet. `None`: further away than clocks go.
    Until(Option<Instant>),
    Armed(TimerKey),
    Over,
}

impl Sleep {
    /// For the task that is being polled.
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

/// What `future` comes to within `duration`, or `None`.
pub(super) async fn within<F: Future>(duration: Duration, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut sleep = std::pin::pin!(Sleep::new(duration));
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
    })
    .await
}
