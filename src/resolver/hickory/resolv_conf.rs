//! The system's configuration where it is a file: `/etc/resolv.conf`, resolv.conf(5).
//!
//! Read here rather than by hickory, whose reader refuses the whole file for one search domain it does not like, loses the scope of a
//! link-local server, and searches the domain of the host's own name where the file has a search list. A line that is not
//! understood is skipped, as the C library does.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use log::{Level, log, warn};

use super::HickoryConfig;

const PATH: &str = "/etc/resolv.conf";
const PORT: u16 = 53;

// As in the C library's resolv.h: more servers are not asked, larger options are cut.
const MAX_SERVERS: usize = 3;
const MAX_NDOTS: u8 = 15;
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ATTEMPTS: u32 = 5;

/// The system's configuration, or the default.
pub(super) fn read() -> HickoryConfig {
    match std::fs::read(PATH) {
        Ok(bytes) => parse(&String::from_utf8_lossy(&bytes)),
        Err(error) => {
            let level = match error.kind() {
                io::ErrorKind::NotFound => Level::Debug,
                _ => Level::Warn,
            };
            log!(level, "{PATH}: {error}; asking the local machine");
            HickoryConfig::default()
        }
    }
}

fn parse(text: &str) -> HickoryConfig {
    let mut config = HickoryConfig::default();
    let mut servers = Vec::new();
    for line in text.lines() {
        // A comment has its sign in the first column, and is tolerated elsewhere.
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => servers.extend(words.next().and_then(server)),
            // The last of these lines is the one that counts.
            Some("search") => config.search = words.map(str::to_owned).collect(),
            Some("domain") => config.search = words.take(1).map(str::to_owned).collect(),
            Some("options") => words.for_each(|option| set_option(&mut config, option)),
            Some(_) | None => {}
        }
    }
    // "--" stands for none in what some tools write, and "." is the root, under which all names are as they stand.
    config
        .search
        .retain(|domain| domain != "--" && domain != ".");
    servers.truncate(MAX_SERVERS);
    if !servers.is_empty() {
        config.servers = servers;
    }
    config
}

fn server(address: &str) -> Option<SocketAddr> {
    let found = match address.parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, PORT)),
        Err(_) => scoped(address),
    };
    if found.is_none() {
        warn!("{PATH}: {address:?} is no address of a name server");
    }
    found
}

/// An address with its scope, which may be the number of an interface or its name. For an address in figures, nobody else is asked.
fn scoped(address: &str) -> Option<SocketAddr> {
    let (ip, _) = address.split_once('%')?;
    ip.parse::<Ipv6Addr>().ok()?;
    (address, PORT).to_socket_addrs().ok()?.next()
}

fn set_option(config: &mut HickoryConfig, option: &str) {
    let Some((name, value)) = option.split_once(':') else {
        return;
    };
    let Ok(value) = value.parse::<u32>() else {
        return;
    };
    match name {
        "ndots" => config.ndots = u8::try_from(value).map_or(MAX_NDOTS, |n| n.min(MAX_NDOTS)),
        "timeout" => {
            let seconds = Duration::from_secs(value.max(1).into());
            config.timeout = seconds.min(MAX_TIMEOUT);
        }
        "attempts" => config.attempts = value.clamp(1, MAX_ATTEMPTS),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_file_is_read_as_the_manual_has_it() {
        let d = HickoryConfig::default;
        let local = || d().servers;
        let servers = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|addr| addr.parse().unwrap()).collect()
        };
        let search = |list: &[&str]| -> Vec<String> {
            list.iter().map(|domain| (*domain).to_owned()).collect()
        };
        let rows = [
            ("nothing in it", "", d()),
            (
                "servers in their order, on the one port",
                "nameserver 192.0.2.1\nnameserver 2001:db8::1\n",
                HickoryConfig {
                    servers: servers(&["192.0.2.1:53", "[2001:db8::1]:53"]),
                    ..d()
                },
            ),
            (
                "no more than three",
                "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n",
                HickoryConfig {
                    servers: servers(&["10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"]),
                    ..d()
                },
            ),
            (
                "a scope in figures",
                "nameserver fe80::1%7",
                HickoryConfig {
                    servers: servers(&["[fe80::1%7]:53"]),
                    ..d()
                },
            ),
            (
                "what is no address is skipped, the rest is not",
                "nameserver\nnameserver ns.test\nnameserver ns:test%1\nnameserver 10.0.0.999\nnameserver fe80::1%\nnameserver 10.0.0.1",
                HickoryConfig {
                    servers: servers(&["10.0.0.1:53"]),
                    ..d()
                },
            ),
            (
                "comments, tabs, carriage returns",
                "# nameserver 10.0.0.1\n; nameserver 10.0.0.2\r\nnameserver\t10.0.0.3 # the one\r\n",
                HickoryConfig {
                    servers: servers(&["10.0.0.3:53"]),
                    ..d()
                },
            ),
            (
                "a search list",
                "search a.test b.test.",
                HickoryConfig {
                    search: search(&["a.test", "b.test."]),
                    servers: local(),
                    ..d()
                },
            ),
            (
                "a domain is a list of one",
                "domain a.test b.test",
                HickoryConfig {
                    search: search(&["a.test"]),
                    ..d()
                },
            ),
            (
                "the last line counts",
                "domain a.test\nsearch b.test c.test\nsearch d.test",
                HickoryConfig {
                    search: search(&["d.test"]),
                    ..d()
                },
            ),
            ("the root and no list at all are none", "search . --", d()),
            (
                "options",
                "options ndots:5 edns0 timeout:3\noptions attempts:4 rotate",
                HickoryConfig {
                    ndots: 5,
                    timeout: seconds(3),
                    attempts: 4,
                    ..d()
                },
            ),
            (
                "options are cut to what the C library takes",
                "options ndots:99999 timeout:99999 attempts:99999",
                HickoryConfig {
                    ndots: 15,
                    timeout: seconds(30),
                    attempts: 5,
                    ..d()
                },
            ),
            (
                "zero seconds and no attempt are one",
                "options ndots:0 timeout:0 attempts:0",
                HickoryConfig {
                    ndots: 0,
                    timeout: seconds(1),
                    attempts: 1,
                    ..d()
                },
            ),
            (
                "options that are no numbers are as if not there",
                "options ndots: ndots:x timeout:-1 attempts:99999999999 :",
                d(),
            ),
            (
                "bytes that are no text",
                "\u{fffd}\u{0}\nsortlist 1\nnameserver \u{fffd}",
                d(),
            ),
        ];
        for (why, text, expected) in rows {
            assert_eq!(parse(text), expected, "{why}");
        }
    }

    #[test]
    fn the_scope_of_a_server_may_be_the_name_of_an_interface() {
        let Ok(index) = std::fs::read_to_string("/sys/class/net/lo/ifindex") else {
            return println!("skipped: the loopback interface's index is not told");
        };
        let index = index.trim();
        let named = parse("nameserver fe80::1%lo").servers;
        assert_eq!(named, parse(&format!("nameserver fe80::1%{index}")).servers);
        assert_ne!(named, HickoryConfig::default().servers);
    }
}
