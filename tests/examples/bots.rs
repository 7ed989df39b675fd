//! The bots among the examples, for simulations of their servers.

#[allow(dead_code, reason = "`main` is not called here")]
#[path = "../../examples/matrix.rs"]
pub(crate) mod matrix;
#[allow(dead_code, reason = "`main` is not called here")]
#[path = "../../examples/telegram.rs"]
pub(crate) mod telegram;
