//! The part of an engine's inbox that knows no state `S`: it wakes the engine, and chains that wait.
//!
//! A [`Waker`] is `'static`, and an engine's state may borrow. So what wakes a chain is no order,
//! which names `S`, but the chain's id, left here.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Waker};

use crate::id::RequestId;
use crate::resolver::Wake;

/// Wakes an engine, from any thread.
pub(crate) struct Bell {
    wake: Wake,
    rung: Mutex<Rung>,
    /// Something lies here, or in the inbox, which the engine was not woken for: it came from inside
    /// a turn, or was more than one turn takes.
    unannounced: AtomicBool,
}

struct Rung {
    ids: Vec<RequestId>,
    /// The engine is there.
    is_open: bool,
}

thread_local! {
    /// The engine whose turn runs on this thread; of several, the innermost.
    static TURNING: Cell<*const Bell> = const { Cell::new(std::ptr::null()) };
}

/// While it is there, this thread is inside a turn.
pub(super) struct Inside {
    before: *const Bell,
}

impl Drop for Inside {
    fn drop(&mut self) {
        TURNING.set(self.before);
    }
}

impl Bell {
    pub(super) fn new(wake: Wake) -> Self {
        Self {
            wake,
            rung: Mutex::new(Rung {
                ids: Vec::new(),
                is_open: true,
            }),
            unannounced: AtomicBool::new(false),
        }
    }

    /// A turn begins on this thread, and lasts as long as what is returned.
    pub(super) fn enter(self: &Arc<Self>) -> Inside {
        Inside {
            before: TURNING.replace(Arc::as_ptr(self)),
        }
    }

    pub(super) fn is_turning_here(&self) -> bool {
        std::ptr::eq(TURNING.get(), self)
    }

    /// Something was left for the engine, the first since it looked: wakes it, unless this is its
    /// own turn, which takes it before it ends.
    pub(super) fn announce(&self) {
        match self.is_turning_here() {
            true => self.unannounced.store(true, Ordering::Relaxed),
            false => self.wake.wake(),
        }
    }

    /// Whether something was left that the engine was not woken for. A turn takes it before it ends,
    /// or another is due.
    pub(super) fn has_unannounced(&self) -> bool {
        // Set and read by one thread.
        self.unannounced.load(Ordering::Relaxed)
    }

    pub(super) fn set_unannounced(&self, is_unannounced: bool) {
        self.unannounced.store(is_unannounced, Ordering::Relaxed);
    }

    /// Has a chain go on that waits without a request.
    fn ring(&self, id: RequestId) {
        let mut rung = self.rung();
        // Of an engine that is gone, so is the chain.
        if !rung.is_open {
            return;
        }
        let is_first = rung.ids.is_empty();
        rung.ids.push(id);
        drop(rung);
        if is_first {
            self.announce();
        }
    }

    /// Moves `most` ids, the first ones, to the end of `ids`. Answers how many.
    pub(super) fn take(&self, ids: &mut Vec<RequestId>, most: usize) -> usize {
        let mut rung = self.rung();
        let taken = most.min(rung.ids.len());
        ids.extend(rung.ids.drain(..taken));
        taken
    }

    /// Whether a chain was rung for that is not taken.
    pub(super) fn has_rung(&self) -> bool {
        !self.rung().ids.is_empty()
    }

    /// The engine ends.
    pub(super) fn close(&self) {
        let mut rung = self.rung();
        rung.is_open = false;
        rung.ids = Vec::new();
    }

    fn rung(&self) -> MutexGuard<'_, Rung> {
        // Nothing that runs under the lock can leave it half changed.
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").finish_non_exhaustive()
    }
}

/// Makes one chain due.
pub(super) struct Signal {
    id: RequestId,
    bell: Arc<Bell>,
    /// It has rung, and the chain has not been dealt with since: so each has one id left at most,
    /// however often it is woken.
    has_rung: AtomicBool,
}

impl Signal {
    pub(super) fn new(id: RequestId, bell: &Arc<Bell>) -> Arc<Self> {
        Arc::new(Self {
            id,
            bell: Arc::clone(bell),
            has_rung: AtomicBool::new(false),
        })
    }

    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// The chain is being dealt with: what wakes it from here on is not yet seen to.
    pub(super) fn reset(&self) {
        self.has_rung.store(false, Ordering::SeqCst);
    }
}

impl task::Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.has_rung.swap(true, Ordering::SeqCst) {
            self.bell.ring(self.id);
        }
    }
}
