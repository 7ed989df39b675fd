//! Engines in the event loops of others: thin, and by what any host may use, but for one question:
//! whether `run` would go on.

#[cfg(feature = "calloop")]
pub mod calloop;
#[cfg(feature = "tokio")]
pub mod tokio;
