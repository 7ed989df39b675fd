//! Engine: decides what happens next, and when; here everything meets.
//!
//! [`Engine`] runs user code, [`Core`] does everything else: connections, exchanges and chains,
//! wired together. Their methods stand in the files of the two lists below, in the order of a turn;
//! each calls the files below it in the list, and none above it. `tests/layers.rs` holds them to
//! that.
//!
//! Methods of [`Engine`], where user code is run, and of [`Core`], where links are read:
//! - `turn`: one turn of the loop, in its order and with its bounds
//! - `overdue`: deadlines that have passed: what the kernel holds comes first
//! - `timers`: what is due by time
//! - `feed`: from bytes to responses
//! - `receive`: reads the socket, or the TLS state
//! - `body`: what becomes of a body, and of its codings
//! - `finish`: a response is complete; what becomes of its link
//! - `reply`: how a policy and a readback are told, and what follows from what they answer
//!
//! Methods of [`Core`], from what is asked for to what is written:
//! - `commands`: what was asked for is carried out, and what came free is given away
//! - `pipeline`: what follows in a pipeline when a response is complete
//! - `begin`: how a chain's step begins: its policy, its origin, its delay
//! - `queue`: how a request finds a link, or a place in its origin's queue
//! - `dialing`: how a link gets its connection
//! - `shortage`: what is done where this machine has no room for it
//! - `secure`: the handshakes of a link
//! - `sending`: how a request is put on a link, and written
//! - `visits`: what a policy is asked
//! - `probing`: whether a kept connection may be given a request
//! - `fail`: how an exchange ends without a response
//! - `closing`: how a link ends
//! - `waiting`: the queues of chains that wait for a link
//! - `deadlines`: delays and deadlines
//! - `core`: the parts, and what all of them need
//!
//! The parts, each of which owns its data: `agenda` (what is left to do in this turn), `chains` and
//! `chain`, `generations`, `outbox`, `asks` (what callers wrote, and what a running readback is
//! lent), `visit`, `clock`, `quiet`, `lookups`, `buffers`, `settings`, `stats`, `alerts`. Links and
//! their pool stand in `net`, the exchanges of a link in `h1`.
//!
//! The surface: `readback`, `within`, `future`, `task`, `submitter`, `local`, `orders`, `waking`,
//! `mode`, `shared`, `simulated`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::error::Error;
use crate::id::ChainId;
use crate::net::Net;
use crate::net::poll::OwnPoll;
use crate::net::socket::MioNet;
use crate::request::Request;

mod agenda;
mod alerts;
mod asks;
mod begin;
mod body;
mod buffers;
mod chain;
mod chains;
mod clock;
mod closing;
mod commands;
mod core;
mod deadlines;
mod dialing;
mod fail;
mod feed;
mod finish;
mod future;
mod generations;
mod local;
mod lookups;
mod mode;
mod orders;
mod outbox;
mod overdue;
mod pipeline;
mod probing;
mod queue;
mod quiet;
mod readback;
mod receive;
mod reply;
mod secure;
mod sending;
mod settings;
mod shared;
mod shortage;
#[cfg(feature = "sim")]
mod simulated;
mod stats;
mod submitter;
mod task;
mod timers;
mod turn;
mod visit;
mod visits;
mod waiting;
mod waking;
mod within;

pub use local::Local;
#[cfg(feature = "sim")]
pub use mode::Sim;
pub use mode::{Mode, Owned, Shared};
pub use readback::{Context, Flow, Next, Readback, ReadbackFn, Unread};
pub use stats::Stats;
pub use submitter::{KeepAlive, Submitter};
pub use turn::Turn;
pub use within::{within, within_call, within_to};

use asks::{Asks, Readbacks};
use core::Core;
use mode::sealed::Sealed;
use orders::Orders;
use submitter::Remote;
use waking::Waking;

/// Runs requests and their readbacks on one thread, with as many connections as they need.
///
/// `S` is the caller's state: lent to each turn, and handed to every readback as `&mut S`. An
/// engine is bound to the thread it was made on; other threads reach it through a [`Submitter`].
/// Dropping it closes everything and runs no readback.
///
/// # Embedding
/// The engine's file descriptor ([`AsFd`](std::os::fd::AsFd)) is readable or
/// [`next_deadline`](Self::next_deadline) is past whenever a turn would do something; a host may
/// call [`turn`](Self::turn) late, early or twice, and from an edge-triggered loop as long as it
/// turns until [`Turn::more`] is false and `events` is 0. `submit`, `cancel` and `resume` outside a
/// turn make a turn due: ask for the deadline again after them.
///
/// # Forking
/// A process that is forked off may not use the engine: it has the same poll as its parent, and a
/// turn would take events that the parent waits for. It may drop it, which closes its copies of the
/// sockets and leaves the parent's alone, and make engines of its own.
pub struct Engine<S = (), M: Mode = Owned> {
    core: Core<<M as Sealed>::Net>,
    readbacks: Readbacks<S>,
    orders: Orders<S>,
    /// Calls from one thread only: some states are not `Send`, and a readback never expects to
    /// move.
    not_send: std::marker::PhantomData<*const ()>,
}

impl<S, M: Mode> Engine<S, M> {
    pub(crate) fn on_net(net: <M as Sealed>::Net, config: Config) -> Result<Self, Error> {
        let waking = Arc::new(Waking::new(net.waker()));
        let core = Core::new(net, config, Arc::clone(&waking))?;
        let has_policy = core.settings.policy.is_some();
        let orders = Orders::new(waking, core.settings.max_inbox, has_policy);
        Ok(Self {
            core,
            readbacks: Readbacks::new(),
            orders,
            not_send: std::marker::PhantomData,
        })
    }

    fn asks(&mut self) -> Asks<'_, S> {
        Asks {
            chains: &mut self.core.chains,
            readbacks: &mut self.readbacks,
        }
    }

    /// Starts a chain: sends `request` and gives the response, or why there is none, to `readback`.
    /// A turn is then due.
    ///
    /// Each request of the chain is answered exactly once, as long as the engine lives.
    ///
    /// Write the closure in the call, where its types are inferred, or annotate all three
    /// parameters; inside readbacks `cx.send(…).read_by(…)` infers.
    pub fn submit(&mut self, request: Request, readback: impl ReadbackFn<S> + 'static) -> ChainId {
        self.submit_to(request, readback)
    }

    /// [`submit`](Self::submit) for a [`Readback`] that wants to see more than the reply.
    pub fn submit_to(&mut self, request: Request, readback: impl Readback<S> + 'static) -> ChainId {
        self.start(Next::send(request).read_to(readback))
    }

    /// Starts a chain which begins with a call: in the next turn `f` is run, and what it answers
    /// follows. A turn is then due.
    ///
    /// What `f` sends without a [`read_by`](Next::read_by) is read to its end and thrown away, as
    /// by [`Unread`]; it has nothing to send [`again`](Next::again). A call is no request:
    /// cancelled or drained, `f` is dropped, and nobody is told.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::{Engine, Next};
    ///
    /// let mut engine = Engine::<Vec<&str>>::new()?;
    /// engine.call(|done, cx| {
    ///     done.push("now");
    ///     cx.done()
    /// });
    /// // A delayed one is started as any other step.
    /// let later = Next::<Vec<&str>>::call(|done, cx| {
    ///     done.push("later");
    ///     cx.done()
    /// });
    /// engine.start(later.after(Duration::from_millis(5)));
    /// let mut done = Vec::new();
    /// engine.run(&mut done)?;
    /// assert_eq!(done, ["now", "later"]);
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn call(
        &mut self,
        f: impl FnOnce(&mut S, &mut Context<'_, S>) -> Next<S> + 'static,
    ) -> ChainId {
        self.start(Next::call(f))
    }

    /// Starts a chain that begins with `next`: a request, a call, a task or a wait; delays count
    /// from this call. A turn is then due. [`done`](Next::done) and [`again`](Next::again) start
    /// nothing, and the id is that of no chain.
    ///
    /// A request without a [`read_by`](Next::read_by) is read by [`Unread`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::{Engine, Next, Request};
    ///
    /// let mut engine = Engine::<u32>::new()?;
    /// let request = engine.send(Request::get("http://127.0.0.1:1/").build()?);
    /// engine.start(request.after(Duration::from_millis(5)).read_by(|replies, _, cx| {
    ///     *replies += 1;
    ///     cx.done()
    /// }));
    /// let mut replies = 0;
    /// engine.run(&mut replies)?;
    /// assert_eq!(replies, 1);
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn start(&mut self, next: Next<S>) -> ChainId {
        // Between turns the time of the last one may be long past, and deadlines are never early.
        self.core.read_clock();
        let id = self.asks().start(next, None);
        self.set_alarm();
        id
    }

    /// [`Next::send`], with the state's type known, so that a closure behind it infers.
    pub fn send(&self, request: Request) -> Next<S> {
        Next::send(request)
    }

    /// Ends a chain, whatever it is doing; its connection is closed if a request is on it. A turn
    /// is then due.
    ///
    /// True: its readback is called exactly once more, with
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled), and what it answers is dropped. A
    /// call that it waits for is dropped and not made; a chain that has only made calls has no
    /// readback that could be told. False: the chain is over, or was cancelled before.
    pub fn cancel(&mut self, id: ChainId) -> bool {
        let cancelled = self.core.chains.cancel(id);
        self.set_alarm();
        cancelled
    }

    /// Lets an exchange go on whose readback answered [`Flow::Pause`]. A turn is then due. False:
    /// it is not paused.
    pub fn resume(&mut self, id: ChainId) -> bool {
        let resumed = self.core.chains.resume(id);
        self.set_alarm();
        resumed
    }

    /// When a turn is due even if nothing becomes readable; in the past: now. `None`: there is
    /// nothing to wait for but the file descriptor.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.is_due() {
            Some(self.core.clock.now())
        } else {
            self.core.next_timer()
        }
    }

    /// Whether a turn would do something even if nothing became readable and no time passed.
    fn is_due(&self) -> bool {
        self.core.is_due() || self.orders.has_unannounced()
    }

    /// [`next_deadline`](Self::next_deadline) as a duration from the clock read now; zero when a
    /// turn is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        if self.is_due() {
            Some(Duration::ZERO)
        } else {
            let core = &self.core;
            let now = core.net.now();
            core.until_next_timer(now, core.clock.life_at(now))
        }
    }

    /// Chains that are not over: queued, in flight, paused or delayed.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.core.chains.len()
    }

    /// How the engine stands. Counts all links and chains anew: cheap enough to be asked every
    /// second, not every turn.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    fn remote(&self) -> Arc<Remote<S>> {
        self.orders.remote()
    }

    /// The way in from other threads.
    pub fn submitter(&self) -> Submitter<S> {
        self.orders.submitter()
    }

    /// Closes idle connections, and lets none that is open now be used again: the network changed,
    /// or the machine slept.
    pub fn close_idle(&mut self) {
        self.core.close_idle();
    }

    /// Forgets what was learnt of the network that this machine was on: another one was joined, a
    /// VPN came or went, the machine slept.
    ///
    /// Idle connections are closed, and those in use serve no other request after their present
    /// one, as by [`close_idle`](Self::close_idle). Kept names are forgotten, and which addresses
    /// and name servers failed lately; `/etc/resolv.conf` and the hosts file are read again at the
    /// next look-up. Requests under way go on, within their deadlines.
    pub fn network_changed(&mut self) {
        self.core.close_idle();
        self.core.lookups.on_network_changed();
        self.set_alarm();
    }

    /// Has the poll become readable when the next turn is due, if it is one that can.
    fn set_alarm(&mut self) {
        if self.core.net.has_alarm() {
            let deadline = self.next_deadline();
            self.core.net.set_alarm(deadline);
        }
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
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) naming the field,
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) as for [`new`](Self::new).
    pub fn with_config(config: Config) -> Result<Self, Error> {
        config.check()?;
        let poll = OwnPoll::new(config.turn_events, config.deadlines()).map_err(Error::io)?;
        Self::on_net(MioNet::new(poll), config)
    }
}

#[cfg(unix)]
impl<S> std::os::fd::AsFd for Engine<S, Owned> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.core.net.watch.fd()
    }
}

#[cfg(unix)]
impl<S> std::os::fd::AsRawFd for Engine<S, Owned> {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.core.net.watch.fd().as_raw_fd()
    }
}

impl<S, M: Mode> Drop for Engine<S, M> {
    fn drop(&mut self) {
        self.orders.close();
    }
}

impl<S, M: Mode> fmt::Debug for Engine<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("links", &self.core.links.len())
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}
