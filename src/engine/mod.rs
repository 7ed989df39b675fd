//! The engine: decides what happens next, and when. All other parts meet here.
//!
//! [`Engine`] runs user code. [`Core`] does everything else: it holds connections, exchanges and
//! chains, and joins them. Their methods are spread over the files in the two lists below, in the
//! order of a turn. A file calls only files below it in its list, which `tests/layers.rs` enforces.
//!
//! Methods of [`Engine`], which runs user code, and of [`Core`], as far as they read links:
//! - `turn`: one turn of the loop, its order and its bounds
//! - `overdue`: expired deadlines; what the kernel has buffered is read first
//! - `timers`: delays, deadlines and idle links that are due
//! - `feed`: from bytes to responses
//! - `receive`: reads the socket, or the TLS state
//! - `body`: passes a body on, through its decoders if it has any
//! - `finish`: completes a response; reuses or closes its link
//! - `reply`: calls policies and readbacks, and acts on what they return
//!
//! Methods of [`Core`], from what is asked for to what is written:
//! - `commands`: carries commands out, and hands freed links to waiting requests
//! - `pipeline`: moves a pipeline on when a response is complete
//! - `begin`: begins a step of a chain: its policy, its origin, its delay
//! - `queue`: finds a link for a request, or a place in its origin's queue
//! - `dialing`: connects a link
//! - `shortage`: handles connections that this machine has no resources for
//! - `secure`: the handshakes of a link
//! - `sending`: puts a request on a link and writes it
//! - `visits`: calls a policy
//! - `probing`: checks whether a kept connection may be given a request
//! - `fail`: ends an exchange without a response
//! - `closing`: closes a link
//! - `waiting`: the queues of chains that wait for a link
//! - `deadlines`: delays and deadlines
//! - `core`: the parts, and what all of the files above need
//!
//! The parts, each of which owns its data: `agenda` (the remaining work of this turn), `chains` and
//! `chain`, `generations`, `outbox`, `asks` (the readbacks, and what a running readback is lent),
//! `visit`, `clock`, `quiet`, `lookups`, `buffers`, `settings`, `stats`, `alerts`. Links and their
//! pool are in `net`, the exchanges of a link in `h1`.
//!
//! The public interface: `api`, `readback`, `within`, `future`, `task`, `submitter`, `local`,
//! `orders`, `waking`, `mode`, `shared`, `simulated`.

use std::fmt;
use std::sync::Arc;

use crate::config::Config;
use crate::error::Error;
use crate::net::Net;

mod agenda;
mod alerts;
mod api;
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

/// Runs requests and their readbacks on one thread, over as many connections as they need.
///
/// `S` is the caller's state: the host lends it to each turn, and every readback gets it as `&mut
/// S`. `M` is the [`Mode`], which decides where sockets, readiness and time come from. An engine
/// stays on the thread that made it; other threads reach it through a [`Submitter`]. Dropping an
/// engine closes all connections and runs no readback.
///
/// ```
/// use httpstream::{Engine, Next, Request};
///
/// let mut engine = Engine::<Vec<String>>::new()?;
/// for page in 1..=2 {
///     let request = Request::get(&format!("http://127.0.0.1:1/{page}")).build()?;
///     engine.submit(request, |log, reply, _| {
///         log.push(match reply {
///             Ok(response) => response.status().to_string(),
///             Err(error) => format!("{error:#}"),
///         });
///         Next::done()
///     });
/// }
/// let mut log = Vec::new();
/// engine.run(&mut log)?; // until both chains are over
/// assert_eq!(log.len(), 2);
/// # Ok::<(), httpstream::Error>(())
/// ```
///
/// # In another event loop
/// To an event loop, an engine on its own poll is one file descriptor and one deadline.
///
/// 1. Watch the descriptor ([`AsFd`](std::os::fd::AsFd)) for reading.
/// 2. Wait for at most [`next_timeout`](Self::next_timeout), or until
///    [`next_deadline`](Self::next_deadline). Ask anew before each wait: turns move the deadline,
///    and `submit`, `cancel` and `resume` outside of a turn make a turn due at once. `None` means
///    that only the descriptor needs watching.
/// 3. After each wait, call [`turn`](Engine::turn) with a timeout of zero, which never waits.
///    Early, late and repeated turns do no harm. Make one, too, after a wait that a signal has
///    interrupted.
///
/// **Draining.** A level-triggered loop makes one turn for each wakeup. An edge-triggered loop is
/// not notified again of what a turn leaves over. It must repeat the turn until [`Turn::more`] is
/// false and [`Turn::events`] is 0, and once more after a panic of a readback that it has caught.
///
/// **Other threads** use a [`Submitter`], which makes the descriptor readable.
///
/// In a loop on mio, whose readiness is edge-triggered (`SourceFd` needs mio's feature `os-ext`):
///
/// ```
/// # #[cfg(unix)] fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::os::fd::AsRawFd;
/// use std::time::Duration;
/// use httpstream::{Engine, Next, Request};
/// use mio::unix::SourceFd;
/// use mio::{Events, Interest, Poll, Token};
///
/// const ENGINE: Token = Token(0);
///
/// let mut engine = Engine::<u32>::new()?;
/// engine.submit(Request::get("http://127.0.0.1:1/").build()?, |replies, _, _| {
///     *replies += 1;
///     Next::done()
/// });
///
/// let mut poll = Poll::new()?;
/// let fd = engine.as_raw_fd();
/// poll.registry().register(&mut SourceFd(&fd), ENGINE, Interest::READABLE)?;
/// let mut events = Events::with_capacity(64);
/// let mut replies = 0;
/// while engine.pending() > 0 {
///     match poll.poll(&mut events, engine.next_timeout()) {
///         Err(error) if error.kind() != std::io::ErrorKind::Interrupted => Err(error)?,
///         _ => {}
///     }
///     // The events of the loop's other sources are handled here.
///     loop {
///         let turn = engine.turn(&mut replies, Some(Duration::ZERO))?;
///         if turn.events == 0 && !turn.more {
///             break;
///         }
///     }
/// }
/// poll.registry().deregister(&mut SourceFd(&fd))?;
/// assert_eq!(replies, 1);
/// # Ok(()) }
/// # #[cfg(not(unix))] fn main() {}
/// ```
///
/// There are shorter ways for some loops: [`on_registry`](Engine::on_registry) puts the engine's
/// sockets on the host's own [`mio::Poll`]; `calloop::EngineSource` and `tokio::Driver` (features
/// `calloop` and `tokio`) adapt it to those loops; and with feature `timerfd`, on Linux, the
/// descriptor becomes readable for deadlines, too. docs/EMBEDDING.md has a recipe for each kind of
/// loop.
///
/// # Forking
/// A forked child must not use its parent's engine: both have the same poll, and a turn in the
/// child would take events that the parent waits for. The child may drop the engine, which closes
/// its copies of the sockets and leaves the parent's alone, and it may create engines of its own.
pub struct Engine<S = (), M: Mode = Owned> {
    core: Core<<M as Sealed>::Net>,
    readbacks: Readbacks<S>,
    orders: Orders<S>,
    /// Restricts the engine to one thread: its state may not be `Send`, and readbacks do not expect
    /// to move to another thread.
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

    /// Returns whether a turn has work to do even if nothing becomes readable and no time passes.
    fn is_due(&self) -> bool {
        self.core.is_due() || self.orders.has_unannounced()
    }

    fn remote(&self) -> Arc<Remote<S>> {
        self.orders.remote()
    }

    /// Sets the poll's timer, if it has one, to make the poll readable when the next turn is due.
    fn set_alarm(&mut self) {
        if self.core.net.has_alarm() {
            let deadline = self.next_deadline();
            self.core.net.set_alarm(deadline);
        }
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
