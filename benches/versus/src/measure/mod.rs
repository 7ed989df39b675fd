//! What is measured, and how the processes that it is measured in are run.

mod callgrind;
mod child;
pub(crate) mod counts;
pub(crate) mod cpu;
pub(crate) mod growth;
pub(crate) mod held;
pub(crate) mod timers;
