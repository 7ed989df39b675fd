//! Policy about time; `now` is an argument.

pub(crate) mod wheel;
