//! The WebQQ example, part by part.

#[allow(dead_code, reason = "the example and its tests each use a part")]
#[path = "../../examples/webqq/server/mod.rs"]
mod server;

mod brain;
mod front_end;
