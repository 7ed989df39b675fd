//! Engines in the event loops of others: thin, and written against the public interface, as a host could do it itself.

#[cfg(feature = "calloop")]
pub mod calloop;
#[cfg(feature = "tokio")]
pub mod tokio;
