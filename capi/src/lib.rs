//! The C interface of httpstream. Its documentation is the header, `include/httpstream.h`, which
//! cbindgen generates from these files.
//!
//! - `types`: constants, handle types and structs of the interface
//! - `errors`: error numbers and messages, and the guard that stops panics
//! - `raw`: conversion between C's pointers and slices
//! - `handles`: numbers in place of pointers
//! - `ids`: ids of chains
//! - `shared`: what all threads share (requests, configurations, the list of engines), and how
//!   forks affect it
//! - `config`, `request`: values built call by call
//! - `engine`: engines, each on its thread
//! - `readback`: C callbacks as a readback of the engine
//! - `reply`: replies lent to callbacks
//!
//! Rules: `unsafe` appears only where a C pointer is read, a callback is called, or something is
//! lent whose lifetime C cannot express. Every function that C calls goes through `errors::guard`.
//! No lock is held, and no table borrowed, while a callback runs.

// These modules appear in the header, in this order.
mod types;

mod errors;

mod config;

mod engine;

mod request;

mod readback;
mod reply;

// Internal modules.
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
