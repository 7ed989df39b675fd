//! The system's configuration where it is no file: as hickory reads it, from the registry or the
//! system's configuration service.

use std::net::SocketAddr;
use std::time::Instant;

use hickory_resolver::config::NameServerConfig;
use hickory_resolver::system_conf::read_system_conf;
use log::warn;

use super::HickoryConfig;

/// Where the configuration comes from. What has no file has no stamp either: it is read again only
/// when it is asked to be.
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

    /// The configuration, if it may be another than before.
    pub(super) fn look(&mut self, _: Instant) -> Option<HickoryConfig> {
        std::mem::take(&mut self.is_forgotten).then(read)
    }

    /// Has it read again.
    pub(super) fn forget(&mut self) {
        self.is_forgotten = true;
    }
}

/// The system's configuration, or the default.
fn read() -> HickoryConfig {
    let mut config = HickoryConfig::default();
    let (system, options) = match read_system_conf() {
        Ok(found) => found,
        Err(error) => {
            warn!("the system's name servers: {error}; asking the local machine");
            return config;
        }
    };
    // Each server is there with UDP and with TCP, on one port.
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
