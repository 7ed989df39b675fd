//! Engine: decides what happens next, and when; here everything meets.
//!
//! - `alerts`: warnings, limited in rate
//! - `chains`: what was submitted, until its readback answers `done`
//! - `queue`: how a request finds a link, or a place in the queue
//! - `quiet`: whether a kept connection may be given a request
//! - `dialing`: how a link gets its connection
//! - `exchange`: how a request is written, and how its exchange ends without a response
//! - `receive`: from bytes to responses
//! - `pipeline`: requests that share a link before they are answered
//! - `secure`: what is different about a link with TLS
//! - `reply`: how a readback is called, and what follows from its answer
//! - `calls`: chains that wait without a request, and then run code
//! - `deadlines`: delays and deadlines
//! - `future`: chains as futures
//! - `turn`: one turn of the loop
//! - `shared`: an engine on its host's poll

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Token;

use crate::config::Config;
use crate::error::Error;
use crate::net::dial::Doubts;
use crate::net::link::{Inbound, Link, State};
use crate::net::names::{Names, NamesConfig};
use crate::net::pipeline::Pipeline;
use crate::net::poll::OwnPoll;
use crate::net::pool::{OriginKey, Pool};
use crate::net::slots::{LinkKey, Slots};
use crate::net::socket::MioNet;
use crate::net::tls::Scratch;
use crate::net::{Net, Ready};
use crate::request::Request;
use crate::response::{self, Info, Reply};
use crate::sched::wheel::{TimerId, Wheel};

mod alerts;
mod calls;
mod chains;
mod deadlines;
mod dialing;
mod exchange;
mod future;
mod mode;
mod pipeline;
mod queue;
mod quiet;
mod readback;
mod receive;
mod reply;
mod secure;
mod settings;
mod shared;
#[cfg(feature = "sim")]
mod simulated;
mod submitter;
mod turn;
mod within;

use chains::RequestId;
#[cfg(feature = "sim")]
pub use mode::Sim;
pub use mode::{Mode, Owned, Shared};
pub use readback::{Context, Flow, Next, Readback, Unread};
pub use submitter::Submitter;
pub use turn::Turn;
pub use within::{within, within_call, within_to};

use alerts::Alerts;
use chains::{ChainKey, Chains, Marks, Stage};
use deadlines::Overdue;
use mode::sealed::Sealed;
use quiet::Quiet;
use readback::Sink;
use settings::Settings;
use submitter::{Order, Remote};

/// Runs requests and their readbacks on one thread, with as many connections as they need.
///
/// `S` is the caller's state: lent to each turn, and handed to every readback as `&mut S`. An engine is bound to the
/// thread it was made on; other threads reach it through a [`Submitter`]. Dropping it closes everything and runs no
/// readback.
///
/// # Embedding
/// The engine's file descriptor ([`AsFd`](std::os::fd::AsFd)) is readable or [`next_deadline`](Self::next_deadline) is past whenever
/// a turn would do something; a host may call [`turn`](Self::turn) late, early or twice, and from an edge-triggered loop as
/// long as it turns until [`Turn::more`] is false and `events` is 0. `submit`, `cancel` and `resume` outside a turn make a
/// turn due: ask for the deadline again after them.
///
/// # Forking
/// A process that is forked off may not use the engine: it has the same poll as its parent, and a turn would take events that the parent
/// waits for. It may drop it, which closes its copies of the sockets and leaves the parent's alone, and make engines of its own.
pub struct Engine<S = (), M: Mode = Owned> {
    net: <M as Sealed>::Net,
    settings: Settings,
    chains: Chains<S>,
    links: Slots<Link<<<M as Sealed>::Net as Net>::Socket>>,
    pool: Pool,
    names: Names,
    /// Addresses that failed lately.
    doubts: Doubts,
    wheel: Wheel<Timer>,
    remote: Arc<Remote<S>>,
    /// Scratch for what is taken from `remote`.
    orders: Vec<Order<S>>,

    /// The time of this turn; the same as the engine's life so far, in microseconds of it, rounded up, and in ticks of the wheel, rounded down.
    now: Instant,
    life: Duration,
    now_micros: u64,
    now_tick: u64,
    epoch: Instant,
    /// What has happened since the clock was read.
    since_clock: SinceClock,

    /// Events that the poll has told, up to `next_event` dealt with.
    batch: Vec<Ready>,
    next_event: usize,
    /// Links that have more to do than their share of a turn.
    run_queue: VecDeque<Token>,
    /// Chains to be started anew, a stale connection or a delay behind them.
    restarts: VecDeque<ChainKey>,
    /// Chains whose readback is to hear of a failure, and, without one, those whose call is due.
    completions: VecDeque<(ChainKey, Option<Error>)>,
    /// The link that the exchange just over has left, before the pool takes it.
    resting: Option<LinkKey>,
    quiet: Quiet,
    /// Links whose pipelines have something to write.
    unwritten: Vec<Token>,
    /// Pipelines for the next links that want one.
    #[expect(
        clippy::vec_box,
        reason = "links hold them as boxes: what moves is a pointer"
    )]
    pipelines: Vec<Box<Pipeline>>,
    /// Deadlines that have passed, of chains on links: what the kernel holds for those comes first.
    overdue: VecDeque<Overdue>,
    /// Turns for which the resolver's timers have been put off, since it may not have been told of
    /// everything.
    names_put_off: u8,
    /// Set while this machine is out of file descriptors, ports or memory.
    exhausted: Option<Exhaustion>,
    /// Commands carried out in this turn.
    carried_out: usize,
    /// Orders taken in this turn.
    taken: usize,
    /// No new chain starts and none goes on.
    draining: bool,
    /// A readback's panic, on its way to the host.
    panic: Option<Box<dyn std::any::Any + Send>>,

    /// All links read into this.
    read_buffer: Vec<u8>,
    /// Another, for the TLS link that has to be read while the first is in use; as long as that,
    /// once it is needed.
    second_buffer: Vec<u8>,
    /// What TLS sessions decrypt into, and write from.
    plaintext: Vec<u8>,
    scratch: Scratch,
    /// What probes of sessions have cost, in bytes, since a turn's budget was last charged with it.
    probed: usize,
    spare: Spare,
    counts: Counts,
    alerts: Alerts,
    /// Calls from one thread only: some states are not `Send`, and a readback never expects to move.
    not_send: std::marker::PhantomData<*const ()>,
}

/// A tick of the wheel is a millisecond.
const NANOS_A_TICK: u64 = 1_000_000;

/// How far the engine's time may lag behind the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SinceClock {
    Nothing,
    /// Links were dealt with: a turn is bounded, so that is some milliseconds at most.
    Links,
    /// User code has run, which may take any amount of time.
    UserCode,
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// The chain's delay, or the deadline of its phase.
    Chain(ChainKey),
    /// The idle link's time in the pool.
    Idle(LinkKey),
    /// The link's next attempt to connect.
    Dial(LinkKey),
    /// Another try after exhaustion.
    Exhausted,
    /// A request has waited for long in the origin's queue, if it is still there.
    LongWait(OriginKey),
    /// Another try to connect to an origin that no connection was to be had to.
    TurnedAway(OriginKey),
}

/// What this machine was out of, and when it is tried again.
#[derive(Debug)]
struct Exhaustion {
    why: String,
    retry: TimerId,
}

/// Inbound buffers for the next responses that do not arrive whole.
#[derive(Debug, Default)]
struct Spare {
    #[expect(
        clippy::vec_box,
        reason = "links hold them as boxes: what moves is a pointer"
    )]
    boxes: Vec<Box<Inbound>>,
    bytes: usize,
}

impl Spare {
    /// More than this is given back to the allocator.
    const MAX_BYTES: usize = 8 << 20;
    const MAX_BOXES: usize = 1024;

    #[inline]
    fn take(&mut self) -> Box<Inbound> {
        let inbound = self.boxes.pop().unwrap_or_default();
        self.bytes -= inbound.capacity();
        inbound
    }

    #[inline]
    fn give(&mut self, mut inbound: Box<Inbound>) {
        inbound.clear();
        let bytes = inbound.capacity();
        if self.boxes.len() < Self::MAX_BOXES && self.bytes + bytes <= Self::MAX_BYTES {
            self.bytes += bytes;
            self.boxes.push(inbound);
        }
    }
}

/// What has happened since the engine was made.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    opened: u64,
    reused: u64,
    answered: u64,
    failed: u64,
    retried: u64,
    pipelined: u64,
    bytes_in: u64,
    bytes_out: u64,
    turns: u64,
    wakeups: u64,
}

/// How an engine stands, and what it has done. The first group counts what is there now, the second since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Links that hold a socket or are about to: dialling, busy and idle ones.
    pub links_open: usize,
    /// Links in the pool.
    pub links_idle: usize,
    /// Links whose host is being looked up, that are connecting or in the TLS handshake.
    pub links_dialing: usize,
    /// Requests on a link.
    pub in_flight: usize,
    /// Requests that wait for a link.
    pub queued: usize,
    /// Requests that wait for their delay, and calls that have not been made.
    pub delayed: usize,
    /// Requests in flight whose readback answered `Pause`.
    pub paused: usize,
    /// Connections opened.
    pub opened: u64,
    /// Requests exchanged on a connection that had served another; of a pipeline, those whose turn came.
    pub reused: u64,
    /// Chains submitted.
    pub submitted: u64,
    /// Requests answered by a response.
    pub answered: u64,
    /// Requests answered by an error, cancellations included; also of chains that waited to go on after a request.
    pub failed: u64,
    /// Requests sent again: after a stale connection, or since their pipeline ended before they were answered.
    pub retried: u64,
    /// Requests written behind one that was not answered yet.
    pub pipelined: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Turns.
    pub turns: u64,
    /// Turns that another thread asked for.
    pub wakeups: u64,
    /// System calls made on sockets and on the poll, those that failed included: opening and connecting, registering and
    /// deregistering, sending, receiving, options, closing, and each wait.
    ///
    /// Exact on Linux; elsewhere what counts as one may be several. Not counted: making the poll, its waker and its timer, waking, which other
    /// threads do, looking up names, memory, and the clock, which is read without a call. In a simulation it is what Linux would have
    /// been asked.
    pub system_calls: u64,
}

impl<S, M: Mode> Engine<S, M> {
    pub(crate) fn on_net(net: <M as Sealed>::Net, config: Config) -> Result<Self, Error> {
        let settings = Settings::new(&config)?;
        let mut resolver = match &config.resolver {
            Some(make) => make(),
            None => net.resolver(),
        };
        net.attach(&mut *resolver).map_err(Error::io)?;
        let names = NamesConfig {
            overrides: &config.overrides,
            hosts_file: config.hosts_file,
            max_lookups: config.max_lookups,
            keep_names: config.keep_names,
            keep_stale_names: config.keep_stale_names,
            machine: <M as Sealed>::Net::MACHINE,
        };
        let names = Names::new(names, resolver)?;
        let depths = settings::depths(&config.pipelines)?;
        let wake = net.waker();
        let read_buffer = vec![0; settings.read_buffer];
        let now = net.now();
        Ok(Self {
            net,
            remote: Arc::new(Remote::new(wake, settings.max_inbox)),
            settings,
            chains: Chains::new(),
            links: Slots::new(),
            pool: Pool::new(depths),
            names,
            doubts: Doubts::default(),
            wheel: Wheel::new(),
            orders: Vec::new(),
            now,
            life: Duration::ZERO,
            now_micros: 0,
            now_tick: 0,
            epoch: now,
            since_clock: SinceClock::UserCode,
            batch: Vec::new(),
            next_event: 0,
            run_queue: VecDeque::new(),
            restarts: VecDeque::new(),
            completions: VecDeque::new(),
            resting: None,
            quiet: Quiet::default(),
            unwritten: Vec::new(),
            pipelines: Vec::new(),
            overdue: VecDeque::new(),
            names_put_off: 0,
            exhausted: None,
            carried_out: 0,
            taken: 0,
            draining: false,
            panic: None,
            read_buffer,
            second_buffer: Vec::new(),
            plaintext: Vec::new(),
            scratch: Scratch::default(),
            probed: 0,
            spare: Spare::default(),
            counts: Counts::default(),
            alerts: Alerts::default(),
            not_send: std::marker::PhantomData,
        })
    }

    /// Starts a chain: sends `request` and gives the response, or why there is none, to `readback`. A turn is then due.
    ///
    /// Each request of the chain is answered exactly once, as long as the engine lives.
    ///
    /// Write the closure in the call, where its types are inferred, or annotate all three parameters; inside readbacks
    /// `cx.send(…).read_by(…)` infers.
    pub fn submit(
        &mut self,
        request: Request,
        readback: impl FnMut(&mut S, Reply<'_>, &mut Context<'_, S>) -> Next<S> + 'static,
    ) -> RequestId {
        self.submit_to(request, readback)
    }

    /// [`submit`](Self::submit) for a [`Readback`] that wants to see more than the reply.
    pub fn submit_to(
        &mut self,
        request: Request,
        readback: impl Readback<S> + 'static,
    ) -> RequestId {
        self.submit_boxed(request, Box::new(readback), Duration::ZERO)
    }

    /// [`submit`](Self::submit) after `delay`, counted from this call; [`Duration::MAX`] is never.
    pub fn submit_after(
        &mut self,
        delay: Duration,
        request: Request,
        readback: impl FnMut(&mut S, Reply<'_>, &mut Context<'_, S>) -> Next<S> + 'static,
    ) -> RequestId {
        self.submit_boxed(request, Box::new(readback), delay)
    }

    /// [`submit_after`](Self::submit_after) for a [`Readback`] that wants to see more than the reply.
    pub fn submit_to_after(
        &mut self,
        delay: Duration,
        request: Request,
        readback: impl Readback<S> + 'static,
    ) -> RequestId {
        self.submit_boxed(request, Box::new(readback), delay)
    }

    /// Starts a chain which begins with a call: in the next turn `f` is run, and what it answers follows. A turn is then due.
    ///
    /// What `f` sends without a [`read_by`](Next::read_by) is read to its end and thrown away, as by [`Unread`]; it has nothing to
    /// send [`again`](Next::again). A call is no request: cancelled or drained, `f` is dropped, and nobody is told.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::{Engine, Next};
    ///
    /// let mut engine = Engine::<Vec<&str>>::new()?;
    /// engine.call_after(Duration::from_millis(5), |done: &mut Vec<_>, _| {
    ///     done.push("later");
    ///     Next::done()
    /// });
    /// engine.call(|done, cx| {
    ///     done.push("now");
    ///     cx.done()
    /// });
    /// let mut done = Vec::new();
    /// engine.run(&mut done)?;
    /// assert_eq!(done, ["now", "later"]);
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn call(
        &mut self,
        f: impl FnOnce(&mut S, &mut Context<'_, S>) -> Next<S> + 'static,
    ) -> RequestId {
        self.call_after(Duration::ZERO, f)
    }

    /// [`call`](Self::call) after `delay`, counted from this call; [`Duration::MAX`] is never.
    pub fn call_after(
        &mut self,
        delay: Duration,
        f: impl FnOnce(&mut S, &mut Context<'_, S>) -> Next<S> + 'static,
    ) -> RequestId {
        self.read_clock();
        let id = self.chains.call(Box::new(f), delay);
        self.set_alarm();
        id
    }

    fn submit_boxed(
        &mut self,
        request: Request,
        readback: Box<dyn Readback<S>>,
        delay: Duration,
    ) -> RequestId {
        // Between turns the time of the last one may be long past, and deadlines are never early.
        self.read_clock();
        let id = self.chains.submit(request, readback, delay);
        self.set_alarm();
        id
    }

    /// Ends a chain, whatever it is doing; its connection is closed if a request is on it. A turn is then due.
    ///
    /// True: its readback is called exactly once more, with [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled), and what it answers is
    /// dropped. A call that it waits for is dropped and not made; a chain that has only made calls has no readback that could
    /// be told. False: the chain is over, or was cancelled before.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let cancelled = self.chains.cancel(id);
        self.set_alarm();
        cancelled
    }

    /// Lets an exchange go on whose readback answered [`Flow::Pause`]. A turn is then due. False: it is not paused.
    pub fn resume(&mut self, id: RequestId) -> bool {
        let resumed = self.chains.resume(id);
        self.set_alarm();
        resumed
    }

    /// When a turn is due even if nothing becomes readable; in the past: now. `None`: there is nothing to wait for but the
    /// file descriptor.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.is_due() {
            return Some(self.now);
        }
        self.next_timer()
    }

    /// How long it is from `now`, at which the engine has lived for `life`, until the first timer goes off, the resolver's included.
    fn until_next_timer(&self, now: Instant, life: Duration) -> Option<Duration> {
        let timer = self.wheel.next_tick();
        let timer = timer.map(|tick| Duration::from_millis(tick).saturating_sub(life));
        let names = self.names.deadline();
        let names = names.map(|at| at.saturating_duration_since(now));
        match (timer, names) {
            (Some(timer), Some(names)) => Some(timer.min(names)),
            (timer, names) => timer.or(names),
        }
    }

    /// When the first timer goes off, the resolver's included.
    fn next_timer(&self) -> Option<Instant> {
        let timer = self.wheel.next_tick().map(|tick| self.instant_of(tick));
        match (timer, self.names.deadline()) {
            (Some(timer), Some(names)) => Some(timer.min(names)),
            (timer, names) => timer.or(names),
        }
    }

    /// [`next_deadline`](Self::next_deadline) as a duration from the clock read now; zero when a turn is due.
    pub fn next_timeout(&self) -> Option<Duration> {
        match self.is_due() {
            true => Some(Duration::ZERO),
            false => {
                let now = self.net.now();
                self.until_next_timer(now, now.saturating_duration_since(self.epoch))
            }
        }
    }

    /// Chains that are not over: queued, in flight, paused or delayed.
    pub fn pending(&self) -> usize {
        self.chains.len()
    }

    /// How the engine stands. Counts all links and chains anew: cheap enough to be asked every second, not every turn.
    pub fn stats(&self) -> Stats {
        let Counts {
            opened,
            reused,
            answered,
            failed,
            retried,
            pipelined,
            bytes_in,
            bytes_out,
            turns,
            wakeups,
        } = self.counts;
        let mut stats = Stats {
            links_open: self.links.len(),
            submitted: self.chains.submitted,
            opened,
            reused,
            answered,
            failed,
            retried,
            pipelined,
            bytes_in,
            bytes_out,
            turns,
            wakeups,
            system_calls: self.net.system_calls(),
            ..Stats::default()
        };
        for link in self.links.iter() {
            match link.state {
                State::Dialing { .. }
                | State::Connecting { .. }
                | State::TurnedAway { .. }
                | State::Handshaking { .. } => {
                    stats.links_dialing += 1;
                }
                State::Idle(_) => stats.links_idle += 1,
                State::Busy { .. } | State::Resting => {}
            }
        }
        for key in self.chains.keys() {
            let chain = &self.chains[key];
            stats.paused += usize::from(chain.marks.has(Marks::PAUSED));
            match chain.stage {
                Stage::New | Stage::Queued { .. } => stats.queued += 1,
                Stage::Delayed | Stage::Waiting { .. } | Stage::Due { .. } => stats.delayed += 1,
                Stage::Running { .. } => stats.in_flight += 1,
                Stage::Failed | Stage::Reading => {}
            }
        }
        stats
    }

    fn remote(&self) -> Arc<Remote<S>> {
        Arc::clone(&self.remote)
    }

    /// The way in from other threads.
    pub fn submitter(&self) -> Submitter<S> {
        self.remote.submitter()
    }

    /// Closes idle connections, and lets none that is open now be used again: the network changed, or the machine slept.
    pub fn close_idle(&mut self) {
        while let Some(key) = self.pool.oldest_idle_of_all() {
            self.close_idle_link(key);
        }
        for link in self.links.iter_mut() {
            link.marks.set(crate::net::link::LinkMarks::CLOSE);
        }
    }

    /// Forgets what was learnt of the network that this machine was on: another one was joined, a
    /// VPN came or went, the machine slept.
    ///
    /// Idle connections are closed, and those in use serve no other request after their present
    /// one, as by
    /// [`close_idle`](Self::close_idle). Kept names are forgotten, and which addresses and name servers failed lately;
    /// `/etc/resolv.conf` and the hosts file are read again at the next look-up. Requests under way
    /// go on, within their deadlines.
    pub fn network_changed(&mut self) {
        self.close_idle();
        self.doubts = Doubts::default();
        self.names.on_network_changed();
        self.set_alarm();
    }

    /// Has the poll become readable when the next turn is due, if it is one that can.
    fn set_alarm(&mut self) {
        if self.net.has_alarm() {
            let deadline = self.next_deadline();
            self.net.set_alarm(deadline);
        }
    }

    fn read_clock(&mut self) {
        self.since_clock = SinceClock::Nothing;
        let now = self.net.now();
        let life = now.saturating_duration_since(self.epoch);
        // What goes back, if a clock can, is not gone along with.
        if life > self.life {
            self.now = now;
            self.life = life;
            let (secs, nanos) = (life.as_secs(), u64::from(life.subsec_nanos()));
            // Rounded up: what is counted from here would be early by the part of a microsecond that is cut off.
            self.now_micros = secs * 1_000_000 + nanos.div_ceil(1000);
            self.now_tick = secs * 1000 + nanos / NANOS_A_TICK;
            self.chains.now = self.now_micros;
        }
    }

    /// Reads the clock if user code has run since that was done: nothing that is counted from now
    /// on must be early for the time which that took.
    #[inline(always)]
    fn catch_up(&mut self) {
        if self.since_clock == SinceClock::UserCode {
            self.read_clock();
        }
    }

    fn instant_of(&self, tick: u64) -> Instant {
        // Ticks lie at most u32::MAX past a time that an Instant held, or came from a delay that was added to one.
        self.epoch
            .checked_add(Duration::from_millis(tick))
            .unwrap_or(self.now + Duration::from_secs(1 << 31))
    }

    /// The tick that is now, rounded down: what is due at it has waited at least as long as it asked.
    fn now_tick(&self) -> u64 {
        self.now_tick
    }

    /// The first tick not before `micros`.
    fn tick_after(micros: u64) -> u64 {
        micros.div_ceil(1000)
    }
}

impl<S> Engine<S, Owned> {
    /// An engine with the default configuration, on a poll of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io): no poll or waker is to be had.
    pub fn new() -> Result<Self, Error> {
        Self::with_config(Config::default())
    }

    /// An engine on a poll of its own.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) naming the field, [`ErrorKind::Io`](crate::ErrorKind::Io) as for [`new`](Self::new).
    pub fn with_config(config: Config) -> Result<Self, Error> {
        config.check()?;
        let poll = OwnPoll::new(config.turn_events, config.deadlines()).map_err(Error::io)?;
        Self::on_net(MioNet::new(poll), config)
    }
}

#[cfg(unix)]
impl<S> std::os::fd::AsFd for Engine<S, Owned> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.net.watch.fd()
    }
}

#[cfg(unix)]
impl<S> std::os::fd::AsRawFd for Engine<S, Owned> {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.net.watch.fd().as_raw_fd()
    }
}

impl<S, M: Mode> Drop for Engine<S, M> {
    fn drop(&mut self) {
        self.remote.close();
        let is_forked = self.net.is_forked();
        for mut link in self.links.drain() {
            for socket in link.take_sockets() {
                match is_forked {
                    true => self.net.close(socket),
                    false => close_socket(&mut self.net, socket),
                }
            }
        }
        if is_forked {
            self.names.abandon();
        }
    }
}

impl<S, M: Mode> fmt::Debug for Engine<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("links", &self.links.len())
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

/// Deregisters, then closes: a duplicate of the descriptor in a forked child would keep reporting otherwise.
fn close_socket<N: Net>(net: &mut N, mut socket: N::Socket) {
    if let Err(error) = net.deregister(&mut socket) {
        log::warn!("deregistering {socket:?} failed ({error})");
    }
    net.close(socket);
}
