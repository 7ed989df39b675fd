//! The WebQQ example, part by part.

#[allow(dead_code, reason = "each of the example and its tests uses a part")]
#[path = "../../examples/webqq/server/mod.rs"]
mod server;

mod front_end;
