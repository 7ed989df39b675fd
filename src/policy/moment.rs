//! Time and randomness for policies, and wakers for those that wait.
//!
//! A policy takes all of these from a [`Moment`] and never from the system, so that a simulation
//! can repeat a run. An engine owns one [`Present`], which it updates whenever it reads its clock,
//! and one [`Wakeups`], the part of its inbox that does not depend on the type of its state: a
//! `Waker` is `'static`, and an engine's state may borrow.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Wake, Waker};
use std::time::{Instant, SystemTime};

use crate::id::ChainId;

/// The moment at which a policy is called: clocks, random numbers, and a waker for later.
///
/// In a simulation (feature `sim`) the clocks are simulated, and the random numbers come from its
/// seed.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    present: &'a Present,
    wakeups: &'a Arc<Wakeups>,
    /// The chain whose policy, readback or task is being called.
    chain: Option<ChainId>,
    held: Option<&'a Held>,
    is_shown: bool,
    deadline: Option<Instant>,
}

impl<'a> Moment<'a> {
    /// `chain` is the chain whose policy, readback or task is being called, and which wakers wake.
    pub(crate) fn new(
        present: &'a Present,
        wakeups: &'a Arc<Wakeups>,
        chain: Option<ChainId>,
    ) -> Self {
        Self {
            present,
            wakeups,
            chain,
            held: None,
            is_shown: false,
            deadline: None,
        }
    }

    /// Returns the same moment, whose wakers are recorded in `held`.
    pub(crate) fn noting(self, held: &'a Held) -> Self {
        Self {
            held: Some(held),
            ..self
        }
    }

    /// Returns the same moment of a request that must have ended by `deadline`.
    pub(crate) fn before(self, deadline: Option<Instant>) -> Self {
        Self { deadline, ..self }
    }

    /// Returns when the request ends at the latest, by its
    /// [total timeout](crate::Timeouts::total). `None` for requests without one, outside of visits,
    /// and in [`on_send`](super::Visit::on_send). A wait that lasts longer is not worth beginning.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns the same moment, at which the readback has seen the head of the response or not.
    pub(crate) fn of_shown(self, is_shown: bool) -> Self {
        Self { is_shown, ..self }
    }

    /// Returns whether the readback has been shown the head of the current response, which then
    /// stands: see [`Verdict::Resend`](super::Verdict::Resend). False outside of visits.
    ///
    /// A readback that [reads no heads](crate::Readback::reads_heads), such as a closure, sees a
    /// response only when it is complete.
    pub fn is_shown(&self) -> bool {
        self.is_shown
    }

    /// Returns the time as the engine last read it: after the poll, or after the last readback of
    /// this turn that asked for something.
    pub fn now(&self) -> Instant {
        self.present.now.get()
    }

    /// Returns the time of day. It is read at most once in a turn.
    pub fn wall_clock(&self) -> SystemTime {
        self.present.wall_clock()
    }

    /// Returns a random number, unpredictable except in a simulation.
    pub fn random(&self) -> u64 {
        self.present.chance.draw()
    }

    /// Returns a waker that ends a wait of the chain: in a visit its
    /// [`Start::Wait`](super::Start::Wait), in a readback or a call its
    /// [`Next::wait`](crate::Next::wait).
    ///
    /// A waker from an earlier wait also ends the next wait of the same kind, so check the
    /// condition that was waited for. The waker may be used from any thread and does nothing once
    /// the chain or the engine is gone. At a moment outside of a chain it is a no-op.
    ///
    /// This allocates, so take a waker only to wait.
    pub fn waker(&self) -> Waker {
        let Some(chain) = self.chain else {
            return Waker::noop().clone();
        };
        if let Some(signal) = self.held.and_then(Held::signal) {
            return signal.into();
        }
        let signal = self.wakeups.signal(self.woken(chain));
        if let Some(held) = self.held {
            held.0.set(Arc::downgrade(&signal));
        }
        signal.into()
    }

    /// Whether this is the moment of a visit that holds no waker. Wakers of its chain that are held
    /// elsewhere do not count, since they may be dropped at any time.
    pub(crate) fn wants_waker(&self) -> bool {
        self.held.is_some_and(|held| !held.is_held())
    }

    /// Identifies what [`waker`](Self::waker) wakes. It is equal for all moments of the visits of a
    /// chain, and for all its other moments.
    pub(crate) fn wake_target(&self) -> WakeTarget {
        WakeTarget {
            engine: Arc::as_ptr(self.wakeups).addr(),
            woken: self.chain.map(|chain| self.woken(chain)),
        }
    }

    fn woken(&self, chain: ChainId) -> Woken {
        let waits = match self.held {
            Some(_) => Waits::InVisit,
            None => Waits::WithoutRequest,
        };
        Woken { chain, waits }
    }
}

impl fmt::Debug for Moment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moment")
            .field("now", &self.now())
            .field("chain", &self.chain)
            .finish()
    }
}

/// Identifies what a waker wakes, across engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WakeTarget {
    engine: usize,
    woken: Option<Woken>,
}

/// A chain that has been woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Woken {
    pub(crate) chain: ChainId,
    pub(crate) waits: Waits,
}

/// Which of a chain's waits a waker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// The wait of its policy, before an exchange.
    InVisit,
    /// The wait without a request.
    WithoutRequest,
    /// The wait of a request for the source of its body.
    ForBody,
    /// The wait of a tunnel's source for something to send.
    InTunnel,
}

/// The clocks and the source of randomness of one engine.
#[derive(Debug)]
pub(crate) struct Present {
    now: Cell<Instant>,
    wall: Wall,
    chance: Chance,
}

#[derive(Debug)]
enum Wall {
    /// The system clock; `Some` once it has been read in this turn.
    System(Cell<Option<SystemTime>>),
    /// It was `time` at `instant` and runs with the clock.
    Simulated { time: SystemTime, instant: Instant },
}

#[derive(Debug)]
enum Chance {
    /// A keyed hash of a counter. The keys come from the system's randomness, which the standard
    /// library draws for its hash maps. This needs no further crate, and no number predicts the
    /// next.
    Keyed { keys: RandomState, drawn: Cell<u64> },
    /// splitmix64, by Vigna, in the public domain: the same seed gives the same numbers.
    Seeded(Cell<u64>),
}

impl Present {
    /// The clocks and randomness of the system.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            now: Cell::new(now),
            wall: Wall::System(Cell::new(None)),
            chance: Chance::Keyed {
                keys: RandomState::new(),
                drawn: Cell::new(0),
            },
        }
    }

    /// The clocks and randomness of a simulation, where the time of day is `wall` and random
    /// numbers come from `seed`.
    pub(crate) fn simulated(now: Instant, wall: SystemTime, seed: u64) -> Self {
        Self {
            now: Cell::new(now),
            wall: Wall::Simulated {
                time: wall,
                instant: now,
            },
            chance: Chance::Seeded(Cell::new(seed)),
        }
    }

    /// Returns the time as it was last read.
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Begins a turn: the wall clock is read again when it is needed.
    pub(crate) fn begin_turn(&self) {
        if let Wall::System(read) = &self.wall {
            read.set(None);
        }
    }

    /// Sets the time, after the clock has been read.
    #[inline]
    pub(crate) fn advance(&self, now: Instant) {
        self.now.set(now);
    }

    /// Returns the time of day, which is read at most once in a turn.
    pub(crate) fn wall_clock(&self) -> SystemTime {
        match &self.wall {
            Wall::System(read) => {
                let time = read.get().unwrap_or_else(SystemTime::now);
                read.set(Some(time));
                time
            }
            Wall::Simulated { time, instant } => {
                let passed = self.now.get().saturating_duration_since(*instant);
                time.checked_add(passed).unwrap_or(*time)
            }
        }
    }
}

impl Chance {
    fn draw(&self) -> u64 {
        match self {
            Chance::Keyed { keys, drawn } => {
                drawn.set(drawn.get().wrapping_add(1));
                keys.hash_one(drawn.get())
            }
            Chance::Seeded(state) => {
                state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
                let mut z = state.get();
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            }
        }
    }
}

/// The queue of chains that wakers have woken, until the engine's next turn takes them.
///
/// A waker is in the queue at most once, however often it is woken, so the queue is never longer
/// than the number of wakers.
pub(crate) struct Wakeups {
    queue: Mutex<VecDeque<Arc<Signal>>>,
    /// Whether `queue` is non-empty: written under its lock, read without.
    has_woken: AtomicBool,
    /// Makes a turn due, from any thread.
    wake: Box<dyn Fn() + Send + Sync>,
}

/// The data of a waker. It does not keep its engine alive.
struct Signal {
    woken: Woken,
    wakeups: Weak<Wakeups>,
    /// Whether it is queued in the wakeups.
    is_queued: AtomicBool,
}

impl Wakeups {
    /// `wake` makes a turn due. It is called when the queue was empty before.
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            queue: Mutex::new(VecDeque::new()),
            has_woken: AtomicBool::new(false),
            wake: Box::new(wake),
        }
    }

    /// Whether a chain has been woken, which makes a turn due. Takes no lock.
    #[inline]
    pub(crate) fn has_woken(&self) -> bool {
        self.has_woken.load(Ordering::Acquire)
    }

    /// Moves up to `most` woken chains to the end of `woken`. Some of them may have ended, or no
    /// longer wait.
    pub(crate) fn take(&self, woken: &mut Vec<Woken>, most: usize) {
        let mut queue = self.queue();
        let taken = most.min(queue.len());
        for signal in queue.drain(..taken) {
            // Cleared before the chain runs, so that a wake for its next wait is not lost.
            signal.is_queued.store(false, Ordering::Release);
            woken.push(signal.woken);
        }
        self.has_woken.store(!queue.is_empty(), Ordering::Release);
    }

    /// Returns a waker that ends waits of this kind of a chain.
    pub(crate) fn waker(self: &Arc<Self>, chain: ChainId, waits: Waits) -> Waker {
        self.signal(Woken { chain, waits }).into()
    }

    fn signal(self: &Arc<Self>, woken: Woken) -> Arc<Signal> {
        Arc::new(Signal {
            woken,
            wakeups: Arc::downgrade(self),
            is_queued: AtomicBool::new(false),
        })
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Arc<Signal>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Wakeups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakeups")
            .field("has_woken", &self.has_woken())
            .finish_non_exhaustive()
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let Some(wakeups) = self.wakeups.upgrade() else {
            return;
        };
        if self.is_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut queue = wakeups.queue();
        let is_first = queue.is_empty();
        queue.push_back(Arc::clone(self));
        wakeups.has_woken.store(true, Ordering::Release);
        drop(queue);
        // The first one makes a turn due, which takes the others too or leaves them to the next
        // turn.
        if is_first {
            (wakeups.wake)();
        }
    }
}

/// Tracks the wakers taken from the moments of one visit. They share a signal, so a visit that is
/// called repeatedly allocates only once.
#[derive(Default)]
pub(crate) struct Held(Cell<Weak<Signal>>);

impl Held {
    /// Whether a waker is still alive, or has been woken and not yet been taken from the wakeups.
    #[inline]
    pub(crate) fn is_held(&self) -> bool {
        self.signal().is_some()
    }

    #[inline]
    fn signal(&self) -> Option<Arc<Signal>> {
        let weak = self.0.take();
        let signal = weak.upgrade();
        self.0.set(weak);
        signal
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.is_held()).finish()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Moments without an engine.

    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// Calls `f` at a simulated moment of the chain with this number.
    pub(crate) fn at<T>(chain: u64, f: impl FnOnce(&Moment<'_>) -> T) -> T {
        let wall = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let present = Present::simulated(Instant::now(), wall, chain);
        let wakeups = Arc::new(Wakeups::new(|| ()));
        let chain = ChainId::from_u64(chain);
        f(&Moment::new(&present, &wakeups, Some(chain)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::AtomicUsize;
    use std::thread;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn wakeups() -> (Arc<Wakeups>, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let wake = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        (Arc::new(Wakeups::new(wake)), calls)
    }

    fn chain(number: u64) -> Option<ChainId> {
        Some(ChainId::from_u64(number))
    }

    fn taken(wakeups: &Wakeups, most: usize) -> Vec<u64> {
        let mut woken = Vec::new();
        wakeups.take(&mut woken, most);
        woken
            .into_iter()
            .map(|woken| woken.chain.to_u64())
            .collect()
    }

    #[test]
    fn the_wall_clock_is_read_once_a_turn() {
        let start = Instant::now();
        let present = Present::new(start);
        let (wakeups, _) = wakeups();
        let at = Moment::new(&present, &wakeups, None);
        let first = at.wall_clock();
        thread::sleep(Duration::from_millis(2));
        present.advance(start + Duration::from_secs(1));
        assert_eq!(at.wall_clock(), first);
        assert_eq!(at.now(), start + Duration::from_secs(1));
        present.advance(start);
        present.begin_turn();
        assert!(at.wall_clock() > first);
    }

    #[test]
    fn a_simulation_repeats_itself() {
        let (start, wall) = (Instant::now(), UNIX_EPOCH + Duration::from_secs(7));
        let (wakeups, _) = wakeups();
        let present = Present::simulated(start, wall, 7);
        let same = Present::simulated(start, wall, 7);
        let [at, again] = [&present, &same].map(|present| Moment::new(present, &wakeups, None));
        assert_eq!(at.wall_clock(), wall);
        present.advance(start + Duration::from_secs(3));
        assert_eq!(at.wall_clock(), wall + Duration::from_secs(3));
        let numbers: Vec<_> = (0..100).map(|_| at.random()).collect();
        assert!(numbers.iter().all(|number| *number == again.random()));
        let other = Present::simulated(start, wall, 8);
        let other = Moment::new(&other, &wakeups, None);
        assert!(numbers.iter().all(|number| *number != other.random()));
    }

    #[test]
    fn splitmix_is_that_of_the_reference() {
        let chance = Chance::Seeded(Cell::new(1_234_567));
        // The first numbers of the reference implementation for this seed.
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        assert_eq!([chance.draw(), chance.draw()], expected);
    }

    #[test]
    fn random_numbers_of_the_system_do_not_repeat() {
        let (wakeups, _) = wakeups();
        let presents = [(); 3].map(|()| Present::new(Instant::now()));
        let numbers: HashSet<_> = presents
            .iter()
            .flat_map(|present| (0..1000).map(|_| Moment::new(present, &wakeups, None).random()))
            .collect();
        assert_eq!(numbers.len(), 3000);
    }

    #[test]
    fn wakers_leave_their_chain_once_until_it_is_taken() {
        let (wakeups, calls) = wakeups();
        let present = Present::new(Instant::now());
        let waker = |number| Moment::new(&present, &wakeups, chain(number)).waker();
        let (one, two) = (waker(1), waker(2));
        assert!(!wakeups.has_woken());
        for _ in 0..1000 {
            one.wake_by_ref();
            two.wake_by_ref();
        }
        assert!(wakeups.has_woken());
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert_eq!(taken(&wakeups, 1), [1]);
        assert!(wakeups.has_woken());
        assert_eq!(taken(&wakeups, 9), [2]);
        assert!(!wakeups.has_woken());
        assert!(taken(&wakeups, 9).is_empty());
        // A waker that was taken can be woken again.
        one.wake();
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        assert_eq!(taken(&wakeups, 9), [1]);
    }

    #[test]
    fn wakers_outlive_their_engine_and_keep_nothing_of_it() {
        let (wakeups, calls) = wakeups();
        let present = Present::new(Instant::now());
        let waker = Moment::new(&present, &wakeups, chain(1)).waker();
        waker.wake_by_ref();
        let gone = Arc::downgrade(&wakeups);
        drop(wakeups);
        assert!(gone.upgrade().is_none());
        waker.wake();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn outside_of_a_chain_nobody_is_woken() {
        let (wakeups, calls) = wakeups();
        let present = Present::new(Instant::now());
        Moment::new(&present, &wakeups, None).waker().wake();
        assert!(!wakeups.has_woken());
        assert_eq!(calls.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn wakers_of_one_visit_are_one_and_it_is_known_whether_they_are_held() {
        let (wakeups, _) = wakeups();
        let present = Present::new(Instant::now());
        let held = Held::default();
        let at = Moment::new(&present, &wakeups, chain(1)).noting(&held);
        assert!(!held.is_held());
        let (one, two) = (at.waker(), at.waker());
        assert!(one.will_wake(&two) && held.is_held());
        drop(one);
        assert!(held.is_held());
        two.wake();
        // No waker is left, but it has been woken.
        assert!(held.is_held());
        assert_eq!(taken(&wakeups, 9), [1]);
        assert!(!held.is_held());
        drop(at.waker());
        assert!(!held.is_held());
    }

    #[test]
    fn chains_and_engines_are_told_apart() {
        let ((one, _), (other, _)) = (wakeups(), wakeups());
        let present = Present::new(Instant::now());
        let moment = |wakeups, number| Moment::new(&present, wakeups, chain(number));
        let wake_target = |wakeups, number| moment(wakeups, number).wake_target();
        assert_eq!(wake_target(&one, 1), wake_target(&one, 1));
        assert_ne!(wake_target(&one, 1), wake_target(&one, 2));
        assert_ne!(wake_target(&one, 1), wake_target(&other, 1));
        let held = Held::default();
        assert_ne!(
            wake_target(&one, 1),
            moment(&one, 1).noting(&held).wake_target()
        );
    }
}
