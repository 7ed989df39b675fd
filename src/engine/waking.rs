//! Waking: makes a turn of an engine due, from any thread, without a system call where that turn is
//! under way already.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::resolver::Wake;

/// Wakes an engine, from any thread.
pub(crate) struct Waking {
    wake: Wake,
    /// Something lies here, or in the inbox, which the engine was not woken for: it came from
    /// inside a turn, or was more than one turn takes.
    unannounced: AtomicBool,
}

thread_local! {
    /// The engine whose turn runs on this thread; of several, the innermost.
    static TURNING: Cell<*const Waking> = const { Cell::new(std::ptr::null()) };
}

/// While it is there, this thread is inside a turn.
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

    /// A turn begins on this thread, and lasts as long as what is returned.
    #[inline]
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
        if self.is_turning_here() {
            self.unannounced.store(true, Ordering::Relaxed)
        } else {
            self.wake.wake()
        }
    }

    /// Whether something was left that the engine was not woken for. A turn takes it before it
    /// ends, or another is due.
    #[inline]
    pub(super) fn has_unannounced(&self) -> bool {
        // Set and read by one thread.
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
