//! An allocator that counts for each thread separately, so a server on another thread does not
//! count for the engine.
//!
//! This is the only unsafe code besides the crate, which has none. Files include it with `#[path]`.

#![allow(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]
#![allow(dead_code, reason = "not every program wants every count")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    // Constants without a destructor: reading them allocates nothing, and they outlive all other
    // thread-locals.
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<u64> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Returns how often this thread has allocated or reallocated memory.
pub(crate) fn calls() -> u64 {
    CALLS.get()
}

/// Returns the bytes that this thread has allocated. A block that grows counts with its new size.
pub(crate) fn bytes() -> u64 {
    BYTES.get()
}

/// Returns the bytes that this thread has allocated minus those it has freed. Memory that moves to
/// another thread is counted where it was allocated, and subtracted where it is freed.
pub(crate) fn live_bytes() -> isize {
    LIVE.get()
}

/// Returns the most that [`live_bytes`] has been since the last call of this function.
pub(crate) fn take_peak() -> isize {
    PEAK.replace(LIVE.get())
}

struct Counting;

fn note_taken(size: usize) {
    CALLS.set(CALLS.get() + 1);
    BYTES.set(BYTES.get() + size as u64);
    LIVE.set(LIVE.get() + size as isize);
    PEAK.set(PEAK.get().max(LIVE.get()));
}

fn note_freed(size: usize) {
    LIVE.set(LIVE.get() - size as isize);
}

// SAFETY: every call is forwarded to `System` with unchanged arguments, so the guarantees of
// `System` hold. `note_taken` and `note_freed` only touch integers, so they neither allocate nor
// unwind (LIVE cannot overflow: no layout is larger than `isize::MAX`, and a machine does not have
// room for two of them).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note_taken(layout.size());
        // SAFETY: the caller upholds the contract of `alloc`, which is also that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note_taken(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        note_freed(layout.size());
        // SAFETY: `block` came from this allocator, so from `System`, with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note_freed(layout.size());
        note_taken(new_size);
        // SAFETY: `block` came from `System` with this layout, and the caller guarantees that
        // `new_size` is valid.
        unsafe { System.realloc(block, layout, new_size) }
    }
}
