//! The parts of the WebQQ example, each for itself.

#[path = "../../examples/webqq/jar.rs"]
mod jar;
#[path = "jar.rs"]
mod jar_tests;
