//! Time-based scheduling. The current time is always an argument.

pub(crate) mod wheel;
