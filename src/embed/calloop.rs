//! An event source for [calloop](https://docs.rs/calloop) (feature `calloop`).
//!
//! [`EngineSource`] owns an engine; the loop's callback lends it the state to turn with, which may
//! be the loop's own data, so that readbacks get `&mut Data`. Requests are submitted through
//! [`EngineSource::engine_mut`], a [`Submitter`](crate::Submitter), or by readbacks.
//!
//! ```
//! use calloop::{Dispatcher, EventLoop};
//! use httpstream::calloop::{EngineSource, turn};
//! use httpstream::{Engine, Next, Request};
//!
//! /// The loop's data.
//! #[derive(Default)]
//! struct App { replies: u32 }
//!
//! let mut event_loop = EventLoop::<App>::try_new()?;
//! let source = Dispatcher::<_, App>::new(EngineSource::new(Engine::<App>::new()?)?, turn);
//! event_loop.handle().register_dispatcher(source.clone())?;
//!
//! let request = Request::get("http://127.0.0.1:1/").build()?;
//! let stop = event_loop.get_signal();
//! source.as_source_mut().engine_mut().submit(request, move |app, _, _| {
//!     app.replies += 1;
//!     stop.stop();
//!     Next::done()
//! });
//!
//! let mut app = App::default();
//! event_loop.run(None, &mut app, |_| ())?;
//! assert_eq!(app.replies, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use calloop::generic::Generic;
use calloop::timer::{TimeoutAction, Timer};
use calloop::{EventSource, Interest, Mode, Poll, PostAction, Readiness, Token, TokenFactory};

use crate::engine::{Engine, Turn};
use crate::error::Error;

/// An engine in a calloop loop: a descriptor to watch, and a timer.
///
/// The source calls back when a turn is due, with the engine as metadata; the callback makes one,
/// as [`turn`] does.
#[derive(Debug)]
pub struct EngineSource<S> {
    engine: Engine<S>,
    /// A duplicate of the engine's descriptor, which calloop may hold as long as it likes.
    fd: Generic<OwnedFd>,
    timer: Timer,
    /// What the loop calls the timer. It tells when the timer goes off, which it does for the first
    /// time as soon as it is registered.
    timer_token: Option<Token>,
    /// When the timer goes off, each time earlier than the one before. It does so for nothing where
    /// the deadline has moved further away.
    set_to: Vec<Instant>,
    /// Stands for events that no descriptor and no timer tells of. None: the source is not in a
    /// loop, or is disabled there.
    due: Option<Token>,
}

/// The callback of an [`EngineSource`] in a loop whose data is the state of the engine: makes one
/// turn.
///
/// In a loop with other data it is a closure: `|(), engine, data| engine.turn(&mut data.bot,
/// Some(Duration::ZERO))`.
///
/// # Errors
/// As [`Engine::turn`](crate::Engine::turn); it comes out of the loop's dispatch.
pub fn turn<S>((): (), engine: &mut Engine<S>, state: &mut S) -> Result<Turn, Error> {
    engine.turn(state, Some(Duration::ZERO))
}

impl<S> EngineSource<S> {
    /// Takes the engine, to be inserted into a loop.
    ///
    /// # Errors
    /// The engine's file descriptor cannot be duplicated.
    pub fn new(engine: Engine<S>) -> io::Result<Self> {
        let fd = engine.as_fd().try_clone_to_owned()?;
        Ok(Self {
            engine,
            fd: Generic::new(fd, Interest::READ, Mode::Level),
            timer: Timer::immediate(),
            timer_token: None,
            set_to: Vec::new(),
            due: None,
        })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine<S> {
        &self.engine
    }

    /// The engine, to submit, cancel and resume outside its turns: the loop notices.
    pub fn engine_mut(&mut self) -> &mut Engine<S> {
        &mut self.engine
    }

    /// Gives the engine back.
    pub fn into_engine(self) -> Engine<S> {
        self.engine
    }

    /// Whether a turn is due now.
    fn is_due(&self) -> bool {
        self.engine.next_timeout() == Some(Duration::ZERO)
    }

    /// Whether the timer would go off too late for the next deadline.
    fn is_timer_late(&self) -> bool {
        match (self.engine.next_deadline(), self.set_to.last()) {
            (Some(deadline), Some(first)) => deadline < *first,
            (deadline, None) => deadline.is_some(),
            (None, Some(_)) => false,
        }
    }

    /// Has the timer go off for the next deadline, if it would be late.
    ///
    /// Not by [`PostAction::Reregister`]: that would take the place of what a readback has asked
    /// for, such as that this source be disabled, and calloop would ask this source before each
    /// sleep once more for each time.
    fn set_timer(&mut self) -> io::Result<()> {
        let (true, Some(token), Some(deadline)) = (
            self.is_timer_late(),
            self.timer_token,
            self.engine.next_deadline(),
        ) else {
            return Ok(());
        };
        let go_off = |_, (): &mut ()| TimeoutAction::ToInstant(deadline);
        self.timer
            .process_events(Readiness::EMPTY, token, go_off)
            .map(|_| self.set_to.push(deadline))
    }

    /// Learns the timer's name from its first event.
    fn on_event(&mut self, token: Token) -> io::Result<()> {
        let mut is_timers = false;
        let note = |_, (): &mut ()| {
            is_timers = true;
            // It stays registered, set to nothing.
            TimeoutAction::Drop
        };
        self.timer.process_events(Readiness::EMPTY, token, note)?;
        if is_timers {
            self.timer_token = Some(token);
        }
        Ok(())
    }

    /// Registers the timer, to go off at once.
    fn start_timer(&mut self, poll: &mut Poll, tokens: &mut TokenFactory) -> calloop::Result<()> {
        self.stop_timer(poll)?;
        self.timer.set_deadline(Instant::now());
        self.timer.register(poll, tokens)
    }

    fn stop_timer(&mut self, poll: &mut Poll) -> calloop::Result<()> {
        self.timer_token = None;
        self.set_to.clear();
        self.timer.unregister(poll)
    }
}

impl<S> EventSource for EngineSource<S> {
    type Event = ();
    type Metadata = Engine<S>;
    type Ret = Result<Turn, Error>;
    type Error = Error;

    fn process_events<F>(
        &mut self,
        _: Readiness,
        token: Token,
        mut callback: F,
    ) -> Result<PostAction, Error>
    where
        F: FnMut((), &mut Engine<S>) -> Result<Turn, Error>,
    {
        if self.due.is_none() {
            // Disabled in this round, by who was told before.
            return Ok(PostAction::Continue);
        }
        if self.timer_token.is_none() {
            self.on_event(token).map_err(Error::io)?;
        }
        // These the loop has forgotten, or will tell of in this round.
        let now = Instant::now();
        while self.set_to.pop_if(|at| *at <= now).is_some() {}
        callback((), &mut self.engine)?;
        // One that is due at once needs no timer: `before_sleep` tells of it.
        if !self.is_due() {
            self.set_timer().map_err(Error::io)?;
        }
        Ok(PostAction::Continue)
    }

    fn register(&mut self, poll: &mut Poll, tokens: &mut TokenFactory) -> calloop::Result<()> {
        self.due = Some(tokens.token());
        self.fd.register(poll, tokens)?;
        self.start_timer(poll, tokens)
    }

    fn reregister(&mut self, poll: &mut Poll, tokens: &mut TokenFactory) -> calloop::Result<()> {
        self.due = Some(tokens.token());
        self.fd.reregister(poll, tokens)?;
        self.start_timer(poll, tokens)
    }

    fn unregister(&mut self, poll: &mut Poll) -> calloop::Result<()> {
        self.due = None;
        self.stop_timer(poll)?;
        self.fd.unregister(poll)
    }

    const NEEDS_EXTRA_LIFECYCLE_EVENTS: bool = true;

    /// What was submitted since the last round, or left behind by a turn, is no readiness and no
    /// timer.
    fn before_sleep(&mut self) -> calloop::Result<Option<(Readiness, Token)>> {
        // A late timer, as a panic in a turn may leave it behind, is set anew after the turn.
        let due = self.due.filter(|_| self.is_due() || self.is_timer_late());
        Ok(due.map(|token| (Readiness::EMPTY, token)))
    }
}
