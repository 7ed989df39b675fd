//! A timer inside the engine's poll (timerfd_create(2)): the poll's descriptor becomes readable
//! when a deadline has passed.
//!
//! It is set anew only where the next deadline is earlier than what it is set to; what is later it
//! goes off too early for, once, for nothing. So the deadline that each request of a busy engine
//! has, and never reaches, costs no system call.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::net::readiness::{ALARM, Ready};

/// A timer on a poll.
#[derive(Debug)]
pub(super) struct Alarm {
    /// Watched for its edges, so that nobody has to read it.
    timer: OwnedFd,
    /// When it goes off; `None`: it has, and the poll has told of it.
    set_to: Option<Instant>,
}

impl Alarm {
    pub(super) fn new(registry: &Registry) -> io::Result<Option<Self>> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        // The clock that `Instant` reads.
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), ALARM, Interest::READABLE)?;
        Ok(Some(Self {
            timer,
            set_to: None,
        }))
    }

    /// Goes off at `deadline` at the latest.
    pub(super) fn set(&mut self, deadline: Instant, now: Instant) {
        if self.set_to.is_some_and(|at| at <= deadline) {
            return;
        }
        // Zero would switch it off.
        let left = deadline
            .saturating_duration_since(now)
            .max(Duration::from_nanos(1));
        let times = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            },
        };
        match timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &times) {
            Ok(_) => self.set_to = Some(deadline),
            Err(error) => log::error!("the timer in the poll cannot be set ({error})"),
        }
    }

    /// Looks for its own among the events that the poll has told.
    ///
    /// It stays among them: where a turn takes one event and this is it, others may be left in the
    /// poll, and a host that watches for edges goes on only after a turn with `events`.
    pub(super) fn on_events(&mut self, events: &[Ready]) {
        if events.iter().any(|event| event.token == ALARM) {
            self.set_to = None;
        }
    }
}
