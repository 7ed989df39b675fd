//! An event source for [calloop](https://docs.rs/calloop) (feature `calloop`).
//!
//! [`EngineSource`] owns an engine. The loop's callback lends it the state for each turn. The state
//! may be the loop's own data, and readbacks then get `&mut Data`. Submit requests through
//! [`EngineSource::engine_mut`], through a [`Submitter`](crate::Submitter), or from readbacks.
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

/// An engine in a calloop loop, as a descriptor to watch and a timer.
///
/// The source calls the loop's callback when a turn is due, with the engine as the metadata. The
/// callback makes the turn: [`turn`] if the loop's data is the engine's state, otherwise a closure.
/// While the callback runs, the source is borrowed, so readbacks must not reach for its dispatcher;
/// they have their [`Context`](crate::Context).
///
/// An engine whose state is a part of the loop's data:
///
/// ```
/// use std::time::Duration;
/// use calloop::EventLoop;
/// use httpstream::calloop::EngineSource;
/// use httpstream::{Engine, Next, Request};
///
/// #[derive(Default)]
/// struct Bot { replies: u32 }
///
/// #[derive(Default)]
/// struct App { bot: Bot }
///
/// let mut engine = Engine::<Bot>::new()?;
/// engine.submit(Request::get("http://127.0.0.1:1/").build()?, |bot, _, _| {
///     bot.replies += 1;
///     Next::done()
/// });
/// let source = EngineSource::new(engine)?;
///
/// let mut event_loop = EventLoop::<App>::try_new()?;
/// event_loop.handle().insert_source(source, |(), engine, app| {
///     engine.turn(&mut app.bot, Some(Duration::ZERO))
/// }).map_err(|failed| failed.error)?;
/// let mut app = App::default();
/// while app.bot.replies == 0 {
///     event_loop.dispatch(None, &mut app)?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct EngineSource<S> {
    engine: Engine<S>,
    /// A duplicate of the engine's descriptor, which calloop may keep as long as it likes.
    fd: Generic<OwnedFd>,
    timer: Timer,
    /// The token that the loop has given the timer. It is learned from the timer's first event, for
    /// which the timer is set to go off as soon as it is registered.
    timer_token: Option<Token>,
    /// When the timer goes off, each time earlier than the one before. If the deadline has moved
    /// further away, the timer goes off early, to no effect.
    set_to: Vec<Instant>,
    /// Stands for work that neither the descriptor nor the timer reports. `None` while the source
    /// is not in a loop or is disabled there.
    due: Option<Token>,
}

/// Makes one turn. This is the callback of an [`EngineSource`] in a loop whose data is the engine's
/// state.
///
/// In a loop with other data, write a closure: `|(), engine, data| engine.turn(&mut data.bot,
/// Some(Duration::ZERO))`.
///
/// # Errors
/// As [`Engine::turn`](crate::Engine::turn); the loop's dispatch returns the error.
pub fn turn<S>((): (), engine: &mut Engine<S>, state: &mut S) -> Result<Turn, Error> {
    engine.turn(state, Some(Duration::ZERO))
}

impl<S> EngineSource<S> {
    /// Creates a source from an engine, to be inserted into a loop.
    ///
    /// # Errors
    /// If the engine's file descriptor cannot be duplicated.
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

    /// Returns the engine.
    pub fn engine(&self) -> &Engine<S> {
        &self.engine
    }

    /// Returns the engine, for calls between turns such as `submit`, `cancel` and `resume`. The
    /// loop notices that a turn has become due.
    pub fn engine_mut(&mut self) -> &mut Engine<S> {
        &mut self.engine
    }

    /// Returns the engine and drops the source.
    pub fn into_engine(self) -> Engine<S> {
        self.engine
    }

    /// Returns whether a turn is due now.
    fn is_due(&self) -> bool {
        self.engine.next_timeout() == Some(Duration::ZERO)
    }

    /// Returns whether the timer would go off too late for the next deadline.
    fn is_timer_late(&self) -> bool {
        match (self.engine.next_deadline(), self.set_to.last()) {
            (Some(deadline), Some(first)) => deadline < *first,
            (deadline, None) => deadline.is_some(),
            (None, Some(_)) => false,
        }
    }

    /// Sets the timer to the next deadline if it would go off too late.
    ///
    /// Does not use [`PostAction::Reregister`]: it would replace what a readback has asked for,
    /// such as disabling this source, and with each use calloop would call `before_sleep` of this
    /// source once more before each sleep.
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

    /// Learns the timer's token from the timer's first event.
    fn on_event(&mut self, token: Token) -> io::Result<()> {
        let mut is_timers = false;
        let note = |_, (): &mut ()| {
            is_timers = true;
            // The timer stays registered, but is set to nothing.
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
            // Another source has disabled this one in the same round.
            return Ok(PostAction::Continue);
        }
        if self.timer_token.is_none() {
            self.on_event(token).map_err(Error::io)?;
        }
        // The loop has removed these timers already, or will report them in this round.
        let now = Instant::now();
        while self.set_to.pop_if(|at| *at <= now).is_some() {}
        callback((), &mut self.engine)?;
        // A turn that is due at once needs no timer, because `before_sleep` reports it.
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

    /// Reports work that has neither readiness nor a timer: submissions since the last round, and
    /// what a turn has left over.
    fn before_sleep(&mut self) -> calloop::Result<Option<(Readiness, Token)>> {
        // A panic in a turn may leave the timer late. It is set after the next turn.
        let due = self.due.filter(|_| self.is_due() || self.is_timer_late());
        Ok(due.map(|token| (Readiness::EMPTY, token)))
    }
}
