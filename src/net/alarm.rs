//! A timer inside the engine's poll (timerfd_create(2)) that makes the poll's descriptor readable
//! when a deadline has passed.
//!
//! The timer is set only if the next deadline is earlier than the one it is set to. If the deadline
//! has moved to a later time, the timer expires once too early, without effect. So the deadline
//! that each request of a busy engine has, and never reaches, costs no system call.

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
    /// Watched edge-triggered, so it never has to be read.
    timer: OwnedFd,
    /// When the timer expires. `None` means that it has, and that the poll has reported it.
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

    /// Makes the timer expire at `deadline` at the latest.
    pub(super) fn set(&mut self, deadline: Instant, now: Instant) {
        if self.set_to.is_some_and(|at| at <= deadline) {
            return;
        }
        // Zero would disarm the timer.
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
            Err(error) => log::error!("setting the poll's timer failed ({error})"),
        }
    }

    /// Looks for the timer's own event among those that the poll has reported.
    ///
    /// The event is not removed. A turn may take a single event, which is this one, while others
    /// are left in the poll, and a host that watches for edges goes on only after a turn with
    /// `events`.
    pub(super) fn on_events(&mut self, events: &[Ready]) {
        if events.iter().any(|event| event.token == ALARM) {
            self.set_to = None;
        }
    }
}
