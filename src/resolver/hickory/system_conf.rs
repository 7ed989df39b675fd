//! The system's configuration where it is no file: as hickory reads it, from the registry or the system's configuration service.

use std::net::SocketAddr;

use hickory_resolver::system_conf::read_system_conf;
use log::warn;

use super::HickoryConfig;

/// The system's configuration, or the default.
pub(super) fn read() -> HickoryConfig {
    let mut config = HickoryConfig::default();
    match read_system_conf() {
        Ok((servers, options)) => {
            let addrs = servers.name_servers().iter().map(|server| {
                // Each server is there with UDP and with TCP, on one port.
                let port = server.connections.first().map_or(53, |udp| udp.port);
                SocketAddr::new(server.ip, port)
            });
            config.servers = addrs.collect();
            config.search = servers.search().iter().map(ToString::to_string).collect();
            config.timeout = options.timeout;
        }
        Err(error) => warn!("the system's name servers: {error}; asking the local machine"),
    }
    config
}
