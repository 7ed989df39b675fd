//! An allocator that counts, each thread by itself: what a server on another thread does is not the
//! engine's.
//!
//! This is the only unsafe code beside the crate, which has none. A file takes it with `#[path]`.

#![allow(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]
#![allow(dead_code, reason = "not every program wants every count")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    // Constants without a destructor: reading them allocates nothing, and they outlive every other
    // thread local.
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

/// How often this thread has asked for memory: fresh, or more or less of what it had.
pub(crate) fn calls() -> u64 {
    CALLS.get()
}

/// Bytes that this thread has asked for, less those it has given back. What moves to another thread
/// is counted where it came from, and freed where it went.
pub(crate) fn live_bytes() -> isize {
    LIVE.get()
}

struct Counting;

fn note(calls: u64, bytes: isize) {
    CALLS.set(CALLS.get() + calls);
    LIVE.set(LIVE.get() + bytes);
}

// SAFETY: every call goes on to `System` with the very arguments it came with, so that what
// `System` promises holds for it; and `note` touches nothing but two integers, so that it neither
// allocates nor unwinds (LIVE cannot overflow: no layout is larger than `isize::MAX`, and a machine
// has not room for two of them).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`, which is `System`'s too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        note(0, -(layout.size() as isize));
        // SAFETY: `block` came from this allocator, so from `System`, with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(1, new_size as isize - layout.size() as isize);
        // SAFETY: `block` came from `System` with this layout, and the caller vouches for
        // `new_size`.
        unsafe { System.realloc(block, layout, new_size) }
    }
}
