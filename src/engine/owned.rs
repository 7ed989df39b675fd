//! Engines on a poll of their own.

use std::time::Duration;

use crate::config::Config;
use crate::engine::Engine;
use crate::engine::mode::Owned;
use crate::engine::turn::{ClockAtStart, Turn};
use crate::error::Error;
use crate::net::poll::OwnPoll;
use crate::net::socket::MioNet;

impl<S> Engine<S, Owned> {
    /// Creates an engine with the default configuration, on a poll of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the system provides no poll or no waker.
    pub fn new() -> Result<Self, Error> {
        Self::with_config(Config::default())
    }

    /// Creates an engine on a poll of its own.
    ///
    /// ```
    /// use httpstream::{Config, Engine};
    ///
    /// let mut config = Config::default();
    /// config.max_connections = 64;
    /// let engine = Engine::<()>::with_config(config)?;
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig), naming the field;
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) as for [`new`](Self::new).
    pub fn with_config(config: Config) -> Result<Self, Error> {
        config.check()?;
        let poll = OwnPoll::new(config.turn_events, config.deadlines()).map_err(Error::io)?;
        Self::on_net(MioNet::new(poll), config)
    }

    /// Runs one turn: waits until something is ready, a deadline passes or `timeout` elapses, then
    /// does what is due and calls readbacks with `state`.
    ///
    /// `None` waits without a limit. Zero does not wait.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the poll failed. Failures of exchanges go to
    /// their readbacks.
    ///
    /// # Panics
    /// If a readback or a policy panics. The engine stays usable.
    pub fn turn(&mut self, state: &mut S, timeout: Option<Duration>) -> Result<Turn, Error> {
        self.core.agenda.draining = false;
        self.turn_within(state, timeout, ClockAtStart::MayHaveMoved)
    }

    /// Runs turns until nothing is pending and no [`KeepAlive`](crate::KeepAlive) is left, or until
    /// the end of the turn in which [`Context::stop`](crate::Context::stop) or
    /// [`Submitter::stop`](crate::Submitter::stop) was called.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    ///
    /// # Panics
    /// As [`turn`](Self::turn).
    pub fn run(&mut self, state: &mut S) -> Result<(), Error> {
        self.core.agenda.draining = false;
        let mut clock = ClockAtStart::MayHaveMoved;
        while self.has_something_to_come() {
            if self.turn_within(state, None, clock)?.stopped {
                break;
            }
            // Nothing happens between the turns of this loop, so the time that was read at the end
            // of the last turn is still current.
            clock = ClockAtStart::IsAsRead;
        }
        Ok(())
    }

    /// Lets requests that are in flight or queued finish, for `within` at most, and starts nothing
    /// new.
    ///
    /// No chain goes on to another step. Requests that a [policy](crate::policy) holds back or
    /// sends again count as in flight, and so does a long poll: cancel it first, by the id that
    /// [`start`](Self::start) has returned, or the drain waits for its response. Delayed chains,
    /// calls included, are canceled at once. So is whatever readbacks submit during the drain. What
    /// is left after `within` is canceled as well. `stop` has no effect during a drain. The engine
    /// stays usable.
    ///
    /// Returns how many of the chains that existed before were canceled. What was submitted during
    /// the drain does not count.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::sim::{Answer, Incoming, Network};
    /// use httpstream::{Config, Engine, Next, Request, Sim};
    ///
    /// # let network = Network::new(1);
    /// # network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| match request.path() {
    /// #     "/poll" => Answer::ok("").after(Duration::from_secs(50)),
    /// #     _ => Answer::ok("").after(Duration::from_secs(1)),
    /// # });
    /// let mut engine = Engine::<u32, Sim>::on_network(&network, Config::default())?;
    /// let poll = engine.submit(Request::get("http://10.0.0.1/poll").build()?, |_, _, _| {
    ///     Next::again()
    /// });
    /// engine.submit(Request::post("http://10.0.0.1/send").body("bye").build()?, |sent, reply, _| {
    ///     *sent += u32::from(reply.is_ok());
    ///     Next::done()
    /// });
    /// let mut sent = 0;
    /// // Until the program is told to end, for example by Ctrl-C, whose handler calls
    /// // `Submitter::stop`. Then what is under way is finished, but not the poll.
    /// engine.advance(&mut sent, Duration::from_millis(10))?;
    /// engine.cancel(poll);
    /// assert_eq!(engine.drain(&mut sent, Duration::from_secs(10))?, 0);
    /// assert_eq!(sent, 1);
    /// assert!(network.elapsed() < Duration::from_secs(2), "it did not wait for the poll");
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    ///
    /// If readbacks keep submitting when they are canceled, the drain ends after a few rounds, and
    /// the rest stays [pending](Self::pending).
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    ///
    /// # Panics
    /// As [`turn`](Self::turn). The rest is then not drained.
    pub fn drain(&mut self, state: &mut S, within: Duration) -> Result<usize, Error> {
        self.drain_by(within, |engine, timeout| {
            engine
                .turn_within(state, timeout, ClockAtStart::MayHaveMoved)
                .map(|_| ())
        })
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
