//! Engines on their host's poll.

use std::ops::Range;

use mio::Registry;
use mio::event::Event;

use crate::config::Config;
use crate::engine::Engine;
use crate::engine::mode::Shared;
use crate::engine::turn::{ClockAtStart, Turn};
use crate::error::Error;
use crate::net::poll::HostPoll;
use crate::net::socket::MioNet;
use crate::net::window::{Lent, Window};

impl<S> Engine<S, Shared> {
    /// Creates an engine whose sockets are watched by the host's [`mio::Poll`], including those of
    /// its resolver.
    ///
    /// In each pass of its loop, the host
    ///
    /// 1. polls for at most [`next_timeout`](Self::next_timeout), which changes from turn to turn;
    /// 2. passes each event whose token lies in `tokens` to [`on_event`](Self::on_event);
    /// 3. makes a [`turn`](Self::turn), even if the poll reported no event.
    ///
    /// The engine has no waker of its own, because a poll can have only one. It calls `wake`
    /// instead, from any thread, when a [`Submitter`](crate::Submitter) or a resolver has work for
    /// the next turn. `wake` must make the host's poll return; most often it uses the host's
    /// [`mio::Waker`].
    ///
    /// `tokens` must be at least `2 * max_connections + 64` tokens. In a larger window it takes
    /// longer until a token is used again, and the resolver may have more than 64 sockets, which
    /// [`max_lookups`](Config::max_lookups) may require. The tokens belong to the engine until it
    /// is dropped; dropping it deregisters everything that it has registered.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use httpstream::{Config, Engine, Next, Request, Shared};
    /// use mio::{Events, Poll, Token, Waker};
    ///
    /// const WAKE: Token = Token(0);
    /// const ENGINE: std::ops::Range<usize> = 1 << 16..1 << 20;
    ///
    /// let mut poll = Poll::new()?;
    /// let registry = poll.registry();
    /// let waker = Arc::new(Waker::new(registry, WAKE)?);
    /// let wake = move || waker.wake().unwrap_or_else(|error| eprintln!("{error}"));
    /// let config = Config::default();
    /// let mut engine = Engine::<u32, Shared>::on_registry(registry, ENGINE, wake, config)?;
    ///
    /// engine.submit(Request::get("http://127.0.0.1:1/").build()?, |replies, _, _| {
    ///     *replies += 1;
    ///     Next::done()
    /// });
    /// let mut replies = 0;
    /// let mut events = Events::with_capacity(64);
    /// while engine.pending() > 0 {
    ///     match poll.poll(&mut events, engine.next_timeout()) {
    ///         Err(error) if error.kind() != std::io::ErrorKind::Interrupted => Err(error)?,
    ///         _ => {}
    ///     }
    ///     for event in &events {
    ///         if !engine.on_event(event) {
    ///             // One of the host's own.
    ///         }
    ///     }
    ///     engine.turn(&mut replies)?;
    /// }
    /// assert_eq!(replies, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig), naming the field, or `tokens`
    /// if there are too few; [`ErrorKind::Io`](crate::ErrorKind::Io) if the registry cannot be
    /// cloned.
    pub fn on_registry(
        registry: &Registry,
        tokens: Range<usize>,
        wake: impl Fn() + Send + Sync + 'static,
        config: Config,
    ) -> Result<Self, Error> {
        config.check()?;
        let links = config.max_connections;
        let window = Window::new(tokens.clone(), links).map_err(|least| {
            Error::invalid_config(format!(
                "tokens {tokens:?} are only {}, but max_connections {links} needs at least {least}",
                tokens.len()
            ))
        })?;
        let registry = registry.try_clone().map_err(Error::io)?;
        let poll = HostPoll::new(registry, window, wake);
        Self::on_net(MioNet::new(poll), config)
    }

    /// Accepts an event of the host's poll, and makes a turn due that processes the event.
    ///
    /// Returns false if the event is not for this engine, or belongs to a connection that is closed
    /// by now. (For tokens that the resolver uses, it always returns true; the resolver recognizes
    /// stale events itself.)
    ///
    /// Pass on every event in the window: no event is reported twice, so a response may never
    /// arrive if one is dropped.
    pub fn on_event(&mut self, event: &Event) -> bool {
        let token = match self.core.net.watch.window().inner(event.token()) {
            None => return false,
            Some(Lent::Resolver(token)) => token,
            Some(Lent::Link(slot, class)) => {
                let window = self.core.net.watch.window();
                if !self.core.links.has(slot)
                    || !window.has(class, self.core.links.generation(slot))
                {
                    return false;
                }
                self.core.links.token(slot)
            }
        };
        self.core.net.watch.hand(token, event);
        true
    }

    /// Makes one turn: processes the events passed to [`on_event`](Self::on_event) and everything
    /// else that is due, calling readbacks with `state`. Never waits.
    ///
    /// # Errors
    /// As for an engine on its own poll; in practice none.
    ///
    /// # Panics
    /// If a readback panics. The engine remains usable.
    pub fn turn(&mut self, state: &mut S) -> Result<Turn, Error> {
        self.core.agenda.draining = false;
        self.turn_within(
            state,
            Some(std::time::Duration::ZERO),
            ClockAtStart::MayHaveMoved,
        )
    }
}
