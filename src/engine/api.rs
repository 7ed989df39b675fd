//! The engine itself, with the methods that it has on any poll.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::engine::asks::{Asks, Readbacks};
use crate::engine::core::Core;
use crate::engine::mode::sealed::Sealed;
use crate::engine::mode::{Mode, Owned};
use crate::engine::orders::Orders;
use crate::engine::readback::{Context, Next, Readback, ReadbackFn};
use crate::engine::stats::{OriginStats, Stats};
use crate::engine::submitter::{Remote, Submitter};
use crate::engine::waking::Waking;
use crate::error::Error;
use crate::id::ChainId;
use crate::net::Net;
use crate::proto::Origin;
use crate::request::Request;
use crate::route::Route;

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
///     let request = Request::get(format!("http://127.0.0.1:1/{page}")).build()?;
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
/// not notified again of what a turn leaves over. It must repeat the turn until
/// [`Turn::more`](crate::Turn::more) is false and [`Turn::events`](crate::Turn::events) is 0, and
/// once more after a panic of a readback that it has caught.
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
/// descriptor becomes readable for deadlines, too. [`embedding`](crate::embedding) has a recipe for
/// each kind of loop.
///
/// # Forking
/// A forked child must not use its parent's engine: both have the same poll, and a turn in the
/// child would take events that the parent waits for. The child may drop the engine, which closes
/// its copies of the sockets and leaves the parent's alone, and it may create engines of its own.
pub struct Engine<S = (), M: Mode = Owned> {
    pub(super) core: Core<<M as Sealed>::Net>,
    pub(super) readbacks: Readbacks<S>,
    pub(super) orders: Orders<S>,
    /// Restricts the engine to one thread: its state may not be `Send`, and readbacks do not expect
    /// to move to another thread.
    not_send: std::marker::PhantomData<*const ()>,
}

impl<S, M: Mode> Engine<S, M> {
    /// Starts a chain: sends `request` and gives the response, or the error, to `readback`. Makes a
    /// turn due.
    ///
    /// Each request of the chain gets exactly one reply, as long as the engine lives.
    ///
    /// Write the closure in the call, where its types are inferred, or annotate all three
    /// parameters. It is called once for each response of the chain (`FnMut`), so it clones what it
    /// gives away. Inside readbacks, `cx.send(…).read_by(…)` infers them.
    pub fn submit(&mut self, request: Request, readback: impl ReadbackFn<S> + 'static) -> ChainId {
        self.submit_to(request, readback)
    }

    /// [`submit`](Self::submit) for a type that implements [`Readback`].
    pub fn submit_to(&mut self, request: Request, readback: impl Readback<S> + 'static) -> ChainId {
        self.start(Next::send(request).read_to(readback))
    }

    /// Starts a chain that begins with a call: the next turn runs `f`, and the chain then does what
    /// `f` returns. Makes a turn due.
    ///
    /// If `f` returns a request without a [`read_by`](Next::read_by), the response is read to its
    /// end and discarded, as by [`Unread`](crate::Unread). If it returns [`again`](Next::again),
    /// the chain ends, because it has sent no request yet. A call is not a request: if it is
    /// canceled or drained, `f` is dropped, and no readback is called.
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
    /// // A delayed call is started like any other step.
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

    /// Starts a chain that begins with `next`: a request, a call, a task or a wait. Delays count
    /// from now. Makes a turn due.
    ///
    /// A request without a [`read_by`](Next::read_by) is read by [`Unread`](crate::Unread).
    /// [`done`](Next::done) and [`again`](Next::again) start nothing; the id that is returned is
    /// then that of no chain.
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
        // The clock may have been read long before, in the last turn; the delay would then end too
        // early.
        self.core.read_clock();
        let id = self.asks().start(next, None);
        self.set_alarm();
        id
    }

    /// Opens a connection to `origin`, so that the next request to it finds one: looks up the host,
    /// connects, and performs the TLS handshake, if there is one. Makes a turn due, which begins
    /// this.
    ///
    /// Use it when a request is about to follow, for example while a user types, or before an event
    /// whose time is known. The connection goes to the pool and is kept there for
    /// [`Config::idle_timeout`](crate::Config::idle_timeout). A request that comes before it is
    /// open takes it over and does not open another.
    ///
    /// Nothing happens if the origin has an idle connection, or one that is being opened without a
    /// request; if requests wait for a connection; or if a limit is reached, since no other
    /// connection is closed to make room. A failure or timeout is only logged, at level `debug`,
    /// and the next request makes its own attempt. While the connection is being opened, it is
    /// closed by `close_idle`, by `network_changed`, and for a request that needs the room.
    ///
    /// The connection is not a chain: it is not [pending](Self::pending), and `run` does not wait
    /// for it. The response to the first request on it has [`Info::reused`](crate::Info::reused)
    /// false.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::sim::{Answer, Incoming, Network};
    /// use httpstream::{Config, Engine, Next, Request, Sim};
    ///
    /// let network = Network::new(1);
    /// network.host("a.test", [[10, 0, 0, 1]]);
    /// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::ok("hello"));
    ///
    /// let mut engine = Engine::<(), Sim>::on_network(&network, Config::default())?;
    /// engine.preconnect(&"http://a.test".parse()?);
    /// engine.advance(&mut (), Duration::from_secs(1))?;
    /// assert_eq!(engine.stats().links_idle, 1);
    ///
    /// engine.submit(Request::get("http://a.test/").build()?, |_, reply, _| {
    ///     assert_eq!(reply.unwrap().info().timings.connect, None);
    ///     Next::done()
    /// });
    /// engine.run(&mut ())?;
    /// assert_eq!(engine.stats().opened, 1);
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn preconnect(&mut self, origin: &Origin) {
        self.core.chains.preconnect(origin.clone(), None);
        self.set_alarm();
    }

    /// Does the same as [`preconnect`](Self::preconnect) for requests that carry `route`, or a
    /// route equal to it.
    pub fn preconnect_by(&mut self, origin: &Origin, route: &Arc<Route>) {
        let route = Some(Arc::clone(route));
        self.core.chains.preconnect(origin.clone(), route);
        self.set_alarm();
    }

    /// [`Next::send`] with the state's type fixed, which lets the compiler infer the types of a
    /// closure that follows.
    pub fn send(&self, request: Request) -> Next<S> {
        Next::send(request)
    }

    /// Cancels a chain, whatever it is doing. If one of its requests is on a connection, the
    /// connection is closed. Makes a turn due.
    ///
    /// Returns true if the chain will be canceled: its readback is then called exactly once more,
    /// with [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled), and what it returns is ignored.
    /// A call that the chain waits for is dropped. A chain that has only made calls has no readback
    /// to notify. Returns false if the chain is over or was canceled before.
    ///
    /// ```
    /// use httpstream::{Engine, ErrorKind, Next, Request};
    ///
    /// let mut engine = Engine::<Option<ErrorKind>>::new()?;
    /// let id = engine.submit(Request::get("http://127.0.0.1:1/").build()?, |ended, reply, _| {
    ///     *ended = reply.err().map(|error| error.kind());
    ///     Next::again() // ignored
    /// });
    /// assert!(engine.cancel(id));
    /// assert!(!engine.cancel(id));
    /// let mut ended = None;
    /// engine.run(&mut ended)?;
    /// assert_eq!(ended, Some(ErrorKind::Cancelled));
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn cancel(&mut self, id: ChainId) -> bool {
        let cancelled = self.core.chains.cancel(id);
        self.set_alarm();
        cancelled
    }

    /// [Cancels](Self::cancel) the chain that holds a [key](Next::key): the one whose step with
    /// that key has not begun. Makes a turn due. Returns false if there is none.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::{Engine, Next};
    ///
    /// let mut engine = Engine::<u32>::new()?;
    /// let call = Next::<u32>::call(|calls, cx| {
    ///     *calls += 1;
    ///     cx.done()
    /// });
    /// engine.start(call.after(Duration::from_secs(3600)).key("refresh"));
    /// assert!(engine.cancel_key("refresh"));
    /// assert!(!engine.cancel_key("refresh"));
    /// let mut calls = 0;
    /// engine.run(&mut calls)?;
    /// assert_eq!(calls, 0);
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn cancel_key(&mut self, name: &str) -> bool {
        let cancelled = self.core.chains.cancel_key(name);
        self.set_alarm();
        cancelled
    }

    /// [Cancels](Self::cancel) every chain, including tasks and awaited futures (see
    /// [`Context::cancel_others`](crate::Context::cancel_others)), and returns how many. Makes a
    /// turn due. To shut down a host that has its own poll, call this and go on until nothing is
    /// [pending](Self::pending).
    pub fn cancel_all(&mut self) -> usize {
        let cancelled = self.core.chains.cancel_all();
        self.set_alarm();
        cancelled
    }

    /// Resumes a response whose readback returned [`Flow::Pause`](crate::Flow::Pause). Makes a turn
    /// due. Returns false if it is not paused.
    pub fn resume(&mut self, id: ChainId) -> bool {
        let resumed = self.core.chains.resume(id);
        self.set_alarm();
        resumed
    }

    /// Returns when a turn is due even if the file descriptor does not become readable. An instant
    /// that is not in the future means now; `None` means that there is nothing to wait for but the
    /// descriptor.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.is_due() {
            Some(self.core.clock.now())
        } else {
            self.core.next_timer()
        }
    }

    /// Returns [`next_deadline`](Self::next_deadline) as a duration from now, for which it reads
    /// the clock. Zero if a turn is due.
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

    /// Returns the number of chains that are not over: queued, in flight, paused or delayed.
    #[must_use = "this only counts the chains; `run` or `turn` makes them progress"]
    pub fn pending(&self) -> usize {
        self.core.chains.len()
    }

    /// Returns the engine's figures. Each call counts all links and chains anew, which is cheap
    /// enough for every second, but not for every turn.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Returns the figures of each origin, in no particular order. Each call counts all links and
    /// chains anew, like [`stats`](Self::stats).
    #[must_use]
    pub fn origins(&self) -> Vec<OriginStats> {
        self.core.origins()
    }

    /// Returns a handle through which other threads reach this engine.
    pub fn submitter(&self) -> Submitter<S> {
        self.orders.submitter()
    }

    /// Closes idle connections, and lets no other connection that is open now serve another request
    /// after its present one. Use it when the network has changed or the machine was suspended.
    pub fn close_idle(&mut self) {
        self.core.close_idle();
    }

    /// Forgets everything learned about the present network. Use it when the machine has joined
    /// another network, a VPN has come up or gone down, or the machine was suspended.
    ///
    /// Idle connections are closed, and connections in use serve no other request after their
    /// present one, as by [`close_idle`](Self::close_idle). Cached names are dropped, and so is the
    /// record of which addresses and name servers failed lately. `/etc/resolv.conf` and the hosts
    /// file are read again at the next lookup. Requests in flight continue, within their deadlines.
    pub fn network_changed(&mut self) {
        self.core.close_idle();
        self.core.lookups.on_network_changed();
        self.set_alarm();
    }
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

    pub(super) fn asks(&mut self) -> Asks<'_, S> {
        Asks {
            chains: &mut self.core.chains,
            readbacks: &mut self.readbacks,
            is_draining: self.core.agenda.draining,
        }
    }

    /// Returns whether a turn has work to do even if nothing becomes readable and no time passes.
    pub(super) fn is_due(&self) -> bool {
        self.core.is_due() || self.orders.has_unannounced()
    }

    pub(super) fn remote(&self) -> Arc<Remote<S>> {
        self.orders.remote()
    }

    /// Sets the poll's timer, if it has one, to make the poll readable when the next turn is due.
    pub(super) fn set_alarm(&mut self) {
        if self.core.net.has_alarm() {
            let deadline = self.next_deadline();
            self.core.net.set_alarm(deadline);
        }
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
