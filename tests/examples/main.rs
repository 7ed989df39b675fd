//! The programs in `examples/`, run as separate processes; the bots among them, on simulated
//! networks; and the parts of them that docs/EMBEDDING.md shows.

#[path = "../programs/mod.rs"]
mod programs;
#[path = "../servers/mod.rs"]
mod servers;

mod bots;
mod cores;
mod corpus;
mod embedding_doc;
#[cfg(all(unix, feature = "tls"))]
mod get;
mod hosts;
mod matrix;
mod outbox;
#[cfg(feature = "tls")]
mod real_servers;
mod small;
mod telegram;
mod ws;
