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
    /// An engine on `network`. Several may be on the same, each with a poll of its own.
    ///
    /// Names are those of the network unless `config` brings a resolver.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig), naming the field.
    pub fn on_network(network: &Network, config: Config) -> Result<Self, Error> {
        Self::on_net(SimNet::new(network.clone()), config)
    }

    /// One turn at the present time, which does not move: a turn never waits. For hosts that
    /// schedule turns themselves; otherwise see [`advance`](Self::advance).
    ///
    /// # Errors
    /// As on the real network: the poll failed.
    ///
    /// # Panics
    /// When a readback does; the engine can be used on.
    pub fn turn(&mut self, state: &mut S) -> Result<Turn, Error> {
        self.core.agenda.draining = false;
        self.turn_within(state, Some(Duration::ZERO), ClockAtStart::MayHaveMoved)
    }

    /// Lets `time` pass, turning whenever a turn is due. Answers whether `stop` was called: time
    /// then stands where it was.
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
    /// `stop` was called, or nothing is left that time could bring: it does not wait for another
    /// thread. A chain that goes on for ever keeps it going for ever.
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
        // A century is as good as for ever, and comes to an end where nothing else would.
        let within = within.min(Duration::from_secs(100 * 365 * 86_400));
        self.drain_by(within, |engine, left| {
            let end = left.and_then(|left| engine.core.net.now().checked_add(left));
            engine.pass_once(state, end).map(|_| ())
        })
    }

    /// Turns and lets time pass until `time` is over, `is_over` says so, or `stop` was called,
    /// which is answered.
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

/// What one step of simulated time was.
enum Passed {
    Turned {
        stopped: bool,
    },
    Waited,
    /// Time is up, or nothing will ever happen.
    Nothing,
}
