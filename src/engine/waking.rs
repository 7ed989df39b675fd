//! Makes a turn of an engine due from any thread, without a system call if that turn is already
//! running.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::resolver::Wake;

/// Wakes an engine from any thread.
pub(crate) struct Waking {
    wake: Wake,
    /// Whether work was left, here or in the inbox, for which no wakeup was sent, because it came
    /// from inside a turn or was more than one turn takes.
    unannounced: AtomicBool,
}

thread_local! {
    /// The engine whose turn runs on this thread; the innermost one, if there are several.
    static TURNING: Cell<*const Waking> = const { Cell::new(std::ptr::null()) };
}

/// While this guard exists, its thread is inside a turn.
pub(super) struct Inside {
    before: *const Waking,
}

impl Drop for Inside {
    #[inline]
    fn drop(&mut self) {
        TURNING.set(self.before);
    }
}

impl Waking {
    pub(super) fn new(wake: Wake) -> Self {
        Self {
            wake,
            unannounced: AtomicBool::new(false),
        }
    }

    /// Enters a turn on this thread. The turn lasts as long as the returned guard.
    #[inline]
    pub(super) fn enter(self: &Arc<Self>) -> Inside {
        Inside {
            before: TURNING.replace(Arc::as_ptr(self)),
        }
    }

    /// Returns whether a turn of this engine runs on the calling thread.
    pub(super) fn is_turning_here(&self) -> bool {
        std::ptr::eq(TURNING.get(), self)
    }

    /// Announces the first work left for the engine since its last turn. This wakes the engine,
    /// unless its own turn runs on this thread and takes the work before it ends.
    pub(super) fn announce(&self) {
        if self.is_turning_here() {
            self.unannounced.store(true, Ordering::Relaxed)
        } else {
            self.wake.wake()
        }
    }

    /// Returns whether work was left for which no wakeup was sent. The current turn takes it before
    /// it ends, or makes the next turn due.
    #[inline]
    pub(super) fn has_unannounced(&self) -> bool {
        // Relaxed, because only the engine's thread sets and reads the flag.
        self.unannounced.load(Ordering::Relaxed)
    }

    pub(super) fn set_unannounced(&self, is_unannounced: bool) {
        self.unannounced.store(is_unannounced, Ordering::Relaxed);
    }
}

impl fmt::Debug for Waking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waking").finish_non_exhaustive()
    }
}
