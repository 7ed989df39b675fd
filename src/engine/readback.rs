//! What callers write: readbacks, and what a readback may answer.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::chain::When;
use crate::generation::Mark;
use crate::id::ChainId;
use crate::policy::{Bell, Moment, Present};
use crate::request::Request;
pub(super) use crate::response::Reply;
use crate::response::Response;

/// Reads the response to a request and answers with what follows.
///
/// Closures and methods of the shape of [`on_reply`](Self::on_reply) are readbacks; implement the
/// trait to see the head and the pieces of the body as they come. `state` is what the caller lent
/// to the turn.
///
/// A chain's readback is called any number of times through `on_interim`, `on_head` and `on_data`,
/// and then exactly once through `on_reply` for each request of the chain, whatever happens, as
/// long as the engine lives: unless user code of the chain panics, its [policy](crate::policy)
/// included, which ends it. One that waits without a request is called through `on_due` once it has
/// waited, or through `on_reply` if it is cancelled meanwhile.
///
/// # Panics
/// A readback, or a call, may panic: its chain is over without another call, the panic goes through
/// the turn to the host, and an engine whose host catches it goes on where it was.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a readback for an engine whose state is `{S}`",
    label = "expected a `Readback<{S}>`",
    note = "implement `Readback<{S}>` for it, or pass a closure or method: `fn(&mut {S}, Reply<'_>, &mut Context<'_, {S}>) -> Next<{S}>`"
)]
pub trait Readback<S> {
    /// An interim (1xx) response has come; the final one follows (RFC 9110 §15.2).
    fn on_interim(&mut self, state: &mut S, head: &Response<'_>, cx: &mut Context<'_, S>) {
        let _ = (state, head, cx);
    }

    /// The head has come: chooses what happens to the body.
    ///
    /// [`Flow::Buffer`], the default, collects it for `on_reply`; [`Flow::Stream`] hands it to
    /// `on_data`; [`Flow::Discard`] reads it unseen; [`Flow::Pause`] streams it after a
    /// [`resume`](Context::resume); [`Flow::Abort`] gives it up.
    fn on_head(&mut self, state: &mut S, head: &Response<'_>, cx: &mut Context<'_, S>) -> Flow {
        let _ = (state, head, cx);
        Flow::Buffer
    }

    /// Whether [`on_interim`](Self::on_interim) and [`on_head`](Self::on_head) are to be called.
    /// Closures and methods have neither, and are spared the calls; asked at each head.
    fn reads_heads(&self) -> bool {
        true
    }

    /// A piece of a streamed body has come; the pieces carry no meaning of their own.
    fn on_data(&mut self, state: &mut S, data: &[u8], cx: &mut Context<'_, S>) -> Flow {
        let _ = (state, data, cx);
        Flow::Stream
    }

    /// The chain has waited without a request, as [`Next::wait`] asked, and goes on.
    fn on_due(&mut self, state: &mut S, cx: &mut Context<'_, S>) -> Next<S> {
        let _ = (state, cx);
        Next::done()
    }

    /// The response is complete, or there will be none. After streaming its body is empty and its
    /// trailers are there.
    fn on_reply(&mut self, state: &mut S, reply: Reply<'_>, cx: &mut Context<'_, S>) -> Next<S>;
}

impl<S, F> Readback<S> for F
where
    F: FnMut(&mut S, Reply<'_>, &mut Context<'_, S>) -> Next<S>,
{
    fn reads_heads(&self) -> bool {
        false
    }

    fn on_reply(&mut self, state: &mut S, reply: Reply<'_>, cx: &mut Context<'_, S>) -> Next<S> {
        self(state, reply, cx)
    }
}

/// A closure, method or function that reads a response: the short form of a [`Readback`], which
/// [`submit`](crate::Engine::submit) and [`read_by`](Next::read_by) take.
///
/// Implemented by everything with this signature; never implement it yourself.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a readback function for an engine whose state is `{S}`",
    label = "expected `|state: &mut {S}, reply: Reply<'_>, cx: &mut Context<'_, {S}>| -> Next<{S}>`",
    note = "a struct that implements `Readback<{S}>` goes to `submit_to` or `read_to`"
)]
pub trait ReadbackFn<S>: FnMut(&mut S, Reply<'_>, &mut Context<'_, S>) -> Next<S> {}

impl<S, F> ReadbackFn<S> for F where F: FnMut(&mut S, Reply<'_>, &mut Context<'_, S>) -> Next<S> {}

/// Reads a response to its end and throws it away; the chain is then over. For requests whose
/// answer nobody needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unread;

impl<S> Readback<S> for Unread {
    fn on_head(&mut self, _: &mut S, _: &Response<'_>, _: &mut Context<'_, S>) -> Flow {
        Flow::Discard
    }

    fn on_reply(&mut self, _: &mut S, _: Reply<'_>, _: &mut Context<'_, S>) -> Next<S> {
        Next::done()
    }
}

/// What happens to the body from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Flow {
    /// Collected, up to [`Limits::max_body_bytes`](crate::Limits::max_body_bytes), and handed out
    /// whole by `on_reply`. Answered by `on_data`, where the collecting can no longer begin, it
    /// counts as [`Flow::Stream`].
    Buffer,
    /// Handed to `on_data` as it comes. [`Timeouts::total`](crate::Timeouts::total), five minutes
    /// by default, bounds the whole of it, pauses included: lift it for a large download
    /// (`.timeouts(|t| t.total = None)`), and rely on the idle deadline.
    Stream,
    /// Read to its end unseen, so that the connection can be used again.
    Discard,
    /// Nothing is handed out, and soon nothing is read, until [`Context::resume`]; then as
    /// [`Flow::Stream`]. The idle deadline stands still meanwhile, the total does not. The piece
    /// just handed out counts as taken. A `resume` before the call has returned finds nothing
    /// paused; one from a [`Submitter`](crate::Submitter) is heard after it, and not lost.
    Pause,
    /// The connection is closed and `on_reply` gets
    /// [`ErrorKind::Aborted`](crate::ErrorKind::Aborted).
    Abort,
}

/// What follows in a chain: nothing, another request, the same one again, or a call; at once or
/// after a delay.
#[must_use]
pub struct Next<S> {
    pub(crate) action: Action<S>,
    pub(crate) when: When,
    pub(crate) readback: Option<Box<dyn Readback<S>>>,
}

pub(crate) enum Action<S> {
    Done,
    Send(Request),
    Again,
    /// Nothing is sent; the readback is told when it is time.
    Wait(Option<Box<Mark>>),
    /// A task that is not over waits to be woken. It belongs to what it did before.
    Pend,
    /// Nothing is sent; this is run when it is time. Boxed once more: an answer is moved with every
    /// request, and a fat pointer would make them all longer.
    Call(Box<(Call<S>, Option<Mark>)>),
}

impl<S> Next<S> {
    pub(super) fn of(action: Action<S>) -> Self {
        Self {
            action,
            when: When::NOW,
            readback: None,
        }
    }

    /// The chain is over.
    pub fn done() -> Self {
        Self::of(Action::Done)
    }

    /// Sends `request` next; read by this same readback unless [`read_by`](Self::read_by) says
    /// otherwise.
    pub fn send(request: Request) -> Self {
        Self::of(Action::Send(request))
    }

    /// Sends the request once more that this chain sent last; it is [`done`](Self::done) if there
    /// is none, as in a chain that has only made [calls](Self::call). Allocates nothing.
    ///
    /// At once: after an error, after a status that is no success ([`Reply`] is `Ok` then as well),
    /// or where answers come at once, wait with
    /// [`after`](Self::after), or the chain floods its server.
    pub fn again() -> Self {
        Self::of(Action::Again)
    }

    /// Goes on with `f` in place of a request; best together with [`after`](Self::after). What `f`
    /// answers follows.
    ///
    /// So a request is built when it is due, a queue is paced, or a human is waited for. Without a
    /// delay `f` runs after what the present readback asked for is applied, in this turn or the
    /// next; a chain that calls without delay for ever lets the rest of the loop go on, but not
    /// sleep.
    ///
    /// The chain keeps its readback, or takes the one that [`read_by`](Self::read_by) gives: it
    /// reads what `f` sends, unless `f` says otherwise, and it is what hears of a
    /// [`cancel`](Context::cancel), after which `f` is not run. [`again`](Self::again), answered by
    /// `f`, is the request that the chain sent last.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::{Context, Next, Reply, Request};
    ///
    /// struct Bot { cookie: String }
    ///
    /// impl Bot {
    ///     fn on_beat(&mut self, _: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
    ///         Next::call(Bot::beat).after(Duration::from_secs(60))
    ///     }
    ///
    ///     /// The cookie is the one of then, not the one of a minute before.
    ///     fn beat(&mut self, _: &mut Context<'_, Self>) -> Next<Self> {
    ///         let beat = Request::get("http://127.0.0.1:1/beat").header("Cookie", &self.cookie);
    ///         beat.build().map_or_else(|_| Next::done(), Next::send)
    ///     }
    /// }
    /// ```
    ///
    /// A closure says what its state is: `Next::call(|bot: &mut Bot, _| …)`.
    pub fn call(f: impl FnOnce(&mut S, &mut Context<'_, S>) -> Next<S> + 'static) -> Self {
        Self::of(Action::Call(Box::new((Box::new(f), None))))
    }

    /// Sends nothing: the readback goes on with [`on_due`](Readback::on_due). As
    /// [`call`](Self::call) for readbacks that are structs, and allocates nothing. A closure that
    /// waits so is done.
    pub fn wait() -> Self {
        Self::of(Action::Wait(None))
    }

    /// Has a wait, a call or a task end with a generation of a session. It has no effect on a
    /// request, which says so itself.
    #[cfg_attr(not(test), expect(dead_code, reason = "sessions are not there yet"))]
    pub(crate) fn marked(mut self, mark: Mark) -> Self {
        match &mut self.action {
            Action::Wait(marked) => *marked = Some(Box::new(mark)),
            Action::Call(call) => call.1 = Some(mark),
            Action::Done | Action::Send(_) | Action::Again | Action::Pend => {}
        }
        self
    }

    /// Whether nothing follows.
    pub fn is_done(&self) -> bool {
        matches!(self.action, Action::Done)
    }

    /// Waits before that; delays add up, [`Duration::MAX`] is never. No effect on
    /// [`done`](Self::done).
    pub fn after(mut self, delay: Duration) -> Self {
        self.when = self.when.plus(delay);
        self
    }

    /// Waits until `at`, in place of the delays given before; a later [`after`](Self::after) counts
    /// from there. If `at` has passed, the step begins at once. No effect on [`done`](Self::done).
    ///
    /// A step that repeats with `after` drifts: each period begins when the response has arrived.
    /// With `at`, the period stays exact:
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use httpstream::{Context, Next, Reply};
    ///
    /// struct Bot { next_beat: Instant }
    ///
    /// impl Bot {
    ///     fn on_beat(&mut self, _: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
    ///         // Beats that are overdue, because the machine slept, are skipped.
    ///         while self.next_beat <= cx.now() {
    ///             self.next_beat += Duration::from_secs(60);
    ///         }
    ///         Next::again().at(self.next_beat)
    ///     }
    /// }
    /// ```
    pub fn at(mut self, at: Instant) -> Self {
        self.when = When::At(at);
        self
    }

    /// The next response is read by `readback`.
    pub fn read_by(self, readback: impl ReadbackFn<S> + 'static) -> Self {
        self.read_to(readback)
    }

    /// The next response is read by `readback`.
    pub fn read_to(mut self, readback: impl Readback<S> + 'static) -> Self {
        self.readback = Some(Box::new(readback));
        self
    }
}

impl<S> fmt::Debug for Action<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("Done"),
            Self::Send(request) => f.debug_tuple("Send").field(request).finish(),
            Self::Again => f.write_str("Again"),
            Self::Wait(_) | Self::Pend => f.write_str("Wait"),
            Self::Call(_) => f.write_str("Call"),
        }
    }
}

impl<S> fmt::Debug for Next<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next")
            .field("action", &self.action)
            .field("when", &self.when)
            .field("another_readback", &self.readback.is_some())
            .finish()
    }
}

/// What a readback can ask of the engine while it runs.
///
/// What it asks is queued and applied before the engine touches the next link. `submit`, `call` and
/// their kin start chains of their own; `send`, `again` and `done` only make what this readback may
/// answer.
pub struct Context<'a, S> {
    pub(super) sink: &'a mut dyn Sink<S>,
    pub(super) seen: Seen<'a>,
}

/// What a context knows of its chain, whatever part of the state it is over.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) id: ChainId,
    pub(super) request: Option<&'a Request>,
    pub(super) failures: u32,
    pub(super) present: &'a Present,
    pub(super) bell: &'a Arc<Bell>,
}

/// The code that a chain goes on with.
pub(crate) type Call<S> = Box<dyn FnOnce(&mut S, &mut Context<'_, S>) -> Next<S>>;

/// Takes what a [`Context`] is asked for.
pub(crate) trait Sink<S> {
    fn start(&mut self, next: Next<S>) -> ChainId;
    fn cancel(&mut self, id: ChainId) -> bool;
    fn cancel_others(&mut self, id: ChainId) -> usize;
    fn resume(&mut self, id: ChainId) -> bool;
    fn write(&mut self, id: ChainId, bytes: &[u8]) -> Option<usize>;
    fn stop(&mut self);
}

impl<'a, S> Context<'a, S> {
    pub(super) fn new(sink: &'a mut dyn Sink<S>, seen: Seen<'a>) -> Self {
        Self { sink, seen }
    }

    /// Starts a chain of its own: `request`, read by `readback`.
    pub fn submit(&mut self, request: Request, readback: impl ReadbackFn<S> + 'static) -> ChainId {
        self.submit_to(request, readback)
    }

    /// Starts a chain of its own: `request`, read by `readback`.
    pub fn submit_to(&mut self, request: Request, readback: impl Readback<S> + 'static) -> ChainId {
        self.start(Next::send(request).read_to(readback))
    }

    /// Starts a chain of its own which begins with a call; see
    /// [`Engine::call`](crate::Engine::call).
    ///
    /// `f` runs after this readback has returned and what it asked for is applied, in this turn or
    /// the next.
    pub fn call(
        &mut self,
        f: impl FnOnce(&mut S, &mut Context<'_, S>) -> Next<S> + 'static,
    ) -> ChainId {
        self.start(Next::call(f))
    }

    /// Starts a chain of its own; see [`Engine::start`](crate::Engine::start).
    pub fn start(&mut self, next: Next<S>) -> ChainId {
        self.sink.start(next)
    }

    /// Ends a chain; see [`Engine::cancel`](crate::Engine::cancel).
    ///
    /// A chain may cancel itself. What its readback then returns is dropped, with a warning in the
    /// log if it is not [`Next::done`], and the readback is called once more, with
    /// [`Cancelled`](crate::ErrorKind::Cancelled). To end a chain without that, return `done`.
    pub fn cancel(&mut self, id: ChainId) -> bool {
        self.sink.cancel(id)
    }

    /// Cancels every chain of the engine except this one, and returns how many: what
    /// [`cancel`](Self::cancel) does to one. For a readback that logs out, or was logged out.
    ///
    /// Chains that this readback has started are among them. Submissions of a
    /// [`Submitter`](crate::Submitter) or [`Local`](crate::Local) that the engine has not taken in
    /// yet are not. Visits every chain, so the cost grows with their number.
    ///
    /// ```
    /// use httpstream::{Context, Next, Reply, Request};
    ///
    /// struct Bot { login: Request }
    ///
    /// impl Bot {
    ///     /// The server ended the session: polls and heartbeats end, and a new login begins.
    ///     fn on_kicked(&mut self, _: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
    ///         cx.cancel_others();
    ///         Next::send(self.login.clone()).read_by(Bot::on_login)
    ///     }
    /// #   fn on_login(&mut self, _: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
    /// #       Next::done()
    /// #   }
    /// }
    /// ```
    pub fn cancel_others(&mut self) -> usize {
        self.sink.cancel_others(self.seen.id)
    }

    /// Lets a paused exchange go on; see [`Engine::resume`](crate::Engine::resume).
    pub fn resume(&mut self, id: ChainId) -> bool {
        self.sink.resume(id)
    }

    /// Writes on the connection of a chain whose protocol was switched by a 101 (Switching
    /// Protocols), from that head on: see [`RequestBuilder::header`](crate::RequestBuilder::header)
    /// for `Upgrade`. Returns how many bytes wait to be written now, these included; `None`: it is
    /// no such chain.
    ///
    /// The connection is a tunnel: what the server sends comes through
    /// [`on_data`](Readback::on_data), beginning with what it sent right behind the 101, and its
    /// end through [`on_reply`](Readback::on_reply), with the 101. To end it from here,
    /// [`cancel`](Self::cancel) the chain, or return [`Flow::Abort`]. Bytes are taken whatever
    /// waits: a program that reads slower than its server sends returns [`Flow::Pause`], and one
    /// that sends faster than its server reads looks at what is returned here. Both deadlines of a
    /// streamed body hold: lift `idle` and `total` for a tunnel that may be silent.
    ///
    /// ```
    /// use httpstream::{Context, Flow, Next, Readback, Reply, Response};
    ///
    /// struct Echo;
    ///
    /// impl Readback<()> for Echo {
    ///     fn on_head(&mut self, _: &mut (), head: &Response<'_>, cx: &mut Context<'_, ()>) -> Flow {
    ///         if head.status() == 101 {
    ///             cx.write(cx.id(), b"hello\n");
    ///         }
    ///         Flow::Stream
    ///     }
    ///
    ///     fn on_data(&mut self, _: &mut (), data: &[u8], cx: &mut Context<'_, ()>) -> Flow {
    ///         match cx.write(cx.id(), data) {
    ///             Some(_) => Flow::Stream,
    ///             None => Flow::Abort,
    ///         }
    ///     }
    ///
    ///     fn on_reply(&mut self, _: &mut (), _: Reply<'_>, _: &mut Context<'_, ()>) -> Next<()> {
    ///         Next::done()
    ///     }
    /// }
    /// ```
    pub fn write(&mut self, id: ChainId, bytes: &[u8]) -> Option<usize> {
        self.sink.write(id, bytes)
    }

    /// The chain whose readback this is.
    pub fn id(&self) -> ChainId {
        self.seen.id
    }

    /// The request that this readback reads the response to; in a call, or when a wait is over, the
    /// one that the chain sent last. `None`: it has sent none yet.
    pub fn request(&self) -> Option<&'a Request> {
        self.seen.request
    }

    /// How many exchanges of this chain have failed since the last that did not, the present one
    /// included: errors, and the statuses that ask for another try (408, 425, 429, 500, 502, 503
    /// and 504). What a [policy](crate::policy) sends again is not counted.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::{Context, Next, Reply};
    ///
    /// fn on_poll(_: &mut (), reply: Reply<'_>, cx: &mut Context<'_, ()>) -> Next<()> {
    ///     match cx.failures() {
    ///         0 => Next::again(),
    ///         n => Next::again().after(Duration::from_secs(1 << n.min(6))),
    ///     }
    /// }
    /// ```
    pub fn failures(&self) -> u32 {
        self.seen.failures
    }

    /// The time, as read after the poll, or after the last readback of this turn that asked for
    /// something.
    pub fn now(&self) -> Instant {
        self.seen.present.now()
    }

    /// The clocks, random numbers, and a waker for this chain: what policies are given, too.
    pub fn moment(&self) -> Moment<'a> {
        let Seen {
            present, bell, id, ..
        } = self.seen;
        Moment::new(present, bell, Some(id))
    }

    /// Ends [`Engine::run`](crate::Engine::run) after this turn.
    pub fn stop(&mut self) {
        self.sink.stop();
    }

    /// [`Next::send`], with the state's type known, so that `cx.send(request).read_by(|bot, reply,
    /// cx| …)` infers.
    pub fn send(&self, request: Request) -> Next<S> {
        Next::send(request)
    }

    /// [`Next::again`], with the state's type known.
    pub fn again(&self) -> Next<S> {
        Next::again()
    }

    /// [`Next::done`], with the state's type known.
    pub fn done(&self) -> Next<S> {
        Next::done()
    }
}

impl<S> fmt::Debug for Context<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("id", &self.seen.id)
            .field("now", &self.now())
            .finish()
    }
}
