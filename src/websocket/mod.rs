//! WebSockets (RFC 6455), on a connection whose server has switched protocols.
//!
//! [`Request::websocket`](crate::Request::websocket) opens a WebSocket, a [`WebSocket`] reads its
//! messages, and a [`WebSocketSender`] sends messages from anywhere, also before it is open. Tasks
//! use a [`Stream`] instead of the `WebSocket`.
//!
//! ```
//! use std::time::Duration;
//! use httpstream::{
//!     Context, Engine, Flow, Message, Next, Reply, Request, WebSocket, WebSocketSender,
//! };
//!
//! struct Bot { chat: WebSocketSender }
//!
//! impl Bot {
//!     fn on_message(&mut self, message: Message<'_>, _: &mut Context<'_, Self>) -> Flow {
//!         if let Message::Text(text) = message {
//!             // It goes out in this turn. An error means that the WebSocket is over, or that too
//!             // much waits to be sent.
//!             let _ = self.chat.send(text.to_uppercase());
//!         }
//!         Flow::Stream
//!     }
//!
//!     /// Called once, when the WebSocket is over or could not be opened.
//!     fn on_over(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
//!         match reply {
//!             // Both sides have closed, or the server has answered with another status than 101.
//!             Ok(_) => Next::done(),
//!             // Opens it again, with the same readback and sender.
//!             Err(_) if cx.failures() < 3 => Next::again().after(Duration::from_secs(1)),
//!             Err(_) => Next::done(),
//!         }
//!     }
//! }
//!
//! let chat = WebSocket::new(Bot::on_message).then(Bot::on_over);
//! let mut bot = Bot { chat: chat.sender() };
//! let mut engine = Engine::<Bot>::new()?;
//! engine.submit_to(Request::websocket("ws://127.0.0.1:1/chat").build()?, chat);
//! # drop(engine); let mut engine = Engine::<Bot>::new()?;
//! engine.run(&mut bot)?;
//! # Ok::<(), httpstream::Error>(())
//! ```
//!
//! # What is checked
//! The handshake, each frame, and the UTF-8 of texts. A server that breaks the protocol ends the
//! WebSocket with an error whose source is the [`Violation`]. Extensions are not offered, so
//! messages are not compressed.
//!
//! # Its end
//! Either side may close: the server, which shows as [`Message::Close`], or the program, by
//! [`WebSocketSender::close`]. The Close frame of one side is answered by that of the other, and
//! the connection is closed. This is the clean end, for which `then` receives the response, with
//! status 101. In all other cases, it receives an error.
//!
//! # Memory
//! A silent WebSocket holds no buffers. Received messages are lent from the engine's buffers if
//! they arrive in one piece. Messages to be sent are queued up to
//! [`max_queued`](WebSocket::max_queued), and masked while they are written.

mod frame;
mod handshake;
mod message;
mod reader;
mod sender;
mod stream;
mod violation;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::backlog::Rest;
use crate::engine::{Context, Flow, Next, Readback, Unread};
use crate::id::ChainId;
use crate::policy::Outcome;
use crate::request::Request;
use crate::response::{Reply, Response};
use handshake::PROTOCOL;
use reader::{Event, Reader};
use sender::{Outgoing, Shared};

pub use message::Message;
pub use sender::{SendError, WebSocketSender};
pub use stream::Stream;
pub use violation::Violation;

/// The default of [`WebSocket::max_message_bytes`].
const MAX_MESSAGE: usize = 16 << 20;

/// The default of [`WebSocket::max_queued`].
const MAX_QUEUED: usize = 1 << 20;

/// The readback of a WebSocket: passes its messages to a closure or a method, answers pings, and
/// takes part in the closing handshake. See the [module](self).
///
/// `on_message` returns what happens to the messages that follow: [`Flow::Stream`] delivers them,
/// [`Flow::Pause`] holds them back until [`Context::resume`], and [`Flow::Discard`] drops them, but
/// answers pings. [`Flow::Finish`] closes the WebSocket with code 1000, without waiting for the
/// server, and [`Flow::Abort`] ends it without a Close frame.
///
/// ```
/// use httpstream::sim::{Answer, ConnectionId, Incoming, Network, Server};
/// use httpstream::{Config, Context, Engine, Flow, Message, Next, Reply, Request, Sim, WebSocket};
///
/// # struct Greeter { network: Network }
/// # impl Server for Greeter {
/// #     fn on_request(&mut self, _: &Incoming) -> Answer {
/// #         Answer::status(101)
/// #             .header("Upgrade", "websocket")
/// #             .header("Connection", "Upgrade")
/// #             .header("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
/// #     }
/// #     fn on_data(&mut self, connection: ConnectionId, _: &[u8]) {
/// #         self.network.push(connection, b"\x81\x05hello\x88\x02\x03\xe8");
/// #     }
/// # }
/// # let network = Network::new(1);
/// # network.serve("10.0.0.1:80".parse().unwrap(), Greeter { network: network.clone() });
/// // The server greets, and closes.
/// let mut engine = Engine::<Vec<String>, Sim>::on_network(&network, Config::default())?;
/// let greetings = WebSocket::new(
///     |heard: &mut Vec<String>, message: Message<'_>, _: &mut Context<'_, _>| {
///         heard.push(format!("{message:?}"));
///         Flow::Stream
///     },
/// );
/// # greetings.sender().send("").unwrap();
/// let greetings = greetings.then(|heard: &mut Vec<String>, reply: Reply<'_>, _: &mut _| {
///     heard.push(reply.map_or_else(|error| error.to_string(), |it| it.status().to_string()));
///     Next::done()
/// });
/// let request = Request::websocket("ws://10.0.0.1/");
/// # let request = request.header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
/// engine.submit_to(request.build()?, greetings);
/// let mut heard = Vec::new();
/// engine.run(&mut heard)?;
/// assert_eq!(heard, ["Text(\"hello\")", "Close(1000, \"\")", "101 Switching Protocols"]);
/// # Ok::<(), httpstream::Error>(())
/// ```
#[must_use = "it does nothing unless it is given to `submit_to` or `read_to`"]
pub struct WebSocket<F, R = Unread> {
    on_message: F,
    then: R,
    protocols: Option<Box<str>>,
    ping_every: Option<Duration>,
    inner: Inner,
}

/// What does not depend on the types of the closures.
struct Inner {
    stage: Stage,
    reader: Reader,
    /// What arrived behind the message after which the program paused.
    rest: Option<Box<Rest>>,
    shared: Arc<Shared>,
}

/// The stages of a WebSocket.
///
/// ```text
/// Opening ──► Open ──► Closed
///    ▲         └──┴──► Failed
///    └── the readback is used for another request
/// ```
#[derive(Debug)]
enum Stage {
    /// No 101 has arrived, or the WebSocket is over.
    Opening,
    Open {
        /// Messages are not delivered any more.
        is_discarding: bool,
        /// The chain that sends pings.
        pings: Option<ChainId>,
    },
    /// The server has closed, and the program has been told.
    Closed,
    /// The server has broken the protocol.
    Failed(Box<Violation>),
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl<F> WebSocket<F> {
    /// Creates a readback that passes each message to `on_message`, a closure or a method of the
    /// state. What follows its end is set by [`then`](Self::then).
    pub fn new<S>(on_message: F) -> Self
    where
        F: FnMut(&mut S, Message<'_>, &mut Context<'_, S>) -> Flow + 'static,
    {
        Self {
            on_message,
            then: Unread,
            protocols: None,
            ping_every: None,
            inner: Inner {
                stage: Stage::Opening,
                reader: Reader::new(MAX_MESSAGE),
                rest: None,
                shared: Shared::new(MAX_QUEUED),
            },
        }
    }
}

impl<F, R> WebSocket<F, R> {
    /// Returns a sender, which can be used before the WebSocket is open.
    pub fn sender(&self) -> WebSocketSender {
        WebSocketSender::new(&self.inner.shared)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Sets what is called once, when the WebSocket is over: with the response, of status 101, if
    /// both sides have closed it, and with an error otherwise. If it could not be opened, this is
    /// the response to the request, of another status, or the error.
    ///
    /// What `then` returns is the chain's next step. [`Next::again`] opens the WebSocket again,
    /// with the same senders; what they had queued is dropped. The default ends the chain.
    pub fn then<S, T>(self, then: T) -> WebSocket<F, T>
    where
        T: FnMut(&mut S, Reply<'_>, &mut Context<'_, S>) -> Next<S> + 'static,
    {
        self.then_to(then)
    }

    /// [`then`](Self::then) for a type that implements [`Readback`]. It reads the responses whose
    /// status is not 101 altogether, and the waits that it returns.
    pub fn then_to<T>(self, then: T) -> WebSocket<F, T> {
        let Self {
            on_message,
            then: _,
            protocols,
            ping_every,
            inner,
        } = self;
        WebSocket {
            on_message,
            then,
            protocols,
            ping_every,
            inner,
        }
    }

    /// Offers subprotocols, in order of preference and separated by commas: `"chat.v2, chat"`. The
    /// server chooses one of them or none, which [`WebSocketSender::protocol`] returns. A choice
    /// that was not offered is an error.
    ///
    /// They are added to a request without the field `Sec-WebSocket-Protocol`. The default is none.
    pub fn protocols(mut self, names: &str) -> Self {
        self.protocols = Some(names.into());
        self
    }

    /// Limits the size of a message that is received, in bytes. A larger one ends the WebSocket
    /// with [`TooLarge`](crate::ErrorKind::TooLarge) as soon as its length is known. The default is
    /// 16 MiB.
    pub fn max_message_bytes(mut self, most: usize) -> Self {
        self.inner.reader.set_max_message(most);
        self
    }

    /// Limits what waits to be sent, in bytes: see [`WebSocketSender::send`]. The default is 1 MiB.
    pub fn max_queued(self, most: usize) -> Self {
        self.inner.shared.lock().max_queued = most.max(1);
        self
    }

    /// Sends a ping each time that this much time has passed since the WebSocket was opened, which
    /// keeps the devices on its way from forgetting a silent connection. The default is none.
    ///
    /// A server answers pings, so a WebSocket on which nothing arrives for longer is dead:
    /// `.timeouts(|t| t.idle = Some(…))` of the request ends it.
    pub fn ping_every(mut self, period: Duration) -> Self {
        self.ping_every = Some(period);
        self
    }
}

impl Inner {
    /// Begins to use a connection that has switched protocols.
    fn open<S>(
        &mut self,
        head: &Response<'_>,
        ping_every: Option<Duration>,
        cx: &mut Context<'_, S>,
    ) {
        let at = cx.moment();
        let keys = [at.random(), at.random()];
        self.reader.reset();
        self.rest = None;
        self.shared.open(keys, head.header_str(PROTOCOL));
        let is_tunnel = cx.write_from(cx.id(), Outgoing(Arc::clone(&self.shared)));
        debug_assert!(is_tunnel, "a 101 makes the connection a tunnel");
        let pings = ping_every.map(|period| {
            let shared = Arc::clone(&self.shared);
            let pings = Next::wait().after(period);
            cx.start(pings.read_to(Pings { shared, period }))
        });
        self.stage = Stage::Open {
            is_discarding: false,
            pings,
        };
    }

    /// Ends the WebSocket because the server has broken the protocol. Nothing more is read.
    fn fail<S>(&mut self, violation: Violation, cx: &mut Context<'_, S>) -> Flow {
        let is_in_order = self.shared.close_now(violation.close_code());
        self.leave(Stage::Failed(Box::new(violation)), cx);
        // A connection that is closed with unread bytes is reset, and the server might not see the
        // Close frame. So it is given the time to answer, unless the frame cannot be sent.
        match is_in_order && cx.write(cx.id(), &[]) == Some(0) {
            true => Flow::Discard,
            false => Flow::Finish,
        }
    }

    /// Sets the stage, and ends the pings.
    fn leave<S>(&mut self, stage: Stage, cx: &mut Context<'_, S>) -> Stage {
        let former = std::mem::replace(&mut self.stage, stage);
        if let Stage::Open {
            pings: Some(id), ..
        } = former
        {
            cx.cancel(id);
        }
        former
    }

    /// Ends the WebSocket, and returns the outcome for the program.
    fn end<'r, S>(&mut self, reply: Reply<'r>, cx: &mut Context<'_, S>) -> Reply<'r> {
        self.shared.end();
        self.rest = None;
        self.reader.reset();
        let violation = match (self.leave(Stage::Opening, cx), &reply) {
            (Stage::Opening | Stage::Closed, _) | (Stage::Open { .. }, Err(_)) => return reply,
            (Stage::Open { .. }, Ok(_)) => Violation::NoClose,
            (Stage::Failed(violation), _) => *violation,
        };
        let kind = violation.kind();
        match reply {
            Ok(response) => {
                let error = crate::Error::unusable(kind, violation);
                Err(error.placed_at(response.circumstances()))
            }
            Err(error) if error.kind() == crate::ErrorKind::Cancelled => Err(error),
            Err(error) => Err(error.because(kind, violation)),
        }
    }
}

impl<F, R> WebSocket<F, R> {
    /// Reads what has arrived, up to the message after which the program wants no more. What is
    /// left of `input` is to be read later.
    fn read<S>(&mut self, state: &mut S, input: &mut &[u8], cx: &mut Context<'_, S>) -> Flow
    where
        F: FnMut(&mut S, Message<'_>, &mut Context<'_, S>) -> Flow,
    {
        let inner = &mut self.inner;
        loop {
            let Stage::Open { is_discarding, .. } = &mut inner.stage else {
                return Flow::Discard;
            };
            let message = match inner.reader.next(input) {
                Ok(None) => return Flow::Stream,
                Ok(Some(Event::Ping(payload))) => {
                    inner.shared.pong(payload);
                    continue;
                }
                Ok(Some(Event::Pong)) => continue,
                Ok(Some(Event::Text(_) | Event::Binary(_))) if *is_discarding => continue,
                Ok(Some(Event::Text(text))) => Message::Text(text.into()),
                Ok(Some(Event::Binary(bytes))) => Message::Binary(bytes.into()),
                Ok(Some(Event::Close(code, reason))) => {
                    inner.shared.close_now(code);
                    let reason = match *is_discarding {
                        true => None,
                        false => Some(reason.to_owned()),
                    };
                    inner.leave(Stage::Closed, cx);
                    if let Some(reason) = reason {
                        let message = Message::Close(code, reason.into());
                        if (self.on_message)(state, message, cx) == Flow::Abort {
                            return Flow::Abort;
                        }
                    }
                    // Both sides have closed.
                    return Flow::Finish;
                }
                Err(violation) => return inner.fail(violation, cx),
            };
            let flow = (self.on_message)(state, message, cx);
            if cx.is_cancelled() {
                return Flow::Stream;
            }
            match flow {
                Flow::Stream | Flow::Buffer => {}
                Flow::Discard => *is_discarding = true,
                Flow::Pause | Flow::Abort => return flow,
                Flow::Finish => {
                    inner.shared.close_now(1000);
                    inner.leave(Stage::Closed, cx);
                    return Flow::Finish;
                }
            }
        }
    }
}

impl<S, F, R> Readback<S> for WebSocket<F, R>
where
    F: FnMut(&mut S, Message<'_>, &mut Context<'_, S>) -> Flow,
    R: Readback<S>,
{
    fn prepare(&self, request: &Request) -> Option<Request> {
        let names = self.protocols.as_deref()?;
        if request.header(PROTOCOL).is_some() {
            return None;
        }
        let offering = request.edit().header(PROTOCOL, names).build();
        match offering {
            Ok(request) => Some(request),
            Err(error) => {
                log::warn!(
                    "{}: subprotocols cannot be offered ({error})",
                    request.origin()
                );
                None
            }
        }
    }

    fn on_interim(&mut self, state: &mut S, head: &Response<'_>, cx: &mut Context<'_, S>) {
        self.then.on_interim(state, head, cx);
    }

    fn on_head(&mut self, state: &mut S, head: &Response<'_>, cx: &mut Context<'_, S>) -> Flow {
        if head.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.inner.open(head, self.ping_every, cx);
            return Flow::Stream;
        }
        match self.then.reads_heads() {
            true => self.then.on_head(state, head, cx),
            false => Flow::Buffer,
        }
    }

    fn on_data(&mut self, state: &mut S, data: &[u8], cx: &mut Context<'_, S>) -> Flow {
        if let Stage::Opening = self.inner.stage {
            return self.then.on_data(state, data, cx);
        }
        let mut input = data;
        let flow = self.read(state, &mut input, cx);
        if flow == Flow::Pause {
            self.inner.rest = Rest::of(input);
        }
        flow
    }

    fn on_resume(&mut self, state: &mut S, cx: &mut Context<'_, S>) -> Flow {
        if let Stage::Opening = self.inner.stage {
            return self.then.on_resume(state, cx);
        }
        let Some(rest) = self.inner.rest.take() else {
            return Flow::Stream;
        };
        let mut input = rest.bytes();
        let flow = self.read(state, &mut input, cx);
        let left = input.len();
        if flow == Flow::Pause {
            self.inner.rest = rest.leave(left);
        }
        flow
    }

    fn on_due(&mut self, state: &mut S, cx: &mut Context<'_, S>) -> Next<S> {
        self.then.on_due(state, cx)
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
        let reply = self.inner.end(reply, cx);
        self.then.on_reply(state, reply, cx)
    }
}

impl<F, R> fmt::Debug for WebSocket<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket")
            .field("stage", &self.inner.stage)
            .finish_non_exhaustive()
    }
}

/// A chain that sends pings until the WebSocket is over.
struct Pings {
    shared: Arc<Shared>,
    period: Duration,
}

impl<S> Readback<S> for Pings {
    fn on_due(&mut self, _: &mut S, _: &mut Context<'_, S>) -> Next<S> {
        if self.shared.is_over() {
            return Next::done();
        }
        // If too much is queued, the connection is not silent.
        let _ = self.shared.ping(&[]);
        Next::wait().after(self.period)
    }

    fn on_reply(&mut self, _: &mut S, _: Reply<'_>, _: &mut Context<'_, S>) -> Next<S> {
        Next::done()
    }
}
