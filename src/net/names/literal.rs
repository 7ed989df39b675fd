//! IP address literals, with or without a zone id. They need no lookup.
//!
//! A zone id (RFC 4007 §11) is the number or the name of a network interface of this host. The
//! operating system maps names to numbers. It is asked each time, since interfaces come and go, and
//! answers at once without using the network.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};

use crate::net::Machine;
use crate::resolver::{LookupError, spare_descriptors};

/// Parses `host` if it is an address.
///
/// # Errors
/// [`LookupError::Failed`] if the zone names an interface that this host does not have.
pub(super) fn read(
    host: &str,
    port: u16,
    machine: Machine,
) -> Result<Option<SocketAddr>, LookupError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Some(SocketAddr::new(ip, port)));
    }
    let Some((addr, zone)) = host.split_once('%') else {
        return Ok(None);
    };
    match addr.parse::<Ipv6Addr>() {
        Ok(ip) => {
            let scope_id = scope_id(zone, machine)?;
            Ok(Some(SocketAddrV6::new(ip, port, 0, scope_id).into()))
        }
        Err(_) => Ok(None),
    }
}

/// Returns the number of a zone. A zone written as a number is that number, even if an interface
/// has it as its name.
fn scope_id(zone: &str, machine: Machine) -> Result<u32, LookupError> {
    if zone.bytes().all(|b| b.is_ascii_digit()) {
        let number = zone.parse();
        return number.map_err(|_| LookupError::Failed(format!("zone id {zone} is too large")));
    }
    let unknown = || LookupError::Failed(format!("no network interface {zone:?}"));
    match machine {
        Machine::Real => match interface_number(zone) {
            Some(number) => Ok(number),
            None => {
                // The lookup of an interface needs a file descriptor.
                spare_descriptors()?;
                Err(unknown())
            }
        },
        Machine::Simulated => Err(unknown()),
    }
}

/// Reads the number from an address parsed by `getaddrinfo`, which for this needs neither a file
/// nor the network.
///
/// The address is a link-local one, since glibc looks up interface names for no others.
fn interface_number(name: &str) -> Option<u32> {
    let mut addrs = (format!("fe80::%{name}"), 0).to_socket_addrs().ok()?;
    match addrs.next()? {
        SocketAddr::V6(addr) => Some(addr.scope_id()).filter(|number| *number != 0),
        SocketAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as_text(host: &str, machine: Machine) -> Result<Option<String>, String> {
        match read(host, 8, machine) {
            Ok(addr) => Ok(addr.map(|addr| addr.to_string())),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn addresses_are_read_and_names_are_not() {
        #[rustfmt::skip]
        const ROWS: &[(&str, Result<Option<&str>, &str>)] = &[
            ("192.0.2.1", Ok(Some("192.0.2.1:8"))),
            ("2001:db8::1", Ok(Some("[2001:db8::1]:8"))),
            ("fe80::1%2", Ok(Some("[fe80::1%2]:8"))),
            ("fe80::1%4294967295", Ok(Some("[fe80::1%4294967295]:8"))),
            ("fe80::1%4294967296", Err("zone id 4294967296 is too large")),
            ("2001:db8::1%3", Ok(Some("[2001:db8::1%3]:8"))),
            ("fe80::1%no-such-if", Err("no network interface \"no-such-if\"")),
            ("fe80::1%..", Err("no network interface \"..\"")),
            ("h.test", Ok(None)),
            ("1.2.3", Ok(None)),
            ("192.0.2.1%2", Ok(None)),
        ];
        for (host, expected) in ROWS {
            let expected = match expected {
                Ok(addr) => Ok(addr.map(str::to_owned)),
                Err(why) => Err((*why).to_owned()),
            };
            assert_eq!(read_as_text(host, Machine::Real), expected, "{host}");
        }
    }

    #[test]
    fn a_name_of_an_interface_is_its_number() {
        let index = |name: &str| std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"));
        let Ok(index) = index("lo") else {
            println!("skipped: this host does not expose the number of an interface \"lo\"");
            return;
        };
        // Any address may have a zone, although an interface name only means something for
        // link-local ones.
        for addr in ["fe80::1", "::1"] {
            let expected = format!("[{addr}%{}]:8", index.trim());
            let found = read_as_text(&format!("{addr}%lo"), Machine::Real);
            assert_eq!(found, Ok(Some(expected)));
        }
    }

    #[test]
    fn a_simulation_has_no_interfaces() {
        let simulated = |host| read_as_text(host, Machine::Simulated);
        assert_eq!(simulated("fe80::1%7"), Ok(Some("[fe80::1%7]:8".to_owned())));
        let unknown = Err("no network interface \"lo\"".to_owned());
        assert_eq!(simulated("fe80::1%lo"), unknown);
    }
}
