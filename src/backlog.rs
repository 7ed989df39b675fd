//! What has arrived of a stream and is not delivered yet: the rest of a piece whose readback was
//! paused, and the parts that wait for a task.
//!
//! Both are bounded. The rest is at most what one read brought, and a queue of parts pauses its
//! response when it is full.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::engine::{Flow, Local};
use crate::error::{Error, ErrorKind, Gone};
use crate::id::ChainId;
use crate::proto::Violation;
use crate::response::Reply;

/// The rest of a piece of a body, which a readback delivers after a pause.
#[derive(Debug)]
pub(crate) struct Rest {
    piece: Vec<u8>,
    delivered: usize,
}

impl Rest {
    /// Keeps a rest, if there is one.
    pub(crate) fn of(rest: &[u8]) -> Option<Box<Self>> {
        let keep = || {
            Box::new(Self {
                piece: rest.to_vec(),
                delivered: 0,
            })
        };
        (!rest.is_empty()).then(keep)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.piece[self.delivered..]
    }

    /// Keeps the last `left` bytes, if there are any.
    pub(crate) fn leave(mut self: Box<Self>, left: usize) -> Option<Box<Self>> {
        self.delivered = self.piece.len() - left;
        (left > 0).then_some(self)
    }
}

/// Returns the outcome of a response that its readback has broken off because of `why`. It was
/// canceled if that came first.
pub(crate) fn broken_off(reply: Reply<'_>, why: Violation) -> Reply<'_> {
    Err(match reply {
        Err(error) if error.kind() == ErrorKind::Aborted => error.into_violation(why),
        Err(error) => error,
        Ok(response) => Error::from_violation(why, response.circumstances()),
    })
}

/// A queue is full when it holds this many parts, ...
const MAX_PARTS: usize = 64;

/// ... or when they have this many bytes together.
const MAX_BYTES: usize = 64 << 10;

/// The parts that wait for a task, and the state of the chain that they come from.
struct Shared<T> {
    parts: VecDeque<T>,
    bytes: usize,
    stage: Stage,
    waker: Option<Waker>,
}

enum Stage {
    Flowing,
    /// The queue is full, so the response is paused.
    Paused,
    /// No more parts will come. The error is delivered after those that are there.
    Over(Option<Box<Error>>),
}

/// The readback's end of a queue. If it is dropped before [`end`](Self::end), the engine is gone.
pub(crate) struct Feeder<T>(Rc<RefCell<Shared<T>>>);

impl<T> Feeder<T> {
    /// Appends a part of about `bytes` bytes. Returns [`Flow::Pause`] if the queue is full now.
    pub(crate) fn push(&self, part: T, bytes: usize) -> Flow {
        let mut shared = self.0.borrow_mut();
        shared.parts.push_back(part);
        shared.bytes = shared.bytes.saturating_add(bytes);
        let is_full = shared.parts.len() >= MAX_PARTS || shared.bytes >= MAX_BYTES;
        if is_full && let Stage::Flowing = shared.stage {
            shared.stage = Stage::Paused;
        }
        let waker = shared.waker.take();
        drop(shared);
        waker.into_iter().for_each(Waker::wake);
        if is_full { Flow::Pause } else { Flow::Stream }
    }

    /// Ends the queue, with the reason unless the stream has ended as it should.
    pub(crate) fn end(&self, why: Option<Error>) {
        let mut shared = self.0.borrow_mut();
        if let Stage::Over(_) = shared.stage {
            return;
        }
        shared.stage = Stage::Over(why.map(Box::new));
        let waker = shared.waker.take();
        drop(shared);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T> Drop for Feeder<T> {
    fn drop(&mut self) {
        self.end(Some(Gone.into()));
    }
}

/// The task's end of a queue. Dropping it ends the chain.
pub(crate) struct Taker<T> {
    shared: Rc<RefCell<Shared<T>>>,
    chain: Box<dyn Chain>,
}

/// A chain of an engine, whose state's type is not known here.
trait Chain {
    fn resume(&self);
    fn cancel(&self);
}

impl<S> Chain for (Local<S>, ChainId) {
    fn resume(&self) {
        self.0.resume(self.1);
    }

    fn cancel(&self) {
        self.0.cancel(self.1);
    }
}

/// Creates a queue for the parts of a chain, which `start` starts with a readback that feeds them.
pub(crate) fn queue<S: 'static, T>(
    local: &Local<S>,
    start: impl FnOnce(Feeder<T>) -> ChainId,
) -> Taker<T> {
    let shared = Rc::new(RefCell::new(Shared {
        parts: VecDeque::new(),
        bytes: 0,
        stage: Stage::Flowing,
        waker: None,
    }));
    let chain = start(Feeder(Rc::clone(&shared)));
    Taker {
        shared,
        chain: Box::new((local.clone(), chain)),
    }
}

impl<T> Taker<T> {
    /// Waits for the next part. Returns `None` after the last one, and after an error.
    pub(crate) async fn next(&mut self) -> Option<Result<T, Error>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, Error>>> {
        let mut shared = self.shared.borrow_mut();
        if let Some(part) = shared.parts.pop_front() {
            if !shared.parts.is_empty() {
                return Poll::Ready(Some(Ok(part)));
            }
            // An idle stream keeps no buffer.
            (shared.parts, shared.bytes) = (VecDeque::new(), 0);
            if let Stage::Paused = shared.stage {
                shared.stage = Stage::Flowing;
                drop(shared);
                self.chain.resume();
            }
            return Poll::Ready(Some(Ok(part)));
        }
        if let Stage::Over(why) = &mut shared.stage {
            return Poll::Ready(why.take().map(|why| Err(*why)));
        }
        let former = shared.waker.replace(cx.waker().clone());
        // The borrow ends first, because a waker's destructor may run any code.
        drop(shared);
        drop(former);
        Poll::Pending
    }
}

impl<T> Drop for Taker<T> {
    fn drop(&mut self) {
        let is_over = matches!(self.shared.borrow().stage, Stage::Over(_));
        if !is_over {
            self.chain.cancel();
        }
    }
}

impl<T> fmt::Debug for Taker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.shared.borrow();
        f.debug_struct("Stream")
            .field("waiting", &shared.parts.len())
            .field("is_over", &matches!(shared.stage, Stage::Over(_)))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_shrinks_as_it_is_delivered() {
        assert!(Rest::of(b"").is_none());
        let rest = Rest::of(b"abcde").unwrap();
        assert_eq!(rest.bytes(), b"abcde");
        let rest = rest.leave(2).unwrap();
        assert_eq!(rest.bytes(), b"de");
        let rest = rest.leave(1).unwrap();
        assert_eq!(rest.bytes(), b"e");
        assert!(rest.leave(0).is_none());
    }
}
