//! What is measured, and how the processes that it is measured in are run.

mod child;
pub(crate) mod held;
pub(crate) mod timers;
