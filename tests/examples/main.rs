//! The programs in `examples/`, as processes of their own, and what docs/EMBEDDING.md shows of
//! them.

#[path = "../programs/mod.rs"]
mod programs;
#[path = "../servers/mod.rs"]
mod servers;

mod cores;
mod embedding_doc;
mod hosts;
#[cfg(feature = "tls")]
mod real_servers;
