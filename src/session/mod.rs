//! Sessions: what the requests of one conversation share.

mod auth;

pub use auth::Auth;
