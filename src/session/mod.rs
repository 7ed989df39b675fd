//! Sessions: what the requests of one conversation share.
