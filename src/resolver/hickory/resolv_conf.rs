//! The system's configuration where it is a file: `/etc/resolv.conf`, see resolv.conf(5).
//!
//! The file is parsed here rather than by hickory, whose parser rejects the whole file for one
//! search domain that it does not accept, drops the scope of a link-local server, and searches the
//! domain of the host's own name even if the file has a search list. Lines that are not understood
//! are skipped, as by the C library.
//!
//! When a name is looked up, the file is checked for changes, at most once a second, and reread if
//! it has changed: the program may have been started before the network was.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use log::{Level, debug, log, warn};

use super::HickoryConfig;
use crate::resolver::Stamp;

const PATH: &str = "/etc/resolv.conf";
const PORT: u16 = 53;

/// The minimum interval between two checks of the file.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The most that is read of the file. Nobody writes a longer one.
const MAX_BYTES: u64 = 1 << 20;

// As in the C library's resolv.h: further servers are ignored, and larger options are clamped.
const MAX_SERVERS: usize = 3;
const MAX_NDOTS: u8 = 15;
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ATTEMPTS: u32 = 5;

/// The file, as of its last check.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    looked_at: Option<Instant>,
    seen: Seen,
    /// The contents last read; `None` if none have been.
    text: Option<Vec<u8>>,
    surroundings: Surroundings,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// Nothing reliable: the file has to be read.
    Nothing,
    Missing,
    /// The file could not be read.
    Refused(io::ErrorKind),
    File {
        stamp: Stamp,
        /// Every further write changes the stamp.
        is_settled: bool,
    },
}

/// Other sources that the C library takes configuration from.
#[derive(Clone, Debug, Default)]
struct Surroundings {
    /// If no search list is given, the domain of this name is used.
    host_name: String,
    /// The environment variable `LOCALDOMAIN`, which replaces the search list.
    local_domain: Option<String>,
    /// The environment variable `RES_OPTIONS`, applied after the options of the file.
    options: Option<String>,
}

impl Surroundings {
    fn of_process() -> Self {
        // On systems that provide the host name in another way, it is left empty.
        let host_name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            host_name: host_name.trim().to_owned(),
            local_domain: std::env::var("LOCALDOMAIN").ok(),
            options: std::env::var("RES_OPTIONS").ok(),
        }
    }
}

impl Watched {
    pub(super) fn system() -> (Self, HickoryConfig) {
        Self::file(PATH.into())
    }

    /// Reads the file at `path`. A missing file, like one that sets nothing, means the server on
    /// the local host.
    pub(super) fn file(path: PathBuf) -> (Self, HickoryConfig) {
        let mut watched = Self {
            path,
            looked_at: None,
            seen: Seen::Nothing,
            text: None,
            surroundings: Surroundings::of_process(),
        };
        watched.read_if_changed();
        let config = watched.parse(watched.text.as_deref().unwrap_or_default());
        (watched, config)
    }

    /// Returns the configuration if the file has changed. Does nothing within a second of the last
    /// check.
    pub(super) fn look(&mut self, now: Instant) -> Option<HickoryConfig> {
        let is_due = match self.looked_at {
            Some(last) => now.saturating_duration_since(last) >= LOOK_EVERY,
            None => true,
        };
        if !is_due {
            return None;
        }
        self.looked_at = Some(now);
        if !self.read_if_changed() {
            return None;
        }
        self.surroundings = Surroundings::of_process();
        let config = self.parse(self.text.as_deref().unwrap_or_default());
        debug!("{}: {config:?}", self.path.display());
        Some(config)
    }

    /// Forces the file to be reread at the next check, even if it seems unchanged.
    pub(super) fn forget(&mut self) {
        self.looked_at = None;
        self.seen = Seen::Nothing;
    }

    /// Returns whether the contents differ from before, or have been rewritten.
    fn read_if_changed(&mut self) -> bool {
        match self.look_and_read() {
            Ok(changed) => changed,
            Err(error) => {
                let seen = match error.kind() {
                    io::ErrorKind::NotFound => Seen::Missing,
                    kind => Seen::Refused(kind),
                };
                if self.seen == seen {
                    return false;
                }
                let is_missing = seen == Seen::Missing;
                self.seen = seen;
                let (path, level) = if is_missing {
                    (self.path.display(), Level::Debug)
                } else {
                    (self.path.display(), Level::Warn)
                };
                let (holds, changed) = match &self.text {
                    // The previous configuration stays in force for as long as the file cannot be
                    // read.
                    Some(_) if !is_missing => ("keeping the previous configuration", false),
                    Some(_) | None => ("using the name server on the local host", true),
                };
                log!(level, "{path}: {error}; {holds}");
                if changed {
                    self.text = None;
                }
                changed
            }
        }
    }

    fn look_and_read(&mut self) -> io::Result<bool> {
        let metadata = fs::metadata(&self.path)?;
        // Opening a pipe would block until somebody writes to it.
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        // Taken before reading, so that any later write changes the stamp.
        let stamp = Stamp::new(&metadata);
        let is_same = match &self.seen {
            Seen::File {
                stamp: before,
                is_settled,
            } if *before == stamp => {
                if *is_settled {
                    return Ok(false);
                } else {
                    true
                }
            }
            _ => false,
        };
        let mut text = Vec::new();
        let file = fs::File::open(&self.path)?;
        io::Read::read_to_end(&mut io::Read::take(file, MAX_BYTES), &mut text)?;
        let changed = !is_same || self.text.as_ref() != Some(&text);
        let is_settled = stamp.is_settled(SystemTime::now());
        self.seen = Seen::File { stamp, is_settled };
        self.text = Some(text);
        Ok(changed)
    }

    fn parse(&self, text: &[u8]) -> HickoryConfig {
        parse(&String::from_utf8_lossy(text), &self.surroundings)
    }
}

fn parse(text: &str, surroundings: &Surroundings) -> HickoryConfig {
    let mut config = HickoryConfig::default();
    let mut servers = Vec::new();
    let mut search: Option<Vec<String>> = None;
    let mut set_search = |domains: Vec<String>| {
        // The last such line takes effect, except that an empty one is ignored.
        if !domains.is_empty() {
            search = Some(domains);
        }
    };
    for line in text.lines() {
        // A comment has its sign in the first column. In other columns it is tolerated.
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => servers.extend(words.next().and_then(server)),
            Some("search") => set_search(words.map(str::to_owned).collect()),
            Some("domain") => set_search(words.take(1).map(str::to_owned).collect()),
            Some("options") => words.for_each(|option| set_option(&mut config, option)),
            Some(_) | None => {}
        }
    }
    if let Some(domains) = &surroundings.local_domain {
        set_search(domains.split_whitespace().map(str::to_owned).collect());
    }
    if let Some(options) = &surroundings.options {
        let options = options.split_whitespace();
        options.for_each(|option| set_option(&mut config, option));
    }
    config.search = search.unwrap_or_else(|| {
        let domain = surroundings.host_name.split_once('.');
        let domain = domain.map(|(_, domain)| domain.to_owned());
        domain
            .into_iter()
            .filter(|domain| !domain.is_empty())
            .collect()
    });
    // Some tools write this for an empty list.
    config.search.retain(|domain| domain != "--");
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
        warn!("{PATH}: {address:?} is not a valid name server address");
    }
    found
}

/// Parses an address with a scope, which may be the number or the name of an interface.
/// `to_socket_addrs` makes no lookup for a numeric address.
fn scoped(address: &str) -> Option<SocketAddr> {
    let (ip, _) = address.split_once('%')?;
    ip.parse::<Ipv6Addr>().ok()?;
    (address, PORT).to_socket_addrs().ok()?.next()
}

fn set_option(config: &mut HickoryConfig, option: &str) {
    match option {
        "use-vc" => config.tcp_only = true,
        "rotate" => config.rotate = true,
        "no-tld-query" => config.no_tld_query = true,
        "no-aaaa" => config.ipv6 = false,
        // `edns0` is the default here, unless a server does not support it. `single-request` and
        // `single-request-reopen` address problems of two questions sharing a socket; here each
        // question has its own.
        _ => {}
    }
    let Some((name, value)) = option.split_once(':') else {
        return;
    };
    // Like `atoi`: anything after the digits is ignored. A number that is out of range counts as
    // large.
    let figures = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    if figures == 0 {
        return;
    }
    let value = value[..figures].parse::<u32>().unwrap_or(u32::MAX);
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
            ("empty file", "", d()),
            (
                "servers in order, on port 53",
                "nameserver 192.0.2.1\nnameserver 2001:db8::1\n",
                HickoryConfig {
                    servers: servers(&["192.0.2.1:53", "[2001:db8::1]:53"]),
                    ..d()
                },
            ),
            (
                "at most three servers",
                "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n",
                HickoryConfig {
                    servers: servers(&["10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"]),
                    ..d()
                },
            ),
            (
                "numeric scope",
                "nameserver fe80::1%7",
                HickoryConfig {
                    servers: servers(&["[fe80::1%7]:53"]),
                    ..d()
                },
            ),
            (
                "invalid addresses are skipped and the others kept",
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
                "search list",
                "search a.test b.test.",
                HickoryConfig {
                    search: search(&["a.test", "b.test."]),
                    servers: local(),
                    ..d()
                },
            ),
            (
                "a domain is a search list of one",
                "domain a.test b.test",
                HickoryConfig {
                    search: search(&["a.test"]),
                    ..d()
                },
            ),
            (
                "the last line takes effect",
                "domain a.test\nsearch b.test c.test\nsearch d.test",
                HickoryConfig {
                    search: search(&["d.test"]),
                    ..d()
                },
            ),
            (
                "empty lines are ignored",
                "search b.test\nsearch\ndomain \n",
                HickoryConfig {
                    search: search(&["b.test"]),
                    ..d()
                },
            ),
            (
                "the root is kept, and `--` is removed",
                "search a.test . --",
                HickoryConfig {
                    search: search(&["a.test", "."]),
                    ..d()
                },
            ),
            (
                "transport and query options",
                "options use-vc rotate no-tld-query no-aaaa single-request edns0 trust-ad",
                HickoryConfig {
                    tcp_only: true,
                    rotate: true,
                    no_tld_query: true,
                    ipv6: false,
                    ..d()
                },
            ),
            (
                "numbers followed by other characters",
                "options ndots:3x timeout:2s attempts:4,",
                HickoryConfig {
                    ndots: 3,
                    timeout: seconds(2),
                    attempts: 4,
                    ..d()
                },
            ),
            (
                "numeric options",
                "options ndots:5 edns0 timeout:3\noptions attempts:4 debug",
                HickoryConfig {
                    ndots: 5,
                    timeout: seconds(3),
                    attempts: 4,
                    ..d()
                },
            ),
            (
                "options are clamped to the C library's limits",
                "options ndots:99999 timeout:99999999999 attempts:99999",
                HickoryConfig {
                    ndots: 15,
                    timeout: seconds(30),
                    attempts: 5,
                    ..d()
                },
            ),
            (
                "zero seconds and zero attempts count as one",
                "options ndots:0 timeout:0 attempts:0",
                HickoryConfig {
                    ndots: 0,
                    timeout: seconds(1),
                    attempts: 1,
                    ..d()
                },
            ),
            (
                "options that are not numbers are ignored",
                "options ndots: ndots:x timeout:-1 attempts: :",
                d(),
            ),
            (
                "bytes that are not text",
                "\u{fffd}\u{0}\nsortlist 1\nnameserver \u{fffd}",
                d(),
            ),
        ];
        for (why, text, expected) in rows {
            assert_eq!(parse(text, &Surroundings::default()), expected, "{why}");
        }
    }

    #[test]
    fn the_machine_and_the_environment_have_a_say() {
        let surroundings =
            |host_name: &str, local_domain: Option<&str>, options: Option<&str>| Surroundings {
                host_name: host_name.to_owned(),
                local_domain: local_domain.map(str::to_owned),
                options: options.map(str::to_owned),
            };
        let search = |text: &str, of: &Surroundings| parse(text, of).search.join(" ");
        let named = surroundings("h.corp.test", None, None);
        assert_eq!(search("", &named), "corp.test");
        assert_eq!(search("search a.test", &named), "a.test");
        assert_eq!(
            search("search .", &named),
            ".",
            "the root is a search list of its own"
        );
        assert_eq!(search("", &surroundings("h", None, None)), "");
        assert_eq!(search("", &surroundings("h.", None, None)), "");
        let local = surroundings("h.corp.test", Some("x.test y.test"), Some("ndots:4 use-vc"));
        assert_eq!(search("search a.test", &local), "x.test y.test");
        let config = parse("options ndots:2", &local);
        assert_eq!((config.ndots, config.tcp_only), (4, true));
    }

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let name = format!("httpstream-resolv-{test}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn write(&self, text: &str) {
            fs::write(&self.0, text).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
            let _ = fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn a_file_that_changes_is_read_again_within_a_second() {
        let file = Scratch::new("changes");
        let first = |config: &HickoryConfig| config.servers[0].ip().to_string();
        let (mut watched, config) = Watched::file(file.0.clone());
        assert_eq!(first(&config), "127.0.0.1", "the file does not exist yet");
        let now = Instant::now();
        let mut seconds = 0;
        let mut look = |watched: &mut Watched| {
            seconds += 1;
            watched.look(now + seconds * LOOK_EVERY)
        };
        assert_eq!(look(&mut watched), None, "the file still does not exist");
        file.write("nameserver 192.0.2.1");
        assert_eq!(
            watched.look(now + LOOK_EVERY),
            None,
            "at most one check a second"
        );
        assert_eq!(first(&look(&mut watched).unwrap()), "192.0.2.1");
        assert_eq!(look(&mut watched), None, "recently modified, but unchanged");
        // The same length as before, and perhaps within the same step of the file system's clock.
        file.write("nameserver 192.0.2.2");
        assert_eq!(first(&look(&mut watched).unwrap()), "192.0.2.2");
        fs::remove_file(&file.0).unwrap();
        assert_eq!(
            first(&look(&mut watched).unwrap()),
            "127.0.0.1",
            "a missing file counts as empty"
        );
        file.write("nameserver 192.0.2.3");
        assert_eq!(first(&look(&mut watched).unwrap()), "192.0.2.3");
        fs::remove_file(&file.0).unwrap();
        fs::create_dir(&file.0).unwrap();
        assert_eq!(
            look(&mut watched),
            None,
            "the previous configuration is kept"
        );
        fs::remove_dir(&file.0).unwrap();
        file.write("nameserver 192.0.2.4");
        assert_eq!(first(&look(&mut watched).unwrap()), "192.0.2.4");
        watched.forget();
        assert_eq!(
            first(&watched.look(now).unwrap()),
            "192.0.2.4",
            "reread although unchanged"
        );
    }

    #[test]
    fn a_file_that_was_broken_at_the_start_is_read_when_it_is_not() {
        let file = Scratch::new("broken");
        fs::create_dir(&file.0).unwrap();
        let (mut watched, config) = Watched::file(file.0.clone());
        assert_eq!(config.servers, HickoryConfig::default().servers);
        fs::remove_dir(&file.0).unwrap();
        file.write("nameserver 192.0.2.1");
        let config = watched.look(Instant::now() + LOOK_EVERY).unwrap();
        assert_eq!(config.servers, ["192.0.2.1:53".parse().unwrap()]);
    }

    #[test]
    fn the_scope_of_a_server_may_be_the_name_of_an_interface() {
        let Ok(index) = std::fs::read_to_string("/sys/class/net/lo/ifindex") else {
            return println!("skipped: the index of the loopback interface is not available");
        };
        let index = index.trim();
        let servers = |text: &str| parse(text, &Surroundings::default()).servers;
        let named = servers("nameserver fe80::1%lo");
        assert_eq!(named, servers(&format!("nameserver fe80::1%{index}")));
        assert_ne!(named, HickoryConfig::default().servers);
    }
}
