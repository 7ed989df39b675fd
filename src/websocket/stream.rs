//! A WebSocket as tasks read it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use http::StatusCode;

use crate::engine::{Context, Flow, Local, Next, Readback};
use crate::error::{Error, Gone};
use crate::request::Request;
use crate::response::{Reply, Response};
use crate::websocket::sender::Shared;
use crate::websocket::{Message, WebSocket, WebSocketSender};

/// How many bytes of messages wait to be read by a task, at least, before no more are received.
const MAX_WAITING: usize = 256 << 10;

/// What a message counts at least, so that empty ones are bounded as well.
const LEAST: usize = 64;

/// The messages of a WebSocket, for tasks.
///
/// Messages wait until [`next`](Self::next) takes them. When 256 KiB wait, no more are received,
/// and a server that sends more has to wait. Dropping the stream drops the messages that arrive
/// from then on. When its senders are dropped as well, the WebSocket is closed with code 1000.
///
/// ```
/// use httpstream::{Engine, Error, Local, Message, Request, websocket::Stream};
///
/// async fn echo(http: Local<()>) -> Result<(), Error> {
///     let request = Request::websocket("ws://127.0.0.1:1/chat").build()?;
///     let (sender, mut messages) = Stream::open(&http, request).await?;
///     while let Some(message) = messages.next().await {
///         // Messages that come faster than they can be sent back wait at the server.
///         if sender.room().await.is_err() || sender.send(message?).is_err() {
///             break;
///         }
///     }
///     Ok(())
/// }
///
/// let mut engine = Engine::<()>::new()?;
/// let http = engine.local();
/// engine.spawn(async {
///     if let Err(error) = echo(http).await {
///         eprintln!("{error:#}");
///     }
/// });
/// engine.run(&mut ())?;
/// # Ok::<(), Error>(())
/// ```
pub struct Stream {
    inbox: Rc<RefCell<Inbox>>,
    shared: Arc<Shared>,
    /// Resumes the response, or cancels it.
    act: Box<dyn Fn(Act)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Resume,
    Cancel,
}

/// What the readback and the stream share.
#[derive(Default)]
struct Inbox {
    messages: VecDeque<Message<'static>>,
    /// What the messages count.
    waiting: usize,
    stage: Stage,
    /// The readback has paused because too much waits.
    is_paused: bool,
    /// The stream has been dropped.
    is_closed: bool,
    was_open: bool,
    task: Option<Waker>,
}

#[derive(Default)]
enum Stage {
    #[default]
    Opening,
    Open,
    /// The WebSocket has ended, perhaps with an error that has not been told yet.
    Over(Option<Error>),
}

impl Inbox {
    fn wake(inbox: &RefCell<Self>) {
        // Not borrowed any more: the waker may run code that reads the stream.
        let task = inbox.borrow_mut().task.take();
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// What a message counts.
fn weight(message: &Message<'_>) -> usize {
    let len = match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
        Message::Close(_, reason) => reason.len(),
    };
    len.max(LEAST)
}

impl Stream {
    /// Opens a WebSocket with a request of [`Request::websocket`], and completes when it is open.
    /// Dropping the future cancels the request.
    ///
    /// To offer subprotocols, add the field `Sec-WebSocket-Protocol` to the request.
    ///
    /// # Errors
    /// Those of the request; [`ErrorKind::Status`](crate::ErrorKind::Status) if the server answers
    /// with another status than 101; [`ErrorKind::Gone`](crate::ErrorKind::Gone) if the engine is
    /// dropped first.
    pub async fn open<S: 'static>(
        local: &Local<S>,
        request: Request,
    ) -> Result<(WebSocketSender, Self), Error> {
        let inbox = Rc::new(RefCell::new(Inbox::default()));
        let socket = WebSocket::new(deliver::<S>(&inbox)).then(end::<S>(&inbox));
        let (sender, shared) = (socket.sender(), Arc::clone(socket.shared()));
        let receiver = Receiver {
            socket,
            inbox: Rc::clone(&inbox),
        };
        let id = local.start(Next::send(request).read_to(receiver));
        let local = local.clone();
        let stream = Self {
            inbox,
            shared,
            act: Box::new(move |act| match act {
                Act::Resume => local.resume(id),
                Act::Cancel => local.cancel(id),
            }),
        };
        poll_fn(|cx| stream.inbox.borrow_mut().poll_opened(cx.waker())).await?;
        Ok((sender, stream))
    }

    /// Waits for the next message. The last one is the [`Close`](Message::Close) of the server,
    /// unless the WebSocket ends otherwise. Returns `None` when it is over.
    ///
    /// # Errors
    /// That which has ended the WebSocket, once, after all messages.
    pub async fn next(&mut self) -> Option<Result<Message<'static>, Error>> {
        poll_fn(|cx| {
            let mut inbox = self.inbox.borrow_mut();
            let Some(message) = inbox.messages.pop_front() else {
                return match &mut inbox.stage {
                    Stage::Over(error) => Poll::Ready(error.take().map(Err)),
                    Stage::Opening | Stage::Open => {
                        inbox.task = Some(cx.waker().clone());
                        Poll::Pending
                    }
                };
            };
            inbox.waiting -= weight(&message);
            let is_resumed = inbox.waiting <= MAX_WAITING / 2 && inbox.is_paused;
            inbox.is_paused &= !is_resumed;
            drop(inbox);
            if is_resumed {
                (self.act)(Act::Resume);
            }
            Poll::Ready(Some(Ok(message)))
        })
        .await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inbox = self.inbox.borrow_mut();
        inbox.is_closed = true;
        let messages = std::mem::take(&mut inbox.messages);
        let was_paused = std::mem::take(&mut inbox.is_paused);
        let act = match inbox.stage {
            Stage::Opening => Some(Act::Cancel),
            Stage::Open if was_paused => Some(Act::Resume),
            Stage::Open | Stage::Over(_) => None,
        };
        drop(inbox);
        drop(messages);
        if let Some(act) = act {
            (self.act)(act);
        }
        self.shared.on_unread();
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl Inbox {
    fn poll_opened(&mut self, waker: &Waker) -> Poll<Result<(), Error>> {
        match &mut self.stage {
            Stage::Opening => {
                self.task = Some(waker.clone());
                Poll::Pending
            }
            Stage::Open => Poll::Ready(Ok(())),
            // It may have been open, and messages may be left.
            Stage::Over(error) if !self.was_open => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Ready(Ok(())),
            },
            Stage::Over(_) => Poll::Ready(Ok(())),
        }
    }
}

/// Returns what queues messages for the task.
fn deliver<S>(
    inbox: &Rc<RefCell<Inbox>>,
) -> impl FnMut(&mut S, Message<'_>, &mut Context<'_, S>) -> Flow + 'static {
    let inbox = Rc::clone(inbox);
    move |_, message, _| {
        let mut to = inbox.borrow_mut();
        if to.is_closed {
            return Flow::Discard;
        }
        to.waiting += weight(&message);
        to.messages.push_back(message.into_owned());
        to.is_paused = to.waiting >= MAX_WAITING;
        let flow = match to.is_paused {
            true => Flow::Pause,
            false => Flow::Stream,
        };
        drop(to);
        Inbox::wake(&inbox);
        flow
    }
}

/// Returns what tells the task of the end.
fn end<S>(
    inbox: &Rc<RefCell<Inbox>>,
) -> impl FnMut(&mut S, Reply<'_>, &mut Context<'_, S>) -> Next<S> + 'static {
    let inbox = Rc::clone(inbox);
    move |_, reply, _| {
        let error = match reply {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => None,
            Ok(response) => Some(Error::of_status(&response)),
            Err(error) => Some(error),
        };
        inbox.borrow_mut().stage = Stage::Over(error);
        Inbox::wake(&inbox);
        Next::done()
    }
}

/// The readback of a stream: a WebSocket that tells its task when it is open.
struct Receiver<W> {
    socket: W,
    inbox: Rc<RefCell<Inbox>>,
}

impl<S, W: Readback<S>> Readback<S> for Receiver<W> {
    fn on_head(&mut self, state: &mut S, head: &Response<'_>, cx: &mut Context<'_, S>) -> Flow {
        let flow = self.socket.on_head(state, head, cx);
        if head.status() == StatusCode::SWITCHING_PROTOCOLS {
            let mut inbox = self.inbox.borrow_mut();
            (inbox.stage, inbox.was_open) = (Stage::Open, true);
            drop(inbox);
            Inbox::wake(&self.inbox);
        }
        flow
    }

    fn on_data(&mut self, state: &mut S, data: &[u8], cx: &mut Context<'_, S>) -> Flow {
        self.socket.on_data(state, data, cx)
    }

    fn on_resume(&mut self, state: &mut S, cx: &mut Context<'_, S>) -> Flow {
        self.socket.on_resume(state, cx)
    }

    fn on_reply(&mut self, state: &mut S, reply: Reply<'_>, cx: &mut Context<'_, S>) -> Next<S> {
        self.socket.on_reply(state, reply, cx)
    }
}

impl<W> Drop for Receiver<W> {
    /// The chain may end without a reply: by a panic of a policy, or with its engine.
    fn drop(&mut self) {
        let mut inbox = self.inbox.borrow_mut();
        if let Stage::Opening | Stage::Open = inbox.stage {
            inbox.stage = Stage::Over(Some(Gone.into()));
        }
        drop(inbox);
        Inbox::wake(&self.inbox);
    }
}
