//! Modes: where an engine's sockets, time and readiness come from.

use crate::net::Net;
use crate::net::poll::{HostPoll, OwnPoll};
use crate::net::socket::MioNet;

/// The way an engine is driven: [`Owned`], [`Shared`], or `Sim` with feature `sim`. Sealed.
pub trait Mode: sealed::Sealed {}

/// The engine has a poll of its own. It runs itself with [`run`](crate::Engine::run), or joins
/// another loop through its file descriptor and deadline. Created by
/// [`Engine::new`](crate::Engine::new).
#[derive(Debug)]
pub enum Owned {}

impl Mode for Owned {}

impl sealed::Sealed for Owned {
    type Net = MioNet<OwnPoll>;
}

/// The engine uses the host's own [`mio::Poll`], with a range of tokens that the host provides.
/// Created by [`Engine::on_registry`](crate::Engine::on_registry).
#[derive(Debug)]
pub enum Shared {}

impl Mode for Shared {}

impl sealed::Sealed for Shared {
    type Net = MioNet<HostPoll>;
}

/// The engine is on a simulated network and clock; see [`sim`](crate::sim). Created by
/// [`Engine::on_network`](crate::Engine::on_network).
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
