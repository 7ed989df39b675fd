//! Engines on a simulated network and clock.

use std::time::{Duration, Instant};

use crate::config::Config;
use crate::engine::Engine;
use crate::engine::mode::Sim;
use crate::engine::turn::{ClockAtStart, Turn};
use crate::error::Error;
use crate::net::Net;
use crate::sim::{Network, SimNet};

impl<S> Engine<S, Sim> {
    /// Creates an engine on `network`. Several engines may share a network; each has a poll of its
    /// own.
    ///
    /// Names are looked up on the network, unless `config` provides a resolver.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::sim::{Answer, Incoming, Network};
    /// use httpstream::{Config, Engine, Next, Request, Sim};
    ///
    /// let network = Network::new(1);
    /// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
    ///     Answer::ok("news").after(Duration::from_secs(20))
    /// });
    /// let mut engine = Engine::<u32, Sim>::on_network(&network, Config::default())?;
    /// engine.submit(Request::get("http://10.0.0.1/").build()?, |replies, _, _| {
    ///     *replies += 1;
    ///     Next::done()
    /// });
    /// let mut replies = 0;
    /// engine.advance(&mut replies, Duration::from_secs(10))?;
    /// assert_eq!(replies, 0);
    /// engine.run(&mut replies)?;
    /// assert_eq!(replies, 1);
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig), naming the field.
    pub fn on_network(network: &Network, config: Config) -> Result<Self, Error> {
        Self::on_net(SimNet::new(network.clone()), config)
    }

    /// Makes one turn at the current simulated time, which does not move: a turn never waits. This
    /// is for hosts that schedule turns themselves; others use [`advance`](Self::advance).
    ///
    /// # Errors
    /// As on the real network: if the poll fails.
    ///
    /// # Panics
    /// If a readback panics. The engine remains usable.
    pub fn turn(&mut self, state: &mut S) -> Result<Turn, Error> {
        self.core.agenda.draining = false;
        self.turn_within(state, Some(Duration::ZERO), ClockAtStart::MayHaveMoved)
    }

    /// Lets `time` pass, and makes a turn whenever one is due. Returns true if `stop` was called,
    /// at which point time stops.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    ///
    /// # Panics
    /// As [`turn`](Self::turn).
    pub fn advance(&mut self, state: &mut S, time: Duration) -> Result<bool, Error> {
        self.core.agenda.draining = false;
        self.pass(state, time, |_| false)
    }

    /// Lets time pass until nothing is pending and no [`KeepAlive`](crate::KeepAlive) is left,
    /// until `stop` is called, or until nothing would happen however much time passed. It does not
    /// wait for other threads. A chain that never ends keeps it running forever.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    ///
    /// # Panics
    /// As [`turn`](Self::turn).
    pub fn run(&mut self, state: &mut S) -> Result<(), Error> {
        self.core.agenda.draining = false;
        self.pass(state, Duration::MAX, |engine| {
            !engine.has_something_to_come()
        })
        .map(|_| ())
    }

    /// As [`Engine::drain`] on the real network; `within` is simulated time.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    ///
    /// # Panics
    /// As [`turn`](Self::turn).
    pub fn drain(&mut self, state: &mut S, within: Duration) -> Result<usize, Error> {
        // A century is as good as forever, and ends even if nothing else would happen.
        let within = within.min(Duration::from_secs(100 * 365 * 86_400));
        self.drain_by(within, |engine, left| {
            let end = left.and_then(|left| engine.core.net.now().checked_add(left));
            engine.pass_once(state, end).map(|_| ())
        })
    }

    /// Makes turns and lets time pass until `time` is over, `is_over` returns true, or `stop` is
    /// called. Returns whether `stop` was called.
    fn pass(
        &mut self,
        state: &mut S,
        time: Duration,
        is_over: impl Fn(&Self) -> bool,
    ) -> Result<bool, Error> {
        let end = self.core.net.now().checked_add(time);
        while !is_over(self) {
            match self.pass_once(state, end)? {
                Passed::Turned { stopped: false } | Passed::Waited => {}
                Passed::Turned { stopped: true } => return Ok(true),
                Passed::Nothing => break,
            }
        }
        Ok(false)
    }

    /// Makes the turn that is due, or lets time pass to the next event or deadline, or to `end`.
    fn pass_once(&mut self, state: &mut S, end: Option<Instant>) -> Result<Passed, Error> {
        let now = self.core.net.now();
        let deadline = self.next_deadline();
        if self.core.net.has_events() || deadline.is_some_and(|deadline| deadline <= now) {
            let turn = self.turn_within(state, Some(Duration::ZERO), ClockAtStart::MayHaveMoved)?;
            return Ok(Passed::Turned {
                stopped: turn.stopped,
            });
        }
        if end.is_some_and(|end| end <= now) {
            return Ok(Passed::Nothing);
        }
        let until = deadline
            .into_iter()
            .chain(end)
            .min()
            .or_else(|| self.core.net.next_event_at());
        match until {
            Some(until) => {
                self.core.net.advance_to(until);
                Ok(Passed::Waited)
            }
            None => Ok(Passed::Nothing),
        }
    }
}

/// The outcome of one step of simulated time.
enum Passed {
    Turned {
        stopped: bool,
    },
    Waited,
    /// Time is up, or nothing will ever happen.
    Nothing,
}
