//! The handle of a simulated network: its servers, faults, records and clock.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use super::faults::{Fault, Faults};
use super::ledger::{Ledger, Misuse};
use super::server::{Answer, ConnectionId, End, Server};
use super::world::{Asked, Call, Name, Service, Site, World};
use crate::resolver::LookupError;

/// A simulated network with its own clock. Clones are handles to the same network.
///
/// Equal programs on networks with equal seeds behave identically, byte for byte and nanosecond for
/// nanosecond. The only input from outside is the instant at which the clock starts.
///
/// ```
/// use std::time::Duration;
/// use httpstream::sim::{Answer, Fault, Faults, Incoming, Network};
///
/// let network = Network::new(42);
/// network.host("bot.test", [[10, 0, 0, 1]]);
/// network
///     .serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::ok("hello"))
///     .idle_timeout(Duration::from_secs(5));
/// network.set_faults(Faults::none().with(Fault::Split, 200));
/// ```
#[derive(Clone)]
pub struct Network {
    shared: Rc<Shared>,
}

struct Shared {
    seed: u64,
    world: RefCell<World>,
    /// Set while a server is being called; nothing else may happen meanwhile.
    asking: Cell<bool>,
}

/// The start of 2013 (midnight UTC), as the time since the Unix epoch.
const BEGINNING: Duration = Duration::from_secs(1_356_998_400);

impl Network {
    /// Creates an empty network without faults. All random choices are drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Rc::new(Shared {
                seed,
                world: RefCell::new(World::new(seed)),
                asking: Cell::new(false),
            }),
        }
    }

    /// Returns the seed the network was created with.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    // ---- names and servers ----

    /// Gives a host name addresses, replacing any it had. Other names do not exist.
    ///
    /// A lookup takes 1 ms unless [`Host::after`] changes that, and the engine caches its answer
    /// only if [`Host::ttl`] allows it.
    pub fn host<A: Into<IpAddr>>(&self, host: &str, addrs: impl IntoIterator<Item = A>) -> Host {
        let addrs = addrs.into_iter().map(Into::into).collect();
        self.name(host, Ok(addrs))
    }

    /// Makes every lookup of a host name fail with `error`.
    pub fn host_fails(&self, host: &str, error: LookupError) -> Host {
        self.name(host, Err(error))
    }

    fn name(&self, host: &str, answer: Result<Vec<IpAddr>, LookupError>) -> Host {
        let after = Duration::from_millis(1);
        let name = Name {
            answer,
            after_v4: after,
            after_v6: after,
            ttl: Duration::ZERO,
        };
        // Engines look names up in lower case.
        let host = host.to_ascii_lowercase();
        self.world_mut().names.insert(host.clone(), name);
        let network = self.clone();
        Host { network, host }
    }

    /// Places a server at `addr`, replacing any other. Connections to an address without a server
    /// are refused.
    ///
    /// A server may hold a handle to this network; the two then keep each other alive.
    pub fn serve(&self, addr: SocketAddr, server: impl Server + 'static) -> Listener {
        let service = Service {
            server: Rc::new(RefCell::new(server)),
            idle_timeout: None,
            appetite: None,
            pace: None,
            send_buffer: None,
            window: None,
        };
        self.place(addr, Site::Serves(service));
        Listener {
            network: self.clone(),
            addr,
        }
    }

    /// Makes `addr` refuse connections, as it does without a server. Connections that are open stay
    /// open, and no request on them is answered; to stop a server, see [`stop`](Self::stop).
    pub fn refuse(&self, addr: SocketAddr) {
        self.place(addr, Site::Refuses);
    }

    /// Stops the server at `addr`, as if its process were killed: its connections are reset, and
    /// new ones refused until [`serve`](Self::serve) places a server there again. Returns the
    /// number of connections that were reset.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::sim::{Answer, Incoming, Network};
    /// use httpstream::{Config, Engine, ErrorKind, Next, Request, Sim};
    ///
    /// let network = Network::new(1);
    /// network.host("chat.test", [[10, 0, 0, 1]]);
    /// let addr = "10.0.0.1:80".parse().unwrap();
    /// network.serve(addr, |_: &Incoming| Answer::held());
    /// let mut engine = Engine::<Vec<ErrorKind>, Sim>::on_network(&network, Config::default())?;
    /// engine.submit(Request::get("http://chat.test/poll").build()?, |errors, reply, _| {
    ///     errors.push(reply.unwrap_err().kind());
    ///     Next::again().after(Duration::from_secs(1))
    /// });
    /// let mut errors = Vec::new();
    /// engine.advance(&mut errors, Duration::from_secs(1))?;
    /// assert_eq!(network.stop(addr), 1);
    /// engine.advance(&mut errors, Duration::from_secs(2))?;
    /// assert_eq!(errors, [ErrorKind::ClosedBeforeResponse, ErrorKind::Connect]);
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn stop(&self, addr: SocketAddr) -> usize {
        self.refuse(addr);
        let mut world = self.world_mut();
        let open: Vec<ConnectionId> = world
            .live()
            .filter(|(_, connection)| connection.addr == addr)
            .map(|(id, _)| id)
            .collect();
        for id in &open {
            world.hang_up(*id, End::Reset);
            if let Some(server) = world.server_mut(*id) {
                server.stopped = true;
            }
        }
        open.len()
    }

    /// Makes `addr` unreachable: at random, either `connect` itself fails or the error arrives
    /// later.
    pub fn unreachable(&self, addr: SocketAddr) {
        self.place(addr, Site::IsUnreachable);
    }

    /// Makes `addr` drop all connection attempts; they time out after 127 s, as on Linux.
    pub fn black_hole(&self, addr: SocketAddr) {
        self.place(addr, Site::SwallowsAll);
    }

    fn place(&self, addr: SocketAddr, site: Site) {
        // Dropped while nothing is borrowed, since the old server may hold a handle to this
        // network.
        let old = self.world_mut().sites.insert(addr, site);
        drop(old);
    }

    /// Sets how long bytes take in each direction. Default 0.5 ms.
    ///
    /// With zero latency, a chain that sends its next request immediately would keep the clock from
    /// ever advancing.
    pub fn set_latency(&self, one_way: Duration) {
        self.world_mut().latency = one_way;
    }

    /// Sets how many sockets may be open at once. Opening another one fails, as in a process
    /// without a free file descriptor. Default: unlimited.
    pub fn limit_fds(&self, max: usize) {
        self.world_mut().max_fds = max;
    }

    /// Sets which faults strike from now on, and how often. Default [`Faults::none`].
    pub fn set_faults(&self, faults: Faults) {
        self.world_mut().faults = faults;
    }

    // ---- the clock ----

    /// Returns the current virtual time.
    pub fn now(&self) -> Instant {
        let world = self.world();
        world.instant(world.now)
    }

    /// Returns the virtual time since the network was created.
    pub fn elapsed(&self) -> Duration {
        self.world().now
    }

    /// Returns the time of day. Every network is created at the start of 2013 (midnight UTC).
    pub fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + BEGINNING + self.elapsed()
    }

    /// Lets time pass without a turn: events of the network happen, but no engine runs. Inside a
    /// readback, it simulates a readback that takes this long.
    ///
    /// # Panics
    /// Panics inside a server, where time cannot pass. To delay a server's answer, use
    /// [`Answer::after`].
    pub fn sleep(&self, time: Duration) {
        let until = self.elapsed().saturating_add(time);
        while self.step(until) {}
        self.pass_to(until);
    }

    // ---- acting as a server, at any time ----

    /// Returns the live connections: those established and ended by neither side.
    pub fn connections(&self) -> Vec<ConnectionId> {
        self.world().live().map(|(id, _)| id).collect()
    }

    /// Returns whether the client's socket of this connection is open, whatever the server did.
    pub fn is_open(&self, connection: ConnectionId) -> bool {
        let world = self.world();
        let connection = world.connections.get(&connection);
        connection.is_some_and(|connection| connection.client.fd.is_some())
    }

    /// Answers the oldest request that is held on a connection (see [`Answer::held`]).
    ///
    /// The result is the same as if the server had given this answer now, including faults and
    /// delays. Returns false if the connection is not live or no request is held on it.
    pub fn answer(&self, connection: ConnectionId, answer: Answer) -> bool {
        let mut world = self.world_mut();
        world.is_live(connection) && world.answer_held(connection, answer)
    }

    /// Sends bytes from the server's end, whether solicited or not, even in the middle of an
    /// answer. Returns false if the connection is not live.
    pub fn push(&self, connection: ConnectionId, bytes: impl Into<Vec<u8>>) -> bool {
        self.act(connection, |world| {
            // In the middle of an answer, the bytes may be part of it.
            world.leave(connection, bytes.into(), None, Asked::Yes);
        })
    }

    /// Closes the server's end; anything it had yet to send is discarded. Returns false if the
    /// connection is not live.
    pub fn close(&self, connection: ConnectionId) -> bool {
        self.act(connection, |world| world.hang_up(connection, End::Close))
    }

    /// Resets a connection from the server's end. Returns false if the connection is not live.
    pub fn reset(&self, connection: ConnectionId) -> bool {
        self.act(connection, |world| world.hang_up(connection, End::Reset))
    }

    /// Closes the server's end of every connection on which no request is being received or
    /// answered, as a server does when it restarts. Returns the number of connections closed.
    pub fn close_idle_peers(&self) -> usize {
        let mut world = self.world_mut();
        let now = world.now;
        let idle: Vec<ConnectionId> = world
            .live()
            .filter(|(_, connection)| connection.server.is_idle(now))
            .map(|(id, _)| id)
            .collect();
        for id in &idle {
            world.hang_up(*id, End::Close);
        }
        idle.len()
    }

    fn act(&self, connection: ConnectionId, act: impl FnOnce(&mut World)) -> bool {
        let mut world = self.world_mut();
        let stands = world.is_live(connection);
        if stands {
            act(&mut world);
        }
        stands
    }

    // ---- observations ----

    /// Returns a copy of the record of what the servers saw. The copy shares the requests.
    pub fn ledger(&self) -> Ledger {
        self.world().ledger.clone()
    }

    /// Clears the ledger except for open connections. Use it to bound memory in a long run.
    pub fn clear_ledger(&self) {
        self.world_mut().ledger.clear();
    }

    /// Returns what the client did that no client should do. A correct engine causes no misuse,
    /// whatever the program does.
    pub fn misuses(&self) -> Vec<Misuse> {
        self.world().misuses.clone()
    }

    /// Returns the number of sockets that the client has open.
    pub fn open_fds(&self) -> usize {
        self.world().open_fds()
    }

    /// Returns the number of system calls that the engines on this network would have made on Linux
    /// so far: to open, connect, register, read, write, deregister and close sockets, and to wait
    /// for events. Failed calls count. A turn that is not due adds one call, its wait.
    ///
    /// Creating a poll and waking it from another thread are not counted.
    pub fn system_calls(&self) -> u64 {
        self.world().system_calls
    }

    /// Returns how often `fault` has struck.
    pub fn struck(&self, fault: Fault) -> u64 {
        self.world().struck[fault as usize]
    }

    /// Returns whether a turn made now would find an event of the network. Stale and spurious
    /// events ([`Fault::Stale`], [`Fault::Spurious`]) do not count.
    pub fn has_events(&self) -> bool {
        self.settle();
        let world = self.world();
        (0..world.poll_count()).any(|poll| world.has_events(poll))
    }

    /// Takes the edge that an edge-triggered watcher of an engine's poll would receive now. Returns
    /// true if something has reached a poll since the last call, and a turn made now would find an
    /// event.
    ///
    /// Linux behaves like this when one epoll instance watches another with `EPOLLET` (see
    /// epoll(7)). After an edge, the host has to turn until a turn reports neither `events` nor
    /// `more`: there is no further notification for events that remain in the poll.
    pub fn take_edge(&self) -> bool {
        self.settle();
        let mut world = self.world_mut();
        // Every edge is taken, without short-circuiting, so that each poll starts afresh.
        (0..world.poll_count()).fold(false, |told, poll| world.take_edge(poll) | told)
    }

    /// Returns when the network's next scheduled event is due.
    pub fn next_event_at(&self) -> Option<Instant> {
        let world = self.world();
        world.next_event_at().map(|at| world.instant(at))
    }

    /// Returns a digest of everything that has happened, system call by system call. Two runs with
    /// the same fingerprint did the same.
    ///
    /// The value may change with any release of this crate or of Rust.
    pub fn fingerprint(&self) -> u64 {
        self.world().fingerprint()
    }

    // ---- advancing the simulation ----

    pub(super) fn world(&self) -> Ref<'_, World> {
        self.shared.world.borrow()
    }

    pub(super) fn world_mut(&self) -> RefMut<'_, World> {
        self.shared.world.borrow_mut()
    }

    /// Processes every event that is due.
    pub(super) fn settle(&self) {
        if self.shared.asking.get() {
            return;
        }
        let now = self.elapsed();
        while self.step(now) {}
    }

    /// Processes the next event due by `until`, and makes the calls to servers that follow from it.
    /// Returns false if no event is due by then.
    pub(super) fn step(&self, until: Duration) -> bool {
        assert!(
            !self.shared.asking.get(),
            "time cannot pass while a server is being called"
        );
        if !self.world_mut().happen(until) {
            return false;
        }
        loop {
            let call = self.world_mut().take_call();
            let Some(call) = call else {
                return true;
            };
            self.make(call);
        }
    }

    /// Calls a server. Nothing is borrowed meanwhile, because the server may use its own handle to
    /// the network.
    fn make(&self, call: Call) {
        let _asking = Asking::begin(&self.shared.asking);
        match call {
            Call::Head {
                id,
                server,
                request,
            } => {
                let answer = server.borrow_mut().on_head(&request);
                self.world_mut().on_head_seen(id, request, answer);
            }
            Call::Request {
                id,
                server,
                request,
            } => {
                let answer = server.borrow_mut().on_request(&request);
                self.world_mut().answer(id, &request, answer);
            }
            Call::Data { id, server, bytes } => server.borrow_mut().on_data(id, &bytes),
            Call::Closed { id, server } => server.borrow_mut().on_close(id),
        }
    }

    /// Moves the clock forward to `until`; it never moves back. No event may be due before `until`.
    pub(super) fn pass_to(&self, until: Duration) {
        let mut world = self.world_mut();
        world.now = world.now.max(until);
    }
}

/// Marks a server as being called until this guard is dropped, also if the server panics.
struct Asking<'a>(&'a Cell<bool>);

impl<'a> Asking<'a> {
    fn begin(flag: &'a Cell<bool>) -> Self {
        flag.set(true);
        Self(flag)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("seed", &self.seed())
            .finish_non_exhaustive()
    }
}

/// Settings of a host name on a [`Network`].
///
/// ```
/// use std::time::Duration;
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Next, Request, Sim};
///
/// let network = Network::new(1);
/// let address = network.host("bot.test", [[10, 0, 0, 1]]);
/// address.after(Duration::from_millis(300)).ttl(Duration::from_secs(60));
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::ok("hello"));
///
/// let mut engine = Engine::<(), Sim>::on_network(&network, Config::default())?;
/// engine.submit(Request::get("http://bot.test/").build()?, |_, _, _| Next::done());
/// engine.run(&mut ())?;
/// let connecting = network.ledger().attempts().next().map(|attempt| attempt.begun);
/// assert_eq!(connecting, Some(Duration::from_millis(300)));
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Debug)]
pub struct Host {
    network: Network,
    host: String,
}

impl Host {
    /// Sets how long each lookup takes. With zero, the answer is available at once.
    pub fn after(self, time: Duration) -> Self {
        self.change(|name| {
            name.after_v4 = time;
            name.after_v6 = time;
        })
    }

    /// Sets how long each lookup of IPv6 addresses takes, if different from IPv4.
    pub fn after_v6(self, time: Duration) -> Self {
        self.change(|name| name.after_v6 = time)
    }

    fn change(self, change: impl FnOnce(&mut Name)) -> Self {
        if let Some(name) = self.network.world_mut().names.get_mut(&self.host) {
            change(name);
        }
        self
    }

    /// Sets how long an engine may cache an answer. The default is zero: answers are not cached.
    pub fn ttl(self, time: Duration) -> Self {
        self.change(|name| name.ttl = time)
    }
}

/// Settings of a server on a [`Network`]. They apply to connections begun afterwards.
///
/// ```
/// use std::time::Duration;
/// use httpstream::sim::{Answer, Closed, Incoming, Network};
/// use httpstream::{Config, Engine, Next, Request, Sim};
///
/// let network = Network::new(1);
/// network.host("bot.test", [[10, 0, 0, 1]]);
/// network
///     .serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::ok("hello"))
///     .idle_timeout(Duration::from_secs(5));
///
/// let mut engine = Engine::<(), Sim>::on_network(&network, Config::default())?;
/// engine.submit(Request::get("http://bot.test/").build()?, |_, _, _| Next::done());
/// engine.advance(&mut (), Duration::from_secs(10))?;
///
/// let ledger = network.ledger();
/// let served = ledger.connections().next().expect("one connection");
/// assert!(matches!(served.closed, Some((_, Closed::ByServer))));
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Debug)]
pub struct Listener {
    network: Network,
    addr: SocketAddr,
}

impl Listener {
    /// Closes connections that have been idle for `time`. Default: never.
    pub fn idle_timeout(self, time: Duration) -> Self {
        self.change(|service| service.idle_timeout = Some(time))
    }

    /// Makes the server stop reading from a connection after `bytes` bytes. Anything that the
    /// client writes beyond them stays in its send buffer. Default: reads everything.
    pub fn reads_at_most(self, bytes: usize) -> Self {
        self.change(|service| service.appetite = Some(bytes))
    }

    /// Makes the server read at most `bytes` bytes from a connection at once, and then nothing for
    /// this long. What it has not read stays in the client's send buffer. Default: reads everything
    /// as it arrives.
    pub fn reads_slowly(self, bytes: usize, every: Duration) -> Self {
        self.change(|service| service.pace = Some((bytes.max(1), every)))
    }

    /// Sets how many bytes the client's kernel accepts before the server has read any. Default 256
    /// KiB.
    pub fn send_buffer(self, bytes: usize) -> Self {
        self.change(|service| service.send_buffer = Some(bytes))
    }

    /// Sets how many bytes can arrive before the client has read any. Further bytes are sent when
    /// there is room. Default 1 MiB.
    pub fn window(self, bytes: usize) -> Self {
        self.change(|service| service.window = Some(bytes))
    }

    fn change(self, change: impl FnOnce(&mut Service)) -> Self {
        if let Some(Site::Serves(service)) = self.network.world_mut().sites.get_mut(&self.addr) {
            change(service);
        }
        self
    }
}
