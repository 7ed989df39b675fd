//! The WebQQ example: its parts, each for itself, and all of it.

#![allow(dead_code, reason = "the example and its tests each use a part")]

#[path = "../../examples/webqq/jar.rs"]
mod jar;
#[path = "../../examples/webqq/server/mod.rs"]
mod server;

#[path = "jar.rs"]
mod jar_tests;
