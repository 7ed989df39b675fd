//! Every tunable, with its unit, its default and the reason for the default.

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
// For the engine, together with the rest of its configuration.
use crate::net::poll::Deadlines;
use crate::policy::Policy;

#[cfg(feature = "tls")]
mod tls;

/// How an engine behaves. Start from the default and set what differs:
///
/// ```
/// let mut config = httpstream::Config::default();
/// config.max_connections = 64;
/// config.resolve_to("*.qq.com", "127.0.0.1:8080".parse().unwrap());
/// ```
///
/// A configuration can be cloned and handed to other threads, each of which makes an engine of it;
/// what a thread must have to itself, the
/// [`resolver`](Self::resolver), is made there.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Connections open at once, idle ones included; what does not fit waits. While the addresses
    /// of a host race (RFC 8305), a connection that is being made has a socket for each that is
    /// under way. Default 1024: the usual soft limit of file descriptors.
    pub max_connections: usize,
    /// Connections open at once to one origin. Default 256: a crowd of long-polling bots uses one
    /// origin.
    pub max_connections_per_origin: usize,
    /// Idle connections kept for one origin; the oldest goes first. Default 32.
    pub max_idle_per_origin: usize,
    /// How long an idle connection is kept. Default 60 s, under the 75 s of nginx and far over a
    /// chain's own pauses. A server that states less (`Keep-Alive: timeout=N`) is believed, less
    /// one second.
    pub idle_timeout: Duration,
    /// Deadlines by phase, for requests that do not set their own.
    pub timeouts: Timeouts,
    /// Bounds on responses, for requests that do not set their own.
    pub limits: Limits,
    /// The `User-Agent` of requests that do not carry one. Default `httpstream/VERSION`; `None`
    /// sends none.
    pub user_agent: Option<String>,
    /// Field lines added to each request that has none of that name; with the user agent at most
    /// 31.
    pub default_headers: Vec<(String, Vec<u8>)>,
    /// Readiness events taken in one turn, 1,048,576 at most: there is room for so many. Default
    /// 1024.
    pub turn_events: usize,
    /// Bytes read from one link in one turn before the others come first; as much may be decoded
    /// for a [policy](crate::policy), and written. Default 512 KiB; a turn ends when all links
    /// together have read, or decoded, eight times as much.
    pub turn_bytes: usize,
    /// Bytes of the read buffer that all links share. Default 128 KiB: under 64 KiB large bodies
    /// cost more calls, over 256 KiB nothing is won. At least 4 KiB; with feature `tls` what is
    /// less than 32 KiB counts as that, since records and handshake messages have to fit.
    pub read_buffer: usize,
    /// Submissions and calls of other threads that may wait for the engine to take them; what is
    /// beyond is refused with [`SubmitError::Full`](crate::SubmitError::Full), and futures wait. A
    /// turn takes 2048. Default 65,536; at least 1.
    pub max_inbox: usize,
    /// The file with names that are answered from it, and from nothing else; `None`: no file.
    /// Default the system's, `/etc/hosts` on unix.
    ///
    /// It is read when the engine is made and whenever it has changed, which is noticed within a
    /// second; a file that is not there is an empty one, and of a long one the first 16 MiB count.
    /// One of more than 64 KiB that has changed is read over several turns, and until then it is
    /// what it was. It comes before [`resolver`](Self::resolver), also before one that reads such a
    /// file itself. In a simulation no file is read.
    pub hosts_file: Option<PathBuf>,
    /// Questions put to the resolver at once, one for each address family of a name; more wait for
    /// their turn, first in, first out. Default 64.
    ///
    /// A question costs a resolver a socket or more: without a bound, a thousand new names at once
    /// take a thousand file descriptors, and a name server that is sent so many packets drops some.
    /// More than 64 at once are not answered any faster.
    pub max_lookups: usize,
    /// The longest that the addresses of a name are kept, whatever their TTL says. Zero: nothing is
    /// kept, each connection has its name looked up. Default one day; more than a week counts as a
    /// week (RFC 8767 §4).
    ///
    /// Lower it where a name moves to other addresses sooner than its TTL says. That a name does
    /// not exist is kept for its TTL too, five minutes at most. Answers of a resolver that tells no
    /// TTL, as [`System`](crate::resolver::System), are not kept.
    pub keep_names: Duration,
    /// How much longer addresses are kept for when no name server answers (RFC 8767): they are used
    /// if a look-up fails or takes longer than 1.8 s, which is logged as a warning. Zero: never.
    /// Default one day; more than a week counts as a week.
    ///
    /// Switch it off where an address that a name has lost may be somebody else's soon, and nothing
    /// but the name says who is who.
    pub keep_stale_names: Duration,
    /// Makes what names are looked up by, once for each engine and on its thread; `None`: the
    /// system's name servers, asked on the engine's own loop (`resolver::Hickory`), without feature
    /// `hickory` `getaddrinfo` on a helper thread ([`resolver::System`](crate::resolver::System)),
    /// or the simulated network's own names. The hosts file comes before any of them; see
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
    /// How connections are made, for requests that bring no route of their own.
    pub route: Route,
    /// What is done for requests besides sending them, around what each brings itself; see
    /// [`policy`](crate::policy). A request's own is inside of it. Default none.
    pub policy: Option<Arc<dyn Policy>>,
    /// Asked for each address at the moment it is to be dialled, wherever it comes from: a name,
    /// the hosts file, an override or a URL. One that it refuses is passed over, and named in the
    /// error. So no name, however often its addresses change, leads where it should not
    /// (server-side request forgery, DNS rebinding). A connection that is there already was asked
    /// for when it was made, and serves on; of a unix socket, which has no address, nothing is
    /// asked. It is called inside a turn, so it has to be quick, and must not panic. Default: all
    /// are allowed; [`public_only`](crate::public_only) is one: `config.address_filter =
    /// Some(Arc::new(public_only))`.
    pub address_filter: Option<AddressFilter>,
    /// Whether an engine on a poll of its own has a timer in it, so that its file descriptor
    /// becomes readable whenever a turn is due, and a host without timers needs nothing else.
    /// Default true, with feature `timerfd`; on Linux only.
    ///
    /// A deadline that is earlier than the timer's costs a system call; a host that looks at
    /// [`next_deadline`](crate::Engine::next_deadline) anyway can save that.
    #[cfg(feature = "timerfd")]
    pub timerfd: bool,
    pub(crate) overrides: Vec<(String, SocketAddr)>,
    /// Pattern, depth, and whether the trial is spared.
    pub(crate) pipelines: Vec<(String, usize, bool)>,
}

/// Whether an address may be dialled. Clones of a [`Config`] share it.
pub type AddressFilter = Arc<dyn Fn(&SocketAddr) -> bool + Send + Sync>;

/// Makes a resolver on the thread of the engine that is to have it, so that the resolver itself
/// need not be `Send`.
pub type ResolverFactory = Arc<dyn Fn() -> Box<dyn Resolve> + Send + Sync>;

/// Shows the names of default fields, not their values, which may be credentials.
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
    /// Sends what is meant for `pattern` to `addr` instead; neither the name nor the port is looked
    /// at any further. The request is not changed: `Host` stays as it was.
    ///
    /// `pattern` is a host, in any case, or `host:port`; an IPv6 address stands in brackets where
    /// there is a port. `*.domain` stands for every host below `domain` (not `domain` itself), `*`
    /// for every host. The first pattern that fits is taken, in the order of the calls. A pattern
    /// that cannot be read is reported by [`Engine::with_config`](crate::Engine::with_config).
    pub fn resolve_to(&mut self, pattern: &str, addr: SocketAddr) {
        self.overrides.push((pattern.to_owned(), addr));
    }

    /// [`pipeline`](Self::pipeline) for origins that are known to answer every request of a
    /// pipeline, such as servers of your own. They are spared the trial, so that the first requests
    /// go out together.
    pub fn pipeline_without_trial(&mut self, pattern: &str, depth: usize) {
        self.pipelines.push((pattern.to_owned(), depth, true));
    }

    /// Pipelines requests to the origins that `pattern` stands for, as
    /// [`RequestBuilder::pipeline`](crate::RequestBuilder::pipeline) does, of which up to `depth`
    /// may be unanswered on a connection: those that may be. What is not idempotent, wants a
    /// connection of its own, ends it, or carries `Expect` goes alone, and so do all while `depth`
    /// is 1. What a request says of itself wins.
    ///
    /// Some servers answer the first request that they find in a read and drop the others. So
    /// requests to a new origin go one at a time until it has answered both of one pair; see
    /// [`pipeline_without_trial`](Self::pipeline_without_trial).
    ///
    /// Patterns are those of [`resolve_to`](Self::resolve_to), and here too the first that fits is
    /// taken. One that cannot be read, and a depth that is not within 1 and 1024, are reported by
    /// [`Engine::with_config`](crate::Engine::with_config).
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

    /// Memory is taken for so many, and what cannot be had would end the program.
    const MAX_TURN_EVENTS: usize = 1 << 20;

    /// Refuses values that no engine can work with, as an engine does that is made with them: for
    /// who takes numbers from elsewhere, and has to say at once which is wrong.
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
    fn a_configuration_goes_to_other_threads_and_is_shared_by_its_clones() {
        fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}
        let mut config = Config::default();
        is_shared(&config);
        let addr = SocketAddr::from(([127, 0, 0, 1], 80));
        config.address_filter = Some(Arc::new(move |asked| *asked == addr));
        // A resolver that is not `Send`, made where it is used.
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
