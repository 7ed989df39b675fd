//! The programs in `examples/`, run as separate processes, and the parts of them that
//! docs/EMBEDDING.md shows.

#[path = "../programs/mod.rs"]
mod programs;
#[path = "../servers/mod.rs"]
mod servers;

mod cores;
mod corpus;
mod embedding_doc;
mod hosts;
#[cfg(feature = "tls")]
mod real_servers;
mod small;
