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
    /// An engine whose sockets, those of its resolver included, are watched by the host's
    /// [`mio::Poll`].
    ///
    /// The host polls, hands over each event whose token lies in `tokens` by
    /// [`on_event`](Self::on_event), and then makes a [`turn`](Self::turn), after every poll, also
    /// one that told of nothing. It polls no longer than [`next_timeout`](Self::next_timeout) says,
    /// which it asks for anew each time.
    ///
    /// The engine has no waker of its own, since a poll can have only one: `wake` is called, from
    /// any thread, when a [`Submitter`](crate::Submitter) or a resolver has something for the next
    /// turn, and has to make the host's poll return; mostly it is the host's [`mio::Waker`].
    ///
    /// A window of `2 * max_connections + 64` tokens is the least; in a larger one a token is used
    /// again later, and the resolver may have more sockets than 64, which
    /// [`max_lookups`](Config::max_lookups) may ask for. The tokens are the engine's alone until it
    /// is dropped, which deregisters all it has registered.
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
    /// let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    /// let wake = move || waker.wake().unwrap_or_else(|error| eprintln!("{error}"));
    /// let mut engine = Engine::<u32, Shared>::on_registry(poll.registry(), ENGINE, wake, Config::default())?;
    ///
    /// engine.submit(Request::get("http://127.0.0.1:1/").build()?, |replies, _, _| {
    ///     *replies += 1;
    ///     Next::done()
    /// });
    /// let mut replies = 0;
    /// let mut events = Events::with_capacity(64);
    /// while engine.pending() > 0 {
    ///     poll.poll(&mut events, engine.next_timeout())?;
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
    /// where they are too few; [`ErrorKind::Io`](crate::ErrorKind::Io): the registry cannot be
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
                "tokens {tokens:?} are {}, and max_connections {links} takes {least} at least",
                tokens.len()
            ))
        })?;
        let registry = registry.try_clone().map_err(Error::io)?;
        let poll = HostPoll::new(registry, window, wake);
        Self::on_net(MioNet::new(poll), config)
    }

    /// Takes an event of the host's poll; the next turn, which is then due, deals with it. False:
    /// it is not one of this engine's, or of a connection that is gone. (Those of the resolver's
    /// window are all taken; the resolver knows which are stale.)
    ///
    /// Nothing is told twice: an event that is not handed over is lost, and with it perhaps a
    /// response.
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

    /// One turn: deals with the events that were handed over and with what else is due, calling
    /// readbacks with `state`. Never waits.
    ///
    /// # Errors
    /// As of an engine on a poll of its own; in practice none.
    ///
    /// # Panics
    /// When a readback does; the engine can be used on.
    pub fn turn(&mut self, state: &mut S) -> Result<Turn, Error> {
        self.core.agenda.draining = false;
        self.turn_within(
            state,
            Some(std::time::Duration::ZERO),
            ClockAtStart::MayHaveMoved,
        )
    }
}
