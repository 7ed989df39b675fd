//! The C interface of httpstream. Its documentation is the header, `include/httpstream.h`, which is
//! made from these files.
//!
//! - `types`: the numbers and structs that cross
//! - `errors`: error numbers, their words, and the guard that keeps panics in
//! - `raw`: from C's pointers to slices and back
//! - `handles`: numbers in place of pointers
//! - `ids`: of chains
//! - `shared`: what all threads see: requests, configurations, and which engines there are; and
//!   what a fork leaves of it
//! - `config`, `request`: values that are put together call by call
//! - `engine`: engines, each on its thread
//! - `readback`: C's callbacks as a readback of the engine
//! - `reply`: what a callback is lent
//!
//! Rules: `unsafe` stands where a pointer of C's is read, a callback called, or something lent
//! whose lifetime C cannot know. Everything that C calls goes through `errors::guard`. No lock is
//! held, and no table borrowed, while a callback runs.

// In the order of the header.
mod types;

mod errors;

mod config;

mod engine;

mod request;

mod readback;
mod reply;

// What they stand on.
mod handles;
mod ids;
mod knobs;
mod raw;
mod shared;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
