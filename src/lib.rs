//! An HTTP/1.1 client engine on a hand-rolled mio event loop.

mod config;
mod engine;
mod error;
mod net;
mod proto;
mod request;
pub mod resolver;
mod sched;
#[cfg(feature = "sim")]
pub mod sim;

pub use config::{Config, Limits, Timeouts};
#[cfg(any())]
pub use engine::Sim;
pub use engine::{
    Context, Engine, Flow, Info, Mode, Next, Owned, Readback, Reply, RequestId, Response, Stats,
    Submitter, Timings, Turn, Unread, within, within_to,
};
pub use error::{Error, ErrorKind, Gone, Phase, Sent};
pub use proto::{Headers, Origin, Scheme, Violation};
pub use request::{Invalid, InvalidPart, Request, RequestBuilder};

/// The README's example is compiled as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
