//! Generations of a session: what was built for an old login ends with it.
//!
//! A session has a [`Generation`]. Whatever belongs to the session (a request, a wait, a call, a
//! task) carries a [`Mark`] of it. [`Generation::end`] makes all marks taken before it stale, on
//! every thread, without tracking who holds them. The holders compare: before an engine begins a
//! request or an exchange that carries a mark, it checks [`Mark::is_over`], which costs one load.
//!
//! Requests that are already under way end when the engine looks through its chains. Every engine
//! that holds something marked [watches](Mark::watch) for the next end and is woken by it. All else
//! that a session does is the work of its policy.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Waker;

/// Counts the logins of one session. Clones share the count.
#[derive(Clone, Default)]
pub(crate) struct Generation(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// How many generations have ended.
    ended: AtomicU64,
    /// The engines that hold something marked, each once, until the next end. Weak, because a
    /// session may outlive many engines, whose wakers hold file descriptors.
    watching: Mutex<Vec<Weak<Waker>>>,
}

/// The generation of a session that something belongs to.
#[derive(Clone)]
pub(crate) struct Mark {
    of: Generation,
    taken_at: u64,
}

impl Generation {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Returns a mark of the current generation.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            of: self.clone(),
            taken_at: self.ended(),
        }
    }

    /// Ends the current generation: all marks taken so far are stale. Wakes the watching engines
    /// and drops their wakers.
    pub(crate) fn end(&self) {
        // Release: a thread that sees a stale mark also sees everything done before the end.
        self.0.ended.fetch_add(1, Ordering::AcqRel);
        let mut watching = self
            .0
            .watching
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let woken = std::mem::take(&mut *watching);
        // Wakers run engine code, so they are not called under the lock.
        drop(watching);
        let alive = woken.iter().filter_map(Weak::upgrade);
        alive.for_each(|waker| waker.wake_by_ref());
    }

    #[inline]
    fn ended(&self) -> u64 {
        self.0.ended.load(Ordering::Acquire)
    }
}

impl Mark {
    /// Whether its generation has ended.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.taken_at != self.of.ended()
    }

    /// Whether it belongs to the session that counts with `generation`.
    pub(crate) fn is_of(&self, generation: &Generation) -> bool {
        Arc::ptr_eq(&self.of.0, &generation.0)
    }

    /// Whether both belong to the same generation of the same session.
    #[inline]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.is_of(&other.of) && self.taken_at == other.taken_at
    }

    /// Returns a mark of the session's current generation, which may be a later one.
    pub(crate) fn renewed(&self) -> Self {
        self.of.mark()
    }

    /// Registers `waker` to be woken, once, when the session's current generation ends. Registering
    /// the same waker twice has no effect, and one that is dropped before is forgotten. Returns
    /// false, and registers nothing, if this mark is already stale.
    pub(crate) fn watch(&self, waker: &Arc<Waker>) -> bool {
        let mut watching = self
            .of
            .0
            .watching
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Checked under the lock, which `end` takes after it has counted: either the end is seen
        // here, or `end` finds the waker.
        if self.is_over() {
            return false;
        }
        watching.retain(|other| other.strong_count() > 0);
        if !watching
            .iter()
            .any(|other| other.as_ptr() == Arc::as_ptr(waker))
        {
            watching.push(Arc::downgrade(waker));
        }
        true
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mark")
            .field("generation", &self.taken_at)
            .field("is_over", &self.is_over())
            .finish()
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Generation").field(&self.ended()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;
    use std::thread;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn an_end_makes_all_earlier_marks_stale_and_no_later_ones() {
        let session = Generation::new();
        let (old, clone) = (session.mark(), session.mark().clone());
        assert!(!old.is_over() && !clone.is_over());
        session.clone().end();
        let new = session.mark();
        assert!(old.is_over() && clone.is_over() && !new.is_over());
        assert!(!old.renewed().is_over());
        session.end();
        assert!(old.is_over() && new.is_over());
    }

    #[test]
    fn the_end_of_one_session_leaves_another() {
        let (one, other) = (Generation::new(), Generation::new());
        let mark = one.mark();
        other.end();
        assert!(!mark.is_over());
    }

    #[test]
    fn each_watcher_is_woken_once_per_end() {
        let session = Generation::new();
        let counts: [Arc<Count>; 2] = Default::default();
        let wakers = counts.clone().map(|count| Arc::new(Waker::from(count)));
        for _ in 0..3 {
            assert!(wakers.iter().all(|waker| session.mark().watch(waker)));
        }
        assert_eq!(counts.each_ref().map(|count| count.get()), [0, 0]);
        let old = session.mark();
        session.end();
        session.end();
        assert_eq!(counts.each_ref().map(|count| count.get()), [1, 1]);
        // Too late: this mark is stale, so the next end does not concern it.
        assert!(!old.watch(&wakers[0]));
        assert!(session.mark().watch(&wakers[1]));
        session.end();
        assert_eq!(counts.each_ref().map(|count| count.get()), [1, 2]);
        drop(wakers);
        assert_eq!(Arc::strong_count(&counts[0]), 1, "no waker is kept");
    }

    #[test]
    fn an_engine_that_is_gone_leaves_nothing_behind() {
        let session = Generation::new();
        let counts: [Arc<Count>; 2] = Default::default();
        for count in &counts {
            let waker = Arc::new(Waker::from(Arc::clone(count)));
            assert!(session.mark().watch(&waker));
        }
        let strong = counts.each_ref().map(Arc::strong_count);
        assert_eq!(strong, [1, 1], "no waker is kept");
        assert_eq!(session.0.watching.lock().unwrap().len(), 1);
        session.end();
        assert_eq!(counts.each_ref().map(|count| count.get()), [0, 0]);
    }

    #[test]
    fn a_watcher_is_woken_or_told_that_its_mark_is_stale() {
        const ROUNDS: usize = 2000;
        for _ in 0..ROUNDS {
            let session = Generation::new();
            let count = Arc::new(Count::default());
            let waker = Arc::new(Waker::from(Arc::clone(&count)));
            let mark = session.mark();
            let ending = thread::scope(|scope| {
                let ending = scope.spawn(|| session.end());
                let watches = mark.watch(&waker);
                ending.join().map(|()| watches)
            });
            let watches = ending.expect("end does not panic");
            assert_eq!(watches, count.get() == 1);
            assert!(mark.is_over());
        }
    }
}
