//! Adapters to other event loops. They are thin, and use only what any host can use, with one
//! exception: whether `run` would continue.

#[cfg(feature = "calloop")]
pub mod calloop;
#[cfg(feature = "tokio")]
pub mod tokio;
