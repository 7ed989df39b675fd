//! What a client process measures about itself: processor time, heap and the clock.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::job::Cost;
use crate::machine;

/// The system's allocator, with counters. Each client runs with it, and pays for it in proportion
/// to its allocations: about one or two percent of the instructions of those that allocate most.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicI64 = AtomicI64::new(0);

/// Counts allocated and freed bytes.
pub(crate) fn count(allocated: usize, freed: usize) {
    // Loads and stores instead of atomic exchanges: a lock prefix would cost more than all the
    // rest. Clients that allocate on several threads lose a few counts.
    ALLOCATIONS.store(
        ALLOCATIONS.load(Relaxed) + u64::from(allocated > 0),
        Relaxed,
    );
    ALLOCATED.store(ALLOCATED.load(Relaxed) + allocated as u64, Relaxed);
    LIVE.store(
        LIVE.load(Relaxed) + allocated as i64 - freed as i64,
        Relaxed,
    );
}

// SAFETY: all calls are forwarded to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's contract is that of `System`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's contract is that of `System`.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's contract is that of `System`.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size, layout.size());
        // SAFETY: the caller's contract is that of `System`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// Started when a client is warm, stopped when its last answer has arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    started: Reading,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    wall: Instant,
    user_seconds: f64,
    system_seconds: f64,
    allocations: u64,
    allocated: u64,
    live: i64,
    resident: i64,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self {
            started: Reading::now(),
        }
    }

    pub(crate) fn stop(self, answered: u64) -> Cost {
        let (from, to) = (self.started, Reading::now());
        Cost {
            wall_seconds: (to.wall - from.wall).as_secs_f64(),
            user_seconds: to.user_seconds - from.user_seconds,
            system_seconds: to.system_seconds - from.system_seconds,
            // Never less, unless two threads count at the same time.
            allocations: to.allocations.saturating_sub(from.allocations),
            allocated_bytes: to.allocated.saturating_sub(from.allocated),
            heap_bytes: to.live - from.live,
            resident_bytes: to.resident - from.resident,
            answered,
            median_latency_seconds: None,
        }
    }
}

impl Reading {
    fn now() -> Self {
        let (user_seconds, system_seconds) = machine::computed_here();
        Self {
            wall: Instant::now(),
            user_seconds,
            system_seconds,
            allocations: ALLOCATIONS.load(Relaxed),
            allocated: ALLOCATED.load(Relaxed),
            live: LIVE.load(Relaxed),
            resident: resident_pages().unwrap_or(0) * 4096,
        }
    }
}

/// Returns the second number of proc_pid_statm(5). It must not allocate, since that would be
/// counted.
fn resident_pages() -> Option<i64> {
    let mut text = [0; 128];
    let n = File::open("/proc/self/statm").ok()?.read(&mut text).ok()?;
    let text = std::str::from_utf8(&text[..n]).ok()?;
    text.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meter_counts_what_is_allocated_and_nothing_of_its_own() {
        // Other tests allocate at the same time, so this looks at the least and the median of many
        // counts.
        let counts = |work: fn()| {
            let mut counts: Vec<u64> = (0..1000)
                .map(|_| {
                    let meter = Meter::start();
                    work();
                    meter.stop(1).allocations
                })
                .collect();
            counts.sort_unstable();
            counts
        };
        assert_eq!(counts(|| ())[0], 0);
        assert!(counts(|| drop(std::hint::black_box(vec![0_u8; 100])))[500] >= 1);
    }
}
