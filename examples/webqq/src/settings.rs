//! What a bot is told before it begins.

use std::time::Duration;

use crate::outbox::Long;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) account: u64,
    pub(crate) password: String,
    /// By how much all waits of the protocol are divided: 1 in earnest.
    pub(crate) scale: f64,
    /// How long the bot waits for an answer at least: waits are compressed in a demonstration, how
    /// long a slow machine may take is not.
    pub(crate) least_patience: Duration,
    /// Between two refreshes of the lists.
    pub(crate) refresh: Duration,
    /// How many characters a message may have.
    pub(crate) max_text: usize,
    pub(crate) long: Long,
    pub(crate) seed: u64,
    /// The wall clock's time at the beginning.
    pub(crate) epoch: Duration,
    pub(crate) https: Https,
}

/// How the https steps go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Https {
    /// Over http, to a server without TLS.
    AsHttp,
    OverTls,
}
