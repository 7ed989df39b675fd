//! Readbacks: what callers write, and the [`Next`], [`Flow`] and [`Context`] that they work with.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::body::BodySource;
use crate::engine::chain::{Terms, When};
use crate::generation::{Generation, Mark};
use crate::id::ChainId;
use crate::policy::{Moment, Outcome, Present, Wakeups};
use crate::proto::Origin;
use crate::request::Request;
pub(super) use crate::response::Reply;
use crate::response::Response;
use crate::route::Route;
use crate::timeouts::{Retimed, Timeouts};

/// Reads the response to a request and returns what the chain does next.
///
/// `S` is the state that the host lends to each [turn](crate::Engine::turn). A readback is one of
/// three things:
///
/// - a closure of the shape `FnMut(&mut S, Reply<'_>, &mut Context<'_, S>) -> Next<S>`;
/// - a method of the state with that signature;
/// - a type that implements this trait, if it needs to see the head, or the body piece by piece as
///   it arrives. Such a readback is passed to the functions whose names end in `_to`, for example
///   [`Engine::submit_to`](crate::Engine::submit_to).
///
/// ```
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Context, Engine, Flow, Next, Readback, Reply, Request, Response, Sim};
///
/// #[derive(Default)]
/// struct App { token: String, text: String, bytes: usize }
///
/// impl App {
///     /// A method as a readback.
///     fn on_login(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
///         if let Ok(response) = reply {
///             self.token = response.text().unwrap_or_default().to_owned();
///         }
///         Next::done()
///     }
/// }
///
/// /// A type as a readback: counts the bytes of a body without keeping them.
/// struct Count;
///
/// impl Readback<App> for Count {
///     fn on_head(&mut self, _: &mut App, head: &Response<'_>, _: &mut Context<'_, App>) -> Flow {
///         if head.status() == 200 { Flow::Stream } else { Flow::Discard }
///     }
///
///     fn on_data(&mut self, app: &mut App, data: &[u8], _: &mut Context<'_, App>) -> Flow {
///         app.bytes += data.len();
///         Flow::Stream
///     }
///
///     fn on_reply(&mut self, _: &mut App, _: Reply<'_>, _: &mut Context<'_, App>) -> Next<App> {
///         Next::done()
///     }
/// }
///
/// let network = Network::new(1);
/// network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| match request.path() {
///     "/login" => Answer::ok("7KXW"),
///     _ => Answer::ok("hello"),
/// });
/// let mut engine = Engine::<App, Sim>::on_network(&network, Config::default())?;
///
/// engine.submit(Request::get("http://10.0.0.1/login").build()?, App::on_login);
///
/// let page = Request::get("http://10.0.0.1/page").build()?;
/// engine.submit_to(page.clone(), Count);
///
/// // A closure as a readback.
/// engine.submit(page, |app, reply, _| {
///     app.text = reply.and_then(|response| Ok(response.text()?.to_owned())).unwrap_or_default();
///     Next::done()
/// });
///
/// let mut app = App::default();
/// engine.run(&mut app)?;
/// assert_eq!((app.token.as_str(), app.text.as_str(), app.bytes), ("7KXW", "hello", 5));
/// # Ok::<(), httpstream::Error>(())
/// ```
///
/// # Which methods are called
/// For each request of a chain, `on_interim`, `on_retry`, `on_head`, `on_data` and `on_resume` are
/// called any number of times, and then `on_reply` exactly once, whatever happens, as long as the
/// engine lives. The only exception is a panic in user code of the chain, its
/// [policy](crate::policy) included, which ends the chain.
///
/// When a chain has waited without a request ([`Next::wait`]), `on_due` is called. If the chain is
/// canceled during the wait, `on_reply` is called instead.
///
/// # Panics
/// A readback or a call may panic. Its chain then ends without another call, and the panic
/// propagates through the turn to the host. If the host catches it, the engine continues where it
/// was.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a readback for an engine whose state is `{S}`",
    label = "expected a `Readback<{S}>`",
    note = "implement `Readback<{S}>` for it, or pass a closure or method: `fn(&mut {S}, Reply<'_>, &mut Context<'_, {S}>) -> Next<{S}>`"
)]
pub trait Readback<S> {
    /// Called when the chain is given this readback for `request`, before anything is sent. If it
    /// returns another request, that is sent instead.
    #[doc(hidden)]
    fn prepare(&self, request: &Request) -> Option<Request> {
        let _ = request;
        None
    }

    /// Called when an interim (1xx) response arrives. The final response follows (RFC 9110 §15.2).
    fn on_interim(&mut self, state: &mut S, head: &Response<'_>, cx: &mut Context<'_, S>) {
        let _ = (state, head, cx);
    }

    /// Called when the head of the response arrives; chooses what happens to the body.
    ///
    /// [`Flow::Buffer`], the default, collects the body for `on_reply`. [`Flow::Stream`] passes it
    /// to `on_data` as it arrives. [`Flow::Discard`] reads and drops it. [`Flow::Pause`] streams it
    /// after a [`resume`](Context::resume). [`Flow::Finish`] and [`Flow::Abort`] end the response.
    fn on_head(&mut self, state: &mut S, head: &Response<'_>, cx: &mut Context<'_, S>) -> Flow {
        let _ = (state, head, cx);
        Flow::Buffer
    }

    /// Returns whether [`on_interim`](Self::on_interim) and [`on_head`](Self::on_head) are to be
    /// called. The engine checks this at each head. Closures and methods return false, which saves
    /// the calls.
    fn reads_heads(&self) -> bool {
        true
    }

    /// Called with each piece of a streamed body. The boundaries between pieces carry no meaning.
    fn on_data(&mut self, state: &mut S, data: &[u8], cx: &mut Context<'_, S>) -> Flow {
        let _ = (state, data, cx);
        Flow::Stream
    }

    /// Called when the response is [resumed](Context::resume) after a [`Flow::Pause`], before
    /// anything more is passed to `on_data`. What it returns has the same meaning as for `on_data`:
    /// by default [`Flow::Stream`], and the body goes on.
    ///
    /// Use it in a readback that divides pieces into parts of its own, such as lines, and may pause
    /// in the middle of a piece: it delivers the rest of that piece here.
    ///
    /// It is not called if the exchange ends during the pause. Nor is it called for a body that the
    /// [policy](crate::policy) held back until its end, which a pause does not stop.
    fn on_resume(&mut self, state: &mut S, cx: &mut Context<'_, S>) -> Flow {
        let _ = (state, cx);
        Flow::Stream
    }

    /// Called when a wait without a request ([`Next::wait`]) is over.
    fn on_due(&mut self, state: &mut S, cx: &mut Context<'_, S>) -> Next<S> {
        let _ = (state, cx);
        Next::done()
    }

    /// Called when the request's [policy](crate::policy), such as a
    /// [session](crate::session::SessionBuilder::retry), is about to send it again because of
    /// `why`: an error, or a response that the readback does not see. The request is sent `after`
    /// this wait, at the earliest. Redirects and challenges (401 and 407) that the policy answers
    /// are not retries.
    ///
    /// To end the chain instead, [cancel](Context::cancel) it.
    fn on_retry(
        &mut self,
        state: &mut S,
        why: Outcome<'_>,
        after: Duration,
        cx: &mut Context<'_, S>,
    ) {
        let _ = (state, why, after, cx);
    }

    /// Called when the response is complete or the request has failed. After streaming, the
    /// response has an empty body, and its trailers are available.
    fn on_reply(&mut self, state: &mut S, reply: Reply<'_>, cx: &mut Context<'_, S>) -> Next<S>;
}

#[diagnostic::do_not_recommend]
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

/// A [`Readback`] that is a closure, a function or a method. [`submit`](crate::Engine::submit) and
/// [`read_by`](Next::read_by) accept it.
///
/// Everything with this signature implements the trait; there is no need to implement it yourself.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a readback function for an engine whose state is `{S}`",
    label = "expected `|state: &mut {S}, reply: Reply<'_>, cx: &mut Context<'_, {S}>| -> Next<{S}>`",
    note = "a struct that implements `Readback<{S}>` goes to `submit_to` or `read_to`"
)]
pub trait ReadbackFn<S>: FnMut(&mut S, Reply<'_>, &mut Context<'_, S>) -> Next<S> {}

#[diagnostic::do_not_recommend]
impl<S, F> ReadbackFn<S> for F where F: FnMut(&mut S, Reply<'_>, &mut Context<'_, S>) -> Next<S> {}

/// A readback that reads the response to its end, discards it and ends the chain. Use it for
/// requests whose response is not needed.
///
/// ```
/// use httpstream::{Engine, Request, Unread};
///
/// let mut engine = Engine::<()>::new()?;
/// engine.submit_to(Request::post("http://127.0.0.1:1/log").body("started").build()?, Unread);
/// engine.run(&mut ())?;
/// # Ok::<(), httpstream::Error>(())
/// ```
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

/// What happens to the body of a response from here on; returned by [`Readback::on_head`],
/// [`Readback::on_data`] and [`Readback::on_resume`].
///
/// A download that is paused after each piece until the piece has been processed:
///
/// ```
/// use std::time::Duration;
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Context, Engine, Flow, Next, Readback, Reply, Request, Response, Sim};
///
/// #[derive(Default)]
/// struct Disk { waiting: Vec<u8>, written: Vec<u8>, is_complete: bool }
///
/// struct Download;
///
/// impl Readback<Disk> for Download {
///     fn on_head(
///         &mut self,
///         _: &mut Disk,
///         head: &Response<'_>,
///         _: &mut Context<'_, Disk>,
///     ) -> Flow {
///         if head.status() == 200 { Flow::Stream } else { Flow::Discard }
///     }
///
///     fn on_data(&mut self, disk: &mut Disk, data: &[u8], cx: &mut Context<'_, Disk>) -> Flow {
///         disk.waiting.extend_from_slice(data);
///         // A slow disk, which takes 10 ms to write a piece.
///         let download = cx.id();
///         let write = Next::<Disk>::call(move |disk, cx| {
///             disk.written.append(&mut disk.waiting);
///             cx.resume(download);
///             Next::done()
///         });
///         cx.start(write.after(Duration::from_millis(10)));
///         Flow::Pause
///     }
///
///     fn on_reply(
///         &mut self,
///         disk: &mut Disk,
///         reply: Reply<'_>,
///         _: &mut Context<'_, Disk>,
///     ) -> Next<Disk> {
///         disk.is_complete = reply.is_ok_and(|response| response.status() == 200);
///         Next::done()
///     }
/// }
///
/// let network = Network::new(1);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
///     Answer::status(200).chunked(["one ", "two ", "three"]).drip(8, Duration::from_millis(1))
/// });
/// let mut engine = Engine::<Disk, Sim>::on_network(&network, Config::default())?;
///
/// // The idle timeout guards against a server that stops sending.
/// let file = Request::get("http://10.0.0.1/file").timeouts(|t| t.total = None).build()?;
/// engine.submit_to(file, Download);
/// let mut disk = Disk::default();
/// engine.run(&mut disk)?;
/// assert!(disk.is_complete);
/// assert_eq!(disk.written, b"one two three");
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Flow {
    /// Collects the body, up to [`Limits::max_body_bytes`](crate::Limits::max_body_bytes), and
    /// gives it to `on_reply` whole. Returned by `on_data`, where collecting can no longer begin,
    /// it is the same as [`Flow::Stream`].
    Buffer,
    /// Passes the body to `on_data` as it arrives.
    ///
    /// [`Timeouts::total`](crate::Timeouts::total), five minutes by default, covers the whole body,
    /// pauses included. For a large download, lift it (`.timeouts(|t| t.total = None)`) and rely on
    /// the idle timeout.
    #[doc(alias = "Continue")]
    Stream,
    /// Reads the body to its end and drops it. The connection can then be used again.
    Discard,
    /// Passes nothing more to `on_data`, and soon reads nothing more from the socket, until
    /// [`Context::resume`]; then calls [`Readback::on_resume`] and continues as it says.
    ///
    /// The piece that was just passed to `on_data` counts as consumed. The idle deadline is
    /// suspended during the pause; the total deadline is not. A `resume` before this callback has
    /// returned has no effect, because nothing is paused yet. A `resume` by a
    /// [`Submitter`](crate::Submitter) is processed after the callback and is not lost.
    Pause,
    /// Closes the connection; `on_reply` gets [`ErrorKind::Aborted`](crate::ErrorKind::Aborted).
    Abort,
    /// Ends the response here: `on_reply` gets it as if it was complete. Its connection is closed
    /// if there was more to come.
    ///
    /// Use it when enough of a stream has been read, or to end a [tunnel](Context::write). What
    /// waits to be written on the tunnel is written first, as far as the connection accepts it at
    /// once.
    Finish,
}

/// What a chain does next: end, send a request, send the same request again, or run a call; at once
/// or after a delay.
///
/// ```
/// use std::time::Duration;
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Context, Engine, Next, Reply, Request, Sim};
///
/// struct Job { result: Request, text: String }
///
/// impl Job {
///     fn on_status(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
///         match reply {
///             // Finished: fetch the result. It is sent in the same turn, on the same connection.
///             Ok(response) if response.status() == 200 => {
///                 Next::send(self.result.clone()).read_by(Self::on_result)
///             }
///             // Not finished: ask again in five seconds.
///             Ok(response) if response.status() == 202 => {
///                 Next::again().after(Duration::from_secs(5))
///             }
///             _ => match cx.failures() {
///                 // An error, or a status such as 503: try twice more, after 2 s and after 4 s.
///                 failures @ (1 | 2) => Next::again().after(Duration::from_secs(1 << failures)),
///                 // The third failure, or a status that a retry cannot change, such as 404.
///                 _ => Next::done(),
///             },
///         }
///     }
///
///     fn on_result(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
///         if let Ok(response) = reply {
///             self.text = response.text().unwrap_or_default().to_owned();
///         }
///         Next::done()
///     }
/// }
///
/// let network = Network::new(1);
/// network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| match request.path() {
///     "/status" if request.at < Duration::from_secs(60) => Answer::status(202),
///     "/status" => Answer::status(200),
///     _ => Answer::ok("42"),
/// });
/// let mut engine = Engine::<Job, Sim>::on_network(&network, Config::default())?;
/// engine.submit(Request::get("http://10.0.0.1/status").build()?, Job::on_status);
/// let result = Request::get("http://10.0.0.1/result").build()?;
/// let mut job = Job { result, text: String::new() };
/// engine.run(&mut job)?;
/// assert_eq!(job.text, "42");
/// # Ok::<(), httpstream::Error>(())
/// ```
#[must_use = "a `Next` takes effect only if the readback returns it"]
pub struct Next<S> {
    pub(crate) action: Action<S>,
    pub(crate) when: When,
    pub(crate) readback: Option<Box<dyn Readback<S>>>,
}

pub(crate) enum Action<S> {
    Done,
    Send(Request),
    /// Sends this request in place of the chain's last one. The chain stays in the generation that
    /// it belongs to.
    Instead(Request),
    Again,
    /// Sends nothing. The readback's `on_due` is called when the wait is over.
    Wait(Option<Box<Mark>>),
    /// An unfinished task waits to be woken. The chain stays in the generation that it belonged to.
    Pend,
    /// Sends nothing. The call runs when it is due. The second `Box` keeps `Next` short: every
    /// request moves a `Next`, and a fat pointer here would lengthen all of them.
    Call(Box<(Call<S>, Option<Mark>)>),
    /// Another action, and what few steps have. Contains neither `Done` nor another `Rare`.
    Rare(Box<Rare<S>>),
}

/// A step that has a key or a deadline for its chain.
pub(crate) struct Rare<S> {
    pub(crate) action: Action<S>,
    pub(crate) terms: Terms,
}

impl<S> Action<S> {
    /// Changes the terms of a step. The end of a chain has none.
    fn set_terms(self, set: impl FnOnce(&mut Terms)) -> Self {
        match self {
            Self::Done => Self::Done,
            Self::Rare(mut rare) => {
                set(&mut rare.terms);
                Self::Rare(rare)
            }
            action => {
                let mut terms = Terms::default();
                set(&mut terms);
                Self::Rare(Box::new(Rare { action, terms }))
            }
        }
    }

    fn mark(&mut self, mark: Mark) {
        match self {
            Self::Wait(marked) => *marked = Some(Box::new(mark)),
            Self::Call(call) => call.1 = Some(mark),
            Self::Rare(rare) => rare.action.mark(mark),
            Self::Done | Self::Send(_) | Self::Instead(_) | Self::Again | Self::Pend => {}
        }
    }
}

impl<S> Next<S> {
    pub(super) fn of(action: Action<S>) -> Self {
        Self {
            action,
            when: When::NOW,
            readback: None,
        }
    }

    /// Ends the chain.
    pub fn done() -> Self {
        Self::of(Action::Done)
    }

    /// Sends `request`. The current readback also reads its response, unless
    /// [`read_by`](Self::read_by) installs another.
    pub fn send(request: Request) -> Self {
        Self::of(Action::Send(request))
    }

    /// Sends the chain's last request again, without allocating. If a [policy](crate::policy) or a
    /// [session](crate::session) has sent others in its place, for example after a redirect, it is
    /// the request that the chain itself has sent. In a chain that has sent none, such as one that
    /// has only made [calls](Self::call), this is [`done`](Self::done).
    ///
    /// The request is sent at once. Add a delay with [`after`](Self::after) after an error, after
    /// an unsuccessful status (for which [`Reply`] is `Ok`, too), and wherever the server answers
    /// immediately. Otherwise the chain floods the server.
    pub fn again() -> Self {
        Self::of(Action::Again)
    }

    /// Runs `f` instead of sending a request, most often [`after`](Self::after) a delay. The chain
    /// then does what `f` returns.
    ///
    /// Use a call to build a request only when it is due, to pace a queue, or to wait for a person.
    /// Without a delay, `f` runs in this turn or the next, after the engine has carried out the
    /// operations that the current readback requested through its [`Context`]. A chain that makes
    /// calls forever without a delay does not block the rest of the loop, but it keeps the loop
    /// from sleeping.
    ///
    /// The chain keeps its readback, or gets the one set with [`read_by`](Self::read_by). That
    /// readback reads the response to the request that `f` returns, unless `f` sets another. If the
    /// chain is [canceled](Context::cancel), the same readback is called, and `f` does not run. If
    /// `f` returns [`again`](Self::again), the chain's last request is sent.
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
    ///     /// Uses the cookie as it is when the request is sent, not as it was a minute before.
    ///     fn beat(&mut self, _: &mut Context<'_, Self>) -> Next<Self> {
    ///         let beat = Request::get("http://127.0.0.1:1/beat").header("Cookie", &self.cookie);
    ///         beat.build().map_or_else(|_| Next::done(), Next::send)
    ///     }
    /// }
    /// ```
    ///
    /// In a closure, annotate the state's type: `Next::call(|bot: &mut Bot, _| …)`.
    pub fn call(f: impl FnOnce(&mut S, &mut Context<'_, S>) -> Next<S> + 'static) -> Self {
        Self::of(Action::Call(Box::new((Box::new(f), None))))
    }

    /// Sends nothing. The readback's [`on_due`](Readback::on_due) is called when the delay set with
    /// [`after`](Self::after) is over, or when a [`waker`](Moment::waker) of the chain is woken.
    ///
    /// This is [`call`](Self::call) for readbacks that are types of their own, and it does not
    /// allocate. Closures have no `on_due`, so a chain whose readback is a closure ends.
    pub fn wait() -> Self {
        Self::of(Action::Wait(None))
    }

    /// Makes a wait, a call or a task end with a generation of a session. Has no effect on a
    /// request, which carries its own mark.
    pub(crate) fn marked(mut self, mark: Mark) -> Self {
        self.action.mark(mark);
        self
    }

    /// Returns whether this is [`done`](Self::done).
    pub fn is_done(&self) -> bool {
        matches!(self.action, Action::Done)
    }

    /// Sends `request`, which was derived from the chain's last one, in place of that: as
    /// [`again`](Self::again) does, in the generation that the chain belongs to. A request that was
    /// [edited](Request::edit) belongs to the current one, so by [`send`](Self::send) it would
    /// outlive the end of its login.
    pub(crate) fn instead(request: Request) -> Self {
        Self::of(Action::Instead(request))
    }

    /// Turns [`again`](Self::again) into [`instead`](Self::instead) of `request`. Delay, key and
    /// readback stay.
    pub(crate) fn again_with(mut self, request: Request) -> Self {
        let again = match &mut self.action {
            Action::Rare(rare) => &mut rare.action,
            action => action,
        };
        if let Action::Again = again {
            *again = Action::Instead(request);
        }
        self
    }

    /// Returns whether this is [`again`](Self::again).
    pub(crate) fn is_again(&self) -> bool {
        match &self.action {
            Action::Rare(rare) => matches!(rare.action, Action::Again),
            action => matches!(action, Action::Again),
        }
    }

    /// Gives the chain a key until this step begins. If another chain holds the key, that chain is
    /// [canceled](crate::Engine::cancel), so at most one step with a key is pending. Of several
    /// names for one step, the last counts. Has no effect on [`done`](Self::done).
    ///
    /// Use it for something that is scheduled again and again, of which only the last schedule
    /// counts: a refresh after the latest change, or a timer that is put off.
    ///
    /// The chain takes the key when the step is started or returned, and holds it while the step is
    /// delayed or waits. A call, a task or a wait is over when the call runs, the task is polled
    /// for the first time, or `on_due` is called. A request is under way once its delay is over,
    /// even if it is queued or held back by its [policy](crate::policy). From then on, the chain no
    /// longer holds the key, and a successor does not cancel it. A request without a delay is under
    /// way at once, so it only cancels the holder. [`cancel_key`](Context::cancel_key) cancels
    /// without a successor.
    ///
    /// Keys belong to the engine, and the readbacks of [`within`](crate::within) share them: if
    /// each of many bots needs a key of its own, put the bot's name into it. A key that no chain
    /// holds takes no memory.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::sim::Network;
    /// use httpstream::{Config, Context, Engine, Next, Sim};
    ///
    /// #[derive(Default)]
    /// struct Editor { text: String, saved: Vec<String> }
    ///
    /// impl Editor {
    ///     /// Saves the text as soon as nothing has been typed for two seconds.
    ///     fn on_typed(&mut self, letter: char, cx: &mut Context<'_, Self>) {
    ///         self.text.push(letter);
    ///         cx.start(Next::call(Self::save).after(Duration::from_secs(2)).key("save"));
    ///     }
    ///
    ///     fn save(&mut self, _: &mut Context<'_, Self>) -> Next<Self> {
    ///         self.saved.push(self.text.clone());
    ///         Next::done()
    ///     }
    /// }
    ///
    /// let mut engine = Engine::<Editor, Sim>::on_network(&Network::new(1), Config::default())?;
    /// for (letter, at) in [('a', 0), ('b', 1), ('c', 2), ('d', 10)] {
    ///     let typed = Next::<Editor>::call(move |editor, cx| {
    ///         editor.on_typed(letter, cx);
    ///         Next::done()
    ///     });
    ///     engine.start(typed.after(Duration::from_secs(at)));
    /// }
    /// let mut editor = Editor::default();
    /// engine.run(&mut editor)?;
    /// assert_eq!(editor.saved, ["abc", "abcd"]);
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn key(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.action = self.action.set_terms(|terms| terms.key = Some(name.into()));
        self
    }

    /// Sets a deadline for the whole chain, counted from when the chain is started with this step,
    /// or from when a readback returned it. It stays with the chain through all further steps,
    /// [`again`](Self::again) included. A later `chain_timeout` in the same chain replaces it, and
    /// [`Duration::MAX`] lifts it. Has no effect on [`done`](Self::done).
    ///
    /// Use it for a conversation that is worthless after a time, however many requests, retries and
    /// delays it consists of. [`Timeouts::total`](crate::Timeouts::total) and the other timeouts
    /// apply to each request anew, and to no delay.
    ///
    /// When the deadline passes, the chain ends, whatever it is doing: its request may be in
    /// flight, in a queue, or held back by its [policy](crate::policy), and the chain may be
    /// delayed, wait, or be a task. The readback is called once more, with
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout); the source of the error names the
    /// `chain_timeout`. What the readback then returns is ignored, as for a
    /// [cancellation](Context::cancel). A call that the chain waits for is dropped. A task is
    /// dropped, and neither it nor a chain that has only made calls is told.
    ///
    /// The deadline is never early, and it is late by at most one tick of the timing wheel, 1 ms.
    /// A response that has arrived before a late turn is delivered, as with all deadlines, and so
    /// is an error from before; the step that the readback then returns does not begin.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::sim::{Answer, Incoming, Network};
    /// use httpstream::{Config, Context, Engine, ErrorKind, Next, Reply, Request, Sim};
    ///
    /// #[derive(Default)]
    /// struct Order { asked: u32, failed: Option<ErrorKind> }
    ///
    /// impl Order {
    ///     fn on_status(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
    ///         match reply {
    ///             Ok(response) if response.status() == 200 => Next::done(),
    ///             Ok(_) => {
    ///                 self.asked += 1;
    ///                 Next::again().after(Duration::from_secs(10))
    ///             }
    ///             Err(error) => {
    ///                 self.failed = Some(error.kind());
    ///                 Next::done()
    ///             }
    ///         }
    ///     }
    /// }
    ///
    /// let network = Network::new(1);
    /// // The order is never ready.
    /// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::status(202));
    /// let mut engine = Engine::<Order, Sim>::on_network(&network, Config::default())?;
    ///
    /// let status = engine.send(Request::get("http://10.0.0.1/order/7").build()?);
    /// engine.start(status.read_by(Order::on_status).chain_timeout(Duration::from_secs(60)));
    /// let mut order = Order::default();
    /// engine.run(&mut order)?;
    /// assert_eq!((order.asked, order.failed), (6, Some(ErrorKind::Timeout)));
    /// assert_eq!(network.elapsed(), Duration::from_secs(60));
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn chain_timeout(mut self, timeout: Duration) -> Self {
        self.action = self
            .action
            .set_terms(|terms| terms.chain_timeout = Some(timeout));
        self
    }

    /// Delays the step by `delay`. Several delays add up; [`Duration::MAX`] means never. Has no
    /// effect on [`done`](Self::done).
    pub fn after(mut self, delay: Duration) -> Self {
        self.when = self.when.plus(delay);
        self
    }

    /// Delays the step until `at`, which replaces the delays set before. A later
    /// [`after`](Self::after) is added to `at`. If `at` has passed, the step begins at once. Has no
    /// effect on [`done`](Self::done).
    ///
    /// A step that is repeated with `after` drifts, because each period begins only when the
    /// response has arrived. With `at`, the period stays exact:
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
    ///
    /// Compute `at` from [`Context::now`], which follows the clock of a simulation, rather than
    /// from `Instant::now()`, which does not.
    pub fn at(mut self, at: Instant) -> Self {
        self.when = When::At(at);
        self
    }

    /// Sets the readback of the next response, and of those after it, to `readback`.
    pub fn read_by(self, readback: impl ReadbackFn<S> + 'static) -> Self {
        self.read_to(readback)
    }

    /// [`read_by`](Self::read_by) for a type that implements [`Readback`].
    pub fn read_to(mut self, readback: impl Readback<S> + 'static) -> Self {
        self.readback = Some(Box::new(readback));
        self
    }
}

impl<S> fmt::Debug for Action<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("Done"),
            Self::Send(request) | Self::Instead(request) => {
                f.debug_tuple("Send").field(request).finish()
            }
            Self::Again => f.write_str("Again"),
            Self::Wait(_) | Self::Pend => f.write_str("Wait"),
            Self::Call(_) => f.write_str("Call"),
            Self::Rare(rare) => write!(f, "{:?} {:?}", rare.action, rare.terms),
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

/// Lets a readback or a call act on the engine while it runs.
///
/// Operations are queued, and carried out before the engine continues with the next connection.
/// [`submit`](Self::submit), [`call`](Self::call) and [`start`](Self::start) begin separate chains.
/// [`send`](Self::send), [`again`](Self::again) and [`done`](Self::done) only construct a value for
/// the readback to return.
///
/// ```
/// use std::time::Duration;
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{ChainId, Config, Context, Engine, Next, Reply, Request, Sim};
///
/// const MINUTE: Duration = Duration::from_secs(60);
///
/// struct Bot { beat: Request, heart: Option<ChainId>, beats: u32 }
///
/// impl Bot {
///     fn on_login(&mut self, _: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
///         // A second chain: a heartbeat every minute.
///         let beat = Next::send(self.beat.clone()).after(MINUTE);
///         self.heart = Some(cx.start(beat.read_by(Self::on_beat)));
///         // This chain continues, and logs out after ten minutes.
///         Next::call(Self::log_out).after(10 * MINUTE)
///     }
///
///     fn on_beat(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
///         self.beats += u32::from(reply.is_ok());
///         Next::again().after(MINUTE)
///     }
///
///     fn log_out(&mut self, cx: &mut Context<'_, Self>) -> Next<Self> {
///         if let Some(heart) = self.heart.take() {
///             cx.cancel(heart);
///         }
///         Next::done()
///     }
/// }
///
/// let network = Network::new(1);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::ok(""));
/// let mut engine = Engine::<Bot, Sim>::on_network(&network, Config::default())?;
/// engine.submit(Request::post("http://10.0.0.1/login").build()?, Bot::on_login);
/// let beat = Request::get("http://10.0.0.1/beat").build()?;
/// let mut bot = Bot { beat, heart: None, beats: 0 };
/// engine.run(&mut bot)?;
/// assert_eq!(bot.beats, 9);
/// # Ok::<(), httpstream::Error>(())
/// ```
pub struct Context<'a, S> {
    pub(super) sink: &'a mut dyn Sink<S>,
    pub(super) seen: Seen<'a>,
}

/// The part of a [`Context`] that does not depend on the state's type.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) id: ChainId,
    pub(super) request: Option<&'a Request>,
    pub(super) failures: u32,
    pub(super) present: &'a Present,
    pub(super) wakeups: &'a Arc<Wakeups>,
}

/// A closure that a chain runs as its next step.
pub(crate) type Call<S> = Box<dyn FnOnce(&mut S, &mut Context<'_, S>) -> Next<S>>;

/// Receives the operations that are requested through a [`Context`].
pub(crate) trait Sink<S> {
    fn start(&mut self, next: Next<S>) -> ChainId;
    fn preconnect(&mut self, origin: Origin, route: Option<Arc<Route>>);
    fn cancel(&mut self, id: ChainId) -> bool;
    fn cancel_key(&mut self, name: &str) -> bool;
    fn cancel_others(&mut self, id: ChainId) -> usize;
    fn resume(&mut self, id: ChainId) -> bool;
    fn write(&mut self, id: ChainId, bytes: &[u8]) -> Option<usize>;
    fn write_from(&mut self, id: ChainId, source: Box<dyn BodySource>) -> bool;
    fn is_cancelled(&self, id: ChainId) -> bool;
    fn retime(&mut self, id: ChainId, request: &Request) -> Option<&mut Retimed>;
    fn end(&mut self, generation: &Generation, own: ChainId, request: Option<&Request>);
    fn stop(&mut self);
    fn is_ending(&self, id: ChainId) -> bool;
}

impl<'a, S> Context<'a, S> {
    pub(super) fn new(sink: &'a mut dyn Sink<S>, seen: Seen<'a>) -> Self {
        Self { sink, seen }
    }

    /// Starts a separate chain that sends `request`; `readback` reads the response.
    pub fn submit(&mut self, request: Request, readback: impl ReadbackFn<S> + 'static) -> ChainId {
        self.submit_to(request, readback)
    }

    /// [`submit`](Self::submit) for a type that implements [`Readback`].
    pub fn submit_to(&mut self, request: Request, readback: impl Readback<S> + 'static) -> ChainId {
        self.start(Next::send(request).read_to(readback))
    }

    /// Starts a separate chain that begins with a call; see [`Engine::call`](crate::Engine::call).
    ///
    /// `f` runs in this turn or the next, after this readback has returned and the engine has
    /// carried out the operations that it requested.
    pub fn call(
        &mut self,
        f: impl FnOnce(&mut S, &mut Context<'_, S>) -> Next<S> + 'static,
    ) -> ChainId {
        self.start(Next::call(f))
    }

    /// Starts a separate chain that begins with `next`; see
    /// [`Engine::start`](crate::Engine::start).
    pub fn start(&mut self, next: Next<S>) -> ChainId {
        self.sink.start(next)
    }

    /// Ends a generation of a session, except for this chain.
    pub(crate) fn end_generation(&mut self, generation: &Generation) {
        let Seen { id, request, .. } = self.seen;
        self.sink.end(generation, id, request);
    }

    /// Opens a connection to `origin`, for the next request; see
    /// [`Engine::preconnect`](crate::Engine::preconnect).
    pub fn preconnect(&mut self, origin: &Origin) {
        self.sink.preconnect(origin.clone(), None);
    }

    /// [`preconnect`](Self::preconnect) for requests that carry `route`.
    pub fn preconnect_by(&mut self, origin: &Origin, route: &Arc<Route>) {
        self.sink
            .preconnect(origin.clone(), Some(Arc::clone(route)));
    }

    /// Cancels a chain; see [`Engine::cancel`](crate::Engine::cancel).
    ///
    /// A chain may cancel itself. What its readback returns after that is ignored, with a warning
    /// in the log unless it is [`Next::done`], and the readback is called once more, with
    /// [`Cancelled`](crate::ErrorKind::Cancelled). To end a chain without that call, return `done`.
    pub fn cancel(&mut self, id: ChainId) -> bool {
        self.sink.cancel(id)
    }

    /// Cancels the chain that holds a key; see [`Engine::cancel_key`](crate::Engine::cancel_key).
    /// The chain of a running readback or call holds none.
    pub fn cancel_key(&mut self, name: &str) -> bool {
        self.sink.cancel_key(name)
    }

    /// Cancels all chains of the engine except this one, as [`cancel`](Self::cancel) does, and
    /// returns how many were canceled.
    ///
    /// Use it in a readback that logs out or that detects the end of a session. The chains that
    /// this readback has started are canceled, too. Submissions through a
    /// [`Submitter`](crate::Submitter) or [`Local`](crate::Local) are not canceled if the engine
    /// has not taken them yet. The cost is proportional to the number of chains.
    ///
    /// Tasks, and the futures of `fetch`, `sleep` and `with`, are chains, too. A canceled `sleep`
    /// completes, and a canceled `with` fails with [`Gone`](crate::Gone).
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

    /// Resumes a paused response; see [`Engine::resume`](crate::Engine::resume).
    pub fn resume(&mut self, id: ChainId) -> bool {
        self.sink.resume(id)
    }

    /// Returns whether this chain was canceled, perhaps by its own readback: the readback is called
    /// only once more, with [`Cancelled`](crate::ErrorKind::Cancelled).
    ///
    /// A readback that delivers several parts of one piece of a body checks this after each.
    pub fn is_cancelled(&self) -> bool {
        self.sink.is_cancelled(self.seen.id)
    }

    /// Changes the timeouts of the response that is being read, from here on; those that `change`
    /// does not assign stay as they are, as with
    /// [`RequestBuilder::timeouts`](crate::RequestBuilder::timeouts). The deadline of the current
    /// phase begins anew. The request itself does not change, so [`again`](Self::again) sends it
    /// with its own timeouts, and a deadline [of the chain](Next::chain_timeout) stays, too.
    ///
    /// Use it in [`on_head`](Readback::on_head), for a response that turns out to be a stream
    /// without an end. In calls, and when nothing is being read, it has no effect.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::sim::{Answer, Incoming, Network};
    /// use httpstream::{Config, Context, Engine, Flow, Next, Readback, Reply, Request};
    /// use httpstream::{Response, Sim};
    ///
    /// struct Ticks;
    ///
    /// impl Readback<usize> for Ticks {
    ///     fn on_head(
    ///         &mut self,
    ///         _: &mut usize,
    ///         _: &Response<'_>,
    ///         cx: &mut Context<'_, usize>,
    ///     ) -> Flow {
    ///         // Ticks come once a minute, for as long as the server likes.
    ///         cx.timeouts(|t| {
    ///             t.idle = Some(Duration::from_secs(90));
    ///             t.total = None;
    ///         });
    ///         Flow::Stream
    ///     }
    ///
    ///     fn on_data(
    ///         &mut self,
    ///         seen: &mut usize,
    ///         data: &[u8],
    ///         _: &mut Context<'_, usize>,
    ///     ) -> Flow {
    ///         *seen += data.len();
    ///         Flow::Stream
    ///     }
    ///
    ///     fn on_reply(
    ///         &mut self,
    ///         _: &mut usize,
    ///         _: Reply<'_>,
    ///         _: &mut Context<'_, usize>,
    ///     ) -> Next<usize> {
    ///         Next::done()
    ///     }
    /// }
    ///
    /// let network = Network::new(1);
    /// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
    ///     Answer::ok("x".repeat(500)).drip(50, Duration::from_secs(60))
    /// });
    /// let mut engine = Engine::<usize, Sim>::on_network(&network, Config::default())?;
    /// let ticks = Request::get("http://10.0.0.1/").timeouts(|t| t.first_byte = None).build()?;
    /// engine.submit_to(ticks, Ticks);
    /// let mut seen = 0;
    /// engine.run(&mut seen)?;
    /// assert_eq!(seen, 500);
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn timeouts(&mut self, change: impl FnOnce(&mut Timeouts)) {
        let Seen { id, request, .. } = self.seen;
        if let Some(retimed) = request.and_then(|request| self.sink.retime(id, request)) {
            retimed.change(change);
        }
    }

    /// Writes to the tunnel of a chain whose server has switched protocols with 101 (Switching
    /// Protocols); for the request, see `Upgrade` at
    /// [`RequestBuilder::header`](crate::RequestBuilder::header).
    ///
    /// Returns the number of bytes now waiting to be written, `bytes` included, or `None` if the
    /// chain has no tunnel. Writing is possible from the call of [`on_head`](Readback::on_head)
    /// with the 101.
    ///
    /// [`on_data`](Readback::on_data) receives the data from the server, beginning with the bytes
    /// directly after the 101. [`on_reply`](Readback::on_reply) reports the end of the tunnel, with
    /// the 101. To end the tunnel from this side, return [`Flow::Finish`].
    ///
    /// All bytes are accepted, however many are waiting. If the program sends faster than the
    /// server reads, the returned count grows, and the program should send less. If the server
    /// sends faster than the program reads, the program returns [`Flow::Pause`]. Both timeouts of a
    /// streamed body apply: lift `idle` and `total` for a tunnel that may be silent.
    ///
    /// ```
    /// use httpstream::{Context, Flow, Next, Readback, Reply, Response};
    ///
    /// struct Echo;
    ///
    /// impl Readback<()> for Echo {
    ///     fn on_head(
    ///         &mut self,
    ///         _: &mut (),
    ///         head: &Response<'_>,
    ///         cx: &mut Context<'_, ()>,
    ///     ) -> Flow {
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

    /// Writes what `source` supplies to the tunnel of a chain, from now on. Returns false if the
    /// chain has no tunnel; for tunnels see [`write`](Self::write).
    ///
    /// The source is read, a piece of at most 32 KiB at a time, when all that was to be written is
    /// written and the connection has room. So nothing piles up, and a source that has nothing to
    /// send ([`Supply::Wait`](crate::Supply::Wait)) can supply more from any thread: it wakes the
    /// waker that it was given, which also ends the wait of the host's loop. The
    /// [size](BodySource::size) of the source and its trailers are ignored.
    ///
    /// Bytes passed to `write` go out before what the source supplies next, but not in the middle
    /// of a piece. Another source takes the place of this one.
    ///
    /// When the source [ends](crate::Supply::End), nothing more is read from it, and the server has
    /// ten seconds to close the connection; until then, what it sends is passed on. While the
    /// source has not ended, the server may take no longer than
    /// [`Timeouts::write`](crate::Timeouts::write) to accept a byte, if some wait, unless the
    /// response is paused. If either deadline passes, the exchange fails with
    /// [`Timeout`](crate::ErrorKind::Timeout), and if the source returns an error, with that.
    ///
    /// ```
    /// use std::io;
    /// use std::task::Waker;
    /// use httpstream::{BodySource, Context, Flow, Next, Readback, Reply, Response, Supply};
    ///
    /// /// Counts down.
    /// struct Countdown(u32);
    ///
    /// impl BodySource for Countdown {
    ///     fn size(&self) -> Option<u64> {
    ///         None
    ///     }
    ///
    ///     fn read(&mut self, room: &mut [u8], _: &Waker) -> io::Result<Supply> {
    ///         let Some(left) = self.0.checked_sub(1) else { return Ok(Supply::End) };
    ///         self.0 = left;
    ///         let line = format!("{left}\n");
    ///         room[..line.len()].copy_from_slice(line.as_bytes());
    ///         Ok(Supply::Bytes(line.len()))
    ///     }
    /// }
    ///
    /// struct Launch;
    ///
    /// impl Readback<()> for Launch {
    ///     fn on_head(
    ///         &mut self,
    ///         _: &mut (),
    ///         head: &Response<'_>,
    ///         cx: &mut Context<'_, ()>,
    ///     ) -> Flow {
    ///         if head.status() == 101 {
    ///             cx.write_from(cx.id(), Countdown(10));
    ///         }
    ///         Flow::Stream
    ///     }
    ///
    ///     fn on_reply(&mut self, _: &mut (), _: Reply<'_>, _: &mut Context<'_, ()>) -> Next<()> {
    ///         Next::done()
    ///     }
    /// }
    /// ```
    pub fn write_from(&mut self, id: ChainId, source: impl BodySource + 'static) -> bool {
        self.sink.write_from(id, Box::new(source))
    }

    /// Returns the id of this readback's chain.
    pub fn id(&self) -> ChainId {
        self.seen.id
    }

    /// Returns the request whose response this readback reads. In a call, or when a wait is over,
    /// this is the chain's last request, or `None` if it has sent none yet.
    pub fn request(&self) -> Option<&'a Request> {
        self.seen.request
    }

    /// Returns how many exchanges of this chain have failed in a row, the current one included.
    ///
    /// Failures are errors, and the statuses that invite a retry (408, 425, 429, 500, 502, 503 and
    /// 504). Any other response resets the count, including a 401 or 404. If a
    /// [policy](crate::policy) turns a status into an error, the error counts as the status does.
    /// Attempts that a policy sends again are not counted.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::{Context, Next, Reply};
    ///
    /// fn on_poll(_: &mut (), reply: Reply<'_>, cx: &mut Context<'_, ()>) -> Next<()> {
    ///     match reply {
    ///         // The server holds each poll until it has news.
    ///         Ok(response) if response.status() == 200 => {
    ///             Next::again().after(Duration::from_millis(100))
    ///         }
    ///         // Other statuses, such as 404, may not count as failures, but need a delay, too.
    ///         _ => Next::again().after(Duration::from_secs(1 << cx.failures().clamp(1, 6))),
    ///     }
    /// }
    /// ```
    pub fn failures(&self) -> u32 {
        self.seen.failures
    }

    /// Returns the last reading of the clock: after the poll, or after the last readback of this
    /// turn that used the engine, for example to send a request.
    ///
    /// In a simulation this is the simulated time, which `Instant::now()` is not.
    pub fn now(&self) -> Instant {
        self.seen.present.now()
    }

    /// Returns clocks, random numbers and a waker for this chain. Policies get the same.
    pub fn moment(&self) -> Moment<'a> {
        let Seen {
            present,
            wakeups,
            id,
            ..
        } = self.seen;
        Moment::new(present, wakeups, Some(id))
    }

    /// Returns whether the chain ends with this call, so that a step that it returns does not
    /// begin: the chain was [canceled](Self::cancel), its [deadline](Next::chain_timeout) has
    /// passed, or the engine [drains](crate::Engine::drain).
    ///
    /// Use it in a readback that would repeat a failed request by itself, and reports its failure
    /// only at the end.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::{Context, Next, Reply};
    ///
    /// fn on_reply(log: &mut Vec<String>, reply: Reply<'_>, cx: &mut Context<'_, Vec<String>>)
    /// -> Next<Vec<String>> {
    ///     match reply {
    ///         Ok(_) => Next::done(),
    ///         Err(_) if cx.failures() < 3 && !cx.is_ending() => {
    ///             Next::again().after(Duration::from_secs(1))
    ///         }
    ///         Err(error) => {
    ///             log.push(format!("{error:#}"));
    ///             Next::done()
    ///         }
    ///     }
    /// }
    /// ```
    pub fn is_ending(&self) -> bool {
        self.sink.is_ending(self.seen.id)
    }

    /// Makes [`Engine::run`](crate::Engine::run) return at the end of this turn.
    pub fn stop(&mut self) {
        self.sink.stop();
    }

    /// [`Next::send`] with the state's type fixed, which lets the compiler infer the types in
    /// `cx.send(request).read_by(|bot, reply, cx| …)`.
    pub fn send(&self, request: Request) -> Next<S> {
        Next::send(request)
    }

    /// [`Next::again`] with the state's type fixed.
    pub fn again(&self) -> Next<S> {
        Next::again()
    }

    /// [`Next::done`] with the state's type fixed.
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
