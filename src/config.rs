//! The configuration of an engine: every setting with its unit, its default, and the reason for the
//! default.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::proto::Limits;
use crate::resolver::Resolve;
use crate::route::Route;
use crate::timeouts::Timeouts;
// Stored here for the engine, together with the rest of its configuration.
use crate::net::poll::Deadlines;
use crate::policy::Policy;

#[cfg(feature = "tls")]
mod tls;

/// The configuration of an engine. Start from the default and change what should differ:
///
/// ```
/// let mut config = httpstream::Config::default();
/// config.max_connections = 64;
/// config.resolve_to("*.qq.com", "127.0.0.1:8080".parse().unwrap());
/// ```
///
/// A configuration can be cloned and sent to other threads, each of which can create an engine from
/// it. What an engine's thread must own, the [`resolver`](Self::resolver), is created on that
/// thread.
///
/// ```
/// use std::time::Duration;
/// use httpstream::{Config, Engine};
///
/// let mut config = Config::default();
/// config.timeouts.total = Some(Duration::from_secs(30));
/// config.limits.max_body_bytes = 1 << 20;
/// config.user_agent = Some("my-bot/1.0".to_owned());
/// config.default_headers.push(("Accept-Language".to_owned(), b"en".to_vec()));
/// let engine = Engine::<()>::with_config(config)?;
///
/// let mut useless = Config::default();
/// useless.max_connections = 0;
/// let error = Engine::<()>::with_config(useless).unwrap_err();
/// assert!(error.to_string().contains("max_connections is 0"));
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// The most connections open at once, idle ones included. Requests that do not fit wait. While
    /// the addresses of a host race (RFC 8305), a connection that is being made has a socket for
    /// each address under way. Default 1024, the usual soft limit of file descriptors.
    pub max_connections: usize,
    /// The most connections open at once to one origin. Default 256, because a crowd of
    /// long-polling bots uses one origin.
    pub max_connections_per_origin: usize,
    /// The most idle connections kept for one origin; the oldest is closed first. Default 32.
    pub max_idle_per_origin: usize,
    /// How long an idle connection is kept. Default 60 s, which is below the 75 s of nginx and far
    /// above the pauses within a chain. If a server announces a shorter time (`Keep-Alive:
    /// timeout=N`), that time less one second applies.
    pub idle_timeout: Duration,
    /// The age beyond which a connection is given no further request, counted from when it was
    /// connected. At least 1 ms. By default (`None`) a connection is used for as long as both sides
    /// keep it open.
    ///
    /// Set it where the addresses of a host change, for example with a load balancer that moves
    /// traffic by DNS: a connection keeps its address, and a chain that never pauses keeps its
    /// connection. An exchange is never cut short. A connection that exceeds the age during an
    /// exchange is closed when the exchange ends, and a pipelined one when the requests that it has
    /// been given are answered. An idle connection is closed when a request looks for one, or at
    /// its [`idle_timeout`](Self::idle_timeout).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let mut config = httpstream::Config::default();
    /// config.max_age = Some(Duration::from_secs(300));
    /// ```
    pub max_age: Option<Duration>,
    /// Timeouts for requests that do not set their own.
    pub timeouts: Timeouts,
    /// Limits on responses to requests that do not set their own.
    pub limits: Limits,
    /// The `User-Agent` of requests that do not carry one. Default `httpstream/VERSION`; `None`
    /// sends none.
    pub user_agent: Option<String>,
    /// Field lines added to every request that has no field of that name; at most 31, including the
    /// user agent.
    pub default_headers: Vec<(String, Vec<u8>)>,
    /// The most readiness events handled in one turn, up to 1,048,576; memory is reserved for that
    /// many. Default 1024.
    pub turn_events: usize,
    /// The number of bytes read from one link in one turn before other links are served; the same
    /// amount may be decoded for a [policy](crate::policy), and the same amount written. Default
    /// 512 KiB. All links together may read, and decode, four times this amount in each of three
    /// groups: links with new events, links that had to wait, and links whose deadline has passed.
    pub turn_bytes: usize,
    /// Size in bytes of the read buffer that all links share. Default 128 KiB: below 64 KiB large
    /// bodies cost more calls, and above 256 KiB there is no gain. At least 4 KiB. With feature
    /// `tls`, values below 32 KiB count as 32 KiB, since TLS records and handshake messages must
    /// fit.
    pub read_buffer: usize,
    /// The most submissions and calls from other threads that may wait for the engine. Further ones
    /// are refused with [`SubmitError::Full`](crate::SubmitError::Full), and futures wait. A turn
    /// takes 2048. Default 65,536; at least 1.
    pub max_inbox: usize,
    /// The hosts file. Names found in it are answered from it alone; `None` disables it. Defaults
    /// to the system's file, `/etc/hosts` on Unix.
    ///
    /// The file is read when the engine is created and whenever it has changed, which is noticed
    /// within a second. A missing file counts as empty, and only the first 16 MiB of a long one are
    /// read. A changed file of more than 64 KiB is read over several turns, during which the old
    /// content applies. The file takes precedence over the [`resolver`](Self::resolver), even one
    /// that reads such a file itself. In a simulation no file is read.
    pub hosts_file: Option<PathBuf>,
    /// The most queries under way at the resolver, one for each address family of a name. Further
    /// ones wait, first in, first out. Default 64.
    ///
    /// A query costs a resolver at least one socket. Without a limit, a thousand new names at once
    /// would take a thousand file descriptors, and a name server that receives so many packets
    /// drops some. More than 64 at once are not answered any faster.
    pub max_lookups: usize,
    /// The longest time for which the addresses of a name are cached, whatever their TTL. With zero
    /// nothing is cached, and each connection has its name looked up. Default one day; more than a
    /// week counts as a week (RFC 8767 §4).
    ///
    /// Lower it if a name moves to other addresses sooner than its TTL says. The absence of a name
    /// is also cached for its TTL, but at most five minutes. Answers of a resolver that reports no
    /// TTL, such as [`System`](crate::resolver::System), are not cached.
    pub keep_names: Duration,
    /// How much longer addresses are kept in case no name server answers (RFC 8767). They are used
    /// if a lookup fails or takes longer than 1.8 s, which is logged as a warning. Zero disables
    /// this. Default one day; more than a week counts as a week.
    ///
    /// Disable it if an address that a name has lost may soon belong to someone else, and nothing
    /// but the name authenticates the server.
    pub keep_stale_names: Duration,
    /// Creates the resolver, once for each engine and on the engine's thread.
    ///
    /// By default (`None`) the system's name servers are queried on the engine's own loop
    /// (`resolver::Hickory`); without feature `hickory`, `getaddrinfo` runs on a helper thread
    /// ([`resolver::System`](crate::resolver::System)). In a simulation the names are those of the
    /// simulated network. The hosts file takes precedence over any of these; see
    /// [`hosts_file`](Self::hosts_file).
    ///
    /// ```
    /// use std::sync::Arc;
    /// use httpstream::resolver::Table;
    ///
    /// let mut names = Table::new();
    /// names.insert("api.test", ["192.0.2.1".parse().unwrap()]);
    /// let mut config = httpstream::Config::default();
    /// config.resolver = Some(Arc::new(move || Box::new(names.clone())));
    /// ```
    pub resolver: Option<ResolverFactory>,
    /// How connections are made for requests without a route of their own.
    pub route: Route,
    /// The policy of all requests; see [`policy`](crate::policy). It wraps around the policy that a
    /// request carries itself. Default none.
    pub policy: Option<Arc<dyn Policy>>,
    /// Decides for each address, at the moment of connecting, whether it may be used, wherever it
    /// comes from: a name, the hosts file, an override or a URL. A refused address is skipped and
    /// listed in the error. This way no name can lead to a forbidden address, however often its
    /// addresses change (server-side request forgery, DNS rebinding).
    ///
    /// Connections that are already open were checked when they were made and stay in use. Unix
    /// sockets have no address and are not checked. The filter is called inside a turn, so it has
    /// to be fast, and it must not panic. By default all addresses are allowed;
    /// [`public_only`](crate::public_only) is a ready-made filter: `config.address_filter =
    /// Some(Arc::new(public_only))`.
    pub address_filter: Option<AddressFilter>,
    /// Whether an engine with its own poll has a timer in it, so that its file descriptor becomes
    /// readable whenever a turn is due and a host without timers needs nothing else. Default true,
    /// with feature `timerfd`; on Linux only.
    ///
    /// A deadline that is earlier than the timer's costs a system call, which a host that uses
    /// [`next_deadline`](crate::Engine::next_deadline) anyway can avoid.
    #[cfg(feature = "timerfd")]
    pub timerfd: bool,
    pub(crate) overrides: Vec<(String, SocketAddr)>,
    /// Pattern, depth, and whether the trial is skipped.
    pub(crate) pipelines: Vec<(String, usize, bool)>,
}

/// Decides whether an address may be connected to. Clones of a [`Config`] share it.
pub type AddressFilter = Arc<dyn Fn(&SocketAddr) -> bool + Send + Sync>;

/// Creates a resolver on the thread of the engine that uses it, so that the resolver itself need
/// not be `Send`.
pub type ResolverFactory = Arc<dyn Fn() -> Box<dyn Resolve> + Send + Sync>;

/// Prints the names of default fields but not their values, which may be credentials.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.default_headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Config")
            .field("max_connections", &self.max_connections)
            .field(
                "max_connections_per_origin",
                &self.max_connections_per_origin,
            )
            .field("max_idle_per_origin", &self.max_idle_per_origin)
            .field("idle_timeout", &self.idle_timeout)
            .field("max_age", &self.max_age)
            .field("timeouts", &self.timeouts)
            .field("limits", &self.limits)
            .field("user_agent", &self.user_agent)
            .field("default_headers", &names)
            .field("turn_events", &self.turn_events)
            .field("turn_bytes", &self.turn_bytes)
            .field("read_buffer", &self.read_buffer)
            .field("max_inbox", &self.max_inbox)
            .field("hosts_file", &self.hosts_file)
            .field("max_lookups", &self.max_lookups)
            .field("keep_names", &self.keep_names)
            .field("keep_stale_names", &self.keep_stale_names)
            .field("resolver", &self.resolver.is_some())
            .field("route", &self.route)
            .field("policy", &self.policy.is_some())
            .field("address_filter", &self.address_filter.is_some())
            .field("deadlines", &self.deadlines())
            .field("overrides", &self.overrides)
            .field("pipelines", &self.pipelines)
            .finish()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_connections_per_origin: 256,
            max_idle_per_origin: 32,
            idle_timeout: Duration::from_secs(60),
            max_age: None,
            timeouts: Timeouts::DEFAULT,
            limits: Limits::DEFAULT,
            user_agent: Some(concat!("httpstream/", env!("CARGO_PKG_VERSION")).to_owned()),
            default_headers: Vec::new(),
            turn_events: 1024,
            turn_bytes: 512 * 1024,
            read_buffer: 128 * 1024,
            max_inbox: 65_536,
            hosts_file: system_hosts_file(),
            max_lookups: 64,
            keep_names: DAY,
            keep_stale_names: DAY,
            resolver: None,
            route: Route::default(),
            policy: None,
            address_filter: None,
            #[cfg(feature = "timerfd")]
            timerfd: true,
            overrides: Vec::new(),
            pipelines: Vec::new(),
        }
    }
}

impl Config {
    /// Connects to `addr` for requests to `pattern`. The name is not looked up, and the URL's port
    /// is not used. The request itself does not change: `Host` stays as it was.
    ///
    /// `pattern` is a host, in any case, or `host:port`; with a port, an IPv6 address is enclosed
    /// in brackets. `*.domain` matches every host below `domain` (but not `domain` itself), and `*`
    /// matches every host. The first matching pattern wins, in the order of the calls.
    /// [`Engine::with_config`](crate::Engine::with_config) reports an invalid pattern.
    pub fn resolve_to(&mut self, pattern: &str, addr: SocketAddr) {
        self.overrides.push((pattern.to_owned(), addr));
    }

    /// Like [`pipeline`](Self::pipeline), for origins that are known to answer every request of a
    /// pipeline, such as servers of your own. They skip the trial, so the first requests are
    /// already sent together.
    pub fn pipeline_without_trial(&mut self, pattern: &str, depth: usize) {
        self.pipelines.push((pattern.to_owned(), depth, true));
    }

    /// Pipelines requests to the origins that match `pattern`, like
    /// [`RequestBuilder::pipeline`](crate::RequestBuilder::pipeline). Up to `depth` of them may be
    /// unanswered on a connection; 1 disables pipelining.
    ///
    /// Only suitable requests are pipelined: one that is not idempotent, needs a connection of its
    /// own, ends its connection, or carries `Expect` is sent alone. A depth set by the request
    /// itself takes precedence.
    ///
    /// Some servers answer only the first request that they find in a read and drop the others.
    /// Requests to a new origin are therefore sent one at a time, except for trials of 2, 4, 8 and
    /// 16 requests in one send; each has to be answered completely before the next, larger one. See
    /// [`pipeline_without_trial`](Self::pipeline_without_trial).
    ///
    /// Patterns are those of [`resolve_to`](Self::resolve_to), and the first match wins here as
    /// well. [`Engine::with_config`](crate::Engine::with_config) reports an invalid pattern, and a
    /// depth outside 1 to 1024.
    pub fn pipeline(&mut self, pattern: &str, depth: usize) {
        self.pipelines.push((pattern.to_owned(), depth, false));
    }

    #[cfg(feature = "timerfd")]
    pub(crate) fn deadlines(&self) -> Deadlines {
        if self.timerfd {
            Deadlines::Inside
        } else {
            Deadlines::Outside
        }
    }

    #[cfg(not(feature = "timerfd"))]
    pub(crate) fn deadlines(&self) -> Deadlines {
        Deadlines::Outside
    }

    /// The resolution of the engine's timers. `Connection: close` is the way to use a connection
    /// only once.
    const MIN_MAX_AGE: Duration = Duration::from_millis(1);

    /// Memory is allocated for this many events, and a failed allocation would abort the program.
    const MAX_TURN_EVENTS: usize = 1 << 20;

    /// Refuses values that no engine can work with, as creating an engine does. Use it to report a
    /// wrong number at once when values come from elsewhere.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig), naming the field.
    pub fn check(&self) -> Result<(), Error> {
        let counts = [
            ("max_connections", self.max_connections),
            (
                "max_connections_per_origin",
                self.max_connections_per_origin,
            ),
            ("turn_events", self.turn_events),
            ("turn_bytes", self.turn_bytes),
            ("max_lookups", self.max_lookups),
            ("max_inbox", self.max_inbox),
        ];
        for (name, value) in counts {
            if value == 0 {
                return Err(Error::invalid_config(format!(
                    "{name} is 0: nothing could ever be sent"
                )));
            }
        }
        if self.max_age.is_some_and(|age| age < Self::MIN_MAX_AGE) {
            return Err(Error::invalid_config(format!(
                "max_age is {:?}: under {:?}, so hardly any connection would serve two requests",
                self.max_age.unwrap_or_default(),
                Self::MIN_MAX_AGE
            )));
        }
        if self.turn_events > Self::MAX_TURN_EVENTS {
            return Err(Error::invalid_config(format!(
                "turn_events is {}: over {}",
                self.turn_events,
                Self::MAX_TURN_EVENTS
            )));
        }
        if !(4096..=1 << 30).contains(&self.read_buffer) {
            return Err(Error::invalid_config(format!(
                "read_buffer is {} bytes: not within 4 KiB and 1 GiB",
                self.read_buffer
            )));
        }
        Ok(())
    }
}

const DAY: Duration = Duration::from_secs(86_400);

#[cfg(unix)]
fn system_hosts_file() -> Option<PathBuf> {
    Some(PathBuf::from("/etc/hosts"))
}

#[cfg(windows)]
fn system_hosts_file() -> Option<PathBuf> {
    let root = std::env::var_os("SystemRoot")?;
    Some(PathBuf::from(root).join(r"System32\drivers\etc\hosts"))
}

#[cfg(not(any(unix, windows)))]
fn system_hosts_file() -> Option<PathBuf> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_memory_is_asked_for_that_cannot_be_had() {
        let mut config = Config {
            turn_events: Config::MAX_TURN_EVENTS,
            ..Config::default()
        };
        assert!(config.check().is_ok());
        for events in [Config::MAX_TURN_EVENTS + 1, 1 << 40, usize::MAX] {
            config.turn_events = events;
            let error = config.check().unwrap_err();
            assert!(format!("{error:#}").contains("turn_events is"), "{error:#}");
        }
    }

    #[test]
    fn an_age_that_no_connection_could_use_is_refused() {
        let rows = [
            (None, true, "no limit"),
            (Some(Duration::ZERO), false, "zero"),
            (
                Some(Duration::from_micros(999)),
                false,
                "below a millisecond",
            ),
            (Some(Duration::from_millis(1)), true, "a millisecond"),
            (Some(Duration::MAX), true, "a limit that is never reached"),
        ];
        for (max_age, is_fine, why) in rows {
            let config = Config {
                max_age,
                ..Config::default()
            };
            let checked = config.check();
            assert_eq!(checked.is_ok(), is_fine, "{why}");
            if let Err(error) = checked {
                assert!(
                    format!("{error:#}").contains("max_age is"),
                    "{why}: {error:#}"
                );
            }
        }
    }

    #[test]
    fn a_configuration_goes_to_other_threads_and_is_shared_by_its_clones() {
        fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}
        let mut config = Config::default();
        is_shared(&config);
        let addr = SocketAddr::from(([127, 0, 0, 1], 80));
        config.address_filter = Some(Arc::new(move |asked| *asked == addr));
        // A resolver that is not `Send`, created where it is used.
        #[derive(Debug)]
        struct Local(crate::resolver::Table, std::rc::Rc<()>);
        impl Resolve for Local {
            fn attach(&mut self, wake: crate::resolver::Wake) {
                self.0.attach(wake);
            }
            fn start(&mut self, _: &str, _: crate::resolver::Family, _: crate::resolver::LookupId) {
            }
            fn cancel(&mut self, _: crate::resolver::LookupId) {}
            fn on_tick(&mut self, _: std::time::Instant) {}
            fn deadline(&self) -> Option<std::time::Instant> {
                None
            }
            fn take(
                &mut self,
            ) -> Option<(crate::resolver::LookupId, crate::resolver::LookupAnswer)> {
                None
            }
        }
        let made = Arc::new(std::sync::Mutex::new(Vec::new()));
        let makes = Arc::clone(&made);
        config.resolver = Some(Arc::new(move || {
            makes.lock().unwrap().push(std::thread::current().id());
            let local = Local(crate::resolver::Table::new(), std::rc::Rc::default());
            assert_eq!(std::rc::Rc::strong_count(&local.1), 1);
            Box::new(local)
        }));
        config.resolve_to("a.test", addr);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let config = config.clone();
                std::thread::spawn(move || {
                    assert!(config.address_filter.as_ref().unwrap()(&addr));
                    assert_eq!(config.overrides.len(), 1);
                    crate::Engine::<()>::with_config(config).unwrap();
                    std::thread::current().id()
                })
            })
            .map(|thread| thread.join().unwrap())
            .collect();
        assert_eq!(*made.lock().unwrap(), threads, "one for each engine");
    }

    #[test]
    fn debug_shows_no_value_of_a_default_field() {
        let mut config = Config::default();
        config
            .default_headers
            .push(("Authorization".to_owned(), b"s3cret".to_vec()));
        let shown = format!("{config:?}");
        assert!(shown.contains("Authorization"), "{shown}");
        let bytes = format!("{:?}", b"s3cret");
        assert!(
            !shown.contains("s3cret") && !shown.contains(bytes.trim_matches(['[', ']'])),
            "{shown}"
        );
    }
}
