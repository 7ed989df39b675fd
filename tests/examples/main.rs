//! The programs in `examples/`, as processes of their own, and what docs/EMBEDDING.md shows of them.

#[path = "../cargo/mod.rs"]
mod cargo;
#[path = "../programs/mod.rs"]
mod programs;
#[path = "../servers/mod.rs"]
mod servers;

mod cores;
mod embedding_doc;
mod hosts;
mod real_servers;
