//! What all threads see: requests, configurations, and which engines there are. And forks.
//!
//! There is one lock. It is never held while a callback runs or an engine is touched, and a fork
//! waits for it: so a child finds the tables whole, and can use its requests and configurations.
//! Engines of before the fork it cannot use: their sockets and their epoll are the parent's as
//! well, and one deregistration by the child would silence the parent.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use httpstream::Submitter;

use crate::config::Draft;
use crate::errors::{Code, Fault};
use crate::handles::{Kind, Table};
use crate::request::Written;

/// The tables under the lock.
pub(crate) struct Shared {
    pub(crate) configs: Table<Draft>,
    pub(crate) requests: Table<Written>,
    /// A tree, not a hash table: a hash table is reached by a pointer into the middle of its
    /// memory, which valgrind reports as possibly lost.
    engines: BTreeMap<u64, Known>,
    last_engine: u64,
}

/// What is known of an engine on all threads.
struct Known {
    born: Birth,
    submitter: Submitter<()>,
}

static SHARED: Mutex<Shared> = Mutex::new(Shared {
    configs: Table::new(Kind::Config),
    requests: Table::new(Kind::Request),
    engines: BTreeMap::new(),
    last_engine: 0,
});

/// How many forks lie between this process and the one that loaded the library.
static FORKS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The lock, from before a fork to after it.
    static HELD: RefCell<Option<MutexGuard<'static, Shared>>> = const { RefCell::new(None) };
}

/// The process that something was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Birth(u32);

impl Birth {
    pub(crate) fn now() -> Self {
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Whether this is still that process.
    pub(crate) fn is_here(self) -> bool {
        self == Self::now()
    }
}

/// The tables.
pub(crate) fn shared() -> MutexGuard<'static, Shared> {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(watch_forks);
    lock()
}

fn lock() -> MutexGuard<'static, Shared> {
    // Nothing that runs under the lock leaves a table half changed.
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch_forks() {
    // SAFETY: the three are functions for as long as the library is loaded, and do what is allowed
    // there: an atomic, and a lock that this very thread holds.
    let refused = unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    // Out of memory, which ends a program sooner or later anyway; what is lost is the recognition
    // of forks.
    debug_assert_eq!(refused, 0, "pthread_atfork");
}

extern "C" fn before() {
    let _ = HELD.try_with(|held| held.replace(Some(lock())));
}

extern "C" fn in_parent() {
    let _ = HELD.try_with(RefCell::take);
}

extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    let _ = HELD.try_with(RefCell::take);
}

impl Shared {
    /// Makes an engine of this thread known; answers its number.
    pub(crate) fn announce(&mut self, submitter: Submitter<()>) -> u64 {
        self.last_engine += 1;
        let number = self.last_engine;
        let known = Known {
            born: Birth::now(),
            submitter,
        };
        self.engines.insert(number, known);
        number
    }

    /// The way into an engine from any thread of its process.
    pub(crate) fn submitter(&mut self, handle: u64) -> Result<Submitter<()>, Fault> {
        let number = Kind::Engine.number(handle)?;
        match self.engines.get(&number) {
            Some(known) if known.born.is_here() => Ok(known.submitter.clone()),
            Some(_) => Err(forked(handle)),
            None => Err(self.gone(handle, number)),
        }
    }

    /// Why this thread has no such engine.
    pub(crate) fn why_not_here(&mut self, handle: u64, number: u64) -> Fault {
        match self.engines.get(&number) {
            Some(known) if !known.born.is_here() => forked(handle),
            Some(_) => {
                let whose = "belongs to another thread";
                Fault::new(Code::Thread, Kind::Engine.words(handle, whose))
            }
            None => self.gone(handle, number),
        }
    }

    fn gone(&self, handle: u64, number: u64) -> Fault {
        match (1..=self.last_engine).contains(&number) {
            true => Kind::Engine.freed(handle),
            false => Kind::Engine.never_made(handle),
        }
    }
}

/// Forgets an engine that is freed.
pub(crate) fn retire(number: u64) {
    let known = shared().engines.remove(&number);
    // Not under the lock: the last submitter wakes its engine as it goes.
    drop(known);
}

pub(crate) fn forked(handle: u64) -> Fault {
    let what = "is the parent's: this process was forked off the one that made it";
    Fault::new(Code::Forked, Kind::Engine.words(handle, what))
}
