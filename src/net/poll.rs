//! The polls that can watch the sockets of a [`MioNet`](super::socket::MioNet): the engine's own,
//! or the host's.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Registry, Token, Waker};

use crate::net::alarm::Alarm;
use crate::net::readiness::{Heard, Readiness, Ready, WAKE};
use crate::net::slots::RESOLVER_TOKENS;
use crate::net::window::Window;
use crate::resolver::Wake;

/// Whether an engine's own poll should become readable on its own when a deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadlines {
    /// No: the host keeps track of deadlines, or the engine does while it waits.
    Outside,
    /// Yes, where the platform supports it.
    #[cfg_attr(
        not(feature = "timerfd"),
        allow(dead_code, reason = "there is no timer")
    )]
    Inside,
}

/// Watches sockets and reports their events to an engine.
pub trait Watch: fmt::Debug {
    /// Whether [`wait`](Self::wait) polls the system, and may block.
    const WAITS: bool;

    fn registry(&self) -> &Registry;

    /// Returns the token under which the poll watches the source that the engine calls `token`, be
    /// it a link or one of the resolver's sources.
    fn outer(&self, token: Token) -> Token;

    /// Returns the tokens of this poll that are reserved for the resolver.
    fn resolver_tokens(&self) -> Range<usize>;

    /// See [`Net::wait`](crate::net::Net::wait).
    fn wait(
        &mut self,
        ready: &mut Vec<Ready>,
        max: usize,
        timeout: Option<Duration>,
    ) -> io::Result<Heard>;

    /// See [`Net::has_handed_events`](crate::net::Net::has_handed_events).
    fn has_handed_events(&self) -> bool;

    /// See [`Net::waker`](crate::net::Net::waker).
    fn waker(&self) -> Wake;

    /// See [`Net::has_alarm`](crate::net::Net::has_alarm).
    fn has_alarm(&self) -> bool;

    /// See [`Net::set_alarm`](crate::net::Net::set_alarm).
    fn set_alarm(&mut self, deadline: Option<Instant>, now: Instant);
}

/// The engine's own poll. A host may watch its file descriptor.
#[derive(Debug)]
pub struct OwnPoll {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    alarm: Option<Alarm>,
}

impl OwnPoll {
    pub(crate) fn new(events: usize, deadlines: Deadlines) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let alarm = match deadlines {
            Deadlines::Outside => None,
            Deadlines::Inside => Alarm::new(poll.registry())?,
        };
        Ok(Self {
            poll,
            events: Events::with_capacity(events),
            waker,
            alarm,
        })
    }

    #[cfg(unix)]
    pub(crate) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.poll.registry().as_fd()
    }
}

impl Watch for OwnPoll {
    const WAITS: bool = true;

    fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    fn outer(&self, token: Token) -> Token {
        token
    }

    fn resolver_tokens(&self) -> Range<usize> {
        RESOLVER_TOKENS
    }

    fn wait(
        &mut self,
        ready: &mut Vec<Ready>,
        max: usize,
        timeout: Option<Duration>,
    ) -> io::Result<Heard> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Heard::Some),
            result => result?,
        }
        debug_assert!(
            self.events.capacity() <= max,
            "the poll returns at most `max` events"
        );
        for event in &self.events {
            ready.push(Ready {
                token: event.token(),
                readiness: Readiness::of(event),
            });
        }
        let heard = if ready.len() < self.events.capacity() {
            Heard::All
        } else {
            Heard::Some
        };
        if let Some(alarm) = &mut self.alarm {
            alarm.on_events(ready);
        }
        Ok(heard)
    }

    fn has_handed_events(&self) -> bool {
        false
    }

    fn waker(&self) -> Wake {
        let waker = Arc::clone(&self.waker);
        Wake::new(move || {
            // Writing to an eventfd fails only when its counter is full, and then a wake-up is
            // already due.
            let _ = waker.wake();
        })
    }

    fn has_alarm(&self) -> bool {
        self.alarm.is_some()
    }

    fn set_alarm(&mut self, deadline: Option<Instant>, now: Instant) {
        // Without a deadline the timer stays set: one spurious expiry is harmless.
        if let (Some(alarm), Some(deadline)) = (&mut self.alarm, deadline) {
            alarm.set(deadline, now);
        }
    }
}

/// The host's poll. The host waits on it, and hands over events for the tokens that it lent.
pub struct HostPoll {
    registry: Registry,
    window: Window,
    /// Events that the host has handed over and no turn has taken.
    handed: VecDeque<Ready>,
    /// The waker was called since the last turn looked.
    woken: Arc<AtomicBool>,
    wake: Wake,
}

impl HostPoll {
    pub(crate) fn new(
        registry: Registry,
        window: Window,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let woken = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&woken);
        Self {
            registry,
            window,
            handed: VecDeque::new(),
            woken,
            wake: Wake::new(move || {
                // Set this before calling the host, which may run a turn at once.
                told.store(true, Ordering::Release);
                wake();
            }),
        }
    }

    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    /// Takes an event of the host's poll for the source that the engine calls `token`.
    pub(crate) fn hand(&mut self, token: Token, event: &Event) {
        let readiness = Readiness::of(event);
        self.handed.push_back(Ready { token, readiness });
    }
}

impl Watch for HostPoll {
    const WAITS: bool = false;

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn outer(&self, token: Token) -> Token {
        self.window.outer(token)
    }

    fn resolver_tokens(&self) -> Range<usize> {
        self.window.resolver_tokens()
    }

    /// Never blocks, because the host has already waited.
    fn wait(
        &mut self,
        ready: &mut Vec<Ready>,
        max: usize,
        _: Option<Duration>,
    ) -> io::Result<Heard> {
        if self.woken.swap(false, Ordering::AcqRel) {
            let readiness = Readiness::READABLE;
            ready.push(Ready {
                token: WAKE,
                readiness,
            });
        }
        for _ in 0..max {
            match self.handed.pop_front() {
                Some(event) => ready.push(event),
                None => break,
            }
        }
        // It is unknown here when the host polled, and whether it has handed over everything.
        Ok(Heard::Some)
    }

    fn has_handed_events(&self) -> bool {
        !self.handed.is_empty() || self.woken.load(Ordering::Acquire)
    }

    fn waker(&self) -> Wake {
        self.wake.clone()
    }

    fn has_alarm(&self) -> bool {
        false
    }

    fn set_alarm(&mut self, _: Option<Instant>, _: Instant) {}
}

impl fmt::Debug for HostPoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostPoll")
            .field("window", &self.window)
            .field("handed", &self.handed.len())
            .finish_non_exhaustive()
    }
}
