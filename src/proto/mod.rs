//! Sans-IO HTTP/1.1: bytes in, events out; no socket, no clock.

pub(crate) mod chunked;
pub(crate) mod connection;
pub(crate) mod field;
pub(crate) mod framing;
pub(crate) mod head;
mod limits;
mod origin;
pub(crate) mod target;
mod violation;

pub use field::Headers;
pub use limits::Limits;
pub use origin::{Origin, Scheme};
pub use violation::Violation;
