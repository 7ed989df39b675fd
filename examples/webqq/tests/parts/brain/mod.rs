//! The server's brain, called directly: no sockets, and time is a number.

mod client;
mod faults;
mod https;
mod jar;
mod login;
mod polls;
mod random;
mod refusals;
mod sends;

use std::time::Duration;

use crate::server::{Account, ProtocolError, Server, Settings};
use client::Client;

/// The account of the published examples; its password is `password123`.
const NUMBER: u64 = 1685359365;

fn server() -> Server {
    let mut server = Server::new(Settings::default());
    server.add_account(Account::sample(NUMBER));
    server
}

/// A client that has not logged in.
fn stranger() -> Client {
    Client::new(server(), NUMBER)
}

/// A client with a session, whose poll is held.
fn online() -> Client {
    let mut client = stranger();
    client.log_in();
    client.hold_poll();
    client
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Returns the protocol errors, and whether each was provoked.
fn errors(server: &Server) -> Vec<(&str, bool)> {
    let errors = server.ledger().errors.iter();
    errors
        .map(|ProtocolError { what, provoked, .. }| (what.as_str(), *provoked))
        .collect()
}
