//! The state that all threads share: requests, configurations and the list of engines; and fork
//! handling.
//!
//! There is one lock. It is never held while a callback runs or an engine is used, and it is held
//! across a fork, so a child process finds the tables consistent and can use its requests and
//! configurations. A child cannot use engines from before the fork: it shares their sockets and
//! their epoll with the parent, and one deregistration by the child would cut the parent off from
//! its events.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use httpstream::Submitter;

use crate::config::Draft;
use crate::errors::{Code, Fault};
use crate::handles::{Kind, Table};
use crate::request::Written;

/// The tables, guarded by the lock.
pub(crate) struct Shared {
    pub(crate) configs: Table<Draft>,
    pub(crate) requests: Table<Written>,
    /// A tree rather than a hash table: a hash table is referenced by a pointer into the middle of
    /// its memory, which valgrind reports as possibly lost.
    engines: BTreeMap<u64, Known>,
    last_engine: u64,
}

/// The part of an engine that every thread can reach.
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

/// The number of forks between the process that loaded the library and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// Holds the lock from before a fork until after it.
    static HELD: RefCell<Option<MutexGuard<'static, Shared>>> = const { RefCell::new(None) };
}

/// The process in which an object was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Birth(u32);

impl Birth {
    pub(crate) fn now() -> Self {
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Returns whether this is still that process.
    pub(crate) fn is_here(self) -> bool {
        self == Self::now()
    }
}

/// Locks the tables. The first call registers the fork handlers.
pub(crate) fn shared() -> MutexGuard<'static, Shared> {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(watch_forks);
    lock()
}

fn lock() -> MutexGuard<'static, Shared> {
    // Poisoning can be ignored: nothing that runs under the lock leaves a table half changed.
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch_forks() {
    // SAFETY: the three functions exist as long as the library is loaded. They do only what is
    // allowed in a fork handler: they change an atomic, and take or release a lock on this very
    // thread.
    let refused = unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    // pthread_atfork fails only when memory is exhausted, which sooner or later ends the program
    // anyway. Without the handlers, forks are not detected.
    debug_assert_eq!(refused, 0, "pthread_atfork failed");
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
    /// Adds an engine of this thread and returns its number.
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

    /// Returns the submitter of an engine, which any thread of its process can use.
    pub(crate) fn submitter(&mut self, handle: u64) -> Result<Submitter<()>, Fault> {
        let number = Kind::Engine.number(handle)?;
        match self.engines.get(&number) {
            Some(known) if known.born.is_here() => Ok(known.submitter.clone()),
            Some(_) => Err(forked(handle)),
            None => Err(self.gone(handle, number)),
        }
    }

    /// Returns the reason why this thread has no such engine.
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

/// Removes an engine that is being freed.
pub(crate) fn retire(number: u64) {
    let known = shared().engines.remove(&number);
    // Dropped outside the lock: dropping the last submitter wakes its engine.
    drop(known);
}

pub(crate) fn forked(handle: u64) -> Fault {
    let what = "belongs to the parent process: this process is a fork of the one that created it";
    Fault::new(Code::Forked, Kind::Engine.words(handle, what))
}
