//! The sets of timers that are compared, each used as a program would use it that arms and cancels
//! many.
//!
//! All of them get the time once per batch, as an engine reads the clock once per turn. All of them
//! store the name of a timer at its place, a number that the caller chooses.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::error::Error;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use httpstream::{ChainId, Context, Engine, Next, Reply, Request};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, yield_now};
use tokio_util::time::{DelayQueue, delay_queue};

#[path = "../../../../../src/sched/wheel.rs"]
#[allow(dead_code, reason = "the engine uses more of it")]
mod wheel;

use wheel::{TimerId, Wheel};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A timer to be armed: its place, and in how many milliseconds it is due.
pub(super) type Timer = (usize, u32);

/// The clock by which timers are due.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// The caller's.
    Given,
    /// The real one, so the test has to wait.
    Real,
}

pub(super) trait Timers {
    const CLOCK: Clock;

    /// Arms timers in places that are free, or one after the last.
    fn arm(&mut self, timers: &[Timer]) -> Result<()>;

    /// Cancels the timers in these places.
    fn cancel(&mut self, places: &[usize]) -> Result<()>;

    /// Takes out the timers that are due `now_ms` after the start, by either clock, and returns
    /// their number. A set that cannot tell when there are no more relies on the number `expected`.
    fn fire(&mut self, now_ms: u32, expected: usize) -> Result<usize>;
}

/// Stores a name at its place, in a vector that grows by one at most.
fn put<T>(names: &mut Vec<T>, place: usize, name: T) {
    match names.get_mut(place) {
        Some(old) => *old = name,
        None => names.push(name),
    }
}

/// The engine's own wheel, from the same source, without the engine.
pub(super) struct OfWheel {
    wheel: Wheel<u32>,
    names: Vec<TimerId>,
}

impl OfWheel {
    pub(super) fn new() -> Self {
        Self {
            wheel: Wheel::new(),
            names: Vec::new(),
        }
    }
}

impl Timers for OfWheel {
    const CLOCK: Clock = Clock::Given;

    fn arm(&mut self, timers: &[Timer]) -> Result<()> {
        for &(place, delay) in timers {
            let name = self.wheel.arm(delay.into(), place as u32);
            put(&mut self.names, place, name);
        }
        Ok(())
    }

    fn cancel(&mut self, places: &[usize]) -> Result<()> {
        for &place in places {
            self.wheel.cancel(self.names[place]);
        }
        Ok(())
    }

    fn fire(&mut self, now_ms: u32, _: usize) -> Result<usize> {
        Ok(std::iter::from_fn(|| self.wheel.expire(now_ms.into())).count())
    }
}

/// The whole engine: a delayed request for each timer, and the reply that a canceled one gets.
pub(super) struct OfEngine {
    engine: Engine<usize>,
    request: Request,
    names: Vec<ChainId>,
}

impl OfEngine {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            engine: Engine::new()?,
            request: Request::get("http://127.0.0.1:9/").build()?,
            names: Vec::new(),
        })
    }

    /// Turns until nothing is left to do, and returns how many readbacks were called.
    fn turn(&mut self) -> Result<usize> {
        let mut heard = 0;
        while self.engine.turn(&mut heard, Some(Duration::ZERO))?.more {}
        Ok(heard)
    }
}

fn hear(heard: &mut usize, _: Reply<'_>, _: &mut Context<'_, usize>) -> Next<usize> {
    *heard += 1;
    Next::done()
}

impl Timers for OfEngine {
    const CLOCK: Clock = Clock::Real;

    fn arm(&mut self, timers: &[Timer]) -> Result<()> {
        for &(place, delay) in timers {
            let delay = Duration::from_millis(delay.into());
            let name = self.engine.start(
                self.engine
                    .send(self.request.clone())
                    .after(delay)
                    .read_by(hear),
            );
            put(&mut self.names, place, name);
        }
        self.turn().map(drop)
    }

    fn cancel(&mut self, places: &[usize]) -> Result<()> {
        for &place in places {
            self.engine.cancel(self.names[place]);
        }
        match self.turn()? {
            heard if heard == places.len() => Ok(()),
            heard => Err(format!("{heard} of {} readbacks were called", places.len()).into()),
        }
    }

    /// Due requests would be sent, which is more than a timer.
    fn fire(&mut self, _: u32, _: usize) -> Result<usize> {
        Ok(0)
    }
}

/// tokio-util's queue, on a runtime of one thread.
pub(super) struct OfDelayQueue {
    runtime: Runtime,
    queue: DelayQueue<u32>,
    names: Vec<delay_queue::Key>,
}

impl OfDelayQueue {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            runtime: Builder::new_current_thread().enable_time().build()?,
            queue: DelayQueue::new(),
            names: Vec::new(),
        })
    }
}

impl Timers for OfDelayQueue {
    const CLOCK: Clock = Clock::Real;

    fn arm(&mut self, timers: &[Timer]) -> Result<()> {
        let _in_runtime = self.runtime.enter();
        let now = tokio::time::Instant::now();
        for &(place, delay) in timers {
            let due = now + Duration::from_millis(delay.into());
            let name = self.queue.insert_at(place as u32, due);
            put(&mut self.names, place, name);
        }
        Ok(())
    }

    fn cancel(&mut self, places: &[usize]) -> Result<()> {
        let _in_runtime = self.runtime.enter();
        for &place in places {
            self.queue.remove(&self.names[place]);
        }
        Ok(())
    }

    fn fire(&mut self, _: u32, expected: usize) -> Result<usize> {
        let queue = &mut self.queue;
        self.runtime.block_on(async {
            for _ in 0..expected {
                poll_fn(|cx| queue.poll_expired(cx)).await;
            }
        });
        Ok(expected)
    }
}

/// A tokio task that sleeps, for each timer.
pub(super) struct OfTasks {
    runtime: Runtime,
    names: Vec<JoinHandle<()>>,
}

/// The number of tasks that have started to sleep, that have ended or were dropped, and, of the
/// latter, those whose time had come.
static BEGUN: AtomicUsize = AtomicUsize::new(0);
static ENDED: AtomicUsize = AtomicUsize::new(0);
static FIRED: AtomicUsize = AtomicUsize::new(0);

/// Counts the end of a task, however it ends.
struct Noted;

impl Drop for Noted {
    fn drop(&mut self) {
        ENDED.store(ENDED.load(Relaxed) + 1, Relaxed);
    }
}

async fn sleep_until(due: tokio::time::Instant) {
    let _noted = Noted;
    BEGUN.store(BEGUN.load(Relaxed) + 1, Relaxed);
    tokio::time::sleep_until(due).await;
    FIRED.store(FIRED.load(Relaxed) + 1, Relaxed);
}

impl OfTasks {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            runtime: Builder::new_current_thread().enable_time().build()?,
            names: Vec::new(),
        })
    }
}

/// Lets the other tasks run until `count` reaches `wanted`.
async fn run_until(count: &AtomicUsize, wanted: usize) {
    while count.load(Relaxed) < wanted {
        yield_now().await;
    }
}

impl Timers for OfTasks {
    const CLOCK: Clock = Clock::Real;

    fn arm(&mut self, timers: &[Timer]) -> Result<()> {
        let names = &mut self.names;
        self.runtime.block_on(async {
            let now = tokio::time::Instant::now();
            let wanted = BEGUN.load(Relaxed) + timers.len();
            for &(place, delay) in timers {
                let due = now + Duration::from_millis(delay.into());
                put(names, place, tokio::spawn(sleep_until(due)));
            }
            run_until(&BEGUN, wanted).await;
        });
        Ok(())
    }

    fn cancel(&mut self, places: &[usize]) -> Result<()> {
        let names = &self.names;
        self.runtime.block_on(async {
            let wanted = ENDED.load(Relaxed) + places.len();
            for &place in places {
                names[place].abort();
            }
            run_until(&ENDED, wanted).await;
        });
        Ok(())
    }

    fn fire(&mut self, _: u32, expected: usize) -> Result<usize> {
        self.runtime.block_on(run_until(&FIRED, expected));
        Ok(FIRED.load(Relaxed))
    }
}

/// A binary heap, in which a canceled timer stays until it is due: canceling is cheap, but memory
/// is not.
pub(super) struct OfHeap {
    heap: BinaryHeap<Reverse<(u32, u32, u32)>>,
    /// By place. An entry of an earlier generation was canceled.
    generations: Vec<u32>,
}

impl OfHeap {
    pub(super) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            generations: Vec::new(),
        }
    }
}

impl Timers for OfHeap {
    const CLOCK: Clock = Clock::Given;

    fn arm(&mut self, timers: &[Timer]) -> Result<()> {
        for &(place, delay) in timers {
            if place == self.generations.len() {
                self.generations.push(0);
            }
            self.heap
                .push(Reverse((delay, place as u32, self.generations[place])));
        }
        Ok(())
    }

    fn cancel(&mut self, places: &[usize]) -> Result<()> {
        for &place in places {
            self.generations[place] += 1;
        }
        Ok(())
    }

    fn fire(&mut self, now_ms: u32, _: usize) -> Result<usize> {
        let mut fired = 0;
        while let Some(&Reverse((due, place, generation))) = self.heap.peek() {
            if due > now_ms {
                break;
            }
            self.heap.pop();
            fired += usize::from(self.generations[place as usize] == generation);
        }
        Ok(fired)
    }
}

/// A tree by time and place.
pub(super) struct OfTree {
    tree: BTreeSet<(u32, u32)>,
    /// By place: when it is due.
    due: Vec<u32>,
}

impl OfTree {
    pub(super) fn new() -> Self {
        Self {
            tree: BTreeSet::new(),
            due: Vec::new(),
        }
    }
}

impl Timers for OfTree {
    const CLOCK: Clock = Clock::Given;

    fn arm(&mut self, timers: &[Timer]) -> Result<()> {
        for &(place, delay) in timers {
            self.tree.insert((delay, place as u32));
            put(&mut self.due, place, delay);
        }
        Ok(())
    }

    fn cancel(&mut self, places: &[usize]) -> Result<()> {
        for &place in places {
            self.tree.remove(&(self.due[place], place as u32));
        }
        Ok(())
    }

    fn fire(&mut self, now_ms: u32, _: usize) -> Result<usize> {
        let mut fired = 0;
        while self.tree.first().is_some_and(|&(due, _)| due <= now_ms) {
            self.tree.pop_first();
            fired += 1;
        }
        Ok(fired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR_MS: u32 = 20;
    const FAR_MS: u32 = 600_000;

    /// Arms twenty timers, half of them near, and cancels some: the near ones that were not
    /// canceled must fire.
    fn fires_what_was_not_cancelled<T: Timers>(mut timers: T) {
        let near: Vec<Timer> = (0..10).map(|place| (place, NEAR_MS)).collect();
        let far: Vec<Timer> = (10..20).map(|place| (place, FAR_MS)).collect();
        timers.arm(&near).unwrap();
        timers.arm(&far).unwrap();
        timers.cancel(&[0, 2, 4, 6, 8, 11]).unwrap();
        // Free places are reused.
        timers.arm(&[(0, NEAR_MS), (2, FAR_MS)]).unwrap();
        if T::CLOCK == Clock::Real {
            std::thread::sleep(Duration::from_millis((NEAR_MS + 10).into()));
        }
        assert_eq!(timers.fire(NEAR_MS + 10, 6).unwrap(), 6);
    }

    #[test]
    fn a_wheel_fires_what_was_not_cancelled() {
        fires_what_was_not_cancelled(OfWheel::new());
    }

    #[test]
    fn a_heap_fires_what_was_not_cancelled() {
        fires_what_was_not_cancelled(OfHeap::new());
    }

    #[test]
    fn a_tree_fires_what_was_not_cancelled() {
        fires_what_was_not_cancelled(OfTree::new());
    }

    #[test]
    fn a_queue_fires_what_was_not_cancelled() {
        let mut timers = OfDelayQueue::new().unwrap();
        timers
            .arm(&[(0, NEAR_MS), (1, FAR_MS), (2, NEAR_MS)])
            .unwrap();
        timers.cancel(&[0]).unwrap();
        std::thread::sleep(Duration::from_millis((NEAR_MS + 10).into()));
        timers.fire(0, 1).unwrap();
        assert_eq!(timers.queue.len(), 1);
    }

    #[test]
    fn tasks_fire_unless_they_were_cancelled() {
        fires_what_was_not_cancelled(OfTasks::new().unwrap());
    }

    #[test]
    fn an_engine_answers_all_that_are_cancelled() {
        let mut timers = OfEngine::new().unwrap();
        timers
            .arm(&[(0, FAR_MS), (1, FAR_MS), (2, FAR_MS)])
            .unwrap();
        timers.cancel(&[2, 0]).unwrap();
        timers.arm(&[(0, FAR_MS)]).unwrap();
        assert_eq!(timers.engine.stats().delayed, 2);
    }
}
