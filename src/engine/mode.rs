//! Owned, Shared, Sim: where sockets, time and readiness come from.

use crate::net::Net;
use crate::net::poll::{HostPoll, OwnPoll};
use crate::net::socket::MioNet;

/// How an engine is driven: [`Owned`], [`Shared`], or `Sim` with feature `sim`. Sealed.
pub trait Mode: sealed::Sealed {}

/// On a poll of the engine's own: it drives itself with [`run`](crate::Engine::run), or hangs in
/// another loop by one file descriptor and one deadline.
#[derive(Debug)]
pub enum Owned {}

impl Mode for Owned {}

impl sealed::Sealed for Owned {
    type Net = MioNet<OwnPoll>;
}

/// On the host's own [`mio::Poll`], under tokens that the host lends; see
/// [`Engine::on_registry`](crate::Engine::on_registry).
#[derive(Debug)]
pub enum Shared {}

impl Mode for Shared {}

impl sealed::Sealed for Shared {
    type Net = MioNet<HostPoll>;
}

/// On a simulated network and clock; see [`sim`](crate::sim).
#[cfg(feature = "sim")]
#[derive(Debug)]
pub enum Sim {}

#[cfg(feature = "sim")]
impl Mode for Sim {}

#[cfg(feature = "sim")]
impl sealed::Sealed for Sim {
    type Net = crate::sim::SimNet;
}

pub(crate) mod sealed {
    use super::Net;

    pub trait Sealed {
        type Net: Net;
    }
}
