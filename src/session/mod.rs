//! Sessions: what the requests of one conversation share.

#[cfg(feature = "cookies")]
mod jar;
#[cfg(not(feature = "cookies"))]
#[path = "jar/absent.rs"]
mod jar;

pub use jar::Jar;
