//! A queue in front of something that only a limited number of requests may use at once.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::policy::moment::{Moment, WakeTarget};

/// Limits how many requests use something at once, such as an origin, an account or a chat. Clones
/// share one lane, across engines and threads.
///
/// A visit enters in [`on_start`](super::Visit::on_start), waits until its [`Ticket`] is due, and
/// keeps the ticket for as long as it uses the place. Dropping the ticket passes the place on to
/// the next one in the queue, however the visit ended.
///
/// ```
/// use httpstream::policy::{Lane, Policy, Start, Ticket, Visit};
/// use httpstream::{Error, Moment, Request};
///
/// struct OneAtATime(Lane);
/// struct Door { lane: Lane, ticket: Option<Ticket> }
///
/// impl Policy for OneAtATime {
///     fn visit(&self, _: &Request, _: &Moment<'_>) -> Box<dyn Visit> {
///         Box::new(Door { lane: self.0.clone(), ticket: None })
///     }
/// }
///
/// impl Visit for Door {
///     fn on_start(&mut self, request: &Request, at: &Moment<'_>) -> Result<Start, Error> {
///         let ticket = self.ticket.get_or_insert_with(|| self.lane.enter(request.priority()));
///         Ok(if ticket.is_due(at) { Start::Now } else { Start::Wait })
///     }
///     fn reset(&mut self) -> bool {
///         self.ticket = None;
///         true
///     }
/// }
///
/// let policy = OneAtATime(Lane::new(1));
/// ```
#[derive(Clone)]
pub struct Lane(Arc<Mutex<Queue>>);

/// The free places, and the tickets without a place. If a ticket is waiting, no place is free.
struct Queue {
    free: usize,
    last: u64,
    waiting: BTreeMap<Key, Option<(WakeTarget, Waker)>>,
}

/// Higher priorities come first; within a priority, the ticket that entered first.
type Key = (Reverse<i8>, u64);

/// A place in a [`Lane`] or in its queue. Dropping it passes the place on and wakes the next
/// ticket.
#[must_use = "dropping it leaves the lane"]
pub struct Ticket {
    lane: Lane,
    key: Key,
}

impl Lane {
    /// Creates a lane with this many places. With none, no ticket is ever due.
    pub fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(Queue {
            free: places,
            last: 0,
            waiting: BTreeMap::new(),
        })))
    }

    /// Takes a place if one is free. Otherwise the ticket queues behind those of its priority;
    /// higher priorities are served first. A place once given is never taken back.
    pub fn enter(&self, priority: i8) -> Ticket {
        let mut queue = self.lock();
        queue.last += 1;
        let key = (Reverse(priority), queue.last);
        match queue.free.checked_sub(1) {
            Some(left) => queue.free = left,
            None => drop(queue.waiting.insert(key, None)),
        }
        Ticket {
            lane: self.clone(),
            key,
        }
    }

    /// Returns the number of tickets that wait for a place.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that runs under the lock can leave the queue half changed, so a poisoned lock is
        // safe to use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Returns whether the ticket has a place. If not, the chain of `at` is woken when it gets one;
    /// if several chains have asked, only the last of them is woken.
    pub fn is_due(&self, at: &Moment<'_>) -> bool {
        let mut queue = self.lane.lock();
        let Some(noted) = queue.waiting.get_mut(&self.key) else {
            return true;
        };
        let wake_target = at.wake_target();
        let former = match noted {
            Some((before, _)) if *before == wake_target && !at.wants_waker() => None,
            _ => noted.replace((wake_target, at.waker())),
        };
        // Dropping a waker may run arbitrary code, so it does not happen under the lock.
        drop(queue);
        drop(former);
        false
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut queue = self.lane.lock();
        let own = queue.waiting.remove(&self.key);
        let next = match &own {
            // The ticket was still waiting and has no place to pass on.
            Some(_) => None,
            None => queue.waiting.pop_first().map(|(_, noted)| noted),
        };
        if own.is_none() && next.is_none() {
            queue.free += 1;
        }
        // Not under the lock, as above.
        drop(queue);
        drop(own);
        if let Some(Some((_, waker))) = next {
            waker.wake();
        }
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.lock();
        f.debug_struct("Lane")
            .field("free", &queue.free)
            .field("waiting", &queue.waiting.len())
            .finish()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_due = !self.lane.lock().waiting.contains_key(&self.key);
        f.debug_struct("Ticket")
            .field("priority", &self.key.0.0)
            .field("is_due", &is_due)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::id::ChainId;
    use crate::policy::moment::{Present, Wakeups};
    use crate::proto::testing::Random;

    /// The parts of an engine that a lane uses.
    struct Engine {
        present: Present,
        wakeups: Arc<Wakeups>,
    }

    impl Engine {
        fn new() -> Self {
            Self::with(|| ())
        }

        fn with(wake: impl Fn() + Send + Sync + 'static) -> Self {
            Self {
                present: Present::simulated(Instant::now(), std::time::UNIX_EPOCH, 1),
                wakeups: Arc::new(Wakeups::new(wake)),
            }
        }

        fn is_due(&self, ticket: &Ticket, chain: u64) -> bool {
            let chain = ChainId::from_u64(chain);
            ticket.is_due(&Moment::new(&self.present, &self.wakeups, Some(chain)))
        }

        fn woken(&self) -> Vec<u64> {
            let mut woken = Vec::new();
            self.wakeups.take(&mut woken, usize::MAX);
            woken
                .into_iter()
                .map(|woken| woken.chain.to_u64())
                .collect()
        }
    }

    #[test]
    fn higher_priorities_come_first_and_then_who_came_first() {
        let (engine, lane) = (Engine::new(), Lane::new(1));
        let first = lane.enter(-128);
        assert!(engine.is_due(&first, 0));
        let mut waiting: HashMap<u64, Ticket> = [0, 5, -5, 5, 0, 127]
            .into_iter()
            .zip(1..)
            .map(|(priority, chain)| (chain, lane.enter(priority)))
            .collect();
        assert_eq!(lane.waiting(), 6);
        assert!(waiting.iter().all(|(chain, it)| !engine.is_due(it, *chain)));
        // A ticket with a place keeps it, whatever enters after it.
        assert!(engine.is_due(&first, 0));
        drop(first);
        for expected in [6, 2, 4, 1, 5, 3] {
            assert_eq!(engine.woken(), [expected]);
            let due: Vec<_> = waiting
                .iter()
                .filter(|(chain, ticket)| engine.is_due(ticket, **chain))
                .map(|(chain, _)| *chain)
                .collect();
            assert_eq!(due, [expected]);
            waiting.remove(&expected);
        }
        assert_eq!(lane.waiting(), 0);
        assert!(engine.woken().is_empty());
        assert!(engine.is_due(&lane.enter(0), 9));
    }

    #[test]
    fn who_leaves_the_queue_wakes_nobody_and_keeps_nobody_out() {
        let (engine, lane) = (Engine::new(), Lane::new(2));
        let mut tickets: Vec<_> = (0..5).map(|_| lane.enter(0)).collect();
        for (chain, ticket) in tickets.iter().enumerate() {
            assert_eq!(engine.is_due(ticket, chain as u64), chain < 2);
        }
        drop(tickets.remove(3));
        assert!(engine.woken().is_empty());
        drop(tickets.remove(2));
        drop(tickets.remove(0));
        assert_eq!(engine.woken(), [4]);
        drop(tickets);
        let again = [lane.enter(0), lane.enter(0), lane.enter(0)];
        assert_eq!(
            again.each_ref().map(|it| engine.is_due(it, 7)),
            [true, true, false]
        );
    }

    #[test]
    fn the_one_who_asked_last_is_woken_in_its_engine() {
        let (one, other, lane) = (Engine::new(), Engine::new(), Lane::new(1));
        let (place, ticket) = (lane.enter(0), lane.enter(0));
        assert!(!one.is_due(&ticket, 1) && !one.is_due(&ticket, 1));
        assert!(!other.is_due(&ticket, 2));
        drop(place);
        assert!(one.woken().is_empty());
        assert_eq!(other.woken(), [2]);
        assert!(one.is_due(&ticket, 1));
    }

    #[test]
    fn a_place_outlives_an_engine_and_goes_on_when_it_is_dropped() {
        let (one, other, lane) = (Engine::new(), Engine::new(), Lane::new(1));
        let (place, gone, last) = (lane.enter(0), lane.enter(0), lane.enter(0));
        assert!(!one.is_due(&gone, 1) && !other.is_due(&last, 2));
        drop(one);
        drop(place);
        // The ticket is due, but its engine will never ask again. Its place is passed on once the
        // ticket is dropped.
        assert!(other.woken().is_empty());
        drop(gone);
        assert_eq!(other.woken(), [2]);
    }

    #[test]
    fn a_panic_gives_the_place_on() {
        let (engine, lane) = (Engine::new(), Lane::new(1));
        let place = lane.enter(0);
        let next = lane.enter(0);
        assert!(!engine.is_due(&next, 1));
        let panicked = thread::spawn(move || {
            let _place = place;
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.join().is_err());
        assert_eq!(engine.woken(), [1]);
    }

    #[test]
    fn a_lane_without_places_lets_nobody_pass() {
        let (engine, lane) = (Engine::new(), Lane::new(0));
        let tickets = [lane.enter(0), lane.enter(1)];
        assert!(tickets.iter().all(|ticket| !engine.is_due(ticket, 1)));
        drop(tickets);
        assert_eq!(lane.waiting(), 0);
        assert!(engine.woken().is_empty());
        assert!(!engine.is_due(&lane.enter(0), 1));
    }

    #[test]
    fn tickets_and_lanes_show_how_they_stand() {
        let lane = Lane::new(1);
        let (_place, waits) = (lane.enter(0), lane.enter(3));
        assert_eq!(format!("{lane:?}"), "Lane { free: 0, waiting: 1 }");
        assert_eq!(
            format!("{waits:?}"),
            "Ticket { priority: 3, is_due: false }"
        );
    }

    /// Runs threads with an engine each. Never are there more tickets with a place than places,
    /// every ticket that waits is woken, and no ticket that was dropped is.
    #[test]
    fn under_threads_nobody_is_forgotten() {
        const PLACES: usize = 3;
        const THREADS: u64 = 8;
        const ROUNDS: u64 = 3000;
        let lane = Lane::new(PLACES);
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for seed in 0..THREADS {
                let (lane, inside) = (lane.clone(), &inside);
                scope.spawn(move || {
                    let (wakes, woken) = mpsc::channel();
                    let engine = Engine::with(move || wakes.send(()).unwrap_or(()));
                    let mut random = Random::new(seed);
                    for round in 0..ROUNDS {
                        let ticket = lane.enter(random.below(3) as i8);
                        let gives_up = random.below(4) == 0;
                        let mut is_due = engine.is_due(&ticket, round);
                        while !is_due && !gives_up {
                            woken
                                .recv_timeout(Duration::from_secs(60))
                                .expect("a ticket is woken when it gets a place");
                            // It may be a wake of an earlier round, which gave up as it was woken.
                            let _ = engine.woken();
                            is_due = engine.is_due(&ticket, round);
                        }
                        if is_due {
                            let before = inside.fetch_add(1, Ordering::SeqCst);
                            assert!(before < PLACES, "{before} were inside");
                            thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                        drop(ticket);
                    }
                });
            }
        });
        let queue = lane.lock();
        assert_eq!((queue.free, queue.waiting.len()), (PLACES, 0));
    }
}
