//! A bot's configuration.

use std::time::Duration;

use crate::outbox::Long;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) account: u64,
    pub(crate) password: String,
    /// The divisor of all waits of the protocol; 1 for real time.
    pub(crate) scale: f64,
    /// The shortest time that the bot waits for an answer. A demonstration compresses waits, but a
    /// slow machine needs as long as ever.
    pub(crate) least_patience: Duration,
    /// Between two refreshes of the lists.
    pub(crate) refresh: Duration,
    /// The longest message, in characters.
    pub(crate) max_text: usize,
    pub(crate) long: Long,
    pub(crate) seed: u64,
    /// Wall-clock time at the start, since the Unix epoch.
    pub(crate) epoch: Duration,
    pub(crate) https: Https,
}

/// How the protocol's https steps are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Https {
    /// Over http, to a server without TLS, which redirects to no other.
    AsHttp,
    OverTls,
}
