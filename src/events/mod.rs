//! Event streams: `text/event-stream`, also known as server-sent events (WHATWG HTML, [§9.2]).
//!
//! [`Events`] is the readback of a stream, for programs that have a state, and [`Stream`] is for
//! tasks. Both open the stream again when it ends, with the id of the last event in
//! `Last-Event-ID`, so that the server can send what was missed. Both work in
//! [sessions](crate::session), which decode streams and follow redirects.
//!
//! ```
//! use httpstream::events::{Event, Events};
//! use httpstream::sim::{Answer, Incoming, Network};
//! use httpstream::{Config, Context, Engine, Flow, Next, Reply, Request, Sim};
//!
//! #[derive(Default)]
//! struct Bot { seen: Vec<String>, is_over: bool }
//!
//! impl Bot {
//!     fn on_event(&mut self, event: Event<'_>, _: &mut Context<'_, Self>) -> Flow {
//!         self.seen.push(format!("{} {}: {}", event.id(), event.name(), event.data()));
//!         Flow::Stream
//!     }
//!
//!     fn on_end(&mut self, _: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
//!         self.is_over = true;
//!         Next::done()
//!     }
//! }
//!
//! let network = Network::new(1);
//! network.host("news.test", [[10, 0, 0, 1]]);
//! network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| {
//!     let answer = Answer::status(200).header("Content-Type", "text/event-stream");
//!     match request.header("Last-Event-ID") {
//!         // Two events, and then the server closes the connection.
//!         None => answer.chunked(["id: 1\ndata: hello\n\n", "id: 2\nevent: join\ndata: bob\n\n"]),
//!         Some(b"2") => answer.chunked(["id: 3\ndata: bye\n\n"]),
//!         // The server says that the stream is over for good.
//!         Some(_) => Answer::status(204),
//!     }
//! });
//! let mut engine = Engine::<Bot, Sim>::on_network(&network, Config::default())?;
//! let news = Request::get("http://news.test/").accept_events().build()?;
//! engine.submit_to(news, Events::new(Bot::on_event).then(Bot::on_end));
//! let mut bot = Bot::default();
//! engine.run(&mut bot)?;
//! assert_eq!(bot.seen, ["1 message: hello", "2 join: bob", "3 message: bye"]);
//! assert!(bot.is_over);
//! # Ok::<(), httpstream::Error>(())
//! ```
//!
//! # When a stream is opened again
//! The [`Retry`] decides, [`Retry::forever`] by default:
//!
//! - A stream that has ended, or was cut off, is opened again. So is one that was
//!   [silent](Events::silence) for too long.
//! - A failure before the stream, such as a 503 or a refused connection, is retried by the rules of
//!   `Retry`, `Retry-After` included.
//! - A 204 (No Content) ends the stream for good, and so does any other response that is not an
//!   event stream: another status, or another content type.
//! - A request that is not [idempotent](crate::RequestBuilder::idempotent), such as a POST, is not
//!   sent again once a server may have seen it. A stream that answers it is read once, to its end.
//!
//! The wait grows with each attempt that brought no event, so a server that ends every stream at
//! once is not flooded. An event, or a stream that lasted for a minute, starts the count of
//! failures anew. The wait is never shorter than the time that the server asks for by `retry:`, of
//! which at most an hour counts.
//!
//! # Which events are delivered
//! Every event that has data and whose end has arrived, in order. The id of an event without data
//! counts nevertheless, and stays until the server sets another one, also when the stream is opened
//! again. What is incomplete when the stream ends is dropped, and so are the events that a pause
//! holds back when the stream breaks. They are not lost if the server sets ids: it sends them
//! again. A server that sets no ids cannot know what was missed.
//!
//! [§9.2]: https://html.spec.whatwg.org/multipage/server-sent-events.html

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use http::StatusCode;
use log::debug;

use crate::backlog::{Rest, broken_off};
use crate::builder::RequestBuilder;
use crate::engine::{Context, Flow, Next, Readback, Unread};
use crate::error::Error;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::policy::Outcome;
use crate::proto::Violation;
use crate::request::Request;
use crate::response::{Reply, Response};
use crate::session::Retry;

mod parser;
mod stream;

use parser::{Parser, Step};
pub use stream::{Stream, StreamBuilder};

const LAST_EVENT_ID: &str = "Last-Event-ID";

/// An event of an event stream, lent for the duration of a call; [`into_owned`](Self::into_owned)
/// keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    id: Cow<'a, str>,
    name: Cow<'a, str>,
    data: Cow<'a, str>,
}

impl Event<'_> {
    /// Returns the id of this event, or of the last one before it that had one. Empty if there was
    /// none.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the name of the event, which the server sets by `event:`; otherwise it is `message`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the data: the values of all `data:` lines, separated by LF.
    pub fn data(&self) -> &str {
        &self.data
    }

    /// Copies what is only lent.
    pub fn into_owned(self) -> Event<'static> {
        Event {
            id: self.id.into_owned().into(),
            name: self.name.into_owned().into(),
            data: self.data.into_owned().into(),
        }
    }
}

/// The readback of an event stream, which it opens again when it ends; the [module](self) says
/// when. Pass it to [`submit_to`](crate::Engine::submit_to) or
/// [`read_to`](crate::Next::read_to), or [`open`](Self::open) a stream with it.
///
/// What the function that is called with each event returns says how the stream goes on:
///
/// - [`Flow::Stream`]: with the next event.
/// - [`Flow::Pause`]: not before [`resume`](Context::resume). Further events that have arrived
///   already are kept, and nothing more is read.
/// - [`Flow::Finish`]: not at all. The stream is not opened again, and its end is not an error.
/// - [`Flow::Abort`]: not at all, and its end is an error.
///
/// Once the head of a stream has arrived, its [timeouts](crate::Timeouts) change: `idle` to the
/// [silence](Self::silence), and `total` and `low_speed` to none.
///
/// ```
/// use std::time::Duration;
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Events, Flow, Next, Request, Retry, Sim};
///
/// let network = Network::new(1);
/// network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| match request.at.as_secs() {
///     0..10 => Answer::status(503),
///     _ => Answer::status(200)
///         .header("Content-Type", "text/event-stream; charset=utf-8")
///         .chunked(["data: hello\n\n", "data: again\n\n"]),
/// });
/// let mut engine = Engine::<Vec<String>, Sim>::on_network(&network, Config::default())?;
/// let events = Events::new(|seen: &mut Vec<String>, event, cx| {
///     seen.push(event.data().to_owned());
///     match seen.len() {
///         3 => Flow::Abort,
///         _ => Flow::Stream,
///     }
/// });
/// let events = events
///     .retry(Retry::forever().backoff(Duration::from_secs(1), Duration::from_secs(30)))
///     .silence(Duration::from_secs(90))
///     .then(|_, reply, _| {
///         assert_eq!(reply.unwrap_err().kind(), httpstream::ErrorKind::Aborted);
///         Next::done()
///     });
/// engine.submit_to(Request::get("http://10.0.0.1/").accept_events().build()?, events);
/// let mut seen = Vec::new();
/// engine.run(&mut seen)?;
/// assert_eq!(seen, ["hello", "again", "hello"]);
/// # Ok::<(), httpstream::Error>(())
/// ```
#[must_use = "it reads nothing unless it is passed on, for example to `submit_to`"]
pub struct Events<F, R = Unread> {
    on_event: F,
    then: R,
    reader: Reader,
}

impl<F> Events<F> {
    /// Creates a readback that calls `on_event` with each event.
    pub fn new<S>(on_event: F) -> Self
    where
        F: FnMut(&mut S, Event<'_>, &mut Context<'_, S>) -> Flow + 'static,
    {
        Self {
            on_event,
            then: Unread,
            reader: Reader::default(),
        }
    }
}

impl<F, R> Events<F, R> {
    /// Sets what is called when the stream is over for good, and returns the chain's next step:
    ///
    /// - with a response that is not an event stream, such as a 204 or a 404, and its body;
    /// - with an error that is not retried, or for which the attempts are used up; with
    ///   [`Aborted`](ErrorKind::Aborted) if the stream was aborted, and with
    ///   [`TooLarge`](ErrorKind::TooLarge) if an [event](Self::max_event_bytes) was;
    /// - with the head of the last stream, if it has ended and is not opened again.
    ///
    /// [`Next::again`] begins anew, with the id of the last event. By default, the chain ends.
    pub fn then<S, T>(self, then: T) -> Events<F, T>
    where
        T: FnMut(&mut S, Reply<'_>, &mut Context<'_, S>) -> Next<S> + 'static,
    {
        self.then_to(then)
    }

    /// [`then`](Self::then) for a type that implements [`Readback`]. It also chooses what happens
    /// to the body of a response that is not an event stream and is not retried, and may wait
    /// without a request.
    pub fn then_to<T>(self, then: T) -> Events<F, T> {
        Events {
            on_event: self.on_event,
            then,
            reader: self.reader,
        }
    }

    /// Sets when and how often the stream is opened again: by default, [`Retry::forever`]. What is
    /// counted are the attempts since the last event. The [budget](Retry::budget) does not apply.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.reader.retry = Some(Box::new(retry));
        self
    }

    /// Sets the longest silence within a stream, after which it is cut off and opened again. By
    /// default five minutes; [`Duration::MAX`] lifts the limit.
    ///
    /// Any byte breaks the silence. Servers are advised to send a comment every 15 seconds or so:
    /// with one that does, a few times as much finds a dead connection soon. If the server is
    /// silent for longer, lift the limit, and let [TCP keepalive](crate::Route::keepalive) find
    /// dead connections.
    pub fn silence(mut self, most: Duration) -> Self {
        self.reader.silence = most;
        self
    }

    /// Sets the id of the last event, which the program has stored: events without an id have this
    /// one, and it is sent when the stream is opened again. For the first time,
    /// [`open`](Self::open) sends it. A request that is submitted by itself must have it as
    /// `Last-Event-ID`, and then it need not be set here.
    pub fn last_event_id(mut self, id: impl Into<String>) -> Self {
        self.reader.parser.set_last_id(id.into());
        self
    }

    /// Sets the most bytes that an event may have: its name, its data and any line of it together.
    /// By default 1 MiB. A larger one ends the stream for good, with
    /// [`EventTooLarge`](crate::Violation::EventTooLarge).
    pub fn max_event_bytes(mut self, most: usize) -> Self {
        self.reader.max_event_bytes = most;
        self
    }

    /// Returns the step that opens the stream: `request`, with what
    /// [`accept_events`](crate::RequestBuilder::accept_events) sets and with the
    /// [id](Self::last_event_id) of the last event, read by this.
    ///
    /// ```
    /// use httpstream::{Engine, Error, Events, Flow, Request};
    ///
    /// fn follow(engine: &mut Engine<String>, last_id: &str) -> Result<(), Error> {
    ///     let events = Events::new(|last_id: &mut String, event, _| {
    ///         // To go on from here when the program is started again.
    ///         *last_id = event.id().to_owned();
    ///         Flow::Stream
    ///     });
    ///     let news = Request::get("http://news.test/").build()?;
    ///     engine.start(events.last_event_id(last_id).open(news));
    ///     Ok(())
    /// }
    /// ```
    pub fn open<S>(self, request: Request) -> Next<S>
    where
        Self: Readback<S> + 'static,
    {
        let request = self.reader.first(request);
        Next::send(request).read_to(self)
    }
}

impl<F, R> fmt::Debug for Events<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Events").field(&self.reader).finish()
    }
}

impl RequestBuilder {
    /// Asks for an event stream: sets `Accept: text/event-stream` and `Cache-Control: no-store`,
    /// each unless the request has such a field already.
    ///
    /// ```
    /// let request = httpstream::Request::get("http://news.test/").accept_events().build()?;
    /// assert_eq!(request.header("Accept"), Some(&b"text/event-stream"[..]));
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn accept_events(self) -> Self {
        self.header_if_unset("Accept", "text/event-stream")
            .header_if_unset("Cache-Control", "no-store")
    }
}

/// The part of [`Events`] that is the same for all states. There may be ten thousand, so what few
/// of them need is boxed.
struct Reader {
    /// `None` stands for [`Retry::forever`].
    retry: Option<Box<Retry>>,
    silence: Duration,
    max_event_bytes: usize,
    parser: Parser,
    /// The part of the last piece that a pause holds back.
    rest: Option<Box<Rest>>,
    /// The wait that the server has asked for, in milliseconds.
    asked: u32,
    /// The attempts in a row that have brought no event.
    failures: u32,
    reading: Reading,
}

/// What is being read.
#[derive(Clone, Copy, Debug)]
enum Reading {
    Nothing,
    Events {
        since: Instant,
    },
    /// A stream that is aborted, because an event was too large.
    TooLarge {
        seen: usize,
    },
    /// A stream that the program has ended.
    Finished,
    /// A response that is not a stream, and is to be retried.
    Failure,
    /// A response that is not a stream, and goes to `then`.
    Other,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            retry: None,
            silence: Duration::from_secs(300),
            max_event_bytes: 1 << 20,
            parser: Parser::default(),
            rest: None,
            asked: 0,
            failures: 0,
            reading: Reading::Nothing,
        }
    }
}

/// Prints the settings, and neither ids nor data, which may be secret.
impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("retry", &self.retry)
            .field("silence", &self.silence)
            .field("max_event_bytes", &self.max_event_bytes)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

/// The longest wait that a server may ask for by `retry:`, in milliseconds.
const MAX_ASKED: u32 = 3_600_000;

/// A stream that has lasted this long has not failed, even if it brought no event.
const LASTING: Duration = Duration::from_secs(60);

impl Reader {
    /// Begins to read a response.
    fn begin(&mut self, reading: Reading) {
        self.parser.begin();
        self.rest = None;
        self.reading = reading;
    }

    /// Returns how long to wait before the stream is opened again, after so many failures in a row,
    /// or `None` if it is over for good.
    fn wait<S>(&self, failures: u32, why: Outcome<'_>, cx: &Context<'_, S>) -> Option<Duration> {
        let default;
        let retry = match &self.retry {
            Some(retry) => &**retry,
            None => {
                default = Retry::forever();
                &default
            }
        };
        let at = cx.moment();
        let wait = match (self.reading, why.response()) {
            (Reading::Events { .. }, Some(response)) if response.resend_is_safe() => {
                retry.wait_after(failures, &at)
            }
            (Reading::Events { .. }, Some(_)) => None,
            _ => retry.wait(failures, why, &at),
        };
        Some(wait?.max(Duration::from_millis(self.asked.into())))
    }

    /// Counts an attempt that has ended. Returns how many have brought no event.
    fn note_end(&mut self, now: Instant) -> u32 {
        if let Reading::Events { since } = self.reading
            && now.saturating_duration_since(since) >= LASTING
        {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.failures
    }

    /// Returns the request that opens the stream for the first time.
    fn first(&self, request: Request) -> Request {
        let asks = request.edit().accept_events().build();
        let request = asks.unwrap_or(request);
        self.renewed(&request).unwrap_or(request)
    }

    /// Returns the request that opens the stream again with the id of the last event, or `None` if
    /// that is the same one.
    fn renewed(&self, request: &Request) -> Option<Request> {
        let id = self.parser.last_id()?;
        if request.header(LAST_EVENT_ID).unwrap_or_default() == id.as_bytes() {
            return None;
        }
        let plain = || request.edit().without(LAST_EVENT_ID);
        if id.is_empty() {
            return plain().build().ok();
        }
        let named = plain().header(LAST_EVENT_ID, id).build();
        // A field cannot hold control bytes, which an id may have.
        named.or_else(|_| plain().build()).ok()
    }
}

/// Returns whether a response is an event stream, to which only a 200 opens one.
fn is_stream(head: &Response<'_>) -> bool {
    let media_type = head.header("Content-Type").unwrap_or_default();
    let media_type = media_type.split(|&b| b == b';').next().unwrap_or_default();
    head.status() == StatusCode::OK
        && media_type
            .trim_ascii()
            .eq_ignore_ascii_case(b"text/event-stream")
}

impl<F, R> Events<F, R> {
    /// Delivers the events of a piece, until one of them pauses or ends the stream. What is left of
    /// `input` is to be delivered later.
    fn deliver<S>(&mut self, state: &mut S, input: &mut &[u8], cx: &mut Context<'_, S>) -> Flow
    where
        F: FnMut(&mut S, Event<'_>, &mut Context<'_, S>) -> Flow,
    {
        let Self {
            on_event, reader, ..
        } = self;
        loop {
            match reader.parser.next(input, reader.max_event_bytes) {
                Step::NeedsInput => {
                    reader.parser.free();
                    return Flow::Stream;
                }
                Step::Retry { millis } => reader.asked = millis.min(MAX_ASKED),
                Step::TooLarge { seen } => {
                    reader.begin(Reading::TooLarge { seen });
                    return Flow::Abort;
                }
                Step::Event => {
                    reader.failures = 0;
                    let flow = on_event(state, reader.parser.event(), cx);
                    reader.parser.clear_event();
                    match flow {
                        // A canceled chain gets no more events.
                        Flow::Stream | Flow::Buffer if !cx.is_cancelled() => {}
                        Flow::Finish => {
                            reader.begin(Reading::Finished);
                            return Flow::Finish;
                        }
                        flow => return flow,
                    }
                }
            }
        }
    }

    /// Delivers the events that a pause has held back, although the stream has ended: its policy
    /// has shown it only then, and a pause does not stop such a stream. Returns whether it was
    /// aborted.
    fn deliver_rest<S>(&mut self, state: &mut S, cx: &mut Context<'_, S>) -> bool
    where
        F: FnMut(&mut S, Event<'_>, &mut Context<'_, S>) -> Flow,
    {
        let Some(rest) = self.reader.rest.take() else {
            return false;
        };
        let mut input = rest.bytes();
        loop {
            match self.deliver(state, &mut input, cx) {
                Flow::Pause => {}
                flow => return flow == Flow::Abort,
            }
        }
    }

    /// Passes on the step that `then` has returned. If it begins the stream anew, it does so with
    /// the id of the last event.
    fn follow<S>(&mut self, next: Next<S>, cx: &Context<'_, S>) -> Next<S> {
        let renew = |request| self.reader.renewed(request);
        match cx.request().filter(|_| next.is_again()).and_then(renew) {
            Some(request) => next.again_with(request),
            None => next,
        }
    }
}

impl<S, F, R> Readback<S> for Events<F, R>
where
    F: FnMut(&mut S, Event<'_>, &mut Context<'_, S>) -> Flow,
    R: Readback<S>,
{
    fn on_interim(&mut self, state: &mut S, head: &Response<'_>, cx: &mut Context<'_, S>) {
        if self.then.reads_heads() {
            self.then.on_interim(state, head, cx);
        }
    }

    fn on_head(&mut self, state: &mut S, head: &Response<'_>, cx: &mut Context<'_, S>) -> Flow {
        let reader = &mut self.reader;
        if is_stream(head) {
            reader.begin(Reading::Events { since: cx.now() });
            if reader.parser.last_id().is_none()
                && let Some(id) = cx.request().and_then(|it| it.header_str(LAST_EVENT_ID))
            {
                reader.parser.set_last_id(id);
            }
            let silence = reader.silence;
            cx.timeouts(|timeouts| {
                timeouts.idle = Some(silence);
                (timeouts.total, timeouts.low_speed) = (None, None);
            });
            return Flow::Stream;
        }
        reader.begin(Reading::Failure);
        let failures = reader.failures.saturating_add(1);
        if reader.wait(failures, Outcome::from(head), cx).is_some() {
            // Its body may say how long to wait.
            return Flow::Buffer;
        }
        reader.reading = Reading::Other;
        if self.then.reads_heads() {
            self.then.on_head(state, head, cx)
        } else {
            Flow::Buffer
        }
    }

    fn on_data(&mut self, state: &mut S, data: &[u8], cx: &mut Context<'_, S>) -> Flow {
        match self.reader.reading {
            Reading::Events { .. } => {
                let mut input = data;
                let flow = self.deliver(state, &mut input, cx);
                if flow == Flow::Pause {
                    self.reader.rest = Rest::of(input);
                }
                flow
            }
            Reading::Other => self.then.on_data(state, data, cx),
            Reading::Nothing | Reading::TooLarge { .. } | Reading::Finished | Reading::Failure => {
                Flow::Stream
            }
        }
    }

    fn on_resume(&mut self, state: &mut S, cx: &mut Context<'_, S>) -> Flow {
        if let Reading::Other = self.reader.reading {
            return self.then.on_resume(state, cx);
        }
        let Some(rest) = self.reader.rest.take() else {
            return Flow::Stream;
        };
        let mut input = rest.bytes();
        let flow = self.deliver(state, &mut input, cx);
        let left = input.len();
        if flow == Flow::Pause {
            self.reader.rest = rest.leave(left);
        }
        flow
    }

    fn on_due(&mut self, state: &mut S, cx: &mut Context<'_, S>) -> Next<S> {
        let next = self.then.on_due(state, cx);
        self.follow(next, cx)
    }

    fn on_retry(
        &mut self,
        state: &mut S,
        why: Outcome<'_>,
        after: Duration,
        cx: &mut Context<'_, S>,
    ) {
        self.then.on_retry(state, why, after, cx);
    }

    fn on_reply(&mut self, state: &mut S, reply: Reply<'_>, cx: &mut Context<'_, S>) -> Next<S> {
        let is_aborted = reply.is_ok() && self.deliver_rest(state, cx);
        let reply = match self.reader.reading {
            Reading::TooLarge { seen } => {
                let limit = self.reader.max_event_bytes;
                broken_off(reply, Violation::EventTooLarge { limit, seen })
            }
            _ => reply,
        };
        // A chain that is ended from outside does not go on.
        let is_finished = matches!(self.reader.reading, Reading::Finished);
        let wait = match cx.is_cancelled() || is_aborted || is_finished {
            true => None,
            false => {
                let failures = self.reader.note_end(cx.now());
                self.reader.wait(failures, Outcome::from(&reply), cx)
            }
        };
        self.reader.begin(Reading::Nothing);
        let Some((wait, request)) = wait.zip(cx.request()) else {
            self.reader.failures = 0;
            let next = self.then.on_reply(state, reply, cx);
            return self.follow(next, cx);
        };
        debug!(
            "{} {:?}: event stream to be opened again in {wait:?}: {}",
            request.origin(),
            cx.id(),
            reply
                .as_ref()
                .map_or_else(Error::to_string, |response| response.status().to_string())
        );
        let next = match self.reader.renewed(request) {
            Some(request) => Next::instead(request),
            None => Next::again(),
        };
        next.after(wait)
    }
}

#[cfg(test)]
mod tests;
