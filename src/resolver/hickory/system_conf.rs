//! The system's configuration where it is not a file: read by hickory from the registry or the
//! system's configuration service.

use std::net::SocketAddr;
use std::time::Instant;

use hickory_resolver::config::NameServerConfig;
use hickory_resolver::system_conf::read_system_conf;
use log::warn;

use super::HickoryConfig;

/// The source of the configuration. Without a file there is no stamp to compare, so the
/// configuration is reread only on request.
#[derive(Debug)]
pub(super) struct Watched {
    is_forgotten: bool,
}

impl Watched {
    pub(super) fn system() -> (Self, HickoryConfig) {
        let watched = Self {
            is_forgotten: false,
        };
        (watched, read())
    }

    /// Returns the configuration if it may have changed.
    pub(super) fn look(&mut self, _: Instant) -> Option<HickoryConfig> {
        std::mem::take(&mut self.is_forgotten).then(read)
    }

    /// Forces the configuration to be reread.
    pub(super) fn forget(&mut self) {
        self.is_forgotten = true;
    }
}

/// Reads the system's configuration, or returns the default if that fails.
fn read() -> HickoryConfig {
    let mut config = HickoryConfig::default();
    let (system, options) = match read_system_conf() {
        Ok(found) => found,
        Err(error) => {
            warn!(
                "cannot read the system's name servers: {error}; using the one on the local host"
            );
            return config;
        }
    };
    // Each server is listed with UDP and TCP, both on the same port.
    let addr = |server: &NameServerConfig| {
        let udp = server.connections.first()?;
        Some(SocketAddr::new(server.ip, udp.port))
    };
    let servers: Vec<_> = system.name_servers().iter().filter_map(addr).collect();
    if !servers.is_empty() {
        config.servers = servers;
    }
    let search = system.search().iter().filter(|domain| !domain.is_root());
    config.search = search.map(ToString::to_string).collect();
    config.ndots = u8::try_from(options.ndots).unwrap_or(config.ndots);
    config.timeout = options.timeout;
    config
}
