//! The measurements, and the processes that they run in.

mod callgrind;
mod child;
pub(crate) mod counts;
pub(crate) mod cpu;
pub(crate) mod growth;
pub(crate) mod held;
pub(crate) mod timers;
pub(crate) mod transfers;
