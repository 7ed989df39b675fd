//! Generations of a session: what was built for an old login ends with it.
//!
//! A session has a [`Generation`]. Whatever belongs to the session (a request, a wait, a call, a
//! task) carries a [`Mark`] of it. [`Generation::end`] makes all marks taken before it stale, on
//! every thread, without tracking who holds them. The holders compare: before an engine begins a
//! request or an exchange that carries a mark, it checks [`Mark::is_over`], which costs one load.
//!
//! Requests that are already under way end when the engine looks through its chains. Every engine
//! that holds something marked [watches](Mark::watch) for the next end and is woken by it. This is
//! the only part of a session that the core deals with.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Counts the logins of one session. Clones share the count.
#[derive(Clone, Default)]
pub(crate) struct Generation(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// How many generations have ended.
    ended: AtomicU64,
    /// The engines that hold something marked, each once, until the next end. A session may outlive
    /// many engines, so it keeps nothing of them alive.
    watching: Mutex<Vec<Weak<dyn Watcher>>>,
}

/// An engine that is told when a generation ends.
pub(crate) trait Watcher: Send + Sync {
    /// Called on the thread that ends the generation.
    fn on_end(&self);
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

    /// Ends the current generation: all marks taken so far are stale. Tells the watching
    /// engines, and forgets them.
    pub(crate) fn end(&self) {
        // Release: a thread that sees a stale mark also sees everything done before the end.
        self.0.ended.fetch_add(1, Ordering::AcqRel);
        let mut watching = self
            .0
            .watching
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let told = std::mem::take(&mut *watching);
        // Watchers run engine code, so they are not called under the lock.
        drop(watching);
        let told = told.iter().filter_map(Weak::upgrade);
        told.for_each(|watcher| watcher.on_end());
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

    /// Registers `watcher` to be told, once, when the session's current generation ends.
    /// Registering the same one twice has no effect. Returns false, and registers nothing, if this
    /// mark is already stale.
    pub(crate) fn watch(&self, watcher: &Weak<dyn Watcher>) -> bool {
        let mut watching = self
            .of
            .0
            .watching
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Checked under the lock, which `end` takes after it has counted: either the end is seen
        // here, or `end` finds the watcher.
        if self.is_over() {
            return false;
        }
        watching.retain(|other| other.strong_count() > 0);
        if !watching.iter().any(|other| other.ptr_eq(watcher)) {
            watching.push(Weak::clone(watcher));
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
    use std::thread;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Watcher for Count {
        fn on_end(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn watcher(count: &Arc<Count>) -> Weak<dyn Watcher> {
        let count: Weak<Count> = Arc::downgrade(count);
        count
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
    fn sessions_end_apart() {
        let (one, other) = (Generation::new(), Generation::new());
        let mark = one.mark();
        other.end();
        assert!(!mark.is_over());
    }

    #[test]
    fn each_who_watches_is_told_once_an_end() {
        let session = Generation::new();
        let counts: [Arc<Count>; 2] = Default::default();
        let watchers = counts.each_ref().map(watcher);
        for _ in 0..3 {
            assert!(watchers.iter().all(|it| session.mark().watch(it)));
        }
        assert_eq!(counts.each_ref().map(|count| count.get()), [0, 0]);
        let old = session.mark();
        session.end();
        session.end();
        assert_eq!(counts.each_ref().map(|count| count.get()), [1, 1]);
        // Too late: this mark is stale, so the next end does not concern it.
        assert!(!old.watch(&watchers[0]));
        assert!(session.mark().watch(&watchers[1]));
        session.end();
        assert_eq!(counts.each_ref().map(|count| count.get()), [1, 2]);
    }

    #[test]
    fn nothing_is_kept_of_watchers_that_are_gone() {
        let session = Generation::new();
        for _ in 0..100 {
            let count = Arc::new(Count::default());
            assert!(session.mark().watch(&watcher(&count)));
            assert_eq!(Arc::strong_count(&count), 1);
            assert_eq!(session.0.watching.lock().unwrap().len(), 1);
        }
        session.end();
    }

    #[test]
    fn whoever_holds_a_mark_that_is_over_is_told_now_or_later() {
        const ROUNDS: usize = 2000;
        for _ in 0..ROUNDS {
            let session = Generation::new();
            let count = Arc::new(Count::default());
            let mark = session.mark();
            let ending = thread::scope(|scope| {
                let ending = scope.spawn(|| session.end());
                let watches = mark.watch(&watcher(&count));
                ending.join().map(|()| watches)
            });
            let watches = ending.expect("end does not panic");
            assert_eq!(watches, count.get() == 1);
            assert!(mark.is_over());
        }
    }
}
