//! The engine: decides what happens next, and when. All other parts meet here.
//!
//! [`Engine`] runs user code. [`Core`](core::Core) does everything else: it holds connections,
//! exchanges and chains, and joins them. Their methods are spread over the files in the two lists
//! below, in the order of a turn. A file calls only files below it in its list, which
//! `tests/layers.rs` enforces.
//!
//! Methods of [`Engine`], which runs user code, and of `Core`, as far as they read links:
//! - `turn`: one turn of the loop, its order and its bounds
//! - `overdue`: expired deadlines; what the kernel has buffered is read first
//! - `timers`: delays, deadlines and idle links that are due
//! - `feed`: from bytes to responses
//! - `receive`: reads the socket, or the TLS state
//! - `body`: passes a body on, through its decoders if it has any
//! - `finish`: completes a response; reuses or closes its link
//! - `reply`: calls policies and readbacks, and acts on what they return
//!
//! Methods of `Core`, from what is asked for to what is written:
//! - `commands`: carries commands out, and hands freed links to waiting requests
//! - `pipeline`: moves a pipeline on when a response is complete
//! - `begin`: begins a step of a chain: its policy, its origin, its delay
//! - `queue`: finds a link for a request, or a place in its origin's queue
//! - `ahead`: opens a link before there is a request for it
//! - `dialing`: connects a link
//! - `shortage`: handles connections that this machine has no resources for
//! - `secure`: the handshakes of a link
//! - `sending`: puts a request on a link and writes it
//! - `supplying`: sends bodies that are read from sources
//! - `writing`: parts of a write that all kinds of requests share
//! - `visits`: calls a policy
//! - `probing`: checks whether a kept connection may be given a request
//! - `fail`: ends an exchange without a response
//! - `closing`: closes a link
//! - `waiting`: the queues of chains that wait for a link
//! - `tunnels`: the sources and the deadlines of tunnels
//! - `deadlines`: delays and deadlines
//! - `metering`: measures exchanges whose speed is limited
//! - `core`: the parts, and what all of the files above need
//!
//! The parts, each of which owns its data: `agenda` (the remaining work of this turn), `chains` and
//! `chain`, `generations`, `keys`, `chain_deadlines`, `outbox`, `asks` (the readbacks, and what a
//! running readback is lent), `visit`, `meter`, `supplies`, `clock`, `quiet`, `ages`, `lookups`,
//! `buffers`, `settings`, `stats`, `alerts`. Links and their pool are in `net`, the exchanges of a
//! link in `h1`.
//!
//! The public interface: `api`, `readback`, `within`, `future`, `opening`, `task`, `submitter`,
//! `local`, `orders`, `waking`, `mode`, `owned`, `shared`, `simulated`.

// First, because the documentation lists methods in this order, and should begin with
// `Engine::new`.
mod owned;

mod agenda;
mod ages;
mod ahead;
mod alerts;
mod api;
mod asks;
mod begin;
mod body;
mod buffers;
mod chain;
mod chain_deadlines;
mod chains;
mod clock;
mod closing;
mod commands;
mod core;
mod deadlines;
mod dialing;
mod fail;
mod feed;
mod finish;
mod future;
mod generations;
mod keys;
mod local;
mod lookups;
mod meter;
mod metering;
mod mode;
mod opening;
mod orders;
mod outbox;
mod overdue;
mod pipeline;
mod probing;
mod queue;
mod quiet;
mod readback;
mod receive;
mod reply;
mod secure;
mod sending;
mod settings;
mod shared;
mod shortage;
#[cfg(feature = "sim")]
mod simulated;
mod stats;
mod submitter;
mod supplies;
mod supplying;
mod task;
mod timers;
mod tunnels;
mod turn;
mod visit;
mod visits;
mod waiting;
mod waking;
mod within;
mod writing;

pub use api::Engine;
pub use local::Local;
#[cfg(feature = "sim")]
pub use mode::Sim;
pub use mode::{Mode, Owned, Shared};
pub use readback::{Context, Flow, Next, Readback, ReadbackFn, Unread};
pub use stats::{OriginStats, Stats};
pub use submitter::{KeepAlive, Submitter};
pub use turn::Turn;
pub use within::{within, within_call, within_to};
