//! The handle of a simulated network: what is there, what goes wrong, what was seen, and the clock.

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

/// A simulated network with a clock of its own. Clones are handles of the same network.
///
/// Equal programs on networks of equal seed do the same, byte for byte and nanosecond for
/// nanosecond: the only thing taken from outside is the moment at which the clock begins.
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
    /// A server is being asked: nothing else may happen meanwhile.
    asking: Cell<bool>,
}

/// Midnight at the beginning of 2013 (UTC), after the epoch.
const BEGINNING: Duration = Duration::from_secs(1_356_998_400);

impl Network {
    /// A network on which nothing goes wrong, with nothing on it yet. What is left to chance is
    /// drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Rc::new(Shared {
                seed,
                world: RefCell::new(World::new(seed)),
                asking: Cell::new(false),
            }),
        }
    }

    /// The seed it was made from.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    // ---- what is there ----

    /// Gives a name addresses, in place of those it had. A name that is not given any does not
    /// exist.
    ///
    /// A look-up takes 1 ms unless [`Host::after`] says otherwise, and its answer is not kept
    /// unless [`Host::ttl`] does.
    pub fn host<A: Into<IpAddr>>(&self, host: &str, addrs: impl IntoIterator<Item = A>) -> Host {
        let addrs = addrs.into_iter().map(Into::into).collect();
        self.name(host, Ok(addrs))
    }

    /// Makes every look-up of a name fail.
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
        // As an engine asks for it.
        let host = host.to_ascii_lowercase();
        self.world_mut().names.insert(host.clone(), name);
        let network = self.clone();
        Host { network, host }
    }

    /// Puts a server at `addr`, in place of the one that is there. Where there is none, connections
    /// are refused.
    ///
    /// A server may own a handle of this network; the two then keep each other in memory.
    pub fn serve(&self, addr: SocketAddr, server: impl Server + 'static) -> Listener {
        let service = Service {
            server: Rc::new(RefCell::new(server)),
            idle_timeout: None,
            appetite: None,
            send_buffer: None,
            window: None,
        };
        self.place(addr, Site::Serves(service));
        Listener {
            network: self.clone(),
            addr,
        }
    }

    /// Lets `addr` refuse connections again, as it did before a server was there.
    pub fn refuse(&self, addr: SocketAddr) {
        self.place(addr, Site::Refuses);
    }

    /// Makes `addr` unreachable; now `connect` itself tells, now the error comes later.
    pub fn unreachable(&self, addr: SocketAddr) {
        self.place(addr, Site::IsUnreachable);
    }

    /// Lets `addr` swallow all attempts to connect; they time out after 127 s, as on Linux.
    pub fn black_hole(&self, addr: SocketAddr) {
        self.place(addr, Site::SwallowsAll);
    }

    fn place(&self, addr: SocketAddr, site: Site) {
        // The old one is dropped when nothing is borrowed: it may own a handle.
        let old = self.world_mut().sites.insert(addr, site);
        drop(old);
    }

    /// How long bytes take in each direction. Default 0.5 ms.
    ///
    /// Without latency a chain that asks again at once would never let the clock move.
    pub fn set_latency(&self, one_way: Duration) {
        self.world_mut().latency = one_way;
    }

    /// How many sockets can be open at once; one more fails as it does in a process that has no
    /// file descriptor left. Default: any number.
    pub fn limit_fds(&self, max: usize) {
        self.world_mut().max_fds = max;
    }

    /// What goes wrong from now on, and how often. Default [`Faults::none`].
    pub fn set_faults(&self, faults: Faults) {
        self.world_mut().faults = faults;
    }

    // ---- the clock ----

    /// The virtual time.
    pub fn now(&self) -> Instant {
        let world = self.world();
        world.instant(world.now)
    }

    /// The virtual time since the network was made.
    pub fn elapsed(&self) -> Duration {
        self.world().now
    }

    /// The time of day: it was midnight at the beginning of 2013 (UTC) when the network was made.
    pub fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + BEGINNING + self.elapsed()
    }

    /// Lets time pass while the program does something else: the network goes on, no turn is made.
    /// In a readback it is the time that the readback takes.
    ///
    /// # Panics
    /// Inside a server: there it would have to go on while it is asked. [`Answer::after`] is what
    /// takes time there.
    pub fn sleep(&self, time: Duration) {
        let until = self.elapsed().saturating_add(time);
        while self.step(until) {}
        self.pass_to(until);
    }

    // ---- acting as a server, at any time ----

    /// Connections that stand: established, and ended by neither side.
    pub fn connections(&self) -> Vec<ConnectionId> {
        self.world().live().map(|(id, _)| id).collect()
    }

    /// Whether the client has the socket of this connection open, whatever the server did.
    pub fn is_open(&self, connection: ConnectionId) -> bool {
        let world = self.world();
        let connection = world.connections.get(&connection);
        connection.is_some_and(|connection| connection.client.fd.is_some())
    }

    /// Answers the oldest request of a connection that was answered with [`Answer::held`]. From
    /// then on it is as if the server had answered so now, faults and delays included. False if the
    /// connection does not stand or nothing is held on it.
    pub fn answer(&self, connection: ConnectionId, answer: Answer) -> bool {
        let mut world = self.world_mut();
        world.is_live(connection) && world.answer_held(connection, answer)
    }

    /// Sends bytes from the server's end, asked for or not, in the middle of an answer or not.
    /// False if the connection does not stand.
    pub fn push(&self, connection: ConnectionId, bytes: impl Into<Vec<u8>>) -> bool {
        self.act(connection, |world| {
            // In the middle of an answer it may be a part of it.
            world.leave(connection, bytes.into(), None, Asked::Yes);
        })
    }

    /// Closes the server's end; what it had still to send is never sent. False if the connection
    /// does not stand.
    pub fn close(&self, connection: ConnectionId) -> bool {
        self.act(connection, |world| world.hang_up(connection, End::Close))
    }

    /// Resets a connection from the server's end. False if the connection does not stand.
    pub fn reset(&self, connection: ConnectionId) -> bool {
        self.act(connection, |world| world.hang_up(connection, End::Reset))
    }

    /// Closes the server's end of each connection on which no request is being received or
    /// answered, as a server does that is restarted. Answers how many there were.
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

    // ---- what was seen ----

    /// What the servers saw so far: a copy, though the requests in it are shared.
    pub fn ledger(&self) -> Ledger {
        self.world().ledger.clone()
    }

    /// Forgets what the servers saw, but for the connections that are open. A long run that does
    /// not look keeps a small ledger so.
    pub fn clear_ledger(&self) {
        self.world_mut().ledger.clear();
    }

    /// What the client did that no client should; with a sound engine there is nothing, whatever
    /// the program does.
    pub fn misuses(&self) -> Vec<Misuse> {
        self.world().misuses.clone()
    }

    /// Sockets that the client has open.
    pub fn open_fds(&self) -> usize {
        self.world().open_fds()
    }

    /// How many system calls Linux would have been asked so far for the engines on this network: to
    /// open, connect, register, read, write, deregister and close sockets, also where that failed,
    /// and to wait for events. A turn that is not due adds one, which is its wait.
    ///
    /// What it takes to make a poll, or to wake it from another thread, is left out.
    pub fn system_calls(&self) -> u64 {
        self.world().system_calls
    }

    /// How often `fault` has struck.
    pub fn struck(&self, fault: Fault) -> u64 {
        self.world().struck[fault as usize]
    }

    /// Whether a turn made now would find an event of the network. What is only made up
    /// ([`Fault::Stale`], [`Fault::Spurious`]) does not count.
    pub fn has_events(&self) -> bool {
        self.settle();
        let world = self.world();
        (0..world.poll_count()).any(|poll| world.has_events(poll))
    }

    /// Whether an edge-triggered watcher of an engine's poll is told of something now: something
    /// has come to a poll since this was asked last, and a turn made now would find an event.
    ///
    /// So Linux has it where a poll is watched by another one (epoll(7), `EPOLLET`). Who hears of
    /// an edge has to turn until a turn has neither `events` nor `more`: of what stays in the poll
    /// there is no further word.
    pub fn take_edge(&self) -> bool {
        self.settle();
        let mut world = self.world_mut();
        // Of each, so that each begins anew.
        (0..world.poll_count()).fold(false, |told, poll| world.take_edge(poll) | told)
    }

    /// When the network will do something by itself next.
    pub fn next_event_at(&self) -> Option<Instant> {
        let world = self.world();
        world.next_event_at().map(|at| world.instant(at))
    }

    /// A digest of all that has happened, system call by system call: two runs with the same one
    /// did the same.
    ///
    /// It may change with each release, also of Rust.
    pub fn fingerprint(&self) -> u64 {
        self.world().fingerprint()
    }

    // ---- how it goes on ----

    pub(super) fn world(&self) -> Ref<'_, World> {
        self.shared.world.borrow()
    }

    pub(super) fn world_mut(&self) -> RefMut<'_, World> {
        self.shared.world.borrow_mut()
    }

    /// Lets everything happen that is due.
    pub(super) fn settle(&self) {
        if self.shared.asking.get() {
            return;
        }
        let now = self.elapsed();
        while self.step(now) {}
    }

    /// Lets the next thing happen that is due by `until`, and asks the servers that have a say.
    /// False: there is no such thing.
    pub(super) fn step(&self, until: Duration) -> bool {
        assert!(
            !self.shared.asking.get(),
            "time cannot pass while a server is asked"
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

    /// Asks or tells a server something. Nothing is borrowed meanwhile: it may use its own handle
    /// of the network.
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
            Call::Closed { id, server } => server.borrow_mut().on_close(id),
        }
    }

    /// Moves the clock, if forward; nothing may be due before.
    pub(super) fn pass_to(&self, until: Duration) {
        let mut world = self.world_mut();
        world.now = world.now.max(until);
    }
}

/// A server is being asked until this is dropped, by a panic of the server too.
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

/// A name of a [`Network`], to say more about it.
#[derive(Debug)]
pub struct Host {
    network: Network,
    host: String,
}

impl Host {
    /// How long each look-up takes; zero: the answer is there at once.
    pub fn after(self, time: Duration) -> Self {
        self.change(|name| {
            name.after_v4 = time;
            name.after_v6 = time;
        })
    }

    /// How long each look-up of IPv6 addresses takes, where that of IPv4 ones takes another time.
    pub fn after_v6(self, time: Duration) -> Self {
        self.change(|name| name.after_v6 = time)
    }

    fn change(self, change: impl FnOnce(&mut Name)) -> Self {
        if let Some(name) = self.network.world_mut().names.get_mut(&self.host) {
            change(name);
        }
        self
    }

    /// How long an engine may keep what it was answered. Default zero: not at all.
    pub fn ttl(self, time: Duration) -> Self {
        self.change(|name| name.ttl = time)
    }
}

/// A server of a [`Network`], to say more about it. It holds for connections begun after that.
#[derive(Debug)]
pub struct Listener {
    network: Network,
    addr: SocketAddr,
}

impl Listener {
    /// Closes connections that have been idle for so long. Default: never.
    pub fn idle_timeout(self, time: Duration) -> Self {
        self.change(|service| service.idle_timeout = Some(time))
    }

    /// Reads no more than so many bytes from a connection, and then no more for ever: what a client
    /// writes beyond its send buffer stays there. Default: reads everything.
    pub fn reads_at_most(self, bytes: usize) -> Self {
        self.change(|service| service.appetite = Some(bytes))
    }

    /// How many bytes the client's kernel takes before the server has read any. Default 256 KiB.
    pub fn send_buffer(self, bytes: usize) -> Self {
        self.change(|service| service.send_buffer = Some(bytes))
    }

    /// How many bytes can have arrived before the client has read any; more is sent when there is
    /// room. Default 1 MiB.
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
